//! The owner's own apps: `[[app]]`.

use std::path::PathBuf;

use toml::de::DeValue;

use crate::store::clean_name;

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
    /// Its picture (PNG), an absolute path.
    pub art: Option<PathBuf>,
}

/// What an app runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
            "title" => {
                title = value.as_str().and_then(clean_name);
            }
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
                art = Some(path.ok_or("an app's `art` is to be an absolute path")?);
            }
            other => unknown(other, name.span().start),
        }
    }
    let title = title.ok_or("an app needs a `title` of 1 to 64 characters")?;
    if commands.len() > MAX_COMMANDS {
        return Err(format!("an app has at most {MAX_COMMANDS} commands, not {}", commands.len()));
    }
    if commands.is_empty() && display == AppDisplay::Sway {
        return Err(format!("the app \"{title}\" needs a `command`"));
    }
    Ok(AppConfig { title, display, commands, art })
}

fn command(value: &DeValue<'_>) -> Result<Vec<String>, String> {
    let wrong = || {
        format!(
            "a command is to be a list of 1 to {MAX_ARGUMENTS} texts, as in [\"program\", \"argument\"]"
        )
    };
    let list = value.as_array().ok_or_else(wrong)?;
    // A NUL cannot be passed to a program.
    let text =
        |value: &DeValue<'_>| value.as_str().filter(|text| !text.contains('\0')).map(str::to_owned);
    let arguments: Option<Vec<String>> = list.iter().map(|value| text(value.get_ref())).collect();
    arguments
        .filter(|arguments| (1..=MAX_ARGUMENTS).contains(&arguments.len()))
        .filter(|arguments| !arguments[0].is_empty())
        .ok_or_else(wrong)
}
