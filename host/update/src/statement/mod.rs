//! What is signed: which releases a channel has.
//!
//! A statement names each release by the commit of its system and by the digest of the manifest that lists its layers, so
//! one signature holds every byte that is unpacked. It ends to hold; a newer one may revoke keys, raise the oldest version
//! that is safe, and withdraw releases. `docs/reference/releases.md` is its definition, and says how keys are rotated.
//!
//! - [`Envelope`]: a statement and its signatures, and [`keys`], whose they may be.
//! - [`Memory`]: what root remembers of statements that were believed.
//! - [`judge`]: the pure function from an envelope, keys, memory and time to what may be believed.

mod envelope;
mod hex;
pub mod keys;
mod limits;
mod memory;
mod trust;

use serde::{Deserialize, Serialize};

use crate::error::UpdateError;
use crate::name::{BlobDigest, Channel, Commit, Version};

pub use envelope::{DOMAIN, Envelope, MAX_SIGNATURES, Signature, signed_text};
pub use hex::{hex, unhex};
pub use keys::{KeyId, KeyRing, PublicKey};
pub use limits::{
    MAX_CHANGE_CHARS, MAX_FLAVOUR_CHARS, MAX_HOLDS_S, MAX_RELEASE_BYTES, MAX_REVOKED,
    MAX_WITHDRAWN, SCHEMA,
};
pub use memory::{MAX_REMEMBERED, Memory, NAME, Seen};
pub use trust::{Believed, judge};

/// A statement with its signatures is no longer than this, in bytes.
pub const MAX_ENVELOPE_BYTES: u64 = 64 << 10;
/// As many releases has a statement.
pub const MAX_RELEASES: usize = 16;
/// As many lines say what is new.
pub const MAX_CHANGES: usize = 5;

/// What the makers of the system state of one channel and flavour.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// 1. Another number is refused.
    pub schema: u32,
    /// For whom.
    pub channel: Channel,
    /// `slim` or `full`: a box takes only what it is itself.
    pub flavour: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// When it ends to hold, in seconds since 1970.
    pub expires_at: u64,
    /// Nothing below may be started any more without the owner's proof.
    #[serde(default)]
    pub floor: Option<Version>,
    /// Keys that are not trusted any more, by their ids.
    #[serde(default)]
    pub revoked: Vec<String>,
    /// Versions that were offered once and are not any more.
    #[serde(default)]
    pub withdrawn: Vec<Version>,
    /// What may be had.
    pub releases: Vec<Release>,
}

/// A system that may be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// What it is called.
    pub version: Version,
    /// Which system it is.
    pub commit: Commit,
    /// The manifest that lists its layers.
    pub image: BlobDigest,
    /// What is transferred at most, in bytes.
    pub size_bytes: u64,
    /// What it takes on the disk at most, in bytes.
    pub unpacked_bytes: u64,
    /// The oldest version that may go to it in one step.
    pub minimum: Version,
    /// What is new, in at most [`MAX_CHANGES`] plain lines.
    #[serde(default)]
    pub changes: Vec<String>,
}

impl Statement {
    /// Reads the text of a statement, and refuses what no statement says. Lines of what is new are made plain and cut to
    /// [`MAX_CHANGE_CHARS`]. Fields that are not known are passed over.
    ///
    /// # Errors
    /// [`UpdateError::Content`] with what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, UpdateError> {
        let unread =
            |error: serde_json::Error| content(format!("the statement cannot be read: {error}"));
        let Schema { schema } = serde_json::from_str(text).map_err(unread)?;
        if schema != u64::from(SCHEMA) {
            return Err(limits::unknown_schema(schema));
        }
        let mut statement: Self = serde_json::from_str(text).map_err(unread)?;
        statement.check()?;
        for release in &mut statement.releases {
            release.changes = release.changes.iter().map(|line| plain(line)).collect();
        }
        Ok(statement)
    }

    /// Whether it is one that a box could believe, were it signed.
    ///
    /// # Errors
    /// [`UpdateError::Content`] with what is wrong with it.
    pub fn check(&self) -> Result<(), UpdateError> {
        limits::check(self)
    }

    /// The highest version that it offers or withdraws; nothing where it does neither, which [`Self::check`] refuses.
    pub fn newest(&self) -> Option<Version> {
        limits::newest(self)
    }

    /// The release of this commit, if it is offered.
    pub fn release(&self, commit: Commit) -> Option<&Release> {
        self.releases.iter().find(|release| release.commit == commit)
    }
}

/// What is read of a statement first: the rest may look different in another schema.
#[derive(Deserialize)]
struct Schema {
    schema: u64,
}

/// The text of somebody else: without control characters, at most [`MAX_CHANGE_CHARS`] long.
pub(crate) fn plain(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MAX_CHANGE_CHARS).collect::<String>().trim().to_owned()
}

fn content(detail: String) -> UpdateError {
    UpdateError::Content { detail: plain(&detail) }
}
