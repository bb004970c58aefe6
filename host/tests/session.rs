//! The session desk with displays, encoders and lines that need no hardware: who gets a session, what ends it, and that
//! whatever ends gives everything back.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test may end where it stands")]

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

mod agents;

use punktfunk_core::input::InputEvent;
use punktfunk_core::line::{AudioSender, Burst, FrameSender, SubmitError, Submitted};
use punktfunk_core::media::{
    AccessUnit, Codec, ColourMatrix, ColourSpace, FrameIndex, FrameKind, FrameShape, Mode,
    OpusPacket, SourceIndex,
};
use punktfunk_core::time::Timestamp;
use punktfunk_host::agent::{Agent, AgentError, AgentStarter, Local, Place, ProfileNumber};
use punktfunk_host::audio::AudioSpec;
use punktfunk_host::capture::{CaptureError, CapturedFrame, FramePool, FrameSource, PixelFormat};
use punktfunk_host::display::{
    DisplayBackend, DisplayError, OutputSpec, ProbeReport, VirtualOutput,
};
use punktfunk_host::encode::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest};
use punktfunk_host::input::{InputError, InputSink};
use punktfunk_host::session::{
    App, AppId, ClientId, Register, SessionDesk, SessionError, SessionId, SessionInfo,
    SessionOptions, Sessions, Sounds, apps,
};
use punktfunk_host::store::{NewClient, Policy, Store};
use punktfunk_host::stream::{EndReason, LineAbout, StreamLine, StreamSpec};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(30);
const CARD: AppId = AppId(1);
const PROGRAM: AppId = AppId(2);
const BROKEN: AppId = AppId(3);
const LONG: AppId = AppId(4);
/// The client for whom there is no profile.
const HOMELESS: u8 = 9;

#[test]
fn a_client_has_one_session_and_its_own_app_is_resumed() {
    let world = World::new(4);
    let running = world.desk.launch(client(1), CARD, mode(1280, 720)).unwrap();
    assert_eq!((running.app, running.mode, running.streaming), (CARD, mode(1280, 720), false));

    let again = world.desk.launch(client(1), CARD, mode(1920, 1080)).unwrap();
    assert_eq!((again.session, again.mode), (running.session, mode(1920, 1080)));
    assert_eq!(world.desk.resume(client(1)).unwrap().session, running.session);

    let busy = world.desk.launch(client(1), PROGRAM, mode(1280, 720)).unwrap_err();
    assert_eq!(busy, SessionError::Busy { title: "Card".to_owned() });
    assert_eq!(world.desk.running(client(2)), None, "another client sees nothing of it");
    assert_eq!(world.desk.resume(client(2)), Err(SessionError::NotRunning));
}

