//! What frame traces say of a stream: how many pictures went out or were dropped, how long they took, what they weighed.
//!
//! A pure function of traces and a window; nothing here has a clock. A trace belongs to the moment at which its fate was
//! decided: a picture that was sent to its last datagram, one that was dropped to its capture, the only stamp it has.
//! Latency is read off the stamps that each station made and is given for each part of the way, so that whoever looks
//! sees where time is lost. Percentiles are nearest-rank: each is a time that a picture really took.
//!
//! Deliberately absent: a verdict.

use std::time::Duration;

use punktfunk_core::media::{DropReason, FrameFate, FrameKind, FrameTrace};
use punktfunk_core::time::Timestamp;

/// From when to when is counted; the end is not part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

impl Window {
    /// The time before `to` of this length, but nothing before `began`.
    pub fn before(to: Timestamp, length: Duration, began: Timestamp) -> Self {
        Self { from: (to - length).max(began), to }
    }

    fn holds(&self, at: Timestamp) -> bool {
        (self.from..self.to).contains(&at)
    }
}

/// Counts of pictures, and of what they became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Pictures of the source, whatever became of them.
    pub captured: u64,
    /// Pictures that went out, repetitions included.
    pub sent: u64,
    /// Of these, the previous picture again because the screen did not change.
    pub repeated: u64,
    /// Of these, those that restart everything.
    pub idr: u64,
    /// Dropped before the encoder: a newer picture came first.
    pub superseded: u64,
    /// Dropped before the encoder: the client's rate has no room for them.
    pub over_rate: u64,
    /// Lost after the encoder: the wire format has no room for them.
    pub unsendable: u64,
    /// Dropped because the stream ended.
    pub stream_ended: u64,
    /// Coded bytes that went out.
    pub bytes: u64,
    /// Datagrams that went out, parity included.
    pub datagrams: u64,
    /// Shards with data, of the frames whose shape is known.
    pub data_shards: u64,
    /// Shards with parity, of the same frames.
    pub parity_shards: u64,
}

impl Tally {
    /// Counts one more.
    pub fn add(&mut self, trace: &FrameTrace) {
        self.captured += u64::from(!trace.repeated);
        match trace.fate {
            FrameFate::Sent { kind, bytes, datagrams, shape, .. } => {
                self.sent += 1;
                self.repeated += u64::from(trace.repeated);
                self.idr += u64::from(kind == FrameKind::Idr);
                self.bytes += u64::from(bytes);
                self.datagrams += u64::from(datagrams);
                for block in shape.blocks() {
                    self.data_shards += u64::from(block.data);
                    self.parity_shards += u64::from(block.parity);
                }
            }
            FrameFate::Dropped(DropReason::Superseded) => self.superseded += 1,
            FrameFate::Dropped(DropReason::OverRate) => self.over_rate += 1,
            FrameFate::Dropped(DropReason::Unsendable) => self.unsendable += 1,
            FrameFate::Dropped(DropReason::StreamEnded) => self.stream_ended += 1,
        }
    }

    /// Parity in percent of data; 0 if nothing was sent.
    pub fn parity_percent(&self) -> f64 {
        if self.data_shards == 0 {
            return 0.0;
        }
        // Counts of datagrams stay far below 2^53.
        tenths(self.parity_shards as f64 * 100.0 / self.data_shards as f64)
    }
}

/// How long something took, in microseconds: half of the pictures no longer than `p50`, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spread {
    /// The median.
    pub p50: u32,
    /// The 95th percentile.
    pub p95: u32,
    /// The 99th percentile.
    pub p99: u32,
}

impl Spread {
    /// Of these times in microseconds, which are put in order; zero of none.
    fn of(times: &mut [u32]) -> Self {
        times.sort_unstable();
        let rank = |percent: usize| {
            let at = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(at).copied().unwrap_or(0)
        };
        Self { p50: rank(50), p95: rank(95), p99: rank(99) }
    }
}

