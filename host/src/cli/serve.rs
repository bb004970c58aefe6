//! `serve`: puts the rooms together, opens the doors, and closes them in order.
//!
//! The order of the start is the order of what can fail for good: state and identity, then backends (a missing one is
//! told and left out), then sockets. The order of the end: no new requests, then the sessions, then the goodbyes, then
//! the local socket, so that the owner can ask what goes on until the last moment.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

use super::ServeArguments;
use super::agents::Agents;
use super::doctor::{Places, examiner, scratch_of};
use super::rooms::Rooms;
use crate::access::{Access, AccessOptions};
use crate::config::{self, Config, Encryption, Layers};
use crate::discovery::{Announcement, DiscoveryError, DiscoveryOptions};
use crate::gamestream::{Door, DoorParts, EncryptionPolicy, Options, Ports};
use crate::identity::Identity;
use crate::listen::any_address;
use crate::mgmt::wire::{Backend, Listen, StatusReport};
use crate::mgmt::{
    MgmtHandles, MgmtOptions, MgmtServer, SocketEnvironment, Startup, default_socket,
};
use crate::pairing::{DeskMode, DeskOptions, PairingDesk, PairingEvent};
use crate::session::apps::{AppSpec, DESKTOP, TEST_CARD, built_in, offer};
use crate::session::{App, SessionDesk, SessionOptions, Sessions, Sounds};
use crate::store::Store;
use crate::stream::EndReason;

pub(super) fn run(arguments: &ServeArguments) -> anyhow::Result<ExitCode> {
    let loaded = config::load(&Layers::of_machine(arguments.config.clone(), vec![]));
    super::log::start(&loaded.config.log)?;
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
    let problems = loaded.problems.iter().map(ToString::to_string).collect();
    runtime.block_on(serve(arguments, loaded.config, problems))
}

async fn serve(
    arguments: &ServeArguments,
    config: Config,
    mut problems: Vec<String>,
) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let socket = arguments
        .socket
        .clone()
        .or_else(|| default_socket(&SocketEnvironment::of_process()))
        .context("there is no folder for the local socket; set XDG_RUNTIME_DIR or give --socket")?;
    let state_dir = (arguments.state_dir.clone().or_else(|| config.state_folder.clone()))
        .or_else(config::default_state_folder)
        .context("there is no folder for the host's state; set HOME or give --state-dir")?;
    let (store, identity, access) = tokio::task::spawn_blocking({
        let state_dir = state_dir.clone();
        move || -> anyhow::Result<_> {
            let store = Store::open(&state_dir)?;
            let identity = Identity::load_or_create(&store)?;
            let access = Access::open(store.clone(), AccessOptions::of_machine(state_dir))?;
            Ok((store, Arc::new(identity), access))
        }
    })
    .await??;

    let examiner = examiner(
        &Places {
            state_dir: &state_dir,
            scratch: &scratch_of(&socket),
            config: arguments.config.as_deref(),
        },
        true,
    )?;
    let mut rooms = tokio::task::spawn_blocking({
        let examiner = examiner.clone();
        move || Rooms::probe(&examiner)
    })
    .await?;
    let agents = tokio::task::spawn_blocking({
        let (config, folder) = (config.clone(), session_dir(&socket));
        move || Agents::choose(&config, folder)
    })
    .await?;
    rooms.found.push(agents.found);
    problems.extend(agents.problem);
    let (apps, left_out) = offer(all_apps(&config), &rooms.displays.keys().cloned().collect());
    problems.extend(rooms.problems.iter().cloned());
    problems.extend(
        left_out
            .iter()
            .map(|app| format!("the app \"{}\" is not offered: {}", app.title, app.reason)),
    );
    let sessions = Arc::new(Sessions::new(SessionOptions {
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
    }));
    let mode = if arguments.foreground { DeskMode::Prompt } else { DeskMode::Armed };
    let pairing = PairingDesk::new(DeskOptions::new(mode));

    let options = gamestream_options(&config);
    let mut door = Door::open(
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
    let status = Arc::new(report(
        &config,
        &options.listen.to_string(),
        door.ports(),
        &rooms,
        &apps,
        problems,
    ));
    let mgmt = MgmtServer::start(
        &MgmtOptions { socket, owner_uid: arguments.owner_uid.or(config.owner_uid) },
        Startup::complete(MgmtHandles {
            desk: pairing.clone(),
            store,
            sessions: sessions.clone(),
            status: {
                let status = Arc::clone(&status);
                Arc::new(move || StatusReport::clone(&status))
            },
            examiner,
        })
        .with_access(access),
    )?;
    if arguments.foreground {
        say(describe(&status).trim_end());
        say(&how_to_pair(&config.name, mgmt.socket()));
    }
    for problem in &status.problems {
        warn!("{problem}");
    }
    info!(state = %state_dir.display(), "the host is ready");
    tell_systemd(&[sd_notify::NotifyState::Ready]);

    watch(&pairing, &mut signals, arguments.foreground).await;

    tell_systemd(&[sd_notify::NotifyState::Stopping]);
    if arguments.foreground {
        say("\nStopping ...");
    }
    door.stop_asking().await;
    tokio::task::spawn_blocking(move || sessions.shut_down(EndReason::Shutdown)).await?;
    if let Some(announcement) = announcement {
        tokio::task::spawn_blocking(move || announcement.stop()).await?;
    }
    door.close().await;
    mgmt.stop().await;
    info!("the host has stopped");
    Ok(ExitCode::SUCCESS)
}

