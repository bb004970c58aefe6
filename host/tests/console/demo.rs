//! A host that shows a simulated machine: its switch does what a real one's would, and to nothing real.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::kill::{change, demonstrate, get, system};
use super::process::{Daemon, House, PASSWORD, PROGRAM};

/// How often the simulated machine has started.
fn starts(house: &House) -> u64 {
    let disk = fs::read(house.state().join("simulated-system.json")).unwrap_or_default();
    // It is written when something changes first.
    serde_json::from_slice::<Value>(&disk).map_or(1, |disk| disk["boot"].as_u64().unwrap())
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_simulated_machine_is_switched_and_the_log_says_by_whom() {
    let (house, owner) = House::owned();
    let mut daemon = demonstrate(&house);
    let report = get(&mut daemon, &owner, "/power");
    assert_eq!(report["simulated"], true, "{report}");
    for verb in ["restart", "shutdown", "sleep"] {
        assert_eq!(report[verb], json!({"available": true}), "{verb}");
        let before = starts(&house);
        let path = format!("/power/{verb}");
        let stranger = daemon.browser().ask("POST", &format!("/api/v1{path}"), &[], "{}");
        assert_eq!((stranger.status, starts(&house)), (401, before), "{verb}");
        assert_eq!(change(&mut daemon, &owner, "POST", &path, &json!({})).0, 202);
        assert_eq!(starts(&house), before + u64::from(verb != "sleep"), "{verb}");
        let log = get(&mut daemon, &owner, "/audit?limit=1");
        let newest = (&log[0]["actor"], &log[0]["action"]);
        assert_eq!(newest, (&json!("owner"), &json!(format!("POST {path}"))), "{log}");
    }
    assert_eq!(daemon.stage()["stage"], "ready", "the daemon itself runs on");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_demonstration_fails_as_its_script_says() {
    let (house, owner) = House::owned();
    let script = house.state().join("simulated-script.json");
    let mishaps = json!([{"call": "check", "how": "unreachable"}]);
    fs::write(&script, json!({"instant": true, "mishaps": mishaps}).to_string()).unwrap();
    let mut daemon = demonstrate(&house);
    let ask = |daemon: &mut Daemon| change(daemon, &owner, "POST", "/os/check", &json!({})).0;
    system(&mut daemon, &owner, |report| report["phase"]["name"] == "idle");
    assert_eq!(ask(&mut daemon), 202);
    system(&mut daemon, &owner, |report| report["problem"]["code"] == "unreachable");
    assert_eq!(ask(&mut daemon), 202);
    system(&mut daemon, &owner, |report| report["offered"]["version"] == "1.5.0");
    drop(daemon);

    fs::write(&script, "{").unwrap();
    let mut daemon = demonstrate(&house);
    let problems = get(&mut daemon, &owner, "/status")["problems"].to_string();
    assert!(problems.contains("simulated-script.json is no script"), "{problems}");
}

#[test]
#[ignore = "needs an unprivileged user"]
fn the_machine_of_a_desk_is_not_switched() {
    let (house, owner) = House::owned();
    let mut command = Command::new(PROGRAM);
    command.stdout(Stdio::null());
    let mut daemon = house.start_by("", command, &[]);
    assert_eq!(daemon.stage()["stage"], "ready");
    let report = get(&mut daemon, &owner, "/power");
    assert_eq!(
        (&report["simulated"], &report["restart"]["available"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(change(&mut daemon, &owner, "POST", "/power/restart", &json!({})).0, 503);
    assert!(!get(&mut daemon, &owner, "/audit").to_string().contains("POST /power"));
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_simulated_machine_is_reset_and_says_that_nothing_was_forgotten() {
    let (house, owner) = House::owned();
    let mut daemon = demonstrate(&house);
    system(&mut daemon, &owner, |report| report["phase"]["name"] == "idle");
    let before = starts(&house);
    let mut reset = |password: &str| {
        let body = json!({ "password": password });
        change(&mut daemon, &owner, "POST", "/os/factory-reset", &body)
    };
    let (status, begun) = reset(PASSWORD);
    assert_eq!((status, &begun["simulated"]), (202, &json!(true)), "{begun}");
    assert!(begun["detail"].as_str().unwrap().contains("nothing was forgotten"), "{begun}");
    assert_eq!((starts(&house), reset("another password").0), (before + 1, 401));
    assert_eq!(starts(&house), before + 1);
    let log = get(&mut daemon, &owner, "/audit?limit=1");
    assert_eq!(log[0]["action"], "POST /os/factory-reset", "the owner is the owner still: {log}");
}
