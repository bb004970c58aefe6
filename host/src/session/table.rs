//! All sessions of the host: who has one, how many there may be.
//!
//! Each client has at most one session; clients do not see each other's. A session runs on a thread of its own
//! ([`super::live`]); this table only finds it. Its lock is held for look-ups, never while something starts or ends.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use punktfunk_core::media::{Codec, FrameTrace, Mode};
use tracing::error;

use super::live::{self, Command, Making, View};
use super::pulse::{Follower, Pulse};
use super::register::{Page, Register};
use super::sound::Sounds;
use super::{
    App, AppId, ClientId, Running, SessionDesk, SessionDetails, SessionError, SessionId,
    SessionInfo, StreamGrant,
};
use crate::agent::{AgentStarter, ProfileNumber};
use crate::clock;
use crate::display::DisplayBackend;
use crate::encode::EncoderBackend;
use crate::stream::{EndReason, StreamLine, StreamSpec};

/// What the sessions of a host are made with.
pub struct SessionOptions {
    /// What can be played.
    pub apps: Vec<App>,
    /// The display backends that work here, by name.
    pub displays: BTreeMap<String, Arc<dyn DisplayBackend>>,
    /// The encoder to use.
    pub encoder: Arc<dyn EncoderBackend>,
    /// What it can encode in real time; has H.264.
    pub codecs: Vec<Codec>,
    /// How their sound is made.
    pub sound: Sounds,
    /// How many clients may play at once, at least 1.
    pub max_sessions: usize,
    /// Starts the agents of those sessions that consist of programs.
    pub agents: Arc<dyn AgentStarter>,
    /// The profile that a client plays in, no two clients in the same; the error is a sentence for people.
    pub profile: Profiles,
}

/// Finds the profile of a client.
pub type Profiles = Box<dyn Fn(ClientId) -> Result<ProfileNumber, String> + Send + Sync>;

/// The host's sessions.
pub struct Sessions {
    /// What it was made with; `apps` and `max_sessions` hold what the owner may have changed since.
    options: SessionOptions,
    apps: Mutex<Vec<App>>,
    max_sessions: AtomicUsize,
    register: Option<Arc<Register>>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    stopping: bool,
    by_client: BTreeMap<ClientId, Entry>,
    /// Whose session is the self-test's, if one runs; it counts against nobody.
    self_test: Option<ClientId>,
    /// Sessions that have ended, for whoever wants to know why; the oldest are forgotten.
    past: VecDeque<Live>,
}

enum Entry {
    /// Its launcher waits for it; once it runs it is ended again if its client `quit` meanwhile.
    Starting {
        app: App,
        quit: bool,
    },
    Live(Live),
}

struct Live {
    id: SessionId,
    client: ClientId,
    whose: Whose,
    app: App,
    view: Arc<Mutex<View>>,
    pulse: Pulse,
    page: Option<Page>,
    inbox: Sender<Command>,
    thread: Option<JoinHandle<()>>,
}

/// How many ended sessions are remembered.
const PAST_KEPT: usize = 8;

impl Sessions {
    /// A host without sessions.
    pub fn new(options: SessionOptions) -> Self {
        let apps = Mutex::new(options.apps.clone());
        let max_sessions = AtomicUsize::new(options.max_sessions);
        Self { options, apps, max_sessions, register: None, table: Mutex::default() }
    }

    /// What can be played from now on. Whoever plays an app that is gone plays on.
    pub fn set_apps(&self, apps: Vec<App>) {
        *self.apps.lock().unwrap_or_else(PoisonError::into_inner) = apps;
    }

    /// How many clients may play at once from now on, at least 1. Those that play already play on.
    pub fn set_max_sessions(&self, max: usize) {
        self.max_sessions.store(max.max(1), Ordering::Relaxed);
    }

    /// The same, but clients do what the register says they may, and their sessions are noted in it.
    #[must_use]
    pub fn with_register(self, register: Register) -> Self {
        Self { register: Some(Arc::new(register)), ..self }
    }

