//! What a self-test found: for people as it goes, for programs at the end.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Pictures, sound and control went through every door.
    Green,
    /// Something did not; the reason names it.
    Red,
    /// Nothing can be said: there is no host, or it does not let this user in.
    NotRun,
}

/// The doors in the order of the course.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// The local socket issued a permit.
    Permit,
    /// Plain HTTP says who the host is.
    Http,
    /// The PIN made a stranger a client.
    Pairing,
    /// HTTPS knows the client, and shows it the Test card alone.
    Https,
    /// The Test card was started.
    Launch,
    /// The stream was negotiated.
    Rtsp,
    /// The control connection is there, and an IDR picture that was asked for came.
    Control,
    /// Frames arrived, were decoded, and showed their numbers in order.
    Video,
    /// The Test card's tone was heard.
    Audio,
    /// The session was quit.
    Quit,
    /// The identity is gone, and the host does not know it any more.
    Erase,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Permit => "permit",
            Self::Http => "HTTP",
            Self::Pairing => "pairing",
            Self::Https => "HTTPS",
            Self::Launch => "launch",
            Self::Rtsp => "RTSP",
            Self::Control => "control",
            Self::Video => "video",
            Self::Audio => "audio",
            Self::Quit => "quit",
            Self::Erase => "erase",
        })
    }
}

/// A step that was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Which.
    pub step: Step,
    /// It succeeded.
    pub passed: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was found, or why it failed.
    pub detail: String,
}

/// What was counted on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Frames that were wanted.
    pub frames_wanted: u64,
    /// Video datagrams that came.
    pub video_datagrams: u64,
    /// Of them, malformed or not sealed with this stream's key.
    pub video_refused: u64,
    /// Data shards that parity restored.
    pub shards_repaired: u64,
    /// Frames that arrived whole.
    pub frames_received: u64,
    /// Frames that were decoded and showed a new number.
    pub frames_decoded: u64,
    /// Frames that did not arrive whole or not in time.
    pub frames_missed: u64,
    /// Frames that showed the number of the one before.
    pub frames_repeated: u64,
    /// Frames that could not be decoded, or showed no number or an older one.
    pub frames_bad: u64,
    /// Pictures that the host left out before it encoded.
    pub frames_skipped: u64,
    /// IDR frames.
    pub idr_frames: u64,
    /// From capture to having been decoded here, median, in microseconds.
    pub latency_us: Option<u64>,
    /// Audio datagrams that came.
    pub audio_datagrams: u64,
    /// Opus packets, restored ones included.
    pub audio_packets: u64,
    /// Of them, restored by parity.
    pub audio_repaired: u64,
    /// Packets that did not come.
    pub audio_lost: u64,
    /// Windows of 50 ms that were looked at.
    pub audio_windows: u64,
    /// Of them, with the Test card's quiet tone.
    pub tone_windows: u64,
    /// Beeps that were heard.
    pub beeps: u64,
    /// Control messages of the host that were opened.
    pub control_messages: u64,
}

/// The whole result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The verdict.
    pub verdict: Verdict,
    /// Why it is not green.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The steps that were taken, in order; the one that failed is among them.
    pub steps: Vec<Taken>,
    /// What was counted.
    pub counts: Counts,
    /// How long all took, in milliseconds.
    pub took_ms: u64,
}

pub(super) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
