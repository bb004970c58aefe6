//! AES-128-GCM with the tag apart from the text, which is how GameStream lays it out.
//!
//! Twelve-byte nonces go through aws-lc-rs; the sixteen-byte nonce of the oldest clients is a form of GCM that aws-lc-rs
//! does not offer, so [`GcmWideNonce`] uses the `aes-gcm` crate.

use aes_gcm::aead::AeadInOut;
use aes_gcm::aead::KeyInit;
use aes_gcm::aes::Aes128;
use aes_gcm::aes::cipher::consts::U16;
use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::SessionKey;

/// Length of a tag in bytes.
pub const TAG_BYTES: usize = 16;

/// The text was not sealed with this key and nonce, or was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the message was not sealed with this key")]
pub struct OpenError;

/// AES-128-GCM with twelve-byte nonces and no associated data.
pub struct Gcm(LessSafeKey);

impl Gcm {
    /// A cipher for this key.
    #[expect(clippy::expect_used, reason = "a 16-byte key always fits AES-128")]
    pub fn new(key: &SessionKey) -> Self {
        let key = UnboundKey::new(&AES_128_GCM, key.expose()).expect("an AES-128 key has 16 bytes");
        Self(LessSafeKey::new(key))
    }

    /// Encrypts `text` in place and returns the tag. The caller never passes the same nonce twice.
    #[expect(clippy::expect_used, reason = "fails only for texts of 64 GiB and more")]
    pub fn seal(&self, nonce: [u8; 12], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .0
            .seal_in_place_separate_tag(nonce, Aad::empty(), text)
            .expect("datagrams and messages are far below the GCM text limit");
        let mut out = [0; TAG_BYTES];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Decrypts `sealed` into `text`, which has the same length.
    ///
    /// # Errors
    /// [`OpenError`] if the tag does not match; `text` then holds nothing of use.
    pub fn open(
        &self,
        nonce: [u8; 12],
        tag: &[u8; TAG_BYTES],
        sealed: &[u8],
        text: &mut [u8],
    ) -> Result<(), OpenError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_separate_gather(nonce, Aad::empty(), sealed, tag, text).map_err(|_| OpenError)
    }
}

/// AES-128-GCM with sixteen-byte nonces and no associated data.
pub struct GcmWideNonce(aes_gcm::AesGcm<Aes128, U16>);

impl GcmWideNonce {
    /// A cipher for this key.
    pub fn new(key: &SessionKey) -> Self {
        Self(aes_gcm::AesGcm::new(key.expose().into()))
    }

    /// Encrypts `text` in place and returns the tag.
    #[expect(clippy::expect_used, reason = "fails only for texts of 64 GiB and more")]
    pub fn seal(&self, nonce: [u8; 16], text: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self
            .0
            .encrypt_inout_detached(&nonce.into(), b"", text.into())
            .expect("messages are far below the GCM text limit");
        tag.into()
    }

    /// Decrypts `text` in place.
    ///
    /// # Errors
    /// [`OpenError`] if the tag does not match; `text` is then unchanged or of no use.
    pub fn open(
        &self,
        nonce: [u8; 16],
        tag: &[u8; TAG_BYTES],
        text: &mut [u8],
    ) -> Result<(), OpenError> {
        self.0
            .decrypt_inout_detached(&nonce.into(), b"", text.into(), &(*tag).into())
            .map_err(|_| OpenError)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sealed_opens_and_what_was_changed_does_not() {
        let key = SessionKey::new([7; 16]);
        let (gcm, wide) = (Gcm::new(&key), GcmWideNonce::new(&key));
        let mut sealed = *b"a message of no importance";
        let tag = gcm.seal([1; 12], &mut sealed);
        let mut text = sealed;
        assert_eq!(gcm.open([1; 12], &tag, &sealed, &mut text), Ok(()));
        assert_eq!(&text, b"a message of no importance");
        assert_eq!(gcm.open([2; 12], &tag, &sealed, &mut text), Err(OpenError));
        sealed[3] ^= 1;
        assert_eq!(gcm.open([1; 12], &tag, &sealed, &mut text), Err(OpenError));

        let mut text = *b"and another";
        let tag = wide.seal([9; 16], &mut text);
        assert_ne!(&text, b"and another");
        assert_eq!(wide.open([9; 16], &tag, &mut text), Ok(()));
        assert_eq!(&text, b"and another");
    }
}
