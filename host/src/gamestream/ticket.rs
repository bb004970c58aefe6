//! Stream tickets: what `/launch` or `/resume` promised a client until its stream runs.
//!
//! A ticket carries one client's secrets through three doors: RTSP finds it by the key that opens a request or by the
//! client's address, the receiving thread by what the client's CONNECT and pings carry. The handshake's state lies in it,
//! because every RTSP request comes on a connection of its own. Once the stream is prepared the ticket holds it; when
//! the client connects, the receiving thread takes it over and only the key stays here, so that it is not used twice.
//!
//! Tickets are few and expire. Nobody's ticket makes room for another's: when all are taken, the next one is refused.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use punktfunk_core::gamestream::control::Scheme;
use punktfunk_core::gamestream::rtsp::{
    Action, Channel, Handshake, Offer, Ports, Request, SealedError, Terms,
};
use punktfunk_core::gamestream::sdp::{AnnounceError, Announced};
use punktfunk_core::media::Mode;
use punktfunk_core::seal::{KeyFingerprint, SessionKey};
use punktfunk_core::time::Timestamp;
use subtle::ConstantTimeEq;

use crate::clock;
use crate::input::InputSink;
use crate::session::{ClientId, PreparedStream, SessionId, StreamGrant};
use crate::stream::Peer;

/// Keys remembered after their streams, by their fingerprints: 32 KiB.
const SPENT_KEYS: usize = 1024;
/// Tickets that may wait at once.
const MAX_WAITING: usize = 16;
/// Tickets that may wait for one address (for IPv6: one /64).
const MAX_WAITING_PER_ADDRESS: usize = 4;
/// From `/launch` to the first RTSP request.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// From one RTSP request to the next.
const NEXT_REQUEST: Duration = Duration::from_secs(15);
/// How long preparing a stream may take.
const PREPARATION: Duration = Duration::from_secs(60);
/// From PLAY to the control connection.
const CONNECT: Duration = Duration::from_secs(10);

/// What a ticket is issued for.
#[derive(Debug, Clone)]
pub struct TicketRequest {
    /// The paired client.
    pub client: ClientId,
    /// Its session.
    pub session: SessionId,
    /// `rikey`.
    pub key: SessionKey,
    /// `rikeyid`, reinterpreted as unsigned.
    pub key_id: u32,
    /// Where the request came from.
    pub remote: IpAddr,
    /// The mode of `/launch`, or the session's mode.
    pub mode: Mode,
    /// The session URL said `rtspenc://`.
    pub encrypted_rtsp: bool,
}

/// Why no ticket was issued.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// A stream of this or an earlier session already used this key (spec: gamestream 9.1).
    #[error("this key was used before; the client must make a new one for each stream")]
    KeyInUse,
    /// Too many tickets are waiting for their stream.
    #[error("{got} streams are already being set up, the limit is {max}")]
    TooMany {
        /// Tickets waiting.
        got: usize,
        /// The limit.
        max: usize,
    },
    /// The system gave no random numbers.
    #[error("the system gave no random numbers")]
    NoRandomness,
}

/// One ticket; never used twice while the daemon runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TicketId(u64);

/// A media port that clients ping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Media {
    /// The video port.
    Video,
    /// The audio port.
    Audio,
}

/// A media ping, as far as it is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ping {
    /// Twenty bytes: the payload that SETUP named and a counter.
    Payload([u8; 16]),
    /// `PING`: an old client, known by its address.
    Legacy,
}

impl Ping {
    /// Reads a datagram; `None` if it is no ping.
    // spec: gamestream 7.1
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        match datagram {
            b"PING" => Some(Self::Legacy),
            _ if datagram.len() == 20 => datagram.first_chunk().map(|bytes| Self::Payload(*bytes)),
            _ => None,
        }
    }
}

/// What the host has to do about an RTSP request.
pub enum Answer {
    /// Send this.
    Reply(Vec<u8>),
    /// ANNOUNCE was refused: send this, and say why in the log.
    Refuse(Vec<u8>, AnnounceError),
    /// Prepare the stream, then call [`Tickets::prepared`] and send its answer.
    Prepare(Box<Preparation>),
}

