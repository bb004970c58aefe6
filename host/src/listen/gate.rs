//! Counts connections, in all, per address and per IPv6 network.
//!
//! An IPv6 host can call itself by any address of its /64, and so can its neighbours: counted by address alone it would
//! take every place, counted by network alone it would take its neighbours'. So both are counted, and a network's share
//! is larger than an address's.
//!
//! A full gate turns newcomers away ([`Gate::new`]), or makes room for them ([`Gate::making_room`]): then whoever has
//! said least about itself goes first, from where the most come from, the oldest first. So strangers only ever take
//! places from strangers, and somebody who is new always gets the chance to say who it is.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// An IPv6 network has as many times the share of an address, but never more than half of all places.
const NETWORK_SHARE: usize = 4;
/// As many connections a browser opens: nobody is thought to be greedy for that.
const A_BROWSERS: usize = 6;

/// So many may be open; clones share the count.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

/// What is known of whoever holds a place; a higher one is kept longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rank {
    /// Nothing.
    Stranger,
    /// It may come in. Guests are kept before strangers while they have no more than half of all places.
    Guest,
    /// It is the owner; its place is never taken.
    Owner,
}

/// A place; given back when dropped.
pub struct Admission {
    shared: Arc<Shared>,
    id: u64,
    taken: Arc<Notify>,
}

struct Shared {
    in_all: usize,
    per_address: usize,
    per_network: usize,
    makes_room: bool,
    loopback_apart: bool,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_id: u64,
    /// The oldest first.
    open: BTreeMap<u64, Open>,
}

struct Open {
    home: Home,
    rank: Rank,
    taken: Arc<Notify>,
}

/// Where somebody comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Home {
    address: IpAddr,
    /// The first address of its /64; an IPv4 address is by itself.
    network: IpAddr,
}

impl Home {
    /// Where this address is from. A program on this machine may call itself by any loopback address: they are one,
    /// unless they are to stand for several machines.
    fn of(address: IpAddr, loopback_apart: bool) -> Self {
        let address = match address.to_canonical() {
            loopback if loopback.is_loopback() && !loopback_apart => Ipv4Addr::LOCALHOST.into(),
            address => address,
        };
        let network = match address {
            IpAddr::V4(_) => address,
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
            }
        };
        Self { address, network }
    }
}

/// Whose share is used up.
#[derive(Clone, Copy)]
enum Share {
    Address,
    Network,
    All,
}

impl Share {
    /// Whether a place at `there` counts for a newcomer from `here`.
    fn covers(self, here: &Home, there: &Home) -> bool {
        match self {
            Self::Address => here.address == there.address,
            Self::Network => here.network == there.network,
            Self::All => true,
        }
    }
}

impl Gate {
    /// A gate with so many places in all, and so many for one address; an IPv6 /64 has four times as many. When it is
    /// full, newcomers are turned away.
    pub fn new(in_all: usize, per_address: usize) -> Self {
        Self::of(in_all, per_address, false)
    }

    /// The same, but where newcomers get the place of somebody who ranks lowest. Whoever holds a place has to heed
    /// [`Admission::taken`].
    pub fn making_room(in_all: usize, per_address: usize) -> Self {
        Self::of(in_all, per_address, true)
    }

    /// The same, where each loopback address counts as a machine of its own: for tests, which have no other machines.
    #[must_use]
    pub fn with_loopback_apart(self) -> Self {
        let Shared { in_all, per_address, per_network, makes_room, .. } = *self.shared;
        let table = Mutex::default();
        let shared =
            Shared { in_all, per_address, per_network, makes_room, loopback_apart: true, table };
        Self { shared: Arc::new(shared) }
    }

    fn of(in_all: usize, per_address: usize, makes_room: bool) -> Self {
        let per_network = (per_address * NETWORK_SHARE).min(in_all / 2).max(per_address);
        let table = Mutex::default();
        let loopback_apart = false;
        let shared = Shared { in_all, per_address, per_network, makes_room, loopback_apart, table };
        Self { shared: Arc::new(shared) }
    }

