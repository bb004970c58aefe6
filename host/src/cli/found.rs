//! What the network is told of the console: beside the host that is announced, or alone where there is none, because it
//! could not start and its console says why.

use tokio::sync::watch;
use tracing::warn;

use super::prepare::{DISCOVERY, Host};
use crate::access::Access;
use crate::discovery::{Announcement, ConsoleService, DiscoveryOptions};
use crate::mgmt::{LocalName, Problems};
use crate::store::Store;

/// What does not change while the host runs, and whom to ask for the rest.
pub(super) struct Found {
    name: String,
    /// The console's port, if it is open.
    port: Option<u16>,
    fingerprint: String,
    /// Who knows whether the host has an owner, and when to ask again; none where nobody knows.
    access: Option<(Access, watch::Receiver<()>)>,
    /// The console's own, where no host is announced.
    alone: Option<Announcement>,
}

/// What the console is announced by where there is no host.
pub(super) struct Alone {
    /// Whether it is wanted.
    pub(super) wanted: bool,
    /// What remembers under which name the host was found before.
    pub(super) store: Option<Store>,
    pub(super) problems: Problems,
    pub(super) local_name: LocalName,
}

impl Found {
    pub(super) fn new(
        name: String,
        port: Option<u16>,
        fingerprint: String,
        access: Option<&Access>,
    ) -> Self {
        let access = access.map(|access| (access.clone(), access.changes()));
        Self { name, port, fingerprint, access, alone: None }
    }

    /// Tells it, and once more when the host has got an owner or lost one. The responder is not waited for.
    pub(super) fn show(&mut self, host: Option<&mut Host>) {
        let Some(port) = self.port else { return };
        let console = self.console(port);
        let Some(announcement) =
            host.map_or(self.alone.as_mut(), |host| host.announcement.as_mut())
        else {
            return;
        };
        if let Err(error) = announcement.show_console(&console) {
            warn!(%error, "the console is not announced as it is now");
        }
    }

    /// The host could not start: only its console is to be found.
    pub(super) async fn begin_alone(&mut self, alone: Alone) {
        let Alone { wanted, store, problems, local_name } = alone;
        if !wanted || self.port.is_none() {
            return;
        }
        let (name, fingerprint) = (self.name.clone(), self.fingerprint.clone());
        let start = move || {
            let options = options_alone(name, &fingerprint, store.as_ref());
            Announcement::start(&options, move |name| local_name.add(name))
        };
        match tokio::task::spawn_blocking(start).await {
            Ok(Ok(announcement)) => self.alone = Some(announcement),
            Ok(Err(error)) => {
                let sentence = format!("the console is only found by its address: {error}");
                problems.set(DISCOVERY, vec![sentence]);
            }
            Err(_) => warn!("the console could not be announced"),
        }
        self.show(None);
    }

    /// Says goodbye for the console.
    pub(super) async fn close(self) {
        let Some(alone) = self.alone else { return };
        // What is broken there has been reported.
        let _ = tokio::task::spawn_blocking(move || alone.stop()).await;
    }

    fn console(&self, port: u16) -> ConsoleService {
        ConsoleService {
            name: self.name.clone(),
            port,
            version: env!("CARGO_PKG_VERSION"),
            fingerprint: self.fingerprint.clone(),
            claimed: self.access.as_ref().map(|(access, _)| access.is_claimed()),
        }
    }

    /// Returns when it may have to be told once more; never where nothing changes.
    pub(super) async fn changed(&mut self) {
        let changes = match &mut self.access {
            Some((_, changes)) => changes.changed().await.is_ok(),
            None => false,
        };
        if !changes {
            std::future::pending::<()>().await;
        }
    }
}

/// The name of before, where it can be read; else one by the certificate, which is all that is there.
fn options_alone(name: String, fingerprint: &str, store: Option<&Store>) -> DiscoveryOptions {
    let identity = store.and_then(|store| store.identity().ok()?);
    let host_id = identity.map_or_else(|| fingerprint.to_owned(), |identity| identity.host_id);
    DiscoveryOptions { name, host_id, http_port: None }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::access::{AccessOptions, ClaimAttempt, Presence};
    use crate::store::Store;

    #[test]
    fn a_host_that_gets_an_owner_or_loses_one_says_so_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let store = Store::open(&state).unwrap();
        let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
        let access = Access::open(store.clone(), options).unwrap();
        let mut found = Found::new("Sofa".to_owned(), Some(1), "AB".to_owned(), Some(&access));
        let mut told = || (found.changed().now_or_never().is_some(), found.console(1).claimed);
        assert_eq!(told(), (false, Some(false)));
        let secret = &store.claim().unwrap().unwrap().code.clone();
        let (name, password) = ("Sofa", "correct horse");
        let attempt = ClaimAttempt { secret, name, password, remote: None, agent: None };
        access.claim(&attempt).unwrap();
        assert_eq!(told(), (true, Some(true)));
        assert_eq!(told(), (false, Some(true)), "once");
        access.rearm(&Presence::PowerButton).unwrap();
        assert_eq!(told(), (true, Some(false)));
        let mut found = Found::new("Sofa".to_owned(), Some(1), "AB".to_owned(), None);
        assert!(found.changed().now_or_never().is_none());
        assert_eq!(found.console(1).claimed, None, "nobody knows");
    }

    #[test]
    fn a_console_alone_has_the_hosts_name_if_there_is_one() {
        let alone = |store: Option<&Store>| {
            let options = options_alone("Sofa".to_owned(), "AB:CD", store);
            assert_eq!((&*options.name, options.http_port), ("Sofa", None));
            options.host_id
        };
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        assert_eq!((alone(None), alone(Some(&store))), ("AB:CD".to_owned(), "AB:CD".to_owned()));
        let identity = crate::identity::Identity::load_or_create(&store).unwrap();
        assert_eq!(alone(Some(&store)), identity.host_id());
    }
}
