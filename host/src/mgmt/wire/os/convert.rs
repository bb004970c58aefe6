//! From what the room knows to what is told.

use super::{
    OsAttempt, OsBanner, OsBannerKind, OsCause, OsChannel, OsCheck, OsDeployment, OsNews,
    OsOutcome, OsPast, OsPhase, OsRelease, OsReport, OsRole, OsSkipped, OsTold, OsVerdict, OsWhat,
    OsWhen,
};
use crate::os::{self, OsView, Presence};

impl From<OsView> for OsReport {
    fn from(view: OsView) -> Self {
        let (appliance, simulated, reason) = match &view.presence {
            Presence::Appliance { simulated } => (true, *simulated, None),
            Presence::Absent { reason } => (false, false, Some(reason.clone())),
        };
        let phase = match view.state.inventory {
            None if appliance => OsPhase::Starting,
            _ => OsPhase::at(&view),
        };
        let state = view.state;
        let inventory = state.inventory.as_ref();
        let deployment = |found: &os::Deployment| OsDeployment {
            bad: state.bad(found.digest).map(|mark| mark.reason.clone()),
            ..OsDeployment::from(found)
        };
        let fetched = inventory.and_then(|one| one.fetched);
        let offered = state.offered.as_ref();
        let fetched = fetched.filter(|one| offered.is_some_and(|it| it.digest == one.digest));
        let skipped = |release: &os::Release| OsSkipped {
            version: release.version.to_string(),
            digest: release.digest.to_string(),
            reason: state.bad(release.digest).map(|mark| mark.reason.clone()).unwrap_or_default(),
        };
        Self {
            appliance,
            simulated,
            reason,
            running: inventory.and_then(os::Inventory::booted).map(deployment),
            staged: inventory.and_then(os::Inventory::staged).map(deployment),
            previous: inventory.and_then(os::Inventory::rollback).map(deployment),
            deployments: inventory
                .map(|one| one.deployments.iter().map(deployment).collect())
                .unwrap_or_default(),
            channel: inventory.map_or(os::Channel::Stable, |one| one.channel).into(),
            offered: offered.map(OsRelease::from),
            downloaded_bytes: fetched.map_or(0, |fetched| fetched.done_bytes),
            skipped: state.skipped.iter().map(skipped).collect(),
            checked: state.checked.clone().map(OsTold::from),
            attempts: inventory
                .map(|one| one.attempts().map(OsAttempt::from).collect())
                .unwrap_or_default(),
            verdict: inventory.and_then(|one| one.verdict.as_ref()).map(OsVerdict::from),
            free_bytes: inventory.map_or(0, |one| one.free_bytes),
            phase,
            streaming: view.streaming,
            banner: state.banner.clone().map(OsBanner::from),
            problem: state.problem.clone().map(OsTold::from),
        }
    }
}

impl OsPhase {
    fn at(view: &OsView) -> Self {
        let of = |plan: &os::Plan| (plan.version.to_string(), OsCause::from(plan.cause));
        match &view.state.phase {
            os::Phase::Idle => Self::Idle,
            os::Phase::Checking => Self::Checking,
            os::Phase::Downloading { release, done_bytes } => Self::Downloading {
                version: release.version.to_string(),
                done_bytes: *done_bytes,
                total_bytes: release.size_bytes,
                percent: os::machine::percent(*done_bytes, release.size_bytes),
            },
            os::Phase::Importing { done_bytes, total_bytes } => Self::Importing {
                done_bytes: *done_bytes,
                total_bytes: *total_bytes,
                percent: total_bytes.map(|total| os::machine::percent(*done_bytes, total)),
            },
            os::Phase::Staging { release } => {
                Self::Staging { version: release.version.to_string() }
            }
            os::Phase::Pinning { version, .. } => Self::Pinning { version: version.to_string() },
            os::Phase::Following { channel } => Self::Following { channel: (*channel).into() },
            os::Phase::Waiting(plan) => {
                let (version, cause) = of(plan);
                Self::Waiting { version, cause }
            }
            os::Phase::Countdown { plan, ends_at } => {
                let ((version, cause), insisted) = (of(plan), plan.insisted);
                let left = ends_at.since(view.at).as_millis().div_ceil(1000);
                let seconds_left = u64::try_from(left).unwrap_or(u64::MAX);
                Self::Countdown { version, cause, seconds_left, insisted }
            }
            os::Phase::Arranging(plan) | os::Phase::Rebooting { plan, .. } => {
                let (version, cause) = of(plan);
                Self::Restarting { version, cause }
            }
            os::Phase::Verifying { version } => Self::Verifying { version: version.to_string() },
        }
    }
}

impl OsNews {
    /// The event's name, and its data; `None` where all that can be said is that something changed.
    pub fn of(notice: os::Notice, simulated: bool) -> (&'static str, Self) {
        let plain = |version: os::Version, reason: String| Self {
            simulated,
            version: Some(version.to_string()),
            reason,
            ..Self::default()
        };
        match notice {
            os::Notice::Progress { version, done_bytes, total_bytes } => {
                let news = Self {
                    done_bytes: Some(done_bytes),
                    total_bytes: Some(total_bytes),
                    percent: Some(os::machine::percent(done_bytes, total_bytes)),
                    ..plain(version, "The update is being downloaded.".to_owned())
                };
                ("update.progress", news)
            }
            os::Notice::Importing { done_bytes, total_bytes } => {
                let news = Self {
                    simulated,
                    reason: "The update is being read.".to_owned(),
                    done_bytes: Some(done_bytes),
                    total_bytes,
                    percent: total_bytes.map(|total| os::machine::percent(done_bytes, total)),
                    ..Self::default()
                };
                ("update.progress", news)
            }
            os::Notice::Countdown { version, cause, seconds_left } => {
                let reason = match cause {
                    os::Cause::Update => "The host restarts to apply the update.",
                    os::Cause::Rollback => "The host restarts because the owner goes back.",
                };
                let seconds_left = Some(seconds_left);
                ("update.countdown", Self { seconds_left, ..plain(version, reason.to_owned()) })
            }
            os::Notice::Staged { version } => {
                ("update.staged", plain(version, "The update is ready to be applied.".to_owned()))
            }
            os::Notice::Applied { version, sentence } => {
                ("update.applied", plain(version, sentence))
            }
            os::Notice::RolledBack { version, running, reason } => {
                let running = Some(running.to_string());
                ("update.rolled_back", Self { running, ..plain(version, reason) })
            }
            os::Notice::Changed => {
                let reason = "Something is different now.".to_owned();
                ("update.changed", Self { simulated, reason, ..Self::default() })
            }
        }
    }
}

