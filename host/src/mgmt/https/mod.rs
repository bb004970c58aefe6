//! The console's door: the API over HTTPS, for browsers and programs on the network.
//!
//! It opens before anything else is there and stays open whatever fails. TLS shows the console's own certificate and
//! asks for none. Whatever a peer does meets a named limit first: connections in all and per address, time for the
//! handshake and for a request's head, the pace of its body, time for reading an answer, and for the connection as a whole.
//! Only who follows something may stay longer, because a follower's caller is looked at again and again, and a body that
//! keeps coming.
//!
//! Strangers can take every place, and keep nobody out with it: a newcomer gets the place of one of them, and the owner's
//! connections are nobody else's. Whose a connection is says the last request that came over it.
//!
//! On a machine whose socket units give it ports 443 and 80 it serves those too; 80 only leads to HTTPS.
//!
//! Deliberately absent: client certificates, HTTP/2, HSTS (see [`entrance`](self)).

mod entrance;
mod origin;
mod redirect;

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::Request;
use axum::middleware;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{HttpService, Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version;
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::entrance::{Entrance, Peer, enter};
use self::redirect::Redirect;
use super::guard::Credentials;
use super::patience::{Pace, Patient, Stays, paced};
use super::{LOOK_EVERY, PACE, STOP_TIMEOUT, Startup, api};
use crate::identity::ConsoleIdentity;
use crate::listen::{self, Admission, Gate, Inherited};

pub use origin::HostNames;

/// What systemd's socket unit calls the socket that speaks HTTPS.
const HTTPS_SOCKET: &str = "https";
/// What it calls the one that leads from plain HTTP to HTTPS.
const REDIRECT_SOCKET: &str = "http-redirect";

/// What the door lets its peers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HttpsLimits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address; an IPv6 /64 may have four times as many.
    pub connections_per_address: usize,
    /// Each loopback address counts as a machine of its own: for tests. Default: no, they are one.
    pub loopback_apart: bool,
    /// Bytes of a request's line and headers together; at least 8 KiB.
    pub head_bytes: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for a request's head, and so for an idle connection.
    pub head: Duration,
    /// A request's body ends, or brings `body_bytes`, in each such time.
    pub body: Duration,
    /// As much a body brings at least in each `body`.
    pub body_bytes: usize,
    /// Time for a request's body, however fast it comes.
    pub body_in_all: Duration,
    /// A peer that takes nothing of an answer for so long is gone.
    pub stall: Duration,
    /// After so long a connection takes no more requests. Its last one may follow events for as long as it likes, and
    /// its body may keep coming.
    pub connection: Duration,
    /// What else is answered then gets so much more time: the longest answer is the doctor's.
    pub last_answer: Duration,
}

impl HttpsLimits {
    fn pace(&self) -> Pace {
        Pace { each: self.body, bytes: self.body_bytes, in_all: self.body_in_all }
    }
}

impl Default for HttpsLimits {
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_address: 32,
            loopback_apart: false,
            head_bytes: 16 * 1024,
            handshake: Duration::from_secs(10),
            head: Duration::from_secs(15),
            body: PACE.each,
            body_bytes: PACE.bytes,
            body_in_all: PACE.in_all,
            stall: Duration::from_secs(30),
            connection: Duration::from_secs(300),
            last_answer: Duration::from_secs(150),
        }
    }
}

/// How the door is set up.
#[derive(Debug)]
pub struct HttpsOptions {
    /// The address to listen on.
    pub listen: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// What this host is called.
    pub names: HostNames,
    /// What systemd has opened for it.
    pub inherited: Vec<Inherited>,
    /// What peers may do.
    pub limits: HttpsLimits,
}

