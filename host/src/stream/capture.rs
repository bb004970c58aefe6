//! `pf-capture`: takes pictures from the source and lays them where the encoder finds the newest.

use std::time::Duration;

use punktfunk_core::media::DropReason;

use super::EndReason;
use super::links::{Dropped, EncodeInbox, Links};
use crate::capture::{CapturedFrame, FrameSource};

/// How long the source may wait for a picture before the thread looks whether the stream has ended.
const LOOK_UP: Duration = Duration::from_millis(50);

pub(super) fn run(links: &Links, mut source: Box<dyn FrameSource>) {
    while !links.has_ended() {
        match source.next_frame(LOOK_UP) {
            Ok(Some(frame)) => {
                if let Some((dropped, reason)) = links.encode.post(|inbox| offer(inbox, frame)) {
                    links.trace_dropped(Dropped::from(&dropped), reason);
                }
            }
            Ok(None) => {}
            Err(error) => return links.end(EndReason::DisplayLost(error.to_string())),
        }
    }
}

/// Lays a picture into the slot; returns the picture that has to go for it, if any.
fn offer(inbox: &mut EncodeInbox, frame: CapturedFrame) -> Option<(CapturedFrame, DropReason)> {
    if inbox.closed {
        return Some((frame, DropReason::StreamEnded));
    }
    let reason = if inbox.held_by_rate { DropReason::OverRate } else { DropReason::Superseded };
    let older = inbox.frame.replace(frame)?;
    inbox.passed_over |= inbox.held_by_rate;
    Some((older, reason))
}
