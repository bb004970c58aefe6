//! Where bursts leave: one system call for many datagrams where the kernel can cut them up, one per datagram elsewhere.
//!
//! A [`BurstSocket`] shares the door's socket with whoever reads it, so it changes none of its options: mark, source
//! address and segment size travel with each message, and no message waits inside the kernel. Segmentation offload is
//! looked for once and given up for good when a driver refuses it at run time.
//!
//! Deliberately absent: a retry of lost datagrams. What the kernel does not take in time is lost like any datagram, and
//! parity or a new picture makes up for it; a late one helps nobody.

use std::io::{self, IoSlice};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, MsgFlags, SockaddrStorage, sendmsg, setsockopt, sockopt::UdpGsoSegment,
};
use punktfunk_core::line::Burst;
use rustix::event::{PollFd, PollFlags, Timespec};

/// How long one burst waits for room in the socket's buffer, all its messages together.
const PATIENCE: Duration = Duration::from_millis(20);

/// The most segments a kernel cuts one message into.
const MAX_SEGMENTS: usize = 64;

/// The largest UDP payload over IPv4, which a message must not exceed even if it is cut up.
const MAX_MESSAGE_BYTES: usize = 65_507;

/// The segment size with which the kernel is asked whether it can segment.
const PROBE_SEGMENT_BYTES: i32 = 1400;

/// Whether to use the kernel's segmentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Segmentation {
    /// Use it if the kernel has it.
    #[default]
    Auto,
    /// Send every datagram on its own, for drivers that claim more than they can.
    Off,
}

/// Why a burst did not leave, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The socket's buffer stayed full; the rest of the burst was given up.
    #[error("the socket took {sent} of {count} datagrams in {} ms", PATIENCE.as_millis())]
    Full {
        /// Datagrams that left.
        sent: usize,
        /// Datagrams of the burst.
        count: usize,
    },
    /// There is no way to the client at the moment.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Where to.
        peer: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// The socket itself failed.
    #[error("sending to {peer}")]
    Socket {
        /// Where to.
        peer: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

impl SendError {
    /// The next burst may well go through.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unreachable { .. })
    }

    /// The kernel may have refused the source address that was set, because the host does not have it (any more) or no
    /// way begins there.
    pub fn may_concern_source(&self) -> bool {
        let (Self::Unreachable { source, .. } | Self::Socket { source, .. }) = self else {
            return false;
        };
        let errno = source.raw_os_error().map(Errno::from_raw);
        matches!(errno, Some(Errno::EINVAL | Errno::EADDRNOTAVAIL | Errno::ENETUNREACH))
    }
}

/// The sending side of a shared UDP socket.
#[derive(Debug)]
pub struct BurstSocket {
    socket: Arc<UdpSocket>,
    /// The socket is of the IPv6 family and takes IPv4 addresses only in mapped form.
    v6: bool,
    tos: u8,
    source: Option<IpAddr>,
    /// Datagrams per message; 1 once segmentation is off.
    segments: usize,
}

impl BurstSocket {
    /// The sending side of `socket`, which marks what it sends with the IP type-of-service byte `tos` (0 = leave as is).
    ///
    /// # Errors
    /// If the socket has no local address.
    pub fn new(socket: Arc<UdpSocket>, tos: u8, segmentation: Segmentation) -> io::Result<Self> {
        let v6 = socket.local_addr()?.is_ipv6();
        let segment = segmentation == Segmentation::Auto && kernel_segments();
        let segments = if segment { MAX_SEGMENTS } else { 1 };
        Ok(Self { socket, v6, tos, source: None, segments })
    }

    /// Whether bursts leave in one system call at the moment.
    pub const fn segments(&self) -> bool {
        self.segments > 1
    }

    /// Which local address datagrams come from; `None` leaves it to the routing table. A host with several addresses
    /// must answer from the one the client knows.
    pub fn set_source(&mut self, source: Option<IpAddr>) {
        self.source = source;
    }

    /// Sends a burst to `peer`. Waits at most 20 ms for room in the socket's buffer.
    ///
    /// # Errors
    /// [`SendError`]; what was not sent is lost.
    pub fn send(&mut self, burst: &Burst<'_>, peer: SocketAddr) -> Result<(), SendError> {
        self.send_all(burst.datagrams, burst.segment_bytes, peer)
    }

