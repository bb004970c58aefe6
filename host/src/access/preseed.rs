//! What an owner may prepare before the first start: a file with the host's name, its network and the claim's token.
//!
//! Whoever writes the stick may name the host and bring a token of his own, so that a machine without a screen can be
//! claimed with a link that he has already. The token has the length of one that the host makes: a word that a person
//! thinks of could be guessed, because tries with a token are not counted. A file counts once, known by its digest, also
//! if the host has an owner when it is found: a stick that stays in the machine must not bring its old token back when
//! the claim is armed again.
//!
//! The network is kept with the claim until whoever can join networks has joined it: a host that dies in between has both
//! or neither, and the passphrase leaves the store by one call only.

use serde::Deserialize;
use zeroize::Zeroizing;

use super::claim::host_name;
use super::secret::{SecretText, from_hex, new_code, sha256};
use super::{Access, AccessError, Actor, Owned};
use crate::store::{PreparedNetwork, StoredClaim};

/// The largest file, in bytes.
const MAX_BYTES: usize = 16 * 1024;
/// The longest name of a Wi-Fi network, in bytes: the standard's.
const MAX_SSID_BYTES: usize = 32;
/// The longest passphrase of one, in bytes: the standard's.
const MAX_PASSPHRASE_BYTES: usize = 64;

/// What was prepared.
pub struct Preseed {
    digest: [u8; 32],
    name: String,
    network: Option<PreparedNetwork>,
    token: Zeroizing<[u8; 16]>,
}

/// Why a file prepares nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PreseedError {
    /// It is too large.
    #[error("the prepared file has {got} bytes; {MAX_BYTES} are the most")]
    TooLarge {
        /// Its length in bytes.
        got: usize,
    },
    /// It is not JSON of this shape. Where is said, what stands there is not: it may be a secret.
    #[error(
        "the prepared file cannot be read (line {line}); it is a JSON object with \"name\", \
         \"claim_secret\" and, if wanted, \"network\" with \"ssid\" and \"passphrase\""
    )]
    Malformed {
        /// The line, from 1.
        line: usize,
    },
    /// The name cannot be one.
    #[error("the \"name\" in the prepared file is not a text of 1 to 63 bytes")]
    Name,
    /// The claim's secret is not 128 bits.
    #[error(
        "the \"claim_secret\" in the prepared file is not 32 hex digits; openssl rand -hex 16 makes some"
    )]
    ClaimSecret,
    /// The network cannot be one.
    #[error(
        "the \"network\" in the prepared file has a name of more than 32 or a passphrase of more than 64 bytes"
    )]
    Network,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PreseedOutcome {
    /// It was taken.
    Taken {
        /// It names a network, which is kept: see [`Access::prepared_network`].
        has_network: bool,
    },
    /// It was used before.
    Used,
    /// The host has an owner, whose word counts.
    Claimed,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(default)]
    network: Option<FileNetwork>,
    claim_secret: SecretText,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileNetwork {
    ssid: String,
    #[serde(default)]
    passphrase: Option<SecretText>,
}

impl Preseed {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// See [`PreseedError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, PreseedError> {
        if bytes.len() > MAX_BYTES {
            return Err(PreseedError::TooLarge { got: bytes.len() });
        }
        let file: File = serde_json::from_slice(bytes)
            .map_err(|error| PreseedError::Malformed { line: error.line() })?;
        let network = file.network.map(|network| PreparedNetwork {
            ssid: network.ssid,
            passphrase: network.passphrase.map(SecretText::into_inner),
        });
        let fits = |network: &PreparedNetwork| {
            let passphrase = network.passphrase.as_ref().map_or(0, |text| text.len());
            (1..=MAX_SSID_BYTES).contains(&network.ssid.len()) && passphrase <= MAX_PASSPHRASE_BYTES
        };
        if !network.as_ref().is_none_or(fits) {
            return Err(PreseedError::Network);
        }
        let token = from_hex(file.claim_secret.reveal().trim().as_bytes());
        Ok(Self {
            digest: sha256(bytes),
            name: host_name(&file.name).ok_or(PreseedError::Name)?,
            network,
            token: token.ok_or(PreseedError::ClaimSecret)?,
        })
    }
}

impl std::fmt::Debug for Preseed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Preseed").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Access {
    /// Takes what an owner prepared: the name, the network, and the token in place of the one that was made. Once for each
    /// file.
    ///
    /// # Errors
    /// The disk failed, or there is no randomness; the file was then not used, unless the error is
    /// [`AccessError::Uncertain`].
    pub fn take_preseed(&self, preseed: &Preseed) -> Result<PreseedOutcome, AccessError> {
        let now = self.now();
        let claim = StoredClaim {
            token: *preseed.token,
            code: new_code(&self.inner.random)?,
            made_at: now.unix,
            reason: "prepared".to_owned(),
        };
        let audit = self.entry(&Actor::AtMachine, None, "preseed", &preseed.name);
        let _writing = self.writing();
        let store = &self.inner.store;
        let mut outcome = Some(true);
        let network = preseed.network.as_ref();
        let written = store.take_preseed(preseed.digest, &claim, &preseed.name, network, &audit);
        let written = written.map(|taken| outcome = taken);
        // The code was drawn just now: no other claim has it.
        self.settle(written, || Ok(store.claim()?.as_ref() == Some(&claim)))?;
        match outcome {
            None => return Ok(PreseedOutcome::Used),
            Some(false) => return Ok(PreseedOutcome::Claimed),
            Some(true) => {}
        }
        self.state().owned = Owned::No { claim: claim.clone(), failures: 0 };
        self.changed();
        self.show(&claim);
        Ok(PreseedOutcome::Taken { has_network: network.is_some() })
    }

    /// The network that was prepared and that nobody has joined yet. It stays until [`Access::network_joined`], over
    /// restarts and whoever owns the host: it is the one of the house.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn prepared_network(&self) -> Result<Option<PreparedNetwork>, AccessError> {
        Ok(self.inner.store.prepared_network()?)
    }

    /// The network that was prepared is joined, and kept by whoever joined it: it is forgotten here. May be said again.
    ///
    /// # Errors
    /// The disk failed, and it may still be there.
    pub fn network_joined(&self) -> Result<(), AccessError> {
        let _writing = self.writing();
        Ok(self.inner.store.forget_prepared_network()?)
    }
}
