//! The sound server of a session: the processes it takes, started in order and started again when they die.
//!
//! The others hang on the server and on the session manager: when one of these two ends, all are ended and everything
//! begins anew, because a manager that meets streams linked by another links no more. The capture and the process for
//! PulseAudio's protocol are started again by themselves. Whatever keeps dying is left alone for longer and longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{debug, info, warn};

use super::config::{
    self, MANAGER_COMPONENTS, MANAGER_COMPONENTS_FILE, PULSE_SOCKET, SERVER_SOCKET,
};
use super::source::PipewireSource;
use super::{CAPTURE_SOCKET, ManagerKind, SoundError};
use crate::agent::{Agent, Process, ProcessSpec};
use crate::audio::AudioError;

/// How long the server may take until its socket answers.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// The first pause before something is started again; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What has run for so long was no failed start.
const STEADY: Duration = Duration::from_secs(20);

/// How often [`SoundServer::settle`] looks.
const LOOK: Duration = Duration::from_millis(15);

/// How to make the sound of a session.
#[derive(Debug, Clone)]
pub struct SoundOptions {
    /// Channels of the sink: 2, 6 or 8.
    pub channels: u8,
    /// The program that captures, and its first arguments; the number of channels comes after them.
    pub capture: Vec<String>,
    /// How the session manager is told what to do.
    pub manager: ManagerKind,
}

/// A session's sound server. Dropping it ends its processes.
pub struct SoundServer {
    agent: Arc<dyn Agent>,
    options: SoundOptions,
    state: State,
    pause: Pause,
}

enum State {
    /// The server runs and does not answer yet.
    Starting { server: Box<dyn Process>, since: Instant },
    /// All of it was started.
    Up { core: Core, pulse: Part, capture: Part },
    /// Nothing runs.
    Down { until: Instant },
}

/// The two that everything hangs on.
struct Core {
    server: Box<dyn Process>,
    manager: Box<dyn Process>,
    since: Instant,
}

/// A process that is started again by itself.
enum Part {
    Running { process: Box<dyn Process>, since: Instant, pause: Pause },
    Resting { until: Instant, pause: Pause },
}

/// How long to leave alone what has just ended.
#[derive(Debug, Clone, Copy)]
struct Pause(Duration);

impl SoundServer {
    /// Writes the configuration and starts the server. Does not wait for it: see [`Self::settle`] and [`Self::check`].
    ///
    /// # Errors
    /// The agent could not do it; nothing is left running.
    pub fn start(agent: &Arc<dyn Agent>, options: SoundOptions) -> Result<Self, SoundError> {
        let mut this = Self {
            agent: Arc::clone(agent),
            options,
            state: State::Down { until: Instant::now() },
            pause: Pause::FIRST,
        };
        this.write_configuration().map_err(agent_could_not("write its configuration"))?;
        let server = this.spawn(this.server_spec()).map_err(agent_could_not("start PipeWire"))?;
        this.state = State::Starting { server, since: Instant::now() };
        Ok(this)
    }

