//! A release in one file, as it comes from a stick or a browser: a tar with `envelope.json` first, then
//! `blobs/sha256/<digits>`.
//!
//! Who gives it may go on writing to it, so it is copied before it is looked at. Only what is stated is shown to whoever asks
//! as soon as it has come: what is not believed need not be copied to its end.
//!
//! Two blocks of zeros end it, and the lengths before them say where those are. So no archive is the beginning of
//! another one, and one that was cut is none.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use punktfunk_os::files;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};

use crate::error::UpdateError;
use crate::name::{BlobDigest, Channel};
use crate::statement::MAX_ENVELOPE_BYTES;
use crate::transport::bundle::MAX_LAYERS;
use crate::transport::space::{self, free_bytes};
use crate::transport::tarball::{BLOCK_BYTES, padding, parse_header};
use crate::transport::{Cancel, Source, Wanted};

/// The first file.
pub const ENVELOPE: &str = "envelope.json";

/// Where all others are.
pub const BLOBS: &str = "blobs/sha256/";

/// Manifest, index, layers, and what a registry wants beside them.
const MAX_FILES: usize = MAX_LAYERS + 8;

/// What comes beside the contents of files, in bytes: headers, what fills blocks, the statement, what a registry wants.
const BESIDE_BYTES: u64 = 1 << 20;

/// What is copied at once, in bytes.
const PIECE_BYTES: usize = 256 << 10;

/// After so many bytes what came is brought to the disk, and it is looked whether that still has room.
const LOOK_EVERY_BYTES: u64 = 64 << 20;

/// So long somebody may give nothing.
const MAX_IDLE: Duration = Duration::from_secs(30);

/// How often it is looked whether this shall end.
const SLICE: Duration = Duration::from_millis(250);

/// What bounds an archive that somebody gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// No archive is longer, in bytes.
    pub max_bytes: u64,
    /// So much stays free on the disk, in bytes.
    pub keep_free_bytes: u64,
    /// After so long what is stated has come.
    pub stated_within: Duration,
}

/// A clock that only goes forward, since whenever it began.
pub type Steady = dyn Fn() -> Duration + Send;

/// An archive that lies in a folder of root's.
#[derive(Debug)]
pub struct Archive {
    file: File,
    envelope: Vec<u8>,
    /// Where each blob begins, and its length.
    blobs: HashMap<BlobDigest, (u64, u64)>,
}

/// Asked about what is stated, before the rest has come; says how long the archive will be.
pub type Judge<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Expected, UpdateError>;

/// How long an archive of what is stated will be, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// For so much there must be room before it is copied.
    pub least_bytes: u64,
    /// No longer than this.
    pub most_bytes: u64,
}

impl Expected {
    /// Of at least one of these images, each with its blobs' length.
    pub fn of(images: impl Iterator<Item = u64> + Clone) -> Self {
        let all = images.clone().fold(0, u64::saturating_add);
        Self {
            least_bytes: images.min().unwrap_or(0),
            most_bytes: all.saturating_add(BESIDE_BYTES),
        }
    }
}

impl Archive {
    /// Copies what somebody gives to `path`, and finds out what is in it. Nothing of it is believed but what `judge` says;
    /// nobody else can change it from then on. What was at `path` before is replaced, and stays when this fails.
    ///
    /// A file is read from where it stands.
    ///
    /// # Errors
    /// What `judge` says; [`UpdateError::Content`] when it is no archive of ours, [`UpdateError::NoSpace`],
    /// [`UpdateError::Stopped`], [`UpdateError::Late`] when what is stated does not come in time by `clock`,
    /// [`UpdateError::Unreachable`] when nothing comes for long, or [`UpdateError::Failed`].
    pub fn take_in(
        from: OwnedFd,
        path: &Path,
        limits: Limits,
        clock: &Steady,
        judge: Judge<'_>,
        cancel: &Cancel,
    ) -> Result<Self, UpdateError> {
        let part = files::part(path);
        let done = copy(from, &part, limits, clock, judge, cancel).and_then(|()| Self::open(&part));
        let done = done.and_then(|archive| {
            fs::rename(&part, path).map_err(|error| failed("keep an archive", &error))?;
            files::sync_folder_of(path).map_err(|error| failed("keep an archive", &error))?;
            Ok(archive)
        });
        if done.is_err() {
            remove(&part)?;
        }
        done
    }

