//! The store: the targets of this node with their results.

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

/// The store, which the runner writes while metrics, page and API read it.
pub type SharedStore = Arc<RwLock<TargetStore>>;

/// The targets with their results, and the state of the daemon.
#[derive(Debug)]
pub struct TargetStore {
    /// The name of this node.
    pub node: String,
    /// Whose network stack the checks use.
    pub network: NetworkView,
    /// The targets by name.
    pub targets: BTreeMap<Arc<str>, Watched>,
    /// Registries of the targets, by domain.
    pub registries: BTreeMap<Arc<str>, RegistryStats>,
    /// The images of this node's pods; `None` with `kubernetes.discover: off`.
    pub cluster: Option<Discovery>,
    /// This node's own Node; `None`: it is not watched.
    pub own_node: Option<View<NodeFacts>>,
    /// Whether Leases are usable, by the newest answer of the API server; `None` with `spread.transfers: off`.
    pub leases: Option<WatchState>,
    /// Counts since the start of the daemon.
    pub counters: Counters,
    /// Delays of the start of checks.
    pub lag: Histogram,
    /// The newest load of the configuration.
    pub reload: Reload,
    /// The vantage that the newest check observed; `None` before the first.
    pub vantage: Option<Arc<Vantage>>,
    /// containerd's proxy settings.
    pub proxies: ProxySettings,
    /// Budgets and what is left of them.
    pub limits: BudgetStatus,
    keep: History,
    /// The size of all full reports, in bytes.
    memory: usize,
    next_run: u64,
}

/// A target with its history.
#[derive(Debug)]
pub struct Watched {
    /// What is checked.
    pub target: Arc<Target>,
    /// Its results.
    pub history: TargetHistory,
    /// When its next check is due; `None`: not scheduled yet.
    pub next: Option<Timestamp>,
}

/// The newest rate of each registry's targets: when it was measured, and bytes per second.
pub type Rates<'a> = BTreeMap<&'a str, (Timestamp, f64)>;

impl Watched {
    /// Its own measured rate, unless other traffic disturbed it.
    fn own_rate(&self) -> Option<f64> {
        let rates = self.history.transfer.as_ref()?.rates.as_ref()?;
        Some(rates.undisturbed()?.bytes_per_second)
    }

    /// Its own rate, else the newest of its registry, in bytes per second; `None`: neither was measured.
    pub fn rate(&self, newest: &Rates<'_>) -> Option<f64> {
        let of_registry = || newest.get(&*self.target.registry).map(|(_, rate)| *rate);
        self.own_rate().or_else(of_registry)
    }
}

/// Statistics of a registry over all its targets, since the start of the daemon.
#[derive(Debug)]
pub struct RegistryStats {
    /// Durations of each phase in seconds, summed over the legs of a check; without CPU-starved checks.
    pub phases: BTreeMap<Phase, Histogram>,
    /// Rates of transfer tests in bytes per second; without disturbed ones.
    pub throughput: Histogram,
    /// Bytes that transfer tests have downloaded.
    pub spent: u64,
    /// Changes of a published path class.
    pub path_changes: u64,
    /// The rate limit that the registry last reported; `None`: it reported none.
    pub rate_limit: Option<RateLimit>,
    /// Requests to the registry, its token service and its blob storage.
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

/// Counts of Events on pods; the task that publishes them writes the counts.
#[derive(Clone, Debug, Default)]
pub struct EventCounts {
    /// Events by outcome.
    pub outcomes: watch::Sender<BTreeMap<&'static str, u64>>,
    /// Events that wait now because the limit per minute is reached.
    pub waiting: watch::Sender<usize>,
}

/// Counts since the start of the daemon.
#[derive(Debug, Default)]
pub struct Counters {
    /// Checks, by tier and outcome.
    pub runs: BTreeMap<(Tier, &'static str), u64>,
    /// Findings that have appeared, by cause.
    pub findings: BTreeMap<&'static str, u64>,
    /// On-demand checks, by outcome.
    pub on_demand: BTreeMap<&'static str, u64>,
    /// Events on pods.
    pub events: EventCounts,
    /// Checks that were due and were not made, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Slots used for a transfer test, by what allowed it: `lease` or `alone`.
    pub slots: BTreeMap<&'static str, u64>,
    /// Checks that ended in a panic.
    pub panics: u64,
    /// Scheduled checks that were left out because one of the same target was still running.
    pub missed: u64,
    /// CPU-starved checks.
    pub starved: u64,
    /// Checks that are running now.
    pub running: usize,
    /// Failed writes of the state file.
    pub state_errors: u64,
}

/// The budgets for metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct BudgetStatus {
    /// What transfer tests of this node may still download today (UTC).
    pub bytes_left: Bytes,
    /// `budgets.node_bytes_per_day`.
    pub bytes_a_day: Bytes,
    /// `network.eip_bandwidth_mbit` in bytes per second; `None` if it is not set.
    pub declared: Option<f64>,
}

impl TargetStore {
    /// A store without targets, with a configuration that was loaded at `at`.
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

