//! Root's program for updates, played on a private bus: what it answers, and all the ways in which it does not.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use zbus::object_server::SignalEmitter;

use super::bus::{Bus, Question};
use super::{Appliance, outlook};
use crate::os::release::{Channel, Digest, MAX_RELEASES, Release, Version};
use crate::os::{Cancel, NoPower, OsBackend as _, OsError};

/// A bus of one's own.
struct PrivateBus {
    daemon: Child,
    address: String,
    folder: tempfile::TempDir,
}

const CONFIG: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:tmpdir=FOLDER</listen>
  <policy context="default">
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
    <allow own="*"/>
    POLICY
  </policy>
</busconfig>
"#;

impl PrivateBus {
    fn new() -> Self {
        Self::with("")
    }

    fn with(policy: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("bus.conf");
        let text = CONFIG.replace("FOLDER", folder.path().to_str().unwrap());
        fs::write(&config, text.replace("POLICY", policy)).unwrap();
        let mut daemon = Command::new("dbus-daemon")
            .args(["--nofork", "--nopidfile", "--print-address=1", "--config-file"])
            .arg(&config)
            .stdout(Stdio::piped())
            // It complains of limits that it may not raise.
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut address).unwrap();
        Self { daemon, address: address.trim().to_owned(), folder }
    }

    fn appliance(&self) -> Appliance {
        let bus = Bus::at(self.address.clone());
        Appliance::at(self.folder.path(), bus, Arc::new(NoPower::default()))
    }

    /// Root's program, as it is played here; it ends when it is dropped.
    fn play(&self, part: Part) -> Played {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let gone = Arc::new(Notify::new());
        let program = Program { part, gone: Arc::clone(&gone), cancelled: Arc::default() };
        let connection = runtime.block_on(async {
            let builder = zbus::connection::Builder::address(self.address.as_str());
            let builder = builder.name("org.punktfunk.Os1");
            builder.serve_at("/org/punktfunk/Os1", program).build().await.unwrap()
        });
        // Whoever is asked to go does so while the question is open.
        runtime.spawn(async move {
            gone.notified().await;
            connection.close().await.unwrap();
        });
        Played { runtime: Some(runtime) }
    }
}

impl Drop for PrivateBus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

struct Played {
    runtime: Option<tokio::runtime::Runtime>,
}

impl Drop for Played {
    fn drop(&mut self) {
        self.runtime.take().unwrap().shutdown_background();
    }
}

/// How it answers a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    /// It says how far it is, and is done.
    Works,
    /// It goes on until it is cancelled.
    UntilCancelled,
    /// It has not begun when it is cancelled first, and forgets that.
    Deaf,
    /// It ends.
    Vanishes,
    /// It does not answer.
    Hangs,
    /// It refuses with a word.
    Refuses,
}

struct Program {
    part: Part,
    gone: Arc<Notify>,
    cancelled: Arc<Notify>,
}

#[derive(Debug, zbus::DBusError)]
#[zbus(prefix = "org.punktfunk.Os1")]
enum Refusal {
    #[zbus(error)]
    Bus(zbus::Error),
    Error(String),
}

#[zbus::interface(name = "org.punktfunk.Os1")]
impl Program {
    async fn check(&self) -> String {
        r#"[{"version": "1.5.0"}, 7]"#.to_owned()
    }

