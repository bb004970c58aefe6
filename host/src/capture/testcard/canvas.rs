//! Drawing into a picture in memory: rectangles by copying rows, everything round by sampling.

use crate::capture::Rect;

/// A colour, in the memory order of the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Colour([u8; 4]);

impl Colour {
    pub(super) const fn rgb(red: u8, green: u8, blue: u8) -> Self {
        Self([blue, green, red, 0])
    }

    pub(super) const fn grey(level: u8) -> Self {
        Self::rgb(level, level, level)
    }
}

/// A picture to draw into. Whatever lies outside is cut off.
#[derive(Debug)]
pub(super) struct Canvas<'a> {
    pixels: &'a mut [u8],
    width: u32,
    height: u32,
    stride: usize,
}

impl<'a> Canvas<'a> {
    /// `pixels` has at least `stride * height` bytes, `stride` at least `4 * width`.
    pub(super) fn new(pixels: &'a mut [u8], width: u32, height: u32, stride: usize) -> Self {
        assert!(stride >= width as usize * 4 && pixels.len() >= stride * height as usize);
        Self { pixels, width, height, stride }
    }

    /// Fills a rectangle.
    pub(super) fn fill(&mut self, rect: Rect, colour: Colour) {
        let right = rect.x.saturating_add(rect.width).min(self.width);
        let bottom = rect.y.saturating_add(rect.height).min(self.height);
        if rect.x >= right || rect.y >= bottom {
            return;
        }
        let bytes = (right - rect.x) as usize * 4;
        let first = rect.y as usize * self.stride + rect.x as usize * 4;
        for pixel in self.pixels[first..first + bytes].chunks_exact_mut(4) {
            pixel.copy_from_slice(&colour.0);
        }
        for row in 1..(bottom - rect.y) as usize {
            self.pixels.copy_within(first..first + bytes, first + row * self.stride);
        }
    }

    /// Draws the outline of a rectangle, `thickness` pixels wide, inside of it.
    pub(super) fn outline(&mut self, rect: Rect, thickness: u32, colour: Colour) {
        let Rect { x, y, width, height } = rect;
        let (lower, right) = (height.saturating_sub(thickness), width.saturating_sub(thickness));
        self.fill(Rect { x, y, width, height: thickness }, colour);
        self.fill(Rect { x, y: y + lower, width, height: thickness }, colour);
        self.fill(Rect { x, y, width: thickness, height }, colour);
        self.fill(Rect { x: x + right, y, width: thickness, height }, colour);
    }

    /// Lays a colour over one pixel; `cover` 255 replaces it.
    pub(super) fn blend(&mut self, x: u32, y: u32, colour: Colour, cover: u8) {
        if x >= self.width || y >= self.height || cover == 0 {
            return;
        }
        let at = y as usize * self.stride + x as usize * 4;
        blend_pixel(&mut self.pixels[at..at + 4], colour, cover);
    }

    /// Lays a colour over a row of pixels, as far as each of `cover` says.
    pub(super) fn blend_row(&mut self, x: u32, y: u32, colour: Colour, cover: &[u8]) {
        if x >= self.width || y >= self.height {
            return;
        }
        let count = cover.len().min((self.width - x) as usize);
        let at = y as usize * self.stride + x as usize * 4;
        let row = self.pixels[at..at + count * 4].chunks_exact_mut(4);
        for (pixel, cover) in row.zip(cover).filter(|(_, cover)| **cover > 0) {
            blend_pixel(pixel, colour, *cover);
        }
    }

    /// Draws what `inside` says, for every pixel of `rect`, with smooth edges: 16 samples a pixel, at places relative
    /// to the rectangle's upper left corner.
    pub(super) fn sample(&mut self, rect: Rect, colour: Colour, inside: impl Fn(f32, f32) -> bool) {
        for row in 0..rect.height {
            for column in 0..rect.width {
                let hits = (0..16_u8)
                    .filter(|sample| {
                        let across = (f32::from(sample % 4) + 0.5) / 4.0;
                        let down = (f32::from(sample / 4) + 0.5) / 4.0;
                        inside(column as f32 + across, row as f32 + down)
                    })
                    .count();
                self.blend(rect.x + column, rect.y + row, colour, (hits * 255 / 16) as u8);
            }
        }
    }
}

fn blend_pixel(pixel: &mut [u8], colour: Colour, cover: u8) {
    let cover = u32::from(cover);
    for (old, new) in pixel.iter_mut().zip(colour.0) {
        *old = ((u32::from(*old) * (255 - cover) + u32::from(new) * cover + 127) / 255) as u8;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_is_drawn_outside(
            x in 0_u32..40, y in 0_u32..40, width in 0_u32..60, height in 0_u32..60,
        ) {
            // Rows have 4 bytes more than the picture needs, which must stay as they are.
            let (side, stride) = (20, 84);
            let mut pixels = vec![7; stride * 20];
            let rect = Rect { x, y, width, height };
            Canvas::new(&mut pixels, side, side, stride).fill(rect, Colour::grey(200));
            for (row, bytes) in (0..).zip(pixels.chunks_exact(stride)) {
                for (column, pixel) in (0..side).zip(bytes.chunks_exact(4)) {
                    let inside = (x..x + width).contains(&column) && (y..y + height).contains(&row);
                    prop_assert_eq!(pixel[0], if inside { 200 } else { 7 });
                }
                prop_assert_eq!(&bytes[80..], &[7; 4]);
            }
        }
    }

    #[test]
    fn full_cover_replaces_and_half_mixes() {
        let mut pixels = vec![0; 8];
        let mut canvas = Canvas::new(&mut pixels, 2, 1, 8);
        canvas.blend_row(0, 0, Colour::grey(200), &[255, 128, 255]);
        assert_eq!(pixels, [200, 200, 200, 0, 100, 100, 100, 0]);
    }
}
