//! The verbs on a disk that lies in a folder, with the real OSTree: what is deployed is what the loader finds.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use punktfunk_os::mirror::{read_deployments, read_esp};
use punktfunk_os::model::loader;

/// A repository with systems, a disk to deploy them on, and its boot partition.
struct Desk {
    folder: tempfile::TempDir,
}

impl Desk {
    fn new() -> Self {
        let desk = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir_all(desk.esp()).unwrap();
        let (repository, sysroot) = (desk.text("repo"), desk.text("sysroot"));
        fs::create_dir_all(&sysroot).unwrap();
        desk.ostree(&[&format!("--repo={repository}"), "init", "--mode=bare-user"]);
        desk.ostree(&["admin", "init-fs", "--modern", &sysroot]);
        let own = format!("--repo={sysroot}/ostree/repo");
        for (key, value) in [("bootloader", "none"), ("readonly", "true"), ("bootprefix", "true")] {
            desk.ostree(&[&own, "config", "set", &format!("sysroot.{key}"), value]);
        }
        desk.ostree(&["admin", "os-init", &format!("--sysroot={sysroot}"), "punktfunk"]);
        desk
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn esp(&self) -> PathBuf {
        self.path("esp")
    }

    #[track_caller]
    fn run(&self, program: &str, words: &[&str]) -> Output {
        let mut command = Command::new(program);
        // Or nobody could remove the folder afterwards.
        command.args(words).env("OSTREE_SYSROOT_DEBUG", "mutable-deployments").output().unwrap()
    }

    #[track_caller]
    fn ostree(&self, words: &[&str]) -> String {
        let ran = self.run("ostree", words);
        assert!(ran.status.success(), "{words:?}: {ran:?}");
        String::from_utf8(ran.stdout).unwrap().trim().to_owned()
    }

    /// Runs a verb on this disk; says whether it succeeded, and what it said.
    fn verb(&self, words: &[&str]) -> (bool, String) {
        let (sysroot, esp) = (self.text("sysroot"), self.text("esp"));
        let disk = ["--sysroot", &sysroot, "--esp", &esp];
        let ran = self.run(env!("CARGO_BIN_EXE_punktfunk-os"), &[words, &disk].concat());
        (ran.status.success(), String::from_utf8(ran.stderr).unwrap())
    }

    #[track_caller]
    fn verb_well(&self, words: &[&str]) {
        let (good, said) = self.verb(words);
        assert!(good, "{words:?}: {said}");
    }

    /// Puts a system of this version and with this kernel into the repository. Gives its commit.
    fn build(&self, version: &str, kernel: &str) -> String {
        let tree = self.path("tree");
        let modules = tree.join("usr/lib/modules/6.1");
        for folder in ["usr/etc", "usr/bin", "dev", "proc", "run", "sys", "tmp", "var", "sysroot"] {
            fs::create_dir_all(tree.join(folder)).unwrap();
        }
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("vmlinuz"), kernel).unwrap();
        fs::write(modules.join("initramfs.img"), "initramfs").unwrap();
        let about = format!("ID=punktfunk\nPRETTY_NAME=\"punktfunk {version}\"\n");
        fs::write(tree.join("usr/lib/os-release"), about).unwrap();
        let link = tree.join("usr/etc/os-release");
        if link.symlink_metadata().is_err() {
            std::os::unix::fs::symlink("../usr/lib/os-release", link).unwrap();
        }
        let repository = format!("--repo={}", self.text("repo"));
        let tree = format!("--tree=dir={}", self.text("tree"));
        let version = format!("--add-metadata-string=version={version}");
        self.ostree(&[&repository, "commit", "-b", "pf", &tree, "--bootable", &version])
    }

    /// The loader's entries in its order, without the commits, which differ from run to run.
    fn entries(&self, commits: &[&str]) -> Vec<String> {
        let names = loader::order(&read_esp(&self.esp()).unwrap());
        let short = |name: String| {
            commits
                .iter()
                .enumerate()
                .fold(name, |name, (at, commit)| name.replace(*commit, &format!("v{}", at + 1)))
        };
        names.iter().map(|name| short(name.to_string())).collect()
    }
}

