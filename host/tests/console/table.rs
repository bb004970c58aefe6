//! Who may call what, as one table: every operation of the document, asked by everybody.
//!
//! The host is still starting. Whoever may call an operation is let through the guard, and is then told so, or what is
//! wrong with the request; whoever may not is turned away with 401 or 403 before that.

use std::collections::BTreeMap;

use punktfunk_host::mgmt::{Claimed, document};
use serde_json::Value;
use utoipa::openapi::path::PathItem;

use super::browser::Browser;
use super::rig::{CSRF, Making, Rig};

/// Each operation and what its caller must have: `nothing`, that the host is `claimed`, a scope, `owner` or `local`.
const TABLE: &[(&str, &str)] = &[
    ("GET /landing", "nothing"),
    ("GET /health", "nothing"),
    ("GET /events", "view"),
    ("GET /claim", "nothing"),
    ("POST /claim", "nothing"),
    ("GET /session", "claimed"),
    ("POST /session", "claimed"),
    ("DELETE /session", "claimed"),
    ("GET /session/all", "owner"),
    ("DELETE /session/others", "owner"),
    ("PUT /session/password", "owner"),
    ("PUT /session/viewer", "owner"),
    ("DELETE /session/viewer", "owner"),
    ("GET /tokens", "owner"),
    ("POST /tokens", "owner"),
    ("DELETE /tokens/{id}", "owner"),
    ("GET /audit", "owner"),
    ("GET /status", "view"),
    ("GET /pairing", "view"),
    ("POST /pairing/answer", "pair"),
    ("POST /pairing/decline", "pair"),
    ("POST /pairing/arm", "pair"),
    ("POST /pairing/disarm", "pair"),
    ("GET /clients", "view"),
    ("PATCH /clients/{id}", "manage"),
    ("DELETE /clients/{id}", "manage"),
    ("GET /sessions", "view"),
    ("GET /sessions/{id}/traces", "view"),
    ("GET /doctor", "view"),
    ("POST /doctor/{check}", "manage"),
    ("GET /apps", "view"),
    ("GET /apps/{id}/art", "view"),
    ("PUT /apps/{id}/art", "manage"),
    ("DELETE /apps/{title}", "manage"),
    ("PUT /apps/{title}", "owner"),
    ("POST /backup", "owner"),
    ("POST /homes/backup", "owner"),
    ("POST /homes/restore", "owner"),
    ("GET /logs", "view"),
    ("GET /logs/bundle", "manage"),
    ("GET /logs/follow", "view"),
    ("GET /network", "view"),
    ("PUT /network/wifi", "system"),
    ("POST /network/wifi/scan", "system"),
    ("GET /openapi.json", "claimed"),
    ("GET /os", "view"),
    ("POST /os/apply", "system"),
    ("POST /os/archive", "system"),
    ("POST /os/apply/cancel", "system"),
    ("PUT /os/channel", "system"),
    ("POST /os/check", "system"),
    ("POST /os/dismiss", "system"),
    ("POST /os/download", "system"),
    ("POST /os/download/cancel", "system"),
    ("GET /os/events", "view"),
    ("POST /os/factory-reset", "owner"),
    ("GET /os/history", "view"),
    ("POST /os/pin", "system"),
    ("POST /os/rollback", "system"),
    ("POST /os/stage", "system"),
    ("POST /os/unpin", "system"),
    ("GET /pairing/events", "view"),
    ("GET /power", "view"),
    ("POST /power/restart", "system"),
    ("POST /power/shutdown", "system"),
    ("POST /power/sleep", "system"),
    ("POST /restore", "owner"),
    ("GET /sessions/past", "view"),
    ("DELETE /sessions/{id}", "play"),
    ("GET /sessions/{id}", "view"),
    ("GET /sessions/{id}/live", "view"),
    ("GET /settings", "view"),
    ("PATCH /settings", "manage"),
    ("POST /settings/reset", "manage"),
    ("DELETE /settings/{key}", "manage"),
    ("GET /storage", "view"),
    ("POST /selftest", "local"),
    ("POST /selftest/{client}", "local"),
    ("DELETE /selftest/{client}", "local"),
    ("POST /selftest/{client}/pin", "local"),
];

/// Everybody, with what they show.
const CALLERS: &[(&str, &str)] = &[
    ("anonymous", "X: y"),
    ("viewer", "Cookie: __Host-punktfunk=viewer"),
    ("owner", "Cookie: __Host-punktfunk=owner"),
    ("view", "Authorization: Bearer pf_view"),
    ("pair", "Authorization: Bearer pf_pair"),
    ("play", "Authorization: Bearer pf_play"),
    ("manage", "Authorization: Bearer pf_manage"),
    ("system", "Authorization: Bearer pf_system"),
];

/// Whether the caller may, by the words of the product: the owner in person may all but what needs the machine itself, a
/// viewer looks, a token does what its scope says.
fn may(caller: &str, need: &str) -> bool {
    match (caller, need) {
        (_, "nothing" | "claimed") => true,
        (_, "local") => false,
        ("owner", _) => true,
        ("viewer", need) => need == "view",
        (token, need) => token == need,
    }
}

