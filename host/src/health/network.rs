//! The network: the host's doors answer, or could be opened; clients can find the host by themselves.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use mdns_sd::{ServiceDaemon, ServiceEvent};

use super::{Finding, Surroundings};

/// How long a door that should be open may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long to listen for the host's own announcement.
const HEARING: Duration = Duration::from_secs(5);

/// What hosts are announced as. spec: gamestream 1.1
const SERVICE: &str = "_nvstream._tcp.local.";

/// A port that the host listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// Answers `GET /serverinfo`.
    Http(u16),
    /// Takes connections.
    Tcp(u16),
    /// Takes datagrams.
    Udp(u16),
}

/// Whether the doors of a running host answer; without one, whether they could be opened.
pub(super) fn ports(around: &Surroundings) -> Finding {
    let tried: Result<Vec<String>, Trouble> =
        around.doors.iter().map(|door| try_door(*door, around)).collect();
    match tried {
        Ok(doors) if around.running => {
            Finding::works_with(format!("the host answers on {}", doors.join(", ")))
        }
        Ok(doors) => Finding::works_with(format!("{} can be opened", doors.join(", "))),
        Err(trouble) => Finding::broken(&trouble),
    }
}

fn try_door(door: Door, around: &Surroundings) -> Result<String, Trouble> {
    let (port, name) = match door {
        Door::Http(port) | Door::Tcp(port) => (port, format!("TCP {port}")),
        Door::Udp(port) => (port, format!("UDP {port}")),
    };
    let failed = |source| Trouble { name: name.clone(), running: around.running, source };
    let here = SocketAddr::new(near(around.listen), port);
    let at = SocketAddr::new(around.listen, port);
    match (door, around.running) {
        (Door::Http(_), true) => serverinfo(here).map_err(failed)?,
        (Door::Tcp(_), true) => drop(TcpStream::connect_timeout(&here, PATIENCE).map_err(failed)?),
        (Door::Udp(_), true) => is_held(at).map_err(failed)?,
        (Door::Http(_) | Door::Tcp(_), false) => drop(TcpListener::bind(at).map_err(failed)?),
        (Door::Udp(_), false) => drop(UdpSocket::bind(at).map_err(failed)?),
    }
    Ok(name)
}

/// Where a program on this machine reaches what listens on `address`.
pub(super) fn near(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(v6) if v6.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        other => other,
    }
}

/// A datagram socket that nobody may be asked through is known by being taken.
fn is_held(at: SocketAddr) -> io::Result<()> {
    match UdpSocket::bind(at) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::NotConnected, "nobody listens there")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(()),
        Err(error) => Err(error),
    }
}

fn serverinfo(at: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /serverinfo HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // Whoever else sits there may talk for ever.
    stream.take(64 * 1024).read_to_end(&mut answer)?;
    if String::from_utf8_lossy(&answer).contains("status_code=\"200\"") {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "what answers there is not a host"))
}

#[derive(Debug, thiserror::Error)]
#[error("{} on {name}", if *running { "the host does not answer" } else { "nothing can listen" })]
struct Trouble {
    name: String,
    running: bool,
    source: io::Error,
}

/// Whether the running host's announcement is heard.
pub(super) fn discovery(around: &Surroundings) -> Finding {
    let Some(name) = &around.announced else {
        return Finding::Unproven {
            reason: "announcing is turned off (discovery = false); add the host by its address"
                .to_owned(),
        };
    };
    if !around.running {
        return Finding::Unproven { reason: "no host runs that could be heard".to_owned() };
    }
    match hear(name) {
        Ok(true) => Finding::works_with(format!("heard \"{name}\" announced")),
        Ok(false) => Finding::Broken {
            reason: format!("\"{name}\" was not heard in {} seconds", HEARING.as_secs()),
        },
        Err(error) => Finding::broken(&error),
    }
}

fn hear(name: &str) -> Result<bool, mdns_sd::Error> {
    let listener = ServiceDaemon::new()?;
    let heard = listener.browse(SERVICE)?;
    let deadline = Instant::now() + HEARING;
    let wanted = format!("{name}.{SERVICE}").to_lowercase();
    let mut found = false;
    while let Ok(event) = heard.recv_deadline(deadline) {
        if matches!(&event, ServiceEvent::ServiceFound(_, full) if full.to_lowercase() == wanted) {
            found = true;
            break;
        }
    }
    // It ends with the process that the check runs in.
    let _ = listener.shutdown();
    Ok(found)
}

#[cfg(test)]
pub(super) mod tests {
    use std::thread;

    use super::*;

    pub(in crate::health) fn around(doors: Vec<Door>, running: bool) -> Surroundings {
        Surroundings {
            state_dir: "/nonexistent".into(),
            agents: std::sync::Arc::new(crate::health::machine::tests::Agents::default()),
            doors,
            console: 1,
            listen: Ipv4Addr::LOCALHOST.into(),
            announced: None,
            running,
        }
    }

    /// A server that says this to whoever asks, once.
    fn server(says: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 256];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(says.as_bytes()).unwrap();
        });
        port
    }

    #[test]
    fn the_doors_of_a_running_host_must_answer() {
        let held = UdpSocket::bind("127.0.0.1:0").unwrap();
        let udp = held.local_addr().unwrap().port();
        let http = server("HTTP/1.1 200 OK\r\n\r\n<root status_code=\"200\"/>");
        let finding = ports(&around(vec![Door::Http(http), Door::Udp(udp)], true));
        assert_eq!(
            finding,
            Finding::works_with(format!("the host answers on TCP {http}, UDP {udp}"))
        );

        let other = server("HTTP/1.1 404 Not Found\r\n\r\n");
        let Finding::Broken { reason } = ports(&around(vec![Door::Http(other)], true)) else {
            panic!()
        };
        assert!(reason.contains("is not a host"), "{reason}");

        drop(held);
        let Finding::Broken { reason } = ports(&around(vec![Door::Udp(udp)], true)) else {
            panic!()
        };
        assert!(reason.contains(&format!("UDP {udp}")), "{reason}");
    }

    #[test]
    fn without_a_host_the_doors_must_be_free() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let Finding::Broken { reason } = ports(&around(vec![Door::Tcp(port)], false)) else {
            panic!()
        };
        assert!(reason.contains(&format!("nothing can listen on TCP {port}")), "{reason}");
        drop(taken);
        assert!(ports(&around(vec![Door::Tcp(port)], false)).works());
    }

    #[test]
    fn what_is_not_announced_is_not_said_to_be_heard() {
        assert!(matches!(discovery(&around(vec![], true)), Finding::Unproven { .. }));
        let named = Surroundings { announced: Some("den".to_owned()), ..around(vec![], false) };
        assert!(matches!(discovery(&named), Finding::Unproven { .. }));
    }
}
