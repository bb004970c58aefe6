//! The owner's own apps: `[[app]]`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;
use utoipa::ToSchema;

use crate::store::{StoredApp, clean_name};

/// As many apps as a configuration may have.
pub const MAX_APPS: usize = 256;
/// As many programs as an app may start, and as many arguments as each may have.
const MAX_COMMANDS: usize = 16;
const MAX_ARGUMENTS: usize = 256;

/// An app of the owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppConfig {
    /// Its title; not empty, at most 64 characters, unique.
    pub title: String,
    /// What it runs on.
    pub display: AppDisplay,
    /// The programs to start, each an argument vector with at least one element.
    pub commands: Vec<Vec<String>>,
    /// Its picture (PNG).
    pub art: Option<AppArt>,
}

/// Where an app's picture lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppArt {
    /// In a file, an absolute path.
    File(PathBuf),
    /// In the store, under the app's title.
    Stored,
}

/// What an app runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AppDisplay {
    /// A headless Sway.
    Sway,
    /// The built-in pattern.
    Pattern,
}

impl AppDisplay {
    /// Its name, as in the configuration and in the display room.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sway => "sway",
            Self::Pattern => "pattern",
        }
    }
}

impl AppConfig {
    /// An app, if it can be one. `title` is cleaned; commands are argument vectors.
    ///
    /// # Errors
    /// What is to be different, in a sentence.
    pub fn new(
        title: Option<&str>,
        display: AppDisplay,
        commands: Vec<Vec<String>>,
        art: Option<AppArt>,
    ) -> Result<Self, String> {
        let title =
            title.and_then(clean_name).ok_or("an app needs a `title` of 1 to 64 characters")?;
        if commands.len() > MAX_COMMANDS {
            let got = commands.len();
            return Err(format!("an app has at most {MAX_COMMANDS} commands, not {got}"));
        }
        if !commands.iter().all(|arguments| is_command(arguments)) {
            return Err(wrong_command());
        }
        if commands.is_empty() && display == AppDisplay::Sway {
            return Err(format!("the app \"{title}\" needs a `command`"));
        }
        Ok(Self { title, display, commands, art })
    }

    /// As the store keeps it, without title and picture.
    pub(super) fn definition(&self) -> String {
        let (display, commands) = (self.display, self.commands.clone());
        // Names and lists of texts cannot fail to be JSON; an empty one would be refused when it is read.
        serde_json::to_string(&Definition { display, commands }).unwrap_or_default()
    }
}

/// An app in the store.
#[derive(Serialize, Deserialize)]
struct Definition {
    display: AppDisplay,
    commands: Vec<Vec<String>>,
}

/// Reads an app of the store's.
pub(super) fn from_stored(app: &StoredApp) -> Result<AppConfig, String> {
    let unfit = |what: &dyn std::fmt::Display| {
        format!("the app \"{}\" is passed over: {what}", super::printable(&app.title))
    };
    let definition: Definition =
        serde_json::from_str(&app.definition).map_err(|error| unfit(&error))?;
    let art = app.has_art.then_some(AppArt::Stored);
    AppConfig::new(Some(&app.title), definition.display, definition.commands, art)
        .map_err(|error| unfit(&error))
}

/// Reads one `[[app]]`. `unknown` is told of each key that is not known, and where it stands.
pub(super) fn parse(
    value: &DeValue<'_>,
    unknown: &mut dyn FnMut(&str, usize),
) -> Result<AppConfig, String> {
    let DeValue::Table(table) = value else {
        return Err("an app is to be a table, begun with [[app]]".to_owned());
    };
    let mut title = None;
    let mut display = AppDisplay::Sway;
    let mut commands = Vec::new();
    let mut art = None;
    for (name, value) in table {
        let value = value.get_ref();
        match name.get_ref().as_ref() {
            "title" => title = value.as_str(),
            "display" => {
                display = match value.as_str() {
                    Some("sway") => AppDisplay::Sway,
                    Some("pattern") => AppDisplay::Pattern,
                    _ => {
                        return Err(
                            "an app's `display` is to be \"sway\" or \"pattern\"".to_owned()
                        );
                    }
                };
            }
            "command" => commands.push(command(value)?),
            "commands" => {
                let list =
                    value.as_array().ok_or("an app's `commands` is to be a list of commands")?;
                for value in list {
                    commands.push(command(value.get_ref())?);
                }
            }
            "art" => {
                let path = value.as_str().map(PathBuf::from).filter(|path| path.is_absolute());
                art = Some(AppArt::File(path.ok_or("an app's `art` is to be an absolute path")?));
            }
            other => unknown(other, name.span().start),
        }
    }
    AppConfig::new(title, display, commands, art)
}

fn command(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let list = value.as_array().ok_or_else(wrong_command)?;
    let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
    let arguments: Option<Vec<String>> = list.iter().map(|value| text(value.get_ref())).collect();
    arguments.filter(|arguments| is_command(arguments)).ok_or_else(wrong_command)
}

fn is_command(arguments: &[String]) -> bool {
    (1..=MAX_ARGUMENTS).contains(&arguments.len())
        && !arguments[0].is_empty()
        // A NUL cannot be passed to a program.
        && !arguments.iter().any(|text| text.contains('\0'))
}

fn wrong_command() -> String {
    format!(
        "a command is to be a list of 1 to {MAX_ARGUMENTS} texts, as in [\"program\", \"argument\"]"
    )
}
