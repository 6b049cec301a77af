//! One address of a leg with all evidence about it, and the result of a rule for it.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::IpNet;

use super::context::PathContext;
use super::leg_path::{Candidate, Fact, Reachability, Suggestion};
use super::ranges;
use crate::model::connect::{Connection, Dial};
use crate::model::evidence::Leg;
use crate::model::fault::{TcpFault, TlsFault};
use crate::model::hops::TraceEnd;
use crate::model::nat64;
use crate::model::network::{Link, MappedCidr, MappedClass, RouteOutcome};
use crate::model::path::{IntranetKind, PathAttributes, PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::special::is_link_local;
use crate::model::text::{joined, or};
use crate::model::units::HumanDuration;
use crate::model::vantage::Vantage;

/// The result of a rule for an address.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    pub(super) class: PathClass,
    pub(super) attributes: PathAttributes,
    pub(super) score: f64,
    pub(super) evidence: Vec<Fact>,
    pub(super) contradictions: Vec<Fact>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) suggestions: Vec<Suggestion>,
    /// The address is in a range of two networks.
    pub(super) overlap: bool,
    /// Only the configuration shows that: whether a subnet of this VPC has the address is unknown.
    pub(super) overlap_is_declared: bool,
    /// What to do about the overlap, if that is special.
    pub(super) overlap_fix: Option<String>,
    /// The class that the configuration declares for the address.
    pub(super) declared: Option<PathClass>,
}

impl Judgement {
    pub(super) fn new(class: PathClass, score: f64) -> Self {
        Self {
            class,
            attributes: PathAttributes::default(),
            score,
            evidence: Vec::new(),
            contradictions: Vec::new(),
            candidates: Vec::new(),
            suggestions: Vec::new(),
            overlap: false,
            overlap_is_declared: false,
            overlap_fix: None,
            declared: None,
        }
    }

    pub(super) fn intranet(kind: Option<IntranetKind>, score: f64) -> Self {
        let mut new = Self::new(PathClass::Intranet, score);
        new.attributes.intranet = kind;
        new
    }

    pub(super) fn fact(mut self, signal: Signal, message: impl Into<String>) -> Self {
        self.evidence.push(Fact::new(signal, message));
        self
    }

    /// Adds a contradiction, which lowers the score by `cost`.
    pub(super) fn but(mut self, signal: Signal, message: impl Into<String>, cost: f64) -> Self {
        self.contradictions.push(Fact::new(signal, message));
        self.score -= cost;
        self
    }
}

/// One address of a leg, and all evidence about it.
pub(super) struct Case<'a> {
    pub(super) context: &'a PathContext<'a>,
    pub(super) leg: &'a Leg,
    /// The address to classify: behind NAT64, the IPv4 one.
    pub(super) address: IpAddr,
    pub(super) answers: Reachability,
    pub(super) route: Option<&'a RouteOutcome>,
    pub(super) connection: Option<&'a Connection>,
    pub(super) nat64: Option<String>,
    /// The IPv4 address of the name that the address has behind this prefix, if it is unknown whether that is a prefix
    /// of NAT64.
    pub(super) look_alike: Option<(Ipv4Addr, IpNet)>,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        context: &'a PathContext<'a>,
        leg: &'a Leg,
        address: IpAddr,
        answers: Reachability,
    ) -> Self {
        let canonical = address.to_canonical();
        let (embedded, look_alike) = match translation(context.vantage, leg, canonical) {
            Translation::Known { v4, message, .. } => (Some((v4, message)), None),
            Translation::LookAlike { v4, prefix } => (None, Some((v4, prefix))),
            Translation::None => (None, None),
        };
        let dialed = |dial: &&Dial| dial.to.ip() == address;
        let (mut routes, mut dials) = (leg.routes.iter(), leg.connect.attempts.iter());
        Self {
            context,
            leg,
            address: embedded.as_ref().map_or(canonical, |(v4, _)| *v4),
            answers,
            route: routes
                .find(|one| one.to == canonical)
                .map(|one| &one.outcome),
            connection: dials.find(dialed).and_then(|dial| dial.outcome.done()),
            nat64: embedded.map(|(_, message)| message),
            look_alike,
        }
    }
}

