//! Root's program and this host, and all that can come between them when the password is changed.

use super::*;
use crate::store::StoredVouch;

const PASSWORDS: [&str; 4] = [PASSWORD, "the second one", "the third one!", "the fourth one"];

/// Root's program, as far as it matters here: a key, and the nonce for the next.
#[derive(Clone)]
struct Root {
    key: [u8; 32],
    nonce: Nonce,
}

impl Root {
    /// Takes the owner's first key.
    fn begin(access: &Access) -> Self {
        let key = access.proof_verifier().unwrap().key();
        let root = Self { key, nonce: Nonce([6; 32]) };
        assert!(access.owner_kept(root.key, root.nonce.0).unwrap());
        root
    }

    /// Follows what the host says from where it stands; whether all of it is vouched for.
    fn follow(&mut self, access: &Access) -> bool {
        let (links, last) = said(access);
        let ahead = links.iter().rposition(|link| link.key == self.key).map_or(0, |at| at + 1);
        for link in &links[ahead..] {
            let digest = secret::sha256(&[&link.salt[..], &link.key].concat());
            let mut verifier = ProofVerifier::new([0; 16], self.key);
            let nonce = verifier.challenge(Verb::ReplaceKey, digest, self.nonce.0);
            let (verb, signature) = (Verb::ReplaceKey, link.proof);
            let proof = OwnerProof { verb, digest, nonce, signature };
            if verifier.verify(&proof, Verb::ReplaceKey, digest, None).is_err() {
                return false;
            }
            (self.key, self.nonce) = (link.key, self.nonce.after(digest));
        }
        self.key == last
    }

    fn tell(&self, access: &Access) -> bool {
        access.owner_kept(self.key, self.nonce.0).unwrap()
    }
}

fn said(access: &Access) -> (Vec<StoredLink>, [u8; 32]) {
    match access.ownership() {
        Ownership::Owned { key, links, .. } => (links, key),
        Ownership::Claimable { .. } => panic!("it has no owner"),
    }
}

fn change_to(access: &Access, number: usize) {
    let (old, new) = (PASSWORDS[number - 1], PASSWORDS[number]);
    let change = ChangePassword { old, new, own: None, remote: None, keep_tokens: false };
    access.change_password(&change).unwrap();
}

#[test]
fn the_proof_is_there_after_a_restart_and_until_root_keeps_the_key() {
    let (house, access, _) = claimed();
    let mut root = Root::begin(&access);
    let before = root.clone();
    change_to(&access, 1);
    drop(access);
    let access = house.open();
    assert_eq!(said(&access).0.len(), 1);
    assert!(root.follow(&access));
    // Root's answer is lost, and it is said again.
    drop(access);
    let access = house.open();
    assert!(root.follow(&access) && root.tell(&access));
    assert_eq!(said(&access).0, []);
    drop(access);
    let access = house.open();
    assert_eq!(said(&access), (vec![], root.key));
    // What was used fits nowhere again.
    change_to(&access, 2);
    assert!(!before.clone().follow(&access));
    assert!(root.follow(&access) && root.tell(&access));
}

#[test]
fn changes_without_root_make_a_chain_that_root_follows_from_wherever_it_stands() {
    let (house, access, _) = claimed();
    let mut root = Root::begin(&access);
    change_to(&access, 1);
    let mut quick = root.clone();
    assert!(quick.follow(&access), "root followed, and its answer was lost");
    change_to(&access, 2);
    // An answer to what was said before comes late.
    assert!(!quick.tell(&access));
    assert_eq!(said(&access).0.len(), 1);
    change_to(&access, 3);
    drop(access);
    let access = house.open();
    assert!(quick.follow(&access) && quick.tell(&access));
    // Root fell back to what it kept before, as a disk may: nothing leads on from there.
    assert!(!root.follow(&access) && !root.tell(&access));
    assert_eq!(said(&access), (vec![], quick.key));
}

#[test]
fn a_chain_that_is_too_long_is_given_up() {
    let (_house, access, _) = claimed();
    Root::begin(&access);
    let password = |number: usize| format!("password number {number}");
    for number in 0..=super::super::vouch::MAX_LINKS {
        assert_eq!(said(&access).0.len(), number);
        let old = if number == 0 { PASSWORD.to_owned() } else { password(number) };
        let new = password(number + 1);
        let (old, new) = (old.as_str(), new.as_str());
        let change = ChangePassword { old, new, own: None, remote: None, keep_tokens: false };
        access.change_password(&change).unwrap();
    }
    assert_eq!(said(&access).0, [], "root is told the key, and refuses it");
}

#[test]
fn nothing_vouches_where_root_has_said_nothing_or_of_another_key() {
    let (house, access, _) = claimed();
    change_to(&access, 1);
    assert_eq!(said(&access).0, []);
    assert!(!access.owner_kept([7; 32], [6; 32]).unwrap());
    change_to(&access, 2);
    assert_eq!(said(&access).0, []);
    // An older daemon changes the password and leaves the row as it is.
    let mut root = Root::begin(&access);
    access
        .inner
        .store
        .connection_for_test(|c| c.execute("UPDATE owner SET proof_key = zeroblob(32)", []))
        .unwrap();
    drop(access);
    let access = house.open();
    assert_eq!(access.inner.store.owner().unwrap().unwrap().vouch, None);
    assert!(!root.follow(&access));
}

#[test]
fn who_is_at_the_machine_begins_anew() {
    let (house, access, _) = claimed();
    Root::begin(&access);
    change_to(&access, 1);
    assert!(access.rearm(&Presence::PowerButton).unwrap());
    assert!(!access.owner_kept([7; 32], [6; 32]).unwrap());
    let (token, _) = house.shown().unwrap();
    access.claim(&attempt(&token, Some(HERE))).unwrap();
    assert_eq!(said(&access).0, []);
    let mut root = Root::begin(&access);
    change_to(&access, 1);
    assert!(root.follow(&access) && root.tell(&access));
}

#[test]
fn what_the_disk_does_not_take_is_told_again() {
    let (house, access, _) = claimed();
    let root = Root::begin(&access);
    change_to(&access, 1);
    let new = Root { key: said(&access).1, ..root };
    access.inner.store.refuse_writes_for_test(true);
    access.owner_kept(new.key, [1; 32]).unwrap_err();
    assert_eq!(said(&access).0.len(), 1);
    access.inner.store.refuse_writes_for_test(false);
    drop(access);
    let access = house.open();
    assert_eq!(said(&access).0.len(), 1);
    assert!(access.owner_kept(new.key, [1; 32]).unwrap());
    let stored = access.inner.store.owner().unwrap().unwrap().vouch;
    assert_eq!(stored, Some(StoredVouch { nonce: [1; 32], links: vec![] }));
}
