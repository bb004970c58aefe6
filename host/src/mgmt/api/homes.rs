//! Backups of homes: what games saved, in a file of any size that passes through.
//!
//! Both bodies are as long as the homes are, so that neither is ever held: what is read is sent, what comes is unpacked, and
//! between the network and the thread that does it lie a few pieces. Whoever goes away ends it.

use std::io::{self, Read};
use std::time::Duration;

use axum::body::{Body as Stream, BodyDataStream, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::stream::{StreamExt as _, unfold};
use tokio::sync::mpsc;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Caller, Need, Standing, allow, allow_streamed};
use super::super::problem::Problem;
use super::super::startup::{Rooms, Startup};
use super::super::wire::{BackupRequest, HomesBackupRequest, HomesRestored, ProblemDetails};
use super::{Body, audit, blocking, parse};
use crate::backup::homes::{HomesError, Made, Outlet};

/// The longest first line of a restore, which has the passphrase in it.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// As many pieces wait between the network and whoever reads or makes them.
const PIECES: usize = 4;
/// As long is read on after a refusal, so that a caller who still sends has time to hear it.
const LINGER: Duration = Duration::from_secs(10);

/// How the audit log calls these calls.
const BACK_UP: &str = "POST /homes/backup";
const RESTORE: &str = "POST /homes/restore";

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Owner, routes!(back_up_homes)))
        .routes(allow_streamed(Need::Owner, routes!(restore_homes)))
}

/// Makes a backup of homes: what games saved and set, of each paired device that has played.
///
/// The answer is as long as the homes are. A device whose home is waited for cannot play meanwhile. If something fails on
/// the way the answer breaks off: what has come then is no backup. A home that cannot be read does not end it: the log and
/// the audit log say whose is not whole, and so does a restore, which leaves that device's home as it is.
#[utoipa::path(
    post,
    path = "/homes/backup",
    tag = "backup",
    request_body = HomesBackupRequest,
    responses(
        (status = 200, body = Vec<u8>, content_type = "application/octet-stream", description = "the backup"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "a device whose home it is plays, or another backup is being made or restored"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the passphrase is too short or too long"),
    ),
)]
async fn back_up_homes(
    State(startup): State<Startup>,
    Rooms(handles): Rooms,
    Extension(caller): Extension<Caller>,
    Extension(standing): Extension<Standing>,
    body: Body,
) -> Result<Response, Problem> {
    let HomesBackupRequest { passphrase, games } = parse(body)?;
    let making = blocking(move || handles.homes.begin(&passphrase, games)).await??;
    let (sender, pieces) = mpsc::channel(PIECES);
    tokio::task::spawn_blocking(move || {
        let mut outlet = Sending(sender);
        match making.write(&mut outlet) {
            Ok(Made { not_whole }) if not_whole.is_empty() => {}
            Ok(Made { not_whole }) => {
                let detail = format!("not whole: {}", not_whole.join(", "));
                if let Err(error) = audit::write(&startup, &caller, BACK_UP, &detail) {
                    tracing::warn!(%error, "homes that are not whole could not be noted in the audit log");
                }
            }
            Err(HomesError::Gone) => tracing::info!("nobody waits for a backup of homes any more"),
            Err(error) => {
                tracing::warn!(%error, "a backup of homes could not be made");
                // Without its end it is no backup; an answer that breaks off says so at once.
                let _ = outlet.0.blocking_send(Err(io::Error::other(error)));
            }
        }
    });
    let stay = standing.stay();
    let pieces = unfold(Some((pieces, standing, stay)), |state| async {
        let (mut pieces, standing, stay) = state?;
        let piece = pieces.recv().await?;
        if !standing.holds() {
            return Some((Err(io::Error::other("the login has ended")), None));
        }
        Some((piece, Some((pieces, standing, stay))))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"punktfunk.homes\""),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Stream::from_stream(pieces.fuse())).into_response())
}

