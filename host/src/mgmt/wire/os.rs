//! Updates, as JSON. A digest is text: `sha256:` and 64 hex digits.

mod convert;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Secret;

/// The system: what runs, what can be had, what is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsReport {
    /// Whether this machine's system is the host's to update. If not, only `reason` is there.
    pub appliance: bool,
    /// All of this only looks so: nothing is installed and nothing restarts.
    pub simulated: bool,
    /// Why it is no appliance, and what to do, in sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What runs; not there until the system was looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<OsDeployment>,
    /// What waits to be applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<OsDeployment>,
    /// What ran before, and is what one goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<OsDeployment>,
    /// Every version on the disk.
    #[schema(max_items = 16)]
    pub deployments: Vec<OsDeployment>,
    /// Where updates come from.
    pub channel: OsChannel,
    /// The newest update that can be had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offered: Option<OsRelease>,
    /// As much of it is downloaded, in bytes; it can be staged once that is `size_bytes`.
    pub downloaded_bytes: u64,
    /// Newer versions that are left out because they did not pass here.
    pub skipped: Vec<OsSkipped>,
    /// What the last check for updates found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checked: Option<OsTold>,
    /// What was started on trial, and what came of it: the newest last.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub attempts: Vec<OsAttempt>,
    /// What was found after this start, also where nothing is on trial; not there until the checks were made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<OsVerdict>,
    /// As much can be written, in bytes.
    pub free_bytes: u64,
    /// What is being done.
    pub phase: OsPhase,
    /// What a restart would cut off: who streams, by the names of their devices, and what is done with a backup, such as
    /// `a backup of homes`.
    pub streaming: Vec<String>,
    /// News that stay until they are dismissed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub banner: Option<OsBanner>,
    /// Why the last thing that was asked for failed; stays until it is dismissed or works.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<OsTold>,
}

/// Where updates come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsChannel {
    /// For everybody.
    Stable,
    /// For those who want it early.
    Next,
}

/// A version on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsDeployment {
    /// What it is called.
    #[schema(example = "1.4.2")]
    pub version: String,
    /// Which system it is.
    pub digest: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// What it is there for.
    pub role: OsRole,
    /// The owner keeps it, whatever else it is.
    pub pinned: bool,
    /// Why it did not pass here, if it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bad: Option<String>,
}

/// What a version is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsRole {
    /// It runs.
    Booted,
    /// It waits to be applied.
    Staged,
    /// It ran before.
    Rollback,
    /// It is kept.
    Pinned,
    /// The machine was set up with it; it remains when all others have failed.
    Pristine,
}

/// A start on trial.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsAttempt {
    /// Counts the attempts of this machine.
    pub number: u64,
    /// The version that was started.
    pub version: String,
    /// Which system that is.
    pub digest: String,
    /// The version that ran before; itself where none did.
    pub from: String,
    /// What came of it.
    pub outcome: OsOutcome,
    /// Why it did not pass, as a part of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was checked.
    #[schema(max_items = 32)]
    pub checks: Vec<OsCheck>,
    /// What the part that failed said last.
    #[schema(max_items = 40)]
    pub log: Vec<String>,
}

/// What was found after a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsVerdict {
    /// What came of it.
    pub outcome: OsOutcome,
    /// Why it did not pass, as a part of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was checked.
    #[schema(max_items = 32)]
    pub checks: Vec<OsCheck>,
    /// What the part that failed said last.
    #[schema(max_items = 40)]
    pub log: Vec<String>,
}

/// What came of a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsOutcome {
    /// It is being checked.
    Pending,
    /// It passed.
    Passed,
    /// It did not pass.
    Failed,
}

/// An update that can be had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsRelease {
    /// What it is called.
    pub version: String,
    /// Which system it is.
    pub digest: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// What is transferred at most, in bytes.
    pub size_bytes: u64,
    /// What is new, in plain lines.
    #[schema(max_items = 5)]
    pub changes: Vec<String>,
}

/// A version that is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsSkipped {
    /// What it is called.
    pub version: String,
    /// Which system it is.
    pub digest: String,
    /// Why it did not pass here.
    pub reason: String,
}

