//! Which objects go into one layer: those that change together.
//!
//! A package is brought anew as a whole, so what it owns lies together; a large one has a layer of its own, small ones share
//! one by their names, so that a package that comes or goes moves no other. What no package owns is ours or was made when
//! the image was: that is grouped by where it lies. Which layers there are is no promise: a box asks for objects.

use std::collections::BTreeMap;

use sha2::{Digest as _, Sha256};

/// A group of this size or more has a layer of its own, in bytes, unless there were too many.
const LARGE_BYTES: u64 = 4 << 20;

/// A folder that no package owns and that has less than this lies with what changes in every release, in bytes.
const TINY_BYTES: u64 = 512 << 10;

/// A package's file, but what it says is ours: which version this is.
const VERSION: &str = "/usr/lib/os-release";

/// As many layers share what is small.
const BINS: u8 = 24;

/// No release has more layers than this; the form of releases leaves room above it.
const MAX_GROUPS: usize = 200;

/// A file of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leaf {
    /// Where, from the root on, with a slash before it.
    pub(crate) path: String,
    /// Its checksum in 64 digits.
    pub(crate) checksum: String,
    /// Its length, in bytes.
    pub(crate) size: u64,
}

/// Whose files are whose.
#[derive(Debug, Default)]
pub(crate) struct Owners(BTreeMap<String, String>);

impl Owners {
    /// Notes what a package's list says, a path a line.
    pub(crate) fn add(&mut self, package: &str, list: &str) {
        for path in list.lines() {
            self.0.insert(settled(path), package.to_owned());
        }
    }

    /// A list of a package's, by where it lies: the package's name without its architecture.
    pub(crate) fn package_of(path: &str) -> Option<&str> {
        let name = path.split_once("/dpkg/info/")?.1.strip_suffix(".list")?;
        Some(name.split_once(':').map_or(name, |(name, _)| name))
    }

    /// What a file belongs to.
    fn group(&self, path: &str) -> String {
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let name = parts.last().copied().unwrap_or_default();
        if name.starts_with("initramfs") || name.starts_with("vmlinuz") {
            return format!("boot {name}");
        }
        match (self.0.get(path).filter(|_| path != VERSION), parts.as_slice()) {
            (Some(package), _) => format!("package {package}"),
            // Each of our programs; links to them and their units are small.
            (None, ["usr", "libexec", "punktfunk", ..]) => format!("file {path}"),
            (None, ["usr", "lib", "modules", _, second, ..]) => format!("modules {second}"),
            (None, parts) => format!("folder {}", parts[..parts.len().min(3)].join("/")),
        }
    }
}

/// Where Debian's newer trees have what older lists call otherwise.
fn settled(path: &str) -> String {
    let moved = ["/bin/", "/sbin/", "/lib/", "/lib64/", "/lib32/", "/libx32/", "/etc/"];
    if moved.iter().any(|old| path.starts_with(old)) {
        format!("/usr{path}")
    } else {
        path.to_owned()
    }
}

/// The files of each layer, in the order of their paths. A checksum is in one layer only.
pub(crate) fn group(leaves: &[Leaf], owners: &Owners) -> Vec<Vec<Leaf>> {
    let mut sorted: Vec<&Leaf> = leaves.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let mut seen = std::collections::HashSet::new();
    let mut groups: BTreeMap<String, Vec<Leaf>> = BTreeMap::new();
    for leaf in sorted.into_iter().filter(|leaf| seen.insert(leaf.checksum.as_str())) {
        groups.entry(owners.group(&leaf.path)).or_default().push(leaf.clone());
    }
    let mut large = LARGE_BYTES;
    while groups.values().filter(|files| bytes(files) >= large).count()
        > MAX_GROUPS - usize::from(BINS)
    {
        large *= 2;
    }
    let mut layers: BTreeMap<String, Vec<Leaf>> = BTreeMap::new();
    for (name, files) in groups {
        let bytes = bytes(&files);
        let layer = if bytes >= large { name } else { bin(&name, bytes) };
        layers.entry(layer).or_default().extend(files);
    }
    layers.into_values().collect()
}

fn bytes(files: &[Leaf]) -> u64 {
    files.iter().map(|leaf| leaf.size).sum()
}

