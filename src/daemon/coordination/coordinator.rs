//! This node's part in what nodes share: its slots, the Leases that it holds, and what it reports by them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::group::LeaseGroup;
use super::lease::{AllowedBy, Answer, SharedLeases};
use super::slots::{Decision, Rule, SkipReason, Slot, Slots};
use crate::config::Config;
use crate::daemon::schedule::clock::{Moment, hash, share};
use crate::daemon::schedule::cooldown::{COOLDOWN, Cooldowns, Rejected, SHARED_COOLDOWN};
use crate::daemon::schedule::timetable::Rhythm;
use crate::daemon::store::target::Target;
use crate::kubernetes::client::ConnectError;
use crate::kubernetes::watch::WatchState;
use crate::model::credential::CredentialId;
use crate::model::evidence::Attempt;

/// Requests for credentials at the same time; each is two requests in an hour.
const MOST_ASKING: usize = 4;

/// A credential whose slot it is may be tried for so long; longer where checks are further apart.
const TRY_WITHIN: Duration = Duration::from_mins(10);

/// A slot that is used for a test, if the Lease allows it.
#[derive(Clone, Debug)]
pub struct TakenSlot {
    pub registry: Arc<str>,
    pub group: LeaseGroup,
    pub slot: Slot,
    /// When the target's last transfer test was, before this was booked.
    pub last: Option<Moment>,
}

/// A credential's Lease, the slot, and the answer.
type RetryAnswer = (Arc<str>, Slot, Answer);

/// Without Leases it has no slots.
#[derive(Debug)]
pub struct Coordinator {
    leases: Option<Arc<SharedLeases>>,
    /// Of this node, from 0 to 1.
    share: f64,
    /// Of transfer tests.
    pub slots: Slots,
    retries: Slots,
    asking: JoinSet<RetryAnswer>,
    /// Leases that are given up, and credentials that were accepted.
    reporting: JoinSet<()>,
    /// Credentials that this node tries for all, by Lease.
    trying: BTreeMap<String, Slot>,
}

impl Coordinator {
    /// # Errors
    /// When Leases are asked for and no API server is known. Whether it answers shows later.
    pub async fn start(config: &Config, node: &str) -> Result<Self, ConnectError> {
        let leases = SharedLeases::start(config, node).await?;
        let rule = Rule {
            epoch: config.spread.epoch.0,
            nodes: config.spread.nodes_per_group.0,
        };
        Ok(Self {
            leases: leases.map(Arc::new),
            share: share(hash(&[node, "rest"])),
            slots: Slots::new(node, rule),
            retries: Slots::new(node, Rule::RETRIES),
            asking: JoinSet::new(),
            reporting: JoinSet::new(),
            trying: BTreeMap::new(),
        })
    }

    /// As another configuration has it. Reports that are under way go on.
    pub fn become_as(&mut self, other: Self) {
        let reporting = std::mem::take(&mut self.reporting);
        *self = Self { reporting, ..other };
    }

    /// How the API server answers; `None` where nothing is shared.
    pub fn access(&self) -> Option<WatchState> {
        self.leases.as_ref().map(|leases| leases.access())
    }

    /// When the next credential is asked for.
    pub fn next_retry(&self) -> Option<Moment> {
        (self.asking.len() < MOST_ASKING)
            .then(|| self.retries.next())
            .flatten()
    }

    /// When the slot of a target's registry comes.
    pub fn next_of(&self, target: &Target) -> Option<Moment> {
        target.rhythm.transfer?;
        self.slots.next_of(&target.registry)
    }

    /// The rhythm of a target's own checks: tests that are shared are not among them.
    pub fn own(&self, rhythm: Rhythm) -> Rhythm {
        Rhythm {
            transfer: rhythm.transfer.filter(|_| self.leases.is_none()),
            ..rhythm
        }
    }

    /// How long a rejected credential is not tried.
    pub fn cooldown(&self) -> Duration {
        if self.leases.is_some() {
            // Not all at once, where the API server was away for as long.
            SHARED_COOLDOWN.mul_f64(1.0 + self.share)
        } else {
            COOLDOWN
        }
    }

    /// These are the targets, and this was rejected.
    pub fn replace(&mut self, targets: &[Arc<Target>], rejected: &Cooldowns, now: Moment) {
        if self.leases.is_none() {
            return;
        }
        let all = targets.iter();
        let tested = all.filter(|target| target.rhythm.transfer.is_some());
        let registries: BTreeMap<Arc<str>, Moment> = tested
            .map(|target| (Arc::clone(&target.registry), now))
            .collect();
        self.slots.replace(registries);
        self.replace_retries(rejected);
    }

    fn replace_retries(&mut self, rejected: &Cooldowns) {
        let wanted = rejected.all().filter_map(|(registry, one)| {
            let lease = lease_of(registry, &one.attempt)?;
            Some((Arc::from(lease), one.at.after(COOLDOWN)))
        });
        self.retries.replace(wanted.collect::<Vec<_>>());
    }

