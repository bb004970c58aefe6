//! A client: RTSP over TCP, ENet over a socket that can move, pings.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use punktfunk_core::gamestream::control::{Opener, Scheme, Sealer, Side};
use punktfunk_core::gamestream::rtsp::ClientChannel;
use punktfunk_core::seal::SessionKey;
use rusty_enet::{EventNoRef, Host, HostSettings, MTU_MAX, Packet, PacketReceived, PeerID, Socket};

/// What a client of today announces; `first` overrides, for the first of equal attributes counts.
pub(crate) fn announce(first: &str) -> String {
    format!(
        "v=0\r\no=android 0 14 IN IPv4 127.0.0.1\r\ns=NVIDIA Streaming Client\r\n{first}\
         a=x-nv-video[0].clientViewportWd:1280 \r\na=x-nv-video[0].clientViewportHt:720 \r\n\
         a=x-nv-video[0].maxFPS:60 \r\na=x-nv-video[0].packetSize:1392 \r\n\
         a=x-nv-video[0].clientRefreshRateX100:5994 \r\na=x-ml-video.configuredBitrateKbps:10000 \r\n\
         a=x-nv-vqos[0].bw.maximumBitrateKbps:8000 \r\na=x-nv-general.useReliableUdp:13 \r\n\
         a=x-ss-general.encryptionEnabled:5 \r\na=x-ml-general.featureFlags:3 \r\n\
         a=x-nv-audio.surround.numChannels:2 \r\na=x-nv-audio.surround.channelMask:3 \r\n\
         t=0 0\r\nm=video 47998  \r\n"
    )
}

/// What a client of 2021 does not say yet.
pub(crate) fn legacy_announce() -> String {
    announce("")
        .replace("a=x-ss-general.encryptionEnabled:5 \r\n", "")
        .replace("a=x-ml-general.featureFlags:3 \r\n", "")
}

/// One request on a connection of its own, written in pieces; what came back until the host closed.
pub(crate) fn exchange(to: SocketAddr, bytes: &[u8], piece: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    for piece in bytes.chunks(piece) {
        stream.write_all(piece)?;
    }
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let _ = stream.shutdown(Shutdown::Both);
    Ok(answer)
}

/// A client's side of RTSP.
pub(crate) struct Negotiation {
    to: SocketAddr,
    pub(crate) sealed: Option<ClientChannel>,
    pub(crate) piece: usize,
    cseq: u32,
    pub(crate) session: String,
    pub(crate) ping_payload: String,
    pub(crate) connect_data: u32,
}

impl Negotiation {
    pub(crate) fn new(to: SocketAddr, key: Option<&SessionKey>) -> Self {
        Self {
            to,
            sealed: key.map(ClientChannel::new),
            piece: 536,
            cseq: 0,
            session: String::new(),
            ping_payload: String::new(),
            connect_data: 0,
        }
    }

    /// Asks and returns the code and the whole answer.
    pub(crate) fn ask(&mut self, line: &str, body: &str) -> (u16, String) {
        self.cseq += 1;
        let session = match self.session.as_str() {
            "" => String::new(),
            token => format!("Session: {token}\r\n"),
        };
        let text = format!(
            "{line} RTSP/1.0\r\nCSeq: {}\r\nX-GS-ClientVersion: 14\r\nHost: 127.0.0.1\r\n{session}\
             Content-length: {}\r\n\r\n{body}",
            self.cseq,
            body.len()
        );
        let answer = match &mut self.sealed {
            None => exchange(self.to, text.as_bytes(), self.piece).unwrap(),
            Some(sealed) => {
                let frame = sealed.seal(text.as_bytes()).unwrap();
                let answer = exchange(self.to, &frame, self.piece).unwrap();
                assert!(!answer.is_empty(), "refused: {line}");
                assert_eq!(answer[0] & 0x80, 0x80, "an answer in clear");
                sealed.open(&answer).unwrap()
            }
        };
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.contains(&format!("\r\nCSeq: {}\r\n", self.cseq)), "{line}: {answer:?}");
        (answer[9..12].parse().unwrap(), answer)
    }

    pub(crate) fn set_up(&mut self) {
        let header = |answer: &str, name: &str| {
            let line = answer.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            line.unwrap_or_else(|| panic!("no {name} in {answer:?}")).to_owned()
        };
        assert_eq!(self.ask("OPTIONS rtsp://127.0.0.1:48010", "").0, 200);
        assert!(self.ask("DESCRIBE rtsp://127.0.0.1:48010", "").1.contains("surround-params"));
        let (_, audio) = self.ask("SETUP streamid=audio/0/0", "");
        self.session = header(&audio, "Session").split(';').next().unwrap().to_owned();
        self.ping_payload = header(&audio, "X-SS-Ping-Payload");
        let (_, video) = self.ask("SETUP streamid=video/0/0", "");
        assert_eq!(header(&video, "X-SS-Ping-Payload"), self.ping_payload);
        let (_, control) = self.ask("SETUP streamid=control/13/0", "");
        self.connect_data = header(&control, "X-SS-Connect-Data").parse().unwrap();
    }

    pub(crate) fn choose(&mut self, body: &str) {
        assert_eq!(self.ask("ANNOUNCE streamid=control/13/0", body).0, 200);
        assert_eq!(self.ask("PLAY /", "").0, 200);
    }
}

