//! Which reset files were used, by their digests, in a file of root's own: a stick that is left in, or whose device goes
//! and comes by itself, shows nobody a second time.
//!
//! A file is used from when it is seen, whatever becomes of it: were it used only once the daemon says so, a daemon in
//! the wrong hands could keep it unused. That the daemon has not taken it yet is kept beside, so that a loss of power
//! does not use it up for nothing; this says it to the daemon again and counts for nothing else.
//!
//! Deliberately absent: what the files say.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The file in root's folder of state.
const NAME: &str = "reset-files.json";

/// So many digests are remembered; the oldest are forgotten first.
const MAX_DIGESTS: usize = 64;

/// It is never longer, in bytes.
const MAX_BYTES: u64 = 16 << 10;

/// The digests that were used.
#[derive(Debug, Default)]
pub struct Used {
    path: PathBuf,
    kept: Kept,
}

/// As it lies there.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    /// The newest last.
    digests: Vec<String>,
    /// The one of these that the daemon has not taken.
    #[serde(default)]
    untaken: Option<String>,
}

impl Used {
    /// Those that a folder remembers. A file that cannot be read is said, and remembers none.
    pub fn read(folder: &Path) -> Self {
        let path = folder.join(NAME);
        let read = files::read(&path, MAX_BYTES);
        let kept = match read.map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(kept)) => kept,
            Ok(Err(error)) => {
                complain!("{}: {error}", path.display());
                Kept::default()
            }
            Err(error) => {
                if !error.is_absent() {
                    complain!("{error}");
                }
                Kept::default()
            }
        };
        Self { path, kept }
    }

    /// Whether a digest is new, and from then on is not. One that the disk does not take is known until the program
    /// ends.
    pub fn take(&mut self, digest: &str) -> bool {
        let digests = &mut self.kept.digests;
        if digests.iter().any(|used| used == digest) {
            return false;
        }
        digests.push(digest.to_owned());
        digests.drain(..digests.len().saturating_sub(MAX_DIGESTS));
        self.kept.untaken = Some(digest.to_owned());
        self.save();
        true
    }

    /// The last digest, if the daemon has not taken it.
    pub fn untaken(&self) -> Option<&str> {
        self.kept.untaken.as_deref()
    }

    /// The daemon has taken the last one.
    pub fn taken(&mut self) {
        if self.kept.untaken.take().is_some() {
            self.save();
        }
    }

    fn save(&self) {
        if let Err(error) = self.write() {
            complain!("{error}");
        }
    }

    fn write(&self) -> Result<(), FileError> {
        let text = serde_json::to_vec(&self.kept).map_err(|source| {
            FileError::new("put into words", &self.path, std::io::Error::other(source))
        })?;
        files::replace(&self.path, &text, 0o600)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_digest_is_new_once_and_the_oldest_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut used = Used::read(folder.path());
        let digest = |n: usize| format!("{n:064x}");
        assert!(used.take(&digest(0)) && !used.take(&digest(0)));
        let mut used = Used::read(folder.path());
        assert!(!used.take(&digest(0)), "another start knows it, too");
        assert_eq!(used.untaken(), Some(&*digest(0)));
        used.taken();
        assert_eq!((used.untaken(), Used::read(folder.path()).untaken()), (None, None));
        for n in 1..=MAX_DIGESTS {
            assert!(used.take(&digest(n)));
        }
        let mut used = Used::read(folder.path());
        assert!(!used.take(&digest(1)) && used.take(&digest(0)));
        let about = std::fs::metadata(folder.path().join(NAME)).unwrap();
        assert_eq!(about.permissions().mode() & 0o777, 0o600);
        assert!(about.len() <= MAX_BYTES);
    }

    #[test]
    fn a_damaged_file_remembers_none() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), "[1").unwrap();
        assert!(Used::read(folder.path()).take("a"));
    }
}
