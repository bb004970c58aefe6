//! The API's own document: the committed one, which a test holds to the handlers. To write it anew for each caller would
//! be work that strangers can ask for.

use axum::http::header;
use axum::response::IntoResponse;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::startup::Startup;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    // It lies in the source for everybody, and says nothing about this host but its version.
    OpenApiRouter::new().routes(allow(Need::Claimed, routes!(openapi)))
}

/// This document, in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "openapi",
    responses((status = 200, body = serde_json::Value, description = "the document")),
)]
async fn openapi() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], include_str!("../../../openapi.json"))
}
