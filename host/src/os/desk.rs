//! Carries out what the machine decides: one thread calls the backend, everybody else asks and is answered at once.
//!
//! Whoever asks for something runs the machine under a lock, writes down what it decided, and leaves the work to the
//! thread. The thread does one piece of work at a time, tells the machine what came of it, and lets a second pass for it
//! where it waits for something; an idle desk sleeps. What is written down is written before the work is begun, so a desk
//! that is killed at any moment is one that the next one takes over from.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use tokio::sync::broadcast;

use super::keep::{Keep, MAX_HISTORY, Past};
use super::machine::step;
use super::release::Digest;
use super::state::{Action, Event, Notice, OsState, Phase, Verb, When, World};
use super::upload::{Given, Upload};
use super::{Cancel, OsBackend, OsError, Presence};

/// News that a slow follower may be behind; then it misses the oldest.
const MAX_NEWS: usize = 64;
/// As much work may wait; the machine asks for one thing at a time, and to look.
const MAX_JOBS: usize = 16;

/// Who streams, by the names of their devices. Called from any thread; must not come back to the desk.
pub type Streaming = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// The monotonic clock, and seconds since 1970.
pub type Clocks = Arc<dyn Fn() -> (Timestamp, u64) + Send + Sync>;

/// How the desk is set up.
#[derive(Clone)]
pub struct OsOptions {
    /// What does the work.
    pub backend: Arc<dyn OsBackend>,
    /// Where it is written down.
    pub keep: Arc<dyn Keep>,
    /// What a restart would cut off.
    pub streaming: Streaming,
    /// The clocks.
    pub clocks: Clocks,
    /// How long a restart can be cancelled.
    pub countdown: Duration,
    /// How often something that waits looks again.
    pub tick: Duration,
    /// How often it is looked whether somebody else has changed the system, where somebody else may.
    pub watch: Option<Duration>,
}

impl OsOptions {
    /// A desk with the clocks of this machine, and 30 seconds to cancel a restart.
    pub fn new(backend: Arc<dyn OsBackend>, keep: Arc<dyn Keep>, streaming: Streaming) -> Self {
        Self {
            backend,
            keep,
            streaming,
            clocks: Arc::new(|| (crate::clock::now(), crate::store::unix_now())),
            countdown: Duration::from_secs(30),
            tick: Duration::from_secs(1),
            watch: None,
        }
    }
}

/// What is to be seen of the system.
#[derive(Debug, Clone)]
pub struct OsView {
    /// Whether it is ours.
    pub presence: Presence,
    /// All that is known.
    pub state: OsState,
    /// What a restart would cut off: the names of the devices that stream, and what is done with a backup.
    pub streaming: Vec<String>,
    /// Of the monotonic clock.
    pub at: Timestamp,
}

/// The desk; clones share it. Its thread ends with the last one.
#[derive(Clone)]
pub struct OsDesk {
    worker: Arc<Worker>,
}

struct Worker {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    options: OsOptions,
    inside: Mutex<Inside>,
    wake: Condvar,
    news: broadcast::Sender<Notice>,
}

struct Inside {
    state: OsState,
    /// What was written down last.
    written: OsState,
    history: VecDeque<Past>,
    /// What is to be done, each with what ends it.
    jobs: VecDeque<(Action, Cancel)>,
    /// What somebody brings, until it is taken in.
    given: Option<Given>,
    /// Ends what the thread does.
    cancel: Cancel,
    stopped: bool,
}

impl fmt::Debug for OsDesk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OsDesk").field("backend", &self.options().backend.name()).finish()
    }
}

impl OsDesk {
    /// Takes up what was written down, and asks the backend what there is.
    ///
    /// # Errors
    /// What was written down cannot be read, or no thread can be started.
    pub fn open(options: OsOptions) -> Result<Self, OsError> {
        if matches!(options.backend.presence(), Presence::Absent { .. }) {
            return Ok(Self::around(options, super::Kept::default()));
        }
        let kept = options
            .keep
            .load(options.backend.name())
            .map_err(|error| OsError::Store { detail: error.to_string() })?;
        let desk = Self::around(options, kept);
        desk.worker.shared.lock().jobs.push_back((Action::Look, Cancel::default()));
        let shared = Arc::clone(&desk.worker.shared);
        let thread = std::thread::Builder::new()
            .name("pf-os".to_owned())
            .spawn(move || shared.work())
            .map_err(|error| OsError::Failed {
                doing: "start the thread that looks after updates",
                detail: error.to_string(),
            })?;
        *desk.worker.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(desk)
    }

    /// A desk on a machine that is no appliance: it has no thread and writes nothing down.
    pub fn absent() -> Self {
        Self::without(super::absent::Absent::default())
    }

