//! Decides which path class an unreachable leg needs; none if a route exists and something else is wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::advice;
use super::case::{Judgement, behind_translator};
use super::context::PathContext;
use super::leg_path::{Fix, LegPath, Reachability, Suggestion, reachability};
use super::ranges;
use crate::model::endpoint::Role;
use crate::model::evidence::Leg;
use crate::model::fault::TcpFault;
use crate::model::path::{IntranetKind, PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::step::Step;

/// Whether this network has egress, inferred from other hosts that were tried.
#[derive(Clone, Debug, Eq, PartialEq)]
enum PublicEgress {
    /// A public host was reached; which one.
    Proven(String),
    /// No public host that was tried answers; each with its fault.
    Refuted(Vec<String>),
    /// No other host was tried.
    NotTried,
}

pub(super) fn add(
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    judgement: &Judgement,
    path: &mut LegPath,
) {
    let Some(fault) = fault_at(leg, address) else {
        return;
    };
    let is_no_address = matches!(
        fault,
        TcpFault::NetUnreachable { icmp: None } | TcpFault::NoLocalAddress { .. }
    );
    if address.is_ipv4() && is_no_address && context.vantage.is_v6_only() {
        path.fact(Signal::Route, "this machine has no IPv4 address");
        let class = path.class.unwrap_or(PathClass::PublicUnknown);
        path.fix(class, advice::no_ipv4(&leg.endpoint.host));
        return;
    }
    // A device on the path or this machine rejected it: a route exists, or the network is not the cause.
    match fault {
        TcpFault::Prohibited { icmp } => {
            let by = icmp.from.map_or_else(
                || "a filter on the path".to_owned(),
                |from| format!("a filter at {from}"),
            );
            path.fact(
                Signal::Connect,
                format!("{by} rejects it: a route exists, but traffic is blocked on purpose"),
            );
            return;
        }
        TcpFault::LocalPolicy { .. } | TcpFault::NoLocalAddress { .. } => return,
        _ if judgement.attributes.intranet == Some(IntranetKind::HostLocal) => {
            if !address.is_loopback() {
                path.fix(PathClass::Intranet, advice::on_this_host(address));
            }
            return;
        }
        TcpFault::HostUnreachable { .. } => {
            path.fact(
                Signal::Connect,
                format!("{fault}: a route exists, but it ends before the host"),
            );
            return;
        }
        TcpFault::NetUnreachable { icmp: None } => {
            path.fact(
                Signal::Route,
                format!("this machine has no route to {address}"),
            );
            // This network does not have the family: no rule is missing.
            if address.is_ipv6() {
                return;
            }
        }
        _ => {}
    }
    let class = path.class.unwrap_or(PathClass::PublicUnknown);
    if let Some((v4, _)) = behind_translator(leg, address) {
        let action = if context.has_nat64() {
            advice::far_firewall(v4, leg.endpoint.port, &BTreeSet::new())
        } else {
            let prefix = IpNet::new(address, 96).map_or(address.into(), |net| net.trunc());
            advice::no_nat64(prefix, &leg.endpoint.host)
        };
        path.score = path.score.min(0.4);
        path.fix(class, action);
        return;
    }
    if class.is_public() {
        public(context, leg, address, path);
        // Others are reached, and this machine itself has no route: no firewall or endpoint is the cause.
        if matches!(fault, TcpFault::NetUnreachable { icmp: None }) && path.needs.is_empty() {
            path.fixes.clear();
            return;
        }
        let host = &leg.endpoint.host;
        match leg.role {
            Role::Blob if context.registry_is_inside() => path.fixes.insert(
                0,
                Fix {
                    class: PathClass::Intranet,
                    action: advice::storage_inside(context.vantage, host),
                },
            ),
            Role::Token if context.registry_is_inside() => {
                path.fix(PathClass::Intranet, advice::realm_inside(host));
            }
            _ => {}
        }
        return;
    }
    let needs: Vec<PathClass> = match class {
        _ if judgement.overlap => judgement.declared.into_iter().collect(),
        PathClass::PrivateUnmapped => vec![PathClass::VpcPeering, PathClass::DirectConnectVpn],
        // kube-proxy is responsible, not a route.
        PathClass::Intranet
            if judgement.attributes.intranet == Some(IntranetKind::ClusterService) =>
        {
            Vec::new()
        }
        PathClass::Mixed => vec![judgement.class],
        class => vec![class],
    };
    for class in needs {
        path.needs.insert(class);
        let action = advice::fix(class, context.vantage, leg.endpoint.port, judgement);
        path.fix(class, action);
    }
}

/// A packet was sent, or should have been, and no answer arrived.
fn is_lost(fault: &TcpFault) -> bool {
    matches!(
        fault,
        TcpFault::Timeout | TcpFault::NetUnreachable { .. } | TcpFault::HostUnreachable { .. }
    )
}

fn fault_at(leg: &Leg, address: IpAddr) -> Option<&TcpFault> {
    let of_address = leg
        .connect
        .attempts
        .iter()
        .find(|dial| dial.to.ip() == address)
        .and_then(|dial| dial.outcome.fault());
    of_address.or_else(|| leg.connect.outcome.fault())
}

fn public(context: &PathContext<'_>, leg: &Leg, address: IpAddr, path: &mut LegPath) {
    let (family, port) = (Family::of(address), leg.endpoint.port);
    match context.egress(leg, family) {
        PublicEgress::Proven(proof) => {
            path.score = path.score.max(0.6);
            path.fact(
                Signal::Control,
                format!(
                    "{proof}: this network has egress, so only the path to this host is blocked"
                ),
            );
            let from = context.egress_addresses(family);
            path.fix(
                PathClass::PublicUnknown,
                advice::far_firewall(address, port, &from),
            );
        }
        PublicEgress::Refuted(silent) => {
            path.score = if silent.len() > 1 { 0.9 } else { 0.7 };
            for host in silent {
                path.fact(
                    Signal::Control,
                    format!("another public host can't be reached either: {host}"),
                );
            }
            out(context, leg, family, path);
        }
        PublicEgress::NotTried => {
            let claims = context.claims(family);
            if let Some(claim) = claims.first().filter(|_| context.speaks_for_machine()) {
                path.score = 0.5;
                path.fact(
                    Signal::Claim,
                    format!(
                        "there is probably an EIP ({}), so a missing EIP is hardly the cause",
                        claim.address
                    ),
                );
                let from = BTreeSet::from([claim.address]);
                path.fix(
                    PathClass::PublicEip,
                    advice::far_firewall(address, port, &from),
                );
            } else {
                path.score = 0.4;
                out(context, leg, family, path);
            }
            path.suggestions.push(Suggestion::new("set network.controls: one or two public hosts that must answer distinguish missing egress from a firewall in front of this host"));
        }
    }
}

/// Egress is missing: adds each class that would provide it.
fn out(context: &PathContext<'_>, leg: &Leg, family: Family, path: &mut LegPath) {
    // There is no SNAT for IPv6: an address is public, or it is not.
    let classes: &[PathClass] = match family {
        Family::V4 => &[PathClass::PublicSnat, PathClass::PublicEip],
        Family::V6 => &[PathClass::PublicDirect],
    };
    for class in classes {
        path.needs.insert(*class);
        let action = advice::egress(*class, context.vantage, leg.endpoint.port);
        path.fix(*class, action);
    }
}

impl PathContext<'_> {
    /// Whether the registry itself is reached at an address that is not public.
    fn registry_is_inside(&self) -> bool {
        let registry = self.walk.legs.first();
        let direct = registry.filter(|leg| leg.proxy_route.proxy().is_none());
        direct
            .and_then(|leg| leg.connect.outcome.done())
            .map(|connected| connected.to.ip())
            .is_some_and(|address| !self.is_public(address) && ranges::nat64(address).is_none())
    }

    /// Whether a leg was reached through NAT64.
    fn has_nat64(&self) -> bool {
        self.walk.legs.iter().any(|leg| {
            let connected = leg.connect.outcome.done();
            connected.is_some_and(|connected| behind_translator(leg, connected.to.ip()).is_some())
        })
    }

    /// Checks the egress of one family, from other legs, from controls, and from servers that saw this client.
    fn egress(&self, leg: &Leg, family: Family) -> PublicEgress {
        if let Some((method, seen)) = self.seen_of(family).next() {
            return PublicEgress::Proven(format!("others see {} ({method})", seen.address));
        }
        let is_public = |address: IpAddr| Family::of(address) == family && self.is_public(address);
        let mut silent = Vec::new();
        for control in &self.vantage.controls {
            let attempts = control.attempts.iter();
            for dial in attempts.filter(|dial| is_public(dial.to.ip())) {
                match &dial.outcome {
                    Step::Done { .. } => {
                        return PublicEgress::Proven(format!("{} can be reached", control.host));
                    }
                    Step::Failed { fault, .. } if is_lost(fault) => {
                        silent.push(format!("{} at {}: {fault}", control.host, dial.to.ip()));
                    }
                    // Refused or prohibited: something answered, but what that is can't be known.
                    _ => {}
                }
            }
        }
        for other in &self.walk.legs {
            let connected = other.connect.outcome.done();
            if other.endpoint != leg.endpoint
                && other.proxy_route.proxy().is_none()
                && connected.is_some_and(|c| is_public(c.to.ip()))
                && reachability(other) == Reachability::Reachable
            {
                return PublicEgress::Proven(format!("{} can be reached", other.endpoint));
            }
        }
        if silent.is_empty() {
            PublicEgress::NotTried
        } else {
            PublicEgress::Refuted(silent)
        }
    }

    /// The addresses that a far firewall sees, as far as known.
    fn egress_addresses(&self, family: Family) -> BTreeSet<IpAddr> {
        let seen: BTreeSet<IpAddr> = self.seen_of(family).map(|(_, seen)| seen.address).collect();
        if seen.is_empty() && self.speaks_for_machine() {
            let claims = self.claims(family).into_iter();
            return claims.map(|claim| claim.address).collect();
        }
        seen
    }
}
