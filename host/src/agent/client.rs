//! The daemon's end of an agent's connection.
//!
//! One thread per agent, `pf-agent`, reads what the agent says; whoever asks something sends it and waits, with a time
//! limit, until that thread has put the answer down. What an agent says is held to the limits of [`punktfunk_agent`]: an
//! answer to nothing, a descriptor that nobody asked for, a message that is too long or not understood ends the
//! connection, and with it the session. So does silence: an agent that leaves a request unanswered is not asked again.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use punktfunk_agent::{
    Ask, MAX_FILE_BYTES, MAX_LAST_WORDS_BYTES, MAX_PROCESSES, MAX_REQUEST_BYTES, MAX_SAY_BYTES,
    MAX_SOCKETS, MAX_TEXT_BYTES, Outcome, Request, Say, Stream, channel, is_plain_name,
};
use rustix::event::PollFlags;
use rustix::net::{AddressFamily, Shutdown, SocketType, sockopt};
use rustix::pipe::{PipeFlags, pipe_with};

use super::{Agent, AgentError, Process, ProcessSpec};

/// Greets the agent at the other end of `channel`, a connected `SOCK_SEQPACKET` socket. `after_end` is called once, when
/// the connection is over; it may wait for the agent's process, and must not wait for ever.
///
/// # Errors
/// It does not say hello within [`CALL_PATIENCE`], or says that it cannot work; `after_end` has then been called.
pub fn open(
    channel: OwnedFd,
    after_end: Option<Box<dyn FnOnce() + Send>>,
) -> Result<Arc<dyn Agent>, AgentError> {
    let greeted = greet(&channel).and_then(|greeting| {
        let link =
            Arc::new(Link { socket: channel, state: Mutex::default(), news: Condvar::new() });
        let thread = std::thread::Builder::new()
            .name("pf-agent".to_owned())
            .spawn({
                let link = Arc::clone(&link);
                move || link.read()
            })
            .map_err(|error| AgentError::Start {
                reason: format!("no thread could be started: {error}"),
            })?;
        Ok((link, thread, greeting))
    });
    match greeted {
        Ok((link, thread, greeting)) => {
            let ending = Ending { reader: Some(thread), after_end };
            Ok(Arc::new(Client { link, greeting, ending: Mutex::new(ending) }))
        }
        Err(error) => {
            if let Some(after_end) = after_end {
                after_end();
            }
            Err(error)
        }
    }
}

/// What an agent says first.
struct Greeting {
    runtime_dir: PathBuf,
    home_dir: PathBuf,
    half_restored: Option<String>,
}

/// Waits for the agent's first message.
fn greet(socket: &OwnedFd) -> Result<Greeting, AgentError> {
    let refuse = |reason: String| AgentError::Start { reason };
    let mut buffer = vec![0; MAX_SAY_BYTES];
    let heard = channel::wait(socket, PollFlags::IN, Instant::now() + CALL_PATIENCE)
        .map_err(|error| refuse(format!("its agent cannot be waited for: {error}")))?;
    if !heard {
        return Err(refuse(format!("its agent said nothing for {} s", CALL_PATIENCE.as_secs())));
    }
    let got = channel::receive(socket, &mut buffer)
        .map_err(|error| refuse(format!("its agent cannot be heard: {error}")))?;
    if got.bytes == 0 {
        return Err(refuse("its agent ended at once".to_owned()));
    }
    let (say, _) =
        punktfunk_agent::unpack(&buffer[..got.bytes]).map_err(|error| refuse(error.to_string()))?;
    match say {
        Say::Hello { version: punktfunk_agent::VERSION, runtime_dir, home, half_restored } => {
            Ok(Greeting {
                runtime_dir: clean_path(&runtime_dir)?,
                home_dir: clean_path(&home)?,
                half_restored: half_restored.as_deref().map(clean_text),
            })
        }
        Say::Hello { version, .. } => Err(refuse(format!(
            "its agent speaks version {version}, this host version {}: install both anew",
            punktfunk_agent::VERSION
        ))),
        Say::Sorry { reason } => Err(refuse(clean_text(&reason))),
        _ => Err(refuse("its agent did not greet".to_owned())),
    }
}

