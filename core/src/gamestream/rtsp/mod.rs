//! RTSP as Moonlight speaks it: requests, responses, their sealed form and the handshake of one stream.
//!
//! A client opens one TCP connection per request, so a parser sees exactly one request and the host answers once. The
//! parser is asked again with every piece that arrives until it says that the request is complete; it copies nothing
//! before. `sealed` is the encrypted framing, `handshake` the order of requests.
//!
//! Deliberately absent: persistent connections, pipelining, TEARDOWN (no client sends it) and any interpretation of the
//! request's URL, which clients fill with addresses of their own.

mod handshake;
mod sealed;

pub use handshake::{Action, Handshake, Offer, Ports, Step, Terms};
pub use sealed::{
    Channel, ClientChannel, FRAME_HEADER_BYTES, FrameProgress, SealedError, frame_bytes, is_sealed,
};

/// The longest request accepted, in bytes; a whole ANNOUNCE of a current client has 1.7 kB.
pub const MAX_REQUEST_BYTES: usize = 64 * 1024;
/// The longest request line and headers together, in bytes; clients send some hundreds. A head is searched for its end
/// whenever more of it arrives, so its limit is also what bounds the work that a sender of single bytes makes.
pub const MAX_HEAD_BYTES: usize = 8 * 1024;
/// What ends a head: two line ends.
const HEAD_END_BYTES: usize = 4;
/// The most header lines in one request.
const MAX_HEADERS: usize = 64;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Is anybody there?
    Options,
    /// What is offered?
    Describe,
    /// Set up one of the three streams.
    Setup,
    /// What the client chose.
    Announce,
    /// Begin.
    Play,
    /// Something that this protocol does not have.
    Other,
}

/// One complete request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub method: Method,
    /// The second word of the request line, as it came.
    pub target: String,
    headers: Vec<(String, String)>,
    /// The body, as long as `Content-length` said.
    pub body: Vec<u8>,
}

/// How far a request has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// More bytes are needed.
    Incomplete {
        /// How many bytes there must be before another look can find more; above the number there are.
        at_least: usize,
    },
    /// The request is complete and took this many bytes.
    Complete {
        /// The request.
        request: Request,
        /// Its length in bytes.
        bytes: usize,
    },
}

/// Why bytes are not a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is longer than [`MAX_REQUEST_BYTES`].
    #[error("a request of {got} bytes is longer than the limit of {max}", max = MAX_REQUEST_BYTES)]
    TooLong {
        /// Its length, as far as it is known.
        got: usize,
    },
    /// Its request line and headers are longer than [`MAX_HEAD_BYTES`].
    #[error("the head of a request has {got} bytes, the limit is {max}", max = MAX_HEAD_BYTES)]
    HeadTooLong {
        /// Its length so far in bytes.
        got: usize,
    },
    /// It has more than 64 header lines.
    #[error("a request has more than {max} header lines", max = MAX_HEADERS)]
    TooManyHeaders,
    /// A part of it is not what RTSP says.
    #[error("the {part} of a request is malformed")]
    Malformed {
        /// Which part.
        part: &'static str,
    },
}

