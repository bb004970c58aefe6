//! The other end of the socket, for the command line: finds the host by itself and says what to do if it cannot.
//!
//! The calls block; they are made from plain threads, not from async code.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::socket::SocketEnvironment;
use super::wire::{
    self, Answer, Arm, AskPermit, Decline, Landing, Pairing, PinText, ProblemDetails, Rename,
    SelfTestPermit, SelfTestPin, Session, StatusReport, Trace,
};
use crate::health::Finding;

/// The largest answer that is read, in bytes: a session's traces are the longest.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
/// How long any call may take beside the time it was told to wait.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The host ends a check after 25 seconds at the latest; those of other doctors come before it.
const LONGEST_CHECK: Duration = Duration::from_secs(120);

/// A host that starts is asked again after this time.
const STARTING_PAUSE: Duration = Duration::from_millis(100);

/// The host lets a caller wait no longer than this for news.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No host answers.
    #[error(
        "no host is running here (looked for {}): start it with ci/start, or, where it is \
         installed, with: systemctl start punktfunk-host",
        list(tried)
    )]
    NotRunning {
        /// Where one was looked for.
        tried: Vec<PathBuf>,
    },
    /// A host is there and does not let this user in.
    #[error("the host at {} does not let this user in; try again with sudo", path.display())]
    Denied {
        /// Its socket.
        path: PathBuf,
    },
    /// The host answered with an error.
    #[error("{}", .0.detail)]
    Problem(ProblemDetails),
    /// The connection broke, or the answer cannot be understood.
    #[error("talking to the host failed: {0}")]
    Transport(String),
}

