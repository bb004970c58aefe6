//! Logging in: console sessions of the owner and of the viewer.
//!
//! A session is 32 random bytes that the browser keeps in a cookie; the host keeps their SHA-256, when it began, and the
//! text that a change must bring along beside the cookie (CSRF). Each login makes a new one and takes none from the
//! request, so that nobody can give a victim a session that he knows. A session ends a week after its last use and a
//! month after it began. While the host runs, both go by the monotonic clock, so that a wall clock that jumps ends
//! nothing and prolongs nothing; over a restart the wall clock is all there is.
//!
//! Wrong passwords are counted per address and per role. Tries of other addresses never make the owner wait.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::limits::Wait;
use super::proof::{ProofKey, ProofVerifier, Verb};
use super::secret::{SecretText, fingerprint, from_hex, hex, sha256};
use super::{
    Access, AccessError, MAX_PASSWORD_CHARS, Moment, Owned, Password, PasswordError, Random,
    RandomError, State,
};
use crate::store::{StoredOwner, StoredSession, clean_name};

/// As many sessions of one role there are; the one that was used longest ago goes.
pub const MAX_SESSIONS: usize = 32;
/// A session ends so long after its last use.
const IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A session ends so long after it began.
const ABSOLUTE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A session's last use is written at most this often.
const TOUCH_INTERVAL: Duration = Duration::from_secs(300);
/// Wrong passwords are written into the log at most this often.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);
/// A session's secret in hex digits.
const SECRET_DIGITS: usize = 64;

/// Who is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// May do everything.
    Owner,
    /// May look.
    Viewer,
}

impl Role {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Viewer => "viewer",
        }
    }
}

/// Names a session without opening it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionId([u8; 32]);

impl fmt::Display for SessionId {
    /// The first 16 hex digits of its hash.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0[..8]))
    }
}

/// A session that lives.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Which.
    pub id: SessionId,
    /// Who is logged in.
    pub role: Role,
    /// What a change must bring along beside the cookie; for the browser that has the cookie.
    pub csrf: String,
    /// When it began, in seconds since 1970.
    pub made_at: u64,
    /// When it was last used, in seconds since 1970.
    pub seen_at: u64,
    /// Where it began; `None` over the local socket.
    pub remote: Option<IpAddr>,
    /// What the browser calls itself.
    pub agent: Option<String>,
}

impl Session {
    /// Whether this is what a change must bring along. In constant time.
    pub fn csrf_matches(&self, csrf: &str) -> bool {
        self.csrf.as_bytes().ct_eq(csrf.as_bytes()).into()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.id)
            .field("role", &self.role)
            .finish_non_exhaustive()
    }
}

/// A session that has just begun.
#[derive(Debug, Clone)]
pub struct LoggedIn {
    /// What the cookie is to hold; known to nobody else.
    pub secret: SecretText,
    /// The session.
    pub session: Session,
}

/// Somebody wants to log in.
pub struct LogIn<'a> {
    /// As whom.
    pub role: Role,
    /// The password as it was typed.
    pub password: &'a str,
    /// Where it comes from; `None` over the local socket.
    pub remote: Option<IpAddr>,
    /// What the browser calls itself.
    pub agent: Option<&'a str>,
}

/// Why nobody was logged in, or a password was not changed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The host has no owner.
    #[error("this host has no owner yet; claim it first, with the code that it shows")]
    Unclaimed,
    /// The password is wrong, or there is no such account; which of the two is not said.
    #[error("that is not the password; try again, or ask the owner")]
    Wrong {
        /// How long until the next try, and how many are left.
        wait: Wait,
    },
    /// This address tried too often.
    #[error(
        "too many wrong passwords came from this address; wait {} seconds",
        wait.wait.as_secs().max(1)
    )]
    Wait {
        /// How long.
        wait: Wait,
    },
    /// The new password cannot be one.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Too many passwords are being checked.
    #[error("the host is busy checking passwords; try again in a moment")]
    Busy,
    /// It is nobody's mistake.
    #[error(transparent)]
    Failed(#[from] AccessError),
}

/// A session on its way into the store and into memory.
pub(super) struct NewLogin {
    pub(super) row: StoredSession,
    secret: SecretText,
    role: Role,
}

impl NewLogin {
    pub(super) fn draw(
        random: &Random,
        role: Role,
        now: Moment,
        remote: Option<IpAddr>,
        agent: Option<&str>,
    ) -> Result<Self, RandomError> {
        let secret = SecretText::draw(random, "")?;
        let row = StoredSession {
            hash: fingerprint(secret.reveal()),
            role: role.name().to_owned(),
            csrf: SecretText::draw(random, "")?.reveal().to_owned(),
            made_at: now.unix,
            seen_at: now.unix,
            remote: remote.map(|remote| remote.to_canonical()),
            agent: agent.and_then(clean_name),
        };
        Ok(Self { row, secret, role })
    }
}

