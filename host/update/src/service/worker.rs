//! The thread of the engine: what it is given it does, one thing after the other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use crate::engine::Engine;
use crate::error::UpdateError;
use crate::name::{Channel, Commit};
use crate::transport::Cancel;

/// What came of something: what is told to whoever asked, if anything is.
pub(super) type Answer = Result<String, UpdateError>;

/// What can be done.
#[derive(Debug)]
pub(super) enum Job {
    Begin,
    Check,
    Download { commit: Commit, insist: bool },
    Stage { commit: Commit, insist: bool },
    Apply { commit: Commit, insist: bool },
    Pin { commit: Commit, pinned: bool },
    Follow(Channel),
    Import { from: OwnedFd, is_stick: bool },
}

/// Something to do, and who is told what of it.
pub(super) struct Order {
    pub(super) job: Job,
    pub(super) cancel: Cancel,
    /// Told of a commit how much is there and how much it will be, in bytes.
    pub(super) progress: Box<dyn FnMut(Commit, u64, u64) + Send>,
    pub(super) done: Box<dyn FnOnce(Answer) + Send>,
}

/// The thread. Dropping it waits for what it does.
pub(super) struct Worker {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    pub(super) fn start(mut engine: Engine) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = thread::Builder::new().name("updates".to_owned()).spawn(move || {
            for Order { job, cancel, mut progress, done } in inbox {
                done(take(&mut engine, job, &cancel, &mut *progress));
            }
        })?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    /// Has something done. What cannot be, because the thread is gone, is told so.
    pub(super) fn give(&self, order: Order) {
        let Some(orders) = &self.orders else { return };
        if let Err(mpsc::SendError(order)) = orders.send(order) {
            (order.done)(Err(UpdateError::failed("do it", "the engine has ended")));
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.orders = None;
        // A panic of it was told by the thread itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn take(
    engine: &mut Engine,
    job: Job,
    cancel: &Cancel,
    progress: &mut dyn FnMut(Commit, u64, u64),
) -> Answer {
    let nothing = |()| String::new();
    match job {
        Job::Begin => {
            engine.begin();
            Ok(String::new())
        }
        Job::Check => engine.check(cancel).and_then(|offers| json(&offers)),
        Job::Download { commit, insist } => {
            let mut note = |done, total| progress(commit, done, total);
            engine.download(commit, insist, &mut note, cancel).map(nothing)
        }
        Job::Stage { commit, insist } => engine.stage(commit, insist, cancel).map(nothing),
        Job::Apply { commit, insist } => engine.apply(commit, insist).map(nothing),
        Job::Pin { commit, pinned } => engine.pin(commit, pinned).map(nothing),
        Job::Follow(channel) => engine.follow(channel).map(nothing),
        Job::Import { from, is_stick } => {
            let offers = engine.import_archive(from, cancel);
            if is_stick {
                engine.tell_of_stick(offers.as_ref().err());
            }
            offers.and_then(|offers| json(&offers))
        }
    }
}

fn json(offers: &[crate::engine::Offer]) -> Answer {
    serde_json::to_string(offers).map_err(|error| UpdateError::failed("say what may be had", error))
}
