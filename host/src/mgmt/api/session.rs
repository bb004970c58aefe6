//! Logging in and out, and the passwords.

use axum::http::header::SET_COOKIE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{AppendHeaders, IntoResponse, Response};
use axum::{Extension, Json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::super::cookie;
use super::super::guard::{Caller, Need, Who, allow};
use super::super::problem::Problem;
use super::super::startup::{Door, Startup};
use super::super::wire::{
    AskLogin, CallerKind, ChangePassword, ConsoleSession, LoggedOut, Login, PasswordChange,
    ProblemDetails, ScopeName, SetViewerPassword, WhoAmI,
};
use super::audit::actor;
use super::claim::{agent, answer, cookies, seconds};
use super::{Body, blocking, parse};
use crate::access::{self, Access, LogIn, LoginError, Scope, Scopes, Session};

pub(super) fn routes() -> OpenApiRouter<Startup> {
    OpenApiRouter::new()
        .routes(allow(Need::Claimed, routes!(who_am_i, log_in, log_out)))
        .routes(allow(Need::Owner, routes!(sessions)))
        .routes(allow(Need::Owner, routes!(log_out_others)))
        .routes(allow(Need::Owner, routes!(change_password)))
        .routes(allow(Need::Owner, routes!(set_viewer, remove_viewer)))
}

/// Who the caller is, and what a change must bring along.
#[utoipa::path(
    get,
    path = "/session",
    tag = "session",
    responses((status = 200, body = WhoAmI)),
)]
async fn who_am_i(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Json<WhoAmI> {
    let all = Scopes::from_iter(Scope::ALL);
    let (who, scopes) = match &caller.who {
        Who::Local { .. } => (CallerKind::Local, all),
        Who::Owner => (CallerKind::Owner, all),
        Who::Viewer => (CallerKind::Viewer, Scopes::from_iter([Scope::View])),
        Who::Token { scopes, .. } => (CallerKind::Token, *scopes),
        Who::SelfTest | Who::Anonymous => (CallerKind::Anonymous, Scopes::default()),
    };
    let has_cookie = matches!(caller.who, Who::Owner | Who::Viewer);
    let is_owner = matches!(caller.who, Who::Owner | Who::Local { .. });
    Json(WhoAmI {
        who,
        claimed: access.is_claimed(),
        viewer: is_owner.then(|| access.has_viewer()),
        scopes: ScopeName::all(scopes),
        csrf: own(&access, &headers).filter(|_| has_cookie).map(|session| session.csrf),
    })
}

/// Logs in.
#[utoipa::path(
    post,
    path = "/session",
    tag = "session",
    request_body = AskLogin,
    responses(
        (status = 200, body = Login),
        (status = 401, body = ProblemDetails, content_type = "application/problem+json", description = "that is not the password, or the host has no owner yet"),
    ),
)]
async fn log_in(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<impl IntoResponse, Problem> {
    let ask: AskLogin = parse(body)?;
    let logged_in = blocking(move || {
        access.log_in(&LogIn {
            role: ask.role.into(),
            password: &ask.password.0,
            remote: caller.remote,
            agent: agent(&headers),
            known: cookie::known(&headers),
        })
    })
    .await??;
    Ok(answer(&logged_in))
}

/// Logs out; whoever is not logged in stays so.
#[utoipa::path(
    delete,
    path = "/session",
    tag = "session",
    responses((status = 204, description = "done")),
)]
async fn log_out(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Problem> {
    // With a token, or from elsewhere, the cookie was not looked at by the door, and does not count here.
    let has_cookie = matches!(caller.who, Who::Owner | Who::Viewer | Who::Local { .. });
    if let Some(session) = own(&access, &headers).filter(|_| has_cookie) {
        blocking(move || {
            access.log_out(session.id)?;
            access.audit(&actor(&caller), caller.remote, "logout", "")
        })
        .await??;
    }
    Ok((StatusCode::NO_CONTENT, AppendHeaders([(SET_COOKIE, cookie::clear())])))
}

/// Who is logged in, the one seen last first.
#[utoipa::path(
    get,
    path = "/session/all",
    tag = "session",
    responses((status = 200, body = Vec<ConsoleSession>)),
)]
async fn sessions(Door(access): Door, headers: HeaderMap) -> Json<Vec<ConsoleSession>> {
    let own = own(&access, &headers).map(|session| session.id);
    let sessions = access.sessions().into_iter();
    Json(sessions.map(|session| ConsoleSession::seen_from(session, own)).collect())
}

