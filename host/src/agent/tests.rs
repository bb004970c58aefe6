//! Agents that do not behave, played over a socket pair: every lie ends in an error with a reason, and nothing hangs.

use std::collections::BTreeMap;
use std::sync::mpsc;

use punktfunk_agent::{
    MAX_REQUEST_BYTES, MAX_SAY_BYTES, Outcome, Request, Say, channel, pack, unpack,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::*;

const PATIENCE: Duration = Duration::from_secs(60);

/// The agent's end of a connection.
struct Fake(OwnedFd);

impl Fake {
    fn say_with(&self, say: &Say, body: &[u8], gift: Option<&OwnedFd>) {
        use std::os::fd::AsFd;
        let packet = pack(say, body, usize::MAX).unwrap();
        // The host may have hung up, which is what most of these tests are about.
        let _ = channel::send(&self.0, &packet, gift.map(AsFd::as_fd), PATIENCE);
    }

    fn answer(&self, number: u64, outcome: Outcome) {
        self.say_with(&Say::Answer { number, outcome }, b"", None);
    }

    fn hear(&self) -> Option<Request> {
        let mut buffer = vec![0; MAX_REQUEST_BYTES];
        let got = channel::receive(&self.0, &mut buffer).unwrap();
        (got.bytes > 0).then(|| unpack(&buffer[..got.bytes]).unwrap().0)
    }
}

fn hello() -> Say {
    let (runtime_dir, home) = ("/run/x".to_owned(), "/home/x".to_owned());
    Say::Hello { version: punktfunk_agent::VERSION, runtime_dir, home, half_restored: None }
}

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

/// Opens a connection on which this is said first.
fn greeted_with(say: &Say) -> Result<(Arc<dyn Agent>, Fake), AgentError> {
    let (ours, its) = pair(SocketType::SEQPACKET);
    let fake = Fake(its);
    fake.say_with(say, b"", None);
    open(ours, None).map(|agent| (agent, fake))
}

/// An agent that is played by `act` in a thread of its own.
fn played(act: impl FnOnce(Fake) + Send + 'static) -> Arc<dyn Agent> {
    let (agent, fake) = greeted_with(&hello()).unwrap();
    std::thread::spawn(move || act(fake));
    agent
}

/// An agent that gives this answer to its first request.
fn answering(answer: impl Fn(&Fake, u64) + Send + 'static) -> Arc<dyn Agent> {
    played(move |fake| {
        let Some(request) = fake.hear() else { return };
        answer(&fake, request.number);
        while fake.hear().is_some() {}
    })
}

fn check_malformed<T>(agent: &Arc<dyn Agent>, result: Result<T, AgentError>) {
    let error = result.err().expect("the lie was believed");
    assert!(matches!(error, AgentError::Malformed { .. }), "{error:?}");
    assert!(agent.check().is_err(), "the session goes on");
    let again = agent.sockets().unwrap_err();
    assert_eq!(again, error, "the first reason stays");
}

#[test]
fn an_agent_that_does_not_greet_is_no_agent() {
    let version = Say::Hello {
        version: 99,
        runtime_dir: "/r".into(),
        home: "/h".into(),
        half_restored: None,
    };
    let folder = |path: &str| Say::Hello {
        version: punktfunk_agent::VERSION,
        runtime_dir: path.to_owned(),
        home: "/h".into(),
        half_restored: None,
    };
    for (say, reason) in [
        (version, "version 99"),
        (Say::Sorry { reason: "no\x1b[2J room".into() }, "no [2J room"),
        (Say::Answer { number: 1, outcome: Outcome::Done }, "did not greet"),
        (folder("relative"), "impossible folder"),
        (folder("/run/../etc"), "impossible folder"),
        (folder("/a\nb"), "impossible folder"),
        (folder(&format!("/{}", "x".repeat(5000))), "impossible folder"),
        (folder(&"x".repeat(MAX_SAY_BYTES)), "limits"),
    ] {
        let error = greeted_with(&say).err().expect("the greeting was believed").to_string();
        assert!(error.contains(reason), "{error}");
    }
    let (ours, its) = pair(SocketType::SEQPACKET);
    drop(its);
    let (tell, told) = mpsc::channel();
    assert!(open(ours, Some(Box::new(move || tell.send(()).unwrap()))).is_err());
    told.try_recv().expect("what comes after the end comes also where there was no beginning");
}

#[test]
fn answers_that_do_not_fit_end_the_connection() {
    let done = |fake: &Fake, number| fake.answer(number, Outcome::Done);
    let agent = answering(done);
    check_malformed(&agent, agent.sockets());
    let agent = answering(done);
    check_malformed(&agent, agent.connect("wayland-1"));
    let agent = answering(|fake, number| fake.answer(number + 7, Outcome::Done));
    check_malformed(&agent, agent.sockets());
    let agent = answering(|fake, number| {
        fake.answer(number, Outcome::Sockets(vec!["../../etc".to_owned()]));
    });
    check_malformed(&agent, agent.sockets());
    let agent = answering(|fake, number| {
        fake.answer(number, Outcome::Sockets(vec!["a".to_owned(); 65]));
    });
    check_malformed(&agent, agent.sockets());
    let agent = answering(|fake, number| fake.answer(number, Outcome::Sockets(vec![])));
    check_malformed(&agent, agent.write_file("a", b""));
    let agent = answering(|fake, _| fake.say_with(&hello(), b"", None));
    check_malformed(&agent, agent.sockets());
    let agent = answering(|fake, _| channel::send(&fake.0, b"garbage", None, PATIENCE).unwrap());
    check_malformed(&agent, agent.sockets());
    let agent = answering(|fake, _| {
        channel::send(&fake.0, &[b' '; MAX_SAY_BYTES + 1], None, PATIENCE).unwrap();
    });
    check_malformed(&agent, agent.sockets());
}

#[test]
fn only_a_connected_stream_is_taken_for_a_connection() {
    let gift = |gift: OwnedFd| {
        answering(move |fake, number| {
            let say = Say::Answer { number, outcome: Outcome::Done };
            fake.say_with(&say, b"", Some(&gift));
        })
    };
    let agent = gift(pair(SocketType::STREAM).0);
    agent.connect("wayland-1").unwrap();
    for wrong in [
        pair(SocketType::SEQPACKET).0,
        pair(SocketType::DGRAM).0,
        std::fs::File::open("/dev/null").unwrap().into(),
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().into(),
    ] {
        let agent = gift(wrong);
        check_malformed(&agent, agent.connect("wayland-1"));
    }
    let agent = gift(pair(SocketType::STREAM).0);
    check_malformed(&agent, agent.write_file("a", b""));
}

#[test]
fn a_flood_ends_the_connection() {
    let ended = Say::Ended { process: 5, status: "exit status: 0".to_owned() };
    let agent = played(move |fake| (0..100_000).for_each(|_| fake.say_with(&ended, b"", None)));
    let deadline = std::time::Instant::now() + PATIENCE;
    while agent.check().is_ok() {
        assert!(std::time::Instant::now() < deadline, "the flood is listened to");
        std::thread::yield_now();
    }
    drop(agent);
}

#[test]
fn an_agent_that_hangs_up_is_gone_and_its_programs_with_it() {
    let agent = played(|fake| {
        let number = fake.hear().unwrap().number;
        fake.answer(number, Outcome::Done);
        fake.hear();
    });
    let process = agent.spawn(&ProcessSpec::default()).unwrap();
    assert!(!process.wait(Duration::ZERO) && process.obituary().is_none());
    process.ask_to_end();
    assert!(process.wait(PATIENCE));
    assert!(process.obituary().unwrap().contains("gone"));
    assert!(matches!(agent.check(), Err(AgentError::Gone { .. })));
    assert!(matches!(agent.sockets(), Err(AgentError::Gone { .. })));
    agent.end(PATIENCE);
}

#[test]
fn last_words_are_told_short_and_clean() {
    let agent = played(|fake| {
        let process = fake.hear().unwrap().number;
        // The end may come before the answer.
        let status = "exit status: 3\x1b[2J".to_owned();
        let words = b"first\none\ntwo\n\nthree\x07\xff\nno display\n";
        fake.say_with(&Say::Ended { process, status }, words, None);
        fake.answer(process, Outcome::Done);
        while fake.hear().is_some() {}
    });
    let process = agent.spawn(&ProcessSpec::default()).unwrap();
    assert!(process.wait(PATIENCE));
    let words = process.obituary().unwrap();
    assert_eq!(words, "exit status: 3 [2J: one | two | three \u{fffd} | no display");
}

#[test]
fn what_is_too_large_is_refused_before_it_is_sent() {
    let (agent, fake) = greeted_with(&hello()).unwrap();
    let large = vec![b'x'; punktfunk_agent::MAX_FILE_BYTES + 1];
    assert!(matches!(agent.write_file("a", &large), Err(AgentError::Refused { .. })));
    let environment = BTreeMap::from([("A".to_owned(), "x".repeat(MAX_REQUEST_BYTES))]);
    let spec = ProcessSpec { environment, ..ProcessSpec::default() };
    assert!(matches!(agent.spawn(&spec), Err(AgentError::Refused { .. })));
    agent.check().unwrap();
    drop(agent);
    assert_eq!(fake.hear(), None, "something was sent");
}

#[test]
fn silence_is_noticed_and_held_against_it() {
    let (agent, fake) = greeted_with(&hello()).unwrap();
    let error = agent.sockets().unwrap_err();
    assert!(matches!(&error, AgentError::Gone { reason } if reason.contains("did not answer")));
    assert_eq!(agent.check(), Err(error));
    drop(fake);
}

#[test]
fn a_dropped_agent_is_hung_up_on_and_what_comes_after_comes_once() {
    let (ours, its) = pair(SocketType::SEQPACKET);
    let fake = Fake(its);
    fake.say_with(&hello(), b"", None);
    let (tell, told) = mpsc::channel();
    let agent = open(ours, Some(Box::new(move || tell.send(()).unwrap()))).unwrap();
    assert!(told.try_recv().is_err());
    drop(agent);
    assert_eq!(fake.hear(), None);
    assert_eq!(told.iter().count(), 1);
}

#[test]
fn a_missing_agent_is_named_and_its_profile_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let program = Some("/no/such/punktfunk-agent".into());
    let local = Local::new(folder.path().join("sessions"), program);
    for _ in 0..2 {
        let error = local.start(ProfileNumber(0)).err().expect("it started").to_string();
        assert!(error.contains("/no/such/punktfunk-agent is missing"), "{error}");
    }
    assert!(!local.isolates() && !local.describe().is_empty());
}
