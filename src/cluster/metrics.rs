//! The metrics of the cluster role, rendered at each scrape.

use std::collections::BTreeMap;
use std::fmt;

use super::state::ClusterState;
use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::Severity;
use crate::kubernetes::watch::WatchState;
use crate::lint::Snapshot;
use crate::model::histogram::Histogram;
use crate::pulls::tally::Pair;
use crate::serving::listener::{Connections, add_metrics};
use crate::serving::metrics::{Page, families, process, table};

families! {
    DURATION: histogram "pullpath_real_pull_duration_seconds" ["registry", "node"]
        "Duration of real pulls, unpacking included, in seconds, as kubelets report it. Before Kubernetes 1.28 it includes the wait for other pulls.";
    WAITING: histogram "pullpath_real_pull_waiting_seconds" ["registry", "node"]
        "Time that real pulls waited for other pulls on their node, in seconds. Absent before Kubernetes 1.28.";
    THROUGHPUT: histogram "pullpath_real_pull_throughput_bytes_per_second" ["registry", "node"]
        "Image size divided by the duration of its pull, unpacking included, in bytes per second: of pulls of 5 s or more, once for each image and node. The size is the compressed one with containerd, the size on disk with CRI-O and docker. Absent before Kubernetes 1.30.";
    FAILURES: counter "pullpath_real_pull_failures_total" ["registry", "node", "cause"]
        "Failed real pulls, by the cause that the runtime's message shows; `unexplained` if no cause matches the message. `registry` is empty if the image reference is invalid, or if the node's runtime is at fault (`runtime_fault`).";
    FAILING: gauge "pullpath_real_pull_failing" ["registry", "cause"]
        "Containers that wait for an image whose pull fails, by the cause of the newest failure. Absent if none fails, and at a replica on standby.";
    SANDBOX_FAILING: gauge "pullpath_real_pull_sandbox_failing" ["node", "registry", "cause"]
        "Pods that can't start on this node because the image of their sandbox can't be pulled: no new pod starts there. Absent if none fails, and at a replica on standby.";
    SLOW: gauge "pullpath_real_pull_slow" ["registry", "node", "cause"]
        "1 if the newest real pulls are slow because they wait for each other (`serial_pull`), or because of the node's disk (`disk_unpack`, only with cluster.node_rates_mbit). Absent otherwise, and at a replica on standby.";
    SECRETS_MISSING: gauge "pullpath_real_pull_pods_missing_secrets" []
        "Pods that name pull Secrets which the kubelet could not read. Absent at a replica on standby.";
    OBSERVED: counter "pullpath_real_pull_events_total" ["kind"]
        "Occurrences of kubelet Events about images, by kind: `pulling`, `pulled`, `present`, `failed`, `sandbox_failed`, `still_failing`, `secrets_missing`, `never_pulled`, `not_inspected`.";
    UNKNOWN: counter "pullpath_real_pull_unmatched_messages_total" []
        "Failed real pulls whose message matches no cause; the status page shows the messages.";
    UNCOUNTED: counter "pullpath_real_pull_uncounted_total" []
        "Occurrences that are in no other metric because a bound was reached (cluster.max_pairs, or one of docs/pulls.md).";
    WORKLOADS: gauge "pullpath_workload_findings" ["namespace", "cause", "severity"]
        "Findings about workloads, service accounts and Secrets, made before any pull (cluster.lint). At most 500 series, of the worst findings. Absent with `cluster.lint: off`, and at a replica on standby.";
    WORKLOADS_UNREAD: gauge "pullpath_workload_lint_unread" []
        "Resources that lint could not read, so findings may be missing; the status page lists them. Absent with `cluster.lint: off`, and at a replica on standby.";
    CAUSE_INFO: gauge "pullpath_cause_info" ["cause", "title", "fix"]
        "1 for each cause of the catalogue, with its title and fix. Alerts read their `fix` annotation from it.";
    ACTIVE: gauge "pullpath_cluster_active" []
        "1: this replica holds the Lease and watches, 0: it is on standby.";
    WATCH_UP: gauge "pullpath_cluster_events_watch_up" []
        "1: the watch of Events is up, 0: it is down. Absent at a replica on standby, and with `cluster.events: off`.";
    PAIRS: gauge "pullpath_cluster_pairs" []
        "Pairs of registry and node that have series.";
    RELOAD_SUCCESSFUL: gauge "pullpath_config_last_reload_successful" []
        "1: the newest configuration is in force, 0: it was rejected, and the one before it is still in force.";
    RELOAD_SUCCESS_AT: gauge "pullpath_config_last_reload_success_timestamp_seconds" []
        "Unix time, in seconds, at which the configuration in force was loaded.";
    HTTP_CONNECTIONS: gauge "pullpath_http_connections" ["listener"]
        "Open connections of a listener: `public` (`listen`).";
    HTTP_LIMITED: counter "pullpath_http_limited_total" ["listener", "reason"]
        "Connections that were closed and requests that were refused because of a bound of the listener (docs/security.md): `evicted` (for a newer connection), `no_files` (the process has no more files), `refused` (status 503), `slow_reader`, `slow_request`.";
    BUILD_INFO: gauge "pullpath_build_info" ["version", "commit"]
        "1 for the running program, with its version and commit.";
}

