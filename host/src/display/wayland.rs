//! A Wayland connection whose every wait has an end, and whose compositor is not trusted.
//!
//! `wayland-client` can block for ever when a compositor hangs; threads of a stream must not. A [`Link`] polls the
//! socket itself and gives up after a named time. Capture and input each have a connection of their own, because each
//! belongs to another thread.
//!
//! A game may take its compositor's place. `wayland-client` reads until there is nothing left, and keeps whatever
//! descriptors come: who talks faster than it reads would hold a thread and fill the host's memory, and who sends
//! descriptors would use up the host's. So it is given one end of a socket pair instead, and the [`Link`] carries bytes
//! between the other end and the compositor: a bounded number at a time, and no descriptor towards us, for no event that
//! we listen to has one.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};
use wayland_client::backend::WaylandError;
use wayland_client::protocol::wl_callback::{self, WlCallback};
use wayland_client::protocol::wl_registry::WlRegistry;
use wayland_client::{Connection, Dispatch, EventQueue, QueueHandle};

/// A connection and the one queue of its events.
#[derive(Debug)]
pub(crate) struct Link<S: 'static> {
    connection: Connection,
    queue: EventQueue<S>,
    carrier: Carrier,
}

impl<S: 'static> Link<S> {
    /// Speaks over a stream that is connected to a compositor.
    ///
    /// # Errors
    /// The connection cannot be used.
    pub(crate) fn over(stream: UnixStream) -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        let connection = Connection::from_socket(near).map_err(io::Error::other)?;
        let queue = connection.new_event_queue();
        let carrier =
            Carrier { compositor: stream, client: far, waiting: vec![], descriptors: vec![] };
        Ok(Self { connection, queue, carrier })
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

    /// Sends what waits, then takes events that are there or arrive within `timeout` (zero: only look): not more than
    /// [`MAX_TAKEN_BYTES`] of them; the rest waits for the next time.
    ///
    /// # Errors
    /// The connection is gone, the compositor reported an error of protocol, or it sent a descriptor.
    pub(crate) fn pump(&mut self, state: &mut S, timeout: Duration) -> io::Result<()> {
        let taken = self.queue.dispatch_pending(state).map_err(io::Error::other)?;
        self.flush()?;
        if taken > 0 {
            return Ok(());
        }
        if wait(&self.carrier.compositor, PollFlags::IN, timeout)? {
            self.carrier.bring()?;
        }
        // Nobody else reads, so there is always a guard; what was brought is there, and nothing is waited for.
        match self.connection.prepare_read().map(|guard| guard.read()) {
            Some(Err(WaylandError::Io(error))) if error.kind() == io::ErrorKind::WouldBlock => {}
            Some(Err(error)) => return Err(io::Error::other(error)),
            Some(Ok(_)) | None => {}
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
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        loop {
            let all = match self.connection.flush() {
                Ok(()) => true,
                // There is more than the pair of sockets holds: that goes first.
                Err(WaylandError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => false,
                Err(error) => return Err(io::Error::other(error)),
            };
            self.carrier.take_away()?;
            if all {
                return Ok(());
            }
        }
    }
}

/// Carries bytes between the compositor and `wayland-client`.
#[derive(Debug)]
struct Carrier {
    compositor: UnixStream,
    /// The other end of what `wayland-client` takes for the compositor.
    client: UnixStream,
    /// What the compositor has not taken yet, and the descriptors that go with its first byte.
    waiting: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Carrier {
    /// Brings what the compositor says. `wayland-client` takes all of it before more is brought, so there is room.
    fn bring(&self) -> io::Result<()> {
        let mut bytes = [0; MAX_TAKEN_BYTES];
        // Without room for them the kernel keeps descriptors back: not even closing one is ours to do, and closing a
        // file of a game's own file system could wait for that game.
        let mut nothing = RecvAncillaryBuffer::default();
        let into = &mut [IoSliceMut::new(&mut bytes)];
        let got = match recvmsg(&self.compositor, into, &mut nothing, RecvFlags::DONTWAIT) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            got => got?,
        };
        if got.flags.contains(ReturnFlags::CTRUNC) {
            return Err(io::Error::other("the compositor sends descriptors that nobody asked for"));
        }
        if got.bytes == 0 {
            return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the compositor has hung up"));
        }
        let brought =
            send(&self.client, &bytes[..got.bytes], SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
        if brought == got.bytes { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    /// Takes to the compositor what `wayland-client` says.
    fn take_away(&mut self) -> io::Result<()> {
        loop {
            self.send_waiting()?;
            let mut bytes = [0; MAX_TAKEN_BYTES];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
            let into = &mut [IoSliceMut::new(&mut bytes)];
            let count = match recvmsg(&self.client, into, &mut control, flags) {
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(rustix::io::Errno::INTR) => continue,
                got => got?.bytes,
            };
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.waiting.extend_from_slice(&bytes[..count]);
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = part {
                    self.descriptors.extend(some);
                }
            }
        }
    }

    fn send_waiting(&mut self) -> io::Result<()> {
        while !self.waiting.is_empty() {
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors: Vec<_> = self.descriptors.iter().map(AsFd::as_fd).collect();
            if !descriptors.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(&descriptors));
            }
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match sendmsg(&self.compositor, &[IoSlice::new(&self.waiting)], &mut control, flags) {
                Ok(count) => {
                    self.waiting.drain(..count);
                    self.descriptors.clear();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => {
                    if !wait(&self.compositor, PollFlags::OUT, FLUSH_PATIENCE)? {
                        return Err(io::Error::new(
                            io::ErrorKind::TimedOut,
                            "the compositor takes no more requests",
                        ));
                    }
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Set when the compositor has answered a [`Link::roundtrip`]; a state delegates the callback to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<AtomicBool>);

impl<S: Dispatch<WlCallback, Self>> Dispatch<WlCallback, Self, S> for Answered {
    fn event(
        _: &mut S,
        _: &WlCallback,
        _: wl_callback::Event,
        answered: &Self,
        _: &Connection,
        _: &QueueHandle<S>,
    ) {
        answered.0.store(true, Ordering::Relaxed);
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
/// What is taken of the compositor's events at a time. Capture and input need a few hundred bytes a picture.
const MAX_TAKEN_BYTES: usize = 16 * 1024;
/// As many descriptors `wayland-client` sends at once.
const MAX_DESCRIPTORS: usize = 28;

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::mpsc::channel;

    use wayland_client::delegate_dispatch;
    use wayland_client::protocol::wl_registry;

    use super::*;

    /// Counts the globals that it hears of.
    #[derive(Debug, Default)]
    struct Listener(usize);

    impl Dispatch<WlRegistry, ()> for Listener {
        fn event(
            listener: &mut Self,
            _: &WlRegistry,
            _: wl_registry::Event,
            (): &(),
            _: &Connection,
            _: &QueueHandle<Self>,
        ) {
            listener.0 += 1;
        }
    }

    delegate_dispatch!(Listener: [WlCallback: Answered] => Answered);

    /// `wl_registry.global(1, "x", 1)`, to the second object that a client makes.
    fn global() -> Vec<u8> {
        let words = [2_u32, 24 << 16, 1, 2, u32::from_ne_bytes(*b"x\0\0\0"), 1];
        words.iter().flat_map(|word| word.to_ne_bytes()).collect()
    }

    fn open_registry() -> (UnixStream, Link<Listener>, WlRegistry) {
        let (near, far) = UnixStream::pair().unwrap();
        let link = Link::over(near).unwrap();
        let registry = link.registry();
        (far, link, registry)
    }

    #[test]
    fn a_compositor_that_never_stops_talking_holds_nobody() {
        let (mut far, mut link, _registry) = open_registry();
        let flood = std::thread::spawn(move || {
            let events = global().repeat(16_384);
            while far.write_all(&events).is_ok() {}
        });
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let mut listener = Listener::default();
            for _ in 0..100 {
                link.pump(&mut listener, Duration::from_millis(100)).unwrap();
            }
            tell.send(listener.0).unwrap();
        });
        let heard = told.recv_timeout(Duration::from_secs(20)).expect("a look has an end");
        assert!((1..=100 * MAX_TAKEN_BYTES / global().len()).contains(&heard), "{heard}");
        flood.join().unwrap();
    }

    #[test]
    fn a_compositor_that_sends_descriptors_ends_its_connection_and_none_arrives() {
        let (far, mut link, _registry) = open_registry();
        let (gift, kept) = UnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors = [gift.as_fd(); MAX_DESCRIPTORS];
        assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
        sendmsg(&far, &[IoSlice::new(&global())], &mut control, SendFlags::empty()).unwrap();
        drop(gift);
        let error = link.pump(&mut Listener::default(), Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("descriptors"), "{error}");
        // Nobody has the other end any more.
        assert!(wait(&kept, PollFlags::IN, Duration::ZERO).unwrap());
    }

    #[test]
    fn descriptors_of_ours_reach_the_compositor_in_order() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut link = Link::<Listener>::over(near).unwrap();
        let mut ends = vec![];
        for number in 0..200_u8 {
            let (gift, kept) = UnixStream::pair().unwrap();
            // As long as a compositor does not read, requests pile up in between.
            link.carrier.waiting.extend_from_slice(&[number; 4096]);
            link.carrier.descriptors.push(gift.into());
            link.carrier.send_waiting().unwrap_or_else(|error| {
                assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            });
            ends.push(kept);
            if !link.carrier.waiting.is_empty() {
                break;
            }
        }
        assert!(ends.len() < 200, "the compositor's socket is never full");
        let mut heard = vec![];
        while heard.len() < ends.len() {
            let mut bytes = [0; 4096];
            let mut space =
                [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let into = &mut [IoSliceMut::new(&mut bytes)];
            recvmsg(&far, into, &mut control, RecvFlags::empty()).unwrap();
            for part in control.drain() {
                if let RecvAncillaryMessage::ScmRights(some) = part {
                    heard.extend(some);
                }
            }
            // What did not fit goes now.
            link.flush().unwrap();
        }
        for (number, end) in ends.iter().enumerate() {
            // Each descriptor is the other end of one of ours, and they came in order.
            (&mut &*end).write_all(&[7]).unwrap();
            let mut byte = [0];
            rustix::net::recv(&heard[number], &mut byte, RecvFlags::DONTWAIT).unwrap();
            assert_eq!(byte, [7]);
        }
    }
}
