//! Whether the console answers: its page, and two calls of its API, over HTTPS as a browser makes them.
//!
//! The console's certificate is signed by nobody, so it is known by the fingerprint that the local socket tells. Where
//! that cannot be asked, any certificate is taken, and the answer says so: the address is one of this machine itself, and
//! what is looked for is a console that does not answer, not somebody who pretends to be one. A host that starts, or is
//! slow, is waited for; one that answers 5xx, or says that no client could play, is not. As long as the local socket says
//! that it starts, the console is not asked: what it has to do then is to get ready.
//!
//! Deliberately absent: logging in. What only an owner may ask is not asked.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

use super::device::{Pin, tls_of_a_browser};
use super::http::{connect, printable};
use crate::mgmt::client::{Client, ClientError};
use crate::mgmt::wire::{Health, Landing, Stage};

/// No answer takes longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// A host that is not there yet is asked again after this time: a second is little of a start, and asking costs one that
/// is busy.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

const PAGE: &str = "/";
const LANDING: &str = "/api/v1/landing";
const HEALTH: &str = "/api/v1/health";

/// What is checked, and how long a host may take to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the console is, on this machine.
    pub address: SocketAddr,
    /// The host's local socket; `None` looks for it.
    pub socket: Option<PathBuf>,
    /// A host that starts, or is not there yet, is waited for so long.
    pub patience: Duration,
}

/// Why it is not green.
enum Trouble {
    /// It may be, in a moment.
    NotYet(String),
    /// It is not.
    Red(String),
}

/// Asks. Gives what was found, in one line; blocks for at most [`Options::patience`] and some ten seconds, and for half
/// a minute more if the local socket is silent.
///
/// # Errors
/// Why the console is not as it should be, in one line.
pub fn check(options: &Options) -> Result<String, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| format!("no runtime could be started: {error}"))?;
    let until = Instant::now() + options.patience;
    loop {
        match round(options, &runtime) {
            Ok(found) => return Ok(format!("https://{} answers: {found}", options.address)),
            Err(Trouble::NotYet(_)) if Instant::now() < until => std::thread::sleep(PAUSE),
            Err(Trouble::NotYet(reason)) => {
                return Err(format!("{reason} (waited {} s)", options.patience.as_secs()));
            }
            Err(Trouble::Red(reason)) => return Err(reason),
        }
    }
}

/// Asks for all, once.
fn round(options: &Options, runtime: &Runtime) -> Result<String, Trouble> {
    // The local socket opens before the console does: where this one is open, that one can be asked.
    let knock = runtime.block_on(connect(options.address));
    drop(knock.map_err(|error| Trouble::NotYet(error.to_string()))?);
    let told = told(options);
    if let Ok(Landing { stage: stage @ Stage::Starting { .. }, .. }) = &told {
        started(stage)?;
    }
    let unknown = || "the host does not say which one it has".to_owned();
    let (pin, compared) = match told.and_then(|told| told.fingerprint.ok_or_else(unknown)) {
        Ok(fingerprint) => {
            (Pin::Fingerprint(fingerprint), "its certificate is the host's".to_owned())
        }
        Err(why) => (Pin::DangerousAny, format!("its certificate was not compared: {why}")),
    };
    let tls = tls_of_a_browser(pin).map_err(|error| Trouble::Red(error.to_string()))?;
    let found = runtime.block_on(Caller { address: options.address, tls }.ask_all())?;
    Ok(format!("{found}; {compared}"))
}

/// What the host says of itself where nobody can listen: how far it is, and which certificate the console has.
fn told(options: &Options) -> Result<Landing, String> {
    let host = match &options.socket {
        Some(socket) => Client::at(socket),
        None => Client::find(),
    };
    host.and_then(|host| host.landing()).map_err(|error: ClientError| {
        // Of several lines, the first says it.
        printable(error.to_string().lines().next().unwrap_or_default())
    })
}

