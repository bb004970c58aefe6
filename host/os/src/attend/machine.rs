//! What follows from what the daemon says and from what is seen at the machine. Pure: what is to be done comes out.
//!
//! That somebody was there is said until the daemon has taken it: it may not be connected, or end before it has acted.
//! Said twice it arms a claim twice, of which nobody has seen the first. The button's word is not kept for longer than a
//! person waits; a reset file's is, because the same file never shows anybody again.

use std::time::Duration;

use super::vouch::{Kept, Link, Nonce};
use super::{Claim, FromDaemon, FromRoot, OwnerKey, Presence, SCHEMA};
use crate::proof::{Deed, Moment, PRESENCE_HOLDS, Proof, Refusal, Verifier};

/// So long after the button was pressed the daemon is still told of it.
const BUTTON_HOLDS: Duration = PRESENCE_HOLDS;

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Say it to the daemon.
    Say(FromRoot),
    /// Show how the host is claimed.
    Show(Claim),
    /// Show it no more, and leave no trace of it.
    Erase,
    /// Keep the owner's key, and say [`Attendant::kept`] when it is kept.
    Keep(Kept),
    /// Do what the owner has proved to want, and say [`Attendant::carried`] when it is done.
    Carry(Deed),
    /// Show to whoever is at the machine that the owner waits for them, and for what.
    Await,
    /// Note that somebody was here.
    Note,
    /// Forget what was kept to be said of that.
    Taken,
}

/// What somebody who shows to be at the machine allows. One does not count for the other: who presses because a screen says
/// that a reset waits for it gives nobody a new key, and who has lost the password allows no reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Another owner's key.
    Key,
    /// The deed that was proved before.
    Deed,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Attendant {
    /// The key that is kept.
    owner: Option<Kept>,
    /// The key that was kept before the last one was to be.
    before: Option<Kept>,
    /// What is kept could not be read, so nobody knows whose word counts.
    unknown: bool,
    /// The host can be claimed, or was just now.
    armed: bool,
    /// When somebody was last at the machine, and for what, unless that has been used.
    seen: Option<(Moment, Purpose)>,
    /// When the owner's proof of a deed lacked nothing but somebody at the machine.
    awaited: Option<Moment>,
    /// What the owner is asked to prove.
    verifier: Verifier,
    /// The kernel's name for this start.
    boot_id: String,
    /// What the daemon has not taken yet, and when it was seen.
    untaken: Option<(Duration, Presence)>,
}

impl Attendant {
    /// Begins in this start of the machine with the key that is kept, if one is, and with the reset file of which the daemon
    /// has not taken the word.
    pub fn new(owner: Option<Kept>, untaken: Option<Presence>, boot_id: &str) -> Self {
        let untaken = untaken.map(|presence| (Duration::ZERO, presence));
        Self { owner, untaken, boot_id: boot_id.to_owned(), ..Self::default() }
    }

    /// The daemon has connected.
    pub fn connected(&self, now: Duration) -> Vec<Do> {
        let holds = |at: Duration, seen: &Presence| {
            *seen != Presence::PowerButton || now.saturating_sub(at) <= BUTTON_HOLDS
        };
        let untaken = self.untaken.iter().filter(|(at, seen)| holds(*at, seen));
        let untaken = untaken.map(|(_, seen)| FromRoot::Presence(seen.clone()));
        let hello = FromRoot::Hello { schema: SCHEMA };
        std::iter::once(hello).chain(untaken).map(Do::Say).collect()
    }

    /// The daemon said something. `fresh` is a nonce that nobody could know before.
    pub fn said(&mut self, now: Duration, fresh: Nonce, said: FromDaemon) -> Vec<Do> {
        match said {
            FromDaemon::Claim(claim) => {
                self.armed = true;
                vec![Do::Show(claim)]
            }
            FromDaemon::Claimed => vec![Do::Erase],
            FromDaemon::Owner(key) => self.owner(now, fresh, key),
            FromDaemon::ReplaceOwner { links } => self.replace(&links),
            FromDaemon::PresenceTaken => match self.untaken.take() {
                Some(_) => vec![Do::Taken],
                None => vec![],
            },
            FromDaemon::AskProof(deed) => self.ask(fresh, deed),
            FromDaemon::BringProof(shown) => self.prove(now, &shown),
        }
    }

