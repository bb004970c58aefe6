//! What somebody at the machine can do, and what an owner has prepared: once, whole or not at all.

use super::*;
use crate::store::NewClient;

#[test]
fn presence_arms_the_claim_and_keeps_what_is_paired() {
    let (house, access, owner) = claimed();
    access.set_viewer_password(Some("viewer password"), None).unwrap();
    let scopes = Scopes::from_iter(Scope::ALL);
    let token = access.make_token("backup", scopes, None, None).unwrap();
    let client = NewClient { certificate_der: vec![1, 2, 3], name: "TV".to_owned(), remote: HERE };
    access.inner.store.add_client(client).unwrap();

    let file = Presence::ResetFile { digest: [5; 32] };
    assert!(access.rearm(&file).unwrap());
    let check = |access: &Access| {
        assert!(!access.is_claimed());
        assert!(access.session(owner.secret.reveal()).is_none());
        assert_eq!(access.token(token.secret.reveal()), None);
        assert!(!access.has_viewer());
        assert_eq!(access.inner.store.clients().len(), 1);
        assert!(matches!(log_in(access, Role::Owner, PASSWORD, HERE), Err(LoginError::Unclaimed)));
        assert!(house.shown().is_some());
    };
    check(&access);
    drop(access);
    let access = house.open();
    check(&access);
    let (token, _) = house.shown().unwrap();
    access.claim(&attempt(&token, Some(HERE))).unwrap();
    assert!(!access.rearm(&file).unwrap(), "the same file does not count again");
    assert!(access.is_claimed());
    assert!(access.rearm(&Presence::PowerButton).unwrap());
    assert_ne!(house.shown().unwrap().0, token, "each claim has a token of its own");
    let log = access.audit_page(None, 100).unwrap();
    let rearms: Vec<_> =
        log.iter().filter(|row| row.action == "rearm").map(|r| &*r.detail).collect();
    assert_eq!(rearms, ["power-button", "reset-file"]);
}

#[test]
fn a_prepared_file_counts_once() {
    let house = House::new();
    let access = house.open();
    let secret = "0123456789abcdef0123456789ABCDEF";
    let text = format!(
        r#"{{"name":"Cellar","claim_secret":"{secret}","network":{{"ssid":"home","passphrase":"12345678"}}}}"#
    );
    let preseed = Preseed::parse(text.as_bytes()).unwrap();
    let taken = access.take_preseed(&preseed).unwrap();
    assert_eq!(taken, PreseedOutcome::Taken { has_network: true });
    let network = access.prepared_network().unwrap().unwrap();
    assert_eq!(
        (&*network.ssid, network.passphrase.as_ref().unwrap().as_str()),
        ("home", "12345678")
    );
    assert!(!format!("{taken:?} {preseed:?} {network:?}").contains("12345678"));
    assert_eq!(house.shown().unwrap().0, secret.to_lowercase());
    assert_eq!(access.take_preseed(&preseed).unwrap(), PreseedOutcome::Used);
    access.claim(&attempt(secret, Some(HERE))).unwrap();
    // Another file is found by a host that has an owner: it is used up, and stays so.
    let other = Preseed::parse(text.replace("Cellar", "Attic").as_bytes()).unwrap();
    assert_eq!(access.take_preseed(&other).unwrap(), PreseedOutcome::Claimed);
    access.rearm(&Presence::DangerousTest).unwrap();
    assert_eq!(access.take_preseed(&other).unwrap(), PreseedOutcome::Used);
    assert_eq!(access.take_preseed(&preseed).unwrap(), PreseedOutcome::Used);
    drop(access);
    let access = house.open();
    assert_eq!(
        access.prepared_network().unwrap(),
        Some(network),
        "it waits, whoever owns the host"
    );
    access.network_joined().unwrap();
    assert_eq!(access.prepared_network().unwrap(), None);
    assert!(access.claim(&attempt(secret, None)).is_err(), "its old token is dead");
}

