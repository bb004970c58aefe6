//! The audit log: what was done, by whom, from where.
//!
//! It is bounded, by kind: a viewer who logs in all day long, a program that changes a setting each second, and a stranger
//! who guesses each push out their own kind only. What the owner did stays until the owner has done as much again.

use std::net::IpAddr;

use rusqlite::{Connection, Row, params};

use super::access::{address, seconds};
use super::{Store, StoreError, sql};

/// As many rows the log keeps of all kinds together.
pub const MAX_AUDIT_ROWS: u32 = {
    let (mut sum, mut index) = (0, 0);
    while index < AuditKind::ALL.len() {
        sum += AuditKind::ALL[index].max_rows();
        index += 1;
    }
    sum
};

/// Whose doing an entry is about: each kind has its own bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditKind {
    /// What the owner did, or somebody at the machine.
    Deed,
    /// Logins of the owner.
    Login,
    /// What programs with a token did.
    Program,
    /// What the viewer did.
    Viewer,
    /// What strangers did.
    Stranger,
}

impl AuditKind {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Deed, Self::Login, Self::Program, Self::Viewer, Self::Stranger];

    /// As it is written.
    const fn name(self) -> &'static str {
        match self {
            Self::Deed => "deed",
            Self::Login => "login",
            Self::Program => "program",
            Self::Viewer => "viewer",
            Self::Stranger => "stranger",
        }
    }

    /// As many entries of it are kept; the oldest go.
    pub const fn max_rows(self) -> u32 {
        match self {
            Self::Deed => 4000,
            Self::Login | Self::Program => 2000,
            Self::Viewer | Self::Stranger => 1000,
        }
    }
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// When, in seconds since 1970.
    pub at: u64,
    /// Whose doing it is. Only written: a row that is read says who did it.
    pub kind: AuditKind,
    /// Who did it.
    pub actor: String,
    /// From where; nothing if it was on the host itself.
    pub remote: Option<IpAddr>,
    /// What was done.
    pub action: String,
    /// To what, or how it went.
    pub detail: String,
}

/// An entry of the log, with its number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditRow {
    /// Its number; later ones are greater.
    pub id: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who did it.
    pub actor: String,
    /// From where; nothing if it was on the host itself.
    pub remote: Option<IpAddr>,
    /// What was done.
    pub action: String,
    /// To what, or how it went.
    pub detail: String,
}

impl Store {
    /// Writes into the audit log; the oldest entries of the kind go.
    ///
    /// # Errors
    /// The disk failed.
    pub fn add_audit(&self, entry: &AuditEntry) -> Result<(), StoreError> {
        self.whole("write into the audit log", |connection| insert_audit(connection, entry))
    }

    /// The newest entries of the audit log, newest first: `limit` of those before `before`.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn audit(&self, before: Option<u64>, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        let doing = sql("read the audit log");
        let connection = self.connection();
        let mut statement = connection
            .prepare(
                "SELECT id, at, actor, remote, action, detail FROM audit
                 WHERE id < ?1 ORDER BY id DESC LIMIT ?2",
            )
            .map_err(&doing)?;
        let before = before.and_then(|id| i64::try_from(id).ok()).unwrap_or(i64::MAX);
        statement
            .query_map(params![before, limit], audit_from_row)
            .and_then(Iterator::collect)
            .map_err(doing)
    }
}

pub(super) fn insert_audit(connection: &Connection, entry: &AuditEntry) -> rusqlite::Result<()> {
    let kind = entry.kind.name();
    connection.execute(
        "INSERT INTO audit (at, kind, actor, remote, action, detail)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![
            entry.at.cast_signed(),
            kind,
            entry.actor,
            entry.remote.map(|remote| remote.to_string()),
            entry.action,
            entry.detail,
        ],
    )?;
    connection.execute(
        "DELETE FROM audit WHERE kind = ?1 AND id <=
         (SELECT id FROM audit WHERE kind = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        params![kind, entry.kind.max_rows()],
    )?;
    Ok(())
}

fn audit_from_row(row: &Row<'_>) -> rusqlite::Result<AuditRow> {
    Ok(AuditRow {
        id: seconds(row.get(0)?),
        at: seconds(row.get(1)?),
        actor: row.get(2)?,
        remote: address(row.get(3)?),
        action: row.get(4)?,
        detail: row.get(5)?,
    })
}
