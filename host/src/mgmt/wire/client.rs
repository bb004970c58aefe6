//! Paired clients, and what each may do.

use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::store::{self, PairedClient};

/// A paired client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Client {
    /// Its id, 64 hex digits.
    pub id: String,
    /// What the owner calls it.
    pub name: String,
    /// When it was paired, in seconds since 1970.
    pub paired_at: u64,
    /// When it was last here, in seconds since 1970.
    pub last_seen_at: u64,
    /// Where it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote: Option<IpAddr>,
    /// What it may do, beside watching.
    #[serde(default)]
    pub permissions: Vec<Permission>,
    /// It is a guest until then, in seconds since 1970; left out if it is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
    /// Its time as a guest is over: it is let in no more.
    #[serde(default)]
    pub expired: bool,
    /// A stream of it is prepared or running.
    #[serde(default)]
    pub streaming: bool,
}

/// What a client may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Permission {
    /// Start apps. Without it, it may only come back to what runs for it.
    Launch,
    /// Use keyboard and pointer. Without it, it only watches.
    Input,
}

/// What the owner changes of a client; what is left out stays as it is.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
pub struct ClientChange {
    /// The new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 64)]
    pub name: Option<String>,
    /// All that it may do from now on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permissions: Option<Vec<Permission>>,
    /// It is a guest until then, in seconds since 1970; `null` makes it none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    #[schema(value_type = Option<u64>, maximum = 253_402_300_799_u64)]
    pub expires_at: Option<Option<u64>>,
}

/// Tells `null` from what is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl Client {
    /// The client as it stands.
    pub fn of(client: PairedClient, streaming: bool) -> Self {
        let policy = client.policy;
        Self {
            id: client.id.to_string(),
            name: client.name,
            paired_at: client.paired_at,
            last_seen_at: client.last_seen_at,
            remote: client.remote,
            permissions: policy.permissions().into_iter().map(Permission::from).collect(),
            expires_at: policy.expires_at,
            expired: policy.has_expired(),
            streaming,
        }
    }
}

impl From<store::Permission> for Permission {
    fn from(permission: store::Permission) -> Self {
        match permission {
            store::Permission::Launch => Self::Launch,
            store::Permission::Input => Self::Input,
        }
    }
}

impl From<Permission> for store::Permission {
    fn from(permission: Permission) -> Self {
        match permission {
            Permission::Launch => Self::Launch,
            Permission::Input => Self::Input,
        }
    }
}
