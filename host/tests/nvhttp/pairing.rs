use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use punktfunk_core::gamestream::certificate::Certificate;
use punktfunk_core::gamestream::pairing::client::ClientPairingError;
use punktfunk_core::gamestream::query::encode_hex;
use punktfunk_host::gamestream::http::Limits;
use punktfunk_host::pairing::{AnswerPin, DeskLimits, PairingOutcome, RequestEnd, RequestId};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use tokio::io::AsyncReadExt;

use crate::client::{
    Device, LOCALHOST, Paired, Pairing, SALT, SHARED_ID, connect, get, get_tls, receive, send,
    shared_device, trust,
};
use crate::host::Host;

const OTHER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

fn pairing<'a>(host: &'a Host, device: &'a Device, pin: &'a str) -> Pairing<'a> {
    Pairing { host, device, from: LOCALHOST, pin, unique_id: SHARED_ID }
}

/// The device pairs with its PIN while the owner enters one.
async fn pair(host: &Host, device: &Device, pins: (&str, &str)) -> Paired {
    let attempt = pairing(host, device, pins.0);
    let (paired, ()) = tokio::join!(attempt.run(), host.enter_pin(pins.1));
    paired
}

fn is_trusted(host: &Host, device: &Device) -> bool {
    host.store.paired_client_by_certificate(&device.certificate).is_some()
}

// spec: gamestream 13 item 35
#[tokio::test]
async fn five_steps_lead_to_trust() {
    let host = Host::start().await;
    let device = shared_device();
    assert_eq!(get_tls(&host, Some(&device), "/applist").await.code(), 401);
    // `pair` reads answers of exactly 48 and 272 bytes.
    // spec: gamestream 13 item 37
    assert_eq!(pair(&host, &device, ("0042", "0042")).await, Paired::Yes);
    let fifth = get_tls(&host, Some(&device), "/pair?uniqueid=1&phrase=pairchallenge").await;
    assert_eq!((fifth.code(), fifth.value("paired")), (200, Some("1")));
    assert_eq!(get_tls(&host, Some(&device), "/applist").await.code(), 200);
    let finished = host.desk.snapshot().recent;
    assert!(matches!(
        finished[..],
        [ref one] if matches!(one.end, RequestEnd::Outcome(PairingOutcome::Paired { .. }))
    ));
    // Over plain HTTP step 5 proves nothing.
    let plain = get(host.http, "/pair?uniqueid=1&phrase=pairchallenge").await;
    assert_eq!((plain.code(), plain.value("paired")), (400, Some("0")));
    host.stop().await;
}

