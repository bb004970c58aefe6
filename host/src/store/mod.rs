//! What the daemon remembers: the host's identity and the clients it trusts.
//!
//! One SQLite database in a folder of the daemon alone (mode 0700). The database is shared by all deployments of a
//! machine, so that an older daemon must open what a newer one left: migrations only add, and the file itself states
//! the oldest schema version that may read it (see [`schema`](self)). Whoever must decide about a client per request
//! asks a set in memory; a pairing is in the file, flushed to the disk, before it is in that set.
//!
//! Deliberately absent: a way to delete or to repair a damaged database. It holds what the owner cannot get back, so
//! the error names the file and what to do, and the file stays as it is.

mod access;
mod app;
mod audit;
mod client;
mod console;
mod copy;
mod folder;
mod network;
mod os;
mod past;
mod policy;
mod revision;
mod schema;
mod setting;
mod vouch;

use std::collections::HashMap;
use std::fs::File;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, ErrorCode, OptionalExtension, params};
use zeroize::Zeroizing;

use self::revision::Part;
use crate::agent::ProfileNumber;

#[cfg(test)]
pub(crate) use access::Struck;
pub use access::{
    FinishedClaim, NewPassword, StoredClaim, StoredOwner, StoredSession, StoredToken,
};
pub use app::{MAX_ART_TOTAL_BYTES, StoredApp};
pub use audit::{AuditEntry, AuditKind, AuditRow, MAX_AUDIT_ROWS};
pub use client::{ClientId, ClientIdError, NewClient, PairedClient, clean_name};
pub use console::StoredConsole;
pub use copy::{COPIED_TABLES, Cell, StoreCopy, TableCopy};
pub use network::PreparedNetwork;
pub use os::OsRow;
pub use past::{EndedSession, MAX_PAST_SESSIONS, PastSession};
pub use policy::{MAX_EXPIRES_AT, Permission, Policy};
pub use revision::Revisions;
pub use vouch::{StoredLink, StoredVouch};

/// As many clients as one host remembers.
pub const MAX_CLIENTS: usize = 512;
/// The largest certificate that is stored, in bytes of DER.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;
/// The longest name of a client, in characters.
pub const MAX_NAME_CHARS: usize = 64;

/// As many profiles one host keeps for devices, numbered from 0.
pub const MAX_PROFILES: u16 = 63;

/// The profile after them, in which the host itself tries what works. No device plays in it.
pub const DOCTORS_PROFILE: u16 = MAX_PROFILES;

/// A client's "last seen" is written at most this often: it is a courtesy to the owner and not worth a flush per
/// request.
const TOUCH_INTERVAL: Duration = Duration::from_secs(300);

/// The name of the database in the state folder.
const DATABASE_NAME: &str = "state.db";

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state folder could not be made or read.
    #[error("cannot use the state folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The state folder belongs to another user.
    #[error(
        "the state folder {} belongs to user {got}, the host runs as user {want}; \
         give it to that user (chown) or name another folder",
        path.display()
    )]
    FolderOwner {
        /// The folder.
        path: PathBuf,
        /// Its owner's uid.
        got: u32,
        /// The daemon's uid.
        want: u32,
    },
    /// Others may read the state folder, which holds a private key.
    #[error(
        "the state folder {} has mode {got:04o} and is open to others; run: chmod 700 {}",
        path.display(), path.display()
    )]
    FolderMode {
        /// The folder.
        path: PathBuf,
        /// Its permission bits.
        got: u32,
    },
    /// Another daemon uses this state folder.
    #[error("another host already uses the state folder {}; stop it first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The database was written by a daemon so new that this one may not read it.
    #[error(
        "the database {} needs a host that knows schema {min_reader}; this one knows {known}: \
         start the newer host, or restore an older copy of the file",
        path.display()
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// The oldest schema version that may read it.
        min_reader: u32,
        /// The newest schema version this daemon knows.
        known: u32,
    },
    /// The database is damaged.
    #[error(
        "the database {} is damaged ({detail}); nothing in it was changed. Restore a copy, or \
         move it aside and start again: every device must then be paired anew",
        path.display()
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// The schema could not be brought up to date.
    #[error("cannot bring the database {} up to date: {source}", path.display())]
    Migrate {
        /// The database.
        path: PathBuf,
        /// What went wrong.
        source: rusqlite_migration::Error,
    },
    /// A statement failed.
    #[error("cannot {doing}: {source}")]
    Sql {
        /// What was being done.
        doing: &'static str,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// As many clients are paired as the host remembers.
    #[error("{max} devices are paired, which is the limit; remove one first")]
    TooManyClients {
        /// The limit.
        max: usize,
    },
    /// Every profile belongs to a client.
    #[error(
        "{max} devices have played on this host, which is as many homes as it keeps; this one \
         gets none"
    )]
    TooManyProfiles {
        /// The limit.
        max: u16,
    },
    /// The pictures of all apps are larger than the host keeps.
    #[error(
        "the pictures of all apps together may have {max} bytes, which this one would exceed; use a smaller one"
    )]
    TooMuchArt {
        /// The limit, in bytes.
        max: usize,
    },
    /// The certificate's length is outside `1..=16384` bytes.
    #[error("a certificate of {got} bytes is outside 1..={MAX_CERTIFICATE_BYTES}")]
    CertificateLength {
        /// Its length in bytes.
        got: usize,
    },
}

