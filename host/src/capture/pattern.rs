//! The test card as a source of pictures: no compositor, no process, exact to the refresh.
//!
//! The source, the virtual output and the input devices of one card share a [`Stage`]: what the card shows and how it
//! behaves. Each value is an atomic of its own, so neither the capturing nor the receiving thread ever waits for the
//! other. Tests hold the stage too and let the card stand still, fail or die.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use punktfunk_core::input::{InputEvent, KeyCode};
use punktfunk_core::media::{Mode, SourceIndex};
use punktfunk_core::time::Timestamp;

use super::testcard::{CardCode, Scene, TestCard};
use super::{CaptureError, CapturedFrame, FramePool, FrameSource, PixelFormat};
use crate::clock;

/// How a card behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Behaviour {
    /// A new picture at every refresh.
    #[default]
    Moving,
    /// No new pictures, like a screen on which nothing happens.
    Static,
    /// Every attempt to get a picture fails; later ones may work again.
    Failing,
    /// The output is gone for good.
    Dead,
}

/// What the parts of one card share. Cheap to call from any thread.
#[derive(Debug)]
pub struct Stage {
    /// Width, height (16 bits each) and refresh (32 bits).
    mode: AtomicU64,
    behaviour: AtomicU8,
    /// Zero: no pointer yet. Otherwise a one, buttons down, y, x (16 bits each).
    pointer: AtomicU64,
    /// The last input shown, see [`Shown`].
    shown: AtomicU64,
    /// The newest events, for whoever wants to check what arrived. Nobody on the line reads it, so the receiving
    /// thread never finds it locked while a stream runs.
    events: Mutex<VecDeque<InputEvent>>,
}

impl Stage {
    /// A stage for a card of this mode.
    pub fn new(mode: Mode) -> Self {
        Self {
            mode: AtomicU64::new(pack(mode)),
            behaviour: AtomicU8::new(Behaviour::Moving as u8),
            pointer: AtomicU64::new(0),
            shown: AtomicU64::new(0),
            events: Mutex::new(VecDeque::new()),
        }
    }

    /// The mode in force; `None` never happens, because only modes are stored.
    fn mode(&self) -> Option<Mode> {
        let packed = self.mode.load(Ordering::Relaxed);
        let side = |shift: u32| (packed >> shift) as u32 & 0xFFFF;
        Mode::new(side(48), side(32), packed as u32).ok()
    }

    /// Changes the mode; the next picture has it.
    pub fn set_mode(&self, mode: Mode) {
        self.mode.store(pack(mode), Ordering::Relaxed);
    }

    /// How the card behaves.
    pub fn behaviour(&self) -> Behaviour {
        let stored = self.behaviour.load(Ordering::Relaxed);
        let all = [Behaviour::Moving, Behaviour::Static, Behaviour::Failing];
        all.into_iter().find(|it| *it as u8 == stored).unwrap_or(Behaviour::Dead)
    }

    /// Makes the card behave so from now on.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        self.behaviour.store(behaviour as u8, Ordering::Relaxed);
    }

    /// The newest input events, oldest first; at most 256.
    pub fn events(&self) -> Vec<InputEvent> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect()
    }

    /// Keeps an event for [`Stage::events`].
    pub(crate) fn record(&self, event: InputEvent) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.len() == MAX_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }

    /// Shows this input on the card.
    pub(crate) fn show(&self, shown: Shown) {
        self.shown.store(shown.pack(), Ordering::Relaxed);
    }

    /// The size of the picture in pixels.
    pub(crate) fn size(&self) -> (u32, u32) {
        self.mode().map_or((0, 0), |mode| (mode.width(), mode.height()))
    }

    /// Where the pointer is, in pixels, and how many buttons are down.
    pub(crate) fn pointer(&self) -> Option<(u32, u32, u16)> {
        let packed = self.pointer.load(Ordering::Relaxed);
        let part = |shift: u32| (packed >> shift) as u16;
        (packed != 0).then(|| (u32::from(part(0)), u32::from(part(16)), part(32)))
    }

    /// Moves the pointer of the card.
    pub(crate) fn set_pointer(&self, x: u32, y: u32, buttons: u16) {
        let packed = 1 << 48
            | u64::from(buttons) << 32
            | u64::from(y & 0xFFFF) << 16
            | u64::from(x & 0xFFFF);
        self.pointer.store(packed, Ordering::Relaxed);
    }
}