    /// A place for somebody from this address, who is a stranger; `None` if there is none.
    pub fn admit(&self, remote: IpAddr) -> Option<Admission> {
        let home = Home::of(remote, self.shared.loopback_apart);
        let mut table = self.shared.lock();
        while let Some(share) = self.shared.used_up(&table, &home) {
            let victim = table.least(share, &home).filter(|_| self.shared.makes_room)?;
            table.open.remove(&victim)?.taken.notify_one();
        }
        table.last_id += 1;
        let (id, taken) = (table.last_id, Arc::new(Notify::new()));
        let open = Open { home, rank: Rank::Stranger, taken: Arc::clone(&taken) };
        table.open.insert(id, open);
        drop(table);
        Some(Admission { shared: Arc::clone(&self.shared), id, taken })
    }
}

impl Shared {
    /// The first share that has no place left for a newcomer from here.
    fn used_up(&self, table: &Table, home: &Home) -> Option<Share> {
        let shares = [
            (Share::Address, self.per_address),
            (Share::Network, self.per_network),
            (Share::All, self.in_all),
        ];
        let is_full = |(share, places): &(Share, usize)| table.count(*share, home) >= *places;
        shares.into_iter().find(is_full).map(|(share, _)| share)
    }

    // Each change of the table is one call: a panic elsewhere leaves it whole.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Table {
    fn count(&self, share: Share, home: &Home) -> usize {
        self.open.values().filter(|open| share.covers(home, &open.home)).count()
    }

    /// Whose place is taken for a newcomer from here.
    fn least(&self, share: Share, home: &Home) -> Option<u64> {
        let (mut addresses, mut networks) = (HashMap::new(), HashMap::new());
        for Open { home, .. } in self.open.values() {
            *addresses.entry(home.address).or_insert(0) += 1;
            *networks.entry(home.network).or_insert(0) += 1;
        }
        let crowd = |counts: &HashMap<IpAddr, usize>, address| {
            counts.get(&address).copied().unwrap_or(0).max(A_BROWSERS)
        };
        (self.open.iter())
            .filter(|(_, open)| share.covers(home, &open.home) && open.rank < Rank::Owner)
            .min_by_key(|(id, open)| {
                let near = Reverse(crowd(&networks, open.home.network));
                (open.rank, near, Reverse(crowd(&addresses, open.home.address)), **id)
            })
            .map(|(id, _)| *id)
    }
}

impl Admission {
    /// What is now known of whoever holds the place.
    pub fn ranks(&self, rank: Rank) {
        let mut table = self.shared.lock();
        let guests = table.open.values().filter(|open| open.rank == Rank::Guest).count();
        let Some(open) = table.open.get_mut(&self.id) else { return };
        let is_one_too_many = open.rank != Rank::Guest && guests >= self.shared.in_all / 2;
        open.rank = if rank == Rank::Guest && is_one_too_many { Rank::Stranger } else { rank };
    }

