//! What a statement may say at all, whoever signed it: counts and sizes that nothing exceeds, and sense.
//!
//! The same rules hold where a statement is signed and where it is believed, so that none is signed which no box takes.
//! Texts are the exception: a box replaces and cuts what does not fit, because a statement that revokes a key must not
//! fail over a letter.

use super::keys::KeyId;
use super::{MAX_CHANGES, MAX_RELEASES, Release, Statement, content};
use crate::error::UpdateError;

/// The only schema there is.
pub const SCHEMA: u32 = 1;
/// As many keys revokes a statement.
pub const MAX_REVOKED: usize = 16;
/// As many versions withdraws a statement.
pub const MAX_WITHDRAWN: usize = 64;
/// The longest line of what is new, in characters.
pub const MAX_CHANGE_CHARS: usize = 300;
/// No release is larger, neither to transfer nor on the disk, in bytes.
pub const MAX_RELEASE_BYTES: u64 = 16 << 30;
/// As long holds a statement, in seconds: what ends never would keep a box on what somebody wants it to have.
pub const MAX_HOLDS_S: u64 = 400 * 86_400;
/// The longest name of a flavour, in characters.
pub const MAX_FLAVOUR_CHARS: usize = 32;

/// The last second of the year 9999: what is later is no time.
const MAX_TIME: u64 = 253_402_300_799;

/// Says what is wrong with a statement, if something is.
pub(super) fn check(statement: &Statement) -> Result<(), UpdateError> {
    let Statement { made_at, expires_at, releases, withdrawn, revoked, floor, .. } = statement;
    if statement.schema != SCHEMA {
        return Err(unknown_schema(statement.schema.into()));
    }
    if !is_flavour(&statement.flavour) {
        return refuse("its flavour is no name of small letters, digits and hyphens".to_owned());
    }
    if *made_at == 0 || *expires_at > MAX_TIME || expires_at <= made_at {
        return refuse(format!("it is made at {made_at} and expires at {expires_at}"));
    }
    if expires_at - made_at > MAX_HOLDS_S {
        return refuse(format!(
            "it holds for {} s, and {MAX_HOLDS_S} are the most",
            expires_at - made_at
        ));
    }
    at_most("releases", releases.len(), MAX_RELEASES)?;
    at_most("keys that it revokes", revoked.len(), MAX_REVOKED)?;
    at_most("versions that it withdraws", withdrawn.len(), MAX_WITHDRAWN)?;
    if let Some(wrong) = revoked.iter().find(|id| KeyId::parse(id).is_none()) {
        return refuse(format!("it revokes \"{wrong}\", which is no id of a key"));
    }
    let Some(newest) = newest(statement) else {
        return refuse("it neither offers a version nor withdraws one".to_owned());
    };
    if let Some(floor) = floor.filter(|floor| *floor > newest) {
        return refuse(format!("no version may be below {floor}, and {newest} is its newest"));
    }
    for (at, release) in releases.iter().enumerate() {
        check_release(statement, release)?;
        let earlier = &releases[..at];
        let version = release.version;
        if earlier.iter().any(|other| other.version == version) {
            return refuse(format!("version {version} is there twice"));
        }
        if earlier.iter().any(|other| other.commit == release.commit) {
            return refuse(format!("version {version} is the system of another version"));
        }
    }
    Ok(())
}

fn check_release(statement: &Statement, release: &Release) -> Result<(), UpdateError> {
    let version = release.version;
    if statement.withdrawn.contains(&version) {
        return refuse(format!("version {version} is offered and withdrawn"));
    }
    if let Some(floor) = statement.floor.filter(|floor| version < *floor) {
        return refuse(format!("version {version} is offered, and {floor} is the oldest allowed"));
    }
    if release.minimum > version {
        let minimum = release.minimum;
        return refuse(format!("version {version} is for those who have {minimum} already"));
    }
    let sizes = [("transferred", release.size_bytes), ("unpacked", release.unpacked_bytes)];
    for (what, bytes) in sizes {
        if !(1..=MAX_RELEASE_BYTES).contains(&bytes) {
            return refuse(format!(
                "version {version} has {bytes} bytes {what}, and {MAX_RELEASE_BYTES} are the most"
            ));
        }
    }
    at_most("lines of what is new", release.changes.len(), MAX_CHANGES)
}

/// The highest version of all that it offers or withdraws.
pub(super) fn newest(statement: &Statement) -> Option<crate::name::Version> {
    let offered = statement.releases.iter().map(|release| release.version);
    offered.chain(statement.withdrawn.iter().copied()).max()
}

/// A statement of another schema, which is not looked into.
pub(super) fn unknown_schema(got: u64) -> UpdateError {
    content(format!(
        "the statement has schema {got} and this system reads {SCHEMA}; it is for newer systems"
    ))
}

fn at_most(what: &str, got: usize, max: usize) -> Result<(), UpdateError> {
    if got > max { refuse(format!("it has {got} {what}, and {max} are the most")) } else { Ok(()) }
}

/// It becomes a part of a name in a registry.
fn is_flavour(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=MAX_FLAVOUR_CHARS).contains(&text.len()) && text.bytes().all(fits)
}

fn refuse(detail: String) -> Result<(), UpdateError> {
    Err(content(format!("the statement makes no sense: {detail}")))
}
