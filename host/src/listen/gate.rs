//! Counts connections, in all and per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

/// So many may be open; clones share the count.
#[derive(Clone)]
pub struct Gate {
    shared: Arc<Shared>,
}

struct Shared {
    in_all: usize,
    per_address: usize,
    open: Mutex<HashMap<AddressBlock, usize>>,
}

/// What counts as one address: an IPv6 host has a whole /64 to itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum AddressBlock {
    V4([u8; 4]),
    V6([u16; 4]),
}

impl AddressBlock {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// A place; given back when dropped.
pub struct Admission {
    shared: Arc<Shared>,
    block: AddressBlock,
}

impl Gate {
    /// A gate with so many places in all, and so many for one address (IPv6: one /64).
    pub fn new(in_all: usize, per_address: usize) -> Self {
        Self { shared: Arc::new(Shared { in_all, per_address, open: Mutex::default() }) }
    }

    /// A place for somebody from this address; `None` if there is none.
    pub fn admit(&self, remote: IpAddr) -> Option<Admission> {
        let block = AddressBlock::of(remote);
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let in_all: usize = open.values().sum();
        let here = open.get(&block).copied().unwrap_or(0);
        if in_all >= self.shared.in_all || here >= self.shared.per_address {
            return None;
        }
        open.insert(block, here + 1);
        Some(Admission { shared: Arc::clone(&self.shared), block })
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.block) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // spec: gamestream 13 item 124
    #[test]
    fn one_address_cannot_take_every_connection() {
        let gate = Gate::new(5, 2);
        let admit = |text: &str| gate.admit(text.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let _second = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        let _v6 = (admit("2001:db8::1").unwrap(), admit("2001:db8::ffff:2").unwrap());
        assert!(admit("2001:db8::3").is_none(), "one /64 is one address");
        let _other = admit("2001:db8:0:1::1").unwrap();
        assert!(admit("10.0.0.9").is_none(), "five in all");
        drop(first);
        assert!(admit("10.0.0.9").is_some());
        assert_eq!(gate.shared.open.lock().unwrap().len(), 3);
    }
}
