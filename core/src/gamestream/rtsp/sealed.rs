//! The encrypted form of RTSP messages (`rtspenc://`).
//!
//! A message becomes one frame: a 24-byte header (a flag with the length, a counter, the tag) and the ciphertext. Both
//! sides count their own messages from 1 over all connections of one launch; a counter that does not grow is a replay.
//! The host's counter lives in [`Channel`] and cannot be set.

use super::MAX_REQUEST_BYTES;
use crate::seal::{Gcm, SessionKey, TAG_BYTES};

/// Length of the header before the ciphertext, in bytes.
pub const FRAME_HEADER_BYTES: usize = 8 + TAG_BYTES;

/// Marks a frame in the first bit of its length.
const SEALED_FLAG: u32 = 0x8000_0000;

/// Why a frame was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealedError {
    /// The first bit is clear: this is a plain message.
    #[error("the message is not encrypted")]
    Plain,
    /// The header's length is over the limit.
    #[error("an encrypted request of {got} bytes is longer than the limit of {max}", max = MAX_REQUEST_BYTES)]
    TooLong {
        /// Length of the ciphertext in bytes.
        got: usize,
    },
    /// The frame is not as long as its header says.
    #[error("an encrypted request has {got} bytes where its header says {want}")]
    Length {
        /// Bytes there.
        got: usize,
        /// Bytes announced.
        want: usize,
    },
    /// The counter did not grow.
    #[error("an encrypted request repeats the number {got}; the last one was {last}")]
    Replayed {
        /// The frame's counter.
        got: u32,
        /// The highest counter accepted so far.
        last: u32,
    },
    /// The tag does not match.
    #[error("an encrypted request was not sealed with this stream's key")]
    WrongKey,
    /// This side has sealed 2^32 - 1 messages.
    #[error("the message counter of this stream is used up")]
    CounterExhausted,
}

/// How far a frame has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameProgress {
    /// More bytes are needed.
    Incomplete,
    /// The whole frame has this many bytes, all of which are there.
    Complete {
        /// Header and ciphertext.
        bytes: usize,
    },
}

/// Whether a connection that begins with these bytes carries a frame; `None` before the first byte.
pub fn is_sealed(bytes: &[u8]) -> Option<bool> {
    bytes.first().map(|first| first & 0x80 != 0)
}

/// Whether all bytes of a frame have arrived.
///
/// # Errors
/// [`SealedError::Plain`] and [`SealedError::TooLong`], before the ciphertext has arrived.
// spec: gamestream 4.3
pub fn frame_bytes(bytes: &[u8]) -> Result<FrameProgress, SealedError> {
    let Some(first) = bytes.first_chunk::<4>() else {
        return match is_sealed(bytes) {
            Some(false) => Err(SealedError::Plain),
            _ => Ok(FrameProgress::Incomplete),
        };
    };
    let first = u32::from_be_bytes(*first);
    if first & SEALED_FLAG == 0 {
        return Err(SealedError::Plain);
    }
    let text = (first & !SEALED_FLAG) as usize;
    if text > MAX_REQUEST_BYTES {
        return Err(SealedError::TooLong { got: text });
    }
    let want = FRAME_HEADER_BYTES + text;
    if bytes.len() < want {
        return Ok(FrameProgress::Incomplete);
    }
    Ok(FrameProgress::Complete { bytes: want })
}

/// The host's end of the encrypted RTSP of one launch.
pub struct Channel {
    gcm: Gcm,
    last_received: u32,
    last_sent: u32,
}

impl Channel {
    /// A channel whose counters begin anew; one for every key.
    pub fn new(key: &SessionKey) -> Self {
        Self { gcm: Gcm::new(key), last_received: 0, last_sent: 0 }
    }

    /// Opens a client's frame and remembers its counter.
    ///
    /// # Errors
    /// [`SealedError`]; the channel is unchanged, so that a forgery costs its target nothing.
    // spec: gamestream 4.3
    pub fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>, SealedError> {
        open(&self.gcm, b'C', &mut self.last_received, frame)
    }

    /// Seals one response.
    ///
    /// # Errors
    /// [`SealedError::CounterExhausted`], [`SealedError::TooLong`].
    pub fn seal(&mut self, text: &[u8]) -> Result<Vec<u8>, SealedError> {
        let next = self.last_sent.checked_add(1).ok_or(SealedError::CounterExhausted)?;
        let frame = seal(&self.gcm, b'H', next, text)?;
        self.last_sent = next;
        Ok(frame)
    }
}

