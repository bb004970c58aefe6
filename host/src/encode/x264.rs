//! Software H.264: the system's libx264.
//!
//! The settings follow from one wish, the picture that goes in comes out of the same call: no lookahead, no B-pictures,
//! no frame threads (slice threads share one picture instead), a rate-control buffer of one picture, and IDR pictures
//! only when asked for. The pixels are converted straight into the planes that libx264 reads; the coded bytes are copied
//! once, without what must not precede the slices.
//!
//! Deliberately absent: reference invalidation. Clients that hold one reference leave nothing else to build on, and
//! libx264 would have to keep more for all of them - an IDR picture repairs.

#[expect(unsafe_code, reason = "libx264 is a C library, loaded at run time")]
mod library;
#[cfg(test)]
mod overhead;

use std::num::TryFromIntError;

use yuv::{BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix};

use punktfunk_core::media::{
    AccessUnit, Codec, ColourMatrix, ColourSpace, FrameKind, Mode, SourceIndex,
};

use super::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest, annexb};
use crate::capture::{CapturedFrame, FramePool, PixelFormat};
use crate::clock;
use library::{Coder, OpenError, Planes, Preset, Settings};

const NAME: &str = "x264";

/// Modes of up to this many pixels a second get the better of the two presets: it costs twice the time and is only
/// worth it where even a slow machine has time to spare (640x480@60, 960x544@30).
const SUPERFAST_MAX_PIXELS_PER_SECOND: u64 = 20_000_000;

/// A slice thread needs this many rows of macroblocks; with fewer x264 would take slices away.
const MIN_MACROBLOCK_ROWS_PER_THREAD: u32 = 4;

/// More slices than this cost more bits than they are worth to any decoder.
const MAX_SLICES: u8 = 8;

/// Buffers of sent access units that wait to be used again.
const SPARE_BUFFERS: usize = 4;

/// The rows of a picture's planes are rounded up to as many bytes as the widest instructions take at once.
const ROW_BYTES: usize = 64;

/// The encoder libx264, if the system has the build that this host was made for.
#[derive(Debug, Clone, Copy, Default)]
pub struct X264Backend;

impl EncoderBackend for X264Backend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self) -> Result<Vec<Codec>, EncodeError> {
        let mode = Mode::new(320, 180, 30_000).map_err(|error| failed(&error))?;
        let mut encoder = X264::open(&EncodeSpec {
            codec: Codec::H264,
            mode,
            bitrate_kbps: 1_000,
            colour: ColourSpace { matrix: ColourMatrix::Bt709, full_range: false },
            slices: 1,
            max_reference_frames: 1,
            max_unit_bytes: 1 << 20,
        })?;
        let pool = FramePool::new(1);
        for index in 0..3_u8 {
            let frame = plain_frame(&pool, mode, index);
            let unit = encoder.encode(&frame, PictureRequest::default())?;
            encoder.recycle(unit.bytes);
        }
        Ok(self.codecs())
    }

    fn codecs(&self) -> Vec<Codec> {
        vec![Codec::H264]
    }

    fn open(&self, spec: &EncodeSpec) -> Result<Box<dyn Encoder>, EncodeError> {
        Ok(Box::new(X264::open(spec)?))
    }
}

/// An open x264.
struct X264 {
    coder: Coder,
    /// The picture in the layout the encoder reads; written in place for every picture.
    picture: Picture,
    mode: Mode,
    colour: ColourSpace,
    max_unit_bytes: usize,
    /// Nothing the client has can be built on: the next picture restarts.
    restart: bool,
    /// No picture was converted yet.
    empty: bool,
    spare: Vec<Vec<u8>>,
}

