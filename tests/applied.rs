//! The manifests on a real API server: all of them are taken by `kubectl apply`, and what is read back has all
//! that was written. The server is of version 1.20, which is older than some of them: `OLD` says what is
//! changed for it.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use kube::{ADMIN, Cluster};
use lab::process::run;
use serde_json::{Value, json};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn kubectl() -> Command {
    let tools = run(&mut Command::new(root().join("tests/shipped/tools")));
    Command::new(Path::new(tools.trim()).join("kubectl"))
}

fn documents(text: &str) -> Vec<Value> {
    let documents = text.split("\n---\n");
    documents
        .map(|one| serde_saphyr::from_str(one).unwrap_or_else(|error| panic!("{error}\n{one}")))
        .collect()
}

/// As an operator puts it together: an overlay with more components.
fn made(overlay: &str, components: &[&str]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    // kustomize takes no absolute paths.
    let up = "../".repeat(folder.path().components().count() - 1);
    let deploy = format!("{up}{}/deploy", root().strip_prefix("/").unwrap().display());
    let components: Vec<String> = components
        .iter()
        .map(|name| format!("{deploy}/components/{name}"))
        .collect();
    let whole = json!({"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [format!("{deploy}/{overlay}")], "components": components});
    fs::write(folder.path().join("kustomization.yaml"), whole.to_string()).unwrap();
    let canonical = folder.path().canonicalize().unwrap();
    documents(&run(kubectl().arg("kustomize").arg(canonical)))
}

fn helm() -> Command {
    let tools = run(&mut Command::new(root().join("tests/manifests/tools")));
    Command::new(Path::new(tools.trim()).join("helm"))
}

/// As Helm makes it, of a release with names of its own.
fn by_helm(values: &[&str]) -> Vec<Value> {
    let mut command = helm();
    command
        .args(["template", RELEASE])
        .arg(root().join("deploy/chart"));
    // The pod of `helm test` is not a part of the release.
    command.args(["-n", RELEASE, "--set", "test.enabled=false"]);
    for value in values {
        command.args(["--set-json", value]);
    }
    documents(run(&mut command).trim_start_matches("---\n"))
}

const RELEASE: &str = "second";

fn example(name: &str) -> Vec<Value> {
    let path = root().join("deploy/examples").join(name);
    documents(&fs::read_to_string(path).unwrap())
}

/// What this old server has at another version than clusters of today.
const OLD: &[(&str, &str, &str)] = &[("CronJob", "batch/v1", "batch/v1beta1")];

fn for_this_server(mut object: Value) -> Value {
    for (kind, now, then) in OLD {
        if object["kind"] == *kind && object["apiVersion"] == *now {
            object["apiVersion"] = json!(then);
        }
    }
    object
}

/// What is written and not there, or not the same.
fn lost(written: &Value, read: &Value, at: &str, found: &mut Vec<String>) {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => {
            for (key, value) in written {
                let at = format!("{at}.{key}");
                match read.get(key) {
                    Some(there) => lost(value, there, &at, found),
                    None if value.is_null() => {}
                    None => found.push(at),
                }
            }
        }
        (Value::Array(written), Value::Array(read)) if written.len() == read.len() => {
            for (index, (value, there)) in written.iter().zip(read).enumerate() {
                lost(value, there, &format!("{at}[{index}]"), found);
            }
        }
        (written, read) if written == read => {}
        (written, read) => found.push(format!("{at}: {written} became {read}")),
    }
}

/// Applies them in the way given, and reads each back.
fn apply(cluster: &Cluster, what: &str, objects: Vec<Value>, how: &[&str]) -> BTreeSet<String> {
    let objects: Vec<Value> = objects.into_iter().map(for_this_server).collect();
    let file = cluster.folder().join("applied.json");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
    fs::write(&file, list.to_string()).unwrap();
    let on = |kubeconfig: PathBuf| {
        let mut command = kubectl();
        command.arg("--kubeconfig").arg(kubeconfig);
        // What it has found of an API server's kinds it keeps in the home directory.
        command
            .arg("--cache-dir")
            .arg(cluster.folder().join("cache"));
        command
    };
    run(on(cluster.kubeconfig(ADMIN))
        .arg("apply")
        .args(how)
        .arg("-f")
        .arg(&file));
    let read = run(on(cluster.kubeconfig(ADMIN))
        .args(["get", "-o", "json", "-f"])
        .arg(&file));
    let read: Value = serde_json::from_str(&read).unwrap();
    // One alone is no list.
    let read = read["items"].as_array().cloned().unwrap_or(vec![read]);
    assert_eq!(read.len(), objects.len(), "{what}");
    let mut kinds = BTreeSet::new();
    for (object, read) in objects.iter().zip(&read) {
        let kind = object["kind"].as_str().unwrap();
        let name = object["metadata"]["name"].as_str().unwrap();
        let mut written = object.clone();
        // It is taken in as `data`.
        if let Some(Value::Object(texts)) = written
            .as_object_mut()
            .and_then(|object| object.remove("stringData"))
        {
            for (key, _) in texts {
                assert!(read["data"][&key].is_string(), "{what}: {key}");
            }
        }
        let mut found = Vec::new();
        lost(&written, read, "", &mut found);
        assert!(found.is_empty(), "{what}: {kind} {name}: {found:#?}");
        kinds.insert(kind.to_owned());
    }
    kinds
}

/// The operator's kinds, with the keys of theirs that are used here: others are dropped, and missed.
fn of_the_operator(cluster: &Cluster) {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": text});
    let relabelling = json!({"type": "object", "properties": {
        "sourceLabels": {"type": "array", "items": text}, "targetLabel": text, "regex": text, "action": text,
        "replacement": text, "separator": text}});
    let endpoint = json!({"type": "object", "properties": {
        "port": text, "path": text, "interval": text, "scrapeTimeout": text, "honorLabels": {"type": "boolean"},
        "relabelings": {"type": "array", "items": relabelling}}});
    let monitor = json!({"type": "object", "properties": {
        "selector": {"type": "object", "properties": {"matchLabels": texts}},
        "namespaceSelector": {"type": "object", "properties": {"matchNames": {"type": "array", "items": text}}},
        "podMetricsEndpoints": {"type": "array", "items": endpoint},
        "endpoints": {"type": "array", "items": endpoint}}});
    let rule = json!({"type": "object", "properties": {
        "alert": text, "record": text, "expr": {"x-kubernetes-int-or-string": true}, "for": text, "labels": texts, "annotations": texts}});
    let group = json!({"type": "object", "properties": {
        "name": text, "interval": text, "rules": {"type": "array", "items": rule}}});
    let rules =
        json!({"type": "object", "properties": {"groups": {"type": "array", "items": group}}});
    for (kind, plural, spec) in [
        ("PodMonitor", "podmonitors", monitor.clone()),
        ("ServiceMonitor", "servicemonitors", monitor),
        ("PrometheusRule", "prometheusrules", rules),
    ] {
        let schema = json!({"type": "object", "properties": {
            "apiVersion": text, "kind": text, "metadata": {"type": "object"}, "spec": spec}});
        cluster.create(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
            &json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
                "spec": {"group": "monitoring.coreos.com", "scope": "Namespaced",
                    "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
                    "versions": [{"name": "v1", "served": true, "storage": true,
                                  "schema": {"openAPIV3Schema": schema}}]}}),
        );
        let path = format!("/apis/monitoring.coreos.com/v1/namespaces/default/{plural}");
        let begun = std::time::Instant::now();
        while cluster
            .curl(ADMIN, "GET", &path, None)
            .is_none_or(|(status, _)| status != 200)
        {
            assert!(
                begun.elapsed() < std::time::Duration::from_secs(30),
                "{kind}"
            );
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
}

#[test]
fn a_real_api_server_takes_all_of_it_and_drops_nothing() {
    let cluster = Cluster::start();
    of_the_operator(&cluster);
    // Whose Secrets the component secrets-named names, as an example.
    cluster.namespace("shop", &[]);
    cluster.namespace(RELEASE, &[]);
    let mut kinds = BTreeSet::new();
    for how in [&[][..], &["--server-side", "--force-conflicts"]] {
        for overlay in [
            "any",
            "cce-standard",
            "cce-turbo",
            "cce-autopilot",
            "pod-view",
        ] {
            let components: &[&str] = if overlay == "cce-autopilot" {
                &["autopilot-by-eip", "autopilot-transfer-test"]
            } else {
                &[]
            };
            let whole = made(&format!("overlays/{overlay}"), components);
            kinds.append(&mut apply(&cluster, overlay, whole, how));
        }
        let components = [
            "ask",
            "image-pull-secret",
            "lint",
            "network-policy",
            "node-files",
            "node-files-as-root",
            "node-files-pki",
            "pod-events",
            "secrets-discovered",
            "secrets-named",
            "service-monitor",
            "spread",
        ];
        let whole = made("overlays/any", &components);
        kinds.append(&mut apply(&cluster, "all components", whole, how));
        for distribution in fs::read_dir(root().join("deploy/components")).unwrap() {
            let name = distribution.unwrap().file_name().into_string().unwrap();
            // OpenShift has a kind of its own. One after the other on one server: only a plain apply takes away what the
            // one before had.
            let is_here = name.starts_with("distribution-") && name != "distribution-openshift";
            if is_here && how.is_empty() {
                let whole = made("overlays/any", &[&name]);
                kinds.append(&mut apply(&cluster, &name, whole, how));
            }
        }
        let whole = made("monitoring", &[]);
        kinds.append(&mut apply(&cluster, "monitoring", whole, how));
        let on = [
            "ask.enabled=true",
            "podEvents.enabled=true",
            "secrets={\"mode\": \"named\", \"named\": [{\"namespace\": \"shop\", \"names\": [\"pull\"]}]}",
            "spread={\"enabled\": true, \"namespace\": \"second-spread\"}",
            "lint.enabled=true",
            "networkPolicy.enabled=true",
            "podMonitor.enabled=true",
            "serviceMonitor.enabled=true",
            "prometheusRule.enabled=true",
            "dashboards.enabled=true",
            "distribution=\"k3s\"",
        ];
        kinds.append(&mut apply(&cluster, "the chart", by_helm(&on), how));
        for name in ["secret", "foo-by-eip", "foo-by-snat"] {
            let whole = example(&format!("{name}.yaml"));
            kinds.append(&mut apply(&cluster, name, whole, how));
        }
    }
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CronJob",
        "DaemonSet",
        "Deployment",
        "Namespace",
        "NetworkPolicy",
        "PodMonitor",
        "PriorityClass",
        "PrometheusRule",
        "Role",
        "RoleBinding",
        "Secret",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
    ] {
        assert!(kinds.remove(kind), "{kind} was not applied");
    }
    assert_eq!(kinds, BTreeSet::new(), "and these?");
}

