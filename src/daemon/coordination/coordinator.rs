//! The part of the loop that shares transfer tests, and retries of rejected credentials, with other
//! nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};

use super::{AFTER_DEMAND, Runner, Underway};
use crate::config::{Config, Spread as Wish};
use crate::daemon::fleet::SpreadFace;
use crate::daemon::ledger::{REJECTED_REST, REJECTED_REST_SHARED};
use crate::daemon::policy::{self, Then};
use crate::daemon::schedule::{Due, Moment, Rhythm, Tier, hash, share};
use crate::daemon::spread::{self, AllowedBy, Answer, Spread};
use crate::daemon::target::Target;
use crate::daemon::turns::{Decision, Rule, SkipReason, Slot, Slots};
use crate::daemon::way::{self, Group};
use crate::kubernetes::client::ConnectError;
use crate::model::credential::CredentialId;
use crate::model::evidence::Attempt;

/// Looks for credentials at the same time; each is two requests in an hour.
const MOST_ASKING: usize = 4;

/// A credential whose turn it is may be tried for so long; longer where checks are further apart.
const TRY_WITHIN: Duration = Duration::from_mins(10);

/// A slot that is used for a test, if the Lease allows it.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) registry: Arc<str>,
    group: Group,
    slot: Slot,
    /// When the target's last transfer test was, before this was booked.
    last: Option<Moment>,
}

/// A credential's Lease, the slot, and the answer.
pub(super) type Asked = (Arc<str>, Slot, Answer);

/// What is shared, and how; empty where nothing is.
#[derive(Debug)]
pub(super) struct Sharing {
    pub(super) spread: Option<Arc<Spread>>,
    /// What it was made of.
    wish: Wish,
    kubeconfig: Option<PathBuf>,
    check_timeout: Duration,
    /// Of this node, from 0 to 1.
    share: f64,
    slots: Slots,
    retries: Slots,
    asking: JoinSet<Asked>,
    /// What others are told, and Leases that are given up.
    telling: JoinSet<()>,
    /// Credentials that this node tries for all, by Lease.
    trying: BTreeMap<String, Slot>,
}

impl Sharing {
    pub(super) async fn start(config: &Config, node: &str) -> Result<Self, ConnectError> {
        let spread = Spread::start(config, node).await?;
        Ok(Self {
            spread: spread.map(Arc::new),
            wish: config.spread.clone(),
            kubeconfig: config.kubernetes.kubeconfig.clone(),
            check_timeout: config.schedule.check_timeout.0,
            share: share(hash(&[node, "rest"])),
            slots: Slots::new(node, spread::rule(&config.spread)),
            retries: Slots::new(node, Rule::RETRIES),
            asking: JoinSet::new(),
            telling: JoinSet::new(),
            trying: BTreeMap::new(),
        })
    }

    /// It would be the same with this configuration.
    pub(super) fn is_as(&self, config: &Config) -> bool {
        self.wish == config.spread
            && self.kubeconfig == config.kubernetes.kubeconfig
            && self.check_timeout == config.schedule.check_timeout.0
    }

    /// When the next slot comes that needs a place among the checks.
    pub(super) fn next(&self) -> Option<Moment> {
        self.slots.next()
    }

    /// When the next credential is asked for.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        (self.asking.len() < MOST_ASKING)
            .then(|| self.retries.next())
            .flatten()
    }

    /// When the slot of a target's registry comes.
    pub(super) fn next_of(&self, target: &Target) -> Option<Moment> {
        target.rhythm.transfer?;
        self.slots.next_of(&target.registry)
    }

    /// As another configuration has it. What is being told goes on.
    pub(super) fn become_as(&mut self, other: Self) {
        let telling = std::mem::take(&mut self.telling);
        *self = Self { telling, ..other };
    }

    /// The rhythm of a target's own checks: tests that are shared are not among them.
    pub(super) fn own(&self, rhythm: Rhythm) -> Rhythm {
        Rhythm {
            transfer: rhythm.transfer.filter(|_| self.spread.is_none()),
            ..rhythm
        }
    }

    /// How long a rejected credential rests.
    pub(super) fn rest(&self) -> Duration {
        if self.spread.is_some() {
            // Not all at once, where the API server was away for as long.
            REJECTED_REST_SHARED.mul_f64(1.0 + self.share)
        } else {
            REJECTED_REST
        }
    }

    /// Waits until a look for a credential has ended.
    pub(super) async fn asked(&mut self) -> Result<Asked, JoinError> {
        loop {
            match self.asking.join_next().await {
                Some(asked) => return asked,
                None => std::future::pending().await,
            }
        }
    }

    /// Waits until all is told.
    pub(super) async fn told(&mut self) {
        while self.telling.join_next().await.is_some() {}
    }

    /// Takes away what has ended.
    fn reap(&mut self) {
        while self.telling.try_join_next().is_some() {}
    }
}

