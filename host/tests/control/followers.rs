//! A stream that plays while others look at it: live figures over the local socket, from a session that is real.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use punktfunk_core::media::FrameFate;
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::mgmt::wire::{Session, SessionDetails, SessionEnded, SessionFigures};
use punktfunk_host::mgmt::{MgmtHandles, MgmtOptions, MgmtServer, Startup};
use punktfunk_host::pairing::{DeskMode, DeskOptions, PairingDesk};
use punktfunk_host::store::{NewClient, Store};

use super::player::Player;
use super::whole::{Host, WIDTH, assert_undisturbed, sent};

const FOLLOWERS: usize = 10;
/// So many seconds of figures each of them wants.
const WANTED: usize = 4;

/// The management socket of a host without HTTP.
fn serve(host: &Host) -> MgmtServer {
    serve_from(host, Store::open(&host.folder.path().join("state")).unwrap())
}

/// The same, with what this remembers.
fn serve_from(host: &Host, store: Store) -> MgmtServer {
    let _guard = host.runtime.enter();
    let desk = PairingDesk::new(DeskOptions::new(DeskMode::Prompt));
    let handles = MgmtHandles::bare(desk, store, host.sessions.clone());
    let socket = host.folder.path().join("run/host.sock");
    let options = MgmtOptions { socket, owner_uid: None, appliance: false };
    MgmtServer::start(&options, Startup::complete(handles)).unwrap()
}

