//! The owner's key on the disk, in a file of root's own.

use std::path::{Path, PathBuf};

use super::vouch::Kept;
use crate::files::{self, FileError};

/// The file in root's folder of state.
pub const NAME: &str = "owner.json";

/// It is never longer, in bytes.
const MAX_BYTES: u64 = 4096;

/// Why a key is not there.
#[derive(Debug, thiserror::Error)]
pub enum OwnerError {
    /// The file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is damaged. A damaged one is not no key: anybody could then bring the first.
    #[error("{path} is damaged: {source}")]
    Malformed {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// The key that is kept in a folder, if one is.
pub fn read(folder: &Path) -> Result<Option<Kept>, OwnerError> {
    let path = folder.join(NAME);
    match files::read(&path, MAX_BYTES) {
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|source| OwnerError::Malformed { path, source }),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Keeps a key.
pub fn write(folder: &Path, kept: &Kept) -> Result<(), OwnerError> {
    let path = folder.join(NAME);
    let text = serde_json::to_vec(kept)
        .map_err(|source| OwnerError::Malformed { path: path.clone(), source })?;
    Ok(files::replace(&path, &text, 0o600)?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::super::OwnerKey;
    use super::super::vouch::Nonce;
    use super::*;

    #[test]
    fn a_key_is_kept_and_a_damaged_one_is_not_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(read(folder.path()).unwrap(), None);
        let owner = OwnerKey { salt: "a".repeat(32), key: "b".repeat(64) };
        let kept = Kept { owner: owner.clone(), nonce: Some(Nonce::new([7; 32])) };
        write(folder.path(), &kept).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(kept));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let damaged = fs::read_to_string(&path).unwrap().replace("07", "0x");
        for damaged in ["{", &damaged] {
            fs::write(&path, damaged).unwrap();
            assert!(matches!(read(folder.path()), Err(OwnerError::Malformed { .. })));
        }
        // As older programs wrote it.
        fs::write(&path, serde_json::to_vec(&owner).unwrap()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(Kept { owner, nonce: None }));
    }
}