impl Runner {
    /// Slots of these targets' registries, and of what was rejected.
    pub(super) fn share(&mut self, targets: &[Arc<Target>], now: Moment) {
        if self.sharing.spread.is_none() {
            return;
        }
        let mut registries: Vec<Arc<str>> = targets
            .iter()
            .filter(|target| target.rhythm.transfer.is_some())
            .map(|target| Arc::clone(&target.registry))
            .collect();
        registries.sort_unstable();
        registries.dedup();
        let wanted = registries.into_iter().map(|registry| (registry, now));
        self.sharing.slots.replace(wanted);
        self.share_retries();
    }

    /// Credentials that were rejected have slots.
    fn share_retries(&mut self) {
        let rejected: Vec<_> = self
            .state
            .ledger
            .rejected()
            .filter_map(|(registry, one)| {
                let id = one.attempt.credential.as_ref()?;
                let lease = Group::of_credential(registry, id).lease;
                Some((Arc::from(lease), one.at.after(REJECTED_REST)))
            })
            .collect();
        self.sharing.retries.replace(rejected);
    }

    /// The way of a registry's layers, as the first of its targets has it of which one is known.
    fn group_of(&self, registry: &str) -> Option<Group> {
        self.with_fleet(|fleet| {
            let vantage = fleet.vantage.clone();
            let watched = fleet.targets.values();
            let mut faces = watched
                .filter(|watched| &*watched.target.registry == registry)
                .filter_map(|watched| watched.record.face.as_ref());
            let egress = faces.find_map(|face| way::egress(&face.paths, vantage.as_deref()))?;
            Some(Group::of_path(registry, &egress, self.sharing.slots.rule()))
        })
    }

    /// Begins the test whose slot may have come. `false`: none has.
    pub(super) fn begin_turn(&mut self, now: Moment) -> bool {
        let Some((registry, slot)) = self.sharing.slots.take(now) else {
            return false;
        };
        let Some(group) = self.group_of(&registry) else {
            self.pass(&registry, SkipReason::NoPath.as_str(), now);
            return true;
        };
        let Some(target) = self.longest_untested(&registry) else {
            self.sharing.slots.done(&registry, now);
            return true;
        };
        if self.is_underway(&target.name) {
            self.sharing.slots.later(&registry, now.after(AFTER_DEMAND));
            return true;
        }
        let due = Due {
            target: Arc::clone(&target.name),
            tier: Tier::Transfer,
            at: slot.at,
        };
        let last = self.state.ledger.last_transfer(&target.name);
        match self.may(&due, now) {
            Ok(reserved) => {
                let taken = Taken {
                    registry,
                    group,
                    slot,
                    last,
                };
                self.begin(due, reserved, None, Some(taken));
            }
            Err((held, Then::Later(until))) if until < slot.end() => {
                self.with_fleet(|fleet| fleet.skipped(held.reason));
                self.sharing.slots.later(&registry, until);
            }
            Err((held, _)) => self.pass(&registry, held.reason, now),
        }
        true
    }

    fn pass(&mut self, registry: &str, reason: &'static str, now: Moment) {
        self.sharing.slots.done(registry, now);
        self.with_fleet(|fleet| fleet.skipped(reason));
    }

    /// Of a registry's targets: the next one in turn.
    fn longest_untested(&self, registry: &str) -> Option<Arc<Target>> {
        let ledger = &self.state.ledger;
        self.with_fleet(|fleet| {
            let targets = fleet.targets.values().map(|watched| &watched.target);
            targets
                .filter(|target| &*target.registry == registry)
                .filter(|target| target.rhythm.transfer.is_some())
                .min_by_key(|target| ledger.last_transfer(&target.name))
                .cloned()
        })
    }

