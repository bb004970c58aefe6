//! What the owner proves to want, and root's program that does it.
//!
//! The password is at hand for one call. In that call it is checked as at a login, root's program is asked what a proof
//! must hold, the key is made with the salt that root keeps, and the proof is shown. When the call returns well, root has
//! noted on its disk what is to be done.
//!
//! Somebody at the machine arms the claim again, and then the owner is gone. So that the same three presses can allow a
//! reset, they do not arm it for ten minutes after a good proof was refused because nobody was there. The order is thus:
//! ask, press, ask again. Who presses first is taken for somebody who lost the password.
//!
//! Deliberately absent: what is done. Root does it, and whoever asked restarts the machine.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::login::{LoginError, Role, SessionId};
use super::password::{Shown, Try};
use super::presence::Presence;
use super::proof::{Nonce, OwnerProof, ProofKey, ProofVerifier, Verb};
use super::secret::{hex, sha256};
use super::{Access, AccessError, Inner};

/// So long somebody at the machine is waited for; root's program holds the evidence as long.
const AWAITED: Duration = Duration::from_secs(600);

/// What root does for an owner who proves to want it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Forget everything of the owner at the next start. Somebody must be at the machine.
    FactoryReset,
    /// Start a version once, in this start of the machine, that is older than the oldest that is safe.
    RollbackBelowFloor {
        /// Its commit.
        commit: [u8; 32],
    },
}

impl Deed {
    /// As it is signed.
    pub const fn verb(self) -> Verb {
        match self {
            Self::FactoryReset => Verb::FactoryReset,
            Self::RollbackBelowFloor { .. } => Verb::RollbackBelowFloor,
        }
    }

    /// The SHA-256 of what it is done to: of no bytes for a reset, and of the commit's 64 hexadecimal digits.
    pub fn digest(self) -> [u8; 32] {
        match self {
            Self::FactoryReset => sha256(b""),
            Self::RollbackBelowFloor { commit } => sha256(hex(&commit).as_bytes()),
        }
    }
}

/// What a proof must hold, and whose it must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    /// What the key is made with beside the password.
    pub salt: [u8; 16],
    /// The public key that is believed.
    pub key: [u8; 32],
    /// Counts once.
    pub nonce: Nonce,
}

/// Why root's program does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// It does not answer.
    #[error(
        "the box's own program does not answer the host; nothing was done. The host goes on asking for it; try again"
    )]
    Absent,
    /// It keeps no key that it could believe.
    #[error(
        "the box's own program keeps no key of the owner's, so nothing can be proved to it; nothing was done. Somebody at \
         the machine must arm the claim again, and the box be claimed anew"
    )]
    NoKey,
    /// The proof is good, and nobody is at the machine.
    #[error(
        "this also needs somebody at the machine: press its power button three times, shortly, within five seconds, and \
         ask again within ten minutes. Nothing was done yet; for the next ten minutes the presses do not arm the claim"
    )]
    Presence,
    /// The proof was none.
    #[error("the box's own program did not take the proof; nothing was done. Try again")]
    Proof,
    /// Its disk did not take it.
    #[error(
        "the box's own program could not note what is to be done, so nothing is; see whether the disk is full"
    )]
    NotKept,
}

/// Root's program, or what looks like it. Calls block.
pub trait Root: Send + Sync {
    /// It only looks like it; whoever asks is told so.
    fn is_simulated(&self) -> bool {
        false
    }

    /// Asks what a proof of this must hold; what was asked before is forgotten.
    ///
    /// # Errors
    /// See [`RootError`].
    fn ask(&self, deed: Deed) -> Result<Asked, RootError>;

    /// Shows the proof. What is to be done is noted when this returns well.
    ///
    /// # Errors
    /// See [`RootError`].
    fn bring(&self, deed: Deed, proof: &OwnerProof) -> Result<(), RootError>;
}

/// The owner wants something that needs the proof.
pub struct Wish<'a> {
    /// What.
    pub deed: Deed,
    /// The owner's password, also from whoever is logged in: it makes the key.
    pub password: &'a str,
    /// The login that asks; `None` over the local socket without one.
    pub own: Option<SessionId>,
    /// Where it comes from; `None` over the local socket.
    pub remote: Option<IpAddr>,
}

