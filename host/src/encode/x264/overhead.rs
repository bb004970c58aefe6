//! What this room costs beside the encoder it wraps: the same pictures through [`X264`] and through libx264 directly.
//!
//! Who uses libx264 directly and has captured pixels has to turn them into luma and chroma too, so "directly" means: the
//! same converter, then libx264, and nothing else - no tidying, no copy of what comes out, no description of it. What
//! libx264 takes by itself, given pictures that already lie in its layout, is told beside it.
//!
//! All are open at once, with the same settings, and take turns, picture by picture, so that whatever else the machine
//! does falls on each; and who begins changes, because whoever is second finds the pixels in the processor's cache.
//! Processor time counts, of all threads, not the time that passes, and of that the median.

use rustix::time::{ClockId, clock_gettime};

use super::*;
use crate::capture::FrameSource as _;
use crate::capture::pattern::{PatternSource, Stage};

/// Different pictures, coded over and over.
const PICTURES: usize = 30;

/// How often each is coded.
const ROUNDS: usize = 10;

/// libx264 names itself and its settings in the first picture, in fewer bytes than these.
const MAX_SAID_BYTES: usize = 1024;

/// The goal.
const MAX_OVERHEAD: f64 = 0.05;

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

/// Processor time of a picture in milliseconds.
#[derive(Debug)]
struct Cost {
    /// Through the room: from captured pixels to an access unit.
    room: f64,
    /// The conversion and libx264, without the room.
    direct: f64,
    /// libx264, given pictures in its own layout.
    alone: f64,
}

impl Cost {
    fn measure(mode: Mode) -> Self {
        let mut bench = Bench::new(EncodeSpec {
            codec: Codec::H264,
            mode,
            bitrate_kbps: 10_000,
            colour: ColourSpace { matrix: ColourMatrix::Bt709, full_range: false },
            // One slice is one thread, and one thread's rate control decides the same each time: all do the same work.
            slices: 1,
            max_reference_frames: 1,
            max_unit_bytes: 4 << 20,
        });
        let (mut took, mut sizes) = ([const { Vec::new() }; 3], [0; 3]);
        for round in 0..ROUNDS {
            for picture in 0..PICTURES {
                for turn in 0..3 {
                    let turn = if round % 2 == 0 { turn } else { 2 - turn };
                    let way = (picture + turn) % 3;
                    let time =
                        processor_ms(|| sizes[way] += bench.code(Way::ALL[way], round, picture));
                    took[way].push(time);
                }
            }
        }
        // The room leaves out what libx264 says of itself, once.
        let said = sizes[1] - sizes[0];
        assert!(sizes[1] == sizes[2] && said < MAX_SAID_BYTES, "other work: {sizes:?}");
        let [room, direct, alone] = took.map(median);
        Self { room, direct, alone }
    }

    /// What the room adds to what anybody's use of libx264 costs, as a part of that.
    fn overhead(&self) -> f64 {
        self.room / self.direct - 1.0
    }

    fn json(&self) -> String {
        format!(
            "{{\"room_ms\": {:.3}, \"direct_ms\": {:.3}, \"libx264_ms\": {:.3}, \
             \"overhead_percent\": {:.1}, \"conversion_and_room_percent\": {:.1}}}",
            self.room,
            self.direct,
            self.alone,
            self.overhead() * 100.0,
            (self.room / self.alone - 1.0) * 100.0
        )
    }
}

/// A way from a picture to coded bytes.
#[derive(Clone, Copy)]
enum Way {
    Room,
    Direct,
    Alone,
}

impl Way {
    const ALL: [Self; 3] = [Self::Room, Self::Direct, Self::Alone];
}

/// The three encoders and what they are given.
struct Bench {
    frames: Vec<CapturedFrame>,
    converted: Vec<Picture>,
    colour: ColourSpace,
    room: X264,
    direct: Coder,
    picture: Picture,
    alone: Coder,
}

impl Bench {
    fn new(spec: EncodeSpec) -> Self {
        let frames = test_card(spec.mode);
        let coder = || Coder::open(&settings(&spec).unwrap()).unwrap();
        Self {
            converted: frames.iter().map(|frame| convert(&spec, frame)).collect(),
            frames,
            colour: spec.colour,
            room: X264::open(&spec).unwrap(),
            direct: coder(),
            picture: Picture::new(spec.mode),
            alone: coder(),
        }
    }

    /// Codes a picture and returns how many bytes it became.
    fn code(&mut self, way: Way, round: usize, number: usize) -> usize {
        let idr = (round, number) == (0, 0);
        match way {
            Way::Room => {
                let frame = &self.frames[number];
                let unit = self.room.encode(frame, PictureRequest::default()).unwrap();
                let bytes = unit.bytes.len();
                self.room.recycle(unit.bytes);
                bytes
            }
            Way::Direct => {
                self.picture.fill(&self.frames[number], self.colour).unwrap();
                self.direct.code(&self.picture.planes(), idr).unwrap().unwrap().len()
            }
            Way::Alone => {
                self.alone.code(&self.converted[number].planes(), idr).unwrap().unwrap().len()
            }
        }
    }
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
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

/// A picture as the encoder reads it.
fn convert(spec: &EncodeSpec, frame: &CapturedFrame) -> Picture {
    let mut picture = Picture::new(spec.mode);
    picture.fill(frame, spec.colour).unwrap();
    picture
}
