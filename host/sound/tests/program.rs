//! The program itself: what keeps it from capturing is told, and leaves nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

/// What the program says when it refuses these words, in a folder where no sound server is.
fn refused(words: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let ended = Command::new(env!("CARGO_BIN_EXE_punktfunk-sound"))
        .args(words)
        .env("XDG_RUNTIME_DIR", folder.path())
        .env_remove("PIPEWIRE_REMOTE")
        .output()
        .unwrap();
    assert_eq!(ended.status.code(), Some(1));
    assert_eq!(folder.path().read_dir().unwrap().count(), 0, "it left something behind");
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn a_missing_number_of_channels_is_told() {
    for words in [&[][..], &["two"]] {
        let said = refused(words);
        assert!(said.contains("it takes a number of channels"), "{said}");
    }
}

#[test]
fn a_missing_sound_server_is_told() {
    let said = refused(&["2"]);
    assert!(said.contains("could not connect to PipeWire"), "{said}");
}
