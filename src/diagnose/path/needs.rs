//! Decides which path class an unreachable leg needs; none if a route exists and something else is wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::advice;
use super::case::{Judgement, Translation, translation};
use super::context::PathContext;
use super::leg_path::{Fix, LegPath, Reachability, Suggestion, reachability};
use super::local;
use crate::diagnose::level::Confidence;
use crate::model::endpoint::Role;
use crate::model::evidence::Leg;
use crate::model::fault::TcpFault;
use crate::model::network::RouteOutcome;
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
    if needs_nothing(context, leg, address, judgement, path, fault) {
        return;
    }
    let class = path.class.unwrap_or(PathClass::PublicUnknown);
    if nat64(context, leg, address, class, path) {
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
        PathClass::PrivateUnmapped => {
            unmapped(context, leg, address, judgement, path);
            return;
        }
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

/// Whether no path is missing: this machine or a device on the path rejects the packets, or two networks use the address.
/// Adds what to do then.
fn needs_nothing(
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    judgement: &Judgement,
    path: &mut LegPath,
    fault: &TcpFault,
) -> bool {
    let is_no_address = matches!(
        fault,
        TcpFault::NetUnreachable { icmp: None } | TcpFault::NoLocalAddress { .. }
    );
    if address.is_ipv4() && is_no_address && context.vantage.is_v6_only() {
        path.fact(Signal::Route, "this machine has no IPv4 address");
        let class = path.class.unwrap_or(PathClass::PublicUnknown);
        path.fix(class, advice::no_ipv4(leg, address));
        return true;
    }
    if local::dropped_answers(context.vantage, leg).is_some()
        || local::foreign_source(context.vantage, leg).is_some()
    {
        path.fact(
            Signal::Route,
            "this machine's own routes or filters are the likely cause, so no other path is needed first",
        );
        return true;
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
        }
        TcpFault::LocalPolicy { .. } | TcpFault::NoLocalAddress { .. } => {}
        _ if local::is_rejected(leg, address) => {}
        _ if judgement.overlap => overlap(context, leg, address, judgement, path),
        _ if judgement.attributes.intranet == Some(IntranetKind::HostLocal) => {
            if !address.is_loopback() {
                path.fix(PathClass::Intranet, advice::on_this_host(address));
            }
        }
        TcpFault::HostUnreachable { .. } => {
            path.fact(
                Signal::Connect,
                format!("{fault}: a route exists, but it ends before the host"),
            );
        }
        TcpFault::NetUnreachable { icmp: None } => {
            path.fact(
                Signal::Route,
                format!("this machine has no route to {address}"),
            );
            // This network does not have the family: no rule is missing.
            return address.is_ipv6();
        }
        _ => return false,
    }
    true
}

/// Two networks use the address: what the far one needs.
fn overlap(
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    judgement: &Judgement,
    path: &mut LegPath,
) {
    let class = judgement.declared.unwrap_or(PathClass::Intranet);
    path.needs.extend(judgement.declared);
    let port = leg.endpoint.port;
    let action = advice::overlap(class, context.vantage, port, address, judgement);
    path.fix(class, action);
}

/// Another host answers in the server's place: what to do if a second network uses the address.
pub(super) fn of_another_host(
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    judgement: &Judgement,
    path: &mut LegPath,
) {
    if judgement.overlap {
        overlap(context, leg, address, judgement, path);
        path.needs.clear();
    } else if let Some(fix) = &judgement.overlap_fix {
        path.fix(PathClass::Intranet, fix.clone());
    }
}

/// The fix for an address of NAT64. Returns whether no other one fits.
fn nat64(
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    class: PathClass,
    path: &mut LegPath,
) -> bool {
    let host = &leg.endpoint.host;
    match translation(context.vantage, leg, address) {
        Translation::Known { v4, prefix, .. } => {
            let action = if context.has_nat64() {
                advice::far_firewall(v4, leg.endpoint.port, &BTreeSet::new(), true)
            } else {
                advice::no_nat64(prefix, host)
            };
            path.score = path.score.min(0.4);
            path.fix(class, action);
            true
        }
        Translation::LookAlike { prefix, .. } => {
            let action = advice::no_nat64(prefix, host);
            let action = advice::only_if(
                &format!("{prefix} is the prefix of a NAT64 gateway"),
                &action,
            );
            path.fix(class, action);
            false
        }
        Translation::None => false,
    }
}