/// What the stream of a ticket is prepared from.
pub struct Preparation {
    /// The ticket.
    pub id: TicketId,
    /// Its session.
    pub session: SessionId,
    /// The session's key.
    pub key: SessionKey,
    /// `rikeyid`.
    pub key_id: u32,
    /// What the client chose.
    pub announced: Announced,
    ok: Vec<u8>,
    failed: Vec<u8>,
}

/// A ticket whose client has connected, for the receiving thread.
pub struct Adopted {
    /// The ticket.
    pub id: TicketId,
    /// The paired client.
    pub client: ClientId,
    /// Its session.
    pub session: SessionId,
    /// The session's key.
    pub key: SessionKey,
    /// How control messages are sealed.
    pub scheme: Scheme,
    /// The stream, to be started.
    pub stream: Box<dyn PreparedStream>,
    /// The session's input devices.
    pub input: Box<dyn InputSink>,
    /// What its pings carry.
    pub ping_payload: [u8; 16],
    /// It is too old to know about payloads: its pings are known by their address.
    pub legacy_pings: bool,
    /// What its CONNECT carries; 0 if it is known by its address.
    pub connect_data: u32,
    /// Where the launch request came from.
    pub remote: IpAddr,
    /// Where its video pings came from so far.
    pub video_peer: Option<Peer>,
    /// Where its audio pings came from so far.
    pub audio_peer: Option<Peer>,
}

/// All tickets of the door. A client has at most one; a new one replaces the old.
#[derive(Default)]
pub struct Tickets {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    next: u64,
    waiting: BTreeMap<TicketId, Ticket>,
    /// The keys and connect data of running streams.
    live: BTreeMap<TicketId, Live>,
    /// Keys that have sealed or opened something, newest last. Every counter begins anew with a ticket, so a key that
    /// came twice would use nonces twice.
    spent: VecDeque<KeyFingerprint>,
}

struct Live {
    key: SessionKey,
    connect_data: u32,
}

struct Ticket {
    request: TicketRequest,
    token: String,
    ping_payload: String,
    connect_data: u32,
    rtsp: Channel,
    deadline: Timestamp,
    stage: Stage,
    /// Addresses of pings with the payload: video, audio.
    pings: [Option<Peer>; 2],
    /// Addresses of old-style pings from the client's address: video, audio.
    legacy_pings: [Option<Peer>; 2],
}

enum Stage {
    /// The client negotiates.
    Handshake(Handshake),
    /// ANNOUNCE is being worked on; this is the state to return to if that fails.
    Preparing(Handshake),
    /// The stream is prepared.
    Prepared { state: Handshake, stream: Box<PreparedTicket> },
}

struct PreparedTicket {
    grant: StreamGrant,
    control_v2: bool,
    session_id: bool,
}

impl Tickets {
    /// Issues a ticket.
    ///
    /// # Errors
    /// See [`TicketError`].
    pub fn issue(&self, request: TicketRequest) -> Result<(), TicketError> {
        self.issue_at(request, clock::now())
    }

    /// [`issue`](Self::issue) at a given time.
    ///
    /// # Errors
    /// See [`TicketError`].
    // spec: gamestream 2.11, 9.1
    pub fn issue_at(&self, request: TicketRequest, now: Timestamp) -> Result<(), TicketError> {
        let mut gone = self.expire(now);
        let mut table = self.table();
        if table.uses_key(&request.key, request.client) {
            return Err(TicketError::KeyInUse);
        }
        let own = table.of_client(request.client);
        let others = table.waiting.len() - usize::from(own.is_some());
        let neighbours = table
            .waiting
            .values()
            .filter(|ticket| ticket.request.client != request.client)
            .filter(|ticket| network(ticket.request.remote) == network(request.remote))
            .count();
        for (got, max) in [(others, MAX_WAITING), (neighbours, MAX_WAITING_PER_ADDRESS)] {
            if got >= max {
                return Err(TicketError::TooMany { got, max });
            }
        }
        let connect_data = table.free_connect_data()?;
        let ticket = Ticket {
            rtsp: Channel::new(&request.key),
            token: random_hex()?,
            ping_payload: random_hex()?,
            connect_data,
            deadline: now + FIRST_REQUEST,
            stage: Stage::Handshake(Handshake::new()),
            pings: [None; 2],
            legacy_pings: [None; 2],
            request,
        };
        gone.extend(own.and_then(|id| table.waiting.remove(&id)));
        let id = TicketId(table.next);
        table.next += 1;
        table.waiting.insert(id, ticket);
        drop(table);
        // A stream that was prepared for the old ticket is given back without holding the table.
        drop(gone);
        Ok(())
    }

