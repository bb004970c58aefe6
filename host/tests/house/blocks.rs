//! What stands in documents between back-ticks: code blocks parse, and paths of the repository exist.
//!
//! A fenced block names its language, and this file knows how to check it; a block without a language is a picture or
//! bytes, not code. Shell is only parsed: commands that readers type need a machine of their own to run on.

use std::io::Write;
use std::process::{Command, Stdio};

use crate::assert_clean;
use crate::tree::{File, files, root};

/// One fenced block: its line, its language, its text.
type Block = (usize, String, String);

fn blocks(text: &str) -> Vec<Block> {
    let mut found = Vec::new();
    let mut open: Option<Block> = None;
    for (number, line) in text.lines().enumerate() {
        match (line.trim_start().strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => found.push(block),
            (Some(language), None) => {
                open = Some((number + 1, language.trim().to_owned(), String::new()));
            }
            (None, Some((start, language, mut code))) => {
                code.push_str(line);
                code.push('\n');
                open = Some((start, language, code));
            }
            (None, None) => {}
        }
    }
    // A block that nothing closes is shown by the renderer to the end of the document.
    if let Some((start, _, code)) = open {
        found.push((start, "unclosed".to_owned(), code));
    }
    found
}

/// Complaints about code blocks that do not parse, or whose language nothing here can check.
fn check_blocks(document: &File) -> Vec<String> {
    let mut complaints = Vec::new();
    for (line, language, code) in blocks(&document.text) {
        let outcome = match language.as_str() {
            "" | "text" => Ok(()),
            "toml" => code.parse::<toml::Table>().map(|_| ()).map_err(|e| e.to_string()),
            "json" => serde_json::from_str::<serde_json::Value>(&code)
                .map(|_| ())
                .map_err(|e| e.to_string()),
            "sh" | "bash" => parse_shell(&code),
            other => Err(format!("nothing checks the language `{other}`")),
        };
        if let Err(reason) = outcome {
            complaints.push(format!("{}:{line}: {reason}", document.path));
        }
    }
    complaints
}

fn parse_shell(code: &str) -> Result<(), String> {
    let mut shell = Command::new("bash")
        .arg("-n")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("bash did not start: {error}"))?;
    if let Some(mut input) = shell.stdin.take() {
        input.write_all(code.as_bytes()).map_err(|error| error.to_string())?;
    }
    let status = shell.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err("bash cannot parse it".to_owned()) }
}

/// The paths of the repository that code spans of a document name.
fn named_paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_block = false;
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block {
            continue;
        }
        for span in line.split('`').skip(1).step_by(2) {
            let path = span.split(' ').next().unwrap_or_default();
            let ours = ["core/", "host/", "docs/", "ci/"].iter().any(|room| path.starts_with(room));
            if ours && !path.contains("::") && !path.contains('*') {
                found.push((number + 1, path.to_owned()));
            }
        }
    }
    found
}

/// Complaints about named paths that are not there.
fn check_named_paths(document: &File, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    named_paths(&document.text)
        .into_iter()
        .filter(|(_, path)| !exists(path))
        .map(|(line, path)| format!("{}:{line}: there is no {path}", document.path))
        .collect()
}

mod tests {
    use super::*;

    fn documents() -> Vec<File> {
        files().into_iter().filter(|file| file.path.ends_with(".md")).collect()
    }

    fn sample(text: &str) -> File {
        File { path: "docs/a.md".to_owned(), text: text.to_owned() }
    }

    #[test]
    fn code_blocks_parse() {
        let complaints: Vec<String> = documents().iter().flat_map(check_blocks).collect();
        assert_clean("code blocks", &complaints);
    }

    #[test]
    fn broken_code_blocks_are_found() {
        for bad in [
            "```toml\na = \n```\n",
            "```json\n{,}\n```\n",
            "```sh\nif true; then\n```\n",
            "```cobol\nMOVE\n```\n",
            "text\n```\nno end\n",
        ] {
            assert_eq!(check_blocks(&sample(bad)).len(), 1, "{bad}");
        }
        let fine =
            "```toml\n[a]\nb = 1\n```\n\n```sh\nci/start --help\n```\n\n```\nanything {\n```\n";
        assert_clean("sample", &check_blocks(&sample(fine)));
    }

    #[test]
    fn named_paths_exist() {
        let exists = |path: &str| root().join(path).exists();
        let complaints: Vec<String> = documents()
            .iter()
            // The history of the product may name what is gone.
            .filter(|file| file.path != "CHANGELOG.md")
            .flat_map(|file| check_named_paths(file, &exists))
            .collect();
        assert_clean("named paths", &complaints);
    }

    #[test]
    fn a_named_path_that_is_gone_is_found() {
        let text = "`ci/gone --help` `host/src/a.rs::test` `core/here.rs`\n```\nci/block\n```\n";
        let found = check_named_paths(&sample(text), &|path| path == "core/here.rs");
        assert_eq!(found.len(), 1, "{found:?}");
    }
}
