//! The claim: how a host without an owner gets one, and how it loses the one it has.
//!
//! A try is checked in this order: what is wrong with the name and the password is told first, which costs no try; then
//! the secret, counted if it is the code; then the password is hashed, which only whoever has the secret can cause; and
//! at last one transaction of the store takes the claim and puts the owner in its place. Of two who come at once, the
//! second finds no claim.
//!
//! The token is neither counted nor ever replaced before the claim: 128 bits need no count, and a link that was printed
//! must stay good. The code is replaced after 20 failures of anybody; the budget of all strangers together makes that
//! once a minute at most, so that whoever reads it from a screen has the time to type it. While strangers spend that
//! budget, the code is hard to get in with; the token and the local socket are not.

use std::net::IpAddr;

use zeroize::Zeroizing;

use super::limits::{Trier, Wait};
use super::login::{LoggedIn, NewLogin, Role};
use super::presence::Presence;
use super::proof::ProofKey;
use super::secret::{self, ClaimSecret};
use super::{Access, AccessError, Actor, Moment, Owned, Password, PasswordError, State, known};
use crate::store::{FinishedClaim, StoredClaim, StoredOwner, clean_name};

/// The code is replaced after so many failures.
const CODE_FAILURES: u32 = 20;

/// The longest name of a host, in bytes: it is a label in mDNS.
const MAX_NAME_BYTES: usize = 63;

/// Somebody wants to own the host.
pub struct ClaimAttempt<'a> {
    /// The token or the code, as it was typed.
    pub secret: &'a str,
    /// What the host is to be called.
    pub name: &'a str,
    /// The owner's password.
    pub password: &'a str,
    /// Where it comes from; `None` over the local socket.
    pub remote: Option<IpAddr>,
    /// What the browser calls itself.
    pub agent: Option<&'a str>,
}

/// How the claim stands, for one address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimState {
    /// The host has an owner.
    pub claimed: bool,
    /// Why there is a claim, if there is one: the first start, what was prepared, or by what somebody at the machine armed
    /// it again.
    pub reason: Option<String>,
    /// How long until the next try of this address, and how many it has.
    pub wait: Wait,
}

/// Why the host was not claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// It has an owner.
    #[error(
        "this host has an owner already; log in. If the password is lost, the owner's guide says how whoever \
         is at the machine gets in"
    )]
    Claimed,
    /// The secret is not the one of this host.
    #[error(
        "that is not the code that this host shows; look at it again and type it as it stands there"
    )]
    Wrong {
        /// How long until the next try, and how many are left.
        wait: Wait,
    },
    /// This address, or all strangers together, tried too often.
    #[error(
        "too many wrong codes were tried; wait {} seconds, or open the link that this host shows",
        wait.wait.as_secs().max(1)
    )]
    Wait {
        /// How long.
        wait: Wait,
    },
    /// The name cannot be one.
    #[error("a host's name is a text of 1 to {MAX_NAME_BYTES} bytes; choose another")]
    Name,
    /// The password cannot be one.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Too many passwords are being checked.
    #[error("the host is busy checking passwords; try again in a moment")]
    Busy,
    /// It is nobody's mistake.
    #[error(transparent)]
    Failed(#[from] AccessError),
}

impl Access {
    /// How the claim stands for an address; `None` is the local socket, which never waits. Does not touch the disk.
    pub fn claim_state(&self, remote: Option<IpAddr>) -> ClaimState {
        let now = self.now().at;
        let state = self.state();
        ClaimState {
            claimed: matches!(state.owned, Owned::Yes(_)),
            reason: match &state.owned {
                Owned::No { claim, .. } => Some(claim.reason.clone()),
                Owned::Yes(_) => None,
            },
            wait: remote
                .map_or(Wait::NONE, |remote| state.claims.look(Trier::stranger(remote), now)),
        }
    }

    /// Makes the host somebody's, and logs them in.
    ///
    /// # Errors
    /// See [`ClaimError`]; nothing has changed then.
    pub fn claim(&self, attempt: &ClaimAttempt<'_>) -> Result<LoggedIn, ClaimError> {
        let name = host_name(attempt.name).ok_or(ClaimError::Name)?;
        let password = Password::new(attempt.password.to_owned())?;
        let now = self.now();
        let token = self.check_claim(attempt, now)?;
        let (hash, proof) = {
            // Whoever has the secret is not a stranger.
            let seat = self.inner.hashes.sit(true).map_err(|_busy| ClaimError::Busy)?;
            let hash = seat.hash(&password, &self.inner.random)?;
            (hash, ProofKey::make(&password, seat.cost(), &self.inner.random)?)
        };
        let owner = StoredOwner {
            claimed_at: now.unix,
            password: hash,
            viewer_password: None,
            proof_salt: proof.salt(),
            proof_key: proof.public(),
            vouch: None,
        };
        let login =
            NewLogin::draw(&self.inner.random, Role::Owner, now, attempt.remote, attempt.agent)
                .map_err(AccessError::from)?;
        let known = known::issue(&self.inner.random, Role::Owner, &owner.password)
            .map_err(AccessError::from)?;
        let audit = self.entry(&Actor::Owner, attempt.remote, "claim", &name);
        let _writing = self.writing();
        let store = &self.inner.store;
        let mut is_finished = true;
        let written = store.finish_claim(&FinishedClaim {
            token: *token,
            owner: &owner,
            name: &name,
            session: &login.row,
            audit: &audit,
        });
        let written = written.map(|finished| is_finished = finished);
        self.settle(written, || Ok(store.owner()?.as_ref() == Some(&owner)))?;
        if !is_finished {
            // Somebody else was faster; or the claim is another one since, because somebody is at the machine.
            let wait = Wait::NONE;
            let is_claimed = self.is_claimed();
            return Err(if is_claimed { ClaimError::Claimed } else { ClaimError::Wrong { wait } });
        }
        let logged_in = {
            let mut state = self.state();
            state.owned = Owned::Yes(owner);
            state.unshown = None;
            state.claims.clear();
            state.tokens.clear();
            state.sessions.clear();
            state.sessions.insert(login, known, true, now)
        };
        self.changed();
        self.inner.file.remove();
        tracing::info!(name, remote = ?attempt.remote, "this host has an owner now");
        Ok(logged_in)
    }

