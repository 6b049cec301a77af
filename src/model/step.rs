//! How a phase ended: done, failed or skipped. What was not measured has a reason and is never zero.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Role;
use super::fault::{HttpFault, Phase};
use super::units::Seconds;

/// How a phase ended.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Step<T, F> {
    Done {
        value: T,
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
    Failed {
        fault: F,
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
    Skipped {
        reason: Skip,
    },
}

/// Nothing has asked for it.
impl<T, F> Default for Step<T, F> {
    fn default() -> Self {
        Self::skipped(Skip::NotNeeded)
    }
}

impl<T, F> Step<T, F> {
    /// Not run, and why.
    pub fn skipped(reason: Skip) -> Self {
        Self::Skipped { reason }
    }

    /// Not run, since this phase has failed.
    pub fn blocked(role: Role, phase: Phase) -> Self {
        Self::skipped(Skip::Blocked { role, phase })
    }

    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done { value, .. } => Some(value),
            _ => None,
        }
    }

    pub fn fault(&self) -> Option<&F> {
        match self {
            Self::Failed { fault, .. } => Some(fault),
            _ => None,
        }
    }

    /// The fault in words.
    pub fn words(&self) -> Option<String>
    where
        F: ToString,
    {
        self.fault().map(ToString::to_string)
    }

    /// How long it took; `None` when it was not run.
    pub fn took(&self) -> Option<Duration> {
        match self {
            Self::Done { took, .. } | Self::Failed { took, .. } => Some(*took),
            Self::Skipped { .. } => None,
        }
    }

    /// A step that ran from a start until now.
    pub fn from_result(result: Result<T, F>, took: Duration) -> Self {
        match result {
            Ok(value) => Self::Done { value, took },
            Err(fault) => Self::Failed { fault, took },
        }
    }
}

impl<T> Step<T, HttpFault> {
    /// The status that it failed by.
    pub fn status(&self) -> Option<u16> {
        match self.fault()? {
            HttpFault::Status { status, .. } => Some(*status),
            _ => None,
        }
    }
}

/// Why a phase was not run.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Skip {
    /// An earlier phase failed.
    Blocked { role: Role, phase: Phase },
    /// The leg's server is that of an earlier leg, and its connection was used.
    SharedConnection { role: Role },
    /// The protocol does not ask for it here (no TLS over plain http, no token when anonymous is let in).
    NotNeeded,
    /// Nothing to look for: the image has no layer.
    NoLayer,
    /// The place is one that no client should be led to; nothing was sent there.
    Untrusted,
    /// Another host serves this part.
    OtherHost,
    /// It might count against a rate limit of which little is left.
    #[serde(alias = "spared")]
    QuotaReserved,
}
