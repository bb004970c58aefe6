//! What strangers and foreign pages try.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use punktfunk_host::listen::Inherited;
use punktfunk_host::mgmt::{Claimed, Failure, HttpsLimits};

use super::browser::Browser;
use super::rig::{CSRF, Making, Rig};

const OWNER: &str = "Cookie: __Host-punktfunk=owner";
const OURS: &str = "Origin: https://localhost";
const ARM: &str = "/api/v1/pairing/arm";

/// Limits that a test can wait for.
fn short() -> HttpsLimits {
    HttpsLimits {
        handshake: Duration::from_millis(500),
        head: Duration::from_millis(500),
        body: Duration::from_millis(500),
        stall: Duration::from_millis(500),
        ..HttpsLimits::default()
    }
}

#[test]
fn everybody_is_told_how_far_the_host_is_and_every_answer_is_armoured() {
    let rig = Rig::start(Making { claimed: Claimed::No, ..Making::default() });
    let mut browser = rig.browser();
    let landing = browser.ask("GET", "/api/v1/landing", &[], "");
    let told = landing.json();
    assert_eq!((landing.status, told["product"].as_str()), (200, Some("punktfunk")));
    assert_eq!((told["claimed"].as_bool(), told["name"].as_str()), (Some(false), Some("sofa")));
    assert_eq!(told["fingerprint"].as_str(), Some(&*rig.identity.fingerprint().to_string()));
    let stage = &told["stage"];
    assert_eq!((stage["stage"].as_str(), stage["step"].as_u64()), (Some("starting"), Some(1)));
    assert_eq!(browser.ask("GET", "/api/v1/health", &[], "").status, 503);
    rig.startup.next_step();
    let told = browser.ask("GET", "/api/v1/landing", &[], "").json();
    assert_eq!(told["stage"]["doing"].as_str(), Some("plugging it in"));
    let whole = "the plug /dev/plug of 10.0.0.7 is gone".to_owned();
    rig.startup.failed(Failure { plain: "The plug is gone.", whole });
    let told = browser.ask("GET", "/api/v1/landing", &[], "").json();
    assert_eq!(told["stage"]["reason"].as_str(), Some("The plug is gone."));
    assert_eq!(browser.ask("GET", "/api/v1/health", &[], "").json()["problems"].as_u64(), Some(1));
    // The rest is for those who may look.
    for path in ["landing", "health", "status", "settings", "logs", "logs/bundle", "doctor", "os"] {
        let answer = browser.ask("GET", &format!("/api/v1/{path}"), &[], "");
        let said = answer.head.clone() + &String::from_utf8_lossy(&answer.body);
        assert!(!said.contains("/dev/plug") && !said.contains("10.0.0.7"), "{path}: {said}");
    }

    let wrong = browser.ask("GET", "/api/v1/landing", &["Host: evil.example"], "");
    for answer in [&landing, &wrong, &browser.ask("GET", "/nothing", &[], "")] {
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{answer:?}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert!(
            !answer.head.contains("access-control") && !answer.head.contains("strict-transport")
        );
    }
}

#[test]
fn a_name_that_was_rebound_reaches_nothing() {
    let rig = Rig::start(Making::default());
    let mut browser = rig.browser();
    let mut check = |host: &str, status: u16| {
        let answer = browser.ask("GET", "/api/v1/status", &[&format!("Host: {host}"), OWNER], "");
        assert_eq!(answer.status, status, "{host}: {answer:?}");
        if status == 421 {
            assert_eq!(answer.code(), "wrong-host");
        }
    };
    // Let in, a caller is told that the host is starting.
    for ours in ["localhost", "sofa.local:47990", "127.0.0.1", "punktfunk.local"] {
        check(ours, 503);
    }
    for foreign in ["evil.example", "127.0.0.2", "localhost.evil.example", "", "[::1]"] {
        check(foreign, 421);
    }
}

