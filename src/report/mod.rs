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

/// The version of the JSON form. It grows when a field is renamed, removed or changes its meaning;
/// not when one is added.
pub const SCHEMA_VERSION: u32 = 1;

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
        let has = |pull| {
            self.reports
                .iter()
                .any(|report| report.verdict.pull == pull)
        };
        if has(Pull::WouldFail) {
            Pull::WouldFail
        } else if has(Pull::Unknown) {
            Pull::Unknown
        } else {
            Pull::WouldSucceed
        }
    }

    /// The JSON Schema of a document (draft 2020-12).
    pub fn schema() -> schemars::Schema {
        schemars::schema_for!(Document)
    }
}
