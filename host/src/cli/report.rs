//! What the host says of itself: the status, and the same for people.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;

use super::rooms::Rooms;
use crate::config::Config;
use crate::gamestream::Ports;
use crate::mgmt::wire::{Backend, Listen, StatusReport};
use crate::session::App;

/// What stays as it is while the host runs: without its addresses, the apps and the problems.
pub(super) fn report(config: &Config, listen: &str, ports: Ports, rooms: &Rooms) -> StatusReport {
    let at = |protocol: &str, address: String| Listen { protocol: protocol.to_owned(), address };
    let everywhere = if listen == "::" || listen == "0.0.0.0" { "every address" } else { listen };
    let port = |protocol: &str, port: u16| at(protocol, format!("{everywhere}, port {port}"));
    let mut backends = rooms.found.clone();
    backends.push(Backend {
        room: APPS.to_owned(),
        chosen: String::new(),
        why: "what can run here".to_owned(),
    });
    StatusReport {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: config.name.clone(),
        listens: vec![
            port("GameStream HTTP", ports.http),
            port("GameStream HTTPS", ports.https),
            port("GameStream RTSP", ports.rtsp),
            port("GameStream video (UDP)", ports.video),
            port("GameStream control (UDP)", ports.control),
            port("GameStream audio (UDP)", ports.audio),
        ],
        backends,
        problems: vec![],
        near: near(listen, ports.http),
    }
}

/// The line of the status that names the apps.
pub(super) const APPS: &str = "apps";

pub(super) fn titles(apps: &[App]) -> String {
    apps.iter().map(|app| app.title.as_str()).collect::<Vec<_>>().join(", ")
}

/// Where a client on this machine finds plain HTTP.
fn near(listen: &str, port: u16) -> Option<SocketAddr> {
    let address: IpAddr = listen.parse().ok()?;
    let everywhere = address.is_unspecified();
    Some(SocketAddr::new(if everywhere { Ipv4Addr::LOCALHOST.into() } else { address }, port))
}

/// Where clients may find this machine: every address of an interface that is up, but for loopback and link-local ones,
/// which no person types.
pub(super) fn reachable_addresses() -> nix::Result<BTreeSet<IpAddr>> {
    let interfaces = nix::ifaddrs::getifaddrs()?;
    Ok(interfaces
        .filter(|interface| interface.flags.contains(nix::net::if_::InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| Some(IpAddr::from(address.as_sockaddr_in6()?.ip())))
        })
        .filter(|address| match address {
            IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
            IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
        })
        .collect())
}

/// The line of the status that says where, as of now: addresses come and go.
pub(super) fn reached_at() -> Listen {
    Listen { protocol: "reached at".to_owned(), address: local_addresses() }
}

fn local_addresses() -> String {
    match reachable_addresses() {
        Ok(addresses) if addresses.is_empty() => "no network yet".to_owned(),
        Ok(addresses) => addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        Err(error) => format!("its addresses could not be read: {error}"),
    }
}

/// The status for people.
pub(super) fn describe(status: &StatusReport) -> String {
    let mut text = format!("\npunktfunk {} - \"{}\"\n", status.version, status.name);
    let mut line = |head: &str, rest: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {head:<26}{rest}");
    };
    for listen in &status.listens {
        line(&listen.protocol, &listen.address);
    }
    for backend in &status.backends {
        line(&backend.room, &format!("{} ({})", backend.chosen, backend.why));
    }
    for problem in &status.problems {
        line("! problem", problem);
    }
    text
}

pub(super) fn how_to_pair(name: &str, socket: &Path) -> String {
    format!(
        "\nOpen Moonlight on your TV, phone or PC and choose \"{name}\". It shows a PIN; then run, in \
         another terminal:\n  {} pair <PIN>\n(local socket: {})\nCtrl-C stops the host.\n",
        program(),
        socket.display()
    )
}

/// How this program was called, so that what is printed can be typed.
pub(super) fn program() -> String {
    std::env::var("PUNKTFUNK_PROGRAM")
        .ok()
        .or_else(|| Some(std::env::current_exe().ok()?.display().to_string()))
        .unwrap_or_else(|| "punktfunk-host".to_owned())
}