    /// Takes a new list of targets. Targets that stay keep their history, unless their image changes.
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

    /// Takes the number of the next run.
    pub fn number(&mut self) -> u64 {
        let id = self.next_run;
        self.next_run += 1;
        id
    }

    /// Records a run, and returns what it changed; `None`: the target is gone or has another image, and nothing is
    /// kept.
    pub fn take(
        &mut self,
        checked: &Target,
        run: Run,
        summary: Option<RunSummary>,
    ) -> Option<Changes> {
        let key = (run.tier, run.outcome.as_str());
        *self.counters.runs.entry(key).or_default() += 1;
        self.lag.observe(run.lag.as_secs_f64());
        self.counters.starved += u64::from(run.starved);
        let watched = self.targets.get_mut(&checked.name)?;
        if watched.target.reference != checked.reference {
            return None;
        }
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

    /// Drops full reports once they exceed `history.memory`, of the target with the largest first. It drops a
    /// sixteenth more than necessary, so that not every run has to search all targets.
    fn forget(&mut self) {
        let limit = usize::try_from(self.keep.memory.0.0).unwrap_or(usize::MAX);
        if self.memory <= limit {
            return;
        }
        // The newest report of each target goes only if all of these together are too large.
        self.forget_down_to(limit - limit / 16, false);
        if self.memory > limit {
            self.forget_down_to(limit, true);
        }
    }

    fn forget_down_to(&mut self, enough: usize, all: bool) {
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
            // A target of which every report must stay is skipped.
            if let Some(size) = watched.history.forget_one(all) {
                self.memory -= size;
                largest.push((watched.history.memory(), name));
            }
        }
    }

    /// Counts a check that was due and was not made.
    pub fn skipped(&mut self, reason: &'static str) {
        *self.counters.skipped.entry(reason).or_default() += 1;
    }

    /// The newest rate of each registry. Computed once per page, since each target would search all others.
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

    /// The earliest expiry of a certificate, for each registry and leg.
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
        // Times of a CPU-starved run don't measure the network.
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
            self.spent += summary.downloaded.0;
            let rates = transfer.rates.as_ref();
            if let Some(rate) = rates.and_then(Throughput::undisturbed) {
                self.throughput.observe(rate.bytes_per_second);
            }
        }
    }
}

/// The images of this node's pods; by default, before the API server has answered.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    /// The watch of pods.
    pub state: WatchState,
    /// Images to check, and images that are not checked.
    pub found: Discovered,
}

impl TargetStore {
    /// The version of this node's kubelet; `None`: the Node was not read, or does not report it.
    pub fn kubelet(&self) -> Option<KubeletVersion> {
        self.own_node.as_ref()?.only()?.kubelet_version()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, CountWithin, Size};
    use crate::daemon::store::compressed_report::CompressedReport;
    use crate::daemon::store::history::Outcome;
    use crate::diagnose::Pull;

    fn run(id: u64, fails: bool, report: &str) -> Run {
        Run {
            id,
            tier: Tier::Reach,
            at: Timestamp::UNIX_EPOCH,
            took: Duration::ZERO,
            lag: Duration::ZERO,
            outcome: Outcome::Verdict(if fails {
                Pull::WouldFail
            } else {
                Pull::WouldSucceed
            }),
            starved: false,
            cause: None,
            causes: BTreeSet::new(),
            bytes_per_second: None,
            report: Some(CompressedReport::of(report)),
        }
    }

    proptest! {
        #[test]
        fn the_reports_of_all_targets_stay_within_their_memory(
            limit in 0_u64..3000,
            runs in proptest::collection::vec((0_usize..5, any::<bool>(), "[a-z]{0,2000}"), 0..60),
        ) {
            let images = (0..5).map(|n| format!("{{name: t{n}, image: 'r.test/app:{n}'}}"));
            let images = images.collect::<Vec<_>>().join(", ");
            let config = Config::parse(&format!("targets: [{images}]")).unwrap();
            let targets = Target::all(&config, &[]);
            let keep = History {
                runs: CountWithin(20),
                failures: CountWithin(5),
                memory: Size(Bytes(limit)),
            };
            let mut store = TargetStore::new("n1", NetworkView::Node, Timestamp::UNIX_EPOCH);
            store.replace(targets.clone(), &keep);
            for (id, (target, fails, report)) in runs.into_iter().enumerate() {
                store.take(&targets[target], run(id as u64, fails, &report), None);
                let kept = store.targets.values().map(|watched| watched.history.memory());
                let kept: usize = kept.sum();
                prop_assert_eq!(kept, store.memory);
                prop_assert!(kept as u64 <= limit, "{} of {}", kept, limit);
            }
        }
    }
}
