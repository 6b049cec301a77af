//! The outcome of a phase: done, failed or skipped. What was not measured has a reason and is never zero.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Role;
use super::fault::{HttpFault, Phase};
use super::own_limit::{MayBeOwn, OwnLimit};
use super::units::Seconds;

/// The outcome of a phase.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Step<T, F> {
    /// The phase succeeded.
    Done {
        /// What it found.
        value: T,
        /// How long it took.
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
    /// The phase failed.
    Failed {
        /// Why.
        fault: F,
        /// How long it took until it failed.
        #[serde(rename = "took_seconds", with = "Seconds")]
        took: Duration,
    },
    /// The phase was not run.
    Skipped {
        /// Why.
        reason: Skip,
    },
}

/// Nothing required the phase.
impl<T, F> Default for Step<T, F> {
    fn default() -> Self {
        Self::skipped(Skip::NotNeeded)
    }
}

impl<T, F> Step<T, F> {
    /// A phase that was not run, with the reason.
    pub fn skipped(reason: Skip) -> Self {
        Self::Skipped { reason }
    }

    /// A phase that was not run, since an earlier one of this leg failed.
    pub fn blocked(role: Role, phase: Phase) -> Self {
        Self::skipped(Skip::Blocked { role, phase })
    }

    /// What a successful phase found.
    pub fn done(&self) -> Option<&T> {
        match self {
            Self::Done { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Why a failed phase failed.
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

    /// How long it took; `None` if it was not run.
    pub fn took(&self) -> Option<Duration> {
        match self {
            Self::Done { took, .. } | Self::Failed { took, .. } => Some(*took),
            Self::Skipped { .. } => None,
        }
    }

    /// The outcome of a phase that returned this result after this time.
    pub fn from_result(result: Result<T, F>, took: Duration) -> Self
    where
        F: MayBeOwn,
    {
        match result {
            Ok(value) => Self::Done { value, took },
            Err(fault) => Self::failed(fault, took),
        }
    }

    /// A phase that failed; one that a limit of this process stopped did not run.
    pub fn failed(fault: F, took: Duration) -> Self
    where
        F: MayBeOwn,
    {
        match fault.own_limit() {
            Some(limit) => Self::skipped(Skip::OwnLimit { limit }),
            None => Self::Failed { fault, took },
        }
    }

    /// Whether the phase failed as it may if this process does not run.
    pub fn may_be_pause(&self) -> bool
    where
        F: MayBeOwn,
    {
        self.fault().is_some_and(MayBeOwn::may_be_pause)
    }

    /// The limit of this process that stopped the phase.
    pub fn own_limit(&self) -> Option<OwnLimit> {
        match self {
            Self::Skipped {
                reason: Skip::OwnLimit { limit },
            } => Some(*limit),
            _ => None,
        }
    }
}

impl<T> Step<T, HttpFault> {
    /// The HTTP status with which it failed.
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
    Blocked {
        /// The leg of that phase.
        role: Role,
        /// The phase that failed.
        phase: Phase,
    },
    /// The leg's server is the same as that of an earlier leg, and its connection was used.
    SharedConnection {
        /// That earlier leg.
        role: Role,
    },
    /// The protocol does not require it: no TLS over plain http, no token if anonymous requests are accepted.
    NotNeeded,
    /// The image has no layers.
    NoLayer,
    /// No client should be led to this server; nothing was sent to it.
    Untrusted,
    /// A pod names the image, and it leads to the node itself, its link, or its cloud's metadata service; no setting
    /// of the node or of the operator names that host and port. Nothing was sent.
    NodeAddress,
    /// Another host serves this part of the image.
    OtherHost,
    /// It might count against a rate limit that is nearly used up.
    #[serde(alias = "spared")]
    QuotaReserved,
    /// A limit of this process stopped it.
    OwnLimit {
        /// The limit.
        limit: OwnLimit,
    },
}
