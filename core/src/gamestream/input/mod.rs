//! Input packets: the payload of control messages of type 0206, turned into [`InputEvent`]s.
//!
//! A packet names its own size and kind. What is shorter than its kind is refused, what is longer is tolerated; numbers
//! outside their range are clamped or refused before anything else sees them. Keys come as Windows virtual-key codes by
//! their place on a US keyboard and leave as evdev codes, which are places as well. Repeats pass through.
//!
//! Deliberately absent: modifier repair (the real modifier keys come as keys of their own) and devices behind gamepad,
//! pen and touch packets, which are checked and named and nothing more.

mod keys;

use crate::input::{InputEvent, PointerButton, ScrollAxis};

pub use keys::evdev_from_virtual_key;

/// Length of the header: size and kind.
const HEADER_BYTES: usize = 8;
/// The longest text in one packet, in bytes; clients stop at 32.
const MAX_TEXT_BYTES: usize = 256;
/// Gamepads are numbered from 0 and below this.
const MAX_CONTROLLERS: u16 = 16;

/// One input packet, checked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Packet<'a> {
    /// One event.
    Event(InputEvent),
    /// Text, to be typed whatever the layout.
    Text(&'a str),
    /// A key that no table knows.
    UnknownKey {
        /// Its virtual-key code.
        virtual_key: u8,
    },
    /// The client can play rumble. Nothing to be done.
    EnableHaptics,
    /// A device that this host has not announced.
    Unsupported(Unsupported),
}

/// Packets of devices that are not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unsupported {
    /// State of a gamepad.
    Gamepad,
    /// A gamepad was attached.
    GamepadArrival,
    /// A gamepad's touchpad.
    GamepadTouch,
    /// A gamepad's motion sensor.
    GamepadMotion,
    /// A gamepad's battery.
    GamepadBattery,
    /// A finger.
    Touch,
    /// A pen.
    Pen,
}

/// Why bytes are not an input packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PacketError {
    /// It is shorter than its kind or its size field says, or longer than any of its kind.
    #[error("an input packet of kind {kind:#x} has {got} bytes")]
    Length {
        /// Its kind, 0 if even that is missing.
        kind: u32,
        /// Its length in bytes.
        got: usize,
    },
    /// Its kind is not known.
    #[error("there is no input packet of kind {kind:#x}")]
    UnknownKind {
        /// Its kind.
        kind: u32,
    },
    /// A field has a value that cannot be.
    #[error("an input packet of kind {kind:#x} has an impossible {field}")]
    Field {
        /// Its kind.
        kind: u32,
        /// The field.
        field: &'static str,
    },
}

impl<'a> Packet<'a> {
    /// Reads one packet.
    ///
    /// # Errors
    /// [`PacketError`]: the packet is to be ignored.
    // spec: gamestream 6.1
    pub fn parse(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let short = PacketError::Length { kind: 0, got: bytes.len() };
        let (size, rest) = bytes.split_first_chunk::<4>().ok_or(short)?;
        let size = u32::from_be_bytes(*size) as usize;
        let (kind, _) = rest.split_first_chunk::<4>().ok_or(short)?;
        let kind = u32::from_le_bytes(*kind);
        let length = PacketError::Length { kind, got: bytes.len() };
        let body = rest.get(..size).and_then(|packet| packet.get(4..)).ok_or(length)?;
        let body = Body { kind, bytes: body, packet_bytes: HEADER_BYTES + body.len() };
        match kind {
            0x03 | 0x04 => body.key(kind == 0x03),
            0x17 => body.text(),
            0x05 => body.position(),
            0x07 => body.motion(),
            0x08 | 0x09 => body.button(kind == 0x08),
            0x0A => body.scroll(ScrollAxis::Vertical, 6),
            0x5500_0001 => body.scroll(ScrollAxis::Horizontal, 2),
            0x0D => body.array::<2>(0).map(|_| Self::EnableHaptics),
            0x0C => body.gamepad(),
            0x5500_0002 => body.floats(28, &[8, 12, 16, 20, 24], Unsupported::Touch),
            0x5500_0003 => body.floats(28, &[4, 8, 12, 20, 24], Unsupported::Pen),
            0x5500_0004 => body.controller(8, &[], Unsupported::GamepadArrival),
            0x5500_0005 => body.controller(20, &[8, 12, 16], Unsupported::GamepadTouch),
            0x5500_0006 => body.controller(16, &[4, 8, 12], Unsupported::GamepadMotion),
            0x5500_0007 => body.controller(4, &[], Unsupported::GamepadBattery),
            _ => Err(PacketError::UnknownKind { kind }),
        }
    }

