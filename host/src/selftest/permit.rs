//! The permit as the self-test holds it: renewed while it runs, erased on every way out.
//!
//! A thread renews it; dropping the holder erases it; whoever is told to end at once erases it through [`Eraser`]. If
//! the whole process is killed, nobody renews, and the host erases it by itself.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::mgmt::client::{Client, ClientError};
use crate::mgmt::wire::SelfTestPermit;

/// The lease lasts six times as long.
const RENEWAL: Duration = Duration::from_secs(5);

/// Erases what a self-test left at the host. Clones share it; it acts once.
#[derive(Debug, Clone, Default)]
pub struct Eraser(Arc<Mutex<Option<Held>>>);

#[derive(Debug)]
struct Held {
    socket: PathBuf,
    client: String,
}

impl Eraser {
    /// Erases the identity and quits its session, if there is one. Blocks until the host has done it, or for half a
    /// minute.
    ///
    /// # Errors
    /// The host did not do it; it will by itself, when the lease ends.
    pub fn erase(&self) -> Result<(), ClientError> {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Held { socket, client }) = held else { return Ok(()) };
        Client::at(&socket)?.end_self_test(&client)
    }
}

/// A permit that is kept alive until this is dropped.
pub(super) struct Permit {
    host: Client,
    client: String,
    eraser: Eraser,
    stop: Option<Sender<()>>,
    renewing: Option<JoinHandle<()>>,
}

impl Permit {
    /// Asks the host with this socket for a permit for the certificate with this id; gives what it answered, too.
    pub(super) fn take(
        socket: &Path,
        client: String,
        eraser: &Eraser,
    ) -> Result<(Self, SelfTestPermit), ClientError> {
        let host = Client::at(socket)?;
        // Known before it is asked for: an answer that is lost leaves something to erase, too.
        let held = Held { socket: socket.to_owned(), client: client.clone() };
        *eraser.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        let mut permit = Self { host, client, eraser: eraser.clone(), stop: None, renewing: None };
        let given = permit.host.permit_self_test(&permit.client)?;
        let (stop, stopped) = channel();
        let (socket, client) = (socket.to_owned(), permit.client.clone());
        let renew = move || {
            while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(RENEWAL) {
                // A renewal that failed shows in the course itself, which then is refused.
                let _ = Client::at(&socket).and_then(|host| host.renew_self_test(&client));
            }
        };
        let thread = std::thread::Builder::new().name("pf-permit".to_owned());
        let renewing = thread.spawn(renew).map_err(|e| ClientError::Transport(e.to_string()))?;
        (permit.stop, permit.renewing) = (Some(stop), Some(renewing));
        Ok((permit, given))
    }

    /// How it stands; renews it, too.
    pub(super) fn state(&self) -> Result<SelfTestPermit, ClientError> {
        self.host.renew_self_test(&self.client)
    }

    /// Types a PIN for the permit's request, once that has come.
    pub(super) fn answer(&self, pin: &str) -> Result<(), ClientError> {
        self.host.answer_self_test(&self.client, pin)
    }

    /// Ends it now.
    pub(super) fn erase(mut self) -> Result<(), ClientError> {
        self.end()
    }

    fn end(&mut self) -> Result<(), ClientError> {
        drop(self.stop.take());
        if let Some(renewing) = self.renewing.take() {
            // It has no step that panics; if it did, there is still a permit to erase.
            let _ = renewing.join();
        }
        self.eraser.erase()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // The course has failed before; the host erases by itself what cannot be erased now.
        let _ = self.end();
    }
}
