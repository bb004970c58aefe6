//! The strip of cells that a program reads: which frame this is and when it was captured.
//!
//! The strip survives a lossy codec because a cell is at least 16x16 pixels, black or white, and only the middle of a
//! cell is read. All numbers below are pixels of a picture of `w` x `h`:
//!
//! ```text
//! c    = max(16, min(w / 80, h / 45) rounded down to even)     side of a cell
//! cols = 32 if w >= 34 c, else 16 if w >= 18 c, else no strip
//! rows = 128 / cols                                            no strip either if h < (rows + 4) c
//! x0   = (w - cols c) / 2 rounded down to even                 left edge of the first cell
//! y0   = (h - (rows + 2) c) rounded down to even               top edge of the first cell
//! bit i (0..128) lies at column i % cols, row i / cols; white (235) is 1, black (16) is 0
//! bits 0..16 sync 0xACE1 | 16..48 frame u32 | 48..112 time u64 | 112..128 CRC
//! ```
//!
//! Divisions round down; each number comes with its most significant bit first. The time is in microseconds of the
//! host's `CLOCK_MONOTONIC`. The CRC is CRC-16/CCITT-FALSE (polynomial 0x1021, initial value 0xFFFF) over the
//! twelve bytes of frame and time, big endian. A dark border of one cell surrounds the strip.

use punktfunk_core::time::Timestamp;

use super::canvas::{Canvas, Colour};
use crate::capture::Rect;

/// What a strip says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CardCode {
    /// The picture's number, the low 32 bits of its source index.
    pub frame: u32,
    /// When it was captured.
    pub time: Timestamp,
}

impl CardCode {
    fn bits(self) -> u128 {
        let time = self.time.as_micros();
        let payload = u128::from(self.frame) << 64 | u128::from(time);
        u128::from(SYNC) << 112 | payload << 16 | u128::from(crc(self.frame, time))
    }

    fn from_bits(bits: u128) -> Option<Self> {
        let (frame, time) = ((bits >> 80) as u32, (bits >> 16) as u64);
        let intact = (bits >> 112) as u16 == SYNC && bits as u16 == crc(frame, time);
        intact.then_some(Self { frame, time: Timestamp::from_micros(time) })
    }
}

/// Where the strip is in a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) cell: u32,
    pub(super) columns: u32,
    pub(super) x: u32,
    pub(super) y: u32,
}

impl Geometry {
    /// The place of the strip; `None` if the picture has no room for it.
    pub(super) fn new(width: u32, height: u32) -> Option<Self> {
        let cell = cell(width, height);
        let columns = if width >= 34 * cell {
            32
        } else if width >= 18 * cell {
            16
        } else {
            return None;
        };
        let rows = BITS / columns;
        if height < (rows + 4) * cell {
            return None;
        }
        let x = ((width - columns * cell) / 2) & !1;
        let y = (height - (rows + 2) * cell) & !1;
        Some(Self { cell, columns, x, y })
    }

    /// The strip with its quiet border.
    pub(super) fn with_border(self) -> Rect {
        let rows = BITS / self.columns;
        Rect {
            x: self.x - self.cell,
            y: self.y - self.cell,
            width: (self.columns + 2) * self.cell,
            height: (rows + 2) * self.cell,
        }
    }

    fn cell_at(self, bit: u32) -> Rect {
        Rect {
            x: self.x + bit % self.columns * self.cell,
            y: self.y + bit / self.columns * self.cell,
            width: self.cell,
            height: self.cell,
        }
    }
}

/// The side of a cell, which is also the unit of the whole card.
pub(super) fn cell(width: u32, height: u32) -> u32 {
    ((width / 80).min(height / 45) & !1).max(16)
}

/// Draws the strip, border included.
pub(super) fn write(canvas: &mut Canvas<'_>, geometry: Geometry, code: CardCode) {
    canvas.fill(geometry.with_border(), BLACK);
    let bits = code.bits();
    // Neighbours of one colour are one rectangle; about half of the cells are black already.
    for bit in 0..BITS {
        if bits >> (BITS - 1 - bit) & 1 == 1 {
            canvas.fill(geometry.cell_at(bit), WHITE);
        }
    }
}

