//! The stream as a client lives it: three sockets and one loop that pings, listens, looks and asks for an IDR picture.
//!
//! Each of control, video and sound must make progress within the patience, and be good in the end. What stands still
//! first, in the order in which they depend on each other, is what is told.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use punktfunk_core::gamestream::audio::AudioOptions;
use punktfunk_core::gamestream::sdp::Encryption;
use punktfunk_core::gamestream::video::{LossPolicy, VideoReceiver, VideoReceiverOptions};
use punktfunk_core::media::FrameIndex;
use punktfunk_core::seal::SessionKey;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;
use socket2::SockRef;

use super::control::{Control, ControlFailure};
use super::http::loopback_beside;
use super::picture::{Judgement, Viewer};
use super::report::{Counts, Step};
use super::rtsp::{Choice, SetUp};
use super::sound::{Listener, PACKET_MS};

/// ENet wants to be served at least this often, in nanoseconds: 5 ms.
const TURN_NANOS: i64 = 5_000_000;
/// How often media ports and control are pinged. spec: gamestream 5.7, 7.1
const MEDIA_PING: Duration = Duration::from_millis(500);
const CONTROL_PING: Duration = Duration::from_millis(100);
/// Requests for an IDR picture after a loss are this far apart.
const IDR_PAUSE: Duration = Duration::from_millis(100);
/// Datagrams that are taken from one socket before the others get their turn.
const BATCH: usize = 256;
/// A whole IDR picture and more must wait in the socket while this process has no turn.
const RECEIVE_BUFFER_BYTES: usize = 4 << 20;

/// Everything a stream needs.
pub(super) struct Plan<'a> {
    pub(super) key: &'a SessionKey,
    pub(super) key_id: u32,
    pub(super) set_up: &'a SetUp,
    pub(super) encrypted: Encryption,
    pub(super) control: SocketAddr,
    pub(super) video: SocketAddr,
    pub(super) audio: SocketAddr,
    pub(super) choice: Choice,
    pub(super) frames: usize,
    /// No longer without progress.
    pub(super) patience: Duration,
    /// No longer than this in all.
    pub(super) until: Instant,
}

/// Why the stream is no good.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) reason: String,
}

/// A stream under way.
pub(super) struct Stream<'a> {
    plan: Plan<'a>,
    control: Control,
    video: UdpSocket,
    audio: UdpSocket,
    viewer: Viewer,
    listener: Listener,
    began: Instant,
    idr: Idr,
    seen: Mark,
    heard: Mark,
    ping_number: u32,
    pinged_media: Option<Instant>,
    pinged_control: Instant,
    asked_for_repair: Option<Instant>,
    told: [bool; 3],
}

/// The one IDR picture that is asked for to see whether the host listens.
enum Idr {
    NotAsked,
    Asked { newest: FrameIndex, at: Instant },
    Came,
}

/// How far something has come, and since when.
struct Mark {
    count: u64,
    since: Instant,
}

impl Mark {
    fn new(now: Instant) -> Self {
        Self { count: 0, since: now }
    }

    fn note(&mut self, count: u64, now: Instant) {
        if count > self.count {
            *self = Self { count, since: now };
        }
    }
}

impl<'a> Stream<'a> {
    pub(super) fn open(plan: Plan<'a>) -> Result<Self, Failure> {
        let fail = |step, reason: String| Failure { step, reason };
        let key = plan.key;
        let receiver = VideoReceiver::new(VideoReceiverOptions {
            packet_size: plan.choice.packet_bytes,
            encryption: plan.encrypted.video.then(|| key.clone()),
            on_loss: LossPolicy::RequestIdr,
        })
        .map_err(|error| fail(Step::Video, error.to_string()))?;
        let size = (plan.choice.width, plan.choice.height);
        let viewer = Viewer::new(receiver, size, plan.frames)
            .map_err(|error| fail(Step::Video, format!("no decoder could be opened: {error}")))?;
        let listener = Listener::new(AudioOptions {
            packet_duration_ms: PACKET_MS,
            encryption: plan.encrypted.audio.then(|| (key.clone(), plan.key_id)),
        })
        .map_err(|error| fail(Step::Audio, format!("no decoder could be opened: {error}")))?;
        let video = media_socket(plan.video).map_err(|e| fail(Step::Video, e.to_string()))?;
        let audio = media_socket(plan.audio).map_err(|e| fail(Step::Audio, e.to_string()))?;
        let from = SocketAddr::new(loopback_beside(plan.control), 0);
        let (v2, data) = (plan.encrypted.control, plan.set_up.connect_data);
        let control = Control::connect(from, plan.control, key, v2, data)
            .map_err(|error| fail(Step::Control, error.to_string()))?;
        let now = Instant::now();
        Ok(Self {
            plan,
            control,
            video,
            audio,
            viewer,
            listener,
            began: now,
            idr: Idr::NotAsked,
            seen: Mark::new(now),
            heard: Mark::new(now),
            ping_number: 0,
            pinged_media: None,
            pinged_control: now,
            asked_for_repair: None,
            told: [false; 3],
        })
    }

