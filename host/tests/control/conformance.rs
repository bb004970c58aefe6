//! The control stream, input and pings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use punktfunk_core::gamestream::control::Scheme;
use punktfunk_core::input::{InputEvent, KeyCode};
use punktfunk_core::media::FrameIndex;
use punktfunk_host::gamestream::EncryptionPolicy;
use punktfunk_host::gamestream::recv::Patience;
use punktfunk_host::stream::{EndReason, Peer};
use rusty_enet::{EventNoRef, Host, HostSettings, Socket};
use socket2::SockRef;

use super::player::{Moving, Negotiation, Player, announce, key_packet, legacy_announce, ping};
use super::rig::{Rig, Seen};
use super::streaming::{Streaming, pinger, stream};

fn pressed(key: u16) -> Seen {
    Seen::Input(InputEvent::Key { key: KeyCode(key), pressed: true })
}

/// What the host must make of a client that pings from this socket to where it is connected.
fn peer_of(pinger: &UdpSocket) -> Peer {
    Peer { to: pinger.local_addr().unwrap(), from: Some(pinger.peer_addr().unwrap().ip()) }
}

/// Presses "A" and sees that it arrives.
fn still_alive(rig: &Rig, player: &mut Player) {
    player.press(0, 0x41);
    assert_eq!(rig.wait_for(|seen| matches!(seen, Seen::Input(_))), pressed(30));
}

fn control_of(rig: &Rig) -> SocketAddr {
    SocketAddr::new(IpAddr::from([127, 0, 0, 1]), rig.port(&rig.sockets.control))
}

// spec: gamestream 13 item 69
#[test]
fn clients_connect_with_1_48_and_255_channels() {
    let rig = Rig::new();
    for (client, channels) in [(1, 1), (2, 48), (3, 255)] {
        let Streaming { mut player, .. } = stream(&rig, client, channels);
        assert_eq!(player.enet.peer_mut(player.peer).channel_count(), channels);
        still_alive(&rig, &mut player);
    }
}

// spec: gamestream 13 item 70
// spec: gamestream 13 item 71
#[test]
fn strangers_are_not_answered_and_a_repeated_connect_is_one_session() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let socket = Moving::new(control_of(&rig)).0;
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let connect = |data: u32| {
        let mut bytes = vec![0x8F, 0xFF, 0, 9, 0x82, 0xFF, 0, 1, 0, 0, 0xFF, 0xFF];
        for field in [900, 65536, 48, 0, 0, 5000, 2, 2, 0x1234_5678, data] {
            bytes.extend_from_slice(&u32::to_be_bytes(field));
        }
        bytes
    };
    let mut answer = [0; 2048];
    socket.send(&connect(negotiation.connect_data ^ 1)).unwrap();
    socket.send(&connect(0)).unwrap();
    socket.send(b"garbage").unwrap();
    assert!(socket.recv(&mut answer).is_err(), "a stranger was answered");
    let mut peers = Vec::new();
    for _ in 0..3 {
        socket.send(&connect(negotiation.connect_data)).unwrap();
        while let Ok(bytes) = socket.recv(&mut answer) {
            // spec: gamestream 13 item 69 (VERIFY_CONNECT echoes throttle values and connect id)
            let at = answer[..bytes].windows(2).position(|two| two == [0x83, 0xFF]).unwrap();
            assert_eq!(answer[at + 28..at + 44], connect(1)[4 + 28..4 + 44]);
            peers.push([answer[at + 4], answer[at + 5]]);
        }
    }
    peers.dedup();
    assert_eq!(peers.len(), 1, "{peers:?}");
}

// spec: gamestream 13 item 72
#[test]
fn every_channel_leads_to_the_same_handler() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    for channel in 0..0x30 {
        player.press(channel, 0x30 + channel % 10);
    }
    let mut keys: Vec<_> = (0..0x30)
        .map(|_| match rig.wait_for(|seen| matches!(seen, Seen::Input(_))) {
            Seen::Input(InputEvent::Key { key, .. }) => key.0,
            other => panic!("{other:?}"),
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys, (2..=11).collect::<Vec<_>>());
}

