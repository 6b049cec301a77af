//! The image that somebody asked for: one at a time, besides the schedule, and within the same budgets.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::Instrument as _;

use super::command::ProbeReply;
use super::executor::Underway;
use crate::daemon::check::{self, CheckResult, Job, World};
use crate::daemon::on_demand::{Pace, Refused};
use crate::daemon::schedule::clock::Moment;
use crate::daemon::store::history::Outcome;

/// Runs it.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    running: JoinSet<Result<CheckResult, Outcome>>,
    current: Option<(Underway, ProbeReply)>,
    pace: Pace,
}

impl OnDemand {
    /// Whether an image may be checked now.
    pub(super) fn may(&mut self, per_minute: u32, now: Moment) -> Result<(), Refused> {
        if self.current.is_some() {
            return Err(Refused::Busy);
        }
        self.pace.may(per_minute, now).map_err(Refused::TooMany)
    }

    /// An image of this registry was asked for, not long ago.
    pub(super) fn knows(&self, registry: &str) -> bool {
        self.pace.knows(registry)
    }

    pub(super) fn is_testing(&self) -> bool {
        self.current
            .as_ref()
            .is_some_and(|(underway, _)| underway.is_test())
    }

    pub(super) fn begin(
        &mut self,
        world: &Arc<World>,
        job: Job,
        limit: Duration,
        underway: Underway,
        reply: ProbeReply,
    ) {
        self.pace.begin(&underway.target.registry, underway.began);
        let span = tracing::info_span!(
            "on demand",
            image = %underway.target.reference,
            tier = underway.due.tier.as_str()
        );
        let world = Arc::clone(world);
        let made = async move {
            let _lent = world.lend_secrets(&job.target).await;
            timeout(limit, Box::pin(check::make(&world, job)))
                .await
                .map_err(|_| Outcome::TimedOut)
        };
        self.running.spawn(made.instrument(span));
        self.current = Some((underway, reply));
    }

    /// Waits until it has ended, for ever where none is being checked.
    pub(super) async fn ended(&mut self) -> (Underway, Result<CheckResult, Outcome>, ProbeReply) {
        loop {
            let joined = match self.running.join_next().await {
                Some(joined) => joined,
                None => std::future::pending().await,
            };
            if let Some((underway, reply)) = self.current.take() {
                let result = joined.unwrap_or(Err(Outcome::Panicked));
                return (underway, result, reply);
            }
        }
    }

    /// Gives it up.
    pub(super) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }
}
