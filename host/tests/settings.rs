//! What the owner sets, through the real router over the local socket: settings, apps, pictures, backups.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use punktfunk_core::media::Codec;
use punktfunk_host::agent::Local;
use punktfunk_host::backup::{Backups, Strength};
use punktfunk_host::config::{self, ConfigDesk, Layers, NotOffered};
use punktfunk_host::display::DisplayBackend;
use punktfunk_host::display::pattern::PatternBackend;
use punktfunk_host::encode::x264::X264Backend;
use punktfunk_host::health::child::Examiner;
use punktfunk_host::identity::Identity;
use punktfunk_host::mgmt::{Basics, Failure, MgmtHandles, MgmtOptions, MgmtServer, Startup};
use punktfunk_host::os::{NoPower, OsDesk};
use punktfunk_host::pairing::{DeskMode, DeskOptions, PairingDesk};
use punktfunk_host::session::apps::{LeftOut, Offer, app_id, of_config, offer};
use punktfunk_host::session::{SessionDesk, SessionOptions, Sessions, Sounds, art};
use punktfunk_host::store::{NewClient, Store};
use serde_json::{Value, json};

const PICTURE: &[u8] = include_bytes!("../assets/art/default.png");
const OTHER_PICTURE: &[u8] = include_bytes!("../assets/art/desktop.png");

const WEAK: Strength = Strength { memory_kib: 8, passes: 1 };

/// What a check says.
const FINDING: &str = r#"{"outcome":"works","evidence":"tried"}"#;
const SAYS: &str = r#"echo '{"outcome":"works","evidence":"tried"}'"#;

/// The part of a host that the owner's settings reach.
struct Host {
    folder: tempfile::TempDir,
    store: Store,
    sessions: Arc<Sessions>,
    socket: PathBuf,
    server: Option<MgmtServer>,
    runtime: tokio::runtime::Runtime,
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn header(&self, name: &str) -> String {
        let line = self.head.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {}", self.head)).to_owned()
    }

