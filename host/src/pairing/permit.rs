//! The one-boot identity of the self-test: one certificate, for minutes, from this machine only, never in the store.
//!
//! The owner's socket registers a certificate; that is the permit. Whoever then asks to be paired from loopback with
//! exactly that certificate is admitted once, armed or not: nobody else can show it before it was shown here, and
//! nobody without its key gets through the steps that follow. What comes of it lives in this machine's memory, is
//! accepted from loopback peers only, and ends by whatever comes first: a lease that nobody renewed, a limit that
//! nobody can renew, the owner's word, the daemon's end. There is one permit at a time.
//!
//! The request stays out of the owner's sight: it takes no place from others, is in no list, and no PIN that is typed
//! for somebody else can reach it.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use punktfunk_core::time::Timestamp;

use super::{DeskLimits, PairingDesk, RequestId};
use crate::store::ClientId;

/// Permits that are over and still known by their client: a request may outlive the permit it came with.
const MAX_PAST: usize = 8;

/// A permit as it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permit {
    /// The client that the certificate makes.
    pub client: ClientId,
    /// How long it lives unless it is renewed.
    pub remaining: Duration,
    /// The request at the desk that it was used for.
    pub request: Option<RequestId>,
}

/// Why there is no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// One at a time.
    #[error("a self-test is already running; wait until it has ended")]
    Taken,
    /// It has ended, or there never was one.
    #[error("this self-test has no permit (any more)")]
    Unknown,
}

/// What a certificate means to the desk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// Nothing: the rules for everybody hold.
    Stranger,
    /// It is the permit's, from here, for the first time.
    Admit,
    /// It is the permit's, but from elsewhere, or again, or too late.
    Refuse,
}

/// The permit and its rules, as a machine without a clock.
#[derive(Debug)]
pub(super) struct Permits {
    limits: DeskLimits,
    held: Option<Held>,
    past: VecDeque<ClientId>,
}

#[derive(Debug)]
struct Held {
    client: ClientId,
    stage: Stage,
    lease_until: Timestamp,
    ends_at: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It has not been used.
    Issued,
    /// Its one request was admitted.
    Asked(RequestId),
    /// Its client is paired.
    Trusted(RequestId),
    /// Its session is being ended; nothing is accepted any more.
    Ending,
}

impl Held {
    fn until(&self) -> Timestamp {
        self.lease_until.min(self.ends_at)
    }

    fn is_valid(&self, now: Timestamp) -> bool {
        self.stage != Stage::Ending && now < self.until()
    }

    fn permit(&self, now: Timestamp) -> Permit {
        let request = match self.stage {
            Stage::Asked(request) | Stage::Trusted(request) => Some(request),
            Stage::Issued | Stage::Ending => None,
        };
        Permit { client: self.client, remaining: self.until().since(now), request }
    }
}

impl Permits {
    pub(super) fn new(limits: DeskLimits) -> Self {
        Self { limits, held: None, past: VecDeque::new() }
    }

    pub(super) fn issue(
        &mut self,
        now: Timestamp,
        client: ClientId,
    ) -> Result<Permit, PermitError> {
        // Also one whose time is over: its session may still be ending.
        if self.held.is_some() {
            return Err(PermitError::Taken);
        }
        let held = Held {
            client,
            stage: Stage::Issued,
            lease_until: now + self.limits.permit_lease,
            ends_at: now + self.limits.permit_lifetime,
        };
        let permit = held.permit(now);
        self.held = Some(held);
        Ok(permit)
    }

    pub(super) fn renew(
        &mut self,
        now: Timestamp,
        client: ClientId,
    ) -> Result<Permit, PermitError> {
        let held = self.held.as_mut().filter(|held| held.client == client && held.is_valid(now));
        let held = held.ok_or(PermitError::Unknown)?;
        held.lease_until = now + self.limits.permit_lease;
        Ok(held.permit(now))
    }

    pub(super) fn claim(&self, now: Timestamp, client: ClientId, remote: IpAddr) -> Claim {
        match &self.held {
            Some(held) if held.client == client => {
                let is_first = held.stage == Stage::Issued && held.is_valid(now);
                if is_first && is_here(remote) { Claim::Admit } else { Claim::Refuse }
            }
            _ => Claim::Stranger,
        }
    }

