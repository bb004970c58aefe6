//! The ESP as far as it is ours: entries, kernel sets, and what an interrupted write left.

use std::collections::BTreeMap;

use super::entry::{Entry, KERNELS};
use super::name::EntryName;

/// The folder of the loader's entries, from the ESP's root.
pub const ENTRIES: &str = "loader/entries";

/// What the ESP holds.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Esp {
    /// Our entries with their text as it lies there, readable or not.
    pub entries: BTreeMap<EntryName, String>,
    /// The kernel sets, by OSTree's checksum.
    pub sets: BTreeMap<String, KernelSet>,
    /// Files that an interrupted write left, by path, with their length.
    pub leftovers: BTreeMap<String, u64>,
    /// The loader's own settings are there.
    pub has_settings: bool,
    /// What is free, in bytes.
    pub free_bytes: u64,
    /// A file takes a whole number of these, in bytes.
    pub cluster_bytes: u64,
}

impl Esp {
    /// Whether the entry can be started: its text is whole and its kernel set, too.
    pub fn is_bootable(&self, name: &EntryName) -> bool {
        let entry = self.entries.get(name).and_then(|text| Entry::parse(text));
        entry.is_some_and(|entry| {
            let set = self.sets.get(&entry.kernel);
            set.is_some_and(|set| set.is_whole() && set.initrd.is_some() == entry.initrd)
        })
    }

    /// Which kernel sets the entries name.
    pub fn named_sets(&self) -> impl Iterator<Item = String> {
        self.entries.values().filter_map(|text| Some(Entry::parse(text)?.kernel))
    }
}

/// A kernel and its initramfs. It is whole when the marker states the lengths that the files have: the marker is
/// written after both have come to the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelSet {
    /// Length of the kernel, in bytes.
    pub linux: Option<u64>,
    /// Length of the initramfs, in bytes.
    pub initrd: Option<u64>,
    /// What the marker says.
    pub marker: Option<String>,
}

impl KernelSet {
    /// What the marker of such a set says.
    pub fn marker(linux: u64, initrd: Option<u64>) -> String {
        let mut text = format!("linux {linux}\n");
        if let Some(initrd) = initrd {
            text.push_str(&format!("initrd {initrd}\n"));
        }
        text
    }

    /// Whether both files are there as the marker states.
    pub fn is_whole(&self) -> bool {
        let stated = self.linux.map(|linux| Self::marker(linux, self.initrd));
        stated.is_some() && stated == self.marker
    }

    /// What it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        self.linux.unwrap_or(0).saturating_add(self.initrd.unwrap_or(0))
    }
}

/// The path of a file in a kernel set, from the ESP's root.
pub fn in_set(kernel: &str, file: &str) -> String {
    format!("{KERNELS}/{kernel}/{file}")
}

/// The path of an entry, from the ESP's root.
pub fn entry_path(name: &EntryName) -> String {
    format!("{ENTRIES}/{name}")
}