// spec: gamestream 13 item 73
// spec: gamestream 13 item 74
// spec: gamestream 13 item 75
// spec: gamestream 13 item 76
#[test]
fn forged_repeated_clear_and_unknown_messages_do_nothing() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    let forger = player.enet.socket_mut().0.try_clone().unwrap();
    let mut clear = vec![0x06, 0x02, 14, 0];
    clear.extend_from_slice(&key_packet(0x42, true));
    for number in 0..250 {
        let mut forged = vec![1, 0, 38, 0];
        forged.extend_from_slice(&u32::to_le_bytes(number.into()));
        forged.extend_from_slice(&[7; 34]);
        // In the places that the client's next messages will have, on both channels that it uses.
        for (channel, message) in [(0, &forged[..]), (1, &forged), (0, &clear), (1, &[])] {
            forge(&forger, channel, number, message);
        }
        if number % 25 == 24 {
            player.serve_for(Duration::from_millis(20));
        }
    }
    for (kind, payload) in [(0x9999, &[1, 2, 3][..]), (0x0206, &[]), (0x0301, &[1]), (0x3000, &[])]
    {
        player.send(0, kind, payload);
    }
    let message = player.sealer.seal(0x0206, &key_packet(0x43, true)).unwrap();
    for _ in 0..3 {
        player.send_raw(1, &message);
    }
    player.serve_for(Duration::from_millis(100));
    assert_eq!(rig.wait_for(|seen| matches!(seen, Seen::Input(_))), pressed(46), "C, not B");
    player.press(1, 0x44);
    assert_eq!(rig.next(), pressed(32), "C came once");
    still_alive(&rig, &mut player);
}

/// A reliable message in the name of the host's first peers, whichever of its four connections each may have.
fn forge(from: &UdpSocket, channel: u8, number: u16, message: &[u8]) {
    for session in 0..4u8 {
        let length = message.len() as u16;
        let mut datagram = vec![0x80 | session << 4, 0, 0, 9, 0x86, channel];
        datagram.extend_from_slice(&number.to_be_bytes());
        datagram.extend_from_slice(&length.to_be_bytes());
        datagram.extend_from_slice(message);
        from.send(&datagram).unwrap();
    }
}

// spec: gamestream 13 item 77
// spec: gamestream 13 item 78
#[test]
fn idr_requests_and_lost_frames_reach_the_stream() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    player.send(1, 0x0302, &[0, 0]);
    rig.wait_for(|seen| *seen == Seen::Idr);
    let mut lost = [0; 24];
    (lost[0], lost[8]) = (40, 42);
    player.send(1, 0x0301, &lost);
    rig.wait_for(|seen| *seen == Seen::Invalidate(FrameIndex(40), FrameIndex(42)));
}

// spec: gamestream 13 item 80
// spec: gamestream 13 item 93
#[test]
fn a_client_that_disconnects_leaves_no_key_down_and_the_app_running() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    still_alive(&rig, &mut player);
    player.enet.peer_mut(player.peer).disconnect(0);
    let begun = Instant::now();
    assert!(player.serve_until(|player| player.disconnected));
    assert_eq!(rig.next(), Seen::Released);
    assert_eq!(rig.next(), Seen::Stopped(EndReason::ClientGone));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

// spec: gamestream 13 item 80
#[test]
fn a_goodbye_that_is_not_repeated_is_believed_as_well() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    still_alive(&rig, &mut player);
    player.enet.peer_mut(player.peer).disconnect_now(0);
    let begun = Instant::now();
    assert_eq!(rig.next(), Seen::Released);
    assert_eq!(rig.next(), Seen::Stopped(EndReason::ClientGone));
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

