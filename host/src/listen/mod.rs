//! TCP sockets that strangers may knock at: how they are bound, who may hold how many connections, and which of them
//! systemd has opened already.
//!
//! Every door counts its connections the same way: in all, per address and per IPv6 network, so that nobody takes the
//! places of all others. Where the owner comes in, a full door makes room.

mod gate;
mod inherited;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::warn;

pub use gate::{Admission, Gate, Rank};
pub use inherited::{Inherited, inherited};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 128;

/// A socket that listens at this address; to be served on a tokio runtime.
///
/// # Errors
/// What the system said.
pub fn bind(address: IpAddr, port: u16) -> io::Result<tokio::net::TcpListener> {
    let address = SocketAddr::new(address, port);
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    tokio::net::TcpListener::from_std(socket.into())
}

/// The address that serves everybody: `::` (with IPv4) where the kernel has IPv6, else `0.0.0.0`.
pub fn any_address() -> IpAddr {
    match Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)) {
        Ok(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        Err(error) => {
            warn!(%error, "this machine has no IPv6; only IPv4 clients are served");
            Ipv4Addr::UNSPECIFIED.into()
        }
    }
}
