//! How far the host is: the doors open first and say so, while the rest is still being put together.
//!
//! The console must come up even when streaming cannot, because the box has no other face. So the routes do not hold the
//! rooms; they ask here for them, and are answered 503 with the step, or with the reason why there are none. What the
//! owner mends a host with ([`Basics`]) needs no room, and answers from when the doors are open.
//!
//! Why a host could not start is told twice: in a few words to everybody, because strangers ask too, and whole to whoever
//! may look.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use tokio::sync::watch;

use super::MgmtHandles;
use super::feed::Feed;
use super::guard::{Credentials, Nobody};
use super::local_name::LocalName;
use super::problem::Problem;
use super::problems::Problems;
use super::wire::StatusReport;
use crate::access::Access;
use crate::backup::Backups;
use crate::config::ConfigDesk;
use crate::health::child::Examiner;
use crate::logbook::Logbook;
use crate::machine::storage::Folder;
use crate::os::{OsDesk, Power};
use crate::store::Store;

/// How far the host is; clones share it.
#[derive(Clone)]
pub struct Startup {
    state: Arc<Mutex<State>>,
    steps: &'static [&'static str],
    about: Arc<About>,
    changes: watch::Sender<()>,
    feed: Arc<Feed>,
    access: Option<Access>,
    basics: Option<Basics>,
    always: Always,
}

/// What is known of the host before anything else is.
#[derive(Clone)]
pub struct About {
    /// The name that clients show.
    pub name: String,
    /// The fingerprint of the console's certificate, as people compare it.
    pub fingerprint: Option<String>,
    /// Whether it has an owner, and who may come in.
    pub credentials: Arc<dyn Credentials>,
}

impl Default for About {
    fn default() -> Self {
        Self { name: String::new(), fingerprint: None, credentials: Arc::new(Nobody::default()) }
    }
}

/// What can be asked for from when the doors are open, and also when the host could not be put together.
#[derive(Debug, Clone, Default)]
pub struct Always {
    /// What was logged last.
    pub logbook: Logbook,
    /// The settings as they hold, a line each.
    pub settings: Arc<str>,
    /// The folders that the product writes to.
    pub folders: Vec<Folder>,
    /// The name under which this host is found without a name server, once it is.
    pub local_name: LocalName,
    /// What is wrong.
    pub problems: Problems,
    /// The machine is a punktfunk box.
    pub appliance: bool,
}

/// The rooms that need no other: what the owner mends a host with that could not be put together.
#[derive(Clone)]
pub struct Basics {
    /// What the owner sets in the console.
    pub settings: ConfigDesk,
    /// Makes the doctor's checks.
    pub examiner: Examiner,
    /// Updates of the system.
    pub os: OsDesk,
    /// The machine's switch.
    pub power: Arc<dyn Power>,
    /// What the host remembers, if it can be read.
    pub store: Option<Store>,
    /// Makes and restores backups of it.
    pub backups: Option<Backups>,
}

/// Why the host could not be put together.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{whole}")]
pub struct Failure {
    /// What everybody may know: without a path, an address or a name.
    pub plain: &'static str,
    /// What the owner is told: why, and what to do.
    pub whole: String,
}

/// How far the host is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stage {
    /// It is being put together.
    Starting {
        /// The step that is being done, from 1.
        step: usize,
        /// As many there are.
        count: usize,
        /// What is being done.
        doing: &'static str,
    },
    /// All is there.
    Ready,
    /// It could not be put together.
    Failed {
        /// Why, as far as everybody may know.
        reason: &'static str,
    },
}

enum State {
    Starting(usize),
    Ready(Box<MgmtHandles>),
    Failed(Failure),
}

