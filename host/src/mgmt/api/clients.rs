//! The paired devices, and what each may do.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::MgmtHandles;
use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{Client, ClientChange, ProblemDetails};
use super::{Body, blocking, parse};
use crate::access::Scope;
use crate::store::{ClientId, MAX_EXPIRES_AT, PairedClient, Permission, Policy, clean_name};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(clients)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(change_client, remove_client)))
}

/// The paired devices.
#[utoipa::path(
    get,
    path = "/clients",
    tag = "clients",
    responses((status = 200, body = Vec<Client>)),
)]
async fn clients(Rooms(handles): Rooms) -> Result<Json<Vec<Client>>, Problem> {
    let clients = blocking(move || {
        let sessions = handles.sessions.sessions();
        let streams =
            |id: ClientId| sessions.iter().any(|info| info.client == id && info.streaming);
        let client = |client: PairedClient| {
            let streaming = streams(client.id);
            Client::of(client, streaming)
        };
        handles.store.clients().into_iter().map(client).collect()
    })
    .await?;
    Ok(Json(clients))
}

/// Names a device, says what it may do and until when it is a guest. Who loses its input while it streams is cut off and
/// may come back to watch; who is given it, has it from its next stream on; who is a guest no more has its session ended within a second.
#[utoipa::path(
    patch,
    path = "/clients/{id}",
    tag = "clients",
    params(("id" = String, Path, pattern = "^[0-9a-fA-F]{64}$", description = "64 hex digits")),
    request_body = ClientChange,
    responses(
        (status = 200, body = Client),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such device is paired"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "that is not a name, or not a time"),
    ),
)]
async fn change_client(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<Client>, Problem> {
    let id: ClientId = id.parse()?;
    let change: ClientChange = parse(body)?;
    check(&change)?;
    blocking(move || apply(&handles, id, &change)).await?.map(Json)
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
    let client = removed.map(|client| Client::of(client, false));
    client.map(Json).ok_or_else(Problem::unknown_client)
}

/// Whether all of a change can be made.
fn check(change: &ClientChange) -> Result<(), Problem> {
    let refuse =
        |code, detail: String| Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, code, detail));
    if change.name.as_deref().is_some_and(|name| clean_name(name).is_none()) {
        return refuse("malformed-name", "a name has at least one visible character".to_owned());
    }
    if change.expires_at.flatten().is_some_and(|until| until > MAX_EXPIRES_AT) {
        return refuse(
            "malformed-time",
            format!("a guest's stay ends at {MAX_EXPIRES_AT} seconds since 1970 at the latest"),
        );
    }
    Ok(())
}

fn apply(handles: &MgmtHandles, id: ClientId, change: &ClientChange) -> Result<Client, Problem> {
    let (store, sessions) = (&handles.store, &handles.sessions);
    let before = store.client(id).ok_or_else(Problem::unknown_client)?.policy;
    let mut policy: Policy = before;
    if let Some(permissions) = &change.permissions {
        let permissions: Vec<Permission> = permissions.iter().copied().map(Into::into).collect();
        policy = policy.with(&permissions);
    }
    if let Some(expires_at) = change.expires_at {
        policy.expires_at = expires_at;
    }
    if policy != before {
        store.set_policy(id, policy)?;
        tracing::info!(client = %id, ?policy, "the owner changed what a device may do");
    }
    if let Some(name) = &change.name {
        store.rename(id, name)?;
    }
    let streams = || sessions.running(id).is_some_and(|running| running.streaming);
    // The devices of a stream that runs or is about to were made under the old policy. One that ends by itself meanwhile
    // is as good.
    if before.input && !policy.input && sessions.running(id).is_some() {
        drop(sessions.resume(id));
    }
    let client = store.client(id).ok_or_else(Problem::unknown_client)?;
    Ok(Client::of(client, streams()))
}
