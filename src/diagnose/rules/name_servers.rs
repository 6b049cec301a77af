//! Rules for what a name server's answers need: TCP, EDNS, and the zone at the end of an alias.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::finding::at;
use super::lookups::{SLOW, prospect};
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::model::endpoint::Role;
use crate::model::evidence::{Evidence, Leg};
use crate::model::fault::{DnsFault, Phase, show_server};
use crate::model::resolve::{Query, ResolutionSource};
use crate::model::step::Step;
use crate::model::text::joined;
use crate::model::units::HumanDuration;

/// Servers whose answers need TCP and that are closed there, and servers that answer no query with EDNS.
pub(super) fn transport(evidence: &Evidence, findings: &mut Vec<Finding>) {
    // A server's fault affects every leg; it is reported at the first one.
    let mut reported: BTreeSet<SocketAddr> = BTreeSet::new();
    for leg in &evidence.walk.legs {
        let Some(severity) = severity_at(leg) else {
            continue;
        };
        for server in servers(leg) {
            let finding = tcp_closed(leg, server).or_else(|| no_edns(leg, server));
            if let Some(finding) = finding.filter(|_| reported.insert(server)) {
                let finding = finding.severity(severity(server));
                let costs = cost(evidence, leg).filter(|_| finding.severity == Severity::Warning);
                findings.push(finding.facts(costs));
            }
        }
    }
}

/// What each lookup takes, although another server answers.
fn cost(evidence: &Evidence, leg: &Leg) -> Option<String> {
    let longest = prospect(evidence, leg)?.longest();
    (longest >= SLOW).then(|| {
        format!(
            "each lookup of '{}' takes {}",
            leg.dialed(),
            HumanDuration(longest)
        )
    })
}

/// A build without EDNS needs TCP for an answer that fits with EDNS, and the server is closed there.
pub(super) fn needs_edns(_: &Evidence, leg: &Leg) -> Option<Finding> {
    let found = leg.resolve.outcome.done()?;
    let query = leg.resolve.without_edns.as_deref()?;
    let large = leg
        .resolve
        .queries
        .iter()
        .find_map(|query| query.large_answer_bytes)?;
    let is_of_server = matches!(found.source, ResolutionSource::Server { .. });
    let finding = closed(leg, query).filter(|_| is_of_server)?;
    // The next server may answer.
    let is_only = servers(leg).len() == 1;
    Some(
        finding
            .severity(Severity::critical_if(is_only))
            .fact(format!(
                "with EDNS the answer fits: it has {large} bytes, and without EDNS at most 512"
            ))
            .fact(BY_BUILD),
    )
}

/// How bad the fault of a server is; `None` if no server decides the leg's addresses.
fn severity_at(leg: &Leg) -> Option<impl Fn(SocketAddr) -> Severity> {
    let last = match leg.resolve.outcome.done().map(|found| found.source) {
        None => None,
        Some(ResolutionSource::Server { server }) => Some(server),
        Some(_) => return None,
    };
    let order = servers(leg);
    Some(move |server| {
        let place = |of| order.iter().position(|one| *one == of);
        match last {
            None => Severity::Critical,
            // Go queries it before the server whose answer it uses.
            Some(used) => Severity::warning_if(place(server) <= place(used)),
        }
    })
}

/// The servers of a leg, in the order of the queries.
fn servers(leg: &Leg) -> Vec<SocketAddr> {
    let mut servers = Vec::new();
    for query in &leg.resolve.queries {
        if !servers.contains(&query.server) {
            servers.push(query.server);
        }
    }
    servers
}

/// Whether [`transport`] reports this server.
pub(super) fn is_reported(leg: &Leg, server: SocketAddr) -> bool {
    tcp_closed(leg, server).is_some() || no_edns(leg, server).is_some()
}

/// Whether [`transport`] reports every query that failed for the last name. That the other family has no address, if it
/// was answered, is not the cause.
pub(super) fn are_all_reported(leg: &Leg) -> bool {
    let Some(last) = leg.resolve.queries.last() else {
        return false;
    };
    let of_name = leg.resolve.queries.iter().filter(|q| q.name == last.name);
    let mut failed = of_name.filter(|query| !query.is_answered()).peekable();
    failed.peek().is_some() && failed.all(|query| is_reported(leg, query.server))
}

/// A truncated answer over UDP, and nothing over TCP.
fn tcp_closed(leg: &Leg, server: SocketAddr) -> Option<Finding> {
    let queries = leg.resolve.queries.iter();
    let mut truncated = queries.filter(|q| q.server == server && q.truncated_after.is_some());
    let query = truncated.clone().find(|query| is_closed(query))?;
    // One answer over TCP shows that it is open.
    if truncated.any(|other| !is_closed(other)) {
        return None;
    }
    closed(leg, query)
}

fn is_closed(query: &Query) -> bool {
    matches!(
        query.outcome.fault(),
        Some(
            DnsFault::Timeout
                | DnsFault::PortClosed
                | DnsFault::Unreachable { .. }
                | DnsFault::Malformed { .. }
        )
    )
}

