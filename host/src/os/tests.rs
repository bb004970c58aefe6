//! The machine under random events, and stories that must go as they are told.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::time::Duration;

use proptest::prelude::*;
use punktfunk_core::time::Timestamp;

use super::machine::{percent, step};
use super::release::{Channel, Digest, Inventory, Outcome, Release, Version};
use super::simulated::{
    Call, Disk, How, Mishap, Pace, Script, Simulated, Verdict, archive, demonstration, digest,
};
use super::state::{
    Action, BannerKind, Entry, Event, Notice, OsState, Phase, Verb, What, When, World,
};
use super::{Cancel, OsBackend, OsError};

/// A machine, a simulated system, and a clock that stands until it is moved. Work is done when the test says so.
struct Bench {
    state: OsState,
    written: String,
    jobs: VecDeque<Action>,
    system: Simulated,
    script: Script,
    streaming: Vec<String>,
    at: u64,
    unix: u64,
    history: Vec<Entry>,
    news: Vec<Notice>,
    /// Whether each restart happened while somebody played, and was insisted on.
    restarts: Vec<(bool, bool)>,
}

const NOW: u64 = 1_800_000_000;

impl Bench {
    fn new(script: Script) -> Self {
        Self::on(Disk::default(), script)
    }

    fn on(disk: Disk, script: Script) -> Self {
        let mut bench = Self {
            state: OsState::default(),
            written: String::new(),
            jobs: VecDeque::from([Action::Look]),
            system: simulated(disk, &script),
            script,
            streaming: Vec::new(),
            at: 1_000_000,
            unix: NOW,
            history: Vec::new(),
            news: Vec::new(),
            restarts: Vec::new(),
        };
        bench.write();
        bench
    }

    fn write(&mut self) {
        self.written = serde_json::to_string(&self.state).unwrap();
    }

    fn happen(&mut self, event: Event) -> Result<(), OsError> {
        let world = World {
            at: Timestamp::from_micros(self.at),
            unix: self.unix,
            streaming: &self.streaming,
            countdown: Duration::from_secs(3),
        };
        let (state, actions) = step(self.state.clone(), event, &world);
        for action in &actions {
            if let Action::Refuse(error) = action {
                assert_eq!(state, self.state, "a refusal changed something");
                assert_eq!(actions.len(), 1);
                return Err(error.clone());
            }
        }
        let insisted = state.phase.plan().is_some_and(|plan| plan.insisted);
        self.state = state;
        self.write();
        for action in actions {
            match action {
                Action::Record(entry) => self.history.push(entry),
                Action::Announce(notice) => self.news.push(notice),
                Action::Reboot => {
                    self.restarts.push((!self.streaming.is_empty(), insisted));
                    self.jobs.push_back(Action::Reboot);
                }
                // Here nothing is under way between two calls: what has not begun does not begin.
                Action::StopDownload if self.jobs.contains(&Action::Import) => {
                    self.jobs.retain(|job| *job != Action::Import);
                    let _ = self.happen(Event::Imported(Err(OsError::Stopped)));
                }
                Action::StopDownload => {
                    let download = |job: &Action| matches!(job, Action::Download { .. });
                    if self.jobs.iter().any(download) {
                        self.jobs.retain(|job| !download(job));
                        let _ = self.happen(Event::Downloaded(Err(OsError::Stopped)));
                    }
                }
                job => self.jobs.push_back(job),
            }
        }
        Ok(())
    }

    fn ask(&mut self, verb: Verb) -> Result<(), OsError> {
        self.happen(Event::Asked(verb))
    }

    /// Does the oldest piece of work.
    fn work(&mut self) -> bool {
        let Some(event) = self.work_unheard() else { return false };
        self.happen(event).unwrap();
        true
    }

