//! Rules for this machine's own routes: one that rejects the packets, one that sends them with the address of another
//! interface, and a filter that drops the answers; and for the ports of the NAT gateway behind them.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::finding::at;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::path::leg_path::{LegPath, Reachability};
use crate::diagnose::path::local::{self, route};
use crate::diagnose::{Finding, path};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{HttpFault, ManifestFault, Phase, TcpFault};
use crate::model::network::RouteOutcome;
use crate::model::path::PathClass;
use crate::model::step::Step;
use crate::model::text::joined;

/// The routing table of routes without a table of their own (RT_TABLE_MAIN).
const MAIN: u32 = 254;

/// A route of this machine that rejects the packets to an address: its type, and where it is.
pub(super) struct Rejecting<'a> {
    to: IpAddr,
    by: &'a str,
    matched: Option<IpNet>,
    table: Option<u32>,
}

/// The route that rejects the packets to an address.
pub(super) fn rejecting(leg: &Leg, to: IpAddr) -> Option<Rejecting<'_>> {
    match route(leg, to)? {
        RouteOutcome::Denied { by, .. } if by == "no_route" => None,
        RouteOutcome::Denied { by, matched, table } => Some(Rejecting {
            to,
            by,
            matched: *matched,
            table: *table,
        }),
        _ => None,
    }
}

impl Rejecting<'_> {
    fn table(&self) -> String {
        match self.table {
            Some(MAIN) | None => String::new(),
            Some(table) => format!(" table {table}"),
        }
    }

    pub(super) fn fact(&self) -> String {
        let (by, to, table) = (self.by, self.to, self.table());
        match self.matched {
            Some(net) if by == "throw" => format!(
                "this machine's route `throw {net}{table}` ends the lookup in its table, and no other table has a route to {to}"
            ),
            Some(net) => {
                format!("this machine's route `{by} {net}{table}` rejects packets to {to}")
            }
            None => format!("a rule or route of this machine rejects packets to {to} ({by})"),
        }
    }

    pub(super) fn hint(&self) -> String {
        let (by, to, table) = (self.by, self.to, self.table());
        match self.matched {
            Some(net) => {
                let or = if by == "throw" {
                    "add a route to the table that the next rule selects (`ip rule`)"
                } else {
                    "find what adds it again, a network plugin or a routing daemon"
                };
                format!(
                    "Remove the route from this machine with `ip route del {by} {net}{table}`, or {or}; `ip route get {to}` shows whether it is gone."
                )
            }
            None => format!(
                "Find the rule of type {by} with `ip rule` on this machine, or the route with `ip route show table all type {by}`, and remove it; `ip route get {to}` shows whether it is gone."
            ),
        }
    }
}

/// Which table decides, if it is not the main one.
pub(super) fn other_table(leg: &Leg, to: IpAddr) -> Option<String> {
    match route(leg, to)? {
        RouteOutcome::Unicast { device, table, .. } if *table != MAIN && *table != 0 => {
            Some(format!(
                "a rule of this machine selects table {table} for {to}, and the packets leave through {device} (`ip rule`, `ip route get {to}`)"
            ))
        }
        _ => None,
    }
}

/// Packets leave through one interface with the address of another: what answers is sent there, or a filter drops them.
pub(super) fn source_address(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let found = local::foreign_source(&evidence.vantage, leg)?;
    let (to, device) = (found.to, found.device);
    Some(
        at(Cause::SourceAddress, leg.role, Phase::Connect)
            .confidence(Confidence::Medium)
            .fact(format!(
                "packets to {to} leave through {device} ({}) with {}, the address of {}: answers go to that network, or a filter on the path drops the packets",
                joined(&found.own),
                found.source,
                found.owner
            ))
            .facts(other_table(leg, to))
            .hint(format!(
                "Correct the source address of the route (`src` in `ip route get {to}`) or the rule that selects it (`ip rule`): packets through {device} need an address of {device}."
            )),
    )
}

/// This machine's reverse path filter drops the answers.
pub(super) fn reverse_path(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let found = local::dropped_answers(&evidence.vantage, leg)?;
    let (to, device) = (found.to, *found.strict.first()?);
    let through = found
        .leaves
        .map_or_else(String::new, |device| format!(" through {device}"));
    Some(
        at(Cause::ReversePathFilter, leg.role, Phase::Connect)
            .confidence(Confidence::Medium)
            .fact(format!(
                "TcpExt IPReversePathFilter grew by {} while the SYN to {to} was out: packets came in and this machine dropped them",
                found.drops.dropped
            ))
            .fact(format!(
                "packets to {to} leave{through}; the filter of {} is strict (rp_filter is 1), and drops answers that come in there",
                joined(&found.strict)
            ))
            .facts(other_table(leg, to))
            .hint(format!(
                "Set `net.ipv4.conf.{device}.rp_filter=2` (the greater of this and `net.ipv4.conf.all.rp_filter` counts), or correct the routes so that answers come in where packets to {to} leave (`ip route get {to}`, `ip rule`). `nstat -az TcpExtIPReversePathFilter` must stop growing."
            )),
    )
}

