//! The checks that are being made, side by side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::{Instant, timeout};
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
use crate::net::machine;

/// Checks that begin later than this count as CPU-starved.
const STARVED_LAG: Duration = Duration::from_secs(1);

/// The share of its time that the limit of processors may take from a check.
const STARVED_SHARE: f64 = 0.05;

/// A check that is being made.
#[derive(Debug)]
pub(super) struct Underway {
    pub(super) due: Due,
    pub(super) target: Arc<Target>,
    pub(super) began: Moment,
    pub(super) at: Timestamp,
    pub(super) reserved: Option<Reserved>,
    throttled: Option<Duration>,
    /// Who asked for it; `None`: the schedule.
    pub(super) reply: Option<CheckReply>,
    /// Where transfer tests are shared with other nodes: its slot.
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
            due,
            target,
            began: now,
            at: Timestamp::now(),
            reserved,
            throttled: throttled(),
            reply: None,
            slot: None,
        }
    }

    pub(super) fn is_test(&self) -> bool {
        self.due.tier == Tier::Transfer
    }

    /// How late it began.
    pub(super) fn lag(&self) -> Duration {
        self.began.since(self.due.at)
    }

    /// This process had too little of the processor meanwhile.
    pub(super) fn is_starved(&self, took: Duration) -> bool {
        let throttled = self.throttled.zip(throttled());
        let throttled = throttled.map(|(before, after)| after.saturating_sub(before));
        let share = throttled.map_or(0.0, |time| {
            time.as_secs_f64() / took.as_secs_f64().max(1e-3)
        });
        self.lag() > STARVED_LAG || share > STARVED_SHARE
    }
}

fn throttled() -> Option<Duration> {
    machine::cpu().and_then(|cpu| cpu.throttled)
}

/// How a check ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Of the Lease, where one was asked for.
    pub(super) answer: Option<Answer>,
    /// How long that took.
    pub(super) asked_for: Duration,
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

    /// Begins a check, once the Lease allows it that is asked for before.
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
                asked_for: began.elapsed(),
                result: None,
                answer,
            };
            if ended.answer.as_ref().is_none_or(Answer::is_allowed) {
                let made = timeout(limit, Box::pin(check::make(&world, job))).await;
                ended.result = Some(made.map_err(|_| Outcome::TimedOut));
            }
            ended
        };
        let handle = self.running.spawn(made.instrument(span));
        self.underway.insert(handle.id(), underway);
    }

    /// Waits for the next check that ends; `None` where none is being made.
    pub(super) async fn ended(&mut self) -> Option<(Underway, Ended)> {
        let joined = self.running.join_next_with_id().await?;
        let (id, ended) = joined.unwrap_or_else(|error: JoinError| {
            let ended = Ended {
                answer: None,
                asked_for: Duration::ZERO,
                result: Some(Err(Outcome::Panicked)),
            };
            (error.id(), ended)
        });
        Some((self.underway.remove(&id)?, ended))
    }
}
