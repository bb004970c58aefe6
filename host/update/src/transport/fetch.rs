//! One blob after the other onto the disk: begun files are gone on with, and nothing has its name before it has its digest.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use punktfunk_os::files;
use sha2::{Digest as _, Sha256};

use crate::error::UpdateError;
use crate::name::BlobDigest;
use crate::transport::space::write_failed;
use crate::transport::{Cancel, Source, Wanted};

/// A source that breaks off is asked again at once if it gave so much before, in bytes.
const WORTH_ASKING_BYTES: u64 = 1 << 20;

/// After so many bytes what came is brought to the disk: a power cut costs no more, and the disk is never busy for long.
const SYNC_EVERY_BYTES: u64 = 32 << 20;

/// What is read at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Tells how far it is; what is told never becomes less.
pub(super) struct Meter<'a> {
    tell: &'a mut dyn FnMut(u64, u64),
    total_bytes: u64,
    told: Option<u64>,
    /// What is done besides the blob that is being fetched, in bytes.
    done_bytes: u64,
}

impl<'a> Meter<'a> {
    /// With so much still to come, in bytes.
    pub(super) fn new(
        total_bytes: u64,
        owed_bytes: u64,
        tell: &'a mut dyn FnMut(u64, u64),
    ) -> Self {
        let done_bytes = total_bytes.saturating_sub(owed_bytes);
        let mut meter = Self { tell, total_bytes, told: None, done_bytes };
        meter.tell(0);
        meter
    }

    /// A blob is begun, of which so much is there and was counted, in bytes.
    fn begin(&mut self, there_bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_sub(there_bytes);
    }

    /// So much is done of the blob that is being fetched, in bytes.
    fn tell(&mut self, of_this: u64) {
        let done = self.done_bytes.saturating_add(of_this).min(self.total_bytes);
        if self.told.is_none_or(|told| told < done) {
            self.told = Some(done);
            (self.tell)(done, self.total_bytes);
        }
    }

    /// A blob is whole.
    fn add(&mut self, size_bytes: u64) {
        self.done_bytes = self.done_bytes.saturating_add(size_bytes);
        self.tell(0);
    }
}

/// Where a blob lies.
pub(super) fn place(blobs: &Path, digest: BlobDigest) -> PathBuf {
    blobs.join(digest.digits())
}

/// Whether a blob of this length is there. It had its digest when it got its name.
pub(super) fn is_there(path: &Path, size_bytes: u64) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| about.is_file() && about.len() == size_bytes)
}

/// How much of a blob is there, in bytes. One that was not verified yet is never all there.
pub(super) fn there_bytes(path: &Path, size_bytes: u64) -> u64 {
    if is_there(path, size_bytes) {
        return size_bytes;
    }
    let part = fs::symlink_metadata(files::part(path)).map_or(0, |about| about.len());
    part.min(size_bytes.saturating_sub(1))
}

/// All of a small blob, from the source.
///
/// # Errors
/// What the source says, and [`UpdateError::Content`].
pub(super) fn take_small(
    source: &dyn Source,
    wanted: Wanted,
    cancel: &Cancel,
) -> Result<Vec<u8>, UpdateError> {
    let mut bytes = Vec::new();
    let mut take = |piece: &[u8]| {
        if (bytes.len() + piece.len()) as u64 > wanted.total_bytes {
            return Err(too_much(wanted.digest));
        }
        bytes.extend_from_slice(piece);
        Ok(())
    };
    source.blob(wanted, 0, &mut take, cancel)?;
    if BlobDigest::of(&bytes) == wanted.digest { Ok(bytes) } else { Err(is_other(wanted.digest)) }
}

/// Fetches a blob to its place, from where it was left.
///
/// # Errors
/// What the source says; [`UpdateError::Content`] when what came is something else, which is removed;
/// [`UpdateError::NoSpace`]; [`UpdateError::Failed`].
pub(super) fn fetch(
    source: &dyn Source,
    wanted: Wanted,
    path: &Path,
    meter: &mut Meter<'_>,
    cancel: &Cancel,
) -> Result<(), UpdateError> {
    meter.begin(there_bytes(path, wanted.total_bytes));
    if is_there(path, wanted.total_bytes) {
        meter.add(wanted.total_bytes);
        return Ok(());
    }
    let part = files::part(path);
    let mut coming = Coming::resume(&part, wanted, cancel)?;
    // What lay here may have been torn by a power cut: then it is fetched once more before anybody is blamed.
    let mut may_be_torn = coming.done_bytes > 0;
    loop {
        match coming.go_on(source, meter, cancel) {
            Err(error @ UpdateError::Content { .. }) => {
                remove(&part)?;
                return Err(error);
            }
            Err(error) => {
                // It goes on from here whenever that is, also if the power goes until then.
                let kept = coming.file.sync_data();
                kept.map_err(|error| write_failed(&part, wanted.total_bytes, &error))?;
                return Err(error);
            }
            Ok(()) => {}
        }
        if coming.is_right() {
            break;
        }
        remove(&part)?;
        if !may_be_torn {
            return Err(is_other(wanted.digest));
        }
        may_be_torn = false;
        coming = Coming::resume(&part, wanted, cancel)?;
    }
    coming.file.sync_all().map_err(|error| write_failed(&part, wanted.total_bytes, &error))?;
    fs::rename(&part, path).map_err(|error| UpdateError::failed("keep a blob", error))?;
    files::sync_folder_of(path).map_err(|error| UpdateError::failed("keep a blob", error))?;
    meter.add(wanted.total_bytes);
    Ok(())
}

