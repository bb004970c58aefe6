//! The form of a release: a manifest, an index, and layers of OSTree's objects. Both sides of it are here, so that who writes
//! and who reads cannot part. `docs/reference/release-layers.md` is its definition.
//!
//! What is read here has the digest that was signed. It is held to limits nevertheless: a mistake of those who sign must not
//! fill a disk either.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Read;

use serde::{Deserialize, Serialize};

use crate::error::UpdateError;
use crate::name::{BlobDigest, Commit};
use crate::statement::{MAX_ENVELOPE_BYTES, Release};

/// A manifest is no longer than this, in bytes.
pub const MAX_MANIFEST_BYTES: u64 = 256 << 10;
/// As many layers has a release, beside its index.
pub const MAX_LAYERS: usize = 256;
/// As many objects has a release.
pub const MAX_OBJECTS: usize = 1 << 20;
/// An index is no longer than this when it is unpacked, in bytes, nor may it be before.
pub const MAX_INDEX_BYTES: u64 = 20 << 20;
/// What unpacks a layer looks back as far as two to the power of this, in bytes: so much memory it takes.
pub const WINDOW_LOG: u32 = 25;

/// What a registry knows a manifest by.
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Of the image of a release.
pub const RELEASE_TYPE: &str = "application/vnd.punktfunk.release.v1";
/// Of the first layer.
pub const INDEX_TYPE: &str = "application/vnd.punktfunk.index.v1+zstd";
/// Of all others.
pub const LAYER_TYPE: &str = "application/vnd.punktfunk.objects.v1.tar+zstd";
/// Of a statement with its signatures.
pub const ENVELOPE_TYPE: &str = "application/vnd.punktfunk.statement.v1+json";
/// Of the two bytes that stand where a container's settings would.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// Those two bytes.
pub const EMPTY: &[u8] = b"{}";
/// The annotation of a layer that says how long it is when it is unpacked, in bytes.
pub const UNPACKED: &str = "org.punktfunk.unpacked-bytes";

/// An index begins so.
const INDEX_MAGIC: &[u8] = b"punktfunk index 1\n";

/// A file system keeps files in pieces of this, in bytes.
const PIECE_BYTES: u64 = 4096;

/// A blob of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// Which.
    pub digest: BlobDigest,
    /// Its length, in bytes.
    pub size_bytes: u64,
    /// Its length when it is unpacked, in bytes.
    pub unpacked_bytes: u64,
}

/// Which blobs a release has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Its own length, in bytes.
    pub own_bytes: u64,
    /// What says which objects are in which layer.
    pub index: Blob,
    /// The objects.
    pub layers: Vec<Blob>,
}

/// What kind of object; the numbers are OSTree's and are written in that order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A file or a link.
    File = 1,
    /// A folder's names.
    DirTree = 2,
    /// A folder's owner and mode.
    DirMeta = 3,
    /// A commit.
    Commit = 4,
}

impl Kind {
    /// All, in the order of the index.
    pub const ALL: [Self; 4] = [Self::File, Self::DirTree, Self::DirMeta, Self::Commit];

    /// How OSTree's files of it end in a repository in archive mode.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::File => "filez",
            Self::DirTree => "dirtree",
            Self::DirMeta => "dirmeta",
            Self::Commit => "commit",
        }
    }

    /// The kind by the end of a file's name, in a repository of any mode.
    pub fn of_suffix(suffix: &str) -> Option<Self> {
        let other = (suffix == "file").then_some(Self::File);
        other.or_else(|| Self::ALL.into_iter().find(|kind| kind.suffix() == suffix))
    }
}

/// An object, as the index names it: the first half of its checksum is enough to tell two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectId {
    /// What kind.
    pub kind: Kind,
    /// The first bytes of its checksum.
    pub prefix: [u8; 16],
}

impl ObjectId {
    /// Of this checksum, as a commit's is held, too.
    pub fn new(kind: Kind, checksum: Commit) -> Self {
        let mut prefix = [0; 16];
        prefix.copy_from_slice(&checksum.0[..16]);
        Self { kind, prefix }
    }

