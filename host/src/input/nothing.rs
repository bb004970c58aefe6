//! The input devices of a client that only watches: they take nothing.

use punktfunk_core::input::InputEvent;

use super::{InputError, InputSink};

/// Devices that are not there.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoInput;

impl InputSink for NoInput {
    fn apply(&mut self, _event: &InputEvent) -> Result<(), InputError> {
        Err(InputError::Unsupported { what: "input", device: "a client that only watches" })
    }

    fn release_all(&mut self) -> Result<(), InputError> {
        Ok(())
    }
}