/// The host's identity as it lies in the store; `identity` gives it a meaning.
pub struct StoredIdentity {
    /// The host's UUID text.
    pub host_id: String,
    /// Its certificate, DER.
    pub certificate_der: Vec<u8>,
    /// Its private key, PKCS#8.
    pub private_key_der: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for StoredIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredIdentity")
            .field("host_id", &self.host_id)
            .field("private_key_der", &"redacted")
            .finish_non_exhaustive()
    }
}

/// A handle on the open store; clones share it. The folder is free for another daemon when the last one is dropped.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    database: PathBuf,
    connection: Mutex<Connection>,
    trusted: RwLock<HashMap<ClientId, PairedClient>>,
    counts: revision::Counts,
    #[cfg(test)]
    fault: access::Fault,
    // Held for its lock, and declared last: the lock goes after the connection is closed.
    _lock: File,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("database", &self.inner.database).finish_non_exhaustive()
    }
}

impl Store {
    /// Whether there is one in `folder`.
    pub fn is_in(folder: &Path) -> bool {
        folder.join(DATABASE_NAME).is_file()
    }

    /// Opens the store in `folder`, which is made with mode 0700 if it is not there.
    ///
    /// # Errors
    /// The folder is not ours alone, another daemon uses it, or the database is damaged or too new.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        Self::open_with(folder, schema::SHIPPED)
    }

    fn open_with(folder: &Path, schema: schema::Schema) -> Result<Self, StoreError> {
        folder::ensure_private(folder)?;
        let lock = folder::lock(folder)?;
        let database = folder.join(DATABASE_NAME);
        folder::create_private_file(&database)?;
        let damaged = |source| as_damaged(&database, "open the database", source);
        let mut connection = Connection::open(&database).map_err(damaged)?;
        configure(&connection).map_err(damaged)?;
        check(&connection, &database)?;
        schema.apply(&mut connection, &database)?;
        let trusted = client::load_all(&connection).map_err(damaged)?;
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                connection: Mutex::new(connection),
                trusted: RwLock::new(trusted),
                counts: revision::Counts::default(),
                #[cfg(test)]
                fault: access::Fault::default(),
                _lock: lock,
            }),
        })
    }

    /// The paired client with exactly this certificate. Does not touch the disk.
    // spec: gamestream 2.2
    pub fn paired_client_by_certificate(&self, der: &[u8]) -> Option<PairedClient> {
        if der.is_empty() || der.len() > MAX_CERTIFICATE_BYTES {
            return None;
        }
        let client = self.client(ClientId::of_certificate(der))?;
        (*client.certificate_der == *der).then_some(client)
    }

    /// The paired client with this id. Does not touch the disk.
    pub fn client(&self, id: ClientId) -> Option<PairedClient> {
        self.trusted().get(&id).cloned()
    }

    /// All paired clients, in the order of their pairing.
    pub fn clients(&self) -> Vec<PairedClient> {
        let mut clients: Vec<_> = self.trusted().values().cloned().collect();
        clients.sort_by_key(|client| (client.paired_at, client.id));
        clients
    }

    /// Trusts a client from now on; a client that was trusted already gets the new name, and if it was a guest whose time
    /// is over, no new end. A name that another client has gets a number. When this returns, the pairing survives a loss
    /// of power and [`Self::paired_client_by_certificate`] knows it.
    ///
    /// # Errors
    /// The certificate's length or the number of clients is over its limit, or the disk failed; the client is then
    /// not trusted.
    // spec: gamestream 3.2 (trusted before the reply to step 4)
    pub fn add_client(&self, new: NewClient) -> Result<PairedClient, StoreError> {
        let length = new.certificate_der.len();
        if length == 0 || length > MAX_CERTIFICATE_BYTES {
            return Err(StoreError::CertificateLength { got: length });
        }
        let now = unix_now();
        let mut client = PairedClient::from_new(new, now);
        // The connection is held until the set is changed too, so that the two always change in one order.
        let connection = self.connection();
        {
            let trusted = self.trusted();
            if trusted.len() >= MAX_CLIENTS && !trusted.contains_key(&client.id) {
                return Err(StoreError::TooManyClients { max: MAX_CLIENTS });
            }
            let others = trusted.values().filter(|other| other.id != client.id);
            client.name = client::unique_name(&client.name, others.map(|other| &*other.name));
            if let Some(known) = trusted.get(&client.id) {
                client.policy = known.policy;
            }
        }
        if client.policy.has_expired_at(now) {
            client.policy.expires_at = None;
        }
        let doing = "remember a paired device";
        let transaction = connection.unchecked_transaction().map_err(sql(doing))?;
        client::insert(&transaction, &client).map_err(sql(doing))?;
        policy::write(&transaction, client.id, &client.policy).map_err(sql(doing))?;
        transaction.commit().map_err(sql(doing))?;
        self.inner
            .trusted
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(client.id, client.clone());
        self.changed(Part::Clients);
        Ok(client)
    }

    /// Trusts a client no more; gives back what was known of it.
    ///
    /// # Errors
    /// The disk failed; until the daemon ends the client is not trusted all the same.
    pub fn remove_client(&self, id: ClientId) -> Result<Option<PairedClient>, StoreError> {
        let connection = self.connection();
        // Distrust first: if the disk fails, the owner's wish holds at least for this run.
        let removed =
            self.inner.trusted.write().unwrap_or_else(PoisonError::into_inner).remove(&id);
        self.changed(Part::Clients);
        client::delete(&connection, id).map_err(sql("remove a device"))?;
        Ok(removed)
    }

    /// Gives a client another name (cleaned, see [`clean_name`]); nothing if it is not paired.
    ///
    /// # Errors
    /// The disk failed; the name stays as it was.
    pub fn rename(&self, id: ClientId, name: &str) -> Result<Option<PairedClient>, StoreError> {
        let connection = self.connection();
        let Some(mut client) = self.client(id) else { return Ok(None) };
        client.name = clean_name(name).unwrap_or(client.name);
        client::set_name(&connection, id, &client.name).map_err(sql("rename a device"))?;
        self.inner
            .trusted
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, client.clone());
        self.changed(Part::Clients);
        Ok(Some(client))
    }

    /// Notes that a client was here, from `remote`. Cheap: the disk hears of it every five minutes at most.
    ///
    /// # Errors
    /// The disk failed.
    pub fn touch(&self, id: ClientId, remote: IpAddr) -> Result<(), StoreError> {
        self.touch_at(id, remote, unix_now())
    }

    fn touch_at(&self, id: ClientId, remote: IpAddr, now: u64) -> Result<(), StoreError> {
        let remote = remote.to_canonical();
        let is_due = |client: &PairedClient| {
            client.remote != Some(remote)
                || now.abs_diff(client.last_seen_at) >= TOUCH_INTERVAL.as_secs()
        };
        if !self.trusted().get(&id).is_some_and(is_due) {
            return Ok(());
        }
        let connection = self.connection();
        client::set_seen(&connection, id, remote, now).map_err(sql("note a device's visit"))?;
        if let Some(client) =
            self.inner.trusted.write().unwrap_or_else(PoisonError::into_inner).get_mut(&id)
        {
            client.remote = Some(remote);
            client.last_seen_at = now;
        }
        Ok(())
    }

    /// The profile that this client plays in: the one it had before, or the smallest number that is nobody's. It stays
    /// the client's, also when the client is removed.
    ///
    /// # Errors
    /// All are taken, or the disk failed.
    pub fn profile_of(&self, id: ClientId) -> Result<ProfileNumber, StoreError> {
        let doing = "find a device's profile";
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(sql(doing))?;
        let profile = client::profile(&transaction, id).map_err(sql(doing))?;
        let number = profile.ok_or(StoreError::TooManyProfiles { max: MAX_PROFILES })?;
        transaction.commit().map_err(sql(doing))?;
        Ok(ProfileNumber(number))
    }

    /// The profiles that there are, and whose each is, by their numbers; also of clients that are not paired any more.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn profiles(&self) -> Result<Vec<(ClientId, ProfileNumber)>, StoreError> {
        client::profiles(&self.connection()).map_err(sql("list the devices' profiles"))
    }

    /// The host's identity, if one was made.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn identity(&self) -> Result<Option<StoredIdentity>, StoreError> {
        self.connection()
            .query_row(
                "SELECT host_id, certificate_der, private_key_der FROM identity WHERE id = 1",
                [],
                |row| {
                    Ok(StoredIdentity {
                        host_id: row.get(0)?,
                        certificate_der: row.get(1)?,
                        private_key_der: Zeroizing::new(row.get(2)?),
                    })
                },
            )
            .optional()
            .map_err(sql("read the host's identity"))
    }

    /// Keeps the host's identity. It is made once: an identity that is there already is never replaced.
    ///
    /// # Errors
    /// There is one already, or the disk failed.
    pub fn put_identity(&self, identity: &StoredIdentity) -> Result<(), StoreError> {
        self.connection()
            .execute(
                "INSERT INTO identity (id, host_id, certificate_der, private_key_der)
                 VALUES (1, ?1, ?2, ?3)",
                params![
                    identity.host_id,
                    identity.certificate_der,
                    identity.private_key_der.as_slice()
                ],
            )
            .map_err(sql("keep the host's identity"))?;
        Ok(())
    }

    /// Where the database lies, to name it to the owner.
    pub fn database(&self) -> &Path {
        &self.inner.database
    }

    // A panic elsewhere while a lock was held leaves a connection and a map that are whole: each change is one
    // statement and one insertion.
    fn connection(&self) -> MutexGuard<'_, Connection> {
        self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trusted(&self) -> std::sync::RwLockReadGuard<'_, HashMap<ClientId, PairedClient>> {
        self.inner.trusted.read().unwrap_or_else(PoisonError::into_inner)
    }
}

