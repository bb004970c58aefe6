//! Why something is not done: each reason is a sentence for the owner, and says what it means for streaming and what to do.
//!
//! One list for all of it, because the owner does not care which part said no: the state machine, the rules that hold
//! before a byte is written, or the backend.

use super::release::{ReleaseError, Version};

/// The largest size that is told in MB rather than in kB or bytes; sizes are told in whole MB.
const MEGABYTE: u64 = 1_000_000;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OsError {
    /// This machine's system is not ours to update.
    #[error("{reason}")]
    NotAnAppliance {
        /// Why, and what to do, in sentences.
        reason: String,
    },
    /// The backend has not answered yet.
    #[error(
        "the system is still being looked at; streaming is not affected. Try again in a moment"
    )]
    NotReady,
    /// Something else is being done.
    #[error(
        "the host is {doing}; streaming is not affected. Wait until that is done, or cancel it first"
    )]
    Busy {
        /// What, as a part of a sentence.
        doing: &'static str,
    },
    /// No update is known.
    #[error("no update is known that could be downloaded; check for updates first")]
    NothingOffered,
    /// The update is not on the disk.
    #[error("the update is not downloaded completely; download it first")]
    NothingDownloaded,
    /// Nothing waits to be applied.
    #[error("no update is ready to be applied; check, download and stage one first")]
    NothingStaged,
    /// It is there already.
    #[error("version {version} is ready to be applied already; apply it, or check for a newer one")]
    AlreadyStaged {
        /// Which.
        version: Version,
    },
    /// Nothing can be cancelled.
    #[error("there is nothing to cancel: nothing is being downloaded, and no restart is planned")]
    NothingToCancel,
    /// There is nothing to go back to.
    #[error("there is no other version on the disk to go back to; this one goes on as it is")]
    NothingToGoBackTo,
    /// No such deployment.
    #[error("there is no such version on the disk; the list of versions says what there is")]
    UnknownDeployment,
    /// What runs cannot be what to go to.
    #[error("version {version} is the one that runs; nothing is to be done")]
    AlreadyBooted {
        /// Which.
        version: Version,
    },
    /// It did not pass here before.
    #[error(
        "version {version} did not pass here before: {reason}. The running version streams on; wait for a newer one, \
         or insist to try this one again"
    )]
    Bad {
        /// Which.
        version: Version,
        /// Why it did not pass.
        reason: String,
    },
    /// As many are pinned as may be.
    #[error(
        "{max} versions are pinned, which is as many as the disk has room for; unpin one first"
    )]
    TooManyPins {
        /// The limit.
        max: usize,
    },
    /// Somebody would be cut off.
    #[error(
        "{} would be cut off; nothing was done. Wait until that is over, or insist to do it all the same",
        and(who)
    )]
    SomeoneStreams {
        /// Who, by the names of their devices, and what else.
        who: Vec<String>,
    },
    /// It is below what is allowed without a proof.
    #[error(
        "version {version} is older than {floor}, the oldest that is safe; streaming goes on. To go back so far all the \
         same, the owner proves it with the password: ask again with it"
    )]
    BelowFloor {
        /// Which.
        version: Version,
        /// The oldest that is allowed.
        floor: Version,
    },
    /// The disk has no room.
    #[error(
        "the update needs {} MB and the disk has {} MB free; nothing was written and streaming goes on. Remove games \
         or unpin a version, then download again",
        needed_bytes.div_ceil(MEGABYTE), free_bytes / MEGABYTE
    )]
    NoSpace {
        /// What is needed, in bytes, with what unpacking takes.
        needed_bytes: u64,
        /// What is free, in bytes.
        free_bytes: u64,
    },
    /// Its signature is not one that is trusted.
    #[error(
        "the update is not signed by those who make this system ({detail}); nothing was written and streaming goes on. \
         Check again later; if it stays so, tell them"
    )]
    Signature {
        /// What was found.
        detail: String,
    },
    /// It is older than what may be installed.
    #[error(
        "version {version} is older than {floor} and would undo what is fixed; nothing was written and streaming goes \
         on. To go back, choose the previous version instead"
    )]
    Downgrade {
        /// Which.
        version: Version,
        /// The oldest that may be installed.
        floor: Version,
    },
    /// Its manifest does not hold any more.
    #[error(
        "what is known of version {version} has expired; nothing was written and streaming goes on. Check for updates \
         again; if it stays so, see whether the clock is right"
    )]
    Expired {
        /// Which.
        version: Version,
    },
    /// The clock cannot be right.
    #[error(
        "the clock stands before the time at which version {version} was made, so it cannot be right; nothing was \
         written and streaming goes on. Set the clock, or connect the host to a network that tells the time"
    )]
    ClockBehind {
        /// Which.
        version: Version,
    },
    /// Where updates come from cannot be reached.
    #[error(
        "updates cannot be reached: {detail}. Streaming is not affected; see whether the host is connected to the \
         internet, then try again: what was downloaded is kept"
    )]
    Unreachable {
        /// What was found.
        detail: String,
    },
    /// What came is not what was promised.
    #[error(
        "what was downloaded is not what was promised ({detail}); it is thrown away and streaming goes on. Download \
         it again; if it stays so, tell those who make this system"
    )]
    Content {
        /// What was found.
        detail: String,
    },
    /// It did not come to its end.
    #[error(
        "the file did not come to its end ({detail}); nothing of it is kept and streaming goes on. Send it again"
    )]
    Incomplete {
        /// What was found.
        detail: String,
    },
    /// It was asked to stop.
    #[error(
        "the download was stopped; what came is kept, and the next download goes on from there"
    )]
    Stopped,
    /// The backend failed.
    #[error(
        "the host could not {doing}: {detail}. The running version streams on; try again, and send the report if it \
         stays so"
    )]
    Failed {
        /// What was being done.
        doing: &'static str,
        /// What was found.
        detail: String,
    },
    /// It could not be remembered, so it was not begun.
    #[error(
        "the host could not write down what it was asked to do, so it did not begin: {detail}. Streaming goes on; see \
         whether the disk is full"
    )]
    Store {
        /// What was found.
        detail: String,
    },
    /// That is no digest.
    #[error(transparent)]
    Malformed(#[from] ReleaseError),
}

