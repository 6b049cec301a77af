//! What is known, in Prometheus' text format: made from the store at each scrape, so that a target
//! which is gone takes its series along.

use std::collections::{BTreeMap, BTreeSet};
use std::ptr;
use std::sync::PoisonError;

use crate::daemon::store::summary::PhaseSummary;
use crate::daemon::store::targets::{Rates, RegistryStats, TargetStore, Watched};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::path::leg_path::is_met;
use crate::kubernetes::follow::State;
use crate::model::endpoint::Role;
use crate::model::vantage::NetworkView;
use crate::net::machine;
use crate::serving::metrics::{Family, Page, Value, families, process, table};

families! {
    TARGET_INFO: Gauge "pullpath_target_info" ["target", "registry"]
        "1 for each target that is watched: the registry of each, to join other series by.";
    PULL_READY: Gauge "pullpath_pull_ready" ["target", "registry"]
        "1: a pull would succeed by the newest check, 0: it would fail. Absent where that could not be told.";
    PHASE_SUCCESS: Gauge "pullpath_phase_success" ["target", "leg", "phase"]
        "1: the phase of the newest check succeeded, 0: it failed. Absent where it was not come to or not needed.";
    PHASE_DURATION: Gauge "pullpath_phase_duration_seconds" ["target", "leg", "phase"]
        "How long the phase took in the newest check.";
    PATH_INFO: Gauge "pullpath_path_info" ["target", "registry", "leg", "class", "confidence", "vantage"]
        "1 for the class of the way to a leg, how sure that is, and whose network it was seen from.";
    PATH_EXPECTED: Gauge "pullpath_path_expected" ["target", "leg"]
        "1: the leg's class is one of those expected, 0: it is not. Absent where nothing is expected.";
    FINDING: Gauge "pullpath_finding" ["target", "leg", "cause", "severity"]
        "1 for each thing that is wrong now; `pullpath explain CAUSE` tells what it means.";
    CONSECUTIVE_FAILURES: Gauge "pullpath_consecutive_failures" ["target"]
        "Checks in a row of which none told that a pull would succeed.";
    LAST_SUCCESS: Gauge "pullpath_last_success_timestamp_seconds" ["target"]
        "When a check last told that a pull would succeed.";
    CREDENTIAL_EXPIRY: Gauge "pullpath_credential_expiry_timestamp_seconds" ["target"]
        "When the credential in use ends, where it says so itself.";
    IMAGE_BYTES: Gauge "pullpath_image_bytes" ["target"]
        "Compressed size of the layers for the target's platform.";
    TRANSFER_RATE: Gauge "pullpath_transfer_bytes_per_second" ["target", "streams"]
        "Rate of the newest transfer test: of one stream alone, and of all that containerd would have together.";
    FIRST_BYTE: Gauge "pullpath_transfer_first_byte_seconds" ["target"]
        "From the request of a layer to its first byte, in the newest transfer test.";
    CAP: Gauge "pullpath_bandwidth_cap_bytes_per_second" ["target"]
        "The rate that a limit holds layers to, where the newest transfer test found one.";
    REQUIRED: Gauge "pullpath_bandwidth_required_bytes_per_second" ["target"]
        "The rate that is wished for: `expect.throughput_mbit`, or what `expect.pull_within` comes to.";
    INSUFFICIENT: Gauge "pullpath_bandwidth_insufficient" ["target"]
        "1: the rate measured is below the one that is wished for, 0: it is not. Absent where there is no wish, or no rate.";
    BOTTLENECK: Gauge "pullpath_bottleneck" ["target", "cause"]
        "1 for what bounds the rate of the newest transfer test.";
    ESTIMATED_PULL: Gauge "pullpath_estimated_pull_seconds" ["target"]
        "An estimate: the image's layers at the rate measured for it, or else newest for its registry; without unpacking.";
    HELD_BACK: Gauge "pullpath_check_held_back" ["target", "reason"]
        "1 where a check was due and was not made.";
    CHECK_DURATION: Histogram "pullpath_check_duration_seconds" ["registry", "phase"]
        "How long phases took, all legs of a check together. Runs that were starved of the processor do not count.";
    PATH_CHANGES: Counter "pullpath_path_changes_total" ["registry"]
        "Published classes that became others.";
    CERTIFICATE_EXPIRY: Gauge "pullpath_tls_certificate_expiry_timestamp_seconds" ["registry", "leg"]
        "When the first certificate ends, of all chains that were presented.";
    RATE_LIMIT: Gauge "pullpath_rate_limit" ["registry"]
        "Requests that the registry allows in a window, as it said last.";
    RATE_LIMIT_REMAINING: Gauge "pullpath_rate_limit_remaining" ["registry"]
        "Requests that are left in the window, as it said last.";
    RATE_LIMIT_WINDOW: Gauge "pullpath_rate_limit_window_seconds" ["registry"]
        "The window.";
    TRANSFER_THROUGHPUT: Histogram "pullpath_transfer_throughput_bytes_per_second" ["registry"]
        "Rates of transfer tests, with the buckets of containerd's image_pulling_throughput.";
    TRANSFER_SPENT: Counter "pullpath_transfer_spent_bytes_total" ["registry"]
        "What transfer tests have read.";
    REQUESTS: Counter "pullpath_requests_total" ["registry"]
        "Requests that checks have sent to the registry, its token service and its storage.";
    FINDINGS: Counter "pullpath_findings_total" ["cause"]
        "Findings that have appeared.";
    DECLARED: Gauge "pullpath_bandwidth_declared_bytes_per_second" []
        "What was bought, as `network.eip_bandwidth_mbit` says.";
    TARGETS: Gauge "pullpath_targets" []
        "Targets that are watched.";
    CHECKS: Counter "pullpath_checks_total" ["tier", "outcome"]
        "Checks that were made.";
    SKIPPED: Counter "pullpath_checks_skipped_total" ["reason"]
        "Checks that were due and were not made, by what held them back.";
    ON_DEMAND: Counter "pullpath_on_demand_total" ["outcome"]
        "Images that somebody asked for at the admin address, by what came of it: the outcomes of checks, or `not_allowed`, `no_pod`, `busy`, `too_many`, `held_back`. They count nowhere else.";
    MISSED: Counter "pullpath_checks_missed_total" []
        "Turns that passed while an earlier check of the same target was still going on.";
    STARVED: Counter "pullpath_checks_starved_total" []
        "Checks during which this process had too little of the processor.";
    RUNNING: Gauge "pullpath_checks_running" []
        "Checks that are being made.";
    PANICS: Counter "pullpath_check_panics_total" []
        "Checks that a defect of this program has ended.";
    LAG: Histogram "pullpath_scheduler_lag_seconds" []
        "How late checks began.";
    BUDGET_LEFT: Gauge "pullpath_budget_left_bytes" []
        "What transfer tests may still read today (UTC).";
    BUDGET: Gauge "pullpath_budget_bytes_per_day" []
        "What transfer tests may read in a day.";
    THROTTLED: Counter "pullpath_throttled_seconds_total" []
        "How long the limit of processors has held this container back. Absent where the kernel does not tell.";
    STATE_ERRORS: Counter "pullpath_state_errors_total" []
        "Times that what must outlive a restart could not be written.";
    KUBERNETES_FOLLOWED: Gauge "pullpath_kubernetes_followed" []
        "1: the API server tells of this node's pods, 0: it does not now, and what they wanted last is still checked. Absent where it is not asked.";
    KUBERNETES_IMAGES: Gauge "pullpath_kubernetes_images" ["state"]
        "Repositories that pods of this node want, by what is done: `checked`, `over_the_most`, `platform`, `out_of_scope` (these counted by container), `malformed`.";
    EVENTS: Counter "pullpath_events_published_total" ["outcome"]
        "Events on pods that wait for an image, by what became of them: `created`, `counted` (said before), `limited` (too many in a minute), `dropped` (the API server is slow), `forbidden`, `failed`.";
    NODE_INFO: Gauge "pullpath_node_info" ["runtime", "kubelet", "zone"]
        "1 for this node, as the cluster knows it: its container runtime and kubelet with their versions, its zone. Absent where the API server has not told.";
    NODE_CREATED: Gauge "pullpath_node_created_timestamp_seconds" []
        "When this node joined the cluster; what fails on a new one may not last.";
    NODE_UNSCHEDULABLE: Gauge "pullpath_node_unschedulable" []
        "1: this node is cordoned, 0: it is not. Absent where the API server has not told.";
    SPREAD_TURNS: Counter "pullpath_spread_turns_total" ["by"]
        "Transfer tests that this node made for its group, by what allowed them: `lease`, or `alone` (no other node shares the path).";
    SPREAD_REACHABLE: Gauge "pullpath_spread_leases_reachable" []
        "1: the API server answered when it was last asked for a Lease, 0: it did not, or forbids it, and transfer tests are skipped. Absent where it was not asked.";
    RELOAD_SUCCESSFUL: Gauge "pullpath_config_last_reload_successful" []
        "1: the configuration that was read last is in force, 0: it was refused.";
    RELOAD_SUCCESS_AT: Gauge "pullpath_config_last_reload_success_timestamp_seconds" []
        "When the configuration in force was read.";
    BUILD_INFO: Gauge "pullpath_build_info" ["version", "commit"]
        "1 for the program that is running.";
}

