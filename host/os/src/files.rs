//! Files that are whole or not there: bounded reading, and replacing in one step.
//!
//! A new content is written beside the old one, brought to the disk, and renamed over it; then the folder is brought to
//! the disk as well. A power cut leaves the old content or the new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What is not finished yet ends so.
pub const PART: &str = ".part";

/// What goes wrong with a file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refused.
    #[error("{path}: could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is longer than anything of its kind.
    #[error("{path}: longer than {max} bytes")]
    TooLong {
        /// Which.
        path: PathBuf,
        /// The bound.
        max: u64,
    },
}

impl FileError {
    /// What was being done to what.
    pub fn new(doing: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io { doing, path: path.to_path_buf(), source }
    }

    /// Nothing is there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// All of a file, if it is not longer than `max` bytes. It is read to its end in large pieces, because the files of
/// EFI variables know no places and no length.
pub fn read(path: &Path, max: u64) -> Result<Vec<u8>, FileError> {
    let failed = |source| FileError::new("read", path, source);
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > max {
        return Err(FileError::TooLong { path: path.to_path_buf(), max });
    }
    Ok(bytes)
}

/// The text of a small file without the space around it, or nothing when it is not there or is no text.
pub fn read_word(path: &Path) -> Option<String> {
    let text = String::from_utf8(read(path, 4096).ok()?).ok()?;
    Some(text.trim().to_owned())
}

/// Makes the content of a file this one, in one step.
pub fn replace(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let part = part(path);
    let failed = |source| FileError::new("write", &part, source);
    match fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&part).map_err(failed)?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(failed)?;
    fs::rename(&part, path).map_err(|source| FileError::new("rename over", path, source))?;
    sync_folder_of(path)
}

/// Where the new content lies until it is whole.
pub fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(PART);
    PathBuf::from(name)
}

/// Brings names in the folder of `path` to the disk.
pub fn sync_folder_of(path: &Path) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|source| FileError::new("sync", folder, source))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whatever_lies_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(part(&path), "torn, and longer than what follows").unwrap();
        replace(&path, b"one", 0o600).unwrap();
        replace(&path, b"two", 0o600).unwrap();
        assert_eq!(read(&path, 3).unwrap(), b"two");
        assert!(!part(&path).exists());
        assert!(matches!(read(&path, 2), Err(FileError::TooLong { max: 2, .. })));
        assert!(read(&folder.path().join("b"), 1).unwrap_err().is_absent());
    }
}
