//! What is shipped beside the program: dashboards, alerts, manifests. They name nothing that is not there.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "shipped/alerts.rs"]
mod alerts;
mod lab;
#[path = "shipped/manifests.rs"]
mod manifests;
#[path = "shipped/panels.rs"]
mod panels;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use lab::process::run;
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_is_made_is_as_its_source_has_it() {
    for generate in [
        "dashboards/generate",
        "deploy/monitoring/generate",
        "deploy/notices",
    ] {
        run(Command::new(root().join(generate)).arg("--check"));
    }
}

#[test]
fn grafana_knows_every_key_of_the_dashboards() {
    let mut command = Command::new(manifests::tools().join("python"));
    command.arg(root().join("tests/shipped/grafana.py"));
    for name in BOARDS {
        command.arg(root().join("dashboards").join(format!("{name}.json")));
    }
    run(&mut command);
}

const BOARDS: &[&str] = &["fleet", "registry", "node"];

/// Labels of each family, of the daemon and of the cluster role; those of scrapes are added to all.
fn families() -> BTreeMap<String, BTreeSet<&'static str>> {
    let of_scrape = ["cluster", "node", "instance", "job", "component"];
    let mut found = BTreeMap::new();
    let daemon = pullpath::daemon::http::metrics::FAMILIES.iter();
    for family in daemon.chain(pullpath::cluster::metrics::FAMILIES) {
        let labels: BTreeSet<&str> = family.labels.iter().copied().chain(of_scrape).collect();
        if family.kind == "histogram" {
            for part in ["bucket", "sum", "count"] {
                let more = (part == "bucket").then_some("le");
                let labels = labels.iter().copied().chain(more).collect();
                found.insert(format!("{}_{part}", family.name), labels);
            }
        } else {
            found.insert(family.name.to_owned(), labels);
        }
    }
    for name in [
        "process_resident_memory_bytes",
        "process_cpu_seconds_total",
        "up",
        "ALERTS",
    ] {
        found.insert(name.to_owned(), of_scrape.into_iter().collect());
    }
    found
}

/// Names of a PromQL expression: metrics with the labels that select them, and labels of `by`, `on` and so on.
fn names(expr: &str) -> (Vec<(String, Vec<String>)>, Vec<String>) {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|c| c.is_ascii_alphanumeric() || "_:".contains(*c))
            .collect()
    };
    let (mut metrics, mut labels) = (Vec::new(), Vec::new());
    let mut rest = expr;
    while let Some(c) = rest.chars().next() {
        if c == '"' {
            // A text, to its end.
            let end = rest[1..].find('"').unwrap();
            rest = &rest[end + 2..];
            continue;
        }
        let name = word(rest);
        if name.is_empty() {
            rest = &rest[c.len_utf8()..];
            continue;
        }
        rest = &rest[name.len()..];
        let is_metric =
            name.starts_with("pullpath_") || name.starts_with("process_") || name == "up";
        if is_metric {
            let mut selected = Vec::new();
            if let Some(inside) = rest.strip_prefix('{') {
                let end = inside.find('}').unwrap();
                for part in inside[..end].split("\",") {
                    let label = word(part.trim_start());
                    if !label.is_empty() {
                        selected.push(label);
                    }
                }
                rest = &inside[end + 1..];
            }
            metrics.push((name, selected));
        } else if ["by", "on", "group_left", "without", "ignoring"].contains(&name.as_str())
            && let Some(inside) = rest.trim_start().strip_prefix('(')
        {
            let end = inside.find(')').unwrap();
            labels.extend(
                inside[..end]
                    .split(',')
                    .map(|label| label.trim().to_owned())
                    .filter(|label| !label.is_empty()),
            );
            rest = &inside[end + 1..];
        }
    }
    (metrics, labels)
}

fn check(place: &str, expr: &str) {
    let known = families();
    let (metrics, labels) = names(expr);
    assert!(!metrics.is_empty(), "{place}: {expr}");
    let mut of_all = BTreeSet::new();
    for (metric, selected) in &metrics {
        let of_family = known
            .get(metric)
            .unwrap_or_else(|| panic!("{place}: no family has {metric}"));
        for label in selected {
            assert!(
                of_family.contains(label.as_str()),
                "{place}: {metric} has no label {label}"
            );
        }
        of_all.extend(of_family.iter().copied());
    }
    for label in labels {
        assert!(
            of_all.contains(label.as_str()),
            "{place}: none of {metrics:?} has a label {label}"
        );
    }
}

