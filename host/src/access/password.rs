//! Passwords at work: tries are counted and checked, and passwords are changed.
//!
//! Wrong passwords are counted per role and by who tries them (see [`limits`](super::limits)): a browser that has logged
//! in before by itself, anybody else by address. So nobody else's tries lock the owner's browser, and whoever is logged
//! in spends tries of that login only, wherever he is.
//!
//! A new password is what an owner sets who fears that somebody else knows the old one. So every login ends with it, the
//! caller's own begins anew under another cookie, and tokens go, too, unless the owner says that they stay.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::limits::{Trier, Wait};
use super::login::{LoggedIn, LoginError, NewLogin, Role, SessionId};
use super::proof::{ProofKey, ProofVerifier, Verb};
use super::{
    Access, AccessError, Actor, MAX_PASSWORD_CHARS, Moment, NOTE_INTERVAL, Owned, Password, Random,
    State, known,
};
use crate::store::{NewPassword, StoredOwner};

/// The owner wants another password.
pub struct ChangePassword<'a> {
    /// The one until now, also from whoever is logged in: its proof key vouches for the new one.
    pub old: &'a str,
    /// The one from now on.
    pub new: &'a str,
    /// The login that asks; `None` over the local socket without one.
    pub own: Option<SessionId>,
    /// Where it comes from; `None` over the local socket.
    pub remote: Option<IpAddr>,
    /// Tokens stay good.
    pub keep_tokens: bool,
}

/// A password was changed.
#[derive(Debug)]
pub struct PasswordChanged {
    /// The caller's login, begun anew; `None` if the caller had none.
    pub login: Option<LoggedIn>,
    /// As many other logins ended.
    pub ended: usize,
    /// As many tokens were removed.
    pub removed_tokens: usize,
}

/// Somebody shows a password.
pub(super) struct Try<'a> {
    pub(super) role: Role,
    pub(super) password: &'a str,
    /// `None` over the local socket, where nothing is counted.
    pub(super) remote: Option<IpAddr>,
    pub(super) shown: Shown<'a>,
}

/// What is shown beside the password.
pub(super) enum Shown<'a> {
    /// What a browser was given that has logged in before, if it was.
    Browser(Option<&'a str>),
    /// A login that lives.
    Login(SessionId),
}

impl Access {
    /// Changes the owner's password and proof key. Every login ends, the caller's begins anew with another secret; tokens
    /// go unless they are to stay.
    ///
    /// # Errors
    /// See [`LoginError`]; nothing has changed then.
    pub fn change_password(
        &self,
        change: &ChangePassword<'_>,
    ) -> Result<PasswordChanged, LoginError> {
        let ChangePassword { remote, own, keep_tokens, .. } = *change;
        let new = Password::new(change.new.to_owned())?;
        let now = self.now();
        let shown = own.map_or(Shown::Browser(None), Shown::Login);
        let tried = Try { role: Role::Owner, password: change.old, remote, shown };
        let kept = self.check_password(&tried, now)?;
        let Some(verifier) = self.proof_verifier() else { return Err(LoginError::Unclaimed) };
        let (hash, old, key) = {
            let seat = self.inner.hashes.sit(true).map_err(|_busy| LoginError::Busy)?;
            let hash = seat.hash(&new, &self.inner.random)?;
            let key = ProofKey::make(&new, seat.cost(), &self.inner.random)?;
            let old = ProofKey::derive(change.old.as_bytes(), verifier.salt(), seat.cost())?;
            vouch(verifier, &old, &key, &self.inner.random)?;
            (hash, old, key)
        };
        let audit = self.entry(&Actor::Owner, remote, "password", "changed");
        let _writing = self.writing();
        let (owner, login) = {
            let state = self.state();
            let owner = match &state.owned {
                Owned::Yes(owner) if owner.password == *kept => StoredOwner {
                    password: hash,
                    proof_salt: key.salt(),
                    proof_key: key.public(),
                    vouch: owner.vouch.as_ref().and_then(|vouch| vouch.extended(&old, &key)),
                    ..owner.clone()
                },
                _ => return Err(LoginError::Wrong { wait: Wait::NONE }),
            };
            (owner, own.map(|own| state.again(own, &self.inner.random, now)).transpose()?)
        };
        let known = (login.is_some())
            .then(|| known::issue(&self.inner.random, Role::Owner, &owner.password))
            .transpose()
            .map_err(AccessError::from)?;
        let store = &self.inner.store;
        let written = store.set_owner_password(&NewPassword {
            owner: &owner,
            session: login.as_ref().map(|login| &login.row),
            keep_tokens,
            audit: &audit,
        });
        self.settle(written, || Ok(store.owner()?.as_ref() == Some(&owner)))?;
        let mut state = self.state();
        state.owned = Owned::Yes(owner);
        let (had, had_tokens) = (state.sessions.count(), state.tokens.count());
        state.sessions.clear();
        if !keep_tokens {
            state.tokens.clear();
        }
        let ended = had.saturating_sub(usize::from(login.is_some()));
        let removed_tokens = had_tokens - state.tokens.count();
        let login = login.zip(known).map(|(login, known)| {
            let is_saved = true;
            state.sessions.insert(login, known, is_saved, now)
        });
        drop(state);
        self.changed();
        Ok(PasswordChanged { login, ended, removed_tokens })
    }

