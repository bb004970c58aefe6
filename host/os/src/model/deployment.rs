//! A deployment as OSTree's own boot entry states it.
//!
//! OSTree writes one entry per deployment to the root file system, which no boot loader of ours reads. The entry names
//! kernel and initramfs in a folder that ends with the checksum of both, and the deployment by a path that moves with
//! each change; whoever reads the disk follows it and says where it led.

use super::entry::value;
use super::name::{DeploymentId, ModelError, is_checksum};

/// OSTree's entry, read and not followed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OstreeEntry {
    /// What it calls itself, without its place among the others.
    pub title: String,
    /// The highest is what OSTree would start.
    pub number: u64,
    /// Checksum of kernel and initramfs.
    pub kernel: String,
    /// The kernel's path below `/boot`.
    pub linux: String,
    /// The initramfs' path below `/boot`.
    pub initrd: Option<String>,
    /// The kernel's arguments.
    pub options: String,
    /// The path that leads to the deployment.
    pub link: String,
}

impl OstreeEntry {
    /// Reads the text of the entry in `file`.
    pub fn parse(file: &str, text: &str) -> Result<Self, ModelError> {
        let lacks = |key| ModelError::Entry { file: file.chars().take(120).collect(), key };
        let below_boot = |path: &str| {
            let path = path.strip_prefix("/boot").unwrap_or(path);
            let inside = path.starts_with('/') && !path.split('/').any(|part| part == "..");
            inside.then(|| path.trim_start_matches('/').to_owned())
        };
        let linux = value(text, "linux").and_then(below_boot).ok_or_else(|| lacks("linux"))?;
        let initrd = match value(text, "initrd") {
            None => None,
            Some(path) => Some(below_boot(path).ok_or_else(|| lacks("initrd"))?),
        };
        let folder = linux.rsplit('/').nth(1).and_then(|folder| folder.rsplit('-').next());
        let kernel = folder.filter(|text| is_checksum(text)).ok_or_else(|| lacks("linux"))?;
        let number = value(text, "version").and_then(|text| text.parse().ok());
        let options = value(text, "options").ok_or_else(|| lacks("options"))?;
        let link = options.split_whitespace().find_map(|word| word.strip_prefix("ostree="));
        let link = link.filter(|link| link.starts_with("/ostree/"));
        let title = value(text, "title").unwrap_or("punktfunk");
        let title = title.rsplit_once(" (ostree:").map_or(title, |(title, _)| title);
        Ok(Self {
            title: title.chars().filter(|c| !c.is_control()).take(100).collect(),
            number: number.ok_or_else(|| lacks("version"))?,
            kernel: kernel.to_owned(),
            linux,
            initrd,
            options: options.to_owned(),
            link: link.ok_or_else(|| lacks("ostree="))?.to_owned(),
        })
    }
}

/// A file to be copied to the ESP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its path below `/boot`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
}

/// A deployment with all that the loader's entry for it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deployment {
    /// Which.
    pub id: DeploymentId,
    /// What it calls itself.
    pub title: String,
    /// The highest is what OSTree would start.
    pub number: u64,
    /// Checksum of kernel and initramfs.
    pub kernel: String,
    /// The kernel.
    pub linux: Source,
    /// The initramfs.
    pub initrd: Option<Source>,
    /// The kernel's arguments as OSTree has them.
    pub options: String,
    /// Where it lies, from the folder of the links that do not move.
    pub target: String,
    /// The owner keeps it.
    pub pinned: bool,
}

/// Whether the text beside a deployment says that it is kept.
pub fn is_pinned(origin: &str) -> bool {
    let mut transient = false;
    for line in origin.lines().map(str::trim) {
        if line.starts_with('[') {
            transient = line == "[libostree-transient]";
        } else if transient
            && line.split_once('=').is_some_and(|(key, value)| {
                key.trim() == "pinned" && matches!(value.trim(), "true" | "1")
            })
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SUM: &str = "371d424e07c85509b083950024d70d64b1bd9a80198186eb79b9aa50573529cc";

    fn text() -> String {
        format!(
            "title punktfunk 1 0.1.0 (ostree:1)\nversion 1\n\
             options rw root=gpt-auto ostree=/ostree/boot.0/punktfunk/{SUM}/0\n\
             linux /boot/ostree/punktfunk-{SUM}/vmlinuz-6.1\n\
             initrd /boot/ostree/punktfunk-{SUM}/initramfs-6.1.img\n"
        )
    }

    #[test]
    fn what_ostree_writes_is_read() {
        let read = OstreeEntry::parse("e", &text()).unwrap();
        assert_eq!((read.title.as_str(), read.number), ("punktfunk 1 0.1.0", 1));
        assert_eq!(read.kernel, SUM);
        assert_eq!(read.linux, format!("ostree/punktfunk-{SUM}/vmlinuz-6.1"));
        assert_eq!(read.link, format!("/ostree/boot.0/punktfunk/{SUM}/0"));
        // With and without the prefix that tells loaders of a file system of its own.
        assert_eq!(OstreeEntry::parse("e", &text().replace("/boot/", "/")).unwrap(), read);
    }

    #[test]
    fn what_lacks_something_says_so() {
        for (key, without) in [
            ("linux", text().replace("linux ", "l ")),
            ("linux", text().replace("/ostree/punktfunk-", "/../punktfunk/")),
            ("version", text().replace("version 1", "version one")),
            ("options", text().replace("options ", "")),
            ("ostree=", text().replace("ostree=", "tree=")),
        ] {
            let found = OstreeEntry::parse("e", &without).unwrap_err();
            assert_eq!(found, ModelError::Entry { file: "e".to_owned(), key });
        }
    }

    #[test]
    fn a_pin_counts_in_its_section_alone() {
        assert!(is_pinned("[origin]\nrefspec=pf\n\n[libostree-transient]\npinned=true\n"));
        assert!(!is_pinned("[origin]\npinned=true\n[libostree-transient]\npinned=false\n"));
    }

    proptest! {
        #[test]
        fn no_text_is_too_strange(text in "\\PC{0,300}") {
            let _ = OstreeEntry::parse("e", &text);
            let _ = is_pinned(&text);
        }
    }
}
