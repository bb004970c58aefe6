//! The test card: a picture that shows, to people and to programs, what a stream does to it.
//!
//! People see the exact edges (black and white blocks all around), colours, greys, resolution (stars and gratings), a
//! marker that runs evenly over the whole width, the number and time of each frame, and the last input that arrived.
//! Programs read the strip of cells ([`read_code`]). Sound and picture are in step when the box in the middle flashes,
//! the marker crosses the middle and the tone beeps at once: at every whole second of the card's time, for 50 ms.
//!
//! What never changes is drawn once per size; a frame is a copy of it with the moving parts on top.
//!
//! Deliberately absent: reading a clock. The caller says what time it is, so a frame can be drawn again.

mod canvas;
mod code;
mod layout;
mod text;

use punktfunk_core::media::Mode;
use punktfunk_core::time::Timestamp;

use self::canvas::{Canvas, Colour};
pub use self::code::{CardCode, has_code, read_code, read_code_luma};
use self::layout::Layout;
use self::text::Font;
use crate::capture::Rect;

/// How long the box flashes and the tone beeps from each whole second on, in microseconds.
pub const FLASH_MICROS: u64 = 50_000;

/// Whether picture and tone mark a whole second at this moment.
pub const fn is_flash(time: Timestamp) -> bool {
    time.as_micros() % SECOND_MICROS < FLASH_MICROS
}

/// What one frame of the card shows.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    /// The number of the frame and its time.
    pub code: CardCode,
    /// Where the pointer is, in pixels.
    pub pointer: Option<(u32, u32)>,
    /// A pointer button is down.
    pub pressed: bool,
    /// The last input, in words.
    pub input: &'a str,
}

/// The card at one size.
#[derive(Debug)]
pub struct TestCard {
    width: u32,
    height: u32,
    layout: Layout,
    background: Vec<u8>,
    digits: Font,
    clock: Font,
    small: Font,
    /// What the previous frame drew over the background.
    moving: Vec<Rect>,
}

impl TestCard {
    /// A card for `mode`; draws everything that does not move.
    pub fn new(mode: Mode) -> Self {
        let (width, height) = (mode.width(), mode.height());
        let layout = Layout::new(width, height);
        let stride = width as usize * 4;
        let mut background = vec![0; stride * height as usize];
        let mut canvas = Canvas::new(&mut background, width, height, stride);
        draw_ground(&mut canvas, width, height, layout.unit);
        if layout.legible {
            draw_heading(&mut canvas, &layout, mode);
            draw_colours(&mut canvas, &layout);
            for side in layout.sides {
                draw_resolution(&mut canvas, side);
            }
            draw_panels(&mut canvas, &layout);
        }
        let value = |panel: Rect| panel.height.saturating_sub(label_height(panel)) * 9 / 10;
        Self {
            digits: Font::fitting(value(layout.frame), layout.frame.width * 19 / 20, 8),
            clock: Font::fitting(value(layout.time), layout.time.width * 19 / 20, 12),
            small: Font::new(layout.status.height * 8 / 10),
            width,
            height,
            layout,
            background,
            moving: Vec::new(),
        }
    }

    /// Bytes from one row to the next.
    pub fn stride(&self) -> usize {
        self.width as usize * 4
    }

    /// Bytes of a picture.
    pub fn bytes(&self) -> usize {
        self.background.len()
    }

    /// Draws one frame into `pixels`, which has [`TestCard::bytes`] bytes. Returns what may differ from the frame
    /// that was drawn before.
    pub fn draw(&mut self, pixels: &mut [u8], scene: &Scene<'_>) -> Vec<Rect> {
        pixels.copy_from_slice(&self.background);
        let mut canvas = Canvas::new(pixels, self.width, self.height, self.width as usize * 4);
        let mut moving = Vec::with_capacity(16);
        if self.layout.legible {
            self.draw_numbers(&mut canvas, scene.code, &mut moving);
            self.draw_lane(&mut canvas, scene.code.time, &mut moving);
            self.draw_status(&mut canvas, scene, &mut moving);
        }
        if let Some(pointer) = scene.pointer {
            self.draw_pointer(&mut canvas, pointer, scene.pressed, &mut moving);
        }
        // Last, so that the pointer cannot cover what programs read.
        if let Some(code) = self.layout.code {
            code::write(&mut canvas, code, scene.code);
            moving.push(code.with_border());
        }
        moving.retain(|rect| rect.width > 0 && rect.height > 0);
        let mut damage = std::mem::replace(&mut self.moving, moving);
        for rect in &self.moving {
            if !damage.contains(rect) {
                damage.push(*rect);
            }
        }
        damage
    }

