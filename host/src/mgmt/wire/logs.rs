//! Log records on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::logbook::{Level, Page, Record};

/// How serious a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogLevel {
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

/// A log record, shortened, and without what looks like a secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogRecord {
    /// Its number; counts from 1 since the host started.
    pub sequence: u64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: u64,
    /// How serious it is.
    pub level: LogLevel,
    /// Which part of the host wrote it.
    pub target: String,
    /// What happened.
    pub message: String,
    /// The data, by name.
    pub fields: BTreeMap<String, String>,
    /// The session that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub session: Option<u64>,
}

/// Log records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Logs {
    /// The records, oldest first.
    pub records: Vec<LogRecord>,
    /// The oldest record that is still kept; 0 if none is.
    pub oldest: u64,
    /// The newest record there is; 0 if there is none.
    pub newest: u64,
}

/// A follower was too slow, or came too late: these records are gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogGap {
    /// How many.
    pub missed: u64,
}

impl From<LogLevel> for Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

impl From<Level> for LogLevel {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::Error,
            Level::Warn => Self::Warn,
            Level::Info => Self::Info,
            Level::Debug => Self::Debug,
            Level::Trace => Self::Trace,
        }
    }
}

impl From<&Record> for LogRecord {
    fn from(record: &Record) -> Self {
        Self {
            sequence: record.sequence,
            at_ms: record.at_ms,
            level: record.level.into(),
            target: record.target.clone(),
            message: record.message.clone(),
            fields: record.fields.iter().cloned().collect(),
            session: record.session,
        }
    }
}

impl From<Page> for Logs {
    fn from(page: Page) -> Self {
        Self {
            records: page.records.iter().map(LogRecord::from).collect(),
            oldest: page.oldest,
            newest: page.newest,
        }
    }
}
