//! Classifies the path of each leg: pure, from evidence about the leg and its vantage point.
//!
//! A table of small rules classifies each address; the first that applies decides (`rules.rs`). The class of
//! the leg follows from its addresses; `needs.rs` adds the missing routes if none answers.

mod advice;
mod case;
mod context;
pub mod history;
pub mod leg_path;
pub mod local;
mod needs;
mod public;
mod ranges;
mod rules;
#[cfg(test)]
pub(super) mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::level::Confidence;
use crate::model::endpoint::Host;
use crate::model::evidence::{Evidence, Leg, Walk};
use crate::model::fault::TcpFault;
use crate::model::network::ExpectedPath;
use crate::model::path::{PathAttributes, PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::step::{Skip, Step};
use crate::model::vantage::Vantage;
use case::Judgement;
use context::PathContext;
use leg_path::{
    AddressPath, Fact, LegPath, Reachability, dialled_addresses, is_for, is_met, reachability,
};
pub use ranges::is_private;

/// Classifies every leg of the host that decides the pull.
pub fn classify(evidence: &Evidence) -> Vec<LegPath> {
    of_walk(evidence, &evidence.walk)
}

/// Classifies the legs of the other hosts that were contacted: mirrors, or the registry behind them.
pub fn classify_others(evidence: &Evidence) -> Vec<LegPath> {
    let mut all = Vec::new();
    for walk in &evidence.others {
        let paths = of_walk(evidence, walk).into_iter().map(|path| LegPath {
            of_host: Some(walk.host.endpoint.clone()),
            ..path
        });
        all.extend(paths);
    }
    all
}

fn of_walk(evidence: &Evidence, walk: &Walk) -> Vec<LegPath> {
    let context = PathContext::of(evidence, walk);
    let mut paths: Vec<LegPath> = Vec::new();
    for leg in &walk.legs {
        let shared = match leg.connect.outcome {
            Step::Skipped {
                reason: Skip::SharedConnection { .. },
            } => paths.iter().find(|path| path.endpoint == leg.endpoint),
            _ => None,
        };
        let path = match shared {
            Some(first) => LegPath {
                role: leg.role,
                ..first.clone()
            },
            None => path(&context, leg),
        };
        paths.push(path);
    }
    paths
}

/// Whether every address of a leg refuses the connection, or a certificate for another name answers.
pub fn is_answered_by_another(leg: &Leg) -> bool {
    case::is_answered_by_another(leg)
}

/// What contradicts the class of a leg in the configuration: it declares the address as one of another network too.
pub fn declared_twice(evidence: &Evidence, leg: &Leg) -> Option<String> {
    let mut paths = classify(evidence).into_iter();
    let path = paths.find(|path| path.role == leg.role && path.endpoint == leg.endpoint)?;
    let mut facts = path.contradictions.into_iter();
    Some(
        facts
            .find(|fact| fact.signal == Signal::OperatorMap)?
            .message,
    )
}

/// Whether a default route uses the device.
pub fn is_uplink(vantage: &Vantage, device: &str) -> bool {
    case::is_uplink(vantage, device)
}

/// Whether packets to an address may leave through a NAT gateway.
pub fn may_be_nat(evidence: &Evidence, to: IpAddr) -> bool {
    let context = PathContext::of(evidence, &evidence.walk);
    context.is_public(to) && context.may_be_nat(Family::of(to))
}

/// What shows that this network reaches other public hosts; `None` if nothing does.
pub fn public_egress(evidence: &Evidence, leg: &Leg, to: IpAddr) -> Option<String> {
    PathContext::of(evidence, &evidence.walk).proven_egress(leg, Family::of(to))
}

/// The path of one leg.
fn path(context: &PathContext<'_>, leg: &Leg) -> LegPath {
    let reachability = reachability(leg);
    let judged: Vec<(IpAddr, Judgement, Reachability)> = dialled_addresses(leg)
        .into_iter()
        .map(|(address, answers)| {
            let judgement = rules::judge(context, leg, address, answers);
            (address, judgement, answers)
        })
        .collect();
    let Some(main) = decisive(leg, &judged) else {
        return unresolved(leg, reachability);
    };
    let (address, judgement, _) = &judged[main];
    let mut path = LegPath {
        address: Some(*address),
        class: Some(judgement.class),
        attributes: PathAttributes {
            via_proxy: leg.proxy_route.proxy().is_some(),
            ..judgement.attributes
        },
        score: judgement.score,
        evidence: judgement.evidence.clone(),
        contradictions: judgement.contradictions.clone(),
        candidates: judgement.candidates.clone(),
        suggestions: judgement.suggestions.clone(),
        overlap: judgement.overlap,
        ..LegPath::new(leg, reachability)
    };
    if judged.len() > 1 {
        path.addresses = judged
            .iter()
            .map(|(address, judgement, reachability)| AddressPath {
                address: *address,
                class: judgement.class,
                reachability: *reachability,
            })
            .collect();
        mix(&mut path, Family::of(*address));
    }
    if path.attributes.via_proxy {
        path.fact(
            Signal::Connect,
            format!(
                "the class is that of the path to the proxy {}; the path from there can't be observed",
                leg.dialed()
            ),
        );
    }
    match reachability {
        Reachability::Unreachable => needs::add(context, leg, *address, judgement, &mut path),
        _ if case::is_answered_by_another(leg) => {
            needs::of_another_host(context, leg, *address, judgement, &mut path);
        }
        _ => {}
    }
    path.score = (path.score * 100.0).round().clamp(0.0, 100.0) / 100.0;
    path.confidence = Confidence::of(path.score);
    path
}

/// If the addresses of one family have different classes, the leg's class is `mixed`. Of two families, a
/// client uses one, and its class counts.
fn mix(path: &mut LegPath, family: Family) {
    let of_family = |address: &&AddressPath| Family::of(address.address) == family;
    let addresses = path.addresses.iter().filter(of_family);
    let classes: BTreeSet<PathClass> = addresses.map(|address| address.class).collect();
    if classes.len() > 1 {
        path.class = Some(PathClass::Mixed);
        for AddressPath { address, class, .. } in path.addresses.clone() {
            path.fact(Signal::AddressRange, format!("{address} is {class}"));
        }
        path.score = path.score.min(0.85);
    }
}

fn unresolved(leg: &Leg, reachability: Reachability) -> LegPath {
    let message = match leg.resolve.outcome.fault() {
        Some(fault) => format!("{} has no address: {fault}", leg.dialed()),
        None => "there is no address to classify".to_owned(),
    };
    LegPath {
        evidence: vec![Fact::new(Signal::Name, message)],
        ..LegPath::new(leg, reachability)
    }
}

/// The index of the address that represents the leg: the connected one; otherwise the one that got furthest,
/// with families that have no route here last.
fn decisive(leg: &Leg, judged: &[(IpAddr, Judgement, Reachability)]) -> Option<usize> {
    if let Some(connected) = leg.connect.outcome.done() {
        return judged
            .iter()
            .position(|(address, ..)| *address == connected.to.ip());
    }
    let rank = |index: &usize| {
        let dial = leg.connect.attempts.get(*index);
        match dial.and_then(|dial| dial.outcome.fault()) {
            Some(TcpFault::Refused { .. }) => 0,
            Some(TcpFault::NoLocalAddress { .. } | TcpFault::NetUnreachable { icmp: None }) => 2,
            _ => 1,
        }
    };
    (0..judged.len()).min_by_key(rank)
}

/// The expectation for the leg's host (`network.expect`) if its path does not meet it; `None` if it does, if
/// none is configured, or if the class is unknown.
pub fn unexpected<'a>(path: &LegPath, vantage: &'a Vantage) -> Option<&'a ExpectedPath> {
    let Host::Name(name) = &path.endpoint.host else {
        return None;
    };
    let mut declared = vantage.declared.expect.iter();
    let expected = declared.find(|expected| is_for(&expected.host, name))?;
    let is_met = expected.classes.is_empty() || is_met(path.class?, &expected.classes);
    (!is_met).then_some(expected)
}