    /// Whether a client may come in; the self-test may, because its door has looked at its permit.
    fn admit(&self, client: ClientId, whose: Whose, starts: bool) -> Result<(), SessionError> {
        match (&self.register, whose) {
            (Some(register), Whose::Owner) => register.admit(client, starts),
            _ => Ok(()),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.retire();
        table
    }

    fn app(&self, id: AppId) -> Result<App, SessionError> {
        let apps = self.apps.lock().unwrap_or_else(PoisonError::into_inner);
        apps.iter().find(|app| app.id == id).cloned().ok_or(SessionError::UnknownApp { app: id })
    }

    /// Reserves a place for a new session, or finds the client's running one.
    /// `may_start` is asked before anything new is begun.
    fn reserve(
        &self,
        client: ClientId,
        app: &App,
        whose: Whose,
        may_start: impl FnOnce() -> Result<(), SessionError>,
    ) -> Result<Place, SessionError> {
        let mut table = self.table();
        if table.stopping {
            return Err(SessionError::Stopping);
        }
        match table.by_client.get(&client) {
            Some(Entry::Live(live)) if live.app.id == app.id => {
                return Ok(Place::Running(live.inbox.clone()));
            }
            Some(Entry::Live(Live { app, .. }) | Entry::Starting { app, .. }) => {
                return Err(SessionError::Busy { title: app.title.clone() });
            }
            None => may_start()?,
        }
        let self_test = table.self_test.filter(|own| table.by_client.contains_key(own));
        let (taken, max) = match whose {
            Whose::SelfTest => (usize::from(self_test.is_some()), 1),
            Whose::Owner => {
                let all = table.by_client.len();
                let max = self.max_sessions.load(Ordering::Relaxed);
                (all - usize::from(self_test.is_some()), max)
            }
        };
        if taken >= max {
            return Err(SessionError::Full { max });
        }
        if whose == Whose::SelfTest {
            table.self_test = Some(client);
        }
        table.last_id += 1;
        let id = SessionId(table.last_id);
        table.by_client.insert(client, Entry::Starting { app: app.clone(), quit: false });
        Ok(Place::New(id))
    }

    fn launch_app(
        &self,
        client: ClientId,
        app: App,
        mode: Mode,
        whose: Whose,
    ) -> Result<Running, SessionError> {
        self.admit(client, whose, false)?;
        let id = match self.reserve(client, &app, whose, || self.admit(client, whose, true))? {
            Place::New(id) => id,
            Place::Running(inbox) => {
                Self::ask(&inbox, |reply| Command::Replace(Some(mode), reply))?;
                return self.running_or_gone(client);
            }
        };
        let started = self.start(id, (client, whose), app, mode);
        let mut table = self.table();
        let is_quit =
            matches!(table.by_client.get(&client), Some(Entry::Starting { quit: true, .. }));
        match started {
            Ok(live) if table.stopping => {
                table.by_client.remove(&client);
                drop(table);
                live.end(EndReason::Shutdown);
                Err(SessionError::Stopping)
            }
            Ok(live) if is_quit => {
                table.by_client.remove(&client);
                drop(table);
                let past = live.end(EndReason::Quit);
                self.table().remember(past);
                Err(SessionError::NotRunning)
            }
            Ok(live) => {
                table.by_client.insert(client, Entry::Live(live));
                drop(table);
                self.running_or_gone(client)
            }
            Err(error) => {
                table.by_client.remove(&client);
                Err(error)
            }
        }
    }

    fn start(
        &self,
        id: SessionId,
        (client, whose): (ClientId, Whose),
        app: App,
        mode: Mode,
    ) -> Result<Live, SessionError> {
        let refuse = |reason: String| SessionError::Start { title: app.title.clone(), reason };
        let display = self.options.displays.get(&app.display).cloned().ok_or_else(|| {
            refuse(format!("the display backend \"{}\" does not work here", app.display))
        })?;
        let needs_agent = display.needs_agent() || !app.commands.is_empty();
        let profile = needs_agent.then(|| (self.options.profile)(client)).transpose();
        let view = Arc::new(Mutex::new(View::new(mode, clock::now())));
        let pulse = Pulse::new();
        let register = self.register.as_ref().filter(|_| whose == Whose::Owner);
        let page = register.map(|register| Page::new(register, client, &app.title));
        let (inbox, messages) = std::sync::mpsc::channel();
        let making = Making {
            id,
            app: app.clone(),
            mode,
            display,
            encoder: Arc::clone(&self.options.encoder),
            sound: self.options.sound.clone(),
            agents: Arc::clone(&self.options.agents),
            profile: profile.map_err(refuse)?,
            view: Arc::clone(&view),
            pulse: pulse.clone(),
            page: page.clone(),
            inbox: messages,
            own_inbox: inbox.clone(),
        };
        let (ready, answer) = sync_channel(1);
        let span = tracing::info_span!("session", session = id.0, app = %app.title);
        let thread = std::thread::Builder::new()
            .name("pf-session".to_owned())
            .spawn(move || span.in_scope(|| live::run(making, &ready)))
            .map_err(|error| refuse(format!("no thread could be started: {error}")))?;
        match answer.recv() {
            Ok(Ok(_mode)) => {
                let thread = Some(thread);
                Ok(Live { id, client, whose, app, view, pulse, page, inbox, thread })
            }
            Ok(Err(error)) => {
                collect(thread);
                Err(error)
            }
            Err(_) => {
                collect(thread);
                Err(refuse("a bug of the host ended it; see the log".to_owned()))
            }
        }
    }

    /// Sends a command that is answered, and waits for the answer.
    fn ask<T>(
        inbox: &Sender<Command>,
        command: impl FnOnce(std::sync::mpsc::SyncSender<Result<T, SessionError>>) -> Command,
    ) -> Result<T, SessionError> {
        let (reply, answer) = sync_channel(1);
        inbox.send(command(reply)).map_err(|_| SessionError::NotRunning)?;
        answer.recv().map_err(|_| SessionError::NotRunning)?
    }

    fn inbox_of(&self, client: ClientId) -> Result<(Sender<Command>, Whose), SessionError> {
        match self.table().by_client.get(&client) {
            Some(Entry::Live(live)) => Ok((live.inbox.clone(), live.whose)),
            _ => Err(SessionError::NotRunning),
        }
    }

    fn running_or_gone(&self, client: ClientId) -> Result<Running, SessionError> {
        self.running(client).ok_or(SessionError::NotRunning)
    }
}

/// For whom a session is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Owner,
    SelfTest,
}

