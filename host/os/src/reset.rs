//! The factory reset: at a start, before anybody opens anything, everything of the owner is put aside.
//!
//! The attendant writes a marker when the owner's proof was good. The next start finds it and renames what is the owner's
//! into one folder of root's; only when all of it lies there, on the disk, does the marker go. Renaming takes no time,
//! however much there is, and a cut of the power at any moment leaves the marker, so that the next start goes on. What
//! lies aside is removed by [`sweep`](crate::sweep) afterwards, and nothing reads it any more.
//!
//! What is the owner's is told by what is not: of the product's folder everything but root's own, so that a folder that
//! comes later is not left behind by mistake; of root's own the owner's key and a permit. What root remembers of versions
//! stays, and of updates: a reset must be no way to an older version. So do the digests of used reset files, because a
//! stick that is left in must not show anybody again.
//!
//! Nothing is opened below a folder of the daemon's or of a session's, and no link is followed: a name in a folder of
//! root's is changed, whatever stands behind it. What lies on another file system cannot be put aside so; then nothing is
//! done at all, and the start says why.
//!
//! Deliberately absent: /etc, the journal and the deployments, which are not the owner's things but the system's; and any
//! promise that flash memory holds nothing of what was removed.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::files::{self, FileError};
use crate::permit;
use crate::place::mounts_below;

/// The marker in root's folder of state.
pub const MARKER: &str = "reset.json";

/// What is put aside lies in root's folder of state, in a folder that begins so and ends in a number.
pub const FORGOTTEN: &str = "forgotten-";

/// It is never longer, in bytes.
const MAX_BYTES: u64 = 1024;

/// What is the owner's in root's own folder.
const OWNERS: [&str; 2] = [crate::attend::owner::NAME, permit::NAME];

/// Why nothing was put aside.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// A file or a folder could not be changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// It lies on another file system.
    #[error(
        "{0} is a disk of its own; take it out of the list of disks, then start the machine again"
    )]
    Elsewhere(PathBuf),
}

/// Where the owner's things are.
#[derive(Debug, Clone)]
pub struct Ground {
    /// The product's folder, which is root's.
    pub product: PathBuf,
    /// Root's folder of state in it.
    pub state: PathBuf,
}

/// One thing that is done, whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A folder for what is put aside.
    Make(PathBuf),
    /// Put aside.
    Move(PathBuf, PathBuf),
    /// Bring the names in a folder to the disk.
    Sync(PathBuf),
    /// The marker goes.
    Unmark(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    boot_id: String,
}

/// Notes that the next start is to forget the owner.
///
/// # Errors
/// The disk did not take it; then the next start is one as any other.
pub fn arrange(state: &Path, boot_id: &str) -> Result<(), FileError> {
    // A disk without room says so now, not when the owner takes all for forgotten.
    let aside = state.join(format!("{FORGOTTEN}{}", next_number(state)?));
    take(&Step::Make(aside))?;
    let path = state.join(MARKER);
    let text = serde_json::to_vec(&Marker { boot_id: boot_id.to_owned() })
        .map_err(|source| FileError::new("put into words", &path, io::Error::other(source)))?;
    files::replace(&path, &text, 0o600)
}

/// Whether this start is to forget the owner. Not the start in which that was asked for: the daemon runs in it. A marker
/// that says nothing more is one all the same; nobody but us writes it, and whole.
pub fn is_due(state: &Path, boot_id: &str) -> Result<bool, FileError> {
    match files::read(&state.join(MARKER), MAX_BYTES) {
        Ok(text) => {
            let asked = serde_json::from_slice(&text).map(|marker: Marker| marker.boot_id);
            Ok(asked.map_or(true, |asked| asked.is_empty() || asked != boot_id))
        }
        Err(error) if error.is_absent() => Ok(false),
        Err(FileError::TooLong { .. }) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Puts everything of the owner aside. The folders that others expect are to be made anew afterwards.
///
/// # Errors
/// See [`ResetError`]; the marker stays, and the next start goes on.
pub fn forget(ground: &Ground) -> Result<(), ResetError> {
    for step in plan(ground)? {
        take(&step)?;
    }
    Ok(())
}

/// What is to be done, in this order. After every beginning of it the marker is there, unless nothing of the owner is.
///
/// # Errors
/// See [`ResetError`]; nothing has been touched.
pub fn plan(ground: &Ground) -> Result<Vec<Step>, ResetError> {
    let Ground { product, state } = ground;
    let number = next_number(state)?;
    let made = number.checked_sub(1).map(|last| state.join(format!("{FORGOTTEN}{last}")));
    let made = made.filter(|folder| names(folder).is_ok_and(|names| names.is_empty()));
    let aside = made.clone().unwrap_or_else(|| state.join(format!("{FORGOTTEN}{number}")));
    // However deep it lies: renamed along, it would be the next owner's.
    let elsewhere = mounts_below(product)?.into_iter().find(|point| !point.starts_with(state));
    if let Some(point) = elsewhere {
        return Err(ResetError::Elsewhere(point));
    }
    let mut steps: Vec<Step> =
        if made.is_some() { Vec::new() } else { vec![Step::Make(aside.clone())] };
    let is_roots = |path: &PathBuf| path == state;
    let things = names(product)?.into_iter().map(|name| product.join(name));
    let kept = OWNERS.iter().map(|name| state.join(name));
    for thing in things.filter(|path| !is_roots(path)).chain(kept) {
        // Nothing is there, or not even a link to nothing.
        if fs::symlink_metadata(&thing).is_err() {
            continue;
        }
        let to = aside.join(thing.file_name().unwrap_or_default());
        steps.push(Step::Move(thing, to));
    }
    steps.extend([&aside, product, state].map(|folder| Step::Sync(folder.clone())));
    steps.extend([Step::Unmark(state.join(MARKER)), Step::Sync(state.clone())]);
    Ok(steps)
}

/// Does one thing.
///
/// # Errors
/// The system refused.
pub fn take(step: &Step) -> Result<(), FileError> {
    match step {
        Step::Make(folder) => DirBuilder::new()
            .mode(0o700)
            .create(folder)
            .map_err(|source| FileError::new("make the folder", folder, source)),
        Step::Move(from, to) => {
            fs::rename(from, to).map_err(|source| FileError::new("put aside", from, source))
        }
        Step::Sync(folder) => files::sync_folder_of(&folder.join("x")),
        Step::Unmark(marker) => match fs::remove_file(marker) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError::new("remove", marker, source))
            }
            _ => Ok(()),
        },
    }
}

