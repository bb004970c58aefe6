//! From a commit to a release: its objects in layers, an index of them, and a manifest.
//!
//! The same commit gives the same bytes, with the same version of zstd.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, bail, ensure};
use punktfunk_update::name::{BlobDigest, Commit};
use punktfunk_update::transport::bundle::{Blob, Index, Kind, Manifest, ObjectId, WINDOW_LOG};
use punktfunk_update::transport::tarball::{BLOCK_BYTES, END, padding};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::archive::{put, put_with};
use crate::group::{Leaf, Owners, group};
use crate::layout::Layout;
use crate::object::FileObject;

/// How hard zstd tries when nothing else is said: a sixth less than 1 transfers, for minutes of whoever makes the release.
pub const LEVEL: i32 = 19;

/// What a statement says of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Encapsulated {
    /// The manifest's digest.
    pub image: BlobDigest,
    /// What is transferred at most, in bytes.
    pub size_bytes: u64,
    /// How long all is when it is unpacked, in bytes.
    pub unpacked_bytes: u64,
    /// Of how many layers, without the index.
    pub layers: usize,
}

/// Makes a release of a commit. What was in `out` is replaced, if it was one.
///
/// # Errors
/// The commit is not all there, something of it has no place in a release, or the system says no.
pub fn encapsulate(
    repository: &Path,
    commit: &str,
    out: &Path,
    level: i32,
) -> anyhow::Result<Encapsulated> {
    let layout = Layout::create(out)?;
    let work = layout.work();
    let done =
        Tree::read(repository, commit, &work).and_then(|tree| release(&tree, &layout, level));
    fs::remove_dir_all(&work).context("remove what was only needed for this")?;
    done
}

/// One object, with its file's name in an archive.
#[derive(Debug, Clone)]
struct Object {
    kind: Kind,
    checksum: String,
    /// Its length, in bytes, more or less.
    size: u64,
}

impl Object {
    fn id(&self) -> anyhow::Result<ObjectId> {
        Ok(ObjectId::new(self.kind, self.checksum.parse()?))
    }

    fn name(&self) -> String {
        format!("{}/{}.{}", &self.checksum[..2], &self.checksum[2..], self.kind.suffix())
    }
}

/// A commit in a repository of its own.
struct Tree {
    repository: PathBuf,
    leaves: Vec<Leaf>,
    /// What is no file.
    metadata: Vec<Object>,
}

impl Tree {
    /// Brings a commit into a new repository in a mode that keeps files as they are, and lists it.
    fn read(repository: &Path, commit: &str, work: &Path) -> anyhow::Result<Self> {
        let own = work.join("repo");
        fs::create_dir_all(work)?;
        let commit = ostree(repository, &["rev-parse", "--", commit])?;
        let commit: Commit = commit.trim().parse().context("that is no commit")?;
        ostree(&own, &["init", "--mode=bare-user"])?;
        let from = repository.display().to_string();
        ostree(&own, &["pull-local", "--disable-fsync", &from, &commit.to_string()])?;
        let listed = ostree(&own, &["ls", "-R", "-C", &commit.to_string()])?;
        let mut tree = Self { repository: own, leaves: Vec::new(), metadata: Vec::new() };
        tree.add(Kind::Commit, &commit.to_string());
        listed
            .lines()
            .try_for_each(|line| tree.take(line).with_context(|| format!("\"{line}\"")))?;
        tree.check()?;
        Ok(tree)
    }

    /// A line such as `-00644 0 0 36 <checksum> /usr/lib/x`; a folder has two checksums, a link says where it leads.
    fn take(&mut self, line: &str) -> anyhow::Result<()> {
        let mut words = line.split_ascii_whitespace();
        let mode = words.next().context("an empty line")?;
        let mut number = || words.nth(0).context("too few words");
        let (_, _, size) = (number()?, number()?, number()?.parse()?);
        let checksum = number()?.to_owned();
        checksum.parse::<Commit>()?;
        if mode.starts_with('d') {
            self.add(Kind::DirTree, &checksum);
            let meta = number()?.to_owned();
            self.add(Kind::DirMeta, &meta);
            return Ok(());
        }
        let path = line.split_once(&checksum).map_or("", |(_, rest)| rest.trim_start());
        let path = match mode.starts_with('l') {
            true => path.split_once(" -> ").map_or(path, |(path, _)| path),
            false => path,
        };
        ensure!(path.starts_with('/'), "that has no path");
        self.leaves.push(Leaf { path: path.to_owned(), checksum, size });
        Ok(())
    }

    fn add(&mut self, kind: Kind, checksum: &str) {
        self.metadata.push(Object { kind, checksum: checksum.to_owned(), size: 0 });
    }

    /// Whether all that lies in the repository was listed, and nothing else.
    fn check(&self) -> anyhow::Result<()> {
        let listed = self.leaves.iter().map(|leaf| (Kind::File, &leaf.checksum));
        let metadata = self.metadata.iter().map(|object| (object.kind, &object.checksum));
        let listed: BTreeSet<ObjectId> = listed
            .chain(metadata)
            .map(|(kind, checksum)| Ok(ObjectId::new(kind, checksum.parse()?)))
            .collect::<anyhow::Result<_>>()?;
        let mut there = BTreeSet::new();
        for folder in fs::read_dir(self.repository.join("objects"))? {
            let folder = folder?;
            for file in fs::read_dir(folder.path())? {
                let (folder, file) = (folder.file_name(), file?.file_name());
                let object = folder.to_str().zip(file.to_str());
                there.extend(object.and_then(|(folder, file)| ObjectId::of_name(folder, file)));
            }
        }
        ensure!(listed == there, "{} objects are listed and {} there", listed.len(), there.len());
        Ok(())
    }

