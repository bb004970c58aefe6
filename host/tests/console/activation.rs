//! The sockets that a service manager has opened for the daemon, as a process gets them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use super::browser::Browser;
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
    let mut daemon = house.start_by("", manager, &[]);

    // Its own port opens as ever; whoever asks at the other two waits in their queues until the host serves them.
    assert_eq!(daemon.ask("/api/v1/landing").status, 200);
    let mut browser = Browser::connect(at, &house.certificate).unwrap();
    assert_eq!(browser.ask("GET", "/api/v1/landing", &[], "").json()["product"], "punktfunk");
    let mut stream = TcpStream::connect(plain_at).unwrap();
    write!(stream, "GET /pair?x=1 HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let said = said.to_ascii_lowercase();
    assert!(said.starts_with("http/1.1 308"), "{said}");
    assert!(said.contains("location: https://localhost/pair?x=1\r\n"), "{said}");
}
