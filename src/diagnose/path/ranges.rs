//! Addresses that are not public, from the IANA registries of special-purpose addresses (RFC 6890;
//! iana-ipv4-special-registry, iana-ipv6-special-registry), and the ranges of cloud providers' own services.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;

use crate::model::nat64;
use crate::model::network::Provider;
use Purpose::{LinkLocal, Loopback, Nat64, NoHost, Private};

/// What a special-purpose range is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    Loopback,
    LinkLocal,
    /// Private networks: RFC 1918, unique local addresses, the shared space of RFC 6598, and
    /// benchmarking, which providers use for endpoints.
    Private,
    /// The well-known prefix of NAT64.
    Nat64,
    /// Not for hosts: documentation, reserved, multicast, unspecified.
    NoHost,
}

/// A row of the IANA registries.
pub(super) struct Special {
    pub(super) net: &'static str,
    pub(super) name: &'static str,
    pub(super) purpose: Purpose,
}

const fn row(net: &'static str, name: &'static str, purpose: Purpose) -> Special {
    Special { net, name, purpose }
}

/// Ranges that are not globally reachable, and those of NAT64. More specific ones come first.
const SPECIAL: &[Special] = &[
    row("0.0.0.0/8", "\"this network\" (RFC 791)", NoHost),
    row("10.0.0.0/8", "private use (RFC 1918)", Private),
    row("100.64.0.0/10", "shared address space (RFC 6598)", Private),
    row("127.0.0.0/8", "loopback (RFC 1122)", Loopback),
    row("169.254.0.0/16", "link-local (RFC 3927)", LinkLocal),
    row("172.16.0.0/12", "private use (RFC 1918)", Private),
    row(
        "192.0.0.0/24",
        "IETF protocol assignments (RFC 6890)",
        NoHost,
    ),
    row("192.0.2.0/24", "documentation (RFC 5737)", NoHost),
    row("192.168.0.0/16", "private use (RFC 1918)", Private),
    row("198.18.0.0/15", "benchmarking (RFC 2544)", Private),
    row("198.51.100.0/24", "documentation (RFC 5737)", NoHost),
    row("203.0.113.0/24", "documentation (RFC 5737)", NoHost),
    row("224.0.0.0/4", "multicast (RFC 1112)", NoHost),
    row("240.0.0.0/4", "reserved (RFC 1112)", NoHost),
    row("::1/128", "loopback (RFC 4291)", Loopback),
    row("::/128", "unspecified (RFC 4291)", NoHost),
    row("64:ff9b::/96", "NAT64 (RFC 6052)", Nat64),
    row("64:ff9b:1::/48", "local-use NAT64 (RFC 8215)", Nat64),
    row("100::/64", "discard-only (RFC 6666)", NoHost),
    row("2001:2::/48", "benchmarking (RFC 5180)", Private),
    row("2001:10::/28", "ORCHID (RFC 4843)", NoHost),
    row("2001:db8::/32", "documentation (RFC 3849)", NoHost),
    row("3fff::/20", "documentation (RFC 9637)", NoHost),
    row("5f00::/16", "SRv6 SIDs (RFC 9602)", NoHost),
    row("fc00::/7", "unique local (RFC 4193)", Private),
    row("fe80::/10", "link-local (RFC 4291)", LinkLocal),
    row("ff00::/8", "multicast (RFC 4291)", NoHost),
];

/// The row for an address; `None` if it is public.
pub(super) fn special(address: IpAddr) -> Option<&'static Special> {
    SPECIAL.iter().find(|row| contains(row.net, address))
}

/// Whether the address is private, link-local or loopback: not routed on the Internet.
pub fn is_private(address: IpAddr) -> bool {
    let purpose = special(address).map(|row| row.purpose);
    matches!(purpose, Some(Private | LinkLocal | Loopback))
}

fn contains(net: &str, address: IpAddr) -> bool {
    net.parse::<IpNet>()
        .is_ok_and(|net| net.contains(&address.to_canonical()))
}

/// A range of a provider's own services.
pub(super) struct ServiceRange {
    net: &'static str,
    pub(super) of: &'static str,
    /// How sure it is that the address belongs to the provider's service, not to a customer's host; 0 to 1.
    pub(super) score: f64,
}

const fn range(net: &'static str, of: &'static str, score: f64) -> ServiceRange {
    ServiceRange { net, of, score }
}

