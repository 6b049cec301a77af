//! What is known now: written by the runner, read by metrics, page and API.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use jiff::Timestamp;

use crate::kubernetes::watch::WatchState;
use crate::lint::Snapshot;
use crate::pulls::tally::Tally;
use crate::serving::cluster::lost;
use crate::serving::reload::Reload;

/// All of it.
#[derive(Debug)]
pub struct ClusterState {
    /// What this replica is called at the Lease.
    pub identity: String,
    /// `NAMESPACE/NAME`.
    pub lease: String,
    pub role: Role,
    /// Whether Events are told of; `None` where they are not watched, or not by this replica.
    pub events: Option<WatchState>,
    pub tally: Tally,
    /// What is wrong with workloads; `None` where they are not looked at, or not by this replica.
    pub lint: Option<Arc<Snapshot>>,
    pub reload: Reload,
}

/// What this replica does.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Role {
    /// It waits. Why: who holds the Lease, or what is wrong with it; `None` before the first answer.
    Standby {
        why: Option<String>,
        /// Something is wrong: no other replica is known to be active.
        is_trouble: bool,
    },
    Active {
        since: Timestamp,
    },
}

impl Role {
    pub fn is_active(&self) -> bool {
        matches!(self, Self::Active { .. })
    }
}

/// Others look at it while it is written.
#[derive(Clone, Debug)]
pub struct Shared(Arc<RwLock<ClusterState>>);

impl Shared {
    pub fn new(board: ClusterState) -> Self {
        Self(Arc::new(RwLock::new(board)))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, ClusterState> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, ClusterState> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ClusterState {
    /// The API server tells of Events.
    pub fn is_told(&self) -> bool {
        self.events.as_ref().is_some_and(WatchState::is_following)
    }

    /// What is to be said of the Lease, the API server and the configuration; nothing where all is well.
    pub fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        if let Role::Standby {
            why: Some(why),
            is_trouble: true,
        } = &self.role
        {
            troubles.push(format!("The Lease {} can't be had: {why}.", self.lease));
        }
        if self.events == Some(WatchState::Unknown) {
            troubles.push("Events were not listed yet.".to_owned());
        }
        let advice = " Allow list and watch of events (docs/pulls.md).";
        let events = self.events.as_ref();
        let what = "The API server does not tell of Events";
        troubles.extend(events.and_then(|state| lost(state, what, "", advice)));
        if let Some(error) = &self.reload.error {
            troubles.push(format!(
                "The configuration that was read last is not in force: {error}"
            ));
        }
        if self.tally.uncounted > 0 {
            troubles.push(format!(
                "{} occurrences are not counted: more than {} pairs of registry and node (cluster.max_pairs), or more failing pods than are kept.",
                self.tally.uncounted,
                self.tally.limits().max_pairs
            ));
        }
        troubles
    }
}
