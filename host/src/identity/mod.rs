//! Who this host is: an RSA-2048 key, its self-signed certificate and a UUID, made once and kept for ever.
//!
//! Clients pin the certificate byte for byte when they pair, and know the host by its UUID; if either changed, every
//! device would have to pair again. So both lie in the store, and what is there is never made anew: an identity that
//! cannot be read is an error for the owner.
//!
//! The console has a certificate of its own ([`ConsoleIdentity`]): what browsers are asked to trust and what devices pin
//! are two things, and the console must have one also when the store has none.
//!
//! Deliberately absent: expiry and renewal. No client looks at the dates, and a renewed certificate is a new one.

mod console;

use std::fmt;

use aws_lc_rs::rand::{self, SystemRandom};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use zeroize::Zeroizing;

use crate::store::{Store, StoreError, StoredIdentity};

pub use console::{ConsoleIdentity, Fingerprint, label};

/// The length of an RSA-2048 signature, in bytes.
pub const SIGNATURE_BYTES: usize = 256;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The store could not be read or written.
    #[error("the host's identity could not be loaded")]
    Store(#[from] StoreError),
    /// The key or the certificate could not be made.
    #[error("the host's key and certificate could not be made: {0}")]
    Make(String),
    /// What lies in the store is no identity.
    #[error(
        "the host's identity in the database is damaged ({what}); restore a copy of the state \
         folder, or move it aside: every device must then be paired anew"
    )]
    Damaged {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The system gave no signature.
    #[error("signing with the host's key failed")]
    Sign,
}

/// The host's identity.
pub struct Identity {
    host_id: String,
    certificate_der: Vec<u8>,
    certificate_pem: String,
    private_key_der: Zeroizing<Vec<u8>>,
    key: RsaKeyPair,
}

impl Identity {
    /// The identity in the store; at the very first start, one is made and kept before it is used.
    ///
    /// # Errors
    /// See [`IdentityError`]. A damaged identity is never replaced.
    pub fn load_or_create(store: &Store) -> Result<Self, IdentityError> {
        if let Some(stored) = store.identity()? {
            return Self::from_stored(stored);
        }
        let made = make()?;
        store.put_identity(&made)?;
        tracing::info!(host_id = made.host_id, "made this host's identity");
        Self::from_stored(made)
    }

    /// What lies in a store or a backup, if it is an identity.
    ///
    /// # Errors
    /// [`IdentityError::Damaged`] says what is wrong with it.
    pub fn from_stored(stored: StoredIdentity) -> Result<Self, IdentityError> {
        let damaged = |what| IdentityError::Damaged { what };
        let key = RsaKeyPair::from_pkcs8(&stored.private_key_der)
            .map_err(|_| damaged("the private key cannot be read"))?;
        if key.public_modulus_len() != SIGNATURE_BYTES {
            return Err(damaged("the private key is not RSA-2048"));
        }
        if !has_rsa_2048_signature(&stored.certificate_der) {
            return Err(damaged("the certificate has no RSA-2048 signature"));
        }
        // The public key stands in the certificate in the very bytes in which the key pair gives it.
        let public_key = key.public_key().as_ref();
        if !stored.certificate_der.windows(public_key.len()).any(|bytes| bytes == public_key) {
            return Err(damaged("the certificate belongs to another key"));
        }
        if stored.host_id.is_empty() {
            return Err(damaged("the host's id is empty"));
        }
        Ok(Self {
            host_id: stored.host_id,
            certificate_pem: to_pem(&stored.certificate_der),
            certificate_der: stored.certificate_der,
            private_key_der: stored.private_key_der,
            key,
        })
    }

    /// The host's UUID text; unchanged for the life of the state folder.
    // spec: gamestream 2.4 (uniqueid)
    pub fn host_id(&self) -> &str {
        &self.host_id
    }

    /// The certificate, DER.
    // spec: gamestream 2.2
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The certificate as PEM text with lines of 64 characters and a final newline.
    // spec: gamestream 3.2 (plaincert)
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// The private key, PKCS#8. Secret: hand it to TLS, never to a log.
    pub fn private_key_der(&self) -> &[u8] {
        &self.private_key_der
    }

    /// The 256 bytes of the certificate's own signature.
    // spec: gamestream 3.1 (SS)
    pub fn signature_bytes(&self) -> &[u8] {
        &self.certificate_der[self.certificate_der.len() - SIGNATURE_BYTES..]
    }

    /// Signs with the host's key: PKCS#1 v1.5, SHA-256, 256 bytes. Takes about a millisecond.
    ///
    /// # Errors
    /// [`IdentityError::Sign`] if the crypto library fails.
    // spec: gamestream 3.1 (step 3)
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, IdentityError> {
        let mut signature = vec![0; SIGNATURE_BYTES];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| IdentityError::Sign)?;
        Ok(signature)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("host_id", &self.host_id)
            .field("private_key_der", &"redacted")
            .finish_non_exhaustive()
    }
}

fn make() -> Result<StoredIdentity, IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::Make(error.to_string());
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(failed)?;
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, "punktfunk host");
    params.distinguished_name = name;
    // Fixed dates, not the clock: at the first start of a fresh box the clock may be years off, and so may a client's.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(StoredIdentity {
        host_id: random_uuid()?,
        certificate_der: certificate.der().to_vec(),
        private_key_der: Zeroizing::new(key.serialize_der()),
    })
}

