//! Smooth letters of any height out of a bitmap font.
//!
//! The 10x20 font of `embedded-graphics` is enlarged three times by the rule of Scale2x, which rounds stairs into
//! diagonals; a blur and a cut even out what is left of them. That is sampled down to the wanted height.
//! Each letter is made once and kept as coverage.

use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::ascii::FONT_10X20;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::prelude::*;
use embedded_graphics::text::{Baseline, Text};

use super::canvas::{Canvas, Colour};

/// A font of one height.
#[derive(Debug)]
pub(super) struct Font {
    width: u32,
    height: u32,
    letters: Vec<Option<Vec<u8>>>,
}

impl Font {
    /// A font whose letters are `height` pixels high, and half of it wide.
    pub(super) fn new(height: u32) -> Self {
        let height = height.max(8);
        Self { width: height / 2, height, letters: vec![None; LETTERS] }
    }

    /// The largest font up to `height` that fits `letters` letters into `width` pixels.
    pub(super) fn fitting(height: u32, width: u32, letters: u32) -> Self {
        Self::new(height.min(width * 2 / letters.max(1)) & !1)
    }

    pub(super) fn height(&self) -> u32 {
        self.height
    }

    /// The width of a text in pixels.
    pub(super) fn width_of(&self, text: &str) -> u32 {
        self.width * u32::try_from(text.chars().count()).unwrap_or(0)
    }

    /// Draws a line of text with its upper left corner at `(x, y)`; letters that are not ASCII become `?`.
    pub(super) fn draw(
        &mut self,
        canvas: &mut Canvas<'_>,
        x: u32,
        y: u32,
        text: &str,
        colour: Colour,
    ) {
        let (width, height) = (self.width, self.height);
        for (place, letter) in (0..).zip(text.chars()) {
            let letter = if (' '..='~').contains(&letter) { letter } else { '?' };
            let index = letter as usize - FIRST as usize;
            let cover = self.letters[index].get_or_insert_with(|| render(letter, width, height));
            for (row, cover) in (0..).zip(cover.chunks_exact(width as usize)) {
                canvas.blend_row(x + place * width, y + row, colour, cover);
            }
        }
    }
}

/// The coverage of one letter.
fn render(letter: char, width: u32, height: u32) -> Vec<u8> {
    let mut bitmap = Bitmap::of(letter);
    for _ in 0..3 {
        bitmap = bitmap.doubled();
    }
    let bitmap = bitmap.smoothed();
    let sample =
        |at: u32, of: u32, source: usize| (2 * at + 1) as usize * source / (2 * of) as usize;
    let mut cover = Vec::with_capacity((width * height) as usize);
    for y in 0..height {
        for x in 0..width {
            let hits = (0..16).filter(|part| {
                let column = sample(4 * x + part % 4, 4 * width, bitmap.width);
                let row = sample(4 * y + part / 4, 4 * height, bitmap.height);
                bitmap.ink[row * bitmap.width + column]
            });
            cover.push((hits.count() * 255 / 16) as u8);
        }
    }
    cover
}

/// A picture of ink and paper.
#[derive(Debug)]
struct Bitmap {
    width: usize,
    height: usize,
    ink: Vec<bool>,
}

impl Bitmap {
    fn of(letter: char) -> Self {
        let (width, height) = (10, 20);
        let mut bitmap = Self { width, height, ink: vec![false; width * height] };
        let style = MonoTextStyle::new(&FONT_10X20, BinaryColor::On);
        let mut bytes = [0; 4];
        let text = letter.encode_utf8(&mut bytes);
        let Ok(_) =
            Text::with_baseline(text, Point::zero(), style, Baseline::Top).draw(&mut bitmap);
        bitmap
    }

    /// Twice as large by Scale2x: a corner takes the colour of its two neighbours where these agree and the two
    /// opposite ones do not.
    fn doubled(&self) -> Self {
        let (width, height) = (self.width, self.height);
        let at = |x: usize, y: usize| self.ink[y.min(height - 1) * width + x.min(width - 1)];
        let mut ink = vec![false; 4 * width * height];
        for y in 0..height {
            for x in 0..width {
                let here = at(x, y);
                let (up, down) = (at(x, y.saturating_sub(1)), at(x, y + 1));
                let (left, right) = (at(x.saturating_sub(1), y), at(x + 1, y));
                let corner = |a: bool, b: bool, far_a: bool, far_b: bool| {
                    if a == b && a != far_b && b != far_a { a } else { here }
                };
                let first = 4 * y * width + 2 * x;
                ink[first] = corner(left, up, right, down);
                ink[first + 1] = corner(up, right, down, left);
                ink[first + 2 * width] = corner(down, left, up, right);
                ink[first + 2 * width + 1] = corner(right, down, left, up);
            }
        }
        Self { width: 2 * width, height: 2 * height, ink }
    }

    /// The same letter with an even outline.
    fn smoothed(&self) -> Self {
        let mut grey: Vec<u32> = self.ink.iter().map(|ink| u32::from(*ink) * 255).collect();
        for _ in 0..2 {
            grey = blurred(&grey, self.width, self.height, true);
            grey = blurred(&grey, self.width, self.height, false);
        }
        Self { ink: grey.iter().map(|grey| *grey > INK).collect(), ..*self }
    }
}

/// Every value becomes the mean of its neighbourhood along one direction; beyond the edges there is paper.
fn blurred(grey: &[u32], width: usize, height: usize, across: bool) -> Vec<u32> {
    let (lines, length, step, jump) =
        if across { (height, width, 1, width) } else { (width, height, width, 1) };
    let mut mean = vec![0; grey.len()];
    for line in 0..lines {
        for at in 0..length {
            let from = at.saturating_sub(BLUR_REACH);
            let to = (at + BLUR_REACH).min(length - 1);
            let sum: u32 = (from..=to).map(|place| grey[line * jump + place * step]).sum();
            mean[line * jump + at * step] = sum / (2 * BLUR_REACH as u32 + 1);
        }
    }
    mean
}

impl OriginDimensions for Bitmap {
    fn size(&self) -> Size {
        Size::new(self.width as u32, self.height as u32)
    }
}

impl DrawTarget for Bitmap {
    type Color = BinaryColor;
    type Error = std::convert::Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Self::Error>
    where
        I: IntoIterator<Item = Pixel<Self::Color>>,
    {
        for Pixel(Point { x, y }, colour) in pixels {
            let (Ok(x), Ok(y)) = (usize::try_from(x), usize::try_from(y)) else { continue };
            if x < self.width && y < self.height {
                self.ink[y * self.width + x] = colour.is_on();
            }
        }
        Ok(())
    }
}

/// How far the blur reaches, in pixels of a letter enlarged eight times; its thinnest strokes are 8 wide.
const BLUR_REACH: usize = 3;
/// Below one half, so that thin strokes grow a little instead of fading.
const INK: u32 = 84;
const FIRST: char = ' ';
/// Space to tilde.
const LETTERS: usize = 95;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_ink_and_differ() {
        let digits: Vec<Vec<u8>> = ('0'..='9').map(|digit| render(digit, 12, 24)).collect();
        for (place, digit) in digits.iter().enumerate() {
            assert!(digit.iter().filter(|cover| **cover > 100).count() > 20);
            assert!(!digits[..place].contains(digit));
        }
        assert!(render(' ', 12, 24).iter().all(|cover| *cover == 0));
    }

    #[test]
    fn a_font_fits_its_room() {
        let font = Font::fitting(100, 200, 10);
        assert!(font.width_of("0123456789") <= 200);
        assert_eq!(Font::fitting(20, 2000, 3).height(), 20);
    }
}
