//! Addresses of the machine itself, link-local ones, and those of clouds' metadata services, in every form in which an
//! address can be written. A server that others name must not lead there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::nat64;

/// Where a special address leads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Special {
    /// 0.0.0.0/8 and ::, which Linux connects to loopback.
    Unspecified,
    /// 127.0.0.0/8 and ::1.
    Loopback,
    /// 169.254.0.0/16, fe80::/10, and the metadata services of clouds that have other addresses.
    LinkLocal,
}

/// Where an address leads, if one of its forms is special. `prefixes`: those of this network's NAT64, beside the
/// well-known ones.
pub fn of(address: IpAddr, prefixes: &[IpNet]) -> Option<Special> {
    let of_forms = forms(address, prefixes).into_iter().find_map(plain);
    of_forms.or_else(|| match address {
        // A prefix of NAT64 that is not known here.
        IpAddr::V6(v6) => nat64::look_alike(v6, &METADATA_V4).map(|_| Special::LinkLocal),
        IpAddr::V4(_) => None,
    })
}

fn plain(address: IpAddr) -> Option<Special> {
    match address {
        IpAddr::V4(v4) if v4.octets()[0] == 0 => Some(Special::Unspecified),
        IpAddr::V6(v6) if v6.is_unspecified() => Some(Special::Unspecified),
        address if address.is_loopback() => Some(Special::Loopback),
        address if is_link_local(address) => Some(Special::LinkLocal),
        IpAddr::V4(v4) => METADATA_V4.contains(&v4).then_some(Special::LinkLocal),
        IpAddr::V6(v6) => {
            let is_metadata = v6.segments()[..2] == EC2 || METADATA_V6.contains(&v6);
            is_metadata.then_some(Special::LinkLocal)
        }
    }
}

/// Whether an address is link-local, as written: 169.254.0.0/16 or fe80::/10.
pub fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    }
}

/// The metadata service of most clouds.
pub const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);

/// Alibaba Cloud's.
pub const ALIBABA_METADATA: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);

/// Amazon EC2's, over IPv6.
pub const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);

/// These, Azure's agent, and Oracle's older service.
const METADATA_V4: [Ipv4Addr; 4] = [
    METADATA,
    ALIBABA_METADATA,
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];

/// fd00:ec2::/32: the services that Amazon EC2 has for its instances.
const EC2: [u16; 2] = [EC2_METADATA.segments()[0], EC2_METADATA.segments()[1]];

/// The same of Google Cloud, Oracle and Scaleway.
const METADATA_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
];

