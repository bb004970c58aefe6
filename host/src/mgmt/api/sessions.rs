//! Who plays what, and how it is going.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::MgmtHandles;
use super::super::follow::Place;
use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{
    PastSession, ProblemDetails, ServerEvent, Session, SessionDetails, SessionEnded,
    SessionFigures, Trace,
};
use super::blocking;
use crate::access::Scope;
use crate::session::{Follower, SessionId, SessionInfo};
use crate::store::MAX_PAST_SESSIONS;

/// How many past sessions are told if nobody says how many.
const DEFAULT_PAGE: u32 = 50;

/// A session tells its figures once a second. One that is silent for longer is looked after: its thread may have
/// panicked.
const SILENCE: Duration = Duration::from_secs(3);

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(sessions)))
        .routes(allow(Need::Scope(Scope::View), routes!(past_sessions)))
        .routes(allow(Need::Scope(Scope::View), routes!(session)))
        .routes(allow(Need::Scope(Scope::Play), routes!(end_session)))
        .routes(allow(Need::Scope(Scope::View), routes!(live)))
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
        handles.sessions.sessions().into_iter().map(|info| named(&handles, info)).collect()
    })
    .await?;
    Ok(Json(sessions))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Page {
    /// As many at most; 50 if left out.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<u32>,
    /// Only those with a lower number than this: the last of the page before.
    before: Option<u64>,
}

/// Sessions that have ended, newest first; the newest 500 are kept.
#[utoipa::path(
    get,
    path = "/sessions/past",
    tag = "sessions",
    params(Page),
    responses((status = 200, body = Vec<PastSession>)),
)]
async fn past_sessions(
    Rooms(handles): Rooms,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Vec<PastSession>>, Problem> {
    let Query(page) = page.map_err(Problem::malformed)?;
    let limit = page.limit.unwrap_or(DEFAULT_PAGE).clamp(1, MAX_PAST_SESSIONS);
    let past = blocking(move || handles.store.past_sessions(page.before, limit)).await??;
    Ok(Json(past.into_iter().map(PastSession::from).collect()))
}

/// One session with what its stream was set up with; also one that has ended a short while ago.
#[utoipa::path(
    get,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = u64, Path, description = "the session")),
    responses(
        (status = 200, body = SessionDetails),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such session"),
    ),
)]
async fn session(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
) -> Result<Json<SessionDetails>, Problem> {
    let id = session_id(&id)?;
    let details = blocking(move || {
        let details = handles.sessions.details(id)?;
        Some(SessionDetails {
            session: named(&handles, details.info),
            seconds: details.age.as_secs(),
            stream: details.stream.map(Into::into),
        })
    })
    .await?;
    details.map(Json).ok_or_else(unknown_session)
}

/// Ends a session: its stream, its app and its output. Answers with what was ended, when all of it is gone.
#[utoipa::path(
    delete,
    path = "/sessions/{id}",
    tag = "sessions",
    params(("id" = u64, Path, description = "the session")),
    responses(
        (status = 200, body = Session),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such session runs"),
    ),
)]
async fn end_session(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
) -> Result<Json<Session>, Problem> {
    let id = session_id(&id)?;
    let ended =
        blocking(move || handles.sessions.end(id).map(|info| named(&handles, info))).await?;
    let ended = ended.ok_or_else(unknown_session)?;
    tracing::info!(session = ended.id, app = ended.app, "the owner ended a session");
    Ok(Json(ended))
}

/// How a session is doing, once a second: events `figures`, then one event `ended` with the reason, and no more.
#[utoipa::path(
    get,
    path = "/sessions/{id}/live",
    tag = "sessions",
    params(("id" = u64, Path, description = "the session")),
    responses(
        (status = 200, body = ServerEvent, content_type = "text/event-stream", description = "server-sent events: `figures` with SessionFigures, `ended` with SessionEnded"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such session, or it has no figures"),
    ),
)]
async fn live(
    Rooms(handles): Rooms,
    place: Place,
    Path(id): Path<String>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let id = session_id(&id)?;
    let sessions = handles.sessions.clone();
    let follower = blocking(move || sessions.follow(id)).await?.ok_or_else(unknown_session)?;
    let following = Following { handles, id, follower, is_over: false };
    let events = futures_util::stream::unfold(following, Following::next);
    Ok(Sse::new(place.follow(events)).keep_alive(KeepAlive::default()))
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
    let id = session_id(&id)?;
    let traces = blocking(move || handles.sessions.traces(id)).await?;
    Ok(Json(traces.into_iter().map(Trace::from).collect()))
}

/// One who follows a session.
struct Following {
    handles: MgmtHandles,
    id: SessionId,
    follower: Follower,
    is_over: bool,
}

impl Following {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if self.is_over {
            return None;
        }
        // A session that had ended before anybody followed it has nothing more to tell than that.
        if self.follower.borrow().ended.is_none() {
            self.wait().await?;
        }
        let live = self.follower.borrow_and_update().clone();
        self.is_over = live.ended.is_some();
        let event = match &live.ended {
            None => event("figures", &SessionFigures::from(&*live)),
            Some(reason) => event("ended", &SessionEnded { reason: reason.to_string() }),
        };
        Some((Ok(event?), self))
    }
}

impl Following {
    /// Until there is news; nothing if there never will be.
    async fn wait(&mut self) -> Option<()> {
        loop {
            match tokio::time::timeout(SILENCE, self.follower.changed()).await {
                Ok(changed) => return changed.ok(),
                Err(_) => {
                    // Looking at the sessions tells the followers of one that ended without a word.
                    let (sessions, id) = (self.handles.sessions.clone(), self.id);
                    blocking(move || drop(sessions.follow(id))).await.ok()?;
                }
            }
        }
    }
}

fn event(name: &str, data: &impl Serialize) -> Option<Event> {
    Event::default().event(name).json_data(data).ok()
}

fn session_id(text: &str) -> Result<SessionId, Problem> {
    text.parse().map(SessionId).map_err(Problem::malformed)
}

fn unknown_session() -> Problem {
    let detail = "no such session runs; the list of sessions says which do";
    Problem::new(StatusCode::NOT_FOUND, "unknown-session", detail)
}

/// The session with its client's name.
fn named(handles: &MgmtHandles, info: SessionInfo) -> Session {
    Session {
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
    }
}
