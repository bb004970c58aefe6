//! The client's side of pairing, for the self-test and for tests of the host.
//!
//! It checks what stock clients check, in their order: the host's signature first (a mismatch is somebody in the
//! middle), the hash second (a mismatch is a wrong PIN).

use subtle::ConstantTimeEq;

use super::cipher::{PinKey, digest};
use super::{CHALLENGE_RESPONSE_BYTES, PAIRING_SECRET_BYTES};
use crate::gamestream::certificate::{Certificate, RsaScheme};

/// Why a client breaks off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientPairingError {
    /// The host did not sign its secret with the key of the certificate it sent.
    #[error("the host's secret is not signed by its certificate: somebody may be in the middle")]
    ManInTheMiddle,
    /// The PIN entered at the host is another.
    #[error("the PIN is wrong")]
    WrongPin,
}

/// A client that sent its challenge.
#[derive(Debug)]
pub struct Challenged {
    key: PinKey,
    challenge: [u8; 16],
}

/// A client that answered the host's challenge.
#[derive(Debug)]
pub struct Answered {
    challenge: [u8; 16],
    host_hash: [u8; 32],
    secret: [u8; 16],
}

impl Challenged {
    /// Step 2: returns the client and its `clientchallenge`. The challenge is random.
    // spec: gamestream 3.1
    pub fn begin(key: PinKey, challenge: [u8; 16]) -> (Self, [u8; 16]) {
        let sealed = key.encrypt(challenge);
        (Self { key, challenge }, sealed)
    }

    /// Step 3: takes `challengeresponse`, returns `serverchallengeresp`. `signature` is the signature field of the
    /// client's certificate, `secret` is random.
    // spec: gamestream 3.1
    pub fn answer(
        self,
        response: [u8; CHALLENGE_RESPONSE_BYTES],
        signature: &[u8],
        secret: [u8; 16],
    ) -> (Answered, [u8; 32]) {
        let plain = self.key.decrypt(response);
        let mut host_hash = [0; 32];
        host_hash.copy_from_slice(&plain[..32]);
        let answer = digest(&[&plain[32..], signature, &secret]);
        let sealed = self.key.encrypt(answer);
        (Answered { challenge: self.challenge, host_hash, secret }, sealed)
    }
}

impl Answered {
    /// Step 4: checks `pairingsecret`, returns `clientpairingsecret`. `sign` makes a PKCS#1 v1.5 signature with
    /// SHA-256.
    ///
    /// # Errors
    /// See [`ClientPairingError`].
    // spec: gamestream 3.1
    pub fn finish(
        self,
        pairing_secret: &[u8; PAIRING_SECRET_BYTES],
        host: &Certificate,
        sign: impl FnOnce(&[u8]) -> [u8; 256],
    ) -> Result<[u8; PAIRING_SECRET_BYTES], ClientPairingError> {
        let (host_secret, signature) = pairing_secret.split_at(16);
        host.verify(RsaScheme::Pkcs1Sha256, host_secret, signature)
            .map_err(|_| ClientPairingError::ManInTheMiddle)?;
        let expected = digest(&[&self.challenge, host.signature(), host_secret]);
        if !bool::from(expected.ct_eq(&self.host_hash)) {
            return Err(ClientPairingError::WrongPin);
        }
        let mut own = [0; PAIRING_SECRET_BYTES];
        own[..16].copy_from_slice(&self.secret);
        own[16..].copy_from_slice(&sign(&self.secret));
        Ok(own)
    }
}