    /// Withdraws the client's ticket, if it has one that is not in use yet.
    pub fn withdraw(&self, client: ClientId) {
        let mut table = self.table();
        let gone = table.of_client(client).and_then(|id| table.waiting.remove(&id));
        drop(table);
        drop(gone);
    }

    /// Forgets a ticket, waiting or live, with its key.
    pub fn forget(&self, id: TicketId) {
        let mut table = self.table();
        let gone = (table.waiting.remove(&id), table.live.remove(&id));
        drop(table);
        drop(gone);
    }

    /// Forgets all live tickets: who had taken them over has lost them.
    pub fn forget_live(&self) {
        self.table().live.clear();
    }

    /// Forgets tickets whose time is over.
    // spec: gamestream 9.3
    pub fn sweep(&self, now: Timestamp) {
        let gone = self.expire(now);
        for ticket in &gone {
            tracing::info!(
                client = %ticket.request.remote,
                prepared = matches!(ticket.stage, Stage::Prepared { .. }),
                "a client did not finish setting up its stream"
            );
        }
    }

    /// How many tickets wait for their stream.
    pub fn waiting(&self) -> usize {
        self.table().waiting.len()
    }

    /// Finds the ticket whose key opens an encrypted request.
    ///
    /// # Errors
    /// The error of the ticket that knows the frame best; no ticket is changed.
    // spec: gamestream 4.1, 4.3
    pub fn open_rtsp(&self, frame: &[u8]) -> Result<(TicketId, Vec<u8>), SealedError> {
        let mut best = SealedError::WrongKey;
        for (id, ticket) in &mut self.table().waiting {
            if !ticket.request.encrypted_rtsp {
                continue;
            }
            match ticket.rtsp.open(frame) {
                Ok(text) => return Ok((*id, text)),
                Err(SealedError::WrongKey) => {}
                Err(other) => best = other,
            }
        }
        Err(best)
    }

    /// Finds the ticket of a plain request: by its token, else by the address, else the only one there is.
    // spec: gamestream 4.1
    pub fn find_rtsp(&self, remote: IpAddr, token: Option<&str>) -> Option<TicketId> {
        let table = self.table();
        let plain = || table.waiting.iter().filter(|(_, ticket)| !ticket.request.encrypted_rtsp);
        let by_token = token.and_then(|token| plain().find(|(_, ticket)| ticket.token == token));
        let remote = remote.to_canonical();
        let by_address =
            || plain().rfind(|(_, ticket)| ticket.request.remote.to_canonical() == remote);
        let only = || if plain().count() == 1 { plain().next() } else { None };
        by_token.or_else(by_address).or_else(only).map(|(id, _)| *id)
    }