/// Whether a picture of this size has room for a strip.
pub fn has_code(width: u32, height: u32) -> bool {
    Geometry::new(width, height).is_some()
}

/// Reads the strip of a picture in [`PixelFormat::Bgrx`](crate::capture::PixelFormat::Bgrx), `stride` bytes from row to
/// row. `None` if there is no strip, or if it cannot be read without doubt.
pub fn read_code(pixels: &[u8], width: u32, height: u32, stride: usize) -> Option<CardCode> {
    read::<4>(pixels, width, height, stride, |[blue, green, red, _]| {
        (29 * u32::from(blue) + 150 * u32::from(green) + 77 * u32::from(red)) >> 8
    })
}

/// Reads the strip from the luma plane of a decoded picture, one byte for each pixel; else as [`read_code`].
pub fn read_code_luma(luma: &[u8], width: u32, height: u32, stride: usize) -> Option<CardCode> {
    read::<1>(luma, width, height, stride, |[luma]| u32::from(luma))
}

/// Reads the strip of a picture whose pixels have `N` bytes each.
fn read<const N: usize>(
    pixels: &[u8],
    width: u32,
    height: u32,
    stride: usize,
    luma: impl Fn([u8; N]) -> u32,
) -> Option<CardCode> {
    let geometry = Geometry::new(width, height)?;
    let rows_bytes = stride.checked_mul(height as usize)?;
    if stride < width as usize * N || pixels.len() < rows_bytes {
        return None;
    }
    let luma: Vec<u32> =
        (0..BITS).map(|bit| middle_luma(pixels, stride, geometry.cell_at(bit), &luma)).collect();
    // The sync word is known, so it tells what black and white have become on the way.
    let mean = |wanted: u16| {
        let cells = (0..16).filter(|bit| SYNC >> (15 - bit) & 1 == wanted);
        cells.map(|bit| luma[bit]).sum::<u32>() / 8
    };
    let (black, white) = (mean(0), mean(1));
    if white < black + MIN_CONTRAST {
        return None;
    }
    let threshold = (black + white) / 2;
    CardCode::from_bits(luma.iter().fold(0, |bits, luma| bits << 1 | u128::from(*luma > threshold)))
}

/// The mean luma of the middle quarter of a cell.
fn middle_luma<const N: usize>(
    pixels: &[u8],
    stride: usize,
    cell: Rect,
    luma: impl Fn([u8; N]) -> u32,
) -> u32 {
    let (from, side) = (cell.width / 4, cell.width / 2);
    let mut sum = 0;
    for y in cell.y + from..cell.y + from + side {
        let start = y as usize * stride + (cell.x + from) as usize * N;
        let (row, _) = pixels[start..start + side as usize * N].as_chunks::<N>();
        sum += row.iter().map(|pixel| luma(*pixel)).sum::<u32>();
    }
    sum / (side * side)
}

fn crc(frame: u32, time: u64) -> u16 {
    crc16(frame.to_be_bytes().into_iter().chain(time.to_be_bytes()))
}

/// CRC-16/CCITT-FALSE.
fn crc16(bytes: impl Iterator<Item = u8>) -> u16 {
    bytes.fold(0xFFFF, |crc, byte| {
        (0..8).fold(crc ^ u16::from(byte) << 8, |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x1021 }
        })
    })
}

