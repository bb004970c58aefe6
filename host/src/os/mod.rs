//! The system that the host is part of: which version runs, which can be had, and how one goes to another and back.
//!
//! One pure state machine decides ([`machine`]), one desk carries it out ([`OsDesk`]), and a backend does what only it can:
//! fetch, unpack, tell the boot loader. The backends differ in nothing the owner sees. [`simulated`] ships, for trying
//! and for tests, and says that it is one; [`appliance`] is a box, whose root's programs do the work; [`absent`] is every
//! machine whose system somebody else looks after, and refuses all with its reason. The first two pass one contract suite.
//!
//! Deliberately absent: a schedule. Nothing is looked for, fetched or applied that nobody asked for.

pub mod absent;
pub mod appliance;
#[cfg(test)]
mod contract;
mod desk;
mod error;
mod keep;
mod logind;
pub mod machine;
mod policy;
mod power;
mod release;
pub mod simulated;
mod state;
#[cfg(test)]
mod tests;
mod upload;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

pub use desk::{Clocks, OsDesk, OsOptions, OsView, Streaming};
pub use error::OsError;
pub use keep::{Keep, KeepError, Kept, MAX_HISTORY, MemoryKeep, Past};
pub use logind::Logind;
pub use power::{NoPower, Power, PowerError, PowerVerb};
pub use release::{
    Attempt, Channel, CheckResult, Deployment, Digest, Fetched, Inventory, MAX_ATTEMPTS,
    MAX_CHANGES, MAX_CHECKS, MAX_DEPLOYMENTS, MAX_LOG_LINES, MAX_RELEASES, MAX_TEXT_CHARS, Outcome,
    Release, ReleaseError, Role, Version,
};
pub use state::{
    Action, BadMark, Banner, BannerKind, Cause, Entry, Event, MAX_BAD, MAX_PINNED, Notice, OsState,
    Phase, Plan, Told, Verb, What, When, World,
};
pub use upload::{MAX_ARCHIVE_BYTES, Upload};

/// Whether this machine's system is ours to update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Appliance {
        /// It only looks so; every answer says it.
        simulated: bool,
    },
    /// It is not.
    Absent {
        /// Why, and what to do, in sentences.
        reason: String,
    },
}

/// What a machine does for its updates. Calls block; they come one after the other, from one thread.
///
/// Every call may be repeated, and may have been cut off by a loss of power: then [`inventory`](Self::inventory) says
/// what there is, and the call is made again.
pub trait OsBackend: Send + Sync {
    /// What it is called; what was written down under another name is not read.
    fn name(&self) -> &'static str;

    /// Whether this machine's system is ours. Does not block.
    fn presence(&self) -> Presence;

    /// What runs and what is on the disk.
    ///
    /// # Errors
    /// It cannot be found out now.
    fn inventory(&self) -> Result<Inventory, OsError>;

    /// Somebody else has changed what [`inventory`](Self::inventory) said last. Does not block.
    fn is_stale(&self) -> bool {
        false
    }

    /// The releases that can be had, with signatures that hold, in any order.
    ///
    /// # Errors
    /// They cannot be reached, or are not to be trusted.
    fn check(&self, cancel: &Cancel) -> Result<Vec<Release>, OsError>;

    /// Takes in what somebody brings in a file, which is read from a pipe to its end, and gives what may be had of it, in any
    /// order. What was taken in is fetched by [`download`](Self::download) without asking anybody. What is cut, or not to be
    /// trusted, leaves nothing, and is refused as soon as that can be seen.
    ///
    /// # Errors
    /// [`OsError::Stopped`] when it was cancelled; or it is refused.
    fn import(&self, archive: OwnedFd, cancel: &Cancel) -> Result<Vec<Release>, OsError>;

    /// Fetches a release as far as it is not there yet; `progress` is told how many bytes are, which never become fewer.
    /// What came before the end, whichever it is, is kept. With `insist` also one that did not pass here before.
    ///
    /// # Errors
    /// [`OsError::Stopped`] when it was cancelled; or the network, the disk or the content failed.
    fn download(
        &self,
        release: &Release,
        insist: bool,
        progress: &mut dyn FnMut(u64),
        cancel: &Cancel,
    ) -> Result<(), OsError>;

    /// Makes a deployment of what was fetched; one that was staged before is gone then. What runs is not touched. `insist`
    /// as with [`download`](Self::download).
    ///
    /// # Errors
    /// It is not there, not whole or not what it should be.
    fn stage(&self, release: &Release, insist: bool, cancel: &Cancel) -> Result<(), OsError>;

    /// The next start is into this deployment; into what runs now, if that is what is asked for. `insist` as with
    /// [`download`](Self::download).
    ///
    /// # Errors
    /// There is none, or the boot loader cannot be told.
    fn arrange_boot(&self, digest: Digest, insist: bool) -> Result<(), OsError>;

    /// Restarts the machine. The daemon may end meanwhile or, where the restart is a simulation, live on: whoever calls
    /// sees it by [`Inventory::boot`].
    ///
    /// # Errors
    /// The machine does not restart.
    fn reboot(&self, cancel: &Cancel) -> Result<(), OsError>;

    /// Keeps a deployment, or does so no more.
    ///
    /// # Errors
    /// There is none.
    fn pin(&self, digest: Digest, pinned: bool) -> Result<(), OsError>;

    /// From now on releases are looked for there, also after a loss of power.
    ///
    /// # Errors
    /// It cannot be written down.
    fn follow(&self, channel: Channel) -> Result<(), OsError>;
}

/// Asks a call that blocks to end; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    inner: Arc<Asked>,
}

#[derive(Debug, Default)]
struct Asked {
    asked: Mutex<bool>,
    threads: Condvar,
    tasks: Notify,
}

impl Cancel {
    /// Asks.
    pub fn cancel(&self) {
        *self.lock() = true;
        self.inner.threads.notify_all();
        self.inner.tasks.notify_waiters();
    }

    /// It was asked.
    pub fn is_cancelled(&self) -> bool {
        *self.lock()
    }

    /// Waits that long, or until it is asked; says whether it was.
    pub fn wait(&self, limit: Duration) -> bool {
        let threads = &self.inner.threads;
        let waited = threads.wait_timeout_while(self.lock(), limit, |asked| !*asked);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Waits until it is asked.
    pub fn wait_forever(&self) {
        let waited = self.inner.threads.wait_while(self.lock(), |asked| !*asked);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    /// Is done when it is asked.
    pub async fn asked(&self) {
        loop {
            // From here on a question is heard, also one that comes before it is waited for.
            let heard = self.inner.tasks.notified();
            if self.is_cancelled() {
                return;
            }
            heard.await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, bool> {
        self.inner.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
