//! A copy of what the owner cannot get back - settings, apps, paired devices, keys - that may lie anywhere, because
//! nobody reads it without the passphrase.
//!
//! The store copies its tables, [`contents`] writes them down, [`sealed`] encrypts them. A backup is checked as a whole,
//! keys and pictures included, before anything is replaced, and then all is replaced in one transaction. Who is trusted
//! and what each device may do holds at once, so that no change of the owner's falls between two lists; the rest takes
//! effect when the host starts again, which is when keys and settings are read.
//!
//! What games saved is another file, of any size: [`homes`].
//!
//! Deliberately absent: a way in. Who the owner is, logins, tokens and the claim are not copied and not touched, so that
//! whoever restores a backup needs a login of this host's, and gets none of another's.

mod contents;
mod head;
pub mod homes;
mod sealed;

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::crypto::aws_lc_rs::default_provider;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use utoipa::ToSchema;
use zeroize::{Zeroize, Zeroizing};

use crate::config::art;
use crate::identity::{Identity, IdentityError};
use crate::store::{
    Cell, ClientId, MAX_ART_TOTAL_BYTES, MAX_CERTIFICATE_BYTES, Store, StoreCopy, StoreError,
    StoredIdentity, TableCopy,
};

pub use head::Strength;

/// The largest backup, in bytes.
pub const MAX_BACKUP_BYTES: usize = 64 * 1024 * 1024;
/// The shortest passphrase of a new backup, in characters: whoever has the file may guess as long as it likes.
pub const MIN_PASSPHRASE_CHARS: usize = 12;
/// The longest passphrase, in bytes.
pub const MAX_PASSPHRASE_BYTES: usize = 1024;

/// The longest text of a backup, in bytes; one that the owner gives the host is shorter than a request.
const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What protects a backup. Wiped when it is dropped; never shown.
#[derive(Clone, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, min_length = 12, max_length = 1024)]
pub struct Passphrase(String);

impl Passphrase {
    /// This text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether a new backup may have it.
    fn check_new(&self) -> Result<(), BackupError> {
        let long = self.0.chars().count() >= MIN_PASSPHRASE_CHARS;
        if long && self.0.len() <= MAX_PASSPHRASE_BYTES {
            Ok(())
        } else {
            Err(BackupError::Passphrase)
        }
    }

    /// Whether any backup may have it: who derives keys works longer for a longer one.
    fn check_known(&self) -> Result<(), BackupError> {
        if self.0.len() <= MAX_PASSPHRASE_BYTES {
            Ok(())
        } else {
            Err(BackupError::WrongPassphrase)
        }
    }
}

impl Drop for Passphrase {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Passphrase(redacted)")
    }
}

/// Why there is no backup, or none was restored. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The passphrase is too short or too long.
    #[error(
        "the passphrase is to have {MIN_PASSPHRASE_CHARS} characters or more, and at most {MAX_PASSPHRASE_BYTES} \
         bytes: whoever has the backup may guess as often as it likes"
    )]
    Passphrase,
    /// Another one is being made or restored.
    #[error("another backup is being made or restored; try again when it is done")]
    Busy,
    /// It would be, or is, too large.
    #[error("a backup may have {MAX_BACKUP_BYTES} bytes; this one has {got}")]
    TooLarge {
        /// Its length in bytes.
        got: usize,
    },
    /// The file is none.
    #[error("this file is no backup of a punktfunk host, or it was cut off")]
    NoBackup,
    /// It was written by a host that is too new.
    #[error(
        "this backup needs a newer host: it has format {got}, this host knows {known}; update the host first"
    )]
    TooNew {
        /// What it needs.
        got: u32,
        /// What this host knows.
        known: u32,
    },
    /// It cannot be decrypted.
    #[error("the passphrase is wrong, or the file was changed since it was made")]
    WrongPassphrase,
    /// It was decrypted and cannot be taken.
    #[error("the backup cannot be restored: {what}")]
    Unfit {
        /// Why.
        what: String,
    },
    /// The system gave no random bytes, or no key.
    #[error("the backup's key could not be made: {0}")]
    Key(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BackupError {
    fn unfit(what: &str) -> Self {
        Self::Unfit { what: what.to_owned() }
    }
}

/// What a backup brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// The version of the host that made it.
    pub made_by: String,
    /// The rows of each table, by its name.
    pub rows: Vec<(String, usize)>,
    /// The devices that were trusted before and are not any more.
    pub gone: Vec<ClientId>,
    /// The devices that could use keyboard and pointer before and cannot any more.
    pub curbed: Vec<ClientId>,
}

/// Makes and restores backups, one at a time; clones share it. All calls take long: they wait for the disk and derive a
/// key, for which they use 64 MiB of memory.
#[derive(Clone)]
pub struct Backups {
    store: Store,
    strength: Strength,
    turns: Turns,
}

/// Lets one backup be made or restored at a time; clones share it.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<Option<Deed>>>);

/// What is done with a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Make,
    Restore,
    MakeOfHomes,
    RestoreOfHomes,
}

/// Nobody else makes or restores a backup until it is dropped.
struct Turn(Turns);

impl Turns {
    fn take(&self, deed: Deed) -> Result<Turn, BackupError> {
        let mut place = self.lock();
        if place.is_some() {
            return Err(BackupError::Busy);
        }
        *place = Some(deed);
        Ok(Turn(self.clone()))
    }

    // It is whole between statements.
    fn lock(&self) -> MutexGuard<'_, Option<Deed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Deed {
    /// As the owner reads it, among the names of devices.
    const fn name(self) -> &'static str {
        match self {
            Self::Make => "a backup",
            Self::Restore => "a restore",
            Self::MakeOfHomes => "a backup of homes",
            Self::RestoreOfHomes => "a restore of homes",
        }
    }
}