    /// The archive that was copied to `path` before.
    ///
    /// # Errors
    /// As [`Archive::take_in`]; [`UpdateError::NothingDownloaded`] when there is none.
    pub fn open(path: &Path) -> Result<Self, UpdateError> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(UpdateError::NothingDownloaded);
            }
            file => file.map_err(|error| failed("open an archive", &error))?,
        };
        let length = file.metadata().map_err(|error| failed("look at an archive", &error))?.len();
        let mut archive = Self { file, envelope: Vec::new(), blobs: HashMap::new() };
        archive.find(length)?;
        Ok(archive)
    }

    /// Whether it has a blob, whatever its length.
    pub fn has(&self, digest: BlobDigest) -> bool {
        self.blobs.contains_key(&digest)
    }

    /// Finds out what is in it.
    fn find(&mut self, length: u64) -> Result<(), UpdateError> {
        let mut at = 0;
        for number in 0.. {
            let Some((name, size)) = parse_header(&self.block(at)?)? else { break };
            let start = at + BLOCK_BYTES as u64;
            // Lengths in headers are below 2^33, and so is no sum of a few hundred of them too large.
            at = start + size + padding(size);
            if at > length || number > MAX_FILES {
                return Err(flaw("it is cut off, or has too many files"));
            }
            if number == 0 {
                self.envelope = self.take_envelope(&name, start, size)?;
                continue;
            }
            let digits = name.strip_prefix(BLOBS).unwrap_or_default();
            let digest: BlobDigest = format!("sha256:{digits}")
                .parse()
                .map_err(|_| flaw("it has a file that does not belong there"))?;
            if self.blobs.insert(digest, (start, size)).is_some() {
                return Err(flaw("it has a file twice"));
            }
        }
        let end = self.block(at + BLOCK_BYTES as u64)?;
        if self.envelope.is_empty() || end != [0; BLOCK_BYTES] || length != at + 1024 {
            return Err(flaw("it does not end as one does"));
        }
        Ok(())
    }

    fn take_envelope(&self, name: &str, at: u64, size: u64) -> Result<Vec<u8>, UpdateError> {
        let mut envelope = vec![0; envelope_bytes(name, size)?];
        self.read(&mut envelope, at)?;
        Ok(envelope)
    }

    fn block(&self, at: u64) -> Result<[u8; BLOCK_BYTES], UpdateError> {
        let mut block = [0; BLOCK_BYTES];
        self.read(&mut block, at)?;
        Ok(block)
    }

    fn read(&self, into: &mut [u8], at: u64) -> Result<(), UpdateError> {
        self.file.read_exact_at(into, at).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => flaw("it is cut off"),
            _ => failed("read an archive", &error),
        })
    }
}

impl Source for Archive {
    fn envelope(&self, _: Channel, _: &str, cancel: &Cancel) -> Result<Vec<u8>, UpdateError> {
        cancel.check()?;
        Ok(self.envelope.clone())
    }

    fn blob(
        &self,
        blob: Wanted,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
        cancel: &Cancel,
    ) -> Result<(), UpdateError> {
        let found = self.blobs.get(&blob.digest);
        let (start, length) =
            *found.ok_or_else(|| flaw(&format!("{} is not in it", blob.digest)))?;
        if length > blob.total_bytes || (length < blob.total_bytes && !blob.is_manifest) {
            return Err(flaw(&format!("{} has {length} bytes in it", blob.digest)));
        }
        let mut piece = vec![0; PIECE_BYTES];
        let mut at = offset;
        while at < length {
            cancel.check()?;
            let count = (length - at).min(PIECE_BYTES as u64) as usize;
            self.read(&mut piece[..count], start + at)?;
            take(&piece[..count])?;
            at += count as u64;
        }
        Ok(())
    }
}

/// How long a statement is, if this is one.
fn envelope_bytes(name: &str, size: u64) -> Result<usize, UpdateError> {
    if name != ENVELOPE || size == 0 || size > MAX_ENVELOPE_BYTES {
        return Err(flaw("it does not begin with a statement"));
    }
    Ok(size as usize)
}

/// The beginning of an archive, until what is stated has come.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    is_over: bool,
}

impl Head {
    /// Takes what has come; gives what is stated, once.
    fn more(&mut self, piece: &[u8]) -> Result<Option<Vec<u8>>, UpdateError> {
        if self.is_over {
            return Ok(None);
        }
        self.bytes.extend_from_slice(piece);
        let Some((header, rest)) = self.bytes.split_first_chunk::<BLOCK_BYTES>() else {
            return Ok(None);
        };
        let (name, size) = parse_header(header)?.unwrap_or_default();
        let Some(envelope) = rest.get(..envelope_bytes(&name, size)?) else { return Ok(None) };
        let envelope = envelope.to_vec();
        *self = Self { bytes: Vec::new(), is_over: true };
        Ok(Some(envelope))
    }
}

