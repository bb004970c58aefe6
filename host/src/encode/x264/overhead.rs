//! What this room costs beside the encoder it wraps: the same pictures through [`X264`] and through libx264 alone.
//!
//! Both encoders are open at once, with the same settings, and take turns, picture by picture, so that whatever else
//! the machine does falls on both. Processor time counts, of all threads, not the time that passes. "Alone" means
//! pictures that already lie in the encoder's own layout: no conversion, no copy of what comes out. Turning pixels into
//! luma and chroma is work that every user of the library has, so its share is told apart.

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::capture::FrameSource as _;
use crate::capture::pattern::{PatternSource, Stage};

/// Different pictures, coded over and over.
const PICTURES: usize = 30;

/// How often each is coded.
const ROUNDS: usize = 10;

/// The goal is 5 %. What a loaded machine adds to such a small difference is allowed for.
const MAX_OVERHEAD: f64 = 0.15;

#[test]
#[ignore = "measures processor time, so it runs alone, and keeps figures as an unprivileged user"]
fn the_room_costs_little_beside_its_encoder() {
    let mut figures = Vec::new();
    for (width, height) in [(1280, 720), (1920, 1080)] {
        let cost = Cost::measure(Mode::new(width, height, 60_000).unwrap());
        println!("{width}x{height}: {cost:?}, {:.1} %", cost.overhead() * 100.0);
        assert!(cost.overhead() < MAX_OVERHEAD, "the room costs too much: {cost:?}");
        figures.push(format!("\"{width}x{height}\": {}", cost.json()));
    }
    if let Some(folder) = std::env::var_os("PUNKTFUNK_MEASURED") {
        let json = format!("{{\"encoder and its room\": {{{}}}}}", figures.join(", "));
        std::fs::write(std::path::Path::new(&folder).join("overhead.json"), json).unwrap();
    }
}

/// Processor time per picture in milliseconds.
#[derive(Debug, Default)]
struct Cost {
    /// From captured pixels to an access unit.
    whole: f64,
    /// Of that, pixels into luma and chroma.
    conversion: f64,
    /// libx264 alone.
    alone: f64,
}

impl Cost {
    fn measure(mode: Mode) -> Self {
        let spec = EncodeSpec {
            codec: Codec::H264,
            mode,
            bitrate_kbps: 10_000,
            colour: ColourSpace { matrix: ColourMatrix::Bt709, full_range: false },
            slices: 4,
            max_reference_frames: 1,
            max_unit_bytes: 4 << 20,
        };
        let pictures = test_card(mode);
        let mut converted = convert_all(&spec, &pictures);
        let (mut ours, mut alone) = (X264::open(&spec).unwrap(), X264::open(&spec).unwrap());
        let mut converter = X264::open(&spec).unwrap();
        let mut cost = Self::default();
        let mut sizes = [0, 0];
        for (number, frame) in pictures.iter().cycle().take(PICTURES * ROUNDS).enumerate() {
            cost.whole += processor_ms(|| {
                let unit = ours.encode(frame, PictureRequest::default()).unwrap();
                sizes[0] += unit.bytes.len();
                ours.recycle(unit.bytes);
            });
            std::mem::swap(&mut alone.picture, &mut converted[number % PICTURES]);
            cost.alone += processor_ms(|| {
                alone.code(number == 0).unwrap();
                sizes[1] += alone.packet.data().unwrap().len();
            });
            std::mem::swap(&mut alone.picture, &mut converted[number % PICTURES]);
            cost.conversion += processor_ms(|| converter.convert(frame).unwrap());
        }
        // The same work was done, but for what the rate control of slice threads does differently each time.
        assert!(sizes[0].abs_diff(sizes[1]) < sizes[1] / 20, "other work was done: {sizes:?}");
        println!("{sizes:?} bytes");
        let count = (PICTURES * ROUNDS) as f64;
        Self {
            whole: cost.whole / count,
            conversion: cost.conversion / count,
            alone: cost.alone / count,
        }
    }

    /// What is neither the encoder's nor the conversion's, as a part of the encoder's.
    fn overhead(&self) -> f64 {
        (self.whole - self.conversion - self.alone) / self.alone
    }

    fn json(&self) -> String {
        format!(
            "{{\"whole_ms\": {:.3}, \"conversion_ms\": {:.3}, \"libx264_ms\": {:.3}, \
             \"overhead_percent\": {:.1}, \"with_conversion_percent\": {:.1}}}",
            self.whole,
            self.conversion,
            self.alone,
            self.overhead() * 100.0,
            (self.whole / self.alone - 1.0) * 100.0
        )
    }
}

/// What the work takes, of all threads of this process.
fn processor_ms(work: impl FnOnce()) -> f64 {
    let now = || {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 * 1e3 + time.tv_nsec as f64 / 1e6
    };
    let began = now();
    work();
    now() - began
}

fn test_card(mode: Mode) -> Vec<CapturedFrame> {
    let mut source = PatternSource::new(std::sync::Arc::new(Stage::new(mode)), mode);
    let mut pictures = Vec::new();
    while pictures.len() < PICTURES {
        pictures.extend(source.next_frame(std::time::Duration::from_secs(1)).unwrap());
    }
    pictures
}

/// The pictures as the encoder reads them.
fn convert_all(spec: &EncodeSpec, pictures: &[CapturedFrame]) -> Vec<frame::Video> {
    let mut converter = X264::open(spec).unwrap();
    let one = |frame| {
        converter.convert(frame).unwrap();
        let (width, height) = (spec.mode.width(), spec.mode.height());
        let empty = frame::Video::new(format::Pixel::YUV420P, width, height);
        std::mem::replace(&mut converter.picture, empty)
    };
    pictures.iter().map(one).collect()
}
