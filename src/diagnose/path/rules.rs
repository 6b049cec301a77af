//! The table of rules: each inspects one kind of evidence about an address, and the first that applies decides
//! the class. They are ordered by reliability: what the kernel does with a packet, what the configuration
//! declares, what the cloud reports, and only then what measurements suggest.

use std::net::IpAddr;

use ipnet::IpNet;

use super::advice;
use super::case::{Case, Judgement, NEAR, SOME_WAY_OFF, Smaller, shown};
use super::context::PathContext;
use super::leg_path::{Candidate, Choice, Fact, Reachability, Suggestion};
use super::public::judge as public_network;
use super::ranges::{self, Purpose};
use crate::diagnose::level::Confidence;
use crate::model::evidence::Leg;
use crate::model::network::{IPVS_DEVICE, MappedClass, ProviderBy, RouteOutcome};
use crate::model::path::{IntranetKind, PathClass, Signal};
use crate::model::units::HumanDuration;

type Rule = fn(&Case<'_>) -> Option<Judgement>;

const RULES: &[Rule] = &[
    own_address,
    cluster_service,
    containers,
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
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    answers: Reachability,
) -> Judgement {
    let case = Case::new(context, leg, address, answers);
    let mut judgement = RULES
        .iter()
        .find_map(|rule| rule(&case))
        .unwrap_or_else(|| Judgement::new(PathClass::PublicUnknown, 0.0));
    if let Some(message) = &case.nat64 {
        judgement.attributes.nat64 = true;
        judgement
            .evidence
            .insert(0, Fact::new(Signal::AddressRange, message.clone()));
    }
    if let Some((v4, prefix)) = case.look_alike {
        judgement = judgement.fact(
            Signal::AddressRange,
            format!(
                "the address has the name's own {v4} behind {prefix}: it is one of NAT64 if {prefix} is a translator's prefix, which is unknown"
            ),
        );
        judgement.score = judgement.score.min(0.85);
        judgement.suggestions.push(Suggestion {
            setting: Some(format!("nat64_prefixes: [\"{prefix}\"]")),
            ..Suggestion::new(format!(
                "declare {prefix} in network.nat64_prefixes if it is the prefix of this network's NAT64 gateway"
            ))
        });
    }
    case.compare(judgement)
}

/// This machine itself.
fn own_address(case: &Case<'_>) -> Option<Judgement> {
    let address = case.address;
    let new = |kind, score, signal, message: String| {
        Some(Judgement::intranet(Some(kind), score).fact(signal, message))
    };
    let purpose = ranges::special(address).map(|special| special.purpose);
    match (purpose, case.route) {
        (Some(Purpose::Loopback), _) => {
            let message = format!("{address} is a loopback address");
            new(IntranetKind::HostLocal, 0.99, Signal::AddressRange, message)
        }
        (_, Some(RouteOutcome::Local { device })) if device == IPVS_DEVICE => {
            let message = format!(
                "{address} is on {device}, where kube-proxy puts the addresses of Services"
            );
            new(IntranetKind::ClusterService, 0.95, Signal::Route, message)
        }
        (_, Some(RouteOutcome::Local { device })) => {
            let message = format!("{address} is this machine's own address, on {device}");
            let own = Judgement::intranet(Some(IntranetKind::HostLocal), 0.95)
                .fact(Signal::Route, message);
            let mut own = against_map(case, own);
            own.overlap_fix = own.overlap.then(|| advice::own_address(address, device));
            Some(own)
        }
        (Some(Purpose::LinkLocal), _) => {
            let message = format!("{address} is link-local: routers don't forward it");
            new(IntranetKind::HostLocal, 0.8, Signal::AddressRange, message)
        }
        _ => None,
    }
}

/// A Service of the cluster.
fn cluster_service(case: &Case<'_>) -> Option<Judgement> {
    let vantage = case.context.vantage;
    let service = |score, message: String| {
        let new = Judgement::intranet(Some(IntranetKind::ClusterService), score);
        Some(new.fact(Signal::AddressRange, message))
    };
    let declared = &vantage.declared.service_cidrs;
    let address = case.address;
    if let Some(net) = declared.iter().find(|net| net.contains(&address)) {
        let message = format!("{address} is in {net}, declared as the range of Services");
        return service(0.95, message);
    }
    let api_server = vantage.service_host?;
    if api_server == address {
        return service(0.95, format!("{api_server} is the API server's Service"));
    }
    // The size of the range is unknown; clusters usually have /12 to /22.
    let length = if api_server.is_ipv4() { 20 } else { 112 };
    let around = IpNet::new(api_server, length).ok()?.trunc();
    let is_elsewhere =
        case.mapped().is_some() || case.vpc_range().is_some() || case.link().is_some();
    if !around.contains(&address) || is_elsewhere {
        return None;
    }
    service(
        0.7,
        format!(
            "{address} is near the API server's Service {api_server}; network.service_cidrs would confirm it"
        ),
    )
}

/// The kernel sends the address to containers of this host, or to pods of the cluster: no packet gets to another network,
/// whatever is declared.
fn containers(case: &Case<'_>) -> Option<Judgement> {
    let found = case.container()?;
    let (address, device, what) = (case.address, found.device, found.what);
    let link = case.link().filter(|(link, _)| link.name == device);
    let message = match (link, found.matched) {
        (Some((_, net)), _) => {
            format!(
                "{address} is in {}, the network of {device} ({what})",
                net.trunc()
            )
        }
        (None, Some(net)) => {
            format!("the kernel sends {address} to {device} ({what}) by its route for {net}")
        }
        (None, None) => format!("the kernel sends {address} to {device} ({what})"),
    };
    let mut judgement = Judgement::intranet(Some(found.kind), 0.9).fact(Signal::Route, message);
    let is_public = ranges::special(address).is_none();
    // No name leads to a pod's own address, as a rule: another network has the registry.
    let is_missed = case.is_lost() || case.is_other_host();
    if is_missed && (found.kind == IntranetKind::ClusterPods || is_public) {
        judgement.overlap = true;
    }
    judgement.overlap_fix = Some(match found.kind {
        IntranetKind::ClusterPods => advice::in_pod_range(address, device, found.matched),
        _ => advice::on_this_host(address),
    });
    Some(against_map(case, judgement))
}

/// Adds that the configuration declares the address as one of another network.
fn against_map(case: &Case<'_>, mut judgement: Judgement) -> Judgement {
    let Some(mapped) = case.mapped() else {
        return judgement;
    };
    let Some(class) = far_class(mapped.class) else {
        return judgement;
    };
    judgement = judgement.but(
        Signal::OperatorMap,
        format!(
            "{}: two networks use the address, and the kernel's route takes precedence",
            shown(mapped)
        ),
        0.15,
    );
    judgement.overlap = true;
    judgement.declared = Some(class);
    judgement
}

/// The class of a range that is declared as one of another network.
fn far_class(class: MappedClass) -> Option<PathClass> {
    match class {
        MappedClass::VpcPeering => Some(PathClass::VpcPeering),
        MappedClass::DirectConnectVpn => Some(PathClass::DirectConnectVpn),
        MappedClass::Intranet
        | MappedClass::CloudService
        | MappedClass::VpcEndpoint
        | MappedClass::Public => None,
    }
}

/// The address is reached through a tunnel device of this host.
fn tunnel_of_this_host(case: &Case<'_>) -> Option<Judgement> {
    let (device, kind, matched) = case.tunnel()?;
    // All traffic uses the tunnel: the path beyond it is classified separately.
    if !case.is_private() && matched.is_none_or(|net| net.prefix_len() == 0) {
        return None;
    }
    let address = case.address;
    let message =
        format!("the kernel routes {address} through {device}, a tunnel of this host ({kind})");
    let mut judgement =
        Judgement::new(PathClass::DirectConnectVpn, 0.95).fact(Signal::Route, message);
    judgement.attributes.vpn_on_host = true;
    if let Some(mapped) = case.mapped()
        && mapped.class != MappedClass::DirectConnectVpn
    {
        let message = format!("{}, but the kernel's route takes precedence", shown(mapped));
        judgement = judgement.but(Signal::OperatorMap, message, 0.05);
    }
    Some(judgement)
}

/// All other addresses are public.
#[expect(clippy::unnecessary_wraps, reason = "as all rules")]
fn public(case: &Case<'_>) -> Option<Judgement> {
    Some(public_network(case))
}

/// A range that the configuration declares.
fn declared_range(case: &Case<'_>) -> Option<Judgement> {
    let mapped = case.mapped()?;
    let (class, kind) = match mapped.class {
        MappedClass::Intranet => (PathClass::Intranet, None),
        MappedClass::CloudService => (PathClass::Intranet, Some(IntranetKind::CloudService)),
        MappedClass::VpcEndpoint => (PathClass::Intranet, Some(IntranetKind::VpcEndpoint)),
        MappedClass::VpcPeering => (PathClass::VpcPeering, None),
        MappedClass::DirectConnectVpn => (PathClass::DirectConnectVpn, None),
        MappedClass::Public => {
            let mut judgement = public_network(case);
            let fact = Fact::new(Signal::OperatorMap, shown(mapped));
            judgement.evidence.insert(0, fact);
            return Some(judgement);
        }
    };
    let mut judgement = Judgement::new(class, 0.95).fact(Signal::OperatorMap, shown(mapped));
    judgement.attributes.intranet = kind;
    judgement.declared = Some(class);
    // The VPC's own local route takes precedence over all others: packets never reach the far network.
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
                        "{} is in {net}, {what}, whose local route takes precedence",
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
        if let Some(own) = case.own_range_beside_metadata() {
            return Some(within_own_range(
                case,
                judgement,
                &shown(mapped),
                &shown(own),
            ));
        }
    }
    if class == PathClass::DirectConnectVpn {
        judgement = supported(case, judgement);
    }
    Some(judgement)
}

