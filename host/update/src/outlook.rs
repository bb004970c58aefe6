//! What everybody may know of updates: which are offered, what was fetched, what is staged. Beside
//! [`punktfunk_os::status`], which says what is deployed.

use serde::{Deserialize, Serialize};

use crate::engine::Offer;
use crate::name::{Channel, Commit, Version};

/// What it is called in the folder in which everybody is told what there is.
pub const NAME: &str = "updates.json";

/// Where it lies, for everybody to read.
pub const PATH: &str = "/run/punktfunk-os/updates.json";

/// What this program writes. A reader of another number still finds the fields it knows.
pub const SCHEMA: u32 = 1;

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Outlook {
    /// [`SCHEMA`] of the program that wrote it.
    pub schema: u32,
    /// Where releases come from.
    pub channel: Channel,
    /// Nothing below it may be started without the owner's proof.
    pub floor: Option<Version>,
    /// The time of the newest statement that was ever believed, in seconds since 1970.
    pub newest_made_at: u64,
    /// What was fetched and is not staged.
    pub fetched: Option<Fetched>,
    /// What is in OSTree's repository and waits to be applied.
    pub staged: Option<Staged>,
    /// What may be had of what somebody brought in a file, as long as that is kept.
    pub brought: Vec<Offer>,
    /// What somebody ought to know, a sentence each.
    pub remarks: Vec<String>,
}

/// A release that is here in part or whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Which.
    pub commit: Commit,
    /// As much is here, in bytes; what the disk had already counts.
    pub done_bytes: u64,
    /// As much it will be, in bytes.
    pub total_bytes: u64,
}

/// A release that waits to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Staged {
    /// Which.
    pub commit: Commit,
    /// What it is called.
    pub version: Version,
    /// When it was stated, in seconds since 1970.
    pub made_at: u64,
}
