//! The daemon as a process: its console comes up whatever is broken, and says what.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use punktfunk_host::identity::ConsoleIdentity;
use punktfunk_host::mgmt::client::Client;
use punktfunk_host::store::Store;
use rustix::process::{Pid, Signal, kill_process};

use super::browser::{Answer, Browser};
use super::ports;
use super::process::{House, PROGRAM};

const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that is stopped when this is dropped.
struct Daemon {
    child: Child,
    console: SocketAddr,
}

impl Daemon {
    /// Starts one with its state in `folder`, which may hold something already; `more` is added to its configuration.
    fn start(folder: &Path, more: &str) -> Self {
        Self::start_at(folder, more, ports::free())
    }

    /// The same, with GameStream's ports at this place. What a test does not try stands in the environment, so that the
    /// file may be anything.
    fn start_at(folder: &Path, file: &str, port: u16) -> Self {
        Self::start_found(folder, file, port, false)
    }

    /// The same, announced to the network or not.
    fn start_found(folder: &Path, file: &str, port: u16, discovery: bool) -> Self {
        let _ = fs::create_dir(folder.join("run"));
        fs::write(folder.join("host.toml"), file).unwrap();
        let mut serve = Command::new(PROGRAM);
        serve.arg("serve");
        serve.env("PUNKTFUNK_DISCOVERY", discovery.to_string());
        serve.env("PUNKTFUNK_LISTEN__ADDRESS", "127.0.0.1");
        serve.env("PUNKTFUNK_GAMESTREAM__PORT", port.to_string());
        for (option, file) in
            [("--state-dir", "state"), ("--socket", "run/host.sock"), ("--config", "host.toml")]
        {
            serve.arg(option).arg(folder.join(file));
        }
        let child = serve.stdout(Stdio::null()).spawn().unwrap();
        let console = SocketAddr::from(([127, 0, 0, 1], port + 1));
        Self { child, console }
    }