/// What kind of input the card names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shown {
    Nothing,
    Key(KeyCode, bool),
    Text(char),
    Button(u16),
    Scroll(i32),
}

impl Shown {
    /// Kind in the upper half, value in the lower.
    fn pack(self) -> u64 {
        let (kind, value) = match self {
            Self::Nothing => (0, 0),
            Self::Key(key, pressed) => (1, u32::from(key.0) | u32::from(pressed) << 16),
            Self::Text(character) => (2, u32::from(character)),
            Self::Button(count) => (3, u32::from(count)),
            Self::Scroll(v120) => (4, v120.cast_unsigned()),
        };
        kind << 32 | u64::from(value)
    }

    fn unpack(packed: u64) -> Self {
        let value = packed as u32;
        match packed >> 32 {
            1 => Self::Key(KeyCode(value as u16), value >> 16 == 1),
            2 => char::from_u32(value).map_or(Self::Nothing, Self::Text),
            3 => Self::Button(value as u16),
            4 => Self::Scroll(value.cast_signed()),
            _ => Self::Nothing,
        }
    }

    fn words(self) -> String {
        match self {
            Self::Nothing => "NO INPUT YET".to_owned(),
            Self::Key(key, pressed) => {
                let name = key_name(key).map_or_else(|| key.0.to_string(), str::to_owned);
                format!("KEY {name} {}", if pressed { "DOWN" } else { "UP" })
            }
            Self::Text(character) if character.is_ascii_graphic() => format!("TEXT {character}"),
            Self::Text(character) => format!("TEXT U+{:04X}", u32::from(character)),
            Self::Button(0) => "BUTTON UP".to_owned(),
            Self::Button(count) => format!("BUTTON DOWN ({count})"),
            Self::Scroll(v120) => format!("SCROLL {v120}"),
        }
    }
}

/// The pictures of a card, at its refresh.
#[derive(Debug)]
pub struct PatternSource {
    stage: Arc<Stage>,
    mode: Mode,
    card: TestCard,
    pool: FramePool,
    next: SourceIndex,
    /// When the next picture is due.
    due: Timestamp,
    /// A picture must be delivered even if the card is static: the first one, and one of a new size.
    owed: bool,
}

impl PatternSource {
    /// A source that draws what `stage` says, `mode` being its mode now. The first picture is due at once.
    pub fn new(stage: Arc<Stage>, mode: Mode) -> Self {
        Self {
            mode,
            card: TestCard::new(mode),
            pool: FramePool::new(POOLED_FRAMES),
            next: SourceIndex(0),
            due: clock::now(),
            owed: true,
            stage,
        }
    }

    fn follow_mode(&mut self) {
        let Some(mode) = self.stage.mode().filter(|mode| *mode != self.mode) else { return };
        if (mode.width(), mode.height()) != (self.mode.width(), self.mode.height()) {
            self.owed = true;
        }
        self.mode = mode;
        self.card = TestCard::new(mode);
        self.due = clock::now();
    }

