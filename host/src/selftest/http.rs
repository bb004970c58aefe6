//! Requests over plain HTTP and HTTPS as a stock client makes them: one per connection, the answer read to its end.
//!
//! Whatever the host sends is bounded in bytes; how long it may take is the caller's to say.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;

/// The longest answer that is read, in bytes. Every document is far shorter.
const MAX_ANSWER_BYTES: u64 = 256 * 1024;

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    #[error("no connection to {to}: {source}")]
    Connect { to: SocketAddr, source: io::Error },
    #[error("the TLS handshake with {to} failed: {source}")]
    Tls { to: SocketAddr, source: io::Error },
    #[error("the connection broke: {0}")]
    Broken(io::Error),
    #[error("the answer is no document: {0}")]
    NoDocument(&'static str),
    #[error("\"{path}\" was answered {code}: {message}")]
    Refused { path: String, code: u32, message: String },
}

/// An XML document of the host.
#[derive(Debug)]
pub(super) struct Document {
    text: String,
}

impl Document {
    fn parse(answer: &[u8]) -> Result<Self, HttpError> {
        let text = std::str::from_utf8(answer).map_err(|_| HttpError::NoDocument("no text"))?;
        let (head, body) =
            text.split_once("\r\n\r\n").ok_or(HttpError::NoDocument("it was cut off"))?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(HttpError::NoDocument("its HTTP status is not 200"));
        }
        // A refusal without elements is one tag that closes itself.
        if !body.contains("</root>") && !body.trim_end().ends_with("/>") {
            return Err(HttpError::NoDocument("it was cut off"));
        }
        Ok(Self { text: body.to_owned() })
    }

    /// The text of the first element of this name.
    pub(super) fn value(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(&format!("<{name}>"))?;
        Some(rest.split_once(&format!("</{name}>"))?.0)
    }

    /// The texts of all elements of this name.
    pub(super) fn values(&self, name: &str) -> Vec<&str> {
        let (open, close) = (format!("<{name}>"), format!("</{name}>"));
        let parts = self.text.split(open.as_str()).skip(1);
        parts.filter_map(|part| Some(part.split_once(close.as_str())?.0)).collect()
    }

    /// An attribute of the root element: its code or its message.
    fn attribute(&self, name: &str) -> Option<&str> {
        let (_, rest) = self.text.split_once(&format!("{name}=\""))?;
        Some(rest.split_once('"')?.0)
    }

    /// What the host says of the request; 200 is yes.
    pub(super) fn code(&self) -> Option<u32> {
        self.attribute("status_code")?.parse().ok()
    }

    /// Only a yes; `path` names the request in the error.
    pub(super) fn accepted(self, path: &str) -> Result<Self, HttpError> {
        match self.code() {
            Some(200) => Ok(self),
            Some(code) => {
                let message = self.attribute("status_message").unwrap_or("no reason given");
                let (path, message) = (path.to_owned(), printable(message));
                Err(HttpError::Refused { path, code, message })
            }
            None => Err(HttpError::NoDocument("it has no status")),
        }
    }
}

/// What a stranger wrote, fit for a terminal.
pub(super) fn printable(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// The address that stands for this machine beside `to`.
pub(super) fn loopback_beside(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() }
}

/// Connects from loopback, whatever address of this machine the host listens on: it takes the self-test from there only.
pub(super) async fn connect(to: SocketAddr) -> Result<TcpStream, HttpError> {
    let connect = async {
        let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.bind(SocketAddr::new(loopback_beside(to), 0))?;
        socket.connect(to).await
    };
    connect.await.map_err(|source| HttpError::Connect { to, source })
}

/// A GET request; over TLS if there is a configuration for it.
pub(super) async fn get(
    to: SocketAddr,
    tls: Option<&Arc<ClientConfig>>,
    target: &str,
) -> Result<Document, HttpError> {
    let stream = connect(to).await?;
    let Some(tls) = tls else { return exchange(stream, target).await };
    // An address as the server's name sends none.
    let name = ServerName::from(to.ip());
    let stream = TlsConnector::from(Arc::clone(tls))
        .connect(name, stream)
        .await
        .map_err(|source| HttpError::Tls { to, source })?;
    exchange(stream, target).await
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    target: &str,
) -> Result<Document, HttpError> {
    let head = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.map_err(HttpError::Broken)?;
    stream.flush().await.map_err(HttpError::Broken)?;
    let mut answer = Vec::new();
    let read = (&mut stream).take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await;
    match Document::parse(&answer) {
        // A document that is there is there, however the connection ended after it.
        Ok(document) => Ok(document),
        Err(error) => Err(read.err().map_or(error, HttpError::Broken)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_and_refusals_keep_their_words() {
        let document = |body: &str| {
            Document::parse(format!("HTTP/1.1 200 OK\r\nX: y\r\n\r\n{body}").as_bytes())
        };
        let good = document(
            "<root status_code=\"200\"><a>1</a><App><ID>5</ID></App><App><ID>6</ID></App></root>",
        );
        let good = good.unwrap().accepted("x").unwrap();
        assert_eq!((good.value("a"), good.value("b")), (Some("1"), None));
        assert_eq!(good.values("ID"), ["5", "6"]);
        let bad = "<root status_code=\"503\" status_message=\"not\u{1b} now\"></root>";
        let bad = document(bad).unwrap().accepted("/pair").unwrap_err();
        assert_eq!(bad.to_string(), "\"/pair\" was answered 503: not  now");
        assert_eq!(document("<root status_code=\"401\"/>").unwrap().code(), Some(401));
        assert!(document("<root status_code=\"200\"><a>").is_err(), "cut off");
        assert!(document("<root></root>").unwrap().accepted("x").is_err());
        assert!(Document::parse(b"HTTP/1.1 404 No\r\n\r\n<root></root>").is_err());
        assert!(Document::parse(b"\xff\xfe").is_err());
    }
}
