//! Evidence that somebody is at the machine, and what three presses of its button are.
//!
//! Whoever lost the password gets in by being there: three short presses of the power button within five seconds, or a
//! reset file on a stick. Each can do one thing, arm the claim again; none can read, change or run anything. A reset
//! file counts once: it is known by the digest of its bytes, so that a stick left in the machine does not take the next
//! owner's place. Such a file is made anew for each use, with random bytes in it.
//!
//! Deliberately absent: the watching. Buttons and sticks are root's program's to watch on a box; it mounts FAT and nothing
//! else, read-only, without setuid bits and device files, reads one file of a known name, bounded, and says its digest.
//! It says it until the daemon has answered; said twice, a file counts once all the same, which
//! [`Access::rearm`](super::Access::rearm) keeps.

use std::time::Duration;

use punktfunk_core::time::Timestamp;

/// As many presses count.
const PRESSES: usize = 3;
/// They come within this time.
const WITHIN: Duration = Duration::from_secs(5);
/// A longer press is another wish: to switch the machine off.
const SHORT: Duration = Duration::from_secs(1);

/// Somebody is at the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// Three short presses of the power button.
    PowerButton,
    /// A reset file, by the SHA-256 of its bytes.
    ResetFile {
        /// The digest.
        digest: [u8; 32],
    },
    /// A test says so.
    DangerousTest,
}

impl Presence {
    /// As it is written.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::PowerButton => "power-button",
            Self::ResetFile { .. } => "reset-file",
            Self::DangerousTest => "test",
        }
    }

    /// What counts once.
    pub(super) const fn digest(&self) -> Option<[u8; 32]> {
        match self {
            Self::ResetFile { digest } => Some(*digest),
            Self::PowerButton | Self::DangerousTest => None,
        }
    }
}

/// Presses of a button, as a pure machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Presses {
    /// When the last short presses began, oldest first; fewer than count.
    began: Vec<Timestamp>,
}

impl Presses {
    /// A press is over. Gives the evidence when it was the third.
    #[must_use]
    pub fn step(mut self, began_at: Timestamp, ended_at: Timestamp) -> (Self, Option<Presence>) {
        if ended_at.since(began_at) > SHORT {
            return (Self::default(), None);
        }
        self.began.retain(|earlier| began_at.since(*earlier) <= WITHIN);
        self.began.push(began_at);
        if self.began.len() < PRESSES || ended_at.since(self.began[0]) > WITHIN {
            self.began.drain(..self.began.len().saturating_sub(PRESSES - 1));
            return (self, None);
        }
        (Self::default(), Some(Presence::PowerButton))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presses, each as (begin, end) in milliseconds: at which of them the evidence is there.
    fn check(presses: &[(u64, u64)], at: &[usize]) {
        let ms = |ms: u64| Timestamp::from_micros(ms * 1000);
        let mut machine = Presses::default();
        let mut found = vec![];
        for (index, (began, ended)) in presses.iter().enumerate() {
            let (next, evidence) = machine.step(ms(*began), ms(*ended));
            machine = next;
            found.extend(evidence.map(|_| index));
        }
        assert_eq!(found, at, "{presses:?}");
    }

    #[test]
    fn three_short_presses_within_five_seconds_count() {
        check(&[(0, 200), (1000, 1200), (2000, 2200)], &[2]);
        check(&[(0, 200), (2000, 2200), (4700, 5000)], &[2]);
        check(&[(0, 200), (2000, 2200), (4900, 5100)], &[]);
        check(&[(0, 200), (2000, 2200), (6000, 6100), (6500, 6600)], &[3]);
        check(&[(0, 200), (1000, 1200), (2000, 4000), (4100, 4200)], &[]);
        check(&[(0, 100), (200, 300), (400, 500), (600, 700), (800, 900)], &[2]);
        check(&[(0, 100), (200, 300), (400, 500), (600, 700), (800, 900), (1000, 1100)], &[2, 5]);
    }
}
