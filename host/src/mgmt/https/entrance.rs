//! What every request passes on its way in: whose it is is found out here, and what it may is decided by the routes.
//!
//! In this order: the request must be meant for this host and not come from a foreign page ([`origin`](super::origin));
//! then a token says who calls, or else the cookie does. A cookie is sent by the browser whoever makes it send, so a
//! request that changes something also needs what a foreign page cannot know or forge: the CSRF token, and a browser's
//! word that the page is ours; and where the browser says that a page of another origin asks - another port of this host is
//! one, and is sent the same cookies - not even reading is for it. A token is sent by nobody but its holder and needs neither; with a token the cookie is
//! not looked at.
//!
//! Deliberately absent: HSTS. Browsers do not heed it behind a certificate that no authority vouches for, and where one
//! does, it would bar the owner from a host whose certificate was replaced.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::super::cookie;
use super::super::guard::{Caller, Credentials, Standing, Who};
use super::super::patience::Stays;
use super::super::problem::Problem;
use super::origin::{self, HostNames, Provenance, check_host, check_origin, single};
use crate::listen::{Admission, Rank};

/// Holds the CSRF token.
const CSRF: HeaderName = HeaderName::from_static("x-punktfunk-csrf");

/// Sent with every answer: nothing of it is kept, guessed at, framed or told to others.
const SECURITY: [(HeaderName, &str); 5] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The connection that a request came over.
#[derive(Clone)]
pub(super) struct Peer {
    /// Its address, canonical.
    pub(super) remote: IpAddr,
    /// The address of ours that it connected to.
    pub(super) local: IpAddr,
    /// What it may live longer for.
    pub(super) stays: Stays,
    /// Its place at the door.
    pub(super) place: Arc<Admission>,
}

/// What is known at the door.
pub(super) struct Entrance {
    pub(super) names: HostNames,
    pub(super) credentials: Arc<dyn Credentials>,
}

/// Lets the request in with its [`Caller`], or answers it.
pub(super) async fn enter(
    State(entrance): State<Arc<Entrance>>,
    mut request: Request,
    next: Next,
) -> Response {
    match entrance.admit(&mut request) {
        Ok(()) => secure(next.run(request).await),
        Err(problem) => secure(problem.into_response()),
    }
}

/// Adds the headers that every answer has.
pub(super) fn secure(mut response: Response) -> Response {
    for (name, value) in SECURITY {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// What a request shows to say who sends it.
#[derive(Clone)]
enum Shown {
    Nothing,
    Token(Arc<str>),
    Cookie(Arc<str>),
}

impl Shown {
    fn of(headers: &HeaderMap) -> Self {
        let token = single(headers, &header::AUTHORIZATION)
            .and_then(|text| text.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        if let Some((_, token)) = token {
            return Self::Token(token.trim().into());
        }
        cookie::of(headers).map_or(Self::Nothing, |value| Self::Cookie(value.into()))
    }
}

impl Entrance {
    fn admit(self: &Arc<Self>, request: &mut Request) -> Result<(), Problem> {
        let peer = request.extensions().get::<Peer>().cloned();
        let peer = peer.ok_or_else(|| Problem::bug("a request came over no connection"))?;
        let (parts, body) = std::mem::take(request).into_parts();
        let asked = check_host(&parts, &self.names, peer.local)?;
        let provenance = check_origin(&parts.headers, &asked)?;
        let shown = Shown::of(&parts.headers);
        let who = self.who(&shown);
        if let Shown::Cookie(cookie) = &shown
            && who != Who::Anonymous
        {
            if provenance == Provenance::Elsewhere {
                return Err(origin::foreign());
            }
            if !origin::is_safe(&parts.method) {
                self.check_intent(cookie, &parts.headers, provenance)?;
            }
        }
        peer.place.ranks(match who {
            Who::Owner => Rank::Owner,
            Who::Viewer | Who::Token { .. } => Rank::Guest,
            Who::Local { .. } | Who::SelfTest | Who::Anonymous => Rank::Stranger,
        });
        *request = Request::from_parts(parts, body);
        let extensions = request.extensions_mut();
        extensions.insert(self.standing(shown, who.clone(), peer.stays));
        let claimed = self.credentials.claimed();
        extensions.insert(Caller { who, remote: Some(peer.remote), claimed });
        Ok(())
    }

    fn who(&self, shown: &Shown) -> Who {
        let known = match shown {
            Shown::Nothing => None,
            Shown::Token(token) => self.credentials.token(token),
            Shown::Cookie(cookie) => self.credentials.logged_in(cookie),
        };
        known.unwrap_or(Who::Anonymous)
    }

    /// A browser sends the cookie by itself; that the person meant the request is shown by other means.
    fn check_intent(
        &self,
        cookie: &str,
        headers: &HeaderMap,
        provenance: Provenance,
    ) -> Result<(), Problem> {
        if provenance != Provenance::Own {
            let detail = "the browser did not say which page this request comes from; use a browser of our days, or \
                          a token";
            return Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail));
        }
        let given = single(headers, &CSRF).unwrap_or_default();
        if !self.credentials.csrf_matches(cookie, given) {
            let detail = "the request does not carry the CSRF token of this login in x-punktfunk-csrf; load the page \
                          again";
            return Err(Problem::new(StatusCode::FORBIDDEN, "csrf", detail));
        }
        Ok(())
    }

    /// Lets others ask whether the caller is still who it was.
    fn standing(self: &Arc<Self>, shown: Shown, who: Who, stays: Stays) -> Standing {
        let entrance = Arc::clone(self);
        Standing::new(stays, move || entrance.who(&shown) == who)
    }
}
