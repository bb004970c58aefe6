//! Who may call what: each route states its need, each caller has grants, and one function compares the two.
//!
//! A door finds out who calls (the kernel's word on the local socket; cookie or token over HTTPS) and puts a [`Caller`]
//! into the request. A route is made with [`allow`], which guards the handler and writes the same need into the API's
//! document: what is documented is what is enforced. A route without a need does not exist, because the only way to
//! add one goes through here. It is also given a bounded body here, so a route that takes a larger one is wrapped from
//! outside ([`sized`](super::api::sized)); one that reads its body while it comes is made with [`allow_streamed`].

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{FromRequest as _, Request};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use hyper::body::{Frame, SizeHint};
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa::openapi::{Content, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::UtoipaMethodRouter;

use super::api::{MAX_BODY_BYTES, max_body, whole};
use super::patience::{Stay, Stays, Unhurried};
use super::problem::Problem;
use crate::access::{Scope, Scopes};

/// What a caller must have for a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: it answers everybody, also before the host is claimed.
    Nothing,
    /// No more than that the host has an owner: it answers everybody then, and before that only on the host itself.
    Claimed,
    /// The scope.
    Scope(Scope),
    /// The owner in person: logged in, or over the local socket. No token does.
    Owner,
    /// The local socket, for the self-test: what it gives cannot be had from afar. On a box the host's own user comes in
    /// for this, too.
    SelfTest,
}

impl Need {
    /// Whether nobody has to log in for it.
    fn is_for_everybody(self) -> bool {
        matches!(self, Self::Nothing | Self::Claimed)
    }

    /// As it stands in the document.
    fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Claimed => "claimed",
            Self::Scope(scope) => scope.name(),
            Self::Owner => "owner",
            Self::SelfTest => "local",
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// Somebody whom the kernel vouches for, on the local socket.
    Local {
        /// Its uid.
        uid: u32,
    },
    /// The host's own user, on the local socket of a box: it may test the host, and do nothing else there.
    SelfTest,
    /// The owner, logged in.
    Owner,
    /// Somebody who may look, logged in.
    Viewer,
    /// A program with a token.
    Token {
        /// Which.
        id: String,
        /// What it may.
        scopes: Scopes,
    },
    /// Nobody that is known.
    Anonymous,
}

/// A call's circumstances; in every request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Caller {
    pub(super) who: Who,
    /// Its address; `None` on the local socket.
    pub(super) remote: Option<IpAddr>,
    /// Whether the host has an owner.
    pub(super) claimed: Claimed,
}

/// Whether the host has an owner, as far as anybody can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// It has.
    Yes,
    /// It has not, and can be claimed.
    No,
    /// What the host remembers cannot be read. It may have one, so that it lets nobody in and offers no claim.
    Unknown {
        /// What is wrong and what to do, in sentences that everybody may read: without a path, an address or a name.
        why: &'static str,
    },
}

impl Claimed {
    /// Whether it has, if that is known.
    pub fn known(self) -> Option<bool> {
        match self {
            Self::Yes => Some(true),
            Self::No => Some(false),
            Self::Unknown { .. } => None,
        }
    }

    /// Why it is not known, and what to do.
    pub(super) fn why_unknown(self) -> Option<String> {
        match self {
            Self::Unknown { why } => Some(format!("{NOBODY_KNOWS} {why}")),
            Self::Yes | Self::No => None,
        }
    }
}

/// What follows for whoever comes to a host that cannot read who owns it.
const NOBODY_KNOWS: &str =
    "This host cannot read whether it has an owner, so that nobody can claim it or log in.";

/// Where a door learns whose a cookie or a token is. Must not block for long: it is asked at each request.
pub trait Credentials: Send + Sync {
    /// Whether the host has an owner.
    fn claimed(&self) -> Claimed;
    /// Who has logged in with this cookie.
    fn logged_in(&self, cookie: &str) -> Option<Who>;
    /// Whether this is the CSRF token of that login. In constant time.
    fn csrf_matches(&self, cookie: &str, csrf: &str) -> bool;
    /// Which program has this token.
    fn token(&self, token: &str) -> Option<Who>;
}

/// Nobody is known, nor whether the host has an owner: what holds where there is no store.
#[derive(Debug, Clone, Copy)]
pub struct Nobody {
    /// Why, as in [`Claimed::Unknown`].
    pub why: &'static str,
}

impl Default for Nobody {
    fn default() -> Self {
        Self { why: "It was started without anything that remembers it." }
    }
}

impl Credentials for Nobody {
    fn claimed(&self) -> Claimed {
        Claimed::Unknown { why: self.why }
    }

    fn logged_in(&self, _cookie: &str) -> Option<Who> {
        None
    }

