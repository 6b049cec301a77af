//! The dashboards and alerts on real data: Debian's Prometheus finds three real daemons and a cluster role by
//! the shipped job, at a real API server, while ways and registries of the world of namespaces break. Every
//! query of every panel and variable brings something, or is listed here with the reason; what breaks is in
//! Prometheus' own list of alerts, with its cause and what to do.
//!
//! `UPDATE_SCREENSHOTS=1` writes what a browser shows of it into docs/images.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]
#![allow(clippy::print_stdout, reason = "what was measured, for who looks")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
#[path = "lab/metadata.rs"]
mod metadata;
mod operated;
#[path = "real/stack.rs"]
mod stack;
mod support;
#[path = "lab/world.rs"]
mod world;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use jiff::Timestamp;
use kube::Cluster;
use lab::process::{Process, run};
use operated::{Daemon, browser, eventually_within};
use serde_json::{Value, json};
use stack::{PASSWORD, REPOSITORY, TAG, USER};
use tempfile::TempDir;
use world::{
    AUTH, BLOBS, Block, DNS, ECHO, ENDPOINT, Host, NEAR, NODE, ONPREM, PEER, PUBLIC, REG, SNAT,
    SWR, TURBO, World,
};

/// Queries that rightly bring nothing here: dashboard, panel, a part of the query that is of it alone. None does:
/// what would be empty without trouble of its kind has it.
const RIGHTLY_EMPTY: &[[&str; 3]] = &[];

/// Where the kernel reports no CPU limit, it is unknown how long a daemon was throttled.
const WITHOUT_A_LIMIT: [&str; 3] = ["node", "CPU", "pullpath_throttled_seconds_total"];

/// Alerts for what is broken here. No other fires, except `PullpathCpuStarved`: it depends on the CPUs of this
/// machine.
const ALERTS: &[&str] = &[
    "PullpathRegistryNotPullable",
    "PullpathRegistryNotPullableFromSomeNodes",
    "PullpathImageNotPullable",
    "PullpathPathNotExpected",
    "PullpathPathChanged",
    "PullpathCertificateExpiring",
    "PullpathCredentialExpiring",
    "PullpathBandwidthInsufficient",
    "PullpathBandwidthCap",
    "PullpathRealPullsFailing",
];

const BOARDS: [&str; 3] = ["fleet", "registry", "node"];

/// How long is measured, at least.
const SPAN: Duration = Duration::from_secs(90);

/// What something takes on a busy machine.
const SOON: Duration = Duration::from_mins(1);

/// Known by two addresses: an endpoint in the VPC, and what lies behind the peering.
const MOVING: &str = "harbor.test";