// spec: gamestream 13 item 30
#[tokio::test]
async fn after_a_wrong_pin_the_right_one_works_at_once() {
    let host = Host::start().await;
    let device = shared_device();
    let wrong = pair(&host, &device, ("1234", "4321")).await;
    assert_eq!(wrong, Paired::Broken(ClientPairingError::WrongPin));
    assert!(!is_trusted(&host, &device));
    assert_eq!(get(host.http, &format!("/unpair?uniqueid={SHARED_ID}")).await.code(), 200);
    let ended = host.desk.snapshot().recent;
    assert_eq!(ended[0].end, RequestEnd::Outcome(PairingOutcome::WrongPin));
    assert_eq!(pair(&host, &device, ("1234", "1234")).await, Paired::Yes);
    assert!(is_trusted(&host, &device));
    host.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_on_after_a_wrong_pin_is_refused() {
    let host = Host::start().await;
    let device = shared_device();
    let attempt = pairing(&host, &device, "1234");
    let (first, ()) = tokio::join!(attempt.first(), host.enter_pin("4321"));
    assert_eq!(first.value("paired"), Some("1"));
    assert_eq!(attempt.ask(&attempt.challenge().1).await.value("paired"), Some("1"));
    let third = attempt.ask(&format!("serverchallengeresp={}", "5a".repeat(32))).await;
    assert_eq!(third.value("paired"), Some("1"));
    let secret = [&[9_u8; 16][..], &device.sign(&[9; 16]).unwrap()].concat();
    let fourth = attempt.ask(&format!("clientpairingsecret={}", encode_hex(&secret))).await;
    assert_eq!((fourth.code(), fourth.value("paired")), (400, Some("0")));
    assert!(!is_trusted(&host, &device));
    host.stop().await;
}

// spec: gamestream 13 item 31
#[tokio::test]
async fn an_abandoned_attempt_is_not_in_the_way() {
    let host = Host::start().await;
    let device = shared_device();
    let attempt = pairing(&host, &device, "1234");
    // Abandoned while step 1 waits: the request goes with its connection.
    let mut stream = connect(host.http, LOCALHOST).await;
    send(&mut stream, &attempt.target(&attempt.first_parameters())).await;
    host.pending(1).await;
    drop(stream);
    host.pending(0).await;
    assert_eq!(pair(&host, &device, ("1234", "1234")).await, Paired::Yes);
    // Abandoned after steps 1, 2 and 3.
    for steps in 1..=3 {
        let (first, ()) = tokio::join!(attempt.first(), host.enter_pin("1234"));
        assert_eq!(first.value("paired"), Some("1"));
        if steps >= 2 {
            assert_eq!(attempt.ask(&attempt.challenge().1).await.value("paired"), Some("1"));
        }
        if steps >= 3 {
            let third = attempt.ask(&format!("serverchallengeresp={}", "00".repeat(32))).await;
            assert_eq!(third.value("paired"), Some("1"));
        }
        assert_eq!(pair(&host, &device, ("0001", "0001")).await, Paired::Yes, "after {steps}");
    }
    host.stop().await;
}

// spec: gamestream 13 item 32
#[tokio::test]
async fn devices_with_one_unique_id_pair_at_the_same_time() {
    let host = Host::start().await;
    let (one, two) = (shared_device(), Device::stock().unwrap());
    let first = pairing(&host, &one, "1111");
    let second = Pairing { from: OTHER, ..pairing(&host, &two, "2222") };
    let owner = async {
        let pending = host.pending(2).await;
        // Each request gets the PIN of its own device.
        for request in pending {
            let pin = if request.remote == OTHER { "2222" } else { "1111" };
            let answer = AnswerPin {
                request: Some(request.id),
                pin: pin.parse().unwrap(),
                name: Some(format!("device {pin}")),
            };
            host.desk.answer(answer).unwrap();
        }
    };
    let (first, second, ()) = tokio::join!(first.run(), second.run(), owner);
    assert_eq!((first, second), (Paired::Yes, Paired::Yes));
    let mut names: Vec<_> = host.store.clients().into_iter().map(|client| client.name).collect();
    names.sort();
    assert_eq!(names, ["device 1111", "device 2222"]);
    host.stop().await;
}

// spec: gamestream 13 item 33
#[tokio::test]
async fn steps_out_of_order_or_of_wrong_length_end_the_attempt() {
    let host = Host::start().await;
    let device = shared_device();
    let attempt = pairing(&host, &device, "1234");
    let response = format!("serverchallengeresp={}", "00".repeat(32));
    let secret = format!("clientpairingsecret={}", "00".repeat(272));
    let (_, challenge) = attempt.challenge();
    let orders: [&[&str]; 6] = [
        &[&secret],
        &[&response],
        &[&challenge, &challenge],
        &[&challenge, &response, &response],
        &["clientchallenge=00"],
        &[&challenge, "serverchallengeresp=0011"],
    ];
    for (index, order) in orders.into_iter().enumerate() {
        // Each from an address of its own, since failures are counted per address.
        let from = IpAddr::V4(Ipv4Addr::new(127, 0, 1, index as u8 + 1));
        let attempt = Pairing { from, ..pairing(&host, &device, "1234") };
        let (first, ()) = tokio::join!(attempt.first(), host.enter_pin("1234"));
        assert_eq!(first.value("paired"), Some("1"));
        let (wrong, right) = order.split_last().unwrap();
        for step in right {
            assert_eq!(attempt.ask(step).await.value("paired"), Some("1"));
        }
        let refused = attempt.ask(wrong).await;
        assert_eq!((refused.code(), refused.value("paired")), (400, Some("0")), "{order:?}");
        // The attempt is gone: even its right next step is refused now.
        for step in [&challenge, &response, &secret] {
            assert_eq!(attempt.ask(step).await.value("paired"), Some("0"));
        }
    }
    assert!(host.store.clients().is_empty());
    host.stop().await;
}

#[tokio::test]
async fn a_step_while_the_pin_is_awaited_ends_the_attempt() {
    let host = Host::start().await;
    let device = shared_device();
    let attempt = pairing(&host, &device, "1234");
    let early = async {
        host.pending(1).await;
        attempt.ask(&attempt.challenge().1).await
    };
    let (first, early) = tokio::join!(attempt.first(), early);
    assert_eq!((first.value("paired"), early.value("paired")), (Some("0"), Some("0")));
    assert_eq!(first.value("plaincert"), None);
    host.stop().await;
}

#[tokio::test]
async fn a_request_that_the_desk_let_go_of_is_not_trusted_any_more() {
    let host = Host::start().await;
    let device = shared_device();
    let attempt = pairing(&host, &device, "1234");
    let (first, ()) = tokio::join!(attempt.first(), host.enter_pin("1234"));
    assert_eq!(first.value("paired"), Some("1"));
    // From here on the owner is told that nothing came of it.
    host.desk.report(RequestId(1), PairingOutcome::Abandoned);
    let server = Certificate::from_der(host.identity.certificate_der()).unwrap();
    assert_eq!(attempt.finish(&server).await, Err(Paired::Refused(4)));
    assert!(!is_trusted(&host, &device));
    host.stop().await;
}

// spec: gamestream 13 item 34
#[tokio::test]
async fn a_client_that_reads_paired_is_trusted_already() {
    let host = Host::start().await;
    let device = shared_device();
    for run in 0..1000 {
        assert_eq!(pair(&host, &device, ("1234", "1234")).await, Paired::Yes);
        assert!(is_trusted(&host, &device), "run {run}");
        let id = host.store.clients()[0].id;
        host.store.remove_client(id).unwrap();
    }
    host.stop().await;
}

// spec: gamestream 13 item 36
#[tokio::test]
async fn step_1_is_silent_until_the_pin_comes() {
    assert!(DeskLimits::default().ttl >= Duration::from_secs(120));
    assert!(Limits::default().connection > DeskLimits::default().ttl);
    let host = Host::start().await;
    let device = shared_device();
    let attempt = pairing(&host, &device, "1234");
    let mut stream = connect(host.http, LOCALHOST).await;
    send(&mut stream, &attempt.target(&attempt.first_parameters())).await;
    host.pending(1).await;
    let mut byte = [0];
    let early = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut byte)).await;
    assert!(early.is_err(), "{early:?}");
    host.enter_pin("1234").await;
    let first = receive(&mut stream).await;
    assert_eq!(first.value("paired"), Some("1"));
    assert!(first.value("plaincert").is_some());
    host.stop().await;
}

