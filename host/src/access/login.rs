//! Logging in: console sessions of the owner and of the viewer.
//!
//! A session is 32 random bytes that the browser keeps in a cookie; the host keeps their SHA-256, when it began, and the
//! text that a change must bring along beside the cookie (CSRF). Each login makes a new one and takes none from the
//! request, so that nobody can give a victim a session that he knows. A session ends a week after its last use and a
//! month after it began. While the host runs, both go by the monotonic clock, so that a wall clock that jumps ends
//! nothing and prolongs nothing; over a restart the wall clock is all there is.
//!
//! A full disk keeps nobody out: a session that cannot be written lives in memory, is told as a problem, and is tried
//! again while it is used. Nor does it keep anybody in: a session that was ended is over at once, and if its row could
//! not be removed it is told and tried again, because a restart would bring it back.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use subtle::ConstantTimeEq as _;

use super::limits::Wait;
use super::password::{Shown, Try};
use super::secret::{SecretText, fingerprint, from_hex, hex};
use super::{Access, AccessError, Actor, Moment, PasswordError, Random, RandomError, known};
use crate::store::{AuditEntry, AuditKind, StoredSession, clean_name};

/// As many sessions of one role there are; the one that was used longest ago goes.
pub const MAX_SESSIONS: usize = 32;
/// A session ends so long after its last use.
const IDLE: Duration = Duration::from_secs(7 * 24 * 3600);
/// A session ends so long after it began.
const ABSOLUTE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A session's last use is written at most this often.
const TOUCH_INTERVAL: Duration = Duration::from_secs(300);
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