/// A node, and where its daemon is.
struct Node {
    name: &'static str,
    host: Host,
    daemon: Daemon,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A registry's mode of being paid for: 12 of 100 requests are left.
const NEARLY_USED_UP: &str = "add_header ratelimit-limit \"100;w=21600\" always; add_header ratelimit-remaining \"12;w=21600\" always;";

#[test]
fn every_panel_shows_something_and_what_breaks_is_reported_with_cause_and_fix() {
    let world = World::with_layers(&[9 << 20, 6 << 20, 700_000]);
    let users = world.folder().join("users");
    let token = token();
    std::fs::write(&users, format!("{USER}:{{PLAIN}}{token}\n")).unwrap();
    let login = format!("auth_basic lab; auth_basic_user_file {};", users.display());
    world.registry_certified(&REG, &[], Some([30, 60]), "");
    world.registry_certified(&SWR, &[], Some([100, 265]), "");
    world.registry_certified(&PEER, &[MOVING], Some([10, 80]), NEARLY_USED_UP);
    world.registry_certified(&ENDPOINT, &[MOVING], Some([10, 80]), "");
    world.registry_certified(&ONPREM, &[], Some([86, 4]), &login);
    world.split_registry(&PUBLIC, Some(&AUTH), Some(&BLOBS));
    world.names(&[(MOVING, &[ENDPOINT.v4])]);
    world.snat(&[SNAT]);
    world.echo(&ECHO);
    world.wan.set(|knobs| knobs.rate = Some(20.0));
    // The subnet of one node was forgotten in a firewall.
    world.vpc.nft(&format!(
        "add rule inet lab rules ip saddr {} ip daddr {} tcp dport 443 drop\n",
        TURBO.v4, REG.v4
    ));
    // The cluster role's pod.
    world.node.ip("addr add 10.0.1.11/24 dev eth0");
    // The API server and Prometheus are on the first node.
    world.node.inside(|| on_the_node(&world, &token));
}

/// A docker config with a password.
fn login(world: &World, name: &str, registry: &Host, password: &str) -> PathBuf {
    let path = world.folder().join(format!("{name}.json"));
    let auth = BASE64_STANDARD.encode(format!("{USER}:{password}"));
    let text = json!({"auths": {registry.name(): {"auth": auth}}}).to_string();
    std::fs::write(&path, text).unwrap();
    path
}

/// A token that ends in two days, by its own word.
fn token() -> String {
    let now = Timestamp::now().as_second();
    let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    format!(
        "{}.{}.c2ln",
        part(&json!({"alg": "RS256"})),
        part(&json!({"iat": now - 86_400 * 28, "exp": now + 86_400 * 2}))
    )
}

fn config(world: &World, token: &str, name: &str, host: &Host, more: &str) -> String {
    let mut text = format!(
        "listen: '{}:9797'\nadmin_listen: 127.0.0.1:9798\nlog: {{format: json}}\nvantage: {{node: {name}}}\n\
         network:\n  nameservers: ['{}']\n  hosts_file: /dev/null\n  ca_files: ['{}']\n  metadata: off\n  provider: huawei\n\
         \x20 snat_addresses: ['{SNAT}']\n  egress: {{echo: ['{}'], samples: 4}}\n  eip_bandwidth_mbit: 20\n\
         \x20 cidrs:\n    - {{cidr: 10.0.0.0/16, class: intranet, name: our VPC}}\n\
         \x20   - {{cidr: 10.50.0.0/16, class: vpc_peering, name: shared services}}\n\
         \x20   - {{cidr: 192.168.0.0/16, class: direct_connect_vpn, name: data centre}}\n\
         schedule: {{reach: 10s, path: 1m, transfer: 1h, timeout: 2s}}\n{more}\ntargets:\n",
        host.v4,
        DNS[0],
        world.ca_file().display(),
        ECHO.url(),
    );
    let of = |host: &str| format!("{host}/{REPOSITORY}:{TAG}");
    for (target, image, expected) in [
        (
            "shop",
            of(&REG.name()),
            "expect: {class: [intranet]}".to_owned(),
        ),
        (
            "base",
            of(&SWR.name()),
            "expect: {throughput_mbit: 100}".to_owned(),
        ),
        ("search", of(&PEER.name()), String::new()),
        (
            "billing",
            of(&ONPREM.name()),
            format!(
                "expect: {{class: [intranet, vpc_peering]}}, credential: {{docker_config: '{}'}}",
                login(world, "billing", &ONPREM, token).display()
            ),
        ),
        ("harbor", of(MOVING), String::new()),
        (
            "web",
            of(&PUBLIC.name()),
            format!(
                "expect: {{pull_within: 3s}}, credential: {{docker_config: '{}'}}",
                login(world, "web", &PUBLIC, PASSWORD).display()
            ),
        ),
        (
            "batch",
            of(&PUBLIC.name()),
            format!(
                "credential: {{docker_config: '{}'}}",
                login(world, "batch", &PUBLIC, "of-last-year").display()
            ),
        ),
    ] {
        let comma = if expected.is_empty() { "" } else { ", " };
        writeln!(
            text,
            "  - {{name: {target}, image: '{image}'{comma}{expected}}}"
        )
        .unwrap();
    }
    text
}

/// A pod as the shipped manifests make it, and as a kubelet says that it runs.
fn pod(cluster: &Cluster, template: &Value, name: &str, node: &str, address: &str) {
    let container = &template["spec"]["containers"][0];
    cluster.create(
        "/api/v1/namespaces/pullpath/pods",
        &json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": template["metadata"]["labels"]},
                "spec": {"nodeName": node, "containers": [
                    {"name": container["name"], "image": container["image"], "ports": container["ports"]}]}}),
    );
    cluster.ask(
        "PATCH",
        &format!("/api/v1/namespaces/pullpath/pods/{name}/status"),
        Some(
            &json!({"status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}]}}),
        ),
    );
}

/// Real pulls of a round, in the words of kubelets.
fn pulls(cluster: &Cluster, round: usize) {
    for (node, host, seconds, waiting, size) in [
        ("node-a", &PUBLIC, 7.2, 7.2, 15_700_000),
        ("node-b", &PUBLIC, 8.1, 21.4, 15_700_000),
        ("node-c", &PUBLIC, 7.6, 7.9, 15_700_000),
        ("node-a", &PEER, 1.4, 1.5, 15_700_000),
        ("node-c", &SWR, 1.2, 8.8, 15_700_000),
    ] {
        // Of each image once a node counts for rates.
        let image = format!("{}/{REPOSITORY}:{TAG}.{round}", host.name());
        cluster.kubelet_says(
            &format!("web-{round}-{node}-{}.1", host.name),
            node,
            "Pulled",
            &format!(
                "Successfully pulled image \"{image}\" in {seconds}s ({waiting}s including waiting). Image size: {size} bytes."
            ),
            0,
        );
    }
    let image = format!("{}/{REPOSITORY}:{TAG}", REG.name());
    cluster.kubelet_says(
        &format!("shop-{round}.1"),
        "node-b",
        "Failed",
        &format!(
            "Failed to pull image \"{image}\": rpc error: code = Unknown desc = failed to pull and unpack image \"{image}\": failed to resolve reference \"{image}\": failed to do request: Head \"https://{}/v2/{REPOSITORY}/manifests/{TAG}\": dial tcp {}:443: i/o timeout",
            REG.name(),
            REG.v4
        ),
        0,
    );
}

/// What Prometheus' discovery of pods makes of those at the API server: each port of a container, with these
/// labels among others.
fn discovered(cluster: &Cluster, namespace: &str) -> Vec<Value> {
    let pods = cluster.ask("GET", &format!("/api/v1/namespaces/{namespace}/pods"), None);
    let mut found = Vec::new();
    for pod in pods["items"].as_array().unwrap() {
        for port in pod["spec"]["containers"][0]["ports"].as_array().unwrap() {
            let mut labels = json!({
                "__meta_kubernetes_pod_name": pod["metadata"]["name"],
                "__meta_kubernetes_pod_node_name": pod["spec"]["nodeName"],
                "__meta_kubernetes_pod_container_port_name": port["name"],
                "__meta_kubernetes_pod_phase": pod["status"]["phase"],
            });
            for (name, value) in pod["metadata"]["labels"].as_object().unwrap() {
                let name = name.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                labels[format!("__meta_kubernetes_pod_label_{name}")] = value.clone();
            }
            let address = pod["status"]["podIP"].as_str().unwrap();
            let target = format!("{address}:{}", port["containerPort"]);
            found.push(json!({"targets": [target], "labels": labels}));
        }
    }
    found
}

/// What `kubectl kustomize` makes of a folder.
fn built(folder: &str) -> Vec<Value> {
    let text = run(kubectl().arg("kustomize").arg(root().join(folder)));
    let parse = |document: &str| serde_saphyr::from_str(document).unwrap();
    text.split("\n---\n").map(parse).collect()
}

fn kubectl() -> Command {
    let tools = run(&mut Command::new(root().join("tests/shipped/tools")));
    Command::new(Path::new(tools.trim()).join("kubectl"))
}

/// Debian's Prometheus, with the job and the rules as they are shipped.
struct Prometheus {
    _process: Process,
    address: SocketAddr,
}

impl Prometheus {
    fn start(folder: &Path, cluster: &Cluster) -> Self {
        let shipped = |name: &str| {
            let text =
                std::fs::read_to_string(root().join("deploy/monitoring").join(name)).unwrap();
            serde_saphyr::from_str::<Value>(&text).unwrap()
        };
        let mut jobs = shipped("scrape.yaml");
        let job = &mut jobs[0];
        // What differs: Debian's is built without the discovery of Kubernetes, which the test plays; it asks
        // more often; and it is of several clusters.
        let namespaces = &job["kubernetes_sd_configs"][0]["namespaces"]["names"];
        let discovered = discovered(cluster, namespaces[0].as_str().unwrap());
        job.as_object_mut().unwrap().remove("kubernetes_sd_configs");
        job["static_configs"] = discovered.into();
        job["scrape_interval"] = json!("5s");
        job["scrape_timeout"] = json!("5s");
        let relabelled = job["relabel_configs"].as_array_mut().unwrap();
        relabelled.push(json!({"target_label": "cluster", "replacement": "lab"}));
        // The rules once more, for who can't wait: what needs 5 minutes or more needs seconds there.
        let mut hasty = shipped("rules.yaml");
        for group in hasty["groups"].as_array_mut().unwrap() {
            for rule in group["rules"].as_array_mut().unwrap() {
                rule["labels"]["waits"] = json!("seconds");
                if rule.get("for").is_some() {
                    rule["for"] = json!("10s");
                }
            }
        }
        let path = |name: &str| folder.join(name);
        std::fs::write(path("hasty.yaml"), hasty.to_string()).unwrap();
        let config = json!({
            "global": {"evaluation_interval": "3s"},
            "rule_files": [root().join("deploy/monitoring/rules.yaml"), path("hasty.yaml")],
            "scrape_configs": jobs,
        });
        std::fs::write(path("prometheus.yaml"), config.to_string()).unwrap();
        // In the node's own namespace, where no other client is.
        let address = SocketAddr::from(([127, 0, 0, 1], 9090));
        let mut command = Command::new("prometheus");
        command
            .arg("--config.file")
            .arg(path("prometheus.yaml"))
            .arg("--storage.tsdb.path")
            .arg(path("tsdb"))
            .args(["--web.listen-address", &address.to_string()])
            .args(["--log.level", "warn"]);
        let process = Process::start("prometheus", &mut command, folder).listening(address.port());
        // It listens before it answers.
        eventually_within("that Prometheus is ready", Duration::from_secs(30), || {
            operated::ask(address, "GET", "/-/ready", "").status == 200
        });
        Self {
            _process: process,
            address,
        }
    }

    fn query(&self, expr: &str) -> Vec<Value> {
        let text = run(Command::new("curl")
            .args([
                "--silent",
                "--show-error",
                "--fail",
                "--max-time",
                "20",
                "--get",
            ])
            .args(["--data-urlencode", &format!("query={expr}")])
            .arg(format!("http://{}/api/v1/query", self.address)));
        let answer: Value = serde_json::from_str(&text).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }

    fn of(&self, alert: &str) -> Vec<Value> {
        let mut all = self.alerts();
        all.retain(|one| one["labels"]["alertname"] == alert);
        all
    }

    fn alerts(&self) -> Vec<Value> {
        let answer = operated::ask(self.address, "GET", "/api/v1/alerts", "");
        let answer: Value = serde_json::from_str(&answer.body).unwrap();
        answer["data"]["alerts"].as_array().unwrap().clone()
    }
}

fn on_the_node(world: &World, token: &str) {
    let cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.namespace("shop", &[]);
    cluster.allow(
        "cluster",
        &json!([
            {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "create", "update"]},
        ]),
    );
    let begun = Instant::now();
    let start = |name: &'static str, host: Host, more: &str| {
        let text = config(world, token, name, &host, more);
        Node {
            name,
            host,
            daemon: world.at(host.place).inside(|| Daemon::start(&text)),
        }
    };
    let nodes = [
        start("node-a", NODE, ""),
        start("node-b", TURBO, ""),
        // It may ask each registry less than it would.
        start(
            "node-c",
            NEAR,
            "budgets: {registry_requests_per_minute: 30}",
        ),
    ];
    let role = Daemon::start_as(
        &["cluster", "--identity", "pullpath-cluster-0"],
        &format!(
            "listen: '10.0.1.11:9797'\nlog: {{format: json}}\nkubernetes: {{kubeconfig: '{}'}}\ncluster: {{namespace: pullpath}}\n",
            cluster.kubeconfig("cluster").display()
        ),
        Arc::new(TempDir::new().unwrap()),
    );
    let shipped = built("deploy/overlays/any");
    let template = |kind: &str, name: &str| {
        let of = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
        &shipped.iter().find(of).unwrap()["spec"]["template"]
    };
    let of_node = template("DaemonSet", "pullpath-node");
    for node in &nodes {
        pod(
            &cluster,
            of_node,
            &format!("pullpath-{}", node.name),
            node.name,
            node.host.v4,
        );
    }
    pod(
        &cluster,
        template("Deployment", "pullpath-cluster"),
        "pullpath-cluster-0",
        "node-a",
        "10.0.1.11",
    );
    // Somebody else's, with the same port and another name.
    pod(
        &cluster,
        &json!({"metadata": {"labels": {"app.kubernetes.io/name": "other"}}, "spec": {"containers": [
            {"name": "app", "image": "x", "ports": [{"name": "metrics", "containerPort": 9797}]}]}}),
        "other",
        "node-a",
        "10.0.1.12",
    );
    eventually_within("that real pulls are watched", SOON, || {
        role.metrics().value("pullpath_cluster_events_watch_up") == Some(1.0)
    });
    pulls(&cluster, 0);
    let prometheus = Prometheus::start(world.folder(), &cluster);

    // The job finds whom it should, with the labels that dashboards and alerts go by.
    eventually_within("that all are scraped", SOON, || {
        prometheus.query("up == 1").len() == 4
    });
    let found: BTreeSet<String> = prometheus
        .query("up")
        .iter()
        .map(|one| {
            let metric = &one["metric"];
            let of = |label: &str| metric[label].as_str().unwrap_or_default();
            format!(
                "{} {} {} {} {}",
                of("cluster"),
                of("job"),
                of("node"),
                of("component"),
                of("instance")
            )
        })
        .collect();
    let wanted = [
        "lab pullpath node-a cluster 10.0.1.11:9797",
        "lab pullpath node-a node 10.0.1.10:9797",
        "lab pullpath node-b node 10.0.8.5:9797",
        "lab pullpath node-c node 10.0.1.20:9797",
    ];
    assert_eq!(found, wanted.map(str::to_owned).into());

    // How fast layers come, on each node in turn.
    for node in &nodes {
        for target in ["web", "search"] {
            let path = format!("/-/check?target={target}&tier=transfer");
            let answer = world
                .at(node.host.place)
                .inside(|| node.daemon.order_within(&path, SOON));
            assert_eq!(answer.status, 200, "{answer:?}");
        }
    }
    println!("rates are known after {:?}", begun.elapsed());

    // ConfigMaps of dashboards, by a plain apply, twice.
    cluster.namespace("monitoring", &[]);
    for _ in 0..2 {
        run(kubectl()
            .arg("--kubeconfig")
            .arg(cluster.kubeconfig(kube::ADMIN))
            .args(["apply", "--namespace", "monitoring", "-k"])
            .arg(root().join("dashboards")));
    }
    let path = "/api/v1/namespaces/monitoring/configmaps?labelSelector=grafana_dashboard%3D1";
    let maps = cluster.ask("GET", path, None);
    assert_eq!(maps["items"].as_array().unwrap().len(), BOARDS.len());

    // Nothing is said of what is not broken yet.
    pulls(&cluster, 1);
    assert_eq!(
        prometheus.of("PullpathRegistryNotPullable"),
        [] as [Value; 0]
    );
    assert_eq!(prometheus.of("PullpathPathChanged"), [] as [Value; 0]);
    // A zone is changed: a way becomes another one. And a registry breaks, for all.
    world.names(&[(MOVING, &[PEER.v4])]);
    world.security_group(&SWR, Block::Drop);
    let broken = Instant::now();
    eventually_within("that no node can pull from it", SOON, || {
        !prometheus.of("PullpathRegistryNotPullable").is_empty()
    });
    println!(
        "an alert is pending {:?} after a registry broke",
        broken.elapsed()
    );
    eventually_within("that this is reported", SOON, || {
        let all = prometheus.of("PullpathRegistryNotPullable");
        all.iter().any(|alert| alert["state"] == "firing")
    });
    eventually_within("that a way has changed", SOON, || {
        !prometheus.of("PullpathPathChanged").is_empty()
    });
    pulls(&cluster, 2);
    eventually_within("the end of the time", SPAN + SOON, || {
        begun.elapsed() > SPAN
    });

    // An alert has the cause and what to do.
    let all = prometheus.of("PullpathRegistryNotPullable");
    assert_eq!(all.len(), 2, "{all:#?}");
    for alert in &all {
        let (labels, annotations) = (&alert["labels"], &alert["annotations"]);
        assert_eq!(labels["registry"], SWR.name());
        assert_eq!(labels["cause"], "tcp_timeout");
        assert_eq!(labels["cluster"], "lab");
        assert_eq!(labels["severity"], "critical");
        // As shipped it waits five minutes.
        let state = if labels["waits"].is_null() {
            "pending"
        } else {
            "firing"
        };
        assert_eq!(alert["state"], state, "{alert:#}");
        assert_eq!(
            annotations["summary"],
            "No node can pull from swr.test: The server does not answer connection attempts (tcp_timeout)"
        );
        let runbook = annotations["runbook_url"].as_str().unwrap();
        let page = runbook.strip_suffix("/causes/tcp_timeout").unwrap();
        assert!(page.starts_with("http://"), "{runbook}");
        let fix = annotations["fix"].as_str().unwrap();
        assert!(
            fix.contains("the security group must let TCP 443 out"),
            "{fix}"
        );
    }
    let reported: BTreeSet<String> = prometheus
        .alerts()
        .iter()
        .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
        .filter(|name| name != "PullpathCpuStarved")
        .collect();
    assert_eq!(
        reported,
        ALERTS.iter().map(|&name| name.to_owned()).collect()
    );

    let folder = world.folder();
    let draw = |values: &[&str]| -> Value {
        let text = run(Command::new("python3")
            .arg(root().join("tests/shipped/page.py"))
            .arg(format!("http://{}", prometheus.address))
            .arg(folder)
            .arg(begun.elapsed().as_secs().to_string())
            .args(values));
        serde_json::from_str(&text).unwrap()
    };
    let drawn = draw(&[]);
    let knows_limit = nodes
        .iter()
        .any(|node| !node.daemon.metrics().with(WITHOUT_A_LIMIT[2]).is_empty());
    check_queries(&drawn, knows_limit);
    picture(folder, "fleet");
    // One registry, and one node, as these are viewed.
    draw(&["registry=public.test"]);
    picture(folder, "registry");
    draw(&["node=node-b"]);
    picture(folder, "node");

    for node in nodes {
        assert_eq!(node.daemon.stop(), Some(0));
    }
    assert_eq!(role.stop(), Some(0));
}