impl OsError {
    /// What it is, for programs; never changes its meaning.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAnAppliance { .. } => "unavailable",
            Self::NotReady => "starting",
            Self::Busy { .. } => "busy",
            Self::NothingOffered => "nothing-offered",
            Self::NothingDownloaded => "nothing-downloaded",
            Self::NothingStaged => "nothing-staged",
            Self::AlreadyStaged { .. } => "already-staged",
            Self::NothingToCancel => "nothing-to-cancel",
            Self::NothingToGoBackTo => "nothing-to-go-back-to",
            Self::UnknownDeployment => "unknown-deployment",
            Self::AlreadyBooted { .. } => "already-booted",
            Self::Bad { .. } => "bad-version",
            Self::TooManyPins { .. } => "too-many-pins",
            Self::SomeoneStreams { .. } => "someone-streams",
            Self::BelowFloor { .. } => "needs-owner-proof",
            Self::NoSpace { .. } => "no-space",
            Self::Signature { .. } => "signature",
            Self::Downgrade { .. } => "downgrade",
            Self::Expired { .. } => "expired",
            Self::ClockBehind { .. } => "clock-behind",
            Self::Unreachable { .. } => "unreachable",
            Self::Content { .. } => "content",
            Self::Incomplete { .. } => "incomplete",
            Self::Stopped => "stopped",
            Self::Failed { .. } => "failed",
            Self::Store { .. } => "store",
            Self::Malformed(_) => "malformed",
        }
    }
}

/// Names as they are said.
fn and(names: &[String]) -> String {
    match names {
        [] => "nobody".to_owned(),
        [one] => one.clone(),
        [all @ .., last] => format!("{} and {last}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_would_be_cut_off_is_named() {
        let error = |who: &[&str]| {
            let who = who.iter().map(|name| (*name).to_owned()).collect();
            OsError::SomeoneStreams { who }.to_string()
        };
        assert!(error(&["TV"]).starts_with("TV would be cut off"));
        assert!(error(&["TV", "Phone", "Deck"]).starts_with("TV, Phone and Deck would"));
    }

    #[test]
    fn sizes_are_never_told_smaller_than_needed() {
        let text = OsError::NoSpace { needed_bytes: 1_000_001, free_bytes: 1_999_999 }.to_string();
        assert!(text.contains("needs 2 MB") && text.contains("has 1 MB"), "{text}");
    }
}
