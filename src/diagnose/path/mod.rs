//! The class of each leg's path: pure, from what was seen at the leg and around this place.
//!
//! A table of small rules judges each address; the first that applies decides (`rules.rs`). Then the
//! leg is what its addresses are, and what it needs when none answers (`needs.rs`).

mod advice;
mod case;
pub mod history;
mod needs;
mod public;
mod ranges;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::level::Confidence;
use crate::model::endpoint::{Endpoint, Host, Role};
use crate::model::evidence::{Evidence, Leg, Walk};
use crate::model::fault::TcpFault;
use crate::model::network::{EgressMethod, EgressSeen, ExpectedPath};
use crate::model::path::{PathAttributes, PathClass, Signal};
use crate::model::resolve::Family;
use crate::model::step::{Skip, Step};
use crate::model::vantage::Vantage;
use case::Judgement;

/// How a leg is reached, how sure that is, and what to change where it is not.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LegPath {
    pub role: Role,
    pub endpoint: Endpoint,
    /// The host of hosts.toml whose leg it is; absent for the host that decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_host: Option<Endpoint>,
    /// The address that stands for the leg: the one connected to, or the one that got furthest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// Absent where there is no address to judge.
    pub class: Option<PathClass>,
    pub attributes: PathAttributes,
    pub reachability: Reachability,
    pub confidence: Confidence,
    /// Behind `confidence`: from 0.9 on it is high, from 0.6 on medium. An estimate, not a frequency.
    pub score: f64,
    /// What the class rests on.
    pub evidence: Vec<Fact>,
    /// What speaks against it.
    pub contradictions: Vec<Fact>,
    /// What it may be, where that is not decided.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// The ways of which one has to be opened, where the leg is not reached for lack of a way.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub needs: BTreeSet<PathClass>,
    /// One for each need, and where another thing is to be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
    /// What would decide, where something is open.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub knobs: Vec<Knob>,
    /// Each address by itself, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressPath>,
    /// Two networks use the range of the address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlap: bool,
}

impl LegPath {
    /// A leg of which nothing is judged yet.
    fn new(leg: &Leg, reachability: Reachability) -> Self {
        let via_proxy = leg.way.proxy().is_some();
        Self {
            role: leg.role,
            endpoint: leg.endpoint.clone(),
            of_host: None,
            address: None,
            class: None,
            attributes: PathAttributes {
                via_proxy,
                ..PathAttributes::default()
            },
            reachability,
            confidence: Confidence::Low,
            score: 0.0,
            evidence: Vec::new(),
            contradictions: Vec::new(),
            candidates: Vec::new(),
            needs: BTreeSet::new(),
            fixes: Vec::new(),
            knobs: Vec::new(),
            addresses: Vec::new(),
            overlap: false,
        }
    }

    fn fact(&mut self, signal: Signal, says: impl Into<String>) {
        self.evidence.push(Fact::new(signal, says));
    }

    fn fix(&mut self, class: PathClass, todo: String) {
        self.fixes.push(Fix { class, todo });
    }
}

/// Whether a leg answers: a fact beside its class.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// A connection came about.
    Reachable,
    /// The host, or something in its place, refused the connection: the way is there.
    Refused,
    Unreachable,
    /// The name gave no address.
    Unresolved,
    /// Nothing was tried.
    NotTried,
}

impl Reachability {
    /// For people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Reachable => "reached",
            Self::Refused => "refused",
            Self::Unreachable => "NOT reached",
            Self::Unresolved => "no address",
            Self::NotTried => "not tried",
        }
    }
}

/// One thing that was seen, and by what.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Fact {
    pub signal: Signal,
    pub says: String,
}

impl Fact {
    fn new(signal: Signal, says: impl Into<String>) -> Self {
        Self {
            signal,
            says: says.into(),
        }
    }
}

/// What an undecided path may be.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Candidate {
    pub class: PathClass,
    pub confidence: Confidence,
}

/// What to do so that a way of this class carries the leg.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Fix {
    pub class: PathClass,
    pub todo: String,
}

/// What would decide an open question.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Knob {
    pub says: String,
    /// The line of configuration to add, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
}

impl Knob {
    fn new(says: impl Into<String>) -> Self {
        Self {
            says: says.into(),
            line: None,
        }
    }
}

/// One of several addresses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressPath {
    pub address: IpAddr,
    pub class: PathClass,
    pub reachability: Reachability,
}

impl Confidence {
    /// The word for a score.
    pub fn of(score: f64) -> Self {
        // The scores are sums of hundredths.
        match score + 1e-9 {
            0.9.. => Self::High,
            0.6.. => Self::Medium,
            _ => Self::Low,
        }
    }
}

/// Classes every leg of the walk that decides.
pub fn classify(evidence: &Evidence) -> Vec<LegPath> {
    of_walk(evidence, &evidence.walk)
}

/// Classes the legs of the other hosts that were asked: mirrors, or the registry behind them.
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
    let place = Place::of(evidence, walk);
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
            None => place.path(leg),
        };
        paths.push(path);
    }
    paths
}

/// What all legs have in common.
struct Place<'a> {
    vantage: &'a Vantage,
    walk: &'a Walk,
    /// The addresses that our packets are seen to come from, each with the method that shows it.
    seen: Vec<(&'a str, EgressSeen)>,
}

