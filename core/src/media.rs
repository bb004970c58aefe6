//! The vocabulary of media: modes, codecs, access units, packets of sound.
//!
//! These types are shared by every protocol and every backend; none of them knows how it is encoded or sent.

use std::fmt;
use std::time::Duration;

use crate::time::Timestamp;

/// A video codec.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// H.264 (AVC), Annex B byte stream.
    H264,
    /// H.265 (HEVC), Annex B byte stream.
    Hevc,
    /// AV1, low-overhead OBU stream.
    Av1,
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::H264 => "H.264",
            Self::Hevc => "HEVC",
            Self::Av1 => "AV1",
        })
    }
}

/// The size and refresh rate of a virtual output or a stream.
///
/// Width and height are even and in `16..=8192` pixels, the refresh in `1_000..=500_000` millihertz.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mode {
    width: u32,
    height: u32,
    refresh_millihz: u32,
}

/// Why a mode was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ModeError {
    /// A side is outside `16..=8192` pixels.
    #[error("a side of {got} pixels is outside {min}..={max}", min = Mode::MIN_SIDE, max = Mode::MAX_SIDE)]
    Side {
        /// What was asked for, in pixels.
        got: u32,
    },
    /// The refresh is outside `1_000..=500_000` mHz.
    #[error("a refresh of {got} mHz is outside {min}..={max}", min = Mode::MIN_REFRESH_MILLIHZ, max = Mode::MAX_REFRESH_MILLIHZ)]
    Refresh {
        /// What was asked for, in millihertz.
        got: u32,
    },
}

impl Mode {
    /// The smallest side, in pixels.
    pub const MIN_SIDE: u32 = 16;
    /// The largest side, in pixels.
    pub const MAX_SIDE: u32 = 8192;
    /// The slowest refresh, in millihertz.
    pub const MIN_REFRESH_MILLIHZ: u32 = 1_000;
    /// The fastest refresh, in millihertz.
    pub const MAX_REFRESH_MILLIHZ: u32 = 500_000;

    /// A mode of `width` x `height` pixels at `refresh_millihz`; odd sides are rounded up to even ones.
    ///
    /// # Errors
    /// [`ModeError`] names the value that is out of range.
    pub fn new(width: u32, height: u32, refresh_millihz: u32) -> Result<Self, ModeError> {
        let side = |got: u32| {
            if (Self::MIN_SIDE..=Self::MAX_SIDE).contains(&got) {
                Ok(got + got % 2)
            } else {
                Err(ModeError::Side { got })
            }
        };
        if !(Self::MIN_REFRESH_MILLIHZ..=Self::MAX_REFRESH_MILLIHZ).contains(&refresh_millihz) {
            return Err(ModeError::Refresh { got: refresh_millihz });
        }
        Ok(Self { width: side(width)?, height: side(height)?, refresh_millihz })
    }

    /// Width in pixels, even.
    pub const fn width(self) -> u32 {
        self.width
    }

    /// Height in pixels, even.
    pub const fn height(self) -> u32 {
        self.height
    }

    /// Refresh in millihertz.
    pub const fn refresh_millihz(self) -> u32 {
        self.refresh_millihz
    }

    /// The time from one refresh to the next.
    pub const fn frame_interval(self) -> Duration {
        Duration::from_nanos(1_000_000_000_000 / self.refresh_millihz as u64)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hz, rest) = (self.refresh_millihz / 1000, self.refresh_millihz % 1000);
        write!(f, "{}x{}@{hz}", self.width, self.height)?;
        if rest > 0 {
            write!(f, ".{rest:03}")?;
        }
        Ok(())
    }
}

/// The matrix that turns RGB into luma and chroma.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ColourMatrix {
    /// ITU-R BT.601.
    Bt601,
    /// ITU-R BT.709.
    Bt709,
    /// ITU-R BT.2020, non-constant luminance.
    Bt2020,
}

/// How the pictures of a stream carry colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ColourSpace {
    /// The matrix.
    pub matrix: ColourMatrix,
    /// Luma and chroma use 0..=255 instead of 16..=235 and 16..=240.
    pub full_range: bool,
}

/// The number a picture got from its source: counts every picture captured in a stream, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceIndex(pub u64);

/// The number of a frame on the wire, in the numbering of its protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FrameIndex(pub u32);

/// How a coded picture depends on others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// Restarts everything: parameter sets and an intra picture that nothing before it is needed for.
    Idr,
    /// Predicted from earlier pictures.
    Predicted,
    /// The first predicted picture after a reference invalidation; refers to no invalidated picture.
    AfterInvalidation,
}

/// All coded bytes of one picture, with what its way so far has cost.
#[derive(Debug, Clone)]
pub struct AccessUnit {
    /// Which picture of the source this is.
    pub source: SourceIndex,
    /// How it depends on others.
    pub kind: FrameKind,
    /// When the picture was captured; for a repeated picture, when the repetition was decided.
    pub captured_at: Timestamp,
    /// When the encoder was given the picture.
    pub encode_began_at: Timestamp,
    /// When the encoder handed the bytes out.
    pub encoded_at: Timestamp,
    /// The screen did not change: the previous picture was coded again to keep the rate.
    pub repeated: bool,
    /// The coded bytes (for H.264 and HEVC: Annex B).
    pub bytes: Vec<u8>,
}

