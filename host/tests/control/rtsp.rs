//! RTSP over TCP.

use std::net::SocketAddr;

use punktfunk_core::gamestream::rtsp::MAX_REQUEST_BYTES;
use punktfunk_core::media::{Codec, Mode};
use punktfunk_host::gamestream::EncryptionPolicy;
use punktfunk_host::gamestream::recv::Patience;
use punktfunk_host::session::SessionId;

use punktfunk_core::gamestream::rtsp::ClientChannel;

use super::player::{Negotiation, announce, exchange, legacy_announce};
use super::rig::{Rig, Seen};

// spec: gamestream 13 item 57
#[test]
fn an_encrypted_and_a_plain_client_negotiate_in_order() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let mut modern = Negotiation::new(rig.rtsp, Some(&key));
    modern.set_up();
    modern.choose(&announce(""));
    let Seen::Prepared(session, spec) = rig.next() else { panic!() };
    assert_eq!(session, SessionId(1));
    assert_eq!(spec.video.codec, Codec::H264);
    assert_eq!(spec.video.mode, Mode::new(1280, 720, 59_940).unwrap());
    assert_eq!((spec.audio.channels, spec.audio.period_samples), (2, 240));
    assert_eq!(spec.audio.bitrate_kbps, 512);

    rig.issue(2, false);
    let mut plain = Negotiation::new(rig.rtsp, None);
    plain.set_up();
    plain.choose(&legacy_announce());
    assert!(matches!(rig.next(), Seen::Prepared(SessionId(2), _)));
    // spec: gamestream 13 item 60
    assert_eq!(plain.ping_payload.len(), 16);
    assert_ne!(plain.ping_payload, modern.ping_payload);
    assert_ne!(plain.connect_data, modern.connect_data);
}

// spec: gamestream 13 item 6
#[test]
fn the_description_names_what_the_desk_encodes() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let (code, text) = Negotiation::new(rig.rtsp, Some(&key)).ask("DESCRIBE rtsp://x", "");
    assert_eq!(code, 200);
    assert!(text.contains("AV1/90000") && !text.contains("sprop-parameter-sets"), "{text}");
}

// spec: gamestream 13 item 55
#[test]
fn requests_may_come_in_pieces_and_must_end() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    for (piece, body) in [(1, ""), (100, ""), (536, "")] {
        let mut client = Negotiation::new(rig.rtsp, None);
        rig.issue(2, false);
        client.piece = piece;
        client.set_up();
        client.choose(&announce(body));
        assert!(matches!(rig.next(), Seen::Prepared(SessionId(2), _)));
        rig.tickets.withdraw(punktfunk_host::session::ClientId([2; 32]));
        assert_eq!(rig.next(), Seen::GivenBack);
    }
    let mut client = Negotiation::new(rig.rtsp, Some(&key));
    client.piece = 1;
    client.set_up();
    let head = format!("ANNOUNCE / RTSP/1.0\r\nContent-length: {MAX_REQUEST_BYTES}\r\n\r\n");
    assert_eq!(refused(rig.rtsp, head.as_bytes()), Some(0));
}

/// Bytes of the answer; `None` if the connection was reset, which is an answer too.
fn refused(to: SocketAddr, bytes: &[u8]) -> Option<usize> {
    exchange(to, bytes, 4096).ok().map(|answer| answer.len())
}

// spec: gamestream 13 item 56
#[test]
fn forged_cut_replayed_and_plain_requests_are_refused_and_the_ticket_survives() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let mut client = Negotiation::new(rig.rtsp, Some(&key));
    assert_eq!(client.ask("OPTIONS rtsp://x", "").0, 200);
    let request = b"OPTIONS rtsp://x RTSP/1.0\r\nCSeq: 9\r\n\r\n";
    assert_eq!(refused(rig.rtsp, request), Some(0), "plain");
    let replayed = ClientChannel::new(&key).seal(request).unwrap();
    assert_eq!(refused(rig.rtsp, &replayed), Some(0), "replayed");
    let mut attacker = ClientChannel::after(&key, 50);
    let mut forged = attacker.seal(request).unwrap();
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(refused(rig.rtsp, &forged), Some(0), "forged");
    let longer = [attacker.seal(request).unwrap(), vec![0; 3]].concat();
    assert_eq!(refused(rig.rtsp, &longer), Some(0), "longer");
    client.set_up();
    client.choose(&announce(""));
    assert!(matches!(rig.next(), Seen::Prepared(..)));
}

// spec: gamestream 13 item 54
#[test]
fn without_a_ticket_the_connection_is_closed_at_once() {
    let rig = Rig::new();
    assert_eq!(refused(rig.rtsp, b"OPTIONS / RTSP/1.0\r\nCSeq: 1\r\n\r\n"), Some(0));
}

// spec: gamestream 13 item 67
#[test]
fn two_handshakes_may_be_interleaved() {
    let rig = Rig::new();
    let keys = [rig.issue(1, true), rig.issue(2, true)];
    let mut clients = keys.each_ref().map(|key| Negotiation::new(rig.rtsp, Some(key)));
    clients.iter_mut().for_each(Negotiation::set_up);
    for (client, session) in clients.iter_mut().zip([1, 2]) {
        client.choose(&announce(""));
        assert!(matches!(rig.next(), Seen::Prepared(SessionId(got), _) if got == session));
    }
}

// spec: gamestream 13 item 61
#[test]
fn a_wrong_token_is_454() {
    let rig = Rig::new();
    let key = rig.issue(1, true);
    let mut client = Negotiation::new(rig.rtsp, Some(&key));
    client.set_up();
    let token = std::mem::replace(&mut client.session, "0000".to_owned());
    assert_eq!(client.ask("ANNOUNCE streamid=control/13/0", &announce("")).0, 454);
    client.session = token;
    client.choose(&announce(""));
}

// spec: gamestream 13 item 63
// spec: gamestream 13 item 64
#[test]
fn a_choice_that_cannot_be_is_refused_and_may_be_corrected() {
    let strict = EncryptionPolicy::Require;
    let rig = Rig::with([127, 0, 0, 1].into(), Patience::default(), strict);
    let key = rig.issue(1, true);
    let mut client = Negotiation::new(rig.rtsp, Some(&key));
    client.set_up();
    let announce_code = |client: &mut Negotiation, first: &str| {
        client.ask("ANNOUNCE streamid=c/1", &announce(first)).0
    };
    assert_eq!(announce_code(&mut client, ""), 403);
    let all = "a=x-ss-general.encryptionEnabled:7 \r\n";
    let hevc = format!("{all}a=x-nv-vqos[0].bitStreamFormat:1 \r\n");
    assert_eq!(announce_code(&mut client, &hevc), 400);
    let surround = format!(
        "{all}a=x-nv-audio.surround.numChannels:6 \r\na=x-nv-audio.surround.channelMask:63 \r\n"
    );
    assert_eq!(announce_code(&mut client, &surround), 503, "the session desk refuses");
    assert!(rig.nothing_seen());
    client.choose(&announce(all));
}
