//! Pictures of a wlroots compositor's output, by `zwlr_screencopy_v1`.
//!
//! The compositor copies each picture into shared memory (a memfd); we read it with `pread` into a buffer of the pool,
//! which costs the same copy as a mapping would and needs no `unsafe`. The first picture is asked for at once, every
//! other one "with damage": the compositor answers when something changed, so a static screen costs nothing. A mode
//! change needs no renegotiation: the next offer names the new size.
//!
//! Deliberately absent: dmabuf, which needs a GPU on both sides.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_core::media::{Mode, SourceIndex};
use punktfunk_core::time::Timestamp;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use wayland_client::protocol::wl_buffer::WlBuffer;
use wayland_client::protocol::wl_callback::WlCallback;
use wayland_client::protocol::wl_output::WlOutput;
use wayland_client::protocol::wl_registry::{self, WlRegistry};
use wayland_client::protocol::wl_shm::{self, WlShm};
use wayland_client::protocol::wl_shm_pool::WlShmPool;
use wayland_client::{Connection, Dispatch, QueueHandle, WEnum, delegate_dispatch, delegate_noop};
use wayland_protocols_wlr::screencopy::v1::client::zwlr_screencopy_frame_v1::{
    self, Flags, ZwlrScreencopyFrameV1,
};
use wayland_protocols_wlr::screencopy::v1::client::zwlr_screencopy_manager_v1::ZwlrScreencopyManagerV1;

use super::{CaptureError, CapturedFrame, FrameBuffer, FramePool, FrameSource, PixelFormat, Rect};
use crate::clock;
use crate::display::wayland::{Answered, Link};

/// The source of one output's pictures.
#[derive(Debug)]
pub struct WlrSource {
    link: Link<State>,
    state: State,
    manager: ZwlrScreencopyManagerV1,
    output: WlOutput,
    shm: WlShm,
    /// The request in flight, and whether its copy has been asked for.
    request: Option<(ZwlrScreencopyFrameV1, bool)>,
    target: Option<Target>,
    pool: FramePool,
    delivered: u64,
    /// Since when every request has failed.
    failing_since: Option<Instant>,
}

impl WlrSource {
    /// Captures the first output of the compositor at the other end of `stream`.
    ///
    /// # Errors
    /// The compositor does not answer, or has no screencopy.
    pub fn open(stream: UnixStream) -> Result<Self, CaptureError> {
        let io = |source| failed("connecting to the compositor", source);
        let mut link = Link::over(stream).map_err(io)?;
        let mut state = State::default();
        let _registry = link.registry();
        link.roundtrip(&mut state).map_err(io)?;
        let missing = |what: &str| io(io::Error::other(format!("the compositor has no {what}")));
        Ok(Self {
            manager: state.manager.clone().ok_or_else(|| missing("screencopy, version 3"))?,
            output: state.output.clone().map(|(_, it)| it).ok_or_else(|| missing("output"))?,
            shm: state.shm.clone().ok_or_else(|| missing("shared memory"))?,
            link,
            state,
            request: None,
            target: None,
            pool: FramePool::new(POOLED_FRAMES),
            delivered: 0,
            failing_since: None,
        })
    }

    /// One round: ask if nothing is asked for, answer an offer, wait for events until `deadline`.
    fn step(&mut self, deadline: Instant) -> Result<Option<CapturedFrame>, CaptureError> {
        match std::mem::take(&mut self.state.progress) {
            Progress::Ready(at) => {
                self.failing_since = None;
                self.end_request();
                return self.collect(at).map(Some);
            }
            Progress::Failed => {
                self.end_request();
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= FAILURE_PATIENCE {
                    return Err(lost("the compositor refuses every picture"));
                }
                // A refusal may come at once, so asking again needs a bound on its rate.
                let pause = deadline.min(Instant::now() + RETRY_PAUSE);
                self.pump_until(pause)?;
            }
            Progress::Waiting => {}
        }
        if self.state.output_gone {
            return Err(lost("the output was removed"));
        }
        if self.request.is_none() {
            self.ask();
        }
        if let (Some((frame, copying @ false)), true) = (&mut self.request, self.state.offered) {
            *copying = true;
            let frame = frame.clone();
            self.copy_into_target(&frame)?;
        }
        self.pump_until(deadline)?;
        Ok(None)
    }

