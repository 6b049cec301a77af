//! Rules for connections: why none could be established, and which of several addresses don't work.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::finding::{at, fixes_text, written_in};
use super::routes;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::path::leg_path::LegPath;
use crate::diagnose::{Finding, path};
use crate::model::connect::Dial;
use crate::model::endpoint::Role;
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{Phase, TcpFault};
use crate::model::path::{IntranetKind, PathClass};
use crate::model::resolve::{Family, ResolutionSource};
use crate::model::step::{Skip, Step};
use crate::model::units::HumanDuration;

/// No address could be connected to.
pub(super) fn connect(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let (fault, address) = decisive(leg).filter(|_| leg.proxy_route.proxy().is_none())?;
    let cause = match fault {
        TcpFault::OwnLimit { .. } => return None,
        TcpFault::NoLocalPort if !evidence.shares_ports_with_pulls() => return None,
        TcpFault::Timeout => Cause::TcpTimeout,
        TcpFault::Refused { .. } => Cause::TcpRefused,
        TcpFault::Reset => Cause::TcpReset,
        TcpFault::Prohibited { .. } => Cause::TcpProhibited,
        TcpFault::LocalPolicy { .. } => Cause::LocalPolicy,
        TcpFault::NoLocalAddress { .. } | TcpFault::NoLocalPort => Cause::NoLocalAddress,
        TcpFault::NetUnreachable { .. } => Cause::NetUnreachable,
        TcpFault::HostUnreachable { .. } => Cause::HostUnreachable,
        TcpFault::Other { .. } => Cause::Unexplained,
    };
    let is_lost = matches!(fault, TcpFault::Timeout);
    Some(
        at(cause, leg.role, Phase::Connect)
            .facts(attempts(leg))
            .facts(address.and_then(|to| Some(routes::rejecting(leg, to)?.fact())))
            .facts(address.and_then(|to| routes::own_address(leg, to)))
            .facts(
                address
                    .filter(|_| is_lost)
                    .and_then(|to| routes::other_table(leg, to)),
            )
            .facts(by_hosts_file(leg))
            .hint(connect_hint(evidence, cause, leg, fault, address)),
    )
}

/// The image of a pod leads to the node itself, so nothing was sent.
pub(super) fn node_address(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let is_left_out = matches!(
        leg.connect.outcome,
        Step::Skipped {
            reason: Skip::NodeAddress
        }
    );
    is_left_out.then(|| {
        let (host, port) = (&leg.endpoint.host, leg.endpoint.port);
        at(Cause::NodeAddress, leg.role, Phase::Connect)
            .fact(format!(
                "{host} port {port} is at the node's own, a link-local or a metadata address, which is not checked for a pod's image"
            ))
            .hint(format!(
                "The kubelet's message shows why the pull failed. If this is a registry, add {host}:{port} to kubernetes.local_registries, or a hosts.toml for it on the node."
            ))
    })
}

/// The fault that fails a pull, and its address: that of the first attempt, as in Go's error, but not that
/// of a family without any route here if the other family got further. So an IPv4 timeout is not reported as
/// "no route" because of an AAAA record.
fn decisive(leg: &Leg) -> Option<(&TcpFault, Option<IpAddr>)> {
    let outcome = leg.connect.outcome.fault()?;
    let faults = || {
        leg.connect
            .attempts
            .iter()
            .filter_map(|dial| Some((dial.outcome.fault()?, Some(dial.to.ip()))))
    };
    let got_out = |fault: &TcpFault| {
        !matches!(
            fault,
            TcpFault::NoLocalAddress { .. } | TcpFault::NetUnreachable { icmp: None }
        )
    };
    Some(
        faults()
            .find(|(fault, _)| got_out(fault))
            .or_else(|| faults().next())
            .unwrap_or((outcome, None)),
    )
}

/// The registry's own leg works, but the host of another leg does not answer: the path was opened for the
/// registry alone. Any other fault of that leg is its own cause.
pub(super) fn unreachable_leg(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let cause = match leg.role {
        Role::Registry => return None,
        Role::Token => Cause::AuthRealmUnreachable,
        Role::Blob => Cause::RedirectBlob,
    };
    let is_silent = matches!(decisive(leg), Some((TcpFault::Timeout, _)));
    if !is_silent || leg.proxy_route.proxy().is_some() {
        return None;
    }
    let hint = between_families(evidence, leg).or_else(|| way(evidence, leg));
    let (host, port) = (&leg.endpoint.host, leg.endpoint.port);
    Some(
        at(cause, leg.role, Phase::Connect)
            .facts(attempts(leg))
            .hint(hint.unwrap_or_else(|| {
                format!(
                    "Allow traffic to {host} port {port}, as to the registry: check route, security group, firewall."
                )
            })),
    )
}

