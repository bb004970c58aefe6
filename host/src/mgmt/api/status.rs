//! How the host is doing.
//!
//! A host that could not be put together has no status; whoever asks is told the whole reason instead, and what else is
//! wrong.

use axum::Json;
use axum::extract::State;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Stage, Startup};
use super::super::wire::StatusReport;
use crate::access::Scope;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Scope(Scope::View), routes!(status)))
}

/// How the host is doing. A host that could not start says why, in whole sentences, with the code `cannot-start`.
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = StatusReport)))]
async fn status(State(startup): State<Startup>) -> Result<Json<StatusReport>, Problem> {
    match startup.handles() {
        Ok(handles) => Ok(Json(startup.report(&handles))),
        Err(problem) if matches!(startup.stage(), Stage::Failed { .. }) => {
            Err(problem.with_also(&startup.also_wrong()))
        }
        Err(problem) => Err(problem),
    }
}
