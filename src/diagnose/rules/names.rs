//! Names: whether they resolve, and whether the servers agree.

use std::net::IpAddr;

use super::{at, new};
use crate::diagnose::cause::Cause;
use crate::diagnose::{Confidence, Finding, Severity};
use crate::model::endpoint::Host;
use crate::model::evidence::{Evidence, Family, Leg, Query, ResolutionSource, Said, Step};
use crate::model::fault::{DnsFault, Phase, show_server};
use crate::model::units::Took;

/// A name that does not resolve.
pub(super) fn resolution(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        let Some(fault) = leg.resolve.outcome.fault() else {
            continue;
        };
        let host = &leg.endpoint.host;
        let cause = match fault {
            DnsFault::NxDomain | DnsFault::NoData if split(leg).is_some() => continue,
            DnsFault::NxDomain => Cause::DnsNxdomain,
            DnsFault::NoData => Cause::DnsNodata,
            DnsFault::Timeout => Cause::DnsTimeout,
            DnsFault::ServFail => Cause::DnsServfail,
            DnsFault::Refused => Cause::DnsRefused,
            DnsFault::PortClosed | DnsFault::Unreachable { .. } | DnsFault::NoServers => {
                Cause::DnsServerUnreachable
            }
            DnsFault::OtherCode { .. } | DnsFault::Malformed { .. } => Cause::DnsError,
        };
        let servers = servers_of(leg);
        let asked = if servers.is_empty() {
            "no server was asked".to_owned()
        } else {
            servers.join(", ")
        };
        let hint = match cause {
            Cause::DnsNxdomain => format!(
                "Compare '{host}' with the registry's documentation; if it is a private name, associate its zone with this VPC or forward it on {asked}."
            ),
            Cause::DnsNodata => format!(
                "Give '{host}' an A or AAAA record, or mend the name that its CNAME leads to."
            ),
            Cause::DnsTimeout => format!(
                "Check route and security group to {asked}, UDP and TCP port 53; or take a dead server out of {}.",
                evidence.vantage.resolver_source
            ),
            Cause::DnsServerUnreachable => {
                format!(
                    "Start the name server at {asked}, or put one that runs into {}.",
                    evidence.vantage.resolver_source
                )
            }
            Cause::DnsServfail => {
                format!("Look at the log of {asked} for '{host}': its forwarder, or DNSSEC.")
            }
            Cause::DnsRefused => format!(
                "Allow this network in the access list of {asked}, or use the VPC's own resolver."
            ),
            _ => format!("Ask `dig {host}` at {asked} from this place and see what comes."),
        };
        findings.push(
            at(cause, leg.role, Phase::Resolve)
                .fact(format!("'{host}': {fault}"))
                .facts(leg.resolve.queries.iter().filter_map(line).take(8))
                .hint(hint),
        );
    }
}

/// Servers that fail beside others that answer, and servers of two minds.
pub(super) fn servers(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        if let Some(finding) = split(leg) {
            findings.push(finding);
        }
        if leg.resolve.outcome.done().is_none() {
            continue;
        }
        let mut silent: Vec<String> = Vec::new();
        let mut half: Vec<String> = Vec::new();
        let mut broken: Vec<String> = Vec::new();
        for query in &leg.resolve.queries {
            let Some(fault) = query.outcome.fault() else {
                continue;
            };
            let server = show_server(query.server);
            match fault {
                DnsFault::Timeout if is_answered_otherwise(query, &leg.resolve.queries) => {
                    half.push(format!(
                        "{server} answers {} and not {}",
                        other(query.family).record(),
                        query.family.record()
                    ));
                }
                // Asked again after a lost packet, and answered.
                DnsFault::Timeout if is_answered(query, &leg.resolve.queries) => {}
                DnsFault::Timeout => silent.push(format!("{server} does not answer")),
                DnsFault::NxDomain | DnsFault::NoData => {}
                // An error for one family costs no time, and the other has the address.
                _ if is_answered_otherwise(query, &leg.resolve.queries) => {}
                fault => broken.push(format!("{server}: {fault}")),
            }
        }
        let host = &leg.endpoint.host;
        push_unique(findings, half, |facts| {
            at(Cause::DnsSlow5s, leg.role, Phase::Resolve)
                .facts(facts)
                .fact(format!("a Go client waits its whole timeout for the other answer about '{host}'"))
                .hint("Make that server, or the firewall before it, answer both record types; an empty answer is enough.")
        });
        push_unique(findings, silent, |facts| {
            at(Cause::DnsTimeout, leg.role, Phase::Resolve)
                .severity(Severity::Warning)
                .facts(facts)
                .fact("another server answered, so a pull only waits")
                .hint(format!(
                    "Mend that server, or take it out of the list ({}).",
                    evidence.vantage.resolver_source
                ))
        });
        push_unique(findings, broken, |facts| {
            at(Cause::DnsError, leg.role, Phase::Resolve)
                .severity(Severity::Warning)
                .facts(facts)
                .fact("another server answered, so a pull goes on")
                .hint(format!(
                    "Mend that server, or take it out of the list ({}).",
                    evidence.vantage.resolver_source
                ))
        });
    }
}

