//! What can be permitted, by itself.

use std::fmt;
use std::str::FromStr;

/// One permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// See how the host is doing, who is paired, who plays.
    View,
    /// Let devices in.
    Pair,
    /// End what devices play.
    Play,
    /// Change devices, apps and settings.
    Manage,
    /// Update, roll back, restart.
    System,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::View, Self::Pair, Self::Play, Self::Manage, Self::System];

    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Pair => "pair",
            Self::Play => "play",
            Self::Manage => "manage",
            Self::System => "system",
        }
    }
}

/// No scope is called so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no permission \"{got}\"; there are view, pair, play, manage and system")]
pub struct ScopeError {
    /// What was found.
    got: String,
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|scope| scope.name() == text);
        found.ok_or_else(|| ScopeError { got: text.chars().take(32).collect() })
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u8);

impl Scopes {
    /// Whether it has this one.
    pub const fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Those it has.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

impl fmt::Debug for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Scope::name)).finish()
    }
}
