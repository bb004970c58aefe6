//! The daemon is killed in the middle of what an owner does, and started again on what it left: each thing was done or
//! was not, never half; what was answered was done; and whoever asks learns which of the two, and can go on.
//!
//! It is killed as soon as the request is sent, as soon as the database is written to, and as soon as the answer is
//! there.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::thread::{park_timeout, yield_now};
use std::time::{Duration, Instant, SystemTime};

use punktfunk_host::selftest::device::Device;
use punktfunk_host::store::{NewClient, Store};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};

use super::browser::Answer;
use super::daemon::local;
use super::process::{Daemon, House, OURS, Owner, PASSWORD, PATIENCE, PROGRAM};

/// When the daemon is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// The request is on its way.
    Sent,
    /// The database is being written to.
    Writing,
    /// The answer is here.
    Answered,
}

/// A request: method, path, header lines, body.
type Request<'a> = (&'a str, &'a str, &'a [&'a str], &'a [u8]);

/// Sends the request and kills the daemon at that point; gives the answer, if one was on its way.
fn cut(house: &House, mut daemon: Daemon, at: Cut, request: Request<'_>) -> Option<Answer> {
    let (method, path, headers, body) = request;
    let mut browser = daemon.browser();
    let before = written(house);
    browser.put(method, &format!("/api/v1{path}"), headers, body).unwrap();
    let deadline = Instant::now() + PATIENCE;
    let is_there = || match at {
        Cut::Sent => true,
        Cut::Writing => written(house) != before || browser.is_answered(),
        Cut::Answered => browser.is_answered(),
    };
    while !is_there() {
        assert!(Instant::now() < deadline, "{at:?}: nothing happens");
        yield_now();
    }
    if at == Cut::Answered {
        let answer = browser.answer().unwrap();
        daemon.kill();
        assert!((200..300).contains(&answer.status), "{answer:?}");
        return Some(answer);
    }
    daemon.kill();
    browser.answer().ok()
}

/// How the database's log looks from outside.
fn written(house: &House) -> Option<(u64, SystemTime)> {
    let log = fs::metadata(house.state().join("state.db-wal")).ok()?;
    Some((log.len(), log.modified().ok()?))
}

/// Starts the daemon and waits until it is ready.
fn start(house: &House) -> Daemon {
    let mut daemon = house.start("");
    assert_eq!(daemon.stage()["stage"], "ready");
    daemon
}

pub(crate) fn get(daemon: &mut Daemon, owner: &Owner, path: &str) -> Value {
    let answer = daemon.browser().ask("GET", &format!("/api/v1{path}"), &[&owner.cookie], "");
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()
}

pub(crate) fn change(
    daemon: &mut Daemon,
    owner: &Owner,
    method: &str,
    path: &str,
    body: &Value,
) -> (u16, Value) {
    let path = format!("/api/v1{path}");
    let answer = daemon.browser().ask(method, &path, &owner.lines(), &body.to_string());
    (answer.status, answer.json())
}

/// Whether this password opens the host, asked where tries are not counted.
fn opens(house: &House, daemon: &mut Daemon, password: &str) -> bool {
    // Both doors are open once this one is; before that, the socket of the one that was killed lies there.
    drop(daemon.browser());
    let body = json!({"role": "owner", "password": password}).to_string();
    let mut stream = UnixStream::connect(house.socket()).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 200") || said.starts_with("HTTP/1.1 401"), "{said}");
    said.starts_with("HTTP/1.1 200")
}

/// The login's cookie that an answer sets, as a header line.
fn cookie_of(answer: &Answer) -> Option<String> {
    let set = |line: &str| line.strip_prefix("set-cookie: __host-punktfunk=").map(str::to_owned);
    let set = answer.head.lines().find_map(set)?;
    Some(format!("Cookie: __Host-punktfunk={}", set.split(';').next()?))
}

/// Logs the owner in.
fn log_in(daemon: &mut Daemon, password: &str) -> Owner {
    let ask = json!({"role": "owner", "password": password}).to_string();
    let answer = daemon.browser().ask("POST", "/api/v1/session", &[OURS], &ask);
    let csrf = format!("X-Punktfunk-Csrf: {}", answer.json()["csrf"].as_str().unwrap());
    Owner { cookie: cookie_of(&answer).unwrap(), csrf }
}