    /// The same, without telling the machine what came of it.
    fn work_unheard(&mut self) -> Option<Event> {
        let job = self.jobs.pop_front()?;
        let cancel = Cancel::default();
        Some(match job {
            Action::Check => Event::Checked(self.system.check(&cancel)),
            Action::Download { release, insist } => {
                let mut progress = Vec::new();
                let mut note = |bytes| progress.push(bytes);
                let done = self.system.download(&release, insist, &mut note, &cancel);
                for done_bytes in progress {
                    self.happen(Event::Progress { done_bytes }).unwrap();
                }
                Event::Downloaded(done.and_then(|()| self.system.inventory()))
            }
            Action::Stage { release, insist } => {
                let done = self.system.stage(&release, insist, &cancel);
                Event::Staged(done.and_then(|()| self.system.inventory()))
            }
            Action::Pin(digest, pinned) => Event::Pinned(
                self.system.pin(digest, pinned).and_then(|()| self.system.inventory()),
            ),
            Action::Arrange { digest, insist } => {
                Event::Arranged { digest, result: self.system.arrange_boot(digest, insist) }
            }
            Action::Follow(channel) => {
                Event::Followed(self.system.follow(channel).and_then(|()| self.system.inventory()))
            }
            Action::Import => Event::Imported(self.system.import(given(), &cancel)),
            Action::Reboot => Event::Restarted(self.system.reboot(&cancel)),
            Action::Look => Event::Seen(self.system.inventory()),
            other => panic!("{other:?} is no work"),
        })
    }

    /// One thing more on the way from an update that nobody knows of to its verdict, which the owner has not read: work, a
    /// second that passes, or what an owner asks for next. Says whether the verdict is told.
    fn go_on(&mut self) -> bool {
        if self.work() {
            return false;
        }
        if self.state.phase != Phase::Idle {
            self.at += 1_000_000;
            self.happen(Event::Tick).unwrap();
            return false;
        }
        if self.state.banner.is_some() {
            return true;
        }
        let next = if self.seen().staged().is_some() {
            apply(When::Now, false)
        } else if self.state.offered.is_none() {
            Verb::Check
        } else if self.seen().fetched.is_some_and(|fetched| fetched.is_whole()) {
            Verb::Stage { insist: false }
        } else {
            Verb::Download { insist: false }
        };
        self.ask(next).unwrap();
        false
    }

    /// Goes on until the verdict is told; gives what went wrong on the way.
    fn go_to_the_verdict(&mut self) -> Vec<String> {
        let mut problems = Vec::new();
        for _ in 0..500 {
            if self.go_on() {
                return problems;
            }
            let told = self.state.problem.as_ref().map(|told| told.sentence.clone());
            problems.extend(told.filter(|sentence| !problems.contains(sentence)));
        }
        panic!("no verdict is told: {:?}", self.state);
    }

    fn settle(&mut self) {
        while self.work() {}
    }

    fn second(&mut self) {
        self.at += 1_000_000;
        self.happen(Event::Tick).unwrap();
        self.settle();
    }

    fn seconds(&mut self, count: usize) {
        (0..count).for_each(|_| self.second());
    }

    /// The daemon is killed; with `power`, the whole machine is.
    fn cut(&mut self, power: bool) {
        self.state = serde_json::from_str(&self.written).unwrap();
        if power {
            self.system.power_cycle().unwrap();
        }
        self.system = simulated(self.system.disk(), &self.script);
        self.jobs = VecDeque::from([Action::Look]);
    }

    fn follow(&mut self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script);
        self.system.go_by(self.script.clone());
    }

    fn staged(script: Script) -> Self {
        let mut bench = Self::new(script);
        bench.settle();
        for verb in [Verb::Check, Verb::Download { insist: false }, Verb::Stage { insist: false }] {
            bench.ask(verb).unwrap();
            bench.settle();
        }
        assert!(bench.seen().staged().is_some(), "{:?}", bench.state);
        bench
    }

    fn seen(&self) -> &Inventory {
        self.state.inventory.as_ref().unwrap()
    }

    fn running(&self) -> Version {
        self.seen().booted().unwrap().version
    }

    fn told(&self, what: What) -> usize {
        self.history.iter().filter(|entry| entry.what == what).count()
    }
}

