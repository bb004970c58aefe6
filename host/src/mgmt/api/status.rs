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
use super::super::startup::{Always, Stage, Startup};
use super::super::wire::StatusReport;
use crate::access::{Access, Scope};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Scope(Scope::View), routes!(status)))
}

/// How the host is doing. A host that could not start says why, in whole sentences, with the code `cannot-start`.
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = StatusReport)))]
async fn status(
    always: Always,
    State(startup): State<Startup>,
) -> Result<Json<StatusReport>, Problem> {
    match startup.handles() {
        Ok(handles) => {
            let mut report = (handles.status)();
            report.problems.extend(startup.owners().iter().flat_map(Access::problems));
            Ok(Json(report))
        }
        Err(problem) if matches!(startup.stage(), Stage::Failed { .. }) => {
            Err(problem.with_also(&always.problems.all()))
        }
        Err(problem) => Err(problem),
    }
}
