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

use crate::error::UpdateError;
use crate::name::{BlobDigest, Channel};

pub use archive::{Archive, BLOBS, ENVELOPE, Expected, Judge, Limits};
pub use http::{Address, Client, Patience};
pub use registry::Registry;
pub use store::{STAGED_REF, Store};

/// Asks whatever takes long to end; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Cancel(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl Cancel {
    /// Asks.
    pub fn cancel(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Release);
    }

    /// It was asked.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(std::sync::atomic::Ordering::Acquire)
    }

    /// [`UpdateError::Stopped`] if it was asked.
    pub fn check(&self) -> Result<(), UpdateError> {
        if self.is_cancelled() { Err(UpdateError::Stopped) } else { Ok(()) }
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
