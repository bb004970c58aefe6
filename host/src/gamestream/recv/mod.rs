//! `pf-recv`: the one thread that hears what clients say while they stream.
//!
//! It owns the control, video and audio sockets, ENet, the openers and the input devices of all sessions, and waits in
//! one place. A key goes from its datagram to the device without crossing a thread; video and sound leave from other
//! threads over the same sockets.
//!
//! Trust grows in steps. A datagram must be sound before ENet sees it; a CONNECT must carry the data of a ticket whose
//! client has said PLAY; a peer becomes the client when its first message opens under the session's key; what says that it is the client's reaches
//! ENet only if every message in it was sealed by the client; and a peer's address changes only with a fresh message that opens. Media pings are matched by their payload. Nothing is ever
//! answered to anybody else, so the ports reflect nothing.
//!
//! ENet's goodbye is not sealed, so anybody can forge one. It is held back until the client has been quiet for as long as
//! a client never is, and one that speaks meanwhile has not left.
//!
//! A panic ends the session it happens in, or all of them, and the thread goes on with a new ENet: a daemon that hears
//! nobody would look well and serve nobody.
//!
//! Deliberately absent: any word about a stream's contents, and ENet's own opinion of when a client is gone. Silence of
//! ten seconds ends a stream, whatever was acknowledged.

mod datagrams;
mod link;
mod session;

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use punktfunk_core::gamestream::control::HostMessage;
use punktfunk_core::gamestream::enet::{Connect, Datagram};
use punktfunk_core::gamestream::rtsp;
use punktfunk_core::time::Timestamp;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rusty_enet::{Address as _, EventNoRef, Host, HostSettings, Packet, PeerID, PeerState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::clock;
use crate::gamestream::ticket::{Media, Ping, TicketId, Tickets};
use crate::stream::EndReason;
use datagrams::{Datagrams, Origin};
use link::{Home, Link};
use session::{Phase, Session};

/// Peers that ENet has room for; a session has one, and a few more while it is not clear who its client is.
const MAX_PEERS: usize = 64;
/// Peers that may claim to be one session's client.
const MAX_CLAIMS: usize = 4;
/// Connections with the same data that may be half open: CONNECT can be sent under any address and costs a peer each.
const MAX_HALF_OPEN: usize = 8;
/// Bytes that a peer may have waiting for an earlier message that is missing. Stock clients send some kilobytes a second.
const MAX_WAITING_BYTES: usize = 256 * 1024;
/// How long a client is quiet before its goodbye is believed. Clients say something every 100 ms.
const QUIET: Duration = Duration::from_millis(300);
/// How long the thread rests after a panic, so that a lasting one does not take a whole core.
const PANIC_REST: Duration = Duration::from_millis(200);
/// Channels per peer. Clients ask for 48, those of 2021 for 1.
const CHANNELS: usize = 255;
/// What the sockets ask for as their send buffers.
const SEND_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// How often ENet is looked after while peers are connected.
const TURN: Duration = Duration::from_millis(20);
/// How often tickets are looked after while there are no peers.
const IDLE_TURN: Duration = Duration::from_secs(2);
/// Datagrams taken from one socket before the others get their turn.
const MAX_DATAGRAMS_PER_TURN: usize = 256;
/// How often strangers are worth a line in the log.
const STRANGERS_LOG: Duration = Duration::from_secs(60);

/// The UDP sockets of the door at one address.
#[derive(Debug, Clone)]
pub struct MediaSockets {
    /// Video and its pings.
    pub video: Arc<UdpSocket>,
    /// ENet.
    pub control: Arc<UdpSocket>,
    /// Audio and its pings.
    pub audio: Arc<UdpSocket>,
}

impl MediaSockets {
    /// Binds the three ports; `::` serves IPv4 as well.
    ///
    /// # Errors
    /// A port is taken, or the address is not this machine's.
    pub fn bind(address: IpAddr, ports: crate::gamestream::Ports) -> io::Result<Self> {
        let bind = |port: u16| -> io::Result<Arc<UdpSocket>> {
            let address = SocketAddr::new(address, port);
            let socket =
                Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            if address.is_ipv6() {
                socket.set_only_v6(address.ip() != IpAddr::V6(Ipv6Addr::UNSPECIFIED))?;
            }
            // All streams leave through one socket, and the kernel charges it for what waits until an address is
            // found: up to 208 KiB for each client that has vanished, which is all of the default buffer. Two of them
            // would silence everybody. The system cuts down what it does not allow, to twice the default if nobody
            // changed the limit.
            if let Err(error) = socket.set_send_buffer_size(SEND_BUFFER_BYTES) {
                tracing::debug!(%error, "the send buffer keeps its size");
            }
            socket.bind(&address.into())?;
            Ok(Arc::new(socket.into()))
        };
        Ok(Self {
            video: bind(ports.video)?,
            control: bind(ports.control)?,
            audio: bind(ports.audio)?,
        })
    }

    /// The ports they are bound to, for SETUP.
    ///
    /// # Errors
    /// The system does not say.
    pub fn ports(&self) -> io::Result<rtsp::Ports> {
        Ok(rtsp::Ports {
            video: self.video.local_addr()?.port(),
            control: self.control.local_addr()?.port(),
            audio: self.audio.local_addr()?.port(),
        })
    }
}

/// How long clients are waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Control silence that ends a stream; a client says something every 100 ms. Default 10 s.
    pub silence: Duration,
    /// From the control connection to the first video ping. Default 10 s.
    pub first_ping: Duration,
    /// For acknowledging the termination message, and again for disconnecting. Default 500 ms.
    pub farewell: Duration,
}

