//! What was fetched: root's folder of blobs, and the way from there into the system's repository.
//!
//! In the folder lie `release.json`, which says what the blobs are of, `blobs/sha256/` with them, and `scratch`, a
//! repository that is only there while a release is brought over.

use std::collections::HashSet;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use punktfunk_os::files;
use serde::{Deserialize, Serialize};

use crate::error::UpdateError;
use crate::name::BlobDigest;
use crate::outlook::Fetched;
use crate::statement::Release;
use crate::transport::bundle::{Blob, Index, MAX_MANIFEST_BYTES, Manifest};
use crate::transport::fetch::{Meter, fetch, is_there, place, remove, take_small, there_bytes};
use crate::transport::plan::Plan;
use crate::transport::{Cancel, Source, Wanted, space, unpack};

/// What is staged is called so in the system's repository.
pub const STAGED_REF: &str = "punktfunk/staged";

/// What says which release it is, is no longer than this, in bytes.
const MAX_NOTE_BYTES: u64 = 256 << 10;

/// Root's folder of what was fetched. One release is in it at a time. One program works with it at a time.
#[derive(Debug, Clone)]
pub struct Store {
    folder: PathBuf,
}

/// Which release the blobs are of.
#[derive(Serialize, Deserialize)]
struct Note {
    release: Release,
    /// What is needed of it.
    wanted: Vec<Piece>,
}

#[derive(Serialize, Deserialize)]
struct Piece {
    digest: BlobDigest,
    size_bytes: u64,
}

impl Store {
    /// The folder; it is made for root alone when it is not there. What an interrupted [`Store::stage`] left is removed.
    ///
    /// # Errors
    /// [`UpdateError::Failed`].
    pub fn open(folder: &Path) -> Result<Self, UpdateError> {
        let store = Self { folder: folder.to_path_buf() };
        let mut builder = DirBuilder::new();
        builder
            .recursive(true)
            .mode(0o700)
            .create(store.blobs())
            .map_err(|error| UpdateError::failed("make a folder for updates", error))?;
        unpack::remove_scratch(&store.scratch())?;
        Ok(store)
    }

    /// What was fetched, from what lies on the disk. It is whole when `done_bytes` is `total_bytes`, which it is not before
    /// every blob was verified.
    pub fn fetched(&self) -> Option<Fetched> {
        let note = self.note()?;
        let blobs = self.blobs();
        let owed = |piece: &Piece| {
            piece.size_bytes - there_bytes(&place(&blobs, piece.digest), piece.size_bytes)
        };
        let owed = note.wanted.iter().map(owed).fold(0, u64::saturating_add);
        let total_bytes = note.release.size_bytes;
        let done_bytes = total_bytes.saturating_sub(owed);
        Some(Fetched { commit: note.release.commit, done_bytes, total_bytes })
    }

    /// Fetches what a release has and the repository (`objects` is in it) has not, and goes on where it was interrupted. What
    /// was fetched of another release is removed when there is room for this one.
    ///
    /// `progress` is told how much is done and how much it will be, in bytes: never less than before, and at the end
    /// [`Release::size_bytes`] twice. What need not be fetched counts as done. Called again for what is whole, it asks nobody.
    ///
    /// # Errors
    /// What the source says; [`UpdateError::NoSpace`] before anything is written; [`UpdateError::Content`] for bytes that are
    /// not those that were signed, which are removed; [`UpdateError::Stopped`]; [`UpdateError::Failed`]. What came stays.
    pub fn download(
        &self,
        source: &dyn Source,
        release: &Release,
        repository: &Path,
        progress: &mut dyn FnMut(u64, u64),
        cancel: &Cancel,
    ) -> Result<Fetched, UpdateError> {
        cancel.check()?;
        let (manifest_bytes, manifest) = self.manifest(Some(source), release, cancel)?;
        let (index_bytes, index) = self.index(Some(source), &manifest, cancel)?;
        let plan = Plan::new(manifest, index, release.commit, repository)?;
        let wanted = wanted(release, &plan);
        let kept: HashSet<BlobDigest> = wanted.iter().map(|one| one.digest).collect();
        let stale = self.stale(&kept)?;
        self.check_room(&plan, &wanted, stale.iter().map(|(_, bytes)| *bytes).sum())?;
        // From here on it is written.
        self.keep_note(release, &wanted)?;
        stale.iter().try_for_each(|(path, _)| remove(path))?;
        self.keep(release.image, &manifest_bytes)?;
        self.keep(plan.manifest.index.digest, &index_bytes)?;
        let mut meter = Meter::new(release.size_bytes, self.owed_bytes(&wanted), progress);
        for one in wanted {
            fetch(source, one, &place(&self.blobs(), one.digest), &mut meter, cancel)?;
        }
        self.fetched().ok_or(UpdateError::NothingDownloaded)
    }

