//! How people and programs find the console: a service of its own, beside the one that devices look for.
//!
//! The service is `_punktfunk._tcp.local.` with the console's HTTPS port, at the same host name. Its TXT keys say what
//! somebody who looks for a new box needs: `version`, `claimed` (0, 1, or `unknown`), and `fingerprint`, the SHA-256 of the
//! console's certificate. None of it is proof of anything, because anybody on the network may announce whatever it
//! likes: who compares a fingerprint does so with the one that the machine itself shows.
//!
//! Two hosts of one name are told apart by the responder, which renames the one that came later.

use mdns_sd::ServiceInfo;

use super::{Announcement, DiscoveryError, Scope, instance_name};

/// The service type.
pub(super) const CONSOLE_TYPE: &str = "_punktfunk._tcp.local.";

/// What is announced of the console.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsoleService {
    /// The host's name; cut to 63 bytes.
    pub name: String,
    /// The port of its HTTPS.
    pub port: u16,
    /// The host's version.
    pub version: &'static str,
    /// The fingerprint of its certificate, as people compare it.
    pub fingerprint: String,
    /// The host has an owner; `None` if it cannot read whether it has one.
    pub claimed: Option<bool>,
}

impl Announcement {
    /// Announces the console as well; once more, if something about it is different now. Does not block.
    ///
    /// # Errors
    /// The responder has ended, or has too much to do: what was announced before stays.
    pub fn show_console(&mut self, console: &ConsoleService) -> Result<(), DiscoveryError> {
        if self.console.as_ref().is_some_and(|(shown, _)| shown == console) {
            return Ok(());
        }
        let service =
            console.service(&self.host_name, self.scope).map_err(DiscoveryError::Announce)?;
        let full_name = service.get_fullname().to_owned();
        self.responder.register(service).map_err(DiscoveryError::Announce)?;
        self.console = Some((console.clone(), full_name));
        Ok(())
    }
}

impl ConsoleService {
    fn service(&self, host_name: &str, scope: Scope) -> mdns_sd::Result<ServiceInfo> {
        let told = [
            ("version", self.version),
            ("claimed", claimed_text(self.claimed)),
            ("fingerprint", &self.fingerprint),
        ];
        let name = instance_name(&self.name);
        let mut service =
            ServiceInfo::new(CONSOLE_TYPE, &name, host_name, "", self.port, &told[..])?
                .enable_addr_auto();
        service.set_interfaces(vec![scope.interfaces()]);
        Ok(service)
    }
}

fn claimed_text(claimed: Option<bool>) -> &'static str {
    match claimed {
        Some(true) => "1",
        Some(false) => "0",
        None => "unknown",
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use mdns_sd::{ServiceDaemon, ServiceEvent};

    use super::super::DiscoveryOptions;
    use super::super::tests::{next, options};
    use super::*;

    #[test]
    fn a_box_is_found_with_its_fingerprint_and_whether_it_has_an_owner() {
        let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let browser = ServiceDaemon::new_with_port(port).unwrap();
        Scope::Loopback.limit(&browser).unwrap();
        let events = browser.browse(CONSOLE_TYPE).unwrap();
        let responder = ServiceDaemon::new_with_port(port).unwrap();
        let mut announcement =
            Announcement::announce(responder, &options("Sofa"), Scope::Loopback, |_| ()).unwrap();
        let mut console = ConsoleService {
            name: "Sofa".to_owned(),
            port: 47_990,
            version: "1.2.3",
            fingerprint: "AB:".repeat(31) + "CD",
            claimed: None,
        };
        for (claimed, wanted) in [(None, "unknown"), (Some(false), "0"), (Some(true), "1")] {
            console.claimed = claimed;
            announcement.show_console(&console).unwrap();
            let found = next(&events, |event| match event {
                ServiceEvent::ServiceResolved(found) => {
                    let told = found.get_property_val_str("claimed").map(str::to_owned);
                    (told.as_deref() == Some(wanted)).then_some(found)
                }
                _ => None,
            });
            assert_eq!((found.port, &*found.host), (47_990, "punktfunk-3f2b8c1e.local."));
            assert_eq!(found.get_property_val_str("version"), Some("1.2.3"));
            assert_eq!(found.get_property_val_str("fingerprint"), Some(&*console.fingerprint));
        }
        announcement.stop();
        let gone = next(&events, |event| match event {
            ServiceEvent::ServiceRemoved(_, gone) => Some(gone),
            _ => None,
        });
        assert_eq!(gone, "Sofa._punktfunk._tcp.local.");
        browser.shutdown().unwrap();
    }

    #[test]
    fn a_host_that_could_not_start_is_found_by_its_console_alone() {
        let port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let browser = ServiceDaemon::new_with_port(port).unwrap();
        Scope::Loopback.limit(&browser).unwrap();
        let events = browser.browse(CONSOLE_TYPE).unwrap();
        let clients = browser.browse(super::super::SERVICE_TYPE).unwrap();
        let responder = ServiceDaemon::new_with_port(port).unwrap();
        let alone = DiscoveryOptions { http_port: None, ..options("Sofa") };
        let mut announcement =
            Announcement::announce(responder, &alone, Scope::Loopback, |_| ()).unwrap();
        assert_eq!(announcement.full_name(), None);
        let console = ConsoleService {
            name: "Sofa".to_owned(),
            port: 47_990,
            version: "1.2.3",
            fingerprint: "AB:CD".to_owned(),
            claimed: None,
        };
        announcement.show_console(&console).unwrap();
        let host = next(&events, |event| match event {
            ServiceEvent::ServiceResolved(found) => Some(found.host.clone()),
            _ => None,
        });
        assert_eq!(host, "punktfunk-3f2b8c1e.local.");
        announcement.stop();
        next(&events, |event| matches!(event, ServiceEvent::ServiceRemoved(..)).then_some(()));
        let found = |event| matches!(event, ServiceEvent::ServiceFound(..));
        assert!(!clients.try_iter().any(found), "no client is led here");
        browser.shutdown().unwrap();
    }
}
