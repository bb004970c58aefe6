//! The live figures of one session, told once a second to whoever follows.
//!
//! The session's thread computes them, once for all followers and not at all while there are none; each follower gets
//! the same shared copy, and one that is slow misses a second instead of holding anybody up. The last word is why the
//! session ended. Nothing here is on the line of a frame: what is counted are the traces that the line leaves behind.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use punktfunk_core::media::FrameTrace;
use punktfunk_core::time::Timestamp;
use tokio::sync::watch;

use super::figures::{Figures, Window};
use crate::stream::{Counts, EndReason};

/// How often they are told, and the shorter of the two windows.
pub(super) const BEAT: Duration = Duration::from_secs(1);

/// The longer of the two windows.
const RECENTLY: Duration = Duration::from_secs(10);

/// How a session is doing.
#[derive(Debug, Clone, Default)]
pub struct LiveFigures {
    /// A stream is prepared or running.
    pub streaming: bool,
    /// The last second.
    pub second: Figures,
    /// The last ten seconds, or as many as the stream is old.
    pub recent: Figures,
    /// What the client says, since the stream began; of the last stream if none runs.
    pub counts: Counts,
    /// Why the session ended, if it has; nothing follows this.
    pub ended: Option<EndReason>,
}

/// Where live figures are read.
pub type Follower = watch::Receiver<Arc<LiveFigures>>;

/// Where a session's thread puts them.
#[derive(Debug, Clone)]
pub(super) struct Pulse {
    sender: watch::Sender<Arc<LiveFigures>>,
}

impl Pulse {
    pub(super) fn new() -> Self {
        Self { sender: watch::Sender::new(Arc::default()) }
    }

    pub(super) fn follow(&self) -> Follower {
        self.sender.subscribe()
    }

    /// Whether anybody wants to know.
    pub(super) fn is_followed(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Tells how the session is doing now; the stream began at `began`.
    pub(super) fn tell(
        &self,
        traces: &VecDeque<FrameTrace>,
        now: Timestamp,
        began: Timestamp,
        (streaming, counts): (bool, Counts),
    ) {
        // The newest lie at the end; a second more than the window, because they lie there by when they were told.
        let oldest = now - (RECENTLY + BEAT);
        let newest = traces.iter().rev().take_while(|trace| trace.captured_at >= oldest);
        let newest: Vec<FrameTrace> = newest.copied().collect();
        let figures = |length| Figures::of(&newest, Window::before(now, length, began));
        let (second, recent) = (figures(BEAT), figures(RECENTLY));
        let live = LiveFigures { streaming, second, recent, counts, ended: None };
        self.sender.send_replace(Arc::new(live));
    }

    /// Says why the session ended, unless that was said before.
    pub(super) fn end(&self, reason: &EndReason) {
        self.sender.send_if_modified(|live| {
            let is_news = live.ended.is_none();
            if is_news {
                let ended = Some(reason.clone());
                *live =
                    Arc::new(LiveFigures { streaming: false, ended, ..LiveFigures::clone(live) });
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests {
    use punktfunk_core::media::{DropReason, FrameFate, SourceIndex};

    use super::*;

    fn dropped(second: u64) -> FrameTrace {
        FrameTrace {
            source: SourceIndex(second),
            captured_at: Timestamp::from_micros(second * 1_000_000),
            repeated: false,
            fate: FrameFate::Dropped(DropReason::Superseded),
        }
    }

    #[test]
    fn followers_get_both_windows_and_then_the_end_once() {
        let pulse = Pulse::new();
        assert!(!pulse.is_followed());
        let mut follower = pulse.follow();
        assert!(pulse.is_followed());
        let traces: VecDeque<_> = (0..60).map(dropped).collect();
        let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
        pulse.tell(&traces, at(60), at(0), (true, Counts::default()));
        assert!(follower.has_changed().unwrap());
        let live = follower.borrow_and_update().clone();
        assert_eq!((live.second.tally.superseded, live.recent.tally.superseded), (1, 10));
        pulse.tell(&traces, at(60), at(57), (true, Counts::default()));
        assert_eq!(follower.borrow_and_update().recent.tally.superseded, 3);
        pulse.end(&EndReason::AppExited);
        pulse.end(&EndReason::Quit);
        assert_eq!(follower.borrow_and_update().ended, Some(EndReason::AppExited));
    }
}
