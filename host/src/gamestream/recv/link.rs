//! ENet's socket: one datagram in, any number out, and peers whose addresses move.
//!
//! The ENet library finds a peer by number and insists that its address never changes; a phone that leaves the Wi-Fi
//! changes it. So the library only ever sees the address a peer connected from. The receiving thread decides whether a
//! datagram from elsewhere is the peer's, and tells this link, which sends the library's answers to where the peer is.

use std::convert::Infallible;

use rusty_enet::{Address, MTU_MAX, PacketReceived, Socket};

use super::datagrams::{Datagrams, Origin};

/// The address that a peer connected from: the name it has in the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Home(pub(super) Origin);

impl Address for Home {
    fn same_host(&self, other: &Self) -> bool {
        self.0.remote.ip() == other.0.remote.ip()
    }

    fn same(&self, other: &Self) -> bool {
        self.0.remote == other.0.remote
    }

    fn is_broadcast(&self) -> bool {
        // The library lets everybody speak for a peer with a broadcast address. There is none here.
        false
    }
}

/// The socket that the library is given.
pub(super) struct Link {
    /// The UDP socket.
    pub(super) datagrams: Datagrams,
    /// The datagram that the library takes next.
    next: Option<(Home, usize)>,
    bytes: Box<[u8; MTU_MAX]>,
    /// Peers that are no longer where they connected from.
    moved: Vec<(Home, Origin)>,
}

impl Link {
    pub(super) fn new(datagrams: Datagrams) -> Self {
        Self { datagrams, next: None, bytes: Box::new([0; MTU_MAX]), moved: Vec::new() }
    }

    /// Takes a datagram from the socket into the slot, but does not show it to the library yet.
    pub(super) fn receive_into_slot(&mut self) -> Option<(Origin, usize)> {
        loop {
            let (origin, datagram) = self.datagrams.receive()?;
            // Longer ones are not ENet's.
            if let Some(slot) = self.bytes.get_mut(..datagram.len()) {
                slot.copy_from_slice(datagram);
                return Some((origin, datagram.len()));
            }
        }
    }

    /// The datagram in the slot.
    pub(super) fn slot(&self, bytes: usize) -> &[u8] {
        self.bytes.get(..bytes).unwrap_or_default()
    }

    /// Shows the datagram in the slot to the library, as one from `home`.
    pub(super) fn admit(&mut self, home: Home, bytes: usize) {
        self.next = Some((home, bytes));
    }

    /// Shows a datagram to the library that came earlier.
    pub(super) fn admit_copy(&mut self, home: Home, datagram: &[u8]) {
        if let Some(slot) = self.bytes.get_mut(..datagram.len()) {
            slot.copy_from_slice(datagram);
            self.admit(home, datagram.len());
        }
    }

    /// Where a peer is now.
    pub(super) fn whereabouts(&self, home: Home) -> Origin {
        self.moved.iter().find(|(have, _)| have.same(&home)).map_or(home.0, |(_, origin)| *origin)
    }

    /// Notes that a peer is somewhere else.
    pub(super) fn move_peer(&mut self, home: Home, to: Origin) {
        self.forget(home);
        if to.remote != home.0.remote || to.local != home.0.local {
            self.moved.push((home, to));
        }
    }

    /// Notes that a peer is gone.
    pub(super) fn forget(&mut self, home: Home) {
        self.moved.retain(|(have, _)| !have.same(&home));
    }
}

impl Socket for Link {
    type Address = Home;
    type Error = Infallible;

    fn send(&mut self, address: Home, buffer: &[u8]) -> Result<usize, Infallible> {
        self.datagrams.send(self.whereabouts(address), buffer);
        Ok(buffer.len())
    }

    fn receive(
        &mut self,
        buffer: &mut [u8; MTU_MAX],
    ) -> Result<Option<(Home, PacketReceived)>, Infallible> {
        let Some((home, bytes)) = self.next.take() else { return Ok(None) };
        buffer.copy_from_slice(&self.bytes[..]);
        Ok(Some((home, PacketReceived::Complete(bytes))))
    }
}
