//! Who may import whom: rooms of the host from a higher layer to a lower one, never back; doors never each other; and
//! `core` nothing that touches the world.

use crate::assert_clean;
use crate::source::{code_only, only_for_tests, paths, without_tests};
use crate::tree::{File, rust_files};

/// The layer of each room. A room that is not here is a complaint: whoever adds one decides where it stands.
const LAYERS: &[(&str, u8)] = &[
    ("clock", 0),
    ("agent", 0),
    ("logbook", 0),
    ("display", 1),
    ("capture", 1),
    ("gpu", 1),
    ("encode", 1),
    ("audio", 1),
    ("input", 1),
    ("os", 1),
    ("store", 1),
    ("listen", 1),
    ("machine", 1),
    ("stream", 2),
    ("pairing", 2),
    ("identity", 2),
    ("access", 2),
    ("backup", 2),
    ("config", 2),
    ("session", 3),
    ("health", 3),
    ("native", DOORS),
    ("gamestream", DOORS),
    ("mgmt", DOORS),
    ("discovery", DOORS),
    ("selftest", 5),
    ("cli", 6),
];

/// The layer whose rooms do not know each other.
const DOORS: u8 = 4;

/// A client of our own that knows the host's side of a door would find there what it put there. It shares with the host
/// what an owner shares - the local socket's client - and what both must agree on: the card's code, the tones, ids.
const CLIENT: (&str, &[&str]) =
    ("selftest", &["clock", "capture", "audio", "store", "mgmt", "selftest"]);

/// What `core` may not name: I/O, clocks, threads, randomness, async, logging.
const WORLD: &[&str] = &[
    "std::net",
    "std::fs",
    "std::thread",
    "std::process",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "tokio",
    "rustix",
    "socket2",
    "tracing",
    "log",
    "rand",
    "getrandom",
];

/// What it may name of `std::net`: addresses are data.
const ADDRESSES: &[&str] = &[
    "IpAddr",
    "Ipv4Addr",
    "Ipv6Addr",
    "SocketAddr",
    "SocketAddrV4",
    "SocketAddrV6",
    "AddrParseError",
];

fn layer(room: &str) -> Option<u8> {
    LAYERS.iter().find(|(name, _)| *name == room).map(|(_, layer)| *layer)
}

/// The room a file of the host belongs to; `None` for `main.rs` and `lib.rs`, which may name everything.
fn room_of(path: &str) -> Option<&str> {
    let inside = path.strip_prefix("host/src/")?;
    let room = inside.split('/').next()?.trim_end_matches(".rs");
    (room != "main" && room != "lib").then_some(room)
}

/// Complaints about the imports of one file of the host.
fn check_host_file(file: &File) -> Vec<String> {
    let Some(room) = room_of(&file.path) else { return Vec::new() };
    let Some(own) = layer(room) else {
        return vec![format!("{}: the room `{room}` has no layer in this test", file.path)];
    };
    let mut complaints = Vec::new();
    for (line, path) in paths(&code_only(&file.text)) {
        let Some(target) = imported_room(&path) else { continue };
        let Some(other) = layer(target) else { continue };
        if target == room {
            continue;
        }
        if room == CLIENT.0 && !CLIENT.1.contains(&target) {
            complaints.push(format!("{}:{line}: `{room}` knows `{target}`", file.path));
        }
        if other > own {
            complaints.push(format!(
                "{}:{line}: `{room}` (layer {own}) reaches up to `{target}` (layer {other})",
                file.path
            ));
        } else if other == DOORS && own == DOORS {
            complaints.push(format!("{}:{line}: the door `{room}` imports `{target}`", file.path));
        }
    }
    complaints
}

/// The room that a path from inside the host names: `crate::room::..`, or `super::..::room` that left its own room.
fn imported_room(path: &[String]) -> Option<&str> {
    match path.first()?.as_str() {
        "crate" | "punktfunk_host" => path.get(1).map(String::as_str),
        "super" => {
            let target = path.iter().find(|part| *part != "super")?;
            let ups = path.iter().take_while(|part| *part == "super").count();
            // One step up stays in the room; that a file inside a room has a child named like a room is fine.
            (ups >= 2 && layer(target).is_some()).then_some(target.as_str())
        }
        _ => None,
    }
}

