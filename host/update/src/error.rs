//! Why something about an update is not done. The daemon makes sentences for the owner of it, so each carries what those
//! need; as JSON it goes over the bus.

use serde::{Deserialize, Serialize};

use crate::name::Version;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "code", rename_all = "kebab-case")]
pub enum UpdateError {
    /// Where updates come from does not answer, or not sensibly.
    #[error("updates cannot be reached: {detail}")]
    Unreachable {
        /// What was found.
        detail: String,
    },
    /// Nobody whose key is trusted has signed it.
    #[error("it is not signed by a trusted key: {detail}")]
    Signature {
        /// What was found.
        detail: String,
    },
    /// It was signed too long ago.
    #[error("what is stated of version {version} has expired")]
    Expired {
        /// The newest version that it states.
        version: Version,
    },
    /// The clock of this machine stands before the time at which it was signed, or before one that was seen already.
    #[error("the clock stands before the time at which version {version} was stated")]
    ClockBehind {
        /// The newest version that it states.
        version: Version,
    },
    /// It is older than what was seen already.
    #[error("version {version} is older than {floor}")]
    Downgrade {
        /// What it states.
        version: Version,
        /// The oldest that is taken.
        floor: Version,
    },
    /// The disk has no room.
    #[error("{needed_bytes} bytes are needed and {free_bytes} are free")]
    NoSpace {
        /// What is needed, in bytes, with what unpacking takes.
        needed_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// What came is not what was signed.
    #[error("what came is not what was promised: {detail}")]
    Content {
        /// What was found.
        detail: String,
    },
    /// Whoever gives an archive does not say in time what is stated.
    #[error("what is signed, with which it begins, did not come within {limit_s} s")]
    Late {
        /// So long it was waited, in seconds.
        limit_s: u64,
    },
    /// It was asked to stop.
    #[error("it was stopped")]
    Stopped,
    /// Something else is being done.
    #[error("something else is being done: {doing}")]
    Busy {
        /// What, such as `download`.
        doing: String,
    },
    /// It is not there, or not whole.
    #[error("it is not downloaded")]
    NothingDownloaded,
    /// No signed statement names it, and it is not on the disk.
    #[error("there is no such version")]
    UnknownDeployment,
    /// It did not pass here before.
    #[error("version {version} did not pass here: {reason}")]
    Bad {
        /// Which.
        version: Version,
        /// Why.
        reason: String,
    },
    /// It is older than the oldest that is safe.
    #[error("version {version} is older than {floor}, the oldest that is safe")]
    BelowFloor {
        /// Which.
        version: Version,
        /// The oldest that may be started.
        floor: Version,
    },
    /// As many are pinned as may be.
    #[error("{max} versions are pinned, which is as many as may be")]
    TooManyPins {
        /// The limit.
        max: usize,
    },
    /// Whoever asks may not.
    #[error("whoever asks may not")]
    NotAllowed,
    /// What was asked for cannot be understood.
    #[error("that cannot be understood: {detail}")]
    Malformed {
        /// What is wrong with it.
        detail: String,
    },
    /// The machine did not do it.
    #[error("could not {doing}: {detail}")]
    Failed {
        /// What was being done.
        doing: String,
        /// What was found.
        detail: String,
    },
}

impl UpdateError {
    /// The machine did not do it.
    pub fn failed(doing: &str, detail: impl std::fmt::Display) -> Self {
        Self::Failed {
            doing: doing.to_owned(),
            detail: punktfunk_os::status::bounded(&detail.to_string()),
        }
    }
}