/// The sessions in memory, by the hash of their secret.
pub(super) struct Logins(HashMap<SessionId, Login>);

struct Login {
    session: Session,
    seen_at: Timestamp,
    written_at: Timestamp,
    ends_at: Timestamp,
}

impl Login {
    /// As it was when the wall clock was looked at last.
    fn from_row(row: StoredSession, now: Moment) -> Option<Self> {
        let role = [Role::Owner, Role::Viewer].into_iter().find(|role| role.name() == row.role)?;
        // A wall clock that was set back makes nothing older; it does not make it younger than new either.
        let age = |at: u64| Duration::from_secs(now.unix.saturating_sub(at));
        let seen_at = now.at - age(row.seen_at).min(IDLE);
        Some(Self {
            session: Session {
                id: SessionId(row.hash),
                role,
                csrf: row.csrf,
                made_at: row.made_at,
                seen_at: row.seen_at,
                remote: row.remote,
                agent: row.agent,
            },
            seen_at,
            written_at: seen_at,
            ends_at: now.at + ABSOLUTE.saturating_sub(age(row.made_at)),
        })
        .filter(|login| age(login.session.seen_at) < IDLE && login.lives(now))
    }

    fn lives(&self, now: Moment) -> bool {
        now.at < self.ends_at && now.at.since(self.seen_at) < IDLE
    }
}

impl Logins {
    /// The sessions that live, and the hashes of those that ended while nobody was here.
    pub(super) fn load(rows: Vec<StoredSession>, now: Moment) -> (Self, Vec<[u8; 32]>) {
        let (mut living, mut ended) = (HashMap::new(), vec![]);
        for row in rows {
            let hash = row.hash;
            match Login::from_row(row, now) {
                Some(login) => drop(living.insert(login.session.id, login)),
                None => ended.push(hash),
            }
        }
        (Self(living), ended)
    }

    pub(super) fn insert(&mut self, new: NewLogin, now: Moment) -> LoggedIn {
        let session = Session {
            id: SessionId(new.row.hash),
            role: new.role,
            csrf: new.row.csrf,
            made_at: new.row.made_at,
            seen_at: new.row.seen_at,
            remote: new.row.remote,
            agent: new.row.agent,
        };
        let ends_at = now.at + ABSOLUTE;
        let (seen_at, written_at) = (now.at, now.at);
        let login = Login { session: session.clone(), seen_at, written_at, ends_at };
        self.0.insert(session.id, login);
        LoggedIn { secret: new.secret, session }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// Those that are over, and those that must make room for one more of this role.
    fn superfluous(&self, role: Role, now: Moment) -> Vec<SessionId> {
        let (living, mut gone): (Vec<&Login>, Vec<&Login>) =
            self.0.values().partition(|login| login.lives(now));
        let mut same: Vec<_> = living.into_iter().filter(|l| l.session.role == role).collect();
        same.sort_by_key(|login| std::cmp::Reverse(login.seen_at));
        gone.extend(same.into_iter().skip(MAX_SESSIONS - 1));
        gone.into_iter().map(|login| login.session.id).collect()
    }

    /// Whether somebody is logged in from there.
    fn knows(&self, remote: IpAddr, now: Moment) -> bool {
        let remote = remote.to_canonical();
        self.0.values().any(|login| login.session.remote == Some(remote) && login.lives(now))
    }
}

impl Access {
    /// Logs somebody in.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub fn log_in(&self, login: &LogIn<'_>) -> Result<LoggedIn, LoginError> {
        let now = self.now();
        let kept = self.check_password(login.role, login.password, login.remote, now)?;
        let new = NewLogin::draw(&self.inner.random, login.role, now, login.remote, login.agent)
            .map_err(AccessError::from)?;
        let audit = self.entry(login.role.name(), login.remote, "login", "");
        let _writing = self.writing();
        // The password may have been changed, or the owner may be gone, while this one was hashed.
        let superfluous = {
            let state = self.state();
            if state.kept_password(login.role).as_deref() != Some(&*kept) {
                return Err(LoginError::Wrong { wait: Wait::NONE });
            }
            state.sessions.superfluous(login.role, now)
        };
        self.remove_sessions(&superfluous)?;
        self.inner.store.add_console_session(&new.row, &audit).map_err(AccessError::from)?;
        Ok(self.state().sessions.insert(new, now))
    }

