//! Grows the root file system to its partition, which systemd-repart has grown to the disk, and sets the room aside
//! that only root and the daemon may fill: a daemon that cannot write does not know its owner and its devices any more.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::Site;
use crate::files;
use crate::ledger::Ledger;
use crate::policy::reserve_bytes;
use crate::programs::run_well;

/// A large disk takes a while; the unit that asks for it has five minutes for all that it does.
const LIMIT: Duration = Duration::from_secs(120);

/// The daemon's group. The kernel learns of it when the file system is mounted, so that a disk is made with it, too.
const DAEMON_GROUP: &str = "960";

/// Grows it, once for each size that the partition ever has. What lies in a folder of another machine has no partition.
pub fn grow(site: &Site, ledger: &mut Ledger) -> anyhow::Result<()> {
    if !site.place.live {
        return Ok(());
    }
    let mounts = String::from_utf8(files::read(Path::new("/proc/self/mountinfo"), 1 << 20)?)?;
    let place = site.place.sysroot.to_string_lossy();
    let device = device_of(&mounts, &place).or_else(|| device_of(&mounts, "/"));
    let device = PathBuf::from(device.context("the device of the root file system is not known")?);
    let device = std::fs::canonicalize(&device)?;
    let name = device.file_name().context("the device has no name")?.to_string_lossy().into_owned();
    let sectors = files::read_word(&Path::new("/sys/class/block").join(name).join("size"));
    let bytes = sectors.and_then(|text| text.parse::<u64>().ok()).map(|sectors| sectors * 512);
    let bytes = bytes.context("the size of the partition is not known")?;
    if bytes == ledger.grown_to_bytes {
        return Ok(());
    }
    let device = device.to_string_lossy();
    run_well(&["resize2fs", &device], LIMIT)?;
    let room = rustix::fs::statvfs(&site.place.sysroot)?;
    let blocks = reserve_bytes(room.f_blocks.saturating_mul(room.f_frsize)) / room.f_frsize.max(1);
    run_well(&set_aside(&blocks.to_string(), &device), LIMIT)?;
    ledger.grown_to_bytes = bytes;
    tell!("the file system fills its partition of {bytes} bytes; {blocks} blocks are ours");
    Ok(())
}

/// The words that keep so many blocks of a file system from sessions.
fn set_aside<'a>(blocks: &'a str, device: &'a str) -> [&'a str; 6] {
    ["/usr/sbin/tune2fs", "-r", blocks, "-g", DAEMON_GROUP, device]
}

/// The device that is mounted at a place; of several mounts the last, which covers the others.
fn device_of(mounts: &str, place: &str) -> Option<String> {
    let at = |line: &&str| line.split(' ').nth(4) == Some(place);
    let line = mounts.lines().rfind(at)?;
    let device = line.split_once(" - ")?.1.split(' ').nth(1)?;
    device.starts_with("/dev/").then(|| device.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_that_is_set_aside_is_the_daemons_too() {
        let folder = tempfile::tempdir().unwrap();
        let disk = folder.path().join("disk").to_string_lossy().into_owned();
        std::fs::File::create(&disk).unwrap().set_len(8 << 20).unwrap();
        run_well(&["/usr/sbin/mkfs.ext4", "-q", &disk], LIMIT).unwrap();
        run_well(&set_aside("1000", &disk), LIMIT).unwrap();
        let said = run_well(&["/usr/sbin/dumpe2fs", "-h", &disk], LIMIT).unwrap();
        let says = |what: &str, value: &str| {
            let mut lines = said.lines().filter_map(|line| line.split_once(':'));
            let found = lines.find(|(name, _)| *name == what).map(|(_, value)| value);
            assert!(found.is_some_and(|found| found.trim().starts_with(value)), "{what}: {said}");
        };
        says("Reserved block count", "1000");
        says("Reserved blocks gid", DAEMON_GROUP);
    }

    #[test]
    fn the_device_is_found() {
        let mounts = "22 1 254:2 /ostree/deploy/x / ro - ext4 /dev/vda2 rw\n\
                      23 22 254:2 / /sysroot ro,relatime shared:1 - ext4 /dev/vda2 rw,x\n\
                      24 22 0:5 / /dev rw - devtmpfs udev rw\n";
        assert_eq!(device_of(mounts, "/sysroot").as_deref(), Some("/dev/vda2"));
        assert_eq!(device_of(mounts, "/").as_deref(), Some("/dev/vda2"));
        assert_eq!(device_of(mounts, "/dev"), None);
        assert_eq!(device_of("1 2 3", "/"), None);
    }
}
