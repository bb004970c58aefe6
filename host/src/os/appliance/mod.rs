//! A box: what root's program says of its system is told, and nothing of it can be changed from here yet.
//!
//! Root's program looks after deployments, trials and verdicts, and says in one file what there is. This backend reads
//! the file, bounded, and never writes; the state machine makes history and news of it, as of every backend's word. So
//! a version that did not pass and was left by root's program is told to the owner like one that the owner asked for.
//!
//! Deliberately absent: fetching, staging and going elsewhere. They need root, and come with signed updates; until then
//! whoever asks is refused at once, with that reason.

#[cfg(test)]
mod agreed;
#[cfg(test)]
pub(super) mod tests;
mod word;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};

use super::release::{Digest, Inventory, Release};
use super::state::Verb;
use super::{Cancel, OsBackend, OsError, Presence};

/// The folder in which root's program says what there is.
pub const FOLDER: &str = "/run/punktfunk-os";
/// Where in it.
const FILE: &str = "status.json";
/// No longer than this, in bytes.
const MAX_BYTES: u64 = 1 << 20;

const NOT_YET: OsError = OsError::NotYet {
    reason: "this version of punktfunk cannot fetch updates or change between versions: that comes with signed \
             updates. Nothing was changed and streaming goes on; a version that does not pass its checks is left by \
             itself all the same",
};

/// The system of a box.
#[derive(Debug)]
pub struct Appliance {
    file: PathBuf,
    /// Which file was read last.
    read: Mutex<Option<Stamp>>,
}

/// A file is replaced, never changed: another one has another number or time.
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

impl Appliance {
    /// The box whose root's program says in `folder` what there is, usually [`FOLDER`].
    pub fn at(folder: &Path) -> Self {
        Self { file: folder.join(FILE), read: Mutex::new(None) }
    }

    fn read(&self) -> Result<Inventory, String> {
        let told = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::NotFound => "it has not said so yet".to_owned(),
            _ => error.to_string(),
        };
        // Whatever lies there, it is not waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&self.file, flags, Mode::empty());
        let file = File::from(file.map_err(|error| told(error.into()))?);
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
        let inventory = word::parse(&bytes)?;
        inventory.fault().map_or(Ok(inventory), |fault| Err(fault.to_owned()))
    }
}

impl OsBackend for Appliance {
    fn name(&self) -> &'static str {
        "appliance"
    }

    fn presence(&self) -> Presence {
        Presence::Appliance { simulated: false }
    }

    fn refusal(&self, verb: &Verb) -> Option<OsError> {
        match verb {
            Verb::Dismiss | Verb::Cancel | Verb::StopDownload => None,
            Verb::Check
            | Verb::Download { .. }
            | Verb::Stage { .. }
            | Verb::Apply { .. }
            | Verb::Rollback { .. }
            | Verb::Pin(_)
            | Verb::Unpin(_) => Some(NOT_YET),
        }
    }

    fn inventory(&self) -> Result<Inventory, OsError> {
        self.read().map_err(|why| OsError::Failed {
            doing: "learn from the box's own program what runs and what is on the disk",
            detail: why,
        })
    }

    fn is_stale(&self) -> bool {
        let now = std::fs::symlink_metadata(&self.file).ok().as_ref().map(Stamp::of);
        now.is_some() && now != *self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, _cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        Err(NOT_YET)
    }

    fn download(
        &self,
        _release: &Release,
        _progress: &mut dyn FnMut(u64),
        _cancel: &Cancel,
    ) -> Result<(), OsError> {
        Err(NOT_YET)
    }

    fn stage(&self, _release: &Release, _cancel: &Cancel) -> Result<(), OsError> {
        Err(NOT_YET)
    }

    fn arrange_boot(&self, _digest: Digest) -> Result<(), OsError> {
        Err(NOT_YET)
    }

    fn reboot(&self, _cancel: &Cancel) -> Result<(), OsError> {
        Err(NOT_YET)
    }

    fn pin(&self, _digest: Digest, _pinned: bool) -> Result<(), OsError> {
        Err(NOT_YET)
    }
}
