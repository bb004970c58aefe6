use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::RSA_PKCS1_SHA256;
use proptest::prelude::*;

use super::client::{Challenged, ClientPairingError};
use super::*;
use crate::gamestream::certificate::encode_pem;
use crate::gamestream::certificate::tests::{craft, key};
use crate::gamestream::query::{decode_hex, encode_hex};

fn bytes<const N: usize>(hex: &str) -> [u8; N] {
    decode_hex(hex).unwrap()[..].try_into().unwrap()
}

fn sign(key: &KeyPair, message: &[u8]) -> [u8; 256] {
    let mut signature = [0; 256];
    key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

struct Party {
    key: KeyPair,
    certificate: Certificate,
}

impl Party {
    fn new() -> Self {
        let (key, spki) = key(KeySize::Rsa2048);
        let certificate = Certificate::from_der(&craft(b"", b"\0", &spki, b"")).unwrap();
        Self { key, certificate }
    }
}

const SALT: &str = "101112131415161718191a1b1c1d1e1f";

// spec: gamestream 13 item 28
#[test]
fn the_vector_of_the_specification_comes_out_byte_for_byte() {
    let key = PinKey::derive(&bytes(SALT), b"1234");
    assert_eq!(encode_hex(key.expose()), "2707dcc9278c8c1f3bd7e2ef4f57b7e5");
    let (client, challenge) =
        Challenged::begin(key.clone(), bytes("202122232425262728292a2b2c2d2e2f"));
    assert_eq!(encode_hex(&challenge), "2d5009d29fac73958812e8642c857c39");

    let drawn = Drawn {
        secret: bytes("303132333435363738393a3b3c3d3e3f"),
        challenge: bytes("404142434445464748494a4b4c4d4e4f"),
    };
    let host = HostSide {
        certificate_pem: "",
        certificate_signature: &[0xaa; 256],
        sign: &|_| Some(vec![0; 256]),
    };
    let response = challenge_response(&key, challenge, &drawn, &host);
    assert_eq!(
        encode_hex(&response),
        "2f8bd9993ece67c0c0e2637aa436b05f8f29f0e878aae46602b624905c2d68f5\
         0569fb65f221de6fd7b57630568e5cc5"
    );
    let (_, answer) =
        client.answer(response, &[0xbb; 256], bytes("505152535455565758595a5b5c5d5e5f"));
    assert_eq!(
        encode_hex(&answer),
        "37f7ada92fa233d0bf1021d741b0f1cf34ef2be456592b0f99ad87306fe69df1"
    );
    assert_eq!(
        encode_hex(&key.decrypt(answer)),
        "2e5dd38562ed5599fbc6ff5bfc8b0de0f37a2df807fff48d451399e5997dc39b"
    );
}

/// Plays both sides with a PIN at each; returns what the host answers to step 4.
fn play(
    host: &Party,
    client: &Party,
    pins: (&[u8; 4], &[u8; 4]),
    signer: &Party,
) -> Result<Answer, ClientPairingError> {
    let host_sign = |message: &[u8]| Some(sign(&host.key, message).to_vec());
    let side = HostSide {
        certificate_pem: "PEM",
        certificate_signature: host.certificate.signature(),
        sign: &host_sign,
    };
    let attempt = Attempt::begin(bytes(SALT), client.certificate.clone());
    let (attempt, answer) = attempt.step(Event::Pin(pins.0), &side);
    assert_eq!(answer, Answer::HostCertificate("PEM".into()));

    let (machine, challenge) = Challenged::begin(PinKey::derive(&bytes(SALT), pins.1), [0x21; 16]);
    let drawn = Drawn { secret: [0x31; 16], challenge: [0x41; 16] };
    let (attempt, answer) = attempt.step(Event::Challenge { challenge, drawn }, &side);
    let Answer::ChallengeResponse(response) = answer else { panic!("{answer:?}") };

    let (machine, response) = machine.answer(response, client.certificate.signature(), [0x51; 16]);
    let (attempt, answer) = attempt.step(Event::ChallengeResponse(response), &side);
    let Answer::Secret(secret) = answer else { panic!("{answer:?}") };

    let own = machine.finish(&secret, &host.certificate, |text| sign(&signer.key, text))?;
    let (attempt, answer) = attempt.step(Event::Secret(&own), &side);
    assert!(matches!(attempt, Attempt::Ended));
    let (_, again) = attempt.step(Event::Secret(&own), &side);
    assert_eq!(again, Answer::Refuse(RefuseReason::Order));
    Ok(answer)
}

#[test]
fn both_sides_agree_when_the_pins_do() {
    let (host, client) = (Party::new(), Party::new());
    // spec: gamestream 13 item 37
    for pin in [b"1234", b"0007", b"0000"] {
        let answer = play(&host, &client, (pin, pin), &client);
        assert_eq!(answer, Ok(Answer::Trust(client.certificate.clone())));
    }
    assert_eq!(
        play(&host, &client, (b"0007", b"7000"), &client),
        Err(ClientPairingError::WrongPin)
    );
    // A client that holds another key than its certificate's.
    let answer = play(&host, &client, (b"1234", b"1234"), &host);
    assert_eq!(answer, Ok(Answer::Refuse(RefuseReason::Signature)));
    // A host whose secret somebody else signed.
    let impostor = Party { key: key(KeySize::Rsa2048).0, certificate: host.certificate.clone() };
    let refused = play(&impostor, &client, (b"1234", b"1234"), &client);
    assert_eq!(refused, Err(ClientPairingError::ManInTheMiddle));
}

#[test]
fn a_client_that_goes_on_with_a_wrong_pin_is_refused() {
    let (host, client) = (Party::new(), Party::new());
    let sign_host = |message: &[u8]| Some(sign(&host.key, message).to_vec());
    let side = HostSide {
        certificate_pem: "",
        certificate_signature: host.certificate.signature(),
        sign: &sign_host,
    };
    let attempt = Attempt::AwaitSecret {
        client: client.certificate.clone(),
        challenge: [0x41; 16],
        committed: [7; 32],
    };
    let mut secret = [0x51; PAIRING_SECRET_BYTES];
    secret[16..].copy_from_slice(&sign(&client.key, &[0x51; 16]));
    let (_, answer) = attempt.step(Event::Secret(&secret), &side);
    assert_eq!(answer, Answer::Refuse(RefuseReason::WrongPin));
}

#[test]
fn a_host_that_cannot_sign_ends_the_attempt() {
    let client = Party::new().certificate;
    for signature in [None, Some(vec![0; 255])] {
        let side = HostSide {
            certificate_pem: "",
            certificate_signature: &[],
            sign: &|_| signature.clone(),
        };
        let attempt = Attempt::AwaitResponse {
            client: client.clone(),
            key: PinKey::derive(&[0; 16], b"1111"),
            drawn: Drawn { secret: [0; 16], challenge: [0; 16] },
        };
        let (next, answer) = attempt.step(Event::ChallengeResponse([0; 32]), &side);
        assert_eq!(answer, Answer::Refuse(RefuseReason::Local));
        assert!(matches!(next, Attempt::Ended));
    }
}

// spec: gamestream 13 item 33
#[test]
fn lengths_are_checked_when_a_request_is_read() {
    let read = |text: &str| PairRequest::read(&Query::parse(text).unwrap());
    assert_eq!(read("a=b"), Err(PairRequestError::UnknownStep));
    assert_eq!(read("phrase=other"), Err(PairRequestError::UnknownStep));
    assert_eq!(read("phrase=pairchallenge"), Ok(PairRequest::PairChallenge));
    let digits = |count: usize| "aB".repeat(count);
    for (name, length) in
        [("clientchallenge", 16), ("serverchallengeresp", 32), ("clientpairingsecret", 272)]
    {
        assert!(read(&format!("{name}={}", digits(length))).is_ok(), "{name}");
        for wrong in [0, length - 1, length + 1] {
            let refused = read(&format!("{name}={}", digits(wrong)));
            assert!(matches!(refused, Err(PairRequestError::Parameter(_))), "{name} {wrong}");
        }
    }
    let certificate = Party::new().certificate;
    let pem = encode_hex(encode_pem(certificate.der()).as_bytes());
    let step = |salt: usize| {
        read(&format!("phrase=getservercert&salt={}&clientcert={pem}00", digits(salt)))
    };
    assert_eq!(step(16), Ok(PairRequest::HostCertificate { salt: [0xab; 16], certificate }));
    assert!(step(15).is_err() && step(17).is_err());
    let rubbish = read(&format!("phrase=getservercert&salt={}&clientcert=00", digits(16)));
    assert!(matches!(rubbish, Err(PairRequestError::Certificate(_))));
}

#[test]
fn secrets_are_not_printed() {
    let key = PinKey::derive(&[9; 16], b"1234");
    let drawn = Drawn { secret: [9; 16], challenge: [9; 16] };
    assert_eq!(format!("{key:?} {drawn:?}"), "PinKey(redacted) Drawn(redacted)");
}

#[derive(Debug, Clone)]
enum Op {
    Pin,
    Challenge,
    Response,
    Secret,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![Just(Op::Pin), Just(Op::Challenge), Just(Op::Response), Just(Op::Secret),];
    prop::collection::vec(op, 1..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // spec: gamestream 13 item 33
    #[test]
    fn steps_are_answered_in_order_and_once(ops in ops()) {
        static CLIENT: std::sync::OnceLock<Certificate> = std::sync::OnceLock::new();
        let client = CLIENT.get_or_init(|| Party::new().certificate).clone();
        let sign = |_: &[u8]| Some(vec![0; 256]);
        let side =
            HostSide { certificate_pem: "", certificate_signature: &[1; 256], sign: &sign };
        let mut attempt = Attempt::begin([0; 16], client);
        let mut in_order = true;
        for (index, op) in ops.iter().enumerate() {
            let event = match op {
                Op::Pin => Event::Pin(b"1234"),
                Op::Challenge => Event::Challenge {
                    challenge: [0; 16],
                    drawn: Drawn { secret: [1; 16], challenge: [2; 16] },
                },
                Op::Response => Event::ChallengeResponse([3; 32]),
                Op::Secret => Event::Secret(&[4; PAIRING_SECRET_BYTES]),
            };
            in_order &= matches!(
                (index, op),
                (0, Op::Pin) | (1, Op::Challenge) | (2, Op::Response) | (3, Op::Secret)
            );
            let (next, answer) = attempt.step(event, &side);
            let refused = matches!(answer, Answer::Refuse(RefuseReason::Order));
            prop_assert_eq!(refused, !in_order);
            prop_assert!(!matches!(answer, Answer::Trust(_)));
            attempt = next;
        }
    }
}
