//! Who plays what.

use axum::Json;
use axum::extract::Path;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{Session, Trace};
use super::blocking;
use crate::access::Scope;
use crate::session::{SessionId, SessionInfo};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(sessions)))
        .routes(allow(Need::Scope(Scope::View), routes!(traces)))
}

/// Who plays what, and who did a short while ago.
#[utoipa::path(
    get,
    path = "/sessions",
    tag = "sessions",
    responses((status = 200, body = Vec<Session>)),
)]
async fn sessions(Rooms(handles): Rooms) -> Result<Json<Vec<Session>>, Problem> {
    let sessions = blocking(move || {
        let session = |info: SessionInfo| Session {
            id: info.id.0,
            client: info.client.to_string(),
            client_name: match handles.store.client(info.client) {
                Some(client) => client.name,
                None if info.self_test => "the self-test".to_owned(),
                None => "a forgotten device".to_owned(),
            },
            app: info.app,
            mode: info.mode.to_string(),
            streaming: info.streaming,
            ended: info.ended.map(|reason| reason.to_string()),
        };
        handles.sessions.sessions().into_iter().map(session).collect()
    })
    .await?;
    Ok(Json(sessions))
}

/// What became of the newest pictures of a session.
#[utoipa::path(
    get,
    path = "/sessions/{id}/traces",
    tag = "sessions",
    params(("id" = u64, Path, description = "the session")),
    responses((status = 200, body = Vec<Trace>)),
)]
async fn traces(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
) -> Result<Json<Vec<Trace>>, Problem> {
    let id = id.parse().map(SessionId).map_err(Problem::malformed)?;
    let traces = blocking(move || handles.sessions.traces(id)).await?;
    Ok(Json(traces.into_iter().map(Trace::from).collect()))
}
