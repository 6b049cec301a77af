//! Rules for names: whether they resolve, and whether the name servers agree.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::finding::{at, written_in};
use super::lookups::prospect;
use super::name_servers;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::diagnose::path::is_private;
use crate::model::endpoint::{Host, Role};
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{DnsFault, Phase, TlsFault, show_server};
use crate::model::resolve::{Family, NameAnswer, Query, Resolution, ResolutionSource};
use crate::model::resolver::ResolverSettings;
use crate::model::step::Step;
use crate::model::text::joined;
use crate::model::units::HumanDuration;

/// A name that does not resolve.
pub(super) fn resolution(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    // `proxy::closed` reports a proxy's name.
    let fault = leg
        .resolve
        .outcome
        .fault()
        .filter(|_| leg.proxy_route.proxy().is_none())?;
    let prospect = prospect(evidence, leg);
    if name_servers::are_all_reported(leg)
        || prospect
            .as_ref()
            .is_some_and(|prospect| prospect.is_open() || prospect.is_too_late())
    {
        return None;
    }
    let host = &leg.endpoint.host;
    let is_nothing = matches!(fault, DnsFault::NxDomain | DnsFault::NoData);
    if is_nothing && split(evidence, leg).is_some() {
        return None;
    }
    let cause = cause_of(fault);
    let (mut servers, deaf) = servers_of(leg);
    if !is_nothing {
        servers.extend(deaf.iter().cloned());
    }
    let servers_text = if servers.is_empty() {
        "this machine's name servers".to_owned()
    } else {
        joined(servers)
    };
    let hint = match cause {
        Cause::DnsNxdomain => {
            let compare = match leg.role {
                Role::Registry => format!("Compare '{host}' with the registry's documentation"),
                role => format!("Check '{host}' in {}", written_in(evidence, role)),
            };
            format!(
                "{compare}; if it is a private name, associate its zone with this VPC or forward it on {servers_text}."
            )
        }
        Cause::DnsTimeout => match leg.resolve.queries.first() {
            Some(query) => format!(
                "{}Run `dig +tcp @{} -p {} {host}` here: an answer means that UDP to that port is dropped on the path; no answer means that the server is down, or that the route or a security group blocks it.",
                may_be_slow(evidence, host, query.server),
                query.server.ip(),
                query.server.port()
            ),
            None => format!("Check the servers in {}.", evidence.vantage.resolver_name()),
        },
        Cause::DnsServerUnreachable if matches!(fault, DnsFault::Unreachable { .. }) => {
            format!(
                "Check the route to {servers_text} (`ip route get`) and filters for {} port 53, first on this machine, then on the path.",
                if leg.resolve.queries.iter().all(|query| query.tcp) {
                    "TCP"
                } else {
                    "UDP"
                }
            )
        }
        Cause::DnsServerUnreachable => {
            format!(
                "Start the name server at {servers_text}, or write a running one into {}.",
                evidence.vantage.resolver_name()
            )
        }
        _ => cause.entry().fix.to_owned(),
    };
    let (alias, alias_hint) = match cause {
        Cause::DnsNxdomain | Cause::DnsNodata => name_servers::broken_alias(leg).unzip(),
        _ => (None, None),
    };
    let mut hint = alias_hint.unwrap_or(hint);
    let mut finding = at(cause, leg.role, Phase::Resolve)
        .fact(format!("'{host}': {fault}"))
        .facts(alias)
        .facts(leg.resolve.queries.iter().filter_map(line).take(8));
    if is_nothing && !deaf.is_empty() {
        let deaf = joined(deaf);
        finding = finding.confidence(Confidence::Medium).fact(format!(
            "{deaf} gave no usable answer, and may know the name"
        ));
        hint = format!(
            "If the zone of '{host}' is on {deaf}, make that server answer: until then, the word of another one decides. Otherwise: {hint}"
        );
    }
    if prospect.is_some_and(|prospect| prospect.may_ask_resolved()) {
        finding = finding.confidence(Confidence::Medium).fact(
            "nsswitch.conf has 'resolve': a runtime that is linked with libc asks systemd-resolved, which may have other servers",
        );
    }
    let Some(settings) = &evidence.vantage.resolver else {
        return Some(finding.hint(hint));
    };
    let source = evidence.vantage.resolver_name();
    let finding = finding.facts(settings.notes.iter().take(4).cloned());
    let (fact, hint) = match not_queried(leg, settings, source) {
        Some((fact, hint)) => (Some(fact), hint),
        None => (None, hint),
    };
    Some(finding.facts(fact).hint(hint))
}

