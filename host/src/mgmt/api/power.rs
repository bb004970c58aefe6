//! The machine's switch. It is asked for who plays first: nobody is cut off unless the caller insists.

use std::sync::Arc;

use axum::Json;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Basics, Mending, Startup};
use super::super::wire::{PowerAbility, PowerReport, PowerSwitch, ProblemDetails};
use super::{Body, blocking, parse};
use crate::access::Scope;
use crate::os::{OsError, Power, PowerVerb};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    let system = Need::Scope(Scope::System);
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(power)))
        .routes(allow(system, routes!(restart)))
        .routes(allow(system, routes!(shutdown)))
        .routes(allow(system, routes!(sleep)))
}

/// What this machine can do.
#[utoipa::path(get, path = "/power", tag = "power", responses((status = 200, body = PowerReport)))]
async fn power(Mending(basics): Mending) -> Result<Json<PowerReport>, Problem> {
    let report = blocking(move || {
        let ability = |verb| ability(&basics.power, verb);
        PowerReport {
            restart: ability(PowerVerb::Restart),
            shutdown: ability(PowerVerb::Shutdown),
            sleep: ability(PowerVerb::Sleep),
            simulated: basics.power.is_simulated(),
            streaming: basics.os.view().streaming,
        }
    })
    .await?;
    Ok(Json(report))
}

/// Starts the machine again.
#[utoipa::path(
    post,
    path = "/power/restart",
    tag = "power",
    request_body = PowerSwitch,
    responses(
        (status = 202, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "somebody would be cut off"),
        (status = 500, body = ProblemDetails, content_type = "application/problem+json", description = "the machine did not"),
    ),
)]
async fn restart(Mending(basics): Mending, body: Body) -> Result<StatusCode, Problem> {
    switch(basics, PowerVerb::Restart, body).await
}

/// Switches the machine off.
#[utoipa::path(
    post,
    path = "/power/shutdown",
    tag = "power",
    request_body = PowerSwitch,
    responses(
        (status = 202, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "somebody would be cut off"),
        (status = 500, body = ProblemDetails, content_type = "application/problem+json", description = "the machine did not"),
    ),
)]
async fn shutdown(Mending(basics): Mending, body: Body) -> Result<StatusCode, Problem> {
    switch(basics, PowerVerb::Shutdown, body).await
}

/// Sends the machine to sleep until it is woken.
#[utoipa::path(
    post,
    path = "/power/sleep",
    tag = "power",
    request_body = PowerSwitch,
    responses(
        (status = 202, description = "begun"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "somebody would be cut off"),
        (status = 500, body = ProblemDetails, content_type = "application/problem+json", description = "the machine did not"),
    ),
)]
async fn sleep(Mending(basics): Mending, body: Body) -> Result<StatusCode, Problem> {
    switch(basics, PowerVerb::Sleep, body).await
}

fn ability(power: &Arc<dyn Power>, verb: PowerVerb) -> PowerAbility {
    let reason = power.unable(verb);
    PowerAbility { available: reason.is_none(), reason }
}

async fn switch(basics: Basics, verb: PowerVerb, body: Body) -> Result<StatusCode, Problem> {
    let PowerSwitch { insist } = parse(body)?;
    blocking(move || -> Result<(), Problem> {
        if let Some(reason) = basics.power.unable(verb) {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason));
        }
        let who = basics.os.view().streaming;
        if !insist && !who.is_empty() {
            return Err(OsError::SomeoneStreams { who }.into());
        }
        Ok(basics.power.switch(verb)?)
    })
    .await??;
    Ok(StatusCode::ACCEPTED)
}
