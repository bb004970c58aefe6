//! The rules of the desk, as a machine without clock, threads or sockets.
//!
//! Each call is given the time and appends to a list of [`PairingEvent`]s what changed; the handle in `mod.rs` acts on
//! them. A request is [`Stage::Waiting`] until the owner gives it a PIN, then [`Stage::Answered`] until the protocol
//! says how it ended. Requests leave the desk by their own end only: a full desk turns newcomers away.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use punktfunk_core::time::Timestamp;

use super::{
    AnswerError, AskRefusal, Asking, Denied, DeskLimits, DeskMode, DeskState, FinishedRequest,
    PairingEvent, PairingOutcome, PendingRequest, RequestEnd, RequestId, Withdrawn,
};
use crate::store::{ClientId, clean_name};

/// How many finished requests are remembered, for whoever asks how one ended.
const MAX_RECENT: usize = 16;
/// How many addresses with failures are remembered; the owner causes each by typing a PIN. Of addresses that only gave
/// up, as many are remembered apart from these, because strangers cause them.
const MAX_FAILURES: usize = 256;
/// How many devices that the owner declined are remembered; the owner causes each.
const MAX_DENIALS: usize = 64;
/// A failure this old is forgiven.
const FAILURE_MEMORY: Duration = Duration::from_secs(600);
/// Refusals are told at most this often: a client at the door must not drown the rest of the news.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(10);
/// Of a client's unique id, this many characters tell its requests apart.
const MAX_UNIQUE_ID_CHARS: usize = 64;
/// What every stock client calls itself.
const STOCK_DEVICE_NAME: &str = "roth";

pub(super) struct Desk {
    mode: DeskMode,
    limits: DeskLimits,
    armed_until: Option<Timestamp>,
    entries: Vec<Entry>,
    failures: Vec<Failures>,
    given_up: Vec<Failures>,
    recent: VecDeque<FinishedRequest>,
    /// Oldest first.
    denials: VecDeque<Denial>,
    next_id: u64,
    refusal_told_at: Option<Timestamp>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// A device, under the rules for all.
    Device,
    /// The self-test with its permit: it is let in once, and nobody's place, count or list changes.
    SelfTest,
}

struct Entry {
    request: PendingRequest,
    unique_id: String,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    Answered,
}

struct Failures {
    address: AddressKey,
    count: u32,
    last_at: Timestamp,
    blocked_until: Option<Timestamp>,
}

/// The owner's no.
struct Denial {
    remote: IpAddr,
    client: ClientId,
    until: Timestamp,
}

/// What counts as one address: an IPv6 host has a whole /64 to itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum AddressKey {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl AddressKey {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => Self::V6(prefix_64(address)),
        }
    }
}

fn prefix_64(address: Ipv6Addr) -> [u16; 4] {
    let [a, b, c, d, ..] = address.segments();
    [a, b, c, d]
}

impl Desk {
    pub(super) fn new(mode: DeskMode, limits: DeskLimits) -> Self {
        Self {
            mode,
            limits,
            armed_until: None,
            entries: Vec::new(),
            failures: Vec::new(),
            given_up: Vec::new(),
            recent: VecDeque::new(),
            denials: VecDeque::new(),
            next_id: 1,
            refusal_told_at: None,
        }
    }

