//! The box's backend, with files written by hand: good ones, hostile ones, and a start that did not pass.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::file::MAX_BYTES;
use super::{Appliance, Bus, OUTLOOK, STATUS, part};
use crate::os::release::{Channel, MAX_LOG_LINES, Outcome, Role, Version};
use crate::os::state::{BannerKind, Phase, Verb, What};
use crate::os::{MemoryKeep, NoPower, OsBackend, OsDesk, OsError, OsOptions, OsView};

/// A box on whose bus nobody answers.
pub(super) fn silent(folder: &Path) -> Appliance {
    let bus = Bus::at(format!("unix:path={}", folder.join("no-bus").display()));
    Appliance::at(folder, bus, Arc::new(NoPower::default()))
}

/// A commit whose digits are all this one.
fn commit(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn deployment(digit: char, version: &str, role: &str) -> Value {
    json!({ "commit": commit(digit), "version": version, "made_at": 1_700_000_000, "role": role,
            "pinned": role == "pristine" })
}

fn attempt(number: u64, digit: char, version: &str, from: &str, outcome: &Value) -> Value {
    json!({ "number": number, "commit": commit(digit), "version": version, "from": from,
            "outcome": outcome })
}

fn passed() -> Value {
    json!({ "is": "passed", "checks": [{ "name": "self-test", "passed": true, "detail": "green" }] })
}

fn failed() -> Value {
    let log: Vec<String> = (0..50).map(|line| format!("line {line}\u{1b}[31m")).collect();
    json!({ "is": "failed", "reason": "the self-test was red",
            "checks": [{ "name": "console", "passed": true, "detail": "it answers" },
                       { "name": "self-test", "passed": false, "detail": "launch: no encoder" }],
            "log": log })
}

/// What the program of a box says, on which this runs.
fn word(boot: &str, deployments: &[Value], attempts: &[Value]) -> Value {
    json!({ "schema": 1, "boot_id": boot, "deployments": deployments, "counted": null,
            "attempts": attempts, "bad": [], "free_bytes": 5_000_000_000_u64,
            "presence_at": null, "remarks": ["it is warm"], "of tomorrow": {} })
}

/// A box with a version that runs and one to go back to.
fn two() -> Vec<Value> {
    vec![
        deployment('b', "0.2.0", "booted"),
        deployment('a', "0.1.0", "rollback"),
        deployment('0', "0.0.9", "pristine"),
    ]
}

/// Replaces the file, as root's program does.
fn say(folder: &Path, word: &Value) {
    say_as(folder, STATUS, word);
}

fn say_as(folder: &Path, name: &str, word: &Value) {
    let part = folder.join("part");
    fs::write(&part, word.to_string()).unwrap();
    fs::rename(part, folder.join(name)).unwrap();
}

#[test]
fn what_the_program_says_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let attempts = [
        attempt(3, 'a', "0.1.0", "", &passed()),
        attempt(4, 'b', "0.2.0", "0.1.0", &failed()),
        attempt(5, 'b', "0.2.0", "0.1.0", &json!({ "is": "postponed", "until": 7 })),
    ];
    let mut said = word("boot-1", &two(), &attempts);
    said["bad"] = json!([{ "commit": commit('c'), "version": "0.3.0", "reason": "r", "at": 7 },
                         { "commit": "x", "version": "0.3.0", "reason": "r" }]);
    say(folder.path(), &said);
    let inventory = silent(folder.path()).inventory().unwrap();
    assert_eq!((inventory.boot.as_str(), inventory.free_bytes), ("boot-1", 5_000_000_000));
    assert_eq!(inventory.booted().unwrap().version, Version::new(0, 2, 0));
    assert_eq!(inventory.booted().unwrap().digest.to_string(), format!("sha256:{}", commit('b')));
    assert_eq!(inventory.rollback().unwrap().version, Version::new(0, 1, 0));
    let pristine = &inventory.deployments[2];
    assert_eq!((pristine.role, pristine.pinned), (Role::Pristine, true));
    assert_eq!(inventory.remarks, ["it is warm"]);
    assert_eq!(inventory.bad.len(), 1);
    // The word that is not known is left out; nothing ran before the first.
    let newest = inventory.attempt.unwrap();
    assert_eq!((newest.number, inventory.earlier.len()), (4, 1));
    assert_eq!(inventory.earlier[0].from, inventory.earlier[0].version);
    let Outcome::Failed { reason, checks, log } = newest.outcome else { panic!("it passed") };
    assert_eq!(reason, "the self-test was red");
    assert_eq!((checks.len(), checks[1].passed), (2, false));
    assert_eq!((log.len(), log[0].as_str()), (MAX_LOG_LINES, "line 10 [31m"));
}

