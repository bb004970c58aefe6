//! Agents of the daemon's own user, for a machine without a launcher.
//!
//! The agent is a child of the daemon with one end of a socket pair as its standard input. It does everything that an
//! agent of another user does, but for keeping sessions from what the daemon may read: the user is the same.
//!
//! Deliberately absent: a home per profile. Whoever runs the host at a desk expects the own home in it.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, Signal, kill_process};

use super::{Agent, AgentError, AgentStarter, Place, Places, ProfileNumber};

/// Starts agents under the daemon's own user.
#[derive(Debug)]
pub struct Local {
    folder: PathBuf,
    program: Option<PathBuf>,
    started: AtomicU64,
    places: Places,
}

impl Local {
    /// Each session gets a runtime folder of its own below `folder`, whose parent must be there. `program` is the
    /// agent; `None`: the program `punktfunk-agent` beside the one that runs.
    pub fn new(folder: PathBuf, program: Option<PathBuf>) -> Self {
        Self { folder, program, started: AtomicU64::new(0), places: Places::default() }
    }

    fn program(&self) -> Result<PathBuf, AgentError> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join(PROGRAM));
        let program = self.program.clone().or_else(beside).unwrap_or_else(|| PROGRAM.into());
        if program.is_file() {
            return Ok(program);
        }
        let reason = format!(
            "the program {} is missing; it is a part of the host and lies beside it",
            program.display()
        );
        Err(AgentError::Start { reason })
    }

    fn launch(&self, run: &Path) -> Result<(std::os::fd::OwnedFd, Child), AgentError> {
        let refuse = |doing: &str, error: io::Error| AgentError::Start {
            reason: format!("{doing} failed: {error}"),
        };
        let program = self.program()?;
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(refuse(&format!("making {}", self.folder.display()), error));
            }
            _ => {}
        }
        let (ours, its) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|error| refuse("making a socket", error.into()))?;
        let home = std::env::var_os("HOME").filter(|home| Path::new(home).is_absolute());
        let child = Command::new(&program)
            .arg("--runtime-dir")
            .arg(run)
            .arg("--home")
            .arg(home.unwrap_or_else(|| "/".into()))
            .stdin(Stdio::from(its))
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| refuse(&format!("starting {}", program.display()), error))?;
        Ok((ours, child))
    }
}

impl AgentStarter for Local {
    fn describe(&self) -> String {
        "sessions run under the host's own user: what runs in them may read the host's keys"
            .to_owned()
    }

    fn isolates(&self) -> bool {
        false
    }

    fn take(&self, profile: ProfileNumber, purpose: &'static str) -> Result<Place, AgentError> {
        self.places.take(profile, purpose)
    }

    fn start_in(&self, place: &Place) -> Result<Arc<dyn Agent>, AgentError> {
        let place = place.clone();
        // Never the same name twice: the agent of a daemon that was killed may still be clearing up its own.
        let number = self.started.fetch_add(1, Ordering::Relaxed);
        let run = self.folder.join(format!("{}-{number}", std::process::id()));
        remove_left_over(&self.folder);
        let (channel, mut child) = self.launch(&run)?;
        let folder = self.folder.clone();
        super::open(
            channel,
            Some(Box::new(move || {
                if !wait_for_end(&mut child) {
                    // It ended without clearing up, or not at all.
                    kill_left_over(&run);
                    remove(&run);
                }
                // The last one finds it empty.
                let _ = fs::remove_dir(&folder);
                drop(place);
            })),
        )
    }
}

/// Waits for an agent that was hung up on; whether it ended in good order.
fn wait_for_end(child: &mut Child) -> bool {
    let deadline = Instant::now() + END_PATIENCE;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return status.success(),
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_AGAIN),
            Ok(None) => {
                tracing::warn!("a session's agent did not end and is killed");
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            Err(_) => return false,
        }
    }
}

/// Kills what an agent that was killed has left: its own programs died with it, but not what these had started. They
/// are told by the session's runtime folder in their environment.
fn kill_left_over(run: &Path) {
    let mark = [b"XDG_RUNTIME_DIR=", run.as_os_str().as_encoded_bytes()].concat();
    let deadline = Instant::now() + END_PATIENCE;
    loop {
        let left = marked_processes(&mark);
        for pid in &left {
            let _ = kill_process(*pid, Signal::KILL);
        }
        // One may have forked while it was looked for; what is killed has no environment left to be found by.
        if left.is_empty() || Instant::now() >= deadline {
            return;
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The living processes whose environment has the entry `mark`, as far as this user may look.
fn marked_processes(mark: &[u8]) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return vec![] };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read(format!("/proc/{pid}/environ"))
                .is_ok_and(|environ| environ.split(|byte| *byte == 0).any(|entry| entry == mark))
        })
        .filter_map(Pid::from_raw)
        .collect()
}

/// Removes the folders of sessions whose daemon is gone.
fn remove_left_over(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let daemon = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
        if daemon.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            remove(&entry.path());
        }
    }
}

fn remove(dir: &Path) {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(dir = %dir.display(), %error, "a session's folder could not be removed");
        }
        _ => {}
    }
}

const PROGRAM: &str = "punktfunk-agent";
/// How long an agent that was hung up on may take to kill what it started.
const END_PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
