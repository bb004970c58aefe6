//! The host as a process, and what it holds.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use punktfunk_host::cli::{Cli, run};
use punktfunk_host::identity::Identity;
use punktfunk_host::mgmt::client::Client;
use punktfunk_host::store::{NewClient, Store};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client::Device;

const PATIENCE: Duration = Duration::from_secs(60);

/// Names the folder of the host that the test program becomes.
const FOLDER: &str = "PUNKTFUNK_TEST_CYCLES";

/// A running host with one paired device; dropping it stops it.
pub(crate) struct Host {
    process: Child,
    folder: TempDir,
    /// The base of its ports.
    port: u16,
    /// Its certificate, as DER.
    pub(crate) certificate: Vec<u8>,
}

/// What a process holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) descriptors: usize,
    pub(crate) threads: u64,
    pub(crate) rss_kib: u64,
    pub(crate) children: usize,
    pub(crate) zombies: usize,
}

impl Host {
    /// Starts a host on loopback that knows `device`; `test` is the running test's name.
    pub(crate) fn start(test: &str, device: &Device) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("run")).unwrap();
        let store = Store::open(&at("state")).unwrap();
        let certificate = Identity::load_or_create(&store).unwrap().certificate_der().to_vec();
        let certificate_der = device.certificate.clone();
        let remote = [127, 0, 0, 1].into();
        store.add_client(NewClient { certificate_der, name: "player".into(), remote }).unwrap();
        drop(store);
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let port = port.clamp(2000, 65_000);
        let config = format!(
            "discovery = false\nlisten.address = \"127.0.0.1\"\ngamestream.port = {port}\n\
             log.filter = \"warn\"\n"
        );
        fs::write(at("host.toml"), config).unwrap();
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--include-ignored", "--exact", "--nocapture", test])
            .env(FOLDER, folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let mut host = Self { process, folder, port, certificate };
        host.wait_until_it_listens();
        host
    }

    fn wait_until_it_listens(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.folder.path().join("run/host.sock").exists() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "no host came up: {ended:?}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
        // The owner's door opens first; it answers when the others are open too.
        Client::at(&self.folder.path().join("run/host.sock")).unwrap().status().unwrap();
    }

    /// The port at this distance from the base. spec: gamestream 1.2
    pub(crate) fn port(&self, offset: i32) -> u16 {
        u16::try_from(i32::from(self.port) + offset).unwrap()
    }

    /// What the host holds now.
    pub(crate) fn counts(&self) -> Counts {
        let process = PathBuf::from(format!("/proc/{}", self.process.id()));
        let status = fs::read_to_string(process.join("status")).unwrap();
        let field = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse().unwrap()
        };
        let children = children_of(self.process.id());
        Counts {
            descriptors: fs::read_dir(process.join("fd")).unwrap().count(),
            threads: field("Threads:"),
            rss_kib: field("VmRSS:"),
            zombies: children.iter().filter(|state| **state == 'Z').count(),
            children: children.len(),
        }
    }

    /// What the host holds once nothing of a stream runs any more; what takes longer than this counts as left.
    pub(crate) fn settled(&self, fresh: &Counts) -> Counts {
        let deadline = Instant::now() + Duration::from_millis(500);
        loop {
            let counts = self.counts();
            let done = counts.descriptors <= fresh.descriptors;
            if (done && counts.children <= fresh.children) || Instant::now() > deadline {
                return counts;
            }
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let _ = self.process.wait();
    }
}

impl Counts {
    /// The smaller of each.
    pub(crate) fn least(self, other: Self) -> Self {
        Self {
            descriptors: self.descriptors.min(other.descriptors),
            threads: self.threads.min(other.threads),
            rss_kib: self.rss_kib.min(other.rss_kib),
            children: self.children.min(other.children),
            zombies: self.zombies.min(other.zombies),
        }
    }

    pub(crate) fn json(&self) -> String {
        let Self { descriptors, threads, rss_kib, .. } = self;
        format!(
            "{{\"descriptors\": {descriptors}, \"threads\": {threads}, \"rss_kib\": {rss_kib}}}"
        )
    }
}

/// The states of a process's children, as the kernel's letters.
fn children_of(parent: u32) -> Vec<char> {
    let mut states = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let Some((_, rest)) = stat.rsplit_once(") ") else { continue };
        let mut fields = rest.split(' ');
        let state = fields.next().unwrap().chars().next().unwrap();
        if fields.next() == Some(parent.to_string().as_str()) {
            states.push(state);
        }
    }
    states
}

/// Runs the host, in the process that [`Host::start`] has started; returns in every other.
pub(crate) fn becomes_the_host() {
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

/// Leaves what was measured where `PUNKTFUNK_MEASURED` names a folder.
pub(crate) fn keep(name: &str, json: &str) {
    if let Some(folder) = std::env::var_os("PUNKTFUNK_MEASURED") {
        fs::write(Path::new(&folder).join(format!("{name}.json")), json).unwrap();
    }
}
