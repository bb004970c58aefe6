//! The device: launches over TLS, negotiates, receives and decodes, quits.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use openh264::decoder::Decoder;
use openh264::formats::YUVSource as _;
use punktfunk_core::gamestream::audio::{AudioEvent, AudioOptions, AudioReceiver};
use punktfunk_core::gamestream::control::Scheme;
use punktfunk_core::gamestream::query::encode_hex;
use punktfunk_core::gamestream::video::{
    LossPolicy, ReceiverEvent, VideoReceiver, VideoReceiverOptions,
};
use punktfunk_core::seal::SessionKey;
use punktfunk_host::clock;
pub(crate) use punktfunk_host::selftest::device::Device;
use punktfunk_host::session::apps::{TEST_CARD, app_id};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use super::host::Host;
use super::player::{Negotiation, Player, announce, ping};

/// Where the doors lie, from the base port. spec: gamestream 1.2
const HTTPS: i32 = -5;
const VIDEO: i32 = 9;
const CONTROL: i32 = 10;
const AUDIO: i32 = 11;
const RTSP: i32 = 21;

/// What [`announce`] says.
const PACKET_BYTES: u16 = 1392;
const KEY_ID: u32 = 7;

/// How long things took, from the moment the host had answered the launch.
pub(crate) struct Cycle {
    /// Until a picture was decoded.
    pub(crate) picture: Duration,
    /// Until a packet of sound was there.
    pub(crate) sound: Duration,
    /// From asking for the launch until the host said that all is gone.
    pub(crate) whole: Duration,
}

/// Launches the Test card, waits for a picture and a packet of sound, and quits.
pub(crate) fn cycle(device: &Device, host: &Host, number: usize) -> Cycle {
    let began = Instant::now();
    let mut key = [0x5a; 16];
    key[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let app = app_id(TEST_CARD).0;
    let launch = get(
        device,
        host,
        &format!(
            "/launch?appid={app}&mode=1280x720x60&rikey={}&rikeyid={KEY_ID}&corever=1",
            encode_hex(&key)
        ),
    );
    assert!(launch.contains("rtspenc://"), "{launch}");
    let launched = Instant::now();
    let (picture, sound) = play(host, &SessionKey::new(key), launched);
    let quit = get(device, host, "/cancel?");
    assert!(quit.contains("<cancel>1</cancel>"), "{quit}");
    Cycle { picture, sound, whole: began.elapsed() }
}

/// A GET over TLS with the device's certificate.
fn get(device: &Device, host: &Host, target: &str) -> String {
    let config = device.tls(host.certificate.clone()).unwrap();
    let to = SocketAddr::from((Ipv4Addr::LOCALHOST, host.port(HTTPS)));
    let connection = ClientConnection::new(config, ServerName::from(to.ip())).unwrap();
    let mut stream = StreamOwned::new(connection, TcpStream::connect(to).unwrap());
    write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

/// Goes on until a picture is decoded and a packet of sound is there; how long each took.
fn play(host: &Host, key: &SessionKey, launched: Instant) -> (Duration, Duration) {
    let at = |offset| SocketAddr::from((Ipv4Addr::LOCALHOST, host.port(offset)));
    let mut negotiation = Negotiation::new(at(RTSP), Some(key));
    negotiation.set_up();
    negotiation.choose(&announce(""));
    let connect_data = negotiation.connect_data;
    let mut player = Player::new(at(CONTROL), key, Scheme::V2, 48, connect_data);
    player.connect();
    player.send(0, 0x0302, &[0, 0]);
    player.send(0, 0x0307, &[0]);
    let (video, audio) = (media_socket(at(VIDEO)), media_socket(at(AUDIO)));
    ping(&video, &negotiation.ping_payload);
    ping(&audio, &negotiation.ping_payload);

    let mut eyes = Eyes::new();
    let encryption = Some((key.clone(), KEY_ID));
    let mut ears = AudioReceiver::new(AudioOptions { packet_duration_ms: 5, encryption });
    let (mut picture, mut sound) = (None, None);
    let mut datagram = [0; 2048];
    let done = player.serve_until(|_| {
        while let Ok(bytes) = video.recv(&mut datagram) {
            if eyes.see(&datagram[..bytes]) {
                picture.get_or_insert_with(|| launched.elapsed());
            }
        }
        while let Ok(bytes) = audio.recv(&mut datagram) {
            ears.handle_datagram(&datagram[..bytes]);
            if matches!(ears.poll_event(), Some(AudioEvent::Packet { .. })) {
                sound.get_or_insert_with(|| launched.elapsed());
            }
        }
        picture.is_some() && sound.is_some()
    });
    assert!(done, "no picture or no sound came: {picture:?}, {sound:?}");
    (picture.unwrap(), sound.unwrap())
}

fn media_socket(to: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    socket.connect(to).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

/// Puts datagrams together and decodes them.
struct Eyes {
    receiver: VideoReceiver,
    decoder: Decoder,
}

impl Eyes {
    fn new() -> Self {
        let receiver = VideoReceiver::new(VideoReceiverOptions {
            packet_size: PACKET_BYTES,
            encryption: None,
            on_loss: LossPolicy::RequestIdr,
        });
        Self { receiver: receiver.unwrap(), decoder: Decoder::new().unwrap() }
    }

    /// Takes a datagram; whether a picture came out of the decoder.
    fn see(&mut self, datagram: &[u8]) -> bool {
        self.receiver.handle_datagram(clock::now(), datagram);
        let mut seen = false;
        while let Some(event) = self.receiver.poll_event() {
            let ReceiverEvent::Frame(unit) = event else { continue };
            let picture = self.decoder.decode(&unit.bytes).unwrap().unwrap();
            assert_eq!(picture.dimensions(), (1280, 720));
            seen = true;
        }
        seen
    }
}
