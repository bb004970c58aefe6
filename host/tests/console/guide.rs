//! The owner's guide, command by command, against a daemon: what stands there can be typed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::{JoinHandle, park_timeout};
use std::time::{Duration, Instant};

use punktfunk_host::selftest::device::Device;

use super::kill::ask_for_pairing;
use super::process::{House, PASSWORD, PATIENCE};

const PASSPHRASE: &str = "a passphrase that is long";
/// The section whose last command goes to a host that has forgotten everything.
const LOST: &str = "\n## The password is lost\n";

/// The shell blocks of a text, in their order, also those in lists.
fn blocks(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut indent = None;
    for line in text.lines() {
        let bare = line.trim_start();
        match indent {
            None if bare == "```sh" => {
                found.push(String::new());
                indent = Some(line.len() - bare.len());
            }
            Some(_) if bare == "```" => indent = None,
            Some(depth) => {
                let block = found.last_mut().unwrap();
                block.push_str(line.get(depth..).unwrap_or_default());
                block.push('\n');
            }
            None => {}
        }
    }
    found
}

/// The same with the reader's own values in the place of the guide's examples.
fn filled_in(script: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(script.to_owned(), |script, (name, value)| {
        let start = format!("{name}=");
        let mut count = 0;
        let line = |line: &str| {
            let is_it = line.starts_with(&start);
            count += usize::from(is_it);
            if is_it { format!("{start}{value}\n") } else { format!("{line}\n") }
        };
        let filled = script.lines().map(line).collect();
        assert_eq!(count, 1, "the guide sets {name} in one place");
        filled
    })
}

/// What the commands print; all of them must succeed. What they read is typed.
fn run(folder: &Path, script: &str, typed: &str) -> String {
    let mut shell = Command::new("bash")
        .args(["-euo", "pipefail", "-c", script])
        .current_dir(folder)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = shell.wait_with_output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{script}\n\n{said}");
    said
}

/// A device that is told to pair again and again, until somebody types its PIN.
fn device(http: u16) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let device = Device::stock().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut said = String::new();
            ask_for_pairing(http, &device).read_to_string(&mut said).unwrap();
            if said.contains("<plaincert>") {
                return;
            }
            assert!(Instant::now() < deadline, "nobody types the PIN: {said}");
            park_timeout(Duration::from_millis(20));
        }
    })
}

#[test]
#[ignore = "needs an unprivileged user"]
fn whatever_the_guide_says_can_be_typed() {
    let guide = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/guide/owner.md");
    let guide = fs::read_to_string(guide).unwrap();
    let (before, lost) = guide.split_once(LOST).unwrap();
    let (mut first, mut last) = (blocks(before), blocks(lost));
    let local = first[0].clone();
    assert_eq!((first.len(), last.len()), (15, 2), "a block came or went; this test is to know");
    // Homes are where the launcher is; `tests/homes.rs` makes these calls.
    first.retain(|block| !block.contains("/api/v1/homes/"));
    assert_eq!(first.len(), 13);

    let house = House::new();
    let mut daemon = house.start("");
    assert_eq!(daemon.stage()["stage"], "ready");
    let asking = device(daemon.http);
    let restore = last.pop().unwrap();
    first.extend(last);
    let (code, socket) = (house.shown().unwrap().1, house.socket().display().to_string());
    let console = daemon.console.to_string();
    let values = [("SOCKET", &*socket), ("HOST", &console), ("SECRET", &code)];
    let typed = format!("{PASSWORD}\n{PASSPHRASE}\n{PASSPHRASE}\n");
    let said = run(house.path(), &filled_in(&first.concat(), &values), &typed);
    asking.join().unwrap();
    let landing = daemon.ask("/api/v1/landing").json();
    for text in [
        landing["fingerprint"].as_str().unwrap(),
        "\"role\":\"owner\"",
        "\"who\":\"owner\"",
        "\"name\":\"shelf display\"",
        "\"device_name\":\"Kitchen tablet\"",
        "\"restart_needed\":true",
    ] {
        assert!(said.contains(text), "{text} is not in:\n{said}");
    }
    assert!(house.path().join("punktfunk-support.tar").is_file());

    // A host that has forgotten its owner, and is given back what it knew: it shows the old one's certificate.
    let mut anew = House::new();
    let mut other = anew.start("");
    assert_eq!(other.stage()["stage"], "ready");
    fs::copy(house.path().join("punktfunk.backup"), anew.path().join("punktfunk.backup")).unwrap();
    let socket = anew.socket().display().to_string();
    let script = filled_in(&local, &[("SOCKET", &socket)]);
    let said = run(anew.path(), &format!("{script}\nPASSPHRASE={PASSPHRASE:?}\n{restore}"), "");
    assert!(said.contains("\"host_key\":true"), "{said}");
    drop(other);
    anew.certificate = house.certificate.clone();
    let mut other = anew.start("");
    assert_eq!(other.ask("/api/v1/landing").json()["claimed"], false);
    let secret = anew.shown().unwrap().0;
    let ask = serde_json::json!({"secret": secret, "name": "Sofa", "password": PASSWORD});
    assert_eq!(other.browser().ask("POST", "/api/v1/claim", &[], &ask.to_string()).status, 200);
}