impl Request {
    /// Reads a request from all bytes that have arrived so far.
    ///
    /// # Errors
    /// [`RequestError`]: more bytes would not help.
    // spec: gamestream 4.1, 4.2
    pub fn parse(bytes: &[u8]) -> Result<Progress, RequestError> {
        let Some((head_bytes, body_at)) = head_end(bytes) else {
            if bytes.len() >= MAX_HEAD_BYTES + HEAD_END_BYTES {
                return Err(RequestError::HeadTooLong { got: bytes.len() });
            }
            return Ok(Progress::Incomplete { at_least: bytes.len() + 1 });
        };
        let head = bytes.get(..head_bytes).unwrap_or_default();
        let head =
            std::str::from_utf8(head).map_err(|_| RequestError::Malformed { part: "header" })?;
        let mut lines = head.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
        let (method, target) = request_line(lines.next().unwrap_or_default())?;
        let mut headers = Vec::new();
        for line in lines {
            if headers.len() == MAX_HEADERS {
                return Err(RequestError::TooManyHeaders);
            }
            let (name, value) =
                line.split_once(':').ok_or(RequestError::Malformed { part: "header" })?;
            headers.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        let mut request = Self { method, target, headers, body: Vec::new() };
        let body_bytes = match request.header("content-length") {
            None => 0,
            Some(text) => text
                .parse::<usize>()
                .map_err(|_| RequestError::Malformed { part: "Content-length" })?,
        };
        let total = body_at.saturating_add(body_bytes);
        if total > MAX_REQUEST_BYTES {
            return Err(RequestError::TooLong { got: total });
        }
        let Some(body) = bytes.get(body_at..total) else {
            return Ok(Progress::Incomplete { at_least: total });
        };
        request.body = body.to_vec();
        Ok(Progress::Complete { request, bytes: total })
    }

    /// The first header of this name, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The request's number; 0 if it has none that can be read.
    pub fn cseq(&self) -> u32 {
        self.header("CSeq").and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// The session token the client names, without what follows a semicolon.
    pub fn session(&self) -> Option<&str> {
        self.header("Session").map(|text| text.split(';').next().unwrap_or_default().trim())
    }
}

/// How a request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200
    Ok,
    /// 400: a parameter is missing, malformed or was not offered.
    BadRequest,
    /// 403: the host insists on encryption that the client did not enable.
    Forbidden,
    /// 404: there is no such stream.
    NotFound,
    /// 405: there is no such method.
    MethodNotAllowed,
    /// 454: the session token is not this stream's.
    SessionNotFound,
    /// 455: not now.
    NotValidInThisState,
    /// 503: the stream could not be prepared.
    ServiceUnavailable,
}

impl Status {
    /// The number on the wire.
    pub const fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::SessionNotFound => 454,
            Self::NotValidInThisState => 455,
            Self::ServiceUnavailable => 503,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "BAD REQUEST",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "NOT FOUND",
            Self::MethodNotAllowed => "METHOD NOT ALLOWED",
            Self::SessionNotFound => "SESSION NOT FOUND",
            Self::NotValidInThisState => "METHOD NOT VALID IN THIS STATE",
            Self::ServiceUnavailable => "SERVICE UNAVAILABLE",
        }
    }
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// How it went.
    pub status: Status,
    /// The number of the request it answers.
    pub cseq: u32,
    /// Further headers. Clients compare the names case-sensitively; a value is never empty.
    pub headers: Vec<(&'static str, String)>,
    /// What follows the headers, until the connection ends.
    pub body: String,
}

impl Response {
    /// A response without further headers.
    pub const fn new(status: Status, cseq: u32) -> Self {
        Self { status, cseq, headers: Vec::new(), body: String::new() }
    }

    /// The bytes on the wire.
    // spec: gamestream 4.2
    pub fn to_bytes(&self) -> Vec<u8> {
        let (code, reason) = (self.status.code(), self.status.reason());
        let mut out = format!("RTSP/1.0 {code} {reason}\r\nCSeq: {}\r\n", self.cseq);
        for (name, value) in &self.headers {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        }
        out.push_str("\r\n");
        out.push_str(&self.body);
        out.into_bytes()
    }
}

/// Where the header block ends and where the body begins. Blank lines end in CR LF or in LF.
fn head_end(bytes: &[u8]) -> Option<(usize, usize)> {
    let bytes = bytes.get(..MAX_HEAD_BYTES + HEAD_END_BYTES).unwrap_or(bytes);
    let crlf = bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| (at, at + 4));
    let lf = bytes.windows(2).position(|window| window == b"\n\n").map(|at| (at, at + 2));
    match (crlf, lf) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

