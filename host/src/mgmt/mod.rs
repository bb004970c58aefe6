//! The owner's door: a local Unix socket with a small REST API, for the command line and later for the console.
//!
//! Who may come in is decided by the kernel's word on the peer (`SO_PEERCRED`): root, the daemon's own user, and the
//! owner's user if one is named; on a box root, and the daemon's own user for the self-test alone. So there is no
//! password to keep and nothing to find in a file. Everybody else is answered 403. One request per connection, bounded
//! in number, size and time.
//!
//! The console and programs on the network come in by a door of their own ([`https`](self)), with a login or a token;
//! behind both doors lie the same routes. Both open before anything else is there, and say how far the host is.
//!
//! The desk, the store and the sessions do the work; this room only translates.

mod api;
mod bundle;
pub mod client;
mod cookie;
mod credentials;
mod feed;
mod follow;
mod guard;
mod https;
mod local_name;
mod patience;
mod problem;
mod problems;
mod socket;
mod startup;
pub mod wire;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::http::Request;
use axum::{Extension, Router};
use hyper::body::Incoming;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::{JoinHandle, JoinSet};

use self::guard::{Caller, Standing};
use self::patience::{Pace, Patient, Stays, paced};
use self::socket::BoundSocket;
use crate::agent::Local;
use crate::backup::homes::Homes;
use crate::backup::{Backups, Strength};
use crate::config::{self, ConfigDesk, Layers};
use crate::health::child::Examiner;
use crate::os::{NoPower, OsDesk, Power};
use crate::pairing::PairingDesk;
use crate::session::SessionDesk;
use crate::store::Store;

pub use api::document;
pub use guard::{Claimed, Credentials, Nobody, Who};
pub use https::{HostNames, HttpsError, HttpsLimits, HttpsOptions, HttpsServer};
pub use local_name::LocalName;
pub use problems::Problems;
pub use socket::{SocketEnvironment, default_socket};
pub use startup::{About, Always, Basics, Failure, Stage, Startup};

/// As many connections of those who may come in are served at once.
const MAX_CONNECTIONS: usize = 64;
/// As many connections of those who may only test the host are served at once.
const MAX_TESTERS: usize = 8;
/// As many connections of strangers are answered (403) at once; more are closed unread.
const MAX_STRANGERS: usize = 4;
/// How often it is looked at whether a connection still has a reason to stay.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long connections live.
const TIMES: Times = Times {
    connection: Duration::from_secs(90),
    look_every: LOOK_EVERY,
    last_answer: Duration::from_secs(30),
    stall: Duration::from_secs(30),
};
/// How fast a request's body has to come. The largest is a backup, from a slow disk at worst.
const PACE: Pace =
    Pace { each: Duration::from_secs(10), bytes: 4 * 1024, in_all: Duration::from_secs(30 * 60) };