// spec: gamestream 13 item 38
#[tokio::test]
async fn a_stranger_unpairs_nobody() {
    let host = Host::start().await;
    let device = shared_device();
    trust(&host, &device);
    for target in [format!("/unpair?uniqueid={SHARED_ID}"), "/unpair".to_owned()] {
        assert_eq!(get(host.http, &target).await.code(), 200);
    }
    assert!(is_trusted(&host, &device));
    // It may drop its own pending attempt.
    let stranger = Device::stock().unwrap();
    let attempt = pairing(&host, &stranger, "1234");
    let unpair = async {
        host.pending(1).await;
        get(host.http, &format!("/unpair?uniqueid={SHARED_ID}")).await
    };
    let (first, _) = tokio::join!(attempt.first(), unpair);
    assert_eq!(first.value("paired"), Some("0"));
    host.pending(0).await;
    // With the certificate itself it is the device's own wish.
    assert_eq!(get_tls(&host, Some(&device), "/unpair").await.code(), 200);
    assert!(!is_trusted(&host, &device));
    assert_eq!(get_tls(&host, Some(&device), "/serverinfo").await.code(), 401);
    host.stop().await;
}

// spec: gamestream 13 item 40
#[tokio::test]
async fn keys_that_cannot_pair_are_refused_at_step_1() {
    let host = Host::start().await;
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_4096).unwrap();
    let curve = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    for (key, word) in [(rsa, "4096 bits"), (curve, "not an RSA key")] {
        let device = Device::of(&key, |_| {}).unwrap();
        let refused = pairing(&host, &device, "1234").first().await;
        assert_eq!((refused.code(), refused.value("paired")), (400, Some("0")));
        assert!(refused.text().contains(word), "{}", refused.text());
    }
    assert!(host.desk.pending().is_empty());
    host.stop().await;
}

