//! What is needed of a release: those layers of which the repository lacks something. Nothing is remembered about layers, so
//! nothing about them can be wrong after a power cut.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use crate::error::UpdateError;
use crate::name::Commit;
use crate::transport::bundle::{Index, Kind, Manifest, ObjectId, room_bytes};
use crate::transport::unpack::partial_mark;

/// A release, and what of it is there.
pub(super) struct Plan {
    pub(super) manifest: Manifest,
    pub(super) index: Index,
    /// What the repository has. Without the commit's own object when anything else is missing: it is to be brought again then.
    pub(super) there: HashSet<ObjectId>,
    /// The places of the layers that are needed, among the manifest's.
    pub(super) missing: Vec<usize>,
}

impl Plan {
    /// Compares a release with a repository.
    pub(super) fn new(
        manifest: Manifest,
        index: Index,
        commit: Commit,
        repository: &Path,
    ) -> Result<Self, UpdateError> {
        let mut there = objects(repository)?;
        let own = ObjectId::new(Kind::Commit, commit);
        if !index.layers.iter().any(|layer| layer.contains(&own)) {
            let detail = format!("the commit {commit} is in none of its layers");
            return Err(UpdateError::Content { detail });
        }
        let mark = partial_mark(repository, &commit.to_string());
        if mark.exists() || index.missing(&there).next().is_some() {
            there.remove(&own);
        }
        let missing = index.missing(&there).collect();
        Ok(Self { manifest, index, there, missing })
    }

    /// What unpacking takes beside what was fetched, in bytes: once in a repository of its own, once in the system's.
    pub(super) fn room_bytes(&self) -> u64 {
        let of = |at: &usize| room_bytes(&self.manifest.layers[*at], self.index.layers[*at].len());
        self.missing.iter().map(of).fold(0, u64::saturating_add).saturating_mul(2)
    }
}

/// Which objects a repository has, by the names of their files.
fn objects(repository: &Path) -> Result<HashSet<ObjectId>, UpdateError> {
    let failed =
        |error: std::io::Error| UpdateError::failed("look into the system's repository", error);
    let mut found = HashSet::new();
    for folder in fs::read_dir(repository.join("objects")).map_err(failed)? {
        let folder = folder.map_err(failed)?;
        let name = folder.file_name();
        let Some(name) = name.to_str().filter(|name| name.len() == 2) else { continue };
        for file in fs::read_dir(folder.path()).map_err(failed)? {
            let file = file.map_err(failed)?.file_name();
            found.extend(file.to_str().and_then(|file| ObjectId::of_name(name, file)));
        }
    }
    Ok(found)
}
