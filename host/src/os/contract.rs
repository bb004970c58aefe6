//! What every backend must do. A backend is brought in as a [`Bench`]; each check begins on a fresh one.

use std::io::Write as _;
use std::sync::{Arc, Mutex};

use punktfunk_update_rig::{Outcome as Turns, Rig};

use super::absent::Absent;
use super::appliance::{Appliance, Bus};
use super::release::{Attempt, Channel, Deployment, Digest, Inventory, Outcome, Release, Role};
use super::simulated::{Call, Disk, How, Mishap, Pace, Script, Simulated, Verdict, demonstration};
use super::{Cancel, OsBackend, OsError, Power, PowerError, PowerVerb, Presence};

/// A machine on which a backend is tried.
trait Bench {
    /// A fresh one, with a version that runs and one to go back to. Of the two releases that can be had in turn, the
    /// first passes and the second, which needs the first, does not.
    fn fresh() -> Self;
    /// The backend.
    fn backend(&self) -> &dyn OsBackend;
    /// Power is lost, and comes back; the backend is asked anew.
    fn power_cycle(&mut self);
    /// A file with the first release, as somebody brings it.
    fn archive(&self) -> Vec<u8>;
    /// The next download stands still at about half of the release, until it is cancelled.
    fn stall_download(&mut self, release: &Release);
}

struct SimulatedBench {
    backend: Simulated,
    script: Script,
}

impl SimulatedBench {
    fn open(disk: Disk, script: Script) -> Self {
        let pace = Pace { part_bytes: 1_000_000, ..Pace::INSTANT };
        let backend = Simulated::new(disk, script.clone(), pace, Box::new(|_| Ok(())));
        Self { backend, script }
    }
}

impl Bench for SimulatedBench {
    fn fresh() -> Self {
        Self::open(Disk::default(), demonstration())
    }

    fn backend(&self) -> &dyn OsBackend {
        &self.backend
    }

    fn power_cycle(&mut self) {
        self.backend.power_cycle().unwrap();
        *self = Self::open(self.backend.disk(), self.script.clone());
    }

    fn archive(&self) -> Vec<u8> {
        super::simulated::archive(self.script.releases[0].version, 100_000)
    }

    fn stall_download(&mut self, release: &Release) {
        let mishap = Mishap::once(Call::Download, How::Stall);
        let mishaps = vec![Mishap { after_bytes: release.size_bytes / 2, ..mishap }];
        self.backend.go_by(Script { mishaps, ..self.script.clone() });
    }
}

/// A box in a folder: root's own programs, OSTree and a registry. Its switch is the rig's.
struct ApplianceBench {
    backend: Appliance,
    rig: Arc<Mutex<Rig>>,
    first: punktfunk_update::name::Commit,
}

impl ApplianceBench {
    fn open(rig: Arc<Mutex<Rig>>, first: punktfunk_update::name::Commit) -> Self {
        let backend = {
            let rig_now = rig.lock().unwrap();
            let power = Arc::new(RigPower(Arc::clone(&rig)));
            Appliance::at(&rig_now.run_folder(), Bus::at(rig_now.bus()), power)
        };
        Self { backend, rig, first }
    }
}

impl Bench for ApplianceBench {
    fn fresh() -> Self {
        let mut rig = Rig::new();
        let version = punktfunk_update::name::Version::new;
        let first = rig.publish(version(1, 5, 0), version(1, 4, 0), Turns::Passes);
        rig.publish(version(1, 6, 0), version(1, 5, 0), Turns::Fails("no encoder"));
        Self::open(Arc::new(Mutex::new(rig)), first)
    }

    fn backend(&self) -> &dyn OsBackend {
        &self.backend
    }

    fn power_cycle(&mut self) {
        {
            let mut rig = self.rig.lock().unwrap();
            rig.go_on();
            rig.boot();
        }
        *self = Self::open(Arc::clone(&self.rig), self.first);
    }

    fn archive(&self) -> Vec<u8> {
        let rig = self.rig.lock().unwrap();
        let path = rig.archive_of(punktfunk_update::name::Channel::Stable, self.first);
        std::fs::read(path).unwrap()
    }

    fn stall_download(&mut self, release: &Release) {
        // Past the half, so that it is told.
        self.rig.lock().unwrap().stall_after(release.size_bytes * 6 / 10);
    }
}

