//! The network as it is: which interfaces there are, what is plugged in, which addresses they have, where the way out is.
//!
//! What carries a cable or a radio is told apart by what the kernel has in /sys/class/net; what is made of software only
//! (bridges, tunnels, containers' cables) is left out, because no owner can plug it in.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use super::read;

/// As many interfaces are told about.
const MAX_INTERFACES: usize = 32;
/// As many addresses of each.
const MAX_ADDRESSES: usize = 16;

/// The network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Network {
    /// What can be plugged in or switched on, in the order of the names.
    pub interfaces: Vec<Interface>,
    /// The way out, IPv4 before IPv6.
    pub routes: Vec<Route>,
}

/// What carries an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A cable.
    Wired,
    /// A radio.
    WiFi,
}

/// How it stands with an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It has an address that others reach.
    Connected,
    /// There is a cable or a network, and no address yet.
    WaitingForAddress,
    /// Nothing is plugged in.
    NoCable,
    /// The radio knows no network.
    NoNetwork,
    /// It is switched off.
    Off,
}

/// One interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Its name, as the kernel has it.
    pub name: String,
    /// What carries it.
    pub kind: Kind,
    /// How it stands with it.
    pub condition: Condition,
    /// How fast the cable is, in Mbit/s; `None` if it does not say.
    pub speed_mbps: Option<u32>,
    /// Its addresses, without those that only the kernel uses.
    pub addresses: Vec<IpAddr>,
}

/// A way out of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Over which interface.
    pub interface: String,
    /// Through which neighbour; `None` if there is none in between.
    pub gateway: Option<IpAddr>,
}

impl Interface {
    /// How it stands with it, in words.
    pub fn sentence(&self) -> &'static str {
        match (self.condition, self.kind) {
            (Condition::Connected, _) => "Connected",
            (Condition::WaitingForAddress, _) => "Waiting for an address",
            (Condition::NoCable, _) => "No cable",
            (Condition::NoNetwork, _) => "Not connected to a Wi-Fi network",
            (Condition::Off, Kind::WiFi) => "Wi-Fi off",
            (Condition::Off, Kind::Wired) => "Switched off",
        }
    }
}

impl Network {
    /// What keeps clients from reaching this machine, if anything does.
    pub fn problem(&self) -> Option<String> {
        if self.interfaces.iter().any(|one| one.condition == Condition::Connected) {
            return None;
        }
        if self.interfaces.is_empty() {
            let text = "there is no network interface, so that no client can reach this host; plug in a network adapter \
                        that Linux knows";
            return Some(text.to_owned());
        }
        let each: Vec<String> = (self.interfaces.iter())
            .map(|one| format!("{}: {}", one.name, one.sentence()))
            .collect();
        Some(format!(
            "no client can reach this host ({}); plug in a network cable",
            each.join(", ")
        ))
    }
}

/// Reads it, of the machine whose file systems begin at `root` (`/`); the addresses are those of the interfaces by name.
pub fn network(root: &Path, addresses: &Addresses) -> Network {
    let class = root.join("sys/class/net");
    let mut names: Vec<String> = fs::read_dir(&class)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    let interfaces = names
        .into_iter()
        .filter_map(|name| {
            let folder = class.join(&name);
            // The addresses of a bridge or bond are those of what is plugged into it.
            let master = fs::read_link(folder.join("master")).ok();
            let master = master.as_deref().and_then(|path| path.file_name()?.to_str());
            let names = [Some(name.as_str()), master];
            let of = |name: &str| addresses.0.get(name).cloned().unwrap_or_default();
            let own = names.into_iter().flatten().flat_map(of).collect();
            interface(&folder, name, own)
        })
        .take(MAX_INTERFACES)
        .collect();
    let text = |path: &str| read(&root.join(path)).unwrap_or_default();
    let routes = routes_v4(&text("proc/net/route"))
        .into_iter()
        .chain(routes_v6(&text("proc/net/ipv6_route")));
    Network { interfaces, routes: routes.collect() }
}

/// The addresses of each interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses(pub BTreeMap<String, Vec<IpAddr>>);

