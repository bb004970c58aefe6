//! Who the owner is, who may come in, and what each may do.
//!
//! A host without an owner has a claim: a long token (for links) and a short code (for people), made once and dead as
//! soon as the host is claimed. A host with an owner has a password, console sessions, tokens for programs, and a log of
//! what was done. All of it lies in the store; what is asked for each request also lies in memory. [`Access`] is the
//! handle on it; clones share it.
//!
//! Each change is one transaction of the store and only then a change in memory, in one order: a host is claimed or not,
//! never half, wherever the power goes. Password hashing is slow by intent, so it happens outside of every lock and only
//! two at a time. Tries at a secret are counted before they are made, so that tries side by side count too. Time and
//! randomness come in with the options. The calls here may block; none is for an async thread but those that say that
//! they do not touch the disk.
//!
//! Deliberately absent: a default password, a password that the first visitor chooses, a way to get in without either
//! the password or somebody at the machine, and any count of tries that could keep out whoever holds the token.

mod claim;
mod deed;
mod file;
mod hash;
mod known;
mod limits;
mod login;
mod password;
mod preseed;
mod presence;
mod proof;
mod scope;
mod secret;
mod tokens;
mod vouch;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use punktfunk_core::time::Timestamp;
use tokio::sync::watch;
use zeroize::Zeroizing;

use self::file::ClaimFile;
use self::hash::HashDesk;
use self::limits::Limits;
use self::login::Logins;
use self::tokens::Tokens;
use crate::store::{
    AuditEntry, AuditKind, AuditRow, Store, StoreError, StoredClaim, StoredLink, StoredOwner,
    unix_now,
};

pub use claim::{ClaimAttempt, ClaimError, ClaimState};
pub use deed::{Asked, Deed, Root, RootError, SimulatedRoot, Wish, WishError};
pub use hash::{HashCost, MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS, Password, PasswordError};
pub use limits::{Allowance, CLAIM_LIMITS, LOGIN_LIMITS, LimitRules, Wait};
pub use login::{LogIn, LoggedIn, LoginError, MAX_SESSIONS, Role, Session, SessionId};
pub use password::{ChangePassword, PasswordChanged};
pub use preseed::{Preseed, PreseedError, PreseedOutcome};
pub use presence::{Presence, Presses};
pub use proof::{Nonce, OwnerProof, ProofError, ProofKey, ProofVerifier, Verb};
pub use scope::{Scope, ScopeError, Scopes};
pub use secret::{CLAIM_CODE_CHARS, ClaimSecret, RandomError, SecretText};
pub use tokens::{MAX_TOKENS, NewToken, TokenError, TokenGrant, TokenInfo};

pub use crate::store::PreparedNetwork;

/// The longest detail of an entry of the audit log, in characters; the rest is cut off.
const MAX_DETAIL_CHARS: usize = 256;
/// As many entries of the audit log a page has at most.
pub const MAX_AUDIT_PAGE: u32 = 200;

/// Wrong passwords are written into the log at most this often.
const NOTE_INTERVAL: Duration = Duration::from_secs(60);

/// Why something of this room failed that is nobody's mistake.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The store failed, and whether it did what it was to do cannot be told.
    #[error(
        "the disk failed while this was written, and again when it was looked at ({source}): whether it \
         was done shows after a restart of the host"
    )]
    Uncertain {
        /// How it failed at first.
        source: StoreError,
    },
    /// There was no randomness to make a secret of.
    #[error(transparent)]
    Random(#[from] RandomError),
    /// A password could not be hashed.
    #[error("a password could not be hashed: {0}")]
    Hash(String),
    /// The file that shows the claim could not be written.
    #[error("cannot write {}, which shows how to claim this host: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Now, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Of the monotonic clock: what expires while the host runs goes by it.
    pub at: Timestamp,
    /// In seconds since 1970: what must survive a restart, and what is shown.
    pub unix: u64,
}

/// The clock of this room.
pub type Clock = Arc<dyn Fn() -> Moment + Send + Sync>;