    fn ask(&mut self, path: &str, certificate: &[u8]) -> Answer {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(mut browser) = Browser::connect(self.console, certificate) {
                return browser.ask("GET", path, &[], "");
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no console came up: {ended:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// The stage, once it is no longer `starting`.
    fn stage(&mut self, certificate: &[u8]) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let landing = self.ask("/api/v1/landing", certificate).json();
            if landing["stage"]["stage"] != "starting" {
                return landing["stage"].clone();
            }
            assert!(Instant::now() < deadline, "it is still starting: {landing}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let ended = self.child.wait().unwrap();
        if !std::thread::panicking() {
            assert!(ended.success(), "it did not end in good order: {ended}");
        }
    }
}

/// Asks over the local socket.
pub(crate) fn local(
    folder: &Path,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, serde_json::Value) {
    let text = exchange(folder, method, path, body);
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// All that is said to who reads this over the local socket.
pub(crate) fn said(folder: &Path, path: &str) -> String {
    exchange(folder, "GET", path, "")
}

fn exchange(folder: &Path, method: &str, path: &str, body: &str) -> String {
    let mut stream = UnixStream::connect(folder.join("run/host.sock")).unwrap();
    let length = body.len();
    let request = format!(
        "{method} /api/v1{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

/// The console's certificate, made before the daemon starts, so that the test knows what to trust.
fn certificate(folder: &Path) -> Vec<u8> {
    let store = Store::open(&folder.join("state")).unwrap();
    ConsoleIdentity::load_or_create(&store, "box").unwrap().certificate_der().to_vec()
}

#[test]
#[ignore = "needs an unprivileged user"]
fn the_console_is_there_before_and_after_a_restart_with_the_same_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    for _ in 0..2 {
        let mut daemon = Daemon::start(folder.path(), "");
        assert_eq!(daemon.stage(&certificate)["stage"], "ready");
        let health = daemon.ask("/api/v1/health", &certificate);
        assert_eq!(health.status, 200, "{health:?}");
        assert_eq!(daemon.ask("/api/v1/status", &certificate).code(), "unclaimed");
    }
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_broken_configuration_keeps_no_console_from_coming_up() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let broken = "limits.sessions = 99\nno.such.setting = 1\n";
    let mut daemon = Daemon::start(folder.path(), broken);
    assert_eq!(daemon.stage(&certificate)["stage"], "ready");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn without_sound_server_compositor_and_gpu_the_console_comes_up_and_the_test_card_is_offered() {
    let house = House::new();
    let mut command = Command::new(PROGRAM);
    // No program is found, nor what somebody's desktop runs.
    command.stdout(Stdio::null()).env("PATH", "/nonexistent");
    for name in ["XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "DISPLAY", "PIPEWIRE_REMOTE"] {
        command.env_remove(name);
    }
    let mut daemon = house.start_by("", command, &[]);
    assert_eq!(daemon.stage()["stage"], "ready");
    let (_, status) = local(house.path(), "GET", "/status", "");
    let problems = status["problems"].to_string();
    for missing in ["sway", "pipewire"] {
        assert!(problems.contains(missing), "{missing}: {problems}");
    }
    let (_, apps) = local(house.path(), "GET", "/apps", "");
    let apps = apps.as_array().unwrap();
    let titles: Vec<_> = apps.iter().filter(|app| app["offered"] == true).collect();
    assert!(titles.len() == 1 && titles[0]["title"] == "Test card", "{apps:?}");
    assert_eq!(daemon.ask("/api/v1/health").status, 200, "a client can play that");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_taken_port_of_the_console_is_told_on_the_local_socket() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut daemon = Daemon::start(folder.path(), &format!("console.port = {port}\n"));
    let client = Client::at(&folder.path().join("run/host.sock")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !folder.path().join("run/host.sock").exists() {
        assert!(Instant::now() < deadline && daemon.child.try_wait().unwrap().is_none());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let problems = client.status().unwrap().problems;
    assert!(problems.iter().any(|problem| problem.contains("console.port")), "{problems:?}");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_file_that_is_no_configuration_leaves_the_defaults_and_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let mut daemon = Daemon::start(folder.path(), "limits.sessions = 2\nthis is no TOML [");
    assert_eq!(daemon.stage(&certificate)["stage"], "ready");
    let (status, report) = local(folder.path(), "GET", "/status", "");
    assert_eq!(status, 200, "{report}");
    let problems = report["problems"].to_string();
    assert!(problems.contains("host.toml:2: the file is not TOML"), "{problems}");
    let (_, settings) = local(folder.path(), "GET", "/settings", "");
    let sessions = settings.as_array().unwrap().iter().find(|one| one["key"] == "limits.sessions");
    assert_eq!(sessions.unwrap()["value"], 4);

    // Mended while the host runs: that is told by the next change, and holds with the next start.
    let mut follower = UnixStream::connect(folder.path().join("run/host.sock")).unwrap();
    let follow = b"GET /api/v1/events?topics=problems HTTP/1.1\r\nhost: x\r\n\r\n";
    follower.write_all(follow).unwrap();
    follower.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut until = |words: &str| {
        let mut heard = String::new();
        while !heard.contains(words) {
            let mut some = [0; 4096];
            let read = follower.read(&mut some).unwrap();
            assert!(read > 0, "the events ended: {heard}");
            heard.push_str(&String::from_utf8_lossy(&some[..read]));
        }
        heard
    };
    until("you follow from here");
    fs::write(folder.path().join("host.toml"), "").unwrap();
    assert_eq!(local(folder.path(), "POST", "/settings/reset", "").0, 200);
    let told = until("\"problems\":");
    assert!(!told.contains("TOML"), "{told}");
    let problems = local(folder.path(), "GET", "/status", "").1["problems"].to_string();
    assert!(!problems.contains("TOML"), "{problems}");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_host_that_cannot_start_is_mended_through_its_own_doors() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    {
        let store = Store::open(&folder.path().join("state")).unwrap();
        store.put_settings(&[("limits.sessions".to_owned(), "2".to_owned())]).unwrap();
    }
    let (taken, port) = loop {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        if (2000..65_000).contains(&port) {
            break (taken, port);
        }
    };
    let mut daemon = Daemon::start_at(folder.path(), "nmae = 1\n", port);
    let stage = daemon.stage(&certificate);
    assert_eq!(stage["stage"], "failed");
    assert!(!stage["reason"].as_str().unwrap().contains(&port.to_string()), "{stage}");
    let ask = |method, path, body| local(folder.path(), method, path, body);
    let (status, problem) = ask("GET", "/status", "");
    let detail = problem["detail"].as_str().unwrap();
    assert_eq!((status, problem["code"].as_str()), (503, Some("cannot-start")));
    assert!(detail.contains(&port.to_string()) && detail.contains("`nmae`"), "{detail}");

    for path in ["/settings", "/os", "/power", "/doctor", "/network", "/storage", "/logs"] {
        assert_eq!(ask("GET", path, "").0, 200, "{path}");
    }
    let (status, finding) = ask("POST", "/doctor/network", "");
    assert_eq!((status, finding["outcome"].as_str()), (200, Some("broken")), "{finding}");
    assert!(finding["reason"].as_str().unwrap().contains("nothing can listen"), "{finding}");
    let (status, settings) = ask("DELETE", "/settings/limits.sessions", "");
    assert_eq!(status, 200, "{settings}");
    let of = |settings: &serde_json::Value| {
        settings
            .as_array()
            .unwrap()
            .iter()
            .find(|one| one["key"] == "limits.sessions")
            .unwrap()
            .clone()
    };
    assert_eq!((&of(&settings)["value"], &of(&settings)["pending"]), (&2.into(), &4.into()));
    drop(daemon);

    drop(taken);
    let mut daemon = Daemon::start_at(folder.path(), "", port);
    assert_eq!(daemon.stage(&certificate)["stage"], "ready");
    assert_eq!(of(&ask("GET", "/settings", "").1)["value"], 4);
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_damaged_database_is_told_at_the_console_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    drop(certificate(folder.path()));
    let database = folder.path().join("state/state.db");
    fs::write(&database, vec![0x5A; 8192]).unwrap();
    let shown = folder.path().join("state/claim.json");
    fs::write(&shown, "{}").unwrap();
    let mut daemon = Daemon::start(folder.path(), "");
    let client = Client::at(&folder.path().join("run/host.sock")).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !folder.path().join("run/host.sock").exists() {
        assert!(Instant::now() < deadline && daemon.child.try_wait().unwrap().is_none());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let error = client.status().unwrap_err().to_string();
    assert!(error.contains("damaged") && error.contains("state.db"), "{error}");
    // The certificate is one of memory, which nobody can know before.
    let stage = daemon.stage(b"");
    assert_eq!(stage["stage"], "failed");
    let reason = stage["reason"].as_str().unwrap();
    assert!(reason.contains("Restore a copy"), "{stage}");
    // Strangers read it too.
    assert!(!reason.contains('/') && !reason.contains("state.db"), "{stage}");
    // Whose it is, nobody knows: it offers no claim and lets nobody in, and every answer says what to do.
    let landing = daemon.ask("/api/v1/landing", b"").json();
    assert_eq!(landing.get("claimed"), Some(&serde_json::Value::Null), "{landing}");
    let refused = daemon.ask("/api/v1/status", b"");
    assert_eq!((refused.status, &*refused.code()), (403, "owner-unknown"));
    let claim = daemon.ask("/api/v1/claim", b"").json();
    let (landing, refused) = (&landing["why_unknown"], &refused.json()["detail"]);
    let page = daemon.ask("/", b"").body;
    let page = serde_json::Value::from(String::from_utf8(page).unwrap());
    for told in [landing, refused, &claim["why_unknown"], &page] {
        let told = told.as_str().unwrap();
        assert!(
            told.contains("whether it has an owner") && told.contains("Restore a copy"),
            "{told}"
        );
        assert!(!told.contains("state.db") && !told.contains("no owner yet"), "{told}");
    }
    assert!(!shown.exists(), "nor is a claim shown where screens look for it");
    // What is mended elsewhere can be seen, and nothing is said to be kept.
    let settings = local(folder.path(), "GET", "/settings", "");
    assert_eq!((settings.0, settings.1.as_array().unwrap().is_empty()), (200, false));
    let change = local(folder.path(), "PATCH", "/settings", r#"{"limits.sessions":2}"#);
    assert_eq!((change.0, change.1["code"].as_str()), (503, Some("unavailable")));
    assert_eq!(daemon.ask("/api/v1/health", b"").status, 503);
    assert_eq!(fs::read(&database).unwrap(), vec![0x5A; 8192]);
    assert!(daemon.child.try_wait().unwrap().is_none(), "the daemon stays");

    // A second one on the same state does not run at all.
    let second = Command::new(PROGRAM)
        .args(["serve", "--state-dir"])
        .arg(folder.path().join("state"))
        .arg("--socket")
        .arg(folder.path().join("run/host.sock"))
        .output()
        .unwrap();
    assert!(!second.status.success());
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_host_that_cannot_start_answers_to_the_name_by_which_its_console_is_found() {
    let folder = tempfile::tempdir().unwrap();
    drop(certificate(folder.path()));
    fs::write(folder.path().join("state/state.db"), vec![0x5A; 8192]).unwrap();
    let mut daemon = Daemon::start_found(folder.path(), "", ports::free(), true);
    assert_eq!(daemon.stage(b"")["stage"], "failed");
    // What else would name it cannot be read.
    let landing = daemon.ask("/api/v1/landing", b"").json();
    let tag = landing["fingerprint"].as_str().unwrap().replace(':', "")[..8].to_lowercase();
    let host = format!("Host: punktfunk-{tag}.local");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut browser = Browser::connect(daemon.console, b"").unwrap();
        let answer = browser.ask("GET", "/api/v1/landing", &[&host], "");
        if answer.status == 200 {
            break;
        }
        assert_eq!((answer.status, &*answer.code()), (421, "wrong-host"), "{answer:?}");
        assert!(Instant::now() < deadline, "nobody announces it");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}
