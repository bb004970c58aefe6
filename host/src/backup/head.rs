//! What every kind of backup begins with: what it is, how much work the key takes, and a salt.
//!
//! The key is argon2id's of the passphrase, the cipher AES-256-GCM. The salt is drawn anew for each backup, so that each
//! has a key of its own and a nonce is never used twice with one. Whoever encrypts authenticates the head along.

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, LessSafeKey, UnboundKey};
use aws_lc_rs::rand;
use zeroize::Zeroizing;

use super::BackupError;

/// The version of the head and of what follows.
const VERSION: u32 = 1;

const MAGIC_BYTES: usize = 16;
const SALT_BYTES: usize = 16;
/// Magic, version, memory, passes, salt; the nonce, or what nonces begin with, follows.
pub(super) const BYTES: usize = MAGIC_BYTES + 3 * 4 + SALT_BYTES;
pub(super) const TAG_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// A backup may ask for no more work than this, in KiB and in passes: its head is believed before it is proven.
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

/// A new head and its key; `nonce` is drawn, too, and stands at the head's end.
pub(super) fn make(
    magic: &[u8; MAGIC_BYTES],
    passphrase: &[u8],
    strength: Strength,
    nonce: &mut [u8],
) -> Result<(Vec<u8>, LessSafeKey), BackupError> {
    let mut salt = [0; SALT_BYTES];
    rand::fill(&mut salt)
        .and_then(|()| rand::fill(nonce))
        .map_err(|_| BackupError::Key("the system gave no random bytes"))?;
    let mut head = Vec::with_capacity(BYTES + nonce.len());
    head.extend_from_slice(magic);
    for number in [VERSION, strength.memory_kib, strength.passes] {
        head.extend_from_slice(&number.to_le_bytes());
    }
    head.extend_from_slice(&salt);
    head.extend_from_slice(nonce);
    Ok((head, key(passphrase, strength, &salt)?))
}

/// The key of a backup that begins with this, and its nonce.
pub(super) fn read<'a>(
    magic: &[u8; MAGIC_BYTES],
    passphrase: &[u8],
    head: &'a [u8],
) -> Result<(LessSafeKey, &'a [u8]), BackupError> {
    let (head, nonce) = head.split_at_checked(BYTES).ok_or(BackupError::NoBackup)?;
    let rest = head.strip_prefix(magic).ok_or(BackupError::NoBackup)?;
    let (numbers, salt) = rest.split_at(12);
    let number = |at: usize| {
        let bytes = numbers[4 * at..4 * at + 4].iter().rev();
        bytes.fold(0_u32, |number, byte| number << 8 | u32::from(*byte))
    };
    if number(0) != VERSION {
        return Err(BackupError::TooNew { got: number(0), known: VERSION });
    }
    let strength = Strength { memory_kib: number(1), passes: number(2) };
    Ok((key(passphrase, strength, salt)?, nonce))
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
