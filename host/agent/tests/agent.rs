//! The real agent over a socket pair: what it does, what it refuses, and that nothing outlives it.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may end where it stands")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use punktfunk_agent::{
    Ask, MAX_LAST_WORDS_BYTES, MAX_REQUEST_BYTES, MAX_SAY_BYTES, Outcome, Request, Say, Stream,
    channel, pack, unpack,
};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn a_session_from_hello_to_end() {
    let mut rig = Rig::start();
    rig.ask(Ask::WriteFile { name: "notes".to_owned() }, b"words\n\0");
    assert_eq!(rig.outcome(), Outcome::Done);
    assert_eq!(fs::read(rig.run.join("notes")).unwrap(), b"words\n\0");

    let server = UnixListener::bind(rig.run.join("wayland-1")).unwrap();
    rig.ask(Ask::Sockets, b"");
    assert_eq!(rig.outcome(), Outcome::Sockets(vec!["wayland-1".to_owned()]));
    rig.ask(Ask::Connect { name: "wayland-1".to_owned() }, b"");
    let (_, _, connection) = rig.hear();
    let mut connection = UnixStream::from(connection.unwrap());
    connection.write_all(b"hello").unwrap();
    let mut heard = [0; 5];
    server.accept().unwrap().0.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello");

    rig.ask(Ask::End { grace_ms: 0 }, b"");
    assert_eq!(rig.outcome(), Outcome::Done);
    assert!(rig.agent.wait().unwrap().success());
    assert!(!rig.run.exists(), "the folder goes with the session");
}

#[test]
fn a_program_has_its_environment_and_leaves_its_last_words() {
    let mut rig = Rig::start();
    let script = "echo $HOME,$XDG_RUNTIME_DIR,$MORE,$(pwd) > \"$XDG_RUNTIME_DIR/seen\"; \
        grep -E 'SigBlk|NoNewPrivs' /proc/self/status >> \"$XDG_RUNTIME_DIR/seen\"; \
        ls -l /proc/self/fd >> \"$XDG_RUNTIME_DIR/seen\"; \
        echo one >&2; echo no display >&2; exit 3";
    rig.spawn_with(&["sh", "-c", script], BTreeMap::from([("MORE".into(), "ü =".into())]));
    assert_eq!(rig.ended(), ("exit status: 3".to_owned(), b"one\nno display\n".to_vec()));
    let seen = fs::read_to_string(rig.run.join("seen")).unwrap();
    let home = rig.home.path().display();
    assert!(seen.starts_with(&format!("{home},{},ü =,{home}\n", rig.run.display())), "{seen}");
    assert!(seen.contains("SigBlk:\t0000000000000000"), "a signal mask is inherited: {seen}");
    assert!(seen.contains("NoNewPrivs:\t1"), "{seen}");
    let own = ["socket:", "signalfd", "/dev/pts"];
    assert!(!own.iter().any(|own| seen.contains(own)), "a descriptor is inherited: {seen}");

    rig.spawn(&["sh", "-c", "yes 0123456789 | head -c 300000 >&2; kill -9 $$"]);
    let (status, words) = rig.ended();
    assert!(status.starts_with("signal: 9"), "{status}");
    assert_eq!(words.len(), MAX_LAST_WORDS_BYTES);
}

