//! Looks: datagrams to access units to pictures, and in the pictures the number of each frame.
//!
//! What counts is the newest stretch of frames that the host sent, by their numbers on the wire: one counts as seen if
//! it arrived whole, was decoded, and shows a number above the last one. A picture that the host sent again shows its old
//! number and counts neither way; a host that sends nothing else makes no progress.

use std::collections::VecDeque;

use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;
use punktfunk_core::gamestream::video::{
    FrameType, ReceivedFrame, ReceiverEvent, ReceiverStats, VideoReceiver,
};
use punktfunk_core::media::FrameIndex;
use punktfunk_core::time::Timestamp;

use crate::capture::testcard::{CardCode, read_code_luma};

/// Of the frames of a stretch so many in a hundred must be seen.
const PERCENT_NEEDED: usize = 95;
/// After so many stretches without a good one the line is bad.
const STRETCHES: u64 = 5;
/// A host that shows more pictures than this for each that it sends is too slow for what was chosen.
const MOST_SKIPPED: u64 = 3;

/// What was seen so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) datagrams: u64,
    /// Frames that arrived whole.
    pub(super) frames: u64,
    /// Frames that were decoded and showed a new number.
    pub(super) decoded: u64,
    /// Frames that showed the number of the one before.
    pub(super) repeated: u64,
    /// Frames that the decoder did not take.
    pub(super) undecodable: u64,
    /// Pictures without a number that could be read.
    pub(super) unreadable: u64,
    /// Pictures with an older number than the one before.
    pub(super) backwards: u64,
    /// Frames that were sent and did not arrive whole, or not in time to be of use.
    pub(super) missed: u64,
    /// Pictures of the source that were never sent.
    pub(super) skipped: u64,
    /// IDR frames.
    pub(super) idr: u64,
}

/// How it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing can be said yet.
    Open,
    /// A stretch was good.
    Good,
    /// It will not become good; why.
    Bad(String),
}

/// The looking end.
pub(super) struct Viewer {
    receiver: VideoReceiver,
    decoder: Decoder,
    size: (u32, u32),
    stretch: Stretch,
    wants_idr: bool,
    newest: Option<FrameIndex>,
    newest_idr: Option<FrameIndex>,
    /// From capture to having been decoded, in microseconds, of the newest frames.
    latencies: VecDeque<u64>,
    stats: Seen,
}

/// The frames of the newest stretch.
struct Stretch {
    wanted: usize,
    newest: VecDeque<bool>,
    counted: u64,
    last_code: Option<CardCode>,
    /// Frames since that one that were sent and showed no number here.
    without_number: u64,
}

impl Viewer {
    /// Awaits pictures of this size; a stretch has `wanted` frames.
    pub(super) fn new(
        receiver: VideoReceiver,
        size: (u32, u32),
        wanted: usize,
    ) -> Result<Self, openh264::Error> {
        Ok(Self {
            receiver,
            // It takes no picture beyond 36 864 macroblocks (level 5.2), whatever a stream claims, so its memory is bounded.
            decoder: Decoder::new()?,
            size,
            stretch: Stretch {
                wanted: wanted.max(1),
                newest: VecDeque::new(),
                counted: 0,
                last_code: None,
                without_number: 0,
            },
            wants_idr: false,
            newest: None,
            newest_idr: None,
            latencies: VecDeque::new(),
            stats: Seen::default(),
        })
    }

    pub(super) fn seen(&self) -> Seen {
        self.stats
    }

    /// What became of the datagrams.
    pub(super) fn received(&self) -> ReceiverStats {
        self.receiver.stats()
    }

    /// The newest IDR frame.
    pub(super) fn newest_idr(&self) -> Option<FrameIndex> {
        self.newest_idr
    }

    /// The newest frame that arrived whole.
    pub(super) fn newest(&self) -> Option<FrameIndex> {
        self.newest
    }

    /// Whether a lost frame made a client ask for an IDR picture since this was asked last.
    pub(super) fn take_idr_wish(&mut self) -> bool {
        std::mem::take(&mut self.wants_idr)
    }

    /// The median time from capture to having been decoded, in microseconds.
    pub(super) fn latency_us(&self) -> Option<u64> {
        let mut all: Vec<u64> = self.latencies.iter().copied().collect();
        all.sort_unstable();
        all.get(all.len() / 2).copied()
    }

    pub(super) fn take(&mut self, now: Timestamp, datagram: &[u8]) {
        self.stats.datagrams += 1;
        self.receiver.handle_datagram(now, datagram);
        let received = self.receiver.stats();
        let missed = (received.lost_frames + received.dropped_frames) - self.stats.missed;
        self.stats.missed += missed;
        self.stretch.miss(missed);
        while let Some(event) = self.receiver.poll_event() {
            match event {
                ReceiverEvent::Frame(frame) => self.show(&frame),
                ReceiverEvent::RequestIdr | ReceiverEvent::Invalidate { .. } => {
                    self.wants_idr = true;
                }
            }
        }
    }

