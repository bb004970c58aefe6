//! Time as numbers the caller hands in.
//!
//! `core` has no clock. A [`Timestamp`] counts microseconds of the caller's monotonic clock from an origin of its
//! choice; it is a number and not an `Instant` because a C caller cannot make an `Instant`.
//! Host time and client time will be distinct types once a protocol carries the client's clock; GameStream does not.

use std::ops::{Add, Sub};
use std::time::Duration;

/// A moment on the host's monotonic clock, in microseconds from an arbitrary origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin of the clock.
    pub const ZERO: Self = Self(0);

    /// A moment `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this moment is; zero if it is not after it.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The same moment in the 90 kHz units of RTP, wrapping at 32 bits.
    pub const fn to_rtp(self) -> RtpTimestamp {
        // 90 kHz = 9/100 per microsecond; widened so that the product cannot overflow.
        RtpTimestamp(((self.0 as u128 * 9 / 100) & 0xFFFF_FFFF) as u32)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(micros))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, rhs: Duration) -> Self {
        let micros = u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(micros))
    }
}

/// A moment on the wire: 90 kHz units, wrapping at 32 bits (RFC 3550 sec. 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RtpTimestamp(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_is_ninety_thousand_rtp_units() {
        assert_eq!(Timestamp::from_micros(1_000_000).to_rtp(), RtpTimestamp(90_000));
    }

    #[test]
    fn rtp_time_wraps_instead_of_overflowing() {
        assert_eq!(
            Timestamp::from_micros(u64::MAX).to_rtp().0,
            ((u64::MAX as u128 * 9 / 100) & 0xFFFF_FFFF) as u32
        );
    }

    #[test]
    fn time_never_runs_below_its_origin() {
        assert_eq!(Timestamp::from_micros(5) - Duration::from_secs(1), Timestamp::ZERO);
        assert_eq!(Timestamp::from_micros(5).since(Timestamp::from_micros(9)), Duration::ZERO);
    }
}
