//! Sound of a session's programs: a sound server of its own, with one sink that leads nowhere, and its capture.
//!
//! Everything that knows PipeWire runs in the session, under the session's user, and is started through its
//! [`Agent`](crate::agent::Agent): the server, the session manager, the process that speaks PulseAudio's protocol, and
//! `punktfunk-sound`, which captures the sink's monitor. The host reads bare samples from that program's socket. It is
//! no client of PipeWire, because a client maps the memory that the server sends: a game, which may take the server's
//! place at any time, could end the host or worse.
//!
//! No hardware, no D-Bus and no configuration of the machine's owner have a part in it, so the host's speakers stay
//! quiet and whatever sound server the machine has is left alone. While no program plays, nothing runs.

mod config;
mod cushion;
mod probe;
mod server;
mod source;

use std::fmt;
use std::path::PathBuf;

use crate::agent::AgentError;

pub use probe::probe;
pub use server::{SoundOptions, SoundServer};
pub use source::{Connector, PipewireSource};

/// The socket in a session's runtime folder where `punktfunk-sound` hands out samples.
const CAPTURE_SOCKET: &str = "pf-sound";

/// The channels in the order of the samples.
const CHANNEL_NAMES: [&str; 8] = ["FL", "FR", "FC", "LFE", "RL", "RR", "SL", "SR"];

/// What was found here for the sound of sessions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoundReport {
    /// The version of PipeWire.
    pub server: String,
    /// The version of WirePlumber.
    pub manager: String,
    /// How that is told what to do.
    pub kind: ManagerKind,
}

impl fmt::Display for SoundReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PipeWire {} with WirePlumber {}", self.server, self.manager)
    }
}

impl SoundReport {
    /// How to make the sound of sessions with it: in stereo, until a stream asks for more, and captured by the program
    /// `punktfunk-sound` that lies beside this one.
    ///
    /// # Errors
    /// [`SoundError::Incomplete`] if it does not lie there.
    pub fn options(&self) -> Result<SoundOptions, SoundError> {
        let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join(CAPTURE)));
        let program = beside.unwrap_or_else(|| CAPTURE.into());
        if !program.is_file() {
            return Err(SoundError::Incomplete { program });
        }
        let capture = vec![program.to_string_lossy().into_owned()];
        Ok(SoundOptions { channels: 2, capture, manager: self.kind })
    }
}

/// The program that captures.
const CAPTURE: &str = "punktfunk-sound";

/// How the session manager is told what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagerKind {
    /// By a configuration of ours: WirePlumber 0.4.
    Lua,
    /// By a profile of its own that finds no hardware: WirePlumber 0.5.
    Profiles,
}

/// What went wrong with the sound of a session.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SoundError {
    /// A program is not installed.
    #[error("sound of programs is silent: {program} is not there; install {package}")]
    Missing {
        /// Its name.
        program: &'static str,
        /// The package that has it.
        package: &'static str,
    },
    /// A program is of a version that is not known here.
    #[error("sound of programs is silent: {program} {got} is not known here, only {known}")]
    Unsupported {
        /// Its name.
        program: &'static str,
        /// Its version.
        got: String,
        /// The versions that are.
        known: &'static str,
    },
    /// A program did not do what it was asked for.
    #[error("sound of programs is silent: {program} failed: {reason}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// What was seen.
        reason: String,
    },
    /// A part of the host itself is not where it belongs.
    #[error(
        "sound of programs is silent: {} is missing; it is a part of the host and lies beside it",
        program.display()
    )]
    Incomplete {
        /// Where it was looked for.
        program: PathBuf,
    },
    /// The agent could not start it.
    #[error("sound of programs is silent: it could not {doing}")]
    Agent {
        /// What was being done.
        doing: &'static str,
        /// Why it was not done.
        #[source]
        source: AgentError,
    },
}