/// What a client may is decided where its session and its input devices are made.
#[test]
fn a_client_does_what_the_owner_allows_and_no_longer_than_that() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("state")).unwrap();
    let pair = |certificate: &[u8]| {
        let (certificate_der, name) = (certificate.to_vec(), "TV".to_owned());
        let remote = IpAddr::from([10, 0, 0, 5]);
        store.add_client(NewClient { certificate_der, name, remote }).unwrap().id
    };
    let (guest, watcher) = (pair(b"guest"), pair(b"watcher"));
    let world = World::with(4, |desk| desk.with_register(Register::open(store.clone()).unwrap()));
    let size = mode(640, 360);
    assert_eq!(world.desk.launch(client(1), CARD, size), Err(SessionError::NotPaired));

    // Somebody who only watches streams like everybody else, but its devices take nothing.
    let policy = Policy { launch: true, input: false, expires_at: None };
    store.set_policy(watcher, policy).unwrap();
    for (who, takes_keys) in [(watcher, false), (guest, true)] {
        let running = world.desk.launch(who, CARD, size).unwrap();
        let (spec, line, _ended) = world.stream();
        let mut grant = world.desk.prepare_stream(running.session, spec, line).unwrap();
        let event = InputEvent::PointerMotion { dx: 1, dy: 1 };
        assert_eq!(grant.input.apply(&event).is_ok(), takes_keys);
    }
    // Who may not launch comes back to what runs.
    store.set_policy(watcher, Policy { launch: false, ..policy }).unwrap();
    assert!(world.desk.launch(watcher, CARD, size).is_ok() && world.desk.resume(watcher).is_ok());
    world.desk.quit(watcher);
    assert_eq!(world.desk.launch(watcher, CARD, size), Err(SessionError::MayNotLaunch));

    let session = world.desk.running(guest).unwrap().session;
    store.set_policy(guest, Policy { expires_at: Some(1), ..Policy::default() }).unwrap();
    world.until(|| world.desk.running(guest).is_none(), "a guest stays for ever");
    assert_eq!(world.ended(session), Some(EndReason::GuestTimeOver));
    for refused in [world.desk.launch(guest, CARD, size), world.desk.resume(guest)] {
        assert!(matches!(refused, Err(SessionError::GuestTimeOver | SessionError::NotRunning)));
    }
    assert_eq!(world.desk.launch(guest, CARD, size), Err(SessionError::GuestTimeOver));
    let test = world.desk.launch_self_test(client(8), size).unwrap();
    assert_eq!(world.desk.resume(client(8)).unwrap().session, test.session, "it has a permit");
    world.desk.quit(client(8));

    world.desk.shut_down(EndReason::Shutdown);
    let past: Vec<_> =
        store.past_sessions(None, 9).unwrap().into_iter().map(|past| past.reason).collect();
    assert_eq!(past, ["the device's time as a guest is over", "it was quit"]);
}

#[test]
fn the_limit_holds_and_an_end_makes_room() {
    let world = World::new(2);
    world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();
    world.desk.launch(client(2), CARD, mode(640, 360)).unwrap();
    let full = world.desk.launch(client(3), CARD, mode(640, 360)).unwrap_err();
    assert_eq!(full, SessionError::Full { max: 2 });
    world.desk.quit(client(1));
    world.desk.launch(client(3), CARD, mode(640, 360)).unwrap();
}

#[test]
fn the_self_test_takes_nobodys_place_and_has_one() {
    let world = World::new(1);
    let owners = world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();
    // The card is its own, whatever the owner calls by that name.
    let own = world.desk.launch_self_test(client(8), mode(640, 360)).unwrap();
    assert_eq!(own.app, apps::test_card().id);
    let second = world.desk.launch_self_test(client(9), mode(640, 360)).unwrap_err();
    assert_eq!(second, SessionError::Full { max: 1 });
    let full = world.desk.launch(client(2), CARD, mode(640, 360)).unwrap_err();
    assert_eq!(full, SessionError::Full { max: 1 }, "it makes no room either");
    assert_eq!(world.desk.running(client(1)), Some(owners), "who plays, plays on");

    world.desk.quit(client(1));
    world.desk.launch(client(2), CARD, mode(640, 360)).expect("its place is not the owners'");
    world.desk.quit(client(8));
    world.desk.launch_self_test(client(9), mode(640, 360)).unwrap();
    let is_its = |session: &SessionInfo| session.client == client(8) || session.client == client(9);
    let sessions = world.desk.sessions();
    assert_eq!(sessions.iter().filter(|session| is_its(session)).count(), 2);
    assert!(sessions.iter().all(|session| session.self_test == is_its(session)), "{sessions:?}");
}

/// spec: gamestream 13 item 51
#[test]
fn an_app_that_does_not_start_leaves_nothing_behind() {
    let world = World::new(1);
    for app in [BROKEN, AppId(99)] {
        let error = world.desk.launch(client(1), app, mode(640, 360)).unwrap_err();
        assert!(!error.to_string().is_empty());
        assert_eq!(world.desk.running(client(1)), None);
    }
    assert_eq!(world.outputs.load(Ordering::SeqCst), 0);
    assert_eq!(world.runtime_entries(), 0);
    world.desk.launch(client(1), CARD, mode(640, 360)).expect("the place is free again");
}

