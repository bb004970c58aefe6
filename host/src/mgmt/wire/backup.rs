//! Backups on the wire.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::backup::homes::{self, Outcome};
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

/// What is to protect a backup of homes, and what is to be in it.
#[derive(Debug, Deserialize, ToSchema)]
pub struct HomesBackupRequest {
    /// At least 12 characters. Whoever has the file may guess as long as it likes.
    pub passphrase: Passphrase,
    /// Whether what stores can fetch again is in it: games of Steam, and `.cache`. Unless it is said, it is.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub games: bool,
}

fn yes() -> bool {
    true
}

/// What a backup of homes brought.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HomesRestored {
    /// The version of the host that made it.
    pub made_by: String,
    /// Games that stores can fetch again were in it; if not, those that are here stay.
    pub games: bool,
    /// What became of each home.
    pub homes: Vec<RestoredHome>,
}

/// What became of the home of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RestoredHome {
    /// The device's id, 64 hex digits.
    pub id: String,
    /// What the device is called here, or was where the backup was made.
    pub name: String,
    /// The length of what was restored, in bytes; left out if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored_bytes: Option<u64>,
    /// What was said when it was backed up: mostly what could not be read. Left out if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Why it was not restored; left out if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<HomeProblem>,
}

/// Why a home was not restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HomeProblem {
    /// For programs.
    pub code: HomeTrouble,
    /// For the owner.
    pub detail: String,
}

/// What kept a home from being restored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum HomeTrouble {
    /// Its device is not paired here.
    NotPaired,
    /// The backup has only a part of it.
    NotWhole,
    /// The disk is too full.
    NoSpace,
    /// Something else.
    Failed,
}

impl From<homes::RestoredHomes> for HomesRestored {
    fn from(restored: homes::RestoredHomes) -> Self {
        let homes::RestoredHomes { made_by, games, homes } = restored;
        Self { made_by, games, homes: homes.into_iter().map(Into::into).collect() }
    }
}

impl From<homes::RestoredHome> for RestoredHome {
    fn from(home: homes::RestoredHome) -> Self {
        let homes::RestoredHome { device, name, outcome } = home;
        let not = |code, detail: String| (None, None, Some(HomeProblem { code, detail }));
        let (restored_bytes, remark, problem) = match outcome {
            Outcome::Restored { bytes, said } => {
                (Some(bytes), Some(said).filter(|said| !said.is_empty()), None)
            }
            Outcome::NotPaired => {
                let detail = "this device is not paired here; pair it, or restore the other backup, which has the paired \
                              devices, then restore this one again";
                not(HomeTrouble::NotPaired, detail.to_owned())
            }
            Outcome::NotWhole(why) => {
                let detail = format!(
                    "this home could not be read when the backup was made, and is as it was before: {why}"
                );
                not(HomeTrouble::NotWhole, detail)
            }
            Outcome::NoSpace => {
                let detail = "there is not enough space on the disk, of which some is kept free; the home is as it was before";
                not(HomeTrouble::NoSpace, detail.to_owned())
            }
            Outcome::Failed(why) => not(HomeTrouble::Failed, why),
        };
        Self { id: device.to_string(), name, restored_bytes, remark, problem }
    }
}
