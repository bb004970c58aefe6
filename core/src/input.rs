//! The one vocabulary of input: what a client did, in words that fit every protocol and every device.
//!
//! A protocol module turns its packets into [`InputEvent`]s, a device backend turns events into whatever its compositor
//! or kernel wants. Absent until a backend delivers them: touch, pen, gamepad.

/// A key by its Linux input event code (`KEY_A` = 30), which is the position on the keyboard, not the letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyCode(pub u16);

/// A button of a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PointerButton {
    /// The primary button.
    Left,
    /// The wheel.
    Middle,
    /// The secondary button.
    Right,
    /// The first thumb button ("back").
    Back,
    /// The second thumb button ("forward").
    Forward,
}

/// A direction of scrolling.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScrollAxis {
    /// Positive is away from the user (up).
    Vertical,
    /// Positive is to the right.
    Horizontal,
}

/// One thing that a client's user did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum InputEvent {
    /// A key went down or up. Clients may repeat a key that is down.
    Key {
        /// Which key.
        key: KeyCode,
        /// Down or up.
        pressed: bool,
    },
    /// One character of text, to be typed whatever the keyboard layout is.
    Text(char),
    /// The pointer moved by pixels of the stream picture.
    PointerMotion {
        /// To the right.
        dx: i32,
        /// Down.
        dy: i32,
    },
    /// The pointer moved to a place in the stream picture.
    PointerPosition {
        /// 0.0 is the left edge, 1.0 the last pixel's far edge; always within.
        x: f32,
        /// 0.0 is the top edge; always within `0.0..=1.0`.
        y: f32,
    },
    /// A pointer button went down or up.
    Button {
        /// Which button.
        button: PointerButton,
        /// Down or up.
        pressed: bool,
    },
    /// The wheel turned.
    Scroll {
        /// Which way.
        axis: ScrollAxis,
        /// 120 units are one detent; smaller steps are high-resolution scrolling.
        v120: i32,
    },
}
