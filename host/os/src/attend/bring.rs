//! An update that a stick brings, on its way to the service for updates: a process of its own reads it, because a stick may
//! be slow or not answer at all, and whoever attends must go on.
//!
//! Deliberately absent: what comes of it. The service tells everybody, and the process says it in the log.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

/// Who hands the file over that is its standard input.
pub const WORDS: [&str; 2] = ["/usr/libexec/punktfunk/punktfunk-update", "import"];

/// So long it may take.
const LIMIT: Duration = Duration::from_secs(1800);

/// A file that is being handed over. Dropping it ends that.
#[derive(Debug)]
pub struct Bringing {
    child: Child,
    group: Option<Pid>,
    /// Can be read when the process has ended.
    ended: OwnedFd,
    until: Duration,
}

impl Bringing {
    /// Begins, at this time of the machine.
    pub fn begin(words: &[String], file: File, now: Duration) -> io::Result<Self> {
        let (program, rest) = words.split_first().ok_or(io::ErrorKind::NotFound)?;
        let mut command = Command::new(program);
        let child = command.args(rest).stdin(Stdio::from(file)).process_group(0).spawn()?;
        let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let ended = group.ok_or(io::ErrorKind::Unsupported.into());
        let ended = ended.and_then(|pid| Ok(pidfd_open(pid, PidfdFlags::empty())?));
        match ended {
            Ok(ended) => Ok(Self { child, group, ended, until: now.saturating_add(LIMIT) }),
            Err(error) => {
                end(group);
                Err(error)
            }
        }
    }

    /// When it is to have ended.
    pub fn deadline(&self) -> Duration {
        self.until
    }

    /// Whether it is over, by itself or because its time is.
    pub fn is_over(&mut self, now: Duration) -> bool {
        if now >= self.until {
            complain!("an update on a stick took too long and is left");
            return true;
        }
        match self.child.try_wait() {
            Ok(None) => false,
            Ok(Some(status)) => {
                tell!("an update on a stick was handed over: {status}");
                self.group = None;
                true
            }
            Err(error) => {
                complain!("an update on a stick cannot be waited for: {error}");
                true
            }
        }
    }
}

impl AsFd for Bringing {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ended.as_fd()
    }
}

impl Drop for Bringing {
    fn drop(&mut self) {
        end(self.group);
        // One that waits for a broken stick does not go even then, and is not waited for.
        let _ = self.child.try_wait();
    }
}

fn end(group: Option<Pid>) {
    if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
        complain!("who hands over an update on a stick could not be ended: {error}");
    }
}