/// A request's head must arrive in this time.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest request head, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// At a stop, requests under way get this long to end.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the socket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum MgmtError {
    /// Another daemon answers there.
    #[error("another host already answers at {}; stop it first", path.display())]
    AlreadyRunning {
        /// The socket.
        path: PathBuf,
    },
    /// Something that is no socket lies there.
    #[error("{} is not a socket; move it away or name another path", path.display())]
    NotASocket {
        /// What lies there.
        path: PathBuf,
    },
    /// Others could replace the socket.
    #[error(
        "the folder {} of the socket can be changed by others (owner {uid}, mode {mode:04o})",
        path.display()
    )]
    FolderNotSafe {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The system refused.
    #[error("cannot open the socket {}: {source}", path.display())]
    Io {
        /// The socket or its folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How the door is set up.
#[derive(Debug, Clone)]
pub struct MgmtOptions {
    /// Where the socket is to be; its folder is made if it is not there. See [`default_socket`].
    pub socket: PathBuf,
    /// The user, beside root and the daemon's own, who may come in.
    pub owner_uid: Option<u32>,
    /// Nobody but root may come in, and the daemon's own user for nothing but the self-test: on a box, who is not root
    /// is no owner.
    pub appliance: bool,
}

/// What the door opens to.
#[derive(Clone)]
pub struct MgmtHandles {
    /// The pairing desk.
    pub desk: PairingDesk,
    /// The paired clients.
    pub store: Store,
    /// The sessions.
    pub sessions: Arc<dyn SessionDesk>,
    /// Says how the host is doing, as of now; called for each request and once a second while somebody follows, must not
    /// block.
    pub status: Arc<dyn Fn() -> wire::StatusReport + Send + Sync>,
    /// Makes the doctor's checks.
    pub examiner: Examiner,
    /// What the owner sets in the console.
    pub settings: ConfigDesk,
    /// Makes and restores backups.
    pub backups: Backups,
    /// Makes and restores backups of homes.
    pub homes: Homes,
    /// Updates of the system.
    pub os: OsDesk,
    /// The machine's switch.
    pub power: Arc<dyn Power>,
}

impl MgmtHandles {
    /// Of a host with nothing but these rooms: it has built-in settings, no check that can be made, and is no appliance.
    pub fn bare(desk: PairingDesk, store: Store, sessions: Arc<dyn SessionDesk>) -> Self {
        let layers = Layers::default();
        let loaded = config::load(&layers);
        let backups = Backups::new(store.clone(), Strength::default());
        let agents = Local::new("/nonexistent/sessions".into(), None);
        Self {
            desk,
            sessions,
            status: Arc::new(wire::StatusReport::default),
            examiner: Examiner::new("/bin/false".into(), vec![]),
            settings: ConfigDesk::new(layers, store.clone(), loaded, |_| vec![]),
            homes: Homes::new(&backups, Arc::new(agents)),
            backups,
            os: OsDesk::absent(),
            power: Arc::new(NoPower::default()),
            store,
        }
    }
}

/// The open door. Dropping it closes it at once and removes the socket; [`MgmtServer::stop`] lets requests end.
#[derive(Debug)]
pub struct MgmtServer {
    socket: BoundSocket,
    stop: watch::Sender<bool>,
    accepting: Option<JoinHandle<()>>,
}

impl MgmtServer {
    /// Opens the socket and serves it. To be called on a tokio runtime.
    ///
    /// # Errors
    /// See [`MgmtError`].
    pub fn start(options: &MgmtOptions, startup: Startup) -> Result<Self, MgmtError> {
        let (socket, listener) = socket::bind(&options.socket)?;
        let io = |source| MgmtError::Io { path: options.socket.clone(), source };
        listener.set_nonblocking(true).map_err(io)?;
        let listener = UnixListener::from_std(listener).map_err(io)?;
        let own = rustix::process::geteuid().as_raw();
        let allowed = Allowed::new(own, options.owner_uid, options.appliance);
        let credentials = Arc::clone(&startup.known().credentials);
        let (stop, stopped) = watch::channel(false);
        let router = api::router(startup);
        let accepting = tokio::spawn(accept(listener, allowed, router, credentials, stopped));
        tracing::info!(socket = %options.socket.display(), "the management socket is open");
        Ok(Self { socket, stop, accepting: Some(accepting) })
    }

    /// Where the socket is.
    pub fn socket(&self) -> &Path {
        self.socket.path()
    }

    /// Closes the door: takes no more requests, gives those under way two seconds, removes the socket.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        if let Some(accepting) = self.accepting.take() {
            // It only fails if it panicked, which tokio has reported.
            let _ = accepting.await;
        }
    }
}

impl Drop for MgmtServer {
    fn drop(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
    }
}

/// Who may come in.
struct Allowed {
    /// For everything.
    owners: Vec<u32>,
    /// For the self-test.
    tester: Option<u32>,
}

impl Allowed {
    fn new(own: u32, owner: Option<u32>, appliance: bool) -> Self {
        if appliance {
            return Self { owners: vec![0], tester: Some(own) };
        }
        Self { owners: [Some(0), Some(own), owner].into_iter().flatten().collect(), tester: None }
    }

    /// As whom somebody with this uid comes in.
    fn admits(&self, uid: u32) -> Option<Who> {
        if self.owners.contains(&uid) {
            return Some(Who::Local { uid });
        }
        (self.tester == Some(uid)).then_some(Who::SelfTest)
    }
}

async fn accept(
    listener: UnixListener,
    allowed: Allowed,
    router: Router,
    credentials: Arc<dyn Credentials>,
    mut stopped: watch::Receiver<bool>,
) {
    let guests = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let testers = Arc::new(Semaphore::new(MAX_TESTERS));
    let strangers = Arc::new(Semaphore::new(MAX_STRANGERS));
    let turned_away = problem::forbidden_router();
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => break,
            Some(_) = connections.join_next() => continue,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely; trying again at once would spin.
                tracing::warn!(%error, "cannot accept on the management socket");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let uid = stream.peer_cred().ok().map(|peer| peer.uid());
        let who = uid.and_then(|uid| allowed.admits(uid));
        let (seats, service) = match &who {
            Some(Who::SelfTest) => (&testers, &router),
            Some(_) => (&guests, &router),
            None => (&strangers, &turned_away),
        };
        // A full house closes the connection; whoever comes back later finds a seat.
        let Ok(seat) = Arc::clone(seats).try_acquire_owned() else { continue };
        if who.is_none() {
            tracing::debug!(?uid, "turned a stranger away from the management socket");
        }
        let caller = Caller {
            who: who.unwrap_or(Who::Anonymous),
            remote: None,
            claimed: credentials.claimed(),
        };
        let stays = Stays::default();
        // Whom the kernel has vouched for is who it is for as long as the connection lives.
        let standing = Standing::new(stays.clone(), || true);
        let service = service.clone().layer(Extension(caller)).layer(Extension(standing));
        connections.spawn(async move {
            let _seat = seat;
            serve(stream, service, &stays, &TIMES).await;
        });
    }
    drop(listener);
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
        connections.shutdown().await;
    }
}

