//! A client: keys and certificates of all kinds, requests over TCP and TLS, the five steps of pairing.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::pairing::PinKey;
use punktfunk_core::gamestream::pairing::client::{Challenged, ClientPairingError};
use punktfunk_core::gamestream::query::{decode_hex, encode_hex};
pub(crate) use punktfunk_host::selftest::device::{Device, Pin, rsa_key};
use rcgen::CertificateParams;
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::sign::{CertifiedKey, Signer, SigningKey};
use rustls::{
    ClientConfig, SignatureAlgorithm, SignatureScheme, SupportedProtocolVersion, version,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::host::Host;

/// The unique id that most stock clients share.
pub(crate) const SHARED_ID: &str = "0123456789ABCDEF";

/// A device like a stock client's, but for what `change` does.
pub(crate) fn device_with(change: impl FnOnce(&mut CertificateParams)) -> Device {
    Device::of(&rsa_key().unwrap(), change).unwrap()
}

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: String,
    pub(crate) headers: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn read(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
        let (status, headers) = head.split_once("\r\n").unwrap();
        let (headers, body) = (headers.to_ascii_lowercase(), bytes[end + 4..].to_vec());
        assert!(headers.contains(&format!("content-length: {}", body.len())), "{headers}");
        Self { status: status.into(), headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// The text of the first element of this name.
    pub(crate) fn value(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text().split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    }

    /// The inner status code; the outer one is always 200.
    pub(crate) fn code(&self) -> u32 {
        assert_eq!(self.status, "HTTP/1.1 200 OK", "{self:?}");
        let (_, rest) = self.text().split_once(r#"<root status_code=""#).unwrap();
        rest.split_once('"').unwrap().0.parse().unwrap()
    }
}

pub(crate) async fn connect(to: SocketAddr, from: IpAddr) -> TcpStream {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    if to.is_ipv4() {
        socket.bind(SocketAddr::new(from, 0)).unwrap();
    }
    socket.connect(to).await.unwrap()
}

/// Sends the head of a GET request; nothing is read yet.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), target: &str) {
    let head = format!("GET {target} HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
}

pub(crate) async fn receive(stream: &mut (impl AsyncRead + Unpin)) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).await.unwrap();
    Answer::read(&bytes)
}

pub(crate) const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub(crate) async fn get(to: SocketAddr, target: &str) -> Answer {
    get_from(to, LOCALHOST, target).await
}

pub(crate) async fn get_from(to: SocketAddr, from: IpAddr, target: &str) -> Answer {
    let mut stream = connect(to, from).await;
    send(&mut stream, target).await;
    receive(&mut stream).await
}

/// How a client does TLS.
#[derive(Default)]
pub(crate) struct TlsOptions<'a> {
    pub(crate) device: Option<&'a Device>,
    pub(crate) versions: Option<&'static SupportedProtocolVersion>,
    pub(crate) alpn: &'a [&'a str],
    /// Sign with this scheme only.
    pub(crate) scheme: Option<SignatureScheme>,
    /// Show this certificate instead of the device's own.
    pub(crate) stolen: Option<&'a [u8]>,
}

/// Connects, checks that the host shows its one pinned certificate.
pub(crate) async fn handshake(
    host: &Host,
    to: SocketAddr,
    options: TlsOptions<'_>,
) -> std::io::Result<TlsStream<TcpStream>> {
    let pin = Arc::new(Pin::Certificate(host.identity.certificate_der().to_vec()));
    let versions: Vec<_> =
        options.versions.map_or_else(|| vec![&version::TLS13, &version::TLS12], |only| vec![only]);
    let builder = ClientConfig::builder_with_provider(provider::default_provider().into())
        .with_protocol_versions(&versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(pin);
    let mut config = match options.device {
        None => builder.with_no_client_auth(),
        Some(device) => {
            let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(device.key.to_vec()));
            let key = provider::sign::any_supported_type(&key).unwrap();
            let key: Arc<dyn SigningKey> = match options.scheme {
                Some(scheme) => Arc::new(OneScheme(key, scheme)),
                None => key,
            };
            let shown = options.stolen.unwrap_or(&device.certificate);
            let shown = vec![CertificateDer::from(shown.to_vec())];
            builder
                .with_client_cert_resolver(Arc::new(Shown(Arc::new(CertifiedKey::new(shown, key)))))
        }
    };
    config.alpn_protocols = options.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    // An address as the server's name sends no SNI.
    let name = ServerName::from(to.ip());
    let stream = connect(to, LOCALHOST).await;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// A GET over HTTPS with this device's certificate, or none.
pub(crate) async fn get_tls(host: &Host, device: Option<&Device>, target: &str) -> Answer {
    let options = TlsOptions { device, ..TlsOptions::default() };
    let mut stream = handshake(host, host.https, options).await.unwrap();
    send(&mut stream, target).await;
    receive(&mut stream).await
}

/// Shows one certificate, whatever it looks like.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        assert!(hints.is_empty(), "the host names no authorities");
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[derive(Debug)]
struct OneScheme(Arc<dyn SigningKey>, SignatureScheme);

impl SigningKey for OneScheme {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        assert!(offered.contains(&self.1), "the host offers {:?}", self.1);
        self.0.choose_scheme(&[self.1])
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

/// A device in the middle of pairing.
pub(crate) struct Pairing<'a> {
    pub(crate) host: &'a Host,
    pub(crate) device: &'a Device,
    pub(crate) from: IpAddr,
    pub(crate) pin: &'a str,
    pub(crate) unique_id: &'a str,
}

pub(crate) const SALT: [u8; 16] = *b"salt of sixteen!";

/// How a pairing went, as the device sees it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Paired {
    Yes,
    /// The host said `paired` 0 at this step.
    Refused(u8),
    Broken(ClientPairingError),
}