    /// Asks whether a slot may be used.
    pub(super) fn look(
        &self,
        taken: &Taken,
        now: Moment,
    ) -> Option<impl Future<Output = Answer> + Send + 'static> {
        let spread = self.sharing.spread.clone()?;
        let (group, slot) = (taken.group.clone(), taken.slot.clone());
        Some(async move { spread.ask(&group, &slot, now).await })
    }

    /// A slot was used, or it is not.
    pub(super) fn end_turn(
        &mut self,
        underway: &Underway,
        taken: &Taken,
        answer: Option<Answer>,
        now: Moment,
    ) {
        let Taken { registry, slot, .. } = taken;
        self.sharing.reap();
        let Some(answer) = answer else {
            // A defect has ended it; the Lease expires.
            self.sharing.slots.done(registry, now);
            return;
        };
        let epoch = slot.epoch;
        match answer.decision {
            Decision::Test => {
                let by = answer.by.as_str();
                tracing::debug!(registry = &**registry, epoch, by, "this node had a slot");
                self.sharing.slots.done(registry, now);
                self.with_fleet(|fleet| *fleet.counters.slots.entry(by).or_default() += 1);
                if let Some(holding) = answer.holding {
                    self.sharing.telling.spawn(holding.end());
                }
            }
            Decision::Skip(why) => {
                let why = why.as_str();
                tracing::debug!(
                    registry = &**registry,
                    epoch,
                    why,
                    "this node does not test"
                );
                self.pass(registry, why, now);
                self.give_back(underway, taken, now);
            }
            Decision::Later(at) => {
                self.sharing.slots.later(registry, at);
                self.give_back(underway, taken, now);
            }
        }
        self.show_spread();
    }

    fn give_back(&mut self, underway: &Underway, taken: &Taken, now: Moment) {
        if let Some(reserved) = underway.reserved {
            self.unsaved = true;
            self.state.ledger.give_back(
                &underway.due.target,
                &taken.registry,
                reserved,
                policy::USUAL_REQUESTS,
                taken.last,
                now,
            );
        }
    }

    /// Asks for the credential whose slot has come.
    pub(super) fn ask_for_retry(&mut self) {
        let now = self.clock.now();
        let Some(spread) = self.sharing.spread.clone() else {
            return;
        };
        let Some((lease, slot)) = self.sharing.retries.take(now) else {
            return;
        };
        let known = self.credential_of(&lease);
        let rejected = known.map(|(_, _, rejected)| rejected);
        let Some(rejected) = rejected.filter(|at| now.since(*at) >= REJECTED_REST) else {
            self.sharing.retries.done(&lease, now);
            return;
        };
        self.sharing.asking.spawn(async move {
            let answer = spread.ask_retry(&lease, &slot, rejected, now).await;
            (lease, slot, answer)
        });
    }

    /// The Leases of credentials that were rejected.
    pub(super) fn leases_of_credentials(&self) -> BTreeSet<String> {
        let rejected = self.state.ledger.rejected();
        rejected
            .filter_map(|(registry, one)| {
                let id = one.attempt.credential.as_ref()?;
                Some(Group::of_credential(registry, id).lease)
            })
            .collect()
    }

    /// Whose Lease it is, and when it was rejected.
    fn credential_of(&self, lease: &str) -> Option<(Arc<str>, CredentialId, Moment)> {
        self.state.ledger.rejected().find_map(|(registry, one)| {
            let id = one.attempt.credential.clone()?;
            let is_it = Group::of_credential(registry, &id).lease == lease;
            is_it.then(|| (Arc::from(registry), id, one.at))
        })
    }

    /// A rejected credential is tried again here, or it is not.
    pub(super) fn end_retry(&mut self, asked: Result<Asked, JoinError>) {
        let now = self.clock.now();
        let Ok((lease, slot, answer)) = asked else {
            self.sharing.retries.give_up(now);
            return;
        };
        match answer.decision {
            Decision::Later(at) => self.sharing.retries.later(&lease, at),
            Decision::Skip(why) => {
                self.sharing.retries.done(&lease, now);
                if why == SkipReason::Enough
                    && let Some((registry, id, _)) = self.credential_of(&lease)
                {
                    self.unsaved = true;
                    self.state.ledger.confirm(&registry, &id, now);
                }
            }
            Decision::Test => {
                self.sharing.retries.done(&lease, now);
                if let Some((registry, id, _)) = self.credential_of(&lease) {
                    tracing::debug!(
                        registry = &*registry,
                        credential = %id,
                        by = answer.by.as_str(),
                        "a credential that was rejected is tried again here"
                    );
                    let within = TRY_WITHIN.max(self.config.schedule.reach.0 * 2);
                    let until = now.after(within);
                    self.unsaved = true;
                    self.state.ledger.let_try(&registry, &id, until);
                    if answer.by == AllowedBy::Lease {
                        let trying = &mut self.sharing.trying;
                        trying.retain(|_, slot| now < slot.end().after(REJECTED_REST));
                        trying.insert(lease.to_string(), slot);
                    }
                }
            }
        }
        self.show_spread();
    }

    /// What became of credentials: others want to know of the one that is let in again.
    pub(super) fn tell_of(
        &mut self,
        registry: &str,
        accepted: Option<&Attempt>,
        rejected: bool,
        now: Moment,
    ) {
        let Some(spread) = self.sharing.spread.clone() else {
            return;
        };
        self.share_retries();
        if rejected {
            let again = self.leases_of_credentials();
            self.sharing
                .trying
                .retain(|lease, _| !again.contains(lease));
        }
        let lease = accepted
            .and_then(|attempt| attempt.credential.as_ref())
            .map(|id| Group::of_credential(registry, id).lease);
        if let Some((lease, slot)) =
            lease.and_then(|lease| self.sharing.trying.remove_entry(&lease))
        {
            let told = spread.report_accepted(lease, slot, now);
            self.sharing.telling.spawn(told);
        }
    }

    /// How the API server answers.
    pub(super) fn show_spread(&self) {
        let face = self.sharing.spread.as_ref().map(|spread| SpreadFace {
            heard: spread.heard(),
        });
        self.with_fleet(|fleet| fleet.spread = face);
    }
}