    fn draw_numbers(&mut self, canvas: &mut Canvas<'_>, code: CardCode, moving: &mut Vec<Rect>) {
        let micros = code.time.as_micros();
        let (millis, seconds) = (micros / 1000 % 1000, micros / SECOND_MICROS);
        let (minutes, hours) = (seconds / 60, seconds / 3600 % 100);
        let time = format!("{hours:02}:{:02}:{:02}.{millis:03}", minutes % 60, seconds % 60);
        let frame = format!("{:08}", code.frame % 100_000_000);
        for (panel, font, text, colour) in [
            (self.layout.frame, &mut self.digits, frame, AMBER),
            (self.layout.time, &mut self.clock, time, TEXT),
        ] {
            let label = label_height(panel);
            let room = Rect { y: panel.y + label, height: panel.height - label, ..panel };
            draw_centred(canvas, font, room, &text, colour);
            moving.push(room);
        }
        if is_flash(code.time) {
            canvas.fill(self.layout.flash, FLASH);
            moving.push(self.layout.flash);
        }
    }

    /// The marker goes to and fro in two seconds, so it crosses the middle at every whole second.
    fn draw_lane(&mut self, canvas: &mut Canvas<'_>, time: Timestamp, moving: &mut Vec<Rect>) {
        let lane = self.layout.lane;
        let width = (self.layout.unit / 2).max(4) & !1;
        let way = u64::from(lane.width.saturating_sub(width));
        let phase = (time.as_micros() + SECOND_MICROS / 2) % (2 * SECOND_MICROS);
        let there = if phase < SECOND_MICROS { phase } else { 2 * SECOND_MICROS - phase };
        let x = lane.x + (way * there / SECOND_MICROS) as u32;
        let colour = if is_flash(time) { FLASH } else { AMBER };
        canvas.fill(Rect { x, width, ..lane }, colour);
        moving.push(lane);
    }

    fn draw_status(&mut self, canvas: &mut Canvas<'_>, scene: &Scene<'_>, moving: &mut Vec<Rect>) {
        let status = self.layout.status;
        let letters = status.width / self.small.width_of("0").max(1);
        let room = letters.saturating_sub(STATUS_LABEL.len() as u32 + 2) as usize;
        let text: String = scene.input.chars().take(room).collect();
        let x =
            status.x + status.width.saturating_sub(self.small.width_of(&text) + status.height / 3);
        let y = status.y + status.height.saturating_sub(self.small.height()) / 2;
        self.small.draw(canvas, x, y, &text, TEAL);
        moving.push(status);
    }

    fn draw_pointer(
        &self,
        canvas: &mut Canvas<'_>,
        (x, y): (u32, u32),
        pressed: bool,
        moving: &mut Vec<Rect>,
    ) {
        let arm = self.layout.unit;
        let thin = (self.layout.unit / 8).max(2);
        let colour = if pressed { Colour::rgb(255, 64, 64) } else { AMBER };
        for (grow, colour) in [(thin, PANEL), (0, colour)] {
            let (long, wide) = (arm + grow, thin / 2 + grow);
            let across = centred(x, y, long, wide);
            let upright = centred(x, y, wide, long);
            canvas.fill(across, colour);
            canvas.fill(upright, colour);
            if grow > 0 {
                moving.extend([across, upright]);
            }
        }
    }
}

/// The rectangle that reaches this far around a pixel, cut off at the upper and left edge.
fn centred(x: u32, y: u32, across: u32, down: u32) -> Rect {
    let (left, top) = (x.saturating_sub(across), y.saturating_sub(down));
    Rect { x: left, y: top, width: x + across + 1 - left, height: y + down + 1 - top }
}

fn draw_centred(canvas: &mut Canvas<'_>, font: &mut Font, room: Rect, text: &str, colour: Colour) {
    let x = room.x + room.width.saturating_sub(font.width_of(text)) / 2;
    let y = room.y + room.height.saturating_sub(font.height()) / 2;
    font.draw(canvas, x, y, text, colour);
}

