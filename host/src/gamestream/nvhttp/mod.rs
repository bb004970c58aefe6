//! The HTTP API: who may ask what, and what is answered.
//!
//! Over plain HTTP everybody is a stranger: a masked serverinfo, four steps of pairing, nothing else. Over HTTPS the
//! certificate that signed the handshake decides, by exact comparison with the paired ones; whoever is not paired is
//! told 401 in a document. The formats are in `core::gamestream`, sessions belong to the session desk, PINs to the
//! pairing desk.
//!
//! Deliberately absent: `uniqueid` as an identity (most clients share one), waiting on the way to serverinfo (clients
//! poll it and call a slow host offline).

mod art;
mod mac;
mod pair;
mod play;

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use punktfunk_core::gamestream::query::Query;
use punktfunk_core::gamestream::replies::{self, AppEntry, Refusal, ServerInfo};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::Ports;
use super::http::{Caller, Reply, Request, Service, Transport};
use super::ticket::Tickets;
use crate::identity::Identity;
use crate::pairing::PairingDesk;
use crate::session::SessionDesk;
use crate::store::{ClientId, PairedClient, Store};
use pair::Attempts;

/// What the API stands on.
pub struct NvHttpParts {
    /// The name clients show.
    pub host_name: String,
    /// The ports as they are, after binding.
    pub ports: Ports,
    /// Apps and sessions.
    pub desk: Arc<dyn SessionDesk>,
    /// The promises to RTSP.
    pub tickets: Arc<Tickets>,
    /// The paired clients.
    pub store: Store,
    /// The host's certificate and key.
    pub identity: Arc<Identity>,
    /// Where PINs come from.
    pub pairing: PairingDesk,
}

/// The HTTP API; one serves both listeners.
pub struct NvHttp {
    parts: NvHttpParts,
    attempts: Arc<Attempts>,
}

impl fmt::Debug for NvHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NvHttp").finish_non_exhaustive()
    }
}

impl Service for NvHttp {
    async fn answer(&self, caller: Caller, request: Request) -> Reply {
        tracing::debug!(remote = %caller.remote, path = request.path, "asked");
        if !request.is_get {
            return refuse(&Refusal::new(400, "only GET requests are answered here"));
        }
        let query = match Query::parse(&request.query) {
            Ok(query) => query,
            Err(error) => return refuse(&Refusal::new(400, error)),
        };
        let path = request.path.as_str();
        match &caller.transport {
            Transport::Plain => self.answer_stranger(&caller, path, &query).await,
            Transport::Tls(certificate) => {
                let client = certificate
                    .as_ref()
                    .and_then(|own| self.parts.store.paired_client_by_certificate(own.der()));
                match client {
                    Some(client) => self.answer_client(&caller, &client, path, &query).await,
                    // spec: gamestream 2.3
                    None => Reply::Xml(replies::unauthorized(path)),
                }
            }
        }
    }
}

impl NvHttp {
    /// The API over these parts, without any pairing under way.
    pub fn new(parts: NvHttpParts) -> Self {
        let attempts = Arc::new(Attempts::new(parts.pairing.clone()));
        Self { parts, attempts }
    }

    async fn answer_stranger(&self, caller: &Caller, path: &str, query: &Query) -> Reply {
        match path {
            "/serverinfo" => self.server_info(caller, None).await,
            "/pair" => self.pair(caller, query).await,
            "/unpair" => {
                // Nobody is unpaired by a stranger's word.
                self.attempts.abandon(caller.remote, query.get("uniqueid").unwrap_or_default());
                Reply::Xml(replies::unpaired())
            }
            "/applist" | "/appasset" | "/launch" | "/resume" | "/cancel" => {
                Reply::Xml(replies::unauthorized(path))
            }
            _ => unknown(),
        }
    }

    async fn answer_client(
        &self,
        caller: &Caller,
        client: &PairedClient,
        path: &str,
        query: &Query,
    ) -> Reply {
        self.note_visit(client.id, caller.remote);
        match path {
            "/serverinfo" => self.server_info(caller, Some(client.id)).await,
            "/pair" => self.pair_challenge(query),
            "/unpair" => self.unpair(client).await,
            "/applist" => self.app_list(),
            "/appasset" => self.app_asset(query).await,
            "/launch" => self.launch(caller, client.id, query).await,
            "/resume" => self.resume(caller, client.id, query).await,
            "/cancel" => self.cancel(client.id).await,
            _ => unknown(),
        }
    }

    /// `client` is the paired client that asks, or nobody.
    // spec: gamestream 2.4
    async fn server_info(&self, caller: &Caller, client: Option<ClientId>) -> Reply {
        let parts = &self.parts;
        let codecs = parts.desk.codecs();
        let running = client.and_then(|client| parts.desk.running(client));
        let mac = match client {
            Some(_) => mac_of(caller.local).await,
            None => None,
        };
        Reply::Xml(replies::server_info(&ServerInfo {
            host_name: &parts.host_name,
            host_id: parts.identity.host_id(),
            https_port: parts.ports.https,
            http_port: parts.ports.http,
            mac,
            local: caller.local,
            codecs: &codecs,
            paired: client.is_some(),
            current_app: running.map(|running| running.app.0),
        }))
    }

    // spec: gamestream 2.9
    fn app_list(&self) -> Reply {
        let apps = self.parts.desk.apps();
        let entries: Vec<_> =
            apps.iter().map(|app| AppEntry { id: app.id.0, title: &app.title }).collect();
        Reply::Xml(replies::app_list(&entries))
    }

    // spec: gamestream 2.10
    async fn app_asset(&self, query: &Query) -> Reply {
        let id = query.number("appid");
        let app = self.parts.desk.apps().into_iter().find(|app| Some(i64::from(app.id.0)) == id);
        Reply::Png(art::of(app).await)
    }

    // spec: gamestream 2.14
    async fn unpair(&self, client: &PairedClient) -> Reply {
        let (store, id) = (self.parts.store.clone(), client.id);
        self.parts.tickets.withdraw(id);
        let desk = self.parts.desk.clone();
        let removed = spawn_blocking(move || {
            let removed = store.remove_client(id);
            desk.quit(id);
            removed
        });
        match removed.await {
            Ok(Ok(_)) => tracing::info!(client = %id, "a device unpaired itself"),
            Ok(Err(error)) => tracing::warn!(%error, client = %id, "a device stays in the store"),
            Err(error) => tracing::error!(%error, "unpairing ended early"),
        }
        Reply::Xml(replies::unpaired())
    }

    /// The store writes to disk now and then, which nobody needs to wait for.
    fn note_visit(&self, client: ClientId, remote: IpAddr) {
        let store = self.parts.store.clone();
        drop(spawn_blocking(move || {
            if let Err(error) = store.touch(client, remote) {
                tracing::warn!(%error, "a visit could not be noted");
            }
        }));
    }
}

/// The hardware address, if the system says it at once: a picture of the host without it is better than none.
async fn mac_of(local: IpAddr) -> Option<[u8; 6]> {
    const PATIENCE: Duration = Duration::from_millis(200);
    timeout(PATIENCE, spawn_blocking(move || mac::of_address(local))).await.ok()?.ok()?
}

// spec: gamestream 2.1
fn unknown() -> Reply {
    refuse(&Refusal::new(404, "there is nothing at this path"))
}

fn refuse(refusal: &Refusal) -> Reply {
    Reply::Xml(replies::error(refusal))
}
