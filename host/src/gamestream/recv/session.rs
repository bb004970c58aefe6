//! One session on the receiving thread: its keys, its input devices, its stream.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use punktfunk_core::gamestream::control::{
    ClientMessage, ControlError, HostMessage, Opener, Sealer, Side, termination,
};
use punktfunk_core::gamestream::enet::Commands;
use punktfunk_core::gamestream::input::{Packet, Unsupported};
use punktfunk_core::time::Timestamp;
use rusty_enet::PeerID;
use subtle::ConstantTimeEq;

use super::QUIET;
use crate::gamestream::ticket::{Adopted, Media, Ping, TicketId};
use crate::input::{InputError, InputSink};
use crate::session::{PreparedStream, SessionId};
use crate::stream::{EndReason, Peer, StreamControl};

/// After media has moved to another address it stays for this long. A client moves now and then and pings twice a second;
/// one that named a new address with every ping would leave as many behind that the kernel seeks in vain, and what it
/// keeps for them is charged to the socket that everybody's streams leave by.
const MOVE_REST: Duration = Duration::from_secs(1);
/// How long a device that takes nothing is left alone. One that hangs costs all sessions of the thread its patience.
const DEVICE_REST: Duration = Duration::from_secs(3);

/// What becomes of a session.
pub(super) enum Phase {
    /// It waits for the client's first message and its first video ping.
    Opening {
        /// What will run.
        stream: Box<dyn PreparedStream>,
        /// When it has waited for too long.
        until: Timestamp,
    },
    /// Its stream runs.
    Streaming(Arc<dyn StreamControl>),
    /// The client was told that it is over and gets time to hear it.
    Ending {
        /// When patience ends.
        until: Timestamp,
        /// It was also asked to disconnect.
        asked: bool,
    },
    /// It can be forgotten.
    Over,
}

/// A session whose client has connected.
pub(super) struct Session {
    pub(super) id: TicketId,
    pub(super) session: SessionId,
    pub(super) phase: Phase,
    /// The peer whose message opened. Until then several may claim to be the client, for CONNECT proves nothing.
    pub(super) peer: Option<PeerID>,
    pub(super) last_heard: Timestamp,
    opener: Opener,
    sealer: Sealer,
    input: Box<dyn InputSink>,
    connect_data: u32,
    remote: IpAddr,
    ping_payload: [u8; 16],
    legacy_pings: bool,
    video_peer: Option<Peer>,
    audio_peer: Option<Peer>,
    video_moved: Option<Timestamp>,
    audio_moved: Option<Timestamp>,
    refused_messages: u64,
    /// When the input devices took nothing last, if they did not recover.
    input_lost: Option<Timestamp>,
    unsupported: Vec<Unsupported>,
    /// A goodbye that may be forged, and when it came.
    goodbye: Option<(Timestamp, Box<[u8]>)>,
}

impl Session {
    pub(super) fn new(adopted: Adopted, now: Timestamp, until: Timestamp) -> Self {
        Self {
            id: adopted.id,
            session: adopted.session,
            phase: Phase::Opening { stream: adopted.stream, until },
            peer: None,
            last_heard: now,
            opener: Opener::new(&adopted.key, adopted.scheme, Side::Client),
            sealer: Sealer::new(&adopted.key, adopted.scheme, Side::Host),
            input: adopted.input,
            connect_data: adopted.connect_data,
            remote: adopted.remote.to_canonical(),
            ping_payload: adopted.ping_payload,
            legacy_pings: adopted.legacy_pings,
            video_peer: adopted.video_peer,
            audio_peer: adopted.audio_peer,
            video_moved: None,
            audio_moved: None,
            refused_messages: 0,
            input_lost: None,
            unsupported: Vec::new(),
            goodbye: None,
        }
    }

    /// Whether a further CONNECT may turn out to be this session's client.
    pub(super) fn awaits(&self, data: u32, remote: IpAddr) -> bool {
        self.peer.is_none()
            && matches!(self.phase, Phase::Opening { .. })
            && data == self.connect_data
            && (data != 0 || remote.to_canonical() == self.remote)
    }

    /// Whether a message is the client's and was not heard before.
    pub(super) fn recognizes(&self, message: &[u8]) -> bool {
        self.opener.recognizes(message)
    }