impl fmt::Debug for Backups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backups").finish_non_exhaustive()
    }
}

impl Backups {
    /// Backups of this store, whose keys are derived with this strength.
    pub fn new(store: Store, strength: Strength) -> Self {
        Self { store, strength, turns: Turns::default() }
    }

    /// What a restart would cut off now, as the owner reads it, such as `a backup of homes`.
    pub fn under_way(&self) -> Option<&'static str> {
        self.turns.lock().map(Deed::name)
    }

    /// A backup of all that is there now.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn make(&self, passphrase: &Passphrase) -> Result<Vec<u8>, BackupError> {
        passphrase.check_new()?;
        let _turn = self.turns.take(Deed::Make)?;
        let copy = self.store.copy()?;
        let made = sealed::seal(passphrase.bytes(), self.strength, |room| {
            contents::write(&copy, env!("CARGO_PKG_VERSION"), room)
        })?;
        tracing::info!(bytes = made.len(), "a backup was made");
        Ok(made)
    }

    /// Puts what is in a backup in the place of what is there. Paired devices and what they may do hold at once, all
    /// else when the host starts again.
    ///
    /// # Errors
    /// See [`BackupError`].
    pub fn restore(&self, passphrase: &Passphrase, backup: &[u8]) -> Result<Restored, BackupError> {
        passphrase.check_known()?;
        if backup.len() > MAX_BACKUP_BYTES {
            return Err(BackupError::TooLarge { got: backup.len() });
        }
        let _turn = self.turns.take(Deed::Restore)?;
        let opened = sealed::open(passphrase.bytes(), backup)?;
        let (copy, made_by) = contents::read(&opened)?;
        check(&copy)?;
        let (gone, curbed) = self.store.restore(&copy)?;
        let rows = |table: &TableCopy| (table.name.clone(), table.rows.len());
        tracing::info!(made_by, "a backup was restored; it holds when the host starts again");
        Ok(Restored { made_by, rows: copy.tables.iter().map(rows).collect(), gone, curbed })
    }
}

/// Whether a host can start with this: what it cannot do without is there and fits together. Settings and apps are
/// checked whenever they are loaded, and passed over if they are wrong.
fn check(copy: &StoreCopy) -> Result<(), BackupError> {
    let known = Store::known_schema();
    if copy.min_reader > known {
        return Err(BackupError::TooNew { got: copy.min_reader, known });
    }
    let unfit = BackupError::unfit;
    // Settings and apps are read again and again.
    let is_long = |cell: &Cell| matches!(cell, Cell::Text(text) if text.len() > MAX_TEXT_BYTES);
    if copy.tables.iter().any(|table| table.rows.iter().flatten().any(is_long)) {
        return Err(unfit("a text in it is longer than any that a host keeps"));
    }
    let identity = copy.table("identity").ok_or_else(|| unfit("it has no host key"))?;
    let [row] = identity.rows.as_slice() else { return Err(unfit("it has no host key")) };
    check_identity(identity, row)?;
    if let Some(console) = copy.table("console_identity") {
        console.rows.iter().try_for_each(|row| check_console(console, row))?;
    }
    if let Some(clients) = copy.table("client") {
        for row in &clients.rows {
            let certificate = clients.blob(row, "certificate_der").unwrap_or_default();
            let own = ClientId::of_certificate(certificate).0;
            let fits = (1..=MAX_CERTIFICATE_BYTES).contains(&certificate.len())
                && clients.blob(row, "id") == Some(&own);
            if !fits {
                return Err(unfit("a device in it has another certificate than it should"));
            }
        }
    }
    copy.table("app").map_or(Ok(()), check_pictures)
}

/// As when the owner gives an app a picture: clients unpack them.
fn check_pictures(apps: &TableCopy) -> Result<(), BackupError> {
    let unfit = |what: String| BackupError::Unfit { what };
    let mut bytes = 0;
    for picture in apps.rows.iter().filter_map(|row| apps.blob(row, "art")) {
        art::check(picture).map_err(|error| unfit(format!("of an app in it {error}")))?;
        bytes += picture.len();
    }
    if bytes > MAX_ART_TOTAL_BYTES {
        let error = StoreError::TooMuchArt { max: MAX_ART_TOTAL_BYTES };
        return Err(unfit(error.to_string()));
    }
    Ok(())
}

fn check_identity(table: &TableCopy, row: &[Cell]) -> Result<(), BackupError> {
    let bytes = |column| table.blob(row, column).unwrap_or_default().to_vec();
    let host_id = match table.cell(row, "host_id") {
        Some(Cell::Text(text)) => text.clone(),
        _ => String::new(),
    };
    let stored = StoredIdentity {
        host_id,
        certificate_der: bytes("certificate_der"),
        private_key_der: Zeroizing::new(bytes("private_key_der")),
    };
    Identity::from_stored(stored).map(drop).map_err(|error| BackupError::Unfit {
        what: match error {
            IdentityError::Damaged { what } => format!("the host's key is damaged ({what})"),
            other => other.to_string(),
        },
    })
}

/// The console must come up whatever happens, so no key gets in its way that TLS would not take.
fn check_console(table: &TableCopy, row: &[Cell]) -> Result<(), BackupError> {
    let unfit = || BackupError::Unfit { what: "the console's key is damaged".to_owned() };
    let bytes = |column| table.blob(row, column).unwrap_or_default().to_vec();
    let chain = vec![CertificateDer::from(bytes("certificate_der"))];
    let key = PrivateKeyDer::try_from(bytes("private_key_der")).map_err(|_| unfit())?;
    CertifiedKey::from_der(chain, key, &default_provider()).map(drop).map_err(|_| unfit())
}

#[cfg(test)]
mod tests;
