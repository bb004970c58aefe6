//! A host in this process: real doors on free ports of loopback, real sessions, the Test card, a local socket.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use punktfunk_core::media::Codec;
use punktfunk_host::agent::Local;
use punktfunk_host::capture::pattern::Behaviour;
use punktfunk_host::display::pattern::PatternBackend;
use punktfunk_host::display::{
    DisplayBackend, DisplayError, OutputSpec, ProbeReport, VirtualOutput,
};
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::gamestream::{Door, DoorParts, EncryptionPolicy, Options, Ports};
use punktfunk_host::identity::Identity;
use punktfunk_host::mgmt::wire::StatusReport;
use punktfunk_host::mgmt::{MgmtHandles, MgmtOptions, MgmtServer, Startup};
use punktfunk_host::pairing::{DeskMode, DeskOptions, DeskState, PairingDesk};
use punktfunk_host::selftest::{self, Eraser, Report, Step, Taken, Verdict};
use punktfunk_host::session::apps::test_card;
use punktfunk_host::session::{CardSound, SessionDesk, SessionOptions, Sessions, Sounds};
use punktfunk_host::store::Store;
use punktfunk_host::stream::EndReason;
use tokio::runtime::Runtime;

/// How a host is made that is not like others.
pub(crate) struct Making {
    pub(crate) display: Option<Arc<dyn DisplayBackend>>,
    pub(crate) sound: CardSound,
    pub(crate) encryption: EncryptionPolicy,
}

impl Default for Making {
    fn default() -> Self {
        Self {
            display: Some(Arc::new(PatternBackend::default())),
            sound: Sounds::default().card,
            encryption: EncryptionPolicy::Offer,
        }
    }
}

/// A host that runs.
pub(crate) struct Rig {
    pub(crate) ports: Ports,
    pub(crate) desk: PairingDesk,
    pub(crate) store: Store,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) socket: PathBuf,
    open: Option<(Door, MgmtServer)>,
    pub(crate) runtime: Runtime,
    _folder: tempfile::TempDir,
}

impl Rig {
    pub(crate) fn start(making: Making) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime = Runtime::new().unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let identity = Arc::new(Identity::load_or_create(&store).unwrap());
        let displays = making.display.map(|display| ("pattern".to_owned(), display));
        let sessions = Arc::new(Sessions::new(SessionOptions {
            apps: vec![test_card()],
            displays: displays.into_iter().collect::<BTreeMap<_, _>>(),
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds { card: making.sound, programs: None },
            max_sessions: 1,
            // The card has no programs, so that no agent is ever started.
            agents: Arc::new(Local::new(folder.path().join("sessions"), None)),
            profile: Box::new(|_| Err("the self-test has no profile".to_owned())),
        }));
        // Nobody was ever paired here, and nobody may.
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
        let options = Options {
            listen: Ipv4Addr::LOCALHOST.into(),
            ports: Ports { http: 0, https: 0, rtsp: 0, video: 0, control: 0, audio: 0 },
            host_name: "box".to_owned(),
            encryption: making.encryption,
            fec_percentage: 20,
            max_bitrate_kbps: 50_000,
        };
        let socket = folder.path().join("run/host.sock");
        let guard = runtime.enter();
        let parts = DoorParts {
            desk: sessions.clone(),
            store: store.clone(),
            identity,
            pairing: desk.clone(),
        };
        let door = Door::open(&options, parts).unwrap();
        let ports = door.ports();
        let handles = MgmtHandles {
            status: Arc::new(move || StatusReport {
                name: "box".to_owned(),
                near: Some(at(ports.http)),
                ..StatusReport::default()
            }),
            ..MgmtHandles::bare(desk.clone(), store.clone(), sessions.clone())
        };
        let mgmt = MgmtOptions { socket: socket.clone(), owner_uid: None, appliance: false };
        let open = Some((door, MgmtServer::start(&mgmt, Startup::complete(handles)).unwrap()));
        drop(guard);
        Self { ports, desk, store, sessions, socket, open, runtime, _folder: folder }
    }

    /// A test that is quick, but patient with a busy machine.
    pub(crate) fn options(&self) -> selftest::Options {
        selftest::Options {
            socket: Some(self.socket.clone()),
            width: 640,
            height: 360,
            frames: 30,
            bitrate_kbps: 3_000,
            ..selftest::Options::default()
        }
    }

    pub(crate) fn test(&self, options: &selftest::Options) -> Report {
        let report = selftest::run(options, &Eraser::default(), &mut show);
        self.is_clean();
        report
    }

    /// The verdict is red, at this step; the reason.
    pub(crate) fn is_red(&self, options: &selftest::Options, step: Step) -> String {
        let report = self.test(options);
        let reason = report.reason.clone().unwrap_or_default();
        assert_eq!(report.verdict, Verdict::Red, "{report:#?}");
        assert!(reason.starts_with(&format!("{step}: ")), "{reason}, not {step}");
        let (last, before) = report.steps.split_last().unwrap();
        assert_eq!((last.step, last.passed), (step, false));
        assert!(before.iter().all(|taken| taken.passed), "{before:#?}");
        reason
    }

    /// Nothing is left of the test.
    pub(crate) fn is_clean(&self) {
        assert!(self.store.clients().is_empty(), "it is in the store");
        assert_eq!(self.desk.state(), DeskState::Unarmed);
        let live: Vec<_> =
            self.sessions.sessions().into_iter().filter(|one| one.ended.is_none()).collect();
        assert!(live.is_empty(), "{live:?} is left");
        let client = punktfunk_host::store::ClientId([1; 32]);
        let free = self.desk.permit_self_test(client);
        assert!(free.is_ok(), "its permit is left");
        drop(self.desk.end_self_test(client));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.sessions.shut_down(EndReason::Shutdown);
        if let Some((door, mgmt)) = self.open.take() {
            self.runtime.block_on(async {
                door.close().await;
                mgmt.stop().await;
            });
        }
    }
}

pub(crate) fn at(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// Long enough for a part that works on a busy machine, and no more than a test of one that does not needs.
pub(crate) fn impatient(options: selftest::Options) -> selftest::Options {
    selftest::Options { patience: Duration::from_secs(6), ..options }
}

pub(crate) fn show(taken: &Taken) {
    println!("{taken:?}");
}

/// A Test card that stands still from its first picture on.
#[derive(Default)]
pub(crate) struct Frozen(PatternBackend);

impl DisplayBackend for Frozen {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn probe(&self) -> Result<ProbeReport, DisplayError> {
        self.0.probe()
    }

    fn needs_agent(&self) -> bool {
        self.0.needs_agent()
    }

    fn open(&self, spec: &OutputSpec) -> Result<Box<dyn VirtualOutput>, DisplayError> {
        let output = self.0.open(spec)?;
        self.0.newest_stage().unwrap().set_behaviour(Behaviour::Static);
        Ok(output)
    }
}
