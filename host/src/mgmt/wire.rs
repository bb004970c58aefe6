//! What goes over the doors, as JSON: the same types on both ends.
//!
//! Times are microseconds of the host's monotonic clock where a name ends in `_us`, seconds since 1970 where it ends
//! in `_at`. Fields are only ever added.

mod backup;
mod events;
mod landing;
mod logs;
mod machine;
mod session;
mod settings;

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use punktfunk_core::media::{BlockShape, DropReason, FrameFate, FrameKind, FrameTrace};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize;

use crate::pairing::{
    DeskSnapshot, DeskState, FinishedRequest, PairingOutcome, PendingRequest, Permit, RequestEnd,
    Withdrawn,
};
use crate::store::PairedClient;

pub use events::{Event, SessionNews, Topic};
pub use landing::{Health, Landing, Stage};
mod access;
pub use access::*;
pub use backup::{BackupRequest, Restored};
pub use logs::{LogGap, LogLevel, LogRecord, Logs};
pub use machine::{
    Network, NetworkCondition, NetworkInterface, NetworkKind, NetworkRoute, Storage, StorageFolder,
    StoragePurpose, StorageRoom,
};
pub use session::{
    ClientReport, DropCount, FrameCount, LatencySplit, Percentiles, SessionDetails, SessionEnded,
    SessionFigures, StreamEncryption, StreamSetup, WindowFigures,
};
pub use settings::{
    App, AppDefinition, Setting, SettingChanges, SettingKind, SettingLayer, SettingOrigin,
    SettingTakesEffect,
};

/// An error (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDetails {
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What went wrong, for programs; never changes its meaning.
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

/// The pairing desk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pairing {
    /// Counts changes; hand it back as `after` to wait for the next one.
    pub revision: u64,
    /// `open`, `armed` or `unarmed`.
    pub state: String,
    /// How long it is still armed, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub armed_seconds: Option<u64>,
    /// Requests that wait for a PIN, oldest first.
    pub pending: Vec<Request>,
    /// Requests that ended last, oldest first.
    pub recent: Vec<Finished>,
}

/// A request to be paired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Request {
    /// Its number.
    pub id: u64,
    /// Where it came from.
    #[schema(value_type = String)]
    pub remote: IpAddr,
    /// The device's name.
    pub device_name: String,
    /// How much longer it stays, in seconds.
    pub expires_seconds: u64,
}

/// A request that ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Finished {
    /// Its number.
    pub id: u64,
    /// Where it came from.
    #[schema(value_type = String)]
    pub remote: IpAddr,
    /// The device's name.
    pub device_name: String,
    /// `paired`, `wrong-pin`, `abandoned`, `protocol-error`, `replaced`, `expired`, `declined` or `disarmed`.
    pub outcome: String,
    /// The client, if it paired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// The owner types a PIN.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Answer {
    /// Which request it is for; may be left out while only one waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<u64>,
    /// The PIN.
    pub pin: PinText,
    /// What the owner calls the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A PIN as it was typed; not printed, wiped when dropped.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = Password, pattern = "^ *[0-9]{4} *$")]
pub struct PinText(pub String);

impl fmt::Debug for PinText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinText(redacted)")
    }
}

impl Drop for PinText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// The owner turns a request away.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct Decline {
    /// Which.
    pub request: u64,
}

/// The owner opens pairing for a while.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct Arm {
    /// For how long, in seconds; five minutes if left out, an hour at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<u64>,
}

/// A paired client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Client {
    /// Its id, 64 hex digits.
    pub id: String,
    /// What the owner calls it.
    pub name: String,
    /// When it was paired.
    pub paired_at: u64,
    /// When it was last here.
    pub last_seen_at: u64,
    /// Where it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote: Option<IpAddr>,
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

impl From<DeskSnapshot> for Pairing {
    fn from(desk: DeskSnapshot) -> Self {
        let at = desk.at;
        let (state, armed_seconds) = match desk.state {
            DeskState::Open => ("open", None),
            DeskState::Armed { remaining } => ("armed", Some(remaining.as_secs())),
            DeskState::Unarmed => ("unarmed", None),
        };
        Self {
            revision: desk.revision,
            state: state.to_owned(),
            armed_seconds,
            pending: desk.pending.into_iter().map(|request| Request::at(&request, at)).collect(),
            recent: desk.recent.into_iter().map(Finished::from).collect(),
        }
    }
}

impl Request {
    /// The request as it stands at a moment.
    pub fn at(request: &PendingRequest, now: punktfunk_core::time::Timestamp) -> Self {
        Self {
            id: request.id.0,
            remote: request.remote,
            device_name: request.device_name.clone(),
            expires_seconds: request.expires_at.since(now).as_secs(),
        }
    }
}

impl From<Permit> for SelfTestPermit {
    fn from(permit: Permit) -> Self {
        Self {
            client: permit.client.to_string(),
            remaining_ms: u64::try_from(permit.remaining.as_millis()).unwrap_or(u64::MAX),
            request: permit.request.map(|request| request.0),
        }
    }
}

impl From<FinishedRequest> for Finished {
    fn from(finished: FinishedRequest) -> Self {
        let (outcome, client) = match finished.end {
            RequestEnd::Outcome(PairingOutcome::Paired { client }) => ("paired", Some(client)),
            RequestEnd::Outcome(PairingOutcome::WrongPin) => ("wrong-pin", None),
            RequestEnd::Outcome(PairingOutcome::Abandoned) => ("abandoned", None),
            RequestEnd::Outcome(PairingOutcome::ProtocolError) => ("protocol-error", None),
            RequestEnd::Withdrawn(Withdrawn::Replaced) => ("replaced", None),
            RequestEnd::Withdrawn(Withdrawn::Expired) => ("expired", None),
            RequestEnd::Withdrawn(Withdrawn::Declined) => ("declined", None),
            RequestEnd::Withdrawn(Withdrawn::Disarmed) => ("disarmed", None),
        };
        Self {
            id: finished.request.id.0,
            remote: finished.request.remote,
            device_name: finished.request.device_name,
            outcome: outcome.to_owned(),
            client: client.map(|client| client.to_string()),
        }
    }
}

impl From<PairedClient> for Client {
    fn from(client: PairedClient) -> Self {
        Self {
            id: client.id.to_string(),
            name: client.name,
            paired_at: client.paired_at,
            last_seen_at: client.last_seen_at,
            remote: client.remote,
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
