//! The path of a leg, in the form of a report.

use std::collections::BTreeSet;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnose::level::Confidence;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::Leg;
use crate::model::fault::TcpFault;
use crate::model::path::{PathAttributes, PathClass, Signal};
use crate::model::settings_source::SettingsSource;
use crate::model::step::Step;

/// How a leg is reached, how sure that is, and what to change if it is not.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct LegPath {
    /// The leg.
    pub role: Role,
    /// The leg's server.
    pub endpoint: Endpoint,
    /// The host of hosts.toml that the leg belongs to; absent for the host that decides the pull.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of_host: Option<Endpoint>,
    /// The address that represents the leg: the connected one, or the one that got furthest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
    /// The path class; absent if there is no address to classify.
    pub class: Option<PathClass>,
    /// Properties beside the class: proxy, EIP, tunnel.
    pub attributes: PathAttributes,
    /// Whether the leg answers.
    pub reachability: Reachability,
    /// How sure the class is.
    pub confidence: Confidence,
    /// The value behind `confidence`, 0 to 1: from 0.9 on it is high, from 0.6 on medium. An estimate, not a
    /// frequency.
    pub score: f64,
    /// Facts that support the class.
    pub evidence: Vec<Fact>,
    /// Facts that contradict it.
    pub contradictions: Vec<Fact>,
    /// Possible classes, the likeliest first, if none is certain.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub candidates: Vec<Candidate>,
    /// Path classes of which one must be opened, if the leg is unreachable for lack of a route.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub needs: BTreeSet<PathClass>,
    /// What to do: one for each need, or one for another reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixes: Vec<Fix>,
    /// Settings that would decide an open question.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(alias = "knobs")]
    pub suggestions: Vec<Suggestion>,
    /// Each address on its own, if there are several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<AddressPath>,
    /// Two networks use the range of the address.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub overlap: bool,
}

impl LegPath {
    /// A leg that is not classified yet.
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

    pub(super) fn fact(&mut self, signal: Signal, message: impl Into<String>) {
        self.evidence.push(Fact::new(signal, message));
    }

    pub(super) fn fix(&mut self, class: PathClass, action: String) {
        // No action opens a path of some classes.
        if !action.is_empty() {
            self.fixes.push(Fix { class, action });
        }
    }

    /// Names settings as they are written in `source`.
    pub(crate) fn name_settings(&mut self, source: SettingsSource) {
        let facts = self.evidence.iter_mut().chain(&mut self.contradictions);
        let texts = facts
            .map(|fact| &mut fact.message)
            .chain(self.fixes.iter_mut().map(|fix| &mut fix.action))
            .chain(self.suggestions.iter_mut().map(|one| &mut one.message));
        texts.for_each(|text| source.name_in(text));
    }
}

/// Whether a leg answers; independent of its class.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reachability {
    /// A connection was established.
    Reachable,
    /// The host, or something in its place, refused the connection: the path works.
    Refused,
    /// No address answered.
    Unreachable,
    /// The name has no address.
    Unresolved,
    /// No connection was tried.
    NotTried,
}

impl Reachability {
    /// The state for people. It is about TCP only: TLS or HTTP may fail on the same leg.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Reachable => "reachable by TCP",
            Self::Refused => "connection refused",
            Self::Unreachable => "NOT reachable by TCP",
            Self::Unresolved => "has no address",
            Self::NotTried => "not tried",
        }
    }
}

/// One observation, and its source.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Fact {
    /// The kind of evidence.
    pub signal: Signal,
    /// The observation, for people.
    #[serde(alias = "says")]
    pub message: String,
}

impl Fact {
    pub(super) fn new(signal: Signal, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { signal, message }
    }
}

/// A possible class of an undecided path.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Candidate {
    /// The class.
    pub class: PathClass,
    /// How likely it is.
    pub confidence: Confidence,
}

/// An action that opens a path of this class for the leg.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Fix {
    /// The path class that it opens.
    pub class: PathClass,
    /// What to do, for people.
    #[serde(alias = "todo")]
    pub action: String,
}

/// A setting that would decide an open question.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Suggestion {
    /// What to do, for people.
    #[serde(alias = "says")]
    pub message: String,
    /// The line of configuration to add, if there is only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(alias = "line")]
    pub setting: Option<String>,
    /// The lines of configuration to choose from, if there are several; none of them is the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<Choice>,
}

/// One of several settings of which one is right.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Choice {
    /// The line of configuration.
    pub setting: String,
    /// When it is the right one, for people.
    pub when: String,
}

impl Suggestion {
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            setting: None,
            choices: Vec::new(),
        }
    }
}

/// One of several addresses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct AddressPath {
    /// The address.
    pub address: IpAddr,
    /// Its path class.
    pub class: PathClass,
    /// Whether it answers.
    pub reachability: Reachability,
}

impl Confidence {
    /// The confidence for a score of 0 to 1: high from 0.9 on, medium from 0.6 on.
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

/// Whether a class is one of those expected. An undecided public or private class counts if one of its kind
/// is expected.
pub fn is_met(class: PathClass, expected: &[PathClass]) -> bool {
    match class {
        PathClass::PublicUnknown => expected.iter().any(|c| c.is_public()),
        PathClass::PrivateUnmapped => expected.iter().any(|c| !c.is_public()),
        class => expected.contains(&class),
    }
}

/// Whether a pattern matches a name: the name itself, or `*.` and a parent domain at any depth.
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

/// Every address that was dialed; if none was, the addresses of the name.
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
