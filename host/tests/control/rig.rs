//! The door's RTSP server and receiving thread on loopback, with a session desk that only writes down what is asked.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use punktfunk_core::input::{InputEvent, KeyCode};
use punktfunk_core::media::{Codec, FrameIndex, FrameTrace, Mode};
use punktfunk_core::seal::SessionKey;
use punktfunk_host::gamestream::recv::{self, MediaSockets, Patience, RecvHandle};
use punktfunk_host::gamestream::rtsp::{self, RtspDoor};
use punktfunk_host::gamestream::ticket::{TicketRequest, Tickets};
use punktfunk_host::gamestream::{EncryptionPolicy, Ports, SharedTuning, Tuning};
use punktfunk_host::input::{InputError, InputSink};
use punktfunk_host::session::{
    App, AppId, ClientId, PreparedStream, Running, SessionDesk, SessionError, SessionId,
    SessionInfo, StreamGrant,
};
use punktfunk_host::stream::{EndReason, Peer, StreamControl, StreamLine, StreamSpec};

/// What reached the session desk, a stream or a device.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Prepared(SessionId, StreamSpec),
    Started(Peer, Option<Peer>),
    Idr,
    Invalidate(FrameIndex, FrameIndex),
    VideoPeer(Peer),
    AudioPeer(Peer),
    Stopped(EndReason),
    Input(InputEvent),
    Released,
    /// The prepared stream was given back without having been started.
    GivenBack,
}

type OnEnd = Box<dyn FnOnce(EndReason) + Send>;

pub(crate) struct Desk {
    seen: mpsc::Sender<Seen>,
    on_end: Mutex<Vec<OnEnd>>,
    /// The next stream panics when it is started.
    broken: AtomicBool,
}

struct Stream(Option<mpsc::Sender<Seen>>, bool);

impl PreparedStream for Stream {
    fn start(
        mut self: Box<Self>,
        video_peer: Peer,
        audio_peer: Option<Peer>,
    ) -> Arc<dyn StreamControl> {
        assert!(!self.1, "this stream does not start, which is what a test wants");
        let seen = self.0.take().unwrap();
        seen.send(Seen::Started(video_peer, audio_peer)).unwrap();
        Arc::new(Control(seen))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(seen) = self.0.take() {
            let _ = seen.send(Seen::GivenBack);
        }
    }
}

struct Control(mpsc::Sender<Seen>);

impl StreamControl for Control {
    fn request_idr(&self) {
        let _ = self.0.send(Seen::Idr);
    }
    fn invalidate(&self, first: FrameIndex, last: FrameIndex) {
        let _ = self.0.send(Seen::Invalidate(first, last));
    }
    fn set_video_peer(&self, peer: Peer) {
        let _ = self.0.send(Seen::VideoPeer(peer));
    }
    fn set_audio_peer(&self, peer: Peer) {
        let _ = self.0.send(Seen::AudioPeer(peer));
    }
    fn stop(&self, reason: EndReason) {
        let _ = self.0.send(Seen::Stopped(reason));
    }
}

/// "X": the device panics.
const BREAKING_KEY: KeyCode = KeyCode(45);
/// "W": the device hangs for a while and takes nothing.
const HANGING_KEY: KeyCode = KeyCode(17);

struct Sink(mpsc::Sender<Seen>);

impl InputSink for Sink {
    fn apply(&mut self, event: &InputEvent) -> Result<(), InputError> {
        let breaks = InputEvent::Key { key: BREAKING_KEY, pressed: true };
        assert_ne!(*event, breaks, "this key breaks the device, which is what a test wants");
        if *event == (InputEvent::Key { key: HANGING_KEY, pressed: true }) {
            std::thread::sleep(Duration::from_millis(200));
            return Err(InputError::Lost { reason: "a test wants it".to_owned() });
        }
        let _ = self.0.send(Seen::Input(*event));
        Ok(())
    }
    fn release_all(&mut self) -> Result<(), InputError> {
        let _ = self.0.send(Seen::Released);
        Ok(())
    }
}

