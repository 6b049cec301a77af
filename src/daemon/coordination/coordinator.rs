//! This node's part in the coordination: its slots, the Leases that it holds, and what it reports in them.

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

/// Maximum of credentials whose Lease is requested at the same time; each takes two requests an hour.
const MOST_ASKING: usize = 4;

/// How long this node may retry a credential after its slot, at least; longer if checks are further apart.
const TRY_WITHIN: Duration = Duration::from_mins(10);

/// A slot for a transfer test, which is made if the Lease allows it.
#[derive(Clone, Debug)]
pub struct TakenSlot {
    /// The domain of the registry.
    pub registry: Arc<str>,
    /// The nodes that share the path.
    pub group: LeaseGroup,
    /// The slot.
    pub slot: Slot,
    /// The target's transfer test before this one; `None`: unknown.
    pub last: Option<Moment>,
}

/// The Lease of a credential, the slot, and the answer.
type RetryAnswer = (Arc<str>, Slot, Answer);

/// The coordination of this node. With `spread.transfers: off` it has no slots.
#[derive(Debug)]
pub struct Coordinator {
    leases: Option<Arc<SharedLeases>>,
    /// A number from 0 to 1 that differs between nodes.
    share: f64,
    /// Slots of transfer tests, one for each registry.
    pub slots: Slots,
    retries: Slots,
    asking: JoinSet<RetryAnswer>,
    /// Tasks that release Leases and report accepted credentials.
    reporting: JoinSet<()>,
    /// Slots of credentials that this node retries for all nodes, by Lease.
    trying: BTreeMap<String, Slot>,
}

impl Coordinator {
    /// Prepares the coordination that the configuration requests.
    ///
    /// # Errors
    /// If Leases are requested, and no API server is configured or its credentials can't be read. Whether it answers
    /// shows later.
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

    /// Replaces it after a reload. Reports that are being written continue.
    pub fn become_as(&mut self, other: Self) {
        let reporting = std::mem::take(&mut self.reporting);
        *self = Self { reporting, ..other };
    }

    /// Whether Leases are usable, by the newest answer of the API server; `None` without coordination.
    pub fn access(&self) -> Option<WatchState> {
        self.leases.as_ref().map(|leases| leases.access())
    }

    /// When the Lease of the next credential is requested; `None`: no credential waits, or too many requests run.
    pub fn next_retry(&self) -> Option<Moment> {
        (self.asking.len() < MOST_ASKING)
            .then(|| self.retries.next())
            .flatten()
    }

    /// The next slot of a target's registry; `None`: it has none.
    pub fn next_of(&self, target: &Target) -> Option<Moment> {
        target.rhythm.transfer?;
        self.slots.next_of(&target.registry)
    }

    /// The rhythm of a target's own checks; without transfer tests if these are shared.
    pub fn own(&self, rhythm: Rhythm) -> Rhythm {
        Rhythm {
            transfer: rhythm.transfer.filter(|_| self.leases.is_none()),
            ..rhythm
        }
    }

    /// How long a rejected credential is not sent.
    pub fn cooldown(&self) -> Duration {
        if self.leases.is_some() {
            // Different on each node: if the API server was unreachable for that long, nodes must not retry together.
            SHARED_COOLDOWN.mul_f64(1.0 + self.share)
        } else {
            COOLDOWN
        }
    }

    /// Takes a new list of targets, and the credentials in cooldown.
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

    /// Requests the Lease for a slot; `None` without coordination.
    pub fn ask(
        &self,
        taken: &TakenSlot,
        now: Moment,
    ) -> Option<impl Future<Output = Answer> + Send + use<>> {
        let leases = self.leases.clone()?;
        let (group, slot) = (taken.group.clone(), taken.slot.clone());
        Some(async move { leases.ask(&group, &slot, now).await })
    }

    /// Takes the answer, after the test that it allowed; `None`: the test panicked, and the Lease expires.
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
                tracing::debug!(registry, epoch, by, "this node used its slot");
                self.slots.done(registry, now);
                if let Some(holding) = answer.holding {
                    self.reporting.spawn(holding.end());
                }
            }
            Decision::Skip(why) => {
                let reason = why.as_str();
                tracing::debug!(registry, epoch, why = reason, "this node skips its slot");
                self.slots.done(registry, now);
            }
            Decision::Later(at) => self.slots.later(registry, at),
        }
    }

    /// Requests the Lease of the credential whose slot is due.
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

    /// Waits for the answer about a credential; `None`: no request is running.
    ///
    /// # Errors
    /// If the task of the request panicked.
    pub async fn retry_answer(&mut self) -> Option<Result<RetryAnswer, JoinError>> {
        self.asking.join_next().await
    }

    /// Takes the answer about a credential: this node may retry it or not.
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
                    "a rejected credential is tried again on this node"
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

    /// Takes the credentials that a check used, and reports one that is accepted again to the other nodes.
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

    /// Waits until all reports are written.
    pub async fn reported(&mut self) {
        while self.reporting.join_next().await.is_some() {}
    }
}

fn lease_of(registry: &str, attempt: &Attempt) -> Option<String> {
    let id = attempt.credential.as_ref()?;
    Some(LeaseGroup::of_credential(registry, id).lease)
}

/// The registry and credential of a Lease, and when the credential was rejected.
fn credential_of(rejected: &Cooldowns, lease: &str) -> Option<(Arc<str>, CredentialId, Moment)> {
    rejected.all().find_map(|(registry, one)| {
        let is_it = lease_of(registry, &one.attempt).as_deref() == Some(lease);
        let id = one.attempt.credential.clone().filter(|_| is_it)?;
        Some((Arc::from(registry), id, one.at))
    })
}
