//! What is written down, so that the daemon may be killed at any moment: the newest state, and the history.
//!
//! Both go to the disk together, before what they announce is begun. The history is bounded; the oldest goes first.

use std::sync::{Arc, Mutex, PoisonError};

use super::state::{Entry, OsState};
use crate::store::{OsRow, Store};

/// As many lines of history are kept.
pub const MAX_HISTORY: u32 = 200;

/// It cannot be written down or read; a sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeepError(pub String);

/// A line of the history with its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Past {
    /// When, in seconds since 1970.
    pub at: u64,
    /// What.
    pub entry: Entry,
}

/// What was written down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    /// The newest state; the beginning, if there is none.
    pub state: OsState,
    /// The newest lines of the history, oldest first.
    pub history: Vec<Past>,
}

/// Where it is written down. What one backend wrote is not read by another: a simulation must not become history.
pub trait Keep: Send + Sync {
    /// What was written down last.
    ///
    /// # Errors
    /// It cannot be read.
    fn load(&self, backend: &str) -> Result<Kept, KeepError>;

    /// Writes the state and what is new in the history; when it returns, both survive a loss of power.
    ///
    /// # Errors
    /// It cannot be written; then neither is.
    fn save(&self, backend: &str, state: &OsState, news: &[Past]) -> Result<(), KeepError>;
}

impl Keep for Store {
    fn load(&self, backend: &str) -> Result<Kept, KeepError> {
        let (state, rows) = self.os_load(backend, MAX_HISTORY).map_err(keep_error)?;
        // An older daemon may find what a newer one wrote and it does not know: then the inventory is enough to go on.
        let state = match state.as_deref().map(serde_json::from_str) {
            Some(Ok(state)) => state,
            Some(Err(error)) => {
                tracing::warn!(%error, "what was written down about updates cannot be understood");
                OsState::default()
            }
            None => OsState::default(),
        };
        let past =
            |row: OsRow| Some(Past { at: row.at, entry: serde_json::from_str(&row.event).ok()? });
        Ok(Kept { state, history: rows.into_iter().filter_map(past).collect() })
    }

    fn save(&self, backend: &str, state: &OsState, news: &[Past]) -> Result<(), KeepError> {
        let state = serde_json::to_string(state).map_err(keep_error)?;
        let rows: Result<Vec<OsRow>, _> = news
            .iter()
            .map(|past| {
                serde_json::to_string(&past.entry).map(|event| OsRow { at: past.at, event })
            })
            .collect();
        let rows = rows.map_err(keep_error)?;
        self.os_save(backend, &state, &rows, MAX_HISTORY).map_err(keep_error)
    }
}

fn keep_error(error: impl ToString) -> KeepError {
    KeepError(error.to_string())
}

/// Keeps it in memory, for a host whose state is not to outlive it; clones share it.
#[derive(Debug, Clone, Default)]
pub struct MemoryKeep {
    kept: Arc<Mutex<Kept>>,
}

impl Keep for MemoryKeep {
    fn load(&self, _backend: &str) -> Result<Kept, KeepError> {
        let mut kept = self.lock().clone();
        // As it would come from a disk.
        let text = serde_json::to_string(&kept.state).map_err(keep_error)?;
        kept.state = serde_json::from_str(&text).map_err(keep_error)?;
        Ok(kept)
    }

    fn save(&self, _backend: &str, state: &OsState, news: &[Past]) -> Result<(), KeepError> {
        let mut kept = self.lock();
        kept.state = state.clone();
        kept.history.extend_from_slice(news);
        let over = kept.history.len().saturating_sub(MAX_HISTORY as usize);
        kept.history.drain(..over);
        Ok(())
    }
}

impl MemoryKeep {
    fn lock(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
