//! What is common to all who speak to a registry: where it is, whom https believes, how redirects are followed, and how an
//! anonymous token is had.
//!
//! A transfer may take as long as it wants as long as something comes. Redirects are followed here and not by the library,
//! because each must be looked at: blobs lie with other machines than registries do, and a token is for the registry alone.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use punktfunk_os::{files, status::bounded};
use serde::Deserialize;
use ureq::http::{Method, Request, Response, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};
use ureq::{Agent, AsSendBody, Body, config::Config};

use crate::error::UpdateError;
use crate::transport::Cancel;

/// So often an answer may point elsewhere.
const MAX_REDIRECTS: usize = 5;

/// The certificates of all authorities are not longer, in bytes.
const MAX_ROOTS_BYTES: u64 = 4 << 20;

/// What a token comes in is no longer than this, in bytes.
const MAX_TOKEN_BYTES: u64 = 64 << 10;

/// All headers of an answer together are no longer than this, in bytes.
const MAX_HEADER_BYTES: usize = 32 << 10;

/// How often it is looked whether this shall end.
const SLICE: Duration = Duration::from_millis(250);

/// Which repository of which registry, such as `ghcr.io/punktfunk/box` or `http://127.0.0.1:5000/box`. Without `http://` it
/// is https.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    scheme: &'static str,
    authority: String,
    name: String,
}

impl Address {
    /// Where something of the repository is, such as `blobs/sha256:..`.
    pub fn url(&self, rest: &str) -> String {
        format!("{}://{}/v2/{}/{rest}", self.scheme, self.authority, self.name)
    }

    /// What the repository is called in its registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether this is at the same machine and port, spoken to in the same way.
    pub fn is_at(&self, uri: &Uri) -> bool {
        uri.scheme_str() == Some(self.scheme)
            && uri.authority().is_some_and(|other| other.as_str() == self.authority)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.scheme, self.authority, self.name)
    }
}

impl FromStr for Address {
    type Err = UpdateError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || {
            let detail =
                format!("\"{}\" is no registry; one looks like ghcr.io/name", bounded(text));
            UpdateError::Malformed { detail }
        };
        let (scheme, rest) = match text.split_once("://") {
            Some(("https", rest)) => ("https", rest),
            Some(("http", rest)) => ("http", rest),
            Some(_) => return Err(wrong()),
            None => ("https", text),
        };
        let (authority, name) = rest.split_once('/').ok_or_else(wrong)?;
        let uri: Uri = format!("{scheme}://{authority}/").parse().map_err(|_| wrong())?;
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
        let good = uri.host().is_some_and(|host| !host.is_empty())
            && uri.path() == "/"
            && (uri.port_u16().is_some() || !after_host(authority).contains(':'))
            && authority.bytes().all(is_plain)
            && name.len() <= 255
            && name.split('/').all(is_name_part);
        let (authority, name) = (authority.to_owned(), name.to_owned());
        if good { Ok(Self { scheme, authority, name }) } else { Err(wrong()) }
    }
}

/// The port with its colon, if there is one. Addresses of six have colons of their own.
fn after_host(authority: &str) -> &str {
    authority.rsplit_once(']').map_or(authority, |(_, after)| after)
}

fn is_name_part(part: &str) -> bool {
    let is_word = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = part.as_bytes();
    is_word(bytes.first())
        && is_word(bytes.last())
        && bytes.iter().all(|byte| is_word(Some(byte)) || b"._-".contains(byte))
}

/// How long a registry is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Until its name is known and again until it is connected.
    pub connect: Duration,
    /// Between one byte and the next.
    pub idle: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(10), idle: Duration::from_secs(30) }
    }
}

/// How registries are spoken to.
#[derive(Debug, Clone)]
pub struct Client {
    roots: PathBuf,
    plain: bool,
    patience: Patience,
}

