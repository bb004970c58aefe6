//! Agents for tests: started as the daemon does without a launcher, with the agent that this workspace builds.

use std::path::{Path, PathBuf};

use punktfunk_host::agent::Local;

/// Starts agents whose folders lie in `folder`.
#[allow(dead_code, reason = "a test may start them in its own way")]
pub(crate) fn starter(folder: &Path) -> Local {
    Local::new(folder.join("sessions"), Some(program()))
}

/// Beside this test, where one that is run as another user finds it, or beside the daemon.
pub(crate) fn program() -> PathBuf {
    let places = [
        std::env::current_exe().expect("a test has a path"),
        PathBuf::from(env!("CARGO_BIN_EXE_punktfunk-host")),
    ];
    let programs = places.map(|place| place.with_file_name("punktfunk-agent"));
    let found = programs.into_iter().find(|program| program.is_file());
    found.expect("there is no punktfunk-agent; build the workspace first: cargo build --workspace")
}
