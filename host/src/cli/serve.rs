//! `serve`: puts the rooms together, opens the doors, and closes them in order.
//!
//! The owner's doors open first and stay ([`doors`](super::doors)); the rest is put together behind them, and what fails
//! for good is told there. Its order is the order of what can fail: identity, then backends (a missing one is told and
//! left out), then sockets. The order of the end: no new requests, then the sessions, then the goodbyes, then the
//! owner's doors, so that the owner can ask what goes on until the last moment.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::ServeArguments;
use super::attendant::{self, Attendant, Attending, RootLine};
use super::doctor::{Places, examiner, scratch_of};
use super::doors::{self, Console, Doors, Memory};
use super::found::{Alone, Found};
use super::memory;
use super::prepare::{FAILED, Host, Preparation, STEPS, prepare};
use super::report::{describe, how_to_pair, program};
use super::system::{CutOff, Playing, System};
use crate::access::SimulatedRoot;
use crate::backup::{Backups, Strength};
use crate::config::{self, Config, ConfigDesk, Layers, Loaded};
use crate::logbook::Logbook;
use crate::machine::storage::{Folder, Purpose};
use crate::mgmt::{
    Always, Basics, Failure, LocalName, Problems, SocketEnvironment, Stage, Startup, default_socket,
};
use crate::pairing::{DeskMode, DeskOptions, PairingDesk, PairingEvent};

pub(super) fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    let loaded = config::load(&layers(arguments));
    let logbook = super::log::start(&loaded.config.log)?;
    if rustix::process::geteuid().is_root() {
        bail!(
            "the host does not run as root; use ci/start, or a service user of its own (it needs \
             no privileges)"
        );
    }
    super::memory::settle();
    // Files of the host are for the host alone.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("pf-control")
        .enable_all()
        .build()
        .context("the control threads could not be started")?;
    runtime.block_on(serve(arguments, loaded.config, logbook))
}

/// The command line's own words for settings are its layer.
fn layers(arguments: &ServeArguments) -> Layers {
    let uid = arguments.owner_uid.map(|uid| ("mgmt.owner_uid".to_owned(), uid.to_string()));
    let folder = (arguments.state_dir.as_deref())
        .and_then(|folder| std::path::absolute(folder).ok()?.into_os_string().into_string().ok())
        .map(|folder| ("state.folder".to_owned(), folder));
    Layers::of_machine(arguments.config.clone(), uid.into_iter().chain(folder).collect())
}

