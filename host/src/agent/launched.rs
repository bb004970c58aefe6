//! Agents of other users, by way of the launcher.
//!
//! The launcher starts an agent as the user of a profile and hands its connection over; this is the daemon's side of its
//! socket: one packet asks, one answers. Before a profile is begun anew everything of its user is ended, so that what a
//! daemon that died has left cannot meet the next session.
//!
//! Deliberately absent: which user a profile has. Only the launcher knows, and it takes no number but the profile's.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg,
    sendmsg, socket_with,
};

use super::{Agent, AgentError, AgentStarter, Place, Places, ProfileNumber, open};

/// How long the launcher may take. A start waits up to ten seconds for the agent, and may sweep up after it.
const PATIENCE: Duration = Duration::from_secs(20);

/// Agents that the launcher starts.
#[derive(Debug)]
pub struct Launched {
    socket: PathBuf,
    places: Places,
}

impl Launched {
    /// Agents of the launcher whose socket this is. Whether it answers is not looked at: it may come later, or again.
    pub fn new(socket: PathBuf) -> Self {
        Self { socket, places: Places::default() }
    }

    /// What keeps sessions from being kept apart, in a sentence: the launcher does not answer, or the packet filter
    /// lets them reach the host's own ports, which are `ports`. The launcher has those of its command line, and the
    /// host may have been given others.
    pub fn problem(&self, ports: &[u16]) -> Option<String> {
        match request_fenced(&self.socket) {
            Ok(fenced) => {
                let open = ports.iter().filter(|port| !fenced.contains(port)).map(u16::to_string);
                let open = open.collect::<Vec<_>>().join(", ");
                (!open.is_empty()).then(|| {
                    format!(
                        "programs of sessions can connect to this host's own ports {open}: name them in the \
                         launcher's --ports"
                    )
                })
            }
            Err(Refusal::Said(reason)) => {
                Some(format!("programs of sessions can connect to this host's own ports: {reason}"))
            }
            Err(refusal @ Refusal::Unheard(_)) => {
                Some(format!("no session can be started: {}", refusal.text(&self.socket)))
            }
        }
    }

    fn request(&self, verb: &str, profile: u16) -> Result<Option<OwnedFd>, AgentError> {
        ask(&self.socket, &format!("{verb} {profile}")).map_err(|refusal| match refusal {
            Refusal::Said(reason) if reason == format!("there is no profile {profile}") => {
                AgentError::NoProfile { number: profile }
            }
            refusal => AgentError::Start { reason: refusal.text(&self.socket) },
        })
    }

    fn begin(&self, profile: u16) -> Result<OwnedFd, AgentError> {
        self.request("stop", profile)?;
        let nothing = || AgentError::Start { reason: "the launcher hands nothing over".to_owned() };
        self.request("start", profile)?.ok_or_else(nothing)
    }
}

impl AgentStarter for Launched {
    fn describe(&self) -> String {
        "each profile has a user of its own, which cannot read the host's keys".to_owned()
    }

    fn isolates(&self) -> bool {
        true
    }

    fn take(&self, profile: ProfileNumber, purpose: &'static str) -> Result<Place, AgentError> {
        self.places.take(profile, purpose)
    }

    fn start_in(&self, place: &Place) -> Result<Arc<dyn Agent>, AgentError> {
        let (socket, place) = (self.socket.clone(), place.clone());
        let profile = place.profile();
        let channel = self.begin(profile.0)?;
        let after_end = move || {
            // Without the launcher nothing can be ended now; the next start begins with the same request.
            if let Err(refusal) = ask(&socket, &format!("stop {}", profile.0)) {
                tracing::warn!(
                    profile = profile.0,
                    reason = refusal.text(&socket),
                    "what a session left could not be swept up"
                );
            }
            drop(place);
        };
        open(channel, Some(Box::new(after_end)))
    }
}

/// Why the launcher did not do what it was asked.
enum Refusal {
    /// It says so itself.
    Said(String),
    /// It was not reached, or not understood.
    Unheard(io::Error),
}

impl Refusal {
    fn text(&self, socket: &Path) -> String {
        match self {
            Self::Said(reason) => format!("the launcher refuses: {reason}"),
            Self::Unheard(error) => {
                format!("the launcher at {} does not answer: {error}", socket.display())
            }
        }
    }
}

/// The ports that the launcher keeps sessions from.
fn request_fenced(launcher: &Path) -> Result<Vec<u16>, Refusal> {
    let (text, _) = exchange(launcher, "status").map_err(Refusal::Unheard)?;
    match text.split_once(' ') {
        Some(("ok", list)) => {
            list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| not_understood())
        }
        Some(("no", reason)) => Err(Refusal::Said(printable(reason))),
        _ => Err(not_understood()),
    }
}

