//! What time brings: the way to a restart, and what a start finds.

use std::time::Duration;

use punktfunk_core::time::Timestamp;

use super::Run;
use crate::os::error::OsError;
use crate::os::policy;
use crate::os::release::{
    Attempt, CheckResult, Inventory, MAX_CHECKS, MAX_LOG_LINES, Outcome, Release, Role, bounded,
};
use crate::os::state::{Action, BadMark, Banner, BannerKind, Notice, Phase, Plan, What};

/// A machine that has not restarted after this time will not.
const REBOOT_LIMIT: Duration = Duration::from_secs(300);

/// What time brings, and what a start finds.
impl Run<'_> {
    pub(super) fn tick(&mut self) {
        let someone = !self.world.streaming.is_empty();
        match self.state.phase.clone() {
            _ if self.state.inventory.is_none() => self.act(Action::Look),
            Phase::Waiting(plan) if !someone => self.count_down(plan),
            Phase::Countdown { plan, .. } if someone && !plan.insisted => {
                self.enter(Phase::Waiting(plan));
            }
            Phase::Countdown { plan, ends_at } => {
                let left = ends_at.since(self.world.at);
                if left.is_zero() {
                    let digest = plan.digest;
                    self.enter(Phase::Arranging(plan));
                    self.arrange(digest);
                } else {
                    self.announce_countdown(&plan, left);
                }
            }
            Phase::Rebooting { plan, since } if self.world.at.since(since) >= REBOOT_LIMIT => {
                let detail = "it was asked to and did not".to_owned();
                self.stay();
                self.enter(Phase::Idle);
                self.fail(plan.version, &OsError::Failed { doing: "restart", detail });
            }
            Phase::Rebooting { .. } | Phase::Verifying { .. } => self.act(Action::Look),
            _ => {}
        }
    }

    pub(super) fn count_down(&mut self, plan: Plan) {
        let left = self.world.countdown;
        self.announce_countdown(&plan, left);
        let micros = u64::try_from(left.as_micros()).unwrap_or(u64::MAX);
        let ends_at = self.world.at.as_micros().saturating_add(micros);
        let ends_at = Timestamp::from_micros(ends_at);
        self.enter(Phase::Countdown { plan, ends_at });
    }

    fn announce_countdown(&mut self, plan: &Plan, left: Duration) {
        let seconds_left = left.as_millis().div_ceil(1000);
        self.act(Action::Announce(Notice::Countdown {
            version: plan.version,
            cause: plan.cause,
            seconds_left: u64::try_from(seconds_left).unwrap_or(u64::MAX),
        }));
    }

    /// Takes up what was written down, as far as what is there allows it.
    pub(super) fn settle(&mut self, inventory: &Inventory) {
        self.state.problem = None;
        if self.state.told_attempt.is_none() {
            // A database that is new here: what was before it is nobody's news.
            let told = |attempt: &Attempt| match attempt.outcome {
                Outcome::Pending => attempt.number.saturating_sub(1),
                Outcome::Passed { .. } | Outcome::Failed { .. } => attempt.number,
            };
            self.state.told_attempt = Some(inventory.attempt.as_ref().map_or(0, told));
        }
        if self.judge(inventory) {
            return;
        }
        match self.state.phase.clone() {
            Phase::Downloading { release, .. } => self.resume_download(release, inventory),
            Phase::Staging { release } => {
                let staged = inventory.staged().is_some_and(|one| one.digest == release.digest);
                if staged {
                    self.enter(Phase::Idle);
                    self.tell_staged(release.version);
                } else {
                    let insist = self.state.bad(release.digest).is_some();
                    self.act(Action::Stage { release, insist });
                }
            }
            Phase::Waiting(plan)
            | Phase::Countdown { plan, .. }
            | Phase::Arranging(plan)
            | Phase::Rebooting { plan, .. } => self.resume_plan(plan, inventory),
            Phase::Following { .. } => {
                self.forget_offers();
                self.enter(Phase::Idle);
            }
            Phase::Importing { .. } => {
                let detail = "the host ended meanwhile".to_owned();
                self.enter(Phase::Idle);
                self.tell_problem(&OsError::Incomplete { detail });
            }
            Phase::Idle | Phase::Checking | Phase::Pinning { .. } | Phase::Verifying { .. } => {
                self.enter(Phase::Idle);
            }
        }
    }

    fn resume_download(&mut self, release: Release, inventory: &Inventory) {
        let fetched = inventory.fetched.filter(|fetched| fetched.digest == release.digest);
        self.enter(Phase::Idle);
        if fetched.is_some_and(|fetched| fetched.is_whole()) {
            let sentence = format!("Version {} is downloaded.", release.version);
            return self.record(What::Downloaded, Some(release.version), sentence, None);
        }
        // The owner's insistence was for the first time; the rules hold at every time.
        let refused = self
            .may_take(&release, inventory, true)
            .err()
            .or_else(|| policy::no_room(&release, inventory));
        match refused {
            Some(error) => self.fail(release.version, &error),
            None => {
                let insist = self.state.bad(release.digest).is_some();
                self.download(release, insist, inventory);
            }
        }
    }

    /// The machine did not restart into what was planned, and nothing was tried: the plan holds, and counts anew.
    fn resume_plan(&mut self, mut plan: Plan, inventory: &Inventory) {
        let there = inventory.deployment(plan.digest);
        if there.is_none_or(|target| target.role == Role::Booted) {
            return self.enter(Phase::Idle);
        }
        // Nobody insists on cutting off whoever plays now.
        plan.insisted = false;
        plan.boot.clone_from(&inventory.boot);
        self.enter(Phase::Waiting(plan));
    }

    /// Looks whether something was tried that the owner does not know of; says whether that is so.
    pub(super) fn judge(&mut self, inventory: &Inventory) -> bool {
        let mut told = self.state.told_attempt.unwrap_or(0);
        if inventory.attempt.as_ref().is_some_and(|newest| newest.number < told) {
            // The machine has lost its count and begun anew.
            told = 0;
        }
        if let Some(attempt) = inventory.attempt.clone().filter(|one| one.number > told) {
            let running = inventory.booted().is_some_and(|booted| booted.digest == attempt.digest);
            self.catch_up(inventory, &attempt, told);
            match attempt.outcome.clone() {
                Outcome::Pending => {
                    let verifying = Phase::Verifying { version: attempt.version };
                    if self.state.phase != verifying {
                        self.enter(verifying);
                    }
                }
                Outcome::Passed { checks } => self.passed(&attempt, checks),
                // It is about to be left, which is news once it has been; or nothing can take its place.
                Outcome::Failed { reason, .. } if running => self.runs_on(&attempt, &reason),
                Outcome::Failed { reason, checks, log } => {
                    self.did_not_pass(inventory, &attempt, &reason, (checks, log));
                }
            }
            return true;
        }
        let Phase::Rebooting { plan, .. } = &self.state.phase else { return false };
        if plan.boot == inventory.boot {
            return false;
        }
        let running = inventory.booted().map_or(plan.version, |booted| booted.version);
        let attempt = Attempt {
            number: told,
            digest: plan.digest,
            version: plan.version,
            from: running,
            outcome: Outcome::Pending,
        };
        if inventory.booted().is_some_and(|booted| booted.digest == attempt.digest) {
            self.passed(&attempt, Vec::new());
        } else {
            let reason = "it did not start, and left no word why";
            self.did_not_pass(inventory, &attempt, reason, (Vec::new(), Vec::new()));
        }
        true
    }

    /// What was tried before the newest attempt and was nobody's news: a line each, and what did not pass is remembered.
    /// A system that was tried several times is told once.
    fn catch_up(&mut self, inventory: &Inventory, newest: &Attempt, told: u64) {
        let untold = || inventory.earlier.iter().filter(|one| one.number > told);
        let again = |one: &&Attempt| {
            let after = untold().filter(|other| other.number > one.number).chain([newest]);
            after.into_iter().any(|other| other.digest == one.digest)
        };
        for attempt in untold().filter(|one| !again(one)) {
            let Outcome::Failed { reason, .. } = &attempt.outcome else { continue };
            let (version, reason) = (attempt.version, bounded(reason));
            let sentence = format!("{version} did not pass: {reason}. It was left again.");
            self.record(What::RolledBack, Some(version), sentence, Some(reason.clone()));
            let (digest, at) = (attempt.digest, self.world.unix);
            self.mark_bad(BadMark { digest, version, reason, at });
        }
    }

    /// What runs did not pass. That it was left is told by what runs then.
    fn runs_on(&mut self, attempt: &Attempt, reason: &str) {
        let (version, reason) = (attempt.version, bounded(reason));
        let sentence = format!(
            "{version}, which runs, did not pass: {reason}. If it was started on trial the machine restarts and goes \
             back by itself; otherwise it runs on, and you can go back to another version"
        );
        if self.state.problem.as_ref().is_none_or(|told| told.sentence != sentence) {
            self.state.problem = Some(self.told("did-not-pass", sentence));
            self.enter(Phase::Idle);
        }
    }

    fn passed(&mut self, attempt: &Attempt, checks: Vec<CheckResult>) {
        let (version, checks) = (attempt.version, bounded_checks(checks));
        if version == attempt.from {
            // The first start of a machine: nothing was updated.
            return self.end_attempt(attempt);
        }
        let went_back = version < attempt.from;
        let (kind, what, verb) = if went_back {
            (BannerKind::WentBack, What::WentBack, "Went back to")
        } else {
            (BannerKind::Updated, What::Applied, "Updated to")
        };
        let sentence = format!("{verb} {version}{}.", verdict(&checks));
        self.state.bad.retain(|mark| mark.digest != attempt.digest);
        self.record(what, Some(version), sentence.clone(), None);
        // First the news, then the state that they lead to.
        self.act(Action::Announce(Notice::Applied { version, sentence: sentence.clone() }));
        self.end_attempt(attempt);
        self.state.banner = Some(Banner {
            kind,
            version,
            running: version,
            sentence,
            reason: None,
            checks,
            log: Vec::new(),
            at: self.world.unix,
        });
    }

    fn did_not_pass(
        &mut self,
        inventory: &Inventory,
        attempt: &Attempt,
        reason: &str,
        (checks, mut log): (Vec<CheckResult>, Vec<String>),
    ) {
        let (version, reason) = (attempt.version, bounded(reason));
        let running = inventory.booted().map_or(attempt.from, |booted| booted.version);
        let (digest, at) = (attempt.digest, self.world.unix);
        self.mark_bad(BadMark { digest, version, reason: reason.clone(), at });
        log.truncate(MAX_LOG_LINES);
        let sentence = format!(
            "{version} did not pass: {reason}. You are back on {running}. Nothing was lost, and {version} will not be \
             offered again."
        );
        self.record(What::RolledBack, Some(version), sentence.clone(), Some(reason.clone()));
        let notice = Notice::RolledBack { version, running, reason: reason.clone() };
        self.act(Action::Announce(notice));
        self.end_attempt(attempt);
        self.state.banner = Some(Banner {
            kind: BannerKind::RolledBack,
            version,
            running,
            sentence,
            reason: Some(reason),
            checks: bounded_checks(checks),
            log: log.iter().map(|line| bounded(line)).collect(),
            at: self.world.unix,
        });
    }

    fn end_attempt(&mut self, attempt: &Attempt) {
        self.state.told_attempt = Some(attempt.number);
        self.state.problem = None;
        self.state.offered = self.state.offered.take().filter(|one| one.digest != attempt.digest);
        self.enter(Phase::Idle);
    }
}

fn bounded_checks(mut checks: Vec<CheckResult>) -> Vec<CheckResult> {
    checks.truncate(MAX_CHECKS);
    for check in &mut checks {
        check.name = bounded(&check.name);
        check.detail = bounded(&check.detail);
    }
    checks
}

/// What the checks found, to follow the news.
fn verdict(checks: &[CheckResult]) -> String {
    if checks.is_empty() {
        return String::new();
    }
    let passed = checks.iter().filter(|check| check.passed).count();
    let details: Vec<String> = checks
        .iter()
        .filter(|check| !check.detail.is_empty())
        .map(|check| format!("{} {}", check.name, check.detail))
        .collect();
    let details =
        if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) };
    format!(" - {passed} of {} checks passed{details}", checks.len())
}