/// Waits for a signal; meanwhile shows pairing requests and feeds systemd's watchdog.
async fn watch(pairing: &PairingDesk, signals: &mut Signals, foreground: bool) {
    let mut events = pairing.events();
    let mut watchdog = tokio::time::interval(watchdog_period());
    loop {
        tokio::select! {
            () = signals.stop() => return,
            _ = watchdog.tick() => tell_systemd(&[sd_notify::NotifyState::Watchdog]),
            event = events.recv() => match event {
                Ok(event) if foreground => show(&event),
                Ok(PairingEvent::Refused { remote, refusal }) => {
                    warn!(%remote, %refusal, "a device may not pair");
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            },
        }
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

fn all_apps(config: &Config) -> Vec<AppSpec> {
    let own = config.apps.iter().map(|app| AppSpec {
        title: app.title.clone(),
        display: app.display.name().to_owned(),
        commands: app.commands.clone(),
        art: app.art.clone(),
    });
    // An app of the owner's replaces the built-in one of the same title.
    let own: Vec<AppSpec> = own.collect();
    let titles: BTreeSet<&str> = own.iter().map(|app| app.title.as_str()).collect();
    let mut apps: Vec<AppSpec> =
        built_in().into_iter().filter(|app| !titles.contains(app.title.as_str())).collect();
    apps.retain(|app| match app.title.as_str() {
        TEST_CARD => config.built_in.test_card,
        DESKTOP => config.built_in.desktop,
        _ => true,
    });
    apps.extend(own);
    apps
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

fn report(
    config: &Config,
    listen: &str,
    ports: Ports,
    rooms: &Rooms,
    apps: &[App],
    problems: Vec<String>,
) -> StatusReport {
    let at = |protocol: &str, address: String| Listen { protocol: protocol.to_owned(), address };
    let everywhere = if listen == "::" || listen == "0.0.0.0" { "every address" } else { listen };
    let port = |protocol: &str, port: u16| at(protocol, format!("{everywhere}, port {port}"));
    let mut backends = rooms.found.clone();
    backends.push(Backend {
        room: "apps".to_owned(),
        chosen: apps.iter().map(|app| app.title.as_str()).collect::<Vec<_>>().join(", "),
        why: "what can run here".to_owned(),
    });
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.name.clone(),
        listens: vec![
            at("reached at", local_addresses()),
            port("GameStream HTTP", ports.http),
            port("GameStream HTTPS", ports.https),
            port("GameStream RTSP", ports.rtsp),
            port("GameStream video (UDP)", ports.video),
            port("GameStream control (UDP)", ports.control),
            port("GameStream audio (UDP)", ports.audio),
        ],
        backends,
        problems,
        near: near(listen, ports.http),
    }
}

/// Where a client on this machine finds plain HTTP.
fn near(listen: &str, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = listen.parse().ok()?;
    let everywhere = address.is_unspecified();
    Some(SocketAddr::new(if everywhere { Ipv4Addr::LOCALHOST.into() } else { address }, port))
}

/// Where clients may find this machine: every address of an interface that is up, but for loopback and link-local ones,
/// which no person types.
fn local_addresses() -> String {
    let interfaces = match nix::ifaddrs::getifaddrs() {
        Ok(interfaces) => interfaces,
        Err(error) => return format!("its addresses could not be read: {error}"),
    };
    let addresses: BTreeSet<IpAddr> = interfaces
        .filter(|interface| interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| Some(IpAddr::from(address.as_sockaddr_in6()?.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect();
    if addresses.is_empty() {
        return "no network yet".to_owned();
    }
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The status for people.
pub(super) fn describe(status: &StatusReport) -> String {
    let mut text = format!("\npunktfunk {} - \"{}\"\n", status.version, status.name);
    let mut line = |head: &str, rest: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {head:<26}{rest}");
    };
    for listen in &status.listens {
        line(&listen.protocol, &listen.address);
    }
    for backend in &status.backends {
        line(&backend.room, &format!("{} ({})", backend.chosen, backend.why));
    }
    for problem in &status.problems {
        line("! problem", problem);
    }
    text
}

fn how_to_pair(name: &str, socket: &Path) -> String {
    format!(
        "\nOpen Moonlight on your TV, phone or PC and choose \"{name}\". It shows a PIN; then run, in \
         another terminal:\n  {} pair <PIN>\n(local socket: {})\nCtrl-C stops the host.\n",
        program(),
        socket.display()
    )
}

/// How this program was called, so that what is printed can be typed.
fn program() -> String {
    std::env::var("PUNKTFUNK_PROGRAM")
        .ok()
        .or_else(|| Some(std::env::current_exe().ok()?.display().to_string()))
        .unwrap_or_else(|| "punktfunk-host".to_owned())
}

fn gamestream_options(config: &Config) -> Options {
    let gamestream = &config.gamestream;
    Options {
        // A machine without IPv6 cannot listen on `::`, which is the default and means "everywhere".
        listen: if config.listen.address.is_unspecified() {
            any_address()
        } else {
            config.listen.address
        },
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
