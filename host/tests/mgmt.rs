//! The management socket from end to end: a real server, a real store, a real desk, and the client the CLI uses.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use punktfunk_core::media::{
    BlockShape, Codec, DropReason, FrameFate, FrameIndex, FrameKind, FrameShape, FrameTrace, Mode,
    SourceIndex,
};
use punktfunk_core::time::Timestamp;
use punktfunk_host::access::{Access, AccessOptions, ClaimAttempt, Scope, Scopes};
use punktfunk_host::health::Finding;
use punktfunk_host::health::child::Examiner;
use punktfunk_host::identity::{ConsoleIdentity, Identity};
use punktfunk_host::logbook::Logbook;
use punktfunk_host::machine::storage::{Folder, Purpose};
use punktfunk_host::mgmt::client::{Client, ClientError};
use punktfunk_host::mgmt::wire::{Backend, Block, Fate, Listen, StatusReport};
use punktfunk_host::mgmt::{
    Always, Failure, MgmtError, MgmtHandles, MgmtOptions, MgmtServer, SocketEnvironment, Startup,
};
use punktfunk_host::pairing::{
    Asking, DeskLimits, DeskMode, DeskOptions, PairingDesk, PairingOutcome, PinWait,
};
use punktfunk_host::session::{
    App, AppId, Running, SessionDesk, SessionError, SessionId, SessionInfo, StreamGrant,
};
use punktfunk_host::store::{AuditEntry, AuditKind, ClientId, NewClient, PairedClient, Store};
use punktfunk_host::stream::{EndReason, StreamLine, StreamSpec};
use tracing_subscriber::layer::SubscriberExt as _;

/// Sessions that a test puts there by hand.
#[derive(Default)]
struct FakeSessions {
    running: Mutex<HashMap<ClientId, Running>>,
}

impl SessionDesk for FakeSessions {
    fn apps(&self) -> Vec<App> {
        vec![App {
            id: AppId(7),
            title: "Test card".to_owned(),
            display: "pattern".to_owned(),
            commands: Vec::new(),
            art: None,
        }]
    }

    fn codecs(&self) -> Vec<Codec> {
        vec![Codec::H264]
    }

    fn running(&self, client: ClientId) -> Option<Running> {
        self.running.lock().unwrap().get(&client).cloned()
    }

    fn launch(&self, client: ClientId, app: AppId, mode: Mode) -> Result<Running, SessionError> {
        let running = Running { session: SessionId(3), app, mode, streaming: true };
        self.running.lock().unwrap().insert(client, running.clone());
        Ok(running)
    }

    fn resume(&self, _client: ClientId) -> Result<Running, SessionError> {
        Err(SessionError::NotRunning)
    }

    fn prepare_stream(
        &self,
        _session: SessionId,
        _spec: StreamSpec,
        _line: StreamLine,
    ) -> Result<StreamGrant, SessionError> {
        Err(SessionError::NotRunning)
    }

    fn quit(&self, client: ClientId) {
        self.running.lock().unwrap().remove(&client);
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let running = self.running.lock().unwrap();
        let info = |(client, running): (&ClientId, &Running)| SessionInfo {
            id: running.session,
            client: *client,
            self_test: *client == SELF_TEST,
            app: "Test card".to_owned(),
            mode: running.mode,
            streaming: running.streaming,
            ended: None,
        };
        running.iter().map(info).collect()
    }

    fn traces(&self, session: SessionId) -> Vec<FrameTrace> {
        if session != SessionId(3) {
            return Vec::new();
        }
        let at = Timestamp::from_micros;
        let sent = FrameFate::Sent {
            index: FrameIndex(1),
            kind: FrameKind::Idr,
            encode_began_at: at(11),
            encoded_at: at(12),
            first_sent_at: at(13),
            last_sent_at: at(14),
            bytes: 1500,
            datagrams: 3,
            shape: FrameShape::new(65_535, [BlockShape { data: 1, parity: 2 }]),
        };
        let dropped = FrameFate::Dropped(DropReason::Superseded);
        [(0, sent), (1, dropped)]
            .map(|(source, fate)| FrameTrace {
                source: SourceIndex(source),
                captured_at: at(10),
                repeated: false,
                fate,
            })
            .to_vec()
    }

    fn shut_down(&self, _reason: EndReason) {}
}