async fn serve(
    arguments: &ServeArguments,
    config: Config,
    logbook: Logbook,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let remembered = remember(arguments, config).await?;
    let (mut opened, preparing) = open(arguments, remembered, logbook)?;
    tell_that_doors_are_open(&opened.doors);
    let host = watch(preparing, &mut opened, &mut signals, arguments).await;
    let Opened { doors, found, attendant, .. } = opened;

    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    if arguments.foreground {
        say("\nStopping ...");
    }
    if let Some(host) = host {
        host.close().await?;
    }
    found.close().await;
    drop(attendant);
    doors.close().await;
    info!("the host has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Where the host's things are, what it remembers, and what is set.
struct Remembered {
    socket: PathBuf,
    state_dir: Option<PathBuf>,
    memory: Memory,
    layers: Layers,
    loaded: Loaded,
}

/// Reads what the host remembers. `config` says where, without what the console set, which holds from here on.
async fn remember(arguments: &ServeArguments, config: Config) -> anyhow::Result<Remembered> {
    let socket = arguments
        .socket
        .clone()
        .or_else(|| default_socket(&SocketEnvironment::of_process()))
        .context("there is no folder for the local socket; set XDG_RUNTIME_DIR or give --socket")?;
    let state_dir = (arguments.state_dir.clone().or_else(|| config.state_folder.clone()))
        .or_else(config::default_state_folder);
    let memory = tokio::task::spawn_blocking({
        let (state_dir, prepared) = (state_dir.clone(), arguments.prepared.clone());
        move || Memory::open(state_dir.as_deref(), &config.name, prepared.as_deref())
    })
    .await??;
    let layers = layers(arguments);
    let loaded = tokio::task::spawn_blocking({
        let (layers, store) = (layers.clone(), memory.store.clone().ok());
        move || match store {
            Some(store) => config::with_stored(&layers, &store),
            None => config::load(&layers),
        }
    })
    .await?;
    Ok(Remembered { socket, state_dir, memory, layers, loaded })
}

/// What is there while the host is put together, and after.
struct Opened {
    doors: Doors,
    startup: Startup,
    pairing: PairingDesk,
    found: Found,
    /// What to do about it where there is no host.
    alone: Option<Alone>,
    /// On a box: who keeps in touch with root's program.
    attendant: Option<Attendant>,
}

/// Opens the owner's doors, and begins to put the host together behind them.
fn open(
    arguments: &ServeArguments,
    remembered: Remembered,
    logbook: Logbook,
) -> anyhow::Result<(Opened, JoinHandle<anyhow::Result<Host>>)> {
    let Remembered { socket, state_dir, memory, layers, loaded } = remembered;
    let config = loaded.config.clone();
    let problems = Problems::default();
    problems.set("configuration", loaded.problems.iter().map(ToString::to_string).collect());
    let playing = Playing::default();
    let beginning = Beginning {
        arguments,
        socket: &socket,
        state_dir: state_dir.as_deref(),
        memory: &memory,
        layers,
        loaded: &loaded,
    };
    let (basics, system) = beginning.basics(&playing);
    let credentials = doors::credentials(&memory);
    let local_name = LocalName::default();
    let mut startup = Startup::new(STEPS)
        .about(doors::about(&config, &memory.console, &credentials))
        .with_basics(basics.clone())
        .with(Always {
            logbook,
            folders: (state_dir.as_deref())
                .map(|folder| folders_of(folder, config.appliance))
                .unwrap_or_default(),
            settings: config::in_force(&config).into(),
            local_name: local_name.clone(),
            problems: problems.clone(),
            appliance: config.appliance,
        });
    if let Some(access) = &memory.access {
        startup = startup.with_access(access.clone());
    }
    let name = config.name.clone();
    let places = doors::Places { socket: socket.clone(), owner_uid: config.owner_uid };
    let doors = Doors::open(places, &config, &memory.console, &startup, credentials)?;
    let beginning = memory.problems.iter().chain(&doors.problems).chain(&system.problem);
    problems.set("beginning", beginning.cloned().collect());
    problems.all().iter().for_each(|problem| warn!("{problem}"));
    if arguments.foreground {
        introduce(&doors, &memory, config.appliance);
    }
    let pairing = pairing_desk(arguments, config.appliance, &memory);
    let kept = memory.store.as_ref().ok().cloned();
    let preparing = tokio::spawn(prepare(Preparation {
        config,
        basics,
        playing,
        system: system.found,
        socket,
        state_dir,
        store: memory.store,
        pairing: pairing.clone(),
        console: doors.console,
        handed: doors.handed.clone(),
        problems: problems.clone(),
        startup: startup.clone(),
        local_name: local_name.clone(),
    }));
    let alone = Alone {
        wanted: loaded.config.discovery,
        store: kept,
        problems: problems.clone(),
        local_name: local_name.clone(),
    };
    // What is only shown has no root of its own, and never asks a real one.
    let demo = memory.access.as_ref().filter(|_| arguments.demo);
    demo.iter().for_each(|access| access.with_root(Arc::new(SimulatedRoot::new(access))));
    let attendant = memory.access.clone().filter(|_| loaded.config.appliance).map(|access| {
        let line = RootLine::default();
        access.with_root(Arc::new(line.clone()));
        Attending {
            socket: arguments.system_dir.join(attendant::SOCKET),
            of_uid: 0,
            access,
            startup: startup.clone(),
            addresses: doors.addresses(local_name),
            fingerprint: memory.console.fingerprint().to_string(),
            problems,
            pauses: attendant::PAUSES,
            look: attendant::LOOK,
            line,
        }
        .begin()
    });
    let fingerprint = memory.console.fingerprint().to_string();
    let found =
        Found::new(name, doors.console.map(|at| at.port), fingerprint, memory.access.as_ref());
    Ok((Opened { doors, startup, pairing, found, alone: Some(alone), attendant }, preparing))
}

/// The desk, which forgets what an owner has begun when that one is the owner no more.
fn pairing_desk(arguments: &ServeArguments, is_appliance: bool, memory: &Memory) -> PairingDesk {
    // A box asks nobody at a terminal: until it has an owner, nobody but root can arm it.
    let prompts = arguments.foreground && !is_appliance;
    let mode = if prompts { DeskMode::Prompt } else { DeskMode::Armed };
    let pairing = PairingDesk::new(DeskOptions::new(mode));
    if let Some(access) = &memory.access {
        let desk = pairing.clone();
        access.on_rearm(move || desk.forget_owner());
    }
    pairing
}

/// What is known before anything is put together.
struct Beginning<'a> {
    arguments: &'a ServeArguments,
    socket: &'a Path,
    state_dir: Option<&'a Path>,
    memory: &'a Memory,
    layers: Layers,
    loaded: &'a Loaded,
}

impl Beginning<'_> {
    /// What the owner mends a host with, whatever becomes of the rest; and the system, which tells who plays once it is
    /// told.
    fn basics(self, playing: &Playing) -> (Basics, System) {
        let Self { arguments, socket, state_dir, memory, layers, loaded } = self;
        let store = memory.store.as_ref().ok();
        let backups = store.map(|store| Backups::new(store.clone(), Strength::default()));
        let cut_off = CutOff { playing: Arc::clone(playing), backups: backups.clone() };
        let system = System::open(&loaded.config, arguments, state_dir, store, cut_off);
        let keep = memory.store.clone().map_err(|why| why.whole);
        let places = Places {
            // Where there is none, the checks look for the host's things where none are.
            state_dir: state_dir.unwrap_or(Path::new("/nonexistent")),
            scratch: scratch_of(socket),
            config: arguments.config.as_deref(),
        };
        let basics = Basics {
            settings: ConfigDesk::before(layers, keep, loaded.clone()),
            examiner: examiner(&places, loaded),
            os: system.os.clone(),
            power: Arc::clone(&system.power),
            store: store.cloned(),
            backups,
        };
        (basics, system)
    }
}

