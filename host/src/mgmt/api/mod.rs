//! The routes, one file for each area, each route a translation between JSON and a call.
//!
//! Calls that may block - the store writes to the disk, ending a session waits for its threads - run on the blocking
//! pool. Every route is added with [`allow`](super::guard::allow), which says who may call it.

mod apps;
mod archive;
pub(super) mod audit;
mod backup;
mod claim;
mod clients;
mod doctor;
mod events;
mod front;
mod homes;
mod landing;
mod logs;
mod network;
mod openapi;
mod os;
mod pairing;
mod power;
mod proof;
mod selftest;
mod session;
mod sessions;
mod settings;
mod status;
mod storage;
mod tokens;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::{StatusCode, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Extension, Router};
use serde::de::DeserializeOwned;
use utoipa::openapi::security::{ApiKey, ApiKeyValue, Http, HttpAuthScheme, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::guard::documented;
use super::problem::Problem;
use super::startup::Startup;
use super::wire;

/// The largest request body, in bytes.
pub(super) const MAX_BODY_BYTES: usize = 16 * 1024;

pub(super) type Body = Result<Bytes, BytesRejection>;

/// The document of the API, in OpenAPI 3.1.
pub fn document() -> utoipa::openapi::OpenApi {
    documented(|| routes().into_openapi())
}

pub(super) fn router(startup: Startup) -> Router {
    let (router, _document) = routes().split_for_parts();
    router
        .route("/", get(front::front))
        .fallback(|| async {
            Problem::new(StatusCode::NOT_FOUND, "unknown-path", "there is nothing at this path")
        })
        .method_not_allowed_fallback(|| async {
            Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "unknown-method",
                "this path does not take this method",
            )
        })
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(startup.clone(), audit::note))
        .layer(middleware::map_response(as_problem))
        .with_state(startup)
}

fn routes() -> OpenApiRouter<Startup> {
    let areas = OpenApiRouter::new()
        .merge(landing::routes())
        .merge(events::routes())
        .merge(claim::routes())
        .merge(session::routes())
        .merge(tokens::routes())
        .merge(audit::routes())
        .merge(status::routes())
        .merge(pairing::routes())
        .merge(clients::routes())
        .merge(sessions::routes())
        .merge(settings::routes())
        .merge(apps::routes())
        .merge(backup::routes())
        .merge(homes::routes())
        .merge(doctor::routes())
        .merge(logs::routes())
        .merge(network::routes())
        .merge(storage::routes())
        .merge(openapi::routes())
        .merge(selftest::routes())
        .merge(os::routes())
        .merge(archive::routes())
        .merge(power::routes())
        .merge(proof::routes());
    OpenApiRouter::with_openapi(Document::openapi()).nest("/api/v1", areas)
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "punktfunk",
        description = "The management API of a punktfunk host. Errors are problem details (RFC 9457) with a stable \
                       `code`; `detail` is a sentence for the owner.",
    ),
    components(schemas(
        wire::ProblemDetails,
        wire::Event,
        wire::LogGap,
        wire::LogRecord,
        wire::OsNews,
        wire::SessionEnded,
        wire::SessionFigures,
    )),
    modifiers(&Security),
)]
struct Document;

/// The ways to say who calls.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let components = document.components.get_or_insert_default();
        let cookie = ApiKeyValue::new("__Host-punktfunk");
        components.add_security_scheme("cookie", SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));
        let token = Http::new(HttpAuthScheme::Bearer);
        components.add_security_scheme("token", SecurityScheme::Http(token));
        // Not something to send: the kernel says who is at the other end of the local socket.
        let local = ApiKeyValue::with_description(
            "x-punktfunk-local",
            "Only over the local socket, where the kernel says who calls; the header does not exist.",
        );
        components.add_security_scheme("local", SecurityScheme::ApiKey(ApiKey::Header(local)));
    }
}

/// An empty body is an empty object, so that `curl -X POST` does for calls without arguments.
pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = whole(body)?;
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(body).map_err(Problem::malformed)
}

/// Errors have one shape, also those that the framework found: a path that is no text, a number that is none.
async fn as_problem(response: Response) -> Response {
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    // The framework says it in plain text; whoever answers in JSON has chosen to.
    let is_ours = kind.is_some_and(|kind| !kind.as_bytes().starts_with(b"text/plain"));
    if is_ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (parts, body) = response.into_parts();
    let said = axum::body::to_bytes(body, MAX_BODY_BYTES).await.unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let detail = if said.is_empty() { "the request cannot be answered" } else { said.as_ref() };
    let mut problem = Problem::new(status, "malformed", detail).into_response();
    if let Some(allow) = parts.headers.get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allow.clone());
    }
    problem
}

/// A body that has arrived and was not too large.
pub(super) fn whole(body: Body) -> Result<Bytes, Problem> {
    body.map_err(|rejection| Problem::new(rejection.status(), "malformed", rejection.body_text()))
}

/// The largest body of a request, where it is not [`MAX_BODY_BYTES`].
#[derive(Clone, Copy)]
struct Larger(usize);

/// The largest body that this request may have, in bytes, where its route is [`sized`].
pub(super) fn max_body(request: &Request) -> Option<usize> {
    request.extensions().get::<Larger>().map(|larger| larger.0)
}

/// Guarded routes whose requests may be larger than others': up to this many bytes.
pub(super) fn sized<S>(
    max_bytes: usize,
    (schemas, paths, router): UtoipaMethodRouter<S>,
) -> UtoipaMethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    let limits = (DefaultBodyLimit::max(max_bytes), Extension(Larger(max_bytes)));
    (schemas, paths, router.layer(limits))
}

pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(call).await.map_err(Problem::bug)
}