    fn draw(&mut self) -> CapturedFrame {
        let now = clock::now();
        // The schedule is absolute, so small delays do not add up; after a long one it starts anew, because pictures
        // that nobody could take must not come in a burst. No number is skipped: a missing one means a lost picture.
        self.due = self.due + self.mode.frame_interval();
        if self.due < now {
            self.due = now + self.mode.frame_interval();
        }
        let index = self.next;
        self.next = SourceIndex(index.0 + 1);
        let pointer = self.stage.pointer();
        let place = pointer.map(|(x, y, _)| format!("  {x},{y}")).unwrap_or_default();
        let input = Shown::unpack(self.stage.shown.load(Ordering::Relaxed)).words() + &place;
        let mut pixels = self.pool.take(self.card.bytes());
        let damage = self.card.draw(
            pixels.bytes_mut(),
            &Scene {
                code: CardCode { frame: index.0 as u32, time: now },
                pointer: pointer.map(|(x, y, _)| (x, y)),
                pressed: pointer.is_some_and(|(.., buttons)| buttons > 0),
                input: &input,
            },
        );
        let fresh = std::mem::take(&mut self.owed);
        CapturedFrame {
            index,
            captured_at: now,
            width: self.mode.width(),
            height: self.mode.height(),
            stride: self.card.stride(),
            format: PixelFormat::Bgrx,
            damage: if fresh { Vec::new() } else { damage },
            pixels,
        }
    }
}

impl FrameSource for PatternSource {
    fn next_frame(&mut self, timeout: Duration) -> Result<Option<CapturedFrame>, CaptureError> {
        let deadline = clock::now() + timeout;
        loop {
            self.follow_mode();
            let now = clock::now();
            let wake = match self.stage.behaviour() {
                Behaviour::Dead => {
                    return Err(CaptureError::Lost {
                        reason: "the card was told to die".to_owned(),
                    });
                }
                Behaviour::Failing => {
                    return Err(CaptureError::Io {
                        doing: "drawing the card".to_owned(),
                        source: Arc::new(io::Error::other("it was told to fail")),
                    });
                }
                Behaviour::Static if !self.owed => now + LOOK_AGAIN,
                Behaviour::Static | Behaviour::Moving if self.due <= now => {
                    return Ok(Some(self.draw()));
                }
                Behaviour::Static | Behaviour::Moving => self.due.min(now + LOOK_AGAIN),
            };
            if now >= deadline {
                return Ok(None);
            }
            std::thread::sleep(clock::until(wake.min(deadline)));
        }
    }
}

fn pack(mode: Mode) -> u64 {
    let size = u64::from(mode.width()) << 48 | u64::from(mode.height()) << 32;
    size | u64::from(mode.refresh_millihz())
}

/// What stands on a key of a US keyboard, where that is worth showing.
fn key_name(key: KeyCode) -> Option<&'static str> {
    let index = usize::from(key.0);
    KEY_NAMES.get(index).copied().filter(|name| !name.is_empty()).or(match key.0 {
        97 => Some("RIGHT CTRL"),
        100 => Some("RIGHT ALT"),
        102 => Some("HOME"),
        103 => Some("UP ARROW"),
        104 => Some("PAGE UP"),
        105 => Some("LEFT ARROW"),
        106 => Some("RIGHT ARROW"),
        107 => Some("END"),
        108 => Some("DOWN ARROW"),
        109 => Some("PAGE DOWN"),
        110 => Some("INSERT"),
        111 => Some("DELETE"),
        125 => Some("META"),
        _ => None,
    })
}

#[rustfmt::skip]
const KEY_NAMES: [&str; 89] = [
    "", "ESC", "1", "2", "3", "4", "5", "6", "7", "8", "9", "0", "-", "=", "BACKSPACE", "TAB",
    "Q", "W", "E", "R", "T", "Y", "U", "I", "O", "P", "[", "]", "ENTER", "LEFT CTRL",
    "A", "S", "D", "F", "G", "H", "J", "K", "L", ";", "'", "`", "LEFT SHIFT", "\\",
    "Z", "X", "C", "V", "B", "N", "M", ",", ".", "/", "RIGHT SHIFT", "KP *", "LEFT ALT", "SPACE",
    "CAPS LOCK", "F1", "F2", "F3", "F4", "F5", "F6", "F7", "F8", "F9", "F10", "NUM LOCK",
    "SCROLL LOCK", "KP 7", "KP 8", "KP 9", "KP -", "KP 4", "KP 5", "KP 6", "KP +", "KP 1", "KP 2",
    "KP 3", "KP 0", "KP .", "", "", "<", "F11", "F12",
];