impl Default for Patience {
    // spec: gamestream 9.3
    fn default() -> Self {
        Self {
            silence: Duration::from_secs(10),
            first_ping: Duration::from_secs(10),
            farewell: Duration::from_millis(500),
        }
    }
}

enum Command {
    /// A stream has ended.
    Ended(TicketId, EndReason),
    /// Say goodbye to everybody and end.
    Stop,
}

/// Where other threads leave word for `pf-recv`.
#[derive(Debug, Clone)]
pub struct Inbox {
    commands: mpsc::Sender<Command>,
    waker: Arc<OwnedFd>,
}

impl Inbox {
    /// A stream has ended; its client will be told. Never blocks.
    pub fn ended(&self, ticket: TicketId, reason: EndReason) {
        self.send(Command::Ended(ticket, reason));
    }

    fn send(&self, command: Command) {
        // The thread is gone only when the door is closing; there is nobody to tell then.
        if self.commands.send(command).is_ok()
            && let Err(error) = rustix::io::write(&*self.waker, &1u64.to_ne_bytes())
        {
            // A full counter is a thread that is already awake.
            tracing::trace!(%error, "the receiving thread was not woken");
        }
    }
}

/// The running thread. Dropping it says goodbye to every client and joins.
#[derive(Debug)]
pub struct RecvHandle {
    inbox: Inbox,
    thread: Option<JoinHandle<()>>,
}

impl RecvHandle {
    /// Where streams leave word that they have ended.
    pub fn inbox(&self) -> Inbox {
        self.inbox.clone()
    }
}