/// The daemon's end of one agent.
struct Client {
    link: Arc<Link>,
    greeting: Greeting,
    ending: Mutex<Ending>,
}

/// What is done once, when the connection is over.
struct Ending {
    reader: Option<JoinHandle<()>>,
    after_end: Option<Box<dyn FnOnce() + Send>>,
}

impl Client {
    /// Hangs up, which ends the session at once, and waits until the agent and the connection's thread are gone.
    fn hang_up(&self) {
        self.link.hang_up("the session was ended");
        // The lock is held while waiting: whoever comes second finds all of it done.
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        // The agent is ended before its reader is waited for: what the reader still finds in the socket, and how long
        // that takes it, is up to the agent.
        if let Some(after_end) = ending.after_end.take() {
            after_end();
        }
        if let Some(reader) = ending.reader.take()
            && reader.join().is_err()
        {
            tracing::error!("the thread that listens to an agent panicked");
        }
    }
}

impl Client {
    fn start(
        &self,
        spec: &ProcessSpec,
        sent: Option<(Stream, BorrowedFd<'_>)>,
    ) -> Result<Box<dyn Process>, AgentError> {
        let doing = || format!("starting \"{}\"", clean_text(&spec.program));
        let number = self.link.expect_process()?;
        let ask = Ask::Spawn {
            program: spec.program.clone(),
            arguments: spec.arguments.clone(),
            environment: spec.environment.clone(),
            keeps_last_words: spec.keeps_last_words,
            stream: sent.map(|(stream, _)| stream),
        };
        let end = sent.map(|(_, end)| end);
        let started =
            self.link.ask_as(number, ask, end, doing).and_then(|reply| self.link.only_done(&reply));
        if let Err(error) = started {
            self.link.state().processes.remove(&number);
            return Err(error);
        }
        Ok(Box::new(Remote { link: Arc::clone(&self.link), number }))
    }
}

impl Agent for Client {
    fn runtime_dir(&self) -> &Path {
        &self.greeting.runtime_dir
    }

    fn home_dir(&self) -> &Path {
        &self.greeting.home_dir
    }

    fn half_restored(&self) -> Option<&str> {
        self.greeting.half_restored.as_deref()
    }

    fn put_in_place(&self, folder: &str) -> Result<(), AgentError> {
        let doing = || "putting a restored home in its place".to_owned();
        let ask = Ask::PutInPlace { folder: folder.to_owned() };
        let reply = self.link.ask_within(ask, PUT_IN_PLACE_PATIENCE, doing)?;
        self.link.only_done(&reply)
    }

    fn write_file(&self, name: &str, contents: &[u8]) -> Result<(), AgentError> {
        let doing = || format!("writing {name} for a session");
        if contents.len() > MAX_FILE_BYTES {
            let reason = format!("{} bytes are over {MAX_FILE_BYTES}", contents.len());
            return Err(AgentError::Refused { doing: doing(), reason });
        }
        let ask = Ask::WriteFile { name: name.to_owned() };
        self.link.ask(ask, contents, doing).and_then(|reply| self.link.only_done(&reply))
    }

    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Process>, AgentError> {
        self.start(spec, None)
    }

    fn spawn_piped(
        &self,
        spec: &ProcessSpec,
        stream: Stream,
    ) -> Result<(Box<dyn Process>, OwnedFd), AgentError> {
        // Made here: what an agent hands over could be anything.
        let (reads, writes) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| {
            AgentError::Refused { doing: "making a pipe".to_owned(), reason: error.to_string() }
        })?;
        let (ours, its) = match stream {
            Stream::Input => (writes, reads),
            Stream::Output => (reads, writes),
        };
        Ok((self.start(spec, Some((stream, its.as_fd())))?, ours))
    }

