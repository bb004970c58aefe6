//! A host with a real store, desk and listeners on loopback, and sessions that a test can look into.

use std::net::{Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punktfunk_core::media::{Codec, FrameTrace, Mode};
use punktfunk_host::gamestream::Ports;
use punktfunk_host::gamestream::http::{Limits, serve_http, serve_https};
use punktfunk_host::gamestream::nvhttp::{NvHttp, NvHttpParts};
use punktfunk_host::gamestream::ticket::Tickets;
use punktfunk_host::gamestream::tls::server_config;
use punktfunk_host::identity::Identity;
use punktfunk_host::pairing::{AnswerPin, DeskMode, DeskOptions, PairingDesk, PendingRequest};
use punktfunk_host::session::apps::test_card;
use punktfunk_host::session::{
    App, AppId, Running, SessionDesk, SessionError, SessionId, SessionInfo, StreamGrant,
};
use punktfunk_host::store::{ClientId, Store};
use punktfunk_host::stream::{EndReason, StreamLine, StreamSpec};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) const DESKTOP: u32 = 881_448_767;
pub(crate) const GAME: u32 = 7;
/// An app that never starts.
pub(crate) const BROKEN: u32 = 8;

/// Sessions without displays.
#[derive(Default)]
pub(crate) struct FakeSessions {
    running: Mutex<Vec<(ClientId, Running)>>,
    /// Happens while the next app is starting.
    pub(crate) at_launch: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl FakeSessions {
    fn find(&self, client: ClientId) -> Option<Running> {
        let running = self.running.lock().unwrap();
        running.iter().find(|(own, _)| *own == client).map(|(_, running)| running.clone())
    }
}

fn app(id: u32, title: &str) -> App {
    App { id: AppId(id), title: title.into(), display: "x".into(), commands: vec![], art: None }
}

impl SessionDesk for FakeSessions {
    fn apps(&self) -> Vec<App> {
        vec![app(DESKTOP, "Desktop"), app(GAME, "Tom & <Jerry> \"ü\" '24"), app(BROKEN, "Broken")]
    }

    fn codecs(&self) -> Vec<Codec> {
        vec![Codec::H264, Codec::Av1]
    }

    fn running(&self, client: ClientId) -> Option<Running> {
        self.find(client)
    }

    fn launch(&self, client: ClientId, app: AppId, mode: Mode) -> Result<Running, SessionError> {
        let found = self.apps().into_iter().find(|own| own.id == app);
        let title = found.ok_or(SessionError::UnknownApp { app })?.title;
        if app.0 == BROKEN {
            return Err(SessionError::Start { title, reason: "no such program".into() });
        }
        let meanwhile = self.at_launch.lock().unwrap().take();
        meanwhile.into_iter().for_each(|happens| happens());
        let mut all = self.running.lock().unwrap();
        if let Some((_, running)) = all.iter_mut().find(|(own, _)| *own == client) {
            if running.app != app {
                return Err(SessionError::Busy { title: "something".into() });
            }
            running.mode = mode;
            return Ok(running.clone());
        }
        let session = SessionId(all.len() as u64 + 1);
        let running = Running { session, app, mode, streaming: false };
        all.push((client, running.clone()));
        Ok(running)
    }

    fn launch_self_test(&self, client: ClientId, mode: Mode) -> Result<Running, SessionError> {
        let (session, app) = (SessionId(99), test_card().id);
        let running = Running { session, app, mode, streaming: false };
        self.running.lock().unwrap().push((client, running.clone()));
        Ok(running)
    }

    fn resume(&self, client: ClientId) -> Result<Running, SessionError> {
        self.find(client).ok_or(SessionError::NotRunning)
    }

    fn prepare_stream(
        &self,
        _session: SessionId,
        _spec: StreamSpec,
        _line: StreamLine,
    ) -> Result<StreamGrant, SessionError> {
        Err(SessionError::NotRunning)
    }

    fn quit(&self, client: ClientId) {
        // Long enough to be seen: the answer to /cancel must come after it.
        std::thread::sleep(Duration::from_millis(50));
        self.running.lock().unwrap().retain(|(own, _)| *own != client);
    }

    fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }

    fn traces(&self, _session: SessionId) -> Vec<FrameTrace> {
        Vec::new()
    }

    fn shut_down(&self, _reason: EndReason) {}
}

/// A running host.
pub(crate) struct Host {
    pub(crate) store: Store,
    pub(crate) identity: Arc<Identity>,
    pub(crate) desk: PairingDesk,
    pub(crate) sessions: Arc<FakeSessions>,
    /// The API itself, to be asked as if from anywhere.
    pub(crate) api: Arc<NvHttp>,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    stop: watch::Sender<bool>,
    listeners: Vec<JoinHandle<()>>,
    _folder: tempfile::TempDir,
}

impl Host {
    pub(crate) async fn start() -> Self {
        Self::start_with(DeskMode::Prompt).await
    }

    pub(crate) async fn start_with(mode: DeskMode) -> Self {
        // Thousands of pairings are flushed here; how that survives a loss of power is not the question of these tests.
        let memory = Path::new("/dev/shm");
        let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
        let folder = tempfile::tempdir_in(base).unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let identity = Arc::new(Identity::load_or_create(&store).unwrap());
        let desk = PairingDesk::new(DeskOptions::new(mode));
        let sessions = Arc::new(FakeSessions::default());
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let (http, https) =
            (TcpListener::bind(any).await.unwrap(), TcpListener::bind(any).await.unwrap());
        let (http_at, https_at) = (http.local_addr().unwrap(), https.local_addr().unwrap());
        let loopback = |at: SocketAddr| SocketAddr::from(([127, 0, 0, 1], at.port()));

        let parts = NvHttpParts {
            host_name: "Wohn & <zimmer>".into(),
            ports: Ports { http: http_at.port(), https: https_at.port(), ..Ports::default() },
            desk: sessions.clone(),
            tickets: Arc::new(Tickets::default()),
            store: store.clone(),
            identity: identity.clone(),
            pairing: desk.clone(),
        };
        let service = Arc::new(NvHttp::new(parts));
        let api = Arc::clone(&service);
        let tls = server_config(identity.certificate_der(), identity.private_key_der()).unwrap();
        let (stop, stopped) = watch::channel(false);
        let limits = Limits::default();
        let listeners = vec![
            tokio::spawn(serve_http(http, service.clone(), limits, stopped.clone())),
            tokio::spawn(serve_https(https, tls, service, limits, stopped)),
        ];
        Self {
            store,
            identity,
            desk,
            sessions,
            api,
            http: loopback(http_at),
            https: loopback(https_at),
            stop,
            listeners,
            _folder: folder,
        }
    }

    /// Stops both listeners and waits until they ended.
    pub(crate) async fn stop(self) {
        self.stop.send(true).unwrap();
        for listener in self.listeners {
            listener.await.unwrap();
        }
    }

    /// Waits until so many requests lie at the pairing desk.
    pub(crate) async fn pending(&self, count: usize) -> Vec<PendingRequest> {
        let mut seen = self.desk.snapshot();
        while seen.pending.len() != count {
            let next = self.desk.changed_since(seen.revision);
            seen = tokio::time::timeout(Duration::from_secs(10), next).await.unwrap();
        }
        seen.pending
    }

    /// The owner types a PIN for the only request that waits.
    pub(crate) async fn enter_pin(&self, pin: &str) {
        self.pending(1).await;
        let answer = AnswerPin { request: None, pin: pin.parse().unwrap(), name: None };
        self.desk.answer(answer).unwrap();
    }
}
