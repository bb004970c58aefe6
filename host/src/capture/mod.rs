//! Pictures out of a display: [`FrameSource`] is polled by the `pf-capture` thread and nobody else.
//!
//! A source delivers a frame when the screen changed and nothing while it is static; keeping the negotiated rate on a
//! static screen is the business of the encoding thread. The size travels in the frame: a mode change shows up there.

pub mod pattern;
pub mod testcard;
pub mod wlr;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender};
use std::time::Duration;

use punktfunk_core::media::SourceIndex;
use punktfunk_core::time::Timestamp;

/// A stream of pictures from one output.
pub trait FrameSource: Send {
    /// Waits up to `timeout` for the next picture; `Ok(None)` if the screen did not change in that time.
    ///
    /// # Errors
    /// [`CaptureError::Lost`] if the output is gone for good.
    fn next_frame(&mut self, timeout: Duration) -> Result<Option<CapturedFrame>, CaptureError>;
}

/// The memory layout of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Four bytes a pixel, in memory order blue, green, red, unused.
    Bgrx,
}

/// A rectangle of pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rect {
    /// Left edge in pixels.
    pub x: u32,
    /// Top edge in pixels.
    pub y: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
}

/// One captured picture.
#[derive(Debug)]
pub struct CapturedFrame {
    /// Counts the pictures of this source from 0, also those that nobody takes.
    pub index: SourceIndex,
    /// When the picture was complete.
    pub captured_at: Timestamp,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row to the next.
    pub stride: usize,
    /// The memory layout.
    pub format: PixelFormat,
    /// What changed since the previous picture; empty means "unknown, take all".
    pub damage: Vec<Rect>,
    /// The pixels, at least `stride * height` bytes.
    pub pixels: FrameBuffer,
}

/// A picture's memory; goes back to its pool when dropped.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: Vec<u8>,
    home: Option<SyncSender<Vec<u8>>>,
}

impl FrameBuffer {
    /// The pixels.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The pixels, to draw into.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for FrameBuffer {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // A full or closed pool only means that this buffer is freed instead of kept.
            let _ = home.try_send(std::mem::take(&mut self.bytes));
        }
    }
}

/// A few picture buffers that are used again and again.
#[derive(Debug)]
pub struct FramePool {
    free: Receiver<Vec<u8>>,
    home: SyncSender<Vec<u8>>,
}

impl FramePool {
    /// A pool that keeps up to `buffers` free buffers.
    pub fn new(buffers: usize) -> Self {
        let (home, free) = std::sync::mpsc::sync_channel(buffers);
        Self { free, home }
    }

    /// A buffer of `bytes` bytes; its contents are whatever the last user left.
    pub fn take(&self, bytes: usize) -> FrameBuffer {
        let mut buffer = self.free.try_recv().unwrap_or_default();
        buffer.resize(bytes, 0);
        FrameBuffer { bytes: buffer, home: Some(self.home.clone()) }
    }
}

/// What went wrong with a capture.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CaptureError {
    /// The output or its compositor is gone; the source will never deliver again.
    #[error("the captured output is gone: {reason}")]
    Lost {
        /// What was seen.
        reason: String,
    },
    /// Talking to the compositor failed.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        #[source]
        source: Arc<std::io::Error>,
    },
}