/// Where the console is, for whoever watches.
fn introduce(doors: &Doors, memory: &Memory, is_appliance: bool) {
    if let Some(address) = doors.console.map(Console::address) {
        say(&format!(
            "\nConsole: {address}\n  Its certificate has the SHA-256 fingerprint\n  {}\n",
            memory.console.fingerprint()
        ));
        // What a box prints is kept in its journal, where others may read it; its screen shows the link.
        let claim = doors::claim_shown(memory, &address).filter(|_| !is_appliance);
        if let Some((link, code)) = claim {
            say(&format!(
                "This host has no owner yet. Whoever has this link or this code can become its owner:\n  {}\n  {}\nThere \
                 are no pages for that yet; docs/guide/owner.md says how it goes. The commands below\nneed no owner.\n",
                *link, *code
            ));
        }
    }
}

/// Waits for a signal; meanwhile takes over the host when it is put together, shows pairing requests and feeds
/// systemd's watchdog. Gives the host back, if there is one.
async fn watch(
    mut preparing: JoinHandle<anyhow::Result<Host>>,
    opened: &mut Opened,
    signals: &mut Signals,
    arguments: &ServeArguments,
) -> Option<Host> {
    /// A start that hangs does not keep the host from ending.
    const PREPARE_LIMIT: Duration = Duration::from_secs(15);
    let Opened { doors, startup, pairing, found, alone, .. } = opened;
    let mut events = pairing.events();
    let mut watchdog = tokio::time::interval(watchdog_period());
    let mut tidying = tokio::time::interval(memory::GIVE_BACK);
    let mut host: Option<Host> = None;
    loop {
        let is_starting = matches!(startup.stage(), Stage::Starting { .. });
        tokio::select! {
            () = signals.stop() => {
                if is_starting && let Ok(started) = timeout(PREPARE_LIMIT, preparing).await {
                    host = started.ok().and_then(Result::ok);
                }
                return host;
            }
            _ = watchdog.tick() => {
                feed_watchdog(is_starting);
                found.show(host.as_mut());
            }
            () = found.changed() => found.show(host.as_mut()),
            _ = tidying.tick() => {
                if !host.as_ref().is_some_and(Host::is_in_use) {
                    memory::give_back();
                }
            }
            started = &mut preparing, if is_starting => {
                host = take_over(started.map_err(Into::into).flatten(), startup, arguments, doors);
                match (&mut host, alone.take()) {
                    (None, Some(alone)) => found.begin_alone(alone).await,
                    (host, _) => found.show(host.as_mut()),
                }
            }
            event = events.recv() => match event {
                Ok(event) if arguments.foreground => show(&event),
                Ok(PairingEvent::Refused { remote, refusal }) => {
                    warn!(%remote, %refusal, "a device may not pair");
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return host,
            },
        }
    }
}

/// From here on the console answers, and says how far the rest is: systemd need not keep anybody waiting who waits for
/// this host. Where there is no console, nobody can see anything before the host is put together.
fn tell_that_doors_are_open(doors: &Doors) {
    if doors.console.is_some() {
        tell_systemd(&[
            sd_notify::NotifyState::Ready,
            sd_notify::NotifyState::Status("its console is open and says how far the rest is"),
        ]);
    }
}

/// The host is put together, or cannot be. systemd is told that it is ready in both cases, if it does not know yet: a unit
/// that never becomes ready is killed, and with it the one place that says what is wrong. Whether a client can play,
/// health says.
fn take_over(
    started: anyhow::Result<Host>,
    startup: &Startup,
    arguments: &ServeArguments,
    doors: &Doors,
) -> Option<Host> {
    let host = match started {
        Ok(host) => host,
        Err(error) => {
            let reason = format!("{error:#}. Mend this, then start the host again.");
            let plain = match (error.downcast_ref::<Failure>(), startup.stage()) {
                (Some(failure), _) => failure.plain,
                (None, Stage::Starting { step, .. }) => FAILED.get(step - 1).unwrap_or(&FAILED[0]),
                (None, _) => FAILED[0],
            };
            error!("the host cannot stream: {reason}");
            if arguments.foreground {
                say(&format!("\n! The host cannot stream: {reason}"));
            }
            tell_systemd(&[
                sd_notify::NotifyState::Ready,
                sd_notify::NotifyState::Status("it cannot stream; its console says why"),
            ]);
            startup.failed(Failure { plain, whole: reason });
            return None;
        }
    };
    startup.ready(host.handles.clone());
    if arguments.foreground {
        let status = (host.handles.status)();
        say(describe(&status).trim_end());
        if let Some(socket) = doors.socket() {
            say(&how_to_pair(&status.name, socket));
        }
    }
    host.news.iter().for_each(|problem| warn!("{problem}"));
    info!(state = %host.state_dir.display(), "the host is ready");
    tell_systemd(&[
        sd_notify::NotifyState::Ready,
        sd_notify::NotifyState::Status("it is put together"),
    ]);
    Some(host)
}

/// The watchdog watches from the moment systemd is told that the host is ready; where that is late, because there is no
/// console, systemd is asked for more time.
fn feed_watchdog(is_starting: bool) {
    /// Longer than the longest time between two feedings.
    const MORE_TIME_USEC: u32 = 150_000_000;
    tell_systemd(&[sd_notify::NotifyState::Watchdog]);
    if is_starting {
        tell_systemd(&[sd_notify::NotifyState::ExtendTimeoutUsec(MORE_TIME_USEC)]);
    }
}

fn show(event: &PairingEvent) {
    say(&match event {
        PairingEvent::Asked(request) => format!(
            "\nA device at {} wants to pair. If it is yours, type the PIN that it shows:\n  {} pair <PIN> --request {}\n",
            request.remote,
            program(),
            request.id
        ),
        PairingEvent::Answered { request } => {
            format!("The device at {} has a PIN; pairing ...", request.remote)
        }
        PairingEvent::Ended(end) => {
            format!("The pairing with {} ended: {}", end.request.remote, end.end)
        }
        PairingEvent::Refused { remote, refusal } => {
            format!("The device at {remote} may not pair: {refusal}")
        }
        PairingEvent::Desk(_) => return,
    });
}

/// Prints a line for whoever watches. A terminal that was closed, or a pipe whose reader is gone, is no reason to end:
/// `println!` would panic there, and the sessions would be lost without a goodbye.
fn say(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// The folders whose disks the owner is told about. Homes lie beside the state, or are the own one of whoever runs the
/// host at a desk.
pub(super) fn folders_of(state_dir: &Path, appliance: bool) -> Vec<Folder> {
    let beside = state_dir.parent().map(|parent| parent.join("profiles"));
    let own = || std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let homes = beside.filter(|homes| homes.is_dir()).or_else(own);
    let homes = homes.map(|path| Folder::of(Purpose::Homes, path));
    let state = Folder::of_state(state_dir.to_owned(), appliance);
    [state].into_iter().chain(homes).collect()
}

fn tell_systemd(states: &[sd_notify::NotifyState<'_>]) {
    // Without systemd there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        warn!(%error, "systemd could not be told");
    }
}

/// Half of what systemd asks for; without a watchdog the tick is idle.
fn watchdog_period() -> Duration {
    sd_notify::watchdog_enabled().map_or(Duration::from_secs(60), |period| period / 2)
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened for");
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn stop(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
