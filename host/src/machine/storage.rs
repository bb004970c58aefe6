//! The disks that the product writes to: how much is there, how much is left, how much is its own.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// A folder is counted up to this many files; a larger one's size is told as "at least".
const MAX_FILES: usize = 100_000;

/// What is left when things begin to fail: the host keeps its state durable before it confirms anything.
const FULL_BYTES: u64 = 64 * MIB;
/// What is left when the owner is warned: a game's update is larger than this.
const LOW_BYTES: u64 = 5 * GIB;
/// A disk that was never large is warned about at this part of it, in percent.
const LOW_PERCENT: u64 = 5;

/// What a restore of homes leaves, as an update from a file does (`keep_free_bytes` in `host/update`).
const RESERVE_BYTES: u64 = GIB;

const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

/// What a folder is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The host's own state: identity, pairings, settings.
    State,
    /// The homes of those who play: games and saves.
    Homes,
}

/// A folder that the product writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// What for.
    pub purpose: Purpose,
    /// Where.
    pub path: PathBuf,
    /// Its disk keeps room that the host may fill and games may not, as a box's does.
    pub has_reserve: bool,
}

impl Folder {
    /// One on a disk that keeps no room for anybody.
    pub fn of(purpose: Purpose, path: PathBuf) -> Self {
        Self { purpose, path, has_reserve: false }
    }

    /// The host's state, on a box or elsewhere.
    pub fn of_state(path: PathBuf, appliance: bool) -> Self {
        Self { has_reserve: appliance, ..Self::of(Purpose::State, path) }
    }
}

/// How much room there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// Enough.
    Enough,
    /// Little; the owner should make some.
    Low,
    /// None to speak of; things fail.
    Full,
}

/// A folder and its disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// Which folder.
    pub folder: Folder,
    /// The size of its file system, in bytes.
    pub total_bytes: u64,
    /// What may still be filled by whoever writes there, in bytes: by the host, or by an ordinary user.
    pub free_bytes: u64,
    /// What lies in the folder; homes belong to others and are not looked into.
    pub own: Option<Own>,
    /// How much room that is.
    pub room: Room,
}

/// What lies in a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Own {
    /// What it takes on the disk, in bytes.
    pub bytes: u64,
    /// Not everything could be counted: there was too much, or it belongs to others.
    pub at_least: bool,
}

/// How things stand with a folder. Reads the names of everything in it.
///
/// # Errors
/// The folder is not there.
pub fn usage(folder: &Folder) -> io::Result<Usage> {
    let disk = rustix::fs::statvfs(&folder.path)?;
    let own = (folder.purpose == Purpose::State).then(|| own(&folder.path));
    Ok(Usage { own, ..of(folder, &disk) })
}

/// What keeps the host from writing to this folder, or soon will; quick, because nothing in it is counted. Nothing of a
/// folder that is not there.
pub fn trouble(folder: &Folder) -> Option<String> {
    told(folder, &rustix::fs::statvfs(&folder.path).ok()?)
}

/// Whether the disk that a folder is on has more left for ordinary users than a restore is to leave. A disk that cannot be
/// asked is taken to have: it says itself when it is full.
pub fn keeps_reserve(folder: &Path) -> bool {
    rustix::fs::statvfs(folder).map_or(true, |disk| has_more_than_reserve(&disk))
}

fn has_more_than_reserve(disk: &rustix::fs::StatVfs) -> bool {
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    // A small disk is not to be kept empty for it.
    bytes(disk.f_bavail) > RESERVE_BYTES.min(bytes(disk.f_blocks) / 8)
}

fn told(folder: &Folder, disk: &rustix::fs::StatVfs) -> Option<String> {
    // A box shows the host all but its own folder as what can only be read; whoever has a home there may write.
    let is_own = folder.purpose == Purpose::State;
    if is_own && disk.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return Some(format!(
            "the disk of {} can only be read, so that nothing can be kept; it may be broken",
            folder.path.display()
        ));
    }
    of(folder, disk).warning()
}

fn of(folder: &Folder, disk: &rustix::fs::StatVfs) -> Usage {
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    let free = if folder.has_reserve { disk.f_bfree } else { disk.f_bavail };
    let (total_bytes, free_bytes) = (bytes(disk.f_blocks), bytes(free));
    let room = room(total_bytes, free_bytes);
    Usage { folder: folder.clone(), total_bytes, free_bytes, own: None, room }
}

impl Usage {
    /// What the owner is to know and do, if anything.
    pub fn warning(&self) -> Option<String> {
        let path = self.folder.path.display();
        let (free, total) = (in_words(self.free_bytes), in_words(self.total_bytes));
        let (means, remedy) = match self.folder.purpose {
            Purpose::State => (
                "a new device or a changed setting may not be kept",
                "remove what is not needed from it",
            ),
            Purpose::Homes => ("games can neither save nor be updated", "uninstall a game"),
        };
        match self.room {
            Room::Enough => None,
            Room::Low => Some(format!(
                "the disk of {path} is almost full: {free} of {total} are left. When it is full, {means}; {remedy}"
            )),
            Room::Full => Some(format!(
                "the disk of {path} is full: {free} of {total} are left, so that {means}; {remedy}"
            )),
        }
    }
}

/// How much room this is.
fn room(total_bytes: u64, free_bytes: u64) -> Room {
    let low = LOW_BYTES.min(total_bytes / 100 * LOW_PERCENT);
    // A disk that is not even as large as what is kept free is small, not full.
    match free_bytes {
        free if free < FULL_BYTES.min(total_bytes / 20) => Room::Full,
        free if free < low.max(FULL_BYTES) && free < total_bytes / 2 => Room::Low,
        _ => Room::Enough,
    }
}

