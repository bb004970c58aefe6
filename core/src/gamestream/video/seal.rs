//! Encryption of video datagrams.
//!
//! Each datagram gets a prefix with the nonce, the frame's number and the tag. The nonce is a counter that lives in the
//! sealer and ends in `V`, which keeps it apart from every other use of the session's key. spec: gamestream 7.8

use crate::media::FrameIndex;
use crate::seal::{CounterExhausted, Gcm, OpenError, Sealer, SessionKey, TAG_BYTES};

/// What a sealed datagram is longer than its shard. spec: gamestream 7.8
pub(super) const PREFIX_BYTES: usize = 32;

const NONCE_BYTES: usize = 12;
const FRAME_AT: usize = NONCE_BYTES;
const TAG_AT: usize = 16;

/// Seals the video datagrams of one session. Not `Clone`: a copy would repeat nonces.
pub struct VideoSealer {
    cipher: Gcm,
    counter: u64,
}

impl VideoSealer {
    /// A sealer for a key that has sealed nothing before.
    pub fn new(key: &SessionKey) -> Self {
        Self { cipher: Gcm::new(key), counter: 0 }
    }

    /// A sealer that is about to run out, to test what then happens.
    #[cfg(any(test, feature = "sim"))]
    pub fn starting_at(key: &SessionKey, counter: u64) -> Self {
        Self { cipher: Gcm::new(key), counter }
    }
}

impl Sealer for VideoSealer {
    fn head_bytes(&self) -> usize {
        PREFIX_BYTES
    }

    fn tail_bytes(&self) -> usize {
        0
    }

    fn left(&self) -> u64 {
        u64::MAX - self.counter
    }

    fn seal(&mut self, frame: FrameIndex, slot: &mut [u8]) -> Result<(), CounterExhausted> {
        if self.counter == u64::MAX {
            return Err(CounterExhausted { left: 0, need: 1 });
        }
        let mut nonce = [0; NONCE_BYTES];
        nonce[..8].copy_from_slice(&self.counter.to_le_bytes());
        nonce[NONCE_BYTES - 1] = b'V';
        self.counter += 1;
        let (prefix, shard) = slot.split_at_mut(PREFIX_BYTES);
        let tag = self.cipher.seal(nonce, shard);
        prefix[..NONCE_BYTES].copy_from_slice(&nonce);
        prefix[FRAME_AT..TAG_AT].copy_from_slice(&frame.0.to_le_bytes());
        prefix[TAG_AT..].copy_from_slice(&tag);
        Ok(())
    }
}

/// Opens the video datagrams of one session.
pub struct VideoOpener(Gcm);

impl VideoOpener {
    /// An opener for the session's key.
    pub fn new(key: &SessionKey) -> Self {
        Self(Gcm::new(key))
    }

    /// The frame a datagram claims to belong to, before it is opened; `None` if it is too short.
    pub fn claimed_frame(datagram: &[u8]) -> Option<FrameIndex> {
        let bytes = datagram.get(FRAME_AT..TAG_AT)?.first_chunk()?;
        Some(FrameIndex(u32::from_le_bytes(*bytes)))
    }

    /// Opens a datagram into `shard`, whose length becomes that of the shard.
    ///
    /// # Errors
    /// [`OpenError`] if it is too short or was not sealed with this key.
    pub fn open(&self, datagram: &[u8], shard: &mut Vec<u8>) -> Result<(), OpenError> {
        let (prefix, sealed) = datagram.split_first_chunk::<PREFIX_BYTES>().ok_or(OpenError)?;
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&prefix[..NONCE_BYTES]);
        let mut tag = [0; TAG_BYTES];
        tag.copy_from_slice(&prefix[TAG_AT..]);
        shard.clear();
        shard.resize(sealed.len(), 0);
        self.0.open(nonce, &tag, sealed, shard)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VECTOR: &str = "030000000000000000000056090000008ce02f6ebde3d4ad745cea5a0118ed46\
                          6815853e8730d2d0bf2e2453b53294bd59feb1ceb785c6a9daac86c8d2b89867";

    fn key() -> SessionKey {
        SessionKey::new(std::array::from_fn(|i| i as u8))
    }

    fn slot() -> Vec<u8> {
        let mut slot = vec![0xaa; PREFIX_BYTES];
        slot.extend(0..0x20u8);
        slot
    }

    // spec: gamestream 13 item 97
    #[test]
    fn a_sealed_datagram_equals_the_vector() {
        let mut sealer = VideoSealer::new(&key());
        for _ in 0..3 {
            sealer.seal(FrameIndex(1), &mut slot()).unwrap();
        }
        let mut sealed = slot();
        sealer.seal(FrameIndex(9), &mut sealed).unwrap();
        let text: String = sealed.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(text, VECTOR);

        let mut shard = vec![];
        VideoOpener::new(&key()).open(&sealed, &mut shard).unwrap();
        assert_eq!(shard, slot()[PREFIX_BYTES..]);
        assert_eq!(VideoOpener::claimed_frame(&sealed), Some(FrameIndex(9)));
        sealed[40] ^= 1;
        assert_eq!(VideoOpener::new(&key()).open(&sealed, &mut shard), Err(OpenError));
        assert_eq!(VideoOpener::new(&key()).open(&sealed[..31], &mut shard), Err(OpenError));
    }

    // spec: gamestream 13 item 122
    #[test]
    fn no_nonce_comes_twice_and_the_last_one_is_the_end() {
        let mut sealer = VideoSealer::starting_at(&key(), u64::MAX - 2);
        let (mut first, mut second, mut third) = (slot(), slot(), slot());
        assert_eq!(sealer.left(), 2);
        sealer.seal(FrameIndex(1), &mut first).unwrap();
        sealer.seal(FrameIndex(1), &mut second).unwrap();
        assert_ne!(first[..NONCE_BYTES], second[..NONCE_BYTES]);
        assert!(sealer.seal(FrameIndex(1), &mut third).is_err());
        assert_eq!(third, slot(), "nothing was sealed");
    }
}