#[test]
fn what_cannot_be_believed_is_told_in_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let backend = silent(folder.path());
    let why = || {
        let OsError::Failed { detail, .. } = backend.inventory().unwrap_err() else {
            panic!("another error")
        };
        assert!(detail.chars().count() < 400 && !detail.contains('\u{1b}'), "{detail}");
        detail
    };
    assert_eq!(why(), "it has not said so yet");
    let file = folder.path().join(STATUS);
    let texts = [String::new(), "{".to_owned(), "[1]".to_owned(), "[".repeat(100_000)];
    for text in texts {
        fs::write(&file, text).unwrap();
        why();
    }
    let big = fs::File::create(&file).unwrap();
    big.set_len(MAX_BYTES * 1000).unwrap();
    assert!(why().contains("more than"));

    let check = |deployments: &[Value], says: &str| {
        say(folder.path(), &word("b", deployments, &[]));
        assert!(why().contains(says), "{says}: {}", why());
    };
    check(&[], "not exactly one deployment is booted");
    check(&[deployment('a', "0.1.0", "booted"), deployment('b', "0.1.0", "booted")], "not exactly");
    check(&[deployment('a', "\u{1b}0.1", "booted")], "is no version");
    let mut odd = deployment('a', "0.1.0", "booted");
    odd["commit"] = json!("\u{1b}../../etc/passwd");
    check(&[odd], "is no commit");
    check(&vec![deployment('a', "0.1.0", "booted"); 17], "17 systems");
    fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    why();
    fs::remove_file(&file).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, &file, rustix::fs::Mode::RUSR).unwrap();
    assert_eq!(why(), "there is no file");
}

#[test]
fn one_system_that_lies_there_twice_is_told_once() {
    let folder = tempfile::tempdir().unwrap();
    let deployments = [
        deployment('b', "0.2.0", "staged"),
        deployment('b', "0.2.0", "booted"),
        deployment('a', "0.1.0", "rollback"),
        deployment('9', "0.0.9", "rollback"),
        deployment('8', "0.0.8", "of tomorrow"),
    ];
    say(folder.path(), &word("b", &deployments, &[]));
    let inventory = silent(folder.path()).inventory().unwrap();
    let roles: Vec<Role> = inventory.deployments.iter().map(|one| one.role).collect();
    assert_eq!(roles, [Role::Booted, Role::Rollback, Role::Pinned, Role::Pinned]);
}

/// A daemon on this box, once it has looked.
fn desk(folder: &Path, keep: &MemoryKeep) -> OsDesk {
    let backend = Arc::new(silent(folder));
    let options = OsOptions::new(backend, Arc::new(keep.clone()), Arc::new(Vec::new));
    let tick = std::time::Duration::from_millis(1);
    let desk = OsDesk::open(OsOptions { tick, ..options }).unwrap();
    until(&desk, |view| view.state.inventory.is_some());
    desk
}

/// The view, once it is so.
fn until(desk: &OsDesk, is_so: impl Fn(&OsView) -> bool) -> OsView {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    loop {
        let view = desk.view();
        if is_so(&view) {
            return view;
        }
        assert!(std::time::Instant::now() < deadline, "{:?}", view.state);
        std::thread::park_timeout(std::time::Duration::from_millis(1));
    }
}

