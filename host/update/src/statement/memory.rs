//! What root remembers of statements that were believed, so that nobody leads a box back: the newest time and the highest
//! version of each channel, the oldest version that is safe, and the keys that were revoked.
//!
//! It only ever grows: nothing here is lowered or taken back by any statement. One file, replaced as a whole, readable by
//! root alone. It is shared by all deployments, so an older program reads what a newer one wrote: what it does not know
//! is kept as it is. A damaged file is set aside and said, never a reason not to update.
//!
//! Each channel has a time and a version of its own: following another channel makes nothing a downgrade. That a box does
//! not go from `next` to an older `stable` is not here but with who offers releases, and knows what runs.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use punktfunk_os::files::{self, FileError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Statement;
use super::keys::KeyId;
use crate::name::{BlobDigest, Channel, Version};

/// The file in root's folder of state, `/var/lib/punktfunk/os`.
pub const NAME: &str = "updates.json";
/// As many revoked keys are remembered. A statement with which it would be more is not believed.
pub const MAX_REMEMBERED: usize = 64;

/// No memory is longer, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Where releases come from.
    channel: Followed,
    /// Nothing below it may be started without the owner's proof: the highest that was ever stated.
    pub floor: Option<Version>,
    /// Keys that are not trusted any more, by their ids, at most [`MAX_REMEMBERED`].
    pub revoked: Vec<String>,
    /// What was seen of the channel `stable`.
    stable: Seen,
    /// What was seen of the channel `next`.
    next: Seen,
    /// What a newer program wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// What was seen of one channel.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Seen {
    /// The time of the newest statement that was believed, in seconds since 1970; 0 before the first.
    pub newest_made_at: u64,
    /// The digest of that statement's text.
    pub statement: Option<BlobDigest>,
    /// The highest version that was offered.
    pub highest: Option<Version>,
    /// What a newer program wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// A channel, or what a newer program calls one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Followed {
    Known(Channel),
    Other(Value),
}

impl Default for Followed {
    fn default() -> Self {
        Self::Known(Channel::default())
    }
}

impl Memory {
    /// What a folder has; none is an empty one. A damaged file is set aside, and the text says so to whoever owns the box;
    /// it is said once, for the next who reads finds none.
    ///
    /// # Errors
    /// The file cannot be read or set aside.
    pub fn read(folder: &Path) -> Result<(Self, Option<String>), FileError> {
        let path = folder.join(NAME);
        let damage = match files::read(&path, MAX_BYTES) {
            Ok(text) => match serde_json::from_slice(&text) {
                Ok(memory) => return Ok((memory, None)),
                Err(error) => error.to_string(),
            },
            Err(error) if error.is_absent() => return Ok((Self::default(), None)),
            Err(error @ FileError::TooLong { .. }) => error.to_string(),
            Err(error) => return Err(error),
        };
        let mut aside = path.as_os_str().to_owned();
        aside.push(".damaged");
        fs::rename(&path, &aside).map_err(|source| FileError::new("set aside", &path, source))?;
        files::sync_folder_of(&path)?;
        let said = format!(
            "what this machine remembered of updates was damaged and is lost, so for once it cannot tell an older \
             statement from a newer one; it lies in {} ({damage})",
            Path::new(&aside).display()
        );
        Ok((Self::default(), Some(punktfunk_os::status::bounded(&said))))
    }

