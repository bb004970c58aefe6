//! What the threads of one stream share: their mailboxes, and how it ends.
//!
//! The first reason wins. Ending closes every mailbox at once, and each thread leaves at the one place where it waits;
//! the last to leave calls `on_end`, after all of them have given back what they owned.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use punktfunk_core::media::{
    AccessUnit, DropReason, FrameFate, FrameIndex, FrameTrace, SourceIndex,
};
use punktfunk_core::time::Timestamp;

use super::counts::Counters;
use super::mailbox::Mailbox;
use super::{EndReason, Peer};
use crate::capture::CapturedFrame;

/// How many access units may be between encoder and socket.
pub(super) const CREDITS: usize = 2;

/// The threads of a stream.
const THREADS: usize = 4;

/// Called once, when the last thread has left.
pub(super) type OnEnd = Box<dyn FnOnce(EndReason) + Send>;

/// What the threads of one stream share.
pub(super) struct Links {
    /// Read by the two threads that wait on a device, between two waits.
    pub(super) ended: AtomicBool,
    pub(super) encode: Mailbox<EncodeInbox>,
    pub(super) send: Mailbox<SendInbox>,
    pub(super) audio: Mailbox<AudioInbox>,
    pub(super) counters: Counters,
    traces: SyncSender<FrameTrace>,
    reason: OnceLock<EndReason>,
    on_end: Mutex<Option<OnEnd>>,
    alive: AtomicUsize,
}

/// What `pf-encode` waits for.
#[derive(Debug)]
pub(super) struct EncodeInbox {
    /// The newest picture that nobody encoded yet.
    pub(super) frame: Option<CapturedFrame>,
    /// It lies there because of the frame rate, not because the encoder or the socket is busy.
    pub(super) held_by_rate: bool,
    /// A picture was replaced while it lay there because of the rate.
    pub(super) passed_over: bool,
    /// How many access units the sending thread has room for.
    pub(super) credits: usize,
    /// Memory of sent access units; never more than [`CREDITS`].
    pub(super) returned: Vec<Vec<u8>>,
    pub(super) idr_wanted: bool,
    /// The first and last frame a client lost since the encoder was last told.
    pub(super) lost: Option<(FrameIndex, FrameIndex)>,
    pub(super) closed: bool,
}

/// What `pf-send` waits for, beside the time of the next departure.
#[derive(Debug)]
pub(super) struct SendInbox {
    /// At most [`CREDITS`] units.
    pub(super) units: VecDeque<AccessUnit>,
    pub(super) new_peer: Option<Peer>,
    pub(super) closed: bool,
}

/// What `pf-audio` looks at between two periods.
#[derive(Debug)]
pub(super) struct AudioInbox {
    pub(super) peer: Option<Peer>,
}

impl Links {
    pub(super) fn new(
        traces: SyncSender<FrameTrace>,
        on_end: OnEnd,
        audio_peer: Option<Peer>,
    ) -> Self {
        Self {
            ended: AtomicBool::new(false),
            encode: Mailbox::new(EncodeInbox {
                frame: None,
                held_by_rate: false,
                passed_over: false,
                credits: CREDITS,
                returned: Vec::with_capacity(CREDITS),
                idr_wanted: false,
                lost: None,
                closed: false,
            }),
            send: Mailbox::new(SendInbox {
                units: VecDeque::with_capacity(CREDITS),
                new_peer: None,
                closed: false,
            }),
            audio: Mailbox::new(AudioInbox { peer: audio_peer }),
            counters: Counters::default(),
            traces,
            reason: OnceLock::new(),
            on_end: Mutex::new(Some(on_end)),
            alive: AtomicUsize::new(THREADS),
        }
    }

    /// Begins the end, unless it has begun: the first reason stays.
    pub(super) fn end(&self, reason: EndReason) {
        if self.reason.set(reason).is_err() {
            return;
        }
        self.ended.store(true, Ordering::Release);
        self.encode.post(|inbox| inbox.closed = true);
        self.send.post(|inbox| inbox.closed = true);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn trace(&self, trace: FrameTrace) {
        // A full channel loses traces and never a frame.
        let _ = self.traces.try_send(trace);
    }

    pub(super) fn trace_dropped(&self, picture: Dropped, reason: DropReason) {
        let Dropped { source, captured_at, repeated } = picture;
        self.trace(FrameTrace { source, captured_at, repeated, fate: FrameFate::Dropped(reason) });
    }

    /// The sending thread is done with an access unit: the encoder may make another, in the same memory.
    pub(super) fn give_back(&self, bytes: Vec<u8>) {
        self.encode.post(|inbox| {
            inbox.credits += 1;
            inbox.returned.push(bytes);
        });
    }

    /// What still lies in the closed mailboxes will not be sent; also where the thread that would have taken it panicked.
    fn trace_leftovers(&self) {
        if let Some(frame) = self.encode.look(|inbox| inbox.frame.take()) {
            self.trace_dropped(Dropped::from(&frame), DropReason::StreamEnded);
        }
        for unit in self.send.look(|inbox| std::mem::take(&mut inbox.units)) {
            self.trace_dropped(Dropped::from(&unit), DropReason::StreamEnded);
        }
    }

    fn leave(&self) {
        if self.alive.fetch_sub(1, Ordering::AcqRel) > 1 {
            return;
        }
        self.trace_leftovers();
        let on_end = self.on_end.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(on_end) = on_end {
            let reason = self.reason.get().cloned();
            on_end(
                reason.unwrap_or_else(|| EndReason::Bug("the threads ended by themselves".into())),
            );
        }
    }
}

/// What a trace says of a picture that was dropped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dropped {
    pub(super) source: SourceIndex,
    pub(super) captured_at: Timestamp,
    pub(super) repeated: bool,
}

impl From<&CapturedFrame> for Dropped {
    fn from(frame: &CapturedFrame) -> Self {
        Self { source: frame.index, captured_at: frame.captured_at, repeated: false }
    }
}

impl From<&AccessUnit> for Dropped {
    fn from(unit: &AccessUnit) -> Self {
        Self { source: unit.source, captured_at: unit.captured_at, repeated: unit.repeated }
    }
}

/// Starts one thread of a stream. A panic in it ends the stream and nothing else.
pub(super) fn spawn(
    name: &'static str,
    links: &Arc<Links>,
    body: impl FnOnce(&Links) + Send + 'static,
) -> Option<JoinHandle<()>> {
    let departure = Departure(Arc::clone(links));
    let session = tracing::Span::current();
    let run = move || {
        let links = &departure.0;
        let _session = session.entered();
        let _stage = tracing::info_span!("stage", thread = name).entered();
        // What the body owns is dropped in here, before the departure is counted.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| body(links))) {
            let message = panic_message(panic.as_ref());
            tracing::error!(thread = name, message, "a stream thread panicked");
            links.end(EndReason::Bug(format!("{name} panicked: {message}")));
        }
        tracing::debug!("thread ends");
    };
    match std::thread::Builder::new().name(name.to_owned()).spawn(run) {
        Ok(thread) => Some(thread),
        Err(error) => {
            links.end(EndReason::Bug(format!("{name} could not be started: {error}")));
            None
        }
    }
}

/// Counts a thread out when it goes, also when it could not even be started.
struct Departure(Arc<Links>);

impl Drop for Departure {
    fn drop(&mut self) {
        self.0.leave();
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