fn simulated(disk: Disk, script: &Script) -> Simulated {
    let pace = Pace { part_bytes: 50_000_000, ..Pace::INSTANT };
    Simulated::new(disk, script.clone(), pace, Box::new(|_| Ok(())))
}

const OLD: Version = Version::new(1, 4, 2);
const GOOD: Version = Version::new(1, 5, 0);
const BROKEN: Version = Version::new(1, 6, 0);

fn apply(when: When, insist: bool) -> Verb {
    Verb::Apply { when, insist }
}

#[test]
fn an_update_waits_until_nobody_plays_and_is_told_once() {
    let mut bench = Bench::staged(demonstration());
    bench.streaming = vec!["TV".to_owned()];
    let refused = bench.ask(apply(When::Now, false)).unwrap_err();
    assert_eq!(refused, OsError::SomeoneStreams { who: vec!["TV".to_owned()] });
    bench.ask(apply(When::Idle, false)).unwrap();
    bench.seconds(20);
    assert!(matches!(bench.state.phase, Phase::Waiting(_)), "{:?}", bench.state.phase);
    bench.streaming.clear();
    bench.seconds(2);
    assert!(matches!(bench.state.phase, Phase::Countdown { .. }), "{:?}", bench.state.phase);
    // Somebody begins: it waits again, and counts anew.
    bench.streaming = vec!["Deck".to_owned()];
    bench.seconds(5);
    assert!(matches!(bench.state.phase, Phase::Waiting(_)), "{:?}", bench.state.phase);
    bench.streaming.clear();
    bench.seconds(8);
    assert_eq!((bench.running(), &bench.state.phase), (GOOD, &Phase::Idle));
    let banner = bench.state.banner.clone().unwrap();
    assert_eq!((banner.kind, banner.version, banner.checks.len()), (BannerKind::Updated, GOOD, 3));
    assert!(banner.sentence.starts_with("Updated to 1.5.0 - 3 of 3 checks passed"), "{banner:?}");
    bench.cut(false);
    bench.settle();
    assert!(bench.state.banner.is_some(), "it stays until it is dismissed");
    bench.ask(Verb::Dismiss).unwrap();
    bench.cut(true);
    bench.settle();
    assert_eq!((bench.state.banner.clone(), bench.told(What::Applied)), (None, 1));
}

/// Only the first release, which passes or does not.
fn one_release(passes: bool) -> Script {
    let mut script = demonstration();
    script.releases.truncate(1);
    if !passes {
        let fails = Verdict::Fails("the encoder failed".to_owned());
        script.verdicts.insert(script.releases[0].digest, fails);
    }
    script
}

#[test]
fn whoever_is_killed_between_any_two_steps_goes_on_and_tells_the_verdict_once() {
    for passes in [true, false] {
        let mut whole = Bench::new(one_release(passes));
        let steps = (0..).take_while(|_| !whole.go_on()).count();
        assert!(steps > 12, "a story of {steps} steps");
        for (at, power, unheard) in (0..=steps).flat_map(|at| {
            [(at, false, false), (at, true, false), (at, false, true), (at, true, true)]
        }) {
            let case = format!("passes: {passes}, step {at}, power: {power}, unheard: {unheard}");
            let mut bench = Bench::new(one_release(passes));
            (0..at).for_each(|_| {
                bench.go_on();
            });
            if unheard {
                let _lost = bench.work_unheard();
            }
            bench.cut(power);
            bench.go_to_the_verdict();
            let (what, running) =
                if passes { (What::Applied, GOOD) } else { (What::RolledBack, OLD) };
            assert_eq!((bench.told(what), bench.running()), (1, running), "{case}");
            assert_eq!(bench.told(What::Failed), 0, "{case}: {:?}", bench.history);
            let banner = bench.state.banner.as_ref().unwrap();
            assert_eq!(banner.reason.is_some(), !passes, "{case}");
            assert_eq!(bench.state.bad.len(), usize::from(!passes), "{case}");
        }
    }
}

