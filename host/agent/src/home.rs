//! Putting a restored home in the place of what is there.
//!
//! Whoever restores a home fills a folder in it, and then calls that folder [`RESTORED`]: one rename, before which nothing
//! has changed and after which the restore holds. What that asks for is done here, before anything of the profile runs,
//! by renames alone, each of which may be the last one before the power goes: whoever comes next goes on. What was there
//! before ends in a folder of its own, for the one who restores to remove; removing takes longer than a session may wait.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use punktfunk_agent::{PLACING, REPLACED, RESTORED, RESTORING};

/// Finishes what a restore has begun in this home; most often there is nothing to do.
///
/// # Errors
/// Something could not be moved; what was moved stays moved, and the next call goes on.
pub(crate) fn settle(home: &Path) -> io::Result<()> {
    let (restored, placing) = (home.join(RESTORED), home.join(PLACING));
    if is_folder(&restored) {
        // A home that was half put in place when another restore came: what is there of it goes like everything else.
        let replaced = make_replaced(home)?;
        for name in names(home)? {
            let text = name.to_string_lossy();
            let is_ours =
                name == RESTORED || [RESTORING, REPLACED].iter().any(|own| text.starts_with(own));
            if !is_ours {
                carry(&home.join(&name), &replaced.join(&name))?;
            }
        }
        fs::rename(&restored, &placing)?;
    }
    if is_folder(&placing) {
        for name in names(&placing)? {
            carry(&placing.join(&name), &home.join(&name))?;
        }
        fs::remove_dir(&placing)?;
    }
    Ok(())
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn names(folder: &Path) -> io::Result<Vec<std::ffi::OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// A folder that nothing is in yet.
fn make_replaced(home: &Path) -> io::Result<PathBuf> {
    for number in 0..u32::MAX {
        let folder = home.join(format!("{REPLACED}{number}"));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many restores have left something here"))
}

/// Moves an entry to another folder. One that its owner may not write to can only be moved by somebody who makes that
/// possible for as long as it takes.
fn carry(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied && is_folder(from) => {
            let mode = fs::symlink_metadata(from)?.permissions();
            fs::set_permissions(from, Permissions::from_mode(0o700))?;
            fs::rename(from, to)?;
            fs::set_permissions(to, mode)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is in a home, sorted: files with their words, and modes that are not usual.
    fn seen(home: &Path) -> Vec<String> {
        let mut all = vec![];
        for name in names(home).unwrap() {
            let path = home.join(&name);
            let name = name.into_string().unwrap();
            if is_folder(&path) {
                all.extend(seen(&path).into_iter().map(|inner| format!("{name}/{inner}")));
            } else {
                all.push(format!("{name}={}", fs::read_to_string(&path).unwrap()));
            }
        }
        all.sort();
        all
    }

    fn write(home: &Path, path: &str, words: &str) {
        fs::create_dir_all(home.join(path).parent().unwrap()).unwrap();
        fs::write(home.join(path), words).unwrap();
    }

    fn home() -> tempfile::TempDir {
        let home = tempfile::tempdir().unwrap();
        write(home.path(), "save", "old");
        write(home.path(), ".config/game", "old");
        write(home.path(), "gone/a", "old");
        home
    }

    fn restored(home: &Path) {
        write(home, ".punktfunk-restored/save", "new");
        write(home, ".punktfunk-restored/.config/game", "new");
    }

    const NEW: [&str; 2] = [".config/game=new", "save=new"];

    fn check(home: &Path) {
        settle(home).unwrap();
        let left = seen(home).into_iter().filter(|name| !name.starts_with(REPLACED));
        assert_eq!(left.collect::<Vec<_>>(), NEW);
        assert!(!home.join(RESTORED).exists() && !home.join(PLACING).exists());
    }

    #[test]
    fn a_home_is_left_alone_until_one_was_restored() {
        let home = home();
        let before = seen(home.path());
        write(home.path(), ".punktfunk-restore-1/save", "half");
        settle(home.path()).unwrap();
        fs::remove_dir_all(home.path().join(".punktfunk-restore-1")).unwrap();
        assert_eq!(seen(home.path()), before);
        // No folder: not ours.
        std::os::unix::fs::symlink("/", home.path().join(RESTORED)).unwrap();
        settle(home.path()).unwrap();
        fs::remove_file(home.path().join(RESTORED)).unwrap();
        assert_eq!(seen(home.path()), before);
        settle(Path::new("/nonexistent")).unwrap();
    }

    #[test]
    fn a_restored_home_replaces_what_was_there() {
        let home = home();
        restored(home.path());
        check(home.path());
        let kept = fs::read_to_string(home.path().join(".punktfunk-replaced-0/gone/a")).unwrap();
        assert_eq!(kept, "old", "it is for the one who restores to remove");
        check(home.path());
        restored(home.path());
        check(home.path());
    }

    #[test]
    fn whoever_comes_after_a_cut_goes_on() {
        // As after a part of the old was moved.
        let one = home();
        restored(one.path());
        fs::create_dir(one.path().join(".punktfunk-replaced-0")).unwrap();
        fs::rename(one.path().join("gone"), one.path().join(".punktfunk-replaced-0/gone")).unwrap();
        check(one.path());
        // As after a part of the new was.
        let two = home();
        restored(two.path());
        let replaced = make_replaced(two.path()).unwrap();
        for name in ["save", ".config", "gone"] {
            fs::rename(two.path().join(name), replaced.join(name)).unwrap();
        }
        fs::rename(two.path().join(RESTORED), two.path().join(PLACING)).unwrap();
        fs::rename(two.path().join(PLACING).join("save"), two.path().join("save")).unwrap();
        check(two.path());
    }

    #[test]
    fn a_folder_that_may_not_be_written_to_moves_with_its_mode() {
        let home = home();
        restored(home.path());
        let closed = |path: &str| {
            fs::set_permissions(home.path().join(path), Permissions::from_mode(0o555)).unwrap();
        };
        closed("gone");
        closed(".punktfunk-restored/.config");
        check(home.path());
        let mode = |path: &str| fs::metadata(home.path().join(path)).unwrap().permissions().mode();
        assert_eq!(mode(".config") & 0o777, 0o555);
        assert_eq!(mode(".punktfunk-replaced-0/gone") & 0o777, 0o555);
    }
}
