//! The receivers of video and sound, on genuine streams that a script damages and on datagrams of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use punktfunk_core::gamestream::audio::{
    AudioEvent, AudioOptions, AudioPacketizer, AudioReceiver, MAX_OPUS_BYTES,
};
use punktfunk_core::gamestream::video::{
    LossPolicy, ReceiverEvent, VideoReceiver, VideoReceiverOptions, VideoSealer, VideoSender,
    VideoSenderOptions,
};
use punktfunk_core::line::{AudioSender, FrameSender};
use punktfunk_core::media::{AccessUnit, FrameIndex, FrameKind, OpusPacket, SourceIndex};
use punktfunk_core::seal::{Sealer, SessionKey};
use punktfunk_core::time::Timestamp;

use super::Script;

const KEY: [u8; 16] = [9; 16];
/// Bytes that a sealed datagram is longer than its shard.
// spec: gamestream 7.8
const PREFIX_BYTES: usize = 32;

/// What the receiver may say after one datagram.
const MAX_EVENTS: usize = 15;

struct VideoRig {
    sender: VideoSender,
    receiver: VideoReceiver,
    sealer: Option<VideoSealer>,
    sent: BTreeMap<u32, Vec<u8>>,
    /// Damage reaches the decoder only where nothing is sealed.
    is_sealed: bool,
    datagrams: u64,
    now: Timestamp,
}

pub(super) fn video(bytes: &[u8]) {
    let mut script = Script(bytes);
    let options = script.byte().unwrap_or(0);
    let Some(mut rig) = VideoRig::new(options) else { panic!("the options are legal") };
    while let Some(choice) = script.byte() {
        match choice & 3 {
            // A datagram of the stranger's own.
            0 => {
                let datagram = script.piece().unwrap_or_default();
                rig.receive(datagram);
            }
            // The same, sealed with the right key.
            1 => {
                let shard = script.piece().unwrap_or_default();
                rig.receive_sealed(shard);
            }
            // A frame, of which some datagrams are lost, doubled, damaged or cut.
            _ => {
                let length = usize::from(script.word().unwrap_or(0)) % 6000;
                let kind = if choice & 4 == 0 { FrameKind::Idr } else { FrameKind::Predicted };
                let fates = script.piece().unwrap_or_default();
                rig.frame(kind, length, choice, fates);
            }
        }
    }
}

impl VideoRig {
    fn new(options: u8) -> Option<Self> {
        let is_sealed = options & 1 != 0;
        let packet_size = [64, 256, 1392, 1500][usize::from(options >> 1 & 3)];
        let on_loss =
            if options & 8 == 0 { LossPolicy::RequestIdr } else { LossPolicy::Invalidate };
        let encryption = is_sealed.then(|| SessionKey::new(KEY));
        let sender = VideoSender::new(VideoSenderOptions {
            packet_size,
            fec_percentage: options >> 4 & 3 | 20,
            min_parity: options >> 6,
            single_block: false,
            encryption: encryption.clone(),
            bitrate_kbps: 10_000,
            frame_interval: Duration::from_millis(16),
        });
        let receiver =
            VideoReceiver::new(VideoReceiverOptions { packet_size, encryption, on_loss });
        Some(Self {
            sender: sender.ok()?,
            receiver: receiver.ok()?,
            // Another one than the sender's: its nonces repeat, which harms only somebody who keeps secrets.
            sealer: is_sealed.then(|| VideoSealer::new(&SessionKey::new(KEY))),
            sent: BTreeMap::new(),
            is_sealed,
            datagrams: 0,
            now: Timestamp::ZERO,
        })
    }

    fn receive(&mut self, datagram: &[u8]) {
        self.receiver.handle_datagram(self.now, datagram);
        self.datagrams += 1;
        let stats = self.receiver.stats();
        assert_eq!(stats.accepted + stats.late + stats.refused, self.datagrams);
        let mut events = 0;
        while let Some(event) = self.receiver.poll_event() {
            events += 1;
            if let ReceiverEvent::Frame(frame) = event {
                assert!(!frame.bytes.is_empty());
            }
        }
        assert!(events <= MAX_EVENTS);
    }

    fn receive_sealed(&mut self, shard: &[u8]) {
        let Some(mut sealer) = self.sealer.take() else { return self.receive(shard) };
        let frame = shard.get(20..24).and_then(<[u8]>::first_chunk);
        let frame = FrameIndex(frame.map_or(1, |index| u32::from_le_bytes(*index)));
        let mut slot = vec![0; PREFIX_BYTES];
        slot.extend_from_slice(shard);
        assert!(sealer.seal(frame, &mut slot).is_ok());
        self.sealer = Some(sealer);
        self.receive(&slot);
    }

