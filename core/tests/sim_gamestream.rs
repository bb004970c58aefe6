//! Sender, link and receiver together in virtual time: what a stock client would have shown.
//!
//! The receiver is as strict as a stock client, so a frame that comes out is a frame a client would have decoded; here
//! it must also be bit-identical to what went in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use proptest::prelude::*;
use punktfunk_core::gamestream::video::{
    FrameType, LossPolicy, ReceivedFrame, ReceiverEvent, VideoCounters, VideoReceiver,
    VideoReceiverOptions, VideoSender, VideoSenderOptions,
};
use punktfunk_core::line::FrameSender;
use punktfunk_core::media::{AccessUnit, FrameIndex, FrameKind, FrameShape, SourceIndex};
use punktfunk_core::netem::{Link, LinkOptions, Loss, mix};
use punktfunk_core::seal::SessionKey;
use punktfunk_core::time::Timestamp;

const INTERVAL: Duration = Duration::from_micros(8_333);
const PACKET_SIZE: u16 = 1024;
/// Coded bytes per data shard.
const PAYLOAD: usize = PACKET_SIZE as usize - 16;

/// A host and a client that share their options.
struct Pair {
    sender: VideoSender,
    receiver: VideoReceiver,
    now: Timestamp,
    frames: u64,
    /// How the last frame was cut.
    shape: FrameShape,
}

impl Pair {
    fn new(encrypted: bool, on_loss: LossPolicy, counters: VideoCounters) -> Self {
        let encryption = encrypted.then(|| SessionKey::new([0x42; 16]));
        let sender = VideoSenderOptions {
            packet_size: PACKET_SIZE,
            fec_percentage: 20,
            min_parity: 2,
            single_block: false,
            encryption: encryption.clone(),
            bitrate_kbps: 50_000,
            frame_interval: INTERVAL,
        };
        let receiver = VideoReceiverOptions { packet_size: PACKET_SIZE, encryption, on_loss };
        Self {
            sender: VideoSender::starting_at(sender, counters).unwrap(),
            receiver: VideoReceiver::starting_at(receiver, counters).unwrap(),
            now: Timestamp::ZERO,
            frames: 0,
            shape: FrameShape::default(),
        }
    }

    fn started(encrypted: bool) -> Self {
        Self::new(encrypted, LossPolicy::RequestIdr, VideoCounters::default())
    }

    /// Sends a frame and returns its datagrams with their departures.
    fn send(&mut self, kind: FrameKind, length: usize) -> (Vec<u8>, Vec<(Timestamp, Vec<u8>)>) {
        let unit = self.unit(kind, length);
        self.shape = self.sender.submit(&unit, self.now).unwrap().shape;
        let (mut now, mut datagrams) = (self.now, vec![]);
        loop {
            while let Some(burst) = self.sender.poll_burst(now) {
                let parts = burst.datagrams.chunks(burst.segment_bytes);
                datagrams.extend(parts.map(|datagram| (now, datagram.to_vec())));
            }
            match self.sender.poll_timeout() {
                Some(next) => now = next,
                None => break,
            }
        }
        self.now = (self.now + INTERVAL).max(now);
        (unit.bytes, datagrams)
    }

    /// A frame whose bytes no other frame has.
    fn unit(&mut self, kind: FrameKind, length: usize) -> AccessUnit {
        self.frames += 1;
        let seed = self.frames << 32;
        AccessUnit {
            source: SourceIndex(self.frames),
            kind,
            captured_at: self.now,
            encode_began_at: self.now,
            encoded_at: self.now,
            repeated: false,
            bytes: (0..length as u64).map(|i| mix(seed + i) as u8).collect(),
        }
    }

    fn receive(&mut self, datagram: &[u8]) -> Vec<ReceiverEvent> {
        self.receiver.handle_datagram(self.now, datagram);
        std::iter::from_fn(|| self.receiver.poll_event()).collect()
    }
}

/// The frame in these events, which hold nothing else.
fn only_frame(events: Vec<ReceiverEvent>) -> ReceivedFrame {
    let [ReceiverEvent::Frame(frame)] = events.as_slice() else {
        panic!("expected one frame, got {} events: {:?}", events.len(), kinds(&events));
    };
    frame.clone()
}

fn kinds(events: &[ReceiverEvent]) -> Vec<String> {
    let kind = |event: &ReceiverEvent| match event {
        ReceiverEvent::Frame(frame) => format!("frame {}", frame.index.0),
        other => format!("{other:?}"),
    };
    events.iter().map(kind).collect()
}

