use std::sync::Arc;

use proptest::prelude::*;
use punktfunk_core::gamestream::rtsp::Progress;
use punktfunk_core::input::InputEvent;

use super::*;
use crate::input::InputError;
use crate::stream::StreamControl;

struct NoStream;

impl PreparedStream for NoStream {
    fn start(self: Box<Self>, _: Peer, _: Option<Peer>) -> Arc<dyn StreamControl> {
        unreachable!("tickets start nothing")
    }
}

struct NoInput;

impl InputSink for NoInput {
    fn apply(&mut self, _: &InputEvent) -> Result<(), InputError> {
        Ok(())
    }
    fn release_all(&mut self) -> Result<(), InputError> {
        Ok(())
    }
}

fn at(seconds: u64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

fn request(client: u8, key: u8, remote: &str) -> TicketRequest {
    TicketRequest {
        client: ClientId([client; 32]),
        session: SessionId(client.into()),
        key: SessionKey::new([key; 16]),
        key_id: 0,
        remote: remote.parse().unwrap(),
        mode: Mode::new(1280, 720, 60_000).unwrap(),
        encrypted_rtsp: false,
    }
}

fn rtsp(line: &str, token: &str, body: &str) -> Request {
    let session = if token.is_empty() { String::new() } else { format!("Session: {token}\r\n") };
    let text = format!(
        "{line} RTSP/1.0\r\nCSeq: 1\r\n{session}Content-length: {}\r\n\r\n{body}",
        body.len()
    );
    match Request::parse(text.as_bytes()) {
        Ok(Progress::Complete { request, .. }) => request,
        other => panic!("{other:?}"),
    }
}

const PORTS: Ports = Ports { video: 1, control: 2, audio: 3 };

const ANNOUNCE: &str = "v=0\r\na=x-nv-video[0].clientViewportWd:1280 \r\n\
    a=x-nv-video[0].clientViewportHt:720 \r\na=x-nv-video[0].maxFPS:60 \r\n\
    a=x-nv-video[0].packetSize:1392 \r\na=x-nv-vqos[0].bw.maximumBitrateKbps:8000 \r\n\
    a=x-nv-general.useReliableUdp:13 \r\na=x-nv-audio.surround.numChannels:2 \r\n";

/// The answer to one request as text.
fn ask(tickets: &Tickets, id: TicketId, request: &Request, now: Timestamp) -> String {
    match tickets.answer(id, request, &Offer::default(), PORTS, now) {
        Some(Answer::Reply(answer)) => String::from_utf8(answer).unwrap(),
        _ => panic!("no plain answer"),
    }
}

/// Takes a ticket to ANNOUNCE.
fn announce(tickets: &Tickets, id: TicketId, first: &str, now: Timestamp) -> (String, Preparation) {
    let answer = ask(tickets, id, &rtsp("SETUP streamid=audio", "", ""), now);
    let token = answer.split("Session: ").nth(1).unwrap()[..16].to_owned();
    for stream in ["video", "control"] {
        let line = format!("SETUP streamid={stream}/0/0");
        assert!(ask(tickets, id, &rtsp(&line, &token, ""), now).starts_with("RTSP/1.0 200"));
    }
    let preparation = choose(tickets, id, &token, first, now);
    (token, preparation)
}

fn choose(
    tickets: &Tickets,
    id: TicketId,
    token: &str,
    first: &str,
    now: Timestamp,
) -> Preparation {
    let announce = rtsp("ANNOUNCE /", token, &format!("{first}{ANNOUNCE}"));
    match tickets.answer(id, &announce, &Offer::default(), PORTS, now) {
        Some(Answer::Prepare(preparation)) => *preparation,
        _ => panic!("nothing to prepare"),
    }
}

fn grant() -> Option<StreamGrant> {
    Some(StreamGrant { stream: Box::new(NoStream), input: Box::new(NoInput) })
}

/// Takes a ticket to PLAY.
fn play(tickets: &Tickets, remote: &str, first: &str, now: Timestamp) {
    let id = tickets.find_rtsp(remote.parse().unwrap(), None).unwrap();
    let (token, preparation) = announce(tickets, id, first, now);
    assert!(tickets.prepared(preparation, grant(), now).is_some());
    assert!(ask(tickets, id, &rtsp("PLAY /", &token, ""), now).starts_with("RTSP/1.0 200"));
}

fn connect_data(tickets: &Tickets) -> u32 {
    tickets.table().waiting.values().next().unwrap().connect_data
}

// spec: gamestream 13 item 124
#[test]
fn tickets_are_bounded_and_nobody_evicts_another() {
    let tickets = Tickets::default();
    for client in 0..4 {
        tickets.issue_at(request(client, client, "10.0.0.1"), at(0)).unwrap();
    }
    let too_many = Err(TicketError::TooMany { got: 4, max: 4 });
    assert_eq!(tickets.issue_at(request(9, 9, "10.0.0.1"), at(0)), too_many);
    assert_eq!(tickets.issue_at(request(9, 9, "::ffff:10.0.0.1"), at(0)), too_many);
    // A client's own ticket makes room for its next.
    tickets.issue_at(request(3, 30, "10.0.0.1"), at(0)).unwrap();
    for client in 10..14 {
        tickets.issue_at(request(client, client, &format!("2001:db8::{client}")), at(0)).unwrap();
    }
    assert_eq!(tickets.issue_at(request(9, 9, "2001:db8::ffff:1"), at(0)), too_many);
    for client in 20..28 {
        tickets.issue_at(request(client, client, &format!("10.0.1.{client}")), at(0)).unwrap();
    }
    assert_eq!(tickets.waiting(), MAX_WAITING);
    assert_eq!(
        tickets.issue_at(request(99, 99, "10.9.9.9"), at(0)),
        Err(TicketError::TooMany { got: 16, max: 16 })
    );
    // Those who never came make room.
    tickets.issue_at(request(99, 99, "10.9.9.9"), at(30)).unwrap();
    assert_eq!(tickets.waiting(), 1);
}

#[derive(Debug, Clone)]
enum Op {
    Issue { client: u8, address: u8 },
    Withdraw { client: u8 },
    Play { address: u8 },
    Adopt,
    Sweep { seconds: u64 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0u8..30, 0u8..6).prop_map(|(client, address)| Op::Issue { client, address }),
        1 => (0u8..30).prop_map(|client| Op::Withdraw { client }),
        2 => (0u8..6).prop_map(|address| Op::Play { address }),
        1 => Just(Op::Adopt),
        1 => (0u64..20).prop_map(|seconds| Op::Sweep { seconds }),
    ]
}

