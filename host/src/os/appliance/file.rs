//! A file in which one of root's programs says something to everybody.
//!
//! It is replaced, never changed, so a reader sees the old or the new and nothing between. Whatever lies in its place is
//! read bounded and not waited for.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

/// No longer than this, in bytes.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// The file, and which one was read last.
#[derive(Debug)]
pub(super) struct SaidFile {
    path: PathBuf,
    read: Mutex<Option<Stamp>>,
}

/// Another file has another number or time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    seconds: i64,
    nanoseconds: i64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            seconds: metadata.mtime(),
            nanoseconds: metadata.mtime_nsec(),
        }
    }
}

impl SaidFile {
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path, read: Mutex::new(None) }
    }

    /// Its bytes; nothing if it is not there.
    ///
    /// # Errors
    /// Why it cannot be read, as a part of a sentence.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(std::io::Error::from(error).to_string()),
        };
        let told = |error: std::io::Error| error.to_string();
        let metadata = file.metadata().map_err(told)?;
        if !metadata.is_file() {
            return Err("there is no file".to_owned());
        }
        let mut bytes = Vec::new();
        (&file).take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(told)?;
        *self.read.lock().unwrap_or_else(PoisonError::into_inner) = Some(Stamp::of(&metadata));
        if bytes.len() as u64 > MAX_BYTES {
            return Err(format!("it says more than {MAX_BYTES} bytes"));
        }
        Ok(Some(bytes))
    }

    /// It was replaced since it was read. Gone is not replaced: what was read last holds.
    pub(super) fn is_stale(&self) -> bool {
        let now = std::fs::symlink_metadata(&self.path).ok().as_ref().map(Stamp::of);
        now.is_some() && now != *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