fn ask(browser: &mut Browser, operation: &str, shown: &str) -> (u16, String) {
    let (method, path) = operation.split_once(' ').unwrap();
    // An answer that lasts is asked for in a way that nobody can be given.
    let query = match path {
        "/events" => "?topics=,,,,,,,,,,,,,,,,,,,,",
        "/logs/follow" => "?level=whisper",
        _ => "",
    };
    let path = format!("/api/v1{}{query}", path.replace(['{', '}'], ""));
    let answer = browser.ask(method, &path, &[shown, CSRF, "Origin: https://localhost"], "");
    (answer.status, answer.code())
}

#[test]
fn every_operation_answers_those_who_may_and_nobody_else() {
    let rig = Rig::start(Making::default());
    let mut wrong = Vec::new();
    for (caller, shown) in CALLERS {
        let mut browser = rig.browser();
        for (operation, need) in TABLE {
            let (status, code) = ask(&mut browser, operation, shown);
            let refused = match (status, &*code) {
                (401, "login-needed") => *caller == "anonymous",
                (403, "not-allowed") => *caller != "anonymous",
                _ => false,
            };
            if refused == may(caller, need) || status == 404 || status == 405 {
                wrong.push(format!("{caller}: {operation} ({need}): {status} {code}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What answers from afar while the host has no owner: who this is, whether a client could play, and the claim.
const BEFORE_THE_CLAIM: &[&str] = &["GET /landing", "GET /health", "GET /claim", "POST /claim"];

#[test]
fn before_the_claim_nobody_from_afar_may_do_more_than_claim() {
    let rig = Rig::start(Making { claimed: Claimed::No, ..Making::default() });
    for (caller, shown) in CALLERS {
        let mut browser = rig.browser();
        for (operation, _) in TABLE {
            let (status, code) = ask(&mut browser, operation, shown);
            let is_refused = (status, &*code) == (401, "unclaimed");
            let answers = BEFORE_THE_CLAIM.contains(operation);
            assert_eq!(is_refused, !answers, "{caller}: {operation}: {status} {code}");
        }
    }
}

#[test]
fn a_host_that_cannot_read_whose_it_is_lets_nobody_in_and_says_what_to_do() {
    let why = "The book is wet. Dry it, then start the host again.";
    let rig = Rig::start(Making { claimed: Claimed::Unknown { why }, ..Making::default() });
    let mut browser = rig.browser();
    for (caller, shown) in CALLERS {
        for (operation, _) in TABLE {
            let (status, code) = ask(&mut browser, operation, shown);
            let is_refused = (status, &*code) == (403, "owner-unknown");
            let answers = BEFORE_THE_CLAIM.contains(operation);
            assert_eq!(is_refused, !answers, "{caller}: {operation}: {status} {code}");
        }
    }
    let refused = browser.ask("GET", "/api/v1/status", &[], "").json();
    assert!(refused["detail"].as_str().unwrap().ends_with(why), "{refused}");
    for path in ["/api/v1/landing", "/api/v1/claim"] {
        let told = browser.ask("GET", path, &[], "");
        let (status, told) = (told.status, told.json());
        assert_eq!((status, told.get("claimed")), (200, Some(&Value::Null)), "{path}: {told}");
        assert!(told["why_unknown"].as_str().unwrap().ends_with(why), "{path}: {told}");
    }
    let ask = r#"{"secret":"2WMKJ4EY","name":"Mine","password":"correct horse battery"}"#;
    let claim = browser.ask("POST", "/api/v1/claim", &["Origin: https://localhost"], ask);
    assert_eq!((claim.status, &*claim.code()), (503, "unavailable"));
    assert!(claim.json()["detail"].as_str().unwrap().ends_with(why), "{claim:?}");
    let page = String::from_utf8(browser.ask("GET", "/", &[], "").body).unwrap();
    assert!(page.contains(why) && !page.contains("no owner yet"), "{page}");
    assert!(!page.contains("become its owner"), "{page}");
}

#[test]
fn the_table_is_the_document_and_the_document_is_what_is_enforced() {
    let mut documented = BTreeMap::new();
    for (path, item) in document().paths.paths {
        let path = path.strip_prefix("/api/v1").unwrap().to_owned();
        for (method, need) in needs(&item) {
            documented.insert(format!("{method} {path}"), need);
        }
    }
    let table: BTreeMap<String, String> = TABLE
        .iter()
        .map(|(operation, need)| ((*operation).to_owned(), (*need).to_owned()))
        .collect();
    assert_eq!(documented, table);
}

/// The methods of a path with the need that the document states.
fn needs(item: &PathItem) -> Vec<(&'static str, String)> {
    let operations = [
        ("GET", &item.get),
        ("PUT", &item.put),
        ("POST", &item.post),
        ("DELETE", &item.delete),
        ("PATCH", &item.patch),
    ];
    let mut found = Vec::new();
    for (method, operation) in operations {
        let Some(operation) = operation else { continue };
        let security = serde_json::to_value(&operation.security).unwrap();
        let need = security[0].as_object().and_then(|scheme| scheme.values().next());
        let need = need.and_then(|scopes| scopes[0].as_str());
        // What everybody may is told apart by whether it is refused before there is an owner.
        let is_owners = operation.responses.responses.contains_key("401");
        let open = if is_owners { "claimed" } else { "nothing" };
        found.push((method, need.unwrap_or(open).to_owned()));
    }
    found
}
