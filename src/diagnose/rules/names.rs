//! Names: whether they resolve, and whether the servers agree.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::at;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::model::endpoint::Host;
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{DnsFault, Phase, TcpFault, TlsFault, show_server};
use crate::model::resolve::{Family, Query, ResolutionSource, Said};
use crate::model::step::Step;
use crate::model::units::Took;

/// A name that does not resolve.
pub(super) fn resolution(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        // A proxy's name is proxy::closed's.
        let Some(fault) = leg
            .resolve
            .outcome
            .fault()
            .filter(|_| leg.way.proxy().is_none())
        else {
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
                "Give '{host}' an A or AAAA record, or fix the name that its CNAME leads to."
            ),
            Cause::DnsTimeout => match leg.resolve.queries.first() {
                Some(query) => format!(
                    "Ask `dig +tcp @{} -p {} {host}` from this place: an answer means that UDP to that port is dropped on the way; none, that the server is down or route and security group to it are closed.",
                    query.server.ip(),
                    query.server.port()
                ),
                None => format!("Check the servers in {}.", evidence.vantage.resolver_source),
            },
            Cause::DnsServerUnreachable if matches!(fault, DnsFault::Unreachable { .. }) => {
                format!(
                    "Look at the route to {asked} (`ip route get`) and at filters for UDP port 53, on this machine first and then on the way."
                )
            }
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
    findings.extend(evidence.walk.legs.iter().filter_map(split));
    // What is wrong with a server is wrong for every leg; it is told at the first one.
    let mut told: Vec<(Cause, SocketAddr)> = Vec::new();
    let source = &evidence.vantage.resolver_source;
    for leg in &evidence.walk.legs {
        for (server, trouble, is_before) in troubles(leg) {
            let shown = show_server(server);
            let severity = if is_before {
                Severity::Warning
            } else {
                Severity::Info
            };
            let (cause, facts, hint) = match trouble {
                // Go asks the servers after the one that answered for nothing.
                Trouble::Half { .. } if !is_before => continue,
                Trouble::Half { silent, after } => (
                    Cause::DnsSlow5s,
                    vec![
                        format!("{shown} answers {} for '{}' and not {}, within {}", other(silent).record(), leg.dialled(), silent.record(), Took(after)),
                        "a Go client asks both at once and waits its whole timeout for the missing one, 5 s for each try by default".to_owned(),
                    ],
                    format!("Make {shown}, or the firewall before it, answer {} too; an empty answer is enough.", silent.record()),
                ),
                Trouble::Silent { after } => (
                    Cause::DnsTimeout,
                    vec![format!("{shown} does not answer within {}", Took(after)), if is_before {
                        "a Go client waits for it first, 5 s at each lookup by default; then another server answers".to_owned()
                    } else {
                        "a server before it answers, so no time is lost; there is one reserve less".to_owned()
                    }],
                    format!("Fix {shown}, or take it out of the list ({source})."),
                ),
                Trouble::Broken { fault } => (
                    Cause::DnsError,
                    vec![format!("{shown}: {fault}"), "another server answered, so a pull goes on".to_owned()],
                    format!("Fix {shown}, or take it out of the list ({source})."),
                ),
            };
            if told.contains(&(cause, server)) {
                continue;
            }
            told.push((cause, server));
            findings.push(
                at(cause, leg.role, Phase::Resolve)
                    .severity(severity)
                    .facts(facts)
                    .hint(hint),
            );
        }
    }
}

/// What is wrong with a server although the name resolved.
enum Trouble<'a> {
    /// One family is answered, the other swallowed.
    Half {
        silent: Family,
        after: Duration,
    },
    Silent {
        after: Duration,
    },
    Broken {
        fault: &'a DnsFault,
    },
}

