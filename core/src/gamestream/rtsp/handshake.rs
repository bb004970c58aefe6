//! The order of requests of one stream: what is answered, and what the host does in between.
//!
//! [`Handshake::step`] is pure: a state and a request go in, the next state and an action come out. The host carries
//! the action out; only ANNOUNCE asks for more than sending the answer, namely that the stream be prepared first.
//! Requests that change nothing (OPTIONS, DESCRIBE) may be repeated; a refused request leaves the state as it was, so
//! that a client may try again while its ticket lives.

use super::{Method, Request, Response, Status};
use crate::gamestream::sdp::{self, AnnounceError, Announced};

pub use crate::gamestream::sdp::Offer;

/// The UDP ports that SETUP names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Video.
    pub video: u16,
    /// Control.
    pub control: u16,
    /// Audio.
    pub audio: u16,
}

/// What one ticket tells its client.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The session token, without a semicolon.
    pub token: &'a str,
    /// What the client's media pings will carry; exactly 16 characters.
    pub ping_payload: &'a str,
    /// What the client's CONNECT will carry, not 0.
    pub connect_data: u32,
    /// Where the streams are.
    pub ports: Ports,
    /// What can be had.
    pub offer: &'a Offer,
}

/// Where a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Handshake {
    /// It asks and sets up streams.
    Negotiating(Streams),
    /// ANNOUNCE was answered: the stream is prepared.
    Announced,
    /// PLAY was answered: the control connection comes next.
    Playing,
}

/// Which streams are set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Streams {
    audio: bool,
    video: bool,
    control: bool,
}

impl Streams {
    const fn any(self) -> bool {
        self.audio || self.video || self.control
    }

    const fn all(self) -> bool {
        self.audio && self.video && self.control
    }
}

/// What the host does about a request.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Send this.
    Reply(Response),
    /// Prepare the stream; if that works, take the step's state and send `ok`, else keep the old state and send
    /// `failed`.
    Prepare {
        /// What the client chose.
        announced: Box<Announced>,
        /// The answer if the stream is ready.
        ok: Response,
        /// The answer if it is not.
        failed: Response,
    },
    /// The client connects next. Send this.
    Play(Response),
    /// Send this; the client's ANNOUNCE was refused for the reason given.
    Refuse(Response, AnnounceError),
}

/// The next state and what to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The state after the action.
    pub state: Handshake,
    /// What to do.
    pub action: Action,
}

impl Handshake {
    /// The beginning.
    pub const fn new() -> Self {
        Self::Negotiating(Streams { audio: false, video: false, control: false })
    }

    /// Answers one request.
    // spec: gamestream 4.4
    pub fn step(self, request: &Request, terms: &Terms<'_>) -> Step {
        if let Some(token) = request.session()
            && token != terms.token
        {
            return self.stay(request, Status::SessionNotFound);
        }
        match request.method {
            Method::Options => self.stay(request, Status::Ok),
            Method::Describe => {
                let mut response = Response::new(Status::Ok, request.cseq());
                response.body = sdp::describe(terms.offer);
                Step { state: self, action: Action::Reply(response) }
            }
            Method::Setup => self.setup(request, terms),
            Method::Announce => self.announce(request, terms),
            Method::Play => self.play(request),
            Method::Other => self.stay(request, Status::MethodNotAllowed),
        }
    }

    fn setup(self, request: &Request, terms: &Terms<'_>) -> Step {
        let Self::Negotiating(mut streams) = self else {
            return self.stay(request, Status::NotValidInThisState);
        };
        // The token is handed out by the first SETUP and wanted from then on.
        if streams.any() && request.session().is_none() {
            return self.stay(request, Status::SessionNotFound);
        }
        let mut headers = vec![("Session", format!("{};timeout = 90", terms.token))];
        let mut transport = |port: u16| headers.push(("Transport", format!("server_port={port}")));
        match stream_kind(&request.target) {
            Some("audio") => {
                streams.audio = true;
                transport(terms.ports.audio);
                headers.push(("X-SS-Ping-Payload", terms.ping_payload.to_owned()));
            }
            Some("video") => {
                streams.video = true;
                transport(terms.ports.video);
                headers.push(("X-SS-Ping-Payload", terms.ping_payload.to_owned()));
            }
            Some("control") => {
                streams.control = true;
                transport(terms.ports.control);
                headers.push(("X-SS-Connect-Data", terms.connect_data.to_string()));
            }
            _ => return self.stay(request, Status::NotFound),
        }
        let response = Response { headers, ..Response::new(Status::Ok, request.cseq()) };
        Step { state: Self::Negotiating(streams), action: Action::Reply(response) }
    }

