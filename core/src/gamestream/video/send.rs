//! The sending machine: one access unit becomes blocks of sealed datagrams, handed out at the pacer's speed.
//!
//! Order is everything to a stock client: frames strictly one after the other, blocks strictly in order within a frame,
//! sequence numbers without a gap. So the queue is one line of sealed blocks, and a frame takes its numbers only when it
//! is certain that all of it can be sent.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use super::header::{
    BlockHeader, FLAG_DATA, FLAG_END, FLAG_START, FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES,
    SHARD_OVERHEAD, patch, write_data_header,
};
use super::plan::{BlockPlan, FramePlan, FramePlanner, MAX_BLOCKS};
use super::seal::VideoSealer;
use crate::block::{BlockPool, SealedBlock, SlotLayout};
use crate::fec::Matrix;
use crate::fec::gf8::Gf8;
use crate::line::{Burst, FrameSender, SubmitError, Submitted};
use crate::media::{AccessUnit, FrameIndex, FrameShape};
use crate::pace::{TokenBucket, frame_rate};
use crate::seal::{Clear, Sealer, SessionKey};
use crate::time::Timestamp;

/// What the client negotiated for video.
#[derive(Debug, Clone)]
pub struct VideoSenderOptions {
    /// The announced packet size in bytes, `64..=1500`; never deviated from. spec: gamestream 7.2
    pub packet_size: u16,
    /// Parity in percent of the data, `0..=100`; 0 sends none.
    pub fec_percentage: u8,
    /// The least number of parity shards per block, `0..=64`. spec: gamestream 7.5
    pub min_parity: u8,
    /// The client's core is too old for frames of several blocks. spec: gamestream 7.5
    pub single_block: bool,
    /// The session's key if video is encrypted.
    pub encryption: Option<SessionKey>,
    /// The stream's bitrate in kbit/s; the pacer's estimate of the link derives from it.
    pub bitrate_kbps: u32,
    /// The time from one frame to the next.
    pub frame_interval: Duration,
}

/// Why a video sender cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VideoOptionsError {
    /// The packet size is out of range.
    #[error("a packet size of {got} bytes is outside {min}..={max}")]
    PacketSize {
        /// What was asked for, in bytes.
        got: u16,
        /// The least.
        min: u16,
        /// The most.
        max: u16,
    },
    /// More parity than data.
    #[error("{got} percent of parity is more than {max}")]
    FecPercentage {
        /// What was asked for, in percent.
        got: u8,
        /// The most.
        max: u8,
    },
    /// Too many parity shards per block.
    #[error("a minimum of {got} parity shards is more than {max}")]
    MinParity {
        /// What was asked for.
        got: u8,
        /// The most.
        max: u8,
    },
}

/// The smallest and the largest packet size, in bytes.
pub(super) const PACKET_SIZES: (u16, u16) = (64, 1500);
const MAX_FEC_PERCENTAGE: u8 = 100;
const MAX_MIN_PARITY: u8 = 64;

/// Frames that may wait for departure: the one that leaves and the one behind it.
const MAX_QUEUED_FRAMES: usize = 2;

/// The most datagrams of a burst, which is also what a kernel takes in one segmented send. spec: gamestream 7.11
const MAX_BURST_DATAGRAMS: usize = 64;

/// The most bytes of a burst: the largest UDP payload of one IPv4 send, segmented or not.
const MAX_BURST_BYTES: usize = 65_507;

/// How much the pacer waits for before it lets the next datagrams of a frame go: rarer bursts cost fewer system calls.
const BURST_QUANTUM: Duration = Duration::from_micros(500);

/// The fewest datagrams worth waiting for.
const MIN_QUANTUM_DATAGRAMS: usize = 4;

/// Link estimates in bytes per second: 100 Mbit/s and 80 % of 1 Gbit/s. spec: gamestream 7.11
const LINK_RATES: (u64, u64) = (12_500_000, 100_000_000);

/// People choose a bitrate well below what their link carries; ten times it is taken for the link's rate.
const LINK_PER_BITRATE: u64 = 10;

