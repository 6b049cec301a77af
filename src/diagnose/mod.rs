//! Derives the verdict from the evidence. Pure: no sockets, no clock, no secrets.

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
use crate::model::settings_source::SettingsSource;
use catalogue::Cause;
use level::{Confidence, Severity};
use path::leg_path::LegPath;
pub(crate) use rules::new as finding;
pub use rules::{
    Unseen, eip_annotation, judge as diagnose, nearest_key, recreate_key, rests_on, secret,
    secret_for_image,
};
use secrets::SecretVerdict;
use throughput::Throughput;
use unread_layers::UnreadLayer;

/// The verdict on one pull.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether the pull would succeed.
    pub pull: Pull,
    /// Root causes, the most severe first.
    pub findings: Vec<Finding>,
    /// Findings that follow from a root cause: kept, but not shown first.
    pub consequences: Vec<Finding>,
    /// The path of each leg.
    #[serde(default)]
    pub paths: Vec<LegPath>,
    /// The result of a pull if the mirror that serves the image failed; absent if that was not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
    /// The outcome of each Secret that pods name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<SecretVerdict>,
    /// Layers that were not read to their end and verified with their digest: whether their content is intact
    /// is unknown.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unread: Vec<UnreadLayer>,
    /// The download rate of layers; absent if it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throughput: Option<Throughput>,
}

impl Verdict {
    /// Names settings as they are written in `source`. Rules name the flags of the command line.
    fn name_settings(&mut self, source: SettingsSource) {
        for finding in self.findings.iter_mut().chain(&mut self.consequences) {
            source.name_in(&mut finding.hint);
            for fact in &mut finding.evidence {
                source.name_in(fact);
            }
        }
        for path in &mut self.paths {
            path.name_settings(source);
        }
        if let Some(throughput) = &mut self.throughput {
            throughput.name_settings(source);
        }
    }
}

/// The upstream of a mirror, which a pull contacts only if the mirror fails.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Failover {
    /// The mirror that serves the image.
    pub mirror: Endpoint,
    /// The upstream: the last host in containerd's order.
    pub host: Endpoint,
    /// Whether the upstream would serve the manifest; absent if that is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serves: Option<bool>,
    /// The upstream's response: `HEAD 200 in 12 ms`.
    pub answer: String,
    /// The delay that a mirror which stops responding adds to a pull, for people.
    pub cost: String,
}

/// Whether containerd's pull would succeed, as far as can be observed from this vantage point.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pull {
    /// No finding is critical.
    WouldSucceed,
    /// A critical finding decides the pull.
    WouldFail,
    /// Something that decides the pull could not be observed; the findings name it.
    Unknown,
}

/// One fault: where it is, the evidence, and the fix.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Finding {
    /// The code of the catalogue.
    pub cause: Cause,
    /// The effect on the pull.
    pub severity: Severity,
    /// How sure the cause is.
    pub confidence: Confidence,
    /// The leg at fault; absent if it is not about a single leg.
    pub leg: Option<Role>,
    /// The phase at fault; absent if it is not about a single phase.
    pub phase: Option<Phase>,
    /// Observations with numbers, one fact each.
    pub evidence: Vec<String>,
    /// The fix: one action first, then alternatives.
    pub hint: String,
}
