//! What the firmware, the loader and the kernel say about this start.

use std::path::Path;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::files;
use crate::model::{DeploymentId, EntryName};

/// The loader's variables, by name and vendor.
const COUNT_PATH: &str = "LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// No variable that is read here is longer, in bytes.
const MAX_VARIABLE_BYTES: u64 = 4096;

/// The deployment that the kernel's command line names, by the link that does not move.
pub fn booted(command_line: &str) -> Option<DeploymentId> {
    let link = command_line.split_whitespace().find_map(|word| word.strip_prefix("ostree="))?;
    link.strip_prefix("/ostree/pf/")?.parse().ok()
}

/// The text of an EFI variable as its file holds it: four bytes of attributes, then UTF-16 up to a zero.
pub fn variable_text(bytes: &[u8]) -> Option<String> {
    let units: Vec<u16> = bytes
        .get(4..)?
        .chunks_exact(2)
        .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
        .take_while(|unit| *unit != 0)
        .collect();
    String::from_utf16(&units).ok()
}

/// The entry that the loader counts, from the path that it left.
pub fn counted_entry(path: &str) -> Option<EntryName> {
    path.rsplit(['\\', '/']).next()?.parse().ok()
}

/// The entry that the loader counts in this start; nothing when it does not count.
pub fn read_counted(system: &Path) -> Option<EntryName> {
    let path = system.join("sys/firmware/efi/efivars").join(COUNT_PATH);
    counted_entry(&variable_text(&files::read(&path, MAX_VARIABLE_BYTES).ok()?)?)
}

/// The deployment that runs, if it is one of ours.
pub fn read_booted(system: &Path) -> Option<DeploymentId> {
    booted(&String::from_utf8_lossy(&files::read(&system.join("proc/cmdline"), 64 << 10).ok()?))
}

/// Since the machine was started, sleep counted in: what holds for some minutes ends while it sleeps, too.
pub fn since_start() -> Duration {
    // The clock does not go back and does not begin before zero.
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The kernel's name for this start.
pub fn read_boot_id(system: &Path) -> String {
    files::read_word(&system.join("proc/sys/kernel/random/boot_id")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_loader_is_understood() {
        let id = format!("{}.0", "ab".repeat(32));
        let path = format!("\\loader\\entries\\pf-{id}+2-1.conf");
        let mut bytes = vec![6, 0, 0, 0];
        bytes.extend(path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        let name = counted_entry(&variable_text(&bytes).unwrap()).unwrap();
        assert_eq!(name.to_string(), format!("pf-{id}+2-1.conf"));
        let line = format!("initrd=x rw ostree=/ostree/pf/{id} quiet\n");
        assert_eq!(booted(&line).unwrap().to_string(), id);
        assert_eq!(booted("ostree=/ostree/boot.0/p/c/0"), None);
    }

    proptest! {
        #[test]
        fn no_variable_is_too_strange(bytes: Vec<u8>) {
            let _ = variable_text(&bytes).and_then(|text| counted_entry(&text));
        }
    }
}
