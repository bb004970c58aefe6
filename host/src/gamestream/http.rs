//! The HTTP and HTTPS listeners: HTTP/1.1, one request per connection, everything bounded.
//!
//! Whatever a peer does meets a named limit first: connections in all and per address, bytes of a request, time for the
//! handshake, for the request and for the whole connection. An answer is always HTTP 200; what it means stands in the
//! document.
//!
//! Deliberately absent: keep-alive (clients open a connection per request anyway), HTTP/2, request bodies.

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use zeroize::Zeroizing;

use super::tls::ProvenCertificate;
use crate::listen::Gate;

/// What a listener lets its peers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time.
    pub connections: usize,
    /// Connections at a time from one address; an IPv6 /64 may have four times as many.
    pub connections_per_address: usize,
    /// Bytes of request line and headers together; at least 8 KiB.
    pub request_bytes: usize,
    /// Time for the TLS handshake.
    pub handshake: Duration,
    /// Time for the request line and the headers; an idle connection is closed after it.
    pub request: Duration,
    /// Time for the whole connection: a pairing may wait minutes for its PIN.
    pub connection: Duration,
    /// Time that running requests get to end when the listener stops.
    pub farewell: Duration,
}

impl Default for Limits {
    // spec: gamestream 2.1, 2.16
    fn default() -> Self {
        Self {
            connections: 256,
            connections_per_address: 32,
            request_bytes: 32 * 1024,
            handshake: Duration::from_secs(10),
            request: Duration::from_secs(10),
            connection: Duration::from_secs(360),
            farewell: Duration::from_millis(500),
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Its address, canonical.
    pub remote: IpAddr,
    /// The address of ours that it connected to, canonical.
    pub local: IpAddr,
    /// How it came.
    pub transport: Transport,
}

/// How a request came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Over plain HTTP: a stranger.
    Plain,
    /// Over TLS, with the certificate the client proved to own.
    Tls(Option<ProvenCertificate>),
}

/// What is asked.
#[derive(Clone, PartialEq, Eq)]
pub struct Request {
    /// The method is GET.
    pub is_get: bool,
    /// The path, not decoded.
    pub path: String,
    /// The text after the `?`, not decoded; may hold a key.
    pub query: Zeroizing<String>,
}

/// What is answered, always with HTTP 200.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An XML document.
    Xml(String),
    /// A PNG picture.
    Png(Bytes),
}

/// Answers requests. An answer may take as long as its protocol allows; it is dropped when the client goes away.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn answer(&self, caller: Caller, request: Request) -> impl Future<Output = Reply> + Send;
}

/// Serves plain HTTP until `stop` is true or its sender is gone, and all connections have ended.
pub async fn serve_http<S: Service>(
    listener: TcpListener,
    service: Arc<S>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    serve(listener, None, service, limits, stop).await;
}

/// Serves HTTPS until `stop` is true or its sender is gone, and all connections have ended.
pub async fn serve_https<S: Service>(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    service: Arc<S>,
    limits: Limits,
    stop: watch::Receiver<bool>,
) {
    serve(listener, Some(TlsAcceptor::from(tls)), service, limits, stop).await;
}

async fn serve<S: Service>(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    service: Arc<S>,
    limits: Limits,
    mut stop: watch::Receiver<bool>,
) {
    /// After a failed accept (most often: no file descriptors left) others get this long to give some back.
    const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
    let gate = Gate::new(limits.connections, limits.connections_per_address);
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = stopped(&mut stop) => break,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(admission) = gate.admit(remote.ip()) else {
            tracing::debug!(%remote, "too many connections; this one is turned away");
            continue;
        };
        let connection =
            Connection { service: service.clone(), limits, stop: stop.clone(), remote };
        let tls = tls.clone();
        connections.spawn(async move {
            let _admission = admission;
            if timeout(limits.connection, connection.run(stream, tls)).await.is_err() {
                tracing::debug!(%remote, "a connection took too long");
            }
        });
    }
    // Each connection says goodbye by itself; those that do not in time are ended here.
    let _ =
        timeout(limits.farewell * 2, async { while connections.join_next().await.is_some() {} })
            .await;
    connections.shutdown().await;
}

