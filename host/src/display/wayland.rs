//! A Wayland connection whose every wait has an end.
//!
//! `wayland-client` can block for ever when a compositor hangs; threads of a stream must not. A [`Link`] polls the
//! socket itself and gives up after a named time. Capture and input each have a connection of their own, because each
//! belongs to another thread.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use wayland_client::backend::WaylandError;
use wayland_client::protocol::wl_callback::WlCallback;
use wayland_client::protocol::wl_registry::WlRegistry;
use wayland_client::{Connection, Dispatch, EventQueue, QueueHandle};

/// A connection and the one queue of its events.
#[derive(Debug)]
pub(crate) struct Link<S: 'static> {
    connection: Connection,
    queue: EventQueue<S>,
}

impl<S: 'static> Link<S> {
    /// Speaks over a stream that is connected to a compositor.
    ///
    /// # Errors
    /// The connection cannot be used.
    pub(crate) fn over(stream: UnixStream) -> io::Result<Self> {
        let connection = Connection::from_socket(stream).map_err(io::Error::other)?;
        let queue = connection.new_event_queue();
        Ok(Self { connection, queue })
    }

    /// What new objects are made with.
    pub(crate) fn handle(&self) -> QueueHandle<S> {
        self.queue.handle()
    }

    /// Asks for the registry; its globals arrive with the next [`Link::roundtrip`].
    pub(crate) fn registry(&self) -> WlRegistry
    where
        S: Dispatch<WlRegistry, ()>,
    {
        self.connection.display().get_registry(&self.queue.handle(), ())
    }

    /// Sends what waits, then takes the events that are there or arrive within `timeout` (zero: only look).
    ///
    /// # Errors
    /// The connection is gone, or the compositor reported an error of protocol.
    pub(crate) fn pump(&mut self, state: &mut S, timeout: Duration) -> io::Result<()> {
        let taken = self.queue.dispatch_pending(state).map_err(io::Error::other)?;
        self.flush()?;
        if taken > 0 {
            return Ok(());
        }
        let Some(guard) = self.connection.prepare_read() else {
            return self.queue.dispatch_pending(state).map(drop).map_err(io::Error::other);
        };
        if wait(&guard.connection_fd(), PollFlags::IN, timeout)? {
            match guard.read() {
                Ok(_) => {}
                Err(WaylandError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(io::Error::other(error)),
            }
        }
        self.queue.dispatch_pending(state).map(drop).map_err(io::Error::other)
    }

    /// Waits until the compositor has answered everything sent so far.
    ///
    /// # Errors
    /// As [`Link::pump`], or no answer within [`ROUNDTRIP_PATIENCE`].
    pub(crate) fn roundtrip(&mut self, state: &mut S) -> io::Result<()>
    where
        S: Dispatch<WlCallback, Answered>,
    {
        let answered = Answered::default();
        self.connection.display().sync(&self.queue.handle(), answered.clone());
        let deadline = Instant::now() + ROUNDTRIP_PATIENCE;
        while !answered.0.load(Ordering::Relaxed) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the compositor does not answer",
                ));
            }
            self.pump(state, left)?;
        }
        Ok(())
    }

    /// Sends what waits. A socket that stays full for [`FLUSH_PATIENCE`] belongs to a compositor that hangs.
    ///
    /// # Errors
    /// The connection is gone or stuck.
    pub(crate) fn flush(&self) -> io::Result<()> {
        loop {
            match self.connection.flush() {
                Ok(()) => return Ok(()),
                Err(WaylandError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                    if !wait(&self.connection.as_fd(), PollFlags::OUT, FLUSH_PATIENCE)? {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the compositor takes no more requests",
                        ));
                    }
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        }
    }
}

/// Set when the compositor has answered a [`Link::roundtrip`].
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

impl Answered {
    /// To be called from the `Dispatch` of the callback.
    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether `fd` became ready within `timeout`.
fn wait(fd: &impl AsFd, flags: PollFlags, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(fd, flags)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

const ROUNDTRIP_PATIENCE: Duration = Duration::from_secs(5);
const FLUSH_PATIENCE: Duration = Duration::from_millis(200);
