//! Commands to the runner, and its answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::daemon::on_demand::{self, Request};
use crate::daemon::schedule::admission::Deferred;
use crate::daemon::schedule::timetable::Tier;
use crate::report::Report;

/// A command to the runner.
#[derive(Debug)]
pub enum Command {
    /// Reload the configuration; the error is for the operator.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Check a target now.
    Check {
        /// The name of the target.
        target: Arc<str>,
        /// The kind of the check.
        tier: Tier,
        /// Receives the number of the run.
        done: CheckReply,
    },
    /// Check an image now, also one that no target has.
    Probe {
        /// The image, and as whom to pull it.
        request: Box<Request>,
        /// Receives the report.
        done: ProbeReply,
    },
    /// Give the newest report of the schedule about an image, without a check.
    Known {
        /// The image, and as whom to pull it.
        request: Box<Request>,
        /// Receives the report; `None`: there is none.
        done: KnownReply,
    },
}

/// Receives the number of the run, or why there is none.
pub type CheckReply = oneshot::Sender<Result<u64, Refused>>;

/// Receives the report of an image, or why there is none.
pub type ProbeReply = oneshot::Sender<Result<Box<Report>, on_demand::Refused>>;

/// Receives the newest report about an image, or why it is not given.
pub type KnownReply = oneshot::Sender<Result<Option<Box<Report>>, on_demand::Refused>>;

/// Why a target is not checked now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    /// No target has this name.
    NoSuchTarget,
    /// The target is being checked, or `budgets.checks_at_once` checks are running.
    Busy,
    /// A budget is used up, or the registry is in back-off.
    Deferred(Deferred),
    /// The check has no report: `timed_out`, `panicked`, `stopping` or `too_late`.
    Failed(&'static str),
}