/// The shape of each block of a frame of `data` shards at 20 %: (first datagram, data, parity).
fn blocks(data: usize) -> Vec<(usize, usize, usize)> {
    let count = data.div_ceil(212);
    let (share, extra) = (data / count, data % count);
    let mut next = 0;
    let shape = |block| {
        let d = share + usize::from(block < extra);
        let p = (d * 20).div_ceil(100).max(2);
        let first = next;
        next += d + p;
        (first, d, p)
    };
    (0..count).map(shape).collect()
}

/// Sends one frame of `data` shards of which each block loses the datagrams `lost` names, and demands it back.
fn check_frame(pair: &mut Pair, data: usize, lost: impl Fn(usize, usize, usize) -> Vec<usize>) {
    let (bytes, datagrams) = pair.send(FrameKind::Idr, data * PAYLOAD - 8);
    let mut gone = vec![false; datagrams.len()];
    let mut missing = 0;
    for (block, (first, d, p)) in blocks(data).into_iter().enumerate() {
        for index in lost(block, d, p) {
            gone[first + index] = true;
            missing += usize::from(index < d);
        }
    }
    let mut events = vec![];
    for ((_, datagram), gone) in datagrams.iter().zip(gone) {
        if !gone {
            events.extend(pair.receive(datagram));
        }
    }
    let frame = only_frame(events);
    assert!(frame.bytes == bytes, "frame {} differs", frame.index.0);
    // A shard that was late rather than lost need not have been repaired; a lost one must.
    assert_eq!(frame.repaired_shards, missing);
}

// spec: gamestream 13 item 101
#[test]
fn as_many_losses_as_parity_change_nothing() {
    for encrypted in [false, true] {
        let mut pair = Pair::started(encrypted);
        for data in [1, 2, 3, 9, 10, 11, 55, 121, 126, 131, 136, 141, 142, 211, 212] {
            check_frame(&mut pair, data, |_, _, p| (0..p.min(data)).collect());
            check_frame(&mut pair, data, |_, d, p| (d.saturating_sub(p)..d).collect());
            check_frame(&mut pair, data, |_, d, p| {
                let mut order: Vec<usize> = (0..d).collect();
                order.sort_by_key(|&i| mix(i as u64 + data as u64));
                order.truncate(p);
                order
            });
        }
        assert_eq!(pair.receiver.stats().lost_frames, 0);
    }
}

// spec: gamestream 13 item 102
#[test]
fn losses_at_the_borders_of_blocks_are_repaired() {
    let mut pair = Pair::started(true);
    for data in [213, 300, 424, 425, 636, 637, 848] {
        // The last data shard of a block, its last parity shard, and the first shards of the next.
        check_frame(&mut pair, data, |_, d, p| vec![0, d - 1, d + p - 1]);
        check_frame(&mut pair, data, |_, d, p| (d + 1 - p..=d).collect());
    }
}

// spec: gamestream 13 item 99
#[test]
fn all_numbers_wrap_cleanly() {
    let near = VideoCounters {
        frame: FrameIndex(0xfffc),
        sequence: 65_530,
        stream_packet_index: (1 << 24) - 40,
    };
    let mut pair = Pair::new(true, LossPolicy::RequestIdr, near);
    let mut sent = 0;
    for n in 0..60 {
        let (bytes, datagrams) = pair.send(FrameKind::Idr, 3 * PAYLOAD - 8 + n);
        let mut events = vec![];
        for (n, (_, datagram)) in datagrams.iter().enumerate() {
            sent += 1;
            // Always one lost, so that recovery happens across the wraps as well.
            if n != 1 {
                events.extend(pair.receive(datagram));
            }
        }
        let frame = only_frame(events);
        assert_eq!(frame.index.0, 0xfffc + n as u32);
        assert!(frame.bytes == bytes);
    }
    assert_eq!(pair.receiver.stats().lost_frames, 0);
    assert!(sent > 300, "both counters were to wrap");
}

// spec: gamestream 13 item 103
#[test]
fn a_frame_without_parity_arrives_whole() {
    let mut pair = Pair::started(true);
    let (bytes, datagrams) = pair.send(FrameKind::Idr, 849 * PAYLOAD - 8);
    assert_eq!(datagrams.len(), 849);
    let events = datagrams.iter().flat_map(|(_, datagram)| pair.receive(datagram)).collect();
    assert!(only_frame(events).bytes == bytes);
}

