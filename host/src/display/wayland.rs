//! A Wayland connection whose every wait has an end.
//!
//! `wayland-client` can block for ever when a compositor hangs; threads of a stream must not. A [`Link`] polls the
//! socket itself and gives up after a named time. Capture and input each have a connection of their own, because each
//! belongs to another thread.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, SockAddr, Socket, Type};
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
    /// Connects to the compositor's socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or nobody accepts within [`ROUNDTRIP_PATIENCE`].
    pub(crate) fn connect(path: &Path) -> io::Result<Self> {
        let stream = connect_within(path, ROUNDTRIP_PATIENCE)?;
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

/// Connects to a compositor's socket. One that hangs accepts nobody, and once its short queue is full a plain `connect`
/// waits for ever; this one gives up after `patience`, which also bounds each later write.
///
/// # Errors
/// Nobody listens there, or the queue stays full.
pub(super) fn connect_within(path: &Path, patience: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The kernel counts a local connect as a write.
    socket.set_write_timeout(Some(patience))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(UnixStream::from(OwnedFd::from(socket)))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connecting_to_a_compositor_that_accepts_nobody_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let hung = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        hung.bind(&SockAddr::unix(&path).unwrap()).unwrap();
        hung.listen(1).unwrap();
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let tries = (0..4).map(|_| connect_within(&path, Duration::from_millis(20)));
            let _ = done.send(tries.collect::<Vec<_>>());
        });
        let tries = is_done.recv_timeout(Duration::from_secs(20)).expect("connect hangs");
        assert!(tries[0].is_ok() && tries[3].is_err(), "{tries:?}");
    }
}
