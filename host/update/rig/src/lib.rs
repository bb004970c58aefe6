//! A box in a folder, for tests: a sysroot with OSTree's real program, a boot partition, a private bus, the real service on
//! it, keys, and a place from which signed releases come.
//!
//! A box begins with three versions: 1.4.0, with which it was set up, 1.4.1 to go back to, and 1.4.2, which runs. It needs
//! root, `ostree` and `dbus-daemon`. Whatever cannot be set up panics: then the test has failed.
//!
//! Deliberately absent: a kernel. What a start comes to was said when the system was published.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot set itself up has failed"
)]

mod bus;
mod client;
mod older;
mod registry;
mod releases;
mod starts;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use punktfunk_os::place::Place;
use punktfunk_os::verbs::Site;
use punktfunk_os::{calendar, facts};
use punktfunk_publish::keys::SecretKey;
use punktfunk_update::engine::{Engine, Settings};
use punktfunk_update::name::{Channel, Commit, Version};
use punktfunk_update::service::{self, End, Options};
use punktfunk_update::statement::{Release, Statement};
use punktfunk_update::transport::{Patience, Registry};
use tokio::sync::oneshot;

use bus::Bus;
pub use client::{Client, Pending, Told};
use older::Older;

/// The user whom nobody is.
const STRANGER: u32 = 65_534;

/// Which kind of system it is.
pub const FLAVOUR: &str = "slim";

/// How a system turns out when it is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is good.
    Passes,
    /// It comes up, and the self-test fails, with this detail.
    Fails(&'static str),
    /// It never comes so far as to be judged.
    NeverComesUp,
}

/// A box. Dropping it ends all of it.
pub struct Rig {
    folder: tempfile::TempDir,
    bus: Bus,
    registry: registry::Server,
    key: SecretKey,
    clock: Arc<AtomicU64>,
    /// What is stated, by channel.
    statements: BTreeMap<String, Statement>,
    outcomes: BTreeMap<String, Outcome>,
    boots: u32,
    service: Option<Serving>,
    idle: Duration,
}

/// The service on a thread.
struct Serving {
    stop: oneshot::Sender<()>,
    ended: mpsc::Receiver<End>,
    thread: JoinHandle<()>,
}

impl Default for Rig {
    fn default() -> Self {
        Self::new()
    }
}

impl Rig {
    /// A fresh one, with its service running and nothing published.
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["state", "run", "esp", "sysroot", "system", "keys"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let key = SecretKey::from_seed(&[1; 32]).unwrap();
        let public = folder.path().join("keys/current.pub");
        fs::write(public, format!("{}\n", key.public())).unwrap();
        let mut rig = Self {
            bus: Bus::new(folder.path()),
            registry: registry::Server::new(&folder.path().join("registry")),
            folder,
            key,
            clock: Arc::new(AtomicU64::new(calendar::now())),
            statements: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            boots: 0,
            service: None,
            idle: Duration::from_secs(3600),
        };
        rig.set_up();
        rig.serve();
        rig
    }

    /// The address of its bus.
    pub fn bus(&self) -> &str {
        self.bus.address()
    }

    /// Where `status.json` and `updates.json` are.
    pub fn run_folder(&self) -> PathBuf {
        self.path("run")
    }

    /// Root's memory.
    pub fn state_folder(&self) -> PathBuf {
        self.path("state")
    }

    /// The boot partition.
    pub fn esp(&self) -> PathBuf {
        self.path("esp")
    }

    /// The address of its registry, as it is written into a box.
    pub fn registry(&self) -> String {
        self.registry.address()
    }

    /// Root's program on it.
    pub fn site(&self) -> Site {
        let sysroot = self.path("sysroot");
        let ostree = Box::new(Older::new(&sysroot));
        let place = Place {
            sysroot,
            esp: self.path("esp"),
            state: self.path("state"),
            live: false,
            run: Some(self.path("run")),
            system: Some(self.path("system")),
        };
        Site { place, ostree }
    }

    /// What its engine knows.
    pub fn settings(&self) -> Settings {
        let clock = Arc::clone(&self.clock);
        let address = self.registry().parse().unwrap();
        let patience = Patience::default();
        let registry = Registry::new(address, Path::new("/nowhere"), false, patience);
        Settings {
            keys: self.path("keys"),
            flavour: FLAVOUR.to_owned(),
            clock: Box::new(move || clock.load(Ordering::Relaxed)),
            steady: Box::new(facts::since_start),
            registry: Ok(Box::new(registry)),
        }
    }

    /// An engine of one's own; the service must not run.
    pub fn engine(&self) -> Engine {
        Engine::open(self.site(), self.settings()).unwrap()
    }

    /// What time it is for the box, in seconds since 1970.
    pub fn now(&self) -> u64 {
        self.clock.load(Ordering::Relaxed)
    }

    /// Sets its clock, in seconds since 1970.
    pub fn set_clock(&self, unix: u64) {
        self.clock.store(unix, Ordering::Relaxed);
    }

    /// Makes a release and states it, with all that were published before, in a newer statement of channel `stable`.
    pub fn publish(&mut self, version: Version, minimum: Version, outcome: Outcome) -> Commit {
        let release = self.release(version, minimum, outcome);
        let commit = release.commit;
        self.state(Channel::Stable, |statement| statement.releases.push(release));
        commit
    }

    /// The registry gives so many bytes of blobs more and then stands still, until [`Rig::go_on`].
    pub fn stall_after(&self, bytes: u64) {
        self.registry.gate(Some(bytes));
    }

