//! The doctor's checks on the machine that runs the tests: what they say works has delivered.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod agents;

use std::net::TcpListener;
use std::sync::Arc;

use punktfunk_host::health::{Diagnosis, Door, Examined, Finding, Surroundings, checks};

#[test]
#[ignore = "needs sway and an unprivileged user"]
fn every_room_of_this_machine_delivers() {
    let folder = tempfile::tempdir().expect("a folder");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let free = listener.local_addr().expect("it has an address").port();
    drop(listener);
    let around = Surroundings {
        state_dir: folder.path().to_owned(),
        agents: Arc::new(agents::starter(folder.path())),
        doors: vec![Door::Http(free), Door::Udp(free)],
        console: free,
        listen: [127, 0, 0, 1].into(),
        announced: None,
        running: false,
    };
    let found: Vec<Examined> = checks()
        .into_iter()
        .map(|check| Examined { finding: check.run(&around), check: check.name })
        .collect();
    let of = |name: &str| {
        let examined = found.iter().find(|examined| examined.check == name);
        &examined.unwrap_or_else(|| panic!("no check {name}")).finding
    };
    for name in ["display:pattern", "encoder:x264", "input:sway", "sound:opus", "store", "network"]
    {
        assert!(of(name).works(), "{name}: {}", of(name));
    }
    let Finding::Works { evidence } = of("display:sway") else { panic!("{}", of("display:sway")) };
    assert!(evidence.contains("640x360") && evidence.contains("sway version"), "{evidence}");
    // Agents of the same user keep nothing apart, and nobody says that they do.
    assert!(matches!(of("isolation"), Finding::Missing { .. }), "{}", of("isolation"));
    assert!(Diagnosis::of(found, false).stream_possible);
}
