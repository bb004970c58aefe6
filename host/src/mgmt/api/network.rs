//! The network as it is. Setting it up needs a part with the right to do so, which this host does not have.

use std::path::Path;

use axum::Json;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Always, Startup};
use super::super::wire::Network;
use super::blocking;
use crate::access::Scope;
use crate::machine::network::{self, Addresses};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(network)))
        .routes(allow(Need::Scope(Scope::System), routes!(scan)))
        .routes(allow(Need::Scope(Scope::System), routes!(join)))
}

/// Which interfaces there are, what is plugged in, and where the way out is.
#[utoipa::path(
    get,
    path = "/network",
    tag = "network",
    responses((status = 200, body = Network)),
)]
async fn network(always: Always) -> Result<Json<Network>, Problem> {
    let read = || network::network(Path::new("/"), &Addresses::of_this_machine());
    let network = blocking(read).await?;
    Ok(Json(Network::of(network, always.local_name.get().cloned())))
}

/// Looks for Wi-Fi networks. Not available in this version: code `unavailable`.
#[utoipa::path(post, path = "/network/wifi/scan", tag = "network", responses())]
async fn scan() -> Problem {
    unavailable()
}

/// Joins a Wi-Fi network. Not available in this version: code `unavailable`.
#[utoipa::path(put, path = "/network/wifi", tag = "network", responses())]
async fn join() -> Problem {
    unavailable()
}

fn unavailable() -> Problem {
    let detail = "this host cannot set up Wi-Fi: it runs on a system whose network is set up elsewhere; plug in a \
                  network cable, or use that system's own settings";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
}
