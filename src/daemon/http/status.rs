//! `/-/status`: a summary of all targets in a few hundred bytes, for programs on the node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::page;
use crate::daemon::store::overview::{Overview, TargetState};
use crate::daemon::store::targets::{TargetStore, Watched};
use crate::diagnose::level::Severity;

/// The path at the admin address.
pub const PATH: &str = "/-/status";

/// Failing targets that are listed.
const MAX_FAILING: usize = 10;

/// What the daemon knows at this time.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Status {
    /// The name of the node.
    pub node: String,
    /// The daemon's version.
    pub version: String,
    /// The number of targets in each state that at least one has, by the label of `pullpath_target_state`.
    pub states: BTreeMap<String, usize>,
    /// Targets whose pull would fail, the first ten by name.
    pub failing: Vec<FailingTarget>,
    /// What else an operator has to know, for instance that the newest configuration was rejected.
    pub notes: Vec<String>,
}

/// A target whose pull would fail.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct FailingTarget {
    /// The image.
    pub image: String,
    /// The worst cause; absent if the check found none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
}

impl Status {
    /// The summary of a store.
    pub fn of(store: &TargetStore, now: Timestamp) -> Self {
        let states = Overview::of(store, now).states.into_iter();
        let states = states.map(|(state, count)| (state.as_str().to_owned(), count));
        let fails = |watched: &&Watched| TargetState::of(watched, now) == TargetState::WouldFail;
        let failing = store.targets.values().filter(fails).take(MAX_FAILING);
        Self {
            node: store.node.clone(),
            version: crate::VERSION.to_owned(),
            states: states.collect(),
            failing: failing.map(failing_target).collect(),
            notes: notes(store),
        }
    }

    /// The number of targets in a state.
    pub fn count(&self, state: TargetState) -> usize {
        self.states.get(state.as_str()).copied().unwrap_or_default()
    }

    /// The number of targets.
    pub fn all(&self) -> usize {
        self.states.values().sum()
    }
}

/// What an operator has to know beside the targets: a rejected configuration, watches that are down, a state file that
/// can't be written.
pub(super) fn notes(store: &TargetStore) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(error) = &store.reload.error {
        notes.push(format!(
            "the newest configuration was rejected, and the one before it is still in force: {error}"
        ));
    }
    let lost = [
        store.cluster.as_ref().and_then(page::lost_pods),
        store.own_node.as_ref().and_then(page::lost_node),
        store.leases.as_ref().and_then(page::unshared),
    ];
    notes.extend(lost.into_iter().flatten());
    if store.counters.state_errors > 0 {
        notes.push("the state file in state_dir can't be written; see the log".to_owned());
    }
    notes
}

fn failing_target(watched: &Watched) -> FailingTarget {
    let mut findings = watched.history.findings();
    let worst = findings.find(|finding| finding.severity == Severity::Critical);
    FailingTarget {
        image: watched.target.reference.to_string(),
        cause: worst.map(|finding| finding.cause.code().to_owned()),
    }
}
