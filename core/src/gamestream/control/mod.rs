//! The control stream: what client and host tell each other while a stream runs.
//!
//! Every message is sealed on its own. A [`Sealer`] holds the counter that makes each nonce and hands it to nobody; an
//! [`Opener`] refuses what does not open, what it has seen before and what came in clear, because any of these would let
//! a stranger type on the host. Messages travel on several channels that overtake each other, so the memory against
//! replays is a window and not a highest number.
//!
//! Deliberately absent: the message numbers of other host generations.

mod message;
mod window;

use zeroize::Zeroizing;

use crate::seal::{Gcm, GcmWideNonce, SessionKey, TAG_BYTES};
pub use message::{ClientMessage, FecStatus, HdrMetadata, HostMessage, termination};
use window::{ReplayWindow, TagMemory};

/// The longest message accepted, in bytes, header and tag included. Stock clients stay below 300.
pub const MAX_MESSAGE_BYTES: usize = 2048;

/// Type of every sealed message.
const SEALED_TYPE: u16 = 0x0001;
/// Type, length, counter, tag.
const OUTER_BYTES: usize = 2 + 2 + 4 + TAG_BYTES;
/// Type and length of the inner message.
const INNER_BYTES: usize = 4;
/// How far ahead of the newest message an old-style counter may be; see [`Scheme::Legacy`].
const LEGACY_LEAP: u32 = 1024;
/// How many nonces [`Scheme::Legacy`] has.
const LEGACY_NONCES: u32 = 256;

/// How nonces are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Twelve bytes with the whole counter and the direction.
    V2,
    /// Sixteen bytes with the counter's low byte, in both directions alike. Weak by design and kept for clients from
    /// before 2024: only the low byte of the counter is authenticated, so repeated messages are recognised by their
    /// tags, as far back as 1024 messages. Pings and reports of losses, which an idle client repeats byte for byte, are
    /// heard again: they do nothing but show that somebody is there.
    Legacy,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The client.
    Client,
    /// The host.
    Host,
}

/// Why a message was not opened or sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// It was not sealed.
    #[error("a control message of type {kind:#06x} came in clear")]
    Clear {
        /// Its type.
        kind: u16,
    },
    /// It is shorter than its headers or than its length says, or longer than the limit.
    #[error("a control message of {got} bytes is malformed")]
    Malformed {
        /// Its length in bytes.
        got: usize,
    },
    /// Its tag does not match.
    #[error("a control message was not sealed with this session's key")]
    WrongKey,
    /// It was opened before, or is too old to tell.
    #[error("the control message {got} is repeated or too old")]
    Replayed {
        /// Its counter.
        got: u32,
    },
    /// This side has sealed 2^32 messages.
    #[error("the message counter of this session is used up")]
    CounterExhausted,
}

enum Cipher {
    V2(Gcm),
    Legacy(Box<GcmWideNonce>),
}

impl Cipher {
    fn new(key: &SessionKey, scheme: Scheme) -> Self {
        match scheme {
            Scheme::V2 => Self::V2(Gcm::new(key)),
            Scheme::Legacy => Self::Legacy(Box::new(GcmWideNonce::new(key))),
        }
    }

    fn seal(&self, side: Side, number: u32, text: &mut [u8]) -> [u8; TAG_BYTES] {
        match self {
            Self::V2(gcm) => gcm.seal(nonce(side, number), text),
            Self::Legacy(gcm) => gcm.seal(wide_nonce(number), text),
        }
    }

    fn open(&self, side: Side, frame: &Frame<'_>, text: &mut [u8]) -> Result<(), ControlError> {
        match self {
            Self::V2(gcm) => gcm.open(nonce(side, frame.number), &frame.tag, frame.sealed, text),
            Self::Legacy(gcm) => {
                text.copy_from_slice(frame.sealed);
                gcm.open(wide_nonce(frame.number), &frame.tag, text)
            }
        }
        .map_err(|_| ControlError::WrongKey)
    }
}