/// The stream packet index has 24 bits. spec: gamestream 7.2
pub(super) const SPI_MASK: u32 = 0xff_ffff;

/// The first frame of a session. spec: gamestream 7.2
pub(super) const FIRST_FRAME: FrameIndex = FrameIndex(1);

/// Turns access units into GameStream video datagrams.
pub struct VideoSender {
    payload_bytes: usize,
    planner: FramePlanner,
    code: Gf8,
    sealer: Box<dyn Sealer>,
    pool: BlockPool,
    queue: VecDeque<QueuedBlock>,
    counters: VideoCounters,
    bucket: TokenBucket,
    link_bytes_per_second: u64,
    frame_interval: Duration,
    datagram_bytes: usize,
}

/// Where the numbers of a stream stand: the ones its next frame will take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VideoCounters {
    /// The next frame's number.
    pub frame: FrameIndex,
    /// The next datagram's RTP sequence number.
    pub sequence: u16,
    /// The next datagram's stream packet index, 24 bits.
    pub stream_packet_index: u32,
}

impl Default for VideoCounters {
    // spec: gamestream 7.2
    fn default() -> Self {
        Self { frame: FIRST_FRAME, sequence: 0, stream_packet_index: 0 }
    }
}

/// A block on its way out.
struct QueuedBlock {
    block: SealedBlock,
    frame: FrameIndex,
    /// It ends its frame.
    last: bool,
    /// The rate of its frame in bytes per second.
    rate: u64,
    /// Datagrams already handed out.
    sent: usize,
}

impl QueuedBlock {
    fn waiting(&self) -> usize {
        self.block.count() - self.sent
    }
}

impl VideoSender {
    /// A sender whose counters start as a new session's do.
    ///
    /// # Errors
    /// [`VideoOptionsError`] names the option that is out of range.
    pub fn new(options: VideoSenderOptions) -> Result<Self, VideoOptionsError> {
        let VideoSenderOptions { packet_size, fec_percentage, min_parity, .. } = options;
        let (min, max) = PACKET_SIZES;
        if !(min..=max).contains(&packet_size) {
            return Err(VideoOptionsError::PacketSize { got: packet_size, min, max });
        }
        if fec_percentage > MAX_FEC_PERCENTAGE {
            let (got, max) = (fec_percentage, MAX_FEC_PERCENTAGE);
            return Err(VideoOptionsError::FecPercentage { got, max });
        }
        if min_parity > MAX_MIN_PARITY {
            return Err(VideoOptionsError::MinParity { got: min_parity, max: MAX_MIN_PARITY });
        }
        let sealer: Box<dyn Sealer> = match &options.encryption {
            Some(key) => Box::new(VideoSealer::new(key)),
            None => Box::new(Clear),
        };
        let shard = usize::from(packet_size) + SHARD_OVERHEAD;
        let layout = SlotLayout::new(shard, &*sealer);
        let burst = MAX_BURST_DATAGRAMS.min(MAX_BURST_BYTES / layout.bytes());
        let bitrate = u64::from(options.bitrate_kbps) * 1000 / 8;
        let link = (bitrate * LINK_PER_BITRATE).clamp(LINK_RATES.0, LINK_RATES.1);
        Ok(Self {
            payload_bytes: shard - HEADER_BYTES,
            planner: FramePlanner::new(fec_percentage, min_parity, options.single_block),
            code: Gf8::new(),
            sealer,
            pool: BlockPool::new(layout, MAX_QUEUED_FRAMES * MAX_BLOCKS),
            queue: VecDeque::with_capacity(MAX_QUEUED_FRAMES * MAX_BLOCKS),
            counters: VideoCounters::default(),
            bucket: TokenBucket::new((burst * layout.bytes()) as u64, link),
            link_bytes_per_second: link,
            frame_interval: options.frame_interval,
            datagram_bytes: layout.bytes(),
        })
    }

    /// A sender whose numbers begin elsewhere, to see them wrap.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    #[cfg(any(test, feature = "sim"))]
    pub fn starting_at(
        options: VideoSenderOptions,
        counters: VideoCounters,
    ) -> Result<Self, VideoOptionsError> {
        Ok(Self { counters, ..Self::new(options)? })
    }

