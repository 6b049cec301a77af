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
use crate::daemon::spread::{self, How, Looked, Spread};
use crate::daemon::target::Target;
use crate::daemon::turns::{Decision, Group, Pass, Rule, Turn, Turns};
use crate::daemon::way;
use crate::kubernetes::client::ConnectError;
use crate::model::credential::CredentialId;
use crate::model::evidence::Attempt;

/// Looks for credentials at the same time; each is two requests in an hour.
const MOST_ASKING: usize = 4;

/// A credential whose turn it is may be tried for so long; longer where checks are further apart.
const TRY_WITHIN: Duration = Duration::from_mins(10);

/// A test's turn.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) registry: Arc<str>,
    pub(super) turn: Turn,
    /// When the target's last transfer test was, before this was booked.
    last: Option<Moment>,
}

/// A look for a credential, with what came of it.
pub(super) type Asked = (Arc<str>, Turn, Looked);

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
    turns: Turns,
    retries: Turns,
    asking: JoinSet<Asked>,
    /// What others are told, and Leases that are given up.
    telling: JoinSet<()>,
    /// Credentials that this node tries for all, by Lease.
    trying: BTreeMap<String, Turn>,
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
            turns: Turns::new(node, spread::rule(&config.spread)),
            retries: Turns::new(node, Rule::RETRIES),
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

    /// When the next turn comes that needs a place among the checks.
    pub(super) fn next(&self) -> Option<Moment> {
        self.turns.next()
    }

    /// When the next credential is asked for.
    pub(super) fn next_retry(&self) -> Option<Moment> {
        (self.asking.len() < MOST_ASKING)
            .then(|| self.retries.next())
            .flatten()
    }

    /// When the turn of a target's registry may come.
    pub(super) fn next_of(&self, target: &Target) -> Option<Moment> {
        target.rhythm.transfer?;
        self.turns.next_of(&target.registry)
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
    /// Turns of these targets' registries, and of what was rejected.
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
        let wanted: Vec<_> = registries
            .into_iter()
            .map(|registry| {
                let group = self.group_of(&registry);
                let after = self.no_turn_before(&registry, now);
                (registry, group, after)
            })
            .collect();
        self.sharing.turns.replace(wanted);
        self.share_retries();
    }

    fn no_turn_before(&self, registry: &str, now: Moment) -> Moment {
        let before = self.state.ledger.no_turn_before(registry);
        before.map_or(now, |before| before.max(now))
    }

    /// Credentials that rest have turns.
    fn share_retries(&mut self) {
        let rejected: Vec<_> = self
            .state
            .ledger
            .rejected()
            .filter_map(|(registry, one)| {
                let id = one.attempt.credential.as_ref()?;
                let group = Group::of_credential(registry, id);
                let name = Arc::from(group.lease.as_str());
                Some((name, Some(group), one.at.after(REJECTED_REST)))
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
            let way = faces.find_map(|face| way::way(&face.paths, vantage.as_deref()))?;
            Some(Group::of_way(registry, &way, self.sharing.turns.rule()))
        })
    }

    /// A check has told something: perhaps of the way.
    pub(super) fn know_way(&mut self, registry: &Arc<str>, now: Moment) {
        if self.sharing.spread.is_none() || !self.sharing.turns.has(registry) {
            return;
        }
        let group = self.group_of(registry);
        let after = self.no_turn_before(registry, now);
        self.sharing.turns.know(registry, group, after);
    }

    /// Begins the test whose turn may have come. `false`: none has.
    pub(super) fn begin_turn(&mut self, now: Moment) -> bool {
        let Some((registry, turn, is_known)) = self.sharing.turns.take(now) else {
            return false;
        };
        if !is_known {
            self.pass(&registry, Pass::NoWay.as_str(), now);
            return true;
        }
        let Some(target) = self.longest_untested(&registry) else {
            self.sharing.turns.done(&registry, now);
            return true;
        };
        if self.is_underway(&target.name) {
            self.sharing.turns.later(&registry, now.after(AFTER_DEMAND));
            return true;
        }
        let due = Due {
            target: Arc::clone(&target.name),
            tier: Tier::Transfer,
            at: turn.at,
        };
        let last = self.state.ledger.last_transfer(&target.name);
        match self.may(&due, now) {
            Ok(reserved) => {
                let taken = Taken {
                    registry,
                    turn,
                    last,
                };
                self.begin(due, reserved, None, Some(taken));
            }
            Err((held, Then::Later(until))) if until < turn.end() => {
                self.with_fleet(|fleet| fleet.skipped(held.reason));
                self.sharing.turns.later(&registry, until);
            }
            Err((held, _)) => self.pass(&registry, held.reason, now),
        }
        true
    }

    fn pass(&mut self, registry: &str, reason: &'static str, now: Moment) {
        self.sharing.turns.done(registry, now);
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

    /// The look whether a turn is this node's.
    pub(super) fn look(
        &self,
        taken: &Taken,
        now: Moment,
    ) -> Option<impl Future<Output = Looked> + Send + 'static> {
        let spread = self.sharing.spread.clone()?;
        let learned = self.state.ledger.learned(&taken.registry);
        let turn = taken.turn.clone();
        Some(async move { spread.look(&turn, learned, now).await })
    }

    /// A turn was had, or was not this node's.
    pub(super) fn end_turn(
        &mut self,
        underway: &Underway,
        taken: &Taken,
        looked: Option<Looked>,
        now: Moment,
    ) {
        let Taken { registry, turn, .. } = taken;
        self.sharing.reap();
        self.unsaved = true;
        let Some(looked) = looked else {
            // A defect has ended it; the Lease expires.
            self.sharing.turns.done(registry, now);
            self.state.ledger.had_turn(registry, turn.last());
            return;
        };
        self.state.ledger.learn(registry, looked.learned);
        let (epoch, by) = (turn.epoch, looked.how.as_str());
        match looked.decision {
            Decision::Mine => {
                tracing::debug!(registry = &**registry, epoch, by, "this node had a turn");
                self.sharing.turns.done(registry, now);
                self.state.ledger.had_turn(registry, turn.last());
                self.with_fleet(|fleet| {
                    *fleet.counters.turns.entry(looked.how.as_str()).or_default() += 1;
                });
                if let Some(holding) = looked.holding {
                    self.sharing.telling.spawn(holding.end());
                }
            }
            Decision::Pass(why) => {
                let why = why.as_str();
                tracing::debug!(
                    registry = &**registry,
                    epoch,
                    by,
                    why,
                    "this node has no turn"
                );
                self.pass(registry, why, now);
                self.give_back(underway, taken, now);
            }
            Decision::Later(at) => {
                self.sharing.turns.later(registry, at);
                self.give_back(underway, taken, now);
            }
        }
        self.show_spread();
    }

    fn give_back(&mut self, underway: &Underway, taken: &Taken, now: Moment) {
        if let Some(reserved) = underway.reserved {
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

    /// Asks for the credential whose turn has come.
    pub(super) fn ask_for_retry(&mut self) {
        let now = self.clock.now();
        let Some(spread) = self.sharing.spread.clone() else {
            return;
        };
        let Some((lease, turn, _)) = self.sharing.retries.take(now) else {
            return;
        };
        let known = self.credential_of(&lease);
        let rejected = known.map(|(_, _, rejected)| rejected);
        let Some(rejected) = rejected.filter(|at| now.since(*at) >= REJECTED_REST) else {
            self.sharing.retries.done(&lease, now);
            return;
        };
        let learned = self.state.ledger.learned(&lease);
        self.sharing.asking.spawn(async move {
            let looked = spread.look_for_retry(&turn, rejected, learned, now).await;
            (lease, turn, looked)
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
        let Ok((lease, turn, looked)) = asked else {
            self.sharing.retries.give_up(now);
            return;
        };
        self.state.ledger.learn(&lease, looked.learned);
        self.unsaved = true;
        match looked.decision {
            Decision::Later(at) => self.sharing.retries.later(&lease, at),
            Decision::Pass(why) => {
                self.sharing.retries.done(&lease, now);
                if why == Pass::Enough
                    && let Some((registry, id, _)) = self.credential_of(&lease)
                {
                    self.state.ledger.confirm(&registry, &id, now);
                }
            }
            Decision::Mine => {
                self.sharing.retries.done(&lease, now);
                if let Some((registry, id, _)) = self.credential_of(&lease) {
                    tracing::debug!(
                        registry = &*registry,
                        credential = %id,
                        by = looked.how.as_str(),
                        "a credential that was rejected is tried again here"
                    );
                    let within = TRY_WITHIN.max(self.config.schedule.reach.0 * 2);
                    let until = now.after(within);
                    self.state.ledger.let_try(&registry, &id, until);
                    if looked.how == How::Lease {
                        let trying = &mut self.sharing.trying;
                        trying.retain(|_, turn| now < turn.end().after(REJECTED_REST));
                        self.sharing.trying.insert(lease.to_string(), turn);
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
        if let Some(turn) = lease.and_then(|lease| self.sharing.trying.remove(&lease)) {
            self.sharing.telling.spawn(spread.tell_accepted(turn, now));
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
