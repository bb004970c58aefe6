//! What an update is made of: versions, digests, releases that are offered, deployments that lie on the disk.
//!
//! A digest says which system it is, a version only what it is called: what is trusted, staged, pinned or marked as bad
//! is a digest. Everything here is data; nothing decides.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::state::BadMark;

/// As many lines say what is new; more are left out.
pub const MAX_CHANGES: usize = 5;
/// The longest text of others - a line of changes, the reason of a verdict - in characters.
pub const MAX_TEXT_CHARS: usize = 300;
/// As many releases of one answer are looked at.
pub const MAX_RELEASES: usize = 16;
/// As many deployments as an inventory may have.
pub const MAX_DEPLOYMENTS: usize = 16;
/// As many checks of a verdict are kept.
pub const MAX_CHECKS: usize = 32;
/// As many lines of a log that a failed attempt left are kept.
pub const MAX_LOG_LINES: usize = 40;
/// As many attempts an inventory tells of.
pub const MAX_ATTEMPTS: usize = 16;

/// What a system is called: three numbers, compared from the left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    /// The version of these numbers.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// That is no version, or no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseError {
    /// Not three numbers with dots between them.
    #[error("\"{got}\" is no version; one looks like 1.4.2")]
    Version {
        /// Its first characters.
        got: String,
    },
    /// Not `sha256:` and 64 hex digits.
    #[error("\"{got}\" is no digest; one looks like sha256: and 64 hex digits")]
    Digest {
        /// Its first characters.
        got: String,
    },
}

impl FromStr for Version {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ReleaseError::Version { got: text.chars().take(32).collect() };
        let mut parts = text.split('.').map(number);
        let mut next = || parts.next().flatten().ok_or_else(wrong);
        let version = Self::new(next()?, next()?, next()?);
        if parts.next().is_some() { Err(wrong()) } else { Ok(version) }
    }
}

/// Digits alone: a sign or a space is no number here.
fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl TryFrom<String> for Version {
    type Error = ReleaseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> Self {
        version.to_string()
    }
}

/// Which system it is: the SHA-256 of its content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const PREFIX: &str = "sha256:";

impl FromStr for Digest {
    type Err = ReleaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ReleaseError::Digest { got: text.chars().take(80).collect() };
        let hex = text.strip_prefix(PREFIX).ok_or_else(wrong)?.as_bytes();
        let mut digest = Self([0; 32]);
        if hex.len() != 2 * digest.0.len() {
            return Err(wrong());
        }
        for (byte, pair) in digest.0.iter_mut().zip(hex.chunks_exact(2)) {
            let nibble = |at: usize| char::from(pair[at]).to_digit(16);
            let value = nibble(0).zip(nibble(1)).map(|(high, low)| high << 4 | low);
            *byte = value.and_then(|value| u8::try_from(value).ok()).ok_or_else(wrong)?;
        }
        Ok(digest)
    }
}

impl TryFrom<String> for Digest {
    type Error = ReleaseError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

/// Where releases come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// For everybody.
    #[default]
    Stable,
    /// For those who want it early.
    Next,
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stable => "stable",
            Self::Next => "next",
        })
    }
}

/// A system that can be had, as its signed manifest states it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What it is called.
    pub version: Version,
    /// Which system it is.
    pub digest: Digest,
    /// When its manifest was made, in seconds since 1970.
    pub made_at: u64,
    /// When its manifest ends to hold, in seconds since 1970.
    pub expires_at: u64,
    /// What is to be transferred at most, in bytes.
    pub size_bytes: u64,
    /// The oldest version that may go to it in one step.
    pub minimum: Version,
    /// What is new, in at most [`MAX_CHANGES`] plain lines.
    pub changes: Vec<String>,
    /// Where it comes from.
    pub channel: Channel,
}

impl Release {
    /// The release with texts within their limits.
    pub(super) fn bounded(mut self) -> Self {
        self.changes.truncate(MAX_CHANGES);
        self.changes = self.changes.iter().map(|line| bounded(line)).collect();
        self
    }
}

/// The text of somebody else: without control characters, and not too long.
pub(super) fn bounded(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_TEXT_CHARS)
        .collect::<String>()
        .trim()
        .to_owned()
}

/// What a deployment is there for. One that is several things has the first that applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// It runs.
    Booted,
    /// It is complete and waits to be applied.
    Staged,
    /// It ran before, and is what one goes back to.
    Rollback,
    /// The owner keeps it.
    Pinned,
    /// The machine was set up with it; it remains when all others have failed.
    Pristine,
}

/// A system on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What it is called.
    pub version: Version,
    /// Which system it is.
    pub digest: Digest,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// What it is there for.
    pub role: Role,
    /// The owner keeps it, whatever else it is.
    pub pinned: bool,
}

/// A download that is on the disk, whole or in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Of which system.
    pub digest: Digest,
    /// As much is there, in bytes.
    pub done_bytes: u64,
    /// As much it will be, in bytes.
    pub total_bytes: u64,
}

impl Fetched {
    /// All is there.
    pub const fn is_whole(&self) -> bool {
        self.done_bytes >= self.total_bytes
    }
}

