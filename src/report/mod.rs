//! Evidence and verdict together, and all faces of them.

pub mod lint;
pub mod nodes;
pub mod secret;
pub mod text;
pub mod vantage;
pub mod wait;
pub mod why;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnose::{self, Pull, Verdict};
use crate::model::evidence::Evidence;
use crate::model::text::joined;

/// The version of the JSON form. It grows when a field is renamed, removed or changes its meaning;
/// not when one is added.
pub const SCHEMA_VERSION: u32 = 2;

/// The versions that are read: names of older ones are aliases of the fields that replaced them.
pub const READABLE_VERSIONS: std::ops::RangeInclusive<u32> = 1..=SCHEMA_VERSION;

/// What `-o json` prints: one report for each reference, in the order asked.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath report")]
pub struct Document {
    pub schema_version: u32,
    pub pullpath: Tool,
    pub reports: Vec<Report>,
}

/// The program that wrote a document.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Tool {
    pub version: String,
    pub commit: String,
}

impl Tool {
    /// The program that is running.
    pub fn this() -> Self {
        Self {
            version: crate::VERSION.to_owned(),
            commit: crate::COMMIT.to_owned(),
        }
    }
}

/// One pull: what was seen, and what is to be said of it.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Report {
    pub evidence: Evidence,
    pub verdict: Verdict,
}

impl Report {
    /// Judges what was seen.
    pub fn conclude(evidence: Evidence) -> Self {
        let verdict = diagnose::diagnose(&evidence);
        Self { evidence, verdict }
    }
}

impl Document {
    pub fn new(reports: Vec<Report>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            reports,
        }
    }

    /// The worst of all: fail before unknown before success.
    pub fn pull(&self) -> Pull {
        worst(self.reports.iter().map(|report| report.verdict.pull))
    }

    /// The JSON Schema of a document (draft 2020-12).
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Document)
    }
}

/// Fail before unknown before success, which is also that of none.
fn worst(pulls: impl Iterator<Item = Pull>) -> Pull {
    let by_weight = |pull: &Pull| {
        [Pull::Unknown, Pull::WouldFail]
            .iter()
            .position(|one| one == pull)
    };
    pulls.max_by_key(by_weight).unwrap_or(Pull::WouldSucceed)
}

/// What goes together, by its key, in the order of the first of each.
pub fn grouped<K: PartialEq, V>(all: impl IntoIterator<Item = (K, V)>) -> Vec<(K, Vec<V>)> {
    let mut groups: Vec<(K, Vec<V>)> = Vec::new();
    for (key, value) in all {
        match groups.iter_mut().find(|(known, _)| *known == key) {
            Some((_, values)) => values.push(value),
            None => groups.push((key, vec![value])),
        }
    }
    groups
}

/// What is said of a thing; nothing where there is none.
pub fn said<T>(of: Option<T>, say: impl FnOnce(T) -> String) -> String {
    of.map_or_else(String::new, say)
}

/// The first of many, and how many there are besides: `a, b and 3 more`.
pub fn few(all: impl ExactSizeIterator<Item: ToString>, most: usize) -> String {
    match all.len().saturating_sub(most) {
        0 => joined(all),
        more => format!("{} and {more} more", joined(all.take(most))),
    }
}
