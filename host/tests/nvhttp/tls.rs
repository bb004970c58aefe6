use rcgen::{CustomExtension, KeyPair, PKCS_ECDSA_P256_SHA256, SerialNumber};
use rustls::{SignatureScheme, version};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{
    Device, LOCALHOST, TlsOptions, connect, device_with, get_tls, handshake, receive, rsa_key,
    send, shared_device, trust,
};
use crate::host::Host;

/// One DER element.
fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    [&[tag, 0x82, (length >> 8) as u8, length as u8][..], content].concat()
}

/// A certificate by hand around the public key of another, with this version field.
fn crafted(version: &[u8], tail: &[u8]) -> Device {
    let key = rsa_key().unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&key);
    let algorithm = element(0x30, &[6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b, 5, 0]);
    let validity =
        element(0x30, &[element(0x17, b"200101000000Z"), element(0x17, b"400101000000Z")].concat());
    let name = element(0x30, b"");
    let signed =
        [version, &element(2, &[0]), &algorithm, &name, &validity, &name, &spki, tail].concat();
    let signature = element(3, &[&[0][..], &[0xbb; 256]].concat());
    let inside = [element(0x30, &signed), algorithm, signature].concat();
    Device { certificate: element(0x30, &inside), key: key.serialize_der().into() }
}

fn dated(from: i32, to: i32) -> Device {
    device_with(|params| {
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
    })
}

fn odd_devices() -> Vec<(&'static str, Device)> {
    let extensions = element(0xa3, &element(0x30, b"\x01\x02no extension"));
    vec![
        ("serial 0", Device::stock().unwrap()),
        ("expired", dated(1990, 1991)),
        ("not yet valid", dated(2090, 2099)),
        (
            "odd extension",
            device_with(|params| {
                let mut odd =
                    CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![0xff]);
                odd.set_criticality(true);
                params.custom_extensions.push(odd);
            }),
        ),
        ("version 1", crafted(b"", b"")),
        ("version 1 with extensions", crafted(b"\xa0\x03\x02\x01\x00", &extensions)),
        ("version 2", crafted(b"\xa0\x03\x02\x01\x01", b"")),
        ("version 3 with bad extensions", crafted(b"\xa0\x03\x02\x01\x02", &extensions)),
    ]
}

// spec: gamestream 13 item 22
// spec: gamestream 13 item 23
#[tokio::test]
async fn odd_certificates_get_through_and_are_told_401_until_they_are_paired() {
    let host = Host::start().await;
    for path in ["/serverinfo", "/applist", "/launch?x=1", "/pair?phrase=pairchallenge", "/none"] {
        assert_eq!(get_tls(&host, None, path).await.code(), 401, "{path} without a certificate");
    }
    for (what, device) in odd_devices() {
        for path in ["/serverinfo", "/nothing"] {
            let answer = get_tls(&host, Some(&device), path).await;
            assert_eq!(answer.code(), 401, "{what}");
            assert!(answer.text().contains(&format!("query=\"{path}\"")), "{}", answer.text());
        }
        trust(&host, &device);
        for version in [&version::TLS12, &version::TLS13] {
            let options = TlsOptions {
                device: Some(&device),
                versions: Some(version),
                ..TlsOptions::default()
            };
            let mut stream = handshake(&host, host.https, options).await.unwrap();
            send(&mut stream, "/serverinfo").await;
            let answer = receive(&mut stream).await;
            assert_eq!((answer.code(), answer.value("PairStatus")), (200, Some("1")), "{what}");
        }
    }
    host.stop().await;
}

#[tokio::test]
async fn a_certificate_with_a_key_that_cannot_pair_gets_through_as_nobody() {
    let host = Host::start().await;
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let device = Device::of(&key, |_| {}).unwrap();
    // Shown by a client that signs with some RSA key: nothing is proven, nothing is refused.
    let options = TlsOptions {
        device: Some(&shared_device()),
        stolen: Some(&device.certificate),
        ..TlsOptions::default()
    };
    let mut stream = handshake(&host, host.https, options).await.unwrap();
    send(&mut stream, "/serverinfo").await;
    assert_eq!(receive(&mut stream).await.code(), 401);
    host.stop().await;
}

