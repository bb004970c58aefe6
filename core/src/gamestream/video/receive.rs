//! The receiving machine: datagrams in, access units and requests out, as unforgiving as a stock client.
//!
//! It holds one block at a time. A datagram of a later block or frame means that the current one is given up, for a
//! stock client does not wait either. What is repaired keeps the header bytes parity gave it, except those that a
//! client makes anew, and is then checked like a client checks it. spec: gamestream 7.2, 7.6, 7.10
//!
//! Memory is bounded by the largest frame of the format and by a short queue of events.

use std::collections::VecDeque;

use super::header::{
    FLAG_DATA, FLAG_END, FLAG_START, FRAME_HEADER_BYTES, FrameHeader, FrameType, HEADER_BYTES,
    SHARD_OVERHEAD, ShardHeader, flags, stream_packet_index,
};
use super::seal::{PREFIX_BYTES, VideoOpener};
use super::send::{PACKET_SIZES, SPI_MASK, VideoCounters, VideoOptionsError};
use crate::fec::gf8::Gf8;
use crate::fec::{ErasureCode, Matrix, Shards};
use crate::media::FrameIndex;
use crate::seal::SessionKey;
use crate::time::{RtpTimestamp, Timestamp};

/// Frames and requests that may wait to be polled: a stock client's decoder queue. spec: gamestream 7.10
pub(super) const MAX_EVENTS: usize = 15;

/// Dropped frames in a row after which an IDR picture is asked for again. spec: gamestream 7.10
const DROPS_PER_REQUEST: u32 = 120;

/// What the receiver needs to know of the stream.
#[derive(Debug, Clone)]
pub struct VideoReceiverOptions {
    /// The announced packet size in bytes, `64..=1500`.
    pub packet_size: u16,
    /// The session's key if video is encrypted.
    pub encryption: Option<SessionKey>,
    /// What a lost frame is answered with.
    pub on_loss: LossPolicy,
}

/// What a client asks for when a frame is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LossPolicy {
    /// A new IDR picture.
    RequestIdr,
    /// That no later picture refers to the lost ones.
    Invalidate,
}

/// What the receiver has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReceiverEvent {
    /// A whole frame that a decoder would be given.
    Frame(ReceivedFrame),
    /// Ask the host for an IDR picture.
    RequestIdr,
    /// Tell the host that these frames, and what depends on them, are lost.
    Invalidate {
        /// The first lost frame.
        first: FrameIndex,
        /// The last lost frame.
        last: FrameIndex,
    },
}

/// A frame as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReceivedFrame {
    /// Its number.
    pub index: FrameIndex,
    /// How it says it depends on others.
    pub frame_type: FrameType,
    /// The host's latency in tenths of a millisecond; 0 is unknown.
    pub latency_tenths_ms: u16,
    /// When it was captured, in the host's time.
    pub timestamp: RtpTimestamp,
    /// When its last needed datagram came.
    pub completed_at: Timestamp,
    /// Data shards that parity restored.
    pub repaired_shards: usize,
    /// The coded bytes.
    pub bytes: Vec<u8>,
}

/// What became of the datagrams and frames so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// Datagrams that a block took.
    pub accepted: u64,
    /// Datagrams of blocks and frames that were already done or given up, and duplicates.
    pub late: u64,
    /// Datagrams that were malformed or not sealed with the session's key.
    pub refused: u64,
    /// Data shards that parity restored.
    pub repaired_shards: u64,
    /// Frames that were handed on.
    pub frames: u64,
    /// Frames that never became whole.
    pub lost_frames: u64,
    /// Whole frames that were of no use without the lost ones.
    pub dropped_frames: u64,
}

/// Turns GameStream video datagrams back into access units.
pub struct VideoReceiver {
    shard_bytes: usize,
    on_loss: LossPolicy,
    opener: Option<VideoOpener>,
    code: Gf8,
    /// The frame that is awaited, the sequence number behind the last finished block, and the next packet index.
    next: VideoCounters,
    /// The block of that frame that is awaited.
    block: u8,
    assembly: Assembly,
    /// Payloads of the frame's finished blocks.
    unit: Vec<u8>,
    unit_repaired: usize,
    waiting: Waiting,
    drops_in_row: u32,
    events: VecDeque<ReceiverEvent>,
    stats: ReceiverStats,
    scratch: Vec<u8>,
}