#[test]
fn whatever_fails_is_told_with_its_reason_and_can_be_tried_again() {
    let calls = [Call::Check, Call::Download, Call::Stage, Call::ArrangeBoot, Call::Reboot];
    for call in calls {
        let mut script = one_release(true);
        let error =
            OsError::Failed { doing: "do as it was told", detail: "so says a script".to_owned() };
        script.mishaps = vec![Mishap::once(call, How::Fail(error.clone()))];
        let mut bench = Bench::new(script);
        let problems = bench.go_to_the_verdict();
        assert_eq!(problems, [error.to_string()], "{call:?}");
        assert_eq!((bench.told(What::Applied), bench.running()), (1, GOOD), "{call:?}");
        // A check that fails is no line of the history: nothing was begun.
        let failed = bench.history.iter().filter(|entry| entry.what == What::Failed);
        let reasons: Vec<_> = failed.map(|entry| entry.reason.clone().unwrap()).collect();
        let expected = if call == Call::Check { vec![] } else { vec![error.to_string()] };
        assert_eq!(reasons, expected, "{call:?}");
    }
}

#[test]
fn what_does_not_pass_is_left_told_with_its_reason_and_skipped() {
    let mut script = demonstration();
    script.verdicts.insert(digest(0x15), Verdict::Fails("encoder failed\nto start".to_owned()));
    let mut bench = Bench::staged(script);
    bench.ask(apply(When::Idle, false)).unwrap();
    bench.seconds(5);
    assert_eq!(bench.running(), OLD);
    let banner = bench.state.banner.clone().unwrap();
    assert_eq!(banner.reason.as_deref(), Some("encoder failed to start"));
    assert!(banner.sentence.contains("You are back on 1.4.2"), "{}", banner.sentence);
    let told = Notice::RolledBack {
        version: GOOD,
        running: OLD,
        reason: "encoder failed to start".to_owned(),
    };
    assert!(bench.news.contains(&told), "{:?}", bench.news);
    bench.ask(Verb::Check).unwrap();
    bench.settle();
    assert_eq!((&bench.state.offered, bench.state.skipped.len()), (&None, 1));
    assert_eq!(bench.state.checked.as_ref().unwrap().code, "all-bad");
    assert_eq!(bench.ask(Verb::Download { insist: false }), Err(OsError::NothingOffered));
}

#[test]
fn what_leaves_no_word_is_told_as_well() {
    let mut script = demonstration();
    script.verdicts.insert(digest(0x15), Verdict::NeverBoots);
    let mut bench = Bench::staged(script);
    bench.ask(apply(When::Now, false)).unwrap();
    bench.seconds(5);
    let banner = bench.state.banner.clone().unwrap();
    assert_eq!((banner.kind, bench.running()), (BannerKind::RolledBack, OLD));
    assert!(banner.reason.unwrap().contains("left no word"));
    assert!(bench.state.bad(digest(0x15)).is_some());
}

#[test]
fn what_did_not_pass_can_be_insisted_on_and_the_backend_is_told() {
    let mut bench = Bench::staged(one_release(false));
    let told = |bench: &Bench| match bench.jobs.back() {
        Some(
            Action::Download { insist, .. }
            | Action::Stage { insist, .. }
            | Action::Arrange { insist, .. },
        ) => Some(*insist),
        _ => None,
    };
    bench.ask(apply(When::Now, false)).unwrap();
    bench.at += 10_000_000;
    bench.happen(Event::Tick).unwrap();
    assert_eq!(told(&bench), Some(false));
    bench.seconds(5);
    bench.ask(Verb::Check).unwrap();
    bench.settle();
    assert_eq!(bench.ask(Verb::Download { insist: false }), Err(OsError::NothingOffered));
    bench.ask(Verb::Download { insist: true }).unwrap();
    assert_eq!(told(&bench), Some(true));
    // Whoever takes it up again does so, too.
    bench.cut(false);
    bench.work();
    assert_eq!(told(&bench), Some(true));
    bench.settle();
    assert_eq!(bench.ask(Verb::Stage { insist: false }), Err(OsError::NothingDownloaded));
    bench.ask(Verb::Stage { insist: true }).unwrap();
    bench.cut(false);
    bench.work();
    assert_eq!(told(&bench), Some(true));
    bench.settle();
    bench.ask(apply(When::Now, false)).unwrap();
    bench.at += 10_000_000;
    bench.happen(Event::Tick).unwrap();
    assert_eq!(told(&bench), Some(true));
}

