//! Single decisions.

use super::*;
use crate::ledger::Record;
use crate::mirror::memory::{deployment, entry, id, sum, whole};

fn start(n: u8, counter: Option<(u32, u32)>) -> Start {
    let counter = counter.map(|(left, done)| Counter { left, done });
    Start { boot_id: format!("boot of {n}"), id: id(n), version: format!("0.{n}.0"), counter }
}

fn fallen_one(n: u8) -> Fallen {
    Fallen { id: id(n), version: format!("0.{n}.0") }
}

fn check(passed: bool) -> Check {
    Check { name: "console".to_owned(), passed, detail: "it says".to_owned() }
}

/// An ESP with these deployments, the first on top.
fn esp(entries: &[(u8, Option<(u32, u32)>)]) -> Esp {
    let mut esp = Esp::default();
    for (at, (n, counter)) in entries.iter().enumerate() {
        let name = EntryName { id: id(*n), counter: start(*n, *counter).counter };
        esp.entries.insert(name, entry(*n, (9 - at) as u64, false).to_string());
        esp.sets.insert(sum(0x80 + n / 2), whole(*n));
    }
    esp
}

fn reason(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed { reason, .. } => reason,
        _ => "",
    }
}

#[test]
fn units_count_that_are_ours_or_were_good() {
    let units = ["dbus.service", "bluetooth.service", "getty@tty1.service", "x.mount"];
    let units = units.map(str::to_owned).to_vec();
    let blessed = Some(Blessed { units, ..Blessed::default() });
    let counts = |unit| unit_counts(unit, blessed.as_ref());
    for unit in ["punktfunk-host.service", "punktfunk-boot.service", "dbus.service"] {
        assert!(counts(unit), "{unit}");
    }
    // Sessions, what asks, hardware, instances, other kinds, and what was never good.
    for unit in [
        "punktfunk-session@3.service",
        "punktfunk-sessions.service",
        "punktfunk-verdict.service",
        "bluetooth.service",
        "getty@tty1.service",
        "x.mount",
        "cups.service",
    ] {
        assert!(!counts(unit), "{unit}");
    }
    assert!(!unit_counts("dbus.service", None));
    assert!(unit_counts("punktfunk-host.service", None));
}

#[test]
fn a_verdict_is_green_when_all_is() {
    let blessed = Blessed { units: vec!["dbus.service".to_owned()], ..Blessed::default() };
    let judged =
        |passed, failed: &str| judge(vec![check(passed)], &[failed.to_owned()], Some(&blessed));
    assert!(
        matches!(judged(true, "cups.service"), Outcome::Passed { checks } if checks.len() == 2)
    );
    assert_eq!(reason(&judged(false, "dbus.service")), "console: it says");
    assert_eq!(reason(&judged(true, "dbus.service")), "units: failed: dbus.service");
}

#[test]
fn only_a_counted_start_ends_in_another() {
    let red = failed("x");
    let green = Outcome::Passed { checks: vec![] };
    let two = |counter| esp(&[(2, counter), (0, None)]);
    let acts = |outcome: &Outcome, counter| act(outcome, &start(2, counter), &two(counter));
    assert_eq!(acts(&green, Some((2, 1))), Act::Bless);
    assert_eq!(acts(&red, Some((2, 1))), Act::Reboot);
    assert_eq!(acts(&red, Some((0, 3))), Act::Reboot);
    assert_eq!(acts(&red, None), Act::Stay);
    // With nothing else to start it would begin again for ever.
    let alone = esp(&[(2, Some((0, 3)))]);
    assert_eq!(act(&red, &start(2, Some((0, 3))), &alone), Act::Stay);
    let both = esp(&[(2, Some((0, 3))), (0, Some((0, 3)))]);
    assert_eq!(act(&red, &start(2, Some((0, 3))), &both), Act::Stay);
}

#[test]
fn what_is_spent_and_does_not_run_has_fallen() {
    let esp = esp(&[(4, Some((0, 3))), (2, Some((1, 2))), (0, None)]);
    assert_eq!(fallen(&esp, &id(0)), [id(4)]);
    assert_eq!(fallen(&esp, &id(4)), []);
    // A second entry of it, left by a cut while it was renamed, says that it is better than that.
    let mut twice = esp.clone();
    twice.entries.insert(EntryName { id: id(4), counter: None }, String::new());
    assert_eq!(fallen(&twice, &id(0)), []);
}

