//! Records the results of checks for metrics, page and API, and keeps what later checks need.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::executor::Underway;
use crate::daemon::check::{CheckResult, Job};
use crate::daemon::cluster::ContainerOfPod;
use crate::daemon::coordination::group::{self, EgressGroup};
use crate::daemon::schedule::budget::ByteBudget;
use crate::daemon::schedule::timetable::Tier;
use crate::daemon::store::compressed_report::CompressedReport;
use crate::daemon::store::history::{Changes, Outcome, Run};
use crate::daemon::store::summary::RunSummary;
use crate::daemon::store::target::Target;
use crate::daemon::store::targets::{SharedStore, TargetStore, Watched};
use crate::diagnose::level::Severity;
use crate::model::endpoint::{Endpoint, Role};
use crate::model::evidence::AddressTrial;
use crate::model::hops::Trace;
use crate::model::vantage::Vantage;
use crate::model::workload::{Namespaced, SecretRefs};
use crate::report::Report;

/// Writes the store, and reads it for the runner.
pub(super) struct Recorder {
    pub(super) store: SharedStore,
    /// The routers on the path of each target, from the last `path` check.
    hops: BTreeMap<Arc<str>, Vec<(Role, Trace)>>,
    /// TLS with all addresses of each target's servers, from the last `path` check.
    addresses: BTreeMap<Arc<str>, Vec<(Endpoint, AddressTrial)>>,
}

impl Recorder {
    pub(super) fn new(store: SharedStore) -> Self {
        Self {
            store,
            hops: BTreeMap::new(),
            addresses: BTreeMap::new(),
        }
    }

