//! Both ends of a connection, with a root's program that is played by hand.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use super::*;
use crate::access::{
    AccessOptions, ChangePassword, ClaimAttempt, Deed, RootError, Wish, WishError,
};
use crate::store::Store;

const PATIENCE: Duration = Duration::from_secs(30);

struct Rig {
    folder: Arc<tempfile::TempDir>,
    runtime: tokio::runtime::Runtime,
    store: Store,
    access: Access,
    problems: Problems,
    /// An address that may change.
    at: Arc<Mutex<&'static str>>,
    attendant: Attendant,
}

impl Rig {
    fn start(of_uid: u32) -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), of_uid)
    }

    fn start_in(folder: Arc<tempfile::TempDir>, of_uid: u32) -> Self {
        Self::start_by(folder, of_uid, RootLine::default())
    }

    fn start_by(folder: Arc<tempfile::TempDir>, of_uid: u32, line: RootLine) -> Self {
        let state = folder.path().join("state");
        let store = Store::open(&state).unwrap();
        let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
        let access = Access::open(store.clone(), options).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let problems = Problems::default();
        let at = Arc::new(Mutex::new("https://[fd00::1]/"));
        let asked = Arc::clone(&at);
        let attending = Attending {
            socket: folder.path().join(SOCKET),
            of_uid,
            access: access.clone(),
            startup: Startup::new(&["finding the plug"]),
            addresses: Arc::new(move || {
                let strange =
                    ["http://box.local", "https://", "https://box\u{1b}[2J", "https://a/b"];
                let good = ["https://box.local:47990/", *asked.lock().unwrap()];
                strange.into_iter().chain(good).map(str::to_owned).collect()
            }),
            fingerprint: "AB:CD".to_owned(),
            problems: problems.clone(),
            pauses: [Duration::from_millis(1), Duration::from_millis(20)],
            look: Duration::from_millis(5),
            line: line.clone(),
        };
        access.with_root(Arc::new(line));
        let entered = runtime.enter();
        let attendant = attending.begin();
        drop(entered);
        Self { folder, runtime, store, access, problems, at, attendant }
    }

    /// The daemon dies and is started again.
    fn restart(self) -> Self {
        let Self { folder, runtime, store, access, problems, at, attendant } = self;
        drop((attendant, problems, at));
        // Waits for what is being written, which a death would cut off.
        drop(runtime);
        drop((access, store));
        let _ = std::fs::remove_file(folder.path().join(SOCKET));
        Self::start_in(folder, Self::own())
    }

    /// How often the claim was armed again.
    fn rearms(&self) -> usize {
        let log = self.access.audit_page(None, 100).unwrap();
        log.iter().filter(|row| row.action == "rearm").count()
    }

    fn own() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    fn listen(&self) -> UnixListener {
        UnixListener::bind(self.folder.path().join(SOCKET)).unwrap()
    }

    /// Waits until what is wrong says this; nothing says that nothing is wrong.
    fn problem_is(&self, says: &str) {
        let until = std::time::Instant::now() + PATIENCE;
        let is_so = || {
            let all = self.problems.all().join(" ");
            if says.is_empty() { all.is_empty() } else { all.contains(says) }
        };
        while !is_so() {
            assert!(std::time::Instant::now() < until, "{says}: {:?}", self.problems.all());
            std::thread::park_timeout(Duration::from_millis(2));
        }
    }

    fn claim(&self, secret: &str) {
        self.access
            .claim(&ClaimAttempt {
                secret,
                name: "Sofa",
                password: "correct horse battery",
                remote: None,
                agent: None,
            })
            .unwrap();
    }
}

/// The attendant's end of a connection.
struct Fake {
    lines: BufReader<UnixStream>,
}

impl Fake {
    fn accept(listener: &UnixListener) -> Self {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self { lines: BufReader::new(stream) }
    }

    fn hear(&mut self) -> Value {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_default()
    }

    fn say(&mut self, line: &Value) {
        writeln!(self.lines.get_mut(), "{line}").unwrap();
    }
}