    /// The status and the code of a problem whose detail says this.
    fn is_problem(&self, status: u16, code: &str, says: &str) {
        let problem = self.json();
        assert_eq!((self.status, problem["code"].as_str().unwrap()), (status, code), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
}

impl Host {
    /// A host whose owner wrote this file.
    fn start(owners: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("host.toml"), owners).unwrap();
        let store = Store::open(&folder.path().join("state")).unwrap();
        let displays: BTreeMap<String, Arc<dyn DisplayBackend>> =
            [("pattern".to_owned(), Arc::new(PatternBackend::default()) as _)].into();
        let sessions = Arc::new(Sessions::new(SessionOptions {
            apps: vec![],
            displays,
            encoder: Arc::new(X264Backend),
            codecs: vec![Codec::H264],
            sound: Sounds::default(),
            max_sessions: 4,
            agents: Arc::new(Local::new(folder.path().join("sessions"), None)),
            profile: Box::new(|_| Err("no app of this test has programs".to_owned())),
        }));
        let socket = folder.path().join("run/host.sock");
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let mut host = Self { folder, store, sessions, socket, server: None, runtime };
        host.open();
        host
    }

    fn layers(&self) -> Layers {
        Layers {
            files: vec![self.folder.path().join("host.toml")],
            machine_name: Some("box".to_owned()),
            ..Layers::default()
        }
    }

    fn serve(&mut self, startup: Startup) {
        let socket = self.socket.clone();
        let options = MgmtOptions { socket, owner_uid: None, appliance: false };
        let _guard = self.runtime.enter();
        self.server = Some(MgmtServer::start(&options, startup).unwrap());
    }

    fn open(&mut self) {
        let layers = self.layers();
        let loaded = config::with_stored(&layers, &self.store);
        let sessions = Arc::clone(&self.sessions);
        let settings = ConfigDesk::new(layers, self.store.clone(), loaded, move |held| {
            let config = &held.config;
            sessions.set_max_sessions(config.limits.sessions);
            let displays = ["pattern".to_owned()].into();
            let Offer { apps, left_out, .. } = offer(of_config(config), &displays);
            sessions.set_apps(apps);
            let reason = |LeftOut { title, reason }| NotOffered { title, reason };
            left_out.into_iter().map(reason).collect()
        });
        let desk = PairingDesk::new(DeskOptions::new(DeskMode::Armed));
        let handles = MgmtHandles {
            settings,
            backups: Backups::new(self.store.clone(), WEAK),
            ..MgmtHandles::bare(desk, self.store.clone(), self.sessions.clone())
        };
        self.serve(Startup::complete(handles));
    }

    fn stop(&mut self) {
        let server = self.server.take().unwrap();
        self.runtime.block_on(server.stop());
    }

    /// The daemon ends and another one takes over its state.
    fn restart(&mut self) {
        self.stop();
        self.open();
    }

    /// The daemon ends, and another one with its state finds no way to start; nor a store, if there is none.
    fn restart_broken(&mut self, store: Result<Store, String>) {
        self.stop();
        let layers = self.layers();
        let loaded = match &store {
            Ok(store) => config::with_stored(&layers, store),
            Err(_) => config::load(&layers),
        };
        let basics = Basics {
            store: store.clone().ok(),
            backups: store.clone().ok().map(|store| Backups::new(store, WEAK)),
            settings: ConfigDesk::before(layers, store, loaded),
            examiner: Examiner::new("/bin/sh".into(), vec!["-c".into(), SAYS.into()]),
            os: OsDesk::absent(),
            power: Arc::new(NoPower::default()),
        };
        let startup = Startup::new(&["plugging it in"]).with_basics(basics);
        let whole = "the port 47989 is taken".to_owned();
        startup.failed(Failure { plain: "A port is taken.", whole });
        self.serve(startup);
    }

    fn ask_with(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        let length = body.len();
        let head = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        // A host that refuses a body may close before all of it is written.
        let _ = stream.write_all(body);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
        let head = String::from_utf8(answer[..end].to_vec()).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: answer[end + 4..].to_vec() }
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { vec![] } else { serde_json::to_vec(body).unwrap() };
        self.ask_with(method, path, "", &body)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &Value::Null)
    }

    fn patch(&self, changes: &Value) -> Answer {
        self.ask("PATCH", "/settings", changes)
    }

    fn setting(&self, key: &str) -> Value {
        find(&self.get("/settings").json(), "key", key)
    }

    fn app(&self, title: &str) -> Value {
        find(&self.get("/apps").json(), "title", title)
    }

    fn offered(&self) -> Vec<String> {
        self.sessions.apps().into_iter().map(|app| app.title).collect()
    }
}

fn find(list: &Value, name: &str, value: &str) -> Value {
    let found = list.as_array().unwrap().iter().find(|entry| entry[name] == value);
    found.unwrap_or_else(|| panic!("no {value} in {list}")).clone()
}