#[test]
fn a_version_that_root_left_again_is_told_with_its_checks_and_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let keep = MemoryKeep::default();
    let first = attempt(1, 'b', "0.2.0", "", &passed());
    say(folder.path(), &word("boot-1", &two(), std::slice::from_ref(&first)));
    let view = desk(folder.path(), &keep).view();
    assert_eq!((view.state.banner, view.state.told_attempt), (None, Some(1)));

    // The new version runs, is checked, and does not pass; it is not news until it was left.
    let three =
        [vec![deployment('c', "0.3.0", "booted"), deployment('b', "0.2.0", "rollback")]].concat();
    let on_trial = |outcome| [first.clone(), attempt(2, 'c', "0.3.0", "0.2.0", &outcome)];
    let trial = |outcome| word("boot-2", &three, &on_trial(outcome));
    say(folder.path(), &trial(json!({ "is": "pending" })));
    let of_three = desk(folder.path(), &keep);
    let version = Version::new(0, 3, 0);
    until(&of_three, |view| view.state.phase == Phase::Verifying { version });
    say(folder.path(), &trial(failed()));
    let view = until(&of_three, |view| view.state.problem.is_some());
    let problem = view.state.problem.unwrap();
    assert!(problem.sentence.contains("the self-test was red"), "{problem:?}");
    assert_eq!((view.state.banner, view.state.phase), (None, Phase::Idle));
    assert_eq!(view.state.told_attempt, Some(1));
    drop(of_three);

    let mut left = word("boot-3", &two(), &on_trial(failed()));
    left["bad"] = json!([{ "commit": commit('c'), "version": "0.3.0", "reason": "red", "at": 9 }]);
    say(folder.path(), &left);
    let of_two = desk(folder.path(), &keep);
    let view = of_two.view();
    let banner = view.state.banner.clone().unwrap();
    assert_eq!((banner.kind, banner.version), (BannerKind::RolledBack, version));
    assert_eq!(banner.running, Version::new(0, 2, 0));
    assert_eq!(banner.reason.as_deref(), Some("the self-test was red"));
    assert_eq!((banner.checks.len(), banner.log.len()), (2, MAX_LOG_LINES));
    assert_eq!(banner.log[39], "line 49 [31m");
    assert_eq!(view.state.bad.len(), 1);
    assert_eq!(view.state.problem, None);
    let told: Vec<What> = of_two.history().iter().map(|past| past.entry.what).collect();
    assert_eq!(told, [What::RolledBack]);
    of_two.ask(Verb::Dismiss).unwrap();
    drop(of_two);
    // Once.
    let again = desk(folder.path(), &keep);
    assert_eq!((again.view().state.banner, again.history().len()), (None, 1));
}

#[test]
fn what_was_tried_while_nobody_looked_is_told_too() {
    let folder = tempfile::tempdir().unwrap();
    let keep = MemoryKeep::default();
    let first = attempt(1, 'a', "0.1.0", "", &passed());
    let one = [deployment('a', "0.1.0", "booted")];
    say(folder.path(), &word("boot-1", &one, std::slice::from_ref(&first)));
    drop(desk(folder.path(), &keep));
    // Three tries of one version that never came up, and then one that did.
    let tries = (2..5).map(|number| attempt(number, 'c', "0.3.0", "0.1.0", &failed()));
    let all: Vec<Value> = std::iter::once(first)
        .chain(tries)
        .chain([attempt(5, 'b', "0.2.0", "0.1.0", &passed())])
        .collect();
    say(folder.path(), &word("boot-9", &two(), &all));
    let desk = desk(folder.path(), &keep);
    let view = desk.view();
    assert_eq!(view.state.banner.as_ref().unwrap().kind, BannerKind::Updated);
    assert_eq!(
        view.state.bad.iter().map(|mark| mark.version.to_string()).collect::<Vec<_>>(),
        ["0.3.0"]
    );
    let told: Vec<What> = desk.history().iter().map(|past| past.entry.what).collect();
    assert_eq!(told.iter().filter(|what| **what == What::Applied).count(), 1);
    let rolled_back = told.iter().filter(|what| **what == What::RolledBack).count();
    assert_eq!(rolled_back, 1, "{told:?}");
}

#[test]
fn the_first_start_of_a_box_is_no_update() {
    let folder = tempfile::tempdir().unwrap();
    let one = [deployment('a', "0.1.0", "booted")];
    let first = |outcome| word("boot-1", &one, &[attempt(1, 'a', "0.1.0", "", &outcome)]);
    say(folder.path(), &first(json!({ "is": "pending" })));
    let desk = desk(folder.path(), &MemoryKeep::default());
    until(&desk, |view| matches!(view.state.phase, Phase::Verifying { .. }));
    say(folder.path(), &first(passed()));
    let view = until(&desk, |view| view.state.phase == Phase::Idle);
    assert_eq!((view.state.banner, view.state.told_attempt), (None, Some(1)));
}