fn request_line(line: &str) -> Result<(Method, String), RequestError> {
    let malformed = RequestError::Malformed { part: "request line" };
    let mut words = line.split(' ').filter(|word| !word.is_empty());
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(malformed);
    };
    if !version.starts_with("RTSP/") {
        return Err(malformed);
    }
    let method = match method {
        "OPTIONS" => Method::Options,
        "DESCRIBE" => Method::Describe,
        "SETUP" => Method::Setup,
        "ANNOUNCE" => Method::Announce,
        "PLAY" => Method::Play,
        _ => Method::Other,
    };
    Ok((method, target.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ANNOUNCE: &[u8] = b"ANNOUNCE streamid=control/13/0 RTSP/1.0\r\nCSeq: 6\r\nX-GS-ClientVersion: 14\r\n\
        Host: 10.0.0.1\r\nSession:  abc;timeout = 90\r\nContent-type: application/sdp\r\nContent-length: 7\r\n\r\nv=0\r\na=";

    fn complete(bytes: &[u8]) -> Request {
        match Request::parse(bytes) {
            Ok(Progress::Complete { request, bytes: used }) => {
                assert!(used <= bytes.len());
                request
            }
            other => panic!("not complete: {other:?}"),
        }
    }

    // spec: gamestream 13 item 55
    #[test]
    fn a_request_in_one_byte_pieces_completes_with_its_last_byte() {
        for end in 0..ANNOUNCE.len() {
            let Ok(Progress::Incomplete { at_least }) = Request::parse(&ANNOUNCE[..end]) else {
                panic!("{end} bytes");
            };
            assert!(end < at_least && at_least <= ANNOUNCE.len(), "{end} bytes");
        }
        let request = complete(ANNOUNCE);
        assert_eq!(request.method, Method::Announce);
        assert_eq!(request.target, "streamid=control/13/0");
        assert_eq!((request.cseq(), request.session()), (6, Some("abc")));
        assert_eq!(request.header("HOST"), Some("10.0.0.1"));
        assert_eq!(request.body, b"v=0\r\na=");
    }

    // spec: gamestream 13 item 55
    #[test]
    fn a_request_of_64_kib_and_one_byte_is_refused() {
        let head = |body: usize| {
            format!("ANNOUNCE / RTSP/1.0\r\nCSeq: 1\r\nContent-Length: {body}\r\n\r\n").into_bytes()
        };
        let room = MAX_REQUEST_BYTES - head(65_000).len();
        let mut fits = head(room);
        fits.resize(MAX_REQUEST_BYTES, b'x');
        assert_eq!(complete(&fits).body.len(), room);
        assert_eq!(
            Request::parse(&head(room + 1)),
            Err(RequestError::TooLong { got: MAX_REQUEST_BYTES + 1 })
        );
        assert!(Request::parse(&head(usize::MAX)).is_err());
    }

    // spec: gamestream 13 item 55
    #[test]
    fn a_head_without_end_is_refused_long_before_that() {
        let endless = vec![b'x'; MAX_HEAD_BYTES + HEAD_END_BYTES];
        let (got, shorter) = (endless.len(), &endless[1..]);
        assert_eq!(Request::parse(shorter), Ok(Progress::Incomplete { at_least: got }));
        assert_eq!(Request::parse(&endless), Err(RequestError::HeadTooLong { got }));
        let ends = [&b"OPTIONS / RTSP/1.0\r\nx: "[..], &endless, b"\r\n\r\n"].concat();
        assert!(matches!(Request::parse(&ends), Err(RequestError::HeadTooLong { .. })));
    }

    // spec: gamestream 13 item 55
    #[test]
    fn a_body_is_not_looked_at_before_it_is_there() {
        let head = b"ANNOUNCE / RTSP/1.0\r\nContent-length: 60000\r\n\r\n";
        let want = Ok(Progress::Incomplete { at_least: head.len() + 60_000 });
        assert_eq!(Request::parse(head), want);
        assert_eq!(Request::parse(&[&head[..], b"v=0"].concat()), want);
    }

    #[test]
    fn malformed_requests_name_the_part() {
        let part = |bytes: &[u8]| match Request::parse(bytes) {
            Err(RequestError::Malformed { part }) => part,
            other => panic!("{other:?}"),
        };
        assert_eq!(part(b"OPTIONS\r\n\r\n"), "request line");
        assert_eq!(part(b"GET / HTTP/1.1\r\n\r\n"), "request line");
        assert_eq!(part(b"OPTIONS / RTSP/1.0\r\nno colon\r\n\r\n"), "header");
        assert_eq!(part(b"OPTIONS / RTSP/1.0\r\nContent-length: -1\r\n\r\n"), "Content-length");
        assert_eq!(part(b"OPTIONS / RTSP/1.0\r\n\xff: x\r\n\r\n"), "header");
        let many = format!("OPTIONS / RTSP/1.0\r\n{}\r\n", "a: b\r\n".repeat(65));
        assert_eq!(Request::parse(many.as_bytes()), Err(RequestError::TooManyHeaders));
    }

    #[test]
    fn a_response_is_written_as_clients_read_it() {
        let mut response = Response::new(Status::Ok, 3);
        response.headers.push(("Session", "0123;timeout = 90".to_owned()));
        assert_eq!(
            response.to_bytes(),
            b"RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: 0123;timeout = 90\r\n\r\n"
        );
        assert_eq!(
            Response::new(Status::NotFound, 4).to_bytes(),
            b"RTSP/1.0 404 NOT FOUND\r\nCSeq: 4\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Request::parse(&bytes);
        }

        #[test]
        fn what_was_written_is_read_back(
            target in "[!-~]{1,40}",
            names in prop::collection::vec("[A-Za-z-]{1,12}", 0..10),
            value in "[!-~]{0,20}",
            body in prop::collection::vec(any::<u8>(), 0..200),
        ) {
            let mut text = format!("SETUP {target} RTSP/1.0\r\nContent-LENGTH: {}\r\n", body.len());
            for name in &names {
                text.push_str(&format!("x-{name}: {value}\r\n"));
            }
            text.push_str("\r\n");
            let mut bytes = text.into_bytes();
            bytes.extend_from_slice(&body);
            let request = complete(&bytes);
            prop_assert_eq!(request.method, Method::Setup);
            prop_assert_eq!(&request.target, &target);
            prop_assert_eq!(&request.body, &body);
            for name in &names {
                prop_assert_eq!(request.header(&format!("X-{name}")), Some(value.as_str()));
            }
        }
    }
}
