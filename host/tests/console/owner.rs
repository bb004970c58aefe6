//! The owner's room behind the door: the claim's login is a cookie here, its token a token.

use std::sync::Barrier;

use punktfunk_host::access::{Access, AccessOptions, ClaimAttempt, LogIn, Role, Scope, Scopes};
use punktfunk_host::mgmt::Claimed;
use punktfunk_host::store::Store;
use serde_json::json;

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

    // Another password: the cookie and the CSRF token of before are dead, those of the answer live.
    let change = serde_json::json!({"old": "correct horse battery", "new": "battery staple horse"});
    let headers = [cookie.as_str(), ours, csrf.as_str()];
    let mut ask = rig.browser();
    let changed = ask.ask("PUT", "/api/v1/session/password", &headers, &change.to_string());
    assert_eq!(changed.status, 200, "{changed:?}");
    let dead = ask.ask("POST", "/api/v1/pairing/arm", &headers, "");
    assert_eq!(dead.code(), "login-needed");
    let set = changed.header("set-cookie").unwrap();
    let cookie = format!("Cookie: __Host-{}", set["__host-".len()..].split(';').next().unwrap());
    let csrf = format!("X-Punktfunk-Csrf: {}", changed.json()["csrf"].as_str().unwrap());
    let alive = ask.ask("POST", "/api/v1/pairing/arm", &[&cookie, ours, &csrf], "");
    assert_eq!(alive.code(), "starting", "it is let in");

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

