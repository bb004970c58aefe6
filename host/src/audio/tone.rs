//! The sound of the test card: a beep at every full second, together with the card's flash, over a very quiet tone.
//!
//! Both follow from the clock alone - the beep sounds while `time % 1 s < 50 ms`, the same rule by which the card
//! flashes - so sound and picture need no connection to agree. The quiet tone is there so that arriving sound can be
//! measured at any moment. Whole numbers of periods fit into a second, so the samples need only the time within it.

use std::f64::consts::TAU;

use punktfunk_core::time::Timestamp;

use super::period::{Beat, wait_until};
use super::{AudioError, AudioSource, SAMPLE_RATE};
use crate::clock;

/// Pitch of the beep in Hz.
pub const BEEP_HZ: u32 = 1_000;
/// Length of the beep in microseconds, from each full second on.
pub const BEEP_MICROS: u64 = 50_000;
/// Pitch of the quiet tone in Hz.
pub const QUIET_HZ: u32 = 440;

const BEEP_AMPLITUDE: f64 = 0.25;
/// -40 dB of full scale.
const QUIET_AMPLITUDE: f64 = 0.01;
/// The beep fades in and out over this long, so that it does not click.
const RAMP_SECONDS: f64 = 0.002;

/// A source that plays the test card's sound, the same on every channel.
#[derive(Debug)]
pub struct ToneSource {
    channels: u8,
    beat: Beat,
}

impl ToneSource {
    /// The sound on `channels` channels (at least one).
    pub fn new(channels: u8) -> Self {
        Self { channels: channels.max(1), beat: Beat::default() }
    }
}

impl AudioSource for ToneSource {
    fn read(&mut self, period: &mut [f32]) -> Result<Timestamp, AudioError> {
        let channels = usize::from(self.channels);
        let samples = (period.len() / channels) as u64;
        let (begins, complete) = self.beat.advance(clock::now(), samples);
        let seconds = (begins.as_micros() % 1_000_000) as f64 / 1e6;
        for (index, frame) in period.chunks_mut(channels).enumerate() {
            let second = (seconds + index as f64 / f64::from(SAMPLE_RATE)).fract();
            frame.fill(sample(second) as f32);
        }
        wait_until(complete);
        Ok(begins)
    }
}

/// The sample at this part of a second, `0.0..1.0`.
fn sample(second: f64) -> f64 {
    let quiet = QUIET_AMPLITUDE * (TAU * f64::from(QUIET_HZ) * second).sin();
    let length = BEEP_MICROS as f64 / 1e6;
    if second >= length {
        return quiet;
    }
    let ramp = (second.min(length - second) / RAMP_SECONDS).min(1.0);
    quiet + BEEP_AMPLITUDE * ramp * (TAU * f64::from(BEEP_HZ) * second).sin()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loudness(samples: impl Iterator<Item = f64>) -> f64 {
        let samples: Vec<f64> = samples.collect();
        (samples.iter().map(|s| s * s).sum::<f64>() / samples.len() as f64).sqrt()
    }

    /// The samples of `from..to` milliseconds after a full second.
    fn span(from: u32, to: u32) -> impl Iterator<Item = f64> {
        (from * 48..to * 48).map(|index| sample(f64::from(index) / 48_000.0))
    }

    #[test]
    fn the_beep_lasts_fifty_milliseconds_and_the_quiet_tone_always() {
        assert!(loudness(span(5, 45)) > 0.15);
        for quiet in [span(50, 200), span(500, 700), span(800, 1000)] {
            let loudness = 20.0 * (loudness(quiet) * 2.0_f64.sqrt()).log10();
            assert!((loudness + 40.0).abs() < 0.5, "{loudness} dB");
        }
    }

    #[test]
    fn nothing_clicks_anywhere_in_the_second_or_across_its_end() {
        let steps = span(0, 1000).chain(span(0, 1)).collect::<Vec<_>>();
        let steepest = steps.windows(2).map(|two| (two[1] - two[0]).abs()).fold(0.0, f64::max);
        // A sine at the beep's pitch and loudness, the quiet one on top.
        assert!(steepest < 0.04, "{steepest}");
    }

    #[test]
    fn samples_follow_the_clock_and_all_channels_carry_them() {
        let mut source = ToneSource::new(2);
        let mut period = [0.0; 2 * 480];
        for _ in 0..3 {
            let begins = source.read(&mut period).unwrap();
            let second = (begins.as_micros() % 1_000_000) as f64 / 1e6;
            for (index, frame) in period.chunks(2).enumerate() {
                let expected = sample((second + index as f64 / 48_000.0).fract()) as f32;
                assert_eq!(frame, [expected, expected]);
            }
        }
    }
}
