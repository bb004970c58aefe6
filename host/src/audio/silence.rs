//! Silence at the pace of sound: what a stream carries where nothing plays. Clients keep their picture in step with the
//! sound, so a stream is never without it.

use punktfunk_core::time::Timestamp;

use super::period::{Beat, wait_until};
use super::{AudioError, AudioSource};
use crate::clock;

/// A source that is always silent.
#[derive(Debug)]
pub struct SilenceSource {
    channels: u8,
    beat: Beat,
}

impl SilenceSource {
    /// Silence of `channels` channels (at least one).
    pub fn new(channels: u8) -> Self {
        Self { channels: channels.max(1), beat: Beat::default() }
    }
}

impl AudioSource for SilenceSource {
    fn read(&mut self, period: &mut [f32]) -> Result<Timestamp, AudioError> {
        let samples = (period.len() / usize::from(self.channels)) as u64;
        let (begins, complete) = self.beat.advance(clock::now(), samples);
        period.fill(0.0);
        wait_until(complete);
        Ok(begins)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_silent_and_takes_its_time() {
        let mut source = SilenceSource::new(2);
        let mut period = [1.0; 480];
        let first = source.read(&mut period).unwrap();
        assert_eq!(period, [0.0; 480]);
        assert!(clock::now().since(first) >= std::time::Duration::from_millis(5));
        let second = source.read(&mut period).unwrap();
        assert_eq!(second.since(first), std::time::Duration::from_millis(5));
    }
}