struct Connection<S> {
    service: Arc<S>,
    limits: Limits,
    stop: watch::Receiver<bool>,
    remote: SocketAddr,
}

impl<S: Service> Connection<S> {
    async fn run(self, stream: TcpStream, tls: Option<TlsAcceptor>) {
        let remote = self.remote;
        // Only makes small answers faster; without it they still arrive.
        let _ = stream.set_nodelay(true);
        let Ok(local) = stream.local_addr() else { return };
        let caller = |transport| Caller {
            remote: remote.ip().to_canonical(),
            local: local.ip().to_canonical(),
            transport,
        };
        let Some(tls) = tls else {
            return self.converse(stream, caller(Transport::Plain)).await;
        };
        match timeout(self.limits.handshake, tls.accept(stream)).await {
            Ok(Ok(stream)) => {
                let certificate = ProvenCertificate::of(stream.get_ref().1);
                self.converse(stream, caller(Transport::Tls(certificate))).await;
            }
            Ok(Err(error)) => tracing::debug!(%remote, %error, "a TLS handshake failed"),
            Err(_) => tracing::debug!(%remote, "a TLS handshake took too long"),
        }
    }

    async fn converse(mut self, stream: impl AsyncRead + AsyncWrite + Unpin, caller: Caller) {
        let service = &self.service;
        let caller = &caller;
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.limits.request)
            .max_buf_size(self.limits.request_bytes)
            .keep_alive(false)
            .serve_connection(
                TokioIo::new(stream),
                service_fn(|request: hyper::Request<Incoming>| async move {
                    let reply = service.answer(caller.clone(), read(&request)).await;
                    Ok::<_, Infallible>(write(reply))
                }),
            );
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = stopped(&mut self.stop) => {
                connection.as_mut().graceful_shutdown();
                let Ok(ended) = timeout(self.limits.farewell, connection).await else { return };
                ended
            }
        };
        if let Err(error) = ended {
            tracing::debug!(remote = %self.remote, %error, "a connection broke off");
        }
    }
}

/// Returns when the listener is to stop; a sender that is gone says so too.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

fn read(request: &hyper::Request<Incoming>) -> Request {
    Request {
        is_get: request.method() == hyper::Method::GET,
        path: request.uri().path().to_owned(),
        query: request.uri().query().unwrap_or_default().to_owned().into(),
    }
}

fn write(reply: Reply) -> hyper::Response<Full<Bytes>> {
    let (kind, body) = match reply {
        Reply::Xml(text) => ("application/xml; charset=utf-8", Bytes::from(text)),
        Reply::Png(bytes) => ("image/png", bytes),
    };
    let mut response = hyper::Response::new(Full::new(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::time::Instant;

    use tokio::io::AsyncReadExt;

    use super::*;

    struct Nothing;

    impl Service for Nothing {
        async fn answer(&self, _caller: Caller, _request: Request) -> Reply {
            Reply::Xml(String::new())
        }
    }

    /// How long a connection lived on which the client says nothing.
    async fn silence(to: SocketAddr) -> Duration {
        let started = Instant::now();
        let mut stream = TcpStream::connect(to).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
        started.elapsed()
    }

    #[tokio::test]
    async fn silent_connections_are_closed_and_surplus_ones_at_once() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let request = Duration::from_millis(600);
        let limits = Limits { connections_per_address: 2, request, ..Limits::default() };
        let serving = tokio::spawn(serve_http(listener, Arc::new(Nothing), limits, stopped));
        let (one, two, three) = tokio::join!(silence(at), silence(at), silence(at));
        let mut lived = [one, two, three];
        lived.sort();
        assert!(lived[0] < request && lived[1] >= request, "{lived:?}");
        assert!(lived[2] < Limits::default().request, "{lived:?}");
        drop(stop);
        serving.await.unwrap();
    }
}
