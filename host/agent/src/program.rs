//! Starting a program of the session.
//!
//! A program is started through this very program: called with [`EXEC`], it asks the kernel to be killed when the agent
//! ends (`PR_SET_PDEATHSIG`), makes sure that the agent has not ended before that, takes back the agent's signal mask, and
//! becomes the program. So even an agent that is killed with SIGKILL takes its programs along.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::sys::signal::SigSet;
use punktfunk_agent::{MAX_WORDS, Stream};
use rustix::fs::{Access, OFlags};
use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use crate::complain;

/// The first argument that makes the agent become a program.
pub(crate) const EXEC: &str = "--exec";

/// What to start.
pub(crate) struct Spec<'a> {
    pub(crate) program: &'a str,
    pub(crate) arguments: &'a [String],
    pub(crate) environment: &'a BTreeMap<String, String>,
    pub(crate) keeps_last_words: bool,
}

/// Starts a program, with what the host has sent for one of its streams; gives back its process and, if its last words
/// are wanted, where they come from.
///
/// # Errors
/// In words for people.
pub(crate) fn start(
    spec: &Spec<'_>,
    sent: Option<(Stream, OwnedFd)>,
    base: &BTreeMap<OsString, OsString>,
    home: &Path,
) -> Result<(Pid, Option<OwnedFd>), String> {
    if spec.arguments.len() > MAX_WORDS || spec.environment.len() > MAX_WORDS {
        return Err(format!("it has more than {MAX_WORDS} arguments or variables"));
    }
    let is_name = |name: &String| !name.is_empty() && !name.contains(['=', '\0']);
    if !spec.environment.keys().all(is_name) {
        return Err("a variable of its environment has no proper name".to_owned());
    }
    let path = base.get(OsStr::new("PATH")).map(OsString::as_os_str);
    let program = find(spec.program, path).ok_or("it is not installed, or may not be run")?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("punktfunk-agent")
        .args([EXEC, &getpid().as_raw_nonzero().to_string()])
        .arg(program)
        .args(spec.arguments)
        .env_clear()
        .envs(base)
        .envs(spec.environment)
        .current_dir(if home.is_dir() { home } else { Path::new("/") })
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(if spec.keeps_last_words { Stdio::piped() } else { Stdio::null() });
    match sent {
        Some((Stream::Input, end)) => drop(command.stdin(end)),
        Some((Stream::Output, end)) => drop(command.stdout(end)),
        None => {}
    }
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    let words = child.stderr.take().map(OwnedFd::from);
    if let Some(words) = &words {
        let never_waits = rustix::fs::fcntl_getfl(words)
            .and_then(|status| rustix::fs::fcntl_setfl(words, status | OFlags::NONBLOCK));
        never_waits.map_err(|error| error.to_string())?;
    }
    Ok((Pid::from_child(&child), words))
}

/// Becomes the program that `words` name, after the number of the process that started it.
pub(crate) fn exec(words: &[OsString]) -> ExitCode {
    let [agent, program, arguments @ ..] = words else { return ExitCode::from(2) };
    let error =
        bind_to(agent).err().unwrap_or_else(|| Command::new(program).args(arguments).exec());
    complain(&format!("{}: {error}", program.display()));
    ExitCode::from(127)
}

fn bind_to(agent: &OsStr) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let parent = getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_deref().map(OsStr::new) != Some(agent) {
        return Err(io::Error::other("the session is over"));
    }
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Where a program lies, looked up as a shell would.
fn find(program: &str, path: Option<&OsStr>) -> Option<PathBuf> {
    let runs = |file: &PathBuf| file.is_file() && rustix::fs::access(file, Access::EXEC_OK).is_ok();
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(runs);
    }
    std::env::split_paths(path?).map(|folder| folder.join(program)).find(runs)
}

/// What every program of the session has in its environment.
pub(crate) fn base_environment(runtime_dir: &Path, home: &Path) -> BTreeMap<OsString, OsString> {
    let mut base: BTreeMap<OsString, OsString> = INHERITED
        .iter()
        .filter_map(|name| Some(((*name).into(), std::env::var_os(name)?)))
        .collect();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    if let Some(user) = user {
        base.insert("USER".into(), user.name.clone().into());
        base.insert("LOGNAME".into(), user.name.into());
        // A service's user may be one that cannot log in; a terminal in its session still wants a shell.
        if ![OsStr::new("nologin"), OsStr::new("false")]
            .contains(&user.shell.file_name().unwrap_or_default())
        {
            base.entry("SHELL".into()).or_insert_with(|| user.shell.into());
        }
    }
    let mut default = |name: &str, value: &str| {
        base.entry(name.into()).or_insert_with(|| value.into());
    };
    default("PATH", "/usr/local/bin:/usr/bin:/bin");
    default("SHELL", "/bin/sh");
    default("LANG", "C.UTF-8");
    base.insert("HOME".into(), home.into());
    base.insert("XDG_RUNTIME_DIR".into(), runtime_dir.into());
    base
}

/// What a program inherits from the agent's own environment.
const INHERITED: [&str; 8] =
    ["PATH", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "SHELL", "XDG_DATA_DIRS"];
