//! Starts other programs with a time limit and a bound on what they may say.
//!
//! The limit holds whatever the program does: one that cannot be ended is left behind, and what it started and left
//! behind itself is no longer listened to, though it holds the other end of the pipes.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process_group};

/// Of each stream of a program so much is kept, in bytes; the rest is read and forgotten.
const MAX_SAID_BYTES: usize = 256 << 10;

/// How often it is looked whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// So long it is waited for what was killed. A program that waits for a broken disk does not go even then, and nor does
/// one that this process may not kill.
const MAX_DYING: Duration = Duration::from_secs(5);

/// So long what a program started is listened to when the program itself has ended.
const LINGER: Duration = Duration::from_millis(500);

/// Of a stream so many pieces are read before it is looked at the clock again.
const PIECES: usize = 64;

/// What came of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// Its exit status; nothing when a signal ended it.
    pub code: Option<i32>,
    /// What it said.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Ran {
    /// It said that all went well.
    pub fn is_good(&self) -> bool {
        self.code == Some(0)
    }

    /// The last line of what it complained of, or else of what it said.
    pub fn last_line(&self) -> &str {
        let mut lines = self.stdout.lines().chain(self.stderr.lines());
        lines.rfind(|line| !line.trim().is_empty()).unwrap_or_default()
    }
}

/// Why nothing came of a program.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// It could not be started or waited for.
    #[error("{program} could not be run: {source}")]
    Io {
        /// Which.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It took too long and was ended, with all that it had started.
    #[error("{program} did not end within {} s", limit.as_secs())]
    TooSlow {
        /// Which.
        program: String,
        /// The limit.
        limit: Duration,
    },
    /// It said that it failed.
    #[error("{program}: {said}")]
    Failed {
        /// Which.
        program: String,
        /// What it said.
        said: String,
    },
}

/// Runs a program to its end, in a group of its own and without input.
pub fn run(words: &[&str], limit: Duration) -> Result<Ran, ProgramError> {
    let (program, rest) = words.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
    let failed = |source| ProgramError::Io { program: program.to_owned(), source };
    let mut command = Command::new(program);
    command.args(rest).env("LC_ALL", "C").process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    let mut streams = [
        Stream::new(child.stdout.take().map(OwnedFd::from)),
        Stream::new(child.stderr.take().map(OwnedFd::from)),
    ];
    let ended = listen(&mut child, &mut streams, limit);
    if !matches!(ended, Ok(Some(_))) {
        kill_group(&child);
        bury(&mut child, MAX_DYING);
    }
    let [stdout, stderr] = streams.map(Stream::into_text);
    match ended.map_err(failed)? {
        Some(status) => Ok(Ran { code: status.code(), stdout, stderr }),
        None => Err(ProgramError::TooSlow { program: program.to_owned(), limit }),
    }
}

/// Runs a program that is to succeed, and gives what it said.
pub fn run_well(words: &[&str], limit: Duration) -> Result<String, ProgramError> {
    let ran = run(words, limit)?;
    if ran.is_good() {
        return Ok(ran.stdout);
    }
    let program = words.iter().take(3).copied().collect::<Vec<_>>().join(" ");
    Err(ProgramError::Failed { program, said: crate::status::bounded(ran.last_line()) })
}

/// Listens to a program until it has ended and said all; nothing when it took too long.
fn listen(
    child: &mut Child,
    streams: &mut [Stream; 2],
    limit: Duration,
) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    let mut ended = None;
    loop {
        if ended.is_none() {
            ended = child.try_wait()?.map(|status| (status, Instant::now()));
        }
        // Read after the look: what a program said before it ended is all there.
        streams.iter_mut().for_each(Stream::read);
        let is_open = streams.iter().any(|stream| stream.pipe.is_some());
        match ended {
            Some((status, at)) if !is_open || at.elapsed() >= LINGER => return Ok(Some(status)),
            None if began.elapsed() >= limit => return Ok(None),
            _ => pause(streams)?,
        }
    }
}

