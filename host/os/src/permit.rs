//! The permit to start a version below the floor: once, and in the start of the machine in which the owner proved it.
//!
//! The owner's proof reaches one program of root's and the version is arranged by another, so one leaves a small file and
//! the other takes it. It names the commit and the start, and holds for an hour: the wall clock decides nothing, and a
//! permit that nobody took before the machine was started again is none. A newer permit takes the place of an older one.
//!
//! Deliberately absent: the proof. It was looked at before the file was written, and whoever can write it is root.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};

/// The file in root's folder of state.
pub const NAME: &str = "permit.json";

/// The owner waits that long at most for the machine to have nobody who plays.
pub const HOLDS: Duration = Duration::from_secs(3600);

/// It is never longer, in bytes.
const MAX_BYTES: u64 = 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Permit {
    commit: String,
    boot_id: String,
    /// When it was given, in seconds since the start, sleep counted in.
    given: u64,
}

/// Permits one start of a commit (64 hexadecimal digits), to be arranged in this start of the machine. `now` is the time since
/// that, sleep counted in.
///
/// # Errors
/// The disk did not take it; then nothing is permitted.
pub fn write(folder: &Path, commit: &str, boot_id: &str, now: Duration) -> Result<(), FileError> {
    let path = folder.join(NAME);
    let (commit, boot_id) = (commit.to_owned(), boot_id.to_owned());
    let permit = Permit { commit, boot_id, given: now.as_secs() };
    let text = serde_json::to_vec(&permit)
        .map_err(|source| FileError::new("put into words", &path, std::io::Error::other(source)))?;
    files::replace(&path, &text, 0o600)
}

/// Whether this commit may be started although it is below the floor; it may not a second time. A permit of something
/// else stays as it is, and one that cannot be understood is none. A start without a name (`boot_id` is empty) has no
/// permits.
///
/// # Errors
/// The file could not be read, or not be removed; then nothing is permitted.
pub fn take(folder: &Path, commit: &str, boot_id: &str, now: Duration) -> Result<bool, FileError> {
    let path = folder.join(NAME);
    let text = match files::read(&path, MAX_BYTES) {
        Ok(text) => text,
        Err(error) if error.is_absent() => return Ok(false),
        Err(FileError::TooLong { .. }) => return Ok(false),
        Err(error) => return Err(error),
    };
    let is_this = |permit: Permit| {
        let ago = now.as_secs().checked_sub(permit.given);
        let holds = ago.is_some_and(|ago| ago <= HOLDS.as_secs());
        permit.commit == commit && permit.boot_id == boot_id && holds
    };
    if boot_id.is_empty() || !serde_json::from_slice(&text).is_ok_and(is_this) {
        return Ok(false);
    }
    // It is gone before it counts: a cut of the power costs a permit and never doubles one.
    fs::remove_file(&path).map_err(|source| FileError::new("use up", &path, source))?;
    files::sync_folder_of(&path)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const NOW: Duration = Duration::from_secs(5000);

    #[test]
    fn a_permit_is_for_one_commit_in_one_start_once() {
        let folder = tempfile::tempdir().unwrap();
        let take = |commit: &str, boot_id: &str| take(folder.path(), commit, boot_id, NOW).unwrap();
        let [one, other] = ["a".repeat(64), "b".repeat(64)];
        assert!(!take(&one, "this"), "nobody gave one");
        write(folder.path(), &one, "this", NOW).unwrap();
        let path = folder.path().join(NAME);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for (commit, boot_id) in [(&other, "this"), (&one, "other"), (&one, "")] {
            assert!(!take(commit, boot_id), "{commit} {boot_id}");
        }
        assert!(take(&one, "this") && !take(&one, "this"));
        assert!(!path.exists());
        write(folder.path(), &one, "this", NOW).unwrap();
        write(folder.path(), &other, "this", NOW).unwrap();
        assert!(!take(&one, "this") && take(&other, "this"), "the newer one holds");
        write(folder.path(), &one, "", NOW).unwrap();
        assert!(!take(&one, ""), "a start without a name is no start");
    }

    #[test]
    fn a_permit_holds_for_an_hour() {
        let folder = tempfile::tempdir().unwrap();
        for (now, good) in [(4999, false), (5000, true), (8600, true), (8601, false)] {
            write(folder.path(), "c", "this", NOW).unwrap();
            let taken = take(folder.path(), "c", "this", Duration::from_secs(now)).unwrap();
            assert_eq!(taken, good, "{now}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_none_and_what_cannot_be_used_up_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        for text in ["", "{", "{\"commit\":7}", &"x".repeat(2000)] {
            fs::write(&path, text).unwrap();
            assert!(!take(folder.path(), "c", "this", NOW).unwrap(), "{text}");
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(take(folder.path(), "c", "this", NOW).is_err());
    }
}
