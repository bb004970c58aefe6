//! The one state machine of updates: every backend, simulated or real, runs under it.
//!
//! [`step`] takes what is known, what happened and what is around, and gives back what is known then and what is to be
//! done. It touches nothing and asks nobody, so every story - a loss of power in the middle, a verdict that does not
//! pass, somebody who begins to play in the last second - is a list of events in a test. Nothing here restarts a machine
//! on which somebody plays, unless the owner insisted; and nothing here takes a digest that did not pass, unless the
//! owner insisted on that as well.
//!
//! After a start the backend's inventory decides: a phase that was written down is taken up again where that is safe,
//! and where it is not, the owner is told what became of it.

mod answers;
mod starts;

use super::error::OsError;
use super::policy;
use super::release::{Channel, Deployment, Digest, Inventory, Release, Role, Version};
use super::state::{
    Action, BadMark, Cause, Entry, Event, MAX_PINNED, Notice, OsState, Phase, Plan, Told, Verb,
    What, When, World,
};

/// What is known after the event, and what is to be done, in this order.
pub fn step(mut state: OsState, event: Event, world: &World<'_>) -> (OsState, Vec<Action>) {
    let mut actions = Vec::new();
    let mut run = Run { state: &mut state, world, actions: &mut actions };
    match event {
        Event::Asked(verb) => {
            if let Err(error) = run.ask(verb) {
                run.act(Action::Refuse(error));
            }
        }
        Event::Seen(seen) => run.seen(seen),
        Event::Checked(found) => run.checked(found),
        Event::Progress { done_bytes } => run.progress(done_bytes),
        Event::Imported(found) => run.imported(found),
        Event::Downloaded(result) => run.downloaded(result),
        Event::Staged(result) => run.staged(result),
        Event::Pinned(result) => run.pinned(result),
        Event::Followed(result) => run.followed(result),
        Event::Arranged { digest, result } => run.arranged(digest, result),
        Event::Restarted(result) => run.restarted(result),
        Event::Tick => run.tick(),
    }
    (state, actions)
}

impl OsState {
    /// Whether something waits for time to pass.
    pub const fn wants_ticks(&self) -> bool {
        self.inventory.is_none()
            || matches!(
                self.phase,
                Phase::Waiting(_)
                    | Phase::Countdown { .. }
                    | Phase::Rebooting { .. }
                    | Phase::Verifying { .. }
            )
    }

    /// Why this digest did not pass here, if it did not.
    pub fn bad(&self, digest: Digest) -> Option<&BadMark> {
        self.bad.iter().find(|mark| mark.digest == digest)
    }
}

/// One step: the state, and what was decided so far.
struct Run<'a> {
    state: &'a mut OsState,
    world: &'a World<'a>,
    actions: &'a mut Vec<Action>,
}