/// Whether NAT64 translates an address.
pub(super) enum Translation {
    /// It does, to this IPv4 address, behind this prefix.
    Known {
        v4: IpAddr,
        prefix: IpNet,
        message: String,
    },
    /// It may: the address has the name's IPv4 address behind this prefix, as a host's own address may have it too.
    LookAlike { v4: Ipv4Addr, prefix: IpNet },
    /// It does not.
    None,
}

/// Whether NAT64 translates an address: its prefix is the well-known one, that for local use, a declared one, or one that
/// the name servers reveal (RFC 6052, RFC 8215, RFC 7050).
pub(super) fn translation(vantage: &Vantage, leg: &Leg, address: IpAddr) -> Translation {
    let IpAddr::V6(v6) = address else {
        return Translation::None;
    };
    let known = |v4: Ipv4Addr, prefix: IpNet, why: &str| Translation::Known {
        v4: v4.into(),
        prefix,
        message: format!("{address} is {v4} behind NAT64 ({why})"),
    };
    if let Some(v4) = ranges::nat64(address) {
        return known(v4, nat64::well_known(), "RFC 6052");
    }
    let declared = &vantage.declared.nat64_prefixes;
    if let Some((v4, net)) = nat64::behind(v6, declared) {
        return known(
            v4,
            net,
            &format!("{net} is declared in network.nat64_prefixes"),
        );
    }
    let revealed = leg.nat64.as_ref();
    let prefixes = revealed.map_or(&[][..], |found| &found.prefixes);
    if let Some((v4, net)) = nat64::behind(v6, prefixes) {
        return known(v4, net, &format!("the name servers reveal {net}, RFC 7050"));
    }
    let Some((v4, prefix)) = nat64::look_alike(v6, &leg.resolve.v4_addresses()) else {
        return Translation::None;
    };
    if ranges::is_local_nat64(address) {
        return known(v4, prefix, "RFC 8215");
    }
    // The name servers synthesize no addresses of this prefix: the address is in the zone itself.
    if revealed.is_some_and(|found| found.fault.is_none()) {
        return Translation::None;
    }
    Translation::LookAlike { v4, prefix }
}