#[test]
fn what_one_channel_offers_is_forgotten_in_another() {
    let mut bench = Bench::new(demonstration());
    bench.settle();
    bench.ask(Verb::Check).unwrap();
    bench.settle();
    // Where nothing is to be done nothing is.
    bench.ask(Verb::Follow(Channel::Stable)).unwrap();
    assert!(bench.jobs.is_empty() && bench.state.offered.is_some());
    let error = OsError::Failed { doing: "do it", detail: "as the script says".to_owned() };
    let how = How::Fail(error.clone());
    bench.follow(|script| script.mishaps = vec![Mishap::once(Call::Follow, how)]);
    bench.ask(Verb::Follow(Channel::Next)).unwrap();
    bench.settle();
    assert_eq!((bench.seen().channel, bench.told(What::Failed)), (Channel::Stable, 1));
    assert_eq!(bench.state.problem.as_ref().unwrap().sentence, error.to_string());
    assert!(bench.state.offered.is_some());
    bench.ask(Verb::Follow(Channel::Next)).unwrap();
    let busy = OsError::Busy { doing: "changing where updates come from" };
    assert_eq!(bench.ask(Verb::Check), Err(busy));
    bench.settle();
    assert_eq!((bench.seen().channel, bench.told(What::Followed)), (Channel::Next, 1));
    let (state, idle) = (&bench.state, Phase::Idle);
    assert_eq!(
        (&state.offered, &state.checked, &state.problem, &state.phase),
        (&None, &None, &None, &idle)
    );
    // Cut before it was heard: it may be so or not, and neither's offers hold.
    bench.ask(Verb::Check).unwrap();
    bench.settle();
    bench.ask(Verb::Follow(Channel::Stable)).unwrap();
    let _lost = bench.work_unheard();
    bench.cut(false);
    bench.settle();
    assert_eq!((bench.seen().channel, &bench.state.offered), (Channel::Stable, &None));
    assert_eq!(bench.state.phase, Phase::Idle);
}

#[test]
fn the_owner_goes_back_and_forth() {
    let mut bench = Bench::staged(demonstration());
    bench.ask(apply(When::Idle, false)).unwrap();
    bench.seconds(5);
    bench
        .ask(Verb::Rollback { digest: None, when: When::Idle, insist: false, proven: false })
        .unwrap();
    bench.ask(Verb::Cancel).unwrap();
    assert_eq!(bench.ask(Verb::Cancel), Err(OsError::NothingToCancel));
    bench
        .ask(Verb::Rollback { digest: None, when: When::Now, insist: false, proven: false })
        .unwrap();
    bench.seconds(5);
    assert_eq!((bench.running(), bench.told(What::WentBack)), (OLD, 1));
    assert_eq!(bench.state.banner.clone().unwrap().kind, BannerKind::WentBack);
    assert_eq!(bench.seen().rollback().unwrap().version, GOOD);
}

#[test]
fn whoever_begins_in_the_last_moment_is_not_cut_off() {
    let mut bench = Bench::staged(demonstration());
    bench.ask(apply(When::Idle, false)).unwrap();
    bench.at += 10_000_000;
    bench.happen(Event::Tick).unwrap();
    assert!(matches!(bench.state.phase, Phase::Arranging(_)));
    bench.streaming = vec!["TV".to_owned()];
    bench.settle();
    assert!(matches!(bench.state.phase, Phase::Waiting(_)), "{:?}", bench.state.phase);
    assert_eq!((bench.system.disk().next, bench.restarts.len()), (None, 0));
    assert_eq!(bench.ask(apply(When::Now, true)), Ok(()));
    bench.seconds(5);
    assert_eq!((bench.restarts.as_slice(), bench.running()), ([(true, true)].as_slice(), GOOD));
}

