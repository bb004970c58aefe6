//! Sessions, clients and pairing over the local socket: real sessions of the Test card, a real store, a real desk.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_core::media::{Codec, Mode};
use punktfunk_host::agent::{Local, ProfileNumber};
use punktfunk_host::display::DisplayBackend;
use punktfunk_host::display::pattern::PatternBackend;
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::mgmt::wire::{
    Client, Pairing, PastSession, Permission, ProblemDetails, Session,
};
use punktfunk_host::mgmt::{MgmtHandles, MgmtOptions, MgmtServer, Startup};
use punktfunk_host::pairing::{
    Asking, DeskMode, DeskOptions, PairingDesk, PairingOutcome, PinWait,
};
use punktfunk_host::session::{
    App, AppId, ClientId, Register, SessionDesk, SessionError, SessionOptions, Sessions, Sounds,
};
use punktfunk_host::store::{NewClient, Store};
use serde::de::DeserializeOwned;

const CARD: AppId = AppId(1);
const PATIENCE: Duration = Duration::from_secs(30);

struct Host {
    socket: PathBuf,
    desk: PairingDesk,
    store: Store,
    sessions: Arc<Sessions>,
    _server: MgmtServer,
    _runtime: tokio::runtime::Runtime,
}

impl Host {
    fn start(folder: &Path) -> Self {
        let store = Store::open(&folder.join("state")).unwrap();
        let display: Arc<dyn DisplayBackend> = Arc::new(PatternBackend::default());
        let card = App {
            id: CARD,
            title: "Test card".to_owned(),
            display: "pattern".to_owned(),
            commands: vec![],
            art: None,
        };
        let sessions = Sessions::new(SessionOptions {
            apps: vec![card],
            displays: BTreeMap::from([("pattern".to_owned(), display)]),
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 4,
            agents: Arc::new(Local::new(folder.join("sessions"), None)),
            profile: Box::new(|_| Ok(ProfileNumber(0))),
        });
        let sessions = Arc::new(sessions.with_register(Register::open(store.clone()).unwrap()));
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Prompt));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let server = {
            let _guard = runtime.enter();
            let handles = MgmtHandles::bare(desk.clone(), store.clone(), sessions.clone());
            let socket = folder.join("run/host.sock");
            let options = MgmtOptions { socket, owner_uid: None, appliance: false };
            MgmtServer::start(&options, Startup::complete(handles)).unwrap()
        };
        let socket = server.socket().to_owned();
        Self { socket, desk, store, sessions, _server: server, _runtime: runtime }
    }

    fn pair(&self, certificate: &[u8], name: &str) -> ClientId {
        let (certificate_der, name) = (certificate.to_vec(), name.to_owned());
        let remote = IpAddr::from([10, 0, 0, 5]);
        self.store.add_client(NewClient { certificate_der, name, remote }).unwrap().id
    }

    fn launch(&self, client: ClientId) -> Result<u64, SessionError> {
        let mode = Mode::new(1280, 720, 60_000).unwrap();
        self.sessions.launch(client, CARD, mode).map(|running| running.session.0)
    }

    fn open(&self, method: &str, path: &str, body: &str) -> UnixStream {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut text = String::new();
        self.open(method, path, body).read_to_string(&mut text).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.ask("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn change(&self, client: ClientId, change: &str) -> Client {
        let (status, body) = self.ask("PATCH", &format!("/clients/{client}"), change);
        assert_eq!(status, 200, "{change}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn refused(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let (status, answer) = self.ask(method, path, body);
        let problem: ProblemDetails = serde_json::from_str(&answer).unwrap();
        assert_eq!(problem.status, status);
        (status, problem.code)
    }

    /// What is past, once there is this much.
    fn past(&self, count: usize) -> Vec<PastSession> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let past: Vec<PastSession> = self.get("/sessions/past");
            if past.len() >= count {
                return past;
            }
            assert!(Instant::now() < deadline, "only {} sessions are past", past.len());
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    fn wants_to_pair(&self, client: u8, remote: &str) -> PinWait {
        let asking = Asking {
            unique_id: "0123456789ABCDEF".to_owned(),
            remote: remote.parse().unwrap(),
            device_name: "roth".to_owned(),
            client: ClientId([client; 32]),
        };
        self.desk.ask(asking).unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.sessions.shut_down(punktfunk_host::stream::EndReason::Shutdown);
    }
}

#[test]
fn what_was_played_is_remembered_across_a_restart_under_the_name_of_then() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path());
    let (tv, phone) = (host.pair(b"tv", "TV"), host.pair(b"phone", "Phone"));
    let first = host.launch(tv).unwrap();
    host.launch(phone).unwrap();
    let (status, body) = host.ask("DELETE", &format!("/sessions/{first}"), "");
    let ended: Session = serde_json::from_str(&body).unwrap();
    assert_eq!((status, ended.id, ended.client_name.as_str()), (200, first, "TV"));
    assert!(host.sessions.running(phone).is_some(), "no other session ends");
    assert_eq!(
        host.refused("DELETE", &format!("/sessions/{first}"), ""),
        (404, "unknown-session".into())
    );
    assert_eq!(host.refused("GET", "/sessions/99", ""), (404, "unknown-session".into()));
    assert_eq!(host.refused("GET", "/sessions/x", ""), (400, "malformed".into()));
    host.past(1);
    host.change(tv, r#"{"name":"Sofa"}"#);
    // The other one is removed while it plays.
    assert_eq!(host.ask("DELETE", &format!("/clients/{phone}"), "").0, 200);
    let past = host.past(2);
    let told: Vec<_> = past.iter().map(|past| (&*past.client_name, &*past.reason)).collect();
    assert_eq!(told, [("Phone", "it was quit"), ("TV", "it was quit")]);
    assert_eq!((past[0].app.as_str(), past[0].mode.as_str()), ("Test card", "1280x720@60"));
    assert!(past[0].figures.is_some() && past[0].ended_at >= past[0].began_at);
    host.launch(tv).unwrap();
    drop(host);

    let host = Host::start(folder.path());
    let after: Vec<PastSession> = host.get("/sessions/past");
    assert_eq!(after[0].reason, "the host was stopped");
    assert_eq!(after[0].client_name, "Sofa");
    assert_eq!(after[1..], past);
    let page: Vec<PastSession> = host.get(&format!("/sessions/past?limit=1&before={}", past[0].id));
    assert_eq!(page, past[1..]);
    assert_eq!(host.refused("GET", "/sessions/past?limit=x", ""), (400, "malformed".into()));
}