    fn sockets(&self) -> Result<Vec<String>, AgentError> {
        let doing = || "listing a session's sockets".to_owned();
        match self.link.ask(Ask::Sockets, &[], doing)? {
            Reply { outcome: Outcome::Sockets(names), descriptor: None }
                if names.len() <= MAX_SOCKETS && names.iter().all(|name| is_plain_name(name)) =>
            {
                Ok(names)
            }
            _ => Err(self.link.malformed("the answer is no list of sockets")),
        }
    }

    fn connect(&self, name: &str) -> Result<OwnedFd, AgentError> {
        let doing = || format!("connecting to a session's {name}");
        let reply = self.link.ask(Ask::Connect { name: name.to_owned() }, &[], doing)?;
        let (Outcome::Done, Some(descriptor)) = (reply.outcome, reply.descriptor) else {
            return Err(self.link.malformed("the answer has no connection"));
        };
        // Anything else - a file, a terminal, a socket of the network - could block or mislead whoever uses it.
        let is_stream = sockopt::socket_domain(&descriptor) == Ok(AddressFamily::UNIX)
            && sockopt::socket_type(&descriptor) == Ok(SocketType::STREAM);
        if is_stream {
            Ok(descriptor)
        } else {
            Err(self.link.malformed("what it handed over is no connection"))
        }
    }

    fn check(&self) -> Result<(), AgentError> {
        self.link.state().gone.clone().map_or(Ok(()), Err)
    }

    fn end(&self, grace: Duration) {
        let ask = Ask::End { grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX) };
        let doing = || "ending a session".to_owned();
        // Whatever it answers, hanging up ends it for good.
        if let Err(error) = self.link.ask_within(ask, grace + CALL_PATIENCE, doing)
            && !matches!(error, AgentError::Gone { .. })
        {
            tracing::warn!(%error, "a session's agent does not end as it should");
        }
        self.hang_up();
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.hang_up();
    }
}

/// A program that runs in the session.
struct Remote {
    link: Arc<Link>,
    number: u64,
}

impl Remote {
    fn signal(&self, force: bool) {
        let ask = Ask::Signal { process: self.number, force };
        // An agent that is gone has taken the program along.
        let _ = self.link.ask(ask, &[], || "ending a program".to_owned());
    }
}

impl Process for Remote {
    fn wait(&self, timeout: Duration) -> bool {
        let over = |state: &State| {
            state.gone.is_some() || state.processes.get(&self.number).is_none_or(Option::is_some)
        };
        let state = self.link.wait_until(Instant::now() + timeout, over);
        over(&state)
    }

    fn obituary(&self) -> Option<String> {
        let state = self.link.state();
        let told = state.processes.get(&self.number).cloned().flatten();
        told.or_else(|| state.gone.as_ref().map(ToString::to_string))
    }

    fn ask_to_end(&self) {
        if !self.wait(Duration::ZERO) {
            self.signal(false);
        }
    }

    fn terminate(&mut self, grace: Duration) {
        self.ask_to_end();
        if self.wait(grace) {
            return;
        }
        self.signal(true);
        // Only an uninterruptible sleep in the kernel survives SIGKILL; the end of the session waits for it again.
        if !self.wait(KILL_PATIENCE) {
            tracing::warn!("a session's program that was killed does not end");
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.terminate(Duration::ZERO);
        self.link.state().processes.remove(&self.number);
    }
}

/// The connection, shared by its thread and everybody who asks.
struct Link {
    socket: OwnedFd,
    state: Mutex<State>,
    news: Condvar,
}

#[derive(Default)]
struct State {
    last_number: u64,
    /// Requests that wait for their answer.
    asked: BTreeMap<u64, Option<Reply>>,
    /// The programs that somebody holds, and the obituaries of those that have ended.
    processes: BTreeMap<u64, Option<String>>,
    gone: Option<AgentError>,
}

struct Reply {
    outcome: Outcome,
    descriptor: Option<OwnedFd>,
}

impl Link {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of it is one assignment or insertion; a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state once `done`, or at the deadline.
    fn wait_until(
        &self,
        deadline: Instant,
        done: impl Fn(&State) -> bool,
    ) -> MutexGuard<'_, State> {
        let mut state = self.state();
        while !done(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let waited = self.news.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state
    }