#[test]
fn what_root_changes_is_seen_by_the_next_who_looks() {
    let folder = tempfile::tempdir().unwrap();
    say(folder.path(), &word("boot-1", &two(), &[]));
    let desk = desk(folder.path(), &MemoryKeep::default());
    assert_eq!(desk.view().state.inventory.unwrap().deployments.len(), 3);
    say(folder.path(), &word("boot-1", &two()[..2], &[]));
    until(&desk, |view| view.state.inventory.as_ref().unwrap().deployments.len() == 2);
    // Gone is not changed: what was seen last holds.
    fs::remove_file(folder.path().join(STATUS)).unwrap();
    assert_eq!(desk.view().state.inventory.unwrap().deployments.len(), 2);
}

/// What the program for updates says: 0.3.0 waits, half of 0.4.0 is here.
fn outlook() -> Value {
    json!({ "schema": 9, "channel": "next", "floor": "0.1.5", "newest_made_at": 1_700_000_009,
            "fetched": { "commit": commit('4'), "done_bytes": 50, "total_bytes": 100 },
            "staged": { "commit": commit('c'), "version": "0.3.0", "made_at": 1_700_000_003 },
            "remarks": ["a key was\u{1b} revoked"], "of tomorrow": [] })
}

#[test]
fn what_is_said_of_updates_is_told_with_the_system() {
    let folder = tempfile::tempdir().unwrap();
    let backend = silent(folder.path());
    say(folder.path(), &word("boot-1", &two(), &[]));
    let without = backend.inventory().unwrap();
    assert_eq!((without.channel, without.floor), (Channel::Stable, Version::new(0, 0, 0)));
    assert_eq!((without.staged(), without.fetched), (None, None));
    assert!(!backend.is_stale());

    say_as(folder.path(), OUTLOOK, &outlook());
    assert!(backend.is_stale());
    let inventory = backend.inventory().unwrap();
    assert!(!backend.is_stale());
    assert_eq!((inventory.channel, inventory.floor), (Channel::Next, Version::new(0, 1, 5)));
    assert_eq!(inventory.newest_manifest_at, 1_700_000_009);
    let fetched = inventory.fetched.unwrap();
    assert_eq!((fetched.done_bytes, fetched.total_bytes), (50, 100));
    assert_eq!(fetched.digest.to_string(), format!("sha256:{}", commit('4')));
    let staged = inventory.staged().unwrap();
    assert_eq!((staged.version, staged.made_at), (Version::new(0, 3, 0), 1_700_000_003));
    assert_eq!(inventory.rollback().unwrap().version, Version::new(0, 1, 0));
    assert_eq!(inventory.deployments.len(), 4);
    assert_eq!(inventory.remarks, ["it is warm", "a key was  revoked"]);
}

#[test]
fn what_waits_is_told_once_wherever_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    say_as(folder.path(), OUTLOOK, &outlook());
    let roles = |deployments: &[Value]| {
        say(folder.path(), &word("boot-1", deployments, &[]));
        let inventory = silent(folder.path()).inventory().unwrap();
        let roles = inventory.deployments.iter().map(|one| (one.version.to_string(), one.role));
        roles.collect::<Vec<_>>()
    };
    let told = |of: &[(&str, Role)]| {
        of.iter().map(|(version, role)| ((*version).to_owned(), *role)).collect::<Vec<_>>()
    };
    let (b, a) = (deployment('b', "0.2.0", "booted"), deployment('a', "0.1.0", "rollback"));
    // Deployed, and what the next start is into.
    assert_eq!(
        roles(&[deployment('c', "0.3.0", "staged"), b.clone(), a.clone()]),
        told(&[("0.3.0", Role::Staged), ("0.2.0", Role::Booted), ("0.1.0", Role::Rollback)])
    );
    // Deployed, and taken back: it is not what one goes back to.
    assert_eq!(
        roles(&[b.clone(), deployment('c', "0.3.0", "rollback"), a.clone()]),
        told(&[("0.2.0", Role::Booted), ("0.3.0", Role::Staged), ("0.1.0", Role::Rollback)])
    );
    // Another one is what the next start is into.
    assert_eq!(
        roles(&[deployment('d', "0.2.5", "staged"), b, a]),
        told(&[
            ("0.2.5", Role::Pinned),
            ("0.2.0", Role::Booted),
            ("0.1.0", Role::Rollback),
            ("0.3.0", Role::Staged),
        ])
    );
    // It runs.
    assert_eq!(roles(&[deployment('c', "0.3.0", "booted")]), told(&[("0.3.0", Role::Booted)]));
}

