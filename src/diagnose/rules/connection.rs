//! Connections: why none came about, and which of several addresses are dead.

use super::at;
use super::names::is_private;
use crate::diagnose::Finding;
use crate::diagnose::cause::Cause;
use crate::model::endpoint::Role;
use crate::model::evidence::{Evidence, Family, Leg, Skip, Step};
use crate::model::fault::{Phase, TcpFault};
use crate::model::units::Took;

/// No address could be connected to.
pub(super) fn connect(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        let Some(fault) = leg.connect.outcome.fault() else {
            continue;
        };
        let cause = match fault {
            TcpFault::Timeout => Cause::TcpTimeout,
            TcpFault::Refused { .. } => Cause::TcpRefused,
            TcpFault::Reset => Cause::TcpReset,
            TcpFault::Prohibited { .. } => Cause::TcpProhibited,
            TcpFault::LocalPolicy { .. } => Cause::LocalPolicy,
            TcpFault::NoLocalAddress { .. } => Cause::NoLocalAddress,
            TcpFault::NetUnreachable { .. } => Cause::NetUnreachable,
            TcpFault::HostUnreachable { .. } => Cause::HostUnreachable,
            TcpFault::Other { .. } => Cause::Unexplained,
        };
        findings.push(
            at(cause, leg.role, Phase::Connect)
                .facts(attempts(leg))
                .hint(connect_hint(cause, leg, fault)),
        );
        // What it means for the pull when it is not the registry itself.
        findings.extend(closed_way(evidence, leg, Phase::Connect));
    }
    for leg in &evidence.legs {
        if leg.resolve.outcome.fault().is_some() {
            findings.extend(closed_way(evidence, leg, Phase::Resolve));
        }
    }
}

/// The registry's own leg is well, and another leg's host can't be got at.
fn closed_way(evidence: &Evidence, leg: &Leg, phase: Phase) -> Option<Finding> {
    let (cause, what) = match leg.role {
        Role::Registry => return None,
        Role::Token => (
            Cause::AuthRealmUnreachable,
            "token service, named by the registry's challenge,",
        ),
        Role::Blob => (
            Cause::RedirectBlob,
            "storage of the layers, named by the registry's redirect,",
        ),
    };
    let fault = match phase {
        Phase::Resolve => leg.resolve.outcome.fault()?.to_string(),
        _ => leg.connect.outcome.fault()?.to_string(),
    };
    let registry = evidence
        .legs
        .first()
        .map_or_else(String::new, |leg| leg.endpoint.to_string());
    let finding = at(cause, leg.role, phase)
        .fact(format!("{registry} answers"))
        .fact(format!("the {what} is {}", leg.endpoint));
    let finding = match phase {
        Phase::Resolve => finding.fact(fault),
        _ => finding.facts(attempts(leg)),
    };
    Some(finding.hint(format!(
        "Open the way to {} port {} as well as to the registry: DNS, route, security group, firewall.",
        leg.endpoint.host, leg.endpoint.port
    )))
}

fn attempts(leg: &Leg) -> Vec<String> {
    leg.connect
        .attempts
        .iter()
        .filter_map(|dial| match &dial.outcome {
            Step::Failed { fault, took } => {
                Some(format!("{}: {fault}, after {}", dial.to, Took(*took)))
            }
            _ => None,
        })
        .collect()
}