    fn ask(&self, ask: Ask, body: &[u8], doing: impl Fn() -> String) -> Result<Reply, AgentError> {
        let number = self.next_number();
        self.exchange((number, ask), body, None, CALL_PATIENCE, doing)
    }

    fn ask_as(
        &self,
        number: u64,
        ask: Ask,
        descriptor: Option<BorrowedFd<'_>>,
        doing: impl Fn() -> String,
    ) -> Result<Reply, AgentError> {
        self.exchange((number, ask), &[], descriptor, CALL_PATIENCE, doing)
    }

    fn ask_within(
        &self,
        ask: Ask,
        patience: Duration,
        doing: impl Fn() -> String,
    ) -> Result<Reply, AgentError> {
        let number = self.next_number();
        self.exchange((number, ask), &[], None, patience, doing)
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.last_number += 1;
        state.last_number
    }

    /// Reserves a place for a program that is about to be started: its end may be told before its start.
    fn expect_process(&self) -> Result<u64, AgentError> {
        let number = self.next_number();
        let mut state = self.state();
        if state.processes.len() >= MAX_PROCESSES {
            return Err(AgentError::Refused {
                doing: "starting a program".to_owned(),
                reason: format!("{MAX_PROCESSES} run already, which is the limit"),
            });
        }
        state.processes.insert(number, None);
        Ok(number)
    }

    /// Sends a request and waits for its answer.
    fn exchange(
        &self,
        (number, ask): (u64, Ask),
        body: &[u8],
        descriptor: Option<BorrowedFd<'_>>,
        patience: Duration,
        doing: impl Fn() -> String,
    ) -> Result<Reply, AgentError> {
        let refused = |reason: String| AgentError::Refused { doing: doing(), reason };
        let packet = punktfunk_agent::pack(&Request { number, ask }, body, MAX_REQUEST_BYTES)
            .map_err(|error| refused(error.to_string()))?;
        {
            let mut state = self.state();
            if let Some(gone) = &state.gone {
                return Err(gone.clone());
            }
            state.asked.insert(number, None);
        }
        let deadline = Instant::now() + patience;
        if let Err(error) = channel::send(&self.socket, &packet, descriptor, patience) {
            self.state().asked.remove(&number);
            return Err(self.hang_up(&format!("it takes no request: {error}")));
        }
        let answered = |state: &State| {
            state.gone.is_some() || state.asked.get(&number).is_none_or(Option::is_some)
        };
        let mut state = self.wait_until(deadline, answered);
        let reply = state.asked.remove(&number).flatten();
        let gone = state.gone.clone();
        drop(state);
        match (reply, gone) {
            (Some(Reply { outcome: Outcome::Refused(reason), .. }), _) => {
                Err(refused(clean_text(&reason)))
            }
            (Some(reply), _) => Ok(reply),
            (None, Some(gone)) => Err(gone),
            (None, None) => Err(self.hang_up(&format!(
                "it did not answer for {} s ({})",
                patience.as_secs(),
                doing()
            ))),
        }
    }

    fn only_done(&self, reply: &Reply) -> Result<(), AgentError> {
        match reply {
            Reply { outcome: Outcome::Done, descriptor: None } => Ok(()),
            _ => Err(self.malformed("the answer does not fit the request")),
        }
    }

