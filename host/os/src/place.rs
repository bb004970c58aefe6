//! Where everything lies: on the machine that runs, or on a disk that is mounted on somebody's desk.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::{AtFlags, CWD, StatVfsMountFlags, StatxAttributes, StatxFlags, statvfs, statx};

use crate::files::{self, FileError};
use crate::model::DeploymentId;
use crate::ostree::STATEROOT;
use crate::status;

/// The kernel's list of mounts is never longer, in bytes.
const MAX_MOUNTS_BYTES: u64 = 4 << 20;

/// The folders that the verbs work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The root file system with OSTree's folders.
    pub sysroot: PathBuf,
    /// The boot loader's file system.
    pub esp: PathBuf,
    /// Root's memory.
    pub state: PathBuf,
    /// It is the machine that runs.
    pub live: bool,
    /// Where everybody is told what there is; nothing on a desk, where there is nobody to tell.
    pub run: Option<PathBuf>,
    /// The root below which kernel and loader say what was started; nothing where nothing runs.
    pub system: Option<PathBuf>,
}

/// Why a place cannot be worked on.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// The loader's file system is not there.
    #[error("no boot partition is mounted at {0}")]
    NoEsp(PathBuf),
    /// Only one of two was given.
    #[error("another disk needs both, its system root and its boot partition")]
    Half,
    /// The system refused.
    #[error("{path}: could not {doing}: {source}")]
    Mount {
        /// What was being done.
        doing: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
}

impl Place {
    /// The machine that runs, or a disk that is mounted somewhere.
    pub fn new(sysroot: Option<&Path>, esp: Option<&Path>) -> Result<Self, PlaceError> {
        match (sysroot, esp) {
            (None, None) => Ok(Self {
                sysroot: PathBuf::from("/sysroot"),
                esp: PathBuf::from("/efi"),
                state: PathBuf::from("/var/lib/punktfunk/os"),
                live: true,
                run: Some(PathBuf::from(status::FOLDER)),
                system: Some(PathBuf::from("/")),
            }),
            (Some(sysroot), Some(esp)) => {
                let state = format!("ostree/deploy/{STATEROOT}/var/lib/punktfunk/os");
                let (sysroot, esp) = (sysroot.to_path_buf(), esp.to_path_buf());
                let state = sysroot.join(state);
                Ok(Self { sysroot, esp, state, live: false, run: None, system: None })
            }
            _ => Err(PlaceError::Half),
        }
    }

    /// The system root as OSTree's program wants to hear it.
    pub fn foreign_sysroot(&self) -> Option<&Path> {
        (!self.live).then_some(self.sysroot.as_path())
    }

    /// What runs here, if something of ours does.
    pub fn booted(&self) -> Option<DeploymentId> {
        crate::facts::read_booted(self.system.as_deref()?)
    }

    /// Makes it writable for this process alone: on the machine that runs, all others go on seeing it read-only.
    pub fn open(&self) -> Result<(), PlaceError> {
        if !self.live {
            return Ok(());
        }
        if !is_mount_point(&self.esp)? {
            return Err(PlaceError::NoEsp(self.esp.clone()));
        }
        self.part_mounts()?;
        writable(&self.sysroot)?;
        // When OSTree has deployed, it takes the mark from /var that no update was met there.
        for path in ["/var", "/boot"].map(Path::new) {
            if is_mount_point(path)? {
                writable(path)?;
            }
        }
        Ok(())
    }

    /// From now on what this process mounts is seen by nobody else, while what others mount is still seen here.
    pub fn part_mounts(&self) -> Result<(), PlaceError> {
        let failed = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |error: nix::Error| PlaceError::Mount { doing, path, source: error.into() }
        };
        let root = Path::new("/");
        unshare(CloneFlags::CLONE_NEWNS).map_err(failed("leave the mounts of", root))?;
        let slave = MsFlags::MS_SLAVE | MsFlags::MS_REC;
        mount(None::<&str>, root, None::<&str>, slave, None::<&str>)
            .map_err(failed("part from the mounts of", root))?;
        Ok(())
    }
}

