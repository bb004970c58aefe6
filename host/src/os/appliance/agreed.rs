//! What root's own programs write and say, read by the daemon: every word of it, and as much as it may be. A word that it
//! gains does not compile here until it is said what the daemon makes of it.

use std::path::Path;

use punktfunk_os::status::{self, Attempt, Bad, Check, Counted, Deployment, Status};

use punktfunk_update::engine::{LIMITS, Offer};
use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{self, Commit};
use punktfunk_update::outlook::{self, Outlook};

use super::{refused, tests};
use crate::os::release::{self, Inventory, Outcome, Version};
use crate::os::state::MAX_BAD;
use crate::os::{MAX_ARCHIVE_BYTES, OsBackend as _, OsError};

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
    tests::silent(folder.path()).inventory().unwrap()
}

#[test]
fn both_mean_the_same_file() {
    assert_eq!(Path::new(super::FOLDER).join(super::STATUS), Path::new(status::PATH));
    assert_eq!(Path::new(super::FOLDER).join(super::OUTLOOK), Path::new(outlook::PATH));
    let limits = (status::MAX_ATTEMPTS, status::MAX_LOG_LINES);
    assert_eq!(limits, (release::MAX_ATTEMPTS, release::MAX_LOG_LINES));
    assert_eq!(LIMITS.max_bytes, MAX_ARCHIVE_BYTES);
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

#[test]
fn what_is_said_of_updates_is_understood() {
    let commit = |digit: u8| Commit([digit; 32]);
    let said = Outlook {
        schema: outlook::SCHEMA,
        channel: name::Channel::Next,
        floor: Some(name::Version::new(0, 1, 0)),
        newest_made_at: 7,
        fetched: Some(outlook::Fetched { commit: commit(4), done_bytes: 1, total_bytes: 2 }),
        staged: Some(outlook::Staged {
            commit: commit(3),
            version: name::Version::new(0, 3, 0),
            made_at: 3,
        }),
        brought: vec![Offer {
            version: name::Version::new(0, 5, 0),
            commit: commit(5),
            made_at: 5,
            expires_at: 6,
            size_bytes: 7,
            minimum: name::Version::new(0, 1, 0),
            changes: vec!["c".to_owned()],
            channel: name::Channel::Next,
        }],
        remarks: vec!["r".to_owned()],
    };
    let folder = tempfile::tempdir().unwrap();
    let beside = |file: &str| folder.path().join(Path::new(file).file_name().unwrap());
    little().write(&beside(status::PATH)).unwrap();
    std::fs::write(beside(outlook::PATH), serde_json::to_vec(&said).unwrap()).unwrap();
    let told = tests::silent(folder.path()).inventory().unwrap();
    assert_eq!((told.channel, told.floor), (release::Channel::Next, Version::new(0, 1, 0)));
    assert_eq!(
        (told.newest_manifest_at, told.remarks.as_slice()),
        (7, ["r".to_owned()].as_slice())
    );
    let brought = release::Release {
        version: Version::new(0, 5, 0),
        digest: release::Digest([5; 32]),
        made_at: 5,
        expires_at: 6,
        size_bytes: 7,
        minimum: Version::new(0, 1, 0),
        changes: vec!["c".to_owned()],
        channel: release::Channel::Next,
    };
    assert_eq!(told.brought, [brought]);
    let fetched = told.fetched.unwrap();
    assert_eq!((fetched.digest.0, fetched.done_bytes, fetched.total_bytes), ([4; 32], 1, 2));
    let staged = told.staged().unwrap();
    assert_eq!(
        (staged.digest.0, staged.version, staged.made_at),
        ([3; 32], Version::new(0, 3, 0), 3)
    );
}

/// What the owner reads of it.
fn expected(said: &UpdateError) -> OsError {
    let version = |of: &name::Version| of.to_string().parse::<Version>().unwrap();
    let failed = |detail: &str| OsError::Failed { doing: "do it", detail: detail.to_owned() };
    match said {
        UpdateError::Unreachable { detail } => OsError::Unreachable { detail: detail.clone() },
        UpdateError::Signature { detail } => OsError::Signature { detail: detail.clone() },
        UpdateError::Expired { version: of } => OsError::Expired { version: version(of) },
        UpdateError::ClockBehind { version: of } => OsError::ClockBehind { version: version(of) },
        UpdateError::Downgrade { version: of, floor } => {
            OsError::Downgrade { version: version(of), floor: version(floor) }
        }
        UpdateError::NoSpace { needed_bytes, free_bytes } => {
            OsError::NoSpace { needed_bytes: *needed_bytes, free_bytes: *free_bytes }
        }
        UpdateError::Content { detail } => OsError::Content { detail: detail.clone() },
        UpdateError::Late { .. } => OsError::Incomplete {
            detail: "what is signed, with which it begins, was waited for for 60 seconds"
                .to_owned(),
        },
        UpdateError::Stopped => OsError::Stopped,
        UpdateError::Busy { .. } => OsError::Busy { doing: "preparing an update" },
        UpdateError::NothingDownloaded => OsError::NothingDownloaded,
        UpdateError::UnknownDeployment => OsError::UnknownDeployment,
        UpdateError::Bad { version: of, reason } => {
            OsError::Bad { version: version(of), reason: reason.clone() }
        }
        UpdateError::BelowFloor { version: of, floor } => {
            OsError::BelowFloor { version: version(of), floor: version(floor) }
        }
        UpdateError::TooManyPins { max } => OsError::TooManyPins { max: *max },
        UpdateError::NotAllowed => failed("the box does not let the host ask for it"),
        UpdateError::Malformed { .. } => {
            failed("the box's own program does not understand it: what is wrong")
        }
        UpdateError::Failed { .. } => failed("it could not write: what is wrong"),
    }
}

#[test]
fn every_reason_is_understood() {
    let (version, floor) = (name::Version::new(1, 2, 3), name::Version::new(2, 0, 0));
    let detail = "what is wrong".to_owned();
    let all = [
        UpdateError::Unreachable { detail: detail.clone() },
        UpdateError::Signature { detail: detail.clone() },
        UpdateError::Expired { version },
        UpdateError::ClockBehind { version },
        UpdateError::Downgrade { version, floor },
        UpdateError::NoSpace { needed_bytes: 2, free_bytes: 1 },
        UpdateError::Content { detail: detail.clone() },
        UpdateError::Late { limit_s: 60 },
        UpdateError::Stopped,
        UpdateError::Busy { doing: "stage".to_owned() },
        UpdateError::NothingDownloaded,
        UpdateError::UnknownDeployment,
        UpdateError::Bad { version, reason: detail.clone() },
        UpdateError::BelowFloor { version, floor },
        UpdateError::TooManyPins { max: 2 },
        UpdateError::NotAllowed,
        UpdateError::Malformed { detail: detail.clone() },
        UpdateError::Failed { doing: "write".to_owned(), detail },
    ];
    for said in all {
        let word = serde_json::to_string(&said).unwrap();
        assert_eq!(refused::parse(&word, "do it"), expected(&said), "{word}");
    }
    // The word of a newer program, and no word at all.
    for word in ["{\"code\":\"of-tomorrow\",\"why\":1}", "", "nonsense\u{1b}", "{\"code\":\"bad\"}"]
    {
        let OsError::Failed { detail, .. } = refused::parse(word, "do it") else {
            panic!("{word}")
        };
        assert!(detail.contains("says \"") && !detail.contains('\u{1b}'), "{detail}");
    }
}