/// The switch of a box in a folder.
struct RigPower(Arc<Mutex<Rig>>);

impl Power for RigPower {
    fn unable(&self, _verb: PowerVerb) -> Option<String> {
        None
    }

    fn switch(&self, verb: PowerVerb) -> Result<(), PowerError> {
        assert_eq!(verb, PowerVerb::Restart);
        self.0.lock().unwrap().boot();
        Ok(())
    }
}

fn seen(bench: &impl Bench) -> Inventory {
    let inventory = bench.backend().inventory().unwrap();
    assert_eq!(inventory.fault(), None, "{inventory:?}");
    inventory
}

/// The verdict, once it is there.
fn judged(bench: &impl Bench) -> Attempt {
    for _ in 0..600 {
        let attempt = seen(bench).attempt.unwrap();
        if attempt.outcome != Outcome::Pending {
            return attempt;
        }
        Cancel::default().wait(std::time::Duration::from_millis(100));
    }
    panic!("no verdict came")
}

fn booted(bench: &impl Bench) -> Deployment {
    seen(bench).booted().unwrap().clone()
}

fn release(bench: &impl Bench, at: usize) -> Release {
    let mut releases = bench.backend().check(&Cancel::default()).unwrap();
    releases.sort_by_key(|release| release.version);
    releases.swap_remove(at)
}

fn download(bench: &impl Bench, release: &Release) -> Vec<u64> {
    let mut progress = Vec::new();
    let mut note = |bytes| progress.push(bytes);
    bench.backend().download(release, false, &mut note, &Cancel::default()).unwrap();
    progress
}

fn staged(bench: &impl Bench, at: usize) -> Release {
    let release = release(bench, at);
    download(bench, &release);
    bench.backend().stage(&release, false, &Cancel::default()).unwrap();
    release
}

fn start(bench: &impl Bench, digest: Digest) -> Attempt {
    bench.backend().arrange_boot(digest, false).unwrap();
    bench.backend().reboot(&Cancel::default()).unwrap();
    judged(bench)
}

fn what_is_seen_is_the_same_until_something_happens<B: Bench>() {
    let mut bench = B::fresh();
    assert_eq!(bench.backend().presence(), bench.backend().presence());
    let before = seen(&bench);
    assert!(before.rollback().is_some() && before.staged().is_none());
    assert_eq!((seen(&bench), bench.backend().is_stale()), (before.clone(), false));
    bench.power_cycle();
    let after = seen(&bench);
    assert_ne!(after.boot, before.boot);
    assert_eq!((after.deployments, after.attempt), (before.deployments, before.attempt));
}

fn an_update_is_had_staged_and_started<B: Bench>() {
    let bench = B::fresh();
    let before = seen(&bench);
    let release = release(&bench, 0);
    assert!(release.version > before.booted().unwrap().version);
    let progress = download(&bench, &release);
    assert!(progress.windows(2).all(|two| two[0] <= two[1]), "{progress:?}");
    assert_eq!(progress.last(), Some(&release.size_bytes));
    assert!(seen(&bench).fetched.unwrap().is_whole());
    bench.backend().stage(&release, false, &Cancel::default()).unwrap();
    let after = seen(&bench);
    assert_eq!(after.staged().map(|one| one.digest), Some(release.digest));
    assert_eq!((after.booted(), &after.boot), (before.booted(), &before.boot));
    // Again is no harm.
    bench.backend().stage(&release, false, &Cancel::default()).unwrap();
    let attempt = start(&bench, release.digest);
    let Outcome::Passed { checks } = &attempt.outcome else { panic!("{attempt:?}") };
    assert!(!checks.is_empty() && checks.iter().all(|check| check.passed));
    let now = seen(&bench);
    assert_ne!(now.boot, before.boot);
    assert_eq!(now.booted().unwrap().digest, release.digest);
    assert_eq!(now.rollback().unwrap().digest, before.booted().unwrap().digest);
    assert_eq!(now.staged(), None);
    assert_eq!(attempt.from, before.booted().unwrap().version);
}

