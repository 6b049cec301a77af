//! The kernel's devices, addresses and routes (rtnetlink(7)). Reading them needs no privilege.
//!
//! The only module that uses the netlink crates, whose major versions change often.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use ipnet::IpNet;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric,
    RouteProtocol, RouteType,
};
use netlink_packet_route::rule::RuleAttribute;
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use tokio_util::task::AbortOnDropHandle;

use crate::model::network::{Link, Route, RouteLookup, RouteOutcome};
use crate::own;

/// A netlink connection to the kernel, which closes when this is dropped.
#[derive(Debug)]
pub struct Netlink {
    handle: Handle,
    _task: AbortOnDropHandle<()>,
    links: BTreeMap<u32, Link>,
}

/// The kernel answers at once; a sandbox that drops the request must not delay a check.
const WAIT: Duration = Duration::from_millis(500);

/// Nodes with a route for each pod have thousands; the first ones show how the network is built.
const MAX_ROUTES: usize = 64;

impl Netlink {
    /// Opens the connection, and reads the devices with their addresses.
    ///
    /// # Errors
    /// If netlink is not available, or does not answer within 500 ms.
    pub async fn open() -> io::Result<Self> {
        let (connection, handle, _) = own::socket(rtnetlink::new_connection)?;
        let mut netlink = Self {
            handle,
            _task: AbortOnDropHandle::new(tokio::spawn(connection)),
            links: BTreeMap::new(),
        };
        netlink.links = bounded(netlink.read_links()).await?;
        Ok(netlink)
    }

    /// The network devices at the time of [`Self::open`], with their addresses.
    pub fn links(&self) -> Vec<Link> {
        self.links.values().cloned().collect()
    }

    async fn read_links(&self) -> Result<BTreeMap<u32, Link>, rtnetlink::Error> {
        let mut links = BTreeMap::new();
        let mut masters = Vec::new();
        let mut devices = self.handle.link().get().execute();
        while let Some(message) = devices.try_next().await? {
            let index = message.header.index;
            links.insert(index, link(&message));
            masters.extend(message.attributes.iter().find_map(|attribute| {
                let LinkAttribute::Controller(master) = attribute else {
                    return None;
                };
                Some((index, *master))
            }));
        }
        for (part, master) in masters {
            let name = links.get(&master).map(|master: &Link| master.name.clone());
            if let Some(link) = links.get_mut(&part) {
                link.master = name;
            }
        }
        let mut addresses = self.handle.address().get().execute();
        while let Some(message) = addresses.try_next().await? {
            let mut found = None;
            for attribute in &message.attributes {
                match attribute {
                    // For a point-to-point device, `Address` is the remote end.
                    AddressAttribute::Local(address) => found = Some(*address),
                    AddressAttribute::Address(address) => {
                        found.get_or_insert(*address);
                    }
                    _ => {}
                }
            }
            let network =
                found.and_then(|address| IpNet::new(address, message.header.prefix_len).ok());
            if let (Some(network), Some(link)) = (network, links.get_mut(&message.header.index)) {
                link.addresses.push(network);
            }
        }
        Ok(links)
    }

    /// The unicast routes of all tables except `local`, at most about 64 for both families.
    ///
    /// # Errors
    /// If the kernel rejects the request, or does not answer within 500 ms.
    pub async fn routes(&self) -> io::Result<Vec<Route>> {
        let read = async {
            let mut routes = Vec::new();
            for request in [
                RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
                RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            ] {
                let mut answers = self.handle.route().get(request).execute();
                while let Some(message) = answers.try_next().await? {
                    if let Some(route) = self.route(&message) {
                        routes.push(route);
                    }
                    if routes.len() >= MAX_ROUTES {
                        break;
                    }
                }
            }
            Ok(routes)
        };
        bounded(read).await
    }

    fn route(&self, message: &RouteMessage) -> Option<Route> {
        let table = table(message);
        if table == LOCAL_TABLE || message.header.kind != RouteType::Unicast {
            return None;
        }
        let destination = destination(message)?;
        let is_special = match destination.addr() {
            IpAddr::V6(a) => a.is_unicast_link_local() || a.is_multicast(),
            IpAddr::V4(_) => false,
        };
        (!is_special).then(|| Route {
            destination,
            gateway: gateway(message),
            device: self.device(message).map(|link| link.name.clone()),
            table,
        })
    }

