//! One record, and what can be asked of it.

use std::str::FromStr;

/// How serious a record is; the most serious is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// A bug of the host's, survived.
    Error,
    /// Bad, but to be expected.
    Warn,
    /// What nobody would turn off.
    Info,
    /// What may be hidden.
    Debug,
    /// A flood.
    Trace,
}

impl Level {
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
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.name() == text)
            .ok_or(LevelError)
    }
}

/// A record: shortened, and without the secrets whose shape is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number; counts from 1 and never has a gap while the host runs.
    pub sequence: u64,
    /// The wall clock, in milliseconds since 1970.
    pub at_ms: u64,
    /// How serious it is.
    pub level: Level,
    /// Which part of the host wrote it.
    pub target: &'static str,
    /// What happened.
    pub message: String,
    /// The data, by name, in the order it was given in.
    pub fields: Vec<(&'static str, String)>,
    /// The session that it is about.
    pub session: Option<u64>,
}

impl Record {
    /// What it takes of memory.
    pub(super) fn bytes(&self) -> usize {
        let fields: usize = self.fields.iter().map(|(_, value)| value.capacity()).sum();
        let slots = self.fields.capacity() * size_of::<(&'static str, String)>();
        size_of::<Self>() + self.message.capacity() + slots + fields
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
