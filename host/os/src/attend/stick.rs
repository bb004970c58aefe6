//! Sticks: one is plugged in, and files of known names on it are looked for. Of a reset file the digest is said; an update
//! is opened for [`super::bring`].
//!
//! Only a removable partition that appears while the machine runs is looked at, only if it begins as FAT does, and only
//! with the one file system that a stranger's bytes then meet: mounted read-only, without setuid bits, device files and
//! programs, in mounts of this process alone. No link is followed, no more is read here than a reset file can hold, and the
//! stick is let go at once; the kernel holds it for as long as an update on it is open.
//!
//! Deliberately absent: what is in the files. A reset file counts by its digest, once: [`super::used`] keeps which were used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// The file on the stick that says that somebody is there.
pub const NAME: &str = "punktfunk-reset.txt";

/// The file on the stick that is an update of the system.
pub const UPDATE: &str = "punktfunk-update.tar";

/// The kernel's name for what a stick is to have.
const FILE_SYSTEM: &str = "vfat";

/// A reset file is never longer, in bytes.
const MAX_BYTES: u64 = 4096;

/// No message of the kernel's is longer, in bytes.
const MAX_MESSAGE_BYTES: usize = 8192;

/// The kernel's own group of messages.
const KERNEL_GROUP: u32 = 1;

/// What a message of the kernel's says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Arrival {
    /// Something that can hold a file system has appeared, by the kernel's name for it, such as `sdb1`.
    Block(String),
    /// A button may have come. What programs make is none.
    Input,
    /// Nothing that matters here.
    Other,
}

/// What a message of the kernel's says.
pub fn arrival(message: &[u8]) -> Arrival {
    let Ok(text) = std::str::from_utf8(message) else { return Arrival::Other };
    let says = |what: &str| text.split('\0').skip(1).any(|line| line == what);
    let made = |line: &str| line.starts_with("DEVPATH=/devices/virtual/");
    if says("SUBSYSTEM=input") && says("ACTION=add") && !text.split('\0').any(made) {
        return Arrival::Input;
    }
    appeared(text).map_or(Arrival::Other, Arrival::Block)
}

fn appeared(text: &str) -> Option<String> {
    let field = |key: &str| {
        text.split('\0').skip(1).find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
    };
    let new = matches!(field("ACTION")?, "add" | "change");
    let name = field("DEVNAME")?;
    let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
    (new && field("SUBSYSTEM")? == "block" && plain).then(|| name.to_owned())
}

/// Whether the first sector of a partition is that of a FAT file system.
pub fn is_fat(sector: &[u8]) -> bool {
    let at = |at: usize, text: &[u8]| sector.get(at..at + text.len()) == Some(text);
    sector.len() >= 512 && at(510, &[0x55, 0xaa]) && (at(54, b"FAT1") || at(82, b"FAT32   "))
}

/// What the kernel tells of devices that come.
#[derive(Debug)]
pub struct Arrivals(OwnedFd);

impl Arrivals {
    /// Listens from now on.
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let fd = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Self(fd))
    }

    /// What the next message says; `None` when none waits.
    pub fn next(&self) -> Option<Arrival> {
        let mut message = [0; MAX_MESSAGE_BYTES];
        let received = recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message);
        match received {
            // Any process may send to the group; the kernel's own number is 0.
            Ok((count, Some(from))) if from.pid() == 0 => Some(arrival(&message[..count])),
            Ok(_) | Err(nix::Error::EINTR) => Some(Arrival::Other),
            // Messages were lost, and a button's may be among them.
            Err(nix::Error::ENOBUFS) => Some(Arrival::Input),
            Err(_) => None,
        }
    }
}

impl AsFd for Arrivals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What is on a stick.
#[derive(Debug)]
pub struct Found {
    /// The digest of the reset file, if there is one.
    pub reset: io::Result<Option<String>>,
    /// The update, if there is one.
    pub update: io::Result<Option<File>>,
}

