//! The self-test's permit over the local socket: issued, kept alive, erased - by its holder, or by us when it is late.
//!
//! On a desk, whoever may come in here may also pair a client of its own; so this gives nobody more than it had. On a
//! box these routes are all that the host's own user may call, so that the checks of a start need not run as root; they
//! give it the Test card, for minutes ([0010](../../../../../docs/decisions/0010-the-self-tests-identity.md)). A self-test
//! that is killed renews nothing: its permit, its identity and its session are gone when the lease is.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::MgmtHandles;
use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{AskPermit, ProblemDetails, SelfTestPermit, SelfTestPin};
use super::{Body, blocking, parse};
use crate::pairing::{AnswerPin, Permit, PermitError};
use crate::store::ClientId;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::SelfTest, routes!(permit)))
        .routes(allow(Need::SelfTest, routes!(renew, end)))
        .routes(allow(Need::SelfTest, routes!(pin)))
}

/// Lets a self-test in.
#[utoipa::path(
    post,
    path = "/selftest",
    tag = "selftest",
    request_body = AskPermit,
    responses(
        (status = 200, body = SelfTestPermit),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "one runs, or the certificate is a paired device's"),
    ),
)]
async fn permit(Rooms(handles): Rooms, body: Body) -> Result<Json<SelfTestPermit>, Problem> {
    let ask: AskPermit = parse(body)?;
    let client: ClientId = ask.client.parse()?;
    if handles.store.client(client).is_some() {
        let detail = "a device with this certificate is paired already";
        return Err(Problem::new(StatusCode::CONFLICT, "already-paired", detail));
    }
    let permit = handles.desk.permit_self_test(client)?;
    tracing::info!(%client, "a self-test begins");
    let told = told(&handles, permit);
    tokio::spawn(watch(handles, client));
    Ok(Json(told))
}

/// Keeps a self-test's permit alive.
#[utoipa::path(
    post,
    path = "/selftest/{client}",
    tag = "selftest",
    params(("client" = String, Path, pattern = "^[0-9a-fA-F]{64}$", description = "the client id of its certificate")),
    responses(
        (status = 200, body = SelfTestPermit),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such self-test runs"),
    ),
)]
async fn renew(
    Rooms(handles): Rooms,
    Path(client): Path<String>,
) -> Result<Json<SelfTestPermit>, Problem> {
    let permit = handles.desk.renew_self_test(client.parse()?)?;
    Ok(Json(told(&handles, permit)))
}

/// Gives a self-test's own request its PIN, and no other one.
#[utoipa::path(
    post,
    path = "/selftest/{client}/pin",
    tag = "selftest",
    params(("client" = String, Path, pattern = "^[0-9a-fA-F]{64}$", description = "the client id of its certificate")),
    request_body = SelfTestPin,
    responses(
        (status = 204, description = "given"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such self-test runs"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "its request has not come, or has its PIN"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "that is no PIN"),
    ),
)]
async fn pin(
    Rooms(handles): Rooms,
    Path(client): Path<String>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let given: SelfTestPin = parse(body)?;
    let pin = given.pin.0.parse()?;
    let permit = handles.desk.renew_self_test(client.parse()?)?;
    let request = permit.request.ok_or_else(|| {
        let detail = "this self-test has not asked to be paired yet";
        Problem::new(StatusCode::CONFLICT, "nothing-pending", detail)
    })?;
    handles.desk.answer(AnswerPin { request: Some(request), pin, name: None })?;
    Ok(StatusCode::NO_CONTENT)
}

/// The permit, and where the test begins.
fn told(handles: &MgmtHandles, permit: Permit) -> SelfTestPermit {
    SelfTestPermit { near: (handles.status)().near, ..permit.into() }
}

/// Erases what a self-test had.
#[utoipa::path(
    delete,
    path = "/selftest/{client}",
    tag = "selftest",
    params(("client" = String, Path, pattern = "^[0-9a-fA-F]{64}$", description = "the client id of its certificate")),
    responses(
        (status = 204, description = "erased"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such self-test runs"),
    ),
)]
async fn end(Rooms(handles): Rooms, Path(client): Path<String>) -> Result<StatusCode, Problem> {
    let client: ClientId = client.parse()?;
    let ended = blocking(move || erase(&handles, client)).await?;
    if ended { Ok(StatusCode::NO_CONTENT) } else { Err(PermitError::Unknown.into()) }
}

/// Erases a permit whose time is over.
async fn watch(handles: MgmtHandles, client: ClientId) {
    while let Some(remaining) = handles.desk.self_test_remaining(client) {
        tokio::time::sleep(remaining).await;
    }
    // Nothing is left to erase if its holder did.
    if blocking(move || erase(&handles, client)).await.unwrap_or(false) {
        tracing::warn!(%client, "a self-test did not end in time; what it had is erased");
    }
}

/// First nothing is accepted any more, then the session ends: in this order it cannot come back in between.
fn erase(handles: &MgmtHandles, client: ClientId) -> bool {
    let Some(_permit) = handles.desk.end_self_test(client) else { return false };
    handles.sessions.quit(client);
    tracing::info!(%client, "the self-test's identity is erased");
    true
}