    /// The registry answers again.
    pub fn go_on(&self) {
        self.registry.gate(None);
    }

    /// As many bytes of blobs the registry has given.
    pub fn given_bytes(&self) -> u64 {
        self.registry.given_bytes()
    }

    /// The authority says no to this verb from now on, such as `download`.
    pub fn forbid(&self, verb: &str) {
        self.bus.forbid(verb);
    }

    /// Starts the service, which ends after so long without a question; an hour at first.
    pub fn serve_for(&mut self, idle: Duration) {
        self.idle = idle;
        self.serve();
    }

    /// Starts the service, and waits until it has its name.
    pub fn serve(&mut self) {
        assert!(self.service.is_none(), "it runs");
        let engine = self.engine();
        let options = Options { bus: Some(self.bus().to_owned()), idle: self.idle };
        let owned = self.bus.owned(service::NAME);
        let (stop, stopped) = oneshot::channel();
        let (tell, ended) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let stop = async { drop(stopped.await) };
            let end = runtime.unwrap().block_on(service::serve(engine, options, stop)).unwrap();
            // Nobody need wait for it.
            let _ = tell.send(end);
        });
        owned.wait();
        self.service = Some(Serving { stop, ended, thread });
    }

    /// Ends the service in whatever it is doing, if it runs.
    pub fn stop(&mut self) {
        let Some(Serving { stop, thread, .. }) = self.service.take() else { return };
        // It may have ended by itself.
        let _ = stop.send(());
        thread.join().unwrap();
    }

    /// Waits so long whether the service ends by itself, and says why it did.
    pub fn ended_within(&mut self, long: Duration) -> Option<End> {
        let ended = self.service.as_ref().unwrap().ended.recv_timeout(long).ok()?;
        self.stop();
        Some(ended)
    }

    /// The machine restarts: the service is gone in whatever it is doing, the loader chooses and counts, and what it
    /// starts passes or does not, until something stays up. Then the service is there again.
    pub fn boot(&mut self) {
        self.stop();
        self.go_on();
        self.start();
        self.serve();
    }

    /// Somebody on its bus.
    pub fn client(&self) -> Client {
        Client::new(self.bus())
    }

    /// Somebody on its bus who is not root.
    pub fn stranger(&self) -> Client {
        fs::set_permissions(self.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        Client::of_user(self.bus(), STRANGER)
    }

    /// One file of what is stated of a channel and of the release that was published last, for a stick.
    pub fn archive(&self, channel: Channel) -> PathBuf {
        self.archive_with(&self.envelope(channel))
    }

    /// The same, of another release.
    pub fn archive_of(&self, channel: Channel, commit: Commit) -> PathBuf {
        releases::encapsulate(self.folder.path(), commit);
        self.archive(channel)
    }

    /// The same, behind whatever envelope.
    pub fn archive_with(&self, envelope: &[u8]) -> PathBuf {
        let path = self.path("stick.tar");
        releases::archive(self.folder.path(), envelope, &path);
        path
    }

    /// The envelope of a channel, signed by a key that nobody trusts.
    pub fn strangers_envelope(&self, channel: Channel) -> Vec<u8> {
        let text = serde_json::to_string(&self.statements[&channel.to_string()]).unwrap();
        let stranger = SecretKey::from_seed(&[9; 32]).unwrap();
        punktfunk_publish::sign::envelope(&text, &[stranger]).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// States what `change` makes of what was stated, signed, under the channel's tag.
    pub fn state(&mut self, channel: Channel, change: impl FnOnce(&mut Statement)) {
        let statement = self.change(channel, change);
        let text = serde_json::to_string(&statement).unwrap();
        let envelope = punktfunk_publish::sign::envelope(&text, std::slice::from_ref(&self.key));
        self.registry.tell(&format!("{channel}-{FLAVOUR}"), &envelope.unwrap());
    }

    /// The envelope of a channel as it lies in the registry.
    pub fn envelope(&self, channel: Channel) -> Vec<u8> {
        self.registry.told(&format!("{channel}-{FLAVOUR}"))
    }

    /// Puts bytes under a channel's tag, whatever they are.
    pub fn tell(&self, channel: Channel, envelope: &[u8]) {
        self.registry.tell(&format!("{channel}-{FLAVOUR}"), envelope);
    }

    fn change(&mut self, channel: Channel, change: impl FnOnce(&mut Statement)) -> Statement {
        let now = self.now();
        let statement = self.statements.entry(channel.to_string()).or_insert_with(|| Statement {
            schema: punktfunk_update::statement::SCHEMA,
            channel,
            flavour: FLAVOUR.to_owned(),
            made_at: now - 1000,
            expires_at: now + 30 * 86_400,
            floor: None,
            revoked: Vec::new(),
            withdrawn: Vec::new(),
            releases: Vec::new(),
        });
        statement.made_at += 1;
        change(statement);
        statement.clone()
    }

    fn release(&mut self, version: Version, minimum: Version, outcome: Outcome) -> Release {
        let commit = releases::build(self.folder.path(), version);
        self.outcomes.insert(commit.to_string(), outcome);
        let mut release = releases::encapsulate(self.folder.path(), commit);
        release.version = version;
        release.minimum = minimum;
        release.changes = vec![format!("What is new in {version}")];
        release
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.registry.close();
        if let Some(Serving { stop, thread, .. }) = self.service.take() {
            let _ = stop.send(());
            // A test that has failed is told so; whatever the thread says besides is no news.
            let _ = thread.join();
        }
        starts::let_go(&self.path("sysroot"));
    }
}
