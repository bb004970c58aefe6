//! What the machine is made of, for whoever is to help: kernel, processor, memory, graphics.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::read;

/// As many graphics devices are named.
const MAX_GPUS: usize = 16;

/// What the machine is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The kernel's release.
    pub kernel: String,
    /// The system, as it calls itself.
    pub system: String,
    /// The processor's name.
    pub processor: String,
    /// How many of its threads there are.
    pub processor_threads: usize,
    /// Memory in all, in bytes.
    pub memory_bytes: u64,
    /// Memory that programs could still have, in bytes.
    pub memory_available_bytes: u64,
    /// The graphics devices: driver, and PCI ids where there are any.
    pub gpus: Vec<String>,
}

/// What the machine is called, if it has a name of its own.
pub fn machine_name(root: &Path) -> Option<String> {
    let name = read(&root.join("proc/sys/kernel/hostname"))?.trim().to_owned();
    (!name.is_empty() && name != "localhost").then_some(name)
}

/// Reads them, of the machine whose file systems begin at `root` (`/`).
pub fn facts(root: &Path) -> Facts {
    let text = |path: &str| read(&root.join(path)).unwrap_or_default();
    let (processor, processor_threads) = processor(&text("proc/cpuinfo"));
    let (memory_bytes, memory_available_bytes) = memory(&text("proc/meminfo"));
    Facts {
        kernel: text("proc/sys/kernel/osrelease").trim().to_owned(),
        system: system(&text("etc/os-release")),
        processor,
        processor_threads,
        memory_bytes,
        memory_available_bytes,
        gpus: gpus(&root.join("sys/class/drm")),
    }
}

/// Name and number of threads, of /proc/cpuinfo.
fn processor(cpuinfo: &str) -> (String, usize) {
    let entries = |wanted: &'static str| {
        cpuinfo.lines().filter_map(move |line| {
            let (name, value) = line.split_once(':')?;
            (name.trim() == wanted).then(|| value.trim())
        })
    };
    (entries("model name").next().unwrap_or_default().to_owned(), entries("processor").count())
}

/// Total and available memory in bytes, of /proc/meminfo.
fn memory(meminfo: &str) -> (u64, u64) {
    let entry = |wanted: &str| {
        let kib = meminfo.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            if name != wanted {
                return None;
            }
            value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
        });
        kib.unwrap_or(0).saturating_mul(1024)
    };
    (entry("MemTotal"), entry("MemAvailable"))
}

/// The system's name, of /etc/os-release.
fn system(os_release: &str) -> String {
    let name = os_release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or_default().trim_matches('"').to_owned()
}

fn gpus(class: &Path) -> Vec<String> {
    let mut cards: Vec<_> = fs::read_dir(class)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| {
            // card0, not card0-HDMI-A-1, which is a connector of it.
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("card"));
            number.is_some_and(|number| number.parse::<u32>().is_ok())
        })
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let uevent = read(&entry.path().join("device/uevent")).unwrap_or_default();
            format!("{name}: {}", gpu(&uevent))
        })
        .take(MAX_GPUS)
        .collect();
    cards.sort();
    cards
}

/// Driver and ids, of a device's `uevent`.
fn gpu(uevent: &str) -> String {
    let entry =
        |wanted: &str| uevent.lines().find_map(|line| line.strip_prefix(wanted)?.strip_prefix('='));
    let driver = entry("DRIVER").unwrap_or("no driver");
    match entry("PCI_ID") {
        Some(id) => format!("{driver} ({id})"),
        None => driver.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_understood() {
        let cpuinfo = "processor\t: 0\nmodel name\t: AMD Ryzen 7\n\nprocessor\t: 1\nmodel name\t: AMD Ryzen 7\n";
        assert_eq!(processor(cpuinfo), ("AMD Ryzen 7".to_owned(), 2));
        assert_eq!(processor("nothing"), (String::new(), 0));
        let meminfo = "MemTotal:       32768 kB\nMemFree: 5 kB\nMemAvailable:   1024 kB\n";
        assert_eq!(memory(meminfo), (32768 * 1024, 1024 * 1024));
        assert_eq!(memory("MemTotal: much\nMemAvailable: 99999999999999999999 kB"), (0, 0));
        assert_eq!(system("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n"), "Debian GNU/Linux 12");
        assert_eq!(gpu("DRIVER=amdgpu\nPCI_ID=1002:744C\n"), "amdgpu (1002:744C)");
        assert_eq!(gpu(""), "no driver");
    }

    #[test]
    fn a_machine_is_read() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("proc/sys/kernel/osrelease", "6.12.1\n");
        write("sys/class/drm/card1/device/uevent", "DRIVER=nvidia\nPCI_ID=10DE:2684\n");
        write("sys/class/drm/card1-DP-1/status", "connected\n");
        let facts = facts(root.path());
        assert_eq!((facts.kernel.as_str(), facts.memory_bytes), ("6.12.1", 0));
        assert_eq!(facts.gpus, ["card1: nvidia (10DE:2684)"]);
    }

    #[test]
    fn this_machine_has_memory() {
        let facts = facts(Path::new("/"));
        assert!(facts.memory_bytes > 0 && facts.processor_threads > 0, "{facts:?}");
    }
}
