//! A paired client: its types and its rows.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::digest;
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{MAX_NAME_CHARS, MAX_PROFILES, Policy};
use crate::agent::ProfileNumber;

/// A paired client: the SHA-256 of its certificate's DER bytes. Written as 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(pub [u8; 32]);

impl ClientId {
    /// The id of the client with this certificate.
    pub fn of_certificate(der: &[u8]) -> Self {
        let mut id = [0; 32];
        id.copy_from_slice(digest::digest(&digest::SHA256, der).as_ref());
        Self(id)
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientId({self})")
    }
}

/// The text is not a client's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a device's id is 64 hex digits")]
pub struct ClientIdError;

impl FromStr for ClientId {
    type Err = ClientIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(ClientIdError);
        }
        let nibble = |digit: u8| {
            char::from(digit)
                .to_digit(16)
                .and_then(|value| u8::try_from(value).ok())
                .ok_or(ClientIdError)
        };
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(id))
    }
}

/// A client that is to be trusted.
#[derive(Debug, Clone)]
pub struct NewClient {
    /// Its certificate, exactly as it will present it in TLS.
    pub certificate_der: Vec<u8>,
    /// What the owner calls it; cleaned by [`clean_name`].
    pub name: String,
    /// Where it paired from.
    pub remote: IpAddr,
}

/// A client that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PairedClient {
    /// Its id.
    pub id: ClientId,
    /// What the owner calls it; not empty, at most 64 characters, none of them a control character.
    pub name: String,
    /// Its certificate.
    pub certificate_der: Arc<[u8]>,
    /// When it was paired, in seconds since 1970.
    pub paired_at: u64,
    /// When it was last here, in seconds since 1970, to within five minutes.
    pub last_seen_at: u64,
    /// Where it was last seen.
    pub remote: Option<IpAddr>,
    /// What it may do, and until when.
    pub policy: Policy,
}

impl PairedClient {
    pub(super) fn from_new(new: NewClient, now: u64) -> Self {
        let remote = new.remote.to_canonical();
        Self {
            id: ClientId::of_certificate(&new.certificate_der),
            name: clean_name(&new.name).unwrap_or_else(|| remote.to_string()),
            certificate_der: new.certificate_der.into(),
            paired_at: now,
            last_seen_at: now,
            remote: Some(remote),
            policy: Policy::default(),
        }
    }
}

/// A name fit to be shown: control characters become spaces (a name is printed to terminals), ends are trimmed, and
/// at most 64 characters stay. `None` if nothing is left.
pub fn clean_name(name: &str) -> Option<String> {
    let spaced: String = name
        .chars()
        .take(4 * MAX_NAME_CHARS)
        .map(|c| if c.is_control() || is_invisible(c) { ' ' } else { c })
        .collect();
    let clean: String = spaced.trim().chars().take(MAX_NAME_CHARS).collect();
    let clean = clean.trim_end();
    (!clean.is_empty()).then(|| clean.to_owned())
}

/// The name, with a number behind it if others have it: two devices must not look alike in a list.
pub(super) fn unique_name<'a>(name: &str, others: impl Iterator<Item = &'a str>) -> String {
    let taken: BTreeSet<&str> = others.collect();
    let numbered = |number: usize| {
        let number = number.to_string();
        let stem: String = name.chars().take(MAX_NAME_CHARS - 1 - number.len()).collect();
        format!("{} {number}", stem.trim_end())
    };
    // Among so many numbers one is free.
    let free = (2..=taken.len() + 2).map(numbered).find(|name| !taken.contains(&**name));
    match free {
        Some(free) if taken.contains(name) => free,
        _ => name.to_owned(),
    }
}

/// Characters that reorder or hide text: two devices must not look alike in a list.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