impl Addresses {
    /// Those of this machine; none if the kernel does not say.
    pub fn of_this_machine() -> Self {
        let mut all: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for one in nix::ifaddrs::getifaddrs().into_iter().flatten() {
            let Some(address) = one.address else { continue };
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip()));
            let Some(address) = v4.or_else(v6) else { continue };
            let of_interface = all.entry(one.interface_name).or_default();
            if of_interface.len() < MAX_ADDRESSES {
                of_interface.push(address);
            }
        }
        Self(all)
    }
}

fn interface(folder: &Path, name: String, addresses: Vec<IpAddr>) -> Option<Interface> {
    // What is made of software has no device.
    if !folder.join("device").exists() {
        return None;
    }
    let is_radio = folder.join("phy80211").exists() || folder.join("wireless").exists();
    let text = |name: &str| read(&folder.join(name)).unwrap_or_default();
    let is_ethernet = text("type").trim() == "1";
    let kind = match (is_radio, is_ethernet) {
        (true, _) => Kind::WiFi,
        (false, true) => Kind::Wired,
        (false, false) => return None,
    };
    let is_up = flags(&text("flags")) & IFF_UP != 0;
    // The kernel answers with an error while the interface is off.
    let has_carrier = text("carrier").trim() == "1";
    Some(Interface {
        condition: condition(kind, is_up, has_carrier, addresses.iter().any(is_reachable)),
        speed_mbps: if has_carrier { speed(&text("speed")) } else { None },
        name,
        kind,
        addresses,
    })
}

/// An interface is switched on. Of `linux/if.h`.
const IFF_UP: u32 = 1;

fn flags(text: &str) -> u32 {
    let digits = text.trim().trim_start_matches("0x");
    u32::from_str_radix(digits, 16).unwrap_or(0)
}

/// A cable's speed in Mbit/s: the kernel says -1 when it does not know.
fn speed(text: &str) -> Option<u32> {
    text.trim().parse().ok().filter(|speed| *speed > 0)
}

fn condition(kind: Kind, is_up: bool, has_carrier: bool, is_reachable: bool) -> Condition {
    match (is_up, has_carrier, kind) {
        (false, ..) => Condition::Off,
        (true, false, Kind::Wired) => Condition::NoCable,
        (true, false, Kind::WiFi) => Condition::NoNetwork,
        (true, true, _) if is_reachable => Condition::Connected,
        (true, true, _) => Condition::WaitingForAddress,
    }
}

/// Whether clients can use an address. Those that a machine gives itself say that nobody gave it one.
fn is_reachable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// The default routes, of /proc/net/route. Addresses there are in the machine's byte order.
fn routes_v4(text: &str) -> Vec<Route> {
    let route = |line: &str| {
        let mut fields = line.split_ascii_whitespace();
        let interface = fields.next()?.to_owned();
        let mut number = || u32::from_str_radix(fields.next()?, 16).ok();
        let (destination, gateway, _flags) = (number()?, number()?, number()?);
        // Reference count, use, metric.
        let mask = u32::from_str_radix(fields.nth(3)?, 16).ok()?;
        let gateway = Ipv4Addr::from(gateway.to_ne_bytes());
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V4(gateway));
        (destination == 0 && mask == 0).then_some(Route { interface, gateway })
    };
    text.lines().skip(1).filter_map(route).collect()
}