#[test]
fn what_keeps_a_host_from_starting_can_be_mended() {
    let mut host = Host::start("");
    Identity::load_or_create(&host.store).unwrap();
    assert_eq!(host.patch(&json!({"limits.sessions": 2, "name": "sofa"})).status, 200);
    host.restart_broken(Ok(host.store.clone()));
    host.get("/status").is_problem(503, "cannot-start", "47989");
    host.get("/apps").is_problem(503, "cannot-start", "47989");
    let sessions = host.setting("limits.sessions");
    assert_eq!((&sessions["value"], &sessions["origin"]["layer"]), (&json!(2), &json!("console")));

    // Nothing of a change can hold at once, and nobody is told so.
    let changed = host.patch(&json!({"limits.sessions": 3}));
    let sessions = find(&changed.json(), "key", "limits.sessions");
    assert_eq!((&sessions["value"], &sessions["pending"]), (&json!(2), &json!(3)));
    assert_eq!(sessions["takes_effect"], "restart");
    let reset = host.ask("DELETE", "/settings/name", &Value::Null);
    assert_eq!(find(&reset.json(), "key", "name")["pending"], "box");
    assert_eq!(host.ask("POST", "/settings/reset", &Value::Null).status, 200);
    assert_eq!(host.setting("limits.sessions")["pending"], 4);
    host.patch(&json!({"limits.sessions": 99})).is_problem(422, "out-of-range", "1..=16");

    for path in ["/os", "/os/history", "/power", "/doctor", "/logs", "/logs/bundle", "/storage"] {
        assert_eq!(host.get(path).status, 200, "{path}");
    }
    let found = host.ask("POST", "/doctor/store", &Value::Null);
    assert_eq!(found.json(), serde_json::from_str::<Value>(FINDING).unwrap());
    host.ask("POST", "/power/restart", &Value::Null).is_problem(503, "unavailable", "appliance");
    host.ask("POST", "/os/check", &Value::Null).is_problem(503, "unavailable", "appliance");

    let backup = host.ask("POST", "/backup", &json!({"passphrase": "correct horse battery"}));
    assert_eq!(backup.status, 200);
    assert_eq!(host.patch(&json!({"limits.sessions": 5})).status, 200);
    let mut body = br#"{"passphrase": "correct horse battery"}"#.to_vec();
    body.push(b'\n');
    body.extend_from_slice(&backup.body);
    assert_eq!(host.ask_with("POST", "/restore", "", &body).status, 200);

    host.restart();
    assert_eq!(
        (host.setting("limits.sessions")["value"].clone(), host.setting("name")["value"].clone()),
        (json!(4), json!("box"))
    );
}

#[test]
fn without_a_store_settings_are_read_and_nothing_is_set() {
    let mut host = Host::start("limits.sessions = 3\n");
    host.restart_broken(Err("the database is damaged".to_owned()));
    let sessions = host.setting("limits.sessions");
    assert_eq!((&sessions["value"], &sessions["fixed"]), (&json!(3), &json!(true)));
    host.patch(&json!({"name": "sofa"})).is_problem(503, "unavailable", "damaged");
    host.ask("DELETE", "/settings/name", &Value::Null).is_problem(503, "unavailable", "damaged");
    assert_eq!(host.get("/logs/bundle").status, 200);
}

#[test]
fn a_support_bundle_of_a_broken_host_names_nobody_either() {
    let mut host = Host::start("name = 'annas-den'\n");
    let remote = [10, 0, 0, 5].into();
    let name = "Anna's telly".to_owned();
    host.store.add_client(NewClient { certificate_der: b"tv".to_vec(), name, remote }).unwrap();
    host.restart_broken(Ok(host.store.clone()));
    let bundle = host.get("/logs/bundle");
    assert_eq!(bundle.status, 200);
    let text = String::from_utf8_lossy(&bundle.body).into_owned();
    assert!(text.contains("47989") && !text.contains("annas-den") && !text.contains("Anna"));
}

#[test]
fn settings_are_listed_changed_kept_and_reset() {
    let mut host = Host::start("gamestream.fec_percent = 10\n");
    assert_eq!(
        host.setting("limits.sessions"),
        json!({
            "key": "limits.sessions", "group": "limits", "about": "As many devices may play at once.",
            "kind": {"type": "integer", "minimum": 1, "maximum": 16},
            "default": 4, "value": 4, "origin": {"layer": "default"},
            "fixed": false, "settable": true, "takes_effect": "now",
        })
    );
    let fec = host.setting("gamestream.fec_percent");
    let place = format!("{}:1", host.folder.path().join("host.toml").display());
    assert_eq!((&fec["fixed"], &fec["fixed_by"]), (&json!(true), &json!(place)));
    assert_eq!(fec["origin"], json!({"layer": "file", "place": place}));
    assert_eq!((&fec["unit"], &fec["takes_effect"]), (&json!("percent"), &json!("next-session")));

    let changed = host.patch(&json!({"limits.sessions": 2, "name": "sofa"}));
    assert_eq!(changed.status, 200);
    let name = find(&changed.json(), "key", "name");
    assert_eq!((&name["value"], &name["pending"]), (&json!("box"), &json!("sofa")));
    host.restart();
    let (name, sessions) = (host.setting("name"), host.setting("limits.sessions"));
    assert_eq!((&name["value"], name.get("pending")), (&json!("sofa"), None));
    assert_eq!((&sessions["value"], &sessions["origin"]["layer"]), (&json!(2), &json!("console")));

    let reset = host.ask("DELETE", "/settings/limits.sessions", &Value::Null);
    assert_eq!(find(&reset.json(), "key", "limits.sessions")["value"], 4);
    assert_eq!(host.setting("name")["value"], "sofa");
    assert_eq!(host.ask("POST", "/settings/reset", &Value::Null).status, 200);
    assert_eq!(host.setting("name")["pending"], "box");
    assert_eq!(host.store.settings().unwrap(), []);
}