    /// A desk on a machine whose system this host does not look after, for that reason.
    pub fn without(absent: super::absent::Absent) -> Self {
        let backend = Arc::new(absent);
        let keep = Arc::new(super::MemoryKeep::default());
        Self::around(OsOptions::new(backend, keep, Arc::new(Vec::new)), super::Kept::default())
    }

    fn around(options: OsOptions, kept: super::Kept) -> Self {
        let shared = Shared {
            options,
            inside: Mutex::new(Inside {
                written: kept.state.clone(),
                state: kept.state,
                history: kept.history.into(),
                jobs: VecDeque::new(),
                given: None,
                cancel: Cancel::default(),
                stopped: false,
            }),
            wake: Condvar::new(),
            news: broadcast::Sender::new(MAX_NEWS),
        };
        Self { worker: Arc::new(Worker { shared: Arc::new(shared), thread: Mutex::new(None) }) }
    }

    /// What is to be seen now.
    pub fn view(&self) -> OsView {
        let options = self.options();
        self.worker.shared.look_again();
        let streaming = (options.streaming)();
        let (at, _) = (options.clocks)();
        let state = self.worker.shared.lock().state.clone();
        OsView { presence: options.backend.presence(), state, streaming, at }
    }

    /// Whether the system is ours.
    pub fn presence(&self) -> Presence {
        self.options().backend.presence()
    }

    /// What the owner ought to know of the system, in sentences, as it was seen last.
    pub fn remarks(&self) -> Vec<String> {
        let inside = self.worker.shared.lock();
        let inventory = inside.state.inventory.as_ref();
        inventory.map(|inventory| inventory.remarks.clone()).unwrap_or_default()
    }

    /// What happened, oldest first.
    pub fn history(&self) -> Vec<Past> {
        self.worker.shared.lock().history.iter().cloned().collect()
    }

    /// News from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Notice> {
        self.worker.shared.news.subscribe()
    }

    /// Has the thread look again at what there is: something has happened that the desk did not do.
    pub fn look(&self) {
        let shared = &self.worker.shared;
        shared.set_about(&mut shared.lock(), Action::Look);
        shared.wake.notify_all();
    }

    /// Asks for something. What takes time is begun when this returns, and [`Self::view`] says how it goes. May block for
    /// as long as the disk takes to write a line.
    ///
    /// # Errors
    /// It is refused; nothing has changed.
    pub fn ask(&self, verb: Verb) -> Result<OsView, OsError> {
        if let Presence::Absent { reason } = self.options().backend.presence() {
            return Err(OsError::NotAnAppliance { reason });
        }
        self.worker.shared.happen(Event::Asked(verb))?;
        Ok(self.view())
    }

    /// Begins to take in what somebody brings in a file, of this length if that was said. May block as [`Self::ask`] may.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn import(&self, total_bytes: Option<u64>) -> Result<Upload, OsError> {
        let verb = Verb::Import { total_bytes };
        if let Presence::Absent { .. } = self.options().backend.presence() {
            return Err(self.ask(verb).err().unwrap_or(OsError::NotReady));
        }
        let failed = |error: std::io::Error| OsError::Failed {
            doing: "make a pipe for what is brought",
            detail: error.to_string(),
        };
        let (upload, given) = Upload::new().map_err(failed)?;
        self.worker.shared.happen_with(Event::Asked(verb), Some(given))?;
        Ok(upload)
    }

    /// So much has come of what is being taken in, in bytes. May block as [`Self::ask`] may.
    pub fn has_come(&self, done_bytes: u64) {
        // What is not asked for is not refused, and a desk that is stopped tells nobody.
        let _ = self.worker.shared.happen(Event::Progress { done_bytes });
    }

    /// Applies what is staged; see [`Self::ask`].
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn apply(&self, when: When, insist: bool) -> Result<OsView, OsError> {
        self.ask(Verb::Apply { when, insist })
    }

    /// Goes back; see [`Self::ask`].
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn rollback(
        &self,
        digest: Option<Digest>,
        when: When,
        insist: bool,
    ) -> Result<OsView, OsError> {
        self.ask(Verb::Rollback { digest, when, insist, proven: false })
    }

    fn options(&self) -> &OsOptions {
        &self.worker.shared.options
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        {
            let mut inside = self.shared.lock();
            inside.stopped = true;
            inside.cancel.cancel();
        }
        self.shared.wake.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the thread that looks after updates panicked");
        }
    }
}

impl Shared {
    /// Runs the machine: decides, writes down, and only then sets about doing it.
    fn happen(&self, event: Event) -> Result<(), OsError> {
        self.happen_with(event, None)
    }

