use std::net::{Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use punktfunk_host::session::{AppId, SessionDesk};
use punktfunk_host::store::ClientId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{
    Device, LOCALHOST, SHARED_ID, TlsOptions, connect, get, get_tls, handshake, receive, send,
    shared_device, trust,
};
use crate::host::{BROKEN, DESKTOP, GAME, Host};

const KEY: &str = "rikey=000102030405060708090a0b0c0d0e0f&rikeyid=-5";

async fn with_device() -> (Host, Device, ClientId) {
    let host = Host::start().await;
    let device = shared_device();
    trust(&host, &device);
    let client = ClientId::of_certificate(&device.certificate);
    (host, device, client)
}

/// A key that no other request of this test used.
fn key(number: u8) -> String {
    format!("rikey={}&rikeyid={number}", format!("{number:02x}").repeat(16))
}

// spec: gamestream 13 item 4
// spec: gamestream 13 item 5
// spec: gamestream 13 item 8
// spec: gamestream 13 item 9
#[tokio::test]
async fn strangers_see_a_masked_serverinfo() {
    let (host, device, client) = with_device().await;
    host.sessions.launch(client, AppId(GAME), punktfunk_mode()).unwrap();
    let started = Instant::now();
    // The unique id of a paired client does not make anybody paired.
    let info = get(host.http, &format!("/serverinfo?uniqueid={SHARED_ID}")).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(info.code(), 200);
    for (name, value) in [
        ("hostname", "Wohn &amp; &lt;zimmer&gt;"),
        ("appversion", "7.1.431.-1"),
        ("GfeVersion", "3.23.0.74"),
        ("uniqueid", host.identity.host_id()),
        ("HttpsPort", &host.https.port().to_string()),
        ("ExternalPort", &host.http.port().to_string()),
        ("mac", "00:00:00:00:00:00"),
        ("LocalIP", "127.0.0.1"),
        // What the desk encodes: H.264 and AV1.
        ("ServerCodecModeSupport", "65537"),
        ("MaxLumaPixelsHEVC", "0"),
        ("PairStatus", "0"),
        ("currentgame", "0"),
    ] {
        assert_eq!(info.value(name), Some(value), "{name}");
    }
    assert!(info.value("state").unwrap().ends_with("_SERVER_FREE"));
    assert!(info.headers.contains("connection: close"), "{}", info.headers);

    // spec: gamestream 13 item 10
    let own = get_tls(&host, Some(&device), "/serverinfo").await;
    assert_eq!(own.value("PairStatus"), Some("1"));
    // spec: gamestream 13 item 6
    assert_eq!(own.value("ServerCodecModeSupport"), Some("65537"));
    assert_eq!(own.value("currentgame"), Some("7"));
    assert!(own.value("state").unwrap().ends_with("_SERVER_BUSY"));
    let other = Device::stock().unwrap();
    let target = format!("/serverinfo?uniqueid={SHARED_ID}");
    assert_eq!(get_tls(&host, Some(&other), &target).await.code(), 401);
    // What runs for one client is not shown to another.
    trust(&host, &other);
    let theirs = get_tls(&host, Some(&other), "/serverinfo").await;
    assert_eq!((theirs.value("currentgame"), theirs.value("PairStatus")), (Some("0"), Some("1")));
    host.stop().await;
}

fn punktfunk_mode() -> punktfunk_core::media::Mode {
    punktfunk_core::media::Mode::new(1280, 720, 60_000).unwrap()
}

// spec: gamestream 13 item 2
// spec: gamestream 13 item 9
// spec: gamestream 13 item 44
#[tokio::test]
async fn ipv6_reaches_the_same_doors() {
    let (host, device, _) = with_device().await;
    let at = |port| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    let info = get(at(host.http.port()), "/serverinfo").await;
    assert_eq!((info.code(), info.value("LocalIP")), (200, Some("127.0.0.1")));
    for (corever, url) in [("&corever=1", "rtspenc://[::1]:48010"), ("", "rtsp://[::1]:48010")] {
        let options = TlsOptions { device: Some(&device), ..TlsOptions::default() };
        let mut stream = handshake(&host, at(host.https.port()), options).await.unwrap();
        let number = url.len() as u8;
        send(&mut stream, &format!("/launch?appid={DESKTOP}&{}{corever}", key(number))).await;
        assert_eq!(receive(&mut stream).await.value("sessionUrl0"), Some(url));
    }
    host.stop().await;
}

// spec: gamestream 13 item 12
// spec: gamestream 13 item 16
#[tokio::test]
async fn whatever_is_asked_the_answer_is_http_200_and_a_document() {
    let (host, device, _) = with_device().await;
    for path in ["/", "/nothing", "/serverinfo/x", "//", "/pair", "/pair?phrase=x", "/resume?%"] {
        let plain = get(host.http, path).await;
        let secure = get_tls(&host, Some(&device), path).await;
        for answer in [plain, secure] {
            assert_ne!(answer.code(), 200, "{path}");
            assert!(answer.text().starts_with("<?xml version=\"1.0\" encoding=\"utf-8\"?><root "));
            assert!(answer.headers.contains("content-type: application/xml"));
        }
    }
    assert_eq!(get(host.http, "/nothing").await.code(), 404);
    assert_eq!(get_tls(&host, Some(&device), "/nothing").await.code(), 404);
    for path in ["/applist", "/appasset?appid=1", "/launch", "/resume", "/cancel"] {
        assert_eq!(get(host.http, path).await.code(), 401, "{path} over plain HTTP");
    }
    let mut stream = connect(host.http, LOCALHOST).await;
    let post = "POST /serverinfo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody";
    stream.write_all(post.as_bytes()).await.unwrap();
    assert_eq!(receive(&mut stream).await.code(), 400);
    assert_eq!(get(host.http, "/serverinfo").await.code(), 200);
    host.stop().await;
}

// spec: gamestream 13 item 14
#[tokio::test]
async fn long_requests_are_read_and_endless_ones_are_not() {
    let host = Host::start().await;
    let long = format!("/serverinfo?x={}", "a".repeat(16 * 1024));
    assert_eq!(get(host.http, &long).await.code(), 200);
    let mut stream = connect(host.http, LOCALHOST).await;
    let endless = format!("GET /serverinfo?x={} HTTP/1.1\r\n\r\n", "a".repeat(64 * 1024));
    // The host stops reading: writing may fail, and the answer, if it comes through, is no 200.
    let _ = stream.write_all(endless.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    assert_eq!(get(host.http, "/serverinfo").await.code(), 200);
    host.stop().await;
}

#[tokio::test]
async fn rubbish_on_both_ports_harms_nobody() {
    let host = Host::start().await;
    for to in [host.http, host.https] {
        for rubbish in [&b"\0\0\0\0\r\n\r\n"[..], b"\x16\x03\x01\xff\xff", b"GET", b"\r\n\r\n"] {
            let mut stream = connect(to, LOCALHOST).await;
            stream.write_all(rubbish).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
    }
    assert_eq!(get(host.http, "/serverinfo").await.code(), 200);
    assert_eq!(get_tls(&host, None, "/serverinfo").await.code(), 401);
    host.stop().await;
}

// spec: gamestream 13 item 17
// spec: gamestream 13 item 18
// spec: gamestream 13 item 19
#[tokio::test]
async fn apps_have_names_numbers_and_pictures() {
    let (host, device, _) = with_device().await;
    let list = get_tls(&host, Some(&device), "/applist").await;
    assert_eq!(list.code(), 200);
    assert!(list.text().contains(&format!("<AppTitle>Desktop</AppTitle><ID>{DESKTOP}</ID>")));
    assert!(list.text().contains("Tom &amp; &lt;Jerry&gt; &quot;ü&quot; &apos;24"));
    assert_eq!(get_tls(&host, None, "/applist").await.code(), 401);
    let picture = async |id: &str| {
        let target = format!("/appasset?appid={id}&AssetType=2&AssetIdx=0");
        let answer = get_tls(&host, Some(&device), &target).await;
        assert!(answer.headers.contains("content-type: image/png"), "{}", answer.headers);
        assert_eq!(&answer.body[..8], b"\x89PNG\r\n\x1a\n");
        answer.body
    };
    let (desktop, game, unknown) =
        (picture("881448767").await, picture("7").await, picture("x").await);
    assert_ne!(desktop, game);
    assert_eq!(game, unknown);
    host.stop().await;
}

// spec: gamestream 13 item 42
// spec: gamestream 13 item 47
// spec: gamestream 13 item 51
#[tokio::test]
async fn a_launch_that_cannot_be_is_refused_in_words() {
    let (host, device, client) = with_device().await;
    let launch =
        async |query: String| get_tls(&host, Some(&device), &format!("/launch?{query}")).await;
    for (query, code) in [
        (format!("appid={DESKTOP}"), 400),
        (format!("appid={DESKTOP}&rikeyid=1"), 400),
        (format!("appid={DESKTOP}&rikey=00112233445566778899aabbccddeeff"), 400),
        (KEY.to_owned(), 400),
        (format!("appid=12345&{KEY}"), 404),
        (format!("appid={BROKEN}&{KEY}"), 503),
    ] {
        let refused = launch(query.clone()).await;
        assert_eq!((refused.code(), refused.value("gamesession")), (code, Some("0")), "{query}");
        assert!(host.sessions.running(client).is_none());
    }
    let broken = launch(format!("appid={BROKEN}&{KEY}")).await;
    assert!(broken.text().contains("could not be started: no such program"));
    let info = get_tls(&host, Some(&device), "/serverinfo").await;
    assert!(info.value("state").unwrap().ends_with("_SERVER_FREE"));

    assert_eq!(launch(format!("appid={GAME}&mode=1920x1080x60&{}", key(1))).await.code(), 200);
    let other = launch(format!("appid={DESKTOP}&{}", key(2))).await;
    assert_eq!((other.code(), other.value("gamesession")), (400, Some("0")));
    // The same app again is a resume with new parameters.
    let again = launch(format!("appid={GAME}&mode=1280x720x59940&{}", key(3))).await;
    assert_eq!((again.code(), again.value("gamesession")), (200, Some("1")));
    let mode = host.sessions.running(client).unwrap().mode;
    assert_eq!(mode.to_string(), "1280x720@59.940");
    host.stop().await;
}

// spec: gamestream 13 item 52
#[tokio::test]
async fn odd_modes_launch_something_sane() {
    let (host, device, client) = with_device().await;
    for (number, (mode, expected)) in [
        ("&mode=0x0x0", "1280x720@60"),
        ("&mode=1920x1080", "1920x1080@60"),
        ("&mode=1x1x1", "16x16@1"),
        ("&mode=99999x9x9", "8192x16@9"),
        ("&mode=1280x720x59940", "1280x720@59.940"),
        ("", "1280x720@60"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/launch?appid={GAME}{mode}&{}", key(number as u8 + 1));
        assert_eq!(get_tls(&host, Some(&device), &target).await.code(), 200, "{mode}");
        assert_eq!(host.sessions.running(client).unwrap().mode.to_string(), expected);
    }
    host.stop().await;
}

// spec: gamestream 13 item 45
// spec: gamestream 13 item 46
// spec: gamestream 13 item 48
// spec: gamestream 13 item 49
#[tokio::test]
async fn a_session_is_launched_resumed_and_quit() {
    let (host, device, client) = with_device().await;
    let ask = async |target: String| get_tls(&host, Some(&device), &target).await;
    let nothing = ask(format!("/resume?{}", key(1))).await;
    assert_eq!((nothing.code(), nothing.value("resume")), (503, Some("0")));
    let cancel = ask("/cancel".into()).await;
    assert_eq!((cancel.code(), cancel.value("cancel")), (200, Some("1")));

    let launched =
        ask(format!("/launch?appid={GAME}&mode=1920x1080x120&{}&&corever=1", key(2))).await;
    assert_eq!((launched.code(), launched.value("gamesession")), (200, Some("1")));
    assert_eq!(launched.value("sessionUrl0"), Some("rtspenc://127.0.0.1:48010"));
    let resumed = ask(format!("/resume?{}", key(3))).await;
    assert_eq!(resumed.code(), 200);
    assert_eq!((resumed.value("resume"), resumed.value("gamesession")), (Some("1"), Some("1")));
    assert_eq!(resumed.value("sessionUrl0"), Some("rtsp://127.0.0.1:48010"));
    assert_eq!(host.sessions.running(client).unwrap().mode.to_string(), "1920x1080@120");
    let keyless = ask("/resume".into()).await;
    assert_eq!((keyless.code(), keyless.value("resume")), (400, Some("0")));

    // Another client's quit changes nothing here.
    let other = Device::stock().unwrap();
    trust(&host, &other);
    assert_eq!(get_tls(&host, Some(&other), "/cancel").await.code(), 200);
    assert!(host.sessions.running(client).is_some());

    assert_eq!(ask("/cancel".into()).await.value("cancel"), Some("1"));
    assert!(host.sessions.running(client).is_none(), "the answer came before the end");
    let info = ask("/serverinfo".into()).await;
    assert_eq!(info.value("currentgame"), Some("0"));
    assert!(info.value("state").unwrap().ends_with("_SERVER_FREE"));
    host.stop().await;
}

#[tokio::test]
async fn a_device_removed_while_it_launches_plays_nothing() {
    let (host, device, client) = with_device().await;
    for running_already in [false, true] {
        trust(&host, &device);
        if running_already {
            host.sessions.launch(client, AppId(GAME), punktfunk_mode()).unwrap();
        }
        let store = host.store.clone();
        // The owner's door also ends the session, which has not come to be at this moment.
        *host.sessions.at_launch.lock().unwrap() =
            Some(Box::new(move || drop(store.remove_client(client).unwrap())));
        let target = format!("/launch?appid={GAME}&{}", key(1));
        let refused = get_tls(&host, Some(&device), &target).await;
        assert_eq!((refused.code(), refused.value("gamesession")), (401, Some("0")));
        assert!(host.sessions.running(client).is_none());
    }
    host.stop().await;
}

#[tokio::test]
async fn stopping_ends_every_connection() {
    let host = Host::start().await;
    let http = host.http;
    let mut idle = connect(http, LOCALHOST).await;
    let mut half = connect(host.https, LOCALHOST).await;
    half.write_all(b"\x16\x03\x01").await.unwrap();
    assert_eq!(get(http, "/serverinfo").await.code(), 200);
    tokio::time::timeout(Duration::from_secs(5), host.stop()).await.unwrap();
    for stream in [&mut idle, &mut half] {
        let ended = stream.read(&mut [0; 64]).await;
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
    assert!(tokio::net::TcpStream::connect(http).await.is_err());
}
