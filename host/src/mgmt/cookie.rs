//! The cookie of whoever has logged in: what it is called, how it is set, how it is read.
//!
//! The prefix makes browsers take it over HTTPS only, and for this host alone: no neighbour of the same domain can set
//! it. Scripts cannot read it, and other sites' requests do not carry it.

use axum::http::{HeaderMap, HeaderValue, header};

use crate::access::SecretText;

/// The name.
pub(super) const NAME: &str = "__Host-punktfunk";

/// `Set-Cookie` for somebody who has just logged in. It ends with the browser; the host ends it anyway.
pub(super) fn set(secret: &SecretText) -> HeaderValue {
    let text = format!("{NAME}={}; Path=/; Secure; HttpOnly; SameSite=Strict", secret.reveal());
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

/// The cookie of a request; nothing if there are several, of which one is not ours.
pub(super) fn of(headers: &HeaderMap) -> Option<&str> {
    let mut ours = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|text| text.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(name, _)| *name == NAME);
    match (ours.next(), ours.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}