/// Sleeps until something is said, but not long.
fn pause(streams: &[Stream; 2]) -> io::Result<()> {
    let pipes = streams.iter().filter_map(|stream| stream.pipe.as_ref());
    let mut pipes: Vec<_> = pipes.map(|pipe| PollFd::new(pipe, PollFlags::IN)).collect();
    let limit = Timespec::try_from(LOOK_EVERY).map_err(io::Error::other)?;
    match poll(&mut pipes, Some(&limit)) {
        Err(rustix::io::Errno::INTR) => Ok(()),
        done => Ok(done.map(drop)?),
    }
}

fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if began.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn kill_group(child: &Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
        complain!("process {} could not be ended: {error}", child.id());
    }
}

/// Waits for what was killed, but not for ever. Says whether it is gone.
fn bury(child: &mut Child, limit: Duration) -> bool {
    let gone = matches!(wait(child, limit), Ok(Some(_)));
    if !gone {
        complain!("process {} does not end and is left behind", child.id());
    }
    gone
}

/// What a program says on one pipe; it is dropped at its end.
struct Stream {
    pipe: Option<File>,
    kept: Vec<u8>,
}

impl Stream {
    /// Our end alone does not block. A pipe that cannot be made so is not listened to.
    fn new(pipe: Option<OwnedFd>) -> Self {
        let ready = |pipe: &OwnedFd| {
            let flags = fcntl_getfl(pipe);
            flags.and_then(|flags| fcntl_setfl(pipe, flags | OFlags::NONBLOCK)).is_ok()
        };
        Self { pipe: pipe.filter(ready).map(File::from), kept: Vec::new() }
    }

    /// Takes what is there.
    fn read(&mut self) {
        let mut piece = [0; 4096];
        for _ in 0..PIECES {
            let Some(pipe) = &mut self.pipe else { return };
            match pipe.read(&mut piece) {
                Ok(0) => self.pipe = None,
                Ok(count) => {
                    let room = MAX_SAID_BYTES - self.kept.len();
                    self.kept.extend_from_slice(&piece[..count.min(room)]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.pipe = None,
            }
        }
    }

    fn into_text(self) -> String {
        String::from_utf8_lossy(&self.kept).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[test]
    fn what_a_program_says_comes_back() {
        let ran = run(&["sh", "-c", "echo one; echo two >&2; exit 3"], LIMIT).unwrap();
        assert_eq!((ran.code, ran.stdout.as_str(), ran.last_line()), (Some(3), "one\n", "two"));
        let error = run_well(&["sh", "-c", "echo no >&2; exit 1"], LIMIT).unwrap_err();
        assert!(error.to_string().ends_with(": no"), "{error}");
        assert!(matches!(run(&["/nowhere/x"], LIMIT), Err(ProgramError::Io { .. })));
    }

    #[test]
    fn what_says_too_much_is_cut_and_still_ends() {
        let ran = run(&["sh", "-c", "head -c 1000000 /dev/zero"], LIMIT).unwrap();
        assert_eq!((ran.code, ran.stdout.len()), (Some(0), MAX_SAID_BYTES));
    }

    #[test]
    fn what_is_left_behind_is_not_listened_to() {
        // It holds the pipe, and speaks long after the program has ended.
        let ran = run(&["sh", "-c", "setsid sh -c 'sleep 3; echo late' & echo one"], LIMIT);
        assert_eq!(ran.unwrap().stdout, "one\n");
    }

    #[test]
    fn what_does_not_die_is_left_behind() {
        let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        assert!(!bury(&mut child, Duration::ZERO));
        kill_group(&child);
        assert!(bury(&mut child, LIMIT));
    }

    #[test]
    fn what_does_not_end_is_ended_with_its_children() {
        // The child holds the pipe; were it not ended, too, this would not return.
        let error = run(&["sh", "-c", "sleep 600 & sleep 600"], Duration::ZERO).unwrap_err();
        assert!(matches!(error, ProgramError::TooSlow { .. }), "{error}");
    }
}