    /// Sends a single datagram to `peer`.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_one(&mut self, datagram: &[u8], peer: SocketAddr) -> Result<(), SendError> {
        self.send_all(datagram, datagram.len(), peer)
    }

    fn send_all(
        &mut self,
        datagrams: &[u8],
        segment_bytes: usize,
        peer: SocketAddr,
    ) -> Result<(), SendError> {
        if datagrams.is_empty() {
            return Ok(());
        }
        let segment_bytes = segment_bytes.clamp(1, MAX_MESSAGE_BYTES);
        let deadline = Instant::now() + PATIENCE;
        let mut sent = 0;
        while sent < datagrams.len() {
            let message = &datagrams[sent..];
            let message = &message[..message.len().min(self.message_bytes(segment_bytes))];
            match self.send_message(message, segment_bytes, peer) {
                Ok(()) => sent += message.len(),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) if wait_writable(&*self.socket, deadline) => {}
                Err(Errno::EAGAIN) => {
                    let count = datagrams.len().div_ceil(segment_bytes);
                    return Err(SendError::Full { sent: sent / segment_bytes, count });
                }
                Err(errno @ (Errno::EIO | Errno::EINVAL | Errno::EMSGSIZE))
                    if message.len() > segment_bytes =>
                {
                    // Only a datagram sent alone tells whether the offload or the message was at fault. One that is
                    // too large for the path (EMSGSIZE) may still leave in fragments, which a segment may not.
                    self.send_message(&message[..segment_bytes], segment_bytes, peer)
                        .map_err(|errno| failure(errno, peer))?;
                    sent += segment_bytes;
                    self.segments = 1;
                    tracing::info!(%errno, "segmentation offload refused, sending datagrams one by one");
                }
                Err(errno) => return Err(failure(errno, peer)),
            }
        }
        Ok(())
    }

    /// How many bytes go into one message.
    const fn message_bytes(&self, segment_bytes: usize) -> usize {
        let fitting = MAX_MESSAGE_BYTES / segment_bytes;
        segment_bytes * if fitting < self.segments { fitting } else { self.segments }
    }

    /// One system call; never waits.
    fn send_message(
        &self,
        message: &[u8],
        segment_bytes: usize,
        peer: SocketAddr,
    ) -> nix::Result<()> {
        let peer = self.in_family(peer);
        let to_v4 = peer.ip().to_canonical().is_ipv4();
        // Below 65507, see `send_all`.
        let segment = segment_bytes as u16;
        let (tos_v4, tos_v6) = (self.tos, i32::from(self.tos));
        let source_v4 = self.source.and_then(packet_info_v4);
        let source_v6 = self.source.and_then(packet_info_v6);

        let mut control = [ControlMessage::UdpGsoSegments(&segment); 3];
        let mut count = usize::from(message.len() > segment_bytes);
        if self.tos != 0 {
            control[count] = if to_v4 {
                ControlMessage::Ipv4Tos(&tos_v4)
            } else {
                ControlMessage::Ipv6TClass(&tos_v6)
            };
            count += 1;
        }
        // A source of the other family cannot be meant for this peer.
        let source = match (to_v4, &source_v4, &source_v6) {
            (true, Some(info), _) => Some(ControlMessage::Ipv4PacketInfo(info)),
            (false, _, Some(info)) => Some(ControlMessage::Ipv6PacketInfo(info)),
            _ => None,
        };
        if let Some(source) = source {
            control[count] = source;
            count += 1;
        }
        let sent = sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(message)],
            &control[..count],
            // The reader may use the socket in blocking mode; the sender must not.
            MsgFlags::MSG_DONTWAIT,
            Some(&SockaddrStorage::from(peer)),
        );
        sent.map(|_| ())
    }

    /// An IPv4 address as an IPv6 socket wants it.
    fn in_family(&self, peer: SocketAddr) -> SocketAddr {
        match peer {
            SocketAddr::V4(v4) if self.v6 => {
                SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0).into()
            }
            SocketAddr::V6(v6) if !self.v6 => {
                v6.ip().to_ipv4_mapped().map_or(peer, |ip| SocketAddr::new(ip.into(), v6.port()))
            }
            _ => peer,
        }
    }
}

/// Whether this kernel cuts messages into datagrams.
fn kernel_segments() -> bool {
    // A socket of its own: on the shared one the option would segment the messages of others.
    UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))
        .is_ok_and(|probe| setsockopt(&probe, UdpGsoSegment, &PROBE_SEGMENT_BYTES).is_ok())
}