    /// Takes a request in, or says why not. A device's own earlier request gives way to it.
    pub(super) fn ask(
        &mut self,
        now: Timestamp,
        asking: Asking,
        standing: Standing,
        events: &mut Vec<PairingEvent>,
    ) -> Result<PendingRequest, AskRefusal> {
        self.expire(now, events);
        let remote = asking.remote.to_canonical();
        let unique_id: String = asking.unique_id.chars().take(MAX_UNIQUE_ID_CHARS).collect();
        let self_test = standing == Standing::SelfTest;
        let own = self.entries.iter().position(|entry| {
            entry.request.remote == remote
                && entry.unique_id == unique_id
                && entry.request.self_test == self_test
        });
        let mut admitted = if self_test {
            Ok(())
        } else {
            self.admit(now, (remote, asking.client), own.is_some())
        };
        if admitted.is_ok()
            && let Some(index) = own
        {
            self.withdraw(now, index, Withdrawn::Replaced, events);
            // What was replaced counts against the address; it can be the one too many.
            admitted = self.check_rate(now, remote);
        }
        if let Err(refusal) = admitted {
            self.tell_refusal(now, remote, &refusal, events);
            return Err(refusal);
        }
        let own_name = own_name(&asking.device_name);
        let request = PendingRequest {
            id: RequestId(self.next_id),
            remote,
            is_named: own_name.is_some(),
            device_name: own_name.unwrap_or_else(|| remote.to_string()),
            client: asking.client,
            asked_at: now,
            expires_at: now + self.limits.ttl,
            self_test,
        };
        self.next_id += 1;
        self.entries.push(Entry { request: request.clone(), unique_id, stage: Stage::Waiting });
        events.push(PairingEvent::Asked(request.clone()));
        Ok(request)
    }

    fn admit(
        &self,
        now: Timestamp,
        (remote, client): (IpAddr, ClientId),
        replaces: bool,
    ) -> Result<(), AskRefusal> {
        if matches!(self.state(now), DeskState::Unarmed) {
            return Err(AskRefusal::NotArmed);
        }
        // This very address: a whole /64 is everybody on the same network.
        let is_meant = |denial: &&Denial| denial.client == client || denial.remote == remote;
        if let Some(until) = self.denials.iter().filter(is_meant).map(|denial| denial.until).max()
            && until > now
        {
            return Err(AskRefusal::Declined { retry_after: until.since(now) });
        }
        self.check_rate(now, remote)?;
        if replaces {
            return Ok(());
        }
        let key = AddressKey::of(remote);
        let devices = || self.entries.iter().filter(|entry| !entry.request.self_test);
        let own = devices().filter(|e| AddressKey::of(e.request.remote) == key).count();
        if own >= self.limits.max_per_address {
            return Err(AskRefusal::TooManyFromAddress { max: self.limits.max_per_address });
        }
        if devices().count() >= self.limits.max_pending {
            return Err(AskRefusal::TooManyPending { max: self.limits.max_pending });
        }
        Ok(())
    }

    fn check_rate(&self, now: Timestamp, remote: IpAddr) -> Result<(), AskRefusal> {
        let key = AddressKey::of(remote);
        let counted = self.failures.iter().chain(&self.given_up);
        let until = counted.filter(|f| f.address == key).filter_map(|f| f.blocked_until).max();
        match until {
            Some(until) if until > now => {
                Err(AskRefusal::RateLimited { retry_after: until.since(now) })
            }
            _ => Ok(()),
        }
    }

    fn tell_refusal(
        &mut self,
        now: Timestamp,
        remote: IpAddr,
        refusal: &AskRefusal,
        events: &mut Vec<PairingEvent>,
    ) {
        if self.refusal_told_at.is_some_and(|told| now.since(told) < REFUSAL_INTERVAL) {
            return;
        }
        self.refusal_told_at = Some(now);
        events.push(PairingEvent::Refused { remote, refusal: refusal.clone() });
    }

    /// Chooses the one request that gets a PIN. The same request is never chosen twice.
    pub(super) fn answer(
        &mut self,
        now: Timestamp,
        chosen: Option<RequestId>,
        name: Option<&str>,
        events: &mut Vec<PairingEvent>,
    ) -> Result<PendingRequest, AnswerError> {
        self.expire(now, events);
        let waiting = self.pending();
        let id = match (chosen, waiting.as_slice()) {
            (Some(id), _) => id,
            (None, []) => return Err(AnswerError::NothingPending),
            (None, [only]) => only.id,
            (None, _) => return Err(AnswerError::SeveralPending { pending: waiting }),
        };
        let entry = self
            .entries
            .iter_mut()
            .find(|entry| entry.request.id == id && entry.stage == Stage::Waiting)
            .ok_or(AnswerError::UnknownRequest { request: id })?;
        entry.stage = Stage::Answered;
        entry.request.expires_at = now + self.limits.answered_ttl;
        if let Some(name) = name.and_then(clean_name) {
            entry.request.device_name = name;
            entry.request.is_named = true;
        }
        events.push(PairingEvent::Answered { request: entry.request.clone() });
        Ok(entry.request.clone())
    }

