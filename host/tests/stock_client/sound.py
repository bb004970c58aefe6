"""What is in the sound that the client decoded: how strong a tone is, and when the beeps began."""

import wave

import numpy as np

RATE = 48_000
BEEP_HZ, PILOT_HZ = 1000, 440
_STEP = RATE // 1000


def level_db(samples, frequency_hz):
    """The level of one frequency in dB of full scale: 0 for a sine that fills the range."""
    window = np.hanning(len(samples))
    turn = np.exp(-2j * np.pi * frequency_hz * np.arange(len(samples)) / RATE)
    amplitude = 2 * abs(np.sum(samples * window * turn)) / np.sum(window)
    return 20 * np.log10(max(amplitude, 1e-9))


def strongest_hz(samples, below_hz=20_000):
    """The strongest frequency, above the rumble at 50 Hz."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    hertz = np.fft.rfftfreq(len(samples), 1 / RATE)
    spectrum[(hertz < 50) | (hertz > below_hz)] = 0
    return float(hertz[np.argmax(spectrum)])


def write_tones(path, hertz, level_db, seconds):
    """A file with another tone on each channel."""
    turn = 2 * np.pi * np.arange(int(seconds * RATE)) / RATE
    samples = np.stack([np.sin(turn * pitch) for pitch in hertz], axis=1) * 10 ** (level_db / 20)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(len(hertz))
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def beep_onsets(samples):
    """Where each beep begins, as sample numbers: the first millisecond of a loud 1 kHz after 200 ms without.

    A tone of 1 kHz has its energy spread evenly over each millisecond, so its level there needs no window.
    """
    blocks = samples[: len(samples) // _STEP * _STEP].reshape(-1, _STEP)
    turn = np.exp(-2j * np.pi * np.arange(_STEP) / _STEP)
    strength = np.abs(blocks @ turn) * 2 / _STEP
    # Half of the strongest: well above the pilot tone, on the steep flank of the beep.
    loud = strength > max(strength.max() / 2, 0.02)
    onsets, quiet = [], 0
    for index, is_loud in enumerate(loud):
        if is_loud and quiet >= 200:
            onsets.append(index * _STEP)
        quiet = 0 if is_loud else quiet + 1
    return onsets
