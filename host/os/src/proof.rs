//! The owner's proof for what root does and nobody can undo.
//!
//! The daemon says what is to be done, as a [`Deed`]; root asks for a proof of that, with a nonce that counts once. A
//! proof is an Ed25519 signature by the owner's key over one text: the domain, the verb, the digest of the deed and the
//! nonce. Root makes the digest itself, of what it will do, so nothing else is ever signed. The first proof that is shown
//! uses the nonce up, right or wrong, and a newer question takes the place of an older one.
//!
//! A factory reset also needs somebody at the machine, in this start of it and within ten minutes: whoever took the daemon
//! over may have heard the password. Time is the kernel's since the start, sleep counted in, and the start's own name
//! stands with it; no wall clock decides. That is looked at last, so that only a good proof learns that nobody is there.
//!
//! The daemon makes the same texts (`access::proof`), and tests/deed.json holds both to one example. What this does not
//! protect from stands in docs/decisions/0014-owner-proof.md.

use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attend::vouch::Nonce;

/// What every signed text begins with.
const DOMAIN: &[u8] = b"punktfunk owner proof v1\0";

/// So long after somebody was at the machine that counts.
pub const PRESENCE_HOLDS: Duration = Duration::from_secs(600);

/// A commit has so many hexadecimal digits.
const COMMIT_DIGITS: usize = 64;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Deed {
    /// Forget everything of the owner. Its digest is the SHA-256 of no bytes: there is nothing to choose.
    FactoryReset,
    /// Start a version once, in this start of the machine, that is older than the oldest that is safe.
    RollbackBelowFloor {
        /// Which: 64 hexadecimal digits, none of them a capital. The deed's digest is the SHA-256 over these digits.
        commit: String,
    },
}

impl Deed {
    /// As it is signed.
    pub const fn verb(&self) -> &'static str {
        match self {
            Self::FactoryReset => "factory-reset",
            Self::RollbackBelowFloor { .. } => "rollback-below-floor",
        }
    }

    /// The SHA-256 of what it is done to.
    pub fn digest(&self) -> [u8; 32] {
        match self {
            Self::FactoryReset => sha256(&[]),
            Self::RollbackBelowFloor { commit } => sha256(&[commit.as_bytes()]),
        }
    }

    /// Whether somebody must be at the machine, too.
    pub const fn needs_presence(&self) -> bool {
        matches!(self, Self::FactoryReset)
    }

    /// Whether it names a commit as one is written.
    pub(crate) fn is_sane(&self) -> bool {
        match self {
            Self::FactoryReset => true,
            Self::RollbackBelowFloor { commit } => is_commit(commit),
        }
    }
}

/// Whether a text is the name of a commit.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == COMMIT_DIGITS
        && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A proof as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Of what.
    #[serde(flatten)]
    pub deed: Deed,
    /// What it was asked for with.
    pub nonce: Nonce,
    /// An Ed25519 signature, 128 hexadecimal digits.
    pub proof: String,
}

/// Why nothing is done. The words are the daemon's to put into sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// No key is kept, or what is kept cannot be read.
    NoKey,
    /// The nonce is none that was given out, or was used.
    NotAsked,
    /// The proof was asked for to do something else.
    OtherDeed,
    /// The signature is not the kept key's over this.
    Signature,
    /// The proof is good, and nobody is at the machine.
    NeedsPresence,
    /// The proof is good, and the disk did not take what follows.
    NotKept,
    /// The word of a newer program.
    #[serde(other)]
    Unknown,
}

/// A moment in one start of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The kernel's name for the start; empty when it could not be read, and then the moment is in no start.
    pub boot_id: String,
    /// Since the start, sleep counted in.
    pub at: Duration,
}

impl Moment {
    /// Whether somebody who was seen at this moment is still taken to be there.
    pub fn holds(&self, now: &Self) -> bool {
        let is_this_start = !self.boot_id.is_empty() && self.boot_id == now.boot_id;
        let ago = now.at.checked_sub(self.at);
        is_this_start && ago.is_some_and(|ago| ago <= PRESENCE_HOLDS)
    }
}

