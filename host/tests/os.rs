//! Updates through the real router, over the local socket: whole stories, and the host killed in the middle of each.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use punktfunk_core::media::{Codec, FrameTrace, Mode};
use punktfunk_host::access::Access;
use punktfunk_host::mgmt::wire::{
    OsBannerKind, OsCause, OsChannel, OsNews, OsPast, OsPhase, OsReport, OsRole, OsWhat,
    PowerReport, ProblemDetails,
};
use punktfunk_host::mgmt::{MgmtHandles, MgmtOptions, MgmtServer, Startup};
use punktfunk_host::os::simulated::{
    Call, Disk, How, Mishap, Pace, Script, Simulated, Verdict, demonstration, digest,
};
use punktfunk_host::os::{NoPower, OsDesk, OsOptions, Power, PowerError, PowerVerb};
use punktfunk_host::pairing::{DeskMode, DeskOptions, PairingDesk};
use punktfunk_host::session::{
    App, AppId, Running, SessionDesk, SessionError, SessionId, SessionInfo, StreamGrant,
};
use punktfunk_host::store::{ClientId, Store};
use punktfunk_host::stream::{EndReason, StreamLine, StreamSpec};
use serde::de::DeserializeOwned;

#[path = "os/archive.rs"]
mod archive;
#[path = "os/proof.rs"]
mod proof;

/// Nobody plays; who streams is told to the desk by hand.
struct NoSessions;

impl SessionDesk for NoSessions {
    fn apps(&self) -> Vec<App> {
        vec![]
    }

    fn codecs(&self) -> Vec<Codec> {
        vec![Codec::H264]
    }

    fn running(&self, _client: ClientId) -> Option<Running> {
        None
    }

    fn launch(&self, _: ClientId, _: AppId, _: Mode) -> Result<Running, SessionError> {
        Err(SessionError::NotRunning)
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

    fn quit(&self, _client: ClientId) {}

    fn sessions(&self) -> Vec<SessionInfo> {
        vec![]
    }

    fn traces(&self, _session: SessionId) -> Vec<FrameTrace> {
        vec![]
    }

    fn shut_down(&self, _reason: EndReason) {}
}

/// A switch that only counts.
#[derive(Default)]
struct CountingPower(Mutex<Vec<PowerVerb>>);

impl Power for CountingPower {
    fn unable(&self, verb: PowerVerb) -> Option<String> {
        (verb == PowerVerb::Sleep).then(|| "this machine does not wake up again".to_owned())
    }

    fn switch(&self, verb: PowerVerb) -> Result<(), PowerError> {
        self.0.lock().unwrap().push(verb);
        Ok(())
    }
}

/// What outlives the daemon: the state folder, the disk, and who streams.
struct Machine {
    folder: tempfile::TempDir,
    disk: Arc<Mutex<Disk>>,
    streaming: Arc<Mutex<Vec<String>>>,
    power: Arc<dyn Power>,
    countdown: Duration,
    /// The owner's door, where there is one.
    access: Option<Access>,
}

struct Daemon {
    socket: PathBuf,
    server: Option<MgmtServer>,
    runtime: Option<tokio::runtime::Runtime>,
    script: Arc<Simulated>,
}

impl Machine {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            disk: Arc::default(),
            streaming: Arc::default(),
            power: Arc::new(NoPower::default()),
            countdown: Duration::from_millis(50),
            access: None,
        }
    }

    /// What a machine finds on its disk whose power goes now, while nothing is being written.
    fn cut(&self) -> Self {
        let cut = Self::new();
        let [from, to] = [self, &cut].map(|machine| machine.folder.path().join("state"));
        std::fs::DirBuilder::new().mode(0o700).create(&to).unwrap();
        for entry in std::fs::read_dir(&from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
        self.disk.lock().unwrap().clone_into(&mut cut.disk.lock().unwrap());
        cut
    }

    fn play(&self, who: &[&str]) {
        *self.streaming.lock().unwrap() = who.iter().map(|name| (*name).to_owned()).collect();
    }

    fn start(&self, script: Script) -> Daemon {
        let disk = Arc::clone(&self.disk);
        let save = Box::new(move |new: &Disk| {
            new.clone_into(&mut disk.lock().unwrap());
            Ok(())
        });
        let pace = Pace { part_bytes: 1_000_000, ..Pace::INSTANT };
        let before = self.disk.lock().unwrap().clone();
        let backend = Arc::new(Simulated::new(before, script, pace, save));
        let store = Store::open(&self.folder.path().join("state")).unwrap();
        let streaming = Arc::clone(&self.streaming);
        let os = OsDesk::open(OsOptions {
            countdown: self.countdown,
            tick: Duration::from_millis(10),
            ..OsOptions::new(
                backend.clone(),
                Arc::new(store.clone()),
                Arc::new(move || streaming.lock().unwrap().clone()),
            )
        });
        self.serve(store, os.unwrap(), backend)
    }

    fn serve(&self, store: Store, os: OsDesk, script: Arc<Simulated>) -> Daemon {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let socket = self.folder.path().join("run/host.sock");
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Prompt));
        let handles = MgmtHandles {
            os,
            power: Arc::clone(&self.power),
            ..MgmtHandles::bare(desk, store, Arc::new(NoSessions))
        };
        let options = MgmtOptions { socket: socket.clone(), owner_uid: None, appliance: false };
        let server = {
            let _guard = runtime.enter();
            let startup = Startup::complete(handles);
            let startup = match self.access.clone() {
                Some(access) => startup.with_access(access),
                None => startup,
            };
            MgmtServer::start(&options, startup).unwrap()
        };
        Daemon { socket, server: Some(server), runtime: Some(runtime), script }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.server.take());
        // Whatever is under way ends with it, as in a daemon that is killed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(20));
        }
    }
}

