//! Releases made of nothing: their objects are none that OSTree would take.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Mutex;

use punktfunk_update::error::UpdateError;
use punktfunk_update::name::{BlobDigest, Channel, Commit, Version};
use punktfunk_update::statement::Release;
use punktfunk_update::transport::bundle::{Blob, Index, Kind, Manifest, ObjectId};
use punktfunk_update::transport::tarball::{END, header, padding};
use punktfunk_update::transport::{Cancel, Source, Wanted};

/// A release and its blobs.
pub(crate) struct Made {
    pub(crate) release: Release,
    pub(crate) blobs: BTreeMap<BlobDigest, Vec<u8>>,
    pub(crate) layers: Vec<BlobDigest>,
}

/// The commit of every release of this name.
pub(crate) fn commit(name: &str) -> Commit {
    Commit(BlobDigest::of(name.as_bytes()).0)
}

/// A tar of files.
pub(crate) fn tar(files: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (name, content) in files {
        tar.extend_from_slice(&header(name, content.len() as u64).unwrap());
        tar.extend_from_slice(content);
        tar.extend_from_slice(&END[..padding(content.len() as u64) as usize]);
    }
    tar.extend_from_slice(&END);
    tar
}

/// A blob with what is said of it.
pub(crate) fn pack(plain: &[u8]) -> (Blob, Vec<u8>) {
    let bytes = zstd::encode_all(plain, 1).unwrap();
    let (digest, size_bytes) = (BlobDigest::of(&bytes), bytes.len() as u64);
    (Blob { digest, size_bytes, unpacked_bytes: plain.len() as u64 }, bytes)
}

impl Made {
    /// One of these layers, each of which has these objects; the first has the commit, too.
    pub(crate) fn new(name: &str, layers: &[&[&[u8]]]) -> Self {
        let mut index = Index::default();
        let (mut blobs, mut packed) = (BTreeMap::new(), Vec::new());
        for (at, contents) in layers.iter().enumerate() {
            let own = (at == 0).then(|| (Kind::Commit, commit(name), b"commit".to_vec()));
            let files = contents
                .iter()
                .map(|content| (Kind::File, Commit(BlobDigest::of(content).0), content.to_vec()));
            let mut ids = BTreeSet::new();
            let mut entries = Vec::new();
            for (kind, checksum, content) in own.into_iter().chain(files) {
                ids.insert(ObjectId::new(kind, checksum));
                let text = checksum.to_string();
                entries.push((format!("{}/{}.{}", &text[..2], &text[2..], kind.suffix()), content));
            }
            index.layers.push(ids);
            let (blob, bytes) = pack(&tar(&entries));
            blobs.insert(blob.digest, bytes);
            packed.push(blob);
        }
        let (index, bytes) = pack(&index.write());
        blobs.insert(index.digest, bytes);
        Self::of(name, index, &packed, blobs)
    }

    /// One of these blobs.
    pub(crate) fn of(
        name: &str,
        index: Blob,
        layers: &[Blob],
        mut blobs: BTreeMap<BlobDigest, Vec<u8>>,
    ) -> Self {
        let manifest = Manifest::write(index, layers).unwrap();
        let read = Manifest::parse(&manifest).unwrap();
        let release = Release {
            version: Version::new(0, 2, 0),
            commit: commit(name),
            image: BlobDigest::of(&manifest),
            size_bytes: read.size_bytes(),
            unpacked_bytes: read.unpacked_bytes(),
            minimum: Version::new(0, 1, 0),
            changes: Vec::new(),
        };
        blobs.insert(release.image, manifest);
        Self { release, blobs, layers: layers.iter().map(|blob| blob.digest).collect() }
    }

    /// Which blob a path of a registry names.
    pub(crate) fn find(&self, path: &str) -> Option<&Vec<u8>> {
        self.blobs.get(&path.rsplit_once('/')?.1.parse().ok()?)
    }
}

/// Makes a repository of nothing that has these objects.
pub(crate) fn repository(folder: &Path, contents: &[&[u8]]) {
    fs::create_dir_all(folder.join("objects")).unwrap();
    for content in contents {
        let text = Commit(BlobDigest::of(content).0).to_string();
        let path = folder.join("objects").join(&text[..2]);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join(format!("{}.file", &text[2..])), "").unwrap();
    }
}

/// Bytes that no compressor makes shorter.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// Gives blobs from memory in small pieces, and breaks off where it is told to.
pub(crate) struct Shelf {
    pub(crate) blobs: Mutex<BTreeMap<BlobDigest, Vec<u8>>>,
    /// After how many bytes it breaks off, call after call; then no more.
    pub(crate) cuts: Mutex<Vec<usize>>,
    /// What it was asked for, from where on.
    pub(crate) asked: Mutex<Vec<(BlobDigest, u64)>>,
}

impl Shelf {
    pub(crate) fn new(made: &Made) -> Self {
        let blobs = Mutex::new(made.blobs.clone());
        Self { blobs, cuts: Mutex::default(), asked: Mutex::default() }
    }

    pub(crate) fn asked(&self) -> Vec<(BlobDigest, u64)> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl Source for Shelf {
    fn envelope(&self, _: Channel, _: &str, _: &Cancel) -> Result<Vec<u8>, UpdateError> {
        Err(UpdateError::Unreachable { detail: "a shelf has none".to_owned() })
    }

    fn blob(
        &self,
        blob: Wanted,
        offset: u64,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UpdateError>,
        _: &Cancel,
    ) -> Result<(), UpdateError> {
        self.asked.lock().unwrap().push((blob.digest, offset));
        let detail = || UpdateError::Unreachable { detail: "it broke off".to_owned() };
        let mut rest = self.blobs.lock().unwrap().get(&blob.digest).ok_or_else(detail)?
            [offset as usize..]
            .to_vec();
        let cut = self.cuts.lock().unwrap().pop();
        rest.truncate(cut.unwrap_or(usize::MAX));
        rest.chunks(700).try_for_each(take)?;
        if cut.is_some() { Err(detail()) } else { Ok(()) }
    }
}
