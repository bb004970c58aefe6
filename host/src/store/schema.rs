//! The schema, and who may read it.
//!
//! `user_version` counts the migrations a database has seen. A migration only adds: a new table, or a column that has
//! a default, so that the statements of an older daemon still work. The table `compatibility` states the oldest
//! version that may read the file; a daemon that knows fewer migrations than the file has seen opens it if it is at
//! least that old, and leaves its schema alone. A migration that an older daemon must not meet raises `min_reader` in
//! its own SQL; none has needed it.

use std::path::Path;

use rusqlite::Connection;
use rusqlite_migration::{M, Migrations};

use super::{StoreError, as_damaged};

/// The migrations of a daemon, oldest first. Only ever extended; a released one is never edited.
#[derive(Clone, Copy)]
pub(super) struct Schema(pub(super) &'static [&'static str]);

/// The schema of this daemon.
pub(super) const SHIPPED: Schema = Schema(&[V1, V2, V3, V4, V5]);

/// Identity and clients.
pub(super) const V1: &str = "
CREATE TABLE compatibility (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    min_reader INTEGER NOT NULL
) STRICT;
INSERT INTO compatibility (id, min_reader) VALUES (1, 1);

CREATE TABLE identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    host_id TEXT NOT NULL,
    certificate_der BLOB NOT NULL,
    private_key_der BLOB NOT NULL
) STRICT;

CREATE TABLE client (
    id BLOB PRIMARY KEY,
    certificate_der BLOB NOT NULL,
    name TEXT NOT NULL,
    paired_at INTEGER NOT NULL,
    last_seen_at INTEGER NOT NULL,
    remote TEXT
) STRICT;
";

/// The profile of each client that has played. It has no reference to the client: one that is removed and paired again
/// finds its home.
pub(super) const V2: &str = "
CREATE TABLE profile (
    client BLOB PRIMARY KEY,
    number INTEGER NOT NULL UNIQUE
) STRICT;
";

/// What the owner's door keeps: who the owner is, who is logged in, what the owner decided. Secrets are kept as hashes,
/// but for the claim's, which must be shown until it is used, and the console's key.
pub(super) const V3: &str = "
CREATE TABLE console_identity (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    certificate_der BLOB NOT NULL,
    private_key_der BLOB NOT NULL
) STRICT;

CREATE TABLE owner (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    claimed_at INTEGER NOT NULL,
    password TEXT NOT NULL,
    viewer_password TEXT,
    proof_salt BLOB NOT NULL,
    proof_key BLOB NOT NULL
) STRICT;

CREATE TABLE claim (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    token BLOB NOT NULL,
    code TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;

CREATE TABLE console_session (
    hash BLOB PRIMARY KEY,
    role TEXT NOT NULL,
    csrf TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    seen_at INTEGER NOT NULL,
    remote TEXT,
    agent TEXT
) STRICT;

CREATE TABLE token (
    id TEXT PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    used_at INTEGER,
    expires_at INTEGER
) STRICT;

CREATE TABLE audit (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    kind TEXT NOT NULL,
    actor TEXT NOT NULL,
    remote TEXT,
    action TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
CREATE INDEX audit_by_kind ON audit (kind);

CREATE TABLE consumed (
    kind TEXT NOT NULL,
    digest BLOB NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (kind, digest)
) STRICT;

CREATE TABLE setting (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL,
    set_at INTEGER NOT NULL
) STRICT;

CREATE TABLE app (
    title TEXT PRIMARY KEY,
    definition TEXT NOT NULL,
    art BLOB,
    set_at INTEGER NOT NULL
) STRICT;

CREATE TABLE client_policy (
    client BLOB PRIMARY KEY,
    permissions TEXT NOT NULL,
    expires_at INTEGER
) STRICT;

CREATE TABLE past_session (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    client BLOB NOT NULL,
    client_name TEXT NOT NULL,
    app TEXT NOT NULL,
    mode TEXT NOT NULL,
    began_at INTEGER NOT NULL,
    ended_at INTEGER NOT NULL,
    reason TEXT NOT NULL,
    figures TEXT NOT NULL
) STRICT;

CREATE TABLE os_state (
    backend TEXT PRIMARY KEY,
    state TEXT NOT NULL
) STRICT;

CREATE TABLE os_event (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    backend TEXT NOT NULL,
    event TEXT NOT NULL
) STRICT;
";

/// The network that an owner prepared.
pub(super) const V4: &str = "
CREATE TABLE prepared_network (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    ssid TEXT NOT NULL,
    passphrase TEXT,
    kept_at INTEGER NOT NULL
) STRICT;
";

/// What root's program is to be told after a change of the password: the nonce for the next proof by `key`, and the
/// proofs of the keys since the one that root keeps. An older daemon that changes the password leaves it as it is; it
/// counts only while `key` is the owner's.
pub(super) const V5: &str = "
CREATE TABLE owner_vouch (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL,
    nonce BLOB NOT NULL,
    links BLOB NOT NULL
) STRICT;
";

impl Schema {
    /// Brings the database to this schema, or finds that it may be read as it is.
    pub(super) fn apply(
        self,
        connection: &mut Connection,
        database: &Path,
    ) -> Result<(), StoreError> {
        let known = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        let version: u32 = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(|source| as_damaged(database, "read the schema's version", source))?;
        if version <= known {
            return Migrations::from_iter(self.0.iter().map(|sql| M::up(sql)))
                .to_latest(connection)
                .map_err(|source| StoreError::Migrate { path: database.to_owned(), source });
        }
        let min_reader: u32 = connection
            .query_row("SELECT min_reader FROM compatibility WHERE id = 1", [], |row| row.get(0))
            .map_err(|source| as_damaged(database, "read who may read the database", source))?;
        if min_reader > known {
            return Err(StoreError::TooNew { path: database.to_owned(), min_reader, known });
        }
        tracing::info!(version, known, min_reader, "opening the database of a newer host");
        Ok(())
    }
}
