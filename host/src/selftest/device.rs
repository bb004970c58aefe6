//! The client's key and certificate, made for one run, and the TLS it does with them.
//!
//! A stock client's certificate is RSA-2048, self-signed, with serial number 0; so is this one. The host is known by the
//! one certificate that it showed while pairing, and by nothing else.

use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use punktfunk_core::gamestream::certificate::encode_pem;
use punktfunk_core::gamestream::query::encode_hex;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_RSA_SHA256, RsaKeySize,
    SerialNumber,
};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme, version,
};
use zeroize::Zeroizing;

/// The key or the certificate could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Making them failed.
    #[error("no key and certificate could be made: {0}")]
    Make(#[from] rcgen::Error),
    /// The key does not sign.
    #[error("the key does not sign")]
    Sign,
    /// TLS does not take them.
    #[error("TLS does not take the certificate: {0}")]
    Tls(#[from] Error),
}

/// A key and its certificate.
#[derive(Clone)]
pub struct Device {
    /// The certificate, DER.
    pub certificate: Vec<u8>,
    /// The private key, PKCS#8.
    pub key: Zeroizing<Vec<u8>>,
}

impl Device {
    /// Like a stock client's; takes up to a second.
    ///
    /// # Errors
    /// [`DeviceError::Make`].
    pub fn stock() -> Result<Self, DeviceError> {
        Self::of(&rsa_key()?, |_| {})
    }

    /// Like a stock client's but for what `change` does, for this key.
    ///
    /// # Errors
    /// [`DeviceError::Make`].
    pub fn of(
        key: &KeyPair,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Result<Self, DeviceError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "NVIDIA GameStream Client");
        params.serial_number = Some(SerialNumber::from(0));
        change(&mut params);
        let certificate = params.self_signed(key)?.der().to_vec();
        Ok(Self { certificate, key: key.serialize_der().into() })
    }

    /// A PKCS#1 v1.5 signature with SHA-256.
    ///
    /// # Errors
    /// [`DeviceError::Sign`].
    pub fn sign(&self, message: &[u8]) -> Result<[u8; 256], DeviceError> {
        let key = RsaKeyPair::from_pkcs8(&self.key).map_err(|_| DeviceError::Sign)?;
        let mut signature = [0; 256];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| DeviceError::Sign)?;
        Ok(signature)
    }

    /// The certificate as pairing sends it: the hex digits of its PEM text.
    pub fn pem_hex(&self) -> String {
        encode_hex(encode_pem(&self.certificate).as_bytes())
    }

    /// TLS with this certificate towards the host with that one.
    ///
    /// # Errors
    /// [`DeviceError::Tls`].
    pub fn tls(&self, host_certificate: Vec<u8>) -> Result<Arc<ClientConfig>, DeviceError> {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.to_vec()));
        let config = ClientConfig::builder_with_provider(provider::default_provider().into())
            .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pin::Certificate(host_certificate)))
            .with_client_auth_cert(vec![CertificateDer::from(self.certificate.clone())], key)?;
        Ok(Arc::new(config))
    }
}

/// A new key of the only kind that pairs.
///
/// # Errors
/// The system gave no random numbers.
pub fn rsa_key() -> Result<KeyPair, rcgen::Error> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)
}

/// TLS with nothing to show, towards a server that is known like this.
///
/// # Errors
/// [`DeviceError::Tls`].
pub fn tls_of_a_browser(server: Pin) -> Result<Arc<ClientConfig>, DeviceError> {
    let config = ClientConfig::builder_with_provider(provider::default_provider().into())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(server))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Takes one certificate that it knows, alone, whoever signed it, as stock clients do.
#[derive(Debug, Clone)]
pub enum Pin {
    /// Exactly this one, DER.
    Certificate(Vec<u8>),
    /// The one whose DER bytes have this SHA-256, written `AB:CD:..`.
    Fingerprint(String),
    /// Whichever comes: for an address of this machine itself, where nobody else answers.
    DangerousAny,
}

impl Pin {
    fn takes(&self, certificate: &[u8]) -> bool {
        match self {
            Self::Certificate(known) => certificate == known.as_slice(),
            Self::Fingerprint(known) => {
                let digest = digest(&SHA256, certificate);
                let pairs = digest.as_ref().iter().map(|byte| format!("{byte:02X}"));
                pairs.collect::<Vec<_>>().join(":") == *known
            }
            Self::DangerousAny => true,
        }
    }
}

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if intermediates.is_empty() && self.takes(end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