#[test]
fn of_claimants_who_come_at_once_exactly_one_gets_the_host() {
    const COUNT: usize = 4;
    let (_folder, store, access) = room();
    let rig = Rig::start(Making { access: Some(access.clone()), ..Making::default() });
    let token: String =
        store.claim().unwrap().unwrap().token.iter().map(|byte| format!("{byte:02x}")).collect();
    let password = |number: usize| format!("the password of number {number}");
    let start = Barrier::new(COUNT);
    let answers: Vec<_> = std::thread::scope(|scope| {
        let claim = |number: usize| {
            let (rig, token, start) = (&rig, &token, &start);
            let mut browser = rig.browser();
            scope.spawn(move || {
                let name = format!("host {number}");
                let ask = json!({"secret": token, "name": name, "password": password(number)});
                start.wait();
                browser.ask("POST", "/api/v1/claim", &[], &ask.to_string())
            })
        };
        let claimants: Vec<_> = (0..COUNT).map(claim).collect();
        claimants.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let won: Vec<usize> = (0..COUNT).filter(|number| answers[*number].status == 200).collect();
    assert_eq!(won.len(), 1, "{answers:?}");
    for (number, answer) in answers.iter().enumerate() {
        let is_lost = answer.status == 409 && answer.code() == "claimed";
        assert!(is_lost || number == won[0], "{answer:?}");
        assert_eq!(answer.header("set-cookie").is_some(), number == won[0]);
        // The host is the winner's in every respect.
        let ask = LogIn { password: &password(number), ..nobody() };
        assert_eq!(access.log_in(&ask).is_ok(), number == won[0]);
    }
    let names = store.settings().unwrap();
    assert!(names.contains(&("name".to_owned(), format!("\"host {}\"", won[0]))), "{names:?}");
}

#[test]
fn a_login_takes_no_cookie_that_somebody_has_planted() {
    let (_folder, store, access) = room();
    let token = store.claim().unwrap().unwrap().code.clone();
    let claim = ClaimAttempt {
        secret: &token,
        name: "sofa",
        password: "correct horse battery",
        remote: None,
        agent: None,
    };
    access.claim(&claim).unwrap();
    access.set_viewer_password(Some("only to look at it"), None).unwrap();
    let looks =
        access.log_in(&LogIn { role: Role::Viewer, password: "only to look at it", ..nobody() });
    let looks = looks.unwrap().secret;
    let rig = Rig::start(Making { access: Some(access), ..Making::default() });
    let mut browser = rig.browser();
    let mut who = |cookie: &str| {
        let cookie = format!("Cookie: __Host-punktfunk={cookie}");
        let told = browser.ask("GET", "/api/v1/session", &[&cookie], "").json();
        told["who"].as_str().unwrap().to_owned()
    };
    let ask = json!({"role": "owner", "password": "correct horse battery"}).to_string();
    // One that nobody has, and one by which an attacker looks.
    for (planted, is) in [("5a".repeat(32), "anonymous"), (looks.reveal().to_owned(), "viewer")] {
        let cookie = format!("Cookie: __Host-punktfunk={planted}");
        let mut browser = rig.browser();
        // A page that has a login may be asked for its word.
        let csrf = browser.ask("GET", "/api/v1/session", &[&cookie], "").json()["csrf"].clone();
        let csrf = format!("X-Punktfunk-Csrf: {}", csrf.as_str().unwrap_or_default());
        let headers = [&*cookie, "Origin: https://localhost", &csrf];
        let answer = browser.ask("POST", "/api/v1/session", &headers, &ask);
        assert_eq!(answer.status, 200, "{answer:?}");
        let set = answer.header("set-cookie").unwrap();
        assert!(!set.contains(&planted), "{set}");
        assert_eq!(who(&planted), is, "what the attacker has opens what it did");
        let own = set["__host-punktfunk=".len()..].split(';').next().unwrap();
        assert_eq!(who(own), "owner");
    }
}

#[test]
fn whoever_guesses_through_the_door_is_told_to_wait_and_the_owner_is_not() {
    let (_folder, store, access) = room();
    let rig = Rig::start(Making { access: Some(access.clone()), ..Making::default() });
    let mut browser = rig.browser();
    let code = store.claim().unwrap().unwrap().code.clone();
    let mut claim = |secret: &str| {
        let ask = json!({"secret": secret, "name": "sofa", "password": "correct horse battery"});
        let answer = browser.ask("POST", "/api/v1/claim", &[], &ask.to_string());
        let is_told = answer.header("retry-after").is_some_and(|seconds| seconds == "1");
        (answer.status, is_told)
    };
    assert_eq!(claim("AAAA-AAAA"), (403, true));
    assert_eq!(claim(&code), (429, true), "also the right one waits");
    let stands = rig.browser().ask("GET", "/api/v1/claim", &[], "").json();
    assert_eq!((&stands["tries_left"], &stands["wait_seconds"]), (&json!(4), &json!(1)));
    let claimed = ClaimAttempt {
        secret: &code,
        name: "sofa",
        password: "correct horse battery",
        remote: None,
        agent: None,
    };
    let owner = access.claim(&claimed).unwrap();

    let mut browser = rig.browser();
    let mut log_in = |headers: &[&str], password: &str| {
        let headers = [&["Origin: https://localhost"], headers].concat();
        let ask = json!({"role": "owner", "password": password}).to_string();
        let answer = browser.ask("POST", "/api/v1/session", &headers, &ask);
        let is_told = answer.header("retry-after").is_some_and(|seconds| seconds == "1");
        (answer.status, is_told)
    };
    assert_eq!(log_in(&[], "a wrong password"), (401, true));
    assert_eq!(log_in(&[], "correct horse battery"), (429, true));
    // At the same address, a browser that has logged in before does not wait for what others try.
    let known = format!("Cookie: __Host-punktfunk-known={}", owner.known.reveal());
    assert_eq!(log_in(&[&known], "correct horse battery"), (200, false));
}

fn room() -> (tempfile::TempDir, Store, Access) {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let store = Store::open(&state).unwrap();
    let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
    let access = Access::open(store.clone(), options).unwrap();
    (folder, store, access)
}

/// A login over the local socket, where tries are not counted.
fn nobody() -> LogIn<'static> {
    LogIn { role: Role::Owner, password: "", remote: None, agent: None, known: None }
}

#[test]
fn a_browser_that_opens_the_address_is_told_in_words_what_it_is() {
    let rig = Rig::start(Making { claimed: Claimed::No, ..Making::default() });
    let answer = rig.browser().ask("GET", "/", &[], "");
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, Some("text/plain; charset=utf-8"))
    );
    let text = String::from_utf8(answer.body).unwrap();
    let fingerprint = rig.identity.fingerprint().to_string();
    for part in ["\"sofa\"", "step 1 of 2", "no owner yet", &fingerprint] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(rig.browser().ask("GET", "/", &["Host: evil.example"], "").code(), "wrong-host");
    assert_eq!(rig.browser().ask("POST", "/", &["Origin: https://localhost"], "").status, 405);
}