fn links(sysroot: &Path) -> usize {
    let entries = fs::read_dir(sysroot.join("ostree/pf")).unwrap().flatten();
    // Each leads to a deployment, or is the one that names the first.
    let good = |entry: &fs::DirEntry| {
        entry.path().join("usr/lib/os-release").exists() || entry.file_name() == "pristine"
    };
    entries.map(|entry| assert!(good(&entry), "{entry:?}")).count()
}

#[test]
#[ignore = "needs root and ostree"]
fn what_is_deployed_is_what_the_loader_finds() {
    let desk = Desk::new();
    let repository = desk.text("repo");
    let (sysroot, own) = (desk.path("sysroot"), desk.text("sysroot"));
    let v1 = desk.build("0.1.0", "kernel one");
    let sysroot_repo = format!("--repo={own}/ostree/repo");
    desk.ostree(&[&sysroot_repo, "pull-local", &repository, &v1]);
    let root = format!("--sysroot={own}");
    let words = ["admin", "deploy", &root, "--os=punktfunk", "--karg=rw", "--karg=quiet", &v1];
    desk.ostree(&words);
    desk.verb_well(&["mirror", "--pristine"]);
    assert_eq!(desk.entries(&[&v1]), ["pf-v1.0.conf"]);
    // Nothing else is pristine.
    let v2 = desk.build("0.2.0", "kernel one");
    desk.verb_well(&["deploy-local", &repository, "pf", "--tries", "2"]);
    assert_eq!(desk.entries(&[&v1, &v2]), ["pf-v2.0+2.conf", "pf-v1.0.conf"]);
    assert!(!desk.verb(&["mirror", "--pristine"]).0);
    // They share a kernel, and the arguments of the first go on.
    let esp = read_esp(&desk.esp()).unwrap();
    assert_eq!(esp.sets.len(), 1);
    assert!(
        esp.entries.values().all(|text| text.contains("rw quiet") && text.contains("/ostree/pf/"))
    );
    // The loader counts, and a mirror leaves it alone.
    let entries = desk.esp().join("loader/entries");
    let name = |rest: &str| entries.join(format!("pf-{v2}.0{rest}.conf"));
    fs::rename(name("+2"), name("+1-1")).unwrap();
    desk.verb_well(&["mirror"]);
    assert_eq!(desk.entries(&[&v1, &v2]), ["pf-v2.0+1-1.conf", "pf-v1.0.conf"]);
    // A newer one comes while another kernel is needed; what nobody needs goes from the loader and from the disk.
    let v3 = desk.build("0.3.0", "kernel three");
    desk.verb_well(&["deploy-local", &repository, &v3]);
    let v4 = desk.build("0.4.0", "kernel four");
    desk.verb_well(&["deploy-local", &repository, &v4]);
    let commits = [v1.as_str(), &v2, &v3, &v4];
    assert_eq!(desk.entries(&commits), ["pf-v4.0+3.conf", "pf-v3.0+3.conf", "pf-v1.0.conf"]);
    let deployments = read_deployments(&sysroot).unwrap();
    let deployed: Vec<&str> = deployments.iter().map(|one| one.id.commit()).collect();
    assert_eq!(deployed, [&v4, &v3, &v1]);
    assert!(deployments[2].pinned && !deployments[0].pinned);
    let esp = read_esp(&desk.esp()).unwrap();
    assert_eq!(esp.sets.len(), 3);
    assert!(esp.entries.keys().all(|name| esp.is_bootable(name)));
    assert_eq!(links(&sysroot), 4);
    // What is not there is not deployed, and changes nothing.
    assert!(!desk.verb(&["deploy-local", &repository, "nothing"]).0);
    assert_eq!(desk.entries(&commits).len(), 3);
}
