//! One record, how it lies in the book's storage, and what can be asked of it.

use std::str::FromStr;

/// The longest message, in bytes.
pub(super) const MAX_MESSAGE_BYTES: usize = 1024;
/// The longest value of a field, in bytes.
pub(super) const MAX_VALUE_BYTES: usize = 512;
/// As many fields are kept.
pub(super) const MAX_FIELDS: usize = 12;
/// The longest names of a part of the host and of a field, in bytes; they are words of our sources.
const MAX_TARGET_BYTES: usize = 128;
const MAX_NAME_BYTES: usize = 64;

/// How serious a record is; the most serious is the least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A bug of the host's, survived.
    Error,
    /// Bad, but to be expected.
    Warn,
    /// What nobody would turn off.
    #[default]
    Info,
    /// What may be hidden.
    Debug,
    /// A flood.
    Trace,
}

impl Level {
    const ALL: [Self; 5] = [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            _ => Self::Trace,
        }
    }
}

/// No level is called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no such level; there are error, warn, info, debug and trace")]
pub struct LevelError;

impl FromStr for Level {
    type Err = LevelError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|level| level.name() == text).ok_or(LevelError)
    }
}

/// A record: shortened, and without the secrets whose shape is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// Its number; counts from 1 and never has a gap while the host runs.
    pub sequence: u64,
    /// The wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// How serious it is.
    pub level: Level,
    /// Which part of the host wrote it.
    pub target: String,
    /// What happened.
    pub message: String,
    /// The data, by name, in the order it was given in.
    pub fields: Vec<(String, String)>,
    /// The session that it is about.
    pub session: Option<u64>,
}

impl Record {
    /// What was packed; `None` if these are not the bytes of a [`Packed`].
    pub(super) fn unpack(packed: &[u8]) -> Option<Self> {
        let mut rest = Unpacking(packed.get(size_of::<u16>()..)?);
        let (sequence, at_ms) = (rest.number()?, rest.number()?);
        let level = *Level::ALL.get(usize::from(rest.byte()?))?;
        let session = if rest.byte()? == 0 { None } else { Some(rest.number()?) };
        let (target, message) = (rest.text()?, rest.text()?);
        let count = rest.byte()?;
        let fields =
            (0..count).map(|_| Some((rest.text()?, rest.text()?))).collect::<Option<_>>()?;
        Some(Self { sequence, at_ms, level, target, message, fields, session })
    }
}

/// A record as bytes: its whole length, its numbers, then texts with their lengths before them; whatever is longer than
/// its limit is cut.
pub(super) struct Packed(Vec<u8>);

impl Packed {
    /// The longest one: numbers and lengths, and every text as long as it may be.
    pub(super) const MAX_BYTES: usize = 2
        + 3 * 8
        + 3
        + (2 + MAX_TARGET_BYTES)
        + (2 + MAX_MESSAGE_BYTES)
        + MAX_FIELDS * (2 + MAX_NAME_BYTES + 2 + MAX_VALUE_BYTES);

    pub(super) fn new(record: &Record) -> Self {
        let mut packed = Self(vec![0; size_of::<u16>()]);
        packed.0.extend(record.sequence.to_le_bytes());
        packed.0.extend(record.at_ms.to_le_bytes());
        packed.0.push(record.level as u8);
        packed.0.push(u8::from(record.session.is_some()));
        packed.0.extend(record.session.iter().flat_map(|session| session.to_le_bytes()));
        packed.text(&record.target, MAX_TARGET_BYTES);
        packed.text(&record.message, MAX_MESSAGE_BYTES);
        let count = record.fields.len().min(MAX_FIELDS);
        packed.0.push(count as u8);
        for (name, value) in record.fields.iter().take(count) {
            packed.text(name, MAX_NAME_BYTES);
            packed.text(value, MAX_VALUE_BYTES);
        }
        let length = packed.0.len() as u16;
        packed.0[..size_of::<u16>()].copy_from_slice(&length.to_le_bytes());
        packed
    }