/// Each refusal comes before a byte is written, and is a sentence.
#[test]
fn what_must_not_be_installed_is_refused_before_anything_is_written() {
    let check = |change: fn(&mut Disk, &mut Release), unix: u64, code: &str| {
        let (mut disk, mut script) = (Disk::default(), demonstration());
        change(&mut disk, &mut script.releases[0]);
        let mut bench = Bench::on(disk.clone(), script);
        bench.unix = unix;
        bench.settle();
        bench.ask(Verb::Check).unwrap();
        bench.settle();
        let told = match bench.ask(Verb::Download { insist: false }) {
            Err(OsError::NothingOffered) => bench.state.problem.clone().unwrap(),
            Err(error) => {
                super::Told { code: error.code().to_owned(), sentence: error.to_string(), at: 0 }
            }
            Ok(()) => panic!("{code} was not refused"),
        };
        assert_eq!(told.code, code, "{}", told.sentence);
        assert!(told.sentence.contains("streaming goes on"), "{}", told.sentence);
        assert_eq!(bench.system.disk(), disk);
    };
    let needed = |disk: &mut Disk, release: &mut Release| {
        disk.free_bytes = release.size_bytes * 12 / 10 - 1;
    };
    check(needed, NOW, "no-space");
    check(|_, release| release.size_bytes = u64::MAX, NOW, "no-space");
    check(|_, release| release.expires_at = NOW, NOW, "expired");
    check(|_, release| release.made_at = NOW + 1, NOW, "clock-behind");
    check(|_, _| {}, 1_000, "clock-behind");
    check(|disk, _| disk.floor = Version::new(1, 5, 1), NOW, "downgrade");
}

#[test]
fn just_enough_room_is_enough_and_what_is_there_counts() {
    let (mut disk, script) = (Disk::default(), demonstration());
    let needed = script.releases[0].size_bytes * 12 / 10;
    disk.free_bytes = needed;
    let mut bench = Bench::on(disk, script);
    bench.settle();
    bench.ask(Verb::Check).unwrap();
    bench.settle();
    assert_eq!(bench.ask(Verb::Download { insist: false }), Ok(()));
}

#[test]
fn a_download_that_breaks_is_told_and_goes_on_from_there() {
    let mut bench = Bench::new(demonstration());
    bench.settle();
    bench.ask(Verb::Check).unwrap();
    bench.settle();
    let detail = "the connection was closed".to_owned();
    let how = How::Fail(OsError::Unreachable { detail });
    bench.follow(|script| {
        let mishap = Mishap::once(Call::Download, how);
        script.mishaps = vec![Mishap { after_bytes: 100_000_000, ..mishap }];
    });
    bench.ask(Verb::Download { insist: false }).unwrap();
    bench.settle();
    assert_eq!(bench.state.problem.as_ref().unwrap().code, "unreachable");
    assert_eq!(bench.seen().fetched.unwrap().done_bytes, 100_000_000);
    assert_eq!(bench.ask(Verb::Stage { insist: false }), Err(OsError::NothingDownloaded));
    bench.ask(Verb::Download { insist: false }).unwrap();
    let Phase::Downloading { done_bytes, .. } = bench.state.phase else { panic!() };
    assert_eq!((done_bytes, &bench.state.problem), (100_000_000, &None));
    bench.settle();
    assert!(bench.seen().fetched.unwrap().is_whole());
}

#[test]
fn only_the_last_byte_makes_it_a_hundred_percent() {
    assert_eq!((percent(0, 10), percent(999, 1000), percent(1000, 1000)), (0, 99, 100));
    assert_eq!((percent(0, 0), percent(u64::MAX - 1, u64::MAX)), (100, 99));
}

