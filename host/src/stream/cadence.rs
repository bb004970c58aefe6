//! When the next picture may be encoded, when a repetition is due, and when an IDR picture is: pure arithmetic of time.
//!
//! The rate is a schedule of moments one interval apart. A picture may come up to half an interval before its moment,
//! which absorbs the jitter of any source; half an interval after it the previous picture is repeated, so a static screen
//! keeps the full rate and a late picture of a live one is not overtaken by a repetition of its predecessor.
//!
//! After a stall the schedule may be ahead of a source that runs at the stream's own rate; each of its pictures would then
//! wait for its moment, for ever. So a picture that had to wait brings the schedule a little closer to its source. Not so
//! with a source that is too fast: it shows itself by pictures that are passed over, and is held to the rate.

use std::time::Duration;

use punktfunk_core::time::Timestamp;

/// IDR pictures are at least this far apart, however often they are asked for: each costs several ordinary pictures.
const IDR_SPACING: Duration = Duration::from_millis(100);

/// The schedule comes closer to its source by this part of an interval with each picture that had to wait, so the rate is
/// never exceeded by more than one picture in 31.
const CLOSER: u32 = 32;

/// A source that had a picture passed over counts as too fast for so many pictures.
const CALM: u32 = 30;

/// What became of a new picture, and of its predecessors, before it was encoded.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Held {
    /// It came too early for the rate and had to wait.
    pub(super) waited: bool,
    /// One before it was passed over because of the rate.
    pub(super) passed_over: bool,
}

/// The schedule of a stream's pictures.
#[derive(Debug)]
pub(super) struct Cadence {
    interval: Duration,
    /// The moment of the next picture; before the first one there is no schedule.
    next: Option<Timestamp>,
    /// New pictures encoded since one was last passed over.
    calm: u32,
}

impl Cadence {
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, next: None, calm: 0 }
    }

    /// A new picture may be encoded from this moment on.
    pub(super) fn eligible_at(&self) -> Timestamp {
        self.next.map_or(Timestamp::ZERO, |next| next - self.interval / 2)
    }

    /// The previous picture is to be repeated at this moment if no new one came; `None` before the first.
    pub(super) fn repeat_at(&self) -> Option<Timestamp> {
        self.next.map(|next| next + self.interval / 2)
    }

    /// A new picture is encoded now. A source slower than the rate, or out of phase, moves the schedule along.
    pub(super) fn fresh(&mut self, now: Timestamp, held: Held) {
        self.calm = if held.passed_over { 0 } else { self.calm.saturating_add(1) };
        let closer =
            if held.waited && self.calm >= CALM { self.interval / CLOSER } else { Duration::ZERO };
        let due = self.next.map_or(now, |next| next.max(now));
        self.next = Some(due + (self.interval - closer));
    }

    /// The previous picture is repeated now. The schedule stays unless it was missed altogether: no catching up.
    pub(super) fn repeated(&mut self, now: Timestamp) {
        let floor = now - self.interval;
        let due = self.next.map_or(now, |next| next.max(floor));
        self.next = Some(due + self.interval);
    }
}

/// Turns many wishes for an IDR picture into few pictures, and forgets none.
#[derive(Debug, Default)]
pub(super) struct IdrWishes {
    wanted: bool,
    last: Option<Timestamp>,
}

impl IdrWishes {
    /// Somebody needs an IDR picture.
    pub(super) fn want(&mut self) {
        self.wanted = true;
    }

    /// Whether the picture encoded now shall be one. The wish stays until [`coded`](Self::coded).
    pub(super) fn due(&self, now: Timestamp) -> bool {
        self.wanted && self.last.is_none_or(|last| now.since(last) >= IDR_SPACING)
    }

    /// An IDR picture was coded: it answers every wish so far.
    pub(super) fn coded(&mut self, now: Timestamp) {
        self.wanted = false;
        self.last = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_micros(16_667);

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(1_000_000 + micros)
    }

    #[test]
    fn a_static_screen_keeps_the_full_rate_although_every_wake_up_is_late() {
        // spec: gamestream 13 item 109
        let mut cadence = Cadence::new(INTERVAL);
        cadence.fresh(at(0), Held::default());
        let mut now = at(0);
        for _ in 0..600 {
            now = cadence.repeat_at().unwrap() + Duration::from_micros(150);
            cadence.repeated(now);
        }
        let expected = INTERVAL * 600;
        let took = now.since(at(0));
        assert!(took < expected + INTERVAL, "{took:?} for 600 pictures, not {expected:?}");
    }

