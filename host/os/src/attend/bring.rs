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

/// A file that is being handed over. Dropping it ends that, and leaves whoever did it to the system.
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

    /// The number of the process that does it.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// When it is to have ended.
    pub fn deadline(&self) -> Duration {
        self.until
    }

    /// Whether it has taken too long. Then it is asked to end, which whoever waits for a broken stick does not at once:
    /// it is kept until it [has ended](Self::has_ended), which wakes, and nobody waits for it.
    pub fn is_late(&self, now: Duration) -> bool {
        let is_late = now >= self.until;
        if is_late {
            complain!("an update on a stick took too long and is left");
            end(self.group);
        }
        is_late
    }

    /// Whether it has ended; then nothing is left of it.
    pub fn has_ended(&mut self) -> bool {
        match self.child.try_wait() {
            Ok(None) => false,
            Ok(Some(status)) => {
                tell!("an update on a stick is not handed over any more: {status}");
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
    }
}

fn end(group: Option<Pid>) {
    if let Some(Err(error)) = group.map(|group| kill_process_group(group, Signal::KILL)) {
        complain!("who hands over an update on a stick could not be ended: {error}");
    }
}
