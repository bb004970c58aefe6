//! Headers against the tables, and every loss pattern of a block.

use super::*;
use crate::line::AudioSender;
use crate::media::OpusPacket;
use crate::seal::SessionKey;
use crate::time::Timestamp;

fn options(encrypted: bool) -> AudioOptions {
    let encryption = encrypted.then(|| (SessionKey::new([9; 16]), 0xffff_fffe));
    AudioOptions { packet_duration_ms: 5, encryption }
}

fn opus(number: usize, length: usize) -> OpusPacket {
    let bytes = (0..length).map(|k| (number * 31 + k * 7) as u8).collect();
    OpusPacket { captured_at: Timestamp::ZERO, bytes }
}

/// The datagrams of `count` packets of 120 bytes.
fn stream(packetizer: &mut AudioPacketizer, count: usize) -> Vec<Vec<u8>> {
    let mut datagrams = vec![];
    for number in 0..count {
        packetizer.submit(&opus(number, 120), &mut |datagram| datagrams.push(datagram.to_vec()));
    }
    datagrams
}

fn drain(receiver: &mut AudioReceiver) -> Vec<AudioEvent> {
    std::iter::from_fn(|| receiver.poll_event()).collect()
}

// spec: gamestream 13 item 115
#[test]
fn headers_equal_the_tables() {
    let datagrams = stream(&mut AudioPacketizer::new(options(false)), 8);
    assert_eq!(datagrams.len(), 12);
    #[rustfmt::skip]
    assert_eq!(datagrams[6][..12], [0x80, 97, 0, 4, 0, 0, 0, 20, 0, 0, 0, 0]);
    assert_eq!(datagrams[6][12..], opus(4, 120).bytes);
    #[rustfmt::skip]
    assert_eq!(
        datagrams[11][..24],
        [0x80, 127, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 1, 97, 0, 4, 0, 0, 0, 20, 0, 0, 0, 0]
    );
    assert_eq!(datagrams[11].len(), 24 + 120);
    let times: Vec<u8> = datagrams.iter().filter(|d| d[1] == 97).map(|d| d[7]).collect();
    assert_eq!(times, [0, 5, 10, 15, 20, 25, 30, 35]);
}

// spec: gamestream 13 item 119
#[test]
fn the_timestamp_steps_by_the_duration() {
    let mut packetizer =
        AudioPacketizer::new(AudioOptions { packet_duration_ms: 10, encryption: None });
    let datagrams = stream(&mut packetizer, 4);
    assert_eq!(datagrams[3][4..8], [0, 0, 0, 30]);
    assert_eq!(datagrams[4][16..20], [0, 0, 0, 0]);
}

// spec: gamestream 13 item 116
#[test]
fn any_two_of_six_may_be_lost() {
    for encrypted in [false, true] {
        let datagrams = stream(&mut AudioPacketizer::new(options(encrypted)), 12);
        for (a, b) in (0..6).flat_map(|a| (0..6).map(move |b| (a, b))) {
            let mut receiver = AudioReceiver::new(options(encrypted));
            let mut events = vec![];
            for (n, datagram) in datagrams.iter().enumerate() {
                // The middle block loses two.
                if n != 6 + a && n != 6 + b {
                    receiver.handle_datagram(datagram);
                    events.extend(drain(&mut receiver));
                }
            }
            assert_eq!(events.len(), 12);
            for (n, event) in events.into_iter().enumerate() {
                let AudioEvent::Packet { sequence, timestamp_ms, repaired, bytes } = event else {
                    panic!("packet {n} was lost with {a} and {b}");
                };
                assert_eq!((usize::from(sequence), timestamp_ms), (n, n as u32 * 5));
                assert_eq!(bytes, opus(n, 120).bytes);
                assert_eq!(repaired, (4..8).contains(&n) && (n + 2 == 6 + a || n + 2 == 6 + b));
            }
        }
    }
}