    /// Gives it another number.
    pub(super) fn number(&mut self, sequence: u64) {
        self.0[2..10].copy_from_slice(&sequence.to_le_bytes());
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The length of one that begins so.
    pub(super) fn length_of(begin: [u8; 2]) -> usize {
        usize::from(u16::from_le_bytes(begin))
    }

    fn text(&mut self, text: &str, most: usize) {
        let text = &text[..text.floor_char_boundary(most)];
        self.0.extend((text.len() as u16).to_le_bytes());
        self.0.extend_from_slice(text.as_bytes());
    }
}

// Every length above fits its two bytes.
const _: () = assert!(Packed::MAX_BYTES <= u16::MAX as usize && MAX_FIELDS <= u8::MAX as usize);

/// The packed records that lie in these bytes one behind the other.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let begin = bytes.first_chunk()?;
        let (first, rest) = bytes.split_at_checked(Packed::length_of(*begin).max(1))?;
        bytes = rest;
        Some(first)
    })
}

/// The number of a packed record.
pub(super) fn sequence_of(packed: &[u8]) -> u64 {
    Unpacking(packed.get(size_of::<u16>()..).unwrap_or_default()).number().unwrap_or(0)
}

/// What of a packed record was not read yet.
struct Unpacking<'a>(&'a [u8]);

impl<'a> Unpacking<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|byte| byte[0])
    }

    fn number(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|bytes| u64::from_le_bytes(*bytes))
    }

    fn text(&mut self) -> Option<String> {
        let length = self.take(2)?.first_chunk().map(|bytes| u16::from_le_bytes(*bytes))?;
        String::from_utf8(self.take(length.into())?.to_vec()).ok()
    }
}

/// What records must be like; an empty one takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// At least as serious as this.
    pub level: Option<Level>,
    /// Of this part of the host; `punktfunk_host::stream` takes `punktfunk_host::stream::send` too.
    pub target: Option<String>,
    /// About this session.
    pub session: Option<u64>,
    /// With this text in the message or in the value of a field, in lower case; see [`Self::with_text`].
    pub text: Option<String>,
}

impl Filter {
    /// Also with this text; upper and lower case are the same.
    pub fn with_text(mut self, text: Option<&str>) -> Self {
        self.text = text.filter(|text| !text.is_empty()).map(str::to_lowercase);
        self
    }

    /// Whether it lets a record pass.
    pub fn takes(&self, record: &Record) -> bool {
        let of_target = |prefix: &String| {
            let rest = record.target.strip_prefix(prefix.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        self.level.is_none_or(|level| record.level <= level)
            && self.target.as_ref().is_none_or(of_target)
            && self.session.is_none_or(|session| record.session == Some(session))
            && self.text.as_ref().is_none_or(|text| {
                let has = |value: &str| value.to_lowercase().contains(text.as_str());
                has(&record.message) || record.fields.iter().any(|(_, value)| has(value))
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_packed_record_is_the_record(
            numbers in any::<(u64, u64, Option<u64>)>(),
            level in proptest::sample::select(&Level::ALL[..]),
            texts in ("\\PC{0,40}", "\\PC{0,200}"),
            fields in proptest::collection::vec(("\\PC{0,16}", "\\PC{0,100}"), 0..=MAX_FIELDS),
        ) {
            let ((sequence, at_ms, session), (target, message)) = (numbers, texts);
            let record = Record { sequence, at_ms, level, target, message, fields, session };
            let packed = Packed::new(&record);
            prop_assert_eq!(split(packed.bytes()).count(), 1);
            prop_assert_eq!(sequence_of(packed.bytes()), sequence);
            prop_assert_eq!(Record::unpack(packed.bytes()), Some(record));
        }

        #[test]
        fn other_bytes_are_no_record_and_no_panic(bytes in any::<Vec<u8>>()) {
            let _ = split(&bytes).filter_map(Record::unpack).count();
        }
    }

    #[test]
    fn the_longest_record_is_no_longer_than_it_may_be() {
        let long = "\u{20ac}".repeat(5000);
        let record = Record {
            target: long.clone(),
            message: long.clone(),
            fields: vec![(long.clone(), long); 100],
            session: Some(1),
            ..Record::default()
        };
        let packed = Packed::new(&record);
        assert!(packed.bytes().len() <= Packed::MAX_BYTES, "{}", packed.bytes().len());
        let kept = Record::unpack(packed.bytes()).unwrap();
        assert_eq!((kept.message.len(), kept.fields.len()), (1023, MAX_FIELDS));
    }
}
