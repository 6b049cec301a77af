//! The loop of the daemon: runs checks that are due at the same time, books what they spend, and records their
//! results. Each part has its own state: `executor`, `on_demand`, `reload`, `ledger_store`, `recorder`.

pub mod command;
mod executor;
mod ledger_store;
mod on_demand;
mod recorder;
pub mod reload;

use std::collections::BTreeSet;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use self::command::{CheckReply, Command, ProbeReply, Refused};
use self::executor::{Ended, Executor, Underway};
use self::ledger_store::LedgerStore;
use self::on_demand::OnDemand;
use self::recorder::Recorder;
use self::reload::{Prepared, Reload};
use crate::config::{Config, Discover};
use crate::daemon::check::{CheckContext, CheckResult, StartError};
use crate::daemon::cluster::Cluster;
use crate::daemon::coordination::coordinator::{Coordinator, TakenSlot};
use crate::daemon::coordination::group::LeaseGroup;
use crate::daemon::coordination::lease::Answer;
use crate::daemon::coordination::slots::{Decision, SkipReason};
use crate::daemon::on_demand::{self as images, Request};
use crate::daemon::schedule::admission::{Deferred, NextAttempt};
use crate::daemon::schedule::budget::Reserved;
use crate::daemon::schedule::clock::{Clock, Moment};
use crate::daemon::schedule::timetable::{Due, Planned, Tier, Timetable};
use crate::daemon::store::history::{Changes, Outcome};
use crate::daemon::store::summary::RunSummary;
use crate::daemon::store::target::Target;
use crate::daemon::store::targets::{SharedStore, TargetStore, Watched};
use crate::kubernetes::watch;
use crate::model::endpoint::Role;
use crate::own;
use crate::report::Report;
use crate::serving::reload::Loader;
use crate::workload::discovery::Wanted;

/// How long a due check is postponed while the same target is checked on demand.
const AFTER_DEMAND: Duration = Duration::from_secs(5);

/// How often changed state is written.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// The daemon's loop, with its parts.
pub struct Runner {
    clock: Clock,
    config: Config,
    world: Arc<CheckContext>,
    cluster: Cluster,
    /// The images of this node's pods, from the newest list.
    wanted: Vec<Wanted>,
    /// The namespaces whose pods wait for images that are not checked.
    crowded: BTreeSet<String>,
    timetable: Timetable,
    coordinator: Coordinator,
    book: LedgerStore,
    executor: Executor,
    on_demand: OnDemand,
    recorder: Recorder,
    reload: Reload,
    /// Until when `budgets.checks_at_once` checks were running.
    full_until: Moment,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("node", &self.reload.node)
            .finish_non_exhaustive()
    }
}

impl Runner {
    /// Prepares the loop. No check is made yet.
    ///
    /// # Errors
    /// If a file or folder that the configuration names can't be used, or no API server is configured.
    pub async fn start(
        node: String,
        config: Config,
        load: Loader<Config>,
    ) -> Result<Self, StartError> {
        let (reload, file) = Reload::start(node, &config, load).await?;
        let node = &reload.node;
        let cluster = reload.cluster(&config).await?;
        let coordinator = Coordinator::start(&config, node).await?;
        let world = Arc::new(reload.world(&config, &cluster)?);
        let mut store = TargetStore::new(node, world.network(), Timestamp::now());
        store.counters.events = reload.events.clone();
        let mut runner = Self {
            clock: Clock::begin(),
            timetable: Timetable::new(node),
            book: LedgerStore::open(node, file),
            recorder: Recorder::new(Arc::new(RwLock::new(store))),
            executor: Executor::default(),
            on_demand: OnDemand::default(),
            wanted: Vec::new(),
            crowded: BTreeSet::new(),
            world,
            cluster,
            coordinator,
            config,
            reload,
            full_until: Moment::default(),
        };
        runner.apply();
        Ok(runner)
    }

    /// The results that metrics, page and API show.
    pub fn store(&self) -> SharedStore {
        Arc::clone(&self.recorder.store)
    }