/// What the receiver waits for before it hands frames on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// Nothing: every frame is good.
    No,
    /// An IDR picture.
    Idr,
    /// A frame that refers to none from `first` on, or an IDR picture.
    Restart { first: FrameIndex },
}

/// The block that is being collected. Its buffers are kept from block to block.
#[derive(Default)]
struct Assembly {
    /// The header of its first datagram, if it has begun.
    header: Option<ShardHeader>,
    shards: Vec<u8>,
    present: Vec<bool>,
    data_present: usize,
    all_present: usize,
}

impl VideoReceiver {
    /// A receiver for a new session.
    ///
    /// # Errors
    /// [`VideoOptionsError::PacketSize`].
    pub fn new(options: VideoReceiverOptions) -> Result<Self, VideoOptionsError> {
        let (min, max) = PACKET_SIZES;
        if !(min..=max).contains(&options.packet_size) {
            return Err(VideoOptionsError::PacketSize { got: options.packet_size, min, max });
        }
        Ok(Self {
            shard_bytes: usize::from(options.packet_size) + SHARD_OVERHEAD,
            on_loss: options.on_loss,
            opener: options.encryption.as_ref().map(VideoOpener::new),
            code: Gf8::new(),
            next: VideoCounters::default(),
            block: 0,
            assembly: Assembly::default(),
            unit: vec![],
            unit_repaired: 0,
            waiting: Waiting::Idr,
            drops_in_row: 0,
            events: VecDeque::with_capacity(MAX_EVENTS),
            stats: ReceiverStats::default(),
            scratch: vec![],
        })
    }

    /// A receiver that expects a stream whose numbers begin elsewhere.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(any(test, feature = "sim"))]
    pub fn starting_at(
        options: VideoReceiverOptions,
        next: VideoCounters,
    ) -> Result<Self, VideoOptionsError> {
        Ok(Self { next, ..Self::new(options)? })
    }

    /// What became of the datagrams and frames so far.
    pub const fn stats(&self) -> ReceiverStats {
        self.stats
    }

    /// The next thing the receiver has to say. To be polled after every datagram; beyond fifteen waiting frames
    /// the receiver drops them all and asks for an IDR picture.
    pub fn poll_event(&mut self) -> Option<ReceiverEvent> {
        self.events.pop_front()
    }

    /// Takes one datagram from the network, whatever it is.
    pub fn handle_datagram(&mut self, now: Timestamp, datagram: &[u8]) {
        let mut shard = std::mem::take(&mut self.scratch);
        match self.open(datagram, &mut shard).and_then(|()| self.place(&shard)) {
            Ok(()) => {
                self.stats.accepted += 1;
                self.finish_block(now);
            }
            Err(Refusal::Late) => self.stats.late += 1,
            Err(Refusal::Malformed) => self.stats.refused += 1,
        }
        self.scratch = shard;
    }

    /// Opens a datagram into `shard`.
    fn open(&self, datagram: &[u8], shard: &mut Vec<u8>) -> Result<(), Refusal> {
        let prefix = if self.opener.is_some() { PREFIX_BYTES } else { 0 };
        let sizes = prefix + HEADER_BYTES..=prefix + self.shard_bytes;
        if !sizes.contains(&datagram.len()) {
            return Err(Refusal::Malformed);
        }
        let Some(opener) = &self.opener else {
            shard.clear();
            shard.extend_from_slice(datagram);
            return Ok(());
        };
        // A late datagram is not worth decrypting.
        let claimed = VideoOpener::claimed_frame(datagram).ok_or(Refusal::Malformed)?;
        if frames_ahead(claimed, self.next.frame) < 0 {
            return Err(Refusal::Late);
        }
        opener.open(datagram, shard).map_err(|_| Refusal::Malformed)
    }

    /// Puts a shard where it belongs, giving up what it proves lost.
    fn place(&mut self, shard: &[u8]) -> Result<(), Refusal> {
        let header = ShardHeader::parse(shard).ok_or(Refusal::Malformed)?;
        let first_sequence = header.first_sequence();
        let behind = |sequence: u16| (sequence.wrapping_sub(self.next.sequence) as i16) < 0;
        let ahead = frames_ahead(header.frame, self.next.frame);
        if behind(header.sequence) || behind(first_sequence) || ahead < 0 {
            return Err(Refusal::Late);
        }
        if ahead > 0 {
            self.lose(FrameIndex(header.frame.0.wrapping_sub(1)), header.frame);
        }
        if header.block < self.block {
            return Err(Refusal::Late);
        }
        if header.block > self.block {
            // An earlier block of this frame is lost, and with it the frame.
            self.lose(header.frame, FrameIndex(header.frame.0.wrapping_add(1)));
            return Err(Refusal::Late);
        }
        self.assembly.take(&header, shard, self.shard_bytes)
    }

