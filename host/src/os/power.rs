//! Restarting the machine, switching it off, sending it to sleep: only where the machine is the host's to switch.

use std::fmt;

/// What can be asked of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerVerb {
    /// Start again.
    Restart,
    /// Switch off.
    Shutdown,
    /// Sleep until it is woken.
    Sleep,
}

impl PowerVerb {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Restart, Self::Shutdown, Self::Sleep];
}

impl fmt::Display for PowerVerb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restart => "restart",
            Self::Shutdown => "shut down",
            Self::Sleep => "sleep",
        })
    }
}

/// Why it is not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PowerError {
    /// Not on this machine.
    #[error("{reason}")]
    Unavailable {
        /// Why, and what to do, in sentences.
        reason: String,
    },
    /// The system refused.
    #[error("the machine did not {verb}: {detail}. Streaming goes on; try again")]
    Failed {
        /// What was asked.
        verb: PowerVerb,
        /// What the system said.
        detail: String,
    },
}

/// The machine's switch. Calls may block.
pub trait Power: Send + Sync {
    /// It only looks like a machine's; whoever asks is told so.
    fn is_simulated(&self) -> bool {
        false
    }

    /// Why this cannot be done here; `None` if it can.
    fn unable(&self, verb: PowerVerb) -> Option<String>;

    /// Does it.
    ///
    /// # Errors
    /// See [`PowerError`].
    fn switch(&self, verb: PowerVerb) -> Result<(), PowerError>;
}

/// A machine that is not the host's to switch.
#[derive(Debug, Clone)]
pub struct NoPower {
    reason: String,
}

impl NoPower {
    /// For this reason, which says what to do instead.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// A machine that is no appliance.
impl Default for NoPower {
    fn default() -> Self {
        Self::new(
            "this machine is not an appliance, so the host does not switch it; use the machine's own means",
        )
    }
}

impl Power for NoPower {
    fn unable(&self, _verb: PowerVerb) -> Option<String> {
        Some(self.reason.clone())
    }

    fn switch(&self, _verb: PowerVerb) -> Result<(), PowerError> {
        Err(PowerError::Unavailable { reason: self.reason.clone() })
    }
}