/// Asks for proofs and looks at them. Pure.
#[derive(Debug, Clone, Default)]
pub struct Verifier {
    asked: Option<(Deed, Nonce)>,
}

impl Verifier {
    /// Asks for a proof of a deed with a nonce that nobody could know before.
    pub fn ask(&mut self, deed: Deed, fresh: Nonce) {
        self.asked = Some((deed, fresh));
    }

    /// What is to be done now, by a proof of the holder of `key` (64 hexadecimal digits). `seen` is when somebody was last
    /// at the machine.
    ///
    /// # Errors
    /// See [`Refusal`]; the nonce is used up all the same.
    pub fn verify(
        &mut self,
        key: &str,
        shown: &Proof,
        seen: Option<&Moment>,
        now: &Moment,
    ) -> Result<Deed, Refusal> {
        let (deed, nonce) = self.asked.take().ok_or(Refusal::NotAsked)?;
        if shown.nonce != nonce {
            return Err(Refusal::NotAsked);
        }
        if shown.deed != deed {
            return Err(Refusal::OtherDeed);
        }
        let key: [u8; 32] = unhex(key).ok_or(Refusal::NoKey)?;
        let proof: [u8; 64] = unhex(&shown.proof).ok_or(Refusal::Signature)?;
        let text = signed(deed.verb(), &deed.digest(), nonce);
        if !is_signed_by(&key, &text, &proof) {
            return Err(Refusal::Signature);
        }
        if deed.needs_presence() && !seen.is_some_and(|seen| seen.holds(now)) {
            return Err(Refusal::NeedsPresence);
        }
        Ok(deed)
    }
}

/// The text that is signed. Each part but the verb has one length, and the verb ends with a zero: no two deeds make one
/// text.
pub(crate) fn signed(verb: &str, digest: &[u8; 32], nonce: Nonce) -> Vec<u8> {
    [DOMAIN, verb.as_bytes(), b"\0", digest, nonce.bytes()].concat()
}

/// Whether the holder of a public key has signed a text.
pub(crate) fn is_signed_by(key: &[u8; 32], text: &[u8], signature: &[u8; 64]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(text, signature).is_ok()
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize().into()
}