#[tokio::test]
async fn every_scheme_of_the_two_versions_proves_possession() {
    let host = Host::start().await;
    let device = shared_device();
    trust(&host, &device);
    let pss = [
        SignatureScheme::RSA_PSS_SHA256,
        SignatureScheme::RSA_PSS_SHA384,
        SignatureScheme::RSA_PSS_SHA512,
    ];
    let pkcs1 = [
        SignatureScheme::RSA_PKCS1_SHA256,
        SignatureScheme::RSA_PKCS1_SHA384,
        SignatureScheme::RSA_PKCS1_SHA512,
    ];
    let all = pss.iter().chain(&pkcs1).map(|scheme| (&version::TLS12, *scheme));
    for (version, scheme) in all.chain(pss.map(|scheme| (&version::TLS13, scheme))) {
        let options = TlsOptions {
            device: Some(&device),
            versions: Some(version),
            scheme: Some(scheme),
            ..TlsOptions::default()
        };
        let mut stream = handshake(&host, host.https, options).await.unwrap();
        send(&mut stream, "/serverinfo").await;
        assert_eq!(receive(&mut stream).await.value("PairStatus"), Some("1"), "{scheme:?}");
    }
    host.stop().await;
}

// spec: gamestream 13 item 24
#[tokio::test]
async fn a_paired_certificate_without_its_key_fails_the_handshake() {
    let host = Host::start().await;
    let (paired, thief) = (shared_device(), Device::stock().unwrap());
    trust(&host, &paired);
    for version in [&version::TLS12, &version::TLS13] {
        let options = TlsOptions {
            device: Some(&thief),
            stolen: Some(&paired.certificate),
            versions: Some(version),
            ..TlsOptions::default()
        };
        // In TLS 1.3 the client hears of the refusal only when it reads.
        let refused = match handshake(&host, host.https, options).await {
            Err(error) => error,
            Ok(mut stream) => {
                let _ = stream.write_all(b"GET /serverinfo HTTP/1.1\r\nHost: x\r\n\r\n").await;
                stream.read_to_end(&mut Vec::new()).await.unwrap_err()
            }
        };
        assert!(refused.to_string().contains("alert"), "{refused}");
    }
    host.stop().await;
}

// spec: gamestream 13 item 25
#[tokio::test]
async fn a_certificate_of_equal_subject_and_serial_is_another() {
    let host = Host::start().await;
    let (paired, twin) = (shared_device(), Device::stock().unwrap());
    trust(&host, &paired);
    assert_eq!(get_tls(&host, Some(&paired), "/serverinfo").await.code(), 200);
    assert_eq!(get_tls(&host, Some(&twin), "/serverinfo").await.code(), 401);
    // The same key in another certificate is another device, too.
    let key = KeyPair::from_pkcs8_der_and_sign_algo(
        &paired.key.as_slice().into(),
        &rcgen::PKCS_RSA_SHA256,
    )
    .unwrap();
    let renewed =
        Device::of(&key, |params| params.serial_number = Some(SerialNumber::from(1))).unwrap();
    assert_eq!(get_tls(&host, Some(&renewed), "/serverinfo").await.code(), 401);
    host.stop().await;
}

// spec: gamestream 13 item 26
// spec: gamestream 13 item 27
#[tokio::test]
async fn any_offer_of_protocols_leads_to_http_1_1() {
    let host = Host::start().await;
    let offers: [(&[&str], Option<&[u8]>); 3] =
        [(&[], None), (&["http/1.1"], Some(b"http/1.1")), (&["h2", "http/1.1"], Some(b"http/1.1"))];
    for (alpn, chosen) in offers {
        for version in [&version::TLS12, &version::TLS13] {
            let options = TlsOptions { alpn, versions: Some(version), ..TlsOptions::default() };
            // The server is addressed by its IP address, so no name is sent either.
            let mut stream = handshake(&host, host.https, options).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen);
            send(&mut stream, "/serverinfo").await;
            assert_eq!(receive(&mut stream).await.code(), 401);
        }
    }
    host.stop().await;
}

// spec: gamestream 13 item 21
#[tokio::test]
async fn tls_1_1_is_refused() {
    let host = Host::start().await;
    // A ClientHello of TLS 1.1 that offers TLS_RSA_WITH_AES_128_CBC_SHA.
    let hello = [&[3, 2][..], &[7; 32], &[0], &[0, 2, 0, 0x2f], &[1, 0]].concat();
    let message = [&[1, 0, 0, hello.len() as u8][..], &hello].concat();
    let record = [&[0x16, 3, 1, 0, message.len() as u8][..], &message].concat();
    let mut stream = connect(host.https, LOCALHOST).await;
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    // A fatal alert of whatever kind.
    assert_eq!((answer.first(), answer.get(5)), (Some(&0x15), Some(&2)), "{answer:?}");
    host.stop().await;
}

#[tokio::test]
async fn no_ticket_lets_a_client_skip_showing_its_certificate() {
    let host = Host::start().await;
    let mut stream = handshake(&host, host.https, TlsOptions::default()).await.unwrap();
    send(&mut stream, "/serverinfo").await;
    receive(&mut stream).await;
    assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    host.stop().await;
}