/// The default routes, of /proc/net/ipv6_route; those over loopback are the kernel's way of refusing.
fn routes_v6(text: &str) -> Vec<Route> {
    let address = |text: &str| u128::from_str_radix(text, 16).ok().map(Ipv6Addr::from);
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let [destination, prefix, _, _, gateway, .., interface] = fields.as_slice() else {
            return None;
        };
        let is_default = address(destination)?.is_unspecified() && *prefix == "00";
        let gateway = address(gateway)?;
        let gateway = (!gateway.is_unspecified()).then_some(IpAddr::V6(gateway));
        let interface = (*interface).to_owned();
        (is_default && interface != "lo").then_some(Route { interface, gateway })
    };
    text.lines().filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
        enp3s0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
        enp3s0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
        wg0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n";
    const ROUTES_V6: &str = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        fe800000000000000000000000000001 00000400 00000001 00000000 00000003 enp3s0\n\
        00000000000000000000000000000000 00 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n\
        fe800000000000000000000000000000 40 00000000000000000000000000000000 00 \
        00000000000000000000000000000000 00000100 00000001 00000000 00000001 enp3s0\n";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_way_out_is_found() {
        let v4 = Route { interface: "enp3s0".to_owned(), gateway: "192.168.1.1".parse().ok() };
        assert_eq!(routes_v4(ROUTES), [v4]);
        let v6 = Route { interface: "enp3s0".to_owned(), gateway: "fe80::1".parse().ok() };
        assert_eq!(routes_v6(ROUTES_V6), [v6]);
        for text in ["", "a\nb c d", "x\ny 1 2 3 4 5 6 z", "\u{0}"] {
            assert!(routes_v4(text).is_empty() && routes_v6(text).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn conditions_are_told_in_words() {
        for (kind, is_up, has_carrier, has_address, words) in [
            (Kind::Wired, true, true, true, "Connected"),
            (Kind::Wired, true, true, false, "Waiting for an address"),
            (Kind::Wired, true, false, false, "No cable"),
            // Addresses may stay for a while after the cable is gone.
            (Kind::Wired, true, false, true, "No cable"),
            (Kind::Wired, false, false, false, "Switched off"),
            (Kind::WiFi, false, false, false, "Wi-Fi off"),
            (Kind::WiFi, true, false, false, "Not connected to a Wi-Fi network"),
        ] {
            let condition = condition(kind, is_up, has_carrier, has_address);
            let interface = Interface {
                name: String::new(),
                kind,
                condition,
                speed_mbps: None,
                addresses: Vec::new(),
            };
            assert_eq!(interface.sentence(), words);
        }
        assert_eq!((speed("-1\n"), speed("2500\n"), speed("")), (None, Some(2500), None));
        assert_eq!((flags("0x1003\n") & IFF_UP, flags("0x1002"), flags("")), (1, 0x1002, 0));
        assert!(!is_reachable(&"169.254.3.4".parse().unwrap()));
        assert!(!is_reachable(&"fe80::1".parse().unwrap()));
    }

    #[test]
    fn what_can_be_plugged_in_is_told_apart_from_what_cannot() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let lay = |name: &str, kind: &str, flags: &str, carrier: &str| {
            let at = format!("sys/class/net/{name}");
            write(&format!("{at}/type"), kind);
            write(&format!("{at}/flags"), flags);
            write(&format!("{at}/carrier"), carrier);
            write(&format!("{at}/speed"), "1000\n");
        };
        lay("enp3s0", "1\n", "0x1003\n", "1\n");
        write("sys/class/net/enp3s0/device/x", "");
        lay("wlan0", "1\n", "0x1002\n", "");
        write("sys/class/net/wlan0/device/x", "");
        write("sys/class/net/wlan0/phy80211/x", "");
        lay("docker0", "1\n", "0x1003\n", "1\n");
        lay("lo", "772\n", "0x9\n", "1\n");
        lay("enp4s0", "1\n", "0x1003\n", "1\n");
        write("sys/class/net/enp4s0/device/x", "");
        std::os::unix::fs::symlink("../br0", root.path().join("sys/class/net/enp4s0/master"))
            .unwrap();
        let address: IpAddr = "192.168.1.7".parse().unwrap();
        let addresses = Addresses(
            [("enp3s0".to_owned(), vec![address]), ("br0".to_owned(), vec![address])].into(),
        );
        let found = network(root.path(), &addresses);
        let told: Vec<_> = (found.interfaces.iter())
            .map(|one| (one.name.as_str(), one.kind, one.sentence(), one.speed_mbps))
            .collect();
        let wired = ("enp3s0", Kind::Wired, "Connected", Some(1000));
        let bridged = ("enp4s0", Kind::Wired, "Connected", Some(1000));
        assert_eq!(told, [wired, bridged, ("wlan0", Kind::WiFi, "Wi-Fi off", None)]);
        assert_eq!(found.interfaces[0].addresses, [address]);
        assert_eq!(found.problem(), None);
        let problem = network(root.path(), &Addresses::default()).problem().unwrap();
        assert!(problem.contains("enp4s0: Waiting for an address, wlan0: Wi-Fi off"), "{problem}");
        assert!(Network::default().problem().unwrap().contains("no network interface"));
    }

    #[test]
    fn this_machine_has_loopback() {
        let addresses = Addresses::of_this_machine();
        assert!(addresses.0.values().flatten().any(IpAddr::is_loopback), "{addresses:?}");
    }
}