impl X264 {
    fn open(spec: &EncodeSpec) -> Result<Self, EncodeError> {
        if spec.codec != Codec::H264 {
            return Err(refused(spec, format!("it has no {}", spec.codec)));
        }
        let settings = settings(spec).map_err(|error| refused(spec, error.to_string()))?;
        let coder = Coder::open(&settings).map_err(|error| match error {
            OpenError::Library(_) => EncodeError::Unavailable {
                encoder: NAME,
                reason: error.to_string(),
                remedy: format!("apt install libx264-{}", library::BUILD),
            },
            OpenError::Settings => refused(spec, error.to_string()),
        })?;
        Ok(Self {
            coder,
            picture: Picture::new(spec.mode),
            mode: spec.mode,
            colour: spec.colour,
            max_unit_bytes: spec.max_unit_bytes,
            restart: true,
            empty: true,
            spare: Vec::with_capacity(SPARE_BUFFERS),
        })
    }
}

impl Encoder for X264 {
    fn encode(
        &mut self,
        frame: &CapturedFrame,
        request: PictureRequest,
    ) -> Result<AccessUnit, EncodeError> {
        let encode_began_at = clock::now();
        if (frame.width, frame.height) != (self.mode.width(), self.mode.height()) {
            return Err(EncodeError::Size {
                got_width: frame.width,
                got_height: frame.height,
                width: self.mode.width(),
                height: self.mode.height(),
            });
        }
        // A repeated picture already lies converted where the encoder reads it.
        if !request.repeated || self.empty {
            self.picture.fill(frame, self.colour)?;
            self.empty = false;
        }
        let idr = request.force_idr || self.restart;
        let coded = match self.coder.code(&self.picture.planes(), idr) {
            Ok(Some(coded)) => coded,
            Ok(None) => return Err(EncodeError::Delayed { encoder: NAME }),
            Err(error) => return Err(failed(&error)),
        };
        let mut bytes = self.spare.pop().unwrap_or_default();
        let is_idr = annexb::copy_tidy(coded, &mut bytes);
        if idr && !is_idr {
            return Err(failed(&"an IDR picture was asked for and did not come"));
        }
        if bytes.len() > self.max_unit_bytes {
            self.restart = true;
            let got = bytes.len();
            self.recycle(bytes);
            return Err(EncodeError::TooLarge { got, max: self.max_unit_bytes });
        }
        self.restart = false;
        Ok(AccessUnit {
            source: frame.index,
            kind: if is_idr { FrameKind::Idr } else { FrameKind::Predicted },
            captured_at: frame.captured_at,
            encode_began_at,
            encoded_at: clock::now(),
            repeated: request.repeated,
            bytes,
        })
    }

    fn recycle(&mut self, bytes: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS {
            self.spare.push(bytes);
        }
    }
}

/// A picture as libx264 reads it: luma, and two planes of chroma with half its width and height.
struct Picture {
    planes: [Vec<u8>; 3],
    /// Bytes from row to row.
    strides: [usize; 3],
}

impl Picture {
    fn new(mode: Mode) -> Self {
        let (width, height) = (mode.width() as usize, mode.height() as usize);
        let luma = width.next_multiple_of(ROW_BYTES);
        let strides = [luma, luma / 2, luma / 2];
        let rows = [height, height.div_ceil(2), height.div_ceil(2)];
        Self { planes: [0, 1, 2].map(|plane| vec![0; strides[plane] * rows[plane]]), strides }
    }

    /// Turns the pixels into luma and chroma.
    fn fill(&mut self, frame: &CapturedFrame, colour: ColourSpace) -> Result<(), EncodeError> {
        let PixelFormat::Bgrx = frame.format;
        let number = |bytes: usize| u32::try_from(bytes).map_err(|error| failed(&error));
        let [luma, first, second] = &mut self.planes;
        let mut planes = YuvPlanarImageMut {
            y_plane: BufferStoreMut::Borrowed(luma),
            y_stride: number(self.strides[0])?,
            u_plane: BufferStoreMut::Borrowed(first),
            u_stride: number(self.strides[1])?,
            v_plane: BufferStoreMut::Borrowed(second),
            v_stride: number(self.strides[2])?,
            width: frame.width,
            height: frame.height,
        };
        let range = if colour.full_range { YuvRange::Full } else { YuvRange::Limited };
        let matrix = match colour.matrix {
            ColourMatrix::Bt601 => YuvStandardMatrix::Bt601,
            ColourMatrix::Bt709 => YuvStandardMatrix::Bt709,
            ColourMatrix::Bt2020 => YuvStandardMatrix::Bt2020,
        };
        let (pixels, stride) = (frame.pixels.bytes(), number(frame.stride)?);
        let mode = YuvConversionMode::Balanced;
        yuv::bgra_to_yuv420(&mut planes, pixels, stride, range, matrix, mode)
            .map_err(|error| failed(&error))
    }

