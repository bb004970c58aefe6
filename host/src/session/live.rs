//! The thread of one session, `pf-session`: it owns the agent, the output, the app's programs and the stream's threads.
//!
//! Everything that happens to a session arrives in its inbox; between messages it looks after the agent, the compositor
//! and the programs a few times a second. What to do follows from [`super::state`]; this file only does it.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use punktfunk_core::media::{FrameTrace, Mode};
use punktfunk_core::time::Timestamp;
use tracing::info;

use super::figures::Tally;
use super::histogram::Histogram;
use super::programs::Programs;
use super::pulse::{BEAT, Pulse};
use super::register::Page;
use super::sound::{Sound, Sounds};
use super::state::{Action, Event, State, StreamNumber, step};
use super::{App, PreparedStream, SessionError, SessionId, StreamDetails, StreamGrant};
use crate::agent::{Agent, AgentStarter, ProfileNumber};
use crate::clock;
use crate::display::{DisplayBackend, OutputSpec, VirtualOutput};
use crate::encode::EncoderBackend;
use crate::input::InputSink;
use crate::input::nothing::NoInput;
use crate::stream::{
    Counts, EndReason, Peer, Prepared, StreamControl, StreamHandle, StreamLine, StreamParts,
    StreamSpec,
};

/// How often the programs and the compositor are looked after.
const LOOK_AFTER: Duration = Duration::from_millis(250);

/// How long programs and compositor get to end by themselves.
const GRACE: Duration = Duration::from_secs(2);

/// How many frame traces a session keeps: more than ten minutes at 120 Hz would be too many, a minute is enough.
const TRACES_KEPT: usize = 8192;

/// Frame traces that may wait for the session thread; at 240 Hz it looks every 60.
const TRACES_IN_FLIGHT: usize = 1024;

/// What a session is made of.
pub(super) struct Making {
    pub(super) id: SessionId,
    pub(super) app: App,
    pub(super) mode: Mode,
    pub(super) display: Arc<dyn DisplayBackend>,
    pub(super) encoder: Arc<dyn EncoderBackend>,
    pub(super) sound: Sounds,
    pub(super) agents: Arc<dyn AgentStarter>,
    /// The client's profile, if the session consists of programs; a test card needs nobody to start any.
    pub(super) profile: Option<ProfileNumber>,
    pub(super) view: Arc<Mutex<View>>,
    pub(super) pulse: Pulse,
    /// Where it is noted, and what its client may do; nothing is kept of the self-test.
    pub(super) page: Option<Page>,
    pub(super) inbox: Receiver<Command>,
    pub(super) own_inbox: Sender<Command>,
}

/// What others may know of a session without asking its thread.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) mode: Mode,
    pub(super) streaming: bool,
    pub(super) ended: Option<EndReason>,
    pub(super) began_at: Timestamp,
    pub(super) ended_at: Option<Timestamp>,
    /// The stream that is prepared or runs, or the last one.
    pub(super) stream: Option<StreamDetails>,
    pub(super) traces: VecDeque<FrameTrace>,
    /// Of all its streams.
    pub(super) tally: Tally,
    /// How long each of their pictures took.
    pub(super) times: Histogram,
}

impl View {
    pub(super) fn new(mode: Mode, began_at: Timestamp) -> Self {
        Self {
            mode,
            streaming: false,
            ended: None,
            began_at,
            ended_at: None,
            stream: None,
            traces: VecDeque::new(),
            tally: Tally::default(),
            times: Histogram::default(),
        }
    }

    /// What became of more pictures: all are counted, the newest kept.
    pub(super) fn count(&mut self, traces: Vec<FrameTrace>) {
        for trace in &traces {
            self.tally.add(trace);
            self.times.add(trace);
        }
        // All at once: a queue that grows is copied each time and leaves its smaller selves as holes in the heap.
        if self.traces.capacity() == 0 {
            self.traces.reserve_exact(TRACES_KEPT);
        }
        let newest = traces.len().saturating_sub(TRACES_KEPT);
        let newest = traces.into_iter().skip(newest);
        let surplus = (self.traces.len() + newest.len()).saturating_sub(TRACES_KEPT);
        self.traces.drain(..surplus);
        self.traces.extend(newest);
    }
}