/// The finding for a query that got a truncated answer over UDP, and none over TCP.
fn closed(leg: &Leg, query: &Query) -> Option<Finding> {
    let over_udp = query.truncated_after.filter(|_| is_closed(query))?;
    let server = query.server;
    let (shown, port) = (show_server(server), server.port());
    let (fault, took) = (query.outcome.fault()?, query.outcome.took()?);
    let over_tcp = HumanDuration(took.saturating_sub(over_udp));
    let closed = match fault {
        DnsFault::Timeout => format!("no answer within {over_tcp}"),
        DnsFault::PortClosed => format!("refused after {over_tcp}"),
        fault => format!("{fault}, after {over_tcp}"),
    };
    let host = leg.dialed();
    Some(
        at(Cause::DnsTcpClosed, leg.role, Phase::Resolve)
            .fact(format!(
                "{shown} answers {} for '{}' over UDP after {} with TC set: the answer does not fit into a UDP packet",
                query.family.record(),
                query.name,
                HumanDuration(over_udp)
            ))
            .fact(format!("the same over TCP, as TC requires: port {port} of {}: {closed}", server.ip()))
            .hint(format!(
                "Open TCP {port} to {shown} (firewall, security group, network ACL), as UDP is, or shorten the answer: fewer addresses or aliases for '{host}'."
            )),
    )
}

/// Queries with EDNS are not answered, and the same query without is.
fn no_edns(leg: &Leg, server: SocketAddr) -> Option<Finding> {
    let mut trials = leg.resolve.edns_trials.iter();
    let trial = trials.find(|trial| trial.server == server && trial.is_proof())?;
    let mut queries = leg.resolve.queries.iter();
    let query = queries.find(|query| query.server == server)?;
    let without = match &trial.without {
        Step::Done { value, .. } => joined(value.records.iter().take(4).map(|r| r.address)),
        other => other.words().unwrap_or_default(),
    };
    let after = |step: &Step<_, _>| HumanDuration(step.took().unwrap_or_default());
    let shown = show_server(server);
    let finding = at(Cause::DnsNoEdns, leg.role, Phase::Resolve)
        .fact(format!(
            "{shown}, asked for '{}' with EDNS: {}",
            query.name,
            query.outcome.words()?
        ))
        .fact(format!(
            "asked once more without EDNS: {without}, after {}",
            after(&trial.without)
        ))
        .fact(format!(
            "and with EDNS again: {}, after {}",
            trial.with.words()?,
            after(&trial.with)
        ));
    let fix = format!(
        "Let {shown}, and every firewall in front of it, accept queries with EDNS (an OPT record), or use another name server."
    );
    Some(if leg.resolve.sends_edns == Some(true) {
        finding
            .fact("this containerd's resolver sends EDNS with every query, and has no second try without")
            .hint(format!("{fix} Until then set GODEBUG=netedns0=0 in containerd's environment (Go 1.21.12, 1.22.5 or later)."))
    } else {
        finding
            .fact(BY_BUILD)
            .hint(format!("{fix} To see whether this node's pulls are hit, name the runtime with --runtime (`containerd://VERSION`); `go version -m /usr/bin/containerd` shows the build's Go version and its GODEBUG defaults."))
    })
}

const BY_BUILD: &str = "whether containerd's queries have EDNS depends on its build: with Go 1.19 or later they have, unless GODEBUG, or its default in that build, is netedns0=0";

/// Whether some builds of the runtime are not hit by a server without EDNS.
pub(super) fn depends_on_build(evidence: &Evidence) -> bool {
    let mut legs = evidence.walk.legs.iter();
    legs.all(|leg| leg.resolve.sends_edns != Some(true))
}

/// Whether the leg's name resolved for this check: only a build without EDNS fails then.
pub(super) fn is_resolved(evidence: &Evidence, leg: Option<Role>) -> bool {
    let mut legs = evidence
        .walk
        .legs
        .iter()
        .filter(|one| Some(one.role) == leg);
    legs.any(|leg| leg.resolve.without_edns.is_some())
}

/// The alias whose last name has no address: the facts, and what to do about its zone.
pub(super) fn broken_alias(leg: &Leg) -> Option<(String, String)> {
    let fault = leg.resolve.outcome.fault();
    let queries = leg.resolve.queries.iter();
    let mut decisive = queries.filter(|query| query.outcome.fault() == fault);
    let (query, negative) = decisive.find_map(|query| Some((query, query.negative.as_ref()?)))?;
    let plain = |name: &str| name.trim_end_matches('.').to_owned();
    let chain: Vec<String> = negative.cnames.iter().map(|name| plain(name)).collect();
    let last = chain.last()?;
    let (shown, host) = (show_server(query.server), plain(&query.name));
    let (_, parent) = last.split_once('.')?;
    let looked_in = negative.zone.as_deref().map(plain);
    let lacks = looked_in.as_ref().map_or_else(String::new, |zone| {
        format!(": the zone '{zone}' there lacks it")
    });
    let fact = format!(
        "'{host}' is an alias of {}, and that name has no address at {shown}{lacks}",
        chain
            .iter()
            .map(|name| format!("'{name}'"))
            .collect::<Vec<_>>()
            .join(", that of ")
    );
    let hint = match looked_in.filter(|zone| !zone.eq_ignore_ascii_case(parent)) {
        Some(zone) => format!(
            "{shown} looked for '{last}' in the zone '{zone}'. If the name is in a private zone ('{parent}'), link that zone to this VPC, or forward it on {shown}; otherwise add the record to '{zone}'."
        ),
        None => format!(
            "Add the record of '{last}' to the zone '{parent}'. If it is a private zone that has the record elsewhere, link that zone to this VPC, or forward it on {shown}."
        ),
    };
    Some((fact, hint))
}