fn connect_hint(cause: Cause, leg: &Leg, fault: &TcpFault) -> String {
    let port = leg.endpoint.port;
    let first = leg.connect.attempts.first();
    let address = first.map_or_else(
        || leg.endpoint.host.to_string(),
        |dial| dial.to.ip().to_string(),
    );
    let private = first.is_some_and(|dial| is_private(dial.to.ip()));
    match (cause, fault) {
        (Cause::TcpTimeout, _) if private => format!(
            "{address} is a private address: check the route to it and the route back (VPC peering, Direct Connect or VPN), then the security group of the far side for TCP {port} from this subnet."
        ),
        (Cause::TcpTimeout, _) => format!(
            "{address} is a public address: check that this subnet has a way out (SNAT rule and route to the NAT gateway, or an EIP), then egress rules for TCP {port}. If other public hosts answer from here, ask the registry's firewall for this network's public address."
        ),
        (Cause::TcpRefused, _) => format!(
            "Check that the registry listens at {address} port {port}, and that the image's name has the right port."
        ),
        (Cause::TcpProhibited, TcpFault::Prohibited { icmp }) => match icmp.from {
            Some(from) => {
                format!("Ask whoever runs {from} to let TCP {port} to {address} through.")
            }
            None => {
                format!("A filter on the way forbids TCP {port} to {address}: have it allowed.")
            }
        },
        (Cause::LocalPolicy, _) => format!(
            "Look on this machine at `ip route get {address}`, at netfilter's rules and at the NetworkPolicies of this pod."
        ),
        (Cause::NoLocalAddress, _)
            if leg
                .connect
                .attempts
                .iter()
                .all(|d| Family::of(d.to.ip()) == Family::V6) =>
        {
            format!(
                "This place has no IPv6 address to reach {address} from: give it one, or the registry an A record."
            )
        }
        (Cause::NoLocalAddress, _) => format!(
            "Count the connections to {address} with `ss -tan`; all local ports may be in use."
        ),
        (Cause::NetUnreachable, _) => {
            format!("`ip route get {address}` on this machine: add the missing route.")
        }
        (Cause::HostUnreachable, _) => {
            format!("Check that {address} is the registry's address and that the host is up.")
        }
        _ => "Send the JSON report (`-o json`; it holds no secret) to Pullpath's maintainers."
            .to_owned(),
    }
}

/// Some addresses work and others don't.
pub(super) fn addresses(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        let Some(connected) = leg.connect.outcome.done() else {
            continue;
        };
        let dead = |family| {
            let of_family = leg
                .connect
                .attempts
                .iter()
                .filter(move |d| Family::of(d.to.ip()) == family);
            let (dead, alive): (Vec<_>, Vec<_>) = of_family
                .filter(|d| {
                    !matches!(
                        d.outcome,
                        Step::Skipped {
                            reason: Skip::NotNeeded
                        }
                    )
                })
                .partition(|dial| dial.outcome.fault().is_some());
            (dead, alive.len())
        };
        for family in [Family::V4, Family::V6] {
            let (dead, alive) = dead(family);
            let lines: Vec<String> = dead
                .iter()
                .filter_map(|dial| Some(format!("{}: {}", dial.to, dial.outcome.fault()?)))
                .collect();
            if !dead.is_empty() && alive > 0 {
                findings.push(
                    at(Cause::AddressPartlyDead, leg.role, Phase::Connect)
                        .fact(format!("{} of {} {family} addresses tried do not work", dead.len(), dead.len() + alive))
                        .facts(lines)
                        .hint(format!("Take the dead addresses of '{}' out of DNS, or mend the hosts behind them.", leg.endpoint.host)),
                );
            } else if !dead.is_empty() && family == Family::V6
                // Preferred: else a dual-stack client never gets to them.
                && let Some(fallback) = connected.fallback
            {
                let swallowed = dead
                    .iter()
                    .all(|d| d.outcome.fault() == Some(&TcpFault::Timeout));
                let cause = if swallowed {
                    Cause::V6Blackhole
                } else {
                    Cause::NetUnreachV6
                };
                findings.push(
                    at(cause, leg.role, Phase::Connect)
                        .facts(lines)
                        .fact(format!("IPv4 works; a dual-stack client loses {} at each connection", Took(fallback)))
                        .hint(format!("Mend the IPv6 path to '{}', or take away this host's IPv6 address or the AAAA record.", leg.endpoint.host)),
                );
            }
        }
    }
}