/// One of the checks that a system must pass after it was started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckResult {
    /// What was checked.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// What came of starting a system for the first time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It runs, and is being checked.
    Pending,
    /// It passed.
    Passed {
        /// What was checked.
        checks: Vec<CheckResult>,
    },
    /// It did not pass, and the one from before runs again.
    Failed {
        /// Why, as a part of a sentence.
        reason: String,
        /// What was checked.
        checks: Vec<CheckResult>,
        /// What the part that failed said last, at most [`MAX_LOG_LINES`].
        #[serde(default)]
        log: Vec<String>,
    },
}

/// An attempt to run another system than before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Counts attempts of this machine; never goes back.
    pub number: u64,
    /// What was started.
    pub digest: Digest,
    /// What it is called.
    pub version: Version,
    /// What ran before; itself where nothing did.
    pub from: Version,
    /// What came of it.
    pub outcome: Outcome,
}

/// What is on the disk and what runs: the backend's word, which holds against whatever was remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inventory {
    /// Another one after each start of the machine.
    pub boot: String,
    /// The systems on the disk.
    pub deployments: Vec<Deployment>,
    /// What may be had of what somebody brought in a file, as long as that is kept.
    #[serde(default)]
    pub brought: Vec<Release>,
    /// What was downloaded and not staged yet.
    pub fetched: Option<Fetched>,
    /// As much can be written, in bytes.
    pub free_bytes: u64,
    /// Nothing below this version may be started without the owner's proof.
    pub floor: Version,
    /// The time of the newest manifest ever seen, in seconds since 1970.
    pub newest_manifest_at: u64,
    /// The newest attempt.
    pub attempt: Option<Attempt>,
    /// Those before it, oldest first, as far as the machine remembers them; with it at most [`MAX_ATTEMPTS`].
    pub earlier: Vec<Attempt>,
    /// What was found after this start, also where nothing is on trial; not there until the checks were made.
    #[serde(default)]
    pub verdict: Option<Outcome>,
    /// What did not pass here, as far as the machine remembers it by itself.
    pub bad: Vec<BadMark>,
    /// What the owner ought to know of it, in sentences.
    pub remarks: Vec<String>,
    /// Where releases come from.
    pub channel: Channel,
}

impl Inventory {
    /// What runs.
    pub fn booted(&self) -> Option<&Deployment> {
        self.with_role(Role::Booted)
    }

    /// What waits to be applied.
    pub fn staged(&self) -> Option<&Deployment> {
        self.with_role(Role::Staged)
    }

    /// What one goes back to.
    pub fn rollback(&self) -> Option<&Deployment> {
        self.with_role(Role::Rollback)
    }

    /// All attempts that are remembered, oldest first.
    pub fn attempts(&self) -> impl Iterator<Item = &Attempt> {
        self.earlier.iter().chain(&self.attempt)
    }

    /// The deployment of this digest.
    pub fn deployment(&self, digest: Digest) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.digest == digest)
    }

    /// What is wrong with it, if something is: a backend that says such a thing is not believed.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let count = |role| self.deployments.iter().filter(|one| one.role == role).count();
        let earlier = |one: &&Attempt, other: &&Attempt| one.number < other.number;
        let twice = |(at, one): (usize, &Deployment)| {
            self.deployments.iter().skip(at + 1).any(|other| other.digest == one.digest)
        };
        if self.deployments.len() > MAX_DEPLOYMENTS {
            Some("there are too many deployments")
        } else if count(Role::Booted) != 1 {
            Some("not exactly one deployment is booted")
        } else if count(Role::Staged) > 1 || count(Role::Rollback) > 1 {
            Some("several deployments are staged, or to go back to")
        } else if self.deployments.iter().enumerate().any(twice) {
            Some("a deployment is there twice")
        } else if self.attempts().count() > MAX_ATTEMPTS || !self.attempts().is_sorted_by(earlier) {
            Some("attempts are too many, or not in their order")
        } else {
            None
        }
    }

    fn with_role(&self, role: Role) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.role == role)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_three_numbers_and_compare_as_such() {
        let version = |text: &str| text.parse::<Version>();
        assert_eq!(version("1.4.2").unwrap(), Version::new(1, 4, 2));
        assert!(version("1.10.0").unwrap() > version("1.9.9").unwrap());
        for wrong in
            ["", "1", "1.2", "1.2.3.4", "1..2", "+1.2.3", "1.2.x", "1.2.99999999999", " 1.2.3"]
        {
            assert!(version(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn digests_survive_a_round_trip_and_nothing_else_is_one() {
        let digest = Digest(std::array::from_fn(|at| u8::try_from(at * 8).unwrap()));
        assert_eq!(digest.to_string().parse::<Digest>().unwrap(), digest);
        let hex = "0".repeat(64);
        let wrong =
            [hex.clone(), format!("sha256:{}", &hex[1..]), format!("sha256:{}é", &hex[2..])];
        for wrong in wrong {
            assert!(wrong.parse::<Digest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn texts_of_others_are_bounded() {
        let text = format!("a\u{1b}[31m\nb{}", "x".repeat(1000));
        let bounded = bounded(&text);
        assert_eq!(bounded.chars().count(), MAX_TEXT_CHARS);
        assert!(!bounded.chars().any(char::is_control));
    }
}
