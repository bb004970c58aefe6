//! The daemon as a process: its console comes up whatever is broken, and says what.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use punktfunk_host::identity::ConsoleIdentity;
use punktfunk_host::mgmt::client::Client;
use punktfunk_host::store::Store;
use rustix::process::{Pid, Signal, kill_process};

use super::browser::{Answer, Browser};

const PROGRAM: &str = env!("CARGO_BIN_EXE_punktfunk-host");
const PATIENCE: Duration = Duration::from_secs(60);

/// A daemon that is stopped when this is dropped.
struct Daemon {
    child: Child,
    console: SocketAddr,
}

impl Daemon {
    /// Starts one with its state in `folder`, which may hold something already; `more` is added to its configuration.
    fn start(folder: &Path, more: &str) -> Self {
        let _ = fs::create_dir(folder.join("run"));
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = free.clamp(2000, 65_000);
        let config = format!(
            "discovery = false\nlisten.address = \"127.0.0.1\"\ngamestream.port = {port}\n{more}"
        );
        fs::write(folder.join("host.toml"), config).unwrap();
        let mut serve = Command::new(PROGRAM);
        serve.arg("serve");
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
fn a_broken_configuration_and_a_taken_port_keep_no_console_from_coming_up() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = certificate(folder.path());
    let broken = "limits.sessions = 99\nno.such.setting = 1\n";
    let mut daemon = Daemon::start(folder.path(), broken);
    assert_eq!(daemon.stage(&certificate)["stage"], "ready");
    drop(daemon);

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
fn a_damaged_database_is_told_at_the_console_and_not_touched() {
    let folder = tempfile::tempdir().unwrap();
    drop(certificate(folder.path()));
    let database = folder.path().join("state/state.db");
    fs::write(&database, vec![0x5A; 8192]).unwrap();
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
    assert!(stage["reason"].as_str().unwrap().contains("Restore a copy"), "{stage}");
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
