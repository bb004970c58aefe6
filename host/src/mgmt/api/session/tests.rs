//! Claim, login, tokens and the log through the routes, on a host that has only begun to start.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, Request, StatusCode, header};
use axum::{Extension, Router};
use http_body_util::BodyExt as _;
use hyper::service::Service as _;
use hyper_util::service::TowerToHyperService;
use punktfunk_core::media::Codec;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::super::super::MgmtHandles;
use super::super::super::feed::Feed;
use super::super::super::guard::{Caller, Credentials as _, Standing, Who};
use super::super::super::patience::Stays;
use super::super::super::startup::Startup;
use super::super::super::wire::Event;
use super::super::router;
use crate::access::{Access, AccessOptions, Presence, Scope, Scopes};
use crate::agent::{Local, ProfileNumber};
use crate::encode::x264::X264Backend;
use crate::pairing::{
    AskRefusal, Asking, DeskMode, DeskOptions, DeskState, PairingDesk, Withdrawn,
};
use crate::session::{SessionOptions, Sessions, Sounds};
use crate::store::{ClientId, Store};

const PASSWORD: &str = "correct horse";

struct Host {
    /// Where whoever asks over the network is.
    from: Cell<IpAddr>,
    folder: TempDir,
    runtime: Runtime,
    access: Access,
    store: Store,
    startup: Startup,
    router: Router,
}

struct Answer {
    status: StatusCode,
    cookie: Option<String>,
    /// The second cookie.
    known: Option<String>,
    retry_after: Option<String>,
    body: Value,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let options = AccessOptions::of_machine(folder.path().to_owned());
        let store = Store::open(folder.path()).unwrap();
        let access = Access::open(store.clone(), options.dangerous_with_cheap_hashes()).unwrap();
        let startup = Startup::new(&["waking up"]).with_access(access.clone());
        let runtime = Runtime::new().unwrap();
        let from = Cell::new(IpAddr::from([192, 0, 2, 7]));
        let router = router(startup.clone());
        Self { from, folder, runtime, access, store, startup, router }
    }

    /// The same, with the rooms of a host that is complete; their store is another one.
    fn with_rooms(self, folder: &Path, desk: PairingDesk) -> Self {
        let sessions = Sessions::new(SessionOptions {
            apps: vec![],
            displays: BTreeMap::new(),
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 1,
            agents: Arc::new(Local::new(folder.join("sessions"), None)),
            profile: Box::new(|_| Ok(ProfileNumber(0))),
        });
        let store = Store::open(&folder.join("state")).unwrap();
        let startup = Startup::complete(MgmtHandles::bare(desk, store, Arc::new(sessions)));
        let startup = startup.with_access(self.access.clone());
        Self { router: router(startup.clone()), startup, ..self }
    }

    /// Calls as `who`, from an address unless it is somebody on the host.
    fn call(
        &self,
        who: Who,
        method: Method,
        path: &str,
        cookie: Option<&str>,
        body: Value,
    ) -> Answer {
        let is_local = matches!(who, Who::Local { .. });
        let remote = (!is_local).then_some(self.from.get());
        let caller = Caller { who, remote, claimed: self.access.claimed() };
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        let request = request.body(body).unwrap();
        let standing = Standing::new(Stays::default(), || true);
        let router = self.router.clone().layer(Extension(caller)).layer(Extension(standing));
        let service = TowerToHyperService::new(router);
        self.runtime.block_on(async {
            let response = service.call(request).await.unwrap();
            let text = |name| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
            let (cookie, retry_after) = (text(header::SET_COOKIE), text(header::RETRY_AFTER));
            let second = response.headers().get_all(header::SET_COOKIE).iter().nth(1);
            let known = second.map(|value| value.to_str().unwrap().to_owned());
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            Answer { status, cookie, known, retry_after, body }
        })
    }

    fn anonymous(&self, method: Method, path: &str, body: Value) -> Answer {
        self.call(Who::Anonymous, method, path, None, body)
    }

    fn claim(&self, secret: &str) -> Answer {
        let body = json!({ "secret": secret, "name": "Attic", "password": PASSWORD });
        self.anonymous(Method::POST, "/claim", body)
    }

    fn code(&self) -> String {
        let text = fs::read(self.folder.path().join("claim.json")).unwrap();
        let shown: Value = serde_json::from_slice(&text).unwrap();
        shown["code"].as_str().unwrap().to_owned()
    }

    /// Claims; gives the pair that the browser sends back.
    fn claimed(&self) -> String {
        let claimed = self.claim(&self.code());
        assert_eq!(claimed.status, StatusCode::OK, "{}", claimed.body);
        pair(&claimed)
    }
}