// spec: gamestream 13 item 106
#[test]
fn a_resumed_session_starts_from_the_beginning() {
    for _ in 0..2 {
        let mut pair = Pair::started(true);
        check_frame(&mut pair, 5, |_, _, _| vec![]);
        check_frame(&mut pair, 5, |_, _, _| vec![4]);
    }
    // A stream whose numbers go on instead is refused, as the specification measured.
    let far = VideoCounters { frame: FrameIndex(40_000), sequence: 40_000, stream_packet_index: 0 };
    let mut old = Pair::new(true, LossPolicy::RequestIdr, far);
    let mut new = Pair::started(true);
    let (_, datagrams) = old.send(FrameKind::Idr, 1_000);
    assert!(datagrams.iter().all(|(_, datagram)| new.receive(datagram).is_empty()));
}

// spec: gamestream 7.10
#[test]
fn a_lost_frame_is_answered_until_a_frame_restarts_the_picture() {
    for policy in [LossPolicy::RequestIdr, LossPolicy::Invalidate] {
        let mut pair = Pair::new(true, policy, VideoCounters::default());
        let mut story = vec![];
        let kinds_sent = [
            (FrameKind::Idr, true),
            (FrameKind::Predicted, false),
            (FrameKind::Predicted, true),
            (FrameKind::Predicted, true),
            (FrameKind::AfterInvalidation, true),
            (FrameKind::Idr, true),
            (FrameKind::Predicted, true),
        ];
        for (kind, arrives) in kinds_sent {
            let (_, datagrams) = pair.send(kind, 5_000);
            for (_, datagram) in datagrams.iter().filter(|_| arrives) {
                story.extend(pair.receive(datagram));
            }
        }
        let invalidate = |first, last| {
            format!(
                "{:?}",
                ReceiverEvent::Invalidate { first: FrameIndex(first), last: FrameIndex(last) }
            )
        };
        let expected = match policy {
            LossPolicy::RequestIdr => {
                vec!["frame 1".into(), "RequestIdr".into(), "frame 6".into(), "frame 7".into()]
            }
            LossPolicy::Invalidate => vec![
                "frame 1".into(),
                invalidate(2, 2),
                invalidate(2, 3),
                invalidate(2, 4),
                "frame 5".into(),
                "frame 6".into(),
                "frame 7".into(),
            ],
        };
        assert_eq!(kinds(&story), expected);
    }
}

// spec: gamestream 7.5
#[test]
fn a_later_block_or_frame_gives_up_the_one_before() {
    // Two blocks; the first lacks one shard more than parity makes up for.
    let (first, data, parity) = blocks(300)[0];
    assert_eq!(first, 0);
    let mut pair = Pair::started(true);
    check_frame(&mut pair, 5, |_, _, _| vec![]);
    let (_, datagrams) = pair.send(FrameKind::Predicted, 300 * PAYLOAD - 8);
    for (_, datagram) in &datagrams[parity + 1..data + parity] {
        assert!(pair.receive(datagram).is_empty());
    }
    let events = pair.receive(&datagrams[data + parity].1);
    assert_eq!(kinds(&events), ["RequestIdr"], "the second block proves the first one lost");
    // What still comes of that frame is late, even what would have completed it.
    for (_, datagram) in &datagrams {
        assert!(pair.receive(datagram).is_empty());
    }
    check_frame(&mut pair, 5, |_, _, _| vec![]);

    let (_, old) = pair.send(FrameKind::Predicted, 5 * PAYLOAD - 8);
    let (_, new) = pair.send(FrameKind::Idr, 5 * PAYLOAD - 8);
    for (_, datagram) in &old[..4] {
        assert!(pair.receive(datagram).is_empty());
    }
    assert_eq!(kinds(&pair.receive(&new[0].1)), ["RequestIdr"]);
    assert!(pair.receive(&old[4].1).is_empty(), "the older frame is given up");
    assert_eq!(pair.receiver.stats().lost_frames, 2);
}

// spec: gamestream 7.10
#[test]
fn nothing_is_shown_before_an_idr_picture() {
    let mut pair = Pair::started(false);
    let mut story = vec![];
    for kind in [FrameKind::Predicted, FrameKind::Predicted, FrameKind::Idr] {
        let (_, datagrams) = pair.send(kind, 3_000);
        story.extend(datagrams.iter().flat_map(|(_, datagram)| pair.receive(datagram)));
    }
    assert_eq!(kinds(&story), ["RequestIdr", "frame 3"]);
}

