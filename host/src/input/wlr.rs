//! Input into a wlroots compositor: a virtual pointer and two virtual keyboards.
//!
//! The devices are made when the sink opens and held until it drops, because the headless seat has no capabilities
//! without them. One keyboard has a complete US layout and carries keys by their position; the other carries text: its
//! layout is made of the characters that were asked for ([`super::keymap`]). Two devices, so that text never disturbs
//! the layout or the modifiers of the keys.
//!
//! Deliberately absent: repeating keys. The compositor's clients repeat a key that is down by themselves, so the
//! repetitions that a client of ours sends are swallowed.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use punktfunk_core::input::{InputEvent, KeyCode, PointerButton, ScrollAxis};
use rustix::fs::{MemfdFlags, memfd_create};
use wayland_client::protocol::wl_callback::WlCallback;
use wayland_client::protocol::wl_output::{self, WlOutput};
use wayland_client::protocol::wl_pointer::{Axis, AxisSource, ButtonState};
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::protocol::wl_seat::WlSeat;
use wayland_client::{
    Connection, Dispatch, Proxy, QueueHandle, WEnum, delegate_dispatch, delegate_noop,
};
use wayland_protocols_misc::zwp_virtual_keyboard_v1::client::zwp_virtual_keyboard_manager_v1::ZwpVirtualKeyboardManagerV1;
use wayland_protocols_misc::zwp_virtual_keyboard_v1::client::zwp_virtual_keyboard_v1::ZwpVirtualKeyboardV1;
use wayland_protocols_wlr::virtual_pointer::v1::client::zwlr_virtual_pointer_manager_v1::ZwlrVirtualPointerManagerV1;
use wayland_protocols_wlr::virtual_pointer::v1::client::zwlr_virtual_pointer_v1::ZwlrVirtualPointerV1;

use super::keymap::{Modifiers, TextKeymap, US_KEYMAP};
use super::{InputError, InputSink, pixel};
use crate::clock;
use crate::display::wayland::{Answered, Link};

/// The virtual devices of one session.
#[derive(Debug)]
pub struct WlrSink {
    link: Link<State>,
    state: State,
    pointer: ZwlrVirtualPointerV1,
    keys: ZwpVirtualKeyboardV1,
    typist: ZwpVirtualKeyboardV1,
    modifiers: Modifiers,
    text: TextKeymap,
    keys_down: Vec<KeyCode>,
    buttons_down: Vec<PointerButton>,
}

impl WlrSink {
    /// Makes devices on the first seat and output of the compositor at the other end of `stream`.
    ///
    /// # Errors
    /// The compositor does not answer, or has no virtual devices.
    pub fn open(stream: UnixStream) -> Result<Self, InputError> {
        Self::open_on(stream).map_err(|error| lost(&error))
    }

    fn open_on(stream: UnixStream) -> io::Result<Self> {
        let mut link = Link::over(stream)?;
        let mut state = State::default();
        let _registry = link.registry();
        link.roundtrip(&mut state)?;
        let missing = |what: &str| io::Error::other(format!("the compositor has no {what}"));
        let seat = state.seat.clone().ok_or_else(|| missing("seat"))?;
        let output = state.output.clone().ok_or_else(|| missing("output"))?;
        let pointers = state.pointers.clone().ok_or_else(|| missing("virtual pointers"))?;
        let keyboards = state.keyboards.clone().ok_or_else(|| missing("virtual keyboards"))?;
        let queue = link.handle();
        let pointer =
            pointers.create_virtual_pointer_with_output(Some(&seat), Some(&output), &queue, ());
        // The last keyboard made is the one the seat shows first: the one with the keys.
        let typist = keyboards.create_virtual_keyboard(&seat, &queue, ());
        let keys = keyboards.create_virtual_keyboard(&seat, &queue, ());
        let text = TextKeymap::default();
        send_keymap(&typist, &text.source())?;
        send_keymap(&keys, US_KEYMAP)?;
        // The first tells the compositor of the devices, the second our answer of the output's size.
        link.roundtrip(&mut state)?;
        link.roundtrip(&mut state)?;
        if state.size.is_none() {
            return Err(missing("mode on its output"));
        }
        Ok(Self {
            link,
            state,
            pointer,
            keys,
            typist,
            modifiers: Modifiers::default(),
            text,
            keys_down: Vec::new(),
            buttons_down: Vec::new(),
        })
    }

