//! The owner's proof: what root asks for before it does something that cannot be undone.
//!
//! The daemon does not run as root, so that whoever takes it over must not own the machine. Installing, resetting and
//! going back below the floor are done by a small root service, and it does not believe the daemon: it wants a
//! signature over what is to be done, by a key that only the owner's password makes. Argon2id makes the key's seed from
//! the password and a salt of its own, apart from the login's; the root service keeps the public key and the salt.
//!
//! It gives out a nonce for one verb and one digest (of what is to be installed, or of the new key), once. A proof is
//! good for that verb, that digest and that nonce, and the nonce is gone with the first proof that is shown, right or
//! wrong. What is signed begins with a text that nothing else of ours signs.
//!
//! One nonce stands: the one for `replace-key`, which root keeps beside the key, because the password is changed when
//! root's program may not be there. It is used up when the key is replaced (see [`vouch`](super::vouch)).
//!
//! What this does not protect from stands in docs/decisions/0014-owner-proof.md.

use std::fmt;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::hash::{HashCost, Password};
use super::secret::sha256;
use super::{AccessError, Presence, Random};

/// What every signed text begins with.
const DOMAIN: &[u8] = b"punktfunk owner proof v1\0";
/// What the text begins with that makes the next nonce.
const NONCE_DOMAIN: &[u8] = b"punktfunk owner nonce v1\0";
/// The length of a signature, in bytes.
const SIGNATURE_BYTES: usize = 64;

/// What is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Write the system to a disk.
    Install,
    /// Forget everything.
    FactoryReset,
    /// Go back to a version older than the oldest that is safe.
    RollbackBelowFloor,
    /// Believe another key from now on; the digest is that of its salt and public key.
    ReplaceKey,
}

impl Verb {
    /// As it is written and signed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Install => "install",
            Self::FactoryReset => "factory-reset",
            Self::RollbackBelowFloor => "rollback-below-floor",
            Self::ReplaceKey => "replace-key",
        }
    }

    /// Whether somebody must be at the machine as well: what is lost with these is lost for good, and whoever took the
    /// daemon over may have the password.
    pub const fn needs_presence(self) -> bool {
        match self {
            Self::Install | Self::FactoryReset => true,
            Self::RollbackBelowFloor | Self::ReplaceKey => false,
        }
    }
}

/// 32 bytes that count once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Nonce(pub [u8; 32]);

impl Nonce {
    /// The one for the next key, once the key with this digest has been believed with this one. Root's program makes the
    /// same, so that a chain of keys needs no word of root's in between.
    pub(super) fn after(self, digest: [u8; 32]) -> Self {
        Self(sha256(&[NONCE_DOMAIN, &self.0, &digest].concat()))
    }
}

/// A proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnerProof {
    /// What is to be done.
    pub verb: Verb,
    /// To what: the SHA-256 of it.
    pub digest: [u8; 32],
    /// What the verifier gave out for it.
    pub nonce: Nonce,
    /// Ed25519 over all of it.
    pub signature: [u8; SIGNATURE_BYTES],
}

/// Why a proof is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It was not asked for, or was shown before.
    #[error("nobody asked for this proof, or it was used already; ask for a new one")]
    NotAsked,
    /// It is for something else than what is to be done.
    #[error("this proof is for something else; nothing was done")]
    OtherDeed,
    /// The key is another one.
    #[error("this proof was not made with the owner's password; nothing was done")]
    Signature,
    /// Nobody is at the machine.
    #[error("this also needs somebody at the machine; nothing was done")]
    Presence,
}

/// The owner's key, while the password is at hand. Never kept; wiped when dropped.
pub struct ProofKey {
    salt: [u8; 16],
    pair: Ed25519KeyPair,
}

impl ProofKey {
    /// The key of a new password, with a new salt.
    pub(super) fn make(
        password: &Password,
        cost: HashCost,
        random: &Random,
    ) -> Result<Self, AccessError> {
        let mut salt = [0; 16];
        random(&mut salt)?;
        Self::derive(password.as_bytes(), salt, cost)
    }