struct Host {
    folder: tempfile::TempDir,
    socket: PathBuf,
    desk: PairingDesk,
    store: Store,
    sessions: Arc<FakeSessions>,
    logbook: Logbook,
    server: Option<MgmtServer>,
    runtime: tokio::runtime::Runtime,
}

impl Host {
    fn start(mode: DeskMode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("run/host.sock");
        let desk = PairingDesk::new(DeskOptions::new(mode));
        let store = Store::open(&folder.path().join("state")).unwrap();
        let sessions = Arc::new(FakeSessions::default());
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let logbook = Logbook::default();
        let mut host =
            Self { folder, socket, desk, store, sessions, logbook, server: None, runtime };
        host.server = Some(host.serve().unwrap());
        host
    }

    fn serve(&self) -> Result<MgmtServer, MgmtError> {
        let _guard = self.runtime.enter();
        let handles = MgmtHandles {
            status: Arc::new(report),
            // A check that crashes, whichever it is.
            examiner: Examiner::new("/bin/sh".into(), vec!["-c".into(), "kill -ABRT $$".into()]),
            ..MgmtHandles::bare(self.desk.clone(), self.store.clone(), self.sessions.clone())
        };
        MgmtServer::start(
            &MgmtOptions { socket: self.socket.clone(), owner_uid: None, appliance: false },
            Startup::complete(handles).with(self.always()),
        )
    }

    fn always(&self) -> Always {
        let path = self.folder.path().join("state");
        let folders = vec![Folder::of(Purpose::State, path)];
        Always { logbook: self.logbook.clone(), folders, ..Always::default() }
    }

    /// Writes into the host's log.
    fn log(&self, write: impl FnOnce()) {
        let subscriber = tracing_subscriber::registry().with(self.logbook.layer());
        tracing::subscriber::with_default(subscriber, write);
    }

    /// What the host answers to this, read as JSON; the status before it.
    fn get(&self, path: &str) -> (u16, serde_json::Value) {
        let answer = self.raw(format!("GET /api/v1{path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes());
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap())
    }

    fn client(&self) -> Client {
        Client::at(&self.socket).unwrap()
    }

    fn ask(&self, remote: &str) -> PinWait {
        self.desk
            .ask(Asking {
                unique_id: "0123456789ABCDEF".to_owned(),
                remote: remote.parse().unwrap(),
                device_name: "roth".to_owned(),
                client: ClientId([9; 32]),
            })
            .unwrap()
    }

    fn pair(&self, certificate: &[u8]) -> PairedClient {
        self.store
            .add_client(NewClient {
                certificate_der: certificate.to_vec(),
                name: "TV".to_owned(),
                remote: "10.0.0.5".parse().unwrap(),
            })
            .unwrap()
    }

    /// Sends bytes as they are and reads until the host closes.
    fn raw(&self, request: &[u8]) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        // The host may have answered and closed before all is written.
        let _ = stream.write_all(request);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        answer
    }
}

fn report() -> StatusReport {
    StatusReport {
        version: "0.1.0".to_owned(),
        name: "box".to_owned(),
        listens: vec![Listen { protocol: "http".to_owned(), address: "[::]:47989".to_owned() }],
        backends: vec![Backend {
            room: "encode".to_owned(),
            chosen: "libx264".to_owned(),
            why: "no hardware encoder opened".to_owned(),
        }],
        problems: Vec::new(),
        near: None,
    }
}

fn code(error: ClientError) -> String {
    match error {
        ClientError::Problem(problem) => problem.code,
        other => panic!("{other}"),
    }
}

#[test]
fn a_pin_goes_through_the_socket_to_the_one_request() {
    let host = Host::start(DeskMode::Prompt);
    let client = host.client();
    assert_eq!(client.status().unwrap(), report());
    assert_eq!(code(client.answer(None, "1234", None).unwrap_err()), "nothing-pending");
    let mut wait = host.ask("10.0.0.5");
    let before = client.pairing().unwrap();
    assert_eq!((before.state.as_str(), before.pending.len()), ("open", 1));
    assert_eq!(code(client.answer(None, "12345", None).unwrap_err()), "malformed-pin");
    let chosen = client.answer(None, "0123", Some("Sofa")).unwrap();
    assert_eq!((chosen.id, chosen.device_name.as_str()), (wait.id().0, "Sofa"));
    let pin = host.runtime.block_on(wait.pin()).unwrap();
    assert_eq!(pin.as_bytes(), b"0123");
    assert_eq!(client.outcome(wait.id().0, Duration::ZERO).unwrap(), None);
    let id = wait.id().0;
    let listener = std::thread::spawn(move || client.outcome(id, Duration::from_secs(50)));
    host.desk.report(wait.id(), PairingOutcome::WrongPin);
    let finished = listener.join().unwrap().unwrap().unwrap();
    assert_eq!((finished.id, finished.outcome.as_str()), (id, "wrong-pin"));
}

