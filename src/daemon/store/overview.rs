//! What is known of the targets together: how many pulls would succeed, and of how many that is not known. Pure; page,
//! `/readyz`, API and metrics all state it.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::targets::{TargetStore, Watched};
use crate::diagnose::level::Severity;
use crate::workload::discovery::Discovered;

/// What is known of one target. A success counts only if its check was made, and recently.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum TargetState {
    /// The newest check found that a pull would fail.
    WouldFail,
    /// The newest check could not decide, or has no result.
    Unknown,
    /// The newest check found that a pull would succeed.
    WouldSucceed,
    /// The newest check found the same, but too long ago.
    Outdated,
    /// No check has ended yet.
    NotChecked,
    /// No check has ended yet, because it is deferred.
    Deferred,
}

/// A success is outdated after twice the interval of checks and this time.
const OUTDATED_AFTER: Duration = Duration::from_mins(5);

impl TargetState {
    /// All states, in the order of the sentence.
    pub const ALL: [Self; 6] = [
        Self::WouldFail,
        Self::Unknown,
        Self::WouldSucceed,
        Self::Outdated,
        Self::NotChecked,
        Self::Deferred,
    ];

    /// The state of a target.
    pub fn of(watched: &Watched, now: Timestamp) -> Self {
        let history = &watched.history;
        let Some(newest) = history.newest() else {
            return if history.deferred.is_some() {
                Self::Deferred
            } else {
                Self::NotChecked
            };
        };
        let age = Duration::try_from(now.duration_since(newest.at)).unwrap_or_default();
        match history.is_ready() {
            Some(false) => Self::WouldFail,
            None => Self::Unknown,
            Some(true) if age > 2 * watched.target.rhythm.reach + OUTDATED_AFTER => Self::Outdated,
            Some(true) => Self::WouldSucceed,
        }
    }

    /// Whether a pull would succeed; `None`: that is not known now.
    pub fn is_ready(self) -> Option<bool> {
        match self {
            Self::WouldSucceed => Some(true),
            Self::WouldFail => Some(false),
            Self::Unknown | Self::Outdated | Self::NotChecked | Self::Deferred => None,
        }
    }

    /// The JSON value and metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WouldFail => "would_fail",
            Self::Unknown => "unknown",
            Self::WouldSucceed => "would_succeed",
            Self::Outdated => "outdated",
            Self::NotChecked => "not_checked",
            Self::Deferred => "deferred",
        }
    }
}

/// The targets of a node by state.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Overview {
    /// The number of targets in each state.
    pub states: BTreeMap<TargetState, usize>,
    /// Targets that would succeed with a finding that is at least a warning.
    pub warned: usize,
    /// Images of pods that are no targets: beyond the limit, or invalid references.
    pub left_out: usize,
    /// The images of pods are targets, and the API server has not listed them.
    pub awaits_pods: bool,
}

impl Overview {
    /// Counts the targets of a store.
    pub fn of(store: &TargetStore, now: Timestamp) -> Self {
        let mut overview = Self::default();
        for watched in store.targets.values() {
            let state = TargetState::of(watched, now);
            *overview.states.entry(state).or_default() += 1;
            overview.warned +=
                usize::from(state == TargetState::WouldSucceed && has_warning(watched));
        }
        if let Some(cluster) = &store.cluster {
            overview.left_out = cluster.found.over.len() + cluster.found.malformed.len();
            overview.awaits_pods =
                !cluster.state.is_following() && cluster.found == Discovered::default();
        }
        overview
    }

    /// The number of targets in a state.
    pub fn count(&self, state: TargetState) -> usize {
        self.states.get(&state).copied().unwrap_or_default()
    }

    /// The number of targets.
    pub fn all(&self) -> usize {
        self.states.values().sum()
    }

    /// Whether all pulls would succeed; `None`: that is not known of each, or there is none.
    pub fn is_ready(&self) -> Option<bool> {
        let all = self.all();
        if self.count(TargetState::WouldFail) > 0 {
            return Some(false);
        }
        let is_whole = self.count(TargetState::WouldSucceed) == all;
        (is_whole && all > 0 && self.left_out == 0 && !self.awaits_pods).then_some(true)
    }

    /// The counts as one sentence, without a period.
    pub fn sentence(&self) -> String {
        let all = self.all();
        let warned = match self.warned {
            0 => String::new(),
            some => format!(" ({some} with a warning)"),
        };
        if self.is_ready() == Some(true) {
            return format!("All pulls would succeed{warned}");
        }
        let mut parts: Vec<String> = Vec::new();
        for state in TargetState::ALL {
            let some = self.count(state);
            if some == 0 {
                continue;
            }
            parts.push(match state {
                TargetState::WouldFail => format!("{some} of {all} pulls would fail"),
                TargetState::Unknown if parts.is_empty() => {
                    format!("{some} of {all} pulls are unknown")
                }
                TargetState::Unknown => format!("{some} unknown"),
                TargetState::WouldSucceed => format!("{some} would succeed{warned}"),
                TargetState::Outdated => format!("{some} with an outdated result"),
                TargetState::NotChecked => format!("{some} not checked yet"),
                TargetState::Deferred => format!("{some} not checked yet because deferred"),
            });
        }
        if all == 0 {
            parts.push("No targets".to_owned());
        }
        if self.left_out > 0 {
            parts.push(format!("{} left out", self.left_out));
        }
        if self.awaits_pods {
            parts.push("the images of pods not known yet".to_owned());
        }
        parts.join(", ")
    }
}

/// Whether a target has a finding that is at least a warning.
pub fn has_warning(watched: &Watched) -> bool {
    let mut findings = watched.history.findings();
    findings.any(|finding| finding.severity >= Severity::Warning)
}
