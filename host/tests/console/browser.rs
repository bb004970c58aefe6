//! A client that speaks HTTP/1.1 over TLS, byte by byte where a test wants it, and trusts one certificate.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, StreamOwned,
};

/// Longer than anything that a door answers in good order.
const PATIENCE: Duration = Duration::from_secs(60);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// Line and headers, in small letters.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// One connection.
pub(crate) struct Browser {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Browser {
    pub(crate) fn connect(at: SocketAddr, certificate: &[u8]) -> io::Result<Self> {
        let stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Self::over(stream, certificate)
    }

    pub(crate) fn over(stream: TcpStream, certificate: &[u8]) -> io::Result<Self> {
        let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
        let known =
            Arc::new(Known { certificate: certificate.to_vec(), provider: provider.clone() });
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(known)
            .with_no_client_auth();
        let name = ServerName::try_from("localhost").unwrap();
        let connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Self { stream })
    }

    /// Sends these bytes and no more.
    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)?;
        self.stream.flush()
    }

    /// A request with these header lines, and its answer.
    pub(crate) fn ask(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        self.put(method, path, headers, body.as_bytes()).unwrap();
        self.answer().unwrap()
    }

    /// Sends a request with these header lines, and does not wait.
    pub(crate) fn put(
        &mut self,
        method: &str,
        path: &str,
        headers: &[&str],
        body: &[u8],
    ) -> io::Result<()> {
        let mut request = format!("{method} {path} HTTP/1.1\r\n");
        if !headers.iter().any(|line| line.starts_with("Host:")) {
            request.push_str("Host: localhost\r\n");
        }
        for line in headers {
            request.push_str(line);
            request.push_str("\r\n");
        }
        request.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        self.send(&[request.as_bytes(), body].concat())
    }

    /// Something has come that nobody has read.
    pub(crate) fn is_answered(&self) -> bool {
        let socket = &self.stream.sock;
        socket.set_nonblocking(true).unwrap();
        let came = socket.peek(&mut [0]).is_ok();
        socket.set_nonblocking(false).unwrap();
        came
    }

    /// The next answer; it has a length.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        let head = self.head()?;
        let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap();
        let mut answer = Answer { status, head, body: Vec::new() };
        let length = answer.header("content-length").map_or(0, |text| text.parse().unwrap());
        answer.body.resize(length, 0);
        self.stream.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    /// Line and headers of the next answer.
    pub(crate) fn head(&mut self) -> io::Result<String> {
        let text = self.until("\r\n\r\n")?;
        Ok(text.to_ascii_lowercase())
    }

    /// What arrives until this text has.
    pub(crate) fn until(&mut self, end: &str) -> io::Result<String> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(end.as_bytes()) {
            self.stream.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        Ok(String::from_utf8(text).unwrap())
    }

    /// Reads until the host closes.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes);
        bytes
    }
}

/// Trusts exactly this certificate, as a person does who has compared the fingerprint; where it is empty any, as a
/// person does who has not.
#[derive(Debug)]
struct Known {
    certificate: Vec<u8>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.certificate.is_empty() || **certificate == *self.certificate {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(Error::InvalidCertificate(CertificateError::UnknownIssuer))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
