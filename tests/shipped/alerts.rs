//! Each alert with a case in which it fires and others in which it does not, by promtool.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::lab::process::run;
use crate::panels::{mixture, mixtures};
use crate::root;

/// What Prometheus has, and which alerts then fire after so many minutes; no others do.
struct Case {
    name: &'static str,
    series: &'static [(&'static str, &'static str)],
    at: &'static str,
    fire: &'static [&'static str],
}

/// Three nodes that see a registry.
const NODES: &[(&str, &str)] = &[
    (r#"pullpath_targets{cluster="c", node="n1"}"#, "1x200"),
    (
        r#"pullpath_target_info{cluster="c", node="n1", instance="i1", target="t", registry="r.test"}"#,
        "1x200",
    ),
    (
        r#"pullpath_target_info{cluster="c", node="n2", instance="i2", target="t", registry="r.test"}"#,
        "1x200",
    ),
    (
        r#"pullpath_target_info{cluster="c", node="n3", instance="i3", target="t", registry="r.test"}"#,
        "1x200",
    ),
];

/// A finding of a node, from the 20th minute on.
macro_rules! finding {
    ($node:literal, $cause:literal, $severity:literal) => {
        (
            concat!(
                r#"pullpath_finding{cluster="c", node="n"#,
                $node,
                r#"", instance="i"#,
                $node,
                r#"", target="t", leg="registry", cause=""#,
                $cause,
                r#"", severity=""#,
                $severity,
                r#""}"#
            ),
            "_x20 1x180",
        )
    };
}

/// A target of the same registry besides `t`, on a node.
macro_rules! info {
    ($node:literal, $target:literal) => {
        (
            concat!(
                r#"pullpath_target_info{cluster="c", node="n"#,
                $node,
                r#"", instance="i"#,
                $node,
                r#"", target=""#,
                $target,
                r#"", registry="r.test"}"#
            ),
            "1x200",
        )
    };
}

/// The state of a target on a node, from the 20th minute on.
macro_rules! ready {
    ($node:literal, $target:literal, $value:literal) => {
        (
            concat!(
                r#"pullpath_pull_ready{cluster="c", node="n"#,
                $node,
                r#"", instance="i"#,
                $node,
                r#"", target=""#,
                $target,
                r#"", registry="r.test"}"#
            ),
            concat!("_x20 ", $value, "x180"),
        )
    };
}

const CASES: &[Case] = &[
    Case {
        name: "all is well",
        series: &[
            (
                r#"pullpath_pull_ready{cluster="c", node="n1", instance="i1", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_path_expected{cluster="c", node="n1", target="t", leg="blob"}"#,
                "1x200",
            ),
            (
                r#"pullpath_path_changes_total{cluster="c", node="n1", registry="r.test"}"#,
                "3x200",
            ),
            (
                r#"pullpath_rate_limit{cluster="c", node="n1", registry="r.test"}"#,
                "100x200",
            ),
            (
                r#"pullpath_rate_limit_remaining{cluster="c", node="n1", registry="r.test"}"#,
                "50x200",
            ),
            (
                r#"pullpath_bandwidth_insufficient{cluster="c", node="n1", target="t"}"#,
                "0x200",
            ),
            (
                r#"pullpath_estimated_pull_seconds{cluster="c", node="n1", target="t"}"#,
                "60x200",
            ),
            (
                r#"pullpath_real_pull_failures_total{cluster="c", node="n1", registry="r.test", cause="tcp_timeout"}"#,
                "4x200",
            ),
            (
                r#"pullpath_cluster_active{cluster="c", node="n1"}"#,
                "1x200",
            ),
            (r#"up{job="pullpath", cluster="c", instance="i1"}"#, "1x200"),
            (r#"up{job="others", cluster="c", instance="i9"}"#, "0x200"),
            (
                r#"pullpath_config_last_reload_successful{cluster="c", node="n1", instance="i1"}"#,
                "1x200",
            ),
            (
                r#"pullpath_checks_total{cluster="c", node="n1", tier="reach", outcome="would_succeed"}"#,
                "0+10x200",
            ),
            (
                r#"pullpath_checks_starved_total{cluster="c", node="n1"}"#,
                "0+0.5x200",
            ),
            (
                r#"pullpath_own_limits_total{cluster="c", node="n1", limit="open_files"}"#,
                "0x200",
            ),
            (
                r#"pullpath_budget_remaining_bytes{cluster="c", node="n1"}"#,
                "3000000x200",
            ),
            (
                r#"pullpath_kubernetes_watch_up{cluster="c", node="n1"}"#,
                "1x200",
            ),
            (
                r#"pullpath_check_panics_total{cluster="c", node="n1"}"#,
                "1x200",
            ),
            finding!("1", "tls_name", "warning"),
        ],
        at: "180m",
        fire: &[],
    },
    Case {
        name: "a blip of some minutes wakes no one",
        series: &[
            (
                r#"pullpath_finding{cluster="c", node="n1", instance="i1", target="t", leg="registry", cause="tcp_timeout", severity="critical"}"#,
                "_x20 1x3 _x170",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n1", instance="i1", target="t", registry="r.test"}"#,
                "1x20 0x3 1x170",
            ),
        ],
        at: "24m",
        fire: &[],
    },
    Case {
        name: "a private image whose Secret must not be read, beside a public one that comes",
        series: &[
            finding!("1", "auth_unknown", "critical"),
            finding!("2", "auth_unknown", "critical"),
            finding!("3", "auth_unknown", "critical"),
            info!("1", "open"),
            info!("2", "open"),
            info!("3", "open"),
            ready!("1", "open", "1"),
            ready!("2", "open", "1"),
            ready!("3", "open", "1"),
        ],
        at: "60m",
        fire: &[],
    },
    Case {
        name: "nothing but private images whose Secrets must not be read",
        series: &[
            finding!("1", "auth_unknown", "critical"),
            finding!("2", "auth_unknown", "critical"),
            finding!("3", "auth_unknown", "critical"),
        ],
        at: "60m",
        fire: &[],
    },
    Case {
        name: "one pod names no Secret, and the state of the private images beside it is unknown",
        series: &[
            finding!("1", "auth_no_cred", "critical"),
            finding!("2", "auth_no_cred", "critical"),
            finding!("3", "auth_no_cred", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "0"),
            info!("1", "private"),
            info!("2", "private"),
            info!("3", "private"),
        ],
        at: "60m",
        fire: &["PullpathImageNotPullable"],
    },
    Case {
        name: "of two replicas that stand for one kind of node, that of one zone has no egress",
        series: &[
            finding!("1", "no_egress", "critical"),
            finding!("2", "no_egress", "critical"),
            finding!("3", "no_egress", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "0"),
            (
                r#"pullpath_target_info{cluster="c", node="n1", instance="i9", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n1", instance="i9", target="t", registry="r.test"}"#,
                "1x200",
            ),
        ],
        at: "40m",
        fire: &["PullpathRegistryNotPullableFromManyNodes"],
    },
    Case {
        name: "one of three nodes",
        series: &[
            finding!("1", "tcp_timeout", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "1"),
            ready!("3", "t", "1"),
        ],
        at: "40m",
        fire: &["PullpathRegistryNotPullableFromSomeNodes"],
    },
    Case {
        name: "two of three nodes",
        series: &[
            finding!("1", "tcp_timeout", "critical"),
            finding!("2", "tcp_timeout", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "1"),
        ],
        at: "40m",
        fire: &["PullpathRegistryNotPullableFromManyNodes"],
    },
    Case {
        name: "all nodes",
        series: &[
            finding!("1", "tls_expired", "critical"),
            finding!("2", "tls_expired", "critical"),
            finding!("3", "tls_expired", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "0"),
        ],
        at: "40m",
        fire: &["PullpathRegistryNotPullable"],
    },
    Case {
        name: "one image with a wrong secret, beside others of the registry that would be pulled",
        series: &[
            finding!("1", "auth_bad_cred", "critical"),
            finding!("2", "auth_bad_cred", "critical"),
            finding!("3", "auth_bad_cred", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "0"),
            ready!("1", "other", "1"),
            ready!("2", "other", "1"),
            ready!("3", "other", "1"),
        ],
        at: "40m",
        fire: &["PullpathImageNotPullable"],
    },
    Case {
        name: "the only image of a registry, with a mistyped tag",
        series: &[
            finding!("1", "manifest_unknown", "critical"),
            finding!("2", "manifest_unknown", "critical"),
            finding!("3", "manifest_unknown", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "0"),
        ],
        at: "40m",
        fire: &["PullpathImageNotPullable"],
    },
    Case {
        name: "one node that lacks a Secret, of six: no outlier",
        series: &[
            finding!("1", "secret_missing", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "1"),
            ready!("3", "t", "1"),
            info!("4", "t"),
            ready!("4", "t", "1"),
            info!("5", "t"),
            ready!("5", "t", "1"),
            info!("6", "t"),
            ready!("6", "t", "1"),
        ],
        at: "40m",
        fire: &["PullpathImageNotPullable"],
    },
    Case {
        name: "one node that can't reach a registry whose only image has a mistyped tag",
        series: &[
            finding!("1", "tcp_timeout", "critical"),
            finding!("2", "manifest_unknown", "critical"),
            finding!("3", "manifest_unknown", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "0"),
            ready!("3", "t", "0"),
        ],
        at: "40m",
        fire: &[
            "PullpathImageNotPullable",
            "PullpathRegistryNotPullableFromSomeNodes",
        ],
    },
    Case {
        name: "an image with a mistyped tag, beside another one of a registry that is down",
        series: &[
            finding!("1", "manifest_unknown", "critical"),
            ready!("1", "t", "0"),
            ready!("2", "t", "1"),
            ready!("3", "t", "1"),
            info!("1", "other"),
            ready!("1", "other", "0"),
            (
                r#"pullpath_finding{cluster="c", node="n1", instance="i1", target="other", leg="registry", cause="tcp_timeout", severity="critical"}"#,
                "_x20 1x180",
            ),
        ],
        at: "40m",
        fire: &[
            "PullpathImageNotPullable",
            "PullpathRegistryNotPullableFromSomeNodes",
        ],
    },
    Case {
        name: "a rate limit near its end",
        series: &[
            (
                r#"pullpath_rate_limit{cluster="c", node="n1", registry="r.test"}"#,
                "100x200",
            ),
            (
                r#"pullpath_rate_limit_remaining{cluster="c", node="n1", registry="r.test"}"#,
                "9x200",
            ),
        ],
        at: "40m",
        fire: &["PullpathRateLimitLow"],
    },
    Case {
        name: "one old node of six alone",
        series: &[
            finding!("1", "net_unreachable", "critical"),
            (
                r#"pullpath_pull_ready{cluster="c", node="n1", instance="i1", target="t", registry="r.test"}"#,
                "0x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n2", instance="i2", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n3", instance="i3", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n4", instance="i4", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n5", instance="i5", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n6", instance="i6", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_node_created_timestamp_seconds{cluster="c", node="n1"}"#,
                "-90000x200",
            ),
        ],
        at: "40m",
        fire: &[
            "PullpathNodeOutlier",
            "PullpathRegistryNotPullableFromSomeNodes",
        ],
    },
    Case {
        name: "a young node alone",
        series: &[
            finding!("1", "net_unreachable", "critical"),
            (
                r#"pullpath_pull_ready{cluster="c", node="n1", instance="i1", target="t", registry="r.test"}"#,
                "0x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n2", instance="i2", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n3", instance="i3", target="t", registry="r.test"}"#,
                "1x200",
            ),
            (
                r#"pullpath_node_created_timestamp_seconds{cluster="c", node="n1"}"#,
                "0x200",
            ),
        ],
        at: "40m",
        fire: &[
            "PullpathRegistryNotPullableFromSomeNodes",
            "PullpathNewNodeOutlier",
        ],
    },
    Case {
        name: "half of the nodes are no outliers",
        series: &[
            finding!("1", "net_unreachable", "critical"),
            (
                r#"pullpath_pull_ready{cluster="c", node="n1", instance="i1", target="t", registry="r.test"}"#,
                "0x200",
            ),
            (
                r#"pullpath_pull_ready{cluster="c", node="n2", instance="i2", target="t", registry="r.test"}"#,
                "1x200",
            ),
        ],
        at: "40m",
        fire: &["PullpathRegistryNotPullableFromSomeNodes"],
    },
    Case {
        name: "another way than expected",
        series: &[(
            r#"pullpath_path_expected{cluster="c", node="n1", target="t", leg="blob"}"#,
            "0x200",
        )],
        at: "40m",
        fire: &["PullpathPathNotExpected"],
    },
    Case {
        name: "another way than network.expect says, of an image that a pod wants",
        series: &[finding!("1", "path_unexpected", "warning")],
        at: "40m",
        fire: &["PullpathPathNotExpected"],
    },
    Case {
        name: "another way than before",
        series: &[(
            r#"pullpath_path_changes_total{cluster="c", node="n1", registry="r.test"}"#,
            "0x30 1x170",
        )],
        at: "40m",
        fire: &["PullpathPathChanged"],
    },
    Case {
        name: "long after a change",
        series: &[(
            r#"pullpath_path_changes_total{cluster="c", node="n1", registry="r.test"}"#,
            "0x30 1x170",
        )],
        at: "60m",
        fire: &[],
    },
    Case {
        name: "a certificate",
        series: &[finding!("2", "tls_expiring", "warning")],
        at: "120m",
        fire: &["PullpathCertificateExpiring"],
    },
    Case {
        name: "a copy of a default-secret",
        series: &[finding!("2", "secret_copy_expired", "warning")],
        at: "40m",
        fire: &["PullpathCredentialExpiring"],
    },
    Case {
        name: "a credential that ended and that an open registry never asks for",
        series: &[
            finding!("2", "credential_expired", "info"),
            finding!("3", "credential_expiring", "info"),
        ],
        at: "40m",
        fire: &[],
    },
    Case {
        name: "a credential by its own word",
        series: &[finding!("2", "credential_expiring", "warning")],
        at: "40m",
        fire: &["PullpathCredentialExpiring"],
    },
    Case {
        name: "slower than expected",
        series: &[(
            r#"pullpath_bandwidth_insufficient{cluster="c", node="n1", target="t"}"#,
            "1x200",
        )],
        at: "90m",
        fire: &["PullpathBandwidthInsufficient"],
    },
    Case {
        name: "a pull of eleven minutes",
        series: &[(
            r#"pullpath_estimated_pull_seconds{cluster="c", node="n1", target="t"}"#,
            "660x200",
        )],
        at: "90m",
        fire: &["PullpathPullTooSlow"],
    },
    Case {
        name: "the cap of an EIP",
        series: &[finding!("1", "bw_eip_cap", "warning")],
        at: "90m",
        fire: &["PullpathBandwidthCap"],
    },
    Case {
        name: "a pod waits for its image, and no pull of its registry was seen before",
        series: &[
            (
                r#"pullpath_real_pull_failing{cluster="c", node="n1", registry="r.test", cause="auth_bad_cred"}"#,
                "_x20 1x180",
            ),
            (
                r#"pullpath_real_pull_failures_total{cluster="c", node="n1", registry="r.test", cause="auth_bad_cred"}"#,
                "_x20 1x180",
            ),
        ],
        at: "37m",
        fire: &["PullpathRealPullsFailing"],
    },
    Case {
        name: "one pull fails, and its pod is deleted; the tally knows no better for 11 minutes",
        series: &[
            (
                r#"pullpath_real_pull_failing{cluster="c", node="n1", registry="r.test", cause="registry_5xx"}"#,
                "_x20 1x12 stale",
            ),
            (
                r#"pullpath_real_pull_failures_total{cluster="c", node="n1", registry="r.test", cause="registry_5xx"}"#,
                "0x20 1x180",
            ),
        ],
        at: "32m",
        fire: &[],
    },
    Case {
        name: "the sandbox's image can't be pulled, so no new pod starts on the node",
        series: &[(
            r#"pullpath_real_pull_sandbox_failing{cluster="c", node="n1", registry="r.test", cause="tcp_refused"}"#,
            "_x20 1x180",
        )],
        at: "26m",
        fire: &["PullpathNodeStartsNoPods"],
    },
    Case {
        name: "one pod had no sandbox for a moment",
        series: &[(
            r#"pullpath_real_pull_sandbox_failing{cluster="c", node="n1", registry="r.test", cause="tcp_refused"}"#,
            "_x20 1x3 stale",
        )],
        at: "26m",
        fire: &[],
    },
    Case {
        name: "an instance can't be scraped",
        series: &[(
            r#"up{job="monitoring/pullpath", cluster="c", node="n1", instance="i1"}"#,
            "0x200",
        )],
        at: "40m",
        fire: &["PullpathScrapeFailed"],
    },
    Case {
        name: "no check has ended for half an hour, and no state changes that",
        series: &[
            (
                r#"pullpath_target_state{cluster="c", node="n1", instance="i1", target="t", registry="r.test", state="not_checked"}"#,
                "1x20 stale",
            ),
            (
                r#"pullpath_target_state{cluster="c", node="n1", instance="i1", target="t", registry="r.test", state="deferred"}"#,
                "_x20 1x180",
            ),
        ],
        at: "40m",
        fire: &["PullpathNotChecked"],
    },
    Case {
        name: "the first checks of a rollout",
        series: &[(
            r#"pullpath_target_state{cluster="c", node="n1", instance="i1", target="t", registry="r.test", state="not_checked"}"#,
            "1x20 stale",
        )],
        at: "20m",
        fire: &[],
    },
    Case {
        name: "a bad configuration",
        series: &[(
            r#"pullpath_config_last_reload_successful{cluster="c", node="n1", instance="i1"}"#,
            "0x200",
        )],
        at: "40m",
        fire: &["PullpathReloadFailed"],
    },
    Case {
        name: "too little of the processor",
        series: &[
            (
                r#"pullpath_checks_total{cluster="c", node="n1", tier="reach", outcome="would_succeed"}"#,
                "0+10x200",
            ),
            (
                r#"pullpath_checks_starved_total{cluster="c", node="n1"}"#,
                "0+2x200",
            ),
        ],
        at: "120m",
        fire: &["PullpathCpuStarved"],
    },
    Case {
        name: "too few open files",
        series: &[(
            r#"pullpath_own_limits_total{cluster="c", node="n1", limit="open_files"}"#,
            "0+1x200",
        )],
        at: "120m",
        fire: &["PullpathOwnLimit"],
    },
    Case {
        name: "of the budget is left what no test is made with",
        series: &[(
            r#"pullpath_budget_remaining_bytes{cluster="c", node="n1"}"#,
            "1500000x200",
        )],
        at: "90m",
        fire: &["PullpathTransferBudgetExhausted"],
    },
    Case {
        name: "no word from the API server",
        series: &[(
            r#"pullpath_kubernetes_watch_up{cluster="c", node="n1"}"#,
            "0x200",
        )],
        at: "40m",
        fire: &["PullpathKubernetesWatchDown"],
    },
    Case {
        name: "both replicas of the cluster role stand by",
        series: &[
            (
                r#"pullpath_cluster_active{cluster="c", node="n1"}"#,
                "0x200",
            ),
            (
                r#"pullpath_cluster_active{cluster="c", node="n2"}"#,
                "0x200",
            ),
        ],
        at: "40m",
        fire: &["PullpathClusterWatchDown"],
    },
    Case {
        name: "the cluster role is gone, from one cluster of two",
        series: &[
            (
                r#"pullpath_cluster_active{cluster="c", node="n1"}"#,
                "1x20 stale",
            ),
            (
                r#"pullpath_cluster_active{cluster="d", node="n1"}"#,
                "1x200",
            ),
        ],
        at: "60m",
        fire: &["PullpathClusterWatchDown"],
    },
    Case {
        name: "one cluster of two reports no more",
        series: &[(r#"pullpath_targets{cluster="d", node="n1"}"#, "1x20 stale")],
        at: "60m",
        fire: &["PullpathAbsent"],
    },
    Case {
        name: "one replica watches, the other stands by; or it is not to watch",
        series: &[
            (
                r#"pullpath_cluster_active{cluster="c", node="n1"}"#,
                "1x200",
            ),
            (
                r#"pullpath_cluster_events_watch_up{cluster="c", node="n1"}"#,
                "1x200",
            ),
            (
                r#"pullpath_cluster_active{cluster="c", node="n2"}"#,
                "0x200",
            ),
            (
                r#"pullpath_cluster_active{cluster="d", node="n1"}"#,
                "1x200",
            ),
        ],
        at: "40m",
        fire: &[],
    },
    Case {
        name: "a defect",
        series: &[(
            r#"pullpath_check_panics_total{cluster="c", node="n1"}"#,
            "0x30 1x170",
        )],
        at: "40m",
        fire: &["PullpathCheckPanicked"],
    },
];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A test of promtool: the value of an expression over these series, so many minutes later.
pub(super) fn expression_test(
    text: &mut String,
    name: &str,
    series: &[(&str, &str)],
    [expr, at]: [&str; 2],
    samples: &[(&str, &str)],
) {
    let _ = write!(
        text,
        "- name: {}\n  interval: 1m\n  input_series:\n",
        quoted(name)
    );
    for (series, values) in series {
        let _ = writeln!(
            text,
            "  - series: {}\n    values: {}",
            quoted(series),
            quoted(values)
        );
    }
    let _ = write!(
        text,
        "  promql_expr_test:\n  - expr: {}\n    eval_time: {at}\n    exp_samples:",
        quoted(expr)
    );
    text.push_str(if samples.is_empty() { " []\n" } else { "\n" });
    for (labels, value) in samples {
        let _ = writeln!(
            text,
            "    - labels: {}\n      value: {value}",
            quoted(labels)
        );
    }
}

fn test_of(
    text: &mut String,
    name: &str,
    series: &[(&str, &str)],
    asked: [&str; 2],
    fire: &[&str],
) {
    let labels = |alert: &&str| format!("{{alertname=\"{alert}\"}}");
    let labels: Vec<String> = fire.iter().map(labels).collect();
    let samples: Vec<(&str, &str)> = labels.iter().map(|labels| (&**labels, "1")).collect();
    expression_test(text, name, series, asked, &samples);
}

/// Has promtool run them.
pub(super) fn run_tests(text: &str) {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    run(Command::new("promtool")
        .args(["test", "rules"])
        .arg(file.path()));
}

fn rules_file() -> PathBuf {
    root().join("deploy/monitoring/rules.yaml")
}

/// Each alert's rule.
fn alerts() -> Vec<Value> {
    let text = std::fs::read_to_string(rules_file()).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let groups = rules["groups"].as_array().unwrap().iter();
    groups
        .flat_map(|group| group["rules"].as_array().unwrap().clone())
        .filter(|rule| rule.get("alert").is_some())
        .collect()
}

/// The head of a file of tests of these rules.
fn tests_of_rules() -> String {
    format!(
        "rule_files: [{}]\nevaluation_interval: 1m\ntests:\n",
        quoted(&rules_file().display().to_string())
    )
}

/// Those that are of one node have its name, with which one finds it.
const OF_A_NODE: &[&str] = &[
    "PullpathNodeOutlier",
    "PullpathNewNodeOutlier",
    "PullpathPathNotExpected",
    "PullpathBandwidthInsufficient",
    "PullpathPullTooSlow",
    "PullpathScrapeFailed",
    "PullpathNotChecked",
    "PullpathReloadFailed",
    "PullpathCpuStarved",
    "PullpathOwnLimit",
    "PullpathTransferBudgetExhausted",
    "PullpathKubernetesWatchDown",
    "PullpathCheckPanicked",
    "PullpathNodeStartsNoPods",
];

#[test]
fn each_alert_fires_where_it_should_and_nowhere_else() {
    run(Command::new("promtool")
        .args(["check", "rules"])
        .arg(rules_file()));
    let firing = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
    let with_node = "count by (alertname) (ALERTS{alertstate=\"firing\", node!=\"\"})";
    let mut text = tests_of_rules();
    for case in CASES {
        let series = [NODES, case.series].concat();
        test_of(&mut text, case.name, &series, [firing, case.at], case.fire);
        let of_a_node = case.fire.iter().filter(|name| OF_A_NODE.contains(name));
        let of_a_node: Vec<&str> = of_a_node.copied().collect();
        let name = format!("{}: which node", case.name);
        test_of(&mut text, &name, &series, [with_node, case.at], &of_a_node);
    }
    let other = &[("other", "1x200")];
    let absent = &["PullpathAbsent"];
    test_of(
        &mut text,
        "no daemon reports",
        other,
        [firing, "40m"],
        absent,
    );
    run_tests(&text);

    // All of them are in the table.
    let mut tried: Vec<&str> = CASES
        .iter()
        .flat_map(|case| case.fire.iter().copied())
        .collect();
    tried.push("PullpathAbsent");
    for rule in alerts() {
        let name = rule["alert"].as_str().unwrap();
        assert!(
            tried.contains(&name),
            "{name} has no case in which it fires"
        );
        let names_node = rule["annotations"].to_string().contains("$labels.node");
        assert_eq!(names_node, OF_A_NODE.contains(&name), "{name}");
    }
}

#[test]
fn what_is_not_checked_counts_neither_as_well_nor_as_failing() {
    let firing = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
    let mut text = tests_of_rules();
    let finding = r#"pullpath_finding{cluster="c", node="n", instance="i", target="would_fail", leg="registry", cause="tcp_timeout", severity="critical"}"#;
    for counts in mixtures() {
        let [fails, unknown, succeeds, outdated, not_checked, deferred] = counts;
        let mut series = mixture("n", "i", counts);
        series.push((
            r#"pullpath_targets{cluster="c", node="n"}"#.to_owned(),
            "1x200",
        ));
        if fails > 0 {
            series.push((finding.to_owned(), "1x200"));
        }
        let is_open = unknown + succeeds + outdated + not_checked + deferred > 0;
        let mut fire = Vec::new();
        if outdated + not_checked + deferred > 0 {
            fire.push("PullpathNotChecked");
        }
        if fails > 0 {
            fire.push(if is_open {
                "PullpathImageNotPullable"
            } else {
                "PullpathRegistryNotPullable"
            });
        }
        let series: Vec<(&str, &str)> = series
            .iter()
            .map(|(name, values)| (&**name, *values))
            .collect();
        test_of(
            &mut text,
            &format!("{counts:?}"),
            &series,
            [firing, "40m"],
            &fire,
        );
    }
    run_tests(&text);
}

/// An alert for each cause, and the severity of all failing nodes together.
#[test]
fn nodes_that_fail_with_different_causes_are_counted_together() {
    let all = [
        finding!("1", "tcp_timeout", "critical"),
        finding!("2", "tls_expired", "critical"),
        finding!("3", "dns_nxdomain", "critical"),
        ready!("1", "t", "0"),
        ready!("2", "t", "0"),
        ready!("3", "t", "0"),
    ];
    let two = [&all[..2], &all[3..5], &[ready!("3", "t", "1")]].concat();
    let firing = "count by (alertname, cause) (ALERTS{alertstate=\"firing\"})";
    let mut text = tests_of_rules();
    for (name, series, alert, causes) in [
        (
            "three nodes of three",
            &all[..],
            "PullpathRegistryNotPullable",
            &["dns_nxdomain", "tcp_timeout", "tls_expired"][..],
        ),
        (
            "two nodes of three",
            &two,
            "PullpathRegistryNotPullableFromManyNodes",
            &["tcp_timeout", "tls_expired"],
        ),
    ] {
        let labels: Vec<String> = causes
            .iter()
            .map(|cause| format!("{{alertname=\"{alert}\", cause=\"{cause}\"}}"))
            .collect();
        let samples: Vec<(&str, &str)> = labels.iter().map(|labels| (&**labels, "1")).collect();
        let series = [NODES, series].concat();
        expression_test(&mut text, name, &series, [firing, "40m"], &samples);
    }
    run_tests(&text);
}

/// A test of promtool: the annotations of the one alert of this name that fires after 90 minutes.
fn annotations_test(
    text: &mut String,
    name: &str,
    series: &[(&str, &str)],
    alert: &Value,
    labels: &Value,
    annotations: &[(&str, &str)],
) {
    let mut all = alert["annotations"].clone();
    // Those named here are replaced; the others are as they are written, with these labels.
    for (_, value) in all.as_object_mut().unwrap() {
        let mut made = value.as_str().unwrap().to_owned();
        for (label, of) in labels.as_object().unwrap() {
            made = made.replace(&format!("{{{{ $labels.{label} }}}}"), of.as_str().unwrap());
        }
        *value = made.into();
    }
    for (key, value) in annotations {
        all[*key] = (*value).into();
    }
    let input: Vec<Value> = series
        .iter()
        .map(|(series, values)| serde_json::json!({"series": series, "values": values}))
        .collect();
    let case = serde_json::json!({
        "name": name,
        "interval": "1m",
        "input_series": input,
        "alert_rule_test": [{
            "eval_time": "90m",
            "alertname": alert["alert"],
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": all}],
        }],
    });
    let _ = writeln!(text, "- {case}");
}

/// All nodes fail by an expired certificate, and kubelets report another failure.
const FAILING: &[(&str, &str)] = &[
    finding!("1", "tls_expired", "critical"),
    finding!("2", "tls_expired", "critical"),
    finding!("3", "tls_expired", "critical"),
    ready!("1", "t", "0"),
    ready!("2", "t", "0"),
    ready!("3", "t", "0"),
];

/// Two instances of the cluster role, of which one leads, and one of another cluster.
const ROLES: &[(&str, &str)] = &[
    (
        r#"pullpath_cluster_active{cluster="c", node="n2", instance="10.0.0.9:9797"}"#,
        "1x200",
    ),
    (
        r#"pullpath_cluster_active{cluster="c", node="n1", instance="10.0.0.8:9797"}"#,
        "0x200",
    ),
    (
        r#"pullpath_cause_info{cluster="c", instance="10.0.0.9:9797", cause="tls_expired", title="T", fix="Renew \"it\"."}"#,
        "1x200",
    ),
    (
        r#"pullpath_cause_info{cluster="c", instance="10.0.0.8:9797", cause="tls_expired", title="T", fix="Renew \"it\"."}"#,
        "1x200",
    ),
    (
        r#"pullpath_cause_info{cluster="c", instance="10.0.0.8:9797", cause="tls_name", title="T", fix="Another."}"#,
        "1x200",
    ),
    // That of another cluster is another version.
    (
        r#"pullpath_cause_info{cluster="b", instance="10.0.0.1:9797", cause="tls_expired", title="T", fix="Old."}"#,
        "1x200",
    ),
];

#[test]
fn the_fix_is_the_cluster_roles_and_the_runbook_a_page_of_pullpath() {
    let all = alerts();
    let rule = |name: &str| all.iter().find(|rule| rule["alert"] == name).unwrap();
    let unreachable = rule("PullpathRegistryNotPullable");
    let labels = serde_json::json!({
        "alertname": "PullpathRegistryNotPullable", "cluster": "c", "registry": "r.test",
        "cause": "tls_expired", "severity": "critical",
    });
    let daemons = [(
        r#"pullpath_targets{cluster="c", node="n1", instance="10.0.0.7:9797"}"#,
        "1x200",
    )];
    let mut text = tests_of_rules();
    annotations_test(
        &mut text,
        "beside the cluster role",
        &[NODES, FAILING, ROLES].concat(),
        unreachable,
        &labels,
        &[
            ("summary", "No node can pull from r.test: T (tls_expired)"),
            ("fix", "Renew \"it\"."),
            ("runbook_url", "http://10.0.0.8:9797/causes/tls_expired"),
        ],
    );
    annotations_test(
        &mut text,
        "daemons alone",
        &[&NODES[1..], FAILING, &daemons[..]].concat(),
        unreachable,
        &labels,
        &[
            ("summary", "No node can pull from r.test: tls_expired"),
            (
                "fix",
                "Open runbook_url, or run 'pullpath explain tls_expired'.",
            ),
            ("runbook_url", "http://10.0.0.7:9797/causes/tls_expired"),
        ],
    );
    let pulls = rule("PullpathRealPullsFailing");
    for (cause, title, fix) in [
        ("tls_expired", "T (tls_expired)", Some("Renew \"it\".")),
        // A bare 401, ErrImageNeverPull, and words without a name have fixes of their own.
        (
            "auth_unknown",
            "the registry requires a credential (auth_unknown)",
            None,
        ),
        ("no_pull", "no_pull", None),
        ("unexplained", "unexplained", None),
    ] {
        let failing = format!(
            "pullpath_real_pull_failing{{cluster=\"c\", registry=\"r.test\", cause=\"{cause}\"}}"
        );
        let fix = fix.unwrap_or_else(|| {
            let whole = pulls["annotations"]["fix"].as_str().unwrap();
            let (_, rest) = whole.split_once(&format!("`{cause}` }}}}")).unwrap();
            rest.split_once("{{").unwrap().0
        });
        assert!(fix.len() > 10 && fix.len() < 300, "{cause}: {fix}");
        annotations_test(
            &mut text,
            cause,
            &[NODES, ROLES, &[(&*failing, "1x200")][..]].concat(),
            pulls,
            &serde_json::json!({
                "alertname": "PullpathRealPullsFailing", "cluster": "c", "registry": "r.test",
                "cause": cause, "severity": "warning",
            }),
            &[
                (
                    "summary",
                    &format!("Kubelets report failing pulls from r.test: {title}"),
                ),
                ("fix", fix),
                (
                    "runbook_url",
                    &format!("http://10.0.0.8:9797/causes/{cause}"),
                ),
                (
                    "description",
                    "1 containers wait for an image whose pull fails, according to kubelet Events. `kubectl pullpath why -A` lists the waiting pods and the reason.",
                ),
            ],
        );
    }
    run_tests(&text);
}

/// The date of a certificate, what limits a rate, and whether a credential has expired already.
#[test]
fn annotations_have_what_prometheus_knows_beside_the_alert() {
    let all = alerts();
    let rule = |name: &str| all.iter().find(|rule| rule["alert"] == name).unwrap();
    let page = ("runbook_url", "docs/causes.md#tls_expiring");
    let rest = "Less than a sixth of its lifetime and less than 30 days are left, and it has not been renewed. When it expires, every pull fails.";
    let dated = format!("It expires at 2026-12-01 00:00:00 +0000 UTC. {rest}");
    let expiry = [(
        r#"pullpath_tls_certificate_expiry_timestamp_seconds{cluster="c", node="n2", registry="r.test", leg="registry"}"#,
        "1796083200x200",
    )];
    let expiring = [finding!("2", "tls_expiring", "warning")];
    let mut text = tests_of_rules();
    for (name, more, description) in [
        ("with its date", &expiry[..], &*dated),
        ("without a date", &[], rest),
    ] {
        annotations_test(
            &mut text,
            name,
            &[&NODES[1..], &expiring, more].concat(),
            rule("PullpathCertificateExpiring"),
            &serde_json::json!({
                "alertname": "PullpathCertificateExpiring", "cluster": "c", "registry": "r.test",
                "leg": "registry", "cause": "tls_expiring", "severity": "warning",
            }),
            &[("description", description), page],
        );
    }
    let slow = r#"pullpath_estimated_pull_seconds{cluster="c", node="n1", target="t"}"#;
    let limit = r#"pullpath_bottleneck{cluster="c", node="n1", target="t", cause="bw_eip_cap"}"#;
    let slow = [(slow, "660x200"), (limit, "1x200")];
    for (series, fix) in [
        (
            &slow[..],
            "Run 'pullpath explain bw_eip_cap', the cause that limits the rate, and apply its fix.",
        ),
        (
            &slow[..1],
            "Find out what limits the rate (pullpath probe IMAGE --node n1 --transfer auto).",
        ),
    ] {
        annotations_test(
            &mut text,
            fix,
            &[&NODES[1..], series].concat(),
            rule("PullpathPullTooSlow"),
            &serde_json::json!({
                "alertname": "PullpathPullTooSlow", "cluster": "c", "node": "n1", "target": "t",
                "severity": "warning",
            }),
            &[
                ("summary", "t would take 11m 0s to pull on n1"),
                ("fix", fix),
                ("runbook_url", "docs/causes.md#throughput_low"),
            ],
        );
    }
    run_tests(&text);

    let credential = rule("PullpathCredentialExpiring")["annotations"]["summary"]
        .as_str()
        .unwrap();
    for said in [
        "has expired{{ else if",
        "which has expired or expires soon{{ else }}",
        "expires soon{{ end }}",
    ] {
        assert!(credential.contains(said), "{credential}");
    }
}

/// Where the rules are one's own, the runbooks may be, too.
#[test]
fn the_base_of_the_runbooks_is_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let generate = |base: &str| {
        let mut command = Command::new(root().join("deploy/monitoring/generate"));
        command.arg("--into").arg(folder.path());
        command.args(["--runbook-url", base]);
        command
    };
    run(&mut generate("https://wiki.test/pullpath#"));
    let made = folder.path().join("rules.yaml");
    run(Command::new("promtool").args(["check", "rules"]).arg(&made));
    let text = std::fs::read_to_string(made).unwrap();
    let known = "runbook_url: 'https://wiki.test/pullpath#path_unexpected'";
    let labelled = "runbook_url: 'https://wiki.test/pullpath#{{ $labels.cause }}'";
    assert_eq!(text.matches(known).count(), 2);
    assert_eq!(text.matches(labelled).count(), 11);
    for bad in [
        "wiki.test/",
        "https://wiki.test/{{ $value }}",
        "javascript:alert(1)",
    ] {
        let refused = generate(bad).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success(), "{bad}");
        assert!(said.contains(bad) && said.contains("is expected"), "{said}");
    }
}

/// They are loaded by every Prometheus of a fleet, and read by persons.
#[test]
fn the_rules_are_small() {
    for name in ["rules.yaml", "prometheusrule.yaml"] {
        let file = root().join("deploy/monitoring").join(name);
        let size = file.metadata().unwrap().len();
        assert!(size < 30_000, "{name}: {size}");
    }
}