/// The layer of what is small. Ours is apart from what comes from Debian, and from what is made of that.
fn bin(name: &str, bytes: u64) -> String {
    match name.split_once(' ') {
        Some(("package", _)) => {
            format!("bin {}", Sha256::digest(name.as_bytes())[0] % BINS)
        }
        Some(("folder", _)) if bytes >= TINY_BYTES => "small made".to_owned(),
        Some(("folder", _)) => "small ours".to_owned(),
        _ => format!("small {}", name.split(' ').next().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(path: &str, size: u64) -> Leaf {
        Leaf { path: path.to_owned(), checksum: path.to_owned(), size }
    }

    /// The layer of each path, as the first path of that layer.
    fn layer_of<'a>(layers: &'a [Vec<Leaf>], path: &str) -> &'a str {
        let layer = layers.iter().find(|layer| layer.iter().any(|leaf| leaf.path == path)).unwrap();
        &layer[0].path
    }

    #[test]
    fn what_changes_together_lies_together() {
        let mut owners = Owners::default();
        owners.add(
            "libc6",
            "/lib\n/lib/x86_64-linux-gnu/libc.so.6\n/etc/ld.so.conf\n/usr/lib/os-release\n",
        );
        owners.add("big", "/usr/share/big/one\n/usr/share/big/two2\n");
        assert_eq!(
            Owners::package_of("/usr/lib/sysimage/dpkg/info/libc6:amd64.list"),
            Some("libc6")
        );
        assert_eq!(Owners::package_of("/usr/lib/sysimage/dpkg/info/libc6.md5sums"), None);
        let leaves = [
            leaf("/usr/lib/x86_64-linux-gnu/libc.so.6", 100),
            leaf("/usr/etc/ld.so.conf", 100),
            leaf("/usr/share/big/one", 3 << 20),
            leaf("/usr/share/big/two2", 2 << 20),
            leaf("/usr/libexec/punktfunk/punktfunk-host", 30 << 20),
            leaf("/usr/libexec/punktfunk/punktfunk-os", 5 << 20),
            leaf("/usr/lib/modules/6.1/initramfs.img", 90 << 20),
            leaf("/usr/lib/modules/6.1/modules.dep.bin", 100),
            leaf("/usr/lib/os-release", 100),
            leaf("/usr/lib/punktfunk/version", 6),
            leaf("/usr/lib/sysimage/dpkg/status", 3 << 20),
        ];
        let layers = group(&leaves, &owners);
        let of = |path: &str| layer_of(&layers, path).to_owned();
        assert_eq!(of("/usr/lib/x86_64-linux-gnu/libc.so.6"), of("/usr/etc/ld.so.conf"));
        assert_eq!(of("/usr/share/big/one"), of("/usr/share/big/two2"));
        assert_ne!(of("/usr/share/big/one"), of("/usr/etc/ld.so.conf"));
        // What says which version this is makes nothing else be fetched.
        assert_eq!(of("/usr/lib/os-release"), of("/usr/lib/punktfunk/version"));
        assert_ne!(of("/usr/lib/os-release"), of("/usr/lib/sysimage/dpkg/status"));
        for alone in [4, 5, 6] {
            assert_eq!(layers.iter().filter(|layer| layer.contains(&leaves[alone])).count(), 1);
            assert_eq!(of(&leaves[alone].path), leaves[alone].path);
        }
        assert_eq!(layers.iter().map(Vec::len).sum::<usize>(), leaves.len());
        // In whatever order they come.
        let mut turned = leaves.to_vec();
        turned.reverse();
        assert_eq!(group(&turned, &owners), layers);
    }

    #[test]
    fn there_are_never_too_many_layers() {
        let leaves: Vec<Leaf> = (0..1000)
            .map(|at| Leaf {
                path: format!("/usr/libexec/punktfunk/{at}"),
                checksum: format!("{at:064}"),
                size: (5 << 20) + at,
            })
            .collect();
        let layers = group(&leaves, &Owners::default());
        assert!(layers.len() <= MAX_GROUPS, "{}", layers.len());
        assert_eq!(layers.iter().map(Vec::len).sum::<usize>(), 1000);
    }
}
