//! The log: read, followed, and packed up for whoever is to help.
//!
//! These answer also while the host starts or could not: that is when they are wanted.

use std::convert::Infallible;
use std::path::Path;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::bundle::{self, Contents};
use super::super::follow::Place;
use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Always, Mending, Rooms, Startup};
use super::super::wire::{LogGap, LogLevel, LogRecord, Logs, ServerEvent};
use super::blocking;
use crate::access::Scope;
use crate::config;
use crate::logbook::{self, Filter, Followed};
use crate::machine::network::{self, Addresses};
use crate::machine::{facts, storage};
use crate::store::Store;

/// As many records as one answer has at most, and has if nobody says.
const MAX_LIMIT: usize = 1000;
const DEFAULT_LIMIT: usize = 200;
/// The longest text or target to look for, in characters.
const MAX_TEXT_CHARS: usize = 128;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(logs)))
        .routes(allow(Need::Scope(Scope::View), routes!(follow)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(bundle)))
}

/// What records must be like.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Like {
    /// At least as serious as this.
    #[param(inline)]
    level: Option<LogLevel>,
    /// Of this part of the host, as `punktfunk_host::stream`.
    #[param(max_length = 128)]
    target: Option<String>,
    /// About this session.
    session: Option<u64>,
    /// With this text in the message or in a value; upper and lower case are the same.
    #[param(max_length = 128)]
    text: Option<String>,
}

impl Like {
    fn filter(self) -> Result<Filter, Problem> {
        for text in [&self.target, &self.text].into_iter().flatten() {
            if text.chars().count() > MAX_TEXT_CHARS {
                let detail = format!("a text to look for has at most {MAX_TEXT_CHARS} characters");
                return Err(Problem::malformed(detail));
            }
        }
        let Self { level, target, session, text } = self;
        let target = target.filter(|target| !target.is_empty());
        let filter = Filter { level: level.map(Into::into), target, session, ..Filter::default() };
        Ok(filter.with_text(text.as_deref()))
    }
}

/// Which part of the log.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Part {
    /// Only records older than the one with this number: the newest of them.
    before: Option<u64>,
    /// Only records newer than the one with this number: without `before`, the oldest of them.
    after: Option<u64>,
    /// As many records at most; 200 if left out.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// The newest log records that are like this, oldest first.
///
/// The host keeps some thousands of them in memory, since it started. What looks like a secret is struck out.
#[utoipa::path(
    get,
    path = "/logs",
    tag = "logs",
    params(Like, Part),
    responses((status = 200, body = Logs)),
)]
async fn logs(
    always: Always,
    like: Result<Query<Like>, QueryRejection>,
    part: Result<Query<Part>, QueryRejection>,
) -> Result<Json<Logs>, Problem> {
    let filter = like.map_err(Problem::malformed)?.0.filter()?;
    let Query(part) = part.map_err(Problem::malformed)?;
    let limit = part.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::malformed(format!("limit must be in 1..={MAX_LIMIT}, not {limit}")));
    }
    let query = logbook::Query { filter, before: part.before, after: part.after, limit };
    let page = blocking(move || always.logbook.read(&query)).await?;
    Ok(Json(page.into()))
}

/// Where to begin.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Since {
    /// Begin with the records after this number, as far as they are still kept. The header `Last-Event-ID`, which
    /// browsers send when they come back, says the same and wins.
    after: Option<u64>,
}

/// Log records as they are written, as server-sent events.
///
/// The event `record` has a `LogRecord` as its data and the record's number as its id; `gap` has a `LogGap` and says how
/// many records a slow follower missed. Whoever comes back after a break names the last id.
#[utoipa::path(
    get,
    path = "/logs/follow",
    tag = "logs",
    params(Like, Since),
    responses((status = 200, body = ServerEvent, content_type = "text/event-stream")),
)]
async fn follow(
    always: Always,
    place: Place,
    headers: HeaderMap,
    like: Result<Query<Like>, QueryRejection>,
    since: Result<Query<Since>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let filter = like.map_err(Problem::malformed)?.0.filter()?;
    let Query(since) = since.map_err(Problem::malformed)?;
    let came_back = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let follower = always.logbook.follow(filter, came_back.or(since.after));
    let events = unfold(follower, |mut follower| async {
        let event = told(&follower.next().await?);
        Some((Ok(event), follower))
    });
    Ok(Sse::new(place.follow(events)).keep_alive(KeepAlive::default()))
}

fn told(followed: &Followed) -> Event {
    let told = match followed {
        Followed::Record(record) => Event::default()
            .event("record")
            .id(record.sequence.to_string())
            .json_data(LogRecord::from(record)),
        Followed::Missed(missed) => {
            Event::default().event("gap").json_data(LogGap { missed: *missed })
        }
    };
    // Texts and numbers are always JSON.
    told.unwrap_or_default()
}

/// Everything that whoever helps needs to know, as a tar archive; its README says what is in it and what is not.
#[utoipa::path(
    get,
    path = "/logs/bundle",
    tag = "logs",
    responses((
        status = 200,
        body = Vec<u8>,
        content_type = "application/x-tar",
        headers(("content-disposition" = String, description = "the name to save it under")),
    )),
)]
async fn bundle(
    State(startup): State<Startup>,
    always: Always,
    rooms: Result<Rooms, Problem>,
    basics: Result<Mending, Problem>,
) -> Result<impl IntoResponse, Problem> {
    let collect = move || {
        let (basics, about) = (basics.ok().map(|Mending(basics)| basics), startup.known());
        let store = basics.as_ref().and_then(|basics| basics.store.as_ref());
        let clients = store.map(Store::clients).unwrap_or_default();
        let all = logbook::Query { limit: usize::MAX, ..logbook::Query::default() };
        bundle::pack(&Contents {
            status: match rooms {
                Ok(Rooms(handles)) => Ok(startup.report(&handles)),
                Err(problem) => Err(problem.with_also(&startup.also_wrong()).detail().to_owned()),
            },
            findings: basics.as_ref().map(|basics| basics.examiner.findings()).unwrap_or_default(),
            host_names: [Some(about.name.clone()), facts::machine_name(Path::new("/"))]
                .into_iter()
                .flatten()
                .collect(),
            device_names: clients.into_iter().map(|client| client.name).collect(),
            settings: match &basics {
                Some(basics) => config::in_force(&basics.settings.held().config),
                None => always.settings.to_string(),
            },
            log: always.logbook.read(&all).records,
            troubles: always.logbook.troubles(),
            facts: facts::facts(Path::new("/")),
            network: network::network(Path::new("/"), &Addresses::of_this_machine()),
            storage: (always.folders.iter())
                .filter_map(|folder| storage::usage(folder).ok())
                .collect(),
        })
    };
    let archive = blocking(collect).await?.map_err(Problem::bug)?;
    let headers = [
        (header::CONTENT_TYPE, "application/x-tar"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"punktfunk-support.tar\""),
    ];
    Ok((headers, archive))
}
