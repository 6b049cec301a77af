//! The table of rules: each looks at one kind of evidence for an address, and the first that applies
//! decides the class. The order is that of how well each kind is founded: what the kernel does with
//! a packet, what the operator declares, what the cloud says, and only then what figures suggest.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::ranges::{self, Purpose};
use super::{Candidate, Confidence, Fact, Place, Reachability};
use crate::model::endpoint::Host;
use crate::model::evidence::{Connection, Dial, Family, Leg};
use crate::model::fault::TlsFault;
use crate::model::network::{
    ClusterNetwork, EgressMethod, EgressSeen, Link, MappedCidr, MappedClass, ProviderBy,
    RouteOutcome,
};
use crate::model::path::{EipOf, IntranetKind, PathAttributes, PathClass, Signal};
use crate::model::units::Took;
use crate::model::vantage::NetworkView;

/// What a rule says of an address.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    pub(super) class: PathClass,
    pub(super) attributes: PathAttributes,
    pub(super) score: f64,
    pub(super) evidence: Vec<Fact>,
    pub(super) contradictions: Vec<Fact>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) knobs: Vec<String>,
    /// The address is in a range of two networks.
    pub(super) overlap: bool,
    /// What the operator declares of the address.
    pub(super) declared: Option<PathClass>,
}

impl Judgement {
    fn new(class: PathClass, score: f64) -> Self {
        Self {
            class,
            attributes: PathAttributes::default(),
            score,
            evidence: Vec::new(),
            contradictions: Vec::new(),
            candidates: Vec::new(),
            knobs: Vec::new(),
            overlap: false,
            declared: None,
        }
    }

    fn intranet(kind: Option<IntranetKind>, score: f64) -> Self {
        let mut new = Self::new(PathClass::Intranet, score);
        new.attributes.intranet = kind;
        new
    }

    fn fact(mut self, signal: Signal, says: impl Into<String>) -> Self {
        self.evidence.push(Fact::new(signal, says));
        self
    }

    /// Something speaks against it.
    fn but(mut self, signal: Signal, says: impl Into<String>, cost: f64) -> Self {
        self.contradictions.push(Fact::new(signal, says));
        self.score -= cost;
        self
    }
}

/// One address of a leg, and all that bears on it.
pub(super) struct Case<'a> {
    pub(super) place: &'a Place<'a>,
    leg: &'a Leg,
    /// The address whose class is asked for: behind NAT64, the IPv4 one.
    address: IpAddr,
    answers: Reachability,
    route: Option<&'a RouteOutcome>,
    connection: Option<&'a Connection>,
    nat64: Option<String>,
}

type Rule = fn(&Case<'_>) -> Option<Judgement>;

const RULES: &[Rule] = &[
    own_address,
    cluster_service,
    tunnel_of_this_host,
    declared_range,
    range_of_the_vpc,
    on_link,
    provider_service,
    private,
    behind_nat64,
    public,
];

/// The class of an address.
pub(super) fn judge(
    place: &Place<'_>,
    leg: &Leg,
    address: IpAddr,
    answers: Reachability,
) -> Judgement {
    let canonical = address.to_canonical();
    let embedded = behind_translator(leg, canonical);
    let dialled = |dial: &&Dial| dial.to.ip() == address;
    let case = Case {
        place,
        leg,
        address: embedded.as_ref().map_or(canonical, |(v4, _)| *v4),
        answers,
        route: leg
            .routes
            .iter()
            .find(|route| route.to == canonical)
            .map(|route| &route.outcome),
        connection: leg
            .connect
            .attempts
            .iter()
            .find(dialled)
            .and_then(|dial| dial.outcome.done()),
        nat64: embedded.map(|(_, says)| says),
    };
    let mut judgement = RULES
        .iter()
        .find_map(|rule| rule(&case))
        .unwrap_or_else(|| Judgement::new(PathClass::PublicUnknown, 0.0));
    if let Some(says) = &case.nat64 {
        judgement.attributes.nat64 = true;
        judgement
            .evidence
            .insert(0, Fact::new(Signal::AddressRange, says.clone()));
    }
    case.compare(judgement)
}

/// The IPv4 address that a translator makes of an IPv6 one: by the well-known prefix, or by one that
/// a DNS64 server shows by giving the name's own IPv4 address back inside it (RFC 6052, RFC 6147).
fn behind_translator(leg: &Leg, address: IpAddr) -> Option<(IpAddr, String)> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    if let Some(v4) = ranges::nat64(address) {
        return Some((
            v4.into(),
            format!("{address} is {v4} behind NAT64 (RFC 6052)"),
        ));
    }
    let v4 = ranges::last_four(v6);
    let is_of_the_name = leg
        .resolve
        .queries
        .iter()
        .filter_map(|query| query.outcome.done())
        .flat_map(|answer| &answer.records)
        .any(|record| record.address == IpAddr::V4(v4));
    is_of_the_name.then(|| {
        (
            v4.into(),
            format!("{address} is the name's own {v4} in another prefix: NAT64 made it (RFC 6147)"),
        )
    })
}

