//! The order in which a client tries the addresses of a name (RFC 6724, 6).
//!
//! The rules and their gaps are Go's (`net/addrselect.go`): no deprecated or home addresses (rules
//! 3, 4), no encapsulation (7), and the longest prefix (9) counts between IPv6 addresses only.

use std::cmp::Reverse;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::own;

/// Sorts addresses with this machine's routes and source addresses. Sends nothing.
pub fn order(addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    if addresses.len() < 2 {
        return addresses;
    }
    sort(
        addresses
            .into_iter()
            .map(|address| (address, source_for(address)))
            .collect(),
    )
}

/// The source address that the kernel would use for a destination; `None` if there is no route.
///
/// connect(2) on a UDP socket chooses the route and sends no packet; the port does not matter.
pub fn source_for(destination: IpAddr) -> Option<IpAddr> {
    let socket = own::blocking_udp_socket((unspecified(destination), 0).into()).ok()?;
    socket.connect((destination, 9)).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// The unspecified address of the same family, to bind to.
pub(super) fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// Sorts destinations, each with its source address. Equal ones keep their order (rule 10).
fn sort(mut pairs: Vec<(IpAddr, Option<IpAddr>)>) -> Vec<IpAddr> {
    pairs.sort_by_key(|(destination, source)| rank(*destination, *source));
    pairs
        .into_iter()
        .map(|(destination, _)| destination)
        .collect()
}

/// Rules 1, 2, 5, 6, 8 and 9 as a key: smaller is better.
type Rank = (bool, bool, bool, Reverse<u8>, u8, Reverse<u32>);

fn rank(destination: IpAddr, source: Option<IpAddr>) -> Rank {
    let Some(source) = source else {
        // Unreachable destinations are not compared further.
        return (true, true, true, Reverse(0), 0, Reverse(0));
    };
    let (destination, source) = (destination.to_canonical(), source.to_canonical());
    let (precedence, label) = policy(destination);
    let scope = scope(destination);
    (
        false,
        scope != self::scope(source),
        label != policy(source).1,
        Reverse(precedence),
        scope,
        Reverse(common_prefix(source, destination)),
    )
}

/// Precedence and label (RFC 6724, 2.1). IPv4 counts as IPv4-mapped.
fn policy(address: IpAddr) -> (u8, u8) {
    let IpAddr::V6(address) = address else {
        return (35, 4);
    };
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 1] => (50, 0),
        [0, 0, 0, 0, 0, 0xffff, _, _] => (35, 4),
        [0, 0, 0, 0, 0, 0, _, _] => (1, 3),
        [0x2001, 0, ..] => (5, 5),
        [0x2002, ..] => (30, 2),
        [0x3ffe, ..] => (1, 12),
        [first, ..] if first & 0xffc0 == 0xfec0 => (1, 11),
        [first, ..] if first & 0xfe00 == 0xfc00 => (3, 13),
        _ => (40, 1),
    }
}

/// Scopes of RFC 6724, 3.1 and 3.2; the numbers are those of multicast scopes (RFC 4291, 2.7).
fn scope(address: IpAddr) -> u8 {
    match address {
        _ if address.is_loopback() => LINK_LOCAL,
        IpAddr::V4(v4) if v4.is_link_local() => LINK_LOCAL,
        IpAddr::V4(_) => GLOBAL,
        IpAddr::V6(v6) => match v6.segments()[0] {
            first if first & 0xffc0 == 0xfe80 => LINK_LOCAL,
            first if first & 0xff00 == 0xff00 => v6.octets()[1] & 0xf,
            first if first & 0xffc0 == 0xfec0 => SITE_LOCAL,
            _ => GLOBAL,
        },
    }
}

/// Leading bits that two IPv6 addresses share, out of the first 64 (RFC 6724, 2.2); 0 for other pairs.
fn common_prefix(a: IpAddr, b: IpAddr) -> u32 {
    let (IpAddr::V6(a), IpAddr::V6(b)) = (a, b) else {
        return 0;
    };
    (a.to_bits() ^ b.to_bits()).leading_zeros().min(64)
}

