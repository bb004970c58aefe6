//! The sockets that systemd has opened for the host (socket activation): ports below 1024, which a host without
//! privileges cannot open itself.
//!
//! systemd leaves bare descriptor numbers. Taking one over by its number alone is a promise that nobody else has it,
//! which the compiler cannot check; so the host asks the kernel for a copy of the descriptor through its own pidfd.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
use socket2::{SockRef, Type};

/// As many sockets as are taken over.
const MAX_SOCKETS: usize = 8;

/// A socket that systemd has opened.
#[derive(Debug)]
pub struct Inherited {
    /// What the socket unit calls it (`FileDescriptorName=`).
    pub name: String,
    /// The socket; does not block.
    pub listener: TcpListener,
}

/// What systemd has left for this process; nothing if it was started in another way.
///
/// # Errors
/// What systemd says is not so, or the kernel refused.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    let left: Vec<_> = sd_notify::listen_fds_with_names()?.take(MAX_SOCKETS).collect();
    if left.is_empty() {
        return Ok(Vec::new());
    }
    let own = pidfd_open(getpid(), PidfdFlags::empty())?;
    left.into_iter()
        .map(|(number, name)| {
            let descriptor = pidfd_getfd(&own, number, PidfdGetfdFlags::empty())?;
            Ok(Inherited { name, listener: listener(descriptor)? })
        })
        .collect()
}

fn listener(descriptor: OwnedFd) -> io::Result<TcpListener> {
    let socket = SockRef::from(&descriptor);
    let address = socket.local_addr()?.as_socket();
    if address.is_none() || socket.r#type()? != Type::STREAM || !socket.is_listener()? {
        return Err(io::Error::other("what systemd left is no TCP socket that listens"));
    }
    let listener = TcpListener::from(descriptor);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    #[test]
    fn a_number_becomes_a_socket_and_nothing_else_does() {
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = pidfd_open(getpid(), PidfdFlags::empty()).unwrap();
        let copy = |number| pidfd_getfd(&own, number, PidfdGetfdFlags::empty());
        let copied = listener(copy(ours.as_raw_fd()).unwrap()).unwrap();
        assert_eq!(copied.local_addr().unwrap(), ours.local_addr().unwrap());
        let file = tempfile::tempfile().unwrap();
        assert!(listener(copy(file.as_raw_fd()).unwrap()).is_err());
        let datagrams = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        assert!(listener(copy(datagrams.as_raw_fd()).unwrap()).is_err());
        assert!(copy(1_000_000).is_err());
    }
}