/// Ends every login but the caller's.
#[utoipa::path(
    delete,
    path = "/session/others",
    tag = "session",
    responses((status = 200, body = LoggedOut)),
)]
async fn log_out_others(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
) -> Result<Json<LoggedOut>, Problem> {
    let own = own(&access, &headers).map(|session| session.id);
    let ended = blocking(move || {
        let ended = access.log_out_others(own)?;
        access.audit(&actor(&caller), caller.remote, "logout-others", &ended.to_string())?;
        Ok::<_, crate::access::AccessError>(ended)
    })
    .await??;
    Ok(Json(LoggedOut { ended }))
}

/// Changes the owner's password. Every other login ends, and every token is removed unless `revoke_tokens` is `false`; the
/// caller's login goes on with another cookie and another CSRF token.
#[utoipa::path(
    put,
    path = "/session/password",
    tag = "session",
    request_body = ChangePassword,
    responses(
        (status = 200, body = PasswordChange, description = "changed; a caller with a cookie has a new one"),
        (status = 401, body = ProblemDetails, content_type = "application/problem+json", description = "the old password is wrong, or nobody is logged in"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the new password cannot be one"),
    ),
)]
async fn change_password(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let ask: ChangePassword = parse(body)?;
    let own = own(&access, &headers).map(|session| session.id);
    let changed = blocking(move || {
        access.change_password(&access::ChangePassword {
            old: &ask.old.0,
            new: &ask.new.0,
            own,
            remote: caller.remote,
            keep_tokens: !ask.revoke_tokens,
        })
    })
    .await??;
    let answer = Json(PasswordChange {
        csrf: changed.login.as_ref().map(|login| login.session.csrf.clone()),
        ended: changed.ended,
        revoked_tokens: changed.removed_tokens,
    });
    Ok(match &changed.login {
        Some(login) => (cookies(login), answer).into_response(),
        None => answer.into_response(),
    })
}

/// Lets somebody look with a password of their own; whoever looked with another is logged out.
#[utoipa::path(
    put,
    path = "/session/viewer",
    tag = "session",
    request_body = SetViewerPassword,
    responses(
        (status = 204, description = "set"),
        (status = 422, body = ProblemDetails, content_type = "application/problem+json", description = "the password cannot be one"),
    ),
)]
async fn set_viewer(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Result<StatusCode, Problem> {
    let ask: SetViewerPassword = parse(body)?;
    blocking(move || access.set_viewer_password(Some(&ask.password.0), caller.remote)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// Lets nobody look any more.
#[utoipa::path(
    delete,
    path = "/session/viewer",
    tag = "session",
    responses((status = 204, description = "removed")),
)]
async fn remove_viewer(
    Door(access): Door,
    Extension(caller): Extension<Caller>,
) -> Result<StatusCode, Problem> {
    blocking(move || access.set_viewer_password(None, caller.remote)).await??;
    Ok(StatusCode::NO_CONTENT)
}

/// The session whose cookie the request has.
pub(super) fn own(access: &Access, headers: &HeaderMap) -> Option<Session> {
    cookie::of(headers).and_then(|cookie| access.session(cookie))
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        let (status, code) = match &error {
            LoginError::Unclaimed => (StatusCode::UNAUTHORIZED, "unclaimed"),
            LoginError::Wrong { .. } => (StatusCode::UNAUTHORIZED, "wrong-password"),
            LoginError::LoggedOut => (StatusCode::UNAUTHORIZED, "login-needed"),
            LoginError::Wait { .. } => (StatusCode::TOO_MANY_REQUESTS, "wait"),
            LoginError::Password(_) => (StatusCode::UNPROCESSABLE_ENTITY, "malformed-password"),
            LoginError::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
            LoginError::Failed(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store"),
        };
        let problem = Self::new(status, code, &error);
        match error {
            LoginError::Wrong { wait } | LoginError::Wait { wait } => problem.after(seconds(wait)),
            LoginError::Busy => problem.after(1),
            LoginError::Failed(error) => error.into(),
            _ => problem,
        }
    }
}

#[cfg(test)]
mod tests;