/// The cause of a fault.
fn cause_of(fault: &DnsFault) -> Cause {
    match fault {
        DnsFault::NxDomain => Cause::DnsNxdomain,
        DnsFault::NoData => Cause::DnsNodata,
        DnsFault::Timeout => Cause::DnsTimeout,
        DnsFault::ServFail => Cause::DnsServfail,
        DnsFault::Refused => Cause::DnsRefused,
        DnsFault::PortClosed | DnsFault::Unreachable { .. } | DnsFault::NoServers => {
            Cause::DnsServerUnreachable
        }
        DnsFault::OtherCode { .. } | DnsFault::Malformed { .. } => Cause::DnsError,
        DnsFault::OwnLimit { .. } => Cause::OwnLimits,
    }
}

/// `dig` waits longer than a resolver whose `timeout` is short.
fn may_be_slow(evidence: &Evidence, host: &Host, server: SocketAddr) -> String {
    let settings = evidence.vantage.resolver.as_ref();
    let timeout = settings.map(|settings| settings.timeout);
    timeout
        .filter(|timeout| *timeout < USUAL_TIMEOUT)
        .map_or_else(String::new, |timeout| {
            let source = evidence.vantage.resolver_name();
            format!(
                "{source} allows {} for an answer: if `dig +time=9 +tries=1 @{} -p {} {host}` is answered later, raise its 'timeout'. Otherwise: ",
                HumanDuration(timeout),
                server.ip(),
                server.port()
            )
        })
}

/// resolv.conf(5), `timeout`.
const USUAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What would have the name, or why no server is queried for it; and the fix.
fn not_queried(leg: &Leg, settings: &ResolverSettings, source: &str) -> Option<(String, String)> {
    let beyond = leg.resolve.beyond.iter();
    let beyond: Vec<&Query> = beyond.filter(|q| q.outcome.done().is_some()).collect();
    if let Some(query) = beyond.first() {
        let server = show_server(query.server);
        let addresses = beyond.iter().filter_map(|q| q.outcome.done());
        let addresses = addresses
            .flat_map(|answer| &answer.records)
            .map(|r| r.address);
        return Some((
            format!(
                "{server} has it at {}, but is not among the first three servers of {source}, and no others are queried",
                joined(addresses)
            ),
            format!("List {server} among the first three servers in {source}."),
        ));
    }
    let sources = &settings.sources;
    (leg.resolve.queries.is_empty() && !sources.list.is_empty() && !sources.has("dns")).then(|| {
        (
            format!(
                "nsswitch.conf has 'hosts: {}': no name server is queried",
                joined(&sources.list)
            ),
            format!(
                "Add 'dns' to the line 'hosts:' of nsswitch.conf, or '{}' to the hosts file.",
                leg.endpoint.host
            ),
        )
    })
}

