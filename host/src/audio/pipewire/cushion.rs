//! The few milliseconds of sound between the graph's clock and ours.
//!
//! Samples come in the graph's periods and leave in those of the stream; the two beats are not one. A cushion of two
//! periods of the graph takes up what they differ by from moment to moment. What they differ by for good shows as a
//! cushion that never gets as low as it should, and is cut; what came too late for its turn is silence.

use std::collections::VecDeque;

/// What is kept in hand, in samples per channel: 10 ms.
const CUSHION: usize = 480;

/// What may wait at most: 60 ms. Beyond, the oldest goes.
const MOST: usize = 2_880;

/// How much more than the cushion may stay in hand for good: 11 ms, as the first period to be played finds up to two
/// periods of the graph more than it waited for.
const SURPLUS: usize = 512;

/// Over how many periods the lowest filling is looked at: one or two seconds.
const WATCHED: u32 = 200;

/// After so many periods sound begins also if it fills no cushion: whatever is that short is played whole.
const PATIENCE: u32 = 4;

/// Samples in order, and whether they are being played.
#[derive(Debug)]
pub(super) struct Cushion {
    channels: usize,
    /// Whole frames, interleaved.
    samples: VecDeque<f32>,
    /// Bytes of a frame that has not come to its end.
    partial: Vec<u8>,
    state: Playing,
    counts: Counts,
}

/// Whether sound is being played.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Playing {
    /// Not yet: for so many periods there has been something in hand.
    Filling { periods: u32 },
    /// Yes: the lowest filling after a period, among so many.
    Flowing { lowest: usize, periods: u32 },
}

/// What became of samples that were not played in their turn, per channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    /// Left out, because more came than was played.
    pub(super) left_out: u64,
    /// How often sound ran dry.
    pub(super) dry: u64,
}

impl Cushion {
    /// An empty one for `channels` channels, at least one.
    pub(super) fn new(channels: u8) -> Self {
        Self {
            channels: usize::from(channels.max(1)),
            samples: VecDeque::new(),
            partial: Vec::new(),
            state: Playing::Filling { periods: 0 },
            counts: Counts::default(),
        }
    }

