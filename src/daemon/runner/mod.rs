//! The loop of the daemon: takes what is due, makes checks side by side, books what they spend, and
//! puts what they tell where others can see it.

mod sharing;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{Id, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use super::check::{self, Job, Told, World, WorldError};
use super::cluster::{Cluster, Seen};
use super::face::Face;
use super::fleet::{ClusterFace, Fleet, OwnNode, Shown, Watched};
use super::large_hello::LargeHellos;
use super::ledger::{Answered, Limits, Reserved};
use super::notices::Tally;
use super::on_demand::{self, Pace, Pods, Wish};
use super::packed::{Packed, Packer};
use super::policy::{self, Heard, Then};
use super::record::{Changes, HeldBack, Keep, Outcome, Run};
use super::schedule::{Due, Moment, Schedule, Tier};
use super::spread::Answer;
use super::state::{State, StateFile};
use super::target::Target;
use crate::config::{Config, Discover};
use crate::kubernetes::client::ConnectError;
use crate::kubernetes::follow;
use crate::model::endpoint::Role;
use crate::model::hops::Trace;
use crate::model::units::Bytes;
use crate::model::workload::ContainerKind;
use crate::net::machine;
use crate::net::netlink::Netlink;
use crate::probe::KnownManifests;
use crate::report::Report;
use crate::workload::discovery::Wanted;
use sharing::{Sharing, Taken};

/// A check that is due while one is made on demand waits for so long.
const AFTER_DEMAND: Duration = Duration::from_secs(5);

/// What has changed is written at least this often.
const SAVE_EVERY: Duration = Duration::from_secs(30);

/// A check that began later than this had too little of the processor.
const STARVED_LAG: Duration = Duration::from_secs(1);

/// The share of its time that the limit of processors may take from a check.
const STARVED_SHARE: f64 = 0.05;

/// Others look at it while it is written.
pub type Shared = Arc<RwLock<Fleet>>;

/// What the runner is asked for.
#[derive(Debug)]
pub enum Order {
    /// Read the configuration again; what came of it.
    Reload(oneshot::Sender<Result<(), String>>),
    /// Check a target now.
    Check {
        target: Arc<str>,
        tier: Tier,
        done: oneshot::Sender<Result<u64, Refused>>,
    },
    /// Check an image now, which no target may have.
    Probe { wish: Box<Wish>, done: Reply },
}

/// What came of an image that somebody asked for.
pub type Reply = oneshot::Sender<Result<Box<Report>, on_demand::Refused>>;

/// Why a check is not made now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Refused {
    NoSuchTarget,
    /// It is being checked, or too many are.
    Busy,
    /// A budget does not allow it, or a registry asked to be left alone.
    HeldBack(HeldBack),
    /// It told nothing: it timed out, or ended abnormally.
    Failed(&'static str),
}

/// Reads and checks the configuration; the error is for people.
pub type Loader = Box<dyn Fn() -> Result<Config, String> + Send + Sync>;

/// Time since the epoch, as it was at the start and has passed since: it never goes back.
#[derive(Clone, Copy, Debug)]
struct Clock {
    start: Instant,
    epoch: Duration,
}

impl Clock {
    fn begin() -> Self {
        let epoch = Duration::try_from(Timestamp::now().duration_since(Timestamp::UNIX_EPOCH));
        Self {
            start: Instant::now(),
            epoch: epoch.unwrap_or_default(),
        }
    }

    fn now(&self) -> Moment {
        Moment(self.epoch + self.start.elapsed())
    }