/// Something that was said, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsTold {
    /// For programs; never changes its meaning.
    pub code: String,
    /// For the owner.
    pub sentence: String,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What is being done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum OsPhase {
    /// Nothing.
    Idle,
    /// The system is being looked at for the first time.
    Starting,
    /// Asking for updates.
    Checking,
    /// Fetching one.
    Downloading {
        /// Which.
        version: String,
        /// As much is there.
        done_bytes: u64,
        /// As much it will be.
        total_bytes: u64,
        /// How much of it that is; only the last byte makes it 100.
        #[schema(maximum = 100)]
        percent: u8,
    },
    /// Reading one that somebody sends in a file.
    Importing {
        /// As much has come.
        done_bytes: u64,
        /// As much it will be, if that was said.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total_bytes: Option<u64>,
        /// How much of it that is; only the last byte makes it 100.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        #[schema(maximum = 100)]
        percent: Option<u8>,
    },
    /// Preparing one.
    Staging {
        /// Which.
        version: String,
    },
    /// Pinning or unpinning a version.
    Pinning {
        /// Which.
        version: String,
    },
    /// Changing where updates come from.
    Following {
        /// To there.
        channel: OsChannel,
    },
    /// Waiting until nobody plays.
    Waiting {
        /// Into which version to restart then.
        version: String,
        /// Why.
        cause: OsCause,
    },
    /// About to restart; can be cancelled.
    Countdown {
        /// Into which version.
        version: String,
        /// Why.
        cause: OsCause,
        /// How long it still takes.
        seconds_left: u64,
        /// Also if somebody plays.
        insisted: bool,
    },
    /// Restarting.
    Restarting {
        /// Into which version.
        version: String,
        /// Why.
        cause: OsCause,
    },
    /// The version was started and is being checked.
    Verifying {
        /// Which.
        version: String,
    },
}

/// Why another version is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsCause {
    /// It is newer.
    Update,
    /// The owner goes back.
    Rollback,
}

/// News that stay until they are dismissed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsBanner {
    /// What kind of news.
    pub kind: OsBannerKind,
    /// The version that was started.
    pub version: String,
    /// The version that runs.
    pub running: String,
    /// The news.
    pub sentence: String,
    /// Why it did not pass, as a part of a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What was checked.
    pub checks: Vec<OsCheck>,
    /// What the part that failed said last.
    #[serde(default)]
    #[schema(max_items = 40)]
    pub log: Vec<String>,
    /// When, in seconds since 1970.
    pub at: u64,
}

/// What kind of news.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsBannerKind {
    /// A newer version runs.
    Updated,
    /// The owner went back, and it worked.
    WentBack,
    /// A version did not pass; the one from before runs.
    RolledBack,
}

/// One of the checks after a start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsCheck {
    /// What was checked.
    pub name: String,
    /// Whether it passed.
    pub passed: bool,
    /// What was found.
    pub detail: String,
}

/// A line of the history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsPast {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What kind of thing happened.
    pub what: OsWhat,
    /// To which version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What happened.
    pub sentence: String,
    /// Why, where there is a reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// It only looked so.
    pub simulated: bool,
}

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsWhat {
    /// An update was found.
    Offered,
    /// It was downloaded.
    Downloaded,
    /// It is ready to be applied.
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
    /// Updates come from elsewhere.
    Followed,
    /// Something failed.
    Failed,
}

/// The data of an event; which there are, its name says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OsNews {
    /// It only looks so.
    pub simulated: bool,
    /// Which version it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What runs after `update.rolled_back`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<String>,
    /// Why, for the owner.
    pub reason: String,
    /// With `update.progress`: as much is there; without a `version`, of a file that somebody sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub done_bytes: Option<u64>,
    /// With `update.progress`: as much it will be, if that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_bytes: Option<u64>,
    /// With `update.progress`: how much of it that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 100)]
    pub percent: Option<u8>,
    /// With `update.countdown`: how long it still takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
}

/// Fetch or prepare the update that is offered.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OsTake {
    /// Also if it did not pass here before.
    pub insist: bool,
}

/// When to restart.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OsWhen {
    /// When nobody plays.
    #[default]
    Idle,
    /// Now, after a countdown.
    Now,
}

/// Apply what is staged.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OsApply {
    /// When; when nobody plays, if nothing is said.
    pub when: OsWhen,
    /// With `now`: also if that cuts somebody off.
    pub insist: bool,
}

/// Go back to another version.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct OsRollback {
    /// Which, by its digest; what ran before, if nothing is said.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    pub digest: Option<String>,
    /// When; when nobody plays, if nothing is said.
    pub when: OsWhen,
    /// Also if it did not pass here before, and with `now` also if that cuts somebody off.
    pub insist: bool,
    /// The owner's, which also a login must say: only for a version that is older than the oldest that is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

/// Forget everything of the owner.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FactoryReset {
    /// The owner's, which also a login must say.
    pub password: Secret,
    /// Also if that cuts somebody off.
    #[serde(default)]
    pub insist: bool,
}

/// A reset has begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ResetBegun {
    /// It only looks so: nothing is forgotten.
    pub simulated: bool,
    /// What happens now, in sentences.
    pub detail: String,
}

/// Where to look for updates.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OsFollow {
    /// There.
    pub channel: OsChannel,
}

/// A version on the disk.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OsWhich {
    /// Its digest.
    #[schema(pattern = "^sha256:[0-9a-f]{64}$")]
    pub digest: String,
}
