//! Root's program for updates, asked over D-Bus.
//!
//! It is started by the bus when it is asked, and ends when it has had nothing to do for a while. A call blocks until it
//! is answered, on a small runtime of its own; what the program says meanwhile of how far it is goes to the caller. Whoever
//! cancels has the program asked to stop, again and again until it answers: the question may come before the work has
//! begun. A program that dies, or a bus that does, is an error at once, because the bus says so; one that hangs is given
//! up after a limit.
//!
//! Nothing is kept between calls: an update a month is not worth a connection.

use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use zbus::connection::Builder;
use zbus::zvariant::Type;
use zbus::{Connection, Proxy, fdo};

use super::refused::{self, NOT_ALLOWED};
use crate::os::release::bounded;
use crate::os::{Cancel, OsError};

const NAME: &str = "org.punktfunk.Os1";
const PATH: &str = "/org/punktfunk/Os1";
/// Its errors carry a word of JSON.
const ERROR: &str = "org.punktfunk.Os1.Error";

/// The bus itself answers within this time, or does not.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Whoever is asked to stop does so within this time.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// So often is it asked.
const STOP_AGAIN: Duration = Duration::from_millis(500);

/// The bus on which the program answers.
#[derive(Debug, Clone, Default)]
pub struct Bus {
    address: Option<String>,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    /// The method.
    pub(super) method: &'static str,
    /// What the host is about then, after "the host could not".
    pub(super) doing: &'static str,
    /// So long may it take, or say nothing of how far it is.
    pub(super) limit: Duration,
}

/// Told how much of something is there, and how much it will be, in bytes.
pub(super) type Progress<'a> = &'a mut dyn FnMut(u64, u64);

impl Bus {
    /// Another bus than the system's, by its address.
    pub fn at(address: impl Into<String>) -> Self {
        Self { address: Some(address.into()) }
    }

    /// Asks, and waits for the answer. `commit` is what progress is told of.
    ///
    /// # Errors
    /// The program refuses, fails, or is not there; [`OsError::Stopped`] when it was cancelled before.
    pub(super) fn ask<Q, A>(
        &self,
        question: Question,
        body: &Q,
        commit: &str,
        progress: Progress<'_>,
        cancel: &Cancel,
    ) -> Result<A, OsError>
    where
        Q: Serialize + Type,
        A: DeserializeOwned + Type,
    {
        if cancel.is_cancelled() {
            return Err(OsError::Stopped);
        }
        let doing = question.doing;
        let answer = run(doing, async {
            let connection = self.connect(doing).await?;
            let conversation = Conversation { connection: &connection, question, commit };
            conversation.lead(body, progress, cancel).await
        })?;
        let read = answer.body().deserialize();
        read.map_err(|error| {
            let why = bounded(&error.to_string());
            let detail = format!("the answer of the box's own program is not understood: {why}");
            OsError::Failed { doing, detail }
        })
    }

    /// Has the program started, so that it says what there is.
    ///
    /// # Errors
    /// It is not there.
    pub(super) fn wake(&self) -> Result<(), OsError> {
        let question = Question {
            method: "StartServiceByName",
            doing: "start the box's own program for updates",
            limit: CONNECT_LIMIT,
        };
        run(question.doing, async {
            let connection = self.connect(question.doing).await?;
            let conversation = Conversation { connection: &connection, question, commit: "" };
            match timeout(CONNECT_LIMIT, start(&connection)).await {
                Ok(started) => started.map_err(|error| conversation.failed(&error)),
                Err(_) => Err(conversation.silent(false)),
            }
        })
    }

    async fn connect(&self, doing: &'static str) -> Result<Connection, OsError> {
        let builder = match &self.address {
            Some(address) => Builder::address(address.as_str()),
            None => Builder::system(),
        };
        let why = match timeout(CONNECT_LIMIT, builder.build()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => bounded(&error.to_string()),
            Err(_) => format!("it said nothing for {} s", CONNECT_LIMIT.as_secs()),
        };
        Err(OsError::Failed { doing, detail: format!("the system's bus does not answer: {why}") })
    }
}