    /// Notes how a request ended; one that is not at the desk any more is left alone.
    pub(super) fn report(
        &mut self,
        now: Timestamp,
        id: RequestId,
        outcome: PairingOutcome,
        events: &mut Vec<PairingEvent>,
    ) {
        if let Some(index) = self.entries.iter().position(|entry| entry.request.id == id) {
            self.end(now, index, RequestEnd::Outcome(outcome), events);
        }
    }

    /// The owner turns one waiting request away.
    pub(super) fn decline(
        &mut self,
        now: Timestamp,
        id: RequestId,
        events: &mut Vec<PairingEvent>,
    ) -> Result<(), AnswerError> {
        self.expire(now, events);
        let index = self
            .entries
            .iter()
            .position(|entry| entry.request.id == id && entry.stage == Stage::Waiting)
            .ok_or(AnswerError::UnknownRequest { request: id })?;
        let PendingRequest { remote, client, .. } = self.entries[index].request;
        self.withdraw(now, index, Withdrawn::Declined, events);
        if self.denials.len() == MAX_DENIALS {
            self.denials.pop_front();
        }
        self.denials.push_back(Denial { remote, client, until: now + self.limits.denial });
        Ok(())
    }

    pub(super) fn arm(&mut self, now: Timestamp, window: Duration, events: &mut Vec<PairingEvent>) {
        self.expire(now, events);
        if self.mode == DeskMode::Armed {
            self.armed_until = Some(now + window);
        }
        self.denials.clear();
        events.push(PairingEvent::Desk(self.state(now)));
    }

    /// Closes the window and turns every waiting request away; a pairing under way may finish.
    pub(super) fn disarm(&mut self, now: Timestamp, events: &mut Vec<PairingEvent>) {
        self.close(now, |stage| stage == Stage::Waiting, events);
    }

    /// Closes the window and turns every request away, also those that have their PIN; forgets who was declined.
    pub(super) fn forget_owner(&mut self, now: Timestamp, events: &mut Vec<PairingEvent>) {
        self.denials.clear();
        self.close(now, |_| true, events);
    }

    fn close(
        &mut self,
        now: Timestamp,
        goes: impl Fn(Stage) -> bool,
        events: &mut Vec<PairingEvent>,
    ) {
        self.expire(now, events);
        self.armed_until = None;
        let goes = |e: &Entry| goes(e.stage) && !e.request.self_test;
        while let Some(index) = self.entries.iter().position(goes) {
            self.withdraw(now, index, Withdrawn::Disarmed, events);
        }
        events.push(PairingEvent::Desk(self.state(now)));
    }

    /// Lets go of what is over.
    pub(super) fn expire(&mut self, now: Timestamp, events: &mut Vec<PairingEvent>) {
        while let Some(index) = self.entries.iter().position(|e| e.request.expires_at <= now) {
            self.withdraw(now, index, Withdrawn::Expired, events);
        }
        for counted in [&mut self.failures, &mut self.given_up] {
            counted.retain(|failures| now.since(failures.last_at) < FAILURE_MEMORY);
        }
        self.denials.retain(|denial| denial.until > now);
        if self.armed_until.is_some_and(|until| until <= now) {
            self.armed_until = None;
            events.push(PairingEvent::Desk(self.state(now)));
        }
    }

