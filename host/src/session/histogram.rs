//! How long all pictures of a session took, in a few kilobytes however long it lasts.
//!
//! Times fall into buckets that grow with them: up to 64 us each has its own, above that 32 share each doubling, so that
//! what is read back is at most 1/32 more than what it was. Traces are kept of the newest pictures only; this is of all.

use punktfunk_core::media::{FrameFate, FrameTrace};

use super::figures::Spread;

/// Times below this have a bucket each, in microseconds.
const EXACT: u32 = 64;
/// Buckets for each doubling of time above.
const PER_DOUBLING: u32 = 32;
/// From `EXACT`, which is 2^6, to 2^32.
const BUCKETS: usize = (EXACT + (32 - 6) * PER_DOUBLING) as usize;

/// Counts of times.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Histogram {
    /// Counts a picture, if it went out: from its capture to its last datagram.
    pub(super) fn add(&mut self, trace: &FrameTrace) {
        if let FrameFate::Sent { last_sent_at, .. } = trace.fate {
            let took = last_sent_at.since(trace.captured_at).as_micros();
            self.count(u32::try_from(took).unwrap_or(u32::MAX));
        }
    }

    fn count(&mut self, micros: u32) {
        if let Some(count) = self.counts.get_mut(bucket(micros)) {
            *count = count.saturating_add(1);
            self.total += 1;
        }
    }

    /// The times that 50, 95 and 99 of 100 did not exceed, by at most 1/32 too long; zero of none.
    pub(super) fn spread(&self) -> Spread {
        let rank = |percent: u64| (self.total * percent).div_ceil(100);
        Spread { p50: self.at(rank(50)), p95: self.at(rank(95)), p99: self.at(rank(99)) }
    }

    /// The time of the picture with this rank, from 1.
    fn at(&self, rank: u64) -> u32 {
        let mut seen = 0;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen += u64::from(*count);
            if seen >= rank && rank > 0 {
                return longest(bucket);
            }
        }
        0
    }
}

fn bucket(micros: u32) -> usize {
    if micros < EXACT {
        return micros as usize;
    }
    let doubling = micros.ilog2() - EXACT.ilog2();
    let within = (micros >> (doubling + 1)) - PER_DOUBLING;
    (EXACT + doubling * PER_DOUBLING + within) as usize
}

/// The longest time that falls into a bucket.
fn longest(bucket: usize) -> u32 {
    let bucket = u64::try_from(bucket).unwrap_or(u64::MAX);
    let (exact, per_doubling) = (u64::from(EXACT), u64::from(PER_DOUBLING));
    let longest = match bucket.checked_sub(exact) {
        None => bucket,
        Some(above) => {
            let (doubling, within) = (above / per_doubling, above % per_doubling);
            ((per_doubling + within + 1) << (doubling + 1)) - 1
        }
    };
    u32::try_from(longest).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_picture_of_a_long_session_counts() {
        let mut times = Histogram::default();
        assert_eq!(times.spread(), Spread::default());
        // An hour in which nine of ten took 5 ms, and then a slow minute that is not all there was.
        (0..200_000).for_each(|_| times.count(5_000));
        (0..9_000).for_each(|_| times.count(40_000));
        let spread = times.spread();
        assert!((5_000..5_000 + 5_000 / 32 + 1).contains(&spread.p50), "{spread:?}");
        assert_eq!(spread.p95, spread.p50);
        assert!((40_000..40_000 + 40_000 / 32 + 1).contains(&spread.p99), "{spread:?}");
    }

    #[test]
    fn the_first_and_the_last_bucket_hold_the_shortest_and_the_longest() {
        assert_eq!((bucket(0), longest(0)), (0, 0));
        assert_eq!((bucket(u32::MAX), longest(BUCKETS - 1)), (BUCKETS - 1, u32::MAX));
        for at in 1..BUCKETS {
            assert_eq!(bucket(longest(at - 1) + 1), at, "a gap below bucket {at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_read_back_is_hardly_longer(micros in any::<u32>()) {
            let read = longest(bucket(micros));
            prop_assert!(read >= micros && read - micros <= micros / 32, "{micros} became {read}");
        }
    }
}
