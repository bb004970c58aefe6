//! The doctor's checks. They are made also for a host that could not be put together.

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Mending, Startup};
use super::super::wire::ProblemDetails;
use super::blocking;
use crate::access::Scope;
use crate::health::{self, Finding};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(checks)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(examine)))
}

/// The names of the checks, in the order in which to make them.
#[utoipa::path(
    get,
    path = "/doctor",
    tag = "doctor",
    responses((status = 200, body = Vec<String>)),
)]
async fn checks() -> Json<Vec<String>> {
    Json(health::checks().into_iter().map(|check| check.name).collect())
}

/// Makes one check, in a process of its own; takes as long as it takes, and others wait for it.
#[utoipa::path(
    post,
    path = "/doctor/{check}",
    tag = "doctor",
    params(("check" = String, Path, description = "the name of the check")),
    responses(
        (status = 200, body = Finding),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "there is no such check"),
    ),
)]
async fn examine(
    Mending(basics): Mending,
    Path(name): Path<String>,
) -> Result<Json<Finding>, Problem> {
    let Some(check) = health::checks().into_iter().find(|check| check.name == name) else {
        let detail = format!("there is no check \"{name}\"");
        return Err(Problem::new(StatusCode::NOT_FOUND, "unknown-check", detail));
    };
    let found = blocking(move || basics.examiner.examine(&check)).await?;
    found.map(Json).map_err(Problem::bug)
}
