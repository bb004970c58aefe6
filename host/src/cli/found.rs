//! What the network is told of the console, for as long as the host is announced at all.

use tracing::warn;

use crate::access::Access;
use crate::discovery::{Announcement, ConsoleService};

/// What does not change while the host runs, and whom to ask for the rest.
pub(super) struct Found {
    pub(super) name: String,
    /// The console's port, if it is open.
    pub(super) port: Option<u16>,
    pub(super) fingerprint: String,
    pub(super) access: Option<Access>,
}

impl Found {
    /// Tells it, and once more when the host has got an owner or lost one. The responder is not waited for.
    pub(super) fn show(&self, announcement: &mut Option<Announcement>) {
        let (Some(announcement), Some(port)) = (announcement, self.port) else { return };
        let console = ConsoleService {
            name: self.name.clone(),
            port,
            version: env!("CARGO_PKG_VERSION"),
            fingerprint: self.fingerprint.clone(),
            claimed: self.access.as_ref().map(Access::is_claimed),
        };
        if let Err(error) = announcement.show_console(&console) {
            warn!(%error, "the console is not announced as it is now");
        }
    }
}
