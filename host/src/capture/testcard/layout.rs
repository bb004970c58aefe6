//! Where everything on the card is, for any size of picture.

use super::code::{self, Geometry};
use crate::capture::Rect;

/// The places of the card's parts.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// The side of a cell of the strip: the unit of the card.
    pub(super) unit: u32,
    pub(super) code: Option<Geometry>,
    /// There is room for what people read; a very small card has only the strip and its edges.
    pub(super) legible: bool,
    pub(super) title: Rect,
    pub(super) mode: Rect,
    pub(super) bars: Rect,
    pub(super) ramp: Rect,
    pub(super) frame: Rect,
    pub(super) flash: Rect,
    pub(super) time: Rect,
    pub(super) lane: Rect,
    pub(super) status: Rect,
    /// The columns left and right of the bars, for what shows resolution; empty where there is no room.
    pub(super) sides: [Rect; 2],
}

impl Layout {
    pub(super) fn new(width: u32, height: u32) -> Self {
        let unit = code::cell(width, height);
        let code = Geometry::new(width, height);
        let below = code.map_or(height.saturating_sub(unit), |code| code.with_border().y);
        let gap = (unit / 2).max(4);
        let inner = Rect {
            x: unit + gap,
            y: unit + gap,
            width: width.saturating_sub(2 * (unit + gap)),
            height: below.saturating_sub(unit + 2 * gap),
        };
        let rows = rows(inner, gap, [15, 28, 8, 27, 22]);
        let side = if width >= 34 * unit { inner.width * 12 / 100 } else { 0 };
        let middle = |row: Rect| Rect { x: row.x + side, width: row.width - 2 * side, ..row };
        let [title, mode] = columns(rows[0], gap, [60, 40]);
        let [frame, flash, time] = columns(middle(rows[3]), gap, [42, 16, 42]);
        let reach =
            Rect { height: (rows[3].y + rows[3].height).saturating_sub(rows[1].y), ..rows[1] };
        let sides = [reach.x, (reach.x + reach.width + gap).saturating_sub(side)].map(|x| Rect {
            x,
            width: side.saturating_sub(gap),
            ..reach
        });
        let status_height = (rows[4].height / 4).min(2 * unit).max(14).min(rows[4].height / 2);
        Self {
            unit,
            code,
            legible: inner.height >= MIN_HEIGHT && inner.width >= MIN_WIDTH,
            title,
            mode,
            bars: middle(rows[1]),
            ramp: middle(rows[2]),
            frame,
            flash,
            time,
            status: Rect { height: status_height, ..rows[4] },
            lane: Rect {
                y: rows[4].y + status_height,
                height: rows[4].height - status_height,
                ..rows[4]
            },
            sides,
        }
    }
}

/// Splits a rectangle from top to bottom by shares of its height, `gap` pixels apart.
fn rows<const N: usize>(rect: Rect, gap: u32, shares: [u32; N]) -> [Rect; N] {
    let mut y = rect.y;
    split(rect.height, gap, shares).map(|height| {
        let row = Rect { y, height, ..rect };
        y += height + gap;
        row
    })
}

/// Splits a rectangle from left to right by shares of its width, `gap` pixels apart.
fn columns<const N: usize>(rect: Rect, gap: u32, shares: [u32; N]) -> [Rect; N] {
    let mut x = rect.x;
    split(rect.width, gap, shares).map(|width| {
        let column = Rect { x, width, ..rect };
        x += width + gap;
        column
    })
}

fn split<const N: usize>(length: u32, gap: u32, shares: [u32; N]) -> [u32; N] {
    let gaps = gap * u32::try_from(N).unwrap_or(0).saturating_sub(1);
    let whole: u32 = shares.iter().sum();
    shares.map(|share| length.saturating_sub(gaps) * share / whole.max(1))
}

/// What the parts that people read need, in pixels.
const MIN_WIDTH: u32 = 240;
const MIN_HEIGHT: u32 = 150;
