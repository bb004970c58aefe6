//! `pf-send`: turns access units into datagrams and lets them go when their time has come.
//!
//! It waits in one place, for a unit or for the next departure, whichever is first. A unit's memory and credit go back
//! to the encoder when its last datagram has left.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use punktfunk_core::line::{Burst, FrameSender, SubmitError, Submitted};
use punktfunk_core::media::{AccessUnit, DropReason, FrameFate, FrameTrace};
use punktfunk_core::time::Timestamp;

use super::links::{CREDITS, Dropped, Links};
use super::mailbox::Look;
use super::udp::{BurstSocket, SendError};
use super::{EndReason, Peer};
use crate::clock;

/// A socket that refuses everything for this long will not recover.
const MAX_FAILING: Duration = Duration::from_secs(10);

/// What the thread owns.
pub(super) struct Sending {
    pub(super) sender: Box<dyn FrameSender>,
    pub(super) outlet: Outlet,
}

pub(super) fn run(links: &Links, sending: Sending) {
    let Sending { sender, outlet } = sending;
    let mut stage = Stage { links, sender, outlet, in_flight: VecDeque::with_capacity(CREDITS) };
    while let Some(work) = stage.next_work() {
        if let Some(peer) = work.new_peer {
            stage.outlet.peer = peer;
        }
        let done = match work.unit {
            Some(unit) => stage.submit(unit).and_then(|()| stage.depart()),
            None => stage.depart(),
        };
        if let Err(reason) = done {
            links.end(reason);
        }
    }
    for flight in stage.in_flight {
        links.trace_dropped(Dropped::from(&flight.unit), DropReason::StreamEnded);
    }
}

/// What the inbox, or the clock, asks for.
struct Work {
    new_peer: Option<Peer>,
    unit: Option<AccessUnit>,
}

/// An access unit whose datagrams are on their way out.
struct Flight {
    submitted: Submitted,
    unit: AccessUnit,
    first_sent_at: Option<Timestamp>,
    last_sent_at: Timestamp,
    datagrams: u32,
}

struct Stage<'a> {
    links: &'a Links,
    sender: Box<dyn FrameSender>,
    outlet: Outlet,
    /// Oldest first, at most [`CREDITS`].
    in_flight: VecDeque<Flight>,
}

