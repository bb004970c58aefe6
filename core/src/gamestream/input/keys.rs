//! Windows virtual-key codes and the evdev codes of the same places on a keyboard.

use crate::input::KeyCode;

/// The evdev code of the key that has this virtual-key code on a US keyboard; `None` for codes that are no key.
// spec: gamestream 6.2
pub fn evdev_from_virtual_key(virtual_key: u8) -> Option<KeyCode> {
    TABLE.iter().find(|(have, _)| *have == virtual_key).map(|(_, code)| KeyCode(*code))
}

/// Sorted by virtual-key code; the numbers on the right are those of linux/input-event-codes.h.
#[rustfmt::skip]
const TABLE: &[(u8, u16)] = &[
    (0x08, 14), (0x09, 15), (0x0D, 28), // backspace, tab, enter
    (0x10, 42), (0x11, 29), (0x12, 56), (0x13, 119), (0x14, 58), // shift, ctrl, alt, pause, caps lock
    (0x1B, 1), (0x20, 57), // escape, space
    (0x21, 104), (0x22, 109), (0x23, 107), (0x24, 102), // page up, page down, end, home
    (0x25, 105), (0x26, 103), (0x27, 106), (0x28, 108), // left, up, right, down
    (0x2C, 99), (0x2D, 110), (0x2E, 111), (0x2F, 138), // print, insert, delete, help
    (0x30, 11), (0x31, 2), (0x32, 3), (0x33, 4), (0x34, 5), // 0 1 2 3 4
    (0x35, 6), (0x36, 7), (0x37, 8), (0x38, 9), (0x39, 10), // 5 6 7 8 9
    (0x41, 30), (0x42, 48), (0x43, 46), (0x44, 32), (0x45, 18), (0x46, 33), (0x47, 34), // a-g
    (0x48, 35), (0x49, 23), (0x4A, 36), (0x4B, 37), (0x4C, 38), (0x4D, 50), (0x4E, 49), // h-n
    (0x4F, 24), (0x50, 25), (0x51, 16), (0x52, 19), (0x53, 31), (0x54, 20), // o-t
    (0x55, 22), (0x56, 47), (0x57, 17), (0x58, 45), (0x59, 21), (0x5A, 44), // u-z
    (0x5B, 125), (0x5C, 126), (0x5D, 127), (0x5F, 142), // left meta, right meta, menu, sleep
    (0x60, 82), (0x61, 79), (0x62, 80), (0x63, 81), (0x64, 75), // keypad 0-4
    (0x65, 76), (0x66, 77), (0x67, 71), (0x68, 72), (0x69, 73), // keypad 5-9
    (0x6A, 55), (0x6B, 78), (0x6C, 121), (0x6D, 74), (0x6E, 83), (0x6F, 98), // keypad * + , - . /
    (0x70, 59), (0x71, 60), (0x72, 61), (0x73, 62), (0x74, 63), (0x75, 64), // F1-F6
    (0x76, 65), (0x77, 66), (0x78, 67), (0x79, 68), (0x7A, 87), (0x7B, 88), // F7-F12
    (0x7C, 183), (0x7D, 184), (0x7E, 185), (0x7F, 186), (0x80, 187), (0x81, 188), // F13-F18
    (0x82, 189), (0x83, 190), (0x84, 191), (0x85, 192), (0x86, 193), (0x87, 194), // F19-F24
    (0x90, 69), (0x91, 70), // num lock, scroll lock
    (0xA0, 42), (0xA1, 54), (0xA2, 29), (0xA3, 97), (0xA4, 56), (0xA5, 100), // left/right shift ctrl alt
    (0xA6, 158), (0xA7, 159), (0xA8, 173), (0xA9, 128), // back, forward, refresh, stop
    (0xAA, 217), (0xAB, 156), (0xAC, 172), // search, bookmarks, home page
    (0xAD, 113), (0xAE, 114), (0xAF, 115), // mute, volume down, volume up
    (0xB0, 163), (0xB1, 165), (0xB2, 166), (0xB3, 164), // next, previous, stop, play/pause
    (0xB4, 155), (0xB5, 226), (0xB6, 157), (0xB7, 140), // mail, media, computer, calculator
    (0xBA, 39), (0xBB, 13), (0xBC, 51), (0xBD, 12), (0xBE, 52), (0xBF, 53), (0xC0, 41), // ; = , - . / `
    (0xDB, 26), (0xDC, 43), (0xDD, 27), (0xDE, 40), (0xDF, 41), // [ \ ] ' and the grave key of British layouts
    (0xE2, 86), // the ISO key beside left shift
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_clients_send_is_a_key() {
        let ranges: [std::ops::RangeInclusive<u8>; 14] = [
            0x08..=0x09,
            0x0D..=0x0D,
            0x10..=0x14,
            0x1B..=0x1B,
            0x20..=0x28,
            0x2C..=0x2E,
            0x30..=0x39,
            0x41..=0x5D,
            0x60..=0x87,
            0x90..=0x91,
            0xA0..=0xB7,
            0xBA..=0xC0,
            0xDB..=0xDF,
            0xE2..=0xE2,
        ];
        for virtual_key in ranges.into_iter().flatten() {
            assert!(evdev_from_virtual_key(virtual_key).is_some(), "{virtual_key:#04x}");
        }
        assert_eq!(evdev_from_virtual_key(0), None);
        assert_eq!(evdev_from_virtual_key(0xFF), None);
    }

    #[test]
    fn the_table_is_sorted_without_doubles() {
        assert!(TABLE.is_sorted_by(|one, other| one.0 < other.0));
    }

    #[test]
    fn sides_and_keypad_are_told_apart() {
        let code = |virtual_key: u8| evdev_from_virtual_key(virtual_key).unwrap().0;
        assert_eq!((code(0xA0), code(0xA1)), (42, 54));
        assert_eq!((code(0xA2), code(0xA3), code(0xA5)), (29, 97, 100));
        assert_eq!((code(0x30), code(0x60)), (11, 82));
        assert_eq!((code(0x7A), code(0x7C)), (87, 183));
    }
}