impl Daemon {
    fn call(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let length = body.len();
        write!(
            stream,
            "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.call("GET", path, "");
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    fn report(&self) -> OsReport {
        self.read("/os")
    }

    fn history(&self) -> Vec<OsWhat> {
        let past: Vec<OsPast> = self.read("/os/history");
        assert!(past.iter().all(|line| line.simulated && line.at > 0 && !line.sentence.is_empty()));
        past.iter().map(|line| line.what).collect()
    }

    /// Asks for something that is taken on.
    fn ask(&self, path: &str, body: &str) -> OsReport {
        let (status, text) = self.call("POST", path, body);
        assert_eq!(status, 202, "{path}: {text}");
        serde_json::from_str(&text).unwrap()
    }

    fn refused(&self, path: &str, body: &str) -> (u16, String, String) {
        let (status, text) = self.call("POST", path, body);
        assert!(status >= 400, "{path}: {text}");
        let problem: ProblemDetails = serde_json::from_str(&text).unwrap();
        assert_eq!(problem.status, status);
        (status, problem.code, problem.detail)
    }

    fn follow(&self) -> Events {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET /api/v1/os/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        Events(BufReader::new(stream))
    }

    /// Follows until the state is such.
    fn wait(&self, is: impl Fn(&OsReport) -> bool) -> OsReport {
        self.follow().until(is).0
    }

    fn wait_idle(&self) -> OsReport {
        self.wait(|report| report.phase == OsPhase::Idle)
    }

    fn stage(&self) {
        self.wait_idle();
        for path in ["/os/check", "/os/download", "/os/stage"] {
            self.ask(path, "");
            let report = self.wait_idle();
            assert_eq!(report.problem, None);
        }
        assert_eq!(self.report().staged.unwrap().version, "1.5.0");
    }
}

/// What is followed says that it lives even when nothing happens: a wait for what never comes has to end by itself.
const PATIENCE: Duration = Duration::from_secs(60);

struct Events(BufReader<UnixStream>);

impl Events {
    fn next(&mut self) -> (String, String) {
        let mut name = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut line = String::new();
            assert!(self.0.read_line(&mut line).unwrap() > 0, "the events ended");
            assert!(Instant::now() < deadline, "nothing happens");
            let line = line.trim_end();
            if let Some(found) = line.strip_prefix("event: ") {
                name = Some(found.to_owned());
            } else if let Some(data) = line.strip_prefix("data: ") {
                return (name.unwrap(), data.to_owned());
            }
        }
    }

    /// A state is as new as can be, so it may come before the news that it is already ahead of.
    fn until_named(&mut self, name: &str, news: &mut Vec<(String, OsNews)>) {
        while !news.iter().any(|(found, _)| found == name) {
            let (found, data) = self.next();
            if found != "update.state" {
                news.push((found, serde_json::from_str(&data).unwrap()));
            }
        }
    }

    /// The first state that is such, and the news that came before it.
    fn until(&mut self, is: impl Fn(&OsReport) -> bool) -> (OsReport, Vec<(String, OsNews)>) {
        let mut news = Vec::new();
        loop {
            let (name, data) = self.next();
            if name == "update.state" {
                let report: OsReport = serde_json::from_str(&data).unwrap();
                if is(&report) {
                    return (report, news);
                }
            } else {
                news.push((name, serde_json::from_str(&data).unwrap()));
            }
        }
    }
}

#[test]
fn an_update_is_found_fetched_staged_and_applied_when_nobody_plays() {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    let first = daemon.wait_idle();
    assert!(first.appliance && first.simulated);
    assert_eq!(first.running.unwrap().version, "1.4.2");
    assert_eq!(first.previous.unwrap().version, "1.4.1");
    let mut events = daemon.follow();
    daemon.ask("/os/check", "");
    let offered = daemon.wait(|report| report.offered.is_some()).offered.unwrap();
    assert_eq!((offered.version.as_str(), offered.changes.len()), ("1.5.0", 3));
    machine.play(&["TV"]);
    daemon.ask("/os/download", "{}");
    let done = daemon.wait_idle();
    assert_eq!(done.downloaded_bytes, offered.size_bytes);
    daemon.ask("/os/stage", "");
    let staged = daemon.wait_idle();
    assert_eq!(staged.staged.unwrap().role, OsRole::Staged);
    let (status, code, detail) = daemon.refused("/os/apply", r#"{"when":"now"}"#);
    assert_eq!((status, code.as_str()), (409, "someone-streams"));
    assert!(detail.starts_with("TV would be cut off"), "{detail}");
    let waiting = daemon.ask("/os/apply", r#"{"when":"idle"}"#);
    let expected = OsPhase::Waiting { version: "1.5.0".to_owned(), cause: OsCause::Update };
    assert_eq!((waiting.phase, waiting.streaming.as_slice()), (expected, &["TV".to_owned()][..]));
    machine.play(&[]);
    let (after, mut news) = events.until(|report| report.banner.is_some());
    events.until_named("update.applied", &mut news);
    assert_eq!((after.running.unwrap().version.as_str(), after.simulated), ("1.5.0", true));
    let banner = after.banner.unwrap();
    assert_eq!((banner.kind, banner.checks.len()), (OsBannerKind::Updated, 3));
    for name in ["update.progress", "update.staged", "update.countdown", "update.applied"] {
        let (_, found) = news.iter().find(|(found, _)| found == name).expect(name);
        assert!(found.simulated && !found.reason.is_empty(), "{found:?}");
        assert_eq!(found.version.as_deref(), Some("1.5.0"));
    }
    let percents = news.iter().filter_map(|(_, news)| news.percent);
    assert!(percents.is_sorted());
    assert_eq!(daemon.ask("/os/dismiss", "").banner, None);
    let expected = [
        OsWhat::Offered,
        OsWhat::Downloaded,
        OsWhat::Staged,
        OsWhat::Planned,
        OsWhat::Restarting,
        OsWhat::Applied,
    ];
    assert_eq!(daemon.history(), expected);
}

#[test]
fn a_version_that_does_not_pass_is_left_with_its_reason_and_never_offered_again() {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    daemon.stage();
    daemon.ask("/os/apply", r#"{"when":"now"}"#);
    daemon.wait(|report| report.banner.is_some());
    // From there the broken one can be had.
    for path in ["/os/check", "/os/download", "/os/stage"] {
        daemon.ask(path, "");
        daemon.wait_idle();
    }
    assert_eq!(daemon.report().staged.unwrap().version, "1.6.0");
    let mut events = daemon.follow();
    daemon.ask("/os/apply", r#"{"when":"now"}"#);
    let rolled_back = |report: &OsReport| {
        report.banner.as_ref().is_some_and(|banner| banner.kind == OsBannerKind::RolledBack)
    };
    let (after, mut news) = events.until(rolled_back);
    events.until_named("update.rolled_back", &mut news);
    let banner = after.banner.unwrap();
    assert_eq!(banner.reason.as_deref(), Some("encoder failed to start"));
    assert!(banner.sentence.contains("You are back on 1.5.0. Nothing was lost"));
    assert_eq!(after.running.unwrap().version, "1.5.0");
    let (_, told) = news.iter().find(|(name, _)| name == "update.rolled_back").unwrap();
    assert_eq!((told.version.as_deref(), told.running.as_deref()), (Some("1.6.0"), Some("1.5.0")));
    assert_eq!(told.reason, "encoder failed to start");
    drop((daemon, events));
    // A new daemon knows all of it.
    let daemon = machine.start(demonstration());
    let report = daemon.wait_idle();
    assert!(rolled_back(&report));
    daemon.ask("/os/check", "");
    let checked = daemon.wait_idle();
    assert_eq!((checked.offered, checked.skipped.len()), (None, 1));
    assert_eq!(checked.skipped[0].reason, "encoder failed to start");
    assert_eq!(daemon.refused("/os/download", "").1, "nothing-offered");
}

#[test]
fn the_owner_goes_back_pins_and_changes_his_mind() {
    let mut machine = Machine::new();
    machine.countdown = Duration::from_secs(600);
    let daemon = machine.start(demonstration());
    daemon.stage();
    let counting = daemon.ask("/os/apply", r#"{"when":"now","insist":true}"#);
    let OsPhase::Countdown { seconds_left, insisted, .. } = counting.phase else { panic!() };
    assert!((590..=600).contains(&seconds_left) && insisted);
    assert_eq!(daemon.refused("/os/check", "").1, "busy");
    assert_eq!(daemon.ask("/os/apply/cancel", "").phase, OsPhase::Idle);
    assert_eq!(daemon.refused("/os/apply/cancel", "").1, "nothing-to-cancel");
    let digest = daemon.report().previous.unwrap().digest;
    let which = format!(r#"{{"digest":"{digest}"}}"#);
    daemon.ask("/os/pin", &which);
    assert!(daemon.wait_idle().previous.unwrap().pinned);
    daemon.ask("/os/unpin", &which);
    assert!(!daemon.wait_idle().previous.unwrap().pinned);
    let (status, _) = daemon.call("PUT", "/os/channel", r#"{"channel":"next"}"#);
    assert_eq!(status, 202);
    let elsewhere = daemon.wait_idle();
    assert_eq!((elsewhere.channel, elsewhere.offered), (OsChannel::Next, None));
    assert_eq!(daemon.history().last(), Some(&OsWhat::Followed));
    for body in ["", "{}", r#"{"channel":"nightly"}"#] {
        assert_eq!(daemon.call("PUT", "/os/channel", body).0, 400, "{body}");
    }
    drop(daemon);
    machine.countdown = Duration::ZERO;
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    daemon.ask("/os/rollback", r#"{"when":"now"}"#);
    let back = daemon.wait(|report| report.banner.is_some());
    assert_eq!(back.banner.unwrap().kind, OsBannerKind::WentBack);
    assert_eq!(back.running.unwrap().version, "1.4.1");
}

#[test]
fn what_makes_no_sense_is_refused_in_the_one_shape() {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    let check = |path: &str, body: &str, status: u16, code: &str| {
        let (got, found, detail) = daemon.refused(path, body);
        assert_eq!((got, found.as_str()), (status, code), "{path} {body}: {detail}");
    };
    check("/os/download", "", 409, "nothing-offered");
    check("/os/stage", "", 409, "nothing-downloaded");
    check("/os/apply", "", 409, "nothing-staged");
    check("/os/apply", r#"{"when":"soon"}"#, 400, "malformed");
    check("/os/apply", r#"{"whne":"now"}"#, 400, "malformed");
    check("/os/pin", "", 400, "malformed");
    check("/os/pin", r#"{"digest":"1.4.2"}"#, 400, "malformed");
    check("/os/rollback", r#"{"digest":"sha256:zz"}"#, 400, "malformed");
    let nothing = format!(r#"{{"digest":"{}"}}"#, digest(0xEE));
    check("/os/pin", &nothing, 404, "unknown-deployment");
    check("/os/rollback", &nothing, 404, "unknown-deployment");
    check("/os/download/cancel", "", 409, "nothing-to-cancel");
    check("/os/factory-reset", "", 400, "malformed");
    check("/os/factory-reset", r#"{"password":"x"}"#, 503, "unavailable");
    check("/power/restart", "", 503, "unavailable");
    assert_eq!(daemon.history(), []);
}

fn stall(call: Call, after_bytes: u64) -> Script {
    let mishap = Mishap { after_bytes, ..Mishap::once(call, How::Stall) };
    Script { mishaps: vec![mishap], ..demonstration() }
}

#[test]
fn a_download_stops_at_a_word_and_a_new_daemon_goes_on_with_one_that_was_cut() {
    let machine = Machine::new();
    let daemon = machine.start(stall(Call::Download, 100_000_000));
    daemon.wait_idle();
    daemon.ask("/os/check", "");
    daemon.wait_idle();
    daemon.ask("/os/download", "");
    let at = |report: &OsReport| match &report.phase {
        OsPhase::Downloading { done_bytes, percent, .. } => Some((*done_bytes, *percent)),
        _ => None,
    };
    let until = |daemon: &Daemon, bytes| {
        daemon.wait(|report| at(report).is_some());
        let deadline = Instant::now() + PATIENCE;
        while at(&daemon.report()).is_none_or(|(done_bytes, _)| done_bytes < bytes) {
            assert!(Instant::now() < deadline, "{bytes} bytes never came");
        }
    };
    until(&daemon, 100_000_000);
    daemon.ask("/os/download/cancel", "");
    let stopped = daemon.wait(|report| report.problem.is_some());
    assert_eq!(stopped.problem.unwrap().code, "stopped");
    let kept = daemon.wait(|report| report.downloaded_bytes > 0).downloaded_bytes;
    assert_eq!(kept, 100_000_000);
    daemon.script.go_by(stall(Call::Download, 200_000_000));
    daemon.ask("/os/download", "");
    until(&daemon, 200_000_000);
    drop(daemon);
    let daemon = machine.start(demonstration());
    let whole = daemon.wait_idle();
    assert_eq!(whole.downloaded_bytes, whole.offered.unwrap().size_bytes);
    assert_eq!(daemon.history().last(), Some(&OsWhat::Downloaded));
}

/// Kills the daemon while `call` does not come back; a new one must bring the update to its end.
fn cut_at(call: Call, before: impl Fn(&Daemon), phase: impl Fn(&OsPhase) -> bool) -> OsReport {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    before(&daemon);
    daemon.script.go_by(stall(call, 0));
    let mut events = daemon.follow();
    let path = match call {
        Call::Check => "/os/check",
        Call::Stage => "/os/stage",
        _ => "/os/apply",
    };
    daemon.ask(path, "");
    events.until(|report| phase(&report.phase));
    drop((daemon, events));
    let daemon = machine.start(demonstration());
    let report = match call {
        Call::Check => daemon.wait_idle(),
        Call::Stage => daemon.wait(|report| report.staged.is_some()),
        _ => daemon.wait(|report| report.banner.is_some()),
    };
    assert_eq!(report.problem, None);
    report
}

#[test]
fn a_daemon_that_is_killed_while_it_checks_forgets_it() {
    let report =
        cut_at(Call::Check, |daemon| drop(daemon.wait_idle()), |phase| *phase == OsPhase::Checking);
    assert_eq!(report.offered, None);
}

#[test]
fn a_daemon_that_is_killed_while_it_stages_begins_again() {
    let before = |daemon: &Daemon| {
        daemon.wait_idle();
        for path in ["/os/check", "/os/download"] {
            daemon.ask(path, "");
            daemon.wait_idle();
        }
    };
    let report = cut_at(Call::Stage, before, |phase| matches!(phase, OsPhase::Staging { .. }));
    assert_eq!(report.running.unwrap().version, "1.4.2");
}

#[test]
fn a_daemon_that_is_killed_before_the_restart_plans_it_anew() {
    let restarting = |phase: &OsPhase| matches!(phase, OsPhase::Restarting { .. });
    let report = cut_at(Call::Reboot, Daemon::stage, restarting);
    assert_eq!(report.running.unwrap().version, "1.5.0");
}

#[test]
fn a_plan_outlives_the_daemon_and_still_waits_for_those_who_play() {
    let mut machine = Machine::new();
    let daemon = machine.start(demonstration());
    daemon.stage();
    machine.play(&["TV"]);
    daemon.ask("/os/apply", "");
    drop(daemon);
    machine.countdown = Duration::from_secs(600);
    let daemon = machine.start(demonstration());
    daemon.wait(|report| matches!(report.phase, OsPhase::Waiting { .. }));
    machine.play(&[]);
    daemon.wait(|report| matches!(report.phase, OsPhase::Countdown { .. }));
    drop(daemon);
    // The countdown begins anew, so that it can be cancelled.
    machine.play(&["TV"]);
    let daemon = machine.start(demonstration());
    daemon.wait(|report| matches!(report.phase, OsPhase::Waiting { .. }));
    daemon.ask("/os/apply/cancel", "");
    assert!(daemon.report().staged.is_some());
}

#[test]
fn a_verdict_that_comes_while_the_daemon_is_away_is_told_by_the_next() {
    let machine = Machine::new();
    let mut script = demonstration();
    script.verdicts.insert(digest(0x15), Verdict::NeverComes);
    let daemon = machine.start(script);
    daemon.stage();
    daemon.ask("/os/apply", "");
    daemon.wait(|report| matches!(report.phase, OsPhase::Verifying { .. }));
    drop(daemon);
    let mut script = demonstration();
    script.verdicts.insert(digest(0x15), Verdict::Fails("no sound".to_owned()));
    let daemon = machine.start(script);
    let report = daemon.wait(|report| report.banner.is_some());
    assert_eq!(report.banner.unwrap().reason.as_deref(), Some("no sound"));
    assert_eq!(report.running.unwrap().version, "1.4.2");
    assert_eq!(daemon.history().last(), Some(&OsWhat::RolledBack));
}

#[test]
fn a_desk_says_that_it_is_no_appliance() {
    let machine = Machine::new();
    let store = Store::open(&machine.folder.path().join("state")).unwrap();
    let unused = Simulated::new(
        Disk::default(),
        Script::default(),
        Pace::INSTANT,
        Box::new(|_| Err("nobody looks at it".to_owned())),
    );
    let daemon = machine.serve(store, OsDesk::absent(), Arc::new(unused));
    let report = daemon.report();
    assert!(!report.appliance && !report.simulated && report.running.is_none());
    assert!(report.reason.unwrap().contains("not an appliance"));
    let which = format!(r#"{{"digest":"{}"}}"#, digest(1));
    for path in [
        "check",
        "archive",
        "download",
        "download/cancel",
        "stage",
        "apply",
        "apply/cancel",
        "rollback",
        "pin",
        "unpin",
        "dismiss",
        "factory-reset",
    ] {
        let body = if path.ends_with("pin") { which.as_str() } else { "" };
        let (status, code, detail) = daemon.refused(&format!("/os/{path}"), body);
        assert_eq!((status, code.as_str()), (503, "unavailable"), "{path}");
        assert!(detail.contains("not an appliance"), "{detail}");
    }
    let power: PowerReport = daemon.read("/power");
    assert!(!power.restart.available && power.sleep.reason.is_some());
    for verb in ["restart", "shutdown", "sleep"] {
        let (status, code, _) = daemon.refused(&format!("/power/{verb}"), "");
        assert_eq!((status, code.as_str()), (503, "unavailable"), "{verb}");
    }
}

#[test]
fn the_machine_is_switched_unless_somebody_would_be_cut_off() {
    let mut machine = Machine::new();
    let power = Arc::new(CountingPower::default());
    machine.power = power.clone();
    let daemon = machine.start(demonstration());
    machine.play(&["TV", "Deck"]);
    let report: PowerReport = daemon.read("/power");
    assert_eq!((report.restart.available, report.streaming.len()), (true, 2));
    let (status, code, detail) = daemon.refused("/power/shutdown", "");
    assert_eq!((status, code.as_str()), (409, "someone-streams"));
    assert!(detail.starts_with("TV and Deck would be cut off"), "{detail}");
    assert_eq!(daemon.refused("/power/sleep", r#"{"insist":true}"#).1, "unavailable");
    assert_eq!(daemon.call("POST", "/power/shutdown", r#"{"insist":true}"#).0, 202);
    machine.play(&[]);
    assert_eq!(daemon.call("POST", "/power/restart", "").0, 202);
    assert_eq!(*power.0.lock().unwrap(), [PowerVerb::Shutdown, PowerVerb::Restart]);
}