proptest! {
    // spec: gamestream 13 item 124
    #[test]
    fn whatever_happens_the_bounds_hold(ops in prop::collection::vec(op(), 1..80)) {
        let tickets = Tickets::default();
        let mut now = 0;
        for op in ops {
            match op {
                Op::Issue { client, address } => {
                    let _ = tickets.issue_at(request(client, client, &format!("10.0.0.{address}")), at(now));
                }
                Op::Withdraw { client } => tickets.withdraw(ClientId([client; 32])),
                Op::Play { address } => {
                    let remote: IpAddr = [10, 0, 0, address].into();
                    let untouched = tickets.table().waiting.iter().rfind(|(_, ticket)| {
                        ticket.request.remote == remote
                    }).is_some_and(|(_, ticket)| matches!(ticket.stage, Stage::Handshake(_)));
                    if untouched {
                        play(&tickets, &remote.to_string(), "", at(now));
                    }
                }
                Op::Adopt => {
                    let data = tickets.table().waiting.values().map(|ticket| ticket.connect_data).collect::<Vec<_>>();
                    for data in data {
                        let _ = tickets.adopt(data, [1, 2, 3, 4].into());
                    }
                }
                Op::Sweep { seconds } => {
                    now += seconds;
                    tickets.sweep(at(now));
                }
            }
            let table = tickets.table();
            prop_assert!(table.waiting.len() <= MAX_WAITING);
            let mut clients: Vec<_> = table.waiting.values().map(|ticket| ticket.request.client).collect();
            let mut data: Vec<_> = table.waiting.values().map(|ticket| ticket.connect_data)
                .chain(table.live.values().map(|live| live.connect_data)).collect();
            let all = data.len();
            data.sort_unstable();
            data.dedup();
            prop_assert_eq!(data.len(), all);
            clients.sort_unstable();
            let waiting = clients.len();
            clients.dedup();
            prop_assert_eq!(clients.len(), waiting, "a client has two tickets");
            for address in 0..6u8 {
                let here = table.waiting.values().filter(|ticket| ticket.request.remote == IpAddr::from([10, 0, 0, address]));
                prop_assert!(here.count() <= MAX_WAITING_PER_ADDRESS);
            }
        }
    }
}

