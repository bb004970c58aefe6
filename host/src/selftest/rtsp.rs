//! RTSP as a stock client speaks it: seven requests, each on a connection of its own, sealed if the host's URL says so.

use std::io;
use std::net::{IpAddr, SocketAddr};

use punktfunk_core::gamestream::rtsp::{ClientChannel, SealedError, is_sealed};
use punktfunk_core::gamestream::sdp::Encryption;
use punktfunk_core::seal::SessionKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::http::{self, HttpError, printable};

/// The longest answer that is read, in bytes.
const MAX_ANSWER_BYTES: u64 = 64 * 1024;

/// Why the negotiation failed.
#[derive(Debug, thiserror::Error)]
pub enum RtspError {
    /// There is no connection.
    #[error("{method}: {reason}")]
    Connect {
        /// The request.
        method: &'static str,
        /// Why.
        reason: String,
    },
    /// The connection broke before the answer was there.
    #[error("{method}: the connection broke: {source}")]
    Broken {
        /// The request.
        method: &'static str,
        /// How.
        source: io::Error,
    },
    /// The host closed the connection without a word.
    #[error("{method} was not answered: the host closed the connection")]
    Closed {
        /// The request.
        method: &'static str,
    },
    /// The answer does not open.
    #[error("the answer to {method} does not open: {source}")]
    Sealed {
        /// The request.
        method: &'static str,
        /// Why.
        source: SealedError,
    },
    /// The answer is no RTSP.
    #[error("the answer to {method} is malformed: {what}")]
    Malformed {
        /// The request.
        method: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// The host says no.
    #[error("{method} answered {code}")]
    Refused {
        /// The request.
        method: &'static str,
        /// The status.
        code: u16,
    },
    /// The URL of the session is not one.
    #[error("the session's URL is malformed: {0:?}")]
    Url(String),
}

/// Where RTSP is spoken, from `sessionUrl0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SessionUrl {
    pub(super) to: SocketAddr,
    pub(super) sealed: bool,
}

impl SessionUrl {
    // spec: gamestream 2.11
    pub(super) fn parse(url: &str) -> Result<Self, RtspError> {
        let malformed = || RtspError::Url(printable(url));
        let (scheme, address) = url.split_once("://").ok_or_else(malformed)?;
        let sealed = match scheme {
            "rtspenc" => true,
            "rtsp" => false,
            _ => return Err(malformed()),
        };
        let to = address.trim_end_matches('/').parse().map_err(|_| malformed())?;
        Ok(Self { to, sealed })
    }
}

/// An answer, read.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub code: u16,
    /// All of it.
    pub text: String,
}

impl Answer {
    fn parse(method: &'static str, cseq: u32, bytes: &[u8]) -> Result<Self, RtspError> {
        let malformed = |what| RtspError::Malformed { method, what };
        let text = std::str::from_utf8(bytes).map_err(|_| malformed("it is no text"))?;
        let code = text
            .strip_prefix("RTSP/1.0 ")
            .and_then(|rest| rest.get(..3)?.parse().ok())
            .ok_or_else(|| malformed("it has no status"))?;
        let answer = Self { code, text: text.to_owned() };
        if answer.header("CSeq") != Some(&cseq.to_string()) {
            return Err(malformed("it answers another request"));
        }
        Ok(answer)
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.text.split("\r\n\r\n").next()?;
        head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }
}

/// One request on a connection of its own, written in pieces; what came back until the host closed.
async fn exchange(
    method: &'static str,
    to: SocketAddr,
    bytes: &[u8],
    piece: usize,
) -> Result<Vec<u8>, RtspError> {
    let broken = |source| RtspError::Broken { method, source };
    let mut stream = http::connect(to)
        .await
        .map_err(|error: HttpError| RtspError::Connect { method, reason: error.to_string() })?;
    stream.set_nodelay(true).map_err(broken)?;
    for piece in bytes.chunks(piece.max(1)) {
        stream.write_all(piece).await.map_err(broken)?;
    }
    let mut answer = Vec::new();
    stream.take(MAX_ANSWER_BYTES).read_to_end(&mut answer).await.map_err(broken)?;
    if answer.is_empty() {
        return Err(RtspError::Closed { method });
    }
    Ok(answer)
}

/// What the host named while the streams were set up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetUp {
    /// Where video is pinged and comes from.
    pub video: u16,
    /// Where sound is pinged and comes from.
    pub audio: u16,
    /// Where control is spoken.
    pub control: u16,
    /// What pings carry.
    pub ping_payload: String,
    /// What the control connection carries.
    pub connect_data: u32,
}

