//! How the host is doing.

use axum::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::startup::{Rooms, Startup};
use super::super::wire::StatusReport;
use crate::access::Scope;
pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Scope(Scope::View), routes!(status)))
}

/// How the host is doing.
#[utoipa::path(get, path = "/status", tag = "status", responses((status = 200, body = StatusReport)))]
async fn status(Rooms(handles): Rooms) -> Json<StatusReport> {
    Json((handles.status)())
}