#[test]
fn dashboards_ask_for_metrics_and_labels_that_are_there() {
    let mut uids = BTreeSet::new();
    for name in BOARDS {
        let text = std::fs::read_to_string(root().join("dashboards").join(format!("{name}.json")))
            .unwrap();
        let board: Value = serde_json::from_str(&text).unwrap();
        uids.insert(board["uid"].as_str().unwrap().to_owned());
        let mut asked = 0;
        for panel in board["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            for target in panel["targets"].as_array().into_iter().flatten() {
                check(
                    &format!("{name}, {title}"),
                    target["expr"].as_str().unwrap(),
                );
                asked += 1;
            }
            if panel["type"] != "row" {
                assert!(
                    panel["description"]
                        .as_str()
                        .is_some_and(|text| text.contains('?') || text.contains(':')),
                    "{name}, {title}: which question does it answer?"
                );
            }
        }
        assert!(asked >= 15, "{name}");
        for variable in board["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else {
                continue;
            };
            let inside = query
                .strip_prefix("label_values(")
                .unwrap()
                .strip_suffix(')')
                .unwrap();
            let (selector, label) = inside.rsplit_once(", ").unwrap();
            check(&format!("{name}, variable {label}"), selector);
        }
        // Links go to boards that are there.
        for (_, rest) in text
            .match_indices("/d/")
            .map(|(at, _)| text.split_at(at + 3))
        {
            let uid: String = rest
                .chars()
                .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                .collect();
            assert!(
                ["pullpath-fleet", "pullpath-registry", "pullpath-node"].contains(&uid.as_str()),
                "{uid}"
            );
        }
    }
    assert_eq!(uids.len(), 3);
}

#[test]
fn alerts_ask_for_metrics_and_labels_that_are_there() {
    let text = std::fs::read_to_string(root().join("deploy/monitoring/rules.yaml")).unwrap();
    let rules: Value = serde_saphyr::from_str(&text).unwrap();
    let mut alerts = 0;
    let mut recorded: Vec<(&str, &str)> = Vec::new();
    for rule in rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
    {
        let text = |key: &str| rule[key].as_str();
        let mut expr = text("expr").unwrap().to_owned();
        for (name, recorded) in &recorded {
            expr = expr.replace(name, &format!("({recorded})"));
        }
        if let Some(name) = text("record") {
            check(name, &expr);
            recorded.push((name, text("expr").unwrap()));
            continue;
        }
        let name = text("alert").unwrap();
        check(name, &expr);
        let annotations = &rule["annotations"];
        for key in ["summary", "description", "fix"] {
            assert!(
                annotations[key]
                    .as_str()
                    .is_some_and(|text| text.len() > 10),
                "{name}: {key}"
            );
        }
        let has_cause = ["summary", "fix"]
            .iter()
            .any(|&key| annotations[key].as_str().unwrap().contains("$labels.cause"));
        let runbook = annotations["runbook_url"].as_str();
        assert!(
            !has_cause || runbook.is_some(),
            "{name}: where is its cause described?"
        );
        if let Some(runbook) = runbook {
            let (_, code) = runbook.split_once("docs/causes.md#{{ end }}").unwrap();
            let is_known = code == "{{ $labels.cause }}"
                || code.parse::<pullpath::diagnose::catalogue::Cause>().is_ok();
            assert!(is_known, "{name}: {runbook}");
        }
        // What templates ask for is there, too.
        for text in annotations.as_object().unwrap().values() {
            let queries = text.as_str().unwrap().split("printf `").skip(1);
            for query in queries {
                let query = query.split('`').next().unwrap();
                check(name, &query.replace("%[1]q", "\"\"").replace("%q", "\"\""));
            }
        }
        alerts += 1;
    }
    assert!(alerts > 15);
}

#[test]
fn an_unknown_name_would_be_found() {
    let (metrics, labels) = names(
        r#"sum by (a, b) (rate(pullpath_x_total{c=~"$d", e="f, g"}[5m])) * on (h) group_left(i) up"#,
    );
    let selected = vec!["c".to_owned(), "e".to_owned()];
    assert_eq!(
        metrics,
        [
            ("pullpath_x_total".to_owned(), selected),
            ("up".to_owned(), Vec::new())
        ]
    );
    assert_eq!(labels, ["a", "b", "h", "i"]);
    assert!(std::panic::catch_unwind(|| check("here", "pullpath_nothing")).is_err());
    assert!(std::panic::catch_unwind(|| check("here", "pullpath_targets{tag=\"1\"}")).is_err());
}