    /// Writes it, in one step.
    ///
    /// # Errors
    /// The folder cannot be made or the file not be written.
    pub fn save(&self, folder: &Path) -> Result<(), FileError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| FileError::new("make the folder", folder, source))?;
        let path = folder.join(NAME);
        let text = serde_json::to_vec_pretty(self)
            .map_err(|source| FileError::new("put into words", &path, io::Error::other(source)))?;
        files::replace(&path, &text, 0o600)
    }

    /// Where releases come from; the channel for everybody where a newer program follows one that this one does not know.
    pub fn channel(&self) -> Channel {
        match self.channel {
            Followed::Known(channel) => channel,
            Followed::Other(_) => Channel::default(),
        }
    }

    /// Has releases come from this channel from now on.
    pub fn follow(&mut self, channel: Channel) {
        self.channel = Followed::Known(channel);
    }

    /// What was seen of a channel.
    pub fn seen(&self, channel: Channel) -> &Seen {
        match channel {
            Channel::Stable => &self.stable,
            Channel::Next => &self.next,
        }
    }

    /// The time of the newest statement of any channel, in seconds since 1970. No clock that stands before it is right.
    pub fn newest_made_at(&self) -> u64 {
        self.stable.newest_made_at.max(self.next.newest_made_at)
    }

    /// Whether a key is not trusted any more.
    pub fn has_revoked(&self, key: KeyId) -> bool {
        let id = key.to_string();
        self.revoked.contains(&id)
    }

    /// The memory after a statement was believed, the digest of whose text this is.
    pub fn after(&self, statement: &Statement, digest: BlobDigest) -> Self {
        let mut memory = self.clone();
        memory.floor = memory.floor.max(statement.floor);
        for id in &statement.revoked {
            if !memory.revoked.contains(id) {
                memory.revoked.push(id.clone());
            }
        }
        let seen = match statement.channel {
            Channel::Stable => &mut memory.stable,
            Channel::Next => &mut memory.next,
        };
        if statement.made_at > seen.newest_made_at {
            seen.newest_made_at = statement.made_at;
            seen.statement = Some(digest);
        }
        let offered = statement.releases.iter().map(|release| release.version).max();
        seen.highest = seen.highest.max(offered);
        memory
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn written(folder: &Path) -> String {
        fs::read_to_string(folder.join(NAME)).unwrap()
    }

    #[test]
    fn what_is_saved_is_read_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("os");
        let (mut memory, said) = Memory::read(&state).unwrap();
        assert_eq!((&memory, said), (&Memory::default(), None));
        memory.follow(Channel::Next);
        memory.floor = Some(Version::new(1, 2, 3));
        memory.stable.highest = Some(Version::new(1, 3, 0));
        memory.stable.statement = Some(BlobDigest::of(b"it"));
        memory.save(&state).unwrap();
        let (read, said) = Memory::read(&state).unwrap();
        assert_eq!((&read, said, read.channel()), (&memory, None, Channel::Next));
        let mode = fs::metadata(state.join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn an_older_program_keeps_what_a_newer_one_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let newer = r#"{"channel": "canary", "mood": {"now": "fine"}, "canary": {"newest_made_at": 9},
            "next": {"newest_made_at": 7, "hue": "red"}, "revoked": ["a key of a later kind"]}"#;
        fs::write(folder.path().join(NAME), newer).unwrap();
        let (memory, said) = Memory::read(folder.path()).unwrap();
        assert_eq!((said, memory.channel(), memory.newest_made_at()), (None, Channel::Stable, 7));
        memory.save(folder.path()).unwrap();
        let text = written(folder.path());
        for kept in ["\"canary\"", "\"fine\"", "\"red\"", "a key of a later kind"] {
            assert!(text.contains(kept), "{text}");
        }
        assert_eq!(text.matches("canary").count(), 2, "{text}");
    }

    #[test]
    fn a_damaged_one_is_set_aside_and_said_once() {
        let folder = tempfile::tempdir().unwrap();
        for damage in [r#"{"floor": "#, r#"{"floor": 7}"#, "\0\0\0\0", "[]x"] {
            fs::write(folder.path().join(NAME), damage).unwrap();
            let (memory, said) = Memory::read(folder.path()).unwrap();
            assert_eq!(memory, Memory::default());
            assert!(said.unwrap().contains("updates.json.damaged"));
            let aside = folder.path().join("updates.json.damaged");
            assert_eq!(fs::read_to_string(aside).unwrap(), damage);
            assert_eq!(Memory::read(folder.path()).unwrap(), (Memory::default(), None));
        }
        fs::write(folder.path().join(NAME), vec![b' '; (1 << 20) + 1]).unwrap();
        assert!(Memory::read(folder.path()).unwrap().1.unwrap().contains("longer than"));
    }

    #[test]
    fn what_cannot_be_read_is_no_empty_memory() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(NAME)).unwrap();
        assert!(Memory::read(folder.path()).is_err());
    }
}