    fn instant(&self, at: Moment) -> Instant {
        self.start + at.0.saturating_sub(self.epoch)
    }
}

fn timestamp(at: Moment) -> Option<Timestamp> {
    Timestamp::from_second(i64::try_from(at.0.as_secs()).ok()?).ok()
}

/// The loop's own things.
pub struct Runner {
    node: String,
    clock: Clock,
    load: Loader,
    config: Config,
    world: Arc<World>,
    netlink: Option<Arc<Netlink>>,
    known: Arc<KnownManifests>,
    large_hellos: Arc<Mutex<LargeHellos>>,
    cluster: Cluster,
    events: Tally,
    /// What pods want, as it was known last.
    wanted: Vec<Wanted>,
    schedule: Schedule,
    sharing: Sharing,
    state: State,
    file: Option<StateFile>,
    limits: Limits,
    fleet: Shared,
    running: JoinSet<Back>,
    underway: BTreeMap<Id, Underway>,
    /// The one that somebody asked for, besides those.
    asked: JoinSet<Result<Told, Outcome>>,
    asking: Option<(Underway, Reply)>,
    pace: Pace,
    hops: BTreeMap<Arc<str>, Vec<(Role, Trace)>>,
    packer: Packer,
    unsaved: bool,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// A check that is being made.
struct Underway {
    due: Due,
    target: Arc<Target>,
    began: Moment,
    at: Timestamp,
    reserved: Option<Reserved>,
    throttled: Option<Duration>,
    is_on_demand: bool,
    done: Option<oneshot::Sender<Result<u64, Refused>>>,
    /// Where transfer tests are shared with other nodes: its turn.
    taken: Option<Taken>,
}

/// What a check comes back with.
struct Back {
    /// Whether the Lease allowed it, where that was asked.
    answer: Option<Answer>,
    /// How long that took.
    asked_for: Duration,
    /// `None`: it was not.
    made: Option<Result<Told, Outcome>>,
}

/// A configuration that can be put in force, and what is made anew for it.
struct Prepared {
    world: World,
    cluster: Option<Cluster>,
    sharing: Option<Sharing>,
    config: Config,
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    World(#[from] WorldError),
    #[error(transparent)]
    Cluster(#[from] ConnectError),
    #[error(
        "the folder for what must outlive a restart, {path}, can't be used: {source}; correct state_dir"
    )]
    StateDir {
        path: String,
        #[source]
        source: std::io::Error,
    },
}

impl Runner {
    /// Sets all up; checks nothing yet.
    ///
    /// # Errors
    /// When a file or folder that the configuration names can't be used.
    pub async fn start(node: String, config: Config, load: Loader) -> Result<Self, StartError> {
        let clock = Clock::begin();
        let netlink = crate::surroundings::place::Place::netlink().await;
        let (file, known) = match &config.state_dir {
            None => (None, KnownManifests::default()),
            Some(folder) => in_folder(folder)?,
        };
        let (state, aside) = match &file {
            Some(file) => file.load(&node),
            None => (State::new(&node), None),
        };
        if let Some(reason) = aside {
            tracing::warn!(reason, "what was known before the start is not used");
        }
        let known = Arc::new(known);
        let large_hellos = Arc::new(Mutex::new(LargeHellos::new(&node)));
        let events = Tally::default();
        let cluster = Cluster::start(&config.kubernetes, &node, Arc::clone(&events)).await?;
        let sharing = Sharing::start(&config, &node).await?;
        let world = World::load(
            &config,
            netlink.clone(),
            Arc::clone(&known),
            cluster.secrets(),
            cluster.own_node(),
            cluster.own_pod(),
            Arc::clone(&large_hellos),
        )?;
        let world = Arc::new(world);
        let mut fleet = Fleet::new(&node, world.network(), Timestamp::now());
        fleet.counters.events = Arc::clone(&events);
        let mut runner = Self {
            schedule: Schedule::new(&node),
            sharing,
            limits: limits(&config),
            node,
            clock,
            load,
            world,
            netlink,
            known,
            large_hellos,
            cluster,
            events,
            wanted: Vec::new(),
            state,
            file,
            fleet: Arc::new(RwLock::new(fleet)),
            running: JoinSet::new(),
            underway: BTreeMap::new(),
            asked: JoinSet::new(),
            asking: None,
            pace: Pace::default(),
            hops: BTreeMap::new(),
            packer: Packer::default(),
            unsaved: false,
            config,
        };
        runner.apply();
        Ok(runner)
    }

    /// What others may look at.
    pub fn fleet(&self) -> Shared {
        Arc::clone(&self.fleet)
    }

    /// Checks until it is told to stop, and then for as long as the grace allows.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        let mut save = tokio::time::interval(SAVE_EVERY);
        loop {
            let room = self.running.len() < self.places();
            let next = self.schedule.next().into_iter().chain(self.sharing.next());
            let wake = next.min().filter(|_| room);
            let wake = wake.map(|at| self.clock.instant(at));
            let retry = self.sharing.next_retry();
            let retry = retry.map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(joined) = self.running.join_next_with_id(), if !self.running.is_empty() => {
                    self.finish(joined);
                }
                Some(joined) = self.asked.join_next(), if !self.asked.is_empty() => {
                    self.finish_asked(joined);
                }
                Some(order) = orders.recv() => self.obey(order).await,
                () = self.cluster.changed() => self.discover(),
                asked = self.sharing.asked() => self.end_retry(asked),
                () = sleep_until(retry.unwrap_or_else(Instant::now)), if retry.is_some() => self.ask_for_retry(),
                _ = save.tick() => self.save(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.begin_due(),
            }
        }
        self.drain().await;
    }