#[test]
fn three_lost_are_named_and_the_rest_goes_on() {
    let datagrams = stream(&mut AudioPacketizer::new(options(false)), 16);
    let mut receiver = AudioReceiver::new(options(false));
    let mut story = vec![];
    for (n, datagram) in datagrams.iter().enumerate() {
        if ![1, 2, 5].contains(&n) {
            receiver.handle_datagram(datagram);
        }
        story.extend(drain(&mut receiver).into_iter().map(|event| match event {
            AudioEvent::Packet { sequence, .. } => (true, sequence),
            AudioEvent::Lost { first, count } => {
                assert_eq!(count, 1);
                (false, first)
            }
        }));
    }
    let lost: Vec<u16> = story.iter().filter(|(there, _)| !there).map(|(_, n)| *n).collect();
    let order: Vec<u16> = story.iter().map(|(_, n)| *n).collect();
    assert_eq!((lost, order), (vec![1, 2], (0..16).collect()));
}

#[test]
fn packets_out_of_order_and_doubled_come_out_straight() {
    let mut datagrams = stream(&mut AudioPacketizer::new(options(true)), 8);
    datagrams.swap(1, 4);
    datagrams.swap(3, 8);
    let mut receiver = AudioReceiver::new(options(true));
    let mut numbers = vec![];
    for datagram in datagrams.iter().flat_map(|d| [d, d]) {
        receiver.handle_datagram(datagram);
        for event in drain(&mut receiver) {
            let AudioEvent::Packet { sequence, bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!(bytes, opus(usize::from(sequence), 120).bytes);
            numbers.push(sequence);
        }
    }
    assert_eq!(numbers, (0..8).collect::<Vec<_>>());
}

#[test]
fn numbers_wrap() {
    let mut packetizer = AudioPacketizer::starting_at(options(true), 0x3fff);
    let mut receiver = AudioReceiver::starting_at(options(true), 0x3fff);
    let mut numbers = vec![];
    for (n, datagram) in stream(&mut packetizer, 8).iter().enumerate() {
        if n != 2 && n != 7 {
            receiver.handle_datagram(datagram);
        }
        for event in drain(&mut receiver) {
            let AudioEvent::Packet { sequence, bytes, .. } = event else { panic!("{event:?}") };
            assert_eq!(bytes, opus(numbers.len(), 120).bytes);
            numbers.push(sequence);
        }
    }
    assert_eq!(numbers, [0xfffc, 0xfffd, 0xfffe, 0xffff, 0, 1, 2, 3]);
}

// spec: gamestream 8.2
#[test]
fn a_block_of_unequal_packets_goes_without_parity() {
    let mut packetizer = AudioPacketizer::new(options(false));
    let mut kinds = vec![];
    for (n, length) in [50, 50, 51, 50, 60, 60, 60, 60].into_iter().enumerate() {
        packetizer.submit(&opus(n, length), &mut |datagram| kinds.push(datagram[1]));
    }
    assert_eq!(kinds, [97, 97, 97, 97, 97, 97, 97, 97, 127, 127]);
}

// spec: gamestream 8.1
#[test]
fn datagrams_stay_within_1400_bytes() {
    let mut packetizer = AudioPacketizer::new(options(true));
    let mut sizes = vec![];
    for n in 0..4 {
        packetizer.submit(&opus(n, MAX_OPUS_BYTES), &mut |datagram| sizes.push(datagram.len()));
        packetizer.submit(&opus(n, MAX_OPUS_BYTES + 1), &mut |_| panic!("too large"));
    }
    assert_eq!(sizes.len(), 6);
    assert!(sizes.iter().all(|&size| size <= 1400), "{sizes:?}");
    // The largest configuration of the table: eight channels in high quality at 5 ms.
    const { assert!(MAX_OPUS_BYTES >= 1280) };
}

proptest::proptest! {
    #[test]
    fn no_datagram_makes_it_panic(
        datagrams in proptest::collection::vec(
            (0u8..3, proptest::collection::vec(proptest::num::u8::ANY, 0..80)), 0..60),
    ) {
        let mut receiver = AudioReceiver::new(options(true));
        for (kind, mut bytes) in datagrams {
            // Two of three look like sound at first sight.
            if let [first, second, ..] = bytes.as_mut_slice() && kind < 2 {
                (*first, *second) = (0x80, [97, 127][usize::from(kind)]);
            }
            receiver.handle_datagram(&bytes);
            proptest::prop_assert!(receiver.open.len() <= 3);
            drain(&mut receiver);
        }
    }
}
