//! Rows of the owner's door: the owner, the claim, console sessions, tokens, what was consumed.
//!
//! A change that must be whole is one transaction here: claimed or not, never half. The rows say nothing about who may
//! do what; `access` does. Secrets come here as hashes, but for the claim's, which must be shown until it is used.

use std::net::IpAddr;

use rusqlite::{Connection, OptionalExtension, Row, params};
use zeroize::{Zeroize, ZeroizeOnDrop};

use super::audit::{AuditEntry, insert_audit};
use super::network::{PreparedNetwork, replace_prepared_network};
use super::revision::Part;
use super::vouch::{StoredVouch, replace_vouch, vouch_of};
use super::{Store, StoreError, sql};

/// The setting that holds the host's name.
const NAME_SETTING: &str = "name";

/// The owner.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredOwner {
    /// When the host was claimed, in seconds since 1970.
    pub claimed_at: u64,
    /// The password's hash (PHC).
    pub password: String,
    /// The hash of the viewer's password, if there is one.
    pub viewer_password: Option<String>,
    /// What the owner's proof key was derived with.
    pub proof_salt: [u8; 16],
    /// The owner's public proof key.
    pub proof_key: [u8; 32],
    /// What root's program has said of it, if it has said anything.
    pub vouch: Option<StoredVouch>,
}

/// What claims the host. Wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct StoredClaim {
    /// The long secret.
    pub token: [u8; 16],
    /// The short one.
    pub code: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// Why it was made.
    pub reason: String,
}

/// A console session.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSession {
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// Who is logged in.
    pub role: String,
    /// What a change must bring along.
    pub csrf: String,
    /// When it began, in seconds since 1970.
    pub made_at: u64,
    /// When it was last used, in seconds since 1970, to within five minutes.
    pub seen_at: u64,
    /// Where it began.
    pub remote: Option<IpAddr>,
    /// What the browser calls itself.
    pub agent: Option<String>,
}

/// An API token.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredToken {
    /// Its id.
    pub id: String,
    /// SHA-256 of its secret.
    pub hash: [u8; 32],
    /// What the owner calls it.
    pub name: String,
    /// What it may, by name.
    pub scopes: String,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// When it was last used, in seconds since 1970, to within five minutes.
    pub used_at: Option<u64>,
    /// When it ends, in seconds since 1970.
    pub expires_at: Option<u64>,
}

/// What a claim that succeeds leaves, all at once.
pub struct FinishedClaim<'a> {
    /// The claim that is used up.
    pub token: [u8; 16],
    /// The owner.
    pub owner: &'a StoredOwner,
    /// The host's name.
    pub name: &'a str,
    /// The owner's first session.
    pub session: &'a StoredSession,
    /// What is written of it.
    pub audit: &'a AuditEntry,
}

/// What another password leaves, all at once.
pub struct NewPassword<'a> {
    /// The owner with the new password and proof key.
    pub owner: &'a StoredOwner,
    /// The one session that there is from now on, if there is one.
    pub session: Option<&'a StoredSession>,
    /// Tokens stay.
    pub keep_tokens: bool,
    /// What is written of it.
    pub audit: &'a AuditEntry,
}

