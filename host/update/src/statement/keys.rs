//! Whose signatures are believed: two public keys that lie in the image, one that is in use and one that is to follow.
//!
//! A key is named by its id, the beginning of its digest. Which of the two signed does not matter; which were revoked is
//! in root's memory, because the image that still holds a revoked key may be started again.
//!
//! Deliberately absent: secrets. Those who make the box have them, and `punktfunk-publish` reads them.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use punktfunk_os::files::{self, FileError};
use sha2::{Digest as _, Sha256};

use super::hex::{hex, unhex};

/// Where the image keeps them.
pub const FOLDER: &str = "/usr/share/punktfunk/release-keys";
/// The key in use.
pub const CURRENT: &str = "current.pub";
/// The key that is to follow; it need not be there.
pub const NEXT: &str = "next.pub";
/// What a comment begins with that marks a key as one for tests; no release holds such a key.
pub const TEST_MARK: &str = "# test key:";

/// No file with a key is longer, in bytes.
const MAX_BYTES: u64 = 4096;

/// Why keys cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no key in it.
    #[error("{file}: {source}")]
    Text {
        /// Which file.
        file: String,
        /// What is wrong with it.
        source: KeyTextError,
    },
    /// Two files say the same.
    #[error("the key that is to follow is the one in use, {0}")]
    Same(KeyId),
}

/// That is no public key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "it has {lines} lines that are not comments, the first of {bytes} bytes; a key is one of 64 hexadecimal digits"
)]
pub struct KeyTextError {
    lines: usize,
    bytes: usize,
}

/// What a key is called: the first eight bytes of the SHA-256 of the public key, in 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId([u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl KeyId {
    /// The id that these digits say, if they say one.
    pub fn parse(digits: &str) -> Option<Self> {
        unhex(digits).map(Self)
    }
}

/// A key that signatures are checked with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key of these bytes, as Ed25519 encodes it.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What it is called.
    pub fn id(&self) -> KeyId {
        let digest = Sha256::digest(self.0);
        KeyId(std::array::from_fn(|at| digest[at]))
    }

    /// Whether the owner of the key signed this text.
    pub fn signed(&self, text: &[u8], signature: &[u8; 64]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(text, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl FromStr for PublicKey {
    type Err = KeyTextError;

    /// Reads what a file of a key says: 64 digits in a line. Lines that are empty or begin with `#` say nothing.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lines = text.lines().map(str::trim);
        let mut said = lines.by_ref().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let first = said.next().unwrap_or_default();
        let lines = usize::from(!first.is_empty()) + said.count();
        let key = if lines == 1 { unhex(first) } else { None };
        key.map(Self).ok_or(KeyTextError { lines, bytes: first.len() })
    }
}

/// The keys whose signatures are believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRing {
    current: PublicKey,
    next: Option<PublicKey>,
}

impl KeyRing {
    /// The key in use and the one that is to follow.
    ///
    /// # Errors
    /// Both are the same: then there would be nothing to rotate to.
    pub fn new(current: PublicKey, next: Option<PublicKey>) -> Result<Self, KeyError> {
        if next == Some(current) {
            return Err(KeyError::Same(current.id()));
        }
        Ok(Self { current, next })
    }

    /// What lies in a folder: [`CURRENT`], and [`NEXT`] if it is there.
    ///
    /// # Errors
    /// The key in use is not there, or a file holds no key, or both hold the same.
    pub fn read(folder: &Path) -> Result<Self, KeyError> {
        let current = read(&folder.join(CURRENT))?;
        let next = match read(&folder.join(NEXT)) {
            Ok(key) => Some(key),
            Err(KeyError::File(error)) if error.is_absent() => None,
            Err(error) => return Err(error),
        };
        Self::new(current, next)
    }

    /// The key of this id, if it is one of them.
    pub fn key(&self, id: KeyId) -> Option<&PublicKey> {
        self.keys().find(|key| key.id() == id)
    }

    /// All of them, the one in use first.
    pub fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        std::iter::once(&self.current).chain(&self.next)
    }
}

/// The key in a file.
///
/// # Errors
/// The file cannot be read or holds no key.
pub fn read(path: &Path) -> Result<PublicKey, KeyError> {
    // What is no text is no key either, and is told as one.
    let text = String::from_utf8_lossy(&files::read(path, MAX_BYTES)?).into_owned();
    text.parse().map_err(|source| KeyError::Text { file: path.display().to_string(), source })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const DIGITS: &str = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";

    #[test]
    fn a_key_is_one_line_of_digits_among_comments() {
        let file = format!("{TEST_MARK} never for a release\n\n  {DIGITS}  \n# the end\n");
        let key: PublicKey = file.parse().unwrap();
        assert_eq!(key.to_string(), DIGITS);
        // The first 16 digits of `printf $DIGITS | xxd -r -p | sha256sum`.
        assert_eq!(key.id().to_string(), "21fe31dfa154a261");
        assert_eq!(KeyId::parse("21fe31dfa154a261"), Some(key.id()));
        for wrong in ["", "# only a comment", &DIGITS[1..], &format!("{DIGITS}\n{DIGITS}"), "é"] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
        let said = format!("{DIGITS}\n{DIGITS}").parse::<PublicKey>().unwrap_err().to_string();
        assert!(said.contains("2 lines") && said.contains("64 bytes"), "{said}");
    }

    // Test 1 of RFC 8032, 7.1: the empty text.
    #[test]
    fn a_signature_is_of_one_text_and_one_key() {
        let key: PublicKey = DIGITS.parse().unwrap();
        let signature = unhex(
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        )
        .unwrap();
        assert!(key.signed(b"", &signature));
        assert!(!key.signed(b" ", &signature));
        let mut turned = signature;
        turned[0] ^= 1;
        assert!(!key.signed(b"", &turned));
        // What is no point of the curve signs nothing.
        for bytes in [[0; 32], [0xff; 32], [2; 32]] {
            assert!(!PublicKey::new(bytes).signed(b"", &signature));
        }
    }

    #[test]
    fn a_ring_is_read_from_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name| folder.path().join(name);
        let absent = KeyRing::read(folder.path()).unwrap_err();
        assert!(matches!(&absent, KeyError::File(error) if error.is_absent()), "{absent}");

        fs::write(file(CURRENT), DIGITS).unwrap();
        let ring = KeyRing::read(folder.path()).unwrap();
        assert_eq!(ring.keys().count(), 1);

        fs::write(file(NEXT), format!("# the next\n{DIGITS}")).unwrap();
        assert!(matches!(KeyRing::read(folder.path()), Err(KeyError::Same(_))));
        let other = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c";
        fs::write(file(NEXT), other).unwrap();
        let ring = KeyRing::read(folder.path()).unwrap();
        let next: PublicKey = other.parse().unwrap();
        assert_eq!(ring.key(next.id()), Some(&next));
        assert_eq!(ring.key(PublicKey::new([1; 32]).id()), None);

        // A key that cannot be read is not passed over: the maker meant it to be there.
        fs::write(file(NEXT), "not a key").unwrap();
        let said = KeyRing::read(folder.path()).unwrap_err().to_string();
        assert!(said.contains("next.pub") && said.contains("1 lines"), "{said}");
        fs::write(file(NEXT), vec![b'#'; 5000]).unwrap();
        assert!(matches!(
            KeyRing::read(folder.path()),
            Err(KeyError::File(FileError::TooLong { .. }))
        ));
    }
}