    fn path(&self, kind: Kind, checksum: &str) -> PathBuf {
        let suffix = if kind == Kind::File { "file" } else { kind.suffix() };
        self.repository.join(format!("objects/{}/{}.{suffix}", &checksum[..2], &checksum[2..]))
    }

    /// Whose files are whose, by the lists that Debian's packages left in the tree.
    fn owners(&self) -> anyhow::Result<Owners> {
        let mut owners = Owners::default();
        for leaf in &self.leaves {
            if let Some(package) = Owners::package_of(&leaf.path) {
                let list = fs::read(self.path(Kind::File, &leaf.checksum))?;
                owners.add(package, &String::from_utf8_lossy(&list));
            }
        }
        Ok(owners)
    }

    /// What goes into each layer. What is no file comes first: it changes with every release.
    fn layers(&self) -> anyhow::Result<Vec<Vec<Object>>> {
        let mut seen = BTreeSet::new();
        let mut metadata = self.metadata.clone();
        metadata.retain(|object| seen.insert((object.kind, object.checksum.clone())));
        let of = |leaf: Leaf| Object { kind: Kind::File, checksum: leaf.checksum, size: leaf.size };
        let files = group(&self.leaves, &self.owners()?).into_iter();
        let files = files.map(|layer| layer.into_iter().map(of).collect());
        Ok(std::iter::once(metadata).chain(files).collect())
    }

    /// Writes a layer as a tar. Gives its length, in bytes.
    fn write(&self, layer: &[Object], to: &mut dyn Write) -> anyhow::Result<u64> {
        let mut length = END.len() as u64;
        for object in layer {
            let path = self.path(object.kind, &object.checksum);
            let size = if object.kind == Kind::File {
                let file = FileObject::open(&path)?;
                let size = file.length();
                put_with(to, &object.name(), size, |to| file.write(to))?;
                size
            } else {
                let mut file = File::open(&path)?;
                let size = file.metadata()?.len();
                put(to, &object.name(), &mut file, size)?;
                size
            };
            length += BLOCK_BYTES as u64 + size + padding(size);
        }
        to.write_all(&END)?;
        Ok(length)
    }
}

/// Compresses all layers, the largest first, on as many threads as there are cores.
fn release(tree: &Tree, layout: &Layout, level: i32) -> anyhow::Result<Encapsulated> {
    let layers = tree.layers()?;
    let mut order: Vec<usize> = (0..layers.len()).collect();
    let size = |at: &usize| layers[*at].iter().map(|object| object.size).sum::<u64>();
    order.sort_by_key(|at| std::cmp::Reverse(size(at)));
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || -> anyhow::Result<()> {
        while let Some(at) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
            let part = layout.work().join(format!("layer-{at}"));
            let blob = compress(layout, &part, level, &mut |to| tree.write(&layers[*at], to))?;
            done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push((*at, blob));
        }
        Ok(())
    };
    thread::scope(|scope| {
        let count = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread that compresses panicked"),
        })
    })?;
    let mut blobs = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    blobs.sort_by_key(|(at, _)| *at);
    let blobs: Vec<Blob> = blobs.into_iter().map(|(_, blob)| blob).collect();
    let ids = |layer: &Vec<Object>| layer.iter().map(Object::id).collect::<anyhow::Result<_>>();
    let index = Index { layers: layers.iter().map(ids).collect::<anyhow::Result<_>>()? }.write();
    let part = layout.work().join("index");
    let index = compress(layout, &part, level, &mut |to| {
        to.write_all(&index)?;
        Ok(index.len() as u64)
    })?;
    let manifest = Manifest::write(index, &blobs)?;
    let image = layout.finish(&manifest)?;
    let manifest = Manifest::parse(&manifest)?;
    let (size_bytes, unpacked_bytes) = (manifest.size_bytes(), manifest.unpacked_bytes());
    Ok(Encapsulated { image, size_bytes, unpacked_bytes, layers: blobs.len() })
}

/// Writes a blob under its digest. `write` gives the length of what it wrote, in bytes.
fn compress(
    layout: &Layout,
    part: &Path,
    level: i32,
    write: &mut dyn FnMut(&mut dyn Write) -> anyhow::Result<u64>,
) -> anyhow::Result<Blob> {
    let file = Hashed { file: BufWriter::new(File::create(part)?), hash: Sha256::new(), bytes: 0 };
    let mut encoder = zstd::stream::write::Encoder::new(file, level)?;
    encoder.window_log(WINDOW_LOG)?;
    encoder.long_distance_matching(true)?;
    encoder.include_checksum(false)?;
    let unpacked_bytes = write(&mut encoder)?;
    let Hashed { mut file, hash, bytes: size_bytes } = encoder.finish()?;
    file.flush()?;
    let digest = BlobDigest(hash.finalize().into());
    fs::rename(part, layout.blob(digest))?;
    Ok(Blob { digest, size_bytes, unpacked_bytes })
}

/// Takes the digest of what is written, and its length in bytes.
struct Hashed {
    file: BufWriter<File>,
    hash: Sha256,
    bytes: u64,
}

impl Write for Hashed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hash.update(&bytes[..count]);
        self.bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Runs OSTree; names are listed as they are.
fn ostree(repository: &Path, words: &[&str]) -> anyhow::Result<String> {
    let repository = format!("--repo={}", repository.display());
    let mut command = Command::new("ostree");
    let ran = command.arg(repository).args(words).env("LC_ALL", "C.UTF-8").output();
    let ran = ran.context("run ostree")?;
    if !ran.status.success() {
        bail!("ostree {}: {}", words.join(" "), String::from_utf8_lossy(&ran.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&ran.stdout).into_owned())
}
