//! The HTTP API: who may ask what, and what is answered.
//!
//! Over plain HTTP everybody is a stranger: a masked serverinfo, four steps of pairing, nothing else. Over HTTPS the
//! certificate that signed the handshake decides, by exact comparison with the paired ones; whoever is not paired is
//! told 401 in a document. The self-test's certificate is paired nowhere but in memory, and opens the Test card alone. The formats are in `core::gamestream`, sessions belong to the session desk, PINs to the
//! pairing desk.
//!
//! Deliberately absent: `uniqueid` as an identity (most clients share one), waiting on the way to serverinfo (clients
//! poll it and call a slow host offline).

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
use super::tls::ProvenCertificate;
use crate::identity::Identity;
use crate::pairing::PairingDesk;
use crate::session::apps::test_card;
use crate::session::{App, SessionDesk, art};
use crate::store::{ClientId, Store};
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

/// A client that is known by its certificate.
#[derive(Debug, Clone, Copy)]
struct Guest {
    id: ClientId,
    rights: Rights,
}

/// What a client may see and start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rights {
    /// Whatever the host offers.
    All,
    /// The Test card alone: it is the self-test.
    TestCard,
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
                let known = |own| self.known(own, caller.remote);
                match certificate.as_ref().and_then(known) {
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

    /// Whose certificate this is, seen from there; `None` if nobody's.
    fn known(&self, shown: &ProvenCertificate, remote: IpAddr) -> Option<Guest> {
        if let Some(client) = self.parts.store.paired_client_by_certificate(shown.der()) {
            return Some(Guest { id: client.id, rights: Rights::All });
        }
        let id = ClientId::of_certificate(shown.der());
        let accepted = self.parts.pairing.accepts_self_test(id, remote);
        accepted.then_some(Guest { id, rights: Rights::TestCard })
    }

    async fn answer_client(
        &self,
        caller: &Caller,
        client: &Guest,
        path: &str,
        query: &Query,
    ) -> Reply {
        if client.rights == Rights::All {
            self.note_visit(client.id, caller.remote);
        }
        match path {
            "/serverinfo" => self.server_info(caller, Some(client.id)).await,
            "/pair" => self.pair_challenge(query),
            "/unpair" => self.unpair(client).await,
            "/applist" => self.app_list(client.rights),
            "/appasset" => self.app_asset(query, client.rights).await,
            "/launch" => self.launch(caller, client, query).await,
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

    fn apps_for(&self, rights: Rights) -> Vec<App> {
        match rights {
            Rights::All => self.parts.desk.apps(),
            Rights::TestCard => vec![test_card()],
        }
    }

    // spec: gamestream 2.9
    fn app_list(&self, rights: Rights) -> Reply {
        let apps = self.apps_for(rights);
        let entries: Vec<_> =
            apps.iter().map(|app| AppEntry { id: app.id.0, title: &app.title }).collect();
        Reply::Xml(replies::app_list(&entries))
    }

    // spec: gamestream 2.10
    async fn app_asset(&self, query: &Query, rights: Rights) -> Reply {
        let id = query.number("appid");
        let app = self.apps_for(rights).into_iter().find(|app| Some(i64::from(app.id.0)) == id);
        let store = self.parts.store.clone();
        let picture = spawn_blocking(move || art::of(app.as_ref(), &store)).await;
        Reply::Png(picture.unwrap_or_else(|_| art::of_nobody()))
    }

    // spec: gamestream 2.14
    async fn unpair(&self, client: &Guest) -> Reply {
        let (store, id) = (self.parts.store.clone(), client.id);
        self.parts.tickets.withdraw(id);
        let (desk, pairing) = (self.parts.desk.clone(), self.parts.pairing.clone());
        let removed = spawn_blocking(move || {
            let _permit = pairing.end_self_test(id);
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use punktfunk_core::media::Codec;

    use super::*;
    use crate::agent::{Local, ProfileNumber};
    use crate::encode::x264::X264Backend;
    use crate::pairing::{Asking, DeskMode, DeskOptions};
    use crate::session::{SessionOptions, Sessions, Sounds};

    #[test]
    fn the_self_tests_certificate_is_known_from_this_machine_only_and_while_its_permit_lives() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let pairing = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
        let sessions = Sessions::new(SessionOptions {
            apps: vec![],
            displays: BTreeMap::new(),
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 1,
            agents: Arc::new(Local::new(folder.path().join("sessions"), None)),
            profile: Box::new(|_| Ok(ProfileNumber(0))),
        });
        let api = NvHttp::new(NvHttpParts {
            host_name: "box".to_owned(),
            ports: Ports::default(),
            desk: Arc::new(sessions),
            tickets: Arc::new(Tickets::default()),
            identity: Arc::new(Identity::load_or_create(&store).unwrap()),
            store,
            pairing: pairing.clone(),
        });
        let shown = ProvenCertificate::assumed(b"a certificate");
        let client = ClientId::of_certificate(shown.der());
        let here = IpAddr::from([127, 0, 0, 1]);
        let rights = |remote| api.known(&shown, remote).map(|guest| guest.rights);
        assert_eq!(rights(here), None);
        pairing.permit_self_test(client).unwrap();
        assert_eq!(rights(here), None, "it is not paired yet");
        let asking =
            Asking { unique_id: "x".to_owned(), remote: here, device_name: String::new(), client };
        let wait = pairing.ask(asking).unwrap();
        assert_eq!(pairing.trust_self_test(wait.id(), client), Some(true));
        assert_eq!(rights(here), Some(Rights::TestCard));
        for elsewhere in ["192.168.1.20", "fd00::20", "::ffff:10.0.0.1"] {
            assert_eq!(rights(elsewhere.parse().unwrap()), None, "{elsewhere}");
        }
        drop(pairing.end_self_test(client));
        assert_eq!(rights(here), None);
    }
}
