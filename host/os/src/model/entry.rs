//! The loader's entries as text: one `key value` a line.
//!
//! spec: UAPI boot loader specification, "Type #1 boot loader entry keys".

use std::fmt;

use super::name::{DeploymentId, is_checksum};

/// Where kernels lie on the ESP, from its root.
pub const KERNELS: &str = "punktfunk";

/// Sorts before [`SORT_KEY_LAST`].
pub const SORT_KEY: &str = "punktfunk";

/// Sorts after all others of ours: for what is to remain when they have failed.
pub const SORT_KEY_LAST: &str = "punktfunk-z";

/// The value of a key, if it is there; of several the last.
pub fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let fields = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
    fields.filter(|(name, _)| *name == key).map(|(_, value)| value.trim()).next_back()
}

/// What one of our entries says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// For people.
    pub title: String,
    /// Among entries of one key the highest comes first.
    pub version: u64,
    /// It comes after those that prove themselves or have.
    pub last: bool,
    /// Which kernel set, by OSTree's checksum of kernel and initramfs.
    pub kernel: String,
    /// Whether there is an initramfs, too.
    pub initrd: bool,
    /// The kernel's arguments.
    pub options: String,
}

impl Entry {
    /// Reads an entry of ours; one that is torn or a stranger's is none.
    pub fn parse(text: &str) -> Option<Self> {
        // The last line is the longest, and half of it would still be one.
        if !text.ends_with('\n') {
            return None;
        }
        let path = |key, file: &str| {
            let path = value(text, key)?;
            let set = path.strip_prefix(&format!("/{KERNELS}/"))?.strip_suffix(file)?;
            is_checksum(set).then(|| set.to_owned())
        };
        let kernel = path("linux", "/linux")?;
        let initrd = value(text, "initrd").is_some();
        if initrd && path("initrd", "/initrd")? != kernel {
            return None;
        }
        Some(Self {
            title: value(text, "title")?.to_owned(),
            version: value(text, "version")?.parse().ok()?,
            last: value(text, "sort-key")? == SORT_KEY_LAST,
            kernel,
            initrd,
            options: value(text, "options")?.to_owned(),
        })
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { title, version, last, kernel, initrd, options } = self;
        let sort_key = if *last { SORT_KEY_LAST } else { SORT_KEY };
        writeln!(f, "title {title}\nsort-key {sort_key}\nversion {version}")?;
        writeln!(f, "linux /{KERNELS}/{kernel}/linux")?;
        if *initrd {
            writeln!(f, "initrd /{KERNELS}/{kernel}/initrd")?;
        }
        writeln!(f, "options {options}")
    }
}

/// The kernel's arguments with `ostree=` leading to the link that does not move.
pub fn with_stable_link(options: &str, id: &DeploymentId) -> String {
    let stable = |word: &str| {
        let own = word.starts_with("ostree=");
        if own { format!("ostree=/ostree/pf/{id}") } else { word.to_owned() }
    };
    options.split_whitespace().map(stable).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(version: u64, last: bool, initrd: bool) {
            let entry = Entry {
                title: "punktfunk 0.1.0".to_owned(), version, last, initrd,
                kernel: "cd".repeat(32), options: "rw ostree=/ostree/pf/x".to_owned(),
            };
            prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
        }

        #[test]
        fn a_torn_entry_is_none_or_the_whole(at in 0..400usize) {
            let entry = Entry {
                title: "t".to_owned(), version: 7, last: false, initrd: true,
                kernel: "cd".repeat(32), options: "rw".to_owned(),
            };
            let text = entry.to_string();
            let torn = &text[..at.min(text.len())];
            prop_assert!(Entry::parse(torn).is_none_or(|read| read == entry));
        }

        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,200}") {
            let _ = Entry::parse(&text);
        }
    }

    #[test]
    fn only_the_link_changes() {
        let id: DeploymentId = format!("{}.1", "ab".repeat(32)).parse().unwrap();
        let options = with_stable_link("rw ostree=/ostree/boot.0/p/c/0  quiet", &id);
        assert_eq!(options, format!("rw ostree=/ostree/pf/{id} quiet"));
    }
}