    /// Takes what a line brought: 32-bit floats, little endian, interleaved. What is no sound becomes silence, what is
    /// too loud is cut to full scale.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        let frame = self.channels * size_of::<f32>();
        if !self.partial.is_empty() {
            let missing = (frame - self.partial.len()).min(bytes.len());
            self.partial.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.partial.len() < frame {
                return;
            }
            let whole = std::mem::take(&mut self.partial);
            self.push_frames(&whole);
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % frame);
        self.push_frames(whole);
        self.partial.extend_from_slice(rest);
    }

    fn push_frames(&mut self, bytes: &[u8]) {
        let (samples, _) = bytes.as_chunks();
        self.samples.extend(samples.iter().map(|sample| {
            let sample = f32::from_le_bytes(*sample);
            if sample.is_finite() { sample.clamp(-1.0, 1.0) } else { 0.0 }
        }));
        if self.in_hand() > MOST {
            self.cut_to(CUSHION);
        }
    }

    /// A new line begins with a frame: what was left of the old one's last is gone.
    pub(super) fn begin_line(&mut self) {
        self.partial.clear();
    }

    /// Fills `period` (interleaved) with what is to be played now, and with silence after it. Returns how many samples
    /// per channel were in hand before, if any of them were played.
    pub(super) fn take(&mut self, period: &mut [f32]) -> Option<usize> {
        let wanted = period.len() / self.channels;
        let in_hand = self.in_hand();
        if let Playing::Filling { periods } = self.state {
            if in_hand < wanted + CUSHION && (in_hand == 0 || periods < PATIENCE) {
                self.state = Playing::Filling { periods: periods + u32::from(in_hand > 0) };
                period.fill(0.0);
                return None;
            }
            self.state = Playing::Flowing { lowest: usize::MAX, periods: 0 };
        }
        let taken = wanted.min(in_hand) * self.channels;
        for (place, sample) in period.iter_mut().zip(self.samples.drain(..taken)) {
            *place = sample;
        }
        period[taken..].fill(0.0);
        if in_hand < wanted {
            self.counts.dry += 1;
            self.state = Playing::Filling { periods: 0 };
        } else {
            self.watch();
        }
        (taken > 0).then_some(in_hand)
    }

    /// Cuts what never was of use for a while: the graph is faster than we are, or we have stood still once.
    fn watch(&mut self) {
        let left = self.in_hand();
        let Playing::Flowing { lowest, periods } = self.state else { return };
        let lowest = lowest.min(left);
        self.state = Playing::Flowing { lowest, periods: periods + 1 };
        if periods + 1 < WATCHED {
            return;
        }
        if lowest > CUSHION + SURPLUS {
            self.cut_to(left - (lowest - CUSHION));
        }
        self.state = Playing::Flowing { lowest: usize::MAX, periods: 0 };
    }

    fn cut_to(&mut self, frames: usize) {
        let surplus = self.in_hand().saturating_sub(frames);
        self.samples.drain(..surplus * self.channels);
        self.counts.left_out += surplus as u64;
    }

    fn in_hand(&self) -> usize {
        self.samples.len() / self.channels
    }

    /// What became of samples so far.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frame `n` carries the number `n` on its first channel and `-n` on the others, small enough to be exact.
    fn frames(range: std::ops::Range<u32>, channels: u8) -> Vec<u8> {
        range
            .flat_map(|n| {
                let value = (n + 1) as f32 / 1_048_576.0;
                (0..channels).flat_map(move |channel| {
                    if channel == 0 { value } else { -value }.to_le_bytes()
                })
            })
            .collect()
    }

    fn number(frame: &[f32]) -> Option<u32> {
        assert!(frame[1..].iter().all(|other| *other == -frame[0]), "{frame:?}");
        (frame[0] != 0.0).then(|| (frame[0] * 1_048_576.0) as u32 - 1)
    }

    #[derive(Debug, Clone)]
    enum Op {
        Push { frames: u32, split: usize },
        Take,
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            (0..900_u32, any::<usize>()).prop_map(|(frames, split)| Op::Push { frames, split }),
            Just(Op::Take),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_invented_doubled_or_reordered_and_the_cushion_stays_small(
            ops in prop::collection::vec(op(), 0..200),
            channels in prop::sample::select(vec![2_u8, 6, 8]),
            wanted in prop::sample::select(vec![240_usize, 480]),
        ) {
            let mut cushion = Cushion::new(channels);
            let (mut pushed, mut played, mut last) = (0_u32, 0_u64, None);
            let mut period = vec![0.0; wanted * usize::from(channels)];
            for op in ops {
                match op {
                    Op::Push { frames: count, split } => {
                        let bytes = frames(pushed..pushed + count, channels);
                        let (first, second) = bytes.split_at(split % (bytes.len() + 1));
                        cushion.push(first);
                        cushion.push(second);
                        pushed += count;
                    }
                    Op::Take => {
                        cushion.take(&mut period);
                        for frame in period.chunks(usize::from(channels)) {
                            let Some(n) = number(frame) else { continue };
                            prop_assert!(last.is_none_or(|last| n > last));
                            last = Some(n);
                            played += 1;
                        }
                    }
                }
                prop_assert!(cushion.in_hand() <= MOST);
                let accounted = played + cushion.counts().left_out + cushion.in_hand() as u64;
                prop_assert_eq!(accounted, u64::from(pushed));
            }
        }

        #[test]
        fn a_line_may_say_anything(bytes in prop::collection::vec(any::<u8>(), 0..9_000)) {
            let mut cushion = Cushion::new(2);
            cushion.push(&bytes);
            let mut period = [9.0; 480];
            for _ in 0..20 {
                cushion.take(&mut period);
                prop_assert!(period.iter().all(|sample| (-1.0..=1.0).contains(sample)));
            }
        }
    }

    /// Plays `seconds` of a graph whose clock is off by `parts_per_million`; returns the counts and the fullest cushion
    /// of the second half.
    fn run(seconds: u32, parts_per_million: i64, wanted: usize) -> (Counts, usize) {
        let mut cushion = Cushion::new(2);
        let (mut pushed, mut fullest) = (0_u32, 0);
        let mut period = vec![0.0; wanted * 2];
        let periods = seconds * 48_000 / wanted as u32;
        for turn in 1..=periods {
            let samples = i64::from(turn) * wanted as i64;
            let arrived = (samples + samples * parts_per_million / 1_000_000) as u32 / 256 * 256;
            cushion.push(&frames(pushed..arrived, 2));
            pushed = arrived;
            cushion.take(&mut period);
            if turn > periods / 2 {
                fullest = fullest.max(cushion.in_hand());
            }
        }
        (cushion.counts(), fullest)
    }

    #[test]
    fn two_clocks_that_agree_lose_nothing() {
        for wanted in [240, 480] {
            let (counts, fullest) = run(20, 0, wanted);
            assert_eq!(counts, Counts::default());
            assert!(fullest <= 2 * CUSHION, "{fullest}");
        }
    }

    #[test]
    fn a_graph_that_runs_fast_is_cut_and_one_that_runs_slow_runs_dry_once_in_a_while() {
        // A tenth of a thousandth off: 4.8 samples a second.
        let (fast, fullest) = run(20, 1_000, 240);
        assert!((1..=1_200).contains(&fast.left_out), "{fast:?}");
        assert_eq!(fast.dry, 0);
        assert!(fullest <= CUSHION + 2 * SURPLUS + 256, "{fullest}");
        let (slow, _) = run(20, -1_000, 240);
        assert_eq!(slow.left_out, 0);
        assert!((1..=3).contains(&slow.dry), "{slow:?}");
    }

    #[test]
    fn standing_still_costs_no_delay_for_good() {
        let mut cushion = Cushion::new(2);
        let mut period = [0.0; 480];
        cushion.push(&frames(0..2_400, 2));
        for turn in 0..WATCHED + 1 {
            cushion.push(&frames(2_400 + turn * 240..2_640 + turn * 240, 2));
            cushion.take(&mut period);
        }
        assert!(cushion.in_hand() <= CUSHION + SURPLUS, "{}", cushion.in_hand());
        assert_eq!(cushion.counts().left_out, 2_400 - CUSHION as u64);
    }

    #[test]
    fn the_shortest_sound_is_played_and_its_end_is_not_kept_for_later() {
        let mut cushion = Cushion::new(2);
        cushion.push(&frames(0..100, 2));
        let mut period = [0.0; 480];
        let heard: Vec<bool> = (0..8).map(|_| cushion.take(&mut period).is_some()).collect();
        assert_eq!(heard, [false, false, false, false, true, false, false, false]);
        assert_eq!(cushion.in_hand(), 0);
    }

    #[test]
    fn a_new_line_begins_with_a_frame() {
        let mut cushion = Cushion::new(2);
        cushion.push(&frames(0..1, 2)[..5]);
        cushion.begin_line();
        cushion.push(&frames(7..1_007, 2));
        let mut period = [0.0; 480];
        assert_eq!(cushion.take(&mut period), Some(1_000));
        assert_eq!(number(&period[..2]), Some(7));
    }
}