/// Waits until the socket takes more; false once the deadline has passed or the socket is broken.
fn wait_writable(socket: impl AsFd, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return false;
    }
    let Ok(timeout) = Timespec::try_from(left) else { return false };
    let mut fds = [PollFd::new(&socket, PollFlags::OUT)];
    match rustix::event::poll(&mut fds, Some(&timeout)) {
        Ok(ready) => ready > 0,
        Err(error) => error == rustix::io::Errno::INTR,
    }
}

/// Tells a missing way from a broken socket.
fn failure(errno: Errno, peer: SocketAddr) -> SendError {
    let source = io::Error::from(errno);
    match errno {
        // A firewall's refusal and an interface that is down pass; a peer's ICMP answer may surface on any send.
        Errno::ENETUNREACH
        | Errno::EHOSTUNREACH
        | Errno::ENETDOWN
        | Errno::EHOSTDOWN
        | Errno::ECONNREFUSED
        | Errno::EPERM
        | Errno::EACCES
        | Errno::ENOBUFS
        | Errno::ENOMEM
        | Errno::EMSGSIZE
        | Errno::EADDRNOTAVAIL => SendError::Unreachable { peer, source },
        _ => SendError::Socket { peer, source },
    }
}

fn packet_info_v4(source: IpAddr) -> Option<libc::in_pktinfo> {
    let IpAddr::V4(ip) = source.to_canonical() else { return None };
    let address = |s_addr| libc::in_addr { s_addr };
    Some(libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: address(u32::from_ne_bytes(ip.octets())),
        ipi_addr: address(0),
    })
}

fn packet_info_v6(source: IpAddr) -> Option<libc::in6_pktinfo> {
    let IpAddr::V6(ip) = source.to_canonical() else { return None };
    let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
    Some(libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 })
}

#[cfg(test)]
mod tests {
    use std::io::IoSliceMut;
    use std::os::unix::net::UnixDatagram;

    use nix::sys::socket::{ControlMessageOwned, recvmsg, sockopt::IpRecvTos};
    use punktfunk_core::media::FrameIndex;

    use super::*;

    const SEGMENT: usize = 1200;

    /// A receiver that gives up instead of hanging.
    fn receiver(address: &str) -> UdpSocket {
        let socket = UdpSocket::bind(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket
    }

    fn sender(address: &str, tos: u8, segmentation: Segmentation) -> BurstSocket {
        let socket = Arc::new(UdpSocket::bind(address).unwrap());
        BurstSocket::new(socket, tos, segmentation).unwrap()
    }

    /// Datagrams of which each byte tells where it belongs; the last one is shorter.
    fn datagrams(count: usize) -> Vec<u8> {
        let length = count * SEGMENT - 100;
        (0..length).map(|i| (i / SEGMENT * 31 + i % SEGMENT) as u8).collect()
    }

    fn burst(datagrams: &[u8]) -> Burst<'_> {
        Burst { datagrams, segment_bytes: SEGMENT, frame: FrameIndex(1), last: true }
    }

