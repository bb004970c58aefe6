//! The last step of the image's build, `image/steps/90-lint`, over a small tree: it passes a good one, and each fault that
//! it knows is refused in its own words. The image itself need not be built for that.
//!
//! Deliberately absent: what `systemd-analyze` says of our real units; the build asks it, with all that they name there.

#![expect(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

const KERNEL: &str = "usr/lib/modules/6.12.0";
const ARGUMENTS: &str = "usr/lib/bootc/kargs.d/10-punktfunk.toml";
const DEBUG: &str = "usr/lib/punktfunk/debug";
const CONSOLE: &str = "etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service";

/// What the build leaves when all went well, in little.
struct Tree(tempfile::TempDir);

impl Tree {
    fn new() -> Self {
        let tree = Self(tempfile::tempdir().unwrap());
        for folder in ["dev", "proc", "sys", "run", "tmp", "var", "sysroot", "boot", "image"] {
            fs::create_dir(tree.at(folder)).unwrap();
        }
        symlink("sysroot/ostree", tree.at("ostree")).unwrap();
        for (path, text) in [
            (&*format!("{KERNEL}/vmlinuz"), "a kernel"),
            (&*format!("{KERNEL}/initramfs.img"), "an archive"),
            (ARGUMENTS, "# why\nkargs = [\n    \"rw\", \"root=gpt-auto\",\n]\n"),
            ("usr/lib/sysusers.d/base.conf", "u root 0 - /root\ng disk 6 -\nu! box - \"Box\"\n"),
            ("usr/lib/punktfunk/version", "0.1.0\n"),
            ("etc/passwd", "root:x:0:0::/root:/usr/sbin/nologin\nbox:x:990:990::/:/\n"),
            ("etc/group", "root:x:0:\ndisk:x:6:\nbox:x:990:\n"),
            ("etc/shadow", "root:!*:20000::::::\nbox:*:20000::::::\n"),
        ] {
            tree.write(path, text);
        }
        tree
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        self.allow(&path, 0o644);
    }

