//! What everybody may know: who this is, how far it is, and whether a client could play. No more, because strangers ask
//! too.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::startup::{self, Startup};
use super::super::wire::{Health, Landing, Stage};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Nothing, routes!(landing)))
        .routes(allow(Need::Nothing, routes!(health)))
}

/// Who this is, and how far it is; answers from the first moment on.
#[utoipa::path(get, path = "/landing", tag = "landing", responses((status = 200, body = Landing)))]
pub(super) async fn landing(State(startup): State<Startup>) -> Json<Landing> {
    let about = startup.known();
    let claimed = about.credentials.claimed();
    Json(Landing {
        product: "punktfunk".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: about.name.clone(),
        claimed: claimed.known(),
        why_unknown: claimed.why_unknown(),
        stage: startup.stage().into(),
        fingerprint: about.fingerprint.clone(),
    })
}

/// Whether a client could play: 200 if so.
#[utoipa::path(
    get,
    path = "/health",
    tag = "landing",
    responses(
        (status = 200, body = Health),
        (status = 503, body = Health, description = "no client could play"),
    ),
)]
async fn health(State(startup): State<Startup>) -> (StatusCode, Json<Health>) {
    let (problems, detail) = match (startup.stage(), startup.handles()) {
        (startup::Stage::Ready, Ok(handles)) => {
            let problems = startup.report(&handles).problems.len();
            if handles.sessions.codecs().is_empty() {
                (problems, "No stream is possible: no encoder works here. The owner can see why.")
            } else if handles.sessions.apps().is_empty() {
                (problems, "No stream is possible: no app can be offered. The owner can see why.")
            } else {
                let detail = "A client can play.".to_owned();
                return (StatusCode::OK, Json(Health { healthy: true, problems, detail }));
            }
        }
        (startup::Stage::Failed { .. }, _) => {
            (1, "The host could not start. Its owner can see why.")
        }
        _ => (0, "The host is starting."),
    };
    let health = Health { healthy: false, problems, detail: detail.to_owned() };
    (StatusCode::SERVICE_UNAVAILABLE, Json(health))
}

impl From<startup::Stage> for Stage {
    fn from(stage: startup::Stage) -> Self {
        match stage {
            startup::Stage::Starting { step, count, doing } => {
                Self::Starting { step, count, doing: doing.to_owned() }
            }
            startup::Stage::Ready => Self::Ready,
            startup::Stage::Failed { reason } => Self::Failed { reason: reason.to_owned() },
        }
    }
}