#[test]
fn a_change_that_cannot_be_made_changes_nothing_and_says_why() {
    let host = Host::start("gamestream.fec_percent = 10\n");
    let refused = |bad: Value, status, code, says: &str| {
        let mut changes = json!({"limits.sessions": 2});
        changes.as_object_mut().unwrap().extend(bad.as_object().unwrap().clone());
        host.patch(&changes).is_problem(status, code, says);
    };
    refused(json!({"limits.bitrate_kbps": 1}), 422, "out-of-range", "500..=1000000");
    refused(json!({"discovery": "yes"}), 422, "out-of-range", "`discovery` is \"yes\"");
    refused(json!({"gamestream.encryption": "maybe"}), 422, "out-of-range", "\"require\"");
    refused(json!({"nmae": "x"}), 422, "unknown-setting", "nmae");
    refused(json!({"gamestream.fec_percent": 20}), 409, "fixed-by-file", "host.toml:1");
    refused(json!({"state.folder": "/tmp"}), 409, "not-settable", "state.folder");
    refused(json!({"name": ["x"]}), 400, "malformed", "");
    refused(json!({"name": null}), 400, "malformed", "");
    host.ask("DELETE", "/settings/nmae", &Value::Null).is_problem(404, "unknown-setting", "nmae");
    assert_eq!(host.setting("limits.sessions")["value"], 4);
    assert_eq!(host.store.settings().unwrap(), []);
}

#[test]
fn apps_of_the_console_are_offered_at_once_and_still_are_after_a_restart() {
    let mut host = Host::start("[[app]]\ntitle = 'File'\ndisplay = 'pattern'\n");
    assert_eq!(host.offered(), ["Test card", "File"]);
    let desktop = host.app("Desktop");
    assert_eq!(desktop["offered"], false);
    assert_eq!(desktop["reason"], "its display backend \"sway\" does not work here");
    assert_eq!(desktop["source"]["layer"], "default");

    let card = json!({"display": "pattern"});
    let made = host.ask("PUT", "/apps/My%20card", &card);
    assert_eq!((made.status, made.json()["offered"].clone()), (200, json!(true)));
    assert_eq!(host.offered(), ["Test card", "My card", "File"]);
    let command = json!({"commands": [["foot", "--fullscreen"]]});
    let on_sway = host.ask("PUT", "/apps/Terminal", &command).json();
    assert_eq!((&on_sway["display"], &on_sway["offered"]), (&json!("sway"), &json!(false)));

    host.restart();
    assert_eq!(host.offered(), ["Test card", "My card", "File"]);
    assert_eq!(host.app("Terminal")["commands"], command["commands"]);
    assert_eq!(host.app("Terminal")["source"]["layer"], "console");
    assert_eq!(host.patch(&json!({"apps.test_card": false})).status, 200);
    assert_eq!(host.offered(), ["My card", "File"]);

    assert_eq!(host.ask("DELETE", "/apps/My%20card", &Value::Null).status, 204);
    assert_eq!(host.offered(), ["File"]);
    let gone = host.ask("DELETE", "/apps/My%20card", &Value::Null);
    gone.is_problem(404, "unknown-app", "My card");
    let fixed = host.ask("DELETE", "/apps/File", &Value::Null);
    fixed.is_problem(409, "fixed-by-file", "host.toml:1");
    host.ask("PUT", "/apps/File", &card).is_problem(409, "fixed-by-file", "host.toml:1");
}

