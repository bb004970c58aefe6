//! Sealing: session keys and authenticated encryption.
//!
//! Deliberately absent: any way to seal with a nonce chosen by a caller outside this crate's protocol modules.

mod gcm;
mod sealer;

use std::fmt;

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

pub use gcm::{Gcm, GcmWideNonce, OpenError, TAG_BYTES};
pub use sealer::{Clear, CounterExhausted, Sealer};

/// A 16-byte AES key. Wiped when dropped, never printed, compared in constant time.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct SessionKey([u8; 16]);

impl SessionKey {
    /// Takes key bytes that came from a peer or from the system's random source.
    pub const fn new(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// What a key can be known by after it is wiped: its SHA-256 with a label, from which the key cannot be found.
    pub fn fingerprint(&self) -> KeyFingerprint {
        let digest = Sha256::new().chain_update(b"punktfunk key fingerprint").chain_update(self.0);
        KeyFingerprint(digest.finalize().into())
    }

    /// The key bytes, for the protocol modules that key a cipher with them.
    pub(crate) const fn expose(&self) -> &[u8; 16] {
        &self.0
    }
}

/// Tells one key from another without being one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint([u8; 32]);

impl PartialEq for SessionKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SessionKey {}

impl fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionKey(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_never_printed() {
        assert_eq!(format!("{:?}", SessionKey::new([0x5a; 16])), "SessionKey(redacted)");
    }

    #[test]
    fn a_fingerprint_tells_keys_apart_and_does_not_hold_them() {
        let (one, two) = (SessionKey::new([0x5a; 16]), SessionKey::new([0x5b; 16]));
        assert_eq!(one.fingerprint(), one.clone().fingerprint());
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert!(!one.fingerprint().0.windows(4).any(|bytes| bytes == [0x5a; 4]));
    }
}
