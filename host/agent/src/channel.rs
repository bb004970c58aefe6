//! Packets and descriptors over a socket, in safe calls whose waits have an end.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Sends one packet, and a descriptor with it if there is one.
///
/// # Errors
/// The other side has hung up, or takes nothing within `patience`.
pub fn send(
    socket: impl AsFd,
    packet: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
    patience: Duration,
) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let descriptors: Vec<_> = descriptor.into_iter().collect();
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
            return Err(io::Error::other("there is no room for a descriptor"));
        }
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        match sendmsg(&socket, &[IoSlice::new(packet)], &mut control, flags) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => {
                if !wait(&socket, PollFlags::OUT, deadline)? {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "nobody takes a message"));
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What [`receive`] got.
#[derive(Debug)]
pub struct Received {
    /// The length of the packet; 0 is the end of the connection.
    pub bytes: usize,
    /// The descriptor that came along.
    pub descriptor: Option<OwnedFd>,
}

/// Waits for one packet; `buffer` is as long as the longest packet may be.
///
/// # Errors
/// The connection failed, or the packet was longer than the buffer or carried more than one descriptor (all of them are
/// closed then).
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Received> {
    // Room for two: a second descriptor is noticed instead of being cut off.
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let message = loop {
        let mut into = [IoSliceMut::new(buffer)];
        match recvmsg(&socket, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let mut descriptors: Vec<OwnedFd> = vec![];
    for part in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = part {
            descriptors.extend(some);
        }
    }
    if message.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) || descriptors.len() > 1 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "a message is over its limits"));
    }
    Ok(Received { bytes: message.bytes, descriptor: descriptors.pop() })
}

/// Whether `fd` became ready before `deadline`.
///
/// # Errors
/// It cannot be waited for.
pub fn wait(fd: impl AsFd, flags: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&fd, flags)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn a_packet_and_its_descriptor_arrive() {
        let (one, other) = pair();
        let (gift, kept) = pair();
        send(&one, b"packet", Some(gift.as_fd()), Duration::ZERO).unwrap();
        let mut buffer = [0; 16];
        let got = receive(&other, &mut buffer).unwrap();
        assert_eq!(&buffer[..got.bytes], b"packet");
        send(got.descriptor.unwrap(), b"x", None, Duration::ZERO).unwrap();
        assert_eq!(receive(&kept, &mut buffer).unwrap().bytes, 1);
        drop(one);
        assert_eq!(receive(&other, &mut buffer).unwrap().bytes, 0);
    }

    #[test]
    fn a_packet_that_is_too_long_and_a_second_descriptor_are_errors() {
        let (one, other) = pair();
        send(&one, &[0; 17], None, Duration::ZERO).unwrap();
        assert!(receive(&other, &mut [0; 16]).is_err());
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        for count in [2, 3] {
            let mut control = SendAncillaryBuffer::new(&mut space);
            let descriptors = vec![one.as_fd(); count];
            assert!(control.push(SendAncillaryMessage::ScmRights(&descriptors)));
            sendmsg(&one, &[IoSlice::new(b"x")], &mut control, SendFlags::empty()).unwrap();
            assert!(receive(&other, &mut [0; 16]).is_err(), "{count} descriptors");
        }
    }

    #[test]
    fn nobody_who_listens_is_noticed() {
        let (one, _other) = pair();
        let full = (0..10_000).find_map(|_| send(&one, &[0; 4096], None, Duration::ZERO).err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::TimedOut);
    }
}