impl Client {
    /// `roots` is the file of certificates that https is believed by, in PEM; it is read when it is needed. `plain` lets
    /// `http://` go to other machines, too; without it, only to loopback addresses.
    pub fn new(roots: &Path, plain: bool, patience: Patience) -> Self {
        Self { roots: roots.to_path_buf(), plain, patience }
    }

    /// What speaks, for as long as `work` takes. It is broken off when it was asked to end: while it waits for bytes, within a
    /// second; while it looks for a name or connects, when that took too long by itself.
    ///
    /// # Errors
    /// What `work` says; [`UpdateError::Stopped`].
    pub fn speak<T>(
        &self,
        cancel: &Cancel,
        work: impl FnOnce(&Agent) -> Result<T, UpdateError>,
    ) -> Result<T, UpdateError> {
        cancel.check()?;
        let agent = self.agent()?;
        let (ended, wait) = channel::<()>();
        let watched = agent.clone();
        let watch = move || {
            while let Err(RecvTimeoutError::Timeout) = wait.recv_timeout(SLICE) {
                if cancel.is_cancelled() {
                    return watched.shutdown();
                }
            }
        };
        let came = thread::scope(|scope| {
            thread::Builder::new()
                .spawn_scoped(scope, watch)
                .map_err(|error| UpdateError::failed("start a thread", error))?;
            let came = work(&agent);
            drop(ended);
            came
        });
        came.map_err(|error| cancel.check().err().unwrap_or(error))
    }

    fn agent(&self) -> Result<Agent, UpdateError> {
        let certificates = match files::read(&self.roots, MAX_ROOTS_BYTES) {
            Ok(pem) => parse_pem(&pem)
                .filter_map(|item| match item {
                    Ok(PemItem::Certificate(certificate)) => Some(certificate),
                    _ => None,
                })
                .collect(),
            // Then nobody is believed; loopback works without.
            Err(error) if error.is_absent() => Vec::new(),
            Err(error) => return Err(UpdateError::failed("read who https believes", error)),
        };
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = TlsConfig::builder()
            .provider(TlsProvider::Rustls)
            .root_certs(RootCerts::new_with_certs(&certificates))
            .unversioned_rustls_crypto_provider(crypto)
            .build();
        let config = Config::builder()
            .tls_config(tls)
            .proxy(None)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .max_response_header_size(MAX_HEADER_BYTES)
            .timeout_resolve(Some(self.patience.connect))
            .timeout_connect(Some(self.patience.connect))
            .timeout_per_read(Some(self.patience.idle))
            .timeout_per_write(Some(self.patience.idle))
            .user_agent(concat!("punktfunk/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(config.new_agent())
    }

    /// Asks once. The token goes along only if one is given.
    ///
    /// # Errors
    /// [`UpdateError::Unreachable`].
    pub fn send(
        &self,
        agent: &Agent,
        (method, uri): (Method, &Uri),
        headers: &[(&str, &str)],
        authorization: Option<&str>,
        body: impl AsSendBody,
    ) -> Result<Response<Body>, UpdateError> {
        self.check(uri)?;
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(body).map_err(unreachable)?;
        agent.run(request).map_err(unreachable)
    }

    /// Fetches, over redirects.
    ///
    /// # Errors
    /// [`UpdateError::Unreachable`].
    pub fn get(
        &self,
        agent: &Agent,
        address: &Address,
        url: &str,
        headers: &[(&str, &str)],
        authorization: Option<&str>,
    ) -> Result<Response<Body>, UpdateError> {
        let mut uri = parse_uri(url)?;
        for _ in 0..=MAX_REDIRECTS {
            let authorization = authorization.filter(|_| address.is_at(&uri));
            let answer = self.send(agent, (Method::GET, &uri), headers, authorization, ())?;
            if !answer.status().is_redirection() {
                return Ok(answer);
            }
            let next = target(&uri, &answer)?;
            if uri.scheme_str() == Some("https") && next.scheme_str() != Some("https") {
                return Err(unreachable("it points from https to http"));
            }
            uri = next;
        }
        Err(unreachable(format!("it points elsewhere more than {MAX_REDIRECTS} times")))
    }

    /// A token, as the answer to a request without a good one asks for it.
    ///
    /// # Errors
    /// [`UpdateError::Unreachable`].
    pub fn token(
        &self,
        agent: &Agent,
        address: &Address,
        refused: &Response<Body>,
        (actions, credentials): (&str, Option<&str>),
    ) -> Result<String, UpdateError> {
        let said = refused.headers().get(header::WWW_AUTHENTICATE).and_then(|it| it.to_str().ok());
        let Challenge { realm, service } = said
            .and_then(Challenge::parse)
            .ok_or_else(|| unreachable("it wants to know who asks, and not in a known way"))?;
        let scope = format!("repository:{}:{actions}", address.name());
        let mut url = format!(
            "{realm}{}scope={}",
            if realm.contains('?') { '&' } else { '?' },
            escape(&scope)
        );
        if let Some(service) = service {
            url.push_str(&format!("&service={}", escape(&service)));
        }
        let uri = parse_uri(&url)?;
        if address.scheme == "https" && uri.scheme_str() != Some("https") {
            return Err(unreachable("it gives tokens without https"));
        }
        let answer = self.send(agent, (Method::GET, &uri), &[], credentials, ())?;
        if answer.status() != 200 {
            return Err(unreachable(format!("it gives no token: {}", answer.status())));
        }
        let bytes = body(answer, MAX_TOKEN_BYTES)?;
        let given: Given = serde_json::from_slice(&bytes).map_err(unreachable)?;
        let token = given.token.or(given.access_token).unwrap_or_default();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unreachable("its token is none"));
        }
        Ok(format!("Bearer {token}"))
    }