/// Copies to a new file, and not more than may be.
fn copy(
    from: OwnedFd,
    to: &Path,
    mut limits: Limits,
    clock: &Steady,
    judge: Judge<'_>,
    cancel: &Cancel,
) -> Result<(), UpdateError> {
    let stated_by = clock().saturating_add(limits.stated_within);
    let about = fstat(&from).map_err(|error| failed("look at an archive", &error))?;
    let (said, from) = match FileType::from_raw_mode(about.st_mode) {
        FileType::RegularFile => (u64::try_from(about.st_size).unwrap_or(0), from),
        FileType::Fifo => (0, opened_anew(&from)?),
        _ => return Err(flaw("it is neither a file nor a pipe")),
    };
    too_long(said, limits)?;
    remove(to)?;
    room(to, said, limits)?;
    let write = |error: io::Error| space::write_failed(to, said.max(1), &error);
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(write)?;
    let mut piece = vec![0; PIECE_BYTES];
    let mut head = Head::default();
    let mut total: u64 = 0;
    let mut look_at = 0;
    loop {
        let count = read_some(&from, &mut piece, &|| {
            cancel.check()?;
            if head.is_over || clock() < stated_by {
                return Ok(());
            }
            Err(UpdateError::Late { limit_s: limits.stated_within.as_secs() })
        })?;
        if count == 0 {
            break;
        }
        if let Some(envelope) = head.more(&piece[..count])? {
            let expected = judge(&envelope)?;
            limits.max_bytes = limits.max_bytes.min(expected.most_bytes);
            too_long(said, limits)?;
            room(to, expected.least_bytes, limits)?;
        }
        total = total.saturating_add(count as u64);
        too_long(total, limits)?;
        if total > look_at {
            file.sync_data().map_err(write)?;
            room(to, LOOK_EVERY_BYTES, limits)?;
            look_at = total.saturating_add(LOOK_EVERY_BYTES);
        }
        file.write_all(&piece[..count]).map_err(write)?;
    }
    file.sync_all().map_err(write)
}

/// The same pipe with flags of its own: those that came along are shared with whoever gave it, who could have a reader wait
/// for ever.
fn opened_anew(pipe: &OwnedFd) -> Result<OwnedFd, UpdateError> {
    let path = format!("/proc/self/fd/{}", pipe.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    open(path, flags, Mode::empty()).map_err(|error| failed("read an archive", &error))
}

fn too_long(bytes: u64, limits: Limits) -> Result<(), UpdateError> {
    if bytes <= limits.max_bytes {
        return Ok(());
    }
    Err(flaw(&format!("it is longer than {} bytes", limits.max_bytes)))
}

/// Whether there is room for so much more.
fn room(path: &Path, bytes: u64, limits: Limits) -> Result<(), UpdateError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let free_bytes = free_bytes(folder)?;
    let needed_bytes = bytes.saturating_add(limits.keep_free_bytes);
    if free_bytes >= needed_bytes {
        return Ok(());
    }
    Err(UpdateError::NoSpace { needed_bytes, free_bytes })
}

/// Reads what is there, or waits for it as long as `check` lets it; 0 at the end.
fn read_some(
    from: &OwnedFd,
    into: &mut [u8],
    check: &dyn Fn() -> Result<(), UpdateError>,
) -> Result<usize, UpdateError> {
    let began = Instant::now();
    let broken = |error: rustix::io::Errno| failed("read an archive", &error);
    loop {
        check()?;
        match rustix::io::read(from, &mut *into) {
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            done => return done.map_err(broken),
        }
        if began.elapsed() >= MAX_IDLE {
            let detail = format!("nothing came for {} s", MAX_IDLE.as_secs());
            return Err(UpdateError::Unreachable { detail });
        }
        let limit = Timespec::try_from(SLICE).map_err(|error| failed("wait", &error))?;
        match poll(&mut [PollFd::from_borrowed_fd(from.as_fd(), PollFlags::IN)], Some(&limit)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(broken(error)),
        }
    }
}

fn remove(path: &Path) -> Result<(), UpdateError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("remove what was begun of an archive", &error))
        }
        _ => Ok(()),
    }
}

fn failed(doing: &str, error: &dyn std::fmt::Display) -> UpdateError {
    UpdateError::failed(doing, error)
}

fn flaw(detail: &str) -> UpdateError {
    UpdateError::Content { detail: format!("the archive: {detail}") }
}
