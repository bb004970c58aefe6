//! Pacing: when the next datagrams may leave.
//!
//! A token bucket on the caller's clock. Its depth is one burst, so that a small frame leaves at once; its rate is set
//! per frame, so that a large one leaves as a stream the link can take instead of as one line-rate blast that the queue
//! of an access point drops. Integers only: a level counts byte-microseconds, and nothing drifts.
//!
//! Deliberately absent: congestion control. The rate comes from the caller.

use std::time::Duration;

use crate::time::Timestamp;

/// One byte in the unit of the level.
const BYTE: u64 = 1_000_000;

/// The slowest rate a bucket is set to, in bytes per second; keeps every waiting time finite.
const MIN_RATE: u64 = 1_000;

/// The fastest rate a bucket is set to, in bytes per second: 100 Gbit/s.
const MAX_RATE: u64 = 12_500_000_000;

/// The deepest bucket, in bytes.
const MAX_DEPTH: u64 = 1 << 24;

/// A token bucket: fills at a rate, pays for datagrams.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    rate_bytes_per_second: u64,
    depth: u64,
    level: u64,
    updated: Timestamp,
}

impl TokenBucket {
    /// A full bucket of `depth_bytes` (at least 1, at most 16 MiB).
    pub fn new(depth_bytes: u64, rate_bytes_per_second: u64) -> Self {
        let depth = depth_bytes.clamp(1, MAX_DEPTH) * BYTE;
        let rate_bytes_per_second = rate_bytes_per_second.clamp(MIN_RATE, MAX_RATE);
        Self { rate_bytes_per_second, depth, level: depth, updated: Timestamp::ZERO }
    }

    /// Sets the rate from `now` on, in bytes per second.
    pub fn set_rate(&mut self, now: Timestamp, rate_bytes_per_second: u64) {
        self.refill(now);
        self.rate_bytes_per_second = rate_bytes_per_second.clamp(MIN_RATE, MAX_RATE);
    }

    /// How many bytes may leave at `now`.
    pub fn available(&mut self, now: Timestamp) -> u64 {
        self.refill(now);
        self.level / BYTE
    }

    /// Pays for `bytes`; what the bucket does not hold is forgiven, so callers ask [`available`](Self::available) first.
    pub fn take(&mut self, bytes: u64) {
        self.level = self.level.saturating_sub(bytes.saturating_mul(BYTE));
    }

    /// The first moment at which `bytes` may leave, or a full bucket if that is less.
    pub fn ready_at(&self, bytes: u64) -> Timestamp {
        let want = bytes.saturating_mul(BYTE).min(self.depth);
        let short = want.saturating_sub(self.level);
        // Rounded up: at that moment the bucket holds enough, and the caller need not ask twice.
        self.updated + Duration::from_micros(short.div_ceil(self.rate_bytes_per_second))
    }

    fn refill(&mut self, now: Timestamp) {
        let elapsed = u64::try_from(now.since(self.updated).as_micros()).unwrap_or(u64::MAX);
        // A clock that stands still or runs back adds nothing and is not waited for.
        self.updated = self.updated.max(now);
        let added = elapsed.saturating_mul(self.rate_bytes_per_second);
        self.level = self.level.saturating_add(added).min(self.depth);
    }
}

/// The rate at which a frame of `bytes` leaves: the link's, or faster if it would take longer than half the frame
/// interval. In bytes per second. spec: gamestream 7.11
pub fn frame_rate(bytes: u64, link_bytes_per_second: u64, frame_interval: Duration) -> u64 {
    let half = u64::try_from(frame_interval.as_micros() / 2).unwrap_or(u64::MAX).max(1);
    let needed = bytes.saturating_mul(1_000_000).div_ceil(half);
    needed.max(link_bytes_per_second).clamp(MIN_RATE, MAX_RATE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn a_bucket_pays_what_it_holds_and_says_when_it_holds_more() {
        let mut bucket = TokenBucket::new(10_000, 1_000_000);
        assert_eq!(bucket.available(at(5)), 10_000);
        bucket.take(10_000);
        assert_eq!(bucket.available(at(5)), 0);
        assert_eq!(bucket.ready_at(3_000), at(3_005));
        assert_eq!(bucket.available(at(3_004)), 2_999);
        assert_eq!(bucket.available(at(3_005)), 3_000);
        // It never holds more than its depth, and asking for more waits for a full one.
        assert_eq!(bucket.available(at(9_000_000)), 10_000);
        assert_eq!(bucket.ready_at(1 << 40), at(9_000_000));
    }

    #[test]
    fn a_clock_that_runs_back_stops_nothing() {
        let mut bucket = TokenBucket::new(1_000, 1_000_000);
        bucket.take(1_000);
        assert_eq!(bucket.available(at(500)), 500);
        assert_eq!(bucket.available(at(100)), 500);
        assert_eq!(bucket.available(at(501)), 501);
    }

    // spec: gamestream 7.11
    #[test]
    fn a_frame_takes_the_links_time_or_half_the_interval() {
        let interval = Duration::from_micros(16_667);
        // 125 KB over 100 MB/s would take 1.25 ms, well within 8.3 ms: the link's rate.
        assert_eq!(frame_rate(125_000, 100_000_000, interval), 100_000_000);
        // 1.25 MB would take 12.5 ms: sped up so that it is gone after half the interval.
        let rate = frame_rate(1_250_000, 100_000_000, interval);
        assert_eq!(1_250_000 * 1_000_000 / rate, 8_332);
        // Nonsense stays finite.
        assert_eq!(frame_rate(u64::MAX, 0, Duration::ZERO), MAX_RATE);
        assert_eq!(frame_rate(0, 0, Duration::MAX), MIN_RATE);
    }

    proptest! {
        #[test]
        fn never_more_leaves_than_the_depth_and_the_rate_allow(
            depth in 1u64..100_000,
            rate in 1_000u64..2_000_000_000,
            steps in proptest::collection::vec((0u64..5_000, 1u64..70_000), 1..60),
        ) {
            let mut bucket = TokenBucket::new(depth, rate);
            let (mut now, mut sent) = (0u64, 0u128);
            for (pause, want) in steps {
                now += pause;
                let pay = bucket.available(at(now)).min(want);
                bucket.take(pay);
                sent += u128::from(pay);
                let allowed = u128::from(depth) + u128::from(rate) * u128::from(now) / 1_000_000;
                prop_assert!(sent <= allowed, "sent {sent}, allowed {allowed}");
                let ready = bucket.ready_at(want);
                prop_assert!(bucket.clone().available(ready) >= want.min(depth));
            }
        }
    }
}