    /// Whether everything in a datagram that names this session's client was said by that client.
    ///
    /// ENet numbers messages before anybody opens them, and takes one number once: a stranger's message in the place of
    /// the client's next one would make that one a repetition, unheard and acknowledged.
    pub(super) fn vouches_for(&self, commands: Commands<'_>) -> bool {
        !commands.fragments()
            && commands.messages().all(|message| self.opener.is_authentic(message))
    }

    /// Opens a message and acts on it.
    pub(super) fn receive(&mut self, message: &[u8], now: Timestamp) -> Result<(), ControlError> {
        let opened = match self.opener.open(message) {
            Ok(opened) => opened,
            Err(error) => {
                self.refused_messages += 1;
                return Err(error);
            }
        };
        self.last_heard = now;
        if matches!(self.phase, Phase::Ending { .. } | Phase::Over) {
            return Ok(());
        }
        let control = match &self.phase {
            Phase::Streaming(control) => Some(control),
            // The first frame is an IDR frame anyway.
            _ => None,
        };
        match (ClientMessage::parse(opened), control) {
            (ClientMessage::RequestIdr, Some(control)) => control.request_idr(),
            (ClientMessage::InvalidateFrames { first, last }, Some(control)) => {
                control.invalidate(first, last);
            }
            (ClientMessage::FecStatus(status), Some(control)) => control.note_loss(status.missing),
            (ClientMessage::Input(packet), _) => {
                let sink = self.input.as_mut();
                deliver(packet, sink, &mut self.input_lost, &mut self.unsupported, now);
            }
            _ => {}
        }
        Ok(())
    }

    /// Keeps a datagram with a goodbye for later, if it is too early to believe it.
    pub(super) fn holds_back(&mut self, datagram: &[u8], now: Timestamp) -> bool {
        let runs = matches!(self.phase, Phase::Opening { .. } | Phase::Streaming(_));
        let early = runs && now.since(self.last_heard) < QUIET;
        if early {
            self.goodbye = Some((now, datagram.into()));
        }
        early
    }

    /// The goodbye of a client that has said nothing since; one that spoke after it did not send it.
    pub(super) fn goodbye_at(&mut self, now: Timestamp) -> Option<Box<[u8]>> {
        let (came_at, _) = self.goodbye.as_ref()?;
        if self.last_heard > *came_at {
            self.goodbye = None;
        }
        if now.since(self.last_heard) < QUIET {
            return None;
        }
        self.goodbye.take().map(|(_, datagram)| datagram)
    }

    /// How many messages did not open so far.
    pub(super) fn refused_messages(&self) -> u64 {
        self.refused_messages
    }

    /// Seals a message to the client; `None` when the counter is used up, which 2^32 messages do.
    pub(super) fn seal(&mut self, message: &HostMessage) -> Option<Vec<u8>> {
        self.sealer.seal_message(message).ok()
    }

    /// Takes a media ping if it is this client's.
    // spec: gamestream 7.1
    pub(super) fn take_ping(
        &mut self,
        media: Media,
        ping: Ping,
        peer: Peer,
        now: Timestamp,
    ) -> bool {
        let own = match ping {
            Ping::Payload(got) => bool::from(got[..].ct_eq(&self.ping_payload[..])),
            Ping::Legacy => self.legacy_pings && peer.to.ip().to_canonical() == self.remote,
        };
        if !own {
            return false;
        }
        let known = match media {
            Media::Video => &mut self.video_peer,
            Media::Audio => &mut self.audio_peer,
        };
        if *known == Some(peer) {
            return true;
        }
        let streams = matches!(self.phase, Phase::Streaming(_));
        let moved_at = match media {
            Media::Video => &mut self.video_moved,
            Media::Audio => &mut self.audio_moved,
        };
        if streams && moved_at.is_some_and(|at| now.since(at) < MOVE_REST) {
            return true;
        }
        *known = Some(peer);
        *moved_at = streams.then_some(now);
        if let Phase::Streaming(control) = &self.phase {
            match media {
                Media::Video => control.set_video_peer(peer),
                Media::Audio => control.set_audio_peer(peer),
            }
            tracing::info!(session = self.session.0, ?media, peer = %peer.to, local = ?peer.from, "the client pings from or to a new address");
        }
        true
    }

