//! Green, and one red for each door.

use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use punktfunk_core::gamestream::query::encode_hex;
use punktfunk_core::media::Mode;
use punktfunk_host::audio::silence::SilenceSource;
use punktfunk_host::audio::{AudioError, AudioSource, SAMPLE_RATE};
use punktfunk_host::gamestream::EncryptionPolicy;
use punktfunk_host::gamestream::http::{Caller, Limits, Reply, Request, Service, serve_https};
use punktfunk_host::gamestream::tls::server_config;
use punktfunk_host::selftest::device::Device;
use punktfunk_host::selftest::{self, Detours, Eraser, Options, Step, Verdict};
use punktfunk_host::session::SessionDesk;
use punktfunk_host::session::apps::test_card;
use punktfunk_host::store::ClientId;
use tokio::sync::watch;

use crate::between::{connections, datagrams, requests, with_value};
use crate::rig::{Frozen, Making, Rig, at, impatient, show};

fn with_detour(options: Options, detours: Detours) -> Options {
    Options { detours, ..options }
}

#[test]
fn a_host_that_works_is_green_and_keeps_nothing() {
    let rig = Rig::start(Making::default());
    let report = rig.test(&rig.options());
    assert_eq!((report.verdict, &report.reason), (Verdict::Green, &None), "{report:#?}");
    let mut steps: Vec<Step> = report.steps.iter().map(|taken| taken.step).collect();
    // The three parts of the stream become good in any order.
    steps[6..9].sort();
    use Step::{Audio, Control, Erase, Http, Https, Launch, Pairing, Permit, Quit, Rtsp, Video};
    let all = [Permit, Http, Pairing, Https, Launch, Rtsp, Control, Video, Audio, Quit, Erase];
    assert_eq!(steps, all);
    let counts = report.counts;
    assert!(counts.frames_decoded >= 28 && counts.idr_frames >= 2, "{counts:?}");
    assert!(counts.tone_windows >= 16 && counts.beeps >= 1, "{counts:?}");
    assert!(counts.latency_us.is_some_and(|latency| latency > 0), "{counts:?}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!((&json["verdict"], &json["reason"]), (&"green".into(), &serde_json::Value::Null));
    assert_eq!(json["steps"][2]["step"], "pairing");
    // Another one right after it finds the place free.
    assert_eq!(rig.test(&rig.options()).verdict, Verdict::Green);
}

#[test]
fn the_encryption_follows_the_host() {
    for encryption in [EncryptionPolicy::ControlOnly, EncryptionPolicy::Require] {
        let rig = Rig::start(Making { encryption, ..Making::default() });
        let report = rig.test(&rig.options());
        assert_eq!(report.verdict, Verdict::Green, "{encryption:?}: {report:#?}");
        let rtsp = report.steps.iter().find(|taken| taken.step == Step::Rtsp).unwrap();
        let is_all = encryption == EncryptionPolicy::Require;
        assert_eq!(rtsp.detail.contains("video, audio"), is_all, "{}", rtsp.detail);
    }
}

#[test]
fn without_a_host_nothing_can_be_said() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { socket: Some(folder.path().join("none")), ..Options::default() };
    let report = selftest::run(&options, &Eraser::default(), &mut show);
    assert_eq!(report.verdict, Verdict::NotRun);
    assert!(report.reason.unwrap().contains("no host is running"), "the owner needs to know");
}

#[test]
fn two_tests_do_not_run_at_once() {
    let rig = Rig::start(Making::default());
    let mut second = None;
    let report = selftest::run(&rig.options(), &Eraser::default(), &mut |taken| {
        if taken.step == Step::Launch {
            second = Some(selftest::run(&rig.options(), &Eraser::default(), &mut show));
        }
    });
    assert_eq!(second.unwrap().verdict, Verdict::NotRun);
    assert_eq!(report.verdict, Verdict::Green, "the first one does not notice: {report:#?}");
    rig.is_clean();
}

