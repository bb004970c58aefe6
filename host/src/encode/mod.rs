//! Encoders: one picture in, one access unit out, in the same call. An encoder that would hold a picture back is
//! refused when it is opened.
//!
//! A new encoder is one file here and one line in [`backends`]; the contract suite then runs on it.

mod annexb;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod sps;
pub mod x264;

use punktfunk_core::media::{AccessUnit, Codec, ColourSpace, FrameIndex, Mode};

use crate::capture::CapturedFrame;

/// Every encoder that was built in, the preferred one first. Whether one works here is known after its probe.
pub fn backends() -> Vec<Box<dyn EncoderBackend>> {
    vec![Box::new(x264::X264Backend)]
}

/// A way to encode.
pub trait EncoderBackend: Send + Sync {
    /// The name used in configuration and reports: `x264`, ...
    fn name(&self) -> &'static str;

    /// The codecs this machine can encode with it in real time, found out by opening it.
    ///
    /// # Errors
    /// [`EncodeError::Unavailable`] says what is missing.
    fn probe(&self) -> Result<Vec<Codec>, EncodeError>;

    /// The codecs it encodes here, for whoever has seen its probe succeed, in another process say.
    fn codecs(&self) -> Vec<Codec> {
        self.probe().unwrap_or_default()
    }

    /// Opens an encoder.
    ///
    /// # Errors
    /// The settings cannot be met.
    fn open(&self, spec: &EncodeSpec) -> Result<Box<dyn Encoder>, EncodeError>;
}

/// What an encoder shall produce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeSpec {
    /// The codec.
    pub codec: Codec,
    /// Size and rate.
    pub mode: Mode,
    /// Constant bitrate of the coded video in kbit/s.
    pub bitrate_kbps: u32,
    /// Colour, also written into the bitstream.
    pub colour: ColourSpace,
    /// Slices per picture, 1..=8.
    pub slices: u8,
    /// Reference pictures the client can hold; 0 = no limit. 1 is a hard limit for weak decoders.
    pub max_reference_frames: u8,
    /// No access unit may be larger than this many bytes (the wire format's limit).
    pub max_unit_bytes: usize,
}

/// What is wanted of one picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PictureRequest {
    /// Make it an IDR picture with parameter sets.
    pub force_idr: bool,
    /// The picture repeats the one before.
    pub repeated: bool,
}

/// An open encoder. It stays on the `pf-encode` thread.
pub trait Encoder: Send {
    /// Encodes one picture and returns its access unit. The first one is always an IDR picture.
    ///
    /// # Errors
    /// [`EncodeError::Size`] if the picture is not of the size this encoder was opened for (open another one);
    /// [`EncodeError::Delayed`] if the encoder kept the picture, which is a bug of its settings;
    /// [`EncodeError::TooLarge`] if the coded picture cannot be sent (the next one restarts).
    fn encode(
        &mut self,
        frame: &CapturedFrame,
        request: PictureRequest,
    ) -> Result<AccessUnit, EncodeError>;

    /// Tells the encoder that the client lost these frames. Returns whether the next picture will avoid them; `false`
    /// means that only an IDR picture helps.
    fn invalidate(&mut self, first: FrameIndex, last: FrameIndex) -> bool {
        let _ = (first, last);
        false
    }

    /// Gives back the memory of an access unit that was sent.
    fn recycle(&mut self, bytes: Vec<u8>) {
        drop(bytes);
    }
}

/// What went wrong with an encoder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// It cannot be used on this machine.
    #[error("{encoder} cannot be used here: {reason}")]
    Unavailable {
        /// The encoder.
        encoder: &'static str,
        /// What is missing.
        reason: String,
        /// What to do about it: a command where there is one.
        remedy: String,
    },
    /// It refused its settings.
    #[error("{encoder} could not be opened for {settings}: {reason}")]
    Open {
        /// The encoder.
        encoder: &'static str,
        /// What was asked for.
        settings: String,
        /// What it said.
        reason: String,
    },
    /// The picture has another size than the encoder was opened for.
    #[error("the picture is {got_width}x{got_height}, the encoder was opened for {width}x{height}")]
    Size {
        /// The picture's width in pixels.
        got_width: u32,
        /// The picture's height in pixels.
        got_height: u32,
        /// The encoder's width in pixels.
        width: u32,
        /// The encoder's height in pixels.
        height: u32,
    },
    /// The encoder kept the picture instead of coding it at once.
    #[error("{encoder} delayed a picture; its settings are wrong")]
    Delayed {
        /// The encoder.
        encoder: &'static str,
    },
    /// The access unit is larger than the stream's format can carry. It is lost, and the next picture will be an IDR.
    #[error("an access unit of {got} bytes is more than the {max} bytes that can be sent")]
    TooLarge {
        /// Coded size in bytes.
        got: usize,
        /// The limit in bytes.
        max: usize,
    },
    /// It failed in the middle of a stream.
    #[error("{encoder} failed: {reason}")]
    Failed {
        /// The encoder.
        encoder: &'static str,
        /// What it said.
        reason: String,
    },
}