impl SessionDesk for Desk {
    fn apps(&self) -> Vec<App> {
        Vec::new()
    }
    fn codecs(&self) -> Vec<Codec> {
        vec![Codec::H264, Codec::Av1]
    }
    fn running(&self, _: ClientId) -> Option<Running> {
        None
    }
    fn launch(&self, _: ClientId, app: AppId, _: Mode) -> Result<Running, SessionError> {
        Err(SessionError::UnknownApp { app })
    }
    fn resume(&self, _: ClientId) -> Result<Running, SessionError> {
        Err(SessionError::NotRunning)
    }
    fn prepare_stream(
        &self,
        session: SessionId,
        spec: StreamSpec,
        line: StreamLine,
    ) -> Result<StreamGrant, SessionError> {
        if spec.audio.channels != 2 {
            return Err(SessionError::Stream { reason: "no surround here".to_owned() });
        }
        self.on_end.lock().unwrap().push(line.on_end);
        self.seen.send(Seen::Prepared(session, spec)).unwrap();
        Ok(StreamGrant {
            stream: Box::new(Stream(
                Some(self.seen.clone()),
                self.broken.swap(false, Ordering::Relaxed),
            )),
            input: Box::new(Sink(self.seen.clone())),
        })
    }
    fn sessions(&self) -> Vec<SessionInfo> {
        Vec::new()
    }
    fn quit(&self, _: ClientId) {}
    fn traces(&self, _: SessionId) -> Vec<FrameTrace> {
        Vec::new()
    }
    fn shut_down(&self, _: EndReason) {}
}

pub(crate) struct Rig {
    pub(crate) tickets: Arc<Tickets>,
    pub(crate) sockets: MediaSockets,
    pub(crate) rtsp: SocketAddr,
    pub(crate) seen: mpsc::Receiver<Seen>,
    pub(crate) recv: Option<RecvHandle>,
    desk: Arc<Desk>,
    issued: AtomicU8,
    _runtime: tokio::runtime::Runtime,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(IpAddr::from([127, 0, 0, 1]), Patience::default(), EncryptionPolicy::Offer)
    }

    pub(crate) fn with(address: IpAddr, patience: Patience, encryption: EncryptionPolicy) -> Self {
        let any = Ports { http: 0, https: 0, rtsp: 0, video: 0, control: 0, audio: 0 };
        let sockets = MediaSockets::bind(address, any).unwrap();
        let tickets = Arc::new(Tickets::default());
        let recv = recv::spawn(&sockets, Arc::clone(&tickets), patience).unwrap();
        let (sender, seen) = mpsc::channel();
        let desk = Arc::new(Desk {
            seen: sender,
            on_end: Mutex::default(),
            broken: AtomicBool::default(),
        });
        let door = Arc::new(RtspDoor {
            tickets: Arc::clone(&tickets),
            desk: Arc::clone(&desk) as Arc<dyn SessionDesk>,
            sockets: sockets.clone(),
            inbox: recv.inbox(),
            tuning: SharedTuning::new(Tuning {
                encryption,
                fec_percentage: 20,
                max_bitrate_kbps: 1_000_000,
            }),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind((address, 0))).unwrap();
        // A server on all addresses is spoken to on loopback.
        let rtsp = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        runtime.spawn(rtsp::serve(listener, door));
        let (recv, issued) = (Some(recv), AtomicU8::new(0));
        Self { tickets, sockets, rtsp, seen, recv, desk, issued, _runtime: runtime }
    }

    /// A ticket for client number `client`, with a new key, as a client makes one for each stream.
    pub(crate) fn issue(&self, client: u8, encrypted_rtsp: bool) -> SessionKey {
        let mut bytes = [client; 16];
        bytes[0] = self.issued.fetch_add(1, Ordering::Relaxed);
        let key = SessionKey::new(bytes);
        self.tickets
            .issue(TicketRequest {
                client: ClientId([client; 32]),
                session: SessionId(client.into()),
                key: key.clone(),
                key_id: 7,
                remote: IpAddr::from([127, 0, 0, 1]),
                mode: Mode::new(1280, 720, 60_000).unwrap(),
                encrypted_rtsp,
            })
            .unwrap();
        key
    }

    /// The next thing that was seen.
    pub(crate) fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(10)).expect("nothing was seen")
    }

    /// Waits until something is seen; what is seen before is passed over.
    pub(crate) fn wait_for(&self, what: impl Fn(&Seen) -> bool) -> Seen {
        loop {
            let seen = self.next();
            if what(&seen) {
                return seen;
            }
        }
    }

    /// What is seen next, if it comes in time.
    pub(crate) fn seen_within(&self, time: Duration) -> Option<Seen> {
        self.seen.recv_timeout(time).ok()
    }

    /// Nothing is waiting to be looked at.
    pub(crate) fn nothing_seen(&self) -> bool {
        self.seen.try_recv().is_err()
    }

    /// The next stream that is prepared panics when it is started.
    pub(crate) fn break_next_stream(&self) {
        self.desk.broken.store(true, Ordering::Relaxed);
    }

    /// The oldest stream says that it has ended.
    pub(crate) fn end_stream(&self, reason: EndReason) {
        let on_end = self.desk.on_end.lock().unwrap().remove(0);
        on_end(reason);
    }

    /// The port of one of the host's sockets.
    pub(crate) fn port(&self, socket: &std::net::UdpSocket) -> u16 {
        socket.local_addr().unwrap().port()
    }
}
