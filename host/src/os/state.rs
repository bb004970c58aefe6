//! What the machine of [`machine`](super::machine) knows, what happens to it, and what it wants done.
//!
//! The state holds what only the daemon knows: what it is doing, what it was offered, what did not pass, what the owner
//! has not yet read. What lies on the disk is the backend's to say, and is asked anew after every change and after every
//! start; so the two cannot drift apart.

use punktfunk_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::error::OsError;
use super::release::{Channel, CheckResult, Digest, Inventory, Release, Version};

/// As many digests are remembered as bad; the oldest is forgotten first.
pub const MAX_BAD: usize = 32;
/// As many versions may be pinned.
pub const MAX_PINNED: usize = 2;

/// All that the daemon knows of the system. What is written down is enough to go on after a loss of power.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OsState {
    /// What is being done.
    pub phase: Phase,
    /// What lies on the disk; not known until the backend has said so once.
    #[serde(skip)]
    pub inventory: Option<Inventory>,
    /// The newest release that may be had.
    pub offered: Option<Release>,
    /// Releases that are newer than what runs, and left out because they did not pass here.
    pub skipped: Vec<Release>,
    /// What the last check found.
    pub checked: Option<Told>,
    /// What did not pass here.
    pub bad: Vec<BadMark>,
    /// What the owner is to read, until it is dismissed.
    pub banner: Option<Banner>,
    /// Why the last thing that was asked for failed.
    pub problem: Option<Told>,
    /// The newest attempt that the owner was told of.
    pub told_attempt: Option<u64>,
}

/// What is being done. At most one thing is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Asking for releases.
    Checking,
    /// Fetching a release.
    Downloading {
        /// Which.
        release: Release,
        /// As much is there; not written down, because the backend knows better.
        #[serde(skip)]
        done_bytes: u64,
    },
    /// Taking in what somebody brings in a file.
    Importing {
        /// As much is there; not written down, because it begins anew.
        #[serde(skip)]
        done_bytes: u64,
        /// As much it will be, if that was said.
        total_bytes: Option<u64>,
    },
    /// Making a deployment of what was fetched.
    Staging {
        /// Of what.
        release: Release,
    },
    /// Pinning a deployment, or the opposite.
    Pinning {
        /// Which.
        digest: Digest,
        /// Its version.
        version: Version,
        /// It is to be pinned.
        pinned: bool,
    },
    /// Changing where releases come from.
    Following {
        /// To there.
        channel: Channel,
    },
    /// Waiting until nobody plays.
    Waiting(Plan),
    /// Counting down; can be cancelled.
    Countdown {
        /// To do what.
        plan: Plan,
        /// When it is done. Begins anew after a start, so it is not written down.
        #[serde(skip)]
        ends_at: Timestamp,
    },
    /// Telling the boot loader what to start next.
    Arranging(Plan),
    /// Restarting.
    Rebooting {
        /// Into what.
        plan: Plan,
        /// Since when; begins anew after a start.
        #[serde(skip)]
        since: Timestamp,
    },
    /// The new system runs and is being checked.
    Verifying {
        /// Which.
        version: Version,
    },
}

impl Phase {
    /// The plan that is being followed.
    pub const fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Waiting(plan)
            | Self::Countdown { plan, .. }
            | Self::Arranging(plan)
            | Self::Rebooting { plan, .. } => Some(plan),
            _ => None,
        }
    }

    /// What is being done, as a part of a sentence.
    pub const fn doing(&self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Checking => "checking for updates",
            Self::Downloading { .. } => "downloading an update",
            Self::Importing { .. } => "reading an update that was brought",
            Self::Staging { .. } => "preparing an update",
            Self::Pinning { .. } => "pinning a version",
            Self::Following { .. } => "changing where updates come from",
            Self::Waiting(_) => "waiting until nobody plays, to restart then",
            Self::Countdown { .. } => "about to restart",
            Self::Arranging(_) | Self::Rebooting { .. } => "restarting",
            Self::Verifying { .. } => "checking the version that was just started",
        }
    }
}

/// Why another system is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// To a newer one.
    Update,
    /// The owner goes back.
    Rollback,
}

/// Which system is to be started, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Which.
    pub digest: Digest,
    /// What it is called.
    pub version: Version,
    /// Why.
    pub cause: Cause,
    /// Also if somebody plays.
    pub insisted: bool,
    /// The boot in which it was made.
    pub boot: String,
}

/// A system that did not pass here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BadMark {
    /// Which.
    pub digest: Digest,
    /// What it is called.
    pub version: Version,
    /// Why, as a part of a sentence.
    pub reason: String,
    /// Since when, in seconds since 1970.
    pub at: u64,
}

/// Something that was said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// For programs.
    pub code: String,
    /// For the owner.
    pub sentence: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What kind of news a banner has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BannerKind {
    /// A newer version runs.
    Updated,
    /// The owner went back, and it worked.
    WentBack,
    /// A version did not pass; the one from before runs.
    RolledBack,
}

/// What the owner is to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Banner {
    /// What kind of news.
    pub kind: BannerKind,
    /// The version that was started.
    pub version: Version,
    /// The version that runs.
    pub running: Version,
    /// The news.
    pub sentence: String,
    /// Why it did not pass, as a part of a sentence.
    pub reason: Option<String>,
    /// What was checked.
    pub checks: Vec<CheckResult>,
    /// What the part that failed said last.
    #[serde(default)]
    pub log: Vec<String>,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A release was found.
    Offered,
    /// A release is on the disk.
    Downloaded,
    /// A deployment waits to be applied.
    Staged,
    /// A restart was asked for.
    Planned,
    /// The restart was cancelled.
    Cancelled,
    /// The machine restarts.
    Restarting,
    /// A newer version passed.
    Applied,
    /// The owner went back, and it passed.
    WentBack,
    /// A version did not pass, and was left.
    RolledBack,
    /// A version was pinned.
    Pinned,
    /// A version was unpinned.
    Unpinned,
    /// Releases come from elsewhere.
    Followed,
    /// Something failed.
    Failed,
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// What happened.
    pub what: What,
    /// To which version.
    pub version: Option<Version>,
    /// What happened, for the owner.
    pub sentence: String,
    /// Why, where there is a reason.
    pub reason: Option<String>,
}

