//! The daemon as a process: what it leaves when it is stopped.
#![expect(clippy::unwrap_used, reason = "a test may end where it stands")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use punktfunk_host::cli::{Cli, run};
use rustix::process::{Pid, Signal, kill_process};

const PATIENCE: Duration = Duration::from_secs(60);

/// Names the folder of the daemon that the test program becomes.
const FOLDER: &str = "PUNKTFUNK_TEST_DAEMON";

#[test]
#[ignore = "needs an unprivileged user"]
fn a_host_whose_terminal_is_gone_ends_in_good_order() {
    become_the_daemon();
    let folder = tempfile::tempdir().unwrap();
    let mut host = start(folder.path(), "a_host_whose_terminal_is_gone_ends_in_good_order");
    // Whoever read what it says has gone; the signal is the one of a terminal that is closed.
    drop((host.stdout.take(), host.stderr.take()));
    kill_process(Pid::from_child(&host), Signal::HUP).unwrap();
    assert!(host.wait().unwrap().success(), "it did not end in good order");
    let left: Vec<_> = fs::read_dir(folder.path().join("run")).unwrap().flatten().collect();
    assert!(left.is_empty(), "{left:?} are left");
}

/// Runs the host, in the process that `start` has started; returns in every other.
fn become_the_daemon() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut words = vec!["punktfunk-host".into(), "serve".into(), "--foreground".into()];
    for (option, file) in
        [("--state-dir", "state"), ("--socket", "run/host.sock"), ("--config", "host.toml")]
    {
        words.extend([option.into(), folder.join(file).into_os_string()]);
    }
    run(Cli::parse_from(words)).unwrap();
    std::process::exit(0);
}

/// Starts the host in `folder` and waits until its owner could talk to it.
fn start(folder: &Path, test: &str) -> Child {
    fs::create_dir(folder.join("run")).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = format!(
        "discovery = false\nlisten.address = \"127.0.0.1\"\ngamestream.port = {}\n",
        port.clamp(2000, 65_000)
    );
    fs::write(folder.join("host.toml"), config).unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", "--nocapture", test])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !folder.join("run/host.sock").exists() {
        assert!(host.try_wait().unwrap().is_none() && Instant::now() < deadline, "no host came up");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    host
}
