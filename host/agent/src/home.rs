//! Putting a restored home in the place of what is there.
//!
//! Whoever restores a home fills a folder in it, and then has that folder called [`RESTORED`]: one rename, before which
//! nothing has changed. What that asks for is done here, before anything of the profile runs, by renames alone, each of
//! which may be the last one before the power goes: whoever comes next goes on. What was there before is moved to
//! [`REPLACING`], then the new to its place, and then what was there before is for the one who restores to remove; removing
//! takes longer than a session may wait.
//!
//! If something cannot be moved while there is nothing new in the home yet, all goes back, and the restore is none: nothing
//! strikes later. After that there is no way back: [`is_half`] says so, whoever comes next tries to go on, and until that
//! is done the host lets nobody play here.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use punktfunk_agent::{OWN, PLACING, REPLACED, REPLACING, RESTORED, RESTORING};
use rustix::fs::{CWD, RenameFlags, renameat_with};

/// Puts a folder of this home in the place of everything else there. It takes the place of a restored home that could
/// neither be put in its place nor be taken back.
///
/// # Errors
/// As [`settle`].
pub(crate) fn put_in_place(home: &Path, folder: &str) -> io::Result<()> {
    let (folder_path, restored) = (home.join(folder), home.join(RESTORED));
    if !folder.starts_with(RESTORING) || folder.contains('/') || !is_folder(&folder_path) {
        return Err(io::Error::other("this is no folder of a restore"));
    }
    if is_folder(&restored) {
        // What is there goes with what restores have left.
        renameat_with(CWD, &folder_path, CWD, &restored, RenameFlags::EXCHANGE)?;
    } else {
        // What a game has left under that name is no restored home.
        match fs::remove_file(&restored) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => fs::rename(&folder_path, &restored)?,
        }
    }
    settle(home)
}

/// Finishes what a restore has begun in this home; most often there is nothing to do.
///
/// # Errors
/// Something could not be moved. Either the home is as it was before the restore, and what was restored is only left to be
/// removed, or [`is_half`].
pub(crate) fn settle(home: &Path) -> io::Result<()> {
    if is_folder(&home.join(RESTORED)) {
        put_aside(home).map_err(|error| match take_back(home) {
            Ok(()) => error,
            Err(other) => io::Error::other(format!("{error}, nor can it be taken back: {other}")),
        })?;
    }
    if is_folder(&home.join(PLACING)) { place(home) } else { Ok(()) }
}

/// Whether a restore has begun to replace this home and could not be finished.
pub(crate) fn is_half(home: &Path) -> bool {
    is_folder(&home.join(RESTORED)) || is_folder(&home.join(PLACING))
}

/// Moves everything out of the way of what was restored.
fn put_aside(home: &Path) -> io::Result<()> {
    let [restored, placing, replacing] = [RESTORED, PLACING, REPLACING].map(|name| home.join(name));
    make_workable(&restored)?;
    // A home that was half put in place when another restore came: what is there of it goes like everything else, but not
    // among what was there before it.
    if is_folder(&placing) || !is_folder(&replacing) {
        retire(home)?;
    }
    match DirBuilder::new().mode(0o700).create(&replacing) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => make_workable(&replacing)?,
    }
    for name in names(home)? {
        let stays = [RESTORED, REPLACING].iter().any(|own| name == *own)
            || [RESTORING, REPLACED].iter().any(|own| begins(&name, own));
        if !stays {
            carry(&home.join(&name), &replacing.join(&name))?;
        }
    }
    fs::rename(&restored, &placing)
}

/// Undoes that, and has what was restored look like what restores leave. A cut on the way is one before: whoever comes
/// next begins again.
fn take_back(home: &Path) -> io::Result<()> {
    let replacing = home.join(REPLACING);
    if is_folder(&replacing) {
        for name in names(&replacing)? {
            carry(&replacing.join(&name), &home.join(&name))?;
        }
        fs::remove_dir(&replacing)?;
    }
    fs::rename(home.join(RESTORED), unused(home, RESTORING)?)
}

/// Moves what was restored to its place, in which there is nothing else.
fn place(home: &Path) -> io::Result<()> {
    let placing = home.join(PLACING);
    make_workable(&placing)?;
    for name in names(&placing)? {
        // No backup of ours has such a name; here it would be taken for what another restore has left.
        if !begins(&name, OWN) {
            carry(&placing.join(&name), &home.join(&name))?;
        }
    }
    retire(home)?;
    // What stays in it is for whoever cleans up.
    fs::remove_dir(&placing)
        .or_else(|_| unused(home, RESTORING).and_then(|name| fs::rename(&placing, name)))
}

/// Has what was moved away look like what restores leave.
fn retire(home: &Path) -> io::Result<()> {
    let replacing = home.join(REPLACING);
    match fs::symlink_metadata(&replacing) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        _ => fs::rename(&replacing, unused(home, REPLACED)?),
    }
}

/// Whoever made the backup chose the folder's mode, which may keep its owner from it; it is nobody's in the end.
fn make_workable(folder: &Path) -> io::Result<()> {
    fs::set_permissions(folder, Permissions::from_mode(0o700))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

fn begins(name: &OsStr, with: &str) -> bool {
    name.as_encoded_bytes().starts_with(with.as_bytes())
}

fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name())).collect()
}