fn what_does_not_pass_is_left_again<B: Bench>() {
    let bench = B::fresh();
    let first = staged(&bench, 0);
    let passed = start(&bench, first.digest);
    let second = staged(&bench, 1);
    let attempt = start(&bench, second.digest);
    let Outcome::Failed { reason, checks, .. } = &attempt.outcome else { panic!("{attempt:?}") };
    assert!(!reason.is_empty() && checks.iter().any(|check| !check.passed));
    assert!(attempt.number > passed.number);
    assert_eq!(booted(&bench).digest, first.digest);
    assert_eq!(seen(&bench).staged(), None);
}

/// What a backend makes of these bytes, which come through a pipe.
fn import(bench: &impl Bench, bytes: &[u8], cancel: &Cancel) -> Result<Vec<Release>, OsError> {
    let (from, mut to) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        // Nobody need read to the end.
        scope.spawn(move || drop(to.write_all(bytes)));
        bench.backend().import(from.into(), cancel)
    })
}

fn what_is_brought_is_as_good_as_what_is_fetched<B: Bench>() {
    let bench = B::fresh();
    let brought = import(&bench, &bench.archive(), &Cancel::default()).unwrap();
    // What is stated and not in it cannot be had without a network.
    assert_eq!(brought.len(), 1);
    assert_eq!(brought[0], release(&bench, 0));
    assert_eq!(download(&bench, &brought[0]).last(), Some(&brought[0].size_bytes));
    bench.backend().stage(&brought[0], false, &Cancel::default()).unwrap();
    assert!(matches!(start(&bench, brought[0].digest).outcome, Outcome::Passed { .. }));
    assert_eq!(seen(&bench).brought, []);
}

fn what_is_brought_and_cut_or_not_to_be_trusted_changes_nothing<B: Bench>() {
    let bench = B::fresh();
    let (good, before) = (bench.archive(), seen(&bench));
    let about = good.windows(5).position(|bytes| bytes == b"1.5.0").unwrap();
    let mut forged = good.clone();
    forged[about + 2] = b'9';
    let cut = [0, 1, 9, 600, good.len() / 2, good.len() - 512, good.len() - 1];
    let cut = cut.map(|length| ("content", good[..length].to_vec()));
    let more = [good.as_slice(), b"x"].concat();
    let wrong = [("signature", forged), ("content", b"nothing".repeat(200)), ("content", more)];
    for (code, bytes) in cut.into_iter().chain(wrong) {
        let refused = import(&bench, &bytes, &Cancel::default()).unwrap_err();
        assert_eq!(refused.code(), code, "{} bytes: {refused}", bytes.len());
        let after = seen(&bench);
        assert_eq!((after.fetched, &after.brought), (None, &before.brought));
    }
    // And it is none the worse for it.
    assert_eq!(import(&bench, &good, &Cancel::default()).unwrap().len(), 1);
}

fn what_is_brought_and_stops_can_be_cancelled<B: Bench>() {
    let bench = B::fresh();
    let bytes = bench.archive();
    let (from, mut to) = std::io::pipe().unwrap();
    let cancel = Cancel::default();
    std::thread::scope(|scope| {
        let backend = bench.backend();
        let taken = scope.spawn(|| backend.import(from.into(), &cancel));
        // More than a pipe holds: when it is written, somebody reads.
        to.write_all(&bytes[..bytes.len() - 10_000]).unwrap();
        cancel.cancel();
        assert_eq!(taken.join().unwrap(), Err(OsError::Stopped));
    });
    drop(to);
    assert_eq!(import(&bench, &bytes, &cancel), Err(OsError::Stopped), "it was cancelled before");
    assert_eq!(seen(&bench).brought, []);
    assert_eq!(import(&bench, &bytes, &Cancel::default()).unwrap().len(), 1);
}

fn one_goes_back_by_the_same_way<B: Bench>() {
    let bench = B::fresh();
    let before = booted(&bench);
    let first = staged(&bench, 0);
    start(&bench, first.digest);
    let attempt = start(&bench, before.digest);
    assert!(matches!(attempt.outcome, Outcome::Passed { .. }), "{attempt:?}");
    assert_eq!((booted(&bench).digest, attempt.from), (before.digest, first.version));
    assert_eq!(seen(&bench).rollback().unwrap().digest, first.digest);
}

