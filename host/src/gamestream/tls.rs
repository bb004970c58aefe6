//! TLS for the HTTPS port: any client gets through the handshake, none without owning the key it shows.
//!
//! Clients probe with HTTPS before they are paired and must then be told 401 in a document, not cut off by an alert. So
//! the verifier asks for a certificate, takes any or none, and verifies one thing: that the handshake was signed by the
//! certificate's RSA-2048 key, read by a walker that takes what stock clients write. A certificate whose key cannot be
//! read proves nothing; it gets through as no certificate at all.
//!
//! Deliberately absent: chains, dates, names (nobody looks at them), session resumption (every connection shows its
//! certificate), a list of authorities, HTTP/2.

use std::sync::Arc;

use punktfunk_core::gamestream::certificate::{Certificate, RsaScheme};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme, version,
};

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The host's certificate and key do not make a server.
    #[error("the host's certificate and key cannot serve TLS: {0}")]
    Identity(#[source] Error),
}

/// A client's certificate, exactly as it was shown, whose key signed the handshake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenCertificate(Vec<u8>);

impl ProvenCertificate {
    /// The DER bytes.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// As if it had been proven.
    #[cfg(test)]
    pub(super) fn assumed(der: &[u8]) -> Self {
        Self(der.to_vec())
    }

    /// What the client of this connection proved to own; `None` before the handshake is over, and if it showed no
    /// certificate or one whose key cannot pair.
    pub fn of(connection: &ServerConnection) -> Option<Self> {
        let shown = connection.peer_certificates()?.first()?;
        // The verifier checked the handshake's signature with exactly those certificates that can be read.
        Certificate::from_der(shown).is_ok().then(|| Self(shown.to_vec()))
    }
}

/// The server side of TLS with this certificate and private key (PKCS#8), both DER.
///
/// # Errors
/// [`TlsError::Identity`] if they do not belong together or cannot be read.
// spec: gamestream 2.2
pub fn server_config(
    certificate: &[u8],
    private_key: &[u8],
) -> Result<Arc<ServerConfig>, TlsError> {
    let chain = vec![CertificateDer::from(certificate.to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(private_key.to_vec()));
    let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsError::Identity)?
        .with_client_cert_verifier(Arc::new(PossessionVerifier))
        .with_single_cert(chain, key)
        .map_err(TlsError::Identity)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Takes any certificate; insists that its key signed the handshake.
#[derive(Debug)]
struct PossessionVerifier;

impl ClientCertVerifier for PossessionVerifier {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        // TLS 1.3 knows PKCS#1 v1.5 only inside certificates.
        match scheme(signed.scheme) {
            Some(RsaScheme::PssSha256 | RsaScheme::PssSha384 | RsaScheme::PssSha512) => {
                verify(message, certificate, signed)
            }
            _ => Err(bad_signature()),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
            SignatureScheme::RSA_PKCS1_SHA256,
            SignatureScheme::RSA_PKCS1_SHA384,
            SignatureScheme::RSA_PKCS1_SHA512,
        ]
    }
}

fn verify(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signed: &DigitallySignedStruct,
) -> Result<HandshakeSignatureValid, Error> {
    // No certificate that cannot be read was ever paired, and `ProvenCertificate::of` treats it as absent.
    if let Ok(certificate) = Certificate::from_der(certificate) {
        let scheme = scheme(signed.scheme).ok_or_else(bad_signature)?;
        certificate.verify(scheme, message, signed.signature()).map_err(|_| bad_signature())?;
    }
    Ok(HandshakeSignatureValid::assertion())
}

fn scheme(scheme: SignatureScheme) -> Option<RsaScheme> {
    Some(match scheme {
        SignatureScheme::RSA_PKCS1_SHA256 => RsaScheme::Pkcs1Sha256,
        SignatureScheme::RSA_PKCS1_SHA384 => RsaScheme::Pkcs1Sha384,
        SignatureScheme::RSA_PKCS1_SHA512 => RsaScheme::Pkcs1Sha512,
        SignatureScheme::RSA_PSS_SHA256 => RsaScheme::PssSha256,
        SignatureScheme::RSA_PSS_SHA384 => RsaScheme::PssSha384,
        SignatureScheme::RSA_PSS_SHA512 => RsaScheme::PssSha512,
        _ => return None,
    })
}

fn bad_signature() -> Error {
    Error::InvalidCertificate(CertificateError::BadSignature)
}