/// The name and the value of the cookie that was set.
fn pair(answer: &Answer) -> String {
    answer.cookie.as_ref().unwrap().split(';').next().unwrap().to_owned()
}

#[test]
fn a_login_that_could_not_be_kept_is_told_to_who_asks_and_to_who_follows() {
    let folder = tempfile::tempdir().unwrap();
    let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
    let host = Host::new().with_rooms(folder.path(), desk);
    host.claimed();
    let problems = || {
        let status = host.call(Who::Owner, Method::GET, "/status", None, Value::Null);
        let health = host.anonymous(Method::GET, "/health", Value::Null);
        (status.body["problems"].clone(), health.body["problems"].as_u64().unwrap())
    };
    assert_eq!(problems(), (json!([]), 0));
    let mut events = host.runtime.block_on(async { Feed::follow(&host.startup) });
    host.store.refuse_writes_for_test(true);
    let login = host.anonymous(Method::POST, "/session", json!({ "password": PASSWORD }));
    assert_eq!((login.status, &login.body["lasts"]), (StatusCode::OK, &json!(false)));
    let told = host.runtime.block_on(async {
        loop {
            let next = tokio::time::timeout(Duration::from_secs(30), events.recv());
            let next = next.await.expect("it is told within a second").unwrap();
            if let Event::Problems { problems } = &*next.event {
                return problems.clone();
            }
        }
    });
    assert!(told.len() == 1 && told[0].starts_with("1 login(s)"), "{told:?}");
    assert_eq!(problems(), (json!(told), 1));
}

#[test]
fn what_was_changed_is_noted_with_who_did_it() {
    let folder = tempfile::tempdir().unwrap();
    let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
    let host = Host::new().with_rooms(folder.path(), desk);
    host.claimed();
    let change = json!({ "limits.sessions": 3 });
    let scopes = Scopes::from_iter([Scope::Manage]);
    let token = || Who::Token { id: "abc".to_owned(), scopes };
    let changed = host.call(token(), Method::PATCH, "/settings", None, change.clone());
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.body);
    // What was only looked at, refused or not understood is no change.
    assert_eq!(host.call(Who::Owner, Method::GET, "/settings", None, Value::Null).status, 200);
    assert_eq!(host.call(Who::Viewer, Method::PATCH, "/settings", None, change).status, 403);
    assert_eq!(host.call(token(), Method::PATCH, "/settings", None, json!([])).status, 400);
    assert_eq!(
        host.call(Who::Local { uid: 0 }, Method::POST, "/pairing/arm", None, json!({})).status,
        200
    );
    let lines = host.call(Who::Owner, Method::GET, "/audit", None, Value::Null).body;
    let told: Vec<_> = lines
        .as_array()
        .unwrap()
        .iter()
        .map(|line| (line["actor"].as_str().unwrap(), line["action"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("uid 0 on the host", "POST /pairing/arm"),
            ("token abc", "PATCH /settings"),
            ("owner", "claim"),
        ]
    );
}