impl Pairing<'_> {
    pub(crate) fn target(&self, parameters: &str) -> String {
        format!(
            "/pair?uniqueid={}&uuid=1&devicename=roth&updateState=1&{parameters}",
            self.unique_id
        )
    }

    pub(crate) async fn ask(&self, parameters: &str) -> Answer {
        get_from(self.host.http, self.from, &self.target(parameters)).await
    }

    pub(crate) fn first_parameters(&self) -> String {
        let (salt, certificate) = (encode_hex(&SALT), self.device.pem_hex());
        format!("phrase=getservercert&salt={salt}&clientcert={certificate}")
    }

    pub(crate) async fn first(&self) -> Answer {
        self.ask(&self.first_parameters()).await
    }

    pub(crate) fn challenge(&self) -> (Challenged, String) {
        let pin = self.pin.as_bytes().try_into().unwrap();
        let (machine, bytes) = Challenged::begin(PinKey::derive(&SALT, pin), [0x5c; 16]);
        (machine, format!("clientchallenge={}", encode_hex(&bytes)))
    }

    /// Steps 1 to 4.
    pub(crate) async fn run(&self) -> Paired {
        let first = self.first().await;
        let Some(pem) = first.value("plaincert") else {
            assert_eq!(first.value("paired"), Some("0"));
            return Paired::Refused(1);
        };
        let pem = decode_hex(pem).unwrap();
        let server = Certificate::from_pem(&pem).unwrap();
        assert_eq!(server.der(), self.host.identity.certificate_der());
        match self.finish(&server).await {
            Ok(()) => Paired::Yes,
            Err(how) => how,
        }
    }

    /// Steps 2 to 4.
    pub(crate) async fn finish(&self, server: &Certificate) -> Result<(), Paired> {
        let own = Certificate::from_der(&self.device.certificate).unwrap();
        let (machine, challenge) = self.challenge();
        let second = self.ask(&challenge).await;
        let response: [u8; 48] = hex_of(&second, "challengeresponse").ok_or(Paired::Refused(2))?;
        let (machine, answer) = machine.answer(response, own.signature(), [0x6d; 16]);
        let third = self.ask(&format!("serverchallengeresp={}", encode_hex(&answer))).await;
        let secret: [u8; 272] = hex_of(&third, "pairingsecret").ok_or(Paired::Refused(3))?;
        let secret = machine
            .finish(&secret, server, |message| self.device.sign(message).unwrap())
            .map_err(Paired::Broken)?;
        let fourth = self.ask(&format!("clientpairingsecret={}", encode_hex(&secret))).await;
        match fourth.value("paired") {
            Some("1") => Ok(()),
            _ => Err(Paired::Refused(4)),
        }
    }
}

/// An element of exactly `N` bytes in hex.
fn hex_of<const N: usize>(answer: &Answer, name: &str) -> Option<[u8; N]> {
    let bytes = decode_hex(answer.value(name)?).unwrap();
    Some(bytes[..].try_into().unwrap())
}

/// A host's store takes this device without the ceremony.
pub(crate) fn trust(host: &Host, device: &Device) {
    let new = punktfunk_host::store::NewClient {
        certificate_der: device.certificate.clone(),
        name: "trusted".into(),
        remote: LOCALHOST,
    };
    host.store.add_client(new).unwrap();
}

/// One device that many tests may share: making a key takes time.
pub(crate) fn shared_device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| Device::stock().unwrap()).clone()
}