#[test]
fn it_disturbs_nobody_who_plays() {
    let rig = Rig::start(Making::default());
    let mode = Mode::new(640, 360, 30_000).unwrap();
    // The host's one place is taken, and what runs there has the same name.
    let player = ClientId([5; 32]);
    let playing = rig.sessions.launch(player, test_card().id, mode).unwrap();
    let report = selftest::run(&rig.options(), &Eraser::default(), &mut show);
    assert_eq!(report.verdict, Verdict::Green, "{report:#?}");
    assert_eq!(rig.sessions.running(player), Some(playing));
    rig.sessions.quit(player);
    rig.is_clean();
}

#[test]
fn whoever_interrupts_it_leaves_nothing() {
    let rig = Rig::start(Making::default());
    let eraser = Eraser::default();
    let report = selftest::run(&rig.options(), &eraser, &mut |taken| {
        if taken.step == Step::Rtsp {
            eraser.erase().unwrap();
            rig.is_clean();
        }
    });
    assert_eq!(report.verdict, Verdict::Red, "{report:#?}");
    rig.is_clean();
}

#[test]
fn http_that_is_closed_is_red() {
    let rig = Rig::start(Making::default());
    let closed = TcpListener::bind(at(0)).unwrap().local_addr().unwrap();
    let detours = Detours { http: Some(closed), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Http);
    assert!(reason.contains("no connection"), "{reason}");
}