// spec: gamestream 13 item 122
#[test]
fn a_key_serves_one_stream() {
    let tickets = Tickets::default();
    tickets.issue_at(request(1, 7, "10.0.0.1"), at(0)).unwrap();
    assert_eq!(
        tickets.issue_at(request(2, 7, "10.0.0.2"), at(0)),
        Err(TicketError::KeyInUse),
        "another client's ticket"
    );
    tickets.issue_at(request(1, 7, "10.0.0.1"), at(0)).unwrap();
    play(&tickets, "10.0.0.1", "", at(1));
    let adopted = tickets.adopt(connect_data(&tickets), "10.0.0.1".parse().unwrap()).unwrap();
    assert_eq!(tickets.waiting(), 0);
    for client in [1, 2] {
        let again = tickets.issue_at(request(client, 7, "10.0.0.1"), at(2));
        assert_eq!(again, Err(TicketError::KeyInUse));
    }
    tickets.forget(adopted.id);
    for client in [1, 2] {
        let again = tickets.issue_at(request(client, 7, "10.0.0.1"), at(3));
        assert_eq!(again, Err(TicketError::KeyInUse), "its counters would begin anew");
    }
    tickets.issue_at(request(1, 8, "10.0.0.1"), at(3)).unwrap();
}

#[test]
fn each_step_has_its_time() {
    let tickets = Tickets::default();
    let address: IpAddr = "10.0.0.1".parse().unwrap();
    tickets.issue_at(request(1, 1, "10.0.0.1"), at(0)).unwrap();
    tickets.sweep(at(29));
    assert!(tickets.find_rtsp(address, None).is_some());
    play(&tickets, "10.0.0.1", "", at(29));
    let data = connect_data(&tickets);
    tickets.sweep(at(38));
    assert!(tickets.expects(data, address));
    // Whoever goes on asking gets answers, but no more time: an encoder is being held for it.
    let id = tickets.find_rtsp(address, None).unwrap();
    for line in ["OPTIONS /", "PLAY /"] {
        assert!(ask(&tickets, id, &rtsp(line, "", ""), at(38)).starts_with("RTSP/1.0 "));
    }
    tickets.sweep(at(39));
    assert!(!tickets.expects(data, address), "ten seconds after PLAY");
    tickets.issue_at(request(1, 2, "10.0.0.1"), at(40)).unwrap();
    tickets.sweep(at(70));
    assert_eq!(tickets.find_rtsp(address, None), None);
}

#[test]
fn connects_are_expected_only_after_play_and_with_the_right_data() {
    let tickets = Tickets::default();
    let (home, away): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
    tickets.issue_at(request(1, 1, "10.0.0.1"), at(0)).unwrap();
    let data = connect_data(&tickets);
    assert!(!tickets.expects(data, home), "before PLAY");
    play(&tickets, "10.0.0.1", "a=x-ml-general.featureFlags:2\r\n", at(1));
    assert!(tickets.expects(data, away), "the data is enough");
    assert!(!tickets.expects(data ^ 1, home));
    assert!(!tickets.expects(0, home), "this client sends data");
    tickets.issue_at(request(1, 2, "10.0.0.1"), at(2)).unwrap();
    play(&tickets, "10.0.0.1", "", at(3));
    assert!(tickets.expects(0, home) && tickets.expects(0, "::ffff:10.0.0.1".parse().unwrap()));
    assert!(!tickets.expects(0, away));
    assert!(tickets.adopt(0, home).is_some());
    assert!(tickets.adopt(0, home).is_none(), "a ticket is used once");
}