    /// The session whose cookie this is, which is in use now. Touches the disk at most every five minutes.
    pub fn session(&self, cookie: &str) -> Option<Session> {
        let id = session_id(cookie)?;
        let now = self.now();
        let (session, is_due) = {
            let mut state = self.state();
            let login = state.sessions.0.get_mut(&id).filter(|login| login.lives(now))?;
            login.seen_at = now.at;
            login.session.seen_at = now.unix;
            let is_due = now.at.since(login.written_at) >= TOUCH_INTERVAL;
            if is_due {
                login.written_at = now.at;
            }
            (login.session.clone(), is_due)
        };
        if is_due && let Err(error) = self.inner.store.touch_console_session(id.0, now.unix) {
            // It is only that the session may end a few minutes early after a restart.
            tracing::warn!(%error, "a session's last use could not be written");
        }
        Some(session)
    }

    /// The sessions that live, the one used last first.
    pub fn sessions(&self) -> Vec<Session> {
        let now = self.now();
        let state = self.state();
        let mut living: Vec<&Login> =
            state.sessions.0.values().filter(|login| login.lives(now)).collect();
        living.sort_by_key(|login| std::cmp::Reverse(login.seen_at));
        living.into_iter().map(|login| login.session.clone()).collect()
    }

    /// Ends a session.
    ///
    /// # Errors
    /// The disk failed; until the daemon ends the session is over all the same.
    pub fn log_out(&self, id: SessionId) -> Result<(), AccessError> {
        let _writing = self.writing();
        self.remove_sessions(&[id])
    }

    /// Ends all sessions but one; gives how many.
    ///
    /// # Errors
    /// As for [`Access::log_out`].
    pub fn log_out_others(&self, keep: Option<SessionId>) -> Result<usize, AccessError> {
        let _writing = self.writing();
        let others: Vec<SessionId> =
            self.state().sessions.0.keys().copied().filter(|id| Some(*id) != keep).collect();
        self.remove_sessions(&others)?;
        Ok(others.len())
    }

    /// Changes the owner's password and proof key, and ends every session but `keep`. The old password is needed, also
    /// by whoever is logged in: its proof key vouches for the new one.
    ///
    /// # Errors
    /// See [`LoginError`]; nothing has changed then.
    pub fn change_password(
        &self,
        old: &str,
        new: &str,
        keep: Option<SessionId>,
        remote: Option<IpAddr>,
    ) -> Result<(), LoginError> {
        let new = Password::new(new.to_owned())?;
        let now = self.now();
        let kept = self.check_password(Role::Owner, old, remote, now)?;
        let Some(verifier) = self.proof_verifier() else { return Err(LoginError::Unclaimed) };
        let (hash, key) = {
            let seat = self.inner.hashes.sit(true).map_err(|_busy| LoginError::Busy)?;
            let hash = seat.hash(&new, &self.inner.random)?;
            let key = ProofKey::make(&new, seat.cost(), &self.inner.random)?;
            let old = ProofKey::derive(old.as_bytes(), verifier.salt(), seat.cost())?;
            vouch(verifier, &old, &key, &self.inner.random)?;
            (hash, key)
        };
        let audit = self.entry("owner", remote, "password", "changed");
        let _writing = self.writing();
        let owner = match &self.state().owned {
            Owned::Yes(owner) if owner.password == *kept => StoredOwner {
                password: hash,
                proof_salt: key.salt(),
                proof_key: key.public(),
                ..owner.clone()
            },
            _ => return Err(LoginError::Wrong { wait: Wait::NONE }),
        };
        let store = &self.inner.store;
        store.set_owner_password(&owner, keep.map(|id| id.0), &audit).map_err(AccessError::from)?;
        let mut state = self.state();
        state.owned = Owned::Yes(owner);
        state.sessions.0.retain(|id, _| Some(*id) == keep);
        Ok(())
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
        let audit = self.entry("owner", remote, "viewer-password", detail);
        let _writing = self.writing();
        // The owner who asked may be gone since.
        if self.state().kept_password(Role::Owner) != Some(owner) {
            return Err(LoginError::Unclaimed);
        }
        let store = &self.inner.store;
        store.set_viewer_password(hash.as_deref(), &audit).map_err(AccessError::from)?;
        let mut state = self.state();
        if let Owned::Yes(owner) = &mut state.owned {
            owner.viewer_password = hash;
        }
        state.sessions.0.retain(|_, login| login.session.role != Role::Viewer);
        Ok(())
    }

    /// Whether the viewer has a password.
    pub fn has_viewer(&self) -> bool {
        self.state().kept_password(Role::Viewer).is_some()
    }

