//! What a sender puts on the wire, field by field.

use std::time::Duration;

use super::header::{
    FLAG_DATA, FLAG_END, FLAG_START, HEADER_BYTES, ShardHeader, flags, stream_packet_index,
};
use super::*;
use crate::line::{FrameSender, SubmitError, Submitted};
use crate::media::{AccessUnit, BlockShape, FrameIndex, FrameKind, SourceIndex};
use crate::seal::SessionKey;
use crate::time::Timestamp;

const NOW: Timestamp = Timestamp::from_micros(1_000_000);

fn options(packet_size: u16) -> VideoSenderOptions {
    VideoSenderOptions {
        packet_size,
        fec_percentage: 20,
        min_parity: 2,
        single_block: false,
        encryption: None,
        bitrate_kbps: 20_000,
        frame_interval: Duration::from_micros(16_667),
    }
}

fn unit(kind: FrameKind, length: usize) -> AccessUnit {
    AccessUnit {
        source: SourceIndex(0),
        kind,
        captured_at: NOW - Duration::from_micros(2_345),
        encode_began_at: NOW,
        encoded_at: NOW,
        repeated: false,
        bytes: (0..length).map(|i| (i * 7 + i / 251) as u8).collect(),
    }
}

/// The number that a frame took.
fn index(submitted: Result<Submitted, SubmitError>) -> Result<FrameIndex, SubmitError> {
    submitted.map(|submitted| submitted.index)
}

/// Everything a frame puts on the wire, polled as the sending thread does.
fn send(sender: &mut VideoSender, unit: &AccessUnit, now: Timestamp) -> Vec<Vec<u8>> {
    sender.submit(unit, now).unwrap();
    drain(sender, now).into_iter().flat_map(|(_, datagrams)| datagrams).collect()
}

/// The bursts that wait, with the moment each left.
fn drain(sender: &mut VideoSender, mut now: Timestamp) -> Vec<(Timestamp, Vec<Vec<u8>>)> {
    let mut bursts = vec![];
    loop {
        while let Some(burst) = sender.poll_burst(now) {
            let datagrams = burst.datagrams.chunks(burst.segment_bytes).map(<[u8]>::to_vec);
            bursts.push((now, datagrams.collect()));
        }
        let Some(next) = sender.poll_timeout() else { return bursts };
        assert!(next > now, "a sender that has nothing now must name a later time");
        now = next;
    }
}

/// Coded bytes that fill exactly `shards` data shards of packet size 1024 and `extra` bytes more.
fn fill(shards: usize, extra: usize) -> usize {
    shards * (1024 - 16) - 8 + extra
}

// spec: gamestream 13 item 98
#[test]
fn a_session_begins_with_frame_one_and_sequence_zero() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    let datagrams = send(&mut sender, &unit(FrameKind::Idr, 100), NOW);
    assert_eq!(datagrams.len(), 3, "one data shard, two of parity");
    let first = ShardHeader::parse(&datagrams[0]).unwrap();
    assert_eq!((first.frame, first.sequence, first.index), (FrameIndex(1), 0, 0));
    assert_eq!(stream_packet_index(&datagrams[0]), 0);
    assert_eq!(first.timestamp, (NOW - Duration::from_micros(2_345)).to_rtp());
    // Header: 2.3 ms, IDR, 108 bytes of payload; the bytes themselves follow at once.
    assert_eq!(datagrams[0][HEADER_BYTES..][..8], [1, 23, 0, 2, 108, 0, 0, 0]);
    assert_eq!(datagrams[0][HEADER_BYTES + 8..][..100], unit(FrameKind::Idr, 100).bytes);
}

// spec: gamestream 7.4
#[test]
fn the_frame_type_follows_the_kind_and_a_repeated_frame_has_no_latency() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    let mut header = |unit: &AccessUnit, now| {
        let datagrams = send(&mut sender, unit, now);
        datagrams[0][HEADER_BYTES..][..4].to_vec()
    };
    assert_eq!(header(&unit(FrameKind::Predicted, 9), NOW), [1, 23, 0, 1]);
    assert_eq!(header(&unit(FrameKind::AfterInvalidation, 9), NOW), [1, 23, 0, 5]);
    let mut again = unit(FrameKind::Predicted, 9);
    again.repeated = true;
    assert_eq!(header(&again, NOW), [1, 0, 0, 1]);
    // A frame faster than 0.1 ms is not of unknown latency, and one of minutes does not wrap.
    let mut fast = unit(FrameKind::Predicted, 9);
    fast.captured_at = NOW;
    assert_eq!(header(&fast, NOW), [1, 1, 0, 1]);
    assert_eq!(header(&fast, NOW + Duration::from_secs(100)), [1, 255, 255, 1]);
}