    fn ask(&mut self) {
        self.state.offer = None;
        self.state.offered = false;
        self.state.inverted = false;
        self.state.damage.clear();
        let with_cursor = 1;
        let frame = self.manager.capture_output(with_cursor, &self.output, &self.link.handle(), ());
        self.request = Some((frame, false));
    }

    fn copy_into_target(&mut self, frame: &ZwlrScreencopyFrameV1) -> Result<(), CaptureError> {
        let offer = self.state.offer.ok_or_else(|| {
            failed(
                "choosing a picture format",
                io::Error::other("no format that we know is offered"),
            )
        })?;
        if self.target.as_ref().is_none_or(|target| target.offer != offer) {
            let target = Target::new(offer, &self.shm, &self.link.handle())
                .map_err(|source| failed("making shared memory for a picture", source))?;
            self.target = Some(target);
        }
        if let Some(target) = &self.target {
            if self.delivered == 0 {
                frame.copy(&target.buffer);
            } else {
                frame.copy_with_damage(&target.buffer);
            }
        }
        Ok(())
    }

    /// Reads the finished picture out of the shared memory.
    fn collect(&mut self, at: Timestamp) -> Result<CapturedFrame, CaptureError> {
        let Some(Target { offer, memory, .. }) = &self.target else {
            return Err(failed("reading a picture", io::Error::other("it was never asked for")));
        };
        let mut pixels: FrameBuffer = self.pool.take(offer.bytes());
        memory
            .read_exact_at(pixels.bytes_mut(), 0)
            .map_err(|source| failed("reading a picture", source))?;
        if self.state.inverted {
            flip(pixels.bytes_mut(), offer.stride as usize);
        }
        if offer.red_first {
            swap_red_and_blue(pixels.bytes_mut());
        }
        let index = SourceIndex(self.delivered);
        self.delivered += 1;
        if self.state.damage.len() > MAX_DAMAGE_RECTS {
            self.state.damage.clear();
        }
        let damage = self.state.damage.drain(..);
        Ok(CapturedFrame {
            index,
            captured_at: at.min(clock::now()),
            width: offer.width,
            height: offer.height,
            stride: offer.stride as usize,
            format: PixelFormat::Bgrx,
            damage: damage.filter_map(|rect| clip(rect, offer.width, offer.height)).collect(),
            pixels,
        })
    }

    fn end_request(&mut self) {
        if let Some((frame, _)) = self.request.take() {
            frame.destroy();
        }
    }

    fn pump_until(&mut self, deadline: Instant) -> Result<(), CaptureError> {
        let left = deadline.saturating_duration_since(Instant::now());
        self.link.pump(&mut self.state, left).map_err(|error| lost(&error.to_string()))
    }
}

impl FrameSource for WlrSource {
    fn next_frame(&mut self, timeout: Duration) -> Result<Option<CapturedFrame>, CaptureError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(frame) = self.step(deadline)? {
                return Ok(Some(frame));
            }
            let settled = matches!(self.state.progress, Progress::Waiting);
            if settled && Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }
}

/// What the compositor would copy: it names the size before every picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Offer {
    format: wl_shm::Format,
    red_first: bool,
    width: u32,
    height: u32,
    stride: u32,
}

impl Offer {
    /// An offer of a format we know and of a size within the limits.
    fn new(format: wl_shm::Format, width: u32, height: u32, stride: u32) -> Option<Self> {
        let red_first = match format {
            wl_shm::Format::Xrgb8888 | wl_shm::Format::Argb8888 => false,
            wl_shm::Format::Xbgr8888 | wl_shm::Format::Abgr8888 => true,
            _ => return None,
        };
        let sides = 1..=Mode::MAX_SIDE;
        let fits = sides.contains(&width) && sides.contains(&height);
        let strides = width.checked_mul(4)?..=MAX_STRIDE;
        (fits && strides.contains(&stride)).then_some(Self {
            format,
            red_first,
            width,
            height,
            stride,
        })
    }