    /// Gives the viewer a password, another one, or none; ends the viewer's sessions.
    ///
    /// # Errors
    /// See [`LoginError`]; nothing has changed then.
    pub fn set_viewer_password(
        &self,
        password: Option<&str>,
        remote: Option<IpAddr>,
    ) -> Result<(), LoginError> {
        let password = password.map(|password| Password::new(password.to_owned())).transpose()?;
        let owner = self.state().kept_password(Role::Owner).ok_or(LoginError::Unclaimed)?;
        let hash = match &password {
            Some(password) => {
                let seat = self.inner.hashes.sit(true).map_err(|_busy| LoginError::Busy)?;
                Some(seat.hash(password, &self.inner.random)?)
            }
            None => None,
        };
        let detail = if hash.is_some() { "set" } else { "removed" };
        let audit = self.entry(&Actor::Owner, remote, "viewer-password", detail);
        let _writing = self.writing();
        // The owner who asked may be gone since.
        if self.state().kept_password(Role::Owner) != Some(owner) {
            return Err(LoginError::Unclaimed);
        }
        let store = &self.inner.store;
        let written = store.set_viewer_password(hash.as_deref(), &audit);
        self.settle(written, || {
            Ok(store.owner()?.is_some_and(|owner| owner.viewer_password == hash))
        })?;
        let mut state = self.state();
        if let Owned::Yes(owner) = &mut state.owned {
            owner.viewer_password = hash;
        }
        state.sessions.retain(|session| session.role != Role::Viewer);
        Ok(())
    }

    /// Whether the viewer has a password.
    pub fn has_viewer(&self) -> bool {
        self.state().kept_password(Role::Viewer).is_some()
    }

    /// Counts the try and checks the password; gives what is kept of it.
    pub(super) fn check_password(
        &self,
        tried: &Try<'_>,
        now: Moment,
    ) -> Result<String, LoginError> {
        let role = tried.role;
        let (kept, who) = {
            let mut state = self.state();
            if matches!(state.owned, Owned::No { .. }) {
                return Err(LoginError::Unclaimed);
            }
            let who = state.trier(tried, now);
            if let Some(who) = who {
                let begun = state.passwords[role as usize].begin(who, now.at);
                begun.map_err(|wait| LoginError::Wait { wait })?;
            }
            (state.kept_password(role), who)
        };
        // The second seat is the owner's: no viewer takes it, however often he logs in.
        let is_known = match who {
            None => true,
            Some(who) => role == Role::Owner && !who.is_stranger(),
        };
        // What is longer than a password can be is none, and is not worth hashing.
        let is_sane = tried.password.len() <= 4 * MAX_PASSWORD_CHARS;
        let password: &[u8] = if is_sane { tried.password.as_bytes() } else { b"" };
        let verified = match self.inner.hashes.sit(is_known) {
            Ok(seat) => seat.verify(password, kept.as_deref()),
            Err(_busy) => {
                if let Some(who) = who {
                    self.state().passwords[role as usize].take_back(who, now.at);
                }
                return Err(LoginError::Busy);
            }
        };
        match (verified?, kept) {
            (true, Some(kept)) => {
                if let Some(who) = who {
                    self.state().passwords[role as usize].succeed(who, now.at);
                }
                Ok(kept)
            }
            _ => Err(LoginError::Wrong { wait: self.note_wrong(tried, who, now) }),
        }
    }

