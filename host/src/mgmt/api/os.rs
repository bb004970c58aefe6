//! Updates: what runs, what can be had, and the way from one to the other and back.
//!
//! What takes time is begun by a call and followed by `GET /os/events`; `GET /os` says at every moment how far it is. On
//! a machine that is no appliance, `GET /os` says so and the calls answer 503 `unavailable`. What needs the owner's proof is
//! in [`proof`](super::proof).

use std::convert::Infallible;

use axum::Json;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::follow::Place;
use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Basics, Mending, Startup};
use super::super::wire::{
    OsApply, OsFollow, OsNews, OsPast, OsReport, OsTake, OsWhich, ProblemDetails, ServerEvent,
};
use super::{Body, blocking, parse};
use crate::access::Scope;
use crate::os::{Digest, Notice, OsDesk, OsError, Presence, Verb};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    let view = Need::Scope(Scope::View);
    let system = Need::Scope(Scope::System);
    OpenApiRouter::new()
        .routes(allow(view, routes!(os)))
        .routes(allow(view, routes!(history)))
        .routes(allow(view, routes!(events)))
        .routes(allow(system, routes!(check)))
        .routes(allow(system, routes!(download)))
        .routes(allow(system, routes!(cancel_download)))
        .routes(allow(system, routes!(stage)))
        .routes(allow(system, routes!(apply)))
        .routes(allow(system, routes!(cancel)))
        .routes(allow(system, routes!(pin)))
        .routes(allow(system, routes!(unpin)))
        .routes(allow(system, routes!(channel)))
        .routes(allow(system, routes!(dismiss)))
}

/// What runs, what can be had, and what is being done.
#[utoipa::path(get, path = "/os", tag = "os", responses((status = 200, body = OsReport)))]
async fn os(Mending(basics): Mending) -> Result<Json<OsReport>, Problem> {
    let view = blocking(move || basics.os.view()).await?;
    Ok(Json(view.into()))
}

/// What happened, oldest first; at most 200 lines.
#[utoipa::path(get, path = "/os/history", tag = "os", responses((status = 200, body = Vec<OsPast>)))]
async fn history(Mending(basics): Mending) -> Result<Json<Vec<OsPast>>, Problem> {
    let lines = blocking(move || {
        let simulated = is_simulated(&basics.os);
        basics.os.history().into_iter().map(|past| OsPast::of(past, simulated)).collect()
    })
    .await?;
    Ok(Json(lines))
}

/// Follows updates as server-sent events.
///
/// The first event, and one after each change, is `update.state` with what `GET /os` answers. The others are
/// `update.progress`, `update.countdown`, `update.staged`, `update.applied` and `update.rolled_back`, each with its
/// `reason`.
#[utoipa::path(
    get,
    path = "/os/events",
    tag = "os",
    responses((status = 200, body = ServerEvent, content_type = "text/event-stream", description = "events until the caller leaves")),
)]
async fn events(
    Mending(basics): Mending,
    place: Place,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let news = Follower { news: basics.os.subscribe(), desk: basics.os, begun: false };
    let events = place.follow(unfold(news, Follower::next));
    Sse::new(events).keep_alive(KeepAlive::default())
}

/// Looks for updates.
#[utoipa::path(
    post,
    path = "/os/check",
    tag = "os",
    responses(
        (status = 202, body = OsReport, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "something else is being done"),
    ),
)]
async fn check(Mending(basics): Mending) -> Answer {
    ask(basics, Verb::Check).await
}

/// Fetches the update that is offered; what was fetched of it before is not fetched again.
#[utoipa::path(
    post,
    path = "/os/download",
    tag = "os",
    request_body = OsTake,
    responses(
        (status = 202, body = OsReport, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "nothing is offered, it must not be installed, it does not fit, or something else is being done"),
    ),
)]
async fn download(Mending(basics): Mending, body: Body) -> Answer {
    let OsTake { insist } = parse(body)?;
    ask(basics, Verb::Download { insist }).await
}

/// Stops fetching; what came is kept.
#[utoipa::path(
    post,
    path = "/os/download/cancel",
    tag = "os",
    responses(
        (status = 202, body = OsReport, description = "it will stop"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "nothing is being downloaded"),
    ),
)]
async fn cancel_download(Mending(basics): Mending) -> Answer {
    ask(basics, Verb::StopDownload).await
}

/// Prepares what was fetched, beside what runs.
#[utoipa::path(
    post,
    path = "/os/stage",
    tag = "os",
    request_body = OsTake,
    responses(
        (status = 202, body = OsReport, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "nothing is downloaded, it must not be installed, or something else is being done"),
    ),
)]
async fn stage(Mending(basics): Mending, body: Body) -> Answer {
    let OsTake { insist } = parse(body)?;
    ask(basics, Verb::Stage { insist }).await
}

