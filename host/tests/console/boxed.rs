//! The daemon of a box: what root's program says of the system is told to the owner, and that it cannot be asked.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};

use super::process::{Daemon, House, Owner, PASSWORD, PATIENCE, PROGRAM};

/// What root's program says: version 0.2.0 runs, and these were tried.
fn say(folder: &Path, attempts: &Value) {
    let commit = |digit: &str| digit.repeat(64);
    let word = json!({
        "schema": 1, "boot_id": "b", "counted": null, "attempts": attempts, "bad": [],
        "deployments": [
            { "commit": commit("b"), "version": "0.2.0", "made_at": 7, "role": "booted", "pinned": false },
            { "commit": commit("a"), "version": "0.1.0", "made_at": 6, "role": "pristine", "pinned": true },
        ],
        "free_bytes": 1_000_000, "presence_at": null, "remarks": ["the fan is loud"],
    });
    fs::write(folder.join("part"), word.to_string()).unwrap();
    fs::rename(folder.join("part"), folder.join("status.json")).unwrap();
}

fn attempt(number: u64, reason: &str) -> Value {
    json!({
        "number": number, "commit": "c".repeat(64), "version": "0.3.0", "from": "0.2.0",
        "outcome": { "is": "failed", "reason": reason, "log": ["encoder: gone"],
                     "checks": [{ "name": "self-test", "passed": false, "detail": "launch: 503" }] },
    })
}

fn ask(daemon: &mut Daemon, owner: &Owner, path: &str) -> Value {
    daemon.browser().ask("GET", path, &[&owner.cookie], "").json()
}

#[test]
#[ignore = "needs an unprivileged user"]
fn what_roots_program_left_again_is_told_with_its_checks_and_its_log() {
    let (house, owner) = House::owned();
    let system = house.path().join("system");
    fs::create_dir(&system).unwrap();
    let first = attempt(1, "the console was silent");
    say(&system, &json!([first]));
    let mut command = Command::new(PROGRAM);
    // A bus on which nobody answers.
    command.env("DBUS_SYSTEM_BUS_ADDRESS", format!("unix:path={}/no-bus", system.display()));
    command.stdout(Stdio::null());
    let options = ["--system-dir", system.to_str().unwrap()];
    let mut daemon = house.start_by("appliance = true\n", command, &options);
    assert_eq!(daemon.stage()["stage"], "ready");
    let until = |daemon: &mut Daemon, is_so: &dyn Fn(&Value) -> bool| {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let os = ask(daemon, &owner, "/api/v1/os");
            if is_so(&os) {
                return os;
            }
            assert!(Instant::now() < deadline, "{os:#}");
            std::thread::park_timeout(std::time::Duration::from_millis(5));
        }
    };
    let os = until(&mut daemon, &|os| os["phase"]["name"] == "idle");
    assert_eq!((&os["appliance"], &os["simulated"]), (&json!(true), &json!(false)));
    assert_eq!(os["running"]["version"], "0.2.0");
    assert_eq!(os["deployments"][1]["role"], "pristine");
    // What was before the database was made is nobody's news, and can be read all the same.
    assert_eq!(os["banner"], Value::Null);
    let past = &os["attempts"][0];
    assert_eq!(
        (&past["outcome"], &past["reason"]),
        (&json!("failed"), &json!("the console was silent"))
    );
    assert_eq!(
        (&past["log"][0], &past["checks"][0]["detail"]),
        (&json!("encoder: gone"), &json!("launch: 503"))
    );

    say(&system, &json!([first, attempt(2, "the self-test was red")]));
    let os = until(&mut daemon, &|os| os["banner"] != Value::Null);
    let banner = &os["banner"];
    assert_eq!((&banner["kind"], &banner["version"]), (&json!("rolled-back"), &json!("0.3.0")));
    assert_eq!(
        (&banner["reason"], &banner["log"][0]),
        (&json!("the self-test was red"), &json!("encoder: gone"))
    );

    let history = ask(&mut daemon, &owner, "/api/v1/os/history");
    assert_eq!(history.as_array().unwrap().len(), 1, "{history}");
    assert_eq!(
        (&history[0]["what"], &history[0]["simulated"]),
        (&json!("rolled-back"), &json!(false))
    );
    let begun = daemon.browser().ask("POST", "/api/v1/os/check", &owner.lines(), "{}");
    assert_eq!(begun.status, 202);
    let os =
        until(&mut daemon, &|os| os["problem"] != Value::Null && os["phase"]["name"] == "idle");
    assert_eq!(os["problem"]["code"], "failed");
    let sentence = os["problem"]["sentence"].as_str().unwrap();
    assert!(sentence.contains("the system's bus does not answer"), "{sentence}");
    let problems = ask(&mut daemon, &owner, "/api/v1/status")["problems"].to_string();
    assert!(problems.contains("the fan is loud"), "{problems}");
    assert!(problems.contains("the box's own program does not answer"), "{problems}");
    assert_eq!(ask(&mut daemon, &owner, "/api/v1/power")["streaming"], json!([]));

    // What only root does is not done where root's program does not answer.
    let password = json!({ "password": PASSWORD }).to_string();
    let path = "/api/v1/os/factory-reset";
    let refused = daemon.browser().ask("POST", path, &owner.lines(), &password);
    assert_eq!((refused.status, refused.code().as_str()), (503, "unavailable"), "{refused:?}");
}
