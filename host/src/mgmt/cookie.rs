//! The cookie of whoever has logged in: what it is called, how it is set, how it is read.
//!
//! The prefix makes browsers take it over HTTPS only, and for this host alone: no neighbour of the same domain can set
//! it. Scripts cannot read it, and other sites' requests do not carry it.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::access::SecretText;

/// The name of a login's.
pub(super) const NAME: &str = "__Host-punktfunk";
/// The name of the one that stays in a browser that has logged in, and opens nothing: tries of others do not make that
/// browser wait.
const KNOWN: &str = "__Host-punktfunk-known";
/// How long it stays, in seconds: a year.
const KNOWN_SECONDS: u32 = 365 * 24 * 3600;

/// `Set-Cookie` for somebody who has just logged in. It ends with the browser; the host ends it anyway.
pub(super) fn set(secret: &SecretText) -> HeaderValue {
    sensitive(format!("{NAME}={}; Path=/; Secure; HttpOnly; SameSite=Strict", secret.reveal()))
}

/// `Set-Cookie` by which a browser is known at its next login. It outlives the login.
pub(super) fn set_known(known: &SecretText) -> HeaderValue {
    sensitive(format!(
        "{KNOWN}={}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={KNOWN_SECONDS}",
        known.reveal()
    ))
}

fn sensitive(text: String) -> HeaderValue {
    // Hex digits are fit for a header.
    let mut value = HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

/// `Set-Cookie` for somebody who has logged out.
pub(super) fn clear() -> HeaderValue {
    HeaderValue::from_static(
        "__Host-punktfunk=; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age=0",
    )
}

/// The login's cookie of a request; nothing if there are several, of which one is not ours.
pub(super) fn of(headers: &HeaderMap) -> Option<&str> {
    named(headers, NAME)
}

/// What a browser shows that has logged in before.
pub(super) fn known(headers: &HeaderMap) -> Option<&str> {
    named(headers, KNOWN)
}

fn named<'a>(headers: &'a HeaderMap, wanted: &str) -> Option<&'a str> {
    let mut ours = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == wanted);
    match (ours.next(), ours.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}
