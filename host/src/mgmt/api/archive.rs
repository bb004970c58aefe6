//! An update that somebody sends in a file, for a box without a network. It goes through a pipe to whoever may judge it, as
//! fast as that takes it: nothing of it is kept here, and whatever is wrong with it is told as soon as it is found.

use axum::Json;
use axum::body::{Body, HttpBody as _};
use axum::extract::Request;
use futures_util::StreamExt as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::Sender;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Need, Standing, allow_streamed};
use super::super::problem::Problem;
use super::super::startup::{Mending, Startup};
use super::super::wire::{OsReport, ProblemDetails};
use super::{blocking, sized};
use crate::access::Scope;
use crate::os::{MAX_ARCHIVE_BYTES, OsDesk, OsError, Upload};

/// So often it is said how much has come, in bytes.
const SAY_EVERY_BYTES: u64 = 1 << 20;

pub(super) fn routes() -> OpenApiRouter<Startup> {
    let max_bytes = usize::try_from(MAX_ARCHIVE_BYTES).unwrap_or(usize::MAX);
    let system = Need::Scope(Scope::System);
    OpenApiRouter::new().routes(sized(max_bytes, allow_streamed(system, routes!(archive))))
}

/// Takes an update that is sent in a file; then it is offered, and fetched without a network.
///
/// The answer comes when all of it was read and found to be signed, and before that as soon as it is refused. Whoever is
/// told so stops sending.
#[utoipa::path(
    post,
    path = "/os/archive",
    tag = "os",
    request_body(content = Vec<u8>, content_type = "application/octet-stream"),
    responses(
        (status = 200, body = OsReport, description = "it is taken, and what is newer in it is offered"),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "it must not be installed, it does not fit, or something else is being done"),
    ),
)]
async fn archive(Mending(basics): Mending, request: Request) -> Result<Json<OsReport>, Problem> {
    let unsaid = || Problem::bug("the door did not say who calls");
    let standing = request.extensions().get::<Standing>().cloned().ok_or_else(unsaid)?;
    // The disk may take its time after the last byte.
    let _stay = standing.stay();
    let body = request.into_body();
    let total_bytes = body.size_hint().exact();
    let desk = basics.os.clone();
    let mut upload = blocking(move || desk.import(total_bytes)).await??;
    let pipe = upload.pipe().ok_or_else(|| Problem::bug("a pipe was used twice"))?;
    let pipe = Sender::from_owned_fd(pipe).map_err(Problem::bug)?;
    let came = tokio::select! {
        biased;
        answer = upload.answer() => return tell(answer, basics.os).await,
        came = copy(body, pipe, &basics.os) => came,
    };
    match came {
        // Whoever reads has found what is wrong with it.
        Came::Unwanted => {}
        Came::All => upload.end(),
        Came::Part(error) => {
            let problem = stopped(upload, error).await;
            // Whoever is not logged in any more is told that, and nothing of what came.
            standing.check()?;
            return Err(problem);
        }
    }
    tell(upload.answer().await, basics.os).await
}

/// How much has come.
enum Came {
    All,
    /// So much that nobody reads any more.
    Unwanted,
    /// Less than all.
    Part(axum::Error),
}

/// Brings what comes into the pipe. What it holds meanwhile is a piece of the body.
async fn copy(body: Body, mut pipe: Sender, desk: &OsDesk) -> Came {
    let mut body = body.into_data_stream();
    let (mut done_bytes, mut said_bytes) = (0_u64, 0);
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => return Came::Part(error),
        };
        if pipe.write_all(&piece).await.is_err() {
            return Came::Unwanted;
        }
        done_bytes = done_bytes.saturating_add(piece.len() as u64);
        if done_bytes - said_bytes >= SAY_EVERY_BYTES {
            said_bytes = done_bytes;
            let desk = desk.clone();
            // It is only said.
            let _ = blocking(move || desk.has_come(done_bytes)).await;
        }
    }
    Came::All
}

/// Has what came thrown away. Whoever is still there is told why.
async fn stopped(mut upload: Upload, error: axum::Error) -> Problem {
    upload.stop();
    match upload.answer().await {
        Ok(()) | Err(OsError::Incomplete { .. }) => {
            OsError::Incomplete { detail: error.to_string() }.into()
        }
        Err(refused) => refused.into(),
    }
}

async fn tell(answer: Result<(), OsError>, desk: OsDesk) -> Result<Json<OsReport>, Problem> {
    answer?;
    let view = blocking(move || desk.view()).await?;
    Ok(Json(view.into()))
}
