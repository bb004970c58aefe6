//! The file that an owner prepared, with the daemon as a process.

use std::fs;
use std::process::{Command, Stdio};

use punktfunk_host::mgmt::client::Client;
use serde_json::json;

use super::daemon::{local, said};
use super::process::{Daemon, House, PASSWORD, PROGRAM};

const SECRET: &str = "5d41402abc4b2a76b9719d911017c592";

#[test]
#[ignore = "needs an unprivileged user"]
fn a_prepared_file_names_the_host_and_claims_it_once() {
    let house = House::new();
    let file = house.path().join("prepared.json");
    let network = json!({"ssid": "the attic", "passphrase": "very secret words"});
    let prepared = json!({"name": "Den", "claim_secret": SECRET, "network": network});
    fs::write(&file, prepared.to_string()).unwrap();
    let start = || -> Daemon {
        let mut command = Command::new(PROGRAM);
        command.stdout(Stdio::null());
        house.start_by("", command, &["--prepared", file.to_str().unwrap()])
    };

    let mut daemon = start();
    assert_eq!(daemon.stage()["stage"], "ready");
    assert_eq!(daemon.ask("/api/v1/landing").json()["name"], "Den");
    assert_eq!(house.shown().unwrap().0, SECRET);
    assert_eq!(waiting(&house).as_deref(), Some("the attic"));
    let told = local(house.path(), "GET", "/status", "").1["problems"].to_string();
    assert!(told.contains("its network waits"), "{told}");
    // It is nobody's who reads a log or what is packed up of it.
    for path in ["/logs?level=trace&limit=1000", "/logs/bundle"] {
        let said = said(house.path(), path);
        assert!(said.len() > 1000, "{path}: {} bytes", said.len());
        assert!(!said.contains("very secret") && !said.contains("the attic"), "{path}");
    }
    // Killed before anybody has claimed it, it is what was prepared all the same.
    daemon.kill();
    let mut daemon = start();
    assert_eq!(daemon.ask("/api/v1/claim").json()["reason"], "prepared");
    assert_eq!(house.shown().unwrap().0, SECRET);
    let ask = json!({"secret": SECRET, "name": "Den", "password": PASSWORD}).to_string();
    assert_eq!(daemon.browser().ask("POST", "/api/v1/claim", &[], &ask).status, 200);
    drop(daemon);

    // The stick stays in the machine: nothing comes back. The network waits for whoever can join it.
    let mut daemon = start();
    assert_eq!(daemon.stage()["stage"], "ready");
    assert_eq!(waiting(&house).as_deref(), Some("the attic"));
    assert_eq!(daemon.ask("/api/v1/landing").json()["claimed"], true);
    assert_eq!(house.shown(), None);
    assert_eq!(daemon.browser().ask("POST", "/api/v1/claim", &[], &ask).code(), "claimed");
}

/// The name of the network that waits to be joined.
fn waiting(house: &House) -> Option<String> {
    let (status, network) = local(house.path(), "GET", "/network", "");
    assert_eq!(status, 200, "{network}");
    let waits = &network["prepared"];
    let says = waits["sentence"].as_str();
    assert!(waits.is_null() || says.unwrap().contains("until this host can join"), "{network}");
    waits["ssid"].as_str().map(str::to_owned)
}

#[test]
#[ignore = "needs an unprivileged user"]
fn a_prepared_file_that_is_wrong_is_told_and_keeps_no_door_closed() {
    let house = House::new();
    let file = house.path().join("prepared.json");
    fs::write(&file, json!({"name": "Den", "claim_secret": "short"}).to_string()).unwrap();
    let mut command = Command::new(PROGRAM);
    command.stdout(Stdio::null());
    let mut daemon = house.start_by("", command, &["--prepared", file.to_str().unwrap()]);
    assert_eq!(daemon.stage()["stage"], "ready");
    let problems = Client::at(&house.socket()).unwrap().status().unwrap().problems;
    assert!(
        problems.iter().any(|problem| problem.contains("is not 32 hex digits")),
        "{problems:?}"
    );
    assert_ne!(house.shown().unwrap().0, "short");
    assert_eq!(waiting(&house), None);
}