// spec: gamestream 13 item 100
#[test]
fn every_block_starts_and_ends() {
    for (data, blocks) in [(1, 1), (2, 1), (212, 1), (213, 2), (425, 3), (848, 4)] {
        let mut sender = VideoSender::new(options(1024)).unwrap();
        let datagrams = send(&mut sender, &unit(FrameKind::Idr, fill(data, 0)), NOW);
        let mut next = 0;
        for block in 0..blocks {
            let first = ShardHeader::parse(&datagrams[next]).unwrap();
            let total = first.data + first.parity.count;
            for (index, shard) in datagrams[next..next + total].iter().enumerate() {
                let header = ShardHeader::parse(shard).unwrap();
                assert_eq!((header.block, header.last_block), (block, blocks - 1));
                assert_eq!((header.index, header.data), (index, first.data));
                assert_eq!(usize::from(header.sequence), next + index);
                if index < first.data {
                    let start = if index == 0 { FLAG_START } else { 0 };
                    let end = if index + 1 == first.data { FLAG_END } else { 0 };
                    assert_eq!(flags(shard), FLAG_DATA | start | end);
                    assert_eq!(stream_packet_index(shard) as usize, next + index);
                }
            }
            next += total;
        }
        assert_eq!(next, datagrams.len());
    }
}

// spec: gamestream 13 item 104
#[test]
fn the_last_payload_is_counted() {
    let payload = 1024 - 16;
    let cases =
        [(92, 100), (fill(1, 0), payload), (fill(3, 0), payload), (fill(3, 1), 1), (fill(3, 7), 7)];
    for (length, last) in cases {
        let mut sender = VideoSender::new(options(1024)).unwrap();
        let datagrams = send(&mut sender, &unit(FrameKind::Idr, length), NOW);
        let field = &datagrams[0][HEADER_BYTES + 4..][..2];
        assert_eq!(field, u16::try_from(last).unwrap().to_le_bytes(), "{length} bytes");
    }
}

// spec: gamestream 13 item 105
#[test]
fn datagrams_have_exactly_the_announced_size() {
    let key = SessionKey::new([3; 16]);
    // A client that wants encryption announces 32 bytes less.
    let clear = [1392, 1184, 1024].map(|size| (size, None));
    let sealed = [1360, 1152, 992].map(|size| (size, Some(key.clone())));
    for (packet_size, encryption) in clear.into_iter().chain(sealed) {
        let prefix = if encryption.is_some() { 32 } else { 0 };
        let options = VideoSenderOptions { encryption, ..options(packet_size) };
        let mut sender = VideoSender::new(options).unwrap();
        for datagram in send(&mut sender, &unit(FrameKind::Idr, 5_000), NOW) {
            assert_eq!(datagram.len(), usize::from(packet_size) + 16 + prefix);
            // With the UDP and the IPv6 header.
            assert!(datagram.len() + 8 + 40 <= 1500);
        }
    }
}

// spec: gamestream 13 item 103
#[test]
fn a_frame_beyond_the_format_is_refused_and_takes_no_number() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    let max = sender.max_unit_bytes();
    assert_eq!(max, fill(4092, 0));
    let result = sender.submit(&unit(FrameKind::Idr, max + 1), NOW);
    assert_eq!(result, Err(SubmitError::TooLarge { got: max + 1, max }));
    let datagrams = send(&mut sender, &unit(FrameKind::Idr, max), NOW);
    assert_eq!(datagrams.len(), 4092);
    let header = ShardHeader::parse(&datagrams[4091]).unwrap();
    assert_eq!((header.frame, header.block, header.data), (FrameIndex(1), 3, 1023));
    assert_eq!(header.parity.percentage, 0);
}

#[test]
fn the_shape_of_a_frame_names_the_block_and_shard_of_each_datagram() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    for data in [1, 212, 213, 640, 849] {
        let shape = sender.submit(&unit(FrameKind::Idr, fill(data, 0)), NOW).unwrap().shape;
        let sent: Vec<_> = drain(&mut sender, NOW).into_iter().flat_map(|(_, all)| all).collect();
        let mut datagrams = sent.iter().enumerate();
        for (block, BlockShape { data, parity }) in shape.blocks().iter().enumerate() {
            for shard in 0..usize::from(data + parity) {
                let (place, datagram) = datagrams.next().unwrap();
                let header = ShardHeader::parse(datagram).unwrap();
                assert_eq!(header.sequence, shape.first_sequence.wrapping_add(place as u16));
                assert_eq!((usize::from(header.block), header.index), (block, shard));
                assert_eq!((header.data, header.parity.count), ((*data).into(), (*parity).into()));
            }
        }
        assert!(datagrams.next().is_none(), "datagrams that belong to no block");
    }
}

