//! All that is known now of the targets of this node.

use std::collections::{BTreeMap, BinaryHeap};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;

use super::history::{Changes, Run, TargetHistory};
use super::summary::RunSummary;
use crate::config::History;
use crate::daemon::schedule::timetable::Tier;
use crate::daemon::store::target::Target;
use crate::diagnose::throughput::Throughput;
use crate::kubernetes::watch::{View, WatchState};
use crate::model::endpoint::Role;
use crate::model::evidence::RateLimit;
use crate::model::fault::Phase;
use crate::model::histogram::{BYTES_PER_SECOND, Histogram, SECONDS};
use crate::model::kubelet::KubeletVersion;
use crate::model::proxy::ProxySettings;
use crate::model::units::Bytes;
use crate::model::vantage::{NetworkView, NodeFacts, Vantage};
use crate::serving::reload::Reload;
use crate::workload::discovery::Discovered;

/// Read by metrics, page and API while the runner writes it.
pub type SharedStore = Arc<RwLock<TargetStore>>;

/// All of it.
#[derive(Debug)]
pub struct TargetStore {
    pub node: String,
    pub network: NetworkView,
    pub targets: BTreeMap<Arc<str>, Watched>,
    pub registries: BTreeMap<Arc<str>, RegistryStats>,
    /// What the pods of this node want; `None` where the cluster is not asked.
    pub cluster: Option<Discovery>,
    /// What is told of this node's own Node; `None` where nobody is asked.
    pub own_node: Option<View<NodeFacts>>,
    /// Whether Leases can be had, as the API server answered last; `None` where nothing is shared with other
    /// nodes.
    pub leases: Option<WatchState>,
    pub counters: Counters,
    /// How late checks began.
    pub lag: Histogram,
    pub reload: Reload,
    pub vantage: Option<Arc<Vantage>>,
    pub proxies: ProxySettings,
    pub limits: BudgetStatus,
    keep: History,
    /// What full reports take.
    memory: usize,
    next_run: u64,
}

/// A target with all that is known of it.
#[derive(Debug)]
pub struct Watched {
    pub target: Arc<Target>,
    pub history: TargetHistory,
    /// When its next check is due.
    pub next: Option<Timestamp>,
}

/// Of each registry the newest rate of any of its targets, in bytes per second, and when it was measured.
pub type Rates<'a> = BTreeMap<&'a str, (Timestamp, f64)>;

impl Watched {
    /// Its own; a disturbed one is not what the way gives.
    fn own_rate(&self) -> Option<f64> {
        let rates = self.history.transfer.as_ref()?.rates.as_ref()?;
        Some(rates.undisturbed()?.bytes_per_second)
    }

    /// Its own, or else the newest of its registry.
    pub fn rate(&self, newest: &Rates<'_>) -> Option<f64> {
        let of_registry = || newest.get(&*self.target.registry).map(|(_, rate)| *rate);
        self.own_rate().or_else(of_registry)
    }
}

/// A registry, over all targets that have it.
#[derive(Debug)]
pub struct RegistryStats {
    pub phases: BTreeMap<Phase, Histogram>,
    pub throughput: Histogram,
    /// What transfer tests have read.
    pub spent: u64,
    pub path_changes: u64,
    pub rate_limit: Option<RateLimit>,
    pub requests: u64,
}

impl Default for RegistryStats {
    fn default() -> Self {
        Self {
            phases: BTreeMap::new(),
            throughput: Histogram::new(BYTES_PER_SECOND),
            spent: 0,
            path_changes: 0,
            rate_limit: None,
            requests: 0,
        }
    }
}

/// Events on pods, by what became of them.
pub type EventCounts = watch::Sender<BTreeMap<&'static str, u64>>;

/// Of the process.
#[derive(Debug, Default)]
pub struct Counters {
    pub runs: BTreeMap<(Tier, &'static str), u64>,
    /// Findings that have appeared, by cause.
    pub findings: BTreeMap<&'static str, u64>,
    /// Images that were asked for besides the schedule, by what came of it.
    pub on_demand: BTreeMap<&'static str, u64>,
    /// Events on pods, by what became of them.
    pub events: EventCounts,
    /// Checks that were due and were not made, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Slots that were used for a transfer test, by what allowed it.
    pub slots: BTreeMap<&'static str, u64>,
    pub panics: u64,
    pub missed: u64,
    pub starved: u64,
    pub running: usize,
    pub state_errors: u64,
}

/// Figures of the budgets, for those who look.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetStatus {
    pub bytes_left: Bytes,
    pub bytes_a_day: Bytes,
    /// What was bought, as the configuration says.
    pub declared: Option<f64>,
}

impl TargetStore {
    pub fn new(node: &str, network: NetworkView, at: Timestamp) -> Self {
        Self {
            node: node.to_owned(),
            network,
            targets: BTreeMap::new(),
            registries: BTreeMap::new(),
            cluster: None,
            own_node: None,
            leases: None,
            counters: Counters::default(),
            lag: Histogram::new(SECONDS),
            reload: Reload::begin(at),
            vantage: None,
            proxies: ProxySettings::default(),
            limits: BudgetStatus::default(),
            keep: History::default(),
            memory: 0,
            next_run: 1,
        }
    }

