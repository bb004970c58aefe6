//! The keys of those who make the box: made here, kept in two files, never on a box.
//!
//! A secret key is the seed of an Ed25519 key, in one line of 64 hexadecimal digits, as its public key is; lines that
//! begin with `#` are comments. The file of a secret is nobody's but its owner's.
//!
//! Deliberately absent: a passphrase. Who signs keeps the file where nobody else reads - on a medium that is put away,
//! in the secrets of a builder - and hands it over for the moment.

use std::fmt;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use punktfunk_os::files;
use punktfunk_update::statement::keys::{KeyId, PublicKey, TEST_MARK};
use punktfunk_update::statement::{Signature, hex, signed_text, unhex};
use zeroize::Zeroizing;

/// No file with a key is longer, in bytes.
const MAX_BYTES: u64 = 4096;

/// A key that signs. It is wiped when it is dropped.
pub struct SecretKey(Ed25519KeyPair);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey({})", self.id())
    }
}

impl SecretKey {
    /// The key of a seed.
    ///
    /// # Errors
    /// The cryptography refuses.
    pub fn from_seed(seed: &[u8; 32]) -> anyhow::Result<Self> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed);
        Ok(Self(pair.context("the seed makes no key")?))
    }

    /// Reads a file that [`keygen`] made.
    ///
    /// # Errors
    /// The file cannot be read, others may read it, or there is no key in it.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let file = path.display();
        let text = Zeroizing::new(files::read(path, MAX_BYTES)?);
        let text = std::str::from_utf8(&text).ok().with_context(|| format!("{file} is no text"))?;
        let mode =
            fs::metadata(path).with_context(|| format!("{file} cannot be looked at"))?.mode();
        let is_test = text.lines().any(|line| line.starts_with(TEST_MARK));
        if mode & 0o077 != 0 && !is_test {
            bail!("{file} may be read by others (mode {:o}); chmod 600 it", mode & 0o777);
        }
        let mut said = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        let mut said = said.by_ref().filter(|line| !line.is_empty());
        let seed = match (said.next(), said.next()) {
            (Some(line), None) => unhex(line).map(Zeroizing::new),
            _ => None,
        };
        let seed = seed.with_context(|| {
            format!("{file} is no secret key; one is a line of 64 hexadecimal digits")
        })?;
        Self::from_seed(&seed)
    }

    /// What the boxes get.
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey::new(bytes)
    }

    /// What it is called.
    pub fn id(&self) -> KeyId {
        self.public().id()
    }

    /// Signs the text of a statement, whatever it says.
    pub fn sign(&self, statement: &str) -> Signature {
        let signature = self.0.sign(&signed_text(statement));
        Signature { key: self.id().to_string(), signature: hex(signature.as_ref()) }
    }
}

/// The files of a key that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// What it is called.
    pub id: KeyId,
    /// `NAME.key`, the secret.
    pub secret: PathBuf,
    /// `NAME.pub`, for the image.
    pub public: PathBuf,
}

/// Makes a key and writes `NAME.key` and `NAME.pub` into a folder. One that is there already stays as it is. A key for
/// tests says so in both files, and what builds releases refuses it.
///
/// # Errors
/// The name is none, a file is there already or cannot be written.
pub fn keygen(folder: &Path, name: &str, test: bool) -> anyhow::Result<Made> {
    let mut seed = Zeroizing::new([0; 32]);
    aws_lc_rs::rand::fill(&mut *seed).context("the system has no random numbers")?;
    write(folder, name, test, &seed)
}

fn write(folder: &Path, name: &str, test: bool, seed: &[u8; 32]) -> anyhow::Result<Made> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        bail!("\"{}\" is no name of a key; one has letters, digits, - and _", name.escape_debug());
    }
    let key = SecretKey::from_seed(seed)?;
    let made = Made {
        id: key.id(),
        secret: folder.join(format!("{name}.key")),
        public: folder.join(format!("{name}.pub")),
    };
    if let Some(there) = [&made.secret, &made.public].into_iter().find(|path| path.exists()) {
        bail!("{} is there already; a key is not overwritten", there.display());
    }
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("{} cannot be made", folder.display()))?;
    let mark = if test { format!("{TEST_MARK} never for a release\n") } else { String::new() };
    let digits = Zeroizing::new(hex(seed));
    let secret = Zeroizing::new(format!("{mark}# secret release key {}\n{}\n", key.id(), *digits));
    create(&made.secret, secret.as_bytes(), 0o600)?;
    let public = format!("{mark}# release key {}\n{}\n", key.id(), key.public());
    create(&made.public, public.as_bytes(), 0o644)?;
    files::sync_folder_of(&made.public)?;
    Ok(made)
}

fn create(path: &Path, text: &[u8], mode: u32) -> anyhow::Result<()> {
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    opened
        .and_then(|mut file| file.write_all(text).and_then(|()| file.sync_all()))
        .with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("keys");
        let made = keygen(&folder, "current", false).unwrap();
        assert_eq!((mode(&made.secret), mode(&made.public)), (0o600, 0o644));
        let key = SecretKey::read(&made.secret).unwrap();
        let public = punktfunk_update::statement::keys::read(&made.public).unwrap();
        assert_eq!((key.id(), key.public()), (made.id, public));
        let text = fs::read_to_string(&made.secret).unwrap();
        let digits = text.lines().last().unwrap();
        assert!(!format!("{key:?}").contains(&digits[..8]) && !text.contains(TEST_MARK));
        assert!(!fs::read_to_string(&made.public).unwrap().contains(digits));

        let again = keygen(&folder, "current", false).unwrap_err().to_string();
        assert!(again.contains("not overwritten"), "{again}");
        assert_eq!(fs::read_to_string(&made.secret).unwrap(), text);
        assert_ne!(keygen(&folder, "next", false).unwrap().id, made.id);
        for wrong in ["", "../next", "a b", &"a".repeat(65)] {
            assert!(keygen(&folder, wrong, false).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_key_for_tests_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let made = keygen(folder.path(), "a", true).unwrap();
        for path in [&made.secret, &made.public] {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.starts_with("# test key:"), "{text}");
        }
        SecretKey::read(&made.secret).unwrap();
    }

    #[test]
    fn what_is_no_secret_or_none_any_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let made = keygen(folder.path(), "a", false).unwrap();
        fs::set_permissions(&made.secret, fs::Permissions::from_mode(0o640)).unwrap();
        let said = SecretKey::read(&made.secret).unwrap_err().to_string();
        assert!(said.contains("may be read by others (mode 640)"), "{said}");
        let path = folder.path().join("b.key");
        let digits = "ab".repeat(32);
        let twice = format!("{digits}\n{digits}\n");
        for wrong in ["", "# nothing\n", &digits[1..], &digits.to_uppercase(), &twice] {
            create(&path, wrong.as_bytes(), 0o600).unwrap();
            let said = SecretKey::read(&path).unwrap_err().to_string();
            assert!(said.contains("no secret key"), "{wrong}: {said}");
            assert!(!said.contains(&digits), "{said}");
            fs::remove_file(&path).unwrap();
        }
    }
}
