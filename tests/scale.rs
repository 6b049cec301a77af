//! A big cluster, beside a real API server: 5,000 pods of 1,000 workloads on 500 nodes, 2,000 Secrets, and a
//! storm of Events. What a node's daemon, the cluster role and `lint` cost there is printed, since machines
//! differ; that nothing is read needlessly, and that nothing is lost, is asserted. PULLPATH=PROGRAM takes the
//! figures of an optimised build.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::print_stdout, reason = "figures are its output")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use kube::{Cluster, create_all};
use operated::{Daemon, eventually_within, program};
use pullpath::report::lint::LintDocument;
use serde_json::{Value, json};
use support::{PASSWORD, USER, World};
use tempfile::TempDir;

const NODES: usize = 500;
const PODS: usize = 5000;
const WORKLOADS: usize = 1000;
const SECRETS: usize = 2000;
/// Pulls that have ended well, and ones that have not; as many Events again are of no image.
const PULLED: usize = 4000;
const FAILED: usize = 1000;

/// What the machine gives to everything here at once, on a busy day.
const PATIENCE: Duration = Duration::from_mins(3);

fn namespace(number: usize) -> String {
    format!("ns-{}", number % 20)
}

/// Every workload has a Secret of its own but for ten, whose one is not there.
fn secrets(world: &World) -> Vec<Value> {
    let config = World::docker_config(&world.registry_host(), USER, PASSWORD);
    let data = BASE64_STANDARD.encode(config);
    let secrets = (0..SECRETS).map(|number| {
        let kind = if number < WORKLOADS { "kubernetes.io/dockerconfigjson" } else { "Opaque" };
        let name = if number < 10 { format!("other-{number}") } else { format!("pull-{number}") };
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace(number)},
               "type": kind, "data": {".dockerconfigjson": data}})
    });
    secrets.collect()
}

fn template(world: &World, workload: usize) -> Value {
    // Half of them want what the registry has, so that checks end in every way.
    let image = if workload.is_multiple_of(2) {
        format!("{}/team/app-{workload}:1", world.registry_host())
    } else {
        world.reference()
    };
    json!({"metadata": {"labels": {"app": "x"}},
           "spec": {"imagePullSecrets": [{"name": format!("pull-{workload}")}],
                    "containers": [{"name": "app", "image": image}]}})
}

fn workloads(world: &World) -> Vec<Value> {
    let workloads = (0..WORKLOADS).map(|number| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
               "metadata": {"name": format!("w-{number}"), "namespace": namespace(number)},
               "spec": {"selector": {"matchLabels": {"app": "x"}}, "template": template(world, number)}})
    });
    workloads.collect()
}

fn pods(world: &World) -> Vec<Value> {
    let owners = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "above", "uid": "u", "controller": true}]);
    let pods = (0..PODS).map(|number| {
        let mut spec = template(world, number % WORKLOADS)["spec"].clone();
        spec["nodeName"] = json!(format!("n{}", number % NODES));
        json!({"apiVersion": "v1", "kind": "Pod", "spec": spec,
               "metadata": {"name": format!("p-{number}"), "namespace": namespace(number), "ownerReferences": owners,
                            "labels": {"pod-template-hash": "5d8f7c"}}})
    });
    pods.collect()
}

/// As kubelets write them when a big rollout begins: all at once.
fn storm(world: &World) -> Vec<Value> {
    let at = Timestamp::from_second(Timestamp::now().as_second())
        .unwrap()
        .to_string();
    let mut events = Vec::new();
    let mut say = |number: usize, kind: &str, reason: &str, message: String| {
        events.push(json!({"apiVersion": "v1", "kind": "Event",
            "metadata": {"name": format!("p-{number}.{reason}"), "namespace": namespace(number)},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace(number),
                               "name": format!("p-{number}"), "fieldPath": "spec.containers{app}"},
            "reason": reason, "message": message, "type": kind, "count": 1,
            "source": {"component": "kubelet", "host": format!("n{}", number % NODES)},
            "firstTimestamp": at, "lastTimestamp": at}));
    };
    for number in 0..PULLED + FAILED {
        let image = format!(
            "{}/team/app-{}:1",
            world.registry_host(),
            number % WORKLOADS
        );
        say(
            number,
            "Normal",
            "Started",
            "Started container app".to_owned(),
        );
        if number < PULLED {
            let text = format!(
                "Successfully pulled image \"{image}\" in 4.2s (5.1s including waiting). Image size: 52428800 bytes."
            );
            say(number, "Normal", "Pulled", text);
        } else {
            let text = format!(
                "Failed to pull image \"{image}\": rpc error: code = NotFound desc = failed to pull and unpack image \
                 \"{image}\": failed to resolve reference \"{image}\": {image}: not found"
            );
            say(number, "Warning", "Failed", text);
        }
    }
    events
}