    async fn drain(mut self) {
        let grace = self.config.schedule.grace.0;
        tracing::info!(
            running = self.running.len(),
            ?grace,
            "stopping: checks under way may end"
        );
        let end = Instant::now() + grace;
        while !self.running.is_empty() {
            tokio::select! {
                Some(joined) = self.running.join_next_with_id() => self.finish(joined),
                () = sleep_until(end) => break,
            }
        }
        let left = self.running.len();
        self.running.shutdown().await;
        self.asked.shutdown().await;
        tokio::select! {
            () = self.sharing.told() => {}
            () = sleep_until(end) => {}
        }
        self.unsaved = true;
        self.save();
        tracing::info!(given_up = left, "stopped");
    }

    fn places(&self) -> usize {
        usize::try_from(self.config.budgets.checks_at_once.0).unwrap_or(1)
    }

    fn with_fleet<T>(&self, act: impl FnOnce(&mut Fleet) -> T) -> T {
        act(&mut self.fleet.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts the configuration in force.
    fn apply(&mut self) {
        let now = self.clock.now();
        let targets = Target::all(&self.config, &self.wanted);
        let tasks = targets.iter().map(|target| {
            let last = self.state.ledger.last_transfer(&target.name);
            let rhythm = self.sharing.own(target.rhythm);
            (Arc::clone(&target.name), rhythm, last)
        });
        self.schedule.replace(tasks.collect::<Vec<_>>(), now);
        self.limits = limits(&self.config);
        let history = &self.config.history;
        let keep = Keep {
            runs: history.runs.0 as usize,
            failures: history.failures.0 as usize,
        };
        let memory = usize::try_from(history.memory.0.0).unwrap_or(usize::MAX);
        let has = |name: &str| targets.iter().any(|target| &*target.name == name);
        let asks = |name: &str| {
            self.pace.knows(name) || targets.iter().any(|target| &*target.registry == name)
        };
        let rest = self.sharing.rest();
        self.state.ledger.tidy(&has, &asks, rest, now);
        self.hops.retain(|name, _| has(name));
        self.with_fleet(|fleet| {
            fleet.replace(targets.clone(), keep, memory);
            fleet.network = self.world.network();
            fleet.proxies = self.world.proxies().clone();
        });
        self.share(&targets, now);
        self.show_spread();
        self.show();
    }

    /// Takes up what the pods of this node want now.
    fn discover(&mut self) {
        let own_node = self.cluster.look_at_node();
        self.with_fleet(|fleet| fleet.own_node = own_node.map(OwnNode::of));
        let Some(Seen {
            found,
            failing,
            state,
        }) = self.cluster.look()
        else {
            return;
        };
        // Before the first list nothing is known, and what was known before a change of the
        // configuration is not to be forgotten for that.
        if state == follow::State::Unknown {
            return;
        }
        self.with_fleet(|fleet| fleet.cluster = Some(ClusterFace::of(&found, &state)));
        if found.wanted != self.wanted {
            self.wanted = found.wanted;
            self.cluster.need_secrets_of(&self.wanted);
            self.apply();
        }
        // Somebody waits: it is not left to its turn.
        let now = self.clock.now();
        for name in self.targets_of(&failing) {
            self.schedule.hasten_reach(&name, now);
            self.show_one(&name);
        }
    }

    /// Those that one of these containers (namespace, pod, kind, name) wants.
    fn targets_of(&self, containers: &[(String, String, ContainerKind, String)]) -> Vec<Arc<str>> {
        if containers.is_empty() {
            return Vec::new();
        }
        let fleet = self.fleet.read().unwrap_or_else(PoisonError::into_inner);
        let wants = |watched: &Watched| {
            watched.target.uses.iter().any(|one| {
                containers.iter().any(|(namespace, pod, kind, container)| {
                    one.waits
                        && one.namespace == *namespace
                        && one.pod == *pod
                        && one.kind == *kind
                        && one.container == *container
                })
            })
        };
        let all = fleet.targets.iter().filter(|(_, watched)| wants(watched));
        all.map(|(name, _)| Arc::clone(name)).collect()
    }

    /// Figures of the book, and when each target's turn is.
    fn show(&self) {
        let now = self.clock.now();
        let shown = Shown {
            bytes_left: self.state.ledger.bytes_left(&self.limits, now),
            bytes_a_day: self.limits.node_bytes_per_day,
            declared: self
                .config
                .network
                .declared()
                .eip_bandwidth_mbit
                .map(|mbit| f64::from(u32::try_from(mbit).unwrap_or(u32::MAX)) * 1e6 / 8.0),
        };
        self.with_fleet(|fleet| {
            fleet.limits = shown;
            fleet.counters.running = self.running.len();
            for (name, watched) in &mut fleet.targets {
                watched.next = self.next_of(name, &watched.target).and_then(timestamp);
            }
        });
    }

    fn show_one(&self, name: &str) {
        let left = self.state.ledger.bytes_left(&self.limits, self.clock.now());
        self.with_fleet(|fleet| {
            fleet.limits.bytes_left = left;
            fleet.counters.running = self.running.len();
            if let Some(watched) = fleet.targets.get_mut(name) {
                watched.next = self.next_of(name, &watched.target).and_then(timestamp);
            }
        });
    }

    fn next_of(&self, name: &str, target: &Target) -> Option<Moment> {
        let own = Tier::ALL
            .into_iter()
            .filter_map(|tier| self.schedule.next_of(name, tier));
        own.chain(self.sharing.next_of(target)).min()
    }

    async fn obey(&mut self, order: Order) {
        match order {
            Order::Reload(done) => {
                let _ = done.send(self.reload().await);
            }
            Order::Check { target, tier, done } => self.begin_on_demand(&target, tier, done),
            Order::Probe { wish, done } => self.begin_asked(&wish, done),
        }
    }

    /// Reads the configuration again; a bad one changes nothing.
    async fn reload(&mut self) -> Result<(), String> {
        let now = Timestamp::now();
        let told = match (self.load)() {
            Ok(config) => self.prepare(config).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(Prepared {
                world,
                cluster,
                sharing,
                config,
            }) => {
                if config.state_dir != self.config.state_dir || config.listen != self.config.listen
                {
                    tracing::warn!("listen addresses and state_dir count from the next start on");
                }
                self.world = Arc::new(world);
                self.config = config;
                if let Some(cluster) = cluster {
                    self.cluster = cluster;
                    if self.config.kubernetes.discover == Discover::Off {
                        self.wanted.clear();
                        self.with_fleet(|fleet| fleet.cluster = None);
                    }
                    if !self.config.kubernetes.follows_node() {
                        self.with_fleet(|fleet| fleet.own_node = None);
                    }
                    self.cluster.need_secrets_of(&self.wanted);
                }
                if let Some(sharing) = sharing {
                    self.sharing.become_as(sharing);
                }
                self.apply();
                self.with_fleet(|fleet| {
                    fleet.reload.at = now;
                    fleet.reload.success_at = now;
                    fleet.reload.error = None;
                });
                tracing::info!(
                    targets = self.schedule.len(),
                    "the configuration is in force"
                );
                Ok(())
            }
            Err(error) => {
                tracing::error!(
                    error,
                    "the configuration was not taken; the one before stays in force"
                );
                self.with_fleet(|fleet| {
                    fleet.reload.at = now;
                    fleet.reload.error = Some(error.clone());
                });
                Err(error)
            }
        }
    }

    /// Everything that a configuration needs, made before the one in force is given up.
    async fn prepare(&self, config: Config) -> Result<Prepared, String> {
        let cluster = if self.cluster.is_as(&config.kubernetes) {
            None
        } else {
            let events = Arc::clone(&self.events);
            let started = Cluster::start(&config.kubernetes, &self.node, events).await;
            Some(started.map_err(|error| error.to_string())?)
        };
        let sharing = if self.sharing.is_as(&config) {
            None
        } else {
            let started = Sharing::start(&config, &self.node).await;
            Some(started.map_err(|error| error.to_string())?)
        };
        let next = cluster.as_ref().unwrap_or(&self.cluster);
        let known = Arc::clone(&self.known);
        let world = World::load(
            &config,
            self.netlink.clone(),
            known,
            next.secrets(),
            next.own_node(),
            next.own_pod(),
            Arc::clone(&self.large_hellos),
        );
        Ok(Prepared {
            world: world.map_err(|error| error.to_string())?,
            cluster,
            sharing,
            config,
        })
    }

    fn begin_due(&mut self) {
        let now = self.clock.now();
        if self.begin_turn(now) {
            return;
        }
        let Some(due) = self.schedule.take(now) else {
            return;
        };
        let name = Arc::clone(&due.target);
        if self.is_underway(&name) {
            // On demand, just now.
            self.schedule.postpone(&due, now.after(AFTER_DEMAND));
            return;
        }
        match self.may(&due, now) {
            Ok(reserved) => self.begin(due, reserved, None, None),
            Err((held_back, then)) => {
                match then {
                    Then::Later(until) => self.schedule.postpone(&due, until),
                    Then::NextTime(not_before) => {
                        self.schedule.done(&due, now, not_before);
                    }
                }
                self.with_fleet(|fleet| {
                    fleet.skipped(held_back.reason);
                    // That a transfer waits says nothing of whether a pull would succeed.
                    if due.tier != Tier::Transfer
                        && let Some(watched) = fleet.targets.get_mut(&name)
                    {
                        watched.record.held_back = Some(held_back);
                    }
                });
                self.show_one(&name);
            }
        }
    }

    fn begin_on_demand(
        &mut self,
        name: &str,
        tier: Tier,
        done: oneshot::Sender<Result<u64, Refused>>,
    ) {
        let now = self.clock.now();
        let refused = if self.target(name).is_none() {
            Some(Refused::NoSuchTarget)
        } else if self.running.len() >= self.places() || self.is_underway(name) {
            Some(Refused::Busy)
        } else {
            None
        };
        if let Some(refused) = refused {
            let _ = done.send(Err(refused));
            return;
        }
        let due = Due {
            target: Arc::from(name),
            tier,
            at: now,
        };
        match self.may(&due, now) {
            Ok(reserved) => self.begin(due, reserved, Some(done), None),
            Err((held_back, _)) => {
                let _ = done.send(Err(Refused::HeldBack(held_back)));
            }
        }
    }

    fn is_underway(&self, name: &str) -> bool {
        let mut all = self.underway.values();
        all.any(|underway| &*underway.due.target == name)
    }

    fn target(&self, name: &str) -> Option<Arc<Target>> {
        let fleet = self.fleet.read().unwrap_or_else(PoisonError::into_inner);
        fleet
            .targets
            .get(name)
            .map(|watched| Arc::clone(&watched.target))
    }

    /// Takes from the budgets what a check may need.
    fn may(&mut self, due: &Due, now: Moment) -> Result<Option<Reserved>, (HeldBack, Then)> {
        let Some(target) = self.target(&due.target) else {
            let held = HeldBack {
                reason: "gone",
                until: None,
            };
            return Err((held, Then::NextTime(None)));
        };
        self.may_ask(&target.registry, due, now)
    }

    /// The same of a registry that is known.
    fn may_ask(
        &mut self,
        registry: &str,
        due: &Due,
        now: Moment,
    ) -> Result<Option<Reserved>, (HeldBack, Then)> {
        let asked = self.asking.iter().map(|(underway, _)| underway);
        let mut all = self.underway.values().chain(asked);
        let is_transfer_under_way = all.any(|underway| underway.due.tier == Tier::Transfer);
        let reserved = policy::may(
            &mut self.state.ledger,
            &self.limits,
            self.config.budgets.transfer_bytes.0,
            due,
            registry,
            is_transfer_under_way,
            now,
        )
        .map_err(|(held, then)| {
            let until = held.until.and_then(timestamp);
            let reason = held.reason;
            (HeldBack { reason, until }, then)
        })?;
        self.unsaved = true;
        if reserved.is_some() {
            // Written before it is spent.
            self.save();
        }
        Ok(reserved)
    }

    fn begin(
        &mut self,
        due: Due,
        reserved: Option<Reserved>,
        done: Option<oneshot::Sender<Result<u64, Refused>>>,
        taken: Option<Taken>,
    ) {
        let Some(target) = self.target(&due.target) else {
            return;
        };
        let now = self.clock.now();
        let image = {
            let fleet = self.fleet.read().unwrap_or_else(PoisonError::into_inner);
            fleet
                .targets
                .get(&due.target)
                .and_then(|watched| watched.record.image)
        };
        let job = Job {
            hops: self.hops.get(&due.target).cloned().unwrap_or_default(),
            image,
            ..self.job(&due, reserved, Arc::clone(&target), now)
        };
        let world = Arc::clone(&self.world);
        let most = self.config.schedule.check_timeout.0;
        let span = tracing::info_span!(
            "check",
            target_name = &*target.name,
            registry = &*target.registry,
            tier = due.tier.as_str()
        );
        let look = taken.as_ref().and_then(|taken| self.look(taken, now));
        let made = async move {
            let began = Instant::now();
            let answer = match look {
                Some(look) => Some(look.await),
                None => None,
            };
            let mut back = Back {
                asked_for: began.elapsed(),
                made: None,
                answer,
            };
            if back.answer.as_ref().is_none_or(Answer::is_allowed) {
                let made = timeout(most, Box::pin(check::make(&world, job))).await;
                back.made = Some(made.map_err(|_| Outcome::TimedOut));
            }
            back
        };
        let handle = self.running.spawn(made.instrument(span));
        let underway = Underway {
            target,
            began: now,
            at: Timestamp::now(),
            reserved,
            throttled: machine::cpu().and_then(|cpu| cpu.throttled),
            is_on_demand: done.is_some(),
            done,
            due,
            taken,
        };
        self.underway.insert(handle.id(), underway);
    }

    /// What is to be done, as far as the book tells.
    fn job(&self, due: &Due, reserved: Option<Reserved>, target: Arc<Target>, now: Moment) -> Job {
        let ledger = &self.state.ledger;
        Job {
            tier: due.tier,
            reserved,
            resting: ledger
                .resting(self.sharing.rest(), &target.registry, now)
                .into_iter()
                .cloned()
                .collect(),
            only_free: ledger.is_low(&self.limits, &target.registry),
            hops: Vec::new(),
            image: None,
            key: self.state.key,
            now,
            target,
        }
    }

    /// Checks an image that somebody asks for, if it may be: one at a time, besides the schedule, and
    /// within the same budgets.
    fn begin_asked(&mut self, wish: &Wish, done: Reply) {
        let now = self.clock.now();
        match self.may_be_asked(wish, now) {
            Ok((due, target, reserved)) => self.ask(due, target, reserved, done, now),
            Err(refused) => {
                self.count_asked(refused.as_str());
                let _ = done.send(Err(refused));
            }
        }
    }

    fn may_be_asked(
        &mut self,
        wish: &Wish,
        now: Moment,
    ) -> Result<(Due, Arc<Target>, Option<Reserved>), on_demand::Refused> {
        let target = Arc::new(self.plan(wish)?);
        if self.asking.is_some() {
            return Err(on_demand::Refused::Busy);
        }
        self.pace
            .may(self.config.on_demand.per_minute.0, now)
            .map_err(on_demand::Refused::TooMany)?;
        let due = Due {
            target: Arc::clone(&target.name),
            tier: wish.tier,
            at: now,
        };
        let reserved = self
            .may_ask(&target.registry, &due, now)
            .map_err(|(held_back, _)| on_demand::Refused::HeldBack(held_back))?;
        self.pace.begin(&target.registry, now);
        Ok((due, target, reserved))
    }

    fn plan(&self, wish: &Wish) -> Result<Target, on_demand::Refused> {
        let view = self.cluster.pods();
        let pods = match &view {
            None => Pods::NotFollowed,
            Some(view) if view.state == follow::State::Unknown => Pods::NotHeard,
            Some(view) => Pods::Known(view.objects.values().map(|pod| &**pod).collect()),
        };
        let targets: Vec<Arc<Target>> = {
            let fleet = self.fleet.read().unwrap_or_else(PoisonError::into_inner);
            let all = fleet.targets.values();
            all.map(|watched| Arc::clone(&watched.target)).collect()
        };
        on_demand::plan(wish, &self.config, &targets, &pods)
    }

    fn ask(
        &mut self,
        due: Due,
        target: Arc<Target>,
        reserved: Option<Reserved>,
        done: Reply,
        now: Moment,
    ) {
        let job = self.job(&due, reserved, Arc::clone(&target), now);
        let world = Arc::clone(&self.world);
        let most = self.config.schedule.check_timeout.0;
        let span = tracing::info_span!(
            "on demand",
            image = %target.reference,
            tier = due.tier.as_str()
        );
        let made = async move {
            let _lent = world.lend_secrets(&job.target).await;
            timeout(most, Box::pin(check::make(&world, job)))
                .await
                .map_err(|_| Outcome::TimedOut)
        };
        self.asked.spawn(made.instrument(span));
        let underway = Underway {
            target,
            began: now,
            at: Timestamp::now(),
            reserved,
            throttled: None,
            is_on_demand: true,
            done: None,
            taken: None,
            due,
        };
        self.asking = Some((underway, done));
    }

    fn finish_asked(&mut self, joined: Result<Result<Told, Outcome>, tokio::task::JoinError>) {
        let Some((underway, done)) = self.asking.take() else {
            return;
        };
        let now = self.clock.now();
        let told = joined.unwrap_or(Err(Outcome::Panicked));
        let face = told.as_ref().ok().map(|told| Face::of(&told.report));
        self.book(&underway, told.as_ref().ok(), face.as_ref(), now);
        let outcome = match &told {
            Ok(told) => Outcome::Told(told.report.verdict.pull),
            Err(outcome) => *outcome,
        };
        let vantage = self.world.last_seen();
        self.with_fleet(|fleet| {
            fleet.counters.panics += u64::from(outcome == Outcome::Panicked);
            fleet.vantage = vantage;
        });
        self.count_asked(outcome.as_str());
        tracing::info!(
            image = %underway.target.reference,
            outcome = outcome.as_str(),
            "checked on demand"
        );
        let _ = done.send(
            told.map(|told| Box::new(told.report))
                .map_err(|outcome| on_demand::Refused::Failed(outcome.as_str())),
        );
    }

    fn count_asked(&self, outcome: &'static str) {
        self.with_fleet(|fleet| *fleet.counters.on_demand.entry(outcome).or_default() += 1);
    }

    fn finish(&mut self, joined: Result<(Id, Back), tokio::task::JoinError>) {
        let (id, back) = joined.unwrap_or_else(|error| {
            let back = Back {
                answer: None,
                asked_for: Duration::ZERO,
                made: Some(Err(Outcome::Panicked)),
            };
            (error.id(), back)
        });
        let Some(underway) = self.underway.remove(&id) else {
            return;
        };
        let now = self.clock.now();
        if let Some(taken) = &underway.taken {
            self.end_turn(&underway, taken, back.answer, now);
        }
        let Some(told) = back.made else {
            self.show_one(&underway.due.target);
            return;
        };
        let due = &underway.due;
        let took = now.since(underway.began).saturating_sub(back.asked_for);
        let lag = underway.began.since(due.at);
        let told = told.inspect_err(|outcome| {
            tracing::error!(
                target_name = &*due.target,
                tier = due.tier.as_str(),
                outcome = outcome.as_str(),
                "a check told nothing"
            );
        });
        let face = told.as_ref().ok().map(|told| Face::of(&told.report));
        let not_before = self.book(&underway, told.as_ref().ok(), face.as_ref(), now);
        if let Ok(told) = &told {
            let is_rejected = !told.rejected.is_empty();
            let registry = &underway.target.registry;
            self.tell_of(registry, told.accepted.as_ref(), is_rejected, now);
        }
        let missed = if underway.is_on_demand {
            0
        } else {
            self.schedule.done(due, now, not_before)
        };
        let outcome = match &told {
            Ok(told) => Outcome::Told(told.report.verdict.pull),
            Err(outcome) => *outcome,
        };
        if let Ok(told) = &told {
            self.hand_on(&told.report, &underway);
        }
        let report = told
            .ok()
            .and_then(|told| stored(&mut self.packer, &told.report));
        let run_id = self.with_fleet(Fleet::number);
        let run = Run {
            id: run_id,
            tier: due.tier,
            at: underway.at,
            took,
            lag,
            outcome,
            starved: is_starved(&underway, took, lag),
            cause: face
                .as_ref()
                .and_then(|face| face.worst())
                .map(|finding| finding.cause.code()),
            bytes_per_second: face.as_ref().and_then(rate),
            report,
        };
        tracing::debug!(
            target_name = &*due.target,
            tier = due.tier.as_str(),
            outcome = outcome.as_str(),
            took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "checked"
        );
        let vantage = self.world.last_seen();
        let changes = self.with_fleet(|fleet| {
            fleet.counters.missed += missed;
            fleet.counters.panics += u64::from(outcome == Outcome::Panicked);
            fleet.vantage = vantage;
            fleet.take(&due.target, run, face)
        });
        if let Some(changes) = changes {
            self.tell(&underway, &changes, now);
        }
        self.show_one(&due.target);
        if let Some(done) = underway.done {
            let _ = done.send(match outcome {
                Outcome::Told(_) => Ok(run_id),
                other => Err(Refused::Failed(other.as_str())),
            });
        }
    }

    /// To later checks what routers were seen, and to pods that wait what was found.
    fn hand_on(&mut self, report: &Report, underway: &Underway) {
        let due = &underway.due;
        if due.tier == Tier::Path {
            self.hops.insert(Arc::clone(&due.target), hops(report));
        }
        if let Some(target) = self.target(&due.target)
            && target.reference == underway.target.reference
        {
            self.cluster.tell(report, &target, &self.node);
        }
    }

    /// Books what a check has spent and heard; before when the next one should not be made.
    fn book(
        &mut self,
        underway: &Underway,
        told: Option<&Told>,
        face: Option<&Face>,
        now: Moment,
    ) -> Option<Moment> {
        let heard = match (told, face) {
            (Some(told), Some(face)) => Heard {
                requests: face.requests,
                read: Some(
                    face.transfer
                        .as_ref()
                        .map_or(Bytes(0), |transfer| transfer.read),
                ),
                answered: face.answered,
                rate_limit: face.rate_limit.clone(),
                rejected: told.rejected.clone(),
                accepted: told.accepted.clone(),
            },
            _ => Heard::default(),
        };
        self.unsaved |= underway.reserved.is_some()
            || !heard.rejected.is_empty()
            || heard
                .answered
                .is_some_and(|answered| answered != Answered::Well);
        policy::book(
            &mut self.state.ledger,
            &self.node,
            &underway.due.target,
            &underway.target.registry,
            underway.reserved,
            &heard,
            now,
        )
    }

    /// A line for each change, and a closer look at a way that is new.
    fn tell(&mut self, underway: &Underway, changes: &Changes, now: Moment) {
        let (name, registry) = (&*underway.due.target, &*underway.target.registry);
        for finding in &changes.appeared {
            tracing::info!(
                target_name = name,
                registry,
                cause = finding.cause.code(),
                severity = ?finding.severity,
                leg = finding.leg.map(Role::as_str),
                seen = finding.evidence.first(),
                hint = finding.hint,
                "found"
            );
        }
        for cause in &changes.gone {
            tracing::info!(target_name = name, registry, cause, "gone");
        }
        for (leg, before, after) in &changes.classes {
            tracing::info!(
                target_name = name,
                registry,
                leg = leg.as_str(),
                before = before.as_str(),
                after = after.as_str(),
                "the way is another one"
            );
        }
        if changes.way && underway.due.tier != Tier::Path {
            self.schedule.hasten_path(name, now);
        }
    }

    fn save(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.unsaved) else {
            return;
        };
        match file.save(&self.state) {
            Ok(()) => self.unsaved = false,
            Err(error) => {
                tracing::error!(%error, "what must outlive a restart can't be written");
                self.with_fleet(|fleet| fleet.counters.state_errors += 1);
            }
        }
    }
}

fn is_starved(underway: &Underway, took: Duration, lag: Duration) -> bool {
    let before = underway.throttled;
    let after = machine::cpu().and_then(|cpu| cpu.throttled);
    let held_back = before
        .zip(after)
        .map(|(before, after)| after.saturating_sub(before));
    let share = held_back.map_or(0.0, |held| {
        held.as_secs_f64() / took.as_secs_f64().max(1e-3)
    });
    lag > STARVED_LAG || share > STARVED_SHARE
}

fn in_folder(folder: &Path) -> Result<(Option<StateFile>, KnownManifests), StartError> {
    let failed = |source| StartError::StateDir {
        path: folder.display().to_string(),
        source,
    };
    let file = StateFile::in_folder(folder).map_err(failed)?;
    let known = KnownManifests::in_folder(&folder.join("manifests")).map_err(failed)?;
    Ok((Some(file), known))
}

fn limits(config: &Config) -> Limits {
    let budgets = &config.budgets;
    Limits {
        node_bytes_per_day: budgets.node_bytes_per_day.0,
        target_bytes_per_day: budgets.target_bytes_per_day.0,
        registry_bytes_per_day: budgets.registry_bytes_per_day.0,
        registry_requests_per_minute: budgets.registry_requests_per_minute.0,
        rate_limit_floor: budgets.rate_limit_floor.0,
    }
}

fn hops(report: &Report) -> Vec<(Role, Trace)> {
    let legs = report.evidence.walk.legs.iter();
    legs.filter_map(|leg| Some((leg.role, leg.hops.clone()?)))
        .collect()
}

fn rate(face: &Face) -> Option<f64> {
    let rates = face.transfer.as_ref()?.rates.as_ref()?;
    Some(rates.all.or(rates.one)?.bytes_per_second)
}

/// The report as `probe -o json` has it in its list.
fn stored(packer: &mut Packer, report: &Report) -> Option<Packed> {
    let text = serde_json::to_string(report).ok()?;
    packer.pack(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A registry where nobody listens: no packet leaves this host.
    fn config(more: &str) -> Config {
        Config::parse(&format!(
            "network: {{metadata: off}}\ntargets:\n  - {{name: panics, image: '127.0.0.1:1/a:1', plain_http: true}}\n  - {{name: fails, image: '127.0.0.1:1/b:1', plain_http: true}}\n{more}\n"
        ))
        .unwrap()
    }

    async fn check(orders: &mpsc::Sender<Order>, target: &str) -> Result<u64, Refused> {
        let (done, told) = oneshot::channel();
        let order = Order::Check {
            target: Arc::from(target),
            tier: Tier::Reach,
            done,
        };
        orders.send(order).await.unwrap();
        told.await.unwrap()
    }

    #[tokio::test]
    async fn a_panic_ends_one_check_and_is_counted() {
        let load: Loader = Box::new(|| Err("not asked for".to_owned()));
        let runner = Runner::start("n1".to_owned(), config(""), load)
            .await
            .unwrap();
        let fleet = runner.fleet();
        let (orders, received) = mpsc::channel(4);
        let stop = CancellationToken::new();
        let running = tokio::spawn(runner.run(received, stop.clone()));
        assert_eq!(
            check(&orders, "panics").await,
            Err(Refused::Failed("panicked"))
        );
        assert!(check(&orders, "fails").await.is_ok(), "the others go on");
        assert_eq!(check(&orders, "nobody").await, Err(Refused::NoSuchTarget));
        {
            let fleet = fleet.read().unwrap();
            assert_eq!(fleet.counters.panics, 1);
            let record = |name: &str| &fleet.targets[name].record;
            assert_eq!(
                record("panics").newest().unwrap().outcome,
                Outcome::Panicked
            );
            assert_eq!(record("panics").is_ready(), None);
            assert_eq!(record("fails").is_ready(), Some(false));
            assert_eq!(fleet.counters.running, 0);
        }
        stop.cancel();
        running.await.unwrap();
    }
}
