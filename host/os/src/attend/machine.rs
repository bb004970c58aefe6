//! What follows from what the daemon says and from what is seen at the machine. Pure: what is to be done comes out.

use std::time::Duration;

use super::{Claim, FromDaemon, FromRoot, OwnerKey, Presence, SCHEMA};

/// So long after somebody was at the machine another owner's key is believed, once.
const PRESENCE_HOLDS: Duration = Duration::from_secs(600);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Do {
    /// Say it to the daemon.
    Say(FromRoot),
    /// Show how the host is claimed.
    Show(Claim),
    /// Show it no more, and leave no trace of it.
    Erase,
    /// Keep the owner's key, and say so when it is kept.
    Keep(OwnerKey),
    /// Note that somebody was here.
    Note,
}

/// What is known.
#[derive(Debug, Clone, Default)]
pub struct Attendant {
    /// The key that is kept.
    owner: Option<OwnerKey>,
    /// The key that was kept before the last one was to be.
    before: Option<OwnerKey>,
    /// What is kept could not be read, so nobody knows whose word counts.
    unknown: bool,
    /// The host can be claimed, or was just now.
    armed: bool,
    /// When somebody was last at the machine, unless that has been used.
    present_at: Option<Duration>,
}

impl Attendant {
    /// Begins with the key that is kept, if one is.
    pub fn new(owner: Option<OwnerKey>) -> Self {
        Self { owner, ..Self::default() }
    }

    /// The daemon has connected.
    pub fn connected(&self) -> Vec<Do> {
        vec![Do::Say(FromRoot::Hello { schema: SCHEMA })]
    }

    /// The daemon said something.
    pub fn said(&mut self, now: Duration, said: FromDaemon) -> Vec<Do> {
        match said {
            FromDaemon::Claim(claim) => {
                self.armed = true;
                vec![Do::Show(claim)]
            }
            FromDaemon::Claimed => vec![Do::Erase],
            FromDaemon::Owner(key) => self.owner(now, key),
        }
    }

    /// The first key is believed when a claim was armed; another one only because somebody was at the machine, since a
    /// daemon in the wrong hands could arm a claim for itself.
    fn owner(&mut self, now: Duration, key: OwnerKey) -> Vec<Do> {
        let refused =
            |reason: &str| vec![Do::Say(FromRoot::OwnerRefused { reason: reason.to_owned() })];
        match &self.owner {
            _ if self.unknown => return refused("the key that is kept cannot be read"),
            Some(kept) if *kept == key => return vec![Do::Say(FromRoot::OwnerKept)],
            Some(_) => {
                let held = self.present_at.take();
                if held.is_none_or(|at| now.saturating_sub(at) > PRESENCE_HOLDS) {
                    return refused("another key is kept, and nobody has been at the machine");
                }
            }
            None if !self.armed => return refused("no claim has been shown"),
            None => {}
        }
        self.armed = false;
        self.before = self.owner.replace(key.clone());
        vec![Do::Keep(key)]
    }

    /// Keeping a key failed: what lies on the disk is what holds. If that cannot be read, the key from before stays and
    /// no other is believed until it can be: an unreadable key is not none.
    pub fn not_kept(&mut self, on_the_disk: Option<Option<OwnerKey>>) {
        self.unknown = on_the_disk.is_none();
        let before = self.before.take();
        self.owner = on_the_disk.unwrap_or(before);
    }

    /// The key that is kept.
    pub const fn kept(&self) -> Option<&OwnerKey> {
        self.owner.as_ref()
    }

    /// Somebody has shown to be at the machine.
    pub fn present(&mut self, now: Duration, presence: Presence) -> Vec<Do> {
        self.present_at = Some(now);
        vec![Do::Note, Do::Say(FromRoot::Presence(presence))]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::CLAIM;
    use super::*;

    fn key(digit: &str) -> OwnerKey {
        OwnerKey { salt: digit.repeat(32), key: digit.repeat(64) }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn is_refused(done: &[Do]) -> bool {
        matches!(done, [Do::Say(FromRoot::OwnerRefused { .. })])
    }

    #[test]
    fn a_claim_is_shown_and_erased() {
        let mut attendant = Attendant::default();
        let claim = FromDaemon::parse(CLAIM.as_bytes()).unwrap();
        assert!(matches!(attendant.said(at(0), claim)[..], [Do::Show(_)]));
        assert_eq!(attendant.said(at(1), FromDaemon::Claimed), [Do::Erase]);
        assert_eq!(attendant.connected(), [Do::Say(FromRoot::Hello { schema: 1 })]);
    }

    #[test]
    fn the_first_key_needs_a_claim() {
        let mut attendant = Attendant::default();
        assert!(is_refused(&attendant.said(at(0), FromDaemon::Owner(key("a")))));
        attendant.said(at(1), FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        attendant.said(at(2), FromDaemon::Claimed);
        assert_eq!(attendant.said(at(3), FromDaemon::Owner(key("a"))), [Do::Keep(key("a"))]);
        // The same again is no other.
        let again = attendant.said(at(4), FromDaemon::Owner(key("a")));
        assert_eq!(again, [Do::Say(FromRoot::OwnerKept)]);
    }

    #[test]
    fn another_key_needs_somebody_at_the_machine() {
        let mut attendant = Attendant::new(Some(key("a")));
        attendant.said(at(0), FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        assert!(is_refused(&attendant.said(at(1), FromDaemon::Owner(key("b")))));
        let seen = attendant.present(at(10), Presence::PowerButton);
        assert_eq!(seen[0], Do::Note);
        // Not for ever, and not twice.
        assert!(is_refused(&attendant.said(at(611), FromDaemon::Owner(key("b")))));
        attendant.present(at(700), Presence::PowerButton);
        let kept = attendant.said(at(900), FromDaemon::Owner(key("b")));
        assert_eq!(kept, [Do::Keep(key("b"))]);
        assert!(is_refused(&attendant.said(at(901), FromDaemon::Owner(key("c")))));
    }

    #[test]
    fn what_could_not_be_kept_is_not_believed() {
        let mut attendant = Attendant::new(Some(key("a")));
        attendant.present(at(0), Presence::PowerButton);
        attendant.said(at(1), FromDaemon::Owner(key("b")));
        attendant.not_kept(Some(Some(key("a"))));
        assert_eq!(attendant.kept(), Some(&key("a")));
    }

    #[test]
    fn a_key_that_cannot_be_read_is_not_none() {
        let mut attendant = Attendant::new(Some(key("a")));
        attendant.present(at(0), Presence::PowerButton);
        attendant.said(at(1), FromDaemon::Owner(key("b")));
        attendant.not_kept(None);
        assert_eq!(attendant.kept(), Some(&key("a")));
        attendant.said(at(2), FromDaemon::parse(CLAIM.as_bytes()).unwrap());
        attendant.present(at(3), Presence::PowerButton);
        assert!(is_refused(&attendant.said(at(4), FromDaemon::Owner(key("b")))));
    }
}