/// Why the door, or a part of it, is not open. The host goes on without.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The port cannot be had.
    #[error(
        "the console cannot be reached over the network: its port {port} cannot be opened ({source}); stop what uses \
         it, or set console.port to another"
    )]
    Bind {
        /// Which.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate cannot serve TLS.
    #[error(
        "the console cannot be reached over the network: its certificate cannot serve TLS: {0}"
    )]
    Certificate(rustls::Error),
    /// A socket of systemd's cannot be served.
    #[error("the socket \"{name}\" that systemd opened cannot be served: {source}")]
    Inherited {
        /// What the socket unit calls it.
        name: String,
        /// What the system said.
        source: io::Error,
    },
}

/// The open door. Dropping it closes it at once; [`HttpsServer::stop`] lets requests end.
#[derive(Debug)]
pub struct HttpsServer {
    address: Option<SocketAddr>,
    stop: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
}

impl HttpsServer {
    /// Opens whatever can be opened and serves it; what cannot is told. To be called on a tokio runtime.
    pub fn start(
        options: HttpsOptions,
        identity: &ConsoleIdentity,
        credentials: Arc<dyn Credentials>,
        startup: Startup,
    ) -> (Self, Vec<HttpsError>) {
        let (stop, stopped) = watch::channel(false);
        let mut server = Self { address: None, stop, accepting: Vec::new() };
        let mut errors = Vec::new();
        let tls = match tls_config(identity) {
            Ok(tls) => TlsAcceptor::from(tls),
            Err(error) => return (server, vec![HttpsError::Certificate(error)]),
        };
        let names = Arc::new(options.names.clone());
        let entrance = Arc::new(Entrance { names: options.names, credentials });
        let router = api::router(startup).layer(middleware::from_fn_with_state(entrance, enter));
        let HttpsLimits { connections, connections_per_address, loopback_apart, .. } =
            options.limits;
        let gate = Gate::making_room(connections, connections_per_address);
        let gate = if loopback_apart { gate.with_loopback_apart() } else { gate };
        let door = Door { limits: options.limits, gate, stopped };
        match listen::bind(options.listen, options.port) {
            Ok(listener) => {
                server.address = listener.local_addr().ok();
                let speak = Speak::Https(tls.clone(), router.clone());
                server.accepting.push(tokio::spawn(door.clone().accept(listener, speak)));
            }
            Err(source) => errors.push(HttpsError::Bind { port: options.port, source }),
        }
        let has_443 = options.inherited.iter().any(|socket| socket.name == HTTPS_SOCKET);
        let port = server.address.map_or(options.port, |address| address.port());
        let redirect = Arc::new(Redirect { names, port: if has_443 { 443 } else { port } });
        for Inherited { name, listener } in options.inherited {
            let speak = match name.as_str() {
                HTTPS_SOCKET => Speak::Https(tls.clone(), router.clone()),
                REDIRECT_SOCKET => Speak::Redirect(Arc::clone(&redirect)),
                // Somebody else's, or a newer host's.
                _ => continue,
            };
            match TcpListener::from_std(listener) {
                Ok(listener) => {
                    server.accepting.push(tokio::spawn(door.clone().accept(listener, speak)));
                }
                Err(source) => errors.push(HttpsError::Inherited { name, source }),
            }
        }
        (server, errors)
    }

    /// Where it listens, if its port could be had; sockets of systemd's are not counted.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Takes no more requests, gives those under way two seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        for accepting in std::mem::take(&mut self.accepting) {
            // It only fails if it panicked, which tokio has reported.
            let _ = accepting.await;
        }
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.accepting.iter().for_each(JoinHandle::abort);
    }
}

/// What is spoken on a socket.
#[derive(Clone)]
enum Speak {
    Https(TlsAcceptor, Router),
    Redirect(Arc<Redirect>),
}

/// One socket's part of the door; all sockets share the count of connections.
#[derive(Clone)]
struct Door {
    limits: HttpsLimits,
    gate: Gate,
    stopped: watch::Receiver<bool>,
}