// spec: gamestream 5.4
#[test]
fn a_forged_goodbye_from_the_clients_own_address_ends_nothing() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    let forger = player.enet.socket_mut().0.try_clone().unwrap();
    for _ in 0..8 {
        for session in 0..4u8 {
            for command in [0x84, 0x44] {
                let head = [0x80 | session << 4, 0, 0, 9];
                forger.send(&[&head[..], &[command, 0xFF, 0, 200, 0, 0, 0, 0]].concat()).unwrap();
            }
        }
        player.serve_for(Duration::from_millis(100));
        player.send(0, 0x0200, &[4, 0, 0, 0, 0, 0, 0, 0]);
    }
    assert!(rig.nothing_seen(), "a stranger's goodbye counted");
    still_alive(&rig, &mut player);
    assert!(!player.disconnected);
}

// spec: gamestream 13 item 93
#[test]
fn a_device_that_panics_ends_its_own_session_only() {
    let rig = Rig::new();
    let Streaming { player: mut other, .. } = stream(&rig, 1, 48);
    let Streaming { mut player, .. } = stream(&rig, 2, 48);
    player.press(0, 0x58);
    assert_eq!(rig.next(), Seen::Released);
    assert!(matches!(rig.next(), Seen::Stopped(EndReason::Bug(_))));
    assert!(player.serve_until(|player| player.disconnected));
    assert!(player.heard.iter().any(|(kind, _)| *kind == 0x0109), "told why");
    still_alive(&rig, &mut other);
}

#[test]
fn a_device_that_hangs_does_not_keep_the_other_sessions_waiting() {
    let rig = Rig::new();
    let Streaming { player: mut other, .. } = stream(&rig, 1, 48);
    let Streaming { mut player, .. } = stream(&rig, 2, 48);
    for _ in 0..20 {
        player.press(0, 0x57);
    }
    let begun = Instant::now();
    still_alive(&rig, &mut other);
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

// spec: gamestream 13 item 93
#[test]
fn the_receiving_thread_outlives_its_own_panic() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    still_alive(&rig, &mut player);
    rig.break_next_stream();
    let key = rig.issue(2, true);
    let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let mut victim = Player::new(control_of(&rig), &key, Scheme::V2, 48, negotiation.connect_data);
    victim.connect();
    victim.send(0, 0x0302, &[0, 0]);
    ping(&pinger(&rig, &rig.sockets.video), &negotiation.ping_payload);
    victim.serve_for(Duration::from_millis(50));
    // Nobody's keys stay down and nobody's stream goes on unheard.
    rig.wait_for(|seen| matches!(seen, Seen::Stopped(EndReason::Bug(_))));
    rig.wait_for(|seen| *seen == Seen::Released);
    // Everybody is served again, with a new key.
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    still_alive(&rig, &mut player);
}

// spec: gamestream 13 item 79
// spec: gamestream 13 item 93
#[test]
fn a_silent_client_is_gone_after_a_while() {
    let patience = Patience { silence: Duration::from_millis(700), ..Patience::default() };
    let rig = Rig::with([127, 0, 0, 1].into(), patience, EncryptionPolicy::Offer);
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    // ENet itself goes on answering; only messages under the key count.
    player.serve_for(Duration::from_millis(300));
    player.send(0, 0x0200, &[4, 0, 0, 0, 0, 0, 0, 0]);
    player.serve_for(Duration::from_millis(550));
    assert!(rig.nothing_seen(), "the ping did not count");
    player.serve_for(Duration::from_millis(500));
    assert_eq!(rig.next(), Seen::Released);
    assert_eq!(rig.next(), Seen::Stopped(EndReason::ClientGone));
}