    #[test]
    fn a_jittery_source_at_the_full_rate_is_neither_dropped_nor_overtaken() {
        let mut cadence = Cadence::new(INTERVAL);
        for picture in 0..1000_u64 {
            let jitter = picture * 7919 % 4_000;
            let now = at(picture * 16_667 + jitter);
            assert!(now >= cadence.eligible_at(), "picture {picture}");
            assert!(cadence.repeat_at().is_none_or(|then| now < then), "picture {picture}");
            cadence.fresh(now, Held::default());
        }
    }

    #[test]
    fn stalls_do_not_make_every_later_picture_wait() {
        let mut cadence = Cadence::new(INTERVAL);
        let mut waits = Vec::new();
        let mut last_arrival = at(0);
        for picture in 0..400_u64 {
            // Three times a picture is so late that its predecessor is repeated first, and the next is on time again.
            let late = if [100, 103, 107].contains(&picture) { 14_000 } else { 0 };
            let arrives = at(picture * 16_667 + late).max(last_arrival);
            last_arrival = arrives;
            while let Some(then) = cadence.repeat_at().filter(|&then| then < arrives) {
                cadence.repeated(then);
            }
            let begins = arrives.max(cadence.eligible_at());
            waits.push(begins.since(arrives).as_micros());
            cadence.fresh(begins, Held { waited: begins > arrives, passed_over: false });
        }
        assert!(waits[100..120].iter().any(|wait| *wait > 5_000), "stalls are felt: {waits:?}");
        assert!(waits[200..].iter().all(|wait| *wait < 500), "and forgotten: {waits:?}");
    }

    #[test]
    fn a_source_that_is_too_fast_is_held_to_the_rate() {
        let mut cadence = Cadence::new(INTERVAL);
        let mut now = at(0);
        for _ in 0..600 {
            now = (now + Duration::from_micros(100)).max(cadence.eligible_at());
            cadence.fresh(now, Held { waited: true, passed_over: true });
        }
        let (took, nominal) = (now.since(at(0)), INTERVAL * 599);
        assert!(took + INTERVAL * 2 >= nominal, "{took:?} for 600 pictures, not {nominal:?}");
    }

    #[test]
    fn the_first_change_of_a_static_screen_does_not_wait_for_the_next_moment() {
        let mut cadence = Cadence::new(INTERVAL);
        cadence.fresh(at(0), Held::default());
        for _ in 0..10 {
            let now = cadence.repeat_at().unwrap();
            cadence.repeated(now);
            // Half an odd interval is rounded down on both sides.
            assert!(cadence.eligible_at() <= now + Duration::from_micros(1));
        }
    }

    #[test]
    fn after_a_stall_nothing_is_caught_up() {
        let mut cadence = Cadence::new(INTERVAL);
        cadence.fresh(at(0), Held::default());
        let late = at(5_000_000);
        cadence.repeated(late);
        assert!(cadence.repeat_at().unwrap() >= late + INTERVAL / 2);
        cadence.fresh(late + INTERVAL, Held::default());
        assert!(cadence.eligible_at() >= late + INTERVAL);
    }

    #[test]
    fn ten_wishes_in_fifty_milliseconds_are_one_or_two_pictures_and_none_is_forgotten() {
        // spec: gamestream 13 item 77
        let mut wishes = IdrWishes::default();
        wishes.coded(at(0));
        let mut coded = Vec::new();
        for millis in 200..500_u64 {
            let now = at(millis * 1000);
            if (200..250).contains(&millis) && millis % 5 == 0 {
                wishes.want();
            }
            if millis % 16 == 0 && wishes.due(now) {
                wishes.coded(now);
                coded.push(millis);
            }
        }
        assert_eq!(coded, [208, 320], "at once for the first, and once more for those after it");
    }

    proptest! {
        #[test]
        fn the_rate_is_never_exceeded(gaps in proptest::collection::vec(0_u64..40_000, 1..400)) {
            let mut cadence = Cadence::new(INTERVAL);
            let mut now = at(0);
            let mut encoded = Vec::new();
            for gap in gaps {
                // A new picture after each gap; repetitions whenever they fall due before it.
                let arrives = now + Duration::from_micros(gap);
                while let Some(then) = cadence.repeat_at().filter(|&then| then < arrives) {
                    now = now.max(then);
                    cadence.repeated(now);
                    encoded.push(now);
                }
                now = arrives.max(cadence.eligible_at());
                cadence.fresh(now, Held { waited: now > arrives, passed_over: false });
                encoded.push(now);
            }
            for first in 0..encoded.len() {
                let pictures = (encoded.len() - first) as u32;
                let span = encoded[encoded.len() - 1].since(encoded[first]);
                let least = (INTERVAL - INTERVAL / CLOSER) * pictures;
                prop_assert!(span + INTERVAL * 3 >= least, "{pictures} in {span:?}");
            }
        }
    }
}