    /// If the block has all it needs: repairs it, checks it and appends it to the frame.
    fn finish_block(&mut self, now: Timestamp) {
        let Some(header) = self.assembly.header else { return };
        let missing = header.data - self.assembly.data_present;
        if self.assembly.all_present < header.data {
            return;
        }
        let total = header.data + header.parity.count;
        if missing > 0 && !self.assembly.repair(&mut self.code, &header, self.shard_bytes) {
            return self.lose_current();
        }
        self.unit_repaired += missing;
        self.stats.repaired_shards += missing as u64;
        if !self.append(&header) {
            return self.lose_current();
        }
        // At most 1023 shards.
        self.next.sequence = header.first_sequence().wrapping_add(total as u16);
        self.assembly.header = None;
        if header.block < header.last_block {
            self.block += 1;
            return;
        }
        match self.take_frame(&header, now) {
            Some(frame) => self.hand_on(frame),
            None => self.lose_current(),
        }
    }

    /// Checks the data shards as a client's depacketizer does and appends their payloads.
    fn append(&mut self, header: &ShardHeader) -> bool {
        let mut next = self.next.stream_packet_index;
        for index in 0..header.data {
            let shard = &self.assembly.shards[index * self.shard_bytes..][..self.shard_bytes];
            let mut expected = FLAG_DATA;
            expected |= if index == 0 { FLAG_START } else { 0 };
            expected |= if index + 1 == header.data { FLAG_END } else { 0 };
            let spi = stream_packet_index(shard);
            let gap = spi.wrapping_sub(next) & SPI_MASK;
            // A gap is forgiven only where a block starts; the upper half of the numbers lies behind.
            let in_order = gap == 0 || (index == 0 && gap < 1 << 23);
            if flags(shard) != expected || !in_order {
                return false;
            }
            next = spi.wrapping_add(1) & SPI_MASK;
            self.unit.extend_from_slice(&shard[HEADER_BYTES..]);
        }
        self.next.stream_packet_index = next;
        true
    }

    /// The frame that the finished blocks make, unless its header is wrong.
    fn take_frame(&mut self, header: &ShardHeader, now: Timestamp) -> Option<ReceivedFrame> {
        let frame = FrameHeader::parse(&self.unit)?;
        let payload = self.shard_bytes - HEADER_BYTES;
        let last = usize::from(frame.last_payload_bytes);
        let end = self.unit.len().checked_sub(payload)?.checked_add(last)?;
        if last == 0 || last > payload || end <= FRAME_HEADER_BYTES {
            return None;
        }
        Some(ReceivedFrame {
            index: header.frame,
            frame_type: frame.frame_type,
            latency_tenths_ms: frame.latency_tenths_ms,
            timestamp: header.timestamp,
            completed_at: now,
            repaired_shards: self.unit_repaired,
            bytes: self.unit[FRAME_HEADER_BYTES..end].to_vec(),
        })
    }

    /// Gives a whole frame to the caller if it is of use, and awaits the next one.
    fn hand_on(&mut self, frame: ReceivedFrame) {
        self.await_frame(FrameIndex(frame.index.0.wrapping_add(1)));
        match self.waiting {
            Waiting::Idr if frame.frame_type != FrameType::Idr => return self.drop_frame(),
            Waiting::Restart { first } if !frame.frame_type.restarts() => {
                self.drop_frame();
                return self.say(ReceiverEvent::Invalidate { first, last: frame.index });
            }
            _ => self.waiting = Waiting::No,
        }
        self.drops_in_row = 0;
        self.stats.frames += 1;
        self.say(ReceiverEvent::Frame(frame));
    }

    /// A whole frame was of no use.
    fn drop_frame(&mut self) {
        self.stats.dropped_frames += 1;
        self.count_drop(1);
    }