    fn csrf_matches(&self, _cookie: &str, _csrf: &str) -> bool {
        false
    }

    fn token(&self, _token: &str) -> Option<Who> {
        None
    }
}

/// Whether the caller is still who it was when it asked: a login may end while a request comes in, or while its answer
/// lasts. In every request.
#[derive(Clone)]
pub(super) struct Standing {
    still: Arc<dyn Fn() -> bool + Send + Sync>,
    stays: Stays,
}

impl Standing {
    pub(super) fn new(stays: Stays, still: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { still: Arc::new(still), stays }
    }

    /// Keeps the connection for an answer that lasts.
    pub(super) fn stay(&self) -> Stay {
        self.stays.begin()
    }

    /// Whether the caller is who it was.
    pub(super) fn holds(&self) -> bool {
        (self.still)()
    }

    /// The caller is who it was.
    ///
    /// # Errors
    /// It is not: 401 `login-needed`.
    pub(super) fn check(&self) -> Result<(), Problem> {
        if self.holds() { Ok(()) } else { Err(Problem::login_needed()) }
    }
}

impl Caller {
    /// Whether it may; the reason if not.
    fn check(&self, need: Need) -> Result<(), Problem> {
        if need == Need::Nothing || matches!(self.who, Who::Local { .. }) {
            return Ok(());
        }
        if self.who == Who::SelfTest {
            let detail = "on a box nobody but root may use the local socket; the host's own user may only test the host";
            let refused = Problem::new(StatusCode::FORBIDDEN, "not-allowed", detail);
            return if need == Need::SelfTest { Ok(()) } else { Err(refused) };
        }
        if self.claimed == Claimed::No {
            let detail = "this host has no owner yet; claim it first, with the code that it shows";
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "unclaimed", detail));
        }
        if let Some(why) = self.claimed.why_unknown() {
            return Err(Problem::new(StatusCode::FORBIDDEN, "owner-unknown", why));
        }
        if need == Need::Claimed {
            return Ok(());
        }
        let may = match (&self.who, need) {
            (Who::Anonymous, _) => return Err(Problem::login_needed()),
            (_, Need::SelfTest) => false,
            (Who::Owner, _) => true,
            (_, Need::Owner) => false,
            (Who::Viewer, Need::Scope(scope)) => scope == Scope::View,
            (Who::Token { scopes, .. }, Need::Scope(scope)) => scopes.contains(scope),
            (Who::Local { .. } | Who::SelfTest, _) | (_, Need::Nothing | Need::Claimed) => true,
        };
        if may {
            return Ok(());
        }
        let detail = match need {
            Need::SelfTest => "this can only be done on the host itself".to_owned(),
            Need::Owner => "only the owner in person may do this".to_owned(),
            need => format!("this needs the permission \"{}\"", need.name()),
        };
        Err(Problem::new(StatusCode::FORBIDDEN, "not-allowed", detail))
    }
}

thread_local! {
    /// Routes are made for their document.
    static DOCUMENTS: Cell<bool> = const { Cell::new(false) };
}

/// Makes routes together with their document. Elsewhere they are made without one: it is large, and what is left of it
/// on the heap between the routes would stay for as long as the host runs.
pub(super) fn documented<T>(make: impl FnOnce() -> T) -> T {
    DOCUMENTS.set(true);
    let made = make();
    DOCUMENTS.set(false);
    made
}

/// The routes, open to those who have what is needed; the document says so.
pub(super) fn allow<S>(need: Need, routes: UtoipaMethodRouter<S>) -> UtoipaMethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    guarded(need, Reading::Whole, routes)
}

/// The same for routes that read their body while it comes. It may take as long as it likes while it keeps coming, and be
/// as long as it likes unless the route is [`sized`](super::api::sized), which refuses what says beforehand that it is
/// longer. With each piece its caller is looked at, and it ends with an error when that is not who it was; so whoever reads
/// it does nothing that stays before its end.
pub(super) fn allow_streamed<S>(need: Need, routes: UtoipaMethodRouter<S>) -> UtoipaMethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    guarded(need, Reading::AsItComes, routes)
}

/// When a route reads the body of a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Whole,
    AsItComes,
}

fn guarded<S>(
    need: Need,
    reading: Reading,
    (schemas, mut paths, router): UtoipaMethodRouter<S>,
) -> UtoipaMethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let guard = move |request: Request, next: Next| guard(need, reading, request, next);
    let router = router.layer(middleware::from_fn(guard));
    if !DOCUMENTS.get() {
        paths.paths.values_mut().for_each(|item| *item = PathItem::default());
        return (vec![], paths, router);
    }
    for item in paths.paths.values_mut() {
        operations(item).for_each(|operation| document(operation, need));
    }
    (schemas, paths, router)
}