#[test]
fn at_most_two_versions_are_pinned() {
    let mut bench = Bench::staged(demonstration());
    let digests: Vec<Digest> = bench.seen().deployments.iter().map(|one| one.digest).collect();
    assert_eq!(digests.len(), 3);
    for digest in &digests[..2] {
        bench.ask(Verb::Pin(*digest)).unwrap();
        bench.settle();
    }
    assert_eq!(bench.ask(Verb::Pin(digests[2])), Err(OsError::TooManyPins { max: 2 }));
    bench.ask(Verb::Unpin(digests[0])).unwrap();
    bench.settle();
    bench.ask(Verb::Pin(digests[2])).unwrap();
    assert_eq!(
        bench.ask(Verb::Pin(Digest([9; 32]))),
        Err(OsError::Busy { doing: "pinning a version" })
    );
    bench.settle();
    assert_eq!((bench.told(What::Pinned), bench.told(What::Unpinned)), (3, 1));
}

#[test]
fn nothing_below_the_floor_without_a_proof() {
    let disk = Disk { floor: Version::new(1, 4, 2), ..Disk::default() };
    let mut bench = Bench::on(disk, demonstration());
    bench.settle();
    let back = |proven| Verb::Rollback { digest: None, when: When::Now, insist: true, proven };
    let refused = bench.ask(back(false));
    assert_eq!(refused.unwrap_err().code(), "needs-owner-proof");
    bench.ask(back(true)).unwrap();
}

#[test]
fn a_restart_that_does_not_come_is_given_up_and_taken_back() {
    let mut bench = Bench::staged(demonstration());
    bench.ask(apply(When::Now, false)).unwrap();
    bench.at += 10_000_000;
    bench.happen(Event::Tick).unwrap();
    bench.work();
    assert!(matches!(bench.state.phase, Phase::Rebooting { .. }));
    // The system said yes, and lives on.
    bench.jobs.clear();
    bench.happen(Event::Restarted(Ok(()))).unwrap();
    bench.seconds(299);
    assert!(matches!(bench.state.phase, Phase::Rebooting { .. }));
    bench.seconds(2);
    assert_eq!((&bench.state.phase, bench.system.disk().next), (&Phase::Idle, None));
    assert_eq!(bench.state.problem.as_ref().unwrap().code, "failed");
}

#[test]
fn a_backend_that_talks_nonsense_is_not_believed() {
    let mut bench = Bench::new(demonstration());
    let mut nonsense = bench.system.inventory().unwrap();
    nonsense.deployments.clear();
    bench.jobs.clear();
    bench.happen(Event::Seen(Ok(nonsense))).unwrap();
    assert_eq!(bench.state.problem.as_ref().unwrap().code, "failed");
    assert_eq!(bench.ask(Verb::Check), Err(OsError::NotReady));
    bench.second();
    assert_eq!((bench.state.problem.clone(), bench.ask(Verb::Check)), (None, Ok(())));
}

/// What somebody brings.
fn given() -> OwnedFd {
    let (from, mut to) = std::io::pipe().unwrap();
    to.write_all(&archive(Version::new(1, 5, 0), 9)).unwrap();
    from.into()
}

#[derive(Debug, Clone)]
enum Op {
    Ask(Verb),
    Work,
    Seconds(u8),
    Play(bool),
    CutDaemon,
    CutPower,
    Break(Call),
}

fn verbs() -> impl Strategy<Value = Verb> {
    let when = prop_oneof![Just(When::Idle), Just(When::Now)];
    let which = prop_oneof![Just(0x41_u8), Just(0x42), Just(0x15), Just(0x16)].prop_map(digest);
    let insist = prop::bool::weighted(0.2);
    prop_oneof![
        3 => Just(Verb::Check),
        3 => insist.prop_map(|insist| Verb::Download { insist }),
        3 => insist.prop_map(|insist| Verb::Stage { insist }),
        5 => (when.clone(), insist).prop_map(|(when, insist)| Verb::Apply { when, insist }),
        2 => (proptest::option::of(which.clone()), when, insist)
            .prop_map(|(digest, when, insist)| Verb::Rollback {
                digest,
                when,
                insist,
                proven: false,
            }),
        1 => Just(Verb::Import { total_bytes: Some(25) }),
        1 => Just(Verb::StopDownload),
        1 => Just(Verb::Cancel),
        1 => which.clone().prop_map(Verb::Pin),
        1 => which.prop_map(Verb::Unpin),
        1 => prop_oneof![Just(Channel::Stable), Just(Channel::Next)].prop_map(Verb::Follow),
        1 => Just(Verb::Dismiss),
    ]
}

