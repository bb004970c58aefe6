//! From a stranger to a client: the five steps over plain HTTP and HTTPS, the PIN over the local socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::rand;
use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::pairing::PinKey;
use punktfunk_core::gamestream::pairing::client::{Challenged, ClientPairingError};
use punktfunk_core::gamestream::query::{decode_hex, encode_hex};
use rustls::ClientConfig;
use tokio::runtime::Runtime;

use super::device::{Device, DeviceError};
use super::http::{self, Document, HttpError};
use super::permit::Permit;
use crate::mgmt::client::ClientError;

/// How often it is looked whether the request has reached the desk.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Why the pairing failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PairingFailure {
    #[error("step {step}: {source}")]
    Http { step: u8, source: HttpError },
    #[error("step {step}: no answer in {} s", after.as_secs())]
    Silence { step: u8, after: Duration },
    #[error("step {step}: the host refused the pairing")]
    Refused { step: u8 },
    #[error("step {step}: the answer lacks {what}, or it is malformed")]
    Malformed { step: u8, what: &'static str },
    #[error("step {step}: {source}")]
    Broken { step: u8, source: ClientPairingError },
    #[error("the PIN could not be given: {0}")]
    Pin(ClientError),
    #[error("the request did not reach the pairing desk in {} s", .0.as_secs())]
    NoRequest(Duration),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the system gave no random numbers")]
    Randomness,
}

/// What the steps need.
pub(super) struct Pairing<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) http: SocketAddr,
    pub(super) device: &'a Device,
    pub(super) permit: &'a Permit,
    pub(super) unique_id: &'a str,
    pub(super) patience: Duration,
}

impl Pairing<'_> {
    /// Steps 1 to 4; returns the certificate of the host.
    // spec: gamestream 3.1
    pub(super) fn run(&self) -> Result<Certificate, PairingFailure> {
        let own = Certificate::from_der(&self.device.certificate)
            .map_err(|_| PairingFailure::Malformed { step: 1, what: "the own certificate" })?;
        let (salt, challenge, secret) = (random()?, random()?, random()?);
        let pin = random_pin()?;
        let first = format!(
            "phrase=getservercert&salt={}&clientcert={}",
            encode_hex(&salt),
            self.device.pem_hex()
        );
        let host = self.first(&first, &pin)?;

        let digits = pin.as_bytes().try_into().map_err(|_| PairingFailure::Randomness)?;
        let (client, sealed) = Challenged::begin(PinKey::derive(&salt, digits), challenge);
        let second = self.ask(2, &format!("clientchallenge={}", encode_hex(&sealed)))?;
        let response = hex(2, &second, "challengeresponse")?;
        let (client, answer) = client.answer(response, own.signature(), secret);
        let third = self.ask(3, &format!("serverchallengeresp={}", encode_hex(&answer)))?;
        let host_secret: [u8; 272] = hex(3, &third, "pairingsecret")?;
        let mut signed = Ok(());
        let own_secret = client
            .finish(&host_secret, &host, |message| match self.device.sign(message) {
                Ok(signature) => signature,
                Err(error) => {
                    signed = Err(error);
                    [0; 256]
                }
            })
            .map_err(|source| PairingFailure::Broken { step: 3, source })?;
        signed?;
        self.ask(4, &format!("clientpairingsecret={}", encode_hex(&own_secret)))?;
        Ok(host)
    }

    /// Step 5, over HTTPS: the host knows the certificate.
    pub(super) fn confirm(
        &self,
        https: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<(), PairingFailure> {
        let target = self.target("phrase=pairchallenge");
        self.exchange(5, https, Some(tls), &target).map(drop)
    }

    /// Step 1 waits for its PIN, which is given from another thread meanwhile.
    fn first(&self, parameters: &str, pin: &str) -> Result<Certificate, PairingFailure> {
        let over = AtomicBool::new(false);
        let (answer, given) = std::thread::scope(|scope| {
            let giving = scope.spawn(|| self.give(pin, &over));
            let answer = self.ask(1, parameters);
            over.store(true, Ordering::Release);
            let given = giving.join().unwrap_or(Err(PairingFailure::Randomness));
            (answer, given)
        });
        let document = match (answer, given) {
            (Ok(document), _) => document,
            // Without a PIN the host can only be silent: that is the cause.
            (Err(PairingFailure::Silence { .. }), Err(cause)) => return Err(cause),
            (Err(error), _) => return Err(error),
        };
        let malformed = || PairingFailure::Malformed { step: 1, what: "the host's certificate" };
        let pem = document.value("plaincert").and_then(decode_hex);
        Certificate::from_pem(&pem.ok_or_else(malformed)?).map_err(|_| malformed())
    }

    fn give(&self, pin: &str, over: &AtomicBool) -> Result<(), PairingFailure> {
        let began = Instant::now();
        while !over.load(Ordering::Acquire) && began.elapsed() < self.patience {
            let state = self.permit.state().map_err(PairingFailure::Pin)?;
            if state.request.is_some() {
                return self.permit.answer(pin).map_err(PairingFailure::Pin);
            }
            std::thread::park_timeout(LOOK_AGAIN);
        }
        Err(PairingFailure::NoRequest(began.elapsed()))
    }

    fn target(&self, parameters: &str) -> String {
        format!("/pair?uniqueid={}&devicename=roth&updateState=1&{parameters}", self.unique_id)
    }

    fn ask(&self, step: u8, parameters: &str) -> Result<Document, PairingFailure> {
        self.exchange(step, self.http, None, &self.target(parameters))
    }

    fn exchange(
        &self,
        step: u8,
        to: SocketAddr,
        tls: Option<&Arc<ClientConfig>>,
        target: &str,
    ) -> Result<Document, PairingFailure> {
        let exchange = http::get(to, tls, target);
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(self.patience, exchange).await })
            .map_err(|_| PairingFailure::Silence { step, after: self.patience })?;
        let document = answer
            .and_then(|document| document.accepted("/pair"))
            .map_err(|source| PairingFailure::Http { step, source })?;
        match document.value("paired") {
            Some("1") => Ok(document),
            _ => Err(PairingFailure::Refused { step }),
        }
    }
}

/// An element of exactly `N` bytes in hex.
fn hex<const N: usize>(
    step: u8,
    document: &Document,
    what: &'static str,
) -> Result<[u8; N], PairingFailure> {
    let bytes = document.value(what).and_then(decode_hex);
    bytes
        .and_then(|bytes| bytes.as_slice().try_into().ok())
        .ok_or(PairingFailure::Malformed { step, what })
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], PairingFailure> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| PairingFailure::Randomness)?;
    Ok(bytes)
}

fn random_pin() -> Result<String, PairingFailure> {
    let number = u32::from_le_bytes(random()?);
    Ok(format!("{:04}", number % 10_000))
}