    /// Asks the owner whose key is kept for a proof.
    fn ask(&mut self, nonce: Nonce, deed: Deed) -> Vec<Do> {
        let Some(kept) = self.owner.as_ref().filter(|_| !self.unknown) else {
            return vec![Do::Say(FromRoot::ProofRefused { why: Refusal::NoKey })];
        };
        self.verifier.ask(deed, nonce);
        vec![Do::Say(FromRoot::ProofAsked { nonce, owner: kept.owner.clone() })]
    }

    /// Does what the owner has proved to want. That somebody is there is used only when it is done.
    fn prove(&mut self, now: Duration, shown: &Proof) -> Vec<Do> {
        let key = self.owner.as_ref().filter(|_| !self.unknown).map(|kept| kept.owner.key.clone());
        let now = self.moment(now);
        // Without a key the nonce is used up all the same.
        let key = key.unwrap_or_default();
        let seen = self.seen.as_ref().filter(|(_, purpose)| *purpose == Purpose::Deed);
        match self.verifier.verify(&key, shown, seen.map(|(moment, _)| moment), &now) {
            Ok(deed) => vec![Do::Carry(deed)],
            Err(why @ Refusal::NeedsPresence) => {
                self.awaited = Some(now);
                vec![Do::Await, Do::Say(FromRoot::ProofRefused { why })]
            }
            Err(why) => vec![Do::Say(FromRoot::ProofRefused { why })],
        }
    }

    /// What the owner has proved to want is done, or noted for the next start.
    pub fn carried(&mut self, deed: &Deed) -> FromRoot {
        if deed.needs_presence() {
            (self.seen, self.awaited) = (None, None);
        }
        FromRoot::ProofTaken
    }

    fn moment(&self, at: Duration) -> Moment {
        Moment { boot_id: self.boot_id.clone(), at }
    }

    /// The first key is believed when a claim was armed; another one only because somebody was at the machine, since a
    /// daemon in the wrong hands could arm a claim for itself.
    fn owner(&mut self, now: Duration, fresh: Nonce, owner: OwnerKey) -> Vec<Do> {
        if self.unknown {
            return refused(UNREADABLE);
        }
        if self.owner.as_ref().is_some_and(|kept| kept.owner == owner) {
            return match self.kept() {
                Some(said) => vec![Do::Say(said)],
                // An older program kept it, and no proof by it could be asked for.
                None => self.keep(Kept { owner, nonce: Some(fresh) }),
            };
        }
        if self.owner.is_none() && !self.armed {
            return refused("no claim has been shown");
        }
        if self.owner.is_some() && !self.was_seen_for_a_key(now) {
            return refused("another key is kept, and nobody has been at the machine for this");
        }
        self.armed = false;
        self.keep(Kept { owner, nonce: Some(fresh) })
    }

    /// Whether somebody was at the machine lately, and not because a deed waited for it. That counts once.
    fn was_seen_for_a_key(&mut self, now: Duration) -> bool {
        let now = self.moment(now);
        let seen = self.seen.take_if(|(_, purpose)| *purpose == Purpose::Key);
        seen.is_some_and(|(seen, _)| seen.holds(&now))
    }

    /// Another key is believed when the kept one vouches for it, and nothing else counts then.
    fn replace(&mut self, links: &[Link]) -> Vec<Do> {
        let Some(kept) = &self.owner else { return refused("no key is kept") };
        if self.unknown {
            return refused(UNREADABLE);
        }
        match (kept.follow(links), self.kept()) {
            (Err(error), _) => refused(&error.to_string()),
            (Ok(last), Some(said)) if last == *kept => vec![Do::Say(said)],
            (Ok(last), _) => self.keep(last),
        }
    }