/// Restores a backup of homes: each home as a whole or not at all, and none before the whole file has come and was found
/// good.
///
/// The body is one line of JSON with the passphrase, then the file as it is: `{"passphrase": "..."}`, a line feed, the
/// bytes. What is in a home and not in the backup is gone then, but for what a backup without games leaves out.
#[utoipa::path(
    post,
    path = "/homes/restore",
    tag = "backup",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = HomesRestored),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "a device whose home it is plays, or another backup is being made or restored"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the passphrase is wrong, or the file is damaged, no backup of homes, or for a newer host"),
    ),
)]
async fn restore_homes(
    State(startup): State<Startup>,
    Rooms(handles): Rooms,
    Extension(caller): Extension<Caller>,
    Extension(standing): Extension<Standing>,
    body: Stream,
) -> Result<Json<HomesRestored>, Problem> {
    // The answer may take longer than the file.
    let _stay = standing.stay();
    let mut body = body.into_data_stream();
    let (line, rest) = first_line(&mut body).await?;
    let BackupRequest { passphrase } = parse(Ok(line))?;
    // It takes long, and whatever comes in between is not to hide who began it.
    blocking(move || audit::write(&startup, &caller, RESTORE, "begun")).await??;
    let (sender, pieces) = mpsc::channel(PIECES);
    let restoring = tokio::task::spawn_blocking(move || {
        handles.homes.restore(&passphrase, &mut Coming { pieces, piece: rest, is_over: false })
    });
    feed(&sender, &mut body).await;
    drop(sender);
    let restored = restoring.await.map_err(Problem::bug)?;
    if restored.is_err() {
        tokio::spawn(async move {
            let rest = async { while let Some(Ok(_)) = body.next().await {} };
            let _ = tokio::time::timeout(LINGER, rest).await;
        });
    }
    Ok(Json(restored?.into()))
}

/// Everything up to the first line feed, and what came behind it.
async fn first_line(body: &mut BodyDataStream) -> Result<(Bytes, Bytes), Problem> {
    let mut come = Vec::new();
    loop {
        let end = come.iter().take(MAX_LINE_BYTES).position(|byte| *byte == b'\n');
        if let Some(end) = end {
            let rest = Bytes::copy_from_slice(&come[end + 1..]);
            come.truncate(end);
            return Ok((come.into(), rest));
        }
        let next = if come.len() < MAX_LINE_BYTES { body.next().await } else { None };
        let Some(piece) = next else {
            let detail = "the first line of the body is to be JSON with the passphrase; the backup follows it";
            return Err(Problem::malformed(detail));
        };
        come.extend_from_slice(&piece.map_err(Problem::malformed)?);
    }
}

/// Hands over what comes, until it ends or nobody takes it.
async fn feed(sender: &mpsc::Sender<Come>, body: &mut BodyDataStream) {
    loop {
        let come = match body.next().await {
            Some(Ok(piece)) => Come::Piece(piece),
            Some(Err(error)) => Come::Broken(error.to_string()),
            None => Come::End,
        };
        let is_over = !matches!(come, Come::Piece(_));
        if sender.send(come).await.is_err() || is_over {
            return;
        }
    }
}

/// What comes of a body.
enum Come {
    Piece(Bytes),
    /// All of it has come.
    End,
    Broken(String),
}

/// A body that is read by a thread of its own.
struct Coming {
    pieces: mpsc::Receiver<Come>,
    piece: Bytes,
    is_over: bool,
}

impl Read for Coming {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.is_over {
            match self.pieces.blocking_recv() {
                Some(Come::Piece(piece)) => self.piece = piece,
                Some(Come::End) => self.is_over = true,
                Some(Come::Broken(why)) => return Err(io::Error::other(why)),
                // Its caller has gone before its end.
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = self.piece.len().min(into.len());
        into[..count].copy_from_slice(&self.piece.split_to(count));
        Ok(count)
    }
}

/// A body that is written by a thread of its own.
struct Sending(mpsc::Sender<io::Result<Bytes>>);

impl Outlet for Sending {
    fn put(&mut self, bytes: Vec<u8>) -> bool {
        self.0.blocking_send(Ok(bytes.into())).is_ok()
    }

    fn is_gone(&self) -> bool {
        self.0.is_closed()
    }
}

impl From<HomesError> for Problem {
    fn from(error: HomesError) -> Self {
        let (status, code) = match error {
            HomesError::Backup(error) => return error.into(),
            HomesError::NoHomes | HomesError::Agent(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable")
            }
            HomesError::InUse(_) => (StatusCode::CONFLICT, "home-in-use"),
            HomesError::Changed => (StatusCode::UNPROCESSABLE_ENTITY, "unfit-backup"),
            HomesError::Broken(_) | HomesError::Gone => (StatusCode::BAD_REQUEST, "malformed"),
        };
        Self::new(status, code, error)
    }
}