    pub(super) fn state(&self, now: Timestamp) -> DeskState {
        match (self.mode, self.armed_until) {
            (DeskMode::Prompt, _) => DeskState::Open,
            (DeskMode::Armed, Some(until)) if until > now => {
                DeskState::Armed { remaining: until.since(now) }
            }
            (DeskMode::Armed, _) => DeskState::Unarmed,
        }
    }

    /// Requests that wait for a PIN, oldest first.
    pub(super) fn pending(&self) -> Vec<PendingRequest> {
        self.entries
            .iter()
            .filter(|entry| entry.stage == Stage::Waiting && !entry.request.self_test)
            .map(|entry| entry.request.clone())
            .collect()
    }

    pub(super) fn recent(&self) -> Vec<FinishedRequest> {
        self.recent.iter().cloned().collect()
    }

    pub(super) fn denied(&self, now: Timestamp) -> Vec<Denied> {
        let denied = |denial: &Denial| Denied {
            remote: denial.remote,
            client: denial.client,
            remaining: denial.until.since(now),
        };
        self.denials.iter().map(denied).collect()
    }

    pub(super) fn note_name(&mut self, id: RequestId, name: &str) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.request.id == id) {
            name.clone_into(&mut entry.request.device_name);
        }
    }

    pub(super) fn request(&self, id: RequestId) -> Option<PendingRequest> {
        self.entries.iter().map(|entry| &entry.request).find(|request| request.id == id).cloned()
    }

    fn withdraw(
        &mut self,
        now: Timestamp,
        index: usize,
        why: Withdrawn,
        events: &mut Vec<PairingEvent>,
    ) {
        self.end(now, index, RequestEnd::Withdrawn(why), events);
    }

    fn end(
        &mut self,
        now: Timestamp,
        index: usize,
        end: RequestEnd,
        events: &mut Vec<PairingEvent>,
    ) {
        let entry = self.entries.remove(index);
        let (address, limits) = (AddressKey::of(entry.request.remote), self.limits);
        if entry.request.self_test {
            events.push(PairingEvent::Ended(FinishedRequest { request: entry.request, end }));
            return;
        }
        if end.is_success() {
            for counted in [&mut self.failures, &mut self.given_up] {
                counted.retain(|failures| failures.address != address);
            }
        } else if entry.stage == Stage::Answered {
            // A PIN was spent and no device paired. Clients that see a wrong PIN often just go silent, so that how it
            // failed makes no difference.
            count(&mut self.failures, now, address, limits.max_failures, limits.block);
        } else if is_given_up(end) {
            count(&mut self.given_up, now, address, limits.max_given_up, limits.block);
        }
        if self.recent.len() == MAX_RECENT {
            self.recent.pop_front();
        }
        let finished = FinishedRequest { request: entry.request, end };
        self.recent.push_back(finished.clone());
        events.push(PairingEvent::Ended(finished));
    }
}

/// The device ended its request itself; its time running out or the owner's word is not its doing.
fn is_given_up(end: RequestEnd) -> bool {
    matches!(end, RequestEnd::Outcome(_) | RequestEnd::Withdrawn(Withdrawn::Replaced))
}

// spec: gamestream 3.4 rule 4
fn count(
    counted: &mut Vec<Failures>,
    now: Timestamp,
    address: AddressKey,
    max: u32,
    block: Duration,
) {
    let index = match counted.iter().position(|failures| failures.address == address) {
        Some(index) => index,
        None => {
            if counted.len() == MAX_FAILURES {
                counted.remove(0);
            }
            counted.push(Failures { address, count: 0, last_at: now, blocked_until: None });
            counted.len() - 1
        }
    };
    let failures = &mut counted[index];
    failures.last_at = now;
    failures.count += 1;
    if failures.count >= max {
        failures.count = 0;
        failures.blocked_until = Some(now + block);
    }
}

/// The name that a device has of its own, if it is one.
fn own_name(device_name: &str) -> Option<String> {
    clean_name(device_name).filter(|name| !name.starts_with(STOCK_DEVICE_NAME))
}
