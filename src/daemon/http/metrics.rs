//! The metrics of the daemon, rendered from the store at each scrape, so that the series of a removed target
//! disappear with it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::{fmt, ptr};

use jiff::Timestamp;

use crate::daemon::store::overview::TargetState;
use crate::daemon::store::summary::PhaseSummary;
use crate::daemon::store::targets::{Rates, RegistryStats, TargetStore, Watched};
use crate::diagnose::catalogue::Cause;
use crate::diagnose::path::leg_path::is_met;
use crate::kubernetes::watch::{View, WatchState};
use crate::model::endpoint::Role;
use crate::model::vantage::NetworkView;
use crate::net::machine;
use crate::own;
use crate::serving::listener::{Listeners, add_metrics};
use crate::serving::metrics::{Family, Page, Value, families, process, table};

families! {
    TARGET_INFO: gauge "pullpath_target_info" ["target", "registry"]
        "1 for each target. Use it to join the registry to other series of the target.";
    PULL_READY: gauge "pullpath_pull_ready" ["target", "registry"]
        "1: a pull would succeed, 0: it would fail, as of the newest check. Absent if the check could not decide, before the first check, and once a success is outdated.";
    TARGET_STATE: gauge "pullpath_target_state" ["target", "registry", "state"]
        "1 for the state of each target: `would_succeed`, `would_fail`, `unknown` (the newest check could not decide), `outdated` (it found that a pull would succeed, more than 5 minutes and two intervals ago), `not_checked` (no check has ended yet), `deferred` (the same, because the first one is deferred).";
    PHASE_SUCCESS: gauge "pullpath_phase_success" ["target", "leg", "phase"]
        "1: the phase succeeded in the newest check, 0: it failed. Absent if the phase was not reached or not required.";
    PHASE_DURATION: gauge "pullpath_phase_duration_seconds" ["target", "leg", "phase"]
        "Duration of the phase in the newest check, in seconds. Absent if the phase was not reached or not required.";
    PATH_INFO: gauge "pullpath_path_info" ["target", "registry", "leg", "class", "confidence", "vantage"]
        "1 for the path class of a leg, with the confidence of that class and the vantage point that observed it. Absent until a class is published.";
    PATH_EXPECTED: gauge "pullpath_path_expected" ["target", "leg"]
        "1: the leg's path class is one of `expect.class`, 0: it is not. Absent if the target has no `expect.class`.";
    FINDING: gauge "pullpath_finding" ["target", "leg", "cause", "severity"]
        "1 for each finding of the newest check and of the newest transfer test; at most the 6 worst of a target. `pullpath explain CAUSE` describes it. `leg` is empty if the finding concerns no single leg. Absent without findings.";
    CONSECUTIVE_FAILURES: gauge "pullpath_consecutive_failures" ["target"]
        "Consecutive checks that did not find a pull possible: it would fail, or the check could not decide. Checks that Pullpath's own limits kept from deciding are not counted. 0 after a check that found it possible. Absent before the first check.";
    LAST_SUCCESS: gauge "pullpath_last_success_timestamp_seconds" ["target"]
        "Unix time, in seconds, of the newest check that found a pull possible. Absent if none has.";
    CREDENTIAL_EXPIRY: gauge "pullpath_credential_expiry_timestamp_seconds" ["target"]
        "Unix time, in seconds, at which the credential in use expires. Absent if the credential does not state it.";
    IMAGE_BYTES: gauge "pullpath_image_bytes" ["target"]
        "Compressed size of the image's layers for the target's platform, in bytes. Absent until a manifest was read.";
    TRANSFER_RATE: gauge "pullpath_transfer_bytes_per_second" ["target", "streams"]
        "Download rate of the newest transfer test, in bytes per second: of one connection (`streams` is `one`), and of all that containerd would open (`all`). Absent without a test, and if other traffic disturbed it.";
    FIRST_BYTE: gauge "pullpath_transfer_first_byte_seconds" ["target"]
        "Time from the request for a layer to its first byte in the newest transfer test, in seconds. Absent without a test.";
    CAP: gauge "pullpath_bandwidth_cap_bytes_per_second" ["target"]
        "Rate that a bandwidth limit holds downloads to, in bytes per second. Absent if the newest transfer test found no limit.";
    REQUIRED: gauge "pullpath_bandwidth_required_bytes_per_second" ["target"]
        "Expected rate, in bytes per second: `expect.throughput_mbit`, or the rate that `expect.pull_within` requires. Absent if neither is set, or the second one and the image size is unknown.";
    INSUFFICIENT: gauge "pullpath_bandwidth_insufficient" ["target"]
        "1: the measured rate is below the expected one, 0: it is not. Absent without an expectation or a measured rate.";
    BOTTLENECK: gauge "pullpath_bottleneck" ["target", "cause"]
        "1 for the cause that limits the rate of the newest transfer test. Absent without a test, and if the cause is unknown.";
    ESTIMATED_PULL: gauge "pullpath_estimated_pull_seconds" ["target"]
        "Estimated download time of the image's layers, in seconds, without unpacking: at the rate measured for this image, else at the newest rate of its registry. Absent without a rate.";
    DEFERRED: gauge "pullpath_check_deferred" ["target", "reason"]
        "1 if a `reach` or `path` check was due and was deferred, with the reason. Absent again after the next check.";
    CHECK_DURATION: histogram "pullpath_check_duration_seconds" ["registry", "phase"]
        "Duration of a phase, in seconds, summed over all legs of a check. CPU-starved checks are not counted.";
    PATH_CHANGES: counter "pullpath_path_changes_total" ["registry"]
        "Changes of a published path class.";
    CERTIFICATE_EXPIRY: gauge "pullpath_tls_certificate_expiry_timestamp_seconds" ["registry", "leg"]
        "Unix time, in seconds, at which the first certificate of all presented chains expires. Absent without TLS.";
    RATE_LIMIT: gauge "pullpath_rate_limit" ["registry"]
        "Requests that the registry allows in a window, as last reported by the registry. Absent if it reports none.";
    RATE_LIMIT_REMAINING: gauge "pullpath_rate_limit_remaining" ["registry"]
        "Requests left in the window, as last reported by the registry. Absent if it reports none.";
    RATE_LIMIT_WINDOW: gauge "pullpath_rate_limit_window_seconds" ["registry"]
        "Length of the rate limit's window, in seconds. Absent if the registry does not report it.";
    TRANSFER_THROUGHPUT: histogram "pullpath_transfer_throughput_bytes_per_second" ["registry"]
        "Rates of transfer tests, in bytes per second, with the buckets of containerd's image_pulling_throughput.";
    TRANSFER_SPENT: counter "pullpath_transfer_spent_bytes_total" ["registry"]
        "Bytes that transfer tests have downloaded.";
    REQUESTS: counter "pullpath_requests_total" ["registry"]
        "Requests that checks have sent to the registry, its token service and its blob storage.";
    FINDINGS: counter "pullpath_findings_total" ["cause"]
        "Findings that have appeared.";
    DECLARED: gauge "pullpath_bandwidth_declared_bytes_per_second" []
        "Bandwidth that was bought, in bytes per second, from `network.eip_bandwidth_mbit`. Absent if that is not set.";
    TARGETS: gauge "pullpath_targets" []
        "Number of targets.";
    CHECKS: counter "pullpath_checks_total" ["tier", "outcome"]
        "Checks made, by tier and outcome: `would_succeed`, `would_fail`, `unknown`, `timed_out`, `panicked`.";
    SKIPPED: counter "pullpath_checks_skipped_total" ["reason"]
        "Times that a check was due and was not made, by reason. A check that is postponed again counts again.";
    ON_DEMAND: counter "pullpath_on_demand_total" ["outcome"]
        "Images requested at the admin address, by outcome: those of checks, or `not_allowed`, `no_pod`, `busy`, `too_many`, `deferred`. They are counted in no other metric of this page.";
    MISSED: counter "pullpath_checks_missed_total" []
        "Scheduled checks that were left out because an earlier check of the same target was still running.";
    STARVED: counter "pullpath_checks_starved_total" []
        "CPU-starved checks: they started more than 1 s late although fewer than `budgets.checks_at_once` were running, or the CPU limit stopped the process for more than 5 % of the time.";
    OWN_LIMITS: counter "pullpath_own_limits_total" ["limit"]
        "Checks that a limit of the daemon's own process left unknown, by limit: `open_files`, `node_files`, `memory`, `processes`, `ports`, `cpu` (a check waited for CPU instead of the network), `deadline` (longer than `schedule.check_timeout`). A check that met a limit and still found that a pull works or fails is not counted.";
    RUNNING: gauge "pullpath_checks_running" []
        "Checks running now.";
    PANICS: counter "pullpath_check_panics_total" []
        "Checks that ended in a panic, which is a bug in Pullpath.";
    LAG: histogram "pullpath_scheduler_lag_seconds" []
        "Delay between the scheduled and the actual start of checks, in seconds.";
    BUDGET_REMAINING: gauge "pullpath_budget_remaining_bytes" []
        "Bytes that transfer tests may still download today (UTC).";
    BUDGET: gauge "pullpath_budget_bytes_per_day" []
        "Bytes that transfer tests may download per day (`budgets.node_bytes_per_day`).";
    THROTTLED: counter "pullpath_throttled_seconds_total" []
        "Time that the CPU limit has stopped this container, in seconds. Absent if the kernel does not report it.";
    STATE_ERRORS: counter "pullpath_state_errors_total" []
        "Failed writes of the state file in `state_dir`.";
    KUBERNETES_WATCH_UP: gauge "pullpath_kubernetes_watch_up" []
        "1: the watch of this node's pods is up, 0: it is down, and the images that pods last requested are still checked. Absent with `kubernetes.discover: off`.";
    KUBERNETES_IMAGES: gauge "pullpath_kubernetes_images" ["state"]
        "Repositories used by pods of this node, by what is done with them: `checked`, `over_limit` (beyond kubernetes.max_targets), `platform`, `out_of_scope` (counted per container), `malformed`. Absent before the API server has answered, and with `kubernetes.discover: off`.";
    KUBERNETES_CROWDED: gauge "pullpath_kubernetes_crowded_namespaces" []
        "Namespaces whose pods wait for images that are not checked, because they want more than their share of kubernetes.max_targets. Each such pod has an Event about it (`kubernetes.events: pods`). Absent before the API server has answered, and with `kubernetes.discover: off`.";
    EVENTS: counter "pullpath_events_published_total" ["outcome"]
        "Events on pods that wait for an image, by outcome: `created`, `counted` (an existing Event was updated), `limited` (too many in a minute: it waited first), `dropped` (the API server is slow), `forbidden`, `failed`.";
    NODE_INFO: gauge "pullpath_node_info" ["runtime", "kubelet", "zone"]
        "1 for this node, with its container runtime and kubelet, their versions, and its zone. Absent until the Node was read from the API server.";
    NODE_CREATED: gauge "pullpath_node_created_timestamp_seconds" []
        "Unix time, in seconds, at which this node joined the cluster; failures on a new node may be temporary. Absent until the Node was read.";
    NODE_UNSCHEDULABLE: gauge "pullpath_node_unschedulable" []
        "1: this node is cordoned, 0: it is not. Absent until the Node was read from the API server.";
    SPREAD_SLOTS: counter "pullpath_spread_slots_total" ["by"]
        "Transfer tests that this node made for its egress group, by what allowed them: `lease`, or `alone` (no other node shares the path). Absent with `spread.transfers: off`.";
    SPREAD_REACHABLE: gauge "pullpath_spread_leases_reachable" []
        "1: the API server answered the newest request for a Lease, 0: it did not answer or refused, and transfer tests are skipped. Absent before the first request, and with `spread.transfers: off`.";
    RELOAD_SUCCESSFUL: gauge "pullpath_config_last_reload_successful" []
        "1: the newest configuration is in force, 0: it was rejected, and the one before it is still in force.";
    RELOAD_SUCCESS_AT: gauge "pullpath_config_last_reload_success_timestamp_seconds" []
        "Unix time, in seconds, at which the configuration in force was loaded.";
    HTTP_CONNECTIONS: gauge "pullpath_http_connections" ["listener"]
        "Open connections of a listener: `public` (`listen`) or `admin` (`admin_listen`).";
    HTTP_LIMITED: counter "pullpath_http_limited_total" ["listener", "reason"]
        "Connections that were closed and requests that were refused because of a bound of the listener (docs/security.md): `evicted` (for a newer connection), `no_files` (the process has no more files), `refused` (status 503), `slow_reader`, `slow_request`.";
    BUILD_INFO: gauge "pullpath_build_info" ["version", "commit"]
        "1 for the running program, with its version and commit.";
}

