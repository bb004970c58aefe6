//! How clients find this host: multicast DNS service discovery.
//!
//! The service is `_nvstream._tcp.local.` with the plain HTTP port; clients read everything else over HTTP. Its
//! addresses are those of all interfaces that are up, and follow them as they come and go. The host name in the record
//! is our own (`punktfunk-xxxxxxxx.local.`), not the machine's: another responder (avahi) owns that one, and two
//! responders for one name only make conflicts. Where another machine has even ours, the responder takes the next one
//! (`punktfunk-xxxxxxxx-2.local.`), and whoever asked for the announcement is told.
//!
//! The owner's console is a service of its own at the same name ([`ConsoleService`]). A host that could not start
//! announces that one alone, because its console says why.
//!
//! Deliberately absent: TXT keys of the clients' service, which none reads, and the loopback interface, whose address
//! would lead every client to itself.

mod console;

use std::thread::JoinHandle;
use std::time::Duration;

use mdns_sd::{
    DaemonEvent, DaemonStatus, IfKind, IfPredicate, Receiver, ServiceDaemon, ServiceInfo,
};

pub use console::ConsoleService;

/// The service type.
// spec: gamestream 1.1
const SERVICE_TYPE: &str = "_nvstream._tcp.local.";
/// A label of a DNS name is at most this long, in bytes.
const MAX_LABEL_BYTES: usize = 63;
/// What is announced if the name has nothing that can be.
const FALLBACK_NAME: &str = "punktfunk";
/// How long each of the steps of a farewell may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

/// Why the host cannot be announced. The host works without: clients can be told its address.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The responder did not start.
    #[error("cannot open the sockets for mDNS (UDP 5353): {0}")]
    Start(mdns_sd::Error),
    /// The thread that hears of names did not start.
    #[error("cannot start a thread for mDNS: {0}")]
    Thread(std::io::Error),
    /// The service was refused.
    #[error("cannot announce the service over mDNS: {0}")]
    Announce(mdns_sd::Error),
}

/// What is announced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiscoveryOptions {
    /// The name that clients show; cut to 63 bytes.
    pub name: String,
    /// The host's UUID text; tells its host name from others'.
    pub host_id: String,
    /// The plain HTTP port; `None` where no client could play, and only the console is to be found.
    pub http_port: Option<u16>,
}

/// The running announcement. Dropping it says farewell to the network, which blocks for three seconds at most.
pub struct Announcement {
    responder: ServiceDaemon,
    /// What clients look for, if they are to find it.
    full_name: Option<String>,
    host_name: String,
    scope: Scope,
    /// Hears by which name the host is announced; ends with the responder.
    names: Option<JoinHandle<()>>,
    /// What is announced of the console, and the full name of that.
    console: Option<(ConsoleService, String)>,
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Announcement").field("full_name", &self.full_name).finish_non_exhaustive()
    }
}

/// Knows whether the responder of an announcement still runs; clones share it.
#[derive(Clone)]
pub struct Responder(ServiceDaemon);

impl Responder {
    /// Whether it does. Does not block.
    pub fn runs(&self) -> bool {
        // One that has ended says so at once; what one that runs says later is not waited for.
        let ended = self.0.status().is_ok_and(|said| said.try_recv() == Ok(DaemonStatus::Shutdown));
        !ended
    }
}

impl Announcement {
    /// Whom to ask whether the host is still announced.
    pub fn responder(&self) -> Responder {
        Responder(self.responder.clone())
    }

    /// Announces the host on all interfaces but the loopback. Does not block; the work is on a thread of the
    /// responder. `named` is told under which name, as people type it, and again when that is another one.
    ///
    /// # Errors
    /// See [`DiscoveryError`].
    // spec: gamestream 1.1
    pub fn start(
        options: &DiscoveryOptions,
        named: impl Fn(String) + Send + 'static,
    ) -> Result<Self, DiscoveryError> {
        let responder = ServiceDaemon::new().map_err(DiscoveryError::Start)?;
        Self::announce(responder, options, Scope::Network, named)
    }

    fn announce(
        responder: ServiceDaemon,
        options: &DiscoveryOptions,
        scope: Scope,
        named: impl Fn(String) + Send + 'static,
    ) -> Result<Self, DiscoveryError> {
        let host_name = host_name(&options.host_id);
        let service = options.http_port.map(|port| service(&options.name, port, &host_name, scope));
        let service = service.transpose().map_err(DiscoveryError::Announce)?;
        let full_name = service.as_ref().map(|service| service.get_fullname().to_owned());
        // Listened to before there is anything to hear.
        let events = responder.monitor();
        let announced = scope
            .limit(&responder)
            .and_then(|()| service.map_or(Ok(()), |service| responder.register(service)));
        // Made before the result is looked at, so that a responder is never left running.
        let mut announcement =
            Self { responder, full_name, host_name, scope, names: None, console: None };
        announced.map_err(DiscoveryError::Announce)?;
        let events = events.map_err(DiscoveryError::Announce)?;
        named(typed(&announcement.host_name));
        let own = announcement.host_name.clone();
        let names = std::thread::Builder::new().name("pf-names".to_owned());
        let names = names.spawn(move || hear_names(&events, &own, &named));
        announcement.names = Some(names.map_err(DiscoveryError::Thread)?);
        tracing::info!(
            service = announcement.full_name().unwrap_or("the console alone"),
            host = announcement.host_name,
            port = options.http_port,
            "announcing the host over mDNS"
        );
        Ok(announcement)
    }