/// The randomness of this room: fills the bytes, or says that there is none.
pub type Random = Arc<dyn Fn(&mut [u8]) -> Result<(), RandomError> + Send + Sync>;

/// How the room is set up.
#[derive(Clone)]
pub struct AccessOptions {
    /// Where the file that shows the claim is put: the state folder.
    pub folder: PathBuf,
    /// The clock.
    pub clock: Clock,
    /// The randomness.
    pub random: Random,
    cost: HashCost,
}

impl AccessOptions {
    /// With the machine's clock and randomness, and the cost of hashes that the product has.
    pub fn of_machine(folder: PathBuf) -> Self {
        let clock = || Moment { at: crate::clock::now(), unix: unix_now() };
        Self {
            folder,
            clock: Arc::new(clock),
            random: Arc::new(secret::system_random),
            cost: HashCost::PRODUCT,
        }
    }

    /// With hashes that cost nothing and protect nothing. For tests, which make thousands.
    #[must_use]
    pub fn dangerous_with_cheap_hashes(mut self) -> Self {
        self.cost = HashCost::DANGEROUS_CHEAP;
        self
    }
}

impl std::fmt::Debug for AccessOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessOptions").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// Who did something, as the log names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Actor {
    /// The owner, logged in.
    Owner,
    /// Somebody whom the kernel vouches for, by uid.
    Local(u32),
    /// Somebody who is at the machine.
    AtMachine,
    /// A program, by the id of its token.
    Program(String),
    /// The viewer.
    Viewer,
    /// A stranger.
    Nobody,
}

impl Actor {
    fn of(role: Role) -> Self {
        match role {
            Role::Owner => Self::Owner,
            Role::Viewer => Self::Viewer,
        }
    }

    fn kind(&self) -> AuditKind {
        match self {
            Self::Owner | Self::Local(_) | Self::AtMachine => AuditKind::Deed,
            Self::Program(_) => AuditKind::Program,
            Self::Viewer => AuditKind::Viewer,
            Self::Nobody => AuditKind::Stranger,
        }
    }
}

impl std::fmt::Display for Actor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Owner => f.write_str("owner"),
            Self::Local(uid) => write!(f, "uid {uid} on the host"),
            Self::AtMachine => f.write_str("somebody at the machine"),
            Self::Program(id) => write!(f, "token {id}"),
            Self::Viewer => f.write_str("viewer"),
            Self::Nobody => f.write_str("nobody"),
        }
    }
}

/// Shows no claim any more in this state folder, whose store cannot be opened: what is shown there from before would be
/// taken for one that is in force. The next start that can read the store shows it again.
pub fn hide_claim(folder: &Path) {
    ClaimFile::new(folder).remove();
}

/// The owner's door; clones share it.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    clock: Clock,
    random: Random,
    hashes: HashDesk,
    file: ClaimFile,
    // Held from the decision to write until memory says the same as the store. Taken before `state`, never after.
    writing: Mutex<()>,
    // Held for moments, never over the disk or a hash.
    state: Mutex<State>,
    /// What else forgets the owner when the claim is armed again.
    forget: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// Who does what the owner proves to want.
    root: OnceLock<Arc<dyn Root>>,
    // Held from the question to the proof. Taken before all others.
    proving: Mutex<()>,
    /// Whoever shows who owns the host.
    changes: watch::Sender<()>,
}

/// Who owns the host, as what shows it or vouches for it is told.
pub enum Ownership {
    /// Nobody; whoever has one of these secrets can.
    Claimable {
        /// The long one, 32 hex digits.
        token: Zeroizing<String>,
        /// The short one.
        code: Zeroizing<String>,
    },
    /// Somebody, whose proofs are checked with this.
    Owned {
        /// What the key is made with beside the password.
        salt: [u8; 16],
        /// The public key.
        key: [u8; 32],
        /// The keys since the one that root's program keeps, with what vouches for them; none as far as it keeps this
        /// one, or nothing can vouch.
        links: Vec<StoredLink>,
    },
}