/// The servers that did not do their part for the name that resolved, and whether Go asks them
/// before, or as, the one it has its answer from.
fn troubles(leg: &Leg) -> Vec<(SocketAddr, Trouble<'_>, bool)> {
    let Some(found) = leg.resolve.outcome.done() else {
        return Vec::new();
    };
    let ResolutionSource::Server { server: used } = found.source else {
        return Vec::new();
    };
    let asked: Vec<&Query> = leg
        .resolve
        .queries
        .iter()
        .filter(|q| q.name == found.name)
        .collect();
    let mut servers: Vec<SocketAddr> = Vec::new();
    for query in &asked {
        if !servers.contains(&query.server) {
            servers.push(query.server);
        }
    }
    let last = servers.iter().position(|server| *server == used);
    let mut troubles = Vec::new();
    for (index, server) in servers.iter().enumerate() {
        let is_before = last.is_some_and(|last| index <= last);
        let of = |family| {
            asked
                .iter()
                .filter(move |q| q.server == *server && q.family == family)
        };
        let has_word = |family| of(family).any(|q| is_word(q));
        // Put again after a loss, and answered: no trouble.
        let silence = |family| {
            let mut queries = of(family).peekable();
            queries.peek()?;
            queries.try_fold(Duration::ZERO, |after, q| match &q.outcome {
                Step::Failed {
                    fault: DnsFault::Timeout,
                    took,
                } => Some(after.max(*took)),
                _ => None,
            })
        };
        let trouble = match (silence(Family::V4), silence(Family::V6)) {
            (Some(after), None) if has_word(Family::V6) => Some(Trouble::Half {
                silent: Family::V4,
                after,
            }),
            (None, Some(after)) if has_word(Family::V4) => Some(Trouble::Half {
                silent: Family::V6,
                after,
            }),
            (Some(after), _) | (None, Some(after))
                if !has_word(Family::V4) && !has_word(Family::V6) =>
            {
                Some(Trouble::Silent { after })
            }
            _ => {
                let mut all = of(Family::V4).chain(of(Family::V6));
                let has_any_word = all.clone().any(|q| is_word(q));
                let fault =
                    all.find_map(|q| q.outcome.fault().filter(|f| **f != DnsFault::Timeout));
                fault
                    .filter(|_| !has_any_word)
                    .map(|fault| Trouble::Broken { fault })
            }
        };
        troubles.extend(trouble.map(|trouble| (*server, trouble, is_before)));
    }
    troubles
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
    // A pull does not go by them.
    let found = leg.resolve.outcome.done();
    if found.is_some_and(|found| found.source == ResolutionSource::HostsFile) {
        return None;
    }
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

/// Addresses that are not routed on the Internet (RFC 1918, 6598, 3927, 2544, 4193, loopback).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.is_private()
                || a.is_loopback()
                || a.is_link_local()
                || (a.octets()[0] == 100 && a.octets()[1] & 0xc0 == 64)
                // Huawei Cloud has its VPC endpoints in 198.19.128.0/17.
                || (a.octets()[0] == 198 && a.octets()[1] & 0xfe == 18)
        }
        IpAddr::V6(a) => a.is_loopback() || a.is_unique_local() || a.is_unicast_link_local(),
    }
}

/// A search domain answered in place of the name.
pub(super) fn search_list(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        let (Some(found), Host::Name(host)) = (leg.resolve.outcome.done(), leg.dialled()) else {
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
        // A short name is meant to be completed, and so is a Service's; others with dots were meant
        // as they are.
        let host = host.trim_end_matches('.');
        if !host.contains('.') || host.rsplit('.').next() == Some("svc") {
            continue;
        }
        let full = found.name.trim_end_matches('.');
        let domain = full
            .strip_prefix(host)
            .unwrap_or(full)
            .trim_start_matches('.');
        let source = &evidence.vantage.resolver_source;
        let addresses: Vec<String> = found
            .addresses
            .iter()
            .take(4)
            .map(ToString::to_string)
            .collect();
        let mut finding = at(Cause::DnsSearchLeak, leg.role, Phase::Resolve)
            .fact(format!(
                "asked for '{host}', answered as '{full}': {}",
                addresses.join(", ")
            ))
            .fact("the search list comes before the name as written, so that was not asked")
            .hint(format!(
                "Take the wildcard out of the zone '{domain}', or lower ndots in {source}."
            ));
        // A certificate for the full name means that the server is the one meant, by a short name.
        if let Some(TlsFault::NameMismatch { presented, .. }) = leg.tls.outcome.fault()
            && leg.way.proxy().is_none()
            && !presented.iter().any(|name| covers(name, full))
        {
            finding = finding.severity(Severity::Critical).fact(format!(
                "the server found there has a certificate for neither '{host}' nor '{full}'"
            ));
        }
        findings.push(finding);
    }
}

/// RFC 9525, 6.3: `*` stands for one whole label, the first.
fn covers(presented: &str, name: &str) -> bool {
    match presented.strip_prefix("*.") {
        Some(parent) => name
            .split_once('.')
            .is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => presented.eq_ignore_ascii_case(name),
    }
}

