//! Scripted parts for a stream: a source, an encoder and a sender that do what a test tells them.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code outside of a test function"
)]

use std::collections::VecDeque;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use punktfunk_core::line::{AudioSender, Burst, FrameSender, SubmitError, Submitted};
use punktfunk_core::media::{
    AccessUnit, BlockShape, Codec, ColourMatrix, ColourSpace, FrameFate, FrameIndex, FrameKind,
    FrameShape, FrameTrace, Mode, OpusPacket, SourceIndex,
};
use punktfunk_core::time::Timestamp;
use punktfunk_host::audio::silence::SilenceSource;
use punktfunk_host::audio::{AudioError, AudioSource, AudioSpec};
use punktfunk_host::capture::{CaptureError, CapturedFrame, FramePool, FrameSource, PixelFormat};
use punktfunk_host::clock;
use punktfunk_host::encode::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest};
use punktfunk_host::stream::{
    self, EndReason, LineAbout, StreamHandle, StreamLine, StreamParts, StreamSpec,
};

/// Longer than anything here takes; reached only by a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A source whose pictures, errors and panics come from the test, one at a time: a shot is taken when the picture
/// before it lies in the slot.
pub(crate) struct ScriptedSource {
    pub(crate) script: Receiver<Shot>,
    pub(crate) pool: FramePool,
    pub(crate) next: u64,
}

pub(crate) enum Shot {
    Frame(u32, u32),
    Lost,
    Panic,
}

impl FrameSource for ScriptedSource {
    fn next_frame(&mut self, timeout: Duration) -> Result<Option<CapturedFrame>, CaptureError> {
        let (width, height) = match self.script.recv_timeout(timeout) {
            Ok(Shot::Frame(width, height)) => (width, height),
            Ok(Shot::Lost) => return Err(CaptureError::Lost { reason: "unplugged".into() }),
            Ok(Shot::Panic) => panic!("the source has a bug"),
            Err(RecvTimeoutError::Timeout) => return Ok(None),
            // The test has nothing more to show: a static screen.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::park_timeout(timeout);
                return Ok(None);
            }
        };
        let index = SourceIndex(self.next);
        self.next += 1;
        let stride = width as usize * 4;
        Ok(Some(CapturedFrame {
            index,
            captured_at: clock::now(),
            width,
            height,
            stride,
            format: PixelFormat::Bgrx,
            damage: Vec::new(),
            pixels: self.pool.take(stride * height as usize),
        }))
    }
}

/// What an encoder of the test does with its pictures, and did.
#[derive(Default)]
pub(crate) struct EncoderScript {
    pub(crate) opened: Mutex<Vec<Mode>>,
    pub(crate) encoded: AtomicUsize,
    pub(crate) recycled: AtomicUsize,
    /// If set, each picture is announced and waits for a message, until the test lets go of the gate.
    pub(crate) gate: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    pub(crate) fail: AtomicBool,
    pub(crate) panic: AtomicBool,
    /// The next access unit, unless it is the first, does not fit.
    pub(crate) too_large: AtomicBool,
}

pub(crate) struct ScriptedBackend(pub Arc<EncoderScript>);

impl EncoderBackend for ScriptedBackend {
    fn name(&self) -> &'static str {
        "scripted"
    }

    fn probe(&self) -> Result<Vec<Codec>, EncodeError> {
        Ok(vec![Codec::H264])
    }

    fn open(&self, spec: &EncodeSpec) -> Result<Box<dyn Encoder>, EncodeError> {
        self.0.opened.lock().unwrap().push(spec.mode);
        Ok(Box::new(ScriptedEncoder { script: Arc::clone(&self.0), mode: spec.mode, fresh: true }))
    }
}

struct ScriptedEncoder {
    script: Arc<EncoderScript>,
    mode: Mode,
    fresh: bool,
}