#[test]
fn a_session_ends_with_its_app_and_with_its_compositor() {
    let world = World::new(4);
    let short = world.desk.launch(client(1), PROGRAM, mode(640, 360)).unwrap();
    world.until(|| world.desk.running(client(1)).is_none(), "the app's end was not noticed");
    assert_eq!(world.ended(short.session), Some(EndReason::AppExited));

    let card = world.desk.launch(client(2), CARD, mode(640, 360)).unwrap();
    world.kill_display.store(true, Ordering::SeqCst);
    world.until(|| world.desk.running(client(2)).is_none(), "the display's end was not noticed");
    assert!(matches!(world.ended(card.session), Some(EndReason::DisplayLost(_))));
    assert_eq!(world.outputs.load(Ordering::SeqCst), 0);
    assert_eq!(world.runtime_entries(), 0);
}

#[test]
fn a_stream_runs_is_replaced_by_a_resume_and_ends_with_the_session() {
    let world = World::new(4);
    let running = world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();

    let (spec, line, first) = world.stream();
    let grant = world.desk.prepare_stream(running.session, spec, line).unwrap();
    let peer = world.media.local_addr().unwrap().into();
    grant.stream.start(peer, Some(peer));
    world.until_media();
    assert!(world.desk.running(client(1)).unwrap().streaming);

    world.desk.resume(client(1)).unwrap();
    assert_eq!(first.recv_timeout(PATIENCE), Ok(EndReason::Replaced));
    assert!(!world.desk.running(client(1)).unwrap().streaming);

    let (spec, line, second) = world.stream();
    let grant = world.desk.prepare_stream(running.session, spec, line).unwrap();
    let control = grant.stream.start(peer, None);
    world.until_media();
    control.stop(EndReason::ClientGone);
    assert_eq!(second.recv_timeout(PATIENCE), Ok(EndReason::ClientGone));
    world.until(
        || !world.desk.running(client(1)).unwrap().streaming,
        "the app outlives its stream, the stream does not outlive its client",
    );

    let (spec, line, third) = world.stream();
    let grant = world.desk.prepare_stream(running.session, spec, line).unwrap();
    grant.stream.start(peer, None);
    world.desk.quit(client(1));
    assert_eq!(third.recv_timeout(PATIENCE), Ok(EndReason::Quit));
    assert_eq!(world.desk.running(client(1)), None);
    assert!(!world.desk.traces(running.session).is_empty(), "traces outlive their session");
    world.desk.launch(client(2), CARD, mode(640, 360)).unwrap();
    world.desk.quit(client(2));
    assert!(world.desk.traces(running.session).is_empty(), "of the ended only the newest has them");
}

#[test]
fn a_session_that_is_quit_while_its_app_starts_does_not_come_to_be() {
    let world = World::new(1);
    let launch = || world.desk.launch(client(1), CARD, mode(640, 360));
    let launched = world.meanwhile(launch, || world.desk.quit(client(1)));
    assert_eq!(launched, Err(SessionError::NotRunning));
    assert_eq!(world.desk.running(client(1)), None);
    assert_eq!(world.outputs.load(Ordering::SeqCst), 0);
    launch().expect("the place is free again");
}

#[test]
fn a_stream_that_starts_while_its_session_ends_is_ended_too() {
    let world = World::new(1);
    let running = world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();
    let (spec, line, ended) = world.stream();
    let grant = world.desk.prepare_stream(running.session, spec, line).unwrap();
    let peer = world.media.local_addr().unwrap().into();
    let mut control = None;
    world.meanwhile(
        || world.desk.quit(client(1)),
        || control = Some(grant.stream.start(peer, None)),
    );
    assert_eq!(ended.recv_timeout(PATIENCE), Ok(EndReason::Quit));
}

