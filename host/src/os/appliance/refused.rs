//! Why root's program for updates did not do something: its word, which is JSON with a code, as the sentences that the
//! owner reads from every backend.
//!
//! A word that is not known is told as it came. Texts are bounded.

use serde::Deserialize;

use crate::os::OsError;
use crate::os::release::{Version, bounded};

/// Its word.
#[derive(Deserialize)]
#[serde(tag = "code", rename_all = "kebab-case")]
enum Word {
    Unreachable {
        detail: String,
    },
    Signature {
        detail: String,
    },
    Expired {
        version: Version,
    },
    ClockBehind {
        version: Version,
    },
    Downgrade {
        version: Version,
        floor: Version,
    },
    NoSpace {
        needed_bytes: u64,
        free_bytes: u64,
    },
    Content {
        detail: String,
    },
    Late {
        limit_s: u64,
    },
    Stopped,
    Busy {
        #[serde(default)]
        doing: String,
    },
    NothingDownloaded,
    UnknownDeployment,
    Bad {
        version: Version,
        reason: String,
    },
    BelowFloor {
        version: Version,
        floor: Version,
    },
    TooManyPins {
        max: usize,
    },
    NotAllowed,
    Malformed {
        detail: String,
    },
    Failed {
        doing: String,
        detail: String,
    },
    #[serde(other)]
    Another,
}

/// What this word says to the owner; `doing` is what the host was about, after "the host could not".
pub(super) fn parse(word: &str, doing: &'static str) -> OsError {
    let failed = |detail: String| OsError::Failed { doing, detail };
    let Ok(said) = serde_json::from_str(word) else {
        return failed(format!("the box's own program says \"{}\"", bounded(word)));
    };
    match said {
        Word::Unreachable { detail } => OsError::Unreachable { detail: bounded(&detail) },
        Word::Signature { detail } => OsError::Signature { detail: bounded(&detail) },
        Word::Expired { version } => OsError::Expired { version },
        Word::ClockBehind { version } => OsError::ClockBehind { version },
        Word::Downgrade { version, floor } => OsError::Downgrade { version, floor },
        Word::NoSpace { needed_bytes, free_bytes } => OsError::NoSpace { needed_bytes, free_bytes },
        Word::Content { detail } => OsError::Content { detail: bounded(&detail) },
        Word::Late { limit_s } => OsError::Incomplete { detail: late(limit_s) },
        Word::Stopped => OsError::Stopped,
        Word::Busy { doing } => OsError::Busy { doing: busy(&doing) },
        Word::NothingDownloaded => OsError::NothingDownloaded,
        Word::UnknownDeployment => OsError::UnknownDeployment,
        Word::Bad { version, reason } => OsError::Bad { version, reason: bounded(&reason) },
        Word::BelowFloor { version, floor } => OsError::BelowFloor { version, floor },
        Word::TooManyPins { max } => OsError::TooManyPins { max },
        Word::NotAllowed => failed(NOT_ALLOWED.to_owned()),
        Word::Malformed { detail } => {
            failed(format!("the box's own program does not understand it: {}", bounded(&detail)))
        }
        Word::Failed { doing, detail } => {
            failed(format!("it could not {}: {}", bounded(&doing), bounded(&detail)))
        }
        Word::Another => failed(format!("the box's own program says \"{}\"", bounded(word))),
    }
}

/// Said of an archive whose beginning does not come.
fn late(limit_s: u64) -> String {
    format!("what is signed, with which it begins, was waited for for {limit_s} seconds")
}

/// Said of every refusal that is about who asks.
pub(super) const NOT_ALLOWED: &str = "the box does not let the host ask for it";

/// What is being done, as a part of a sentence: it was begun by a caller who is gone, or somebody else asks, too.
fn busy(doing: &str) -> &'static str {
    match doing {
        "check" => "checking for updates",
        "download" => "downloading an update",
        "stage" => "preparing an update",
        "apply" => "telling the boot loader what to start",
        "pin" => "pinning a version",
        "follow" => "changing where updates come from",
        "import" => "reading an update that was brought",
        _ => "doing something else with the system",
    }
}
