//! Tokens for programs.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::guard::{Caller, Need, allow};
use super::super::problem::Problem;
use super::super::startup::{Door, Startup};
use super::super::wire::{ApiToken, MadeToken, MakeToken, ProblemDetails, Secret};
use super::{Body, blocking, parse};
use crate::access::{Scope, TokenError};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Owner, routes!(tokens, make_token)))
        .routes(allow(Need::Owner, routes!(remove_token)))
}

/// All tokens, without their secrets.
#[utoipa::path(
    get,
    path = "/tokens",
    tag = "tokens",
    responses((status = 200, body = Vec<ApiToken>)),
)]
async fn tokens(Door(access): Door) -> Json<Vec<ApiToken>> {
    Json(access.tokens().into_iter().map(ApiToken::from).collect())
}

/// Makes a token.
#[utoipa::path(
    post,
    path = "/tokens",
    tag = "tokens",
    request_body = MakeToken,
    responses(
        (status = 200, body = MadeToken),
        (status = 409, body = ProblemDetails, content_type = "application/problem+json", description = "there are 64 tokens, which is the limit"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "it has no name, no permission, or its end has come"),
    ),
)]
async fn make_token(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<Json<MadeToken>, Problem> {
    let ask: MakeToken = parse(body)?;
    let scopes = ask.scopes.into_iter().map(Scope::from).collect();
    let made =
        blocking(move || access.make_token(&ask.name, scopes, ask.expires_at, caller.remote))
            .await??;
    Ok(Json(MadeToken { secret: Secret::of(&made.secret), token: made.info.into() }))
}

/// Removes a token; it opens nothing any more.
#[utoipa::path(
    delete,
    path = "/tokens/{id}",
    tag = "tokens",
    params(("id" = String, Path, description = "16 hex digits")),
    responses(
        (status = 204, description = "removed"),
        (status = 404, body = ProblemDetails, content_type = "application/problem+json", description = "there is no such token"),
    ),
)]
async fn remove_token(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    blocking(move || access.remove_token(&id, caller.remote)).await??;
    Ok(StatusCode::NO_CONTENT)
}

impl From<TokenError> for Problem {
    fn from(error: TokenError) -> Self {
        let (status, code) = match error {
            TokenError::TooMany => (StatusCode::CONFLICT, "too-many-tokens"),
            TokenError::Unclaimed => (StatusCode::UNAUTHORIZED, "unclaimed"),
            TokenError::Name => (StatusCode::UNPROCESSABLE_ENTITY, "malformed-name"),
            TokenError::Scopes => (StatusCode::UNPROCESSABLE_ENTITY, "no-scopes"),
            TokenError::Expired => (StatusCode::UNPROCESSABLE_ENTITY, "expired"),
            TokenError::Unknown => (StatusCode::NOT_FOUND, "unknown-token"),
            TokenError::Failed(error) => return error.into(),
        };
        Self::new(status, code, error)
    }
}
