//! Which router is asked.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};

/// Where Linux tells its IPv4 routes.
const ROUTES: &str = "/proc/net/route";

/// The flag of a route that leads to a router.
const VIA_ROUTER: u16 = 2;

/// Where routers with UPnP are called.
const SSDP: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(239, 255, 255, 250)), 1900);

/// A router that may send connections on to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Itself, for PCP and NAT-PMP.
    pub router: Ipv4Addr,
    /// Where it is called by UPnP: a group of the local network, or one address.
    pub ssdp: SocketAddr,
}

impl Gateway {
    /// That of the default route, if it has a private address: others translate none.
    pub(super) fn of_system() -> Option<Self> {
        let router = default_router(&fs::read_to_string(ROUTES).ok()?)?;
        router.is_private().then_some(Self { router, ssdp: SSDP })
    }
}

/// The router of the default route with the least metric.
fn default_router(table: &str) -> Option<Ipv4Addr> {
    table.lines().skip(1).filter_map(default_route).min().map(|(_, router)| router)
}

/// Metric and router of a line, if it is a default route.
fn default_route(line: &str) -> Option<(u32, Ipv4Addr)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, to, router, flags, _, _, metric, mask, ..] = fields[..] else { return None };
    let flags = u16::from_str_radix(flags, 16).ok()?;
    let is_default = [to, mask].iter().all(|word| *word == "00000000");
    if !is_default || flags & VIA_ROUTER == 0 {
        return None;
    }
    // The address in the order of its bytes in memory, read as a number.
    let router = u32::from_str_radix(router, 16).ok()?.to_ne_bytes();
    Some((metric.parse().ok()?, router.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_route_leads_to_the_router() {
        let head =
            "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        let word = |ip: [u8; 4]| format!("{:08X}", u32::from_ne_bytes(ip));
        let line = |to: &str, router, flags, metric, mask: &str| {
            format!("eth0\t{to}\t{}\t{flags}\t0\t0\t{metric}\t{mask}\t0\t0\t0\n", word(router))
        };
        let none = "00000000";
        let near = line(none, [192, 168, 1, 1], "0003", 100, none);
        let far = line(none, [10, 0, 0, 1], "0003", 600, none);
        let lan = line(&word([192, 168, 1, 0]), [0; 4], "0001", 100, &word([255, 255, 255, 0]));
        let link = line(none, [0; 4], "0001", 1, none);
        let table = [
            ("one", format!("{head}{lan}{near}"), Some([192, 168, 1, 1])),
            ("least metric", format!("{head}{far}{near}"), Some([192, 168, 1, 1])),
            ("none", format!("{head}{lan}"), None),
            ("a link is no router", format!("{head}{link}"), None),
            ("nothing", String::new(), None),
            ("odd", format!("{head}eth0 x y\n"), None),
        ];
        for (name, text, expected) in table {
            assert_eq!(default_router(&text), expected.map(Ipv4Addr::from), "{name}");
        }
    }
}