// spec: gamestream 5.4
fn nonce(side: Side, number: u32) -> [u8; 12] {
    let [a, b, c, d] = number.to_le_bytes();
    let side = match side {
        Side::Client => b'C',
        Side::Host => b'H',
    };
    [a, b, c, d, 0, 0, 0, 0, 0, 0, side, b'C']
}

fn wide_nonce(number: u32) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[0] = number.to_le_bytes()[0];
    nonce
}

/// Seals one side's messages of one session. Its counter begins at 0 and cannot be set, copied or repeated.
pub struct Sealer {
    cipher: Cipher,
    side: Side,
    next: Option<u32>,
}

impl Sealer {
    /// The one sealer of this side for this key.
    pub fn new(key: &SessionKey, scheme: Scheme, side: Side) -> Self {
        Self { cipher: Cipher::new(key, scheme), side, next: Some(0) }
    }

    /// Seals one message of this type.
    ///
    /// # Errors
    /// [`ControlError::CounterExhausted`]; [`ControlError::Malformed`] if the payload has no room in a message.
    // spec: gamestream 5.4
    pub fn seal(&mut self, kind: u16, payload: &[u8]) -> Result<Vec<u8>, ControlError> {
        let inner = INNER_BYTES + payload.len();
        let total = OUTER_BYTES + inner;
        let too_long = ControlError::Malformed { got: total };
        if total > MAX_MESSAGE_BYTES {
            return Err(too_long);
        }
        let payload_bytes = u16::try_from(payload.len()).map_err(|_| too_long)?;
        let rest_bytes = u16::try_from(4 + TAG_BYTES + inner).map_err(|_| too_long)?;
        let number = self.next.ok_or(ControlError::CounterExhausted)?;
        self.next = number.checked_add(1);
        let mut text = Vec::with_capacity(inner);
        text.extend_from_slice(&kind.to_le_bytes());
        text.extend_from_slice(&payload_bytes.to_le_bytes());
        text.extend_from_slice(payload);
        let tag = self.cipher.seal(self.side, number, &mut text);
        let mut message = Vec::with_capacity(total);
        message.extend_from_slice(&SEALED_TYPE.to_le_bytes());
        message.extend_from_slice(&rest_bytes.to_le_bytes());
        message.extend_from_slice(&number.to_le_bytes());
        message.extend_from_slice(&tag);
        message.extend_from_slice(&text);
        Ok(message)
    }

    /// Seals one of the host's messages.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn seal_message(&mut self, message: &HostMessage) -> Result<Vec<u8>, ControlError> {
        self.seal(message.kind(), &message.payload())
    }
}

/// Opens the other side's messages of one session.
pub struct Opener {
    cipher: Cipher,
    from: Side,
    window: ReplayWindow,
    /// Only for [`Scheme::Legacy`].
    tags: Option<Box<TagMemory>>,
    /// The message opened last: what somebody typed, so it is wiped in the end.
    text: Zeroizing<Vec<u8>>,
}

/// An opened message: its type and its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The type.
    pub kind: u16,
    /// The payload, as long as its header says.
    pub payload: &'a [u8],
}

impl Opener {
    /// An opener for what `from` seals with this key.
    pub fn new(key: &SessionKey, scheme: Scheme, from: Side) -> Self {
        Self {
            cipher: Cipher::new(key, scheme),
            from,
            window: ReplayWindow::default(),
            tags: (scheme == Scheme::Legacy).then(Box::default),
            text: Zeroizing::new(Vec::with_capacity(MAX_MESSAGE_BYTES)),
        }
    }