impl<'a> Place<'a> {
    fn of(evidence: &'a Evidence, walk: &'a Walk) -> Self {
        let vantage = &evidence.vantage;
        let mut seen: Vec<_> = vantage
            .egress
            .iter()
            .filter_map(|trial| Some((trial.method.as_str(), *trial.seen()?)))
            .collect();
        // Docker Hub counts pulls by address, and says which: by the very path of the pull.
        let limit = walk.rate_limit.as_ref();
        let counted = limit.and_then(|limit| limit.source.as_deref()?.parse().ok());
        let first = walk.legs.first();
        let is_direct = first.is_some_and(|leg| leg.way.proxy().is_none());
        if let Some(address) = counted.filter(|_| is_direct) {
            let counted = EgressSeen {
                address,
                port: None,
                local: None,
            };
            seen.push((EgressMethod::DockerHub.as_str(), counted));
        }
        Self {
            vantage,
            walk,
            seen,
        }
    }

    fn seen_of(&self, family: Family) -> impl Iterator<Item = &(&'a str, EgressSeen)> {
        let seen = self.seen.iter();
        seen.filter(move |(_, seen)| seen.family() == family)
    }

    fn path(&self, leg: &Leg) -> LegPath {
        let reachability = reachability(leg);
        let judged: Vec<(IpAddr, Judgement, Reachability)> = dialled_addresses(leg)
            .into_iter()
            .map(|(address, answers)| {
                let judgement = rules::judge(self, leg, address, answers);
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
                via_proxy: leg.way.proxy().is_some(),
                ..judgement.attributes
            },
            score: judgement.score,
            evidence: judgement.evidence.clone(),
            contradictions: judgement.contradictions.clone(),
            candidates: judgement.candidates.clone(),
            knobs: judgement.knobs.clone(),
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
                    "the class is that of the way to the proxy {}; how the proxy gets on can't be seen",
                    leg.dialled()
                ),
            );
        }
        if matches!(reachability, Reachability::Unreachable) {
            needs::add(self, leg, *address, judgement, &mut path);
        }
        path.score = (path.score * 100.0).round().clamp(0.0, 100.0) / 100.0;
        path.confidence = Confidence::of(path.score);
        path
    }
}

/// The addresses of one family go different ways: then so does the leg. Of two families a client
/// takes one, and that one's class counts.
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
    let says = match leg.resolve.outcome.fault() {
        Some(fault) => format!("{} has no address: {fault}", leg.dialled()),
        None => "there is no address to judge".to_owned(),
    };
    LegPath {
        evidence: vec![Fact::new(Signal::Name, says)],
        ..LegPath::new(leg, reachability)
    }
}

/// Every address that was dialled; or, where none was, those that the name has.
fn dialled_addresses(leg: &Leg) -> Vec<(IpAddr, Reachability)> {
    if leg.connect.attempts.is_empty() {
        let found = leg.resolve.outcome.done();
        return found.map_or_else(Vec::new, |found| {
            let all = found.addresses.iter();
            all.map(|a| (*a, Reachability::NotTried)).collect()
        });
    }
    leg.connect
        .attempts
        .iter()
        .map(|dial| {
            let answers = match &dial.outcome {
                Step::Done { .. } => Reachability::Reachable,
                Step::Failed {
                    fault: TcpFault::Refused { .. },
                    ..
                } => Reachability::Refused,
                Step::Failed { .. } => Reachability::Unreachable,
                Step::Skipped { .. } => Reachability::NotTried,
            };
            (dial.to.ip(), answers)
        })
        .collect()
}

/// The address that stands for the leg: the one connected to; else the one that got furthest, those
/// of a family that this place has no way to at all last.
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

fn reachability(leg: &Leg) -> Reachability {
    match &leg.connect.outcome {
        Step::Done { .. } => Reachability::Reachable,
        Step::Failed { .. } => {
            let mut answers = dialled_addresses(leg).into_iter();
            if answers.any(|(_, one)| one == Reachability::Refused) {
                Reachability::Refused
            } else {
                Reachability::Unreachable
            }
        }
        Step::Skipped { .. } if leg.resolve.outcome.fault().is_some() => Reachability::Unresolved,
        Step::Skipped { .. } => Reachability::NotTried,
    }
}

/// The declared class of a leg's host, and that it is not met.
pub fn unexpected<'a>(path: &LegPath, vantage: &'a Vantage) -> Option<&'a ExpectedPath> {
    let Host::Name(name) = &path.endpoint.host else {
        return None;
    };
    let mut declared = vantage.declared.expect.iter();
    let expected = declared.find(|expected| is_for(&expected.host, name))?;
    (!is_met(path.class?, &expected.classes)).then_some(expected)
}

/// Whether a class is one of those expected, or may be one.
pub fn is_met(class: PathClass, expected: &[PathClass]) -> bool {
    match class {
        PathClass::PublicUnknown => expected.iter().any(|c| c.is_public()),
        PathClass::PrivateUnmapped => expected.iter().any(|c| !c.is_public()),
        class => expected.contains(&class),
    }
}

/// A name, or `*.` and the domain above it at any depth.
fn is_for(pattern: &str, name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(domain) => name
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.')),
        None => pattern == name,
    }
}