const LINK_LOCAL: u8 = 0x2;
const SITE_LOCAL: u8 = 0x5;
const GLOBAL: u8 = 0xe;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn destinations_come_in_the_order_of_the_rfc() {
        // (destination, source) in the expected order. The first five are from RFC 6724, 10.2.
        let cases: [(&str, &[(&str, &str)]); 10] = [
            (
                "prefer matching scope",
                &[
                    ("2001:db8:1::1", "2001:db8:1::2"),
                    ("198.51.100.121", "169.254.13.78"),
                ],
            ),
            (
                "prefer matching scope",
                &[
                    ("198.51.100.121", "198.51.100.117"),
                    ("2001:db8:1::1", "fe80::1"),
                ],
            ),
            (
                "prefer higher precedence",
                &[("2001:db8:1::1", "2001:db8:1::2"), ("10.1.2.3", "10.1.2.4")],
            ),
            (
                "prefer smaller scope",
                &[("fe80::1", "fe80::2"), ("2001:db8:1::1", "2001:db8:1::2")],
            ),
            (
                "prefer matching label",
                &[
                    ("2002:c633:6401::1", "2002:c633:6401::2"),
                    ("2001:db8:1::1", "2002:c633:6401::2"),
                ],
            ),
            (
                "avoid what can't be reached",
                &[("10.0.3.9", "10.0.1.10"), ("2001:db8:1::1", "")],
            ),
            (
                "IPv4 before unique local IPv6 with a global source",
                &[("10.0.3.9", "10.0.1.10"), ("fd00::9", "2001:db8::2")],
            ),
            (
                "IPv4 before unique local IPv6 by precedence",
                &[("10.0.3.9", "10.0.1.10"), ("fd00::9", "fd00::1")],
            ),
            (
                "longest prefix",
                &[
                    ("2001:db8:1::1", "2001:db8:1::2"),
                    ("2001:db8:8000::1", "2001:db8:1::2"),
                ],
            ),
            (
                "loopback IPv6 first",
                &[("::1", "::1"), ("127.0.0.1", "127.0.0.1")],
            ),
        ];
        for (why, wanted) in cases {
            let want: Vec<IpAddr> = wanted.iter().map(|(d, _)| ip(d)).collect();
            let mut pairs: Vec<_> = wanted
                .iter()
                .map(|(d, s)| (ip(d), (!s.is_empty()).then(|| ip(s))))
                .collect();
            assert_eq!(sort(pairs.clone()), want, "{why}");
            pairs.reverse();
            assert_eq!(sort(pairs), want, "{why}, backwards");
        }
    }

    #[test]
    fn equals_keep_the_order_of_the_answer() {
        // No longest prefix between IPv4 addresses: 10/8 is not compared with 23/8.
        let answer = [
            "54.83.193.112",
            "184.72.238.214",
            "23.23.172.185",
            "75.101.148.21",
        ]
        .map(ip);
        let pairs = answer.map(|d| (d, Some(ip("10.2.3.4"))));
        assert_eq!(sort(pairs.to_vec()), answer);
        let unreachable = ["2001:db8::1", "10.0.0.1", "::1"].map(ip);
        assert_eq!(sort(unreachable.map(|d| (d, None)).to_vec()), unreachable);
    }

    #[test]
    fn scopes_labels_and_prefixes_are_those_of_the_tables() {
        for (address, want) in [
            ("127.0.0.1", 0x2),
            ("::1", 0x2),
            ("169.254.1.2", 0x2),
            ("fe80::1", 0x2),
            ("fec0::1", 0x5),
            ("8.8.8.8", 0xe),
            ("10.0.0.1", 0xe),
            ("2001:db8::1", 0xe),
            ("ff02::", 0x2),
            ("ff04::", 0x4),
            ("ff0e::", 0xe),
        ] {
            assert_eq!(scope(ip(address)), want, "{address}");
        }
        for (address, want) in [
            ("127.0.0.1", (35, 4)),
            ("::ffff:10.0.0.1", (35, 4)),
            ("::1", (50, 0)),
            ("2601:645::1", (40, 1)),
            ("2002::ab12", (30, 2)),
            ("2001::1", (5, 5)),
            ("2001:db8::1", (40, 1)),
            ("fd00::1", (3, 13)),
            ("::2", (1, 3)),
            ("fec0::1", (1, 11)),
            ("3ffe::1", (1, 12)),
        ] {
            assert_eq!(policy(ip(address)), want, "{address}");
        }
        for (a, b, want) in [
            ("fe80::1", "fe80::2", 64),
            ("fe81::1", "fe80::2", 15),
            ("127.0.0.1", "fe80::1", 0),
            ("1.2.3.4", "1.2.3.4", 0),
        ] {
            assert_eq!(common_prefix(ip(a), ip(b)), want, "{a} {b}");
        }
    }

    #[test]
    fn loopback_is_reached_from_loopback() {
        assert_eq!(source_for(ip("127.0.0.1")), Some(ip("127.0.0.1")));
        assert_eq!(order(vec![ip("127.0.0.1")]), [ip("127.0.0.1")]);
        let two = vec![ip("127.0.0.2"), ip("127.0.0.1")];
        assert_eq!(order(two.clone()), two);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_made_up(pairs in prop::collection::vec((any::<IpAddr>(), any::<Option<IpAddr>>()), 0..20)) {
            let mut before: Vec<IpAddr> = pairs.iter().map(|(d, _)| *d).collect();
            let mut after = sort(pairs);
            before.sort();
            after.sort();
            prop_assert_eq!(before, after);
        }
    }
}
