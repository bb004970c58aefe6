//! Root's word to everybody: what runs, what else could run, and what came of starting it.
//!
//! The file is written anew after each change, by renaming a whole one into place, so a reader sees the old or the new
//! and nothing between. It is readable by all and holds no secret. Readers ignore fields that they do not know, and
//! every text in it is bounded here, where it is made.
//!
//! Deliberately absent: what an owner may do with it. That is the daemon's affair.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The folder in which everybody is told what there is.
pub const FOLDER: &str = "/run/punktfunk-os";

/// What it is called there.
pub const NAME: &str = "status.json";

/// Where it lies, for everybody to read.
pub const PATH: &str = "/run/punktfunk-os/status.json";

/// What this program writes. A reader of another number still finds the fields it knows.
pub const SCHEMA: u32 = 1;

/// No text is longer, in bytes. With all else at its bounds, too, the status and the ledger stay below what is read of them.
pub const MAX_TEXT_BYTES: usize = 300;

/// No log that an attempt left is longer, in lines.
pub const MAX_LOG_LINES: usize = 40;

/// So many attempts are remembered.
pub const MAX_ATTEMPTS: usize = 16;

/// No file of this kind is longer, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// The kernel's name for this boot.
    pub boot_id: String,
    /// All on the disk, in the order in which they would be started.
    pub deployments: Vec<Deployment>,
    /// How often the loader will still try the one that runs; nothing when it does not count.
    #[serde(default)]
    pub counted: Option<Counted>,
    /// What was started and what came of it; the newest last, at most [`MAX_ATTEMPTS`].
    #[serde(default)]
    pub attempts: Vec<Attempt>,
    /// What is not to be started again unless somebody insists.
    #[serde(default)]
    pub bad: Vec<Bad>,
    /// What was found in this boot, once it was looked.
    #[serde(default)]
    pub verdict: Option<Outcome>,
    /// What is free for deployments and for games, in bytes.
    #[serde(default)]
    pub free_bytes: u64,
    /// When somebody was last seen at the machine, in seconds since 1970.
    #[serde(default)]
    pub presence_at: Option<u64>,
    /// What somebody ought to know, a sentence each.
    #[serde(default)]
    pub remarks: Vec<String>,
}

/// A system on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// OSTree's checksum of its commit, 64 hexadecimal digits.
    pub commit: String,
    /// What it is called, such as `0.1.0`.
    pub version: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// What it is there for. One that is several things has the first that applies.
    pub role: Role,
    /// It is not removed to make room.
    pub pinned: bool,
}

/// What a deployment is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It runs.
    Booted,
    /// It is what the next start tries.
    Staged,
    /// It ran before, and is what one goes back to.
    Rollback,
    /// The owner keeps it.
    Pinned,
    /// The one that the machine was set up with; it remains when all others have failed.
    Pristine,
}

/// The loader's count of a deployment that has yet to prove itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// So many more starts.
    pub left: u32,
    /// So many starts there were.
    pub done: u32,
}

/// One start of a system that had yet to prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts the attempts of this machine; never goes back.
    pub number: u64,
    /// What was started.
    pub commit: String,
    /// What it is called.
    pub version: String,
    /// What ran before, by its version.
    pub from: String,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of starting a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "snake_case")]
pub enum Outcome {
    /// It runs, and is being looked at.
    Pending,
    /// It is good.
    Passed {
        /// What was looked at.
        checks: Vec<Check>,
    },
    /// It is not.
    Failed {
        /// Why, as a part of a sentence.
        reason: String,
        /// What was looked at.
        #[serde(default)]
        checks: Vec<Check>,
        /// What the part that failed said last, at most [`MAX_LOG_LINES`].
        #[serde(default)]
        log: Vec<String>,
    },
    /// The word of a newer program.
    #[serde(other)]
    Unknown,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What.
    pub name: String,
    /// Whether it was as it ought to be.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// A system that did not prove itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// OSTree's checksum of its commit.
    pub commit: String,
    /// What it is called.
    pub version: String,
    /// Why it is not wanted again.
    pub reason: String,
    /// When that was found, in seconds since 1970.
    pub at: u64,
}