impl Stage<'_> {
    /// Waits for a unit or the next departure; `None` when the stream has ended.
    fn next_work(&self) -> Option<Work> {
        let departure = self.sender.poll_timeout();
        self.links.send.wait(|inbox, now| {
            if inbox.closed {
                return Look::Ready(None);
            }
            let due = departure.is_some_and(|then| then <= now);
            if due || inbox.new_peer.is_some() || !inbox.units.is_empty() {
                let new_peer = inbox.new_peer.take();
                return Look::Ready(Some(Work { new_peer, unit: inbox.units.pop_front() }));
            }
            departure.map_or(Look::Whenever, Look::At)
        })
    }

    fn submit(&mut self, unit: AccessUnit) -> Result<(), EndReason> {
        let now = clock::now();
        match self.sender.submit(&unit, now) {
            Ok(submitted) => {
                self.in_flight.push_back(Flight {
                    submitted,
                    unit,
                    first_sent_at: None,
                    last_sent_at: now,
                    datagrams: 0,
                });
                return Ok(());
            }
            Err(SubmitError::CounterExhausted) => {
                self.links.trace_dropped(Dropped::from(&unit), DropReason::StreamEnded);
                return Err(EndReason::NetworkFailed(SubmitError::CounterExhausted.to_string()));
            }
            Err(error @ SubmitError::TooLarge { .. }) => {
                tracing::warn!(%error, "an access unit cannot be sent, an IDR picture follows");
            }
            // Credits are there to make this impossible.
            Err(error @ SubmitError::Backlog { .. }) => {
                tracing::error!(%error, "the sender refused an access unit that had a credit");
            }
        }
        self.links.trace_dropped(Dropped::from(&unit), DropReason::Unsendable);
        self.links.encode.look(|inbox| inbox.idr_wanted = true);
        self.links.give_back(unit.bytes);
        Ok(())
    }

    /// Sends what may leave now.
    fn depart(&mut self) -> Result<(), EndReason> {
        while let Some(burst) = self.sender.poll_burst(clock::now()) {
            let before = clock::now();
            self.outlet.send(&burst)?;
            let flight =
                self.in_flight.iter_mut().find(|flight| flight.submitted.index == burst.frame);
            if let Some(flight) = flight {
                flight.first_sent_at.get_or_insert(before);
                flight.last_sent_at = clock::now();
                flight.datagrams += u32::try_from(burst.count()).unwrap_or(u32::MAX);
            }
            if burst.last {
                let gone =
                    self.in_flight.iter().position(|flight| flight.submitted.index == burst.frame);
                if let Some(flight) = gone.and_then(|at| self.in_flight.remove(at)) {
                    self.arrived(flight);
                }
            }
        }
        // A sender that waits for nothing has handed out everything: no credit stays behind, whatever its bursts said.
        if self.sender.poll_timeout().is_none() {
            while let Some(flight) = self.in_flight.pop_front() {
                self.arrived(flight);
            }
        }
        Ok(())
    }

    fn arrived(&self, flight: Flight) {
        let Flight { submitted, unit, first_sent_at, last_sent_at, datagrams } = flight;
        self.links.trace(FrameTrace {
            source: unit.source,
            captured_at: unit.captured_at,
            repeated: unit.repeated,
            fate: FrameFate::Sent {
                index: submitted.index,
                kind: unit.kind,
                encode_began_at: unit.encode_began_at,
                encoded_at: unit.encoded_at,
                first_sent_at: first_sent_at.unwrap_or(last_sent_at),
                last_sent_at,
                bytes: u32::try_from(unit.bytes.len()).unwrap_or(u32::MAX),
                datagrams,
                shape: submitted.shape,
            },
        });
        self.links.give_back(unit.bytes);
    }
}

/// A socket with a destination. Datagrams may be lost on any network, so single failures are not errors; a socket that
/// only fails is one.
pub(super) struct Outlet {
    socket: BurstSocket,
    pub(super) peer: Peer,
    /// The last datagrams did not leave from the address that the client knows.
    astray: bool,
    failing_since: Option<Timestamp>,
    warned_at: Option<Timestamp>,
}

impl Outlet {
    pub(super) fn new(socket: BurstSocket, peer: Peer) -> Self {
        Self { socket, peer, astray: false, failing_since: None, warned_at: None }
    }

    fn send(&mut self, burst: &Burst<'_>) -> Result<(), EndReason> {
        let sent = self.leave(|socket, to| socket.send(burst, to));
        self.judge(sent, clock::now())
    }

    /// Sends one datagram.
    pub(super) fn send_one(&mut self, datagram: &[u8]) -> Result<(), EndReason> {
        let sent = self.leave(|socket, to| socket.send_one(datagram, to));
        self.judge(sent, clock::now())
    }

    /// Sends from the address that the client knows, or from any other while the host does not have that one: a client
    /// that takes only the one is no worse off, and the address may come back.
    fn leave(
        &mut self,
        mut send: impl FnMut(&mut BurstSocket, SocketAddr) -> Result<(), SendError>,
    ) -> Result<(), SendError> {
        let Peer { to, from } = self.peer;
        self.socket.set_source(from);
        let sent = send(&mut self.socket, to);
        let (Some(from), Err(error)) = (from, &sent) else {
            self.astray = false;
            return sent;
        };
        if !error.may_concern_source() {
            return sent;
        }
        self.socket.set_source(None);
        let elsewhere = send(&mut self.socket, to);
        if elsewhere.is_ok() && !self.astray {
            self.astray = true;
            tracing::warn!(%error, %from, "datagrams leave from another address than the client knows");
        }
        elsewhere
    }

