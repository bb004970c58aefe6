//! A client that has gone all the way to a running stream of the rig's.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use punktfunk_core::gamestream::control::Scheme;

use super::player::{Negotiation, Player, announce, ping};
use super::rig::{Rig, Seen};

/// A socket that pings the host's media port.
pub(crate) fn pinger(rig: &Rig, to: &UdpSocket) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect((Ipv4Addr::LOCALHOST, rig.port(to))).unwrap();
    socket
}

/// A client whose stream runs.
pub(crate) struct Streaming {
    pub(crate) player: Player,
    pub(crate) negotiation: Negotiation,
    pub(crate) video: UdpSocket,
}

/// Goes all the way to a running stream.
pub(crate) fn stream(rig: &Rig, client: u8, channels: usize) -> Streaming {
    let key = rig.issue(client, true);
    let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let control = SocketAddr::new(IpAddr::from([127, 0, 0, 1]), rig.port(&rig.sockets.control));
    let data = negotiation.connect_data;
    let mut player = Player::new(control, &key, Scheme::V2, channels, data);
    player.connect();
    player.send(0, 0x0302, &[0, 0]);
    player.send(0, 0x0307, &[0]);
    let video = pinger(rig, &rig.sockets.video);
    ping(&video, &negotiation.ping_payload);
    rig.wait_for(|seen| matches!(seen, Seen::Started(..)));
    Streaming { player, negotiation, video }
}