/// What the owner asks for. A refusal changes nothing.
impl Run<'_> {
    fn ask(&mut self, verb: Verb) -> Result<(), OsError> {
        let inventory = self.state.inventory.clone().ok_or(OsError::NotReady)?;
        match verb {
            Verb::Check => {
                self.must_be_idle()?;
                self.enter(Phase::Checking);
                self.act(Action::Check);
            }
            Verb::Download { insist } => {
                self.must_be_idle()?;
                let release = self.wanted(insist).ok_or(OsError::NothingOffered)?;
                self.may_take(&release, &inventory, insist)?;
                if let Some(error) = policy::no_room(&release, &inventory) {
                    return Err(error);
                }
                self.download(release, insist, &inventory);
            }
            Verb::Import { total_bytes } => {
                self.must_be_idle()?;
                self.state.problem = None;
                self.enter(Phase::Importing { done_bytes: 0, total_bytes });
                self.act(Action::Import);
            }
            Verb::StopDownload => {
                if !matches!(self.state.phase, Phase::Downloading { .. } | Phase::Importing { .. })
                {
                    return Err(OsError::NothingToCancel);
                }
                self.act(Action::StopDownload);
            }
            Verb::Stage { insist } => {
                self.must_be_idle()?;
                let release = self.wanted(insist).ok_or(OsError::NothingDownloaded)?;
                self.may_take(&release, &inventory, insist)?;
                let fetched = inventory.fetched.filter(|one| one.digest == release.digest);
                if !fetched.is_some_and(|fetched| fetched.is_whole()) {
                    return Err(OsError::NothingDownloaded);
                }
                self.stage(release, insist);
            }
            Verb::Apply { when, insist } => {
                let staged = inventory.staged().cloned().ok_or(OsError::NothingStaged)?;
                self.start(&staged, Cause::Update, when, insist, &inventory)?;
            }
            Verb::Cancel => self.cancel()?,
            Verb::Rollback { digest, when, insist, proven } => {
                let target = self.rollback_target(&inventory, digest, insist, proven)?;
                self.start(&target, Cause::Rollback, when, insist, &inventory)?;
            }
            Verb::Pin(digest) => self.pin(&inventory, digest, true)?,
            Verb::Unpin(digest) => self.pin(&inventory, digest, false)?,
            Verb::Follow(channel) => self.follow(&inventory, channel)?,
            Verb::Dismiss => {
                self.state.banner = None;
                self.state.problem = None;
                self.act(Action::Announce(Notice::Changed));
            }
        }
        Ok(())
    }

    fn must_be_idle(&self) -> Result<(), OsError> {
        match &self.state.phase {
            Phase::Idle => Ok(()),
            phase => Err(OsError::Busy { doing: phase.doing() }),
        }
    }

    /// What is offered; if nothing is and the owner insists, the newest that was left out because it did not pass here.
    fn wanted(&self, insist: bool) -> Option<Release> {
        let skipped = || self.state.skipped.iter().max_by_key(|release| release.version);
        self.state.offered.as_ref().or_else(|| skipped().filter(|_| insist)).cloned()
    }

    /// Whether this release may be fetched and staged.
    fn may_take(
        &self,
        release: &Release,
        inventory: &Inventory,
        insist: bool,
    ) -> Result<(), OsError> {
        let version = release.version;
        if let Some(there) = inventory.deployment(release.digest) {
            return Err(match there.role {
                Role::Booted => OsError::AlreadyBooted { version },
                _ => OsError::AlreadyStaged { version },
            });
        }
        self.may_run(release.digest, version, insist)?;
        policy::distrust(release, inventory, self.world.unix).map_or(Ok(()), Err)
    }

    fn may_run(&self, digest: Digest, version: Version, insist: bool) -> Result<(), OsError> {
        match self.state.bad(digest) {
            Some(mark) if !insist => Err(OsError::Bad { version, reason: mark.reason.clone() }),
            _ => Ok(()),
        }
    }

    fn rollback_target(
        &self,
        inventory: &Inventory,
        digest: Option<Digest>,
        insist: bool,
        proven: bool,
    ) -> Result<Deployment, OsError> {
        let target = match digest {
            Some(digest) => inventory.deployment(digest).ok_or(OsError::UnknownDeployment)?,
            None => inventory.rollback().ok_or(OsError::NothingToGoBackTo)?,
        };
        let version = target.version;
        match target.role {
            Role::Booted => return Err(OsError::AlreadyBooted { version }),
            // It never ran: starting it is an update.
            Role::Staged => return Err(OsError::AlreadyStaged { version }),
            Role::Rollback | Role::Pinned | Role::Pristine => {}
        }
        // What is to be insisted on is told before the owner's proof is asked for.
        self.may_run(target.digest, version, insist)?;
        if version < inventory.floor && !proven {
            return Err(OsError::BelowFloor { version, floor: inventory.floor });
        }
        Ok(target.clone())
    }

    /// Plans a restart. A plan that has not begun yet gives way to the new one.
    fn start(
        &mut self,
        target: &Deployment,
        cause: Cause,
        when: When,
        insist: bool,
        inventory: &Inventory,
    ) -> Result<(), OsError> {
        if !matches!(self.state.phase, Phase::Waiting(_) | Phase::Countdown { .. }) {
            self.must_be_idle()?;
        }
        let someone = !self.world.streaming.is_empty();
        if when == When::Now && someone && !insist {
            return Err(OsError::SomeoneStreams { who: self.world.streaming.to_vec() });
        }
        let plan = Plan {
            digest: target.digest,
            version: target.version,
            cause,
            insisted: insist && when == When::Now,
            boot: inventory.boot.clone(),
        };
        let (version, how) =
            (plan.version, if when == When::Now { "now" } else { "when nobody plays" });
        self.record(What::Planned, Some(version), format!("Restart into {version} {how}."), None);
        self.state.problem = None;
        if when == When::Idle && someone {
            self.enter(Phase::Waiting(plan));
        } else {
            self.count_down(plan);
        }
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), OsError> {
        let (Phase::Waiting(plan) | Phase::Countdown { plan, .. }) = &self.state.phase else {
            return Err(OsError::NothingToCancel);
        };
        let version = plan.version;
        let sentence = format!("The restart into {version} was cancelled.");
        self.record(What::Cancelled, Some(version), sentence, None);
        self.enter(Phase::Idle);
        Ok(())
    }

    fn pin(&mut self, inventory: &Inventory, digest: Digest, pinned: bool) -> Result<(), OsError> {
        self.must_be_idle()?;
        let target = inventory.deployment(digest).ok_or(OsError::UnknownDeployment)?;
        let count = inventory.deployments.iter().filter(|one| one.pinned).count();
        if pinned && !target.pinned && count >= MAX_PINNED {
            return Err(OsError::TooManyPins { max: MAX_PINNED });
        }
        self.enter(Phase::Pinning { digest, version: target.version, pinned });
        self.act(Action::Pin(digest, pinned));
        Ok(())
    }

    fn follow(&mut self, inventory: &Inventory, channel: Channel) -> Result<(), OsError> {
        self.must_be_idle()?;
        if inventory.channel != channel {
            self.enter(Phase::Following { channel });
            self.act(Action::Follow(channel));
        }
        Ok(())
    }
}

