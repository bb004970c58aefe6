//! Sealers of datagrams: what stands between a protected block and the socket.
//!
//! A sealer owns its counter. It can be moved but not copied, and it refuses rather than repeats, so that two datagrams
//! under one key never share a nonce. [`Clear`] is the sealer of streams whose client negotiated no encryption.

use crate::media::FrameIndex;

/// The counter of this key is used up; the session needs new keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{left} datagrams may still be sealed with this key, {need} were asked for")]
pub struct CounterExhausted {
    /// How many datagrams the counter has left.
    pub left: u64,
    /// How many are needed.
    pub need: u64,
}

/// Seals datagrams in place.
pub trait Sealer: Send {
    /// Bytes that a datagram grows by at its front.
    fn head_bytes(&self) -> usize;

    /// Bytes that a datagram grows by at its end.
    fn tail_bytes(&self) -> usize;

    /// How many datagrams may still be sealed.
    fn left(&self) -> u64;

    /// Seals one datagram of `frame` in its slot: head room, text, tail room. Each call takes the next nonce.
    ///
    /// # Errors
    /// [`CounterExhausted`]; the slot is then untouched.
    fn seal(&mut self, frame: FrameIndex, slot: &mut [u8]) -> Result<(), CounterExhausted>;
}

/// Leaves datagrams as they are: the client negotiated no encryption.
#[derive(Debug, Default)]
pub struct Clear;

impl Sealer for Clear {
    fn head_bytes(&self) -> usize {
        0
    }

    fn tail_bytes(&self) -> usize {
        0
    }

    fn left(&self) -> u64 {
        u64::MAX
    }

    fn seal(&mut self, _frame: FrameIndex, _slot: &mut [u8]) -> Result<(), CounterExhausted> {
        Ok(())
    }
}