    /// The key that this password makes with this salt. Takes as long as a login.
    ///
    /// # Errors
    /// There is not enough memory for it.
    pub fn derive(password: &[u8], salt: [u8; 16], cost: HashCost) -> Result<Self, AccessError> {
        let mut seed = Zeroizing::new([0; 32]);
        let failed = |error: &dyn fmt::Display| AccessError::Hash(error.to_string());
        cost.argon2()?
            .hash_password_into(password, &salt, &mut *seed)
            .map_err(|error| failed(&error))?;
        let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|error| failed(&error))?;
        Ok(Self { salt, pair })
    }

    /// What it was made with beside the password.
    pub fn salt(&self) -> [u8; 16] {
        self.salt
    }

    /// What the verifier keeps.
    pub fn public(&self) -> [u8; 32] {
        let mut public = [0; 32];
        public.copy_from_slice(self.pair.public_key().as_ref());
        public
    }

    /// What a proof for [`Verb::ReplaceKey`] is about.
    pub fn digest(&self) -> [u8; 32] {
        sha256(&[self.salt.as_slice(), self.public().as_slice()].concat())
    }

    /// Proves that the owner wants this.
    pub fn prove(&self, verb: Verb, digest: [u8; 32], nonce: Nonce) -> OwnerProof {
        let mut signature = [0; SIGNATURE_BYTES];
        signature.copy_from_slice(self.pair.sign(&signed(verb, digest, nonce)).as_ref());
        OwnerProof { verb, digest, nonce, signature }
    }
}

impl fmt::Debug for ProofKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProofKey(redacted)")
    }
}

/// Who checks proofs; root's, on an appliance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofVerifier {
    salt: [u8; 16],
    key: [u8; 32],
    asked: Option<Asked>,
}

/// What a proof was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    verb: Verb,
    digest: [u8; 32],
    nonce: Nonce,
}

impl ProofVerifier {
    /// One that believes the holder of this key.
    pub fn new(salt: [u8; 16], key: [u8; 32]) -> Self {
        Self { salt, key, asked: None }
    }

    /// What the key is made with beside the password.
    pub fn salt(&self) -> [u8; 16] {
        self.salt
    }

    /// The public key.
    pub fn key(&self) -> [u8; 32] {
        self.key
    }

    /// Asks for a proof of this, in place of what was asked for before. The nonce is made of 32 random bytes.
    pub fn challenge(&mut self, verb: Verb, digest: [u8; 32], random: [u8; 32]) -> Nonce {
        let nonce = Nonce(random);
        self.asked = Some(Asked { verb, digest, nonce });
        nonce
    }

    /// Whether the owner wants this verb done to what has this digest, and is at the machine where the verb needs it
    /// (see [`Verb::needs_presence`]). What was asked for is used up, whatever comes of it.
    ///
    /// # Errors
    /// See [`ProofError`].
    pub fn verify(
        &mut self,
        proof: &OwnerProof,
        verb: Verb,
        digest: [u8; 32],
        presence: Option<&Presence>,
    ) -> Result<(), ProofError> {
        let asked = self.asked.take().ok_or(ProofError::NotAsked)?;
        if !bool::from(asked.nonce.0.ct_eq(&proof.nonce.0)) {
            return Err(ProofError::NotAsked);
        }
        let is_same = |verb: Verb, digest: [u8; 32]| verb == asked.verb && digest == asked.digest;
        if !is_same(verb, digest) || !is_same(proof.verb, proof.digest) {
            return Err(ProofError::OtherDeed);
        }
        UnparsedPublicKey::new(&ED25519, self.key)
            .verify(&signed(asked.verb, asked.digest, asked.nonce), &proof.signature)
            .map_err(|_| ProofError::Signature)?;
        if verb.needs_presence() && presence.is_none() {
            return Err(ProofError::Presence);
        }
        Ok(())
    }
}