impl Case<'_> {
    fn family(&self) -> Family {
        Family::of(self.address)
    }

    fn is_private(&self) -> bool {
        ranges::special(self.address).is_some()
    }

    fn rtt(&self) -> Option<Duration> {
        let at_connect = self.connection?.rtt;
        let later = self.leg.transport.and_then(|t| t.min_rtt);
        // The transport is that of the address connected to.
        let is_used = self
            .leg
            .connect
            .outcome
            .done()
            .is_some_and(|c| c.to.ip().to_canonical() == self.address);
        match (at_connect, later.filter(|_| is_used)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// How many bytes smaller segments are than on the way to the baseline, or else than this
    /// machine's own device would have them.
    fn smaller_by(&self) -> Option<Smaller> {
        let mss = self.connection?.send_mss?;
        let family = Family::of(self.connection?.local.ip());
        let baseline = self.place.vantage.baseline.as_ref();
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
            Some(Smaller {
                by: i64::from(near_mss) - i64::from(mss),
                mss,
                beside: format!(
                    "{} to {} {}",
                    near_mss,
                    baseline.what.describe(),
                    baseline.to
                ),
                is_measured: true,
            })
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
            // Headers, and the timestamps that Linux uses (RFC 7323).
            let headers = if family == Family::V4 { 52 } else { 72 };
            let own = mtu.saturating_sub(headers);
            Some(Smaller {
                by: i64::from(own) - i64::from(mss),
                mss,
                beside: format!("{own} by the MTU of {device}"),
                is_measured: false,
            })
        })
    }

    fn mapped(&self) -> Option<&MappedCidr> {
        self.place.mapped(self.address)
    }

    /// The prefix of an own interface that holds the address, where packets go there without a
    /// gateway.
    fn link(&self) -> Option<(&Link, IpNet)> {
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
        self.place
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

    /// What the cloud says of the VPC's ranges.
    fn vpc_range(&self) -> Option<(IpNet, &'static str)> {
        let facts = self.place.vantage.metadata.facts()?;
        let find = |nets: &[IpNet]| nets.iter().find(|n| n.contains(&self.address)).copied();
        find(&facts.vpc_cidrs)
            .map(|net| (net, "the VPC's range"))
            .or_else(|| find(&facts.subnet_cidrs).map(|net| (net, "this subnet's range")))
    }

    /// Round trips and segments that do not fit the class.
    fn compare(&self, judgement: Judgement) -> Judgement {
        let mut judgement = judgement;
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
                    "a round trip takes {}, more than within a region: the declared range may be wrong, or overlap another",
                    Took(rtt)
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
                    "{smaller}: a tunnel is on the way, and there is none within a VPC or over peering"
                ),
                0.2,
            );
        }
        if judgement.class.is_public()
            && self.leg.way.proxy().is_none()
            && let Some(issuer) = strange_issuer(self.leg)
        {
            judgement = judgement.but(
                Signal::Certificate,
                format!(
                    "the certificate is by {issuer}, whom nobody here trusts: something on the way may answer in the server's place"
                ),
                0.1,
            );
        }
        judgement
    }
}

/// Beyond what a region's own network takes.
const FAR: Duration = Duration::from_millis(10);
/// Seldom within a region.
const SOME_WAY_OFF: Duration = Duration::from_millis(8);
const NEAR: Duration = Duration::from_millis(2);

/// Segments beside those of a near destination.
struct Smaller {
    by: i64,
    mss: u32,
    beside: String,
    /// Against another connection, not against a device's MTU.
    is_measured: bool,
}

impl Smaller {
    /// IPIP takes 20 bytes, the least of all tunnels.
    fn is_tunnel(&self) -> bool {
        self.by >= 20
    }
}

impl std::fmt::Display for Smaller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "segments of {} bytes beside {}", self.mss, self.beside)
    }
}

