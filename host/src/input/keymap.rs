//! Keyboard layouts for virtual keyboards, and the modifiers that their keys hold.
//!
//! A virtual keyboard tells the compositor its layout as a text that xkbcommon compiles. The layout of the keys is the
//! US one of every PC. The layout for text is made as it is needed: each character gets a key of its own.

use punktfunk_core::input::KeyCode;

/// A complete US keyboard of a PC, by the parts that every system with xkb data has.
pub(super) const US_KEYMAP: &str = r#"xkb_keymap {
  xkb_keycodes { include "evdev+aliases(qwerty)" };
  xkb_types { include "complete" };
  xkb_compat { include "complete" };
  xkb_symbols { include "pc+us+inet(evdev)" };
};
"#;

/// Which modifiers are held and locked, as the eight real modifiers of xkb.
#[derive(Debug, Clone, Default)]
pub(super) struct Modifiers {
    /// Modifier keys that are down. Left and right count apart: releasing one of two shifts keeps the modifier.
    held: Vec<KeyCode>,
    locked: u32,
}

impl Modifiers {
    /// Follows a key; whether the modifiers changed.
    pub(super) fn apply(&mut self, key: KeyCode, pressed: bool) -> bool {
        let before = (self.depressed(), self.locked);
        if modifier(key) != 0 {
            self.held.retain(|other| *other != key);
            if pressed {
                self.held.push(key);
            }
        } else if pressed {
            self.locked ^= lock(key);
        }
        before != (self.depressed(), self.locked)
    }

    /// Lets go of every modifier key; locks stay, as they do on a real keyboard.
    pub(super) fn release(&mut self) {
        self.held.clear();
    }

    pub(super) fn depressed(&self) -> u32 {
        self.held.iter().fold(0, |mask, key| mask | modifier(*key))
    }

    pub(super) fn locked(&self) -> u32 {
        self.locked
    }
}

fn modifier(key: KeyCode) -> u32 {
    match key.0 {
        42 | 54 => SHIFT,
        29 | 97 => CONTROL,
        56 | 100 => ALT,
        125 | 126 => META,
        _ => 0,
    }
}

fn lock(key: KeyCode) -> u32 {
    match key.0 {
        58 => CAPS,
        69 => NUM,
        _ => 0,
    }
}

/// A layout that has a key for each character asked for lately.
#[derive(Debug, Clone, Default)]
pub(super) struct TextKeymap {
    /// The character of each key of [`TEXT_KEYS`], from its first on.
    characters: Vec<char>,
    /// The key that gives way when all are taken.
    next: usize,
}

/// How to type a character.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Typed {
    /// The key that has it.
    pub(super) key: KeyCode,
    /// The layout is another one than before and must be sent first.
    pub(super) keymap_changed: bool,
}

impl TextKeymap {
    /// The key for a character; `None` for control characters that no key gives.
    pub(super) fn key_for(&mut self, character: char) -> Option<Typed> {
        keysym(character)?;
        if let Some(place) = self.characters.iter().position(|other| *other == character) {
            return Some(Typed { key: KeyCode(TEXT_KEYS[place]), keymap_changed: false });
        }
        let place = if self.characters.len() < TEXT_KEYS.len() {
            self.characters.push(character);
            self.characters.len() - 1
        } else {
            let place = self.next;
            self.next = (self.next + 1) % TEXT_KEYS.len();
            self.characters[place] = character;
            place
        };
        Some(Typed { key: KeyCode(TEXT_KEYS[place]), keymap_changed: true })
    }

    /// The layout as xkb text.
    pub(super) fn source(&self) -> String {
        let mut names = String::new();
        let mut symbols = String::new();
        for (place, code) in TEXT_KEYS.iter().enumerate() {
            // xkb counts keys from 8.
            names.push_str(&format!("    <T{place:02}> = {};\n", code + 8));
            let keysym = self.characters.get(place).and_then(|it| keysym(*it));
            let keysym = keysym.unwrap_or_else(|| "NoSymbol".to_owned());
            symbols.push_str(&format!("    key <T{place:02}> {{ [ {keysym} ] }};\n"));
        }
        format!(
            "xkb_keymap {{\n  xkb_keycodes \"text\" {{\n    minimum = 8;\n    maximum = 255;\n{names}  }};\n  \
             xkb_types {{ include \"complete\" }};\n  xkb_compat {{ include \"complete\" }};\n  \
             xkb_symbols \"text\" {{\n{symbols}  }};\n}};\n"
        )
    }
}

