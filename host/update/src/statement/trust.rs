//! Whether a statement is believed now: a pure function over its envelope, the keys, what is remembered and the time.
//!
//! Nothing of a statement is looked into before a signature under it holds, and nothing is remembered of one that is not
//! believed. What is to be remembered is handed back; whoever acts on the statement writes it down first.
//!
//! Deliberately absent: whether a release of it fits this box - what runs, what did not pass, the floor of other channels,
//! the room on the disk.

use super::envelope::Envelope;
use super::keys::{KeyId, KeyRing};
use super::memory::{MAX_REMEMBERED, Memory};
use super::{Statement, content};
use crate::error::UpdateError;
use crate::name::{BlobDigest, Channel, Version};

/// A statement that holds now.
#[derive(Debug, Clone, PartialEq)]
pub struct Believed {
    /// What it says.
    pub statement: Statement,
    /// The digest of its text.
    pub digest: BlobDigest,
    /// Who signed it, of those who are trusted.
    pub signed_by: Vec<KeyId>,
    /// What root remembers from now on. It is to be on the disk before anything is done because of the statement.
    pub memory_after: Memory,
}

/// Judges the envelope of a channel and flavour at a time, in seconds since 1970. It does nothing else: the memory after
/// is in its answer.
///
/// # Errors
/// - [`UpdateError::Content`]: it cannot be read, makes no sense, is for newer systems, or of another channel or flavour.
/// - [`UpdateError::Signature`]: no key signed it that is trusted, before it and after it.
/// - [`UpdateError::ClockBehind`]: the time is before the statement's, or before that of one that was believed.
/// - [`UpdateError::Expired`]: it does not hold any more.
/// - [`UpdateError::Downgrade`]: it is older than one that was believed, or of the same time and another one, or it is
///   silent about the highest version that was offered.
pub fn judge(
    bytes: &[u8],
    ring: &KeyRing,
    memory: &Memory,
    channel: Channel,
    flavour: &str,
    unix: u64,
) -> Result<Believed, UpdateError> {
    let envelope = Envelope::parse(bytes)?;
    let signed_by = envelope.verify(ring, |id| memory.has_revoked(id))?;
    let statement = Statement::parse(&envelope.statement)?;
    let digest = BlobDigest::of(envelope.statement.as_bytes());
    addressed(&statement, channel, flavour)?;
    let signed_by = still_trusted(signed_by, &statement)?;
    let version = statement.newest().unwrap_or(Version::new(0, 0, 0));
    if unix < statement.made_at.max(memory.newest_made_at()) {
        return Err(UpdateError::ClockBehind { version });
    }
    if unix >= statement.expires_at {
        return Err(UpdateError::Expired { version });
    }
    not_back(&statement, digest, memory, version)?;
    let memory_after = memory.after(&statement, digest);
    let count = memory_after.revoked.len();
    if count > MAX_REMEMBERED {
        return Err(content(format!(
            "with it {count} keys were revoked, and {MAX_REMEMBERED} are the most"
        )));
    }
    Ok(Believed { statement, digest, signed_by, memory_after })
}

/// It is of the channel and flavour that was asked for: a good statement in another one's place is none.
fn addressed(statement: &Statement, channel: Channel, flavour: &str) -> Result<(), UpdateError> {
    let Statement { channel: its_channel, flavour: its_flavour, .. } = statement;
    if *its_channel == channel && its_flavour == flavour {
        return Ok(());
    }
    Err(content(format!(
        "the statement is of {its_channel} and {its_flavour}, and what was asked for is {channel} and {flavour}"
    )))
}

/// The signers that the statement itself does not revoke. Somebody must be left who answers for it, so no statement
/// leaves a box without a key, and a key is revoked by another one only.
fn still_trusted(signed_by: Vec<KeyId>, statement: &Statement) -> Result<Vec<KeyId>, UpdateError> {
    let revokes = |id: &KeyId| statement.revoked.contains(&id.to_string());
    let left: Vec<KeyId> = signed_by.into_iter().filter(|id| !revokes(id)).collect();
    if left.is_empty() {
        let detail = "it revokes every key that signed it".to_owned();
        return Err(UpdateError::Signature { detail });
    }
    Ok(left)
}

/// It does not lead back behind what was believed of its channel.
fn not_back(
    statement: &Statement,
    digest: BlobDigest,
    memory: &Memory,
    version: Version,
) -> Result<(), UpdateError> {
    let seen = memory.seen(statement.channel);
    let downgrade = UpdateError::Downgrade { version, floor: seen.highest.unwrap_or(version) };
    if statement.made_at < seen.newest_made_at {
        return Err(downgrade);
    }
    if statement.made_at == seen.newest_made_at && seen.statement.is_some_and(|one| one != digest) {
        return Err(downgrade);
    }
    let Some(highest) = seen.highest else { return Ok(()) };
    let goes_on = statement.releases.iter().any(|release| release.version >= highest);
    if goes_on || statement.withdrawn.contains(&highest) { Ok(()) } else { Err(downgrade) }
}
