//! One address of a leg with all that bears on it, and what a rule may say of it.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

use super::context::PathContext;
use super::leg_path::{Candidate, Fact, Reachability, Suggestion};
use super::ranges;
use crate::model::connect::{Connection, Dial};
use crate::model::evidence::Leg;
use crate::model::fault::TlsFault;
use crate::model::network::{Link, MappedCidr, MappedClass, RouteOutcome};
use crate::model::path::{IntranetKind, PathAttributes, PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::text::joined;
use crate::model::units::HumanDuration;

/// What a rule says of an address.
#[derive(Clone, Debug)]
pub(super) struct Judgement {
    pub(super) class: PathClass,
    pub(super) attributes: PathAttributes,
    pub(super) score: f64,
    pub(super) evidence: Vec<Fact>,
    pub(super) contradictions: Vec<Fact>,
    pub(super) candidates: Vec<Candidate>,
    pub(super) knobs: Vec<Suggestion>,
    /// The address is in a range of two networks.
    pub(super) overlap: bool,
    /// What the operator declares of the address.
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
            knobs: Vec::new(),
            overlap: false,
            declared: None,
        }
    }

    pub(super) fn intranet(kind: Option<IntranetKind>, score: f64) -> Self {
        let mut new = Self::new(PathClass::Intranet, score);
        new.attributes.intranet = kind;
        new
    }

    pub(super) fn fact(mut self, signal: Signal, says: impl Into<String>) -> Self {
        self.evidence.push(Fact::new(signal, says));
        self
    }

    /// Something speaks against it.
    pub(super) fn but(mut self, signal: Signal, says: impl Into<String>, cost: f64) -> Self {
        self.contradictions.push(Fact::new(signal, says));
        self.score -= cost;
        self
    }
}

/// One address of a leg, and all that bears on it.
pub(super) struct Case<'a> {
    pub(super) context: &'a PathContext<'a>,
    pub(super) leg: &'a Leg,
    /// The address whose class is asked for: behind NAT64, the IPv4 one.
    pub(super) address: IpAddr,
    pub(super) answers: Reachability,
    pub(super) route: Option<&'a RouteOutcome>,
    pub(super) connection: Option<&'a Connection>,
    pub(super) nat64: Option<String>,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        context: &'a PathContext<'a>,
        leg: &'a Leg,
        address: IpAddr,
        answers: Reachability,
    ) -> Self {
        let canonical = address.to_canonical();
        let embedded = behind_translator(leg, canonical);
        let dialled = |dial: &&Dial| dial.to.ip() == address;
        let (mut routes, mut dials) = (leg.routes.iter(), leg.connect.attempts.iter());
        Self {
            context,
            leg,
            address: embedded.as_ref().map_or(canonical, |(v4, _)| *v4),
            answers,
            route: routes
                .find(|one| one.to == canonical)
                .map(|one| &one.outcome),
            connection: dials.find(dialled).and_then(|dial| dial.outcome.done()),
            nat64: embedded.map(|(_, says)| says),
        }
    }
}

