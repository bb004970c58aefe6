//! What needs the owner's proof: the factory reset, and going back below the oldest version that is safe.
//!
//! The password comes with the request, also from whoever is logged in: it makes the proof that root's program asks for. A
//! reset also needs somebody at the machine. Who asks first is told so, and asks again when the button was pressed.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Caller, Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Basics, Mending, Startup};
use super::super::wire::{FactoryReset, OsReport, OsRollback, ProblemDetails, ResetBegun};
use super::{Body, blocking, parse, session};
use crate::access::{Access, Deed, RootError, Scope, Wish, WishError};
use crate::os::{Digest, OsError, OsView, PowerVerb, Presence, Verb};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::System), routes!(rollback)))
        .routes(allow(Need::Owner, routes!(factory_reset)))
}

/// Who asks, for the count of wrong passwords.
struct Asking {
    access: Option<Access>,
    caller: Caller,
    own: Option<crate::access::SessionId>,
}

impl Asking {
    fn new(startup: &Startup, caller: Caller, headers: &HeaderMap) -> Self {
        let access = startup.owners();
        let own = access.as_ref().and_then(|access| session::own(access, headers));
        Self { own: own.map(|session| session.id), access, caller }
    }

    /// Whether it only looks so.
    fn prove(&self, deed: Deed, password: &str) -> Result<bool, WishError> {
        let access = self.access.as_ref().ok_or(WishError::NoRoot)?;
        access.prove(&Wish { deed, password, own: self.own, remote: self.caller.remote })
    }
}

/// Restarts into what ran before, or another version on the disk.
///
/// One that is older than the oldest that is safe needs the owner's password, too.
#[utoipa::path(
    post,
    path = "/os/rollback",
    tag = "os",
    request_body = OsRollback,
    responses(
        (status = 202, body = OsReport, description = "planned; it waits, or counts down"),
        (status = 401, body = ProblemDetails, content_type = "application/problem+json", description = "nobody is logged in, the host has no owner yet, or the password is not the owner's"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such version is on the disk"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "there is nothing to go back to, it must not be started, the owner must prove to want it, somebody would be cut off, or something else is being done"),
    ),
)]
async fn rollback(
    Mending(basics): Mending,
    State(startup): State<Startup>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<OsReport>), Problem> {
    let OsRollback { digest, when, insist, password } = parse(body)?;
    let digest = digest.map(|digest| digest.parse()).transpose().map_err(OsError::from)?;
    let asking = Asking::new(&startup, caller, &headers);
    let view = blocking(move || -> Result<OsView, Problem> {
        let verb = |digest, proven| Verb::Rollback { digest, when: when.into(), insist, proven };
        match (basics.os.ask(verb(digest, false)), password) {
            (Err(OsError::BelowFloor { .. }), Some(password)) => {
                let target = below_floor(&basics, digest)?;
                asking.prove(Deed::RollbackBelowFloor { commit: target.0 }, &password.0)?;
                Ok(basics.os.ask(verb(Some(target), true))?)
            }
            (asked, _) => Ok(asked?),
        }
    })
    .await??;
    Ok((StatusCode::ACCEPTED, Json(view.into())))
}

/// Which version is meant, so that the proof is of that one and of no other.
fn below_floor(basics: &Basics, digest: Option<Digest>) -> Result<Digest, OsError> {
    let inventory = basics.os.view().state.inventory;
    let previous = || Some(inventory.as_ref()?.rollback()?.digest);
    digest.or_else(previous).ok_or(OsError::NothingToGoBackTo)
}

/// Makes the box as it was when it was new, at a start that begins now.
///
/// The owner, the devices, the settings, games and what they saved are forgotten; the versions on the disk stay. Somebody
/// must be at the machine: asked without, this answers `needs-presence`. Then press the power button three times and ask
/// again, within ten minutes.
#[utoipa::path(
    post,
    path = "/os/factory-reset",
    tag = "os",
    request_body = FactoryReset,
    responses(
        (status = 202, body = ResetBegun, description = "begun"),
        (status = 401, body = ProblemDetails, content_type = "application/problem+json", description = "nobody is logged in, the host has no owner yet, or the password is not the owner's"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "somebody would be cut off, somebody must be at the machine, or the box's own program does not believe the owner"),
        (status = 500, body = ProblemDetails, content_type = "application/problem+json", description = "it could not be noted, or it is and the machine did not restart"),
    ),
)]
async fn factory_reset(
    Mending(basics): Mending,
    State(startup): State<Startup>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<ResetBegun>), Problem> {
    if let Presence::Absent { reason } = basics.os.presence() {
        return Err(OsError::NotAnAppliance { reason }.into());
    }
    let FactoryReset { password, insist } = parse(body)?;
    let asking = Asking::new(&startup, caller, &headers);
    let simulated = blocking(move || -> Result<bool, Problem> {
        if let Some(reason) = basics.power.unable(PowerVerb::Restart) {
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", reason));
        }
        let who = basics.os.view().streaming;
        if !insist && !who.is_empty() {
            return Err(OsError::SomeoneStreams { who }.into());
        }
        let simulated = asking.prove(Deed::FactoryReset, &password.0)?;
        basics.power.switch(PowerVerb::Restart).map_err(|error| {
            let detail = format!("everything is forgotten at the next start, but {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", detail)
        })?;
        Ok(simulated)
    })
    .await??;
    let detail = if simulated {
        "The simulated machine restarts. This is a demonstration: nothing was forgotten, and nobody had to be at the machine."
    } else {
        "The box restarts and forgets its owner, its devices, its settings, games and what they saved. It then shows a new \
         code, as when it was new."
    };
    Ok((StatusCode::ACCEPTED, Json(ResetBegun { simulated, detail: detail.to_owned() })))
}

impl From<WishError> for Problem {
    fn from(error: WishError) -> Self {
        let (status, code) = match &error {
            WishError::NoRoot | WishError::Root(RootError::Absent) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            WishError::OtherKey | WishError::Root(RootError::NoKey) => {
                (StatusCode::CONFLICT, "no-owner-key")
            }
            WishError::Root(RootError::Presence) => (StatusCode::CONFLICT, "needs-presence"),
            WishError::Root(RootError::Proof | RootError::NotKept) | WishError::Password(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "failed")
            }
        };
        match error {
            WishError::Password(error) => error.into(),
            error => Self::new(status, code, error),
        }
    }
}
