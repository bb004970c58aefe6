//! Reads what is on the disk: OSTree's entries and links, and the ESP.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::MirrorError;
use crate::files::{self, FileError, PART};
use crate::model::deployment::{OstreeEntry, Source, is_pinned};
use crate::model::entry::KERNELS;
use crate::model::esp::ENTRIES;
use crate::model::{Deployment, DeploymentId, EntryName, Esp, KernelSet, ModelError};

/// The link that names the deployment the machine was set up with, from the system root.
pub const PRISTINE: &str = "ostree/pf/pristine";

/// No entry and no text beside a deployment is longer, in bytes.
const MAX_TEXT_BYTES: u64 = 64 << 10;

/// No folder of ours has more names; beyond it the rest is left alone.
const MAX_NAMES: usize = 4096;

/// The deployments below a system root, the one that OSTree would start first.
pub fn read_deployments(sysroot: &Path) -> Result<Vec<Deployment>, MirrorError> {
    let folder = sysroot.join("boot/loader/entries");
    let mut found = Vec::new();
    for name in names(&folder)? {
        if name.starts_with("ostree-") && name.ends_with(".conf") {
            let text = String::from_utf8_lossy(&files::read(&folder.join(&name), MAX_TEXT_BYTES)?)
                .into_owned();
            found.push(follow(sysroot, &name, OstreeEntry::parse(&name, &text)?)?);
        }
    }
    found.sort_by_key(|deployment| std::cmp::Reverse(deployment.number));
    Ok(found)
}

/// Follows an entry to its deployment and its kernel.
fn follow(sysroot: &Path, file: &str, entry: OstreeEntry) -> Result<Deployment, MirrorError> {
    let real = |path: &Path| {
        fs::canonicalize(path).map_err(|source| FileError::new("follow", path, source))
    };
    let wrong = || ModelError::Entry { file: file.to_owned(), key: "ostree=" };
    let root = real(sysroot)?;
    let place = real(&sysroot.join(entry.link.trim_start_matches('/')))?;
    let inner = place.strip_prefix(root.join("ostree")).map_err(|_| wrong())?;
    let inner = inner.to_str().filter(|inner| inner.starts_with("deploy/")).ok_or_else(wrong)?;
    let id: DeploymentId = inner.rsplit('/').next().unwrap_or_default().parse()?;
    let origin = root.join(format!("ostree/{inner}.origin"));
    let pinned = match files::read(&origin, MAX_TEXT_BYTES) {
        Ok(text) => is_pinned(&String::from_utf8_lossy(&text)),
        Err(error) if error.is_absent() => false,
        Err(error) => return Err(error.into()),
    };
    let source = |path: String| -> Result<Source, FileError> {
        let full = sysroot.join("boot").join(&path);
        let about = fs::metadata(&full).map_err(|error| FileError::new("look at", &full, error))?;
        Ok(Source { path, bytes: about.len() })
    };
    Ok(Deployment {
        id,
        title: entry.title,
        number: entry.number,
        kernel: entry.kernel,
        linux: source(entry.linux)?,
        initrd: entry.initrd.map(source).transpose()?,
        options: entry.options,
        target: format!("../{inner}"),
        pinned,
    })
}

/// The deployment that the machine was set up with, if that is known.
pub fn read_pristine(sysroot: &Path) -> Option<DeploymentId> {
    let target = fs::read_link(sysroot.join(PRISTINE)).ok()?;
    target.to_str()?.parse().ok()
}

/// What lies on the ESP.
pub fn read_esp(esp: &Path) -> Result<Esp, MirrorError> {
    let room = rustix::fs::statvfs(esp)
        .map_err(|error| FileError::new("ask for the room of", esp, error.into()))?;
    let mut found = Esp {
        has_settings: esp.join("loader/loader.conf").exists(),
        free_bytes: room.f_bavail.saturating_mul(room.f_frsize),
        cluster_bytes: room.f_frsize,
        ..Esp::default()
    };
    for name in names(&esp.join(ENTRIES))? {
        let path = esp.join(ENTRIES).join(&name);
        // What is no file is nobody's entry, and stays.
        let Some(bytes) = length(&path) else { continue };
        if name.ends_with(PART) {
            found.leftovers.insert(format!("{ENTRIES}/{name}"), bytes);
        } else if let Ok(entry) = name.parse::<EntryName>() {
            // One that cannot be read is written anew.
            let text = files::read(&path, MAX_TEXT_BYTES).unwrap_or_default();
            let _ = found.entries.insert(entry, String::from_utf8_lossy(&text).into_owned());
        }
    }
    for kernel in names(&esp.join(KERNELS))? {
        let folder = esp.join(KERNELS).join(&kernel);
        if folder.is_dir() {
            let (set, leftovers) = read_set(&folder)?;
            found.leftovers.extend(
                leftovers.into_iter().map(|(name, n)| (format!("{KERNELS}/{kernel}/{name}"), n)),
            );
            found.sets.insert(kernel, set);
        }
    }
    Ok(found)
}

fn read_set(folder: &Path) -> Result<(KernelSet, BTreeMap<String, u64>), MirrorError> {
    let marker = files::read(&folder.join("ok"), MAX_TEXT_BYTES).ok();
    let set = KernelSet {
        linux: length(&folder.join("linux")),
        initrd: length(&folder.join("initrd")),
        marker: marker.map(|text| String::from_utf8_lossy(&text).into_owned()),
    };
    let all = names(folder)?.into_iter();
    let strangers = all.filter(|name| !matches!(name.as_str(), "linux" | "initrd" | "ok"));
    let leftovers = strangers.filter_map(|name| Some((name.clone(), length(&folder.join(&name))?)));
    Ok((set, leftovers.collect()))
}

/// The length of a plain file.
fn length(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().filter(fs::Metadata::is_file).map(|about| about.len())
}

/// The names in a folder, sorted; none when it is not there.
fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let failed = |source| FileError::new("list", folder, source);
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for entry in entries.take(MAX_NAMES) {
        names.extend(entry.map_err(failed)?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}
