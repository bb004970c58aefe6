//! The daemon's socket. One packet asks: `start N`, `stop N` or `status`. One answers: `ok`, or `no` and a sentence; to
//! `start` with the agent's connection, to `status` with the ports behind the fence. An agent comes to a socket that only its user may open.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, sleep};
use std::time::{Duration, Instant};

use rustix::net::{self, SendAncillaryBuffer, SendAncillaryMessage, SocketFlags, SocketType};

use crate::{Error, Options, Profile, fence};

/// The longest packet, in bytes.
pub const MAX_BYTES: usize = 512;
const MAX_REQUESTS: usize = 16; // At once.
const AGENT_PATIENCE: Duration = Duration::from_secs(10); // For an agent to come.
const DAEMON_PATIENCE: Duration = Duration::from_secs(2); // For it to ask, and to take the answer.

/// The options, and a lock for each profile, in which one thing is done at a time.
struct Launcher(Options, Vec<Mutex<()>>);

/// Serves until it is killed, or does not begin: if a folder is not safe, or the socket cannot be made.
pub fn serve(options: Options) -> Result<(), Error> {
    keep_safe(&options.folder)?;
    keep_safe(&options.homes)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    if let Err(error) = fence::apply(&fence::rules(&options)) {
        // The daemon asks for it and tells its owner.
        eprintln!("punktfunk-launcher: sessions can reach the host's own ports: {error}");
    }
    let listener = open(&options.folder.join("launcher.sock"), options.daemon_uid)?;
    let may_ask = [0, options.daemon_uid];
    let profiles = (0..options.profiles).map(|_| Mutex::new(())).collect();
    let launcher = Arc::new(Launcher(options, profiles));
    loop {
        let Ok((daemon, uid)) = accept(&listener) else {
            sleep(Duration::from_millis(20)); // Out of descriptors; time gives some back.
            continue;
        };
        if may_ask.contains(&uid) && Arc::strong_count(&launcher) <= MAX_REQUESTS {
            let launcher = Arc::clone(&launcher);
            // Without a thread the connection closes, which the daemon hears.
            let _ = Builder::new().spawn(move || launcher.answer(daemon));
        }
    }
}

/// Ends all sessions, lowers the fence and removes the socket. For when the launcher has ended, however it did. An
/// error is the first thing that could not be done; the rest was.
pub fn clear(options: &Options) -> Result<(), Error> {
    let profiles = (0..options.profiles).filter_map(|n| Profile::new(options, n).ok());
    let laid = profiles.filter(|profile| fs::symlink_metadata(&profile.runtime).is_ok());
    let mut done: Vec<_> = laid.map(|profile| profile.end(options)).collect();
    done.push(fence::apply(fence::NONE));
    let _ = fs::remove_file(options.folder.join("launcher.sock"));
    done.into_iter().collect()
}