/// Takes the mark off a mount that it is read-only, and only that.
fn writable(path: &Path) -> Result<(), PlaceError> {
    let failed = |doing, source| PlaceError::Mount { doing, path: path.to_path_buf(), source };
    let flags = |path| {
        let about = statvfs(path).map_err(|error| failed("look at", error.into()))?;
        Ok::<_, PlaceError>(about.f_flag)
    };
    let before = flags(path)?;
    if !before.contains(StatVfsMountFlags::RDONLY) {
        return Ok(());
    }
    let mut kept = MsFlags::MS_REMOUNT;
    for (has, keep) in [
        (StatVfsMountFlags::NOSUID, MsFlags::MS_NOSUID),
        (StatVfsMountFlags::NODEV, MsFlags::MS_NODEV),
        (StatVfsMountFlags::NOEXEC, MsFlags::MS_NOEXEC),
        (StatVfsMountFlags::NOATIME, MsFlags::MS_NOATIME),
        (StatVfsMountFlags::RELATIME, MsFlags::MS_RELATIME),
    ] {
        if before.contains(has) {
            kept |= keep;
        }
    }
    let remount = |flags| mount(None::<&str>, path, None::<&str>, flags, None::<&str>);
    let done = remount(kept | MsFlags::MS_BIND);
    // The file system itself may be read-only, too.
    if done.is_err() || flags(path)?.contains(StatVfsMountFlags::RDONLY) {
        remount(kept).map_err(|error| failed("make writable", error.into()))?;
    }
    Ok(())
}

/// Whether something is mounted there, be it only another folder of the same file system.
pub fn is_mount_point(path: &Path) -> Result<bool, FileError> {
    let about = match statx(CWD, path, AtFlags::empty(), StatxFlags::BASIC_STATS) {
        Err(rustix::io::Errno::NOENT) => return Ok(false),
        about => about.map_err(|error| FileError::new("look at", path, error.into()))?,
    };
    Ok(about.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Where something is mounted below a folder, as this process sees it; not at the folder itself.
///
/// # Errors
/// The kernel's list could not be read.
pub fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let list = files::read(Path::new("/proc/self/mountinfo"), MAX_MOUNTS_BYTES)?;
    Ok(listed_below(&list, folder))
}

/// The mount points below a folder in the kernel's list: the fifth word of each line, where blanks are three digits.
fn listed_below(list: &[u8], folder: &Path) -> Vec<PathBuf> {
    let points = list
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(|point| PathBuf::from(OsString::from_vec(plain(point))));
    points.filter(|point| point.starts_with(folder) && point != folder).collect()
}

/// A word of the kernel's without its escapes.
fn plain(word: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| *first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_a_disk_is_none() {
        assert!(matches!(Place::new(Some(Path::new("/x")), None), Err(PlaceError::Half)));
        let place = Place::new(Some(Path::new("/x")), Some(Path::new("/y"))).unwrap();
        assert!(!place.live);
        assert!(place.state.starts_with("/x/ostree/deploy/punktfunk/var"));
    }

    #[test]
    fn mounts_below_a_folder_are_listed() {
        let list = b"22 1 254:2 /x / ro - ext4 /dev/vda2 rw\n\
            23 22 254:3 / /p rw - ext4 /dev/vdb rw\n\
            24 22 254:3 / /p/a/my\\040games\\134 rw - ext4 /dev/vdc rw\n\
            25 22 254:3 / /pq rw - ext4 /dev/vdd rw\n26 22 0:1 / /p/\\9 rw\nshort\n";
        let below = listed_below(list, Path::new("/p"));
        assert_eq!(below, [Path::new("/p/a/my games\\"), Path::new("/p/\\9")]);
        assert!(mounts_below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
    }

    #[test]
    fn mount_points_are_told_from_folders() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_mount_point(folder.path()).unwrap());
        assert!(!is_mount_point(&folder.path().join("none")).unwrap());
        assert!(is_mount_point(Path::new("/proc")).unwrap());
        assert!(is_mount_point(Path::new("/")).unwrap());
    }
}