/// A part of the connections to a public address gets no answer, while others pass: the NAT gateway may have no port
/// left towards it.
pub(super) fn nat_ports(evidence: &Evidence) -> Option<Finding> {
    let (to, facts) = after_success(evidence).or_else(|| by_source_port(evidence))?;
    let mut legs = evidence.walk.legs.iter();
    let leg = legs.find(|leg| {
        let mut dials = leg.connect.attempts.iter();
        leg.proxy_route.proxy().is_none() && dials.any(|dial| dial.to == to)
    })?;
    if !path::may_be_nat(evidence, to.ip()) {
        return None;
    }
    let others = path::public_egress(evidence, leg, to.ip());
    let declared = &evidence.vantage.declared.snat_addresses;
    let mut paths = path::classify(evidence).into_iter();
    let is_nat = !declared.is_empty()
        || paths.any(|path: LegPath| path.class == Some(PathClass::PublicSnat));
    let confidence = match (is_nat, others.is_some()) {
        (true, true) => Confidence::Medium,
        (false, false) => return None,
        _ => Confidence::Low,
    };
    let from = if declared.is_empty() {
        "the NAT gateway".to_owned()
    } else {
        format!("the NAT gateway ({})", joined(declared))
    };
    Some(
        at(Cause::SnatExhaust, leg.role, Phase::Connect)
            .confidence(confidence)
            .fact(facts)
            .facts(others)
            .fact("a server that is dead or overloaded behind the address, or a limit for one client, looks the same")
            .hint(format!(
                "Look at the metrics of {from} at this time: connections and dropped packets. If it has no port left towards {}, add addresses (EIPs) to its SNAT rule, or reach the registry over a VPC endpoint; otherwise look behind {} for a server that does not answer.",
                to.ip(), to.ip()
            )),
    )
}

/// Connections that got no answer after others to the same address had been established.
fn after_success(evidence: &Evidence) -> Option<(SocketAddr, String)> {
    let walk = &evidence.walk;
    let not_connected = walk.transfer.iter().flat_map(|one| &one.not_connected);
    let mut silent = not_connected.filter(|one| one.phase == Phase::Connect && one.is_silent);
    let by_transfer = silent.next().map(|one| one.to);
    let of_content = || {
        let manifest = match walk.manifest.fault() {
            Some(ManifestFault::Http { fault }) => Some(fault),
            _ => None,
        };
        let layers = walk.layers.iter().filter_map(|layer| layer.outcome.fault());
        let config = walk.config.as_ref().and_then(Step::fault);
        let faults = [manifest, walk.blob.fault(), config].into_iter().flatten();
        let mut faults = faults.chain(layers);
        let is_silent = |fault: &HttpFault| {
            matches!(fault, HttpFault::Reconnect { phase: Phase::Connect, reason, .. }
                if *reason == TcpFault::Timeout.to_string())
        };
        faults.any(is_silent).then(|| {
            walk.legs
                .iter()
                .rev()
                .find_map(|leg| leg.connect.outcome.done())
        })?
    };
    let to = by_transfer.or_else(|| of_content().map(|connected| connected.to))?;
    let mut legs = walk.legs.iter();
    let was_connected = legs.any(|leg| {
        leg.connect
            .outcome
            .done()
            .is_some_and(|connected| connected.to == to)
    });
    was_connected.then(|| {
        let fact = format!(
            "connections to {to} were established, and a later one from another source port got no answer"
        );
        (to, fact)
    })
}

/// Of connections at the same time from several source ports, some got no answer and some were established.
fn by_source_port(evidence: &Evidence) -> Option<(SocketAddr, String)> {
    let tried = evidence.walk.segments.as_ref()?;
    let is_silent = tried.trials.first()?.is_silent && tried.phase == Phase::Connect;
    let (failed, all) = (tried.failed(), tried.trials.len());
    (is_silent && failed < all).then(|| {
        let fact = format!(
            "{failed} of {all} connections to {} got no answer, and the others, from other source ports, were established",
            tried.to
        );
        (tried.to, fact)
    })
}

/// A host in the network of an interface does not answer: another network may have its address as well.
pub(super) fn on_link(evidence: &Evidence, leg: &Leg, to: IpAddr) -> Option<String> {
    let RouteOutcome::Unicast {
        device,
        gateway: None,
        matched: Some(net),
        ..
    } = route(leg, to)?
    else {
        return None;
    };
    let is_default = net.prefix_len() == 0;
    let is_second = !path::is_uplink(&evidence.vantage, device);
    (!is_default && is_second).then(|| {
        format!(
            "Check that {to} is up and in the network of {device}: this machine's route for {net} sends it there, and not to the default gateway (`ip route get {to}`). If the host is in another network, give one of the two another range, or add a route for {to} through the right gateway."
        )
    })
}

/// The severity of two networks that use an address: whether the right host answers.
pub(super) fn overlap_severity(evidence: &Evidence, path: &LegPath) -> Severity {
    let mut legs = evidence.walk.legs.iter();
    let leg = legs.find(|leg| leg.role == path.role && leg.endpoint == path.endpoint);
    let is_other = leg.is_some_and(path::is_answered_by_another);
    match path.reachability {
        Reachability::Reachable if !is_other => Severity::Warning,
        _ => Severity::Critical,
    }
}