    /// The permit's one request was admitted.
    pub(super) fn use_up(&mut self, request: RequestId) {
        if let Some(held) = &mut self.held {
            held.stage = Stage::Asked(request);
        }
    }

    /// Trusts the certificate that went through all steps under this request, if both are the permit's.
    pub(super) fn trust(&mut self, now: Timestamp, request: RequestId, client: ClientId) -> bool {
        match &mut self.held {
            Some(held)
                if held.client == client
                    && held.stage == Stage::Asked(request)
                    && held.is_valid(now) =>
            {
                held.stage = Stage::Trusted(request);
                true
            }
            _ => false,
        }
    }

    pub(super) fn accepts(&self, now: Timestamp, client: ClientId, remote: IpAddr) -> bool {
        self.held.as_ref().is_some_and(|held| {
            held.client == client
                && matches!(held.stage, Stage::Trusted(_))
                && held.is_valid(now)
                && is_here(remote)
        })
    }

    /// How long the permit still lives; `None` if it is over.
    fn remaining(&self, now: Timestamp, client: ClientId) -> Option<Duration> {
        let held = self.held.as_ref().filter(|held| held.client == client)?;
        held.is_valid(now).then(|| held.until().since(now))
    }

    fn begin_end(&mut self, client: ClientId) -> bool {
        match &mut self.held {
            Some(held) if held.client == client && held.stage != Stage::Ending => {
                held.stage = Stage::Ending;
                true
            }
            _ => false,
        }
    }

    fn forget(&mut self, client: ClientId) {
        if self.held.take_if(|held| held.client == client).is_some() {
            if self.past.len() == MAX_PAST {
                self.past.pop_front();
            }
            self.past.push_back(client);
        }
    }

    /// Whether this client is, or not long ago was, a self-test.
    fn knows(&self, client: ClientId) -> bool {
        self.held.as_ref().is_some_and(|held| held.client == client) || self.past.contains(&client)
    }
}

fn is_here(remote: IpAddr) -> bool {
    remote.to_canonical().is_loopback()
}

impl PairingDesk {
    /// Permits one self-test with this certificate.
    ///
    /// # Errors
    /// [`PermitError::Taken`].
    pub fn permit_self_test(&self, client: ClientId) -> Result<Permit, PermitError> {
        self.change(|inner, now, _| inner.permits.issue(now, client))
    }

    /// The self-test is alive.
    ///
    /// # Errors
    /// [`PermitError::Unknown`].
    pub fn renew_self_test(&self, client: ClientId) -> Result<Permit, PermitError> {
        self.change(|inner, now, _| inner.permits.renew(now, client))
    }

    /// How long this self-test's permit still lives; `None` if it is over.
    pub fn self_test_remaining(&self, client: ClientId) -> Option<Duration> {
        self.change(|inner, now, _| inner.permits.remaining(now, client))
    }

    /// Whether this client is the self-test and may come in from there, now.
    pub fn accepts_self_test(&self, client: ClientId, remote: IpAddr) -> bool {
        self.change(|inner, now, _| inner.permits.accepts(now, client, remote))
    }

    /// A request went through all steps of pairing: `None` if it is not the self-test's, else whether its certificate
    /// is trusted now. The certificate of a self-test's request belongs into no store, whatever comes of it: neither
    /// when the request has left the desk meanwhile, nor when the permit has.
    pub fn trust_self_test(&self, request: RequestId, client: ClientId) -> Option<bool> {
        self.change(|inner, now, _| {
            let is_its = inner.desk.request(request).is_some_and(|request| request.self_test);
            (is_its || inner.permits.knows(client))
                .then(|| inner.permits.trust(now, request, client))
        })
    }

    /// From here on nothing of this permit is accepted; `None` if there is none, or it is being ended already. The
    /// next one may be issued when the returned value is dropped: end the self-test's session before.
    pub fn end_self_test(&self, client: ClientId) -> Option<EndingPermit> {
        let begun = self.change(|inner, _, _| inner.permits.begin_end(client));
        begun.then(|| EndingPermit { desk: self.clone(), client })
    }
}

/// A permit on its way out; gone when this is dropped.
#[derive(Debug)]
pub struct EndingPermit {
    desk: PairingDesk,
    client: ClientId,
}

