//! What the backend answers, and what follows from it.

use super::Run;
use super::percent;
use crate::os::error::OsError;
use crate::os::policy;
use crate::os::release::{Digest, Inventory, MAX_RELEASES, Release, Version};
use crate::os::state::{Action, BadMark, MAX_BAD, Notice, Phase, What};

/// So often it is told how far something is whose end nobody has said, in bytes.
const STEP_BYTES: u64 = 16 << 20;

/// What the backend answers.
impl Run<'_> {
    pub(super) fn seen(&mut self, seen: Result<Inventory, OsError>) {
        let first = self.state.inventory.is_none();
        match self.believed(seen) {
            Ok(inventory) if first => self.settle(&inventory),
            Ok(inventory) => {
                self.judge(&inventory);
            }
            // A backend that is just restarting says nothing; until it does, the owner should know why.
            Err(error) if first => self.tell_problem(&error),
            Err(_) => {}
        }
        self.notice_brought();
    }

    /// Keeps an inventory, unless it says what cannot be.
    pub(super) fn believed(
        &mut self,
        seen: Result<Inventory, OsError>,
    ) -> Result<Inventory, OsError> {
        let inventory = seen?;
        if let Some(fault) = inventory.fault() {
            let detail = fault.to_owned();
            return Err(OsError::Failed { doing: "read what is on the disk", detail });
        }
        for mark in &inventory.bad {
            if self.state.bad(mark.digest).is_none() {
                self.mark_bad(mark.clone());
            }
        }
        if self.state.inventory.as_ref() != Some(&inventory) {
            self.state.inventory = Some(inventory.clone());
            self.act(Action::Announce(Notice::Changed));
        }
        Ok(inventory)
    }

    /// Remembers what did not pass, once; the oldest is forgotten first.
    pub(super) fn mark_bad(&mut self, mark: BadMark) {
        self.state.bad.retain(|known| known.digest != mark.digest);
        if self.state.bad.len() >= MAX_BAD {
            self.state.bad.remove(0);
        }
        self.state.bad.push(mark);
    }

    pub(super) fn checked(&mut self, found: Result<Vec<Release>, OsError>) {
        if self.state.phase != Phase::Checking {
            return;
        }
        self.enter(Phase::Idle);
        match found {
            Ok(found) => self.found(found),
            Err(error) => self.check_failed(&error),
        }
    }

    pub(super) fn imported(&mut self, found: Result<Vec<Release>, OsError>) {
        if !matches!(self.state.phase, Phase::Importing { .. }) {
            return;
        }
        self.enter(Phase::Idle);
        match found {
            Ok(found) => self.found(found),
            Err(error) => {
                let sentence = format!("What was brought was not taken: {error}.");
                self.record(What::Failed, None, sentence, Some(error.to_string()));
                self.tell_problem(&error);
            }
        }
        // What it takes of the disk, only the backend knows.
        self.act(Action::Look);
    }

    /// Somebody plugged in a stick, of which the backend took what is on it: it is offered like what was checked for, unless
    /// something newer is.
    pub(super) fn notice_brought(&mut self) {
        let Some(inventory) = &self.state.inventory else { return };
        if self.state.phase != Phase::Idle || inventory.brought.is_empty() {
            return;
        }
        let brought = inventory.brought.clone();
        let choice = policy::choose(brought.clone(), inventory, &self.state.bad);
        let known = self.state.offered.as_ref().map(|release| release.version);
        let is_news = |release: &Release| {
            inventory.deployment(release.digest).is_none()
                && Some(release.version) > known
                && policy::distrust(release, inventory, self.world.unix).is_none()
        };
        if choice.offered.as_ref().is_some_and(is_news) {
            self.found(brought);
            self.act(Action::Announce(Notice::Changed));
        }
    }

    /// Chooses what is offered of what may be had.
    fn found(&mut self, mut found: Vec<Release>) {
        let Some(inventory) = self.state.inventory.clone() else { return };
        found.truncate(MAX_RELEASES);
        let found = found.into_iter().map(Release::bounded).collect();
        let choice = policy::choose(found, &inventory, &self.state.bad);
        self.state.skipped = choice.skipped;
        let distrust = |release: &Release| policy::distrust(release, &inventory, self.world.unix);
        if let Some(error) = choice.offered.as_ref().and_then(distrust) {
            self.state.offered = None;
            return self.check_failed(&error);
        }
        let (code, sentence) = match &choice.offered {
            Some(release) => ("update", format!("Version {} is there.", release.version)),
            None if self.state.skipped.is_empty() => {
                ("up-to-date", "This is the newest version.".to_owned())
            }
            None => (
                "all-bad",
                "The only newer version did not pass here before; the next one will be offered."
                    .to_owned(),
            ),
        };
        let fresh = choice.offered.as_ref().filter(|release| {
            self.state.offered.as_ref().is_none_or(|known| known.digest != release.digest)
        });
        if let Some(version) = fresh.map(|release| release.version) {
            self.record(What::Offered, Some(version), sentence.clone(), None);
        }
        self.state.offered = choice.offered;
        self.state.problem = None;
        self.state.checked = Some(self.told(code, sentence));
    }

    fn check_failed(&mut self, error: &OsError) {
        self.state.checked = Some(self.told(error.code(), error.to_string()));
        self.tell_problem(error);
    }

    pub(super) fn download(&mut self, release: Release, insist: bool, inventory: &Inventory) {
        let fetched = inventory.fetched.filter(|fetched| fetched.digest == release.digest);
        let done_bytes = fetched.map_or(0, |fetched| fetched.done_bytes);
        self.state.problem = None;
        self.enter(Phase::Downloading { release: release.clone(), done_bytes });
        self.act(Action::Download { release, insist });
    }

    pub(super) fn progress(&mut self, now_bytes: u64) {
        if let Phase::Importing { done_bytes, total_bytes } = &mut self.state.phase {
            let notice = Notice::Importing { done_bytes: now_bytes, total_bytes: *total_bytes };
            let step = |bytes: u64| match *total_bytes {
                Some(total) => u64::from(percent(bytes, total)),
                None => bytes / STEP_BYTES,
            };
            let is_news = step(now_bytes) != step(*done_bytes);
            *done_bytes = now_bytes;
            if is_news {
                self.act(Action::Announce(notice));
            }
            return;
        }
        let Phase::Downloading { release, done_bytes } = &mut self.state.phase else { return };
        let total_bytes = release.size_bytes;
        let percent = |bytes: u64| percent(bytes, total_bytes);
        let is_news = percent(now_bytes) != percent(*done_bytes);
        *done_bytes = now_bytes.min(total_bytes);
        let notice =
            Notice::Progress { version: release.version, done_bytes: *done_bytes, total_bytes };
        if is_news {
            self.act(Action::Announce(notice));
        }
    }

    pub(super) fn downloaded(&mut self, result: Result<Inventory, OsError>) {
        let Phase::Downloading { release, .. } = &self.state.phase else { return };
        let version = release.version;
        self.enter(Phase::Idle);
        match self.believed(result) {
            Ok(_) => {
                let sentence = format!("Version {version} is downloaded.");
                self.record(What::Downloaded, Some(version), sentence, None);
            }
            Err(error) => {
                self.fail(version, &error);
                // As much as came is kept; how much that is, only the backend knows.
                self.act(Action::Look);
            }
        }
    }

    pub(super) fn stage(&mut self, release: Release, insist: bool) {
        self.enter(Phase::Staging { release: release.clone() });
        self.act(Action::Stage { release, insist });
    }

    pub(super) fn staged(&mut self, result: Result<Inventory, OsError>) {
        let Phase::Staging { release } = &self.state.phase else { return };
        let version = release.version;
        self.enter(Phase::Idle);
        match self.believed(result) {
            Ok(_) => self.tell_staged(version),
            Err(error) => {
                self.fail(version, &error);
                self.act(Action::Look);
            }
        }
    }

    pub(super) fn tell_staged(&mut self, version: Version) {
        let sentence = format!("Version {version} is ready to be applied.");
        self.record(What::Staged, Some(version), sentence, None);
        self.act(Action::Announce(Notice::Staged { version }));
    }

    pub(super) fn pinned(&mut self, result: Result<Inventory, OsError>) {
        let Phase::Pinning { version, pinned, .. } = self.state.phase else { return };
        self.enter(Phase::Idle);
        match self.believed(result) {
            Ok(_) if pinned => {
                let sentence = format!("Version {version} is kept until you unpin it.");
                self.record(What::Pinned, Some(version), sentence, None);
            }
            Ok(_) => {
                let sentence = format!("Version {version} is not kept any more.");
                self.record(What::Unpinned, Some(version), sentence, None);
            }
            Err(error) => self.fail(version, &error),
        }
    }

    pub(super) fn followed(&mut self, result: Result<Inventory, OsError>) {
        let Phase::Following { channel } = self.state.phase else { return };
        self.enter(Phase::Idle);
        match self.believed(result) {
            Ok(_) => {
                self.forget_offers();
                self.state.problem = None;
                let sentence = format!("Updates come from the channel {channel} from now on.");
                self.record(What::Followed, None, sentence, None);
            }
            Err(error) => {
                let sentence = format!("Updates do not come from the channel {channel}: {error}.");
                self.record(What::Failed, None, sentence, Some(error.to_string()));
                self.tell_problem(&error);
                self.act(Action::Look);
            }
        }
    }

    /// What another channel has says nothing of this one.
    pub(super) fn forget_offers(&mut self) {
        self.state.offered = None;
        self.state.skipped.clear();
        self.state.checked = None;
    }

    pub(super) fn arranged(&mut self, digest: Digest, result: Result<(), OsError>) {
        let Phase::Arranging(plan) = &self.state.phase else {
            // The boot loader was told to stay with what runs.
            if let Err(error) = result {
                self.tell_problem(&error);
            }
            return;
        };
        if plan.digest != digest {
            return;
        }
        let plan = plan.clone();
        if let Err(error) = result {
            self.stay();
            self.enter(Phase::Idle);
            self.fail(plan.version, &error);
        } else if !plan.insisted && !self.world.streaming.is_empty() {
            // Somebody began to play in the last moment.
            self.stay();
            self.enter(Phase::Waiting(plan));
        } else {
            let version = plan.version;
            let sentence = format!("Restarting into {version}.");
            self.record(What::Restarting, Some(version), sentence, None);
            self.enter(Phase::Rebooting { plan, since: self.world.at });
            self.act(Action::Reboot);
        }
    }

    pub(super) fn restarted(&mut self, result: Result<(), OsError>) {
        let Phase::Rebooting { plan, .. } = &self.state.phase else { return };
        let version = plan.version;
        match result {
            Ok(()) => self.act(Action::Look),
            Err(error) => {
                self.stay();
                self.enter(Phase::Idle);
                self.fail(version, &error);
            }
        }
    }

    /// The next start is to be into what runs now.
    pub(super) fn stay(&mut self) {
        let booted = self.state.inventory.as_ref().and_then(Inventory::booted);
        if let Some(digest) = booted.map(|booted| booted.digest) {
            self.arrange(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use punktfunk_core::time::Timestamp;

    use super::super::step;
    use super::*;
    use crate::os::OsBackend as _;
    use crate::os::simulated::{Disk, Pace, Simulated, demonstration};
    use crate::os::{Event, OsState, Verb, World};

    fn happen(state: &mut OsState, event: Event) -> Vec<Action> {
        let world = World {
            at: Timestamp::default(),
            unix: 1_800_000_000,
            streaming: &[],
            countdown: Duration::ZERO,
        };
        let (after, actions) = step(state.clone(), event, &world);
        *state = after;
        actions
    }

    /// A system that runs, with these releases brought by a stick.
    fn seen(brought: &[Release]) -> Event {
        let save = Box::new(|_: &Disk| Ok(()));
        let system = Simulated::new(Disk::default(), demonstration(), Pace::INSTANT, save);
        let brought = brought.to_vec();
        Event::Seen(system.inventory().map(|seen| Inventory { brought, ..seen }))
    }

    fn offered(state: &OsState) -> Option<Version> {
        state.offered.as_ref().map(|release| release.version)
    }

    #[test]
    fn what_a_stick_brings_is_offered_once_unless_something_newer_is() {
        let release = demonstration().releases[0].clone();
        let version = release.version;
        let newer = Release { version: Version::new(1, 5, 9), ..release.clone() };
        let brought = std::slice::from_ref(&release);
        let told = |actions: &[Action]| {
            actions.iter().filter(|action| matches!(action, Action::Record(_))).count()
        };
        let mut state = OsState::default();
        happen(&mut state, seen(&[]));
        assert_eq!((offered(&state), state.checked.clone()), (None, None));
        assert_eq!(told(&happen(&mut state, seen(brought))), 1);
        assert_eq!(offered(&state), Some(version));
        assert!(state.checked.is_some());
        // It lies there still.
        assert_eq!(happen(&mut state, seen(brought)), []);
        // A check has found something newer, which stays.
        state.offered = Some(newer.clone());
        happen(&mut state, seen(brought));
        assert_eq!(offered(&state), Some(newer.version));
        // It was there before the daemon was; what did not pass here is not offered again.
        let mut state = OsState::default();
        happen(&mut state, seen(brought));
        assert_eq!(offered(&state), Some(version));
        let mut state = OsState::default();
        state.bad.push(BadMark { digest: release.digest, version, reason: "r".to_owned(), at: 1 });
        happen(&mut state, seen(brought));
        assert_eq!(offered(&state), None);
    }

    #[test]
    fn what_comes_without_a_length_is_told_now_and_then() {
        let mut state = OsState::default();
        happen(&mut state, seen(&[]));
        happen(&mut state, Event::Asked(Verb::Import { total_bytes: None }));
        let told =
            |state: &mut OsState, done_bytes: u64| happen(state, Event::Progress { done_bytes });
        assert_eq!(told(&mut state, STEP_BYTES - 1), []);
        let notice = Notice::Importing { done_bytes: STEP_BYTES, total_bytes: None };
        assert_eq!(told(&mut state, STEP_BYTES), [Action::Announce(notice)]);
        let refused = OsError::Signature { detail: "d".to_owned() };
        let actions = happen(&mut state, Event::Imported(Err(refused)));
        assert!(actions.contains(&Action::Look));
        assert_eq!(
            (&state.phase, state.problem.unwrap().code.as_str()),
            (&Phase::Idle, "signature")
        );
    }
}
