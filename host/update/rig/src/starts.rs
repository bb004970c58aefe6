//! How a machine starts that has no kernel: the loader takes its choice and counts, root's program begins the start and
//! judges it as was said when the system was published, until something stays up.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use punktfunk_os::ledger::Blessed;
use punktfunk_os::mirror::read_esp;
use punktfunk_os::model::esp::entry_path;
use punktfunk_os::model::{EntryName, loader};
use punktfunk_os::policy::{self, Act};
use punktfunk_os::status::Check;
use punktfunk_os::verbs::{boot, deploy};
use punktfunk_update::name::Version;
use rustix::fs::{IFlags, ioctl_setflags};

use crate::{Outcome, Rig, releases};

/// What the loader says of what it counts.
const COUNTED: &str =
    "sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// No machine of these needs more starts to stay up.
const MAX_STARTS: usize = 16;

impl Rig {
    /// The disk as it is made, and two versions that came to it.
    pub(crate) fn set_up(&mut self) {
        let (root, sysroot) = (self.path(""), self.path("sysroot"));
        let text = sysroot.to_str().unwrap();
        releases::set_up(&root);
        ostree(&["admin", "init-fs", "--modern", text]);
        let own = format!("--repo={text}/ostree/repo");
        for (key, value) in [("bootloader", "none"), ("readonly", "true"), ("bootprefix", "true")] {
            ostree(&[&own, "config", "set", &format!("sysroot.{key}"), value]);
        }
        ostree(&["admin", "os-init", &format!("--sysroot={text}"), "punktfunk"]);
        let commit = releases::build(&root, Version::new(1, 4, 0)).to_string();
        let upstream = root.join("upstream");
        ostree(&[&own, "pull-local", upstream.to_str().unwrap(), &commit]);
        let at = format!("--sysroot={text}");
        ostree(&["admin", "deploy", &at, "--os=punktfunk", "--karg=rw", &commit]);
        let site = self.site();
        site.mark_pristine().unwrap();
        site.mirror(None, true).unwrap();
        self.start();
        for patch in [1, 2] {
            let commit = releases::build(&root, Version::new(1, 4, patch)).to_string();
            deploy::deploy_local(&self.site(), &upstream, &commit, false, None).unwrap();
            self.start();
        }
        // How it came to this is no news to anybody.
        let mut held = self.site().ledger().unwrap();
        held.ledger.attempts.clear();
        held.ledger.last_number = 0;
        held.save().unwrap();
        drop(held);
        self.site().tell().unwrap();
    }

    /// Starts the machine until something stays up.
    pub(crate) fn start(&mut self) {
        for _ in 0..MAX_STARTS {
            if self.start_once() {
                return;
            }
        }
        panic!("the machine starts again and again");
    }

    /// Says whether it stays up.
    fn start_once(&mut self) -> bool {
        let name = self.load();
        let site = self.site();
        let outcome = self.outcomes.get(name.id.commit()).copied().unwrap_or(Outcome::Passes);
        if outcome == Outcome::NeverComesUp {
            return false;
        }
        boot::boot(&site).unwrap();
        let start = site.start().unwrap();
        let detail = match outcome {
            Outcome::Fails(detail) => detail,
            Outcome::Passes | Outcome::NeverComesUp => "30 frames came through every door",
        };
        let passed = outcome == Outcome::Passes;
        let check = Check { name: "self-test".to_owned(), passed, detail: detail.to_owned() };
        let mut held = site.ledger().unwrap();
        let blessed: Option<Blessed> = held.ledger.blessed.clone();
        let found = policy::judge(vec![check], &[], blessed.as_ref());
        policy::conclude(&mut held.ledger, &start, &found, Vec::new());
        held.save().unwrap();
        site.publish(&held.ledger).unwrap();
        drop(held);
        match policy::act(&found, &start, &read_esp(&self.esp()).unwrap()) {
            Act::Bless => {
                let blessed = EntryName { id: name.id.clone(), counter: None };
                self.rename(&name, &blessed);
                self.site().tell().unwrap();
                true
            }
            Act::Stay => true,
            Act::Reboot => false,
        }
    }

    /// The loader takes its choice, and leaves what it says of it.
    fn load(&mut self) -> EntryName {
        let chosen = loader::choice(&read_esp(&self.esp()).unwrap()).unwrap();
        let name = loader::started(&chosen);
        self.rename(&chosen, &name);
        self.boots += 1;
        let system = self.path("system");
        let say = |path: &str, bytes: &[u8]| {
            let path = system.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let link = self.path("sysroot/ostree/pf").join(name.id.to_string());
        assert!(link.join("usr/lib/os-release").exists(), "{name} leads nowhere");
        say("proc/cmdline", format!("rw ostree=/ostree/pf/{}\n", name.id).as_bytes());
        say("proc/sys/kernel/random/boot_id", format!("boot-{}\n", self.boots).as_bytes());
        let _ = fs::remove_file(system.join(COUNTED));
        if name.counter.is_some() {
            let path = format!("\\loader\\entries\\{name}");
            let mut bytes = vec![6, 0, 0, 0];
            bytes.extend(path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
            say(COUNTED, &bytes);
        }
        let run = self.run_folder();
        fs::remove_dir_all(&run).unwrap();
        fs::create_dir(&run).unwrap();
        name
    }

    fn rename(&self, from: &EntryName, to: &EntryName) {
        let esp = self.esp();
        fs::rename(esp.join(entry_path(from)), esp.join(entry_path(to))).unwrap();
    }
}

/// Runs OSTree's program, which must succeed. Gives what it said.
pub(crate) fn ostree(words: &[&str]) -> String {
    let ran = Command::new("ostree").args(words).output().unwrap();
    assert!(ran.status.success(), "{words:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().trim().to_owned()
}

/// Lets deployments be removed with the folder that they are in: OSTree marks them as not to be changed.
pub(crate) fn let_go(sysroot: &Path) {
    let deployments = fs::read_dir(sysroot.join("ostree/deploy/punktfunk/deploy"));
    for entry in deployments.into_iter().flatten().flatten() {
        if let Ok(folder) = File::open(entry.path()) {
            // A file system that knows no such mark has none.
            let _ = ioctl_setflags(&folder, IFlags::empty());
        }
    }
}
