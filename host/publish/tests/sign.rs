//! The program as a maker uses it: a key, a statement, an envelope, and what a box says to that.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::path::Path;
use std::process::Command;

use punktfunk_update::name::Channel;
use punktfunk_update::statement::{KeyRing, Memory, judge};

/// What the program says: what it was asked for, or why not.
fn publish(folder: &Path, arguments: &[&str]) -> Result<String, String> {
    let ran = Command::new(env!("CARGO_BIN_EXE_punktfunk-publish"))
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if ran.status.success() { Ok(text(ran.stdout)) } else { Err(text(ran.stderr)) }
}

#[test]
fn a_statement_is_signed_and_shown_and_believed() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let made = publish(folder, &["keygen", "keys", "current"]).unwrap();
    publish(folder, &["keygen", "keys", "next"]).unwrap();
    assert!(publish(folder, &["keygen", "keys", "next"]).unwrap_err().contains("not overwritten"));

    let statement = format!(
        r#"{{"schema": 1, "channel": "next", "flavour": "full", "made_at": 1800000000,
            "expires_at": 1802592000, "releases": [{{"version": "0.3.0", "commit": "{}",
            "image": "sha256:{}", "size_bytes": 7, "unpacked_bytes": 9, "minimum": "0.1.0"}}]}}"#,
        "c1".repeat(32),
        "d1".repeat(32)
    );
    std::fs::write(folder.join("statement.json"), &statement).unwrap();
    let sign = ["sign", "--key", "keys/next.key", "statement.json", "out.json"];
    let late = publish(folder, &[&sign[..], &["--at", "1802592000"]].concat()).unwrap_err();
    assert!(
        late.contains("statement.json is not signed") && late.contains("has expired"),
        "{late}"
    );
    assert!(!folder.join("out.json").exists());
    publish(folder, &[&sign[..], &["--at", "1800000001"]].concat()).unwrap();

    let shown = publish(folder, &["show", "--keys", "keys", "out.json"]).unwrap();
    assert!(shown.contains(": good\n") && shown.contains("\"0.3.0\""), "{shown}");
    let ring = KeyRing::read(&folder.join("keys")).unwrap();
    let bytes = std::fs::read(folder.join("out.json")).unwrap();
    let judged =
        judge(&bytes, &ring, &Memory::default(), Channel::Next, "full", 1_800_000_001).unwrap();
    assert_eq!(judged.statement.releases[0].version.to_string(), "0.3.0");
    assert!(!made.starts_with(&judged.signed_by[0].to_string()), "{made}");

    // What boxes believed is gone on from.
    let lower = statement.replace("0.3.0", "0.2.0").replace("1800000000", "1800000060");
    std::fs::write(folder.join("statement.json"), lower).unwrap();
    let on_from = ["--at", "1800000061", "--previous", "out.json"];
    let refused = publish(folder, &[&sign[..], &on_from].concat()).unwrap_err();
    assert!(refused.contains("0.2.0 is older than 0.3.0"), "{refused}");
    assert_eq!(std::fs::read(folder.join("out.json")).unwrap(), bytes);
}