#[test]
fn a_receiver_nobody_polls_stays_small() {
    let mut pair = Pair::started(false);
    for _ in 0..40 {
        let (_, datagrams) = pair.send(FrameKind::Idr, 2_000);
        for (_, datagram) in &datagrams {
            pair.receiver.handle_datagram(pair.now, datagram);
        }
    }
    let waiting: Vec<_> = std::iter::from_fn(|| pair.receiver.poll_event()).collect();
    assert!(waiting.len() <= 15);
    assert!(waiting.contains(&ReceiverEvent::RequestIdr));
}

/// Streams `count` frames over a link and returns what was shown, each frame checked against what was sent, and the
/// datagrams lost.
fn stream(options: &LinkOptions, seed: u64, count: u32, encrypted: bool) -> (u32, u64) {
    let mut pair = Pair::started(encrypted);
    let mut link = Link::new(options.clone(), seed);
    let (mut sent, mut shown, mut idr) = (vec![], 0, true);
    for n in 0..count {
        let kind = if idr { FrameKind::Idr } else { FrameKind::Predicted };
        let length = 1 + (mix(seed ^ u64::from(n)) % 90_000) as usize;
        let (bytes, datagrams) = pair.send(kind, length);
        sent.push(bytes);
        idr = false;
        for (at, datagram) in datagrams {
            link.push(at, &datagram);
        }
        while let Some((at, datagram)) = link.pop(pair.now) {
            pair.receiver.handle_datagram(at, &datagram);
            while let Some(event) = pair.receiver.poll_event() {
                match event {
                    ReceiverEvent::Frame(frame) => {
                        assert!(frame.bytes == sent[frame.index.0 as usize - 1], "frame differs");
                        assert!(frame.frame_type != FrameType::IntraRefresh);
                        shown += 1;
                    }
                    _ => idr = true,
                }
            }
        }
    }
    (shown, link.lost())
}

/// How often something happened in a stream that lost datagrams.
#[derive(Debug, Default)]
struct Losses {
    /// Frames of which data was missing and that were shown all the same.
    saved: u32,
    /// Frames that could not be shown.
    unshown: u32,
}

/// Streams over a link that loses datagrams, and demands each frame of which every block has enough shards, unless it
/// refers to one that could not be had; and an IDR picture soon after such a one.
fn check_losses(loss: Loss, seed: u64, losses: &mut Losses) {
    const SOON: u32 = 6;
    let mut pair = Pair::started(seed.is_multiple_of(2));
    let mut link = Link::new(LinkOptions { loss, ..LinkOptions::PERFECT }, seed);
    let (mut idr, mut intact, mut broken_for) = (true, false, 0);
    for n in 0..80 {
        let kind = if idr { FrameKind::Idr } else { FrameKind::Predicted };
        // Most frames are one block, some are two or three.
        let most = if mix(seed + n).is_multiple_of(8) { 500_000 } else { 30_000 };
        let length = 1 + (mix(seed ^ n) % most) as usize;
        let (_, datagrams) = pair.send(kind, length);
        idr = false;
        let mut arrived = datagrams.iter().map(|(at, datagram)| {
            let before = link.lost();
            link.push(*at, datagram);
            link.lost() == before
        });
        let (mut recoverable, mut missing) = (true, 0);
        for block in pair.shape.blocks() {
            let data = arrived.by_ref().take(block.data.into()).filter(|here| *here).count();
            let parity = arrived.by_ref().take(block.parity.into()).filter(|here| *here).count();
            missing += usize::from(block.data) - data;
            recoverable &= data + parity >= block.data.into();
        }
        assert_eq!(arrived.count(), 0, "datagrams that no block has");
        intact = recoverable && (intact || kind == FrameKind::Idr);
        let mut shown = false;
        while let Some((at, datagram)) = link.pop(pair.now) {
            pair.receiver.handle_datagram(at, &datagram);
            while let Some(event) = pair.receiver.poll_event() {
                match event {
                    ReceiverEvent::Frame(frame) => shown = u64::from(frame.index.0) == n + 1,
                    _ => idr = true,
                }
            }
        }
        assert_eq!(
            shown, intact,
            "seed {seed}, {loss:?}, frame {n}: {missing} data shards missing"
        );
        losses.saved += u32::from(intact && missing > 0);
        losses.unshown += u32::from(!intact);
        broken_for = if intact || kind == FrameKind::Idr { 0 } else { broken_for + 1 };
        assert!(broken_for <= SOON, "seed {seed}, {loss:?}, frame {n}: nobody asks for an IDR");
    }
}

