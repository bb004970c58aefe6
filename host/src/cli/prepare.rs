//! The rooms of a host that streams, put together one after the other behind the owner's doors, which are open already.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;

use super::agents::Agents;
use super::doors::{self, Console};
use super::report::{APPS, reached_at, report, titles};
use super::rooms::Rooms;
use super::serve::folders_of;
use super::system::Playing;
use crate::agent::AgentStarter;
use crate::backup::homes::Homes;
use crate::backup::{Backups, Strength};
use crate::config::{Config, Encryption, Held, NotOffered};
use crate::discovery::{Announcement, DiscoveryOptions, Responder};
use crate::gamestream::{Door, DoorParts, EncryptionPolicy, Options, Ports, SharedTuning};
use crate::identity::Identity;
use crate::machine::storage::{self, Folder};
use crate::mgmt::wire::{Backend, Listen, StatusReport};
use crate::mgmt::{Basics, Failure, LocalName, MgmtHandles, Problems, Startup};
use crate::os::OsDesk;
use crate::pairing::PairingDesk;
use crate::session::apps::{LeftOut, Offer, of_config, offer};
use crate::session::{Register, SessionDesk, SessionOptions, Sessions, Sounds};
use crate::store::Store;
use crate::stream::EndReason;

/// What is done while the doors are open already, in this order.
pub(super) const STEPS: &[&str] = &[
    "loading the host's key",
    "trying displays, the encoder and sound",
    "asking who starts sessions",
    "opening the ports that clients use",
];

/// What strangers are told if one of these fails, in the same order.
pub(super) const FAILED: &[&str] = &[
    "The host cannot use its key. Its owner can see more after logging in.",
    "The host could not try displays, the encoder and sound. Its owner can see more after logging in.",
    "The host could not set up sessions. Its owner can see more after logging in.",
    "The host cannot open the ports that clients use. Its owner can see more after logging in.",
];

/// What the rooms are put together from.
pub(super) struct Preparation {
    pub(super) config: Config,
    /// What is there already.
    pub(super) basics: Basics,
    /// Told who plays, once somebody can.
    pub(super) playing: Playing,
    /// The system, where that is worth telling.
    pub(super) system: Option<Backend>,
    pub(super) socket: PathBuf,
    pub(super) state_dir: Option<PathBuf>,
    pub(super) store: Result<Store, Failure>,
    pub(super) pairing: PairingDesk,
    pub(super) console: Option<Console>,
    /// The ports that a service manager has opened for the console.
    pub(super) handed: Vec<u16>,
    pub(super) problems: Problems,
    pub(super) startup: Startup,
    /// Told once the host is announced, and when it is announced by another name.
    pub(super) local_name: LocalName,
}

/// The rooms of a host that streams.
pub(super) struct Host {
    door: Door,
    pub(super) announcement: Option<Announcement>,
    sessions: Arc<Sessions>,
    pub(super) handles: MgmtHandles,
    pub(super) state_dir: PathBuf,
    /// Problems that have not been logged yet.
    pub(super) news: Vec<String>,
}

impl Host {
    /// Somebody plays, or could at any moment without asking again.
    pub(super) fn is_in_use(&self) -> bool {
        self.sessions.sessions().iter().any(|session| session.ended.is_none())
    }