/// Whether it has started.
fn started(stage: &Stage) -> Result<(), Trouble> {
    match stage {
        Stage::Ready => Ok(()),
        Stage::Starting { step, count, doing } => {
            let doing = printable(doing);
            let reason = format!("the host is still starting: step {step} of {count}, {doing}");
            Err(Trouble::NotYet(reason))
        }
        Stage::Failed { reason } => {
            let reason = printable(reason);
            Err(Trouble::Red(format!("the host cannot stream: {reason}")))
        }
    }
}

/// Whoever asks.
struct Caller {
    address: SocketAddr,
    tls: Arc<ClientConfig>,
}

/// An answer that is there.
struct Answer {
    path: &'static str,
    status: StatusCode,
    body: Bytes,
}

impl Caller {
    /// What it says of itself.
    async fn ask_all(&self) -> Result<String, Trouble> {
        let landing = self.ask(LANDING).await?.good()?;
        let landing: Landing = landing.json()?;
        started(&landing.stage)?;
        let page = self.ask(PAGE).await?.good()?;
        if page.body.is_empty() {
            return Err(Trouble::Red("the page is empty".to_owned()));
        }
        let health = self.ask(HEALTH).await?;
        if health.status == StatusCode::SERVICE_UNAVAILABLE
            && let Ok(told) = serde_json::from_slice::<Health>(&health.body)
        {
            return Err(Trouble::Red(format!("{HEALTH}: {}", printable(&told.detail))));
        }
        let health: Health = health.good()?.json()?;
        if !health.healthy {
            return Err(Trouble::Red(format!("{HEALTH}: {}", printable(&health.detail))));
        }
        Ok(format!(
            "{PAGE}, {LANDING} and {HEALTH}; punktfunk {} is ready",
            printable(&landing.version)
        ))
    }

    async fn ask(&self, path: &'static str) -> Result<Answer, Trouble> {
        let asked = tokio::time::timeout(ANSWER_LIMIT, self.exchange(path)).await;
        // A machine that is just starting may be that slow.
        asked.map_err(|_| {
            Trouble::NotYet(format!("{path} was not answered in {} s", ANSWER_LIMIT.as_secs()))
        })?
    }

    async fn exchange(&self, path: &'static str) -> Result<Answer, Trouble> {
        // Nobody listens yet.
        let stream =
            connect(self.address).await.map_err(|error| Trouble::NotYet(error.to_string()))?;
        // An address as the server's name sends none.
        let stream = TlsConnector::from(Arc::clone(&self.tls))
            .connect(ServerName::from(self.address.ip()), stream)
            .await
            .map_err(|error| {
                let reason = format!("TLS with {} failed: {error}", self.address);
                // Another certificate does not become the right one; a host that begins again does.
                let is_wrong = error.kind() == std::io::ErrorKind::InvalidData;
                if is_wrong { Trouble::Red(reason) } else { Trouble::NotYet(reason) }
            })?;
        let broken = |error: &dyn std::fmt::Display| Trouble::Red(format!("{path}: {error}"));
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        connection.abort();
        let body = body.map_err(|error| broken(&error))?.to_bytes();
        Ok(Answer { path, status, body })
    }
}

impl Answer {
    /// Only 200 is good. Whoever is told to come back later does.
    fn good(self) -> Result<Self, Trouble> {
        let Self { path, status, body } = &self;
        if *status == StatusCode::OK {
            return Ok(self);
        }
        let said = printable(String::from_utf8_lossy(body).trim());
        let reason = format!("{path} was answered {status}: {said}");
        Err(match *status {
            StatusCode::TOO_MANY_REQUESTS => Trouble::NotYet(reason),
            _ => Trouble::Red(reason),
        })
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> Result<T, Trouble> {
        let path = self.path;
        serde_json::from_slice(&self.body)
            .map_err(|error| Trouble::Red(format!("{path} is not what it should be: {error}")))
    }
}