// spec: gamestream 13 item 41
#[tokio::test]
async fn five_wrong_pins_are_enough() {
    let host = Host::start().await;
    let device = shared_device();
    for _ in 0..5 {
        let wrong = pair(&host, &device, ("1234", "4321")).await;
        assert_eq!(wrong, Paired::Broken(ClientPairingError::WrongPin));
        get(host.http, &format!("/unpair?uniqueid={SHARED_ID}")).await;
    }
    let refused = pairing(&host, &device, "1234").first().await;
    assert_eq!((refused.code(), refused.value("paired")), (503, Some("0")));
    assert!(refused.text().contains("too many failed attempts"));
    // Others are not held back.
    let other = Device::stock().unwrap();
    let attempt = Pairing { from: OTHER, ..pairing(&host, &other, "7777") };
    let (paired, ()) = tokio::join!(attempt.run(), host.enter_pin("7777"));
    assert_eq!(paired, Paired::Yes);
    host.stop().await;
}

// spec: gamestream 13 item 124
#[tokio::test]
async fn one_address_cannot_crowd_others_out() {
    let host = Host::start().await;
    let device = shared_device();
    let mut waiting = Vec::new();
    for index in 0..DeskLimits::default().max_per_address {
        let id = format!("device{index}");
        let attempt = Pairing { unique_id: &id, ..pairing(&host, &device, "1234") };
        let mut stream = connect(host.http, LOCALHOST).await;
        send(&mut stream, &attempt.target(&attempt.first_parameters())).await;
        waiting.push(stream);
        host.pending(index + 1).await;
    }
    let before = host.desk.pending();
    let one_more = pairing(&host, &device, "1234").first().await;
    assert_eq!((one_more.code(), one_more.value("paired")), (503, Some("0")));
    assert_eq!(host.desk.pending(), before);
    let other = Pairing { from: OTHER, ..pairing(&host, &device, "1234") };
    let mut stream = connect(host.http, OTHER).await;
    send(&mut stream, &other.target(&other.first_parameters())).await;
    host.pending(before.len() + 1).await;
    host.stop().await;
}

// spec: gamestream 13 item 15
#[tokio::test]
async fn odd_spellings_of_a_step_are_read() {
    let host = Host::start().await;
    let device = shared_device();
    let certificate = device.pem_hex().to_uppercase();
    let salt = encode_hex(&SALT);
    // Glued, repeated, empty, unknown and percent-encoded parameters, and a trailing NUL after the PEM text.
    let target = format!(
        "/pair?&&devicename=rothupdateState=1&phrase=get%73ervercert&salt={salt}&salt=00\
         &clientcert={certificate}00&what&uniqueid={SHARED_ID}"
    );
    let (first, ()) = tokio::join!(get(host.http, &target), host.enter_pin("1234"));
    assert_eq!((first.code(), first.value("paired")), (200, Some("1")));
    host.stop().await;
}