/// All that the host supports, as a client with AES hardware chooses.
// spec: gamestream 4.5
fn supported(description: &str) -> Encryption {
    let value = description
        .lines()
        .find_map(|line| line.trim().strip_prefix("a=x-ss-general.encryptionSupported:"));
    Encryption::from_bits(value.and_then(|value| value.trim().parse().ok()).unwrap_or(0))
}

/// The stream that is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Pictures per second.
    pub fps: u32,
    /// Of the whole stream.
    pub bitrate_kbps: u32,
    /// Of a video datagram after its RTP header.
    pub packet_bytes: u16,
}

impl Choice {
    // spec: gamestream 4.7
    fn announce(&self, encrypted: Encryption) -> String {
        let Self { width, height, fps, bitrate_kbps, packet_bytes } = self;
        let bits = encrypted.bits();
        format!(
            "v=0\r\no=android 0 14 IN IPv4 127.0.0.1\r\ns=NVIDIA Streaming Client\r\n\
             a=x-nv-video[0].clientViewportWd:{width} \r\na=x-nv-video[0].clientViewportHt:{height} \r\n\
             a=x-nv-video[0].maxFPS:{fps} \r\na=x-nv-video[0].packetSize:{packet_bytes} \r\n\
             a=x-nv-video[0].clientRefreshRateX100:{} \r\n\
             a=x-ml-video.configuredBitrateKbps:{bitrate_kbps} \r\n\
             a=x-nv-vqos[0].bw.maximumBitrateKbps:{bitrate_kbps} \r\n\
             a=x-nv-video[0].encoderCscMode:2 \r\na=x-nv-general.useReliableUdp:13 \r\n\
             a=x-ss-general.encryptionEnabled:{bits} \r\na=x-ml-general.featureFlags:2 \r\n\
             a=x-nv-aqos.packetDuration:{} \r\na=x-nv-audio.surround.numChannels:2 \r\n\
             a=x-nv-audio.surround.channelMask:3 \r\nt=0 0\r\nm=video 47998  \r\n",
            fps * 100,
            super::sound::PACKET_MS,
        )
    }
}

/// A client's side of RTSP for one launch.
pub struct Negotiation {
    to: SocketAddr,
    /// Seals and opens; `None` speaks in clear.
    pub sealed: Option<ClientChannel>,
    /// Requests are written in pieces of this many bytes.
    pub piece: usize,
    cseq: u32,
    session: Option<String>,
}

impl Negotiation {
    /// A new negotiation with the host there, sealed with a key if there is one.
    pub fn new(to: SocketAddr, key: Option<&SessionKey>) -> Self {
        Self { to, sealed: key.map(ClientChannel::new), piece: 536, cseq: 0, session: None }
    }

