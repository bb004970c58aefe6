"""Reads the Test card as the client decoded it: which picture this is, when it was captured, whether it flashes.

The geometry is the one that `host/src/capture/testcard/code.rs` writes down. It is read here a second time, from the
text and not from the code, so that the two check each other.
"""

from dataclasses import dataclass

import numpy as np

BITS, SYNC = 128, 0xACE1
MIN_CONTRAST = 48


@dataclass(frozen=True)
class Code:
    frame: int
    time_us: int


def cell_side(width, height):
    return max(16, min(width // 80, height // 45) // 2 * 2)


def geometry(width, height):
    """(cell, columns, rows, x, y) of the strip, or None if the picture has no room for it."""
    cell = cell_side(width, height)
    columns = 32 if width >= 34 * cell else 16 if width >= 18 * cell else 0
    rows = BITS // columns if columns else 0
    if not columns or height < (rows + 4) * cell:
        return None
    return cell, columns, rows, (width - columns * cell) // 2 // 2 * 2, (height - (rows + 2) * cell) // 2 * 2


def luma(pixels):
    return pixels.astype(np.float32) @ np.array([0.114, 0.587, 0.299], dtype=np.float32)


def read(picture):
    """The code of a BGR picture; None if it cannot be read without doubt."""
    height, width = picture.shape[:2]
    place = geometry(width, height)
    if place is None:
        return None
    cell, columns, rows, x, y = place
    cells = luma(picture[y : y + rows * cell, x : x + columns * cell]).reshape(rows, cell, columns, cell)
    inner = slice(cell // 4, cell // 4 + cell // 2)
    levels = cells[:, inner, :, inner].mean(axis=(1, 3)).ravel()
    # The sync word is known: it tells what black and white have become on the way.
    wanted = np.array([SYNC >> (15 - bit) & 1 for bit in range(16)], dtype=bool)
    black, white = levels[:16][~wanted].mean(), levels[:16][wanted].mean()
    if white - black < MIN_CONTRAST:
        return None
    bits = int("".join("1" if level > (black + white) / 2 else "0" for level in levels), 2)
    payload = bits >> 16 & (1 << 96) - 1
    if bits >> 112 != SYNC or bits & 0xFFFF != crc16(payload.to_bytes(12, "big")):
        return None
    return Code(frame=payload >> 64, time_us=payload & (1 << 64) - 1)


def flashes(picture):
    """Is the box in the middle of a 1280x720 card white? Otherwise it is nearly black."""
    assert picture.shape[:2] == (720, 1280), picture.shape
    return bool(luma(picture[380:426, 600:680]).mean() > 128)


def crc16(data):
    """CRC-16/CCITT-FALSE."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc
