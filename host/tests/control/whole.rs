//! The door with real sessions behind it: Test card, encoder, datagrams. What happens to one client is compared with
//! what the host's trace says of another one that plays all the time.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use punktfunk_core::gamestream::control::Scheme;
use punktfunk_core::media::{
    AccessUnit, Codec, DropReason, FrameFate, FrameKind, FrameTrace, Mode,
};
use punktfunk_core::seal::SessionKey;
use punktfunk_host::agent::{Local, ProfileNumber};
use punktfunk_host::capture::CapturedFrame;
use punktfunk_host::display::DisplayBackend;
use punktfunk_host::display::pattern::PatternBackend;
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::encode::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest};
use punktfunk_host::gamestream::recv::{self, MediaSockets, Patience, RecvHandle};
use punktfunk_host::gamestream::rtsp::{self, RtspDoor};
use punktfunk_host::gamestream::ticket::{TicketRequest, Tickets};
use punktfunk_host::gamestream::{EncryptionPolicy, Ports, SharedTuning, Tuning};
use punktfunk_host::session::{
    App, AppId, ClientId, SessionDesk, SessionId, SessionOptions, Sessions, Sounds,
};

use super::player::{Negotiation, Player, announce, ping};

const PATIENCE: Duration = Duration::from_secs(60);
const CARD: AppId = AppId(1);
/// What a client is told when the host failed. spec: gamestream 5.8
const HOST_FAILED: (u16, [u8; 4]) = (0x0109, [0x80, 0x03, 0x00, 0x25]);
/// The width that is asked for by clients whose encoder is to break.
const DOOMED_WIDTH: u32 = 320;
pub(crate) const WIDTH: u32 = 256;

/// How the encoders of doomed clients end, once they are to.
#[derive(Clone, Copy, PartialEq)]
enum Death {
    Fails,
    Panics,
}

/// x264, but encoders of one width break when they are told to.
struct Breakable {
    death: Death,
    now: Arc<AtomicBool>,
}

impl EncoderBackend for Breakable {
    fn name(&self) -> &'static str {
        "breakable"
    }

    fn probe(&self) -> Result<Vec<Codec>, EncodeError> {
        X264Backend.probe()
    }

    fn open(&self, spec: &EncodeSpec) -> Result<Box<dyn Encoder>, EncodeError> {
        let encoder = X264Backend.open(spec)?;
        if spec.mode.width() != DOOMED_WIDTH {
            return Ok(encoder);
        }
        Ok(Box::new(Doomed { encoder, death: self.death, now: Arc::clone(&self.now) }))
    }
}

struct Doomed {
    encoder: Box<dyn Encoder>,
    death: Death,
    now: Arc<AtomicBool>,
}

impl Encoder for Doomed {
    fn encode(
        &mut self,
        frame: &CapturedFrame,
        request: PictureRequest,
    ) -> Result<AccessUnit, EncodeError> {
        if self.now.swap(false, Ordering::SeqCst) {
            assert!(self.death == Death::Fails, "the encoder panics, which is what a test wants");
            return Err(EncodeError::Failed { encoder: "breakable", reason: "smoke".into() });
        }
        self.encoder.encode(frame, request)
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        self.encoder.recycle(bytes);
    }
}

/// A host without HTTP: its launches are made by the test.
pub(crate) struct Host {
    pub(crate) sessions: Arc<Sessions>,
    tickets: Arc<Tickets>,
    sockets: MediaSockets,
    rtsp: SocketAddr,
    recv: Option<RecvHandle>,
    keys: u8,
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) folder: tempfile::TempDir,
}

