//! A child process that cannot outlive us: its own process group, reaped by a thread of its own.
//!
//! The keeper thread spawns the child, keeps the tail of its standard error as "last words", waits for its end, kills
//! whatever is left of its group and reaps it. The kernel is asked to kill the child when its *parent thread* ends
//! (`PR_SET_PDEATHSIG`, set by util-linux's `setpriv`, so no `unsafe` here); that thread is the keeper, which lives
//! exactly as long as the child. A daemon that is killed with SIGKILL therefore leaves no compositor behind.
//!
//! Signals go to the group only while its leader has not been reaped: until then the number cannot belong to anyone
//! else.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// A running child and the thread that keeps it.
#[derive(Debug)]
pub(super) struct KeptProcess {
    shared: Arc<Shared>,
    ended: Receiver<()>,
    keeper: Option<JoinHandle<()>>,
}

impl KeptProcess {
    /// Starts `command` in a process group of its own.
    ///
    /// # Errors
    /// The program could not be started.
    pub(super) fn spawn(mut command: Command) -> io::Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).process_group(0);
        let shared = Arc::new(Shared::default());
        let (started, has_started) = mpsc::sync_channel(1);
        let (end, ended) = mpsc::sync_channel(1);
        let kept = Arc::clone(&shared);
        let keeper =
            std::thread::Builder::new().name("pf-compositor".to_owned()).spawn(move || {
                match command.spawn() {
                    Ok(child) => {
                        let pid = Pid::from_child(&child);
                        kept.state().group = Some(pid);
                        // The other end waits for exactly one message; it cannot be gone.
                        let _ = started.send(Ok(()));
                        keep(child, pid, &kept);
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
                drop(end);
            })?;
        has_started.recv().unwrap_or_else(|_| Err(io::Error::other("the keeper thread ended")))?;
        Ok(Self { shared, ended, keeper: Some(keeper) })
    }

    /// Waits up to `timeout` for the process to end; whether it has ended.
    pub(super) fn wait(&self, timeout: Duration) -> bool {
        matches!(self.ended.recv_timeout(timeout), Err(RecvTimeoutError::Disconnected))
    }

    /// Whether it has ended, and the words for it: exit status and the end of its standard error.
    pub(super) fn obituary(&self) -> Option<String> {
        let state = self.shared.state();
        let status = state.status?;
        let words: Vec<u8> = state.words.iter().copied().collect();
        let words = String::from_utf8_lossy(&words);
        let tail: Vec<&str> = words.lines().rev().take(LAST_LINES).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        Some(if tail.is_empty() {
            status.to_string()
        } else {
            format!("{status}: {}", tail.join(" | "))
        })
    }

    /// Asks the whole group to end, and kills it if it has not ended within `grace`.
    pub(super) fn terminate(&mut self, grace: Duration) {
        let Some(keeper) = self.keeper.take() else { return };
        for (signal, patience) in [(Signal::TERM, grace), (Signal::KILL, KILL_PATIENCE)] {
            self.shared.signal(signal);
            if self.wait(patience) {
                if keeper.join().is_err() {
                    tracing::error!("the thread that keeps a compositor panicked");
                }
                return;
            }
        }
        // Only an uninterruptible sleep in the kernel survives SIGKILL; the keeper stays and reaps it one day.
        tracing::warn!("a compositor that was killed does not end");
    }
}

impl Drop for KeptProcess {
    fn drop(&mut self) {
        self.terminate(DROP_GRACE);
    }
}

/// What the keeper thread and the owner share.
#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The process group, as long as its leader is not reaped.
    group: Option<Pid>,
    status: Option<ExitStatus>,
    words: VecDeque<u8>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change below is one assignment; a panic of the other thread leaves nothing half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self, signal: Signal) {
        // The lock is held while signalling, so the keeper cannot reap in between.
        if let Some(group) = self.state().group {
            let _ = kill_process_group(group, signal);
        }
    }
}

/// The keeper's work: read the last words, wait, clear the group, reap.
fn keep(mut child: Child, pid: Pid, shared: &Arc<Shared>) {
    // A thread of its own reads, because programs inside the compositor may hold the pipe longer than it lives.
    let reader = child.stderr.take().map(|mut stderr| {
        let shared = Arc::clone(shared);
        std::thread::Builder::new()
            .name("pf-lastwords".to_owned())
            .spawn(move || {
                let mut chunk = [0_u8; 4096];
                while let Ok(count) = stderr.read(&mut chunk) {
                    if count == 0 {
                        break;
                    }
                    let mut state = shared.state();
                    state.words.extend(&chunk[..count]);
                    let excess = state.words.len().saturating_sub(LAST_WORDS_BYTES);
                    state.words.drain(..excess);
                }
            })
            .ok()
    });
    // NOWAIT leaves a zombie: its number stays ours while the rest of the group is killed.
    while let Err(error) = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT) {
        if error != rustix::io::Errno::INTR {
            break;
        }
    }
    let _ = kill_process_group(pid, Signal::KILL);
    if let Some(reader) = reader.flatten() {
        // The whole group is dead, so the pipe is at its end unless a program left the group; give it a moment.
        let patience = Instant::now() + READER_PATIENCE;
        while !reader.is_finished() && Instant::now() < patience {
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }
    let mut state = shared.state();
    state.group = None;
    state.status = child.wait().ok();
}

/// How much of standard error is kept, in bytes.
const LAST_WORDS_BYTES: usize = 8 * 1024;
/// How many of its last lines are told.
const LAST_LINES: usize = 4;
/// How long a process may take to end when its owner is dropped without having been ended.
const DROP_GRACE: Duration = Duration::from_millis(500);
/// How long to wait after SIGKILL.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the end of standard error once the process is gone.
const READER_PATIENCE: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn last_words_and_status_are_told() {
        let kept = KeptProcess::spawn(shell("echo one >&2; echo no display >&2; exit 3")).unwrap();
        assert!(kept.wait(Duration::from_secs(10)));
        let words = kept.obituary().unwrap();
        assert!(words.contains("3") && words.ends_with("one | no display"), "{words}");
    }

    #[test]
    fn last_words_are_bounded() {
        let kept = KeptProcess::spawn(shell("yes 0123456789 | head -c 200000 >&2")).unwrap();
        assert!(kept.wait(Duration::from_secs(10)));
        assert!(kept.shared.state().words.len() <= LAST_WORDS_BYTES);
    }

    #[test]
    fn a_process_that_ignores_sigterm_and_its_child_are_killed() {
        let folder = tempfile::tempdir().unwrap();
        let note = folder.path().join("pid");
        let script = format!("trap '' TERM; sleep 1000 & echo $! > {}; wait; wait", note.display());
        let mut kept = KeptProcess::spawn(shell(&script)).unwrap();
        let grandchild = loop {
            let text = std::fs::read_to_string(&note).unwrap_or_default();
            if let Ok(pid) = text.trim().parse::<u32>() {
                break pid;
            }
            assert!(!kept.wait(Duration::from_millis(2)), "it ended by itself");
        };
        assert!(kept.obituary().is_none());
        kept.terminate(Duration::from_millis(50));
        assert!(kept.obituary().is_some());
        // Killed; whoever inherited the orphan may not have reaped it yet, so a zombie is fine too.
        let stat = std::fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z"), "{stat}");
    }

    #[test]
    fn a_missing_program_is_an_error() {
        assert!(KeptProcess::spawn(Command::new("/no/such/program")).is_err());
    }
}