/// How long a connection of the local socket lives.
struct Times {
    /// No longer, unless something is followed over it, or a body keeps coming. Longer than the longest long poll.
    connection: Duration,
    /// Then this often it is looked at whether that is over,
    look_every: Duration,
    /// and there is so much more time for what is still to be answered.
    last_answer: Duration,
    /// A caller that takes nothing of an answer for so long is gone.
    stall: Duration,
}

async fn serve(stream: UnixStream, router: Router, stays: &Stays, times: &Times) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| router.call(paced(request, PACE, stays)));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD_BYTES)
        .keep_alive(false)
        .serve_connection(TokioIo::new(Patient::new(stream, times.stall, stays)), service);
    let is_over = async {
        tokio::time::sleep(times.connection).await;
        stays.end(times.look_every).await;
        tokio::time::sleep(times.last_answer).await;
    };
    tokio::select! {
        ended = connection => if let Err(error) = ended {
            tracing::debug!(%error, "a management connection ended early");
        },
        () = is_over => tracing::debug!("a management connection took too long"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[test]
    fn root_the_daemon_and_the_owner_may_come_in() {
        let as_whom = |owner, appliance| {
            let allowed = Allowed::new(990, owner, appliance);
            [0, 990, 1000, 1001].map(|uid| match allowed.admits(uid) {
                Some(Who::Local { uid: same }) if same == uid => "all",
                Some(Who::SelfTest) => "test",
                None => "-",
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(as_whom(None, false), ["all", "all", "-", "-"]);
        assert_eq!(as_whom(Some(1000), false), ["all", "all", "all", "-"]);
        assert_eq!(as_whom(Some(1000), true), ["all", "test", "-", "-"], "on a box");
    }

    #[test]
    fn a_stranger_is_answered_403() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("host.sock");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (_stop, stopped) = watch::channel(false);
        let router = Router::new().fallback(|| async { "the owner's answer" });
        // The list names somebody, but not the user this test runs as.
        let owners = vec![rustix::process::geteuid().as_raw() ^ 1];
        let allowed = Allowed { owners, tester: None };
        let listener = {
            let _guard = runtime.enter();
            UnixListener::bind(&path).unwrap()
        };
        runtime.spawn(accept(listener, allowed, router, Arc::new(Nobody::default()), stopped));
        let error = client::Client::at(&path).unwrap().status().unwrap_err();
        assert!(matches!(error, client::ClientError::Denied { .. }), "{error}");
        assert!(error.to_string().contains("sudo"));
    }

    /// What a follower gets of four events, each of which it has to have before the next one is made, over a
    /// connection that lives no longer than it must.
    async fn followed(stays: &Stays, stay: Option<patience::Stay>) -> String {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (ask, asked) = tokio::sync::mpsc::channel::<&str>(1);
        let events = futures_util::stream::unfold((asked, stay), |(mut asked, stay)| async {
            let event = asked.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(event), (asked, stay)))
        });
        let events = Arc::new(std::sync::Mutex::new(Some(axum::body::Body::from_stream(events))));
        let router = Router::new().fallback(move || {
            let body = events.lock().unwrap().take();
            async move { body.unwrap() }
        });
        let soon = Duration::from_millis(20);
        let times =
            Times { connection: soon, look_every: soon, last_answer: soon, stall: TIMES.stall };
        let following = async move {
            far.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut said = String::new();
            for event in ["one.", "two.", "three.", "four."] {
                tokio::time::sleep(soon * 2).await;
                let _ = ask.send(event).await;
                while !said.contains(event) {
                    let mut bytes = [0; 1024];
                    match far.read(&mut bytes).await.unwrap_or(0) {
                        0 => return said,
                        count => said.push_str(std::str::from_utf8(&bytes[..count]).unwrap()),
                    }
                }
            }
            said
        };
        tokio::join!(serve(near, router, stays, &times), following).1
    }

    #[tokio::test]
    async fn a_follower_outlives_what_other_connections_live() {
        let stays = Stays::default();
        let said = followed(&stays, Some(stays.begin())).await;
        assert!(said.contains("four."), "{said}");
        let said = followed(&stays, None).await;
        assert!(!said.contains("four."), "{said}");
    }
}