/// Where the time of the pictures that went out has gone, station by station.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Latency {
    /// From capture until the encoder took it.
    pub wait: Spread,
    /// In the encoder.
    pub encode: Spread,
    /// From the encoder to the first datagram: packets, parity, encryption, and the frame before.
    pub queue: Spread,
    /// From the first datagram to the last.
    pub send: Spread,
    /// From capture to the last datagram.
    pub whole: Spread,
}

/// What a window of traces says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// The window's length.
    pub length: Duration,
    /// How many of what.
    pub tally: Tally,
    /// How long those that went out took; `None` if none did.
    pub latency: Option<Latency>,
}

impl Figures {
    /// The figures of those traces that belong to the window.
    pub fn of<'a>(traces: impl IntoIterator<Item = &'a FrameTrace>, window: Window) -> Self {
        let mut tally = Tally::default();
        let mut times = Times::default();
        for trace in traces {
            let decided_at = match trace.fate {
                FrameFate::Sent { last_sent_at, .. } => last_sent_at,
                FrameFate::Dropped(_) => trace.captured_at,
            };
            if window.holds(decided_at) {
                tally.add(trace);
                times.add(trace);
            }
        }
        let latency = (tally.sent > 0).then(|| times.spread());
        Self { length: window.to.since(window.from), tally, latency }
    }

    /// So many times a second.
    pub fn per_second(&self, count: u64) -> f64 {
        if self.length.is_zero() {
            return 0.0;
        }
        // Counts of one window stay far below 2^53.
        tenths(count as f64 / self.length.as_secs_f64())
    }

    /// The coded bytes in kbit/s.
    pub fn bitrate_kbps(&self) -> u64 {
        let micros = u64::try_from(self.length.as_micros()).unwrap_or(u64::MAX);
        (self.tally.bytes * 8_000).checked_div(micros).unwrap_or(0)
    }
}

