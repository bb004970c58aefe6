//! Starts other programs with a time limit and a bound on what they may say.
//!
//! The limit holds whatever the program does: one that cannot be ended is left behind.

use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// Of each stream of a program so much is kept, in bytes; the rest is read and forgotten.
const MAX_SAID_BYTES: usize = 256 << 10;

/// How often it is looked whether a program has ended.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// So long it is waited for what was killed. A program that waits for a broken disk does not go even then, and nor does
/// one that this process may not kill.
const MAX_DYING: Duration = Duration::from_secs(5);

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
    let stdout = child.stdout.take().map(|pipe| thread::spawn(move || drain(pipe)));
    let stderr = child.stderr.take().map(|pipe| thread::spawn(move || drain(pipe)));
    let ended = wait(&mut child, limit);
    if !matches!(ended, Ok(Some(_))) {
        kill_group(&child);
        bury(&mut child, MAX_DYING);
    }
    let said = |reader: Option<thread::JoinHandle<String>>| {
        reader.and_then(|reader| reader.join().ok()).unwrap_or_default()
    };
    let (stdout, stderr) = (said(stdout), said(stderr));
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

fn drain(mut pipe: impl Read) -> String {
    let mut kept = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(count) = pipe.read(&mut piece) {
        if count == 0 {
            break;
        }
        let room = MAX_SAID_BYTES - kept.len();
        kept.extend_from_slice(&piece[..count.min(room)]);
    }
    String::from_utf8_lossy(&kept).into_owned()
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
