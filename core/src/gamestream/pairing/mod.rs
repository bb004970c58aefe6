//! Pairing: five steps that turn a PIN seen on two screens into a trusted certificate.
//!
//! One [`Attempt`] is an enum that carries just what its step needs; [`Attempt::step`] consumes it, so that no step can
//! be answered twice. The host's secret leaves only after the client committed itself to a hash, which leaves somebody
//! in the middle one guess at the PIN per attempt. Random bytes and the host's signature are arguments.
//!
//! Deliberately absent: who may try how often, time-outs, the trust store. They are the host's.

mod cipher;
pub mod client;

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::Zeroize;

pub use cipher::PinKey;

use super::certificate::{Certificate, CertificateError, MAX_PEM_BYTES, RsaScheme};
use super::query::{Query, QueryError};
use cipher::digest;

/// Length of `challengeresponse`: three blocks, never more (some clients have a buffer of 64 bytes).
// spec: gamestream 3.2
pub const CHALLENGE_RESPONSE_BYTES: usize = 48;
/// Length of `pairingsecret` and `clientpairingsecret`: a secret of 16 bytes and its signature.
// spec: gamestream 3.1
pub const PAIRING_SECRET_BYTES: usize = 16 + 256;

/// A request to `/pair`, read.
// spec: gamestream 3.1
#[derive(Clone, PartialEq, Eq)]
pub enum PairRequest {
    /// Step 1, `phrase=getservercert`.
    HostCertificate {
        /// The salt of the key.
        salt: [u8; 16],
        /// The client's certificate.
        certificate: Certificate,
    },
    /// Step 2, `clientchallenge`, encrypted.
    Challenge([u8; 16]),
    /// Step 3, `serverchallengeresp`, encrypted.
    ChallengeResponse([u8; 32]),
    /// Step 4, `clientpairingsecret`.
    Secret(Box<[u8; PAIRING_SECRET_BYTES]>),
    /// Step 5, `phrase=pairchallenge`.
    PairChallenge,
}

/// Why a request to `/pair` was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PairRequestError {
    /// It is no step of pairing.
    #[error("the request is none of the steps of pairing")]
    UnknownStep,
    /// A parameter is missing, malformed or of the wrong length.
    #[error(transparent)]
    Parameter(#[from] QueryError),
    /// The client's certificate cannot pair.
    #[error("the device's certificate cannot be used: {0}")]
    Certificate(#[from] CertificateError),
}

impl PairRequest {
    /// Reads the parameters of a request to `/pair`.
    ///
    /// # Errors
    /// See [`PairRequestError`].
    // spec: gamestream 3.1, 3.2
    pub fn read(query: &Query) -> Result<Self, PairRequestError> {
        match query.get("phrase") {
            Some("getservercert") => {
                let salt = fixed(query, "salt", "32 hex digits")?;
                let text = query.hex("clientcert", MAX_PEM_BYTES)?;
                return Ok(Self::HostCertificate {
                    salt,
                    certificate: Certificate::from_pem(&text)?,
                });
            }
            Some("pairchallenge") => return Ok(Self::PairChallenge),
            _ => {}
        }
        if query.get("clientchallenge").is_some() {
            return Ok(Self::Challenge(fixed(query, "clientchallenge", "32 hex digits")?));
        }
        if query.get("serverchallengeresp").is_some() {
            return Ok(Self::ChallengeResponse(fixed(
                query,
                "serverchallengeresp",
                "64 hex digits",
            )?));
        }
        if query.get("clientpairingsecret").is_some() {
            let secret = fixed(query, "clientpairingsecret", "544 hex digits")?;
            return Ok(Self::Secret(Box::new(secret)));
        }
        Err(PairRequestError::UnknownStep)
    }
}

impl fmt::Debug for PairRequest {
    /// The step only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HostCertificate { .. } => "HostCertificate",
            Self::Challenge(_) => "Challenge",
            Self::ChallengeResponse(_) => "ChallengeResponse",
            Self::Secret(_) => "Secret",
            Self::PairChallenge => "PairChallenge",
        })
    }
}

/// One attempt at pairing, between two steps.
// spec: gamestream 3.2, 3.4
#[derive(Debug)]
pub enum Attempt {
    /// The owner has not entered the PIN yet.
    AwaitPin {
        /// The client's certificate, trusted at the end.
        client: Certificate,
        /// The salt of the key.
        salt: [u8; 16],
    },
    /// The host's certificate was sent; step 2 is next.
    AwaitChallenge {
        /// The client's certificate.
        client: Certificate,
        /// The key from the PIN.
        key: PinKey,
    },
    /// Step 3 is next.
    AwaitResponse {
        /// The client's certificate.
        client: Certificate,
        /// The key from the PIN.
        key: PinKey,
        /// What the host drew.
        drawn: Drawn,
    },
    /// Step 4 is next.
    AwaitSecret {
        /// The client's certificate.
        client: Certificate,
        /// The host's challenge.
        challenge: [u8; 16],
        /// The hash the client committed itself to.
        committed: [u8; 32],
    },
    /// Over; nothing is answered any more.
    Ended,
}

/// The host's random bytes for one attempt; drawn afresh for each. Wiped when dropped, never printed.
#[derive(Clone)]
pub struct Drawn {
    /// `secret_s`.
    pub secret: [u8; 16],
    /// `chal_s`.
    pub challenge: [u8; 16],
}

impl Drop for Drawn {
    fn drop(&mut self) {
        self.secret.zeroize();
        self.challenge.zeroize();
    }
}

impl fmt::Debug for Drawn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Drawn(redacted)")
    }
}