/// Maximum of series of one target.
const SERIES_A_TARGET: usize = 40;

/// Maximum of labels of a target's series, without those that all series of the target share.
const LABELS: usize = 3;

/// Maximum of findings of one target that become series; the worst ones.
const FINDINGS_A_TARGET: usize = 6;

/// All metrics of the daemon in Prometheus' text format.
pub fn write(store: &TargetStore, listeners: &Listeners, now: Timestamp, to: &mut dyn fmt::Write) {
    let mut page = Page(to);
    of_targets(store, store.targets.iter(), now, &mut page);
    of_registries(store, &mut page);
    of_process(store, &mut page);
    let of = [&*listeners.public, &*listeners.admin];
    add_metrics(&mut page, &HTTP_CONNECTIONS, &HTTP_LIMITED, of);
    process(&mut page, &BUILD_INFO);
}

/// The metrics of one target.
pub fn write_target(store: &TargetStore, name: &str, now: Timestamp, to: &mut dyn fmt::Write) {
    of_targets(store, store.targets.get_key_value(name), now, &mut Page(to));
}

fn of_targets<'a>(
    store: &'a TargetStore,
    targets: impl IntoIterator<Item = (&'a Arc<str>, &'a Watched)>,
    now: Timestamp,
    page: &mut Page<'_>,
) {
    let rates = store.rates();
    let vantage = vantage(store.network);
    let mut names = Vec::new();
    // The series of each family, with the place of their target in `names`.
    let mut found: Vec<Vec<(usize, TargetSeries)>> = FAMILIES.iter().map(|_| Vec::new()).collect();
    for (name, watched) in targets {
        for one in of_target(&rates, watched, now).0 {
            let is_of = |family: &&Family| ptr::eq(*family, one.family);
            if let Some(family) = FAMILIES.iter().position(is_of) {
                found[family].push((names.len(), one));
            }
        }
        names.push((&**name, &*watched.target.registry));
    }
    for (family, series) in FAMILIES.iter().zip(found) {
        let all = series.iter().map(|(target, one)| {
            let (name, registry) = names[*target];
            let mut own = one.labels.iter().copied();
            let labels = family.labels.iter().map(move |label| match *label {
                "target" => name,
                "registry" => registry,
                "vantage" => vantage,
                _ => own.next().unwrap_or_default(),
            });
            (labels, one.value)
        });
        page.add(family, all);
    }
}