// spec: gamestream 13 item 81
#[test]
fn a_stream_that_ends_tells_its_client_why() {
    let rig = Rig::new();
    for (client, reason, code) in [
        (1, EndReason::AppExited, [0x80, 0x03, 0x00, 0x23]),
        (2, EndReason::EncoderFailed("gone".to_owned()), [0x80, 0x03, 0x00, 0x25]),
    ] {
        let Streaming { mut player, .. } = stream(&rig, client, 48);
        rig.end_stream(reason);
        rig.wait_for(|seen| *seen == Seen::Released);
        let begun = Instant::now();
        assert!(player.serve_until(|player| player.disconnected));
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert!(player.heard.contains(&(0x0109, code.to_vec())), "{:x?}", player.heard);
        // spec: gamestream 13 item 83
        assert_eq!(player.heard[0], (0x010e, vec![0; 27]));
    }
}

#[test]
fn a_door_that_closes_says_goodbye() {
    let mut rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    let recv = rig.recv.take();
    let closing = std::thread::spawn(move || drop(recv));
    assert!(player.serve_until(|player| player.disconnected));
    assert!(player.heard.contains(&(0x0109, vec![0x80, 0x03, 0x00, 0x23])));
    closing.join().unwrap();
    assert_eq!(
        rig.wait_for(|seen| matches!(seen, Seen::Stopped(_))),
        Seen::Stopped(EndReason::Shutdown)
    );
}

// spec: gamestream 13 item 84
#[test]
fn a_client_may_change_its_address_and_nobody_else_may_change_it() {
    let rig = Rig::new();
    let Streaming { mut player, .. } = stream(&rig, 1, 48);
    still_alive(&rig, &mut player);
    // A stranger who has listened: the peer's header with forged, repeated and clear messages.
    let stranger = Moving::new(player.to).0;
    let repeated = player.sealer.seal(0x0206, &key_packet(0x42, true)).unwrap();
    player.send_raw(0, &repeated);
    rig.wait_for(|seen| *seen == pressed(48));
    for session in 0..4u8 {
        for message in [&repeated[..], &[1, 0, 24, 0, 9, 0, 0, 0, 7, 7], &[6, 2, 0, 0]] {
            let mut datagram = vec![0x80 | session << 4, 0, 0, 1, 0x86, 0, 0, 200];
            datagram.extend_from_slice(&(message.len() as u16).to_be_bytes());
            datagram.extend_from_slice(message);
            stranger.send(&datagram).unwrap();
        }
    }
    stranger.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(stranger.recv(&mut [0; 64]).is_err(), "the stranger is answered");
    still_alive(&rig, &mut player);

    // The client itself, from a new port.
    let old = player.enet.socket_mut().0.local_addr().unwrap();
    let moved = Moving::new(player.to);
    player.enet.socket_mut().0 = moved.0;
    assert_ne!(player.enet.socket_mut().0.local_addr().unwrap(), old);
    still_alive(&rig, &mut player);
    rig.end_stream(EndReason::Quit);
    assert!(player.serve_until(|player| player.disconnected), "answers go to the new address");
    assert!(player.heard.iter().any(|(kind, _)| *kind == 0x0109));
}

// spec: gamestream 13 item 68
#[test]
fn old_and_new_clients_play_at_once() {
    let rig = Rig::new();
    let Streaming { player: mut modern, .. } = stream(&rig, 1, 48);
    let key = rig.issue(2, false);
    let mut negotiation = Negotiation::new(rig.rtsp, None);
    negotiation.set_up();
    // spec: gamestream 8.5: audio pings come before ANNOUNCE.
    let audio = pinger(&rig, &rig.sockets.audio);
    audio.send(b"PING").unwrap();
    negotiation.choose(&legacy_announce());
    let mut old = Player::new(control_of(&rig), &key, Scheme::Legacy, 1, 0);
    old.connect();
    old.send(0, 0x0302, &[0, 0]);
    // spec: gamestream 13 item 111
    let video = pinger(&rig, &rig.sockets.video);
    video.send(b"PING").unwrap();
    let started = rig.wait_for(|seen| matches!(seen, Seen::Started(..)));
    assert_eq!(started, Seen::Started(peer_of(&video), Some(peer_of(&audio))));
    still_alive(&rig, &mut old);
    still_alive(&rig, &mut modern);
    assert!(old.serve_until(|player| !player.heard.is_empty()));
}

