//! The one shape of an error (RFC 9457): the caller acts on `code`, the owner reads `detail` as it is.

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::{CODES, ProblemDetails};
use crate::os::{OsError, PowerError};
use crate::pairing::{AnswerError, PermitError, PinError};
use crate::store::{ClientIdError, StoreError};

/// The content type of an error.
pub(super) const PROBLEM: &str = "application/problem+json";

/// An error on its way to the caller.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    wait: Option<u64>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl ToString) -> Self {
        debug_assert!(CODES.contains(&code), "{code} is in no list of codes");
        Self { status, code, detail: detail.to_string(), wait: None }
    }

    /// It is worth another try after so many seconds, and not before.
    pub(super) fn after(self, seconds: u64) -> Self {
        Self { wait: Some(seconds), ..self }
    }

    /// What went wrong, for the owner.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// With more that is wrong, a line each.
    pub(super) fn with_also(mut self, sentences: &[String]) -> Self {
        if !sentences.is_empty() {
            self.detail.push_str("\nAlso wrong: ");
            self.detail.push_str(&sentences.join("\n"));
        }
        self
    }

    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    pub(super) fn malformed(detail: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "malformed", detail)
    }

    /// Nobody that is known calls, or not any more.
    pub(super) fn login_needed() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "login-needed", "log in first")
    }

    pub(super) fn unknown_client() -> Self {
        Self::new(StatusCode::NOT_FOUND, "unknown-client", "no such device is paired")
    }

    pub(super) fn bug(detail: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let details = ProblemDetails {
            title: self.status.canonical_reason().unwrap_or("error").to_owned(),
            status: self.status.as_u16(),
            code: self.code.to_owned(),
            detail: self.detail,
            wait_seconds: self.wait,
        };
        let body = serde_json::to_vec(&details).unwrap_or_default();
        let mut response = (self.status, [(header::CONTENT_TYPE, PROBLEM)], body).into_response();
        if let Some(seconds) = self.wait {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<PinError> for Problem {
    fn from(error: PinError) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "malformed-pin", error)
    }
}

impl From<ClientIdError> for Problem {
    fn from(error: ClientIdError) -> Self {
        Self::malformed(error)
    }
}

impl From<AnswerError> for Problem {
    fn from(error: AnswerError) -> Self {
        let (status, code) = match &error {
            AnswerError::NothingPending => (StatusCode::CONFLICT, "nothing-pending"),
            AnswerError::UnknownRequest { .. } => (StatusCode::NOT_FOUND, "unknown-request"),
            AnswerError::SeveralPending { .. } => (StatusCode::CONFLICT, "several-pending"),
        };
        let mut detail = error.to_string();
        if let AnswerError::SeveralPending { pending } = &error {
            for request in pending {
                detail.push_str(&format!(
                    "\n  {}: {} from {}",
                    request.id, request.device_name, request.remote
                ));
            }
        }
        Self::new(status, code, detail)
    }
}

impl From<PermitError> for Problem {
    fn from(error: PermitError) -> Self {
        let (status, code) = match error {
            PermitError::Taken => (StatusCode::CONFLICT, "self-test-runs"),
            PermitError::Unknown => (StatusCode::NOT_FOUND, "unknown-self-test"),
        };
        Self::new(status, code, error)
    }
}

impl From<OsError> for Problem {
    fn from(error: OsError) -> Self {
        let status = match &error {
            OsError::NotAnAppliance { .. } | OsError::NotReady | OsError::Store { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            OsError::UnknownDeployment => StatusCode::NOT_FOUND,
            OsError::Malformed(_) | OsError::Incomplete { .. } => StatusCode::BAD_REQUEST,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, error.code(), error)
    }
}

impl From<PowerError> for Problem {
    fn from(error: PowerError) -> Self {
        let (status, code) = match &error {
            PowerError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
            PowerError::Failed { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "failed"),
        };
        Self::new(status, code, error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        tracing::warn!(%error, "the store failed");
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "store", error)
    }
}

/// What a stranger gets, whatever it asks.
pub(super) fn forbidden_router() -> Router {
    Router::new().fallback(|| async {
        Problem::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            "this host belongs to another user; use that user, or root (sudo)",
        )
    })
}
