//! The daemon as a process: what it tells, and what it leaves when it is stopped.
#![expect(clippy::unwrap_used, reason = "a test may end where it stands")]

use std::fs;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use punktfunk_host::cli::{Cli, run};
use punktfunk_host::mgmt::client::Client;
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

#[test]
#[ignore = "needs an unprivileged user"]
fn a_service_manager_hears_how_the_host_is_and_the_owner_what_it_offers() {
    become_the_daemon();
    let folder = tempfile::tempdir().unwrap();
    let manager = UnixDatagram::bind(folder.path().join("notify")).unwrap();
    manager.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut host = start(
        folder.path(),
        "a_service_manager_hears_how_the_host_is_and_the_owner_what_it_offers",
    );
    // As soon as its owner can see how far it is, and again when it is put together.
    hear(&manager, "READY=1\nSTATUS=its console is open and says how far the rest is");
    hear(&manager, "WATCHDOG=1");
    hear(&manager, "READY=1\nSTATUS=it is put together");

    let status = Client::at(&folder.path().join("run/host.sock")).unwrap().status().unwrap();
    let apps = status.backends.iter().find(|backend| backend.room == "apps").unwrap();
    assert!(apps.chosen.contains("Test card") && apps.chosen.contains("My clock"), "{apps:?}");
    assert!(
        status.problems.iter().any(|problem| problem.contains("no-such-program")),
        "an app that cannot run is told: {:?}",
        status.problems
    );

    kill_process(Pid::from_child(&host), Signal::TERM).unwrap();
    hear(&manager, "STOPPING=1");
    assert!(host.wait().unwrap().success());
}

/// Waits until the service manager is told these lines, in one message.
fn hear(manager: &UnixDatagram, lines: &str) {
    let mut bytes = [0; 512];
    loop {
        let count = manager.recv(&mut bytes).unwrap();
        let said = String::from_utf8_lossy(&bytes[..count]).into_owned();
        if lines.lines().all(|wanted| said.lines().any(|line| line == wanted)) {
            return;
        }
    }
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
        "discovery = false\nlisten.address = \"127.0.0.1\"\ngamestream.port = {}\n\
         [[app]]\ntitle = \"My clock\"\ndisplay = \"pattern\"\ncommands = [[\"sleep\", \"600\"]]\n\
         [[app]]\ntitle = \"Broken\"\ndisplay = \"pattern\"\ncommands = [[\"no-such-program\"]]\n",
        port.clamp(2000, 65_000)
    );
    fs::write(folder.join("host.toml"), config).unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap())
        .args(["--include-ignored", "--exact", "--nocapture", test])
        .env(FOLDER, folder)
        .env("NOTIFY_SOCKET", folder.join("notify"))
        .env("WATCHDOG_USEC", "200000")
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