struct State {
    owned: Owned,
    claims: Limits,
    /// By role: the viewer's right password does not buy tries at the owner's.
    passwords: [Limits; 2],
    sessions: Logins,
    tokens: Tokens,
    /// When wrong passwords were last written into the log.
    noted_at: Option<Timestamp>,
    /// Why the claim that is in force is not shown in its file.
    unshown: Option<String>,
    /// When a good proof was refused because nobody was at the machine.
    awaited_at: Option<Timestamp>,
}

/// Whether the host has an owner.
enum Owned {
    No { claim: StoredClaim, failures: u32 },
    Yes(StoredOwner),
}

impl State {
    /// As many logins and tokens were ended and are in the store still.
    fn unremoved(&self) -> usize {
        self.sessions.unremoved().len() + self.tokens.unremoved().len()
    }
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("claimed", &self.is_claimed()).finish_non_exhaustive()
    }
}

impl Access {
    /// Reads who owns the host. One without an owner gets a claim, if it has none, and the file `claim.json` that shows
    /// it; one with an owner has no such file after this.
    ///
    /// # Errors
    /// The store failed, there is no randomness, or the file could not be written.
    pub fn open(store: Store, options: AccessOptions) -> Result<Self, AccessError> {
        let AccessOptions { folder, clock, random, cost } = options;
        let now = clock();
        let file = ClaimFile::new(&folder);
        let owned = match (store.owner()?, store.claim()?) {
            (Some(owner), _) => Owned::Yes(owner),
            (None, Some(claim)) => Owned::No { claim, failures: 0 },
            (None, None) => {
                let claim = secret::new_claim(&random, now, "first start")?;
                store.put_claim(&claim)?;
                Owned::No { claim, failures: 0 }
            }
        };
        let (sessions, ended) = Logins::load(store.console_sessions()?, now);
        if let Err(error) = store.remove_console_sessions(&ended) {
            // They are over, whether the store still has them or not.
            tracing::warn!(%error, "logins that are over could not be removed");
        }
        let state = State {
            owned,
            claims: Limits::new(CLAIM_LIMITS),
            passwords: [Limits::new(LOGIN_LIMITS), Limits::new(LOGIN_LIMITS)],
            sessions,
            tokens: Tokens::load(store.tokens()?),
            noted_at: None,
            unshown: None,
            awaited_at: None,
        };
        let hashes = HashDesk::new(cost, &random)?;
        let inner = Inner {
            store,
            clock,
            random,
            hashes,
            file,
            writing: Mutex::new(()),
            state: Mutex::new(state),
            forget: OnceLock::new(),
            root: OnceLock::new(),
            proving: Mutex::new(()),
            changes: watch::Sender::new(()),
        };
        let access = Self { inner: Arc::new(inner) };
        match access.claim_in_force() {
            None => access.inner.file.remove(),
            Some(claim) => access.show(&claim),
        }
        Ok(access)
    }

    /// What is to be done, beside what this room does itself, when the claim is armed again and the host has no owner any
    /// more: before [`Access::rearm`] returns. Once; must not call this room.
    pub fn on_rearm(&self, forget: impl Fn() + Send + Sync + 'static) {
        // There is one daemon, which says it once.
        let _ = self.inner.forget.set(Box::new(forget));
    }

    /// What the owner should know of this room, in sentences: what the disk could not take. Does not touch it.
    pub fn problems(&self) -> Vec<String> {
        let now = self.now();
        let state = self.state();
        let unsaved = state.sessions.unsaved(now);
        let unsaved = (unsaved > 0).then(|| {
            format!(
                "{unsaved} login(s) could not be written to the disk and end when the host restarts; see that the \
                 disk of the state folder is not full"
            )
        });
        let unshown = state.unshown.as_ref().map(|error| {
            format!("{error}; the claim holds all the same, and the file is written again at the next start")
        });
        let unremoved = state.unremoved();
        let unremoved = (unremoved > 0).then(|| {
            format!(
                "{unremoved} login(s) or token(s) that were ended could not be removed from the disk; they open \
                 nothing now, and a restart of the host brings them back until they are removed: see that the disk \
                 of the state folder is not full, and end them again"
            )
        });
        unsaved.into_iter().chain(unremoved).chain(unshown).collect()
    }

