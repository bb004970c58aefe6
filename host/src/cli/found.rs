//! What the network is told of the console, for as long as the host is announced at all.

use tokio::sync::watch;
use tracing::warn;

use crate::access::Access;
use crate::discovery::{Announcement, ConsoleService};

/// What does not change while the host runs, and whom to ask for the rest.
pub(super) struct Found {
    name: String,
    /// The console's port, if it is open.
    port: Option<u16>,
    fingerprint: String,
    /// Who knows whether the host has an owner, and when to ask again; none where nobody knows.
    access: Option<(Access, watch::Receiver<()>)>,
}

impl Found {
    pub(super) fn new(
        name: String,
        port: Option<u16>,
        fingerprint: String,
        access: Option<&Access>,
    ) -> Self {
        let access = access.map(|access| (access.clone(), access.changes()));
        Self { name, port, fingerprint, access }
    }

    /// Tells it, and once more when the host has got an owner or lost one. The responder is not waited for.
    pub(super) fn show(&self, announcement: &mut Option<Announcement>) {
        let (Some(announcement), Some(port)) = (announcement, self.port) else { return };
        if let Err(error) = announcement.show_console(&self.console(port)) {
            warn!(%error, "the console is not announced as it is now");
        }
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
}