/// An entry of the hosts file that leads nowhere, where the name servers know another address.
pub(super) fn hosts_file(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        let Some(found) = leg.resolve.outcome.done() else {
            continue;
        };
        let Some(fault) = leg.connect.outcome.fault() else {
            continue;
        };
        // A local policy or a prohibition speaks of this place, not of the entry. A refused port is
        // that, whoever named the address.
        let may_be_old = matches!(
            fault,
            TcpFault::Timeout
                | TcpFault::HostUnreachable { .. }
                | TcpFault::NetUnreachable { icmp: Some(_) }
        );
        let others = addresses_by_servers(leg);
        let of = |all: &[IpAddr], family| all.iter().any(|a| Family::of(*a) == family);
        // A family of which one side says nothing tells nothing.
        let is_other = [Family::V4, Family::V6]
            .into_iter()
            .any(|family| of(&others, family) && of(&found.addresses, family))
            && !found.addresses.iter().any(|a| others.contains(a));
        if found.source != ResolutionSource::HostsFile || !may_be_old || !is_other {
            continue;
        }
        // That a proxy can't be reached is said of the proxy.
        let severity = match leg.way.proxy() {
            Some(_) => Severity::Warning,
            None => Severity::Critical,
        };
        let host = leg.dialled();
        findings.push(
            at(Cause::DnsStale, leg.role, Phase::Connect)
                .severity(severity)
                .confidence(Confidence::Medium)
                .fact(format!(
                    "the hosts file says {host} is at {}",
                    list(&found.addresses)
                ))
                .fact(format!("the name servers say it is at {}", list(&others)))
                .fact(format!("{}: {fault}", leg.endpoint))
                .hint(format!("Correct or remove '{host}' in the hosts file.")),
        );
    }
}

/// The addresses in the answers of the name servers.
fn addresses_by_servers(leg: &Leg) -> Vec<IpAddr> {
    let answers = leg.resolve.queries.iter();
    let answers = answers.filter_map(|query| query.outcome.done());
    let mut addresses: Vec<IpAddr> = answers
        .flat_map(|answer| answer.records.iter().map(|record| record.address))
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses
}

fn list(addresses: &[IpAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

/// Answers for a public registry that lead to a network it is not in.
///
/// Only seen where the leg fails there: reports of forged answers (see the catalogue) all name
/// addresses of these companies, which serve no registry.
pub(super) fn forged(evidence: &Evidence, findings: &mut Vec<Finding>) {
    for leg in &evidence.walk.legs {
        let (Some(found), Host::Name(host)) = (leg.resolve.outcome.done(), &leg.endpoint.host)
        else {
            continue;
        };
        let is_server = matches!(found.source, ResolutionSource::Server { .. });
        let failed = leg.connect.outcome.fault().is_some() || leg.tls.outcome.fault().is_some();
        if !is_server || !failed || leg.way.proxy().is_some() || !is_public_registry(host) {
            continue;
        }
        let foreign: Vec<String> = found
            .addresses
            .iter()
            .filter_map(|address| {
                Some(format!(
                    "'{host}' was answered as {address}, an address of {}",
                    owner(*address)?
                ))
            })
            .collect();
        if foreign.is_empty() || foreign.len() < found.addresses.len() {
            continue;
        }
        findings.push(
            at(Cause::DnsHijack, leg.role, Phase::Resolve)
                .confidence(Confidence::Medium)
                .facts(foreign)
                .facts(leg.connect.outcome.fault().map(ToString::to_string))
                .facts(leg.tls.outcome.fault().map(ToString::to_string))
                .hint(format!("Copy the image from {host} to a registry of this region (SWR on Huawei Cloud) and pull it from there.")),
        );
    }
}

/// Registries of the public Internet, with their token services and storage.
pub(super) fn is_public_registry(host: &str) -> bool {
    const DOMAINS: &[&str] = &[
        "docker.io",
        "docker.com",
        "ghcr.io",
        "gcr.io",
        "pkg.dev",
        "quay.io",
        "registry.k8s.io",
        "mcr.microsoft.com",
        "nvcr.io",
        "public.ecr.aws",
    ];
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    DOMAINS.iter().any(|domain| {
        host.strip_suffix(domain)
            .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

/// The company that a forged answer's address belongs to: those of the reports in the catalogue.
fn owner(address: IpAddr) -> Option<&'static str> {
    let IpAddr::V4(address) = address else {
        return None;
    };
    match address.octets() {
        [162, 125, ..] => Some("Dropbox"),
        [108, 160, third, _] if third & 0xf0 == 160 => Some("Dropbox"),
        [199, 59, third, _] if third & 0xfc == 148 => Some("Twitter"),
        _ => None,
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