    pub(super) fn write<T>(&self, act: impl FnOnce(&mut TargetStore) -> T) -> T {
        act(&mut self.store.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn read<T>(&self, get: impl FnOnce(&TargetStore) -> T) -> T {
        get(&self.store.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn target(&self, name: &str) -> Option<Arc<Target>> {
        self.read(|store| {
            let watched = store.targets.get(name)?;
            Some(Arc::clone(&watched.target))
        })
    }

    /// Whether a check of the target, with the image that it has now, has ended.
    pub(super) fn has_result(&self, name: &str) -> bool {
        self.read(|store| {
            let watched = store.targets.get(name);
            watched.is_some_and(|watched| watched.history.newest().is_some())
        })
    }

    /// Whether the target still has the image that was checked.
    pub(super) fn is_current(&self, checked: &Target) -> bool {
        let now = self.target(&checked.name);
        now.is_some_and(|now| now.reference == checked.reference)
    }

    pub(super) fn targets(&self) -> Vec<Arc<Target>> {
        self.read(|store| {
            let all = store.targets.values();
            all.map(|watched| Arc::clone(&watched.target)).collect()
        })
    }

    /// Targets whose image one of these containers waits for.
    pub(super) fn waited_for(&self, containers: &[ContainerOfPod]) -> Vec<Arc<str>> {
        let is_waited_for = |watched: &Watched| {
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
        self.read(|store| {
            let all = store.targets.iter();
            all.filter(|(_, watched)| is_waited_for(watched))
                .map(|(name, _)| Arc::clone(name))
                .collect()
        })
    }

    /// The newest report of a target whose pull is the same as this one.
    pub(super) fn newest_report(&self, planned: &Target) -> Option<Report> {
        let is_same = |watched: &&Watched| watched.target.is_same_pull(planned);
        let report = self.read(|store| {
            let watched = store.targets.values().find(is_same)?;
            let mut runs = watched.history.runs();
            runs.find_map(|run| run.report.clone())
        });
        serde_json::from_str(&report?.text()?).ok()
    }

    /// Targets that a container waits for, and that are pulled with one of these Secrets.
    pub(super) fn waiting_with(&self, secrets: &BTreeSet<Namespaced>) -> Vec<Arc<str>> {
        let is_concerned = |watched: &Watched| {
            let target = &watched.target;
            let mut keys = target.secrets.iter().flat_map(SecretRefs::keys);
            target.uses.iter().any(|one| one.waits) && keys.any(|key| secrets.contains(&key))
        };
        self.read(|store| {
            let all = store.targets.iter();
            all.filter(|(_, watched)| is_concerned(watched))
                .map(|(name, _)| Arc::clone(name))
                .collect()
        })
    }

    /// The egress group of a registry's layers, from the first of its targets that has one.
    pub(super) fn egress(&self, registry: &str) -> Option<EgressGroup> {
        self.read(|store| {
            let watched = store.targets.values();
            let mut summaries = watched
                .filter(|watched| &*watched.target.registry == registry)
                .filter_map(|watched| watched.history.summary.as_ref());
            summaries.find_map(|summary| group::egress(&summary.paths, store.vantage.as_deref()))
        })
    }

    /// The target of a registry whose last transfer test is the oldest.
    pub(super) fn longest_untested(
        &self,
        registry: &str,
        budget: &ByteBudget,
    ) -> Option<Arc<Target>> {
        let all = self.targets().into_iter();
        all.filter(|target| &*target.registry == registry)
            .filter(|target| target.rhythm.transfer.is_some())
            .min_by_key(|target| budget.last_transfer(&target.name))
    }

    /// Adds to a job what earlier checks of the target found.
    pub(super) fn complete(&self, job: Job) -> Job {
        let name = &job.target.name;
        Job {
            hops: self.hops.get(name).cloned().unwrap_or_default(),
            addresses: self.addresses.get(name).cloned().unwrap_or_default(),
            image: self.read(|store| store.targets.get(name)?.history.image),
            ..job
        }
    }

    pub(super) fn forget_hops(&mut self, has: impl Fn(&str) -> bool) {
        self.hops.retain(|name, _| has(name));
        self.addresses.retain(|name, _| has(name));
    }

    /// Records the result of a check. Returns the number of the run, and what it changed (`None`: the target is
    /// gone, or has another image).
    pub(super) fn record(
        &mut self,
        underway: &Underway,
        result: &Result<CheckResult, Outcome>,
        summary: Option<RunSummary>,
        took: Duration,
        vantage: Option<Arc<Vantage>>,
    ) -> (u64, Option<Changes>) {
        let due = &underway.due;
        let report = result.as_ref().ok().map(|result| &result.report);
        if let Some(report) = report.filter(|_| due.tier == Tier::Path) {
            self.hops.insert(Arc::clone(&due.target), hops(report));
            self.addresses
                .insert(Arc::clone(&due.target), addresses(report));
        }
        let outcome = outcome(result);
        let worst = summary
            .as_ref()
            .and_then(|summary| summary.findings.first());
        let run = Run {
            id: self.write(TargetStore::number),
            tier: due.tier,
            at: underway.at,
            took,
            lag: underway.lag(),
            outcome,
            starved: underway.is_starved(took),
            cause: worst.map(|finding| finding.cause.code()),
            causes: summary.iter().flat_map(causes).collect(),
            bytes_per_second: summary.as_ref().and_then(rate),
            // In the form of the list of `probe -o json`.
            report: report
                .and_then(|report| serde_json::to_string(report).ok())
                .map(|text| CompressedReport::of(&text)),
        };
        let id = run.id;
        let changes = self.write(|store| {
            store.counters.panics += u64::from(outcome == Outcome::Panicked);
            store.vantage = vantage;
            store.take(&underway.target, run, summary)
        });
        (id, changes)
    }
}

pub(super) fn outcome(result: &Result<CheckResult, Outcome>) -> Outcome {
    match result {
        Ok(result) => Outcome::Verdict(result.report.verdict.pull),
        Err(outcome) => *outcome,
    }
}

fn hops(report: &Report) -> Vec<(Role, Trace)> {
    let legs = report.evidence.walk.legs.iter();
    legs.filter_map(|leg| Some((leg.role, leg.hops.clone()?)))
        .collect()
}

/// TLS with each address of the legs that have several: their own, and the others.
fn addresses(report: &Report) -> Vec<(Endpoint, AddressTrial)> {
    let legs = report.evidence.walk.legs.iter();
    legs.filter(|leg| !leg.other_addresses.is_empty())
        .flat_map(|leg| {
            let own = leg.connect.outcome.done().map(|connected| AddressTrial {
                at: report.evidence.started,
                to: connected.to,
                tls: leg.tls.clone(),
            });
            let all = own.into_iter().chain(leg.other_addresses.iter().cloned());
            all.map(|trial| (leg.endpoint.clone(), trial))
        })
        .collect()
}

/// The causes of warnings and worse.
fn causes(summary: &RunSummary) -> impl Iterator<Item = &'static str> {
    let findings = summary.findings.iter();
    let findings = findings.filter(|finding| finding.severity >= Severity::Warning);
    findings.map(|finding| finding.cause.code())
}

fn rate(summary: &RunSummary) -> Option<f64> {
    let rates = summary.transfer.as_ref()?.rates.as_ref()?;
    Some(rates.rate()?.bytes_per_second)
}