impl Encoder for ScriptedEncoder {
    fn encode(
        &mut self,
        frame: &CapturedFrame,
        request: PictureRequest,
    ) -> Result<AccessUnit, EncodeError> {
        assert_eq!((frame.width, frame.height), (self.mode.width(), self.mode.height()));
        let encode_began_at = clock::now();
        if let Some((entered, open)) = &*self.script.gate.lock().unwrap()
            && entered.send(()).is_ok()
        {
            let _ = open.recv();
        }
        self.script.encoded.fetch_add(1, Ordering::SeqCst);
        assert!(!self.script.panic.load(Ordering::SeqCst), "the encoder has a bug");
        if self.script.fail.load(Ordering::SeqCst) {
            return Err(EncodeError::Failed { encoder: "scripted", reason: "smoke".into() });
        }
        if !self.fresh && self.script.too_large.swap(false, Ordering::SeqCst) {
            self.fresh = true;
            return Err(EncodeError::TooLarge { got: 2, max: 1 });
        }
        let idr = request.force_idr || std::mem::take(&mut self.fresh);
        Ok(AccessUnit {
            source: frame.index,
            kind: if idr { FrameKind::Idr } else { FrameKind::Predicted },
            captured_at: frame.captured_at,
            encode_began_at,
            encoded_at: clock::now(),
            repeated: request.repeated,
            bytes: vec![frame.index.0 as u8; 250],
        })
    }

    fn recycle(&mut self, _bytes: Vec<u8>) {
        self.script.recycled.fetch_add(1, Ordering::SeqCst);
    }
}

/// What a sender of the test does, and saw.
#[derive(Default)]
pub(crate) struct SenderScript {
    /// Nothing may leave.
    pub(crate) hold: AtomicBool,
    pub(crate) panic: AtomicBool,
    pub(crate) exhausted: AtomicBool,
    pub(crate) most_waiting: AtomicUsize,
    /// Every access unit that was submitted.
    pub(crate) units: Mutex<Vec<Vec<u8>>>,
}

/// Cuts units into datagrams of 100 bytes.
#[derive(Default)]
struct ScriptedSender {
    script: Arc<SenderScript>,
    waiting: VecDeque<(FrameIndex, Vec<u8>)>,
    current: Vec<u8>,
    numbered: u32,
}

impl FrameSender for ScriptedSender {
    fn submit(&mut self, unit: &AccessUnit, _now: Timestamp) -> Result<Submitted, SubmitError> {
        assert!(!self.script.panic.load(Ordering::SeqCst), "the sender has a bug");
        if self.script.exhausted.load(Ordering::SeqCst) {
            return Err(SubmitError::CounterExhausted);
        }
        self.numbered += 1;
        self.script.units.lock().unwrap().push(unit.bytes.clone());
        self.waiting.push_back((FrameIndex(self.numbered), unit.bytes.clone()));
        self.script.most_waiting.fetch_max(self.waiting.len(), Ordering::SeqCst);
        // As if the first of its datagrams had the number of the frame.
        let shape = FrameShape::new(self.numbered as u16, [BlockShape { data: 3, parity: 0 }]);
        Ok(Submitted { index: FrameIndex(self.numbered), shape })
    }

    fn poll_burst(&mut self, _now: Timestamp) -> Option<Burst<'_>> {
        if self.script.hold.load(Ordering::SeqCst) {
            return None;
        }
        let (frame, bytes) = self.waiting.pop_front()?;
        self.current = bytes;
        Some(Burst { datagrams: &self.current, segment_bytes: 100, frame, last: true })
    }

    fn poll_timeout(&self) -> Option<Timestamp> {
        (!self.waiting.is_empty()).then(|| clock::now() + Duration::from_millis(1))
    }

    fn max_unit_bytes(&self) -> usize {
        1 << 16
    }
}

struct PlainAudio;

impl AudioSender for PlainAudio {
    fn submit(&mut self, packet: &OpusPacket, emit: &mut dyn FnMut(&[u8])) {
        emit(&packet.bytes);
    }
}

/// A source of sound that fails at once.
pub(crate) enum BrokenSound {
    Lost,
    Panic,
}

impl AudioSource for BrokenSound {
    fn read(&mut self, _period: &mut [f32]) -> Result<Timestamp, AudioError> {
        match self {
            Self::Lost => Err(AudioError::Lost { reason: "unplugged".into() }),
            Self::Panic => panic!("the sound has a bug"),
        }
    }
}

/// A stream of scripted parts, running.
pub(crate) struct Rig {
    pub(crate) handle: Option<StreamHandle>,
    /// `None` when the script is over.
    shots: Option<SyncSender<Shot>>,
    pub(crate) encoder: Arc<EncoderScript>,
    pub(crate) sender: Arc<SenderScript>,
    traces: Receiver<FrameTrace>,
    ended: Receiver<EndReason>,
    /// Where video goes.
    pub(crate) video: UdpSocket,
    /// Where sound can go.
    pub(crate) sound: UdpSocket,
}