#[test]
fn http_that_never_answers_or_never_ends_is_red() {
    let rig = Rig::start(Making::default());
    let mut held = Vec::new();
    let silent = connections(move |client| held.push(client));
    let detours = Detours { http: Some(silent.at), ..Detours::default() };
    let options = Options { patience: Duration::from_secs(1), ..rig.options() };
    let began = Instant::now();
    rig.is_red(&with_detour(options, detours), Step::Http);
    assert!(began.elapsed() < Duration::from_secs(60));
    let endless = connections(|mut client| {
        let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n<root status_code=\"200\">");
        while client.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let detours = Detours { http: Some(endless.at), ..Detours::default() };
    rig.is_red(&with_detour(rig.options(), detours), Step::Http);
}

#[test]
fn a_pin_that_does_not_fit_is_red() {
    let rig = Rig::start(Making::default());
    // Another salt makes another key of the same PIN.
    let other_salt = |head: String| with_value(&head, "salt", |_| encode_hex(&[5; 16]));
    let between = requests(rig.ports.http, other_salt);
    let detours = Detours { http: Some(between.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Pairing);
    assert!(reason.contains("the PIN is wrong"), "{reason}");
}

#[test]
fn a_pairing_that_is_refused_is_red() {
    let rig = Rig::start(Making::default());
    // The certificate of somebody without a permit.
    let stranger = Device::stock().unwrap().pem_hex();
    let other = move |head: String| with_value(&head, "clientcert", |_| stranger.clone());
    let between = requests(rig.ports.http, other);
    let detours = Detours { http: Some(between.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Pairing);
    assert!(reason.contains("step 1") && reason.contains("not armed"), "{reason}");
}

/// An HTTPS door with a certificate of its own.
struct Stranger;

impl Service for Stranger {
    async fn answer(&self, _: Caller, _: Request) -> Reply {
        Reply::Xml("<root status_code=\"200\"><paired>1</paired></root>".to_owned())
    }
}

#[test]
fn https_with_another_certificate_is_red() {
    let rig = Rig::start(Making::default());
    let device = Device::stock().unwrap();
    let tls = server_config(&device.certificate, &device.key).unwrap();
    let (stop, stopped) = watch::channel(false);
    let (address, serving) = rig.runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(at(0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve = serve_https(listener, tls, Arc::new(Stranger), Limits::default(), stopped);
        (address, tokio::spawn(serve))
    });
    let detours = Detours { https: Some(address), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Https);
    assert!(reason.contains("TLS handshake"), "{reason}");
    stop.send_replace(true);
    rig.runtime.block_on(serving).unwrap();
}

#[test]
fn a_host_that_cannot_start_the_card_is_red() {
    let rig = Rig::start(Making { display: None, ..Making::default() });
    let reason = rig.is_red(&rig.options(), Step::Launch);
    assert!(reason.contains("503") && reason.contains("pattern"), "{reason}");
}

#[test]
fn rtsp_that_is_cut_off_or_refuses_is_red() {
    let rig = Rig::start(Making::default());
    let cut = connections(drop);
    let detours = Detours { rtsp: Some(cut.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Rtsp);
    assert!(reason.contains("OPTIONS"), "{reason}");

    let refusing = connections(|mut client| {
        let mut some = [0; 64];
        let _ = std::io::Read::read(&mut client, &mut some);
        let _ = client.write_all(b"RTSP/1.0 400 Bad Request\r\nCSeq: 1\r\n\r\n");
        // Until the client has gone, so that the answer is not lost with the connection.
        let _ = client.shutdown(std::net::Shutdown::Write);
        while std::io::Read::read(&mut client, &mut some).is_ok_and(|count| count > 0) {}
    });
    let detours = Detours { rtsp: Some(refusing.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Rtsp);
    assert_eq!(reason, "RTSP: OPTIONS answered 400");

    // An answer in clear that says yes is somebody else's.
    let forging = connections(|mut client| {
        let mut some = [0; 2048];
        let _ = std::io::Read::read(&mut client, &mut some);
        let _ = client.write_all(b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n");
        let _ = client.shutdown(std::net::Shutdown::Write);
        while std::io::Read::read(&mut client, &mut some).is_ok_and(|count| count > 0) {}
    });
    let detours = Detours { rtsp: Some(forging.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Rtsp);
    assert!(reason.contains("not encrypted"), "{reason}");
}

#[test]
fn rtsp_that_refuses_the_choice_says_so() {
    let rig = Rig::start(Making::default());
    // More than the protocol knows.
    let options = Options { bitrate_kbps: 2_000_000, ..rig.options() };
    let reason = rig.is_red(&options, Step::Rtsp);
    assert_eq!(reason, "RTSP: ANNOUNCE answered 400");
}

#[test]
fn control_without_an_answer_is_red() {
    let rig = Rig::start(Making::default());
    let silent = UdpSocket::bind(at(0)).unwrap();
    let detours = Detours { control: silent.local_addr().ok(), ..Detours::default() };
    let options = Options { patience: Duration::from_secs(3), ..rig.options() };
    let reason = rig.is_red(&with_detour(options, detours), Step::Control);
    assert_eq!(reason, "control: no answer to CONNECT for 3 s");
}

#[test]
fn video_that_does_not_arrive_is_red() {
    let rig = Rig::start(Making::default());
    let between = datagrams(rig.ports.video, |_| false);
    let detours = Detours { video: Some(between.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(impatient(rig.options()), detours), Step::Video);
    assert!(reason.starts_with("video: 0 of 30 frames decoded, last progress "), "{reason}");
    assert!(reason.contains("(0 datagrams"), "{reason}");
}

#[test]
fn video_that_stops_is_red_and_says_when() {
    let rig = Rig::start(Making::default());
    let mut passed = 0;
    let between = datagrams(rig.ports.video, move |_| {
        passed += 1;
        passed < 60
    });
    let detours = Detours { video: Some(between.at), ..Detours::default() };
    let options = Options { frames: 300, ..impatient(rig.options()) };
    let reason = rig.is_red(&with_detour(options, detours), Step::Video);
    assert!(reason.contains(" of 300 frames decoded, last progress "), "{reason}");
    assert!(!reason.starts_with("video: 0 of"), "{reason}");
}

#[test]
fn video_with_forged_bytes_is_red() {
    let rig = Rig::start(Making::default());
    let between = datagrams(rig.ports.video, |datagram| {
        let middle = datagram.len() / 2;
        datagram[middle] ^= 1;
        true
    });
    let detours = Detours { video: Some(between.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(impatient(rig.options()), detours), Step::Video);
    assert!(reason.starts_with("video: 0 of 30 frames decoded"), "{reason}");
    assert!(!reason.contains(" 0 refused"), "they are not taken: {reason}");
}

#[test]
fn video_with_broken_pictures_is_red_without_encryption_too() {
    let encryption = EncryptionPolicy::ControlOnly;
    let rig = Rig::start(Making { encryption, ..Making::default() });
    // The headers are left alone: only the decoder can notice.
    let between = datagrams(rig.ports.video, |datagram| {
        for byte in datagram.iter_mut().skip(60).step_by(7) {
            *byte ^= 0x55;
        }
        true
    });
    let detours = Detours { video: Some(between.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(impatient(rig.options()), detours), Step::Video);
    assert!(reason.starts_with("video: 0 of"), "{reason}");
}

#[test]
fn a_few_lost_datagrams_are_repaired_and_a_third_is_too_many() {
    let rig = Rig::start(Making::default());
    let mut count = 0_u32;
    let some = datagrams(rig.ports.video, move |_| {
        count += 1;
        !count.is_multiple_of(29)
    });
    let detours = Detours { video: Some(some.at), ..Detours::default() };
    let report = rig.test(&with_detour(rig.options(), detours));
    assert_eq!(report.verdict, Verdict::Green, "{report:#?}");
    assert!(some.dropped.load(std::sync::atomic::Ordering::SeqCst) > 0);
    assert!(report.counts.shards_repaired > 0, "{report:#?}");
    drop(some);

    let mut state = 1_u64;
    let third = datagrams(rig.ports.video, move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) % 100 >= 33
    });
    let detours = Detours { video: Some(third.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(rig.options(), detours), Step::Video);
    assert!(reason.contains("95 % are needed"), "{reason}");
}

#[test]
fn a_picture_that_stands_still_is_red() {
    let display = Some(Arc::new(Frozen::default()) as _);
    let rig = Rig::start(Making { display, ..Making::default() });
    let reason = rig.is_red(&impatient(rig.options()), Step::Video);
    let expected = "video: the picture stands still: 1 of 30 frames showed a new number";
    assert!(reason.starts_with(expected), "{reason}");
}

#[test]
fn sound_that_does_not_arrive_is_red() {
    let rig = Rig::start(Making::default());
    let between = datagrams(rig.ports.audio, |_| false);
    let detours = Detours { audio: Some(between.at), ..Detours::default() };
    let reason = rig.is_red(&with_detour(impatient(rig.options()), detours), Step::Audio);
    assert!(reason.contains("(0 datagrams"), "{reason}");
}

#[test]
fn silence_is_red() {
    let sound = |spec: &punktfunk_host::audio::AudioSpec| -> Box<dyn AudioSource> {
        Box::new(SilenceSource::new(spec.channels))
    };
    let rig = Rig::start(Making { sound, ..Making::default() });
    let reason = rig.is_red(&impatient(rig.options()), Step::Audio);
    assert!(reason.contains("the tone in 0 of"), "{reason}");
    assert!(!reason.contains("(0 datagrams"), "{reason}");
}

/// A sound that is there and is not the card's.
struct Hum(SilenceSource, u64);

impl AudioSource for Hum {
    fn read(&mut self, period: &mut [f32]) -> Result<punktfunk_core::time::Timestamp, AudioError> {
        let begins = self.0.read(period)?;
        for frame in period.chunks_mut(2) {
            let time = self.1 as f64 / f64::from(SAMPLE_RATE);
            frame.fill(((time * 50.0 * std::f64::consts::TAU).sin() * 0.01) as f32);
            self.1 += 1;
        }
        Ok(begins)
    }
}

#[test]
fn another_sound_is_red() {
    let sound = |spec: &punktfunk_host::audio::AudioSpec| -> Box<dyn AudioSource> {
        Box::new(Hum(SilenceSource::new(spec.channels), 0))
    };
    let rig = Rig::start(Making { sound, ..Making::default() });
    let reason = rig.is_red(&impatient(rig.options()), Step::Audio);
    assert!(reason.contains("the tone in 0 of"), "{reason}");
}

#[test]
fn the_whole_is_bounded_whatever_the_host_does() {
    let display = Some(Arc::new(Frozen::default()) as _);
    let rig = Rig::start(Making { display, ..Making::default() });
    let options = Options { limit: Duration::from_secs(5), ..rig.options() };
    let reason = rig.is_red(&options, Step::Video);
    assert!(reason.contains("time is over"), "{reason}");
}