/// The client's end of the encrypted RTSP of one launch, for the self-test and for tests of the host.
pub struct ClientChannel {
    gcm: Gcm,
    last_received: u32,
    last_sent: u32,
}

impl ClientChannel {
    /// A channel whose counters begin anew; one for every key.
    pub fn new(key: &SessionKey) -> Self {
        Self { gcm: Gcm::new(key), last_received: 0, last_sent: 0 }
    }

    /// A channel that has sent this many requests.
    #[cfg(any(test, feature = "sim"))]
    pub fn after(key: &SessionKey, last_sent: u32) -> Self {
        Self { last_sent, ..Self::new(key) }
    }

    /// Seals one request.
    ///
    /// # Errors
    /// [`SealedError::CounterExhausted`], [`SealedError::TooLong`].
    // spec: gamestream 4.3
    pub fn seal(&mut self, text: &[u8]) -> Result<Vec<u8>, SealedError> {
        let next = self.last_sent.checked_add(1).ok_or(SealedError::CounterExhausted)?;
        let frame = seal(&self.gcm, b'C', next, text)?;
        self.last_sent = next;
        Ok(frame)
    }

    /// Opens a host's frame and remembers its counter.
    ///
    /// # Errors
    /// [`SealedError`]; the channel is unchanged.
    // spec: gamestream 4.3
    pub fn open(&mut self, frame: &[u8]) -> Result<Vec<u8>, SealedError> {
        open(&self.gcm, b'H', &mut self.last_received, frame)
    }
}

/// Opens one side's frame, which must be newer than the last one.
fn open(gcm: &Gcm, side: u8, last: &mut u32, frame: &[u8]) -> Result<Vec<u8>, SealedError> {
    let want = match frame_bytes(frame)? {
        FrameProgress::Complete { bytes } => bytes,
        FrameProgress::Incomplete => {
            return Err(SealedError::Length { got: frame.len(), want: announced(frame) });
        }
    };
    let wrong_length = SealedError::Length { got: frame.len(), want };
    if frame.len() != want {
        return Err(wrong_length);
    }
    let (header, sealed) = frame.split_at_checked(FRAME_HEADER_BYTES).ok_or(wrong_length)?;
    let number = header.get(4..).and_then(<[u8]>::first_chunk).ok_or(wrong_length)?;
    let tag = header.last_chunk::<TAG_BYTES>().ok_or(wrong_length)?;
    let number = u32::from_be_bytes(*number);
    let mut text = vec![0; sealed.len()];
    gcm.open(nonce(number, side), tag, sealed, &mut text).map_err(|_| SealedError::WrongKey)?;
    // Checked after the tag, so that only the key's owner learns where the counter stands.
    if number <= *last {
        return Err(SealedError::Replayed { got: number, last: *last });
    }
    *last = number;
    Ok(text)
}

fn announced(frame: &[u8]) -> usize {
    frame.first_chunk::<4>().map_or(FRAME_HEADER_BYTES, |first| {
        FRAME_HEADER_BYTES + (u32::from_be_bytes(*first) & !SEALED_FLAG) as usize
    })
}

fn seal(gcm: &Gcm, side: u8, number: u32, text: &[u8]) -> Result<Vec<u8>, SealedError> {
    let too_long = SealedError::TooLong { got: text.len() };
    if text.len() > MAX_REQUEST_BYTES {
        return Err(too_long);
    }
    let length = u32::try_from(text.len()).map_err(|_| too_long)?;
    let mut sealed = text.to_vec();
    let tag = gcm.seal(nonce(number, side), &mut sealed);
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES + text.len());
    frame.extend_from_slice(&(SEALED_FLAG | length).to_be_bytes());
    frame.extend_from_slice(&number.to_be_bytes());
    frame.extend_from_slice(&tag);
    frame.extend_from_slice(&sealed);
    Ok(frame)
}