/// One packet of Opus.
#[derive(Debug, Clone)]
pub struct OpusPacket {
    /// When its first sample was captured.
    pub captured_at: Timestamp,
    /// The packet; at a constant bitrate all packets of a stream have the same length.
    pub bytes: Vec<u8>,
}

/// What one frame went through, for latency figures and for tests that must explain every missing picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameTrace {
    /// Which picture of the source this is.
    pub source: SourceIndex,
    /// When it was captured.
    pub captured_at: Timestamp,
    /// The previous picture was coded again because the screen did not change.
    pub repeated: bool,
    /// What became of it.
    pub fate: FrameFate,
}

/// How a frame was cut: tells of each of its datagrams which shard of which block it carries.
///
/// A frame's datagrams are numbered without a gap, its blocks lie one after the other, and in each block data comes
/// before parity. A block can be had by who got as many of its shards as it has data, whichever they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameShape {
    /// The number of the frame's first datagram, as the protocol counts them (GameStream: RTP sequence number).
    pub first_sequence: u16,
    blocks: [BlockShape; Self::MAX_BLOCKS],
    count: u8,
}

/// The shards of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockShape {
    /// Shards that carry coded bytes.
    pub data: u16,
    /// Shards that make up for lost ones.
    pub parity: u16,
}

impl FrameShape {
    /// The most blocks that a frame of any protocol here has.
    pub const MAX_BLOCKS: usize = 4;

    /// The shape of a frame whose blocks are these; blocks beyond [`MAX_BLOCKS`](Self::MAX_BLOCKS) are left out.
    pub fn new(first_sequence: u16, blocks: impl IntoIterator<Item = BlockShape>) -> Self {
        let mut shape = Self { first_sequence, ..Self::default() };
        for (slot, block) in shape.blocks.iter_mut().zip(blocks) {
            *slot = block;
            shape.count += 1;
        }
        shape
    }

    /// The blocks in the order of sending.
    pub fn blocks(&self) -> &[BlockShape] {
        self.blocks.get(..usize::from(self.count)).unwrap_or_default()
    }
}

/// What became of a captured picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameFate {
    /// It went out.
    Sent {
        /// Its number on the wire.
        index: FrameIndex,
        /// How it depends on others.
        kind: FrameKind,
        /// When the encoder was given it.
        encode_began_at: Timestamp,
        /// When the encoder handed the bytes out.
        encoded_at: Timestamp,
        /// When its first datagram was given to the socket.
        first_sent_at: Timestamp,
        /// When its last datagram was given to the socket.
        last_sent_at: Timestamp,
        /// Coded size in bytes.
        bytes: u32,
        /// Datagrams, parity included.
        datagrams: u32,
        /// Which datagram carries which shard of which block.
        shape: FrameShape,
    },
    /// It was dropped, nearly always before it reached the encoder, which breaks no reference.
    Dropped(DropReason),
}

/// Why a captured picture was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A newer picture was captured before the encoder was free.
    Superseded,
    /// The client's frame rate leaves no room for it.
    OverRate,
    /// It was coded, but the wire format has no room for it; an IDR picture follows.
    Unsendable,
    /// The stream ended while it was on its way.
    StreamEnded,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_sides_are_rounded_up_and_limits_hold() {
        let mode = Mode::new(1125, 2437, 59_940).unwrap();
        assert_eq!((mode.width(), mode.height()), (1126, 2438));
        assert_eq!(mode.to_string(), "1126x2438@59.940");
        assert_eq!(Mode::new(15, 720, 60_000), Err(ModeError::Side { got: 15 }));
        assert_eq!(Mode::new(1280, 8193, 60_000), Err(ModeError::Side { got: 8193 }));
        assert_eq!(Mode::new(1280, 720, 999), Err(ModeError::Refresh { got: 999 }));
        assert_eq!(Mode::new(8191, 16, 500_000).unwrap().width(), 8192);
    }

    #[test]
    fn a_shape_keeps_as_many_blocks_as_a_frame_can_have() {
        let block = |data| BlockShape { data, parity: 2 };
        let shape = FrameShape::new(7, (1..=2).map(block));
        assert_eq!((shape.first_sequence, shape.blocks()), (7, [block(1), block(2)].as_slice()));
        assert_eq!(FrameShape::new(0, (1..=9).map(block)).blocks().len(), FrameShape::MAX_BLOCKS);
        assert!(FrameShape::default().blocks().is_empty());
    }

    #[test]
    fn the_interval_of_59_94_is_exact_to_the_nanosecond() {
        let mode = Mode::new(1280, 720, 59_940).unwrap();
        assert_eq!(mode.frame_interval(), Duration::from_nanos(16_683_350));
    }
}
