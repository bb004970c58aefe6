//! Rules that hold for every file of ours: what is forbidden everywhere, what is listed, how long a file may be.

use crate::assert_clean;
use crate::source::{code_only, only_for_tests, paths, without_tests};
use crate::tree::{File, file, files, rust_files};

/// The files that contain `unsafe`. A new one is a decision: it goes here and its `mod` line says why.
const UNSAFE_FILES: &[&str] = &["host/src/cli/memory.rs", "host/src/encode/x264/library.rs"];

/// The files that look at the wall clock, which people and machines set as they like: only for what is shown to people,
/// and in the store for when things were and for what ends after a restart, too: a guest's stay and a token by their
/// date, a login by its age when the host starts. Root's program notes when a deployment was found bad. Whatever else
/// waits, expires or keeps a pace asks `clock`, so a clock that jumps changes nothing on a stream.
const WALL_CLOCK_FILES: &[&str] =
    &["host/os/src/calendar.rs", "host/src/logbook/mod.rs", "host/src/store/mod.rs"];

/// What the wall clock is called.
const WALL_CLOCK: &[&str] =
    &["SystemTime", "OffsetDateTime", "Utc", "CLOCK_REALTIME", "Realtime", "RealtimeCoarse"];

/// Longer files are split.
const MAX_LINES: usize = 800;

/// `main.rs` only parses, starts logging and calls `cli`.
const MAX_MAIN_LINES: usize = 100;

/// What runs as root is read whole before it is trusted, so all of it together is short, tests aside.
const MAX_ROOT_LINES: usize = 499;

/// Words that stand for unfinished work, and places that only exist where the work is done. Spelled in halves, so
/// that this file may be read by its own rule.
const FORBIDDEN: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("/wo", "rk/"),
    concat!("../sha", "red"),
    concat!("shared/", "spec"),
    concat!("shared/", "notes"),
    concat!("shared/", "style"),
    concat!("of this work", "place"),
];

/// Complaints about words that may stand nowhere.
fn check_words(file: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in file.text.lines().enumerate() {
        for word in FORBIDDEN {
            if line.match_indices(word).any(|(at, _)| stands_alone(line, at, word)) {
                complaints.push(format!("{}:{}: `{word}`", file.path, number + 1));
            }
        }
    }
    complaints
}

/// Whether the match is a word or a path of its own, not the middle of another.
fn stands_alone(line: &str, at: usize, word: &str) -> bool {
    let before = line[..at].chars().next_back();
    let after = line[at + word.len()..].chars().next();
    let inner = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let path = word.contains('/');
    !before.is_some_and(|c| inner(c) || (path && (c == '/' || c == '.' || c == '}')))
        && (path || !after.is_some_and(inner))
}

/// Whether the code of a file says `unsafe`.
fn has_unsafe(file: &File) -> bool {
    paths(&code_only(&file.text)).iter().any(|(_, path)| path.iter().any(|part| part == "unsafe"))
}

/// Complaints about files that differ from the list of those with `unsafe`.
fn check_unsafe(files: &[File], listed: &[&str]) -> Vec<String> {
    let found: Vec<&str> =
        files.iter().filter(|file| has_unsafe(file)).map(|file| file.path.as_str()).collect();
    let new = found.iter().filter(|path| !listed.contains(path));
    let gone = listed.iter().filter(|path| !found.contains(path));
    new.map(|path| format!("{path}: says `unsafe` and is not on the list"))
        .chain(gone.map(|path| format!("{path}: is on the list and has no `unsafe`")))
        .collect()
}

/// Complaints about product code that looks at the wall clock and is not on the list, or is and does not.
fn check_wall_clock(all: &[File], listed: &[&str]) -> Vec<String> {
    let looks = |file: &&File| {
        let code = without_tests(&code_only(&file.text));
        let ours = file.path.contains("/src/") && !only_for_tests(file, all);
        ours && paths(&code)
            .iter()
            .any(|(_, path)| path.iter().any(|part| WALL_CLOCK.contains(&part.as_str())))
    };
    let found: Vec<&str> = all.iter().filter(looks).map(|file| file.path.as_str()).collect();
    let new = found.iter().filter(|path| !listed.contains(path));
    let gone = listed.iter().filter(|path| !found.contains(path));
    new.map(|path| format!("{path}: looks at the wall clock and is not on the list"))
        .chain(gone.map(|path| format!("{path}: is on the list and looks at no wall clock")))
        .collect()
}

/// Complaints about `allow`, `expect` and `ignore` attributes that give no reason.
fn check_reasons(file: &File) -> Vec<String> {
    let code = code_only(&file.text);
    let mut complaints = Vec::new();
    for opening in ["[allow(", "[expect("] {
        for (at, _) in code.match_indices(opening) {
            let end = code[at..].find(']').map_or(code.len(), |n| at + n);
            let line = code[..at].matches('\n').count() + 1;
            if !code[at..end].contains("reason") {
                complaints.push(format!("{}:{line}: `#{opening}..)]` without a reason", file.path));
            }
        }
    }
    for (at, _) in code.match_indices("#[ignore]") {
        let line = code[..at].matches('\n').count() + 1;
        complaints.push(format!("{}:{line}: `#[ignore]` does not say what it needs", file.path));
    }
    complaints
}

/// Complaints about files that are too long.
fn check_length(file: &File) -> Vec<String> {
    let max = if file.path == "host/src/main.rs" { MAX_MAIN_LINES } else { MAX_LINES };
    let got = file.text.lines().count();
    if got <= max {
        return Vec::new();
    }
    vec![format!("{}: {got} lines, the limit is {max}; split it", file.path)]
}

