//! What somebody brings in a file, on its way through the daemon: it goes into a pipe, whose other end the backend reads.
//! Nothing of it is kept here.
//!
//! The end of the pipe says that all has come, so it has an end only then. Whoever stops in the middle has the backend asked
//! to stop; the pipe stays open until it has.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::sync::oneshot;

use super::{Cancel, OsError};

/// No file is longer, in bytes.
pub const MAX_ARCHIVE_BYTES: u64 = 16 << 30;

/// Keeps the pipe from having an end, until it is emptied.
type Hold = Arc<Mutex<Option<OwnedFd>>>;

/// A file that comes. Dropping it before its [`end`](Self::end) stops what is made of it.
#[derive(Debug)]
pub struct Upload {
    pipe: Option<OwnedFd>,
    hold: Hold,
    cancel: Cancel,
    is_whole: bool,
    /// Until it has come.
    answer: Option<oneshot::Receiver<Result<(), OsError>>>,
}

/// What the backend gets of it.
pub(super) struct Given {
    pub(super) pipe: OwnedFd,
    pub(super) cancel: Cancel,
    /// Whoever brings it is told what came of it.
    pub(super) told: oneshot::Sender<Result<(), OsError>>,
    _hold: Hold,
}

impl Upload {
    /// A pipe with both of its ends.
    pub(super) fn new() -> io::Result<(Self, Given)> {
        let (from, to) = pipe_with(PipeFlags::CLOEXEC)?;
        let hold = Arc::new(Mutex::new(Some(to.try_clone()?)));
        let cancel = Cancel::default();
        let (told, answer) = oneshot::channel();
        let given = Given { pipe: from, cancel: cancel.clone(), told, _hold: Arc::clone(&hold) };
        Ok((Self { pipe: Some(to), hold, cancel, is_whole: false, answer: Some(answer) }, given))
    }

    /// What is to be written to, once.
    pub fn pipe(&mut self) -> Option<OwnedFd> {
        self.pipe.take()
    }

    /// All has come, and what it was written to is closed.
    pub fn end(&mut self) {
        self.is_whole = true;
        self.pipe = None;
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// No more will come.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// Waits for what comes of it, which may be there before all has come. Said once.
    ///
    /// # Errors
    /// It is refused, or the host stops.
    pub async fn answer(&mut self) -> Result<(), OsError> {
        let ended = || OsError::Incomplete { detail: "the host ends".to_owned() };
        let Some(answer) = &mut self.answer else { return Err(ended()) };
        let said = answer.await.unwrap_or_else(|_| Err(ended()));
        self.answer = None;
        said
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if !self.is_whole {
            self.stop();
        }
    }
}