/// The host's certificate and key, as far as pairing needs them.
pub struct HostSide<'a> {
    /// The certificate as PEM text.
    pub certificate_pem: &'a str,
    /// The signature field of the certificate.
    pub certificate_signature: &'a [u8],
    /// Signs with RSA PKCS#1 v1.5 and SHA-256; `None` if the key could not be used.
    pub sign: &'a dyn Fn(&[u8]) -> Option<Vec<u8>>,
}

/// What happens to an attempt.
#[derive(Debug)]
pub enum Event<'a> {
    /// The owner entered a PIN for it: four ASCII digits.
    Pin(&'a [u8; 4]),
    /// Step 2 came.
    Challenge {
        /// `clientchallenge`.
        challenge: [u8; 16],
        /// Fresh random bytes.
        drawn: Drawn,
    },
    /// Step 3 came.
    ChallengeResponse([u8; 32]),
    /// Step 4 came.
    Secret(&'a [u8; PAIRING_SECRET_BYTES]),
}

/// What the host answers or does after a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Reply to step 1 with this text, as hex digits, in `plaincert`.
    HostCertificate(String),
    /// Reply to step 2 with these bytes in `challengeresponse`.
    ChallengeResponse([u8; CHALLENGE_RESPONSE_BYTES]),
    /// Reply to step 3 with these bytes in `pairingsecret`.
    Secret(Box<[u8; PAIRING_SECRET_BYTES]>),
    /// Trust this certificate, and only then reply `paired` 1.
    Trust(Certificate),
    /// Reply `paired` 0; the attempt is over.
    Refuse(RefuseReason),
}

/// Why an attempt ended without trust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefuseReason {
    /// The step is not the next one.
    #[error("a step of pairing came out of order")]
    Order,
    /// The client's hash does not fit the PIN that was entered.
    #[error("the PIN was wrong")]
    WrongPin,
    /// The client knew the PIN but does not own its certificate.
    #[error("the device did not prove that it owns its certificate")]
    Signature,
    /// The host could not sign.
    #[error("the host could not sign with its key")]
    Local,
}

impl Attempt {
    /// An attempt that waits for the owner, after step 1.
    pub fn begin(salt: [u8; 16], client: Certificate) -> Self {
        Self::AwaitPin { client, salt }
    }

    /// Takes one step. Whatever is not the next step ends the attempt.
    // spec: gamestream 3.1, 3.2, 3.4
    pub fn step(self, event: Event<'_>, host: &HostSide<'_>) -> (Self, Answer) {
        match (self, event) {
            (Self::AwaitPin { client, salt }, Event::Pin(pin)) => {
                let key = PinKey::derive(&salt, pin);
                let answer = Answer::HostCertificate(host.certificate_pem.to_owned());
                (Self::AwaitChallenge { client, key }, answer)
            }
            (Self::AwaitChallenge { client, key }, Event::Challenge { challenge, drawn }) => {
                let answer = challenge_response(&key, challenge, &drawn, host);
                (Self::AwaitResponse { client, key, drawn }, Answer::ChallengeResponse(answer))
            }
            (Self::AwaitResponse { client, key, drawn }, Event::ChallengeResponse(response)) => {
                let Some(secret) = signed_secret(&drawn.secret, host) else {
                    return (Self::Ended, Answer::Refuse(RefuseReason::Local));
                };
                let (challenge, committed) = (drawn.challenge, key.decrypt(response));
                (Self::AwaitSecret { client, challenge, committed }, Answer::Secret(secret))
            }
            (Self::AwaitSecret { client, challenge, committed }, Event::Secret(secret)) => {
                (Self::Ended, judge(client, challenge, committed, secret))
            }
            _ => (Self::Ended, Answer::Refuse(RefuseReason::Order)),
        }
    }
}

fn challenge_response(
    key: &PinKey,
    challenge: [u8; 16],
    drawn: &Drawn,
    host: &HostSide<'_>,
) -> [u8; CHALLENGE_RESPONSE_BYTES] {
    let hash = digest(&[&key.decrypt(challenge), host.certificate_signature, &drawn.secret]);
    let mut plain = [0; CHALLENGE_RESPONSE_BYTES];
    plain[..32].copy_from_slice(&hash);
    plain[32..].copy_from_slice(&drawn.challenge);
    key.encrypt(plain)
}

fn signed_secret(
    secret: &[u8; 16],
    host: &HostSide<'_>,
) -> Option<Box<[u8; PAIRING_SECRET_BYTES]>> {
    let signature = (host.sign)(secret).filter(|signature| signature.len() == 256)?;
    let mut bytes = Box::new([0; PAIRING_SECRET_BYTES]);
    bytes[..16].copy_from_slice(secret);
    bytes[16..].copy_from_slice(&signature);
    Some(bytes)
}

/// Step 4: the hash says whether the PINs were equal, the signature whether the client owns its certificate.
fn judge(
    client: Certificate,
    challenge: [u8; 16],
    committed: [u8; 32],
    secret: &[u8; PAIRING_SECRET_BYTES],
) -> Answer {
    let (secret, signature) = secret.split_at(16);
    let expected = digest(&[&challenge, client.signature(), secret]);
    let owns_key = client.verify(RsaScheme::Pkcs1Sha256, secret, signature).is_ok();
    if !bool::from(expected.ct_eq(&committed)) {
        Answer::Refuse(RefuseReason::WrongPin)
    } else if !owns_key {
        Answer::Refuse(RefuseReason::Signature)
    } else {
        Answer::Trust(client)
    }
}

/// A parameter of exactly `N` bytes as hex digits.
fn fixed<const N: usize>(
    query: &Query,
    name: &'static str,
    expected: &'static str,
) -> Result<[u8; N], QueryError> {
    let bytes = query.hex(name, N)?;
    <[u8; N]>::try_from(&bytes[..]).map_err(|_| QueryError::Malformed { name, expected })
}

#[cfg(test)]
mod tests;