/// Series of one target, the most useful first.
struct Series(Vec<TargetSeries>);

struct TargetSeries {
    family: &'static Family,
    /// Values of the labels other than `target`, `registry` and `vantage`, in the family's order.
    labels: [&'static str; LABELS],
    value: Value<'static>,
}

impl Series {
    fn add<const N: usize, V: Into<Value<'static>>>(
        &mut self,
        family: &'static Family,
        of: [&'static str; N],
        value: impl IntoIterator<Item = V>,
    ) {
        let mut labels = [""; LABELS];
        labels[..N].copy_from_slice(&of);
        self.0.extend(value.into_iter().map(|value| TargetSeries {
            family,
            labels,
            value: value.into(),
        }));
    }
}

fn of_target(rates: &Rates<'_>, watched: &Watched, now: Timestamp) -> Series {
    let (target, history) = (&watched.target, &watched.history);
    let mut series = Series(Vec::with_capacity(SERIES_A_TARGET));
    series.add(&TARGET_INFO, [], [1.0]);
    let state = TargetState::of(watched, now);
    series.add(&PULL_READY, [], state.is_ready());
    series.add(&TARGET_STATE, [state.as_str()], [1.0]);
    let failures = history.checked.map(|_| history.consecutive_failures);
    series.add(&CONSECUTIVE_FAILURES, [], failures);
    series.add(&LAST_SUCCESS, [], history.last_success);
    if let Some(deferred) = &history.deferred {
        series.add(&DEFERRED, [deferred.reason], [1.0]);
    }
    let mut published = BTreeSet::new();
    for finding in history.findings() {
        let leg = finding.leg.map_or("", Role::as_str);
        if published.len() < FINDINGS_A_TARGET && published.insert((leg, finding.cause.code())) {
            let severity = finding.severity.as_str();
            series.add(&FINDING, [leg, finding.cause.code(), severity], [1.0]);
        }
    }
    for path in history.paths() {
        let (leg, class) = (path.leg.as_str(), path.class.as_str());
        let confidence = path.confidence.as_str();
        series.add(&PATH_INFO, [leg, class, confidence], [1.0]);
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
        // Above the maximum, the durations of the token leg are dropped.
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
fn of_transfer(newest: &Rates<'_>, watched: &Watched, series: &mut Series) {
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
    // A disturbed rate is not that of the path.
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

fn of_registries(store: &TargetStore, page: &mut Page<'_>) {
    let all = || store.registries.iter().map(|(name, one)| (&**name, one));
    let durations = all().flat_map(|(name, registry)| {
        let phases = registry.phases.iter();
        phases.map(move |(phase, histogram)| ([name, phase.as_str()], histogram))
    });
    page.add(&CHECK_DURATION, durations);
    let count = |page: &mut Page<'_>, family, value: fn(&RegistryStats) -> Option<u64>| {
        let all = all().filter_map(|(name, registry)| Some(([name], value(registry)?)));
        page.add(family, all);
    };
    count(page, &PATH_CHANGES, |registry| Some(registry.path_changes));
    let certificates = store.certificates();
    let expiries = certificates.iter();
    page.add(
        &CERTIFICATE_EXPIRY,
        expiries.map(|((name, leg), at)| ([&**name, leg.as_str()], *at)),
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

fn of_process(store: &TargetStore, page: &mut Page<'_>) {
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
    let own = own::counts().map(|(limit, count)| ([limit.as_str()], count));
    page.add(&OWN_LIMITS, own);
    page.bare(&PANICS, [counters.panics]);
    page.bare(&STATE_ERRORS, [counters.state_errors]);
    page.bare(&RUNNING, [counters.running]);
    page.bare(&LAG, [&store.lag]);
    page.bare(&BUDGET_REMAINING, [store.limits.bytes_left.0]);
    page.bare(&BUDGET, [store.limits.bytes_a_day.0]);
    page.bare(&THROTTLED, machine::cpu().and_then(|cpu| cpu.throttled));
    if let Some(cluster) = &store.cluster {
        page.bare(&KUBERNETES_WATCH_UP, [cluster.state.is_following()]);
        let found = &cluster.found;
        let counts = [
            (["checked"], found.wanted.len()),
            (["over_limit"], found.over.len()),
            (["platform"], found.platform.len()),
            (["out_of_scope"], found.out_of_scope),
            (["malformed"], found.malformed.len()),
        ];
        let is_known = cluster.state != WatchState::Unknown;
        page.add(&KUBERNETES_IMAGES, counts.into_iter().filter(|_| is_known));
        let crowded = found.crowded_namespaces().len();
        page.bare(&KUBERNETES_CROWDED, is_known.then_some(crowded));
    }
    page.add(&EVENTS, by(&counters.events.outcomes.borrow()));
    of_node(store, page);
    if let Some(leases) = &store.leases {
        page.add(&SPREAD_SLOTS, by(&counters.slots));
        let is_known = *leases != WatchState::Unknown;
        let answered = is_known.then_some(leases.is_following());
        page.bare(&SPREAD_REACHABLE, answered);
    }
    page.bare(&RELOAD_SUCCESSFUL, [store.reload.error.is_none()]);
    page.bare(&RELOAD_SUCCESS_AT, [store.reload.success_at]);
}

/// Counts by the value of their only label.
fn by(counts: &BTreeMap<&'static str, u64>) -> impl Iterator<Item = ([&'static str; 1], u64)> {
    counts.iter().map(|(value, count)| ([*value], *count))
}

/// Facts about this node from the API server.
fn of_node(store: &TargetStore, page: &mut Page<'_>) {
    let Some(facts) = store.own_node.as_ref().and_then(View::only) else {
        return;
    };
    let info = [&facts.runtime, &facts.kubelet, &facts.zone];
    let info = info.map(|text| text.as_deref().unwrap_or_default());
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

/// The part of docs/metrics.md about the daemon, from the table above.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    for (title, is_in_table) in [
        (
            "Targets",
            (|labels| labels.contains(&"target")) as fn(&[&str]) -> bool,
        ),
        ("Registries", |labels| {
            labels.contains(&"registry") && !labels.contains(&"target")
        }),
        ("The daemon", |labels| {
            !labels.contains(&"registry") && !labels.contains(&"target")
        }),
    ] {
        let families = FAMILIES.iter().filter(|family| is_in_table(family.labels));
        table(&mut text, title, families);
    }
    text.push_str(TAIL);
    text
}

const HEAD: &str = "# Metrics

`pullpath run` and `pullpath cluster` serve metrics at `/metrics`, in Prometheus' text format. [monitoring.md](monitoring.md)
has the dashboards and alerts that use them.

- **Units** are base units (seconds, bytes), and part of the name.
- **Absent** means not measured; it is never reported as 0.
- **Names** are a public interface: the [CHANGELOG](../CHANGELOG.md) lists each change.

| label | value |
|---|---|
| `target` | the name of a target in the configuration, or of an image that pods use: registry, repository and the names of its Secrets ([kubernetes.md](kubernetes.md)) |
| `registry` | the domain of the image |
| `leg` | `registry`, `token` or `blob` |
| `phase` | `resolve`, `connect`, `tls` (named as in blackbox_exporter), `ping` (`GET /v2/`), `token`, `manifest` or `blob` |
| `class` | a path class of [paths.md](paths.md) |
| `cause` | a code of [causes.md](causes.md) |
| `severity` | `info`, `warning` or `critical` |
| `confidence` | `low`, `medium` or `high` |
| `vantage` | `machine`, `node`, `pod` or `pod_or_node` |
| `reason` | why a check is deferred or skipped; [configuration.md](configuration.md#when-a-check-is-deferred), [spread.md](spread.md) |

No label holds an address, a tag, a digest or a message. A target has at most 40 series. Three hosts, expectations for
all of them and several findings can exceed that; phase durations of the token leg are then dropped first.
";

const TAIL: &str = "
`process_*` are the standard ones of Prometheus clients: CPU time, memory, file descriptors, start time.

`/probe?target=NAME` checks one target now and returns the first table for it, with `probe_success` and
`probe_duration_seconds` as in blackbox_exporter.
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
