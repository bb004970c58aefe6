//! A box whose system comes, goes and fails, with the real OSTree and the engine that a service would have.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;

use punktfunk_os::mirror::read_esp;
use punktfunk_os::model::loader;
use punktfunk_os::policy;
use punktfunk_os::status::{self, Role, Status};
use punktfunk_update::engine::Engine;
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{Channel, Commit, Version};
use punktfunk_update::outlook::{self, Outlook};
use punktfunk_update::transport::{Cancel, STAGED_REF, tarball};
use punktfunk_update_rig::{Outcome, Rig};

/// A box whose service does not run, and its engine.
fn boxed() -> (Rig, Engine) {
    let mut rig = Rig::new();
    rig.stop();
    let engine = begun(&rig);
    (rig, engine)
}

fn begun(rig: &Rig) -> Engine {
    let mut engine = rig.engine();
    engine.begin();
    engine
}

/// What is said to everybody, which is what the engine knows.
#[track_caller]
fn seen(rig: &Rig, engine: &mut Engine) -> Outlook {
    let text = std::fs::read(rig.run_folder().join(outlook::NAME)).unwrap();
    let said: Outlook = serde_json::from_slice(&text).unwrap();
    assert_eq!(said, engine.outlook().unwrap());
    assert_eq!(said.remarks, Vec::<String>::new());
    said
}

/// What everybody knows of the deployments: commit and role.
fn roles(rig: &Rig) -> Vec<(String, Role)> {
    let status = Status::read(&rig.run_folder().join(status::NAME)).unwrap();
    status.deployments.into_iter().map(|one| (one.version, one.role)).collect()
}

fn of(version: &str, role: Role) -> (String, Role) {
    (version.to_owned(), role)
}

/// What the loader starts next.
fn next(rig: &Rig) -> String {
    loader::choice(&read_esp(&rig.esp()).unwrap()).unwrap().id.commit().to_owned()
}

fn check(engine: &mut Engine) -> Vec<Version> {
    let offers = engine.check(&Cancel::default()).unwrap();
    offers.iter().map(|offer| offer.version).collect()
}

/// Fetches all of it. Gives how much was there when it began.
fn download(engine: &mut Engine, commit: Commit) -> u64 {
    let mut told = Vec::new();
    let mut note = |done, total| told.push((done, total));
    engine.download(commit, false, &mut note, &Cancel::default()).unwrap();
    assert!(told.windows(2).all(|two| two[0].0 <= two[1].0), "{told:?}");
    let (done, total) = told[told.len() - 1];
    assert_eq!(done, total);
    told[0].0
}

fn stage(engine: &mut Engine, commit: Commit) {
    engine.stage(commit, false, &Cancel::default()).unwrap();
}

fn held(rig: &Rig) -> Option<String> {
    rig.site().ostree.held(STAGED_REF).unwrap()
}

const OLDEST: Version = Version::new(1, 4, 0);
const RUNS: Version = Version::new(1, 4, 2);
const NEW: Version = Version::new(1, 5, 0);
const NEWER: Version = Version::new(1, 6, 0);