// spec: gamestream 13 item 110
// spec: gamestream 13 item 112
#[test]
fn media_follows_the_pings_with_the_right_payload_only() {
    let rig = Rig::new();
    let Streaming { mut player, negotiation, video } = stream(&rig, 1, 48);
    let stranger = pinger(&rig, &rig.sockets.video);
    ping(&stranger, "0123456789abcdef");
    stranger.send(b"PING").unwrap();
    stranger.send(negotiation.ping_payload.as_bytes()).unwrap();
    let moved = pinger(&rig, &rig.sockets.video);
    ping(&moved, &negotiation.ping_payload);
    let seen = rig.wait_for(|seen| matches!(seen, Seen::VideoPeer(_)));
    assert_eq!(seen, Seen::VideoPeer(peer_of(&moved)));
    let audio = pinger(&rig, &rig.sockets.audio);
    ping(&audio, &negotiation.ping_payload);
    ping(&audio, &negotiation.ping_payload);
    let seen = rig.wait_for(|seen| !matches!(seen, Seen::Idr));
    assert_eq!(seen, Seen::AudioPeer(peer_of(&audio)));
    still_alive(&rig, &mut player);
    for socket in [&stranger, &video, &moved, &audio] {
        socket.set_nonblocking(true).unwrap();
        assert!(socket.recv(&mut [0; 64]).is_err(), "a ping was answered");
    }
}

// spec: gamestream 7.1
#[test]
fn a_client_that_names_ever_new_addresses_is_followed_once_a_second() {
    let rig = Rig::new();
    let Streaming { negotiation, .. } = stream(&rig, 1, 48);
    let begun = Instant::now();
    let mut moves = 0;
    for _ in 0..50 {
        ping(&pinger(&rig, &rig.sockets.video), &negotiation.ping_payload);
    }
    // Where it stays it is found, at the latest with the ping after the rest.
    let home = pinger(&rig, &rig.sockets.video);
    let mut found = false;
    while !found {
        assert!(begun.elapsed() < Duration::from_secs(10), "not found");
        ping(&home, &negotiation.ping_payload);
        while let Some(seen) = rig.seen_within(Duration::from_millis(50)) {
            moves += u64::from(matches!(seen, Seen::VideoPeer(_)));
            found |= seen == Seen::VideoPeer(peer_of(&home));
        }
    }
    assert!(moves <= begun.elapsed().as_secs() + 2, "{moves} moves in {:?}", begun.elapsed());
}

// spec: gamestream 7.1
#[test]
fn a_client_that_never_pings_gets_its_stream_taken_back() {
    let patience = Patience { first_ping: Duration::from_millis(300), ..Patience::default() };
    let rig = Rig::with([127, 0, 0, 1].into(), patience, EncryptionPolicy::Offer);
    let key = rig.issue(1, true);
    let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let data = negotiation.connect_data;
    let mut player = Player::new(control_of(&rig), &key, Scheme::V2, 48, data);
    player.connect();
    player.send(0, 0x0302, &[0, 0]);
    assert!(player.serve_until(|player| player.disconnected));
    assert!(player.heard.iter().any(|(kind, _)| *kind == 0x0109));
    rig.wait_for(|seen| *seen == Seen::GivenBack);
}

// spec: gamestream 13 item 70
#[test]
fn who_overheard_the_connect_data_is_not_the_client() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let data = negotiation.connect_data;
    let wrong = punktfunk_core::seal::SessionKey::new([99; 16]);
    let mut thief = Player::new(control_of(&rig), &wrong, Scheme::V2, 48, data);
    thief.connect();
    thief.send(0, 0x0302, &[0, 0]);
    let mut player = Player::new(control_of(&rig), &key, Scheme::V2, 48, data);
    player.connect();
    player.send(0, 0x0302, &[0, 0]);
    let video = pinger(&rig, &rig.sockets.video);
    ping(&video, &negotiation.ping_payload);
    rig.wait_for(|seen| matches!(seen, Seen::Started(..)));
    still_alive(&rig, &mut player);
}

