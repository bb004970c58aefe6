//! The pairing desk: who asks, who answers, and how it ended.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use zeroize::Zeroize;

use crate::pairing::{
    Denied, DeskSnapshot, DeskState, FinishedRequest, PairingOutcome, PendingRequest, RequestEnd,
    Withdrawn,
};
use crate::store::ClientId;

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
    /// Devices that the owner declined and that may not ask for a while, oldest first.
    #[serde(default)]
    pub denied: Vec<Declined>,
}

/// A device that the owner declined. Neither its address nor its certificate may ask again until the time is over or the
/// owner arms pairing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Declined {
    /// Where it asked from.
    #[schema(value_type = String)]
    pub remote: IpAddr,
    /// The beginning of its certificate's fingerprint.
    pub fingerprint: String,
    /// How long this still holds, in seconds.
    pub remaining_seconds: u64,
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
    /// It has a name of its own. Stock clients send none; then the name is the address, and the owner should give one.
    #[serde(default)]
    pub named: bool,
    /// The beginning of its certificate's fingerprint: 16 hex digits in groups of four.
    #[serde(default)]
    pub fingerprint: String,
    /// How long ago it asked, in seconds.
    #[serde(default)]
    pub asked_seconds: u64,
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
    /// What happened and what to do, in a sentence.
    #[serde(default)]
    pub detail: String,
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
            denied: desk.denied.into_iter().map(Declined::from).collect(),
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
            named: request.is_named,
            fingerprint: short_fingerprint(request.client),
            asked_seconds: now.since(request.asked_at).as_secs(),
            expires_seconds: request.expires_at.since(now).as_secs(),
        }
    }
}

impl From<Denied> for Declined {
    fn from(denied: Denied) -> Self {
        Self {
            remote: denied.remote,
            fingerprint: short_fingerprint(denied.client),
            remaining_seconds: denied.remaining.as_secs(),
        }
    }
}

impl From<FinishedRequest> for Finished {
    fn from(finished: FinishedRequest) -> Self {
        let detail = told(finished.end);
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
            detail,
            client: client.map(|client| client.to_string()),
        }
    }
}

/// Enough of a fingerprint to tell one's own devices apart by, and short enough to compare by eye.
fn short_fingerprint(client: ClientId) -> String {
    let hex = client.to_string();
    let groups = hex.as_bytes().chunks(4).take(4).map(String::from_utf8_lossy);
    groups.collect::<Vec<_>>().join(" ")
}

/// How a request ended and what to do, for the owner.
fn told(end: RequestEnd) -> String {
    let advice = match end {
        RequestEnd::Outcome(PairingOutcome::Paired { .. }) => "it can play now",
        RequestEnd::Outcome(PairingOutcome::WrongPin) => {
            "or the device gave up; choose \"pair\" on it again and type the new PIN that it shows"
        }
        RequestEnd::Outcome(PairingOutcome::Abandoned)
        | RequestEnd::Withdrawn(Withdrawn::Expired) => "choose \"pair\" on it again if it is yours",
        RequestEnd::Outcome(PairingOutcome::ProtocolError) => {
            "try again, and update the client if that does not help"
        }
        RequestEnd::Withdrawn(Withdrawn::Replaced) => "type the PIN that it shows now",
        RequestEnd::Withdrawn(Withdrawn::Declined) => {
            "it may not ask again for ten minutes, unless pairing is armed anew"
        }
        RequestEnd::Withdrawn(Withdrawn::Disarmed) => "arm pairing and let the device ask again",
    };
    format!("{end}; {advice}")
}