/// A range of another network inside one that is declared as a part of this VPC. If a subnet here has the address, its
/// local route takes precedence; if none has it, the packets leave.
fn within_own_range(case: &Case<'_>, declared: Judgement, far: &str, own: &str) -> Judgement {
    let is_silent = case.is_lost();
    if !is_silent && !case.is_other_host() {
        let message = format!(
            "{own} as well: if a subnet of this VPC has the address, its local route takes precedence"
        );
        return declared.but(Signal::OperatorMap, message, 0.1);
    }
    let mut here = Judgement::new(PathClass::Intranet, 0.75)
        .fact(
            Signal::OperatorMap,
            format!("{own}, and the route of a subnet of this VPC takes precedence"),
        )
        .but(
            Signal::OperatorMap,
            format!("{far}: two networks use the address"),
            0.0,
        );
    if !is_silent {
        here = here.fact(
            Signal::Connect,
            "another host may answer in the place of the expected one",
        );
    }
    here.overlap = true;
    here.overlap_is_declared = true;
    here.declared = declared.declared;
    here
}

/// Adds measurements that fit a leased line or a tunnel.
fn supported(case: &Case<'_>, mut judgement: Judgement) -> Judgement {
    if let Some(smaller) = case.smaller_by().filter(Smaller::is_tunnel) {
        judgement = judgement.fact(
            Signal::SegmentSize,
            format!("{}: a tunnel", smaller.message),
        );
    }
    if let Some(rtt) = case.rtt() {
        let message = format!("the round-trip time is {}", HumanDuration(rtt));
        judgement = judgement.fact(Signal::RoundTrip, message);
    }
    judgement
}