#[test]
fn the_claim_is_told_and_whoever_is_at_the_machine_gets_a_new_one() {
    let rig = Rig::start(Rig::own());
    rig.problem_is("does not answer");
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    assert_eq!(claim["say"], "claim");
    assert_eq!(claim["names"], json!(["https://box.local:47990", "https://[fd00::1]"]));
    assert_eq!(claim["fingerprint"], "abcd");
    assert_eq!(claim["token"].as_str().unwrap().len(), 32);
    fake.say(&json!({ "say": "hello", "schema": 1 }));
    rig.problem_is("");

    rig.claim(claim["code"].as_str().unwrap());
    assert_eq!(fake.hear(), json!({ "say": "claimed" }));
    let owner = fake.hear();
    let verifier = rig.access.proof_verifier().unwrap();
    assert_eq!(
        owner,
        json!({ "say": "owner", "salt": hex(&verifier.salt()), "key": hex(&verifier.key()) })
    );
    fake.say(&json!({ "say": "owner-refused", "reason": "it keeps\u{1b} another" }));
    rig.problem_is("(it keeps another)");
    let nonce = "06".repeat(32);
    let another = json!({ "say": "owner-kept", "key": "07".repeat(32), "nonce": nonce });
    fake.say(&another);
    fake.say(&json!({ "say": "owner-kept", "key": "ab", "nonce": nonce }));
    fake.say(&json!({ "say": "owner-kept" }));
    fake.say(&json!({ "say": "owner-refused", "reason": "still another" }));
    rig.problem_is("(still another)");
    fake.say(&json!({ "say": "owner-kept", "key": owner["key"], "nonce": nonce }));
    rig.problem_is("");

    // What is not understood is passed over.
    for nonsense in [json!({ "say": "of tomorrow" }), json!([1]), json!({ "say": "presence" })] {
        fake.say(&nonsense);
    }
    fake.say(&json!({ "say": "presence", "by": "telepathy" }));
    fake.say(&json!({ "say": "presence", "by": "reset-file", "digest": "ab" }));
    fake.say(&json!({ "say": "presence", "by": "power-button" }));
    assert_eq!(fake.hear(), taken());
    let again = fake.hear();
    assert_eq!(again["say"], "claim");
    assert_ne!(again["token"], claim["token"]);
    assert!(!rig.access.is_claimed());

    // A file counts once.
    fake.say(&file());
    assert_eq!(fake.hear(), taken());
    let by_file = fake.hear();
    assert_ne!(by_file["token"], again["token"]);
    rig.claim(by_file["token"].as_str().unwrap());
    assert_eq!(
        (fake.hear()["say"].clone(), fake.hear()["say"].clone()),
        (json!("claimed"), json!("owner"))
    );
    fake.say(&file());
    assert_eq!(fake.hear(), taken(), "it was used before, so that is done with too");
    drop(fake);
    let mut fake = Fake::accept(&listener);
    assert_eq!(fake.hear()["say"], "claimed", "it is somebody's still");
}

fn taken() -> Value {
    json!({ "say": "presence-taken" })
}

fn file() -> Value {
    json!({ "say": "presence", "by": "reset-file", "digest": "ab".repeat(32) })
}

#[test]
fn a_claim_that_cannot_be_armed_again_is_told_and_tried_once_more() {
    let rig = Rig::start(Rig::own());
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    rig.store.strike_for_test(crate::store::Struck::Change);
    fake.say(&file());
    rig.problem_is("could not be armed");
    assert_eq!(rig.rearms(), 0);
    // It has not been taken, so it is said again with the next connection.
    drop(fake);
    let mut fake = Fake::accept(&listener);
    assert_eq!(fake.hear(), claim);
    fake.say(&json!({ "say": "hello" }));
    fake.say(&file());
    assert_eq!(fake.hear(), taken());
    assert_ne!(fake.hear()["token"], claim["token"]);
    rig.problem_is("");
    assert_eq!(rig.rearms(), 1);
}

#[test]
fn a_cut_while_the_claim_is_armed_again_arms_it_once() {
    let mut rig = Rig::start(Rig::own());
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    rig.claim(claim["code"].as_str().unwrap());
    assert_eq!(fake.hear()["say"], "claimed");
    // The connection is lost with the word, and then the daemon is, whether it has acted on it or not.
    fake.say(&file());
    drop((fake, listener));
    for _ in 0..2 {
        rig = rig.restart();
        let listener = rig.listen();
        let mut fake = Fake::accept(&listener);
        let before = fake.hear();
        assert!(before["say"] == "claim" || before["say"] == "claimed", "{before}");
        fake.say(&file());
        while fake.hear() != taken() {}
        assert!(!rig.access.is_claimed());
        assert_eq!(rig.rearms(), 1);
    }
}

#[test]
fn an_address_that_comes_later_is_shown_for_as_long_as_there_is_a_claim() {
    let rig = Rig::start(Rig::own());
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    *rig.at.lock().unwrap() = "https://192.0.2.7/";
    let later = fake.hear();
    assert_eq!(later["names"], json!(["https://box.local:47990", "https://192.0.2.7"]));
    assert_eq!(later["token"], claim["token"]);
}

#[test]
fn a_connection_that_is_lost_is_made_again_and_all_is_told_again() {
    let rig = Rig::start(Rig::own());
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    drop(fake);
    let mut fake = Fake::accept(&listener);
    assert_eq!(fake.hear(), claim);
    // A line that never ends.
    fake.lines.get_mut().write_all(&[b'x'; MAX_LINE_BYTES]).unwrap();
    let mut fake = Fake::accept(&listener);
    assert_eq!(fake.hear(), claim);
    rig.problem_is("more than 4096 bytes");
    fake.say(&json!({ "say": "hello" }));
    rig.problem_is("");
    drop((fake, listener));
    rig.problem_is("does not answer");
    rig.runtime.shutdown_background();
}

