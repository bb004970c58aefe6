//! Which requests come from the console itself: pure decisions about `Host`, `Origin` and `Sec-Fetch-Site`.
//!
//! A page anywhere on the web can make its visitor's browser send requests to a box in the visitor's home. Two checks
//! keep it from reaching anything. `Host` must name this host: a page that points a name of its own at our address (DNS
//! rebinding) is of one origin with us in the browser's eyes, but still sends its own name. And `Origin`, where there
//! is one, must be ours. Names are compared as a whole and in small letters; nothing is resolved.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::super::local_name::LocalName;
use super::super::problem::Problem;
use crate::identity::label;

/// Tells where a request comes from; only browsers send it, and no page can forge it.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
/// What the answer is for: a page to go to, a script, a picture.
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");
/// The port that a URL with `https` need not name.
const HTTPS_PORT: u16 = 443;

/// What this host is called.
#[derive(Debug, Clone, Default)]
pub struct HostNames {
    known: Vec<String>,
    announced: LocalName,
}

impl HostNames {
    /// The names of a host: `name` is the one that clients show, `machine` the machine's, `more` what the owner added.
    pub fn new(name: &str, machine: Option<&str>, more: &[String]) -> Self {
        let mut names = vec!["localhost".to_owned(), "punktfunk.local".to_owned()];
        names.extend(label(name).map(|label| format!("{label}.local")));
        if let Some(machine) = machine.map(|machine| plain(machine.trim()))
            && !machine.is_empty()
        {
            if !machine.contains('.') {
                names.push(format!("{machine}.local"));
            }
            names.push(machine);
        }
        names.extend(more.iter().map(|name| plain(name)));
        Self { known: names, announced: LocalName::default() }
    }

    /// The same, and the names under which the host is announced to the network, once it is.
    #[must_use]
    pub fn announced_as(self, announced: LocalName) -> Self {
        Self { announced, ..self }
    }

    /// Whether a host that was asked for is this one, reached at its address `local`.
    fn contains(&self, host: &str, local: IpAddr) -> bool {
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match bare.parse::<IpAddr>() {
            // An address cannot be rebound, but one that is not ours has no business here.
            Ok(address) => {
                address.to_canonical() == local.to_canonical()
                    || self.known.iter().any(|name| name.parse() == Ok(address))
            }
            Err(_) => {
                let asked = plain(host);
                self.known.contains(&asked) || self.announced.any(|name| plain(name) == asked)
            }
        }
    }
}

/// A name as it is compared.
fn plain(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Where a request was sent, as the caller sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) host: String,
    port: Option<u16>,
}

impl Asked {
    fn of(text: &str) -> Option<Self> {
        let authority: Authority = text.parse().ok()?;
        let rest = authority.as_str();
        // Neither a user nor a port that is no number.
        let fits = !rest.contains('@') && authority.port().is_some() == has_port(rest);
        let host = plain(authority.host());
        (fits && !host.is_empty()).then(|| Self { host, port: authority.port_u16() })
    }

    fn is_same(&self, other: &Self) -> bool {
        let port = |asked: &Self| asked.port.unwrap_or(HTTPS_PORT);
        self.host == other.host && port(self) == port(other)
    }
}

fn has_port(authority: &str) -> bool {
    authority.rsplit_once(']').map_or(authority, |(_, rest)| rest).contains(':')
}

/// Where the request was sent.
///
/// # Errors
/// It does not say so once, or it means somebody else: 421 `wrong-host`.
pub(super) fn check_host(
    parts: &Parts,
    names: &HostNames,
    local: IpAddr,
) -> Result<Asked, Problem> {
    let wrong = || {
        let detail = "this host is not called so; open it by its address or by a name of its own, or add the name \
                      to the setting console.hosts";
        Problem::new(StatusCode::MISDIRECTED_REQUEST, "wrong-host", detail)
    };
    let asked = single(&parts.headers, &header::HOST).and_then(Asked::of).ok_or_else(wrong)?;
    // An absolute request target takes precedence over the header; one that differs is a trick.
    let target = parts.uri.authority().map(|authority| Asked::of(authority.as_str()));
    if target.is_some_and(|target| target.as_ref() != Some(&asked)) {
        return Err(wrong());
    }
    if names.contains(&asked.host, local) { Ok(asked) } else { Err(wrong()) }
}

/// What a browser says of where the request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Provenance {
    /// The console itself, or the person at the browser.
    Own,
    /// Nothing: the caller is a program, or a browser of long ago; or somebody follows a link to here.
    Unsaid,
    /// A page of another origin, which may be another port of this host.
    Elsewhere,
}

/// Where the request comes from.
///
/// # Errors
/// From a page of somebody else's: 403 `foreign-origin`.
pub(super) fn check_origin(headers: &HeaderMap, asked: &Asked) -> Result<Provenance, Problem> {
    if headers.contains_key(header::ORIGIN) {
        let origin =
            single(headers, &header::ORIGIN).and_then(|text| text.strip_prefix("https://"));
        let same = origin.and_then(Asked::of).is_some_and(|origin| origin.is_same(asked));
        return if same { Ok(Provenance::Own) } else { Err(foreign()) };
    }
    Ok(match single(headers, &SEC_FETCH_SITE) {
        Some("same-origin" | "none") => Provenance::Own,
        // Whoever follows a link sees the answer, and no page does.
        _ if single(headers, &SEC_FETCH_DEST) == Some("document") => Provenance::Unsaid,
        None if !headers.contains_key(SEC_FETCH_SITE) => Provenance::Unsaid,
        _ => Provenance::Elsewhere,
    })
}

