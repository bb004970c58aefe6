//! What changes, as it changes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::response::sse::{self, Sse};
use futures_util::stream::{Stream, unfold};
use serde::Deserialize;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::feed::{Feed, Numbered};
use super::super::follow::Place;
use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::Startup;
use super::super::wire::{Event, ServerEvent, Topic};
use crate::access::Scope;

/// A follower hears something at least this often.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// As many topics may be named.
const MAX_TOPICS: usize = 16;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Scope(Scope::View), routes!(events)))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct Wanted {
    /// The topics, separated by commas: `stage`, `pairing`, `sessions`, `problems`, `settings`, `clients`, `owner`;
    /// all if left out. Those that this version does not know are passed over.
    topics: Option<String>,
}

/// What changes from now on, as server-sent events: each has a growing `id`, its name as `event`, and an `Event` as
/// `data`. Begins with a comment, after which nothing is missed; so read the state then. A comment comes every 15 seconds.
/// A follower that is too slow is told what it missed (`lagged`) and should read the state again.
#[utoipa::path(
    get,
    path = "/events",
    tag = "events",
    params(Wanted),
    responses((status = 200, body = ServerEvent, content_type = "text/event-stream")),
)]
async fn events(
    State(startup): State<Startup>,
    place: Place,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Problem> {
    let Query(wanted) = wanted.map_err(Problem::malformed)?;
    let topics = wanted.topics.as_deref().map(topics).transpose()?;
    let follower = Follower { events: Feed::follow(&startup), topics, has_begun: false };
    Ok(Sse::new(place.follow(unfold(follower, Follower::next))))
}

/// The topics that this version knows.
fn topics(text: &str) -> Result<Vec<Topic>, Problem> {
    if text.split(',').count() > MAX_TOPICS {
        return Err(Problem::malformed(format!("more than {MAX_TOPICS} topics are named")));
    }
    let known =
        |name: &str| serde_json::from_value(serde_json::Value::String(name.trim().to_owned())).ok();
    Ok(text.split(',').filter_map(known).collect())
}

struct Follower {
    events: broadcast::Receiver<Numbered>,
    /// All if there are none.
    topics: Option<Vec<Topic>>,
    has_begun: bool,
}

impl Follower {
    /// The next thing to tell.
    async fn next(mut self) -> Option<(Result<sse::Event, Infallible>, Self)> {
        let told = if self.has_begun {
            self.wait().await?
        } else {
            self.has_begun = true;
            sse::Event::default().retry(Duration::from_secs(2)).comment("you follow from here")
        };
        Some((Ok(told), self))
    }

    async fn wait(&mut self) -> Option<sse::Event> {
        loop {
            let heard = tokio::time::timeout(HEARTBEAT, self.events.recv()).await;
            return match heard {
                Err(_) => Some(sse::Event::default().comment("still here")),
                Ok(Ok(Numbered { id, event })) if self.wants(&event) => {
                    Some(written(&event).id(id.to_string()))
                }
                Ok(Ok(_)) => continue,
                Ok(Err(RecvError::Lagged(missed))) => Some(written(&Event::Lagged { missed })),
                Ok(Err(RecvError::Closed)) => None,
            };
        }
    }

    fn wants(&self, event: &Event) -> bool {
        match (&self.topics, event.topic()) {
            (Some(topics), Some(topic)) => topics.contains(&topic),
            _ => true,
        }
    }
}

fn written(event: &Event) -> sse::Event {
    // Texts in JSON hold no line breaks, so this is one line of data.
    let data = serde_json::to_string(event).unwrap_or_default();
    sse::Event::default().event(event.name()).data(data)
}
