//! An ESP in memory that takes the steps of a plan as the real one does, and the power with which they are cut off.

use super::Step;
use crate::model::deployment::Source;
use crate::model::esp::{ENTRIES, in_set};
use crate::model::{Deployment, DeploymentId, Entry, Esp, KernelSet};

/// The checksum of commit or kernel number `n`.
pub(crate) fn sum(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

pub(crate) fn id(n: u8) -> DeploymentId {
    format!("{}.0", sum(n)).parse().unwrap()
}

/// Deployment `n`, of which every two share a kernel; the number gives its place.
pub(crate) fn deployment(n: u8, number: u64) -> Deployment {
    let kernel = sum(0x80 + n / 2);
    let bytes = 1_000_000 + u64::from(n / 2);
    Deployment {
        id: id(n),
        title: format!("punktfunk {n}"),
        number,
        linux: Source { path: format!("ostree/{kernel}/vmlinuz"), bytes },
        initrd: Some(Source { path: format!("ostree/{kernel}/initramfs.img"), bytes: 2 * bytes }),
        kernel,
        options: "rw ostree=/ostree/boot.1/x".to_owned(),
        target: format!("../deploy/punktfunk/deploy/{}", id(n)),
        pinned: false,
    }
}

/// A whole kernel set of deployment `n`.
pub(crate) fn whole(n: u8) -> KernelSet {
    let (linux, initrd) = (1_000_000 + u64::from(n / 2), 2 * (1_000_000 + u64::from(n / 2)));
    let marker = Some(KernelSet::marker(linux, Some(initrd)));
    KernelSet { linux: Some(linux), initrd: Some(initrd), marker }
}

pub(crate) fn entry(n: u8, version: u64, last: bool) -> Entry {
    let options = format!("rw ostree=/ostree/pf/{}", id(n));
    let kernel = sum(0x80 + n / 2);
    Entry { title: format!("punktfunk {n}"), version, last, kernel, initrd: true, options }
}

/// What the ESP is after a step.
pub(crate) fn take(esp: &mut Esp, step: &Step) {
    match step {
        Step::Folder(path) => {
            if let Some(kernel) = path.strip_prefix("punktfunk/") {
                esp.sets.entry(kernel.to_owned()).or_default();
            }
        }
        Step::Copy { to, bytes, .. } => put(esp, to, *bytes, ""),
        Step::Write { to, text } => put(esp, to, text.len() as u64, text),
        Step::Remove(path) | Step::Clean(path) => {
            esp.leftovers.remove(path);
            if let Some(name) = path.strip_prefix(&format!("{ENTRIES}/")) {
                esp.entries.retain(|entry, _| entry.to_string() != name);
            }
            for (kernel, set) in &mut esp.sets {
                for (file, slot) in [("linux", &mut set.linux), ("initrd", &mut set.initrd)] {
                    if *path == in_set(kernel, file) {
                        *slot = None;
                    }
                }
                if *path == in_set(kernel, "ok") {
                    set.marker = None;
                }
            }
        }
        Step::RemoveFolder(path) => {
            let kernel = path.strip_prefix("punktfunk/").unwrap();
            let set = esp.sets.remove(kernel).unwrap_or_default();
            assert_eq!(set, KernelSet::default(), "only an empty folder can be removed");
        }
        Step::Link { .. } | Step::Unlink(_) => {}
    }
}

pub(crate) fn put(esp: &mut Esp, path: &str, bytes: u64, text: &str) {
    if path == "loader/loader.conf" {
        esp.has_settings = true;
    } else if let Some(name) = path.strip_prefix(&format!("{ENTRIES}/")) {
        esp.entries.insert(name.parse().unwrap(), text.to_owned());
    } else {
        let (kernel, file) = path.strip_prefix("punktfunk/").unwrap().split_once('/').unwrap();
        let set = esp.sets.get_mut(kernel).expect("a file needs its folder");
        match file {
            "linux" => set.linux = Some(bytes),
            "initrd" => set.initrd = Some(bytes),
            _ => set.marker = Some(text.to_owned()),
        }
    }
}

/// What the ESP is when the power went in the middle of a step: the file that is being written lies beside its place.
pub(crate) fn torn(esp: &Esp, step: &Step) -> Esp {
    let mut esp = esp.clone();
    if let Step::Copy { to, bytes, .. } = step {
        esp.leftovers.insert(format!("{to}.part"), bytes / 2);
    } else if let Step::Write { to, text } = step {
        esp.leftovers.insert(format!("{to}.part"), text.len() as u64 / 2);
    }
    esp
}

pub(crate) fn bootable(esp: &Esp) -> Vec<DeploymentId> {
    let names = esp.entries.keys().filter(|name| esp.is_bootable(name));
    names.map(|name| name.id.clone()).collect()
}