#[test]
fn a_check_that_crashes_is_told_and_the_host_lives() {
    let host = Host::start(DeskMode::Prompt);
    let client = host.client();
    let names = client.checks().unwrap();
    for expected in ["display:sway", "encoder:x264", "store", "network"] {
        assert!(names.iter().any(|name| name == expected), "{expected}: {names:?}");
    }
    let Finding::Broken { reason } = client.examine("encoder:x264").unwrap() else { panic!() };
    assert!(reason.contains("signal 6"), "{reason}");
    assert_eq!(code(client.examine("no-such-check").unwrap_err()), "unknown-check");
    assert_eq!(client.status().unwrap(), report());
}

#[test]
fn several_requests_are_listed_instead_of_guessed_at() {
    let host = Host::start(DeskMode::Prompt);
    let _one = host.ask("10.0.0.5");
    let two = host.ask("10.0.0.6");
    let error = host.client().answer(None, "1234", None).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("10.0.0.5") && text.contains("10.0.0.6"), "{text}");
    assert_eq!(code(error), "several-pending");
    host.client().decline(two.id().0).unwrap();
    assert_eq!(host.client().pairing().unwrap().recent[0].outcome, "declined");
    assert_eq!(code(host.client().decline(two.id().0).unwrap_err()), "unknown-request");
}

#[test]
fn a_long_poll_returns_when_something_happens() {
    let host = Host::start(DeskMode::Prompt);
    let revision = host.client().pairing().unwrap().revision;
    let client = host.client();
    let listener =
        std::thread::spawn(move || client.pairing_after(revision, Duration::from_secs(50)));
    let _wait = host.ask("10.0.0.5");
    assert_eq!(listener.join().unwrap().unwrap().pending.len(), 1);
    let unchanged = host.client().pairing().unwrap();
    let same = host.client().pairing_after(unchanged.revision, Duration::ZERO).unwrap();
    assert_eq!(same.revision, unchanged.revision);
}

#[test]
fn an_unattended_host_is_armed_over_the_socket() {
    let host = Host::start(DeskMode::Armed);
    let client = host.client();
    assert_eq!(client.pairing().unwrap().state, "unarmed");
    let armed = client.arm(None).unwrap();
    assert_eq!(armed.state, "armed");
    assert!((290..=300).contains(&armed.armed_seconds.unwrap()));
    assert_eq!(client.disarm().unwrap().state, "unarmed");
}

// spec: gamestream 13 item 39
#[test]
fn a_removed_device_is_trusted_no_more_and_its_session_ends() {
    let host = Host::start(DeskMode::Prompt);
    let paired = host.pair(b"certificate");
    let mode = Mode::new(1280, 720, 59_940).unwrap();
    host.sessions.launch(paired.id, AppId(7), mode).unwrap();
    let client = host.client();
    let sessions = client.sessions().unwrap();
    assert_eq!(sessions.len(), 1);
    assert_eq!((sessions[0].app.as_str(), sessions[0].client_name.as_str()), ("Test card", "TV"));
    assert_eq!(sessions[0].mode, "1280x720@59.940");
    let id = paired.id.to_string();
    assert_eq!(client.rename_client(&id, "Sofa").unwrap().name, "Sofa");
    assert_eq!(client.clients().unwrap()[0].name, "Sofa");
    client.remove_client(&id).unwrap();
    assert!(host.store.paired_client_by_certificate(b"certificate").is_none());
    assert!(host.sessions.running(paired.id).is_none());
    assert_eq!(code(client.remove_client(&id).unwrap_err()), "unknown-client");
    assert!(client.remove_client("../status").is_err());
}

