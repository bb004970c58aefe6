//! The self-test's one-boot identity, attacked at the doors.

use std::net::IpAddr;
use std::time::Duration;

use punktfunk_core::gamestream::query::encode_hex;
use punktfunk_host::gamestream::http::{Caller, Reply, Request, Service, Transport};
use punktfunk_host::pairing::{AnswerError, AnswerPin, DeskMode, DeskState};
use punktfunk_host::session::apps::{TEST_CARD, app_id};
use punktfunk_host::store::ClientId;
use tokio::time::timeout;

use crate::client::{Device, LOCALHOST, Paired, Pairing, get_tls, shared_device};
use crate::host::{DESKTOP, GAME, Host};

const UNIQUE_ID: &str = "feedfacefeedface";
const PIN: &str = "2718";

fn client_of(device: &Device) -> ClientId {
    ClientId::of_certificate(&device.certificate)
}

fn pairing<'a>(host: &'a Host, device: &'a Device) -> Pairing<'a> {
    Pairing { host, device, from: LOCALHOST, pin: PIN, unique_id: UNIQUE_ID }
}

/// Gives the permit's request its PIN when it has come.
async fn give_pin(host: &Host, client: ClientId) {
    let request = loop {
        if let Some(request) = host.desk.renew_self_test(client).unwrap().request {
            break request;
        }
        tokio::task::yield_now().await;
    };
    assert!(host.desk.pending().is_empty(), "the owner sees nothing of it");
    let answer = |request| AnswerPin { request, pin: PIN.parse().unwrap(), name: None };
    // A PIN that the owner types for another device does not find it.
    assert_eq!(host.desk.answer(answer(None)), Err(AnswerError::NothingPending));
    host.desk.answer(answer(Some(request))).unwrap();
}

async fn pair(host: &Host, device: &Device) -> Paired {
    let attempt = pairing(host, device);
    let (paired, ()) = tokio::join!(attempt.run(), give_pin(host, client_of(device)));
    paired
}

#[tokio::test]
async fn it_pairs_while_nobody_may_and_is_remembered_nowhere() {
    let host = Host::start_with(DeskMode::Armed).await;
    let (device, stranger) = (shared_device(), Device::stock().unwrap());
    let client = client_of(&device);
    assert_eq!(pairing(&host, &device).run().await, Paired::Refused(1), "no permit yet");
    host.desk.permit_self_test(client).unwrap();
    assert_eq!(pairing(&host, &stranger).run().await, Paired::Refused(1), "another's permit");
    // Step 1 of a stranger leaves the permit as it is; so does one that is not from here.
    assert_eq!(pair(&host, &device).await, Paired::Yes);
    assert!(host.store.clients().is_empty(), "it is in the store");
    assert!(host.desk.snapshot().recent.is_empty(), "it is shown to the owner");
    assert_eq!(host.desk.state(), DeskState::Unarmed);
    let info = get_tls(&host, Some(&device), "/serverinfo").await;
    assert_eq!((info.code(), info.value("PairStatus")), (200, Some("1")));
    assert_eq!(get_tls(&host, Some(&stranger), "/serverinfo").await.code(), 401);
    host.stop().await;
}

#[tokio::test]
async fn it_pairs_once() {
    let host = Host::start_with(DeskMode::Prompt).await;
    let device = shared_device();
    host.desk.permit_self_test(client_of(&device)).unwrap();
    assert_eq!(pair(&host, &device).await, Paired::Yes);
    // Not even while everybody may ask, and the owner would type a PIN: it would end in the store.
    assert_eq!(pairing(&host, &device).run().await, Paired::Refused(1));
    assert_eq!(get_tls(&host, Some(&device), "/applist").await.code(), 200, "it is still in");
    assert!(host.store.clients().is_empty());
    host.stop().await;
}

