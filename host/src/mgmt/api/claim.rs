//! The claim: how a host without an owner gets one.

use axum::extract::State;
use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::cookie;
use super::super::guard::{Caller, Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Door, Startup};
use super::super::wire::{ClaimHost, ClaimStatus, Login, ProblemDetails};
use super::{Body, blocking, parse};
use crate::access::{AccessError, ClaimAttempt, ClaimError, LoggedIn, Wait};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Nothing, routes!(claim_status, claim)))
}

/// Whether the host can be claimed, and how long this address waits. A host that cannot read whether it has an owner says
/// so.
#[utoipa::path(
    get,
    path = "/claim",
    tag = "claim",
    responses((status = 200, body = ClaimStatus)),
)]
async fn claim_status(
    State(startup): State<Startup>,
    door: Result<Door, Problem>,
    Extension(caller): Extension<Caller>,
) -> Result<Json<ClaimStatus>, Problem> {
    let why_unknown = startup.known().credentials.claimed().why_unknown();
    let access = match door {
        Ok(Door(access)) => access,
        Err(_) if why_unknown.is_some() => {
            let (claimed, reason, wait_seconds, tries_left) = (None, None, 0, 0);
            let status = ClaimStatus { claimed, why_unknown, reason, wait_seconds, tries_left };
            return Ok(Json(status));
        }
        Err(problem) => return Err(problem),
    };
    let state = access.claim_state(caller.remote);
    Ok(Json(ClaimStatus {
        claimed: Some(state.claimed),
        why_unknown: None,
        reason: state.reason,
        wait_seconds: seconds(state.wait),
        tries_left: state.wait.tries_left,
    }))
}

/// Claims the host with the code or the token that it shows: gives it a name and its owner a password, and logs the
/// owner in.
///
/// All strangers together have 20 tries at the code and 20 more a minute, so that they can make others wait with it; the
/// token is never counted.
#[utoipa::path(
    post,
    path = "/claim",
    tag = "claim",
    request_body = ClaimHost,
    responses(
        (status = 200, body = Login, description = "the host has an owner now, who is logged in; its new name holds when it starts again"),
        (status = 403, body = ProblemDetails, content_type = "application/problem+json", description = "that is not the code, or the caller may not do this"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "the host has an owner already"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the name or the password cannot be one"),
    ),
)]
async fn claim(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let ask: ClaimHost = parse(body)?;
    let logged_in = blocking(move || {
        access.claim(&ClaimAttempt {
            secret: &ask.secret.0,
            name: &ask.name,
            password: &ask.password.0,
            remote: caller.remote,
            agent: agent(&headers),
        })
    })
    .await??;
    Ok(answer(&logged_in))
}

/// What the browser calls itself.
pub(super) fn agent(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::USER_AGENT).and_then(|agent| agent.to_str().ok())
}

/// Hands the session out.
pub(super) fn answer(logged_in: &LoggedIn) -> impl IntoResponse + use<> {
    let login = Login {
        role: logged_in.session.role.into(),
        csrf: logged_in.session.csrf.clone(),
        lasts: logged_in.lasts,
    };
    (cookies(logged_in), Json(login))
}

/// What the browser keeps of a login.
pub(super) fn cookies(logged_in: &LoggedIn) -> AppendHeaders<[(HeaderName, HeaderValue); 2]> {
    AppendHeaders([
        (SET_COOKIE, cookie::set(&logged_in.secret)),
        (SET_COOKIE, cookie::set_known(&logged_in.known)),
    ])
}

/// Whole seconds, so many that it is over after them.
pub(super) fn seconds(wait: Wait) -> u64 {
    wait.wait.as_secs() + u64::from(wait.wait.subsec_nanos() > 0)
}

impl From<ClaimError> for Problem {
    fn from(error: ClaimError) -> Self {
        let (status, code) = match &error {
            ClaimError::Claimed => (StatusCode::CONFLICT, "claimed"),
            ClaimError::Wrong { .. } => (StatusCode::FORBIDDEN, "wrong-code"),
            ClaimError::Wait { .. } => (StatusCode::TOO_MANY_REQUESTS, "wait"),
            ClaimError::Name => (StatusCode::UNPROCESSABLE_ENTITY, "malformed-name"),
            ClaimError::Password(_) => (StatusCode::UNPROCESSABLE_ENTITY, "malformed-password"),
            ClaimError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            ClaimError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store"),
        };
        let problem = Self::new(status, code, &error);
        match error {
            ClaimError::Wrong { wait } | ClaimError::Wait { wait } => problem.after(seconds(wait)),
            ClaimError::Busy => problem.after(1),
            ClaimError::Failed(error) => error.into(),
            _ => problem,
        }
    }
}

impl From<AccessError> for Problem {
    fn from(error: AccessError) -> Self {
        tracing::warn!(%error, "the owner's door failed");
        let code =
            if matches!(error, AccessError::Uncertain { .. }) { "uncertain" } else { "store" };
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, code, error)
    }
}
