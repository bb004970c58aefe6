//! The door as a whole: binds every socket before it serves any, and closes in the order that loses nothing.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::error;

use super::http::{Limits, serve_http, serve_https};
use super::nvhttp::{NvHttp, NvHttpParts};
use super::recv::{self, MediaSockets, Patience, RecvHandle};
use super::rtsp::{self, RtspDoor};
use super::ticket::Tickets;
use super::tls::{self, TlsError};
use super::{Options, Ports, SharedTuning};
use crate::identity::Identity;
use crate::listen;
use crate::pairing::PairingDesk;
use crate::session::SessionDesk;
use crate::store::Store;

/// What the door opens to.
#[derive(Clone)]
pub struct DoorParts {
    /// Apps and sessions.
    pub desk: Arc<dyn SessionDesk>,
    /// The paired clients.
    pub store: Store,
    /// The host's certificate and key.
    pub identity: Arc<Identity>,
    /// Where PINs come from.
    pub pairing: PairingDesk,
}

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// A port cannot be had.
    #[error(
        "{protocol} port {port} cannot be opened; another streaming host may be running on this \
         machine"
    )]
    Bind {
        /// What it is for.
        protocol: &'static str,
        /// Which.
        port: u16,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The host's certificate cannot serve HTTPS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The receiving thread could not be started.
    #[error("the receiving thread could not be started")]
    Receive(#[source] io::Error),
}

/// The open door. [`Door::close`] ends it in good order; dropping it cuts every connection.
pub struct Door {
    ports: Ports,
    tuning: SharedTuning,
    stop: watch::Sender<bool>,
    http: JoinSet<()>,
    rtsp: JoinSet<()>,
    recv: RecvHandle,
}

impl Door {
    /// Binds all sockets and serves them. To be called on a tokio runtime.
    ///
    /// # Errors
    /// See [`DoorError`]; nothing is left open.
    pub fn open(options: &Options, parts: DoorParts) -> Result<Self, DoorError> {
        let DoorParts { desk, store, identity, pairing } = parts;
        let listen = options.listen;
        let tls = tls::server_config(identity.certificate_der(), identity.private_key_der())?;
        let http = bind(listen, "HTTP", options.ports.http)?;
        let https = bind(listen, "HTTPS", options.ports.https)?;
        let rtsp_listener = bind(listen, "RTSP", options.ports.rtsp)?;
        let sockets =
            MediaSockets::bind(listen, options.ports).map_err(|source| DoorError::Bind {
                protocol: "video, control or audio",
                port: options.ports.video,
                source,
            })?;
        let ports =
            bound_ports(&http, &https, &rtsp_listener, &sockets).map_err(DoorError::Receive)?;

        let tickets = Arc::new(Tickets::default());
        let recv = recv::spawn(&sockets, Arc::clone(&tickets), Patience::default())
            .map_err(DoorError::Receive)?;
        let api = Arc::new(NvHttp::new(NvHttpParts {
            host_name: options.host_name.clone(),
            ports,
            desk: Arc::clone(&desk),
            tickets: Arc::clone(&tickets),
            store,
            identity,
            pairing,
        }));
        let tuning = SharedTuning::new(options.tuning());
        let rtsp_door = Arc::new(RtspDoor {
            tickets,
            desk,
            sockets,
            inbox: recv.inbox(),
            tuning: tuning.clone(),
        });

        let (stop, stopped) = watch::channel(false);
        let (mut serving, mut rtsp_serving) = (JoinSet::new(), JoinSet::new());
        serving.spawn(serve_http(http, Arc::clone(&api), Limits::default(), stopped.clone()));
        serving.spawn(serve_https(https, tls, api, Limits::default(), stopped));
        rtsp_serving.spawn(rtsp::serve(rtsp_listener, rtsp_door));
        Ok(Self { ports, tuning, stop, http: serving, rtsp: rtsp_serving, recv })
    }

    /// The ports as they are.
    pub fn ports(&self) -> Ports {
        self.ports
    }

    /// What the next stream begins with, to be changed while the door is open.
    pub fn tuning(&self) -> SharedTuning {
        self.tuning.clone()
    }

    /// Takes no more requests and lets those under way end. The streams go on: end the sessions next.
    pub async fn stop_asking(&mut self) {
        self.stop.send_replace(true);
        while let Some(ended) = self.http.join_next().await {
            if ended.is_err_and(|error| error.is_panic()) {
                error!("an HTTP listener panicked");
            }
        }
        self.rtsp.shutdown().await;
    }

    /// Says goodbye to whoever is still connected and closes the media sockets. Call it when the sessions have ended.
    pub async fn close(mut self) {
        self.stop_asking().await;
        let recv = self.recv;
        // Joining the thread may take as long as a client needs to acknowledge the goodbye.
        if tokio::task::spawn_blocking(move || drop(recv)).await.is_err() {
            error!("closing the receiving thread panicked");
        }
    }
}

fn bind(address: IpAddr, protocol: &'static str, port: u16) -> Result<TcpListener, DoorError> {
    listen::bind(address, port).map_err(|source| DoorError::Bind { protocol, port, source })
}

fn bound_ports(
    http: &TcpListener,
    https: &TcpListener,
    rtsp: &TcpListener,
    sockets: &MediaSockets,
) -> io::Result<Ports> {
    let media = sockets.ports()?;
    Ok(Ports {
        http: http.local_addr()?.port(),
        https: https.local_addr()?.port(),
        rtsp: rtsp.local_addr()?.port(),
        video: media.video,
        control: media.control,
        audio: media.audio,
    })
}
