//! What may be installed, decided before anything is written: the same rules for every backend.
//!
//! A backend checks signatures, and again everything that is here; the daemon asks so that the owner reads the reason
//! before a byte is fetched. The wall clock is an argument: a manifest's times mean nothing else.

use super::error::OsError;
use super::release::{Inventory, Release};
use super::state::BadMark;

/// What of the size must be free, in tenths: the update itself, and what unpacking it takes.
const NEEDED_TENTHS: u128 = 12;

/// Why this release may not be installed here at all, now or as long as nothing changes.
pub(super) fn distrust(release: &Release, inventory: &Inventory, unix: u64) -> Option<OsError> {
    let version = release.version;
    let running = inventory.booted().map_or(inventory.floor, |booted| booted.version);
    let floor = inventory.floor.max(running);
    if version < floor {
        Some(OsError::Downgrade { version, floor })
    } else if unix < release.made_at.max(inventory.newest_manifest_at) {
        Some(OsError::ClockBehind { version })
    } else if unix >= release.expires_at {
        Some(OsError::Expired { version })
    } else {
        None
    }
}

/// Why there is no room for it, if there is none. What was fetched of it already needs none any more.
pub(super) fn no_room(release: &Release, inventory: &Inventory) -> Option<OsError> {
    let fetched = inventory.fetched.filter(|fetched| fetched.digest == release.digest);
    let done = fetched.map_or(0, |fetched| fetched.done_bytes.min(release.size_bytes));
    let needed = u128::from(release.size_bytes) * NEEDED_TENTHS / 10 - u128::from(done);
    let needed_bytes = u64::try_from(needed).unwrap_or(u64::MAX);
    (inventory.free_bytes < needed_bytes)
        .then_some(OsError::NoSpace { needed_bytes, free_bytes: inventory.free_bytes })
}

/// What a check found.
pub(super) struct Choice {
    /// The newest that may be had from here in one step and did not fail here.
    pub(super) offered: Option<Release>,
    /// Those that are newer than what runs and did fail here.
    pub(super) skipped: Vec<Release>,
}

/// Chooses among what is released.
pub(super) fn choose(releases: Vec<Release>, inventory: &Inventory, bad: &[BadMark]) -> Choice {
    let Some(running) = inventory.booted().map(|booted| booted.version) else {
        return Choice { offered: None, skipped: Vec::new() };
    };
    let newer = releases.into_iter().filter(|one| one.version > running && one.minimum <= running);
    let (skipped, mut good): (Vec<_>, Vec<_>) =
        newer.partition(|one| bad.iter().any(|mark| mark.digest == one.digest));
    good.sort_by_key(|release| release.version);
    Choice { offered: good.pop(), skipped }
}