/// Where a fault is, beside what it is: the token service or the storage of a registry that itself answers.
pub(super) fn place(evidence: &Evidence, finding: &Finding) -> Option<String> {
    let is_of_server = matches!(
        finding.phase,
        Some(Phase::Resolve | Phase::Connect | Phase::Tls)
    );
    let what = match finding.leg? {
        Role::Registry => return None,
        Role::Token => "token service in the registry's challenge",
        Role::Blob => "layer storage in the registry's redirect",
    };
    let registry = evidence.walk.legs.first()?;
    let own = evidence.walk.legs_of(finding.leg?).last()?;
    let is_elsewhere =
        registry.endpoint != own.endpoint && registry.connect.outcome.done().is_some();
    (is_of_server && is_elsewhere && finding.severity == Severity::Critical).then(|| {
        format!(
            "the {what} is {}; the registry itself, {}, answers",
            own.endpoint, registry.endpoint
        )
    })
}

fn path_of(evidence: &Evidence, leg: &Leg) -> Option<LegPath> {
    let mut paths = path::classify(evidence).into_iter();
    paths.find(|path| path.role == leg.role && path.endpoint == leg.endpoint)
}

/// The fix if the server has another family of addresses than this machine: no route or rule for its address
/// helps then.
fn between_families(evidence: &Evidence, leg: &Leg) -> Option<String> {
    let path = path_of(evidence, leg)?;
    let is_v4 = path.address.is_some_and(|address| address.is_ipv4());
    let is_between = path.attributes.nat64 || (is_v4 && evidence.vantage.is_v6_only());
    (is_between && !path.fixes.is_empty()).then(|| fixes_text(&path))
}

/// The fixes for the class of the leg's path.
fn way(evidence: &Evidence, leg: &Leg) -> Option<String> {
    let path = path_of(evidence, leg)?;
    let kind = match path.class {
        Some(class) if class.is_public() => "is a public address".to_owned(),
        Some(PathClass::PrivateUnmapped) => {
            "is a private address, and the route to it is unknown".to_owned()
        }
        Some(_) if path.attributes.intranet == Some(IntranetKind::HostLocal) => {
            "is in a network of this host".to_owned()
        }
        Some(class) => format!("is reached over {}", class.describe()),
        None => return None,
    };
    let address = path.address?;
    (!path.fixes.is_empty()).then(|| format!("{address} {kind}. {}", fixes_text(&path)))
}

/// The address is from the hosts file.
fn by_hosts_file(leg: &Leg) -> Option<String> {
    let found = leg.resolve.outcome.done()?;
    let dns = leg
        .resolve
        .in_dns()
        .map_or_else(String::new, |dns| format!(" ({dns})"));
    (found.source == ResolutionSource::HostsFile).then(|| {
        format!(
            "the address of {} is from the hosts file{dns}",
            leg.dialed()
        )
    })
}

pub(super) fn attempts(leg: &Leg) -> Vec<String> {
    let mut lines: Vec<String> = leg
        .connect
        .attempts
        .iter()
        .filter_map(|dial| match &dial.outcome {
            Step::Failed { fault, took } => Some(format!(
                "{}: {fault}, after {}",
                dial.to,
                HumanDuration(*took)
            )),
            _ => None,
        })
        .collect();
    if lines.is_empty() {
        lines.extend(leg.connect.outcome.words());
    }
    if leg.connect.not_tried > 0 {
        lines.push(format!(
            "{} more addresses were not tried",
            leg.connect.not_tried
        ));
    }
    lines
}