#[test]
fn a_stream_that_was_never_started_is_given_back() {
    let world = World::new(4);
    let running = world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();
    let (spec, line, _ended) = world.stream();
    let grant = world.desk.prepare_stream(running.session, spec, line).unwrap();
    assert!(world.desk.running(client(1)).unwrap().streaming);
    drop(grant);
    world.until(
        || !world.desk.running(client(1)).unwrap().streaming,
        "a dropped grant frees the session for the next stream",
    );
}

#[test]
fn a_shutdown_ends_all_and_refuses_more() {
    let world = World::new(4);
    world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();
    world.desk.launch(client(2), CARD, mode(640, 360)).unwrap();
    world.desk.shut_down(EndReason::Shutdown);
    assert_eq!(world.outputs.load(Ordering::SeqCst), 0);
    assert_eq!(world.runtime_entries(), 0);
    let refused = world.desk.launch(client(3), CARD, mode(640, 360)).unwrap_err();
    assert_eq!(refused, SessionError::Stopping);
}

#[test]
fn only_programs_need_an_agent_and_each_client_has_its_own_profile() {
    let world = World::new(4);
    world.desk.launch(client(1), CARD, mode(640, 360)).unwrap();
    world.desk.launch(client(HOMELESS), CARD, mode(640, 360)).unwrap();
    assert_eq!(*world.agents.profiles.lock().unwrap(), []);
    world.desk.quit(client(HOMELESS));
    let error = world.desk.launch(client(HOMELESS), LONG, mode(640, 360)).unwrap_err();
    assert!(error.to_string().contains("there is no home left"), "{error}");
    world.desk.launch(client(2), LONG, mode(640, 360)).unwrap();
    world.desk.launch(client(3), LONG, mode(640, 360)).unwrap();
    let profiles = world.agents.profiles.lock().unwrap().clone();
    assert_eq!(profiles, [ProfileNumber(2), ProfileNumber(3)]);
    assert!(world.agents.real.start(ProfileNumber(2)).is_err(), "a profile is in use twice");
}

#[test]
fn an_agent_that_is_killed_ends_its_session_and_no_other() {
    let world = World::new(4);
    let killed = world.desk.launch(client(1), LONG, mode(640, 360)).unwrap();
    let agent = world.agents_running();
    world.desk.launch(client(2), LONG, mode(640, 360)).unwrap();
    kill_process(agent[0], Signal::KILL).unwrap();
    world.until(|| world.desk.running(client(1)).is_none(), "the agent's end was not noticed");
    let Some(EndReason::DisplayLost(reason)) = world.ended(killed.session) else {
        panic!("{:?}", world.ended(killed.session))
    };
    assert!(reason.contains("agent is gone"), "{reason}");
    assert!(world.desk.running(client(2)).is_some());
    assert_eq!(world.runtime_entries(), 1, "what it left is cleared up");
    world.desk.launch(client(1), LONG, mode(640, 360)).expect("the profile is free again");
}

#[test]
fn launching_and_quitting_again_and_again_leaves_nothing() {
    let world = World::new(1);
    let count = |what: &str| std::fs::read_dir(format!("/proc/self/{what}")).unwrap().count();
    let cycle = || {
        world.desk.launch(client(1), LONG, mode(640, 360)).unwrap();
        world.desk.quit(client(1));
        assert_eq!((world.runtime_entries(), world.agents_running()), (0, vec![]));
    };
    cycle();
    // Other tests of this program come and go: the smallest of some looks is ours.
    let looks = |what: &str| {
        (0..15)
            .map(|_| {
                cycle();
                count(what)
            })
            .min()
    };
    for what in ["fd", "task"] {
        let (early, late) = (looks(what), looks(what));
        assert!(late <= early.map(|count| count + 10), "{what}: {early:?}, later {late:?}");
    }
}

fn client(number: u8) -> ClientId {
    ClientId([number; 32])
}

