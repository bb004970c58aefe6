//! What every encoder must do, checked with a decoder. Each check runs on every backend that works on this machine.

use openh264::decoder::{DecodedYUV, Decoder};
use openh264::formats::YUVSource as _;
use yuv::{YuvRange, YuvStandardMatrix};

use punktfunk_core::media::{Codec, ColourMatrix, ColourSpace, FrameKind, Mode, SourceIndex};

use super::annexb::{NalUnits, nal};
use super::sps::Sps;
use super::{EncodeError, EncodeSpec, Encoder, EncoderBackend, PictureRequest, backends};
use crate::capture::{CapturedFrame, FramePool, PixelFormat};
use crate::clock;

/// A picture as BGRX bytes.
struct Picture {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
}

impl Picture {
    fn draw(mode: Mode, colour: impl Fn(u32, u32) -> [u8; 3]) -> Self {
        let (width, height) = (mode.width(), mode.height());
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        let bytes = pixels.flat_map(|(x, y)| {
            let [red, green, blue] = colour(x, y);
            [blue, green, red, 0xff]
        });
        Self { width, height, bytes: bytes.collect() }
    }

    /// Soft gradients with a box that moves: what a stream usually looks like.
    fn moving(mode: Mode, step: u32) -> Self {
        let (width, height) = (mode.width(), mode.height());
        let left = (step * 7) % (width - 16);
        Self::draw(mode, |x, y| {
            if (left..left + 16).contains(&x) && (height / 3..height / 2).contains(&y) {
                [230, 210, 60]
            } else {
                [
                    (x * 255 / width) as u8,
                    (y * 255 / height) as u8,
                    ((x + y + step) / 3 % 200) as u8,
                ]
            }
        })
    }

    fn frame(&self, pool: &FramePool, index: u64) -> CapturedFrame {
        let mut pixels = pool.take(self.bytes.len());
        pixels.bytes_mut().copy_from_slice(&self.bytes);
        CapturedFrame {
            index: SourceIndex(index),
            captured_at: clock::now(),
            width: self.width,
            height: self.height,
            stride: self.width as usize * 4,
            format: PixelFormat::Bgrx,
            damage: Vec::new(),
            pixels,
        }
    }

    fn psnr(&self, other: &Self) -> f64 {
        let channels = |picture: &Self| {
            picture.bytes.chunks(4).flat_map(|p| [p[0], p[1], p[2]]).collect::<Vec<u8>>()
        };
        let (ours, theirs) = (channels(self), channels(other));
        let squares: f64 =
            ours.iter().zip(&theirs).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
        10.0 * (255.0_f64.powi(2) / (squares / ours.len() as f64).max(1e-9)).log10()
    }
}

/// A decoder, and how the colours of what it decodes are meant: range and matrix.
struct Eyes {
    decoder: Decoder,
    colours: (YuvRange, YuvStandardMatrix),
}

impl Eyes {
    fn new() -> Self {
        // What a decoder takes for granted that is told nothing.
        let colours = (YuvRange::Limited, YuvStandardMatrix::Bt601);
        Self { decoder: Decoder::new().unwrap(), colours }
    }

    /// Decodes an access unit. Low-delay streams that say so come out at once; one that waits would fail right here.
    fn decode(&mut self, unit: &[u8]) -> DecodedYUV<'_> {
        self.decoder.decode(unit).unwrap().expect("a picture comes out of its own call")
    }

    /// What a viewer sees: the decoded picture in BGRX, with the colours that the stream announces.
    fn see(&mut self, unit: &[u8]) -> Picture {
        if let Some(found) = NalUnits::new(unit).find(|found| found.kind == nal::SPS)
            && let Some(colour) = Sps::parse(&unit[found.range]).colour
        {
            let range = if colour.full_range { YuvRange::Full } else { YuvRange::Limited };
            let matrix = match colour.matrix {
                1 => YuvStandardMatrix::Bt709,
                9 => YuvStandardMatrix::Bt2020,
                _ => YuvStandardMatrix::Bt601,
            };
            self.colours = (range, matrix);
        }
        let (range, matrix) = self.colours;
        let decoded = self.decode(unit);
        let (width, height) = decoded.dimensions();
        let (luma, first, second) = decoded.strides();
        let image = yuv::YuvPlanarImage {
            y_plane: decoded.y(),
            y_stride: luma as u32,
            u_plane: decoded.u(),
            u_stride: first as u32,
            v_plane: decoded.v(),
            v_stride: second as u32,
            width: width as u32,
            height: height as u32,
        };
        let mut bytes = vec![0; width * height * 4];
        yuv::yuv420_to_bgra(&image, &mut bytes, width as u32 * 4, range, matrix).unwrap();
        Picture { width: width as u32, height: height as u32, bytes }
    }
}