/// The answer to a page of somebody else's.
pub(super) fn foreign() -> Problem {
    let detail = "this request comes from another web page, which may not use this host";
    Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail)
}

/// Whether a request with this method changes nothing.
pub(super) fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// A header that is there once.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    fn names() -> HostNames {
        HostNames::new(
            "Sofa",
            Some("Den\n"),
            &["tv.example.org".to_owned(), "203.0.113.7".to_owned()],
        )
    }

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn host(local: &str, host: &str) -> bool {
        let parts = parts("/", &[("host", host)]);
        check_host(&parts, &names(), local.parse().unwrap()).is_ok()
    }

    #[test]
    fn it_answers_to_its_own_names_and_addresses() {
        for own in [
            "localhost",
            "LOCALHOST:47990",
            "sofa.local",
            "Sofa.local.",
            "punktfunk.local:443",
            "den",
            "den.local",
            "tv.example.org",
            "10.0.0.2",
            "10.0.0.2:47990",
            "203.0.113.7",
        ] {
            assert!(host("10.0.0.2", own), "{own}");
        }
        assert!(host("::ffff:10.0.0.2", "10.0.0.2"));
        assert!(host("2001:db8::1", "[2001:db8::1]:47990") && host("::1", "[::1]"));
    }

    #[test]
    fn it_answers_to_no_other_name() {
        for foreign in [
            "evil.example",
            "evil.example:47990",
            "sofa.local.evil.example",
            "localhost.evil.example",
            "10.0.0.3",
            "10.0.0.2.evil.example",
            "sofa",
            "user@sofa.local",
            "",
            "sofa.local:port",
            "[2001:db8::1]",
            "2130706433",
            "0x0a.0.0.2",
            "127.0.0.1",
        ] {
            assert!(!host("10.0.0.2", foreign), "{foreign}");
        }
        let local = "10.0.0.2".parse().unwrap();
        let check = |parts: &Parts| check_host(parts, &names(), local).is_ok();
        assert!(!check(&parts("/", &[])));
        assert!(!check(&parts("/", &[("host", "sofa.local"), ("host", "sofa.local")])));
        assert!(!check(&parts("https://evil.example/", &[("host", "sofa.local")])));
        assert!(check(&parts("https://sofa.local/", &[("host", "sofa.local")])));
        // A host without names of its own answers to the names that are nobody else's, and no empty name is one.
        assert!(!HostNames::new("", Some(""), &[]).contains("", local));
    }

    #[test]
    fn the_names_that_are_announced_are_ours_from_then_on() {
        let announced = LocalName::default();
        let names = names().announced_as(announced.clone());
        let local = "10.0.0.2".parse().unwrap();
        let asked = |host: &str| check_host(&parts("/", &[("host", host)]), &names, local).is_ok();
        assert!(!asked("punktfunk-1a2b3c4d.local"));
        announced.add("punktfunk-1a2b3c4d.local".to_owned());
        assert!(asked("punktfunk-1a2b3c4d.local:47990") && asked("PUNKTFUNK-1a2b3c4d.local."));
        assert!(!asked("punktfunk-1a2b3c4e.local") && asked("sofa.local"));
        // Another machine on one link has that name; on another it may still be ours.
        announced.add("punktfunk-1a2b3c4d-2.local".to_owned());
        assert!(asked("punktfunk-1a2b3c4d-2.local:47990") && asked("punktfunk-1a2b3c4d.local"));
        assert!(!asked("punktfunk-1a2b3c4d-3.local"));
    }

    #[test]
    fn only_the_console_s_own_pages_and_programs_may_ask() {
        let asked = Asked::of("sofa.local:47990").unwrap();
        let check =
            |headers: &[(&str, &str)]| check_origin(&parts("/", headers).headers, &asked).ok();
        assert_eq!(check(&[]), Some(Provenance::Unsaid));
        assert_eq!(check(&[("origin", "https://sofa.local:47990")]), Some(Provenance::Own));
        assert_eq!(check(&[("sec-fetch-site", "same-origin")]), Some(Provenance::Own));
        for site in ["cross-site", "same-site", "nonsense"] {
            assert_eq!(check(&[("sec-fetch-site", site)]), Some(Provenance::Elsewhere));
            let picture = [("sec-fetch-site", site), ("sec-fetch-dest", "image")];
            assert_eq!(check(&picture), Some(Provenance::Elsewhere));
            let link = [("sec-fetch-site", site), ("sec-fetch-dest", "document")];
            assert_eq!(check(&link), Some(Provenance::Unsaid));
        }
        let twice = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")];
        assert_eq!(check(&twice), Some(Provenance::Elsewhere));
        for foreign in [
            "null",
            "https://evil.example",
            "http://sofa.local:47990",
            "https://sofa.local",
            "https://sofa.local:47990/",
            "https://sofa.local:47991",
            "https://x@sofa.local:47990",
            "",
        ] {
            assert_eq!(check(&[("origin", foreign)]), None, "{foreign}");
        }
        assert_eq!(
            check(&[("origin", "https://sofa.local:47990"), ("origin", "https://evil.example")]),
            None
        );
        let plain = Asked::of("sofa.local").unwrap();
        let headers = parts("/", &[("origin", "https://sofa.local:443")]).headers;
        assert_eq!(check_origin(&headers, &plain).ok(), Some(Provenance::Own));
    }
}
