//! The RTSP server: one request per connection, answered and closed.
//!
//! A connection says by its first bit whether it is encrypted; the key that opens it, or the address it comes from, says
//! whose ticket it is. The meaning of requests and their order are `core`'s, the state lies in the ticket. Only ANNOUNCE
//! takes time: the stream is prepared by the session desk, on a thread that may block.
//!
//! A stranger's connection is closed without a word. Deliberately absent: any answer that does not belong to a ticket.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use punktfunk_core::gamestream::audio::{AudioOptions, AudioPacketizer};
use punktfunk_core::gamestream::rtsp::{
    FrameProgress, Offer, Ports, Progress, Request, RequestError, SealedError, frame_bytes,
    is_sealed,
};
use punktfunk_core::gamestream::sdp::Encryption;
use punktfunk_core::gamestream::video::{VideoOptionsError, VideoSender, VideoSenderOptions};
use punktfunk_core::line::FrameSender;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::recv::{Inbox, MediaSockets};
use super::ticket::{Answer, Preparation, TicketId, Tickets, network};
use super::{EncryptionPolicy, SharedTuning, Tuning};
use crate::audio::{AudioSpec, SAMPLE_RATE};
use crate::clock;
use crate::encode::EncodeSpec;
use crate::session::{SessionDesk, SessionError, StreamGrant};
use crate::stream::{LineAbout, StreamLine, StreamSpec};

/// How long a connection may take for its request.
const IDLE: Duration = Duration::from_secs(15);
/// Connections at once, and of them from one address (for IPv6: one /64).
const MAX_CONNECTIONS: usize = 64;
const MAX_CONNECTIONS_PER_ADDRESS: usize = 8;
/// How long accepting rests after it failed, which it does when the system is out of descriptors.
const ACCEPT_REST: Duration = Duration::from_millis(200);
/// Type-of-service bytes: class selectors 5 and 6, which access points put into their video and voice queues.
// spec: gamestream 7.11
const TOS_VIDEO: u8 = 40 << 2;
const TOS_AUDIO: u8 = 48 << 2;

/// What the server works with.
pub struct RtspDoor {
    /// The tickets it serves.
    pub tickets: Arc<Tickets>,
    /// Where streams are prepared.
    pub desk: Arc<dyn SessionDesk>,
    /// The sockets that streams leave from.
    pub sockets: MediaSockets,
    /// Where streams leave word that they have ended.
    pub inbox: Inbox,
    /// What the next stream begins with.
    pub tuning: SharedTuning,
}

/// Why a connection was closed.
#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("it took longer than {} s", IDLE.as_secs())]
    Slow,
    #[error("it ended in the middle of a request")]
    CutOff,
    #[error("reading or writing failed: {0}")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error(transparent)]
    Sealed(#[from] SealedError),
    #[error("no stream is being set up for it")]
    NoTicket,
}

