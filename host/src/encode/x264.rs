//! Software H.264: libx264 through the system's libavcodec.
//!
//! The settings follow from one wish, the picture that goes in comes out of the same call: no lookahead, no B-pictures,
//! no frame threads (slice threads share one picture instead), a rate-control buffer of one picture, and IDR pictures
//! only when asked for. The pixels are converted straight into the planes libavcodec reads; the coded bytes are copied
//! once, without what must not precede the slices.
//!
//! Deliberately absent: reference invalidation, which libavcodec does not offer for x264 - an IDR picture repairs.

#[cfg(test)]
mod overhead;

use ffmpeg_next::codec::{self, threading};
use ffmpeg_next::util::error::EAGAIN;
use ffmpeg_next::util::{color, frame, log, picture};
use ffmpeg_next::{Dictionary, Error as AvError, Packet, Rational, encoder, format};
use yuv::{BufferStoreMut, YuvConversionMode, YuvPlanarImageMut, YuvRange, YuvStandardMatrix};

use punktfunk_core::media::{
    AccessUnit, Codec, ColourMatrix, ColourSpace, FrameKind, Mode, SourceIndex,
};

use super::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest, annexb};
use crate::capture::{CapturedFrame, FramePool, PixelFormat};
use crate::clock;

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

/// The encoder libx264, if the system's libavcodec has it.
#[derive(Debug, Clone, Copy, Default)]
pub struct X264Backend;

impl EncoderBackend for X264Backend {
    fn name(&self) -> &'static str {
        NAME
    }

    fn probe(&self) -> Result<Vec<Codec>, EncodeError> {
        let mode = Mode::new(320, 180, 30_000).map_err(|error| EncodeError::Unavailable {
            encoder: NAME,
            reason: error.to_string(),
        })?;
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
    encoder: encoder::video::Encoder,
    /// The picture in the layout the encoder reads; written in place for every picture.
    picture: frame::Video,
    /// Chroma on its way into `picture`, whose three planes cannot be lent out at once.
    chroma: [Vec<u8>; 2],
    packet: Packet,
    mode: Mode,
    colour: ColourSpace,
    max_unit_bytes: usize,
    /// Pictures given to the encoder so far; the number of the next one, which is its PTS.
    given: i64,
    /// Nothing the client has can be built on: the next picture restarts.
    restart: bool,
    spare: Vec<Vec<u8>>,
}

impl X264 {
    fn open(spec: &EncodeSpec) -> Result<Self, EncodeError> {
        // Its notes on settings and processor features are not ours to print.
        log::set_level(log::Level::Error);
        if spec.codec != Codec::H264 {
            return Err(refused(spec, format!("it has no {}", spec.codec)));
        }
        let Some(library) = encoder::find_by_name("libx264") else {
            return Err(EncodeError::Unavailable {
                encoder: NAME,
                reason: "this system's libavcodec was built without libx264".to_owned(),
            });
        };
        let (width, height) = (spec.mode.width(), spec.mode.height());
        let context = codec::Context::new_with_codec(library);
        let mut settings =
            context.encoder().video().map_err(|error| refused(spec, error.to_string()))?;
        settings.set_width(width);
        settings.set_height(height);
        settings.set_format(format::Pixel::YUV420P);
        // Time counts pictures, so that rate control gives every picture the same share however it was captured.
        let refresh = i32::try_from(spec.mode.refresh_millihz()).unwrap_or(i32::MAX);
        settings.set_time_base(Rational(1000, refresh));
        settings.set_frame_rate(Some(Rational(refresh, 1000)));
        let bits_per_second = spec.bitrate_kbps as usize * 1000;
        settings.set_bit_rate(bits_per_second);
        settings.set_max_bit_rate(bits_per_second);
        settings.set_max_b_frames(0);
        let mut threading = threading::Config::kind(threading::Type::Slice);
        threading.count = threads(spec);
        settings.set_threading(threading);
        set_colour(&mut settings, spec.colour);
        let encoder = settings
            .open_as_with(library, options(spec))
            .map_err(|error| refused(spec, error.to_string()))?;
        let picture = frame::Video::new(format::Pixel::YUV420P, width, height);
        Ok(Self {
            encoder,
            chroma: [1, 2].map(|plane| vec![0; picture.data(plane).len()]),
            picture,
            packet: Packet::empty(),
            mode: spec.mode,
            colour: spec.colour,
            max_unit_bytes: spec.max_unit_bytes,
            given: 0,
            restart: true,
            spare: Vec::with_capacity(SPARE_BUFFERS),
        })
    }