/// What every step needs.
impl Run<'_> {
    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Tells the boot loader. What did not pass comes here only when the owner insisted on it.
    fn arrange(&mut self, digest: Digest) {
        let insist = self.state.bad(digest).is_some();
        self.act(Action::Arrange { digest, insist });
    }

    fn enter(&mut self, phase: Phase) {
        self.state.phase = phase;
        self.act(Action::Announce(Notice::Changed));
    }

    fn record(
        &mut self,
        what: What,
        version: Option<Version>,
        sentence: String,
        reason: Option<String>,
    ) {
        self.act(Action::Record(Entry { what, version, sentence, reason }));
    }

    fn told(&self, code: &str, sentence: String) -> Told {
        Told { code: code.to_owned(), sentence, at: self.world.unix }
    }

    /// Something that was being done failed.
    fn fail(&mut self, version: Version, error: &OsError) {
        let sentence = format!("Version {version}: {error}.");
        self.record(What::Failed, Some(version), sentence, Some(error.to_string()));
        self.tell_problem(error);
    }

    fn tell_problem(&mut self, error: &OsError) {
        let known =
            self.state.problem.as_ref().is_some_and(|told| told.sentence == error.to_string());
        if !known {
            self.state.problem = Some(self.told(error.code(), error.to_string()));
            self.act(Action::Announce(Notice::Changed));
        }
    }
}

/// How much of it is there, 0 to 100. Only the last byte makes it 100.
pub fn percent(done_bytes: u64, total_bytes: u64) -> u8 {
    if total_bytes == 0 || done_bytes >= total_bytes {
        return 100;
    }
    let percent = u128::from(done_bytes) * 100 / u128::from(total_bytes);
    u8::try_from(percent).unwrap_or(100)
}
