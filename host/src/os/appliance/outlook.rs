//! What root's program for updates says of them, and the releases that it finds, as they are read here: JSON, bounded in
//! all that it counts.
//!
//! Fields that are not known are passed over, so that a newer program may say more. A part that cannot be understood is
//! left out: what runs is said elsewhere, and the program itself refuses what may not be installed.

use serde::Deserialize;
use serde_json::Value;

use super::word::{digest, remarks};
use crate::os::release::{
    Channel, Deployment, Digest, Fetched, Inventory, MAX_DEPLOYMENTS, MAX_RELEASES, Release, Role,
    Version, bounded,
};

/// What is said of updates.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Outlook {
    channel: Channel,
    floor: Option<Version>,
    newest_made_at: u64,
    fetched: Option<Fetched>,
    staged: Option<Deployment>,
    brought: Vec<Release>,
    remarks: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    channel: Value,
    floor: Value,
    newest_made_at: u64,
    fetched: Option<SaidFetched>,
    staged: Option<SaidStaged>,
    brought: Vec<Value>,
    remarks: Vec<String>,
}

#[derive(Deserialize)]
struct SaidFetched {
    commit: String,
    done_bytes: u64,
    total_bytes: u64,
}

#[derive(Deserialize)]
struct SaidStaged {
    commit: String,
    version: String,
    made_at: u64,
}

#[derive(Deserialize)]
struct SaidRelease {
    version: Version,
    commit: String,
    made_at: u64,
    expires_at: u64,
    size_bytes: u64,
    minimum: Version,
    #[serde(default)]
    changes: Vec<String>,
    channel: Channel,
}

impl Outlook {
    /// What these bytes say.
    ///
    /// # Errors
    /// Why they cannot be believed, as a part of a sentence.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, String> {
        let said: Said = serde_json::from_slice(bytes).map_err(|e| bounded(&e.to_string()))?;
        let fetched = |said: SaidFetched| {
            let SaidFetched { commit, done_bytes, total_bytes } = said;
            Some(Fetched { digest: digest(&commit)?, done_bytes, total_bytes })
        };
        let staged = |said: SaidStaged| {
            Some(Deployment {
                version: said.version.parse().ok()?,
                digest: digest(&said.commit)?,
                made_at: said.made_at,
                role: Role::Staged,
                pinned: false,
            })
        };
        Ok(Self {
            channel: serde_json::from_value(said.channel).unwrap_or_default(),
            floor: serde_json::from_value(said.floor).ok(),
            newest_made_at: said.newest_made_at,
            fetched: said.fetched.and_then(fetched),
            staged: said.staged.and_then(staged),
            brought: understood(said.brought),
            remarks: remarks(&said.remarks),
        })
    }

    /// What waits to be applied.
    pub(super) fn staged(&self) -> Option<Digest> {
        self.staged.as_ref().map(|one| one.digest)
    }

    /// Adds what is known of updates to what is known of the system.
    pub(super) fn add_to(self, inventory: &mut Inventory) {
        inventory.channel = self.channel;
        inventory.floor = self.floor.unwrap_or(inventory.floor);
        inventory.newest_manifest_at = self.newest_made_at;
        inventory.fetched = self.fetched;
        inventory.brought = self.brought;
        let has_room = inventory.deployments.len() < MAX_DEPLOYMENTS;
        let is_new = |one: &Deployment| has_room && inventory.deployment(one.digest).is_none();
        if let Some(staged) = self.staged.filter(is_new) {
            inventory.deployments.push(staged);
        }
        inventory.remarks.extend(self.remarks);
    }
}

/// The releases that this answer names, as far as they can be understood.
///
/// # Errors
/// Why it is no list, as a part of a sentence.
pub(super) fn releases(answer: &str) -> Result<Vec<Release>, String> {
    serde_json::from_str(answer).map(understood).map_err(|e| bounded(&e.to_string()))
}

fn understood(said: Vec<Value>) -> Vec<Release> {
    let release = |said: Value| {
        let said: SaidRelease = serde_json::from_value(said).ok()?;
        let release = Release {
            version: said.version,
            digest: digest(&said.commit)?,
            made_at: said.made_at,
            expires_at: said.expires_at,
            size_bytes: said.size_bytes,
            minimum: said.minimum,
            changes: said.changes,
            channel: said.channel,
        };
        Some(release.bounded())
    };
    said.into_iter().filter_map(release).take(MAX_RELEASES).collect()
}
