//! What is known, in Prometheus' text format: made from the store at each scrape, so that a target
//! which is gone takes its series along.

use std::collections::BTreeSet;
use std::ptr;
use std::sync::PoisonError;

use crate::daemon::store::summary::PhaseSummary;
use crate::daemon::store::targets::{LeaseAccess, Rates, TargetStore, Watched};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Confidence;
use crate::diagnose::path::is_met;
use crate::model::endpoint::Role;
use crate::model::vantage::NetworkView;
use crate::net::machine;
use crate::serving::metrics::{
    Family, Page, counter, families, gauge, histogram_of, label, process, seconds, table, truth,
};

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
        let metrics = targets.iter().flat_map(|(name, series)| {
            let of_family = series.0.iter().filter(|one| ptr::eq(one.family, *family));
            of_family.map(move |one| {
                let values = std::iter::once(*name).chain(one.values);
                let labels = family.labels.iter().zip(values);
                gauge(
                    labels.map(|(key, value)| label(key, value)).collect(),
                    one.value,
                )
            })
        });
        page.add(family, metrics);
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
    values: [&'a str; LABELS],
    value: f64,
}

impl<'a> Series<'a> {
    fn add<const N: usize>(&mut self, family: &'static Family, of: [&'a str; N], value: f64) {
        debug_assert_eq!(family.labels.len(), N + 1, "{}", family.name);
        let mut values = [""; LABELS];
        values[..N].copy_from_slice(&of);
        self.0.push(One {
            family,
            values,
            value,
        });
    }
}

fn of_target<'a>(store: &TargetStore, rates: &Rates<'_>, watched: &'a Watched) -> Series<'a> {
    let (target, history) = (&watched.target, &watched.history);
    let mut series = Series(Vec::with_capacity(SERIES_A_TARGET));
    let registry = &*target.registry;
    series.add(&TARGET_INFO, [registry], 1.0);
    if let Some(ready) = history.is_ready() {
        series.add(&PULL_READY, [registry], truth(ready));
    }
    if history.checked.is_some() {
        #[expect(clippy::cast_precision_loss, reason = "below 2^53")]
        series.add(
            &CONSECUTIVE_FAILURES,
            [],
            history.consecutive_failures as f64,
        );
    }
    if let Some(at) = history.last_success {
        series.add(&LAST_SUCCESS, [], seconds(at));
    }
    if let Some(deferred) = &history.deferred {
        series.add(&HELD_BACK, [deferred.reason], 1.0);
    }
    let mut told = BTreeSet::new();
    for finding in history.findings() {
        let leg = finding.leg.map_or("", Role::as_str);
        if told.len() < FINDINGS_A_TARGET && told.insert((leg, finding.cause.code())) {
            let severity = finding.severity.as_str();
            series.add(&FINDING, [leg, finding.cause.code(), severity], 1.0);
        }
    }
    for path in history.paths() {
        series.add(
            &PATH_INFO,
            [
                registry,
                path.leg.as_str(),
                path.class.as_str(),
                confidence(path.confidence),
                vantage(store.network),
            ],
            1.0,
        );
    }
    for path in history.paths() {
        if !target.expect.class.is_empty() {
            let met = is_met(path.class, &target.expect.class);
            series.add(&PATH_EXPECTED, [path.leg.as_str()], truth(met));
        }
    }
    of_transfer(rates, watched, &mut series);
    if let Some(summary) = &history.summary {
        if let Some(at) = summary.credential {
            series.add(&CREDENTIAL_EXPIRY, [], seconds(at));
        }
        let labels = |phase: &PhaseSummary| [phase.leg.as_str(), phase.phase.as_str()];
        for phase in &summary.phases {
            series.add(&PHASE_SUCCESS, labels(phase), truth(phase.success));
        }
        // Where there is no room for all, those of the token service's connection give way.
        let mut by_weight: Vec<&PhaseSummary> = summary.phases.iter().collect();
        by_weight.sort_by_key(|phase| phase.leg == Role::Token);
        for phase in by_weight {
            series.add(&PHASE_DURATION, labels(phase), phase.took.as_secs_f64());
        }
    }
    series.0.truncate(SERIES_A_TARGET);
    series
}

