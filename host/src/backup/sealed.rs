//! The outside of a backup: a header that says how the key is derived, then the contents, encrypted as a whole.
//!
//! The key is argon2id's of the passphrase, the cipher AES-256-GCM; the header is authenticated with the contents. The
//! salt is drawn anew for each backup, so that each has a key of its own and a nonce is never used twice with one.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::{BackupError, MAX_BACKUP_BYTES};

/// What a backup begins with.
const MAGIC: &[u8; 16] = b"punktfunk-backup";
/// The version of the header and of what follows.
const VERSION: u32 = 1;

const SALT_BYTES: usize = 16;
/// Magic, version, memory, passes, salt, nonce.
const HEADER_BYTES: usize = 16 + 3 * 4 + SALT_BYTES + NONCE_LEN;
const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// A backup may ask for no more work than this, in KiB and in passes: its header is believed before it is proven.
const MAX_MEMORY_KIB: u32 = 64 * 1024;
const MAX_PASSES: u32 = 8;

/// How much a guess at the passphrase costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Strength {
    /// Memory in KiB, 8..=65536.
    pub memory_kib: u32,
    /// Passes over it, 1..=8.
    pub passes: u32,
}

impl Default for Strength {
    fn default() -> Self {
        Self { memory_kib: MAX_MEMORY_KIB, passes: 3 }
    }
}

/// Encrypts what `write` leaves in the room it is given, which it may only extend.
pub(super) fn seal(
    passphrase: &[u8],
    strength: Strength,
    write: impl FnOnce(Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, BackupError> {
    let (mut salt, mut nonce) = ([0; SALT_BYTES], [0; NONCE_LEN]);
    rand::fill(&mut salt)
        .and_then(|()| rand::fill(&mut nonce))
        .map_err(|_| BackupError::Key("the system gave no random bytes"))?;
    let mut header = Vec::with_capacity(HEADER_BYTES);
    header.extend_from_slice(MAGIC);
    for number in [VERSION, strength.memory_kib, strength.passes] {
        header.extend_from_slice(&number.to_le_bytes());
    }
    header.extend_from_slice(&salt);
    header.extend_from_slice(&nonce);
    let key = key(passphrase, strength, &salt)?;
    let mut sealed = write(Zeroizing::new(header.clone()));
    let got = sealed.len() + TAG_BYTES;
    if got > MAX_BACKUP_BYTES {
        return Err(BackupError::TooLarge { got });
    }
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(&header), &mut sealed[HEADER_BYTES..])
        .map_err(|_| BackupError::Key("the contents could not be encrypted"))?;
    // From here on there is nothing secret in it.
    let mut sealed = std::mem::take(&mut *sealed);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// The contents of a backup.
pub(super) fn open(passphrase: &[u8], backup: &[u8]) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let (header, sealed) = backup.split_at_checked(HEADER_BYTES).ok_or(BackupError::NoBackup)?;
    let rest = header.strip_prefix(MAGIC).ok_or(BackupError::NoBackup)?;
    let (numbers, rest) = rest.split_at(12);
    let number = |at: usize| {
        let bytes = numbers[4 * at..4 * at + 4].iter().rev();
        bytes.fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
    };
    if number(0) != VERSION {
        return Err(BackupError::TooNew { got: number(0), known: VERSION });
    }
    let strength = Strength { memory_kib: number(1), passes: number(2) };
    let (salt, nonce) = rest.split_at(SALT_BYTES);
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BackupError::NoBackup)?;
    if sealed.len() < TAG_BYTES {
        return Err(BackupError::NoBackup);
    }
    let key = key(passphrase, strength, salt)?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(header), &mut opened)
        .map_err(|_| BackupError::WrongPassphrase)?
        .len();
    opened.truncate(length);
    Ok(opened)
}

fn key(passphrase: &[u8], strength: Strength, salt: &[u8]) -> Result<LessSafeKey, BackupError> {
    let Strength { memory_kib, passes } = strength;
    if !(8..=MAX_MEMORY_KIB).contains(&memory_kib) || !(1..=MAX_PASSES).contains(&passes) {
        return Err(BackupError::NoBackup);
    }
    let params = Params::new(memory_kib, passes, 1, Some(KEY_BYTES))
        .map_err(|_| BackupError::Key("the strength is none"))?;
    let mut bytes = Zeroizing::new([0; KEY_BYTES]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(passphrase, salt, &mut *bytes)
        .map_err(|_| BackupError::Key("the key could not be derived"))?;
    UnboundKey::new(&AES_256_GCM, &*bytes)
        .map(LessSafeKey::new)
        .map_err(|_| BackupError::Key("the key could not be used"))
}