fn strange_issuer(leg: &Leg) -> Option<&str> {
    let is_strange = |fault: &TlsFault| matches!(fault, TlsFault::UnknownIssuer { .. });
    let refused = leg.tls.outcome.fault().is_some_and(is_strange);
    let pardoned = leg.tls.unverified.as_ref().is_some_and(is_strange);
    (refused || pardoned).then(|| leg.tls.chain.first().map(|leaf| leaf.issuer.as_str()))?
}

// ---- the rules ----------------------------------------------------------------------------------

/// This machine itself.
fn own_address(case: &Case<'_>) -> Option<Judgement> {
    let purpose = ranges::special(case.address).map(|special| special.purpose);
    match (purpose, case.route) {
        (Some(Purpose::Loopback), _) => Some(
            Judgement::intranet(Some(IntranetKind::HostLocal), 0.99).fact(
                Signal::AddressRange,
                format!("{} is a loopback address", case.address),
            ),
        ),
        (_, Some(RouteOutcome::Local { device })) if device == IPVS_DEVICE => Some(
            Judgement::intranet(Some(IntranetKind::ClusterService), 0.95).fact(
                Signal::Route,
                format!(
                    "{} is on {device}, where kube-proxy has Services",
                    case.address
                ),
            ),
        ),
        (_, Some(RouteOutcome::Local { device })) => Some(
            Judgement::intranet(Some(IntranetKind::HostLocal), 0.95).fact(
                Signal::Route,
                format!(
                    "{} is this machine's own address, on {device}",
                    case.address
                ),
            ),
        ),
        (Some(Purpose::LinkLocal), _) => Some(
            Judgement::intranet(Some(IntranetKind::HostLocal), 0.8).fact(
                Signal::AddressRange,
                format!("{} is link-local: no router passes it on", case.address),
            ),
        ),
        _ => None,
    }
}

/// kube-proxy in IPVS mode puts the addresses of Services on it.
const IPVS_DEVICE: &str = "kube-ipvs0";

/// A Service of the cluster.
fn cluster_service(case: &Case<'_>) -> Option<Judgement> {
    let vantage = case.place.vantage;
    let service = |score, says: String| {
        let new = Judgement::intranet(Some(IntranetKind::ClusterService), score);
        Some(new.fact(Signal::AddressRange, says))
    };
    let declared = &vantage.declared.service_cidrs;
    if let Some(net) = declared.iter().find(|net| net.contains(&case.address)) {
        return service(
            0.95,
            format!(
                "{} is in {net}, declared as the range of Services",
                case.address
            ),
        );
    }
    let api_server = vantage.service_host?;
    if api_server == case.address {
        return service(0.95, format!("{api_server} is the API server's Service"));
    }
    // The size of the range is not known; clusters have /12 to /22 as a rule.
    let length = if api_server.is_ipv4() { 20 } else { 112 };
    let around = IpNet::new(api_server, length).ok()?.trunc();
    let is_elsewhere =
        case.mapped().is_some() || case.vpc_range().is_some() || case.link().is_some();
    if !around.contains(&case.address) || is_elsewhere {
        return None;
    }
    service(
        0.7,
        format!(
            "{} is near the API server's Service {api_server}; network.service_cidrs would make it sure",
            case.address
        ),
    )
}

/// A tunnel device of this host carries it.
fn tunnel_of_this_host(case: &Case<'_>) -> Option<Judgement> {
    let (device, kind, matched) = case.tunnel()?;
    // All traffic goes by the tunnel: what comes behind it is another matter.
    if !case.is_private() && matched.is_none_or(|net| net.prefix_len() == 0) {
        return None;
    }
    let mut judgement = Judgement::new(PathClass::DirectConnectVpn, 0.95).fact(
        Signal::Route,
        format!(
            "the kernel sends {} by {device}, a tunnel of this host ({kind})",
            case.address
        ),
    );
    judgement.attributes.vpn_on_host = true;
    if let Some(mapped) = case.mapped()
        && mapped.class != MappedClass::DirectConnectVpn
    {
        judgement = judgement.but(
            Signal::OperatorMap,
            format!("{}, yet the kernel's route counts", shown(mapped)),
            0.05,
        );
    }
    Some(judgement)
}