const BITS: u32 = 128;
/// Eight ones and eight zeros.
const SYNC: u16 = 0xACE1;
const BLACK: Colour = Colour::rgb(16, 16, 16);
const WHITE: Colour = Colour::rgb(235, 235, 235);
/// Black and white must differ by this much luma; a codec at its worst leaves far more.
const MIN_CONTRAST: u32 = 48;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn picture(width: u32, height: u32, code: CardCode) -> Vec<u8> {
        let stride = width as usize * 4;
        let mut pixels = vec![128; stride * height as usize];
        let mut canvas = Canvas::new(&mut pixels, width, height, stride);
        write(&mut canvas, Geometry::new(width, height).unwrap(), code);
        pixels
    }

    #[test]
    fn the_geometry_is_the_documented_one() {
        let check = |width, height, expected: Option<(u32, u32, u32, u32)>| {
            let got = Geometry::new(width, height).map(|it| (it.cell, it.columns, it.x, it.y));
            assert_eq!(got, expected, "{width}x{height}");
            assert_eq!(has_code(width, height), expected.is_some(), "{width}x{height}");
        };
        check(1280, 720, Some((16, 32, 384, 624)));
        check(1920, 1080, Some((24, 32, 576, 936)));
        check(640, 360, Some((16, 32, 64, 264)));
        check(480, 854, Some((16, 16, 112, 694)));
        check(1126, 2436, Some((16, 32, 306, 2340)));
        check(280, 720, None);
        check(1280, 120, None);
        check(16, 16, None);
    }

    #[test]
    fn the_crc_is_the_named_one() {
        assert_eq!(crc16(b"123456789".iter().copied()), 0x29B1);
    }

    #[test]
    fn one_wrong_cell_is_noticed() {
        let code = CardCode { frame: 7, time: Timestamp::from_micros(1) };
        let geometry = Geometry::new(640, 360).unwrap();
        for bit in 0..BITS {
            let mut pixels = picture(640, 360, code);
            let colour = if code.bits() >> (BITS - 1 - bit) & 1 == 1 { BLACK } else { WHITE };
            Canvas::new(&mut pixels, 640, 360, 2560).fill(geometry.cell_at(bit), colour);
            assert_eq!(read_code(&pixels, 640, 360, 2560), None, "cell {bit}");
        }
    }

    #[test]
    fn short_or_strange_pictures_have_no_code() {
        assert_eq!(read_code(&[], 640, 360, 2560), None);
        assert_eq!(read_code(&[0; 100], 640, 360, usize::MAX), None);
        assert_eq!(read_code(&vec![128; 2560 * 360], 640, 360, 2560), None);
        assert_eq!(read_code(&vec![128; 2560 * 360], 640, 360, 4), None);
    }

    #[test]
    fn a_luma_plane_says_the_same() {
        let code = CardCode { frame: 0xdead_beef, time: Timestamp::from_micros(123_456_789) };
        let pixels = picture(640, 360, code);
        // Rows of a decoded picture are longer than the picture is wide.
        let mut luma = vec![0; 704 * 360];
        for (row, pixels) in luma.chunks_mut(704).zip(pixels.chunks(2560)) {
            for (luma, pixel) in row.iter_mut().zip(pixels.chunks(4)) {
                *luma = pixel[1];
            }
        }
        assert_eq!(read_code_luma(&luma, 640, 360, 704), Some(code));
        assert_eq!(read_code_luma(&luma[1..], 640, 360, 704), None, "too short");
        assert_eq!(read_code_luma(&luma, 640, 360, 639), None);
    }

    proptest! {
        #[test]
        fn a_code_survives_noise(
            frame in any::<u32>(), micros in any::<u64>(), seed in any::<u64>(),
            (width, height) in prop_oneof![Just((640, 360)), Just((480, 854)), Just((960, 544))],
        ) {
            let code = CardCode { frame, time: Timestamp::from_micros(micros) };
            let mut pixels = picture(width, height, code);
            let mut state = seed | 1;
            for byte in &mut pixels {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Up to 60 of 255 either way, and half of the contrast gone.
                let noise = (state >> 57) as i32 - 64;
                *byte = (64 + i32::from(*byte) / 2 + noise * 60 / 64).clamp(0, 255) as u8;
            }
            prop_assert_eq!(read_code(&pixels, width, height, width as usize * 4), Some(code));
        }
    }
}
