//! The pairing desk.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::Query;
use axum::extract::rejection::QueryRejection;
use axum::http::StatusCode;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use axum::{Extension, Json};
use futures_util::Stream;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::follow::Place;
use super::super::guard::{Caller, Need, Standing, Who, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{Answer, Arm, Decline, Pairing, ProblemDetails, Request, ServerEvent};
use super::{Body, parse};
use crate::access::Scope;
use crate::pairing::{AnswerPin, DEFAULT_WINDOW, PairingDesk, RequestId};
use crate::store::clean_name;

/// The longest a caller may wait for news, in seconds.
const MAX_WAIT_SECONDS: u64 = 60;
/// How often the desk is looked at for followers: requests and windows end by themselves.
const LOOK_AFTER: Duration = Duration::from_secs(1);

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(pairing)))
        .routes(allow(Need::Scope(Scope::View), routes!(events)))
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
    Extension(standing): Extension<Standing>,
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
    // Its login may have ended while it waited.
    standing.check()?;
    Ok(Json(snapshot.into()))
}

/// The desk now, and then each time it changes: events `pairing`.
#[utoipa::path(
    get,
    path = "/pairing/events",
    tag = "pairing",
    responses((status = 200, body = ServerEvent, content_type = "text/event-stream", description = "server-sent events: `pairing` with Pairing")),
)]
async fn events(
    Rooms(handles): Rooms,
    place: Place,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let listener = (handles.desk, None);
    let events = place.follow(futures_util::stream::unfold(listener, next_event));
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Waits for a revision that was not told yet.
async fn next_event(
    (desk, told): (PairingDesk, Option<u64>),
) -> Option<(Result<Event, Infallible>, (PairingDesk, Option<u64>))> {
    let snapshot = match told {
        None => desk.snapshot(),
        Some(told) => loop {
            match tokio::time::timeout(LOOK_AFTER, desk.changed_since(told)).await {
                Ok(snapshot) => break snapshot,
                // Looking at the desk is what lets go of what is over.
                Err(_) => drop(desk.snapshot()),
            }
        },
    };
    let told = Some(snapshot.revision);
    let event = Event::default().event("pairing").json_data(Pairing::from(snapshot)).ok()?;
    Some((Ok(event), (desk, told)))
}

/// Gives the PIN that a device shows to its request. Stock clients all send the same name; such a device needs one from
/// the owner, but over the local socket, where it is called by its address.
#[utoipa::path(
    post,
    path = "/pairing/answer",
    tag = "pairing",
    request_body = Answer,
    responses(
        (status = 200, body = Request),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such request waits"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "none waits, or several do"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "that is not a PIN, or the device has no name and gets none"),
    ),
)]
async fn answer(
    Rooms(handles): Rooms,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<Request>, Problem> {
    let answer: Answer = parse(body)?;
    let pin = answer.pin.0.parse()?;
    let mut request = answer.request.map(RequestId);
    let is_named = answer.name.as_deref().is_some_and(|name| clean_name(name).is_some());
    // Whoever types at a terminal is not asked twice: its device is called by its address, and may be renamed.
    if !is_named && !matches!(caller.who, Who::Local { .. }) {
        let pending = handles.desk.pending();
        let only = if pending.len() == 1 { pending.first() } else { None };
        let chosen = match request {
            Some(id) => pending.iter().find(|pending| pending.id == id),
            None => only,
        };
        if let Some(chosen) = chosen {
            name_it(chosen.is_named)?;
            // What was looked at is what gets the PIN.
            request = Some(chosen.id);
        }
    }
    let request = handles.desk.answer(AnswerPin { request, pin, name: answer.name })?;
    Ok(Json(Request::at(&request, handles.desk.snapshot().at)))
}

fn name_it(is_named: bool) -> Result<(), Problem> {
    if is_named {
        return Ok(());
    }
    let detail = "this device did not say what it is called, as most do not; give it a name with the PIN, so \
                  that you know it again";
    Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "name-needed", detail))
}

/// Turns a request away. Its address and its certificate may not ask again for ten minutes, or until pairing is armed.
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::sync::Arc;

    use punktfunk_core::media::Codec;

    use super::*;
    use crate::agent::{Local, ProfileNumber};
    use crate::encode::x264::X264Backend;
    use crate::mgmt::patience::Stays;
    use crate::mgmt::{Claimed, MgmtHandles};
    use crate::pairing::{Asking, DeskMode, DeskOptions};
    use crate::session::{SessionOptions, Sessions, Sounds};
    use crate::store::{ClientId, Store};

    fn handles(folder: &Path, desk: PairingDesk) -> MgmtHandles {
        let sessions = Sessions::new(SessionOptions {
            apps: vec![],
            displays: BTreeMap::new(),
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 1,
            agents: Arc::new(Local::new(folder.join("sessions"), None)),
            profile: Box::new(|_| Ok(ProfileNumber(0))),
        });
        let store = Store::open(&folder.join("state")).unwrap();
        MgmtHandles::bare(desk, store, Arc::new(sessions))
    }

    #[test]
    fn whoever_may_not_ask_any_more_waits_in_vain() {
        let folder = tempfile::tempdir().unwrap();
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Prompt));
        let handles = handles(folder.path(), desk.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let wait = |is_logged_in: bool| {
            let wait = Query(Wait { after: Some(desk.snapshot().revision), wait_s: Some(0) });
            let standing = Standing::new(Stays::default(), move || is_logged_in);
            let told = pairing(Rooms(handles.clone()), Extension(standing), Ok(wait));
            runtime.block_on(told).map(drop).map_err(|problem| problem.code())
        };
        assert_eq!(wait(true), Ok(()));
        assert_eq!(wait(false), Err("login-needed"));
    }

    #[test]
    fn a_device_without_a_name_gets_one_in_the_console_and_needs_none_at_a_terminal() {
        let folder = tempfile::tempdir().unwrap();
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Prompt));
        let handles = handles(folder.path(), desk.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let try_it = |who: Who, own_name: &str, body: &'static str| {
            let _wait = desk
                .ask(Asking {
                    unique_id: "x".to_owned(),
                    remote: [10, 0, 0, 5].into(),
                    device_name: own_name.to_owned(),
                    client: ClientId([9; 32]),
                })
                .unwrap();
            let caller = Caller { who, remote: None, claimed: Claimed::Yes };
            let body = Ok(body.as_bytes().into());
            let answered = answer(Rooms(handles.clone()), Extension(caller), body);
            let name = runtime.block_on(answered).map(|Json(request)| request.device_name);
            name.map_err(|problem| format!("{problem:?}"))
        };
        let refused = try_it(Who::Owner, "roth", r#"{"pin":"1234"}"#).unwrap_err();
        assert!(refused.contains("name-needed"), "{refused}");
        let refused = try_it(Who::Owner, "roth", r#"{"pin":"1234","name":" "}"#).unwrap_err();
        assert!(refused.contains("name-needed"), "{refused}");
        let named = try_it(Who::Owner, "roth", r#"{"pin":"1234","name":"Sofa"}"#);
        assert_eq!(named.as_deref(), Ok("Sofa"));
        assert_eq!(try_it(Who::Owner, "Deck", r#"{"pin":"1234"}"#).as_deref(), Ok("Deck"));
        let local = Who::Local { uid: 0 };
        assert_eq!(try_it(local, "roth", r#"{"pin":"1234"}"#).as_deref(), Ok("10.0.0.5"));
    }
}