    /// Returns when the place is somebody else's: what was done with it has to end at once. For one waiter.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.shared.lock().open.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(gate: &Gate, text: &str) -> Option<Admission> {
        gate.admit(text.parse().unwrap())
    }

    fn has_place(admission: &Admission) -> bool {
        admission.shared.lock().open.contains_key(&admission.id)
    }

    // spec: gamestream 13 item 124
    #[test]
    fn one_address_cannot_take_every_connection() {
        let gate = Gate::new(5, 2);
        let first = admit(&gate, "10.0.0.1").unwrap();
        let _second = admit(&gate, "::ffff:10.0.0.1").unwrap();
        assert!(admit(&gate, "10.0.0.1").is_none());
        let _others = (admit(&gate, "10.0.0.2").unwrap(), admit(&gate, "10.0.0.3").unwrap());
        let _fifth = admit(&gate, "2001:db8::1").unwrap();
        assert!(admit(&gate, "10.0.0.9").is_none(), "five in all");
        drop(first);
        assert!(admit(&gate, "10.0.0.9").is_some());
        assert_eq!(gate.shared.lock().open.len(), 4);
    }

    // spec: gamestream 13 item 124
    #[test]
    fn a_program_on_this_machine_has_one_share_whatever_it_calls_itself() {
        let gate = Gate::new(16, 2);
        let held = ["127.0.0.1", "127.9.8.7"].map(|text| admit(&gate, text).unwrap());
        for text in ["127.1.2.3", "::1", "::ffff:127.4.5.6"] {
            assert!(admit(&gate, text).is_none(), "{text}");
        }
        assert!(admit(&gate, "10.0.0.1").is_some());
        drop(held);
        let apart = Gate::new(16, 1).with_loopback_apart();
        let _both = ["127.0.0.1", "127.9.8.7"].map(|text| admit(&apart, text).unwrap());
    }

    #[test]
    fn an_ipv6_neighbour_takes_neither_its_neighbours_places_nor_all() {
        let gate = Gate::new(24, 2);
        let one = || admit(&gate, "2001:db8::1");
        let _one = (one().unwrap(), one().unwrap());
        assert!(one().is_none(), "an address has its share");
        let _neighbours: Vec<_> =
            (2..8).map(|host| admit(&gate, &format!("2001:db8::{host}")).unwrap()).collect();
        assert!(admit(&gate, "2001:db8::ffff:9").is_none(), "a /64 has its share");
        assert!(admit(&gate, "2001:db8:0:1::1").is_some());
    }

    #[test]
    fn strangers_make_room_for_newcomers_and_the_owner_does_not() {
        let gate = Gate::making_room(32, 8);
        let owner = admit(&gate, "10.0.0.1").unwrap();
        owner.ranks(Rank::Owner);
        let strangers = |address: &str, count| -> Vec<_> {
            (0..count).map(|_| admit(&gate, address).unwrap()).collect()
        };
        let crowd = strangers("10.0.0.2", 8);
        let few = strangers("10.0.0.3", 6);
        let _more = (strangers("10.0.0.4", 8), strangers("10.0.0.5", 8));
        let _last = strangers("10.0.0.6", 1);
        let newcomer = admit(&gate, "10.0.0.7").unwrap();
        assert!(!has_place(&crowd[0]), "the oldest of those who are most");
        assert!(crowd[1..].iter().chain(&few).chain([&owner]).all(has_place));
        // Nobody opens so many that the owner goes, or whoever opens as few as a browser does.
        for address in 10..200 {
            drop(strangers(&format!("10.0.0.{}", address % 7 + 8), 1));
            std::mem::forget(strangers("10.0.0.2", 1));
        }
        assert!(has_place(&owner) && has_place(&newcomer) && few.iter().all(has_place));
        assert!(gate.shared.lock().open.len() <= 32);
    }

    #[test]
    fn a_full_address_makes_room_among_its_own() {
        let gate = Gate::making_room(32, 2);
        let first = admit(&gate, "10.0.0.1").unwrap();
        let second = admit(&gate, "10.0.0.1").unwrap();
        let other = admit(&gate, "10.0.0.2").unwrap();
        first.ranks(Rank::Owner);
        let third = admit(&gate, "10.0.0.1").unwrap();
        assert!(!has_place(&second) && [&first, &third, &other].into_iter().all(has_place));
        third.ranks(Rank::Owner);
        assert!(admit(&gate, "10.0.0.1").is_none(), "there is nobody to go");
        first.ranks(Rank::Stranger);
        assert!(admit(&gate, "10.0.0.1").is_some(), "who logs out is a stranger");
    }

    #[test]
    fn guests_are_kept_while_they_are_no_more_than_half() {
        let gate = Gate::making_room(4, 4);
        let guests: Vec<_> =
            (1..5).map(|at| admit(&gate, &format!("10.0.0.{at}")).unwrap()).collect();
        guests.iter().for_each(|guest| guest.ranks(Rank::Guest));
        for _ in 0..8 {
            std::mem::forget(admit(&gate, "10.0.0.9").unwrap());
        }
        assert_eq!(guests.iter().map(has_place).collect::<Vec<_>>(), [true, true, false, false]);
    }

    #[tokio::test]
    async fn whoever_loses_its_place_is_told() {
        let gate = Gate::making_room(1, 1);
        let first = admit(&gate, "10.0.0.1").unwrap();
        let second = admit(&gate, "10.0.0.2").unwrap();
        first.taken().await;
        drop(first);
        assert!(has_place(&second), "a place is given back once");
    }
}