    /// From the name of a file below `objects`, in two parts, such as `ab` and `cdef...filez`.
    pub fn of_name(folder: &str, file: &str) -> Option<Self> {
        let (rest, suffix) = file.split_once('.')?;
        if folder.len() != 2 {
            return None;
        }
        let checksum = format!("{folder}{rest}").parse().ok()?;
        Some(Self::new(Kind::of_suffix(suffix)?, checksum))
    }
}

/// Which objects are in which layer, in the manifest's order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Index {
    /// The objects of each layer, in their order.
    pub layers: Vec<BTreeSet<ObjectId>>,
}

fn wrong(detail: impl std::fmt::Display) -> UpdateError {
    UpdateError::Content { detail: punktfunk_os::status::bounded(&detail.to_string()) }
}

impl Manifest {
    /// Reads the manifest of a release.
    ///
    /// # Errors
    /// [`UpdateError::Content`].
    pub fn parse(bytes: &[u8]) -> Result<Self, UpdateError> {
        let (own_bytes, layers) = parse_layers(bytes)?;
        let (index, layers) =
            layers.split_first().ok_or_else(|| wrong("the manifest names no index"))?;
        if layers.len() > MAX_LAYERS {
            let got = layers.len();
            return Err(wrong(format!("{got} layers, and there may be {MAX_LAYERS}")));
        }
        let layers = layers.iter().map(|layer| layer.blob(LAYER_TYPE)).collect::<Result<_, _>>()?;
        let index = index.blob(INDEX_TYPE)?;
        for (what, got) in [("compressed", index.size_bytes), ("unpacked", index.unpacked_bytes)] {
            if got > MAX_INDEX_BYTES {
                let limit = MAX_INDEX_BYTES;
                return Err(wrong(format!("the index has {got} bytes {what}, more than {limit}")));
            }
        }
        Ok(Self { own_bytes, index, layers })
    }

    /// As it lies in a registry, always with the same bytes.
    ///
    /// # Errors
    /// [`UpdateError::Malformed`] when there are more layers than may be.
    pub fn write(index: Blob, layers: &[Blob]) -> Result<Vec<u8>, UpdateError> {
        let index = Descriptor::of(INDEX_TYPE, index);
        let layers = layers.iter().map(|layer| Descriptor::of(LAYER_TYPE, *layer));
        let bytes = write_manifest(RELEASE_TYPE, std::iter::once(index).chain(layers).collect())?;
        match Self::parse(&bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(UpdateError::Malformed { detail: error.to_string() }),
        }
    }

    /// All blobs but the manifest.
    pub fn blobs(&self) -> impl Iterator<Item = &Blob> {
        std::iter::once(&self.index).chain(&self.layers)
    }

    /// What is transferred at most, in bytes: what a statement says as [`Release::size_bytes`].
    pub fn size_bytes(&self) -> u64 {
        self.blobs().fold(self.own_bytes, |sum, blob| sum.saturating_add(blob.size_bytes))
    }

    /// How long all layers are when they are unpacked, in bytes: what a statement says as [`Release::unpacked_bytes`].
    pub fn unpacked_bytes(&self) -> u64 {
        self.blobs().fold(0, |sum, blob| sum.saturating_add(blob.unpacked_bytes))
    }

    /// Whether it keeps to what was signed beside its digest.
    ///
    /// # Errors
    /// [`UpdateError::Content`].
    pub fn check(&self, release: &Release) -> Result<(), UpdateError> {
        for (what, got, signed) in [
            ("to transfer", self.size_bytes(), release.size_bytes),
            ("to unpack", self.unpacked_bytes(), release.unpacked_bytes),
        ] {
            if got > signed {
                return Err(wrong(format!("{got} bytes {what}, and {signed} are signed")));
            }
        }
        Ok(())
    }
}

