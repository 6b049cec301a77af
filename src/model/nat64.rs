//! NAT64 addresses: how an IPv4 address is embedded in an IPv6 one (RFC 6052), and which prefixes a DNS64 server
//! reveals (RFC 7050).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv6Net};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name that has IPv4 addresses only, so that an IPv6 address of it is a translator's (RFC 7050, 8).
pub const KNOWN_NAME: &str = "ipv4only.arpa.";

/// The IPv4 addresses of [`KNOWN_NAME`].
const KNOWN: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 170), Ipv4Addr::new(192, 0, 0, 171)];

/// The lengths that a prefix may have (RFC 6052, 2.2).
pub const LENGTHS: [u8; 6] = [32, 40, 48, 56, 64, 96];

/// The well-known prefix of NAT64 (RFC 6052, 2.1).
pub fn well_known() -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0),
        96,
    ))
}

/// What the name servers report about their prefix of NAT64 (RFC 7050).
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Nat64Prefixes {
    /// The prefixes; empty if the name servers synthesize no addresses.
    #[schemars(with = "Vec<String>")]
    pub prefixes: Vec<IpNet>,
    /// Why they are unknown; absent if the name servers answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// The IPv4 address that an address embeds behind a prefix of this length. `None` for another length, and if the
/// reserved octet is not zero (RFC 6052, 2.2).
pub fn embedded(address: Ipv6Addr, length: u8) -> Option<Ipv4Addr> {
    let octets = address.octets();
    let at: [usize; 4] = match length {
        32 => [4, 5, 6, 7],
        40 => [5, 6, 7, 9],
        48 => [6, 7, 9, 10],
        56 => [7, 9, 10, 11],
        64 => [9, 10, 11, 12],
        96 => [12, 13, 14, 15],
        _ => return None,
    };
    // A /96 may have anything there: it is a part of the prefix.
    let is_formed = length == 96 || octets[8] == 0;
    is_formed.then(|| Ipv4Addr::from(at.map(|index| octets[index])))
}

/// The IPv4 address in an address of one of these prefixes, and the prefix.
pub fn behind<'a>(
    address: Ipv6Addr,
    prefixes: impl IntoIterator<Item = &'a IpNet>,
) -> Option<(Ipv4Addr, IpNet)> {
    prefixes
        .into_iter()
        .filter(|net| net.contains(&IpAddr::V6(address)))
        .filter_map(|net| Some((embedded(address, net.prefix_len())?, *net)))
        .max_by_key(|(_, net)| net.prefix_len())
}

/// The prefix with which an address would embed one of these IPv4 addresses. A host's own IPv6 address may look
/// like that too.
pub fn look_alike(address: Ipv6Addr, of: &[Ipv4Addr]) -> Option<(Ipv4Addr, IpNet)> {
    LENGTHS.into_iter().rev().find_map(|length| {
        let v4 = embedded(address, length).filter(|v4| of.contains(v4))?;
        let net = Ipv6Net::new(address, length).ok()?.trunc();
        Some((v4, IpNet::V6(net)))
    })
}

/// The prefixes that the addresses of [`KNOWN_NAME`] reveal.
pub fn prefixes(addresses: &[IpAddr]) -> Vec<IpNet> {
    let mut all: Vec<IpNet> = addresses
        .iter()
        .filter_map(|address| match address {
            IpAddr::V6(v6) => Some(look_alike(*v6, &KNOWN)?.1),
            IpAddr::V4(_) => None,
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v6(text: &str) -> Ipv6Addr {
        text.parse().unwrap()
    }

    /// The table of RFC 6052, 2.4.
    const TABLE: [(&str, u8); 6] = [
        ("2001:db8:c000:221::", 32),
        ("2001:db8:1c0:2:21::", 40),
        ("2001:db8:122:c000:2:2100::", 48),
        ("2001:db8:122:3c0:0:221::", 56),
        ("2001:db8:122:344:c0:2:2100::", 64),
        ("2001:db8:122:344::192.0.2.33", 96),
    ];

    #[test]
    fn each_length_of_the_rfc_is_read() {
        let own = Ipv4Addr::new(192, 0, 2, 33);
        for (address, length) in TABLE {
            assert_eq!(embedded(v6(address), length), Some(own), "{address}");
            let (found, net) = look_alike(v6(address), &[own]).unwrap();
            assert_eq!((found, net.prefix_len()), (own, length), "{address}");
            assert!(look_alike(v6(address), &[Ipv4Addr::new(192, 0, 2, 34)]).is_none());
        }
        assert_eq!(embedded(v6("2001:db8:122:344::192.0.2.33"), 88), None);
        // The reserved octet.
        assert_eq!(embedded(v6("2001:db8:122:344:1c0:2:2100::"), 64), None);
        assert!(embedded(v6("2001:db8:122:344:1c0:2:192.0.2.33"), 96).is_some());
    }

    #[test]
    fn a_prefix_is_revealed_by_the_known_name_alone() {
        let of = |address: &str| prefixes(&[address.parse().unwrap()]);
        assert_eq!(of("64:ff9b::c000:aa")[0].to_string(), "64:ff9b::/96");
        assert_eq!(of("2a0a:64::192.0.0.171")[0].to_string(), "2a0a:64::/96");
        assert_eq!(of("2a0a:64:c000:aa::")[0].to_string(), "2a0a:64::/32");
        assert!(of("2a0a:64::192.0.0.172").is_empty());
        assert!(of("192.0.0.170").is_empty());
    }

    #[test]
    fn an_address_is_read_with_the_prefix_that_has_it() {
        let nets: Vec<IpNet> = ["2a0a:64::/96", "2a0a:65::/32"]
            .map(|net| net.parse().unwrap())
            .to_vec();
        let of = |address: &str| behind(v6(address), &nets).map(|(v4, _)| v4.to_string());
        assert_eq!(of("2a0a:64::2d3c:4614").as_deref(), Some("45.60.70.20"));
        assert_eq!(of("2a0a:65:2d3c:4614::").as_deref(), Some("45.60.70.20"));
        assert_eq!(of("2a0a:66::2d3c:4614"), None);
    }
}
