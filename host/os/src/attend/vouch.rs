//! Whether the owner's key that is kept vouches for another one: the owner's proof for `replace-key`.
//!
//! A proof is a signature over one text: the domain, the verb, the SHA-256 of the new salt and key, and a nonce. Root
//! draws the nonce when it takes a key over, and keeps it beside the key; with each key that follows, the nonce is the
//! SHA-256 of the one before and of what was followed. So whoever changes the password while root's program is not
//! there can be vouched for at once, and several changes make a chain; what was followed once fits nowhere again.
//!
//! The daemon makes the same texts (`access::proof`), and tests/replace-key.json holds both to one example. What this
//! does not protect from stands in docs/decisions/0014-owner-proof.md.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::OwnerKey;
use crate::proof::{is_signed_by, sha256, signed, unhex};

/// The only verb that is proven here.
const VERB: &str = "replace-key";

/// What the text begins with that makes the next nonce.
const NONCE_DOMAIN: &[u8] = b"punktfunk owner nonce v1\0";

/// No chain is longer. A line holds it.
pub const MAX_LINKS: usize = 8;

/// What the next proof by the kept key must hold: 32 bytes, written as 64 hexadecimal digits. No secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Nonce([u8; 32]);

/// A text that is no nonce.
#[derive(Debug, thiserror::Error)]
#[error("a nonce has 64 hexadecimal digits")]
pub struct NonceError;

/// There is no randomness.
#[derive(Debug, thiserror::Error)]
#[error("the machine has no randomness")]
pub struct DrawError;

/// The key that is kept, and what the next proof by it must hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The key.
    #[serde(flatten)]
    pub owner: OwnerKey,
    /// A file of an older program has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<Nonce>,
}

/// Another key, and the proof by the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The key from now on.
    #[serde(flatten)]
    pub owner: OwnerKey,
    /// An Ed25519 signature, 128 hexadecimal digits.
    pub proof: String,
}

/// Why a key is not vouched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum VouchError {
    /// No proof by the kept key has been asked for.
    #[error("nobody asked for a proof by the key that is kept")]
    NotAsked,
    /// The signature is not the kept key's, or is one of something else.
    #[error("the key that is kept does not vouch for this one")]
    Signature,
    /// Digits are missing.
    #[error("it is not written in hexadecimal digits")]
    Digits,
}

impl Nonce {
    /// One that nobody could know before.
    pub fn draw() -> Result<Self, DrawError> {
        let mut bytes = [0; 32];
        aws_lc_rs::rand::fill(&mut bytes).map_err(|_| DrawError)?;
        Ok(Self(bytes))
    }

    /// Of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The one for the key with this digest, once it has been followed.
    fn after(self, digest: [u8; 32]) -> Self {
        Self(sha256(&[NONCE_DOMAIN, &self.0, &digest]))
    }
}

impl TryFrom<String> for Nonce {
    type Error = NonceError;

    fn try_from(text: String) -> Result<Self, NonceError> {
        unhex(&text).map(Self).ok_or(NonceError)
    }
}

impl From<Nonce> for String {
    fn from(nonce: Nonce) -> Self {
        nonce.to_string()
    }
}

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Kept {
    /// The last key of a chain, if each is vouched for by the one before, and the first by this one. A chain whose
    /// beginning was followed before goes on from there: the answer to it may have been lost.
    ///
    /// # Errors
    /// See [`VouchError`]; then none of the chain counts.
    pub fn follow(&self, links: &[Link]) -> Result<Self, VouchError> {
        let followed = links.iter().rposition(|link| link.owner == self.owner);
        let ahead = &links[followed.map_or(0, |at| at + 1)..];
        ahead.iter().try_fold(self.clone(), |kept, link| kept.step(link))
    }

    fn step(&self, link: &Link) -> Result<Self, VouchError> {
        let nonce = self.nonce.ok_or(VouchError::NotAsked)?;
        let key: [u8; 32] = unhex(&self.owner.key).ok_or(VouchError::Digits)?;
        let proof: [u8; 64] = unhex(&link.proof).ok_or(VouchError::Digits)?;
        let digest = digest(&link.owner).ok_or(VouchError::Digits)?;
        if !is_signed_by(&key, &signed(VERB, &digest, nonce), &proof) {
            return Err(VouchError::Signature);
        }
        Ok(Self { owner: link.owner.clone(), nonce: Some(nonce.after(digest)) })
    }
}

/// What a proof says of a new key.
fn digest(owner: &OwnerKey) -> Option<[u8; 32]> {
    let (salt, key) = (unhex::<16>(&owner.salt)?, unhex::<32>(&owner.key)?);
    Some(sha256(&[&salt, &key]))
}

