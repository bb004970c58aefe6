//! As much of Rust's grammar as the rules need: code without comments and strings, the paths it names, and which of
//! it is compiled for tests only.
//!
//! Everything keeps its place: removed text becomes spaces, so that offsets and lines stay true.

use crate::tree::File;

/// Rust code with the contents of comments, strings and character literals blanked.
pub(crate) fn code_only(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes.get(at + 1) == Some(&b'/') => line_end(bytes, at),
            b'/' if bytes.get(at + 1) == Some(&b'*') => block_comment_end(bytes, at),
            b'"' => string_end(bytes, at),
            b'r' if !follows_name(bytes, at) => match raw_string_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            b'\'' => match char_end(bytes, at) {
                Some(end) => end,
                None => {
                    at += 1;
                    continue;
                }
            },
            _ => {
                at += 1;
                continue;
            }
        };
        for byte in &mut out[at..end] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
        at = end;
    }
    // Only whole comments and literals are blanked, so what is left is still UTF-8.
    String::from_utf8_lossy(&out).into_owned()
}

fn follows_name(bytes: &[u8], at: usize) -> bool {
    // `br"..."` is a raw string too; any other letter before the `r` makes it part of a name.
    let Some(before) = at.checked_sub(1).map(|i| bytes[i]) else { return false };
    before != b'b' && (before.is_ascii_alphanumeric() || before == b'_')
}

fn line_end(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn block_comment_end(bytes: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    bytes.len()
}

fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn raw_string_end(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    let open = at + 1 + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut i = open + 1;
    while i < bytes.len() {
        let closes = bytes[i] == b'"'
            && bytes.len() >= i + 1 + hashes
            && bytes[i + 1..i + 1 + hashes].iter().all(|b| *b == b'#');
        if closes {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(bytes.len())
}

/// The end of a character literal, or `None` for a lifetime.
fn char_end(bytes: &[u8], at: usize) -> Option<usize> {
    let first = *bytes.get(at + 1)?;
    if first == b'\\' {
        let close = bytes[at + 3..].iter().position(|b| *b == b'\'')?;
        return Some(at + 3 + close + 1);
    }
    let width = match first {
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        _ => 4,
    };
    (bytes.get(at + 1 + width) == Some(&b'\'')).then_some(at + width + 2)
}

/// Code (as [`code_only`] gives it) with everything under `#[cfg(test)]` blanked as well.
pub(crate) fn without_tests(code: &str) -> String {
    let mut out = code.as_bytes().to_vec();
    for (from, to) in test_ranges(code) {
        for byte in &mut out[from..to] {
            if *byte != b'\n' {
                *byte = b' ';
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The byte ranges of items under `#[cfg(test)]`.
pub(crate) fn test_ranges(code: &str) -> Vec<(usize, usize)> {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for (from, marker) in code.match_indices("#[cfg(test)]") {
        if ranges.last().is_some_and(|(_, to)| from < *to) {
            continue;
        }
        ranges.push((from, item_end(code, from + marker.len())));
    }
    ranges
}

/// The end of the item that begins at `from`: its closing brace, or its semicolon if that comes first.
fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0_usize;
    for (offset, c) in code[from..].char_indices() {
        match c {
            ';' if depth == 0 => return from + offset + 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return from + offset + 1;
                }
            }
            _ => {}
        }
    }
    code.len()
}

/// The names of modules declared as `#[cfg(test)] mod name;`: files that only tests have.
pub(crate) fn test_modules(code: &str) -> Vec<String> {
    let declared = test_ranges(code).into_iter().map(|(from, to)| &code[from..to]);
    declared
        .filter_map(|item| {
            let item = item.trim_start_matches("#[cfg(test)]").trim();
            let name = item.trim_start_matches("pub ").strip_prefix("mod ")?.strip_suffix(';')?;
            Some(name.trim().to_owned())
        })
        .collect()
}

/// Whether a file is compiled for tests only: declared so by its parent.
pub(crate) fn only_for_tests(file: &File, all: &[File]) -> bool {
    let stem = file.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
    let Some((folder, name)) = stem.rsplit_once('/') else { return false };
    let parents = [format!("{folder}/mod.rs"), format!("{folder}.rs"), format!("{folder}/lib.rs")];
    all.iter()
        .filter(|other| parents.contains(&other.path))
        .any(|parent| test_modules(&code_only(&parent.text)).iter().any(|module| module == name))
}

/// Every path that the code names, `use` groups spelled out: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(crate) fn paths(code: &str) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(code);
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        if is_name(tokens[at].1) {
            at = read_path(&tokens, at, &[], &mut found);
        } else {
            at += 1;
        }
    }
    found
}

type Token<'a> = (usize, &'a str);

fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_')
}