/// A name that nothing in the home has.
fn unused(home: &Path, begins_with: &str) -> io::Result<PathBuf> {
    for number in 0..u32::MAX {
        let path = home.join(format!("{begins_with}{number}"));
        match fs::symlink_metadata(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(path),
            Err(error) => return Err(error),
            Ok(_) => {}
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
        let left = seen(home)
            .into_iter()
            .filter(|name| ![RESTORING, REPLACED].iter().any(|own| name.starts_with(own)));
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
        fs::create_dir(one.path().join(REPLACING)).unwrap();
        fs::rename(one.path().join("gone"), one.path().join(REPLACING).join("gone")).unwrap();
        check(one.path());
        // As after a part of the new was.
        let two = home();
        restored(two.path());
        let replaced = two.path().join(REPLACING);
        fs::create_dir(&replaced).unwrap();
        for name in ["save", ".config", "gone"] {
            fs::rename(two.path().join(name), replaced.join(name)).unwrap();
        }
        fs::rename(two.path().join(RESTORED), two.path().join(PLACING)).unwrap();
        fs::rename(two.path().join(PLACING).join("save"), two.path().join("save")).unwrap();
        check(two.path());
    }

    /// What is in it looks like what restores use.
    #[test]
    fn names_of_restores_in_a_restored_home_stay_behind() {
        let home = home();
        restored(home.path());
        for name in [RESTORED, PLACING, REPLACING, ".punktfunk-restore-0", ".punktfunk-replaced-0"]
        {
            write(home.path(), &format!("{RESTORED}/{name}/save"), "odd");
        }
        check(home.path());
        check(home.path());
        assert!(seen(home.path()).contains(&format!("{RESTORING}0/{RESTORED}/save=odd")));
        assert!(!is_half(home.path()));
    }

    /// Leaves the thread what every user may.
    fn be_nobody() {
        use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
        let mine = capabilities(None).unwrap();
        let none = CapabilitySets { effective: CapabilitySet::empty(), ..mine };
        set_capabilities(None, none).unwrap();
    }

    #[test]
    fn no_mode_of_a_restored_folder_keeps_it_from_its_place() {
        be_nobody();
        for name in [RESTORED, PLACING] {
            for mode in [0o000, 0o500, 0o300] {
                let home = tempfile::tempdir().unwrap();
                let usual = fs::metadata(home.path()).unwrap().permissions();
                restored(home.path());
                fs::rename(home.path().join(RESTORED), home.path().join(name)).unwrap();
                let odd = Permissions::from_mode(mode);
                fs::set_permissions(home.path().join(name), odd).unwrap();
                check(home.path());
                assert_eq!(fs::metadata(home.path()).unwrap().permissions(), usual);
            }
        }
    }

    #[test]
    fn what_cannot_be_moved_away_takes_the_restore_back() {
        let outer = tempfile::tempdir().unwrap();
        let mut home = outer.path().to_owned();
        // So long that a name fits into the home and not into a folder of it.
        while home.as_os_str().len() < 3600 {
            home.push("x".repeat(200));
        }
        home.push("x".repeat(3829 - home.as_os_str().len()));
        fs::create_dir_all(&home).unwrap();
        for name in ["a", "b", "c"] {
            write(&home, &format!("{name}/save"), "old");
        }
        fs::write(home.join("y".repeat(255)), "old").unwrap();
        let before = seen(&home);
        fs::create_dir(home.join(".punktfunk-restore-7")).unwrap();
        write(&home, ".punktfunk-restore-7/a", "new");
        put_in_place(&home, ".punktfunk-restore-7").unwrap_err();
        assert!(!is_half(&home));
        settle(&home).unwrap();
        fs::remove_dir_all(home.join(".punktfunk-restore-0")).unwrap();
        assert_eq!(seen(&home), before);
    }

    /// One that has a part of what was there before in its way.
    fn stuck() -> tempfile::TempDir {
        let home = home();
        restored(home.path());
        write(home.path(), ".punktfunk-replacing/gone/b", "old");
        home
    }

    #[test]
    fn what_cannot_be_taken_back_either_is_half_until_it_can_be_done() {
        let home = stuck();
        let error = settle(home.path()).unwrap_err().to_string();
        assert!(error.contains("nor can it be taken back"), "{error}");
        assert!(is_half(home.path()));
        let inner = home.path().join(REPLACING).join("gone");
        fs::rename(inner, home.path().join(REPLACING).join("other")).unwrap();
        settle(home.path()).unwrap();
        assert!(!is_half(home.path()));
        check(home.path());

        // In the middle of what is new.
        let home = self::home();
        write(home.path(), ".punktfunk-placing/gone/b", "new");
        settle(home.path()).unwrap_err();
        assert!(is_half(home.path()));
        fs::remove_dir_all(home.path().join("gone")).unwrap();
        settle(home.path()).unwrap();
        assert!(!is_half(home.path()) && home.path().join("gone/b").exists());
    }

    #[test]
    fn another_restore_mends_a_half_restored_home() {
        for marker in [RESTORED, PLACING] {
            let home = home();
            write(home.path(), &format!("{marker}/gone/b"), "half");
            write(home.path(), ".punktfunk-replacing/other", "old");
            write(home.path(), ".punktfunk-restore-7/save", "new");
            write(home.path(), ".punktfunk-restore-7/.config/game", "new");
            put_in_place(home.path(), ".punktfunk-restore-7").unwrap();
            assert!(!is_half(home.path()));
            check(home.path());
        }
    }

    #[test]
    fn only_a_folder_of_a_restore_is_put_in_place() {
        let home = home();
        let before = seen(home.path());
        for folder in ["gone", ".punktfunk-restore-1", ".punktfunk-restore-/../gone", "", "/etc"] {
            put_in_place(home.path(), folder).unwrap_err();
        }
        write(home.path(), RESTORED, "a file of a game's");
        write(home.path(), ".punktfunk-restore-1/save", "new");
        write(home.path(), ".punktfunk-restore-1/.config/game", "new");
        put_in_place(home.path(), ".punktfunk-restore-1").unwrap();
        check(home.path());
        assert!(before.len() == 3);
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
