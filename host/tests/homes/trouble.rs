//! Homes that cannot be read, are half restored, or have no room.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering::Relaxed;

use serde_json::{Value, json};

use super::{Host, PASSPHRASE, restore_body, seen, wait_for, write};

#[test]
fn a_home_that_cannot_be_read_ends_only_its_own_part() {
    let host = Host::new();
    let devices = ["sofa", "desk", "deep"].map(|name| (name, host.pair(name)));
    for (_, device) in devices {
        write(&host.home(device), "save", "one");
    }
    let deep = host.home(devices[2].1);
    nest(&deep);
    let number = |device| host.store.profile_of(device).unwrap().0;
    // One of them is the first.
    for (barred, other) in [(devices[0], devices[1]), (devices[1], devices[0])] {
        host.barred.lock().unwrap().insert(number(barred.1));
        let backup = host.back_up(true);
        host.barred.lock().unwrap().clear();
        let last = &host.access.audit_page(None, 1).unwrap()[0];
        assert_eq!(last.action, "POST /homes/backup");
        assert!(last.detail.starts_with("not whole: "), "{}", last.detail);
        assert!(last.detail.contains("deep") && last.detail.contains(barred.0), "{}", last.detail);
        assert!(!last.detail.contains(other.0), "{}", last.detail);

        remove_nest(&deep);
        for (_, device) in devices {
            write(&host.home(device), "save", "two");
        }
        let told = host.restore(&backup);
        let expected =
            BTreeMap::from([(barred.0, "not-whole"), ("deep", "not-whole"), (other.0, "restored")]);
        assert_eq!(outcomes(&told), expected, "{told}");
        assert!(told.to_string().contains("nobody comes here"), "{told}");
        for (name, device) in devices {
            let save = if name == other.0 { "one" } else { "two" };
            let seen = seen(&host.home(device));
            assert!(seen.len() == 1 && seen[0].ends_with(save), "{name}: {seen:?}");
            write(&host.home(device), "save", "one");
        }
        nest(&deep);
    }
    remove_nest(&deep);
    host.barred.lock().unwrap().extend(devices.map(|(_, device)| number(device)));
    let ask = json!({"passphrase": PASSPHRASE}).to_string();
    host.ask("backup", ask.as_bytes()).is_problem(503, "unavailable", "cannot be reached");
}

#[test]
fn nobody_plays_in_a_home_that_is_half_restored_until_it_is_mended() {
    let host = Host::new();
    let sofa = host.pair("sofa");
    let (home, profile) = (host.home(sofa), host.store.profile_of(sofa).unwrap());
    write(&home, "save", "one");
    let [whole, without_games] = [true, false].map(|games| host.back_up(games));
    // As after a restore that could not be ended: there is something in the way.
    write(&home, "gone/a", "old");
    write(&home, ".punktfunk-placing/gone/b", "new");
    write(&home, ".punktfunk-replacing/save", "old");
    let error = host.agents.start(profile).map(drop).unwrap_err().to_string();
    assert!(error.contains("only a part of this device's home"), "{error}");
    let before = seen(&home);
    let half = host.back_up(true);
    let told = host.restore(&without_games);
    assert!(told.to_string().contains("only a part of this device's home"), "{told}");
    assert_eq!(seen(&home), before, "nothing that may be needed is lost");
    assert_eq!(outcomes(&host.restore(&whole)), BTreeMap::from([("sofa", "restored")]));
    assert!(host.agents.start(profile).is_ok());
    let after = seen(&home);
    assert!(after.len() == 1 && after[0].ends_with("one"), "{after:?}");
    assert_eq!(outcomes(&host.restore(&half)), BTreeMap::from([("sofa", "not-whole")]));
}

#[test]
fn a_restore_leaves_room_on_the_disk() {
    let host = Host::new();
    let home = host.home(host.pair("sofa"));
    fs::write(home.join("large"), vec![7; 8 << 20]).unwrap();
    let backup = host.back_up(true);
    write(&home, "save", "later");
    let before = seen(&home);
    // Before it begins, and on the way.
    for left in [0, 1, 4] {
        host.room.store(left, Relaxed);
        assert_eq!(outcomes(&host.restore(&backup)), BTreeMap::from([("sofa", "no-space")]));
        assert_eq!(seen(&home), before, "{left}");
    }
    host.room.store(usize::MAX, Relaxed);
    assert_eq!(outcomes(&host.restore(&backup)), BTreeMap::from([("sofa", "restored")]));
}

#[test]
fn who_restores_stands_in_the_audit_log_before_anything_changes() {
    let host = Host::new();
    let home = host.home(host.pair("sofa"));
    fs::write(home.join("large"), vec![7; 500_000]).unwrap();
    let body = restore_body(PASSPHRASE, &host.back_up(true));
    let mut stream = host.begin("restore", body.len() + 1);
    stream.write_all(&body).unwrap();
    wait_for("something to lie beside", || fs::read_dir(&home).unwrap().count() == 2);
    let last = &host.access.audit_page(None, 1).unwrap()[0];
    assert_eq!((&*last.action, &*last.detail), ("POST /homes/restore", "begun"));
    drop(stream);
    let profile = host.store.profiles().unwrap()[0].1;
    wait_for("the restore to end", || host.agents.take(profile, "").is_ok());
}

/// What became of each home, by the name of its device: "restored", or a code.
fn outcomes(told: &Value) -> BTreeMap<&str, &str> {
    let homes = told["homes"].as_array().unwrap().iter();
    homes
        .map(|home| {
            let code = home["problem"]["code"].as_str().unwrap_or("restored");
            (home["name"].as_str().unwrap(), code)
        })
        .collect()
}

/// Folders in folders, more than `tar` can bear.
fn nest(home: &Path) {
    let mut at = File::open(home).unwrap();
    for _ in 0..12_000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
    }
}

fn remove_nest(home: &Path) {
    assert!(Command::new("rm").arg("-rf").arg(home.join("d")).status().unwrap().success());
}