/// What arrives in a session's inbox.
pub(super) enum Command {
    Prepare(Box<StreamSpec>, Box<StreamLine>, SyncSender<Result<StreamGrant, SessionError>>),
    /// End the stream; the new stream will want this mode.
    Replace(Option<Mode>, SyncSender<Result<Mode, SessionError>>),
    Started(StreamNumber, Arc<StreamHandle>),
    Released(StreamNumber),
    StreamEnded(StreamNumber, EndReason),
    End(EndReason),
}

/// Runs a session until it ends. `ready` hears once whether the app runs.
pub(super) fn run(making: Making, ready: &SyncSender<Result<Mode, SessionError>>) {
    let title = making.app.title.clone();
    match Session::open(making) {
        Ok(session) => {
            // A launcher that has gone away is no reason to stop: the client may ask again.
            let _ = ready.send(Ok(session.output.mode()));
            session.serve();
        }
        Err(reason) => {
            let _ = ready.send(Err(SessionError::Start { title, reason }));
        }
    }
}

struct Session {
    id: SessionId,
    app: App,
    output: Box<dyn VirtualOutput>,
    programs: Programs,
    encoder: Arc<dyn EncoderBackend>,
    sound: Sound,
    streams: u64,
    traces: Option<Receiver<FrameTrace>>,
    agent: Option<Arc<dyn Agent>>,
    view: Arc<Mutex<View>>,
    pulse: Pulse,
    page: Option<Page>,
    /// When it is told next.
    beat_at: Timestamp,
    /// When the newest stream began, and what was counted beside its frames.
    stream_began: Timestamp,
    counts: Counts,
    inbox: Receiver<Command>,
    own_inbox: Sender<Command>,
}

impl Session {
    fn open(making: Making) -> Result<Self, String> {
        let Making { id, app, mode, display, .. } = making;
        let agent = making.profile.map(|profile| making.agents.start(profile)).transpose();
        let agent = agent.map_err(|error| error.to_string())?;
        let spec = OutputSpec { mode, agent: agent.clone() };
        // The sound server comes up while the compositor does.
        let mut sound = Sound::start(&app, agent.as_ref(), &making.sound);
        let opened = display.open(&spec).map_err(|error| with_sources(&error)).and_then(|output| {
            sound.settle();
            let mut environment = output.child_env();
            environment.extend(sound.child_env());
            Ok((Programs::start(&app, agent.as_deref(), &environment)?, output))
        });
        let (programs, output) = opened.inspect_err(|_| end(agent.as_deref()))?;
        let backend = display.name();
        info!(app = %app.title, backend, mode = %output.mode(), "the app runs");
        Ok(Self {
            id,
            app,
            output,
            programs,
            encoder: making.encoder,
            sound,
            streams: 0,
            traces: None,
            agent,
            view: making.view,
            pulse: making.pulse,
            page: making.page,
            beat_at: Timestamp::ZERO,
            stream_began: clock::now(),
            counts: Counts::default(),
            inbox: making.inbox,
            own_inbox: making.own_inbox,
        })
    }

    fn serve(mut self: Session) {
        let mut state = State::Idle;
        loop {
            let event = match self.inbox.recv_timeout(LOOK_AFTER) {
                Ok(command) => self.take(command, &mut state),
                Err(RecvTimeoutError::Timeout) => self.look_after(),
                // We hold a sender ourselves, so this cannot be; ending is the safe answer.
                Err(RecvTimeoutError::Disconnected) => Some(Event::End(EndReason::Shutdown)),
            };
            self.collect_traces();
            if let Some(event) = event {
                self.advance(&mut state, event);
            }
            self.beat(&state);
            if let State::Ended(reason) = state {
                return self.close(reason);
            }
        }
    }

