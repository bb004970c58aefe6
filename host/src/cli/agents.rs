//! Who starts the agents of sessions: the launcher, under users of their own, or the daemon itself, under its own.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::agent::{AgentStarter, Launched, Local};
use crate::config::{Config, Isolation};
use crate::mgmt::wire::Backend;

/// The starter of agents, and what the owner is to know about it.
pub(super) struct Agents {
    pub(super) starter: Arc<dyn AgentStarter>,
    pub(super) found: Backend,
    pub(super) problem: Option<String>,
}

impl Agents {
    /// Chooses: a launcher that is there for this host's user, not for another's. `own_folder` is where sessions of the
    /// daemon's own user would have their runtime folders. `handed` are the ports that a service manager has opened for
    /// the host; programs of sessions may reach them no more than its own. May block for as long as the launcher takes
    /// to answer.
    pub(super) fn choose(config: &Config, own_folder: PathBuf, handed: &[u16]) -> Self {
        let wanted = config.sessions.isolation == Isolation::Required;
        let own = rustix::process::geteuid().as_raw();
        let is_ours =
            std::fs::metadata(&config.launcher.socket).is_ok_and(|file| file.uid() == own);
        if !wanted && !is_ours {
            let problem = "programs of sessions run under the host's own user and can read its key: \
                           start the host as root with ci/start, or as a service";
            return Self::new(Arc::new(Local::new(own_folder, None)), Some(problem.to_owned()));
        }
        let launched = Launched::new(config.launcher.socket.clone());
        let mut ports = config.gamestream.ports().to_vec();
        ports.push(config.console_port());
        ports.extend(handed);
        let problem = launched.problem(&ports);
        Self::new(Arc::new(launched), problem)
    }

    fn new(starter: Arc<dyn AgentStarter>, problem: Option<String>) -> Self {
        let chosen = if starter.isolates() { "users of their own" } else { "the host's own user" };
        let found = Backend {
            room: "sessions".to_owned(),
            chosen: chosen.to_owned(),
            why: starter.describe(),
        };
        Self { starter, found, problem }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

    use super::*;

    /// What is wrong where the launcher keeps programs of sessions from the ports `fenced`, and the service manager has
    /// opened the ports `handed`.
    fn problem(config: &Config, fenced: &[u16], handed: &[u16]) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("launcher.sock");
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        rustix::net::bind(&socket, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        rustix::net::listen(&socket, 1).unwrap();
        let listener = UnixListener::from(socket);
        let fenced: Vec<String> = fenced.iter().map(u16::to_string).collect();
        let launcher = std::thread::spawn(move || {
            let (mut host, _): (UnixStream, _) = listener.accept().unwrap();
            let mut asked = [0; 64];
            let count = host.read(&mut asked).unwrap();
            host.write_all(format!("ok {}", fenced.join(",")).as_bytes()).unwrap();
            asked[..count].to_vec()
        });
        let mut config = config.clone();
        config.launcher.socket = path;
        let agents = Agents::choose(&config, "/nonexistent/run".into(), handed);
        assert_eq!(launcher.join().unwrap(), b"status");
        agents.problem
    }

    #[test]
    fn programs_may_reach_neither_the_host_s_ports_nor_those_that_were_handed_to_it() {
        let config = Config::default();
        let mut own = config.gamestream.ports().to_vec();
        own.push(config.console_port());
        assert_eq!(problem(&config, &own, &[]), None);
        let some = [&own[..], &[443]].concat();
        let told = problem(&config, &some, &[443, 80]).unwrap();
        assert!(told.contains("own ports 80: name them"), "{told}");
        let all = [&some[..], &[80]].concat();
        assert_eq!(problem(&config, &all, &[443, 80]), None);
        let told = problem(&config, &own[..own.len() - 1], &[]).unwrap();
        assert!(told.contains(&format!("own ports {}: name", config.console_port())), "{told}");
    }

    fn choose(isolation: Isolation, socket: &std::path::Path) -> Agents {
        let mut config = Config::default();
        config.sessions.isolation = isolation;
        config.launcher.socket = socket.to_owned();
        Agents::choose(&config, "/nonexistent/run".into(), &[])
    }

    #[test]
    fn where_isolation_is_required_there_is_no_way_around_the_launcher() {
        let absent = std::path::Path::new("/nonexistent/launcher.sock");
        let agents = choose(Isolation::Required, absent);
        assert!(agents.starter.isolates());
        assert!(agents.problem.unwrap().starts_with("no session can be started"));
    }

    #[test]
    fn a_desk_without_a_launcher_is_told_what_that_means() {
        let absent = std::path::Path::new("/nonexistent/launcher.sock");
        let agents = choose(Isolation::Auto, absent);
        assert!(!agents.starter.isolates());
        assert!(agents.problem.unwrap().contains("can read its key"));
        assert_eq!(agents.found.chosen, "the host's own user");
    }

    #[test]
    fn a_launcher_that_is_there_is_used_even_if_it_does_not_answer() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let agents = choose(Isolation::Auto, file.path());
        assert!(agents.starter.isolates() && agents.problem.is_some());
    }
}
