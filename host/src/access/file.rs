//! The file `claim.json`: how whoever sets the machine up learns its claim.
//!
//! Mode 0600 in the state folder, for what shows the claim on a screen or puts it on a stick. It is replaced as a whole
//! and flushed, so that a reader finds the old claim or the new one. It only shows: the store decides, and a file that a
//! loss of power left behind goes at the next start.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::AccessError;
use super::secret::hex;
use crate::store::StoredClaim;

const NAME: &str = "claim.json";
const NEW_NAME: &str = "claim.json.new";

pub(super) struct ClaimFile {
    folder: PathBuf,
}

impl ClaimFile {
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    pub(super) fn write(&self, claim: &StoredClaim) -> Result<(), AccessError> {
        // Neither holds a character that JSON would escape: hex digits, and letters and digits of the code's alphabet.
        let token = Zeroizing::new(hex(&claim.token));
        let text =
            Zeroizing::new(format!("{{\"token\":\"{}\",\"code\":\"{}\"}}\n", *token, claim.code));
        self.replace(text.as_bytes())
            .map_err(|source| AccessError::File { path: self.folder.join(NAME), source })
    }

    /// Removes the file. A failure is told in the log: the claim in it is dead already.
    pub(super) fn remove(&self) {
        for name in [NEW_NAME, NAME] {
            let path = self.folder.join(name);
            match fs::remove_file(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "a used claim's file is left");
                }
            }
        }
    }

    fn replace(&self, text: &[u8]) -> io::Result<()> {
        let new = self.folder.join(NEW_NAME);
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(text)?;
        file.sync_all()?;
        fs::rename(&new, self.folder.join(NAME))?;
        File::open(&self.folder)?.sync_all()
    }
}
