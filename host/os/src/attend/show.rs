//! When a claim is shown: not again while it is the same, and not more often than a disk bears, whatever the daemon
//! says how often. A claim that came too early is shown when its time has come, unless a later one takes its place.
//!
//! Deliberately absent: where it is shown.

use std::time::Duration;

use super::Claim;

/// From one claim that is shown to the next.
const PAUSE: Duration = Duration::from_secs(5);

/// What is shown and what waits.
#[derive(Debug, Default)]
pub struct Showing {
    shown: Option<Claim>,
    shown_at: Option<Duration>,
    waiting: Option<Claim>,
}

impl Showing {
    /// The daemon has a claim; [`Showing::due`] says when it is shown.
    pub fn offer(&mut self, claim: Claim) {
        self.waiting = Some(claim).filter(|claim| self.shown.as_ref() != Some(claim));
    }

    /// The claim that is to be shown now.
    pub fn due(&mut self, now: Duration) -> Option<Claim> {
        if self.deadline()? > now {
            return None;
        }
        self.shown = self.waiting.take();
        self.shown_at = Some(now);
        self.shown.clone()
    }

    /// When there will be something to show.
    pub fn deadline(&self) -> Option<Duration> {
        self.waiting.as_ref()?;
        Some(self.shown_at.map_or(Duration::ZERO, |at| at.saturating_add(PAUSE)))
    }

    /// What was shown is not there, so the same may be shown again.
    pub fn not_shown(&mut self) {
        self.shown = None;
    }

    /// Nothing is shown any more, and nothing waits.
    pub fn erased(&mut self) {
        (self.shown, self.waiting) = (None, None);
    }
}

#[cfg(test)]
mod tests {
    use super::super::FromDaemon;
    use super::super::tests::CLAIM;
    use super::*;

    fn claim(code: &str) -> Claim {
        match FromDaemon::parse(CLAIM.replace("ABCD2345", code).as_bytes()) {
            Ok(FromDaemon::Claim(claim)) => claim,
            other => panic!("{other:?}"),
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_claim_is_shown_once() {
        let mut showing = Showing::default();
        for second in 0..20 {
            showing.offer(claim("ABCD2345"));
            assert_eq!(showing.due(at(second)).is_some(), second == 0);
        }
        showing.not_shown();
        showing.offer(claim("ABCD2345"));
        assert!(showing.due(at(20)).is_some());
    }

    #[test]
    fn another_claim_waits_and_the_last_one_is_shown() {
        let mut showing = Showing::default();
        showing.offer(claim("ABCD2345"));
        assert!(showing.due(at(10)).is_some());
        showing.offer(claim("ABCD2346"));
        assert!(showing.due(at(11)).is_none());
        showing.offer(claim("ABCD2347"));
        assert_eq!((showing.due(at(14)), showing.deadline()), (None, Some(at(15))));
        assert_eq!(showing.due(at(15)), Some(claim("ABCD2347")));
        assert_eq!(showing.deadline(), None);
    }

    #[test]
    fn what_is_erased_is_shown_again_but_not_at_once() {
        let mut showing = Showing::default();
        showing.offer(claim("ABCD2345"));
        assert!(showing.due(at(0)).is_some());
        showing.offer(claim("ABCD2346"));
        showing.erased();
        assert_eq!(showing.deadline(), None);
        showing.offer(claim("ABCD2345"));
        assert!(showing.due(at(4)).is_none() && showing.due(at(5)).is_some());
    }
}
