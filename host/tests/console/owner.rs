//! The owner's room behind the door: the claim's login is a cookie here, its token a token.

use punktfunk_host::access::{Access, AccessOptions, Scope, Scopes};
use punktfunk_host::store::Store;

use super::rig::{Making, Rig};

#[test]
fn whoever_claims_the_host_is_its_owner_at_the_door_until_it_logs_out() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let store = Store::open(&state).unwrap();
    let options = || AccessOptions::of_machine(state.clone()).dangerous_with_cheap_hashes();
    let access = Access::open(store.clone(), options()).unwrap();
    let rig = Rig::start(Making { access: Some(access.clone()), ..Making::default() });
    let mut browser = rig.browser();
    let landing = browser.ask("GET", "/api/v1/landing", &[], "");
    assert_eq!(landing.json()["claimed"].as_bool(), Some(false));
    let code = store.claim().unwrap().unwrap().code.clone();
    let ask =
        serde_json::json!({"secret": code, "name": "sofa", "password": "correct horse battery"});
    let claimed = browser.ask("POST", "/api/v1/claim", &[], &ask.to_string());
    assert_eq!(claimed.status, 200, "{claimed:?}");
    assert_eq!(browser.ask("POST", "/api/v1/claim", &[], &ask.to_string()).code(), "claimed");
    let set = claimed.header("set-cookie").unwrap();
    for attribute in ["secure", "httponly", "samesite=strict", "path=/"] {
        assert!(set.contains(attribute), "{set}");
    }
    let cookie = format!("Cookie: __Host-{}", set["__host-".len()..].split(';').next().unwrap());
    let csrf = format!("X-Punktfunk-Csrf: {}", claimed.json()["csrf"].as_str().unwrap());
    let ours = "Origin: https://localhost";
    let mut arm = |headers: &[&str]| browser.ask("POST", "/api/v1/pairing/arm", headers, "").code();
    assert_eq!(arm(&[&cookie, ours, &csrf]), "starting", "it is let in");
    assert_eq!(arm(&[&cookie, ours, "X-Punktfunk-Csrf: guessed"]), "csrf");
    assert_eq!(arm(&[&cookie, ours]), "csrf");
    assert_eq!(arm(&["Cookie: __Host-punktfunk=guessed", ours, &csrf]), "login-needed");

    let scopes = Scopes::from_iter([Scope::Pair]);
    let token = access.make_token("bot", scopes, None, None).unwrap();
    let bearer = format!("Authorization: Bearer {}", token.secret.reveal());
    assert_eq!(arm(&[&bearer]), "starting");
    access.remove_token(&token.info.id, None).unwrap();
    assert_eq!(arm(&[&bearer]), "login-needed");

    // A restart forgets nobody.
    let again = Access::open(store, options()).unwrap();
    let rig = Rig::start(Making { access: Some(again), ..Making::default() });
    let mut browser = rig.browser();
    let landing = browser.ask("GET", "/api/v1/landing", &[], "");
    assert_eq!(landing.json()["claimed"].as_bool(), Some(true));
    let out = browser.ask("DELETE", "/api/v1/session", &[&cookie, ours], "");
    assert_eq!(out.code(), "csrf", "no page logs the owner out");
    let out = browser.ask("DELETE", "/api/v1/session", &[&cookie, ours, &csrf], "");
    assert_eq!(out.status, 204, "{out:?}");
    let arm = browser.ask("POST", "/api/v1/pairing/arm", &[&cookie, ours, &csrf], "");
    assert_eq!(arm.code(), "login-needed");
}
