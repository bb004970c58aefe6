//! What needs the owner's proof, over the router: a root's program that checks proofs and is told who is at the machine.

use punktfunk_host::access::{
    Access, AccessOptions, Asked, ClaimAttempt, Deed, OwnerProof, Presence, ProofError,
    ProofVerifier, Root, RootError,
};
use punktfunk_host::mgmt::wire::ResetBegun;

use super::*;

const PASSWORD: &str = "correct horse battery";

/// Root's program, as far as the daemon sees it.
struct Program {
    kept: Mutex<ProofVerifier>,
    present: Mutex<Option<Presence>>,
    fails: Mutex<Option<RootError>>,
    done: Mutex<Vec<Deed>>,
}

impl Root for Program {
    fn ask(&self, deed: Deed) -> Result<Asked, RootError> {
        if let Some(error @ (RootError::Absent | RootError::NoKey)) = *self.fails.lock().unwrap() {
            return Err(error);
        }
        let mut kept = self.kept.lock().unwrap();
        let nonce = kept.challenge(deed.verb(), deed.digest(), [3; 32]);
        Ok(Asked { salt: kept.salt(), key: kept.key(), nonce })
    }

    fn bring(&self, deed: Deed, proof: &OwnerProof) -> Result<(), RootError> {
        let present = self.present.lock().unwrap().clone();
        let mut kept = self.kept.lock().unwrap();
        let verified = kept.verify(proof, deed.verb(), deed.digest(), present.as_ref());
        verified.map_err(|error| match error {
            ProofError::Presence => RootError::Presence,
            _ => RootError::Proof,
        })?;
        if let Some(error) = *self.fails.lock().unwrap() {
            return Err(error);
        }
        self.done.lock().unwrap().push(deed);
        Ok(())
    }
}

/// A machine that is somebody's.
fn owned() -> (Machine, Arc<Program>) {
    let mut machine = Machine::new();
    let state = machine.folder.path().join("owner");
    let store = Store::open(&state).unwrap();
    let options = AccessOptions::of_machine(state).dangerous_with_cheap_hashes();
    let access = Access::open(store.clone(), options).unwrap();
    let code = store.claim().unwrap().unwrap().code.clone();
    let (name, remote, agent) = ("Sofa", None, None);
    let claim = ClaimAttempt { secret: &code, name, password: PASSWORD, remote, agent };
    access.claim(&claim).unwrap();
    let program = Arc::new(Program {
        kept: Mutex::new(access.proof_verifier().unwrap()),
        present: Mutex::default(),
        fails: Mutex::default(),
        done: Mutex::default(),
    });
    access.with_root(program.clone());
    machine.access = Some(access);
    (machine, program)
}

const RESET: &str = "/os/factory-reset";

fn body(password: &str, insist: bool) -> String {
    serde_json::json!({ "password": password, "insist": insist }).to_string()
}

