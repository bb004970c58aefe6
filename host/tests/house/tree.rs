//! The files of the repository as text, found by walking from the workspace's root.
//!
//! Build outputs and caches are skipped by name; what a clone holds is what the rules see.

use std::fs;
use std::path::{Path, PathBuf};

/// One text file.
#[derive(Debug, Clone)]
pub(crate) struct File {
    /// Path from the repository's root, with `/`.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
}

/// Folders that no clone holds, or that hold other people's text.
const SKIPPED: &[&str] =
    &[".git", "target", "shared", "node_modules", ".cache", ".venv", "venv", "__pycache__"];

/// What text files end in; files without an ending count as text when they are valid UTF-8.
const TEXT: &[&str] = &[
    "rs", "md", "toml", "py", "sh", "txt", "yml", "yaml", "json", "html", "css", "svg", "service",
    "conf", "",
];

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let host = Path::new(env!("CARGO_MANIFEST_DIR"));
    host.parent().unwrap_or(host).to_path_buf()
}

/// All text files, sorted by path.
pub(crate) fn files() -> Vec<File> {
    let root = root();
    let mut found = Vec::new();
    walk(&root, &root, &mut found);
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the tree under {} looks empty", root.display());
    found
}

/// The Rust files among them.
pub(crate) fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

/// One file by its path.
pub(crate) fn file(path: &str) -> File {
    let full = root().join(path);
    match fs::read_to_string(&full) {
        Ok(text) => File { path: path.to_owned(), text },
        Err(error) => panic!("{path} cannot be read: {error}"),
    }
}

fn walk(root: &Path, folder: &Path, found: &mut Vec<File>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = entry.path();
        // Links are not followed: they could lead outside, or in a circle.
        let Ok(kind) = entry.file_type() else { continue };
        // In a worktree `.git` is a file.
        if SKIPPED.contains(&name.as_str()) {
            continue;
        }
        if kind.is_dir() {
            walk(root, &path, found);
            continue;
        }
        let ending = path.extension().map(|e| e.to_string_lossy().into_owned()).unwrap_or_default();
        if !kind.is_file() || !TEXT.contains(&ending.as_str()) {
            continue;
        }
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let relative = path.strip_prefix(root).unwrap_or(&path);
        found.push(File { path: relative.to_string_lossy().replace('\\', "/"), text });
    }
}
