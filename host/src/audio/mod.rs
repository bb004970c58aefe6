//! Sound: sources that deliver one period of samples at a time, and the Opus encoder.
//!
//! 48 kHz, 32-bit float, channels interleaved in the order FL FR (FC LFE RL RR SL SR).
//!
//! [`tone`] belongs to the test card and [`silence`] stands in where nothing plays; both need no sound server.
//! [`pipewire`] is the sound of a session's programs.

pub mod opus;
mod period;
pub mod pipewire;
pub mod silence;
pub mod tone;

use punktfunk_core::time::Timestamp;

/// Samples per second of every source, per channel.
pub const SAMPLE_RATE: u32 = 48_000;

/// A source of sound. It stays on the `pf-audio` thread and is the one thing that thread waits on.
pub trait AudioSource: Send {
    /// Fills `period` (interleaved) and returns when its first sample was captured. Blocks until the period is
    /// complete; delivers silence while nothing plays.
    ///
    /// # Errors
    /// The source is gone; the stream goes on in silence.
    fn read(&mut self, period: &mut [f32]) -> Result<Timestamp, AudioError>;
}

/// How the sound of a stream is made and coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpec {
    /// Channels: 2. Sources make 6 and 8 as well; the Opus encoder does not yet.
    pub channels: u8,
    /// Samples per channel in one packet: 240 (5 ms) or 480 (10 ms).
    pub period_samples: u32,
    /// Constant bitrate in kbit/s.
    pub bitrate_kbps: u32,
}

/// What went wrong with sound.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AudioError {
    /// The source is gone.
    #[error("the sound source is gone: {reason}")]
    Lost {
        /// What was seen.
        reason: String,
    },
    /// The stream asks for something that is not made here.
    #[error("{what} of {got} is not supported; {supported}")]
    Unsupported {
        /// Which setting.
        what: &'static str,
        /// What was asked for.
        got: u32,
        /// What there is, in words.
        supported: &'static str,
    },
    /// The Opus encoder refused its settings or failed.
    #[error("Opus could not {doing}: {reason}")]
    Opus {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        reason: String,
    },
}