fn push_unique(
    findings: &mut Vec<Finding>,
    mut facts: Vec<String>,
    make: impl FnOnce(Vec<String>) -> Finding,
) {
    facts.sort();
    facts.dedup();
    if !facts.is_empty() {
        findings.push(make(facts));
    }
}

fn is_answered_otherwise(query: &Query, all: &[Query]) -> bool {
    let same = |q: &&Query| q.server == query.server && q.name == query.name && is_word(q);
    all.iter().filter(same).any(|q| q.family != query.family) && !is_answered(query, all)
}

fn is_answered(query: &Query, all: &[Query]) -> bool {
    all.iter().any(|q| {
        q.server == query.server && q.name == query.name && q.family == query.family && is_word(q)
    })
}

/// The server said something about the name.
fn is_word(query: &Query) -> bool {
    matches!(
        &query.outcome,
        Step::Done { .. }
            | Step::Failed {
                fault: DnsFault::NoData | DnsFault::NxDomain,
                ..
            }
    )
}

fn other(family: Family) -> Family {
    match family {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    }
}

/// One server knows a private zone and another does not.
fn split(leg: &Leg) -> Option<Finding> {
    let disagreement = leg.resolve.disagreement()?;
    let kind = |said: &Said| match said {
        Said::NxDomain | Said::NoData => Kind::Nothing,
        Said::Addresses(addresses) if addresses.iter().all(|a| is_private(*a)) => Kind::Private,
        Said::Addresses(_) => Kind::Public,
    };
    let mut kinds: Vec<Kind> = disagreement
        .said
        .iter()
        .map(|(_, said)| kind(said))
        .collect();
    kinds.sort_unstable();
    kinds.dedup();
    if kinds.len() < 2 {
        return None;
    }
    let finding = at(Cause::DnsSplitHorizon, leg.role, Phase::Resolve)
        .facts(leg.resolve.disagreeing().into_iter().map(|(server, said)| format!("{} says {said}", show_server(server))))
        .hint("Make all these servers serve the same view of the name: forward its zone on those that lack it, or take them out of the list.");
    Some(match leg.resolve.outcome.done() {
        Some(found) => {
            let server = match found.source {
                ResolutionSource::Server { server } => format!(" of {}", show_server(server)),
                _ => String::new(),
            };
            finding
                .severity(Severity::Warning)
                .fact(format!("a pull goes by the answer{server}"))
        }
        None => finding
            .severity(Severity::Critical)
            .fact("a pull believes the first server, which does not know the name"),
    })
}

#[derive(Clone, Copy, Eq, Ord, PartialEq, PartialOrd)]
enum Kind {
    Nothing,
    Private,
    Public,
}

/// Addresses that are not routed on the Internet (RFC 1918, 6598, 3927, 4193, loopback).
pub(super) fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || (a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64)
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
    }
}

/// A search domain answered in place of the name.
pub(super) fn search_list(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        let (Some(found), Host::Name(host)) = (leg.resolve.outcome.done(), &leg.endpoint.host)
        else {
            continue;
        };
        let is_server = matches!(found.source, ResolutionSource::Server { .. });
        if !is_server
            || found
                .name
                .trim_end_matches('.')
                .eq_ignore_ascii_case(host.trim_end_matches('.'))
        {
            continue;
        }
        // A short name is meant to be completed; one with dots was meant as it is.
        if !host.contains('.') {
            continue;
        }
        findings.push(
            at(Cause::DnsSearchLeak, leg.role, Phase::Resolve)
                .fact(format!("asked for '{host}', answered as '{}'", found.name))
                .hint(format!(
                    "Take the wildcard out of the search domain, or lower ndots in {}.",
                    evidence.vantage.resolver_source
                )),
        );
    }
}

/// An entry of the hosts file that does not work.
pub(super) fn hosts_file(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.legs {
        let Some(found) = leg.resolve.outcome.done() else {
            continue;
        };
        let Some(fault) = leg.connect.outcome.fault() else {
            continue;
        };
        if found.source == ResolutionSource::HostsFile {
            let addresses: Vec<String> = found.addresses.iter().map(ToString::to_string).collect();
            findings.push(
                new(Cause::DnsStale, Some(leg.role), Some(Phase::Connect))
                    .confidence(Confidence::Medium)
                    .fact(format!(
                        "the hosts file says {} is at {}",
                        leg.endpoint.host,
                        addresses.join(", ")
                    ))
                    .fact(format!("{}: {fault}", leg.endpoint))
                    .hint(format!(
                        "Correct or remove '{}' in the hosts file.",
                        leg.endpoint.host
                    )),
            );
        }
    }
}

fn servers_of(leg: &Leg) -> Vec<String> {
    let mut servers: Vec<String> = leg
        .resolve
        .queries
        .iter()
        .map(|query| show_server(query.server))
        .collect();
    servers.dedup();
    servers.sort();
    servers.dedup();
    servers
}

fn line(query: &Query) -> Option<String> {
    let fault = query.outcome.fault()?;
    let over = if query.tcp { " over TCP" } else { "" };
    let took = query
        .outcome
        .took()
        .map_or_else(String::new, |took| format!(" after {}", Took(took)));
    Some(format!(
        "{} {}{over} for {}: {fault}{took}",
        show_server(query.server),
        query.family.record(),
        query.name
    ))
}
