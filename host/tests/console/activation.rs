//! The sockets that a service manager has opened for the daemon, as a process gets them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, socket_with};

use super::browser::Browser;
use super::daemon::local;
use super::process::{House, PROGRAM};

#[test]
#[ignore = "needs an unprivileged user"]
fn the_ports_below_1024_come_from_a_service_manager_and_survive_that_the_host_begins_again() {
    /// Does what systemd does: leaves the sockets at 3 and 4, names them, and becomes the host.
    const MANAGER: &str =
        "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_PID=$$; export LISTEN_PID; exec \"$@\"";
    let house = House::new();
    let (https, plain) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let (at, plain_at) = (https.local_addr().unwrap(), plain.local_addr().unwrap());
    let mut manager = Command::new("sh");
    manager.args(["-c", MANAGER, "sh"]).arg(PROGRAM);
    manager.env("LISTEN_FDS", "2").env("LISTEN_FDNAMES", "https:http-redirect");
    manager.stdin(OwnedFd::from(https)).stdout(OwnedFd::from(plain)).stderr(Stdio::inherit());
    let socket = house.path().join("launcher.sock");
    fence_nothing(&socket);
    let more = format!("sessions.isolation = \"required\"\nlauncher.socket = {socket:?}\n");
    let mut daemon = house.start_by(&more, manager, &[]);

    // Its own port opens as ever; whoever asks at the other two waits in their queues until the host serves them.
    let mut stream = TcpStream::connect(plain_at).unwrap();
    write!(stream, "GET /pair?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    assert_eq!(daemon.ask("/api/v1/landing").status, 200);

    // They are the host's own ports, too, from which the launcher is to keep programs of sessions. A host that took
    // nothing over says so here, at once; whoever asked it there would wait.
    assert_eq!(daemon.stage()["stage"], "ready");
    let (_, status) = local(house.path(), "GET", "/status", "");
    let problems = status["problems"].to_string();
    for port in [at.port(), plain_at.port()] {
        assert!(
            problems.contains("own ports") && problems.contains(&port.to_string()),
            "{problems}"
        );
    }

    let mut browser = Browser::connect(at, &house.certificate).unwrap();
    assert_eq!(browser.ask("GET", "/api/v1/landing", &[], "").json()["product"], "punktfunk");
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let said = said.to_ascii_lowercase();
    assert!(said.starts_with("http/1.1 308"), "{said}");
    assert!(said.contains("location: https://localhost/pair?x=1\r\n"), "{said}");
}

/// A launcher that keeps programs of sessions from no port of ours, and starts none. It ends with this test's process.
fn fence_nothing(path: &Path) {
    let flags = SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 1).unwrap();
    let listener = UnixListener::from(socket);
    std::thread::spawn(move || {
        for host in listener.incoming() {
            let (mut host, mut asked) = (host.unwrap(), [0; 64]);
            let count = host.read(&mut asked).unwrap();
            let answer = if &asked[..count] == b"status" { "ok 1" } else { "no not here" };
            host.write_all(answer.as_bytes()).unwrap();
        }
    });
}
