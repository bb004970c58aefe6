//! What goes over the doors, as JSON: the same types on both ends.
//!
//! Times are microseconds of the host's monotonic clock where a name ends in `_us`, seconds since 1970 where it ends
//! in `_at`. Fields are only ever added.

mod backup;
mod client;
mod codes;
mod events;
mod landing;
mod logs;
mod machine;
mod os;
mod pairing;
mod past;
mod power;
mod session;
mod settings;

use std::net::SocketAddr;

use punktfunk_core::media::{BlockShape, DropReason, FrameFate, FrameKind, FrameTrace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::pairing::Permit;

pub use events::{Event, SessionNews, Topic};
pub use landing::{Health, Landing, Stage};
mod access;
pub use access::*;
pub use backup::{
    BackupRequest, HomeProblem, HomeTrouble, HomesBackupRequest, HomesRestored, Restored,
    RestoredHome,
};
pub use client::{Client, ClientChange, Permission};
pub use codes::CODES;
pub use logs::{LogGap, LogLevel, LogRecord, Logs};
pub use machine::{
    Network, NetworkCondition, NetworkInterface, NetworkKind, NetworkRoute, Storage, StorageFolder,
    StoragePurpose, StorageRoom,
};
pub use pairing::{Answer, Arm, Decline, Declined, Finished, Pairing, PinText, Request};
pub use past::{PastFigures, PastSession};
pub use session::{
    ClientReport, DropCount, FrameCount, LatencySplit, Percentiles, SessionDetails, SessionEnded,
    SessionFigures, StreamEncryption, StreamSetup, WindowFigures,
};
pub use settings::{
    App, AppDefinition, Setting, SettingChanges, SettingKind, SettingLayer, SettingOrigin,
    SettingTakesEffect,
};

pub use os::*;
pub use power::*;

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs; never changes its meaning.
    #[schema(schema_with = codes::schema)]
    pub code: String,
    /// What went wrong, for the owner.
    pub detail: String,
    /// Another try is worth it after so many seconds, and not before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_seconds: Option<u64>,
}

/// A server-sent event: what a stream of them (`text/event-stream`) is made of, line by line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServerEvent {
    /// Which kind of event.
    pub event: String,
    /// What happened, as JSON.
    pub data: String,
    /// Its number, to come back with in `Last-Event-ID`, if the stream has numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub id: Option<String>,
}

/// How the host is doing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StatusReport {
    /// The host's version.
    pub version: String,
    /// The name that clients show.
    pub name: String,
    /// Where it listens.
    pub listens: Vec<Listen>,
    /// Which backends it chose, and why.
    pub backends: Vec<Backend>,
    /// What is wrong, in sentences; empty if all is well.
    pub problems: Vec<String>,
    /// Where a client on this machine finds plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub near: Option<SocketAddr>,
}

/// The self-test asks for a permit.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskPermit {
    /// The client id that its certificate makes: the SHA-256 of its DER bytes, 64 hex digits.
    #[schema(pattern = "^[0-9a-fA-F]{64}$")]
    pub client: String,
}

/// The self-test's permit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SelfTestPermit {
    /// The client it is for.
    pub client: String,
    /// How long it lives unless it is renewed, in milliseconds.
    pub remaining_ms: u64,
    /// The request at the pairing desk that it was used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// Where a client on this machine finds plain HTTP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub near: Option<SocketAddr>,
}

/// The PIN of a self-test's own request.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SelfTestPin {
    /// Four digits.
    pub pin: PinText,
}

/// One socket of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Listen {
    /// What is spoken there.
    pub protocol: String,
    /// Where.
    pub address: String,
}

/// One choice of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// What it is for.
    pub room: String,
    /// What was chosen.
    pub chosen: String,
    /// Why.
    pub why: String,
}

/// The owner names a client.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Rename {
    /// The new name.
    pub name: String,
}

/// A session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Session {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub client: String,
    /// That client's name.
    pub client_name: String,
    /// What runs in it.
    pub app: String,
    /// The mode of its output.
    pub mode: String,
    /// A stream is prepared or running.
    pub streaming: bool,
    /// Why it ended, in words, if it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
}

/// What one frame went through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Trace {
    /// Which picture of the source.
    pub source: u64,
    /// When it was captured.
    pub captured_us: u64,
    /// The previous picture again.
    pub repeated: bool,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// The datagrams of one block: first those with data, then those with parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Block {
    /// How many carry data, and how many of the block's datagrams a client must get.
    pub data: u16,
    /// How many carry parity.
    pub parity: u16,
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "fate", rename_all = "kebab-case")]
pub enum Fate {
    /// It went out.
    Sent {
        /// Its number on the wire.
        index: u32,
        /// `idr`, `predicted` or `after-invalidation`.
        kind: String,
        /// When the encoder was given it.
        encode_began_us: u64,
        /// When the encoder handed the bytes out.
        encoded_us: u64,
        /// When its first datagram went to the socket.
        first_sent_us: u64,
        /// When its last datagram went to the socket.
        last_sent_us: u64,
        /// Coded size.
        bytes: u32,
        /// Datagrams, parity included.
        datagrams: u32,
        /// The number of its first datagram; the others follow without a gap, block after block.
        #[serde(default)]
        first_sequence: u16,
        /// Its blocks in the order of sending, at most four.
        #[serde(default)]
        blocks: Vec<Block>,
    },
    /// It was dropped before it was encoded.
    Dropped {
        /// `superseded`, `over-rate`, `unsendable` or `stream-ended`.
        reason: String,
    },
}

impl From<Permit> for SelfTestPermit {
    fn from(permit: Permit) -> Self {
        Self {
            client: permit.client.to_string(),
            remaining_ms: u64::try_from(permit.remaining.as_millis()).unwrap_or(u64::MAX),
            request: permit.request.map(|request| request.0),
            near: None,
        }
    }
}

impl From<BlockShape> for Block {
    fn from(block: BlockShape) -> Self {
        Self { data: block.data, parity: block.parity }
    }
}

impl From<FrameTrace> for Trace {
    fn from(trace: FrameTrace) -> Self {
        let fate = match trace.fate {
            FrameFate::Sent {
                index,
                kind,
                encode_began_at,
                encoded_at,
                first_sent_at,
                last_sent_at,
                bytes,
                datagrams,
                shape,
            } => Fate::Sent {
                index: index.0,
                kind: match kind {
                    FrameKind::Idr => "idr",
                    FrameKind::Predicted => "predicted",
                    FrameKind::AfterInvalidation => "after-invalidation",
                }
                .to_owned(),
                encode_began_us: encode_began_at.as_micros(),
                encoded_us: encoded_at.as_micros(),
                first_sent_us: first_sent_at.as_micros(),
                last_sent_us: last_sent_at.as_micros(),
                bytes,
                datagrams,
                first_sequence: shape.first_sequence,
                blocks: shape.blocks().iter().map(|block| Block::from(*block)).collect(),
            },
            FrameFate::Dropped(reason) => Fate::Dropped {
                reason: match reason {
                    DropReason::Superseded => "superseded",
                    DropReason::OverRate => "over-rate",
                    DropReason::Unsendable => "unsendable",
                    DropReason::StreamEnded => "stream-ended",
                }
                .to_owned(),
            },
        };
        Self {
            source: trace.source.0,
            captured_us: trace.captured_at.as_micros(),
            repeated: trace.repeated,
            fate,
        }
    }
}
