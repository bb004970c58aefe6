//! Who is at the machine: what the daemon asks root to show, and what root tells the daemon it has seen.
//!
//! The daemon talks to the network and is not root, so it can neither write to the stick nor read the power button. It
//! connects to root's socket and says JSON, a line each. What it can have is little: a claim shown where somebody at
//! the machine sees it, the claim erased, the owner's public key kept, or replaced by one that it vouches for, and what
//! the owner has proved to want noted: that the next start forgets everything of the owner, or that a version below the
//! floor may be started once. What root says is evidence that somebody is there, which key it keeps, and what a proof
//! must hold. No line makes root open a path of the daemon's choosing or run a program.
//!
//! - [`machine`]: what follows from what, purely.
//! - [`press`]: what presses of the power button mean. [`button`] reads them, [`stick`] looks for reset files and updates ([`looks`]: where);
//!   [`used`] knows the reset files that were used, [`bring`] has an update handed over.
//! - [`owner`]: the owner's key on the disk, [`vouch`]: whether it vouches for another.
//! - [`note`]: the claim on the stick and on the screens, [`show`]: when. [`serve`] waits for all of it in one place.
//!
//! What is proved and how stands in [`crate::proof`].
//!
//! Deliberately absent: power (the daemon asks logind), what an update is, and reading back anything but the key and its salt.

pub mod bring;
pub mod button;
pub mod looks;
pub mod machine;
pub mod note;
pub mod owner;
pub mod press;
pub mod serve;
pub mod show;
pub mod stick;
pub mod used;
pub mod vouch;

use std::fmt;
use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::proof::{Deed, Proof, Refusal};
use vouch::{Link, MAX_LINKS, Nonce};

/// Where the daemon connects.
pub const SOCKET: &str = "/run/punktfunk-os/attend.sock";

/// What this program speaks.
pub const SCHEMA: u32 = 4;

/// No line is longer, in bytes and without its end.
pub const MAX_LINE_BYTES: usize = 4096;

/// So many names of the host are shown.
pub const MAX_NAMES: usize = 8;

/// No name is longer, in bytes.
const MAX_NAME_BYTES: usize = 120;

/// What the daemon says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromDaemon {
    /// The host can be claimed: show how.
    Claim(Claim),
    /// It is claimed: show it no more.
    Claimed,
    /// The key with which the owner proves that it is him.
    Owner(OwnerKey),
    /// The password was changed: the keys since the one that is kept, each with the proof by the one before.
    ReplaceOwner {
        /// From the oldest to the newest.
        links: Vec<Link>,
    },
    /// What was said of somebody at the machine has been taken.
    PresenceTaken,
    /// What must a proof hold that the owner wants this?
    AskProof(Deed),
    /// The proof. Root has noted what is to be done when it says that it took it.
    BringProof(Proof),
}

/// How the host is claimed. Whoever knows it can.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// To be typed, letters and digits.
    pub code: Secret,
    /// To be opened, 32 hexadecimal digits.
    pub token: Secret,
    /// Where the host answers, such as `https://punktfunk-1a2b.local:47990`.
    pub names: Vec<String>,
    /// The fingerprint of its certificate, hexadecimal digits.
    pub fingerprint: String,
}

/// A text that is not to be seen in any log, and is wiped.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// The text.
    pub fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What is not to be seen.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("names", &self.names).finish_non_exhaustive()
    }
}

/// The public half of the owner's proof, and the salt that makes its private half from the password.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerKey {
    /// 32 hexadecimal digits.
    pub salt: String,
    /// 64 hexadecimal digits.
    pub key: String,
}

/// What root says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum FromRoot {
    /// The first line of each connection.
    Hello {
        /// [`SCHEMA`].
        schema: u32,
    },
    /// Somebody is at the machine.
    Presence(Presence),
    /// The owner's key is kept.
    OwnerKept {
        /// Which: its 64 hexadecimal digits.
        key: String,
        /// What the next proof by it must hold.
        nonce: Nonce,
    },
    /// It is not.
    OwnerRefused {
        /// Why, as a part of a sentence.
        reason: String,
    },
    /// A proof by this key is wanted, of what was asked about last.
    ProofAsked {
        /// What it must hold; it counts once.
        nonce: Nonce,
        /// Whose proof, and the salt that makes its private half from the password.
        #[serde(flatten)]
        owner: OwnerKey,
    },
    /// The proof was good, and what follows is noted on the disk.
    ProofTaken,
    /// Nothing is done.
    ProofRefused {
        /// Why.
        why: Refusal,
    },
    /// The word of a newer program.
    #[serde(other)]
    Unknown,
}

/// How somebody has shown to be at the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
pub enum Presence {
    /// Three short presses of the power button.
    PowerButton,
    /// A reset file on a stick.
    ResetFile {
        /// The SHA-256 of its bytes, 64 hexadecimal digits.
        digest: String,
    },
}