/// Series of one target at most.
const SERIES_A_TARGET: usize = 40;

/// Labels of a target's series besides `target`, at most.
const LABELS: usize = 5;

/// Findings of one target that are published; the worst of them.
const FINDINGS_A_TARGET: usize = 6;

/// Everything, or what there is of one target.
pub fn text(store: &TargetStore, only: Option<&str>) -> String {
    let rates = store.rates();
    let targets: Vec<(&str, Series<'_>)> = store
        .targets
        .iter()
        .filter(|(name, _)| only.is_none_or(|only| &***name == only))
        .map(|(name, watched)| (&**name, of_target(store, &rates, watched)))
        .collect();
    // A target's lines are 3 kB; what grows by doubling would need twice the room.
    let mut page = Page(String::with_capacity(16 * 1024 + targets.len() * 4 * 1024));
    for family in FAMILIES
        .iter()
        .filter(|family| family.labels.contains(&"target"))
    {
        let all = targets.iter().flat_map(|(name, series)| {
            let of_family = series.0.iter().filter(|one| ptr::eq(one.family, *family));
            of_family.map(|one| (std::iter::once(*name).chain(one.labels), one.value))
        });
        page.add(family, all);
    }
    if only.is_none() {
        of_registries(store, &mut page);
        of_process(store, &mut page);
    }
    page.0
}

/// Series of one target, the most telling first.
struct Series<'a>(Vec<One<'a>>);