impl OsPast {
    /// The line, and whether it only looked so.
    pub fn of(past: os::Past, simulated: bool) -> Self {
        Self {
            at: past.at,
            what: past.entry.what.into(),
            version: past.entry.version.map(|version| version.to_string()),
            sentence: past.entry.sentence,
            reason: past.entry.reason,
            simulated,
        }
    }
}

impl From<&os::Deployment> for OsDeployment {
    fn from(found: &os::Deployment) -> Self {
        Self {
            version: found.version.to_string(),
            digest: found.digest.to_string(),
            made_at: found.made_at,
            role: match found.role {
                os::Role::Booted => OsRole::Booted,
                os::Role::Staged => OsRole::Staged,
                os::Role::Rollback => OsRole::Rollback,
                os::Role::Pinned => OsRole::Pinned,
                os::Role::Pristine => OsRole::Pristine,
            },
            pinned: found.pinned,
            bad: None,
        }
    }
}

impl From<&os::Release> for OsRelease {
    fn from(release: &os::Release) -> Self {
        Self {
            version: release.version.to_string(),
            digest: release.digest.to_string(),
            made_at: release.made_at,
            size_bytes: release.size_bytes,
            changes: release.changes.clone(),
        }
    }
}

impl From<os::Told> for OsTold {
    fn from(told: os::Told) -> Self {
        Self { code: told.code, sentence: told.sentence, at: told.at }
    }
}

impl From<os::Banner> for OsBanner {
    fn from(banner: os::Banner) -> Self {
        Self {
            kind: match banner.kind {
                os::BannerKind::Updated => OsBannerKind::Updated,
                os::BannerKind::WentBack => OsBannerKind::WentBack,
                os::BannerKind::RolledBack => OsBannerKind::RolledBack,
            },
            version: banner.version.to_string(),
            running: banner.running.to_string(),
            sentence: banner.sentence,
            reason: banner.reason,
            checks: banner.checks.into_iter().map(OsCheck::from).collect(),
            log: banner.log,
            at: banner.at,
        }
    }
}

impl From<os::CheckResult> for OsCheck {
    fn from(check: os::CheckResult) -> Self {
        Self { name: check.name, passed: check.passed, detail: check.detail }
    }
}

impl From<&os::Outcome> for OsVerdict {
    fn from(outcome: &os::Outcome) -> Self {
        let (outcome, reason, checks, log) = match outcome.clone() {
            os::Outcome::Pending => (OsOutcome::Pending, None, vec![], vec![]),
            os::Outcome::Passed { checks } => (OsOutcome::Passed, None, checks, vec![]),
            os::Outcome::Failed { reason, checks, log } => {
                (OsOutcome::Failed, Some(reason), checks, log)
            }
        };
        let checks = checks.into_iter().map(OsCheck::from).collect();
        Self { outcome, reason, checks, log }
    }
}

impl From<&os::Attempt> for OsAttempt {
    fn from(attempt: &os::Attempt) -> Self {
        let OsVerdict { outcome, reason, checks, log } = OsVerdict::from(&attempt.outcome);
        Self {
            number: attempt.number,
            version: attempt.version.to_string(),
            digest: attempt.digest.to_string(),
            from: attempt.from.to_string(),
            outcome,
            reason,
            checks,
            log,
        }
    }
}

impl From<os::Channel> for OsChannel {
    fn from(channel: os::Channel) -> Self {
        match channel {
            os::Channel::Stable => Self::Stable,
            os::Channel::Next => Self::Next,
        }
    }
}

impl From<OsChannel> for os::Channel {
    fn from(channel: OsChannel) -> Self {
        match channel {
            OsChannel::Stable => Self::Stable,
            OsChannel::Next => Self::Next,
        }
    }
}

impl From<os::Cause> for OsCause {
    fn from(cause: os::Cause) -> Self {
        match cause {
            os::Cause::Update => Self::Update,
            os::Cause::Rollback => Self::Rollback,
        }
    }
}

impl From<OsWhen> for os::When {
    fn from(when: OsWhen) -> Self {
        match when {
            OsWhen::Idle => Self::Idle,
            OsWhen::Now => Self::Now,
        }
    }
}

impl From<os::What> for OsWhat {
    fn from(what: os::What) -> Self {
        match what {
            os::What::Offered => Self::Offered,
            os::What::Downloaded => Self::Downloaded,
            os::What::Staged => Self::Staged,
            os::What::Planned => Self::Planned,
            os::What::Cancelled => Self::Cancelled,
            os::What::Restarting => Self::Restarting,
            os::What::Applied => Self::Applied,
            os::What::WentBack => Self::WentBack,
            os::What::RolledBack => Self::RolledBack,
            os::What::Pinned => Self::Pinned,
            os::What::Unpinned => Self::Unpinned,
            os::What::Followed => Self::Followed,
            os::What::Failed => Self::Failed,
        }
    }
}