#[test]
fn a_wrong_code_says_how_long_to_wait() {
    let host = Host::new();
    let status = host.anonymous(Method::GET, "/claim", Value::Null);
    assert_eq!(
        status.body,
        json!({ "claimed": false, "reason": "first start", "wait_seconds": 0, "tries_left": 5 })
    );
    let wrong = host.claim("AAAA-AAAA");
    assert_eq!((wrong.status, &wrong.body["code"]), (StatusCode::FORBIDDEN, &json!("wrong-code")));
    assert_eq!(wrong.body["wait_seconds"], 1);
    assert_eq!(wrong.retry_after.as_deref(), Some("1"));
    let early = host.claim(&host.code());
    assert_eq!(early.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((early.retry_after.as_deref(), &early.body["code"]), (Some("1"), &json!("wait")));
    let status = host.anonymous(Method::GET, "/claim", Value::Null);
    assert_eq!(
        status.body,
        json!({ "claimed": false, "reason": "first start", "wait_seconds": 1, "tries_left": 4 })
    );
    // Nobody else waits for it.
    host.from.set(IpAddr::from([192, 0, 2, 8]));
    let status = host.anonymous(Method::GET, "/claim", Value::Null);
    assert_eq!((&status.body["wait_seconds"], &status.body["tries_left"]), (&json!(0), &json!(5)));
    assert_eq!(host.claim(&host.code()).status, StatusCode::OK);
}

#[test]
fn a_wrong_password_says_how_long_to_wait() {
    let host = Host::new();
    host.claimed();
    host.access.log_out_others(None).unwrap();
    let log_in =
        |password: &str| host.anonymous(Method::POST, "/session", json!({ "password": password }));
    let wrong = log_in("wrong password");
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!((wrong.retry_after.as_deref(), &wrong.body["wait_seconds"]), (Some("1"), &json!(1)));
    let early = log_in(PASSWORD);
    assert_eq!(early.status, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!((early.retry_after.as_deref(), &early.body["code"]), (Some("1"), &json!("wait")));
    host.from.set(IpAddr::from([192, 0, 2, 8]));
    assert_eq!(log_in(PASSWORD).status, StatusCode::OK);
}

#[test]
fn a_claim_logs_in_with_a_cookie_that_only_the_browser_reads() {
    let host = Host::new();
    let claimed = host.claim(&host.code());
    let cookie = claimed.cookie.as_deref().unwrap();
    let attributes: Vec<&str> = cookie.split("; ").skip(1).collect();
    assert!(cookie.starts_with("__Host-punktfunk="));
    assert_eq!(attributes, ["Path=/", "Secure", "HttpOnly", "SameSite=Strict"]);
    assert_eq!(claimed.body["role"], "owner");
    let me = host.call(Who::Owner, Method::GET, "/session", Some(&pair(&claimed)), Value::Null);
    assert_eq!(me.body["csrf"], claimed.body["csrf"]);
    assert_eq!((&me.body["who"], &me.body["claimed"]), (&json!("owner"), &json!(true)));
    let again = host.claim("AAAA-AAAA");
    assert_eq!((again.status, &again.body["code"]), (StatusCode::CONFLICT, &json!("claimed")));
    // Without the door's word that the cookie counts, it tells nothing.
    let token = Who::Token { id: "x".to_owned(), scopes: Scopes::from_iter([Scope::View]) };
    let me = host.call(token, Method::GET, "/session", Some(&pair(&claimed)), Value::Null);
    assert_eq!((&me.body["who"], &me.body["csrf"]), (&json!("token"), &Value::Null));
}

#[test]
fn somebody_on_the_host_claims_and_logs_in_over_the_socket() {
    let host = Host::new();
    let local = || Who::Local { uid: 0 };
    for _ in 0..6 {
        let body = json!({ "secret": "AAAAAAAA", "name": "Attic", "password": PASSWORD });
        let wrong = host.call(local(), Method::POST, "/claim", None, body);
        assert_eq!(wrong.status, StatusCode::FORBIDDEN);
    }
    let body = json!({ "secret": host.code(), "name": "Attic", "password": PASSWORD });
    let claimed = host.call(local(), Method::POST, "/claim", None, body);
    assert_eq!(claimed.status, StatusCode::OK);
    let body = json!({ "password": PASSWORD });
    assert_eq!(host.call(local(), Method::POST, "/session", None, body).status, StatusCode::OK);
}

#[test]
fn logging_in_and_out() {
    let host = Host::new();
    let early = host.anonymous(Method::POST, "/session", json!({ "password": PASSWORD }));
    assert_eq!(
        (early.status, &early.body["code"]),
        (StatusCode::UNAUTHORIZED, &json!("unclaimed"))
    );
    let first = host.claimed();
    let wrong = host.anonymous(Method::POST, "/session", json!({ "password": "wrong password" }));
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert_eq!(wrong.body["wait_seconds"], 1);
    let body = json!({ "password": PASSWORD });
    // From the host itself, because the address above waits now.
    let second = host.call(Who::Local { uid: 0 }, Method::POST, "/session", None, body);
    let second = pair(&second);
    assert_ne!(first, second);
    let all = host.call(Who::Owner, Method::GET, "/session/all", Some(&second), Value::Null);
    let current = |all: &Answer| {
        let all = all.body.as_array().unwrap();
        all.iter().map(|session| session["current"].as_bool().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(current(&all).iter().filter(|is| **is).count(), 1);
    assert_eq!(current(&all).len(), 2);
    let others =
        host.call(Who::Owner, Method::DELETE, "/session/others", Some(&second), Value::Null);
    assert_eq!(others.body, json!({ "ended": 1 }));
    let out = host.call(Who::Owner, Method::DELETE, "/session", Some(&second), Value::Null);
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert!(out.cookie.unwrap().contains("Max-Age=0"));
    assert!(host.access.sessions().is_empty());
    let log = host.access.audit_page(None, 2).unwrap();
    let said: Vec<_> = log.iter().map(|row| &*row.action).collect();
    assert_eq!(said, ["logout", "logout-others"]);
    // Nobody's cookie is nobody's session; several are none.
    let twice = format!("{first}; {second}");
    let out = host.call(Who::Anonymous, Method::DELETE, "/session", Some(&twice), Value::Null);
    assert_eq!(out.status, StatusCode::NO_CONTENT);
}

#[test]
fn the_owner_changes_passwords() {
    let host = Host::new();
    let cookie = host.claimed();
    let put =
        |path: &str, body: Value| host.call(Who::Owner, Method::PUT, path, Some(&cookie), body);
    let short = put("/session/viewer", json!({ "password": "short" }));
    assert_eq!(short.status, StatusCode::UNPROCESSABLE_ENTITY);
    let set = put("/session/viewer", json!({ "password": "viewer password" }));
    assert_eq!(set.status, StatusCode::NO_CONTENT);
    let login = json!({ "role": "viewer", "password": "viewer password" });
    let viewer = host.anonymous(Method::POST, "/session", login.clone());
    assert_eq!((viewer.status, &viewer.body["role"]), (StatusCode::OK, &json!("viewer")));
    let refused = host.call(Who::Viewer, Method::GET, "/audit", Some(&pair(&viewer)), Value::Null);
    assert_eq!(refused.status, StatusCode::FORBIDDEN);
    let removed =
        host.call(Who::Owner, Method::DELETE, "/session/viewer", Some(&cookie), Value::Null);
    assert_eq!(removed.status, StatusCode::NO_CONTENT);
    assert_eq!(host.anonymous(Method::POST, "/session", login).status, StatusCode::UNAUTHORIZED);

    let scopes = Scopes::from_iter([Scope::View]);
    host.access.make_token("lights", scopes, None, None).unwrap();
    let changed = put("/session/password", json!({ "old": PASSWORD, "new": "another password" }));
    assert_eq!(changed.status, StatusCode::OK);
    assert_eq!((&changed.body["ended"], &changed.body["revoked_tokens"]), (&json!(0), &json!(1)));
    // The caller's login goes on under another cookie; the one of before is dead.
    let me =
        |cookie: &str| host.call(Who::Owner, Method::GET, "/session", Some(cookie), Value::Null);
    assert_eq!(me(&pair(&changed)).body["csrf"], changed.body["csrf"]);
    assert_eq!(me(&cookie).body["csrf"], Value::Null);
    let wrong = put("/session/password", json!({ "old": PASSWORD, "new": "another password" }));
    assert_eq!(wrong.body["code"], "wrong-password");
    assert_eq!(host.access.sessions().len(), 1, "the caller stays logged in");
}

#[test]
fn tokens_and_the_log() {
    let host = Host::new();
    let cookie = host.claimed();
    let call = |method, path: &str, body| host.call(Who::Owner, method, path, Some(&cookie), body);
    let made =
        call(Method::POST, "/tokens", json!({ "name": "lights", "scopes": ["view", "pair"] }));
    let secret = made.body["secret"].as_str().unwrap();
    let scopes = Scopes::from_iter([Scope::View, Scope::Pair]);
    assert_eq!(host.access.token(secret).unwrap().scopes, scopes);
    let none = call(Method::POST, "/tokens", json!({ "name": "lights", "scopes": [] }));
    assert_eq!(
        (none.status, &none.body["code"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("no-scopes"))
    );
    let all = call(Method::GET, "/tokens", Value::Null);
    assert_eq!(all.body[0]["scopes"], json!(["view", "pair"]));
    assert!(!all.body.to_string().contains(secret));
    // No token makes or removes tokens, whatever it may.
    let all_scopes = Scopes::from_iter(Scope::ALL);
    let id = all.body[0]["id"].as_str().unwrap().to_owned();
    let token = || Who::Token { id: id.clone(), scopes: all_scopes };
    for path in ["/tokens", "/audit", "/session/all"] {
        let refused = host.call(token(), Method::GET, path, None, Value::Null);
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{path}");
    }
    let path = format!("/tokens/{id}");
    assert_eq!(call(Method::DELETE, &path, Value::Null).status, StatusCode::NO_CONTENT);
    assert_eq!(call(Method::DELETE, &path, Value::Null).status, StatusCode::NOT_FOUND);
    assert_eq!(host.access.token(secret), None);

    let log = call(Method::GET, "/audit?limit=2", Value::Null);
    let actions = |log: &Answer| {
        let lines = log.body.as_array().unwrap();
        lines.iter().map(|line| line["action"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(actions(&log), ["token-removed", "token-made"]);
    let last = log.body[1]["id"].as_u64().unwrap();
    let more = call(Method::GET, &format!("/audit?before={last}"), Value::Null);
    assert_eq!(actions(&more), ["claim"]);
    for wrong in ["limit=0", "limit=201", "before=x"] {
        let refused = call(Method::GET, &format!("/audit?{wrong}"), Value::Null);
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
    }
}

#[test]
fn without_an_owner_nobody_is_anybody_and_without_a_store_it_says_so() {
    let host = Host::new();
    for path in ["/tokens", "/audit", "/session/all"] {
        let refused = host.anonymous(Method::GET, path, Value::Null);
        assert_eq!(
            (refused.status, &refused.body["code"]),
            (StatusCode::UNAUTHORIZED, &json!("unclaimed"))
        );
    }
    let host = Host { router: router(Startup::new(&["waking up"])), ..host };
    let told = host.anonymous(Method::GET, "/claim", Value::Null);
    assert_eq!((told.status, &told.body["claimed"]), (StatusCode::OK, &Value::Null));
    assert!(told.body["why_unknown"].as_str().unwrap().contains("nobody can claim it"));
    let refused = host.claim(&host.code());
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.body["code"], "unavailable");
}

#[test]
fn without_an_owner_the_desk_takes_the_self_test_and_whom_somebody_on_the_host_lets_in() {
    let folder = tempfile::tempdir().unwrap();
    let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
    let host = Host::new().with_rooms(folder.path(), desk.clone());
    let forgetful = desk.clone();
    host.access.on_rearm(move || forgetful.forget_owner());
    let ask = |client: u8, remote: [u8; 4]| {
        desk.ask(Asking {
            unique_id: client.to_string(),
            remote: remote.into(),
            device_name: "Deck".to_owned(),
            client: ClientId([client; 32]),
        })
    };
    let arm = |who| host.call(who, Method::POST, "/pairing/arm", None, json!({}));
    let scopes = Scopes::from_iter(Scope::ALL);
    let check_unclaimed = || {
        let token = Who::Token { id: "x".to_owned(), scopes };
        for who in [Who::Anonymous, Who::Viewer, Who::Owner, token] {
            for path in ["/pairing/arm", "/pairing/answer", "/pairing/decline", "/pairing/disarm"] {
                let refused = host.call(who.clone(), Method::POST, path, None, json!({}));
                assert_eq!(refused.body["code"], "unclaimed", "{who:?} {path}");
            }
        }
        assert_eq!(ask(1, [10, 0, 0, 5]).unwrap_err(), AskRefusal::NotArmed);
        desk.permit_self_test(ClientId([9; 32])).unwrap();
        assert_eq!(ask(9, [10, 0, 0, 5]).unwrap_err(), AskRefusal::NotForPairing);
        let test = ask(9, [127, 0, 0, 1]).unwrap();
        drop(test);
        drop(desk.end_self_test(ClientId([9; 32])));
    };
    check_unclaimed();
    // Somebody on the host lets a device in.
    assert_eq!(arm(Who::Local { uid: 0 }).status, StatusCode::OK);
    let mut device = ask(1, [10, 0, 0, 5]).unwrap();
    let body = json!({ "pin": "1234" });
    let given = host.call(Who::Local { uid: 0 }, Method::POST, "/pairing/answer", None, body);
    assert_eq!(given.status, StatusCode::OK, "{}", given.body);
    host.runtime.block_on(device.pin()).unwrap();
    assert_eq!(arm(Who::Local { uid: 0 }).status, StatusCode::OK);
    host.claimed();
    let mut waiting = ask(2, [10, 0, 0, 6]).unwrap();
    assert!(matches!(desk.state(), DeskState::Armed { .. }), "what root has armed stays so");

    // The owner is gone, and with it what it has begun.
    assert!(host.access.rearm(&Presence::PowerButton).unwrap());
    assert_eq!(desk.state(), DeskState::Unarmed);
    assert!(desk.pending().is_empty());
    let why = host.runtime.block_on(waiting.pin()).unwrap_err();
    assert_eq!(why, Withdrawn::Disarmed);
    assert_eq!(desk.name_of(device.id()), None, "a PIN that was given pairs nobody any more");
    let status = host.anonymous(Method::GET, "/claim", Value::Null);
    assert_eq!(status.body["reason"], "power-button");
    check_unclaimed();
}

#[test]
fn a_browser_that_has_logged_in_before_waits_for_its_own_tries_only() {
    let host = Host::new();
    host.claimed();
    let login = |cookie: Option<&str>, password: &str| {
        let body = json!({ "password": password });
        host.call(Who::Anonymous, Method::POST, "/session", cookie, body)
    };
    let first = login(None, PASSWORD);
    assert_eq!((first.status, &first.body["lasts"]), (StatusCode::OK, &json!(true)));
    let known = first.known.clone().unwrap();
    let attributes: Vec<&str> = known.split("; ").skip(1).collect();
    assert!(known.starts_with("__Host-punktfunk-known="));
    assert_eq!(attributes, ["Path=/", "Secure", "HttpOnly", "SameSite=Strict", "Max-Age=31536000"]);
    let shown = known.split(';').next().unwrap();
    // Nobody is logged in with it.
    let me = host.call(Who::Owner, Method::GET, "/session", Some(shown), Value::Null);
    assert_eq!(me.body["csrf"], Value::Null);
    host.access.log_out_others(None).unwrap();
    assert_eq!(login(None, "wrong password").status, StatusCode::UNAUTHORIZED);
    let wait = login(None, PASSWORD);
    assert_eq!((wait.status, &wait.body["code"]), (StatusCode::TOO_MANY_REQUESTS, &json!("wait")));
    assert_eq!(login(Some(shown), PASSWORD).status, StatusCode::OK);
}

#[test]
fn what_the_disk_could_not_take_is_told_as_a_problem() {
    let folder = tempfile::tempdir().unwrap();
    let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
    let host = Host::new().with_rooms(folder.path(), desk);
    host.claimed();
    let problems = || {
        let status = host.call(Who::Owner, Method::GET, "/status", None, Value::Null);
        status.body["problems"].as_array().unwrap().clone()
    };
    let before = problems().len();
    let path = host.folder.path().join("claim.json");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("in the way"), "").unwrap();
    assert!(host.access.rearm(&Presence::PowerButton).unwrap());
    let local = host.call(Who::Local { uid: 0 }, Method::GET, "/status", None, Value::Null);
    let told = local.body["problems"].as_array().unwrap();
    assert_eq!(told.len(), before + 1);
    assert!(told[before].as_str().unwrap().contains("claim.json"), "{told:?}");
}