    /// The route of a TCP packet from this process to the address and port. The answer depends on this process's uid;
    /// firewall marks are not considered.
    pub async fn route_to(&self, to: IpAddr, port: u16) -> RouteLookup {
        let to = to.to_canonical();
        let outcome = match bounded(self.look_up(to, port, RouteFlags::LookupTable)).await {
            Ok(Some(message)) => {
                let flags = RouteFlags::FibMatch | RouteFlags::LookupTable;
                let matched = bounded(self.look_up(to, port, flags)).await;
                let matched = matched.ok().flatten().and_then(|m| destination(&m));
                self.outcome(&message, matched)
            }
            Ok(None) => RouteOutcome::Unknown {
                error: "the kernel did not answer".to_owned(),
            },
            Err(error) => denied(&error),
        };
        let outcome = match outcome {
            RouteOutcome::Denied { by, .. } => self.denying(to, by).await,
            outcome => outcome,
        };
        RouteLookup { to, outcome }
    }

    /// Adds the route that rejects the address. The kernel reports a `throw` route as "no route", because it goes on
    /// with the next rule.
    async fn denying(&self, to: IpAddr, by: String) -> RouteOutcome {
        let read = async {
            let selected = self.tables(to).await?;
            let request = match to {
                IpAddr::V4(_) => RouteMessageBuilder::<std::net::Ipv4Addr>::new().build(),
                IpAddr::V6(_) => RouteMessageBuilder::<std::net::Ipv6Addr>::new().build(),
            };
            let mut found = Vec::new();
            let mut answers = self.handle.route().get(request).execute();
            while let Some(message) = answers.try_next().await? {
                let is_of_type = kind(message.header.kind) == Some(as_type(&by));
                let net = destination(&message).filter(|net| is_of_type && net.contains(&to));
                let order = selected.iter().position(|one| *one == table(&message));
                if let (Some(net), Some(order)) = (net, order) {
                    found.push((order, net, table(&message), setter(message.header.protocol)));
                }
            }
            // The first rule whose table has such a route decides, and there the longest prefix.
            found.sort_by_key(|(order, net, ..)| (*order, u8::MAX - net.prefix_len()));
            Ok(found.into_iter().next())
        };
        let found = bounded(read).await.ok().flatten();
        match found {
            Some((_, net, table, set_by)) => RouteOutcome::Denied {
                by: as_type(&by).to_owned(),
                matched: Some(net),
                table: Some(table),
                set_by,
            },
            None => denied_by(&by),
        }
    }