fn a_download_that_is_cancelled_goes_on_from_there<B: Bench>() {
    let mut bench = B::fresh();
    let release = release(&bench, 0);
    bench.stall_download(&release);
    let cancel = Cancel::default();
    let mut last = 0;
    let mut note = |bytes| {
        last = bytes;
        if bytes >= release.size_bytes / 2 {
            cancel.cancel();
        }
    };
    let result = bench.backend().download(&release, false, &mut note, &cancel);
    assert_eq!(result, Err(OsError::Stopped));
    let fetched = seen(&bench).fetched.unwrap();
    assert_eq!((fetched.digest, fetched.is_whole()), (release.digest, false));
    let result = bench.backend().stage(&release, false, &Cancel::default());
    assert!(result.is_err(), "half of a system was staged");
    bench.power_cycle();
    let progress = download(&bench, &release);
    assert!(progress[0] > 0 && progress[0] <= last, "it began at {} of {last}", progress[0]);
}

fn whoever_is_cancelled_beforehand_does_nothing<B: Bench>() {
    let bench = B::fresh();
    let release = release(&bench, 0);
    let cancel = Cancel::default();
    cancel.cancel();
    assert_eq!(bench.backend().check(&cancel), Err(OsError::Stopped));
    let result = bench.backend().download(&release, false, &mut |_| {}, &cancel);
    assert_eq!(result, Err(OsError::Stopped));
    assert!(seen(&bench).fetched.is_none_or(|fetched| !fetched.is_whole()));
}

fn a_loss_of_power_leaves_a_system_that_runs<B: Bench>() {
    let mut bench = B::fresh();
    let before = booted(&bench);
    let release = staged(&bench, 0);
    bench.power_cycle();
    assert_eq!(booted(&bench), before);
    assert_eq!(seen(&bench).staged().unwrap().digest, release.digest);
    // Arranged and not restarted: the loss of power is the restart.
    bench.backend().arrange_boot(release.digest, false).unwrap();
    bench.power_cycle();
    assert!(matches!(judged(&bench).outcome, Outcome::Passed { .. }));
    assert_eq!(booted(&bench).digest, release.digest);
}

fn an_arranged_start_can_be_taken_back<B: Bench>() {
    let mut bench = B::fresh();
    let before = booted(&bench);
    let release = staged(&bench, 0);
    bench.backend().arrange_boot(release.digest, false).unwrap();
    bench.backend().arrange_boot(before.digest, false).unwrap();
    bench.power_cycle();
    assert_eq!(booted(&bench), before);
    assert_eq!(seen(&bench).attempt, None);
}

fn what_is_pinned_stays<B: Bench>() {
    let bench = B::fresh();
    let old = seen(&bench).rollback().unwrap().digest;
    bench.backend().pin(old, true).unwrap();
    start(&bench, staged(&bench, 0).digest);
    let kept = seen(&bench).deployment(old).unwrap().clone();
    assert_eq!((kept.role, kept.pinned), (Role::Pinned, true));
    bench.backend().pin(old, false).unwrap();
    assert_eq!(seen(&bench).deployment(old), None);
}

fn what_is_not_there_is_refused<B: Bench>() {
    let bench = B::fresh();
    let nothing = Digest([0xEE; 32]);
    assert_eq!(bench.backend().arrange_boot(nothing, false), Err(OsError::UnknownDeployment));
    assert_eq!(bench.backend().pin(nothing, true), Err(OsError::UnknownDeployment));
    let release = release(&bench, 0);
    let staged = bench.backend().stage(&release, false, &Cancel::default());
    assert_eq!(staged, Err(OsError::NothingDownloaded));
}

fn what_is_followed_is_followed_until_another_is<B: Bench>() {
    let mut bench = B::fresh();
    let before = seen(&bench);
    assert_eq!(before.channel, Channel::Stable);
    bench.backend().follow(Channel::Next).unwrap();
    let now = seen(&bench);
    assert_eq!((now.channel, &now.deployments), (Channel::Next, &before.deployments));
    bench.power_cycle();
    assert_eq!(seen(&bench).channel, Channel::Next);
    bench.backend().follow(Channel::Stable).unwrap();
    assert_eq!(seen(&bench).channel, Channel::Stable);
    assert_eq!(release(&bench, 0).channel, Channel::Stable);
}

