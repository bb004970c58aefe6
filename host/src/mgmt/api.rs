//! The routes, each a translation between JSON and a call.
//!
//! Calls that may block - the store writes to the disk, ending a session waits for its threads - run on the blocking
//! pool.

use std::time::Duration;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::routing::{get, patch, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::MgmtHandles;
use super::problem::Problem;
use super::selftest;
use super::wire::{
    Answer, Arm, Client, Decline, Pairing, Rename, Request, Session, StatusReport, Trace,
};
use crate::health::{self, Finding};
use crate::pairing::{AnswerPin, DEFAULT_WINDOW, RequestId};
use crate::session::{SessionId, SessionInfo};
use crate::store::ClientId;

/// The largest request body, in bytes.
const MAX_BODY_BYTES: usize = 16 * 1024;
/// The longest a caller may wait for news, in seconds.
const MAX_WAIT_SECONDS: u64 = 60;

pub(super) type Body = Result<Bytes, BytesRejection>;

pub(super) fn router(handles: MgmtHandles) -> Router {
    Router::new()
        .route("/api/v1/status", get(status))
        .route("/api/v1/pairing", get(pairing))
        .route("/api/v1/pairing/answer", post(answer))
        .route("/api/v1/pairing/decline", post(decline))
        .route("/api/v1/pairing/arm", post(arm))
        .route("/api/v1/pairing/disarm", post(disarm))
        .route("/api/v1/clients", get(clients))
        .route("/api/v1/clients/{id}", patch(rename_client).delete(remove_client))
        .route("/api/v1/doctor", get(checks))
        .route("/api/v1/doctor/{check}", post(examine))
        .route("/api/v1/sessions", get(sessions))
        .route("/api/v1/sessions/{id}/traces", get(traces))
        .route("/api/v1/selftest", post(selftest::permit))
        .route("/api/v1/selftest/{client}", post(selftest::renew).delete(selftest::end))
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
        .with_state(handles)
}

async fn status(State(handles): State<MgmtHandles>) -> Json<StatusReport> {
    Json((handles.status)())
}

#[derive(Deserialize)]
struct Wait {
    after: Option<u64>,
    wait_s: Option<u64>,
}

/// The desk now; with `after`, once it has another revision, or after `wait_s` seconds.
async fn pairing(
    State(handles): State<MgmtHandles>,
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

async fn answer(State(handles): State<MgmtHandles>, body: Body) -> Result<Json<Request>, Problem> {
    let answer: Answer = parse(body)?;
    let request = handles.desk.answer(AnswerPin {
        request: answer.request.map(RequestId),
        pin: answer.pin.0.parse()?,
        name: answer.name,
    })?;
    Ok(Json(Request::at(&request, handles.desk.snapshot().at)))
}

async fn decline(State(handles): State<MgmtHandles>, body: Body) -> Result<StatusCode, Problem> {
    let decline: Decline = parse(body)?;
    handles.desk.decline(RequestId(decline.request))?;
    Ok(StatusCode::NO_CONTENT)
}

async fn arm(State(handles): State<MgmtHandles>, body: Body) -> Result<Json<Pairing>, Problem> {
    let arm: Arm = parse(body)?;
    handles.desk.arm(arm.seconds.map_or(DEFAULT_WINDOW, Duration::from_secs));
    Ok(Json(handles.desk.snapshot().into()))
}

async fn disarm(State(handles): State<MgmtHandles>) -> Json<Pairing> {
    handles.desk.disarm();
    Json(handles.desk.snapshot().into())
}

async fn clients(State(handles): State<MgmtHandles>) -> Json<Vec<Client>> {
    Json(handles.store.clients().into_iter().map(Client::from).collect())
}

async fn rename_client(
    State(handles): State<MgmtHandles>,
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
async fn remove_client(
    State(handles): State<MgmtHandles>,
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

async fn sessions(State(handles): State<MgmtHandles>) -> Result<Json<Vec<Session>>, Problem> {
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

async fn traces(
    State(handles): State<MgmtHandles>,
    Path(id): Path<String>,
) -> Result<Json<Vec<Trace>>, Problem> {
    let id = id.parse().map(SessionId).map_err(Problem::malformed)?;
    let traces = blocking(move || handles.sessions.traces(id)).await?;
    Ok(Json(traces.into_iter().map(Trace::from).collect()))
}

/// The names of the checks, in the order in which to make them.
async fn checks() -> Json<Vec<String>> {
    Json(health::checks().into_iter().map(|check| check.name).collect())
}

/// Makes one check, in a process of its own; takes as long as it takes, and others wait for it.
async fn examine(
    State(handles): State<MgmtHandles>,
    Path(name): Path<String>,
) -> Result<Json<Finding>, Problem> {
    let Some(check) = health::checks().into_iter().find(|check| check.name == name) else {
        let detail = format!("there is no check \"{name}\"");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-check", detail));
    };
    let found = blocking(move || handles.examiner.examine(&check)).await?;
    found.map(Json).map_err(Problem::bug)
}

/// An empty body is an empty object, so that `curl -X POST` does for calls without arguments.
pub(super) fn parse<T: DeserializeOwned>(body: Body) -> Result<T, Problem> {
    let body = body.map_err(|rejection| {
        Problem::new(rejection.status(), "malformed", rejection.body_text())
    })?;
    let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
    serde_json::from_slice(body).map_err(Problem::malformed)
}

pub(super) async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(call).await.map_err(Problem::bug)
}