#[test]
fn what_cannot_be_an_app_is_refused() {
    let host = Host::start("");
    let refused = |title: &str, app: Value, says: &str| {
        host.ask("PUT", &format!("/apps/{title}"), &app).is_problem(422, "unfit-app", says);
    };
    refused("Empty", json!({}), "needs a `command`");
    refused("A", json!({"commands": [[]]}), "a list of 1 to 256 texts");
    refused("A", json!({"commands": [[""]]}), "a list of 1 to 256 texts");
    refused("A", json!({"commands": [["a\u{0}b"]]}), "a list of 1 to 256 texts");
    refused("A", json!({"commands": vec![["a"]; 17]}), "at most 16 commands, not 17");
    refused("%20A", json!({"commands": [["a"]]}), "\"A\" would do");
    refused("%0A", json!({"commands": [["a"]]}), "1 to 64 characters");
    refused(&"x".repeat(65), json!({"commands": [["a"]]}), "would do");
    let shape = host.ask("PUT", "/apps/A", &json!({"display": "hdmi"}));
    shape.is_problem(400, "malformed", "hdmi");
    assert_eq!(host.store.apps().unwrap(), []);
}

#[test]
fn pictures_are_checked_kept_and_told_apart() {
    let host = Host::start("[[app]]\ntitle = 'File'\ndisplay = 'pattern'\n");
    host.ask("PUT", "/apps/Mine", &json!({"display": "pattern"}));
    let path = format!("/apps/{}/art", app_id("Mine").0);
    assert_eq!(host.app("Mine")["art"], format!("/api/v1{path}"));
    let shipped = host.get(&path);
    assert_eq!((shipped.status, shipped.header("content-type").as_str()), (200, "image/png"));

    assert_eq!(host.ask_with("PUT", &path, "", PICTURE).status, 200);
    let own = host.get(&path);
    assert!(own.body == PICTURE && own.header("etag") != shipped.header("etag"));
    let known =
        |etag: &str| host.ask_with("GET", &path, &format!("if-none-match: \"x\", {etag}\r\n"), b"");
    assert_eq!((known(&own.header("etag")).status, known(&own.header("etag")).body), (304, vec![]));
    assert_eq!(known(&shipped.header("etag")).status, 200);
    // Devices get the same, and a new definition keeps it.
    host.ask("PUT", "/apps/Mine", &json!({"display": "pattern", "commands": [["true"]]}));
    let app = host.sessions.apps().into_iter().find(|app| app.title == "Mine").unwrap();
    assert!(art::of(Some(&app), &host.store) == PICTURE);
    assert_eq!(host.ask_with("PUT", &path, "", OTHER_PICTURE).status, 200);
    assert!(art::of(Some(&app), &host.store) == OTHER_PICTURE);

    let refused = |body: &[u8]| {
        host.ask_with("PUT", &path, "", body).is_problem(422, "unfit-art", "P");
    };
    refused(b"<svg/>");
    refused(&PICTURE[..PICTURE.len() - 1]);
    assert_eq!(host.ask_with("PUT", &path, "", &vec![0; art::MAX_ART_BYTES + 1]).status, 413);
    let of = |title: &str| format!("/apps/{}/art", app_id(title).0);
    host.ask_with("PUT", &of("File"), "", PICTURE).is_problem(409, "fixed-by-file", "host.toml:1");
    host.ask_with("PUT", &of("Test card"), "", PICTURE).is_problem(404, "unknown-app", "Test card");
    host.get("/apps/1/art").is_problem(404, "unknown-app", "number");
    host.get("/apps/x/art").is_problem(400, "malformed", "");
    assert!(art::of(Some(&app), &host.store) == OTHER_PICTURE);
}

fn restore(host: &Host, passphrase: &str, backup: &[u8]) -> Answer {
    let mut body = serde_json::to_vec(&json!({ "passphrase": passphrase })).unwrap();
    body.push(b'\n');
    body.extend_from_slice(backup);
    host.ask_with("POST", "/restore", "", &body)
}