    /// Whether this may be spoken to at all.
    fn check(&self, uri: &Uri) -> Result<(), UpdateError> {
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.plain || is_loopback(uri) => Ok(()),
            _ => Err(unreachable(format!("{} is not https", uri.host().unwrap_or_default()))),
        }
    }
}

/// What a registry says that wants a token.
struct Challenge {
    realm: String,
    service: Option<String>,
}

impl Challenge {
    fn parse(said: &str) -> Option<Self> {
        let (scheme, mut rest) = said.split_once(' ')?;
        let (mut realm, mut service) = (None, None);
        while let Some((name, after)) = rest.split_once('=') {
            let (value, next) = match after.strip_prefix('"') {
                Some(quoted) => quoted.split_once('"')?,
                None => after.find(',').map_or((after, ""), |at| after.split_at(at)),
            };
            match name.trim_matches([' ', ',']) {
                "realm" => realm = Some(value.to_owned()),
                "service" => service = Some(value.to_owned()),
                _ => {}
            }
            rest = next;
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Self { realm: realm?, service })
    }
}

/// A token, by either of its names.
#[derive(Deserialize)]
struct Given {
    token: Option<String>,
    access_token: Option<String>,
}

/// All of an answer, if it is not longer than this, in bytes.
///
/// # Errors
/// [`UpdateError::Unreachable`], [`UpdateError::Content`] when it is longer.
pub fn body(answer: Response<Body>, max: u64) -> Result<Vec<u8>, UpdateError> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    answer.into_body().into_reader().take(max + 1).read_to_end(&mut bytes).map_err(unreachable)?;
    if bytes.len() as u64 > max {
        return Err(UpdateError::Content {
            detail: format!("an answer has more than {max} bytes"),
        });
    }
    Ok(bytes)
}