struct One<'a> {
    family: &'static Family,
    /// Of the labels behind `target`, in the family's order.
    labels: [&'a str; LABELS],
    value: Value<'a>,
}

impl<'a> Series<'a> {
    fn add<const N: usize, V: Into<Value<'a>>>(
        &mut self,
        family: &'static Family,
        of: [&'a str; N],
        value: impl IntoIterator<Item = V>,
    ) {
        debug_assert_eq!(family.labels.len(), N + 1, "{}", family.name);
        let mut labels = [""; LABELS];
        labels[..N].copy_from_slice(&of);
        self.0.extend(value.into_iter().map(|value| One {
            family,
            labels,
            value: value.into(),
        }));
    }
}

fn of_target<'a>(store: &TargetStore, rates: &Rates<'_>, watched: &'a Watched) -> Series<'a> {
    let (target, history) = (&watched.target, &watched.history);
    let mut series = Series(Vec::with_capacity(SERIES_A_TARGET));
    let registry = &*target.registry;
    series.add(&TARGET_INFO, [registry], [1.0]);
    series.add(&PULL_READY, [registry], history.is_ready());
    let failures = history.checked.map(|_| history.consecutive_failures);
    series.add(&CONSECUTIVE_FAILURES, [], failures);
    series.add(&LAST_SUCCESS, [], history.last_success);
    if let Some(deferred) = &history.deferred {
        series.add(&HELD_BACK, [deferred.reason], [1.0]);
    }
    let mut told = BTreeSet::new();
    for finding in history.findings() {
        let leg = finding.leg.map_or("", Role::as_str);
        if told.len() < FINDINGS_A_TARGET && told.insert((leg, finding.cause.code())) {
            let severity = finding.severity.as_str();
            series.add(&FINDING, [leg, finding.cause.code(), severity], [1.0]);
        }
    }
    for path in history.paths() {
        let (leg, class) = (path.leg.as_str(), path.class.as_str());
        let confidence = path.confidence.as_str();
        let labels = [registry, leg, class, confidence, vantage(store.network)];
        series.add(&PATH_INFO, labels, [1.0]);
    }
    for path in history.paths() {
        if !target.expect.class.is_empty() {
            let met = is_met(path.class, &target.expect.class);
            series.add(&PATH_EXPECTED, [path.leg.as_str()], [met]);
        }
    }
    of_transfer(rates, watched, &mut series);
    if let Some(summary) = &history.summary {
        series.add(&CREDENTIAL_EXPIRY, [], summary.credential);
        let labels = |phase: &PhaseSummary| [phase.leg.as_str(), phase.phase.as_str()];
        for phase in &summary.phases {
            series.add(&PHASE_SUCCESS, labels(phase), [phase.success]);
        }
        // Where there is no room for all, those of the token service's connection give way.
        let mut by_weight: Vec<&PhaseSummary> = summary.phases.iter().collect();
        by_weight.sort_by_key(|phase| phase.leg == Role::Token);
        for phase in by_weight {
            series.add(&PHASE_DURATION, labels(phase), [phase.took]);
        }
    }
    series.0.truncate(SERIES_A_TARGET);
    series
}