/// What is signed. Each part but the verb has one length, and the verb ends with a zero: no two deeds make one text.
fn signed(verb: Verb, digest: [u8; 32], nonce: Nonce) -> Vec<u8> {
    [DOMAIN, verb.name().as_bytes(), b"\0", &digest, &nonce.0].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Deed;

    const DIGEST: [u8; 32] = [7; 32];
    const VERBS: [Verb; 4] =
        [Verb::Install, Verb::FactoryReset, Verb::RollbackBelowFloor, Verb::ReplaceKey];
    const HERE: Option<&Presence> = Some(&Presence::PowerButton);

    fn key(password: &[u8]) -> ProofKey {
        ProofKey::derive(password, [1; 16], HashCost::DANGEROUS_CHEAP).unwrap()
    }

    fn check(
        change: impl FnOnce(&mut OwnerProof, &mut ProofVerifier),
        doing: (Verb, [u8; 32]),
        want: Result<(), ProofError>,
    ) {
        let key = key(b"the owner's");
        let mut verifier = ProofVerifier::new(key.salt(), key.public());
        let nonce = verifier.challenge(Verb::Install, DIGEST, [9; 32]);
        let mut proof = key.prove(Verb::Install, DIGEST, nonce);
        change(&mut proof, &mut verifier);
        let mut verify = || verifier.verify(&proof, doing.0, doing.1, HERE);
        assert_eq!(verify(), want);
        assert_eq!(verify(), Err(ProofError::NotAsked), "replay");
    }

    #[test]
    fn a_proof_is_good_for_one_deed_once() {
        let install = (Verb::Install, DIGEST);
        check(|_, _| {}, install, Ok(()));
        check(|_, _| {}, (Verb::FactoryReset, DIGEST), Err(ProofError::OtherDeed));
        check(|_, _| {}, (Verb::Install, [8; 32]), Err(ProofError::OtherDeed));
        check(|proof, _| proof.verb = Verb::FactoryReset, install, Err(ProofError::OtherDeed));
        check(|proof, _| proof.digest = [8; 32], install, Err(ProofError::OtherDeed));
        check(|proof, _| proof.nonce = Nonce([8; 32]), install, Err(ProofError::NotAsked));
        check(|proof, _| proof.signature[0] ^= 1, install, Err(ProofError::Signature));
        check(|_, verifier| verifier.key[3] ^= 1, install, Err(ProofError::Signature));
    }

    #[test]
    fn each_verb_is_proven_for_itself_and_by_its_digest() {
        let key = key(b"the owner's");
        for asked in VERBS {
            for done in VERBS {
                for digest in [DIGEST, [8; 32]] {
                    let mut verifier = ProofVerifier::new(key.salt(), key.public());
                    let nonce = verifier.challenge(asked, DIGEST, [9; 32]);
                    // An honest proof of what is done, by the owner, with the nonce of what was asked for.
                    let proof = key.prove(done, digest, nonce);
                    let is_it = asked == done && digest == DIGEST;
                    let want = if is_it { Ok(()) } else { Err(ProofError::OtherDeed) };
                    let verified = verifier.verify(&proof, done, digest, HERE);
                    assert_eq!(verified, want, "{asked:?} {done:?}");
                    let again = verifier.verify(&proof, asked, DIGEST, HERE);
                    assert_eq!(again, Err(ProofError::NotAsked), "the nonce is used up");
                }
            }
        }
    }

    #[test]
    fn a_proof_of_another_deed_with_this_nonce_is_none() {
        let key = key(b"the owner's");
        let mut verifier = ProofVerifier::new(key.salt(), key.public());
        for (verb, digest) in [(Verb::FactoryReset, DIGEST), (Verb::Install, [8; 32])] {
            let nonce = verifier.challenge(Verb::Install, DIGEST, [9; 32]);
            // Signed for another deed, then relabelled.
            let mut proof = key.prove(verb, digest, nonce);
            (proof.verb, proof.digest) = (Verb::Install, DIGEST);
            let verified = verifier.verify(&proof, Verb::Install, DIGEST, HERE);
            assert_eq!(verified, Err(ProofError::Signature));
        }
    }

    #[test]
    fn what_cannot_be_undone_needs_somebody_at_the_machine_as_well() {
        let key = key(b"the owner's");
        for verb in VERBS {
            let needs = matches!(verb, Verb::Install | Verb::FactoryReset);
            let mut verifier = ProofVerifier::new(key.salt(), key.public());
            let mut ask = |presence, wrong: u8| {
                let nonce = verifier.challenge(verb, DIGEST, [9; 32]);
                let mut proof = key.prove(verb, DIGEST, nonce);
                proof.signature[0] ^= wrong;
                let verified = verifier.verify(&proof, verb, DIGEST, presence);
                let again = verifier.verify(&proof, verb, DIGEST, HERE);
                assert_eq!(again, Err(ProofError::NotAsked), "{verb:?}: the nonce is used up");
                verified
            };
            let absent = if needs { Err(ProofError::Presence) } else { Ok(()) };
            assert_eq!(ask(None, 0), absent, "{verb:?}");
            assert_eq!(ask(HERE, 0), Ok(()), "{verb:?}");
            // Presence is no proof.
            assert_eq!(ask(HERE, 1), Err(ProofError::Signature), "{verb:?}");
            assert_eq!(ask(None, 1), Err(ProofError::Signature), "{verb:?}");
        }
    }

    #[test]
    fn another_password_or_salt_makes_another_key() {
        let other_salt = ProofKey::derive(b"the owner's", [2; 16], HashCost::DANGEROUS_CHEAP);
        assert_eq!(key(b"the owner's").public(), key(b"the owner's").public());
        assert_ne!(key(b"the owner's").public(), key(b"another's").public());
        assert_ne!(key(b"the owner's").public(), other_salt.unwrap().public());
    }

    #[test]
    fn a_newer_question_takes_the_place_of_an_older() {
        let key = key(b"the owner's");
        let mut verifier = ProofVerifier::new(key.salt(), key.public());
        let old = verifier.challenge(Verb::Install, DIGEST, [1; 32]);
        verifier.challenge(Verb::Install, DIGEST, [2; 32]);
        let proof = key.prove(Verb::Install, DIGEST, old);
        let verified = verifier.verify(&proof, Verb::Install, DIGEST, HERE);
        assert_eq!(verified, Err(ProofError::NotAsked));
    }

    #[test]
    fn the_daemon_and_root_make_the_same_texts() {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let new = ProofKey::derive(b"another's", [2; 16], HashCost::DANGEROUS_CHEAP).unwrap();
        let (old, nonce) = (key(b"the owner's"), Nonce([9; 32]));
        let proof = old.prove(Verb::ReplaceKey, new.digest(), nonce);
        let kept = |key: &ProofKey, nonce: Nonce| {
            serde_json::json!({
                "salt": hex(&key.salt()), "key": hex(&key.public()), "nonce": hex(&nonce.0)
            })
        };
        let example = serde_json::json!({
            "kept": kept(&old, nonce),
            "link": {
                "salt": hex(&new.salt()), "key": hex(&new.public()), "proof": hex(&proof.signature)
            },
            "next": kept(&new, nonce.after(new.digest())),
        });
        agree("replace-key.json", &example);
    }

    /// The same for what root does once it is proved.
    #[test]
    fn the_daemon_and_root_make_the_same_texts_of_deeds() {
        let hex = super::super::secret::hex;
        let (key, nonce) = (key(b"the owner's"), Nonce([9; 32]));
        let prove = |deed: Deed| key.prove(deed.verb(), deed.digest(), nonce);
        let reset = prove(Deed::FactoryReset);
        let commit = [0xa0; 32];
        let back = prove(Deed::RollbackBelowFloor { commit });
        let example = serde_json::json!({
            "key": hex(&key.public()),
            "proofs": [
                {
                    "verb": "factory-reset", "nonce": hex(&nonce.0),
                    "proof": hex(&reset.signature),
                },
                {
                    "verb": "rollback-below-floor", "commit": hex(&commit), "nonce": hex(&nonce.0),
                    "proof": hex(&back.signature),
                },
            ],
        });
        agree("deed.json", &example);
    }

    /// Writes an example that root's program is held to as well, or sees that it is this one.
    fn agree(name: &str, example: &serde_json::Value) {
        let path = format!("{}/os/tests/{name}", env!("CARGO_MANIFEST_DIR"));
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(&path, serde_json::to_string_pretty(example).unwrap() + "\n").unwrap();
        }
        let committed = std::fs::read(path).unwrap();
        let committed: serde_json::Value = serde_json::from_slice(&committed).unwrap();
        assert_eq!(committed, *example);
    }
}