/// Where an answer points, as seen from where it came.
///
/// # Errors
/// [`UpdateError::Unreachable`].
pub fn target(from: &Uri, answer: &Response<Body>) -> Result<Uri, UpdateError> {
    let said = answer.headers().get(header::LOCATION).and_then(|location| location.to_str().ok());
    let said = said.ok_or_else(|| unreachable("it points nowhere"))?;
    if !said.starts_with('/') || said.starts_with("//") {
        return parse_uri(said);
    }
    let (scheme, authority) = (from.scheme_str(), from.authority().map(|it| it.as_str()));
    parse_uri(&format!("{}://{}{said}", scheme.unwrap_or_default(), authority.unwrap_or_default()))
}

/// # Errors
/// [`UpdateError::Unreachable`] when it names no machine.
pub fn parse_uri(text: &str) -> Result<Uri, UpdateError> {
    let uri: Uri = text.parse().map_err(unreachable)?;
    if uri.scheme().is_some() && uri.host().is_some() {
        return Ok(uri);
    }
    Err(unreachable("it points to no machine"))
}

/// By its address alone: what a name leads to is for others to say.
fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn escape(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(
            |byte| {
                if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            },
        )
        .collect()
}

/// What is said of whatever does not answer as it should.
pub fn unreachable(detail: impl fmt::Display) -> UpdateError {
    UpdateError::Unreachable { detail: bounded(&detail.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_they_look_like() {
        let address: Address = "ghcr.io/punktfunk/box".parse().unwrap();
        assert_eq!(address.url("tags/list"), "https://ghcr.io/v2/punktfunk/box/tags/list");
        for good in ["http://127.0.0.1:5000/a", "https://[::1]:1/a-b/c_d.e"] {
            assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
        }
        for wrong in [
            "",
            "box",
            "ghcr.io/",
            "/a",
            "ftp://x/a",
            "u@x/a",
            "x/A",
            "x/a//b",
            "x/../a",
            "x/a?b",
            "x/a b",
            "x/-a",
            "x:y/a",
            "https://https://x/a",
            "é.de/a",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_for_its_machine_alone() {
        let address: Address = "ghcr.io/box".parse().unwrap();
        let is_at = |url: &str| address.is_at(&parse_uri(url).unwrap());
        assert!(is_at("https://ghcr.io/v2/"));
        assert!(!is_at("http://ghcr.io/v2/") && !is_at("https://ghcr.io:8443/"));
        assert!(!is_at("https://ghcr.io.evil.org/") && !is_at("https://u@ghcr.io/"));
    }

    #[test]
    fn http_is_for_this_machine_alone_unless_somebody_says_so() {
        let client = |plain| Client::new(Path::new("/nowhere"), plain, Patience::default());
        let is_good = |plain, url: &str| client(plain).check(&parse_uri(url).unwrap()).is_ok();
        assert!(is_good(false, "https://x.org/") && is_good(false, "http://127.3.0.1:9/"));
        assert!(is_good(false, "http://[::1]/") && is_good(true, "http://x.org/"));
        for wrong in ["http://x.org/", "http://localhost/", "http://127.0.0.1.org/", "ftp://x.org/"]
        {
            assert!(!is_good(false, wrong), "{wrong}");
        }
    }

    #[test]
    fn challenges_are_read() {
        let read = |said: &str| {
            Challenge::parse(said).map(|it| (it.realm, it.service.unwrap_or_default()))
        };
        let said =
            "Bearer realm=\"https://a.io/token\",service=\"a.io\",scope=\"repository:x:pull\"";
        assert_eq!(read(said), Some(("https://a.io/token".into(), "a.io".into())));
        let said = "bearer service=a, realm=\"https://a.io/t?x=y,z\"";
        assert_eq!(read(said), Some(("https://a.io/t?x=y,z".into(), "a".into())));
        for wrong in ["", "Bearer", "Basic realm=\"x\"", "Bearer service=\"x\"", "Bearer realm=\"x"]
        {
            assert_eq!(read(wrong), None, "{wrong}");
        }
        assert_eq!(escape("repository:a/b:pull,push"), "repository%3Aa%2Fb%3Apull%2Cpush");
    }
}