fn ask(socket: &Path, method: &str, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(socket).unwrap();
    write!(stream, "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    stream
}

/// The status line and the body of an answer.
fn answer(socket: &Path, method: &str, path: &str) -> (String, String) {
    let mut text = String::new();
    ask(socket, method, path).read_to_string(&mut text).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

/// What one follower heard: the data of its figures, and why the session ended.
fn follow(socket: PathBuf, session: u64, heard: &AtomicUsize) -> (Vec<String>, String) {
    let stream = BufReader::new(ask(&socket, "GET", &format!("/sessions/{session}/live")));
    let (mut figures, mut name) = (Vec::new(), String::new());
    for line in stream.lines() {
        let line = line.unwrap();
        if let Some(event) = line.strip_prefix("event: ") {
            name = event.to_owned();
        }
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if name == "ended" {
            return (figures, serde_json::from_str::<SessionEnded>(data).unwrap().reason);
        }
        figures.push(data.to_owned());
        heard.fetch_add(1, Ordering::SeqCst);
    }
    panic!("the session's figures end without a reason");
}

#[test]
fn ten_followers_of_a_stream_take_no_frame_from_it_and_hear_how_it_ends() {
    let mut host = Host::start(Arc::new(X264Backend));
    let mut client = host.play(1, WIDTH);
    let server = serve(&host);
    let (socket, session) = (server.socket().to_owned(), client.session.0);
    let heard: Arc<AtomicUsize> = Arc::default();
    let began = Instant::now();
    let followers: Vec<_> = (0..FOLLOWERS)
        .map(|_| {
            let (socket, heard) = (socket.clone(), Arc::clone(&heard));
            std::thread::spawn(move || follow(socket, session, &heard))
        })
        .collect();
    // The client reports: frames that were lost, and a block of which five datagrams were missing.
    client.player.send(1, 0x0301, &[0; 24]);
    let mut status = [0; 21];
    status[9] = 5;
    client.player.send(1, 0x5502, &status);
    client.until(&host, "all followers hear of it", |_| {
        heard.load(Ordering::SeqCst) >= FOLLOWERS * WANTED
    });
    let (lasted, frames) = (began.elapsed(), client.traces(&host));
    assert_undisturbed(&frames);
    assert!(sent(&frames).count() > 60, "{}", sent(&frames).count());

    let (status, body) = answer(&socket, "GET", &format!("/sessions/{session}"));
    assert!(status.ends_with("200 OK"), "{status}");
    let details: SessionDetails = serde_json::from_str(&body).unwrap();
    let stream = details.stream.unwrap();
    assert_eq!((stream.codec.as_str(), stream.fec_percent), ("H.264", 20));
    assert_eq!((stream.protocol.as_str(), stream.mode.as_str()), ("GameStream", "256x144@59.940"));
    assert_eq!(stream.client_address.to_string(), "127.0.0.1");
    let encryption = stream.encryption;
    assert_eq!((encryption.control, encryption.video, encryption.audio), (true, false, true));
    assert!(details.session.streaming && details.seconds <= lasted.as_secs() + 60);

    // Who follows does not care which session of the client's it is; only this one may end.
    assert!(answer(&socket, "DELETE", "/sessions/77").0.ends_with("404 Not Found"));
    let (status, body) = answer(&socket, "DELETE", &format!("/sessions/{session}"));
    assert!(status.ends_with("200 OK"), "{status}");
    let ended: Session = serde_json::from_str(&body).unwrap();
    assert_eq!((ended.id, ended.ended.as_deref()), (session, Some("it was quit")));
    assert!(
        answer(&socket, "DELETE", &format!("/sessions/{session}")).0.ends_with("404 Not Found")
    );

    let told: Vec<_> = followers.into_iter().map(|one| one.join().unwrap()).collect();
    let (first, _) = &told[0];
    for (figures, reason) in &told {
        assert_eq!(reason, "it was quit");
        let same = figures.iter().filter(|data| first.contains(data)).count();
        assert!(same >= WANTED - 1, "followers are told what was computed once: {same}");
    }
    check_figures(&serde_json::from_str(&first[first.len() - 1]).unwrap());
    assert!(lasted < Duration::from_secs(30), "figures come once a second: {lasted:?}");
    // Who comes too late hears only how it ended.
    let (late, reason) = follow(socket, session, &AtomicUsize::new(0));
    assert_eq!((late.len(), reason.as_str()), (0, "it was quit"));
    drop(server);
}

#[test]
fn a_device_that_is_removed_while_it_streams_is_cut_off_and_told() {
    let mut host = Host::start(Arc::new(X264Backend));
    let store = Store::open(&host.folder.path().join("state")).unwrap();
    let device = NewClient {
        certificate_der: vec![1, 2, 3],
        name: "TV".to_owned(),
        remote: [127, 0, 0, 1].into(),
    };
    let device = store.add_client(device).unwrap().id;
    let mut client = host.play_as(device, WIDTH);
    let mut sibling = host.play(1, WIDTH);
    let server = serve_from(&host, store);
    let (socket, session) = (server.socket().to_owned(), client.session.0);
    let (status, body) = answer(&socket, "GET", "/clients");
    assert!(status.ends_with("200 OK") && body.contains("\"streaming\":true"), "{body}");

    assert!(answer(&socket, "DELETE", &format!("/clients/{device}")).0.ends_with("200 OK"));
    let told = |player: &Player| player.heard.iter().any(|(kind, _)| *kind == 0x0109);
    assert!(client.player.serve_until(told), "it is not told: {:x?}", client.player.heard);
    let (_, reason) = follow(socket.clone(), session, &AtomicUsize::new(0));
    assert_eq!(reason, "it was quit");
    let sent_at_the_end = sent(&client.traces(&host)).count();
    assert_eq!(answer(&socket, "GET", "/clients").1, "[]");

    let shown = sent(&sibling.traces(&host)).count();
    sibling.until(&host, "the sibling plays on", |traces| sent(traces).count() > shown + 10);
    assert_eq!(
        sent(&client.traces(&host)).count(),
        sent_at_the_end,
        "no picture goes out any more"
    );
    drop(server);
}

fn check_figures(last: &SessionFigures) {
    let second = &last.second;
    assert!(last.streaming && last.client.invalidations == 1, "{last:?}");
    assert_eq!((last.client.loss_reports, last.client.missing_datagrams), (1, 5));
    assert!(last.client.round_trip_ms.is_some_and(|millis| millis < 500), "{last:?}");
    assert_eq!(second.milliseconds, 1000);
    assert!(second.sent_fps > 5.0 && second.sent_fps < 90.0, "{second:?}");
    assert!(second.video_kbps > 0 && second.count.datagrams > 0 && second.parity_percent > 0.0);
    assert!(last.recent.count.sent > second.count.sent);
    let latency = second.latency.unwrap();
    assert!(latency.whole.p50_us > 0 && latency.whole.p50_us <= latency.whole.p99_us);
    assert!(latency.encode.p50_us <= latency.whole.p99_us);
}

/// The traces that the figures are made of tell the same story.
#[test]
fn figures_count_what_the_traces_say() {
    use punktfunk_host::session::figures::{Figures, Window};

    let mut host = Host::start(Arc::new(X264Backend));
    let mut client = host.play(1, WIDTH);
    client.until(&host, "its stream runs", |traces| sent(traces).count() > 60);
    let traces = client.traces(&host);
    let all = Window {
        from: punktfunk_core::time::Timestamp::ZERO,
        to: punktfunk_host::clock::now() + Duration::from_secs(1),
    };
    let figures = Figures::of(&traces, all);
    let bytes = traces.iter().map(|trace| match trace.fate {
        FrameFate::Sent { bytes, .. } => u64::from(bytes),
        FrameFate::Dropped(_) => 0,
    });
    assert_eq!(figures.tally.bytes, bytes.sum::<u64>());
    assert_eq!(figures.tally.sent, sent(&traces).count() as u64);
    assert_eq!(
        figures.tally.captured + figures.tally.repeated,
        traces.len() as u64,
        "every picture ends in one trace"
    );
}