macro_rules! contract {
    ($backend:ident: $bench:ident $(, ignored $why:literal)?; [$($check:ident),+ $(,)?]) => {
        mod $backend {
            contract!(@ $bench [$($why)?] $($check)+);
        }
    };
    (@ $bench:ident $why:tt $($check:ident)+) => {
        $(contract!(@@ $bench $why $check);)+
    };
    (@@ $bench:ident [] $check:ident) => {
        #[test]
        fn $check() {
            super::$check::<super::$bench>();
        }
    };
    (@@ $bench:ident [$why:literal] $check:ident) => {
        #[test]
        #[ignore = $why]
        fn $check() {
            super::$check::<super::$bench>();
        }
    };
}

contract!(appliance: ApplianceBench, ignored "needs root and ostree"; [
    what_is_seen_is_the_same_until_something_happens,
    an_update_is_had_staged_and_started,
    what_does_not_pass_is_left_again,
    what_is_brought_is_as_good_as_what_is_fetched,
    what_is_brought_and_cut_or_not_to_be_trusted_changes_nothing,
    what_is_brought_and_stops_can_be_cancelled,
    one_goes_back_by_the_same_way,
    a_download_that_is_cancelled_goes_on_from_there,
    whoever_is_cancelled_beforehand_does_nothing,
    a_loss_of_power_leaves_a_system_that_runs,
    an_arranged_start_can_be_taken_back,
    what_is_pinned_stays,
    what_is_not_there_is_refused,
    what_is_followed_is_followed_until_another_is,
]);

contract!(simulated: SimulatedBench; [
    what_is_seen_is_the_same_until_something_happens,
    an_update_is_had_staged_and_started,
    what_does_not_pass_is_left_again,
    what_is_brought_is_as_good_as_what_is_fetched,
    what_is_brought_and_cut_or_not_to_be_trusted_changes_nothing,
    what_is_brought_and_stops_can_be_cancelled,
    one_goes_back_by_the_same_way,
    a_download_that_is_cancelled_goes_on_from_there,
    whoever_is_cancelled_beforehand_does_nothing,
    a_loss_of_power_leaves_a_system_that_runs,
    an_arranged_start_can_be_taken_back,
    what_is_pinned_stays,
    what_is_not_there_is_refused,
    what_is_followed_is_followed_until_another_is,
]);

/// Where there is no system of ours, every call says why, and nothing else can be asked of it.
#[test]
fn what_is_no_system_of_ours_refuses_everything_with_its_reason() {
    let desk = ["not an appliance", "--demo"];
    let boxed = ["this box", "streaming goes on"];
    for (absent, says) in [(Absent::default(), desk), (Absent::on_an_appliance(), boxed)] {
        let Presence::Absent { reason } = absent.presence() else { panic!("{absent:?}") };
        assert!(says.iter().all(|words| reason.contains(words)), "{reason}");
        let refused = OsError::NotAnAppliance { reason };
        let (cancel, digest) = (Cancel::default(), Digest([7; 32]));
        let release = demonstration().releases.remove(0);
        assert_eq!(absent.inventory(), Err(refused.clone()));
        assert_eq!(absent.check(&cancel), Err(refused.clone()));
        let nothing = std::io::pipe().unwrap().0;
        assert_eq!(absent.import(nothing.into(), &cancel), Err(refused.clone()));
        let mut progress = |_| panic!("nothing is fetched");
        assert_eq!(absent.download(&release, true, &mut progress, &cancel), Err(refused.clone()));
        assert_eq!(absent.stage(&release, true, &cancel), Err(refused.clone()));
        assert_eq!(absent.arrange_boot(digest, true), Err(refused.clone()));
        assert_eq!(absent.reboot(&cancel), Err(refused.clone()));
        assert_eq!(absent.pin(digest, true), Err(refused.clone()));
        assert_eq!(absent.follow(Channel::Next), Err(refused.clone()));
        assert_eq!(refused.code(), "unavailable");
    }
}

/// Only a simulation can be told to.
#[test]
fn a_system_that_does_not_start_leaves_the_one_before_and_no_word() {
    let mut bench = SimulatedBench::fresh();
    let before = booted(&bench);
    let release = staged(&bench, 0);
    bench.script.verdicts.insert(release.digest, Verdict::NeverBoots);
    bench.backend.go_by(bench.script.clone());
    bench.backend.arrange_boot(release.digest, false).unwrap();
    bench.backend.reboot(&Cancel::default()).unwrap();
    assert_eq!((booted(&bench), seen(&bench).attempt), (before, None));
}
