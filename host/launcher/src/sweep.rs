//! Ending everything of a session's user, with that user's rights.
//!
//! `kill(-1)` is one step for the kernel, so that no program can fork out of its way, and it reaches whoever has the
//! caller's real or effective user as its real or saved one. The sweeper's effective user is the session's, its real and
//! saved one nobody else's: it can end the session, and no program of the session can end, stop or trace it.

use std::fs;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, setgroups, setresgid, setresuid};

use crate::Error;

/// Only an uninterruptible sleep in the kernel takes longer than this to end.
const PATIENCE: Duration = Duration::from_secs(5);

/// `sweep UID BROOM FOLDER`: becomes UID, with BROOM behind it, ends all of UID's processes and empties FOLDER;
/// fails if it may not, or if somebody is left.
pub fn sweep(words: &[String]) -> Result<(), Error> {
    let number = |text: &String| text.parse().ok().filter(|uid: &u32| *uid >= 1000);
    let refused = |text: &str| Error::Refused(text.to_owned());
    let [uid, broom, folder] = words else { return Err(refused("three words are needed")) };
    let (uid, broom) = number(uid).zip(number(broom)).ok_or_else(|| refused("no such users"))?;
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    setgroups(&[])
        .and_then(|()| setresgid(group, group, group))
        .and_then(|()| setresuid(Uid::from_raw(broom), user, Uid::from_raw(broom)))
        .map_err(Error::io("becoming the session's user"))?;
    let left = rustix::thread::capabilities(None).map_err(Error::io("looking at capabilities"))?;
    if !left.effective.is_empty() || !left.permitted.is_empty() {
        return Err(refused("with root's rights this would end the whole machine"));
    }
    let deadline = Instant::now() + PATIENCE;
    // What it returns does not tell whether anybody was there.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    while anybody(uid) {
        if Instant::now() > deadline {
            return Err(refused("programs of the session do not end"));
        }
        sleep(Duration::from_millis(2));
        let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
    }
    // The folder itself is root's to remove, which tells what was left in it. These two go as deep as folders do.
    let _ = Command::new("/usr/bin/chmod").args(["-R", "u+rwx", folder]).status();
    let _ = Command::new("/usr/bin/rm").args(["-rf", folder]).stderr(Stdio::null()).status();
    Ok(())
}

/// Whether a process of the user lives, beside this one. What has ended and waits for its parent does not.
pub(crate) fn anybody(uid: u32) -> bool {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| *pid != std::process::id()).any(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let field = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap_or("");
        let mut users = field("Uid:").split_whitespace();
        users.any(|user| user.parse() == Ok(uid)) && !field("State:").contains(['Z', 'X'])
    })
}