#[test]
#[ignore = "needs root and ostree"]
fn a_release_comes_is_staged_started_and_blessed() {
    let (mut rig, mut engine) = boxed();
    let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
    let last = rig.publish(NEWER, NEW, Outcome::Passes);
    // What needs another version first is not offered.
    assert_eq!(check(&mut engine), [NEW]);
    let before = roles(&rig);
    assert_eq!(
        before,
        [of("1.4.2", Role::Booted), of("1.4.1", Role::Rollback), of("1.4.0", Role::Pristine)]
    );
    // What the box has already is not fetched: what all systems have in common.
    let had = download(&mut engine, commit);
    assert!(had > 600 << 10, "{had}");
    let fetched = seen(&rig, &mut engine).fetched.unwrap();
    assert_eq!((fetched.commit, fetched.done_bytes), (commit, fetched.total_bytes));
    // Again, it asks nobody.
    let given = rig.given_bytes();
    assert_eq!(download(&mut engine, commit), fetched.total_bytes);
    assert_eq!(rig.given_bytes(), given);
    stage(&mut engine, commit);
    let outlook = seen(&rig, &mut engine);
    let staged = outlook.staged.unwrap();
    assert_eq!((staged.commit, staged.version, outlook.fetched), (commit, NEW, None));
    assert_eq!(held(&rig), Some(commit.to_string()));
    // Neither what is deployed nor the loader knows of it.
    assert_eq!((roles(&rig), next(&rig) == commit.to_string()), (before, false));
    stage(&mut engine, commit);
    download(&mut engine, commit);
    engine.apply(commit, false).unwrap();
    assert_eq!((seen(&rig, &mut engine).staged, held(&rig)), (None, None));
    assert_eq!(next(&rig), commit.to_string());
    assert_eq!(roles(&rig)[0], of("1.5.0", Role::Staged));
    // Again is no harm.
    engine.apply(commit, false).unwrap();
    assert_eq!(next(&rig), commit.to_string());
    drop(engine);
    rig.boot();
    rig.stop();
    let mut engine = begun(&rig);
    assert_eq!(roles(&rig)[..2], [of("1.5.0", Role::Booted), of("1.4.2", Role::Rollback)]);
    assert_eq!(check(&mut engine), [NEW, NEWER]);
    let offers = engine.check(&Cancel::default()).unwrap();
    let offer = offers.iter().find(|one| one.commit == last).unwrap();
    assert_eq!(
        (offer.minimum, offer.changes.as_slice()),
        (NEW, &["What is new in 1.6.0".to_owned()][..])
    );
    let blobs = std::fs::read_dir(rig.state_folder().join("updates/blobs/sha256")).unwrap();
    assert_eq!(blobs.count(), 0);
}

#[test]
#[ignore = "needs root and ostree"]
fn power_may_go_after_every_step() {
    let (mut rig, mut engine) = boxed();
    let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
    let cut = |rig: &mut Rig, engine: Engine| {
        drop(engine);
        rig.boot();
        rig.stop();
        begun(rig)
    };
    check(&mut engine);
    engine = cut(&mut rig, engine);
    // In the middle of the only blob that is long.
    rig.stall_after(1 << 20);
    let cancel = Cancel::default();
    let mut most = 0;
    let mut note = |done, _| {
        // What the box has already, and most of what was given.
        if done >= 1_400_000 {
            cancel.cancel();
        }
        most = done;
    };
    let stopped = engine.download(commit, false, &mut note, &cancel);
    assert_eq!(stopped, Err(UpdateError::Stopped));
    engine = cut(&mut rig, engine);
    let fetched = seen(&rig, &mut engine).fetched.unwrap();
    assert!(fetched.done_bytes >= 1_400_000 && fetched.done_bytes < fetched.total_bytes);
    let half = engine.stage(commit, false, &Cancel::default());
    assert_eq!(half, Err(UpdateError::NothingDownloaded));
    let given = rig.given_bytes();
    let began = download(&mut engine, commit);
    assert_eq!(began, fetched.done_bytes);
    assert!(rig.given_bytes() - given <= fetched.total_bytes - fetched.done_bytes);
    engine = cut(&mut rig, engine);
    stage(&mut engine, commit);
    engine = cut(&mut rig, engine);
    assert_eq!(seen(&rig, &mut engine).staged.unwrap().commit, commit);
    assert_eq!(roles(&rig)[0], of("1.4.2", Role::Booted));
    engine.apply(commit, false).unwrap();
    // The loss of power is the restart.
    let mut engine = cut(&mut rig, engine);
    assert_eq!(roles(&rig)[0], of("1.5.0", Role::Booted));
    assert_eq!((seen(&rig, &mut engine).staged, next(&rig)), (None, commit.to_string()));
}