    /// The session's token, if the host named one.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// Asks; the answer may be a refusal. `method` is the first word of the request, `target` the second.
    ///
    /// # Errors
    /// There is no answer that can be read.
    // spec: gamestream 4.2
    pub async fn ask(
        &mut self,
        method: &'static str,
        target: &str,
        body: &str,
    ) -> Result<Answer, RtspError> {
        self.cseq += 1;
        let session = match &self.session {
            Some(token) => format!("Session: {token}\r\n"),
            None => String::new(),
        };
        let host = match self.to.ip() {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        let text = format!(
            "{method} {target} RTSP/1.0\r\nCSeq: {}\r\nX-GS-ClientVersion: 14\r\nHost: {host}\r\n\
             {session}Content-length: {}\r\n\r\n{body}",
            self.cseq,
            body.len()
        );
        let sealed = |source| RtspError::Sealed { method, source };
        let answer = match &mut self.sealed {
            None => exchange(method, self.to, text.as_bytes(), self.piece).await?,
            Some(channel) => {
                let frame = channel.seal(text.as_bytes()).map_err(sealed)?;
                let answer = exchange(method, self.to, &frame, self.piece).await?;
                if is_sealed(&answer) == Some(true) {
                    channel.open(&answer).map_err(sealed)?
                } else {
                    // What a refusal in clear says is worth telling, though nothing else may come in clear.
                    let code = Answer::parse(method, self.cseq, &answer).map(|answer| answer.code);
                    return Err(match code {
                        Ok(code) if code != 200 => RtspError::Refused { method, code },
                        _ => sealed(SealedError::Plain),
                    });
                }
            }
        };
        Answer::parse(method, self.cseq, &answer)
    }

    async fn must(
        &mut self,
        method: &'static str,
        target: &str,
        body: &str,
    ) -> Result<Answer, RtspError> {
        let answer = self.ask(method, target, body).await?;
        match answer.code {
            200 => Ok(answer),
            code => Err(RtspError::Refused { method, code }),
        }
    }

    /// The first five requests.
    ///
    /// # Errors
    /// See [`RtspError`].
    // spec: gamestream 4.4
    pub async fn set_up(&mut self) -> Result<(SetUp, Encryption), RtspError> {
        let url = format!("rtsp://{}", self.to);
        self.must("OPTIONS", &url, "").await?;
        let description = self.must("DESCRIBE", &url, "").await?;
        let encrypted = supported(&description.text);
        let audio = self.must("SETUP", "streamid=audio/0/0", "").await?;
        let token = named(&audio, "Session")?.split(';').next().unwrap_or_default();
        self.session = Some(token.trim().to_owned());
        let ping_payload = named(&audio, "X-SS-Ping-Payload")?.to_owned();
        let video = self.must("SETUP", "streamid=video/0/0", "").await?;
        if ping_payload.len() != 16 || named(&video, "X-SS-Ping-Payload")? != ping_payload {
            let what = "the ping payload is not 16 characters, or not one for all";
            return Err(RtspError::Malformed { method: "SETUP", what });
        }
        let control = self.must("SETUP", "streamid=control/13/0", "").await?;
        let connect_data = named(&control, "X-SS-Connect-Data")?.parse().map_err(|_| {
            RtspError::Malformed { method: "SETUP", what: "the connect data is no number" }
        })?;
        let (video, audio, control) = (port(&video)?, port(&audio)?, port(&control)?);
        Ok((SetUp { video, audio, control, ping_payload, connect_data }, encrypted))
    }

    /// The last two requests.
    ///
    /// # Errors
    /// See [`RtspError`].
    pub async fn play(&mut self, choice: &Choice, encrypted: Encryption) -> Result<(), RtspError> {
        self.must("ANNOUNCE", "streamid=control/13/0", &choice.announce(encrypted)).await?;
        self.must("PLAY", "/", "").await?;
        Ok(())
    }
}

fn named<'a>(answer: &'a Answer, name: &'static str) -> Result<&'a str, RtspError> {
    answer.header(name).ok_or(RtspError::Malformed { method: "SETUP", what: name })
}

fn port(answer: &Answer) -> Result<u16, RtspError> {
    let transport = named(answer, "Transport")?;
    let port = transport.split(';').find_map(|part| part.trim().strip_prefix("server_port="));
    port.and_then(|port| port.split('-').next()?.parse().ok())
        .ok_or(RtspError::Malformed { method: "SETUP", what: "no port" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_and_strange_ones_are_not() {
        let url = |text| SessionUrl::parse(text).map(|url| (url.to.to_string(), url.sealed)).ok();
        assert_eq!(url("rtspenc://127.0.0.1:48010"), Some(("127.0.0.1:48010".into(), true)));
        assert_eq!(url("rtsp://[::1]:5/"), Some(("[::1]:5".into(), false)));
        for bad in ["http://127.0.0.1:1", "rtsp://host:1", "rtsp://127.0.0.1", "x", ""] {
            assert_eq!(url(bad), None, "{bad}");
        }
    }

    #[test]
    fn answers_are_read_and_those_to_others_are_not() {
        let answer = |text: &str| Answer::parse("SETUP", 3, text.as_bytes());
        let good = answer("RTSP/1.0 200 OK\r\nCSeq: 3\r\nTransport: server_port=47998\r\n\r\na:b");
        let good = good.unwrap();
        assert_eq!((good.code, port(&good).unwrap(), good.header("a")), (200, 47998, None));
        assert!(named(&good, "Session").is_err());
        assert!(answer("RTSP/1.0 200 OK\r\nCSeq: 4\r\n\r\n").is_err());
        for bad in ["", "RTSP/1.0", "RTSP/1.0 abc", "HTTP/1.1 200 OK\r\nCSeq: 3\r\n\r\n"] {
            assert!(answer(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_the_host_supports_is_encrypted() {
        assert_eq!(supported("v=0\na=x-ss-general.encryptionSupported:7\n"), Encryption::ALL);
        let some = supported("a=x-ss-general.encryptionSupported:1 \r\n");
        assert_eq!(some, Encryption::CONTROL);
        assert_eq!(supported("a=x-ss-general.encryptionSupported:-3").bits(), 0);
    }
}
