//! Backups: one file, protected by a passphrase. Only the owner in person makes or restores one, because it holds the
//! host's keys. Also of a host that could not be put together: its key may be what is damaged.

use axum::Json;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Mending, Rooms, Startup};
use super::super::wire::{BackupRequest, ProblemDetails, Restored};
use super::{Body, blocking, parse, sized, whole};
use crate::backup::{BackupError, MAX_BACKUP_BYTES};
use crate::store::ClientId;

/// The longest first line of a restore, which has the passphrase in it.
const MAX_LINE_BYTES: usize = 8 * 1024;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Owner, routes!(make)))
        .routes(sized(MAX_LINE_BYTES + MAX_BACKUP_BYTES, allow(Need::Owner, routes!(restore))))
}

/// Makes a backup of settings, apps, paired devices with their permissions, and keys. Logins, tokens and the owner's
/// password are not in it.
#[utoipa::path(
    post,
    path = "/backup",
    tag = "backup",
    request_body = BackupRequest,
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream", description = "the backup"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "another one is being made or restored"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the passphrase is too short or too long"),
    ),
)]
async fn make(Mending(basics): Mending, body: Body) -> Result<Response, Problem> {
    let BackupRequest { passphrase } = parse(body)?;
    let backups = basics.backups.ok_or_else(no_store)?;
    let made = blocking(move || backups.make(&passphrase)).await??;
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"punktfunk.backup\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, made).into_response())
}

/// Restores a backup: all of it or nothing. The body is one line of JSON with the passphrase, then the file as it is:
/// `{"passphrase": "..."}`, a line feed, the bytes. Which devices are
/// trusted, and what each may do, holds at once; keys and settings hold when the host starts again.
#[utoipa::path(
    post,
    path = "/restore",
    tag = "backup",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = Restored),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "another one is being made or restored"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the passphrase is wrong, or the file is damaged, no backup, or for a newer host"),
    ),
)]
async fn restore(
    rooms: Result<Rooms, Problem>,
    Mending(basics): Mending,
    body: Body,
) -> Result<Json<Restored>, Problem> {
    let backups = basics.backups.ok_or_else(no_store)?;
    let body = whole(body)?;
    let line = body.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n').ok_or_else(|| {
        let detail = "the first line of the body is to be JSON with the passphrase; the backup follows it";
        Problem::malformed(detail)
    })?;
    let BackupRequest { passphrase } = parse(Ok(body.slice(..line)))?;
    let backup = body.slice(line + 1..);
    let restored = blocking(move || {
        let restored = backups.restore(&passphrase, &backup)?;
        // A host that could not be put together has none that could end.
        let Ok(Rooms(handles)) = rooms else { return Ok(Restored::from(&restored)) };
        // They are not trusted any more; what they play ends after that, so that they cannot come back in between.
        restored.gone.iter().for_each(|client| handles.sessions.quit(*client));
        // The devices of their streams were made when they still could; they may come back to watch.
        let plays = |client: &&ClientId| handles.sessions.running(**client).is_some();
        restored.curbed.iter().filter(plays).for_each(|client| {
            drop(handles.sessions.resume(*client));
        });
        Ok::<_, Problem>(Restored::from(&restored))
    })
    .await??;
    Ok(Json(restored))
}

fn no_store() -> Problem {
    let detail = "what this host remembers cannot be read, so that it can neither be backed up nor replaced; move its \
                  state folder aside and start the host again, then restore";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
}

impl From<BackupError> for Problem {
    fn from(error: BackupError) -> Self {
        let (status, code) = match error {
            BackupError::Store(error) => return error.into(),
            BackupError::Key(_) => (StatusCode::INTERNAL_SERVER_ERROR, "backup-key"),
            BackupError::Busy => (StatusCode::CONFLICT, "backup-busy"),
            BackupError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "backup-too-large"),
            BackupError::Passphrase => (StatusCode::UNPROCESSABLE_ENTITY, "unfit-passphrase"),
            BackupError::WrongPassphrase => (StatusCode::UNPROCESSABLE_ENTITY, "wrong-passphrase"),
            BackupError::NoBackup => (StatusCode::UNPROCESSABLE_ENTITY, "no-backup"),
            BackupError::TooNew { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "backup-too-new"),
            BackupError::Unfit { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "unfit-backup"),
        };
        Self::new(status, code, error)
    }
}