/// Name servers that fail while others answer, and name servers that return different answers.
pub(super) fn servers(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let legs = evidence.walk.legs.iter();
    findings.extend(legs.filter_map(|leg| split(evidence, leg)));
    // A server's fault affects every leg; it is reported at the first one.
    let mut reported: BTreeSet<(Cause, SocketAddr)> = BTreeSet::new();
    for leg in &evidence.walk.legs {
        let Some(found) = leg.resolve.outcome.done() else {
            continue;
        };
        let ResolutionSource::Server { server: used } = found.source else {
            continue;
        };
        let queries = leg.resolve.queries.iter();
        let queries: Vec<&Query> = queries.filter(|q| q.name == found.name).collect();
        let mut servers: Vec<SocketAddr> = Vec::new();
        for query in &queries {
            if !servers.contains(&query.server) {
                servers.push(query.server);
            }
        }
        let last = servers.iter().position(|server| *server == used);
        for (index, server) in servers.into_iter().enumerate() {
            let is_before = rotates(evidence) || last.is_some_and(|last| index <= last);
            let finding = trouble(evidence, leg, server, &queries, is_before);
            findings.extend(finding.filter(|finding| reported.insert((finding.cause, server))));
        }
    }
}

/// A name server's fault although the name resolved. `is_before`: Go queries it before the server whose
/// answer it uses, or it is that server.
fn trouble(
    evidence: &Evidence,
    leg: &Leg,
    server: SocketAddr,
    queries: &[&Query],
    is_before: bool,
) -> Option<Finding> {
    if name_servers::is_reported(leg, server) {
        return None;
    }
    let (source, shown) = (evidence.vantage.resolver_name(), show_server(server));
    let finding =
        |cause| at(cause, leg.role, Phase::Resolve).severity(Severity::warning_if(is_before));
    let fix = format!("Fix {shown}, or take it out of the list ({source}).");
    let longest = prospect(evidence, leg).map(|prospect| HumanDuration(prospect.longest()));
    let of = |family| {
        let of_it = queries.iter().filter(move |q| q.server == server);
        of_it.filter(move |q| q.family == family)
    };
    let has_word = |family| of(family).any(|q| q.is_answered());
    // A lost query that was answered when repeated is not a fault.
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
    let (v4, v6) = (silence(Family::V4), silence(Family::V6));
    // One family is answered, the other is not.
    let half = match (v4, v6) {
        (Some(after), None) if has_word(Family::V6) => Some((Family::V6, Family::V4, after)),
        (None, Some(after)) if has_word(Family::V4) => Some((Family::V4, Family::V6, after)),
        _ => None,
    };
    if let Some((answered, silent, after)) = half {
        let (answered, silent) = (answered.record(), silent.record());
        // Go does not query the servers after the one that answered.
        return is_before.then(|| {
            finding(Cause::DnsSlow5s)
                .fact(format!("{shown} answers {answered} for '{}', but not {silent} within {}", leg.dialed(), HumanDuration(after)))
                .fact(longest.map_or_else(
                    || "a Go client queries both at once and waits its whole timeout for the missing answer, 5 s for each attempt by default".to_owned(),
                    |longest| format!("a Go client waits for both: each lookup takes {longest}"),
                ))
                .hint(format!("Make {shown}, or the firewall in front of it, answer {silent} too; an empty answer is enough."))
        });
    }
    if has_word(Family::V4) || has_word(Family::V6) {
        return None;
    }
    if let Some(after) = v4.or(v6) {
        let costs = match longest.filter(|_| is_before) {
            Some(longest) if rotates(evidence) => format!("'options rotate' in resolv.conf: lookups that begin with it take {longest}"),
            Some(longest) => format!("it is queried before the server that answers: each lookup takes {longest} in all"),
            None if is_before => "a Go client waits for it first, 5 s for each lookup by default; then another server answers".to_owned(),
            None => "an earlier server answers, so no time is lost; but there is one fallback less".to_owned(),
        };
        let says = format!("{shown} does not answer within {}", HumanDuration(after));
        return Some(finding(Cause::DnsTimeout).fact(says).fact(costs).hint(fix));
    }
    let mut faults = of(Family::V4)
        .chain(of(Family::V6))
        .filter_map(|q| q.outcome.fault());
    let fault = faults.find(|fault| **fault != DnsFault::Timeout)?;
    Some(
        finding(cause_of(fault))
            .fact(format!("{shown}: {fault}"))
            .fact("another server answered, so a pull continues")
            .hint(fix),
    )
}

