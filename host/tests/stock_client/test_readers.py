"""The instruments are checked before anything is measured with them."""

import numpy as np

import card
import keyboard
import sound


def draw(width, height, frame, time_us):
    """A strip as the host would draw it, on a grey picture."""
    cell, columns, _, x, y = card.geometry(width, height)
    payload = frame << 64 | time_us
    bits = card.SYNC << 112 | payload << 16 | card.crc16(payload.to_bytes(12, "big"))
    picture = np.full((height, width, 3), 128, np.uint8)
    for bit in range(card.BITS):
        top, left = y + bit // columns * cell, x + bit % columns * cell
        picture[top : top + cell, left : left + cell] = 235 if bits >> (127 - bit) & 1 else 16
    return picture


def test_a_code_is_read_back_and_a_damaged_one_is_not():
    for width, height in ((1280, 720), (1920, 1080), (640, 360), (480, 854)):
        picture = draw(width, height, 123_456, 98_765_432_101)
        assert card.read(picture) == card.Code(123_456, 98_765_432_101), (width, height)
        cell, _, _, x, y = card.geometry(width, height)
        picture[y + cell : y + 2 * cell, x : x + cell] = 255 - picture[y + cell : y + 2 * cell, x : x + cell]
        assert card.read(picture) is None
    assert card.read(np.full((720, 1280, 3), 128, np.uint8)) is None
    assert card.geometry(1280, 720) == (16, 32, 4, 384, 624)
    assert card.crc16(b"123456789") == 0x29B1


def test_tones_and_beeps_are_found():
    seconds = np.arange(4 * sound.RATE) / sound.RATE
    samples = 0.01 * np.sin(2 * np.pi * sound.PILOT_HZ * seconds)
    beeping = seconds % 1 < 0.05
    samples[beeping] += 0.3 * np.sin(2 * np.pi * sound.BEEP_HZ * (seconds[beeping] % 1))
    quiet = samples[sound.RATE // 10 : sound.RATE * 9 // 10]
    assert abs(sound.level_db(quiet, sound.PILOT_HZ) + 40) < 0.5
    assert sound.level_db(quiet, 700) < -80
    assert abs(sound.strongest_hz(quiet) - sound.PILOT_HZ) < 2
    onsets = np.array(sound.beep_onsets(samples[100:])) + 100
    assert len(onsets) == 3
    assert np.abs(onsets - sound.RATE * np.arange(1, 4)).max() <= sound.RATE // 500


def test_every_key_of_a_command_is_known():
    assert keyboard.key_for("a") == (0x41, False)
    assert keyboard.key_for("A") == (0x41, True)
    assert keyboard.key_for('"') == (0xDE, True)
    assert keyboard.key_for("\n") == (0x0D, False)
    for character in 'printf "\\033[48;2;1;2;3m"\n':
        keyboard.key_for(character)
