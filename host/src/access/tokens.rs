//! Tokens: how a program of the owner's gets in, with some permissions and never as the owner.
//!
//! `pf_` and 32 random bytes in hex, shown once. The store keeps the SHA-256; whoever reads it finds nothing to come in
//! with. A token's end is a date of the wall clock, because it must survive restarts; a clock that is set back prolongs
//! it.
//!
//! A token that was removed opens nothing from then on, also if the disk failed: it is then listed still, told as a
//! problem, and its removal is tried again, because a restart would bring it back.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::secret::{SecretText, fingerprint, hex};
use super::{Access, AccessError, Actor, Scope, Scopes};
use crate::store::{AuditEntry, StoredToken, clean_name};

/// As many tokens there are.
pub const MAX_TOKENS: usize = 64;
/// What each begins with, so that one is known where it should not be.
const PREFIX: &str = "pf_";
/// The length of a token in characters.
const TOKEN_CHARS: usize = PREFIX.len() + 64;
/// A token's last use is written at most this often.
const TOUCH_INTERVAL: Duration = Duration::from_secs(300);

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its id: 16 hex digits.
    pub id: String,
    /// What the owner calls it.
    pub name: String,
    /// What it may.
    pub scopes: Scopes,
    /// When it was made, in seconds since 1970.
    pub made_at: u64,
    /// When it was last used, in seconds since 1970, to within five minutes.
    pub used_at: Option<u64>,
    /// When it ends, in seconds since 1970; `None` is never.
    pub expires_at: Option<u64>,
}

/// A token that was just made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The token itself; known to nobody else, and never to be had again.
    pub secret: SecretText,
    /// What is kept of it.
    pub info: TokenInfo,
}

/// What a token opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenGrant {
    /// Which it is.
    pub id: String,
    /// What it may.
    pub scopes: Scopes,
}

/// Why no token was made or removed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// There are as many as there may be.
    #[error("there are {MAX_TOKENS} tokens, which is the limit; remove one first")]
    TooMany,
    /// The host has no owner.
    #[error("this host has no owner yet; claim it first, with the code that it shows")]
    Unclaimed,
    /// The name is empty.
    #[error("a token needs a name, so that you know later what it is for")]
    Name,
    /// It would open nothing.
    #[error("a token needs at least one permission: view, pair, play, manage or system")]
    Scopes,
    /// It would have ended already.
    #[error("a token's end must lie in the future")]
    Expired,
    /// There is no such token.
    #[error("there is no token with this id")]
    Unknown,
    /// It is nobody's mistake.
    #[error(transparent)]
    Failed(#[from] AccessError),
}

/// The tokens in memory, by the hash of their secret.
pub(super) struct Tokens(HashMap<[u8; 32], Token>);

struct Token {
    info: TokenInfo,
    written_at: Option<u64>,
    /// It was removed, and the store has it still; what is to be written of it.
    removed: Option<AuditEntry>,
}

impl Tokens {
    pub(super) fn load(rows: Vec<StoredToken>) -> Self {
        let token = |row: StoredToken| {
            // A permission that this host does not know gives nothing.
            let scopes = row.scopes.split(',').filter_map(|name| name.parse::<Scope>().ok());
            let info = TokenInfo {
                id: row.id,
                name: row.name,
                scopes: scopes.collect(),
                made_at: row.made_at,
                used_at: row.used_at,
                expires_at: row.expires_at,
            };
            (row.hash, Token { info, written_at: row.used_at, removed: None })
        };
        Self(rows.into_iter().map(token).collect())
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Those that were removed and that the store has still, by the hash of their secret.
    pub(super) fn unremoved(&self) -> Vec<[u8; 32]> {
        let removed = self.0.iter().filter(|(_, token)| token.removed.is_some());
        removed.map(|(hash, _)| *hash).collect()
    }
}

impl Token {
    fn lives(&self, unix: u64) -> bool {
        self.removed.is_none() && self.info.lives(unix)
    }
}

impl TokenInfo {
    fn lives(&self, unix: u64) -> bool {
        self.expires_at.is_none_or(|end| unix < end)
    }
}

impl Access {
    /// Makes a token.
    ///
    /// # Errors
    /// See [`TokenError`]; nothing has changed then.
    pub fn make_token(
        &self,
        name: &str,
        scopes: Scopes,
        expires_at: Option<u64>,
        remote: Option<IpAddr>,
    ) -> Result<NewToken, TokenError> {
        let now = self.now().unix;
        let name = clean_name(name).ok_or(TokenError::Name)?;
        let names: Vec<&str> = scopes.iter().map(Scope::name).collect();
        if names.is_empty() {
            return Err(TokenError::Scopes);
        }
        if expires_at.is_some_and(|end| end <= now) {
            return Err(TokenError::Expired);
        }
        let secret = SecretText::draw(&self.inner.random, PREFIX).map_err(AccessError::from)?;
        let mut id = [0; 8];
        (self.inner.random)(&mut id).map_err(AccessError::from)?;
        let row = StoredToken {
            id: hex(&id),
            hash: fingerprint(secret.reveal()),
            name,
            scopes: names.join(","),
            made_at: now,
            used_at: None,
            expires_at,
        };
        let audit =
            self.entry(&Actor::Owner, remote, "token-made", &format!("{} {}", row.id, row.name));
        let _writing = self.writing();
        // The owner who asked may be gone since.
        if !self.is_claimed() {
            return Err(TokenError::Unclaimed);
        }
        if self.state().tokens.0.len() >= MAX_TOKENS {
            return Err(TokenError::TooMany);
        }
        let store = &self.inner.store;
        let written = store.add_token(&row, &audit);
        self.settle(written, || Ok(store.tokens()?.contains(&row)))?;
        let info = TokenInfo {
            id: row.id,
            name: row.name,
            scopes,
            made_at: now,
            used_at: None,
            expires_at,
        };
        let token = Token { info: info.clone(), written_at: None, removed: None };
        self.state().tokens.0.insert(row.hash, token);
        Ok(NewToken { secret, info })
    }

