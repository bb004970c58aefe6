//! An update that is sent in a file over the network: by whoever may, for as long as they may, and as fast as they must.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use punktfunk_host::config::{self, ConfigDesk, Layers};
use punktfunk_host::health::child::Examiner;
use punktfunk_host::mgmt::{Basics, HttpsLimits};
use punktfunk_host::os::simulated::{Disk, Pace, Simulated, archive, demonstration};
use punktfunk_host::os::{MemoryKeep, NoPower, OsDesk, OsOptions, Phase, Version};

use super::browser::{Answer, Browser};
use super::rig::{CSRF, Making, Rig};

const OWNER: &str = "Cookie: __Host-punktfunk=owner";
const OURS: &str = "Origin: https://localhost";
const NEW: Version = Version::new(1, 5, 0);

/// A door in front of a simulated system, and its desk.
fn rig(limits: HttpsLimits) -> (Rig, OsDesk) {
    let save = Box::new(|_: &Disk| Ok(()));
    let backend = Simulated::new(Disk::default(), demonstration(), Pace::INSTANT, save);
    let keep = Arc::new(MemoryKeep::default());
    let os = OsDesk::open(OsOptions::new(Arc::new(backend), keep, Arc::new(Vec::new))).unwrap();
    until(&os, |os| os.view().state.inventory.is_some());
    let layers = Layers::default();
    let loaded = config::load(&layers);
    let basics = Basics {
        settings: ConfigDesk::before(layers, Err("there is none".to_owned()), loaded),
        examiner: Examiner::new("/bin/false".into(), Vec::new()),
        os: os.clone(),
        power: Arc::new(NoPower::default()),
        store: None,
        backups: None,
    };
    (Rig::start(Making { limits, basics: Some(basics), ..Making::default() }), os)
}

/// Waits until it is so with the desk.
fn until(os: &OsDesk, is: impl Fn(&OsDesk) -> bool) {
    let mut news = os.subscribe();
    while !is(os) {
        // Whoever looks before the news comes is woken by it.
        let _ = news.blocking_recv();
    }
}

/// Begins to send so many bytes.
fn begin(rig: &Rig, length: usize) -> Browser {
    let mut browser = rig.browser();
    let head = format!(
        "POST /api/v1/os/archive HTTP/1.1\r\nHost: localhost\r\n{OWNER}\r\n{OURS}\r\n{CSRF}\r\n\
         Content-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    browser.send(head.as_bytes()).unwrap();
    assert!(browser.head().unwrap().starts_with("http/1.1 100"));
    browser
}

#[track_caller]
fn check(answer: &Answer, expected: (u16, &str)) {
    assert_eq!((answer.status, &*answer.code()), expected, "{answer:?}");
}

#[test]
fn what_is_sent_is_offered_and_who_has_left_meanwhile_has_sent_nothing() {
    let (rig, os) = rig(HttpsLimits::default());
    let bytes = archive(NEW, 3_000_000);
    for (leaves, expected) in [(true, (401, "login-needed")), (false, (200, ""))] {
        rig.known.logged_out.store(false, Ordering::Relaxed);
        let mut browser = begin(&rig, bytes.len());
        let (most, last) = bytes.split_at(bytes.len() - 1);
        browser.send(most).unwrap();
        until(
            &os,
            |os| matches!(os.view().state.phase, Phase::Importing { done_bytes, .. } if done_bytes > 1 << 20),
        );
        rig.known.logged_out.store(leaves, Ordering::Relaxed);
        browser.send(last).unwrap();
        check(&browser.answer().unwrap(), expected);
        until(&os, |os| os.view().state.phase == Phase::Idle);
        let offered = os.view().state.offered.map(|release| release.version);
        assert_eq!(offered, (!leaves).then_some(NEW));
    }
}

#[test]
fn who_has_left_is_told_so_with_the_next_piece() {
    let (rig, os) = rig(HttpsLimits::default());
    let bytes = archive(NEW, 3_000_000);
    let mut browser = begin(&rig, bytes.len());
    browser.send(&bytes[..2_000_000]).unwrap();
    until(
        &os,
        |os| matches!(os.view().state.phase, Phase::Importing { done_bytes, .. } if done_bytes >= 1 << 20),
    );
    rig.known.logged_out.store(true, Ordering::Relaxed);
    browser.send(&bytes[2_000_000..2_000_001]).unwrap();
    check(&browser.answer().unwrap(), (401, "login-needed"));
    until(&os, |os| os.view().state.phase == Phase::Idle);
    assert_eq!(os.view().state.offered, None);
}

#[test]
fn what_keeps_coming_may_take_longer_than_any_other_body() {
    // Every other body is too late with its first byte.
    let limits = HttpsLimits { body_in_all: Duration::ZERO, ..HttpsLimits::default() };
    let (rig, os) = rig(limits);
    let bytes = archive(NEW, 3_000_000);
    let mut browser = begin(&rig, bytes.len());
    browser.send(&bytes).unwrap();
    check(&browser.answer().unwrap(), (200, ""));
    assert_eq!(os.view().state.offered.map(|release| release.version), Some(NEW));
    let mut browser = rig.browser();
    let head = format!(
        "POST /api/v1/os/check HTTP/1.1
Host: localhost
{OWNER}
{OURS}
{CSRF}
         Content-Length: 2

{{}}"
    );
    browser.send(head.as_bytes()).unwrap();
    assert_ne!(browser.answer().unwrap().status, 202, "it took too long");
}

#[test]
fn who_sends_too_slowly_is_told_so_and_nothing_is_kept() {
    let limits = HttpsLimits { body: Duration::from_millis(200), ..HttpsLimits::default() };
    let (rig, os) = rig(limits);
    let bytes = archive(NEW, 100_000);
    let mut browser = begin(&rig, bytes.len());
    browser.send(&bytes[..50_000]).unwrap();
    let answer = browser.answer().unwrap();
    check(&answer, (400, "incomplete"));
    assert!(answer.json()["detail"].as_str().unwrap().contains("took too long"), "{answer:?}");
    let state = os.view().state;
    assert_eq!((state.phase, state.offered), (Phase::Idle, None));
    assert_eq!(state.problem.unwrap().code, "incomplete");
}

#[test]
fn what_is_refused_is_told_to_who_still_sends() {
    let (rig, os) = rig(HttpsLimits::default());
    let mut browser = begin(&rig, 1 << 30);
    let bytes = archive(Version::new(9, 9, 9), 4 << 20);
    // More than all that could hold it on the way; whoever reads stops at its first line.
    let _ = browser.send(&bytes);
    check(&browser.answer().unwrap(), (409, "signature"));
    assert_eq!(os.view().state.phase, Phase::Idle);
    // Whoever says beforehand that it is too long need not send it.
    let mut browser = rig.browser();
    let token = "Authorization: Bearer pf_system";
    let head = format!(
        "POST /api/v1/os/archive HTTP/1.1\r\nHost: localhost\r\n{token}\r\n\
         Content-Length: {}\r\n\r\n",
        (16_u64 << 30) + 1
    );
    browser.send(head.as_bytes()).unwrap();
    check(&browser.answer().unwrap(), (413, "malformed"));
}