#[test]
fn a_foreign_page_changes_nothing_and_learns_nothing() {
    let rig = Rig::start(Making::default());
    let mut browser = rig.browser();
    let mut check = |method: &str, headers: &[&str], expected: (u16, &str)| {
        let answer =
            browser.ask(method, if method == "GET" { "/api/v1/status" } else { ARM }, headers, "");
        assert_eq!((answer.status, &*answer.code()), expected, "{method} {headers:?}: {answer:?}");
    };
    let (in_, foreign, csrf) = ((503, "starting"), (403, "foreign-origin"), (403, "csrf"));
    check("POST", &[OWNER, OURS, CSRF], in_);
    check("POST", &[OWNER, "Sec-Fetch-Site: same-origin", CSRF], in_);
    check("POST", &[OWNER, "Origin: https://evil.example", CSRF], foreign);
    check("POST", &[OWNER, "Origin: null", CSRF], foreign);
    check("POST", &[OWNER, "Sec-Fetch-Site: cross-site", CSRF], foreign);
    // A page of another port is sent the same cookies, and its requests are of the "same site".
    check("GET", &[OWNER, "Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: image"], foreign);
    check("GET", &[OWNER, "Origin: https://localhost:8443", "Sec-Fetch-Site: same-site"], foreign);
    check("GET", &[OWNER, "Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: document"], in_);
    check("POST", &[OWNER, "Sec-Fetch-Site: same-site", "Sec-Fetch-Dest: document", CSRF], foreign);
    check("POST", &[OWNER, CSRF], foreign);
    check("POST", &[OWNER, OURS], csrf);
    check("POST", &[OWNER, OURS, "X-Punktfunk-Csrf: "], csrf);
    check("POST", &[OWNER, OURS, "X-Punktfunk-Csrf: word-of-the-pagf"], csrf);
    check("GET", &[OWNER], in_);
    check("GET", &[OWNER, "Origin: https://evil.example"], foreign);
    // With a token the cookie is not looked at, so that it can neither help nor be misused.
    check("POST", &["Authorization: Bearer pf_pair"], in_);
    check("POST", &["Authorization: Bearer pf_pair", OWNER], in_);
    check("POST", &["Authorization: Bearer pf_view", OWNER, OURS, CSRF], (403, "not-allowed"));
    check("POST", &["Authorization: Bearer pf_none", OWNER, OURS, CSRF], (401, "login-needed"));
    check("POST", &["Authorization: Bearer pf_pair", "Origin: https://evil.example"], foreign);
    // Two cookies of one name: somebody has planted one.
    check(
        "GET",
        &["Cookie: __Host-punktfunk=owner; __Host-punktfunk=viewer"],
        (401, "login-needed"),
    );
    check("GET", &["Cookie: punktfunk=owner"], (401, "login-needed"));
    rig.known.logged_out.store(true, Ordering::Relaxed);
    check("GET", &[OWNER], (401, "login-needed"));
}

/// How long a connection lived on which this was sent.
fn lives(rig: &Rig, bytes: &[u8]) -> Duration {
    let mut browser = rig.browser();
    let started = Instant::now();
    browser.send(bytes).unwrap();
    let _ = browser.rest();
    started.elapsed()
}