    fn planes(&self) -> Planes<'_> {
        Planes { data: self.planes.each_ref().map(Vec::as_slice), strides: self.strides }
    }
}

/// How many slices a picture of this height can have.
fn slices(spec: &EncodeSpec) -> u32 {
    u32::from(spec.slices.clamp(1, MAX_SLICES)).min(macroblock_rows(spec.mode))
}

/// How many threads share a picture. x264 makes exactly as many slices as it has slice threads, so it is one for each
/// slice (the kernel spreads them over what cores there are), or one thread that makes all slices.
fn threads(spec: &EncodeSpec) -> u32 {
    let slices = slices(spec);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 && macroblock_rows(spec.mode) >= slices * MIN_MACROBLOCK_ROWS_PER_THREAD {
        slices
    } else {
        1
    }
}

fn macroblock_rows(mode: Mode) -> u32 {
    mode.height().div_ceil(16)
}

/// What libx264 is opened with.
// spec: gamestream 7.9
fn settings(spec: &EncodeSpec) -> Result<Settings, TryFromIntError> {
    // The rate-control buffer holds one picture, so that no picture takes much longer on the wire than another.
    let picture_bits =
        (u64::from(spec.bitrate_kbps) * 1_000_000).div_ceil(spec.mode.refresh_millihz().into());
    Ok(Settings {
        preset: preset(spec.mode),
        width: spec.mode.width().try_into()?,
        height: spec.mode.height().try_into()?,
        refresh_millihz: spec.mode.refresh_millihz(),
        bitrate_kbps: spec.bitrate_kbps.try_into()?,
        buffer_kbit: picture_bits.div_ceil(1000).try_into()?,
        slices: slices(spec).try_into()?,
        threads: threads(spec).try_into()?,
        full_range: spec.colour.full_range,
        // The bitstream says what the conversion does.
        colour: match spec.colour.matrix {
            ColourMatrix::Bt601 => [6, 6, 6],
            ColourMatrix::Bt709 => [1, 1, 1],
            ColourMatrix::Bt2020 => [9, 14, 9],
        },
    })
}

fn preset(mode: Mode) -> Preset {
    let pixels = u64::from(mode.width()) * u64::from(mode.height());
    if pixels * u64::from(mode.refresh_millihz()) / 1000 <= SUPERFAST_MAX_PIXELS_PER_SECOND {
        Preset::Superfast
    } else {
        Preset::Ultrafast
    }
}

fn refused(spec: &EncodeSpec, reason: String) -> EncodeError {
    let settings = format!(
        "{} {} at {} kbit/s with {} slices",
        spec.codec, spec.mode, spec.bitrate_kbps, spec.slices
    );
    EncodeError::Open { encoder: NAME, settings, reason }
}

fn failed(reason: &dyn std::fmt::Display) -> EncodeError {
    EncodeError::Failed { encoder: NAME, reason: reason.to_string() }
}

/// A picture of one colour, for the probe.
fn plain_frame(pool: &FramePool, mode: Mode, index: u8) -> CapturedFrame {
    let stride = mode.width() as usize * 4;
    let mut pixels = pool.take(stride * mode.height() as usize);
    pixels.bytes_mut().fill(64 * index);
    CapturedFrame {
        index: SourceIndex(index.into()),
        captured_at: clock::now(),
        width: mode.width(),
        height: mode.height(),
        stride,
        format: PixelFormat::Bgrx,
        damage: Vec::new(),
        pixels,
    }
}
