//! Pure: evidence in, verdict out. No sockets, no clock, no secrets.

pub mod catalogue;
pub mod explain;
#[cfg(test)]
mod fixture;
pub mod level;
pub mod path;
mod rules;
pub mod secrets;
pub mod throughput;
pub mod unread_layers;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::model::endpoint::{Endpoint, Role};
use crate::model::fault::Phase;
use catalogue::Cause;
use level::{Confidence, Severity};
use path::leg_path::LegPath;
pub(crate) use rules::new as finding;
pub use rules::{
    eip_annotation, judge as diagnose, mend_key, nearest_key, secret, secret_for_image,
};
use secrets::SecretVerdict;
use throughput::Throughput;
use unread_layers::UnreadLayer;

/// What is to be said of one pull.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Verdict {
    pub pull: Pull,
    /// Root causes, the worst first.
    pub findings: Vec<Finding>,
    /// Findings that follow from one of the root causes: kept, but not shown first.
    pub consequences: Vec<Finding>,
    /// How each leg is reached.
    #[serde(default)]
    pub paths: Vec<LegPath>,
    /// What a pull would get if the mirror that serves the image failed, where that was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// What came of each Secret that pods name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretVerdict>,
    /// Layers of the manifest that were not read to their end and compared with their digest: whether
    /// their bytes are good is not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<UnreadLayer>,
    /// How fast layers come, where that was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
}

/// The host behind a mirror, which a pull asks only if the mirror fails.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Failover {
    pub mirror: Endpoint,
    pub host: Endpoint,
    /// Whether it would serve the manifest. Absent: that can't be determined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<bool>,
    /// What it answered: `HEAD 200 in 12 ms`.
    pub answer: String,
    /// What a mirror that no longer answers costs a pull.
    pub cost: String,
}

/// Would containerd's pull succeed, as far as can be seen from here?
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    WouldSucceed,
    WouldFail,
    /// Something that decides it could not be seen; the findings say what.
    Unknown,
}

/// One thing that is wrong, where, on what evidence, and what to do.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Finding {
    pub cause: Cause,
    pub severity: Severity,
    pub confidence: Confidence,
    pub leg: Option<Role>,
    pub phase: Option<Phase>,
    /// What was seen, with numbers; one fact a line.
    pub evidence: Vec<String>,
    /// One thing to do.
    pub hint: String,
}