    fn key(&mut self, key: KeyCode, pressed: bool) {
        let down = self.keys_down.contains(&key);
        if down == pressed || (pressed && self.keys_down.len() >= MAX_KEYS_DOWN) {
            return;
        }
        if pressed {
            self.keys_down.push(key);
        } else {
            self.keys_down.retain(|other| *other != key);
        }
        self.keys.key(millis(), u32::from(key.0), u32::from(pressed));
        if self.modifiers.apply(key, pressed) {
            self.send_modifiers();
        }
    }

    fn send_modifiers(&self) {
        self.keys.modifiers(self.modifiers.depressed(), 0, self.modifiers.locked(), 0);
    }

    fn text(&mut self, character: char) -> Result<(), InputError> {
        let unsupported =
            InputError::Unsupported { what: "this control character", device: DEVICE };
        let typed = self.text.key_for(character).ok_or(unsupported)?;
        if typed.keymap_changed {
            send_keymap(&self.typist, &self.text.source()).map_err(|error| lost(&error))?;
        }
        self.typist.key(millis(), u32::from(typed.key.0), 1);
        self.typist.key(millis(), u32::from(typed.key.0), 0);
        // Held modifiers belong to the other keyboard; show them again now that it is its turn.
        self.send_modifiers();
        Ok(())
    }

    fn button(&mut self, button: PointerButton, pressed: bool) {
        if self.buttons_down.contains(&button) == pressed {
            return;
        }
        let state = if pressed {
            self.buttons_down.push(button);
            ButtonState::Pressed
        } else {
            self.buttons_down.retain(|other| *other != button);
            ButtonState::Released
        };
        self.pointer.button(millis(), button_code(button), state);
        self.pointer.frame();
    }

    fn move_to(&mut self, x: f32, y: f32) {
        let Some((width, height)) = self.state.size else { return };
        // Twice the extent, so that the middle of the pixel is hit and no rounding reaches its neighbour.
        let (column, row) = (pixel(x, width), pixel(y, height));
        self.pointer.motion_absolute(millis(), 2 * column + 1, 2 * row + 1, 2 * width, 2 * height);
        self.pointer.frame();
    }

    /// A turn by whole detents is told as such. Any other turn is told by its distance alone: programs take a detent
    /// for its full distance whatever distance comes with it, so telling both would scroll too far.
    fn scroll(&mut self, axis: ScrollAxis, v120: i32) {
        // Wayland counts down and right as positive, we count up and right.
        let (axis, v120) = match axis {
            ScrollAxis::Vertical => (Axis::VerticalScroll, v120.saturating_neg()),
            ScrollAxis::Horizontal => (Axis::HorizontalScroll, v120),
        };
        let distance = f64::from(v120) / f64::from(DETENT) * DETENT_DISTANCE;
        if v120 % DETENT == 0 {
            self.pointer.axis_source(AxisSource::Wheel);
            self.pointer.axis_discrete(millis(), axis, distance, v120 / DETENT);
        } else {
            self.pointer.axis_source(AxisSource::Continuous);
            self.pointer.axis(millis(), axis, distance);
        }
        self.pointer.frame();
    }

    /// Sends what was asked for, and looks for news (a new size, the end of the connection) without waiting.
    fn exchange(&mut self) -> Result<(), InputError> {
        self.link.pump(&mut self.state, Duration::ZERO).map_err(|error| lost(&error))
    }
}

impl InputSink for WlrSink {
    fn apply(&mut self, event: &InputEvent) -> Result<(), InputError> {
        match *event {
            InputEvent::Key { key, pressed } => self.key(key, pressed),
            InputEvent::Text(character) => self.text(character)?,
            InputEvent::PointerMotion { dx, dy } => {
                self.pointer.motion(millis(), f64::from(dx), f64::from(dy));
                self.pointer.frame();
            }
            InputEvent::PointerPosition { x, y } => {
                // A mode change that has just happened counts.
                self.exchange()?;
                self.move_to(x, y);
            }
            InputEvent::Button { button, pressed } => self.button(button, pressed),
            InputEvent::Scroll { axis, v120 } => self.scroll(axis, v120),
        }
        self.exchange()
    }

    fn release_all(&mut self) -> Result<(), InputError> {
        for key in std::mem::take(&mut self.keys_down) {
            self.keys.key(millis(), u32::from(key.0), 0);
        }
        for button in std::mem::take(&mut self.buttons_down) {
            self.pointer.button(millis(), button_code(button), ButtonState::Released);
            self.pointer.frame();
        }
        self.modifiers.release();
        self.send_modifiers();
        self.exchange()
    }
}

impl Drop for WlrSink {
    fn drop(&mut self) {
        // With a dead compositor there is nothing left to release.
        let _ = self.release_all();
        self.pointer.destroy();
        self.keys.destroy();
        self.typist.destroy();
        let _ = self.link.flush();
    }
}

