//! The receiving side of sound: blocks of six, of which any four are enough.
//!
//! At most [`OPEN_BLOCKS`] blocks are open; when a further one begins, the oldest is given up. Packets are handed on in
//! order, and every number is either handed on or named as lost.

use std::collections::VecDeque;

use super::crypt::AudioCipher;
use super::send::AudioOptions;
use super::{
    DATA, DATA_TYPE, MAX_PAYLOAD_BYTES, PARITY, PARITY_HEADER_BYTES, PARITY_TYPE, RTP_BYTES,
    RTP_FIRST_BYTE,
};
use crate::fec::gf8::Gf8;
use crate::fec::{ErasureCode, Matrix, Shards};

/// Blocks that may be incomplete at a time: reordering beyond two blocks counts as loss.
const OPEN_BLOCKS: usize = 2;

/// A block this many packets ahead of the awaited one is a new start.
const MAX_AHEAD: i16 = 256;

/// Events that may wait to be polled; the oldest are forgotten.
const MAX_EVENTS: usize = 64;

/// What the receiver has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudioEvent {
    /// The next packet.
    Packet {
        /// Its number.
        sequence: u16,
        /// Its time in milliseconds.
        timestamp_ms: u32,
        /// Parity restored it.
        repaired: bool,
        /// The Opus packet.
        bytes: Vec<u8>,
    },
    /// Packets that could not be restored.
    Lost {
        /// The first one's number.
        first: u16,
        /// How many.
        count: u16,
    },
}

/// Turns GameStream audio datagrams back into Opus packets.
pub struct AudioReceiver {
    duration_ms: u32,
    cipher: Option<AudioCipher>,
    code: Gf8,
    /// The next packet to hand on.
    next: u16,
    /// Open blocks in order.
    pub(super) open: VecDeque<Block>,
    events: VecDeque<AudioEvent>,
}

/// Six shards on their way.
pub(super) struct Block {
    base: u16,
    base_time: u32,
    length: usize,
    shards: Vec<u8>,
    present: [bool; DATA + PARITY],
    /// Data shards as they arrived, before any repair.
    arrived: [bool; DATA],
}

/// A datagram, parsed.
struct Shard<'a> {
    base: u16,
    base_time: u32,
    index: usize,
    payload: &'a [u8],
}

impl AudioReceiver {
    /// A receiver for a new session with these options.
    pub fn new(options: AudioOptions) -> Self {
        Self {
            duration_ms: u32::from(options.packet_duration_ms),
            cipher: options.encryption.map(AudioCipher::new),
            code: Gf8::new(),
            next: 0,
            open: VecDeque::with_capacity(OPEN_BLOCKS + 1),
            events: VecDeque::new(),
        }
    }

    /// A receiver that awaits block number `block` first.
    #[cfg(any(test, feature = "sim"))]
    pub fn starting_at(options: AudioOptions, block: u16) -> Self {
        Self { next: block.wrapping_mul(DATA as u16), ..Self::new(options) }
    }

    /// The next thing the receiver has to say; to be polled after every datagram.
    pub fn poll_event(&mut self) -> Option<AudioEvent> {
        self.events.pop_front()
    }

    /// Takes one datagram from the network, whatever it is.
    pub fn handle_datagram(&mut self, datagram: &[u8]) {
        let Some(shard) = Shard::parse(datagram, self.duration_ms) else { return };
        let ahead = shard.base.wrapping_sub(block_of(self.next)) as i16;
        if ahead < 0 {
            return;
        }
        if ahead > MAX_AHEAD {
            // The sender was away for long: what is open will never be completed.
            self.open.clear();
            self.lose_until(shard.base);
        }
        self.store(&shard);
        self.advance();
    }

    fn store(&mut self, shard: &Shard<'_>) {
        let distance = |base: u16| base.wrapping_sub(block_of(self.next));
        let at = self.open.partition_point(|b| distance(b.base) < distance(shard.base));
        if self.open.get(at).is_none_or(|block| block.base != shard.base) {
            self.open.insert(at, Block::new(shard));
        }
        self.open[at].take(shard);
    }

    /// Hands on what is next, as far as that is known.
    fn advance(&mut self) {
        while let Some(mut block) = self.open.pop_front() {
            let give_up = self.open.len() >= OPEN_BLOCKS;
            let awaited = block.base == block_of(self.next);
            if !awaited && !give_up {
                self.open.push_front(block);
                return;
            }
            if !awaited {
                self.lose_until(block.base);
            }
            block.repair(&mut self.code);
            self.hand_on(&block, give_up);
            if self.next == block.base.wrapping_add(DATA as u16) {
                continue;
            }
            self.open.push_front(block);
            return;
        }
    }