impl Case<'_> {
    /// The tunnel device by which the kernel sends, its kind, and the route that says so.
    fn tunnel(&self) -> Option<(&str, &str, Option<IpNet>)> {
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

/// A device that carries packets inside others, and is none of a CNI plugin's.
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

fn shown(mapped: &MappedCidr) -> String {
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

/// What the operator declares.
fn declared_range(case: &Case<'_>) -> Option<Judgement> {
    let mapped = case.mapped()?;
    let (class, kind) = match mapped.class {
        MappedClass::Intranet => (PathClass::Intranet, None),
        MappedClass::CloudService => (PathClass::Intranet, Some(IntranetKind::CloudService)),
        MappedClass::VpcEndpoint => (PathClass::Intranet, Some(IntranetKind::VpcEndpoint)),
        MappedClass::VpcPeering => (PathClass::VpcPeering, None),
        MappedClass::DirectConnectVpn => (PathClass::DirectConnectVpn, None),
        MappedClass::Public => {
            return public(case).map(|judgement| {
                let mut judgement = judgement;
                let fact = Fact::new(Signal::OperatorMap, shown(mapped));
                judgement.evidence.insert(0, fact);
                judgement
            });
        }
    };
    let mut judgement = Judgement::new(class, 0.95).fact(Signal::OperatorMap, shown(mapped));
    judgement.attributes.intranet = kind;
    judgement.declared = Some(class);
    // The route of the VPC itself beats all others: packets never leave for the far network.
    if class != PathClass::Intranet {
        let local = case
            .vpc_range()
            .map(|(net, what)| (net, what.to_owned(), Signal::Metadata))
            .or_else(|| {
                let (link, net) = case.link()?;
                let what = format!("the network on {}", link.name);
                Some((net.trunc(), what, Signal::OnLink))
            });
        if let Some((net, what, signal)) = local {
            let mut here = Judgement::new(PathClass::Intranet, 0.75)
                .fact(
                    signal,
                    format!(
                        "{} is in {net}, {what}, whose route is local and counts",
                        case.address
                    ),
                )
                .but(
                    Signal::OperatorMap,
                    format!("{}: two networks use the address", shown(mapped)),
                    0.0,
                );
            here.overlap = true;
            here.declared = Some(class);
            return Some(here);
        }
    }
    if class == PathClass::DirectConnectVpn {
        judgement = supported(case, judgement);
    }
    Some(judgement)
}

/// Figures that fit a leased line or a tunnel.
fn supported(case: &Case<'_>, judgement: Judgement) -> Judgement {
    let mut judgement = judgement;
    if let Some(smaller) = case.smaller_by().filter(Smaller::is_tunnel) {
        judgement = judgement.fact(Signal::SegmentSize, format!("{smaller}: a tunnel"));
    }
    if let Some(rtt) = case.rtt() {
        judgement = judgement.fact(
            Signal::RoundTrip,
            format!("a round trip takes {}", Took(rtt)),
        );
    }
    judgement
}

/// What the cloud says of the VPC.
fn range_of_the_vpc(case: &Case<'_>) -> Option<Judgement> {
    let (net, what) = case.vpc_range()?;
    let judgement = Judgement::intranet(None, 0.93).fact(
        Signal::Metadata,
        format!(
            "{} is in {net}, {what}, as the metadata service says",
            case.address
        ),
    );
    Some(judgement)
}

/// The network on one of our own interfaces.
fn on_link(case: &Case<'_>) -> Option<Judgement> {
    let (link, net) = case.link()?;
    let judgement = Judgement::intranet(None, 0.9).fact(
        Signal::OnLink,
        format!(
            "{} is in {}, the network on {}",
            case.address,
            net.trunc(),
            link.name
        ),
    );
    Some(judgement)
}

/// The provider's own services.
fn provider_service(case: &Case<'_>) -> Option<Judgement> {
    let is_huaweis_name = |host: &str| {
        let host = host.to_ascii_lowercase();
        host.ends_with(".myhuaweicloud.com") || host.ends_with(".otc.t-systems.com")
    };
    let host = case.leg.dialled().to_string();
    if let Some(sign) = &case.place.vantage.provider
        && let Some(range) = ranges::service(sign.provider, case.address)
    {
        let is_sure = sign.by != ProviderBy::NameServers || is_huaweis_name(&host);
        let score = if is_sure {
            range.score
        } else {
            range.score.min(0.8)
        };
        let judgement = Judgement::intranet(Some(IntranetKind::CloudService), score)
            .fact(
                Signal::AddressRange,
                format!("{} is in the range of {}", case.address, range.of),
            )
            .fact(Signal::AddressRange, format!("the provider is {sign}"));
        return Some(judgement);
    }
    if is_huaweis_name(&host) && ranges::is_huawei_service(case.address) {
        let judgement = Judgement::intranet(Some(IntranetKind::CloudService), 0.85)
            .fact(
                Signal::AddressRange,
                format!("{} is in a service range of Huawei Cloud", case.address),
            )
            .fact(Signal::Name, format!("{host} is a name of that provider"));
        return Some(judgement);
    }
    None
}

/// A private address that nothing above knows.
fn private(case: &Case<'_>) -> Option<Judgement> {
    let special = ranges::special(case.address)?;
    if special.purpose == Purpose::Nat64 {
        return None;
    }
    let mut judgement = Judgement::new(PathClass::PrivateUnmapped, 0.3).fact(
        Signal::AddressRange,
        format!(
            "{} is in {}, {}, and in no range that is known here",
            case.address, special.net, special.name
        ),
    );
    let (mut far, mut near) = (0, 0);
    let smaller = case.smaller_by();
    if let Some(smaller) = smaller.as_ref().filter(|s| s.is_tunnel()) {
        far += if smaller.is_measured { 3 } else { 2 };
        judgement = judgement.fact(Signal::SegmentSize, format!("{smaller}: a tunnel"));
    }
    if let Some(rtt) = case.rtt() {
        let says = format!("a round trip takes {}", Took(rtt));
        if rtt > SOME_WAY_OFF {
            far += 2;
            judgement = judgement.fact(Signal::RoundTrip, format!("{says}, long for one region"));
        } else if rtt < NEAR && smaller.as_ref().is_none_or(|s| !s.is_tunnel()) {
            near += 2;
            judgement = judgement.fact(Signal::RoundTrip, format!("{says}, as within a region"));
        } else {
            judgement = judgement.fact(Signal::RoundTrip, says);
        }
    }
    if case
        .leg
        .transport
        .and_then(|t| t.receive_mss)
        .is_some_and(|mss| mss > JUMBO)
    {
        near += 2;
        judgement = judgement.fact(
            Signal::SegmentSize,
            "segments come larger than an Ethernet frame: jumbo frames stay within a cloud",
        );
    }
    let of = |points: i32, others: i32| match points {
        3.. if others == 0 => Confidence::Medium,
        _ => Confidence::Low,
    };
    let candidate = |class, confidence| Candidate { class, confidence };
    let remote = candidate(PathClass::DirectConnectVpn, of(far, near));
    let peered = candidate(PathClass::VpcPeering, of(near, far));
    let here = candidate(PathClass::Intranet, of(near, far));
    judgement.candidates = if far > near {
        vec![remote, peered, here]
    } else {
        vec![peered, here, remote]
    };
    if far >= 3 && near == 0 {
        judgement.score = 0.6;
    }
    judgement.knobs.push(format!(
        "declare it under network.cidrs of --config: `- {{cidr: {}, class: {}}}` (or {})",
        neighbourhood(case.address),
        judgement.candidates[0].class,
        judgement.candidates[1..]
            .iter()
            .map(|candidate| candidate.class.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    ));
    Some(judgement)
}

/// A frame of 1500 bytes carries 1460.
const JUMBO: u32 = 1460;

/// A range around an address, for a line of configuration.
fn neighbourhood(address: IpAddr) -> IpNet {
    let length = if address.is_ipv4() { 24 } else { 64 };
    IpNet::new(address, length).map_or_else(|_| address.into(), |net| net.trunc())
}

/// An IPv4 address behind NAT64: the translator has source addresses that many share.
fn behind_nat64(case: &Case<'_>) -> Option<Judgement> {
    case.nat64.as_ref()?;
    Some(match case.answers {
        Reachability::Reachable | Reachability::Refused => {
            Judgement::new(PathClass::PublicSnat, 0.9).fact(
                Signal::Egress,
                "NAT64 translates to IPv4 addresses that many share",
            )
        }
        _ => Judgement::new(PathClass::PublicUnknown, 0.5),
    })
}

// ---- the public network -------------------------------------------------------------------------

/// A public address: whether our packets get there by SNAT, by an EIP, or as they are.
fn public(case: &Case<'_>) -> Option<Judgement> {
    let mut judgement = case.egress();
    if let Some((device, kind, _)) = case.tunnel() {
        judgement.attributes.vpn_on_host = true;
        judgement = judgement.fact(
            Signal::Route,
            format!("all traffic leaves by {device}, a tunnel of this host ({kind})"),
        );
    }
    if let Host::Name(name) = &case.leg.endpoint.host
        && ranges::is_provider_service(name)
        && case.rtt().is_some_and(|rtt| rtt < Duration::from_millis(3))
    {
        judgement = judgement.fact(
            Signal::RoundTrip,
            "it is a cloud's own service and very near: a gateway endpoint may carry it, which addresses do not show",
        );
    }
    Some(judgement)
}

/// A public address that this place is said to have.
pub(super) struct Claim {
    pub(super) address: IpAddr,
    pub(super) of: EipOf,
    says: String,
}

impl Place<'_> {
    /// The claims that hold for the network this probe is in: a pod's EIP is of no use to the node,
    /// whose network pulls.
    pub(super) fn claims(&self, family: Family) -> Vec<Claim> {
        let vantage = self.vantage;
        let mut claims = Vec::new();
        if let Some(eip) = &vantage.pod_eip
            && vantage.network != NetworkView::Node
            && let Some(address) = eip.allocated
        {
            claims.push(Claim {
                address,
                of: EipOf::Pod,
                says: format!("{address} is the pod's EIP by {}", eip.source),
            });
        }
        for address in &vantage.node_external_ips {
            claims.push(Claim {
                address: *address,
                of: EipOf::Node,
                says: format!("{address} is an ExternalIP of the node"),
            });
        }
        let told = vantage.metadata.facts().and_then(|f| f.public.as_ref());
        for address in told.into_iter().flatten() {
            claims.push(Claim {
                address: *address,
                of: EipOf::Node,
                says: format!(
                    "{address} is the machine's public address, as the metadata service says"
                ),
            });
        }
        claims.retain(|claim| Family::of(claim.address) == family);
        claims
    }

    /// The pod waits for an EIP that it asked for, and has not waited for long.
    pub(super) fn waits_for_eip(&self) -> bool {
        let in_pod = self.vantage.network != NetworkView::Node;
        self.vantage.pod_eip.as_ref().is_some_and(|eip| {
            in_pod
                && eip.wanted == Some(true)
                && eip.allocated.is_none()
                && eip.container_age.is_none_or(|age| age < EIP_COMES_WITHIN)
        })
    }

    /// What is said of the machine holds for our packets: we are on it, or it translates its pods'.
    pub(super) fn speaks_for_machine(&self) -> bool {
        let on_it = matches!(
            self.vantage.network,
            NetworkView::Node | NetworkView::Machine
        );
        let translates = matches!(
            self.vantage.declared.cluster_network,
            Some(ClusterNetwork::Vpc | ClusterNetwork::Tunnel)
        );
        on_it || translates
    }

    /// In a pod that has an address of the VPC's.
    fn has_own_address(&self) -> bool {
        !self.speaks_for_machine()
            && matches!(
                self.vantage.declared.cluster_network,
                Some(ClusterNetwork::CloudNative2 | ClusterNetwork::Autopilot)
            )
    }
}

impl Place<'_> {
    /// The longest of the declared ranges that hold the address.
    fn mapped(&self, address: IpAddr) -> Option<&MappedCidr> {
        let cidrs = self.vantage.declared.cidrs.iter();
        cidrs
            .filter(|mapped| mapped.cidr.contains(&address.to_canonical()))
            .max_by_key(|mapped| mapped.cidr.prefix_len())
    }

    /// Of the public network, by what is declared or else by the registries.
    pub(super) fn is_public(&self, address: IpAddr) -> bool {
        match self.mapped(address) {
            Some(mapped) => mapped.class == MappedClass::Public,
            None => ranges::special(address).is_none(),
        }
    }
}

/// Huawei Cloud's own init container waits as long for the annotation.
const EIP_COMES_WITHIN: Duration = Duration::from_mins(1);

impl Case<'_> {
    fn egress(&self) -> Judgement {
        let family = self.family();
        let place = self.place;
        if matches!(
            self.answers,
            Reachability::Unreachable | Reachability::NotTried | Reachability::Unresolved
        ) {
            return Judgement::new(PathClass::PublicUnknown, 0.3).fact(
                Signal::AddressRange,
                format!("{} is a public address", self.address),
            );
        }
        let seen: Vec<&(EgressMethod, EgressSeen)> = place.seen_of(family).collect();
        let mut addresses: Vec<IpAddr> = seen.iter().map(|(_, seen)| seen.address).collect();
        addresses.sort_unstable();
        addresses.dedup();
        if let Some(direct) = self.direct(&addresses) {
            return direct;
        }
        if place.waits_for_eip() {
            let mut pending = Judgement::new(PathClass::PublicUnknown, 0.3).fact(
                Signal::Claim,
                "the pod asks for an EIP and has none yet; until it has, its packets may go by SNAT",
            );
            pending.attributes.pending = true;
            pending.knobs.push(
                "ask again in a minute: the annotation comes after the container has started"
                    .to_owned(),
            );
            return pending;
        }
        let judgement = if addresses.is_empty() {
            self.by_claims(family)
        } else {
            self.by_egress(family, &seen, &addresses)
        };
        self.undone_eip(judgement)
    }

    /// The pod's EIP never came.
    fn undone_eip(&self, judgement: Judgement) -> Judgement {
        let is_late = self.place.vantage.pod_eip.as_ref().is_some_and(|eip| {
            eip.wanted == Some(true)
                && eip.allocated.is_none()
                && self.place.vantage.network != NetworkView::Node
        });
        if !is_late {
            return judgement;
        }
        judgement.but(
            Signal::Claim,
            "the pod asks for an EIP and has got none for over a minute: its events say why",
            0.1,
        )
    }

    /// The interface itself has a public address, and packets leave with it.
    fn direct(&self, seen: &[IpAddr]) -> Option<Judgement> {
        let local = self.connection?.local.ip().to_canonical();
        if ranges::special(local).is_some() {
            return None;
        }
        let direct = Judgement::new(PathClass::PublicDirect, 0.9).fact(
            Signal::OnLink,
            format!("packets leave with {local}, a public address of this machine"),
        );
        if seen.contains(&local) {
            let mut direct = direct.fact(Signal::Egress, format!("others see {local}"));
            direct.score = 0.95;
            return Some(direct);
        }
        match (seen.first(), local.is_ipv6()) {
            // It is translated all the same.
            (Some(_), _) => None,
            (None, true) => Some(direct),
            (None, false) => {
                let mut direct = direct;
                direct.score = 0.8;
                Some(direct)
            }
        }
    }

    /// By the address that others see.
    fn by_egress(
        &self,
        family: Family,
        seen: &[&(EgressMethod, EgressSeen)],
        addresses: &[IpAddr],
    ) -> Judgement {
        let place = self.place;
        let claims = place.claims(family);
        let list = join(addresses);
        let methods = join_unique(seen.iter().map(|(method, _)| method.as_str()));
        let says = format!("others see {list} ({methods})");
        let stale = |judgement: Judgement| {
            let mut judgement = judgement;
            for claim in claims
                .iter()
                .filter(|claim| !addresses.contains(&claim.address))
            {
                let cost = if claim.of == EipOf::Pod { 0.1 } else { 0.05 };
                judgement = judgement.but(
                    Signal::Claim,
                    format!("{}, yet others see {list}", claim.says),
                    cost,
                );
            }
            judgement
        };
        if let Some(claim) = claims.iter().find(|c| addresses.contains(&c.address)) {
            let mut eip = Judgement::new(PathClass::PublicEip, 0.95)
                .fact(Signal::Egress, says)
                .fact(Signal::Claim, claim.says.clone());
            eip.attributes.eip_of = Some(claim.of);
            if addresses.len() > 1 {
                eip = eip.but(
                    Signal::Egress,
                    "other addresses are seen beside it: a proxy, or SNAT for some destinations",
                    0.15,
                );
            }
            return eip;
        }
        let known = &place.vantage.declared.snat_addresses;
        if addresses.iter().all(|address| known.contains(address)) {
            let mut snat = Judgement::new(PathClass::PublicSnat, 0.95)
                .fact(Signal::Egress, says)
                .fact(
                    Signal::OperatorMap,
                    format!("{list} is declared in network.snat_addresses"),
                );
            snat.attributes.snat_pool = addresses.len() > 1;
            return stale(snat);
        }
        if addresses.len() > 1 {
            let mut snat = Judgement::new(PathClass::PublicSnat, 0.85)
                .fact(Signal::Egress, format!("{says}: a pool"));
            snat.attributes.snat_pool = true;
            return stale(snat);
        }
        let own_ports_changed = seen.iter().any(|(_, seen)| seen.port_was_changed());
        let in_pod = matches!(
            place.vantage.network,
            NetworkView::Pod | NetworkView::PodOrNode
        );
        if own_ports_changed {
            // The node translates a pod's packets too, and says nothing of the way behind it.
            let score = if in_pod { 0.6 } else { 0.8 };
            let snat = Judgement::new(PathClass::PublicSnat, score)
                .fact(Signal::Egress, says)
                .fact(
                    Signal::Egress,
                    "source ports are changed on the way, as only a translation of many to one does",
                );
            return stale(snat);
        }
        let says_none = self.says_that_there_is_none();
        if let Some(fact) = says_none {
            let snat = Judgement::new(PathClass::PublicSnat, 0.85)
                .fact(Signal::Egress, says)
                .fact(fact.signal, fact.says);
            return stale(snat);
        }
        if claims.iter().any(|claim| claim.of == EipOf::Pod || !in_pod) {
            let snat = Judgement::new(PathClass::PublicSnat, 0.75).fact(
                Signal::Egress,
                format!("{says}, which is no address that this place is said to have"),
            );
            return stale(snat);
        }
        let mut unknown = Judgement::new(PathClass::PublicUnknown, 0.4).fact(Signal::Egress, says);
        unknown.candidates = both();
        unknown.knobs.push(format!(
            "if {list} is the NAT gateway's, declare it in network.snat_addresses; if it is an EIP of the node, in network.node_external_ips"
        ));
        unknown
    }

    /// Somebody who must know says that there is no EIP here.
    fn says_that_there_is_none(&self) -> Option<Fact> {
        let place = self.place;
        let told = place
            .vantage
            .metadata
            .facts()
            .and_then(|f| f.public.as_ref());
        if told.is_some_and(Vec::is_empty) && place.speaks_for_machine() {
            return Some(Fact::new(
                Signal::Metadata,
                "the metadata service says that this machine has no public address",
            ));
        }
        let eip = place.vantage.pod_eip.as_ref()?;
        let is_pods =
            place.has_own_address() && eip.wanted == Some(false) && eip.allocated.is_none();
        is_pods.then(|| {
            Fact::new(
                Signal::Claim,
                format!("by {} the pod has no EIP", eip.source),
            )
        })
    }

    /// Nobody was asked what they see: by what is said of this place.
    fn by_claims(&self, family: Family) -> Judgement {
        let place = self.place;
        let claims = place.claims(family);
        let holds = |claim: &&Claim| claim.of == EipOf::Pod || place.speaks_for_machine();
        if let Some(claim) = claims.iter().find(holds) {
            let mut eip = Judgement::new(PathClass::PublicEip, 0.75)
                .fact(Signal::Claim, claim.says.clone())
                .fact(
                    Signal::AddressRange,
                    "an EIP outranks SNAT, where there are both",
                );
            eip.attributes.eip_of = Some(claim.of);
            eip.knobs.push(EGRESS_KNOB.to_owned());
            return eip;
        }
        if let Some(fact) = self.says_that_there_is_none() {
            let mut snat = Judgement::new(PathClass::PublicSnat, 0.7).fact(fact.signal, fact.says);
            snat.knobs.push(EGRESS_KNOB.to_owned());
            return snat;
        }
        let mut unknown = Judgement::new(PathClass::PublicUnknown, 0.3).fact(
            Signal::AddressRange,
            format!(
                "{} is a public address, and nothing tells whether packets leave by SNAT or by an EIP",
                self.address
            ),
        );
        unknown.candidates = both();
        unknown.knobs.push(EGRESS_KNOB.to_owned());
        if !place.speaks_for_machine() && place.vantage.declared.cluster_network.is_none() {
            unknown.knobs.push(
                "network.cluster_network: whether the node translates its pods' packets, so that its EIP counts, or pods have addresses of the VPC".to_owned(),
            );
        }
        unknown
    }
}

const EGRESS_KNOB: &str = "network.egress of --config: a STUN server or an echo (best beside the registry) shows the address that packets leave with";

fn both() -> Vec<Candidate> {
    [PathClass::PublicSnat, PathClass::PublicEip]
        .map(|class| Candidate {
            class,
            confidence: Confidence::Low,
        })
        .to_vec()
}

fn join(addresses: &[IpAddr]) -> String {
    let words: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    words.join(", ")
}

fn join_unique<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut all: Vec<&str> = words.collect();
    all.sort_unstable();
    all.dedup();
    all.join(", ")
}
