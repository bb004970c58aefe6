//! Carries a plan out. Each step is on the disk before the next one begins.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use super::plan::Step;
use crate::files::{self, FileError};

/// Takes the steps in their order, and stops at the first that fails: what lies there then is as good as before.
pub fn apply(steps: &[Step], sysroot: &Path, esp: &Path) -> Result<(), FileError> {
    steps.iter().try_for_each(|step| take(step, sysroot, esp))
}

fn take(step: &Step, sysroot: &Path, esp: &Path) -> Result<(), FileError> {
    match step {
        Step::Folder(path) => folder(&esp.join(path)),
        Step::Copy { from, to, bytes } => {
            copy(&sysroot.join("boot").join(from), &esp.join(to), *bytes)?;
            sync(esp)
        }
        Step::Write { to, text } => {
            // All that it speaks of is on the disk before it is.
            sync(esp)?;
            clear(&esp.join(to))?;
            files::replace(&esp.join(to), text.as_bytes(), 0o600)?;
            sync(esp)
        }
        Step::Remove(path) => {
            absent(fs::remove_file(esp.join(path)), "remove", &esp.join(path))?;
            sync(esp)
        }
        Step::Clean(path) => {
            cleaned(absent(fs::remove_file(esp.join(path)), "remove", &esp.join(path)));
            sync(esp)
        }
        Step::RemoveFolder(path) => {
            cleaned(absent(fs::remove_dir(esp.join(path)), "remove", &esp.join(path)));
            Ok(())
        }
        Step::Link { id, target } => link(&sysroot.join(format!("ostree/pf/{id}")), target),
        Step::Unlink(id) => {
            let path = sysroot.join(format!("ostree/pf/{id}"));
            absent(fs::remove_file(&path), "remove", &path)
        }
    }
}

fn folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(|source| FileError::new("make the folder", path, source))
}

/// What stays lying about takes room and does no other harm.
fn cleaned(done: Result<(), FileError>) {
    if let Err(error) = done {
        complain!("{error}");
    }
}

/// Where a file is to be, and where it lies until it is whole, there is no folder of somebody else's making.
fn clear(to: &Path) -> Result<(), FileError> {
    for path in [to, &files::part(to)] {
        if fs::symlink_metadata(path).is_ok_and(|about| about.is_dir()) {
            let removed = fs::remove_dir_all(path);
            removed.map_err(|source| FileError::new("remove", path, source))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path, bytes: u64) -> Result<(), FileError> {
    clear(to)?;
    let part = files::part(to);
    let failed = |source| FileError::new("copy to", &part, source);
    let mut source = File::open(from).map_err(|error| FileError::new("read", from, error))?;
    let mut target = File::create(&part).map_err(failed)?;
    let copied = io::copy(&mut source, &mut target).map_err(failed)?;
    if copied != bytes {
        let text = format!("{copied} bytes came, {bytes} were there when it was planned");
        return Err(failed(io::Error::other(text)));
    }
    target.sync_all().map_err(failed)?;
    fs::rename(&part, to).map_err(|source| FileError::new("rename over", to, source))?;
    files::sync_folder_of(to)
}

/// Makes a link lead somewhere, by renaming, so that it leads somewhere at every moment.
pub fn link(path: &Path, target: &str) -> Result<(), FileError> {
    if fs::read_link(path).is_ok_and(|now| now.as_os_str() == target) {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        folder(parent)?;
    }
    let part = files::part(path);
    absent(fs::remove_file(&part), "remove", &part)?;
    symlink(target, &part).map_err(|source| FileError::new("make the link", &part, source))?;
    fs::rename(&part, path).map_err(|source| FileError::new("rename over", path, source))?;
    files::sync_folder_of(path)
}

fn absent(done: io::Result<()>, doing: &'static str, path: &Path) -> Result<(), FileError> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|source| FileError::new(doing, path, source)),
    }
}

/// Brings all of the file system to the disk: FAT keeps what a folder says elsewhere than in the folder's own blocks.
fn sync(esp: &Path) -> Result<(), FileError> {
    let failed = |source| FileError::new("sync", esp, source);
    let folder = File::open(esp).map_err(failed)?;
    rustix::fs::syncfs(&folder).map_err(|error| failed(error.into()))
}
