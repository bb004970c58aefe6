//! The condition under which the initramfs starts the machine anew, as `sh` reads it from the unit: not while a disk is
//! checked, unless that lasts beyond all measure.
//!
//! Deliberately absent: systemd. That it asks the condition, and asks again, only a start shows.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

const UNIT: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../overlays/boot/usr/lib/systemd/system/punktfunk-initramfs-deadline.service"
));

/// Whether the machine is started anew, so long after its start, when systemd says that of the check of the root.
fn ends(uptime: &str, systemctl: &str) -> bool {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("uptime");
    fs::write(&place, uptime).unwrap();
    let program = folder.path().join("systemctl");
    fs::write(&program, format!("#!/bin/sh\n{systemctl}\n")).unwrap();
    fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();

    let line = UNIT.lines().find_map(|line| line.strip_prefix("ExecCondition=")).unwrap();
    let script =
        line.strip_prefix("/bin/sh -c '").and_then(|line| line.strip_suffix('\'')).unwrap();
    let script = script.replace("$$", "$").replace("%%", "%");
    let script = script.replace("/proc/uptime", place.to_str().unwrap());
    let ran = Command::new("/bin/sh").args(["-c", &script]).env("PATH", folder.path()).status();
    ran.unwrap().success()
}

#[test]
fn a_disk_that_is_checked_is_waited_for() {
    let check = r#"[ "$*" = "show -P ActiveState systemd-fsck-root.service" ] || exit 9; echo "#;
    assert!(!ends("1200.31 900.11\n", &format!("{check} activating")));
    assert!(!ends("21600.99 900.11\n", &format!("{check} activating")));
    assert!(ends("21601.00 900.11\n", &format!("{check} activating")));
    for state in ["inactive", "active", "failed", ""] {
        assert!(ends("1200.31 900.11\n", &format!("{check} {state}")), "{state}");
    }
    // Who cannot say anything is no reason to wait.
    assert!(ends("1200.31 900.11\n", "exit 1"));
}
