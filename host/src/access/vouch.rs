//! What vouches for the owner's key to root's program, which keeps one of its own and does not believe this host.
//!
//! The proof that the old key vouches for the new one can be made only while the old password is at hand, and root's
//! program may not be there then. So it gives the nonce for it beforehand, with each key that it keeps; the proof is
//! written in the transaction that changes the password, and said until root keeps the key. The nonce after that follows
//! from it, so that several changes make a chain which root follows to its end, from wherever it stands.
//!
//! Where nothing can vouch - root's program has never said what it keeps, or the chain would be longer than it takes -
//! the key is told all the same. Root refuses it then until somebody is at the machine, and the owner is told so.
//!
//! Deliberately absent: any secret. What is kept here may be read by anybody who may read the store.

use super::proof::{Nonce, ProofKey, Verb};
use super::{Access, AccessError, Owned};
use crate::store::{StoredLink, StoredOwner, StoredVouch};

/// Root's program takes no longer chain.
pub(super) const MAX_LINKS: usize = 8;

impl StoredVouch {
    /// With one more key; `None` if root's program would not take so many.
    pub(super) fn extended(&self, old: &ProofKey, new: &ProofKey) -> Option<Self> {
        if self.links.len() >= MAX_LINKS {
            tracing::warn!(
                "the password was changed too often for the box's own program to follow"
            );
            return None;
        }
        let (nonce, digest) = (Nonce(self.nonce), new.digest());
        let proof = old.prove(Verb::ReplaceKey, digest, nonce).signature;
        let link = StoredLink { salt: new.salt(), key: new.public(), proof };
        let links = self.links.iter().copied().chain([link]).collect();
        Some(Self { nonce: nonce.after(digest).0, links })
    }
}

impl Access {
    /// Root's program keeps this key, and this is its nonce for the next. Whether it is the owner's key; one from before
    /// only shortens the chain, and any other changes nothing.
    ///
    /// # Errors
    /// The disk failed; root's program says it again after the next connection.
    pub fn owner_kept(&self, key: [u8; 32], nonce: [u8; 32]) -> Result<bool, AccessError> {
        let _writing = self.writing();
        let Some(mut owner) = self.owned() else { return Ok(false) };
        let is_current = owner.proof_key == key;
        let vouch = if is_current {
            Some(StoredVouch { nonce, links: Vec::new() })
        } else {
            owner.vouch.clone().map(|mut vouch| {
                let followed = vouch.links.iter().position(|link| link.key == key);
                vouch.links.drain(..followed.map_or(0, |at| at + 1));
                vouch
            })
        };
        if owner.vouch != vouch {
            owner.vouch = vouch;
            self.inner.store.put_owner_vouch(&owner)?;
            self.state().owned = Owned::Yes(owner);
            self.changed();
        }
        Ok(is_current)
    }

    fn owned(&self) -> Option<StoredOwner> {
        match &self.state().owned {
            Owned::Yes(owner) => Some(owner.clone()),
            Owned::No { .. } => None,
        }
    }
}