/// A host that answers.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// Finds the host that runs on this machine.
    ///
    /// # Errors
    /// None runs, or none lets this user in.
    pub fn find() -> Result<Self, ClientError> {
        Self::find_in(&SocketEnvironment::of_process())
    }

    /// Finds the host at one of the places that `environment` names.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub fn find_in(environment: &SocketEnvironment) -> Result<Self, ClientError> {
        let tried = environment.candidates();
        let mut denied = None;
        for path in &tried {
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(_) => return Self::at(path),
                Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                    denied.get_or_insert_with(|| path.clone());
                }
                Err(_) => {}
            }
        }
        Err(match denied {
            Some(path) => ClientError::Denied { path },
            None => ClientError::NotRunning { tried },
        })
    }

    /// The host with this socket; nothing is asked yet.
    ///
    /// # Errors
    /// The system is out of resources.
    pub fn at(socket: &Path) -> Result<Self, ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| ClientError::Transport(error.to_string()))?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Who the host is, and how far.
    ///
    /// # Errors
    /// See [`ClientError`], as for all calls.
    pub fn landing(&self) -> Result<Landing, ClientError> {
        self.read("/api/v1/landing")
    }

    /// How the host is doing.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn status(&self) -> Result<StatusReport, ClientError> {
        self.read("/api/v1/status")
    }

    /// The pairing desk.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn pairing(&self) -> Result<Pairing, ClientError> {
        self.read("/api/v1/pairing")
    }

    /// The pairing desk once it has another revision than `after`, or, unchanged, after `wait` (at most a minute).
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn pairing_after(&self, after: u64, wait: Duration) -> Result<Pairing, ClientError> {
        let path = format!("/api/v1/pairing?after={after}&wait_s={}", wait.as_secs());
        self.call(Method::GET, &path, Bytes::new(), wait + CALL_TIMEOUT)
    }

    /// Gives a PIN to one request; says which one got it.
    ///
    /// # Errors
    /// Code `several-pending`, `nothing-pending`, `unknown-request` or `malformed-pin`; the PIN then reached nobody.
    pub fn answer(
        &self,
        request: Option<u64>,
        pin: &str,
        name: Option<&str>,
    ) -> Result<wire::Request, ClientError> {
        let name = name.map(str::to_owned);
        let answer = Answer { request, pin: PinText(pin.to_owned()), name };
        self.send(Method::POST, "/api/v1/pairing/answer", &answer)
    }

    /// How a request that got its PIN ended; `None` if it has not within `limit`, or ended so long ago that the host
    /// does not know any more.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn outcome(
        &self,
        request: u64,
        limit: Duration,
    ) -> Result<Option<wire::Finished>, ClientError> {
        let deadline = Instant::now() + limit;
        let mut pairing = self.pairing()?;
        loop {
            if let Some(finished) = pairing.recent.iter().find(|finished| finished.id == request) {
                return Ok(Some(finished.clone()));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left < Duration::from_secs(1) {
                return Ok(None);
            }
            pairing = self.pairing_after(pairing.revision, left.min(LONGEST_WAIT))?;
        }
    }

    /// Turns a request away.
    ///
    /// # Errors
    /// Code `unknown-request`.
    pub fn decline(&self, request: u64) -> Result<(), ClientError> {
        self.send(Method::POST, "/api/v1/pairing/decline", &Decline { request })
    }

    /// Opens pairing for a while; five minutes if nothing is said.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn arm(&self, window: Option<Duration>) -> Result<Pairing, ClientError> {
        let arm = Arm { seconds: window.map(|window| window.as_secs()) };
        self.send(Method::POST, "/api/v1/pairing/arm", &arm)
    }

    /// Closes pairing and turns all waiting requests away.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn disarm(&self) -> Result<Pairing, ClientError> {
        self.send(Method::POST, "/api/v1/pairing/disarm", &())
    }

    /// The paired clients.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn clients(&self) -> Result<Vec<wire::Client>, ClientError> {
        self.read("/api/v1/clients")
    }

    /// Trusts a client no more and ends what it has running.
    ///
    /// # Errors
    /// Code `unknown-client`.
    pub fn remove_client(&self, id: &str) -> Result<wire::Client, ClientError> {
        let path = client_path(id)?;
        self.call(Method::DELETE, &path, Bytes::new(), CALL_TIMEOUT)
    }

    /// Gives a client another name.
    ///
    /// # Errors
    /// Code `unknown-client`.
    pub fn rename_client(&self, id: &str, name: &str) -> Result<wire::Client, ClientError> {
        self.send(Method::PATCH, &client_path(id)?, &Rename { name: name.to_owned() })
    }

    /// What runs.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn sessions(&self) -> Result<Vec<Session>, ClientError> {
        self.read("/api/v1/sessions")
    }

    /// The newest frame traces of a session, oldest first.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn traces(&self, session: u64) -> Result<Vec<Trace>, ClientError> {
        self.read(&format!("/api/v1/sessions/{session}/traces"))
    }

    /// The names of the doctor's checks, in the order in which to make them.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn checks(&self) -> Result<Vec<String>, ClientError> {
        self.read("/api/v1/doctor")
    }

    /// Makes one of the doctor's checks.
    ///
    /// # Errors
    /// Code `unknown-check`.
    pub fn examine(&self, check: &str) -> Result<Finding, ClientError> {
        self.call(Method::POST, &format!("/api/v1/doctor/{check}"), Bytes::new(), LONGEST_CHECK)
    }

    /// Asks for the self-test's permit for the certificate with this id.
    ///
    /// # Errors
    /// Code `self-test-runs` or `already-paired`.
    pub fn permit_self_test(&self, client: &str) -> Result<SelfTestPermit, ClientError> {
        let ask = AskPermit { client: client.to_owned() };
        self.send(Method::POST, "/api/v1/selftest", &ask)
    }

    /// Keeps the self-test's permit alive and says how it stands.
    ///
    /// # Errors
    /// Code `unknown-self-test`: the permit is over.
    pub fn renew_self_test(&self, client: &str) -> Result<SelfTestPermit, ClientError> {
        self.send(Method::POST, &format!("/api/v1/selftest/{client}"), &())
    }

    /// Gives the self-test's own request its PIN.
    ///
    /// # Errors
    /// Code `unknown-self-test` or `nothing-pending`.
    pub fn answer_self_test(&self, client: &str, pin: &str) -> Result<(), ClientError> {
        let given = SelfTestPin { pin: PinText(pin.to_owned()) };
        self.send(Method::POST, &format!("/api/v1/selftest/{client}/pin"), &given)
    }

    /// Erases the self-test's identity and ends what it has running.
    ///
    /// # Errors
    /// Code `unknown-self-test`: it is over already.
    pub fn end_self_test(&self, client: &str) -> Result<(), ClientError> {
        let path = format!("/api/v1/selftest/{client}");
        self.call(Method::DELETE, &path, Bytes::new(), CALL_TIMEOUT)
    }

    fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path, Bytes::new(), CALL_TIMEOUT)
    }

    fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(transport)?;
        self.call(method, path, body.into(), CALL_TIMEOUT)
    }

    fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<T, ClientError> {
        let exchange = self.exchange_with_ready(method, path, body);
        let (status, body) = self
            .runtime
            .block_on(async { tokio::time::timeout(limit, exchange).await })
            .map_err(|_| ClientError::Transport(format!("no answer in {limit:?}")))??;
        if status.is_success() {
            // "No content" reads as JSON's null, which is Rust's unit.
            let body: &[u8] = if body.is_empty() { b"null" } else { &body };
            return serde_json::from_slice(body).map_err(transport);
        }
        if status == StatusCode::FORBIDDEN {
            return Err(ClientError::Denied { path: self.socket.clone() });
        }
        let problem = serde_json::from_slice(&body)
            .map_err(|_| ClientError::Transport(format!("the host answered {status}")))?;
        Err(ClientError::Problem(problem))
    }

    /// A host that has just been started is waited for: the door opens before the rest is there.
    async fn exchange_with_ready(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        loop {
            let (status, answer) = self.exchange(method.clone(), path, body.clone()).await?;
            let is_starting = status == StatusCode::SERVICE_UNAVAILABLE
                && serde_json::from_slice::<ProblemDetails>(&answer)
                    .is_ok_and(|problem| problem.code == "starting");
            if !is_starting {
                return Ok((status, answer));
            }
            tokio::time::sleep(STARTING_PAUSE).await;
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream =
            UnixStream::connect(&self.socket).await.map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => ClientError::Denied { path: self.socket.clone() },
                _ => ClientError::NotRunning { tried: vec![self.socket.clone()] },
            })?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(transport)?;
        let connection = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(transport)?;
        let response = sender.send_request(request).await.map_err(transport)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES)
            .collect()
            .await
            .map_err(transport)?
            .to_bytes();
        connection.abort();
        Ok((status, body))
    }
}

/// A path can only hold what an id is made of.
fn client_path(id: &str) -> Result<String, ClientError> {
    let id: crate::store::ClientId = id.trim().parse().map_err(transport)?;
    Ok(format!("/api/v1/clients/{id}"))
}

fn transport(error: impl ToString) -> ClientError {
    ClientError::Transport(error.to_string())
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