/// A blob of which a part is there.
struct Coming {
    wanted: Wanted,
    path: PathBuf,
    file: File,
    hash: Sha256,
    done_bytes: u64,
}

impl Coming {
    /// Looks at what is there already.
    fn resume(path: &Path, wanted: Wanted, cancel: &Cancel) -> Result<Self, UpdateError> {
        let failed = |error: io::Error| write_failed(path, wanted.total_bytes, &error);
        let mut options = OpenOptions::new();
        let options = options.read(true).append(true).create(true).mode(0o600);
        let mut file = options.open(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() > wanted.total_bytes {
            file.set_len(0).map_err(failed)?;
        }
        let mut hash = Sha256::new();
        let done_bytes = read_all(&mut file, &mut hash, cancel)?;
        Ok(Self { wanted, path: path.to_path_buf(), file, hash, done_bytes })
    }

    /// Asks the source for the rest, and asks again while that brings it on.
    fn go_on(
        &mut self,
        source: &dyn Source,
        meter: &mut Meter<'_>,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        meter.tell(self.done_bytes);
        while self.done_bytes < self.wanted.total_bytes {
            cancel.check()?;
            let (wanted, before) = (self.wanted, self.done_bytes);
            let mut take = |piece: &[u8]| self.take(piece, meter);
            let came = source.blob(wanted, before, &mut take, cancel);
            let came = came.and_then(|()| match self.wanted.total_bytes - self.done_bytes {
                0 => Ok(()),
                left => Err(UpdateError::Unreachable { detail: format!("{left} bytes are owed") }),
            });
            match came {
                Err(UpdateError::Unreachable { .. })
                    if self.done_bytes - before >= WORTH_ASKING_BYTES => {}
                came => return came,
            }
        }
        Ok(())
    }

    fn take(&mut self, piece: &[u8], meter: &mut Meter<'_>) -> Result<(), UpdateError> {
        let after = self.done_bytes + piece.len() as u64;
        if after > self.wanted.total_bytes {
            return Err(too_much(self.wanted.digest));
        }
        let failed = |error: io::Error| write_failed(&self.path, self.wanted.total_bytes, &error);
        self.file.write_all(piece).map_err(failed)?;
        if after / SYNC_EVERY_BYTES > self.done_bytes / SYNC_EVERY_BYTES {
            self.file.sync_data().map_err(failed)?;
        }
        self.hash.update(piece);
        self.done_bytes = after;
        meter.tell(after);
        Ok(())
    }

    fn is_right(&self) -> bool {
        BlobDigest(self.hash.clone().finalize().into()) == self.wanted.digest
    }
}

/// Whether a file is what its name says.
///
/// # Errors
/// [`UpdateError::Stopped`], [`UpdateError::Failed`].
pub(super) fn has_digest(
    path: &Path,
    digest: BlobDigest,
    cancel: &Cancel,
) -> Result<bool, UpdateError> {
    let mut file =
        File::open(path).map_err(|error| UpdateError::failed("read what was fetched", error))?;
    let mut hash = Sha256::new();
    read_all(&mut file, &mut hash, cancel)?;
    Ok(BlobDigest(hash.finalize().into()) == digest)
}

fn read_all(file: &mut File, hash: &mut Sha256, cancel: &Cancel) -> Result<u64, UpdateError> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut length = 0;
    loop {
        cancel.check()?;
        let count = file
            .read(&mut piece)
            .map_err(|error| UpdateError::failed("read what was fetched", error))?;
        if count == 0 {
            return Ok(length);
        }
        hash.update(&piece[..count]);
        length += count as u64;
    }
}

/// Removes a file, if it is there.
///
/// # Errors
/// [`UpdateError::Failed`].
pub(super) fn remove(path: &Path) -> Result<(), UpdateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(UpdateError::failed("remove what was fetched", error))
        }
        _ => Ok(()),
    }
}

fn too_much(digest: BlobDigest) -> UpdateError {
    UpdateError::Content { detail: format!("more came than {digest} has") }
}

/// What is said of a blob that is another.
pub(super) fn is_other(digest: BlobDigest) -> UpdateError {
    UpdateError::Content { detail: format!("what came for {digest} has another digest") }
}
