//! The switch of a box: systemd's logind, asked over D-Bus by the program `busctl`.
//!
//! A rule of polkit lets the daemon's user restart the machine, switch it off and send it to sleep, and nothing more
//! (`overlays/base/usr/share/polkit-1/rules.d`). What can be done is asked of logind each time, so that a machine which
//! cannot sleep, or one without the rule, says so before somebody presses. The program is given fixed words, is read
//! bounded and ended when it takes too long.
//!
//! Deliberately absent: a D-Bus library. Three questions a day are not worth one, and `busctl` is a part of systemd.

use std::ffi::OsString;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::power::{Power, PowerError, PowerVerb};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);
/// No more is read of one, in bytes.
const MAX_ANSWER_BYTES: usize = 4096;

/// The switch of a machine with logind.
#[derive(Debug, Clone)]
pub struct Logind {
    /// The program that asks, and what it is told before all else.
    program: Vec<OsString>,
    limit: Duration,
}

impl Default for Logind {
    fn default() -> Self {
        Self::by(vec!["busctl".into()])
    }
}

impl Logind {
    /// The same, asked by this program with these words before its own; none asks nobody.
    pub fn by(program: Vec<OsString>) -> Self {
        Self { program, limit: LIMIT }
    }

    fn ask(&self, method: &str, arguments: &[&str]) -> Result<String, String> {
        let (program, first) = self.program.split_first().ok_or("there is nobody to ask")?;
        let mut command = Command::new(program);
        command
            .args(first)
            .args(["--system", "--timeout=5", "call", "org.freedesktop.login1"])
            .args(["/org/freedesktop/login1", "org.freedesktop.login1.Manager", method])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| format!("{} was not started: {error}", program.display()))?;
        let said = said(&mut child, Instant::now() + self.limit);
        // It has closed what it says, so it is about to end; or it is too late.
        if said.is_none() {
            let _ = child.kill();
        }
        let ended = child.wait().map_err(|error| error.to_string())?;
        let (answer, complaint) = said.ok_or("logind did not answer as it should")?;
        if ended.success() { Ok(answer) } else { Err(complaint) }
    }
}

/// All that it says and complains of, bounded and on one line each; `None` if it takes too long or says too much.
fn said(child: &mut Child, until: Instant) -> Option<(String, String)> {
    let mut pipes = (child.stdout.take()?, child.stderr.take()?);
    let answer = read(&mut pipes.0, until)?;
    let complaint = read(&mut pipes.1, until)?;
    Some((answer, complaint))
}

fn read(pipe: &mut (impl std::io::Read + std::os::fd::AsFd), until: Instant) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let left = until.checked_duration_since(Instant::now())?;
        let limit = Timespec::try_from(left).ok()?;
        let mut ready = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        if poll(&mut ready, Some(&limit)).ok()? == 0 {
            return None;
        }
        let mut some = [0; 512];
        match pipe.read(&mut some).ok()? {
            0 => break,
            count => bytes.extend_from_slice(&some[..count]),
        }
        if bytes.len() > MAX_ANSWER_BYTES {
            return None;
        }
    }
    Some(super::release::bounded(&String::from_utf8_lossy(&bytes)))
}

impl Power for Logind {
    fn unable(&self, verb: PowerVerb) -> Option<String> {
        let method = match verb {
            PowerVerb::Restart => "CanReboot",
            PowerVerb::Shutdown => "CanPowerOff",
            PowerVerb::Sleep => "CanSuspend",
        };
        match self.ask(method, &[]).as_deref() {
            Ok("s \"yes\"") => None,
            Ok("s \"na\"") => Some(format!("this machine cannot {verb}")),
            Ok("s \"no\"" | "s \"challenge\"") => {
                Some("this box does not let the host switch it; use its power button".to_owned())
            }
            Ok(other) => Some(format!(
                "it is not known whether this box can {verb} (logind said {other}); use its power button"
            )),
            Err(why) => Some(format!(
                "it is not known whether this box can {verb} ({why}); use its power button"
            )),
        }
    }

    fn switch(&self, verb: PowerVerb) -> Result<(), PowerError> {
        let method = match verb {
            PowerVerb::Restart => "Reboot",
            PowerVerb::Shutdown => "PowerOff",
            PowerVerb::Sleep => "Suspend",
        };
        // Nobody is asked for a password.
        let done = self.ask(method, &["b", "false"]);
        done.map(drop).map_err(|detail| PowerError::Failed { verb, detail })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A program in the place of `busctl`: notes what it is told, and does what `does` says.
    fn program(folder: &std::path::Path, does: &str) -> Logind {
        let path = folder.join("busctl");
        fs::write(&path, format!("echo \"$@\" >> {}/told\n{does}\n", folder.display())).unwrap();
        Logind::by(vec!["sh".into(), path.into()])
    }

    #[test]
    fn logind_says_what_can_be_done_and_does_it() {
        let folder = tempfile::tempdir().unwrap();
        let case = "case \"$*\" in *CanSuspend) echo 's \"na\"';; *CanPowerOff) echo 's \"challenge\"';;\
                    *Can*) echo 's \"yes\"';; *Suspend*) echo 'Sleep verb not supported' >&2; exit 1;; esac";
        let power = program(folder.path(), case);
        assert_eq!(power.unable(PowerVerb::Restart), None);
        assert!(power.unable(PowerVerb::Shutdown).unwrap().contains("power button"));
        assert_eq!(power.unable(PowerVerb::Sleep).unwrap(), "this machine cannot sleep");
        power.switch(PowerVerb::Restart).unwrap();
        power.switch(PowerVerb::Shutdown).unwrap();
        let error = power.switch(PowerVerb::Sleep).unwrap_err().to_string();
        assert!(error.contains("Sleep verb not supported"), "{error}");
        let told = fs::read_to_string(folder.path().join("told")).unwrap();
        let methods: Vec<&str> =
            told.lines().map(|line| line.rsplit_once("Manager ").unwrap().1).collect();
        assert_eq!(
            methods,
            [
                "CanReboot",
                "CanPowerOff",
                "CanSuspend",
                "Reboot b false",
                "PowerOff b false",
                "Suspend b false"
            ]
        );
    }

    #[test]
    fn a_program_that_is_missing_hangs_or_talks_nonsense_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Logind::by(vec![folder.path().join("none").into()]);
        assert!(missing.unable(PowerVerb::Restart).unwrap().contains("not started"));
        assert!(missing.switch(PowerVerb::Restart).is_err());
        let hangs = Logind { limit: Duration::ZERO, ..program(folder.path(), "exec sleep 60") };
        assert!(hangs.unable(PowerVerb::Restart).unwrap().contains("as it should"));
        let floods = program(folder.path(), "exec cat /dev/zero");
        let said = floods.unable(PowerVerb::Restart).unwrap();
        assert!(said.contains("as it should"), "{said}");
        let nonsense = program(folder.path(), "printf 's \"y\\033es\"'");
        let said = nonsense.unable(PowerVerb::Restart).unwrap();
        assert!(said.contains("not known") && !said.contains('\u{1b}'), "{said}");
    }
}
