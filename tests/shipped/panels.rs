//! What panels of the dashboards show of a few series, by promtool.

use serde_json::Value;

use crate::alerts::{expression_test, run_tests};
use crate::root;

/// What Prometheus has, and what the first query of a panel brings after so many minutes.
struct Case {
    name: &'static str,
    panel: [&'static str; 2],
    series: &'static [(&'static str, &'static str)],
    at: &'static str,
    shown: &'static [(&'static str, &'static str)],
}

const MATRIX: [&str; 2] = ["fleet", "Would a pull succeed? By node and registry"];

/// Of one node: a target that is watched.
macro_rules! info {
    ($instance:literal, $target:literal) => {
        (
            concat!(
                r#"pullpath_target_info{cluster="c", node="n", instance=""#,
                $instance,
                r#"", target=""#,
                $target,
                r#"", registry="r.test"}"#
            ),
            "1x60",
        )
    };
}

/// And its state.
macro_rules! ready {
    ($instance:literal, $target:literal, $value:literal) => {
        (
            concat!(
                r#"pullpath_pull_ready{cluster="c", node="n", instance=""#,
                $instance,
                r#"", target=""#,
                $target,
                r#"", registry="r.test"}"#
            ),
            concat!($value, "x60"),
        )
    };
}

const CELL: &str = r#"{cluster="c", node="n", registry="r.test"}"#;

/// An image without a Secret beside a private one whose state is unknown.
const UNKNOWN_STATE: &[(&str, &str)] = &[
    info!("i", "t"),
    info!("i", "private"),
    ready!("i", "t", "0"),
];

const CASES: &[Case] = &[
    Case {
        name: "one would fail, and another is unknown: not all of the registry",
        panel: MATRIX,
        series: UNKNOWN_STATE,
        at: "30m",
        shown: &[(CELL, "0.125")],
    },
    Case {
        name: "nor does that make the registry failing",
        panel: ["fleet", "Failing registries"],
        series: UNKNOWN_STATE,
        at: "30m",
        shown: &[("{}", "0")],
    },
    Case {
        name: "nor the node",
        panel: ["fleet", "Nodes with a failing registry"],
        series: UNKNOWN_STATE,
        at: "30m",
        shown: &[("{}", "0")],
    },
    Case {
        name: "which might pull, or not",
        panel: ["registry", "Nodes that can pull"],
        series: UNKNOWN_STATE,
        at: "30m",
        shown: &[],
    },
    Case {
        name: "none would be pulled",
        panel: ["registry", "Nodes that can pull"],
        series: &[info!("i", "t"), ready!("i", "t", "0")],
        at: "30m",
        shown: &[("{}", "0")],
    },
    Case {
        name: "of two replicas that stand for one kind of node, none of one's images would be pulled",
        panel: MATRIX,
        series: &[
            info!("i", "t"),
            info!("j", "t"),
            ready!("i", "t", "0"),
            ready!("j", "t", "1"),
        ],
        at: "30m",
        shown: &[(CELL, "0")],
    },
    Case {
        name: "a leg is not as expect.class says, another not as network.expect does",
        panel: ["fleet", "Unexpected paths"],
        series: &[
            (
                r#"pullpath_path_expected{cluster="c", node="n", instance="i", target="t", leg="blob"}"#,
                "0x60",
            ),
            (
                r#"pullpath_finding{cluster="c", node="n", instance="i", target="u", leg="registry", cause="path_unexpected", severity="warning"}"#,
                "1x60",
            ),
        ],
        at: "30m",
        shown: &[("{}", "2")],
    },
    Case {
        name: "the first three failures of a registry and a node, which come together",
        panel: ["fleet", "Failed real pulls, by cause"],
        series: &[(
            r#"pullpath_real_pull_failures_total{cluster="c", node="n", registry="r.test", cause="tls_name"}"#,
            "_x25 3x60",
        )],
        at: "30m",
        shown: &[(r#"{registry="r.test", cause="tls_name"}"#, "3")],
    },
    Case {
        name: "and what they are later",
        panel: ["fleet", "Failed real pulls, by cause"],
        series: &[(
            r#"pullpath_real_pull_failures_total{cluster="c", node="n", registry="r.test", cause="tls_name"}"#,
            "_x25 3x60",
        )],
        at: "50m",
        shown: &[(r#"{registry="r.test", cause="tls_name"}"#, "0")],
    },
    Case {
        name: "scrapes that failed for a while make nothing new",
        panel: ["fleet", "Failed real pulls, by cause"],
        series: &[(
            r#"pullpath_real_pull_failures_total{cluster="c", node="n", registry="r.test", cause="tls_name"}"#,
            "3x10 _x15 3x60",
        )],
        at: "30m",
        shown: &[(r#"{registry="r.test", cause="tls_name"}"#, "0")],
    },
    Case {
        name: "the only pull of a night",
        panel: ["fleet", "Duration of real pulls"],
        series: &[
            (
                r#"pullpath_real_pull_duration_seconds_bucket{cluster="c", node="n", registry="r.test", le="1"}"#,
                "_x20 0x60",
            ),
            (
                r#"pullpath_real_pull_duration_seconds_bucket{cluster="c", node="n", registry="r.test", le="5"}"#,
                "_x20 1x60",
            ),
            (
                r#"pullpath_real_pull_duration_seconds_bucket{cluster="c", node="n", registry="r.test", le="+Inf"}"#,
                "_x20 1x60",
            ),
        ],
        at: "30m",
        shown: &[(r#"{registry="r.test"}"#, "3")],
    },
];

/// The first query of a panel, of all clusters, nodes and registries.
fn query([board, title]: [&str; 2]) -> String {
    let file = root().join(format!("dashboards/{board}.json"));
    let board: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let panel = panels.iter().find(|panel| panel["title"] == title).unwrap();
    let expr = panel["targets"][0]["expr"].as_str().unwrap();
    ["$cluster", "$node", "$registry"]
        .iter()
        .fold(expr.to_owned(), |expr, name| expr.replace(name, ".*"))
}

#[test]
fn panels_show_what_there_is() {
    let mut text = String::from("evaluation_interval: 1m\ntests:\n");
    for case in CASES {
        let expr = query(case.panel);
        expression_test(
            &mut text,
            case.name,
            case.series,
            [&expr, case.at],
            case.shown,
        );
    }
    run_tests(&text);
}

/// The states of a target, in the order of the mixtures.
pub(super) const STATES: [&str; 6] = [
    "would_fail",
    "unknown",
    "would_succeed",
    "outdated",
    "not_checked",
    "deferred",
];

/// What a node reports of a registry with one target in each of some states.
pub(super) fn mixture(
    node: &str,
    instance: &str,
    counts: [usize; 6],
) -> Vec<(String, &'static str)> {
    let mut series = Vec::new();
    for (state, _) in STATES.iter().zip(counts).filter(|(_, count)| *count > 0) {
        let labels = format!(
            r#"cluster="c", node="{node}", instance="{instance}", target="{state}", registry="r.test""#
        );
        series.push((format!("pullpath_target_info{{{labels}}}"), "1x200"));
        series.push((
            format!("pullpath_target_state{{{labels}, state=\"{state}\"}}"),
            "1x200",
        ));
        let ready = match *state {
            "would_succeed" => "1x200",
            "would_fail" => "0x200",
            _ => continue,
        };
        series.push((format!("pullpath_pull_ready{{{labels}}}"), ready));
    }
    series
}

/// All mixtures of states.
pub(super) fn mixtures() -> impl Iterator<Item = [usize; 6]> {
    (1..64_usize).map(|bits| std::array::from_fn(|place| bits >> place & 1))
}

#[test]
#[expect(clippy::cast_precision_loss, reason = "six targets at most")]
fn nothing_unchecked_counts_as_well_in_any_mixture_on_any_panel() {
    let mut text = String::from("evaluation_interval: 1m\ntests:\n");
    for counts in mixtures() {
        let [fails, unknown, succeeds, outdated, not_checked, deferred] = counts;
        let (open, unchecked) = (unknown + outdated, not_checked + deferred);
        let all: usize = counts.iter().sum();
        let least = match counts {
            _ if fails > 0 => 0.0,
            _ if open > 0 => 0.6,
            _ if unchecked > 0 => 0.8,
            _ => 1.0,
        };
        let half = succeeds as f64 + (open + unchecked) as f64 / 2.0;
        let cell = if fails > 0 {
            half / all as f64 / 2.0
        } else {
            least
        };
        let can = match (succeeds, open + unchecked) {
            (1, _) => Some(1.0),
            (_, 0) => Some(0.0),
            _ => None,
        };
        let is_failing = fails == all;
        let series = mixture("n", "i", counts);
        let series: Vec<(&str, &str)> = series
            .iter()
            .map(|(name, values)| (&**name, *values))
            .collect();
        for (panel, labels, value) in [
            (MATRIX, CELL, Some(cell)),
            (["node", "Would all pulls succeed?"], "{}", Some(least)),
            (["fleet", "Not checked yet"], "{}", Some(unchecked as f64)),
            (["fleet", "Not known"], "{}", Some(open as f64)),
            (
                ["registry", "Not checked yet"],
                "{}",
                Some(unchecked as f64),
            ),
            (["registry", "Nodes that can pull"], "{}", can),
            (
                ["fleet", "Failing registries"],
                "{}",
                Some(f64::from(u8::from(is_failing))),
            ),
        ] {
            let value = value.map(|value| value.to_string());
            let shown: Vec<(&str, &str)> = value.iter().map(|value| (labels, &**value)).collect();
            let name = format!("{counts:?}: {}", panel[1]);
            expression_test(&mut text, &name, &series, [&query(panel), "30m"], &shown);
        }
    }
    run_tests(&text);
}
