//! What the runner is asked for, and its answers.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::daemon::on_demand::{self, Request};
use crate::daemon::schedule::admission::Deferred;
use crate::daemon::schedule::timetable::Tier;
use crate::report::Report;

/// What the runner is asked for.
#[derive(Debug)]
pub enum Command {
    /// Read the configuration again.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Check a target now.
    Check {
        target: Arc<str>,
        tier: Tier,
        done: CheckReply,
    },
    /// Check an image now, which no target may have.
    Probe {
        request: Box<Request>,
        done: ProbeReply,
    },
}

/// The number of the run.
pub type CheckReply = oneshot::Sender<Result<u64, Refused>>;

/// The report of an image.
pub type ProbeReply = oneshot::Sender<Result<Box<Report>, on_demand::Refused>>;

/// Why a target is not checked now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    NoSuchTarget,
    /// It is being checked, or too many are.
    Busy,
    /// A budget does not allow it, or a registry asked to be left alone.
    Deferred(Deferred),
    /// There is no report: it timed out, or ended abnormally.
    Failed(&'static str),
}
