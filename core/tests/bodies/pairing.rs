//! Pairing: what a client asks at `/pair`, and both machines under any order of any messages.

use std::sync::OnceLock;

use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::pairing::client::Challenged;
use punktfunk_core::gamestream::pairing::{
    Answer, Attempt, Drawn, Event, HostSide, PAIRING_SECRET_BYTES, PairRequest, PinKey,
    RefuseReason,
};
use punktfunk_core::gamestream::query::Query;

use super::Script;

/// A client's certificate; nobody here has its key, so nothing may ever end in trust.
fn certificate() -> &'static Certificate {
    static CLIENT: OnceLock<Certificate> = OnceLock::new();
    CLIENT.get_or_init(|| match Certificate::from_pem(include_bytes!("../corpus/pem/client")) {
        Ok(certificate) => certificate,
        Err(error) => panic!("the certificate of the corpus: {error}"),
    })
}

pub(super) fn requests(bytes: &[u8]) {
    let Ok(query) = Query::parse(&String::from_utf8_lossy(bytes)) else { return };
    let Ok(request) = PairRequest::read(&query) else { return };
    // What is logged of a request names its step and nothing else.
    assert!(format!("{request:?}").len() <= "ChallengeResponse".len());
    if let PairRequest::HostCertificate { salt, certificate } = request {
        let again = Attempt::begin(salt, certificate.clone());
        let Attempt::AwaitPin { client, .. } = again else { panic!("it waits for its PIN") };
        assert_eq!(client, certificate);
    }
}

pub(super) fn machines(bytes: &[u8]) {
    let mut script = Script(bytes);
    let signs = script.byte().unwrap_or(0) & 1 == 0;
    let sign = |_: &[u8]| signs.then(|| vec![0x77; 256]);
    let host = HostSide {
        certificate_pem: "PEM",
        certificate_signature: certificate().signature(),
        sign: &sign,
    };
    let (salt, pin) = (script.array::<16>(), *b"1234");
    let (mut client, challenge) =
        Challenged::begin(PinKey::derive(&salt, &pin), script.array::<16>());
    let mut answered = None;
    let mut attempt = Attempt::begin(salt, certificate().clone());
    let (mut response, mut ended) = (script.array::<32>(), false);
    while let Some(choice) = script.byte() {
        let honest = choice & 0x80 == 0;
        let secret = secret_bytes(&mut script);
        let event = match choice & 3 {
            0 => Event::Pin(&pin),
            1 => Event::Challenge {
                challenge: if honest { challenge } else { script.array() },
                drawn: Drawn { secret: script.array(), challenge: script.array() },
            },
            2 => Event::ChallengeResponse(if honest { response } else { script.array() }),
            _ => Event::Secret(&secret),
        };
        let (next, answer) = attempt.step(event, &host);
        attempt = next;
        match answer {
            Answer::Trust(_) => panic!("a certificate whose key nobody has is trusted"),
            Answer::Refuse(reason) => {
                assert!(matches!(attempt, Attempt::Ended));
                assert!(!ended || reason == RefuseReason::Order, "an ended attempt went on");
                ended = true;
            }
            Answer::ChallengeResponse(bytes) => {
                // The client may meet any host: what it is told may be changed on the way.
                let mut bytes = bytes;
                if !honest {
                    bytes = script.array();
                }
                let (next, sealed) =
                    client.answer(bytes, certificate().signature(), script.array());
                (answered, response) = (Some(next), sealed);
                client = Challenged::begin(PinKey::derive(&salt, &pin), [0; 16]).0;
            }
            Answer::Secret(secret) => {
                assert!(signs && secret.len() == PAIRING_SECRET_BYTES);
                if let Some(answered) = answered.take() {
                    let outcome = answered.finish(&secret, certificate(), |_| [0; 256]);
                    assert!(outcome.is_err(), "the host signed without the certificate's key");
                }
            }
            Answer::HostCertificate(text) => assert_eq!(text, "PEM"),
        }
    }
}

fn secret_bytes(script: &mut Script<'_>) -> [u8; PAIRING_SECRET_BYTES] {
    let piece = script.piece().unwrap_or_default();
    std::array::from_fn(|at| piece.get(at).copied().unwrap_or(0xEE))
}
