//! What root remembers between starts: attempts, what was bad, what the last good start had running.
//!
//! One file, replaced as a whole, readable by root alone. It is shared by all deployments, so an older program reads
//! what a newer one wrote: fields that it does not know are kept as they are, and words that it does not know are
//! [`Outcome::Unknown`]. A damaged file is set aside and said, never a reason not to start.
//!
//! Deliberately absent: anything that the boot loader counts. That is in the names on the ESP alone.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::files::{self, FileError};
use crate::model::DeploymentId;
use crate::status::{Attempt, Bad, MAX_ATTEMPTS, Outcome};

/// No ledger is longer, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// So many bad deployments are remembered; the oldest are forgotten first.
pub const MAX_BAD: usize = 64;

/// So many units of a good start are remembered.
pub const MAX_UNITS: usize = 1024;

/// So many remarks are kept.
const MAX_REMARKS: usize = 16;

/// So long it is waited for a program that holds it; none needs it for more than a few writes.
const MAX_WAIT: Duration = Duration::from_secs(60);

/// How long it is waited before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

/// The file in root's folder of state.
pub const NAME: &str = "ledger.json";

/// The whole of it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ledger {
    /// The number of the last attempt.
    pub last_number: u64,
    /// The newest last, at most [`MAX_ATTEMPTS`].
    pub attempts: Vec<Record>,
    /// The newest last, at most [`MAX_BAD`].
    pub bad: Vec<Bad>,
    /// The last start that was found good.
    pub blessed: Option<Blessed>,
    /// The start that is going on, or the last one.
    pub boot: Option<Boot>,
    /// Tries that were given back, the newest last, at most [`MAX_ATTEMPTS`].
    pub given_back: Vec<GivenBack>,
    /// Deployments that fell or were to be removed and may still be there, by commit and serial number, the newest last,
    /// at most [`MAX_BAD`].
    pub fallen: Vec<String>,
    /// The size of the partition that the file system was last grown to, in bytes.
    pub grown_to_bytes: u64,
    /// When somebody was last seen at the machine, in seconds since 1970.
    pub presence_at: Option<u64>,
    /// What a newer program wrote.
    #[serde(flatten)]
    pub rest: Map<String, Value>,
}

/// An attempt, and in which start it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The kernel's name for the start; empty when it never came so far as to say.
    #[serde(default)]
    pub boot_id: String,
    /// What everybody may know.
    #[serde(flatten)]
    pub attempt: Attempt,
}

/// A start that was found good.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Blessed {
    /// What ran.
    pub commit: String,
    /// What it is called.
    pub version: String,
    /// The services that were up, at most [`MAX_UNITS`].
    pub units: Vec<String>,
}

/// One start.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Boot {
    /// The kernel's name for it.
    pub boot_id: String,
    /// What was started.
    pub commit: String,
    /// What it is called.
    pub version: String,
    /// What was found.
    pub verdict: Option<Outcome>,
    /// What somebody ought to know about it.
    pub remarks: Vec<String>,
}

/// How often a try was given back, so that a deployment which always shuts down in good order ends, too.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GivenBack {
    /// The deployment, by commit and serial number.
    pub id: String,
    /// How often.
    pub times: u32,
}

/// The ledger of a folder, held by one process at a time until it is dropped.
#[derive(Debug)]
pub struct Held {
    /// What it says.
    pub ledger: Ledger,
    path: PathBuf,
    _lock: File,
}

impl Held {
    /// Waits until no other process holds it, a minute at most, and reads it.
    pub fn open(folder: &Path) -> Result<Self, FileError> {
        Self::open_within(folder, MAX_WAIT)
    }

    fn open_within(folder: &Path, most: Duration) -> Result<Self, FileError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|source| FileError::new("make the folder", folder, source))?;
        let path = folder.join(NAME);
        let lock_path = folder.join("ledger.lock");
        let failed = |source| FileError::new("lock", &lock_path, source);
        let lock = File::create(&lock_path).map_err(failed)?;
        lock_within(&lock, most).map_err(failed)?;
        let ledger = read(&path)?;
        Ok(Self { ledger, path, _lock: lock })
    }

    /// Writes it.
    pub fn save(&mut self) -> Result<(), FileError> {
        self.ledger.trim();
        let text = serde_json::to_vec_pretty(&self.ledger).map_err(|source| {
            FileError::new("put into words", &self.path, io::Error::other(source))
        })?;
        files::replace(&self.path, &text, 0o600)
    }
}