/// Counts what lies in a folder, without leaving its file system or following anything.
fn own(folder: &Path) -> Own {
    let mut own = Own::default();
    let Ok(device) = fs::symlink_metadata(folder).map(|folder| folder.dev()) else {
        return Own { bytes: 0, at_least: true };
    };
    let mut seen = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else {
            own.at_least = true;
            continue;
        };
        for entry in entries.flatten() {
            seen += 1;
            if seen > MAX_FILES {
                own.at_least = true;
                return own;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != device {
                continue;
            }
            // Blocks are of 512 bytes, whatever the file system's are.
            own.bytes = own.bytes.saturating_add(metadata.blocks().saturating_mul(512));
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    own
}

/// A size as people say it.
fn in_words(bytes: u64) -> String {
    match bytes {
        0..GIB => format!("{} MB", bytes / MIB),
        _ => format!("{}.{} GB", bytes / GIB, bytes % GIB * 10 / GIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged_by_what_is_left_and_by_the_disk() {
        for (total, free, expected) in [
            (1000 * GIB, 500 * GIB, Room::Enough),
            (1000 * GIB, 6 * GIB, Room::Enough),
            (1000 * GIB, 4 * GIB, Room::Low),
            (1000 * GIB, 63 * MIB, Room::Full),
            (1000 * GIB, 0, Room::Full),
            // Of 20 GiB, one is 5 %.
            (20 * GIB, 2 * GIB, Room::Enough),
            (20 * GIB, GIB / 2, Room::Low),
            // A memory disk of 100 MiB that is empty has enough.
            (100 * MIB, 99 * MIB, Room::Enough),
            (100 * MIB, 20 * MIB, Room::Low),
            (100 * MIB, 4 * MIB, Room::Full),
            (0, 0, Room::Enough),
        ] {
            assert_eq!(room(total, free), expected, "{total} {free}");
        }
    }

    #[test]
    fn a_warning_says_what_is_left_what_it_means_and_what_to_do() {
        let folder = Folder::of(Purpose::Homes, "/home".into());
        let usage = |room| Usage {
            folder: folder.clone(),
            total_bytes: 100 * GIB,
            free_bytes: 3 * GIB / 2,
            own: None,
            room,
        };
        assert_eq!(usage(Room::Enough).warning(), None);
        assert_eq!(
            usage(Room::Low).warning().unwrap(),
            "the disk of /home is almost full: 1.5 GB of 100.0 GB are left. When it is full, games can neither save \
             nor be updated; uninstall a game"
        );
        assert!(usage(Room::Full).warning().unwrap().contains("is full: 1.5 GB"));
    }

    #[test]
    fn a_restore_leaves_a_gigabyte_or_an_eighth() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = rustix::fs::statvfs(folder.path()).unwrap();
        let mut keeps = |total: u64, free: u64, ours: u64| {
            disk.f_blocks = total / disk.f_frsize;
            disk.f_bavail = free / disk.f_frsize;
            disk.f_bfree = (free + ours) / disk.f_frsize;
            has_more_than_reserve(&disk)
        };
        assert!(keeps(100 * GIB, 2 * GIB, 0) && !keeps(100 * GIB, GIB, 0));
        assert!(!keeps(100 * GIB, 0, 4 * GIB), "what is kept for the host is not for homes");
        assert!(keeps(4 * GIB, GIB, 0) && !keeps(4 * GIB, GIB / 2, 0));
        assert!(keeps_reserve(Path::new("/nonexistent")));
    }

    #[test]
    fn a_box_that_games_have_filled_keeps_room_for_the_host() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = rustix::fs::statvfs(folder.path()).unwrap();
        let blocks = |bytes: u64| bytes / disk.f_frsize;
        let (total, reserve) = (blocks(100 * GIB), blocks(6 * GIB));
        (disk.f_blocks, disk.f_bfree, disk.f_bavail) = (total, reserve, 0);
        let path = folder.path().to_owned();
        let room = |folder: &Folder| of(folder, &disk).room;
        assert_eq!(room(&Folder::of_state(path.clone(), true)), Room::Enough);
        assert_eq!(room(&Folder::of_state(path.clone(), false)), Room::Full);
        let homes = Folder::of(Purpose::Homes, path.clone());
        assert_eq!(room(&homes), Room::Full, "games have none");
        disk.f_flag |= rustix::fs::StatVfsMountFlags::RDONLY;
        assert!(told(&homes, &disk).unwrap().contains("is full"));
        let state = Folder::of_state(path, true);
        assert!(told(&state, &disk).unwrap().contains("can only be read"));
    }

    #[test]
    fn a_folder_is_counted_and_nothing_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        fs::create_dir_all(path.join("a/b")).unwrap();
        fs::write(path.join("a/b/file"), vec![1; 50_000]).unwrap();
        fs::write(folder.path().join("outside"), vec![1; 500_000]).unwrap();
        std::os::unix::fs::symlink("../outside", path.join("link")).unwrap();
        std::os::unix::fs::symlink("..", path.join("up")).unwrap();
        let state = Folder::of(Purpose::State, path.clone());
        let usage = usage(&state).unwrap();
        let own = usage.own.unwrap();
        assert!(own.bytes >= 50_000 && own.bytes < 200_000 && !own.at_least, "{own:?}");
        let homes = Folder::of(Purpose::Homes, path.clone());
        assert_eq!(super::usage(&homes).unwrap().own, None);
        assert!(usage.total_bytes > usage.free_bytes);
        let gone = Folder::of(Purpose::State, path.join("gone"));
        assert!(super::usage(&gone).is_err());
        assert_eq!(trouble(&gone), None);
        assert_eq!(trouble(&state), usage.warning());
    }
}