/// The address, and the IPv4 addresses that it stands for.
pub fn forms(address: IpAddr, prefixes: &[IpNet]) -> Vec<IpAddr> {
    let mut all = vec![address];
    let IpAddr::V6(v6) = address else {
        return all;
    };
    let s = v6.segments();
    let last = Ipv4Addr::from(((u32::from(s[6])) << 16) | u32::from(s[7]));
    let second = Ipv4Addr::from(((u32::from(s[1])) << 16) | u32::from(s[2]));
    let ends_in_v4 = match s {
        // IPv4-compatible (RFC 4291, 2.5.5.1); ::1 is none.
        [0, 0, 0, 0, 0, 0, high, _] => high > 0xff,
        // IPv4-mapped (RFC 4291, 2.5.5.2), IPv4-translated (RFC 2765, 2.1), ISATAP (RFC 5214, 6.1).
        _ => matches!(
            s,
            [0, 0, 0, 0, 0, 0xffff, ..]
                | [0, 0, 0, 0, 0xffff, 0, ..]
                | [_, _, _, _, 0 | 0x200, 0x5efe, ..]
        ),
    };
    let mut v4s: Vec<Ipv4Addr> = ends_in_v4.then_some(last).into_iter().collect();
    match s {
        // 6to4 (RFC 3056, 2).
        [0x2002, ..] => v4s.push(second),
        // Teredo (RFC 4380, 4): the server's address, and the client's with its bits inverted.
        [0x2001, 0, server, more, ..] => v4s.extend([
            Ipv4Addr::from((u32::from(server) << 16) | u32::from(more)),
            Ipv4Addr::from(!u32::from(last)),
        ]),
        // NAT64 within a network (RFC 8215), whose prefix has a length of the network's own. Read with a wrong one, an
        // address begins with zeros.
        [0x64, 0xff9b, 1, ..] => {
            let lengths = [48, 56, 64, 96].into_iter();
            let read = lengths.filter_map(|length| nat64::embedded(v6, length));
            v4s.extend(read.filter(|v4| v4.octets()[0] != 0));
        }
        _ => {}
    }
    let well_known = nat64::well_known();
    let nets = prefixes.iter().chain([&well_known]);
    let behind = nets.filter(|net| net.contains(&address));
    v4s.extend(behind.filter_map(|net| nat64::embedded(v6, net.prefix_len())));
    all.extend(v4s.into_iter().map(IpAddr::V4));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_special_in_each_of_its_forms() {
        let prefixes = [
            "2001:db8:64::/96".parse().unwrap(),
            "2001:db8:65::/48".parse().unwrap(),
        ];
        for (text, special) in [
            ("127.0.0.1", Some(Special::Loopback)),
            ("127.255.1.2", Some(Special::Loopback)),
            ("::1", Some(Special::Loopback)),
            ("0.0.0.0", Some(Special::Unspecified)),
            ("0.1.2.3", Some(Special::Unspecified)),
            ("::", Some(Special::Unspecified)),
            ("169.254.169.254", Some(Special::LinkLocal)),
            ("169.254.1.2", Some(Special::LinkLocal)),
            ("100.100.100.200", Some(Special::LinkLocal)),
            ("168.63.129.16", Some(Special::LinkLocal)),
            ("fe80::1", Some(Special::LinkLocal)),
            ("fd00:ec2::254", Some(Special::LinkLocal)),
            ("fd00:ec2::23", Some(Special::LinkLocal)),
            ("fd20:ce::254", Some(Special::LinkLocal)),
            ("::ffff:127.0.0.1", Some(Special::Loopback)),
            ("::ffff:169.254.169.254", Some(Special::LinkLocal)),
            ("::ffff:0:127.0.0.1", Some(Special::Loopback)),
            ("::127.0.0.1", Some(Special::Loopback)),
            ("::169.254.169.254", Some(Special::LinkLocal)),
            ("64:ff9b::169.254.169.254", Some(Special::LinkLocal)),
            ("64:ff9b::127.0.0.1", Some(Special::Loopback)),
            ("64:ff9b:1::169.254.169.254", Some(Special::LinkLocal)),
            ("64:ff9b:1:a9fe:a9:fe00::", Some(Special::LinkLocal)),
            ("2001:db8:64::127.0.0.1", Some(Special::Loopback)),
            ("2001:db8:65:7f00:0:100::", Some(Special::Loopback)),
            ("2002:a9fe:a9fe::1", Some(Special::LinkLocal)),
            ("2002:7f00:1::", Some(Special::Loopback)),
            ("2001:0:7f00:1::", Some(Special::Loopback)),
            ("2001:0:4136:e378::5601:5601", Some(Special::LinkLocal)),
            ("2001:db8::5efe:127.0.0.1", Some(Special::Loopback)),
            // A prefix that is not known here.
            ("2001:db8:66::169.254.169.254", Some(Special::LinkLocal)),
            ("2001:db8:66::127.0.0.1", None),
            ("10.0.0.1", None),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            ("::2", None),
            ("64:ff9b::192.0.2.1", None),
            ("64:ff9b:1::192.0.2.1", None),
            ("2002:c000:201::1", None),
            ("fd00:ec3::254", None),
        ] {
            assert_eq!(of(text.parse().unwrap(), &prefixes), special, "{text}");
        }
    }
}