/// What is on a device that appeared; nothing if it is no stick.
pub fn look(name: &str, folder: &Path) -> io::Result<Option<Found>> {
    let device = Path::new("/dev").join(name);
    let entry = fs::canonicalize(Path::new("/sys/class/block").join(name))?;
    if !is_removable(&entry) || is_mounted(&entry)? {
        return Ok(None);
    }
    let mut sector = [0; 512];
    File::open(&device)?.read_exact(&mut sector)?;
    if !is_fat(&sector) {
        return Ok(None);
    }
    found_on(&device, folder, FILE_SYSTEM).map(Some)
}

fn found_on(device: &Path, folder: &Path, kind: &str) -> io::Result<Found> {
    let mounted = Mounted::new(device, folder, kind)?;
    let reset = if_there(digest_of(&mounted.0.join(NAME)));
    let update = if_there(open(&mounted.0.join(UPDATE)));
    drop(mounted);
    Ok(Found { reset, update })
}

fn if_there<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        found => found.map(Some),
    }
}

/// A partition's disk says it can be taken out, or it hangs on USB, where many that can say they cannot.
fn is_removable(entry: &Path) -> bool {
    let usb = entry.components().any(|part| part.as_os_str().to_string_lossy().starts_with("usb"));
    let says = |folder: &Path| crate::files::read_word(&folder.join("removable"));
    let disk = entry.parent().and_then(says);
    usb || says(entry).or(disk).is_some_and(|word| word == "1")
}

/// What this machine runs from is no stranger's stick.
fn is_mounted(entry: &Path) -> io::Result<bool> {
    let number = crate::files::read_word(&entry.join("dev")).unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    Ok(mounts.lines().any(|line| line.split(' ').nth(2) == Some(number.as_str())))
}

/// A file and nothing else, to be read.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    Ok(file)
}