/// Reads one path that begins at `at` and returns where it ended.
fn read_path(
    tokens: &[Token<'_>],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let line = tokens[at].0;
    let mut path = prefix.to_vec();
    while let Some((_, token)) = tokens.get(at) {
        if is_name(token) {
            path.push((*token).to_owned());
            at += 1;
        } else if *token == "{" && path.len() > prefix.len() {
            return read_group(tokens, at + 1, &path, found);
        } else {
            break;
        }
        if tokens.get(at).is_some_and(|(_, t)| *t == "::") {
            at += 1;
        } else {
            break;
        }
    }
    found.push((line, path));
    at
}

fn read_group(
    tokens: &[Token<'_>],
    mut at: usize,
    prefix: &[String],
    found: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    while let Some((_, token)) = tokens.get(at) {
        match *token {
            "}" => return at + 1,
            // `as other`: the new name is no path.
            "as" => at += 2,
            token if is_name(token) => at = read_path(tokens, at, prefix, found),
            _ => at += 1,
        }
    }
    at
}

/// Names, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<Token<'_>> {
    let bytes = code.as_bytes();
    let (mut found, mut at, mut line) = (Vec::new(), 0, 1);
    while at < bytes.len() {
        let byte = bytes[at];
        let end = if byte.is_ascii_alphanumeric() || byte == b'_' {
            at + bytes[at..].iter().take_while(|b| b.is_ascii_alphanumeric() || **b == b'_').count()
        } else if code[at..].starts_with("::") {
            at + 2
        } else {
            at + code[at..].chars().next().map_or(1, char::len_utf8)
        };
        if byte == b'\n' {
            line += 1;
        } else if !byte.is_ascii_whitespace() {
            found.push((line, &code[at..end]));
        }
        at = end;
    }
    found
}

mod tests {
    use super::*;

    fn file(path: &str, text: &str) -> File {
        File { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn comments_and_literals_are_blanked_and_lines_stay() {
        let code = code_only(
            "let a = \"unsafe // no\"; // unsafe\n/* unsafe /* deep */ */ let b = 'x';\nlet c: &'static str = r#\"un\"safe\"#;\nlet d = b'\\''; unsafe {}",
        );
        assert_eq!(code.matches("unsafe").count(), 1);
        assert_eq!(code.lines().count(), 4);
        assert!(code.contains("&'static str"));
    }

    #[test]
    fn use_groups_are_spelled_out() {
        let found = paths("use a::{b, c::{d as e, f}};\nlet x = g::h::<i::J>();");
        let names: Vec<String> = found.iter().map(|(_, p)| p.join("::")).collect();
        for expected in ["a::b", "a::c::d", "a::c::f", "g::h", "i::J"] {
            assert!(names.contains(&expected.to_owned()), "{expected} is missing in {names:?}");
        }
        assert_eq!(found.last().map(|(line, _)| *line), Some(2));
    }

    #[test]
    fn tests_are_cut_out_whole() {
        let code = "use a;\n#[cfg(test)]\nmod tests { fn f() { { g() } } }\nuse b;\n#[cfg(test)]\nmod far;";
        let kept = without_tests(code);
        assert!(kept.contains("use a") && kept.contains("use b"));
        assert!(!kept.contains("g()") && !kept.contains("far"));
        assert_eq!(test_modules(code), ["far"]);
    }

    #[test]
    fn a_module_for_tests_only_is_recognised() {
        let all = [
            file("core/src/fec/mod.rs", "#[cfg(test)]\nmod naive;\nmod gf8;"),
            file("core/src/fec/naive.rs", ""),
            file("core/src/fec/gf8.rs", ""),
        ];
        assert!(only_for_tests(&all[1], &all));
        assert!(!only_for_tests(&all[2], &all));
    }
}