    /// Sends a burst and demands the same datagrams at the other end.
    fn check_delivery(socket: &mut BurstSocket, receiver: &UdpSocket, count: usize) {
        let bytes = datagrams(count);
        socket.send(&burst(&bytes), receiver.local_addr().unwrap()).unwrap();
        let mut buffer = [0; 2048];
        for expected in bytes.chunks(SEGMENT) {
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], expected);
        }
    }

    #[test]
    fn datagrams_are_the_same_with_and_without_segmentation() {
        for segmentation in [Segmentation::Auto, Segmentation::Off] {
            let mut socket = sender("127.0.0.1:0", 0, segmentation);
            assert_eq!(socket.segments(), segmentation == Segmentation::Auto && kernel_segments());
            let receiver = receiver("127.0.0.1:0");
            for count in [1, 2, 7, 54, 64, 70] {
                check_delivery(&mut socket, &receiver, count);
            }
            socket.send_one(b"alone", receiver.local_addr().unwrap()).unwrap();
            assert_eq!(receiver.recv(&mut [0; 64]).unwrap(), 5);
        }
    }

    #[test]
    fn a_dual_stack_socket_reaches_both_families() {
        let mut socket = sender("[::]:0", 160, Segmentation::Auto);
        check_delivery(&mut socket, &receiver("127.0.0.1:0"), 5);
        check_delivery(&mut socket, &receiver("[::1]:0"), 5);
    }

    // spec: gamestream 7.11
    #[test]
    fn every_datagram_of_a_burst_carries_the_mark() {
        let mut socket = sender("127.0.0.1:0", 160, Segmentation::Auto);
        let receiver = receiver("127.0.0.1:0");
        setsockopt(&receiver, IpRecvTos, &true).unwrap();
        socket.send(&burst(&datagrams(3)), receiver.local_addr().unwrap()).unwrap();
        for _ in 0..3 {
            let mut bytes = [0; 2048];
            let mut slices = [IoSliceMut::new(&mut bytes)];
            let mut space = nix::cmsg_space!(u8, i32);
            let message = recvmsg::<SockaddrStorage>(
                receiver.as_raw_fd(),
                &mut slices,
                Some(&mut space),
                MsgFlags::empty(),
            );
            let marks: Vec<_> = message.unwrap().cmsgs().unwrap().collect();
            assert_eq!(marks, [ControlMessageOwned::Ipv4Tos(160)]);
        }
    }

    #[test]
    fn the_source_address_is_the_chosen_one() {
        // All of 127/8 is local, so one machine has two addresses to tell apart.
        let mut socket = sender("0.0.0.0:0", 0, Segmentation::Auto);
        let receiver = receiver("127.0.0.1:0");
        for source in ["127.0.0.1", "127.0.0.7"] {
            let source: IpAddr = source.parse().unwrap();
            socket.set_source(Some(source));
            socket.send(&burst(&datagrams(2)), receiver.local_addr().unwrap()).unwrap();
            for _ in 0..2 {
                assert_eq!(receiver.recv_from(&mut [0; 2048]).unwrap().1.ip(), source);
            }
        }
        socket.set_source(Some("192.0.2.1".parse().unwrap()));
        let error = socket.send(&burst(&datagrams(2)), receiver.local_addr().unwrap()).unwrap_err();
        assert!(!error.to_string().is_empty());
    }

    #[test]
    fn an_impossible_peer_is_an_error_and_nothing_else() {
        let mut socket = sender("127.0.0.1:0", 0, Segmentation::Auto);
        let before = socket.segments();
        // Port 0 is refused by the kernel whether a message is segmented or not.
        let result = socket.send(&burst(&datagrams(4)), "127.0.0.1:0".parse().unwrap());
        assert!(matches!(result, Err(SendError::Socket { .. })), "{result:?}");
        assert_eq!(socket.segments(), before, "the offload was not at fault");
        let result = socket.send(&burst(&datagrams(4)), "[2001:db8::1]:9".parse().unwrap());
        assert!(result.is_err());
        check_delivery(&mut socket, &receiver("127.0.0.1:0"), 4);
    }

    #[test]
    fn a_refused_segmentation_falls_back_to_single_datagrams() {
        let mut socket = sender("127.0.0.1:0", 0, Segmentation::Off);
        // More segments than any kernel makes of one message: it answers as a driver does that cannot segment.
        socket.segments = 1000;
        let receiver = receiver("127.0.0.1:0");
        let bytes: Vec<u8> = (0..300 * 40u32).map(|i| (i / 40) as u8).collect();
        let burst =
            Burst { datagrams: &bytes, segment_bytes: 40, frame: FrameIndex(1), last: true };
        let to = receiver.local_addr().unwrap();
        for (first, count) in [(0, 150), (150, 150)] {
            let datagrams = &bytes[first * 40..][..count * 40];
            socket.send(&Burst { datagrams, ..burst }, to).unwrap();
            assert_eq!(socket.segments, 1, "it was not refused, or was not given up");
            for expected in datagrams.chunks(40) {
                let mut buffer = [0; 64];
                let length = receiver.recv(&mut buffer).unwrap();
                assert_eq!(&buffer[..length], expected);
            }
        }
    }

    #[test]
    fn waiting_for_room_has_an_end() {
        let (full, _peer) = UnixDatagram::pair().unwrap();
        full.set_nonblocking(true).unwrap();
        while full.send(&[0; 1024]).is_ok() {}
        let began = Instant::now();
        assert!(!wait_writable(&full, began + Duration::from_millis(10)));
        assert!(began.elapsed() >= Duration::from_millis(9));
        assert!(!wait_writable(&full, began), "a deadline in the past is not waited for");
    }
}
