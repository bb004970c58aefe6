//! The control connection as a stock client has it: ENet with 48 channels, every message sealed.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::time::Instant;

use punktfunk_core::gamestream::control::{ControlError, Opener, Scheme, Sealer, Side};
use punktfunk_core::seal::SessionKey;
use rusty_enet::{EventNoRef, Host, HostSettings, MTU_MAX, Packet, PacketReceived, PeerID, Socket};

/// spec: gamestream 5.2
const CHANNELS: usize = 48;
const MTU: u16 = 900;
/// The host's messages have less than 100 bytes; this many may wait.
const MOST_BYTES: usize = 64 * 1024;
/// spec: gamestream 5.6
const GENERIC: u8 = 0;
const URGENT: u8 = 1;
/// spec: gamestream 5.7
const IDR_REQUEST: u16 = 0x0302;
const START_B: u16 = 0x0307;
const PING: u16 = 0x0200;
/// spec: gamestream 5.8
const TERMINATION: u16 = 0x0109;

/// Why there is no control connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ControlFailure {
    #[error("the socket failed: {0}")]
    Socket(#[from] io::Error),
    #[error("ENet: {0}")]
    Enet(String),
    #[error(transparent)]
    Seal(#[from] ControlError),
    #[error("the host ended the stream with the code {0:#010x}")]
    Terminated(u32),
    #[error("the host ended the connection")]
    Disconnected,
}

/// The client's end.
pub(super) struct Control {
    enet: Host<Connected>,
    peer: PeerID,
    sealer: Sealer,
    opener: Opener,
    connected_at: Option<Instant>,
    messages: u64,
}

impl Control {
    /// Begins to connect.
    pub(super) fn connect(
        from: SocketAddr,
        to: SocketAddr,
        key: &SessionKey,
        v2: bool,
        connect_data: u32,
    ) -> Result<Self, ControlFailure> {
        let enet = |error: String| ControlFailure::Enet(error);
        let settings =
            HostSettings { peer_limit: 1, channel_limit: CHANNELS, ..Default::default() };
        let socket = Connected::new(from, to)?;
        let mut host = Host::new(socket, settings).map_err(|error| enet(format!("{error:?}")))?;
        host.set_mtu(MTU).map_err(|error| enet(format!("{error:?}")))?;
        host.set_maximum_packet_size(MOST_BYTES).map_err(|error| enet(format!("{error:?}")))?;
        host.set_maximum_waiting_data(MOST_BYTES).map_err(|error| enet(format!("{error:?}")))?;
        let peer = host
            .connect(to, CHANNELS, connect_data)
            .map_err(|error| enet(format!("{error:?}")))?
            .id();
        let scheme = if v2 { Scheme::V2 } else { Scheme::Legacy };
        Ok(Self {
            enet: host,
            peer,
            sealer: Sealer::new(key, scheme, Side::Client),
            opener: Opener::new(key, scheme, Side::Host),
            connected_at: None,
            messages: 0,
        })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.enet.socket().0
    }

    /// When the connection came about.
    pub(super) fn connected_at(&self) -> Option<Instant> {
        self.connected_at
    }

    /// Messages that were opened.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Does what is due; never waits.
    pub(super) fn serve(&mut self) -> Result<(), ControlFailure> {
        /// Events in one go; a host that floods must not keep the rest waiting.
        const MOST: usize = 64;
        for _ in 0..MOST {
            let event = self.enet.service().map_err(ControlFailure::Socket)?;
            let Some(event) = event else { return Ok(()) };
            match event.no_ref() {
                EventNoRef::Connect { .. } => {
                    self.connected_at = Some(Instant::now());
                    // Start A is a request for an IDR picture.
                    self.send(GENERIC, IDR_REQUEST, &[0, 0])?;
                    self.send(GENERIC, START_B, &[0])?;
                }
                EventNoRef::Disconnect { .. } => return Err(ControlFailure::Disconnected),
                EventNoRef::Receive { packet, .. } => self.hear(packet.data())?,
            }
        }
        Ok(())
    }

    fn hear(&mut self, message: &[u8]) -> Result<(), ControlFailure> {
        // A message that does not open says nothing; a client ignores it.
        let Ok(opened) = self.opener.open(message) else { return Ok(()) };
        self.messages += 1;
        match (opened.kind, opened.payload.first_chunk()) {
            (TERMINATION, Some(code)) => Err(ControlFailure::Terminated(u32::from_be_bytes(*code))),
            _ => Ok(()),
        }
    }

    pub(super) fn request_idr(&mut self) -> Result<(), ControlFailure> {
        self.send(URGENT, IDR_REQUEST, &[0, 0])
    }

    /// The client is alive.
    pub(super) fn ping(&mut self) -> Result<(), ControlFailure> {
        self.send(GENERIC, PING, &[4, 0, 0, 0, 0, 0, 0, 0])
    }

    fn send(&mut self, channel: u8, kind: u16, payload: &[u8]) -> Result<(), ControlFailure> {
        let message = self.sealer.seal(kind, payload)?;
        self.enet
            .peer_mut(self.peer)
            .send(channel, &Packet::reliable(message.as_slice()))
            .map_err(|error| ControlFailure::Enet(format!("{error:?}")))?;
        self.enet.flush();
        Ok(())
    }

    /// Says goodbye; the host ends the stream. Nobody waits for the answer.
    pub(super) fn leave(&mut self) {
        self.enet.peer_mut(self.peer).disconnect_now(0);
        self.enet.flush();
    }
}

/// A UDP socket that never waits and speaks to one address.
struct Connected(UdpSocket);

impl Connected {
    fn new(from: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = UdpSocket::bind(from)?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(Self(socket))
    }
}

impl Socket for Connected {
    type Address = SocketAddr;
    type Error = io::Error;

    fn send(&mut self, _: SocketAddr, buffer: &[u8]) -> io::Result<usize> {
        // ENet sends again what nobody acknowledged; a port that is closed for now is like a loss.
        Ok(self.0.send(buffer).unwrap_or(0))
    }

    fn receive(
        &mut self,
        buffer: &mut [u8; MTU_MAX],
    ) -> io::Result<Option<(SocketAddr, PacketReceived)>> {
        match self.0.recv(buffer) {
            Ok(bytes) => Ok(Some((self.0.peer_addr()?, PacketReceived::Complete(bytes)))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            // Told of a closed port: as silent as one that loses everything.
            Err(_) => Ok(None),
        }
    }
}