fn configure(connection: &Connection) -> rusqlite::Result<()> {
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    // FULL also flushes the WAL at each commit: a pairing the client was told of must survive a loss of power.
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    // In KiB: what is asked for often lies in memory of our own.
    connection.pragma_update(None, "cache_size", -256)?;
    // What is removed is overwritten: the file also holds a private key.
    connection.pragma_update(None, "secure_delete", true)
}

fn check(connection: &Connection, database: &Path) -> Result<(), StoreError> {
    let verdict: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(|source| as_damaged(database, "check the database", source))?;
    if verdict == "ok" {
        return Ok(());
    }
    Err(StoreError::Damaged { path: database.to_owned(), detail: verdict })
}

/// Tells damage from other failures, because the owner must act on it differently.
fn as_damaged(database: &Path, doing: &'static str, source: rusqlite::Error) -> StoreError {
    let is_damage = match &source {
        rusqlite::Error::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt)
        }
        rusqlite::Error::FromSqlConversionFailure(..)
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..) => true,
        _ => false,
    };
    if is_damage {
        StoreError::Damaged { path: database.to_owned(), detail: source.to_string() }
    } else {
        StoreError::Sql { doing, source }
    }
}

fn sql(doing: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError::Sql { doing, source }
}

/// Seconds since 1970 by the wall clock, which people set as they like; 0 if it stands before.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests;
