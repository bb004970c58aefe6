//! The headers of a video shard and of a frame, byte for byte.
//!
//! A shard is 16 bytes of RTP, 16 bytes of packet header and the payload. Parity covers all of it, but a client makes
//! some header fields anew after a repair. So the fields fall into two sets: those that parity must carry are written
//! before it is computed ([`DataHeader`]), the others are patched into data and parity shards alike ([`patch`]).

use super::plan::{BlockPlan, MAX_BLOCK_DATA, Parity};
use crate::media::{FrameIndex, FrameKind};
use crate::time::RtpTimestamp;

/// Bytes of both headers together. spec: gamestream 7.2
pub(super) const HEADER_BYTES: usize = 32;

/// What a shard is longer than the announced packet size. spec: gamestream 7.2
pub(super) const SHARD_OVERHEAD: usize = 16;

/// Bytes of the frame header. spec: gamestream 7.4
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// The shard carries picture data. spec: gamestream 7.3
pub(super) const FLAG_DATA: u8 = 0x1;
/// The last data shard of a block.
pub(super) const FLAG_END: u8 = 0x2;
/// The first data shard of a block.
pub(super) const FLAG_START: u8 = 0x4;

/// RTP version 2 with an extension. spec: gamestream 7.2
const RTP_FIRST_BYTE: u8 = 0x90;
const MULTI_FEC_FLAGS: u8 = 0x10;

/// What a client reads as the kind of a frame. spec: gamestream 7.4
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// Predicted from the frames before it.
    Predicted,
    /// An IDR picture.
    Idr,
    /// Intra refresh; this host sends none.
    IntraRefresh,
    /// The first predicted picture after a reference invalidation.
    AfterInvalidation,
}

impl FrameType {
    /// The number on the wire.
    pub const fn code(self) -> u8 {
        match self {
            Self::Predicted => 1,
            Self::Idr => 2,
            Self::IntraRefresh => 4,
            Self::AfterInvalidation => 5,
        }
    }

    /// The type behind a number on the wire.
    pub const fn parse(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Predicted,
            2 => Self::Idr,
            4 => Self::IntraRefresh,
            5 => Self::AfterInvalidation,
            _ => return None,
        })
    }

    /// Ends a client's wait after a loss. spec: gamestream 7.4
    pub const fn restarts(self) -> bool {
        !matches!(self, Self::Predicted)
    }
}

impl From<FrameKind> for FrameType {
    fn from(kind: FrameKind) -> Self {
        match kind {
            FrameKind::Idr => Self::Idr,
            FrameKind::Predicted => Self::Predicted,
            FrameKind::AfterInvalidation => Self::AfterInvalidation,
        }
    }
}

/// The header at the start of a frame's bytes. spec: gamestream 7.4
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameHeader {
    /// Capture to packetization in 0.1 ms; 0 is unknown.
    pub(super) latency_tenths_ms: u16,
    pub(super) frame_type: FrameType,
    /// Payload bytes of the frame's last data shard, this header included if the frame has one shard.
    pub(super) last_payload_bytes: u16,
}

impl FrameHeader {
    pub(super) fn write(self) -> [u8; FRAME_HEADER_BYTES] {
        let latency = self.latency_tenths_ms.to_le_bytes();
        let last = self.last_payload_bytes.to_le_bytes();
        [0x01, latency[0], latency[1], self.frame_type.code(), last[0], last[1], 0, 0]
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[0x01, l0, l1, code, p0, p1, _, _] = bytes.first_chunk::<FRAME_HEADER_BYTES>()? else {
            return None;
        };
        Some(Self {
            latency_tenths_ms: u16::from_le_bytes([l0, l1]),
            frame_type: FrameType::parse(code)?,
            last_payload_bytes: u16::from_le_bytes([p0, p1]),
        })
    }
}

/// Writes the header fields that parity must carry and clears the others. spec: gamestream 7.6
pub(super) fn write_data_header(shard: &mut [u8], stream_packet_index: u32, flags: u8) {
    shard[..HEADER_BYTES].fill(0);
    shard[16..20].copy_from_slice(&(stream_packet_index << 8).to_le_bytes());
    shard[24] = flags;
}

/// What all shards of a block have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockHeader {
    pub(super) frame: FrameIndex,
    pub(super) timestamp: RtpTimestamp,
    pub(super) plan: BlockPlan,
    /// Blocks of the frame.
    pub(super) block_count: usize,
    /// RTP sequence number of the block's first shard.
    pub(super) first_sequence: u16,
}

/// Writes the header fields that a client makes anew after a repair, into data and parity alike. spec: gamestream 7.6
pub(super) fn patch(shard: &mut [u8], block: &BlockHeader, index: usize) {
    // Bounded by the plan: at most four blocks of at most 1023 shards.
    let sequence = block.first_sequence.wrapping_add(index as u16);
    shard[0] = RTP_FIRST_BYTE;
    shard[1] = 0;
    shard[2..4].copy_from_slice(&sequence.to_be_bytes());
    shard[4..8].copy_from_slice(&block.timestamp.0.to_be_bytes());
    shard[8..12].fill(0);
    shard[20..24].copy_from_slice(&block.frame.0.to_le_bytes());
    shard[26] = MULTI_FEC_FLAGS;
    shard[27] = ((block.plan.block as u8) << 4) | ((block.block_count as u8 - 1) << 6);
    let info = u32::from(block.plan.parity.percentage) << 4
        | (index as u32) << 12
        | (block.plan.data as u32) << 22;
    shard[28..32].copy_from_slice(&info.to_le_bytes());
}

