//! What the console shows browsers: a self-signed ECDSA P-256 certificate, which its owner knows by the fingerprint.
//!
//! No authority vouches for a box at home, so the browser warns once and the owner compares the fingerprint with the
//! one that the box shows. So it stays the same for as long as the store does, also when the host is renamed. It has
//! nothing to do with the key that devices pin: each can be replaced without the other.
//!
//! The console must come up even when there is no store to keep it in. Then there is one in memory, with another
//! fingerprint at each start, and the owner is told so.
//!
//! Deliberately absent: authorities, renewal.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use zeroize::Zeroizing;

use super::IdentityError;
use crate::store::{Store, StoredConsole};

/// The longest label of a name in DNS, in bytes.
const MAX_LABEL_BYTES: usize = 63;

/// The console's certificate and key.
pub struct ConsoleIdentity {
    stored: StoredConsole,
}

impl ConsoleIdentity {
    /// The one in the store; if there is none, or it is damaged, one is made and kept before it is used. `name` is the
    /// host's.
    ///
    /// # Errors
    /// The store failed, or the system gave no key.
    pub fn load_or_create(store: &Store, name: &str) -> Result<Self, IdentityError> {
        match store.console_identity()? {
            Some(stored) if is_whole(&stored) => return Ok(Self { stored }),
            Some(_) => tracing::warn!(
                "the console's certificate was damaged; there is a new one, with another fingerprint"
            ),
            None => {}
        }
        let made = make(name)?;
        store.put_console_identity(&made)?;
        Ok(Self { stored: made })
    }

    /// One that lives as long as the process.
    ///
    /// # Errors
    /// The system gave no key.
    pub fn in_memory(name: &str) -> Result<Self, IdentityError> {
        Ok(Self { stored: make(name)? })
    }

    /// The certificate, DER.
    pub fn certificate_der(&self) -> &[u8] {
        &self.stored.certificate_der
    }

    /// The private key, PKCS#8. Secret: hand it to TLS, never to a log.
    pub fn private_key_der(&self) -> &[u8] {
        &self.stored.private_key_der
    }

    /// What people know it by.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, &self.stored.certificate_der).as_ref());
        Fingerprint(bytes)
    }
}

impl fmt::Debug for ConsoleIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleIdentity")
            .field("fingerprint", &self.fingerprint().to_string())
            .field("private_key_der", &"redacted")
            .finish()
    }
}

/// The SHA-256 of a certificate's DER bytes; written as browsers show it, `AB:CD:..`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint(pub [u8; 32]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

/// The host's name as a label in DNS, in small letters; `None` if it is none, as one with spaces.
pub fn label(name: &str) -> Option<String> {
    let fits = (1..=MAX_LABEL_BYTES).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    fits.then(|| name.to_ascii_lowercase())
}

fn make(name: &str) -> Result<StoredConsole, IdentityError> {
    let failed = |error: rcgen::Error| IdentityError::Make(error.to_string());
    let mut names: Vec<String> =
        label(name).map(|label| format!("{label}.local")).into_iter().collect();
    for always in ["punktfunk.local", "localhost"] {
        if !names.iter().any(|name| name == always) {
            names.push(always.to_owned());
        }
    }
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::new(names).map_err(failed)?;
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, "punktfunk console");
    params.distinguished_name = subject;
    // Fixed dates, not the clock: at the first start of a fresh box the clock may be years off, and so may a browser's.
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2049, 12, 31);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(StoredConsole {
        certificate_der: certificate.der().to_vec(),
        private_key_der: Zeroizing::new(key.serialize_der()),
    })
}

/// The key can be read, and the certificate is its own.
fn is_whole(stored: &StoredConsole) -> bool {
    let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &stored.private_key_der);
    key.is_ok_and(|key| {
        // The public key stands in the certificate in the very bytes in which the key pair gives it.
        let public_key = key.public_key().as_ref();
        stored.certificate_der.windows(public_key.len()).any(|bytes| bytes == public_key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        (folder, store)
    }

    #[test]
    fn it_stays_when_the_host_restarts_and_when_it_is_renamed() {
        let (folder, store) = store();
        let first = ConsoleIdentity::load_or_create(&store, "Sofa").unwrap().fingerprint();
        drop(store);
        let store = Store::open(&folder.path().join("state")).unwrap();
        let second = ConsoleIdentity::load_or_create(&store, "Kitchen").unwrap().fingerprint();
        assert_eq!(first, second);
        let text = first.to_string();
        assert!(text.len() == 95 && text.split(':').count() == 32, "{text}");
    }

    #[test]
    fn it_names_what_people_type() {
        let check = |name: &str, expected: &[&str]| {
            let made = ConsoleIdentity::in_memory(name).unwrap();
            let der = made.certificate_der();
            for text in expected {
                let text = text.as_bytes();
                assert!(der.windows(text.len()).any(|bytes| bytes == text), "{name}");
            }
        };
        check("Sofa", &["sofa.local", "punktfunk.local", "localhost"]);
        check("punktfunk", &["punktfunk.local"]);
        // What is no name in DNS is left out, and the certificate is made all the same.
        check("The big one; ü", &["punktfunk.local", "localhost"]);
        assert!(["", "-a", "a-", "a.b", "a b"].iter().all(|name| label(name).is_none()));
    }

    #[test]
    fn a_damaged_one_is_replaced_and_the_devices_identity_is_another() {
        let (_folder, store) = store();
        let first = ConsoleIdentity::load_or_create(&store, "box").unwrap();
        let other = ConsoleIdentity::in_memory("box").unwrap();
        assert_ne!(first.fingerprint(), other.fingerprint());
        let mixed = StoredConsole {
            certificate_der: first.certificate_der().to_vec(),
            private_key_der: Zeroizing::new(other.private_key_der().to_vec()),
        };
        store.put_console_identity(&mixed).unwrap();
        let made = ConsoleIdentity::load_or_create(&store, "box").unwrap();
        assert_ne!(made.fingerprint(), first.fingerprint());
        let kept = ConsoleIdentity::load_or_create(&store, "box").unwrap();
        assert_eq!(made.fingerprint(), kept.fingerprint());
        assert!(store.identity().unwrap().is_none());
    }

    #[test]
    fn nothing_secret_is_printed() {
        let text = format!("{:?}", ConsoleIdentity::in_memory("box").unwrap());
        assert!(text.contains("redacted") && text.len() < 250, "{text}");
    }
}
