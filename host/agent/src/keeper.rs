//! The agent's one loop: requests in, answers out, programs kept and reaped.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signalfd::SignalFd;
use punktfunk_agent::{
    Ask, MAX_FILE_BYTES, MAX_LAST_WORDS_BYTES, MAX_PROCESSES, MAX_REQUEST_BYTES, MAX_SAY_BYTES,
    MAX_TEXT_BYTES, Outcome, Request, Say, Stream, channel, pack, unpack,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::family::{self, Children, Ended};
use crate::{Arguments, Begun, SEND_PATIENCE, fail, folder, half, home, program};

/// Everything the agent holds.
pub(crate) struct Keeper {
    channel: OwnedFd,
    signals: SignalFd,
    arguments: Arguments,
    half_restored: Option<String>,
    environment: BTreeMap<OsString, OsString>,
    programs: BTreeMap<u64, Program>,
    connecting: Vec<Connecting>,
    /// The request that asked for the end, and when patience is over.
    ending: Option<(u64, Instant)>,
}

/// A program that runs; its process is the leader of its group.
struct Program {
    pid: Pid,
    stderr: Option<OwnedFd>,
    words: VecDeque<u8>,
}

/// A connection that nobody has accepted yet.
struct Connecting {
    number: u64,
    name: String,
    deadline: Instant,
}

/// Why the loop ends. A channel that failed has no more to tell than one that was closed.
struct Over;

impl Keeper {
    pub(crate) fn new(channel: OwnedFd, begun: Begun, arguments: Arguments) -> Self {
        let Begun { signals, half_restored } = begun;
        let environment = program::base_environment(&arguments.runtime_dir, &arguments.home);
        Self {
            channel,
            signals,
            arguments,
            half_restored,
            environment,
            programs: BTreeMap::new(),
            connecting: vec![],
            ending: None,
        }
    }

    /// Greets the host and serves it until it hangs up, asks for the end, or somebody asks the agent itself to end.
    pub(crate) fn run(mut self) -> ExitCode {
        let text = |path: &std::path::Path| path.to_string_lossy().into_owned();
        let hello = Say::Hello {
            version: punktfunk_agent::VERSION,
            runtime_dir: text(&self.arguments.runtime_dir),
            home: text(&self.arguments.home),
            half_restored: self.half_restored.take(),
        };
        let mut buffer = vec![0; MAX_REQUEST_BYTES];
        let mut served = self.say(&hello, &[], None);
        while served.is_ok() && !self.is_time_to_end() {
            served = self.turn(&mut buffer);
        }
        let all_ended = family::kill_all(self.arguments.owns_user);
        folder::remove(&self.arguments.runtime_dir);
        if let Some((number, _)) = self.ending {
            // A host that has gone meanwhile needs no answer.
            let _ = self.answer(number, Outcome::Done, None);
        }
        if all_ended {
            return ExitCode::SUCCESS;
        }
        fail("a program that was killed does not end")
    }

    fn is_time_to_end(&self) -> bool {
        self.ending
            .is_some_and(|(_, deadline)| Instant::now() >= deadline || !family::has_children())
    }

    /// Waits for something to happen and sees to it.
    fn turn(&mut self, buffer: &mut [u8]) -> Result<(), Over> {
        let (asked, signalled, speaking) = self.wait()?;
        for number in speaking {
            if let Some(program) = self.programs.get_mut(&number) {
                program.listen();
            }
        }
        if signalled {
            self.take_signals()?;
        }
        self.try_connecting()?;
        if asked { self.take_request(buffer) } else { Ok(()) }
    }

    /// Whether the host asked something, whether there was a signal, and which programs have said something.
    fn wait(&self) -> Result<(bool, bool, Vec<u64>), Over> {
        let pause = (!self.connecting.is_empty()).then_some(TRY_AGAIN);
        let end = self.ending.map(|(_, deadline)| {
            deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1)
        });
        let timeout = pause.into_iter().chain(end).min();
        let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
        let (numbers, pipes): (Vec<u64>, Vec<&OwnedFd>) = self
            .programs
            .iter()
            .filter_map(|(number, program)| Some((*number, program.stderr.as_ref()?)))
            .unzip();
        let mut watched = vec![
            PollFd::new(&self.channel, PollFlags::IN),
            PollFd::new(&self.signals, PollFlags::IN),
        ];
        watched.extend(pipes.into_iter().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Over),
        }
        let ready = |at: &PollFd<'_>| !at.revents().is_empty();
        let speaking = numbers.into_iter().zip(&watched[2..]).filter(|(_, at)| ready(at));
        Ok((ready(&watched[0]), ready(&watched[1]), speaking.map(|(number, _)| number).collect()))
    }

    /// A child has ended, or somebody wants the agent to end.
    fn take_signals(&mut self) -> Result<(), Over> {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            if signal.ssi_signo != nix::sys::signal::Signal::SIGCHLD as u32 {
                return Err(Over);
            }
        }
        while let Children::Ended(ended) = family::next_ended() {
            let found = self.programs.iter().find(|(_, program)| program.pid == ended.pid);
            match found.map(|(number, _)| *number) {
                Some(number) => self.bury(number, &ended)?,
                None => family::collect(&ended),
            }
        }
        Ok(())
    }

    /// Kills the rest of a program's group, collects the program and tells the host.
    fn bury(&mut self, number: u64, ended: &Ended) -> Result<(), Over> {
        let Some(mut program) = self.programs.remove(&number) else { return Ok(()) };
        // It is not collected yet, so the number of its group cannot be anybody else's.
        let _ = kill_process_group(ended.pid, Signal::KILL);
        family::collect(ended);
        // What it said last is in the pipe. Whoever left its group may hold the pipe longer: no end is waited for.
        for _ in 0..MAX_LAST_READS {
            if !program.listen() {
                break;
            }
        }
        let words: Vec<u8> = program.words.into_iter().collect();
        self.say(&Say::Ended { process: number, status: ended.status.clone() }, &words, None)
    }

    fn take_request(&mut self, buffer: &mut [u8]) -> Result<(), Over> {
        let got = channel::receive(&self.channel, buffer).map_err(|_| Over)?;
        if got.bytes == 0 {
            return Err(Over);
        }
        let (request, body) = unpack::<Request>(&buffer[..got.bytes]).map_err(|_| Over)?;
        let number = request.number;
        let stream = match &request.ask {
            Ask::Spawn { stream, .. } => *stream,
            _ => None,
        };
        let sent = match (stream, got.descriptor) {
            (Some(stream), Some(end)) => Some((stream, end)),
            (None, None) => None,
            _ => return Err(Over),
        };
        let outcome = match self.serve(number, request.ask, body, sent) {
            Ok(Some(outcome)) => outcome,
            // It is answered later.
            Ok(None) => return Ok(()),
            Err(mut reason) => {
                reason.truncate(reason.floor_char_boundary(MAX_TEXT_BYTES));
                Outcome::Refused(reason)
            }
        };
        self.answer(number, outcome, None)
    }

    fn serve(
        &mut self,
        number: u64,
        ask: Ask,
        body: &[u8],
        sent: Option<(Stream, OwnedFd)>,
    ) -> Result<Option<Outcome>, String> {
        let in_words = |error: io::Error| error.to_string();
        let folder = &self.arguments.runtime_dir;
        match ask {
            Ask::WriteFile { .. } if body.len() > MAX_FILE_BYTES => {
                return Err("the file is too large".to_owned());
            }
            Ask::WriteFile { name } => folder::write(folder, &name, body).map_err(in_words)?,
            Ask::Spawn { program, arguments, environment, keeps_last_words, stream: _ } => {
                let spec = program::Spec {
                    program: &program,
                    arguments: &arguments,
                    environment: &environment,
                    keeps_last_words,
                };
                self.spawn(number, &spec, sent)?;
            }
            Ask::Signal { process, force } => {
                if let Some(program) = self.programs.get(&process) {
                    let signal = if force { Signal::KILL } else { Signal::TERM };
                    let _ = kill_process_group(program.pid, signal);
                }
            }
            Ask::PutInPlace { folder } => {
                let home = &self.arguments.home;
                home::put_in_place(home, &folder).map_err(|error| {
                    if home::is_half(home) { half(&error) } else { error.to_string() }
                })?;
            }
            Ask::Sockets => {
                let names = folder::sockets(folder).map_err(in_words)?;
                return Ok(Some(Outcome::Sockets(names)));
            }
            Ask::Connect { name } => {
                let deadline = Instant::now() + CONNECT_PATIENCE;
                self.connecting.push(Connecting { number, name, deadline });
                return Ok(None);
            }
            Ask::End { grace_ms } => {
                self.begin_end(number, Duration::from_millis(grace_ms));
                return Ok(None);
            }
        }
        Ok(Some(Outcome::Done))
    }

    fn spawn(
        &mut self,
        number: u64,
        spec: &program::Spec<'_>,
        sent: Option<(Stream, OwnedFd)>,
    ) -> Result<(), String> {
        if self.ending.is_some() || self.programs.contains_key(&number) {
            return Err("the session is ending".to_owned());
        }
        if self.programs.len() >= MAX_PROCESSES {
            return Err(format!("{MAX_PROCESSES} programs run already, which is the limit"));
        }
        let (pid, stderr) = program::start(spec, sent, &self.environment, &self.arguments.home)?;
        self.programs.insert(number, Program { pid, stderr, words: VecDeque::new() });
        Ok(())
    }

    fn begin_end(&mut self, number: u64, grace: Duration) {
        for program in self.programs.values() {
            let _ = kill_process_group(program.pid, Signal::TERM);
        }
        self.ending = Some((number, Instant::now() + grace.min(MAX_GRACE)));
    }

    /// Tries the connections that wait, which have their first try here too.
    fn try_connecting(&mut self) -> Result<(), Over> {
        for waiting in std::mem::take(&mut self.connecting) {
            let number = waiting.number;
            match folder::try_connect(&self.arguments.runtime_dir, &waiting.name) {
                Ok(Some(socket)) => self.answer(number, Outcome::Done, Some(&socket))?,
                Ok(None) if Instant::now() < waiting.deadline => self.connecting.push(waiting),
                Ok(None) => {
                    let reason = "it accepts nobody".to_owned();
                    self.answer(number, Outcome::Refused(reason), None)?;
                }
                Err(error) => self.answer(number, Outcome::Refused(error.to_string()), None)?,
            }
        }
        Ok(())
    }

    fn answer(
        &self,
        number: u64,
        outcome: Outcome,
        descriptor: Option<&OwnedFd>,
    ) -> Result<(), Over> {
        self.say(&Say::Answer { number, outcome }, &[], descriptor)
    }

    fn say(&self, say: &Say, body: &[u8], descriptor: Option<&OwnedFd>) -> Result<(), Over> {
        let packet = pack(say, body, MAX_SAY_BYTES).map_err(|_| Over)?;
        let descriptor = descriptor.map(AsFd::as_fd);
        channel::send(&self.channel, &packet, descriptor, SEND_PATIENCE).map_err(|_| Over)
    }
}

impl Program {
    /// Takes what it has said; whether there may be more.
    fn listen(&mut self) -> bool {
        let Some(stderr) = &self.stderr else { return false };
        let mut chunk = [0; 16 * 1024];
        match rustix::io::read(stderr, &mut chunk) {
            Ok(count @ 1..) => {
                self.words.extend(&chunk[..count]);
                let excess = self.words.len().saturating_sub(MAX_LAST_WORDS_BYTES);
                self.words.drain(..excess);
                true
            }
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => false,
            Ok(_) | Err(_) => {
                self.stderr = None;
                false
            }
        }
    }
}

/// How long nobody may accept a connection.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
const TRY_AGAIN: Duration = Duration::from_millis(10);
/// The longest time that programs get to end by themselves.
const MAX_GRACE: Duration = Duration::from_secs(60);
/// How often a pipe is read for last words, 16 KiB each: one that somebody else keeps full has no end.
const MAX_LAST_READS: usize = 64;