/// What is put aside now has a folder of its own: one that a cut left behind may hold the same names.
fn next_number(state: &Path) -> Result<u64, FileError> {
    let numbers = names(state)?
        .into_iter()
        .filter_map(|name| name.to_str()?.strip_prefix(FORGOTTEN)?.parse::<u64>().ok());
    Ok(numbers.max().map_or(0, |last| last.saturating_add(1)))
}

/// The names in a folder of root's, sorted.
fn names(folder: &Path) -> Result<Vec<std::ffi::OsString>, FileError> {
    let failed = |source| FileError::new("list", folder, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        names.push(entry.map_err(failed)?.file_name());
    }
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::time::Duration;

    use super::*;
    use crate::sweep::sweep;

    const SECRET: &str = "the owner's";

    /// A box that is somebody's, and whose next start is to forget that.
    struct Box(tempfile::TempDir);

    impl Box {
        fn new() -> Self {
            let this = Self(tempfile::tempdir().unwrap());
            let at = |path: &str| this.0.path().join("punktfunk").join(path);
            for folder in ["host/logs", "profiles/0/saves", "profiles/1", "later", "os/updates"] {
                fs::create_dir_all(at(folder)).unwrap();
            }
            for file in
                ["host/state.db", "profiles/0/saves/game", "later/thing", "os/owner.json", "note"]
            {
                fs::write(at(file), SECRET).unwrap();
            }
            permit::write(&at("os"), "c", "before", Duration::ZERO).unwrap();
            for kept in ["os/ledger.json", "os/reset-files.json", "os/updates/newest.json"] {
                fs::write(at(kept), "root's").unwrap();
            }
            arrange(&at("os"), "before").unwrap();
            this
        }

        fn ground(&self) -> Ground {
            let product = self.0.path().join("punktfunk");
            Ground { state: product.join("os"), product }
        }

        /// As tmpfiles does it at each start, before.
        fn make_anew(&self) {
            for folder in ["host", "profiles", "os"] {
                fs::create_dir_all(self.ground().product.join(folder)).unwrap();
            }
        }

        /// Every file and link with what is in it, and every folder.
        fn all(&self) -> BTreeMap<String, String> {
            fn walk(folder: &Path, all: &mut BTreeMap<String, String>) {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    let kind = fs::symlink_metadata(&path).unwrap().file_type();
                    let text = match () {
                        () if kind.is_symlink() => "a link".to_owned(),
                        () if kind.is_dir() => "a folder".to_owned(),
                        () => fs::read_to_string(&path).unwrap(),
                    };
                    all.insert(path.to_string_lossy().into_owned(), text);
                    if kind.is_dir() {
                        walk(&path, all);
                    }
                }
            }
            let mut all = BTreeMap::new();
            walk(&self.ground().product, &mut all);
            let begin = self.ground().product.to_string_lossy().into_owned() + "/";
            all.into_iter().map(|(path, text)| (path.replace(&begin, ""), text)).collect()
        }

        /// A start, as the verb makes it.
        fn start(&self) {
            self.make_anew();
            if is_due(&self.ground().state, "now").unwrap() {
                forget(&self.ground()).unwrap();
            }
            self.make_anew();
        }
    }

    fn new() -> BTreeMap<String, String> {
        let folder = ["host", "profiles", "os", "os/updates"].map(|path| (path, "a folder"));
        let kept = ["os/ledger.json", "os/reset-files.json", "os/updates/newest.json"];
        let all = folder.into_iter().chain(kept.map(|path| (path, "root's")));
        all.map(|(path, text)| (path.to_owned(), text.to_owned())).collect()
    }

    #[test]
    fn nothing_of_the_owner_is_left_and_what_root_knows_of_versions_is() {
        let this = Box::new();
        this.start();
        let aside = this.ground().state.join(format!("{FORGOTTEN}0"));
        assert_eq!(fs::metadata(&aside).unwrap().permissions().mode() & 0o777, 0o700);
        // All of it lies aside until it is swept, so the start did not wait for it.
        let lies = this.all();
        assert_eq!(lies["os/forgotten-0/profiles/0/saves/game"], SECRET);
        assert_eq!(lies["os/forgotten-0/host/state.db"], SECRET);
        sweep(&this.ground().state).unwrap();
        assert_eq!(this.all(), new());
        // The next start is one as any other.
        fs::write(this.ground().product.join("host/state.db"), "another's").unwrap();
        this.start();
        assert_eq!(this.all()["host/state.db"], "another's");
    }

    #[test]
    fn a_cut_after_any_step_comes_to_the_same() {
        let count = plan(&Box::new().ground()).unwrap().len();
        assert!(count >= 10);
        for cut in 0..=count {
            for cut_again in [None, Some(0), Some(1), Some(2), Some(3)] {
                let this = Box::new();
                for limit in [Some(cut), cut_again].into_iter().flatten() {
                    this.make_anew();
                    if !is_due(&this.ground().state, "now").unwrap() {
                        continue;
                    }
                    let steps = plan(&this.ground()).unwrap();
                    for step in steps.iter().take(limit) {
                        take(step).unwrap();
                        let all = this.all();
                        let is_there = |path: &str| all.contains_key(path);
                        let left =
                            ["host/state.db", "profiles/0", "later", "note", "os/owner.json"]
                                .into_iter()
                                .any(is_there);
                        assert!(!left || is_there("os/reset.json"), "{cut}: {step:?}");
                    }
                    // Also what was being swept was not finished.
                    if limit % 2 == 0 {
                        sweep(&this.ground().state).unwrap();
                    }
                }
                this.start();
                sweep(&this.ground().state).unwrap();
                assert_eq!(this.all(), new(), "{cut} {cut_again:?}");
            }
        }
    }

    #[test]
    fn the_marker_is_due_in_another_start_only() {
        let folder = tempfile::tempdir().unwrap();
        let is_due = |boot_id: &str| is_due(folder.path(), boot_id).unwrap();
        assert!(!is_due("now"));
        arrange(folder.path(), "before").unwrap();
        let path = folder.path().join(MARKER);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        // The unit that forgets may be started anew while the daemon runs.
        assert!(!is_due("before") && is_due("now") && is_due(""));
        arrange(folder.path(), "").unwrap();
        assert!(is_due("") && is_due("now"));
        for text in ["", "{", &"x".repeat(5000)] {
            fs::write(&path, text).unwrap();
            assert!(is_due("now"), "{text}");
        }
    }

    #[test]
    fn no_link_is_followed() {
        let this = Box::new();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("file"), "somebody else's").unwrap();
        let product = this.ground().product;
        for link in ["host/out", "profiles/0/saves/out", "later/out", "out"] {
            symlink(outside.path(), product.join(link)).unwrap();
        }
        symlink(outside.path().join("file"), product.join("host/file")).unwrap();
        symlink("/nowhere", product.join("host/dangling")).unwrap();
        symlink(this.ground().state.join("ledger.json"), product.join("host/ledger")).unwrap();
        // What is itself a link goes as one.
        fs::remove_dir_all(product.join("later")).unwrap();
        symlink(outside.path(), product.join("later")).unwrap();
        this.start();
        sweep(&this.ground().state).unwrap();
        assert_eq!(this.all(), new());
        let left = fs::read_to_string(outside.path().join("file")).unwrap();
        assert_eq!(left, "somebody else's");
    }

    #[test]
    #[ignore = "needs root"]
    fn what_lies_on_another_disk_keeps_all_where_it_is() {
        use nix::mount::{MsFlags, mount, umount};
        for place in ["profiles", "profiles/0/saves"] {
            let this = Box::new();
            let saves = this.ground().product.join(place);
            let flags = MsFlags::empty();
            mount(Some("none"), &saves, Some("tmpfs"), flags, None::<&str>).unwrap();
            let before = this.all();
            let refused = forget(&this.ground()).unwrap_err();
            let same = this.all() == before;
            umount(&saves).unwrap();
            assert!(matches!(&refused, ResetError::Elsewhere(path) if *path == saves), "{refused}");
            assert!(same && this.all().contains_key("os/reset.json"));
        }
    }
}