impl Drop for RecvHandle {
    fn drop(&mut self) {
        self.inbox.send(Command::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the receiving thread had panicked");
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// A socket cannot be set up, or the system gives no thread.
pub fn spawn(
    sockets: &MediaSockets,
    tickets: Arc<Tickets>,
    patience: Patience,
) -> io::Result<RecvHandle> {
    let (commands, receiver) = mpsc::channel();
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let waker = Arc::new(eventfd(0, flags)?);
    let inbox = Inbox { commands, waker: Arc::clone(&waker) };
    let video = Datagrams::new(Arc::clone(&sockets.video))?;
    let audio = Datagrams::new(Arc::clone(&sockets.audio))?;
    // The library's host is made here, so that its errors are seen here; only the thread uses it.
    let enet = enet_host(&sockets.control)?;
    let mut receiver = Receiver {
        video,
        audio,
        enet,
        control: Arc::clone(&sockets.control),
        tickets,
        patience,
        sessions: Vec::new(),
        peers: BTreeMap::new(),
        half_open: Vec::new(),
        inbox: receiver,
        waker,
        strangers: Strangers::default(),
        stop_at: None,
    };
    let thread =
        std::thread::Builder::new().name("pf-recv".into()).spawn(move || receiver.run())?;
    Ok(RecvHandle { inbox, thread: Some(thread) })
}

/// ENet without any peers, on this socket.
fn enet_host(control: &Arc<UdpSocket>) -> io::Result<Host<Link>> {
    let link = Link::new(Datagrams::new(Arc::clone(control))?);
    let time_from = clock::now();
    let settings = HostSettings {
        peer_limit: MAX_PEERS,
        channel_limit: CHANNELS,
        time: Box::new(move || clock::now().since(time_from)),
        ..HostSettings::default()
    };
    let failed = |error: &dyn std::fmt::Display| io::Error::other(error.to_string());
    let mut enet = Host::new(link, settings).map_err(|error| failed(&error))?;
    enet.set_maximum_waiting_data(MAX_WAITING_BYTES).map_err(|error| failed(&error))?;
    Ok(enet)
}

/// A peer that ENet has connected, and whom it claims to be.
#[derive(Clone, Copy)]
struct Claim {
    home: Home,
    session: TicketId,
}

/// A connection that ENet has answered and whose other end has not shown yet that it hears the answer.
struct HalfOpen {
    home: Home,
    connect: Connect,
}

#[derive(Default)]
struct Strangers {
    datagrams: u64,
    logged_at: Option<Timestamp>,
}

impl Strangers {
    fn count(&mut self, now: Timestamp) {
        self.datagrams += 1;
        if self.logged_at.is_none_or(|at| now.since(at) >= STRANGERS_LOG) {
            self.logged_at = Some(now);
            tracing::debug!(datagrams = self.datagrams, "datagrams of strangers were dropped");
        }
    }
}

struct Receiver {
    video: Datagrams,
    audio: Datagrams,
    enet: Host<Link>,
    /// ENet's socket, to begin anew on.
    control: Arc<UdpSocket>,
    tickets: Arc<Tickets>,
    patience: Patience,
    sessions: Vec<Session>,
    peers: BTreeMap<usize, Claim>,
    half_open: Vec<HalfOpen>,
    inbox: mpsc::Receiver<Command>,
    waker: Arc<OwnedFd>,
    strangers: Strangers,
    /// Set once the thread shall end: when it does, whether or not all clients have heard it.
    stop_at: Option<Timestamp>,
}

impl Receiver {
    fn run(&mut self) {
        while catch_unwind(AssertUnwindSafe(|| self.serve())).is_err() {
            tracing::error!("the receiving thread panicked; all its sessions end");
            std::thread::sleep(PANIC_REST);
            if let Ok(Err(error)) = catch_unwind(AssertUnwindSafe(|| self.begin_anew())) {
                tracing::error!(%error, "the receiving thread cannot go on");
                return;
            }
        }
    }

    /// Forgets every session, for nobody knows what state they are in; their clients may come back.
    fn begin_anew(&mut self) -> io::Result<()> {
        self.peers.clear();
        self.half_open.clear();
        self.tickets.forget_live();
        self.enet = enet_host(&self.control)?;
        // Each of them releases its keys and stops its stream.
        self.sessions.clear();
        Ok(())
    }

    fn serve(&mut self) {
        loop {
            self.wait();
            let now = clock::now();
            self.read_inbox(now);
            self.read_pings(now);
            self.read_control(now);
            self.look_after_sessions(now);
            self.tickets.sweep(now);
            self.enet.flush();
            if self.stop_at.is_some_and(|at| self.sessions.is_empty() || now >= at) {
                return;
            }
        }
    }

    /// The one place where this thread waits.
    fn wait(&mut self) {
        let turn = if self.enet_is_busy() { TURN } else { IDLE_TURN };
        let timeout = Timespec {
            tv_sec: i64::try_from(turn.as_secs()).unwrap_or(0),
            tv_nsec: i64::from(turn.subsec_nanos()),
        };
        let sockets =
            [self.video.socket(), self.audio.socket(), self.enet.socket().datagrams.socket()];
        let [video, audio, control] = sockets.map(|socket| PollFd::new(socket, PollFlags::IN));
        let mut fds = [video, audio, control, PollFd::new(&*self.waker, PollFlags::IN)];
        if let Err(error) = poll(&mut fds, Some(&timeout))
            && error != rustix::io::Errno::INTR
        {
            tracing::error!(%error, "waiting for datagrams failed");
        }
    }

    fn enet_is_busy(&mut self) -> bool {
        !self.sessions.is_empty()
            || self.enet.peers().any(|peer| peer.state() != PeerState::Disconnected)
    }

    fn read_inbox(&mut self, now: Timestamp) {
        let mut counter = [0; 8];
        // Empty when something else woke the thread.
        let _ = rustix::io::read(&*self.waker, &mut counter);
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Ended(ticket, reason) => {
                    match self.sessions.iter().position(|session| session.id == ticket) {
                        Some(at) => self.end(at, &reason, now),
                        None => self.tickets.forget(ticket),
                    }
                }
                Command::Stop => {
                    self.stop_at = Some(now + 2 * self.patience.farewell);
                    for at in 0..self.sessions.len() {
                        self.end(at, &EndReason::Shutdown, now);
                    }
                }
            }
        }
    }

    fn read_pings(&mut self, now: Timestamp) {
        for media in [Media::Video, Media::Audio] {
            let socket = match media {
                Media::Video => &mut self.video,
                Media::Audio => &mut self.audio,
            };
            for _ in 0..MAX_DATAGRAMS_PER_TURN {
                let Some((origin, datagram)) = socket.receive() else { break };
                let known = Ping::parse(datagram).is_some_and(|ping| {
                    self.sessions
                        .iter_mut()
                        .any(|session| session.take_ping(media, ping, origin.peer(), now))
                        || self.tickets.note_ping(media, ping, origin.peer())
                });
                if !known {
                    self.strangers.count(now);
                }
            }
        }
        self.sessions.iter_mut().for_each(Session::start_if_ready);
    }

    fn read_control(&mut self, now: Timestamp) {
        for _ in 0..MAX_DATAGRAMS_PER_TURN {
            let Some((origin, bytes)) = self.enet.socket_mut().receive_into_slot() else { break };
            match self.judge(origin, bytes, now) {
                Some(home) => self.enet.socket_mut().admit(home, bytes),
                None => {
                    self.strangers.count(now);
                    continue;
                }
            }
            self.serve_enet(now);
        }
        self.serve_enet(now);
    }

    /// Whose the datagram in the slot is; `None` if it must not reach ENet.
    fn judge(&mut self, origin: Origin, bytes: usize, now: Timestamp) -> Option<Home> {
        let link = self.enet.socket();
        let (id, claim, commands) = match Datagram::parse(link.slot(bytes)).ok()? {
            Datagram::Connect(connect) => {
                let home = Home(origin);
                // A peer that has moved away keeps its name, so nobody else may have it.
                let taken = link.whereabouts(home).remote != origin.remote;
                let remote = origin.remote.ip();
                let may = !taken && self.may_connect(connect.data, remote);
                return (may && self.has_room_for(connect, home)).then_some(home);
            }
            Datagram::Peer { peer, commands } => match self.peers.get(&usize::from(peer)) {
                // Not connected yet: ENet compares the address.
                None => return Some(Home(origin)),
                Some(claim) => (PeerID(peer.into()), *claim, commands),
            },
        };
        let claimed = self.sessions.iter().find(|session| session.id == claim.session);
        if !claimed.is_some_and(|session| session.vouches_for(commands)) {
            return None;
        }
        if link.whereabouts(claim.home).remote == origin.remote {
            let session = self.sessions.iter_mut().find(|session| session.peer == Some(id));
            if let Some(session) = session.filter(|_| commands.disconnects())
                && session.holds_back(link.slot(bytes), now)
            {
                return None;
            }
            return Some(claim.home);
        }
        // From elsewhere: only a fresh message under the session's key proves that the client has moved.
        // spec: gamestream 5.2
        let session = self.sessions.iter().find(|session| session.id == claim.session)?;
        if !commands.messages().any(|message| session.recognizes(message)) {
            return None;
        }
        tracing::info!(session = session.session.0, peer = %origin.remote, "the client's address changed");
        self.enet.socket_mut().move_peer(claim.home, origin);
        Some(claim.home)
    }

    fn may_connect(&self, data: u32, remote: IpAddr) -> bool {
        let awaiting = self.sessions.iter().find(|session| session.awaits(data, remote));
        match awaiting {
            Some(session) => {
                let claims = self.peers.values().filter(|claim| claim.session == session.id);
                claims.count() < MAX_CLAIMS
            }
            None => self.stop_at.is_none() && self.tickets.expects(data, remote),
        }
    }

    /// Whether another connection may be half open, and notes that it is. Those that nobody waits for any more are
    /// closed first.
    fn has_room_for(&mut self, connect: Connect, home: Home) -> bool {
        for known in std::mem::take(&mut self.half_open) {
            let expected = self.may_connect(known.connect.data, known.home.0.remote.ip());
            let mut open = false;
            for peer in self.enet.peers_mut() {
                let its_own = peer.address().is_some_and(|address| address.same(&known.home));
                if its_own && peer.state() == PeerState::AcknowledgingConnect {
                    if expected {
                        open = true;
                    } else {
                        peer.reset();
                    }
                }
            }
            if open {
                self.half_open.push(known);
            }
        }
        let same = |known: &&HalfOpen| {
            known.connect.data == connect.data && (connect.data != 0 || known.home.same_host(&home))
        };
        let mut alike = self.half_open.iter().filter(same);
        // ENet does not make a second peer for a repetition.
        if alike.clone().any(|known| known.home.same(&home) && known.connect == connect) {
            return true;
        }
        if alike.by_ref().count() >= MAX_HALF_OPEN {
            return false;
        }
        self.half_open.push(HalfOpen { home, connect });
        true
    }

    fn serve_enet(&mut self, now: Timestamp) {
        loop {
            // The link never fails.
            let event = match self.enet.service() {
                Ok(Some(event)) => event.no_ref(),
                Ok(None) => return,
                Err(never) => match never {},
            };
            match event {
                EventNoRef::Connect { peer, data } => self.connected(peer, data, now),
                EventNoRef::Disconnect { peer, .. } => self.disconnected(peer, now),
                EventNoRef::Receive { peer, packet, .. } => self.received(peer, &packet, now),
            }
        }
    }

    fn connected(&mut self, id: PeerID, data: u32, now: Timestamp) {
        let Some(home) = self.enet.get_peer(id).and_then(|peer| peer.address()) else { return };
        let remote = home.0.remote.ip();
        let awaiting = self.sessions.iter().find(|session| session.awaits(data, remote));
        let session = match awaiting {
            Some(session) => session.id,
            None => {
                let Some(adopted) = self.tickets.adopt(data, remote) else {
                    // Its ticket expired between CONNECT and the client's answer.
                    self.enet.peer_mut(id).disconnect_now(0);
                    return;
                };
                let session = Session::new(adopted, now, now + self.patience.first_ping);
                tracing::info!(session = session.session.0, peer = %home.0.remote, "a client connects");
                let id = session.id;
                self.sessions.push(session);
                id
            }
        };
        // As the client does: gone after that long without an acknowledgement, however many were missed.
        let silence = u32::try_from(self.patience.silence.as_millis()).unwrap_or(u32::MAX);
        self.enet.peer_mut(id).set_timeout(2, silence, silence);
        self.peers.insert(id.0, Claim { home, session });
    }

    fn disconnected(&mut self, id: PeerID, _now: Timestamp) {
        let Some(claim) = self.peers.remove(&id.0) else { return };
        self.enet.socket_mut().forget(claim.home);
        let others = self.peers.values().any(|other| other.session == claim.session);
        if let Some(session) = self.sessions.iter_mut().find(|session| session.id == claim.session)
            && (session.peer == Some(id) || (session.peer.is_none() && !others))
        {
            session.leave("it disconnected");
        }
    }

    fn received(&mut self, id: PeerID, packet: &Packet, now: Timestamp) {
        let Some(claim) = self.peers.get(&id.0).copied() else { return };
        let Some(at) = self.sessions.iter().position(|session| session.id == claim.session) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(at) else { return };
        if session.peer.is_some_and(|peer| peer != id) {
            return;
        }
        // Devices and streams are others' work, and one that panics ends its own session only.
        let received = catch_unwind(AssertUnwindSafe(|| session.receive(packet.data(), now)));
        let Ok(received) = received else {
            tracing::error!(
                session = session.session.0,
                "a control message made its handler panic"
            );
            let reason = EndReason::Bug("a control message made its handler panic".to_owned());
            self.end(at, &reason, now);
            return;
        };
        if let Err(error) = received {
            // Powers of two: a flood of forgeries leaves a handful of lines.
            if session.refused_messages().is_power_of_two() {
                let refused = session.refused_messages();
                tracing::debug!(session = session.session.0, %error, refused, "control messages were refused");
            }
            return;
        }
        if session.peer.is_none() {
            session.peer = Some(id);
            let hello = session.seal(&HostMessage::Hdr { enabled: None });
            session.start_if_ready();
            let session = session.id;
            self.drop_claims(session, Some(id));
            self.tell(id, hello);
        }
    }

    /// Forgets the peers that claimed to be a session's client, but for the one that is.
    fn drop_claims(&mut self, session: TicketId, but: Option<PeerID>) {
        let drop: Vec<_> = self
            .peers
            .iter()
            .filter(|(id, claim)| claim.session == session && but != Some(PeerID(**id)))
            .map(|(id, claim)| (*id, *claim))
            .collect();
        for (id, claim) in drop {
            self.peers.remove(&id);
            self.enet.socket_mut().forget(claim.home);
            self.enet.peer_mut(PeerID(id)).reset();
        }
    }

    fn tell(&mut self, id: PeerID, message: Option<Vec<u8>>) {
        if let Some(message) = message
            && let Err(error) = self.enet.peer_mut(id).send(0, &Packet::reliable(message))
        {
            tracing::debug!(%error, "a control message could not be sent");
        }
    }

    /// Ends a session from the host's side.
    // spec: gamestream 5.3
    fn end(&mut self, at: usize, reason: &EndReason, now: Timestamp) {
        let Some(session) = self.sessions.get_mut(at) else { return };
        if *reason == EndReason::ClientGone {
            session.leave("its stream ended");
            return;
        }
        let peer = session.peer;
        let farewell = session.close(reason, now + self.patience.farewell);
        match peer {
            None => session.phase = Phase::Over,
            Some(id) if farewell.is_some() => {
                self.tell(id, farewell);
                // Disconnects once the message is acknowledged.
                self.enet.peer_mut(id).disconnect_later(0);
            }
            Some(_) => {}
        }
    }

    /// Shows ENet the goodbyes of clients that have been quiet since.
    fn believe_goodbyes(&mut self, now: Timestamp) {
        for at in 0..self.sessions.len() {
            let Some(session) = self.sessions.get_mut(at) else { break };
            let claim = session.peer.and_then(|id| self.peers.get(&id.0));
            let goodbye = session.goodbye_at(now);
            if let (Some(claim), Some(goodbye)) = (claim, goodbye) {
                self.enet.socket_mut().admit_copy(claim.home, &goodbye);
                self.serve_enet(now);
            }
        }
    }

    fn look_after_sessions(&mut self, now: Timestamp) {
        self.believe_goodbyes(now);
        for at in 0..self.sessions.len() {
            let Some(session) = self.sessions.get_mut(at) else { break };
            let silent = now.since(session.last_heard) >= self.patience.silence;
            let peer = session.peer;
            if let (Phase::Streaming(control), Some(id)) = (&session.phase, peer)
                && let Some(peer) = self.enet.get_peer(id)
            {
                control.note_round_trip(peer.round_trip_time());
            }
            match &mut session.phase {
                Phase::Opening { .. } | Phase::Streaming(_) if silent => {
                    session.leave("it was silent for too long");
                }
                Phase::Opening { until, .. } if now >= *until => {
                    let reason = EndReason::NetworkFailed("no video ping arrived".to_owned());
                    self.end(at, &reason, now);
                }
                Phase::Ending { until, asked } if now >= *until => match peer {
                    Some(id) if !*asked => {
                        (*until, *asked) = (now + self.patience.farewell, true);
                        self.enet.peer_mut(id).disconnect(0);
                    }
                    _ => session.phase = Phase::Over,
                },
                _ => {}
            }
        }
        self.bury();
    }

    /// Forgets the sessions that are over, with their keys and peers.
    fn bury(&mut self) {
        let over = |session: &Session| matches!(session.phase, Phase::Over);
        for id in self
            .sessions
            .iter()
            .filter(|session| over(session))
            .map(|session| session.id)
            .collect::<Vec<_>>()
        {
            self.tickets.forget(id);
            self.drop_claims(id, None);
        }
        self.sessions.retain(|session| !over(session));
    }
}