#[tokio::test]
async fn the_right_certificate_from_elsewhere_is_refused() {
    let host = Host::start_with(DeskMode::Prompt).await;
    let device = shared_device();
    let client = client_of(&device);
    host.desk.permit_self_test(client).unwrap();
    for remote in ["192.168.1.20", "fd00::20", "::ffff:192.168.1.20"] {
        let remote: IpAddr = remote.parse().unwrap();
        let parameters = pairing(&host, &device).first_parameters();
        let caller = Caller { remote, local: remote, transport: Transport::Plain };
        let query = format!("uniqueid={UNIQUE_ID}&{parameters}");
        let request = Request { is_get: true, path: "/pair".into(), query: query.into() };
        // One that is admitted waits for its PIN.
        let answer = timeout(Duration::from_secs(10), host.api.answer(caller, request)).await;
        let Ok(Reply::Xml(document)) = answer else { panic!("{remote} was admitted") };
        assert!(document.contains("<paired>0</paired>"), "{remote}: {document}");
    }
    assert_eq!(host.desk.renew_self_test(client).unwrap().request, None, "it was used up");
    assert_eq!(pair(&host, &device).await, Paired::Yes);
    assert!(host.desk.accepts_self_test(client, LOCALHOST));
    assert!(!host.desk.accepts_self_test(client, "192.168.1.20".parse().unwrap()));
    host.stop().await;
}

#[tokio::test]
async fn it_sees_and_starts_the_test_card_alone() {
    let host = Host::start_with(DeskMode::Armed).await;
    let device = shared_device();
    host.desk.permit_self_test(client_of(&device)).unwrap();
    assert_eq!(pair(&host, &device).await, Paired::Yes);
    let list = get_tls(&host, Some(&device), "/applist").await;
    assert_eq!(list.text().matches("<App>").count(), 1, "{}", list.text());
    assert_eq!(list.value("AppTitle"), Some(TEST_CARD));
    assert_eq!(list.value("ID"), Some(app_id(TEST_CARD).0.to_string().as_str()));
    let launch = |app: u32| {
        let key = encode_hex(&[7; 16]);
        format!("/launch?appid={app}&mode=640x360x30&rikey={key}&rikeyid=1&corever=1")
    };
    for app in [DESKTOP, GAME, 1, i32::MAX.unsigned_abs()] {
        assert_eq!(get_tls(&host, Some(&device), &launch(app)).await.code(), 404, "{app}");
    }
    let card = get_tls(&host, Some(&device), &launch(app_id(TEST_CARD).0)).await;
    assert_eq!(card.code(), 200, "{}", card.text());
    assert!(card.value("sessionUrl0").unwrap().starts_with("rtspenc://127.0.0.1:"));
    assert_eq!(get_tls(&host, Some(&device), "/resume?rikey=00&rikeyid=1").await.code(), 400);
    host.stop().await;
}

#[tokio::test]
async fn it_ends_with_its_permit_and_cannot_come_back() {
    let host = Host::start_with(DeskMode::Armed).await;
    let device = shared_device();
    let client = client_of(&device);
    host.desk.permit_self_test(client).unwrap();
    assert_eq!(pair(&host, &device).await, Paired::Yes);
    let ending = host.desk.end_self_test(client).unwrap();
    assert_eq!(get_tls(&host, Some(&device), "/serverinfo").await.code(), 401);
    drop(ending);
    assert_eq!(get_tls(&host, Some(&device), "/serverinfo").await.code(), 401);
    assert_eq!(pairing(&host, &device).run().await, Paired::Refused(1));
    // Its own word ends it, too.
    let other = Device::stock().unwrap();
    host.desk.permit_self_test(client_of(&other)).unwrap();
    assert_eq!(pair(&host, &other).await, Paired::Yes);
    assert_eq!(get_tls(&host, Some(&other), "/unpair").await.code(), 200);
    assert_eq!(get_tls(&host, Some(&other), "/serverinfo").await.code(), 401);
    assert_eq!(host.desk.self_test_remaining(client_of(&other)), None);
    host.stop().await;
}

#[tokio::test]
async fn a_permit_that_ends_in_the_middle_of_pairing_leads_nowhere() {
    let host = Host::start_with(DeskMode::Armed).await;
    let device = shared_device();
    let client = client_of(&device);
    host.desk.permit_self_test(client).unwrap();
    let attempt = pairing(&host, &device);
    let (first, ()) = tokio::join!(attempt.first(), give_pin(&host, client));
    assert_eq!(first.value("paired"), Some("1"));
    drop(host.desk.end_self_test(client).unwrap());
    let server = host.identity.certificate_der();
    let server = punktfunk_core::gamestream::certificate::Certificate::from_der(server).unwrap();
    assert_eq!(attempt.finish(&server).await, Err(Paired::Refused(4)));
    assert!(host.store.clients().is_empty());
    assert_eq!(get_tls(&host, Some(&device), "/serverinfo").await.code(), 401);
    host.stop().await;
}