    /// Ends the connection; whoever waits for an answer hears of it. Gives back why it ended first.
    fn hang_up(&self, reason: &str) -> AgentError {
        self.end_with(AgentError::Gone { reason: reason.to_owned() })
    }

    fn malformed(&self, reason: &str) -> AgentError {
        self.end_with(AgentError::Malformed { reason: reason.to_owned() })
    }

    fn end_with(&self, error: AgentError) -> AgentError {
        let first = self.state().gone.get_or_insert(error).clone();
        self.news.notify_all();
        // It is fine if the other side has hung up already.
        let _ = rustix::net::shutdown(&self.socket, Shutdown::Both);
        first
    }

    /// The thread's work: take down what the agent says until the connection ends.
    fn read(&self) {
        let mut buffer = vec![0; MAX_SAY_BYTES];
        loop {
            let got = match channel::receive(&self.socket, &mut buffer) {
                Ok(got) if got.bytes == 0 => {
                    self.hang_up("it ended by itself");
                    return;
                }
                Ok(got) => got,
                Err(error) => {
                    self.malformed(&error.to_string());
                    return;
                }
            };
            if let Err(reason) = self.take(&buffer[..got.bytes], got.descriptor) {
                self.malformed(&reason);
                return;
            }
        }
    }

    fn take(&self, packet: &[u8], descriptor: Option<OwnedFd>) -> Result<(), String> {
        let (say, body) = punktfunk_agent::unpack(packet).map_err(|error| error.to_string())?;
        match say {
            Say::Answer { number, outcome } => {
                let mut state = self.state();
                let waiting = state.asked.get_mut(&number);
                let Some(place @ None) = waiting else {
                    return Err("it answers what nobody asked".to_owned());
                };
                *place = Some(Reply { outcome, descriptor });
            }
            Say::Ended { process, status } => {
                if descriptor.is_some() || body.len() > MAX_LAST_WORDS_BYTES {
                    return Err("its news of a program are over their limits".to_owned());
                }
                let mut state = self.state();
                if process == 0 || process > state.last_number {
                    return Err("a program ended that nobody started".to_owned());
                }
                // Nobody asks any more about a program whose handle was dropped.
                if let Some(place @ None) = state.processes.get_mut(&process) {
                    *place = Some(obituary(&status, body));
                }
            }
            Say::Hello { .. } | Say::Sorry { .. } => return Err("it greets again".to_owned()),
        }
        self.news.notify_all();
        Ok(())
    }
}

/// Status and last lines of a program in one line.
fn obituary(status: &str, words: &[u8]) -> String {
    let words = String::from_utf8_lossy(words);
    let mut lines: Vec<&str> =
        words.lines().rev().filter(|line| !line.trim().is_empty()).take(LAST_LINES).collect();
    lines.reverse();
    let status = clean_text(status);
    if lines.is_empty() { status } else { format!("{status}: {}", clean_text(&lines.join(" | "))) }
}

/// A text of an agent or a program, fit for a log and a client's screen: its end, if it is long.
fn clean_text(text: &str) -> String {
    let surplus = text.chars().count().saturating_sub(MAX_TEXT_BYTES);
    text.chars().skip(surplus).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn clean_path(path: &str) -> Result<PathBuf, AgentError> {
    let fine = path.starts_with('/')
        && path.len() <= MAX_TEXT_BYTES
        && !path.chars().any(char::is_control)
        && !path.split('/').any(|part| part == "..");
    if fine {
        Ok(path.into())
    } else {
        Err(AgentError::Start { reason: "its agent names an impossible folder".to_owned() })
    }
}

/// How long an agent may take to greet, and to answer beyond what the request itself takes.
const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// How long an agent may take to rename what lies in a home.
const PUT_IN_PLACE_PATIENCE: Duration = Duration::from_secs(60);
/// How long to wait after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How many lines of last words are told.
const LAST_LINES: usize = 4;