#[test]
fn traces_say_what_became_of_each_frame() {
    let host = Host::start(DeskMode::Prompt);
    let traces = host.client().traces(3).unwrap();
    assert!(matches!(&traces[0].fate, Fate::Sent { kind, bytes: 1500, .. } if kind == "idr"));
    let Fate::Sent { first_sequence, blocks, .. } = &traces[0].fate else { unreachable!() };
    assert_eq!(
        (*first_sequence, blocks.as_slice()),
        (65_535, [Block { data: 1, parity: 2 }].as_slice())
    );
    assert!(matches!(&traces[1].fate, Fate::Dropped { reason } if reason == "superseded"));
    assert!(host.client().traces(4).unwrap().is_empty());
    let text = host.raw(b"GET /api/v1/sessions/3/traces HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(text.contains(r#""first_sequence":65535,"blocks":[{"data":1,"parity":2}]"#), "{text}");
    assert!(text.contains(r#""fate":"dropped","reason":"superseded""#), "{text}");
}

#[test]
fn errors_have_one_shape_and_requests_are_bounded() {
    let host = Host::start(DeskMode::Prompt);
    let check = |request: &[u8], status: &str, code: &str| {
        let answer = host.raw(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
    };
    check(b"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404", "unknown-path");
    check(b"PUT /api/v1/status HTTP/1.1\r\nHost: x\r\n\r\n", "405", "unknown-method");
    check(b"GET /api/v1/pairing?after=x HTTP/1.1\r\nHost: x\r\n\r\n", "400", "malformed");
    check(b"DELETE /api/v1/clients/12 HTTP/1.1\r\nHost: x\r\n\r\n", "400", "malformed");
    let post = |length: usize, body: &str| {
        format!(
            "POST /api/v1/pairing/answer HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n\
             {body}"
        )
        .into_bytes()
    };
    check(&post(5, "nope!"), "400", "malformed");
    check(&post(20_000, &"x".repeat(20_000)), "413", "malformed");
    let long_head = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000));
    assert!(!host.raw(long_head.as_bytes()).contains("200 OK"));
    assert!(host.client().status().is_ok());
}

#[test]
fn the_socket_comes_and_goes_with_the_host() {
    let mut host = Host::start(DeskMode::Prompt);
    assert!(matches!(host.serve(), Err(MgmtError::AlreadyRunning { .. })));
    let environment =
        SocketEnvironment { socket: Some(host.socket.clone()), ..SocketEnvironment::default() };
    let found = Client::find_in(&environment).unwrap();
    assert_eq!(found.socket(), host.socket);
    let server = host.server.take().unwrap();
    host.runtime.block_on(server.stop());
    assert!(!host.socket.exists() && !host.socket.parent().unwrap().exists());
    let error = Client::find_in(&environment).unwrap_err();
    assert!(error.to_string().contains("ci/start"), "{error}");
    assert!(matches!(found.status(), Err(ClientError::NotRunning { .. })));
    host.server = Some(host.serve().unwrap());
    assert!(host.client().status().is_ok());
}

#[test]
fn a_stop_does_not_wait_for_a_long_poll() {
    let mut host = Host::start(DeskMode::Prompt);
    let client = host.client();
    let revision = client.pairing().unwrap().revision;
    let listener =
        std::thread::spawn(move || client.pairing_after(revision, Duration::from_secs(50)));
    let server = host.server.take().unwrap();
    let stopped = host
        .runtime
        .block_on(async { tokio::time::timeout(Duration::from_secs(10), server.stop()).await });
    assert!(stopped.is_ok());
    assert!(listener.join().unwrap().is_err());
}

/// Whose session the fake desk calls the self-test's.
const SELF_TEST: ClientId = ClientId([3; 32]);

#[test]
fn a_self_test_that_does_not_renew_is_erased_with_its_session() {
    let mut host = Host::start(DeskMode::Armed);
    // The same host with a desk that is quicker to lose patience.
    host.server = None;
    // Long enough for what follows on a machine that does other things as well.
    let lease = Duration::from_secs(2);
    let limits = DeskLimits { permit_lease: lease, ..DeskLimits::default() };
    host.desk = PairingDesk::new(DeskOptions { mode: DeskMode::Armed, limits });
    host.server = Some(host.serve().unwrap());

    let (id, other) = (SELF_TEST, ClientId([4; 32]));
    let running = Running {
        session: SessionId(3),
        app: AppId(1),
        mode: Mode::new(1280, 720, 30_000).unwrap(),
        streaming: true,
    };
    host.sessions.running.lock().unwrap().insert(id, running);
    let client = host.client();
    let permit = client.permit_self_test(&id.to_string()).unwrap();
    assert_eq!((permit.client, permit.request), (id.to_string(), None));
    assert_eq!(client.sessions().unwrap()[0].client_name, "the self-test");
    assert_eq!(code(client.permit_self_test(&other.to_string()).unwrap_err()), "self-test-runs");
    assert!(client.clients().unwrap().is_empty());
    // Nobody renews, as if it had been killed.
    let deadline = Instant::now() + Duration::from_secs(60);
    while !host.sessions.running.lock().unwrap().is_empty() {
        assert!(Instant::now() < deadline, "its session is still there");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(code(client.renew_self_test(&id.to_string()).unwrap_err()), "unknown-self-test");
    assert_eq!(code(client.end_self_test(&id.to_string()).unwrap_err()), "unknown-self-test");
    // The next one may begin as soon as the end of the last one is over.
    while let Err(error) = client.permit_self_test(&other.to_string()) {
        assert_eq!(code(error), "self-test-runs");
        assert!(Instant::now() < deadline, "the place is not free again");
    }
}

#[test]
fn a_self_test_is_erased_at_its_word_and_takes_no_paired_certificate() {
    let host = Host::start(DeskMode::Armed);
    let client = host.client();
    let paired = host.pair(b"a television");
    assert_eq!(
        code(client.permit_self_test(&paired.id.to_string()).unwrap_err()),
        "already-paired"
    );
    assert_eq!(code(client.permit_self_test("no id").unwrap_err()), "malformed");
    let id = ClientId([3; 32]).to_string();
    client.permit_self_test(&id).unwrap();
    assert_eq!(client.renew_self_test(&id).unwrap().client, id);
    client.end_self_test(&id).unwrap();
    assert_eq!(code(client.renew_self_test(&id).unwrap_err()), "unknown-self-test");
    client.permit_self_test(&id).unwrap();
    assert_eq!(client.clients().unwrap().len(), 1, "the television, and nothing else");
}

#[test]
fn the_log_is_read_in_pages_and_by_what_it_says() {
    let host = Host::start(DeskMode::Prompt);
    host.log(|| {
        (0..5).for_each(|n| tracing::info!(n, "counted"));
        tracing::error!(session = 7_u64, "it broke");
    });
    let messages = |path: &str| {
        let (status, logs) = host.get(path);
        assert_eq!(status, 200, "{logs}");
        let records = logs["records"].as_array().unwrap().clone();
        records.iter().map(|one| one["message"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(messages("/logs").len(), 6);
    assert_eq!(messages("/logs?level=warn"), ["it broke"]);
    assert_eq!(messages("/logs?session=7&text=BROKE&target=mgmt"), ["it broke"]);
    assert_eq!(messages("/logs?target=punktfunk_host").len(), 0);
    assert_eq!(messages("/logs?after=4&limit=1"), ["counted"]);
    let (_, newest) = host.get("/logs?limit=1");
    assert_eq!(
        (newest["newest"].as_u64(), newest["records"][0]["sequence"].as_u64()),
        (Some(6), Some(6))
    );
    for wrong in ["limit=0", "limit=1001", "level=loud", "session=-1", "before=x"] {
        let (status, problem) = host.get(&format!("/logs?{wrong}"));
        assert_eq!((status, problem["code"].as_str()), (400, Some("malformed")), "{wrong}");
    }
}

#[test]
fn who_follows_the_log_comes_back_without_losing_a_record() {
    let host = Host::start(DeskMode::Prompt);
    let follow = |after: &str| {
        let mut stream = UnixStream::connect(&host.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let request = format!("GET /api/v1/logs/follow HTTP/1.1\r\nHost: x\r\n{after}\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let until = |stream: &mut UnixStream, wanted: &str| {
        let mut said = String::new();
        let mut piece = [0; 512];
        while !said.contains(wanted) {
            let length = stream.read(&mut piece).unwrap();
            assert!(length > 0, "it ended without {wanted}: {said}");
            said.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
        said
    };
    let mut stream = follow("");
    let head = until(&mut stream, "\r\n\r\n");
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    host.log(|| tracing::info!("first"));
    let said = until(&mut stream, "\n\n");
    assert!(said.contains("event: record") && said.contains("\"message\":\"first\""), "{said}");
    drop(stream);
    host.log(|| tracing::info!("while away"));
    let said = until(&mut follow("Last-Event-ID: 1\r\n"), "while away");
    assert!(said.contains("id: 2") && !said.contains("first"), "{said}");
}

#[test]
fn followers_are_told_that_what_is_kept_has_changed_whoever_changed_it() {
    let host = Host::start(DeskMode::Prompt);
    let follow = |topics: &str| {
        let stream = UnixStream::connect(&host.socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let path = format!("/api/v1/events?topics={topics}");
        (&stream).write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let mut follower = Follower { stream, heard: String::new() };
        follower.until("you follow from here");
        follower
    };
    let mut all = follow("settings,clients,owner");
    let mut some = follow("clients");
    host.pair(&[7; 32]);
    host.store.put_settings(&[("limits.sessions".to_owned(), "2".to_owned())]).unwrap();
    let entry = AuditEntry {
        at: 1,
        kind: AuditKind::Deed,
        actor: "owner".to_owned(),
        remote: None,
        action: "something".to_owned(),
        detail: "of no interest to followers".to_owned(),
    };
    host.store.add_audit(&entry).unwrap();
    all.until("event: owner");
    for told in ["event: settings", "event: clients", "data: {\"event\":\"clients\"}"] {
        assert!(all.heard.contains(told), "{told}: {}", all.heard);
    }
    assert!(!all.heard.contains("interest"), "{}", all.heard);
    some.until("event: clients");
    assert!(!some.heard.contains("settings") && !some.heard.contains("owner"), "{}", some.heard);
}

/// Somebody who follows, and all that was heard.
struct Follower {
    stream: UnixStream,
    heard: String,
}

impl Follower {
    fn until(&mut self, wanted: &str) {
        let mut piece = [0; 512];
        while !self.heard.contains(wanted) {
            let length = self.stream.read(&mut piece).unwrap();
            assert!(length > 0, "it ended without {wanted}: {}", self.heard);
            self.heard.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    }
}

#[test]
fn the_bundle_holds_no_secret_of_the_host() {
    let host = Host::start(DeskMode::Prompt);
    let identity = Identity::load_or_create(&host.store).unwrap();
    let console = ConsoleIdentity::load_or_create(&host.store, "box").unwrap();
    let claims = owners_secrets(&host);
    let client = host.pair(&[7; 32]);
    host.store.rename(client.id, "Annas Fernseher").unwrap();
    let planted = ["4821", "pf_0123456789abcdef", "correct horse", "c00k1ev4lue", "claimt0ken"];
    host.log(|| {
        tracing::warn!(pin = planted[0], "a PIN was typed: pin {}", planted[0]);
        tracing::info!(token = planted[1], "used {}", planted[1]);
        tracing::info!("Authorization: Bearer {}", planted[1]);
        tracing::error!(password = planted[2], "login with {{\"password\":\"{}\"}}", planted[2]);
        tracing::info!("Cookie: __Host-punktfunk={}; a=b", planted[3]);
        tracing::info!("open https://box.local/#{}", planted[4]);
        tracing::info!(name = "Annas Fernseher", "it plays; rikey={}", "ab".repeat(32));
        tracing::info!("{identity:?} {console:?}");
        log_rows_of(&host.store);
    });
    let bundle = host.raw(b"GET /api/v1/logs/bundle HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(bundle.starts_with("HTTP/1.1 200"), "{}", &bundle[..200.min(bundle.len())]);
    for there in [
        "punktfunk-support/log.jsonl",
        "a PIN was typed",
        "rows StoredOwner",
        "kept is",
        "looked for",
    ] {
        assert!(bundle.contains(there), "{there}");
    }
    let (token, code) = claims;
    let words = planted.iter().copied().chain(["abababab", "Annas", "PRIVATE KEY", &code]);
    let mut leaks: Vec<&str> = words.filter(|word| bundle.contains(word)).collect();
    if holds_some_of(&token, &bundle) {
        leaks.push("the claim's token");
    }
    let database = rusqlite::Connection::open(host.folder.path().join("state/state.db")).unwrap();
    for (what, column) in [
        ("the host's key", "private_key_der FROM identity"),
        ("the console's key", "private_key_der FROM console_identity"),
        ("the owner's password", "CAST(password AS BLOB) FROM owner"),
        ("the viewer's password", "CAST(viewer_password AS BLOB) FROM owner"),
        ("a token", "hash FROM token"),
        ("a login", "hash FROM console_session"),
    ] {
        let secret = database.query_row(&format!("SELECT {column}"), [], |row| row.get(0));
        // What hashes have in common is no secret: how they were made, in front.
        let secret: Vec<u8> = secret.unwrap();
        let own = if what.ends_with("key") { 0 } else { secret.len().saturating_sub(64) };
        if holds_some_of(&secret[own..], &bundle) {
            leaks.push(what);
        }
    }
    assert!(leaks.is_empty(), "in the bundle: {leaks:?}");
}

/// Rows with secrets, as a careless line would have them: as they are shown, and each secret in words.
fn log_rows_of(store: &Store) {
    let owner = store.owner().unwrap().unwrap();
    let (tokens, logins) = (store.tokens().unwrap(), store.console_sessions().unwrap());
    assert!(!tokens.is_empty() && !logins.is_empty());
    tracing::info!("rows {owner:?} {tokens:?} {logins:?}");
    tracing::info!("kept is {}", owner.password);
    tracing::info!("and {}; nothing else", owner.viewer_password.unwrap());
    for hash in tokens.iter().map(|token| token.hash).chain(logins.iter().map(|login| login.hash)) {
        let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        tracing::info!("looked for {hex}");
    }
}

/// Claims the host, with a viewer and a token; gives the claim's token and code as they were.
fn owners_secrets(host: &Host) -> (Vec<u8>, String) {
    let state = host.folder.path().join("state");
    let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
    let access = Access::open(host.store.clone(), options).unwrap();
    let claim = host.store.claim().unwrap().unwrap();
    let (token, code) = (claim.token.to_vec(), claim.code.to_string());
    access
        .claim(&ClaimAttempt {
            secret: &code,
            name: "box",
            password: "correct horse battery",
            remote: None,
            agent: None,
        })
        .unwrap();
    access.set_viewer_password(Some("only to look at it"), None).unwrap();
    access.make_token("bot", Scopes::from_iter([Scope::View]), None, None).unwrap();
    (token, code)
}

/// Eight bytes of the secret in a row are there: as they are, as Debug shows them, or in hex.
fn holds_some_of(secret: &[u8], bundle: &str) -> bool {
    assert!(secret.len() >= 16);
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let small = bundle.to_lowercase();
    (0..=secret.len() - 8).any(|at| {
        let part = &secret[at..at + 8];
        let shown = format!("{part:?}");
        bundle.as_bytes().windows(8).any(|window| window == part)
            || bundle.contains(shown.trim_matches(['[', ']']))
            || small.contains(&hex[2 * at..2 * at + 16])
    })
}

#[test]
fn disks_and_network_are_told_also_by_a_host_that_cannot_start() {
    let mut host = Host::start(DeskMode::Prompt);
    let server = host.server.take().unwrap();
    host.runtime.block_on(server.stop());
    let startup = Startup::new(&["opening the store"]).with(host.always());
    startup.failed(Failure {
        plain: "A disk is broken.",
        whole: "the disk /dev/sda is broken".to_owned(),
    });
    let options = MgmtOptions { socket: host.socket.clone(), owner_uid: None, appliance: false };
    host.server = {
        let _guard = host.runtime.enter();
        Some(MgmtServer::start(&options, startup).unwrap())
    };
    let (status, problem) = host.get("/status");
    assert_eq!((status, problem["code"].as_str()), (503, Some("cannot-start")));
    assert_eq!(problem["detail"], "the disk /dev/sda is broken");
    assert_eq!(host.get("/landing").1["stage"]["reason"], "A disk is broken.");
    let (_, storage) = host.get("/storage");
    assert_eq!(storage["folders"][0]["purpose"], "state");
    assert!(storage["folders"][0]["total_bytes"].as_u64().unwrap() > 0);
    assert!(host.get("/network").1["interfaces"].is_array());
    assert_eq!(host.get("/logs").0, 200);
    assert_eq!(host.get("/openapi.json").1["openapi"], "3.1.0");
    let bundle = host.raw(b"GET /api/v1/logs/bundle HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(bundle.contains("the host cannot be asked: the disk /dev/sda is broken"));
    let scan = host.raw(b"POST /api/v1/network/wifi/scan HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(scan.starts_with("HTTP/1.1 503") && scan.contains("\"unavailable\""), "{scan}");
}

#[test]
fn the_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    let text = punktfunk_host::mgmt::document().to_pretty_json().unwrap() + "\n";
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == text,
        "host/openapi.json is old: UPDATE_GENERATED=1 cargo test the_document_is_up_to_date"
    );
}
