//! One thing at a time: who asks while something is being done is told what, unless it is the same and whoever asked for
//! it is gone. Then they wait for the same answer, as a daemon does that was started anew.
//!
//! An archive that has not shown yet that it is signed holds up none that root brings: it is ended, and root's is next.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use zbus::names::{BusName, OwnedUniqueName};
use zbus::object_server::SignalEmitter;

use super::os1::Os1;
use super::worker::{Answer, Job, Order, Worker};
use crate::error::UpdateError;
use crate::name::Commit;
use crate::transport::Cancel;

/// Progress is told no more often.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// What is done and for whom.
pub(super) struct Desk {
    worker: Worker,
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    /// Which verb of what, which is all that a question says.
    what: What,
    /// Who waits for the answer.
    asker: OwnedUniqueName,
    cancel: Cancel,
    answer: watch::Receiver<Option<Answer>>,
}

/// A question: the verb, and what it is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct What {
    pub(super) verb: &'static str,
    pub(super) of: String,
}

/// How far something is.
type Step = Option<(Commit, u64, u64)>;

/// What a question comes to.
enum Turn {
    /// It is being done now, for whoever asked.
    Begun(watch::Receiver<Option<Answer>>, watch::Receiver<Step>),
    /// Somebody else has asked the same.
    Same(OwnedUniqueName, watch::Receiver<Option<Answer>>),
}

impl Desk {
    pub(super) fn new(worker: Worker) -> Self {
        Self { worker, running: Arc::default() }
    }

    /// What an engine does before anything else.
    pub(super) async fn begin(&self) {
        let (done, mut answer) = watch::channel(None);
        let done = Box::new(move |said| drop(done.send_replace(Some(said))));
        let progress = Box::new(|_, _, _| {});
        self.worker.give(Order { job: Job::Begin, cancel: Cancel::default(), progress, done });
        let _ = wait(&mut answer).await;
    }

    /// Has something done, and waits until it is.
    pub(super) async fn ask(
        &self,
        what: What,
        job: Job,
        asker: OwnedUniqueName,
        emitter: &SignalEmitter<'_>,
    ) -> Answer {
        match self.turn(what, job, &asker)? {
            Turn::Begun(mut answer, steps) => follow(&mut answer, steps, emitter).await,
            Turn::Same(other, mut answer) => {
                if other == asker || is_there(emitter, &other).await {
                    return Err(self.busy());
                }
                // They wait for it now, and whoever asks next is told so.
                if let Some(running) = self.lock().as_mut().filter(|one| one.asker == other) {
                    running.asker = asker;
                }
                wait(&mut answer).await
            }
        }
    }

    /// Stops what is being done, if something is.
    pub(super) fn stop(&self) {
        if let Some(running) = self.lock().as_ref() {
            running.cancel.cancel();
        }
    }

    fn turn(&self, what: What, job: Job, asker: &OwnedUniqueName) -> Result<Turn, UpdateError> {
        let mut running = self.lock();
        let is_of_root = matches!(job, Job::Import { is_stick: true, .. });
        if let Some(one) = running.as_ref()
            && !(is_of_root && one.cancel.displace())
        {
            if one.what != what {
                return Err(UpdateError::Busy { doing: one.what.verb.to_owned() });
            }
            return Ok(Turn::Same(one.asker.clone(), one.answer.clone()));
        }
        let cancel = match job {
            Job::Import { is_stick: false, .. } => Cancel::yielding(),
            _ => Cancel::default(),
        };
        let (answered, answer) = watch::channel(None);
        let (stepped, steps) = watch::channel(None);
        let asker = asker.clone();
        *running = Some(Running { what, asker, cancel: cancel.clone(), answer: answer.clone() });
        drop(running);
        let (place, own) = (Arc::clone(&self.running), answer.clone());
        let done = move |said| {
            // First: who has the answer may ask for the next thing at once. What was displaced has no place any more.
            let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = place.take_if(|one| one.answer.same_channel(&own));
            drop(place);
            answered.send_replace(Some(said));
        };
        let progress = move |commit, done, total| {
            stepped.send_replace(Some((commit, done, total)));
        };
        let (progress, done) = (Box::new(progress), Box::new(done));
        self.worker.give(Order { job, cancel, progress, done });
        Ok(Turn::Begun(answer, steps))
    }

    fn busy(&self) -> UpdateError {
        let doing = self.lock().as_ref().map_or("something", |running| running.what.verb);
        UpdateError::Busy { doing: doing.to_owned() }
    }

    // What lies behind the lock is whole between statements.
    fn lock(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells how far it is until there is an answer; the last that is to be told is told before it.
async fn follow(
    answer: &mut watch::Receiver<Option<Answer>>,
    mut steps: watch::Receiver<Step>,
    emitter: &SignalEmitter<'_>,
) -> Answer {
    let mut told = None;
    let mut next = Instant::now();
    let mut more = true;
    let said = loop {
        let step = async {
            sleep_until(next).await;
            steps.changed().await
        };
        tokio::select! {
            said = wait(answer) => break said,
            stepped = step, if more => more = stepped.is_ok(),
        }
        let step = *steps.borrow();
        tell(&mut told, step, emitter).await;
        next = Instant::now() + PROGRESS_EVERY;
    };
    let step = *steps.borrow();
    tell(&mut told, step, emitter).await;
    said
}

/// Tells what was not told yet.
async fn tell(told: &mut Step, step: Step, emitter: &SignalEmitter<'_>) {
    let Some((commit, done, total)) = step.filter(|_| *told != step) else { return };
    *told = step;
    // Nobody need listen.
    let _ = Os1::progress(emitter, &commit.to_string(), done, total).await;
}

async fn wait(answer: &mut watch::Receiver<Option<Answer>>) -> Answer {
    let said = answer.wait_for(Option::is_some).await.map(|said| said.clone());
    let ended = || UpdateError::failed("do it", "the engine has ended");
    said.ok().flatten().unwrap_or_else(|| Err(ended()))
}

/// Whether somebody is still on the bus; nobody who cannot be asked for is gone.
async fn is_there(emitter: &SignalEmitter<'_>, name: &OwnedUniqueName) -> bool {
    let Ok(bus) = zbus::fdo::DBusProxy::new(emitter.connection()).await else { return true };
    bus.name_has_owner(BusName::from(name.as_ref())).await.unwrap_or(true)
}
