//! The one place where the daemon reads the monotonic clock and turns it into `core`'s [`Timestamp`].
//!
//! The origin is `CLOCK_MONOTONIC`'s own, so stamps that compositors give (also `CLOCK_MONOTONIC`) can be compared.

use std::time::Duration;

use punktfunk_core::time::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Now, in microseconds of `CLOCK_MONOTONIC`.
pub fn now() -> Timestamp {
    let now = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    Timestamp::from_micros(seconds * 1_000_000 + nanos / 1_000)
}

/// How long it is until `then`; zero if it has passed.
pub fn until(then: Timestamp) -> Duration {
    then.since(now())
}