/// Exactly so many bytes.
pub(crate) fn unhex<const BYTES: usize>(text: &str) -> Option<[u8; BYTES]> {
    if text.len() != 2 * BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; BYTES];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attend::vouch::tests::{NONCE, Owner};

    fn back() -> Deed {
        Deed::RollbackBelowFloor { commit: "c".repeat(64) }
    }

    fn moment(boot_id: &str, seconds: u64) -> Moment {
        Moment { boot_id: boot_id.to_owned(), at: Duration::from_secs(seconds) }
    }

    /// What comes of an honest proof of `deed` after one change to it, with somebody seen then; shown again it is always
    /// refused.
    fn check(
        deed: &Deed,
        seen: Option<Moment>,
        change: impl FnOnce(&mut Proof, &mut Verifier),
    ) -> Result<Deed, Refusal> {
        let owner = Owner::new(1);
        let mut verifier = Verifier::default();
        verifier.ask(deed.clone(), NONCE);
        let mut shown = owner.prove(deed, NONCE);
        change(&mut shown, &mut verifier);
        let now = moment("this", 1000);
        let key = owner.key().key;
        let came = verifier.verify(&key, &shown, seen.as_ref(), &now);
        let again = verifier.verify(&key, &owner.prove(deed, NONCE), seen.as_ref(), &now);
        assert_eq!(again, Err(Refusal::NotAsked), "replay");
        came
    }

    #[test]
    fn a_proof_is_good_for_one_deed_once() {
        let other = || Deed::RollbackBelowFloor { commit: "d".repeat(64) };
        let thief = Owner::new(7);
        assert_eq!(check(&back(), None, |_, _| {}), Ok(back()));
        type Change = Box<dyn FnOnce(&mut Proof, &mut Verifier)>;
        let changes: [(&str, Change, Refusal); 9] = [
            ("another verb", Box::new(|p, _| p.deed = Deed::FactoryReset), Refusal::OtherDeed),
            ("another commit", Box::new(move |p, _| p.deed = other()), Refusal::OtherDeed),
            (
                "another commit's, relabelled",
                Box::new(move |p, _| p.proof = Owner::new(1).prove(&other(), NONCE).proof),
                Refusal::Signature,
            ),
            (
                "another verb's, relabelled",
                Box::new(|p, _| p.proof = Owner::new(1).prove(&Deed::FactoryReset, NONCE).proof),
                Refusal::Signature,
            ),
            ("another nonce", Box::new(|p, _| p.nonce = Nonce::new([8; 32])), Refusal::NotAsked),
            (
                "another nonce's, relabelled",
                Box::new(|p, _| {
                    p.proof = Owner::new(1).prove(&back(), Nonce::new([8; 32])).proof;
                }),
                Refusal::Signature,
            ),
            (
                "another key's",
                Box::new(move |p, _| *p = thief.prove(&back(), NONCE)),
                Refusal::Signature,
            ),
            ("no digits", Box::new(|p, _| p.proof = "z".repeat(128)), Refusal::Signature),
            (
                "asked for since",
                Box::new(|_, v| v.ask(back(), Nonce::new([8; 32]))),
                Refusal::NotAsked,
            ),
        ];
        for (what, change, want) in changes {
            assert_eq!(check(&back(), None, change), Err(want), "{what}");
        }
        let mut never = Verifier::default();
        let proof = Owner::new(1).prove(&back(), NONCE);
        let now = moment("this", 0);
        let key = Owner::new(1).key().key;
        assert_eq!(never.verify(&key, &proof, None, &now), Err(Refusal::NotAsked));
        never.ask(back(), NONCE);
        assert_eq!(never.verify("ab", &proof, None, &now), Err(Refusal::NoKey));
    }

    #[test]
    fn a_reset_also_needs_somebody_there_in_this_start_and_lately() {
        let reset = Deed::FactoryReset;
        for (what, seen, good) in [
            ("nobody", None, false),
            ("now", Some(moment("this", 1000)), true),
            ("ten minutes ago", Some(moment("this", 400)), true),
            ("longer ago", Some(moment("this", 399)), false),
            ("in another start", Some(moment("other", 1000)), false),
            ("in a time to come", Some(moment("this", 1001)), false),
        ] {
            let want = if good { Ok(reset.clone()) } else { Err(Refusal::NeedsPresence) };
            assert_eq!(check(&reset, seen.clone(), |_, _| {}), want, "{what}");
            // Presence is no proof, and a bad proof is told nothing of it.
            let bad = |p: &mut Proof, _: &mut Verifier| p.proof.replace_range(..2, "00");
            assert_eq!(check(&reset, seen.clone(), bad), Err(Refusal::Signature), "{what}");
            assert_eq!(check(&back(), seen, |_, _| {}), Ok(back()), "{what}");
        }
        let unnamed = moment("", 5);
        assert!(!unnamed.holds(&unnamed), "a start without a name is no start");
    }

    #[test]
    fn the_daemon_and_root_make_the_same_texts() {
        let example: serde_json::Value =
            serde_json::from_str(include_str!("../tests/deed.json")).unwrap();
        let key = example["key"].as_str().unwrap();
        let proofs: Vec<Proof> = serde_json::from_value(example["proofs"].clone()).unwrap();
        assert_eq!(proofs.len(), 2);
        for proof in proofs {
            let mut verifier = Verifier::default();
            verifier.ask(proof.deed.clone(), proof.nonce);
            let now = moment("this", 0);
            assert_eq!(verifier.verify(key, &proof, Some(&now), &now), Ok(proof.deed.clone()));
        }
    }
}
