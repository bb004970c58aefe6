//! The pairing desk.

use std::time::Duration;

use axum::Json;
use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{Answer, Arm, Decline, Pairing, ProblemDetails, Request};
use super::{Body, parse};
use crate::access::Scope;
use crate::pairing::{AnswerPin, DEFAULT_WINDOW, RequestId};

/// The longest a caller may wait for news, in seconds.
const MAX_WAIT_SECONDS: u64 = 60;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(pairing)))
        .routes(allow(Need::Scope(Scope::Pair), routes!(answer)))
        .routes(allow(Need::Scope(Scope::Pair), routes!(decline)))
        .routes(allow(Need::Scope(Scope::Pair), routes!(arm)))
        .routes(allow(Need::Scope(Scope::Pair), routes!(disarm)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wait {
    /// A revision: answer once the desk has another one.
    after: Option<u64>,
    /// Answer after this many seconds at the latest, even if nothing changed; at most 60.
    wait_s: Option<u64>,
}

/// The desk now; with `after`, once it has another revision, or after `wait_s` seconds.
#[utoipa::path(
    get,
    path = "/pairing",
    tag = "pairing",
    params(Wait),
    responses((status = 200, body = Pairing)),
)]
async fn pairing(
    Rooms(handles): Rooms,
    wait: Result<Query<Wait>, QueryRejection>,
) -> Result<Json<Pairing>, Problem> {
    let Query(wait) = wait.map_err(Problem::malformed)?;
    let Some(after) = wait.after else {
        return Ok(Json(handles.desk.snapshot().into()));
    };
    let limit = Duration::from_secs(wait.wait_s.unwrap_or(0).min(MAX_WAIT_SECONDS));
    let changed = handles.desk.changed_since(after);
    let snapshot = match tokio::time::timeout(limit, changed).await {
        Ok(snapshot) => snapshot,
        Err(_) => handles.desk.snapshot(),
    };
    Ok(Json(snapshot.into()))
}

/// Gives the PIN that a device shows to its request.
#[utoipa::path(
    post,
    path = "/pairing/answer",
    tag = "pairing",
    request_body = Answer,
    responses(
        (status = 200, body = Request),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such request waits"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "none waits, or several do"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "that is not a PIN"),
    ),
)]
async fn answer(Rooms(handles): Rooms, body: Body) -> Result<Json<Request>, Problem> {
    let answer: Answer = parse(body)?;
    let request = handles.desk.answer(AnswerPin {
        request: answer.request.map(RequestId),
        pin: answer.pin.0.parse()?,
        name: answer.name,
    })?;
    Ok(Json(Request::at(&request, handles.desk.snapshot().at)))
}

/// Turns a request away.
#[utoipa::path(
    post,
    path = "/pairing/decline",
    tag = "pairing",
    request_body = Decline,
    responses(
        (status = 204, description = "done"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such request waits"),
    ),
)]
async fn decline(Rooms(handles): Rooms, body: Body) -> Result<StatusCode, Problem> {
    let decline: Decline = parse(body)?;
    handles.desk.decline(RequestId(decline.request))?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets devices ask for a while.
#[utoipa::path(
    post,
    path = "/pairing/arm",
    tag = "pairing",
    request_body = Arm,
    responses((status = 200, body = Pairing)),
)]
async fn arm(Rooms(handles): Rooms, body: Body) -> Result<Json<Pairing>, Problem> {
    let arm: Arm = parse(body)?;
    handles.desk.arm(arm.seconds.map_or(DEFAULT_WINDOW, Duration::from_secs));
    Ok(Json(handles.desk.snapshot().into()))
}

/// Lets no device ask.
#[utoipa::path(
    post,
    path = "/pairing/disarm",
    tag = "pairing",
    responses((status = 200, body = Pairing)),
)]
async fn disarm(Rooms(handles): Rooms) -> Json<Pairing> {
    handles.desk.disarm();
    Json(handles.desk.snapshot().into())
}
