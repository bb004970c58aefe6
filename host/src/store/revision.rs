//! How often something has changed, so that whoever shows it knows when to read it again.
//!
//! Kept here, where all changes pass, whoever makes them: the console, the command line, a device that pairs, a backup
//! that is restored. The numbers are of this run, and mean nothing but "it is another one than before". A number may
//! grow without a change that can be seen; there is no change without it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::Store;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// What the console set: settings, apps and their pictures.
    Settings,
    /// Who is paired, under which name, and what each may do; not when it was here last.
    Clients,
    /// The claim, logins, tokens, and the audit log; not when a login was used last.
    Owner,
}

/// The counts.
#[derive(Debug, Default)]
pub(super) struct Counts([AtomicU64; 3]);

/// How often each part has changed since the store was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Revisions {
    /// Settings, apps and their pictures.
    pub settings: u64,
    /// The paired clients.
    pub clients: u64,
    /// The claim, logins, tokens, and the audit log.
    pub owner: u64,
}

impl Store {
    /// How often what has changed. Does not touch the disk.
    pub fn revisions(&self) -> Revisions {
        let [settings, clients, owner] =
            self.inner.counts.0.each_ref().map(|count| count.load(Ordering::Acquire));
        Revisions { settings, clients, owner }
    }

    /// Another change was made. To be called when it can be read.
    pub(super) fn changed(&self, part: Part) {
        self.inner.counts.0[part as usize].fetch_add(1, Ordering::Release);
    }
}