#[derive(Debug, Default)]
struct State {
    seat: Option<WlSeat>,
    output: Option<WlOutput>,
    pointers: Option<ZwlrVirtualPointerManagerV1>,
    keyboards: Option<ZwpVirtualKeyboardManagerV1>,
    /// The output's size in pixels.
    size: Option<(u32, u32)>,
}

impl Dispatch<WlRegistry, ()> for State {
    fn event(
        state: &mut Self,
        registry: &WlRegistry,
        event: wl_registry::Event,
        (): &(),
        _: &Connection,
        queue: &QueueHandle<Self>,
    ) {
        let wl_registry::Event::Global { name, interface, version } = event else { return };
        // Only ever one of each: every binding is an object, and a compositor may name as many as it likes.
        match interface.as_str() {
            "wl_seat" if state.seat.is_none() => {
                state.seat = Some(registry.bind(name, 1, queue, ()));
            }
            "wl_output" if state.output.is_none() => {
                state.output = Some(registry.bind(name, 1, queue, ()));
            }
            "zwlr_virtual_pointer_manager_v1"
                if state.pointers.is_none() && version >= POINTER_VERSION =>
            {
                state.pointers = Some(registry.bind(name, POINTER_VERSION, queue, ()));
            }
            "zwp_virtual_keyboard_manager_v1" if state.keyboards.is_none() => {
                state.keyboards = Some(registry.bind(name, 1, queue, ()));
            }
            _ => {}
        }
    }
}

impl Dispatch<WlOutput, ()> for State {
    fn event(
        state: &mut Self,
        output: &WlOutput,
        event: wl_output::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        let wl_output::Event::Mode { flags: WEnum::Value(flags), width, height, .. } = event else {
            return;
        };
        let own = state.output.as_ref().is_some_and(|own| own.id() == output.id());
        if own && flags.contains(wl_output::Mode::Current) {
            let side = |pixels: i32| {
                u32::try_from(pixels).ok().filter(|side| (1..=MAX_SIDE).contains(side))
            };
            state.size = side(width).zip(side(height)).or(state.size);
        }
    }
}

delegate_dispatch!(State: [WlCallback: Answered] => Answered);
delegate_noop!(State: ignore WlSeat);
delegate_noop!(State: ZwlrVirtualPointerManagerV1);
delegate_noop!(State: ZwlrVirtualPointerV1);
delegate_noop!(State: ZwpVirtualKeyboardManagerV1);
delegate_noop!(State: ZwpVirtualKeyboardV1);

/// Gives a keyboard its layout; the compositor gets a memory file with the text and a closing zero.
fn send_keymap(keyboard: &ZwpVirtualKeyboardV1, source: &str) -> io::Result<()> {
    let mut memory = File::from(memfd_create("punktfunk-keymap", MemfdFlags::CLOEXEC)?);
    memory.write_all(source.as_bytes())?;
    memory.write_all(&[0])?;
    let bytes = u32::try_from(source.len() + 1).map_err(io::Error::other)?;
    keyboard.keymap(XKB_V1, memory.as_fd(), bytes);
    Ok(())
}

/// Linux input event codes.
fn button_code(button: PointerButton) -> u32 {
    match button {
        PointerButton::Left => 0x110,
        PointerButton::Right => 0x111,
        PointerButton::Middle => 0x112,
        PointerButton::Back => 0x113,
        PointerButton::Forward => 0x114,
    }
}

/// Milliseconds of a clock whose origin does not matter; it wraps.
fn millis() -> u32 {
    (clock::now().as_micros() / 1000) as u32
}

fn lost(error: &io::Error) -> InputError {
    InputError::Lost { reason: error.to_string() }
}

const DEVICE: &str = "the virtual keyboard";
/// `create_virtual_pointer_with_output` came with version 2.
const POINTER_VERSION: u32 = 2;
/// `wl_keyboard.keymap_format.xkb_v1`.
const XKB_V1: u32 = 1;
/// One detent of a wheel, in the unit of events.
const DETENT: i32 = 120;
/// What one detent of a wheel moves, in the unit of `wl_pointer.axis`; libinput's value for an ordinary mouse.
const DETENT_DISTANCE: f64 = 15.0;
/// Nobody holds more keys than this; a client that claims to is not believed.
const MAX_KEYS_DOWN: usize = 64;
/// The largest side of an output in pixels; twice of it still fits a coordinate.
const MAX_SIDE: u32 = 1 << 16;
