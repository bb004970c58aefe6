//! Updates that somebody sends in a file: whole, cut, too early, too late, and to the real service of a box in a folder.

use std::net::Shutdown;

use punktfunk_host::os::appliance::{Appliance, Bus};
use punktfunk_host::os::simulated::archive;
use punktfunk_host::os::{MemoryKeep, Version};
use punktfunk_update::name;
use punktfunk_update_rig::{Outcome, Rig};

use super::*;

const NEW: Version = Version::new(1, 5, 0);

/// Somebody who sends a file.
struct Sender(UnixStream);

impl Sender {
    /// Begins to send so many bytes; as many as there will be, if nothing is said.
    fn begin(socket: &std::path::Path, length: Option<usize>) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let length = match length {
            Some(length) => format!("Content-Length: {length}"),
            None => "Transfer-Encoding: chunked".to_owned(),
        };
        write!(stream, "POST /api/v1/os/archive HTTP/1.1\r\nHost: x\r\n{length}\r\n\r\n").unwrap();
        Self(stream)
    }

    fn answer(&mut self) -> (u16, String) {
        let mut answer = Vec::new();
        self.0.read_to_end(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }

    #[track_caller]
    fn refused(&mut self, expected: (u16, &str)) -> String {
        let (status, text) = self.answer();
        let problem: ProblemDetails = serde_json::from_str(&text).unwrap();
        assert_eq!((status, problem.code.as_str()), expected, "{text}");
        problem.detail
    }
}

/// Sends all of it.
fn send(socket: &std::path::Path, bytes: &[u8]) -> Sender {
    let mut sender = Sender::begin(socket, Some(bytes.len()));
    // Whoever refuses it need not read all of it.
    let _ = sender.0.write_all(bytes);
    sender
}

fn importing(report: &OsReport) -> Option<(u64, Option<u8>)> {
    match report.phase {
        OsPhase::Importing { done_bytes, percent, .. } => Some((done_bytes, percent)),
        _ => None,
    }
}

#[test]
fn what_is_sent_is_offered_fetched_and_staged_without_a_check() {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    let mut events = daemon.follow();
    let bytes = archive(NEW, 5_000_000);
    let (status, text) = send(&daemon.socket, &bytes).answer();
    assert_eq!(status, 200, "{text}");
    let report: OsReport = serde_json::from_str(&text).unwrap();
    assert_eq!((report.phase, report.problem), (OsPhase::Idle, None));
    assert_eq!(report.offered.unwrap().version, "1.5.0");
    assert_eq!(report.checked.unwrap().code, "update");
    let (_, news) = events.until(|report| report.offered.is_some());
    let told: Vec<_> = news.iter().filter(|(name, _)| name == "update.progress").collect();
    assert!(told.len() >= 3, "{news:?}");
    assert!(told.iter().all(|(_, news)| news.version.is_none() && news.simulated));
    assert!(told.iter().all(|(_, news)| news.total_bytes == Some(bytes.len() as u64)));
    for path in ["/os/download", "/os/stage"] {
        daemon.ask(path, "");
        assert_eq!(daemon.wait_idle().problem, None);
    }
    assert_eq!(daemon.report().staged.unwrap().version, "1.5.0");
    assert_eq!(daemon.history(), [OsWhat::Offered, OsWhat::Downloaded, OsWhat::Staged]);
    // What runs is older, and so is this; nothing newer is nothing wrong.
    assert_eq!(send(&daemon.socket, &archive(Version::new(1, 6, 0), 0)).answer().0, 200);
    assert_eq!(daemon.report().offered, None);
}