    fn announce(self, request: &Request, terms: &Terms<'_>) -> Step {
        match self {
            Self::Negotiating(streams) if streams.all() => {}
            _ => return self.stay(request, Status::NotValidInThisState),
        }
        if request.session().is_none() {
            return self.stay(request, Status::SessionNotFound);
        }
        let low_quality = request.header("Host").is_some_and(|host| host == "0.0.0.0");
        let cseq = request.cseq();
        match Announced::parse(&request.body, terms.offer, !low_quality) {
            Ok(announced) => Step {
                state: Self::Announced,
                action: Action::Prepare {
                    announced: Box::new(announced),
                    ok: Response::new(Status::Ok, cseq),
                    failed: Response::new(Status::ServiceUnavailable, cseq),
                },
            },
            Err(error) => {
                let status = match error {
                    AnnounceError::Policy { .. } => Status::Forbidden,
                    _ => Status::BadRequest,
                };
                Step { state: self, action: Action::Refuse(Response::new(status, cseq), error) }
            }
        }
    }

    fn play(self, request: &Request) -> Step {
        if self != Self::Announced {
            return self.stay(request, Status::NotValidInThisState);
        }
        if request.session().is_none() {
            return self.stay(request, Status::SessionNotFound);
        }
        let response = Response::new(Status::Ok, request.cseq());
        Step { state: Self::Playing, action: Action::Play(response) }
    }

    fn stay(self, request: &Request, status: Status) -> Step {
        Step { state: self, action: Action::Reply(Response::new(status, request.cseq())) }
    }
}

impl Default for Handshake {
    fn default() -> Self {
        Self::new()
    }
}

