//! Classifies the path to a public address: through SNAT, through an EIP, or with the machine's own public
//! address.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use super::case::{Case, Judgement};
use super::context::PathContext;
use super::leg_path::{Candidate, Fact, Reachability, Suggestion};
use super::ranges;
use crate::diagnose::level::Confidence;
use crate::model::endpoint::Host;
use crate::model::network::{ClusterNetwork, ObservedEgress, PodEip};
use crate::model::path::{EipOf, PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::text::joined;
use crate::model::vantage::NetworkView;

/// The class of the path to a public address.
pub(super) fn judge(case: &Case<'_>) -> Judgement {
    let mut judgement = case.egress();
    if let Some((device, kind, _)) = case.tunnel() {
        judgement.attributes.vpn_on_host = true;
        judgement = judgement.fact(
            Signal::Route,
            format!("all traffic leaves through {device}, a tunnel of this host ({kind})"),
        );
    }
    judgement = by_private_line(case, judgement);
    if let Host::Name(name) = &case.leg.endpoint.host
        && ranges::is_provider_service(name)
        && case.rtt().is_some_and(|rtt| rtt < Duration::from_millis(3))
    {
        judgement = judgement.fact(
            Signal::RoundTrip,
            "it is a cloud provider's own service and very near: it may be reached through a gateway endpoint, which addresses do not show",
        );
    }
    judgement
}

/// Adds that only private routers lead to the public address: a leased line's public interface, for instance, where
/// neither a NAT gateway nor an EIP is used.
fn by_private_line(case: &Case<'_>, mut judgement: Judgement) -> Judgement {
    let Some(hops) = case
        .all_hops()
        .filter(|hops| hops.is_foreign && !hops.is_public)
    else {
        return judgement;
    };
    let candidate = |class| Candidate {
        class,
        confidence: Confidence::Low,
    };
    if judgement.candidates.is_empty() {
        judgement.candidates.push(candidate(judgement.class));
    }
    judgement
        .candidates
        .push(candidate(PathClass::DirectConnectVpn));
    let net = super::ranges::neighbourhood(case.address);
    judgement.suggestions.push(Suggestion {
        setting: Some(format!(
            "- {{cidr: \"{net}\", class: {}}}",
            PathClass::DirectConnectVpn
        )),
        ..Suggestion::new(format!(
            "declare {net} under network.cidrs if it is reached over a leased line, for instance the public interface of Direct Connect"
        ))
    });
    judgement.but(
        Signal::Hops,
        format!(
            "all routers on the path have private addresses, and some are of other networks: {}; such a path may be a leased line with a public interface (Direct Connect), where the source address that others see does not count",
            hops.shown
        ),
        0.25,
    )
}

/// A public address that the pod or node has according to an annotation, the API server, the configuration or
/// the metadata service.
pub(super) struct Claim {
    pub(super) address: IpAddr,
    pub(super) of: EipOf,
    message: String,
}

impl PathContext<'_> {
    /// The claims that apply to the network this check runs in: a pod's EIP does not apply to the node, whose
    /// network pulls.
    pub(super) fn claims(&self, family: Family) -> Vec<Claim> {
        let vantage = self.vantage;
        let mut claims = Vec::new();
        let mut claim = |of, address: IpAddr, message: String| {
            if Family::of(address) == family {
                claims.push(Claim {
                    address,
                    of,
                    message,
                });
            }
        };
        if let Some(eip) = &vantage.pod_eip
            && vantage.network != NetworkView::Node
            && let Some(address) = eip.allocated
        {
            let message = format!("{address} is the pod's EIP according to {}", eip.source);
            claim(EipOf::Pod, address, message);
        }
        for address in &vantage.node_external_ips {
            let by = match &vantage.node {
                Some(node) if node.external_ips.contains(address) => {
                    format!(", according to {}", node.source)
                }
                _ => String::new(),
            };
            let message = format!("{address} is an ExternalIP of the node{by}");
            claim(EipOf::Node, *address, message);
        }
        let public = vantage.metadata.facts().and_then(|f| f.public.as_ref());
        for address in public.into_iter().flatten() {
            let message = format!(
                "{address} is the machine's public address, according to the metadata service"
            );
            claim(EipOf::Node, *address, message);
        }
        claims
    }

    /// The addresses of the NAT gateway that the configuration declares.
    pub(super) fn nat(&self, family: Family) -> BTreeSet<IpAddr> {
        let declared = self.vantage.declared.snat_addresses.iter().copied();
        declared.filter(|one| Family::of(*one) == family).collect()
    }

    /// The pod requested an EIP and has waited for less than a minute.
    fn waits_for_eip(&self) -> bool {
        let is_new = |age| age < EIP_ARRIVES_WITHIN;
        let eip = self.missing_eip();
        eip.is_some_and(|eip| eip.container_age.is_none_or(is_new))
    }

    /// The EIP that the pod requested but does not have.
    fn missing_eip(&self) -> Option<&PodEip> {
        let in_pod = self.vantage.network != NetworkView::Node;
        let eip = self.vantage.pod_eip.as_ref().filter(|_| in_pod);
        eip.filter(|eip| eip.wanted == Some(true) && eip.allocated.is_none())
    }

    /// Whether claims about the machine apply to this check's packets: it runs on the machine, or the machine
    /// translates its pods' packets.
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

    /// Whether this check runs in a pod with an address of the VPC.
    fn has_own_address(&self) -> bool {
        !self.speaks_for_machine()
            && matches!(
                self.vantage.declared.cluster_network,
                Some(ClusterNetwork::CloudNative2 | ClusterNetwork::Autopilot)
            )
    }
}

