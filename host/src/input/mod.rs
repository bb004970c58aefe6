//! Virtual input devices. A door's receiving thread owns the [`InputSink`] of each session: a key goes from its
//! datagram to the device without crossing a thread.

mod keymap;
pub mod nothing;
pub mod recording;
pub mod wlr;

use punktfunk_core::input::InputEvent;

/// The input devices of one session.
pub trait InputSink: Send {
    /// Delivers one event. Never blocks for longer than it takes to hand the event to the device.
    ///
    /// # Errors
    /// [`InputError::Unsupported`] if this device has no way to do it, [`InputError::Lost`] if the device is gone.
    fn apply(&mut self, event: &InputEvent) -> Result<(), InputError>;

    /// Releases every key and button that is down. Also done when the sink is dropped.
    ///
    /// # Errors
    /// As [`apply`](Self::apply).
    fn release_all(&mut self) -> Result<(), InputError>;
}

/// Why an event did not reach a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The device has no way to express it.
    #[error("{what} cannot be delivered by {device}")]
    Unsupported {
        /// The event, in words.
        what: &'static str,
        /// The device.
        device: &'static str,
    },
    /// The device is gone.
    #[error("the virtual input device is gone: {reason}")]
    Lost {
        /// What was seen.
        reason: String,
    },
}

/// The pixel of a place between 0.0 (the first pixel's near edge) and 1.0 (the last pixel's far edge).
pub(crate) fn pixel(place: f32, pixels: u32) -> u32 {
    let last = pixels.saturating_sub(1);
    // A cast from a float saturates, and makes zero of what is not a number.
    ((f64::from(place) * f64::from(pixels)) as u32).min(last)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_corners_are_the_first_and_the_last_pixel() {
        // spec: gamestream 13 item 88
        for pixels in [16, 720, 1126, 1280, 8192] {
            assert_eq!(pixel(0.0, pixels), 0);
            assert_eq!(pixel(1.0, pixels), pixels - 1);
        }
    }

    #[test]
    fn a_place_that_is_not_a_number_is_harmless() {
        assert_eq!(pixel(f32::NAN, 1280), 0);
        assert_eq!(pixel(f32::INFINITY, 1280), 1279);
        assert_eq!(pixel(-3.0, 1280), 0);
    }

    proptest! {
        #[test]
        fn every_pixel_can_be_hit(pixels in 16_u32..=8192, share in 0.0_f64..1.0) {
            let wanted = (share * f64::from(pixels)) as u32;
            let place = ((f64::from(wanted) + 0.5) / f64::from(pixels)) as f32;
            prop_assert_eq!(pixel(place, pixels), wanted);
        }
    }
}