    /// Brings what was fetched into the repository, as [`STAGED_REF`], and removes it here. Nothing is deployed. A pull by
    /// OSTree that has begun is finished; before it, `cancel` is noticed.
    ///
    /// # Errors
    /// [`UpdateError::NothingDownloaded`] when it is not here or not whole; [`UpdateError::NoSpace`];
    /// [`UpdateError::Content`] when it is not what was signed, and then it is removed; [`UpdateError::Stopped`];
    /// [`UpdateError::Failed`].
    pub fn stage(
        &self,
        release: &Release,
        repository: &Path,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        cancel.check()?;
        let note = self.note().ok_or(UpdateError::NothingDownloaded)?;
        if (note.release.commit, note.release.image) != (release.commit, release.image) {
            return Err(UpdateError::NothingDownloaded);
        }
        let (_, manifest) = self.manifest(None, release, cancel)?;
        let (_, index) = self.index(None, &manifest, cancel)?;
        let plan = Plan::new(manifest, index, release.commit, repository)?;
        let is_here = |at: &usize| {
            let blob = &plan.manifest.layers[*at];
            is_there(&place(&self.blobs(), blob.digest), blob.size_bytes)
        };
        if !plan.missing.iter().all(is_here) {
            return Err(UpdateError::NothingDownloaded);
        }
        let needed_bytes = plan.room_bytes();
        space::check(needed_bytes, space::free_bytes(&self.folder)?)?;
        let scratch = self.scratch();
        let done = if plan.missing.is_empty() {
            unpack::pull(release.commit, None, repository, needed_bytes)
        } else {
            unpack::unpack(&plan, &self.blobs(), &scratch, cancel)
                .and_then(|()| cancel.check())
                .and_then(|()| {
                    unpack::pull(release.commit, Some(&scratch), repository, needed_bytes)
                })
        };
        unpack::remove_scratch(&scratch)?;
        done?;
        self.forget()
    }

    /// Removes all that was fetched.
    ///
    /// # Errors
    /// [`UpdateError::Failed`].
    pub fn forget(&self) -> Result<(), UpdateError> {
        unpack::remove_scratch(&self.scratch())?;
        // The note goes last: what it names is then found gone, and nothing lies there that it does not name.
        for (path, _) in self.stale(&HashSet::new())? {
            remove(&path)?;
        }
        remove(&self.note_path())
    }

    fn blobs(&self) -> PathBuf {
        self.folder.join("blobs/sha256")
    }

    fn scratch(&self) -> PathBuf {
        self.folder.join("scratch")
    }

    fn note_path(&self) -> PathBuf {
        self.folder.join("release.json")
    }

    /// A note that cannot be read says nothing: then everything is fetched anew.
    fn note(&self) -> Option<Note> {
        serde_json::from_slice(&files::read(&self.note_path(), MAX_NOTE_BYTES).ok()?).ok()
    }

    fn keep_note(&self, release: &Release, wanted: &[Wanted]) -> Result<(), UpdateError> {
        let piece = |one: &Wanted| Piece { digest: one.digest, size_bytes: one.total_bytes };
        let note = Note { release: release.clone(), wanted: wanted.iter().map(piece).collect() };
        let failed = |error| UpdateError::failed("note which release this is", error);
        let bytes = serde_json::to_vec(&note).map_err(|error| failed(error.to_string()))?;
        files::replace(&self.note_path(), &bytes, 0o600).map_err(|error| failed(error.to_string()))
    }