/// More digits would only flicker.
fn tenths(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[derive(Default)]
struct Times {
    stations: [Vec<u32>; 5],
}

impl Times {
    fn add(&mut self, trace: &FrameTrace) {
        let FrameFate::Sent { encode_began_at, encoded_at, first_sent_at, last_sent_at, .. } =
            trace.fate
        else {
            return;
        };
        let micros = |from: Timestamp, to: Timestamp| {
            u32::try_from(to.since(from).as_micros()).unwrap_or(u32::MAX)
        };
        let times = [
            micros(trace.captured_at, encode_began_at),
            micros(encode_began_at, encoded_at),
            micros(encoded_at, first_sent_at),
            micros(first_sent_at, last_sent_at),
            micros(trace.captured_at, last_sent_at),
        ];
        for (all, one) in self.stations.iter_mut().zip(times) {
            all.push(one);
        }
    }

    fn spread(mut self) -> Latency {
        let [wait, encode, queue, send, whole] =
            self.stations.each_mut().map(|times| Spread::of(times));
        Latency { wait, encode, queue, send, whole }
    }
}

#[cfg(test)]
mod tests {
    use punktfunk_core::media::{BlockShape, FrameIndex, FrameShape, SourceIndex};

    use super::*;

    fn at(micros: u64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    /// A picture that was captured at `captured` and then took so long at each station.
    fn sent(captured: u64, [wait, encode, queue, send]: [u64; 4]) -> FrameTrace {
        let encode_began_at = at(captured + wait);
        let encoded_at = encode_began_at + Duration::from_micros(encode);
        let first_sent_at = encoded_at + Duration::from_micros(queue);
        FrameTrace {
            source: SourceIndex(captured),
            captured_at: at(captured),
            repeated: false,
            fate: FrameFate::Sent {
                index: FrameIndex(1),
                kind: FrameKind::Predicted,
                encode_began_at,
                encoded_at,
                first_sent_at,
                last_sent_at: first_sent_at + Duration::from_micros(send),
                bytes: 1_000,
                datagrams: 3,
                shape: FrameShape::new(0, [BlockShape { data: 2, parity: 1 }]),
            },
        }
    }

    fn dropped(captured: u64, reason: DropReason) -> FrameTrace {
        FrameTrace {
            source: SourceIndex(captured),
            captured_at: at(captured),
            repeated: false,
            fate: FrameFate::Dropped(reason),
        }
    }

    fn second() -> Window {
        Window { from: at(1_000_000), to: at(2_000_000) }
    }

    #[test]
    fn every_picture_is_counted_once_where_its_fate_was_decided() {
        let mut again = sent(1_500_000, [0, 10, 10, 10]);
        again.repeated = true;
        let mut restart = sent(1_600_000, [0, 10, 10, 10]);
        if let FrameFate::Sent { kind, .. } = &mut restart.fate {
            *kind = FrameKind::Idr;
        }
        let traces = [
            // Captured before the window, gone out in it, and the other way round.
            sent(999_990, [10, 10, 10, 10]),
            sent(1_999_990, [10, 10, 10, 10]),
            again,
            restart,
            dropped(1_100_000, DropReason::Superseded),
            dropped(1_100_001, DropReason::OverRate),
            dropped(1_100_002, DropReason::OverRate),
            dropped(1_100_003, DropReason::Unsendable),
            dropped(1_999_999, DropReason::StreamEnded),
            dropped(2_000_000, DropReason::Superseded),
        ];
        let figures = Figures::of(&traces, second());
        let expected = Tally {
            captured: 7,
            sent: 3,
            repeated: 1,
            idr: 1,
            superseded: 1,
            over_rate: 2,
            unsendable: 1,
            stream_ended: 1,
            bytes: 3_000,
            datagrams: 9,
            data_shards: 6,
            parity_shards: 3,
        };
        assert_eq!(figures.tally, expected);
        assert_eq!(figures.tally.parity_percent(), 50.0);
        assert_eq!(figures.bitrate_kbps(), 24);
        assert_eq!(figures.per_second(figures.tally.sent), 3.0);
    }

    #[test]
    fn the_way_is_split_by_stations_and_percentiles_are_times_that_happened() {
        let traces: Vec<_> =
            (1..=100).map(|n| sent(1_000_000 + n, [n, 10 * n, 100 * n, 1_000])).collect();
        let latency = Figures::of(&traces, second()).latency.unwrap();
        assert_eq!(latency.wait, Spread { p50: 50, p95: 95, p99: 99 });
        assert_eq!(latency.encode, Spread { p50: 500, p95: 950, p99: 990 });
        assert_eq!(latency.queue, Spread { p50: 5_000, p95: 9_500, p99: 9_900 });
        assert_eq!(latency.send, Spread { p50: 1_000, p95: 1_000, p99: 1_000 });
        assert_eq!(latency.whole.p50, 50 + 500 + 5_000 + 1_000);
        let one = Figures::of(&traces[..1], second()).latency.unwrap();
        assert_eq!(one.wait, Spread { p50: 1, p95: 1, p99: 1 });
    }

    #[test]
    fn a_window_without_pictures_has_no_latency_and_divides_by_nothing() {
        let figures = Figures::of(&[], second());
        assert_eq!((figures.latency, figures.bitrate_kbps()), (None, 0));
        let empty = Figures::of(&[], Window { from: at(5), to: at(5) });
        assert_eq!((empty.bitrate_kbps(), empty.per_second(7)), (0, 0.0));
        assert_eq!(empty.tally.parity_percent(), 0.0);
    }

    #[test]
    fn a_young_stream_is_measured_over_its_age() {
        let window = Window::before(at(2_000_000), Duration::from_secs(10), at(1_500_000));
        assert_eq!(window, Window { from: at(1_500_000), to: at(2_000_000) });
        let figures = Figures::of(&[sent(1_600_000, [1, 1, 1, 1])], window);
        assert_eq!(figures.per_second(figures.tally.sent), 2.0);
    }
}