/// Huawei Cloud: DNS, NTP and OBS are in 100.125.0.0/16, VPC endpoints in 198.19.128.0/17, and the whole of
/// 100.64.0.0/10 is a local route of every VPC.
const HUAWEI: &[ServiceRange] = &[
    range("100.125.0.0/16", "Huawei Cloud's own services", 0.95),
    range("198.19.128.0/17", "Huawei Cloud's VPC endpoints", 0.95),
    range(
        "100.64.0.0/10",
        "Huawei Cloud's services, with a local route in every VPC",
        0.75,
    ),
];

const ALIBABA: &[ServiceRange] = &[
    range("100.100.0.0/16", "Alibaba Cloud's own services", 0.9),
    range("100.64.0.0/10", "Alibaba Cloud's services", 0.8),
];

/// The range of the provider's services that contains the address.
pub(super) fn service(provider: Provider, address: IpAddr) -> Option<&'static ServiceRange> {
    let ranges = match provider {
        Provider::Huawei | Provider::Otc => HUAWEI,
        Provider::Alibaba => ALIBABA,
        _ => return None,
    };
    ranges.iter().find(|range| contains(range.net, address))
}

/// Whether the address is in a range that only Huawei Cloud's own names resolve to.
pub(super) fn is_huawei_service(address: IpAddr) -> bool {
    HUAWEI[..2].iter().any(|range| contains(range.net, address))
}

/// Whether a name is that of a cloud service that may be reached through a gateway endpoint.
pub(super) fn is_provider_service(host: &str) -> bool {
    let host = host.to_ascii_lowercase();
    [
        ".myhuaweicloud.com",
        ".amazonaws.com",
        ".aliyuncs.com",
        ".azurecr.io",
        ".blob.core.windows.net",
        ".pkg.dev",
        ".gcr.io",
    ]
    .iter()
    .any(|suffix| host.ends_with(suffix))
}

/// The IPv4 address in an address with NAT64's well-known prefix (RFC 6052, 2.1).
pub(super) fn nat64(address: IpAddr) -> Option<Ipv4Addr> {
    match address {
        IpAddr::V6(v6) => nat64::behind(v6, [&nat64::well_known()]).map(|(v4, _)| v4),
        IpAddr::V4(_) => None,
    }
}

/// Whether the address is in the range that only translators of a network use (RFC 8215).
pub(super) fn is_local_nat64(address: IpAddr) -> bool {
    contains("64:ff9b:1::/48", address)
}

/// The range around an address, for the suggested settings.
pub(super) fn neighbourhood(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_row_parses_and_is_reached() {
        for row in SPECIAL {
            let net: IpNet = row.net.parse().unwrap();
            assert_eq!(special(net.network()).unwrap().net, row.net);
        }
    }

    #[test]
    fn the_edges_of_ranges_are_right() {
        for (address, want) in [
            ("9.255.255.255", None),
            ("10.0.0.0", Some(Purpose::Private)),
            ("100.63.255.255", None),
            ("100.127.255.255", Some(Purpose::Private)),
            ("100.128.0.0", None),
            ("172.15.255.255", None),
            ("172.31.255.255", Some(Purpose::Private)),
            ("172.32.0.0", None),
            ("198.17.255.255", None),
            ("198.19.255.255", Some(Purpose::Private)),
            ("198.20.0.0", None),
            ("52.0.0.1", None),
            ("::ffff:10.0.0.1", Some(Purpose::Private)),
            ("2600:1f18::1", None),
            ("2001:db8::1", Some(Purpose::NoHost)),
            ("fdff::1", Some(Purpose::Private)),
            ("fe00::1", None),
            ("64:ff9b::a00:1", Some(Purpose::Nat64)),
        ] {
            assert_eq!(special(ip(address)).map(|s| s.purpose), want, "{address}");
        }
    }

    #[test]
    fn huaweis_ranges_come_with_how_sure_they_are() {
        let score = |address| service(Provider::Huawei, ip(address)).map(|range| range.score);
        assert_eq!(score("100.125.1.250"), Some(0.95));
        assert_eq!(score("198.19.128.1"), Some(0.95));
        assert_eq!(score("198.19.127.1"), None, "not of the endpoints");
        assert_eq!(score("100.70.1.1"), Some(0.75));
        assert_eq!(score("10.0.0.1"), None);
        assert!(service(Provider::Aws, ip("100.125.1.250")).is_none());
    }

    #[test]
    fn the_address_behind_nat64_is_seen() {
        assert_eq!(
            nat64(ip("64:ff9b::22ed:1")),
            Some(Ipv4Addr::new(0x22, 0xed, 0, 1))
        );
        assert_eq!(nat64(ip("2600::1")), None);
        assert_eq!(nat64(ip("10.0.0.1")), None);
    }
}