/// The counter stands big-endian in the header and little-endian in the nonce.
fn nonce(number: u32, side: u8) -> [u8; 12] {
    let [a, b, c, d] = number.to_le_bytes();
    [a, b, c, d, 0, 0, 0, 0, 0, 0, side, b'R']
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> SessionKey {
        SessionKey::new(std::array::from_fn(|i| i as u8))
    }

    fn hex(text: &str) -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    }

    const OPTIONS: &[u8] =
        b"OPTIONS rtsp://10.0.0.1:48010 RTSP/1.0\r\nCSeq: 1\r\nX-GS-ClientVersion: 14\r\nHost: 10.0.0.1\r\n\r\n";
    const OPTIONS_SEALED: &str = "8000005b000000019f1bc8183db728683e872b11d37fe9209fe452003a42126629e9a38daca4f662\
        beaadbf24fb4096b9f048d30919fe7fd5b40e4cc1b354153fbcf05db96c81716f2d6d2e60f534c9ee6b080ed529938932cb06fc5\
        a34d42c40c15478408264cfe9059557356828578be77b5";
    const OK_SEALED: &str = "8000001c00000001f1734c68fca6356daf5717bc54c6f6a2600872b43a271f6b4fc685cedf9a7cb84351077c0cc521456e1d06e9";

    // spec: gamestream 13 item 53
    #[test]
    fn both_vectors_hold() {
        let client = hex(&OPTIONS_SEALED.replace(char::is_whitespace, ""));
        let mut channel = Channel::new(&key());
        assert_eq!(channel.open(&client).unwrap(), OPTIONS);
        assert_eq!(seal(&Gcm::new(&key()), b'C', 1, OPTIONS).unwrap(), client);
        assert_eq!(channel.seal(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n").unwrap(), hex(OK_SEALED));
    }

    // spec: gamestream 13 item 56
    #[test]
    fn forged_cut_and_replayed_frames_are_refused_and_cost_nothing() {
        let gcm = Gcm::new(&key());
        let mut channel = Channel::new(&key());
        let first = seal(&gcm, b'C', 1, b"one").unwrap();
        let mut forged = first.clone();
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(channel.open(&forged), Err(SealedError::WrongKey));
        let mut renumbered = first.clone();
        renumbered[7] = 9;
        assert_eq!(channel.open(&renumbered), Err(SealedError::WrongKey));
        assert_eq!(
            channel.open(&first[..first.len() - 1]),
            Err(SealedError::Length { got: 26, want: 27 })
        );
        let longer = [first.clone(), vec![0]].concat();
        assert_eq!(channel.open(&longer), Err(SealedError::Length { got: 28, want: 27 }));
        assert_eq!(channel.open(OPTIONS), Err(SealedError::Plain));
        assert_eq!(channel.open(&first).unwrap(), b"one");
        assert_eq!(channel.open(&first), Err(SealedError::Replayed { got: 1, last: 1 }));
        let fifth = seal(&gcm, b'C', 5, b"five").unwrap();
        assert_eq!(channel.open(&fifth).unwrap(), b"five");
        let fourth = seal(&gcm, b'C', 4, b"four").unwrap();
        assert_eq!(channel.open(&fourth), Err(SealedError::Replayed { got: 4, last: 5 }));
        // A host frame reflected to the host does not open: the side is part of the nonce.
        let own = channel.seal(b"mine").unwrap();
        assert_eq!(channel.open(&own), Err(SealedError::WrongKey));
    }

    #[test]
    fn both_ends_understand_each_other_and_a_client_takes_no_answer_twice() {
        let (mut host, mut client) = (Channel::new(&key()), ClientChannel::new(&key()));
        let asked = client.seal(OPTIONS).unwrap();
        assert_eq!(asked, hex(&OPTIONS_SEALED.replace(char::is_whitespace, "")));
        assert_eq!(host.open(&asked).unwrap(), OPTIONS);
        assert_eq!(client.open(&asked), Err(SealedError::WrongKey), "its own request");
        let answer = host.seal(b"yes").unwrap();
        assert_eq!(client.open(&answer).unwrap(), b"yes");
        assert_eq!(client.open(&answer), Err(SealedError::Replayed { got: 1, last: 1 }));
        let mut spent = ClientChannel::after(&key(), u32::MAX);
        assert_eq!(spent.seal(b"one more"), Err(SealedError::CounterExhausted));
    }

    #[test]
    fn the_length_is_checked_before_the_text_arrives() {
        let limit = (SEALED_FLAG | (MAX_REQUEST_BYTES as u32 + 1)).to_be_bytes();
        assert_eq!(frame_bytes(&limit), Err(SealedError::TooLong { got: MAX_REQUEST_BYTES + 1 }));
        assert_eq!(frame_bytes(&[]), Ok(FrameProgress::Incomplete));
        assert_eq!(frame_bytes(&[0x80]), Ok(FrameProgress::Incomplete));
        assert_eq!(frame_bytes(b"O"), Err(SealedError::Plain));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Channel::new(&key()).open(&bytes).is_err());
            let _ = frame_bytes(&bytes);
        }

        #[test]
        fn what_a_client_seals_opens(number in 1u32.., text in prop::collection::vec(any::<u8>(), 0..300)) {
            let frame = seal(&Gcm::new(&key()), b'C', number, &text).unwrap();
            prop_assert_eq!(Channel::new(&key()).open(&frame).unwrap(), text);
        }
    }
}
