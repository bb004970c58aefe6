//! Backups on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backup::{self, Passphrase};

/// What is to protect a backup, or does.
#[derive(Debug, Deserialize, ToSchema)]
pub struct BackupRequest {
    /// At least 12 characters for a new one. Whoever has the file may guess as long as it likes.
    pub passphrase: Passphrase,
}

/// What a backup brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Restored {
    /// The version of the host that made it.
    pub made_by: String,
    /// The key that devices know the host by.
    pub host_key: bool,
    /// The console's key; without it the host keeps its own.
    pub console_key: bool,
    /// As many settings.
    pub settings: usize,
    /// As many apps.
    pub apps: usize,
    /// As many paired devices.
    pub clients: usize,
    /// As many devices' permissions.
    pub client_policies: usize,
    /// As many devices were paired that are not in the backup: they are trusted no more, at once.
    pub clients_removed: usize,
    /// Keys and settings of the backup hold when the host starts again, not before.
    pub restart_needed: bool,
}

impl From<&backup::Restored> for Restored {
    fn from(restored: &backup::Restored) -> Self {
        let rows = |table: &str| {
            restored.rows.iter().find(|(name, _)| name == table).map_or(0, |(_, count)| *count)
        };
        Self {
            made_by: restored.made_by.clone(),
            host_key: rows("identity") > 0,
            console_key: rows("console_identity") > 0,
            settings: rows("setting"),
            apps: rows("app"),
            clients: rows("client"),
            client_policies: rows("client_policy"),
            clients_removed: restored.gone.len(),
            restart_needed: true,
        }
    }
}