    /// The events in it, in order; text is one event per character.
    pub fn events(self) -> impl Iterator<Item = InputEvent> + 'a {
        let (event, text) = match self {
            Self::Event(event) => (Some(event), ""),
            Self::Text(text) => (None, text),
            _ => (None, ""),
        };
        event.into_iter().chain(text.chars().map(InputEvent::Text))
    }
}

/// What follows the header.
#[derive(Clone, Copy)]
struct Body<'a> {
    kind: u32,
    bytes: &'a [u8],
    packet_bytes: usize,
}

impl<'a> Body<'a> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], PacketError> {
        self.bytes
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .copied()
            .ok_or(PacketError::Length { kind: self.kind, got: self.packet_bytes })
    }

    fn at_least(&self, bytes: usize) -> Result<(), PacketError> {
        if self.bytes.len() < bytes {
            return Err(PacketError::Length { kind: self.kind, got: self.packet_bytes });
        }
        Ok(())
    }

    fn i16_be(&self, at: usize) -> Result<i16, PacketError> {
        self.array(at).map(i16::from_be_bytes)
    }

    fn field(&self, field: &'static str) -> PacketError {
        PacketError::Field { kind: self.kind, field }
    }

    // spec: gamestream 6.2
    fn key(self, pressed: bool) -> Result<Packet<'a>, PacketError> {
        self.at_least(6)?;
        // Most clients set the high byte to 0x80, some to 0.
        let [virtual_key, _] = self.array::<2>(1)?;
        Ok(match evdev_from_virtual_key(virtual_key) {
            Some(key) => Packet::Event(InputEvent::Key { key, pressed }),
            None => Packet::UnknownKey { virtual_key },
        })
    }

    fn text(self) -> Result<Packet<'a>, PacketError> {
        if self.bytes.len() > MAX_TEXT_BYTES {
            return Err(PacketError::Length { kind: self.kind, got: self.packet_bytes });
        }
        std::str::from_utf8(self.bytes).map(Packet::Text).map_err(|_| self.field("text"))
    }

    fn position(self) -> Result<Packet<'a>, PacketError> {
        self.at_least(10)?;
        let fraction = |at: i16, of: i16| {
            if of <= 0 {
                return Err(self.field("reference size"));
            }
            Ok((f32::from(at) / f32::from(of)).clamp(0.0, 1.0))
        };
        Ok(Packet::Event(InputEvent::PointerPosition {
            x: fraction(self.i16_be(0)?, self.i16_be(6)?)?,
            y: fraction(self.i16_be(2)?, self.i16_be(8)?)?,
        }))
    }

    fn motion(self) -> Result<Packet<'a>, PacketError> {
        Ok(Packet::Event(InputEvent::PointerMotion {
            dx: self.i16_be(0)?.into(),
            dy: self.i16_be(2)?.into(),
        }))
    }

    fn button(self, pressed: bool) -> Result<Packet<'a>, PacketError> {
        let [button] = self.array(0)?;
        let button = match button {
            1 => PointerButton::Left,
            2 => PointerButton::Middle,
            3 => PointerButton::Right,
            4 => PointerButton::Back,
            5 => PointerButton::Forward,
            _ => return Err(self.field("button")),
        };
        Ok(Packet::Event(InputEvent::Button { button, pressed }))
    }

    fn scroll(self, axis: ScrollAxis, bytes: usize) -> Result<Packet<'a>, PacketError> {
        self.at_least(bytes)?;
        Ok(Packet::Event(InputEvent::Scroll { axis, v120: self.i16_be(0)?.into() }))
    }

    // spec: gamestream 6.3
    fn gamepad(self) -> Result<Packet<'a>, PacketError> {
        self.at_least(26)?;
        if u16::from_le_bytes(self.array(2)?) >= MAX_CONTROLLERS {
            return Err(self.field("controller number"));
        }
        Ok(Packet::Unsupported(Unsupported::Gamepad))
    }

    // spec: gamestream 6.4
    fn controller(
        self,
        bytes: usize,
        floats: &[usize],
        what: Unsupported,
    ) -> Result<Packet<'a>, PacketError> {
        let [number] = self.array(0)?;
        if u16::from(number) >= MAX_CONTROLLERS {
            return Err(self.field("controller number"));
        }
        self.floats(bytes, floats, what)
    }

    fn floats(
        self,
        bytes: usize,
        floats: &[usize],
        what: Unsupported,
    ) -> Result<Packet<'a>, PacketError> {
        self.at_least(bytes)?;
        for at in floats {
            if !f32::from_le_bytes(self.array(*at)?).is_finite() {
                return Err(self.field("number"));
            }
        }
        Ok(Packet::Unsupported(what))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::input::KeyCode;

    /// A packet with the right size field.
    fn packet(kind: u32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (body.len() as u32 + 4).to_be_bytes().to_vec();
        bytes.extend_from_slice(&kind.to_le_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    fn one(kind: u32, body: &[u8]) -> InputEvent {
        match Packet::parse(&packet(kind, body)) {
            Ok(Packet::Event(event)) => event,
            other => panic!("{other:?}"),
        }
    }

    // spec: gamestream 13 item 85
    #[test]
    fn mouse_and_key_packets_have_the_tabulated_layout() {
        let cases: [(u32, &[u8], usize, InputEvent); 8] = [
            (
                0x03,
                &[0, 0x41, 0x80, 1, 0, 0],
                14,
                InputEvent::Key { key: KeyCode(30), pressed: true },
            ),
            (
                0x04,
                &[0, 0x41, 0x80, 0, 0, 0],
                14,
                InputEvent::Key { key: KeyCode(30), pressed: false },
            ),
            (0x07, &[0xFF, 0xFE, 0, 5], 12, InputEvent::PointerMotion { dx: -2, dy: 5 }),
            (0x08, &[3], 9, InputEvent::Button { button: PointerButton::Right, pressed: true }),
            (0x09, &[5], 9, InputEvent::Button { button: PointerButton::Forward, pressed: false }),
            (
                0x0A,
                &[0, 120, 0, 120, 0, 0],
                14,
                InputEvent::Scroll { axis: ScrollAxis::Vertical, v120: 120 },
            ),
            (
                0x5500_0001,
                &[0xFF, 0xE2],
                10,
                InputEvent::Scroll { axis: ScrollAxis::Horizontal, v120: -30 },
            ),
            (
                0x05,
                &[0x02, 0x80, 0x01, 0x68, 0, 0, 0x05, 0x00, 0x02, 0xD0],
                18,
                InputEvent::PointerPosition { x: 0.5, y: 0.5 },
            ),
        ];
        for (kind, body, total, event) in cases {
            let bytes = packet(kind, body);
            assert_eq!(bytes.len(), total);
            assert_eq!(one(kind, body), event);
            // spec: gamestream 13 item 86
            for end in 0..bytes.len() {
                assert!(Packet::parse(&bytes[..end]).is_err(), "kind {kind:#x}, {end} bytes");
            }
            assert!(Packet::parse(&packet(kind, &body[..body.len() - 1])).is_err());
            let longer = [bytes, vec![7; 5]].concat();
            assert_eq!(Packet::parse(&longer), Ok(Packet::Event(event)));
        }
        assert_eq!(Packet::parse(&packet(0x0D, &[1, 0])), Ok(Packet::EnableHaptics));
    }

    // spec: gamestream 13 item 85
    #[test]
    fn packets_of_absent_devices_are_recognised() {
        let cases = [
            (0x0C, 26, 34, Unsupported::Gamepad),
            (0x5500_0002, 28, 36, Unsupported::Touch),
            (0x5500_0003, 28, 36, Unsupported::Pen),
            (0x5500_0004, 8, 16, Unsupported::GamepadArrival),
            (0x5500_0005, 20, 28, Unsupported::GamepadTouch),
            (0x5500_0006, 16, 24, Unsupported::GamepadMotion),
            (0x5500_0007, 4, 12, Unsupported::GamepadBattery),
        ];
        for (kind, body, total, what) in cases {
            let bytes = packet(kind, &vec![0; body]);
            assert_eq!(bytes.len(), total);
            assert_eq!(Packet::parse(&bytes), Ok(Packet::Unsupported(what)));
            assert_eq!(Packet::parse(&bytes).unwrap().events().count(), 0);
            assert!(Packet::parse(&packet(kind, &vec![0; body - 1])).is_err());
        }
    }

    // spec: gamestream 13 item 86
    #[test]
    fn impossible_values_are_refused() {
        let field = |kind: u32, body: &[u8]| match Packet::parse(&packet(kind, body)) {
            Err(PacketError::Field { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        let mut touch = [0; 28];
        touch[8..12].copy_from_slice(&f32::NAN.to_le_bytes());
        assert_eq!(field(0x5500_0002, &touch), "number");
        touch[8..12].copy_from_slice(&f32::INFINITY.to_le_bytes());
        assert_eq!(field(0x5500_0003, &touch), "number");
        let mut pad = [0; 26];
        pad[2] = 16;
        assert_eq!(field(0x0C, &pad), "controller number");
        assert_eq!(field(0x5500_0007, &[16, 0, 0, 0]), "controller number");
        assert_eq!(field(0x08, &[6]), "button");
        assert_eq!(field(0x05, &[0, 1, 0, 1, 0, 0, 0, 0, 0, 9]), "reference size");
        assert_eq!(field(0x17, &[0xFF, 0xFE]), "text");
        assert_eq!(
            Packet::parse(&packet(0x06, &[0; 8])),
            Err(PacketError::UnknownKind { kind: 6 })
        );
    }

    // spec: gamestream 13 item 87
    #[test]
    fn the_high_byte_of_a_key_code_means_nothing() {
        for high in [0x00, 0x80] {
            assert_eq!(
                one(0x03, &[0, 0x0D, high, 0, 0, 0]),
                InputEvent::Key { key: KeyCode(28), pressed: true }
            );
        }
        assert_eq!(
            Packet::parse(&packet(0x03, &[0, 0xFF, 0x80, 0, 0, 0])),
            Ok(Packet::UnknownKey { virtual_key: 0xFF })
        );
    }

    // spec: gamestream 13 item 88
    #[test]
    fn positions_reach_the_edges_and_never_leave() {
        let at = |x: i16, y: i16, width: i16, height: i16| {
            let body: Vec<u8> =
                [x, y, 0, width, height].into_iter().flat_map(i16::to_be_bytes).collect();
            match one(0x05, &body) {
                InputEvent::PointerPosition { x, y } => (x, y),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(at(0, 0, 1279, 719), (0.0, 0.0));
        assert_eq!(at(1279, 719, 1279, 719), (1.0, 1.0));
        assert_eq!(at(-5, 9000, 1279, 719), (0.0, 1.0));
    }

    // spec: gamestream 13 item 90
    #[test]
    fn text_is_one_event_per_character() {
        let text = "aß€😀";
        let bytes = packet(0x17, text.as_bytes());
        assert_eq!(Packet::parse(&bytes), Ok(Packet::Text(text)));
        let typed: Vec<_> = Packet::parse(&bytes).unwrap().events().collect();
        assert_eq!(typed, text.chars().map(InputEvent::Text).collect::<Vec<_>>());
        for character in text.chars() {
            let bytes = packet(0x17, character.to_string().as_bytes());
            let typed: Vec<_> = Packet::parse(&bytes).unwrap().events().collect();
            assert_eq!(typed, [InputEvent::Text(character)]);
        }
        // Not terminated: what trails the packet is no text.
        let longer = [bytes, vec![b'x'; 3]].concat();
        assert_eq!(Packet::parse(&longer), Ok(Packet::Text(text)));
        assert!(Packet::parse(&packet(0x17, &[b'a'; 257])).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(kind in 0u32..0x20, body in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = Packet::parse(&body);
            for kind in [kind, 0x5500_0000 | kind] {
                if let Ok(packet) = Packet::parse(&packet(kind, &body)) {
                    for event in packet.events() {
                        if let InputEvent::PointerPosition { x, y } = event {
                            prop_assert!((0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y));
                        }
                    }
                }
            }
        }
    }
}