    /// Opens a message and remembers it.
    ///
    /// # Errors
    /// [`ControlError`]; the opener is unchanged.
    // spec: gamestream 5.4
    pub fn open(&mut self, message: &[u8]) -> Result<Opened<'_>, ControlError> {
        let frame = Frame::parse(message)?;
        let freshness = self.freshness(&frame)?;
        self.text.resize(frame.sealed.len(), 0);
        self.cipher.open(self.from, &frame, &mut self.text)?;
        if freshness == Freshness::Unprovable && !may_repeat(&self.text) {
            return Err(ControlError::Replayed { got: frame.number });
        }
        self.window.accept(frame.number);
        if let Some(tags) = &mut self.tags
            && freshness == Freshness::Proven
        {
            tags.remember(frame.tag);
        }
        inner(&self.text).ok_or(ControlError::Malformed { got: message.len() })
    }

    /// Whether this message would open now. Nothing is remembered: the message can still be opened.
    pub fn recognizes(&self, message: &[u8]) -> bool {
        let fresh = |frame| self.freshness(&frame) == Ok(Freshness::Proven);
        Frame::parse(message).is_ok_and(fresh) && self.is_authentic(message)
    }

    /// Whether this message was sealed with the session's key by the other side, now or earlier. One that was opened
    /// before passes again, for a sender that misses its acknowledgement repeats it.
    pub fn is_authentic(&self, message: &[u8]) -> bool {
        let Ok(frame) = Frame::parse(message) else { return false };
        let mut text = [0; MAX_MESSAGE_BYTES];
        text.get_mut(..frame.sealed.len())
            .is_some_and(|text| self.cipher.open(self.from, &frame, text).is_ok())
    }

    fn freshness(&self, frame: &Frame<'_>) -> Result<Freshness, ControlError> {
        let replayed = ControlError::Replayed { got: frame.number };
        if !self.window.is_fresh(frame.number) {
            return Err(replayed);
        }
        let leap = self.window.leap(frame.number);
        match &self.tags {
            Some(tags) if tags.knows(&frame.tag) && leap <= LEGACY_NONCES => {
                Ok(Freshness::Unprovable)
            }
            Some(tags) if tags.knows(&frame.tag) => Err(replayed),
            // A forged leap of the unauthenticated counter must not push honest messages out of the window.
            Some(_) if leap > LEGACY_LEAP => Err(replayed),
            _ => Ok(Freshness::Proven),
        }
    }
}

/// What can be said of a message that was not refused at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    /// It was not seen before, or will not open.
    Proven,
    /// [`Scheme::Legacy`] only: its number is new, its tag is not. The old scheme has 256 nonces, so a client that says
    /// the same thing again after 256 messages sends what somebody who repeats it would send.
    Unprovable,
}

/// Whether it does no harm to hear a message twice. An idle client of the old scheme says nothing but these, the same
/// each time; if they were refused, it would seem silent, and its stream would end.
fn may_repeat(text: &[u8]) -> bool {
    let harmless = [message::PING, message::LOSS_STATS];
    text.first_chunk::<2>().is_some_and(|kind| harmless.contains(&u16::from_le_bytes(*kind)))
}

/// A sealed message taken apart.
struct Frame<'a> {
    number: u32,
    tag: [u8; TAG_BYTES],
    sealed: &'a [u8],
}

impl<'a> Frame<'a> {
    fn parse(message: &'a [u8]) -> Result<Self, ControlError> {
        let malformed = ControlError::Malformed { got: message.len() };
        let (kind, rest) = message.split_first_chunk::<2>().ok_or(malformed)?;
        let kind = u16::from_le_bytes(*kind);
        if kind != SEALED_TYPE {
            return Err(ControlError::Clear { kind });
        }
        let (bytes, rest) = rest.split_first_chunk::<2>().ok_or(malformed)?;
        let bytes = usize::from(u16::from_le_bytes(*bytes));
        if message.len() > MAX_MESSAGE_BYTES {
            return Err(malformed);
        }
        // A longer buffer is tolerated, a shorter one is not.
        let rest = rest.get(..bytes).ok_or(malformed)?;
        let (number, rest) = rest.split_first_chunk::<4>().ok_or(malformed)?;
        let (tag, sealed) = rest.split_first_chunk::<TAG_BYTES>().ok_or(malformed)?;
        if sealed.len() < INNER_BYTES {
            return Err(malformed);
        }
        Ok(Self { number: u32::from_le_bytes(*number), tag: *tag, sealed })
    }
}

