//! A release in one file, as it comes from a stick or a browser.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::UpdateError;
use crate::name::Channel;
use crate::transport::{Cancel, Source, Wanted};

/// What bounds an archive that somebody gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// No archive is longer, in bytes.
    pub max_bytes: u64,
    /// So much stays free on the disk, in bytes.
    pub keep_free_bytes: u64,
}

/// An archive that lies in a folder of root's.
#[derive(Debug)]
pub struct Archive {}

impl Archive {
    /// Copies what somebody gives to `path`, and finds out what is in it. Nothing of it is believed; nobody else can change
    /// it from then on. What was at `path` before is replaced, and stays when this fails.
    ///
    /// # Errors
    /// [`UpdateError::Content`] when it is no archive of ours, [`UpdateError::NoSpace`], [`UpdateError::Stopped`],
    /// [`UpdateError::Unreachable`] when nothing comes for long, or [`UpdateError::Failed`].
    pub fn take_in(
        from: OwnedFd,
        path: &Path,
        limits: Limits,
        cancel: &Cancel,
    ) -> Result<Self, UpdateError> {
        let _ = (from, path, limits, cancel);
        Err(UpdateError::failed("take in an archive", "absent"))
    }

    /// The archive that was copied to `path` before.
    ///
    /// # Errors
    /// As [`Archive::take_in`]; [`UpdateError::NothingDownloaded`] when there is none.
    pub fn open(path: &Path) -> Result<Self, UpdateError> {
        let _ = path;
        Err(UpdateError::NothingDownloaded)
    }
}

impl Source for Archive {
    fn envelope(&self, _: Channel, _: &str, _: &Cancel) -> Result<Vec<u8>, UpdateError> {
        Err(UpdateError::NothingDownloaded)
    }

    fn blob(
        &self,
        _: Wanted,
        _: u64,
        _: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
        _: &Cancel,
    ) -> Result<(), UpdateError> {
        Err(UpdateError::NothingDownloaded)
    }
}