    /// Waits up to `patience` until programs can play and are heard; whether they can. Looks after the processes
    /// meanwhile.
    pub fn settle(&mut self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        loop {
            self.check();
            if self.is_ready() {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Looks after the processes: to be called a few times a second.
    pub fn check(&mut self) {
        let state = std::mem::replace(&mut self.state, State::Down { until: Instant::now() });
        self.state = match state {
            State::Starting { server, since } => self.check_start(server, since),
            State::Up { core, pulse, capture } => match core.obituary() {
                Some((program, words)) => {
                    warn!(program, %words, "the session's sound server has died and is started again");
                    self.pause.after(core.since);
                    State::Down { until: Instant::now() + self.pause.0 }
                }
                None => State::Up {
                    core,
                    pulse: self.check_part(pulse, "pipewire-pulse", Self::pulse_spec),
                    capture: self.check_part(capture, "punktfunk-sound", Self::capture_spec),
                },
            },
            State::Down { until } if Instant::now() < until => State::Down { until },
            State::Down { .. } => self.begin(),
        };
    }

    /// What programs need in their environment to be heard, beside the runtime folder.
    pub fn child_env(&self) -> BTreeMap<String, String> {
        let pulse = format!("unix:{}", self.path("pulse/native"));
        BTreeMap::from([
            ("PULSE_SERVER".to_owned(), pulse),
            ("PIPEWIRE_REMOTE".to_owned(), SERVER_SOCKET.to_owned()),
        ])
    }

    /// The session's sound for a stream of `channels` channels. A sink of another number is replaced, which cuts off
    /// what plays.
    ///
    /// # Errors
    /// [`AudioError::Lost`] if its thread does not start.
    pub fn source(&mut self, channels: u8) -> Result<PipewireSource, AudioError> {
        if channels != self.options.channels {
            info!(channels, "the session's sink gets another number of channels");
            self.options.channels = channels;
            self.state = State::Down { until: Instant::now() };
            if let Err(error) = self.write_configuration() {
                warn!(%error, "the session's sink keeps its channels");
            }
            self.check();
        }
        let agent = Arc::clone(&self.agent);
        let connector = move || {
            let connected = agent.connect(CAPTURE_SOCKET);
            connected.inspect_err(|error| debug!(%error, "no sound of the session yet")).ok()
        };
        PipewireSource::new(channels, Box::new(connector))
    }

    fn begin(&mut self) -> State {
        match self.spawn(self.server_spec()) {
            Ok(server) => State::Starting { server, since: Instant::now() },
            Err(error) => {
                warn!(%error, "the session's sound server does not start");
                self.rest()
            }
        }
    }

    fn check_start(&mut self, server: Box<dyn Process>, since: Instant) -> State {
        if let Some(words) = ended(&*server) {
            warn!(%words, "the session's sound server has ended at once");
            return self.rest();
        }
        if self.agent.connect(SERVER_SOCKET).is_err() {
            if since.elapsed() < START_PATIENCE {
                return State::Starting { server, since };
            }
            warn!("the session's sound server does not answer");
            return self.rest();
        }
        match self.spawn(self.manager_spec()) {
            Ok(manager) => State::Up {
                core: Core { server, manager, since: Instant::now() },
                pulse: self.start_part(Self::pulse_spec, Pause::FIRST),
                capture: self.start_part(Self::capture_spec, Pause::FIRST),
            },
            Err(error) => {
                warn!(%error, "the session's sound server has no session manager");
                self.rest()
            }
        }
    }

    fn rest(&mut self) -> State {
        let until = Instant::now() + self.pause.0;
        self.pause = self.pause.longer();
        State::Down { until }
    }

    fn check_part(&self, part: Part, program: &str, spec: fn(&Self) -> ProcessSpec) -> Part {
        match part {
            Part::Running { process, since, mut pause } => match ended(&*process) {
                None => Part::Running { process, since, pause },
                Some(words) => {
                    warn!(program, %words, "a part of the session's sound has died and is started again");
                    pause.after(since);
                    Part::Resting { until: Instant::now() + pause.0, pause }
                }
            },
            Part::Resting { until, pause } if Instant::now() < until => {
                Part::Resting { until, pause }
            }
            Part::Resting { pause, .. } => self.start_part(spec, pause),
        }
    }

    fn start_part(&self, spec: fn(&Self) -> ProcessSpec, pause: Pause) -> Part {
        match self.spawn(spec(self)) {
            Ok(process) => Part::Running { process, since: Instant::now(), pause },
            Err(error) => {
                warn!(%error, "a part of the session's sound does not start");
                Part::Resting { until: Instant::now() + pause.0, pause: pause.longer() }
            }
        }
    }

    fn is_ready(&self) -> bool {
        if !matches!(self.state, State::Up { .. }) {
            return false;
        }
        let sockets = self.agent.sockets().unwrap_or_default();
        [CAPTURE_SOCKET, PULSE_SOCKET].iter().all(|name| sockets.iter().any(|there| there == name))
    }

    fn write_configuration(&self) -> Result<(), crate::agent::AgentError> {
        let files = [
            (SERVER_FILE, config::server(self.options.channels)),
            (PULSE_FILE, config::pulse(&self.path(PULSE_SOCKET))),
            (MANAGER_FILE, config::manager()),
            (MANAGER_COMPONENTS_FILE, MANAGER_COMPONENTS.to_owned()),
        ];
        files.iter().try_for_each(|(name, text)| self.agent.write_file(name, text.as_bytes()))
    }

    fn server_spec(&self) -> ProcessSpec {
        spec("pipewire", vec!["-c".to_owned(), self.path(SERVER_FILE)])
    }

    fn pulse_spec(&self) -> ProcessSpec {
        spec("pipewire", vec!["-c".to_owned(), self.path(PULSE_FILE)])
    }

    fn manager_spec(&self) -> ProcessSpec {
        match self.options.manager {
            ManagerKind::Lua => {
                let mut spec = spec("wireplumber", vec!["-c".to_owned(), MANAGER_FILE.to_owned()]);
                spec.environment.insert("WIREPLUMBER_CONFIG_DIR".to_owned(), self.path(""));
                spec
            }
            ManagerKind::Profiles => {
                spec("wireplumber", vec!["--profile".to_owned(), "policy".to_owned()])
            }
        }
    }

    fn capture_spec(&self) -> ProcessSpec {
        let mut words = self.options.capture.iter().cloned();
        let program = words.next().unwrap_or_default();
        spec(&program, words.chain([self.options.channels.to_string()]).collect())
    }

    fn spawn(&self, spec: ProcessSpec) -> Result<Box<dyn Process>, crate::agent::AgentError> {
        self.agent.spawn(&spec)
    }

    /// A path in the runtime folder, as the session's programs see it.
    fn path(&self, name: &str) -> String {
        self.agent.runtime_dir().join(name).to_string_lossy().into_owned()
    }
}

impl Core {
    /// Which of the two has ended, and its last words.
    fn obituary(&self) -> Option<(&'static str, String)> {
        let server = ended(&*self.server).map(|words| ("pipewire", words));
        server.or_else(|| Some(("wireplumber", ended(&*self.manager)?)))
    }
}

impl Pause {
    const FIRST: Self = Self(FIRST_PAUSE);

    fn longer(self) -> Self {
        Self((self.0 * 2).min(LONGEST_PAUSE))
    }

    /// What ended now had begun then.
    fn after(&mut self, began: Instant) {
        *self = if began.elapsed() >= STEADY { Self::FIRST } else { self.longer() };
    }
}

const SERVER_FILE: &str = "pf-pipewire.conf";
const PULSE_FILE: &str = "pf-pulse.conf";
const MANAGER_FILE: &str = "pf-wireplumber.conf";

fn spec(program: &str, arguments: Vec<String>) -> ProcessSpec {
    // Whatever would look for a bus, and start one if it can, is told at once that there is none.
    let without_bus = ("DBUS_SESSION_BUS_ADDRESS".to_owned(), "disabled:".to_owned());
    ProcessSpec {
        program: program.to_owned(),
        arguments,
        environment: BTreeMap::from([without_bus]),
        keeps_last_words: true,
    }
}

fn ended(process: &dyn Process) -> Option<String> {
    process.wait(Duration::ZERO).then(|| process.obituary().unwrap_or_default())
}

fn agent_could_not(doing: &'static str) -> impl Fn(crate::agent::AgentError) -> SoundError {
    move |source| SoundError::Agent { doing, source }
}
