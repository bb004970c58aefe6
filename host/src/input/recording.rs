//! Input devices that only remember: the ones of the test card.
//!
//! Every event is kept on the card's [`Stage`] and shown in the picture, so that an owner sees that input arrives
//! before any compositor is involved.

use std::sync::Arc;

use punktfunk_core::input::{InputEvent, KeyCode, PointerButton};

use super::{InputError, InputSink, pixel};
use crate::capture::pattern::{Behaviour, Shown, Stage};

/// The input devices of a test card.
#[derive(Debug)]
pub struct RecordingSink {
    stage: Arc<Stage>,
    keys_down: Vec<KeyCode>,
    buttons_down: Vec<PointerButton>,
}

impl RecordingSink {
    /// Devices that act on this card.
    pub fn new(stage: Arc<Stage>) -> Self {
        Self { stage, keys_down: Vec::new(), buttons_down: Vec::new() }
    }

    fn move_to(&self, x: u32, y: u32) {
        let buttons = u16::try_from(self.buttons_down.len()).unwrap_or(u16::MAX);
        self.stage.set_pointer(x, y, buttons);
    }

    /// Where the pointer is; in the middle as long as it has not moved.
    fn place(&self) -> (u32, u32) {
        let (width, height) = self.stage.size();
        self.stage.pointer().map_or((width / 2, height / 2), |(x, y, _)| (x, y))
    }
}

impl InputSink for RecordingSink {
    fn apply(&mut self, event: &InputEvent) -> Result<(), InputError> {
        if self.stage.behaviour() == Behaviour::Dead {
            return Err(InputError::Lost { reason: "the card was told to die".to_owned() });
        }
        let (width, height) = self.stage.size();
        match *event {
            InputEvent::Key { key, pressed } => {
                self.keys_down.retain(|other| *other != key);
                if pressed && self.keys_down.len() < MAX_DOWN {
                    self.keys_down.push(key);
                }
                self.stage.show(Shown::Key(key, pressed));
            }
            InputEvent::Text(character) => self.stage.show(Shown::Text(character)),
            InputEvent::PointerMotion { dx, dy } => {
                let (x, y) = self.place();
                self.move_to(moved(x, dx, width), moved(y, dy, height));
            }
            InputEvent::PointerPosition { x, y } => self.move_to(pixel(x, width), pixel(y, height)),
            InputEvent::Button { button, pressed } => {
                self.buttons_down.retain(|other| *other != button);
                if pressed {
                    self.buttons_down.push(button);
                }
                let (x, y) = self.place();
                self.move_to(x, y);
                let count = u16::try_from(self.buttons_down.len()).unwrap_or(u16::MAX);
                self.stage.show(Shown::Button(count));
            }
            InputEvent::Scroll { v120, .. } => self.stage.show(Shown::Scroll(v120)),
        }
        self.stage.record(*event);
        Ok(())
    }

    fn release_all(&mut self) -> Result<(), InputError> {
        for key in std::mem::take(&mut self.keys_down) {
            self.apply(&InputEvent::Key { key, pressed: false })?;
        }
        for button in std::mem::take(&mut self.buttons_down) {
            self.apply(&InputEvent::Button { button, pressed: false })?;
        }
        Ok(())
    }
}

impl Drop for RecordingSink {
    fn drop(&mut self) {
        // A dead card has nothing to release.
        let _ = self.release_all();
    }
}

/// A coordinate that moved by `by`, kept within `0..pixels`.
fn moved(from: u32, by: i32, pixels: u32) -> u32 {
    from.saturating_add_signed(by).min(pixels.saturating_sub(1))
}

/// Nobody holds more keys than this.
const MAX_DOWN: usize = 64;

#[cfg(test)]
mod tests {
    use punktfunk_core::media::Mode;

    use super::*;

    fn card() -> (Arc<Stage>, RecordingSink) {
        let stage = Arc::new(Stage::new(Mode::new(1280, 720, 60_000).unwrap()));
        (Arc::clone(&stage), RecordingSink::new(stage))
    }

    #[test]
    fn the_pointer_reaches_the_corners_and_stays_within() {
        // spec: gamestream 13 item 88
        let (stage, mut sink) = card();
        for (x, y, expected) in
            [(0.0, 0.0, (0, 0)), (1.0, 1.0, (1279, 719)), (0.5, 0.5, (640, 360))]
        {
            sink.apply(&InputEvent::PointerPosition { x, y }).unwrap();
            assert_eq!(stage.pointer().map(|(x, y, _)| (x, y)), Some(expected));
        }
        sink.apply(&InputEvent::PointerMotion { dx: i32::MAX, dy: i32::MIN }).unwrap();
        assert_eq!(stage.pointer(), Some((1279, 0, 0)));
    }

    #[test]
    fn dropping_releases_what_is_down() {
        let (stage, mut sink) = card();
        let key = KeyCode(30);
        sink.apply(&InputEvent::Key { key, pressed: true }).unwrap();
        sink.apply(&InputEvent::Button { button: PointerButton::Left, pressed: true }).unwrap();
        assert_eq!(stage.pointer(), Some((640, 360, 1)));
        drop(sink);
        assert_eq!(stage.pointer(), Some((640, 360, 0)));
        assert_eq!(stage.events()[2], InputEvent::Key { key, pressed: false });
    }

    #[test]
    fn only_the_newest_events_are_kept() {
        let (stage, mut sink) = card();
        for v120 in 0..1000 {
            let axis = punktfunk_core::input::ScrollAxis::Vertical;
            sink.apply(&InputEvent::Scroll { axis, v120 }).unwrap();
        }
        assert_eq!(stage.events().len(), 256);
        assert!(matches!(stage.events()[255], InputEvent::Scroll { v120: 999, .. }));
    }

    #[test]
    fn a_dead_card_takes_no_input() {
        let (stage, mut sink) = card();
        stage.set_behaviour(Behaviour::Dead);
        assert!(matches!(sink.apply(&InputEvent::Text('a')), Err(InputError::Lost { .. })));
    }
}