fn spec(width: u32, height: u32, refresh_millihz: u32) -> EncodeSpec {
    EncodeSpec {
        codec: Codec::H264,
        mode: Mode::new(width, height, refresh_millihz).unwrap(),
        bitrate_kbps: 4_000,
        colour: ColourSpace { matrix: ColourMatrix::Bt709, full_range: false },
        slices: 1,
        max_reference_frames: 0,
        max_unit_bytes: 1 << 20,
    }
}

/// Runs a check on every encoder that works here; at least one must.
fn check(check: impl Fn(&dyn EncoderBackend)) {
    let mut checked = 0;
    for backend in backends() {
        if backend.probe().is_ok_and(|codecs| codecs.contains(&Codec::H264)) {
            check(backend.as_ref());
            checked += 1;
        }
    }
    assert!(checked > 0, "no encoder works on this machine");
}

fn kinds(unit: &[u8]) -> Vec<u8> {
    NalUnits::new(unit).map(|found| found.kind).collect()
}

fn sps(unit: &[u8]) -> Sps {
    let found = NalUnits::new(unit).find(|found| found.kind == nal::SPS).unwrap();
    Sps::parse(&unit[found.range])
}

fn first_unit(encoder: &mut dyn Encoder, spec: &EncodeSpec) -> Vec<u8> {
    let pool = FramePool::new(1);
    let frame = Picture::moving(spec.mode, 0).frame(&pool, 0);
    encoder.encode(&frame, PictureRequest::default()).unwrap().bytes
}

#[test]
fn every_picture_comes_out_of_its_own_call_and_decodes_to_itself() {
    check(|backend| {
        let spec = spec(320, 240, 60_000);
        let mut encoder = backend.open(&spec).unwrap();
        let mut eyes = Eyes::new();
        let pool = FramePool::new(2);
        for step in 0..120 {
            let picture = Picture::moving(spec.mode, step);
            let frame = picture.frame(&pool, step.into());
            let unit = encoder.encode(&frame, PictureRequest::default()).unwrap();
            assert_eq!(unit.source, frame.index);
            assert_eq!(unit.captured_at, frame.captured_at);
            assert!(unit.encode_began_at <= unit.encoded_at);
            assert_eq!(unit.kind == FrameKind::Idr, step == 0, "picture {step}");
            let psnr = eyes.see(&unit.bytes).psnr(&picture);
            assert!(psnr > 30.0, "picture {step} has {psnr:.1} dB");
            encoder.recycle(unit.bytes);
        }
    });
}

#[test]
fn an_idr_comes_when_asked_for_with_parameter_sets_first_and_nothing_before_them() {
    // spec: gamestream 7.9
    check(|backend| {
        let mut spec = spec(320, 240, 60_000);
        spec.slices = 2;
        let mut encoder = backend.open(&spec).unwrap();
        let pool = FramePool::new(2);
        for step in 0..30 {
            let frame = Picture::moving(spec.mode, step).frame(&pool, step.into());
            let force_idr = step % 11 == 10;
            let request = PictureRequest { force_idr, repeated: false };
            let unit = encoder.encode(&frame, request).unwrap();
            let idr = force_idr || step == 0;
            assert_eq!(unit.kind == FrameKind::Idr, idr, "picture {step}");
            let expected = if idr {
                vec![nal::SPS, nal::PPS, nal::IDR_SLICE, nal::IDR_SLICE]
            } else {
                vec![nal::SLICE, nal::SLICE]
            };
            assert_eq!(kinds(&unit.bytes), expected, "picture {step}");
        }
    });
}

#[test]
fn a_decoder_that_joins_at_a_forced_idr_sees_the_picture() {
    check(|backend| {
        let spec = spec(320, 240, 60_000);
        let mut encoder = backend.open(&spec).unwrap();
        let pool = FramePool::new(2);
        let mut eyes = Eyes::new();
        for step in 0..20 {
            let picture = Picture::moving(spec.mode, step);
            let request = PictureRequest { force_idr: step == 10, repeated: false };
            let unit = encoder.encode(&picture.frame(&pool, step.into()), request).unwrap();
            if step >= 10 {
                assert!(eyes.see(&unit.bytes).psnr(&picture) > 30.0);
            }
        }
    });
}