impl std::fmt::Debug for StoredSession {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredSession").field("role", &self.role).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StoredToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { id, name, scopes, .. } = self;
        f.debug_struct("StoredToken")
            .field("id", id)
            .field("name", name)
            .field("scopes", scopes)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StoredOwner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredOwner").field("password", &"redacted").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for StoredClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoredClaim").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl Store {
    /// The owner, if the host has one.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn owner(&self) -> Result<Option<StoredOwner>, StoreError> {
        self.connection()
            .query_row(
                "SELECT owner.claimed_at, owner.password, owner.viewer_password, owner.proof_salt,
                        owner.proof_key, owner_vouch.nonce, owner_vouch.links
                 FROM owner LEFT JOIN owner_vouch ON owner_vouch.key = owner.proof_key",
                [],
                |row| {
                    Ok(StoredOwner {
                        claimed_at: seconds(row.get(0)?),
                        password: row.get(1)?,
                        viewer_password: row.get(2)?,
                        proof_salt: row.get(3)?,
                        proof_key: row.get(4)?,
                        vouch: vouch_of(row, 5)?,
                    })
                },
            )
            .optional()
            .map_err(sql("read who owns the host"))
    }

    /// What claims the host, if something does.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn claim(&self) -> Result<Option<StoredClaim>, StoreError> {
        self.connection()
            .query_row("SELECT token, code, made_at, reason FROM claim", [], |row| {
                Ok(StoredClaim {
                    token: row.get(0)?,
                    code: row.get(1)?,
                    made_at: seconds(row.get(2)?),
                    reason: row.get(3)?,
                })
            })
            .optional()
            .map_err(sql("read what claims the host"))
    }

    /// Keeps what claims the host, in place of what did; not if the host has an owner.
    ///
    /// # Errors
    /// The disk failed; what was there stays.
    pub fn put_claim(&self, claim: &StoredClaim) -> Result<bool, StoreError> {
        let inserted = self.connection().execute(
            "INSERT OR REPLACE INTO claim (id, token, code, made_at, reason)
             SELECT 1, ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM owner)",
            params![claim.token, claim.code, claim.made_at.cast_signed(), claim.reason],
        );
        Ok(inserted.map_err(sql("keep what claims the host"))? == 1)
    }

    /// Uses the claim up: the claim goes, with every session and token that somebody before may have left, and the owner,
    /// the name, the first session and the log entry come; or nothing happens. `false` if this claim is not there any
    /// more, or the host has an owner.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn finish_claim(&self, finished: &FinishedClaim<'_>) -> Result<bool, StoreError> {
        let finished = self.whole("claim the host", |connection| {
            let used = connection.execute(
                "DELETE FROM claim WHERE token = ?1 AND NOT EXISTS (SELECT 1 FROM owner)",
                [finished.token],
            )?;
            if used == 0 {
                return Ok(false);
            }
            connection.execute_batch("DELETE FROM console_session; DELETE FROM token;")?;
            insert_owner(connection, finished.owner)?;
            set_name(connection, finished.name, finished.owner.claimed_at)?;
            insert_session(connection, finished.session)?;
            insert_audit(connection, finished.audit)?;
            Ok(true)
        })?;
        // The name is one.
        self.changed(Part::Settings);
        Ok(finished)
    }

    /// Makes the host anybody's who has the claim: the owner, all sessions and all tokens go. With something that counts
    /// once (`consumed`: its kind and digest), nothing happens and `false` is answered if it was there before.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn rearm(
        &self,
        claim: &StoredClaim,
        consumed: Option<(&str, [u8; 32])>,
        audit: &AuditEntry,
    ) -> Result<bool, StoreError> {
        self.whole("arm the claim again", |connection| {
            if let Some((kind, digest)) = consumed
                && !consume(connection, kind, digest, audit.at)?
            {
                return Ok(false);
            }
            connection.execute_batch(
                "DELETE FROM owner; DELETE FROM owner_vouch; DELETE FROM console_session;
                 DELETE FROM token;",
            )?;
            connection.execute(
                "INSERT OR REPLACE INTO claim (id, token, code, made_at, reason)
                 VALUES (1, ?1, ?2, ?3, ?4)",
                params![claim.token, claim.code, claim.made_at.cast_signed(), claim.reason],
            )?;
            insert_audit(connection, audit)?;
            Ok(true)
        })
    }

    /// Takes what an owner prepared: the name, the claim and the network, if the host has no owner. `None` if it was
    /// consumed before, else whether it was taken; it is consumed in both cases.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn take_preseed(
        &self,
        digest: [u8; 32],
        claim: &StoredClaim,
        name: &str,
        network: Option<&PreparedNetwork>,
        audit: &AuditEntry,
    ) -> Result<Option<bool>, StoreError> {
        let mut first = false;
        let taken = self.whole("take the prepared setup", |connection| {
            first = consume(connection, "preseed", digest, audit.at)?;
            let taken = first
                && connection.execute(
                    "INSERT OR REPLACE INTO claim (id, token, code, made_at, reason)
                     SELECT 1, ?1, ?2, ?3, ?4 WHERE NOT EXISTS (SELECT 1 FROM owner)",
                    params![claim.token, claim.code, claim.made_at.cast_signed(), claim.reason],
                )? == 1;
            if taken {
                set_name(connection, name, audit.at)?;
                replace_prepared_network(connection, network, audit.at)?;
                insert_audit(connection, audit)?;
            }
            Ok(taken)
        })?;
        Ok(first.then_some(taken))
    }

    /// Gives the owner another password and proof key, with what vouches for the key; ends every session but the new one,
    /// and the tokens unless they stay.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn set_owner_password(&self, new: &NewPassword<'_>) -> Result<(), StoreError> {
        self.whole("change the password", |connection| {
            connection.execute(
                "UPDATE owner SET password = ?1, proof_salt = ?2, proof_key = ?3",
                params![new.owner.password, new.owner.proof_salt, new.owner.proof_key],
            )?;
            replace_vouch(connection, new.owner)?;
            connection.execute("DELETE FROM console_session", [])?;
            if !new.keep_tokens {
                connection.execute("DELETE FROM token", [])?;
            }
            new.session.map_or(Ok(()), |session| insert_session(connection, session))?;
            insert_audit(connection, new.audit)
        })
    }

    /// Gives the viewer a password, another, or none; ends the viewer's sessions.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn set_viewer_password(
        &self,
        password: Option<&str>,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        self.whole("change the viewer's password", |connection| {
            connection.execute("UPDATE owner SET viewer_password = ?1", [password])?;
            connection.execute("DELETE FROM console_session WHERE role = 'viewer'", [])?;
            insert_audit(connection, audit)
        })
    }

    /// All console sessions.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn console_sessions(&self) -> Result<Vec<StoredSession>, StoreError> {
        self.all(
            "read who is logged in",
            "SELECT hash, role, csrf, made_at, seen_at, remote, agent FROM console_session",
            session_from_row,
        )
    }

    /// Keeps a console session and writes of it.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn add_console_session(
        &self,
        session: &StoredSession,
        audit: &AuditEntry,
    ) -> Result<(), StoreError> {
        self.whole("keep who logged in", |connection| {
            insert_session(connection, session)?;
            insert_audit(connection, audit)
        })
    }

    /// Notes when a console session was last used.
    ///
    /// # Errors
    /// The disk failed.
    pub fn touch_console_session(&self, hash: [u8; 32], now: u64) -> Result<(), StoreError> {
        let statement = "UPDATE console_session SET seen_at = ?2 WHERE hash = ?1";
        self.connection()
            .execute(statement, params![hash, now.cast_signed()])
            .map_err(sql("note that somebody is logged in"))?;
        Ok(())
    }

    /// Ends these console sessions.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn remove_console_sessions(&self, hashes: &[[u8; 32]]) -> Result<(), StoreError> {
        self.whole("log out", |connection| {
            hashes.iter().try_for_each(|hash| {
                connection.execute("DELETE FROM console_session WHERE hash = ?1", [hash]).map(drop)
            })
        })
    }

    /// All tokens.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn tokens(&self) -> Result<Vec<StoredToken>, StoreError> {
        self.all(
            "read the tokens",
            "SELECT id, hash, name, scopes, made_at, used_at, expires_at FROM token",
            token_from_row,
        )
    }

    /// Keeps a token.
    ///
    /// # Errors
    /// The disk failed, or there is one with this id; nothing happened.
    pub fn add_token(&self, token: &StoredToken, audit: &AuditEntry) -> Result<(), StoreError> {
        self.whole("keep a token", |connection| {
            connection.execute(
                "INSERT INTO token (id, hash, name, scopes, made_at, used_at, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    token.id,
                    token.hash,
                    token.name,
                    token.scopes,
                    token.made_at.cast_signed(),
                    token.used_at.map(u64::cast_signed),
                    token.expires_at.map(u64::cast_signed),
                ],
            )?;
            insert_audit(connection, audit)
        })
    }

    /// Notes when a token was last used.
    ///
    /// # Errors
    /// The disk failed.
    pub fn touch_token(&self, id: &str, now: u64) -> Result<(), StoreError> {
        self.connection()
            .execute("UPDATE token SET used_at = ?2 WHERE id = ?1", params![id, now.cast_signed()])
            .map_err(sql("note that a token was used"))?;
        Ok(())
    }

    /// Removes a token.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn remove_token(&self, id: &str, audit: &AuditEntry) -> Result<(), StoreError> {
        self.whole("remove a token", |connection| {
            connection.execute("DELETE FROM token WHERE id = ?1", [id])?;
            insert_audit(connection, audit)
        })
    }

    /// Makes certain that what is read now is what a restart will find. A change whose end failed may lie on the disk
    /// after all, in the log that is read at a restart; whatever is written next takes its place there.
    ///
    /// # Errors
    /// The disk failed again; only a restart will tell.
    pub fn make_certain(&self) -> Result<(), StoreError> {
        self.whole("make certain of what is on the disk", |connection| {
            let statement = "UPDATE compatibility SET min_reader = min_reader";
            connection.execute(statement, []).map(drop)
        })
    }

    fn all<T>(
        &self,
        doing: &'static str,
        query: &str,
        from_row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, StoreError> {
        let connection = self.connection();
        let mut statement = connection.prepare(query).map_err(sql(doing))?;
        statement.query_map([], from_row).and_then(Iterator::collect).map_err(sql(doing))
    }

    /// All of it or nothing.
    pub(super) fn whole<T>(
        &self,
        doing: &'static str,
        change: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.connection();
        let transaction = connection.transaction().map_err(sql(doing))?;
        let done = change(&transaction).map_err(sql(doing))?;
        #[cfg(test)]
        self.inner.fault.strike(Struck::Change).map_err(sql(doing))?;
        transaction.commit().map_err(sql(doing))?;
        self.changed(Part::Owner);
        #[cfg(test)]
        self.inner.fault.strike(Struck::Answer).map_err(sql(doing))?;
        Ok(done)
    }
}