/// Locks a file. A start must not hang because a program that holds the lock does.
fn lock_within(lock: &File, most: Duration) -> io::Result<()> {
    let began = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if began.elapsed() < most => thread::sleep(PAUSE),
            Err(TryLockError::WouldBlock) => {
                let text = format!("another program has held it for {} s", most.as_secs());
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
        }
    }
}

/// Reads a ledger; none is an empty one, and a damaged one is set aside.
fn read(path: &Path) -> Result<Ledger, FileError> {
    let damage = match files::read(path, MAX_BYTES) {
        Ok(text) => match serde_json::from_slice(&text) {
            Ok(ledger) => return Ok(ledger),
            Err(error) => error.to_string(),
        },
        Err(error) if error.is_absent() => return Ok(Ledger::default()),
        Err(error @ FileError::TooLong { .. }) => error.to_string(),
        Err(error) => return Err(error),
    };
    let mut aside = path.as_os_str().to_owned();
    aside.push(".damaged");
    fs::rename(path, &aside).map_err(|source| FileError::new("set aside", path, source))?;
    files::sync_folder_of(path)?;
    let mut ledger = Ledger::default();
    ledger.remark(&format!(
        "what this machine remembered of its systems was damaged and is lost; it lies in {} ({damage})",
        Path::new(&aside).display()
    ));
    Ok(ledger)
}

impl Ledger {
    /// Adds to what somebody ought to know about this start.
    pub fn remark(&mut self, text: &str) {
        let remarks = &mut self.boot.get_or_insert_default().remarks;
        let text = crate::status::bounded(text);
        if remarks.len() < MAX_REMARKS && !remarks.contains(&text) {
            remarks.push(text);
        }
    }

    /// Adds an attempt, and gives it the next number.
    pub fn attempt(
        &mut self,
        boot_id: &str,
        commit: &str,
        version: &str,
        from: &str,
    ) -> &mut Record {
        self.last_number = self.last_number.saturating_add(1);
        let attempt = Attempt {
            number: self.last_number,
            commit: commit.to_owned(),
            version: version.to_owned(),
            from: from.to_owned(),
            outcome: Outcome::Pending,
        };
        let at = self.attempts.len();
        self.attempts.push(Record { boot_id: boot_id.to_owned(), attempt });
        &mut self.attempts[at]
    }

    /// The attempt that this start is, if it is one.
    pub fn attempt_of(&mut self, boot_id: &str) -> Option<&mut Record> {
        self.attempts.iter_mut().rev().find(|record| record.boot_id == boot_id)
    }

    /// Why a commit is bad, if it is.
    pub fn bad(&self, commit: &str) -> Option<&Bad> {
        self.bad.iter().find(|bad| bad.commit == commit)
    }

    /// Whether a deployment fell and may still be there.
    pub fn has_fallen(&self, id: &DeploymentId) -> bool {
        self.fallen.contains(&id.to_string())
    }

    /// Forgets that a deployment fell: it runs, or another has got its name.
    pub fn risen(&mut self, id: &DeploymentId) {
        let id = id.to_string();
        self.fallen.retain(|fallen| *fallen != id);
    }

