//! The threads of one stream: capture, encode, send, audio.
//!
//! [`prepare`] checks and opens everything that can fail while the client still negotiates; [`Prepared::start`] spawns
//! the threads when the client's address is known. A thread owns its state; between threads there are mailboxes that are
//! bounded by what they can hold: a slot of one picture (newest wins), a queue of two access units, the newest address.
//! Pictures are dropped before they are encoded and not after, so a drop breaks no reference, and every picture leaves
//! a trace that tells its fate. Whoever spawns, joins: dropping the [`StreamHandle`] stops the stream.
//!
//! Deliberately absent: knowledge of any protocol (the line brings it) and any waiting on an async runtime.

mod audio;
mod cadence;
mod capture;
mod counts;
mod encode;
mod handle;
mod links;
mod mailbox;
mod send;

pub mod udp;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use punktfunk_core::line::{AudioSender, FrameSender};
use punktfunk_core::media::{FrameIndex, FrameTrace};

pub use self::counts::Counts;
pub use self::handle::{Prepared, StreamHandle, prepare};
use crate::audio::{AudioError, AudioSource, AudioSpec};
use crate::capture::FrameSource;
use crate::encode::{EncodeError, EncodeSpec, EncoderBackend};

/// Why a stream or a session ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// The client said goodbye or was silent for too long; the app lives on.
    ClientGone,
    /// The owner or the client asked for the end of the session.
    Quit,
    /// The client was a guest, and its time is over.
    GuestTimeOver,
    /// The app ended.
    AppExited,
    /// The same client started a new stream.
    Replaced,
    /// The daemon is stopping.
    Shutdown,
    /// The display or its compositor died.
    DisplayLost(String),
    /// The encoder failed.
    EncoderFailed(String),
    /// A socket failed.
    NetworkFailed(String),
    /// A thread panicked: a bug of ours, contained.
    Bug(String),
}

impl std::fmt::Display for EndReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ClientGone => f.write_str("the client left"),
            Self::Quit => f.write_str("it was quit"),
            Self::GuestTimeOver => f.write_str("the device's time as a guest is over"),
            Self::AppExited => f.write_str("the app ended"),
            Self::Replaced => f.write_str("the client started anew"),
            Self::Shutdown => f.write_str("the host was stopped"),
            Self::DisplayLost(why) => write!(f, "its display was lost: {why}"),
            Self::EncoderFailed(why) => write!(f, "its encoder failed: {why}"),
            Self::NetworkFailed(why) => write!(f, "its socket failed: {why}"),
            Self::Bug(why) => write!(f, "a bug of the host ended it: {why}"),
        }
    }
}

/// Where media goes, and from where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The client.
    pub to: SocketAddr,
    /// The host's address that datagrams leave from, for a client takes them only from the one that it spoke to; `None`
    /// leaves it to the routing table.
    pub from: Option<IpAddr>,
}

impl From<SocketAddr> for Peer {
    fn from(to: SocketAddr) -> Self {
        Self { to, from: None }
    }
}

/// What a door brings to a stream: machines that know the protocol, and the sockets they send on.
pub struct StreamLine {
    /// Turns access units into datagrams.
    pub video: Box<dyn FrameSender>,
    /// Where video datagrams leave.
    pub video_socket: Arc<UdpSocket>,
    /// Turns Opus packets into datagrams.
    pub audio: Box<dyn AudioSender>,
    /// Where audio datagrams leave.
    pub audio_socket: Arc<UdpSocket>,
    /// IP type-of-service byte to mark datagrams with, 0 = none: (video, audio).
    pub tos: (u8, u8),
    /// What the owner may want to know of the line.
    pub about: LineAbout,
    /// Called once, from any thread, when a started stream has ended for whatever reason and its threads have given
    /// everything back. Must not block.
    pub on_end: Box<dyn FnOnce(EndReason) + Send>,
}

/// A line in words and numbers, for the owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LineAbout {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Where the client negotiated from.
    pub remote: IpAddr,
    /// The bitrate that the client asked for, as far as it is for coded video, in kbit/s.
    pub asked_bitrate_kbps: u32,
    /// Parity that is sent, in percent of the data.
    pub fec_percentage: u8,
    /// Messages of the control connection are encrypted.
    pub control_encrypted: bool,
    /// Video is encrypted.
    pub video_encrypted: bool,
    /// Sound is encrypted.
    pub audio_encrypted: bool,
}

/// What the client negotiated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamSpec {
    /// The video.
    pub video: EncodeSpec,
    /// The sound.
    pub audio: AudioSpec,
}

/// Everything one stream is made of.
pub struct StreamParts {
    /// What the client negotiated.
    pub spec: StreamSpec,
    /// Its pictures.
    pub frames: Box<dyn FrameSource>,
    /// Opens the encoder, and opens it again when the size changes.
    pub encoder: Arc<dyn EncoderBackend>,
    /// Its sound.
    pub sound: Box<dyn AudioSource>,
    /// The protocol's side.
    pub line: StreamLine,
    /// Takes a trace of every frame; a full channel loses traces, never frames.
    pub traces: SyncSender<FrameTrace>,
}

/// Why a stream could not be prepared.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// No encoder for what was negotiated.
    #[error("the video cannot be encoded: {0}")]
    Encoder(#[from] EncodeError),
    /// No encoder for the sound that was negotiated.
    #[error("the sound cannot be encoded: {0}")]
    Sound(#[from] AudioError),
    /// A socket of the line cannot be used.
    #[error("the line has a socket without an address")]
    Socket(#[source] std::io::Error),
}

/// What a door may ask of a running stream, from any thread, without blocking.
pub trait StreamControl: Send + Sync {
    /// Makes the next picture an IDR picture. Requests in quick succession are one.
    fn request_idr(&self);
    /// The client lost these frames and all that depend on them.
    fn invalidate(&self, first: FrameIndex, last: FrameIndex);
    /// Where video goes from now on.
    fn set_video_peer(&self, peer: Peer);
    /// Where sound goes from now on; no sound is sent before the first call.
    fn set_audio_peer(&self, peer: Peer);
    /// Begins to end the stream; `on_end` is called when it has ended.
    fn stop(&self, reason: EndReason);
    /// The client reports a block of which so many datagrams were missing. Only counted.
    fn note_loss(&self, _missing: u16) {}
    /// There and back takes so long at the moment. Only noted.
    fn note_round_trip(&self, _round_trip: Duration) {}
}
