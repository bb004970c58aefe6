//! Runs as a session's user: starts its programs and hands their sockets to the punktfunk host.
//!
//! One thread, one poll: requests, the ends of programs and their last words come in as they happen. The agent is the
//! reaper of all its descendants, so nothing that it started can leave it, and when the host hangs up - because the
//! session is over or because the host was killed - it kills them all, empties the runtime folder and ends.
//!
//! Deliberately absent: privileges, and a way to gain some. It may do what its user may do, and does it for one host.

mod family;
mod folder;
mod home;
mod keeper;
mod program;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use punktfunk_agent::{MAX_SAY_BYTES, Say, channel, pack};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};
use rustix::process::{DumpableBehavior, getpid, set_child_subreaper, set_dumpable_behavior};

use self::keeper::Keeper;

fn main() -> ExitCode {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    if words.first().is_some_and(|word| word == program::EXEC) {
        return program::exec(&words[1..]);
    }
    let Some(arguments) = Arguments::parse(words) else {
        complain(USAGE);
        return ExitCode::from(2);
    };
    let channel = match connection(&arguments) {
        Ok(channel) => channel,
        Err(error) => return fail(&format!("no connection to the host: {error}")),
    };
    match begin(&arguments) {
        Ok(begun) => Keeper::new(channel, begun, arguments).run(),
        Err(error) => {
            let say = Say::Sorry { reason: error.to_string() };
            if let Ok(packet) = pack(&say, &[], MAX_SAY_BYTES) {
                // A host that has gone needs no reason.
                let _ = channel::send(&channel, &packet, None, SEND_PATIENCE);
            }
            fail(&error.to_string())
        }
    }
}

fn fail(reason: &str) -> ExitCode {
    complain(&format!("punktfunk-agent: {reason}"));
    ExitCode::FAILURE
}

/// Says something to whoever reads the host's log; `eprintln!` would panic where nobody does.
fn complain(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The command line.
struct Arguments {
    /// Where the host listens; `None`: standard input is the connection.
    connect: Option<PathBuf>,
    runtime_dir: PathBuf,
    home: PathBuf,
    /// Every process of this user belongs to the session.
    owns_user: bool,
}

impl Arguments {
    fn parse(words: Vec<OsString>) -> Option<Self> {
        let (mut connect, mut runtime_dir, mut home, mut owns_user) = (None, None, None, false);
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            match word.to_str()? {
                "--connect" => connect = Some(words.next()?.into()),
                "--runtime-dir" => runtime_dir = Some(PathBuf::from(words.next()?)),
                "--home" => home = Some(PathBuf::from(words.next()?)),
                "--owns-user" => owns_user = true,
                _ => return None,
            }
        }
        let (runtime_dir, home) = (runtime_dir?, home?);
        let absolute = runtime_dir.is_absolute() && home.is_absolute();
        absolute.then_some(Self { connect, runtime_dir, home, owns_user })
    }
}

fn connection(arguments: &Arguments) -> io::Result<OwnedFd> {
    let Some(path) = &arguments.connect else {
        // Every program gets another standard input, and none inherits the copy.
        return io::stdin().as_fd().try_clone_to_owned();
    };
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}

/// What the first acts have brought.
struct Begun {
    signals: SignalFd,
    /// See [`Say::Hello`].
    half_restored: Option<String>,
}

/// The first acts: give up what is not needed, adopt whatever will lose its parent, make the folder, finish a restore.
fn begin(arguments: &Arguments) -> io::Result<Begun> {
    rustix::thread::set_no_new_privs(true)?;
    // Other programs of this user shall not read the agent's memory or borrow its connection.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    set_child_subreaper(Some(getpid()))?;
    // Ctrl-C at the host's terminal is for the host. Who leads a process group already is in one of its own.
    let _ = rustix::process::setsid();
    if arguments.owns_user && rustix::process::geteuid().is_root() {
        return Err(io::Error::other("root's processes are not a session's"));
    }
    folder::prepare(&arguments.runtime_dir).map_err(|error| {
        io::Error::other(format!("the folder {}: {error}", arguments.runtime_dir.display()))
    })?;
    let half_restored = home::settle(&arguments.home).err().and_then(|error| {
        complain(&format!(
            "punktfunk-agent: a home that was restored is not in its place: {error}"
        ));
        home::is_half(&arguments.home).then(|| half(&error))
    });
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    let signals = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
    Ok(Begun { signals, half_restored })
}

/// What the owner is told of a home that is neither the old one nor the new one.
fn half(error: &io::Error) -> String {
    format!(
        "a restore has replaced only a part of this device's home, and the rest cannot be done: {error}; make room on the \
         disk and try again, or restore a backup that has games once more"
    )
}

const USAGE: &str = "usage: punktfunk-agent [--connect SOCKET] --runtime-dir DIR --home DIR [--owns-user]\n\
     The punktfunk host starts it; without --connect, standard input is its connection.";
/// How long the host may take to make room for a message.
const SEND_PATIENCE: Duration = Duration::from_secs(5);