    /// Starts the stream once the client has proven itself and shown where video shall go.
    // spec: gamestream 5.9
    pub(super) fn start_if_ready(&mut self) {
        let (Some(_), Some(video), Phase::Opening { .. }) =
            (self.peer, self.video_peer, &self.phase)
        else {
            return;
        };
        if let Phase::Opening { stream, .. } = std::mem::replace(&mut self.phase, Phase::Over) {
            let control = stream.start(video, self.audio_peer);
            tracing::info!(session = self.session.0, peer = %video.to, "the stream starts");
            self.phase = Phase::Streaming(control);
        }
    }

    /// The client is gone: its keys go up, its stream ends, its app lives on.
    pub(super) fn leave(&mut self, why: &'static str) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        let before = std::mem::replace(&mut self.phase, Phase::Over);
        if let Phase::Ending { .. } = before {
            return;
        }
        self.release_input();
        if let Phase::Streaming(control) = before {
            control.stop(EndReason::ClientGone);
        }
        tracing::info!(session = self.session.0, why, "the client left");
    }

    /// The host ends it: keys go up; the caller tells the client with what is returned.
    pub(super) fn close(&mut self, reason: &EndReason, until: Timestamp) -> Option<Vec<u8>> {
        if matches!(self.phase, Phase::Ending { .. } | Phase::Over) {
            return None;
        }
        self.release_input();
        let before = std::mem::replace(&mut self.phase, Phase::Ending { until, asked: false });
        if let Phase::Streaming(control) = before {
            // No more than a repetition when the stream itself said that it has ended.
            control.stop(reason.clone());
        }
        tracing::info!(session = self.session.0, ?reason, "the session ends");
        self.seal(&HostMessage::Terminate { code: termination_code(reason) })
    }

    fn release_input(&mut self) {
        if let Err(error) = self.input.release_all() {
            tracing::warn!(session = self.session.0, %error, "keys may stay down");
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Reached only when the thread ends before its sessions do: at a shutdown that a client slept through, or by a
        // panic.
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Over | Phase::Ending { .. } => {}
            Phase::Opening { .. } => self.release_input(),
            Phase::Streaming(control) => {
                // In this order: the device may be what panicked.
                control.stop(EndReason::Bug("the receiving thread is gone".to_owned()));
                self.release_input();
            }
        }
    }
}

// spec: gamestream 5.8
fn termination_code(reason: &EndReason) -> u32 {
    match reason {
        EndReason::ClientGone
        | EndReason::Quit
        | EndReason::GuestTimeOver
        | EndReason::AppExited
        | EndReason::Replaced
        | EndReason::Shutdown => termination::GRACEFUL,
        EndReason::DisplayLost(_)
        | EndReason::EncoderFailed(_)
        | EndReason::NetworkFailed(_)
        | EndReason::Bug(_) => termination::HOST_FAILED,
    }
}

/// From the packet to the device, on this thread.
fn deliver(
    packet: &[u8],
    sink: &mut dyn InputSink,
    lost: &mut Option<Timestamp>,
    unsupported: &mut Vec<Unsupported>,
    now: Timestamp,
) {
    let packet = match Packet::parse(packet) {
        Ok(Packet::Unsupported(what)) => {
            // Once per kind: such packets come by the hundred.
            if !unsupported.contains(&what) {
                unsupported.push(what);
                tracing::info!(?what, "this kind of input is not delivered yet");
            }
            return;
        }
        Ok(packet) => packet,
        Err(error) => {
            tracing::trace!(%error, "an input packet was ignored");
            return;
        }
    };
    if let Some(at) = *lost {
        if now.since(at) < DEVICE_REST {
            return;
        }
        // Keys may have come up while nobody listened.
        if sink.release_all().is_err() {
            *lost = Some(now);
            return;
        }
        *lost = None;
    }
    for event in packet.events() {
        match sink.apply(&event) {
            Ok(()) => {}
            Err(error @ InputError::Unsupported { .. }) => {
                tracing::trace!(%error, "an input event was not delivered");
            }
            Err(error @ InputError::Lost { .. }) => {
                *lost = Some(now);
                tracing::warn!(%error, "input is not delivered");
                return;
            }
        }
    }
}