    fn bytes(&self) -> usize {
        self.stride as usize * self.height as usize
    }
}

/// The shared memory that the compositor copies into.
#[derive(Debug)]
struct Target {
    offer: Offer,
    memory: File,
    pool: WlShmPool,
    buffer: WlBuffer,
}

impl Target {
    fn new(offer: Offer, shm: &WlShm, queue: &QueueHandle<State>) -> io::Result<Self> {
        let memory = memfd_create("punktfunk-picture", MemfdFlags::CLOEXEC)?;
        ftruncate(&memory, offer.bytes() as u64)?;
        let [bytes, width, height, stride] =
            [offer.bytes(), offer.width as usize, offer.height as usize, offer.stride as usize]
                .map(|value| i32::try_from(value).map_err(io::Error::other));
        let pool = shm.create_pool(memory.as_fd(), bytes?, queue, ());
        let buffer = pool.create_buffer(0, width?, height?, stride?, offer.format, queue, ());
        Ok(Self { offer, memory: File::from(memory), pool, buffer })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.buffer.destroy();
        self.pool.destroy();
    }
}

/// What the compositor has told about the request in flight.
#[derive(Debug, Default)]
enum Progress {
    #[default]
    Waiting,
    Ready(Timestamp),
    Failed,
}

#[derive(Debug, Default)]
struct State {
    shm: Option<WlShm>,
    manager: Option<ZwlrScreencopyManagerV1>,
    output: Option<(u32, WlOutput)>,
    output_gone: bool,
    offer: Option<Offer>,
    /// All offers of this request have been made.
    offered: bool,
    inverted: bool,
    damage: Vec<Rect>,
    progress: Progress,
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
        match event {
            wl_registry::Event::Global { name, interface, version } => match interface.as_str() {
                // Only ever one of each: every binding is an object, and a compositor may name as many as it likes.
                "wl_shm" if state.shm.is_none() => {
                    state.shm = Some(registry.bind(name, 1, queue, ()));
                }
                "wl_output" if state.output.is_none() => {
                    state.output = Some((name, registry.bind(name, 1, queue, ())));
                }
                "zwlr_screencopy_manager_v1"
                    if state.manager.is_none() && version >= SCREENCOPY_VERSION =>
                {
                    state.manager = Some(registry.bind(name, SCREENCOPY_VERSION, queue, ()));
                }
                _ => {}
            },
            wl_registry::Event::GlobalRemove { name } => {
                state.output_gone |= state.output.as_ref().is_some_and(|(own, _)| *own == name);
            }
            _ => {}
        }
    }
}

impl Dispatch<ZwlrScreencopyFrameV1, ()> for State {
    fn event(
        state: &mut Self,
        _: &ZwlrScreencopyFrameV1,
        event: zwlr_screencopy_frame_v1::Event,
        (): &(),
        _: &Connection,
        _: &QueueHandle<Self>,
    ) {
        use zwlr_screencopy_frame_v1::Event;
        match event {
            Event::Buffer { format: WEnum::Value(format), width, height, stride } => {
                state.offer = state.offer.or_else(|| Offer::new(format, width, height, stride));
            }
            Event::BufferDone => state.offered = true,
            Event::Flags { flags: WEnum::Value(flags) } => {
                state.inverted = flags.contains(Flags::YInvert);
            }
            // One more than the limit is kept, which says that there were too many to tell.
            Event::Damage { x, y, width, height } if state.damage.len() <= MAX_DAMAGE_RECTS => {
                state.damage.push(Rect { x, y, width, height });
            }
            Event::Ready { tv_sec_hi, tv_sec_lo, tv_nsec } => {
                let seconds = u64::from(tv_sec_hi) << 32 | u64::from(tv_sec_lo);
                let micros =
                    seconds.saturating_mul(1_000_000).saturating_add(u64::from(tv_nsec / 1000));
                state.progress = Progress::Ready(Timestamp::from_micros(micros));
            }
            Event::Failed => state.progress = Progress::Failed,
            _ => {}
        }
    }
}

