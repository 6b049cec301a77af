//! What makes Pullpath easy to adopt: Helm's chart, and files for krew, node-problem-detector and GitHub. The chart makes
//! the same objects as kustomize does, and each file follows the rules that its tool documents.

#![allow(clippy::unwrap_used, reason = "this is test code")]

mod lab;

use std::path::{Path, PathBuf};
use std::process::Command;

use lab::process::run;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that a script of the tests prints.
fn tools(script: &str) -> PathBuf {
    PathBuf::from(run(&mut Command::new(root().join(script))).trim())
}

/// Runs one test of a script in tests/adopt.
fn python(script: &str, test: &str) {
    let shipped = tools("tests/shipped/tools");
    let mut command = Command::new(shipped.join("python"));
    command
        .arg("-B")
        .arg(root().join("tests/adopt").join(script))
        .arg(test)
        .env("HELM", tools("tests/manifests/tools").join("helm"))
        .env("KUBECTL", shipped.join("kubectl"))
        .env("VALIDATE", shipped.join("kubernetes-validate"))
        .env("CARGO", env!("CARGO"))
        .env("PULLPATH", env!("CARGO_BIN_EXE_pullpath"));
    run(&mut command);
}

#[test]
fn what_is_generated_is_up_to_date() {
    for generate in ["deploy/chart/generate", "deploy/krew/generate"] {
        run(Command::new(root().join(generate)).arg("--check"));
    }
}

#[test]
fn the_chart_equals_the_manifests_object_by_object() {
    python("chart.py", "equal");
    python("chart.py", "would_differ");
}

#[test]
fn the_charts_monitors_alerts_and_dashboards_are_those_of_the_manifests() {
    python("chart.py", "monitoring");
}

#[test]
fn each_value_of_the_chart_has_its_effect_and_all_together_are_valid() {
    python("chart.py", "values");
}

#[test]
fn the_clusters_lint_reads_secrets_with_the_daemons_rights() {
    python("chart.py", "lint_of_secrets");
}

#[test]
fn the_chart_refuses_values_that_mean_nothing() {
    python("chart.py", "refusals");
}

#[test]
fn the_charts_test_probes_from_the_daemons_network() {
    python("chart.py", "hook");
}

#[test]
fn the_charts_notes_name_objects_that_are_there() {
    python("chart.py", "notes");
}

#[test]
fn helm_lints_the_chart_without_a_warning() {
    python("chart.py", "lint");
}

#[test]
fn a_folder_that_a_node_lacks_keeps_no_pod_from_starting() {
    python("chart.py", "folders");
}

#[test]
fn the_chart_is_pushed_to_a_registry_and_pulled_from_it() {
    python("chart.py", "packaged");
}

#[test]
fn the_plugins_manifest_follows_krews_rules() {
    python("rules.py", "krew");
}

#[test]
fn the_detectors_configuration_follows_its_rules() {
    python("rules.py", "detector");
}

#[test]
fn the_workflows_run_the_gate_and_make_a_whole_release() {
    python("rules.py", "workflows");
}

#[test]
fn the_issue_forms_follow_githubs_rules_and_ask_for_the_report() {
    python("rules.py", "forms");
}

#[test]
fn the_list_of_crates_has_each_that_is_linked() {
    python("rules.py", "sbom");
}