impl Status {
    /// Reads what was last written.
    pub fn read(path: &Path) -> Result<Self, StatusError> {
        let text = files::read(path, MAX_BYTES)?;
        serde_json::from_slice(&text)
            .map_err(|source| StatusError::Malformed { path: path.to_path_buf(), source })
    }

    /// Replaces what was last written.
    pub fn write(&self, path: &Path) -> Result<(), StatusError> {
        let text = serde_json::to_vec_pretty(self).map_err(StatusError::Unwritable)?;
        Ok(files::replace(path, &text, 0o644)?)
    }

    /// What runs.
    pub fn booted(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|one| one.role == Role::Booted)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for one in &self.deployments {
            let pinned = if one.pinned { ", kept" } else { "" };
            writeln!(f, "{:.12} {}: {:?}{pinned}", one.commit, one.version, one.role)?;
        }
        if let Some(Counted { left, done }) = self.counted {
            writeln!(f, "start {done} of what has yet to prove itself, {left} left")?;
        }
        if let Some(verdict) = &self.verdict {
            writeln!(f, "this start: {verdict}")?;
        }
        for Attempt { number, version, from, outcome, .. } in &self.attempts {
            writeln!(f, "attempt {number}: from {from} to {version}: {outcome}")?;
        }
        for bad in &self.bad {
            writeln!(f, "{:.12} {} is bad: {}", bad.commit, bad.version, bad.reason)?;
        }
        writeln!(f, "{} MiB are free", self.free_bytes >> 20)?;
        self.remarks.iter().try_for_each(|remark| writeln!(f, "{remark}"))
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pending => f.write_str("not judged yet"),
            Self::Passed { .. } => f.write_str("good"),
            Self::Failed { reason, .. } => write!(f, "failed, {reason}"),
            Self::Unknown => f.write_str("said by a newer program"),
        }
    }
}

/// A text of somebody else: one line, without control characters, and not too long.
pub fn bounded(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut left = MAX_TEXT_BYTES;
    let fits = |c: &char| left.checked_sub(c.len_utf8()).inspect(|less| left = *less).is_some();
    plain.take_while(fits).collect::<String>().trim().to_owned()
}

/// The last lines of a log, each bounded, without those that say nothing.
pub fn bounded_log(text: &str) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(bounded).filter(|line| !line.is_empty()).collect();
    lines[lines.len().saturating_sub(MAX_LOG_LINES)..].to_vec()
}

/// What goes wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// It could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is not what this program writes.
    #[error("{path} is damaged: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// It could not be put into words.
    #[error("the status could not be put into words: {0}")]
    Unwritable(#[source] serde_json::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_ignores_what_it_does_not_know() {
        let newer = r#"{"schema": 2, "boot_id": "b", "deployments": [], "weather": "fine",
            "attempts": [{"number": 1, "commit": "c", "version": "0.1.0", "from": "0.0.9",
                          "outcome": {"is": "postponed", "until": 7}}]}"#;
        let status: Status = serde_json::from_str(newer).unwrap();
        assert_eq!((status.schema, status.attempts[0].outcome.clone()), (2, Outcome::Unknown));
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("status.json");
        let failed = Outcome::Failed { reason: "r".to_owned(), checks: vec![], log: vec![] };
        let status = Status {
            schema: SCHEMA,
            boot_id: "b".to_owned(),
            deployments: vec![],
            counted: Some(Counted { left: 2, done: 1 }),
            attempts: vec![],
            bad: vec![],
            verdict: Some(failed),
            free_bytes: 5,
            presence_at: None,
            remarks: vec![],
        };
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap(), status);
    }

    #[test]
    fn texts_are_bounded() {
        assert_eq!(bounded("a\u{1b}[31mb\n"), "a [31mb");
        assert_eq!(bounded(&"x".repeat(1000)).len(), MAX_TEXT_BYTES);
        assert_eq!(bounded(&format!("xx{}", "\u{1f3ae}".repeat(1000))).len(), 298);
        let log = bounded_log(&(0..100).map(|n| format!("{n}\n\n")).collect::<String>());
        assert_eq!((log.len(), log[0].as_str(), log[39].as_str()), (40, "60", "99"));
    }
}