/// The ground: a grid from the middle outwards, and blocks along the edges whose outermost pixels are the picture's.
fn draw_ground(canvas: &mut Canvas<'_>, width: u32, height: u32, unit: u32) {
    canvas.fill(Rect { x: 0, y: 0, width, height }, GROUND);
    let (step, thin) = (3 * unit, (unit / 16).max(1));
    for x in ((width / 2) % step..width).step_by(step as usize) {
        canvas.fill(Rect { x, y: 0, width: thin, height }, GRID);
    }
    for y in ((height / 2) % step..height).step_by(step as usize) {
        canvas.fill(Rect { x: 0, y, width, height: thin }, GRID);
    }
    let blocks = |length: u32| (0..length.div_ceil(2 * unit)).map(move |block| block * 2 * unit);
    let (right, bottom) = (width.saturating_sub(unit), height.saturating_sub(unit));
    canvas.outline(Rect { x: 0, y: 0, width, height }, unit, EDGE_DARK);
    for x in blocks(width) {
        for y in [0, bottom] {
            canvas.fill(Rect { x, y, width: unit, height: unit }, EDGE_LIGHT);
        }
    }
    for y in blocks(height) {
        for x in [0, right] {
            canvas.fill(Rect { x, y, width: unit, height: unit }, EDGE_LIGHT);
        }
    }
    for (x, y) in [(0, 0), (right, 0), (0, bottom), (right, bottom)] {
        canvas.fill(Rect { x, y, width: unit, height: unit }, TEAL);
    }
}

fn draw_heading(canvas: &mut Canvas<'_>, layout: &Layout, mode: Mode) {
    let title = layout.title;
    let mut font = Font::fitting(title.height, title.width, 10);
    let y = title.y + title.height.saturating_sub(font.height()) / 2;
    font.draw(canvas, title.x, y, "punkt", TEXT);
    font.draw(canvas, title.x + font.width_of("punkt"), y, "funk", AMBER);

    let words = mode_words(mode);
    let letters = u32::try_from(words.len()).unwrap_or(u32::MAX);
    let Rect { x, y, width, height } = layout.mode;
    let mut font = Font::fitting(height / 2, width, letters.max(9));
    let top = y + (height / 2).saturating_sub(font.height());
    for (text, y, colour) in [("TEST CARD", top, TEXT), (&words, y + height / 2, TEXT)] {
        let x = x + width.saturating_sub(font.width_of(text));
        font.draw(canvas, x, y, text, colour);
    }
}

/// `1280x720 59.94 Hz`
fn mode_words(mode: Mode) -> String {
    let (hz, millihz) = (mode.refresh_millihz() / 1000, mode.refresh_millihz() % 1000);
    let fraction = format!(".{millihz:03}");
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    format!("{}x{} {hz}{fraction} Hz", mode.width(), mode.height())
}

/// Colour bars at three quarters of full strength, and a ramp of greys from black to white.
fn draw_colours(canvas: &mut Canvas<'_>, layout: &Layout) {
    let steps = |rect: Rect, count: u32| {
        (0..count).map(move |step| {
            let (from, to) = (rect.width * step / count, rect.width * (step + 1) / count);
            Rect { x: rect.x + from, width: to - from, ..rect }
        })
    };
    for (bar, colour) in steps(layout.bars, 8).zip(BARS) {
        canvas.fill(bar, colour);
    }
    for (place, step) in (0_u8..16).zip(steps(layout.ramp, 16)) {
        canvas.fill(step, Colour::grey(place * 17));
    }
}

