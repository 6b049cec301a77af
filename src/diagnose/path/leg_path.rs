//! How a leg is reached, as a report has it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnose::level::Confidence;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::Leg;
use crate::model::fault::TcpFault;
use crate::model::path::{PathAttributes, PathClass, Signal};
use crate::model::step::Step;

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
    #[serde(alias = "knobs")]
    pub suggestions: Vec<Suggestion>,
    /// Each address by itself, where there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressPath>,
    /// Two networks use the range of the address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlap: bool,
}

impl LegPath {
    /// A leg of which nothing is judged yet.
    pub(super) fn new(leg: &Leg, reachability: Reachability) -> Self {
        let via_proxy = leg.proxy_route.proxy().is_some();
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
            suggestions: Vec::new(),
            addresses: Vec::new(),
            overlap: false,
        }
    }

    pub(super) fn fact(&mut self, signal: Signal, says: impl Into<String>) {
        self.evidence.push(Fact::new(signal, says));
    }

    pub(super) fn fix(&mut self, class: PathClass, todo: String) {
        self.fixes.push(Fix {
            class,
            action: todo,
        });
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
    #[serde(alias = "says")]
    pub message: String,
}

impl Fact {
    pub(super) fn new(signal: Signal, says: impl Into<String>) -> Self {
        Self {
            signal,
            message: says.into(),
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
    #[serde(alias = "todo")]
    pub action: String,
}

/// What would decide an open question.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Suggestion {
    #[serde(alias = "says")]
    pub message: String,
    /// The line of configuration to add, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "line")]
    pub setting: Option<String>,
}

impl Suggestion {
    pub(super) fn new(says: impl Into<String>) -> Self {
        Self {
            message: says.into(),
            setting: None,
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

pub(super) fn reachability(leg: &Leg) -> Reachability {
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

/// Whether a class is one of those expected, or may be one.
pub fn is_met(class: PathClass, expected: &[PathClass]) -> bool {
    match class {
        PathClass::PublicUnknown => expected.iter().any(|c| c.is_public()),
        PathClass::PrivateUnmapped => expected.iter().any(|c| !c.is_public()),
        class => expected.contains(&class),
    }
}

/// A name, or `*.` and the domain above it at any depth.
pub(super) fn is_for(pattern: &str, name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let pattern = pattern.to_ascii_lowercase();
    match pattern.strip_prefix("*.") {
        Some(domain) => name
            .strip_suffix(domain)
            .is_some_and(|rest| rest.ends_with('.')),
        None => pattern == name,
    }
}

/// Every address that was dialled; or, where none was, those that the name has.
pub(super) fn dialled_addresses(leg: &Leg) -> Vec<(IpAddr, Reachability)> {
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