const MAX_EVENTS: usize = 256;
/// Pictures kept for reuse: one being encoded, one waiting, one being drawn.
const POOLED_FRAMES: usize = 3;
/// How soon a change of mode or behaviour is noticed while no picture is due.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::testcard::read_code;

    fn source(width: u32, height: u32, refresh_millihz: u32) -> (Arc<Stage>, PatternSource) {
        let mode = Mode::new(width, height, refresh_millihz).unwrap();
        let stage = Arc::new(Stage::new(mode));
        (Arc::clone(&stage), PatternSource::new(stage, mode))
    }

    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn pictures_carry_their_index_and_their_time() {
        let (_stage, mut source) = source(640, 360, 120_000);
        for index in 0..5 {
            let frame = source.next_frame(LONG).unwrap().unwrap();
            assert_eq!(frame.index, SourceIndex(index));
            let code = read_code(frame.pixels.bytes(), frame.width, frame.height, frame.stride);
            let expected = CardCode { frame: index as u32, time: frame.captured_at };
            assert_eq!(code, Some(expected));
        }
    }

    #[test]
    fn the_pace_is_the_refresh() {
        let (_stage, mut source) = source(64, 64, 100_000);
        let mut next = || source.next_frame(LONG).unwrap().unwrap().captured_at;
        let first = next();
        let last = (0..20).map(|_| next()).last().unwrap();
        // A busy machine makes it later, nothing may make it earlier.
        assert!(last.since(first) >= Duration::from_millis(190), "{:?}", last.since(first));
    }

    #[test]
    fn a_static_card_delivers_one_picture_and_then_one_per_mode() {
        let (stage, mut source) = source(640, 360, 60_000);
        stage.set_behaviour(Behaviour::Static);
        assert!(source.next_frame(LONG).unwrap().is_some());
        assert!(source.next_frame(Duration::from_millis(60)).unwrap().is_none());
        stage.set_mode(Mode::new(720, 480, 60_000).unwrap());
        let frame = source.next_frame(LONG).unwrap().unwrap();
        assert_eq!((frame.width, frame.height, frame.index), (720, 480, SourceIndex(1)));
        stage.set_behaviour(Behaviour::Moving);
        assert!(source.next_frame(LONG).unwrap().is_some());
    }

    #[test]
    fn a_card_can_fail_for_a_while_and_die_for_good() {
        let (stage, mut source) = source(640, 360, 60_000);
        stage.set_behaviour(Behaviour::Failing);
        assert!(matches!(source.next_frame(LONG), Err(CaptureError::Io { .. })));
        stage.set_behaviour(Behaviour::Moving);
        assert!(source.next_frame(LONG).unwrap().is_some());
        stage.set_behaviour(Behaviour::Dead);
        assert!(matches!(source.next_frame(LONG), Err(CaptureError::Lost { .. })));
    }

    #[test]
    fn what_is_shown_survives_its_packing() {
        let all = [
            Shown::Nothing,
            Shown::Key(KeyCode(30), true),
            Shown::Key(KeyCode(767), false),
            Shown::Text('🎮'),
            Shown::Button(2),
            Shown::Scroll(-120),
        ];
        for shown in all {
            assert_eq!(Shown::unpack(shown.pack()), shown);
        }
        assert_eq!(Shown::Key(KeyCode(30), true).words(), "KEY A DOWN");
        assert_eq!(Shown::Key(KeyCode(88), false).words(), "KEY F12 UP");
        assert_eq!(Shown::Key(KeyCode(57), true).words(), "KEY SPACE DOWN");
        assert_eq!(Shown::Text('ß').words(), "TEXT U+00DF");
    }

    #[test]
    fn modes_survive_their_packing() {
        for (width, height, refresh) in
            [(16, 16, 1_000), (8192, 8192, 500_000), (1126, 2436, 59_940)]
        {
            let mode = Mode::new(width, height, refresh).unwrap();
            assert_eq!(Stage::new(mode).mode(), Some(mode));
        }
    }
}