fn mode(width: u32, height: u32) -> Mode {
    Mode::new(width, height, 60_000).unwrap()
}

struct World {
    desk: Sessions,
    agents: Arc<Counted>,
    outputs: Arc<AtomicUsize>,
    kill_display: Arc<AtomicBool>,
    gate: Gate,
    runtime: tempfile::TempDir,
    media: UdpSocket,
}

impl World {
    fn new(max_sessions: usize) -> Self {
        Self::with(max_sessions, |desk| desk)
    }

    fn with(max_sessions: usize, made: impl FnOnce(Sessions) -> Sessions) -> Self {
        let runtime = tempfile::tempdir().unwrap();
        let (outputs, kill_display, gate) = (Arc::default(), Arc::default(), Gate::default());
        let display: Arc<dyn DisplayBackend> = Arc::new(FakeDisplay {
            outputs: Arc::clone(&outputs),
            kill: Arc::clone(&kill_display),
            gate: gate.clone(),
        });
        let agents =
            Arc::new(Counted { real: agents::starter(runtime.path()), profiles: Mutex::default() });
        let app = |id: AppId, title: &str, words: &[&str]| App {
            id,
            title: title.to_owned(),
            display: "fake".to_owned(),
            commands: if words.is_empty() {
                vec![]
            } else {
                vec![words.iter().map(|word| (*word).to_owned()).collect()]
            },
            art: None,
        };
        let desk = Sessions::new(SessionOptions {
            apps: vec![
                app(CARD, "Card", &[]),
                app(PROGRAM, "Program", &["true"]),
                app(BROKEN, "Broken", &["/no/such/program"]),
                app(LONG, "Long", &["sh", "-c", "setsid sleep 600 & exec sleep 600"]),
            ],
            displays: ["fake", "pattern"].map(|name| (name.to_owned(), display.clone())).into(),
            encoder: Arc::new(FakeEncoders),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions,
            agents: agents.clone(),
            profile: Box::new(|client| match client.0[0] {
                HOMELESS => Err("there is no home left".to_owned()),
                number => Ok(ProfileNumber(number.into())),
            }),
        });
        let desk = made(desk);
        let media = UdpSocket::bind("127.0.0.1:0").unwrap();
        media.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { desk, agents, outputs, kill_display, gate, runtime, media }
    }

    fn until(&self, done: impl Fn() -> bool, otherwise: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "{otherwise}");
            std::thread::yield_now();
        }
    }

    /// Does something while an output hangs in opening or closing because of something else.
    fn meanwhile<T: Send>(&self, hangs: impl FnOnce() -> T + Send, act: impl FnOnce()) -> T {
        let reached = self.gate.reached.load(Ordering::SeqCst);
        std::thread::scope(|scope| {
            let held = self.gate.lock.lock().unwrap();
            let hanging = scope.spawn(hangs);
            let at_gate = || self.gate.reached.load(Ordering::SeqCst) > reached;
            self.until(at_gate, "no output came to the gate");
            act();
            drop(held);
            hanging.join().unwrap()
        })
    }

    fn until_media(&self) {
        let mut datagram = [0; 64];
        let (bytes, _) = self.media.recv_from(&mut datagram).expect("a stream sends");
        assert_eq!(&datagram[..bytes], b"picture");
    }

    fn ended(&self, session: SessionId) -> Option<EndReason> {
        self.desk.sessions().into_iter().find(|info| info.id == session)?.ended
    }

    fn runtime_entries(&self) -> usize {
        let dir: PathBuf = self.runtime.path().join("sessions");
        std::fs::read_dir(dir).map_or(0, Iterator::count)
    }

    /// The agents of this world that run, the oldest first.
    fn agents_running(&self) -> Vec<Pid> {
        let folder = self.runtime.path().as_os_str().as_encoded_bytes();
        let mut agents: Vec<i32> = std::fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                words.windows(folder.len()).any(|window| window == folder)
            })
            .collect();
        agents.sort_unstable();
        agents.into_iter().filter_map(Pid::from_raw).collect()
    }

    fn stream(&self) -> (StreamSpec, StreamLine, Receiver<EndReason>) {
        let (tell, ended) = channel();
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let colour = ColourSpace { matrix: ColourMatrix::Bt601, full_range: false };
        let spec = StreamSpec {
            video: EncodeSpec {
                codec: Codec::H264,
                mode: mode(640, 360),
                bitrate_kbps: 5000,
                colour,
                slices: 1,
                max_reference_frames: 1,
                max_unit_bytes: 1 << 20,
            },
            audio: AudioSpec { channels: 2, period_samples: 240, bitrate_kbps: 96 },
        };
        let line = StreamLine {
            video: Box::new(OneDatagram::default()),
            video_socket: Arc::clone(&socket),
            audio: Box::new(NoSound),
            audio_socket: socket,
            tos: (0, 0),
            about: LineAbout {
                protocol: "a test",
                remote: IpAddr::from([127, 0, 0, 1]),
                asked_bitrate_kbps: 9_000,
                fec_percentage: 20,
                control_encrypted: true,
                video_encrypted: false,
                audio_encrypted: false,
            },
            on_end: Box::new(move |reason| tell.send(reason).unwrap_or_default()),
        };
        (spec, line, ended)
    }
}