    async fn download(
        &self,
        commit: String,
        insist: bool,
        #[zbus(signal_emitter)] emitter: SignalEmitter<'_>,
    ) -> Result<(), Refusal> {
        let stopped = || Refusal::Error(r#"{"code":"stopped"}"#.to_owned());
        match self.part {
            Part::Works => {
                assert!(insist);
                emitter.progress("another", 9, 9).await?;
                for done in [10, 30, 20, 90] {
                    emitter.progress(&commit, done, 100).await?;
                }
                Ok(())
            }
            Part::UntilCancelled => {
                emitter.progress(&commit, 10, 100).await?;
                self.cancelled.notified().await;
                Err(stopped())
            }
            Part::Deaf => {
                emitter.progress(&commit, 10, 100).await?;
                self.cancelled.notified().await;
                self.cancelled.notified().await;
                Err(stopped())
            }
            Part::Vanishes => {
                self.gone.notify_one();
                std::future::pending().await
            }
            Part::Hangs => std::future::pending().await,
            Part::Refuses => {
                let word = r#"{"code":"no-space","needed_bytes":9,"free_bytes":1}"#;
                Err(Refusal::Error(word.to_owned()))
            }
        }
    }

    async fn cancel(&self) {
        self.cancelled.notify_waiters();
    }

    async fn follow(&self, channel: String) -> Result<(), Refusal> {
        assert_eq!(channel, "next");
        Ok(())
    }

    #[zbus(signal)]
    async fn progress(
        emitter: &SignalEmitter<'_>,
        commit: &str,
        done: u64,
        total: u64,
    ) -> zbus::Result<()>;
}

fn release() -> Release {
    Release {
        version: Version::new(1, 5, 0),
        digest: Digest([0x15; 32]),
        made_at: 1,
        expires_at: 2,
        size_bytes: 200,
        minimum: Version::new(1, 4, 0),
        changes: vec![],
        channel: Channel::Stable,
    }
}

/// What comes of a download, and what was said of it.
fn download(appliance: &Appliance) -> (Result<(), OsError>, Vec<u64>) {
    let mut said = Vec::new();
    let mut note = |bytes| said.push(bytes);
    let result = appliance.download(&release(), true, &mut note, &Cancel::default());
    (result, said)
}

#[track_caller]
fn check_failed(result: Result<(), OsError>, says: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code(), "failed");
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn how_far_it_is_is_told_in_order_and_never_less() {
    let bus = PrivateBus::new();
    let _program = bus.play(Part::Works);
    let (result, said) = download(&bus.appliance());
    assert_eq!((result, said), (Ok(()), vec![20, 60, 60, 180, 200]));
    bus.appliance().follow(Channel::Next).unwrap();
    // What cannot be understood of a list is left out.
    assert_eq!(bus.appliance().check(&Cancel::default()), Ok(vec![]));
}

#[test]
fn whoever_cancels_is_heard_also_by_who_was_deaf_at_first() {
    for part in [Part::UntilCancelled, Part::Deaf] {
        let bus = PrivateBus::new();
        let _program = bus.play(part);
        let cancel = Cancel::default();
        let mut note = |_| cancel.cancel();
        let result = bus.appliance().download(&release(), true, &mut note, &cancel);
        assert_eq!(result, Err(OsError::Stopped), "{part:?}");
        let result = bus.appliance().download(&release(), true, &mut |_| {}, &cancel);
        assert_eq!(result, Err(OsError::Stopped));
    }
}

#[test]
fn a_program_that_refuses_is_told_in_its_words() {
    let bus = PrivateBus::new();
    let _program = bus.play(Part::Refuses);
    let refused = OsError::NoSpace { needed_bytes: 9, free_bytes: 1 };
    assert_eq!(download(&bus.appliance()), (Err(refused), vec![]));
}

#[test]
fn a_program_that_is_not_there_vanishes_or_hangs_is_told() {
    let bus = PrivateBus::new();
    check_failed(download(&bus.appliance()).0, "own program for updates is not there");
    check_failed(bus.appliance().pin(Digest([1; 32]), true), "is not there");
    {
        let _program = bus.play(Part::Vanishes);
        check_failed(download(&bus.appliance()).0, "ended before it had answered");
    }
    let _program = bus.play(Part::Hangs);
    let question = Question { method: "Download", doing: "wait", limit: Duration::from_millis(50) };
    let ask = |question, body: &(&str, bool)| {
        let cancel = Cancel::default();
        Bus::at(bus.address.clone()).ask::<_, ()>(question, body, "", &mut |_, _| {}, &cancel)
    };
    check_failed(ask(question, &("", true)), "did not answer within");
    // What it does not know, it says.
    check_failed(ask(Question { method: "Fly", ..question }, &("", true)), "cannot be asked");
}

#[test]
fn a_bus_that_dies_or_lets_nobody_ask_is_told() {
    let mut bus = PrivateBus::new();
    let program = bus.play(Part::UntilCancelled);
    let appliance = bus.appliance();
    let mut note = |_| bus.daemon.kill().unwrap();
    let result = appliance.download(&release(), true, &mut note, &Cancel::default());
    check_failed(result, "the system's bus is gone");
    check_failed(download(&appliance).0, "the system's bus does not answer");
    drop(program);

    let closed =
        PrivateBus::with(r#"<deny send_interface="org.punktfunk.Os1" send_member="Download"/>"#);
    let _program = closed.play(Part::Works);
    check_failed(download(&closed.appliance()).0, "does not let the host ask");
}

#[test]
fn releases_are_understood_and_bounded() {
    let one = |version: &str| {
        serde_json::json!({ "version": version, "commit": "15".repeat(32), "made_at": 1,
            "expires_at": 2, "size_bytes": 200, "minimum": "1.4.0", "channel": "stable",
            "changes": ["\u{1b}[1m"], "of tomorrow": 1 })
    };
    let read = |list: &[serde_json::Value]| {
        outlook::releases(&serde_json::Value::from(list.to_vec()).to_string()).unwrap()
    };
    let found = read(&[one("1.5.0"), one("x"), serde_json::json!({})]);
    let changes = vec!["[1m".to_owned()];
    assert_eq!(found, [Release { changes, ..release() }]);
    assert_eq!(read(&vec![one("1.5.0"); 100]).len(), MAX_RELEASES);
    for odd in ["", "{}", "7"] {
        assert!(outlook::releases(odd).is_err(), "{odd}");
    }
}