    /// Asks for an IDR picture at the first drop and at every 120th in a row.
    fn count_drop(&mut self, frames: u32) {
        let before = self.drops_in_row;
        self.drops_in_row = before.saturating_add(frames);
        let due = before / DROPS_PER_REQUEST < self.drops_in_row / DROPS_PER_REQUEST;
        if due || (before == 0 && self.waiting == Waiting::Idr) {
            self.say(ReceiverEvent::RequestIdr);
        }
    }

    fn lose_current(&mut self) {
        let frame = self.next.frame;
        self.lose(frame, FrameIndex(frame.0.wrapping_add(1)));
    }

    /// Gives up every frame from the awaited one to `last`, and awaits `next`.
    fn lose(&mut self, last: FrameIndex, next: FrameIndex) {
        let first = self.next.frame;
        // A hole is at most half the 16-bit circle in which frames are compared.
        let count = u32::from((last.0.wrapping_sub(first.0) as u16).wrapping_add(1));
        self.stats.lost_frames += u64::from(count);
        self.await_frame(next);
        match (self.waiting, self.on_loss) {
            // What is lost may be the IDR picture that was asked for, so each loss asks again, as a stock client does.
            (Waiting::Idr, _) | (_, LossPolicy::RequestIdr) => {
                self.waiting = Waiting::Idr;
                self.drops_in_row = self.drops_in_row.saturating_add(count);
                self.say(ReceiverEvent::RequestIdr);
            }
            (waiting, LossPolicy::Invalidate) => {
                let first = if let Waiting::Restart { first } = waiting { first } else { first };
                self.waiting = Waiting::Restart { first };
                self.count_drop(count);
                self.say(ReceiverEvent::Invalidate { first, last });
            }
        }
    }

    fn await_frame(&mut self, next: FrameIndex) {
        self.next.frame = next;
        self.block = 0;
        self.assembly.header = None;
        self.unit.clear();
        self.unit_repaired = 0;
    }

    /// Queues an event; a caller that does not poll loses all of them and must start again from an IDR picture.
    fn say(&mut self, event: ReceiverEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.clear();
            self.waiting = Waiting::Idr;
            self.events.push_back(ReceiverEvent::RequestIdr);
            return;
        }
        self.events.push_back(event);
    }
}

impl Assembly {
    /// Stores a shard; the first one of a block says how the block looks.
    fn take(
        &mut self,
        header: &ShardHeader,
        shard: &[u8],
        shard_bytes: usize,
    ) -> Result<(), Refusal> {
        let begun = *self.header.get_or_insert_with(|| {
            let total = header.data + header.parity.count;
            self.shards.clear();
            self.shards.resize(total * shard_bytes, 0);
            self.present.clear();
            self.present.resize(total, false);
            (self.data_present, self.all_present) = (0, 0);
            *header
        });
        let same = begun.frame == header.frame
            && (begun.block, begun.last_block) == (header.block, header.last_block)
            && (begun.data, begun.parity) == (header.data, header.parity)
            && begun.first_sequence() == header.first_sequence();
        if !same {
            return Err(Refusal::Malformed);
        }
        if std::mem::replace(&mut self.present[header.index], true) {
            return Err(Refusal::Late);
        }
        // A shorter last shard is filled up with the zeros that parity was computed over. spec: gamestream 7.2
        self.shards[header.index * shard_bytes..][..shard.len()].copy_from_slice(shard);
        self.all_present += 1;
        self.data_present += usize::from(header.index < header.data);
        Ok(())
    }

    /// Restores the missing data shards; false if that is impossible.
    fn repair(&mut self, code: &mut Gf8, header: &ShardHeader, shard_bytes: usize) -> bool {
        let Ok(mut shards) = Shards::packed(&mut self.shards, shard_bytes) else { return false };
        let (data, parity) = (header.data, header.parity.count);
        code.repair(Matrix::Cauchy, data, parity, &mut shards, &self.present).is_ok()
    }
}

impl ShardHeader {
    /// The sequence number of the block's first shard.
    fn first_sequence(&self) -> u16 {
        // The index has ten bits.
        self.sequence.wrapping_sub(self.index as u16)
    }
}

/// Why a datagram was not taken.
enum Refusal {
    Late,
    Malformed,
}

/// How far `frame` is ahead of `awaited`, in the 16 bits in which clients compare. spec: gamestream 7.2
fn frames_ahead(frame: FrameIndex, awaited: FrameIndex) -> i16 {
    frame.0.wrapping_sub(awaited.0) as u16 as i16
}