/// Each query of each panel brings something, or is in the list; so does each variable.
fn check_queries(drawn: &Value, knows_limit: bool) {
    let asked = drawn["asked"].as_array().unwrap();
    let has = BOARDS.map(|name| {
        let file = root().join(format!("dashboards/{name}.json"));
        let board: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let panels = board["panels"].as_array().unwrap();
        let queries = panels
            .iter()
            .filter_map(|panel| panel["targets"].as_array());
        queries.map(Vec::len).sum::<usize>()
    });
    assert_eq!(asked.len(), has.iter().sum::<usize>());
    let mut listed: Vec<[&str; 3]> = RIGHTLY_EMPTY.to_vec();
    if !knows_limit {
        listed.push(WITHOUT_A_LIMIT);
    }
    let (nothing, something) = unlike(drawn["empty"].as_array().unwrap(), &listed);
    assert!(nothing.is_empty(), "these bring nothing: {nothing:#?}");
    assert!(something.is_empty(), "these bring something: {something:?}");
    let variables = drawn["variables"].as_array().unwrap();
    assert_eq!(variables.len(), 9);
    for variable in variables {
        let wanted = match variable[1].as_str().unwrap() {
            "cluster" => json!(["lab"]),
            "node" => json!(["node-a", "node-b", "node-c"]),
            "registry" => json!([
                MOVING,
                "onprem.test",
                "peer.test",
                "public.test",
                "reg.test",
                "swr.test"
            ]),
            other => panic!("what is {other}?"),
        };
        assert_eq!(variable[2], wanted, "{variable}");
    }
    println!(
        "{} queries of panels, {} variables",
        asked.len(),
        variables.len()
    );
}

