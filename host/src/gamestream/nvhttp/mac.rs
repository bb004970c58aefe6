//! The hardware address that wakes this machine: that of the interface a request came in on.
//!
//! The kernel's own tables are read as text: IPv6 addresses stand there with their interface, for IPv4 the routing
//! table says which interface serves the address's network. Interfaces without a hardware address give none.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

/// The hardware address of the interface that has this address.
// spec: gamestream 1.2
pub(super) fn of_address(local: IpAddr) -> Option<[u8; 6]> {
    let interface = match local.to_canonical() {
        IpAddr::V4(address) => interface_v4(&fs::read_to_string("/proc/net/route").ok()?, address),
        IpAddr::V6(address) => {
            interface_v6(&fs::read_to_string("/proc/net/if_inet6").ok()?, address)
        }
    }?;
    // The name came from the kernel; it has no slash all the same.
    let file = Path::new("/sys/class/net").join(interface).join("address");
    parse_mac(&fs::read_to_string(file).ok()?)
}

/// The interface of the most specific route to the address.
fn interface_v4(routes: &str, address: Ipv4Addr) -> Option<String> {
    if address.is_loopback() {
        return None;
    }
    // The kernel prints addresses as numbers of this machine's byte order.
    let number = |text: &str| {
        u32::from_str_radix(text, 16).ok().map(|bits| u32::from_be_bytes(bits.to_ne_bytes()))
    };
    routes
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_ascii_whitespace().collect();
            let [name, network, _, _, _, _, _, mask, ..] = fields[..] else { return None };
            let (network, mask) = (number(network)?, number(mask)?);
            (address.to_bits() & mask == network).then_some((mask, name))
        })
        .max_by_key(|(mask, _)| *mask)
        .map(|(_, name)| name.to_owned())
}

fn interface_v6(addresses: &str, address: Ipv6Addr) -> Option<String> {
    addresses.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        let (digits, name) = (fields.first()?, fields.last()?);
        let bits = u128::from_str_radix(digits, 16).ok()?;
        (Ipv6Addr::from_bits(bits) == address && fields.len() == 6).then(|| (*name).to_owned())
    })
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.trim().split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    (parts.next().is_none() && mac != [0; 6]).then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_endian = "little")]
    #[test]
    fn the_most_specific_route_names_the_interface() {
        let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
            wlan0\t00000000\t0101A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n\
            eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
            short\t0001A8C0\n\
            odd\tnothex\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n";
        let name = |text: &str| interface_v4(routes, text.parse().unwrap());
        assert_eq!(name("192.168.1.20").as_deref(), Some("eth0"));
        assert_eq!(name("10.9.8.7").as_deref(), Some("wlan0"));
        assert_eq!(name("127.0.0.1"), None);
        assert_eq!(interface_v4("", Ipv4Addr::new(10, 0, 0, 1)), None);
    }

    #[test]
    fn an_ipv6_address_stands_with_its_interface() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
            fd00000000000000021122fffe334455 02 40 00 80     eth0\nrubbish\n";
        let name = |text: &str| interface_v6(table, text.parse().unwrap());
        assert_eq!(name("fd00::211:22ff:fe33:4455").as_deref(), Some("eth0"));
        assert_eq!(name("fd00::1"), None);
    }

    #[test]
    fn only_six_bytes_that_are_not_all_zero_are_a_hardware_address() {
        assert_eq!(parse_mac("02:00:ab:CD:ef:09\n"), Some([2, 0, 0xab, 0xcd, 0xef, 9]));
        for wrong in ["00:00:00:00:00:00", "", "02:00:ab", "02:00:ab:cd:ef:09:10", "xx:0:0:0:0:1"] {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