#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
fn of_transfer<'a>(newest: &Rates<'_>, watched: &'a Watched, series: &mut Series<'a>) {
    let (target, history) = (&watched.target, &watched.history);
    series.add(&IMAGE_BYTES, [], history.image.map(|image| image.0));
    let required = target.required(history.image);
    series.add(&REQUIRED, [], required);
    let rate = watched.rate(newest).filter(|rate| *rate > 0.0);
    let estimate = history
        .image
        .zip(rate)
        .map(|(image, rate)| image.0 as f64 / rate);
    series.add(&ESTIMATED_PULL, [], estimate);
    let is_short = required.zip(rate).map(|(required, rate)| rate < required);
    series.add(&INSUFFICIENT, [], is_short);
    let Some(transfer) = &history.transfer else {
        return;
    };
    series.add(&FIRST_BYTE, [], transfer.first_byte);
    let Some(rates) = &transfer.rates else {
        return;
    };
    if let Some(cause) = rates.bound_by {
        series.add(&BOTTLENECK, [cause.code()], [1.0]);
    }
    // A disturbed rate is not what the way gives.
    if rates.disturbed.is_some() {
        return;
    }
    for (streams, rate) in [("one", rates.one), ("all", rates.all)] {
        series.add(
            &TRANSFER_RATE,
            [streams],
            rate.map(|rate| rate.bytes_per_second),
        );
    }
    let is_cap = matches!(
        rates.bound_by,
        Some(Cause::BwCap | Cause::BwEipCap | Cause::BwNode | Cause::BwThrottle)
    );
    let lasting = rates.rate().filter(|rate| rate.is_sustained && is_cap);
    series.add(&CAP, [], lasting.map(|rate| rate.bytes_per_second));
}

fn of_registries(store: &TargetStore, page: &mut Page) {
    let all = || store.registries.iter().map(|(name, one)| (&**name, one));
    let durations = all().flat_map(|(name, registry)| {
        let phases = registry.phases.iter();
        phases.map(move |(phase, histogram)| ([name, phase.as_str()], histogram))
    });
    page.add(&CHECK_DURATION, durations);
    let count = |page: &mut Page, family, value: fn(&RegistryStats) -> Option<u64>| {
        let all = all().filter_map(|(name, registry)| Some(([name], value(registry)?)));
        page.add(family, all);
    };
    count(page, &PATH_CHANGES, |registry| Some(registry.path_changes));
    let certificates = store.certificates();
    let ends = certificates.iter();
    page.add(
        &CERTIFICATE_EXPIRY,
        ends.map(|((name, leg), at)| ([&**name, leg.as_str()], *at)),
    );
    count(page, &RATE_LIMIT, |registry| {
        registry.rate_limit.as_ref()?.limit
    });
    count(page, &RATE_LIMIT_REMAINING, |registry| {
        registry.rate_limit.as_ref()?.remaining
    });
    count(page, &RATE_LIMIT_WINDOW, |registry| {
        registry.rate_limit.as_ref()?.window_seconds
    });
    let rates = all().map(|(name, registry)| ([name], &registry.throughput));
    page.add(&TRANSFER_THROUGHPUT, rates);
    count(page, &TRANSFER_SPENT, |registry| Some(registry.spent));
    count(page, &REQUESTS, |registry| Some(registry.requests));
}