    /// Another sealer, to see it run out.
    #[cfg(test)]
    pub(super) fn with_sealer(mut self, sealer: Box<dyn Sealer>) -> Self {
        self.sealer = sealer;
        self
    }

    /// Buffers that wait to be used again.
    #[cfg(test)]
    pub(super) fn idle_buffers(&self) -> usize {
        self.pool.idle()
    }

    /// Returns the buffers of blocks that were handed out to the pool.
    fn retire(&mut self) {
        while self.queue.front().is_some_and(|front| front.waiting() == 0) {
            if let Some(done) = self.queue.pop_front() {
                self.pool.put(done.block);
            }
        }
    }

    /// Frames of which datagrams still wait.
    fn queued_frames(&self) -> usize {
        self.queue.iter().filter(|queued| queued.last && queued.waiting() > 0).count()
    }

    /// Builds the blocks of a frame that is known to fit, and advances all numbers.
    fn queue_frame(
        &mut self,
        unit: &AccessUnit,
        plan: FramePlan,
        header: FrameHeader,
        rate: u64,
    ) -> Result<(), SubmitError> {
        let start = header.write();
        for block_plan in plan.blocks() {
            let block = self.build_block(unit, &start, block_plan, plan)?;
            self.queue.push_back(QueuedBlock {
                block,
                frame: self.counters.frame,
                last: block_plan.block + 1 == plan.block_count(),
                rate,
                sent: 0,
            });
        }
        self.counters.frame = FrameIndex(self.counters.frame.0.wrapping_add(1));
        Ok(())
    }

    #[expect(clippy::expect_used, reason = "the planner makes only blocks that the code has")]
    fn build_block(
        &mut self,
        unit: &AccessUnit,
        start: &[u8; FRAME_HEADER_BYTES],
        plan: BlockPlan,
        frame: FramePlan,
    ) -> Result<SealedBlock, SubmitError> {
        let counters = &mut self.counters;
        let mut block = self.pool.take(plan.data, plan.parity.count);
        for index in 0..plan.data {
            // Start and end are marked per block, not per frame: parity advances the packet index between blocks, and a
            // client accepts a jump only where a block starts. spec: gamestream 7.6
            let mut flags = FLAG_DATA;
            flags |= if index == 0 { FLAG_START } else { 0 };
            flags |= if index + 1 == plan.data { FLAG_END } else { 0 };
            let shard = block.shard_mut(index);
            let spi = counters.stream_packet_index.wrapping_add(index as u32) & SPI_MASK;
            write_data_header(shard, spi, flags);
            write_payload(&mut shard[HEADER_BYTES..], start, &unit.bytes, plan.first + index);
        }
        let mut block = block
            .protect(&mut self.code, Matrix::Cauchy)
            .expect("a planned block has at most 255 shards or no parity");
        let header = BlockHeader {
            frame: counters.frame,
            timestamp: unit.captured_at.to_rtp(),
            plan,
            block_count: frame.block_count(),
            first_sequence: counters.sequence,
        };
        let count = block.count();
        for index in 0..count {
            patch(block.shard_mut(index), &header, index);
        }
        counters.sequence = counters.sequence.wrapping_add(count as u16);
        counters.stream_packet_index =
            counters.stream_packet_index.wrapping_add(count as u32) & SPI_MASK;
        block.seal(&mut *self.sealer, counters.frame).map_err(|_| SubmitError::CounterExhausted)
    }

    /// How many datagrams the pacer waits for when `waiting` are left in the block, and how many it lets go at most.
    fn quantum(&self, rate: u64, waiting: usize) -> (usize, usize) {
        let most = MAX_BURST_DATAGRAMS.min(MAX_BURST_BYTES / self.datagram_bytes);
        let bytes = u128::from(rate) * BURST_QUANTUM.as_micros() / 1_000_000;
        let worth = usize::try_from(bytes / self.datagram_bytes as u128).unwrap_or(most);
        (worth.clamp(MIN_QUANTUM_DATAGRAMS, most).min(waiting), most.min(waiting))
    }
}

