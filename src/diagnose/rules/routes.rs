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
    set_by: Option<&'a str>,
    port: u16,
}

/// The route that rejects the packets to an address.
pub(super) fn rejecting(leg: &Leg, to: IpAddr) -> Option<Rejecting<'_>> {
    match route(leg, to)? {
        RouteOutcome::Denied { by, .. } if by == "no_route" => None,
        RouteOutcome::Denied {
            by,
            matched,
            table,
            set_by,
        } => Some(Rejecting {
            to,
            by,
            matched: *matched,
            table: *table,
            set_by: set_by.as_deref(),
            port: leg.endpoint.port,
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
                let set_by = self.set_by.map_or_else(String::new, |name| {
                    format!(" (set by a routing daemon or network plugin: `proto {name}`)")
                });
                format!("this machine's route `{by} {net}{table}` rejects packets to {to}{set_by}")
            }
            None => format!("a rule or route of this machine rejects packets to {to} ({by})"),
        }
    }

    pub(super) fn hint(&self) -> String {
        let (by, to, table, port) = (self.by, self.to, self.table(), self.port);
        match self.matched {
            Some(net) if let Some(name) = self.set_by => format!(
                "Don't only remove the route `{by} {net}{table}`: the program that set it (`proto {name}`) sets it again. Network plugins such as Calico (`proto bird` or `proto 80`) set one for the pods' addresses of this node. If {net} belongs to the pods, give the server an address outside the pods' range; otherwise correct that program's configuration."
            ),
            Some(net) if net.prefix_len() == 0 && !table.is_empty() => format!(
                "Correct the rule that selects{table} for these packets (`ip rule`), or add a default route to that table: it has `{by} default`; `ip route get {to} ipproto tcp dport {port}` shows the result."
            ),
            Some(net) if net.prefix_len() == 0 => {
                let family = if to.is_ipv4() { "" } else { "-6 " };
                format!(
                    "Add a default route, or start the VPN that adds it: this machine has only `{by} default`, which rejects everything that has no route of its own (`ip {family}route show table all default`)."
                )
            }
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
                "Find the rule of type {by} with `ip rule` on this machine, or the route with `ip route show table all type {by}`, and remove it; `ip route get {to} ipproto tcp dport {port}` shows whether it is gone."
            ),
        }
    }
}

/// The fix if this machine returns an error at once although it has a route: no packet was sent.
pub(super) fn at_once(leg: &Leg, to: IpAddr, fault: &TcpFault) -> Option<String> {
    if !matches!(route(leg, to)?, RouteOutcome::Unicast { .. }) {
        return None;
    }
    let port = leg.endpoint.port;
    let rules = format!(
        "Look for a rule in `ip rule` on this machine that selects by mark or user, and for the table that it selects: the kernel has a route to {to} (`ip route get {to} ipproto tcp dport {port}`), and yet rejects the packets of this program before it sends them."
    );
    match fault {
        TcpFault::HostUnreachable { icmp: None } | TcpFault::NetUnreachable { icmp: None } => {
            Some(rules)
        }
        TcpFault::LocalPolicy { errno: EINVAL } => Some(rules),
        TcpFault::LocalPolicy { errno: EACCES } => Some(format!(
            "{rules} Or SELinux forbids it (`ausearch -m avc`)."
        )),
        _ => None,
    }
}

/// As connect(2) returns it for a route or rule of type blackhole.
const EINVAL: i32 = 22;
/// As connect(2) returns it for a route or rule of type prohibit; of SELinux as well.
const EACCES: i32 = 13;

/// The fix if the next hop of this machine's own route does not answer: this machine itself reports the host as
/// unreachable then.
pub(super) fn next_hop(
    evidence: &Evidence,
    leg: &Leg,
    to: IpAddr,
    fault: &TcpFault,
) -> Option<String> {
    let TcpFault::HostUnreachable { icmp: Some(icmp) } = fault else {
        return None;
    };
    let RouteOutcome::Unicast {
        device,
        gateway: Some(gateway),
        matched,
        ..
    } = route(leg, to)?
    else {
        return None;
    };
    let links = evidence.vantage.links.iter();
    let mut own = links.flat_map(|link| &link.addresses).map(IpNet::addr);
    if !own.any(|address| Some(address) == icmp.from) {
        return None;
    }
    let route = match matched {
        Some(net) if net.prefix_len() == 0 => "the default route".to_owned(),
        Some(net) => format!("the route for {net}"),
        None => format!("the route to {to}"),
    };
    Some(format!(
        "Check that the gateway {gateway} is up, and that {route} on this machine names the right one: {gateway} does not answer on {device} (`ip neigh show {gateway}`, `ip route get {to}`), so no packet gets to {to}."
    ))
}

/// An address of this machine itself refuses the connection.
pub(super) fn own_address(leg: &Leg, to: IpAddr) -> Option<String> {
    match route(leg, to)? {
        RouteOutcome::Local { device } if !to.is_loopback() => Some(format!(
            "{to} is this machine's own address, on {device}: no packet for it leaves this machine"
        )),
        _ => None,
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
            .fact(format!(
                "TcpExt IPReversePathFilter grew by {} while the SYN to {to} was out: packets came in and this machine dropped them",
                found.drops.dropped
            ))
            .unknown("the counter does not show who sent them; that they are the answers fits their number")
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