    /// The same, with what somebody brings.
    fn happen_with(&self, event: Event, given: Option<Given>) -> Result<(), OsError> {
        // Before the lock: whoever says it may take its time.
        let streaming = match event {
            Event::Progress { .. } => Vec::new(),
            _ => (self.options.streaming)(),
        };
        let (at, unix) = (self.options.clocks)();
        let countdown = self.options.countdown;
        let world = World { at, unix, streaming: &streaming, countdown };
        let asked = matches!(event, Event::Asked(_));
        let mut inside = self.lock();
        if inside.stopped {
            // As if power had been lost: what is not written down did not happen.
            return Err(OsError::Stopped);
        }
        let (state, actions) = step(inside.state.clone(), event, &world);
        let refused = actions.iter().find_map(|action| match action {
            Action::Refuse(error) => Some(error.clone()),
            _ => None,
        });
        if let Some(error) = refused {
            return Err(error);
        }
        let news: Vec<Past> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Record(entry) => Some(Past { at: unix, entry: entry.clone() }),
                _ => None,
            })
            .collect();
        if let Err(error) = self.write(&mut inside, &state, &news) {
            if asked {
                return Err(error);
            }
            // What the backend has done is done. It is asked again after a start.
            tracing::warn!(%error, "what happened to an update could not be written down");
        }
        inside.state = state;
        inside.given = given.or(inside.given.take());
        inside.history.extend(news);
        while inside.history.len() > MAX_HISTORY as usize {
            inside.history.pop_front();
        }
        for action in actions {
            self.set_about(&mut inside, action);
        }
        // There may be work, or something that waits for time to pass: the thread sees for itself.
        self.wake.notify_all();
        Ok(())
    }

    fn write(&self, inside: &mut Inside, state: &OsState, news: &[Past]) -> Result<(), OsError> {
        let lasting = lasting(state.clone());
        if lasting == inside.written && news.is_empty() {
            return Ok(());
        }
        let failed = |error: super::KeepError| OsError::Store { detail: error.to_string() };
        let backend = self.options.backend.name();
        self.options.keep.save(backend, &lasting, news).map_err(failed)?;
        inside.written = lasting;
        Ok(())
    }

    fn set_about(&self, inside: &mut Inside, action: Action) {
        match action {
            Action::Announce(notice) => {
                // Nobody may be listening.
                let _ = self.news.send(notice);
            }
            Action::StopDownload => {
                // The one that runs, or one that is just about to: at most one job is a download.
                inside.cancel.cancel();
                inside.jobs.iter().for_each(|(_, cancel)| cancel.cancel());
            }
            Action::Record(_) | Action::Refuse(_) => {}
            job => {
                let looks_already =
                    job == Action::Look && inside.jobs.iter().any(|(other, _)| *other == job);
                if looks_already || inside.jobs.len() >= MAX_JOBS {
                    return;
                }
                let given = inside.given.as_ref().filter(|_| job == Action::Import);
                let cancel = given.map(|given| given.cancel.clone()).unwrap_or_default();
                inside.jobs.push_back((job, cancel));
            }
        }
    }

    /// Looks again, if somebody else has changed something; what is seen is told a moment later.
    fn look_again(&self) {
        if self.options.backend.is_stale() {
            self.set_about(&mut self.lock(), Action::Look);
            self.wake.notify_all();
        }
    }

    /// The thread.
    fn work(&self) {
        while let Some(next) = self.next() {
            let event = match next {
                Next::Tick => Event::Tick,
                Next::Watch => {
                    self.look_again();
                    continue;
                }
                Next::Job(Action::Import, cancel) => {
                    self.take_in(&cancel);
                    continue;
                }
                Next::Job(job, cancel) => match self.carry_out(job, &cancel) {
                    Some(event) => event,
                    None => continue,
                },
            };
            // Only what the owner asks is refused, and a stop is seen at the next turn.
            let _ = self.happen(event);
        }
    }

    fn next(&self) -> Option<Next> {
        let mut inside = self.lock();
        loop {
            if inside.stopped {
                return None;
            }
            if let Some((job, cancel)) = inside.jobs.pop_front() {
                inside.cancel = cancel.clone();
                return Some(Next::Job(job, cancel));
            }
            let (period, then) = match self.options.watch {
                _ if inside.state.wants_ticks() => (self.options.tick, Next::Tick),
                Some(watch) => (watch, Next::Watch),
                None => {
                    inside = self.wake.wait(inside).unwrap_or_else(PoisonError::into_inner);
                    continue;
                }
            };
            let waited = self.wake.wait_timeout(inside, period);
            let timeout;
            (inside, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() && inside.jobs.is_empty() && !inside.stopped {
                return Some(then);
            }
        }
    }

    fn carry_out(&self, job: Action, cancel: &Cancel) -> Option<Event> {
        let backend = &self.options.backend;
        Some(match job {
            Action::Check => Event::Checked(backend.check(cancel)),
            Action::Download { release, insist } => {
                let mut progress = |done_bytes| {
                    let _ = self.happen(Event::Progress { done_bytes });
                };
                let done = backend.download(&release, insist, &mut progress, cancel);
                Event::Downloaded(done.and_then(|()| backend.inventory()))
            }
            Action::Stage { release, insist } => {
                let done = backend.stage(&release, insist, cancel);
                Event::Staged(done.and_then(|()| backend.inventory()))
            }
            Action::Pin(digest, pinned) => {
                Event::Pinned(backend.pin(digest, pinned).and_then(|()| backend.inventory()))
            }
            Action::Arrange { digest, insist } => {
                Event::Arranged { digest, result: backend.arrange_boot(digest, insist) }
            }
            Action::Follow(channel) => {
                Event::Followed(backend.follow(channel).and_then(|()| backend.inventory()))
            }
            Action::Reboot => Event::Restarted(backend.reboot(cancel)),
            Action::Look => Event::Seen(backend.inventory()),
            Action::Import
            | Action::StopDownload
            | Action::Record(_)
            | Action::Announce(_)
            | Action::Refuse(_) => return None,
        })
    }

    /// Takes in what somebody brings, and tells them what came of it when everybody can see it.
    fn take_in(&self, cancel: &Cancel) {
        let given = self.lock().given.take();
        // A desk that was killed meanwhile has nothing, and says so when it begins.
        let Some(Given { pipe, told, .. }) = given else { return };
        let found = self.options.backend.import(pipe, cancel).map_err(|error| match error {
            OsError::Stopped => OsError::Incomplete { detail: "it was stopped".to_owned() },
            OsError::Unreachable { detail } => OsError::Incomplete { detail },
            error => error,
        });
        let answer = found.as_ref().map(drop).map_err(Clone::clone);
        let _ = self.happen(Event::Imported(found));
        // Whoever brought it may be gone.
        let _ = told.send(answer);
    }

    // A step replaces the state as a whole: a panic elsewhere leaves it as it was.
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Next {
    Tick,
    Watch,
    Job(Action, Cancel),
}

/// The state without what is not written down, so that a download's progress or a clock writes nothing.
fn lasting(mut state: OsState) -> OsState {
    state.inventory = None;
    match &mut state.phase {
        Phase::Downloading { done_bytes, .. } | Phase::Importing { done_bytes, .. } => {
            *done_bytes = 0;
        }
        Phase::Countdown { ends_at, .. } => *ends_at = Timestamp::default(),
        Phase::Rebooting { since, .. } => *since = Timestamp::default(),
        _ => {}
    }
    state
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::simulated::{Disk, Pace, Simulated, demonstration};
    use crate::os::{KeepError, Kept};

    /// A disk on which nothing can be written.
    struct FullDisk;

    impl Keep for FullDisk {
        fn load(&self, _backend: &str) -> Result<Kept, KeepError> {
            Ok(Kept::default())
        }

        fn save(&self, _: &str, _: &OsState, _: &[Past]) -> Result<(), KeepError> {
            Err(KeepError("the disk is full".to_owned()))
        }
    }

    #[test]
    fn what_cannot_be_written_down_is_not_begun() {
        let save = Box::new(|_: &Disk| Ok(()));
        let backend = Simulated::new(Disk::default(), demonstration(), Pace::INSTANT, save);
        let (backend, keep) = (Arc::new(backend), Arc::new(FullDisk));
        let desk = OsDesk::open(OsOptions::new(backend, keep, Arc::new(Vec::new))).unwrap();
        let mut news = desk.subscribe();
        while desk.view().state.inventory.is_none() {
            // Whoever looks before the news comes is woken by it.
            let _ = news.blocking_recv();
        }
        let error = desk.ask(Verb::Check).unwrap_err();
        assert_eq!(error.code(), "store");
        assert!(error.to_string().contains("the disk is full"), "{error}");
        assert_eq!(desk.view().state.phase, Phase::Idle);
        assert!(desk.history().is_empty());
    }

    #[test]
    fn a_desk_that_is_no_appliance_has_no_thread() {
        let desk = OsDesk::absent();
        assert!(desk.worker.thread.lock().unwrap().is_none());
        let error = desk.ask(Verb::Dismiss).unwrap_err();
        assert_eq!(error.code(), "unavailable");
    }
}
