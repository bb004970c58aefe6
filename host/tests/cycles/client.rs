//! The device: launches over TLS, negotiates, receives and decodes, quits.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
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
use punktfunk_host::session::apps::{TEST_CARD, app_id};
use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256, RsaKeySize};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, SignatureScheme, StreamOwned,
};

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

/// A key and a certificate, as a stock client has.
pub(crate) struct Device {
    pub(crate) certificate: Vec<u8>,
    key: Vec<u8>,
}

/// How long things took, from the moment the host had answered the launch.
pub(crate) struct Cycle {
    /// Until a picture was decoded.
    pub(crate) picture: Duration,
    /// Until a packet of sound was there.
    pub(crate) sound: Duration,
    /// From asking for the launch until the host said that all is gone.
    pub(crate) whole: Duration,
}

impl Device {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let certificate = CertificateParams::default().self_signed(&key).unwrap().der().to_vec();
        Self { certificate, key: key.serialize_der() }
    }

    /// Launches the Test card, waits for a picture and a packet of sound, and quits.
    pub(crate) fn cycle(&self, host: &Host, number: usize) -> Cycle {
        let began = Instant::now();
        let mut key = [0x5a; 16];
        key[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let app = app_id(TEST_CARD).0;
        let launch = self.get(
            host,
            &format!(
                "/launch?appid={app}&mode=1280x720x60&rikey={}&rikeyid={KEY_ID}&corever=1",
                encode_hex(&key)
            ),
        );
        assert!(launch.contains("rtspenc://"), "{launch}");
        let launched = Instant::now();
        let (picture, sound) = play(host, &SessionKey::new(key), launched);
        let quit = self.get(host, "/cancel?");
        assert!(quit.contains("<cancel>1</cancel>"), "{quit}");
        Cycle { picture, sound, whole: began.elapsed() }
    }

    /// A GET over TLS with this device's certificate.
    fn get(&self, host: &Host, target: &str) -> String {
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.clone()));
        let config = ClientConfig::builder_with_provider(provider::default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pin(host.certificate.clone())))
            .with_client_auth_cert(vec![CertificateDer::from(self.certificate.clone())], key)
            .unwrap();
        let to = SocketAddr::from((Ipv4Addr::LOCALHOST, host.port(HTTPS)));
        let connection =
            ClientConnection::new(Arc::new(config), ServerName::from(to.ip())).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(to).unwrap());
        write!(stream, "GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
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

/// Takes exactly the host's certificate, as stock clients do.
#[derive(Debug)]
struct Pin(Vec<u8>);

impl ServerCertVerifier for Pin {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        assert_eq!(**end_entity, *self.0, "another host's certificate");
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &provider::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
