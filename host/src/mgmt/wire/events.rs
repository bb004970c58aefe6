//! What is told to those who follow.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Finished, Request, Stage};

/// What an event is about; followers choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Topic {
    /// How far the host is.
    Stage,
    /// The pairing desk.
    Pairing,
    /// Who plays what.
    Sessions,
    /// What is wrong.
    Problems,
    /// What the console sets.
    Settings,
    /// Who is paired.
    Clients,
    /// The owner, logins and programs.
    Owner,
}

/// Something has changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The host is further, or has failed.
    Stage {
        /// How far it is.
        #[serde(flatten)]
        stage: Stage,
    },
    /// A device waits for its PIN.
    PairingAsked {
        /// Its request.
        request: Request,
    },
    /// A request got a PIN; the pairing goes on.
    PairingAnswered {
        /// The request.
        request: Request,
    },
    /// A request ended.
    PairingEnded {
        /// How.
        finished: Finished,
    },
    /// The desk was armed or disarmed, or turned a device away.
    PairingDesk,
    /// A session began.
    SessionBegan {
        /// The session.
        session: SessionNews,
    },
    /// A session's stream began or ended, or its output has another mode.
    SessionChanged {
        /// The session.
        session: SessionNews,
    },
    /// A session ended.
    SessionEnded {
        /// The session.
        session: SessionNews,
    },
    /// Other things are wrong than before.
    Problems {
        /// All that is, in sentences.
        problems: Vec<String>,
    },
    /// A setting, an app or its picture was changed.
    Settings,
    /// A device was paired, renamed or removed, or may do other things than before.
    Clients,
    /// The host was claimed or its claim armed again, somebody logged in or out, a token was made or removed, or something
    /// else was noted in the audit log.
    Owner,
    /// The follower was too slow and has missed events; what it shows may be old.
    Lagged {
        /// How many.
        missed: u64,
    },
}

/// A session as events tell of it; the sessions' own area says more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionNews {
    /// Its number.
    pub id: u64,
    /// Whose it is.
    pub client: String,
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

impl Event {
    /// What it is about; `None` for what every follower is told.
    pub fn topic(&self) -> Option<Topic> {
        Some(match self {
            Self::Stage { .. } => Topic::Stage,
            Self::PairingAsked { .. }
            | Self::PairingAnswered { .. }
            | Self::PairingEnded { .. }
            | Self::PairingDesk => Topic::Pairing,
            Self::SessionBegan { .. } | Self::SessionChanged { .. } | Self::SessionEnded { .. } => {
                Topic::Sessions
            }
            Self::Problems { .. } => Topic::Problems,
            Self::Settings => Topic::Settings,
            Self::Clients => Topic::Clients,
            Self::Owner => Topic::Owner,
            Self::Lagged { .. } => return None,
        })
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Stage { .. } => "stage",
            Self::PairingAsked { .. } => "pairing-asked",
            Self::PairingAnswered { .. } => "pairing-answered",
            Self::PairingEnded { .. } => "pairing-ended",
            Self::PairingDesk => "pairing-desk",
            Self::SessionBegan { .. } => "session-began",
            Self::SessionChanged { .. } => "session-changed",
            Self::SessionEnded { .. } => "session-ended",
            Self::Problems { .. } => "problems",
            Self::Settings => "settings",
            Self::Clients => "clients",
            Self::Owner => "owner",
            Self::Lagged { .. } => "lagged",
        }
    }
}