    /// Keeps a small blob that was verified.
    fn keep(&self, digest: BlobDigest, bytes: &[u8]) -> Result<(), UpdateError> {
        let path = place(&self.blobs(), digest);
        if files::read(&path, bytes.len() as u64).is_ok_and(|here| here == bytes) {
            return Ok(());
        }
        files::replace(&path, bytes, 0o600)
            .map_err(|error| UpdateError::failed("keep a blob", error))
    }

    fn manifest(
        &self,
        source: Option<&dyn Source>,
        release: &Release,
        cancel: &Cancel,
    ) -> Result<(Vec<u8>, Manifest), UpdateError> {
        let total_bytes = MAX_MANIFEST_BYTES.min(release.size_bytes);
        let wanted = Wanted { digest: release.image, total_bytes, is_manifest: true };
        let bytes = self.small(source, wanted, cancel)?;
        let manifest = Manifest::parse(&bytes)?;
        manifest.check(release)?;
        Ok((bytes, manifest))
    }

    fn index(
        &self,
        source: Option<&dyn Source>,
        manifest: &Manifest,
        cancel: &Cancel,
    ) -> Result<(Vec<u8>, Index), UpdateError> {
        let blob = &manifest.index;
        let bytes = self.small(source, wanted_blob(blob), cancel)?;
        let index = Index::parse(&bytes, blob, manifest.layers.len())?;
        Ok((bytes, index))
    }

    /// A small blob from the disk, or else from the source.
    fn small(
        &self,
        source: Option<&dyn Source>,
        wanted: Wanted,
        cancel: &Cancel,
    ) -> Result<Vec<u8>, UpdateError> {
        let path = place(&self.blobs(), wanted.digest);
        let here = files::read(&path, wanted.total_bytes).ok();
        match (here.filter(|bytes| BlobDigest::of(bytes) == wanted.digest), source) {
            (Some(bytes), _) => Ok(bytes),
            (None, Some(source)) => take_small(source, wanted, cancel),
            (None, None) => Err(UpdateError::NothingDownloaded),
        }
    }

    /// Blobs, whole or begun, that are not among those that are kept, and the room that each takes.
    fn stale(&self, kept: &HashSet<BlobDigest>) -> Result<Vec<(PathBuf, u64)>, UpdateError> {
        let failed = |error: io::Error| UpdateError::failed("look at what was fetched", error);
        let mut stale = Vec::new();
        for entry in fs::read_dir(self.blobs()).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let digits = name.to_str().map(|name| name.strip_suffix(files::PART).unwrap_or(name));
            let digest = digits.and_then(|digits| format!("sha256:{digits}").parse().ok());
            if !digest.is_some_and(|digest| kept.contains(&digest)) {
                stale.push((entry.path(), entry.metadata().map_err(failed)?.len()));
            }
        }
        Ok(stale)
    }

    /// How much is still to come, in bytes.
    fn owed_bytes(&self, wanted: &[Wanted]) -> u64 {
        let blobs = self.blobs();
        let owed = |one: &Wanted| {
            one.total_bytes - there_bytes(&place(&blobs, one.digest), one.total_bytes)
        };
        wanted.iter().map(owed).fold(0, u64::saturating_add)
    }

    fn check_room(&self, plan: &Plan, wanted: &[Wanted], stale: u64) -> Result<(), UpdateError> {
        let needed = self.owed_bytes(wanted).saturating_add(plan.room_bytes());
        space::check(needed, space::free_bytes(&self.folder)?.saturating_add(stale))
    }
}

fn wanted_blob(blob: &Blob) -> Wanted {
    Wanted { digest: blob.digest, total_bytes: blob.size_bytes, is_manifest: false }
}

/// All that a release needs here, the small first.
fn wanted(release: &Release, plan: &Plan) -> Vec<Wanted> {
    let manifest =
        Wanted { digest: release.image, total_bytes: plan.manifest.own_bytes, is_manifest: true };
    let layers = plan.missing.iter().map(|at| wanted_blob(&plan.manifest.layers[*at]));
    [manifest, wanted_blob(&plan.manifest.index)].into_iter().chain(layers).collect()
}
