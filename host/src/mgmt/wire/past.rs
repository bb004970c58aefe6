//! Sessions that have ended.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::session::Summary;
use crate::store;

/// A session that has ended, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PastSession {
    /// Its number among past sessions; a later one has a higher number. Not the number it had while it ran.
    pub id: u64,
    /// Whose it was, 64 hex digits; the client may be paired no more.
    pub client: String,
    /// What that client was called then.
    pub client_name: String,
    /// What ran in it.
    pub app: String,
    /// The last mode of its output.
    pub mode: String,
    /// When it began, in seconds since 1970.
    pub began_at: u64,
    /// When it ended, in seconds since 1970.
    pub ended_at: u64,
    /// Why it ended, in words.
    pub reason: String,
    /// What is known of its streams; left out if that cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub figures: Option<PastFigures>,
}

/// What is kept of the figures of a session: counts of all its streams, and how long their pictures took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PastFigures {
    /// Pictures of the source.
    pub captured: u64,
    /// Pictures that went out, repetitions included.
    pub sent: u64,
    /// Of these, repetitions because the screen did not change.
    pub repeated: u64,
    /// Of these, those that restart the picture.
    pub idr: u64,
    /// Pictures that were dropped before the encoder.
    pub dropped: u64,
    /// Pictures that were coded and could not be sent.
    pub unsendable: u64,
    /// Coded bytes that went out.
    pub bytes: u64,
    /// Datagrams that went out, parity included.
    pub datagrams: u64,
    /// From capture to the last datagram in microseconds, to within 1/32: half took no longer.
    pub latency_p50_us: u32,
    /// 95 of 100 took no longer.
    pub latency_p95_us: u32,
    /// 99 of 100 took no longer.
    pub latency_p99_us: u32,
}

impl From<store::PastSession> for PastSession {
    fn from(past: store::PastSession) -> Self {
        Self {
            id: past.id,
            client: past.client,
            client_name: past.client_name,
            app: past.app,
            mode: past.mode,
            began_at: past.began_at,
            ended_at: past.ended_at,
            reason: past.reason,
            figures: serde_json::from_str::<Summary>(&past.figures).ok().map(Into::into),
        }
    }
}

impl From<Summary> for PastFigures {
    fn from(summary: Summary) -> Self {
        Self {
            captured: summary.captured,
            sent: summary.sent,
            repeated: summary.repeated,
            idr: summary.idr,
            dropped: summary.dropped,
            unsendable: summary.unsendable,
            bytes: summary.bytes,
            datagrams: summary.datagrams,
            latency_p50_us: summary.latency_p50_us,
            latency_p95_us: summary.latency_p95_us,
            latency_p99_us: summary.latency_p99_us,
        }
    }
}