    /// What a message means for the machine; messages that want an answer get it here.
    fn take(
        &mut self,
        command: Command,
        state: &mut State<Arc<StreamHandle>>,
    ) -> Option<Event<Arc<StreamHandle>>> {
        match command {
            Command::Prepare(spec, line, reply) => {
                self.advance(state, Event::Replace);
                let grant = self.prepare(*spec, *line);
                if grant.is_ok() {
                    self.advance(state, Event::Prepared(StreamNumber(self.streams)));
                }
                // If the door has gone away, the grant comes back at once as `Released`.
                let _ = reply.send(grant);
                None
            }
            Command::Replace(mode, reply) => {
                self.advance(state, Event::Replace);
                let outcome = mode.map_or(Ok(()), |mode| self.set_mode(mode));
                let _ = reply.send(outcome.map(|()| self.output.mode()));
                None
            }
            Command::Started(number, handle) => {
                self.stream_began = clock::now();
                Some(Event::Started(number, handle))
            }
            Command::Released(number) => Some(Event::Released(number)),
            Command::StreamEnded(number, reason) => {
                info!(?reason, "the stream has ended");
                Some(Event::StreamEnded(number))
            }
            Command::End(reason) => Some(Event::End(reason)),
        }
    }

    /// Tells how it is doing, once a second and if anybody wants to know.
    fn beat(&mut self, state: &State<Arc<StreamHandle>>) {
        if let State::Streaming(_, handle) = state {
            self.counts = handle.counts();
        }
        let now = clock::now();
        if now < self.beat_at || !self.pulse.is_followed() {
            return;
        }
        // From beat to beat, however late this thread looked; after a pause it begins anew.
        let next = self.beat_at + BEAT;
        self.beat_at = if next > now { next } else { now + BEAT };
        let streaming = matches!(state, State::Prepared(_) | State::Streaming(..));
        let view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
        self.pulse.tell(&view.traces, now, self.stream_began, (streaming, self.counts));
    }

    fn look_after(&mut self) -> Option<Event<Arc<StreamHandle>>> {
        if self.page.as_ref().is_some_and(Page::time_is_over) {
            return Some(Event::End(EndReason::GuestTimeOver));
        }
        self.sound.check();
        let agent = self.agent.as_ref().map_or(Ok(()), |agent| agent.check());
        if let Err(error) = agent {
            return Some(Event::End(EndReason::DisplayLost(error.to_string())));
        }
        if let Err(error) = self.output.check() {
            return Some(Event::End(EndReason::DisplayLost(with_sources(&error))));
        }
        self.programs.over().then_some(Event::End(EndReason::AppExited))
    }

    fn advance(&mut self, state: &mut State<Arc<StreamHandle>>, event: Event<Arc<StreamHandle>>) {
        let (next, actions) = step(std::mem::replace(state, State::Idle), event);
        *state = next;
        for action in actions {
            match action {
                Action::Stop(handle, reason) => {
                    handle.stop(reason);
                    handle.join();
                }
                Action::Join(handle) => handle.join(),
                Action::TearDown => self.programs.end(GRACE),
            }
        }
        self.collect_traces();
        self.see(|view| {
            view.streaming = matches!(state, State::Prepared(_) | State::Streaming(..));
        });
    }

    fn prepare(&mut self, spec: StreamSpec, line: StreamLine) -> Result<StreamGrant, SessionError> {
        let refuse = |reason: String| SessionError::Stream { reason };
        if self.page.as_ref().is_some_and(Page::time_is_over) {
            return Err(SessionError::GuestTimeOver);
        }
        self.set_mode(spec.video.mode)?;
        let frames = self.output.open_capture().map_err(|error| refuse(with_sources(&error)))?;
        let may_use_input = self.page.as_ref().is_none_or(Page::may_use_input);
        let input: Box<dyn InputSink> = if may_use_input {
            self.output.open_input().map_err(|error| refuse(with_sources(&error)))?
        } else {
            Box::new(NoInput)
        };
        self.streams += 1;
        let number = StreamNumber(self.streams);
        let (traces, taken) = std::sync::mpsc::sync_channel(TRACES_IN_FLIGHT);
        let (inbox, tell_door) = (self.own_inbox.clone(), line.on_end);
        let line = StreamLine {
            on_end: Box::new(move |reason| {
                // The session may have ended first; then it needs no news.
                let _ = inbox.send(Command::StreamEnded(number, reason.clone()));
                tell_door(reason);
            }),
            ..line
        };
        let details = StreamDetails { spec: spec.clone(), about: line.about };
        let sound = self.sound.source(&spec.audio);
        let encoder = Arc::clone(&self.encoder);
        let parts = StreamParts { spec, frames, encoder, sound, line, traces };
        let prepared =
            crate::stream::prepare(parts).map_err(|error| refuse(with_sources(&error)))?;
        self.traces = Some(taken);
        self.see(|view| view.stream = Some(details));
        let opened = Opened {
            number,
            prepared: Some(prepared),
            inbox: self.own_inbox.clone(),
            view: Arc::clone(&self.view),
        };
        Ok(StreamGrant { stream: Box::new(opened), input })
    }