/// The header of a shard as it arrived. spec: gamestream 7.2
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ShardHeader {
    pub(super) sequence: u16,
    pub(super) timestamp: RtpTimestamp,
    pub(super) frame: FrameIndex,
    pub(super) block: u8,
    pub(super) last_block: u8,
    pub(super) index: usize,
    pub(super) data: usize,
    pub(super) parity: Parity,
}

impl ShardHeader {
    /// Reads the fields of a shard that did arrive; `None` if they contradict each other.
    pub(super) fn parse(shard: &[u8]) -> Option<Self> {
        let bytes = shard.first_chunk::<HEADER_BYTES>()?;
        let word = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        let info = u32::from_le_bytes(word(28));
        let data = (info >> 22) as usize;
        let parity = Parity::derive(data, (info >> 4 & 0xff) as u8);
        let header = Self {
            sequence: u16::from_be_bytes([bytes[2], bytes[3]]),
            timestamp: RtpTimestamp(u32::from_be_bytes(word(4))),
            frame: FrameIndex(u32::from_le_bytes(word(20))),
            block: bytes[27] >> 4 & 0x3,
            last_block: bytes[27] >> 6,
            index: (info >> 12 & 0x3ff) as usize,
            data,
            parity,
        };
        let shape = (1..=MAX_BLOCK_DATA).contains(&data)
            && header.index < data + parity.count
            && (parity.count == 0 || data + parity.count <= crate::fec::MAX_SHARDS);
        // Only with the extension bit are the four bytes behind the RTP header skipped.
        let known = bytes[0] == RTP_FIRST_BYTE && header.block <= header.last_block;
        (shape && known).then_some(header)
    }
}

/// The stream packet index of a shard.
pub(super) fn stream_packet_index(shard: &[u8]) -> u32 {
    u32::from_le_bytes([shard[16], shard[17], shard[18], shard[19]]) >> 8
}

/// The flags of a shard.
pub(super) fn flags(shard: &[u8]) -> u8 {
    shard[24]
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: gamestream 7.2
    #[test]
    fn a_shard_header_has_the_bytes_of_the_table() {
        let mut shard = [0xee; 40];
        write_data_header(&mut shard, 0x01_02_03, FLAG_DATA | FLAG_START);
        let plan = BlockPlan { block: 2, first: 0, data: 10, parity: Parity::derive(10, 20) };
        let block = BlockHeader {
            frame: FrameIndex(0x0405),
            timestamp: RtpTimestamp(0x0a0b_0c0d),
            plan,
            block_count: 4,
            first_sequence: 0xffff,
        };
        patch(&mut shard, &block, 3);
        #[rustfmt::skip]
        let expected = [
            0x90, 0x00, 0x00, 0x02, 0x0a, 0x0b, 0x0c, 0x0d, 0, 0, 0, 0, 0, 0, 0, 0,
            0x00, 0x03, 0x02, 0x01, 0x05, 0x04, 0x00, 0x00, 0x05, 0x00, 0x10, 0xe0,
            // 20 << 4 | 3 << 12 | 10 << 22
            0x40, 0x31, 0x80, 0x02,
            0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee, 0xee,
        ];
        assert_eq!(shard, expected);

        let header = ShardHeader::parse(&shard).unwrap();
        assert_eq!((header.sequence, header.frame), (2, FrameIndex(0x0405)));
        assert_eq!((header.block, header.last_block, header.index), (2, 3, 3));
        assert_eq!((header.data, header.parity.count), (10, 2));
        assert_eq!((stream_packet_index(&shard), flags(&shard)), (0x01_02_03, 5));
    }

    // spec: gamestream 7.4
    #[test]
    fn a_frame_header_has_the_bytes_of_the_table() {
        let header = FrameHeader {
            latency_tenths_ms: 0x0123,
            frame_type: FrameType::AfterInvalidation,
            last_payload_bytes: 0x0560,
        };
        assert_eq!(header.write(), [0x01, 0x23, 0x01, 0x05, 0x60, 0x05, 0x00, 0x00]);
        assert_eq!(FrameHeader::parse(&header.write()), Some(header));
        assert_eq!(FrameHeader::parse(&[0x81; 8]), None);
        assert_eq!(FrameHeader::parse(&[0x01; 7]), None);
    }

    #[test]
    fn shards_that_contradict_themselves_are_refused() {
        let mut shard = [0; HEADER_BYTES];
        shard[0] = RTP_FIRST_BYTE;
        let with = |mut shard: [u8; HEADER_BYTES], info: u32, blocks: u8| {
            shard[28..32].copy_from_slice(&info.to_le_bytes());
            shard[27] = blocks;
            ShardHeader::parse(&shard).is_some()
        };
        assert!(with(shard, 10 << 22 | 20 << 4 | 11 << 12, 0));
        assert!(!with(shard, 10 << 22 | 20 << 4 | 12 << 12, 0), "an index behind the block");
        assert!(!with(shard, 20 << 4, 0), "no data");
        assert!(!with(shard, 213 << 22 | 20 << 4, 0), "more than 255 shards");
        assert!(with(shard, 1023 << 22 | 1022 << 12, 0), "without parity 1023 are legal");
        assert!(!with(shard, 10 << 22, 0x50 & 0x30), "a block behind the last one");
        assert_eq!(ShardHeader::parse(&shard[..31]), None);
    }
}