/// Lookups begin with each server in turn.
fn rotates(evidence: &Evidence) -> bool {
    let settings = evidence.vantage.resolver.as_ref();
    settings.is_some_and(|settings| settings.rotate)
}

/// One server knows a private zone and another does not.
fn split(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let source = evidence.vantage.resolver_name();
    // A pull does not use the servers' answers.
    let found = leg.resolve.outcome.done();
    if found.is_some_and(|found| found.source == ResolutionSource::HostsFile) {
        return None;
    }
    let answers = leg.resolve.disagreement()?;
    // Nothing, private addresses, or public ones.
    let kind = |answers: &NameAnswer| match answers {
        NameAnswer::NxDomain | NameAnswer::NoData => None,
        NameAnswer::Addresses(addresses) => Some(addresses.iter().all(|one| is_private(*one))),
    };
    let kinds: BTreeSet<Option<bool>> = answers.iter().map(|(_, answers)| kind(answers)).collect();
    if kinds.len() < 2 {
        return None;
    }
    // Without a private answer, a server with addresses has the zone.
    let is_private_zone = kinds.contains(&Some(true));
    let lacks = answers.iter().filter(|(_, answers)| match kind(answers) {
        Some(is_private) => is_private != is_private_zone,
        None => true,
    });
    let lacking: BTreeSet<String> = lacks.map(|(server, _)| show_server(*server)).collect();
    let finding = at(Cause::DnsSplitHorizon, leg.role, Phase::Resolve)
        .facts(
            answers
                .iter()
                .map(|(server, answers)| format!("{} answers {answers}", show_server(*server))),
        )
        .hint(format!(
            "Forward the {}zone of '{}' on {}, or remove it from the list ({source}): all servers there must serve the same view.",
            if is_private_zone { "private " } else { "" },
            leg.dialed(),
            joined(lacking)
        ));
    let by_chance = prospect(evidence, leg).and_then(|prospect| prospect.by_chance());
    if let Some((failed, of)) = by_chance {
        return Some(finding.severity(Severity::Critical).fact(format!(
            "'options rotate' in resolv.conf: a lookup begins with each server in turn, for A and AAAA apart; of {of} ways to begin, {failed} fail, so pulls fail now and then"
        )));
    }
    Some(match leg.resolve.outcome.done() {
        Some(_) if rotates(evidence) => finding
            .severity(Severity::Warning)
            .fact("'options rotate' in resolv.conf: a pull uses the answer of each server in turn"),
        Some(found) => {
            let server = match found.source {
                ResolutionSource::Server { server } => format!(" of {}", show_server(server)),
                _ => String::new(),
            };
            finding
                .severity(Severity::Warning)
                .fact(format!("a pull uses the answer{server}"))
        }
        None => finding
            .severity(Severity::Critical)
            .fact("a pull uses the first server's answer, and that server does not know the name"),
    })
}

/// A name in a search domain was answered in place of the name as written.
pub(super) fn search_list(evidence: &Evidence, leg: &Leg) -> Option<Finding> {
    let (host, found) = completed(leg)?;
    let full = found.name.trim_end_matches('.');
    let domain = full.strip_prefix(&*host).unwrap_or(full);
    let domain = domain.trim_start_matches('.');
    let source = evidence.vantage.resolver_name();
    let mut finding = at(Cause::DnsSearchLeak, leg.role, Phase::Resolve)
        .fact(format!(
            "the query for '{host}' was answered as '{full}': {}",
            joined(found.addresses.iter().take(4))
        ))
        .fact("the search list is tried before the name as written, so the latter was not queried")
        .hint(format!(
            "Remove the wildcard from the zone '{domain}', or lower ndots in {source}."
        ));
    // A certificate for the full name means that the short name was meant to reach this server.
    if let Some(TlsFault::NameMismatch { presented, .. }) = leg.tls.outcome.fault()
        && leg.proxy_route.proxy().is_none()
        && !presented.iter().any(|name| covers(name, full))
    {
        finding = finding.severity(Severity::Critical).fact(format!(
            "the server there has a certificate for neither '{host}' nor '{full}'"
        ));
    }
    Some(finding)
}