/// What goes wrong once with the disk, when a test says so.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Struck {
    /// The next change is not made.
    Change,
    /// The next change is made, and is said to have failed.
    Answer,
}

#[cfg(test)]
#[derive(Default)]
pub(super) struct Fault(std::sync::Mutex<Option<Struck>>);

#[cfg(test)]
impl Fault {
    fn strike(&self, now: Struck) -> rusqlite::Result<()> {
        let is_struck = self.0.lock().unwrap().take_if(|struck| *struck == now).is_some();
        let error = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_IOERR_FSYNC);
        if is_struck { Err(rusqlite::Error::SqliteFailure(error, None)) } else { Ok(()) }
    }
}

#[cfg(test)]
impl Store {
    /// What lies in the database, for tests of other rooms.
    pub(crate) fn connection_for_test<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.connection())
    }

    /// The disk is full, or is not any more.
    pub(crate) fn refuse_writes_for_test(&self, refuse: bool) {
        self.connection().pragma_update(None, "query_only", refuse).unwrap();
    }

    /// The disk fails once.
    pub(crate) fn strike_for_test(&self, struck: Struck) {
        *self.inner.fault.0.lock().unwrap() = Some(struck);
    }
}

fn insert_owner(connection: &Connection, owner: &StoredOwner) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO owner (id, claimed_at, password, viewer_password, proof_salt, proof_key)
         VALUES (1, ?1, ?2, ?3, ?4, ?5)",
        params![
            owner.claimed_at.cast_signed(),
            owner.password,
            owner.viewer_password,
            owner.proof_salt,
            owner.proof_key,
        ],
    )?;
    Ok(())
}

