//! The public network: whether packets leave by SNAT, by an EIP, or with an address of their own.

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

/// A public address: whether our packets get there by SNAT, by an EIP, or as they are.
pub(super) fn judge(case: &Case<'_>) -> Judgement {
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
    judgement
}

/// A public address that this place is said to have.
pub(super) struct Claim {
    pub(super) address: IpAddr,
    pub(super) of: EipOf,
    says: String,
}

impl PathContext<'_> {
    /// The claims that hold for the network this probe is in: a pod's EIP is of no use to the node,
    /// whose network pulls.
    pub(super) fn claims(&self, family: Family) -> Vec<Claim> {
        let vantage = self.vantage;
        let mut claims = Vec::new();
        let mut claim = |of, address: IpAddr, says: String| {
            if Family::of(address) == family {
                claims.push(Claim { address, of, says });
            }
        };
        if let Some(eip) = &vantage.pod_eip
            && vantage.network != NetworkView::Node
            && let Some(address) = eip.allocated
        {
            let says = format!("{address} is the pod's EIP by {}", eip.source);
            claim(EipOf::Pod, address, says);
        }
        for address in &vantage.node_external_ips {
            let by = match &vantage.node {
                Some(node) if node.external_ips.contains(address) => {
                    format!(", as {} tells", node.source)
                }
                _ => String::new(),
            };
            let says = format!("{address} is an ExternalIP of the node{by}");
            claim(EipOf::Node, *address, says);
        }
        let public = vantage.metadata.facts().and_then(|f| f.public.as_ref());
        for address in public.into_iter().flatten() {
            let says =
                format!("{address} is the machine's public address, as the metadata service says");
            claim(EipOf::Node, *address, says);
        }
        claims
    }

    /// The pod waits for an EIP that it asked for, and has not waited for long.
    fn waits_for_eip(&self) -> bool {
        let is_young = |age| age < EIP_COMES_WITHIN;
        let eip = self.missing_eip();
        eip.is_some_and(|eip| eip.container_age.is_none_or(is_young))
    }

    /// What the pod asks for and has not got.
    fn missing_eip(&self) -> Option<&PodEip> {
        let in_pod = self.vantage.network != NetworkView::Node;
        let eip = self.vantage.pod_eip.as_ref().filter(|_| in_pod);
        eip.filter(|eip| eip.wanted == Some(true) && eip.allocated.is_none())
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

/// Huawei Cloud's own init container waits as long for the annotation.
const EIP_COMES_WITHIN: Duration = Duration::from_mins(1);

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
                "the pod asks for an EIP and has none yet; until it has, its packets may go by SNAT",
            );
            pending.attributes.pending = true;
            pending.knobs.push(Suggestion::new(
                "ask again in a minute: the annotation comes after the container has started",
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

    /// The pod's EIP never came.
    fn undone_eip(&self, judgement: Judgement) -> Judgement {
        if self.context.missing_eip().is_none() {
            return judgement;
        }
        judgement.but(
            Signal::Claim,
            "the pod asks for an EIP and has got none for over a minute: its events say why",
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
            // It is translated all the same.
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

    /// By the address that others see.
    fn by_egress(
        &self,
        family: Family,
        seen: &[&(&str, ObservedEgress)],
        addresses: &BTreeSet<IpAddr>,
    ) -> Judgement {
        let context = self.context;
        let claims = context.claims(family);
        let list = joined(addresses);
        let methods: BTreeSet<&str> = seen.iter().map(|(method, _)| *method).collect();
        let says = format!("others see {list} ({})", joined(methods));
        let snat = |score, says: String| {
            Judgement::new(PathClass::PublicSnat, score).fact(Signal::Egress, says)
        };
        let stale = |judgement| {
            let others = claims
                .iter()
                .filter(|claim| !addresses.contains(&claim.address));
            others.fold(judgement, |judgement: Judgement, claim| {
                let cost = if claim.of == EipOf::Pod { 0.1 } else { 0.05 };
                let says = format!("{}, yet others see {list}", claim.says);
                judgement.but(Signal::Claim, says, cost)
            })
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
        let known = &context.vantage.declared.snat_addresses;
        if addresses.iter().all(|address| known.contains(address)) {
            let declared = format!("{list} is declared in network.snat_addresses");
            let mut snat = snat(0.95, says).fact(Signal::OperatorMap, declared);
            snat.attributes.snat_pool = addresses.len() > 1;
            return stale(snat);
        }
        if addresses.len() > 1 {
            let mut snat = snat(0.85, format!("{says}: a pool"));
            snat.attributes.snat_pool = true;
            return stale(snat);
        }
        let own_ports_changed = seen.iter().any(|(_, seen)| seen.port_was_changed());
        let in_pod = matches!(
            context.vantage.network,
            NetworkView::Pod | NetworkView::PodOrNode
        );
        if own_ports_changed {
            // The node translates a pod's packets too, and says nothing of the way behind it.
            let score = if in_pod { 0.6 } else { 0.8 };
            return stale(snat(score, says).fact(
                Signal::Egress,
                "source ports are changed on the way, as only a translation of many to one does",
            ));
        }
        if let Some(fact) = self.says_that_there_is_none() {
            return stale(snat(0.85, says).fact(fact.signal, fact.message));
        }
        if claims.iter().any(|claim| claim.of == EipOf::Pod || !in_pod) {
            let says = format!("{says}, which is no address that this place is said to have");
            return stale(snat(0.75, says));
        }
        let mut unknown = Judgement::new(PathClass::PublicUnknown, 0.4).fact(Signal::Egress, says);
        unknown.candidates = both();
        unknown.knobs.push(Suggestion::new(format!(
            "if {list} is the NAT gateway's, declare it in network.snat_addresses; if it is an EIP of the node, in network.node_external_ips"
)));
        if seen.iter().all(|(_, seen)| seen.port.is_none()) {
            unknown.knobs.push(Suggestion::new(PORT_KNOB));
        }
        unknown
    }

    /// Somebody who must know says that there is no EIP here.
    fn says_that_there_is_none(&self) -> Option<Fact> {
        let context = self.context;
        let facts = context.vantage.metadata.facts();
        let told = facts.and_then(|facts| facts.public.as_ref());
        if told.is_some_and(Vec::is_empty) && context.speaks_for_machine() {
            return Some(Fact::new(
                Signal::Metadata,
                "the metadata service says that this machine has no public address",
            ));
        }
        let eip = context.vantage.pod_eip.as_ref()?;
        let is_pods =
            context.has_own_address() && eip.wanted == Some(false) && eip.allocated.is_none();
        let says = format!("by {} the pod has no EIP", eip.source);
        is_pods.then(|| Fact::new(Signal::Claim, says))
    }

    /// Nobody was asked what they see: by what is said of this place.
    fn by_claims(&self, family: Family) -> Judgement {
        let context = self.context;
        let claims = context.claims(family);
        let holds = |claim: &&Claim| claim.of == EipOf::Pod || context.speaks_for_machine();
        if let Some(claim) = claims.iter().find(holds) {
            let mut eip = Judgement::new(PathClass::PublicEip, 0.75)
                .fact(Signal::Claim, claim.says.clone())
                .fact(
                    Signal::AddressRange,
                    "an EIP outranks SNAT, where there are both",
                );
            eip.attributes.eip_of = Some(claim.of);
            eip.knobs.push(Suggestion::new(EGRESS_KNOB));
            return eip;
        }
        if let Some(fact) = self.says_that_there_is_none() {
            let mut snat =
                Judgement::new(PathClass::PublicSnat, 0.7).fact(fact.signal, fact.message);
            snat.knobs.push(Suggestion::new(EGRESS_KNOB));
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
        unknown.knobs.push(Suggestion::new(EGRESS_KNOB));
        if !context.speaks_for_machine() && context.vantage.declared.cluster_network.is_none() {
            unknown.knobs.push(Suggestion::new("network.cluster_network: whether the node translates its pods' packets, so that its EIP counts, or pods have addresses of the VPC"));
        }
        unknown
    }
}

const EGRESS_KNOB: &str = "network.egress.echo of --config: an HTTP echo (best beside the registry) shows the address that packets leave with";

const PORT_KNOB: &str =
    "an echo in network.egress.echo that shows the source port, too: a changed one proves SNAT";

fn both() -> Vec<Candidate> {
    [PathClass::PublicSnat, PathClass::PublicEip]
        .map(|class| Candidate {
            class,
            confidence: Confidence::Low,
        })
        .to_vec()
}
