//! What was fetched: root's folder of blobs, and the way from there into the system's repository.

use std::path::{Path, PathBuf};

use crate::error::UpdateError;
use crate::outlook::Fetched;
use crate::statement::Release;
use crate::transport::{Cancel, Source};

/// What is staged is called so in the system's repository.
pub const STAGED_REF: &str = "punktfunk/staged";

/// Root's folder of what was fetched. One release is in it at a time. One program works with it at a time.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// The folder; it is made for root alone when it is not there. What an interrupted [`Store::stage`] left is removed.
    ///
    /// # Errors
    /// [`UpdateError::Failed`].
    pub fn open(folder: &Path) -> Result<Self, UpdateError> {
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// What was fetched, from what lies on the disk. It is whole when `done_bytes` is `total_bytes`, which it is not before
    /// every blob was verified.
    pub fn fetched(&self) -> Option<Fetched> {
        let _ = &self.folder;
        None
    }

    /// Fetches what a release has and the repository (`objects` is in it) has not, and goes on where it was interrupted. What
    /// was fetched of another release is removed when there is room for this one.
    ///
    /// `progress` is told how much is done and how much it will be, in bytes: never less than before, and at the end
    /// [`Release::size_bytes`] twice. What need not be fetched counts as done. Called again for what is whole, it asks nobody.
    ///
    /// # Errors
    /// What the source says; [`UpdateError::NoSpace`] before anything is written; [`UpdateError::Content`] for bytes that are
    /// not those that were signed, which are removed; [`UpdateError::Stopped`]; [`UpdateError::Failed`]. What came stays.
    pub fn download(
        &self,
        source: &dyn Source,
        release: &Release,
        repository: &Path,
        progress: &mut dyn FnMut(u64, u64),
        cancel: &Cancel,
    ) -> Result<Fetched, UpdateError> {
        let _ = (source, release, repository, progress, cancel);
        Err(UpdateError::failed("download", "absent"))
    }

    /// Brings what was fetched into the repository, as [`STAGED_REF`], and removes it here. Nothing is deployed. A pull by
    /// OSTree that has begun is finished; before it, `cancel` is noticed.
    ///
    /// # Errors
    /// [`UpdateError::NothingDownloaded`] when it is not here or not whole; [`UpdateError::NoSpace`];
    /// [`UpdateError::Content`] when it is not what was signed, and then it is removed; [`UpdateError::Stopped`];
    /// [`UpdateError::Failed`].
    pub fn stage(
        &self,
        release: &Release,
        repository: &Path,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        let _ = (release, repository, cancel);
        Err(UpdateError::failed("stage", "absent"))
    }

    /// Removes all that was fetched.
    ///
    /// # Errors
    /// [`UpdateError::Failed`].
    pub fn forget(&self) -> Result<(), UpdateError> {
        Ok(())
    }
}