impl Launcher {
    fn answer(&self, mut daemon: UnixStream) {
        let mut bytes = [0; MAX_BYTES];
        let _ = daemon.set_read_timeout(Some(DAEMON_PATIENCE));
        let _ = daemon.set_write_timeout(Some(DAEMON_PATIENCE));
        let got = daemon.read(&mut bytes).unwrap_or(0);
        let (text, agent) = match self.act(std::str::from_utf8(&bytes[..got]).unwrap_or("")) {
            Ok(None) if bytes.starts_with(b"status") => (format!("ok {}", self.0.ports), None),
            Ok(agent) => ("ok".to_owned(), agent),
            Err(error) => (format!("no {error}"), None),
        };
        let (mut space, agent) = ([MaybeUninit::uninit(); 64], agent.as_ref().map(AsFd::as_fd));
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(agent.as_slice()));
        let text = IoSlice::new(&text.as_bytes()[..text.len().min(MAX_BYTES)]);
        // Whoever does not take the answer has gone; an agent whose connection closes ends.
        let _ = net::sendmsg(&daemon, &[text], &mut control, net::SendFlags::NOSIGNAL);
    }

    fn act(&self, text: &str) -> Result<Option<UnixStream>, Error> {
        if text == "status" {
            return fence::apply(&fence::rules(&self.0)).map(|()| None);
        }
        let (verb, number) = text.split_once(' ').unwrap_or_default();
        let profile = Profile::new(&self.0, number.parse().unwrap_or(u16::MAX))?;
        let lock = &self.1[usize::from(profile.number)];
        let _alone = lock.lock().unwrap_or_else(PoisonError::into_inner);
        match verb {
            "start" => self.start(&profile).map(Some),
            "stop" => profile.end(&self.0).map(|()| None),
            _ => Err(Error::Refused("that is not understood here".to_owned())),
        }
    }

    fn start(&self, profile: &Profile) -> Result<UnixStream, Error> {
        profile.prepare()?;
        // Whether it stands is answered to `status`.
        let _ = fence::apply(&fence::rules(&self.0));
        let door = open(&profile.door, profile.uid)?;
        let mut child = profile.agent(&self.0).spawn().map_err(Error::io("starting an agent"))?;
        let agent = self.meet(profile, &door, &mut child);
        let _ = Builder::new().spawn(move || child.wait());
        let _ = fs::remove_file(&profile.door);
        if agent.is_err() {
            profile.end(&self.0)?;
        }
        agent.map_err(Error::io("the session's agent does not come"))
    }

    /// Waits for the agent. Nobody else of its user lives before it has come.
    fn meet(&self, of: &Profile, at: &UnixListener, child: &mut Child) -> io::Result<UnixStream> {
        at.set_nonblocking(true)?;
        let deadline = Instant::now() + AGENT_PATIENCE;
        while Instant::now() < deadline {
            match accept(at) {
                Ok((agent, uid)) if uid == of.uid => return Ok(agent),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                _ => sleep(Duration::from_millis(2)),
            }
            // With systemd it is `systemctl` that ends, before or after the agent has come.
            if let Some(end) = child.try_wait()?.filter(|end| !(self.0.systemd && end.success())) {
                return Err(io::Error::other(end.to_string()));
            }
        }
        Err(ErrorKind::TimedOut.into())
    }
}

/// A socket for packets, so that what is sent is read whole, that only `owner` may open.
fn open(path: &Path, owner: u32) -> Result<UnixListener, Error> {
    let opened = || -> io::Result<_> {
        let (unix, kind) = (net::AddressFamily::UNIX, SocketType::SEQPACKET);
        let listener = net::socket_with(unix, kind, SocketFlags::CLOEXEC, None)?;
        // One that was left behind; if it cannot be removed, the next line says so.
        let _ = fs::remove_file(path);
        net::bind(&listener, &net::SocketAddrUnix::new(path)?)?;
        chown(path, Some(owner), None)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        net::listen(&listener, 64)?;
        Ok(UnixListener::from(listener))
    };
    opened().map_err(Error::io(path.display()))
}

fn accept(listener: &UnixListener) -> io::Result<(UnixStream, u32)> {
    let (connection, _) = listener.accept()?;
    let peer = net::sockopt::socket_peercred(&connection)?;
    Ok((connection, peer.uid.as_raw()))
}

/// Makes a folder if there is none. Nobody but root may change it, or put another in its place.
fn keep_safe(folder: &Path) -> Result<(), Error> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    fs::create_dir_all(folder).map_err(Error::io(folder.display()))?;
    for part in folder.ancestors() {
        let found = fs::symlink_metadata(part).map_err(Error::io(part.display()))?;
        let is_sticky = part != folder && found.mode() & 0o1000 != 0;
        if !found.is_dir() || found.uid() != 0 || (found.mode() & 0o022 != 0 && !is_sticky) {
            return Err(Error::Refused(format!("others may change {}", part.display())));
        }
    }
    Ok(())
}
