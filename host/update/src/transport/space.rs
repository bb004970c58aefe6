//! Room on the disk: how much there is, and how much a release needs before anything of it is written.

use std::io;
use std::path::Path;

use crate::error::UpdateError;

/// Ten parts of what is needed want as many of the disk: it is shared with who plays.
const NEEDED_TENTHS: u64 = 12;

/// How much root may write to the disk that a folder is on, in bytes. What the file system keeps for root counts: it is
/// kept for this.
///
/// # Errors
/// [`UpdateError::Failed`].
pub(super) fn free_bytes(folder: &Path) -> Result<u64, UpdateError> {
    let about = rustix::fs::statvfs(folder)
        .map_err(|error| UpdateError::failed("look for room on the disk", error))?;
    Ok(about.f_bfree.saturating_mul(about.f_frsize))
}

/// Whether what is needed fits with a margin, in bytes.
///
/// # Errors
/// [`UpdateError::NoSpace`].
pub(super) fn check(needed: u64, free_bytes: u64) -> Result<(), UpdateError> {
    let needed_bytes = (needed / 10).saturating_add(1).saturating_mul(NEEDED_TENTHS);
    if needed == 0 || free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(UpdateError::NoSpace { needed_bytes, free_bytes })
}

/// What a file that could not be written says: mostly that the disk is full after all.
pub(super) fn write_failed(path: &Path, needed_bytes: u64, error: &io::Error) -> UpdateError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            UpdateError::NoSpace { needed_bytes, free_bytes: free_bytes(folder).unwrap_or(0) }
        }
        _ => UpdateError::failed("write to the disk", error),
    }
}
