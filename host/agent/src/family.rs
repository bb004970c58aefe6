//! The agent's descendants: reaped when they end, found and killed when they shall.
//!
//! A process that loses its parent becomes the agent's child, for the agent is the reaper of its descendants. So whoever
//! was started in the session - also what left its process group and its terminal - is found by following parents to
//! children, until the agent has no child left.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nix::sys::signal::kill;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, waitpid};

/// A child that has ended and has not been collected: its number is still its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) pid: Pid,
    /// How it ended, in words.
    pub(crate) status: String,
}

/// What [`next_ended`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Children {
    /// This one has ended; to be given to [`collect`].
    Ended(Ended),
    /// All run.
    Running,
    /// There are none.
    None,
}

/// Looks for a child that has ended.
pub(crate) fn next_ended() -> Children {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let (pid, status) = match waitid(Id::All, flags) {
        Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit status: {code}")),
        Ok(WaitStatus::Signaled(pid, signal, _)) => {
            (pid, format!("signal: {} ({signal})", signal as i32))
        }
        Err(nix::errno::Errno::ECHILD) => return Children::None,
        // Interrupted, or nothing has ended; the next look will tell.
        Ok(_) | Err(_) => return Children::Running,
    };
    match Pid::from_raw(pid.as_raw()) {
        Some(pid) => Children::Ended(Ended { pid, status }),
        None => Children::Running,
    }
}

/// Collects a child that has ended; from here on its number may be somebody else's.
pub(crate) fn collect(ended: &Ended) {
    let _ = waitpid(Some(ended.pid), WaitOptions::NOHANG);
}

/// Whether there is any child, running or not collected.
pub(crate) fn has_children() -> bool {
    next_ended() != Children::None
}

/// Kills all descendants, and with `whole_user` every other process of this user, until none is left. Whether that
/// was achieved in time.
pub(crate) fn kill_all(whole_user: bool) -> bool {
    let deadline = Instant::now() + KILL_PATIENCE;
    loop {
        if whole_user {
            // -1 is every process that this user may signal but this one.
            let all = nix::unistd::Pid::from_raw(-1);
            let _ = kill(all, nix::sys::signal::Signal::SIGKILL);
        }
        for pid in descendants() {
            let _ = kill_process(pid, Signal::KILL);
        }
        loop {
            match next_ended() {
                Children::Ended(ended) => collect(&ended),
                Children::Running => break,
                Children::None => return true,
            }
        }
        if Instant::now() >= deadline {
            return false;
        }
        // Whoever forked while it was looked for is found in the next round.
        std::thread::sleep(PAUSE);
    }
}

/// Everybody below the agent. It collects its children itself, so their numbers are their own while this runs; a
/// number further down may have changed hands, then to another process of the same user.
fn descendants() -> Vec<Pid> {
    let parents = parents();
    let own = getpid().as_raw_nonzero().get();
    let mut family = BTreeSet::from([own]);
    loop {
        let before = family.len();
        for (pid, parent) in &parents {
            if family.contains(parent) {
                family.insert(*pid);
            }
        }
        if family.len() == before {
            break;
        }
    }
    family.remove(&own);
    family.into_iter().filter_map(Pid::from_raw).collect()
}

/// All living processes with their parents.
fn parents() -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return vec![] };
    let parent = |pid: i32| {
        let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
        parent_in(&String::from_utf8_lossy(&stat))
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, parent(pid)?)))
        .collect()
}

/// The parent in a line of `/proc/PID/stat`, unless the process is a zombie. The name in parentheses is the process's own
/// choice and may contain anything.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    (words.next()? != "Z").then_some(())?;
    words.next()?.parse().ok()
}

/// How long what was killed may take to end. Only an uninterruptible sleep in the kernel takes longer.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_read_whatever_its_child_calls_itself() {
        assert_eq!(parent_in("12 (sh) S 7 12 12 0"), Some(7));
        assert_eq!(parent_in("12 (a) Z 9) (b) S 7 12"), Some(7));
        assert_eq!(parent_in("12 (sh) Z 7 12 12 0"), None);
        assert_eq!(parent_in("12 sh"), None);
        assert_eq!(parent_in(""), None);
    }
}