#[test]
fn a_ticket_that_is_busy_or_gone_is_not_answered() {
    let tickets = Tickets::default();
    tickets.issue_at(request(1, 1, "10.0.0.1"), at(0)).unwrap();
    let id = tickets.find_rtsp("10.0.0.1".parse().unwrap(), None).unwrap();
    let (token, preparation) = announce(&tickets, id, "", at(1));
    let options = rtsp("OPTIONS /", &token, "");
    assert!(tickets.answer(id, &options, &Offer::default(), PORTS, at(1)).is_none());
    // Preparing failed: the client may announce again.
    let answer = tickets.prepared(preparation, None, at(2)).unwrap();
    assert!(answer.starts_with(b"RTSP/1.0 503"));
    let preparation = choose(&tickets, id, &token, "", at(2));
    tickets.withdraw(ClientId([1; 32]));
    assert!(tickets.prepared(preparation, grant(), at(3)).is_none());
    assert!(tickets.answer(id, &options, &Offer::default(), PORTS, at(3)).is_none());
}

// spec: gamestream 7.1, 8.5
#[test]
fn pings_are_remembered_by_payload_and_old_ones_by_address() {
    let tickets = Tickets::default();
    let peer = |text: &str| Peer { to: text.parse().unwrap(), from: Some([10, 0, 0, 254].into()) };
    tickets.issue_at(request(1, 1, "10.0.0.1"), at(0)).unwrap();
    let payload: [u8; 16] = *tickets
        .table()
        .waiting
        .values()
        .next()
        .unwrap()
        .ping_payload
        .as_bytes()
        .first_chunk()
        .unwrap();
    let ping = Ping::parse(&[&payload[..], &[0, 0, 0, 5]].concat()).unwrap();
    assert_eq!(ping, Ping::Payload(payload));
    assert_eq!(Ping::parse(b"PING"), Some(Ping::Legacy));
    for noise in [&payload[..], b"PINGS", b"", &[0; 21]] {
        assert_eq!(Ping::parse(noise), None);
    }
    assert!(tickets.note_ping(Media::Audio, ping, peer("10.0.0.9:5")));
    assert!(!tickets.note_ping(Media::Audio, Ping::Payload([0; 16]), peer("10.0.0.1:6")));
    assert!(tickets.note_ping(Media::Video, Ping::Legacy, peer("[::ffff:10.0.0.1]:7")));
    assert!(!tickets.note_ping(Media::Video, Ping::Legacy, peer("10.0.0.2:8")));
    play(&tickets, "10.0.0.1", "a=x-ml-general.featureFlags:2\r\n", at(1));
    let adopted = tickets.adopt(connect_data(&tickets), "10.0.0.1".parse().unwrap()).unwrap();
    assert_eq!((adopted.video_peer, adopted.audio_peer), (None, Some(peer("10.0.0.9:5"))));
    assert_eq!((adopted.ping_payload, adopted.legacy_pings), (payload, false));
}

#[test]
fn plain_requests_find_their_ticket_by_token_then_address_then_because_it_is_the_only_one() {
    let tickets = Tickets::default();
    let find =
        |remote: &str, token: Option<&str>| tickets.find_rtsp(remote.parse().unwrap(), token);
    let mut sealed = request(9, 9, "10.0.0.9");
    sealed.encrypted_rtsp = true;
    tickets.issue_at(sealed, at(0)).unwrap();
    assert_eq!(find("10.0.0.9", None), None, "a plain request on an encrypted ticket");
    tickets.issue_at(request(1, 1, "10.0.0.1"), at(0)).unwrap();
    let first = find("10.0.0.1", None).unwrap();
    assert_eq!(find("10.7.7.7", None), Some(first));
    tickets.issue_at(request(2, 2, "10.0.0.2"), at(0)).unwrap();
    assert_eq!(find("10.7.7.7", None), None, "there are two");
    let second = find("10.0.0.2", None).unwrap();
    let token = tickets.table().waiting[&second].token.clone();
    assert_eq!(find("10.0.0.1", Some(&token)), Some(second));
}

// An answer whose ticket is gone may have been meant for an encrypted connection.
#[test]
fn nothing_is_answered_in_clear_for_a_ticket_that_is_gone() {
    let tickets = Tickets::default();
    assert_eq!(tickets.seal_rtsp(TicketId(1), b"RTSP/1.0 200 OK".to_vec()), Ok(None));
}