#[test]
fn a_counted_start_is_an_attempt_with_a_number() {
    let mut ledger = Ledger { last_number: 6, ..Ledger::default() };
    begin(&mut ledger, &start(0, None), &[], 1);
    assert_eq!(ledger.attempts, []);
    begin(&mut ledger, &start(2, Some((2, 1))), &[], 2);
    begin(&mut ledger, &start(2, Some((2, 1))), &[], 2);
    let [Record { attempt, .. }] = ledger.attempts.as_slice() else { panic!("{ledger:?}") };
    assert_eq!((attempt.number, attempt.from.as_str()), (7, "0.0.0"));
    assert_eq!((attempt.version.as_str(), &attempt.outcome), ("0.2.0", &Outcome::Pending));
    // The next try of the same still comes from what was good.
    conclude(&mut ledger, &start(2, Some((2, 1))), &failed("x"), vec![]);
    ledger.blessed = Some(Blessed { version: "0.0.0".to_owned(), ..Blessed::default() });
    let again = Start { boot_id: "again".to_owned(), ..start(2, Some((1, 2))) };
    begin(&mut ledger, &again, &[], 3);
    assert_eq!(ledger.attempts[1].attempt.number, 8);
    assert_eq!(ledger.attempts[1].attempt.from, "0.0.0");
}

#[test]
fn going_back_by_hand_is_an_attempt_and_falling_back_is_none() {
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(2, None), &[], 1);
    begin(&mut ledger, &start(0, None), &[], 2);
    assert_eq!(ledger.attempts.len(), 1);
    begin(&mut ledger, &start(2, Some((2, 1))), &[], 3);
    let back = Start { boot_id: "back".to_owned(), ..start(0, None) };
    begin(&mut ledger, &back, &[fallen_one(2)], 4);
    assert_eq!(ledger.attempts.len(), 2);
}

#[test]
fn what_fell_is_remembered_with_its_reason() {
    // It was judged.
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(2, Some((0, 1))), &[], 1);
    conclude(&mut ledger, &start(2, Some((0, 1))), &failed("no tone"), vec![]);
    begin(&mut ledger, &start(0, None), &[fallen_one(2)], 7);
    let bad = ledger.bad(id(2).commit()).unwrap();
    assert_eq!((bad.reason.as_str(), bad.at, bad.version.as_str()), ("no tone", 7, "0.2.0"));
    // It began and hung.
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(2, Some((0, 1))), &[], 1);
    begin(&mut ledger, &start(0, None), &[fallen_one(2)], 7);
    assert_eq!(ledger.bad[0].reason, CUT_OFF);
    assert_eq!(reason(&ledger.attempts[0].attempt.outcome), CUT_OFF);
    // It never began.
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(0, None), &[fallen_one(2)], 7);
    assert_eq!(ledger.bad[0].reason, NEVER_CAME_UP);
    assert_eq!(ledger.attempts[0].attempt.number, 1);
    // It was good once, was brought in again and never began.
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(2, Some((2, 1))), &[], 1);
    conclude(&mut ledger, &start(2, Some((2, 1))), &Outcome::Passed { checks: vec![] }, vec![]);
    begin(&mut ledger, &start(0, None), &[fallen_one(2)], 7);
    let outcomes: Vec<&Outcome> = ledger.attempts.iter().map(|one| &one.attempt.outcome).collect();
    assert_eq!(outcomes, [&Outcome::Passed { checks: vec![] }, &failed(NEVER_CAME_UP)]);
    // It is another deployment of what runs.
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(2, None), &[fallen_one(2)], 7);
    assert_eq!(ledger.bad, []);
}

#[test]
fn what_was_cut_off_does_not_stay_pending() {
    let mut ledger = Ledger::default();
    begin(&mut ledger, &start(2, Some((2, 1))), &[], 1);
    let again = Start { boot_id: "again".to_owned(), ..start(2, Some((1, 2))) };
    begin(&mut ledger, &again, &[], 2);
    assert_eq!(reason(&ledger.attempts[0].attempt.outcome), CUT_OFF);
    assert_eq!(ledger.attempts[1].attempt.outcome, Outcome::Pending);
}

#[test]
fn a_good_start_clears_its_name() {
    let mut ledger = Ledger::default();
    let (commit, version) = (id(2).commit().to_owned(), "0.2.0".to_owned());
    ledger.bad.push(Bad { commit, version, reason: "r".to_owned(), at: 1 });
    let start = start(2, Some((2, 1)));
    begin(&mut ledger, &start, &[], 1);
    let green = Outcome::Passed { checks: vec![check(true)] };
    conclude(&mut ledger, &start, &green, vec!["dbus.service".to_owned()]);
    assert_eq!(ledger.bad, []);
    assert_eq!(ledger.blessed.as_ref().unwrap().units, ["dbus.service"]);
    assert_eq!(ledger.attempts[0].attempt.outcome, green);
    assert_eq!(ledger.boot.unwrap().verdict, Some(green));
}