    /// Takes a new list of targets. Those that stay keep what is known of them, unless they have
    /// another image.
    pub fn replace(&mut self, targets: Vec<Arc<Target>>, keep: &History) {
        let mut before = std::mem::take(&mut self.targets);
        for target in targets {
            let known = before
                .remove(&target.name)
                .filter(|known| known.target.reference == target.reference);
            let history = known.map(|known| known.history).unwrap_or_default();
            let watched = Watched {
                target: Arc::clone(&target),
                history,
                next: None,
            };
            self.targets.insert(Arc::clone(&target.name), watched);
            let registry = Arc::clone(&target.registry);
            self.registries.entry(registry).or_default();
        }
        let all = || self.targets.values();
        self.registries
            .retain(|name, _| all().any(|watched| watched.target.registry == *name));
        self.keep = keep.clone();
        self.memory = all().map(|watched| watched.history.memory()).sum();
        self.forget();
    }

    /// The number of the next run.
    pub fn number(&mut self) -> u64 {
        let id = self.next_run;
        self.next_run += 1;
        id
    }

    /// Takes what came of a check. Of a target that is gone by now, nothing is kept.
    pub fn take(&mut self, name: &str, run: Run, summary: Option<RunSummary>) -> Option<Changes> {
        let key = (run.tier, run.outcome.as_str());
        *self.counters.runs.entry(key).or_default() += 1;
        self.lag.observe(run.lag.as_secs_f64());
        self.counters.starved += u64::from(run.starved);
        let watched = self.targets.get_mut(name)?;
        let registry = self.registries.get_mut(&watched.target.registry)?;
        if let Some(summary) = &summary {
            registry.take(summary, run.starved);
        }
        let before = watched.history.memory();
        let changes = watched.history.take(run, summary, &self.keep);
        self.memory = self.memory + watched.history.memory() - before;
        registry.path_changes += changes.classes.len() as u64;
        let findings = &mut self.counters.findings;
        for finding in &changes.appeared {
            *findings.entry(finding.cause.code()).or_default() += 1;
        }
        self.forget();
        Some(changes)
    }

    /// Drops full reports once they are too many, always of the target that has most, and somewhat more
    /// than it must: not each run shall go through all targets.
    fn forget(&mut self) {
        let limit = usize::try_from(self.keep.memory.0.0).unwrap_or(usize::MAX);
        if self.memory <= limit {
            return;
        }
        let enough = limit - limit / 16;
        let mut largest: BinaryHeap<(usize, Arc<str>)> = self
            .targets
            .iter()
            .map(|(name, watched)| (watched.history.memory(), Arc::clone(name)))
            .collect();
        while self.memory > enough
            && let Some((_, name)) = largest.pop()
        {
            let Some(watched) = self.targets.get_mut(&name) else {
                continue;
            };
            // Of one that has but what must stay, nothing.
            if let Some(size) = watched.history.forget_one() {
                self.memory -= size;
                largest.push((watched.history.memory(), name));
            }
        }
    }

    pub fn skipped(&mut self, reason: &'static str) {
        *self.counters.skipped.entry(reason).or_default() += 1;
    }

    /// The newest rates. Made once for all targets: each of them would look at all others.
    pub fn rates(&self) -> Rates<'_> {
        let mut newest = Rates::new();
        for watched in self.targets.values() {
            let transfer = watched.history.transfer.as_ref();
            let Some((transfer, rate)) = transfer.zip(watched.own_rate()) else {
                continue;
            };
            let own = (transfer.at, rate);
            let known = newest.entry(&*watched.target.registry).or_insert(own);
            if known.0 <= own.0 {
                *known = own;
            }
        }
        newest
    }

    /// The first certificate of a registry's legs to end.
    pub fn certificates(&self) -> BTreeMap<(Arc<str>, Role), Timestamp> {
        let mut first = BTreeMap::new();
        for watched in self.targets.values() {
            let summaries = watched.history.summary.iter();
            for (leg, at) in summaries.flat_map(|summary| &summary.certificates) {
                let key = (Arc::clone(&watched.target.registry), *leg);
                let known = first.entry(key).or_insert(*at);
                *known = (*known).min(*at);
            }
        }
        first
    }
}

impl RegistryStats {
    fn take(&mut self, summary: &RunSummary, starved: bool) {
        self.requests += u64::from(summary.requests);
        if let Some(limit) = &summary.rate_limit {
            self.rate_limit = Some(limit.clone());
        }
        // Times of a starved run are not the network's.
        if !starved {
            let mut sums: BTreeMap<Phase, Duration> = BTreeMap::new();
            for phase in &summary.phases {
                *sums.entry(phase.phase).or_default() += phase.took;
            }
            for (phase, took) in sums {
                let histogram = self.phases.entry(phase);
                let histogram = histogram.or_insert_with(|| Histogram::new(SECONDS));
                histogram.observe(took.as_secs_f64());
            }
        }
        if let Some(transfer) = &summary.transfer {
            self.spent += transfer.read.0;
            let rates = transfer.rates.as_ref();
            if let Some(rate) = rates.and_then(Throughput::undisturbed) {
                self.throughput.observe(rate.bytes_per_second);
            }
        }
    }
}

/// What the pods of this node come to.
#[derive(Clone, Debug)]
pub struct Discovery {
    pub state: WatchState,
    pub found: Discovered,
}

impl TargetStore {
    /// The version of this node's kubelet, where its Node tells it.
    pub fn kubelet(&self) -> Option<KubeletVersion> {
        self.own_node.as_ref()?.only()?.kubelet_version()
    }
}
