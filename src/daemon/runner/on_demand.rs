//! Runs on-demand checks: one at a time, besides the schedule, and within the same budgets.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::Instrument as _;

use super::command::ProbeReply;
use super::executor::{Underway, timed_out};
use crate::daemon::check::{self, CheckContext, CheckResult, Job};
use crate::daemon::on_demand::{Pace, Refused};
use crate::daemon::schedule::clock::Moment;
use crate::daemon::store::history::Outcome;

/// The running on-demand check.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    pub(super) running: JoinSet<Result<CheckResult, Outcome>>,
    current: Option<(Underway, ProbeReply)>,
    pub(super) pace: Pace,
}

impl OnDemand {
    /// Whether an image may be checked now.
    pub(super) fn may(
        &mut self,
        per_minute: u32,
        namespace: &str,
        now: Moment,
    ) -> Result<(), Refused> {
        if self.current.is_some() {
            return Err(Refused::Busy);
        }
        let may = self.pace.may(per_minute, namespace, now);
        may.map_err(Refused::TooMany)
    }

    pub(super) fn is_testing(&self) -> bool {
        let current = self.current.as_ref();
        current.is_some_and(|(underway, _)| underway.is_test())
    }

    pub(super) fn begin(
        &mut self,
        world: &Arc<CheckContext>,
        job: Job,
        limit: Duration,
        underway: Underway,
        namespace: &str,
        reply: ProbeReply,
    ) {
        let registry = &underway.target.registry;
        self.pace.begin(registry, namespace, underway.began);
        let span = tracing::info_span!(
            "on demand",
            image = %underway.target.reference,
            tier = underway.due.tier.as_str()
        );
        let world = Arc::clone(world);
        let made = async move {
            let _lent = world.lend_secrets(&job.target).await;
            let made = Box::pin(check::make(&world, job, limit)).await;
            made.ok_or_else(timed_out)
        };
        self.running.spawn(made.instrument(span));
        self.current = Some((underway, reply));
    }

    /// Waits until the check has ended; `None` if none is running.
    pub(super) async fn ended(
        &mut self,
    ) -> Option<(Underway, Result<CheckResult, Outcome>, ProbeReply)> {
        let joined = self.running.join_next().await?;
        let (underway, reply) = self.current.take()?;
        let result = joined.unwrap_or(Err(Outcome::Panicked));
        Some((underway, result, reply))
    }
}
