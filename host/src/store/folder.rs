//! The state folder: ours alone, and used by one daemon at a time.
//!
//! The folder holds a private key and decides who is trusted, so that its owner and mode are checked at each start and
//! never silently mended: whoever opened it to others should hear of it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use super::StoreError;

/// The name of the file that is locked while a daemon uses the folder. It stays: removing it would let two daemons
/// lock two files of one name.
const LOCK_NAME: &str = "lock";

/// So long a lock is waited for, and so long between two looks at it.
const LOCK_WAIT: Duration = Duration::from_millis(1000);
const LOCK_PAUSE: Duration = Duration::from_millis(10);

pub(super) fn ensure_private(folder: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::Folder { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
    let metadata = fs::metadata(folder).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let want = rustix::process::geteuid().as_raw();
    if metadata.uid() != want {
        return Err(StoreError::FolderOwner { path: folder.to_owned(), got: metadata.uid(), want });
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(StoreError::FolderMode {
            path: folder.to_owned(),
            got: metadata.mode() & 0o7777,
        });
    }
    Ok(())
}

/// A lock that somebody else holds is waited for a moment: a program that a daemon was just starting when it was killed has
/// the daemon's files until it runs.
pub(super) fn lock(folder: &Path) -> Result<File, StoreError> {
    let failed = |source| StoreError::Folder { path: folder.to_owned(), source };
    let file = open_private(&folder.join(LOCK_NAME)).map_err(failed)?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < LOCK_WAIT => {
                thread::sleep(LOCK_PAUSE)
            }
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: folder.to_owned() });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
}

/// Makes the file with mode 0600 if it is not there. SQLite would make it by the umask, and gives its journal files
/// the mode of the database.
pub(super) fn create_private_file(path: &Path) -> Result<(), StoreError> {
    open_private(path)
        .map(drop)
        .map_err(|source| StoreError::Folder { path: path.to_owned(), source })
}

fn open_private(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_is_just_given_back_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let held = lock(folder.path()).unwrap();
        assert!(matches!(lock(folder.path()), Err(StoreError::InUse { .. })));
        let path = folder.path().to_path_buf();
        let (begins, begun) = std::sync::mpsc::channel();
        let other = thread::spawn(move || {
            begins.send(()).unwrap();
            lock(&path)
        });
        begun.recv().unwrap();
        drop(held);
        assert!(other.join().unwrap().is_ok());
    }
}