impl Index {
    /// Reads the index of as many layers, from its compressed bytes.
    ///
    /// # Errors
    /// [`UpdateError::Content`].
    pub fn parse(compressed: &[u8], blob: &Blob, layers: usize) -> Result<Self, UpdateError> {
        let limit = blob.unpacked_bytes.min(MAX_INDEX_BYTES);
        let mut bytes = Vec::new();
        unpacker(compressed)
            .map_err(wrong)?
            .take(limit + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| wrong(format!("the index cannot be unpacked: {error}")))?;
        if bytes.len() as u64 != blob.unpacked_bytes {
            return Err(wrong("the index is not as long as its manifest says"));
        }
        let mut rest = bytes
            .strip_prefix(INDEX_MAGIC)
            .ok_or_else(|| wrong("the index does not begin as one does"))?;
        let count = take_count(&mut rest)?;
        if count != layers {
            return Err(wrong(format!("the index has {count} layers, the manifest {layers}")));
        }
        let mut left = MAX_OBJECTS;
        let parsed = (0..layers).map(|_| parse_layer(&mut rest, &mut left));
        let layers = parsed.collect::<Result<_, _>>()?;
        if !rest.is_empty() {
            return Err(wrong("something follows the index"));
        }
        Ok(Self { layers })
    }

    /// Its bytes before they are compressed.
    pub fn write(&self) -> Vec<u8> {
        let mut bytes = INDEX_MAGIC.to_vec();
        put_count(&mut bytes, self.layers.len());
        for layer in &self.layers {
            for kind in Kind::ALL {
                let of_kind = || layer.iter().filter(|object| object.kind == kind);
                put_count(&mut bytes, of_kind().count());
                of_kind().for_each(|object| bytes.extend_from_slice(&object.prefix));
            }
        }
        bytes
    }

    /// The places of those layers of which something is not there.
    pub fn missing<'a>(&'a self, there: &'a HashSet<ObjectId>) -> impl Iterator<Item = usize> + 'a {
        let lacks = |layer: &BTreeSet<ObjectId>| layer.iter().any(|one| !there.contains(one));
        self.layers.iter().enumerate().filter(move |(_, layer)| lacks(layer)).map(|(at, _)| at)
    }
}

/// What a layer takes on a disk at most when it is unpacked, in bytes, with what is lost to the ends of files.
pub fn room_bytes(layer: &Blob, objects: usize) -> u64 {
    layer.unpacked_bytes.saturating_add((objects as u64).saturating_mul(PIECE_BYTES))
}

/// Unpacks what was compressed for a release; never with more memory than [`WINDOW_LOG`] says.
///
/// # Errors
/// What zstd says.
pub fn unpacker<R: Read>(
    from: R,
) -> std::io::Result<zstd::stream::read::Decoder<'static, std::io::BufReader<R>>> {
    let mut decoder = zstd::stream::read::Decoder::new(from)?;
    decoder.window_log_max(WINDOW_LOG)?;
    Ok(decoder)
}

/// The one blob that the manifest of a statement names.
///
/// # Errors
/// [`UpdateError::Content`].
pub fn parse_envelope_manifest(bytes: &[u8]) -> Result<(BlobDigest, u64), UpdateError> {
    let (_, layers) = parse_layers(bytes)?;
    let [envelope] = layers.as_slice() else {
        return Err(wrong("the manifest of a statement names not one blob"));
    };
    if envelope.media_type != ENVELOPE_TYPE || envelope.size > MAX_ENVELOPE_BYTES {
        return Err(wrong("the manifest of a statement names something else, or too much"));
    }
    Ok((envelope.digest, envelope.size))
}

