//! The simulated disk as a file, so that a demonstration goes on where it was when its host was stopped.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;

use super::{Disk, SaveDisk};

/// The largest file that is read, in bytes; one has a few thousand.
const MAX_FILE_BYTES: u64 = 256 * 1024;

/// A file with a simulated disk in it.
#[derive(Debug, Clone)]
pub struct DiskFile {
    path: PathBuf,
}

impl DiskFile {
    /// The file at this path, which need not be there yet.
    pub const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The disk in it; a fresh one where there is none, or none that can be read.
    pub fn load(&self) -> Disk {
        match self.read() {
            Ok(Some(disk)) => disk,
            Ok(None) => Disk::default(),
            Err(error) => {
                tracing::warn!(%error, "the simulated disk cannot be read and begins anew");
                Disk::default()
            }
        }
    }

    /// What writes a disk into it: the old one is there until the new one is whole.
    pub fn saver(&self) -> SaveDisk {
        let path = self.path.clone();
        Box::new(move |disk| {
            let text = serde_json::to_vec(disk).map_err(|error| error.to_string())?;
            let beside = path.with_extension("new");
            fs::write(&beside, text).map_err(|error| error.to_string())?;
            fs::rename(&beside, &path).map_err(|error| error.to_string())
        })
    }

    fn read(&self) -> Result<Option<Disk>, String> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.to_string()),
        };
        let mut text = String::new();
        file.take(MAX_FILE_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
        let disk: Disk = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        match disk.inventory().fault() {
            Some(fault) => Err(fault.to_owned()),
            None => Ok(Some(disk)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_read_as_it_was_written_and_a_broken_one_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let file = DiskFile::new(folder.path().join("disk.json"));
        assert_eq!(file.load(), Disk::default());
        let disk = Disk { boot: 7, next: Some(Disk::default().booted), ..Disk::default() };
        file.saver()(&disk).unwrap();
        assert_eq!(file.load(), disk);
        fs::write(&file.path, "{").unwrap();
        assert_eq!(file.load(), Disk::default());
        let impossible = Disk { booted: super::super::digest(9), ..Disk::default() };
        file.saver()(&impossible).unwrap();
        assert_eq!(file.load(), Disk::default());
    }
}