/// Complaints about one file of `core` that touches the world outside its tests.
fn check_core_file(file: &File) -> Vec<String> {
    let code = without_tests(&code_only(&file.text));
    let mut complaints = Vec::new();
    for (line, path) in paths(&code) {
        let is_address = |part: &String| ADDRESSES.contains(&part.as_str());
        if path.starts_with(&["std".to_owned(), "net".to_owned()])
            && path.get(2).is_some_and(is_address)
        {
            continue;
        }
        let joined = path.join("::");
        let touched = WORLD
            .iter()
            .find(|world| joined == **world || joined.starts_with(&format!("{world}::")));
        if let Some(world) = touched
            && (world.contains("::") || path.len() > 1)
        {
            complaints.push(format!("{}:{line}: core touches the world: {joined}", file.path));
        }
    }
    complaints
}

mod tests {
    use super::*;

    fn sample(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn rooms_import_downwards_only() {
        let complaints: Vec<String> = rust_files().iter().flat_map(check_host_file).collect();
        assert_clean("layers of the host", &complaints);
    }

    #[test]
    fn an_import_upwards_is_found() {
        for bad in [
            "use crate::session::SessionId;",
            "use crate::{clock, session::{AppId}};",
            "fn f() { crate::gamestream::http::serve(); }",
            "use super::super::session::AppId;",
        ] {
            let found = check_host_file(&sample("host/src/encode/x264.rs", bad));
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
        }
        let fine = "// crate::session\nuse crate::clock;\nuse crate::capture::Rect;\nuse super::x;";
        assert_clean("sample", &check_host_file(&sample("host/src/encode/x264.rs", fine)));
    }

    #[test]
    fn a_door_that_imports_a_door_is_found() {
        let bad = sample("host/src/mgmt/mod.rs", "use crate::gamestream::Options;");
        assert_eq!(check_host_file(&bad).len(), 1);
    }

    #[test]
    fn a_client_that_knows_the_host_inside_is_found() {
        let bad = sample("host/src/selftest/mod.rs", "use crate::gamestream::Ports;");
        assert_eq!(check_host_file(&bad).len(), 1);
        let fine = sample("host/src/selftest/mod.rs", "use crate::mgmt::client::Client;");
        assert_clean("sample", &check_host_file(&fine));
    }

    #[test]
    fn a_room_without_a_layer_is_found() {
        assert_eq!(check_host_file(&sample("host/src/helpers/mod.rs", "")).len(), 1);
    }

    #[test]
    fn core_touches_nothing() {
        let all = rust_files();
        let core: Vec<&File> =
            all.iter().filter(|file| file.path.starts_with("core/src/")).collect();
        assert!(core.len() > 5, "core's sources were not found");
        let complaints: Vec<String> = core
            .into_iter()
            .filter(|file| !only_for_tests(file, &all))
            .flat_map(check_core_file)
            .collect();
        assert_clean("core touches nothing", &complaints);
    }

    #[test]
    fn core_touching_the_world_is_found() {
        for bad in [
            "use std::net::{IpAddr, UdpSocket};",
            "use std::net;",
            "use std::{fmt, fs::File};",
            "use std::time::{Duration, Instant};",
            "fn f() { std::thread::spawn(g); }",
            "use tracing::info;",
        ] {
            let found = check_core_file(&sample("core/src/x.rs", bad));
            assert_eq!(found.len(), 1, "{bad}: {found:?}");
        }
        let fine = "use std::time::Duration;\nuse std::net::{IpAddr, SocketAddr};\n#[cfg(test)]\nmod tests { use std::fs; }";
        assert_clean("sample", &check_core_file(&sample("core/src/x.rs", fine)));
    }
}