/// Restarts into what is staged: when nobody plays, or now.
#[utoipa::path(
    post,
    path = "/os/apply",
    tag = "os",
    request_body = OsApply,
    responses(
        (status = 202, body = OsReport, description = "planned; it waits, or counts down"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "nothing is staged, somebody would be cut off, or something else is being done"),
    ),
)]
async fn apply(Mending(basics): Mending, body: Body) -> Answer {
    let OsApply { when, insist } = parse(body)?;
    ask(basics, Verb::Apply { when: when.into(), insist }).await
}

/// Does not restart after all; what is staged stays so.
#[utoipa::path(
    post,
    path = "/os/apply/cancel",
    tag = "os",
    responses(
        (status = 202, body = OsReport, description = "cancelled"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "no restart is planned, or it has begun"),
    ),
)]
async fn cancel(Mending(basics): Mending) -> Answer {
    ask(basics, Verb::Cancel).await
}

/// Keeps a version until it is unpinned.
#[utoipa::path(
    post,
    path = "/os/pin",
    tag = "os",
    request_body = OsWhich,
    responses(
        (status = 202, body = OsReport, description = "begun"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such version is on the disk"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "too many are pinned, or something else is being done"),
    ),
)]
async fn pin(Mending(basics): Mending, body: Body) -> Answer {
    ask(basics, Verb::Pin(which(body)?)).await
}

/// Keeps a version no longer than it is needed.
#[utoipa::path(
    post,
    path = "/os/unpin",
    tag = "os",
    request_body = OsWhich,
    responses(
        (status = 202, body = OsReport, description = "begun"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such version is on the disk"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "something else is being done"),
    ),
)]
async fn unpin(Mending(basics): Mending, body: Body) -> Answer {
    ask(basics, Verb::Unpin(which(body)?)).await
}

/// Looks for updates elsewhere from now on; what was offered from where they came before is forgotten.
#[utoipa::path(
    put,
    path = "/os/channel",
    tag = "os",
    request_body = OsFollow,
    responses(
        (status = 202, body = OsReport, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "something else is being done"),
    ),
)]
async fn channel(Mending(basics): Mending, body: Body) -> Answer {
    let OsFollow { channel } = parse(body)?;
    ask(basics, Verb::Follow(channel.into())).await
}

/// The news and the problem were read.
#[utoipa::path(
    post,
    path = "/os/dismiss",
    tag = "os",
    responses((status = 202, body = OsReport, description = "they are gone")),
)]
async fn dismiss(Mending(basics): Mending) -> Answer {
    ask(basics, Verb::Dismiss).await
}

type Answer = Result<(axum::http::StatusCode, Json<OsReport>), Problem>;

async fn ask(basics: Basics, verb: Verb) -> Answer {
    let view = blocking(move || basics.os.ask(verb)).await??;
    Ok((axum::http::StatusCode::ACCEPTED, Json(view.into())))
}

fn which(body: Body) -> Result<Digest, Problem> {
    let OsWhich { digest } = parse(body)?;
    Ok(digest.parse().map_err(OsError::from)?)
}

fn is_simulated(desk: &OsDesk) -> bool {
    desk.presence() == Presence::Appliance { simulated: true }
}

/// Somebody who follows.
struct Follower {
    desk: OsDesk,
    news: broadcast::Receiver<Notice>,
    begun: bool,
}

impl Follower {
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Self)> {
        if !self.begun {
            self.begun = true;
            return Some((Ok(self.state().await), self));
        }
        let event = match self.news.recv().await {
            // Whoever missed something needs to know how it stands, as after a change.
            Ok(Notice::Changed) | Err(RecvError::Lagged(_)) => self.state().await,
            Ok(notice) => {
                let (name, news) = OsNews::of(notice, is_simulated(&self.desk));
                event(name, &news)
            }
            Err(RecvError::Closed) => return None,
        };
        Some((Ok(event), self))
    }

    async fn state(&self) -> Event {
        let desk = self.desk.clone();
        match blocking(move || desk.view()).await {
            Ok(view) => event("update.state", &OsReport::from(view)),
            Err(_) => Event::default().comment("the host stops"),
        }
    }
}

fn event(name: &str, data: &impl serde::Serialize) -> Event {
    // Our own types are always JSON.
    Event::default().event(name).data(serde_json::to_string(data).unwrap_or_default())
}
