//! Values of settings: as they are found in a layer, and as they hold.

use std::fmt;

use serde::{Deserialize, Serialize};
use toml::de::DeValue;
use utoipa::ToSchema;

use super::printable;

/// A value that a setting has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum SettingValue {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A text, or one of several words.
    Text(String),
}

impl SettingValue {
    /// As it is written in TOML.
    pub(super) fn to_toml(&self) -> String {
        match self {
            Self::Boolean(value) => value.to_string(),
            Self::Integer(number) => number.to_string(),
            Self::Text(text) => toml::Value::from(text.as_str()).to_string(),
        }
    }
}

/// A value as it was found.
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Boolean(bool),
    List(Vec<Value>),
    /// Of the environment or the command line, where all is text.
    Untyped(String),
    /// Something no setting takes.
    Other(String),
}

impl Value {
    pub(super) fn from_toml(value: &DeValue<'_>) -> Self {
        match value {
            DeValue::String(text) => Self::Text(text.to_string()),
            DeValue::Integer(number) => {
                let digits = number.as_str();
                i64::from_str_radix(digits, number.radix())
                    .map_or_else(|_| Self::Other(digits.to_owned()), Self::Integer)
            }
            DeValue::Boolean(value) => Self::Boolean(*value),
            DeValue::Array(list) => {
                Self::List(list.iter().map(|value| Self::from_toml(value.get_ref())).collect())
            }
            DeValue::Float(number) => Self::Other(number.as_str().to_owned()),
            DeValue::Datetime(time) => Self::Other(time.to_string()),
            DeValue::Table(_) => Self::Other("a table".to_owned()),
        }
    }

    /// As the store keeps it: JSON.
    pub(super) fn from_stored(json: &str) -> Self {
        serde_json::from_str::<SettingValue>(json)
            .map_or_else(|_| Self::Other(json.to_owned()), Self::from)
    }

    pub(super) fn text(self) -> Option<String> {
        match self {
            Self::Text(text) | Self::Untyped(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn integer(self) -> Option<i64> {
        match self {
            Self::Integer(number) => Some(number),
            Self::Untyped(text) => text.trim().parse().ok(),
            _ => None,
        }
    }

    pub(super) fn boolean(self) -> Option<bool> {
        match self {
            Self::Boolean(value) => Some(value),
            Self::Untyped(text) => match text.trim().to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }
}

impl From<SettingValue> for Value {
    fn from(value: SettingValue) -> Self {
        match value {
            SettingValue::Boolean(value) => Self::Boolean(value),
            SettingValue::Integer(number) => Self::Integer(number),
            SettingValue::Text(text) => Self::Text(text),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::Untyped(text) => write!(f, "\"{}\"", printable(text)),
            Self::Integer(number) => number.fmt(f),
            Self::Boolean(value) => value.fmt(f),
            Self::List(list) => write!(f, "a list of {}", list.len()),
            Self::Other(text) => f.write_str(&printable(text)),
        }
    }
}
