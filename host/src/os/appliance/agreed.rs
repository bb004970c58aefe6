//! The status that root's own program writes, read by the daemon: every word of it, and as much as it may say. A word
//! that it gains does not compile here until it is said what the daemon makes of it.

use std::path::Path;

use punktfunk_os::status::{self, Attempt, Bad, Check, Counted, Deployment, Status};

use super::Appliance;
use crate::os::OsBackend as _;
use crate::os::release::{self, Inventory, Outcome};
use crate::os::state::MAX_BAD;

const BOOTED: char = 'b';

fn commit(digit: char) -> String {
    String::from(digit).repeat(64)
}

fn deployment(digit: char, role: status::Role) -> Deployment {
    Deployment {
        commit: commit(digit),
        version: "0.2.0".to_owned(),
        made_at: 1_700_000_000,
        role,
        pinned: role == status::Role::Pinned,
    }
}

fn check() -> Check {
    Check { name: "self-test".to_owned(), passed: false, detail: "no encoder".to_owned() }
}

fn attempt(number: u64, outcome: status::Outcome) -> Attempt {
    let (version, from) = ("0.2.0".to_owned(), "0.1.0".to_owned());
    Attempt { number, commit: commit('a'), version, from, outcome }
}

/// Nothing but what runs.
fn little() -> Status {
    Status {
        schema: status::SCHEMA,
        boot_id: "boot-1".to_owned(),
        deployments: vec![deployment(BOOTED, status::Role::Booted)],
        counted: None,
        attempts: vec![],
        bad: vec![],
        verdict: None,
        free_bytes: 0,
        presence_at: None,
        remarks: vec![],
    }
}

fn read(status: &Status) -> Inventory {
    let folder = tempfile::tempdir().unwrap();
    // The two look in the same place.
    let path = folder.path().join(Path::new(status::PATH).file_name().unwrap());
    status.write(&path).unwrap();
    Appliance::at(folder.path()).inventory().unwrap()
}

#[test]
fn both_mean_the_same_file() {
    assert_eq!(Path::new(super::FOLDER).join(super::FILE), Path::new(status::PATH));
    let limits = (status::MAX_ATTEMPTS, status::MAX_LOG_LINES);
    assert_eq!(limits, (release::MAX_ATTEMPTS, release::MAX_LOG_LINES));
}

#[test]
fn every_role_is_understood() {
    for (digit, role) in [
        ('b', status::Role::Booted),
        ('c', status::Role::Staged),
        ('d', status::Role::Rollback),
        ('e', status::Role::Pinned),
        ('f', status::Role::Pristine),
    ] {
        let expected = match role {
            status::Role::Booted => release::Role::Booted,
            status::Role::Staged => release::Role::Staged,
            status::Role::Rollback => release::Role::Rollback,
            status::Role::Pinned => release::Role::Pinned,
            status::Role::Pristine => release::Role::Pristine,
        };
        let mut said = little();
        said.deployments.retain(|_| digit != BOOTED);
        said.deployments.insert(0, deployment(digit, role));
        let told = &read(&said).deployments[0];
        assert_eq!((told.role, told.made_at), (expected, 1_700_000_000));
        assert_eq!(told.pinned, role == status::Role::Pinned);
    }
}

#[test]
fn every_outcome_is_understood() {
    let (reason, log) = ("the self-test was red".to_owned(), vec!["a line".to_owned()]);
    for said in [
        status::Outcome::Pending,
        status::Outcome::Passed { checks: vec![check()] },
        status::Outcome::Failed { reason, checks: vec![check()], log },
        status::Outcome::Unknown,
    ] {
        let mut status = little();
        status.attempts.push(attempt(7, said.clone()));
        status.verdict = Some(said.clone());
        let told = read(&status);
        let is_check = |checks: &[release::CheckResult]| {
            let found = &checks[0];
            checks.len() == 1
                && (found.name.as_str(), found.passed, found.detail.as_str())
                    == ("self-test", false, "no encoder")
        };
        let understood = match (&said, &told.verdict) {
            (status::Outcome::Pending, Some(Outcome::Pending)) => true,
            (status::Outcome::Passed { .. }, Some(Outcome::Passed { checks })) => is_check(checks),
            (status::Outcome::Failed { .. }, Some(Outcome::Failed { reason, checks, log })) => {
                is_check(checks)
                    && (reason.as_str(), &*log[0]) == ("the self-test was red", "a line")
            }
            // Nothing is made of the word of a newer program.
            (status::Outcome::Unknown, None) => true,
            (
                status::Outcome::Pending
                | status::Outcome::Passed { .. }
                | status::Outcome::Failed { .. }
                | status::Outcome::Unknown,
                _,
            ) => false,
        };
        assert!(understood, "{said:?} is read as {:?}", told.verdict);
        let outcome = told.attempt.as_ref().map(|attempt| &attempt.outcome);
        assert_eq!(outcome, told.verdict.as_ref());
    }
}

#[test]
fn all_that_root_may_say_is_read() {
    let mut full = little();
    full.counted = Some(Counted { left: 2, done: 1 });
    full.free_bytes = u64::MAX;
    full.presence_at = Some(u64::MAX);
    let text = "\"".repeat(status::MAX_TEXT_BYTES);
    let failed = status::Outcome::Failed {
        reason: text.clone(),
        checks: vec![check(); 8],
        log: vec![text.clone(); status::MAX_LOG_LINES],
    };
    full.attempts = (1..=16).map(|number| attempt(number, failed.clone())).collect();
    full.remarks = vec![text.clone(); 16];
    let bad =
        |at| Bad { commit: commit('c'), version: "0.3.0".to_owned(), reason: text.clone(), at };
    full.bad = (1..=64).map(bad).collect();
    let told = read(&full);
    assert_eq!((told.free_bytes, told.remarks.len()), (u64::MAX, 16));
    assert_eq!(told.attempts().count(), 16);
    let newest = told.attempt.as_ref().unwrap();
    assert_eq!((newest.number, newest.from.to_string().as_str()), (16, "0.1.0"));
    let Outcome::Failed { reason, checks, log } = &newest.outcome else { panic!("{newest:?}") };
    assert_eq!((reason, checks.len(), log.len()), (&text, 8, status::MAX_LOG_LINES));
    assert_eq!(log[0], text, "a line is as long for both");
    // Root remembers more than the daemon tells: the newest.
    assert_eq!((told.bad.len(), told.bad[MAX_BAD - 1].at), (MAX_BAD, 64));
}
