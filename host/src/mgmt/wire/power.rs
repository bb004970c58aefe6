//! The machine's switch, as JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What this machine can do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerReport {
    /// Start again.
    pub restart: PowerAbility,
    /// Switch off.
    pub shutdown: PowerAbility,
    /// Sleep until it is woken.
    pub sleep: PowerAbility,
    /// It is a simulated machine (`serve --demo`), and the real one is never switched.
    pub simulated: bool,
    /// Who streams, by the names of their devices: whom it would cut off.
    pub streaming: Vec<String>,
}

/// Whether something can be done here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PowerAbility {
    /// It can.
    pub available: bool,
    /// Why not, in sentences.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Switch the machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PowerSwitch {
    /// Also if that cuts somebody off.
    pub insist: bool,
}