#[test]
#[ignore = "needs root and ostree"]
fn what_was_arranged_and_is_taken_back_is_staged_again() {
    let (mut rig, mut engine) = boxed();
    let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
    let before = roles(&rig);
    let runs: Commit = next(&rig).parse().unwrap();
    check(&mut engine);
    download(&mut engine, commit);
    stage(&mut engine, commit);
    engine.apply(commit, false).unwrap();
    engine.apply(runs, false).unwrap();
    assert_eq!(seen(&rig, &mut engine).staged.unwrap().commit, commit);
    assert_eq!((roles(&rig), next(&rig)), (before.clone(), runs.to_string()));
    // And once more.
    engine.apply(commit, false).unwrap();
    assert_eq!(next(&rig), commit.to_string());
    // The same by way of the version before, which is older, and may be started all the same.
    let site = rig.site();
    let old: Commit = site.deployments().unwrap()[2].id.commit().parse().unwrap();
    engine.apply(old, false).unwrap();
    assert_eq!(
        (seen(&rig, &mut engine).staged.unwrap().commit, next(&rig)),
        (commit, old.to_string())
    );
    engine.apply(runs, false).unwrap();
    assert_eq!((roles(&rig), next(&rig)), (before.clone(), runs.to_string()));

    // The power goes while it is taken back: after it is held, and after it was noted as well.
    engine.apply(commit, false).unwrap();
    site.ostree.hold(STAGED_REF, &commit.to_string()).unwrap();
    drop(engine);
    let mut engine = begun(&rig);
    assert_eq!((seen(&rig, &mut engine).staged, next(&rig)), (None, commit.to_string()));
    site.ostree.hold(STAGED_REF, &commit.to_string()).unwrap();
    let mut ledger = site.ledger().unwrap();
    let id = site.deployments().unwrap().remove(0).id;
    policy::leave(&mut ledger.ledger, &[id]);
    ledger.save().unwrap();
    drop((ledger, engine));
    let mut engine = begun(&rig);
    assert_eq!(seen(&rig, &mut engine).staged.unwrap().commit, commit);
    assert_eq!((roles(&rig), next(&rig)), (before, runs.to_string()));
}

#[test]
#[ignore = "needs root and ostree"]
fn what_did_not_pass_is_had_again_only_if_somebody_insists() {
    let (mut rig, mut engine) = boxed();
    let red = "30 frames came, and 30 were black";
    let commit = rig.publish(NEW, OLDEST, Outcome::Fails(red));
    let dead = rig.publish(NEWER, OLDEST, Outcome::NeverComesUp);
    for one in [commit, dead] {
        check(&mut engine);
        download(&mut engine, one);
        stage(&mut engine, one);
        engine.apply(one, false).unwrap();
        drop(engine);
        rig.boot();
        rig.stop();
        engine = begun(&rig);
        assert_eq!(roles(&rig)[0], of("1.4.2", Role::Booted));
    }
    // It is told, and left out by those who read it.
    assert_eq!(check(&mut engine), [NEW, NEWER]);
    let (cancel, mut note) = (Cancel::default(), |_, _| {});
    let reason = format!("self-test: {red}");
    let bad = Err(UpdateError::Bad { version: NEW, reason });
    assert_eq!(engine.download(commit, false, &mut note, &cancel), bad);
    assert_eq!(engine.stage(commit, false, &cancel), bad);
    let UpdateError::Bad { version, .. } =
        engine.download(dead, false, &mut note, &cancel).unwrap_err()
    else {
        panic!("it is another error")
    };
    assert_eq!(version, NEWER);
    engine.download(commit, true, &mut note, &cancel).unwrap();
    assert_eq!(engine.stage(commit, false, &cancel), bad);
    engine.stage(commit, true, &cancel).unwrap();
    assert_eq!(engine.apply(commit, false), bad);
    assert_eq!(held(&rig), Some(commit.to_string()));
    engine.apply(commit, true).unwrap();
    assert_eq!(next(&rig), commit.to_string());
    assert!(rig.site().known().unwrap().bad(&commit.to_string()).is_none());
}

