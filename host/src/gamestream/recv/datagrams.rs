//! A UDP socket that knows the local address of every datagram.
//!
//! A host may have several addresses, and a client takes answers only from the one it spoke to. So every datagram is
//! received with the address it was sent to, and an answer names that address as its source. The socket is shared with
//! the threads that send media over it: asking for local addresses is the only option that is set.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::sync::Arc;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt,
};

use crate::stream::Peer;
use crate::stream::udp::{BurstSocket, Segmentation};

/// Room for the largest datagram.
const BUFFER_BYTES: usize = 64 * 1024;

/// Where a datagram came from and where it was sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Origin {
    /// The sender, as the socket names it: on a socket for both families an IPv4 address is a mapped one.
    pub(super) remote: SocketAddr,
    /// The local address it was sent to, if the kernel said so.
    pub(super) local: Option<IpAddr>,
}

impl Origin {
    /// The way back.
    pub(super) fn peer(self) -> Peer {
        Peer { to: self.remote, from: self.local }
    }
}

/// A socket with its buffer.
pub(super) struct Datagrams {
    socket: Arc<UdpSocket>,
    sender: BurstSocket,
    buffer: Vec<u8>,
    control: Vec<u8>,
}

impl Datagrams {
    /// Asks the kernel for local addresses.
    pub(super) fn new(socket: Arc<UdpSocket>) -> io::Result<Self> {
        if socket.local_addr()?.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        } else {
            setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        }
        let sender = BurstSocket::new(Arc::clone(&socket), 0, Segmentation::Off)?;
        let control = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
        Ok(Self { socket, sender, buffer: vec![0; BUFFER_BYTES], control })
    }

    /// The socket, to wait on.
    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// The next datagram, or `None` if there is none now. Never waits.
    pub(super) fn receive(&mut self) -> Option<(Origin, &[u8])> {
        let (origin, bytes) = loop {
            match self.receive_once() {
                Ok(Some(received)) => break received,
                Ok(None) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return None,
                // Errors that the kernel reports here concern datagrams that were sent to others.
                Err(error) => {
                    tracing::trace!(%error, "receiving failed");
                    return None;
                }
            }
        };
        Some((origin, self.buffer.get(..bytes)?))
    }

    /// One system call; `None` if the datagram has no sender that could be answered.
    fn receive_once(&mut self) -> nix::Result<Option<(Origin, usize)>> {
        let mut slices = [IoSliceMut::new(&mut self.buffer)];
        let message = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut slices,
            Some(&mut self.control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let Some(remote) = message.address.as_ref().and_then(socket_address) else {
            return Ok(None);
        };
        let local = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                Some(Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes()).into())
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                Some(IpAddr::from(Ipv6Addr::from(info.ipi6_addr.s6_addr)).to_canonical())
            }
            _ => None,
        });
        Ok(Some((Origin { remote, local }, message.bytes)))
    }

    /// Sends one datagram. What the network does not take now is lost, as datagrams may be.
    pub(super) fn send(&mut self, to: Origin, contents: &[u8]) {
        self.sender.set_source(to.local);
        if let Err(error) = self.sender.send_one(contents, to.remote) {
            tracing::trace!(%error, peer = %to.remote, "a datagram could not be sent");
        }
    }
}

fn socket_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| SocketAddr::V6((*v6).into())))
}