/// Runs it on this thread alone.
fn run<T>(
    doing: &'static str,
    what: impl Future<Output = Result<T, OsError>>,
) -> Result<T, OsError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let failed = |error: std::io::Error| OsError::Failed { doing, detail: error.to_string() };
    runtime.map_err(failed)?.block_on(what)
}

async fn start(connection: &Connection) -> zbus::Result<()> {
    let bus = fdo::DBusProxy::new(connection).await?;
    bus.start_service_by_name(NAME.try_into()?, 0).await?;
    Ok(())
}

/// One question, until it is answered.
struct Conversation<'a> {
    connection: &'a Connection,
    question: Question,
    commit: &'a str,
}

impl Conversation<'_> {
    async fn lead<Q: Serialize + Type>(
        &self,
        body: &Q,
        progress: Progress<'_>,
        cancel: &Cancel,
    ) -> Result<zbus::Message, OsError> {
        let Question { method, limit, .. } = self.question;
        let proxy = Proxy::new(self.connection, NAME, PATH, NAME);
        let proxy = proxy.await.map_err(|error| self.failed(&error))?;
        let signals = proxy.receive_signal("Progress").await;
        let mut signals = signals.map_err(|error| self.failed(&error))?;
        let mut answer = pin!(proxy.call_method(method, body));
        let mut until = Instant::now() + limit;
        let mut stopping = false;
        let mut again = interval(STOP_AGAIN);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // How far it is comes before the answer, and is told before it.
                biased;
                Some(signal) = signals.next() => {
                    let said = signal.body().deserialize::<(String, u64, u64)>();
                    let Ok((commit, done_bytes, total_bytes)) = said else { continue };
                    if commit != self.commit {
                        continue;
                    }
                    progress(done_bytes, total_bytes);
                    if !stopping {
                        until = Instant::now() + limit;
                    }
                }
                answer = &mut answer => return answer.map_err(|error| self.failed(&error)),
                () = cancel.asked(), if !stopping => {
                    stopping = true;
                    until = Instant::now() + STOP_LIMIT;
                }
                _ = again.tick(), if stopping => self.stop(&proxy).await,
                () = sleep_until(until) => {
                    self.stop(&proxy).await;
                    return Err(self.silent(stopping));
                }
            }
        }
    }

    /// Has it stop. What comes of that its answer says.
    async fn stop(&self, proxy: &Proxy<'_>) {
        if let Err(error) = proxy.call_noreply("Cancel", &()).await {
            tracing::debug!(%error, "the box's own program could not be asked to stop");
        }
    }

    fn silent(&self, stopping: bool) -> OsError {
        let (limit, what) = match stopping {
            true => (STOP_LIMIT, "stop"),
            false => (self.question.limit, "answer"),
        };
        let detail = format!("the box's own program did not {what} within {} s", limit.as_secs());
        OsError::Failed { doing: self.question.doing, detail }
    }

    fn failed(&self, error: &zbus::Error) -> OsError {
        let doing = self.question.doing;
        let detail = match error {
            zbus::Error::MethodError(name, word, _) if name.as_str() == ERROR => {
                return refused::parse(word.as_deref().unwrap_or_default(), doing);
            }
            zbus::Error::FDO(error) => match &**error {
                fdo::Error::AccessDenied(_)
                | fdo::Error::AuthFailed(_)
                | fdo::Error::InteractiveAuthorizationRequired(_) => NOT_ALLOWED.to_owned(),
                // The bus answers in the place of whoever is gone.
                fdo::Error::NoReply(_) | fdo::Error::Disconnected(_) => {
                    "the box's own program ended before it had answered".to_owned()
                }
                fdo::Error::ServiceUnknown(_) | fdo::Error::NameHasNoOwner(_) => {
                    "the box's own program for updates is not there".to_owned()
                }
                error => format!("the box's own program cannot be asked: {error}"),
            },
            zbus::Error::InputOutput(error) => format!("the system's bus is gone: {error}"),
            error => format!("the box's own program cannot be asked: {error}"),
        };
        OsError::Failed { doing, detail: bounded(&detail) }
    }
}