// spec: gamestream 13 item 70
#[test]
fn one_clients_half_open_connections_do_not_fill_the_table() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let socket = Moving::new(control_of(&rig)).0;
    for number in 0..200u32 {
        let mut connect = vec![0x8F, 0xFF, 0, 9, 0x82, 0xFF, 0, 1, 0, 0, 0xFF, 0xFF];
        let data = negotiation.connect_data;
        for field in [900, 65536, 48, 0, 0, 5000, 2, 2, number, data] {
            connect.extend_from_slice(&u32::to_be_bytes(field));
        }
        socket.send(&connect).unwrap();
    }
    let begun = Instant::now();
    let Streaming { mut player, .. } = stream(&rig, 2, 48);
    still_alive(&rig, &mut player);
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}

#[test]
fn vanished_clients_do_not_fill_the_sockets_of_the_others() {
    let ordinary = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let room = |socket: &UdpSocket| SockRef::from(socket).send_buffer_size().unwrap();
    let rig = Rig::new();
    for socket in [&rig.sockets.video, &rig.sockets.control, &rig.sockets.audio] {
        // The kernel's bound on what waits for one unknown address is the default buffer, and two of these must fit.
        assert!(room(socket) >= 2 * room(&ordinary));
    }
}

/// Noise that looks like ENet, always the same for the same seed.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[3]
    }

    /// Small numbers, huge ones and those between, as lengths and sequence numbers.
    fn number(&mut self) -> u16 {
        match self.next() % 4 {
            0 => 0,
            1 => (self.next() % 40) as u16,
            2 => u16::MAX - (self.next() % 4) as u16,
            _ => (self.next() >> 20) as u16,
        }
    }

    fn datagram(&mut self) -> Vec<u8> {
        let session = (self.next() % 4) as u8;
        let mut bytes = vec![0x80 | session << 4, 0, 0, 9];
        for _ in 0..1 + self.next() % 4 {
            let id = 1 + (self.next() % 12) as u8;
            let flags = [0x80, 0x00, 0x40, 0xC0][(self.next() % 4) as usize];
            let size = [8, 48, 44, 8, 4, 6, 8, 24, 8, 12, 16, 24][usize::from(id) - 1];
            // No goodbye: what comes after it shall be seen as well.
            let id = if id == 4 { 5 } else { id };
            bytes.extend([id | flags, if self.next().is_multiple_of(3) { self.byte() } else { 0 }]);
            let mut fixed: Vec<u8> = Vec::new();
            while fixed.len() < size - 2 {
                fixed.extend(self.number().to_be_bytes());
            }
            fixed.truncate(size - 2);
            let data = (self.next() % 30) as u16;
            match id {
                6 => fixed[2..4].copy_from_slice(&data.to_be_bytes()),
                7 | 9 => fixed[4..6].copy_from_slice(&data.to_be_bytes()),
                8 | 12 => {
                    fixed[4..6].copy_from_slice(&data.to_be_bytes());
                    let fields = [
                        self.next() % 40,
                        self.next() % 40,
                        self.next() % 4100,
                        self.next() % 4100,
                    ];
                    for (at, field) in fields.into_iter().enumerate() {
                        fixed[6 + 4 * at..][..4].copy_from_slice(&(field as u32).to_be_bytes());
                    }
                }
                _ => {}
            }
            bytes.extend(fixed);
            if matches!(id, 6..=9 | 12) {
                bytes.extend((0..data).map(|_| self.byte()));
            }
        }
        bytes
    }
}