/// A UDP socket that waits a little for a datagram and can be exchanged for another.
pub(crate) struct Moving(pub(crate) UdpSocket);

impl Moving {
    pub(crate) fn new(to: SocketAddr) -> Self {
        let local: IpAddr = match to {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        };
        let socket = UdpSocket::bind((local, 0)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(2))).unwrap();
        // Connected, as some clients are: an answer from another address would not be heard.
        socket.connect(to).unwrap();
        Self(socket)
    }
}

impl Socket for Moving {
    type Address = SocketAddr;
    type Error = io::Error;

    fn send(&mut self, _: SocketAddr, buffer: &[u8]) -> io::Result<usize> {
        Ok(self.0.send(buffer).unwrap_or(0))
    }

    fn receive(
        &mut self,
        buffer: &mut [u8; MTU_MAX],
    ) -> io::Result<Option<(SocketAddr, PacketReceived)>> {
        match self.0.recv(buffer) {
            Ok(bytes) => Ok(Some((self.0.peer_addr()?, PacketReceived::Complete(bytes)))),
            Err(_) => Ok(None),
        }
    }
}

/// A client's control connection.
pub(crate) struct Player {
    pub(crate) enet: Host<Moving>,
    pub(crate) peer: PeerID,
    pub(crate) to: SocketAddr,
    pub(crate) sealer: Sealer,
    opener: Opener,
    pub(crate) connected: bool,
    pub(crate) disconnected: bool,
    /// What the host said: type and payload.
    pub(crate) heard: Vec<(u16, Vec<u8>)>,
}

impl Player {
    pub(crate) fn new(
        to: SocketAddr,
        key: &SessionKey,
        scheme: Scheme,
        channels: usize,
        data: u32,
    ) -> Self {
        let settings = HostSettings { peer_limit: 1, channel_limit: 255, ..Default::default() };
        let mut enet = Host::new(Moving::new(to), settings).unwrap();
        enet.set_mtu(900).unwrap();
        let peer = enet.connect(to, channels, data).unwrap().id();
        Self {
            enet,
            peer,
            to,
            sealer: Sealer::new(key, scheme, Side::Client),
            opener: Opener::new(key, scheme, Side::Host),
            connected: false,
            disconnected: false,
            heard: Vec::new(),
        }
    }

    /// Serves the connection until `done`, or for ten seconds.
    pub(crate) fn serve_until(&mut self, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while !done(self) {
            if Instant::now() >= end {
                return false;
            }
            while let Some(event) = self.enet.service().unwrap() {
                match event.no_ref() {
                    EventNoRef::Connect { .. } => self.connected = true,
                    EventNoRef::Disconnect { .. } => self.disconnected = true,
                    EventNoRef::Receive { packet, .. } => {
                        let opened = self.opener.open(packet.data()).unwrap();
                        self.heard.push((opened.kind, opened.payload.to_vec()));
                    }
                }
            }
        }
        true
    }

    pub(crate) fn serve_for(&mut self, time: Duration) {
        let end = Instant::now() + time;
        self.serve_until(|_| Instant::now() >= end);
    }

    pub(crate) fn connect(&mut self) {
        assert!(self.serve_until(|player| player.connected), "not connected");
    }

    pub(crate) fn send_raw(&mut self, channel: u8, message: &[u8]) {
        self.enet.peer_mut(self.peer).send(channel, &Packet::reliable(message)).unwrap();
        self.enet.flush();
    }

    pub(crate) fn send(&mut self, channel: u8, kind: u16, payload: &[u8]) {
        let message = self.sealer.seal(kind, payload).unwrap();
        self.send_raw(channel, &message);
    }

    /// Presses a key by its virtual-key code.
    pub(crate) fn press(&mut self, channel: u8, virtual_key: u8) {
        self.send(channel, 0x0206, &key_packet(virtual_key, true));
    }
}

pub(crate) fn key_packet(virtual_key: u8, pressed: bool) -> Vec<u8> {
    let kind = if pressed { 3 } else { 4 };
    vec![0, 0, 0, 10, kind, 0, 0, 0, 0, virtual_key, 0x80, 0, 0, 0]
}

pub(crate) fn ping(socket: &UdpSocket, payload: &str) {
    socket.send(&[payload.as_bytes(), &[0, 0, 0, 1]].concat()).unwrap();
}
