//! The power button, read from the kernel's event devices as the records that they give.
//!
//! Which devices have the button is read from sysfs, so nothing is asked of the devices themselves.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use super::press::Stroke;

/// The kernel's record of an event: two words of time, then type, code and value.
const RECORD_BYTES: usize = 24;

/// The kernel's numbers for a key, and for the power button.
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// So often a device is read at a time.
const MAX_READS: usize = 16;

/// No more devices than this are watched.
const MAX_DEVICES: usize = 16;

/// Whether the bits of a device's keys, as sysfs writes them in words of 64, have the power button.
pub fn has_power_key(capabilities: &str) -> bool {
    let word = capabilities.split_whitespace().rev().nth(usize::from(KEY_POWER / 64));
    let word = word.and_then(|word| u64::from_str_radix(word, 16).ok());
    word.is_some_and(|word| word >> (KEY_POWER % 64) & 1 == 1)
}

/// What a record says of the button; a key that repeats says nothing new.
pub fn stroke(record: &[u8]) -> Option<Stroke> {
    let number = |at: usize| Some(u16::from_ne_bytes(record.get(at..at + 2)?.try_into().ok()?));
    if number(16)? != EV_KEY || number(18)? != KEY_POWER {
        return None;
    }
    match i32::from_ne_bytes(record.get(20..24)?.try_into().ok()?) {
        0 => Some(Stroke::Up),
        1 => Some(Stroke::Down),
        _ => None,
    }
}

/// A device with a power button.
#[derive(Debug)]
pub struct Button {
    path: PathBuf,
    file: File,
}

impl Button {
    /// The button is gone when this fails; otherwise what it did since the last time.
    pub fn strokes(&mut self) -> std::io::Result<Vec<Stroke>> {
        let mut records = [0; 64 * RECORD_BYTES];
        let mut strokes = Vec::new();
        // The kernel keeps no more than this for whoever does not look.
        for _ in 0..MAX_READS {
            match self.file.read(&mut records) {
                Ok(0) => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    strokes.extend(records[..count].chunks(RECORD_BYTES).filter_map(stroke));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(strokes)
    }

    /// Its device.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl AsFd for Button {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Opens what has a power button and is not open yet.
pub fn find(open: &mut Vec<Button>) {
    let folder = Path::new("/sys/class/input");
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
        let path = Path::new("/dev/input").join(&name);
        let known = open.iter().any(|button| button.path == path);
        if !name.starts_with("event") || known || open.len() >= MAX_DEVICES {
            continue;
        }
        // Most have none, and need not be opened.
        let keys = crate::files::read_word(&folder.join(&name).join("device/capabilities/key"));
        if !keys.is_some_and(|keys| has_power_key(&keys)) {
            continue;
        }
        let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
        match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) if is_real_button(&file) => open.push(Button { path, file }),
            Ok(_) => {}
            Err(error) => complain!("{}: {error}", path.display()),
        }
    }
}

/// Whether what is open is a device that somebody can touch, and has the button. What a stream's client presses comes
/// from devices that the daemon makes; they are nobody at the machine. Names of devices are used again, so it is the
/// open one that is looked at: if its number means another one meanwhile, it says nothing any more. What cannot be looked
/// at is none.
fn is_real_button(file: &File) -> bool {
    let Ok(about) = file.metadata() else { return false };
    let (major, minor) = (rustix::fs::major(about.rdev()), rustix::fs::minor(about.rdev()));
    if !about.file_type().is_char_device() {
        return false;
    }
    let Ok(device) = fs::canonicalize(format!("/sys/dev/char/{major}:{minor}")) else {
        return false;
    };
    let keys = crate::files::read_word(&device.join("device/capabilities/key"));
    is_touched(&device) && keys.is_some_and(|keys| has_power_key(&keys))
}

/// Whether a device in sysfs, without links, is one that no program has made.
fn is_touched(device: &Path) -> bool {
    device.starts_with("/sys/devices") && !device.starts_with("/sys/devices/virtual")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buttons_are_found_by_their_bits() {
        // The ACPI button, a keyboard with one, and a keyboard and a mouse without.
        assert!(has_power_key("10000000000000 0"));
        let keyboard = "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe";
        assert!(has_power_key(keyboard));
        assert!(!has_power_key(&keyboard.replace("feffff", "feefff")));
        assert!(!has_power_key("fffffffffffffffe"));
        assert!(!has_power_key("70000 0 0 0 0"));
        assert!(!has_power_key(""));
        assert!(!has_power_key("x y"));
    }

    #[test]
    fn what_a_program_makes_is_no_button_nor_what_cannot_be_looked_at() {
        for real in [
            "/sys/devices/LNXSYSTM:00/LNXPWRBN:00/input/input0/event0",
            "/sys/devices/pci0000:00/usb1/event5",
        ] {
            assert!(is_touched(Path::new(real)), "{real}");
        }
        for made in [
            "/sys/devices/virtual/input/input9/event9",
            "/sys/class/input/event9",
            "/dev/input/event9",
            "",
        ] {
            assert!(!is_touched(Path::new(made)), "{made}");
        }
        // A file, a device that is no button, and one that a program has made.
        let file = tempfile::tempfile().unwrap();
        assert!(!is_real_button(&file));
        assert!(!is_real_button(&File::open("/dev/null").unwrap()));
    }

    #[test]
    fn records_are_read() {
        let record = |kind: u16, code: u16, value: i32| {
            let mut record = vec![0; 16];
            record.extend(kind.to_ne_bytes());
            record.extend(code.to_ne_bytes());
            record.extend(value.to_ne_bytes());
            record
        };
        assert_eq!(stroke(&record(1, 116, 1)), Some(Stroke::Down));
        assert_eq!(stroke(&record(1, 116, 0)), Some(Stroke::Up));
        assert_eq!(stroke(&record(1, 116, 2)), None);
        assert_eq!(stroke(&record(1, 30, 1)), None);
        assert_eq!(stroke(&record(0, 116, 1)), None);
        assert_eq!(stroke(&record(1, 116, 1)[..20]), None);
    }
}