/// A release is installed, changed and removed by Helm itself.
#[test]
fn helm_installs_upgrades_and_removes_the_chart() {
    let cluster = Cluster::start();
    cluster.namespace(RELEASE, &[]);
    let on = |args: &[&str]| {
        let mut command = helm();
        command.args(args).args(["-n", RELEASE, "--kubeconfig"]);
        command.arg(cluster.kubeconfig(ADMIN));
        for home in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            command.env(home, cluster.folder().join("helm"));
        }
        run(&mut command)
    };
    let read = |args: &[&str]| {
        let mut command = kubectl();
        command
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig(ADMIN))
            .arg("--cache-dir")
            .arg(cluster.folder().join("cache"));
        run(command
            .args(["get", "-n", RELEASE, "-o", "json"])
            .args(args))
    };
    let chart = root().join("deploy/chart");
    let chart = chart.to_str().unwrap();
    let said = on(&["install", RELEASE, chart, "--set", "distribution=k3s"]);
    assert!(said.contains("STATUS: deployed"), "{said}");
    let daemons: Value =
        serde_json::from_str(&read(&["daemonset", "second-pullpath-node"])).unwrap();
    assert_eq!(daemons["spec"]["template"]["spec"]["hostNetwork"], true);
    on(&[
        "upgrade",
        RELEASE,
        chart,
        "--reuse-values",
        "--set",
        "config.schedule.reach=5m,podEvents.enabled=true",
    ]);
    let config: Value = serde_json::from_str(&read(&["configmap", "second-pullpath"])).unwrap();
    let text = config["data"]["pullpath.yaml"].as_str().unwrap();
    assert!(
        text.contains("reach: 5m") && text.contains("events: pods"),
        "{text}"
    );
    // What was chosen before is still in force.
    assert!(text.contains("/var/lib/rancher/k3s"), "{text}");
    on(&["uninstall", RELEASE]);
    let kinds = "daemonset,deployment,configmap,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,priorityclass";
    let left: Value =
        serde_json::from_str(&read(&[kinds, "-l", "app.kubernetes.io/instance=second"])).unwrap();
    assert_eq!(left["items"], json!([]));
}

/// A key that a server does not know is dropped without a word: the comparison would see it.
#[test]
fn what_a_server_drops_would_be_seen() {
    let written = json!({"spec": {"a": 1, "b": [{"c": "x", "d": true}], "e": {}}});
    let mut found = Vec::new();
    lost(&written, &written, "", &mut found);
    assert!(found.is_empty());
    let read = json!({"spec": {"a": 2, "b": [{"c": "x"}], "e": {"more": 1}}});
    lost(&written, &read, "", &mut found);
    assert_eq!(found, [".spec.a: 1 became 2", ".spec.b[0].d"]);
}
