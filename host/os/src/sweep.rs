//! Removes what a factory reset has put aside, after the start and at its leisure.
//!
//! What lies there was made by the daemon and by games, so it may be of any depth and any kind. No link is followed: each
//! name is removed in a folder that is open, and a folder is opened only if it is one. Folders in folders are first moved
//! up into the one that is swept, so a tree of any depth takes two open folders and no recursion. Every step leaves less;
//! a cut of the power loses nothing, and the next start sweeps on.
//!
//! Deliberately absent: overwriting. On flash memory that reaches nothing, and on the rest it would take a day.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::UNIX_EPOCH;

use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags, RenameFlags, openat, renameat_with, unlinkat};
use rustix::io::Errno;

use crate::files::FileError;
use crate::reset::FORGOTTEN;

/// So many names are read at once.
const MAX_NAMES: usize = 1024;

/// Removes all that was put aside in root's folder of state. Gives how many folders of a reset are gone. One that cannot
/// be removed keeps no other from its turn.
///
/// # Errors
/// The first thing that could not be removed; the rest is.
pub fn sweep(state: &Path) -> Result<usize, FileError> {
    let failed = |doing| move |error: Errno| FileError::new(doing, state, error.into());
    let folder = open(CWD, state).map_err(failed("open"))?;
    let (mut count, mut first) = (0, Ok(()));
    for name in all_names(&folder).map_err(failed("list"))? {
        if !name.to_bytes().starts_with(FORGOTTEN.as_bytes()) {
            continue;
        }
        match remove(&folder, &name) {
            Ok(()) => count += 1,
            Err(error) => {
                let path = state.join(name.to_string_lossy().as_ref());
                first = first.and(Err(FileError::new("remove all of", &path, error.into())));
            }
        }
    }
    first.map(|()| count)
}

/// Removes a name and all that lies below it.
fn remove(folder: &OwnedFd, name: &CString) -> Result<(), Errno> {
    if !unlink(folder, name)? {
        return Ok(());
    }
    let top = open(folder, name)?;
    // What is moved up gets a name of its own; a sweep that was cut may have left such names.
    let mut number = UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    loop {
        let names = some_names(&top)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if unlink(&top, &name)? {
                empty(&top, &name, &mut number)?;
            }
        }
    }
    absent_is_fine(unlinkat(folder, name, AtFlags::REMOVEDIR))
}

/// Empties a folder of the top one and removes it; its own folders that are not empty are moved to the top.
fn empty(top: &OwnedFd, name: &CString, number: &mut u128) -> Result<(), Errno> {
    let inside = open(top, name)?;
    loop {
        let names = some_names(&inside)?;
        if names.is_empty() {
            break;
        }
        for name in names {
            if !unlink(&inside, &name)? {
                continue;
            }
            match unlinkat(&inside, &name, AtFlags::REMOVEDIR) {
                Err(Errno::NOTEMPTY) => move_up(&inside, &name, top, number)?,
                done => absent_is_fine(done)?,
            }
        }
    }
    absent_is_fine(unlinkat(top, name, AtFlags::REMOVEDIR))
}

fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd, number: &mut u128) -> Result<(), Errno> {
    loop {
        *number = number.wrapping_add(1);
        let to = format!("{number:x}");
        match renameat_with(from, name, top, to.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            done => return absent_is_fine(done),
        }
    }
}

/// Removes a name that is no folder. Gives whether it is one, and stays.
fn unlink(folder: &OwnedFd, name: &CString) -> Result<bool, Errno> {
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::ISDIR) => Ok(true),
        done => absent_is_fine(done).map(|()| false),
    }
}

fn absent_is_fine(done: Result<(), Errno>) -> Result<(), Errno> {
    match done {
        Err(Errno::NOENT) => Ok(()),
        done => done,
    }
}

/// A folder, and never what a link leads to.
fn open(at: impl std::os::fd::AsFd, path: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(at, path, flags, Mode::empty())
}

fn all_names(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    names(folder).collect::<Result<_, _>>()
}