pub(super) fn load_all(
    connection: &Connection,
) -> rusqlite::Result<HashMap<ClientId, PairedClient>> {
    connection
        .prepare(
            "SELECT certificate_der, name, paired_at, last_seen_at, remote, permissions, expires_at
             FROM client LEFT JOIN client_policy ON client_policy.client = client.id",
        )?
        .query_map([], from_row)?
        .map(|row| row.map(|client| (client.id, client)))
        .collect()
}

pub(super) fn insert(connection: &Connection, client: &PairedClient) -> rusqlite::Result<()> {
    connection.execute(
        "INSERT INTO client (id, certificate_der, name, paired_at, last_seen_at, remote)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)
         ON CONFLICT (id) DO UPDATE SET name = excluded.name, paired_at = excluded.paired_at,
             last_seen_at = excluded.last_seen_at, remote = excluded.remote",
        params![
            client.id.0,
            &*client.certificate_der,
            client.name,
            client.paired_at.cast_signed(),
            client.last_seen_at.cast_signed(),
            client.remote.map(|remote| remote.to_string()),
        ],
    )?;
    Ok(())
}

pub(super) fn delete(connection: &Connection, id: ClientId) -> rusqlite::Result<()> {
    connection.execute("DELETE FROM client WHERE id = ?1", [id.0])?;
    connection.execute("DELETE FROM client_policy WHERE client = ?1", [id.0])?;
    Ok(())
}

pub(super) fn set_name(connection: &Connection, id: ClientId, name: &str) -> rusqlite::Result<()> {
    connection.execute("UPDATE client SET name = ?2 WHERE id = ?1", params![id.0, name])?;
    Ok(())
}

pub(super) fn set_seen(
    connection: &Connection,
    id: ClientId,
    remote: IpAddr,
    now: u64,
) -> rusqlite::Result<()> {
    connection.execute(
        "UPDATE client SET last_seen_at = ?2, remote = ?3 WHERE id = ?1",
        params![id.0, now.cast_signed(), remote.to_string()],
    )?;
    Ok(())
}

/// The client's profile, made if it has none; `None` if all are taken.
pub(super) fn profile(connection: &Connection, id: ClientId) -> rusqlite::Result<Option<u16>> {
    let known = connection
        .query_row("SELECT number FROM profile WHERE client = ?1", [id.0], |row| row.get(0))
        .optional()?;
    if known.is_some() {
        return Ok(known);
    }
    let taken: BTreeSet<u16> = connection
        .prepare("SELECT number FROM profile")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let free = (0..MAX_PROFILES).find(|number| !taken.contains(number));
    if let Some(number) = free {
        connection.execute(
            "INSERT INTO profile (client, number) VALUES (?1, ?2)",
            params![id.0, number],
        )?;
    }
    Ok(free)
}

/// All profiles with their clients, by their numbers.
pub(super) fn profiles(
    connection: &Connection,
) -> rusqlite::Result<Vec<(ClientId, ProfileNumber)>> {
    connection
        .prepare("SELECT client, number FROM profile ORDER BY number")?
        .query_map([], |row| Ok((ClientId(row.get(0)?), ProfileNumber(row.get(1)?))))?
        .collect()
}

fn from_row(row: &Row<'_>) -> rusqlite::Result<PairedClient> {
    let certificate_der: Vec<u8> = row.get(0)?;
    let name: String = row.get(1)?;
    let remote: Option<String> = row.get(4)?;
    let id = ClientId::of_certificate(&certificate_der);
    Ok(PairedClient {
        id,
        name: clean_name(&name).unwrap_or_else(|| id.to_string()),
        certificate_der: certificate_der.into(),
        paired_at: row.get::<_, i64>(2)?.try_into().unwrap_or(0),
        last_seen_at: row.get::<_, i64>(3)?.try_into().unwrap_or(0),
        // Only shown; an address that cannot be read is an address nobody knows.
        remote: remote.and_then(|text| text.parse().ok()),
        policy: match row.get::<_, Option<String>>(5)? {
            Some(permissions) => Policy::read(&permissions, row.get(6)?),
            None => Policy::default(),
        },
    })
}