// spec: gamestream 13 item 120
#[test]
fn noise_under_a_clients_address_does_not_bring_the_host_down() {
    let rig = Rig::new();
    for seed in 1..=4u8 {
        let Streaming { mut player, .. } = stream(&rig, seed, 48);
        let mut noise = Noise(u64::from(seed).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let socket = player.enet.socket_mut().0.try_clone().unwrap();
        for round in 0..4000 {
            let mut datagram = noise.datagram();
            // The host numbers its peers in order; earlier ones still speak.
            datagram[1] = (noise.next() % 5) as u8;
            socket.send(&datagram).unwrap();
            if round % 500 == 0 {
                player.serve_for(Duration::from_millis(5));
            }
        }
    }
    let Streaming { mut player, .. } = stream(&rig, 9, 48);
    still_alive(&rig, &mut player);
}

/// ENet over a socket connected to one of the host's addresses: the kernel drops what comes from another.
fn answers_from(host: &Rig, address: IpAddr) -> bool {
    let key = host.issue(1, true);
    let mut negotiation = Negotiation::new(host.rtsp, Some(&key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let to = SocketAddr::new(address, host.port(&host.sockets.control));
    let socket = Moving::new(to);
    connects(socket, to, negotiation.connect_data)
}

fn connects<S: Socket<Address = SocketAddr>>(socket: S, to: SocketAddr, data: u32) -> bool {
    let settings = HostSettings { peer_limit: 1, channel_limit: 255, ..Default::default() };
    let Ok(mut enet) = Host::new(socket, settings) else { return false };
    enet.connect(to, 48, data).unwrap();
    let end = Instant::now() + Duration::from_secs(5);
    while Instant::now() < end {
        if let Ok(Some(event)) = enet.service() {
            return matches!(event.no_ref(), EventNoRef::Connect { .. });
        }
    }
    false
}

// spec: gamestream 5.2
#[test]
fn answers_leave_from_the_address_that_the_client_used() {
    for address in
        [IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]), Ipv6Addr::LOCALHOST.into()]
    {
        let unspecified = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let rig = Rig::with(unspecified, Patience::default(), EncryptionPolicy::Offer);
        assert!(answers_from(&rig, address), "{address}");
    }
}

// spec: gamestream 5.2
// spec: gamestream 7.1
#[test]
fn media_leaves_from_the_address_that_the_client_pings() {
    let [seven, eight] = [7, 8].map(|last| IpAddr::from([127, 0, 0, last]));
    for bound in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        let rig = Rig::with(bound, Patience::default(), EncryptionPolicy::Offer);
        let key = rig.issue(1, true);
        let mut negotiation = Negotiation::new(rig.rtsp, Some(&key));
        negotiation.set_up();
        let payload = negotiation.ping_payload.clone();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let ping_at = |socket: &UdpSocket, address: IpAddr| {
            client.connect((address, rig.port(socket))).unwrap();
            ping(&client, &payload);
        };
        // Sound is asked for while the client still negotiates, pictures when it has connected.
        ping_at(&rig.sockets.audio, seven);
        negotiation.choose(&announce(""));
        let data = negotiation.connect_data;
        let mut player = Player::new(control_of(&rig), &key, Scheme::V2, 48, data);
        player.connect();
        player.send(0, 0x0302, &[0, 0]);
        ping_at(&rig.sockets.video, seven);
        let from = |peer: Peer| (peer.to.port(), peer.from);
        let port = client.local_addr().unwrap().port();
        match rig.wait_for(|seen| matches!(seen, Seen::Started(..))) {
            Seen::Started(video, audio) => {
                assert_eq!(from(video), (port, Some(seven)), "{bound}");
                assert_eq!(audio.map(from), Some((port, Some(seven))), "{bound}");
            }
            other => panic!("{other:?}"),
        }
        ping_at(&rig.sockets.video, eight);
        ping_at(&rig.sockets.audio, eight);
        for _ in ["video", "audio"] {
            match rig.wait_for(|seen| matches!(seen, Seen::VideoPeer(_) | Seen::AudioPeer(_))) {
                Seen::VideoPeer(peer) | Seen::AudioPeer(peer) => {
                    assert_eq!(from(peer), (port, Some(eight)), "{bound}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