#[test]
fn the_host_holds_the_other_end_of_a_stream() {
    let mut rig = Rig::start();
    let mut spawn = |stream, script: &str, end: &OwnedFd| {
        let arguments = vec!["-c".to_owned(), script.to_owned()];
        let (program, environment) = ("sh".to_owned(), BTreeMap::new());
        let (keeps_last_words, stream) = (true, Some(stream));
        let ask = Ask::Spawn { program, arguments, environment, keeps_last_words, stream };
        rig.ask_with(ask, b"", Some(end));
        assert_eq!(rig.outcome(), Outcome::Done);
    };
    let (reads, writes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    spawn(Stream::Output, "echo from the home; exec >&-; sleep 600", &writes);
    drop(writes);
    let mut said = String::new();
    fs::File::from(reads).read_to_string(&mut said).unwrap();
    assert_eq!(said, "from the home\n", "nobody else holds the end");

    let (reads, writes) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    spawn(Stream::Input, "cat >&2", &reads);
    drop(reads);
    fs::File::from(writes).write_all(b"to the home").unwrap();
    assert_eq!(rig.ended(), ("exit status: 0".to_owned(), b"to the home".to_vec()));
}

#[test]
fn a_descriptor_that_nobody_announced_ends_the_session() {
    let spawn = |stream| Ask::Spawn {
        program: "true".to_owned(),
        arguments: vec![],
        environment: BTreeMap::new(),
        keeps_last_words: false,
        stream,
    };
    for (ask, sends) in
        [(Ask::Sockets, true), (spawn(None), true), (spawn(Some(Stream::Input)), false)]
    {
        let mut rig = Rig::start();
        let (end, _other) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        rig.ask_with(ask, b"", sends.then_some(&end));
        assert!(rig.agent.wait().unwrap().success());
    }
}

#[test]
fn a_restored_home_is_in_its_place_before_anybody_is_served() {
    let (outer, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(home.path().join(punktfunk_agent::RESTORED)).unwrap();
    fs::write(home.path().join(punktfunk_agent::RESTORED).join("save"), "new").unwrap();
    fs::write(home.path().join("save"), "old").unwrap();
    let (channel, mut agent) = start(&outer.path().join("run"), home.path());
    assert!(channel::wait(&channel, PollFlags::IN, Instant::now() + PATIENCE).unwrap());
    assert_eq!(fs::read_to_string(home.path().join("save")).unwrap(), "new");
    drop(channel);
    agent.wait().unwrap();
}

#[test]
fn an_agent_of_a_half_restored_home_says_so_and_serves_whoever_mends_it() {
    let home = tempfile::tempdir().unwrap();
    for path in ["gone", ".punktfunk-placing/gone", ".punktfunk-restore-1"] {
        fs::create_dir_all(home.path().join(path)).unwrap();
        fs::write(home.path().join(path).join("save"), path).unwrap();
    }
    let mut rig = Rig::start_in(home);
    assert!(rig.half_restored.as_ref().unwrap().contains("only a part"), "{:?}", rig.half_restored);
    rig.ask(Ask::PutInPlace { folder: "gone".to_owned() }, b"");
    assert!(matches!(rig.outcome(), Outcome::Refused(_)));
    rig.ask(Ask::PutInPlace { folder: ".punktfunk-restore-1".to_owned() }, b"");
    assert_eq!(rig.outcome(), Outcome::Done);
    assert_eq!(fs::read_to_string(rig.home.path().join("save")).unwrap(), ".punktfunk-restore-1");
    assert!(!rig.home.path().join("gone").exists());
    assert_eq!(Rig::start().half_restored, None);
}

#[test]
fn what_cannot_be_done_is_refused_in_words() {
    let mut rig = Rig::start();
    let name = || "../escape".to_owned();
    let words = |program: &str| Ask::Spawn {
        program: program.to_owned(),
        arguments: vec![],
        environment: BTreeMap::new(),
        keeps_last_words: false,
        stream: None,
    };
    for ask in [
        Ask::WriteFile { name: name() },
        Ask::Connect { name: name() },
        Ask::Connect { name: "nobody".to_owned() },
        words("no-such-program"),
        words("/etc/passwd"),
    ] {
        rig.ask(ask.clone(), b"");
        let refused = rig.outcome();
        assert!(matches!(&refused, Outcome::Refused(reason) if !reason.is_empty()), "{ask:?}");
    }
    rig.ask(Ask::Signal { process: 12_345, force: true }, b"");
    assert_eq!(rig.outcome(), Outcome::Done, "what has ended needs no signal");
}

#[test]
fn a_socket_that_accepts_nobody_is_given_up_and_others_are_served_meanwhile() {
    let mut rig = Rig::start();
    let hung = deaf_listener(&rig.run.join("hung"));
    let mut outcomes = vec![];
    for _ in 0..3 {
        rig.ask(Ask::Connect { name: "hung".to_owned() }, b"");
    }
    rig.ask(Ask::Sockets, b"");
    for _ in 0..4 {
        outcomes.push(rig.outcome());
    }
    let refused = outcomes.iter().filter(|it| matches!(it, Outcome::Refused(_))).count();
    assert!(refused >= 1, "{outcomes:?}");
    assert!(matches!(outcomes.last(), Some(Outcome::Refused(_))), "the list came first");
    drop(hung);
}

#[test]
fn a_signal_reaches_the_whole_group_and_a_leader_takes_its_group_along() {
    let mut rig = Rig::start();
    let number = rig.spawn(&[
        "sh",
        "-c",
        // The child tells its number when the trap of its parent is no longer its own.
        "trap : TERM; sh -c 'echo $$ > \"$XDG_RUNTIME_DIR/a\"; exec sleep 600' & \
         while :; do wait; done",
    ]);
    let child = rig.pid_in("a");
    rig.ask(Ask::Signal { process: number, force: false }, b"");
    assert_eq!(rig.outcome(), Outcome::Done);
    wait_for(|| !lives(child), "SIGTERM reached the leader only");
    rig.ask(Ask::Signal { process: number, force: true }, b"");
    let mut said = [rig.hear().0, rig.hear().0];
    said.sort_by_key(|say| matches!(say, Say::Ended { .. }));
    assert!(matches!(&said[1], Say::Ended { status, .. } if status.starts_with("signal: 9")));

    rig.spawn(&["sh", "-c", "sleep 600 & echo $! > \"$XDG_RUNTIME_DIR/b\"; exit 0"]);
    let child = rig.pid_in("b");
    assert_eq!(rig.ended().0, "exit status: 0");
    wait_for(|| !lives(child), "the group outlives its leader");
}

/// What leaves its group, its terminal and its parent.
const ESCAPE: &str = "setsid sh -c '(trap \"\" TERM HUP; echo $PPID > /dev/null; \
    sleep 600 & echo $! > \"$XDG_RUNTIME_DIR/part\"; mv \"$XDG_RUNTIME_DIR/part\" \"$XDG_RUNTIME_DIR/escaped\"; wait) &' & \
    exec sleep 600";

#[test]
fn nothing_outlives_the_end_not_even_what_left_its_group() {
    let mut rig = Rig::start();
    let first = rig.spawn(&["sh", "-c", ESCAPE]);
    let escaped = rig.pid_in("escaped");
    rig.ask(Ask::Signal { process: first, force: true }, b"");
    let _ = (rig.hear(), rig.hear());
    assert!(lives(escaped), "the test is void: what left the group ended with it");
    rig.ask(Ask::End { grace_ms: 0 }, b"");
    assert_eq!(rig.outcome(), Outcome::Done);
    assert!(!lives(escaped));
    assert!(rig.agent.wait().unwrap().success());
}

#[test]
fn nothing_outlives_a_host_that_is_gone() {
    let mut rig = Rig::start();
    rig.spawn(&["sh", "-c", ESCAPE]);
    let escaped = rig.pid_in("escaped");
    let run = rig.run.clone();
    rustix::net::shutdown(&rig.channel, rustix::net::Shutdown::Both).unwrap();
    rig.agent.wait().unwrap();
    assert!(!lives(escaped) && !run.exists());
}

#[test]
fn an_agent_that_is_killed_takes_its_programs_along() {
    let mut rig = Rig::start();
    rig.spawn(&["sh", "-c", "echo $$ > \"$XDG_RUNTIME_DIR/part\"; mv \"$XDG_RUNTIME_DIR/part\" \"$XDG_RUNTIME_DIR/pid\"; exec sleep 600"]);
    let program = rig.pid_in("pid");
    rig.agent.kill().unwrap();
    rig.agent.wait().unwrap();
    wait_for(|| !lives(program), "the program outlives the agent");
}

#[test]
fn an_agent_that_is_asked_to_end_ends_its_session() {
    let mut rig = Rig::start();
    rig.spawn(&["sh", "-c", ESCAPE]);
    let escaped = rig.pid_in("escaped");
    let agent = rustix::process::Pid::from_child(&rig.agent);
    rustix::process::kill_process(agent, rustix::process::Signal::TERM).unwrap();
    rig.agent.wait().unwrap();
    assert!(!lives(escaped) && !rig.run.exists());
}

#[test]
fn the_end_gives_programs_their_time() {
    let mut rig = Rig::start();
    let script = "trap 'echo saved > \"$HOME/saved\"; exit 0' TERM; touch \"$XDG_RUNTIME_DIR/up\"; \
        while :; do sleep 0.01; done";
    rig.spawn(&["sh", "-c", script]);
    let up = rig.run.join("up");
    wait_for(|| up.exists(), "the program did not come up");
    rig.ask(Ask::End { grace_ms: 50_000 }, b"");
    assert!(matches!(rig.hear().0, Say::Ended { .. }));
    assert_eq!(rig.outcome(), Outcome::Done);
    assert!(rig.home.path().join("saved").exists());
}

#[test]
fn a_message_that_is_not_understood_ends_the_session() {
    let number = |ask: &str| format!("{{\"number\":1,\"ask\":{ask}}}\n").into_bytes();
    for packet in [
        b"garbage".to_vec(),
        b"\n".to_vec(),
        vec![0xff; 100],
        number("\"fly\""),
        number("{\"signal\":{\"process\":-1,\"force\":true}}"),
        vec![b' '; MAX_REQUEST_BYTES + 1],
    ] {
        let mut rig = Rig::start();
        channel::send(&rig.channel, &packet, None, PATIENCE).unwrap();
        rig.agent.wait().unwrap();
        assert!(!rig.run.exists());
    }
}

#[test]
fn a_thousand_programs_leave_no_descriptor_and_no_zombie() {
    let mut rig = Rig::start();
    let agent = rig.agent.id();
    let descriptors = || fs::read_dir(format!("/proc/{agent}/fd")).map_or(0, Iterator::count);
    let before = descriptors();
    for _ in 0..1000 {
        rig.spawn(&["true"]);
        assert_eq!(rig.ended().0, "exit status: 0");
    }
    assert_eq!(descriptors(), before);
    assert_eq!(children(agent), Vec::<u32>::new());
    let threads = fs::read_dir(format!("/proc/{agent}/task")).map_or(0, Iterator::count);
    assert_eq!(threads, 1);
}

#[test]
fn there_is_a_limit_to_what_runs_at_once() {
    let mut rig = Rig::start();
    let ask = || Ask::Spawn {
        program: "sleep".to_owned(),
        arguments: vec!["600".to_owned()],
        environment: BTreeMap::new(),
        keeps_last_words: false,
        stream: None,
    };
    for _ in 0..punktfunk_agent::MAX_PROCESSES {
        rig.ask(ask(), b"");
        assert_eq!(rig.outcome(), Outcome::Done);
    }
    rig.ask(ask(), b"");
    assert!(matches!(rig.outcome(), Outcome::Refused(_)));
}

#[test]
fn a_folder_that_cannot_be_had_is_told() {
    let home = tempfile::tempdir().unwrap();
    let (channel, mut agent) = start(Path::new("/proc/no/such/folder"), home.path());
    let mut buffer = vec![0; MAX_SAY_BYTES];
    let got = channel::receive(&channel, &mut buffer).unwrap();
    let (say, _) = unpack::<Say>(&buffer[..got.bytes]).unwrap();
    assert!(matches!(&say, Say::Sorry { reason } if reason.contains("/proc/no")), "{say:?}");
    assert!(!agent.wait().unwrap().success());
}

/// An agent and the host's end of its channel.
struct Rig {
    channel: OwnedFd,
    agent: Child,
    run: PathBuf,
    home: TempDir,
    _outer: TempDir,
    half_restored: Option<String>,
    number: u64,
}

impl Rig {
    fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap())
    }

    fn start_in(home: TempDir) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let run = outer.path().join("run");
        let (channel, agent) = start(&run, home.path());
        let mut rig =
            Self { channel, agent, run, home, _outer: outer, half_restored: None, number: 0 };
        let Say::Hello { runtime_dir, half_restored, .. } = rig.hear().0 else {
            panic!("no hello")
        };
        rig.half_restored = half_restored;
        assert_eq!(Path::new(&runtime_dir), rig.run);
        rig
    }

    fn ask(&mut self, ask: Ask, body: &[u8]) {
        self.ask_with(ask, body, None);
    }

    fn ask_with(&mut self, ask: Ask, body: &[u8], descriptor: Option<&OwnedFd>) {
        self.number += 1;
        let request = Request { number: self.number, ask };
        let packet = pack(&request, body, MAX_REQUEST_BYTES).unwrap();
        channel::send(&self.channel, &packet, descriptor.map(AsFd::as_fd), PATIENCE).unwrap();
    }

    fn hear(&mut self) -> (Say, Vec<u8>, Option<OwnedFd>) {
        let mut buffer = vec![0; MAX_SAY_BYTES];
        let heard = channel::wait(&self.channel, PollFlags::IN, Instant::now() + PATIENCE);
        assert!(heard.unwrap(), "the agent says nothing");
        let got = channel::receive(&self.channel, &mut buffer).unwrap();
        assert!(got.bytes > 0, "the agent ended");
        let (say, body) = unpack(&buffer[..got.bytes]).unwrap();
        (say, body.to_vec(), got.descriptor)
    }

    fn outcome(&mut self) -> Outcome {
        match self.hear().0 {
            Say::Answer { outcome, .. } => outcome,
            other => panic!("{other:?}"),
        }
    }

    fn ended(&mut self) -> (String, Vec<u8>) {
        match self.hear() {
            (Say::Ended { status, .. }, words, _) => (status, words),
            other => panic!("{other:?}"),
        }
    }

    fn spawn(&mut self, words: &[&str]) -> u64 {
        self.spawn_with(words, BTreeMap::new())
    }

    fn spawn_with(&mut self, words: &[&str], environment: BTreeMap<String, String>) -> u64 {
        let arguments = words[1..].iter().map(|word| (*word).to_owned()).collect();
        let program = words[0].to_owned();
        let (keeps_last_words, stream) = (true, None);
        let ask = Ask::Spawn { program, arguments, environment, keeps_last_words, stream };
        self.ask(ask, b"");
        assert_eq!(self.outcome(), Outcome::Done);
        self.number
    }

    fn pid_in(&self, file: &str) -> u32 {
        let mut pid = None;
        wait_for(
            || {
                let text = fs::read_to_string(self.run.join(file)).unwrap_or_default();
                pid = text.ends_with('\n').then(|| text.trim().parse().ok()).flatten();
                pid.is_some()
            },
            "the program did not come up",
        );
        pid.unwrap()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.channel, rustix::net::Shutdown::Both);
        let _ = self.agent.wait();
    }
}

fn start(run: &Path, home: &Path) -> (OwnedFd, Child) {
    let (ours, its) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let agent = Command::new(env!("CARGO_BIN_EXE_punktfunk-agent"))
        .arg("--runtime-dir")
        .arg(run)
        .arg("--home")
        .arg(home)
        .stdin(Stdio::from(its))
        .spawn()
        .unwrap();
    (ours, agent)
}

/// A listening socket with room for one, whose owner never accepts.
fn deaf_listener(path: &Path) -> OwnedFd {
    let flags = SocketFlags::CLOEXEC;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
    rustix::net::bind(&socket, &rustix::net::SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    socket
}

fn wait_for(mut done: impl FnMut() -> bool, otherwise: &str) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "{otherwise}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether a process runs; a zombie does not.
fn lives(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