    fn show(&mut self, frame: &ReceivedFrame) {
        self.stats.frames += 1;
        if frame.frame_type == FrameType::Idr {
            self.stats.idr += 1;
            self.newest_idr = Some(frame.index);
        }
        self.newest = Some(frame.index);
        let Some(code) = self.decode(&frame.bytes) else { return self.stretch.miss(1) };
        match self.stretch.last_code {
            Some(last) if code.frame == last.frame => self.stats.repeated += 1,
            // Numbers are 32 bits and wrap; the upper half lies behind.
            Some(last) if code.frame.wrapping_sub(last.frame) > u32::MAX / 2 => {
                self.stats.backwards += 1;
                self.stretch.miss(1);
            }
            last => {
                self.stats.decoded += 1;
                let step = last.map_or(1, |last| code.frame.wrapping_sub(last.frame));
                let unsent = u64::from(step - 1).saturating_sub(self.stretch.without_number);
                self.stats.skipped += unsent;
                self.stretch.show(code);
                self.note_latency(code);
            }
        }
    }

    /// The number in the picture that these bytes make.
    fn decode(&mut self, bytes: &[u8]) -> Option<CardCode> {
        // A picture comes out of its own call; a client shows no picture late.
        let Ok(Some(picture)) = self.decoder.decode(bytes) else {
            self.stats.undecodable += 1;
            self.wants_idr = true;
            return None;
        };
        let (width, height) = self.size;
        let code = (picture.dimensions() == (width as usize, height as usize))
            .then(|| read_code_luma(picture.y(), width, height, picture.strides().0))
            .flatten();
        if code.is_none() {
            self.stats.unreadable += 1;
        }
        code
    }

    fn note_latency(&mut self, code: CardCode) {
        /// As many as a median needs.
        const KEPT: usize = 128;
        if self.latencies.len() == KEPT {
            self.latencies.pop_front();
        }
        let took = crate::clock::now().since(code.time);
        self.latencies.push_back(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// The verdict on what was seen.
    pub(super) fn judge(&self) -> Judgement {
        self.stretch.judge(self.stats)
    }
}

impl Stretch {
    /// Frames were sent and did not come. A long silence costs no more than the whole stretch.
    fn miss(&mut self, frames: u64) {
        for _ in 0..frames.min(self.wanted as u64) {
            self.count(false);
        }
        self.without_number = self.without_number.saturating_add(frames);
    }

    /// A frame showed a new number.
    fn show(&mut self, code: CardCode) {
        self.last_code = Some(code);
        self.without_number = 0;
        self.count(true);
    }

    fn count(&mut self, seen: bool) {
        if self.newest.len() == self.wanted {
            self.newest.pop_front();
        }
        self.newest.push_back(seen);
        self.counted += 1;
    }

    fn good(&self) -> usize {
        self.newest.iter().filter(|seen| **seen).count()
    }

    fn judge(&self, seen: Seen) -> Judgement {
        if self.newest.len() < self.wanted {
            return Judgement::Open;
        }
        if self.good() * 100 >= self.wanted * PERCENT_NEEDED {
            if seen.skipped > MOST_SKIPPED * seen.decoded {
                return Judgement::Bad(format!(
                    "the host sent {} pictures and left out {}; it is too slow for this mode",
                    seen.decoded, seen.skipped
                ));
            }
            return Judgement::Good;
        }
        if self.counted >= STRETCHES * self.wanted as u64 {
            return Judgement::Bad(format!(
                "{} of {} frames decoded, {PERCENT_NEEDED} % are needed",
                seen.decoded, self.counted
            ));
        }
        Judgement::Open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stretch(wanted: usize) -> Stretch {
        let newest = VecDeque::new();
        Stretch { wanted, newest, counted: 0, last_code: None, without_number: 0 }
    }

    #[test]
    fn one_frame_in_twenty_may_be_missing() {
        let mut frames = stretch(40);
        let seen = Seen::default();
        for index in 0..40 {
            assert_eq!(frames.judge(seen), Judgement::Open);
            frames.count(index != 7 && index != 20);
        }
        assert_eq!(frames.judge(seen), Judgement::Good);
        frames.miss(3);
        assert_eq!(frames.judge(seen), Judgement::Open, "the next stretch may be good");
    }

    #[test]
    fn a_bad_line_is_bad_after_five_stretches() {
        let mut frames = stretch(20);
        for index in 0..100_u32 {
            let judged = frames.judge(Seen { decoded: u64::from(index) / 2, ..Seen::default() });
            assert_eq!(judged, Judgement::Open, "{index}");
            frames.count(index % 2 == 0);
        }
        let judged = frames.judge(Seen { decoded: 50, ..Seen::default() });
        let reason = "50 of 100 frames decoded, 95 % are needed".to_owned();
        assert_eq!(judged, Judgement::Bad(reason));
    }

    #[test]
    fn a_long_silence_costs_no_more_than_the_stretch() {
        let mut frames = stretch(10);
        frames.count(true);
        frames.miss(u64::MAX);
        assert_eq!((frames.newest.len(), frames.good(), frames.counted), (10, 0, 11));
    }

    #[test]
    fn a_host_that_leaves_most_pictures_out_is_too_slow() {
        let mut frames = stretch(10);
        (0..10).for_each(|_| frames.count(true));
        let seen = |skipped| Seen { decoded: 10, skipped, ..Seen::default() };
        assert_eq!(frames.judge(seen(30)), Judgement::Good);
        assert!(matches!(frames.judge(seen(31)), Judgement::Bad(_)));
    }
}
