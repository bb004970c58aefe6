//! The sending side of sound.

use std::fmt;

use super::crypt::{AudioCipher, BLOCK_BYTES};
use super::{DATA, DATA_TYPE, MAX_PAYLOAD_BYTES, PARITY, PARITY_TYPE, RTP_FIRST_BYTE};
use crate::fec::gf8::Gf8;
use crate::fec::{ErasureCode, Matrix, Shards};
use crate::line::AudioSender;
use crate::media::OpusPacket;
use crate::seal::SessionKey;

/// The largest Opus packet that can be sent, in bytes; no configuration of spec: gamestream 8.4 comes near it.
pub const MAX_OPUS_BYTES: usize = MAX_PAYLOAD_BYTES - BLOCK_BYTES;

/// What the client negotiated for sound.
#[derive(Debug, Clone)]
pub struct AudioOptions {
    /// Duration of a packet in milliseconds, 5 or 10. spec: gamestream 8.1
    pub packet_duration_ms: u8,
    /// The session's key and `rikeyid` (as its 32 bits) if sound is encrypted. spec: gamestream 8.3
    pub encryption: Option<(SessionKey, u32)>,
}

/// Turns Opus packets into GameStream audio datagrams.
pub struct AudioPacketizer {
    duration_ms: u32,
    cipher: Option<AudioCipher>,
    code: Gf8,
    /// The next packet's number.
    sequence: u16,
    /// The next packet's time in milliseconds. spec: gamestream 8.1
    timestamp: u32,
    /// Payloads of the block so far, one after the other.
    block: Vec<u8>,
    /// The common length of the block's payloads, or `None` once two differed: parity over them would be wrong, and a
    /// client that meets it gives up parity for the whole session. spec: gamestream 8.2
    payload_bytes: Option<usize>,
    datagram: Vec<u8>,
}

impl AudioPacketizer {
    /// A packetizer whose sequence starts as a new session's does.
    pub fn new(options: AudioOptions) -> Self {
        Self {
            duration_ms: u32::from(options.packet_duration_ms),
            cipher: options.encryption.map(AudioCipher::new),
            code: Gf8::new(),
            sequence: 0,
            timestamp: 0,
            block: vec![],
            payload_bytes: None,
            datagram: vec![],
        }
    }

    /// A packetizer whose sequence begins elsewhere, at a multiple of four, to see it wrap.
    #[cfg(any(test, feature = "sim"))]
    pub fn starting_at(options: AudioOptions, block: u16) -> Self {
        Self { sequence: block.wrapping_mul(DATA as u16), ..Self::new(options) }
    }

    fn send_data(&mut self, packet: &[u8], emit: &mut dyn FnMut(&[u8])) {
        write_rtp(&mut self.datagram, DATA_TYPE, self.sequence, self.timestamp);
        let start = self.datagram.len();
        match &self.cipher {
            Some(cipher) => cipher.encrypt(self.sequence, packet, &mut self.datagram),
            None => self.datagram.extend_from_slice(packet),
        }
        let payload = &self.datagram[start..];
        if self.sequence.is_multiple_of(DATA as u16) {
            self.block.clear();
            self.payload_bytes = Some(payload.len());
        }
        if self.payload_bytes == Some(payload.len()) {
            self.block.extend_from_slice(payload);
        } else {
            self.payload_bytes = None;
        }
        emit(&self.datagram);
    }

    /// Sends the parity of the block whose last packet was just sent.
    fn send_parity(&mut self, emit: &mut dyn FnMut(&[u8])) {
        let Some(length) = self.payload_bytes.filter(|&length| length > 0) else { return };
        self.block.resize((DATA + PARITY) * length, 0);
        let protected = Shards::packed(&mut self.block, length)
            .and_then(|mut shards| self.code.protect(Matrix::Audio, DATA, PARITY, &mut shards));
        if protected.is_err() {
            return;
        }
        let base = self.sequence.wrapping_sub(DATA as u16 - 1);
        let base_time = self.timestamp.wrapping_sub((DATA as u32 - 1) * self.duration_ms);
        for (index, parity) in (0u8..).zip(self.block[DATA * length..].chunks_exact(length)) {
            let sequence = self.sequence.wrapping_add(1 + u16::from(index));
            write_rtp(&mut self.datagram, PARITY_TYPE, sequence, 0);
            self.datagram.extend_from_slice(&[index, DATA_TYPE]);
            self.datagram.extend_from_slice(&base.to_be_bytes());
            self.datagram.extend_from_slice(&base_time.to_be_bytes());
            self.datagram.extend_from_slice(&[0; 4]);
            self.datagram.extend_from_slice(parity);
            emit(&self.datagram);
        }
    }
}

impl AudioSender for AudioPacketizer {
    /// A packet larger than [`MAX_OPUS_BYTES`] is not sent and takes no number, for a client would refuse it.
    fn submit(&mut self, packet: &OpusPacket, emit: &mut dyn FnMut(&[u8])) {
        if packet.bytes.len() > MAX_OPUS_BYTES {
            return;
        }
        self.send_data(&packet.bytes, emit);
        if self.sequence % DATA as u16 == DATA as u16 - 1 {
            self.send_parity(emit);
        }
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(self.duration_ms);
    }
}

impl fmt::Debug for AudioPacketizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AudioPacketizer").field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

/// Begins a datagram with its RTP header. spec: gamestream 8.1
fn write_rtp(datagram: &mut Vec<u8>, kind: u8, sequence: u16, timestamp: u32) {
    datagram.clear();
    datagram.extend_from_slice(&[RTP_FIRST_BYTE, kind]);
    datagram.extend_from_slice(&sequence.to_be_bytes());
    datagram.extend_from_slice(&timestamp.to_be_bytes());
    datagram.extend_from_slice(&[0; 4]);
}
