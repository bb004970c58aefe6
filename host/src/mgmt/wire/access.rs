//! Claim, login, tokens and the audit log, on the wire.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use zeroize::Zeroizing;

use crate::access::{self, Role, Scope, Scopes, SecretText, TokenInfo};
use crate::store::AuditRow;

/// A secret on its way. Wiped when dropped, never printed.
#[derive(Clone, ToSchema)]
#[schema(value_type = String, max_length = 512)]
pub struct Secret(pub Zeroizing<String>);

impl Secret {
    /// One that is to be handed out.
    pub fn of(text: &SecretText) -> Self {
        Self(Zeroizing::new(text.reveal().to_owned()))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Whether this host can be claimed, and what the caller's address may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClaimStatus {
    /// The host has an owner, and cannot be claimed; `null` if it cannot read whether it has one: it cannot be claimed
    /// then either.
    #[schema(required)]
    pub claimed: Option<bool>,
    /// What is wrong and what to do, where `claimed` is `null`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub why_unknown: Option<String>,
    /// Why it can be: `first start`, `prepared`, or `power-button` or `reset-file` if somebody at the machine has taken the
    /// host from its owner. What was paired stays paired then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The next code from this address is looked at after so many seconds. A token is looked at now.
    pub wait_seconds: u64,
    /// How many wrong codes are left until this address waits a minute; one at a time after that.
    pub tries_left: u32,
}

/// Claims the host.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ClaimHost {
    /// The code that the host shows, in either case, with or without spaces and hyphens; or the token of its link.
    pub secret: Secret,
    /// What the host is to be called: 1 to 63 bytes. It holds when the host starts again; until then it is found and shown
    /// under the name from before.
    #[schema(min_length = 1, max_length = 63)]
    pub name: String,
    /// The owner's password: 10 to 128 characters.
    pub password: Secret,
}

/// Who logs in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LoginRole {
    /// May do everything.
    #[default]
    Owner,
    /// May look.
    Viewer,
}

impl From<LoginRole> for Role {
    fn from(role: LoginRole) -> Self {
        match role {
            LoginRole::Owner => Self::Owner,
            LoginRole::Viewer => Self::Viewer,
        }
    }
}

impl From<Role> for LoginRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Owner => Self::Owner,
            Role::Viewer => Self::Viewer,
        }
    }
}

/// Logs in.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct AskLogin {
    /// As whom; the owner unless it is said.
    #[serde(default)]
    pub role: LoginRole,
    /// The password.
    pub password: Secret,
}

/// Somebody is logged in; the cookie says so from now on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Login {
    /// As whom.
    pub role: LoginRole,
    /// What a request that changes something must bring along in the header `x-punktfunk-csrf`.
    pub csrf: String,
    /// The login outlives a restart of the host; not while the host's disk cannot be written.
    pub lasts: bool,
}

/// How a caller is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CallerKind {
    /// Over the local socket.
    Local,
    /// Logged in as the owner.
    Owner,
    /// Logged in to look.
    Viewer,
    /// A program with a token.
    Token,
    /// Not at all.
    Anonymous,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WhoAmI {
    /// How the caller is known.
    pub who: CallerKind,
    /// The host has an owner.
    pub claimed: bool,
    /// A viewer can log in; told to the owner only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub viewer: Option<bool>,
    /// What the caller may.
    pub scopes: Vec<ScopeName>,
    /// What a request that changes something must bring along, if the caller has a cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
}

/// A permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ScopeName {
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

impl ScopeName {
    /// Those of a set.
    pub fn all(scopes: Scopes) -> Vec<Self> {
        scopes.iter().map(Self::from).collect()
    }
}

impl From<Scope> for ScopeName {
    fn from(scope: Scope) -> Self {
        match scope {
            Scope::View => Self::View,
            Scope::Pair => Self::Pair,
            Scope::Play => Self::Play,
            Scope::Manage => Self::Manage,
            Scope::System => Self::System,
        }
    }
}