    /// No new requests, then the sessions, then the goodbyes.
    pub(super) async fn close(self) -> anyhow::Result<()> {
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
pub(super) async fn prepare(preparation: Preparation) -> anyhow::Result<Host> {
    let Preparation { config, basics, playing, pairing, problems, startup, .. } = preparation;
    let told = problems.all().len();
    let store = preparation.store?;
    let state_dir = preparation.state_dir.context("there is no folder for the host's state")?;
    let keep = store.clone();
    let identity = tokio::task::spawn_blocking(move || Identity::load_or_create(&keep)).await??;
    let identity = Arc::new(identity);

    startup.next_step();
    let examiner = basics.examiner.with("--running");
    let mut rooms = tokio::task::spawn_blocking({
        let examiner = examiner.clone();
        move || Rooms::probe(&examiner)
    })
    .await?;

    startup.next_step();
    let agents = tokio::task::spawn_blocking({
        let (config, folder) = (config.clone(), session_dir(&preparation.socket));
        let handed = preparation.handed.clone();
        move || Agents::choose(&config, folder, &handed)
    })
    .await?;
    rooms.found.push(agents.found);
    problems.set("rooms", rooms.problems.iter().cloned().chain(agents.problem).collect());
    let starter = agents.starter;
    let sessions = Arc::new(sessions_of(&config, &rooms, Arc::clone(&starter), &store)?);
    // It is set once.
    let _ = playing.set(sessions.clone() as Arc<dyn SessionDesk>);
    rooms.found.extend(preparation.system);

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
    let displays = rooms.displays.keys().cloned().collect();
    let hold = hold(&sessions, door.tuning(), displays, problems.clone());
    let settings = basics.settings.clone();
    tokio::task::spawn_blocking(move || settings.attach(hold)).await?;
    let named = preparation.local_name;
    let announcement = announce(&config, &identity, door.ports(), &problems, named).await?;
    let console = preparation.console;
    let live = Live {
        status: report(&config, &options.listen.to_string(), door.ports(), &rooms),
        places: Box::new(move || (reached_at(), console.map(Console::listens))),
        sessions: sessions.clone(),
        os: basics.os.clone(),
        problems,
        folders: folders_of(&state_dir, config.appliance),
        responder: announcement.as_ref().map(Announcement::responder),
    };
    let news = live.report().problems.into_iter().skip(told).collect();
    let basics = Basics { examiner, ..basics };
    let handles = handles_of(basics, pairing, store, (sessions.clone(), starter), live);
    Ok(Host { door, announcement, sessions, handles, state_dir, news })
}

/// What the owner's doors open to, once all is there.
fn handles_of(
    basics: Basics,
    desk: PairingDesk,
    store: Store,
    (sessions, agents): (Arc<Sessions>, Arc<dyn AgentStarter>),
    live: Live,
) -> MgmtHandles {
    let Basics { settings, examiner, os, power, backups, .. } = basics;
    let backups = backups.unwrap_or_else(|| Backups::new(store.clone(), Strength::default()));
    MgmtHandles {
        desk,
        sessions,
        status: Arc::new(move || live.report()),
        examiner,
        settings,
        homes: Homes::new(&backups, agents),
        backups,
        store,
        os,
        power,
    }
}

/// Sessions without apps: those are offered as soon as the settings are put to use.
fn sessions_of(
    config: &Config,
    rooms: &Rooms,
    agents: Arc<dyn AgentStarter>,
    store: &Store,
) -> anyhow::Result<Sessions> {
    let register = Register::open(store.clone()).context("no thread for past sessions")?;
    let store = store.clone();
    let sessions = Sessions::new(SessionOptions {
        apps: vec![],
        displays: rooms.displays.clone(),
        encoder: Arc::clone(&rooms.encoder),
        codecs: rooms.codecs.clone(),
        sound: Sounds { programs: rooms.sound.clone(), ..Sounds::default() },
        max_sessions: config.limits.sessions,
        agents,
        profile: Box::new(move |client| {
            store.profile_of(client).map_err(|error| error.to_string())
        }),
    });
    Ok(sessions.with_register(register))
}

/// The status, as of now.
struct Live {
    /// What does not change while the host runs.
    status: StatusReport,
    /// Where it is reached, and its console, as of when it is asked.
    places: Box<dyn Fn() -> (Listen, Option<Listen>) + Send + Sync>,
    sessions: Arc<Sessions>,
    os: OsDesk,
    problems: Problems,
    /// Whose disks are looked at, the first that is in trouble being told.
    folders: Vec<Folder>,
    responder: Option<Responder>,
}

impl Live {
    fn report(&self) -> StatusReport {
        // They may be on one disk, which is told once.
        let trouble = self.folders.iter().find_map(storage::trouble);
        self.problems.set("disk", trouble.into_iter().collect());
        self.problems.set("system", self.os.remarks());
        if self.responder.as_ref().is_some_and(|responder| !responder.runs()) {
            let ended = "clients do not find this host by themselves any more: what announced it has ended. Add it by \
                         its address, or start the host again";
            self.problems.set(DISCOVERY, vec![ended.to_owned()]);
        }
        let mut report = self.status.clone();
        let (reached_at, console) = (self.places)();
        report.listens.insert(0, reached_at);
        report.listens.extend(console);
        report.problems = self.problems.all();
        // The owner may have changed them in the console.
        if let Some(apps) = report.backends.iter_mut().find(|backend| backend.room == APPS) {
            apps.chosen = titles(&self.sessions.apps());
        }
        report
    }
}

/// The part that says whether clients find the host.
pub(super) const DISCOVERY: &str = "discovery";

/// What the owner is told where nothing of theirs can be played.
const ONLY_THE_TEST_CARD: &str = "no app that is wanted can run here, so clients are offered the Test card; show one of \
                                  the built-in apps or add one that works";

/// Puts to use what of a changed configuration can hold while the host runs.
fn hold(
    sessions: &Arc<Sessions>,
    tuning: SharedTuning,
    displays: BTreeSet<String>,
    problems: Problems,
) -> impl Fn(&Held) -> Vec<NotOffered> + Send + Sync + 'static {
    let sessions = Arc::clone(sessions);
    move |held| {
        let config = &held.config;
        sessions.set_max_sessions(config.limits.sessions);
        tuning.set(options_of(config).tuning());
        let Offer { apps, left_out, instead } = offer(of_config(config), &displays);
        sessions.set_apps(apps);
        problems.set("configuration", held.problems.iter().map(ToString::to_string).collect());
        let sentence =
            |app: &LeftOut| format!("the app \"{}\" is not offered: {}", app.title, app.reason);
        let only = instead.then(|| ONLY_THE_TEST_CARD.to_owned());
        problems.set("apps", left_out.iter().map(sentence).chain(only).collect());
        let reason = |LeftOut { title, reason }| NotOffered { title, reason };
        left_out.into_iter().map(reason).collect()
    }
}

/// Says that the host is here, where that is wanted and works; a host that is not announced is still one.
async fn announce(
    config: &Config,
    identity: &Identity,
    ports: Ports,
    problems: &Problems,
    local_name: LocalName,
) -> anyhow::Result<Option<Announcement>> {
    if !config.discovery {
        return Ok(None);
    }
    let options = DiscoveryOptions {
        name: config.name.clone(),
        host_id: identity.host_id().to_owned(),
        http_port: Some(ports.http),
    };
    let start = move || Announcement::start(&options, move |name| local_name.add(name));
    let started = tokio::task::spawn_blocking(start).await?;
    if let Err(error) = &started {
        let sentence = format!(
            "clients will not find this host by themselves, add it by its address: {error}"
        );
        problems.set(DISCOVERY, vec![sentence]);
    }
    Ok(started.ok())
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    use super::*;
    use crate::agent::Local;
    use crate::config::{AppConfig, AppDisplay, ConfigDesk, Layers, SettingValue, load};
    use crate::display::DisplayBackend;
    use crate::display::pattern::PatternBackend;
    use crate::encode::x264::X264Backend;
    use crate::machine::storage::Purpose;

    #[test]
    fn what_is_wrong_is_told_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let pattern: (String, Arc<dyn DisplayBackend>) =
            ("pattern".to_owned(), Arc::new(PatternBackend::default()));
        let sessions = Arc::new(Sessions::new(SessionOptions {
            apps: vec![],
            displays: BTreeMap::from([pattern]),
            encoder: Arc::new(X264Backend),
            codecs: vec![],
            sound: Sounds::default(),
            max_sessions: 1,
            agents: Arc::new(Local::new(folder.path().join("sessions"), None)),
            profile: Box::new(|_| Err("nobody plays here".to_owned())),
        }));
        let layers = Layers { machine_name: Some("box".to_owned()), ..Layers::default() };
        let loaded = load(&layers);
        let problems = Problems::default();
        problems.set("beginning", vec!["no encoder".to_owned()]);
        let apps = Backend {
            room: APPS.to_owned(),
            chosen: String::new(),
            why: "what can run here".to_owned(),
        };
        let at = |protocol: &str, address: &str| Listen {
            protocol: protocol.to_owned(),
            address: address.to_owned(),
        };
        let now = Arc::new(Mutex::new("no network yet"));
        let reached = Arc::clone(&now);
        let live = Live {
            status: StatusReport {
                backends: vec![apps],
                listens: vec![at("a port", "1")],
                ..StatusReport::default()
            },
            places: Box::new(move || {
                let now = *reached.lock().unwrap();
                (at("reached at", now), Some(at("console", now)))
            }),
            sessions: Arc::clone(&sessions),
            os: OsDesk::absent(),
            problems: problems.clone(),
            folders: vec![Folder::of(Purpose::State, folder.path().join("gone"))],
            responder: None,
        };
        let tuning = SharedTuning::new(options_of(&loaded.config).tuning());
        let desk = ConfigDesk::before(layers, Ok(store), loaded);
        desk.attach(hold(&sessions, tuning, ["pattern".to_owned()].into(), problems));
        let desktop =
            "the app \"Desktop\" is not offered: its display backend \"sway\" does not work here";
        assert_eq!(live.report().problems, ["no encoder", desktop]);
        assert_eq!(live.report().backends[0].chosen, "Test card");
        let listens = |now| vec![at("reached at", now), at("a port", "1"), at("console", now)];
        assert_eq!(live.report().listens, listens("no network yet"));
        *now.lock().unwrap() = "192.0.2.7";
        assert_eq!(live.report().listens, listens("192.0.2.7"));

        let game = vec![vec!["game".to_owned()]];
        let game = AppConfig::new(Some("Game"), AppDisplay::Sway, game, None).unwrap();
        desk.put_app(&game).unwrap();
        assert!(live.report().problems[2].contains("\"Game\" is not offered"));
        desk.remove_app("Game").unwrap();
        desk.change(&[("apps.desktop".to_owned(), SettingValue::Boolean(false))].into()).unwrap();
        assert_eq!(live.report().problems, ["no encoder"]);

        // Both lawful, and together they would leave nothing.
        desk.change(&[("apps.test_card".to_owned(), SettingValue::Boolean(false))].into()).unwrap();
        assert_eq!(live.report().problems, ["no encoder", ONLY_THE_TEST_CARD]);
        assert_eq!(live.report().backends[0].chosen, "Test card");
    }
}