    /// Asks whether a slot may be used.
    pub fn ask(
        &self,
        taken: &TakenSlot,
        now: Moment,
    ) -> Option<impl Future<Output = Answer> + Send + use<>> {
        let leases = self.leases.clone()?;
        let (group, slot) = (taken.group.clone(), taken.slot.clone());
        Some(async move { leases.ask(&group, &slot, now).await })
    }

    /// Takes the answer, once the test has ended that it allowed; `None`: a defect has ended it, and the
    /// Lease expires.
    pub fn answered(&mut self, taken: &TakenSlot, answer: Option<Answer>, now: Moment) {
        while self.reporting.try_join_next().is_some() {}
        let (registry, epoch) = (&*taken.registry, taken.slot.epoch);
        let Some(answer) = answer else {
            self.slots.done(registry, now);
            return;
        };
        match answer.decision {
            Decision::Test => {
                let by = answer.by.as_str();
                tracing::debug!(registry, epoch, by, "this node had a slot");
                self.slots.done(registry, now);
                if let Some(holding) = answer.holding {
                    self.reporting.spawn(holding.end());
                }
            }
            Decision::Skip(why) => {
                let reason = why.as_str();
                tracing::debug!(registry, epoch, why = reason, "this node does not test");
                self.slots.done(registry, now);
            }
            Decision::Later(at) => self.slots.later(registry, at),
        }
    }

    /// Asks for the credential whose slot has come.
    pub fn ask_retry(&mut self, rejected: &Cooldowns, now: Moment) {
        let Some(leases) = self.leases.clone() else {
            return;
        };
        let Some((lease, slot)) = self.retries.take(now) else {
            return;
        };
        let known = credential_of(rejected, &lease).map(|(_, _, at)| at);
        let Some(at) = known.filter(|at| now.since(*at) >= COOLDOWN) else {
            self.retries.done(&lease, now);
            return;
        };
        self.asking.spawn(async move {
            let answer = leases.ask_retry(&lease, &slot, at, now).await;
            (lease, slot, answer)
        });
    }

    /// Waits for an answer; `None` where nothing is asked.
    pub async fn retry_answer(&mut self) -> Option<Result<RetryAnswer, JoinError>> {
        self.asking.join_next().await
    }

    /// A rejected credential is tried again here, or it is not.
    pub fn retry_answered(
        &mut self,
        answer: Result<RetryAnswer, JoinError>,
        rejected: &mut Cooldowns,
        reach: Duration,
        now: Moment,
    ) {
        let Ok((lease, slot, answer)) = answer else {
            self.retries.give_up(now);
            return;
        };
        if let Decision::Later(at) = answer.decision {
            self.retries.later(&lease, at);
            return;
        }
        self.retries.done(&lease, now);
        let Some((registry, id, _)) = credential_of(rejected, &lease) else {
            return;
        };
        match answer.decision {
            Decision::Skip(SkipReason::Enough) => rejected.confirm(&registry, &id, now),
            Decision::Test => {
                let by = answer.by.as_str();
                tracing::debug!(
                    registry = &*registry,
                    credential = %id,
                    by,
                    "a credential that was rejected is tried again here"
                );
                rejected.let_try(&registry, &id, now.after(TRY_WITHIN.max(reach * 2)));
                if answer.by == AllowedBy::Lease {
                    self.trying
                        .retain(|_, slot| now < slot.end().after(COOLDOWN));
                    self.trying.insert(lease.to_string(), slot);
                }
            }
            Decision::Skip(_) | Decision::Later(_) => {}
        }
    }

    /// A check has used credentials: the others want to know of the one that is accepted again.
    pub fn checked(
        &mut self,
        registry: &str,
        accepted: Option<&Attempt>,
        rejected: &[Rejected],
        all_rejected: &Cooldowns,
        now: Moment,
    ) {
        let Some(leases) = self.leases.clone() else {
            return;
        };
        self.replace_retries(all_rejected);
        for one in rejected {
            if let Some(lease) = lease_of(registry, &one.attempt) {
                self.trying.remove(&lease);
            }
        }
        let lease = accepted.and_then(|attempt| lease_of(registry, attempt));
        if let Some((lease, slot)) = lease.and_then(|lease| self.trying.remove_entry(&lease)) {
            self.reporting
                .spawn(leases.report_accepted(lease, slot, now));
        }
    }

    /// Waits until all is reported.
    pub async fn reported(&mut self) {
        while self.reporting.join_next().await.is_some() {}
    }
}

fn lease_of(registry: &str, attempt: &Attempt) -> Option<String> {
    let id = attempt.credential.as_ref()?;
    Some(LeaseGroup::of_credential(registry, id).lease)
}

/// Whose Lease it is, and when it was rejected.
fn credential_of(rejected: &Cooldowns, lease: &str) -> Option<(Arc<str>, CredentialId, Moment)> {
    rejected.all().find_map(|(registry, one)| {
        let is_it = lease_of(registry, &one.attempt).as_deref() == Some(lease);
        let id = one.attempt.credential.clone().filter(|_| is_it)?;
        Some((Arc::from(registry), id, one.at))
    })
}
