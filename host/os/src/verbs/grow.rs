//! Grows the root file system to its partition, which systemd-repart has grown to the disk, and sets the room aside
//! that only root may fill.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;

use super::Site;
use crate::files;
use crate::ledger::Ledger;
use crate::policy::reserve_bytes;
use crate::programs::run_well;

/// A large disk takes a while.
const LIMIT: Duration = Duration::from_secs(600);

/// Grows it, once for each size that the partition ever has.
pub fn grow(site: &Site, ledger: &mut Ledger) -> anyhow::Result<()> {
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
    run_well(&["tune2fs", "-r", &blocks.to_string(), &device], LIMIT)?;
    ledger.grown_to_bytes = bytes;
    tell!("the file system fills its partition of {bytes} bytes; {blocks} blocks are root's");
    Ok(())
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
