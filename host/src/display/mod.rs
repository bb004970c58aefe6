//! Virtual outputs: every session gets a display of its own, at its client's size and refresh.
//!
//! A [`DisplayBackend`] opens a [`VirtualOutput`]; the output hands out the two ends that other threads own: a
//! [`FrameSource`] for `pf-capture` and an [`InputSink`] for the receiving thread. Everything here blocks and runs on
//! native threads. A backend that never delivered a frame on this machine says so in its probe and is never chosen
//! by itself.
//!
//! Deliberately absent: knowledge of sessions, protocols and configuration files; options come as plain structs.

pub mod pattern;
pub mod sway;
pub(crate) mod wayland;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use punktfunk_core::media::Mode;

use crate::agent::Agent;
use crate::capture::FrameSource;
use crate::input::InputSink;

/// A way to make virtual outputs.
pub trait DisplayBackend: Send + Sync {
    /// The name used in configuration and reports: `sway`, `pattern`, ...
    fn name(&self) -> &'static str;

    /// Whether this backend can open an output here, found out by looking (binary, version, user), in under a second.
    ///
    /// # Errors
    /// [`DisplayError::Unavailable`] names the missing thing and what to do about it.
    fn probe(&self) -> Result<ProbeReport, DisplayError>;

    /// Whether an output needs programs, and so an agent to start them.
    fn needs_agent(&self) -> bool;

    /// Opens one output and returns when it can be captured. Blocks for up to ten seconds.
    ///
    /// # Errors
    /// Whatever kept the output from coming up; nothing is left behind.
    fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError>;
}

/// What a probe found.
#[derive(Debug, Clone)]
pub struct ProbeReport {
    /// One line for people: what was found, with versions.
    pub detail: String,
    /// Frames have been delivered by this backend in the product's own tests without special hardware.
    pub proven: bool,
}

/// What a virtual output shall be.
#[derive(Clone)]
pub struct OutputSpec {
    /// Size and refresh.
    pub mode: Mode,
    /// The hands of the session, for a backend that [needs them](DisplayBackend::needs_agent).
    pub agent: Option<Arc<dyn Agent>>,
}

/// One virtual output and whatever runs it. Dropping it ends what it started; its sockets go with the session's folder.
pub trait VirtualOutput: Send {
    /// The mode in force.
    fn mode(&self) -> Mode;

    /// Changes size and refresh without restarting anything; the frame source then delivers frames of the new size.
    ///
    /// # Errors
    /// The output keeps its old mode.
    fn set_mode(&mut self, mode: Mode) -> Result<(), DisplayError>;

    /// What a program must have in its environment to appear on this output (`WAYLAND_DISPLAY`, ...).
    fn child_env(&self) -> BTreeMap<String, String>;

    /// A new source of this output's pictures.
    ///
    /// # Errors
    /// The compositor refused or is gone.
    fn open_capture(&mut self) -> Result<Box<dyn FrameSource>, DisplayError>;

    /// New virtual input devices on this output's seat.
    ///
    /// # Errors
    /// The compositor refused or is gone.
    fn open_input(&mut self) -> Result<Box<dyn InputSink>, DisplayError>;

    /// Whether the compositor still runs. Cheap; called a few times a second.
    ///
    /// # Errors
    /// [`DisplayError::Died`] with its last words.
    fn check(&mut self) -> Result<(), DisplayError>;

    /// Ends the output within `grace`, by force after it.
    fn close(self: Box<Self>, grace: Duration);
}

/// What went wrong with a display.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// The backend cannot work on this machine as it is.
    #[error("{backend} cannot be used here: {reason}")]
    Unavailable {
        /// The backend.
        backend: &'static str,
        /// What is missing and what to do.
        reason: String,
    },
    /// It did not come up.
    #[error("{backend} did not start: {reason}")]
    Start {
        /// The backend.
        backend: &'static str,
        /// What it said.
        reason: String,
    },
    /// It ended by itself.
    #[error("{backend} ended: {reason}")]
    Died {
        /// The backend.
        backend: &'static str,
        /// What it said.
        reason: String,
    },
    /// It refused a mode.
    #[error("{backend} refused {mode}: {reason}")]
    Mode {
        /// The backend.
        backend: &'static str,
        /// What was asked for.
        mode: Mode,
        /// What it said.
        reason: String,
    },
    /// Talking to it failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
}
