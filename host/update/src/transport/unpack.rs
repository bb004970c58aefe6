//! From layers into OSTree's repository, by way of one that is thrown away.
//!
//! OSTree itself brings the objects over and computes their checksums again, so what is deployed is the commit that was
//! signed whatever the layers say.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use punktfunk_os::programs::run_well;

use crate::error::UpdateError;
use crate::name::Commit;
use crate::transport::bundle::{ObjectId, unpacker};
use crate::transport::fetch::{has_digest, is_other, place, remove};
use crate::transport::plan::Plan;
use crate::transport::space::{free_bytes, write_failed};
use crate::transport::tarball::{Bounded, Entries};
use crate::transport::{Cancel, STAGED_REF};

/// Whatever only changes small files.
const QUICK: Duration = Duration::from_secs(120);

/// Bringing a whole system in.
const SLOW: Duration = Duration::from_secs(3600);

/// Unpacks what is needed into a new repository.
///
/// # Errors
/// [`UpdateError::Content`], and then the blob that is wrong is removed; [`UpdateError::Stopped`]; [`UpdateError::NoSpace`];
/// [`UpdateError::Failed`].
pub(super) fn unpack(
    plan: &Plan,
    blobs: &Path,
    scratch: &Path,
    cancel: &Cancel,
) -> Result<(), UpdateError> {
    remove_scratch(scratch)?;
    ostree(scratch, &["init", "--mode=archive"], QUICK)?;
    let objects = scratch.join("objects");
    for at in &plan.missing {
        let blob = &plan.manifest.layers[*at];
        let path = place(blobs, blob.digest);
        if !has_digest(&path, blob.digest, cancel)? {
            remove(&path)?;
            return Err(is_other(blob.digest));
        }
        let file = File::open(&path)
            .map_err(|error| UpdateError::failed("read what was fetched", error))?;
        let tar = unpacker(file).map_err(|error| UpdateError::failed("unpack", error))?;
        let layer = Layer { objects: &objects, of: &plan.index.layers[*at], there: &plan.there };
        let unpacked = layer.unpack(Bounded::new(tar, blob.unpacked_bytes), cancel);
        if matches!(unpacked, Err(UpdateError::Content { .. })) {
            remove(&path)?;
        }
        unpacked?;
    }
    Ok(())
}

/// A layer that is being unpacked.
struct Layer<'a> {
    objects: &'a Path,
    /// What the index says is in it.
    of: &'a std::collections::BTreeSet<ObjectId>,
    /// What need not be written.
    there: &'a HashSet<ObjectId>,
}

impl Layer<'_> {
    fn unpack(&self, tar: impl io::Read, cancel: &Cancel) -> Result<(), UpdateError> {
        let mut entries = Entries::new(tar);
        let mut owed = self.of.clone();
        while let Some((name, size)) = entries.next_file()? {
            let object = parse_name(&name).filter(|(_, _, object)| owed.remove(object));
            let Some((folder, file, object)) = object else {
                let detail = "a layer has something that the index does not name".to_owned();
                return Err(UpdateError::Content { detail });
            };
            if self.there.contains(&object) {
                entries.content(cancel, &mut |_| Ok(()))?;
                continue;
            }
            let folder = self.objects.join(folder);
            let path = folder.join(file);
            let failed = |error: io::Error| write_failed(&path, size, &error);
            if !folder.is_dir() {
                fs::create_dir(&folder).map_err(failed)?;
            }
            let mut options = OpenOptions::new();
            let options = options.write(true).create_new(true).mode(0o644);
            let mut file = options.open(&path).map_err(failed)?;
            entries.content(cancel, &mut |piece| file.write_all(piece).map_err(failed))?;
        }
        if owed.is_empty() {
            return Ok(());
        }
        let detail = format!("a layer lacks {} objects that the index names", owed.len());
        Err(UpdateError::Content { detail })
    }
}

/// The folder, the file, and which object that is. Files are called as in a repository in archive mode.
fn parse_name(name: &str) -> Option<(&str, &str, ObjectId)> {
    let (folder, file) = name.split_once('/')?;
    let object = ObjectId::of_name(folder, file)?;
    file.ends_with(object.kind.suffix()).then_some((folder, file, object))
}

/// Brings a commit over, if `scratch` has anything, and names it. One step: the name is there when all of it is.
///
/// # Errors
/// [`UpdateError::Content`], [`UpdateError::NoSpace`], [`UpdateError::Failed`].
pub(super) fn pull(
    commit: Commit,
    scratch: Option<&Path>,
    repository: &Path,
    needed_bytes: u64,
) -> Result<(), UpdateError> {
    let commit = commit.to_string();
    // Room was looked for already. OSTree's own rule wants a part of the whole disk, which a large one full of games has not.
    ostree(repository, &["config", "set", "core.min-free-space-percent", "0"], QUICK)?;
    let done = match scratch {
        Some(scratch) => {
            let name = scratch.join("refs/heads").join(STAGED_REF);
            let failed = |error: io::Error| write_failed(&name, needed_bytes, &error);
            fs::create_dir_all(name.parent().unwrap_or(scratch)).map_err(failed)?;
            fs::write(&name, format!("{commit}\n")).map_err(failed)?;
            let from = scratch.display().to_string();
            ostree(repository, &["pull-local", "--untrusted", &from, STAGED_REF], SLOW)
        }
        None => {
            let create = format!("--create={STAGED_REF}");
            ostree(repository, &["refs", &create, "--force", &commit], QUICK)
        }
    };
    done.map_err(|error| blame(error, repository, needed_bytes))?;
    let named = ostree(repository, &["rev-parse", STAGED_REF], QUICK)?;
    if named.trim() == commit {
        return Ok(());
    }
    Err(UpdateError::failed("stage", format!("{STAGED_REF} is {named}")))
}

/// Removes what an interrupted run left.
///
/// # Errors
/// [`UpdateError::Failed`].
pub(super) fn remove_scratch(scratch: &Path) -> Result<(), UpdateError> {
    match fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UpdateError::failed("remove what was unpacked", error))
        }
        _ => Ok(()),
    }
}

fn ostree(repository: &Path, words: &[&str], limit: Duration) -> Result<String, UpdateError> {
    let repository = format!("--repo={}", repository.display());
    let all = [&["ostree", &repository], words].concat();
    run_well(&all, limit).map_err(|error| UpdateError::failed("stage", error))
}

/// OSTree says in words what is wrong.
fn blame(error: UpdateError, repository: &Path, needed_bytes: u64) -> UpdateError {
    let text = error.to_string();
    if text.contains("No space left on device") {
        let free_bytes = free_bytes(repository).unwrap_or(0);
        return UpdateError::NoSpace { needed_bytes, free_bytes };
    }
    if text.contains("orrupted") {
        return UpdateError::Content { detail: text };
    }
    error
}