impl Case<'_> {
    pub(super) fn family(&self) -> Family {
        Family::of(self.address)
    }

    pub(super) fn is_private(&self) -> bool {
        ranges::special(self.address).is_some()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        let at_connect = self.connection?.rtt;
        let later = self.leg.transport.and_then(|t| t.min_rtt);
        // The transport figures are those of the connected address.
        let connected = self.leg.connect.outcome.done();
        let is_used = connected.is_some_and(|c| c.to.ip().to_canonical() == self.address);
        match (at_connect, later.filter(|_| is_used)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// How many bytes smaller the segments are than those to the baseline, or else than the MTU of this
    /// machine's own device allows.
    pub(super) fn smaller_by(&self) -> Option<Smaller> {
        let mss = self.connection?.send_mss?;
        let family = Family::of(self.connection?.local.ip());
        let smaller = |own: u32, beside: String, is_measured| Smaller {
            by: i64::from(own) - i64::from(mss),
            message: format!("segments of {mss} bytes, compared with {beside}"),
            is_measured,
        };
        let baseline = self.context.vantage.baseline.as_ref();
        let near = baseline.and_then(|baseline| {
            let connection = baseline.outcome.done()?;
            let near_mss = connection.send_mss?;
            // An IPv6 header is 20 bytes longer.
            let of = Family::of(baseline.to.ip());
            let near_mss = match (family, of) {
                (Family::V6, Family::V4) => near_mss.saturating_sub(20),
                (Family::V4, Family::V6) => near_mss + 20,
                _ => near_mss,
            };
            let beside = format!("{near_mss} to {} {}", baseline.what.describe(), baseline.to);
            Some(smaller(near_mss, beside, true))
        });
        near.or_else(|| {
            let Some(RouteOutcome::Unicast {
                mtu: Some(mtu),
                device,
                ..
            }) = self.route
            else {
                return None;
            };
            // Headers, and TCP timestamps, which Linux uses (RFC 7323).
            let headers = if family == Family::V4 { 52 } else { 72 };
            let own = mtu.saturating_sub(headers);
            Some(smaller(
                own,
                format!("{own} for the MTU of {device}"),
                false,
            ))
        })
    }

    pub(super) fn mapped(&self) -> Option<&MappedCidr> {
        self.context.mapped(self.address)
    }

    /// The range of this VPC that the configuration declares and that contains the address. The metadata service knows
    /// the VPC's ranges better.
    pub(super) fn own_range_beside_metadata(&self) -> Option<&MappedCidr> {
        let facts = self.context.vantage.metadata.facts();
        let is_known = facts.is_some_and(|facts| !facts.vpc_cidrs.is_empty());
        self.context.own_range(self.address).filter(|_| !is_known)
    }

    /// The own interface and prefix that contain the address, if packets go there without a gateway.
    pub(super) fn link(&self) -> Option<(&Link, IpNet)> {
        let has_gateway = matches!(
            self.route,
            Some(RouteOutcome::Unicast {
                gateway: Some(_),
                ..
            })
        );
        if has_gateway {
            return None;
        }
        self.context
            .vantage
            .links
            .iter()
            .filter(|link| link.is_up && !is_tunnel(link.kind.as_deref(), &link.name))
            .flat_map(|link| link.addresses.iter().map(move |net| (link, *net)))
            .find(|(_, net)| {
                net.prefix_len() < net.max_prefix_len()
                    && net.contains(&self.address)
                    && net.addr() != self.address
            })
    }

    /// The VPC's or subnet's range that contains the address, from the metadata service.
    pub(super) fn vpc_range(&self) -> Option<(IpNet, &'static str)> {
        let facts = self.context.vantage.metadata.facts()?;
        let find = |nets: &[IpNet]| nets.iter().find(|n| n.contains(&self.address)).copied();
        find(&facts.vpc_cidrs)
            .map(|net| (net, "the VPC's range"))
            .or_else(|| find(&facts.subnet_cidrs).map(|net| (net, "this subnet's range")))
    }

    /// The routers on the path, if every one of them and the destination answered.
    pub(super) fn all_hops(&self) -> Option<Hops> {
        let trace = self.leg.hops.as_ref()?;
        let is_whole =
            trace.ended == TraceEnd::Reached && trace.hops.iter().all(|hop| hop.from.is_some());
        self.hops().filter(|_| is_whole)
    }

    /// The routers on the path, if they were traced and responded.
    pub(super) fn hops(&self) -> Option<Hops> {
        let trace = self.leg.hops.as_ref()?;
        if trace.to.ip().to_canonical() != self.address {
            return None;
        }
        // The last one is the destination itself, if it responds.
        let routers = trace.hops.iter().filter_map(|hop| hop.from);
        let shown: Vec<IpAddr> = routers.filter(|from| *from != trace.to.ip()).collect();
        let links = self.context.vantage.links.iter();
        let own: Vec<IpNet> = links
            .flat_map(|link| &link.addresses)
            .filter_map(|net| IpNet::new(net.addr(), wide(net.addr())).ok())
            .collect();
        let is_special = |hop: &IpAddr| ranges::special(*hop).is_some();
        let is_foreign =
            |hop: &&IpAddr| is_special(hop) && !own.iter().any(|net| net.contains(*hop));
        Some(Hops {
            shown: joined(&shown),
            is_foreign: shown.iter().filter(is_foreign).count() > 0,
            is_public: shown.iter().any(|hop| !is_special(hop)),
        })
        .filter(|hops| !hops.shown.is_empty())
    }

    /// Adds contradictions: round-trip times, segment sizes and certificates that do not fit the class.
    pub(super) fn compare(&self, mut judgement: Judgement) -> Judgement {
        let is_local = matches!(
            judgement.attributes.intranet,
            Some(IntranetKind::HostLocal | IntranetKind::ClusterService)
        );
        let is_near =
            matches!(judgement.class, PathClass::Intranet | PathClass::VpcPeering) && !is_local;
        if is_near && let Some(rtt) = self.rtt().filter(|rtt| *rtt > FAR) {
            judgement = judgement.but(
                Signal::RoundTrip,
                format!(
                    "the round-trip time is {}, more than within a region: the declared range may be wrong, or overlap another",
                    HumanDuration(rtt)
                ),
                0.2,
            );
        }
        if is_near
            && let Some(smaller) = self.smaller_by().filter(|s| s.is_measured && s.is_tunnel())
        {
            judgement = judgement.but(
                Signal::SegmentSize,
                format!(
                    "{}: a tunnel is on the path, but there is none within a VPC or over peering",
                    smaller.message
                ),
                0.2,
            );
        }
        if judgement.class.is_public()
            && self.leg.proxy_route.proxy().is_none()
            && let Some(issuer) = strange_issuer(self.leg)
        {
            judgement = judgement.but(
                Signal::Certificate,
                format!(
                    "the certificate is issued by {}, which is not trusted here: something on the path may respond in the server's place",
                    or(issuer, "an issuer without a name")
                ),
                0.1,
            );
        }
        judgement
    }
}

/// A longer round trip is not within a region.
const FAR: Duration = Duration::from_millis(10);
/// A longer round trip is rare within a region.
pub(super) const SOME_WAY_OFF: Duration = Duration::from_millis(8);
/// A shorter round trip is within a region.
pub(super) const NEAR: Duration = Duration::from_millis(2);

/// The prefix length that addresses of one network roughly share.
fn wide(address: IpAddr) -> u8 {
    if address.is_ipv4() { 16 } else { 48 }
}

/// What the routers on the path show.
pub(super) struct Hops {
    pub(super) shown: String,
    /// A private one is in a range that is not this machine's.
    pub(super) is_foreign: bool,
    pub(super) is_public: bool,
}

/// Smaller segments than those to a near destination.
pub(super) struct Smaller {
    pub(super) by: i64,
    pub(super) message: String,
    /// Compared with another connection, not with a device's MTU.
    pub(super) is_measured: bool,
}

impl Smaller {
    /// IPIP takes 20 bytes, the fewest of all tunnels.
    pub(super) fn is_tunnel(&self) -> bool {
        self.by >= 20
    }
}

fn strange_issuer(leg: &Leg) -> Option<&str> {
    let is_strange = |fault: &TlsFault| matches!(fault, TlsFault::UnknownIssuer { .. });
    let refused = leg.tls.outcome.fault().is_some_and(is_strange);
    let ignored = leg.tls.unverified.as_ref().is_some_and(is_strange);
    (refused || ignored).then(|| leg.tls.chain.first().map(|leaf| leaf.issuer.as_str()))?
}

impl Case<'_> {
    /// The tunnel device that the kernel sends through, its kind, and the matching route.
    pub(super) fn tunnel(&self) -> Option<(&str, &str, Option<IpNet>)> {
        match self.route? {
            RouteOutcome::Unicast {
                device,
                device_kind: Some(kind),
                matched,
                ..
            } if is_tunnel(Some(kind), device) => Some((device, kind, *matched)),
            _ => None,
        }
    }
}