    /// Runs until `stop` is cancelled. Running checks then have `schedule.grace` to finish.
    pub async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        let mut save = tokio::time::interval(SAVE_EVERY);
        loop {
            let has_room = self.executor.count() < self.capacity();
            let due = [self.timetable.next(), self.coordinator.slots.next()];
            let due = due.into_iter().flatten().min().filter(|_| has_room);
            let [due, retry] =
                [due, self.coordinator.next_retry()].map(|at| at.map(|at| self.clock.instant(at)));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some((underway, ended)) = self.executor.ended() => self.finish(underway, ended),
                Some((underway, result, reply)) = self.on_demand.ended() => {
                    self.finish_on_demand(&underway, result, reply);
                }
                Some(command) = commands.recv() => tokio::select! {
                    biased;
                    () = stop.cancelled() => break,
                    () = self.handle(command) => {}
                },
                () = self.cluster.changed() => self.discover(),
                Some(answer) = self.coordinator.retry_answer() => {
                    let (now, reach) = (self.clock.now(), self.config.schedule.reach.0);
                    let rejected = &mut self.book.ledger_mut().cooldown;
                    self.coordinator.retry_answered(answer, rejected, reach, now);
                    self.show_leases();
                }
                () = at(retry) => {
                    let rejected = &self.book.ledger().cooldown;
                    self.coordinator.ask_retry(rejected, self.clock.now());
                }
                _ = save.tick() => self.save(),
                () = at(due) => self.begin_due(),
            }
        }
        self.drain().await;
    }

    async fn drain(mut self) {
        let grace = self.config.schedule.grace.0;
        tracing::info!(
            running = self.executor.count(),
            ?grace,
            "stopping: running checks may finish"
        );
        let end = Instant::now() + grace;
        while self.executor.count() > 0 {
            tokio::select! {
                Some((underway, ended)) = self.executor.ended() => self.finish(underway, ended),
                () = sleep_until(end) => break,
            }
        }
        let given_up = self.executor.count();
        self.executor.running.shutdown().await;
        self.on_demand.running.shutdown().await;
        tokio::select! {
            () = self.coordinator.reported() => {}
            () = sleep_until(end) => {}
        }
        self.book.must_save();
        self.save();
        tracing::info!(given_up, "stopped");
    }

    fn capacity(&self) -> usize {
        let checks = usize::try_from(self.config.budgets.checks_at_once.0).unwrap_or(1);
        // A check that waits for sockets would hold its slot and its reservation.
        checks.min(own::checks_at_once())
    }

    fn save(&mut self) {
        if let Err(error) = self.book.save() {
            tracing::error!(%error, "the state file can't be written");
            self.recorder
                .write(|store| store.counters.state_errors += 1);
        }
    }

    // ---- targets --------------------------------------------------------------------------------

    /// Applies the configuration and the images of pods.
    fn apply(&mut self) {
        let now = self.clock.now();
        let targets = Target::all(&self.config, &self.wanted);
        self.book.share_among(&targets);
        self.recorder.write(|store| {
            store.replace(targets.clone(), &self.config.history);
            store.network = self.world.network();
            store.proxies = self.world.proxies().clone();
            if self.config.kubernetes.discover == Discover::Node {
                store.cluster.get_or_insert_default();
            }
        });
        let bytes = &self.book.ledger().bytes;
        let tasks = targets.iter().map(|target| Planned {
            target: Arc::clone(&target.name),
            rhythm: self.coordinator.own(target.rhythm),
            last_transfer: bytes.last_transfer(&target.name),
            has_result: self.recorder.has_result(&target.name),
        });
        let first = self.config.schedule.first_check.0;
        self.timetable
            .replace(tasks.collect::<Vec<_>>(), first, now);
        let has = |name: &str| targets.iter().any(|target| &*target.name == name);
        let is_used = |name: &str| {
            self.on_demand.pace.knows(name)
                || targets.iter().any(|target| &*target.registry == name)
        };
        let cooldown = self.coordinator.cooldown();
        self.book.ledger_mut().tidy(&has, &is_used, cooldown, now);
        self.recorder.forget_hops(has);
        let rejected = &self.book.ledger().cooldown;
        self.coordinator.replace(&targets, rejected, now);
        self.show_leases();
        self.show(None);
    }

    /// Updates the targets after a change of this node's pods or Node.
    fn discover(&mut self) {
        self.check_changed_secrets();
        let own_node = self.cluster.newest_node();
        self.recorder.write(|store| store.own_node = own_node);
        let Some((discovery, failing)) = self.cluster.newest_pods(&self.wanted) else {
            return;
        };
        // Before the first list after a reload, the images known before it stay.
        if discovery.state == watch::WatchState::Unknown {
            return;
        }
        let wanted = discovery.found.wanted.clone();
        let crowded = discovery.found.crowded_namespaces();
        let crowded: BTreeSet<String> = crowded.into_iter().map(str::to_owned).collect();
        if crowded != self.crowded {
            tracing::warn!(namespaces = ?crowded, "these want more than their share of kubernetes.max_targets, and their pods wait for images that are not checked");
            self.crowded = crowded;
        }
        self.cluster
            .publish_crowded(&discovery.found, &self.reload.node);
        self.recorder.write(|store| store.cluster = Some(discovery));
        if wanted != self.wanted {
            self.wanted = wanted;
            self.cluster.need_secrets_of(&self.wanted);
            self.apply();
        }
        // A pod waits, so its image is checked soon.
        let now = self.clock.now();
        for name in self.recorder.waited_for(&failing) {
            self.timetable.hasten_reach(&name, now);
            self.show(Some(&name));
        }
    }

    /// What waits with a Secret that has changed is checked at once: the kubelet reads it at its next pull.
    fn check_changed_secrets(&mut self) {
        let changed = self.cluster.secrets.take_changed();
        let now = self.clock.now();
        for name in self.recorder.waiting_with(&changed) {
            self.timetable.hasten_for_secret(&name, now);
            self.show(Some(&name));
        }
    }

    /// Updates budgets and the time of the next check: of one target, or of all.
    fn show(&self, only: Option<&str>) {
        let status = self.book.status(&self.config, self.clock.now());
        self.recorder.write(|store| {
            store.limits = status;
            store.counters.running = self.executor.count();
            let show = |watched: &mut Watched| {
                let next = self.next_of(&watched.target.name, &watched.target);
                watched.next = next.and_then(Moment::timestamp);
            };
            match only {
                Some(name) => store.targets.get_mut(name).into_iter().for_each(show),
                None => store.targets.values_mut().for_each(show),
            }
        });
    }

    fn next_of(&self, name: &str, target: &Target) -> Option<Moment> {
        let own = Tier::ALL
            .into_iter()
            .filter_map(|tier| self.timetable.next_of(name, tier));
        own.chain(self.coordinator.next_of(target)).min()
    }

    /// Updates whether Leases are usable.
    fn show_leases(&self) {
        let access = self.coordinator.access();
        self.recorder.write(|store| store.leases = access);
    }

    // ---- commands -------------------------------------------------------------------------------

    async fn handle(&mut self, command: Command) {
        match command {
            Command::Reload(done) => {
                let _ = done.send(self.read_again().await);
            }
            Command::Check { target, tier, done } => self.begin_requested(target, tier, done),
            Command::Probe { request, done } => self.begin_on_demand(&request, done),
            Command::Known { request, done } => {
                let _ = done.send(self.known(&request));
            }
        }
    }

    /// Reloads the configuration; an invalid one changes nothing.
    async fn read_again(&mut self) -> Result<(), String> {
        let now = Timestamp::now();
        let prepared = self.reload.again(&self.config, &self.cluster).await;
        let result = match prepared {
            Ok(prepared) => {
                self.put_in_force(prepared);
                Ok(())
            }
            Err(error) => Err(error.to_string()),
        };
        self.recorder
            .write(|store| store.reload.again(result.clone(), now));
        result
    }

    fn put_in_force(&mut self, prepared: Prepared) {
        let Prepared {
            world,
            cluster,
            coordinator,
            config,
        } = prepared;
        let at_start =
            |config: &Config| (config.state_dir.clone(), config.state_size, config.listen);
        if at_start(&config) != at_start(&self.config) {
            tracing::warn!(
                "changes of the listen addresses, state_dir and state_size take effect at the next start"
            );
        }
        self.world = Arc::new(world);
        self.config = config;
        if let Some(cluster) = cluster {
            self.cluster = cluster;
            let kubernetes = &self.config.kubernetes;
            if kubernetes.discover == Discover::Off {
                self.wanted.clear();
            }
            self.recorder.write(|store| {
                if kubernetes.discover == Discover::Off {
                    store.cluster = None;
                }
                if !kubernetes.follows_node() {
                    store.own_node = None;
                }
            });
            self.cluster.need_secrets_of(&self.wanted);
        }
        if let Some(coordinator) = coordinator {
            self.coordinator.become_as(coordinator);
        }
        self.apply();
    }

    fn begin_requested(&mut self, target: Arc<str>, tier: Tier, done: CheckReply) {
        let now = self.clock.now();
        let is_busy =
            self.executor.count() >= self.capacity() || self.executor.is_checking(&target);
        let due = Due {
            target,
            tier,
            at: now,
        };
        let admitted = match self.recorder.target(&due.target) {
            None => Err(Refused::NoSuchTarget),
            Some(_) if is_busy => Err(Refused::Busy),
            Some(_) => self
                .admit(&due, now)
                .map_err(|(deferred, _)| Refused::Deferred(deferred)),
        };
        match admitted {
            Ok(admitted) => self.begin(due, admitted, Some(done), None),
            Err(refused) => {
                let _ = done.send(Err(refused));
            }
        }
    }

    // ---- checks ---------------------------------------------------------------------------------

    fn begin_due(&mut self) {
        let now = self.clock.now();
        if self.begin_slot(now) {
            return;
        }
        let Some(due) = self.timetable.take(now) else {
            return;
        };
        if self.executor.is_checking(&due.target) {
            // A command requested it just now.
            self.timetable.postpone(&due, now.after(AFTER_DEMAND));
            return;
        }
        match self.admit(&due, now) {
            Ok(admitted) => self.begin(due, admitted, None, None),
            Err((deferred, then)) => {
                match then {
                    NextAttempt::Later(until) => self.timetable.postpone(&due, until),
                    NextAttempt::NextTime(not_before) => {
                        self.timetable.done(&due, now, not_before);
                    }
                }
                self.recorder.write(|store| {
                    store.skipped(deferred.reason);
                    // A deferred transfer test does not concern whether a pull would succeed.
                    if due.tier != Tier::Transfer
                        && let Some(watched) = store.targets.get_mut(&due.target)
                    {
                        watched.history.deferred = Some(deferred);
                    }
                });
                self.show(Some(&due.target));
            }
        }
    }

    /// Begins the transfer test whose slot is due. `false`: no slot is due.
    fn begin_slot(&mut self, now: Moment) -> bool {
        let Some((registry, slot)) = self.coordinator.slots.take(now) else {
            return false;
        };
        let Some(egress) = self.recorder.egress(&registry) else {
            self.skip_slot(&registry, SkipReason::NoPath.as_str(), now);
            return true;
        };
        let bytes = &self.book.ledger().bytes;
        let Some(target) = self.recorder.longest_untested(&registry, bytes) else {
            self.coordinator.slots.done(&registry, now);
            return true;
        };
        if self.executor.is_checking(&target.name) {
            self.coordinator
                .slots
                .later(&registry, now.after(AFTER_DEMAND));
            return true;
        }
        let due = Due {
            target: Arc::clone(&target.name),
            tier: Tier::Transfer,
            at: slot.at,
        };
        let last = bytes.last_transfer(&target.name);
        match self.admit(&due, now) {
            Ok(admitted) => {
                let taken = TakenSlot {
                    group: LeaseGroup::of_path(&registry, &egress, &self.coordinator.slots.rule),
                    registry,
                    slot,
                    last,
                };
                self.begin(due, admitted, None, Some(taken));
            }
            Err((deferred, NextAttempt::Later(until))) if until < slot.end() => {
                self.recorder.write(|store| store.skipped(deferred.reason));
                self.coordinator.slots.later(&registry, until);
            }
            Err((deferred, _)) => self.skip_slot(&registry, deferred.reason, now),
        }
        true
    }

    fn skip_slot(&mut self, registry: &str, reason: &'static str, now: Moment) {
        self.coordinator.slots.done(registry, now);
        self.recorder.write(|store| store.skipped(reason));
    }

    /// Reserves what a check of a target may need.
    fn admit(
        &mut self,
        due: &Due,
        now: Moment,
    ) -> Result<(Arc<Target>, Option<Reserved>), (Deferred, NextAttempt)> {
        let Some(target) = self.recorder.target(&due.target) else {
            let deferred = Deferred {
                reason: "gone",
                until: None,
            };
            return Err((deferred, NextAttempt::NextTime(None)));
        };
        let reserved = self.reserve(&target, due, now)?;
        Ok((target, reserved))
    }

    fn reserve(
        &mut self,
        target: &Target,
        due: &Due,
        now: Moment,
    ) -> Result<Option<Reserved>, (Deferred, NextAttempt)> {
        let budgets = &self.config.budgets;
        let is_testing = self.executor.is_testing() || self.on_demand.is_testing();
        let reserved = self.book.admit(budgets, due, target, is_testing, now)?;
        if reserved.is_some() {
            // Saved before it is spent.
            self.save();
        }
        Ok(reserved)
    }

    fn begin(
        &mut self,
        due: Due,
        (target, reserved): (Arc<Target>, Option<Reserved>),
        reply: Option<CheckReply>,
        slot: Option<TakenSlot>,
    ) {
        let now = self.clock.now();
        let cooldown = self.coordinator.cooldown();
        let of = Arc::clone(&target);
        let budgets = &self.config.budgets;
        let job = self.book.job(budgets, &due, reserved, of, cooldown, now);
        let job = self.recorder.complete(job);
        let lease = slot.as_ref();
        let lease = lease.and_then(|taken| self.coordinator.ask(taken, now));
        let mut underway = Underway::new(due, target, reserved, now);
        (underway.reply, underway.slot) = (reply, slot);
        underway.free = underway.free.max(self.full_until);
        let limit = self.config.schedule.check_timeout.0;
        self.executor
            .begin(&self.world, job, limit, lease, underway);
    }

    fn finish(&mut self, mut underway: Underway, ended: Ended) {
        let now = self.clock.now();
        if self.executor.count() + 1 >= self.capacity() {
            self.full_until = now;
        }
        if let Some(slot) = underway.slot.take() {
            self.finish_slot(&underway, &slot, ended.answer, now);
        }
        let Some(result) = ended.result else {
            self.show(Some(&underway.due.target));
            return;
        };
        let due = &underway.due;
        let (target_name, tier) = (&*due.target, due.tier.as_str());
        let took = now.since(underway.began).saturating_sub(ended.lease_wait);
        if let Err(outcome) = &result {
            let outcome = outcome.as_str();
            tracing::error!(target_name, tier, outcome, "a check has no result");
        }
        let (summary, not_before) = self.settle(&underway, &result, now);
        if self.recorder.is_current(&underway.target) {
            self.timetable.has_result(&due.target, now);
        }
        if underway.reply.is_none() {
            let missed = self.timetable.done(due, now, not_before);
            self.recorder.write(|store| store.counters.missed += missed);
        }
        if let Ok(result) = &result {
            self.hand_on(result, &underway, now);
        }
        let vantage = self.world.last_vantage();
        let outcome = recorder::outcome(&result);
        let (run, changes) = self
            .recorder
            .record(&underway, &result, summary, took, vantage);
        tracing::debug!(
            target_name,
            tier,
            outcome = outcome.as_str(),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "checked"
        );
        if let Some(changes) = changes {
            log_changes(&underway, &changes);
            if changes.is_path_new && due.tier != Tier::Path {
                self.timetable.hasten_path(target_name, now);
            }
        }
        self.show(Some(target_name));
        if let Some(reply) = underway.reply {
            let _ = reply.send(match outcome {
                Outcome::Verdict(_) => Ok(run),
                other => Err(Refused::Failed(other.as_str())),
            });
        }
    }

    /// Books what a check has spent and the registry's answer. Returns its summary, and the earliest time of the
    /// next check.
    fn settle(
        &mut self,
        underway: &Underway,
        result: &Result<CheckResult, Outcome>,
        now: Moment,
    ) -> (Option<RunSummary>, Option<Moment>) {
        let result = result.as_ref().ok();
        let summary = result.map(|result| RunSummary::of(&result.report));
        let not_before = self.book.settle(
            &self.config.budgets,
            &underway.target,
            underway.reserved,
            result.zip(summary.as_ref()),
            now,
        );
        (summary, not_before)
    }

    /// Reports credentials to other nodes, and the result to pods that wait.
    fn hand_on(&mut self, result: &CheckResult, underway: &Underway, now: Moment) {
        self.coordinator.checked(
            &underway.target.registry,
            result.accepted.as_ref(),
            &result.rejected,
            &self.book.ledger().cooldown,
            now,
        );
        if let Some(target) = self.recorder.target(&underway.due.target)
            && self.recorder.is_current(&underway.target)
        {
            let node = &self.reload.node;
            self.cluster.publish(&result.report, &target, node);
        }
    }

    /// Ends a slot that was used or skipped.
    fn finish_slot(
        &mut self,
        underway: &Underway,
        slot: &TakenSlot,
        answer: Option<Answer>,
        now: Moment,
    ) {
        if let Some(answer) = &answer {
            self.recorder.write(|store| match answer.decision {
                Decision::Test => {
                    *store.counters.slots.entry(answer.by.as_str()).or_default() += 1;
                }
                Decision::Skip(why) => store.skipped(why.as_str()),
                Decision::Later(_) => {}
            });
            if let Some(reserved) = underway.reserved.filter(|_| !answer.is_allowed()) {
                let budgets = &self.config.budgets;
                self.book
                    .give_back(budgets, &underway.target, reserved, slot.last, now);
            }
        }
        self.coordinator.answered(slot, answer, now);
        self.show_leases();
    }

    // ---- images on demand -----------------------------------------------------------------------

    /// Checks an image on request, if it is allowed.
    fn begin_on_demand(&mut self, request: &Request, reply: ProbeReply) {
        let now = self.clock.now();
        match self.admit_on_demand(request, now) {
            Ok(underway) => {
                let (target, cooldown) =
                    (Arc::clone(&underway.target), self.coordinator.cooldown());
                let budgets = &self.config.budgets;
                let job = self.book.job(
                    budgets,
                    &underway.due,
                    underway.reserved,
                    target,
                    cooldown,
                    now,
                );
                let limit = self.config.schedule.check_timeout.0;
                self.on_demand.begin(
                    &self.world,
                    job,
                    limit,
                    underway,
                    request.namespace(),
                    reply,
                );
            }
            Err(refused) => {
                self.count_on_demand(refused.as_str());
                let _ = reply.send(Err(refused));
            }
        }
    }

    /// What an on-demand check would check, if the configuration allows it.
    fn plan_on_demand(&self, request: &Request) -> Result<Target, images::Refused> {
        let view = self.cluster.pods();
        let pods = match &view {
            None => Err(images::NOT_WATCHED),
            Some(view) if view.state == watch::WatchState::Unknown => Err(images::NOT_LISTED),
            Some(view) => Ok(view.objects.values().map(|pod| &**pod).collect()),
        };
        images::plan(request, &self.config, &self.recorder.targets(), &pods)
    }

    /// The newest report of a scheduled check of the same pull.
    fn known(&self, request: &Request) -> Result<Option<Box<Report>>, images::Refused> {
        let planned = self.plan_on_demand(request)?;
        Ok(self.recorder.newest_report(&planned).map(Box::new))
    }

    fn admit_on_demand(
        &mut self,
        request: &Request,
        now: Moment,
    ) -> Result<Underway, images::Refused> {
        let target = self.plan_on_demand(request)?;
        self.on_demand
            .may(self.config.on_demand.per_minute.0, request.namespace(), now)?;
        let due = Due {
            target: Arc::clone(&target.name),
            tier: request.tier,
            at: now,
        };
        let reserved = self
            .reserve(&target, &due, now)
            .map_err(|(deferred, _)| images::Refused::Deferred(deferred))?;
        Ok(Underway::new(due, Arc::new(target), reserved, now))
    }

    fn finish_on_demand(
        &mut self,
        underway: &Underway,
        result: Result<CheckResult, Outcome>,
        reply: ProbeReply,
    ) {
        self.settle(underway, &result, self.clock.now());
        let outcome = recorder::outcome(&result);
        let vantage = self.world.last_vantage();
        self.recorder.write(|store| {
            store.counters.panics += u64::from(outcome == Outcome::Panicked);
            store.vantage = vantage;
        });
        let outcome = outcome.as_str();
        self.count_on_demand(outcome);
        let image = &underway.target.reference;
        tracing::info!(%image, outcome, "checked on demand");
        let report = result.map(|result| Box::new(result.report));
        let _ = reply.send(report.map_err(|outcome| images::Refused::Failed(outcome.as_str())));
    }

    fn count_on_demand(&self, outcome: &'static str) {
        self.recorder
            .write(|store| *store.counters.on_demand.entry(outcome).or_default() += 1);
    }
}