/// A range of the VPC, from the metadata service.
fn range_of_the_vpc(case: &Case<'_>) -> Option<Judgement> {
    let (net, what) = case.vpc_range()?;
    let address = case.address;
    let message = format!("{address} is in {net}, {what} according to the metadata service");
    Some(Judgement::intranet(None, 0.93).fact(Signal::Metadata, message))
}

/// The network of an own interface.
fn on_link(case: &Case<'_>) -> Option<Judgement> {
    let (link, net) = case.link()?;
    // docker0, cni0, virbr0: these lead to no other host.
    let is_own_bridge = link.kind.as_deref() == Some("bridge")
        && !case.context.is_uplink(&link.name)
        && case.context.is_inside(&link.name);
    let (address, net, name) = (case.address, net.trunc(), &link.name);
    let (kind, message) = if is_own_bridge {
        let message =
            format!("{address} is in {net}, the network of {name}, a bridge inside this host");
        (Some(IntranetKind::HostLocal), message)
    } else {
        (
            None,
            format!("{address} is in {net}, the network on {name}"),
        )
    };
    Some(Judgement::intranet(kind, 0.9).fact(Signal::OnLink, message))
}

/// A range of the provider's own services.
fn provider_service(case: &Case<'_>) -> Option<Judgement> {
    let is_huaweis_name = |host: &str| {
        let host = host.to_ascii_lowercase();
        host.ends_with(".myhuaweicloud.com") || host.ends_with(".otc.t-systems.com")
    };
    let host = case.leg.dialed().to_string();
    if let Some(sign) = &case.context.vantage.provider
        && let Some(range) = ranges::service(sign.provider, case.address)
    {
        let is_sure = sign.by != ProviderBy::NameServers || is_huaweis_name(&host);
        let score = range.score.min(if is_sure { 1.0 } else { 0.8 });
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

/// A private address that no rule above recognizes.
fn private(case: &Case<'_>) -> Option<Judgement> {
    let special = ranges::special(case.address)?;
    if special.purpose == Purpose::Nat64 {
        return None;
    }
    let mut judgement = Judgement::new(PathClass::PrivateUnmapped, 0.3).fact(
        Signal::AddressRange,
        format!(
            "{} is in {}, {}, but in no range that is known here",
            case.address, special.net, special.name
        ),
    );
    let (mut far, mut near) = (0, 0);
    let smaller = case.smaller_by();
    if let Some(smaller) = smaller.as_ref().filter(|s| s.is_tunnel()) {
        far += if smaller.is_measured { 3 } else { 2 };
        judgement = judgement.fact(
            Signal::SegmentSize,
            format!("{}: a tunnel", smaller.message),
        );
    }
    if let Some(rtt) = case.rtt() {
        let message = format!("the round-trip time is {}", HumanDuration(rtt));
        if rtt > SOME_WAY_OFF {
            far += 2;
            judgement =
                judgement.fact(Signal::RoundTrip, format!("{message}, long for one region"));
        } else if rtt < NEAR && smaller.as_ref().is_none_or(|s| !s.is_tunnel()) {
            near += 2;
            judgement = judgement.fact(Signal::RoundTrip, format!("{message}, as within a region"));
        } else {
            judgement = judgement.fact(Signal::RoundTrip, message);
        }
    }
    let received = case.leg.transport.and_then(|t| t.receive_mss);
    if received.is_some_and(|mss| mss > JUMBO) {
        near += 2;
        judgement = judgement.fact(
            Signal::SegmentSize,
            "received segments are larger than an Ethernet frame: jumbo frames stay within a cloud",
        );
    }
    if let Some(hops) = case.hops() {
        let message = format!("the routers on the path are {}", hops.shown);
        judgement = judgement.fact(Signal::Hops, message);
        if hops.is_foreign {
            far += 1;
        }
        if hops.is_public {
            judgement = judgement.fact(
                Signal::Hops,
                "some of them have public addresses, but private addresses are not reached over the public network: either a tunnel hides the path, or an operator gives its own routers public addresses",
            );
        }
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
    judgement.suggestions.push(declaration(case.address));
    Some(judgement)
}

/// The TCP payload of a frame of 1500 bytes.
const JUMBO: u32 = 1460;

/// The settings that would decide the class of a private address. What decides between them can't be observed
/// from here, so none is offered as the default.
fn declaration(address: IpAddr) -> Suggestion {
    let net = ranges::neighbourhood(address);
    let choice = |(class, when): (PathClass, &str)| Choice {
        setting: format!("- {{cidr: \"{net}\", class: {class}}}"),
        when: when.to_owned(),
    };
    Suggestion {
        choices: [
            (
                PathClass::Intranet,
                "if the route is local: a range of this VPC",
            ),
            (
                PathClass::VpcPeering,
                "if the next hop is a peering connection",
            ),
            (
                PathClass::DirectConnectVpn,
                "if the next hop is a Direct Connect or VPN gateway",
            ),
        ]
        .map(choice)
        .to_vec(),
        ..Suggestion::new(format!(
            "declare how {net} is reached under network.cidrs; the route of this range in the VPC's route table decides which line is right"
        ))
    }
}

/// An IPv4 address behind NAT64: the translator's source addresses are shared.
fn behind_nat64(case: &Case<'_>) -> Option<Judgement> {
    case.nat64.as_ref()?;
    Some(match case.answers {
        Reachability::Reachable | Reachability::Refused => {
            Judgement::new(PathClass::PublicSnat, 0.9)
                .fact(Signal::Egress, "NAT64 translates to shared IPv4 addresses")
        }
        _ => Judgement::new(PathClass::PublicUnknown, 0.5),
    })
}