#[test]
fn a_reset_needs_the_password_and_somebody_there_and_then_the_machine_restarts() {
    let (mut machine, program) = owned();
    let power = Arc::new(CountingPower::default());
    machine.power = power.clone();
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    let good = body(PASSWORD, false);
    let check = |body: &str, status: u16, code: &str, says: &str| {
        let (got, found, detail) = daemon.refused(RESET, body);
        assert_eq!((got, found.as_str()), (status, code), "{detail}");
        assert!(detail.contains(says), "{detail}");
    };
    check("", 400, "malformed", "password");
    check(r#"{"password":"x","also":1}"#, 400, "malformed", "also");
    check(&body("another password", false), 401, "wrong-password", "not the password");
    check(&good, 409, "needs-presence", "press its power button three times");
    *program.present.lock().unwrap() = Some(Presence::PowerButton);
    for (error, status, code, says) in [
        (RootError::Absent, 503, "unavailable", "does not answer"),
        (RootError::NoKey, 409, "no-owner-key", "keeps no key"),
        (RootError::NotKept, 500, "failed", "whether the disk is full"),
    ] {
        *program.fails.lock().unwrap() = Some(error);
        check(&good, status, code, says);
    }
    *program.fails.lock().unwrap() = None;
    machine.play(&["TV"]);
    check(&good, 409, "someone-streams", "TV would be cut off");
    assert!(program.done.lock().unwrap().is_empty() && power.0.lock().unwrap().is_empty());

    let (status, text) = daemon.call("POST", RESET, &body(PASSWORD, true));
    let begun: ResetBegun = serde_json::from_str(&text).unwrap();
    assert!(status == 202 && !begun.simulated && begun.detail.contains("forgets"), "{text}");
    assert_eq!(*program.done.lock().unwrap(), [Deed::FactoryReset]);
    assert_eq!(*power.0.lock().unwrap(), [PowerVerb::Restart]);
}

/// A switch that is stuck.
struct Stuck;

impl Power for Stuck {
    fn unable(&self, _verb: PowerVerb) -> Option<String> {
        None
    }

    fn switch(&self, verb: PowerVerb) -> Result<(), PowerError> {
        Err(PowerError::Failed { verb, detail: "it is stuck".to_owned() })
    }
}

#[test]
fn a_reset_that_is_noted_is_told_though_the_machine_does_not_restart() {
    let (mut machine, program) = owned();
    *program.present.lock().unwrap() = Some(Presence::PowerButton);
    machine.power = Arc::new(Stuck);
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    let (status, code, detail) = daemon.refused(RESET, &body(PASSWORD, false));
    assert_eq!((status, code.as_str()), (500, "failed"));
    assert!(detail.starts_with("everything is forgotten at the next start, but "), "{detail}");
    assert_eq!(program.done.lock().unwrap().len(), 1);
}

#[test]
fn what_cannot_restart_is_not_reset_and_neither_is_what_nobody_looks_after() {
    let (machine, program) = owned();
    *program.present.lock().unwrap() = Some(Presence::PowerButton);
    let refused = machine.start(demonstration()).refused(RESET, &body(PASSWORD, false));
    assert_eq!((refused.0, refused.1.as_str()), (503, "unavailable"));
    assert!(program.done.lock().unwrap().is_empty());
    let mut nobodys = Machine::new();
    nobodys.power = Arc::new(CountingPower::default());
    let refused = nobodys.start(demonstration()).refused(RESET, &body(PASSWORD, false));
    assert_eq!((refused.0, refused.1.as_str()), (503, "unavailable"));
}

#[test]
fn going_back_below_the_floor_takes_the_password_and_permits_that_version_alone() {
    let (machine, program) = owned();
    machine.disk.lock().unwrap().floor = "1.4.2".parse().unwrap();
    let daemon = machine.start(demonstration());
    let previous = daemon.wait_idle().previous.unwrap();
    let ask = |password: Option<&str>| {
        let body = serde_json::json!({ "when": "now", "password": password });
        daemon.call("POST", "/os/rollback", &body.to_string())
    };
    let refused = |password, status: u16, code: &str| {
        let (got, text) = ask(password);
        let problem: ProblemDetails = serde_json::from_str(&text).unwrap();
        assert_eq!((got, problem.code.as_str()), (status, code), "{text}");
    };
    refused(None, 409, "needs-owner-proof");
    refused(Some("another password"), 401, "wrong-password");
    *program.fails.lock().unwrap() = Some(RootError::NotKept);
    refused(Some(PASSWORD), 500, "failed");
    assert!(program.done.lock().unwrap().is_empty());
    *program.fails.lock().unwrap() = None;
    assert_eq!(daemon.report().phase, OsPhase::Idle);

    let (status, text) = ask(Some(PASSWORD));
    assert_eq!(status, 202, "{text}");
    let [Deed::RollbackBelowFloor { commit }] = program.done.lock().unwrap()[..] else { panic!() };
    assert_eq!(punktfunk_host::os::Digest(commit).to_string(), previous.digest);
    let back = daemon.wait(|report| report.banner.is_some());
    assert_eq!(back.running.unwrap().version, previous.version);
}

#[test]
fn a_password_that_is_not_needed_is_not_looked_at() {
    let (machine, program) = owned();
    let daemon = machine.start(demonstration());
    daemon.wait_idle();
    daemon.ask("/os/rollback", r#"{"when":"now","password":"whatever it is"}"#);
    daemon.wait(|report| report.banner.is_some());
    assert!(program.done.lock().unwrap().is_empty());
}