    fn set_mode(&mut self, mode: Mode) -> Result<(), SessionError> {
        if self.output.mode() != mode {
            self.output
                .set_mode(mode)
                .map_err(|error| SessionError::Stream { reason: with_sources(&error) })?;
            info!(%mode, "the output has a new mode");
        }
        self.see(|view| view.mode = mode);
        Ok(())
    }

    fn collect_traces(&mut self) {
        let Some(traces) = &self.traces else { return };
        let mut taken = vec![];
        let over = loop {
            match traces.try_recv() {
                Ok(trace) => taken.push(trace),
                Err(TryRecvError::Empty) => break false,
                Err(TryRecvError::Disconnected) => break true,
            }
        };
        if over {
            self.traces = None;
        }
        if taken.is_empty() {
            return;
        }
        self.see(|view| view.count(taken));
    }

    fn see(&self, change: impl FnOnce(&mut View)) {
        change(&mut self.view.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The programs have ended already.
    fn close(mut self, reason: EndReason) {
        self.collect_traces();
        self.output.close(GRACE);
        end(self.agent.as_deref());
        info!(session = self.id.0, app = %self.app.title, ?reason, "the session has ended");
        {
            let mut view = self.view.lock().unwrap_or_else(PoisonError::into_inner);
            view.streaming = false;
            view.ended = Some(reason.clone());
            view.ended_at = Some(clock::now());
            if let Some(page) = &self.page {
                page.note(&view, &reason);
            }
        }
        self.pulse.end(&reason);
        // Streams that started while all this ended; one that starts from here on finds the end in the view.
        for command in self.inbox.try_iter() {
            if let Command::Started(_, handle) = command {
                handle.stop(reason.clone());
                handle.join();
            }
        }
    }
}

/// A stream that waits for its client; gives itself back if it is dropped.
struct Opened {
    number: StreamNumber,
    prepared: Option<Prepared>,
    inbox: Sender<Command>,
    view: Arc<Mutex<View>>,
}

impl PreparedStream for Opened {
    fn start(
        mut self: Box<Self>,
        video_peer: Peer,
        audio_peer: Option<Peer>,
    ) -> Arc<dyn StreamControl> {
        #[expect(clippy::expect_used, reason = "start consumes the box, so this is the first call")]
        let prepared = self.prepared.take().expect("a stream is started once");
        let handle = Arc::new(prepared.start(video_peer, audio_peer));
        let started = Command::Started(self.number, Arc::clone(&handle));
        // Sent before the look at the view: whichever comes first, the session's end or this, the stream is stopped.
        let is_gone = self.inbox.send(started).is_err();
        let ended = self.view.lock().unwrap_or_else(PoisonError::into_inner).ended.clone();
        if let Some(reason) = ended.or(is_gone.then_some(EndReason::Shutdown)) {
            handle.stop(reason);
        }
        handle
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if self.prepared.take().is_some() {
            let _ = self.inbox.send(Command::Released(self.number));
        }
    }
}

/// An error with everything that led to it, in one line.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Ends whatever is left of a session once its programs and its output have had their time: what left their groups.
fn end(agent: Option<&dyn Agent>) {
    if let Some(agent) = agent {
        agent.end(Duration::ZERO);
    }
}