    /// Keeps to the limits; the newest stay.
    fn trim(&mut self) {
        self.attempts.drain(..self.attempts.len().saturating_sub(MAX_ATTEMPTS));
        self.given_back.drain(..self.given_back.len().saturating_sub(MAX_ATTEMPTS));
        self.bad.drain(..self.bad.len().saturating_sub(MAX_BAD));
        self.fallen.drain(..self.fallen.len().saturating_sub(MAX_BAD));
        if let Some(blessed) = &mut self.blessed {
            blessed.units.truncate(MAX_UNITS);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::status::{Check, MAX_LOG_LINES, Status};

    #[test]
    fn what_is_saved_is_read_and_nobody_elses() {
        let folder = tempfile::tempdir().unwrap();
        let mut held = Held::open(folder.path()).unwrap();
        for _ in 0..20 {
            held.ledger.attempt("b", "c", "0.2.0", "0.1.0");
        }
        held.save().unwrap();
        let written = held.ledger.clone();
        drop(held);
        let read = Held::open(folder.path()).unwrap().ledger;
        assert_eq!(read, written);
        assert_eq!((read.attempts.len(), read.attempts[15].attempt.number), (16, 20));
        let mode = fs::metadata(folder.path().join(NAME)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn the_fullest_can_be_read_again() {
        // What takes most room in a file, of each byte two.
        let text = crate::status::bounded(&"\"".repeat(1000));
        let long = |bytes| "u".repeat(bytes);
        let check = Check { name: "self-test".to_owned(), passed: false, detail: text.clone() };
        let log = vec![text.clone(); MAX_LOG_LINES];
        let failed = Outcome::Failed { reason: text.clone(), checks: vec![check; 8], log };
        let bad = Bad { commit: long(64), version: long(64), reason: text.clone(), at: u64::MAX };
        let mut ledger = Ledger {
            bad: vec![bad; MAX_BAD + 1],
            fallen: vec![long(80); MAX_BAD + 1],
            given_back: vec![GivenBack { id: long(80), times: u32::MAX }; MAX_ATTEMPTS + 1],
            blessed: Some(Blessed {
                commit: long(64),
                version: long(64),
                units: vec![long(255); MAX_UNITS + 1],
            }),
            boot: Some(Boot { boot_id: long(36), commit: long(64), ..Boot::default() }),
            ..Ledger::default()
        };
        (0..MAX_REMARKS + 1).for_each(|at| ledger.remark(&format!("{at}{text}")));
        for _ in 0..=MAX_ATTEMPTS {
            ledger.attempt(&long(36), &long(64), &long(64), &long(64));
        }
        ledger.attempts.iter_mut().for_each(|one| one.attempt.outcome = failed.clone());
        ledger.boot.as_mut().unwrap().verdict = Some(failed);

        let folder = tempfile::tempdir().unwrap();
        let mut held = Held::open(folder.path()).unwrap();
        held.ledger = ledger;
        held.save().unwrap();
        drop(held);
        let ledger = Held::open(folder.path()).unwrap().ledger;
        assert_eq!((ledger.bad.len(), ledger.attempts.len()), (MAX_BAD, MAX_ATTEMPTS));

        let boot = ledger.boot.unwrap();
        let deployment = crate::status::Deployment {
            commit: long(64),
            version: long(64),
            made_at: u64::MAX,
            role: crate::status::Role::Pinned,
            pinned: true,
        };
        let status = Status {
            schema: 1,
            boot_id: boot.boot_id,
            deployments: vec![deployment; 32],
            counted: None,
            attempts: ledger.attempts.into_iter().map(|record| record.attempt).collect(),
            bad: ledger.bad,
            verdict: boot.verdict,
            free_bytes: u64::MAX,
            presence_at: Some(u64::MAX),
            remarks: boot.remarks,
        };
        let path = folder.path().join("status.json");
        status.write(&path).unwrap();
        assert_eq!(Status::read(&path).unwrap(), status);
    }

    #[test]
    fn whoever_holds_it_is_not_waited_for_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let held = Held::open(folder.path()).unwrap();
        let refused = Held::open_within(folder.path(), Duration::ZERO).unwrap_err().to_string();
        assert!(refused.contains("another program has held it for 0 s"), "{refused}");
        drop(held);
        Held::open_within(folder.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn an_older_program_keeps_what_a_newer_one_wrote() {
        let folder = tempfile::tempdir().unwrap();
        let newer = r#"{"last_number": 7, "mood": {"now": "fine"}, "attempts": [{"number": 7,
            "commit": "c", "version": "0.2.0", "from": "0.1.0", "outcome": {"is": "postponed"}}]}"#;
        fs::write(folder.path().join(NAME), newer).unwrap();
        let mut held = Held::open(folder.path()).unwrap();
        assert_eq!(held.ledger.attempts[0].attempt.outcome, Outcome::Unknown);
        held.save().unwrap();
        let text = fs::read_to_string(folder.path().join(NAME)).unwrap();
        assert!(text.contains("\"now\": \"fine\""), "{text}");
    }

    #[test]
    fn a_damaged_one_is_set_aside_and_said() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "{\"last_number\": ").unwrap();
        let held = Held::open(folder.path()).unwrap();
        assert_eq!(held.ledger.last_number, 0);
        assert!(held.ledger.boot.unwrap().remarks[0].contains("ledger.json.damaged"));
        let aside = fs::read_to_string(folder.path().join("ledger.json.damaged")).unwrap();
        assert_eq!(aside, "{\"last_number\": ");
    }
}