#[test]
fn what_cannot_be_understood_of_updates_hides_nothing_of_the_system() {
    let folder = tempfile::tempdir().unwrap();
    say(folder.path(), &word("boot-1", &two(), &[]));
    let file = folder.path().join(OUTLOOK);
    for text in ["", "{", "[1]", "{\"remarks\": 7}", &"[".repeat(100_000)] {
        fs::write(&file, text).unwrap();
        assert_eq!(silent(folder.path()).inventory().unwrap().deployments.len(), 3, "{text:.9}");
    }
    let big = fs::File::create(&file).unwrap();
    big.set_len(MAX_BYTES * 1000).unwrap();
    assert_eq!(silent(folder.path()).inventory().unwrap().deployments.len(), 3);
    // A part that is odd is left out, the others are told.
    let mut odd = outlook();
    odd["channel"] = json!("nightly");
    odd["floor"] = json!("\u{1b}");
    odd["staged"]["commit"] = json!("../..");
    odd["remarks"] = json!(vec!["r"; 100]);
    say_as(folder.path(), OUTLOOK, &odd);
    let inventory = silent(folder.path()).inventory().unwrap();
    assert_eq!((inventory.channel, inventory.floor), (Channel::Stable, Version::new(0, 0, 0)));
    assert_eq!((inventory.staged(), inventory.remarks.len()), (None, 17));
    assert_eq!(inventory.fetched.unwrap().total_bytes, 100);
    // As many as may be are there already.
    let mut many: Vec<Value> =
        (0..15).map(|at| deployment(char::from(b'0' + at % 10), "0.1.0", "pinned")).collect();
    for (at, one) in many.iter_mut().enumerate() {
        one["commit"] = json!(format!("{at:064}"));
    }
    many.push(deployment('b', "0.2.0", "booted"));
    say_as(folder.path(), OUTLOOK, &outlook());
    say(folder.path(), &word("boot-1", &many, &[]));
    assert_eq!(silent(folder.path()).inventory().unwrap().deployments.len(), 16);
}

#[test]
fn what_is_asked_of_nobody_is_told_and_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    say(folder.path(), &word("boot-1", &two(), &[]));
    let desk = desk(folder.path(), &MemoryKeep::default());
    let digest = desk.view().state.inventory.unwrap().rollback().unwrap().digest;
    for verb in [Verb::Check, Verb::Pin(digest), Verb::Follow(Channel::Next)] {
        desk.ask(verb.clone()).unwrap();
        let is_over = |view: &OsView| view.state.phase == Phase::Idle;
        let problem = until(&desk, is_over).state.problem.unwrap();
        assert_eq!(problem.code, "failed", "{verb:?}");
        assert!(problem.sentence.contains("the system's bus does not answer"), "{problem:?}");
        desk.ask(Verb::Dismiss).unwrap();
    }
    assert_eq!(desk.view().state.inventory.unwrap().deployments.len(), 3);
    let switched = silent(folder.path()).reboot(&crate::os::Cancel::default()).unwrap_err();
    assert!(switched.to_string().contains("not an appliance"), "{switched}");
}

#[test]
fn a_part_is_never_more_than_the_whole() {
    assert_eq!((part(100, 50, 100), part(100, 1, 3), part(100, 5, 0)), (50, 33, 100));
    assert_eq!((part(100, 200, 100), part(u64::MAX, u64::MAX - 1, u64::MAX)), (100, u64::MAX - 1));
    assert_eq!(part(0, 1, 2), 0);
}
