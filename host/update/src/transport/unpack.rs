//! From layers into OSTree's repository, by way of one that is thrown away.
//!
//! OSTree itself brings the objects over and computes their checksums again, so what is deployed is the commit that was
//! signed whatever the layers say.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
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

/// Brings a commit over, if `scratch` has anything, and names it then. Who is cut off before the name finds all of it there
/// the next time.
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
    if let Some(scratch) = scratch {
        // OSTree looks into a folder that is there only while this mark says that something may be missing below. It may: a
        // cut in an earlier pull, even of another commit, leaves folders without their files. OSTree takes the mark away.
        let mark = partial_mark(repository, &commit);
        fs::write(&mark, "").map_err(|error| write_failed(&mark, needed_bytes, &error))?;
        // By the commit: a commit may say which names it is to have, and ours is none of them.
        let from = scratch.display().to_string();
        ostree(repository, &["pull-local", "--untrusted", &from, &commit], SLOW)
            .map_err(|error| blame(error, repository, needed_bytes))?;
    }
    let create = format!("--create={STAGED_REF}");
    ostree(repository, &["refs", &create, "--force", &commit], QUICK)?;
    let named = ostree(repository, &["rev-parse", STAGED_REF], QUICK)?;
    if named.trim() == commit {
        return Ok(());
    }
    Err(UpdateError::failed("stage", format!("{STAGED_REF} is {named}")))
}

/// The mark that a commit is not all there.
pub(super) fn partial_mark(repository: &Path, commit: &str) -> PathBuf {
    repository.join(format!("state/{commit}.commitpartial"))
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::transport::bundle::Kind;
    use crate::transport::tarball::{END, header, padding};

    fn name(seed: char, suffix: &str) -> String {
        format!("{seed}{seed}/{}.{suffix}", String::from(seed).repeat(62))
    }

    fn id(seed: u8, kind: Kind) -> ObjectId {
        ObjectId { kind, prefix: [seed; 16] }
    }

    fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
        let mut tar = Vec::new();
        for (name, content) in files {
            tar.extend_from_slice(&header(name, content.len() as u64).unwrap());
            tar.extend_from_slice(content);
            tar.extend_from_slice(&END[..padding(content.len() as u64) as usize]);
        }
        [tar, END.to_vec()].concat()
    }

    /// Unpacks into a new folder. Gives what is there then.
    fn unpack(
        files: &[(String, Vec<u8>)],
        of: &BTreeSet<ObjectId>,
        there: &HashSet<ObjectId>,
        limit: u64,
    ) -> Result<Vec<String>, UpdateError> {
        let folder = tempfile::tempdir().unwrap();
        let objects = folder.path().join("objects");
        fs::create_dir(&objects).unwrap();
        let packed = zstd::encode_all(tar(files).as_slice(), 1).unwrap();
        let tar = Bounded::new(unpacker(packed.as_slice()).unwrap(), limit);
        let done = Layer { objects: &objects, of, there }.unpack(tar, &Cancel::default());
        // Whatever came of it: nothing lies beside the folder.
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        done?;
        let mut names = Vec::new();
        for folder in fs::read_dir(&objects).unwrap() {
            let folder = folder.unwrap();
            for file in fs::read_dir(folder.path()).unwrap() {
                let (folder, file) = (folder.file_name(), file.unwrap().file_name());
                names.push(format!("{}/{}", folder.to_str().unwrap(), file.to_str().unwrap()));
            }
        }
        names.sort();
        Ok(names)
    }

    #[test]
    fn a_layer_is_what_its_index_says() {
        let files = [(name('a', "filez"), vec![1; 700]), (name('b', "commit"), vec![2; 3])];
        let of = BTreeSet::from([id(0xaa, Kind::File), id(0xbb, Kind::Commit)]);
        let (none, much) = (HashSet::new(), 1 << 20);
        let names = files.clone().map(|(name, _)| name);
        assert_eq!(unpack(&files, &of, &none, much).unwrap(), names);
        // What is there already need not be written.
        let there = HashSet::from([id(0xaa, Kind::File)]);
        assert_eq!(unpack(&files, &of, &there, much).unwrap(), names[1..]);
        let refused = |files: &[(String, Vec<u8>)], of: &BTreeSet<ObjectId>| {
            let result = unpack(files, of, &none, much);
            assert!(matches!(result, Err(UpdateError::Content { .. })), "{result:?}");
        };
        refused(&files[..1], &of);
        refused(&files, &BTreeSet::from([id(0xaa, Kind::File)]));
        refused(&[&files[..], &files[..1]].concat(), &of);
        for other in [
            name('a', "file"),
            name('a', "dirtree"),
            name('a', "filez").to_uppercase(),
            format!("../{}", name('a', "filez")),
            format!("/{}", name('a', "filez")),
            name('a', "filez").replace('/', "//"),
            name('a', "filez").replacen("aa/", "../", 1),
            "config".to_owned(),
        ] {
            refused(&[(other, vec![1]), files[1].clone()], &of);
        }
    }

    #[test]
    fn a_layer_that_grows_is_refused() {
        // 16 MiB in a few hundred bytes.
        let files = [(name('a', "filez"), vec![0; 16 << 20])];
        let of = BTreeSet::from([id(0xaa, Kind::File)]);
        let length = tar(&files).len() as u64;
        assert!(unpack(&files, &of, &HashSet::new(), length).is_ok());
        for limit in [0, 511, 512, 1 << 20, length - 1] {
            let grown = unpack(&files, &of, &HashSet::new(), limit);
            assert!(matches!(grown, Err(UpdateError::Content { .. })), "{limit}: {grown:?}");
        }
    }
}