fn of_process(store: &TargetStore, page: &mut Page) {
    let counters = &store.counters;
    page.add(&FINDINGS, by(&counters.findings));
    page.bare(&DECLARED, store.limits.declared);
    page.bare(&TARGETS, [store.targets.len()]);
    let checks = counters.runs.iter();
    page.add(
        &CHECKS,
        checks.map(|((tier, outcome), count)| ([tier.as_str(), outcome], *count)),
    );
    page.add(&SKIPPED, by(&counters.skipped));
    page.add(&ON_DEMAND, by(&counters.on_demand));
    page.bare(&MISSED, [counters.missed]);
    page.bare(&STARVED, [counters.starved]);
    page.bare(&PANICS, [counters.panics]);
    page.bare(&STATE_ERRORS, [counters.state_errors]);
    page.bare(&RUNNING, [counters.running]);
    page.bare(&LAG, [&store.lag]);
    page.bare(&BUDGET_LEFT, [store.limits.bytes_left.0]);
    page.bare(&BUDGET, [store.limits.bytes_a_day.0]);
    page.bare(&THROTTLED, machine::cpu().and_then(|cpu| cpu.throttled));
    if let Some(cluster) = &store.cluster {
        page.bare(&KUBERNETES_FOLLOWED, [cluster.state.is_following()]);
        let counts = [
            (["checked"], cluster.checked),
            (["over_the_most"], cluster.over.len()),
            (["platform"], cluster.platform.len()),
            (["out_of_scope"], cluster.out_of_scope),
            (["malformed"], cluster.malformed.len()),
        ];
        page.add(&KUBERNETES_IMAGES, counts);
    }
    let events = counters.events.lock();
    page.add(&EVENTS, by(&events.unwrap_or_else(PoisonError::into_inner)));
    of_node(store, page);
    if let Some(leases) = &store.leases {
        page.add(&SPREAD_TURNS, by(&counters.slots));
        let is_asked = *leases != State::Unknown;
        let answered = is_asked.then_some(leases.is_following());
        page.bare(&SPREAD_REACHABLE, answered);
    }
    page.bare(&RELOAD_SUCCESSFUL, [store.reload.error.is_none()]);
    page.bare(&RELOAD_SUCCESS_AT, [store.reload.success_at]);
    process(page, &BUILD_INFO);
}

/// Counts by the value of their only label.
fn by(counts: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = ([&'static str; 1], u64)> {
    counts.iter().map(|(value, count)| ([*value], *count))
}

/// This node, as the cluster knows it.
fn of_node(store: &TargetStore, page: &mut Page) {
    let own = store.own_node.as_ref();
    let Some(facts) = own.and_then(|own| own.facts.as_deref()) else {
        return;
    };
    let info = [&facts.runtime, &facts.kubelet, &facts.zone];
    let info = info.map(|said| said.as_deref().unwrap_or_default());
    page.add(&NODE_INFO, [(info, 1.0)]);
    page.bare(&NODE_CREATED, facts.created);
    page.bare(&NODE_UNSCHEDULABLE, [facts.unschedulable]);
}

fn vantage(network: NetworkView) -> &'static str {
    match network {
        NetworkView::Machine => "machine",
        NetworkView::Node => "node",
        NetworkView::Pod => "pod",
        NetworkView::PodOrNode => "pod_or_node",
    }
}

/// docs/metrics.md as far as it is of the daemon, from the table above.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for (title, is_here) in [
        (
            "Of a target",
            (|labels| labels.contains(&"target")) as fn(&[&str]) -> bool,
        ),
        ("Of a registry", |labels| {
            labels.contains(&"registry") && !labels.contains(&"target")
        }),
        ("Of the daemon", |labels| {
            !labels.contains(&"registry") && !labels.contains(&"target")
        }),
    ] {
        let families = FAMILIES.iter().filter(|family| is_here(family.labels));
        table(&mut text, title, families);
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "# Metrics

`pullpath run` serves these at `/metrics`, in Prometheus' text format. Units are base units and stand in
the name. What was not measured is absent, never 0. Names are public: a change is in the CHANGELOG.

Labels are small and closed: `target` is the name of a target in the configuration, or of an image that
pods want (docs/kubernetes.md: registry, repository, and the names of its Secrets), `registry` the domain of its image, `leg` is `registry`, `token` or `blob`; `phase` is `resolve`, `connect`, `tls` (as
blackbox_exporter names them), `ping` (`GET /v2/`), `token`, `manifest` or `blob`; `class` is one of
docs/paths.md, `cause` one of docs/causes.md; `severity` is `info`, `warning` or `critical`,
`confidence` `low`, `medium` or `high`; `vantage` is `machine`, `node`, `pod` or `pod_or_node`. No label
holds an address, a tag, a digest or a message. A target has at most 40 series: where three hosts, wishes
for all of them and several findings would make more, the durations of the token service's leg give way.
";

const TAIL: &str = "
`process_*` are those of every Prometheus client: processor time, memory, file descriptors, start time.

`/probe?target=NAME` answers with the first table alone, for one target and after a check made for the
question, and with `probe_success` and `probe_duration_seconds` as blackbox_exporter has them.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for family in FAMILIES {
            family.check_name();
        }
    }
}