/// Why a line of the daemon is not believed.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is not what the daemon says. What it says is not repeated: it may hold a secret.
    #[error("a line that cannot be read from column {} on", .0.column())]
    Malformed(#[from] serde_json::Error),
    /// A part of it is out of its bounds.
    #[error("`{0}` is out of its bounds")]
    Bounds(&'static str),
}

impl FromDaemon {
    /// Reads a line; what comes back is within all bounds, and can be shown on a screen as it is.
    pub fn parse(line: &[u8]) -> Result<Self, LineError> {
        let said: Self = serde_json::from_slice(line)?;
        let checks: Vec<(&'static str, bool)> = match &said {
            Self::Claimed | Self::PresenceTaken => Vec::new(),
            Self::Claim(claim) => {
                let code = claim.code.expose();
                let plain = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
                vec![
                    ("code", (4..=20).contains(&code.len()) && plain),
                    ("token", is_hex(claim.token.expose(), 32..=32)),
                    (
                        "names",
                        claim.names.len() <= MAX_NAMES
                            && claim.names.iter().all(|name| is_name(name)),
                    ),
                    ("fingerprint", is_hex(&claim.fingerprint, 1..=128)),
                ]
            }
            Self::Owner(owner) => key_checks(owner).to_vec(),
            Self::ReplaceOwner { links } => {
                let parts = links.iter().flat_map(|link| {
                    let [salt, key] = key_checks(&link.owner);
                    [salt, key, ("proof", is_hex(&link.proof, 128..=128))]
                });
                let count = ("links", (1..=MAX_LINKS).contains(&links.len()));
                std::iter::once(count).chain(parts).collect()
            }
            Self::AskProof(deed) => vec![("commit", deed.is_sane())],
            Self::BringProof(shown) => {
                let proof = ("proof", is_hex(&shown.proof, 128..=128));
                vec![("commit", shown.deed.is_sane()), proof]
            }
        };
        match checks.into_iter().find(|(_, good)| !good) {
            None => Ok(said),
            Some((part, _)) => Err(LineError::Bounds(part)),
        }
    }
}

fn is_hex(text: &str, digits: RangeInclusive<usize>) -> bool {
    digits.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn key_checks(owner: &OwnerKey) -> [(&'static str, bool); 2] {
    [("salt", is_hex(&owner.salt, 32..=32)), ("key", is_hex(&owner.key, 64..=64))]
}

/// An address of the console and nothing else: no path, no name and password, nothing that moves a cursor.
fn is_name(name: &str) -> bool {
    let host = name.strip_prefix("https://").unwrap_or_default();
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    !host.is_empty() && name.len() <= MAX_NAME_BYTES && host.bytes().all(plain)
}

impl FromRoot {
    /// The line that says it, with its end.
    pub fn line(&self) -> String {
        // Nothing in it can fail to be put into words; were it so, an empty line is no harm.
        let mut line = serde_json::to_string(self).unwrap_or_default();
        line.push('\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const CLAIM: &str = r#"{"say":"claim","code":"ABCD2345",
        "token":"00112233445566778899aabbccddeeff","names":["https://punktfunk-1a2b.local:47990"],
        "fingerprint":"ab12"}"#;

    #[test]
    fn the_daemon_is_understood() {
        let FromDaemon::Claim(claim) = FromDaemon::parse(CLAIM.as_bytes()).unwrap() else {
            panic!()
        };
        assert_eq!(claim.code.expose(), "ABCD2345");
        let seen = format!("{claim:?} {:?}", claim.code);
        assert!(!seen.contains("ABCD") && !seen.contains("0011"), "{seen}");
        let claimed = FromDaemon::parse(br#"{"say":"claimed"}"#).unwrap();
        assert_eq!(claimed, FromDaemon::Claimed);
        let taken = FromDaemon::parse(br#"{"say":"presence-taken"}"#).unwrap();
        assert_eq!(taken, FromDaemon::PresenceTaken);
        let owner =
            format!(r#"{{"say":"owner","salt":"{}","key":"{}"}}"#, "0".repeat(32), "a".repeat(64));
        assert!(matches!(FromDaemon::parse(owner.as_bytes()), Ok(FromDaemon::Owner(_))));
    }

    #[test]
    fn what_is_out_of_bounds_is_not_believed() {
        for (part, from, to) in [
            ("code", "ABCD2345", "ABCD\\u001b[2J"),
            ("code", "ABCD2345", "A"),
            ("token", "0011", "zz11"),
            ("names", "https://punktfunk-1a2b.local:47990", "http://punktfunk.local"),
            ("names", "punktfunk-1a2b.local:47990", "evil@host/path"),
            ("names", "punktfunk-1a2b.local:47990", "a b"),
            ("fingerprint", "ab12", ""),
        ] {
            let line = CLAIM.replace(from, to);
            let error = FromDaemon::parse(line.as_bytes()).unwrap_err();
            assert_eq!(error.to_string(), format!("`{part}` is out of its bounds"), "{line}");
        }
        assert!(FromDaemon::parse(br#"{"say":"power","verb":"restart"}"#).is_err());
    }

    #[test]
    fn what_is_to_be_proved_is_understood_and_bounded() {
        let commit = "0a".repeat(32);
        let parse = |line: &str| FromDaemon::parse(line.as_bytes());
        let reset = parse(r#"{"say":"ask-proof","verb":"factory-reset"}"#).unwrap();
        assert_eq!(reset, FromDaemon::AskProof(Deed::FactoryReset));
        let ask = |commit: &str| {
            parse(&format!(
                r#"{{"say":"ask-proof","verb":"rollback-below-floor","commit":"{commit}"}}"#
            ))
        };
        let back = Deed::RollbackBelowFloor { commit: commit.clone() };
        assert_eq!(ask(&commit).unwrap(), FromDaemon::AskProof(back.clone()));
        let bring = |digits: usize| {
            let (nonce, proof) = ("09".repeat(32), "c".repeat(digits));
            parse(&format!(
                r#"{{"say":"bring-proof","verb":"rollback-below-floor","commit":"{commit}",
                    "nonce":"{nonce}","proof":"{proof}"}}"#
            ))
        };
        let proof = Proof { deed: back, nonce: Nonce::new([9; 32]), proof: "c".repeat(128) };
        assert_eq!(bring(128).unwrap(), FromDaemon::BringProof(proof));
        for wrong in ["0A".repeat(32), "0a".repeat(31), "../x".to_owned(), "zz".repeat(32)] {
            assert_eq!(ask(&wrong).unwrap_err().to_string(), "`commit` is out of its bounds");
        }
        assert_eq!(bring(126).unwrap_err().to_string(), "`proof` is out of its bounds");
        // What root does not do here is not asked of it here.
        for verb in ["install", "replace-key", "rollback-below-floor"] {
            assert!(parse(&format!(r#"{{"say":"ask-proof","verb":"{verb}"}}"#)).is_err());
        }
    }

    #[test]
    fn chains_are_bounded_and_a_line_holds_the_longest() {
        let link = |salt: usize, key: usize, proof: usize| Link {
            owner: OwnerKey { salt: "a".repeat(salt), key: "b".repeat(key) },
            proof: "c".repeat(proof),
        };
        let parse = |links: Vec<Link>| {
            let line = serde_json::to_vec(&FromDaemon::ReplaceOwner { links }).unwrap();
            assert!(line.len() <= MAX_LINE_BYTES, "{}", line.len());
            FromDaemon::parse(&line).map(drop).map_err(|error| error.to_string())
        };
        let good = link(32, 64, 128);
        assert_eq!(parse(vec![good.clone(); MAX_LINKS]), Ok(()));
        for (part, links) in [
            ("links", vec![]),
            ("links", vec![good.clone(); MAX_LINKS + 1]),
            ("salt", vec![good.clone(), link(30, 64, 128)]),
            ("key", vec![link(32, 66, 128), good.clone()]),
            ("proof", vec![link(32, 64, 126)]),
        ] {
            assert_eq!(parse(links), Err(format!("`{part}` is out of its bounds")));
        }
    }

    #[test]
    fn root_speaks_as_agreed() {
        let line = |said: FromRoot| said.line();
        assert_eq!(line(FromRoot::Hello { schema: 4 }), "{\"say\":\"hello\",\"schema\":4}\n");
        let button = FromRoot::Presence(Presence::PowerButton);
        assert_eq!(line(button), "{\"say\":\"presence\",\"by\":\"power-button\"}\n");
        let file = FromRoot::Presence(Presence::ResetFile { digest: "ab".to_owned() });
        assert_eq!(line(file), "{\"say\":\"presence\",\"by\":\"reset-file\",\"digest\":\"ab\"}\n");
        let kept = FromRoot::OwnerKept { key: "ab".to_owned(), nonce: Nonce::new([9; 32]) };
        let says = format!(
            "{{\"say\":\"owner-kept\",\"key\":\"ab\",\"nonce\":\"{}\"}}\n",
            "09".repeat(32)
        );
        assert_eq!(line(kept), says);
        let refused = FromRoot::OwnerRefused { reason: "r".to_owned() };
        assert_eq!(line(refused), "{\"say\":\"owner-refused\",\"reason\":\"r\"}\n");
        let owner = OwnerKey { salt: "s".to_owned(), key: "k".to_owned() };
        let asked = FromRoot::ProofAsked { nonce: Nonce::new([9; 32]), owner };
        let says = format!(
            "{{\"say\":\"proof-asked\",\"nonce\":\"{}\",\"salt\":\"s\",\"key\":\"k\"}}\n",
            "09".repeat(32)
        );
        assert_eq!(line(asked), says);
        assert_eq!(line(FromRoot::ProofTaken), "{\"say\":\"proof-taken\"}\n");
        let refused = FromRoot::ProofRefused { why: Refusal::NeedsPresence };
        assert_eq!(line(refused), "{\"say\":\"proof-refused\",\"why\":\"needs-presence\"}\n");
        let newer: FromRoot =
            serde_json::from_str(r#"{"say":"proof-refused","why":"the moon"}"#).unwrap();
        assert_eq!(newer, FromRoot::ProofRefused { why: Refusal::Unknown });
        let newer: FromRoot = serde_json::from_str(r#"{"say":"weather","is":"fine"}"#).unwrap();
        assert_eq!(newer, FromRoot::Unknown);
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line: Vec<u8>) {
            let _ = FromDaemon::parse(&line);
        }
    }
}
