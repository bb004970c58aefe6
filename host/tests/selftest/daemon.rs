//! The daemon and the command as the owner runs them: two programs and a socket.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use punktfunk_host::mgmt::client::Client;
use rustix::process::{Pid, Signal, kill_process};

use super::ports;

const PATIENCE: Duration = Duration::from_secs(60);

/// Beside this test, where one that is run as another user finds it, or where it was built.
fn program() -> PathBuf {
    let beside = std::env::current_exe().unwrap().with_file_name("punktfunk-host");
    if beside.is_file() { beside } else { env!("CARGO_BIN_EXE_punktfunk-host").into() }
}

/// A daemon that is stopped when this is dropped.
struct Daemon {
    child: Child,
    folder: tempfile::TempDir,
}

impl Daemon {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("run")).unwrap();
        let config = format!(
            "discovery = false\nlisten.address = \"127.0.0.1\"\ngamestream.port = {}\n",
            ports::free()
        );
        fs::write(folder.path().join("host.toml"), config).unwrap();
        let mut serve = Command::new(program());
        serve.arg("serve");
        for (option, file) in
            [("--state-dir", "state"), ("--socket", "run/host.sock"), ("--config", "host.toml")]
        {
            serve.arg(option).arg(folder.path().join(file));
        }
        let child = serve.stdout(Stdio::null()).spawn().unwrap();
        let mut daemon = Self { child, folder };
        let deadline = Instant::now() + PATIENCE;
        while !daemon.socket().exists() {
            let ended = daemon.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no host came up");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/host.sock")
    }

    fn client(&self) -> Client {
        Client::at(&self.socket()).unwrap()
    }

    fn live_sessions(&self) -> usize {
        let sessions = self.client().sessions().unwrap();
        sessions.iter().filter(|session| session.ended.is_none()).count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
    }
}

fn selftest(socket: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(program());
    command.args(["selftest", "--width", "640", "--height", "360"]).args(more);
    command.arg("--socket").arg(socket);
    command
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

#[test]
#[ignore = "needs an unprivileged user"]
fn the_daemon_as_it_is_started_is_green_for_people_and_for_programs() {
    let daemon = Daemon::start();
    let output = selftest(&daemon.socket(), &["--frames", "30"]).output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("  pairing  ok") && said.contains("\ngreen: "), "{said}");

    let output = selftest(&daemon.socket(), &["--frames", "30", "--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{report:#}");
    assert_eq!((report["verdict"].as_str(), report["reason"].as_str()), (Some("green"), None));
    assert!(report["counts"]["frames_decoded"].as_u64().unwrap() >= 28, "{report:#}");

    assert!(daemon.client().clients().unwrap().is_empty(), "nobody was paired");
    assert_eq!(daemon.client().pairing().unwrap().state, "unarmed");
    assert_eq!(daemon.live_sessions(), 0);

    // One that is red says where and ends with 1.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = selftest(&daemon.socket(), &["--http", &closed]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("\nred: HTTP: no connection"), "{}", text(&output));
}

#[test]
#[ignore = "needs an unprivileged user"]
fn an_interrupted_test_says_nothing_of_the_host_and_leaves_nothing() {
    let daemon = Daemon::start();
    let mut test =
        selftest(&daemon.socket(), &["--frames", "1800"]).stdout(Stdio::piped()).spawn().unwrap();
    // What it has at the host is taken from a test that is in the middle of its stream, and that must not be red.
    let mut said = BufReader::new(test.stdout.take().unwrap()).lines();
    let connected = said.by_ref().map(Result::unwrap).any(|line| line.contains("  audio    ok"));
    assert!(connected, "no stream came up");
    assert_eq!(daemon.client().sessions().unwrap()[0].client_name, "the self-test");
    kill_process(Pid::from_child(&test), Signal::INT).unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert!(!rest.iter().any(|line| line.contains("FAILED") || line.contains("red")), "{rest:?}");
    assert_eq!(test.wait().unwrap().code(), Some(2));
    assert_eq!(daemon.live_sessions(), 0, "its session is left");
    assert!(daemon.client().clients().unwrap().is_empty());
    // Its place is free at once.
    let output = selftest(&daemon.socket(), &["--frames", "30"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
}

#[test]
fn without_a_daemon_the_status_is_two() {
    let folder = tempfile::tempdir().unwrap();
    let output = selftest(&folder.path().join("none"), &["--json"]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), report["verdict"].as_str()), (Some(2), Some("not-run")));
    for slip in [["--fps", "0"], ["--frames", "9"], ["--fps", "10000"], ["--frames", "x"]] {
        let output = selftest(&folder.path().join("none"), &slip).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "a slip of the keyboard is no red: {slip:?}");
    }
    let mut slow = selftest(&folder.path().join("none"), &["--frames", "1800", "--fps", "5"]);
    let output = slow.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("360 seconds"), "{said}");
}
