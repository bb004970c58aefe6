//! Releases from a registry for container images, by its distribution protocol.

use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use crate::error::UpdateError;
use crate::name::Channel;
use crate::transport::{Cancel, Source, Wanted};

/// Which repository of which registry, such as `ghcr.io/punktfunk/box` or `http://127.0.0.1:5000/box`. Without `http://` it
/// is https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {}

impl FromStr for Address {
    type Err = UpdateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let _ = text;
        Ok(Self {})
    }
}

/// How long a registry is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until its name is known and again until it is connected.
    pub connect: Duration,
    /// Between one byte and the next.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), idle: Duration::from_secs(30) }
    }
}

/// A repository of a registry.
#[derive(Debug)]
pub struct Registry {}

impl Registry {
    /// The registry at an address. `roots` is the file of certificates that https is believed by, in PEM; it is read when it is
    /// needed. `plain` lets `http://` go to other machines, too; without it, only to loopback addresses.
    pub fn new(address: Address, roots: &Path, plain: bool, patience: Patience) -> Self {
        let _ = (address, roots, plain, patience);
        Self {}
    }
}

impl Source for Registry {
    fn envelope(&self, _: Channel, _: &str, _: &Cancel) -> Result<Vec<u8>, UpdateError> {
        Err(UpdateError::Unreachable { detail: String::new() })
    }

    fn blob(
        &self,
        _: Wanted,
        _: u64,
        _: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
        _: &Cancel,
    ) -> Result<(), UpdateError> {
        Err(UpdateError::Unreachable { detail: String::new() })
    }
}