    /// The tables that rules select, in their order. A table that no rule selects decides nothing.
    async fn tables(&self, to: IpAddr) -> Result<Vec<u32>, rtnetlink::Error> {
        let family = if to.is_ipv4() {
            IpVersion::V4
        } else {
            IpVersion::V6
        };
        let mut tables = Vec::new();
        let mut rules = Box::pin(self.handle.rule().get(family).execute());
        while let Some(rule) = rules.try_next().await? {
            let long = rule
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    RuleAttribute::Table(table) => Some(*table),
                    _ => None,
                });
            tables.push(long.unwrap_or_else(|| rule.header.table.into()));
        }
        Ok(tables)
    }

    async fn look_up(
        &self,
        to: IpAddr,
        port: u16,
        flags: RouteFlags,
    ) -> Result<Option<RouteMessage>, rtnetlink::Error> {
        let mut request = match to {
            IpAddr::V4(to) => RouteMessageBuilder::<std::net::Ipv4Addr>::new()
                .destination_prefix(to, 32)
                .build(),
            IpAddr::V6(to) => RouteMessageBuilder::<std::net::Ipv6Addr>::new()
                .destination_prefix(to, 128)
                .build(),
        };
        request.header.flags = flags;
        // Rules may select by protocol and port. Kernels before 4.18 have no such rules, and ignore these attributes.
        request
            .attributes
            .extend([RouteAttribute::IpProto(TCP), RouteAttribute::Dport(port)]);
        self.handle.route().get(request).execute().try_next().await
    }

    fn outcome(&self, message: &RouteMessage, matched: Option<IpNet>) -> RouteOutcome {
        let link = self.device(message);
        let device = link.map_or_else(String::new, |link| link.name.clone());
        match message.header.kind {
            RouteType::Local | RouteType::Anycast => {
                // The kernel reports `lo`; the address itself may be on another device.
                let owner = matched.and_then(|own| {
                    let holder =
                        |link: &&Link| link.addresses.iter().any(|a| a.addr() == own.addr());
                    self.links.values().find(holder)
                });
                RouteOutcome::Local {
                    device: owner.map_or(device, |link| link.name.clone()),
                }
            }
            RouteType::Unicast => {
                let source = message.attributes.iter().find_map(|a| match a {
                    RouteAttribute::PrefSource(address) => plain(address),
                    _ => None,
                });
                let of_route = message.attributes.iter().find_map(|a| match a {
                    RouteAttribute::Metrics(metrics) => metrics.iter().find_map(|m| match m {
                        RouteMetric::Mtu(mtu) => Some(*mtu),
                        _ => None,
                    }),
                    _ => None,
                });
                RouteOutcome::Unicast {
                    device,
                    device_kind: link.and_then(|link| link.kind.clone()),
                    gateway: gateway(message),
                    source,
                    table: table(message),
                    matched,
                    mtu: of_route.or_else(|| link?.mtu),
                }
            }
            other => kind(other).map_or_else(
                || RouteOutcome::Unknown {
                    error: format!("a route of type {other:?}"),
                },
                denied_by,
            ),
        }
    }

    fn device(&self, message: &RouteMessage) -> Option<&Link> {
        let index = message.attributes.iter().find_map(|a| match a {
            RouteAttribute::Oif(index) => Some(*index),
            // With several next hops, the first represents all.
            RouteAttribute::MultiPath(hops) => hops.first().map(|hop| hop.interface_index),
            _ => None,
        })?;
        self.links.get(&index)
    }
}

/// IPPROTO_TCP.
const TCP: u8 = 6;

/// RT_TABLE_LOCAL (linux/rtnetlink.h).
const LOCAL_TABLE: u32 = 255;

async fn bounded<T>(work: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    match own::within(WAIT, work).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(rtnetlink::Error::NetlinkError(message))) => Err(message.to_io()),
        Ok(Err(error)) => Err(io::Error::other(error.to_string())),
        Err(elapsed) => {
            elapsed.limit();
            Err(io::Error::from(io::ErrorKind::TimedOut))
        }
    }
}

/// For a route that rejects packets, the kernel returns the errno that connect(2) would return.
fn denied(error: &io::Error) -> RouteOutcome {
    match own::errno(error) {
        Some(libc::ENETUNREACH) => denied_by("no_route"),
        Some(libc::EHOSTUNREACH) => denied_by("unreachable"),
        Some(libc::EACCES) => denied_by("prohibit"),
        Some(libc::EINVAL) => denied_by("blackhole"),
        _ => RouteOutcome::Unknown {
            error: error.to_string(),
        },
    }
}

fn denied_by(what: &str) -> RouteOutcome {
    RouteOutcome::Denied {
        by: what.to_owned(),
        matched: None,
        table: None,
        set_by: None,
    }
}

/// The program that set a route, if it sets it again after somebody removed it: a routing daemon, or a network plugin
/// (linux/rtnetlink.h, and Calico's own number).
fn setter(protocol: RouteProtocol) -> Option<String> {
    let name = match protocol {
        RouteProtocol::Zebra => "zebra",
        RouteProtocol::Bird => "bird",
        RouteProtocol::Babel => "babel",
        RouteProtocol::Bgp => "bgp",
        RouteProtocol::Isis => "isis",
        RouteProtocol::Ospf => "ospf",
        RouteProtocol::Rip => "rip",
        RouteProtocol::Eigrp => "eigrp",
        RouteProtocol::Other(80) => "80",
        _ => return None,
    };
    Some(name.to_owned())
}

/// The types of routes that reject packets, as `ip route` shows them.
fn kind(of: RouteType) -> Option<&'static str> {
    Some(match of {
        RouteType::BlackHole => "blackhole",
        RouteType::Unreachable => "unreachable",
        RouteType::Prohibit => "prohibit",
        RouteType::Throw => "throw",
        _ => return None,
    })
}

