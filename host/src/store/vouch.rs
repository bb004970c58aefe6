//! What root's program is known to keep of the owner, and what vouches for a key that it does not keep yet.
//!
//! The row names the key that it is about, and counts only while that is the owner's: an older daemon that changes the
//! password knows nothing of it. None of it is a secret.

use rusqlite::{Connection, Row, params};

use super::access::StoredOwner;
use super::{Store, StoreError};

/// What root's program keeps of the owner, as far as it has said, and what vouches for what it does not keep yet. No
/// secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVouch {
    /// What the next proof by the owner's key must hold.
    pub nonce: [u8; 32],
    /// The keys since the one that root keeps, the oldest first; the last is the owner's.
    pub links: Vec<StoredLink>,
}

/// A key, and the proof by the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredLink {
    /// What the key was derived with.
    pub salt: [u8; 16],
    /// The key.
    pub key: [u8; 32],
    /// The signature.
    pub proof: [u8; 64],
}

/// A link's length in the store.
const LINK_BYTES: usize = 16 + 32 + 64;

impl StoredLink {
    fn to_bytes(self) -> Vec<u8> {
        [&self.salt[..], &self.key, &self.proof].concat()
    }

    fn from_bytes(bytes: &[u8; LINK_BYTES]) -> Option<Self> {
        let (salt, rest) = bytes.split_first_chunk()?;
        let (key, proof) = rest.split_first_chunk()?;
        Some(Self { salt: *salt, key: *key, proof: proof.try_into().ok()? })
    }
}

impl Store {
    /// Keeps what root's program has said of the owner's key, unless the key is another one by now.
    ///
    /// # Errors
    /// The disk failed; nothing happened.
    pub fn put_owner_vouch(&self, owner: &StoredOwner) -> Result<(), StoreError> {
        self.whole("keep what vouches for the owner's key", |connection| {
            replace_vouch(connection, owner)
        })
    }
}

/// What is known of the owner's key, or nothing where what lies there is none.
pub(super) fn vouch_of(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<StoredVouch>> {
    let nonce: Option<Vec<u8>> = row.get(at)?;
    let links: Option<Vec<u8>> = row.get(at + 1)?;
    let links = links.and_then(|links| {
        let (chunks, []) = links.as_chunks::<LINK_BYTES>() else { return None };
        chunks.iter().map(StoredLink::from_bytes).collect()
    });
    let nonce = nonce.and_then(|nonce| nonce.try_into().ok());
    Ok(nonce.zip(links).map(|(nonce, links)| StoredVouch { nonce, links }))
}

/// Keeps it in place of what was known, while the owner's key is this one.
pub(super) fn replace_vouch(connection: &Connection, owner: &StoredOwner) -> rusqlite::Result<()> {
    connection.execute(
        "DELETE FROM owner_vouch WHERE EXISTS (SELECT 1 FROM owner WHERE proof_key = ?1)",
        params![owner.proof_key],
    )?;
    let Some(vouch) = &owner.vouch else { return Ok(()) };
    let links: Vec<u8> = vouch.links.iter().copied().flat_map(StoredLink::to_bytes).collect();
    connection.execute(
        "INSERT INTO owner_vouch (id, key, nonce, links)
         SELECT 1, ?1, ?2, ?3 WHERE EXISTS (SELECT 1 FROM owner WHERE proof_key = ?1)",
        params![owner.proof_key, vouch.nonce, links],
    )?;
    Ok(())
}