    /// The full name of the clients' service, as browsers show it, if it is announced.
    pub fn full_name(&self) -> Option<&str> {
        self.full_name.as_deref()
    }

    /// The host name that the service points to, with its final dot.
    pub fn host_name(&self) -> &str {
        &self.host_name
    }

    /// Tells the network that the host is gone. Blocks for three seconds at most.
    pub fn stop(self) {
        drop(self);
    }

    /// Says farewell; whether the responder has ended by now.
    fn farewell(&self) -> mdns_sd::Result<bool> {
        // A step that takes too long is left behind: the records run out by themselves.
        if let Some((_, console)) = &self.console {
            let _ = self.responder.unregister(console)?.recv_timeout(FAREWELL_TIMEOUT);
        }
        if let Some(full_name) = &self.full_name {
            let _ = self.responder.unregister(full_name)?.recv_timeout(FAREWELL_TIMEOUT);
        }
        Ok(self.responder.shutdown()?.recv_timeout(FAREWELL_TIMEOUT).is_ok())
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        match self.farewell() {
            Ok(true) => {
                // It ends with the responder; a panic in it was reported.
                let _ = self.names.take().map(JoinHandle::join);
            }
            Ok(false) => tracing::debug!("the mDNS responder takes too long to end"),
            Err(error) => tracing::debug!(%error, "the mDNS responder ended before its farewell"),
        }
    }
}

/// Where the host is announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    /// On every interface but the loopback.
    Network,
    /// On the loopback alone, for tests.
    #[cfg(test)]
    Loopback,
}

impl Scope {
    fn is_loopback(self) -> bool {
        self != Self::Network
    }

    fn interfaces(self) -> IfKind {
        let wanted = self.is_loopback();
        IfKind::Predicate(IfPredicate::new(move |interface| interface.is_loopback() == wanted))
    }

    /// Keeps the responder off all other interfaces.
    fn limit(self, responder: &ServiceDaemon) -> mdns_sd::Result<()> {
        let wanted = self.is_loopback();
        responder.disable_interface(IfKind::Predicate(IfPredicate::new(move |interface| {
            interface.is_loopback() != wanted
        })))
    }
}

fn service(name: &str, port: u16, host_name: &str, scope: Scope) -> mdns_sd::Result<ServiceInfo> {
    let name = instance_name(name);
    let mut service =
        ServiceInfo::new(SERVICE_TYPE, &name, host_name, "", port, None)?.enable_addr_auto();
    service.set_interfaces(vec![scope.interfaces()]);
    Ok(service)
}

/// The name as a DNS label: at most 63 bytes, cut between characters, without control characters or a dot at its end.
fn instance_name(name: &str) -> String {
    let mut label = String::new();
    for c in name.trim().chars().filter(|c| !c.is_control()) {
        if label.len() + c.len_utf8() > MAX_LABEL_BYTES {
            break;
        }
        label.push(c);
    }
    let label = label.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    if label.is_empty() { FALLBACK_NAME.to_owned() } else { label.to_owned() }
}

/// Tells of each other name that the responder took for this one, until it ends.
fn hear_names(events: &Receiver<DaemonEvent>, own: &str, named: &impl Fn(String)) {
    let mut told = typed(own);
    while let Ok(event) = events.recv() {
        // One for each record of each link.
        if let DaemonEvent::NameChange(change) = event
            && change.original.eq_ignore_ascii_case(own)
            && typed(&change.new_name) != told
        {
            let name = typed(&change.new_name);
            told.clone_from(&name);
            tracing::warn!(
                name,
                "another machine has this host's name; it is announced by this one"
            );
            named(name);
        }
    }
}

/// A host name as people type it.
fn typed(host_name: &str) -> String {
    host_name.trim_end_matches('.').to_owned()
}