#[test]
fn a_try_is_given_back_once_a_start_and_not_for_ever() {
    let mut ledger = Ledger::default();
    let counted = start(2, Some((2, 1)));
    begin(&mut ledger, &counted, &[], 1);
    let (now, then) = give_back(&mut ledger, &counted).unwrap();
    assert_eq!((now.to_string(), then.to_string()), {
        (format!("pf-{}+2-1.conf", id(2)), format!("pf-{}+3.conf", id(2)))
    });
    assert_eq!(ledger.attempts, []);
    for _ in 1..MAX_GIVEN_BACK {
        assert!(give_back(&mut ledger, &counted).is_some());
    }
    assert!(give_back(&mut ledger, &counted).is_none());
    // That another one passed meanwhile changes nothing; that it passes itself does.
    conclude(&mut ledger, &start(4, None), &Outcome::Passed { checks: vec![] }, vec![]);
    assert!(give_back(&mut ledger, &counted).is_none());
    conclude(&mut ledger, &counted, &Outcome::Passed { checks: vec![] }, vec![]);
    assert_eq!(ledger.given_back, []);
    // Not after a verdict, not for what nobody counts, not in another start.
    let mut judged = Ledger::default();
    begin(&mut judged, &counted, &[], 1);
    conclude(&mut judged, &counted, &failed("x"), vec![]);
    assert!(give_back(&mut judged, &counted).is_none());
    assert!(give_back(&mut Ledger::default(), &start(2, None)).is_none());
    assert!(give_back(&mut Ledger::default(), &counted).is_none());
}

#[test]
fn what_is_bad_is_not_offered_unless_somebody_insists() {
    let mut ledger = Ledger::default();
    let (commit, version) = (id(2).commit().to_owned(), "0.2.0".to_owned());
    ledger.bad.push(Bad { commit, version, reason: "r".to_owned(), at: 1 });
    assert!(matches!(offer(&ledger, id(2).commit(), false), Err(Refusal::Bad { .. })));
    assert_eq!(offer(&ledger, id(2).commit(), true), Ok(()));
    assert_eq!(offer(&ledger, id(0).commit(), false), Ok(()));
}

#[test]
fn going_back_finds_its_way() {
    let three = [deployment(4, 3), deployment(2, 2), deployment(0, 1)];
    let ledger = Ledger::default();
    let back = |booted: u8, wish: Option<&str>| {
        rollback_target(&three, Some(&id(booted)), &ledger, wish, false)
    };
    assert_eq!(back(4, None), Ok(1));
    // What waits to be started is taken back.
    assert_eq!(back(2, None), Ok(1));
    assert_eq!(back(4, Some(&sum(0)[..12])), Ok(2));
    assert_eq!(back(4, Some(&sum(4)[..12])), Err(Refusal::Already));
    assert!(matches!(back(4, Some("ffffffff")), Err(Refusal::Unknown(_))));
    assert!(matches!(back(4, Some("04")), Err(Refusal::Unknown(_))));
    let only = rollback_target(&three[..1], Some(&id(4)), &ledger, None, false);
    assert_eq!(only, Err(Refusal::NothingElse));
    // A bad one is passed over, and refused by name.
    let mut ledger = Ledger::default();
    let (commit, version) = (id(2).commit().to_owned(), "0.2.0".to_owned());
    ledger.bad.push(Bad { commit, version, reason: "r".to_owned(), at: 1 });
    assert_eq!(rollback_target(&three, Some(&id(4)), &ledger, None, false), Ok(2));
    let named = rollback_target(&three, Some(&id(4)), &ledger, Some(&sum(2)), false);
    assert!(matches!(named, Err(Refusal::Bad { .. })));
    assert_eq!(rollback_target(&three, Some(&id(4)), &ledger, Some(&sum(2)), true), Ok(1));
}

#[test]
fn no_more_are_kept_than_there_is_room_for() {
    let mut all = [4, 3, 2, 1, 0].map(|n| deployment(n, u64::from(n)));
    for at in [1, 2, 4] {
        all[at].pinned = true;
    }
    let pristine = Some(&all[4].id);
    let full = Err(Refusal::TooManyPinned { max: MAX_PINNED });
    assert_eq!(pin_target(&all, pristine, &sum(4)), full);
    assert_eq!(pin_target(&all, pristine, &sum(3)), Ok(1));
    assert_eq!(unpin_target(&all, pristine, &sum(0)), Err(Refusal::Pristine));
    assert_eq!(unpin_target(&all, pristine, &sum(3)), Ok(1));
    all[1].pinned = false;
    assert_eq!(pin_target(&all, Some(&id(0)), &sum(4)), Ok(0));
}

#[test]
fn each_deployment_has_a_role() {
    let mut all = [4, 3, 2, 1, 0].map(|n| deployment(n, u64::from(n)));
    (all[3].pinned, all[4].pinned) = (true, true);
    let roles = |booted: Option<u8>| {
        let booted = booted.map(id);
        let role = |at| role(&all, at, booted.as_ref(), Some(&id(0)));
        (0..all.len()).map(role).collect::<Vec<_>>()
    };
    use Role::{Booted, Pinned, Pristine, Rollback, Staged};
    assert_eq!(roles(Some(3)), [Staged, Booted, Rollback, Pinned, Pristine]);
    assert_eq!(roles(Some(4)), [Booted, Rollback, Rollback, Pinned, Pristine]);
    assert_eq!(roles(Some(0)), [Staged, Rollback, Rollback, Pinned, Booted]);
}

#[test]
fn the_reserve_fits_the_disk() {
    assert_eq!(reserve_bytes(8 << 30), 1 << 30);
    assert_eq!(reserve_bytes(512 << 30), 4 << 30);
}
