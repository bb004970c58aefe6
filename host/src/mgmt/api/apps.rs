//! What can be played: the list, the owner's own apps, and their pictures.
//!
//! A change is offered to devices at once, as soon as they ask for the list again; whoever plays plays on.

use aws_lc_rs::digest;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Caller, Need, Who, allow};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{self, AppDefinition, ProblemDetails};
use super::{Body, blocking, parse, sized, whole};
use crate::access::Scope;
use crate::config::{AppConfig, ConfigDesk, ConfigError, Held};
use crate::session::apps::{AppSpec, app_id, of_config};
use crate::session::art::{self, MAX_ART_BYTES};
use crate::session::{App, AppId};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Scope(Scope::View), routes!(apps)))
        .routes(allow(Need::Owner, routes!(put_app)))
        .routes(allow(Need::Scope(Scope::Manage), routes!(remove_app)))
        .routes(allow(Need::Scope(Scope::View), routes!(picture)))
        .routes(sized(MAX_ART_BYTES, allow(Need::Scope(Scope::Manage), routes!(put_picture))))
}

/// The apps, also those that are not offered. What their programs are called with is told to the owner alone.
#[utoipa::path(get, path = "/apps", tag = "apps", responses((status = 200, body = Vec<wire::App>)))]
async fn apps(
    Rooms(handles): Rooms,
    Extension(caller): Extension<Caller>,
) -> Result<Json<Vec<wire::App>>, Problem> {
    let held = blocking(move || handles.settings.held()).await?;
    let mut apps = list(&held);
    // Arguments may hold what is nobody else's to read.
    if !matches!(caller.who, Who::Owner | Who::Local { .. }) {
        apps.iter_mut().for_each(|app| app.commands.clear());
    }
    Ok(Json(apps))
}

/// Adds an app, or replaces the one of this title, which keeps its picture. Its programs run as the user of the device
/// that plays it, or as the host's own user where sessions are not isolated; so only the owner in person may.
#[utoipa::path(
    put,
    path = "/apps/{title}",
    tag = "apps",
    params(("title" = String, Path, description = "its title, of 1 to 64 characters")),
    request_body = AppDefinition,
    responses(
        (status = 200, body = wire::App),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "a file says what is under this title, the title makes the number of another app, or there are too many"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "it cannot be an app"),
    ),
)]
async fn put_app(
    Rooms(handles): Rooms,
    Path(title): Path<String>,
    body: Body,
) -> Result<Json<wire::App>, Problem> {
    let AppDefinition { display, commands } = parse(body)?;
    let app =
        AppConfig::new(Some(&title), display, commands, None).map_err(ConfigError::UnfitApp)?;
    if app.title != title {
        let detail = format!(
            "the title has spaces at its ends, or characters that cannot be shown; \"{}\" would do",
            app.title
        );
        return Err(ConfigError::UnfitApp(detail).into());
    }
    let listed = blocking(move || {
        let desk = &handles.settings;
        let id = app_id(&app.title);
        let taken = of_config(&desk.held().config)
            .into_iter()
            .find(|other| other.title != app.title && app_id(&other.title) == id);
        if let Some(other) = taken {
            let detail = format!(
                "devices could not tell this title from \"{}\", because both make the number {}; choose another",
                other.title, id.0
            );
            return Err(Problem::new(StatusCode::CONFLICT, "title-taken", detail));
        }
        desk.put_app(&app)?;
        entry(desk, id)
    })
    .await??;
    Ok(Json(listed))
}

/// Removes an app that was added here. Whoever plays it plays on.
#[utoipa::path(
    delete,
    path = "/apps/{title}",
    tag = "apps",
    params(("title" = String, Path, description = "its title")),
    responses(
        (status = 204, description = "it is gone"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such app was added here"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "a file says that it is there"),
    ),
)]
async fn remove_app(
    Rooms(handles): Rooms,
    Path(title): Path<String>,
) -> Result<StatusCode, Problem> {
    blocking(move || handles.settings.remove_app(&title)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// An app's picture: its own, or one of the host's.
#[utoipa::path(
    get,
    path = "/apps/{id}/art",
    tag = "apps",
    params(("id" = u32, Path, description = "the app's number")),
    responses(
        (status = 200, body = Vec<u8>, content_type = "image/png", headers(("etag" = String, description = "changes with the picture"))),
        (status = 304, description = "it is the one that `if-none-match` names"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "there is no such app"),
    ),
)]
async fn picture(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = number(&id)?;
    let picture = blocking(move || {
        let AppSpec { title, display, commands, art } = spec(&handles.settings, id)?;
        let app = App { id, title, display, commands, art };
        Ok::<Bytes, Problem>(art::of(Some(&app), &handles.store))
    })
    .await??;
    let digest = digest::digest(&digest::SHA256, &picture);
    let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{hex}\"");
    let asked = headers.get(header::IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let is_known = asked.is_some_and(|list| list.split(',').any(|one| one.trim() == etag));
    // It may only be shown to who may look; and it is looked at as what it is, also when it comes from a file.
    let common = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, "private, no-cache".to_owned()),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    Ok((common, [(header::CONTENT_TYPE, "image/png")], picture).into_response())
}

/// Gives an app that was added here a picture: a PNG of at most 1 MiB and 4096 pixels a side; 600x800 fits best.
#[utoipa::path(
    put,
    path = "/apps/{id}/art",
    tag = "apps",
    params(("id" = u32, Path, description = "the app's number")),
    request_body(content = Vec<u8>, content_type = "image/png"),
    responses(
        (status = 200, body = wire::App),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "no such app was added here"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "the app stands in a file, which also names its picture, or all pictures are too large"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "it is no such picture"),
    ),
)]
async fn put_picture(
    Rooms(handles): Rooms,
    Path(id): Path<String>,
    body: Body,
) -> Result<Json<wire::App>, Problem> {
    let id = number(&id)?;
    let picture = whole(body)?;
    art::check(&picture)
        .map_err(|error| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "unfit-art", error))?;
    let listed = blocking(move || {
        let desk = &handles.settings;
        desk.put_art(&spec(desk, id)?.title, &picture)?;
        entry(desk, id)
    })
    .await??;
    Ok(Json(listed))
}

fn number(text: &str) -> Result<AppId, Problem> {
    text.parse().map(AppId).map_err(Problem::malformed)
}

fn list(held: &Held) -> Vec<wire::App> {
    of_config(&held.config).into_iter().map(|spec| listed(held, spec)).collect()
}

fn listed(held: &Held, spec: AppSpec) -> wire::App {
    let refused = held.not_offered.iter().find(|app| app.title == spec.title);
    let origin = held.app_origins.get(&spec.title);
    let id = app_id(&spec.title).0;
    wire::App {
        id,
        display: spec.display,
        commands: spec.commands,
        art: format!("/api/v1/apps/{id}/art"),
        offered: refused.is_none(),
        reason: refused.map(|app| app.reason.clone()),
        source: origin.into(),
        fixed: origin.is_some_and(|origin| origin.is_fixed()),
        title: spec.title,
    }
}

fn entry(desk: &ConfigDesk, id: AppId) -> Result<wire::App, Problem> {
    let held = desk.held();
    let found = list(&held).into_iter().find(|app| app.id == id.0);
    // Somebody else may have removed it since.
    found.ok_or_else(unknown)
}

fn spec(desk: &ConfigDesk, id: AppId) -> Result<AppSpec, Problem> {
    let apps = of_config(&desk.held().config);
    apps.into_iter().find(|app| app_id(&app.title) == id).ok_or_else(unknown)
}

fn unknown() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "unknown-app", "there is no app with this number")
}