/// The name as written, and what the search list made of it, if it seems to be meant as written.
pub(super) fn completed(leg: &Leg) -> Option<(String, &Resolution)> {
    let (Some(found), Host::Name(host)) = (leg.resolve.outcome.done(), leg.dialed()) else {
        return None;
    };
    let is_server = matches!(found.source, ResolutionSource::Server { .. });
    let host = host.trim_end_matches('.').to_owned();
    let is_other = !found.name.trim_end_matches('.').eq_ignore_ascii_case(&host);
    // A short name is meant to be completed, and so is that of a Service; other names with dots are meant as written.
    let is_meant = host.contains('.') && host.rsplit('.').next() != Some("svc");
    (is_server && is_other && is_meant).then_some((host, found))
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

/// Answers for a public registry with addresses of a foreign network.
///
/// Only reported if the leg fails there: all reports of forged answers (see the catalogue) name addresses of
/// these companies, which serve no registry.
pub(super) fn forged(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let (Some(found), Host::Name(host)) = (leg.resolve.outcome.done(), &leg.endpoint.host) else {
        return None;
    };
    let is_server = matches!(found.source, ResolutionSource::Server { .. });
    let failed = leg.connect.outcome.fault().is_some() || leg.tls.outcome.fault().is_some();
    if !is_server || !failed || leg.proxy_route.proxy().is_some() || !is_public_registry(host) {
        return None;
    }
    let foreign: Vec<String> = found
        .addresses
        .iter()
        .filter_map(|address| {
            Some(format!(
                "the answer for '{host}' is {address}, an address of {}",
                owner(*address)?
            ))
        })
        .collect();
    if foreign.is_empty() || foreign.len() < found.addresses.len() {
        return None;
    }
    Some(
        at(Cause::DnsHijack, leg.role, Phase::Resolve)
            .confidence(Confidence::Medium)
            .facts(foreign)
            .facts(leg.connect.outcome.words())
            .facts(leg.tls.outcome.words())
            .hint(format!("Copy the image from {host} to a registry in this region (SWR on Huawei Cloud) and pull it from there.")),
    )
}

/// Whether the host is a registry of the public Internet, or its token service or storage.
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
    is_below(&host.trim_end_matches('.').to_ascii_lowercase(), DOMAINS)
}

/// Whether the host is one of these domains, or a name below one.
pub(super) fn is_below(host: &str, domains: &[&str]) -> bool {
    let mut rests = domains
        .iter()
        .filter_map(|domain| host.strip_suffix(domain));
    rests.any(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// The company that owns a forged answer's address; those in the reports that the catalogue cites.
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

/// The servers that answered a query, and those that answered none.
fn servers_of(leg: &Leg) -> (BTreeSet<String>, BTreeSet<String>) {
    let queries = || leg.resolve.queries.iter();
    let (heard, rest): (Vec<&Query>, Vec<&Query>) = queries().partition(|q| q.is_answered());
    let shown = |queries: Vec<&Query>| -> BTreeSet<String> {
        let servers = queries.into_iter().map(|query| show_server(query.server));
        servers.collect()
    };
    let heard = shown(heard);
    let deaf = shown(rest).difference(&heard).cloned().collect();
    (heard, deaf)
}

fn line(query: &Query) -> Option<String> {
    let fault = query.outcome.fault()?;
    let over = if query.tcp { " over TCP" } else { "" };
    let took = query.outcome.took().map_or_else(String::new, |took| {
        format!(" after {}", HumanDuration(took))
    });
    Some(format!(
        "{} {}{over} for {}: {fault}{took}",
        show_server(query.server),
        query.family.record(),
        query.name
    ))
}
