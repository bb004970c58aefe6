//! The outside of a backup: a [`head`](super::head) that says how the key is derived, then the contents, encrypted as a
//! whole by AES-256-GCM; the head is authenticated with the contents.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use zeroize::Zeroizing;

use super::head::{self, Strength, TAG_BYTES};
use super::{BackupError, MAX_BACKUP_BYTES};

/// What a backup begins with.
const MAGIC: &[u8; 16] = b"punktfunk-backup";

const HEAD_BYTES: usize = head::BYTES + NONCE_LEN;

/// Encrypts what `write` leaves in the room it is given, which it may only extend.
pub(super) fn seal(
    passphrase: &[u8],
    strength: Strength,
    write: impl FnOnce(Zeroizing<Vec<u8>>) -> Zeroizing<Vec<u8>>,
) -> Result<Vec<u8>, BackupError> {
    let mut nonce = [0; NONCE_LEN];
    let (head, key) = head::make(MAGIC, passphrase, strength, &mut nonce)?;
    let mut sealed = write(Zeroizing::new(head.clone()));
    let got = sealed.len() + TAG_BYTES;
    if got > MAX_BACKUP_BYTES {
        return Err(BackupError::TooLarge { got });
    }
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key
        .seal_in_place_separate_tag(nonce, Aad::from(&head), &mut sealed[HEAD_BYTES..])
        .map_err(|_| BackupError::Key("the contents could not be encrypted"))?;
    // From here on there is nothing secret in it.
    let mut sealed = std::mem::take(&mut *sealed);
    sealed.extend_from_slice(tag.as_ref());
    Ok(sealed)
}

/// The contents of a backup.
pub(super) fn open(passphrase: &[u8], backup: &[u8]) -> Result<Zeroizing<Vec<u8>>, BackupError> {
    let (head, sealed) = backup.split_at_checked(HEAD_BYTES).ok_or(BackupError::NoBackup)?;
    if sealed.len() < TAG_BYTES {
        return Err(BackupError::NoBackup);
    }
    let (key, nonce) = head::read(MAGIC, passphrase, head)?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| BackupError::NoBackup)?;
    let mut opened = Zeroizing::new(sealed.to_vec());
    let length = key
        .open_in_place(nonce, Aad::from(head), &mut opened)
        .map_err(|_| BackupError::WrongPassphrase)?
        .len();
    opened.truncate(length);
    Ok(opened)
}