fn inner(text: &[u8]) -> Option<Opened<'_>> {
    let (kind, rest) = text.split_first_chunk::<2>()?;
    let (bytes, rest) = rest.split_first_chunk::<2>()?;
    let payload = rest.get(..usize::from(u16::from_le_bytes(*bytes)))?;
    Some(Opened { kind: u16::from_le_bytes(*kind), payload })
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

    fn sealer_at(scheme: Scheme, side: Side, next: u32) -> Sealer {
        Sealer { next: Some(next), ..Sealer::new(&key(), scheme, side) }
    }

    // spec: gamestream 13 item 68
    #[test]
    fn all_four_vectors_hold() {
        let vectors = [
            (
                Scheme::V2,
                Side::Client,
                5,
                0x0302,
                vec![0, 0],
                "01001a00050000001fbeb2855e5612ae0c6fed77dec89368a3ff5e4c77fb",
            ),
            (
                Scheme::Legacy,
                Side::Client,
                5,
                0x0302,
                vec![0, 0],
                "01001a00050000004efac1fd7c54061860318aaec87c59b5fc2b7e8c62dd",
            ),
            (
                Scheme::V2,
                Side::Host,
                7,
                0x0109,
                vec![0x80, 3, 0, 0x23],
                "01001c0007000000a825d6bd20ccfe5ba7fbb60530900ef17f27937ed176265a",
            ),
            (
                Scheme::Legacy,
                Side::Host,
                7,
                0x0109,
                vec![0x80, 3, 0, 0x23],
                "01001c000700000042685111ef308369c7ca45c753034fa1383cc6e2ca4b7d67",
            ),
        ];
        for (scheme, side, number, kind, payload, message) in vectors {
            let message = hex(message);
            assert_eq!(sealer_at(scheme, side, number).seal(kind, &payload).unwrap(), message);
            let mut opener = Opener::new(&key(), scheme, side);
            assert!(opener.recognizes(&message));
            assert_eq!(opener.open(&message), Ok(Opened { kind, payload: &payload }));
            assert!(!opener.recognizes(&message));
        }
    }

    #[test]
    fn the_counter_begins_at_zero_and_ends_instead_of_repeating() {
        let mut sealer = Sealer::new(&key(), Scheme::V2, Side::Host);
        for number in 0..3u32 {
            let message = sealer.seal(0x010e, &[0]).unwrap();
            assert_eq!(message[4..8], number.to_le_bytes());
        }
        let mut last = sealer_at(Scheme::V2, Side::Host, u32::MAX);
        assert!(last.seal(0x010e, &[0]).is_ok());
        assert_eq!(last.seal(0x010e, &[0]), Err(ControlError::CounterExhausted));
    }

    // spec: gamestream 13 item 73
    #[test]
    fn a_message_in_clear_is_refused() {
        let mut opener = Opener::new(&key(), Scheme::V2, Side::Client);
        assert_eq!(
            opener.open(&[0x06, 0x02, 2, 0, 0, 0]),
            Err(ControlError::Clear { kind: 0x0206 })
        );
    }

    // spec: gamestream 13 item 75
    #[test]
    fn a_message_is_opened_once_in_any_order() {
        for scheme in [Scheme::V2, Scheme::Legacy] {
            let mut sealer = Sealer::new(&key(), scheme, Side::Client);
            let messages: Vec<_> =
                (0..5u8).map(|number| sealer.seal(0x0302, &[number, 0]).unwrap()).collect();
            let mut opener = Opener::new(&key(), scheme, Side::Client);
            for at in [0, 3, 1, 4, 2] {
                assert!(opener.open(&messages[at]).is_ok());
                assert_eq!(
                    opener.open(&messages[at]),
                    Err(ControlError::Replayed { got: at as u32 })
                );
            }
        }
    }

    // spec: gamestream 13 item 75
    #[test]
    fn an_old_style_message_is_not_repeated_under_another_number() {
        let mut sealer = Sealer::new(&key(), Scheme::Legacy, Side::Client);
        let mut message = sealer.seal(0x0302, &[0, 0]).unwrap();
        let mut opener = Opener::new(&key(), Scheme::Legacy, Side::Client);
        assert!(opener.open(&message).is_ok());
        message[5] = 1; // 256 is the same nonce
        assert_eq!(opener.open(&message), Err(ControlError::Replayed { got: 256 }));
        let fresh = sealer.seal(0x0302, &[0, 0]).unwrap();
        let mut leap = fresh.clone();
        leap[7] = 1;
        assert!(opener.open(&leap).is_err(), "a forged leap");
        assert!(opener.open(&fresh).is_ok());
    }

    // spec: gamestream 13 item 79
    #[test]
    fn an_idle_legacy_client_is_heard_for_ever() {
        let mut sealer = Sealer::new(&key(), Scheme::Legacy, Side::Client);
        let mut opener = Opener::new(&key(), Scheme::Legacy, Side::Client);
        let ping = [4, 0, 0, 0, 0, 0, 0, 0];
        let mut first = Vec::new();
        for number in 0..5000 {
            let message = sealer.seal(0x0200, &ping).unwrap();
            assert!(opener.open(&message).is_ok(), "ping {number}");
            if number == 0 {
                first = message;
            }
        }
        let key_press = sealer.seal(0x0206, &[1]).unwrap();
        assert!(opener.open(&key_press).is_ok(), "the pings used up the numbers");
        // What acts is not heard twice, whatever number it is given.
        for high in 20..30 {
            let mut again = key_press.clone();
            again[5] = high;
            assert!(opener.open(&again).is_err() && !opener.recognizes(&again));
        }
        // A ping from the past is at most heard, and proves no new address.
        first[5] = 20;
        assert!(!opener.recognizes(&first));
    }

    #[test]
    fn the_sides_cannot_be_swapped() {
        let message = Sealer::new(&key(), Scheme::V2, Side::Host).seal(0x0302, &[0, 0]).unwrap();
        let mut opener = Opener::new(&key(), Scheme::V2, Side::Client);
        assert_eq!(opener.open(&message), Err(ControlError::WrongKey));
    }

    // spec: gamestream 13 item 76
    #[test]
    fn truncated_messages_are_refused_and_longer_ones_tolerated() {
        let mut sealer = Sealer::new(&key(), Scheme::V2, Side::Client);
        let message = sealer.seal(0x0302, &[1, 2]).unwrap();
        let mut opener = Opener::new(&key(), Scheme::V2, Side::Client);
        for end in 0..message.len() {
            assert!(opener.open(&message[..end]).is_err(), "{end} bytes");
        }
        let longer = [message, vec![9; 7]].concat();
        assert_eq!(opener.open(&longer), Ok(Opened { kind: 0x0302, payload: &[1, 2] }));
        assert!(opener.open(&vec![1; MAX_MESSAGE_BYTES + 1]).is_err());
        assert!(sealer.seal(1, &vec![0; MAX_MESSAGE_BYTES]).is_err());
        // An inner length beyond the text.
        let gcm = Gcm::new(&key());
        let mut text = [0x02, 0x03, 9, 0];
        let tag = gcm.seal(nonce(Side::Client, 50), &mut text);
        let lying = [&[1, 0, 24, 0, 50, 0, 0, 0][..], &tag, &text].concat();
        assert_eq!(opener.open(&lying), Err(ControlError::Malformed { got: lying.len() }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_open(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
            let mut opener = Opener::new(&key(), Scheme::V2, Side::Client);
            prop_assert!(opener.open(&bytes).is_err());
            let mut sealed = vec![1, 0, 60, 0];
            sealed.extend_from_slice(&bytes);
            prop_assert!(opener.open(&sealed).is_err());
            prop_assert!(!opener.recognizes(&sealed));
        }

        #[test]
        fn what_was_sealed_opens(
            kind: u16, payload in prop::collection::vec(any::<u8>(), 0..300), legacy: bool,
        ) {
            let scheme = if legacy { Scheme::Legacy } else { Scheme::V2 };
            let message = Sealer::new(&key(), scheme, Side::Client).seal(kind, &payload).unwrap();
            let mut opener = Opener::new(&key(), scheme, Side::Client);
            prop_assert_eq!(opener.open(&message), Ok(Opened { kind, payload: &payload }));
        }
    }
}