    fn judge(&mut self, sent: Result<(), SendError>, now: Timestamp) -> Result<(), EndReason> {
        let error = match sent {
            Ok(()) => {
                self.failing_since = None;
                return Ok(());
            }
            // Some of it left: the path is narrow, not broken.
            Err(SendError::Full { sent: 1.., .. }) => return Ok(()),
            Err(error) => error,
        };
        if self.warned_at.is_none_or(|warned_at| now.since(warned_at) >= MAX_FAILING) {
            self.warned_at = Some(now);
            tracing::warn!(%error, transient = error.is_transient(), "datagrams cannot be sent");
        }
        let since = *self.failing_since.get_or_insert(now);
        if now.since(since) > MAX_FAILING {
            return Err(EndReason::NetworkFailed(error.to_string()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::sync::Arc;

    use punktfunk_core::media::FrameIndex;

    use super::*;
    use crate::stream::udp::Segmentation;

    fn outlet() -> Outlet {
        let socket = Arc::new(UdpSocket::bind("127.0.0.1:0").unwrap());
        let peer = socket.local_addr().unwrap();
        Outlet::new(BurstSocket::new(socket, 0, Segmentation::Auto).unwrap(), peer.into())
    }

    #[test]
    fn a_socket_that_only_fails_ends_the_stream_and_one_success_forgives() {
        let mut outlet = outlet();
        let full = || Err(SendError::Full { sent: 0, count: 3 });
        let at = |seconds: u64| Timestamp::from_micros(seconds * 1_000_000);
        assert_eq!(outlet.judge(full(), at(1)), Ok(()));
        assert_eq!(outlet.judge(full(), at(10)), Ok(()));
        assert_eq!(outlet.judge(Ok(()), at(10)), Ok(()));
        assert_eq!(outlet.judge(full(), at(12)), Ok(()));
        assert_eq!(outlet.judge(full(), at(22)), Ok(()));
        assert!(matches!(outlet.judge(full(), at(23)), Err(EndReason::NetworkFailed(_))));
    }

    #[test]
    fn a_client_that_closed_its_port_is_no_failure_of_the_socket() {
        let mut outlet = outlet();
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        outlet.peer = gone.local_addr().unwrap().into();
        drop(gone);
        for _ in 0..5 {
            assert_eq!(outlet.send_one(b"hello"), Ok(()));
        }
    }

    #[test]
    fn a_source_address_that_is_gone_does_not_silence_the_stream_and_may_come_back() {
        let v4 = ("127.0.0.1:0", [("192.0.2.1", "127.0.0.1"), ("127.0.0.7", "127.0.0.7")]);
        let v6 = ("[::1]:0", [("2001:db8::1", "::1"), ("::1", "::1")]);
        for (bound, (client, sources)) in [("0.0.0.0:0", v4), ("[::]:0", v4), ("[::]:0", v6)] {
            let receiver = UdpSocket::bind(client).unwrap();
            receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let to = receiver.local_addr().unwrap();
            let socket = Arc::new(UdpSocket::bind(bound).unwrap());
            let socket = BurstSocket::new(socket, 0, Segmentation::Auto).unwrap();
            let mut outlet = Outlet::new(socket, to.into());
            let segments = outlet.socket.segments();
            let datagrams = [0; 300];
            let burst = Burst {
                datagrams: &datagrams,
                segment_bytes: 100,
                frame: FrameIndex(1),
                last: true,
            };
            for (from, seen) in sources {
                outlet.peer.from = Some(from.parse().unwrap());
                assert_eq!(outlet.send(&burst), Ok(()));
                assert_eq!(outlet.send_one(&datagrams[..100]), Ok(()));
                for _ in 0..4 {
                    let (length, source) = receiver.recv_from(&mut [0; 400]).unwrap();
                    assert_eq!((length, source.ip().to_string().as_str()), (100, seen));
                }
                assert_eq!(outlet.failing_since, None);
            }
            assert_eq!(outlet.socket.segments(), segments, "the offload was not at fault");
        }
    }
}
