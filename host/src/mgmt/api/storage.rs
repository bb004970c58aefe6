//! The disks that the product writes to.

use axum::Json;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Always, Startup};
use super::super::wire::{Storage, StorageFolder};
use super::blocking;
use crate::access::Scope;
use crate::machine::storage;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new().routes(allow(Need::Scope(Scope::View), routes!(storage)))
}

/// How much room there is, and what takes it. A folder that is not there yet is left out.
#[utoipa::path(
    get,
    path = "/storage",
    tag = "storage",
    responses((status = 200, body = Storage)),
)]
async fn storage(always: Always) -> Result<Json<Storage>, Problem> {
    let folders = blocking(move || {
        let usages = always.folders.iter().filter_map(|folder| storage::usage(folder).ok());
        usages.map(StorageFolder::from).collect()
    })
    .await?;
    Ok(Json(Storage { folders }))
}
