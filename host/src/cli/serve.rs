//! `serve`: puts the rooms together, opens the doors, and closes them in order.
//!
//! The owner's doors open first and stay ([`doors`](super::doors)); the rest is put together behind them, and what fails
//! for good is told there. Its order is the order of what can fail: identity, then backends (a missing one is told and
//! left out), then sockets. The order of the end: no new requests, then the sessions, then the goodbyes, then the
//! owner's doors, so that the owner can ask what goes on until the last moment.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::ServeArguments;
use super::agents::Agents;
use super::doctor::{Places, examiner, scratch_of};
use super::doors::{self, Doors, Memory};
use super::report::{APPS, describe, how_to_pair, program, report, titles};
use super::rooms::Rooms;
use super::system::System;
use crate::backup::{Backups, Strength};
use crate::config::{self, Config, ConfigDesk, Encryption, Layers, Loaded, NotOffered};
use crate::discovery::{self, Announcement, DiscoveryError, DiscoveryOptions};
use crate::gamestream::{Door, DoorParts, EncryptionPolicy, Options, Ports, SharedTuning};
use crate::identity::Identity;
use crate::logbook::Logbook;
use crate::machine::storage::{Folder, Purpose};
use crate::mgmt::wire::{Listen, StatusReport};
use crate::mgmt::{Always, MgmtHandles, SocketEnvironment, Stage, Startup, default_socket};
use crate::pairing::{DeskMode, DeskOptions, PairingDesk, PairingEvent};
use crate::session::apps::{LeftOut, of_config, offer};
use crate::session::{Register, SessionDesk, SessionOptions, Sessions, Sounds};
use crate::store::Store;
use crate::stream::EndReason;

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
    let socket = arguments
        .socket
        .clone()
        .or_else(|| default_socket(&SocketEnvironment::of_process()))
        .context("there is no folder for the local socket; set XDG_RUNTIME_DIR or give --socket")?;
    let state_dir = (arguments.state_dir.clone().or_else(|| config.state_folder.clone()))
        .or_else(config::default_state_folder);
    let memory = tokio::task::spawn_blocking({
        let (state_dir, name) = (state_dir.clone(), config.name.clone());
        move || Memory::open(state_dir.as_deref(), &name)
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
    let config = loaded.config.clone();
    let mut problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    let credentials = doors::credentials(&memory);
    let about = doors::about(&config, &memory.console, &credentials);
    let local_name = Arc::<OnceLock<String>>::default();
    let mut startup = Startup::new(STEPS).about(about).with(Always {
        logbook,
        folders: state_dir.as_deref().map(folders_of).unwrap_or_default(),
        settings: config::in_force(&config).into(),
        local_name: Arc::clone(&local_name),
    });
    if let Some(access) = &memory.access {
        startup = startup.with_access(access.clone());
    }
    let owner_uid = config.owner_uid;
    let places = doors::Places { socket: socket.clone(), owner_uid };
    let doors = Doors::open(places, &config, &memory.console, &startup, credentials)?;
    problems.extend(memory.problems.iter().chain(&doors.problems).cloned());
    problems.iter().for_each(|problem| warn!("{problem}"));
    if arguments.foreground {
        introduce(&doors, &memory, config.appliance);
    }
    // A box asks nobody at a terminal: until it has an owner, nobody but root can arm it.
    let prompts = arguments.foreground && !config.appliance;
    let mode = if prompts { DeskMode::Prompt } else { DeskMode::Armed };
    let pairing = PairingDesk::new(DeskOptions::new(mode));
    let preparing = tokio::spawn(prepare(Preparation {
        layers,
        loaded,
        demo: arguments.demo,
        named_config: arguments.config.clone(),
        socket,
        state_dir,
        store: memory.store,
        pairing: pairing.clone(),
        console: doors.listens(),
        problems,
        startup: startup.clone(),
        local_name,
    }));

    let host = watch(preparing, &startup, &pairing, &mut signals, arguments, &doors).await;

    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    if arguments.foreground {
        say("\nStopping ...");
    }
    if let Some(host) = host {
        host.close().await?;
    }
    doors.close().await;
    info!("the host has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Where the console is, for whoever watches.
fn introduce(doors: &Doors, memory: &Memory, is_appliance: bool) {
    if let Some(address) = &doors.address {
        say(&format!(
            "\nConsole: {address}\n  Its certificate has the SHA-256 fingerprint\n  {}\n",
            memory.console.fingerprint()
        ));
        // What a box prints is kept in its journal, where others may read it; its screen shows the link.
        let link = doors::claim_link(memory, address).filter(|_| !is_appliance);
        if let Some(link) = link {
            say(&format!(
                "This host has no owner yet. Whoever opens this link becomes it:\n  {}\n",
                *link
            ));
        }
    }
}

/// What is done while the doors are open already, in this order.
const STEPS: &[&str] = &[
    "loading the host's key",
    "trying displays, the encoder and sound",
    "asking who starts sessions",
    "opening the ports that clients use",
];

/// What the rooms are put together from.
struct Preparation {
    layers: Layers,
    loaded: Loaded,
    /// The system is a simulated one.
    demo: bool,
    named_config: Option<PathBuf>,
    socket: PathBuf,
    state_dir: Option<PathBuf>,
    store: Result<Store, String>,
    pairing: PairingDesk,
    console: Option<Listen>,
    problems: Vec<String>,
    startup: Startup,
    /// Set once the host is announced.
    local_name: Arc<OnceLock<String>>,
}

/// The rooms of a host that streams.
struct Host {
    door: Door,
    announcement: Option<Announcement>,
    sessions: Arc<Sessions>,
    status: Arc<StatusReport>,
    handles: MgmtHandles,
    state_dir: PathBuf,
    /// As many of the problems have been logged already.
    told: usize,
}

impl Host {
    /// No new requests, then the sessions, then the goodbyes.
    async fn close(self) -> anyhow::Result<()> {
        let Self { mut door, announcement, sessions, .. } = self;
        door.stop_asking().await;
        tokio::task::spawn_blocking(move || sessions.shut_down(EndReason::Shutdown)).await?;
        if let Some(announcement) = announcement {
            tokio::task::spawn_blocking(move || announcement.stop()).await?;
        }
        door.close().await;
        Ok(())
    }
}

/// Puts the rooms together, step by step.
async fn prepare(preparation: Preparation) -> anyhow::Result<Host> {
    let Preparation { layers, loaded, socket, state_dir, pairing, mut problems, startup, .. } =
        preparation;
    let config = loaded.config.clone();
    let told = problems.len();
    let store = preparation.store.map_err(anyhow::Error::msg)?;
    let state_dir = state_dir.context("there is no folder for the host's state")?;
    let identity = tokio::task::spawn_blocking({
        let store = store.clone();
        move || Identity::load_or_create(&store)
    })
    .await??;
    let identity = Arc::new(identity);

    startup.next_step();
    let examiner = examiner(
        &Places {
            state_dir: &state_dir,
            scratch: &scratch_of(&socket),
            config: preparation.named_config.as_deref(),
        },
        true,
    )?;
    let mut rooms = tokio::task::spawn_blocking({
        let examiner = examiner.clone();
        move || Rooms::probe(&examiner)
    })
    .await?;

    startup.next_step();
    let agents = tokio::task::spawn_blocking({
        let (config, folder) = (config.clone(), session_dir(&socket));
        move || Agents::choose(&config, folder)
    })
    .await?;
    rooms.found.push(agents.found);
    problems.extend(agents.problem);
    let (apps, left_out) = offer(of_config(&config), &rooms.displays.keys().cloned().collect());
    problems.extend(rooms.problems.iter().cloned());
    problems.extend(
        left_out
            .iter()
            .map(|app| format!("the app \"{}\" is not offered: {}", app.title, app.reason)),
    );
    let register = Register::open(store.clone()).context("no thread for past sessions")?;
    let sessions = Sessions::new(SessionOptions {
        apps: apps.clone(),
        displays: rooms.displays.clone(),
        encoder: Arc::clone(&rooms.encoder),
        codecs: rooms.codecs.clone(),
        sound: Sounds { programs: rooms.sound.clone(), ..Sounds::default() },
        max_sessions: config.limits.sessions,
        agents: agents.starter,
        profile: {
            let store = store.clone();
            Box::new(move |client| store.profile_of(client).map_err(|error| error.to_string()))
        },
    });
    let sessions = Arc::new(sessions.with_register(register));
    let system = tokio::task::spawn_blocking({
        let (state_dir, store) = (state_dir.clone(), store.clone());
        let sessions: Arc<dyn SessionDesk> = sessions.clone();
        move || System::open(preparation.demo, &state_dir, &store, sessions)
    })
    .await??;
    rooms.found.extend(system.found);
    problems.extend(system.problem);

    startup.next_step();
    let options = gamestream_options(&config);
    let door = Door::open(
        &options,
        DoorParts {
            desk: sessions.clone(),
            store: store.clone(),
            identity: Arc::clone(&identity),
            pairing: pairing.clone(),
        },
    )?;
    let announcement = if config.discovery {
        announce(&config, &identity, door.ports(), &mut problems).await?
    } else {
        None
    };
    if announcement.is_some() {
        // It is set once.
        let _ = preparation.local_name.set(discovery::local_name(identity.host_id()));
    }
    let listen = options.listen.to_string();
    let mut status = report(&config, &listen, door.ports(), &rooms, &apps, problems);
    status.listens.extend(preparation.console);
    let status = Arc::new(status);
    let settings = tokio::task::spawn_blocking({
        let hold = hold(&sessions, door.tuning(), rooms.displays.keys().cloned().collect());
        let store = store.clone();
        move || ConfigDesk::new(layers, store, loaded, hold)
    })
    .await?;
    let handles = MgmtHandles {
        desk: pairing,
        sessions: sessions.clone(),
        status: {
            let (status, sessions) = (Arc::clone(&status), Arc::clone(&sessions));
            Arc::new(move || {
                let mut report = StatusReport::clone(&status);
                let mut backends = report.backends.iter_mut();
                // The owner may have changed them in the console.
                if let Some(apps) = backends.find(|backend| backend.room == APPS) {
                    apps.chosen = titles(&sessions.apps());
                }
                report
            })
        },
        examiner,
        settings,
        backups: Backups::new(store.clone(), Strength::default()),
        store,
        os: system.os,
        power: system.power,
    };
    Ok(Host { door, announcement, sessions, status, handles, state_dir, told })
}

/// Waits for a signal; meanwhile takes over the host when it is put together, shows pairing requests and feeds
/// systemd's watchdog. Gives the host back, if there is one.
async fn watch(
    mut preparing: JoinHandle<anyhow::Result<Host>>,
    startup: &Startup,
    pairing: &PairingDesk,
    signals: &mut Signals,
    arguments: &ServeArguments,
    doors: &Doors,
) -> Option<Host> {
    /// A start that hangs does not keep the host from ending.
    const PREPARE_LIMIT: Duration = Duration::from_secs(15);
    let mut events = pairing.events();
    let mut watchdog = tokio::time::interval(watchdog_period());
    let mut host = None;
    loop {
        let is_starting = matches!(startup.stage(), Stage::Starting { .. });
        tokio::select! {
            () = signals.stop() => {
                if is_starting && let Ok(started) = timeout(PREPARE_LIMIT, preparing).await {
                    host = started.ok().and_then(Result::ok);
                }
                return host;
            }
            _ = watchdog.tick() => feed_watchdog(is_starting),
            started = &mut preparing, if is_starting => {
                host = take_over(started.map_err(Into::into).flatten(), startup, arguments, doors);
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

/// The host is put together, or cannot be. systemd is told that it is ready in both cases: a unit that never becomes
/// ready is killed, and with it the one place that says what is wrong. Whether a client can play, health says.
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
            error!("the host cannot stream: {reason}");
            if arguments.foreground {
                say(&format!("\n! The host cannot stream: {reason}"));
            }
            tell_systemd(&[
                sd_notify::NotifyState::Ready,
                sd_notify::NotifyState::Status("it cannot stream; its console says why"),
            ]);
            startup.failed(reason);
            return None;
        }
    };
    startup.ready(host.handles.clone());
    if arguments.foreground {
        say(describe(&host.status).trim_end());
        if let Some(socket) = doors.socket() {
            say(&how_to_pair(&host.status.name, socket));
        }
    }
    for problem in host.status.problems.iter().skip(host.told) {
        warn!("{problem}");
    }
    info!(state = %host.state_dir.display(), "the host is ready");
    tell_systemd(&[sd_notify::NotifyState::Ready]);
    Some(host)
}

/// The watchdog watches from the moment the host is ready; before that, systemd is asked for more time instead.
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
fn folders_of(state_dir: &Path) -> Vec<Folder> {
    let beside = state_dir.parent().map(|parent| parent.join("profiles"));
    let own = || std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
    let homes = beside.filter(|homes| homes.is_dir()).or_else(own);
    let homes = homes.map(|path| Folder { purpose: Purpose::Homes, path });
    let state = Folder { purpose: Purpose::State, path: state_dir.to_owned() };
    [state].into_iter().chain(homes).collect()
}

/// Puts to use what of a changed configuration can hold while the host runs.
fn hold(
    sessions: &Arc<Sessions>,
    tuning: SharedTuning,
    displays: BTreeSet<String>,
) -> impl Fn(&Config) -> Vec<NotOffered> + Send + Sync + 'static {
    let sessions = Arc::clone(sessions);
    move |config| {
        sessions.set_max_sessions(config.limits.sessions);
        tuning.set(options_of(config).tuning());
        let (apps, left_out) = offer(of_config(config), &displays);
        sessions.set_apps(apps);
        let reason = |LeftOut { title, reason }| NotOffered { title, reason };
        left_out.into_iter().map(reason).collect()
    }
}

async fn announce(
    config: &Config,
    identity: &Identity,
    ports: Ports,
    problems: &mut Vec<String>,
) -> anyhow::Result<Option<Announcement>> {
    let options = DiscoveryOptions {
        name: config.name.clone(),
        host_id: identity.host_id().to_owned(),
        http_port: ports.http,
    };
    let started = tokio::task::spawn_blocking(move || Announcement::start(&options)).await?;
    let tell = |error: &DiscoveryError| {
        problems.push(format!(
            "clients will not find this host by themselves, add it by its address: {error}"
        ));
    };
    Ok(started.inspect_err(tell).ok())
}

fn gamestream_options(config: &Config) -> Options {
    let mut options = options_of(config);
    options.listen = doors::everywhere(options.listen);
    options
}

fn options_of(config: &Config) -> Options {
    let gamestream = &config.gamestream;
    Options {
        listen: config.listen.address,
        ports: Ports {
            http: gamestream.port,
            https: gamestream.https_port(),
            rtsp: gamestream.rtsp_port(),
            video: gamestream.video_port(),
            control: gamestream.control_port(),
            audio: gamestream.audio_port(),
        },
        host_name: config.name.clone(),
        encryption: match gamestream.encryption {
            Encryption::Off => EncryptionPolicy::ControlOnly,
            Encryption::Offer => EncryptionPolicy::Offer,
            Encryption::Require => EncryptionPolicy::Require,
        },
        fec_percentage: gamestream.fec_percent,
        max_bitrate_kbps: config.limits.bitrate_kbps,
    }
}

/// The sessions' sockets lie beside the host's own, in a folder named like it: another host with another socket in the
/// same folder has its own.
fn session_dir(socket: &Path) -> PathBuf {
    socket.with_extension("sessions")
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