/// A network inside this host, or of the cluster's pods, that the kernel sends the address to.
pub(super) struct Container<'a> {
    pub(super) device: &'a str,
    /// What the device is, for people.
    pub(super) what: &'static str,
    pub(super) kind: IntranetKind,
    /// The prefix of the route that matched.
    pub(super) matched: Option<IpNet>,
}

impl Case<'_> {
    /// Whether the kernel sends the address to containers of this host or to pods of the cluster.
    pub(super) fn container(&self) -> Option<Container<'_>> {
        let Some(RouteOutcome::Unicast {
            device,
            device_kind: Some(kind),
            matched,
            ..
        }) = self.route
        else {
            return None;
        };
        let is_default = matched.is_some_and(|net| net.prefix_len() == 0);
        if is_default || self.context.is_uplink(device) {
            return None;
        }
        let is_host_route = matched.is_some_and(|net| net.prefix_len() == net.max_prefix_len());
        // The kernel makes it for any IPIP tunnel.
        let has_calico = || {
            let mut links = self.context.vantage.links.iter();
            links.any(|link| link.name.starts_with("cali"))
        };
        let is_calicos = device == "tunl0" && has_calico();
        let (kind, what) = if is_of_plugin(device, kind) || is_calicos {
            (
                IntranetKind::ClusterPods,
                "the network of this cluster's pods",
            )
        } else if kind == "bridge" && self.context.is_inside(device) {
            (IntranetKind::HostLocal, "a bridge inside this host")
        } else if kind == "veth" && is_host_route && self.context.is_pair_of_pod(device) {
            (IntranetKind::ClusterPods, "the link to a pod on this host")
        } else {
            return None;
        };
        Some(Container {
            device,
            what,
            kind,
            matched: *matched,
        })
    }

    /// Whether the packets to the address are lost on the path: neither an answer, nor a rejection by this machine.
    pub(super) fn is_lost(&self) -> bool {
        let mut dials = self.leg.connect.attempts.iter();
        let own = dials.find(|dial| dial.to.ip().to_canonical() == self.address);
        matches!(
            own.and_then(|dial| dial.outcome.fault()),
            Some(
                TcpFault::Timeout
                    | TcpFault::HostUnreachable { .. }
                    | TcpFault::NetUnreachable { icmp: Some(_) }
            )
        ) && !matches!(self.route, Some(RouteOutcome::Denied { .. }))
    }

    /// Whether something other than the server of the leg answers at the address: the port is closed, or the
    /// certificate is for another name.
    pub(super) fn is_other_host(&self) -> bool {
        let connected = self.leg.connect.outcome.done();
        match self.answers {
            Reachability::Refused => true,
            Reachability::Reachable => {
                connected.is_some_and(|c| c.to.ip().to_canonical() == self.address)
                    && self.leg.proxy_route.proxy().is_none()
                    && is_for_another_name(self.leg)
            }
            _ => false,
        }
    }
}