enum Place {
    New(SessionId),
    Running(Sender<Command>),
}

impl SessionDesk for Sessions {
    fn apps(&self) -> Vec<App> {
        self.apps.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn codecs(&self) -> Vec<Codec> {
        self.options.codecs.clone()
    }

    fn running(&self, client: ClientId) -> Option<Running> {
        match self.table().by_client.get(&client)? {
            Entry::Live(live) => {
                let view = live.view();
                let (mode, streaming) = (view.mode, view.streaming);
                Some(Running { session: live.id, app: live.app.id, mode, streaming })
            }
            Entry::Starting { .. } => None,
        }
    }

    fn launch(&self, client: ClientId, app: AppId, mode: Mode) -> Result<Running, SessionError> {
        self.launch_app(client, self.app(app)?, mode, Whose::Owner)
    }

    fn launch_self_test(&self, client: ClientId, mode: Mode) -> Result<Running, SessionError> {
        self.launch_app(client, super::apps::test_card(), mode, Whose::SelfTest)
    }

    fn resume(&self, client: ClientId) -> Result<Running, SessionError> {
        let (inbox, whose) = self.inbox_of(client)?;
        self.admit(client, whose, false)?;
        Self::ask(&inbox, |reply| Command::Replace(None, reply))?;
        self.running_or_gone(client)
    }

    fn prepare_stream(
        &self,
        session: SessionId,
        spec: StreamSpec,
        line: StreamLine,
    ) -> Result<StreamGrant, SessionError> {
        let found =
            self.table().live().find(|live| live.id == session).map(|live| live.inbox.clone());
        let inbox = found.ok_or(SessionError::NotRunning)?;
        Self::ask(&inbox, |reply| Command::Prepare(Box::new(spec), Box::new(line), reply))
    }

    fn quit(&self, client: ClientId) {
        let live = {
            let mut table = self.table();
            match table.by_client.remove(&client) {
                Some(Entry::Live(live)) => live,
                Some(Entry::Starting { app, .. }) => {
                    table.by_client.insert(client, Entry::Starting { app, quit: true });
                    return;
                }
                None => return,
            }
        };
        let past = live.end(EndReason::Quit);
        self.table().remember(past);
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        let table = self.table();
        table.all().map(|live| live.info(&live.view())).collect()
    }

    fn details(&self, session: SessionId) -> Option<SessionDetails> {
        let table = self.table();
        let live = table.all().find(|live| live.id == session)?;
        let view = live.view();
        Some(SessionDetails {
            info: live.info(&view),
            age: view.ended_at.unwrap_or_else(clock::now).since(view.began_at),
            stream: view.stream.clone(),
        })
    }

    fn follow(&self, session: SessionId) -> Option<Follower> {
        self.table().all().find(|live| live.id == session).map(|live| live.pulse.follow())
    }

    fn end(&self, session: SessionId) -> Option<SessionInfo> {
        let live = {
            let mut table = self.table();
            let client = table.live().find(|live| live.id == session)?.client;
            match table.by_client.remove(&client) {
                Some(Entry::Live(live)) => live,
                _ => return None,
            }
        };
        let past = live.end(EndReason::Quit);
        let info = past.info(&past.view());
        self.table().remember(past);
        Some(info)
    }

    fn traces(&self, session: SessionId) -> Vec<FrameTrace> {
        let table = self.table();
        let Some(live) = table.all().find(|live| live.id == session) else { return vec![] };
        live.view().traces.iter().copied().collect()
    }

    fn shut_down(&self, reason: EndReason) {
        let entries = {
            let mut table = self.table();
            table.stopping = true;
            std::mem::take(&mut table.by_client)
        };
        let live: Vec<Live> = entries
            .into_values()
            .filter_map(|entry| match entry {
                Entry::Live(live) => Some(live),
                // Its launcher finds `stopping` set and ends it.
                Entry::Starting { .. } => None,
            })
            .collect();
        for session in &live {
            let _ = session.inbox.send(Command::End(reason.clone()));
        }
        for session in live {
            session.end(reason.clone());
        }
        if let Some(register) = &self.register {
            register.close();
        }
    }
}

impl Table {
    fn live(&self) -> impl Iterator<Item = &Live> {
        self.by_client.values().filter_map(|entry| match entry {
            Entry::Live(live) => Some(live),
            Entry::Starting { .. } => None,
        })
    }

