//! A folder with a release in it, as an OCI image layout: any program for such images can look at it or copy it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use punktfunk_update::name::BlobDigest;
use punktfunk_update::transport::bundle::{
    EMPTY, MANIFEST_TYPE, MAX_MANIFEST_BYTES, Manifest, RELEASE_TYPE,
};
use serde::{Deserialize, Serialize};

/// The file that says that this is such a folder.
const MARK: (&str, &[u8]) = ("oci-layout", b"{\"imageLayoutVersion\":\"1.0.0\"}");

/// What names the manifest.
const INDEX: &str = "index.json";

/// The folder.
#[derive(Debug, Clone)]
pub struct Layout {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Images {
    schema_version: u32,
    manifests: Vec<Image>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Image {
    media_type: String,
    artifact_type: Option<String>,
    digest: BlobDigest,
    size: u64,
}

impl Layout {
    /// A new one. What is there is replaced if it is one, too.
    ///
    /// # Errors
    /// Something else is there, or the system says no.
    pub fn create(folder: &Path) -> anyhow::Result<Self> {
        if folder.exists() {
            let is_empty = fs::read_dir(folder)?.next().is_none();
            let said = "is there and holds no release: it is left alone";
            ensure!(is_empty || folder.join(MARK.0).exists(), "{} {said}", folder.display());
            fs::remove_dir_all(folder)?;
        }
        let layout = Self { folder: folder.to_path_buf() };
        fs::create_dir_all(layout.blobs())?;
        fs::write(folder.join(MARK.0), MARK.1)?;
        Ok(layout)
    }

    /// One that is there.
    ///
    /// # Errors
    /// It is none.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        ensure!(folder.join(MARK.0).exists(), "{} holds no release", folder.display());
        Ok(Self { folder: folder.to_path_buf() })
    }

    /// Where a blob lies.
    pub fn blob(&self, digest: BlobDigest) -> PathBuf {
        self.blobs().join(digest.digits())
    }

    /// Opens a blob and says how long it is, in bytes.
    ///
    /// # Errors
    /// It is not there.
    pub fn open_blob(&self, digest: BlobDigest) -> anyhow::Result<(File, u64)> {
        let path = self.blob(digest);
        let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    /// Puts a blob there.
    ///
    /// # Errors
    /// The system says no.
    pub fn put(&self, bytes: &[u8]) -> anyhow::Result<BlobDigest> {
        let digest = BlobDigest::of(bytes);
        fs::write(self.blob(digest), bytes)?;
        Ok(digest)
    }

    /// Makes this manifest the one of the release. Gives its digest.
    ///
    /// # Errors
    /// The system says no.
    pub fn finish(&self, manifest: &[u8]) -> anyhow::Result<BlobDigest> {
        self.put(EMPTY)?;
        let digest = self.put(manifest)?;
        let image = Image {
            media_type: MANIFEST_TYPE.to_owned(),
            artifact_type: Some(RELEASE_TYPE.to_owned()),
            digest,
            size: manifest.len() as u64,
        };
        let images = Images { schema_version: 2, manifests: vec![image] };
        fs::write(self.folder.join(INDEX), serde_json::to_vec(&images)?)?;
        Ok(digest)
    }

    /// The manifest of the release: its digest, its bytes, and what they say.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn manifest(&self) -> anyhow::Result<(BlobDigest, Vec<u8>, Manifest)> {
        let read = |path: &Path| {
            punktfunk_os::files::read(path, MAX_MANIFEST_BYTES).context("read the release")
        };
        let images: Images = serde_json::from_slice(&read(&self.folder.join(INDEX))?)?;
        let [image] = images.manifests.as_slice() else {
            anyhow::bail!("{} holds not one release", self.folder.display());
        };
        let bytes = read(&self.blob(image.digest))?;
        ensure!(BlobDigest::of(&bytes) == image.digest, "the manifest is damaged");
        let manifest = Manifest::parse(&bytes)?;
        Ok((image.digest, bytes, manifest))
    }

    /// A folder for what is only needed while this is made.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }

    fn blobs(&self) -> PathBuf {
        self.folder.join("blobs/sha256")
    }
}
