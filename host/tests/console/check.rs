//! `check-console`, by a host that works, one that starts, one that failed, and consoles that answer nonsense.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use punktfunk_host::identity::ConsoleIdentity;
use punktfunk_host::mgmt::Failure;
use punktfunk_host::selftest::console::{Options, check};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::process::{House, PROGRAM};
use super::rig::{Making, Rig};

/// Without a local socket to ask, and for no longer than it takes to ask once.
fn at(address: SocketAddr) -> Result<String, String> {
    check(&Options {
        address,
        socket: Some("/nonexistent/host.sock".into()),
        patience: Duration::ZERO,
    })
}

/// A console that answers what `answer` says for a path, for as long as it is asked.
fn console(answer: impl Fn(&str) -> String + Send + 'static) -> SocketAddr {
    let identity = ConsoleIdentity::in_memory("box").unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.private_key_der().to_vec()));
    let config = ServerConfig::builder_with_provider(aws_lc_rs::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(identity.certificate_der().to_vec())], key);
    let config = Arc::new(config.unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = move |stream: TcpStream| {
        let connection = ServerConnection::new(Arc::clone(&config)).unwrap();
        let mut stream = StreamOwned::new(connection, stream);
        let mut head = [0; 4096];
        let count = stream.read(&mut head)?;
        let head = String::from_utf8_lossy(&head[..count]).into_owned();
        stream.write_all(answer(head.split(' ').nth(1).unwrap_or_default()).as_bytes())?;
        stream.conn.send_close_notify();
        stream.flush()
    };
    // Ends with the test.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Who does not like the certificate leaves.
            let _ = serve(stream.unwrap());
        }
    });
    address
}

fn said(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const READY: &str = r#"{"product":"punktfunk","version":"1.2.3","name":"box","claimed":false,"stage":{"stage":"ready"}}"#;
const WELL: &str = r#"{"healthy":true,"problems":0,"detail":"A client can play."}"#;

/// A console that answers well but for this path, which is answered like this.
fn but(path: &'static str, answer: String) -> SocketAddr {
    console(move |asked| match asked {
        asked if asked == path => answer.clone(),
        "/" => said("200 OK", "punktfunk"),
        "/api/v1/landing" => said("200 OK", READY),
        "/api/v1/health" => said("200 OK", WELL),
        other => panic!("nobody asks for {other}"),
    })
}

#[test]
fn what_answers_well_is_green_and_one_wrong_answer_is_red() {
    let green = at(but("-", String::new())).unwrap();
    assert!(green.contains("/api/v1/health") && green.contains("1.2.3"), "{green}");
    assert!(green.contains("was not compared: no host is running"), "{green}");

    let broken = said("500 Internal Server Error", r#"{"code":"bug"}"#);
    for path in ["/", "/api/v1/landing", "/api/v1/health"] {
        let red = at(but(path, broken.clone())).unwrap_err();
        assert!(red.starts_with(path) && red.contains("500") && red.contains("bug"), "{red}");
    }
    let no_encoder =
        r#"{"healthy":false,"problems":1,"detail":"No stream is possible: no encoder."}"#;
    let red = at(but("/api/v1/health", said("503 Service Unavailable", no_encoder))).unwrap_err();
    assert!(red.contains("no encoder"), "{red}");
    let red = at(but("/api/v1/health", said("200 OK", no_encoder))).unwrap_err();
    assert!(red.contains("no encoder"), "{red}");
    assert!(at(but("/api/v1/landing", said("200 OK", "<html>\u{1b}"))).is_err());
    assert!(at(but("/", said("200 OK", ""))).is_err());
    assert!(at(but("/", said("200 OK", &"x".repeat(1 << 20)))).is_err(), "too long");
    assert!(at(but("/", "nonsense".to_owned())).is_err());
}

#[test]
fn a_host_that_starts_is_waited_for_and_one_that_failed_is_red() {
    let rig = Rig::start(Making::default());
    let red = at(rig.at).unwrap_err();
    assert!(red.contains("still starting: step 1 of 2, finding the plug"), "{red}");
    rig.startup.failed(Failure { plain: "The plug is gone.", whole: "It is in /x.".to_owned() });
    let red = at(rig.at).unwrap_err();
    assert!(red.contains("cannot stream: The plug is gone."), "{red}");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(at(nobody).unwrap_err().contains("no connection"));
}

fn command(address: &str, socket: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["check-console", "--patience", "20", "--address", address, "--socket"]);
    let Output { status, stdout, stderr } = command.arg(socket).output().unwrap();
    let said = [stdout, stderr].concat();
    (status.code(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
#[ignore = "needs an unprivileged user"]
fn the_daemon_of_a_box_is_green_for_its_own_user_who_may_do_nothing_else() {
    let house = House::new();
    let mut daemon = house.start("appliance = true\n");
    assert_eq!(daemon.stage()["stage"], "ready");
    let address = daemon.console.to_string();
    let (code, said) = command(&address, &house.socket());
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("green: https://127.0.0.1:"), "{said}");
    assert!(said.contains("its certificate is the host's") && said.lines().count() == 1, "{said}");

    // Somebody else's console is not taken for the host's.
    let other = but("-", String::new()).to_string();
    let (code, said) = command(&other, &house.socket());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with("red: TLS"), "{said}");
    assert_eq!(command("192.0.2.1:443", &house.socket()).0, Some(2), "an address elsewhere");

    let own = house.folder.path().metadata().unwrap().uid();
    assert_ne!(own, 0, "root may do everything");
    let host = |arguments: &[&str]| {
        let mut command = Command::new(PROGRAM);
        let output = command.args(arguments).env("PUNKTFUNK_SOCKET", house.socket()).output();
        let Output { status, stdout, stderr } = output.unwrap();
        let said = [stdout, stderr].concat();
        (status.code(), String::from_utf8_lossy(&said).into_owned())
    };
    let (code, said) = host(&["selftest", "--frames", "30", "--width", "640", "--height", "360"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("\ngreen: "), "{said}");
    for refused in [["status", "--json"], ["clients", "list"], ["pairing", "arm"]] {
        let (code, said) = host(&refused);
        assert_eq!(code, Some(1), "{refused:?}: {said}");
        assert!(said.contains("does not let this user in"), "{refused:?}: {said}");
    }
}
