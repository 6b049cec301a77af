//! How bad a finding is, and how sure it is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad a finding is.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// A pull succeeds, slower or at risk.
    Warning,
    /// A pull fails.
    Critical,
}

/// How sure we are of a finding.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    Low,
    Medium,
    High,
}

impl Severity {
    /// A warning, unless the pull hangs on it.
    pub(crate) fn critical_if(is: bool) -> Self {
        if is { Self::Critical } else { Self::Warning }
    }

    /// Worth knowing, unless it costs something.
    pub(crate) fn warning_if(is: bool) -> Self {
        if is { Self::Warning } else { Self::Info }
    }

    /// As labels and JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl Confidence {
    /// Medium, unless this makes it sure.
    pub(super) fn high_if(is: bool) -> Self {
        if is { Self::High } else { Self::Medium }
    }

    /// As labels and JSON have it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}
