//! Somebody on the bus who asks the service.

use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use punktfunk_update::error::UpdateError;
use punktfunk_update::service::{ERROR, NAME, PATH};
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use zbus::export::serde::Serialize;
use zbus::zvariant::Type;
use zbus::{Connection, Message, Proxy};

/// A connection of its own. Dropping it goes from the bus.
pub struct Client {
    runtime: Runtime,
    connection: Connection,
    progress: Receiver<Told>,
}

/// What was told of progress, and when that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub at: Instant,
    /// Of which system.
    pub commit: String,
    /// As much is there, in bytes.
    pub done: u64,
    /// As much it will be, in bytes.
    pub total: u64,
}

/// A question that was asked and is not answered yet.
pub struct Pending<'a> {
    client: &'a Client,
    answer: JoinHandle<zbus::Result<Message>>,
}

impl Client {
    /// On a thread of its own, because a user is a thread's.
    pub(crate) fn of_user(bus: &str, uid: u32) -> Self {
        let act = || {
            let (uid, root) = (Uid::from_raw(uid), Uid::ROOT);
            set_thread_res_uid(uid, uid, root).unwrap();
            Self::new(bus)
        };
        thread::scope(|scope| scope.spawn(act).join().unwrap())
    }

    pub(crate) fn new(bus: &str) -> Self {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let connection = runtime
            .block_on(async { zbus::connection::Builder::address(bus).build().await.unwrap() });
        let signals = runtime.block_on(async {
            let proxy = Proxy::new(&connection, NAME, PATH, NAME).await.unwrap();
            proxy.receive_signal("Progress").await.unwrap()
        });
        let (told, progress) = mpsc::channel();
        runtime.spawn(async move {
            let mut signals = signals;
            while let Some(signal) = crate::bus::next(&mut signals).await {
                let (commit, done, total) = signal.body().deserialize().unwrap();
                let at = Instant::now();
                if told.send(Told { at, commit, done, total }).is_err() {
                    return;
                }
            }
        });
        Self { runtime, connection, progress }
    }

    /// Asks; [`Pending::answer`] waits.
    pub fn ask<B>(&self, method: &'static str, body: B) -> Pending<'_>
    where
        B: Serialize + Type + Send + Sync + 'static,
    {
        let connection = self.connection.clone();
        let answer = self.runtime.spawn(async move {
            connection.call_method(Some(NAME), PATH, Some(NAME), method, &body).await
        });
        Pending { client: self, answer }
    }

    /// Asks, and waits for the answer; empty where there is nothing to say.
    pub fn call<B>(&self, method: &'static str, body: B) -> Result<String, UpdateError>
    where
        B: Serialize + Type + Send + Sync + 'static,
    {
        self.ask(method, body).answer()
    }

    /// The next word of progress.
    pub fn told(&self) -> Told {
        self.progress.recv().unwrap()
    }

    /// All words of progress that came and were not looked at.
    pub fn all_told(&self) -> Vec<Told> {
        self.progress.try_iter().collect()
    }
}

impl Pending<'_> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// What the service says.
    pub fn answer(self) -> Result<String, UpdateError> {
        match self.client.runtime.block_on(self.answer).unwrap() {
            Ok(message) => Ok(message.body().deserialize().unwrap_or_default()),
            Err(zbus::Error::MethodError(name, Some(word), _)) if name.as_str() == ERROR => {
                Err(serde_json::from_str(&word).unwrap())
            }
            Err(error) => panic!("{error}"),
        }
    }
}