/// The manifest under which a statement lies in a registry.
///
/// # Errors
/// [`UpdateError::Malformed`] when the statement is too long.
pub fn write_envelope_manifest(envelope: &[u8]) -> Result<Vec<u8>, UpdateError> {
    let (digest, size) = (BlobDigest::of(envelope), envelope.len() as u64);
    if size > MAX_ENVELOPE_BYTES {
        let detail = format!("a statement of {size} bytes; it may have {MAX_ENVELOPE_BYTES}");
        return Err(UpdateError::Malformed { detail });
    }
    let media_type = ENVELOPE_TYPE.to_owned();
    let layer = Descriptor { media_type, digest, size, annotations: BTreeMap::new() };
    write_manifest(ENVELOPE_TYPE, vec![layer])
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: BlobDigest,
    size: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

impl Descriptor {
    fn of(media_type: &str, blob: Blob) -> Self {
        let annotations = [(UNPACKED.to_owned(), blob.unpacked_bytes.to_string())].into();
        let media_type = media_type.to_owned();
        Self { media_type, digest: blob.digest, size: blob.size_bytes, annotations }
    }

    fn blob(&self, media_type: &str) -> Result<Blob, UpdateError> {
        if self.media_type != media_type {
            return Err(wrong(format!("a layer of type {}, not {media_type}", self.media_type)));
        }
        let said = self.annotations.get(UNPACKED).filter(|text| text.len() <= 20);
        let digits = said.filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let unpacked_bytes = digits
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| wrong("a layer does not say how long it is unpacked"))?;
        Ok(Blob { digest: self.digest, size_bytes: self.size, unpacked_bytes })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ManifestText {
    schema_version: u32,
    media_type: String,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    config: Option<Descriptor>,
    layers: Vec<Descriptor>,
}

/// How long the manifest is, and what it names.
fn parse_layers(bytes: &[u8]) -> Result<(u64, Vec<Descriptor>), UpdateError> {
    let own_bytes = bytes.len() as u64;
    if own_bytes > MAX_MANIFEST_BYTES {
        return Err(wrong(format!("a manifest of {own_bytes} bytes")));
    }
    let text: ManifestText = serde_json::from_slice(bytes)
        .map_err(|error| wrong(format!("the manifest cannot be read: {error}")))?;
    if text.schema_version != 2 || text.media_type != MANIFEST_TYPE {
        return Err(wrong("it is no manifest of an image"));
    }
    Ok((own_bytes, text.layers))
}

fn write_manifest(artifact_type: &str, layers: Vec<Descriptor>) -> Result<Vec<u8>, UpdateError> {
    let config = Descriptor {
        media_type: EMPTY_TYPE.to_owned(),
        digest: BlobDigest::of(EMPTY),
        size: EMPTY.len() as u64,
        annotations: BTreeMap::new(),
    };
    let text = ManifestText {
        schema_version: 2,
        media_type: MANIFEST_TYPE.to_owned(),
        artifact_type: Some(artifact_type.to_owned()),
        config: Some(config),
        layers,
    };
    serde_json::to_vec(&text).map_err(|error| UpdateError::failed("write a manifest", error))
}

fn parse_layer(rest: &mut &[u8], left: &mut usize) -> Result<BTreeSet<ObjectId>, UpdateError> {
    let mut layer = BTreeSet::new();
    for kind in Kind::ALL {
        let count = take_count(rest)?;
        *left = left.checked_sub(count).ok_or_else(|| wrong("the index names too many objects"))?;
        for _ in 0..count {
            let prefix = take::<16>(rest)?;
            let object = ObjectId { kind, prefix };
            // In one order only, and none twice.
            if layer.last().is_some_and(|last| *last >= object) {
                return Err(wrong("the objects of the index are not in their order"));
            }
            layer.insert(object);
        }
    }
    Ok(layer)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], UpdateError> {
    let (first, after) = rest.split_first_chunk().ok_or_else(|| wrong("the index is cut off"))?;
    *rest = after;
    Ok(*first)
}

fn take_count(rest: &mut &[u8]) -> Result<usize, UpdateError> {
    Ok(u32::from_le_bytes(take(rest)?) as usize)
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    // No index has so many: who reads it refuses far fewer.
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::Version;

    fn blob(seed: u8) -> Blob {
        Blob {
            digest: BlobDigest([seed; 32]),
            size_bytes: 1000 + u64::from(seed),
            unpacked_bytes: 9000,
        }
    }

    fn object(kind: Kind, seed: u8) -> ObjectId {
        ObjectId { kind, prefix: [seed; 16] }
    }

    fn wrapped(bytes: &[u8]) -> (Vec<u8>, Blob) {
        let packed = zstd::encode_all(bytes, 1).unwrap();
        let size_bytes = packed.len() as u64;
        let unpacked_bytes = bytes.len() as u64;
        let digest = BlobDigest::of(&packed);
        (packed, Blob { digest, size_bytes, unpacked_bytes })
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let bytes = Manifest::write(blob(1), &[blob(2), blob(3)]).unwrap();
        let manifest = Manifest::parse(&bytes).unwrap();
        assert_eq!((manifest.index, manifest.layers.clone()), (blob(1), vec![blob(2), blob(3)]));
        assert_eq!(manifest.size_bytes(), bytes.len() as u64 + 3006);
        assert_eq!(manifest.unpacked_bytes(), 27_000);
        assert_eq!(Manifest::write(blob(1), &[blob(2), blob(3)]).unwrap(), bytes);
        let mut release = Release {
            version: Version::new(1, 0, 0),
            commit: Commit([0; 32]),
            image: BlobDigest::of(&bytes),
            size_bytes: manifest.size_bytes(),
            unpacked_bytes: manifest.unpacked_bytes(),
            minimum: Version::new(1, 0, 0),
            changes: Vec::new(),
        };
        manifest.check(&release).unwrap();
        release.size_bytes -= 1;
        assert!(manifest.check(&release).is_err());
    }

    #[test]
    fn other_manifests_are_refused() {
        let text = String::from_utf8(Manifest::write(blob(1), &[blob(2)]).unwrap()).unwrap();
        Manifest::parse(text.as_bytes()).unwrap();
        for (old, new) in [
            ("\"schemaVersion\":2", "\"schemaVersion\":1"),
            ("image.manifest", "image.index"),
            (INDEX_TYPE, LAYER_TYPE),
            (LAYER_TYPE, INDEX_TYPE),
            (LAYER_TYPE, "application/vnd.oci.image.layer.v1.tar+zstd"),
            ("\"9000\"", "\"-9000\""),
            ("\"9000\"", "\"+9000\""),
            ("\"9000\"", "\"99999999999999999999\""),
            ("\"9000\"", "9000"),
            (UNPACKED, "org.punktfunk.other"),
            ("\"size\":1001", "\"size\":-1"),
            ("\"size\":1001", "\"size\":99999999999"),
            ("sha256:01", "sha512:01"),
            ("sha256:0101", "sha256:../"),
        ] {
            let wrong = text.replacen(old, new, 1);
            assert_ne!(wrong, text);
            assert!(Manifest::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let no_layers = "{\"schemaVersion\":2,\"mediaType\":\"".to_owned()
            + MANIFEST_TYPE
            + "\",\"layers\":[]}";
        assert!(Manifest::parse(no_layers.as_bytes()).is_err());
        assert!(Manifest::parse(&vec![b' '; MAX_MANIFEST_BYTES as usize + 1]).is_err());
        assert!(Manifest::write(blob(1), &vec![blob(2); MAX_LAYERS]).is_ok());
        assert!(Manifest::write(blob(1), &vec![blob(2); MAX_LAYERS + 1]).is_err());
        // Sums do not run over.
        let mut vast = blob(2);
        (vast.size_bytes, vast.unpacked_bytes) = (u64::MAX, u64::MAX);
        let vast = Manifest::parse(&Manifest::write(blob(1), &[vast, vast]).unwrap()).unwrap();
        assert_eq!((vast.size_bytes(), vast.unpacked_bytes()), (u64::MAX, u64::MAX));
        assert_eq!(room_bytes(&vast.layers[0], usize::MAX), u64::MAX);
    }

    #[test]
    fn an_index_is_read_as_it_was_written() {
        let one = [object(Kind::File, 3), object(Kind::File, 1), object(Kind::Commit, 0)];
        let index =
            Index { layers: vec![one.into(), [object(Kind::DirTree, 1)].into(), BTreeSet::new()] };
        let plain = index.write();
        let (bytes, blob) = wrapped(&plain);
        assert_eq!(Index::parse(&bytes, &blob, 3).unwrap(), index);
        assert!(Index::parse(&bytes, &blob, 2).is_err());
        let there =
            HashSet::from([object(Kind::File, 3), object(Kind::File, 1), object(Kind::DirTree, 1)]);
        assert_eq!(index.missing(&there).collect::<Vec<_>>(), [0]);
        assert_eq!(index.missing(&HashSet::new()).collect::<Vec<_>>(), [0, 1]);
        // Cut off, gone on with, out of order, twice.
        let cuts = (0..plain.len()).map(|at| plain[..at].to_vec());
        let more = [plain.clone(), vec![0]].concat();
        let first = INDEX_MAGIC.len() + 8;
        let mut swapped = plain.clone();
        swapped[first..first + 32].rotate_left(16);
        let mut twice = plain.clone();
        twice.copy_within(first..first + 16, first + 16);
        for wrong in cuts.chain([more, swapped, twice]) {
            let (bytes, blob) = wrapped(&wrong);
            assert!(Index::parse(&bytes, &blob, 3).is_err());
        }
        let mut many = INDEX_MAGIC.to_vec();
        put_count(&mut many, 1);
        put_count(&mut many, usize::MAX);
        let (bytes, blob) = wrapped(&many);
        assert!(Index::parse(&bytes, &blob, 1).is_err());
    }

    #[test]
    fn an_index_that_grows_is_refused() {
        // 64 MiB in a few kilobytes, whatever is said of it.
        let (bytes, mut blob) = wrapped(&vec![0; 64 << 20]);
        assert!(blob.size_bytes < 1 << 16);
        for said in [10, MAX_INDEX_BYTES, u64::MAX] {
            blob.unpacked_bytes = said;
            assert!(matches!(Index::parse(&bytes, &blob, 1), Err(UpdateError::Content { .. })));
        }
        // What wants more memory than is given for it.
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(WINDOW_LOG + 1).unwrap();
        std::io::Write::write_all(&mut encoder, &vec![1; 1 << 20]).unwrap();
        let wide = encoder.finish().unwrap();
        assert!(unpacker(wide.as_slice()).unwrap().read_to_end(&mut Vec::new()).is_err());
    }

    #[test]
    fn an_envelopes_manifest_names_one_small_blob() {
        let bytes = write_envelope_manifest(b"{}").unwrap();
        assert_eq!(parse_envelope_manifest(&bytes).unwrap(), (BlobDigest::of(b"{}"), 2));
        assert!(write_envelope_manifest(&vec![0; MAX_ENVELOPE_BYTES as usize + 1]).is_err());
        let release = Manifest::write(blob(1), &[]).unwrap();
        assert!(parse_envelope_manifest(&release).is_err());
        assert!(Manifest::parse(&bytes).is_err());
    }

    #[test]
    fn objects_are_known_by_their_files() {
        let rest = "c".repeat(62);
        let id = |folder: &str, file: &str| ObjectId::of_name(folder, file).map(|it| it.kind);
        assert_eq!(id("cc", &format!("{rest}.filez")), Some(Kind::File));
        assert_eq!(id("cc", &format!("{rest}.file")), Some(Kind::File));
        assert_eq!(id("cc", &format!("{rest}.commit")), Some(Kind::Commit));
        for (folder, file) in [
            ("c", format!("c{rest}.file")),
            ("", format!("cc{rest}.file")),
            ("cc", rest.clone()),
            ("cc", format!("{rest}.filezz")),
            ("CC", format!("{rest}.file")),
            ("cc", format!("{rest}.commit.tmp")),
        ] {
            assert_eq!(id(folder, &file), None, "{folder}/{file}");
        }
    }
}