impl Drop for EndingPermit {
    fn drop(&mut self) {
        self.desk.change(|inner, _, _| inner.permits.forget(self.client));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: ClientId = ClientId([1; 32]);
    const OTHER: ClientId = ClientId([2; 32]);
    const REQUEST: RequestId = RequestId(7);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn here() -> IpAddr {
        [127, 0, 0, 1].into()
    }

    fn issued() -> Permits {
        let mut permits = Permits::new(DeskLimits::default());
        permits.issue(at(0), CLIENT).unwrap();
        permits
    }

    fn trusted() -> Permits {
        let mut permits = issued();
        permits.use_up(REQUEST);
        assert!(permits.trust(at(1), REQUEST, CLIENT));
        permits
    }

    #[test]
    fn it_admits_one_request_from_here_with_its_certificate() {
        let mut permits = issued();
        let lan = "192.168.1.20".parse().unwrap();
        assert_eq!(permits.claim(at(1), OTHER, here()), Claim::Stranger);
        assert_eq!(permits.claim(at(1), CLIENT, lan), Claim::Refuse, "the right one, elsewhere");
        assert_eq!(permits.claim(at(1), CLIENT, "::ffff:127.0.0.1".parse().unwrap()), Claim::Admit);
        assert_eq!(permits.claim(at(31), CLIENT, here()), Claim::Refuse, "too late");
        permits.use_up(REQUEST);
        assert_eq!(permits.claim(at(1), CLIENT, here()), Claim::Refuse, "a second time");
    }

    #[test]
    fn it_trusts_its_own_request_only_and_is_heard_from_here_only() {
        let mut permits = issued();
        assert!(!permits.trust(at(1), REQUEST, CLIENT), "nobody asked");
        permits.use_up(REQUEST);
        assert!(!permits.accepts(at(1), CLIENT, here()), "not through all steps yet");
        assert!(!permits.trust(at(1), RequestId(8), CLIENT));
        assert!(!permits.trust(at(1), REQUEST, OTHER));
        assert!(permits.trust(at(1), REQUEST, CLIENT));
        assert!(permits.accepts(at(1), CLIENT, here()));
        assert!(permits.accepts(at(1), CLIENT, "::1".parse().unwrap()));
        for elsewhere in ["10.0.0.1", "::ffff:10.0.0.1", "fd00::1", "0.0.0.0", "::"] {
            assert!(!permits.accepts(at(1), CLIENT, elsewhere.parse().unwrap()), "{elsewhere}");
        }
        assert!(!permits.accepts(at(1), OTHER, here()));
    }

    #[test]
    fn it_dies_without_renewal_and_at_its_limit_with_it() {
        let mut permits = trusted();
        assert!(permits.accepts(at(29), CLIENT, here()));
        assert!(!permits.accepts(at(30), CLIENT, here()));
        assert_eq!(permits.renew(at(30), CLIENT), Err(PermitError::Unknown), "dead is dead");

        let mut permits = trusted();
        for second in (10..300).step_by(10) {
            assert_eq!(permits.renew(at(second), CLIENT).unwrap().request, Some(REQUEST));
        }
        assert_eq!(permits.remaining(at(295), CLIENT), Some(Duration::from_secs(5)));
        assert!(permits.accepts(at(299), CLIENT, here()));
        assert!(!permits.accepts(at(300), CLIENT, here()));
        assert_eq!(permits.renew(at(299), OTHER), Err(PermitError::Unknown));
    }

    #[test]
    fn there_is_one_at_a_time_until_its_end_is_over() {
        let mut permits = trusted();
        assert_eq!(permits.issue(at(2), OTHER), Err(PermitError::Taken));
        assert_eq!(permits.issue(at(400), OTHER), Err(PermitError::Taken), "it is being ended");
        assert!(!permits.begin_end(OTHER));
        assert!(permits.begin_end(CLIENT));
        assert!(!permits.begin_end(CLIENT), "one ends it");
        assert!(!permits.accepts(at(2), CLIENT, here()));
        assert_eq!(permits.remaining(at(2), CLIENT), None);
        assert_eq!(permits.issue(at(2), OTHER), Err(PermitError::Taken));
        permits.forget(CLIENT);
        assert!(permits.issue(at(2), OTHER).is_ok());
        assert!(permits.knows(CLIENT) && permits.knows(OTHER));
        assert_eq!(permits.claim(at(2), CLIENT, here()), Claim::Stranger);
    }
}