#[test]
fn what_comes_in_pieces_needs_no_length_and_what_is_wrong_with_it_is_told_at_once() {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    let chunked = |bytes: &[u8], end: &str| {
        let mut sender = Sender::begin(&daemon.socket, None);
        for piece in bytes.chunks(50_000) {
            let head = format!("{:x}\r\n", piece.len());
            // A host that refuses it may have stopped reading.
            let _ = sender.0.write_all(&[head.as_bytes(), piece, b"\r\n"].concat());
        }
        let _ = sender.0.write_all(end.as_bytes());
        sender
    };
    assert_eq!(chunked(&archive(NEW, 2_500_000), "0\r\n\r\n").answer().0, 200);
    // The answer comes though the end never does.
    let unknown = archive(Version::new(9, 9, 9), 1_000_000);
    chunked(&unknown, "").refused((409, "signature"));
    chunked(&b"nothing of the kind".repeat(20), "").refused((409, "content"));
    let more = [archive(NEW, 9), b"more".to_vec()].concat();
    chunked(&more, "").refused((409, "content"));
    chunked(&archive(NEW, 9)[..12], "0\r\n\r\n").refused((409, "content"));
    Sender::begin(&daemon.socket, Some(0)).refused((409, "content"));
    Sender::begin(&daemon.socket, Some((16 << 30) + 1)).refused((413, "malformed"));
    // What was offered before is still.
    let report = daemon.report();
    assert_eq!((report.phase, report.offered.unwrap().version.as_str()), (OsPhase::Idle, "1.5.0"));
}

#[test]
fn who_goes_away_in_the_middle_leaves_nothing_and_the_next_is_taken() {
    let machine = Machine::new();
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    let bytes = archive(NEW, 3_000_000);
    for how in [Some(Shutdown::Both), Some(Shutdown::Write), None] {
        let mut sender = Sender::begin(&daemon.socket, Some(bytes.len()));
        sender.0.write_all(&bytes[..2_000_000]).unwrap();
        daemon.wait(|report| importing(report).is_some_and(|(done, _)| done > 0));
        match how {
            Some(how) => sender.0.shutdown(how).unwrap(),
            None => drop(sender),
        }
        let report = daemon.wait_idle();
        assert_eq!((report.problem.unwrap().code.as_str(), report.offered), ("incomplete", None));
        daemon.ask("/os/dismiss", "");
    }
    assert_eq!(send(&daemon.socket, &bytes).answer().0, 200);
    assert!(daemon.report().offered.is_some());
}

#[test]
fn one_file_comes_at_a_time_and_not_beside_a_download() {
    let machine = Machine::new();
    let daemon = machine.start(stall(Call::Download, 100_000_000));
    daemon.wait_idle();
    let bytes = archive(NEW, 3_000_000);
    let mut first = Sender::begin(&daemon.socket, Some(bytes.len()));
    first.0.write_all(&bytes[..2_000_000]).unwrap();
    let half = daemon.wait(|report| importing(report).is_some_and(|(done, _)| done > 0));
    assert!((33..=67).contains(&importing(&half).unwrap().1.unwrap()), "{half:?}");
    let detail = send(&daemon.socket, &bytes).refused((409, "busy"));
    assert!(detail.contains("reading an update that was brought"), "{detail}");
    assert_eq!(daemon.refused("/os/check", "").1, "busy");
    first.0.write_all(&bytes[2_000_000..]).unwrap();
    assert_eq!(first.answer().0, 200);

    // The owner may stop it, and whoever sends is told.
    let mut second = Sender::begin(&daemon.socket, Some(bytes.len()));
    second.0.write_all(&bytes[..2_000_000]).unwrap();
    daemon.wait(|report| importing(report).is_some());
    daemon.ask("/os/download/cancel", "");
    let detail = second.refused((400, "incomplete"));
    assert!(detail.contains("it was stopped"), "{detail}");
    assert_eq!(daemon.wait_idle().problem.unwrap().code, "incomplete");

    daemon.ask("/os/download", "");
    daemon.wait(|report| matches!(report.phase, OsPhase::Downloading { .. }));
    send(&daemon.socket, &bytes).refused((409, "busy"));
    daemon.ask("/os/download/cancel", "");
    assert_eq!(daemon.wait_idle().problem.unwrap().code, "stopped");
}

#[test]
fn a_daemon_that_is_killed_meanwhile_says_so_when_it_comes_back() {
    let running = Machine::new();
    let daemon = running.start(demonstration());
    daemon.wait_idle();
    let bytes = archive(NEW, 3_000_000);
    let mut sender = Sender::begin(&daemon.socket, Some(bytes.len()));
    sender.0.write_all(&bytes[..2_000_000]).unwrap();
    daemon.wait(|report| importing(report).is_some());
    let machine = running.cut();
    let daemon = machine.start(demonstration());
    let report = daemon.wait_idle();
    assert_eq!((report.problem.unwrap().code.as_str(), report.offered), ("incomplete", None));
}