/// A star of 36 rays, and below it gratings of 2, 4, 6 and 8 pixels, upright and lying.
fn draw_resolution(canvas: &mut Canvas<'_>, side: Rect) {
    let size = side.width.min(side.height / 2) & !1;
    if size < 16 {
        return;
    }
    let radius = size as f32 / 2.0;
    let star = Rect { x: side.x + (side.width - size) / 2, width: size, height: size, ..side };
    canvas.sample(star, PANEL, |x, y| (x - radius).hypot(y - radius) <= radius);
    canvas.sample(star, EDGE_LIGHT, |x, y| {
        let (across, down) = (x - radius, y - radius);
        let ray = (down.atan2(across) * 36.0 / std::f32::consts::TAU).rem_euclid(1.0) < 0.5;
        across.hypot(down) <= radius - 1.5 && ray
    });
    let below = Rect { y: side.y + size + size / 8, ..side };
    let bottom = side.y + side.height;
    let height = bottom.saturating_sub(below.y) / 4;
    for (row, period) in (0_u32..).zip([8, 6, 4, 2]) {
        let field = Rect { y: below.y + row * height, height: height * 7 / 8, ..below };
        let half = field.width / 2;
        canvas.fill(field, PANEL);
        for x in (0..half.saturating_sub(period)).step_by(period as usize) {
            canvas.fill(Rect { x: field.x + x, width: period / 2, ..field }, EDGE_LIGHT);
        }
        for y in (0..field.height.saturating_sub(period / 2)).step_by(period as usize) {
            let right = Rect { x: field.x + half, width: field.width - half, ..field };
            canvas.fill(Rect { y: field.y + y, height: period / 2, ..right }, EDGE_LIGHT);
        }
    }
}

/// The dark fields that the moving parts appear on.
fn draw_panels(canvas: &mut Canvas<'_>, layout: &Layout) {
    for (panel, label) in [(layout.frame, "FRAME"), (layout.flash, "A/V"), (layout.time, "TIME")] {
        canvas.fill(panel, PANEL);
        let label_room = Rect { height: label_height(layout.frame), ..panel };
        let mut font = Font::fitting(label_room.height * 9 / 10, panel.width, 6);
        draw_centred(canvas, &mut font, label_room, label, LABEL);
    }
    let thin = (layout.unit / 8).max(2);
    canvas.outline(layout.flash, thin, AMBER);

    let (status, lane) = (layout.status, layout.lane);
    canvas.fill(Rect { height: status.height + lane.height, ..status }, PANEL);
    let mut font = Font::new(status.height * 8 / 10);
    let y = status.y + status.height.saturating_sub(font.height()) / 2;
    font.draw(canvas, status.x + status.height / 3, y, STATUS_LABEL, LABEL);
    let middle = lane.x + lane.width / 2;
    for tick in 0..=20_u32 {
        let x = lane.x + lane.width.saturating_sub(thin) * tick / 20;
        let height = if tick % 5 == 0 { lane.height / 2 } else { lane.height / 4 };
        canvas.fill(Rect { x, y: lane.y + lane.height - height, width: thin, height }, LABEL);
    }
    canvas.fill(Rect { x: middle - middle.min(thin / 2), width: thin, ..lane }, TEAL);
}

/// The height of the line that says what a panel shows.
fn label_height(panel: Rect) -> u32 {
    (panel.height / 4).min(panel.width / 8).max(14).min(panel.height / 2)
}

