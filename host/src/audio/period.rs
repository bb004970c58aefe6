//! The beat of a source that makes its own samples: when each period begins and when it is complete.
//!
//! Deadlines are absolute, on the clock that stamps pictures, so the rate does not drift however late a call comes.

use std::time::Duration;

use punktfunk_core::time::Timestamp;
use rustix::thread::{ClockId, Timespec, clock_nanosleep_absolute};

use super::SAMPLE_RATE;
use crate::clock;

/// A reader that comes this late has slept, not been slow: the beat starts anew instead of hurrying through what was
/// missed.
const MAX_LATE: Duration = Duration::from_millis(200);

/// Where a source of samples stands in time.
#[derive(Debug, Default)]
pub(super) struct Beat {
    /// When sample 0 was "captured"; set by the first period.
    origin: Option<Timestamp>,
    /// Samples per channel delivered since then.
    delivered: u64,
}

impl Beat {
    /// Begins the next period of `samples` per channel at `now` or right after the one before; returns when its first
    /// sample is captured and when it is complete.
    pub(super) fn advance(&mut self, now: Timestamp, samples: u64) -> (Timestamp, Timestamp) {
        let origin = match self.origin {
            Some(origin) if now.since(origin + samples_to_time(self.delivered)) <= MAX_LATE => {
                origin
            }
            _ => {
                self.delivered = 0;
                *self.origin.insert(now)
            }
        };
        let begins = origin + samples_to_time(self.delivered);
        self.delivered += samples;
        (begins, origin + samples_to_time(self.delivered))
    }
}

/// Blocks until `then`, which may have passed.
pub(super) fn wait_until(then: Timestamp) {
    let micros = then.as_micros();
    let request = Timespec {
        tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
        // Below a thousand million, so it fits whatever the type is.
        tv_nsec: (micros % 1_000_000 * 1_000) as _,
    };
    while clock::now() < then {
        match clock_nanosleep_absolute(ClockId::Monotonic, &request) {
            Err(rustix::io::Errno::INTR) => {}
            // Nothing else can happen with a valid clock and time; without a wait the reader still gets its samples.
            _ => return,
        }
    }
}

fn samples_to_time(samples: u64) -> Duration {
    let rate = u64::from(SAMPLE_RATE);
    Duration::from_secs(samples / rate) + Duration::from_micros(samples % rate * 1_000_000 / rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_join_without_gap_or_drift_however_late_they_are_asked_for() {
        let start = Timestamp::from_micros(77);
        let mut beat = Beat::default();
        let (_, mut end) = beat.advance(start, 240);
        for period in 1..400_u64 {
            let late = Duration::from_micros(period * 311 % 9_000);
            let (begins, ends) = beat.advance(end + late, 240);
            assert_eq!(begins, end);
            end = ends;
        }
        assert_eq!(end, start + Duration::from_secs(2));
    }

    #[test]
    fn after_a_long_sleep_the_beat_starts_anew() {
        let mut beat = Beat::default();
        beat.advance(Timestamp::ZERO, 240);
        let awake = Timestamp::from_micros(3_600_000_000);
        assert_eq!(beat.advance(awake, 240), (awake, awake + Duration::from_millis(5)));
    }

    #[test]
    fn waiting_ends_at_the_deadline_and_not_before() {
        let then = clock::now() + Duration::from_millis(3);
        wait_until(then);
        assert!(clock::now() >= then);
        wait_until(Timestamp::ZERO);
    }
}
