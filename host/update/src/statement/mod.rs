//! What is signed: which releases a channel has.
//!
//! A statement names each release by the commit of its system and by the digest of the manifest that lists its layers, so
//! one signature holds every byte that is unpacked. It ends to hold; a newer one may revoke keys, raise the oldest version
//! that is safe, and withdraw releases. `docs/reference/releases.md` is its definition, and says how keys are rotated.

use serde::{Deserialize, Serialize};

use crate::name::{BlobDigest, Channel, Commit, Version};

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
