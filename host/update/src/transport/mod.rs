//! How a release comes here: as blobs that are named by their digests, from a registry or out of an archive.
//!
//! A release is an OCI image: a manifest, an index of OSTree's objects and layers of such objects. Everything is named by
//! a digest that the signed statement leads to, and is not looked into before it has that digest. What the repository has
//! already is not fetched.

mod archive;
pub mod bundle;
mod fetch;
pub mod http;
mod plan;
mod registry;
mod space;
mod store;
pub mod tarball;
mod unpack;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::error::UpdateError;
use crate::name::{BlobDigest, Channel};

pub use archive::{Archive, BLOBS, ENVELOPE, Expected, Judge, Limits, Steady};
pub use http::{Address, Client, Patience};
pub use registry::Registry;
pub use store::{STAGED_REF, Store};

/// Asks whatever takes long to end; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(Arc<AtomicU8>);

/// It goes on.
const GOES_ON: u8 = 0;
/// It goes on as long as nothing more important comes.
const YIELDS: u8 = 1;
/// It was asked to end.
const STOPPED: u8 = 2;
/// Something more important has come.
const DISPLACED: u8 = 3;

impl Cancel {
    /// For what ends when something more important comes, until [`Cancel::stay`].
    pub fn yielding() -> Self {
        Self(Arc::new(AtomicU8::new(YIELDS)))
    }

    /// Asks.
    pub fn cancel(&self) {
        self.0.store(STOPPED, Ordering::Release);
    }

    /// Asks what yields; whether it does.
    pub fn displace(&self) -> bool {
        self.change(YIELDS, DISPLACED)
    }

    /// From now on it yields no more.
    pub fn stay(&self) {
        // What does not yield stays already, and what was asked to end is asked still.
        let _ = self.change(YIELDS, GOES_ON);
    }

    /// It was asked.
    pub fn is_cancelled(&self) -> bool {
        matches!(self.0.load(Ordering::Acquire), STOPPED | DISPLACED)
    }

    /// [`UpdateError::Stopped`] if it was asked, or [`UpdateError::Busy`] if that was for something more important.
    pub fn check(&self) -> Result<(), UpdateError> {
        match self.0.load(Ordering::Acquire) {
            STOPPED => Err(UpdateError::Stopped),
            // All that yields is an archive that somebody gives, and all that comes before it is one of root's.
            DISPLACED => Err(UpdateError::Busy { doing: "import".to_owned() }),
            _ => Ok(()),
        }
    }

    fn change(&self, from: u8, to: u8) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

/// Where releases come from. Nothing of what it gives is believed.
pub trait Source: Send + Sync {
    /// The envelope of what is stated of a channel and flavour, at most
    /// [`MAX_ENVELOPE_BYTES`](crate::statement::MAX_ENVELOPE_BYTES).
    ///
    /// # Errors
    /// [`UpdateError::Unreachable`], [`UpdateError::Stopped`], or [`UpdateError::Content`] when it is too long.
    fn envelope(
        &self,
        channel: Channel,
        flavour: &str,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, UpdateError>;

    /// The bytes of a blob from an offset to its end, which is at `total_bytes`, in pieces.
    ///
    /// # Errors
    /// As [`Source::envelope`], and what `take` says. It never gives more than `total_bytes - offset`.
    fn blob(
        &self,
        blob: Wanted,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
        cancel: &Cancel,
    ) -> Result<(), UpdateError>;
}

/// A blob that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub digest: BlobDigest,
    /// Its length, or the most that it may have when that is not known yet.
    pub total_bytes: u64,
    /// Registries keep manifests elsewhere.
    pub is_manifest: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_yields_is_displaced_and_only_until_it_stays() {
        let busy = Err(UpdateError::Busy { doing: "import".to_owned() });
        let (cancel, yielding) = (Cancel::default(), Cancel::yielding());
        assert!(!cancel.displace() && cancel.check().is_ok() && yielding.check().is_ok());
        assert!(yielding.displace() && yielding.is_cancelled());
        yielding.stay();
        assert_eq!(yielding.check(), busy);
        let staying = Cancel::yielding();
        staying.stay();
        assert!(!staying.displace() && staying.check().is_ok());
        staying.cancel();
        staying.stay();
        assert_eq!(staying.check(), Err(UpdateError::Stopped));
    }
}