    /// Runs until all is good or something is not. `tell` hears of each part that is good, once.
    pub(super) fn run(&mut self, tell: &mut dyn FnMut(Step, String)) -> Result<(), Failure> {
        let outcome = self.serve(tell);
        self.control.leave();
        outcome
    }

    fn serve(&mut self, tell: &mut dyn FnMut(Step, String)) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            self.control.serve().map_err(|error| self.control_failure(&error))?;
            self.ping(now).map_err(|error| self.control_failure(&error))?;
            self.ask_for_idr(now).map_err(|error| self.control_failure(&error))?;
            self.seen.note(self.viewer.seen().decoded, now);
            self.heard.note(self.listener.heard().tone_windows, now);
            if self.judge(tell)? {
                return Ok(());
            }
            self.check_progress(now)?;
            self.wait().map_err(|error| Failure {
                step: Step::Video,
                reason: format!("the sockets cannot be waited for: {error}"),
            })?;
            self.receive();
        }
    }

    /// Whether all three are good.
    fn judge(&mut self, tell: &mut dyn FnMut(Step, String)) -> Result<bool, Failure> {
        let video = match self.viewer.judge() {
            Judgement::Good => true,
            Judgement::Open => false,
            Judgement::Bad(why) => {
                let reason = format!("{why} ({})", self.video_counts());
                return Err(Failure { step: Step::Video, reason });
            }
        };
        let good = [
            (Step::Control, matches!(self.idr, Idr::Came)),
            (Step::Video, video),
            (Step::Audio, self.listener.is_content()),
        ];
        for ((step, is_good), told) in good.into_iter().zip(0..) {
            if is_good && !self.told[told] {
                self.told[told] = true;
                tell(step, self.praise(step));
            }
        }
        // What was good once has been shown to work; sound need not last until the last frame, nor the other way round.
        Ok(self.told.iter().all(|told| *told))
    }

    fn praise(&self, step: Step) -> String {
        match step {
            Step::Video => self.video_counts(),
            Step::Audio => self.audio_counts(),
            _ => "connected; an IDR picture that was asked for came".to_owned(),
        }
    }

    fn check_progress(&self, now: Instant) -> Result<(), Failure> {
        let patience = self.plan.patience;
        let late = |since: Instant| now.duration_since(since) >= patience;
        let fail = |step, reason| Err(Failure { step, reason });
        let [control, video, audio] = self.told;
        let Some(connected_at) = self.control.connected_at() else {
            if late(self.began) {
                let seconds = patience.as_secs();
                return fail(Step::Control, format!("no answer to CONNECT for {seconds} s"));
            }
            return self.check_end(now);
        };
        // Before the connection nothing else can have begun.
        if !video && late(self.seen.since.max(connected_at)) {
            return fail(Step::Video, self.video_stall(now));
        }
        if let (false, Idr::Asked { at, .. }) = (control, &self.idr)
            && late(*at)
        {
            let seconds = patience.as_secs();
            let reason = format!("an IDR picture was asked for and did not come in {seconds} s");
            return fail(Step::Control, reason);
        }
        if !audio && late(self.heard.since.max(connected_at)) {
            return fail(Step::Audio, self.audio_stall(now));
        }
        self.check_end(now)
    }

    fn check_end(&self, now: Instant) -> Result<(), Failure> {
        if now < self.plan.until {
            return Ok(());
        }
        let [control, video, _] = self.told;
        let (step, counts) = match (video, control) {
            (false, _) => (Step::Video, self.video_counts()),
            (_, false) => (Step::Control, "no IDR picture was answered".to_owned()),
            _ => (Step::Audio, self.audio_counts()),
        };
        Err(Failure { step, reason: format!("the self-test's time is over: {counts}") })
    }

    fn control_failure(&self, error: &ControlFailure) -> Failure {
        Failure { step: Step::Control, reason: error.to_string() }
    }

    fn video_stall(&self, now: Instant) -> String {
        let (seen, wanted) = (self.viewer.seen(), self.plan.frames);
        let idle = now.duration_since(self.seen.since).as_secs();
        let counts = self.video_counts();
        if seen.repeated > seen.decoded {
            return format!(
                "the picture stands still: {} of {wanted} frames showed a new number, the last \
                 one {idle} s ago ({counts})",
                seen.decoded
            );
        }
        format!(
            "{} of {wanted} frames decoded, last progress {idle} s ago ({counts})",
            seen.decoded
        )
    }

    fn video_counts(&self) -> String {
        let (seen, received) = (self.viewer.seen(), self.viewer.received());
        format!(
            "{} datagrams, {} refused, {} shards repaired; {} frames whole, {} missed, {} \
             repeated, {} undecodable, {} without a number, {} out of order, {} skipped by the host",
            seen.datagrams,
            received.refused,
            received.repaired_shards,
            seen.frames,
            seen.missed,
            seen.repeated,
            seen.undecodable,
            seen.unreadable,
            seen.backwards,
            seen.skipped
        )
    }

    fn audio_stall(&self, now: Instant) -> String {
        let idle = now.duration_since(self.heard.since).as_secs();
        format!("the tone was not heard for {idle} s ({})", self.audio_counts())
    }

    fn audio_counts(&self) -> String {
        let heard = self.listener.heard();
        format!(
            "{} datagrams, {} packets, {} repaired, {} lost, {} undecodable; the tone in {} of \
             {} windows of 50 ms, {} beeps",
            heard.datagrams,
            heard.packets,
            heard.repaired,
            heard.lost,
            heard.undecodable,
            heard.tone_windows,
            heard.windows,
            heard.beeps
        )
    }

    /// All that was counted.
    pub(super) fn counts(&self) -> Counts {
        let (seen, received) = (self.viewer.seen(), self.viewer.received());
        let heard = self.listener.heard();
        Counts {
            frames_wanted: self.plan.frames as u64,
            video_datagrams: seen.datagrams,
            video_refused: received.refused,
            shards_repaired: received.repaired_shards,
            frames_received: seen.frames,
            frames_decoded: seen.decoded,
            frames_missed: seen.missed,
            frames_repeated: seen.repeated,
            frames_bad: seen.undecodable + seen.unreadable + seen.backwards,
            frames_skipped: seen.skipped,
            idr_frames: seen.idr,
            latency_us: self.viewer.latency_us(),
            audio_datagrams: heard.datagrams,
            audio_packets: heard.packets,
            audio_repaired: heard.repaired,
            audio_lost: heard.lost,
            audio_windows: heard.windows,
            tone_windows: heard.tone_windows,
            beeps: heard.beeps,
            control_messages: self.control.messages(),
        }
    }

    fn ping(&mut self, now: Instant) -> Result<(), ControlFailure> {
        if self.pinged_media.is_none_or(|at| now.duration_since(at) >= MEDIA_PING) {
            self.pinged_media = Some(now);
            self.ping_number = self.ping_number.wrapping_add(1);
            let payload = self.plan.set_up.ping_payload.as_bytes();
            let ping = [payload, &self.ping_number.to_be_bytes()].concat();
            // A port that takes nothing shows as no progress.
            let _ = self.video.send(&ping);
            let _ = self.audio.send(&ping);
        }
        let is_connected = self.control.connected_at().is_some();
        if is_connected && now.duration_since(self.pinged_control) >= CONTROL_PING {
            self.pinged_control = now;
            self.control.ping()?;
        }
        Ok(())
    }

    fn ask_for_idr(&mut self, now: Instant) -> Result<(), ControlFailure> {
        if self.control.connected_at().is_none() {
            return Ok(());
        }
        let pause = self.asked_for_repair.is_some_and(|at| now.duration_since(at) < IDR_PAUSE);
        if !pause && self.viewer.take_idr_wish() {
            self.asked_for_repair = Some(now);
            self.control.request_idr()?;
        }
        match self.idr {
            Idr::NotAsked => {
                let third = self.plan.frames.div_ceil(3) as u64;
                if let Some(newest) = self.viewer.newest()
                    && self.viewer.seen().decoded >= third
                {
                    self.control.request_idr()?;
                    self.idr = Idr::Asked { newest, at: now };
                }
            }
            Idr::Asked { newest, .. } => {
                // Numbers wrap; the upper half lies behind.
                let is_newer =
                    |idr: FrameIndex| (1..1 << 31).contains(&idr.0.wrapping_sub(newest.0));
                if self.viewer.newest_idr().is_some_and(is_newer) {
                    self.idr = Idr::Came;
                }
            }
            Idr::Came => {}
        }
        Ok(())
    }

    /// Waits for a datagram, or until ENet wants a turn.
    fn wait(&self) -> io::Result<()> {
        let turn = Timespec { tv_sec: 0, tv_nsec: TURN_NANOS };
        let mut sockets = [&self.video, &self.audio, self.control.socket()]
            .map(|socket| PollFd::new(socket, PollFlags::IN));
        match poll(&mut sockets, Some(&turn)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn receive(&mut self) {
        let mut datagram = [0; 65_536];
        for _ in 0..BATCH {
            // A port that is closed for now is like a loss.
            let Ok(bytes) = self.video.recv(&mut datagram) else { break };
            self.viewer.take(crate::clock::now(), datagram.get(..bytes).unwrap_or_default());
        }
        for _ in 0..BATCH {
            let Ok(bytes) = self.audio.recv(&mut datagram) else { break };
            self.listener.take(datagram.get(..bytes).unwrap_or_default());
        }
    }
}

fn media_socket(to: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddr::new(loopback_beside(to), 0))?;
    socket.connect(to)?;
    socket.set_nonblocking(true)?;
    // As much of it as the system gives.
    SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    Ok(socket)
}