impl Host {
    pub(crate) fn start(encoder: Arc<dyn EncoderBackend>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let display: Arc<dyn DisplayBackend> = Arc::new(PatternBackend::default());
        let card = App {
            id: CARD,
            title: "Test card".to_owned(),
            display: "pattern".to_owned(),
            commands: vec![],
            art: None,
        };
        let sessions = Arc::new(Sessions::new(SessionOptions {
            apps: vec![card],
            displays: BTreeMap::from([("pattern".to_owned(), display)]),
            encoder,
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 4,
            // The card has no programs, so that no agent is ever started.
            agents: Arc::new(Local::new(folder.path().join("sessions"), None)),
            profile: Box::new(|client| Ok(ProfileNumber(client.0[0].into()))),
        }));
        let address = IpAddr::from([127, 0, 0, 1]);
        let any = Ports { http: 0, https: 0, rtsp: 0, video: 0, control: 0, audio: 0 };
        let sockets = MediaSockets::bind(address, any).unwrap();
        let tickets = Arc::new(Tickets::default());
        let recv = recv::spawn(&sockets, Arc::clone(&tickets), Patience::default()).unwrap();
        let door = Arc::new(RtspDoor {
            tickets: Arc::clone(&tickets),
            desk: Arc::clone(&sessions) as Arc<dyn SessionDesk>,
            sockets: sockets.clone(),
            inbox: recv.inbox(),
            tuning: SharedTuning::new(Tuning {
                encryption: EncryptionPolicy::Offer,
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
        let rtsp = listener.local_addr().unwrap();
        runtime.spawn(rtsp::serve(listener, door));
        let recv = Some(recv);
        Self { sessions, tickets, sockets, rtsp, recv, keys: 0, runtime, folder }
    }

    /// Launches the Test card for a client and plays it.
    pub(crate) fn play(&mut self, client: u8, width: u32) -> Playing {
        self.play_as(ClientId([client; 32]), width)
    }

    /// The same, as a client that has been paired.
    pub(crate) fn play_as(&mut self, client: ClientId, width: u32) -> Playing {
        let remote = IpAddr::from([127, 0, 0, 1]);
        let mode = Mode::new(width, 144, 60_000).unwrap();
        let session = self.sessions.launch(client, CARD, mode).unwrap().session;
        self.keys += 1;
        let key = SessionKey::new([self.keys; 16]);
        self.tickets
            .issue(TicketRequest {
                client,
                session,
                key: key.clone(),
                key_id: 7,
                remote,
                mode,
                encrypted_rtsp: true,
            })
            .unwrap();
        let mut negotiation = Negotiation::new(self.rtsp, Some(&key));
        negotiation.set_up();
        negotiation.choose(&announce(&format!(
            "a=x-nv-video[0].clientViewportWd:{width} \r\na=x-nv-video[0].clientViewportHt:144 \r\n"
        )));
        let control = self.sockets.control.local_addr().unwrap();
        let mut player = Player::new(control, &key, Scheme::V2, 48, negotiation.connect_data);
        player.connect();
        player.send(0, 0x0302, &[0, 0]);
        player.send(0, 0x0307, &[0]);
        let video = UdpSocket::bind((remote, 0)).unwrap();
        video.connect(self.sockets.video.local_addr().unwrap()).unwrap();
        ping(&video, &negotiation.ping_payload);
        let since = self.traces(session).len();
        let mut playing = Playing { session, player, _video: video, since };
        playing.until(self, "its stream runs", |traces| sent(traces).count() > 5);
        playing
    }

    fn traces(&self, session: SessionId) -> Vec<FrameTrace> {
        self.sessions.traces(session)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        drop(self.recv.take());
        self.sessions.shut_down(punktfunk_host::stream::EndReason::Shutdown);
        let _ = &self.runtime;
    }
}

/// A client that plays.
pub(crate) struct Playing {
    pub(crate) session: SessionId,
    pub(crate) player: Player,
    _video: UdpSocket,
    /// So many traces are of streams before this one.
    since: usize,
}

impl Playing {
    pub(crate) fn traces(&self, host: &Host) -> Vec<FrameTrace> {
        host.traces(self.session).split_off(self.since)
    }

    /// Talks on until the traces of the stream are as wanted.
    pub(crate) fn until(&mut self, host: &Host, what: &str, done: impl Fn(&[FrameTrace]) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(&self.traces(host)) {
            assert!(Instant::now() < deadline, "{what}");
            self.player.serve_for(Duration::from_millis(20));
        }
    }
}

/// The frames that went out: (number, kind).
pub(crate) fn sent(traces: &[FrameTrace]) -> impl Iterator<Item = (u32, FrameKind)> {
    traces.iter().filter_map(|trace| match trace.fate {
        FrameFate::Sent { index, kind, .. } => Some((index.0, kind)),
        FrameFate::Dropped(_) => None,
    })
}

/// Nothing that was encoded was lost, and every number is there.
pub(crate) fn assert_undisturbed(traces: &[FrameTrace]) {
    let lost = |trace: &&FrameTrace| {
        let reasons = [DropReason::Unsendable, DropReason::StreamEnded];
        matches!(trace.fate, FrameFate::Dropped(reason) if reasons.contains(&reason))
    };
    assert_eq!(traces.iter().find(lost), None);
    let numbers: Vec<_> = sent(traces).map(|(index, _)| index).collect();
    let whole: Vec<_> = (numbers[0]..).take(numbers.len()).collect();
    assert_eq!(numbers, whole);
}

fn check_encoder_death(death: Death) {
    let now = Arc::new(AtomicBool::new(false));
    let mut host = Host::start(Arc::new(Breakable { death, now: Arc::clone(&now) }));
    let mut sibling = host.play(1, WIDTH);
    let mut victim = host.play(2, DOOMED_WIDTH);
    now.store(true, Ordering::SeqCst);
    let told = |player: &Player| player.heard.contains(&(HOST_FAILED.0, HOST_FAILED.1.to_vec()));
    assert!(victim.player.serve_until(told), "the client is not told: {:x?}", victim.player.heard);

    let shown = sent(&sibling.traces(&host)).count();
    sibling.until(&host, "the sibling plays on", |traces| sent(traces).count() > shown + 30);
    assert_undisturbed(&sibling.traces(&host));
    assert!(!sibling.player.disconnected);

    let session = victim.session;
    drop(victim);
    let mut again = host.play(2, DOOMED_WIDTH);
    assert_eq!(again.session, session, "the app has lived on");
    again.until(&host, "the next launch works", |traces| sent(traces).count() > 30);
    assert!(sent(&again.traces(&host)).any(|(_, kind)| kind == FrameKind::Idr));
}

#[test]
fn an_encoder_that_fails_ends_its_own_stream_only() {
    check_encoder_death(Death::Fails);
}

#[test]
fn an_encoder_that_panics_ends_its_own_stream_only() {
    check_encoder_death(Death::Panics);
}

// spec: gamestream 13 item 78
#[test]
fn a_client_that_lost_frames_gets_one_that_needs_none_of_them() {
    let mut host = Host::start(Arc::new(X264Backend));
    let mut client = host.play(1, WIDTH);
    for _ in 0..3 {
        client.until(&host, "its stream runs on", |traces| {
            sent(traces).filter(|(_, kind)| *kind == FrameKind::Predicted).count() > 20
        });
        let traces = client.traces(&host);
        let (last, _) = sent(&traces).last().unwrap();
        let mut lost = [0; 24];
        lost[..4].copy_from_slice(&(last - 2).to_le_bytes());
        lost[8..12].copy_from_slice(&last.to_le_bytes());
        let idr_before = sent(&traces).filter(|(_, kind)| *kind == FrameKind::Idr).count();
        client.player.send(1, 0x0301, &lost);
        client.until(&host, "no frame restarts the picture", |traces| {
            sent(traces).filter(|(_, kind)| *kind != FrameKind::Predicted).count() > idr_before
        });
        let (restart, _) = sent(&client.traces(&host))
            .find(|(index, kind)| *index > last && *kind != FrameKind::Predicted)
            .unwrap();
        // On a busy machine some frames go out before the message has come; at 60 Hz this is half a second.
        assert!(restart - last <= 30, "frame {restart} restarts what was lost at frame {last}");
        client.since = host.traces(client.session).len();
    }
}