    /// Counts the try and checks the password; gives what is kept of it.
    fn check_password(
        &self,
        role: Role,
        password: &str,
        remote: Option<IpAddr>,
        now: Moment,
    ) -> Result<String, LoginError> {
        let (kept, known) = {
            let mut state = self.state();
            if matches!(state.owned, Owned::No { .. }) {
                return Err(LoginError::Unclaimed);
            }
            if let Some(remote) = remote {
                let begun = state.passwords[role as usize].begin(remote, now.at);
                begun.map_err(|wait| LoginError::Wait { wait })?;
            }
            // Not the machine's own address: a program of a session has it too.
            let known = remote.is_none_or(|remote| state.sessions.knows(remote, now));
            (state.kept_password(role), known)
        };
        // What is longer than a password can be is none, and is not worth hashing.
        let is_sane = password.len() <= 4 * MAX_PASSWORD_CHARS;
        let password: &[u8] = if is_sane { password.as_bytes() } else { b"" };
        let verified = match self.inner.hashes.sit(known) {
            Ok(seat) => seat.verify(password, kept.as_deref()),
            Err(_busy) => {
                if let Some(remote) = remote {
                    self.state().passwords[role as usize].take_back(remote, now.at);
                }
                return Err(LoginError::Busy);
            }
        };
        match (verified?, kept) {
            (true, Some(kept)) => {
                if let Some(remote) = remote {
                    self.state().passwords[role as usize].succeed(remote);
                }
                Ok(kept)
            }
            _ => Err(LoginError::Wrong { wait: self.note_wrong(role, remote, now) }),
        }
    }

    /// Writes of an address that gets locked, once a minute at most: tries may not push what the owner did out of the log.
    fn note_wrong(&self, role: Role, remote: Option<IpAddr>, now: Moment) -> Wait {
        let Some(remote) = remote else { return Wait::NONE };
        let (wait, is_worth_a_line) = {
            let mut state = self.state();
            let limits = &state.passwords[role as usize];
            let wait = limits.look(remote, now.at);
            let is_due = state.noted_at.is_none_or(|at| now.at.since(at) >= NOTE_INTERVAL);
            let is_worth_a_line = is_due && limits.is_newly_locked(remote, now.at);
            if is_worth_a_line {
                state.noted_at = Some(now.at);
            }
            (wait, is_worth_a_line)
        };
        if is_worth_a_line {
            tracing::warn!(%remote, role = role.name(), "many wrong passwords");
            let written = self.audit("nobody", Some(remote), "login-locked", role.name());
            if let Err(error) = written {
                tracing::warn!(%error, "wrong passwords could not be written into the log");
            }
        }
        wait
    }

    /// Ends sessions in memory first: if the disk fails, they are over at least for this run. To be called by whoever
    /// writes.
    fn remove_sessions(&self, ids: &[SessionId]) -> Result<(), AccessError> {
        if ids.is_empty() {
            return Ok(());
        }
        {
            let mut state = self.state();
            ids.iter().for_each(|id| drop(state.sessions.0.remove(id)));
        }
        let hashes: Vec<[u8; 32]> = ids.iter().map(|id| id.0).collect();
        self.inner.store.remove_console_sessions(&hashes)?;
        Ok(())
    }
}

impl State {
    /// What is kept of a role's password.
    fn kept_password(&self, role: Role) -> Option<String> {
        match (&self.owned, role) {
            (Owned::No { .. }, _) => None,
            (Owned::Yes(owner), Role::Owner) => Some(owner.password.clone()),
            (Owned::Yes(owner), Role::Viewer) => owner.viewer_password.clone(),
        }
    }
}

/// The old key vouches for the new one, to the verifier that this host has. The root-owned verifier of an appliance asks
/// for the same proof.
fn vouch(
    mut verifier: ProofVerifier,
    old: &ProofKey,
    new: &ProofKey,
    random: &Random,
) -> Result<(), LoginError> {
    let mut nonce = Zeroizing::new([0; 32]);
    random(&mut *nonce).map_err(AccessError::from)?;
    let digest = sha256(&[new.salt().as_slice(), new.public().as_slice()].concat());
    let nonce = verifier.challenge(Verb::ReplaceKey, digest, *nonce);
    let proof = old.prove(Verb::ReplaceKey, digest, nonce);
    // Only where password and proof key in the store are not of one password.
    verifier.verify(&proof, Verb::ReplaceKey, digest).map_err(|error| {
        LoginError::Failed(AccessError::Hash(format!("the old key does not vouch: {error}")))
    })
}

fn session_id(cookie: &str) -> Option<SessionId> {
    if cookie.len() != SECRET_DIGITS {
        return None;
    }
    from_hex::<32>(cookie.as_bytes())?;
    Some(SessionId(fingerprint(cookie)))
}