    fn keep(&mut self, kept: Kept) -> Vec<Do> {
        self.before = self.owner.replace(kept.clone());
        vec![Do::Keep(kept)]
    }

    /// Keeping a key failed: what lies on the disk is what holds. If that cannot be read, the key from before stays and
    /// no other is believed until it can be: an unreadable key is not none.
    pub fn not_kept(&mut self, on_the_disk: Option<Option<Kept>>) {
        self.unknown = on_the_disk.is_none();
        let before = self.before.take();
        self.owner = on_the_disk.unwrap_or(before);
    }

    /// What is said of the key that is kept; nothing when there is none, or no proof by it has been asked for.
    pub fn kept(&self) -> Option<FromRoot> {
        let kept = self.owner.as_ref()?;
        Some(FromRoot::OwnerKept { key: kept.owner.key.clone(), nonce: kept.nonce? })
    }

    /// Somebody has shown to be at the machine. It is for what was awaited then.
    pub fn present(&mut self, now: Duration, presence: Presence) -> Vec<Do> {
        let moment = self.moment(now);
        let is_awaited = self.awaited.as_ref().is_some_and(|awaited| awaited.holds(&moment));
        self.seen = Some((moment, if is_awaited { Purpose::Deed } else { Purpose::Key }));
        self.untaken = Some((now, presence.clone()));
        vec![Do::Note, Do::Say(FromRoot::Presence(presence))]
    }
}

fn refused(reason: &str) -> Vec<Do> {
    vec![Do::Say(FromRoot::OwnerRefused { reason: reason.to_owned() })]
}

const UNREADABLE: &str = "the key that is kept cannot be read";

#[cfg(test)]
mod tests {
    use super::super::tests::CLAIM;
    use super::super::vouch::tests::{NONCE, Owner, chain};
    use super::*;

    const BOOT: &str = "this";

    fn key(digit: &str) -> OwnerKey {
        OwnerKey { salt: digit.repeat(32), key: digit.repeat(64) }
    }

    fn kept(digit: &str) -> Kept {
        Kept { owner: key(digit), nonce: Some(NONCE) }
    }

    fn said(kept: &Kept) -> [Do; 1] {
        let (key, nonce) = (kept.owner.key.clone(), kept.nonce.unwrap());
        [Do::Say(FromRoot::OwnerKept { key, nonce })]
    }