/// Huawei Cloud's own init container waits this long for the annotation.
const EIP_ARRIVES_WITHIN: Duration = Duration::from_mins(1);

impl Case<'_> {
    fn egress(&self) -> Judgement {
        let family = self.family();
        let context = self.context;
        if matches!(
            self.answers,
            Reachability::Unreachable | Reachability::NotTried | Reachability::Unresolved
        ) {
            return Judgement::new(PathClass::PublicUnknown, 0.3).fact(
                Signal::AddressRange,
                format!("{} is a public address", self.address),
            );
        }
        let seen: Vec<&(&str, ObservedEgress)> = context.seen_of(family).collect();
        let addresses: BTreeSet<IpAddr> = seen.iter().map(|(_, seen)| seen.address).collect();
        if let Some(direct) = self.direct(&addresses) {
            return direct;
        }
        if context.waits_for_eip() {
            let mut pending = Judgement::new(PathClass::PublicUnknown, 0.3).fact(
                Signal::Claim,
                "the pod requested an EIP and has none yet; until then, its packets may leave through SNAT",
            );
            pending.attributes.pending = true;
            pending.suggestions.push(Suggestion::new(
                "check again in a minute: the annotation is set after the container has started",
            ));
            return pending;
        }
        let judgement = if addresses.is_empty() {
            self.by_claims(family)
        } else {
            self.by_egress(family, &seen, &addresses)
        };
        self.undone_eip(judgement)
    }

    /// Adds a contradiction if the pod did not get the EIP it requested.
    fn undone_eip(&self, judgement: Judgement) -> Judgement {
        if self.context.missing_eip().is_none() {
            return judgement;
        }
        judgement.but(
            Signal::Claim,
            "the pod requested an EIP and has had none for over a minute: its events show why",
            0.1,
        )
    }

    /// The interface itself has a public address, and packets leave with it.
    fn direct(&self, seen: &BTreeSet<IpAddr>) -> Option<Judgement> {
        let local = self.connection?.local.ip().to_canonical();
        if ranges::special(local).is_some() {
            return None;
        }
        let score = match (seen.contains(&local), seen.is_empty()) {
            (true, _) => 0.95,
            // It is translated nevertheless.
            (false, false) => return None,
            (false, true) if local.is_ipv6() => 0.9,
            (false, true) => 0.8,
        };
        let direct = Judgement::new(PathClass::PublicDirect, score).fact(
            Signal::OnLink,
            format!("packets leave with {local}, a public address of this machine"),
        );
        Some(if seen.contains(&local) {
            direct.fact(Signal::Egress, format!("others see {local}"))
        } else {
            direct
        })
    }

    /// Classifies from the source address that others see.
    fn by_egress(
        &self,
        family: Family,
        seen: &[&(&str, ObservedEgress)],
        addresses: &BTreeSet<IpAddr>,
    ) -> Judgement {
        let context = self.context;
        let claims = context.claims(family);
        let list = joined(addresses);
        let nat = context.nat(family);
        let methods: BTreeSet<&str> = seen.iter().map(|(method, _)| *method).collect();
        let message = format!("others see {list} ({})", joined(methods));
        let snat = |score, message: String| {
            Judgement::new(PathClass::PublicSnat, score).fact(Signal::Egress, message)
        };
        let stale = |judgement| {
            let others = claims
                .iter()
                .filter(|claim| !addresses.contains(&claim.address));
            others.fold(judgement, |judgement: Judgement, claim| {
                let cost = if claim.of == EipOf::Pod { 0.1 } else { 0.05 };
                let message = format!("{}, but others see {list}", claim.message);
                judgement.but(Signal::Claim, message, cost)
            })
        };
        if let Some(claim) = claims.iter().find(|c| addresses.contains(&c.address)) {
            let mut eip = Judgement::new(PathClass::PublicEip, 0.95)
                .fact(Signal::Egress, message)
                .fact(Signal::Claim, claim.message.clone());
            eip.attributes.eip_of = Some(claim.of);
            let others: BTreeSet<IpAddr> = addresses
                .iter()
                .copied()
                .filter(|one| *one != claim.address)
                .collect();
            if !others.is_empty() {
                let what = if others.is_subset(&nat) {
                    format!(
                        "others see {} beside it: the NAT gateway is used for some destinations",
                        joined(&others)
                    )
                } else {
                    "others see more addresses beside it: a proxy, or SNAT for some destinations"
                        .to_owned()
                };
                eip = eip.but(Signal::Egress, what, 0.15);
            } else if !nat.is_empty() {
                eip = eip.fact(
                    Signal::OperatorMap,
                    format!(
                        "the EIP is used, and not the NAT gateway ({}): an EIP takes precedence over SNAT",
                        joined(&nat)
                    ),
                );
            }
            return eip;
        }
        if addresses.is_subset(&nat) {
            let declared = format!("{list} is declared in network.snat_addresses");
            let mut snat = snat(0.95, message).fact(Signal::OperatorMap, declared);
            if let Some(claim) = claims.first() {
                snat = snat.fact(
                    Signal::Egress,
                    format!("the NAT gateway is used, and not the EIP {}", claim.address),
                );
            }
            snat.attributes.snat_pool = addresses.len() > 1;
            return stale(snat);
        }
        if addresses.len() > 1 {
            let mut snat = snat(0.85, format!("{message}: a pool"));
            snat.attributes.snat_pool = true;
            return stale(snat);
        }
        let own_ports_changed = seen.iter().any(|(_, seen)| seen.port_was_changed());
        let in_pod = matches!(
            context.vantage.network,
            NetworkView::Pod | NetworkView::PodOrNode
        );
        if own_ports_changed {
            // The node translates a pod's packets too, which shows nothing about the path beyond it.
            let score = if in_pod { 0.6 } else { 0.8 };
            return stale(snat(score, message).fact(
                Signal::Egress,
                "source ports are changed on the path, as only many-to-one translation does",
            ));
        }
        if let Some(fact) = self.no_eip() {
            return stale(snat(0.85, message).fact(fact.signal, fact.message));
        }
        if claims.iter().any(|claim| claim.of == EipOf::Pod || !in_pod) {
            let message = format!("{message}, which is not a known address of this machine or pod");
            return stale(snat(0.75, message));
        }
        let mut unknown =
            Judgement::new(PathClass::PublicUnknown, 0.4).fact(Signal::Egress, message);
        unknown.candidates = both();
        unknown.suggestions.push(Suggestion::new(format!(
            "declare {list} in network.snat_addresses if it belongs to the NAT gateway, or in network.node_external_ips if it is an EIP of the node"
)));
        if seen.iter().all(|(_, seen)| seen.port.is_none()) {
            unknown.suggestions.push(Suggestion::new(SET_PORT_ECHO));
        }
        unknown
    }

    /// A reliable source reports that there is no EIP here.
    fn no_eip(&self) -> Option<Fact> {
        let context = self.context;
        let facts = context.vantage.metadata.facts();
        let public = facts.and_then(|facts| facts.public.as_ref());
        if public.is_some_and(Vec::is_empty) && context.speaks_for_machine() {
            return Some(Fact::new(
                Signal::Metadata,
                "according to the metadata service, this machine has no public address",
            ));
        }
        let eip = context.vantage.pod_eip.as_ref()?;
        let is_pods =
            context.has_own_address() && eip.wanted == Some(false) && eip.allocated.is_none();
        let message = format!("according to {}, the pod has no EIP", eip.source);
        is_pods.then(|| Fact::new(Signal::Claim, message))
    }

    /// Classifies from claims alone, if no server reported the source address.
    fn by_claims(&self, family: Family) -> Judgement {
        let context = self.context;
        let claims = context.claims(family);
        let holds = |claim: &&Claim| claim.of == EipOf::Pod || context.speaks_for_machine();
        if let Some(claim) = claims.iter().find(holds) {
            let mut eip = Judgement::new(PathClass::PublicEip, 0.75)
                .fact(Signal::Claim, claim.message.clone())
                .fact(Signal::AddressRange, "an EIP takes precedence over SNAT");
            let nat = context.nat(family);
            if !nat.is_empty() {
                eip = eip.fact(
                    Signal::OperatorMap,
                    format!("so the NAT gateway ({}) is probably not used", joined(&nat)),
                );
            }
            eip.attributes.eip_of = Some(claim.of);
            eip.suggestions.push(Suggestion::new(SET_ECHO));
            return eip;
        }
        if let Some(fact) = self.no_eip() {
            let mut snat =
                Judgement::new(PathClass::PublicSnat, 0.7).fact(fact.signal, fact.message);
            snat.suggestions.push(Suggestion::new(SET_ECHO));
            return snat;
        }
        let mut unknown = Judgement::new(PathClass::PublicUnknown, 0.3).fact(
            Signal::AddressRange,
            format!(
                "{} is a public address; whether packets leave through SNAT or an EIP is unknown",
                self.address
            ),
        );
        unknown.candidates = both();
        unknown.suggestions.push(Suggestion::new(SET_ECHO));
        if !context.speaks_for_machine() && context.vantage.declared.cluster_network.is_none() {
            unknown.suggestions.push(Suggestion::new("set network.cluster_network: whether the node translates its pods' packets, so that its EIP applies, or pods have addresses of the VPC"));
        }
        unknown
    }
}

const SET_ECHO: &str = "set network.egress.echo: an HTTP echo (best near the registry) shows the source address of packets";

const SET_PORT_ECHO: &str = "set an echo in network.egress.echo that also shows the source port: a changed port proves SNAT";

fn both() -> Vec<Candidate> {
    [PathClass::PublicSnat, PathClass::PublicEip]
        .map(|class| Candidate {
            class,
            confidence: Confidence::Low,
        })
        .to_vec()
}