    /// Writes of somebody who gets locked, once a minute at most.
    fn note_wrong(&self, tried: &Try<'_>, who: Option<Trier>, now: Moment) -> Wait {
        let Some(who) = who else { return Wait::NONE };
        let (role, remote) = (tried.role.name(), tried.remote);
        let (wait, is_worth_a_line) = {
            let mut state = self.state();
            let limits = &state.passwords[tried.role as usize];
            let wait = limits.look(who, now.at);
            let is_due = state.noted_at.is_none_or(|at| now.at.since(at) >= NOTE_INTERVAL);
            let is_worth_a_line = is_due && limits.is_worth_telling(who, now.at);
            if is_worth_a_line {
                state.noted_at = Some(now.at);
            }
            (wait, is_worth_a_line)
        };
        if is_worth_a_line {
            tracing::warn!(?remote, role, "many wrong passwords");
            if let Err(error) = self.audit(&Actor::Nobody, remote, "login-locked", role) {
                tracing::warn!(%error, "wrong passwords could not be written into the log");
            }
        }
        wait
    }
}

impl State {
    /// What is kept of a role's password.
    pub(super) fn kept_password(&self, role: Role) -> Option<String> {
        match (&self.owned, role) {
            (Owned::No { .. }, _) => None,
            (Owned::Yes(owner), Role::Owner) => Some(owner.password.clone()),
            (Owned::Yes(owner), Role::Viewer) => owner.viewer_password.clone(),
        }
    }

    /// By what a try is counted; `None` over the local socket.
    fn trier(&self, tried: &Try<'_>, now: Moment) -> Option<Trier> {
        let remote = tried.remote?;
        let browser = match tried.shown {
            Shown::Login(id) => Some(id.short()),
            Shown::Browser(text) => text
                .zip(self.kept_password(tried.role))
                .and_then(|(text, kept)| known::recognise(text, tried.role, &kept)),
        };
        Some(match browser {
            Some(name) => Trier::browser(name),
            None if self.sessions.knows(tried.role, remote, now) => Trier::at_known_address(remote),
            None => Trier::stranger(remote),
        })
    }

    /// A login that lives, under another secret.
    fn again(&self, own: SessionId, random: &Random, now: Moment) -> Result<NewLogin, LoginError> {
        let old = self.sessions.living(own, now).filter(|old| old.role == Role::Owner);
        let old = old.ok_or(LoginError::LoggedOut)?;
        let drawn = NewLogin::draw(random, Role::Owner, now, old.remote, old.agent.as_deref());
        Ok(drawn.map_err(AccessError::from)?)
    }
}

/// The old key vouches for the new one, to the verifier that this host has. Root's program on a box asks for the same
/// proof (see [`vouch`](super::vouch)).
fn vouch(
    mut verifier: ProofVerifier,
    old: &ProofKey,
    new: &ProofKey,
    random: &Random,
) -> Result<(), LoginError> {
    let mut nonce = Zeroizing::new([0; 32]);
    random(&mut *nonce).map_err(AccessError::from)?;
    let digest = new.digest();
    let nonce = verifier.challenge(Verb::ReplaceKey, digest, *nonce);
    let proof = old.prove(Verb::ReplaceKey, digest, nonce);
    // Only where password and proof key in the store are not of one password.
    verifier.verify(&proof, Verb::ReplaceKey, digest, None).map_err(|error| {
        LoginError::Failed(AccessError::Hash(format!("the old key does not vouch: {error}")))
    })
}