    fn say(attendant: &mut Attendant, seconds: u64, said: FromDaemon) -> Vec<Do> {
        attendant.said(at(seconds), NONCE, said)
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn hello() -> [Do; 1] {
        [Do::Say(FromRoot::Hello { schema: SCHEMA })]
    }

    fn is_refused(done: &[Do]) -> bool {
        matches!(done, [Do::Say(FromRoot::OwnerRefused { .. })])
    }

    #[test]
    fn a_claim_is_shown_and_erased() {
        let mut attendant = Attendant::default();
        let claim = FromDaemon::parse(CLAIM.as_bytes()).unwrap();
        assert!(matches!(say(&mut attendant, 0, claim)[..], [Do::Show(_)]));
        assert_eq!(say(&mut attendant, 1, FromDaemon::Claimed), [Do::Erase]);
        assert_eq!(attendant.connected(at(2)), hello());
    }

    #[test]
    fn that_somebody_was_there_is_said_until_the_daemon_has_taken_it() {
        let file = Presence::ResetFile { digest: "ab".repeat(32) };
        let mut attendant = Attendant::default();
        for (seen, later) in [(file.clone(), 1_000_000), (Presence::PowerButton, 600)] {
            let says = Do::Say(FromRoot::Presence(seen.clone()));
            assert_eq!(attendant.present(at(0), seen), [Do::Note, says.clone()]);
            // It was not connected, or it ended before it had acted.
            for _ in 0..2 {
                assert_eq!(attendant.connected(at(later)).last(), Some(&says));
            }
            assert_eq!(say(&mut attendant, later, FromDaemon::PresenceTaken), [Do::Taken]);
            assert_eq!(attendant.connected(at(later)), hello());
            assert_eq!(say(&mut attendant, later, FromDaemon::PresenceTaken), []);
        }
        // Nobody waits for so long after a press.
        attendant.present(at(0), Presence::PowerButton);
        assert_eq!(attendant.connected(at(601)), hello());
        // Root's program was started anew meanwhile.
        let attendant = Attendant::new(None, Some(file.clone()), BOOT);
        assert_eq!(attendant.connected(at(0))[1..], [Do::Say(FromRoot::Presence(file))]);
    }

    #[test]
    fn the_first_key_needs_a_claim() {
        let mut attendant = Attendant::default();
        assert!(is_refused(&say(&mut attendant, 0, FromDaemon::Owner(key("a")))));
        say(&mut attendant, 1, FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        say(&mut attendant, 2, FromDaemon::Claimed);
        assert_eq!(say(&mut attendant, 3, FromDaemon::Owner(key("a"))), [Do::Keep(kept("a"))]);
        // The same again is no other.
        let again = say(&mut attendant, 4, FromDaemon::Owner(key("a")));
        assert_eq!(again, said(&kept("a")));
    }

    #[test]
    fn another_key_needs_somebody_at_the_machine() {
        let mut attendant = Attendant::new(Some(kept("a")), None, BOOT);
        say(&mut attendant, 0, FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        assert!(is_refused(&say(&mut attendant, 1, FromDaemon::Owner(key("b")))));
        let seen = attendant.present(at(10), Presence::PowerButton);
        assert_eq!(seen[0], Do::Note);
        // Not for ever, and not twice.
        assert!(is_refused(&say(&mut attendant, 611, FromDaemon::Owner(key("b")))));
        attendant.present(at(700), Presence::PowerButton);
        let taken = say(&mut attendant, 900, FromDaemon::Owner(key("b")));
        assert_eq!(taken, [Do::Keep(kept("b"))]);
        assert!(is_refused(&say(&mut attendant, 901, FromDaemon::Owner(key("c")))));
    }

    #[test]
    fn what_could_not_be_kept_is_not_believed() {
        let mut attendant = Attendant::new(Some(kept("a")), None, BOOT);
        attendant.present(at(0), Presence::PowerButton);
        say(&mut attendant, 1, FromDaemon::Owner(key("b")));
        attendant.not_kept(Some(Some(kept("a"))));
        assert_eq!(attendant.owner, Some(kept("a")));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_none() {
        let mut attendant = Attendant::new(Some(kept("a")), None, BOOT);
        attendant.present(at(0), Presence::PowerButton);
        say(&mut attendant, 1, FromDaemon::Owner(key("b")));
        attendant.not_kept(None);
        assert_eq!(attendant.owner, Some(kept("a")));
        say(&mut attendant, 2, FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        attendant.present(at(3), Presence::PowerButton);
        assert!(is_refused(&say(&mut attendant, 4, FromDaemon::Owner(key("b")))));
    }

    #[test]
    fn a_key_is_replaced_by_what_it_vouches_for_and_needs_nobody_there() {
        let mut attendant = Attendant::new(Some(Owner::new(1).kept(NONCE)), None, BOOT);
        let replace = |seeds: &[u8]| FromDaemon::ReplaceOwner { links: chain(seeds) };
        let done = say(&mut attendant, 0, replace(&[1, 2]));
        let Do::Keep(second) = &done[0] else { panic!("{done:?}") };
        assert_eq!(second.owner, Owner::new(2).key());
        // The answer was lost, and meanwhile there is another.
        assert_eq!(say(&mut attendant, 1, replace(&[1, 2])), said(second));
        let done = say(&mut attendant, 2, replace(&[1, 2, 3]));
        assert!(matches!(&done[..], [Do::Keep(kept)] if kept.owner == Owner::new(3).key()));
        // The same again leads nowhere.
        assert!(is_refused(&say(&mut attendant, 3, replace(&[1, 2]))));
        assert!(is_refused(&say(&mut attendant, 3, FromDaemon::Owner(Owner::new(1).key()))));
        assert_eq!(attendant.owner.unwrap().owner, Owner::new(3).key());
    }

    #[test]
    fn a_proof_that_is_none_does_not_use_up_that_somebody_is_there() {
        let mut attendant = Attendant::new(Some(Owner::new(1).kept(NONCE)), None, BOOT);
        attendant.present(at(0), Presence::PowerButton);
        let thief = FromDaemon::ReplaceOwner { links: chain(&[7, 8]) };
        assert!(is_refused(&say(&mut attendant, 1, thief.clone())));
        let taken = say(&mut attendant, 2, FromDaemon::Owner(key("b")));
        assert_eq!(taken, [Do::Keep(kept("b"))]);
        // Without a key nobody can vouch for one.
        let mut attendant = Attendant::default();
        say(&mut attendant, 0, FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        assert!(is_refused(&say(&mut attendant, 1, thief.clone())));
        attendant.not_kept(None);
        assert!(is_refused(&say(&mut attendant, 2, thief)));
    }

    fn prove(owner: &Owner, deed: &Deed, nonce: Nonce) -> FromDaemon {
        FromDaemon::BringProof(owner.prove(deed, nonce))
    }

    fn refuses(why: Refusal) -> [Do; 1] {
        [Do::Say(FromRoot::ProofRefused { why })]
    }

    #[test]
    fn a_reset_is_proved_by_the_owner_and_by_whoever_is_at_the_machine() {
        let (owner, reset) = (Owner::new(1), Deed::FactoryReset);
        let mut attendant = Attendant::new(Some(owner.kept(NONCE)), None, BOOT);
        let fresh = Nonce::new([3; 32]);
        let ask = |attendant: &mut Attendant| {
            let asked = attendant.said(at(0), fresh, FromDaemon::AskProof(reset.clone()));
            assert_eq!(asked, [Do::Say(FromRoot::ProofAsked { nonce: fresh, owner: owner.key() })]);
        };
        // The nonce that stands for another key is none for this.
        ask(&mut attendant);
        let early = say(&mut attendant, 1, prove(&owner, &reset, NONCE));
        assert_eq!(early, refuses(Refusal::NotAsked));
        ask(&mut attendant);
        let waits = say(&mut attendant, 1, prove(&owner, &reset, fresh));
        assert_eq!(waits[0], Do::Await, "whoever is there sees what is wanted of them");
        assert_eq!(waits[1..], refuses(Refusal::NeedsPresence));
        attendant.present(at(10), Presence::PowerButton);
        // A proof that is none uses nothing of that up.
        ask(&mut attendant);
        let thief = say(&mut attendant, 11, prove(&Owner::new(7), &reset, fresh));
        assert_eq!(thief, refuses(Refusal::Signature));
        ask(&mut attendant);
        let good = say(&mut attendant, 610, prove(&owner, &reset, fresh));
        assert_eq!(good, [Do::Carry(reset.clone())]);
        // The disk did not take it; somebody is still there.
        ask(&mut attendant);
        let again = say(&mut attendant, 610, prove(&owner, &reset, fresh));
        assert_eq!(again, [Do::Carry(reset.clone())]);
        assert_eq!(attendant.carried(&reset), FromRoot::ProofTaken);
        ask(&mut attendant);
        let once = say(&mut attendant, 610, prove(&owner, &reset, fresh));
        assert_eq!(once[1..], refuses(Refusal::NeedsPresence));
    }

    #[test]
    fn who_is_there_for_one_thing_allows_no_other() {
        let (owner, reset) = (Owner::new(1), Deed::FactoryReset);
        let fresh = Nonce::new([3; 32]);
        let proof = |attendant: &mut Attendant, seconds: u64| {
            attendant.said(at(seconds), fresh, FromDaemon::AskProof(reset.clone()));
            say(attendant, seconds, prove(&owner, &reset, fresh))
        };
        // Who lost the password pressed before anybody asked for a reset.
        let mut attendant = Attendant::new(Some(owner.kept(NONCE)), None, BOOT);
        attendant.present(at(0), Presence::PowerButton);
        assert_eq!(proof(&mut attendant, 1)[1..], refuses(Refusal::NeedsPresence));
        let key_for = |attendant: &mut Attendant, seconds: u64| {
            is_refused(&say(attendant, seconds, FromDaemon::Owner(key("b"))))
        };
        // The press is still one for a key, and no second one.
        assert!(!key_for(&mut attendant.clone(), 2));
        // Who presses because a reset waits gives nobody a key, however often.
        attendant.present(at(3), Presence::PowerButton);
        attendant.present(at(4), Presence::PowerButton);
        attendant.connected(at(5));
        assert!(key_for(&mut attendant, 5));
        assert_eq!(proof(&mut attendant, 6), [Do::Carry(reset.clone())]);
        // A reset that nobody allowed for ten minutes waits no more.
        attendant.carried(&reset);
        assert_eq!(proof(&mut attendant, 10)[1..], refuses(Refusal::NeedsPresence));
        attendant.present(at(611), Presence::PowerButton);
        assert!(!key_for(&mut attendant, 612));
    }

    #[test]
    fn going_back_below_the_floor_needs_nobody_there_and_no_key_proves_nothing() {
        let (owner, fresh) = (Owner::new(1), Nonce::new([3; 32]));
        let back = Deed::RollbackBelowFloor { commit: "c".repeat(64) };
        let mut attendant = Attendant::new(Some(owner.kept(NONCE)), None, BOOT);
        attendant.present(at(0), Presence::PowerButton);
        attendant.said(at(0), fresh, FromDaemon::AskProof(back.clone()));
        let good = say(&mut attendant, 1, prove(&owner, &back, fresh));
        assert_eq!(good, [Do::Carry(back.clone())]);
        attendant.carried(&back);
        assert!(attendant.seen.is_some(), "that nobody needed is not used");
        let old = say(&mut attendant, 1, prove(&owner, &back, fresh));
        assert_eq!(old, refuses(Refusal::NotAsked));
        // What is kept cannot be read any more.
        attendant.said(at(2), fresh, FromDaemon::AskProof(back.clone()));
        attendant.not_kept(None);
        let lost = say(&mut attendant, 3, prove(&owner, &back, fresh));
        assert_eq!(lost, refuses(Refusal::NoKey));
        for mut attendant in [attendant, Attendant::new(None, None, BOOT)] {
            let none = say(&mut attendant, 4, FromDaemon::AskProof(back.clone()));
            assert_eq!(none, refuses(Refusal::NoKey));
        }
    }

    #[test]
    fn a_key_of_an_older_program_gets_its_nonce_when_it_is_next_told() {
        let old = Kept { owner: Owner::new(1).key(), nonce: None };
        let mut attendant = Attendant::new(Some(old), None, BOOT);
        let links = chain(&[1, 2]);
        let early = FromDaemon::ReplaceOwner { links: links.clone() };
        assert!(is_refused(&say(&mut attendant, 0, early)));
        let told = say(&mut attendant, 1, FromDaemon::Owner(Owner::new(1).key()));
        assert_eq!(told, [Do::Keep(Owner::new(1).kept(NONCE))]);
        let late = say(&mut attendant, 2, FromDaemon::ReplaceOwner { links });
        assert!(matches!(late[..], [Do::Keep(_)]));
    }

    #[test]
    fn a_replacement_that_could_not_be_kept_is_made_later() {
        let mut attendant = Attendant::new(Some(Owner::new(1).kept(NONCE)), None, BOOT);
        let replace = || FromDaemon::ReplaceOwner { links: chain(&[1, 2]) };
        say(&mut attendant, 0, replace());
        attendant.not_kept(Some(Some(Owner::new(1).kept(NONCE))));
        assert!(matches!(say(&mut attendant, 1, replace())[..], [Do::Keep(_)]));
        // Nobody knows which of the two lies there.
        attendant.not_kept(None);
        assert!(is_refused(&say(&mut attendant, 2, replace())));
    }
}