#[test]
fn root_is_told_what_vouches_for_another_password_until_it_keeps_the_key() {
    let rig = Rig::start(Rig::own());
    rig.problem_is("does not answer");
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    rig.claim(claim["code"].as_str().unwrap());
    assert_eq!(fake.hear()["say"], "claimed");
    let owner = fake.hear();
    let kept = |key: &Value| json!({ "say": "owner-kept", "key": key, "nonce": "06".repeat(32) });
    fake.say(&kept(&owner["key"]));
    fake.say(&json!({ "say": "hello" }));
    let vouched = || rig.access.proof_verifier().map(|verifier| hex(&verifier.key()));
    rig.problem_is("");
    let change = |old, new| {
        let change = ChangePassword { old, new, own: None, remote: None, keep_tokens: true };
        rig.access.change_password(&change).unwrap();
    };
    // Root's program is not there; what it said has been heard before it went.
    drop((fake, listener));
    rig.problem_is("does not answer");
    std::fs::remove_file(rig.folder.path().join(SOCKET)).unwrap();
    change("correct horse battery", "another password");
    change("another password", "a third password");
    rig.problem_is("an older password still");

    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    assert_eq!(fake.hear()["say"], "claimed");
    let told = fake.hear();
    assert_eq!(
        (&told["say"], told["links"].as_array().unwrap().len()),
        (&json!("replace-owner"), 2)
    );
    assert_eq!(told["links"][1]["key"].as_str().map(str::to_owned), vouched());
    assert_eq!(told["links"][0]["proof"].as_str().unwrap().len(), 128);
    // Root's answer is lost; it is told all of it again.
    drop(fake);
    let mut fake = Fake::accept(&listener);
    assert_eq!((fake.hear()["say"].clone(), fake.hear()), (json!("claimed"), told.clone()));
    fake.say(&json!({ "say": "hello" }));
    fake.say(&json!({ "say": "owner-refused", "reason": "does not vouch" }));
    rig.problem_is("(does not vouch)");
    fake.say(&kept(&told["links"][1]["key"]));
    rig.problem_is("");
    // From now on it is the key, and no chain.
    assert_eq!(
        (fake.hear()["say"].clone(), fake.hear()["say"].clone()),
        (json!("claimed"), json!("owner"))
    );
}

fn wish<'a>(deed: Deed, password: &'a str) -> Wish<'a> {
    Wish { deed, password, own: None, remote: None }
}

/// Root's end of a proof: keeps the owner's key, and answers what is asked with these lines.
fn root_says(fake: &mut Fake, owner: &Value, verb: &str, then: &Value) -> Value {
    let asked = fake.hear();
    assert_eq!((&asked["say"], &asked["verb"]), (&json!("ask-proof"), &json!(verb)));
    let (salt, key) = (&owner["salt"], &owner["key"]);
    let nonce = "05".repeat(32);
    fake.say(&json!({ "say": "proof-asked", "nonce": nonce, "salt": salt, "key": key }));
    let brought = fake.hear();
    assert_eq!(brought["say"], "bring-proof");
    assert_eq!((&brought["verb"], &brought["nonce"]), (&asked["verb"], &json!(nonce)));
    assert_eq!(brought["proof"].as_str().unwrap().len(), 128);
    fake.say(then);
    brought
}

fn owned() -> (Rig, UnixListener, Fake, Value) {
    claimed(Rig::start(Rig::own()))
}

fn claimed(rig: Rig) -> (Rig, UnixListener, Fake, Value) {
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    let claim = fake.hear();
    rig.claim(claim["code"].as_str().unwrap());
    assert_eq!(fake.hear()["say"], "claimed");
    let owner = fake.hear();
    (rig, listener, fake, owner)
}