const STATUS_LABEL: &str = "MOTION";
const SECOND_MICROS: u64 = 1_000_000;
const GROUND: Colour = Colour::rgb(90, 103, 132);
const GRID: Colour = Colour::rgb(116, 130, 160);
const PANEL: Colour = Colour::rgb(24, 29, 42);
const EDGE_DARK: Colour = Colour::rgb(16, 16, 16);
const EDGE_LIGHT: Colour = Colour::rgb(235, 235, 235);
const TEXT: Colour = Colour::rgb(244, 246, 250);
const LABEL: Colour = Colour::rgb(138, 150, 178);
const AMBER: Colour = Colour::rgb(255, 200, 87);
const TEAL: Colour = Colour::rgb(64, 224, 208);
const FLASH: Colour = Colour::rgb(255, 255, 255);
const BARS: [Colour; 8] = [
    Colour::rgb(235, 235, 235),
    Colour::rgb(191, 191, 0),
    Colour::rgb(0, 191, 191),
    Colour::rgb(0, 191, 0),
    Colour::rgb(191, 0, 191),
    Colour::rgb(191, 0, 0),
    Colour::rgb(0, 0, 191),
    Colour::rgb(16, 16, 16),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scene(frame: u32, micros: u64) -> Scene<'static> {
        let code = CardCode { frame, time: Timestamp::from_micros(micros) };
        Scene { code, pointer: Some((5, 5)), pressed: false, input: "KEY A" }
    }

    fn drawn(width: u32, height: u32, scene: &Scene<'_>) -> (TestCard, Vec<u8>) {
        let mut card = TestCard::new(Mode::new(width, height, 60_000).unwrap());
        let mut pixels = vec![0; card.bytes()];
        card.draw(&mut pixels, scene);
        (card, pixels)
    }

    #[test]
    fn the_code_of_a_drawn_card_reads_back() {
        let sizes = [(1280, 720), (1920, 1080), (640, 360), (960, 544), (480, 854), (320, 240)];
        for (width, height) in sizes {
            // A pointer in the middle of the strip must not hide it.
            let y = code::Geometry::new(width, height).unwrap().y;
            let pointer = Some((width / 2, y + 20));
            let scene = Scene { pointer, ..scene(0xDEAD_BEEF, 1_234_567_890_123) };
            let (card, pixels) = drawn(width, height, &scene);
            assert_eq!(read_code(&pixels, width, height, card.stride()), Some(scene.code));
        }
    }

    #[test]
    fn the_card_is_bright_on_average() {
        for (width, height) in [(1280, 720), (1920, 1080), (640, 360), (960, 544), (1126, 2436)] {
            let (_, pixels) = drawn(width, height, &scene(1, 500_000));
            let sum: u64 = pixels
                .chunks_exact(4)
                .map(|it| it[..3].iter().map(|b| u64::from(*b)).sum::<u64>())
                .sum();
            let mean = sum / (u64::from(width * height) * 3);
            assert!((60..180).contains(&mean), "{width}x{height}: {mean}");
        }
    }

    #[test]
    fn the_box_flashes_for_fifty_milliseconds_of_each_second() {
        let middle = |micros| {
            let (card, pixels) = drawn(1280, 720, &scene(1, micros));
            let flash = card.layout.flash;
            let at = (flash.y + flash.height / 2) as usize * card.stride();
            pixels[at + (flash.x + flash.width / 2) as usize * 4]
        };
        for second in [0, 7_000_000] {
            assert_eq!([0, 49_999].map(|micros| middle(second + micros)), [255, 255]);
            assert!(
                [50_000, 999_999].map(|micros| middle(second + micros)).iter().all(|it| *it < 60)
            );
        }
    }

    #[test]
    fn the_marker_crosses_the_middle_at_each_whole_second() {
        for second in 0..4 {
            let (card, pixels) = drawn(1280, 720, &scene(1, second * 1_000_000));
            let row = (card.layout.lane.y + 1) as usize * card.stride();
            let white = |x: usize| pixels[row + x * 4..row + x * 4 + 3] == [255; 3];
            let marked: Vec<usize> = (0..1280).filter(|x| white(*x)).collect();
            assert!(marked.contains(&640) && marked.len() < 20, "{marked:?}");
        }
    }

    #[test]
    fn everything_that_changes_is_damage() {
        let mut card = TestCard::new(Mode::new(640, 360, 60_000).unwrap());
        let (mut before, mut after) = (vec![0; card.bytes()], vec![0; card.bytes()]);
        card.draw(&mut before, &scene(1, 990_000));
        let damage =
            card.draw(&mut after, &Scene { pointer: Some((300, 200)), ..scene(2, 1_006_667) });
        for (place, (old, new)) in (0_u32..).zip(before.chunks_exact(4).zip(after.chunks_exact(4)))
        {
            let (x, y) = (place % 640, place / 640);
            let covered = damage.iter().any(|rect| {
                (rect.x..rect.x + rect.width).contains(&x)
                    && (rect.y..rect.y + rect.height).contains(&y)
            });
            assert!(covered || old == new, "pixel {x},{y} changed");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_size_can_be_drawn(
            width in 16_u32..1500, height in 16_u32..1500, micros in any::<u64>(), x in any::<u16>(),
        ) {
            let mode = Mode::new(width, height, 59_940).unwrap();
            let mut card = TestCard::new(mode);
            let mut pixels = vec![0; card.bytes()];
            let scene = Scene { pointer: Some((u32::from(x), u32::from(x))), ..scene(9, micros) };
            card.draw(&mut pixels, &scene);
        }
    }
}
