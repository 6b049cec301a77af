//! Runs checks at the same time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;
use tracing::Instrument as _;

use super::command::CheckReply;
use crate::daemon::check::{self, CheckContext, CheckResult, Job};
use crate::daemon::coordination::coordinator::TakenSlot;
use crate::daemon::coordination::lease::Answer;
use crate::daemon::schedule::budget::Reserved;
use crate::daemon::schedule::clock::Moment;
use crate::daemon::schedule::timetable::{Due, Tier};
use crate::daemon::store::history::Outcome;
use crate::daemon::store::target::Target;
use crate::model::own_limit::OwnLimit;
use crate::net::machine;
use crate::own;

/// Checks that start later than this count as CPU-starved.
const STARVED_LAG: Duration = Duration::from_secs(1);

/// Above this share of its time stopped by the CPU limit, a check counts as CPU-starved.
const STARVED_SHARE: f64 = 0.05;

/// A running check.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) due: Due,
    pub(super) target: Arc<Target>,
    pub(super) began: Moment,
    /// Since when it could have begun: it was due, and few enough checks were running.
    pub(super) free: Moment,
    pub(super) at: Timestamp,
    pub(super) reserved: Option<Reserved>,
    throttled: Option<Duration>,
    /// Receives the result of a requested check; `None`: a scheduled one.
    pub(super) reply: Option<CheckReply>,
    /// The slot, if transfer tests are shared with other nodes.
    pub(super) slot: Option<TakenSlot>,
}

impl Underway {
    pub(super) fn new(
        due: Due,
        target: Arc<Target>,
        reserved: Option<Reserved>,
        now: Moment,
    ) -> Self {
        Self {
            target,
            began: now,
            free: due.at,
            at: Timestamp::now(),
            reserved,
            throttled: throttled(),
            reply: None,
            slot: None,
            due,
        }
    }

    pub(super) fn is_test(&self) -> bool {
        self.due.tier == Tier::Transfer
    }

    /// The delay of its start.
    pub(super) fn lag(&self) -> Duration {
        self.began.since(self.due.at)
    }

    /// Whether it was CPU-starved.
    pub(super) fn is_starved(&self, took: Duration) -> bool {
        let throttled = self.throttled.zip(throttled());
        let throttled = throttled.map(|(before, after)| after.saturating_sub(before));
        let share = throttled.map_or(0.0, |time| {
            time.as_secs_f64() / took.as_secs_f64().max(1e-3)
        });
        self.began.since(self.free) > STARVED_LAG || share > STARVED_SHARE
    }
}

/// A check took too long: that is a limit of this program, and shows nothing about the registry.
pub(super) fn timed_out() -> Outcome {
    own::count(OwnLimit::Deadline);
    Outcome::TimedOut
}

fn throttled() -> Option<Duration> {
    machine::cpu().and_then(|cpu| cpu.throttled)
}

/// How a check ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// The answer of the Lease; `None` if none was requested.
    pub(super) answer: Option<Answer>,
    /// How long that took.
    pub(super) lease_wait: Duration,
    /// `None`: the Lease did not allow it.
    pub(super) result: Option<Result<CheckResult, Outcome>>,
}

/// Runs checks.
#[derive(Debug, Default)]
pub(super) struct Executor {
    pub(super) running: JoinSet<Ended>,
    underway: BTreeMap<Id, Underway>,
}

impl Executor {
    pub(super) fn count(&self) -> usize {
        self.running.len()
    }

    pub(super) fn is_checking(&self, target: &str) -> bool {
        let mut all = self.underway.values();
        all.any(|underway| &*underway.due.target == target)
    }

    pub(super) fn is_testing(&self) -> bool {
        self.underway.values().any(Underway::is_test)
    }

    /// Starts a check. With a `lease`, it waits for that answer first, and is made only if it is allowed.
    pub(super) fn begin(
        &mut self,
        world: &Arc<CheckContext>,
        job: Job,
        limit: Duration,
        lease: Option<impl Future<Output = Answer> + Send + 'static>,
        underway: Underway,
    ) {
        let target = &underway.target;
        let span = tracing::info_span!(
            "check",
            target_name = &*target.name,
            registry = &*target.registry,
            tier = underway.due.tier.as_str()
        );
        let world = Arc::clone(world);
        let made = async move {
            let began = Instant::now();
            let answer = match lease {
                Some(lease) => Some(lease.await),
                None => None,
            };
            let mut ended = Ended {
                lease_wait: began.elapsed(),
                result: None,
                answer,
            };
            if ended.answer.as_ref().is_none_or(Answer::is_allowed) {
                let made = Box::pin(check::make(&world, job, limit)).await;
                ended.result = Some(made.ok_or_else(timed_out));
            }
            ended
        };
        let handle = self.running.spawn(made.instrument(span));
        self.underway.insert(handle.id(), underway);
    }

    /// Waits for the next check to end; `None` if none is running.
    pub(super) async fn ended(&mut self) -> Option<(Underway, Ended)> {
        let joined = self.running.join_next_with_id().await?;
        let (id, ended) = joined.unwrap_or_else(|error: JoinError| {
            let ended = Ended {
                answer: None,
                lease_wait: Duration::ZERO,
                result: Some(Err(Outcome::Panicked)),
            };
            (error.id(), ended)
        });
        Some((self.underway.remove(&id)?, ended))
    }
}
