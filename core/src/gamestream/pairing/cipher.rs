//! The arithmetic of pairing: a key from a PIN, three hashes, AES in ECB mode.
//!
//! Nothing here is strong: a PIN has ten thousand values. What makes pairing safe is that an attempt answers once.

use std::fmt;

use aes::Aes128;
use ecb::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyInit};
use sha2::{Digest, Sha256};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The AES key of one attempt. Wiped when dropped, never printed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PinKey([u8; 16]);

impl PinKey {
    /// The first half of SHA-256 over salt and the PIN's four digits as ASCII text.
    // spec: gamestream 3.1
    pub fn derive(salt: &[u8; 16], pin: &[u8; 4]) -> Self {
        let mut hash = digest(&[salt, pin]);
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        hash.zeroize();
        Self(key)
    }

    #[cfg(test)]
    pub(super) const fn expose(&self) -> &[u8; 16] {
        &self.0
    }

    /// Encrypts whole blocks.
    pub(super) fn encrypt<const N: usize>(&self, mut text: [u8; N]) -> [u8; N] {
        const { assert!(N.is_multiple_of(16), "ECB without padding takes whole blocks") };
        let mut cipher = ecb::Encryptor::<Aes128>::new((&self.0).into());
        for block in text.as_chunks_mut::<16>().0 {
            cipher.encrypt_block(block.into());
        }
        text
    }

    /// Decrypts whole blocks.
    pub(super) fn decrypt<const N: usize>(&self, mut text: [u8; N]) -> [u8; N] {
        const { assert!(N.is_multiple_of(16), "ECB without padding takes whole blocks") };
        let mut cipher = ecb::Decryptor::<Aes128>::new((&self.0).into());
        for block in text.as_chunks_mut::<16>().0 {
            cipher.decrypt_block(block.into());
        }
        text
    }
}

impl fmt::Debug for PinKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PinKey(redacted)")
    }
}

/// SHA-256 over the parts in a row.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}
