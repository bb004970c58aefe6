//! The paired devices.

use axum::Json;
use axum::extract::Path;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{Client, ProblemDetails, Rename};
use super::{Body, blocking, parse};
use crate::access::Scope;
use crate::store::ClientId;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(clients)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(rename_client, remove_client)))
}

/// The paired devices.
#[utoipa::path(
    get,
    path = "/clients",
    tag = "clients",
    responses((status = 200, body = Vec<Client>)),
)]
async fn clients(Rooms(handles): Rooms) -> Json<Vec<Client>> {
    Json(handles.store.clients().into_iter().map(Client::from).collect())
}

/// Names a device.
#[utoipa::path(
    patch,
    path = "/clients/{id}",
    tag = "clients",
    params(("id" = String, Path, pattern = "^[0-9a-fA-F]{64}$", description = "64 hex digits")),
    request_body = Rename,
    responses(
        (status = 200, body = Client),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such device is paired"),
    ),
)]
async fn rename_client(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Client>, Problem> {
    let id: ClientId = id.parse()?;
    let rename: Rename = parse(body)?;
    let client = blocking(move || handles.store.rename(id, &rename.name)).await??;
    client.map(|client| Json(client.into())).ok_or_else(Problem::unknown_client)
}

/// Trusts the client no more, then ends what it has running: in this order it cannot come back in between.
// spec: gamestream 13.3 (item 39)
#[utoipa::path(
    delete,
    path = "/clients/{id}",
    tag = "clients",
    params(("id" = String, Path, pattern = "^[0-9a-fA-F]{64}$", description = "64 hex digits")),
    responses(
        (status = 200, body = Client),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such device is paired"),
    ),
)]
async fn remove_client(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
) -> Result<Json<Client>, Problem> {
    let id: ClientId = id.parse()?;
    let removed = blocking(move || {
        let removed = handles.store.remove_client(id);
        handles.sessions.quit(id);
        removed
    })
    .await??;
    removed.map(|client| Json(client.into())).ok_or_else(Problem::unknown_client)
}