#[expect(clippy::cast_precision_loss, reason = "sizes are below 2^53")]
fn of_transfer<'a>(newest: &Rates<'_>, watched: &'a Watched, series: &mut Series<'a>) {
    let (target, history) = (&watched.target, &watched.history);
    if let Some(image) = history.image {
        series.add(&IMAGE_BYTES, [], image.0 as f64);
    }
    let required = target.required(history.image);
    if let Some(required) = required {
        series.add(&REQUIRED, [], required);
    }
    let rate = watched.rate(newest).filter(|rate| *rate > 0.0);
    if let Some((image, rate)) = history.image.zip(rate) {
        series.add(&ESTIMATED_PULL, [], image.0 as f64 / rate);
    }
    if let Some((required, rate)) = required.zip(rate) {
        series.add(&INSUFFICIENT, [], truth(rate < required));
    }
    let Some(transfer) = &history.transfer else {
        return;
    };
    if let Some(first_byte) = transfer.first_byte {
        series.add(&FIRST_BYTE, [], first_byte.as_secs_f64());
    }
    let Some(rates) = &transfer.rates else {
        return;
    };
    if let Some(cause) = rates.bound_by {
        series.add(&BOTTLENECK, [cause.code()], 1.0);
    }
    // A disturbed rate is not what the way gives.
    if rates.disturbed.is_some() {
        return;
    }
    for (streams, rate) in [("one", rates.one), ("all", rates.all)] {
        if let Some(rate) = rate {
            series.add(&TRANSFER_RATE, [streams], rate.bytes_per_second);
        }
    }
    let is_cap = matches!(
        rates.bound_by,
        Some(Cause::BwCap | Cause::BwEipCap | Cause::BwNode | Cause::BwThrottle)
    );
    let lasting = rates
        .all
        .or(rates.one)
        .filter(|rate| rate.is_sustained && is_cap);
    if let Some(rate) = lasting {
        series.add(&CAP, [], rate.bytes_per_second);
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn of_registries(store: &TargetStore, page: &mut Page) {
    let all = || store.registries.iter();
    let durations = all().flat_map(|(name, registry)| {
        registry.phases.iter().map(move |(phase, histogram)| {
            let labels = vec![label("registry", name), label("phase", phase.as_str())];
            histogram_of(labels, histogram)
        })
    });
    page.add(&CHECK_DURATION, durations);
    let count = |value: &dyn Fn(&crate::daemon::store::targets::RegistryStats) -> u64| {
        all()
            .map(|(name, registry)| counter(vec![label("registry", name)], value(registry) as f64))
            .collect::<Vec<_>>()
    };
    page.add(&PATH_CHANGES, count(&|registry| registry.path_changes));
    let certificates = store.certificates();
    let ends = certificates.iter().map(|((name, leg), at)| {
        let labels = vec![label("registry", name), label("leg", leg.as_str())];
        gauge(labels, seconds(*at))
    });
    page.add(&CERTIFICATE_EXPIRY, ends);
    for (family, value) in [
        (
            &RATE_LIMIT,
            (|limit| limit.limit) as fn(&crate::model::evidence::RateLimit) -> Option<u64>,
        ),
        (&RATE_LIMIT_REMAINING, |limit| limit.remaining),
        (&RATE_LIMIT_WINDOW, |limit| limit.window_seconds),
    ] {
        let said = all().filter_map(|(name, registry)| {
            let value = value(registry.rate_limit.as_ref()?)?;
            Some(gauge(vec![label("registry", name)], value as f64))
        });
        page.add(family, said);
    }
    let rates = all()
        .map(|(name, registry)| histogram_of(vec![label("registry", name)], &registry.throughput));
    page.add(&TRANSFER_THROUGHPUT, rates);
    page.add(&TRANSFER_SPENT, count(&|registry| registry.spent));
    page.add(&REQUESTS, count(&|registry| registry.requests));
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn of_process(store: &TargetStore, page: &mut Page) {
    let counters = &store.counters;
    let by = |key: &'static str, counts: &std::collections::BTreeMap<&'static str, u64>| {
        let counted = counts
            .iter()
            .map(|(value, count)| counter(vec![label(key, value)], *count as f64));
        counted.collect::<Vec<_>>()
    };
    page.add(&FINDINGS, by("cause", &counters.findings));
    page.add(
        &DECLARED,
        store.limits.declared.map(|rate| gauge(vec![], rate)),
    );
    page.add(&TARGETS, vec![gauge(vec![], store.targets.len() as f64)]);
    let checks = counters.runs.iter().map(|((tier, outcome), count)| {
        counter(
            vec![label("tier", tier.as_str()), label("outcome", outcome)],
            *count as f64,
        )
    });
    page.add(&CHECKS, checks);
    page.add(&SKIPPED, by("reason", &counters.skipped));
    page.add(&ON_DEMAND, by("outcome", &counters.on_demand));
    for (family, count) in [
        (&MISSED, counters.missed),
        (&STARVED, counters.starved),
        (&PANICS, counters.panics),
        (&STATE_ERRORS, counters.state_errors),
    ] {
        page.add(family, vec![counter(vec![], count as f64)]);
    }
    page.add(&RUNNING, vec![gauge(vec![], counters.running as f64)]);
    page.add(&LAG, vec![histogram_of(vec![], &counters.lag)]);
    page.add(
        &BUDGET_LEFT,
        vec![gauge(vec![], store.limits.bytes_left.0 as f64)],
    );
    page.add(
        &BUDGET,
        vec![gauge(vec![], store.limits.bytes_a_day.0 as f64)],
    );
    let throttled = machine::cpu().and_then(|cpu| cpu.throttled);
    page.add(
        &THROTTLED,
        throttled.map(|time| counter(vec![], time.as_secs_f64())),
    );
    if let Some(cluster) = &store.cluster {
        let followed = truth(cluster.state.is_following());
        page.add(&KUBERNETES_FOLLOWED, [gauge(vec![], followed)]);
        let counts = [
            ("checked", cluster.checked),
            ("over_the_most", cluster.over.len()),
            ("platform", cluster.platform.len()),
            ("out_of_scope", cluster.out_of_scope),
            ("malformed", cluster.malformed.len()),
        ];
        let counts = counts.map(|(state, count)| gauge(vec![label("state", state)], count as f64));
        page.add(&KUBERNETES_IMAGES, counts);
    }
    let events = counters.events.lock();
    let events = events.unwrap_or_else(PoisonError::into_inner).clone();
    page.add(&EVENTS, by("outcome", &events));
    of_node(store, page);
    if let Some(leases) = &store.leases {
        page.add(&SPREAD_TURNS, by("by", &counters.slots));
        let is_asked = *leases != LeaseAccess::NotAsked;
        let answered = truth(*leases == LeaseAccess::Answered);
        page.add(&SPREAD_REACHABLE, is_asked.then(|| gauge(vec![], answered)));
    }
    page.add(
        &RELOAD_SUCCESSFUL,
        vec![gauge(vec![], truth(store.reload.error.is_none()))],
    );
    page.add(
        &RELOAD_SUCCESS_AT,
        vec![gauge(vec![], seconds(store.reload.success_at))],
    );
    process(page, &BUILD_INFO);
}

/// This node, as the cluster knows it.
fn of_node(store: &TargetStore, page: &mut Page) {
    let own = store.own_node.as_ref();
    let Some(facts) = own.and_then(|own| own.facts.as_deref()) else {
        return;
    };
    let info = [
        ("runtime", &facts.runtime),
        ("kubelet", &facts.kubelet),
        ("zone", &facts.zone),
    ];
    let info = info.map(|(name, said)| label(name, said.as_deref().unwrap_or_default()));
    page.add(&NODE_INFO, [gauge(info.to_vec(), 1.0)]);
    let created = facts.created.map(|at| gauge(vec![], seconds(at)));
    page.add(&NODE_CREATED, created);
    let cordoned = truth(facts.unschedulable);
    page.add(&NODE_UNSCHEDULABLE, [gauge(vec![], cordoned)]);
}

pub(super) fn confidence(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::Low => "low",
        Confidence::Medium => "medium",
        Confidence::High => "high",
    }
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
