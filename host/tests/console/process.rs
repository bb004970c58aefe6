//! The daemon as a process of its own, on a state folder that outlives it.

use std::ffi::OsStr;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use punktfunk_host::access::{Access, AccessOptions, ClaimAttempt};
use punktfunk_host::identity::ConsoleIdentity;
use punktfunk_host::store::Store;
use rustix::process::{Pid, Signal, kill_process};

use super::browser::{Answer, Browser};
use super::ports;

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The owner's password in every house here.
pub(crate) const PASSWORD: &str = "correct horse battery";
pub(crate) const OURS: &str = "Origin: https://localhost";

/// The daemon's program: beside this test, where one that is run as another user finds it, or where it was built.
pub(crate) const PROGRAM: Program = Program;

/// See [`PROGRAM`].
pub(crate) struct Program;

impl AsRef<OsStr> for Program {
    fn as_ref(&self) -> &OsStr {
        static PLACE: OnceLock<PathBuf> = OnceLock::new();
        let look = || {
            let beside = std::env::current_exe().unwrap().with_file_name("punktfunk-host");
            if beside.is_file() { beside } else { env!("CARGO_BIN_EXE_punktfunk-host").into() }
        };
        PLACE.get_or_init(look).as_os_str()
    }
}

/// The folder of a host that may be started again and again, and the certificate of its console, made before the first
/// start, so that the test knows what to trust.
pub(crate) struct House {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) certificate: Vec<u8>,
}

/// What the browser of whoever claimed the host has.
pub(crate) struct Owner {
    pub(crate) cookie: String,
    pub(crate) csrf: String,
}

impl Owner {
    /// The header lines of a change.
    pub(crate) fn lines(&self) -> [&str; 3] {
        [&self.cookie, &self.csrf, OURS]
    }
}

impl House {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let console = ConsoleIdentity::load_or_create(&store, "box").unwrap();
        Self { certificate: console.certificate_der().to_vec(), folder }
    }

    /// A house with an owner, who is logged in.
    pub(crate) fn owned() -> (Self, Owner) {
        let house = Self::new();
        let store = Store::open(&house.state()).unwrap();
        let access = Access::open(store.clone(), AccessOptions::of_machine(house.state())).unwrap();
        let code = store.claim().unwrap().unwrap().code.clone();
        let claimed = access.claim(&ClaimAttempt {
            secret: &code,
            name: "Sofa",
            password: PASSWORD,
            remote: None,
            agent: None,
        });
        let claimed = claimed.unwrap();
        let owner = Owner {
            cookie: format!("Cookie: __Host-punktfunk={}", claimed.secret.reveal()),
            csrf: format!("X-Punktfunk-Csrf: {}", claimed.session.csrf),
        };
        (house, owner)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("run/host.sock")
    }

    /// What shows the claim: token and code.
    pub(crate) fn shown(&self) -> Option<(String, String)> {
        let text = fs::read_to_string(self.state().join("claim.json")).ok()?;
        let claim: serde_json::Value = serde_json::from_str(&text).unwrap();
        Some((claim["token"].as_str()?.to_owned(), claim["code"].as_str()?.to_owned()))
    }

    /// Starts the daemon; `more` is added to its configuration.
    pub(crate) fn start(&self, more: &str) -> Daemon {
        let mut command = Command::new(PROGRAM);
        // What it says is nobody's.
        command.stdout(Stdio::null());
        self.start_by(more, command, &[])
    }

    /// Starts the daemon by this command, with these options more.
    pub(crate) fn start_by(&self, more: &str, mut command: Command, options: &[&str]) -> Daemon {
        let _ = fs::create_dir(self.path().join("run"));
        let port = ports::free();
        let config = format!(
            "discovery = false\nlisten.address = \"127.0.0.1\"\ngamestream.port = {port}\n{more}"
        );
        fs::write(self.path().join("host.toml"), config).unwrap();
        command.arg("serve").args(options);
        for (option, file) in
            [("--state-dir", "state"), ("--socket", "run/host.sock"), ("--config", "host.toml")]
        {
            command.arg(option).arg(self.path().join(file));
        }
        let child = command.spawn().unwrap();
        let console = SocketAddr::from(([127, 0, 0, 1], port + 1));
        Daemon { child, console, http: port, is_dead: false, certificate: self.certificate.clone() }
    }
}

/// A daemon that is stopped when this is dropped, and must then end in good order.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    /// Where its console is.
    pub(crate) console: SocketAddr,
    /// The port at which devices ask.
    pub(crate) http: u16,
    /// What it must show; if empty, anything is taken.
    pub(crate) certificate: Vec<u8>,
    is_dead: bool,
}

impl Daemon {
    /// A connection to the console, once it is there.
    pub(crate) fn browser(&mut self) -> Browser {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(browser) = Browser::connect(self.console, &self.certificate) {
                return browser;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no console came up: {ended:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    /// Asks without a word of who asks.
    pub(crate) fn ask(&mut self, path: &str) -> Answer {
        self.browser().ask("GET", path, &[], "")
    }

    /// The stage, once it is no longer `starting`.
    pub(crate) fn stage(&mut self) -> serde_json::Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let landing = self.ask("/api/v1/landing").json();
            if landing["stage"]["stage"] != "starting" {
                return landing["stage"].clone();
            }
            assert!(Instant::now() < deadline, "it is still starting: {landing}");
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }

    /// Kills it, without a chance to say or write another word.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.is_dead = true;
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.is_dead {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let ended = self.child.wait().unwrap();
        if !std::thread::panicking() {
            assert!(ended.success(), "it did not end in good order: {ended}");
        }
    }
}
