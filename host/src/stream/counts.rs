//! What is counted of a stream beside its frames: what the client says, and sound.
//!
//! Plain counters without a lock: the thread that sees something adds one, whoever wants to know reads. Each is right for
//! itself; two that are read together may be a moment apart.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Counts since a stream began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// The client asked for an IDR picture.
    pub idr_requests: u64,
    /// The client said that frames were lost.
    pub invalidations: u64,
    /// Reports of the client on blocks that did not arrive whole; only clients that were asked to send them.
    pub loss_reports: u64,
    /// Datagrams that were missing by these reports, mended or not.
    pub missing_datagrams: u64,
    /// There and back on the control connection, as far as it is known; a time below one millisecond is zero.
    pub round_trip: Option<Duration>,
    /// Packets of sound that went out.
    pub audio_packets: u64,
}

/// The counters behind [`Counts`].
#[derive(Debug)]
pub(super) struct Counters {
    pub(super) idr_requests: AtomicU64,
    pub(super) invalidations: AtomicU64,
    loss_reports: AtomicU64,
    missing_datagrams: AtomicU64,
    round_trip_ms: AtomicU32,
    pub(super) audio_packets: AtomicU64,
}

/// The round trip is not known.
const UNKNOWN: u32 = u32::MAX;

impl Default for Counters {
    fn default() -> Self {
        Self {
            idr_requests: AtomicU64::default(),
            invalidations: AtomicU64::default(),
            loss_reports: AtomicU64::default(),
            missing_datagrams: AtomicU64::default(),
            round_trip_ms: AtomicU32::new(UNKNOWN),
            audio_packets: AtomicU64::default(),
        }
    }
}

impl Counters {
    pub(super) fn note_loss(&self, missing: u16) {
        self.loss_reports.fetch_add(1, Ordering::Relaxed);
        self.missing_datagrams.fetch_add(missing.into(), Ordering::Relaxed);
    }

    pub(super) fn note_round_trip(&self, round_trip: Duration) {
        let millis = u32::try_from(round_trip.as_millis()).unwrap_or(UNKNOWN);
        self.round_trip_ms.store(millis, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Counts {
        let round_trip = self.round_trip_ms.load(Ordering::Relaxed);
        Counts {
            idr_requests: self.idr_requests.load(Ordering::Relaxed),
            invalidations: self.invalidations.load(Ordering::Relaxed),
            loss_reports: self.loss_reports.load(Ordering::Relaxed),
            missing_datagrams: self.missing_datagrams.load(Ordering::Relaxed),
            round_trip: (round_trip != UNKNOWN)
                .then(|| Duration::from_millis(u64::from(round_trip))),
            audio_packets: self.audio_packets.load(Ordering::Relaxed),
        }
    }
}

/// One more.
pub(super) fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_reported_is_unknown_and_not_zero() {
        let counters = Counters::default();
        assert_eq!(counters.read(), Counts::default());
        counters.note_round_trip(Duration::from_micros(300));
        counters.note_loss(3);
        counters.note_loss(4);
        let counts = counters.read();
        assert_eq!(counts.round_trip, Some(Duration::ZERO));
        assert_eq!((counts.loss_reports, counts.missing_datagrams), (2, 7));
    }
}