fn connect_hint(
    evidence: &Evidence,
    cause: Cause,
    leg: &Leg,
    fault: &TcpFault,
    at: Option<IpAddr>,
) -> String {
    if let Some(fix) = between_families(evidence, leg) {
        return fix;
    }
    if let Some(route) = at.and_then(|to| routes::rejecting(leg, to))
        && is_of_this_machine(fault)
    {
        return route.hint();
    }
    if let Some(hint) = at.and_then(|to| {
        routes::at_once(leg, to, fault).or_else(|| routes::next_hop(evidence, leg, to, fault))
    }) {
        return hint;
    }
    let port = leg.endpoint.port;
    let address = at.map_or_else(|| leg.endpoint.host.to_string(), |at| at.to_string());
    let mut dials = leg.connect.attempts.iter();
    let only_v6 = dials.all(|dial| Family::of(dial.to.ip()) == Family::V6);
    match (cause, fault) {
        (Cause::TcpTimeout, _) => way(evidence, leg).unwrap_or_else(|| {
            format!("Check the route to {address} and the filters on the path for TCP {port}.")
        }),
        (Cause::TcpRefused, _) => {
            let source = written_in(evidence, leg.role);
            let here = way(evidence, leg).map_or_else(String::new, |way| format!(" {way}"));
            format!(
                "Check that a server listens at {address} port {port}, that no firewall rejects the connection, and that the port is right in {source}.{here}"
            )
        }
        (_, TcpFault::Prohibited { icmp }) if let Some(from) = icmp.from => {
            format!("Ask the operator of {from} to allow TCP {port} to {address}.")
        }
        (Cause::LocalPolicy, _) => format!(
            "Check `ip route get {address}`, the netfilter rules and this pod's NetworkPolicies on this machine."
        ),
        (_, TcpFault::NetUnreachable { icmp: Some(icmp) }) if let Some(router) = icmp.from => {
            format!(
                "Add a route to {address} on the router {router}, not on this machine: the router has none."
            )
        }
        (Cause::NoLocalAddress | Cause::NetUnreachable, _) if only_v6 => format!(
            "Give this machine an IPv6 address and route, or give the name an A record: '{}' has IPv6 addresses only, and this machine has no route to them.",
            leg.endpoint.host
        ),
        (Cause::NetUnreachable, _)
            if leg.role != Role::Registry
                && at.is_some_and(|at| !path::is_private(at))
                && let Some(way) = way(evidence, leg) =>
        {
            format!("{way} `ip route get {address}` shows this machine's route: it has none.")
        }
        (Cause::NetUnreachable, _) => {
            format!("Add the missing route on this machine; `ip route get {address}` shows it.")
        }
        (Cause::HostUnreachable, _) => way(evidence, leg)
            .or_else(|| routes::on_link(evidence, leg, at?))
            .unwrap_or_else(|| {
                format!(
                    "Check that {address} is the address of {} and that the host is up.",
                    leg.endpoint.host
                )
            }),
        _ => cause.entry().fix.to_owned(),
    }
}

/// Whether the kernel here returned the error without sending a packet.
fn is_of_this_machine(fault: &TcpFault) -> bool {
    matches!(
        fault,
        TcpFault::LocalPolicy { .. }
            | TcpFault::HostUnreachable { icmp: None }
            | TcpFault::NetUnreachable { icmp: None }
    )
}

/// Some addresses work and others don't.
pub(super) fn addresses(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        findings.extend(partly_dead(leg, Family::V4));
        findings.extend(partly_dead(leg, Family::V6));
    }
}

fn partly_dead(leg: &Leg, family: Family) -> Option<Finding> {
    let connected = leg.connect.outcome.done()?;
    let not_needed = Step::Skipped {
        reason: Skip::NotNeeded,
    };
    let is_of_family = |dial: &&Dial| Family::of(dial.to.ip()) == family;
    let attempts = || leg.connect.attempts.iter().filter(is_of_family);
    let tried = attempts().filter(|dial| dial.outcome != not_needed).count();
    let dead: Vec<(SocketAddr, &TcpFault)> = attempts()
        .filter_map(|dial| Some((dial.to, dial.outcome.fault()?)))
        .collect();
    if dead.is_empty() {
        return None;
    }
    let lines = dead.iter().map(|(to, fault)| format!("{to}: {fault}"));
    let host = leg.dialed();
    if tried > dead.len() {
        return Some(
            at(Cause::AddressPartlyDead, leg.role, Phase::Connect)
                .fact(format!(
                    "{} of the {tried} {family} addresses that were tried do not work",
                    dead.len()
                ))
                .facts(lines)
                .facts(connected.fallback.map(cost))
                .hint(partly_dead_hint(leg, &dead)),
        );
    }
    // A family that is not preferred is not dialed while the other one works.
    let first = leg.connect.attempts.first();
    let fallback = connected
        .fallback
        .filter(|_| first.is_some_and(|dial| is_of_family(&dial)))?;
    let all = |is: fn(&TcpFault) -> bool| dead.iter().all(|(_, fault)| is(fault));
    let cause = match family {
        Family::V6 if all(|fault| matches!(fault, TcpFault::Timeout)) => Cause::V6Blackhole,
        Family::V6 if all(has_no_route) => Cause::NetUnreachV6,
        _ => Cause::AddressPartlyDead,
    };
    let hint = if cause == Cause::AddressPartlyDead {
        let record = family.record();
        format!("Remove the {record} record of '{host}' from DNS, or fix the host behind it.")
    } else {
        format!(
            "Fix the IPv6 path to '{host}', or remove this machine's IPv6 address or the AAAA record."
        )
    };
    Some(
        at(cause, leg.role, Phase::Connect)
            .fact(format!(
                "no {family} address works, and {family} is tried first"
            ))
            .facts(lines)
            .fact(cost(fallback))
            .hint(hint),
    )
}