/// Whether every address refuses the connection, or a certificate for another name answers.
pub(super) fn is_answered_by_another(leg: &Leg) -> bool {
    let is_refused = matches!(leg.connect.outcome.fault(), Some(TcpFault::Refused { .. }));
    leg.proxy_route.proxy().is_none() && (is_refused || is_for_another_name(leg))
}

/// Whether TLS failed with a certificate for another name. One for this name from an authority that is not trusted is no
/// sign of another host.
pub(super) fn is_for_another_name(leg: &Leg) -> bool {
    match leg.tls.outcome.fault() {
        Some(TlsFault::NameMismatch { .. }) => true,
        Some(TlsFault::UnknownIssuer { .. }) => {
            let host = leg.endpoint.host.bare();
            let names = leg.tls.chain.first().map(|leaf| &leaf.names);
            names.is_some_and(|names| {
                !names.is_empty() && !names.iter().any(|name| is_name_of(name, &host))
            })
        }
        _ => false,
    }
}

/// Whether a name of a certificate is the host's: itself, or with `*` for its first label.
fn is_name_of(name: &str, host: &str) -> bool {
    let parent = host.split_once('.').map(|(_, parent)| parent);
    name.eq_ignore_ascii_case(host)
        || name
            .strip_prefix("*.")
            .is_some_and(|rest| parent.is_some_and(|parent| rest.eq_ignore_ascii_case(parent)))
}

/// A device that a network plugin makes for the pods of the cluster: flannel, Calico, Cilium, Antrea, OVN, Weave,
/// kube-router, and the cloud's own.
fn is_of_plugin(name: &str, kind: &str) -> bool {
    const DEVICES: &[(&str, &[&str])] = &[
        ("bridge", &["cni0", "cbr0", "kube-bridge", "weave"]),
        (
            "vxlan",
            &[
                "flannel",
                "vxlan.calico",
                "vxlan-v6.calico",
                "cilium_vxlan",
                "antrea",
                "vxlan_sys",
                "weave",
            ],
        ),
        ("geneve", &["cilium_geneve", "genev_sys", "antrea"]),
        ("ipip", &["flannel", "cilium_ipip"]),
        ("ip6tnl", &["cilium_ipip"]),
        ("wireguard", &["flannel-wg", "wireguard.cali", "cilium_wg0"]),
        ("veth", &["cali", "cilium_", "lxc", "eni", "azv", "gke"]),
        ("openvswitch", &["ovn", "antrea", "br-int"]),
        ("tun", &["flannel"]),
    ];
    let mut of_kind = DEVICES.iter().filter(|(of, _)| *of == kind);
    of_kind.any(|(_, names)| names.iter().any(|start| name.starts_with(start)))
}