#[test]
#[ignore = "needs root and ostree"]
fn what_is_kept_stays_until_it_is_let_go() {
    let (mut rig, mut engine) = boxed();
    let commits = |rig: &Rig| -> Vec<Commit> {
        let all = rig.site().deployments().unwrap();
        all.iter().map(|one| one.id.commit().parse().unwrap()).collect()
    };
    let [runs, old, pristine] = commits(&rig)[..] else { panic!("there are three") };
    engine.pin(old, true).unwrap();
    engine.pin(runs, true).unwrap();
    for version in [NEW, NEWER] {
        let commit = rig.publish(version, OLDEST, Outcome::Passes);
        check(&mut engine);
        download(&mut engine, commit);
        stage(&mut engine, commit);
        let refused = engine.pin(commit, true);
        assert_eq!(refused, Err(UpdateError::UnknownDeployment), "it is not deployed");
        engine.apply(commit, false).unwrap();
        assert_eq!(engine.pin(commit, true), Err(UpdateError::TooManyPins { max: 2 }));
        drop(engine);
        rig.boot();
        rig.stop();
        engine = begun(&rig);
    }
    assert_eq!(commits(&rig).len(), 5);
    engine.pin(old, false).unwrap();
    assert_eq!(commits(&rig).len(), 4);
    assert!(!commits(&rig).contains(&old) && commits(&rig).contains(&runs));
    let esp = read_esp(&rig.esp()).unwrap();
    assert!(esp.entries.keys().all(|name| name.id.commit() != old.to_string()));
    assert!(matches!(engine.pin(pristine, false), Err(UpdateError::Failed { .. })));
    assert_eq!(engine.pin(Commit([7; 32]), true), Err(UpdateError::UnknownDeployment));
    // Even the commit is gone.
    let repository = rig.site().place.sysroot.join("ostree/repo");
    assert!(!Path::new(&repository).join(object(old)).exists());
}

fn object(commit: Commit) -> String {
    let digits = commit.to_string();
    format!("objects/{}/{}.commit", &digits[..2], &digits[2..])
}

#[test]
#[ignore = "needs root and ostree"]
fn a_newer_release_takes_the_place_of_what_was_staged() {
    let (mut rig, mut engine) = boxed();
    let first = rig.publish(NEW, OLDEST, Outcome::Passes);
    let second = rig.publish(NEWER, OLDEST, Outcome::Passes);
    check(&mut engine);
    for commit in [first, second] {
        download(&mut engine, commit);
        stage(&mut engine, commit);
    }
    assert_eq!(seen(&rig, &mut engine).staged.unwrap().commit, second);
    let repository = rig.site().place.sysroot.join("ostree/repo");
    assert!(!repository.join(object(first)).exists() && repository.join(object(second)).exists());
    assert_eq!(engine.apply(first, false), Err(UpdateError::UnknownDeployment));
    // What was arranged waits no more when another is.
    engine.apply(second, false).unwrap();
    download(&mut engine, first);
    stage(&mut engine, first);
    engine.apply(first, false).unwrap();
    let all = rig.site().deployments().unwrap();
    assert_eq!((all.len(), next(&rig)), (4, first.to_string()));
    assert_eq!(RUNS.to_string(), roles(&rig)[1].0);
}

#[test]
#[ignore = "needs root and ostree"]
fn a_stick_is_as_good_as_a_registry_and_no_better() {
    let (mut rig, engine) = boxed();
    let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
    drop(engine);
    // This box knows no registry.
    let mut settings = rig.settings();
    settings.registry = Err("nobody has said".to_owned());
    let mut engine = Engine::open(rig.site(), settings).unwrap();
    engine.begin();
    let cancel = Cancel::default();
    let unreachable = UpdateError::Unreachable { detail: "nobody has said".to_owned() };
    assert_eq!(engine.check(&cancel).unwrap_err(), unreachable);
    let take = |rig: &Rig, engine: &mut Engine| {
        let file = std::fs::File::open(rig.archive(Channel::Stable)).unwrap();
        engine.import_archive(file.into(), &cancel)
    };
    let offers = take(&rig, &mut engine).unwrap();
    assert_eq!((offers.len(), offers[0].commit), (1, commit));
    // Another one whose signature is none changes nothing.
    let good = rig.envelope(Channel::Stable);
    let forged = String::from_utf8(good.clone()).unwrap().replace("1.5.0", "1.5.1");
    rig.tell(Channel::Stable, forged.as_bytes());
    assert!(matches!(take(&rig, &mut engine), Err(UpdateError::Signature { .. })));
    rig.tell(Channel::Stable, &good);
    // Nor does an honest statement with more behind it than it says.
    let mut bytes = std::fs::read(rig.archive(Channel::Stable)).unwrap();
    bytes.truncate(bytes.len() - 1024);
    let junk = vec![0; 2 << 20];
    let name = format!("blobs/sha256/{}", "ab".repeat(32));
    bytes.extend(tarball::header(&name, junk.len() as u64).unwrap());
    bytes.extend(junk);
    bytes.extend([0; 1024]);
    let stuffed = rig.state_folder().join("../stuffed.tar");
    std::fs::write(&stuffed, bytes).unwrap();
    let file = std::fs::File::open(&stuffed).unwrap();
    let refused = engine.import_archive(file.into(), &cancel).unwrap_err();
    assert!(matches!(refused, UpdateError::Content { .. }), "{refused}");
    assert!(refused.to_string().contains("longer than"), "{refused}");
    let given = rig.given_bytes();
    download(&mut engine, commit);
    stage(&mut engine, commit);
    assert_eq!(rig.given_bytes(), given, "it came from the stick");
    let left = std::fs::read_dir(rig.state_folder()).unwrap();
    let left =
        left.filter(|one| one.as_ref().unwrap().file_name().to_string_lossy().contains("import"));
    assert_eq!(left.count(), 0, "what it was copied to is removed");
    engine.apply(commit, false).unwrap();
    drop(engine);
    rig.boot();
    assert_eq!(roles(&rig)[0], of("1.5.0", Role::Booted));
}