    /// Arms the claim again, because somebody is at the machine: a new token and a new code; the password, the viewer's
    /// password, all sessions and all tokens are gone; what is paired stays. `false` if this evidence was used before.
    ///
    /// What is called with [`Access::on_rearm`] has been done when this returns. If only the file that shows the new claim
    /// could not be written, the claim is armed all the same, and [`Access::problems`] says so.
    ///
    /// This is only the decision. Who watches the button and mounts a stick is root's program on a box.
    ///
    /// # Errors
    /// The disk failed, or there is no randomness; nothing has changed then, and the evidence counts again, unless the
    /// error is [`AccessError::Uncertain`].
    pub fn rearm(&self, presence: &Presence) -> Result<bool, AccessError> {
        let now = self.now();
        let claim = secret::new_claim(&self.inner.random, now, presence.name())?;
        let audit = self.entry(&Actor::AtMachine, None, "rearm", presence.name());
        let consumed = presence.digest().map(|digest| (presence.name(), digest));
        let _writing = self.writing();
        let store = &self.inner.store;
        let mut counts = true;
        let written = store.rearm(&claim, consumed, &audit).map(|counted| counts = counted);
        // The token was drawn just now: no other claim has it.
        self.settle(written, || Ok(store.claim()?.as_ref() == Some(&claim)))?;
        if !counts {
            return Ok(false);
        }
        {
            let mut state = self.state();
            state.owned = Owned::No { claim: claim.clone(), failures: 0 };
            state.claims.clear();
            state.passwords.iter_mut().for_each(|limits| limits.clear());
            state.sessions.clear();
            state.tokens.clear();
            state.awaited_at = None;
        }
        tracing::warn!(by = presence.name(), "the claim is armed again; the owner is gone");
        if let Some(forget) = self.inner.forget.get() {
            forget();
        }
        self.changed();
        self.show(&claim);
        Ok(true)
    }

    /// Counts the try and checks the secret; gives the token of the claim that it opens.
    fn check_claim(
        &self,
        attempt: &ClaimAttempt<'_>,
        now: Moment,
    ) -> Result<Zeroizing<[u8; 16]>, ClaimError> {
        let checked = self.state().check_claim(attempt, now);
        // Harmless to look at whenever: it only acts when enough tries have failed.
        if let Err(ClaimError::Wrong { .. }) = &checked
            && let Err(error) = self.replace_worn_code()
        {
            // The wrong code is wrong all the same, and the next one tries again.
            tracing::warn!(%error, "a worn code could not be replaced");
        }
        checked
    }

    /// Replaces a code that many tries have missed. The token stays.
    fn replace_worn_code(&self) -> Result<(), AccessError> {
        let _writing = self.writing();
        let renewed = match &self.state().owned {
            Owned::No { claim, failures } if *failures >= CODE_FAILURES => {
                let code = secret::new_code(&self.inner.random)?;
                let (made_at, reason) = (claim.made_at, claim.reason.clone());
                StoredClaim { token: claim.token, code, made_at, reason }
            }
            _ => return Ok(()),
        };
        self.inner.store.put_claim(&renewed)?;
        self.state().owned = Owned::No { claim: renewed.clone(), failures: 0 };
        tracing::warn!("many wrong codes were tried; this host shows another one now");
        self.changed();
        self.show(&renewed);
        Ok(())
    }
}

impl State {
    fn check_claim(
        &mut self,
        attempt: &ClaimAttempt<'_>,
        now: Moment,
    ) -> Result<Zeroizing<[u8; 16]>, ClaimError> {
        let Owned::No { claim, failures } = &mut self.owned else {
            return Err(ClaimError::Claimed);
        };
        let secret = ClaimSecret::parse(attempt.secret);
        let is_code = matches!(secret, Some(ClaimSecret::Code(_)));
        // Only what could be the code is counted, and nobody who may use the local socket.
        let who = attempt.remote.map(Trier::stranger);
        let counted = who.filter(|_| is_code);
        if let Some(who) = counted {
            self.claims.begin(who, now.at).map_err(|wait| ClaimError::Wait { wait })?;
        }
        if secret.is_some_and(|secret| secret.opens(claim)) {
            counted.into_iter().for_each(|who| self.claims.succeed(who, now.at));
            return Ok(Zeroizing::new(claim.token));
        }
        if is_code {
            *failures = failures.saturating_add(1);
        }
        let wait = who.map_or(Wait::NONE, |who| self.claims.look(who, now.at));
        Err(ClaimError::Wrong { wait })
    }
}

/// A name fit for a host.
pub(super) fn host_name(name: &str) -> Option<String> {
    clean_name(name).filter(|name| name.len() <= MAX_NAME_BYTES)
}