/// A tunnel device that does not belong to a CNI plugin.
fn is_tunnel(kind: Option<&str>, name: &str) -> bool {
    const KINDS: &[&str] = &[
        "tun",
        "wireguard",
        "ipip",
        "sit",
        "gre",
        "gretap",
        "ip6gre",
        "ip6tnl",
        "vti",
        "vti6",
        "xfrm",
        "ppp",
        "l2tp",
    ];
    const PLUGINS: &[&str] = &[
        "tunl0",
        "cali",
        "cilium",
        "flannel",
        "wireguard.cali",
        "antrea",
        "weave",
        "kube",
        "ovn",
        "sit0",
        "gre0",
    ];
    kind.is_some_and(|kind| KINDS.contains(&kind))
        && !PLUGINS.iter().any(|plugin| name.starts_with(plugin))
}

pub(super) fn shown(mapped: &MappedCidr) -> String {
    let name = mapped
        .name
        .as_ref()
        .map_or_else(String::new, |name| format!(" ({name})"));
    format!(
        "{}{name} is declared as {}",
        mapped.cidr,
        mapped.class.as_str()
    )
}

/// Whether a default route uses the device.
pub(super) fn is_uplink(vantage: &Vantage, device: &str) -> bool {
    vantage
        .routes
        .iter()
        .any(|route| route.destination.prefix_len() == 0 && route.device.as_deref() == Some(device))
}

impl PathContext<'_> {
    /// The most specific declared range that contains the address.
    fn mapped(&self, address: IpAddr) -> Option<&MappedCidr> {
        let cidrs = self.vantage.declared.cidrs.iter();
        cidrs
            .filter(|mapped| mapped.cidr.contains(&address.to_canonical()))
            .max_by_key(|mapped| mapped.cidr.prefix_len())
    }

    /// Whether a default route uses the device.
    pub(super) fn is_uplink(&self, device: &str) -> bool {
        is_uplink(self.vantage, device)
    }

    /// Whether a bridge has no part that leads out of this host: its parts are ends of virtual cables.
    pub(super) fn is_inside(&self, bridge: &str) -> bool {
        const VIRTUAL: [&str; 4] = ["veth", "tun", "dummy", "ifb"];
        let links = self.vantage.links.iter();
        let mut parts = links.filter(|link| link.master.as_deref() == Some(bridge));
        parts.all(|link| {
            link.kind
                .as_deref()
                .is_some_and(|kind| VIRTUAL.contains(&kind))
        })
    }

    /// Whether a veth without a network of its own leads to one pod.
    fn is_pair_of_pod(&self, device: &str) -> bool {
        let mut links = self.vantage.links.iter();
        let own = links.find(|link| link.name == device);
        own.is_some_and(|link| {
            let is_network =
                |net: &IpNet| net.prefix_len() < net.max_prefix_len() && !is_link_local(net.addr());
            !link.addresses.iter().any(is_network)
        })
    }

    /// The widest range that the configuration declares as a part of this VPC and that contains the address.
    pub(super) fn own_range(&self, address: IpAddr) -> Option<&MappedCidr> {
        let cidrs = self.vantage.declared.cidrs.iter();
        cidrs
            .filter(|mapped| {
                let (class, net) = (mapped.class, mapped.cidr);
                class == MappedClass::Intranet && net.contains(&address.to_canonical())
            })
            // 10.0.0.0/8 stands for everything that is not declared otherwise.
            .filter(|mapped| !mapped.cidr.addr().is_ipv4() || mapped.cidr.prefix_len() > 8)
            .max_by_key(|mapped| mapped.cidr.prefix_len())
    }

    /// Whether the address is public, according to the configuration or else the IANA registries.
    pub(super) fn is_public(&self, address: IpAddr) -> bool {
        match self.mapped(address) {
            Some(mapped) => mapped.class == MappedClass::Public,
            None => ranges::special(address).is_none(),
        }
    }
}