/// Why a stream could not be prepared.
#[derive(Debug, thiserror::Error)]
enum PrepareError {
    #[error("the client's choice cannot be sent: {0}")]
    Line(#[from] VideoOptionsError),
    #[error(transparent)]
    Session(#[from] SessionError),
}

/// Serves connections until the returned future is dropped, which closes them.
pub async fn serve(listener: TcpListener, door: Arc<RtspDoor>) {
    let crowd = Arc::new(Crowd::default());
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    tracing::error!("an RTSP connection panicked");
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, remote)) => {
                let Some(place) = Place::take(&crowd, remote.ip()) else {
                    tracing::debug!(%remote, "too many RTSP connections");
                    continue;
                };
                let door = Arc::clone(&door);
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = door.connection(stream, remote).await {
                        tracing::debug!(%remote, %error, "an RTSP connection was closed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "RTSP connections cannot be accepted");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}

impl RtspDoor {
    async fn connection(
        self: &Arc<Self>,
        mut stream: TcpStream,
        remote: SocketAddr,
    ) -> Result<(), ConnectionError> {
        let message = tokio::time::timeout(IDLE, read(&mut stream))
            .await
            .map_err(|_| ConnectionError::Slow)??;
        let (id, request) = self.identify(message, remote.ip())?;
        let offer = self.offer();
        let answer = self
            .tickets
            .answer(id, &request, &offer, self.ports()?, clock::now())
            .ok_or(ConnectionError::NoTicket)?;
        let answer = match answer {
            Answer::Reply(answer) => answer,
            Answer::Refuse(answer, error) => {
                tracing::warn!(%remote, %error, "a client's stream settings were refused");
                answer
            }
            Answer::Prepare(preparation) => {
                self.prepare(*preparation, remote).await.ok_or(ConnectionError::NoTicket)?
            }
        };
        let answer = self.tickets.seal_rtsp(id, answer)?.ok_or(ConnectionError::NoTicket)?;
        // The client reads until the connection ends.
        // spec: gamestream 4.1
        let write = async {
            stream.write_all(&answer).await?;
            stream.shutdown().await
        };
        tokio::time::timeout(IDLE, write).await.map_err(|_| ConnectionError::Slow)??;
        Ok(())
    }

    fn identify(
        &self,
        message: Message,
        remote: IpAddr,
    ) -> Result<(TicketId, Request), ConnectionError> {
        match message {
            Message::Plain(request) => {
                let id = self.tickets.find_rtsp(remote, request.session());
                Ok((id.ok_or(ConnectionError::NoTicket)?, request))
            }
            Message::Sealed(frame) => {
                let (id, text) = self.tickets.open_rtsp(&frame)?;
                match Request::parse(&text)? {
                    Progress::Complete { request, .. } => Ok((id, request)),
                    Progress::Incomplete { .. } => Err(ConnectionError::CutOff),
                }
            }
        }
    }

    fn offer(&self) -> Offer {
        let tuning = self.tuning.now();
        Offer {
            codecs: self.desk.codecs(),
            encryption: match tuning.encryption {
                EncryptionPolicy::ControlOnly => Encryption::CONTROL,
                EncryptionPolicy::Offer | EncryptionPolicy::Require => Encryption::ALL,
            },
            required: match tuning.encryption {
                EncryptionPolicy::ControlOnly | EncryptionPolicy::Offer => Encryption::CONTROL,
                EncryptionPolicy::Require => Encryption::ALL,
            },
            reference_invalidation: false,
            feature_flags: 0,
            fec_percentage: tuning.fec_percentage,
        }
    }

    fn ports(&self) -> io::Result<Ports> {
        self.sockets.ports()
    }

    /// Prepares the stream; the answer to send, or `None` if the ticket is gone.
    async fn prepare(
        self: &Arc<Self>,
        preparation: Preparation,
        remote: SocketAddr,
    ) -> Option<Vec<u8>> {
        let door = Arc::clone(self);
        let work = move || {
            let grant = match door.prepare_blocking(&preparation, remote.ip()) {
                Ok(grant) => Some(grant),
                Err(error) => {
                    tracing::warn!(%remote, %error, "a stream could not be prepared");
                    None
                }
            };
            door.tickets.prepared(preparation, grant, clock::now())
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer,
            Err(error) => {
                tracing::error!(%remote, %error, "preparing a stream panicked");
                None
            }
        }
    }

    fn prepare_blocking(
        &self,
        preparation: &Preparation,
        remote: IpAddr,
    ) -> Result<StreamGrant, PrepareError> {
        let announced = &preparation.announced;
        let tuning = self.tuning.now();
        let video = video_sender(preparation, tuning)?;
        let spec = StreamSpec {
            video: EncodeSpec {
                codec: announced.codec,
                mode: announced.mode,
                bitrate_kbps: announced.bitrate_kbps.min(tuning.max_bitrate_kbps),
                colour: announced.colour,
                slices: announced.slices,
                max_reference_frames: announced.max_reference_frames,
                max_unit_bytes: video.max_unit_bytes(),
            },
            audio: AudioSpec {
                channels: announced.audio.channels,
                period_samples: SAMPLE_RATE / 1000 * u32::from(announced.audio.packet_duration_ms),
                bitrate_kbps: announced.audio.bitrate_kbps(),
            },
        };
        let audio_key =
            announced.encryption.audio.then(|| (preparation.key.clone(), preparation.key_id));
        let (mark_video, mark_audio) = announced.mark_traffic;
        let (inbox, id) = (self.inbox.clone(), preparation.id);
        let line = StreamLine {
            video: Box::new(video),
            video_socket: Arc::clone(&self.sockets.video),
            audio: Box::new(AudioPacketizer::new(AudioOptions {
                packet_duration_ms: announced.audio.packet_duration_ms,
                encryption: audio_key,
            })),
            audio_socket: Arc::clone(&self.sockets.audio),
            tos: (if mark_video { TOS_VIDEO } else { 0 }, if mark_audio { TOS_AUDIO } else { 0 }),
            about: LineAbout {
                protocol: "GameStream",
                remote: remote.to_canonical(),
                asked_bitrate_kbps: announced.bitrate_kbps,
                fec_percentage: tuning.fec_percentage,
                // Messages in clear are dropped.
                control_encrypted: true,
                video_encrypted: announced.encryption.video,
                audio_encrypted: announced.encryption.audio,
            },
            on_end: Box::new(move |reason| inbox.ended(id, reason)),
        };
        tracing::info!(
            session = preparation.session.0,
            mode = %announced.mode,
            codec = %announced.codec,
            bitrate_kbps = announced.bitrate_kbps,
            packet_size = announced.packet_size,
            control_v2 = announced.encryption.control_v2,
            video_encrypted = announced.encryption.video,
            audio_encrypted = announced.encryption.audio,
            "a client chose its stream"
        );
        Ok(self.desk.prepare_stream(preparation.session, spec, line)?)
    }
}

fn video_sender(
    preparation: &Preparation,
    tuning: Tuning,
) -> Result<VideoSender, VideoOptionsError> {
    let announced = &preparation.announced;
    VideoSender::new(VideoSenderOptions {
        packet_size: announced.packet_size,
        fec_percentage: tuning.fec_percentage,
        min_parity: announced.min_parity,
        single_block: !announced.multiple_blocks,
        encryption: announced.encryption.video.then(|| preparation.key.clone()),
        bitrate_kbps: announced.bitrate_kbps.min(tuning.max_bitrate_kbps),
        frame_interval: announced.mode.frame_interval(),
    })
}

/// What a connection carried.
enum Message {
    Plain(Request),
    Sealed(Vec<u8>),
}

/// Reads one message, in whatever pieces it comes.
async fn read(stream: &mut TcpStream) -> Result<Message, ConnectionError> {
    let mut bytes = Vec::new();
    // Whoever sends single bytes makes nobody read the whole again for each.
    let mut wanted = 0;
    loop {
        let mut piece = [0; 4096];
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Err(ConnectionError::CutOff);
        }
        bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
        if bytes.len() < wanted {
            continue;
        }
        if is_sealed(&bytes) == Some(true) {
            if let FrameProgress::Complete { .. } = frame_bytes(&bytes)? {
                return Ok(Message::Sealed(bytes));
            }
            continue;
        }
        match Request::parse(&bytes)? {
            Progress::Complete { request, .. } => return Ok(Message::Plain(request)),
            Progress::Incomplete { at_least } => wanted = at_least,
        }
    }
}

/// Who is connected.
#[derive(Default)]
struct Crowd(Mutex<BTreeMap<IpAddr, usize>>);

/// One connection's place in the crowd, given back when dropped.
struct Place {
    crowd: Arc<Crowd>,
    network: IpAddr,
}

impl Place {
    fn take(crowd: &Arc<Crowd>, remote: IpAddr) -> Option<Self> {
        let network = network(remote);
        let mut counts = crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.values().sum::<usize>() >= MAX_CONNECTIONS {
            return None;
        }
        let count = counts.entry(network).or_default();
        if *count >= MAX_CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *count += 1;
        drop(counts);
        Some(Self { crowd: Arc::clone(crowd), network })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_all_places() {
        let crowd = Arc::new(Crowd::default());
        let address = |last: u8| IpAddr::from([10, 0, 0, last]);
        let mut places: Vec<_> = (0..8).map(|_| Place::take(&crowd, address(1)).unwrap()).collect();
        assert!(Place::take(&crowd, address(1)).is_none());
        for last in 2..9 {
            places.extend((0..8).map(|_| Place::take(&crowd, address(last)).unwrap()));
        }
        assert_eq!(places.len(), MAX_CONNECTIONS);
        assert!(Place::take(&crowd, address(100)).is_none());
        drop(places.pop());
        assert!(Place::take(&crowd, address(100)).is_some());
        drop(places);
        assert!(crowd.0.lock().unwrap().is_empty());
    }
}