/// Real agents, and the profiles they were started for.
struct Counted {
    real: Local,
    profiles: Mutex<Vec<ProfileNumber>>,
}

impl AgentStarter for Counted {
    fn describe(&self) -> String {
        self.real.describe()
    }

    fn isolates(&self) -> bool {
        self.real.isolates()
    }

    fn take(&self, profile: ProfileNumber, purpose: &'static str) -> Result<Place, AgentError> {
        self.real.take(profile, purpose)
    }

    fn start_in(&self, place: &Place) -> Result<Arc<dyn Agent>, AgentError> {
        self.profiles.lock().unwrap().push(place.profile());
        self.real.start_in(place)
    }
}

struct FakeDisplay {
    outputs: Arc<AtomicUsize>,
    kill: Arc<AtomicBool>,
    gate: Gate,
}

/// While a test holds it, no output finishes opening or closing.
#[derive(Clone, Default)]
struct Gate {
    lock: Arc<Mutex<()>>,
    /// How often somebody came to it.
    reached: Arc<AtomicUsize>,
}

impl Gate {
    fn pass(&self) {
        self.reached.fetch_add(1, Ordering::SeqCst);
        drop(self.lock.lock().unwrap());
    }
}

struct FakeOutput {
    mode: Mode,
    outputs: Arc<AtomicUsize>,
    kill: Arc<AtomicBool>,
    gate: Gate,
    size: Arc<Mutex<Mode>>,
}

impl DisplayBackend for FakeDisplay {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn probe(&self) -> Result<ProbeReport, DisplayError> {
        Ok(ProbeReport { detail: "always there".to_owned(), proven: true })
    }

    fn needs_agent(&self) -> bool {
        false
    }

    fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
        self.outputs.fetch_add(1, Ordering::SeqCst);
        self.gate.pass();
        Ok(Box::new(FakeOutput {
            mode: spec.mode,
            outputs: Arc::clone(&self.outputs),
            kill: Arc::clone(&self.kill),
            gate: self.gate.clone(),
            size: Arc::new(Mutex::new(spec.mode)),
        }))
    }
}

impl VirtualOutput for FakeOutput {
    fn mode(&self) -> Mode {
        self.mode
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), DisplayError> {
        self.mode = mode;
        *self.size.lock().unwrap() = mode;
        Ok(())
    }

    fn child_env(&self) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn open_capture(&mut self) -> Result<Box<dyn FrameSource>, DisplayError> {
        Ok(Box::new(FakeFrames { size: Arc::clone(&self.size), next: 0, pool: FramePool::new(3) }))
    }