/// A browser's picture of a page; kept in the documents if requested.
fn picture(folder: &Path, name: &str) {
    let shot = folder.join(format!("{name}.png"));
    let url = format!("file://{}/{name}.html", folder.display());
    browser::picture(&url, [1264, 2600], &shot);
    assert!(std::fs::metadata(&shot).unwrap().len() > 50_000, "{name}");
    if std::env::var_os("UPDATE_SCREENSHOTS").is_some() {
        let kept = root().join(format!("docs/images/{name}.png"));
        run(Command::new("python3")
            .arg(root().join("tests/shipped/palette.py"))
            .arg(&shot)
            .arg(&kept));
    }
    // Small enough to be in the tree.
    let kept = root().join(format!("docs/images/{name}.png"));
    let size = std::fs::metadata(&kept).unwrap().len();
    assert!((20_000..200_000).contains(&size), "{name}: {size}");
}

/// Queries that bring nothing and are not in the list, and those of the list that bring something.
fn unlike<'a>(
    empty: &'a [Value],
    listed: &[[&'static str; 3]],
) -> (Vec<&'a Value>, Vec<[&'static str; 3]>) {
    let is_of = |query: &Value, [board, panel, part]: [&str; 3]| {
        let text = |at: usize| query[at].as_str().unwrap();
        board == text(0) && panel == text(1) && text(2).contains(part)
    };
    let mut nothing: Vec<&Value> = empty.iter().collect();
    nothing.retain(|query| !listed.iter().any(|&one| is_of(query, one)));
    let mut something = listed.to_vec();
    something.retain(|&one| !empty.iter().any(|query| is_of(query, one)));
    (nothing, something)
}

#[test]
fn a_list_that_is_not_exact_would_be_seen() {
    let limit = json!(["node", "CPU", "sum(pullpath_throttled_seconds_total)"]);
    let other = json!(["node", "CPU", "sum(process_cpu_seconds_total)"]);
    let listed = [WITHOUT_A_LIMIT];
    let none = (Vec::new(), Vec::new());
    assert_eq!(unlike(std::slice::from_ref(&limit), &listed), none);
    assert_eq!(unlike(&[], &listed).1, listed);
    assert_eq!(unlike(&[limit, other.clone()], &listed).0, [&other]);
}