impl SessionId {
    /// Enough of it to count by.
    pub(super) fn short(self) -> [u8; 16] {
        let mut short = [0; 16];
        short.copy_from_slice(&self.0[..16]);
        short
    }
}

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
    /// What the browser is to show at its next login, by which it is known as one that has logged in before.
    pub known: SecretText,
    /// The session.
    pub session: Session,
    /// It outlives a restart of the host; not if it could not be written.
    pub lasts: bool,
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
    /// What it was given at a login before (see [`LoggedIn::known`]).
    pub known: Option<&'a str>,
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
    /// The browser, the address, or strangers in the same network tried too often.
    #[error(
        "too many wrong passwords were tried from here, or by others in this network; wait {} seconds, \
         or use a browser that has logged in before",
        wait.wait.as_secs().max(1)
    )]
    Wait {
        /// How long.
        wait: Wait,
    },
    /// The new password cannot be one.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The caller's own login has ended meanwhile.
    #[error("your login has ended meanwhile, nothing was changed; log in again")]
    LoggedOut,
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
    /// It ends then unless it is used before.
    idle_until: Timestamp,
    ends_at: Timestamp,
    /// The store has it.
    is_saved: bool,
    /// It was ended, and the store has it still.
    is_over: bool,
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
            // Not by `seen_at`, which may lie before the machine's clock began.
            idle_until: now.at + IDLE.saturating_sub(age(row.seen_at)),
            ends_at: now.at + ABSOLUTE.saturating_sub(age(row.made_at)),
            is_saved: true,
            is_over: false,
        })
        .filter(|login| login.lives(now))
    }

    /// As it is written.
    fn row(&self) -> StoredSession {
        let Session { id, role, csrf, made_at, seen_at, remote, agent } = self.session.clone();
        let role = role.name().to_owned();
        StoredSession { hash: id.0, role, csrf, made_at, seen_at, remote, agent }
    }

    fn lives(&self, now: Moment) -> bool {
        !self.is_over && now.at < self.ends_at && now.at < self.idle_until
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

    pub(super) fn insert(
        &mut self,
        new: NewLogin,
        known: SecretText,
        is_saved: bool,
        now: Moment,
    ) -> LoggedIn {
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
        let login = Login {
            session: session.clone(),
            seen_at,
            written_at,
            idle_until: now.at + IDLE,
            ends_at,
            is_saved,
            is_over: false,
        };
        self.0.insert(session.id, login);
        LoggedIn { secret: new.secret, known, session, lasts: is_saved }
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn retain(&mut self, keep: impl Fn(&Session) -> bool) {
        self.0.retain(|_, login| keep(&login.session));
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// This one, if it lives.
    pub(super) fn living(&self, id: SessionId, now: Moment) -> Option<&Session> {
        self.0.get(&id).filter(|login| login.lives(now)).map(|login| &login.session)
    }

    /// As many that live are not in the store.
    pub(super) fn unsaved(&self, now: Moment) -> usize {
        self.0.values().filter(|login| !login.is_saved && login.lives(now)).count()
    }

    /// Those that were ended and that the store has still.
    pub(super) fn unremoved(&self) -> Vec<SessionId> {
        self.0.values().filter(|login| login.is_over).map(|login| login.session.id).collect()
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

    /// Whether somebody is logged in from there in this role.
    pub(super) fn knows(&self, role: Role, remote: IpAddr, now: Moment) -> bool {
        let remote = Some(remote.to_canonical());
        let is_there = |login: &Login| login.session.remote == remote && login.session.role == role;
        self.0.values().any(|login| is_there(login) && login.lives(now))
    }
}

impl Access {
    /// Logs somebody in. A disk that cannot be written keeps nobody out; the login then ends with the daemon, and
    /// [`Access::problems`] tells so.
    ///
    /// # Errors
    /// See [`LoginError`].
    pub fn log_in(&self, login: &LogIn<'_>) -> Result<LoggedIn, LoginError> {
        let now = self.now();
        let LogIn { role, password, remote, .. } = *login;
        let tried = Try { role, password, remote, shown: Shown::Browser(login.known) };
        let kept = self.check_password(&tried, now)?;
        let new = NewLogin::draw(&self.inner.random, role, now, remote, login.agent)
            .map_err(AccessError::from)?;
        let known = known::issue(&self.inner.random, role, &kept).map_err(AccessError::from)?;
        let audit = self.login_entry(role, remote);
        self.finish_removals();
        let _writing = self.writing();
        // The password may have been changed, or the owner may be gone, while this one was hashed.
        let superfluous = {
            let state = self.state();
            if state.kept_password(role).as_deref() != Some(&*kept) {
                return Err(LoginError::Wrong { wait: Wait::NONE });
            }
            state.sessions.superfluous(role, now)
        };
        if let Err(error) = self.remove_sessions(&superfluous) {
            // They are over, and are tried again.
            tracing::warn!(%error, "logins that are over could not be removed");
        }
        let saved = self.write_session(&new.row, &audit);
        if let Err(error) = &saved {
            tracing::warn!(%error, "a login could not be written and ends with this run of the host");
        }
        Ok(self.state().sessions.insert(new, known, saved.is_ok(), now))
    }

    /// The session whose cookie this is, which is in use now. Touches the disk at most every five minutes.
    pub fn session(&self, cookie: &str) -> Option<Session> {
        let id = session_id(cookie)?;
        let now = self.now();
        let (session, is_due, is_saved) = {
            let mut state = self.state();
            let login = state.sessions.0.get_mut(&id).filter(|login| login.lives(now))?;
            (login.seen_at, login.idle_until) = (now.at, now.at + IDLE);
            login.session.seen_at = now.unix;
            let is_due = now.at.since(login.written_at) >= TOUCH_INTERVAL;
            if is_due {
                login.written_at = now.at;
            }
            (login.session.clone(), is_due, login.is_saved)
        };
        if is_due {
            self.finish_removals();
        }
        if is_due && !is_saved {
            self.save_session(id);
        } else if is_due && let Err(error) = self.inner.store.touch_console_session(id.0, now.unix)
        {
            // It is only that the session may end a few minutes early after a restart.
            tracing::warn!(%error, "a session's last use could not be written");
        }
        Some(session)
    }

    /// Writes a session that could not be written when it began; nothing if it has ended meanwhile.
    fn save_session(&self, id: SessionId) {
        let _writing = self.writing();
        let Some((row, role)) =
            self.state().sessions.0.get(&id).map(|login| (login.row(), login.session.role))
        else {
            return;
        };
        let audit = AuditEntry { at: row.made_at, ..self.login_entry(role, row.remote) };
        match self.write_session(&row, &audit) {
            Ok(()) => {
                if let Some(login) = self.state().sessions.0.get_mut(&id) {
                    login.is_saved = true;
                }
            }
            Err(error) => tracing::warn!(%error, "a login can still not be written"),
        }
    }

    /// To be called by whoever writes.
    fn write_session(&self, row: &StoredSession, audit: &AuditEntry) -> Result<(), AccessError> {
        let store = &self.inner.store;
        let written = store.add_console_session(row, audit);
        self.settle(written, || {
            Ok(store.console_sessions()?.iter().any(|there| there.hash == row.hash))
        })
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
    /// The disk failed. The session is over all the same until the daemon ends; that it may come back then is told by
    /// [`Access::problems`], and its removal is tried again while the host is used.
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

    fn login_entry(&self, role: Role, remote: Option<IpAddr>) -> AuditEntry {
        let entry = self.entry(&Actor::of(role), remote, "login", "");
        match role {
            // Apart from what the owner does: there may be many, and they push nothing else out.
            Role::Owner => AuditEntry { kind: AuditKind::Login, ..entry },
            Role::Viewer => entry,
        }
    }

    /// Ends sessions in memory first: if the disk fails, they are over at least for this run, and those that the store
    /// has are kept in mind for another try. To be called by whoever writes.
    pub(super) fn remove_sessions(&self, ids: &[SessionId]) -> Result<(), AccessError> {
        let hashes: Vec<[u8; 32]> = {
            let mut state = self.state();
            let mut end = |id: &SessionId| {
                let login = state.sessions.0.get_mut(id)?;
                login.is_over = true;
                Some(id.0)
            };
            ids.iter().filter_map(&mut end).collect()
        };
        if hashes.is_empty() {
            return Ok(());
        }
        let store = &self.inner.store;
        let written = store.remove_console_sessions(&hashes);
        let removed = self.settle(written, || {
            Ok(!store.console_sessions()?.iter().any(|row| hashes.contains(&row.hash)))
        });
        let is_left = |login: &Login| login.is_saved && removed.is_err();
        self.state().sessions.0.retain(|id, login| !ids.contains(id) || is_left(login));
        removed
    }
}

fn session_id(cookie: &str) -> Option<SessionId> {
    if cookie.len() != SECRET_DIGITS {
        return None;
    }
    from_hex::<32>(cookie.as_bytes())?;
    Some(SessionId(fingerprint(cookie)))
}