#[cfg(test)]
pub(crate) mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::proof::{Deed, Proof};

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The owner of a password, as a seed: what the daemon makes while it knows it.
    pub(crate) struct Owner(Ed25519KeyPair, u8);

    impl Owner {
        pub(crate) fn new(seed: u8) -> Self {
            Self(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(), seed)
        }

        pub(crate) fn key(&self) -> OwnerKey {
            OwnerKey { salt: hex(&[self.1; 16]), key: hex(self.0.public_key().as_ref()) }
        }

        pub(crate) fn kept(&self, nonce: Nonce) -> Kept {
            Kept { owner: self.key(), nonce: Some(nonce) }
        }

        fn sign(&self, verb: &str, digest: [u8; 32], nonce: Nonce) -> String {
            hex(self.0.sign(&signed(verb, &digest, nonce)).as_ref())
        }

        pub(crate) fn prove(&self, deed: &Deed, nonce: Nonce) -> Proof {
            let proof = self.sign(deed.verb(), deed.digest(), nonce);
            Proof { deed: deed.clone(), nonce, proof }
        }

        pub(crate) fn vouch(&self, to: &Self, nonce: Nonce) -> Link {
            let proof = self.sign(VERB, digest(&to.key()).unwrap(), nonce);
            Link { owner: to.key(), proof }
        }
    }

    pub(crate) const NONCE: Nonce = Nonce::new([9; 32]);

    /// The chain over these passwords, from the first on.
    pub(crate) fn chain(seeds: &[u8]) -> Vec<Link> {
        let mut nonce = NONCE;
        let pair = |pair: &[u8]| {
            let link = Owner::new(pair[0]).vouch(&Owner::new(pair[1]), nonce);
            nonce = nonce.after(digest(&link.owner).unwrap());
            link
        };
        seeds.windows(2).map(pair).collect()
    }

    #[test]
    fn a_chain_is_followed_from_wherever_root_stands_and_once() {
        let first = Owner::new(1).kept(NONCE);
        let links = chain(&[1, 2, 3, 4]);
        let last = first.follow(&links).unwrap();
        assert_eq!(last.owner, Owner::new(4).key());
        for known in 0..=3 {
            let kept = first.follow(&links[..known]).unwrap();
            assert_eq!(kept.follow(&links), Ok(last.clone()), "{known} were followed before");
        }
        // Neither does an old one fit again, nor one with the nonce of another time.
        assert_eq!(last.follow(&links[..1]), Err(VouchError::Signature));
        let again = Owner::new(1).kept(Nonce::new([8; 32]));
        assert_eq!(again.follow(&links), Err(VouchError::Signature));
        let never = Kept { nonce: None, ..first };
        assert_eq!(never.follow(&links), Err(VouchError::NotAsked));
    }

    #[test]
    fn nobody_but_the_kept_key_vouches_and_for_one_key_only() {
        let (owner, next, thief) = (Owner::new(1), Owner::new(2), Owner::new(7));
        let kept = owner.kept(NONCE);
        let good = owner.vouch(&next, NONCE);
        let of = |proof: String| Link { owner: next.key(), proof };
        let digest = digest(&next.key()).unwrap();
        let wrong = [
            ("another's", thief.vouch(&next, NONCE)),
            ("the new key's own", next.vouch(&next, NONCE)),
            ("for another key", Link { owner: thief.key(), ..good.clone() }),
            (
                "for another salt",
                Link { owner: OwnerKey { salt: "0".repeat(32), ..next.key() }, ..good.clone() },
            ),
            ("with another nonce", owner.vouch(&next, Nonce::new([8; 32]))),
            ("for another verb", of(owner.sign("install", digest, NONCE))),
            ("for a reset", of(owner.sign("factory-reset", digest, NONCE))),
            ("with another end of the verb", of(owner.sign("replace-key\0", digest, NONCE))),
        ];
        for (what, link) in wrong {
            assert_eq!(kept.follow(&[link]), Err(VouchError::Signature), "{what}");
        }
        for proof in [String::new(), "z".repeat(128), "0".repeat(126), "0".repeat(130)] {
            assert_eq!(kept.follow(&[of(proof)]), Err(VouchError::Digits));
        }
        assert!(kept.follow(&[good]).is_ok());
        // A chain counts whole or not at all.
        let mut links = chain(&[1, 2, 3]);
        links[1].proof.replace_range(..2, "00");
        assert_eq!(kept.follow(&links), Err(VouchError::Signature));
    }

    #[test]
    fn the_daemon_and_root_make_the_same_texts() {
        let example: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/replace-key.json")).unwrap();
        let kept: Kept = serde_json::from_value(example["kept"].clone()).unwrap();
        let link: Link = serde_json::from_value(example["link"].clone()).unwrap();
        let next: Kept = serde_json::from_value(example["next"].clone()).unwrap();
        assert_eq!(kept.follow(&[link]), Ok(next));
    }

    #[test]
    fn nonces_are_read_and_drawn() {
        assert_ne!(Nonce::draw().unwrap(), Nonce::draw().unwrap());
        let text = serde_json::to_string(&NONCE).unwrap();
        assert_eq!(serde_json::from_str::<Nonce>(&text).unwrap(), NONCE);
        for wrong in ["\"\"", "\"zz\"", "7", "\"é\""] {
            assert!(serde_json::from_str::<Nonce>(wrong).is_err(), "{wrong}");
        }
    }
}