/// A host on a box in a folder, whose registry is never asked.
struct Boxed {
    rig: Rig,
    daemon: Daemon,
    first: name::Commit,
    _machine: Machine,
}

impl Boxed {
    fn new() -> Self {
        let mut rig = Rig::new();
        let version = name::Version::new;
        let first = rig.publish(version(1, 5, 0), version(1, 4, 0), Outcome::Passes);
        rig.publish(version(1, 6, 0), version(1, 4, 0), Outcome::Passes);
        let machine = Machine::new();
        let power = Arc::new(NoPower::default());
        let backend = Arc::new(Appliance::at(&rig.run_folder(), Bus::at(rig.bus()), power));
        let keep = Arc::new(MemoryKeep::default());
        let os = OsDesk::open(OsOptions {
            tick: Duration::from_millis(10),
            watch: Some(Duration::from_millis(20)),
            ..OsOptions::new(backend, keep, Arc::new(Vec::new))
        });
        let store = Store::open(&machine.folder.path().join("state")).unwrap();
        let save = Box::new(|_: &Disk| Ok(()));
        let unused = Simulated::new(Disk::default(), Script::default(), Pace::INSTANT, save);
        let daemon = machine.serve(store, os.unwrap(), Arc::new(unused));
        daemon.wait_idle();
        Self { rig, daemon, first, _machine: machine }
    }

    /// The file of the first version, behind this envelope.
    fn archive(&self) -> Vec<u8> {
        std::fs::read(self.rig.archive_of(name::Channel::Stable, self.first)).unwrap()
    }

    /// What is left of files that came.
    fn left(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.rig.state_folder()).unwrap();
        let names = files.map(|one| one.unwrap().file_name().to_string_lossy().into_owned());
        names.filter(|name| name.contains("import")).collect()
    }
}

#[test]
#[ignore = "needs root and ostree"]
fn a_box_takes_what_is_sent_and_asks_no_registry() {
    let boxed = Boxed::new();
    let Boxed { rig, daemon, .. } = &boxed;
    let bytes = boxed.archive();
    let (status, text) = send(&daemon.socket, &bytes).answer();
    assert_eq!(status, 200, "{text}");
    // The newer one is stated, and not in it.
    assert_eq!(daemon.report().offered.unwrap().version, "1.5.0");
    let given = rig.given_bytes();
    for path in ["/os/download", "/os/stage"] {
        daemon.ask(path, "");
        assert_eq!(daemon.wait_idle().problem, None);
    }
    assert_eq!(daemon.wait(|report| report.staged.is_some()).staged.unwrap().version, "1.5.0");
    assert_eq!((rig.given_bytes(), boxed.left()), (given, Vec::new()));
}