    /// What this token opens, which is in use now. Touches the disk at most every five minutes.
    pub fn token(&self, secret: &str) -> Option<TokenGrant> {
        if secret.len() != TOKEN_CHARS || !secret.starts_with(PREFIX) {
            return None;
        }
        let now = self.now().unix;
        let (grant, is_due) = {
            let mut state = self.state();
            let token = state.tokens.0.get_mut(&fingerprint(secret))?;
            if !token.lives(now) {
                return None;
            }
            token.info.used_at = Some(now);
            let is_due =
                token.written_at.is_none_or(|at| now.abs_diff(at) >= TOUCH_INTERVAL.as_secs());
            if is_due {
                token.written_at = Some(now);
            }
            let grant = TokenGrant { id: token.info.id.clone(), scopes: token.info.scopes };
            (grant, is_due)
        };
        if is_due {
            self.finish_removals();
        }
        if is_due && let Err(error) = self.inner.store.touch_token(&grant.id, now) {
            // It is only shown.
            tracing::warn!(%error, "a token's last use could not be written");
        }
        Some(grant)
    }

    /// All tokens, also those whose end has come or whose removal the disk did not take, in the order in which they were made.
    pub fn tokens(&self) -> Vec<TokenInfo> {
        let mut tokens: Vec<TokenInfo> =
            self.state().tokens.0.values().map(|token| token.info.clone()).collect();
        tokens.sort_by(|one, other| (one.made_at, &one.id).cmp(&(other.made_at, &other.id)));
        tokens
    }

    /// Removes a token; it opens nothing any more.
    ///
    /// # Errors
    /// There is no such token, or the disk failed. Then it opens nothing all the same until the daemon ends; that it may
    /// come back then is told by [`Access::problems`], and its removal is tried again: by the next call of this, and
    /// while the host is used.
    pub fn remove_token(&self, id: &str, remote: Option<IpAddr>) -> Result<(), TokenError> {
        let _writing = self.writing();
        let hash = {
            let mut state = self.state();
            let found = state.tokens.0.iter_mut().find(|(_, token)| token.info.id == id);
            let (hash, token) = found.ok_or(TokenError::Unknown)?;
            let detail = format!("{id} {}", token.info.name);
            let entry = || self.entry(&Actor::Owner, remote, "token-removed", &detail);
            token.removed.get_or_insert_with(entry);
            *hash
        };
        Ok(self.finish_token(hash)?)
    }

    /// Removes what was ended while the disk failed. Waits for whoever writes, if there is something to do.
    pub(super) fn finish_removals(&self) {
        if self.state().unremoved() == 0 {
            return;
        }
        let _writing = self.writing();
        let (tokens, logins) = {
            let state = self.state();
            (state.tokens.unremoved(), state.sessions.unremoved())
        };
        let tokens = tokens.into_iter().try_for_each(|hash| self.finish_token(hash));
        if let Err(error) = tokens.and(self.remove_sessions(&logins)) {
            tracing::warn!(%error, "what was ended can still not be removed from the disk");
        }
    }

    /// Takes a token that was removed out of the store, and only then out of memory. To be called by whoever writes.
    fn finish_token(&self, hash: [u8; 32]) -> Result<(), AccessError> {
        let removed = {
            let state = self.state();
            let token = state.tokens.0.get(&hash);
            token.and_then(|token| Some((token.info.id.clone(), token.removed.clone()?)))
        };
        let Some((id, audit)) = removed else { return Ok(()) };
        let store = &self.inner.store;
        let written = store.remove_token(&id, &audit);
        self.settle(written, || Ok(!store.tokens()?.iter().any(|row| row.hash == hash)))?;
        self.state().tokens.0.remove(&hash);
        Ok(())
    }
}