/// All metrics of this replica, in Prometheus' text format.
pub fn write(state: &ClusterState, public: &Connections, to: &mut dyn fmt::Write) {
    let tally = &state.tally;
    let mut page = Page(to);
    let histograms = |of: fn(&Pair) -> &Histogram| {
        let all = tally.pairs.iter();
        all.filter(move |(_, pair)| of(pair).count() > 0)
            .map(move |((registry, node), pair)| ([&**registry, node], of(pair)))
    };
    page.add(&DURATION, histograms(|pair| &pair.duration));
    page.add(&WAITING, histograms(|pair| &pair.waiting));
    page.add(&THROUGHPUT, histograms(|pair| &pair.throughput));
    let failures = tally.pairs.iter().flat_map(|((registry, node), pair)| {
        let counts = pair.failures.iter();
        counts.map(move |(cause, count)| ([&**registry, node, cause.code()], *count))
    });
    page.add(&FAILURES, failures);
    if state.role.is_active() {
        of_now(state, &mut page);
    }
    let observed = tally.counts.iter().map(|(kind, count)| ([*kind], *count));
    page.add(&OBSERVED, observed);
    page.bare(&UNKNOWN, [tally.unknown_texts]);
    page.bare(&UNCOUNTED, [tally.uncounted]);
    // Every replica serves these: an alert must not lose its text while another replica takes over.
    let entries = Cause::ALL.iter().map(|cause| cause.entry());
    page.add(
        &CAUSE_INFO,
        entries.map(|entry| ([entry.code, entry.title, entry.fix], 1.0)),
    );
    page.bare(&ACTIVE, [state.role.is_active()]);
    page.bare(
        &WATCH_UP,
        state.events.as_ref().map(WatchState::is_following),
    );
    page.bare(&PAIRS, [tally.pairs.len()]);
    page.bare(&RELOAD_SUCCESSFUL, [state.reload.error.is_none()]);
    page.bare(&RELOAD_SUCCESS_AT, [state.reload.success_at]);
    add_metrics(&mut page, &HTTP_CONNECTIONS, &HTTP_LIMITED, [public]);
    process(&mut page, &BUILD_INFO);
}

/// Metrics that only the active replica has.
fn of_now(state: &ClusterState, page: &mut Page<'_>) {
    let tally = &state.tally;
    let mut failing: BTreeMap<(&str, Cause), u64> = BTreeMap::new();
    for one in tally.failing.values() {
        let cause = one.failure.cause.unwrap_or(Cause::Unexplained);
        *failing.entry((&one.registry, cause)).or_default() += 1;
    }
    let failing = failing.into_iter();
    page.add(
        &FAILING,
        failing.map(|((registry, cause), count)| ([registry, cause.code()], count)),
    );
    let mut sandboxes: BTreeMap<(&str, &str, Cause), u64> = BTreeMap::new();
    for one in tally.failing.values().filter(|one| one.failure.is_sandbox) {
        let cause = one.failure.cause.unwrap_or(Cause::Unexplained);
        *sandboxes
            .entry((&one.node, &one.registry, cause))
            .or_default() += 1;
    }
    let sandboxes = sandboxes.into_iter();
    page.add(
        &SANDBOX_FAILING,
        sandboxes.map(|((node, registry, cause), count)| ([node, registry, cause.code()], count)),
    );
    let slow = tally.pairs.iter().filter_map(|((registry, node), pair)| {
        let cause = pair.slow.as_ref()?.cause.code();
        Some(([&**registry, node, cause], 1.0))
    });
    page.add(&SLOW, slow);
    page.bare(&SECRETS_MISSING, [tally.secrets.len()]);
    if let Some(lint) = &state.lint {
        of_workloads(lint, page);
    }
}

/// Maximum of series of findings; the worst findings come first.
const WORKLOAD_SERIES: usize = 500;

fn of_workloads(lint: &Snapshot, page: &mut Page<'_>) {
    let mut counts: BTreeMap<(&str, Cause, Severity), u64> = BTreeMap::new();
    for finding in &lint.findings {
        let key = (&*finding.namespace, finding.cause, finding.severity);
        if counts.len() < WORKLOAD_SERIES || counts.contains_key(&key) {
            *counts.entry(key).or_default() += 1;
        }
    }
    let counts = counts
        .into_iter()
        .map(|((namespace, cause, severity), count)| {
            ([namespace, cause.code(), severity.as_str()], count)
        });
    page.add(&WORKLOADS, counts);
    page.bare(&WORKLOADS_UNREAD, [lint.not_observed.len()]);
}

/// The part of docs/metrics.md about the cluster role.
pub fn markdown() -> String {
    let mut text = String::from(HEAD);
    table(
        &mut text,
        "Real pulls and the cluster role",
        FAMILIES.iter(),
    );
    text
}

const HEAD: &str = "
# Metrics of the cluster role

`pullpath cluster` serves these. `registry` is the domain of the image in the pod, and `node` is the node whose kubelet
reported the pull. The series of a pair of registry and node are dropped after `cluster.forget_after` without Events.

All replicas serve counters, and only the active one increments them: sum over the replicas. An occurrence counts once,
also over restarts of the watch and of the program. [pulls.md](pulls.md#what-is-counted-and-how-often) has the bounds and
what kubelets do not report.
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
