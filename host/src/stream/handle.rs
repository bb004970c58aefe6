//! From parts to running threads, and the handle that doors and sessions hold.

use std::net::UdpSocket;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use punktfunk_core::media::FrameIndex;

use super::audio::Sounding;
use super::counts::{Counts, bump};
use super::encode::Encoding;
use super::links::{Links, spawn};
use super::send::{Outlet, Sending};
use super::udp::{BurstSocket, Segmentation};
use super::{EndReason, Peer, StreamControl, StreamError, StreamParts};
use super::{audio, capture, encode, send};
use crate::audio::opus::OpusEncoder;
use crate::encode::{EncodeSpec, Encoder};

/// Opens everything a stream needs that can fail or takes time. Blocks for as long as the encoder takes to open.
///
/// # Errors
/// [`StreamError`] says which part cannot be had; the parts are dropped.
pub fn prepare(parts: StreamParts) -> Result<Prepared, StreamError> {
    let mut video = parts.spec.video.clone();
    video.max_unit_bytes = video.max_unit_bytes.min(parts.line.video.max_unit_bytes());
    let encoder = parts.encoder.open(&video)?;
    let opus = OpusEncoder::open(&parts.spec.audio)?;
    let socket = |socket: &Arc<UdpSocket>, tos| {
        BurstSocket::new(Arc::clone(socket), tos, Segmentation::Auto).map_err(StreamError::Socket)
    };
    let (video_tos, audio_tos) = parts.line.tos;
    let video_socket = socket(&parts.line.video_socket, video_tos)?;
    let audio_socket = socket(&parts.line.audio_socket, audio_tos)?;
    Ok(Prepared { parts, video, encoder, opus, video_socket, audio_socket })
}

/// A stream whose parts are open and whose threads do not run yet. Dropping it gives everything back, and `on_end` is
/// not called: nothing has begun.
pub struct Prepared {
    parts: StreamParts,
    video: EncodeSpec,
    encoder: Box<dyn Encoder>,
    opus: OpusEncoder,
    video_socket: BurstSocket,
    audio_socket: BurstSocket,
}

impl Prepared {
    /// Starts the threads. Video goes to `video_peer`; sound to `audio_peer`, or once
    /// [`StreamControl::set_audio_peer`] names one. Does not block. If a thread cannot be started the stream ends at
    /// once as [`EndReason::Bug`].
    pub fn start(self, video_peer: Peer, audio_peer: Option<Peer>) -> StreamHandle {
        let Self { parts, video, encoder, opus, video_socket, audio_socket } = self;
        let StreamParts { spec, frames, encoder: backend, sound, line, traces } = parts;
        let links = Arc::new(Links::new(traces, line.on_end, audio_peer));
        let encoding = Encoding { backend, encoder, spec: video };
        let outlet = Outlet::new(video_socket, video_peer);
        let sending = Sending { sender: line.video, outlet };
        let sounding = Sounding {
            source: sound,
            encoder: opus,
            spec: spec.audio,
            sender: line.audio,
            // Nothing leaves before the inbox has an address, see `audio`.
            outlet: Outlet::new(audio_socket, audio_peer.unwrap_or(video_peer)),
        };
        // From the end of the line to its beginning, so that nothing is produced before somebody takes it.
        let threads = [
            spawn("pf-send", &links, move |links| send::run(links, sending)),
            spawn("pf-audio", &links, move |links| audio::run(links, sounding)),
            spawn("pf-encode", &links, move |links| encode::run(links, encoding)),
            spawn("pf-capture", &links, move |links| capture::run(links, frames)),
        ];
        StreamHandle { links, threads: Mutex::new(threads.into_iter().flatten().collect()) }
    }
}

/// A running stream. Dropping it ends the stream as [`EndReason::Quit`], unless it is ending already, and waits for its
/// threads.
pub struct StreamHandle {
    links: Arc<Links>,
    /// Not on the line: only who joins looks in here.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl StreamHandle {
    /// What was counted beside the frames since the stream began.
    pub fn counts(&self) -> Counts {
        self.links.counters.read()
    }

    /// Waits until the threads have ended. It does not end the stream: call [`StreamControl::stop`] for that. Called by
    /// two threads at once, one of them may return early.
    pub fn join(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let me = std::thread::current().id();
        // The last thread calls `on_end`, which may drop the last handle: a thread cannot wait for itself.
        for thread in threads.into_iter().filter(|thread| thread.thread().id() != me) {
            if thread.join().is_err() {
                tracing::error!("a stream thread panicked outside its work");
            }
        }
    }
}

impl StreamControl for StreamHandle {
    fn request_idr(&self) {
        bump(&self.links.counters.idr_requests);
        self.links.encode.look(|inbox| inbox.idr_wanted = true);
    }

    fn invalidate(&self, first: FrameIndex, last: FrameIndex) {
        bump(&self.links.counters.invalidations);
        self.links.encode.look(|inbox| {
            // Frames between two losses depend on the first of them, so one range says it all.
            inbox.lost = Some(match inbox.lost {
                Some((earlier, later)) => (first.min(earlier), last.max(later)),
                None => (first, last),
            });
        });
    }

    fn set_video_peer(&self, peer: Peer) {
        self.links.send.post(|inbox| inbox.new_peer = Some(peer));
    }

    fn set_audio_peer(&self, peer: Peer) {
        self.links.audio.look(|inbox| inbox.peer = Some(peer));
    }

    fn stop(&self, reason: EndReason) {
        self.links.end(reason);
    }

    fn note_loss(&self, missing: u16) {
        self.links.counters.note_loss(missing);
    }

    fn note_round_trip(&self, round_trip: Duration) {
        self.links.counters.note_round_trip(round_trip);
    }
}

impl Drop for StreamHandle {
    fn drop(&mut self) {
        self.links.end(EndReason::Quit);
        self.join();
    }
}
