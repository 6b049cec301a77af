//! The state of the cluster role: written by the runner, read by metrics, page and API.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;

use crate::kubernetes::watch::WatchState;
use crate::lint::Snapshot;
use crate::pulls::tally::Tally;
use crate::serving::cluster::lost;
use crate::serving::reload::Reload;

/// The state of one replica. What it observed counts only while it is active.
#[derive(Debug)]
pub struct ClusterState {
    /// The name of this replica as a holder of the Lease.
    pub identity: String,
    /// The Lease, as `NAMESPACE/NAME`.
    pub lease: String,
    /// Whether this replica holds the Lease.
    pub role: Role,
    /// The watch of Events; `None` on standby, and with `cluster.events: off`.
    pub events: Option<WatchState>,
    /// Real pulls, counted from Events.
    pub tally: Tally,
    /// Findings about workloads; `None` on standby, before the first result, and with `cluster.lint: off`.
    pub lint: Option<Arc<Snapshot>>,
    /// The newest load of the configuration.
    pub reload: Reload,
}

/// What this replica does: it is active or on standby.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// It waits for the Lease.
    Standby {
        /// Who holds the Lease, or why it can't be acquired; `None` before the API server has answered.
        why: Option<String>,
        /// The Lease can't be acquired, and no other replica is known to be active.
        is_problem: bool,
    },
    /// It holds the Lease and watches.
    Active {
        /// When it acquired the Lease.
        since: Timestamp,
    },
}

impl Role {
    /// Whether this replica holds the Lease.
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }
}

/// A handle to the state, for the runner and the server.
#[derive(Clone, Debug)]
pub struct Shared(Arc<RwLock<ClusterState>>);

impl Shared {
    /// Wraps an initial state.
    pub fn new(state: ClusterState) -> Self {
        Self(Arc::new(RwLock::new(state)))
    }

    /// Locks it for reading. A panic of another thread is ignored.
    pub fn read(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks it for writing. A panic of another thread is ignored.
    pub fn write(&self) -> RwLockWriteGuard<'_, ClusterState> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterState {
    /// Whether the watch of Events is up.
    pub fn is_watching(&self) -> bool {
        self.events.as_ref().is_some_and(WatchState::is_following)
    }

    /// Problems with the Lease, the API server and the configuration, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let Role::Standby {
            why: Some(why),
            is_problem: true,
        } = &self.role
        {
            problems.push(format!(
                "The Lease {} can't be acquired: {why}.",
                self.lease
            ));
        }
        if self.events == Some(WatchState::Unknown) {
            problems.push("The API server has not listed the Events yet.".to_owned());
        }
        let advice = " Allow list and watch of events (docs/pulls.md).";
        let events = self.events.as_ref();
        let what = "The watch of Events has been down";
        problems.extend(events.and_then(|state| lost(state, what, "", advice)));
        if let Some(error) = &self.reload.error {
            problems.push(format!(
                "The newest configuration was rejected, and the one before it is still in force: {error}"
            ));
        }
        if self.tally.uncounted > 0 {
            problems.push(format!(
                "{} occurrences are in no metric: there are more than {} pairs of registry and node (cluster.max_pairs), or too many failing pods.",
                self.tally.uncounted,
                self.tally.limits().max_pairs
            ));
        }
        problems
    }
}