/// News for those who follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A download goes on.
    Progress {
        /// Of which version.
        version: Version,
        /// As much is there.
        done_bytes: u64,
        /// As much it will be.
        total_bytes: u64,
    },
    /// What somebody brings goes on to come.
    Importing {
        /// As much is there.
        done_bytes: u64,
        /// As much it will be, if that was said.
        total_bytes: Option<u64>,
    },
    /// A restart comes near.
    Countdown {
        /// Into which version.
        version: Version,
        /// Why.
        cause: Cause,
        /// How long it still takes.
        seconds_left: u64,
    },
    /// An update is ready to be applied.
    Staged {
        /// Which version.
        version: Version,
    },
    /// A version was started and passed.
    Applied {
        /// Which.
        version: Version,
        /// What is said of it.
        sentence: String,
    },
    /// A version did not pass and was left.
    RolledBack {
        /// Which.
        version: Version,
        /// What runs instead.
        running: Version,
        /// Why.
        reason: String,
    },
    /// Something else is different now.
    Changed,
}

/// When something is to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// As soon as nobody plays.
    Idle,
    /// Now.
    Now,
}

/// What the owner asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    /// Look for releases.
    Check,
    /// Fetch what is offered.
    Download {
        /// Also if it did not pass here before.
        insist: bool,
    },
    /// Take in what somebody brings in a file.
    Import {
        /// As much it will be, if that was said.
        total_bytes: Option<u64>,
    },
    /// Stop fetching; what came is kept. Or stop taking in what somebody brings, of which nothing is.
    StopDownload,
    /// Make a deployment of what was fetched.
    Stage {
        /// Also if it did not pass here before.
        insist: bool,
    },
    /// Start what is staged.
    Apply {
        /// When.
        when: When,
        /// Also if somebody plays.
        insist: bool,
    },
    /// Do not restart after all.
    Cancel,
    /// Start what ran before, or this one.
    Rollback {
        /// Which; what ran before if nothing is said.
        digest: Option<Digest>,
        /// When.
        when: When,
        /// Also if somebody plays, or it did not pass here before.
        insist: bool,
        /// The owner has proved to root's program that it may be older than the oldest that is safe.
        proven: bool,
    },
    /// Keep a version.
    Pin(Digest),
    /// Keep it no more.
    Unpin(Digest),
    /// Look for releases there from now on.
    Follow(Channel),
    /// The banner and the problem are read.
    Dismiss,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The owner asks.
    Asked(Verb),
    /// The backend says what is there.
    Seen(Result<Inventory, OsError>),
    /// Releases were asked for.
    Checked(Result<Vec<Release>, OsError>),
    /// A download goes on, or what somebody brings.
    Progress {
        /// As much is there.
        done_bytes: u64,
    },
    /// What somebody brought was taken in, or not.
    Imported(Result<Vec<Release>, OsError>),
    /// A download ended.
    Downloaded(Result<Inventory, OsError>),
    /// A deployment was made, or not.
    Staged(Result<Inventory, OsError>),
    /// A deployment was pinned or unpinned, or not.
    Pinned(Result<Inventory, OsError>),
    /// Releases come from elsewhere, or not.
    Followed(Result<Inventory, OsError>),
    /// The boot loader was told, or not.
    Arranged {
        /// What to start next.
        digest: Digest,
        /// Whether it was.
        result: Result<(), OsError>,
    },
    /// The restart was asked for, or refused.
    Restarted(Result<(), OsError>),
    /// Time has passed; comes once a second while [`OsState::wants_ticks`].
    Tick,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Ask for releases; answered by [`Event::Checked`].
    Check,
    /// Fetch; answered by [`Event::Progress`] and [`Event::Downloaded`].
    Download {
        /// What.
        release: Release,
        /// Also if it did not pass here before.
        insist: bool,
    },
    /// Take in what somebody brings; answered by [`Event::Progress`] and [`Event::Imported`].
    Import,
    /// End the download that runs, or what is being taken in.
    StopDownload,
    /// Make a deployment; answered by [`Event::Staged`].
    Stage {
        /// Of what.
        release: Release,
        /// Also if it did not pass here before.
        insist: bool,
    },
    /// Tell the boot loader; answered by [`Event::Arranged`].
    Arrange {
        /// What to start next.
        digest: Digest,
        /// Also if it did not pass here before.
        insist: bool,
    },
    /// Restart; answered by [`Event::Restarted`].
    Reboot,
    /// Pin or unpin; answered by [`Event::Pinned`].
    Pin(Digest, bool),
    /// Look for releases there; answered by [`Event::Followed`].
    Follow(Channel),
    /// See what is there; answered by [`Event::Seen`].
    Look,
    /// Add to the history.
    Record(Entry),
    /// Tell those who follow.
    Announce(Notice),
    /// Refuse what was asked.
    Refuse(OsError),
}

/// What is around the machine when something happens.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// The monotonic clock.
    pub at: Timestamp,
    /// The wall clock, in seconds since 1970; only compared with manifests, and shown.
    pub unix: u64,
    /// Who streams, by the names of their devices.
    pub streaming: &'a [String],
    /// How long a restart can be cancelled.
    pub countdown: std::time::Duration,
}
