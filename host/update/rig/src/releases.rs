//! Systems that have all that a start needs and nothing that would run, and releases of them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use punktfunk_publish::layout::Layout;
use punktfunk_publish::{archive, encapsulate};
use punktfunk_update::name::{BlobDigest, Commit, Version};
use punktfunk_update::statement::Release;

use crate::starts::ostree;

/// What each system has for itself, in bytes; it does not get shorter when it is compressed.
const OWN_BYTES: usize = 2 << 20;
/// What all systems have, in bytes.
const COMMON_BYTES: usize = 600 << 10;
/// How hard zstd tries.
const LEVEL: i32 = 1;
/// The release that was made last.
const LAYOUT: &str = "layout";

/// The repository in which systems are built.
pub(crate) fn set_up(root: &Path) {
    ostree(&["init", "--mode=bare-user", &format!("--repo={}/upstream", root.display())]);
}

/// Builds a system of this version.
pub(crate) fn build(root: &Path, version: Version) -> Commit {
    let tree = root.join("tree");
    let modules = tree.join("usr/lib/modules/6.1");
    for folder in ["usr/etc", "usr/share", "dev", "proc", "run", "sys", "tmp", "var", "sysroot"] {
        fs::create_dir_all(tree.join(folder)).unwrap();
    }
    fs::create_dir_all(&modules).unwrap();
    fs::write(modules.join("vmlinuz"), "kernel").unwrap();
    fs::write(modules.join("initramfs.img"), "initramfs").unwrap();
    fs::write(tree.join("usr/share/common"), noise("common", COMMON_BYTES)).unwrap();
    fs::write(tree.join("usr/share/own"), noise(&version.to_string(), OWN_BYTES)).unwrap();
    // A package of its own: what is small and somebody else's is brought in other layers.
    let list = tree.join("usr/lib/sysimage/dpkg/info");
    fs::create_dir_all(&list).unwrap();
    fs::write(list.join("common.list"), "/usr/share/common\n").unwrap();
    let about = format!("ID=punktfunk\nPRETTY_NAME=\"punktfunk {version}\"\n");
    fs::write(tree.join("usr/lib/os-release"), about).unwrap();
    let link = tree.join("usr/etc/os-release");
    if link.symlink_metadata().is_err() {
        symlink("../usr/lib/os-release", link).unwrap();
    }
    let repository = format!("--repo={}/upstream", root.display());
    let tree = format!("--tree=dir={}", tree.display());
    let version = format!("--add-metadata-string=version={version}");
    let words = [&repository, "commit", "--orphan", &tree, "--bootable", &version];
    ostree(&words).parse().unwrap()
}

/// Bytes that look like none but those of this seed.
fn noise(seed: &str, count: usize) -> Vec<u8> {
    let block = |number: usize| BlobDigest::of(format!("{seed} {number}").as_bytes()).0;
    (0..count.div_ceil(32)).flat_map(block).take(count).collect()
}

/// Puts a system into the registry. What it is called, and from where one goes to it, is whose who states it.
pub(crate) fn encapsulate(root: &Path, commit: Commit) -> Release {
    let layout = root.join(LAYOUT);
    let upstream = root.join("upstream");
    let made = encapsulate::encapsulate(&upstream, &commit.to_string(), &layout, LEVEL).unwrap();
    for blob in fs::read_dir(layout.join("blobs/sha256")).unwrap() {
        let blob = blob.unwrap();
        fs::copy(blob.path(), root.join("registry/blobs/sha256").join(blob.file_name())).unwrap();
    }
    Release {
        version: Version::new(0, 0, 0),
        commit,
        image: made.image,
        size_bytes: made.size_bytes,
        unpacked_bytes: made.unpacked_bytes,
        minimum: Version::new(0, 0, 0),
        changes: Vec::new(),
    }
}

/// Writes the release that was made last, behind an envelope, in one file.
pub(crate) fn archive(root: &Path, envelope: &[u8], to: &Path) {
    let stated = root.join("envelope.json");
    fs::write(&stated, envelope).unwrap();
    archive::archive(to, &stated, &Layout::open(&root.join(LAYOUT)).unwrap()).unwrap();
}
