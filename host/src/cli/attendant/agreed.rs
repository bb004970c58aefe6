//! Both ends of the attendant's socket, word by word: what the daemon says is read by root's own program, what that says
//! is heard by the daemon. A word that one end gains does not compile here until it has an example.

use proptest::prelude::*;
use punktfunk_os::attend::vouch::{Link, MAX_LINKS, Nonce};
use punktfunk_os::attend::{self, Claim, FromDaemon, FromRoot, OwnerKey, Secret};
use punktfunk_os::proof::{self, Refusal};

use super::*;
use crate::access::{self, Asked, Deed, RootError};

const BACK: Deed = Deed::RollbackBelowFloor { commit: [0xa0; 32] };
const TOKEN: &str = "00112233445566778899aabbccddeeff";
const DIGEST: [u8; 32] = [0xa5; 32];

/// What root understands by it, by the daemon's own meaning.
fn meant(said: &Said<'_>) -> FromDaemon {
    match said {
        Said::Claim { code, token, names, fingerprint } => FromDaemon::Claim(Claim {
            code: Secret::new(code),
            token: Secret::new(token),
            names: names.to_vec(),
            fingerprint: (*fingerprint).to_owned(),
        }),
        Said::Claimed => FromDaemon::Claimed,
        Said::Owner { salt, key } => {
            FromDaemon::Owner(OwnerKey { salt: salt.clone(), key: key.clone() })
        }
        Said::ReplaceOwner { links } => {
            let link = |said: &SaidLink| Link {
                owner: OwnerKey { salt: said.salt.clone(), key: said.key.clone() },
                proof: said.proof.clone(),
            };
            FromDaemon::ReplaceOwner { links: links.iter().map(link).collect() }
        }
        Said::PresenceTaken => FromDaemon::PresenceTaken,
        Said::AskProof { deed } => FromDaemon::AskProof(wanted(deed)),
        Said::BringProof { deed, nonce, proof } => FromDaemon::BringProof(proof::Proof {
            deed: wanted(deed),
            nonce: Nonce::try_from(nonce.clone()).unwrap(),
            proof: proof.clone(),
        }),
    }
}

fn wanted(deed: &SaidDeed) -> proof::Deed {
    match deed {
        SaidDeed::FactoryReset => proof::Deed::FactoryReset,
        SaidDeed::RollbackBelowFloor { commit } => {
            proof::Deed::RollbackBelowFloor { commit: commit.clone() }
        }
    }
}

/// As many keys as a chain can have.
fn chain() -> Vec<SaidLink> {
    let link = |_| SaidLink { salt: hex(&[1; 16]), key: hex(&[2; 32]), proof: hex(&[3; 64]) };
    (0..MAX_LINKS).map(link).collect()
}

/// Whether the daemon understands it as root means it.
fn understood(said: &FromRoot, heard: &Heard) -> bool {
    match (said, heard) {
        (FromRoot::Hello { .. }, Heard::Hello) => true,
        (
            FromRoot::OwnerKept { key, nonce },
            Heard::OwnerKept { key: heard, nonce: heard_nonce },
        ) => key == heard && nonce.to_string() == *heard_nonce,
        (FromRoot::Presence(seen), Heard::Presence { by, digest }) => {
            let heard = presence(by, digest.as_deref()).unwrap();
            match seen {
                attend::Presence::PowerButton => heard == Presence::PowerButton,
                attend::Presence::ResetFile { .. } => {
                    heard == Presence::ResetFile { digest: DIGEST }
                }
            }
        }
        (FromRoot::OwnerRefused { reason }, Heard::OwnerRefused { reason: heard }) => {
            reason == heard
        }
        (FromRoot::ProofAsked { nonce, owner }, Heard::ProofAsked { nonce: heard, salt, key }) => {
            nonce.to_string() == *heard && owner.salt == *salt && owner.key == *key
        }
        (FromRoot::ProofTaken, Heard::ProofTaken) => true,
        (FromRoot::ProofRefused { why }, Heard::ProofRefused { why: heard }) => {
            serde_json::to_value(why).unwrap() == *heard
        }
        (FromRoot::Unknown, Heard::Unknown) => true,
        (
            FromRoot::Hello { .. }
            | FromRoot::Presence(_)
            | FromRoot::OwnerKept { .. }
            | FromRoot::OwnerRefused { .. }
            | FromRoot::ProofAsked { .. }
            | FromRoot::ProofTaken
            | FromRoot::ProofRefused { .. }
            | FromRoot::Unknown,
            _,
        ) => false,
    }
}

/// Which of root's words for the daemon it is; all of these numbers have an example below.
fn number(said: &FromDaemon) -> usize {
    match said {
        FromDaemon::Claim(_) => 0,
        FromDaemon::Claimed => 1,
        FromDaemon::Owner(_) => 2,
        FromDaemon::ReplaceOwner { .. } => 3,
        FromDaemon::PresenceTaken => 4,
        FromDaemon::AskProof(proof::Deed::FactoryReset) => 5,
        FromDaemon::AskProof(proof::Deed::RollbackBelowFloor { .. }) => 6,
        FromDaemon::BringProof(_) => 7,
    }
}

fn line(said: &Said<'_>) -> Vec<u8> {
    serde_json::to_vec(said).unwrap()
}