fn ops() -> impl Strategy<Value = Op> {
    let calls = prop_oneof![
        Just(Call::Check),
        Just(Call::Import),
        Just(Call::Download),
        Just(Call::Stage),
        Just(Call::ArrangeBoot),
        Just(Call::Reboot),
        Just(Call::Pin),
        Just(Call::Follow),
        Just(Call::Inventory),
    ];
    prop_oneof![
        10 => verbs().prop_map(Op::Ask),
        12 => Just(Op::Work),
        6 => (1_u8..6).prop_map(Op::Seconds),
        2 => any::<bool>().prop_map(Op::Play),
        1 => Just(Op::CutDaemon),
        1 => Just(Op::CutPower),
        1 => calls.prop_map(Op::Break),
    ]
}

/// What must hold at every moment.
fn check_invariants(bench: &Bench, insisted: bool) {
    if let Some(inventory) = &bench.state.inventory {
        assert_eq!(inventory.fault(), None);
        assert!(inventory.deployments.iter().filter(|one| one.pinned).count() <= 2);
    }
    for (someone_played, insisted) in &bench.restarts {
        assert!(!someone_played || *insisted, "somebody was cut off");
    }
    let disk = bench.system.disk();
    let bad = disk.staged.and_then(|digest| bench.state.bad(digest));
    assert!(bad.is_none() || insisted, "a bad digest was staged by itself");
    // Whatever happens now, the next start finds something sensible.
    let state: OsState = serde_json::from_str(&bench.written).unwrap();
    let unharmed = Script { mishaps: Vec::new(), ..bench.script.clone() };
    let backend = simulated(disk, &unharmed);
    let world = World {
        at: Timestamp::from_micros(bench.at),
        unix: bench.unix,
        streaming: &[],
        countdown: Duration::from_secs(3),
    };
    let (state, _) = step(state, Event::Seen(backend.inventory()), &world);
    assert!(
        !matches!(
            state.phase,
            Phase::Checking
                | Phase::Importing { .. }
                | Phase::Pinning { .. }
                | Phase::Following { .. }
                | Phase::Arranging(_)
                | Phase::Rebooting { .. }
                | Phase::Countdown { .. }
        ),
        "{:?}",
        state.phase
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_nobody_is_cut_off_and_a_system_runs(ops in prop::collection::vec(ops(), 1..80)) {
        let mut bench = Bench::new(demonstration());
        let mut insisted = false;
        for op in ops {
            match op {
                Op::Ask(verb) => {
                    insisted |= matches!(verb, Verb::Download { insist: true } | Verb::Stage { insist: true });
                    // A refusal is an answer.
                    let _ = bench.ask(verb);
                }
                Op::Work => { bench.work(); }
                Op::Seconds(count) => {
                    bench.at += u64::from(count) * 1_000_000;
                    bench.happen(Event::Tick).unwrap();
                }
                Op::Play(plays) => bench.streaming = if plays { vec!["TV".to_owned()] } else { vec![] },
                Op::CutDaemon => bench.cut(false),
                Op::CutPower => bench.cut(true),
                Op::Break(call) => bench.follow(|script| {
                    let detail = "as the script says".to_owned();
                    let how = How::Fail(OsError::Failed { doing: "do it", detail });
                    script.mishaps = vec![Mishap::once(call, how)];
                }),
            }
            check_invariants(&bench, insisted);
        }
        // And in the end it always comes to rest, where it can be used.
        bench.follow(|script| script.mishaps.clear());
        bench.streaming.clear();
        for _ in 0..20 {
            bench.second();
        }
        prop_assert_eq!(&bench.state.phase, &Phase::Idle);
        let attempt = bench.seen().attempt.clone();
        let told = bench.state.told_attempt;
        prop_assert!(attempt.is_none_or(|one| one.outcome != Outcome::Pending && Some(one.number) == told));
        prop_assert!(bench.running() != BROKEN, "it does not pass and yet runs");
    }
}
