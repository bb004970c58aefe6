//! The line of one frame, seen from outside: the machines that turn coded media into datagrams.
//!
//! A protocol implements [`FrameSender`] and [`AudioSender`]; the host's sending threads own them and know no protocol.
//! Both are sans-io: they hold no socket and read no clock. For one frame the order of calls is
//! `submit`, then `poll_burst` until it answers `None`, then nothing before `poll_timeout` (pacing) or the next `submit`.

use crate::media::{AccessUnit, FrameIndex, FrameShape, OpusPacket};
use crate::time::Timestamp;

/// Datagrams of one size that leave together: one call of a segmentation-offloading socket.
#[derive(Debug, Clone, Copy)]
pub struct Burst<'a> {
    /// The datagrams one after the other.
    pub datagrams: &'a [u8],
    /// Size of each in bytes; only the last may be shorter.
    pub segment_bytes: usize,
    /// The frame they belong to.
    pub frame: FrameIndex,
    /// These are the frame's last datagrams.
    pub last: bool,
}

impl Burst<'_> {
    /// How many datagrams this is.
    pub fn count(&self) -> usize {
        self.datagrams.len().div_ceil(self.segment_bytes.max(1))
    }
}

/// Why an access unit could not be turned into datagrams.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The protocol's format has no room for a frame of this size. The frame took no number: the next one may be sent.
    #[error("a frame of {got} bytes is more than the {max} bytes this stream's format can carry")]
    TooLarge {
        /// Coded size in bytes.
        got: usize,
        /// The format's limit in bytes.
        max: usize,
    },
    /// The key or counter space is used up; the session needs new keys.
    #[error("the packet counter of this session is used up")]
    CounterExhausted,
    /// The sender still holds the datagrams of as many frames as it may.
    #[error("{got} frames are still waiting to be sent, the limit is {max}")]
    Backlog {
        /// Frames waiting.
        got: usize,
        /// The limit.
        max: usize,
    },
}

/// What an access unit has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Submitted {
    /// Its number on the wire.
    pub index: FrameIndex,
    /// How it was cut into datagrams.
    pub shape: FrameShape,
}

/// Turns access units into sealed, paced datagrams.
pub trait FrameSender: Send {
    /// Packetizes, protects and seals one access unit. It may be called while earlier frames still wait for departure
    /// (at most two).
    ///
    /// # Errors
    /// See [`SubmitError`]; the frame is not sent and takes no number.
    fn submit(&mut self, unit: &AccessUnit, now: Timestamp) -> Result<Submitted, SubmitError>;

    /// The next datagrams that may leave now, or `None` if none may.
    fn poll_burst(&mut self, now: Timestamp) -> Option<Burst<'_>>;

    /// When to call [`poll_burst`](Self::poll_burst) again; `None` if everything submitted has been handed out.
    fn poll_timeout(&self) -> Option<Timestamp>;

    /// The largest access unit, in bytes, that can be sent at all; encoders bound their frames by it.
    fn max_unit_bytes(&self) -> usize;
}

/// Turns packets of sound into datagrams.
pub trait AudioSender: Send {
    /// Packs one Opus packet; the datagrams it yields are handed to `emit` in order, parity included.
    fn submit(&mut self, packet: &OpusPacket, emit: &mut dyn FnMut(&[u8]));
}