#[test]
fn slow_and_silent_callers_are_not_waited_for() {
    let limits = short();
    let rig = Rig::start(Making { limits, ..Making::default() });
    let far = Duration::from_secs(10);
    let started = Instant::now();
    let mut half_open = TcpStream::connect(rig.at).unwrap();
    half_open.write_all(&[0x16, 3, 1]).unwrap();
    let _ = half_open.read_to_end(&mut Vec::new());
    assert!((limits.handshake..far).contains(&started.elapsed()), "half of a handshake");
    for (what, bytes, limit) in [
        ("nothing", &b""[..], limits.head),
        ("half a head", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ", limits.head),
        (
            "half a body",
            b"POST /api/v1/pairing/arm HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer pf_pair\r\n\
              Content-Length: 9\r\n\r\n{",
            Duration::ZERO,
        ),
        ("an idle connection", b"GET /api/v1/landing HTTP/1.1\r\nHost: localhost\r\n\r\n", limits.head),
    ] {
        let lived = lives(&rig, bytes);
        assert!((limit..far).contains(&lived), "{what}: {lived:?}");
    }
    // One that sends a byte now and then gets no more time than one that sends none.
    let mut loris = rig.browser();
    let started = Instant::now();
    let head = b"GET /api/v1/landing HTTP/1.1\r\nX: ".iter().chain(std::iter::repeat(&b'x'));
    for byte in head {
        if loris.send(&[*byte]).is_err() {
            break;
        }
        assert!(started.elapsed() < far, "it is still listened to");
        std::thread::park_timeout(Duration::from_millis(40));
    }
    assert_eq!(rig.browser().ask("GET", "/api/v1/landing", &[], "").status, 200);
}

#[test]
fn oversized_requests_meet_their_limits() {
    let rig = Rig::start(Making::default());
    let mut browser = rig.browser();
    let long = format!("X: {}", "x".repeat(64 * 1024));
    let request = format!("GET /api/v1/landing HTTP/1.1\r\nHost: localhost\r\n{long}\r\n\r\n");
    // The host may have answered and closed before all is sent.
    let _ = browser.send(request.as_bytes());
    let said = String::from_utf8_lossy(&browser.rest()).into_owned();
    // What was closed with something unread in it loses its answer on the way; that it was served would be one.
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    // One byte too many, all of which the host reads before it says so.
    let mut browser = rig.browser();
    let head = "GET /api/v1/landing HTTP/1.1\r\nHost: localhost\r\nX: ";
    browser.send(format!("{head}{}", "x".repeat(16 * 1024 - head.len())).as_bytes()).unwrap();
    assert_eq!(browser.answer().unwrap().status, 431);
    let mut browser = rig.browser();
    let token = "Authorization: Bearer pf_pair";
    let request = format!(
        "POST {ARM} HTTP/1.1\r\nHost: localhost\r\n{token}\r\nContent-Length: 99999999999\r\n\r\n"
    );
    browser.send(request.as_bytes()).unwrap();
    let answer = browser.answer().unwrap();
    assert_eq!(answer.status, 413, "{answer:?}");
    // A body that does not say how long it is: as much as may be is waited for, and no more.
    let chunked = format!(
        "POST {ARM} HTTP/1.1\r\nHost: localhost\r\n{token}\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", " ".repeat(bytes));
    for (bytes, end, expected) in [(16 * 1024, "0\r\n\r\n", 503), (16 * 1024 + 1, "", 413)] {
        let mut browser = rig.browser();
        browser.send(chunked.as_bytes()).unwrap();
        browser.send((chunk(8 * 1024) + &chunk(bytes - 8 * 1024) + end).as_bytes()).unwrap();
        let answer = browser.answer().unwrap();
        assert_eq!(answer.status, expected, "{bytes}: {answer:?}");
    }
}

/// Whether the host has closed a connection.
fn is_closed(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    !matches!(stream.read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

#[test]
fn one_address_gets_so_many_connections_and_its_oldest_makes_room() {
    let limits = HttpsLimits { connections_per_address: 4, ..HttpsLimits::default() };
    let rig = Rig::start(Making { limits, ..Making::default() });
    let mut open: Vec<_> = (0..4).map(|_| rig.browser()).collect();
    assert_eq!(open[1].ask("GET", "/api/v1/status", &[OWNER], "").status, 503);
    open.push(rig.browser());
    assert!(open[0].rest().is_empty(), "a fifth connection takes the oldest one's place");
    open.extend((0..4).map(|_| rig.browser()));
    for (at, is_served) in [(1, true), (2, false), (3, false), (4, false), (5, false), (8, true)] {
        let request = b"GET /api/v1/landing HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let answer = open[at].send(request).and_then(|()| open[at].answer());
        assert_eq!(answer.is_ok(), is_served, "{at}");
    }
}

#[test]
fn whoever_takes_every_place_keeps_the_owner_out_for_no_moment() {
    let limits = HttpsLimits {
        connections: 16,
        connections_per_address: 8,
        loopback_apart: true,
        ..HttpsLimits::default()
    };
    let rig = Rig::start(Making { limits, ..Making::default() });
    let flood =
        |last: u8| -> Vec<_> { (0..8).map(|_| rig.reach([127, 0, 0, last]).unwrap()).collect() };
    let mut crowd = flood(2);
    crowd.extend(flood(3));
    let mut owner = rig.browser();
    assert_eq!(owner.ask("GET", "/api/v1/status", &[OWNER], "").status, 503);
    // However many more of them come, the owner's connection stays, and another one gets in.
    (4..8).for_each(|last| crowd.extend(flood(last)));
    let mut other = rig.browser();
    for browser in [&mut owner, &mut other] {
        assert_eq!(browser.ask("GET", "/api/v1/status", &[OWNER], "").status, 503);
    }
    let deadline = Instant::now() + Duration::from_secs(30);
    while crowd.iter().filter(|stream| !is_closed(stream)).count() > 14 {
        assert!(Instant::now() < deadline, "more are kept than there are places");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn nobody_keeps_a_permission_by_sending_slowly() {
    let rig = Rig::start(Making::default());
    let check = |ends: bool, expected: (u16, &str)| {
        rig.known.logged_out.store(false, Ordering::Relaxed);
        let mut browser = rig.browser();
        let head = format!(
            "POST {ARM} HTTP/1.1\r\nHost: localhost\r\n{OWNER}\r\n{OURS}\r\n{CSRF}\r\n\
             Content-Length: 2\r\nExpect: 100-continue\r\n\r\n"
        );
        browser.send(head.as_bytes()).unwrap();
        // The host waits for the body: whose the request is, it has looked at.
        assert!(browser.head().unwrap().starts_with("http/1.1 100"));
        browser.send(b"{").unwrap();
        rig.known.logged_out.store(ends, Ordering::Relaxed);
        browser.send(b"}").unwrap();
        let answer = browser.answer().unwrap();
        assert_eq!((answer.status, &*answer.code()), expected);
    };
    check(false, (503, "starting"));
    check(true, (401, "login-needed"));
}

#[test]
fn a_body_that_keeps_coming_is_waited_for_longer_than_a_connection_lives() {
    let soon = Duration::from_millis(150);
    let limits = HttpsLimits {
        body_bytes: 1,
        connection: soon,
        last_answer: soon,
        ..HttpsLimits::default()
    };
    let rig = Rig::start(Making { limits, ..Making::default() });
    let mut browser = rig.browser();
    let head = format!(
        "POST {ARM} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer pf_pair\r\n\
         Content-Length: 22\r\n\r\n"
    );
    browser.send(head.as_bytes()).unwrap();
    for byte in b"{                    }" {
        browser.send(&[*byte]).unwrap();
        std::thread::park_timeout(soon / 6);
    }
    assert_eq!(browser.answer().unwrap().code(), "starting");
    assert!(browser.rest().is_empty(), "it was the connection's last");
}

#[test]
fn requests_that_could_be_read_in_two_ways_are_not_served() {
    let rig = Rig::start(Making::default());
    let get = "GET /api/v1/landing HTTP/1.1\r\nHost: localhost\r\n";
    for request in [
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "CONNECT localhost:443 HTTP/1.1\r\nHost: localhost:443\r\n\r\n".to_owned(),
        "OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "TRACE /api/v1/landing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET /api/v1/landing HTTP/1.0\r\n\r\n".to_owned(),
        "GET /api/v1/landing HTTP/1.1\r\n\r\n".to_owned(),
        "GET /api/v1/landing\r\n\r\n".to_owned(),
        "GET https://evil.example/api/v1/landing HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(),
        "GET https://localhost@evil.example/api/v1/landing HTTP/1.1\r\nHost: localhost\r\n\r\n"
            .to_owned(),
        format!("{get}Host: localhost\r\n\r\n"),
        format!("{get}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
        format!("{get}Content-Length: +3\r\n\r\nabc"),
        format!("{get}Content-Length: -1\r\n\r\n"),
        format!("{get}Transfer-Encoding: xchunked\r\n\r\n"),
        format!("{get}Transfer-Encoding: chunked, gzip\r\n\r\n"),
        format!("{get}X : y\r\n\r\n"),
        format!("{get}X: y\r\n folded\r\n\r\n"),
        format!("{get}X: \0\r\n\r\n"),
    ] {
        let mut browser = rig.browser();
        browser.send(request.as_bytes()).unwrap();
        if let Ok(head) = browser.head() {
            assert!(head.split(' ').nth(1).unwrap().starts_with('4'), "{request:?}: {head}");
        }
    }
    // Nobody speaks anything but HTTP/1.1 here, nor changes to it.
    let mut browser = rig.browser();
    let upgrade =
        ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"];
    assert_eq!(browser.ask("GET", "/api/v1/landing", &upgrade, "").status, 200);
}

#[test]
fn a_taken_port_is_told_and_the_sockets_of_systemd_are_served() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let socket = |name: &str| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap();
        listener.set_nonblocking(true).unwrap();
        (at, Inherited { name: name.to_owned(), listener })
    };
    let ((https, first), (plain, second), (other, third)) =
        (socket("https"), socket("http-redirect"), socket("somebody-elses"));
    let rig =
        Rig::start(Making { port, inherited: vec![first, second, third], ..Making::default() });
    assert!(rig.errors.len() == 1 && rig.errors[0].contains("console.port"), "{:?}", rig.errors);
    let mut browser = Browser::connect(https, rig.identity.certificate_der()).unwrap();
    assert_eq!(browser.ask("GET", "/api/v1/landing", &[], "").status, 200);

    let plainly = |host: &str| {
        let mut stream = TcpStream::connect(plain).unwrap();
        write!(stream, "GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
        let mut said = String::new();
        // It ends although nobody asked it to: nothing more is to be had there.
        stream.read_to_string(&mut said).unwrap();
        said.to_ascii_lowercase()
    };
    let led = plainly("sofa.local");
    assert!(
        led.starts_with("http/1.1 308") && led.contains("location: https://sofa.local/x\r\n"),
        "{led}"
    );
    assert!(plainly("evil.example").starts_with("http/1.1 421"));
    assert!(TcpStream::connect(other).is_err(), "nobody serves what the host does not know");
}

#[test]
fn the_door_closes_at_once_though_connections_are_open() {
    let mut rig = Rig::start(Making::default());
    let mut browser = rig.browser();
    assert_eq!(browser.ask("GET", "/api/v1/landing", &[], "").status, 200);
    let server = rig.server.take().unwrap();
    let started = Instant::now();
    rig.runtime.block_on(server.stop());
    assert!(started.elapsed() < Duration::from_secs(10));
    assert!(browser.rest().is_empty());
    assert!(TcpStream::connect(rig.at).is_err());
}