async fn guard(need: Need, reading: Reading, request: Request, next: Next) -> Response {
    match admit(need, reading, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// The request, if its caller may. Where it changes something, its whole body is waited for first, and then its caller
/// looked at again: nobody keeps a permission by sending slowly.
async fn admit(need: Need, reading: Reading, request: Request) -> Result<Request, Problem> {
    // A door that names nobody lets nobody in.
    let unsaid = || Problem::bug("the door did not say who calls");
    request.extensions().get::<Caller>().ok_or_else(unsaid)?.check(need)?;
    if request.method().is_safe() {
        return Ok(request);
    }
    let standing = request.extensions().get::<Standing>().cloned().ok_or_else(unsaid)?;
    let max_bytes = max_body(&request).unwrap_or(match reading {
        Reading::Whole => MAX_BODY_BYTES,
        Reading::AsItComes => usize::MAX,
    });
    // One that says so is not waited for.
    if usize::try_from(request.body().size_hint().lower()).map_or(true, |bytes| bytes > max_bytes) {
        let detail = format!("the request's body is larger than {max_bytes} bytes");
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "malformed", detail));
    }
    if reading == Reading::AsItComes {
        return Ok(watched(request, standing));
    }
    let (parts, body) = request.into_parts();
    let body = Bytes::from_request(Request::from_parts(parts.clone(), body), &()).await;
    let body = whole(body)?;
    // What everybody may is also for somebody whose login has just ended.
    if !need.is_for_everybody() {
        standing.check()?;
    }
    Ok(Request::from_parts(parts, body.into()))
}

/// The request, whose caller is looked at while its body comes, and may take as long as it likes for it.
fn watched(request: Request, standing: Standing) -> Request {
    if let Some(unhurried) = request.extensions().get::<Unhurried>() {
        unhurried.take_time();
    }
    request.map(|body| Body::new(Watched { body, standing, is_over: false }))
}

/// A body that ends with an error as soon as its caller is not who it was; its end counts as a piece.
struct Watched {
    body: Body,
    standing: Standing,
    is_over: bool,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if self.standing.holds() {
            return Poll::Ready(frame);
        }
        self.is_over = true;
        let ended = axum::Error::new("whoever sends it is not logged in any more");
        Poll::Ready(Some(Err(ended)))
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// What is answered where all that is needed is that there is an owner.
const NO_OWNER: &str = "the host has no owner yet";

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    [&mut item.get, &mut item.put, &mut item.post, &mut item.delete, &mut item.patch]
        .into_iter()
        .filter_map(Option::as_mut)
}

/// Adds what every route with this need may answer, and who may call it.
fn document(operation: &mut Operation, need: Need) {
    let mut may_answer = vec![
        (StatusCode::BAD_REQUEST, "the request cannot be understood"),
        (StatusCode::PAYLOAD_TOO_LARGE, "the request is too large"),
        (StatusCode::MISDIRECTED_REQUEST, "the request was sent to a name that is not this host's"),
        (StatusCode::TOO_MANY_REQUESTS, "too many requests from this address"),
        (StatusCode::INTERNAL_SERVER_ERROR, "the disk or the system failed, or the host has a bug"),
        (StatusCode::SERVICE_UNAVAILABLE, "the host is starting, or could not start"),
    ];
    match need {
        Need::Nothing => {}
        Need::Claimed => may_answer.push((StatusCode::UNAUTHORIZED, NO_OWNER)),
        _ => may_answer
            .push((StatusCode::UNAUTHORIZED, "nobody is logged in, or the host has no owner yet")),
    }
    // Also a cookie without its CSRF token, and a foreign Origin.
    let forbidden = "the caller may not do this, or the host cannot read whether it has an owner";
    may_answer.push((StatusCode::FORBIDDEN, forbidden));
    for (status, description) in may_answer {
        let status = status.as_str().to_owned();
        operation.responses.responses.entry(status).or_insert_with(|| problem(description));
    }
    let schemes: &[&str] = match need {
        Need::Nothing | Need::Claimed => &[],
        Need::Scope(_) => &["cookie", "token"],
        Need::Owner => &["cookie"],
        Need::SelfTest => &["local"],
    };
    operation.security = Some(
        schemes.iter().map(|scheme| SecurityRequirement::new(*scheme, [need.name()])).collect(),
    );
}

fn problem(description: &str) -> RefOr<utoipa::openapi::Response> {
    let content = Content::new(Some(Ref::from_schema_name("ProblemDetails")));
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", content)
        .build()
        .into()
}