    /// Answers one request of a ticket's client; `None` if the ticket is gone or busy with ANNOUNCE.
    pub fn answer(
        &self,
        id: TicketId,
        request: &Request,
        offer: &Offer,
        ports: Ports,
        now: Timestamp,
    ) -> Option<Answer> {
        let mut table = self.table();
        let key = table.waiting.get(&id)?.request.key.fingerprint();
        table.spend(key);
        let ticket = table.waiting.get_mut(&id)?;
        let state = match &ticket.stage {
            Stage::Handshake(state) | Stage::Prepared { state, .. } => *state,
            Stage::Preparing(_) => return None,
        };
        let terms = Terms {
            token: &ticket.token,
            ping_payload: &ticket.ping_payload,
            connect_data: ticket.connect_data,
            ports,
            offer,
        };
        let step = state.step(request, &terms);
        // After PLAY nothing but the control connection counts.
        if state != Handshake::Playing {
            ticket.deadline = now + NEXT_REQUEST;
        }
        Some(match step.action {
            Action::Reply(response) => {
                ticket.stage.set(step.state);
                Answer::Reply(response.to_bytes())
            }
            Action::Play(response) => {
                ticket.stage.set(step.state);
                ticket.deadline = now + CONNECT;
                Answer::Reply(response.to_bytes())
            }
            Action::Refuse(response, error) => Answer::Refuse(response.to_bytes(), error),
            Action::Prepare { announced, ok, failed } => {
                ticket.stage = Stage::Preparing(state);
                ticket.deadline = now + PREPARATION;
                Answer::Prepare(Box::new(Preparation {
                    id,
                    session: ticket.request.session,
                    key: ticket.request.key.clone(),
                    key_id: ticket.request.key_id,
                    announced: *announced,
                    ok: ok.to_bytes(),
                    failed: failed.to_bytes(),
                }))
            }
        })
    }

    /// Puts the prepared stream into its ticket, or notes that there is none. Returns what to send; `None` if the ticket
    /// is gone meanwhile, and then the stream is given back.
    pub fn prepared(
        &self,
        preparation: Preparation,
        grant: Option<StreamGrant>,
        now: Timestamp,
    ) -> Option<Vec<u8>> {
        let mut table = self.table();
        let Some(ticket) = table.waiting.get_mut(&preparation.id) else {
            drop(table);
            drop(grant);
            return None;
        };
        ticket.deadline = now + NEXT_REQUEST;
        let Some(grant) = grant else {
            if let Stage::Preparing(state) = ticket.stage {
                ticket.stage = Stage::Handshake(state);
            }
            return Some(preparation.failed);
        };
        let stream = Box::new(PreparedTicket {
            grant,
            control_v2: preparation.announced.encryption.control_v2,
            session_id: preparation.announced.session_id,
        });
        ticket.stage = Stage::Prepared { state: Handshake::Announced, stream };
        Some(preparation.ok)
    }

    /// Seals an answer if the ticket's RTSP is encrypted. `None` if the ticket is gone: nobody knows any more whether
    /// the answer may be read by all.
    ///
    /// # Errors
    /// The counter is used up.
    pub fn seal_rtsp(&self, id: TicketId, answer: Vec<u8>) -> Result<Option<Vec<u8>>, SealedError> {
        match self.table().waiting.get_mut(&id) {
            Some(ticket) if ticket.request.encrypted_rtsp => ticket.rtsp.seal(&answer).map(Some),
            Some(_) => Ok(Some(answer)),
            None => Ok(None),
        }
    }

    /// Whether somebody who connects with this data from this address is expected.
    // spec: gamestream 5.2
    pub fn expects(&self, data: u32, remote: IpAddr) -> bool {
        self.table().expected(data, remote).is_some()
    }

    /// Hands the expected ticket to the receiving thread.
    pub fn adopt(&self, data: u32, remote: IpAddr) -> Option<Adopted> {
        let mut table = self.table();
        let id = table.expected(data, remote)?;
        let ticket = table.waiting.remove(&id)?;
        let Stage::Prepared { stream, .. } = ticket.stage else { return None };
        let key = ticket.request.key;
        table.live.insert(id, Live { key: key.clone(), connect_data: ticket.connect_data });
        let legacy = if stream.session_id { [None; 2] } else { ticket.legacy_pings };
        let [video_peer, audio_peer] =
            [0, 1].map(|media: usize| ticket.pings[media].or(legacy[media]));
        let mut payload = [0; 16];
        payload.copy_from_slice(ticket.ping_payload.as_bytes().first_chunk::<16>()?);
        Some(Adopted {
            id,
            client: ticket.request.client,
            session: ticket.request.session,
            key,
            scheme: if stream.control_v2 { Scheme::V2 } else { Scheme::Legacy },
            stream: stream.grant.stream,
            input: stream.grant.input,
            ping_payload: payload,
            legacy_pings: !stream.session_id,
            connect_data: data,
            remote: ticket.request.remote,
            video_peer,
            audio_peer,
        })
    }

