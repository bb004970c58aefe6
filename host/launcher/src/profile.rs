//! One profile: its user, its folders, and the commands that start and end what runs in it.

use std::fs::{self, DirBuilder, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, lchown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::unistd::{Uid, User};
use rustix::process::{Resource, getrlimit};

use crate::sweep::anybody;
use crate::{Error, Options};

/// A profile that may have sessions.
#[derive(Debug)]
pub struct Profile {
    pub(crate) number: u16,
    pub(crate) uid: u32,
    broom: u32,
    pub(crate) runtime: PathBuf,
    pub(crate) door: PathBuf, // Where the agent comes to.
    home: PathBuf,
}

impl Profile {
    /// The profile of this number; an error if there is none, or if its user is somebody else's.
    pub fn new(options: &Options, number: u16) -> Result<Self, Error> {
        if number >= options.profiles {
            return Err(Error::Refused(format!("there is no profile {number}")));
        }
        let uid = options.first_uid + u32::from(number);
        let broom = uid + u32::from(options.profiles);
        for uid in [uid, broom] {
            let user = User::from_uid(Uid::from_raw(uid)).map_err(Error::io("looking up users"))?;
            let is_ours = user.is_none_or(|user| user.name.starts_with("punktfunk-play"));
            if uid == options.daemon_uid || !is_ours {
                return Err(Error::Refused(format!("the user {uid} is not one for sessions")));
            }
        }
        let runtime = options.folder.join(number.to_string());
        let (door, home) = (runtime.with_extension("sock"), options.homes.join(number.to_string()));
        Ok(Self { number, uid, broom, runtime, door, home })
    }

    /// Makes the runtime folder, and the home if there is none. Only root may change the folders above, so what lies
    /// under these names is what root has made. Nobody of the profile may live.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        if anybody(self.uid) || fs::symlink_metadata(&self.runtime).is_ok() {
            return Err(Error::Refused(format!("profile {} is in use", self.number)));
        }
        for path in [&self.runtime, &self.home] {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.and_then(|()| lchown(path, Some(self.uid), Some(self.uid)))
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700)))
                .map_err(Error::io(path.display()))?;
        }
        Ok(())
    }

    /// The command that becomes the agent: in a session of its own, so that no terminal of the launcher's is in reach,
    /// with limits, without root's rights and without a way to gain them. These programs do it as everywhere else; to
    /// do it ourselves between fork and exec would take `unsafe`.
    pub fn agent(&self, options: &Options) -> Command {
        if options.systemd {
            return self.systemctl("start");
        }
        let limit = |kind, most: u64| getrlimit(kind).maximum.map_or(most, |all| all.min(most));
        let mut command = quiet("/usr/bin/env");
        command.args(["--default-signal", "/usr/bin/setsid", "/usr/bin/prlimit", "--core=0"]);
        command.arg(format!("--nproc={}", limit(Resource::Nproc, 8192)));
        command.arg(format!("--nofile=1024:{}", limit(Resource::Nofile, 524_288).max(1024)));
        command.args(["/usr/bin/choom", "--adjust=500", "--"]); // Short of memory, games end first.
        command.args(["/usr/bin/setpriv", "--no-new-privs", "--bounding-set=-all"]);
        command.args(["--inh-caps=-all", "--clear-groups"]);
        command.arg(format!("--reuid={}", self.uid)).arg(format!("--regid={}", self.uid));
        command.arg(&options.agent).arg("--connect").arg(&self.door);
        command.arg("--runtime-dir").arg(&self.runtime).arg("--home").arg(&self.home);
        command.arg("--owns-user").env("HOME", &self.home).env("SHELL", "/bin/bash");
        command.env("USER", format!("punktfunk-play{}", self.number));
        command
    }

    /// Ends everything of the profile's user and removes its runtime folder; the home stays.
    pub(crate) fn end(&self, options: &Options) -> Result<(), Error> {
        if options.systemd {
            let _ = self.systemctl("stop").status(); // The sweep ends what it did not.
        }
        // This very program, also when its file has been replaced.
        let mut sweep = quiet("/proc/self/exe");
        sweep.args(["sweep", &self.uid.to_string(), &self.broom.to_string()]).arg(&self.runtime);
        let swept = sweep.status().map_err(Error::io("sweeping"))?;
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let removed = fs::remove_dir(&self.runtime).or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(()),
            // A session may leave what cannot be removed, but the name is root's.
            _ => fs::rename(&self.runtime, self.runtime.with_extension(now.to_string())),
        });
        removed.map_err(Error::io(self.runtime.display()))?;
        if anybody(self.uid) {
            return Err(Error::Refused(format!("profile {} does not end: {swept}", self.number)));
        }
        Ok(())
    }

    fn systemctl(&self, verb: &str) -> Command {
        let mut command = quiet("/usr/bin/systemctl");
        command.args(["--quiet", verb, &format!("punktfunk-session@{}.service", self.number)]);
        command
    }
}

fn quiet(program: &str) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}