/// What a process has cost until now.
struct Cost {
    peak_kib: u64,
    processor: Duration,
}

fn cost(pid: u32) -> Option<Cost> {
    let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    let status = read("status")?;
    let peak = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let peak_kib = peak.split_whitespace().next()?.parse().ok()?;
    let stat = read("stat")?;
    let fields: Vec<&str> = stat.rsplit(')').next()?.split(' ').collect();
    // Fields 14 and 15 of proc(5), in ticks of 10 ms.
    let ticks: u64 = fields.get(12)?.parse::<u64>().ok()? + fields.get(13)?.parse::<u64>().ok()?;
    Some(Cost {
        peak_kib,
        processor: Duration::from_millis(ticks * 10),
    })
}

fn print(what: &str, cost: &Cost) {
    println!(
        "{what}: {} MiB at most, {:.1} s of a processor",
        cost.peak_kib / 1024,
        cost.processor.as_secs_f64()
    );
}

/// Answers to requests for Secrets, from any client.
fn answers_of_secrets(cluster: &Cluster) -> f64 {
    let metrics = cluster.ask("GET", "/metrics", None);
    let of_secrets = |line: &&str| {
        line.starts_with("apiserver_request_total{")
            && line.contains("resource=\"secrets\"")
            && (line.contains("verb=\"LIST\"") || line.contains("verb=\"GET\""))
    };
    let lines = metrics.as_str().unwrap().lines().filter(of_secrets);
    lines
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

/// Of a family that counts: all of its series.
fn sum(daemon: &Daemon, family: &str) -> usize {
    let metrics = daemon.metrics();
    let of_family = |name: &&String| name.split('{').next() == Some(family);
    let names = metrics.series.keys().filter(of_family);
    // Not sum(): that of nothing is -0.
    let total = names.fold(0.0, |total, name| total + metrics.series[name]);
    format!("{total:.0}").parse().unwrap()
}

/// `pullpath lint` of the whole cluster.
fn lint(cluster: &Cluster) {
    let before = answers_of_secrets(cluster);
    let path = cluster.folder().join("lint.json");
    let mut child = Command::new(program())
        .env_clear()
        .args(["lint", "-A", "-o", "json", "--kubeconfig"])
        .arg(cluster.kubeconfig("cluster"))
        .stdin(Stdio::null())
        .stdout(Stdio::from(fs::File::create(&path).unwrap()))
        .spawn()
        .unwrap();
    let begun = Instant::now();
    let mut last = None;
    let status = loop {
        last = cost(child.id()).or(last);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < PATIENCE, "it did not end");
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = fs::read_to_string(path).unwrap();
    assert!(!text.contains(PASSWORD));
    let document: LintDocument = serde_json::from_str(&text).unwrap();
    print("lint, once", &last.unwrap());
    assert_eq!(status.code(), Some(1));
    let findings = &document.lint.findings;
    let codes: BTreeSet<&str> = findings.iter().map(|found| found.cause.code()).collect();
    assert_eq!(
        (findings.len(), codes),
        (10, BTreeSet::from(["secret_missing"]))
    );
    assert_eq!(document.lint.counts.secrets.read, 990);
    // Two lists of metadata in pages of 250, and each Secret that somebody names.
    let asked = answers_of_secrets(cluster) - before;
    assert!(
        (1000.0..=1020.0).contains(&asked),
        "{asked} requests for Secrets"
    );
}

fn node_daemon(cluster: &Cluster, world: &World, ca: &Path) -> Daemon {
    Daemon::start(&format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json}}\nvantage: {{node: n1}}\n\
         network: {{nameservers: ['{}'], ca_files: ['{}'], metadata: off}}\n\
         schedule: {{reach: 10s, path: 1h, transfer: off}}\n\
         kubernetes:\n  discover: node\n  secrets: discovered\n  events: pods\n  kubeconfig: '{}'\n{}\n",
        world.nameserver(),
        ca.display(),
        cluster.kubeconfig("node").display(),
        world.local_registries()
    ))
}