/// The xkb name of the key symbol that types a character.
fn keysym(character: char) -> Option<String> {
    Some(match character {
        '\n' | '\r' => "Return".to_owned(),
        '\t' => "Tab".to_owned(),
        '\u{8}' => "BackSpace".to_owned(),
        '\u{1b}' => "Escape".to_owned(),
        '\u{7f}' => "Delete".to_owned(),
        ' ' => "space".to_owned(),
        other if other.is_control() => return None,
        other => format!("U{:04X}", u32::from(other)),
    })
}

/// The positions that carry text: letters and digits. Programs that look at the position instead of the symbol then at
/// least do not take a character for Escape or F5.
const TEXT_KEYS: [u16; 36] = [
    2, 3, 4, 5, 6, 7, 8, 9, 10, 11, // the digits
    16, 17, 18, 19, 20, 21, 22, 23, 24, 25, // q to p
    30, 31, 32, 33, 34, 35, 36, 37, 38, // a to l
    44, 45, 46, 47, 48, 49, 50, // z to m
];

const SHIFT: u32 = 1;
const CAPS: u32 = 1 << 1;
const CONTROL: u32 = 1 << 2;
const ALT: u32 = 1 << 3;
const NUM: u32 = 1 << 4;
const META: u32 = 1 << 6;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEFT_SHIFT: KeyCode = KeyCode(42);
    const RIGHT_SHIFT: KeyCode = KeyCode(54);

    #[test]
    fn a_modifier_is_held_until_both_its_keys_are_up() {
        let mut modifiers = Modifiers::default();
        assert!(modifiers.apply(LEFT_SHIFT, true));
        assert!(!modifiers.apply(RIGHT_SHIFT, true));
        assert!(!modifiers.apply(LEFT_SHIFT, false));
        assert_eq!(modifiers.depressed(), SHIFT);
        assert!(modifiers.apply(RIGHT_SHIFT, false));
        assert_eq!(modifiers.depressed(), 0);
    }

    #[test]
    fn locks_toggle_when_pressed_and_survive_a_release() {
        let mut modifiers = Modifiers::default();
        assert!(modifiers.apply(KeyCode(58), true));
        assert!(!modifiers.apply(KeyCode(58), false));
        modifiers.apply(KeyCode(29), true);
        modifiers.release();
        assert_eq!((modifiers.depressed(), modifiers.locked()), (0, CAPS));
        assert!(modifiers.apply(KeyCode(58), true));
        assert_eq!(modifiers.locked(), 0);
        assert!(!modifiers.apply(KeyCode(30), true));
    }

    #[test]
    fn characters_of_one_to_four_bytes_have_a_key() {
        // spec: gamestream 13 item 90
        let mut keymap = TextKeymap::default();
        for (character, symbol) in
            [('a', "U0061"), ('ß', "U00DF"), ('€', "U20AC"), ('🎮', "U1F3AE")]
        {
            assert!(keymap.key_for(character).unwrap().keymap_changed);
            assert!(!keymap.key_for(character).unwrap().keymap_changed);
            assert!(keymap.source().contains(&format!("[ {symbol} ]")), "{character}");
        }
        assert_eq!(keymap.key_for('\0'), None);
    }

    proptest! {
        #[test]
        fn the_key_of_a_character_always_has_that_character(text in "\\PC{1,120}") {
            let mut keymap = TextKeymap::default();
            for character in text.chars() {
                let Some(typed) = keymap.key_for(character) else { continue };
                let place = TEXT_KEYS.iter().position(|code| *code == typed.key.0).unwrap();
                let line = format!("key <T{place:02}> {{ [ {} ] }};", keysym(character).unwrap());
                prop_assert!(keymap.source().contains(&line));
            }
        }
    }
}