/// A random UUID (RFC 9562, version 4).
fn random_uuid() -> Result<String, IdentityError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes)
        .map_err(|_| IdentityError::Make("the system gave no random bytes".to_owned()))?;
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    Ok(text)
}

/// A certificate ends with its signature: a BIT STRING of 1 + 256 bytes, the first of which counts unused bits.
fn has_rsa_2048_signature(certificate: &[u8]) -> bool {
    const HEADER: [u8; 5] = [0x03, 0x82, 0x01, 0x01, 0x00];
    certificate
        .len()
        .checked_sub(SIGNATURE_BYTES + HEADER.len())
        .is_some_and(|at| certificate[at..].starts_with(&HEADER))
}

fn to_pem(der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 bytes are 64 characters, a line of PEM.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let at = |index: usize| u32::from(group.get(index).copied().unwrap_or(0));
            let bits = at(0) << 16 | at(1) << 8 | at(2);
            for position in 0..4 {
                let sextet = (bits >> (18 - 6 * position)) & 0x3F;
                text.push(if position <= group.len() {
                    char::from(ALPHABET[sextet as usize])
                } else {
                    '='
                });
            }
        }
        text.push('\n');
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        (folder, store)
    }

    // spec: gamestream 13 item 11
    // spec: gamestream 13 item 20
    #[test]
    fn the_identity_is_made_once() {
        let (folder, store) = store();
        let first = Identity::load_or_create(&store).unwrap();
        drop(store);
        let store = Store::open(&folder.path().join("state")).unwrap();
        let second = Identity::load_or_create(&store).unwrap();
        assert_eq!(first.host_id(), second.host_id());
        assert_eq!(first.certificate_der(), second.certificate_der());
        assert_eq!(first.private_key_der(), second.private_key_der());
        assert_eq!(first.host_id().len(), 36);
    }

    // spec: gamestream 13 item 20
    #[test]
    fn the_certificate_is_what_every_client_accepts() {
        let (_folder, store) = store();
        let identity = Identity::load_or_create(&store).unwrap();
        let der = identity.certificate_der();
        let contains = |bytes: &[u8]| der.windows(bytes.len()).any(|window| window == bytes);
        assert_eq!(identity.signature_bytes().len(), 256);
        assert!(contains(&[0xA0, 0x03, 0x02, 0x01, 0x02]), "version field says v3");
        // sha256WithRSAEncryption, 1.2.840.113549.1.1.11
        assert!(contains(&[0x06, 0x09, 0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x01, 0x0B]));
        assert!(contains(b"200101000000Z") && contains(b"491231000000Z"));
        // The certificate is signed by its own key: the body is what lies between the outer header and the algorithm.
        let body_len = 4 + usize::from(u16::from_be_bytes([der[6], der[7]]));
        let key = UnparsedPublicKey::new(
            &RSA_PKCS1_2048_8192_SHA256,
            identity.key.public_key().as_ref().to_vec(),
        );
        key.verify(&der[4..4 + body_len], identity.signature_bytes()).unwrap();
    }

    #[test]
    fn the_pem_text_is_the_certificate() {
        let (_folder, store) = store();
        let identity = Identity::load_or_create(&store).unwrap();
        let parsed = CertificateDer::from_pem_slice(identity.certificate_pem().as_bytes()).unwrap();
        assert_eq!(parsed.as_ref(), identity.certificate_der());
        assert!(identity.certificate_pem().lines().all(|line| line.len() <= 64));
        for length in 0..100 {
            let der = vec![0xC3; length];
            let parsed = CertificateDer::from_pem_slice(to_pem(&der).as_bytes()).unwrap();
            assert_eq!(parsed.as_ref(), der);
        }
    }

    #[test]
    fn signatures_verify_and_tls_takes_the_key() {
        let (_folder, store) = store();
        let identity = Identity::load_or_create(&store).unwrap();
        let signature = identity.sign(b"secret").unwrap();
        assert_eq!(signature.len(), SIGNATURE_BYTES);
        let public_key = identity.key.public_key().as_ref().to_vec();
        let public_key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key);
        public_key.verify(b"secret", &signature).unwrap();
        assert!(public_key.verify(b"secres", &signature).is_err());
        let key =
            PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.private_key_der().to_vec()));
        rustls::crypto::aws_lc_rs::sign::any_supported_type(&key).unwrap();
    }

    #[test]
    fn a_damaged_identity_is_refused_and_kept() {
        let made = make().unwrap();
        let other = make().unwrap();
        let check = |certificate: &[u8], key: &[u8]| {
            let (_folder, store) = store();
            let stored = StoredIdentity {
                host_id: "id".to_owned(),
                certificate_der: certificate.to_vec(),
                private_key_der: Zeroizing::new(key.to_vec()),
            };
            store.put_identity(&stored).unwrap();
            let error = Identity::load_or_create(&store).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
            assert_eq!(store.identity().unwrap().unwrap().certificate_der, certificate);
        };
        check(&made.certificate_der, b"no key");
        check(&made.certificate_der, &other.private_key_der);
        check(b"no certificate", &made.private_key_der);
    }

    #[test]
    fn nothing_secret_is_printed() {
        let (_folder, store) = store();
        let identity = Identity::load_or_create(&store).unwrap();
        let text = format!("{identity:?}");
        assert!(text.contains("redacted") && text.len() < 200, "{text}");
    }
}