impl Startup {
    /// A start of these steps, none of which is done.
    pub fn new(steps: &'static [&'static str]) -> Self {
        Self::of(State::Starting(0), steps)
    }

    /// A host that is complete.
    pub fn complete(handles: MgmtHandles) -> Self {
        Self::of(State::Ready(Box::new(handles)), &[])
    }

    fn of(state: State, steps: &'static [&'static str]) -> Self {
        let (state, (changes, _)) = (Arc::new(Mutex::new(state)), watch::channel(()));
        Self {
            state,
            steps,
            about: Arc::default(),
            changes,
            feed: Arc::default(),
            access: None,
            basics: None,
            always: Always::default(),
        }
    }

    /// The same start, of a host of which this is known.
    #[must_use]
    pub fn about(self, about: About) -> Self {
        Self { about: Arc::new(about), ..self }
    }

    /// What is known of the host.
    pub(super) fn known(&self) -> &About {
        &self.about
    }

    /// What is told to those who follow events.
    pub(super) fn feed(&self) -> &Feed {
        &self.feed
    }

    /// Tells of every change of the stage.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// The same, with the owner's door: claim, login and tokens work before the rest is there.
    #[must_use]
    pub fn with_access(mut self, access: Access) -> Self {
        self.access = Some(access);
        self
    }

    /// The same, with what the owner mends it with: that can be used before the rest is there, and without it.
    #[must_use]
    pub fn with_basics(self, basics: Basics) -> Self {
        Self { basics: Some(basics), ..self }
    }

    /// The same, with what can be asked for at any time.
    #[must_use]
    pub fn with(self, always: Always) -> Self {
        Self { always, ..self }
    }

    /// The name under which this host is found without a name server, once it is.
    pub fn local_name(&self) -> LocalName {
        self.always.local_name.clone()
    }

    /// The owner's door, where there is one.
    pub(super) fn owners(&self) -> Option<Access> {
        self.access.clone()
    }

    /// How the host is doing, with what its owner's door has to tell: whoever tells of problems asks here.
    pub(super) fn report(&self, handles: &MgmtHandles) -> StatusReport {
        let mut report = (handles.status)();
        report.problems.extend(self.access.iter().flat_map(Access::problems));
        report
    }

    /// What is wrong with a host that could not be put together, beside the reason for that.
    pub(super) fn also_wrong(&self) -> Vec<String> {
        let own = self.access.iter().flat_map(Access::problems);
        self.always.problems.all().into_iter().chain(own).collect()
    }

    /// What the host remembers, if it can be read.
    pub(super) fn store(&self) -> Option<Store> {
        match &*self.lock() {
            State::Ready(handles) => Some(handles.store.clone()),
            _ => self.basics.as_ref().and_then(|basics| basics.store.clone()),
        }
    }

    /// The next step begins.
    pub fn next_step(&self) {
        if let State::Starting(step) = &mut *self.lock() {
            *step = (*step + 1).min(self.steps.len().saturating_sub(1));
        }
        self.changes.send_replace(());
    }

    /// All is there.
    pub fn ready(&self, handles: MgmtHandles) {
        *self.lock() = State::Ready(Box::new(handles));
        self.changes.send_replace(());
    }

    /// It cannot be put together.
    pub fn failed(&self, why: Failure) {
        *self.lock() = State::Failed(why);
        self.changes.send_replace(());
    }

    /// How far the host is.
    pub fn stage(&self) -> Stage {
        match &*self.lock() {
            State::Starting(step) => Stage::Starting {
                step: step + 1,
                count: self.steps.len(),
                doing: self.steps.get(*step).copied().unwrap_or_default(),
            },
            State::Ready(_) => Stage::Ready,
            State::Failed(why) => Stage::Failed { reason: why.plain },
        }
    }

    pub(super) fn handles(&self) -> Result<MgmtHandles, Problem> {
        let (code, detail) = match &*self.lock() {
            State::Ready(handles) => return Ok(MgmtHandles::clone(handles)),
            State::Starting(step) => {
                let doing = self.steps.get(*step).copied().unwrap_or_default();
                ("starting", format!("the host is starting: {doing}; try again in a moment"))
            }
            State::Failed(why) => ("cannot-start", why.whole.clone()),
        };
        Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, detail))
    }

    // What lies behind the lock is replaced as a whole: a panic elsewhere leaves it as it was.
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The rooms of a host that is complete; a route that takes them is answered 503 before.
pub(super) struct Rooms(pub(super) MgmtHandles);

impl FromRequestParts<Startup> for Rooms {
    type Rejection = Problem;

    async fn from_request_parts(
        _parts: &mut Parts,
        startup: &Startup,
    ) -> Result<Self, Self::Rejection> {
        startup.handles().map(Self)
    }
}

/// What a host is mended with; a route that takes it works while the host starts, and when it could not.
pub(super) struct Mending(pub(super) Basics);

impl FromRequestParts<Startup> for Mending {
    type Rejection = Problem;

    async fn from_request_parts(
        _parts: &mut Parts,
        startup: &Startup,
    ) -> Result<Self, Self::Rejection> {
        match startup.handles() {
            Ok(MgmtHandles { settings, examiner, os, power, store, backups, .. }) => {
                let (store, backups) = (Some(store), Some(backups));
                Ok(Self(Basics { settings, examiner, os, power, store, backups }))
            }
            Err(problem) => startup.basics.clone().map(Self).ok_or(problem),
        }
    }
}

/// The owner's door; a route that takes it works while the host starts, and when it could not.
pub(super) struct Door(pub(super) Access);

impl FromRequestParts<Startup> for Door {
    type Rejection = Problem;

    async fn from_request_parts(
        _parts: &mut Parts,
        startup: &Startup,
    ) -> Result<Self, Self::Rejection> {
        startup.access.clone().map(Self).ok_or_else(|| {
            let why = startup.about.credentials.claimed().why_unknown();
            let why = why.unwrap_or_else(|| "this host has no door for an owner".to_owned());
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", why)
        })
    }
}

impl FromRequestParts<Startup> for Always {
    type Rejection = Infallible;

    async fn from_request_parts(
        _parts: &mut Parts,
        startup: &Startup,
    ) -> Result<Self, Self::Rejection> {
        Ok(startup.always.clone())
    }
}
