//! How often somebody may try a secret, as a pure table.
//!
//! Each failure makes the next try wait longer, and the fifth makes it wait a minute, as does every later one; after a
//! quarter of an hour without a try, all starts anew. Tries are counted by exactly who makes them: an address, or a
//! browser that has logged in before. No neighbour can therefore make another one wait a minute. A try counts as failed
//! when it begins, so that tries side by side do not count as one; a success takes the count back.
//!
//! Whoever has an IPv6 network has 2^64 addresses, and everybody at home has the same one. So the strangers of one /64
//! also share an allowance: so many tries at once, and one more each second. Browsers that have logged in before, and
//! addresses where somebody is logged in, are not in it: whoever spends it delays strangers, never the owner's browser.
//!
//! Where the secret is short, tries of all strangers together have such an allowance as well. The machine itself has a
//! row of its own and is in no allowance.
//!
//! The tables are bounded. By the allowances they are never full where there is one for all; where there is none, the row
//! that was used longest ago goes: that helps somebody with thousands of networks, who does not need the help.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use punktfunk_core::time::Timestamp;

/// After so many failures somebody is locked.
const TRIES: u32 = 5;
/// For how long.
const LOCK: Duration = Duration::from_secs(60);
/// How long the second try waits after the first failure; each further one twice as long, up to the lock.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// Whoever did not try for so long starts anew.
const FORGET: Duration = Duration::from_secs(15 * 60);

/// How a table limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitRules {
    /// As many addresses and browsers, and as many networks, are remembered.
    pub rows: usize,
    /// What all strangers together may.
    pub together: Option<Allowance>,
    /// What the strangers of one IPv6 /64 together may.
    pub network: Option<Allowance>,
}

/// So many tries at once, and one more after each such time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allowance {
    /// As many at once.
    pub at_once: u32,
    /// One more after each such time.
    pub each: Duration,
}

/// For the claim's code: 40 bits, so that strangers together get 20 tries at once and 20 a minute. That bounds each
/// network, too.
pub const CLAIM_LIMITS: LimitRules = LimitRules {
    rows: 512,
    together: Some(Allowance { at_once: 20, each: Duration::from_secs(3) }),
    network: None,
};

/// For passwords: nothing for all together, because nobody may be able to keep the owner out.
pub const LOGIN_LIMITS: LimitRules = LimitRules {
    rows: 4096,
    together: None,
    network: Some(Allowance { at_once: 30, each: Duration::from_secs(1) }),
};

/// How somebody stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// How long until the next try.
    pub wait: Duration,
    /// How many tries are left until the lock; one at a time after that.
    pub tries_left: u32,
}

impl Wait {
    /// Of whoever is not limited.
    pub(super) const NONE: Self = Self { wait: Duration::ZERO, tries_left: TRIES };
}

/// Who tries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trier {
    source: Source,
    is_stranger: bool,
}

/// Whose tries are counted as one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    /// An address, canonical; all of this machine's own are one.
    Address(IpAddr),
    /// A browser that has logged in before, or a login.
    Browser([u8; 16]),
}

impl Trier {
    /// Nobody knows who it is.
    pub(super) fn stranger(remote: IpAddr) -> Self {
        let source = Source::of(remote);
        Self { source, is_stranger: source != LOOPBACK }
    }

    /// Somebody is logged in at this address.
    pub(super) fn at_known_address(remote: IpAddr) -> Self {
        Self { source: Source::of(remote), is_stranger: false }
    }

    /// A browser that has logged in before, or a login, wherever it comes from.
    pub(super) fn browser(id: [u8; 16]) -> Self {
        Self { source: Source::Browser(id), is_stranger: false }
    }

    /// Whether nobody knows who it is. A program of a session is at the machine's own address, so that one is nobody's.
    pub(super) fn is_stranger(self) -> bool {
        self.is_stranger || self.source == LOOPBACK
    }

    /// The network whose allowance it is in.
    fn network(self) -> Option<[u8; 8]> {
        match self.source {
            Source::Address(IpAddr::V6(address)) if self.is_stranger => Some(network(address)),
            _ => None,
        }
    }
}

/// The tables.
#[derive(Debug)]
pub(super) struct Limits {
    rules: LimitRules,
    rows: HashMap<Source, Row>,
    networks: HashMap<[u8; 8], Spent>,
    together: Spent,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    failures: u32,
    tried_at: Timestamp,
    free_at: Timestamp,
}

/// What is spent of an allowance, as the time at which it will be whole again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Spent {
    whole_at: Timestamp,
}

impl Spent {
    const NOTHING: Self = Self { whole_at: Timestamp::from_micros(0) };

    /// How long until there is one more try.
    fn wait(self, allowance: Allowance, now: Timestamp) -> Duration {
        let room = allowance.each * allowance.at_once.saturating_sub(1);
        self.whole_at.since(now).saturating_sub(room)
    }

    fn spend(&mut self, allowance: Allowance, now: Timestamp) {
        self.whole_at = self.whole_at.max(now) + allowance.each;
    }

