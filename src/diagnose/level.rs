//! Severity and confidence of findings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The effect of a finding on a pull, in ascending order.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing; the pull is not affected.
    Info,
    /// A pull succeeds, but is slow or at risk.
    Warning,
    /// A pull fails.
    Critical,
}

/// How sure a finding is, in ascending order.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The likeliest of several explanations.
    Low,
    /// Something that was not observed could change it.
    Medium,
    /// No other explanation fits the evidence.
    High,
}

impl Severity {
    /// Critical if the pull depends on it, otherwise a warning.
    pub(crate) fn critical_if(is: bool) -> Self {
        if is { Self::Critical } else { Self::Warning }
    }

    /// A warning if it costs something, otherwise worth knowing.
    pub(crate) fn warning_if(is: bool) -> Self {
        if is { Self::Warning } else { Self::Info }
    }

    /// The value in metric labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Confidence {
    /// High if this makes it sure, otherwise medium.
    pub(super) fn high_if(is: bool) -> Self {
        if is { Self::High } else { Self::Medium }
    }

    /// The value in metric labels and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
