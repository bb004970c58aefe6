//! The audit log: what was done, by whom, from where.

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Caller, Need, Who, allow};
use super::super::problem::Problem;
use super::super::startup::{Door, Startup};
use super::super::wire::AuditLine;
use super::blocking;
use crate::access::{AccessError, Actor, MAX_AUDIT_PAGE};

/// As many lines a page has unless it is said.
const DEFAULT_PAGE: u32 = 50;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Owner, routes!(audit)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// Only lines before the one with this number: the last one of the page before.
    before: Option<u64>,
    /// As many lines at most: 1 to 200, 50 unless it is said.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
}

/// What was done, the newest first. The host keeps at most 10,000 lines: of what the owner did, of the owner's logins, of
/// what programs did, of what the viewer did and of what strangers tried the newest each, so that none pushes out
/// another.
#[utoipa::path(
    get,
    path = "/audit",
    tag = "audit",
    params(Page),
    responses((status = 200, body = Vec<AuditLine>)),
)]
async fn audit(
    Door(access): Door,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<AuditLine>>, Problem> {
    let Query(page) = page.map_err(Problem::malformed)?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE);
    if !(1..=MAX_AUDIT_PAGE).contains(&limit) {
        let detail = format!("a page has 1 to {MAX_AUDIT_PAGE} lines, not {limit}");
        return Err(Problem::malformed(detail));
    }
    let lines = blocking(move || access.audit_page(page.before, limit)).await??;
    Ok(Json(lines.into_iter().map(AuditLine::from).collect()))
}

/// Notes each change that was made, by whoever it was. What happens to claims, logins and tokens is noted where it
/// happens, together with the change; checks and self-tests change nothing.
pub(super) async fn note(State(startup): State<Startup>, request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>().cloned();
    let method = request.method().clone();
    let path = request.uri().path().trim_start_matches("/api/v1").to_owned();
    let response = next.run(request).await;
    let elsewhere = ["claim", "session", "tokens", "doctor", "selftest"];
    let is_elsewhere = path.split('/').nth(1).is_some_and(|area| elsewhere.contains(&area));
    if method.is_safe() || is_elsewhere || !response.status().is_success() {
        return response;
    }
    if let (Some(caller), Some(access)) = (caller, startup.owners()) {
        let (actor, action) = (actor(&caller), format!("{method} {path}"));
        let noted = blocking(move || access.audit(&actor, caller.remote, &action, "")).await;
        // What was done is done: a full disk is no reason to tell the owner that it was not.
        if !matches!(noted, Ok(Ok(()))) {
            tracing::warn!("a change could not be noted in the audit log");
        }
    }
    response
}

/// Notes something now, for a call that says more than that it was made. Blocks.
///
/// # Errors
/// The disk failed.
pub(super) fn write(
    startup: &Startup,
    caller: &Caller,
    action: &str,
    detail: &str,
) -> Result<(), AccessError> {
    let Some(access) = startup.owners() else { return Ok(()) };
    access.audit(&actor(caller), caller.remote, action, detail)
}

/// How the log calls a caller.
pub(in crate::mgmt) fn actor(caller: &Caller) -> Actor {
    match &caller.who {
        Who::Local { uid } => Actor::Local(*uid),
        Who::Owner => Actor::Owner,
        Who::Viewer => Actor::Viewer,
        Who::Token { id, .. } => Actor::Program(id.clone()),
        Who::SelfTest | Who::Anonymous => Actor::Nobody,
    }
}