/// Waits until a moment; forever without one.
async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Logs one line for each change.
fn log_changes(underway: &Underway, changes: &Changes) {
    let (target_name, registry) = (&*underway.due.target, &*underway.target.registry);
    for finding in &changes.appeared {
        tracing::info!(
            target_name,
            registry,
            cause = finding.cause.code(),
            severity = ?finding.severity,
            confidence = finding.confidence.as_str(),
            leg = finding.leg.map(Role::as_str),
            evidence = finding.evidence.first(),
            hint = finding.hint,
            "finding appeared"
        );
    }
    for cause in &changes.gone {
        tracing::info!(target_name, registry, cause, "finding gone");
    }
    for (leg, before, after) in &changes.classes {
        tracing::info!(
            target_name,
            registry,
            leg = leg.as_str(),
            before = before.as_str(),
            after = after.as_str(),
            "the path class changed"
        );
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    /// A registry on a closed port of loopback: no packet leaves this host.
    fn config(more: &str) -> Config {
        Config::parse(&format!(
            "network: {{metadata: off}}\nschedule: {{first_check: 1h}}\ntargets:\n  - {{name: panics, image: '127.0.0.1:1/a:1', plain_http: true}}\n  - {{name: fails, image: '127.0.0.1:1/b:1', plain_http: true}}\n{more}\n"
        ))
        .unwrap()
    }

    async fn check(commands: &mpsc::Sender<Command>, target: &str) -> Result<u64, Refused> {
        let (done, answer) = oneshot::channel();
        let command = Command::Check {
            target: Arc::from(target),
            tier: Tier::Reach,
            done,
        };
        commands.send(command).await.unwrap();
        answer.await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_ends_one_check_and_is_counted() {
        let load: Loader<Config> = Box::new(|| Err("not requested".to_owned()));
        let runner = Runner::start("n1".to_owned(), config(""), load)
            .await
            .unwrap();
        let store = runner.store();
        let (commands, received) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let running = tokio::spawn(runner.run(received, stop.clone()));
        assert_eq!(
            check(&commands, "panics").await,
            Err(Refused::Failed("panicked"))
        );
        assert!(check(&commands, "fails").await.is_ok(), "the others go on");
        assert_eq!(
            check(&commands, "unknown").await,
            Err(Refused::NoSuchTarget)
        );
        {
            let store = store.read().unwrap();
            assert_eq!(store.counters.panics, 1);
            let history = |name: &str| &store.targets[name].history;
            assert_eq!(
                history("panics").newest().unwrap().outcome,
                Outcome::Panicked
            );
            assert_eq!(history("panics").is_ready(), None);
            assert_eq!(history("fails").is_ready(), Some(false));
            assert_eq!(store.counters.running, 0);
        }
        stop.cancel();
        running.await.unwrap();
    }
}
