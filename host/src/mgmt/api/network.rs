//! The network as it is. Setting it up needs a part with the right to do so, which this host does not have.

use std::path::Path;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Always, Startup};
use super::super::wire::Network;
use super::blocking;
use crate::access::{AccessError, Scope};
use crate::machine::network::{self, Addresses};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(network)))
        .routes(allow(Need::Scope(Scope::System), routes!(scan)))
        .routes(allow(Need::Scope(Scope::System), routes!(join)))
}

/// Which interfaces there are, what is plugged in, where the way out is, and which network was prepared and waits.
#[utoipa::path(
    get,
    path = "/network",
    tag = "network",
    responses((status = 200, body = Network)),
)]
async fn network(always: Always, State(startup): State<Startup>) -> Result<Json<Network>, Problem> {
    let access = startup.owners();
    let read = move || {
        let prepared = access.map_or(Ok(None), |access| access.prepared_network())?;
        let network = network::network(Path::new("/"), &Addresses::of_this_machine());
        Ok::<_, AccessError>((network, prepared.map(|prepared| prepared.ssid)))
    };
    let (network, prepared) = blocking(read).await??;
    Ok(Json(Network::of(network, always.local_name.newest(), prepared)))
}

/// Looks for Wi-Fi networks. Not available in this version: code `unavailable`.
#[utoipa::path(post, path = "/network/wifi/scan", tag = "network", responses())]
async fn scan(always: Always) -> Problem {
    unavailable(&always)
}

/// Joins a Wi-Fi network. Not available in this version: code `unavailable`.
#[utoipa::path(put, path = "/network/wifi", tag = "network", responses())]
async fn join(always: Always) -> Problem {
    unavailable(&always)
}

fn unavailable(always: &Always) -> Problem {
    let detail = if always.appliance {
        "this version of punktfunk cannot set up Wi-Fi on this box; plug in a network cable"
    } else {
        "this machine is not an appliance: its network is set up with its own system's settings, not from here"
    };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
}