/// Some of the names, as long as there are any.
fn some_names(folder: &OwnedFd) -> Result<Vec<CString>, Errno> {
    names(folder).take(MAX_NAMES).collect()
}

fn names(folder: &OwnedFd) -> impl Iterator<Item = Result<CString, Errno>> {
    let (entries, failed) = match Dir::read_from(folder) {
        Ok(entries) => (Some(entries), None),
        Err(error) => (None, Some(Err(error))),
    };
    let entries = entries.into_iter().flatten();
    let names = entries.filter_map(|entry| match entry {
        Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => None,
        entry => Some(entry.map(|entry| entry.file_name().to_owned())),
    });
    failed.into_iter().chain(names)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_tree_of_any_depth_and_kind_goes() {
        let state = tempfile::tempdir().unwrap();
        let top = state.path().join("forgotten-3");
        fs::create_dir(&top).unwrap();
        // Far deeper than a path can say or a stack can bear with a folder open in each.
        let mut inside = open(CWD, &top).unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&inside, "d", Mode::from_raw_mode(0o700)).unwrap();
            fs::write(format!("/proc/self/fd/{}/f", raw(&inside)), "x").unwrap();
            inside = open(&inside, "d").unwrap();
        }
        fs::create_dir_all(top.join("wide/of/much")).unwrap();
        for number in 0..3 * MAX_NAMES {
            fs::write(top.join(format!("wide/{number}")), "x").unwrap();
            fs::create_dir(top.join(format!("wide/of/{number}"))).unwrap();
        }
        fs::write(top.join("wide/of/much/file"), "x").unwrap();
        fs::set_permissions(top.join("wide/of"), fs::Permissions::from_mode(0o700)).unwrap();
        rustix::fs::mknodat(
            CWD,
            top.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::from_raw_mode(0o600),
            0,
        )
        .unwrap();
        assert_eq!(sweep(state.path()).unwrap(), 1);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 0);
    }

    fn raw(fd: &OwnedFd) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(fd)
    }

    #[test]
    fn only_what_was_put_aside_goes_and_no_link_is_followed() {
        let (state, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(outside.path().join("kept"), "x").unwrap();
        fs::write(state.path().join("ledger.json"), "x").unwrap();
        fs::create_dir_all(state.path().join("forgotten-0/a/b")).unwrap();
        for link in ["forgotten-0/out", "forgotten-0/a/out", "forgotten-0/a/b/out", "forgotten-1"] {
            symlink(outside.path(), state.path().join(link)).unwrap();
        }
        fs::write(state.path().join("forgotten-2"), "x").unwrap();
        // Not even where a folder has become a link since it was looked at.
        let link = open(CWD, state.path().join("forgotten-1"));
        assert_eq!(link.unwrap_err(), Errno::NOTDIR);
        assert_eq!(sweep(state.path()).unwrap(), 3);
        assert_eq!(sweep(state.path()).unwrap(), 0);
        assert!(outside.path().join("kept").exists());
        let left: Vec<_> = fs::read_dir(state.path()).unwrap().collect();
        assert_eq!(left.len(), 1);
        assert!(sweep(&state.path().join("nowhere")).is_err());
    }

    #[test]
    #[ignore = "needs root"]
    fn what_cannot_be_removed_keeps_nothing_else_from_its_turn() {
        use nix::mount::{MsFlags, mount, umount};
        let state = tempfile::tempdir().unwrap();
        for folder in ["forgotten-0/mounted", "forgotten-1/a"] {
            fs::create_dir_all(state.path().join(folder)).unwrap();
        }
        let mounted = state.path().join("forgotten-0/mounted");
        mount(Some("none"), &mounted, Some("tmpfs"), MsFlags::empty(), None::<&str>).unwrap();
        let swept = sweep(state.path());
        umount(&mounted).unwrap();
        assert!(swept.unwrap_err().to_string().contains("forgotten-0"));
        assert!(!state.path().join("forgotten-1").exists());
        assert_eq!(sweep(state.path()).unwrap(), 1);
    }
}