#[test]
fn what_is_prepared_later_replaces_the_network_too() {
    let house = House::new();
    let access = house.open();
    let prepare = |secret: &str, network: &str| {
        let text = format!(r#"{{"name":"Cellar","claim_secret":"{secret}"{network}}}"#);
        access.take_preseed(&Preseed::parse(text.as_bytes()).unwrap()).unwrap();
        access.prepared_network().unwrap().map(|network| network.ssid)
    };
    let (one, other) = ("0123456789abcdef0123456789abcdef", "f123456789abcdef0123456789abcdef");
    assert_eq!(prepare(one, r#","network":{"ssid":"open"}"#).as_deref(), Some("open"));
    assert_eq!(access.prepared_network().unwrap().unwrap().passphrase, None);
    assert_eq!(prepare(one, r#","network":{"ssid":"new"}"#).as_deref(), Some("new"));
    assert_eq!(prepare(other, ""), None, "whoever prepares none wants none");
}

#[test]
fn a_file_that_prepares_nothing_is_refused() {
    let check = |text: &str, want: PreseedError| {
        assert_eq!(Preseed::parse(text.as_bytes()).unwrap_err(), want, "{text}");
    };
    let secret = "0123456789abcdef0123456789abcdef";
    check("", PreseedError::Malformed { line: 1 });
    check(r#"{"name":"x"}"#, PreseedError::Malformed { line: 1 });
    check(r#"{"name":"x","claim_secret":"password1"}"#, PreseedError::ClaimSecret);
    check(&format!(r#"{{"name":"","claim_secret":"{secret}"}}"#), PreseedError::Name);
    let long = "x".repeat(33);
    check(
        &format!(r#"{{"name":"x","claim_secret":"{secret}","network":{{"ssid":"{long}"}}}}"#),
        PreseedError::Network,
    );
    let large = vec![b' '; 16 * 1024 + 1];
    assert_eq!(Preseed::parse(&large).unwrap_err(), PreseedError::TooLarge { got: large.len() });
}

#[test]
fn who_claims_while_the_claim_is_armed_again_did_not() {
    let house = House::new();
    let access = house.open();
    drop(access);
    // While the claimant's password is hashed, somebody presses the button.
    let pressed = Arc::new(AtomicU64::new(0));
    let room: Arc<OnceLock<Access>> = Arc::default();
    let mut options =
        AccessOptions::of_machine(house.folder.path().to_owned()).dangerous_with_cheap_hashes();
    let (count, inside, system) = (pressed.clone(), room.clone(), options.random.clone());
    options.random = Arc::new(move |bytes| {
        if let Some(access) = inside.get()
            && count.fetch_add(1, Ordering::Relaxed) == 0
        {
            assert!(access.rearm(&Presence::PowerButton).unwrap());
        }
        system(bytes)
    });
    let access = Access::open(Store::open(house.folder.path()).unwrap(), options).unwrap();
    let (token, _) = house.shown().unwrap();
    assert!(room.set(access.clone()).is_ok());
    let late = access.claim(&attempt(&token, None)).unwrap_err();
    assert!(matches!(late, ClaimError::Wrong { .. }), "{late:?}");
    assert!(!access.is_claimed() && access.sessions().is_empty());
    assert_ne!(house.shown().unwrap().0, token);
}

#[test]
fn whatever_else_knows_the_owner_forgets_before_the_claim_is_armed() {
    let (_house, access, _) = claimed();
    let forgotten = Arc::new(AtomicU64::new(0));
    let count = forgotten.clone();
    access.on_rearm(move || {
        count.fetch_add(1, Ordering::Relaxed);
    });
    let file = Presence::ResetFile { digest: [5; 32] };
    access.inner.store.strike_for_test(crate::store::Struck::Change);
    access.rearm(&file).unwrap_err();
    assert_eq!(forgotten.load(Ordering::Relaxed), 0, "nothing has changed");
    assert!(access.rearm(&file).unwrap());
    assert_eq!(forgotten.load(Ordering::Relaxed), 1);
    assert!(!access.rearm(&file).unwrap());
    assert_eq!(forgotten.load(Ordering::Relaxed), 1);
}