/// The IPv4 address that a translator makes of an IPv6 one: by the well-known prefix, or by one that
/// a DNS64 server shows by giving the name's own IPv4 address back inside it (RFC 6052, RFC 6147).
fn behind_translator(leg: &Leg, address: IpAddr) -> Option<(IpAddr, String)> {
    let IpAddr::V6(v6) = address else {
        return None;
    };
    if let Some(v4) = ranges::nat64(address) {
        let says = format!("{address} is {v4} behind NAT64 (RFC 6052)");
        return Some((v4.into(), says));
    }
    let v4 = ranges::last_four(v6);
    let queries = leg.resolve.queries.iter();
    let answers = queries.filter_map(|query| query.outcome.done());
    let is_of_the_name = answers
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
    pub(super) fn family(&self) -> Family {
        Family::of(self.address)
    }

    pub(super) fn is_private(&self) -> bool {
        ranges::special(self.address).is_some()
    }

    pub(super) fn rtt(&self) -> Option<Duration> {
        let at_connect = self.connection?.rtt;
        let later = self.leg.transport.and_then(|t| t.min_rtt);
        // The transport is that of the address connected to.
        let connected = self.leg.connect.outcome.done();
        let is_used = connected.is_some_and(|c| c.to.ip().to_canonical() == self.address);
        match (at_connect, later.filter(|_| is_used)) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// How many bytes smaller segments are than on the way to the baseline, or else than this
    /// machine's own device would have them.
    pub(super) fn smaller_by(&self) -> Option<Smaller> {
        let mss = self.connection?.send_mss?;
        let family = Family::of(self.connection?.local.ip());
        let smaller = |own: u32, beside: String, is_measured| Smaller {
            by: i64::from(own) - i64::from(mss),
            says: format!("segments of {mss} bytes beside {beside}"),
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
            // Headers, and the timestamps that Linux uses (RFC 7323).
            let headers = if family == Family::V4 { 52 } else { 72 };
            let own = mtu.saturating_sub(headers);
            Some(smaller(own, format!("{own} by the MTU of {device}"), false))
        })
    }

    pub(super) fn mapped(&self) -> Option<&MappedCidr> {
        self.context.mapped(self.address)
    }

    /// The prefix of an own interface that holds the address, where packets go there without a
    /// gateway.
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

    /// What the cloud says of the VPC's ranges.
    pub(super) fn vpc_range(&self) -> Option<(IpNet, &'static str)> {
        let facts = self.context.vantage.metadata.facts()?;
        let find = |nets: &[IpNet]| nets.iter().find(|n| n.contains(&self.address)).copied();
        find(&facts.vpc_cidrs)
            .map(|net| (net, "the VPC's range"))
            .or_else(|| find(&facts.subnet_cidrs).map(|net| (net, "this subnet's range")))
    }

    /// The routers on the way, where they were asked for and told.
    pub(super) fn hops(&self) -> Option<Hops> {
        let trace = self.leg.hops.as_ref()?;
        if trace.to.ip().to_canonical() != self.address {
            return None;
        }
        // The last is the destination itself, where that answers.
        let routers = trace.hops.iter().filter_map(|hop| hop.from);
        let told: Vec<IpAddr> = routers.filter(|from| *from != trace.to.ip()).collect();
        let links = self.context.vantage.links.iter();
        let own: Vec<IpNet> = links
            .flat_map(|link| &link.addresses)
            .filter_map(|net| IpNet::new(net.addr(), wide(net.addr())).ok())
            .collect();
        let is_special = |hop: &IpAddr| ranges::special(*hop).is_some();
        let is_foreign =
            |hop: &&IpAddr| is_special(hop) && !own.iter().any(|net| net.contains(*hop));
        Some(Hops {
            shown: joined(&told),
            is_foreign: told.iter().filter(is_foreign).count() > 0,
            is_public: told.iter().any(|hop| !is_special(hop)),
        })
        .filter(|hops| !hops.shown.is_empty())
    }

    /// Round trips and segments that do not fit the class.
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
                    "a round trip takes {}, more than within a region: the declared range may be wrong, or overlap another",
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
                    "{}: a tunnel is on the way, and there is none within a VPC or over peering",
                    smaller.says
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
pub(super) const SOME_WAY_OFF: Duration = Duration::from_millis(8);
pub(super) const NEAR: Duration = Duration::from_millis(2);

/// As much of an address as one network has in common, roughly.
fn wide(address: IpAddr) -> u8 {
    if address.is_ipv4() { 16 } else { 48 }
}

/// What routers on the way tell.
pub(super) struct Hops {
    pub(super) shown: String,
    /// Private ones of another range than ours.
    pub(super) is_foreign: bool,
    pub(super) is_public: bool,
}

/// Segments beside those of a near destination.
pub(super) struct Smaller {
    pub(super) by: i64,
    pub(super) says: String,
    /// Against another connection, not against a device's MTU.
    pub(super) is_measured: bool,
}

impl Smaller {
    /// IPIP takes 20 bytes, the least of all tunnels.
    pub(super) fn is_tunnel(&self) -> bool {
        self.by >= 20
    }
}

fn strange_issuer(leg: &Leg) -> Option<&str> {
    let is_strange = |fault: &TlsFault| matches!(fault, TlsFault::UnknownIssuer { .. });
    let refused = leg.tls.outcome.fault().is_some_and(is_strange);
    let pardoned = leg.tls.unverified.as_ref().is_some_and(is_strange);
    (refused || pardoned).then(|| leg.tls.chain.first().map(|leaf| leaf.issuer.as_str()))?
}

impl Case<'_> {
    /// The tunnel device by which the kernel sends, its kind, and the route that says so.
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

impl PathContext<'_> {
    /// The longest of the declared ranges that hold the address.
    fn mapped(&self, address: IpAddr) -> Option<&MappedCidr> {
        let cidrs = self.vantage.declared.cidrs.iter();
        cidrs
            .filter(|mapped| mapped.cidr.contains(&address.to_canonical()))
            .max_by_key(|mapped| mapped.cidr.prefix_len())
    }

    /// A default route leaves by the device.
    pub(super) fn is_uplink(&self, device: &str) -> bool {
        self.vantage.routes.iter().any(|route| {
            route.destination.prefix_len() == 0 && route.device.as_deref() == Some(device)
        })
    }

    /// Of the public network, by what is declared or else by the registries.
    pub(super) fn is_public(&self, address: IpAddr) -> bool {
        match self.mapped(address) {
            Some(mapped) => mapped.class == MappedClass::Public,
            None => ranges::special(address).is_none(),
        }
    }
}
