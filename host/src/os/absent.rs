//! Every machine whose system somebody else looks after: all of it is answered with the reason.

use std::os::fd::OwnedFd;

use super::release::{Channel, Digest, Inventory, Release};
use super::{Cancel, OsBackend, OsError, Presence};

/// No updates from here.
#[derive(Debug, Clone)]
pub struct Absent {
    reason: String,
}

impl Absent {
    /// For this reason, which says what to do instead.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }

    /// A box whose system this version of the host cannot look after.
    pub fn on_an_appliance() -> Self {
        Self::new(
            "this version of punktfunk cannot look after the system of this box: it neither updates nor resets it. \
             Nothing was changed, and streaming goes on",
        )
    }

    fn refuse<T>(&self) -> Result<T, OsError> {
        Err(OsError::NotAnAppliance { reason: self.reason.clone() })
    }
}

/// A machine that is no appliance.
impl Default for Absent {
    fn default() -> Self {
        Self::new(
            "this machine is not an appliance: its system is updated by whoever set it up, with that system's own \
             means, and streaming needs nothing of it. To see how updates look here, start the host with --demo",
        )
    }
}

impl OsBackend for Absent {
    fn name(&self) -> &'static str {
        "absent"
    }

    fn presence(&self) -> Presence {
        Presence::Absent { reason: self.reason.clone() }
    }

    fn inventory(&self) -> Result<Inventory, OsError> {
        self.refuse()
    }

    fn check(&self, _cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        self.refuse()
    }

    fn import(&self, _archive: OwnedFd, _cancel: &Cancel) -> Result<Vec<Release>, OsError> {
        self.refuse()
    }

    fn download(
        &self,
        _release: &Release,
        _insist: bool,
        _progress: &mut dyn FnMut(u64),
        _cancel: &Cancel,
    ) -> Result<(), OsError> {
        self.refuse()
    }

    fn stage(&self, _release: &Release, _insist: bool, _cancel: &Cancel) -> Result<(), OsError> {
        self.refuse()
    }

    fn arrange_boot(&self, _digest: Digest, _insist: bool) -> Result<(), OsError> {
        self.refuse()
    }

    fn reboot(&self, _cancel: &Cancel) -> Result<(), OsError> {
        self.refuse()
    }

    fn pin(&self, _digest: Digest, _pinned: bool) -> Result<(), OsError> {
        self.refuse()
    }

    fn follow(&self, _channel: Channel) -> Result<(), OsError> {
        self.refuse()
    }
}