impl From<ScopeName> for Scope {
    fn from(name: ScopeName) -> Self {
        match name {
            ScopeName::View => Self::View,
            ScopeName::Pair => Self::Pair,
            ScopeName::Play => Self::Play,
            ScopeName::Manage => Self::Manage,
            ScopeName::System => Self::System,
        }
    }
}

/// A login of the owner or of a viewer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsoleSession {
    /// Names it; opens nothing.
    pub id: String,
    /// Who logged in.
    pub role: LoginRole,
    /// It is the caller's own.
    pub current: bool,
    /// When it began, in seconds since 1970.
    pub made_at: u64,
    /// When it was last used, in seconds since 1970.
    pub seen_at: u64,
    /// Where it began; nothing if on the host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote: Option<IpAddr>,
    /// What the browser called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
}

impl ConsoleSession {
    /// One of the sessions, seen from `own`.
    pub fn seen_from(session: access::Session, own: Option<access::SessionId>) -> Self {
        Self {
            id: session.id.to_string(),
            role: session.role.into(),
            current: own == Some(session.id),
            made_at: session.made_at,
            seen_at: session.seen_at,
            remote: session.remote,
            agent: session.agent,
        }
    }
}

/// How many logins were ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LoggedOut {
    /// How many.
    pub ended: usize,
}

/// Changes the owner's password.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangePassword {
    /// The one until now.
    pub old: Secret,
    /// The one from now on: 10 to 128 characters.
    pub new: Secret,
    /// All tokens are removed, as whoever knew the old password could have made some. Yes unless it is said.
    #[serde(default = "yes")]
    #[schema(default = true)]
    pub revoke_tokens: bool,
}

const fn yes() -> bool {
    true
}

/// The password was changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PasswordChange {
    /// What a request that changes something must bring along from now on; nothing if the caller has no cookie.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub csrf: Option<String>,
    /// As many other logins were ended.
    pub ended: usize,
    /// As many tokens were removed.
    pub revoked_tokens: usize,
}

/// Sets the viewer's password.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct SetViewerPassword {
    /// The password: 10 to 128 characters.
    pub password: Secret,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiToken {
    /// Its id.
    pub id: String,
    /// What the owner calls it.
    pub name: String,
    /// What it may.
    pub scopes: Vec<ScopeName>,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// When it was last used, in seconds since 1970, to within five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<u64>,
    /// When it ends, in seconds since 1970; nothing if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<u64>,
}

impl From<TokenInfo> for ApiToken {
    fn from(token: TokenInfo) -> Self {
        Self {
            id: token.id,
            name: token.name,
            scopes: ScopeName::all(token.scopes),
            made_at: token.made_at,
            used_at: token.used_at,
            expires_at: token.expires_at,
        }
    }
}

/// Makes a token.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MakeToken {
    /// What it is for.
    #[schema(min_length = 1)]
    pub name: String,
    /// What it may; at least one.
    #[schema(min_items = 1, max_items = 5)]
    pub scopes: Vec<ScopeName>,
    /// When it ends, in seconds since 1970; never unless it is said.
    #[serde(default)]
    pub expires_at: Option<u64>,
}

/// A token that was just made.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MadeToken {
    /// The token itself, to be sent as `Authorization: Bearer`. It is shown this once.
    pub secret: Secret,
    /// What is kept of it.
    pub token: ApiToken,
}

/// Something that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditLine {
    /// Its number; later ones are greater. Hand it back as `before` to read on.
    pub id: u64,
    /// When, in seconds since 1970.
    pub at: u64,
    /// Who did it.
    pub actor: String,
    /// From where; nothing if on the host itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub remote: Option<IpAddr>,
    /// What was done.
    pub action: String,
    /// To what, or how it went.
    pub detail: String,
}

impl From<AuditRow> for AuditLine {
    fn from(row: AuditRow) -> Self {
        let AuditRow { id, at, actor, remote, action, detail } = row;
        Self { id, at, actor, remote, action, detail }
    }
}