#[test]
fn a_disk_that_fails_costs_the_memory_and_not_the_end_of_a_session() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path());
    let tv = host.pair(b"tv", "TV");
    let other = rusqlite::Connection::open(host.store.database()).unwrap();
    other.execute_batch("DROP TABLE past_session").unwrap();
    for _ in 0..3 {
        let session = host.launch(tv).unwrap();
        assert_eq!(host.ask("DELETE", &format!("/sessions/{session}"), "").0, 200);
    }
    assert_eq!(host.refused("GET", "/sessions/past", ""), (500, "store".into()));
}

#[test]
fn the_owner_says_what_a_device_may_do_and_until_when() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path());
    let tv = host.pair(b"tv", "TV");
    let clients: Vec<Client> = host.get("/clients");
    assert_eq!(clients[0].permissions, [Permission::Launch, Permission::Input]);
    assert_eq!(
        (clients[0].expires_at, clients[0].expired, clients[0].streaming),
        (None, false, false)
    );

    assert_eq!(host.change(tv, r#"{"permissions":["input"]}"#).permissions, [Permission::Input]);
    assert_eq!(host.launch(tv), Err(SessionError::MayNotLaunch));
    let all = host
        .change(tv, r#"{"permissions":["launch","input"],"name":"Sofa","expires_at":4102444800}"#);
    assert_eq!(
        (all.name.as_str(), all.expires_at, all.expired),
        ("Sofa", Some(4_102_444_800), false)
    );
    let session = host.launch(tv).unwrap();

    // What is not said stays; a past moment ends what runs.
    let over = host.change(tv, r#"{"expires_at":1}"#);
    assert_eq!((over.name.as_str(), over.expired, over.permissions.len()), ("Sofa", true, 2));
    let past = host.past(1);
    assert_eq!(past[0].reason, "the device's time as a guest is over");
    let Err(refusal) = host.launch(tv) else { panic!("a guest comes back") };
    assert!(refusal.to_string().contains("ask the owner"), "{refusal}");
    let sessions: Vec<Session> = host.get("/sessions");
    assert_eq!(
        sessions.iter().find(|one| one.id == session).unwrap().ended,
        Some(past[0].reason.clone())
    );
    assert_eq!(host.change(tv, r#"{"expires_at":null}"#).expires_at, None);
    assert!(host.launch(tv).is_ok());

    let path = format!("/clients/{tv}");
    assert_eq!(host.refused("PATCH", &path, r#"{"name":" "}"#), (422, "malformed-name".into()));
    let late = r#"{"expires_at":253402300800}"#;
    assert_eq!(host.refused("PATCH", &path, late), (422, "malformed-time".into()));
    let unknown = r#"{"permissions":["fly"]}"#;
    assert_eq!(host.refused("PATCH", &path, unknown), (400, "malformed".into()));
    let nobody = format!("/clients/{}", ClientId([7; 32]));
    assert_eq!(host.refused("PATCH", &nobody, "{}"), (404, "unknown-client".into()));
}

/// The next snapshot of the desk that somebody who follows it hears.
fn next(events: &mut impl BufRead) -> Pairing {
    loop {
        let mut line = String::new();
        assert!(events.read_line(&mut line).unwrap() > 0, "the events end");
        if let Some(data) = line.trim_end().strip_prefix("data: ") {
            return serde_json::from_str(data).unwrap();
        }
    }
}

#[test]
fn the_desk_is_followed_and_says_who_asks_who_was_declined_and_how_it_ended() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start(folder.path());
    let mut events = BufReader::new(host.open("GET", "/pairing/events", ""));
    assert!(next(&mut events).pending.is_empty(), "how it stands comes first");

    let wait = host.wants_to_pair(0xab, "10.0.0.5");
    let asked = next(&mut events);
    let request = &asked.pending[0];
    assert_eq!(request.fingerprint, "abab abab abab abab");
    assert_eq!((request.remote.to_string().as_str(), request.named), ("10.0.0.5", false));
    assert!((295..=300).contains(&request.expires_seconds) && request.asked_seconds < 5);

    let decline = format!(r#"{{"request":{}}}"#, request.id);
    assert_eq!(host.ask("POST", "/pairing/decline", &decline).0, 204);
    let declined = next(&mut events);
    assert_eq!(declined.denied[0].fingerprint, "abab abab abab abab");
    assert!((595..=600).contains(&declined.denied[0].remaining_seconds));
    assert!(declined.recent[0].detail.contains("the owner declined"), "{declined:?}");
    drop(wait);

    // Over the local socket a device needs no name.
    let wait = host.wants_to_pair(0xcd, "10.0.0.6");
    assert_eq!(next(&mut events).pending.len(), 1);
    assert_eq!(host.ask("POST", "/pairing/answer", r#"{"pin":"1234"}"#).0, 200);
    assert!(next(&mut events).pending.is_empty());
    host.desk.report(wait.id(), PairingOutcome::WrongPin);
    let ended = next(&mut events);
    let last = ended.recent.last().unwrap();
    assert_eq!(last.outcome, "wrong-pin");
    assert!(last.detail.contains("type the new PIN"), "{}", last.detail);
}