fn set_name(connection: &Connection, name: &str, now: u64) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO setting (key, value, set_at) VALUES (?1, ?2, ?3)",
        // A setting's value is JSON.
        params![NAME_SETTING, serde_json::Value::from(name).to_string(), now.cast_signed()],
    )?;
    Ok(())
}

/// Whether this counts: it was not there before.
fn consume(
    connection: &Connection,
    kind: &str,
    digest: [u8; 32],
    now: u64,
) -> rusqlite::Result<bool> {
    let inserted = connection.execute(
        "INSERT OR IGNORE INTO consumed (kind, digest, at) VALUES (?1, ?2, ?3)",
        params![kind, digest, now.cast_signed()],
    )?;
    Ok(inserted == 1)
}

fn insert_session(connection: &Connection, session: &StoredSession) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO console_session (hash, role, csrf, made_at, seen_at, remote, agent)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            session.hash,
            session.role,
            session.csrf,
            session.made_at.cast_signed(),
            session.seen_at.cast_signed(),
            session.remote.map(|remote| remote.to_string()),
            session.agent,
        ],
    )?;
    Ok(())
}

fn session_from_row(row: &Row<'_>) -> rusqlite::Result<StoredSession> {
    Ok(StoredSession {
        hash: row.get(0)?,
        role: row.get(1)?,
        csrf: row.get(2)?,
        made_at: seconds(row.get(3)?),
        seen_at: seconds(row.get(4)?),
        remote: address(row.get(5)?),
        agent: row.get(6)?,
    })
}

fn token_from_row(row: &Row<'_>) -> rusqlite::Result<StoredToken> {
    Ok(StoredToken {
        id: row.get(0)?,
        hash: row.get(1)?,
        name: row.get(2)?,
        scopes: row.get(3)?,
        made_at: seconds(row.get(4)?),
        used_at: row.get::<_, Option<i64>>(5)?.map(seconds),
        expires_at: row.get::<_, Option<i64>>(6)?.map(seconds),
    })
}

/// A count is never negative; what is, was not written by us.
pub(super) fn seconds(value: i64) -> u64 {
    value.try_into().unwrap_or(0)
}

/// Only shown and compared; an address that cannot be read is an address nobody knows.
pub(super) fn address(text: Option<String>) -> Option<IpAddr> {
    text.and_then(|text| text.parse().ok())
}