impl FrameSender for VideoSender {
    fn submit(&mut self, unit: &AccessUnit, now: Timestamp) -> Result<Submitted, SubmitError> {
        self.retire();
        let got = self.queued_frames();
        if got >= MAX_QUEUED_FRAMES {
            return Err(SubmitError::Backlog { got, max: MAX_QUEUED_FRAMES });
        }
        let bytes = unit.bytes.len().saturating_add(FRAME_HEADER_BYTES);
        let Some(plan) = self.planner.plan(bytes.div_ceil(self.payload_bytes)) else {
            let max = self.max_unit_bytes();
            return Err(SubmitError::TooLarge { got: unit.bytes.len(), max });
        };
        let datagrams = plan.datagrams() as u64;
        if self.sealer.left() < datagrams {
            return Err(SubmitError::CounterExhausted);
        }
        let size = datagrams * self.datagram_bytes as u64;
        let rate = frame_rate(size, self.link_bytes_per_second, self.frame_interval);
        let last = bytes % self.payload_bytes;
        let header = FrameHeader {
            latency_tenths_ms: latency(unit, now),
            frame_type: unit.kind.into(),
            // At most the payload of one datagram of at most 1516 bytes.
            last_payload_bytes: if last == 0 { self.payload_bytes } else { last } as u16,
        };
        let index = self.counters.frame;
        let shape = FrameShape::new(self.counters.sequence, plan.blocks().map(BlockPlan::shape));
        self.queue_frame(unit, plan, header, rate)?;
        Ok(Submitted { index, shape })
    }

    fn poll_burst(&mut self, now: Timestamp) -> Option<Burst<'_>> {
        self.retire();
        let front = self.queue.front()?;
        let (rate, (worth, most)) = (front.rate, self.quantum(front.rate, front.waiting()));
        self.bucket.set_rate(now, rate);
        let size = self.datagram_bytes;
        let may = usize::try_from(self.bucket.available(now)).unwrap_or(usize::MAX) / size;
        if may < worth {
            return None;
        }
        let count = may.min(most);
        self.bucket.take((count * size) as u64);
        let front = self.queue.front_mut()?;
        let first = front.sent;
        front.sent += count;
        Some(Burst {
            datagrams: front.block.datagrams(first, count),
            segment_bytes: size,
            frame: front.frame,
            last: front.last && front.waiting() == 0,
        })
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        let front = self.queue.iter().find(|queued| queued.waiting() > 0)?;
        let (worth, _) = self.quantum(front.rate, front.waiting());
        Some(self.bucket.ready_at((worth * self.datagram_bytes) as u64))
    }

    fn max_unit_bytes(&self) -> usize {
        self.planner.max_frame_data() * self.payload_bytes - FRAME_HEADER_BYTES
    }
}

impl fmt::Debug for VideoSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VideoSender").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Writes data shard `index` of a frame: a window of the frame header followed by the coded bytes, zero padded.
fn write_payload(payload: &mut [u8], start: &[u8; FRAME_HEADER_BYTES], bytes: &[u8], index: usize) {
    let (room, from) = if index == 0 {
        payload[..FRAME_HEADER_BYTES].copy_from_slice(start);
        (&mut payload[FRAME_HEADER_BYTES..], 0)
    } else {
        let from = index * payload.len() - FRAME_HEADER_BYTES;
        (payload, from)
    };
    let rest = bytes.get(from..).unwrap_or_default();
    let count = rest.len().min(room.len());
    room[..count].copy_from_slice(&rest[..count]);
    room[count..].fill(0);
}

/// Capture to packetization in tenths of a millisecond; 0 for a repeated frame. spec: gamestream 7.4
fn latency(unit: &AccessUnit, now: Timestamp) -> u16 {
    if unit.repeated {
        return 0;
    }
    let tenths = now.since(unit.captured_at).as_micros() / 100;
    // Zero would say "unknown" of a frame that was merely fast.
    u16::try_from(tenths).unwrap_or(u16::MAX).max(1)
}