#[test]
#[ignore = "needs root and ostree"]
fn what_is_withdrawn_while_it_waits_is_not_started_and_what_has_grown_old_is() {
    let (mut rig, mut engine) = boxed();
    let kept = rig.state_folder().join("statement-stable.json");
    let runs: Commit = next(&rig).parse().unwrap();
    let commit = rig.publish(NEW, OLDEST, Outcome::Passes);
    let waits = Some(commit.to_string());
    check(&mut engine);
    download(&mut engine, commit);
    stage(&mut engine, commit);
    // Who signed what is stated of it is trusted no more.
    let good = std::fs::read_to_string(&kept).unwrap();
    std::fs::write(&kept, good.replace("1.5.0", "1.5.9")).unwrap();
    let refused = engine.apply(commit, true).unwrap_err();
    assert!(matches!(refused, UpdateError::Signature { .. }), "{refused}");
    std::fs::write(&kept, good).unwrap();
    // It has only grown old.
    let now = rig.now();
    rig.set_clock(now + 40 * 86_400);
    engine.apply(commit, false).unwrap();
    assert_eq!(next(&rig), commit.to_string());
    engine.apply(runs, false).unwrap();
    assert_eq!((held(&rig), next(&rig)), (waits.clone(), runs.to_string()));
    rig.set_clock(now);
    // Something newer is there beside it, and then it is withdrawn.
    rig.publish(NEWER, OLDEST, Outcome::Passes);
    check(&mut engine);
    assert_eq!(held(&rig), waits);
    rig.state(Channel::Stable, |statement| {
        statement.releases.retain(|release| release.commit != commit);
    });
    assert_eq!(check(&mut engine), [NEWER]);
    assert_eq!((held(&rig), seen(&rig, &mut engine).staged), (None, None));
    assert_eq!(engine.apply(commit, true).unwrap_err(), UpdateError::UnknownDeployment);
}

#[test]
#[ignore = "needs root and ostree"]
fn what_is_of_no_use_any_more_is_removed() {
    let (mut rig, mut engine) = boxed();
    let first = rig.publish(NEW, OLDEST, Outcome::Passes);
    let file = std::fs::File::open(rig.archive(Channel::Stable)).unwrap();
    engine.import_archive(file.into(), &Cancel::default()).unwrap();
    let archive = rig.state_folder().join("import.tar");
    let second = rig.publish(NEWER, OLDEST, Outcome::Passes);
    check(&mut engine);
    download(&mut engine, first);
    assert_eq!(seen(&rig, &mut engine).fetched.unwrap().commit, first);
    // One that is not offered any more.
    rig.state(Channel::Stable, |statement| {
        statement.releases.retain(|release| release.commit != first);
    });
    assert_eq!(check(&mut engine), [NEWER]);
    drop(engine);
    let mut engine = begun(&rig);
    assert_eq!((seen(&rig, &mut engine).fetched, archive.exists()), (None, true));
    // A newer one runs; what was given is older.
    download(&mut engine, second);
    stage(&mut engine, second);
    let file = std::fs::File::open(rig.archive(Channel::Stable)).unwrap();
    engine.import_archive(file.into(), &Cancel::default()).unwrap();
    assert!(archive.exists());
    engine.apply(second, false).unwrap();
    assert!(!archive.exists());
}