/// The fixes for a private address that no range contains, each with its condition; the likeliest first.
fn unmapped(
    context: &PathContext<'_>,
    leg: &Leg,
    address: IpAddr,
    judgement: &Judgement,
    path: &mut LegPath,
) {
    let net = super::ranges::neighbourhood(address);
    let own = leg.routes.iter().find(|route| route.to == address);
    if let Some(RouteOutcome::Unicast {
        device,
        gateway: Some(gateway),
        matched: Some(matched),
        ..
    }) = own.map(|route| &route.outcome)
        && matched.prefix_len() > 0
    {
        path.fact(
            Signal::Route,
            format!("this machine has a route of its own for {matched}, to {gateway} on {device}"),
        );
        path.fix(
            PathClass::PrivateUnmapped,
            format!(
                "Check the router {gateway} first: this machine sends {matched} there, and not to its default gateway (`ip route get {address}`)."
            ),
        );
    }
    path.needs
        .extend([PathClass::VpcPeering, PathClass::DirectConnectVpn]);
    let sure = judgement
        .candidates
        .iter()
        .find(|one| one.confidence > Confidence::Low);
    let fitting = judgement.candidates.iter().map(|one| one.class);
    let fitting: Vec<PathClass> = match sure {
        Some(one) => vec![one.class],
        None => fitting.collect(),
    };
    if sure.is_some() {
        path.needs.retain(|class| fitting.contains(class));
    }
    for class in fitting {
        let condition = match class {
            PathClass::VpcPeering => format!("{net} is in another VPC, over peering"),
            PathClass::DirectConnectVpn => {
                format!("{net} is on premises, over Direct Connect or VPN")
            }
            _ => format!("{net} is in this VPC"),
        };
        let action = advice::fix(class, context.vantage, leg.endpoint.port, judgement);
        path.fix(class, advice::only_if(&condition, &action));
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
                format!("{proof}: this network has egress, and only this host does not answer"),
            );
            let from = context.egress_addresses(family);
            let may_be_nat = context.may_be_nat(family);
            path.fix(
                PathClass::PublicUnknown,
                advice::far_firewall(address, port, &from, may_be_nat),
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
                        "there is probably an EIP ({}), so a missing EIP is hardly the cause{}",
                        claim.address,
                        if context.vantage.declared.snat_addresses.is_empty() {
                            ""
                        } else {
                            "; it takes precedence over the NAT gateway"
                        }
                    ),
                );
                let from = BTreeSet::from([claim.address]);
                path.fix(
                    PathClass::PublicEip,
                    advice::far_firewall(address, port, &from, false),
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
            .is_some_and(|address| {
                let is_translated = registry.is_some_and(|leg| {
                    let translation = translation(self.vantage, leg, address);
                    matches!(translation, Translation::Known { .. })
                });
                !self.is_public(address) && !is_translated
            })
    }

    /// Whether a leg was reached through NAT64.
    fn has_nat64(&self) -> bool {
        self.walk.legs.iter().any(|leg| {
            let connected = leg.connect.outcome.done();
            connected.is_some_and(|connected| {
                let translation = translation(self.vantage, leg, connected.to.ip());
                matches!(translation, Translation::Known { .. })
            })
        })
    }

    /// What shows that this network has egress.
    pub(super) fn proven_egress(&self, leg: &Leg, family: Family) -> Option<String> {
        match self.egress(leg, family) {
            PublicEgress::Proven(proof) => Some(proof),
            PublicEgress::Refuted(_) | PublicEgress::NotTried => None,
        }
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
            let claims: BTreeSet<IpAddr> = claims.map(|claim| claim.address).collect();
            if !claims.is_empty() {
                return claims;
            }
        }
        if seen.is_empty() {
            self.nat(family)
        } else {
            seen
        }
    }

    /// Whether packets may leave through a NAT gateway: not over IPv6, and not with an EIP or a public address of this
    /// machine.
    pub(super) fn may_be_nat(&self, family: Family) -> bool {
        if family == Family::V6 {
            return false;
        }
        let claims = self.claims(family).into_iter().map(|claim| claim.address);
        let on_devices = self.vantage.links.iter().flat_map(|link| &link.addresses);
        let own: BTreeSet<IpAddr> = claims
            .chain(on_devices.map(IpNet::addr))
            .filter(IpAddr::is_ipv4)
            .collect();
        let mut seen = self.seen_of(family).peekable();
        if seen.peek().is_some() {
            return seen.any(|(_, seen)| !own.contains(&seen.address));
        }
        !(self.speaks_for_machine() && own.iter().any(|address| self.is_public(*address)))
    }
}
