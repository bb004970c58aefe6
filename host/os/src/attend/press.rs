//! What presses of the power button mean: three short ones within five seconds say that somebody is there, a single one
//! that is followed by silence switches the machine off in good order.
//!
//! A pure machine over a clock of its caller's.
//!
//! Deliberately absent: long presses. The firmware cuts the power at four seconds, whatever anybody decides here.

use std::time::Duration;

/// As many presses are evidence.
const PRESSES: usize = 3;

/// They come within this time, from the first to the last.
const WITHIN: Duration = Duration::from_secs(5);

/// What lasts longer is no short press.
const SHORT: Duration = Duration::from_secs(1);

/// After one press, silence of this length switches off.
const SILENCE: Duration = Duration::from_secs(2);

/// What the button did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    /// It went down.
    Down,
    /// It came up.
    Up,
}

/// What it meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// Somebody is at the machine.
    Presence,
    /// The machine is to be switched off.
    PowerOff,
}

/// The presses so far.
#[derive(Debug, Clone, Default)]
pub struct Presses {
    down_at: Option<Duration>,
    /// When short presses ended, within [`WITHIN`] of the last.
    ended: Vec<Duration>,
}

impl Presses {
    /// The button moved at `now`, a time that never goes back.
    pub fn stroke(&mut self, now: Duration, stroke: Stroke) -> Option<Meaning> {
        // What silence has decided is no part of what begins now.
        let before = self.silence(now);
        match stroke {
            Stroke::Down => {
                self.down_at.get_or_insert(now);
                before
            }
            Stroke::Up => {
                let lasted = now.saturating_sub(self.down_at.take()?);
                if lasted >= SHORT {
                    self.ended.clear();
                    return None;
                }
                self.ended.retain(|ended| now.saturating_sub(*ended) <= WITHIN);
                self.ended.push(now);
                if self.ended.len() < PRESSES {
                    return before;
                }
                self.ended.clear();
                Some(Meaning::Presence)
            }
        }
    }

    /// Nothing moved until `now`.
    pub fn silence(&mut self, now: Duration) -> Option<Meaning> {
        let [last] = self.ended[..] else {
            self.ended.retain(|ended| now.saturating_sub(*ended) <= WITHIN);
            return None;
        };
        if self.down_at.is_some() || now.saturating_sub(last) < SILENCE {
            return None;
        }
        self.ended.clear();
        Some(Meaning::PowerOff)
    }

    /// When [`Self::silence`] is to be asked, if nothing moves until then.
    pub fn deadline(&self) -> Option<Duration> {
        match self.ended[..] {
            [last] if self.down_at.is_none() => Some(last + SILENCE),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Presses that begin at such milliseconds and last so long, and then silence.
    fn presses(all: &[(u64, u64)]) -> Vec<Meaning> {
        let mut presses = Presses::default();
        let mut meanings = Vec::new();
        for (at, lasts) in all {
            let at = Duration::from_millis(*at);
            meanings.extend(presses.stroke(at, Stroke::Down));
            meanings.extend(presses.stroke(at + Duration::from_millis(*lasts), Stroke::Up));
        }
        while let Some(deadline) = presses.deadline() {
            assert_eq!(presses.silence(deadline - Duration::from_millis(1)), None);
            meanings.extend(presses.silence(deadline));
        }
        meanings
    }

    #[test]
    fn three_short_ones_are_presence() {
        assert_eq!(presses(&[(0, 100), (700, 100), (1500, 100)]), [Meaning::Presence]);
        assert_eq!(presses(&[(0, 100), (1900, 100), (3800, 900)]), [Meaning::Presence]);
    }

    #[test]
    fn one_and_silence_switches_off() {
        assert_eq!(presses(&[(0, 100)]), [Meaning::PowerOff]);
        // Two are a slip, and a long one is the firmware's.
        assert_eq!(presses(&[(0, 100), (700, 100)]), []);
        assert_eq!(presses(&[(0, 1500)]), []);
        assert_eq!(presses(&[(0, 100), (500, 1500)]), []);
    }

    #[test]
    fn what_is_too_slow_is_not_presence() {
        assert_eq!(presses(&[(0, 100), (1500, 100), (6000, 100)]), []);
        assert_eq!(presses(&[(0, 100), (2500, 100)]), [Meaning::PowerOff, Meaning::PowerOff]);
    }

    #[test]
    fn a_held_button_switches_nothing_off() {
        let mut presses = Presses::default();
        let at = Duration::from_millis;
        presses.stroke(at(0), Stroke::Down);
        presses.stroke(at(100), Stroke::Up);
        presses.stroke(at(1000), Stroke::Down);
        assert_eq!((presses.deadline(), presses.silence(at(9000))), (None, None));
        // Coming up without having gone down says nothing.
        assert_eq!(Presses::default().stroke(at(5), Stroke::Up), None);
    }
}
