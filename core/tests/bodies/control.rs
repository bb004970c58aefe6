//! The control port: ENet datagrams, sealed messages, what they say, and input.

use std::collections::BTreeSet;

use punktfunk_core::gamestream::control::{
    ClientMessage, ControlError, MAX_MESSAGE_BYTES, Opened, Opener, Scheme, Sealer, Side,
};
use punktfunk_core::gamestream::enet::{Datagram, MAX_DATAGRAM_BYTES};
use punktfunk_core::gamestream::input::Packet;
use punktfunk_core::input::InputEvent;
use punktfunk_core::seal::SessionKey;

use super::Script;

const KEY: [u8; 16] = [7; 16];
/// Types that may be heard twice under the old scheme.
const HARMLESS: [u16; 2] = [0x0200, 0x0201];

pub(super) fn enet(bytes: &[u8]) {
    match Datagram::parse(bytes) {
        Ok(Datagram::Connect(connect)) => {
            assert!((1..=255).contains(&connect.channels));
        }
        Ok(Datagram::Peer { peer, commands }) => {
            assert!(peer < 0x0FFF && bytes.len() <= MAX_DATAGRAM_BYTES);
            assert!(commands.messages().map(<[u8]>::len).sum::<usize>() <= bytes.len());
            assert!(commands.messages().count() <= 64);
            let _ = (commands.disconnects(), commands.fragments());
        }
        Err(_) => {}
    }
}

/// The input is what is inside a message that opened: its type, two bytes that are skipped, its payload. The same bytes
/// as they are open under no key.
pub(super) fn messages(bytes: &[u8]) {
    for scheme in [Scheme::V2, Scheme::Legacy] {
        let mut opener = Opener::new(&SessionKey::new(KEY), scheme, Side::Client);
        assert!(!opener.is_authentic(bytes) && opener.open(bytes).is_err());
    }
    if let Some((kind, rest)) = bytes.split_first_chunk::<2>() {
        let payload = rest.get(2..).unwrap_or_default();
        understand(Opened { kind: u16::from_le_bytes(*kind), payload });
    }
}

fn understand(opened: Opened<'_>) {
    match ClientMessage::parse(opened) {
        ClientMessage::InvalidateFrames { first, last } => assert!(first <= last),
        ClientMessage::Input(packet) => input(packet),
        ClientMessage::Unknown { kind } => assert_eq!(kind, opened.kind),
        _ => {}
    }
}

/// A conversation: pieces are sealed as a client seals them, and arrive whole, damaged, twice or late.
pub(super) fn sealed(bytes: &[u8]) {
    let mut script = Script(bytes);
    let scheme = if script.byte().unwrap_or(0) & 1 == 0 { Scheme::V2 } else { Scheme::Legacy };
    let mut sealer = Sealer::new(&SessionKey::new(KEY), scheme, Side::Client);
    let mut opener = Opener::new(&SessionKey::new(KEY), scheme, Side::Client);
    let mut late: Vec<Vec<u8>> = Vec::new();
    // The old scheme has 256 nonces: the same again after that many messages looks like a repetition.
    let mut known = BTreeSet::new();
    // As many as the memory of the old scheme holds.
    for _ in 0..1000 {
        let (Some(choice), Some(kind)) = (script.byte(), script.word()) else { break };
        let Some(payload) = script.piece() else { break };
        let Ok(mut message) = sealer.seal(kind, payload) else { break };
        assert!(message.len() <= MAX_MESSAGE_BYTES);
        let is_new = match choice & 3 {
            0 | 2 => known.insert((message[4], kind, payload)),
            _ => true,
        };
        if scheme == Scheme::Legacy && !is_new {
            let heard = opener.open(&message).is_ok();
            assert!(!heard || HARMLESS.contains(&kind), "a message of type {kind} was heard twice");
            continue;
        }
        match choice & 3 {
            0 => open(&mut opener, &message, kind, payload),
            1 => {
                // Behind the counter, whose high bytes the old scheme does not protect.
                let at = 8 + usize::from(choice >> 2) % (message.len() - 8);
                message[at] ^= 0x40;
                assert!(!opener.is_authentic(&message) && opener.open(&message).is_err());
            }
            2 => {
                open(&mut opener, &message, kind, payload);
                assert!(opener.is_authentic(&message) && !opener.recognizes(&message));
                let again = opener.open(&message).err();
                assert!(matches!(again, Some(ControlError::Replayed { .. })), "{again:?}");
            }
            _ => late.push(message),
        }
    }
    for message in late.iter().rev() {
        // It may be too late for the window; if it opens, then once.
        if opener.open(message).is_ok() {
            assert!(!opener.recognizes(message) && opener.open(message).is_err());
        }
    }
}

fn open(opener: &mut Opener, message: &[u8], kind: u16, payload: &[u8]) {
    assert!(opener.recognizes(message), "an honest message is not known");
    match opener.open(message) {
        Ok(opened) => {
            assert_eq!((opened.kind, opened.payload), (kind, payload));
            understand(opened);
        }
        Err(error) => panic!("an honest message was refused: {error}"),
    }
}

pub(super) fn input(bytes: &[u8]) {
    let Ok(packet) = Packet::parse(bytes) else { return };
    let mut events = 0;
    for event in packet.events() {
        events += 1;
        if let InputEvent::PointerPosition { x, y } = event {
            assert!((0.0..=1.0).contains(&x) && (0.0..=1.0).contains(&y));
        }
    }
    assert!(events <= bytes.len());
}
