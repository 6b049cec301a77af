//! Rules for path classes: a route that is missing, or not the expected one.

use super::connection;
use super::finding::{at, fixes_text, new};
use super::routes;
use crate::diagnose::Finding;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::diagnose::path;
use crate::diagnose::path::leg_path::LegPath;
use crate::model::evidence::Evidence;
use crate::model::fault::Phase;
use crate::model::network::{EgressTrial, ObservedEgress};
use crate::model::path::{PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::text::joined;
use crate::model::vantage::NetworkView;

/// No public host can be reached: the fault is not with this registry.
pub(super) fn no_egress(_: &Evidence, path: &LegPath) -> Option<Finding> {
    let controls = path
        .evidence
        .iter()
        .filter(|fact| fact.signal == Signal::Control);
    let others: Vec<String> = controls.map(|fact| fact.message.clone()).collect();
    let is_out = path.class == Some(PathClass::PublicUnknown)
        && path.needs.iter().any(|class| class.is_public());
    if !is_out || others.is_empty() {
        return None;
    }
    Some(
        at(Cause::NoEgress, path.role, Phase::Connect)
            .confidence(Confidence::of(path.score))
            .fact(format!("{} can't be reached", path.endpoint))
            .facts(others)
            .hint(fixes_text(path)),
    )
}

/// Two networks use the range of the address.
pub(super) fn overlap(evidence: &Evidence, path: &LegPath) -> Option<Finding> {
    if !path.overlap {
        return None;
    }
    let severity = routes::overlap_severity(evidence, path);
    let facts = path.evidence.iter().chain(&path.contradictions);
    let hint = if path.fixes.is_empty() {
        "Renumber one of the two networks, or correct network.cidrs: the host that responds is in this network."
            .to_owned()
    } else {
        fixes_text(path)
    };
    Some(
        at(Cause::AddressOverlap, path.role, Phase::Connect)
            .severity(severity)
            .confidence(Confidence::Medium)
            .facts(facts.map(|fact| fact.message.clone()))
            .facts(failure(evidence, path))
            .hint(hint),
    )
}

/// What happens at the address: nothing answers, or another host does.
fn failure(evidence: &Evidence, path: &LegPath) -> Vec<String> {
    let mut legs = evidence.walk.legs.iter();
    let leg = legs.find(|leg| leg.role == path.role && leg.endpoint == path.endpoint);
    let Some(leg) = leg.filter(|leg| leg.proxy_route.proxy().is_none()) else {
        return Vec::new();
    };
    match (leg.connect.outcome.fault(), leg.tls.outcome.fault()) {
        (Some(_), _) => connection::attempts(leg),
        (None, Some(fault)) => vec![format!("{}: {fault}", leg.endpoint)],
        (None, None) => Vec::new(),
    }
}

/// The addresses of a name are reached over different paths.
pub(super) fn mixed(_: &Evidence, path: &LegPath) -> Option<Finding> {
    if path.class != Some(PathClass::Mixed) {
        return None;
    }
    let facts = path.addresses.iter().map(|address| {
        format!(
            "{} is {}, {}",
            address.address,
            address.class,
            address.reachability.describe()
        )
    });
    Some(
        at(Cause::PathMixed, path.role, Phase::Connect)
            .facts(facts)
            .hint(format!(
                "Let the name servers of this network return addresses of one kind for {}.",
                path.endpoint.host
            )),
    )
}

/// A private address that no configuration describes and that can't be reached: which route is missing
/// depends on the intended one. (If it is reached, the report shows the class and the setting that would
/// decide it.)
pub(super) fn unmapped(evidence: &Evidence, findings: &mut Vec<Finding>) {
    let mut reported: Vec<String> = Vec::new();
    for path in path::classify(evidence) {
        let Some(suggestion) = path
            .suggestions
            .first()
            .filter(|_| path.class == Some(PathClass::PrivateUnmapped) && !path.needs.is_empty())
        else {
            continue;
        };
        // One setting is often enough for several legs.
        if reported.contains(&suggestion.message) {
            continue;
        }
        reported.push(suggestion.message.clone());
        let mut hint = suggestion.message.clone();
        if let Some(first) = hint.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let lines = suggestion.choices.iter();
        let lines = lines.map(|choice| format!("`{}` {}", choice.setting, choice.when));
        findings.push(
            at(Cause::PrivateUnmapped, path.role, Phase::Connect)
                .confidence(Confidence::High)
                .facts(path.evidence.iter().map(|fact| fact.message.clone()))
                .hint(format!("{hint}: {}.", joined(lines))),
        );
    }
}

/// A leg's path has another class than declared.
pub(super) fn unexpected(evidence: &Evidence, path: &LegPath) -> Option<Finding> {
    let expected = path::unexpected(path, &evidence.vantage)?;
    let classes = expected.classes.iter().copied();
    let classes: Vec<&str> = classes.map(PathClass::as_str).collect();
    let class = path.class.map_or("", PathClass::as_str);
    Some(
        at(Cause::PathUnexpected, path.role, Phase::Connect)
            .confidence(path.confidence)
            .fact(format!(
                "{} is reached over {class}, but {} is declared",
                path.endpoint.host,
                classes.join(" or ")
            ))
            .facts(path.evidence.iter().map(|fact| fact.message.clone())),
    )
}

/// The pod's annotation has one EIP, but servers see another address.
pub(super) fn stale_annotation(evidence: &Evidence) -> Option<Finding> {
    let vantage = &evidence.vantage;
    let eip = vantage.pod_eip.as_ref()?;
    let in_pod = vantage.network != NetworkView::Node;
    let allocated = eip.allocated.filter(|_| in_pod)?;
    let seen: Vec<_> = vantage
        .egress
        .iter()
        .filter_map(|trial| Some((trial, trial.seen()?)))
        .filter(|(_, seen)| seen.family() == Family::of(allocated))
        .collect();
    if seen.is_empty() || seen.iter().any(|(_, seen)| seen.address == allocated) {
        return None;
    }
    let say = |(trial, seen): &(&EgressTrial, &ObservedEgress)| {
        let method = trial.method.as_str();
        format!("{} sees {} ({method})", trial.server, seen.address)
    };
    let mut facts: Vec<String> = seen.iter().map(say).collect();
    facts.dedup();
    Some(
        new(Cause::EipAnnotationStale)
            .confidence(Confidence::Medium)
            .fact(format!("the pod's EIP is {allocated} according to {}", eip.source))
            .facts(facts)
            .hint("Recreate the pod: its annotation is written only once. Until then, allow-lists need the address that servers see."),
    )
}