#[test]
fn a_backup_brings_settings_apps_and_devices_to_another_host() {
    const PASSPHRASE: &str = "correct horse battery";
    let old = Host::start("");
    Identity::load_or_create(&old.store).unwrap();
    let pair = |host: &Host, certificate: &[u8]| {
        let new = NewClient {
            certificate_der: certificate.to_vec(),
            name: "TV".to_owned(),
            remote: "10.0.0.5".parse().unwrap(),
        };
        host.store.add_client(new).unwrap().id
    };
    let television = pair(&old, b"television");
    old.patch(&json!({"limits.sessions": 2}));
    old.ask("PUT", "/apps/Mine", &json!({"display": "pattern"}));
    let path = format!("/apps/{}/art", app_id("Mine").0);
    // Larger than other requests may be, and so is the backup.
    assert_eq!(old.ask_with("PUT", &path, "", PICTURE).status, 200);
    let short = old.ask("POST", "/backup", &json!({"passphrase": "short"}));
    short.is_problem(422, "unfit-passphrase", "12 characters");
    let made = old.ask("POST", "/backup", &json!({"passphrase": PASSPHRASE}));
    assert_eq!((made.status, made.header("cache-control").as_str()), (200, "no-store"));
    let backup = made.body;
    assert!(!backup.windows(10).any(|bytes| bytes == b"television" || bytes == b"sessions\":"));

    let mut new = Host::start("");
    Identity::load_or_create(&new.store).unwrap();
    let before = new.store.identity().unwrap().unwrap().host_id;
    let phone = pair(&new, b"phone");
    restore(&new, "wrong horse battery", &backup).is_problem(422, "wrong-passphrase", "wrong");
    let cut = restore(&new, PASSPHRASE, &backup[..backup.len() - 1]);
    cut.is_problem(422, "wrong-passphrase", "changed");
    restore(&new, PASSPHRASE, b"GIF89a").is_problem(422, "no-backup", "no backup");
    new.ask_with("POST", "/restore", "", b"{}").is_problem(400, "malformed", "first line");
    assert_eq!(new.store.identity().unwrap().unwrap().host_id, before);
    assert!(new.store.client(phone).is_some());

    let restored = restore(&new, PASSPHRASE, &backup);
    let (status, told) = (restored.status, restored.json());
    assert_eq!(
        (status, &told),
        (
            200,
            &json!({
                "made_by": env!("CARGO_PKG_VERSION"), "host_key": true, "console_key": false,
                "settings": 1, "apps": 1, "clients": 1, "client_policies": 1,
                "clients_removed": 1, "restart_needed": true,
            })
        )
    );
    assert_eq!(
        new.store.client(phone),
        None,
        "a device that is not in the backup is still trusted"
    );
    assert_eq!(new.setting("limits.sessions")["value"], 4);
    new.restart();
    assert_eq!(new.setting("limits.sessions")["value"], 2);
    assert!(new.get(&path).body == PICTURE);
    let own = old.store.identity().unwrap().unwrap();
    let brought = new.store.identity().unwrap().unwrap();
    assert_eq!((own.host_id, &*own.private_key_der), (brought.host_id, &*brought.private_key_der));
    // The store itself takes its list of trusted devices up when it is opened.
    let Host { folder, store, sessions, server, runtime, .. } = new;
    runtime.block_on(server.unwrap().stop());
    drop((store, sessions, runtime));
    let store = Store::open(&folder.path().join("state")).unwrap();
    assert!(store.client(television).is_some() && store.client(phone).is_none());
}

#[test]
fn the_document_has_every_method_of_a_path() {
    let document = serde_json::to_value(punktfunk_host::mgmt::document()).unwrap();
    for (path, methods) in [
        ("/settings", ["get", "patch"].as_slice()),
        ("/settings/{key}", &["delete"]),
        ("/settings/reset", &["post"]),
        ("/apps/{title}", &["put", "delete"]),
        ("/apps/{id}/art", &["get", "put"]),
        ("/backup", &["post"]),
        ("/restore", &["post"]),
    ] {
        let item = &document["paths"][format!("/api/v1{path}")];
        for method in methods {
            assert!(item[method]["responses"].is_object(), "{method} {path} is not documented");
        }
    }
}