#[test]
#[ignore = "needs root and ostree"]
fn a_box_refuses_what_it_cannot_believe_before_it_has_all_of_it() {
    let mut boxed = Boxed::new();
    let good = boxed.archive();
    let channel = name::Channel::Stable;
    let read = |path: PathBuf| std::fs::read(path).unwrap();
    let strangers = read(boxed.rig.archive_with(&boxed.rig.strangers_envelope(channel)));
    let unsigned = serde_json::json!({"statement": "{}", "signatures": []}).to_string();
    let unsigned = read(boxed.rig.archive_with(unsigned.as_bytes()));
    let now = boxed.rig.now();
    let mut stated = |change: &dyn Fn(&mut punktfunk_update::statement::Statement)| {
        let before = boxed.rig.envelope(channel);
        boxed.rig.state(channel, |statement| change(statement));
        let envelope = boxed.rig.envelope(channel);
        boxed.rig.tell(channel, &before);
        read(boxed.rig.archive_with(&envelope))
    };
    let expired = stated(&|one| one.expires_at = now - 1);
    let early = stated(&|one| {
        (one.made_at, one.expires_at) = (now + 5000, now + 9000);
    });
    // Neither do these need their end to be refused: so much more is said to come.
    for (code, bytes) in [
        ("signature", &strangers),
        ("signature", &unsigned),
        ("expired", &expired),
        ("clock-behind", &early),
    ] {
        let mut sender = Sender::begin(&boxed.daemon.socket, Some(bytes.len() + (1 << 30)));
        let _ = sender.0.write_all(bytes);
        let refused = sender.refused((409, code));
        assert!(!refused.is_empty() && boxed.left().is_empty(), "{code}");
    }
    // Whatever is behind what is stated is not longer than that says.
    let mut sender = Sender::begin(&boxed.daemon.socket, Some(1 << 30));
    let endless = good.iter().copied().chain(std::iter::repeat_n(0, 20 << 20));
    let _ = sender.0.write_all(&endless.collect::<Vec<_>>());
    sender.refused((409, "content"));
    // Cut, swapped, and nothing at all.
    let about = good.len() - 4096;
    let swapped = [&good[..about], &good[about + 512..], &good[..512]].concat();
    for bytes in [&good[..good.len() - 512], &swapped, &[]] {
        send(&boxed.daemon.socket, bytes).refused((409, "content"));
    }
    assert_eq!((boxed.left(), boxed.daemon.report().offered), (Vec::new(), None));
    let (status, text) = send(&boxed.daemon.socket, &good).answer();
    assert_eq!(status, 200, "{text}");
    // What is older than what was believed.
    let older = boxed.archive();
    boxed.rig.state(channel, |one| {
        (one.made_at, one.expires_at) = (now - 500, now + 86_400);
    });
    let (status, text) = send(&boxed.daemon.socket, &boxed.archive()).answer();
    assert_eq!(status, 200, "{text}");
    send(&boxed.daemon.socket, &older).refused((409, "downgrade"));
    assert_eq!(boxed.left(), ["import.tar"]);
}

#[test]
#[ignore = "needs root and ostree"]
fn a_box_lets_go_of_what_comes_when_who_sends_it_goes() {
    let boxed = Boxed::new();
    let bytes = boxed.archive();
    for _ in 0..3 {
        let mut sender = Sender::begin(&boxed.daemon.socket, Some(bytes.len()));
        // All but what fits into pipes and sockets: then root's program has read something.
        sender.0.write_all(&bytes[..bytes.len() - 1]).unwrap();
        drop(sender);
        let report = boxed.daemon.wait(|report| report.problem.is_some());
        assert_eq!(report.problem.unwrap().code, "incomplete");
        assert_eq!((boxed.left(), report.offered), (Vec::new(), None));
        boxed.daemon.ask("/os/dismiss", "");
    }
    assert_eq!(send(&boxed.daemon.socket, &bytes).answer().0, 200);
}

#[test]
#[ignore = "needs root and ostree"]
fn what_a_stick_brings_is_offered_by_itself_and_what_is_wrong_with_it_is_told() {
    let boxed = Boxed::new();
    let bring = |bytes: &[u8]| {
        let path = boxed.rig.state_folder().with_file_name("punktfunk-update.tar");
        std::fs::write(&path, bytes).unwrap();
        punktfunk_update::service::bring::bring(
            Some(boxed.rig.bus()),
            std::fs::File::open(path).unwrap(),
        )
    };
    let good = boxed.archive();
    let refused = bring(&good[..good.len() / 2]).unwrap_err();
    assert!(refused.to_string().contains("cut off"), "{refused}");
    let outlook = || std::fs::read_to_string(boxed.rig.run_folder().join("updates.json")).unwrap();
    assert!(outlook().contains("what a stick brought was not taken"), "{}", outlook());
    assert_eq!(boxed.left(), Vec::<String>::new());
    bring(&good).unwrap();
    assert!(!outlook().contains("was not taken"), "{}", outlook());
    let report = boxed.daemon.wait(|report| report.offered.is_some());
    assert_eq!(report.offered.unwrap().version, "1.5.0");
    assert_eq!(report.checked.unwrap().code, "update");
    for path in ["/os/download", "/os/stage"] {
        boxed.daemon.ask(path, "");
        assert_eq!(boxed.daemon.wait_idle().problem, None);
    }
    // A folder is none, and is not waited for.
    let folder = std::fs::File::open(boxed.rig.run_folder()).unwrap();
    assert!(punktfunk_update::service::bring::bring(Some(boxed.rig.bus()), folder).is_err());
}