#[test]
fn slices_and_references_are_what_was_negotiated() {
    // spec: gamestream 13 item 107
    check(|backend| {
        for slices in [1, 2, 4, 8] {
            for (width, height) in [(640, 360), (128, 128), (1280, 720)] {
                let mut spec = spec(width, height, 60_000);
                spec.slices = slices;
                spec.max_reference_frames = 1;
                let mut encoder = backend.open(&spec).unwrap();
                let unit = first_unit(encoder.as_mut(), &spec);
                let count = kinds(&unit).iter().filter(|&&kind| kind == nal::IDR_SLICE).count();
                assert_eq!(count, usize::from(slices), "{width}x{height}");
                let sps = sps(&unit);
                assert_eq!(sps.max_num_ref_frames, 1);
                assert_eq!((sps.width, sps.height), (width, height));
                let restriction = sps.restriction.expect("the VUI has a bitstream restriction");
                assert_eq!(restriction.max_num_reorder_frames, 0);
                assert_eq!(restriction.max_dec_frame_buffering, 1);
            }
        }
    });
}

#[test]
fn the_bitstream_says_how_its_colour_is_meant_and_means_it() {
    // spec: gamestream 13 item 108
    const PATCHES: [[u8; 3]; 8] = [
        [255, 255, 255],
        [255, 0, 0],
        [0, 255, 0],
        [0, 0, 255],
        [0, 0, 0],
        [200, 120, 40],
        [30, 160, 180],
        [128, 128, 128],
    ];
    check(|backend| {
        for (matrix, kr, kb, codes) in [
            (ColourMatrix::Bt601, 0.299, 0.114, [6, 6, 6]),
            (ColourMatrix::Bt709, 0.2126, 0.0722, [1, 1, 1]),
            (ColourMatrix::Bt2020, 0.2627, 0.0593, [9, 14, 9]),
        ] {
            for full_range in [false, true] {
                let mut spec = spec(256, 64, 60_000);
                spec.colour = ColourSpace { matrix, full_range };
                spec.bitrate_kbps = 20_000;
                let mut encoder = backend.open(&spec).unwrap();
                let pool = FramePool::new(1);
                let picture = Picture::draw(spec.mode, |x, _| PATCHES[x as usize / 32]);
                let frame = picture.frame(&pool, 0);
                let unit = encoder.encode(&frame, PictureRequest::default()).unwrap();
                let colour = sps(&unit.bytes).colour.expect("the VUI says what the colours mean");
                assert_eq!(colour.full_range, full_range);
                assert_eq!([colour.primaries, colour.transfer, colour.matrix], codes);
                let mut eyes = Eyes::new();
                let decoded = eyes.decode(&unit.bytes);
                let strides = decoded.strides();
                for (patch, rgb) in (0..).zip(PATCHES) {
                    let expected = luma_chroma(rgb, kr, kb, full_range);
                    let (x, y) = (patch * 32 + 16, 32);
                    let seen = [
                        decoded.y()[y * strides.0 + x],
                        decoded.u()[y / 2 * strides.1 + x / 2],
                        decoded.v()[y / 2 * strides.2 + x / 2],
                    ];
                    for (seen, expected) in seen.into_iter().zip(expected) {
                        assert!(
                            (f64::from(seen) - expected).abs() <= 3.0,
                            "{matrix:?} full={full_range} {rgb:?}: {seen} is not {expected:.1}"
                        );
                    }
                }
            }
        }
    });
}

/// The definition (ITU-R BT.601, 709, 2020), written down a second time.
fn luma_chroma(rgb: [u8; 3], kr: f64, kb: f64, full_range: bool) -> [f64; 3] {
    let [red, green, blue] = rgb.map(|value| f64::from(value) / 255.0);
    let luma = kr * red + (1.0 - kr - kb) * green + kb * blue;
    let cb = (blue - luma) / (2.0 * (1.0 - kb));
    let cr = (red - luma) / (2.0 * (1.0 - kr));
    if full_range {
        [255.0 * luma, 128.0 + 255.0 * cb, 128.0 + 255.0 * cr]
    } else {
        [16.0 + 219.0 * luma, 128.0 + 224.0 * cb, 128.0 + 224.0 * cr]
    }
}

#[test]
fn the_rate_is_constant_and_no_picture_is_much_larger_than_its_share() {
    check(|backend| {
        let spec = spec(640, 360, 30_000);
        let mut encoder = backend.open(&spec).unwrap();
        let pool = FramePool::new(2);
        let share = spec.bitrate_kbps as usize * 1000 / 8 / 30;
        let mut total = 0;
        let pictures = 90;
        for step in 0..pictures {
            // Noise in every picture: more than the rate can carry.
            let mut seed = step * 7919 + 1;
            let mut picture = Picture::moving(spec.mode, step);
            for byte in &mut picture.bytes {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                *byte = byte.wrapping_add((seed >> 24) as u8 & 0x3f);
            }
            let request = PictureRequest { force_idr: step == 45, repeated: false };
            let unit = encoder.encode(&picture.frame(&pool, step.into()), request).unwrap();
            assert!(unit.bytes.len() < share * 6, "picture {step}: {} bytes", unit.bytes.len());
            total += unit.bytes.len();
            encoder.recycle(unit.bytes);
        }
        let average = total / pictures as usize;
        assert!(average < share * 5 / 4, "{average} bytes a picture, the share is {share}");
    });
}

