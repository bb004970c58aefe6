//! How often an address may try a secret, as a pure table.
//!
//! Each failure makes the next try wait longer, and the fifth makes it wait a minute, as does every later one; after a
//! quarter of an hour without a try, an address starts anew. An address is an IPv4 address or an IPv6 /64, which is what
//! one household or one machine has. A try counts as failed when it begins, so that tries side by side do not count as
//! one; a success takes the count back.
//!
//! Where the secret is short, tries of all addresses together are limited as well: so many at once, and one more each
//! few seconds. That budget is spent by strangers only. The machine itself has a row of its own and is not in it.
//!
//! The table is bounded, and by the budget never full where there is one. Where there is none and it is full, the row
//! that was used longest ago goes: that helps somebody with thousands of addresses, who does not need the help.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use punktfunk_core::time::Timestamp;

/// After so many failures an address is locked.
const TRIES: u32 = 5;
/// How long it is locked.
const LOCK: Duration = Duration::from_secs(60);
/// How long the second try waits after the first failure; each further one twice as long, up to the lock.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// An address that did not try for so long starts anew.
const FORGET: Duration = Duration::from_secs(15 * 60);

/// How a table limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRules {
    /// As many addresses are remembered.
    pub addresses: usize,
    /// What all strangers together may: so many tries at once, and one more after each such time.
    pub together: Option<(u32, Duration)>,
}

/// For the claim's code: 40 bits, so that strangers together get 20 tries at once and 20 a minute.
pub const CLAIM_LIMITS: LimitRules =
    LimitRules { addresses: 512, together: Some((20, Duration::from_secs(3))) };

/// For passwords: per address only, because nobody may be able to keep the owner out.
pub const LOGIN_LIMITS: LimitRules = LimitRules { addresses: 4096, together: None };

/// How an address stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// How long until the next try.
    pub wait: Duration,
    /// How many tries are left until the address is locked; one at a time after that.
    pub tries_left: u32,
}

impl Wait {
    /// Of whoever is not limited.
    pub(super) const NONE: Self = Self { wait: Duration::ZERO, tries_left: TRIES };
}

/// The table.
#[derive(Debug)]
pub(super) struct Limits {
    rules: LimitRules,
    rows: HashMap<Source, Row>,
    /// What is left for strangers, in microseconds of refill.
    budget_us: u64,
    refilled_at: Timestamp,
}

/// Where tries come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    /// This machine.
    Loopback,
    V4([u8; 4]),
    /// A /64.
    V6([u8; 8]),
}

#[derive(Debug, Clone, Copy)]
struct Row {
    failures: u32,
    tried_at: Timestamp,
    free_at: Timestamp,
}

impl Limits {
    pub(super) fn new(rules: LimitRules) -> Self {
        Self {
            rules,
            rows: HashMap::new(),
            budget_us: full_budget(rules),
            refilled_at: Timestamp::from_micros(0),
        }
    }

    /// How an address stands now.
    pub(super) fn look(&self, remote: IpAddr, now: Timestamp) -> Wait {
        let source = Source::of(remote);
        let row = self.row(source, now);
        let wait = row.map_or(Duration::ZERO, |row| row.free_at.since(now));
        let together = match source {
            Source::Loopback => Duration::ZERO,
            _ => self.together_wait(now),
        };
        let failures = row.map_or(0, |row| row.failures);
        Wait { wait: wait.max(together), tries_left: TRIES.saturating_sub(failures).max(1) }
    }

    /// Begins a try, which counts as failed from now on. `Err` says how long it has to wait; then it does not count.
    pub(super) fn begin(&mut self, remote: IpAddr, now: Timestamp) -> Result<(), Wait> {
        let wait = self.look(remote, now);
        if wait.wait > Duration::ZERO {
            return Err(wait);
        }
        let source = Source::of(remote);
        if source != Source::Loopback {
            self.spend(now);
        }
        let failures = self.row(source, now).map_or(0, |row| row.failures).saturating_add(1);
        self.make_room(source, now);
        let free_at = now + delay(failures);
        self.rows.insert(source, Row { failures, tried_at: now, free_at });
        Ok(())
    }

    /// The try that was begun succeeded: the address starts anew.
    pub(super) fn succeed(&mut self, remote: IpAddr) {
        self.rows.remove(&Source::of(remote));
    }

    /// The try that was begun was not made after all.
    pub(super) fn take_back(&mut self, remote: IpAddr, now: Timestamp) {
        if let Some(row) = self.rows.get_mut(&Source::of(remote)) {
            row.failures = row.failures.saturating_sub(1);
            row.free_at = now;
        }
    }

    /// Whether the last try of this address was the one that locked it.
    pub(super) fn is_newly_locked(&self, remote: IpAddr, now: Timestamp) -> bool {
        self.row(Source::of(remote), now).is_some_and(|row| row.failures == TRIES)
    }

    /// Everybody starts anew.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
    }

    fn row(&self, source: Source, now: Timestamp) -> Option<&Row> {
        self.rows.get(&source).filter(|row| now.since(row.tried_at) < FORGET)
    }

    fn make_room(&mut self, source: Source, now: Timestamp) {
        if self.rows.len() < self.rules.addresses || self.rows.contains_key(&source) {
            return;
        }
        self.rows.retain(|_, row| now.since(row.tried_at) < FORGET);
        if self.rows.len() < self.rules.addresses {
            return;
        }
        let oldest =
            self.rows.iter().min_by_key(|(_, row)| row.tried_at).map(|(source, _)| *source);
        if let Some(oldest) = oldest {
            self.rows.remove(&oldest);
        }
    }

    /// The budget now, in microseconds of refill.
    fn budget(&self, now: Timestamp) -> u64 {
        let refilled = micros(now.since(self.refilled_at));
        self.budget_us.saturating_add(refilled).min(full_budget(self.rules))
    }

    fn together_wait(&self, now: Timestamp) -> Duration {
        let Some((_, each)) = self.rules.together else { return Duration::ZERO };
        Duration::from_micros(micros(each).saturating_sub(self.budget(now)))
    }

    fn spend(&mut self, now: Timestamp) {
        let Some((_, each)) = self.rules.together else { return };
        self.budget_us = self.budget(now).saturating_sub(micros(each));
        self.refilled_at = now;
    }
}

impl Source {
    fn of(remote: IpAddr) -> Self {
        match remote.to_canonical() {
            remote if remote.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) => Self::V4(v4.octets()),
            IpAddr::V6(v6) => Self::V6(network(v6)),
        }
    }
}

fn network(address: Ipv6Addr) -> [u8; 8] {
    let mut network = [0; 8];
    network.copy_from_slice(&address.octets()[..8]);
    network
}

/// How long the next try waits after so many failures.
fn delay(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        1..TRIES => FIRST_DELAY * (1 << (failures - 1)),
        _ => LOCK,
    }
}

fn full_budget(rules: LimitRules) -> u64 {
    rules.together.map_or(0, |(count, each)| micros(each).saturating_mul(count.into()))
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros().try_into().unwrap_or(u64::MAX)
}