    /// Hands on the packets of a block from the next one to the first gap, or with `give_up` all there are.
    fn hand_on(&mut self, block: &Block, give_up: bool) {
        for index in usize::from(self.next.wrapping_sub(block.base))..DATA {
            let sequence = self.next;
            if !block.present[index] {
                if !give_up {
                    return;
                }
                self.lose_until(sequence.wrapping_add(1));
                continue;
            }
            let mut bytes = block.shards[index * block.length..][..block.length].to_vec();
            if !self.cipher.as_ref().is_none_or(|cipher| cipher.decrypt(sequence, &mut bytes)) {
                self.lose_until(sequence.wrapping_add(1));
                continue;
            }
            self.next = sequence.wrapping_add(1);
            self.say(AudioEvent::Packet {
                sequence,
                timestamp_ms: block.base_time.wrapping_add(index as u32 * self.duration_ms),
                repaired: !block.arrived[index],
                bytes,
            });
        }
    }

    fn lose_until(&mut self, next: u16) {
        let (first, count) = (self.next, next.wrapping_sub(self.next));
        self.next = next;
        if count > 0 {
            self.say(AudioEvent::Lost { first, count });
        }
    }

    fn say(&mut self, event: AudioEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

impl Block {
    fn new(shard: &Shard<'_>) -> Self {
        let length = shard.payload.len();
        Self {
            base: shard.base,
            base_time: shard.base_time,
            length,
            // At most six payloads of one datagram each.
            shards: vec![0; (DATA + PARITY) * length],
            present: [false; DATA + PARITY],
            arrived: [false; DATA],
        }
    }

    fn take(&mut self, shard: &Shard<'_>) {
        if shard.payload.len() != self.length || shard.base_time != self.base_time {
            return;
        }
        if std::mem::replace(&mut self.present[shard.index], true) {
            return;
        }
        if let Some(arrived) = self.arrived.get_mut(shard.index) {
            *arrived = true;
        }
        self.shards[shard.index * self.length..][..self.length].copy_from_slice(shard.payload);
    }

    /// Restores missing data if enough is there; otherwise changes nothing.
    fn repair(&mut self, code: &mut Gf8) {
        let missing = self.present[..DATA].iter().any(|present| !present);
        let enough = self.present.iter().filter(|present| **present).count() >= DATA;
        if !missing || !enough {
            return;
        }
        let Ok(mut shards) = Shards::packed(&mut self.shards, self.length) else { return };
        if code.repair(Matrix::Audio, DATA, PARITY, &mut shards, &self.present).is_ok() {
            // Repair spends the parity.
            self.present = [true, true, true, true, false, false];
        }
    }
}

impl<'a> Shard<'a> {
    /// Reads a datagram of sound. spec: gamestream 8.1, 8.2
    fn parse(datagram: &'a [u8], duration_ms: u32) -> Option<Self> {
        let (rtp, rest) = datagram.split_first_chunk::<RTP_BYTES>()?;
        let short =
            |bytes: &[u8; RTP_BYTES], at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let long = |bytes: &[u8; RTP_BYTES], at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let shard = match [rtp[0], rtp[1]] {
            [RTP_FIRST_BYTE, DATA_TYPE] => {
                let sequence = short(rtp, 2);
                let base = block_of(sequence);
                let index = sequence.wrapping_sub(base);
                let offset = u32::from(index) * duration_ms;
                let base_time = long(rtp, 4).wrapping_sub(offset);
                Self { base, base_time, index: usize::from(index), payload: rest }
            }
            [RTP_FIRST_BYTE, PARITY_TYPE] => {
                const { assert!(PARITY_HEADER_BYTES == 2 * RTP_BYTES) };
                let (fec, payload) = rest.split_first_chunk::<RTP_BYTES>()?;
                let (index, base) = (usize::from(fec[0]), short(fec, 2));
                if index >= PARITY || base != block_of(base) {
                    return None;
                }
                Self { base, base_time: long(fec, 4), index: DATA + index, payload }
            }
            _ => return None,
        };
        (1..=MAX_PAYLOAD_BYTES).contains(&shard.payload.len()).then_some(shard)
    }
}

/// The number of the first packet of a packet's block.
fn block_of(sequence: u16) -> u16 {
    sequence & !(DATA as u16 - 1)
}