    /// Those that have ended, oldest first, then those that run.
    fn all(&self) -> impl Iterator<Item = &Live> {
        self.past.iter().chain(self.live())
    }

    /// Moves sessions that ended by themselves to the past.
    fn retire(&mut self) {
        let over = |entry: &Entry| match entry {
            Entry::Live(live) => live.thread.as_ref().is_none_or(JoinHandle::is_finished),
            Entry::Starting { .. } => false,
        };
        let clients: Vec<ClientId> =
            self.by_client.iter().filter(|(_, entry)| over(entry)).map(|(id, _)| *id).collect();
        for client in clients {
            if let Some(Entry::Live(live)) = self.by_client.remove(&client) {
                self.remember(live);
            }
        }
    }

    fn remember(&mut self, live: Live) {
        let mut view = live.view();
        // A thread that ended without a word panicked.
        if view.ended.is_none() {
            let bug = EndReason::Bug("its thread panicked".to_owned());
            view.ended_at = Some(clock::now());
            live.pulse.end(&bug);
            if let Some(page) = &live.page {
                page.note(&view, &bug);
            }
            view.ended = Some(bug);
        }
        drop(view);
        // The traces of one session are most of a mebibyte; of those that have ended only the newest keeps its own.
        for before in &self.past {
            before.view().traces = VecDeque::new();
        }
        self.past.push_back(live);
        while self.past.len() > PAST_KEPT {
            self.past.pop_front();
        }
    }
}

impl Live {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn info(&self, view: &View) -> SessionInfo {
        SessionInfo {
            id: self.id,
            client: self.client,
            self_test: self.whose == Whose::SelfTest,
            app: self.app.title.clone(),
            mode: view.mode,
            streaming: view.streaming,
            ended: view.ended.clone(),
        }
    }

    /// Ends the session and waits until all of it is gone.
    fn end(mut self, reason: EndReason) -> Self {
        // A session that has ended by itself takes no more messages, which is what is wanted.
        let _ = self.inbox.send(Command::End(reason));
        if let Some(thread) = self.thread.take() {
            collect(thread);
        }
        self
    }
}

fn collect(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("a session's thread panicked; its session is over, the others go on");
    }
}