delegate_dispatch!(State: [WlCallback: Answered] => Answered);
delegate_noop!(State: ignore WlShm);
delegate_noop!(State: ignore WlOutput);
delegate_noop!(State: ignore WlBuffer);
delegate_noop!(State: WlShmPool);
delegate_noop!(State: ZwlrScreencopyManagerV1);

/// Turns a picture that begins with its last row the right way up.
fn flip(pixels: &mut [u8], stride: usize) {
    let rows = pixels.len() / stride;
    let (top, bottom) = pixels.split_at_mut(rows / 2 * stride);
    for (upper, lower) in top.chunks_exact_mut(stride).zip(bottom.chunks_exact_mut(stride).rev()) {
        upper.swap_with_slice(lower);
    }
}

fn swap_red_and_blue(pixels: &mut [u8]) {
    for pixel in pixels.chunks_exact_mut(4) {
        pixel.swap(0, 2);
    }
}

/// The part of `rect` that lies in the picture, if any.
fn clip(rect: Rect, width: u32, height: u32) -> Option<Rect> {
    let right = rect.x.saturating_add(rect.width).min(width);
    let bottom = rect.y.saturating_add(rect.height).min(height);
    (rect.x < right && rect.y < bottom).then(|| Rect {
        x: rect.x,
        y: rect.y,
        width: right - rect.x,
        height: bottom - rect.y,
    })
}

fn lost(reason: &str) -> CaptureError {
    CaptureError::Lost { reason: reason.to_owned() }
}

fn failed(doing: &str, source: io::Error) -> CaptureError {
    CaptureError::Io { doing: doing.to_owned(), source: Arc::new(source) }
}

/// Version 3 ends its offers with `buffer_done`.
const SCREENCOPY_VERSION: u32 = 3;
/// Pictures kept for reuse: one being encoded, one waiting, one being filled.
const POOLED_FRAMES: usize = 3;
/// The longest row of a picture in bytes: the largest side, with room for alignment.
const MAX_STRIDE: u32 = Mode::MAX_SIDE * 4 + 4096;
/// With more rectangles than this the whole picture counts as changed.
const MAX_DAMAGE_RECTS: usize = 64;
const RETRY_PAUSE: Duration = Duration::from_millis(5);
/// How long every request may fail before the output counts as lost.
const FAILURE_PATIENCE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inverted_picture_is_turned() {
        for rows in [1_u8, 2, 3, 5] {
            let mut pixels: Vec<u8> = (0..rows).flat_map(|row| [row; 8]).collect();
            flip(&mut pixels, 8);
            let expected: Vec<u8> = (0..rows).rev().flat_map(|row| [row; 8]).collect();
            assert_eq!(pixels, expected);
        }
    }

    #[test]
    fn an_offer_meets_its_limits_before_it_sizes_anything() {
        let format = wl_shm::Format::Xrgb8888;
        assert_eq!(Offer::new(format, 1280, 720, 5120).map(|it| it.bytes()), Some(3_686_400));
        assert_eq!(Offer::new(format, 1280, 720, 5119), None);
        assert_eq!(Offer::new(format, 8193, 720, 40_000), None);
        assert_eq!(Offer::new(format, u32::MAX, u32::MAX, u32::MAX), None);
        assert_eq!(Offer::new(format, 1280, 0, 5120), None);
        assert_eq!(Offer::new(wl_shm::Format::Nv12, 1280, 720, 5120), None);
    }

    #[test]
    fn damage_is_clipped_to_the_picture() {
        let rect = |x, y, width, height| Rect { x, y, width, height };
        assert_eq!(clip(rect(10, 10, u32::MAX, 5), 100, 100), Some(rect(10, 10, 90, 5)));
        assert_eq!(clip(rect(100, 0, 1, 1), 100, 100), None);
        assert_eq!(clip(rect(0, 0, 0, 9), 100, 100), None);
    }

    #[test]
    fn red_and_blue_change_places() {
        let mut pixels = [1, 2, 3, 4];
        swap_red_and_blue(&mut pixels);
        assert_eq!(pixels, [3, 2, 1, 4]);
    }
}