/// Complaints about the program that runs as root, if all its files together are too long.
fn check_root(files: &[File]) -> Vec<String> {
    let sources = files.iter().filter(|file| file.path.starts_with("host/launcher/src/"));
    let got: usize = sources.map(|file| file.text.lines().count()).sum();
    match got {
        0 => vec!["host/launcher/src: the launcher's sources were not found".to_owned()],
        1..=MAX_ROOT_LINES => Vec::new(),
        _ => vec![format!("host/launcher/src: {got} lines, the limit is {MAX_ROOT_LINES}")],
    }
}

/// Complaints about a README that does not name the two commands.
fn check_readme(text: &str) -> Vec<String> {
    ["ci/start", "ci/test"]
        .iter()
        .filter(|command| !text.contains(**command))
        .map(|command| format!("README.md does not name {command}"))
        .collect()
}

mod tests {
    use super::*;

    fn sample(text: &str) -> File {
        File { path: "host/src/encode/x264.rs".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn no_unfinished_work_and_no_private_places() {
        let complaints: Vec<String> = files().iter().flat_map(check_words).collect();
        assert_clean("forbidden words", &complaints);
    }

    #[test]
    fn forbidden_words_are_found() {
        for word in FORBIDDEN {
            assert_eq!(check_words(&sample(&format!("// see {word} here"))).len(), 1, "{word}");
        }
        let place = format!("// see {}spec.md", FORBIDDEN[2]);
        assert_eq!(check_words(&sample(&place)).len(), 1);
        let fine =
            format!("host{}x {}S https://example.org{}", FORBIDDEN[2], FORBIDDEN[0], FORBIDDEN[2]);
        assert_clean("sample", &check_words(&sample(&fine)));
    }

    #[test]
    fn unsafe_is_where_the_list_says() {
        assert_clean("unsafe", &check_unsafe(&rust_files(), UNSAFE_FILES));
    }

    #[test]
    fn unlisted_and_stale_unsafe_is_found() {
        let bad = sample("fn f() { unsafe { g() } }");
        assert_eq!(check_unsafe(std::slice::from_ref(&bad), &[]).len(), 1);
        assert_eq!(
            check_unsafe(&[sample("// unsafe\n#![forbid(unsafe_code)]")], &["a.rs"]).len(),
            1
        );
        assert_clean("sample", &check_unsafe(&[bad], &["host/src/encode/x264.rs"]));
    }

    #[test]
    fn only_the_store_knows_what_day_it_is() {
        assert_clean("wall clock", &check_wall_clock(&rust_files(), WALL_CLOCK_FILES));
    }

    #[test]
    fn a_look_at_the_wall_clock_is_found() {
        let bad = sample("use std::time::SystemTime;\nfn f() { SystemTime::now(); }");
        assert_eq!(check_wall_clock(std::slice::from_ref(&bad), &[]).len(), 1);
        let raw = sample("fn f() { rustix::time::clock_gettime(ClockId::Realtime); }");
        assert_eq!(check_wall_clock(&[raw], &[]).len(), 1);
        assert_eq!(check_wall_clock(&[sample("fn f() {}")], &["host/src/encode/x264.rs"]).len(), 1);
        let tests = sample("#[cfg(test)]\nmod tests { use std::time::SystemTime; }");
        assert_clean("sample", &check_wall_clock(&[tests], &[]));
    }

    #[test]
    fn every_exception_gives_its_reason() {
        let complaints: Vec<String> = rust_files().iter().flat_map(check_reasons).collect();
        assert_clean("exceptions", &complaints);
    }

    #[test]
    fn an_exception_without_a_reason_is_found() {
        assert_eq!(check_reasons(&sample("#[allow(dead_code)]\nfn f() {}")).len(), 1);
        assert_eq!(check_reasons(&sample("#![expect(\n    clippy::x,\n)]")).len(), 1);
        assert_eq!(check_reasons(&sample("#[test]\n#[ignore]\nfn f() {}")).len(), 1);
        let fine = "#[ignore = \"needs sway\"]\n#[expect(clippy::x, reason = \"because\")]\nfn f() {} // #[allow(x)]";
        assert_clean("sample", &check_reasons(&sample(fine)));
    }

    #[test]
    fn files_are_short() {
        let complaints: Vec<String> = rust_files().iter().flat_map(check_length).collect();
        assert_clean("length", &complaints);
    }

    #[test]
    fn what_runs_as_root_is_short() {
        assert_clean("root's lines", &check_root(&rust_files()));
    }

    #[test]
    fn a_long_launcher_is_found_and_a_lost_one_too() {
        let file = |count: usize| File {
            path: "host/launcher/src/lib.rs".to_owned(),
            text: "x\n".repeat(count),
        };
        assert_clean("sample", &check_root(&[file(MAX_ROOT_LINES)]));
        assert_eq!(check_root(&[file(MAX_ROOT_LINES), file(1)]).len(), 1);
        assert_eq!(check_root(&[sample("x")]).len(), 1);
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(check_length(&sample(&"x\n".repeat(MAX_LINES + 1))).len(), 1);
        let mut main = sample(&"x\n".repeat(MAX_MAIN_LINES + 1));
        assert_clean("sample", &check_length(&main));
        main.path = "host/src/main.rs".to_owned();
        assert_eq!(check_length(&main).len(), 1);
    }

    #[test]
    fn the_readme_names_both_commands() {
        assert_clean("README", &check_readme(&file("README.md").text));
    }

    #[test]
    fn a_readme_without_a_command_is_found() {
        assert_eq!(check_readme("run ci/start").len(), 1);
    }
}