    fn give_back(&mut self, allowance: Allowance, now: Timestamp) {
        self.whole_at = now + self.whole_at.since(now).saturating_sub(allowance.each);
    }
}

impl Limits {
    pub(super) fn new(rules: LimitRules) -> Self {
        Self { rules, rows: HashMap::new(), networks: HashMap::new(), together: Spent::NOTHING }
    }

    /// How somebody stands now.
    pub(super) fn look(&self, who: Trier, now: Timestamp) -> Wait {
        let row = self.row(who, now);
        let wait = row.map_or(Duration::ZERO, |row| row.free_at.since(now));
        let failures = row.map_or(0, |row| row.failures);
        Wait {
            wait: wait.max(self.shared_wait(who, now)),
            tries_left: TRIES.saturating_sub(failures).max(1),
        }
    }

    /// Begins a try, which counts as failed from now on. `Err` says how long it has to wait; then it does not count.
    pub(super) fn begin(&mut self, who: Trier, now: Timestamp) -> Result<(), Wait> {
        let wait = self.look(who, now);
        if wait.wait > Duration::ZERO {
            return Err(wait);
        }
        self.shared(who, |spent, allowance| spent.spend(allowance, now), now);
        let failures = self.row(who, now).map_or(0, |row| row.failures).saturating_add(1);
        make_room(&mut self.rows, self.rules.rows, who.source, |row| {
            (row.tried_at, now.since(row.tried_at) < FORGET)
        });
        let free_at = now + delay(failures);
        self.rows.insert(who.source, Row { failures, tried_at: now, free_at });
        Ok(())
    }

    /// The try that was begun succeeded: whoever made it starts anew, and took nothing from others.
    pub(super) fn succeed(&mut self, who: Trier, now: Timestamp) {
        self.rows.remove(&who.source);
        self.shared(who, |spent, allowance| spent.give_back(allowance, now), now);
    }

    /// The try that was begun was not made after all.
    pub(super) fn take_back(&mut self, who: Trier, now: Timestamp) {
        if let Some(row) = self.rows.get_mut(&who.source) {
            row.failures = row.failures.saturating_sub(1);
            row.free_at = now;
        }
        self.shared(who, |spent, allowance| spent.give_back(allowance, now), now);
    }

    /// Whether the last try was the one that locked whoever made it, or the last that others of its network had.
    pub(super) fn is_worth_telling(&self, who: Trier, now: Timestamp) -> bool {
        self.row(who, now).is_some_and(|row| row.failures == TRIES)
            || !self.shared_wait(who, now).is_zero()
    }

    /// Everybody starts anew, but for what all strangers together have spent.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.networks.clear();
    }

    /// As many addresses and browsers, and as many networks, as are remembered.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize) {
        (self.rows.len(), self.networks.len())
    }

    fn row(&self, who: Trier, now: Timestamp) -> Option<&Row> {
        self.rows.get(&who.source).filter(|row| now.since(row.tried_at) < FORGET)
    }

    /// How long a stranger waits because of others.
    fn shared_wait(&self, who: Trier, now: Timestamp) -> Duration {
        if !who.is_stranger {
            return Duration::ZERO;
        }
        let together = self.rules.together.map(|allowance| self.together.wait(allowance, now));
        let network = (self.rules.network.zip(who.network()))
            .and_then(|(allowance, net)| Some(self.networks.get(&net)?.wait(allowance, now)));
        together.max(network).unwrap_or_default()
    }

    /// Changes the allowances that somebody is in.
    fn shared(&mut self, who: Trier, change: impl Fn(&mut Spent, Allowance), now: Timestamp) {
        if !who.is_stranger {
            return;
        }
        if let Some(allowance) = self.rules.together {
            change(&mut self.together, allowance);
        }
        if let Some((allowance, network)) = self.rules.network.zip(who.network()) {
            make_room(&mut self.networks, self.rules.rows, network, |spent| {
                (spent.whole_at, spent.whole_at > now)
            });
            change(self.networks.entry(network).or_insert(Spent::NOTHING), allowance);
        }
    }
}

/// Makes room for one more row: those that say nothing any more go, or else the oldest. `about` gives both of a row: how
/// old it is, and whether it still says something.
fn make_room<K: Copy + Eq + Hash, V>(
    rows: &mut HashMap<K, V>,
    max: usize,
    key: K,
    about: impl Fn(&V) -> (Timestamp, bool),
) {
    if rows.len() < max || rows.contains_key(&key) {
        return;
    }
    rows.retain(|_, row| about(row).1);
    if rows.len() < max {
        return;
    }
    let oldest = rows.iter().min_by_key(|(_, row)| about(row).0).map(|(key, _)| *key);
    if let Some(oldest) = oldest {
        rows.remove(&oldest);
    }
}

const LOOPBACK: Source = Source::Address(IpAddr::V6(Ipv6Addr::LOCALHOST));

impl Source {
    fn of(remote: IpAddr) -> Self {
        match remote.to_canonical() {
            remote if remote.is_loopback() => LOOPBACK,
            remote => Self::Address(remote),
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