    fn frame(&mut self, kind: FrameKind, length: usize, choice: u8, fates: &[u8]) {
        let unit = AccessUnit {
            source: SourceIndex(0),
            kind,
            captured_at: self.now,
            encode_began_at: self.now,
            encoded_at: self.now,
            repeated: false,
            bytes: (0..length.max(1)).map(|at| at as u8 ^ choice).collect(),
        };
        let Ok(index) = self.sender.submit(&unit, self.now) else { return };
        self.sent.insert(index.index.0, unit.bytes);
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        while let Some(due) = self.sender.poll_timeout() {
            self.now = self.now.max(due);
            while let Some(burst) = self.sender.poll_burst(self.now) {
                datagrams.extend(burst.datagrams.chunks(burst.segment_bytes).map(<[u8]>::to_vec));
            }
        }
        for (at, datagram) in datagrams.iter_mut().enumerate() {
            match fates.get(at).copied().unwrap_or(0) {
                0 => self.receive_honest(datagram),
                1 => {}
                2 => {
                    self.receive_honest(datagram);
                    self.receive(datagram);
                }
                3 => self.receive(&datagram[..datagram.len() / 2]),
                fate => {
                    let spot = usize::from(fate) % datagram.len().min(64);
                    datagram[spot] ^= 1 << (fate % 8);
                    self.receive(datagram);
                }
            }
        }
    }

    /// A datagram as it was sent: under a seal, what comes out of it is what went in.
    fn receive_honest(&mut self, datagram: &[u8]) {
        self.receiver.handle_datagram(self.now, datagram);
        self.datagrams += 1;
        while let Some(event) = self.receiver.poll_event() {
            if let ReceiverEvent::Frame(frame) = event
                && self.is_sealed
                && self.honest_so_far()
            {
                assert_eq!(self.sent.get(&frame.index.0), Some(&frame.bytes));
            }
        }
    }

    /// Nothing was sealed by the script itself.
    fn honest_so_far(&self) -> bool {
        self.sealer.as_ref().is_some_and(|sealer| sealer.left() == u64::MAX)
    }
}

pub(super) fn audio(bytes: &[u8]) {
    let mut script = Script(bytes);
    let options = script.byte().unwrap_or(0);
    let options = AudioOptions {
        packet_duration_ms: if options & 1 == 0 { 5 } else { 10 },
        encryption: (options & 2 != 0).then(|| (SessionKey::new(KEY), u32::from(options))),
    };
    let mut packetizer = AudioPacketizer::new(options.clone());
    let mut receiver = AudioReceiver::new(options);
    // Every number is handed on or named as lost, once, in order.
    let mut next: u16 = 0;
    while let Some(choice) = script.byte() {
        if choice & 1 == 0 {
            let datagram = script.piece().unwrap_or_default();
            receive_sound(&mut receiver, datagram, &mut next);
            continue;
        }
        let length = usize::from(choice >> 1) * 8;
        let (fate, change) = (script.byte().unwrap_or(0), script.byte().unwrap_or(0));
        let packet = OpusPacket { captured_at: Timestamp::ZERO, bytes: vec![change; length] };
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        packetizer.submit(&packet, &mut |datagram| datagrams.push(datagram.to_vec()));
        for (at, datagram) in datagrams.iter_mut().enumerate() {
            match fate >> (2 * at) & 3 {
                0 => {}
                1 => continue,
                2 => datagram.truncate(datagram.len() / 2),
                _ => {
                    let spot = usize::from(change) % datagram.len();
                    datagram[spot] ^= 0x11;
                }
            }
            receive_sound(&mut receiver, datagram, &mut next);
        }
    }
}

fn receive_sound(receiver: &mut AudioReceiver, datagram: &[u8], next: &mut u16) {
    receiver.handle_datagram(datagram);
    let mut events = 0;
    while let Some(event) = receiver.poll_event() {
        events += 1;
        let (first, count) = match event {
            AudioEvent::Packet { sequence, bytes, .. } => {
                assert!(bytes.len() <= MAX_OPUS_BYTES + 16);
                (sequence, 1)
            }
            AudioEvent::Lost { first, count } => (first, count),
        };
        assert_eq!(first, *next, "a number was skipped or repeated");
        assert!(count > 0);
        *next = first.wrapping_add(count);
    }
    assert!(events <= 64);
}