fn cluster_role(cluster: &Cluster) -> Daemon {
    let text = format!(
        "listen: 127.0.0.1:0\nlog: {{format: json}}\n\
         kubernetes: {{secrets: discovered, kubeconfig: '{}'}}\n\
         cluster: {{namespace: pullpath, lint: on}}\n",
        cluster.kubeconfig("cluster").display()
    );
    let folder = Arc::new(TempDir::new().unwrap());
    Daemon::start_as(&["cluster", "--identity", "a"], &text, folder)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_big_cluster_costs_little_and_nothing_is_read_needlessly() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    let follow = ["list", "watch"];
    cluster.allow(
        "cluster",
        &json!([
            {"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": follow},
            {"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": follow},
            {"apiGroups": [""], "resources": ["pods", "serviceaccounts", "secrets", "events"], "verbs": follow},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update", "create"]},
        ]),
    );
    cluster.allow(
        "node",
        &json!([
            {"apiGroups": [""], "resources": ["pods", "secrets", "nodes"], "verbs": follow},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch", "update", "get"]},
        ]),
    );
    cluster.namespace("pullpath", &[]);
    for number in 0..20 {
        cluster.namespace(&namespace(number), &[]);
    }
    let begun = Instant::now();
    create_all(&cluster, "/api/v1/namespaces/{}/secrets", secrets(&world)).await;
    create_all(
        &cluster,
        "/apis/apps/v1/namespaces/{}/deployments",
        workloads(&world),
    )
    .await;
    create_all(&cluster, "/api/v1/namespaces/{}/pods", pods(&world)).await;
    println!(
        "{SECRETS} Secrets, {WORKLOADS} workloads, {PODS} pods made in {:?}",
        begun.elapsed()
    );

    tokio::task::block_in_place(|| lint(&cluster));

    // Both roles, and then the storm.
    let before = answers_of_secrets(&cluster);
    let node = node_daemon(&cluster, &world, world.ca.file());
    // Its ten pods are of two workloads, and these name a Secret each.
    tokio::task::block_in_place(|| {
        eventually_within("the node's targets", PATIENCE, || {
            node.metrics().with("pullpath_pull_ready{").len() == 2
        });
    });
    let asked = answers_of_secrets(&cluster) - before;
    println!("{asked} requests for Secrets by the node's daemon");
    let named: BTreeSet<String> = cluster
        .asked("node")
        .into_iter()
        .filter(|asked| asked.resource == "secrets")
        .map(|asked| format!("{}/{} {}", asked.namespace, asked.name, asked.uri))
        .collect();
    assert!(!named.is_empty());
    for one in &named {
        assert!(
            one.contains("pull-1&") || one.contains("pull-1 ") || one.contains("pull-501"),
            "read needlessly: {one}"
        );
    }
    let role = cluster_role(&cluster);
    tokio::task::block_in_place(|| {
        eventually_within("the lint of the cluster role", PATIENCE, || {
            sum(&role, "pullpath_workload_findings") == 10
        });
    });
    let (before_node, before_role) = (
        cost(node.child.id()).unwrap(),
        cost(role.child.id()).unwrap(),
    );
    print("a node's daemon, started", &before_node);
    print("the cluster role, started", &before_role);

    let begun = Instant::now();
    create_all(&cluster, "/api/v1/namespaces/{}/events", storm(&world)).await;
    let stormed = begun.elapsed();
    tokio::task::block_in_place(|| {
        eventually_within("each pull that went well", PATIENCE, || {
            sum(&role, "pullpath_real_pull_duration_seconds_count") >= PULLED
        });
        eventually_within("each that did not", PATIENCE, || {
            sum(&role, "pullpath_real_pull_failures_total") >= FAILED
        });
    });
    println!(
        "{} Events in {stormed:?}; counted {:?} after the last",
        2 * (PULLED + FAILED),
        begun.elapsed().checked_sub(stormed).unwrap()
    );
    // Each counts once, and for the registry and the node that it was on.
    assert_eq!(
        sum(&role, "pullpath_real_pull_duration_seconds_count"),
        PULLED
    );
    assert_eq!(sum(&role, "pullpath_real_pull_failures_total"), FAILED);
    assert_eq!(sum(&role, "pullpath_real_pull_uncounted_total"), 0);
    assert_eq!(sum(&role, "pullpath_cluster_pairs"), NODES);
    let (after_node, after_role) = (
        cost(node.child.id()).unwrap(),
        cost(role.child.id()).unwrap(),
    );
    print("a node's daemon, after the storm", &after_node);
    print("the cluster role, after the storm", &after_role);
    // No node hears of the storm.
    let events: Vec<_> = cluster
        .asked("node")
        .into_iter()
        .filter(|asked| asked.resource == "events" && ["list", "watch"].contains(&&*asked.verb))
        .collect();
    assert!(events.is_empty(), "{events:?}");
    // The least that an accidental list of the whole cluster would break: it holds ten pods of 5,000.
    assert!(after_node.peak_kib < after_role.peak_kib + 64 * 1024);

    for daemon in [&node, &role] {
        let all = format!("{}{}", daemon.log().join("\n"), daemon.get("/metrics").body);
        assert!(!all.contains(PASSWORD));
    }
    assert_eq!(node.stop(), Some(0));
    assert_eq!(role.stop(), Some(0));
}
