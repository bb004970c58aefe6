//! Which reset files were used, by their digests, in a file of root's own: a stick that is left in, or whose device goes
//! and comes by itself, shows nobody a second time.
//!
//! Deliberately absent: what the files say.

use std::path::{Path, PathBuf};

use crate::files::{self, FileError};

/// The file in root's folder of state.
const NAME: &str = "reset-files.json";

/// So many digests are remembered; the oldest are forgotten first.
const MAX_DIGESTS: usize = 64;

/// It is never longer, in bytes.
const MAX_BYTES: u64 = 16 << 10;

/// The digests that were used, the newest last.
#[derive(Debug, Default)]
pub struct Used {
    path: PathBuf,
    digests: Vec<String>,
}

impl Used {
    /// Those that a folder remembers. A file that cannot be read is said, and remembers none.
    pub fn read(folder: &Path) -> Self {
        let path = folder.join(NAME);
        let read = files::read(&path, MAX_BYTES);
        let digests = match read.map(|text| serde_json::from_slice(&text)) {
            Ok(Ok(digests)) => digests,
            Ok(Err(error)) => {
                complain!("{}: {error}", path.display());
                Vec::new()
            }
            Err(error) => {
                if !error.is_absent() {
                    complain!("{error}");
                }
                Vec::new()
            }
        };
        Self { path, digests }
    }

    /// Whether a digest is new, and from then on is not. One that the disk does not take is known until the program
    /// ends.
    pub fn take(&mut self, digest: &str) -> bool {
        if self.digests.iter().any(|used| used == digest) {
            return false;
        }
        self.digests.push(digest.to_owned());
        self.digests.drain(..self.digests.len().saturating_sub(MAX_DIGESTS));
        if let Err(error) = self.write() {
            complain!("{error}");
        }
        true
    }

    fn write(&self) -> Result<(), FileError> {
        let text = serde_json::to_vec(&self.digests).map_err(|source| {
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