/// The SHA-256 of a small file.
fn digest_of(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    open(path)?.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.is_empty() || bytes.len() as u64 > MAX_BYTES {
        return Err(io::Error::other(format!("a reset file has 1 to {MAX_BYTES} bytes")));
    }
    Ok(Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A stick, mounted until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(device: &Path, folder: &Path, kind: &str) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if let Err(error) = mount(Some(device), folder, Some(kind), flags, None::<&str>) {
            remove(folder);
            return Err(error.into());
        }
        Ok(Self(folder.to_path_buf()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
        match umount2(&self.0, flags) {
            Ok(()) => remove(&self.0),
            Err(error) => complain!("{}: {error}", self.0.display()),
        }
    }
}

/// Removes an empty folder, where a stick was mounted.
fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir(folder) {
        complain!("{}: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ADDED: &str = "add@/devices/pci0/usb1/block/sdb/sdb1\0ACTION=add\0DEVPATH=/devices/x\0\
                         SUBSYSTEM=block\0DEVNAME=sdb1\0DEVTYPE=partition\0SEQNUM=4\0";

    #[test]
    fn arrivals_are_understood() {
        assert_eq!(arrival(ADDED.as_bytes()), Arrival::Block("sdb1".to_owned()));
        for (from, to) in [
            ("ACTION=add", "ACTION=remove"),
            ("SUBSYSTEM=block", "SUBSYSTEM=net"),
            ("DEVNAME=sdb1", "DEVNAME=../etc/x"),
            ("DEVNAME=sdb1", "DEVNAME="),
        ] {
            assert_eq!(arrival(ADDED.replace(from, to).as_bytes()), Arrival::Other, "{to}");
        }
    }

    #[test]
    fn only_devices_that_no_program_made_may_be_buttons() {
        let added = "add@/devices/x\0ACTION=add\0DEVPATH=/devices/LNXSYSTM:00/input/input1\0\
                     SUBSYSTEM=input\0SEQNUM=4\0";
        assert_eq!(arrival(added.as_bytes()), Arrival::Input);
        for (from, to) in [
            ("ACTION=add", "ACTION=remove"),
            ("SUBSYSTEM=input", "SUBSYSTEM=net"),
            ("/devices/LNXSYSTM:00", "/devices/virtual"),
        ] {
            assert_eq!(arrival(added.replace(from, to).as_bytes()), Arrival::Other, "{to}");
        }
    }

    #[test]
    fn fat_is_told_from_others() {
        let mut sector = [0; 512];
        (sector[510], sector[511]) = (0x55, 0xaa);
        assert!(!is_fat(&sector));
        sector[82..90].copy_from_slice(b"FAT32   ");
        assert!(is_fat(&sector));
        assert!(!is_fat(&sector[..511]));
        sector[510] = 0;
        assert!(!is_fat(&sector));
    }

    #[test]
    fn only_a_small_plain_file_has_a_digest() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(NAME);
        fs::write(&path, "abc").unwrap();
        let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest_of(&path).unwrap(), digest);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert!(digest_of(&link).is_err());
        assert!(digest_of(folder.path()).is_err());
        fs::write(&path, vec![b'x'; 4096]).unwrap();
        assert!(digest_of(&path).is_ok());
        fs::write(&path, vec![b'x'; 4097]).unwrap();
        assert!(digest_of(&path).is_err());
        fs::write(&path, "").unwrap();
        assert!(digest_of(&path).is_err());
    }

    #[test]
    fn only_a_plain_file_is_an_update() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(UPDATE);
        assert!(if_there(open(&path)).unwrap().is_none());
        fs::write(&path, vec![b'x'; 10_000]).unwrap();
        assert_eq!(if_there(open(&path)).unwrap().unwrap().metadata().unwrap().len(), 10_000);
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        let pipe = folder.path().join("pipe");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &pipe,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        // Nobody writes to the pipe, and nobody is waited for.
        for wrong in [link.as_path(), folder.path(), &pipe] {
            assert!(if_there(open(wrong)).is_err(), "{}", wrong.display());
        }
    }

    #[test]
    #[ignore = "needs root and loop devices"]
    fn what_is_on_a_stick_is_found_and_the_stick_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("stick");
        File::create(&image).unwrap().set_len(40 << 20).unwrap();
        let run = |words: &[&str]| {
            crate::programs::run_well(words, std::time::Duration::from_secs(60)).unwrap()
        };
        // Where tests run, FAT may be none of the kernel's; it is let go like any other.
        let kind = "ext4";
        run(&["mkfs.ext4", "-q", image.to_str().unwrap()]);
        let device = run(&["losetup", "--find", "--show", image.to_str().unwrap()]);
        let device = Path::new(device.trim());
        let at = folder.path().join("at");
        let put = |name: &str, bytes: &[u8]| {
            fs::create_dir_all(&at).unwrap();
            mount(Some(device), &at, Some(kind), MsFlags::empty(), None::<&str>).unwrap();
            fs::write(at.join(name), bytes).unwrap();
            umount2(&at, MntFlags::empty()).unwrap();
        };
        let found = found_on(device, &at, kind).unwrap();
        assert!(found.reset.unwrap().is_none() && found.update.unwrap().is_none());
        put(UPDATE, &[b'x'; 3 << 20]);
        put(NAME, b"abc");
        let found = found_on(device, &at, kind).unwrap();
        assert!(found.reset.unwrap().is_some());
        // Nobody sees it mounted, and the file can still be read.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(at.to_str().unwrap()));
        let mut bytes = Vec::new();
        found.update.unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, [b'x'; 3 << 20]);
        // One that makes no sense is no reason to wait.
        let mut raw = OpenOptions::new().write(true).open(device).unwrap();
        io::copy(&mut io::repeat(0xf7).take(1 << 20), &mut raw).unwrap();
        drop(raw);
        assert!(found_on(device, &at, kind).is_err());
        run(&["losetup", "--detach", device.to_str().unwrap()]);
    }

    #[test]
    fn sticks_are_told_from_disks() {
        let sysfs = tempfile::tempdir().unwrap();
        let disk = sysfs.path().join("block/sdb");
        fs::create_dir_all(disk.join("sdb1")).unwrap();
        fs::write(disk.join("removable"), "0\n").unwrap();
        assert!(!is_removable(&disk) && !is_removable(&disk.join("sdb1")));
        fs::write(disk.join("removable"), "1\n").unwrap();
        assert!(is_removable(&disk) && is_removable(&disk.join("sdb1")));
        assert!(is_removable(Path::new("/sys/devices/pci0/usb2/2-1/block/sdc/sdc1")));
    }

    proptest! {
        #[test]
        fn no_message_is_too_strange(message: Vec<u8>) {
            let _ = arrival(&message);
            let _ = is_fat(&message);
        }
    }
}
