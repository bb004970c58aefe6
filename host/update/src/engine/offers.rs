//! What is stated, and whether a release of it may be had here.

use std::path::PathBuf;

use punktfunk_os::files;
use punktfunk_os::policy;
use serde::{Deserialize, Serialize};

use super::{Engine, told};
use crate::error::UpdateError;
use crate::name::{Channel, Commit, Version};
use crate::statement::{Believed, KeyRing, MAX_ENVELOPE_BYTES, Memory, Release, Statement, judge};
use crate::transport::{Cancel, Source};

/// A release that may be had, as those are told who ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// What it is called.
    pub version: Version,
    /// Which system it is.
    pub commit: Commit,
    /// When it was stated, in seconds since 1970.
    pub made_at: u64,
    /// When that ends to hold, in seconds since 1970.
    pub expires_at: u64,
    /// What is transferred at most, in bytes.
    pub size_bytes: u64,
    /// The oldest version that may go to it in one step.
    pub minimum: Version,
    /// What is new, in plain lines.
    pub changes: Vec<String>,
    /// Where it comes from.
    pub channel: Channel,
}

impl Engine {
    /// Asks the registry what is stated, and keeps it if it is believed. Gives what may be had from here in one step, and
    /// what runs if that is stated; also what did not pass here.
    ///
    /// # Errors
    /// What the registry says, what [`judge`] says, or [`UpdateError::Failed`].
    pub fn check(&mut self, cancel: &Cancel) -> Result<Vec<Offer>, UpdateError> {
        cancel.check()?;
        let memory = self.memory()?;
        let channel = memory.channel();
        let bytes = self.registry()?.envelope(channel, &self.settings.flavour, cancel)?;
        cancel.check()?;
        let believed = self.believe(&bytes, memory, channel)?;
        self.clean_staged()?;
        let offers = self.offers(&believed.statement);
        self.said(offers)
    }

    pub(super) fn registry(&self) -> Result<&dyn Source, UpdateError> {
        let known = self.settings.registry.as_deref();
        known.map_err(|detail| UpdateError::Unreachable { detail: detail.clone() })
    }

    /// Has releases come from another channel from now on.
    ///
    /// # Errors
    /// [`UpdateError::Failed`] when that cannot be written down.
    pub fn follow(&mut self, channel: Channel) -> Result<(), UpdateError> {
        let mut memory = self.memory()?;
        if memory.channel() != channel {
            memory.follow(channel);
            self.save(&memory)?;
        }
        self.say()
    }

    /// Judges an envelope, and remembers it if it is believed: what was seen first, then the envelope.
    pub(super) fn believe(
        &self,
        bytes: &[u8],
        memory: Memory,
        channel: Channel,
    ) -> Result<Believed, UpdateError> {
        let believed = self.judge(bytes, &memory, channel)?;
        if believed.memory_after != memory {
            self.save(&believed.memory_after)?;
        }
        let kept = files::replace(&self.kept(channel), bytes, 0o600);
        kept.map_err(|error| UpdateError::failed("keep what is stated", error))?;
        Ok(believed)
    }

    pub(super) fn judge(
        &self,
        bytes: &[u8],
        memory: &Memory,
        channel: Channel,
    ) -> Result<Believed, UpdateError> {
        let ring = KeyRing::read(&self.settings.keys);
        let ring = ring.map_err(|error| UpdateError::failed("read the keys of releases", error))?;
        let now = (self.settings.clock)();
        judge(bytes, &ring, memory, channel, &self.settings.flavour, now)
    }

    /// What is stated of the channel that is followed, as it was kept; nothing where nothing was, or where something newer
    /// was seen since that is not here.
    ///
    /// # Errors
    /// It is not believed now: it has expired, or who signed it is trusted no more.
    pub(super) fn stated(&mut self) -> Result<Option<Statement>, UpdateError> {
        let memory = self.memory()?;
        let channel = memory.channel();
        let bytes = match files::read(&self.kept(channel), MAX_ENVELOPE_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.is_absent() => return Ok(None),
            Err(error) => return Err(UpdateError::failed("read what is stated", error)),
        };
        match self.judge(&bytes, &memory, channel) {
            Ok(believed) => Ok(Some(believed.statement)),
            // The power went between the two writings.
            Err(UpdateError::Downgrade { .. } | UpdateError::Content { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn kept(&self, channel: Channel) -> PathBuf {
        self.site.place.state.join(format!("statement-{channel}.json"))
    }

    /// What may be had of what is stated.
    pub(super) fn offers(&mut self, statement: &Statement) -> Result<Vec<Offer>, UpdateError> {
        let running = self.running()?;
        let floor = self.memory()?.floor;
        let fits = |one: &&Release| {
            one.version >= running && one.minimum <= running && Some(one.version) >= floor
        };
        let offer = |one: &Release| Offer {
            version: one.version,
            commit: one.commit,
            made_at: statement.made_at,
            expires_at: statement.expires_at,
            size_bytes: one.size_bytes,
            minimum: one.minimum,
            changes: one.changes.clone(),
            channel: statement.channel,
        };
        Ok(statement.releases.iter().filter(fits).map(offer).collect())
    }

    /// The release of a commit, if it may be had here; one that did not pass here only if somebody insists.
    ///
    /// # Errors
    /// [`UpdateError::UnknownDeployment`] when it is not offered, [`UpdateError::Downgrade`],
    /// [`UpdateError::BelowFloor`], [`UpdateError::Bad`], or why the statement is not believed any more.
    pub(super) fn may_have(
        &mut self,
        commit: Commit,
        insist: bool,
    ) -> Result<Release, UpdateError> {
        let statement = self.stated()?.ok_or(UpdateError::UnknownDeployment)?;
        let release = statement.release(commit).ok_or(UpdateError::UnknownDeployment)?.clone();
        let running = self.running()?;
        let version = release.version;
        if version < running {
            return Err(UpdateError::Downgrade { version, floor: running });
        }
        self.above_floor(version)?;
        if release.minimum > running {
            return Err(UpdateError::UnknownDeployment);
        }
        self.not_bad(commit, version, insist)?;
        Ok(release)
    }

    /// [`UpdateError::BelowFloor`] for what is older than the oldest that is safe.
    pub(super) fn above_floor(&mut self, version: Version) -> Result<(), UpdateError> {
        match self.memory()?.floor {
            Some(floor) if version < floor => Err(UpdateError::BelowFloor { version, floor }),
            _ => Ok(()),
        }
    }

    /// [`UpdateError::Bad`] for what did not pass here, unless somebody insists.
    pub(super) fn not_bad(
        &self,
        commit: Commit,
        version: Version,
        insist: bool,
    ) -> Result<(), UpdateError> {
        let doing = "look at what did not pass here";
        let ledger = self.site.known().map_err(|error| told(doing, error))?;
        match policy::offer(&ledger, &commit.to_string(), insist) {
            Err(policy::Refusal::Bad { reason, .. }) => Err(UpdateError::Bad { version, reason }),
            Err(refusal) => Err(told(doing, refusal.into())),
            Ok(()) => Ok(()),
        }
    }
}