/// Public addresses change, so a filter that was opened for some of them is the first thing to look for.
fn partly_dead_hint(leg: &Leg, dead: &[(SocketAddr, &TcpFault)]) -> String {
    let host = leg.dialed();
    let is_silent =
        |fault: &TcpFault| matches!(fault, TcpFault::Timeout | TcpFault::Prohibited { .. });
    let is_filter_likely = dead
        .iter()
        .all(|(to, fault)| is_silent(fault) && !path::is_private(to.ip()));
    match dead.first() {
        Some((to, _)) if is_filter_likely => format!(
            "First look for a filter by address at the egress (security group, firewall): allow TCP {} to every address of '{host}', or to its provider's whole range, since the addresses change. If all are allowed, the hosts behind the dead addresses are down: report them to their operator.",
            to.port()
        ),
        _ => {
            format!("Remove the dead addresses of '{host}' from DNS, or fix the hosts behind them.")
        }
    }
}

fn has_no_route(fault: &TcpFault) -> bool {
    matches!(
        fault,
        TcpFault::NetUnreachable { .. }
            | TcpFault::HostUnreachable { .. }
            | TcpFault::NoLocalAddress { .. }
    )
}

fn cost(fallback: Duration) -> String {
    format!(
        "a client loses {} at each connection until one is established",
        HumanDuration(fallback)
    )
}

/// A longer round trip may itself be the reason why a SYN, for which the kernel waits a second, was sent again.
const LONG_TRIP: Duration = Duration::from_millis(800);

/// Packets of a connection that came about were lost before its first request.
pub(super) fn loss(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let own = leg.connect.outcome.done()?.to;
    let dials = leg.connect.attempts.iter();
    let mut sent_again = 0;
    let mut facts = Vec::new();
    for dial in dials {
        let (Some(connection), Some(took)) = (dial.outcome.done(), dial.outcome.took()) else {
            continue;
        };
        // What was measured on the leg's own connection later is a round trip as well.
        let measured = leg.transport.and_then(|transport| transport.min_rtt);
        let later = measured.or(leg.tls.outcome.done().and(leg.tls.outcome.took()));
        let later = later.filter(|_| dial.to == own);
        let trip = [connection.rtt, later].into_iter().flatten().min();
        let again = connection.syn_retransmits.unwrap_or_default();
        if again > 0 && trip.is_some_and(|trip| trip < LONG_TRIP) {
            sent_again += again;
            facts.push(format!(
                "{}: the SYN was sent {} times, and the connection took {}",
                dial.to,
                again + 1,
                HumanDuration(took)
            ));
        }
    }
    let in_tls = leg
        .tls
        .retransmits
        .filter(|_| leg.tls.outcome.done().is_some());
    // A single one may be a guess of the kernel's, where the server acknowledges late.
    if let Some(again) = in_tls.filter(|again| again + sent_again > 1) {
        sent_again += again;
        facts.push(format!(
            "{own}: segments were sent again {again} times during the TLS handshake, which took {}",
            HumanDuration(leg.tls.outcome.took().unwrap_or_default())
        ));
    }
    (sent_again > 0).then(|| {
        let confidence = if sent_again > 1 {
            Confidence::Medium
        } else {
            Confidence::Low
        };
        at(Cause::ConnectLoss, leg.role, Phase::Connect)
            .confidence(confidence)
            .facts(facts)
    })
}