    fn open_input(&mut self) -> Result<Box<dyn InputSink>, DisplayError> {
        Ok(Box::new(Ignored))
    }

    fn check(&mut self) -> Result<(), DisplayError> {
        if self.kill.load(Ordering::SeqCst) {
            return Err(DisplayError::Died { backend: "fake", reason: "pulled".to_owned() });
        }
        Ok(())
    }

    fn close(self: Box<Self>, _grace: Duration) {
        self.gate.pass();
    }
}

impl Drop for FakeOutput {
    fn drop(&mut self) {
        self.outputs.fetch_sub(1, Ordering::SeqCst);
    }
}

struct FakeFrames {
    size: Arc<Mutex<Mode>>,
    next: u64,
    pool: FramePool,
}

impl FrameSource for FakeFrames {
    fn next_frame(&mut self, timeout: Duration) -> Result<Option<CapturedFrame>, CaptureError> {
        std::thread::park_timeout(timeout.min(Duration::from_millis(5)));
        let mode = *self.size.lock().unwrap();
        let (width, height) = (mode.width(), mode.height());
        let stride = width as usize * 4;
        let index = SourceIndex(self.next);
        self.next += 1;
        Ok(Some(CapturedFrame {
            index,
            captured_at: punktfunk_host::clock::now(),
            width,
            height,
            stride,
            format: PixelFormat::Bgrx,
            damage: vec![],
            pixels: self.pool.take(stride * height as usize),
        }))
    }
}

struct Ignored;

impl InputSink for Ignored {
    fn apply(&mut self, _event: &InputEvent) -> Result<(), InputError> {
        Ok(())
    }

    fn release_all(&mut self) -> Result<(), InputError> {
        Ok(())
    }
}

struct FakeEncoders;

struct FakeEncoder;

impl EncoderBackend for FakeEncoders {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn probe(&self) -> Result<Vec<Codec>, EncodeError> {
        Ok(vec![Codec::H264])
    }

    fn open(&self, _spec: &EncodeSpec) -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(FakeEncoder))
    }
}

impl Encoder for FakeEncoder {
    fn encode(
        &mut self,
        frame: &CapturedFrame,
        request: PictureRequest,
    ) -> Result<AccessUnit, EncodeError> {
        Ok(AccessUnit {
            source: frame.index,
            kind: if request.force_idr { FrameKind::Idr } else { FrameKind::Predicted },
            captured_at: frame.captured_at,
            encode_began_at: frame.captured_at,
            encoded_at: frame.captured_at,
            repeated: request.repeated,
            bytes: b"picture".to_vec(),
        })
    }
}

/// A line whose frames are one datagram each and leave at once.
#[derive(Default)]
struct OneDatagram {
    next: u32,
    waiting: Option<(FrameIndex, Vec<u8>)>,
    leaving: Vec<u8>,
}

impl FrameSender for OneDatagram {
    fn submit(&mut self, unit: &AccessUnit, _now: Timestamp) -> Result<Submitted, SubmitError> {
        self.next += 1;
        self.waiting = Some((FrameIndex(self.next), unit.bytes.clone()));
        Ok(Submitted { index: FrameIndex(self.next), shape: FrameShape::default() })
    }

    fn poll_burst(&mut self, _now: Timestamp) -> Option<Burst<'_>> {
        let (frame, bytes) = self.waiting.take()?;
        self.leaving = bytes;
        let segment_bytes = self.leaving.len();
        Some(Burst { datagrams: &self.leaving, segment_bytes, frame, last: true })
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        self.waiting.is_some().then_some(Timestamp::ZERO)
    }

    fn max_unit_bytes(&self) -> usize {
        1 << 20
    }
}

struct NoSound;

impl AudioSender for NoSound {
    fn submit(&mut self, _packet: &OpusPacket, _emit: &mut dyn FnMut(&[u8])) {}
}
