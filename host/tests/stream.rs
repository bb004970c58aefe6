//! The threads of a stream, with scripted parts at both ends of the line and real sockets on loopback.

mod stream_rig;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;
use punktfunk_core::media::{
    DropReason, FrameFate, FrameIndex, FrameKind, FrameTrace, Mode, SourceIndex,
};
use punktfunk_host::audio::AudioSpec;
use punktfunk_host::audio::silence::SilenceSource;
use punktfunk_host::audio::tone::ToneSource;
use punktfunk_host::capture::FramePool;
use punktfunk_host::clock;
use punktfunk_host::encode::EncodeSpec;
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::stream::{
    self, EndReason, Peer, StreamControl, StreamError, StreamParts, StreamSpec,
};

use stream_rig::{
    BrokenSound, EncoderScript, Rig, ScriptedBackend, ScriptedSource, Shot, line, receiver,
    video_spec,
};

fn kind(trace: &FrameTrace) -> FrameKind {
    match trace.fate {
        FrameFate::Sent { kind, .. } => kind,
        FrameFate::Dropped(reason) => panic!("{:?} was dropped: {reason:?}", trace.source),
    }
}

#[test]
fn the_newest_picture_wins_and_the_others_say_why_they_are_missing() {
    let (announce, entered) = channel();
    let (open, gate) = channel();
    let script = EncoderScript { gate: Mutex::new(Some((announce, gate))), ..Default::default() };
    let rig = Rig::with(500_000, Box::new(SilenceSource::new(2)), script);
    rig.frame();
    entered.recv().unwrap();
    // The encoder is busy with the first one.
    for _ in 1..=5 {
        rig.frame();
    }
    for index in 1..=4 {
        let trace = rig.trace();
        assert_eq!(trace.source, SourceIndex(index));
        assert_eq!(trace.fate, FrameFate::Dropped(DropReason::Superseded));
    }
    open.send(()).unwrap();
    assert_eq!(rig.sent().source, SourceIndex(0));
    entered.recv().unwrap();
    open.send(()).unwrap();
    let newest = rig.sent();
    assert_eq!((newest.source, newest.repeated), (SourceIndex(5), false));
    rig.handle().stop(EndReason::ClientGone);
    drop((open, entered));
    assert_eq!(rig.end().0, EndReason::ClientGone);
}

#[test]
fn no_more_than_two_access_units_are_ever_between_encoder_and_socket() {
    let rig = Rig::start(500_000);
    rig.sender.hold.store(true, Ordering::SeqCst);
    for _ in 0..40 {
        rig.frame();
    }
    for _ in 0..35 {
        let fate = rig.trace().fate;
        assert!(matches!(fate, FrameFate::Dropped(DropReason::Superseded | DropReason::OverRate)));
    }
    assert!(rig.encoder.encoded.load(Ordering::SeqCst) <= 2);
    rig.sender.hold.store(false, Ordering::SeqCst);
    for _ in 0..20 {
        rig.sent();
    }
    assert!(rig.sender.most_waiting.load(Ordering::SeqCst) <= 2);
    assert!(rig.encoder.recycled.load(Ordering::SeqCst) > 10, "memory goes back to the encoder");
    rig.handle().stop(EndReason::Quit);
    assert_eq!(rig.end().0, EndReason::Quit);
}

#[test]
fn a_static_screen_is_sent_at_the_full_rate() {
    // spec: gamestream 13 item 109
    let rig = Rig::start(50_000);
    rig.frame();
    let first = rig.sent();
    assert!(!first.repeated);
    let mut last = first;
    for _ in 0..25 {
        last = rig.sent();
        assert_eq!((last.source, last.repeated), (first.source, true));
        assert_eq!(kind(&last), FrameKind::Predicted);
    }
    let took = last.captured_at.since(first.captured_at);
    assert!(took >= Duration::from_millis(24 * 20), "{took:?}: faster than negotiated");
    // Wide, because a busy machine wakes threads late; the schedule itself is proven without a clock.
    assert!(took < Duration::from_millis(25 * 20 * 2), "{took:?} for 25 pictures at 50 Hz");
    rig.handle().stop(EndReason::Quit);
    rig.end();
}

