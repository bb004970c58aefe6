//! RTSP requests, in clear and sealed, in one piece and in many, and the handshake they drive.

use punktfunk_core::gamestream::rtsp::{
    Action, Channel, FRAME_HEADER_BYTES, FrameProgress, Handshake, MAX_REQUEST_BYTES, Offer, Ports,
    Progress, Request, SealedError, Terms, frame_bytes, is_sealed,
};
use punktfunk_core::seal::{Gcm, SessionKey};

use super::Script;

const KEY: [u8; 16] = [7; 16];

/// One request after the other, as if a client opened a connection for each.
pub(super) fn requests(bytes: &[u8]) {
    let mut handshake = Handshake::new();
    let mut left = bytes;
    // More requests than any input has; each must use up something.
    for _ in 0..64 {
        let Ok(Progress::Complete { request, bytes: used }) = Request::parse(left) else { break };
        assert!(used > 0 && used <= left.len() && used <= MAX_REQUEST_BYTES);
        check_pieces(left, used);
        handshake = step(handshake, &request);
        left = &left[used..];
    }
    assert!(Request::parse(left).is_err() || left.len() <= MAX_REQUEST_BYTES);
    // A look at what comes decides whether it is sealed; both ways must bear it.
    let _ = is_sealed(bytes);
    let _ = frame_bytes(bytes);
}

/// A request that is complete was not complete, and nothing else, before its last byte.
fn check_pieces(bytes: &[u8], used: usize) {
    for end in [0, 1, used / 2, used - 1] {
        match Request::parse(&bytes[..end]) {
            Ok(Progress::Incomplete { at_least }) => assert!(at_least > end && at_least <= used),
            other => panic!("{end} of {used} bytes: {other:?}"),
        }
    }
}

fn step(handshake: Handshake, request: &Request) -> Handshake {
    let offer = Offer::default();
    let terms = Terms {
        token: "0123456789ABCDEF",
        ping_payload: "FEDCBA9876543210",
        connect_data: 77,
        ports: Ports { video: 1, control: 2, audio: 3 },
        offer: &offer,
    };
    let stepped = handshake.step(request, &terms);
    let response = match &stepped.action {
        Action::Reply(response) | Action::Play(response) => response,
        Action::Refuse(response, _) => response,
        Action::Prepare { ok, failed, .. } => {
            assert!(stepped.state == Handshake::Announced && failed.to_bytes().len() < 200);
            ok
        }
    };
    // Old clients have 4 kB for a response, and nothing in it may come from the request but its number.
    let written = response.to_bytes();
    assert!(written.len() < 4096 && written.starts_with(b"RTSP/1.0 "));
    stepped.state
}

/// Each piece is sealed as a client seals it, perhaps damaged, and opened; what opens is read like any request.
pub(super) fn sealed(bytes: &[u8]) {
    let gcm = Gcm::new(&SessionKey::new(KEY));
    let mut channel = Channel::new(&SessionKey::new(KEY));
    let mut script = Script(bytes);
    let mut newest = 0;
    while let (Some(choice), Some(number)) = (script.byte(), script.byte()) {
        let number = u32::from(number);
        let Some(text) = script.long_piece() else { break };
        let mut frame = seal(&gcm, number, text);
        let damaged = choice & 1 != 0;
        if damaged {
            let at = usize::from(choice >> 1) % frame.len();
            frame[at] ^= 0x10;
        }
        if choice & 0x80 != 0 {
            frame.pop();
        }
        match channel.open(&frame) {
            Ok(opened) => {
                assert!(!damaged && choice & 0x80 == 0, "a damaged frame was opened");
                assert!(number > newest && opened == text);
                newest = number;
                if let Ok(Progress::Complete { request, .. }) = Request::parse(&opened) {
                    step(Handshake::new(), &request);
                }
                let answer = channel.seal(b"RTSP/1.0 200 OK\r\n\r\n");
                assert!(matches!(answer, Ok(answer) if answer.len() == FRAME_HEADER_BYTES + 19));
            }
            Err(SealedError::Replayed { got, last }) => assert!(got <= last && last == newest),
            Err(_) => assert!(damaged || choice & 0x80 != 0, "an honest frame was refused"),
        }
    }
    let mut fresh = Channel::new(&SessionKey::new(KEY));
    assert!(fresh.open(bytes).is_err(), "bytes without a key's seal were opened");
    if let Ok(FrameProgress::Complete { bytes: used }) = frame_bytes(bytes) {
        assert!(used <= bytes.len() && used <= FRAME_HEADER_BYTES + MAX_REQUEST_BYTES);
    }
}

// spec: gamestream 4.3
fn seal(gcm: &Gcm, number: u32, text: &[u8]) -> Vec<u8> {
    let [a, b, c, d] = number.to_le_bytes();
    let mut sealed = text.to_vec();
    let tag = gcm.seal([a, b, c, d, 0, 0, 0, 0, 0, 0, b'C', b'R'], &mut sealed);
    let flagged = 0x8000_0000 | u32::try_from(text.len()).unwrap_or(0);
    [&flagged.to_be_bytes()[..], &number.to_be_bytes(), &tag, &sealed].concat()
}