// spec: gamestream 13 item 101
#[test]
fn a_frame_is_shown_exactly_if_parity_could_save_it_and_what_it_refers_to() {
    let bursts =
        Loss::GilbertElliott { turn_bad: 0.01, turn_good: 0.2, good_loss: 0.0, bad_loss: 0.9 };
    let kinds = [0.01, 0.05, 0.15].map(Loss::Independent);
    for loss in kinds.into_iter().chain([bursts]) {
        let mut losses = Losses::default();
        for seed in 0..30 {
            check_losses(loss, seed, &mut losses);
        }
        assert!(losses.saved > 200, "{loss:?}: {losses:?}");
        assert!(loss == kinds[0] || losses.unshown > 5, "{loss:?}: {losses:?}");
        println!("{loss:?}: {losses:?}");
    }
}

// spec: gamestream 13 item 101
#[test]
fn the_ladder_of_links() {
    let loss =
        |probability| LinkOptions { loss: Loss::Independent(probability), ..LinkOptions::PERFECT };
    let bursts =
        Loss::GilbertElliott { turn_bad: 0.005, turn_good: 0.4, good_loss: 0.0, bad_loss: 0.8 };
    let ladder = [
        ("wire", LinkOptions::PERFECT, 200),
        ("one percent", loss(0.01), 195),
        ("five percent", loss(0.05), 170),
        ("wireless bursts", LinkOptions { loss: bursts, ..LinkOptions::PERFECT }, 150),
        (
            "doubled and slightly reordered",
            LinkOptions {
                duplication: 0.2,
                delay: Duration::from_millis(3),
                jitter: Duration::from_micros(200),
                ..LinkOptions::PERFECT
            },
            195,
        ),
        ("a third lost", loss(0.33), 0),
    ];
    for (name, options, least) in ladder {
        for encrypted in [false, true] {
            let (shown, lost) = stream(&options, 11, 200, encrypted);
            println!("{name}: {shown} of 200 frames shown, {lost} datagrams lost");
            assert!(shown >= least, "{name}: only {shown} of 200 frames shown, {lost} lost");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // spec: gamestream 13 item 101
    #[test]
    fn whatever_a_link_does_no_wrong_frame_is_shown(
        seed: u64,
        loss in 0.0..0.4f64,
        duplication in 0.0..0.3f64,
        reordering in 0.0..0.1f64,
        jitter in 0u64..2_000,
        encrypted: bool,
    ) {
        let options = LinkOptions {
            loss: Loss::Independent(loss),
            duplication,
            reordering,
            reorder_by: Duration::from_micros(500),
            delay: Duration::from_millis(2),
            jitter: Duration::from_micros(jitter),
        };
        stream(&options, seed, 25, encrypted);
    }

    // spec: gamestream 13 item 101
    #[test]
    fn any_losses_within_the_parity_are_repaired(data in 1usize..430, seed: u64) {
        let mut pair = Pair::started(seed % 2 == 0);
        check_frame(&mut pair, data, |block, d, p| {
            let mut order: Vec<usize> = (0..d + p).collect();
            order.sort_by_key(|&i| mix(seed ^ (block * 1000 + i) as u64));
            order.truncate(p);
            // Missing parity behind the data is not missed; only what must be repaired is counted.
            order.retain(|&i| i < d);
            order
        });
    }

    #[test]
    fn no_datagram_makes_a_receiver_panic(
        encrypted: bool,
        mutations in proptest::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), 0u8..4), 1..60),
    ) {
        let mut pair = Pair::started(encrypted);
        for (place, value, cut, kind) in mutations {
            let (_, datagrams) = pair.send(FrameKind::Idr, 20_000);
            for (n, (_, datagram)) in datagrams.into_iter().enumerate() {
                let mut datagram = datagram;
                let at = usize::from(place) % datagram.len();
                match (kind, n % 3) {
                    (0, 1) => datagram[at] = value,
                    (1, 1) => datagram.truncate(at),
                    // The headers are where the harm is.
                    (2, _) => datagram[at % 64] ^= value,
                    (3, 2) => datagram.extend(vec![value; usize::from(cut)]),
                    _ => {}
                }
                pair.receive(&datagram);
            }
        }
    }
}