    /// Whatever the tester's umask is.
    fn allow(&self, path: &Path, mode: u32) {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        for folder in path.ancestors().skip(1).take_while(|folder| *folder != self.0.path()) {
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// What is wrong with it, a line each; nothing when it is good.
    fn lint(&self, release: bool) -> Vec<String> {
        let step = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../image/steps/90-lint");
        let words = [OsStr::new(if release { "1" } else { "0" }), self.0.path().as_os_str()];
        let ran = Command::new("bash").arg(step).args(words).output().unwrap();
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        let faults: Vec<String> = said
            .lines()
            .filter_map(|line| line.strip_prefix("lint: "))
            .map(str::to_owned)
            .collect();
        assert_eq!(ran.status.success(), faults.is_empty(), "{said}");
        faults
    }
}

/// Does harm to a good tree; it must be refused for that and for nothing else.
#[track_caller]
fn refused(release: bool, because: &str, harm: impl Fn(&Tree)) {
    let tree = Tree::new();
    harm(&tree);
    let faults = tree.lint(release);
    assert!(faults.len() == 1 && faults[0].contains(because), "\"{because}\" and not {faults:?}");
    assert!(tree.at("image").exists(), "a build that failed can be looked at");
}

#[test]
fn a_good_tree_passes_and_the_steps_are_gone() {
    for release in [false, true] {
        let tree = Tree::new();
        assert_eq!(tree.lint(release), [""; 0]);
        assert!(!tree.at("image").exists());
    }
}

#[test]
fn what_bootc_refuses_is_refused() {
    let kernel = |part: &str| format!("{KERNEL}/{part}");
    // That /var is not empty is a fault of its own.
    let tree = Tree::new();
    fs::create_dir(tree.at("var/run")).unwrap();
    let faults = tree.lint(false);
    assert!(faults.len() == 2 && faults[0].contains("/var/run is a directory"), "{faults:?}");
    refused(false, "/usr/etc exists", |tree| fs::create_dir(tree.at("usr/etc")).unwrap());
    refused(false, "0 kernels", |tree| fs::remove_dir_all(tree.at(KERNEL)).unwrap());
    refused(false, "2 kernels", |tree| {
        for part in ["vmlinuz", "initramfs.img"] {
            tree.write(&format!("usr/lib/modules/6.13.0/{part}"), "another");
        }
    });
    refused(false, "vmlinuz is missing", |tree| {
        fs::remove_file(tree.at(&kernel("vmlinuz"))).unwrap()
    });
    refused(false, "initramfs.img is missing or empty", |tree| {
        tree.write(&kernel("initramfs.img"), "");
    });
    for folder in ["dev", "proc", "sys", "run", "tmp", "sysroot"] {
        refused(false, &format!("/{folder} is missing"), |tree| {
            fs::remove_dir(tree.at(folder)).unwrap();
        });
    }
    refused(false, "/ostree is no link", |tree| {
        fs::remove_file(tree.at("ostree")).unwrap();
        symlink("sysroot", tree.at("ostree")).unwrap();
    });
    refused(false, "not UTF-8", |tree| {
        fs::write(tree.at("etc").join(OsStr::from_bytes(b"caf\xe9")), "").unwrap();
    });
    refused(false, "not UTF-8", |tree| {
        symlink(OsStr::from_bytes(b"caf\xe9"), tree.at("etc/coffee")).unwrap();
    });
    for text in ["kargs = [\"rw\"", "kargs = [\"rw\" \"quiet\"]", "kargs = \"rw\"", "rw quiet", ""]
    {
        refused(false, "no list of kernel arguments", |tree| tree.write(ARGUMENTS, text));
    }
}

#[test]
fn what_bootc_warns_of_is_refused() {
    refused(false, "/boot is not empty", |tree| tree.write("boot/vmlinuz", ""));
    refused(false, "/var is not empty", |tree| tree.write("var/log/apt/history.log", ""));
    refused(false, "games is in /etc/passwd and in no sysusers.d", |tree| {
        tree.write("etc/passwd", "root:x:0:0::/:/\ngames:x:5:60::/:/\n");
    });
    refused(false, "video is in /etc/group and in no sysusers.d", |tree| {
        tree.write("etc/group", "root:x:0:\nvideo:x:44:\n");
    });
    // What a build may leave.
    let tree = Tree::new();
    tree.write("var/cache/ldconfig/aux-cache", "");
    assert_eq!(tree.lint(false), [""; 0]);
}

#[test]
fn nobody_can_log_in() {
    for hash in ["", "$y$j9T$salt$hash"] {
        refused(false, "user box has a password or none is needed", |tree| {
            tree.write("etc/shadow", &format!("root:!:20000::::::\nbox:{hash}:20000::::::\n"));
        });
    }
    refused(false, "/usr/sbin/sshd exists", |tree| tree.write("usr/sbin/sshd", ""));
    // Also a last line that has no end.
    refused(false, "user box has a password or none is needed", |tree| {
        tree.write("etc/shadow", "root:!:20000::::::\nbox::20000::::::");
    });
    refused(false, "user box has a password or none is needed", |tree| {
        tree.write("etc/passwd", "root:x:0:0::/root:/usr/sbin/nologin\nbox::990:990::/:/\n");
    });
    refused(false, "log in on a console: serial-getty@ttyS0", |tree| tree.write(CONSOLE, ""));
    for unit in ["debug-shell.service", "autologin-getty@tty1.service"] {
        refused(false, &format!("log in on a console: {unit}"), |tree| {
            tree.write(&format!("usr/lib/systemd/system/sysinit.target.wants/{unit}"), "");
        });
    }
    for word in ["init=/bin/sh", "rd.shell=1", "systemd.debug-shell=1", "single", "rd.break"] {
        refused(false, &format!("has {word}, which opens the box"), |tree| {
            tree.write(ARGUMENTS, &format!("kargs = [\"rw\", \"{word}\"]\n"));
        });
    }
    // A debug image has all that, and says so.
    let tree = Tree::new();
    tree.write(DEBUG, "DEBUG");
    tree.write(CONSOLE, "");
    tree.write("etc/shadow", "root::20000::::::\n");
    assert_eq!(tree.lint(false), [""; 0]);
    assert_eq!(tree.lint(true), ["a release has DEBUG=1"]);
}

#[test]
fn what_is_roots_is_roots() {
    refused(false, "others may write", |tree| tree.allow(&tree.at("etc/passwd"), 0o664));
    refused(false, "others may write", |tree| tree.allow(&tree.at("usr/lib/punktfunk"), 0o757));
    for mode in [0o4755, 0o2755] {
        refused(false, "setuid or setgid", |tree| {
            tree.write("usr/bin/su", "");
            tree.allow(&tree.at("usr/bin/su"), mode);
        });
    }
    refused(false, "a private key is in the image", |tree| {
        tree.write("usr/lib/punktfunk/keys/x.pem", "-----BEGIN EC PRIVATE KEY-----\nMHc\n");
    });
}

#[test]
fn what_a_release_must_not_have() {
    let open = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;
    for path in ["etc/containers/policy.json", "usr/share/containers/p.json", "usr/lib/punktfunk/p"]
    {
        refused(true, "a policy accepts any image", |tree| tree.write(path, open));
    }
    refused(true, "a policy accepts any image", |tree| {
        tree.write(
            "usr/lib/punktfunk/p",
            r#"{"default": [{"type": "insecureAccept\u0041nything"}]}"#,
        );
    });
    refused(true, "systems are taken without a signature", |tree| {
        tree.write("etc/ostree/remotes.d/a.conf", "[remote \"a\"]\ngpg-verify=false\n");
    });
    for (name, text) in [
        ("keys/release.pub", "untrusted comment: TEST key, never for a release\n"),
        ("keys/release.pub", "-----BEGIN TEST PUBLIC KEY-----\n"),
        ("keys/test.pub", "RWQ\n"),
    ] {
        for root in ["usr/lib/punktfunk", "etc/punktfunk", "etc/containers", "etc/pki"] {
            refused(true, "a test's key", |tree| tree.write(&format!("{root}/{name}"), text));
        }
    }
    // As the keys of tests are made.
    refused(true, "a test's key is in a release: ", |tree| {
        let key = format!("# test key\n{}\n", "0".repeat(64));
        tree.write("usr/share/punktfunk/release-keys/current.pub", &key);
    });
    let own = Tree::new();
    own.write("usr/share/punktfunk/release-keys/next.pub", &format!("{}\n", "0".repeat(64)));
    assert_eq!(own.lint(true), [""; 0]);
    // On a desk all of that is wanted.
    let tree = Tree::new();
    tree.write("etc/containers/policy.json", open);
    tree.write("usr/lib/punktfunk/keys/test.pub", "RWQ\n");
    assert_eq!(tree.lint(false), [""; 0]);
}

#[test]
fn a_unit_that_systemd_does_not_understand_is_refused() {
    refused(false, "punktfunk-broken.service is wrong", |tree| {
        tree.write("usr/lib/systemd/system/punktfunk-broken.service", "[Service]\nType=oneshot\n");
    });
}