impl Door {
    async fn accept(mut self, listener: TcpListener, speak: Speak) {
        /// After a failed accept (most often: no file descriptors left) others get this long to give some back.
        const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
                () = stopped(&mut self.stopped) => break,
            };
            let (stream, remote) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the console could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Some(place) = self.gate.admit(remote.ip()) else {
                tracing::debug!(%remote, "too many connections to the console; this one is turned away");
                continue;
            };
            let (door, speak) = (self.clone(), speak.clone());
            connections.spawn(async move {
                let place = Arc::new(place);
                tokio::select! {
                    () = door.converse(stream, remote, speak, Arc::clone(&place)) => {}
                    () = place.taken() => {
                        tracing::debug!(%remote, "a connection to the console made room for another");
                    }
                }
            });
        }
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if timeout(STOP_TIMEOUT, ended).await.is_err() {
            connections.shutdown().await;
        }
    }

    async fn converse(
        self,
        stream: TcpStream,
        remote: SocketAddr,
        speak: Speak,
        place: Arc<Admission>,
    ) {
        let limits = self.limits;
        let Ok(local) = stream.local_addr() else { return };
        // Both only help: small answers go out at once, and a peer that has vanished is not sent to for minutes.
        let _ = stream.set_nodelay(true);
        let _ = SockRef::from(&stream).set_tcp_user_timeout(Some(limits.stall));
        let stays = Stays::default();
        let peer = Peer {
            remote: remote.ip().to_canonical(),
            local: local.ip().to_canonical(),
            stays: stays.clone(),
            place,
        };
        let stream = Patient::new(stream, limits.stall, &stays);
        match speak {
            Speak::Redirect(redirect) => {
                let service = service_fn(|request: Request<Incoming>| {
                    let answer = redirect.answer(request, peer.local);
                    async move { Ok::<_, Infallible>(answer) }
                });
                // One request and no more: there is nothing to be had here.
                self.serve(stream, remote, service, false, &stays).await;
            }
            Speak::Https(tls, router) => {
                let stream = match timeout(limits.handshake, tls.accept(stream)).await {
                    Ok(Ok(stream)) => stream,
                    Ok(Err(error)) => {
                        return tracing::debug!(%remote, %error, "a TLS handshake with the console failed");
                    }
                    Err(_) => {
                        return tracing::debug!(%remote, "a TLS handshake with the console took too long");
                    }
                };
                let router = TowerToHyperService::new(router);
                let service = service_fn(move |request: Request<Incoming>| {
                    let mut request = paced(request, limits.pace(), &peer.stays);
                    request.extensions_mut().insert(peer.clone());
                    router.call(request)
                });
                self.serve(stream, remote, service, true, &stays).await;
            }
        }
    }

    async fn serve<S>(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        remote: SocketAddr,
        service: S,
        keep_alive: bool,
        stays: &Stays,
    ) where
        S: HttpService<Incoming, ResBody = axum::body::Body>,
        S::Error: Into<axum::BoxError>,
    {
        let limits = self.limits;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.head)
            .max_buf_size(limits.head_bytes)
            .keep_alive(keep_alive)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut self.stopped) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
            () = sleep(limits.connection) => {
                connection.as_mut().graceful_shutdown();
                let is_over = async {
                    stays.end(LOOK_EVERY).await;
                    sleep(limits.last_answer).await;
                };
                tokio::select! {
                    ended = connection => ended,
                    () = is_over => {
                        return tracing::debug!(%remote, "a connection to the console took too long");
                    }
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%remote, %error, "a connection to the console broke off");
        }
    }
}

/// Returns when the door is to close; a sender that is gone says so too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn tls_config(identity: &ConsoleIdentity) -> Result<Arc<ServerConfig>, rustls::Error> {
    let chain = vec![CertificateDer::from(identity.certificate_der().to_vec())];
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.private_key_der().to_vec()));
    let mut config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Nothing is kept of a connection that has ended.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