#[test]
fn what_the_owner_wants_is_proved_over_the_same_line() {
    let (rig, _listener, mut fake, owner) = owned();
    let prove = |deed, password: &'static str| {
        let access = rig.access.clone();
        std::thread::spawn(move || access.prove(&wish(deed, password)))
    };
    let right = "correct horse battery";
    let back = Deed::RollbackBelowFloor { commit: [0xc1; 32] };
    let proving = prove(back, right);
    let verb = "rollback-below-floor";
    let brought = root_says(&mut fake, &owner, verb, &json!({ "say": "proof-taken" }));
    assert_eq!(brought["commit"], "c1".repeat(32));
    assert!(!proving.join().unwrap().unwrap(), "it is no simulation");

    // A wrong password reaches nobody.
    let wrong = prove(Deed::FactoryReset, "another password").join().unwrap();
    assert!(matches!(wrong, Err(WishError::Password(_))), "{wrong:?}");
    let refused = |why: &str| json!({ "say": "proof-refused", "why": why });
    for (why, want) in [
        ("needs-presence", RootError::Presence),
        ("not-kept", RootError::NotKept),
        ("signature", RootError::Proof),
    ] {
        let proving = prove(Deed::FactoryReset, right);
        root_says(&mut fake, &owner, "factory-reset", &refused(why));
        let came = proving.join().unwrap();
        assert!(matches!(came, Err(WishError::Root(got)) if got == want), "{why}: {came:?}");
    }
    // Root keeps nobody's key, or another's: no proof is made then.
    for (says, is_so) in [
        (refused("no-key"), RootError::NoKey.to_string()),
        (
            json!({ "say": "proof-asked", "nonce": "05".repeat(32), "salt": "07".repeat(16),
                    "key": owner["key"] }),
            WishError::OtherKey.to_string(),
        ),
        (
            json!({ "say": "proof-asked", "nonce": "05", "salt": "", "key": "" }),
            RootError::Proof.to_string(),
        ),
    ] {
        let proving = prove(back, right);
        assert_eq!(fake.hear()["say"], "ask-proof");
        fake.say(&says);
        assert_eq!(proving.join().unwrap().unwrap_err().to_string(), is_so);
    }
}

#[test]
fn who_asks_is_told_when_there_is_no_answer() {
    let (rig, listener, mut fake, owner) = owned();
    let prove = || {
        let access = rig.access.clone();
        let right = "correct horse battery";
        std::thread::spawn(move || access.prove(&wish(Deed::FactoryReset, right)))
    };
    let is_absent = |came: std::thread::Result<Result<bool, WishError>>| {
        matches!(came.unwrap(), Err(WishError::Root(RootError::Absent)))
    };
    // The connection is lost with the question, and then with the proof.
    let proving = prove();
    fake.hear();
    drop(fake);
    assert!(is_absent(proving.join()));
    let mut fake = Fake::accept(&listener);
    assert_eq!((fake.hear()["say"].clone(), fake.hear()), (json!("claimed"), owner.clone()));
    let proving = prove();
    assert_eq!(fake.hear()["say"], "ask-proof");
    let (salt, key) = (&owner["salt"], &owner["key"]);
    fake.say(&json!({ "say": "proof-asked", "nonce": "05".repeat(32), "salt": salt, "key": key }));
    fake.hear();
    drop((fake, listener));
    assert!(is_absent(proving.join()));
    rig.problem_is("does not answer");
    assert!(is_absent(prove().join()), "there is no connection");
}

#[test]
fn a_question_that_is_not_answered_ends_the_connection() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let line = RootLine::within(Duration::from_millis(20));
    let (rig, listener, mut fake, _) = claimed(Rig::start_by(folder, Rig::own(), line));
    let came = rig.access.prove(&wish(Deed::FactoryReset, "correct horse battery"));
    assert!(matches!(came, Err(WishError::Root(RootError::Absent))), "{came:?}");
    assert_eq!(fake.hear()["say"], "ask-proof");
    assert_eq!(fake.hear(), Value::Null, "a late answer would be taken for another's");
    assert_eq!(Fake::accept(&listener).hear()["say"], "claimed");
    rig.problem_is("it gives no answer");
}

#[test]
fn presses_that_a_reset_waits_for_do_not_take_the_owner_away() {
    let (rig, _listener, mut fake, owner) = owned();
    let prove = || {
        let access = rig.access.clone();
        let right = "correct horse battery";
        std::thread::spawn(move || access.prove(&wish(Deed::FactoryReset, right)))
    };
    let proving = prove();
    let absent = json!({ "say": "proof-refused", "why": "needs-presence" });
    root_says(&mut fake, &owner, "factory-reset", &absent);
    assert!(proving.join().unwrap().is_err());
    for seen in [json!({ "say": "presence", "by": "power-button" }), file()] {
        fake.say(&seen);
        assert_eq!(fake.hear(), taken());
        assert!(rig.access.is_claimed() && rig.rearms() == 0);
    }
    let proving = prove();
    root_says(&mut fake, &owner, "factory-reset", &json!({ "say": "proof-taken" }));
    assert!(!proving.join().unwrap().unwrap());
    // It waits for nobody any more.
    fake.say(&json!({ "say": "presence", "by": "power-button" }));
    assert_eq!(fake.hear(), taken());
    assert!(!rig.access.is_claimed());
}

#[test]
fn nobody_but_root_is_told_anything() {
    let rig = Rig::start(Rig::own() ^ 1);
    let listener = rig.listen();
    let mut fake = Fake::accept(&listener);
    assert_eq!(fake.hear(), Value::Null);
    rig.problem_is("not root's");
}