/// Why nothing is done.
#[derive(Debug, thiserror::Error)]
pub enum WishError {
    /// No program of root's looks after this machine.
    #[error(
        "no program of root's looks after this machine, so nobody could do this; nothing was done"
    )]
    NoRoot,
    /// The password is not the owner's, or too many were tried.
    #[error(transparent)]
    Password(#[from] LoginError),
    /// Root's program knows the owner by another key.
    #[error(
        "the box's own program knows the owner by the key of another password, so nothing can be proved to it; nothing \
         was done. The problems in the status say why; if they say nothing, try again in a moment"
    )]
    OtherKey,
    /// Root's program does nothing.
    #[error(transparent)]
    Root(#[from] RootError),
}

impl From<AccessError> for WishError {
    fn from(error: AccessError) -> Self {
        Self::Password(error.into())
    }
}

impl Access {
    /// Who does what the owner proves to want. Once; there is one.
    pub fn with_root(&self, root: Arc<dyn Root>) {
        let _ = self.inner.root.set(root);
    }

    /// Proves to root's program that the owner wants this. Takes as long as two logins. Gives whether that program only
    /// looks like one.
    ///
    /// # Errors
    /// See [`WishError`]; nothing is done then.
    pub fn prove(&self, wish: &Wish<'_>) -> Result<bool, WishError> {
        let root = self.inner.root.get().ok_or(WishError::NoRoot)?;
        let Wish { deed, password, own, remote } = *wish;
        let shown = own.map_or(Shown::Browser(None), Shown::Login);
        self.check_password(&Try { role: Role::Owner, password, remote, shown }, self.now())?;
        // A question takes the place of the one before: two at once would spoil both.
        let _proving = self.inner.proving.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = root.ask(deed)?;
        let key = {
            let seat = self.inner.hashes.sit(true).map_err(|_busy| LoginError::Busy)?;
            ProofKey::derive(password.as_bytes(), asked.salt, seat.cost())?
        };
        if key.public() != asked.key {
            return Err(WishError::OtherKey);
        }
        let proof = key.prove(deed.verb(), deed.digest(), asked.nonce);
        let brought = root.bring(deed, &proof);
        if deed.verb().needs_presence() {
            let now = self.now().at;
            self.state().awaited_at = (brought == Err(RootError::Presence)).then_some(now);
        }
        brought?;
        tracing::warn!(verb = deed.verb().name(), ?remote, "the owner has proved to want this");
        Ok(root.is_simulated())
    }

    /// Whether somebody at the machine is waited for, so that their being there does not arm the claim again. Does not
    /// touch the disk.
    pub fn awaits_somebody(&self) -> bool {
        let now = self.now().at;
        self.state().awaited_at.is_some_and(|at| now.since(at) <= AWAITED)
    }
}

/// Root's program of a machine that is only shown: it asks for the same proof, and does nothing. That somebody is there it
/// takes for granted, because there is nothing to press.
pub struct SimulatedRoot {
    of: Weak<Inner>,
    asked: Mutex<Option<ProofVerifier>>,
}

impl SimulatedRoot {
    /// One that believes the owner of this host.
    pub fn new(access: &Access) -> Self {
        Self { of: Arc::downgrade(&access.inner), asked: Mutex::default() }
    }

    fn asked(&self) -> std::sync::MutexGuard<'_, Option<ProofVerifier>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Root for SimulatedRoot {
    fn is_simulated(&self) -> bool {
        true
    }

    fn ask(&self, deed: Deed) -> Result<Asked, RootError> {
        let access = Access { inner: self.of.upgrade().ok_or(RootError::Absent)? };
        let mut verifier = access.proof_verifier().ok_or(RootError::NoKey)?;
        let mut random = [0; 32];
        (access.inner.random)(&mut random).map_err(|_| RootError::Absent)?;
        let nonce = verifier.challenge(deed.verb(), deed.digest(), random);
        let asked = Asked { salt: verifier.salt(), key: verifier.key(), nonce };
        *self.asked() = Some(verifier);
        Ok(asked)
    }

    fn bring(&self, deed: Deed, proof: &OwnerProof) -> Result<(), RootError> {
        let mut verifier = self.asked().take().ok_or(RootError::Proof)?;
        let here = Some(&Presence::PowerButton);
        let verified = verifier.verify(proof, deed.verb(), deed.digest(), here);
        verified.map_err(|_| RootError::Proof)
    }
}