fn who(daemon: &mut Daemon, cookie: &str) -> String {
    let told = daemon.browser().ask("GET", "/api/v1/session", &[cookie], "").json();
    told["who"].as_str().unwrap().to_owned()
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_claim_that_is_cut_was_made_or_was_not() {
    for cuts in [&[Cut::Sent, Cut::Writing][..], &[Cut::Answered]] {
        let house = House::new();
        let mut daemon = start(&house);
        let (token, code) = house.shown().unwrap();
        let ask = json!({"secret": token, "name": "Sofa", "password": PASSWORD}).to_string();
        for at in cuts {
            let request = ("POST", "/claim", &[][..], ask.as_bytes());
            let answer = cut(&house, daemon, *at, request);
            daemon = house.start("");
            let claimed = daemon.ask("/api/v1/landing").json()["claimed"].as_bool().unwrap();
            assert!(claimed || answer.is_none(), "{at:?}: what was answered is lost");
            if !claimed {
                assert_eq!(house.shown(), Some((token.clone(), code.clone())), "{at:?}");
                continue;
            }
            assert_eq!(house.shown(), None, "{at:?}: the claim is still shown");
            if let Some(answer) = answer {
                assert_eq!(who(&mut daemon, &cookie_of(&answer).unwrap()), "owner", "{at:?}");
            }
            break;
        }
        // Whoever was cut off asks again, and is let in or told that it has happened: then the password is the owner's.
        let again = daemon.browser().ask("POST", "/api/v1/claim", &[], &ask);
        assert!(again.status == 200 || again.code() == "claimed", "{again:?}");
        assert!(opens(&house, &mut daemon, PASSWORD));
        for secret in [&token, &code] {
            let ask = json!({"secret": secret, "name": "x", "password": PASSWORD}).to_string();
            assert_eq!(daemon.browser().ask("POST", "/api/v1/claim", &[], &ask).code(), "claimed");
        }
        assert_eq!(house.shown(), None);
    }
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_login_a_password_and_a_token_that_are_cut_are_there_or_are_not() {
    let (house, _) = House::owned();
    let mut password = PASSWORD.to_owned();
    let mut daemon = start(&house);
    for at in [Cut::Writing, Cut::Answered] {
        let owner = log_in(&mut daemon, &password);
        let count =
            |daemon: &mut Daemon| get(daemon, &owner, "/session/all").as_array().unwrap().len();
        let before = count(&mut daemon);
        let login = json!({"role": "owner", "password": password}).to_string();
        let answer = cut(&house, daemon, at, ("POST", "/session", &[OURS], login.as_bytes()));
        daemon = house.start("");
        let made = count(&mut daemon) - before;
        assert!(made == 1 || made == 0 && answer.is_none(), "{at:?}: {made} logins");
        if let Some(answer) = answer {
            assert_eq!(who(&mut daemon, &cookie_of(&answer).unwrap()), "owner", "{at:?}");
        }

        // Another one is logged in, who must go with the old password and stay with it.
        let other = log_in(&mut daemon, &password);
        let next = format!("{PASSWORD} {at:?}");
        let ask = json!({"old": password, "new": next}).to_string();
        let request = ("PUT", "/session/password", &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = house.start("");
        let changed = opens(&house, &mut daemon, &next);
        assert!(changed != opens(&house, &mut daemon, &password), "{at:?}: one of the two opens");
        assert!(changed || answer.is_none(), "{at:?}: what was answered is lost");
        let expected = if changed { "anonymous" } else { "owner" };
        assert_eq!(who(&mut daemon, &other.cookie), expected, "{at:?}");
        if let Some(answer) = answer {
            let own = cookie_of(&answer).unwrap_or(owner.cookie);
            assert_eq!(who(&mut daemon, &own), "owner", "who changed it stays: {at:?}");
        }
        if changed {
            password = next;
        }

        let owner = log_in(&mut daemon, &password);
        let ask = json!({"name": format!("{at:?}"), "scopes": ["view"]}).to_string();
        let request = ("POST", "/tokens", &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = house.start("");
        let tokens = get(&mut daemon, &owner, "/tokens");
        let ours = tokens.as_array().unwrap().iter().find(|one| one["name"] == format!("{at:?}"));
        assert!(ours.is_some() || answer.is_none(), "{at:?}: {tokens}");
        if let Some(answer) = &answer {
            let secret = answer.json()["secret"].as_str().unwrap().to_owned();
            assert_eq!(who(&mut daemon, &format!("Authorization: Bearer {secret}")), "token");
        }
        if let Some(ours) = ours {
            // One whose secret got lost on its way can be seen and removed.
            let path = format!("/tokens/{}", ours["id"].as_str().unwrap());
            assert_eq!(change(&mut daemon, &owner, "DELETE", &path, &json!({})).0, 204);
        }
    }
}

#[test]
#[ignore = "needs an unprivileged user"]
fn the_end_of_a_token_and_a_viewer_s_password_that_are_cut_hold_or_do_not() {
    let (house, owner) = House::owned();
    let mut daemon = start(&house);
    let mut watching: Option<String> = None;
    for at in [Cut::Writing, Cut::Answered] {
        let ask = json!({"name": "shelf", "scopes": ["view"]});
        let made = change(&mut daemon, &owner, "POST", "/tokens", &ask).1;
        let id = made["token"]["id"].as_str().unwrap().to_owned();
        let bearer = format!("Authorization: Bearer {}", made["secret"].as_str().unwrap());
        let path = format!("/tokens/{id}");
        let answer = cut(&house, daemon, at, ("DELETE", &path, &owner.lines()[..], b""));
        daemon = house.start("");
        let is_gone = who(&mut daemon, &bearer) == "anonymous";
        assert!(is_gone || answer.is_none(), "{at:?}: what was answered is lost");
        let listed = get(&mut daemon, &owner, "/tokens").to_string().contains(&id);
        let log = get(&mut daemon, &owner, "/audit").to_string();
        let is_told = log.contains(&format!("{id} shelf")) && log.contains("token-removed");
        assert_eq!(listed, !is_gone, "{at:?}");
        assert!(is_told || !is_gone, "{at:?}: {log}");
        let again = change(&mut daemon, &owner, "DELETE", &path, &json!({})).0;
        assert_eq!(again, if is_gone { 404 } else { 204 }, "{at:?}: it can be ended again");

        let password = format!("to look at it {at:?}");
        let ask = json!({ "password": password }).to_string();
        let request = ("PUT", "/session/viewer", &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = house.start("");
        let ask = json!({"role": "viewer", "password": password}).to_string();
        let looks = daemon.browser().ask("POST", "/api/v1/session", &[OURS], &ask);
        let is_set = looks.status == 200;
        assert!(is_set || looks.status == 401 && answer.is_none(), "{at:?}: {looks:?}");
        if let Some(before) = &watching {
            let expected = if is_set { "anonymous" } else { "viewer" };
            assert_eq!(who(&mut daemon, before), expected, "{at:?}: who looked with the old one");
        }
        watching = cookie_of(&looks).or(watching);
        assert_eq!(who(&mut daemon, &owner.cookie), "owner");
    }
}

/// Whether a prepared file counts as used, as the next start would find it.
fn is_used(house: &House) -> bool {
    let read_only = OpenFlags::SQLITE_OPEN_READ_ONLY;
    let database = Connection::open_with_flags(house.state().join("state.db"), read_only);
    let used = database.and_then(|database| {
        database.query_row("SELECT count(*) FROM consumed", [], |row| row.get::<_, u32>(0))
    });
    // The daemon may be opening it at this very moment.
    used.is_ok_and(|used| used > 0)
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_prepared_file_that_is_cut_is_taken_by_the_next_start_or_was() {
    let secret = "5d41402abc4b2a76b9719d911017c592";
    let network = json!({"ssid": "attic"});
    let prepared = json!({"name": "Den", "claim_secret": secret, "network": network}).to_string();
    // Killed when the first start has written something, and as soon as the file counts as used.
    for until_used in [false, true] {
        let house = House::new();
        let file = house.path().join("prepared.json");
        fs::write(&file, &prepared).unwrap();
        let start = || {
            let mut command = Command::new(PROGRAM);
            command.stdout(Stdio::null());
            house.start_by("", command, &["--prepared", file.to_str().unwrap()])
        };
        let before = written(&house);
        let mut daemon = start();
        let deadline = Instant::now() + PATIENCE;
        while if until_used { !is_used(&house) } else { written(&house) == before } {
            assert!(Instant::now() < deadline, "it writes nothing");
            yield_now();
        }
        daemon.kill();

        let mut daemon = start();
        assert_eq!(daemon.stage()["stage"], "ready");
        let landing = daemon.ask("/api/v1/landing").json();
        assert_eq!((&landing["name"], &landing["claimed"]), (&json!("Den"), &json!(false)));
        assert_eq!(house.shown().unwrap().0, secret);
        let (_, network) = local(house.path(), "GET", "/network", "");
        assert_eq!(network["prepared"]["ssid"], "attic", "it comes with the claim: {network}");
        let ask = json!({"secret": secret, "name": "Den", "password": PASSWORD}).to_string();
        assert_eq!(daemon.browser().ask("POST", "/api/v1/claim", &[], &ask).status, 200);
    }
}

/// The two settings that the tests change together.
fn settings(daemon: &mut Daemon, owner: &Owner) -> (String, u64) {
    let all = get(daemon, owner, "/settings");
    let value = |key: &str| {
        all.as_array().unwrap().iter().find(|one| one["key"] == key).unwrap()["value"].clone()
    };
    (value("name").as_str().unwrap().to_owned(), value("limits.sessions").as_u64().unwrap())
}

#[test]
#[ignore = "needs an unprivileged user"]
fn settings_and_a_restore_that_are_cut_hold_all_or_not_at_all() {
    let (house, owner) = House::owned();
    let mut daemon = start(&house);
    let mut held = settings(&mut daemon, &owner);
    for (at, name, sessions) in [(Cut::Writing, "Attic", 3), (Cut::Answered, "Cellar", 2)] {
        let ask = json!({"name": name, "limits.sessions": sessions}).to_string();
        let request = ("PATCH", "/settings", &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = start(&house);
        let now = settings(&mut daemon, &owner);
        let new = (name.to_owned(), sessions);
        assert!(now == new || now == held && answer.is_none(), "{at:?}: {now:?}");
        held = now;
    }

    let passphrase = json!({"passphrase": "a passphrase that is long"});
    let backup = {
        let ask = passphrase.to_string();
        daemon.browser().ask("POST", "/api/v1/backup", &owner.lines(), &ask)
    };
    assert_eq!(backup.status, 200, "{backup:?}");
    let body = [passphrase.to_string().as_bytes(), b"\n", &backup.body].concat();
    let later = json!({"name": "Later", "limits.sessions": 1});
    assert_eq!(change(&mut daemon, &owner, "PATCH", "/settings", &later).0, 200);
    for at in [Cut::Writing, Cut::Answered] {
        let answer = cut(&house, daemon, at, ("POST", "/restore", &owner.lines()[..], &body));
        daemon = start(&house);
        let now = settings(&mut daemon, &owner);
        let untouched = ("Later".to_owned(), 1);
        assert!(now == held || now == untouched && answer.is_none(), "{at:?}: {now:?}");
    }
    assert_eq!(settings(&mut daemon, &owner), held, "the last one was answered");
    assert!(opens(&house, &mut daemon, PASSWORD), "a restore takes nobody's password");
}

/// A device that asks to be paired; the answer comes when the owner has given its PIN.
pub(crate) fn ask_for_pairing(http: u16, device: &Device) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    let certificate = device.pem_hex();
    write!(
        stream,
        "GET /pair?uniqueid=0123456789ABCDEF&uuid=1&devicename=roth&updateState=1&phrase=getservercert&\
         salt=00112233445566778899aabbccddeeff&clientcert={certificate} HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    .unwrap();
    stream
}

/// The rest of what the host says to a device.
fn rest(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_pairing_that_is_cut_leaves_nobody_trusted_and_can_be_begun_anew() {
    let (house, owner) = House::owned();
    let device = Device::stock().unwrap();
    // Killed while the device waits for its PIN, and when it has got it and has not proved itself.
    for answered in [false, true] {
        let mut daemon = start(&house);
        let desk = get(&mut daemon, &owner, "/pairing");
        assert_eq!(desk["state"], "unarmed", "the owner sees that it is to be armed: {desk}");
        assert_eq!(desk["pending"], json!([]));
        assert_eq!(get(&mut daemon, &owner, "/clients"), json!([]));
        assert_eq!(change(&mut daemon, &owner, "POST", "/pairing/arm", &json!({})).0, 200);
        let asking = ask_for_pairing(daemon.http, &device);
        let deadline = Instant::now() + PATIENCE;
        let id = loop {
            let desk = get(&mut daemon, &owner, "/pairing");
            if let Some(one) = desk["pending"].as_array().unwrap().first() {
                break one["id"].as_u64().unwrap();
            }
            assert!(Instant::now() < deadline, "nobody asks: {desk}");
            park_timeout(Duration::from_millis(5));
        };
        let said = if answered {
            let pin = json!({"request": id, "pin": "1234", "name": "Kitchen"});
            let answer = change(&mut daemon, &owner, "POST", "/pairing/answer", &pin);
            assert_eq!(answer.0, 200, "{answer:?}");
            let said = rest(asking);
            daemon.kill();
            said
        } else {
            daemon.kill();
            rest(asking)
        };
        assert_eq!(said.contains("<plaincert>"), answered, "{said}");
    }
    let mut daemon = start(&house);
    assert_eq!(get(&mut daemon, &owner, "/clients"), json!([]), "it has proved nothing");
    assert_eq!(get(&mut daemon, &owner, "/pairing")["state"], "unarmed");
    let log = get(&mut daemon, &owner, "/audit").to_string();
    assert!(log.contains("pairing/answer") || log.contains("pairing-answer"), "{log}");
}

/// The daemon with a simulated system.
pub(crate) fn demonstrate(house: &House) -> Daemon {
    let mut command = Command::new(PROGRAM);
    command.stdout(Stdio::null());
    let mut daemon = house.start_by("", command, &["--demo"]);
    assert_eq!(daemon.stage()["stage"], "ready");
    daemon
}

/// The system's state, once it is so.
pub(crate) fn system(daemon: &mut Daemon, owner: &Owner, is: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let report = get(daemon, owner, "/os");
        if is(&report) {
            return report;
        }
        assert!(Instant::now() < deadline, "{report:#}");
        park_timeout(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs an unprivileged user"]
fn an_update_that_is_cut_goes_on_by_itself_and_its_owner_can_stop_it() {
    let (house, owner) = House::owned();
    let mut daemon = demonstrate(&house);
    system(&mut daemon, &owner, |report| report["phase"]["name"] == "idle");
    assert_eq!(change(&mut daemon, &owner, "POST", "/os/check", &json!({})).0, 202);
    system(&mut daemon, &owner, |report| report["offered"]["version"] == "1.5.0");
    system(&mut daemon, &owner, |report| report["phase"]["name"] == "idle");
    assert_eq!(change(&mut daemon, &owner, "POST", "/os/download", &json!({})).0, 202);
    let done = |report: &Value| report["phase"]["done_bytes"].as_u64().unwrap_or(0);
    let seen = done(&system(&mut daemon, &owner, |report| done(report) >= 8_000_000));
    daemon.kill();

    let mut daemon = demonstrate(&house);
    let report = system(&mut daemon, &owner, |report| report["phase"]["name"] == "downloading");
    assert!(done(&report) + 4_000_000 >= seen, "{seen} bytes were there: {report:#}");
    assert_eq!(change(&mut daemon, &owner, "POST", "/os/download/cancel", &json!({})).0, 202);
    let stopped = system(&mut daemon, &owner, |report| report["problem"]["code"] == "stopped");
    assert_eq!((&stopped["phase"]["name"], &stopped["simulated"]), (&json!("idle"), &json!(true)));
    daemon.kill();

    // What was stopped stays so, and is still told.
    let mut daemon = demonstrate(&house);
    let report = system(&mut daemon, &owner, |report| report["phase"]["name"] == "idle");
    assert_eq!(report["offered"]["version"], "1.5.0", "{report:#}");
    assert!(report["downloaded_bytes"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_device_an_app_and_the_end_of_logins_that_are_cut_are_changed_or_are_not() {
    let (house, owner) = House::owned();
    let device = NewClient {
        certificate_der: vec![1, 2, 3],
        name: "TV".to_owned(),
        remote: [127, 0, 0, 1].into(),
    };
    let id = Store::open(&house.state()).unwrap().add_client(device).unwrap().id;
    let path = format!("/clients/{id}");
    let mut name = json!("TV");
    let mut daemon = start(&house);
    for at in [Cut::Writing, Cut::Answered] {
        let next = json!(format!("TV {at:?}"));
        let ask = json!({ "name": next }).to_string();
        let request = ("PATCH", &*path, &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = start(&house);
        let told = get(&mut daemon, &owner, "/clients")[0]["name"].clone();
        assert!(told == next || told == name && answer.is_none(), "{at:?}: {told}");
        name = told;

        let (app, ask) = (format!("/apps/{at:?}"), json!({"display": "pattern"}).to_string());
        let request = ("PUT", &*app, &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = start(&house);
        let apps = get(&mut daemon, &owner, "/apps").to_string();
        let is_there = apps.contains(&format!("\"title\":\"{at:?}\""));
        assert!(is_there || answer.is_none(), "{at:?}: {apps}");

        let other = log_in(&mut daemon, PASSWORD);
        let request = ("DELETE", "/session/others", &owner.lines()[..], &b""[..]);
        let answer = cut(&house, daemon, at, request);
        daemon = start(&house);
        let still = who(&mut daemon, &other.cookie);
        assert!(still == "anonymous" || still == "owner" && answer.is_none(), "{at:?}: {still}");
        assert_eq!(who(&mut daemon, &owner.cookie), "owner", "{at:?}");
    }
    for at in [Cut::Writing, Cut::Answered] {
        let answer = cut(&house, daemon, at, ("DELETE", &path, &owner.lines()[..], b""));
        daemon = start(&house);
        let is_gone = get(&mut daemon, &owner, "/clients") == json!([]);
        assert!(is_gone || answer.is_none(), "{at:?}: what was answered is lost");
        if is_gone {
            break;
        }
    }
    assert_eq!(get(&mut daemon, &owner, "/clients"), json!([]));
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_pin_and_a_way_back_that_are_cut_are_done_or_are_not() {
    let (house, owner) = House::owned();
    fs::write(house.state().join("simulated-script.json"), r#"{"instant":true}"#).unwrap();
    let is_idle = |report: &Value| report["phase"]["name"] == "idle";
    let mut daemon = demonstrate(&house);
    let report = system(&mut daemon, &owner, is_idle);
    let before = report["previous"]["digest"].clone();
    let pinned = |report: &Value| report["previous"]["pinned"] == true;
    for at in [Cut::Sent, Cut::Answered] {
        let ask = json!({ "digest": before }).to_string();
        let request = ("POST", "/os/pin", &owner.lines()[..], ask.as_bytes());
        let answer = cut(&house, daemon, at, request);
        daemon = demonstrate(&house);
        // What was begun goes on by itself.
        let is_done = |report: &Value| is_idle(report) && (answer.is_none() || pinned(report));
        system(&mut daemon, &owner, is_done);
    }

    // What is planned stays planned, and the owner can still stop it.
    let running = report["running"]["digest"].clone();
    for at in [Cut::Sent, Cut::Answered] {
        let answer = cut(&house, daemon, at, ("POST", "/os/rollback", &owner.lines(), b"{}"));
        daemon = demonstrate(&house);
        let is_planned = |report: &Value| {
            let name = report["phase"]["name"].as_str().unwrap();
            ["waiting", "countdown"].contains(&name) || answer.is_none() && name == "idle"
        };
        let report = system(&mut daemon, &owner, is_planned);
        if !is_idle(&report) {
            assert_eq!(report["phase"]["version"], report["previous"]["version"], "{at:?}");
            let (status, _) = change(&mut daemon, &owner, "POST", "/os/apply/cancel", &json!({}));
            assert_eq!(status, 202, "{at:?}");
        }
        let report = system(&mut daemon, &owner, is_idle);
        assert_eq!(report["running"]["digest"], running, "{at:?}");
    }
}
