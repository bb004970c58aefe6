//! Sessions: what one was set up with, and how it is doing.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Session;
use crate::session::figures::{Figures, Spread, Tally};
use crate::session::{LiveFigures, StreamDetails};

/// More of one session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionDetails {
    /// What the list says of it.
    #[serde(flatten)]
    pub session: Session,
    /// How long it has run, or ran, in seconds.
    pub seconds: u64,
    /// What its stream was set up with, or its last one; left out if it had none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<StreamSetup>,
}

/// What a stream was set up with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamSetup {
    /// What is spoken, `GameStream` for one.
    pub protocol: String,
    /// Where the client negotiated from.
    #[schema(value_type = String)]
    pub client_address: IpAddr,
    /// The video codec.
    pub codec: String,
    /// Width, height and rate.
    pub mode: String,
    /// The bitrate that the client asked for, as far as it is for coded video, in kbit/s.
    pub asked_bitrate_kbps: u32,
    /// The bitrate that the encoder was given, in kbit/s.
    pub bitrate_kbps: u32,
    /// Parity that is sent, in percent of the data.
    pub fec_percent: u8,
    /// Channels of sound.
    pub audio_channels: u8,
    /// The bitrate of sound, in kbit/s.
    pub audio_bitrate_kbps: u32,
    /// What is encrypted.
    pub encryption: StreamEncryption,
}

/// What is encrypted of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StreamEncryption {
    /// The control connection, input included.
    pub control: bool,
    /// Video.
    pub video: bool,
    /// Sound.
    pub audio: bool,
}

/// How a session is doing: the data of an event `figures`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SessionFigures {
    /// A stream is prepared or running.
    pub streaming: bool,
    /// The last second.
    pub second: WindowFigures,
    /// The last ten seconds, or as many as the stream is old.
    pub recent: WindowFigures,
    /// What the client says.
    pub client: ClientReport,
    /// Packets of sound that went out since the stream began.
    pub audio_packets: u64,
}

/// The figures of a window of time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct WindowFigures {
    /// The window's length in milliseconds.
    pub milliseconds: u64,
    /// Pictures of the source, each second.
    pub captured_fps: f64,
    /// Pictures that went out, repetitions included, each second.
    pub sent_fps: f64,
    /// Repetitions because the screen did not change, each second.
    pub repeated_fps: f64,
    /// Coded video that went out, in kbit/s.
    pub video_kbps: u64,
    /// Parity that went out, in percent of the data.
    pub parity_percent: f64,
    /// How many of what, in the window.
    pub count: FrameCount,
    /// How long those that went out took; left out if none did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<LatencySplit>,
}

/// Counts of pictures, and of what they became.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FrameCount {
    /// Pictures of the source.
    pub captured: u64,
    /// Pictures that went out, repetitions included.
    pub sent: u64,
    /// Of these, repetitions because the screen did not change.
    pub repeated: u64,
    /// Of these, those that restart the picture.
    pub idr: u64,
    /// Pictures that did not go out.
    pub dropped: DropCount,
    /// Datagrams that went out, parity included.
    pub datagrams: u64,
    /// Of these, those with parity.
    pub parity_datagrams: u64,
}

/// Pictures that did not go out, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DropCount {
    /// A newer picture came before the encoder was free.
    pub superseded: u64,
    /// The client's rate has no room for them.
    pub over_rate: u64,
    /// They were coded, and the wire format has no room for them.
    pub unsendable: u64,
    /// The stream ended.
    pub stream_ended: u64,
}

/// Where the time of the pictures that went out has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LatencySplit {
    /// From capture until the encoder took it.
    pub wait: Percentiles,
    /// In the encoder.
    pub encode: Percentiles,
    /// From the encoder to the first datagram.
    pub queue: Percentiles,
    /// From the first datagram to the last.
    pub send: Percentiles,
    /// From capture to the last datagram.
    pub whole: Percentiles,
}

/// How long something took, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Percentiles {
    /// Half of the pictures took no longer.
    pub p50_us: u32,
    /// 95 of 100 took no longer.
    pub p95_us: u32,
    /// 99 of 100 took no longer.
    pub p99_us: u32,
}

/// What the client said since the stream began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClientReport {
    /// It asked for a picture that restarts everything; once of them at the beginning.
    pub idr_requests: u64,
    /// It said that pictures were lost.
    pub invalidations: u64,
    /// It reported parts of pictures that did not arrive whole. Few clients do.
    pub loss_reports: u64,
    /// Datagrams that were missing by these reports, also where parity made up for them.
    pub missing_datagrams: u64,
    /// There and back, in milliseconds; left out while it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub round_trip_ms: Option<u64>,
}

/// Why a session ended: the data of an event `ended`, the last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionEnded {
    /// In words.
    pub reason: String,
}

impl From<StreamDetails> for StreamSetup {
    fn from(StreamDetails { spec, about }: StreamDetails) -> Self {
        Self {
            protocol: about.protocol.to_owned(),
            client_address: about.remote,
            codec: spec.video.codec.to_string(),
            mode: spec.video.mode.to_string(),
            asked_bitrate_kbps: about.asked_bitrate_kbps,
            bitrate_kbps: spec.video.bitrate_kbps,
            fec_percent: about.fec_percentage,
            audio_channels: spec.audio.channels,
            audio_bitrate_kbps: spec.audio.bitrate_kbps,
            encryption: StreamEncryption {
                control: about.control_encrypted,
                video: about.video_encrypted,
                audio: about.audio_encrypted,
            },
        }
    }
}

impl From<&LiveFigures> for SessionFigures {
    fn from(live: &LiveFigures) -> Self {
        let counts = live.counts;
        Self {
            streaming: live.streaming,
            second: live.second.into(),
            recent: live.recent.into(),
            client: ClientReport {
                idr_requests: counts.idr_requests,
                invalidations: counts.invalidations,
                loss_reports: counts.loss_reports,
                missing_datagrams: counts.missing_datagrams,
                round_trip_ms: counts.round_trip.map(millis),
            },
            audio_packets: counts.audio_packets,
        }
    }
}

impl From<Figures> for WindowFigures {
    fn from(figures: Figures) -> Self {
        let Figures { length, tally, latency } = figures;
        Self {
            milliseconds: millis(length),
            captured_fps: figures.per_second(tally.captured),
            sent_fps: figures.per_second(tally.sent),
            repeated_fps: figures.per_second(tally.repeated),
            video_kbps: figures.bitrate_kbps(),
            parity_percent: tally.parity_percent(),
            count: tally.into(),
            latency: latency.map(|latency| LatencySplit {
                wait: latency.wait.into(),
                encode: latency.encode.into(),
                queue: latency.queue.into(),
                send: latency.send.into(),
                whole: latency.whole.into(),
            }),
        }
    }
}

impl From<Tally> for FrameCount {
    fn from(tally: Tally) -> Self {
        Self {
            captured: tally.captured,
            sent: tally.sent,
            repeated: tally.repeated,
            idr: tally.idr,
            dropped: DropCount {
                superseded: tally.superseded,
                over_rate: tally.over_rate,
                unsendable: tally.unsendable,
                stream_ended: tally.stream_ended,
            },
            datagrams: tally.datagrams,
            parity_datagrams: tally.parity_shards,
        }
    }
}

impl From<Spread> for Percentiles {
    fn from(spread: Spread) -> Self {
        Self { p50_us: spread.p50, p95_us: spread.p95, p99_us: spread.p99 }
    }
}

fn millis(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