fn not_understood() -> Refusal {
    Refusal::Unheard(io::ErrorKind::InvalidData.into())
}

fn ask(launcher: &Path, request: &str) -> Result<Option<OwnedFd>, Refusal> {
    let (text, channel) = exchange(launcher, request).map_err(Refusal::Unheard)?;
    match text.split_once(' ') {
        None if text == "ok" => Ok(channel),
        Some(("no", reason)) => Err(Refusal::Said(printable(reason))),
        _ => Err(not_understood()),
    }
}

/// One packet there, one back.
fn exchange(launcher: &Path, request: &str) -> io::Result<(String, Option<OwnedFd>)> {
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for timeout in [Timeout::Send, Timeout::Recv] {
        set_socket_timeout(&socket, timeout, Some(PATIENCE))?;
    }
    connect(&socket, &SocketAddrUnix::new(launcher)?)?;
    let request = [IoSlice::new(request.as_bytes())];
    sendmsg(&socket, &request, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?;
    let mut bytes = [0; punktfunk_launcher::MAX_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let packet = &mut [IoSliceMut::new(&mut bytes)];
    let got = recvmsg(&socket, packet, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let channel = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    if got.bytes == 0 || got.flags.contains(ReturnFlags::TRUNC) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((String::from_utf8_lossy(&bytes[..got.bytes]).into_owned(), channel))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    use std::thread::JoinHandle;

    use super::*;

    /// A launcher that answers each request with the next of these packets and hands nothing over; joined, it gives the
    /// requests.
    fn launcher(
        answers: &'static [&'static str],
    ) -> (tempfile::TempDir, Launched, JoinHandle<Vec<String>>) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("launcher.sock");
        let socket =
            socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 4).unwrap();
        let listener = UnixListener::from(socket);
        let thread = std::thread::spawn(move || {
            let serve = |answer: &&str| {
                let (mut daemon, _): (UnixStream, _) = listener.accept().unwrap();
                let mut bytes = [0; 64];
                let count = daemon.read(&mut bytes).unwrap();
                daemon.write_all(answer.as_bytes()).unwrap();
                String::from_utf8(bytes[..count].to_vec()).unwrap()
            };
            answers.iter().map(serve).collect()
        });
        (folder, Launched::new(path), thread)
    }

    #[test]
    fn a_profile_is_swept_before_it_is_begun_and_a_refusal_is_told() {
        let (_folder, launched, thread) = launcher(&["ok", "no there is no profile 9\x1b[2J"]);
        let error = launched.start(ProfileNumber(9)).map(drop).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no session can be started: the launcher refuses: there is no profile 9[2J"
        );
        assert_eq!(thread.join().unwrap(), ["stop 9", "start 9"]);
        assert!(launched.take(ProfileNumber(9), "").is_ok(), "the profile may be tried again");
    }

    #[test]
    fn a_launcher_of_fewer_profiles_is_told_apart_from_one_that_refuses() {
        let (_folder, launched, thread) = launcher(&["no there is no profile 63"]);
        let error = launched.start(ProfileNumber(63)).map(drop).unwrap_err();
        assert_eq!(error, AgentError::NoProfile { number: 63 });
        thread.join().unwrap();
        assert!(launched.take(ProfileNumber(63), "").is_ok());
    }

    #[test]
    fn a_start_that_hands_nothing_over_is_none() {
        let (_folder, launched, thread) = launcher(&["ok", "ok"]);
        let error = launched.start(ProfileNumber(0)).map(drop).unwrap_err();
        assert!(error.to_string().contains("hands nothing over"), "{error}");
        thread.join().unwrap();
    }

    #[test]
    fn no_two_agents_share_a_profile() {
        let launched = Launched::new("/nonexistent/launcher.sock".into());
        let _place = launched.take(ProfileNumber(3), "its home is being moved").unwrap();
        let error = launched.start(ProfileNumber(3)).map(drop).unwrap_err();
        assert!(error.to_string().ends_with("3 is in use: its home is being moved"), "{error}");
    }

    #[test]
    fn what_is_wrong_is_said_in_a_sentence() {
        let (_folder, launched, thread) =
            launcher(&["ok 1,2,3", "ok 2", "no nft is missing", "ok", "ok x", "what?", ""]);
        let problem = || launched.problem(&[1, 2, 3]);
        assert_eq!(problem(), None);
        assert!(problem().unwrap().contains("own ports 1, 3: name them"));
        assert!(problem().unwrap().ends_with("own ports: nft is missing"));
        for _ in 0..4 {
            assert!(problem().unwrap().contains("does not answer"));
        }
        thread.join().unwrap();
        let absent = Launched::new("/nonexistent/launcher.sock".into());
        let problem = absent.problem(&[]).unwrap();
        assert!(problem.starts_with("no session can be started"), "{problem}");
    }
}