#[test]
fn two_frames_wait_and_a_third_is_refused() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    let frame = unit(FrameKind::Idr, 400_000);
    assert_eq!(index(sender.submit(&frame, NOW)), Ok(FrameIndex(1)));
    assert_eq!(index(sender.submit(&frame, NOW)), Ok(FrameIndex(2)));
    assert_eq!(index(sender.submit(&frame, NOW)), Err(SubmitError::Backlog { got: 2, max: 2 }));
    let bursts = drain(&mut sender, NOW);
    assert!(bursts.len() > 10);
    assert_eq!(
        index(sender.submit(&frame, NOW)),
        Ok(FrameIndex(3)),
        "the refused frame took no number"
    );
}

// spec: gamestream 7.2
#[test]
fn the_rest_of_the_last_shard_is_zero_whatever_the_buffer_held() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    let mut full = unit(FrameKind::Idr, fill(2, 0));
    full.bytes.fill(0xff);
    send(&mut sender, &full, NOW);
    let datagrams = send(&mut sender, &unit(FrameKind::Predicted, fill(1, 20)), NOW);
    assert_eq!(datagrams.len(), 4);
    assert!(datagrams[1][HEADER_BYTES + 20..].iter().all(|&byte| byte == 0));
}

#[test]
fn buffers_return_to_the_pool() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    for _ in 0..20 {
        // Two blocks each, two frames in flight.
        sender.submit(&unit(FrameKind::Idr, fill(300, 0)), NOW).unwrap();
        sender.submit(&unit(FrameKind::Idr, fill(300, 0)), NOW).unwrap();
        drain(&mut sender, NOW);
        assert_eq!(sender.idle_buffers(), 4);
    }
}

#[test]
fn the_last_burst_of_a_frame_says_so() {
    let mut sender = VideoSender::new(options(1024)).unwrap();
    for length in [100, fill(300, 0)] {
        let frame = sender.submit(&unit(FrameKind::Idr, length), NOW).unwrap().index;
        let (mut now, mut ends) = (NOW, vec![]);
        loop {
            while let Some(burst) = sender.poll_burst(now) {
                assert_eq!(burst.frame, frame);
                ends.push(burst.last);
            }
            let Some(next) = sender.poll_timeout() else { break };
            now = next;
        }
        assert_eq!(ends.iter().filter(|last| **last).count(), 1);
        assert_eq!(ends.last(), Some(&true));
    }
}

#[test]
fn an_exhausted_counter_sends_nothing() {
    let key = SessionKey::new([1; 16]);
    let sender =
        VideoSender::new(VideoSenderOptions { encryption: Some(key.clone()), ..options(1024) });
    let sealer = VideoSealer::starting_at(&key, u64::MAX - 4);
    let mut sender = sender.unwrap().with_sealer(Box::new(sealer));
    assert_eq!(send(&mut sender, &unit(FrameKind::Idr, 10), NOW).len(), 3);
    let result = sender.submit(&unit(FrameKind::Predicted, 10), NOW);
    assert_eq!(result, Err(SubmitError::CounterExhausted));
    assert!(sender.poll_burst(NOW).is_none());
}

// spec: gamestream 7.11
#[test]
fn a_frame_leaves_in_small_bursts_within_half_the_interval() {
    for length in [30_000, 250_000, 1_500_000] {
        let mut sender = VideoSender::new(options(1392)).unwrap();
        sender.submit(&unit(FrameKind::Idr, length), NOW).unwrap();
        let bursts = drain(&mut sender, NOW);
        for (_, burst) in &bursts {
            assert!(burst.len() <= 64);
            assert!(burst.iter().map(Vec::len).sum::<usize>() <= 65_536);
        }
        let took = bursts.last().unwrap().0.since(NOW);
        assert!(took <= Duration::from_micros(16_667 / 2), "{length} bytes took {took:?}");
        if length > 70_000 {
            assert!(took > Duration::from_millis(1), "{length} bytes left in {took:?}");
        }
    }
}

#[test]
fn options_out_of_range_are_named() {
    let new = |options| VideoSender::new(options).map(|_| ());
    let size = VideoOptionsError::PacketSize { got: 63, min: 64, max: 1500 };
    assert_eq!(new(options(63)), Err(size));
    let fec = VideoSenderOptions { fec_percentage: 101, ..options(1024) };
    assert_eq!(new(fec), Err(VideoOptionsError::FecPercentage { got: 101, max: 100 }));
    let parity = VideoSenderOptions { min_parity: 65, ..options(1024) };
    assert_eq!(new(parity), Err(VideoOptionsError::MinParity { got: 65, max: 64 }));
}
