//! What the owner sets: typed, with ranges, and with the place that says so where the console cannot.
//!
//! These answer also while the host starts or could not: that is when a setting must be mended. What is set then holds
//! when the host starts again, and the answers say so (`takes_effect`, `pending`).

use axum::Json;
use axum::extract::Path;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Basics, Mending, Startup};
use super::super::wire::{ProblemDetails, Setting, SettingChanges};
use super::{Body, blocking, parse};
use crate::access::Scope;
use crate::config::{ConfigDesk, ConfigError, SettingView};
use crate::store::StoreError;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(settings)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(change)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(reset)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(reset_all)))
}

/// All settings.
#[utoipa::path(
    get,
    path = "/settings",
    tag = "settings",
    responses((status = 200, body = Vec<Setting>)),
)]
async fn settings(Mending(basics): Mending) -> Result<Json<Vec<Setting>>, Problem> {
    at_the_desk(basics, |desk| desk.settings()).await
}

/// Sets some: all of them, or none if one cannot be. Answers with all settings as they are then.
#[utoipa::path(
    patch,
    path = "/settings",
    tag = "settings",
    request_body = SettingChanges,
    responses(
        (status = 200, body = Vec<Setting>),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "one is fixed by a file, the environment or the command line, or is not the console's to set"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "one is not known, or its value is out of its range"),
    ),
)]
async fn change(Mending(basics): Mending, body: Body) -> Result<Json<Vec<Setting>>, Problem> {
    let SettingChanges(changes) = parse(body)?;
    at_the_desk(basics, move |desk| desk.change(&changes)).await
}

/// Forgets what was set here for one of them. Answers with all settings as they are then.
#[utoipa::path(
    delete,
    path = "/settings/{key}",
    tag = "settings",
    params(("key" = String, Path, description = "the key of the setting")),
    responses(
        (status = 200, body = Vec<Setting>),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "there is no such setting"),
    ),
)]
async fn reset(
    Mending(basics): Mending,
    Path(key): Path<String>,
) -> Result<Json<Vec<Setting>>, Problem> {
    let known = move |desk: &ConfigDesk| desk.reset(&key);
    at_the_desk(basics, known).await.map_err(|problem| match problem.code() {
        "unknown-setting" => problem.with_status(StatusCode::NOT_FOUND),
        _ => problem,
    })
}

/// Forgets all that was set here; apps stay. Answers with all settings as they are then.
#[utoipa::path(
    post,
    path = "/settings/reset",
    tag = "settings",
    responses((status = 200, body = Vec<Setting>)),
)]
async fn reset_all(Mending(basics): Mending) -> Result<Json<Vec<Setting>>, Problem> {
    at_the_desk(basics, |desk| desk.reset_all()).await
}

async fn at_the_desk(
    basics: Basics,
    act: impl FnOnce(&ConfigDesk) -> Result<Vec<SettingView>, ConfigError> + Send + 'static,
) -> Result<Json<Vec<Setting>>, Problem> {
    let views = blocking(move || act(&basics.settings)).await??;
    Ok(Json(views.into_iter().map(Setting::from).collect()))
}

impl From<ConfigError> for Problem {
    fn from(error: ConfigError) -> Self {
        let (status, code) = match error {
            ConfigError::Store(StoreError::TooMuchArt { .. }) => {
                (StatusCode::CONFLICT, "too-much-art")
            }
            ConfigError::Store(error) => return error.into(),
            ConfigError::NoStore(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            ConfigError::UnknownSetting { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "unknown-setting")
            }
            ConfigError::OutOfRange { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "out-of-range"),
            ConfigError::UnfitApp(_) => (StatusCode::UNPROCESSABLE_ENTITY, "unfit-app"),
            ConfigError::NotSettable { .. } => (StatusCode::CONFLICT, "not-settable"),
            ConfigError::Fixed { .. } => (StatusCode::CONFLICT, "fixed-by-file"),
            ConfigError::TooManyApps => (StatusCode::CONFLICT, "too-many-apps"),
            ConfigError::UnknownApp { .. } => (StatusCode::NOT_FOUND, "unknown-app"),
        };
        Self::new(status, code, error)
    }
}