    /// Turns the pixels into luma and chroma, in the memory libavcodec reads.
    fn convert(&mut self, frame: &CapturedFrame) -> Result<(), EncodeError> {
        let PixelFormat::Bgrx = frame.format;
        let strides = [0, 1, 2].map(|plane| self.picture.stride(plane) as u32);
        let stride = u32::try_from(frame.stride).map_err(|error| failed(&error))?;
        let [first, second] = &mut self.chroma;
        let mut planes = YuvPlanarImageMut {
            y_plane: BufferStoreMut::Borrowed(self.picture.data_mut(0)),
            y_stride: strides[0],
            u_plane: BufferStoreMut::Borrowed(first),
            u_stride: strides[1],
            v_plane: BufferStoreMut::Borrowed(second),
            v_stride: strides[2],
            width: frame.width,
            height: frame.height,
        };
        let range = if self.colour.full_range { YuvRange::Full } else { YuvRange::Limited };
        let matrix = match self.colour.matrix {
            ColourMatrix::Bt601 => YuvStandardMatrix::Bt601,
            ColourMatrix::Bt709 => YuvStandardMatrix::Bt709,
            ColourMatrix::Bt2020 => YuvStandardMatrix::Bt2020,
        };
        let mode = YuvConversionMode::Balanced;
        yuv::bgra_to_yuv420(&mut planes, frame.pixels.bytes(), stride, range, matrix, mode)
            .map_err(|error| failed(&error))?;
        for (plane, staged) in (1..).zip(&self.chroma) {
            self.picture.data_mut(plane).copy_from_slice(staged);
        }
        Ok(())
    }

    /// Gives the converted picture to x264 and takes its packet, which must be there at once.
    fn code(&mut self, idr: bool) -> Result<(), EncodeError> {
        self.picture.set_pts(Some(self.given));
        self.picture.set_kind(if idr { picture::Type::I } else { picture::Type::None });
        self.encoder.send_frame(&self.picture).map_err(|error| failed(&error))?;
        match self.encoder.receive_packet(&mut self.packet) {
            Ok(()) => {}
            Err(AvError::Other { errno: EAGAIN }) => {
                return Err(EncodeError::Delayed { encoder: NAME });
            }
            Err(error) => return Err(failed(&error)),
        }
        // A packet of an earlier picture means that this one is still inside.
        if self.packet.pts() != Some(self.given) {
            return Err(EncodeError::Delayed { encoder: NAME });
        }
        self.given += 1;
        Ok(())
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
        if !request.repeated || self.given == 0 {
            self.convert(frame)?;
        }
        let idr = request.force_idr || self.restart;
        self.code(idr)?;
        let coded = self.packet.data().unwrap_or_default();
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

/// How many slices a picture of this height can have.
fn slices(spec: &EncodeSpec) -> u32 {
    u32::from(spec.slices.clamp(1, MAX_SLICES)).min(macroblock_rows(spec.mode))
}

/// How many threads share a picture. x264 makes exactly as many slices as it has slice threads, so it is one for each
/// slice (the kernel spreads them over what cores there are), or one thread that makes all slices.
fn threads(spec: &EncodeSpec) -> usize {
    let slices = slices(spec);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores > 1 && macroblock_rows(spec.mode) >= slices * MIN_MACROBLOCK_ROWS_PER_THREAD {
        slices as usize
    } else {
        1
    }
}

fn macroblock_rows(mode: Mode) -> u32 {
    mode.height().div_ceil(16)
}

fn preset(mode: Mode) -> &'static str {
    let pixels = u64::from(mode.width()) * u64::from(mode.height());
    if pixels * u64::from(mode.refresh_millihz()) / 1000 <= SUPERFAST_MAX_PIXELS_PER_SECOND {
        "superfast"
    } else {
        "ultrafast"
    }
}

fn options(spec: &EncodeSpec) -> Dictionary<'static> {
    // The rate-control buffer holds one picture, so that no picture takes much longer on the wire than another.
    let picture_bits =
        (u64::from(spec.bitrate_kbps) * 1_000_000).div_ceil(spec.mode.refresh_millihz().into());
    let buffer_bits = picture_bits.div_ceil(1000) * 1000;
    let mut options = Dictionary::new();
    options.set("preset", preset(spec.mode));
    options.set("tune", "zerolatency");
    options.set("profile", "high");
    options.set("forced-idr", "1");
    options.set("bufsize", &buffer_bits.to_string());
    options.set("slices", &slices(spec).to_string());
    // One reference serves clients with and without a limit: the presets used here look at no second one anyway.
    // The 8x8 transform costs nothing measurable and makes it High profile, which is what clients that patch the
    // parameter sets expect. CABAC stays as the preset has it: in `ultrafast` it would cost 40 % more time.
    options.set(
        "x264-params",
        "keyint=infinite:scenecut=0:ref=1:weightp=0:aud=0:8x8dct=1:repeat-headers=1",
    );
    options
}

/// Writes into the bitstream what the conversion does.
// spec: gamestream 7.9
fn set_colour(settings: &mut encoder::video::Video, colour: ColourSpace) {
    let (space, primaries, transfer) = match colour.matrix {
        ColourMatrix::Bt601 => (
            color::Space::SMPTE170M,
            color::Primaries::SMPTE170M,
            color::TransferCharacteristic::SMPTE170M,
        ),
        ColourMatrix::Bt709 => {
            (color::Space::BT709, color::Primaries::BT709, color::TransferCharacteristic::BT709)
        }
        ColourMatrix::Bt2020 => (
            color::Space::BT2020NCL,
            color::Primaries::BT2020,
            color::TransferCharacteristic::BT2020_10,
        ),
    };
    settings.set_colorspace(space);
    settings.set_color_primaries(primaries);
    settings.set_color_transfer_characteristic(transfer);
    settings.set_color_range(if colour.full_range {
        color::Range::JPEG
    } else {
        color::Range::MPEG
    });
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