fn host_name(host_id: &str) -> String {
    let tag: String =
        host_id.chars().filter(char::is_ascii_alphanumeric).take(8).collect::<String>();
    format!("punktfunk-{}.local.", tag.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::{IpAddr, Ipv4Addr, UdpSocket};
    use std::time::Instant;

    use mdns_sd::{Receiver, ServiceEvent};
    use proptest::prelude::*;

    use super::*;

    pub(super) fn options(name: &str) -> DiscoveryOptions {
        DiscoveryOptions {
            name: name.to_owned(),
            host_id: "3F2B8C1E-aaaa-bbbb-cccc-dddddddddddd".to_owned(),
            http_port: Some(47_989),
        }
    }

    /// The next event that `pick` wants, within half a minute.
    pub(super) fn next<E, T>(events: &Receiver<E>, pick: impl Fn(E) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let event = events.recv_deadline(deadline).expect("no such event in 30 s");
            if let Some(found) = pick(event) {
                return found;
            }
        }
    }

    /// Browses until the host is found with addresses that satisfy `is_complete`, then until it is gone.
    fn check_found_and_gone(scope: Scope, is_complete: impl Fn(&HashSet<IpAddr>) -> bool) {
        // A port of the test's own, so that neither avahi nor the network takes part.
        let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let browser = ServiceDaemon::new_with_port(port).unwrap();
        scope.limit(&browser).unwrap();
        let events = browser.browse(SERVICE_TYPE).unwrap();
        let responder = ServiceDaemon::new_with_port(port).unwrap();
        let announcement =
            Announcement::announce(responder, &options("Wohnzimmer-PC ü"), scope, |_| ()).unwrap();
        assert_eq!(announcement.full_name(), Some("Wohnzimmer-PC ü._nvstream._tcp.local."));
        let alive = announcement.responder();
        assert!(alive.runs());
        let resolved = next(&events, |event| match event {
            ServiceEvent::ServiceResolved(service) => {
                let addresses = service.addresses.iter().map(|a| a.to_ip_addr()).collect();
                is_complete(&addresses).then_some(service)
            }
            _ => None,
        });
        assert_eq!(resolved.port, 47_989);
        assert_eq!(resolved.host, "punktfunk-3f2b8c1e.local.");
        assert!(resolved.txt_properties.is_empty());
        let full_name = announcement.full_name().unwrap().to_owned();
        announcement.stop();
        let gone = next(&events, |event| match event {
            ServiceEvent::ServiceRemoved(_, gone) => Some(gone),
            _ => None,
        });
        assert_eq!(gone, full_name);
        browser.shutdown().unwrap();
    }

    #[test]
    fn a_host_whose_name_another_machine_has_takes_the_next_and_says_so() {
        let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let other = ServiceDaemon::new_with_port(port).unwrap();
        Scope::Loopback.limit(&other).unwrap();
        let told = other.monitor().unwrap();
        let (own, there) = ("punktfunk-3f2b8c1e.local.", "127.9.9.9");
        let mut service =
            ServiceInfo::new("_other._tcp.local.", "Other", own, there, 1, None).unwrap();
        service.set_interfaces(vec![Scope::Loopback.interfaces()]);
        other.register(service).unwrap();
        next(&told, |event| matches!(event, DaemonEvent::Announce(..)).then_some(()));

        let responder = ServiceDaemon::new_with_port(port).unwrap();
        let (name, names) = std::sync::mpsc::channel();
        let named = move |now: String| drop(name.send(now));
        let announcement =
            Announcement::announce(responder, &options("Sofa"), Scope::Loopback, named).unwrap();
        let named = || names.recv_timeout(Duration::from_secs(30)).unwrap();
        assert_eq!(named(), "punktfunk-3f2b8c1e.local");
        assert_eq!(named(), "punktfunk-3f2b8c1e-2.local");
        announcement.stop();
        let after = std::iter::from_fn(|| Some(names.try_recv())).find_map(Result::err);
        let ended = Some(std::sync::mpsc::TryRecvError::Disconnected);
        assert_eq!(after, ended, "who hears of names ends with the announcement");
        other.shutdown().unwrap();
    }

    // spec: gamestream 13 item 1
    #[test]
    fn a_browser_finds_the_host_and_sees_it_go() {
        let here: IpAddr = Ipv4Addr::LOCALHOST.into();
        check_found_and_gone(Scope::Loopback, |addresses| addresses.contains(&here));
    }

    // spec: gamestream 13 item 1
    #[test]
    #[ignore = "needs a network interface with an IPv4 and an IPv6 address"]
    fn on_a_network_both_kinds_of_address_are_announced_and_no_loopback() {
        check_found_and_gone(Scope::Network, |addresses| {
            assert!(!addresses.iter().any(IpAddr::is_loopback));
            addresses.iter().any(IpAddr::is_ipv4) && addresses.iter().any(IpAddr::is_ipv6)
        });
    }

    #[test]
    fn names_are_cut_between_characters() {
        let long = "ü".repeat(40);
        assert_eq!(instance_name(&long), "ü".repeat(31));
        assert_eq!(instance_name(" Sofa. "), "Sofa");
        assert_eq!(instance_name("..."), FALLBACK_NAME);
        assert_eq!(host_name("AB-cd"), "punktfunk-abcd.local.");
        assert_eq!(typed("punktfunk-abcd.local."), "punktfunk-abcd.local");
    }

    proptest! {
        #[test]
        fn any_name_can_be_announced(name in any::<String>()) {
            let label = instance_name(&name);
            prop_assert!((1..=MAX_LABEL_BYTES).contains(&label.len()));
            prop_assert!(!label.ends_with('.'));
            prop_assert!(service(&name, 1, "punktfunk-x.local.", Scope::Network).is_ok());
        }
    }
}
