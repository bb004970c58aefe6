//! The hands of a session: its programs run under another user, and the daemon reaches them only through an agent.
//!
//! Compositor, sound server and apps are not the daemon's own processes. A small program, the agent, runs as the
//! session's user; it starts them, tells how they ended, connects to their sockets and hands the connected descriptors
//! over. What an agent says is as little trusted as what a game says: it is bounded and parsed, and its silence is
//! noticed. When the daemon goes, the agent's connection closes and it ends everything of its session; when the agent
//! goes, whoever started it does.
//!
//! Deliberately absent: what a compositor or a sound server is. Those rooms use these hands.

mod client;
mod launched;
mod local;
mod place;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use client::open;
pub use launched::Launched;
pub use local::Local;
pub use place::{Place, Places};
pub use punktfunk_agent::Stream;

/// Brings agents to life.
pub trait AgentStarter: Send + Sync {
    /// One line for people: under whom sessions run, and whether that keeps them from the host's keys.
    fn describe(&self) -> String;

    /// Whether programs of a session run under another user than the daemon.
    fn isolates(&self) -> bool;

    /// Takes a profile, so that nobody else's agent is started in it meanwhile. `purpose` is what whoever comes in vain is
    /// told, see [`Places::take`].
    ///
    /// # Errors
    /// [`AgentError::Taken`].
    fn take(&self, profile: ProfileNumber, purpose: &'static str) -> Result<Place, AgentError>;

    /// Starts an agent in a profile that was taken and returns when it answers. Blocks for up to ten seconds. The place is
    /// kept for as long as the agent lives; where one has ended, another one may be started.
    ///
    /// # Errors
    /// Whatever kept it from starting; nothing is left running.
    fn start_in(&self, place: &Place) -> Result<Arc<dyn Agent>, AgentError>;

    /// Starts the agent of a session in the profile with this number, as [`AgentStarter::start_in`] does.
    ///
    /// # Errors
    /// The profile is taken, its home is half restored, or whatever kept it from starting; nothing is left running.
    fn start(&self, profile: ProfileNumber) -> Result<Arc<dyn Agent>, AgentError> {
        let agent = self.start_in(&self.take(profile, PLAYING)?)?;
        let Some(why) = agent.half_restored() else { return Ok(agent) };
        let reason = why.to_owned();
        agent.end(Duration::ZERO);
        Err(AgentError::Start { reason })
    }
}

/// What a session takes a profile for.
pub const PLAYING: &str = "its device plays";

/// The number of an owner's profile; each has a user and a home of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProfileNumber(pub u16);

/// One session's agent. Calls may come from any thread and block for at most a few seconds. Dropping the last handle
/// ends everything that runs in the session, at once.
pub trait Agent: Send + Sync {
    /// The folder of the session's sockets, of mode 0700 and the session's user, as its programs see it. It goes with
    /// the session; the daemon itself may not be able to enter it.
    fn runtime_dir(&self) -> &Path;

    /// The home of the profile; it stays.
    fn home_dir(&self) -> &Path;

    /// Why nobody may play in the home, in a sentence: a restore has replaced a part of it. Whoever mends it may work there.
    fn half_restored(&self) -> Option<&str>;

    /// Puts a folder of the home in the place of everything else there; its name begins with
    /// [`RESTORING`](punktfunk_agent::RESTORING). Nothing else may run in the profile. Blocks for up to a minute.
    ///
    /// # Errors
    /// It could not be done: the home is as it was before, unless the words say that it is half replaced. Or the agent is
    /// gone, and nobody knows.
    fn put_in_place(&self, folder: &str) -> Result<(), AgentError>;

    /// Writes a file of at most 64 KiB into the runtime folder, mode 0600. `name` has no slash.
    ///
    /// # Errors
    /// It could not be written, or the agent is gone.
    fn write_file(&self, name: &str, contents: &[u8]) -> Result<(), AgentError>;

    /// Starts a program in a process group of its own. It is looked up in `PATH` by the agent; its environment is what
    /// the agent gives every program (`PATH`, `HOME`, `USER`, `SHELL`, `LANG`, `XDG_RUNTIME_DIR`) and what `spec` adds.
    ///
    /// # Errors
    /// The program is not there or did not start, or the agent is gone.
    fn spawn(&self, spec: &ProcessSpec) -> Result<Box<dyn Process>, AgentError>;

    /// The same, with a pipe for one stream of the program; its other end is given back, and whoever holds it reads or
    /// writes what the program writes or reads.
    ///
    /// # Errors
    /// As [`Agent::spawn`], and there may be no pipe.
    fn spawn_piped(
        &self,
        spec: &ProcessSpec,
        stream: Stream,
    ) -> Result<(Box<dyn Process>, OwnedFd), AgentError>;

    /// The names of the sockets in the runtime folder, sorted.
    ///
    /// # Errors
    /// The agent is gone.
    fn sockets(&self) -> Result<Vec<String>, AgentError>;

    /// A connection to the stream socket `name` in the runtime folder, made by the agent. `name` has no slash.
    ///
    /// # Errors
    /// Nobody listens there or accepts within two seconds, or the agent is gone.
    fn connect(&self, name: &str) -> Result<OwnedFd, AgentError>;

    /// Whether the agent still lives. Cheap; called a few times a second.
    ///
    /// # Errors
    /// [`AgentError::Gone`], or [`AgentError::Malformed`] if that is why it was left.
    fn check(&self) -> Result<(), AgentError>;

    /// Ends everything that runs in the session within `grace`, by force after it, also what left its process group;
    /// then removes the runtime folder. Later calls do nothing.
    fn end(&self, grace: Duration);
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProcessSpec {
    /// The program, a name or a path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// What is added to its environment.
    pub environment: BTreeMap<String, String>,
    /// Keep the end of its standard error for [`Process::obituary`]; otherwise its output goes nowhere.
    pub keeps_last_words: bool,
}

/// A program in a session. Dropping it kills it and its process group.
pub trait Process: Send {
    /// Waits up to `timeout` for it to end; whether it has ended. An agent that is gone has taken it along.
    fn wait(&self, timeout: Duration) -> bool;

    /// Whether it has ended, and the words for it: exit status and the end of its standard error.
    fn obituary(&self) -> Option<String>;

    /// Asks its process group to end and does not wait for it.
    fn ask_to_end(&self);

    /// Asks its process group to end, and kills it if it has not ended within `grace`.
    fn terminate(&mut self, grace: Duration);
}

/// What went wrong with an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AgentError {
    /// It did not come to life.
    #[error("no session can be started: {reason}")]
    Start {
        /// What is missing or refused, and what to do.
        reason: String,
    },
    /// The launcher keeps fewer profiles than the host asks for.
    #[error("no session can be started: the launcher keeps no profile with the number {number}")]
    NoProfile {
        /// The profile's number.
        number: u16,
    },
    /// The profile is in use.
    #[error("no session can be started: the profile {number} is in use: {purpose}")]
    Taken {
        /// The profile's number.
        number: u16,
        /// For what.
        purpose: &'static str,
    },
    /// It is gone, and the session's programs with it.
    #[error("the session's agent is gone: {reason}")]
    Gone {
        /// What was seen of it last.
        reason: String,
    },
    /// It refused a request, or could not do it.
    #[error("{doing}: {reason}")]
    Refused {
        /// What was being done.
        doing: String,
        /// Why it was not done.
        reason: String,
    },
    /// It said something that an agent does not say.
    #[error("the session's agent is not to be understood: {reason}")]
    Malformed {
        /// What was wrong with it.
        reason: String,
    },
}

#[cfg(test)]
mod tests;