#[test]
fn root_understands_every_word_of_the_daemon_and_expects_no_other() {
    let names = ["https://punktfunk-1a2b.local:47990".to_owned(), "https://[fe80::1]".to_owned()];
    let examples = [
        Said::Claim { code: "ABCD2345", token: TOKEN, names: &names, fingerprint: "ab12" },
        Said::Claimed,
        Said::Owner { salt: hex(&[1; 16]), key: hex(&[2; 32]) },
        Said::ReplaceOwner { links: chain() },
        Said::PresenceTaken,
        Said::AskProof { deed: SaidDeed::of(Deed::FactoryReset) },
        Said::AskProof { deed: SaidDeed::of(BACK) },
        Said::BringProof { deed: SaidDeed::of(BACK), nonce: hex(&[5; 32]), proof: hex(&[6; 64]) },
    ];
    let mut expected = Vec::new();
    for said in &examples {
        let parsed = FromDaemon::parse(&line(said)).unwrap();
        assert_eq!(parsed, meant(said));
        expected.push(number(&parsed));
    }
    assert_eq!(expected, (0..examples.len()).collect::<Vec<_>>());
}

#[test]
fn the_daemon_understands_every_word_of_root() {
    for said in [
        FromRoot::Hello { schema: attend::SCHEMA },
        FromRoot::Presence(attend::Presence::PowerButton),
        FromRoot::Presence(attend::Presence::ResetFile { digest: hex(&DIGEST) }),
        FromRoot::OwnerKept { key: hex(&[4; 32]), nonce: Nonce::new([5; 32]) },
        FromRoot::OwnerRefused { reason: "it keeps another".to_owned() },
        FromRoot::ProofAsked {
            nonce: Nonce::new([5; 32]),
            owner: OwnerKey { salt: hex(&[1; 16]), key: hex(&[2; 32]) },
        },
        FromRoot::ProofTaken,
        FromRoot::ProofRefused { why: Refusal::NeedsPresence },
        FromRoot::Unknown,
    ] {
        let line = said.line();
        assert!(line.ends_with('\n') && line.len() <= MAX_LINE_BYTES, "{line}");
        let heard: Heard = serde_json::from_str(&line).unwrap();
        assert!(understood(&said, &heard), "{said:?}");
    }
}

/// What the daemon makes of each of root's answers to a question.
#[test]
fn the_daemon_takes_every_answer_for_what_root_means() {
    let answer = |said: &FromRoot| Answer::of(said.line().as_bytes());
    let owner = OwnerKey { salt: hex(&[1; 16]), key: hex(&[2; 32]) };
    let asked = FromRoot::ProofAsked { nonce: Nonce::new([5; 32]), owner };
    let want = Asked { salt: [1; 16], key: [2; 32], nonce: access::Nonce([5; 32]) };
    assert_eq!(answer(&asked), Some(Answer::Asked(want)));
    assert_eq!(answer(&FromRoot::ProofTaken), Some(Answer::Taken));
    for why in [
        Refusal::NoKey,
        Refusal::NotAsked,
        Refusal::OtherDeed,
        Refusal::Signature,
        Refusal::NeedsPresence,
        Refusal::NotKept,
        Refusal::Unknown,
    ] {
        let want = match why {
            Refusal::NoKey => RootError::NoKey,
            Refusal::NeedsPresence => RootError::Presence,
            Refusal::NotKept => RootError::NotKept,
            Refusal::NotAsked | Refusal::OtherDeed | Refusal::Signature | Refusal::Unknown => {
                RootError::Proof
            }
        };
        assert_eq!(answer(&FromRoot::ProofRefused { why }), Some(Answer::Refused(want)), "{why:?}");
    }
    for no_answer in [FromRoot::Unknown, FromRoot::Presence(attend::Presence::PowerButton)] {
        assert_eq!(answer(&no_answer), None);
    }
}

#[test]
fn the_longest_that_the_daemon_says_is_no_more_than_root_reads() {
    assert_eq!(MAX_LINE_BYTES, attend::MAX_LINE_BYTES);
    let longest = format!("https://{}", "a".repeat(MAX_ADDRESS_BYTES - 8));
    let names = vec![shown(&longest).unwrap(); MAX_ADDRESSES];
    let fingerprint = &hex(&[0xff; 32]);
    let claim = Said::Claim { code: "ABCD2345", token: TOKEN, names: &names, fingerprint };
    assert!(line(&claim).len() <= attend::MAX_LINE_BYTES);
    assert_eq!(FromDaemon::parse(&line(&claim)).unwrap(), meant(&claim));
    assert!(line(&Said::ReplaceOwner { links: chain() }).len() <= attend::MAX_LINE_BYTES);
}

proptest! {
    /// Root refuses the whole claim for one name that it does not like.
    #[test]
    fn root_shows_every_address_that_the_daemon_would_have_shown(
        at in "(https://)?[a-z0-9.:\\[\\]/@ %-]{0,130}/?",
    ) {
        let names: Vec<String> = shown(&at).into_iter().collect();
        let claim = Said::Claim { code: "ABCD2345", token: TOKEN, names: &names, fingerprint: "ab" };
        prop_assert!(FromDaemon::parse(&line(&claim)).is_ok(), "{}", at);
    }
}
