//! Ports for a daemon that is a process of its own, and so has to be told where to listen.

use std::net::{Ipv4Addr, TcpListener};

/// A port for GameStream's HTTP whose neighbours, which the host takes as well, are free too. Below those that the system
/// gives to whoever connects: one of them could be in use a moment later, or still be kept for a connection that ended.
pub(crate) fn free() -> u16 {
    let is_free = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    let wanders = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    std::iter::repeat_with(|| 10_000 + wanders() % 20_000)
        .take(1000)
        .find(|port| [port - 5, *port, port + 1, port + 21].into_iter().all(is_free))
        .unwrap()
}
