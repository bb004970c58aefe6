//! Settings and apps on the wire.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::{self, AppDisplay, Origin, SettingValue, SettingView};

/// A setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Setting {
    /// Its key.
    pub key: String,
    /// The part of the configuration it belongs to.
    pub group: String,
    /// What it is for, in sentences.
    pub about: String,
    /// What it takes.
    pub kind: SettingKind,
    /// What its number counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// What holds if nobody says anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<SettingValue>,
    /// What holds now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<SettingValue>,
    /// Where that was said.
    pub origin: SettingOrigin,
    /// It stands in a file of the owner's, the environment or the command line, and so cannot be changed here.
    pub fixed: bool,
    /// Where it is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fixed_by: Option<String>,
    /// It can be set in the console at all.
    pub settable: bool,
    /// When a change holds.
    pub takes_effect: SettingTakesEffect,
    /// What will hold when the host starts again, if that is another value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<SettingValue>,
}

/// What a setting takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum SettingKind {
    /// A text.
    Text {
        /// Which, in words.
        range: String,
    },
    /// A whole number.
    Integer {
        /// The least.
        minimum: i64,
        /// The most.
        maximum: i64,
    },
    /// True or false.
    Boolean,
    /// One of these words.
    Choice {
        /// Them all.
        options: Vec<String>,
    },
}

/// Where a value was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SettingOrigin {
    /// In which layer.
    pub layer: SettingLayer,
    /// Where there: file and line, variable, or key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

/// A layer of the configuration, the weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SettingLayer {
    /// Nobody said anything.
    Default,
    /// The image's file.
    Image,
    /// The console.
    Console,
    /// A file of the owner's.
    File,
    /// The environment.
    Environment,
    /// The command line.
    Flag,
}

/// When a change holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SettingTakesEffect {
    /// At once.
    Now,
    /// With the next stream.
    NextSession,
    /// When the host starts again.
    Restart,
}

/// New values of settings, by their keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct SettingChanges(pub BTreeMap<String, SettingValue>);

/// Something that can be played, or could.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct App {
    /// Its number; follows from the title.
    pub id: u32,
    /// Its title.
    pub title: String,
    /// What it runs on.
    pub display: String,
    /// The programs it starts, each an argument vector.
    pub commands: Vec<Vec<String>>,
    /// Where its picture is.
    pub art: String,
    /// Devices are offered it.
    pub offered: bool,
    /// Why not, if not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it was said; `default` for one that comes with the host.
    pub source: SettingOrigin,
    /// It stands in a file of the owner's, and so cannot be changed here.
    pub fixed: bool,
}

/// An app of the owner's, without its title.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AppDefinition {
    /// What it runs on; a desktop of its own if left out.
    #[serde(default = "sway")]
    pub display: AppDisplay,
    /// The programs to start, each an argument vector; the session ends when the first of them ends. An app on the
    /// pattern may have none.
    #[serde(default)]
    #[schema(max_items = 16)]
    pub commands: Vec<Vec<String>>,
}

const fn sway() -> AppDisplay {
    AppDisplay::Sway
}

impl From<Option<&Origin>> for SettingOrigin {
    fn from(origin: Option<&Origin>) -> Self {
        let (layer, place) = match origin {
            None => (SettingLayer::Default, None),
            Some(Origin::Console) => (SettingLayer::Console, None),
            Some(origin @ Origin::Image { .. }) => (SettingLayer::Image, Some(origin.to_string())),
            Some(origin @ Origin::File { .. }) => (SettingLayer::File, Some(origin.to_string())),
            Some(Origin::Environment { variable }) => {
                (SettingLayer::Environment, Some(variable.clone()))
            }
            Some(Origin::Flag { key }) => (SettingLayer::Flag, Some(key.clone())),
        };
        Self { layer, place }
    }
}

impl From<config::SettingKind> for SettingKind {
    fn from(kind: config::SettingKind) -> Self {
        match kind {
            config::SettingKind::Text { range } => Self::Text { range: range.to_owned() },
            config::SettingKind::Integer { minimum, maximum } => Self::Integer { minimum, maximum },
            config::SettingKind::Boolean => Self::Boolean,
            config::SettingKind::Choice { options } => {
                Self::Choice { options: options.iter().map(|&option| option.to_owned()).collect() }
            }
        }
    }
}

impl From<SettingView> for Setting {
    fn from(view: SettingView) -> Self {
        Self {
            key: view.key.to_owned(),
            group: view.group.to_owned(),
            about: view.about.to_owned(),
            kind: view.kind.into(),
            unit: view.unit.map(str::to_owned),
            default: view.default,
            value: view.value,
            origin: view.origin.as_ref().into(),
            fixed: view.fixed.is_some(),
            fixed_by: view.fixed.map(|origin| origin.to_string()),
            settable: view.settable,
            takes_effect: match view.takes_effect {
                config::TakesEffect::Now => SettingTakesEffect::Now,
                config::TakesEffect::NextSession => SettingTakesEffect::NextSession,
                config::TakesEffect::Restart => SettingTakesEffect::Restart,
            },
            pending: view.pending,
        }
    }
}
