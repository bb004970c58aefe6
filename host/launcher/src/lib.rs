//! Starts and ends sessions under users of their own: the only part of the host that runs as root, and so a small one.
//!
//! `start N` makes profile N's folders, starts an agent as user `first_uid + N`, waits until it connects, and hands that
//! connection to the daemon; from then on the two talk without the launcher. `stop N` ends everything of that user.
//! Nothing is remembered: killed and started anew, it ends sessions that it has never seen. Root opens no path that a
//! session can write: sessions' folders lie in folders that only root may change, and their contents are removed with
//! the rights of the session's user alone.
//!
//! Deliberately absent: configuration, signal handlers (`clear` tidies up, also after a kill), the daemon's side of the
//! socket, which root does not need, and `unsafe`.

mod fence;
mod options;
mod profile;
mod serve;
mod sweep;

pub use fence::rules;
pub use options::Options;
pub use profile::Profile;
pub use serve::{MAX_BYTES, clear, serve};
pub use sweep::sweep;

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not allowed, or somebody did not do their part.
    #[error("{0}")]
    Refused(String),
    /// What was being done, and what the system said to it.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

impl Error {
    fn io<S: Into<std::io::Error>>(doing: impl ToString) -> impl FnOnce(S) -> Self {
        move |source| Self::Io(doing.to_string(), source.into())
    }
}