    /// Whether the host has an owner. Does not touch the disk.
    pub fn is_claimed(&self) -> bool {
        matches!(self.state().owned, Owned::Yes(_))
    }

    /// Writes what somebody did into the log, with what is too long cut off.
    ///
    /// # Errors
    /// The disk failed.
    pub fn audit(
        &self,
        actor: &Actor,
        remote: Option<IpAddr>,
        action: &str,
        detail: &str,
    ) -> Result<(), AccessError> {
        self.inner.store.add_audit(&self.entry(actor, remote, action, detail))?;
        Ok(())
    }

    /// The log, newest first: at most `limit` entries (and [`MAX_AUDIT_PAGE`]) of those before the number `before`.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn audit_page(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditRow>, AccessError> {
        Ok(self.inner.store.audit(before, limit.min(MAX_AUDIT_PAGE))?)
    }

    /// What the verifier of owner proofs is made of: the salt of the key, and the public key. `None` without an owner.
    pub fn proof_verifier(&self) -> Option<ProofVerifier> {
        match &self.state().owned {
            Owned::Yes(owner) => Some(ProofVerifier::new(owner.proof_salt, owner.proof_key)),
            Owned::No { .. } => None,
        }
    }

    /// Who owns the host. Does not touch the disk.
    pub fn ownership(&self) -> Ownership {
        match &self.state().owned {
            Owned::No { claim, .. } => Ownership::Claimable {
                token: Zeroizing::new(secret::hex(&claim.token)),
                code: Zeroizing::new(claim.code.clone()),
            },
            Owned::Yes(owner) => Ownership::Owned {
                salt: owner.proof_salt,
                key: owner.proof_key,
                links: owner.vouch.iter().flat_map(|vouch| vouch.links.clone()).collect(),
            },
        }
    }

    /// Tells when [`Self::ownership`] is another one.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    fn changed(&self) {
        self.inner.changes.send_replace(());
    }

    /// Shows a claim that is in force already. Without its file it is in force all the same, so that a disk that is full
    /// undoes nothing: it is told as a problem. To be called by whoever writes.
    fn show(&self, claim: &StoredClaim) {
        let shown = self.inner.file.write(claim);
        if let Err(error) = &shown {
            tracing::warn!(%error, "the claim is not shown in its file");
        }
        self.state().unshown = shown.err().map(|error| error.to_string());
    }

    fn claim_in_force(&self) -> Option<StoredClaim> {
        match &self.state().owned {
            Owned::No { claim, .. } => Some(claim.clone()),
            Owned::Yes(_) => None,
        }
    }

    /// What became of a change that the store answered with an error: it may have been made all the same. `is_made`
    /// looks. To be called by whoever writes.
    fn settle(
        &self,
        written: Result<(), StoreError>,
        is_made: impl Fn() -> Result<bool, StoreError>,
    ) -> Result<(), AccessError> {
        let Err(source) = written else { return Ok(()) };
        match is_made() {
            Ok(true) => {
                tracing::warn!(error = %source, "a change was made, though the disk said that it failed");
                Ok(())
            }
            // It is not made now; after this it will not be found at a restart either.
            Ok(false) if self.inner.store.make_certain().is_ok() => Err(source.into()),
            _ => Err(AccessError::Uncertain { source }),
        }
    }

    fn entry(
        &self,
        actor: &Actor,
        remote: Option<IpAddr>,
        action: &str,
        detail: &str,
    ) -> AuditEntry {
        let cut = |text: &str| text.chars().take(MAX_DETAIL_CHARS).collect();
        AuditEntry {
            at: self.now().unix,
            kind: actor.kind(),
            actor: cut(&actor.to_string()),
            remote: remote.map(|remote| remote.to_canonical()),
            action: cut(action),
            detail: cut(detail),
        }
    }

    fn now(&self) -> Moment {
        (self.inner.clock)()
    }

    // What lies behind the lock is changed by single assignments and insertions: a panic elsewhere leaves it whole.
    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, ()> {
        self.inner.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