/// The type of the route behind the result of a lookup.
fn as_type(by: &str) -> &str {
    match by {
        "no_route" => "throw",
        by => by,
    }
}

fn link(message: &LinkMessage) -> Link {
    let mut link = Link {
        name: String::new(),
        kind: layer(message.header.link_layer_type).map(str::to_owned),
        mtu: None,
        is_up: message.header.flags.contains(LinkFlags::Up),
        master: None,
        addresses: Vec::new(),
    };
    for attribute in &message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name.clone_from(name),
            LinkAttribute::Mtu(mtu) => link.mtu = Some(*mtu),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    if let LinkInfo::Kind(kind) = info {
                        link.kind = Some(kind.to_string());
                    }
                }
            }
            _ => {}
        }
    }
    link
}

/// Device kinds from the link layer (linux/if_arp.h), for devices that report no kind.
fn layer(kind: LinkLayerType) -> Option<&'static str> {
    match kind {
        LinkLayerType::Ppp => Some("ppp"),
        LinkLayerType::Tunnel => Some("ipip"),
        LinkLayerType::Tunnel6 => Some("ip6tnl"),
        LinkLayerType::Sit => Some("sit"),
        LinkLayerType::Ipgre => Some("gre"),
        LinkLayerType::Ip6gre => Some("ip6gre"),
        LinkLayerType::Loopback => Some("loopback"),
        _ => None,
    }
}

fn table(message: &RouteMessage) -> u32 {
    let long = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    long.unwrap_or_else(|| message.header.table.into())
}

/// The destination of a route; a default route has no attribute for it.
fn destination(message: &RouteMessage) -> Option<IpNet> {
    let address = message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Destination(address) => plain(address),
        _ => None,
    });
    let RouteHeader {
        destination_prefix_length: length,
        address_family: family,
        ..
    } = message.header;
    let address = address.or(match family {
        netlink_packet_route::AddressFamily::Inet => Some(IpAddr::from([0u8; 4])),
        netlink_packet_route::AddressFamily::Inet6 => Some(IpAddr::from([0u8; 16])),
        _ => None,
    })?;
    IpNet::new(address, length).ok()
}

fn gateway(message: &RouteMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|a| match a {
        RouteAttribute::Gateway(address) => plain(address),
        RouteAttribute::MultiPath(hops) => {
            hops.iter()
                .flat_map(|hop| &hop.attributes)
                .find_map(|a| match a {
                    RouteAttribute::Gateway(address) => plain(address),
                    _ => None,
                })
        }
        _ => None,
    })
}

fn plain(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(a) => Some((*a).into()),
        RouteAddress::Inet6(a) => Some((*a).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_machine_has_a_loopback_device_with_its_address() {
        let netlink = Netlink::open().await.unwrap();
        let links = netlink.links();
        let lo = links.iter().find(|link| link.name == "lo").unwrap();
        assert_eq!(lo.kind.as_deref(), Some("loopback"));
        assert!(lo.addresses.iter().any(|a| a.to_string() == "127.0.0.1/8"));
        let to = netlink.route_to("127.0.0.1".parse().unwrap(), 443).await;
        assert!(
            matches!(&to.outcome, RouteOutcome::Local { device } if device == "lo"),
            "{to:?}"
        );
        // ::ffff:127.0.0.1 is dialed as the IPv4 address.
        let mapped = "::ffff:127.0.0.9".parse().unwrap();
        let to = netlink.route_to(mapped, 443).await;
        assert!(matches!(to.outcome, RouteOutcome::Local { .. }), "{to:?}");
        netlink.routes().await.unwrap();
    }

    #[test]
    fn what_a_route_denies_is_reported_by_errno() {
        for (errno, want) in [
            (libc::ENETUNREACH, "no_route"),
            (libc::EHOSTUNREACH, "unreachable"),
            (libc::EACCES, "prohibit"),
            (libc::EINVAL, "blackhole"),
        ] {
            let outcome = denied(&io::Error::from_raw_os_error(errno));
            assert_eq!(outcome, denied_by(want));
        }
        assert!(matches!(
            denied(&io::Error::from_raw_os_error(libc::EPERM)),
            RouteOutcome::Unknown { .. }
        ));
    }
}