#[test]
fn a_source_that_is_too_fast_is_thinned_out() {
    let rig = Rig::start(100_000);
    let begin = clock::now();
    let mut shown = 0;
    while clock::now().since(begin) < Duration::from_millis(300) {
        rig.frame();
        shown += 1;
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let took = clock::now().since(begin);
    rig.handle().stop(EndReason::Quit);
    let (_, traces) = rig.end();
    let sent = traces.iter().filter(|trace| matches!(trace.fate, FrameFate::Sent { .. })).count();
    let most = took.as_millis() as usize / 10 + 3;
    assert!(sent <= most, "{sent} pictures of {shown} in {took:?}");
    let over = FrameFate::Dropped(DropReason::OverRate);
    assert!(traces.iter().any(|trace| trace.fate == over));
}

#[test]
fn ten_requests_are_answered_by_one_or_two_idr_pictures_and_at_once() {
    // spec: gamestream 13 item 77
    let rig = Rig::start(100_000);
    rig.frame();
    assert_eq!(kind(&rig.sent()), FrameKind::Idr);
    for _ in 0..14 {
        assert_eq!(kind(&rig.sent()), FrameKind::Predicted);
    }
    for _ in 0..10 {
        rig.handle().request_idr();
    }
    let after: Vec<_> = (0..30).map(|_| kind(&rig.sent())).collect();
    // Up to two pictures were encoded before the request, the next two intervals answer it.
    assert!(after[..4].contains(&FrameKind::Idr), "{after:?}");
    let idrs = after.iter().filter(|&&kind| kind == FrameKind::Idr).count();
    assert!((1..=2).contains(&idrs), "{idrs} IDR pictures");
    rig.handle().stop(EndReason::Quit);
    rig.end();
}

#[test]
fn an_invalidation_that_the_encoder_cannot_serve_is_answered_by_an_idr() {
    // spec: gamestream 13 item 78
    let rig = Rig::start(100_000);
    rig.frame();
    for _ in 0..15 {
        rig.sent();
    }
    rig.handle().invalidate(FrameIndex(3), FrameIndex(4));
    rig.handle().invalidate(FrameIndex(6), FrameIndex(6));
    let after: Vec<_> = (0..10).map(|_| kind(&rig.sent())).collect();
    let idrs = after.iter().filter(|&&kind| kind == FrameKind::Idr).count();
    assert!((1..=2).contains(&idrs), "{after:?}");
    rig.handle().stop(EndReason::Quit);
    rig.end();
}

#[test]
fn a_mode_change_reopens_the_encoder_and_keeps_the_sender() {
    let rig = Rig::start(100_000);
    rig.frame();
    let mut before = rig.sent();
    rig.show(Shot::Frame(128, 96));
    let after = loop {
        let trace = rig.sent();
        if trace.source == SourceIndex(1) {
            break trace;
        }
        before = trace;
    };
    let number = |trace: &FrameTrace| match trace.fate {
        FrameFate::Sent { index, .. } => index.0,
        FrameFate::Dropped(_) => 0,
    };
    assert_eq!(kind(&after), FrameKind::Idr);
    assert_eq!(number(&after), number(&before) + 1);
    let opened = rig.encoder.opened.lock().unwrap().clone();
    let expected = [(64, 64), (128, 96)].map(|(w, h)| Mode::new(w, h, 100_000).unwrap());
    assert_eq!(opened, expected);
    // A size no encoder can have ends the stream instead of looping.
    rig.show(Shot::Frame(129, 96));
    assert!(matches!(rig.end().0, EndReason::EncoderFailed(_)));
}

#[test]
fn an_access_unit_that_is_too_large_is_traced_and_the_stream_restarts() {
    let rig = Rig::start(100_000);
    rig.frame();
    assert_eq!(kind(&rig.sent()), FrameKind::Idr);
    rig.encoder.too_large.store(true, Ordering::SeqCst);
    while rig.trace().fate != FrameFate::Dropped(DropReason::Unsendable) {}
    // One picture may have been on its way to the socket when the other was refused.
    let after = [rig.sent(), rig.sent()];
    assert!(after.iter().any(|trace| kind(trace) == FrameKind::Idr));
    rig.handle().stop(EndReason::Quit);
    rig.end();
}

#[test]
fn a_panic_in_any_thread_ends_this_stream_and_nothing_else() {
    let check = |name: &str, rig: Rig| {
        let (reason, _) = rig.end();
        let EndReason::Bug(text) = &reason else { panic!("{name}: {reason:?}") };
        assert!(text.starts_with(name) && text.contains("has a bug"), "{text}");
    };
    let rig = Rig::start(100_000);
    rig.show(Shot::Panic);
    check("pf-capture", rig);
    let rig = Rig::start(100_000);
    rig.encoder.panic.store(true, Ordering::SeqCst);
    rig.frame();
    check("pf-encode", rig);
    let rig = Rig::start(100_000);
    rig.sender.panic.store(true, Ordering::SeqCst);
    rig.frame();
    check("pf-send", rig);
    let sound = Box::new(BrokenSound::Panic);
    check("pf-audio", Rig::with(100_000, sound, EncoderScript::default()));
}

#[test]
fn each_failing_part_names_itself_as_the_reason() {
    let rig = Rig::start(100_000);
    rig.show(Shot::Lost);
    assert!(matches!(rig.end().0, EndReason::DisplayLost(text) if text.contains("unplugged")));
    let rig = Rig::start(100_000);
    rig.encoder.fail.store(true, Ordering::SeqCst);
    rig.frame();
    assert!(matches!(rig.end().0, EndReason::EncoderFailed(text) if text.contains("smoke")));
    let rig = Rig::start(100_000);
    rig.sender.exhausted.store(true, Ordering::SeqCst);
    rig.frame();
    assert!(matches!(rig.end().0, EndReason::NetworkFailed(_)));
}

#[test]
fn every_captured_picture_is_sent_or_dropped_exactly_once() {
    let rig = Rig::start(500_000);
    for step in 0..300_u64 {
        rig.frame();
        if step % 7 == 0 {
            rig.handle().request_idr();
        }
        if step % 3 == 0 {
            std::thread::park_timeout(Duration::from_millis(step % 5));
        }
    }
    rig.handle().stop(EndReason::ClientGone);
    let (reason, traces) = rig.end();
    assert_eq!(reason, EndReason::ClientGone);
    let mut fates = BTreeMap::<u64, Vec<FrameFate>>::new();
    for trace in traces.iter().filter(|trace| !trace.repeated) {
        fates.entry(trace.source.0).or_default().push(trace.fate);
        check_stamps(trace);
    }
    for index in 0..300 {
        let fates = fates.get(&index);
        assert_eq!(fates.map_or(0, Vec::len), 1, "picture {index}: {fates:?}");
    }
}

fn check_stamps(trace: &FrameTrace) {
    if let FrameFate::Sent {
        encode_began_at,
        encoded_at,
        first_sent_at,
        last_sent_at,
        bytes,
        datagrams,
        shape,
        index,
        ..
    } = trace.fate
    {
        let stamps = [trace.captured_at, encode_began_at, encoded_at, first_sent_at, last_sent_at];
        assert!(stamps.is_sorted(), "{stamps:?}");
        assert_eq!((bytes, datagrams), (250, 3));
        assert_eq!((u32::from(shape.first_sequence), shape.blocks().len()), (index.0, 1));
    }
}

#[test]
fn the_first_reason_stays_and_dropping_the_handle_ends_the_stream() {
    let rig = Rig::start(60_000);
    rig.frame();
    rig.sent();
    rig.handle().stop(EndReason::Replaced);
    rig.handle().stop(EndReason::Quit);
    rig.handle().join();
    assert_eq!(rig.end().0, EndReason::Replaced);
    let mut rig = Rig::start(60_000);
    drop(rig.handle.take());
    assert_eq!(rig.end().0, EndReason::Quit);
}

#[test]
fn a_stream_that_is_stopped_before_its_first_picture_ends() {
    let rig = Rig::start(60_000);
    rig.handle().stop(EndReason::Shutdown);
    assert_eq!(rig.end(), (EndReason::Shutdown, Vec::new()));
}

#[test]
fn video_follows_its_client_to_a_new_address() {
    let rig = Rig::start(100_000);
    rig.frame();
    let mut datagram = [0; 200];
    assert_eq!(rig.video.recv(&mut datagram).unwrap(), 100);
    let elsewhere = receiver();
    rig.handle().set_video_peer(elsewhere.local_addr().unwrap().into());
    assert_eq!(elsewhere.recv(&mut datagram).unwrap(), 100);
    rig.handle().stop(EndReason::Quit);
    rig.end();
}

// spec: gamestream 5.2
#[test]
fn media_leaves_from_the_address_that_the_client_spoke_to() {
    let rig = Rig::start(100_000);
    rig.frame();
    let comes_from = |socket: &UdpSocket, wanted: IpAddr| {
        // What was on its way when the address changed may still lie in the buffer.
        (0..500).any(|_| socket.recv_from(&mut [0; 200]).unwrap().1.ip() == wanted)
    };
    for last in [7, 8] {
        let from = IpAddr::from([127, 0, 0, last]);
        let peer = |to: &UdpSocket| Peer { to: to.local_addr().unwrap(), from: Some(from) };
        rig.handle().set_video_peer(peer(&rig.video));
        rig.handle().set_audio_peer(peer(&rig.sound));
        assert!(comes_from(&rig.video, from), "video from {from}");
        assert!(comes_from(&rig.sound, from), "sound from {from}");
    }
    rig.handle().stop(EndReason::Quit);
    rig.end();
}

#[test]
fn sound_begins_when_its_client_is_known_and_survives_its_source() {
    let rig = Rig::with(100_000, Box::new(BrokenSound::Lost), EncoderScript::default());
    let mut datagram = [0; 200];
    rig.frame();
    rig.sent();
    rig.sound.set_nonblocking(true).unwrap();
    assert!(rig.sound.recv(&mut datagram).is_err(), "nobody asked for sound yet");
    rig.sound.set_nonblocking(false).unwrap();
    rig.handle().set_audio_peer(rig.sound.local_addr().unwrap().into());
    for _ in 0..20 {
        assert_eq!(rig.sound.recv(&mut datagram).unwrap(), 60);
    }
    rig.handle().stop(EndReason::Quit);
    assert_eq!(rig.end().0, EndReason::Quit);
}

#[test]
fn what_cannot_be_encoded_is_refused_before_anything_runs() {
    let (on_end, ended) = channel();
    let (traces, _) = sync_channel(1);
    let script = channel().1;
    let parts = StreamParts {
        spec: StreamSpec {
            video: video_spec(60_000),
            audio: AudioSpec { channels: 6, period_samples: 240, bitrate_kbps: 96 },
        },
        frames: Box::new(ScriptedSource { script, pool: FramePool::new(1), next: 0 }),
        encoder: Arc::new(ScriptedBackend(Arc::default())),
        sound: Box::new(SilenceSource::new(2)),
        line: line(&Arc::default(), on_end),
        traces,
    };
    assert!(matches!(stream::prepare(parts).err(), Some(StreamError::Sound(_))));
    assert!(ended.recv().is_err(), "nothing had begun");
}

#[test]
fn a_real_encoder_streams_through_a_mode_change() {
    let spec = EncodeSpec { max_unit_bytes: 1 << 20, slices: 2, ..video_spec(50_000) };
    let sound = Box::new(ToneSource::new(2));
    let rig = Rig::with_backend(spec, sound, Arc::default(), Arc::new(X264Backend));
    rig.handle().set_audio_peer(rig.sound.local_addr().unwrap().into());
    let mut loudest = 0.0_f32;
    let mut ears = opus::Decoder::new(48_000, opus::Channels::Stereo).unwrap();
    rig.frame();
    for _ in 0..10 {
        rig.sent();
    }
    rig.show(Shot::Frame(320, 180));
    while rig.sent().source == SourceIndex(0) {}
    for _ in 0..40 {
        let (mut datagram, mut period) = ([0; 200], [0.0; 480]);
        let length = rig.sound.recv(&mut datagram).unwrap();
        ears.decode_float(&datagram[..length], &mut period, false).unwrap();
        loudest = period.iter().fold(loudest, |most, sample| most.max(sample.abs()));
    }
    assert!(loudest > 0.005, "the tone arrives: {loudest}");
    rig.handle().stop(EndReason::Quit);
    let sender = Arc::clone(&rig.sender);
    rig.end();
    let mut eyes = Decoder::new().unwrap();
    let mut sizes = Vec::new();
    for unit in sender.units.lock().unwrap().iter() {
        sizes.push(eyes.decode(unit).unwrap().unwrap().dimensions());
    }
    assert!(sizes.len() >= 11);
    sizes.dedup();
    assert_eq!(sizes, [(64, 64), (320, 180)]);
}