impl Rig {
    /// A stream at 64x64 and this rate.
    pub(crate) fn start(refresh_millihz: u32) -> Self {
        Self::with(refresh_millihz, Box::new(SilenceSource::new(2)), EncoderScript::default())
    }

    pub(crate) fn with(
        refresh_millihz: u32,
        sound_source: Box<dyn AudioSource>,
        encoder: EncoderScript,
    ) -> Self {
        let encoder = Arc::new(encoder);
        let backend = Arc::new(ScriptedBackend(Arc::clone(&encoder)));
        Self::with_backend(video_spec(refresh_millihz), sound_source, encoder, backend)
    }

    /// A stream with an encoder that exists.
    pub(crate) fn with_backend(
        video_spec: EncodeSpec,
        sound_source: Box<dyn AudioSource>,
        encoder: Arc<EncoderScript>,
        backend: Arc<dyn EncoderBackend>,
    ) -> Self {
        let (shots, script) = sync_channel(0);
        let (trace, traces) = sync_channel(4096);
        let (on_end, ended) = channel();
        let sender = Arc::new(SenderScript::default());
        let parts = StreamParts {
            spec: StreamSpec {
                video: video_spec,
                audio: AudioSpec { channels: 2, period_samples: 240, bitrate_kbps: 96 },
            },
            frames: Box::new(ScriptedSource { script, pool: FramePool::new(4), next: 0 }),
            encoder: backend,
            sound: sound_source,
            line: line(&sender, on_end),
            traces: trace,
        };
        let (video, sound) = (receiver(), receiver());
        let prepared = stream::prepare(parts).unwrap();
        let handle = Some(prepared.start(video.local_addr().unwrap().into(), None));
        Self { handle, shots: Some(shots), encoder, sender, traces, ended, video, sound }
    }

    pub(crate) fn handle(&self) -> &StreamHandle {
        self.handle.as_ref().unwrap()
    }

    pub(crate) fn show(&self, shot: Shot) {
        // A stream that has ended takes no more pictures.
        let _ = self.shots.as_ref().unwrap().send(shot);
    }

    pub(crate) fn frame(&self) {
        self.show(Shot::Frame(64, 64));
    }

    pub(crate) fn trace(&self) -> FrameTrace {
        self.traces.recv_timeout(PATIENCE).expect("a trace")
    }

    pub(crate) fn sent(&self) -> FrameTrace {
        loop {
            let trace = self.trace();
            if matches!(trace.fate, FrameFate::Sent { .. }) {
                return trace;
            }
        }
    }

    /// Waits for the end, and sees that `on_end` came once and every thread is gone. Returns the traces not yet read.
    pub(crate) fn end(mut self) -> (EndReason, Vec<FrameTrace>) {
        drop(self.shots.take());
        let reason = self.ended.recv_timeout(PATIENCE).expect("the stream ends");
        drop(self.handle.take());
        // Both channels are disconnected once the last thread has given everything back.
        assert_eq!(self.ended.recv_timeout(PATIENCE), Err(RecvTimeoutError::Disconnected));
        (reason, self.traces.iter().collect())
    }
}

pub(crate) fn video_spec(refresh_millihz: u32) -> EncodeSpec {
    EncodeSpec {
        codec: Codec::H264,
        mode: Mode::new(64, 64, refresh_millihz).unwrap(),
        bitrate_kbps: 1_000,
        colour: ColourSpace { matrix: ColourMatrix::Bt709, full_range: false },
        slices: 1,
        max_reference_frames: 1,
        max_unit_bytes: 1 << 20,
    }
}

pub(crate) fn line(sender: &Arc<SenderScript>, on_end: Sender<EndReason>) -> StreamLine {
    // One of each family; both have every address of the machine.
    let socket = |any| Arc::new(UdpSocket::bind(any).unwrap());
    StreamLine {
        video: Box::new(ScriptedSender { script: Arc::clone(sender), ..Default::default() }),
        video_socket: socket("0.0.0.0:0"),
        audio: Box::new(PlainAudio),
        audio_socket: socket("[::]:0"),
        tos: (0, 0),
        about: LineAbout {
            protocol: "a test",
            remote: IpAddr::from([127, 0, 0, 1]),
            asked_bitrate_kbps: 9_000,
            fec_percentage: 20,
            control_encrypted: true,
            video_encrypted: false,
            audio_encrypted: false,
        },
        on_end: Box::new(move |reason| on_end.send(reason).unwrap()),
    }
}

pub(crate) fn receiver() -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
