//! Reports: evidence and verdict together, as JSON documents and as text for a terminal.

pub mod doctor;
pub mod explain;
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
use crate::model::documents::{ManifestNote, NoteKind};
use crate::model::evidence::Evidence;
use crate::model::text::joined;

/// The version of the JSON documents. It is increased when a field is renamed, removed or changes its meaning,
/// not when one is added.
pub const SCHEMA_VERSION: u32 = 2;

/// The versions that can be read: field names of older versions are aliases of the current ones.
pub const READABLE_VERSIONS: std::ops::RangeInclusive<u32> = 1..=SCHEMA_VERSION;

/// What `probe -o json` prints: one report for each image, in the order of the arguments and manifests.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath report")]
pub struct Document {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// One for each image; saved reports have one, a replay those of all files.
    pub reports: Vec<Report>,
    /// What could not be read in the manifests, was passed over, or is probably a mistake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<ManifestNote>,
}

/// The program that wrote a document.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Tool {
    /// The version, as `--version` prints it.
    pub version: String,
    /// The Git commit that it was built from; `unknown` if it was built outside a checkout.
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

/// One check of one image.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Report {
    /// What the check observed.
    pub evidence: Evidence,
    /// Whether a pull would succeed, and the causes; a pure function of the evidence.
    pub verdict: Verdict,
}

impl Report {
    /// Diagnoses the evidence.
    pub fn conclude(evidence: Evidence) -> Self {
        let verdict = diagnose::diagnose(&evidence);
        Self { evidence, verdict }
    }
}

impl Document {
    /// A document of this program and the current version.
    pub fn new(reports: Vec<Report>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            reports,
            notes: Vec::new(),
        }
    }

    /// The worst of all verdicts: fail before unknown before success. What could not be read is unknown.
    pub fn pull(&self) -> Pull {
        let reports = self.reports.iter().map(|report| report.verdict.pull);
        let unread = self
            .notes
            .iter()
            .filter(|note| note.kind == NoteKind::Unread);
        worst(reports.chain(unread.map(|_| Pull::Unknown)))
    }

    /// The JSON Schema of a document (draft 2020-12).
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Document)
    }
}

/// The worst verdict: fail before unknown before success. Success if there is none.
fn worst(pulls: impl Iterator<Item = Pull>) -> Pull {
    let by_weight = |pull: &Pull| {
        [Pull::Unknown, Pull::WouldFail]
            .iter()
            .position(|one| one == pull)
    };
    pulls.max_by_key(by_weight).unwrap_or(Pull::WouldSucceed)
}

/// Groups values by their keys; groups are in the order of their first values.
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

/// The text of an optional value; empty if there is none.
pub fn optional<T>(value: Option<T>, text: impl FnOnce(T) -> String) -> String {
    value.map_or_else(String::new, text)
}

/// The first `max` items, and the number of the others: `a, b and 3 more`.
pub fn few(all: impl ExactSizeIterator<Item: ToString>, max: usize) -> String {
    match all.len().saturating_sub(max) {
        0 => joined(all),
        more => format!("{} and {more} more", joined(all.take(max))),
    }
}
