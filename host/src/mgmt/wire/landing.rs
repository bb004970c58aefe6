//! What everybody is told: who this is, and how far it is.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What everybody is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Landing {
    /// Always `punktfunk`.
    pub product: String,
    /// The host's version.
    pub version: String,
    /// The name that clients show.
    pub name: String,
    /// The host has an owner; `null` if it cannot read whether it has one: nobody can claim it then, or log in.
    #[schema(required)]
    pub claimed: Option<bool>,
    /// What is wrong and what to do, where `claimed` is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub why_unknown: Option<String>,
    /// How far the host is.
    pub stage: Stage,
    /// The SHA-256 of the console's certificate, as browsers show it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
}

/// How far the host is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "stage", rename_all = "kebab-case")]
pub enum Stage {
    /// It is being put together.
    Starting {
        /// The step that is being done, from 1.
        step: usize,
        /// As many there are.
        count: usize,
        /// What is being done.
        doing: String,
    },
    /// All is there.
    Ready,
    /// It could not be put together, and nothing can be played until that is mended.
    Failed {
        /// Why, in a few words; who may look is told more by `GET /status`.
        reason: String,
    },
}

/// Whether a client could play.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// A stream is possible.
    pub healthy: bool,
    /// As many problems the owner is told of.
    pub problems: usize,
    /// In words.
    pub detail: String,
}
