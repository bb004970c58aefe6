//! Following what changes.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use punktfunk_host::mgmt::{Failure, HttpsLimits};

use super::browser::Browser;
use super::rig::{Making, Rig};

const OWNER: &str = "__Host-punktfunk=owner";

/// A follower that has begun, or the status it was answered with.
fn follow(rig: &Rig, cookie: &str, query: &str) -> Result<Browser, u16> {
    let mut browser = follow_at(rig, &format!("/events{query}"), &format!("Cookie: {cookie}"))?;
    browser.until("you follow from here").unwrap();
    Ok(browser)
}

/// A follower of what is at this path.
fn follow_at(rig: &Rig, path: &str, who: &str) -> Result<Browser, u16> {
    let mut browser = rig.browser();
    let request = format!("GET /api/v1{path} HTTP/1.1\r\nHost: localhost\r\n{who}\r\n\r\n");
    browser.send(request.as_bytes()).unwrap();
    let head = browser.head().unwrap();
    if !head.starts_with("http/1.1 200") {
        return Err(head.split(' ').nth(1).unwrap().parse().unwrap());
    }
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert!(head.contains("cache-control: no-store"), "{head}");
    Ok(browser)
}

fn failure(plain: &'static str) -> Failure {
    Failure { plain, whole: plain.to_owned() }
}

#[test]
fn followers_are_told_what_they_asked_for_with_numbers_that_grow() {
    let rig = Rig::start(Making::default());
    let mut all = follow(&rig, OWNER, "").unwrap();
    let mut stages = follow(&rig, "__Host-punktfunk=viewer", "?topics=stage,unknown").unwrap();
    let mut others = follow(&rig, OWNER, "?topics=sessions,pairing").unwrap();
    rig.startup.next_step();
    for follower in [&mut all, &mut stages] {
        let told = follower.until("plugging it in\"}").unwrap();
        assert!(told.contains("event: stage") && told.contains("\"stage\":\"starting\""), "{told}");
    }
    rig.startup.failed(failure("The plug is gone."));
    let told = all.until("gone.\"}").unwrap() + &all.until("\n\n").unwrap();
    assert!(told.contains("id: 2"), "{told}");
    // Nobody is told what it did not ask for: when the door closes, all it has had is the beginning.
    let mut rig = rig;
    let server = rig.server.take().unwrap();
    rig.runtime.block_on(server.stop());
    let had = String::from_utf8(others.rest()).unwrap();
    assert!(!had.contains("event:"), "{had}");
}

#[test]
fn whoever_logs_out_follows_no_longer() {
    let rig = Rig::start(Making::default());
    let mut follower = follow(&rig, OWNER, "").unwrap();
    rig.known.logged_out.store(true, Ordering::Relaxed);
    rig.startup.failed(failure("A secret of the owner's."));
    let had = follower.until("\r\n0\r\n").unwrap();
    assert!(!had.contains("secret"), "{had}");
    assert_eq!(follow(&rig, OWNER, "").err(), Some(401));
}

#[test]
fn so_many_may_follow_and_a_place_comes_free_with_its_connection() {
    let rig = Rig::start(Making::default());
    let mut followers: Vec<_> = (0..24).map(|_| follow(&rig, OWNER, "").unwrap()).collect();
    assert_eq!(follow(&rig, OWNER, "").err(), Some(429));
    followers.clear();
    let deadline = Instant::now() + Duration::from_secs(30);
    while follow(&rig, OWNER, "").is_err() {
        assert!(Instant::now() < deadline, "no place came free");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

#[test]
fn viewers_and_programs_take_no_place_of_the_owner_s() {
    let limits = HttpsLimits { connections_per_address: 64, ..HttpsLimits::default() };
    let rig = Rig::start(Making { limits, ..Making::default() });
    let fill = |who: &str| {
        // Whatever is followed, it is from the same places.
        let paths = ["/events", "/logs/follow"].into_iter().cycle();
        let followers: Vec<_> =
            paths.map_while(|path| follow_at(&rig, path, who).ok()).take(30).collect();
        assert_eq!(follow_at(&rig, "/logs/follow", who).err(), Some(429));
        followers
    };
    let viewers = fill("Cookie: __Host-punktfunk=viewer");
    let programs = fill("Authorization: Bearer pf_view");
    assert_eq!((viewers.len(), programs.len()), (8, 8));
    let owners = fill(&format!("Cookie: {OWNER}"));
    assert_eq!(owners.len(), 24);
}

#[test]
fn who_only_asks_how_it_would_be_to_follow_follows_nothing() {
    let limits = HttpsLimits {
        connection: Duration::from_millis(300),
        last_answer: Duration::from_millis(300),
        ..HttpsLimits::default()
    };
    let rig = Rig::start(Making { limits, ..Making::default() });
    let mut browser = rig.browser();
    let started = Instant::now();
    // None of these keeps the connection, or a place.
    for count in 0.. {
        let request =
            format!("HEAD /api/v1/events HTTP/1.1\r\nHost: localhost\r\nCookie: {OWNER}\r\n\r\n");
        if browser.send(request.as_bytes()).is_err() {
            break;
        }
        let Ok(head) = browser.head() else { break };
        assert!(head.starts_with("http/1.1 200"), "{count}: {head}");
        assert!(started.elapsed() < Duration::from_secs(10), "it is still listened to");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let followers: Vec<_> = (0..24).map(|_| follow(&rig, OWNER, "").unwrap()).collect();
    drop(followers);
}