/// What stands between `streamid=` and the next slash; what follows differs between clients and means nothing.
fn stream_kind(target: &str) -> Option<&str> {
    let (_, rest) = target.split_once("streamid=")?;
    rest.split('/').next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Progress;
    use super::*;
    use crate::media::Codec;

    fn offer() -> Offer {
        Offer { codecs: vec![Codec::H264], ..Offer::default() }
    }

    fn terms(offer: &Offer) -> Terms<'_> {
        Terms {
            token: "0123456789abcdef",
            ping_payload: "00112233445566ff",
            connect_data: 7,
            ports: Ports { video: 47998, control: 47999, audio: 48000 },
            offer,
        }
    }

    fn request(line: &str, headers: &str, body: &str) -> Request {
        let text = format!(
            "{line} RTSP/1.0\r\nCSeq: 3\r\n{headers}Content-length: {}\r\n\r\n{body}",
            body.len()
        );
        match Request::parse(text.as_bytes()) {
            Ok(Progress::Complete { request, .. }) => request,
            other => panic!("{other:?}"),
        }
    }

    const SESSION: &str = "Session: 0123456789abcdef\r\n";

    fn body() -> String {
        crate::gamestream::sdp::tests_support::minimal_announce("")
    }

    fn status(action: &Action) -> u16 {
        match action {
            Action::Reply(response) | Action::Play(response) | Action::Refuse(response, _) => {
                response.status.code()
            }
            Action::Prepare { ok, .. } => ok.status.code(),
        }
    }

    fn run(requests: &[Request]) -> (Handshake, Vec<u16>) {
        let offer = offer();
        let mut state = Handshake::new();
        let codes = requests
            .iter()
            .map(|request| {
                let step = state.step(request, &terms(&offer));
                state = step.state;
                status(&step.action)
            })
            .collect();
        (state, codes)
    }

    fn whole() -> Vec<Request> {
        vec![
            request("OPTIONS rtsp://10.0.0.1:48010", "", ""),
            request("DESCRIBE rtsp://10.0.0.1:48010", "", ""),
            request("SETUP streamid=audio/0/0", "", ""),
            request("SETUP streamid=video/0/0", SESSION, ""),
            request("SETUP streamid=control/13/0", SESSION, ""),
            request("ANNOUNCE streamid=control/13/0", SESSION, &body()),
            request("PLAY /", SESSION, ""),
        ]
    }

    // spec: gamestream 13 item 57
    #[test]
    fn the_seven_requests_in_order_end_in_playing() {
        assert_eq!(run(&whole()), (Handshake::Playing, vec![200; 7]));
    }

    // spec: gamestream 13 item 60
    #[test]
    fn setup_names_ports_payload_and_connect_data() {
        let offer = offer();
        let header = |target: &str, name: &str| {
            let step =
                Handshake::new().step(&request(&format!("SETUP {target}"), "", ""), &terms(&offer));
            let Action::Reply(response) = step.action else { panic!("{:?}", step.action) };
            response.headers.into_iter().find(|(have, _)| *have == name).map(|(_, value)| value)
        };
        assert_eq!(header("streamid=audio/0/0", "Transport").unwrap(), "server_port=48000");
        assert_eq!(header("streamid=video", "Transport").unwrap(), "server_port=47998");
        assert_eq!(header("streamid=control/1/0", "Transport").unwrap(), "server_port=47999");
        assert_eq!(header("streamid=video/0/0", "X-SS-Ping-Payload").unwrap().len(), 16);
        assert_eq!(header("streamid=control/13/0", "X-SS-Connect-Data").unwrap(), "7");
        assert_eq!(header("streamid=control/13/0", "X-SS-Ping-Payload"), None);
        assert!(header("streamid=audio/0/0", "Session").unwrap().starts_with("0123456789abcdef;"));
        assert_eq!(header("streamid=mic/0/0", "Session"), None);
    }

    // spec: gamestream 13 item 61
    #[test]
    fn a_wrong_token_is_454_and_changes_nothing() {
        let mut requests = whole();
        for at in 3..7 {
            requests[at] = {
                let good = requests[at].clone();
                let mut bad = good.clone();
                bad.headers.retain(|(name, _)| name != "Session");
                let missing = run(&[&requests[..at], &[bad.clone()]].concat());
                assert_eq!(missing.1.last(), Some(&454), "request {at} without a token");
                bad.headers.push(("Session".to_owned(), "fedcba".to_owned()));
                let (state, codes) = run(&[&requests[..at], &[bad], &requests[at..]].concat());
                assert_eq!(codes[at], 454);
                assert_eq!(state, Handshake::Playing);
                good
            };
        }
    }

    #[test]
    fn requests_out_of_order_are_455_and_change_nothing() {
        let all = whole();
        assert_eq!(run(&[all[6].clone()]), (Handshake::new(), vec![455]));
        assert_eq!(run(&[all[5].clone()]), (Handshake::new(), vec![455]));
        assert_eq!(run(&[&all[..], &all[4..]].concat()).1[7..], [455, 455, 455]);
        assert_eq!(run(&[request("TEARDOWN /", "", "")]).1, [405]);
        assert_eq!(run(&[request("SETUP streamid=mic/0/0", "", "")]).1, [404]);
    }

    proptest! {
        #[test]
        fn no_order_of_requests_skips_a_step(
            order in prop::collection::vec((0usize..7, any::<bool>()), 1..30),
        ) {
            let offer = offer();
            let mut state = Handshake::new();
            let mut streams = [false; 3];
            let (mut announced, mut playing) = (false, false);
            for (at, with_token) in order {
                let mut asked = whole()[at].clone();
                if !with_token {
                    asked.headers.retain(|(name, _)| name != "Session");
                }
                let step = state.step(&asked, &terms(&offer));
                let fine = status(&step.action) == 200;
                match at {
                    2..=4 if fine => {
                        prop_assert!(!announced);
                        streams[at - 2] = true;
                    }
                    5 if fine => {
                        prop_assert!(streams == [true; 3] && with_token && !announced);
                        announced = true;
                    }
                    6 if fine => {
                        prop_assert!(announced && with_token && !playing);
                        playing = true;
                    }
                    0 | 1 => prop_assert!(fine),
                    _ => prop_assert!(fine || step.state == state),
                }
                state = step.state;
                prop_assert_eq!(state == Handshake::Playing, playing);
            }
        }
    }

    // spec: gamestream 13 item 63
    #[test]
    fn an_announce_that_cannot_be_is_refused_and_may_be_repeated() {
        let all = whole();
        let hevc = crate::gamestream::sdp::tests_support::minimal_announce(
            "a=x-nv-vqos[0].bitStreamFormat:1 \r\n",
        );
        let refused = request("ANNOUNCE streamid=control/13/0", SESSION, &hevc);
        let (state, codes) = run(&[&all[..5], &[refused], &all[5..]].concat());
        assert_eq!(codes[5], 400);
        assert_eq!(state, Handshake::Playing);
    }
}