#[test]
fn a_repeated_picture_decodes_to_the_same_one() {
    check(|backend| {
        let spec = spec(640, 360, 60_000);
        let mut encoder = backend.open(&spec).unwrap();
        let mut eyes = Eyes::new();
        let pool = FramePool::new(1);
        let picture = Picture::moving(spec.mode, 3);
        let frame = picture.frame(&pool, 0);
        for step in 0..30 {
            let request = PictureRequest { force_idr: false, repeated: step > 0 };
            let unit = encoder.encode(&frame, request).unwrap();
            assert_eq!(unit.repeated, step > 0);
            assert!(eyes.see(&unit.bytes).psnr(&picture) > 30.0);
        }
    });
}

#[test]
fn another_size_is_refused_and_leaves_the_encoder_usable() {
    check(|backend| {
        let spec = spec(320, 240, 60_000);
        let mut encoder = backend.open(&spec).unwrap();
        let pool = FramePool::new(1);
        let other = Picture::moving(Mode::new(640, 360, 60_000).unwrap(), 0).frame(&pool, 0);
        assert_eq!(
            encoder.encode(&other, PictureRequest::default()).unwrap_err(),
            EncodeError::Size { got_width: 640, got_height: 360, width: 320, height: 240 }
        );
        assert_eq!(kinds(&first_unit(encoder.as_mut(), &spec))[0], nal::SPS);
    });
}

#[test]
fn an_access_unit_that_cannot_be_sent_is_an_error_and_the_next_one_restarts() {
    check(|backend| {
        let mut spec = spec(320, 240, 60_000);
        spec.max_unit_bytes = 3_000;
        spec.bitrate_kbps = 8_000;
        let mut encoder = backend.open(&spec).unwrap();
        let pool = FramePool::new(2);
        let plain = Picture::draw(spec.mode, |_, _| [90, 90, 90]);
        let mut unit =
            |picture: &Picture| encoder.encode(&picture.frame(&pool, 0), PictureRequest::default());
        assert_eq!(unit(&plain).unwrap().kind, FrameKind::Idr);
        let noise = Picture::draw(spec.mode, |x, y| [((x * 77) ^ (y * 91)) as u8; 3]);
        let error = unit(&noise).unwrap_err();
        assert!(matches!(error, EncodeError::TooLarge { max: 3_000, .. }), "{error}");
        assert_eq!(unit(&plain).unwrap().kind, FrameKind::Idr);
        assert_eq!(unit(&plain).unwrap().kind, FrameKind::Predicted);
    });
}

#[test]
fn the_level_is_what_the_mode_needs() {
    check(|backend| {
        for (width, height, refresh, level) in
            [(1280, 720, 30_000, 31), (1280, 720, 60_000, 32), (1920, 1080, 60_000, 42)]
        {
            let spec = spec(width, height, refresh);
            let mut encoder = backend.open(&spec).unwrap();
            let sps = sps(&first_unit(encoder.as_mut(), &spec));
            assert!(sps.level <= level, "{}: level {}", spec.mode, sps.level);
            assert_eq!(sps.profile, 100, "clients that patch the SPS expect High profile");
        }
    });
}

#[test]
fn odd_modes_and_rates_open() {
    check(|backend| {
        for (width, height, refresh) in
            [(16, 16, 1_000), (1126, 2436, 59_940), (854, 480, 119_880), (18, 64, 500_000)]
        {
            let spec = spec(width, height, refresh);
            let mut encoder = backend.open(&spec).unwrap();
            let sps = sps(&first_unit_of_any_size(encoder.as_mut(), &spec));
            assert_eq!((sps.width, sps.height), (width, height));
        }
    });
}

fn first_unit_of_any_size(encoder: &mut dyn Encoder, spec: &EncodeSpec) -> Vec<u8> {
    let pool = FramePool::new(1);
    let frame = Picture::draw(spec.mode, |x, y| [x as u8, y as u8, 7]).frame(&pool, 0);
    encoder.encode(&frame, PictureRequest::default()).unwrap().bytes
}

#[test]
fn a_codec_it_does_not_have_is_refused() {
    check(|backend| {
        let mut spec = spec(320, 240, 60_000);
        spec.codec = Codec::Av1;
        assert!(matches!(backend.open(&spec), Err(EncodeError::Open { .. })));
    });
}