    /// Remembers where a client pings from before it has connected. Returns whether the ping is anybody's.
    // spec: gamestream 8.5
    pub fn note_ping(&self, media: Media, ping: Ping, peer: Peer) -> bool {
        let slot = match media {
            Media::Video => 0,
            Media::Audio => 1,
        };
        let mut table = self.table();
        let remote = peer.to.ip().to_canonical();
        for ticket in table.waiting.values_mut() {
            let addresses = match ping {
                Ping::Payload(payload) => {
                    if !bool::from(payload[..].ct_eq(ticket.ping_payload.as_bytes())) {
                        continue;
                    }
                    &mut ticket.pings
                }
                Ping::Legacy if ticket.request.remote.to_canonical() == remote => {
                    &mut ticket.legacy_pings
                }
                Ping::Legacy => continue,
            };
            if let Some(address) = addresses.get_mut(slot) {
                *address = Some(peer);
            }
            return true;
        }
        false
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // No code that holds the table can leave it half changed.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expire(&self, now: Timestamp) -> Vec<Ticket> {
        self.table()
            .waiting
            .extract_if(.., |_, ticket| ticket.deadline <= now)
            .map(|(_, ticket)| ticket)
            .collect()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("waiting", &self.waiting()).finish_non_exhaustive()
    }
}

impl Stage {
    fn set(&mut self, next: Handshake) {
        match self {
            Self::Handshake(state) | Self::Preparing(state) | Self::Prepared { state, .. } => {
                *state = next;
            }
        }
    }
}

impl Table {
    fn of_client(&self, client: ClientId) -> Option<TicketId> {
        self.waiting.iter().find(|(_, ticket)| ticket.request.client == client).map(|(id, _)| *id)
    }

    /// Whether a stream has or had this key, or another client's ticket has it.
    fn uses_key(&self, key: &SessionKey, client: ClientId) -> bool {
        self.spent.contains(&key.fingerprint())
            || self.live.values().any(|live| live.key == *key)
            || self
                .waiting
                .values()
                .any(|ticket| ticket.request.key == *key && ticket.request.client != client)
    }

    fn spend(&mut self, key: KeyFingerprint) {
        if self.spent.contains(&key) {
            return;
        }
        self.spent.push_back(key);
        if self.spent.len() > SPENT_KEYS {
            self.spent.pop_front();
        }
    }

    fn expected(&self, data: u32, remote: IpAddr) -> Option<TicketId> {
        let remote = remote.to_canonical();
        self.waiting
            .iter()
            .find(|(_, ticket)| {
                let Stage::Prepared { state: Handshake::Playing, stream } = &ticket.stage else {
                    return false;
                };
                if data != 0 {
                    return ticket.connect_data == data;
                }
                !stream.session_id && ticket.request.remote.to_canonical() == remote
            })
            .map(|(id, _)| *id)
    }

    fn free_connect_data(&self) -> Result<u32, TicketError> {
        loop {
            let data = u32::from_ne_bytes(random()?);
            let taken = self.waiting.values().any(|ticket| ticket.connect_data == data)
                || self.live.values().any(|live| live.connect_data == data);
            if data != 0 && !taken {
                return Ok(data);
            }
        }
    }
}

/// What counts as one address: all of an IPv4 address, the first 64 bits of an IPv6 address.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

fn random<const N: usize>() -> Result<[u8; N], TicketError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| TicketError::NoRandomness)?;
    Ok(bytes)
}

/// Sixteen hexadecimal digits.
fn random_hex() -> Result<String, TicketError> {
    Ok(format!("{:016x}", u64::from_ne_bytes(random()?)))
}

#[cfg(test)]
mod tests;
