//! Pullpath beside a real kubelet: a node with containerd, an API server, registries, and Pullpath's own pods made from
//! its manifests. Each pod of a table (`tests/kubelet/pods.rs`) is pulled by the kubelet, and each face of Pullpath
//! says of it what the kubelet did, within its promised time.
//!
//! A part runs in continuous integration; `tests/kubelet/run` runs all.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]
#![allow(clippy::print_stdout, reason = "the table is what one reads")]
#![allow(
    clippy::print_stderr,
    reason = "the test runner shows it when a test fails"
)]

#[path = "kubelet/changes.rs"]
mod changes;
#[path = "kubelet/compare.rs"]
mod compare;
#[path = "kubelet/install.rs"]
mod install;
#[path = "kube/mod.rs"]
mod kube;
mod lab;
#[path = "kubelet/node.rs"]
mod node;
mod operated;
#[path = "kubelet/pods.rs"]
mod pods;
#[path = "kubelet/servers.rs"]
mod servers;
#[path = "real/stack.rs"]
mod stack;
mod support;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use compare::{Face, Seen, differences, line};
use kube::Cluster;
use node::{Node, on_a_node, sandbox};
use operated::{Metrics, ask, eventually_within};
use pods::{BANK, CASES, Case, SHOP, WITHOUT_HOSTS, secrets};
use serde_json::{Value, json};
use servers::{NODE_ADDRESS, Servers};

/// All of it, or the part for continuous integration.
fn is_whole() -> bool {
    std::env::var("PULLPATH_KUBELET").is_ok_and(|value| value == "whole")
}

/// The first change to make, by some of its words; all are made if it is empty, and none in the part for continuous
/// integration.
fn first_change() -> Option<String> {
    let named = std::env::var("PULLPATH_KUBELET_FROM").ok();
    named.or_else(|| is_whole().then(String::new))
}

#[test]
fn pullpath_says_of_each_pod_what_the_kubelet_does() {
    on_a_node(
        "pullpath_says_of_each_pod_what_the_kubelet_does",
        beside_a_kubelet,
    );
}

/// Everything that runs.
struct Lab {
    cluster: Cluster,
    node: Node,
    servers: Servers,
}

fn beside_a_kubelet(folder: &Path) {
    let begun = Instant::now();
    let say = |what: &str| println!("{:>4} s  {what}", begun.elapsed().as_secs());
    let servers = Servers::start(folder);
    say("registries");
    let cluster = Cluster::with_kubelets(&[node::NODE]);
    say("API server");
    let node = Node::start(folder, &cluster, &sandbox());
    say("the node is ready");
    let mut lab = Lab {
        cluster,
        node,
        servers,
    };
    for namespace in [SHOP, BANK] {
        lab.cluster.namespace(namespace, &[]);
        install::root_authority(&lab.cluster, namespace);
    }
    install::install(&lab.cluster, folder);
    for pod in [
        "pullpath-node-0",
        "pullpath-cluster-0",
        "pullpath-cluster-1",
    ] {
        install::wait_until_ready(&lab.cluster, pod);
    }
    say("Pullpath is ready");
    let cases: Vec<Case> = CASES
        .iter()
        .copied()
        .filter(|case| case.is_quick || is_whole())
        .collect();
    lab.prepare();
    lab.create(&cases);
    say(&format!("{} pods", cases.len()));
    lab.compare(&cases, &say);
    lab.compare_counts();
    say("counts");
    if is_whole() {
        let failures = compare::failures_by_events(&lab.list("events"));
        let refused = failures
            .keys()
            .filter(|key| key.ends_with(compare::QPS))
            .count();
        assert!(
            refused > 0,
            "so many pods exceed the kubelet's rate: {failures:?}"
        );
    }
    if first_change().is_some() {
        lab.change(cases, &say);
    }
}

impl Lab {
    /// What the pods need.
    fn prepare(&self) {
        for secret in secrets() {
            install::create(&self.cluster, &secret);
        }
        install::create(
            &self.cluster,
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller", "namespace": SHOP},
                    "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "good"}]}),
        );
        // A kubelet waits a second for a Secret, and then pulls without it. It has all of them, once a pod that
        // needs no pull names them.
        let names: Vec<Value> = secrets()
            .iter()
            .map(|secret| json!({"name": secret["metadata"]["name"]}))
            .collect();
        install::create(
            &self.cluster,
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "names-all", "namespace": SHOP},
                    "spec": {"nodeName": node::NODE, "hostNetwork": true, "automountServiceAccountToken": false,
                             "terminationGracePeriodSeconds": 1, "imagePullSecrets": names,
                             "containers": [{"name": "app", "image": sandbox(), "imagePullPolicy": "Never"}]}}),
        );
        eventually_within("a pod that needs no pull", Duration::from_mins(2), || {
            self.list("pods")[0]["status"]["phase"] == "Running"
        });
    }

    /// The pods, with their images in the registries.
    fn create(&self, cases: &[Case]) {
        for case in cases {
            let mut manifest = case.manifest();
            if let Some((host, rest)) = case.image.split_once('/') {
                let repository = rest.split([':', '@']).next().unwrap();
                let is_served = !host.starts_with("nx.") && !repository.starts_with("absent/");
                if is_served && repository.to_lowercase() == repository {
                    self.servers.images.copy("team/app", repository);
                }
            }
            let image = case.image.replace("DIGEST", &self.servers.images.digest);
            manifest["spec"]["containers"][0]["image"] = image.into();
            install::create(&self.cluster, &manifest);
        }
    }

    /// One change after another, from the one that is named.
    fn change(&mut self, mut cases: Vec<Case>, say: &impl Fn(&str)) {
        let from = first_change().unwrap_or_default();
        for (what, change) in CHANGES
            .into_iter()
            .skip_while(|(what, _)| !what.contains(&from))
        {
            change(self, &mut cases);
            self.compare(&cases, say);
            say(what);
        }
        self.delete_all(&cases);
        say("all pods were deleted");
    }

    fn watcher_metrics(&self) -> Option<Metrics> {
        let (address, _) = self.watcher()?;
        Some(Metrics::parse(&ask(address, "GET", "/metrics", "").body))
    }

    fn list(&self, what: &str) -> Vec<Value> {
        let list = self
            .cluster
            .ask("GET", &format!("/api/v1/namespaces/{SHOP}/{what}"), None);
        list["items"].as_array().unwrap().clone()
    }

    fn daemon() -> SocketAddr {
        format!("{NODE_ADDRESS}:9797").parse().unwrap()
    }

    /// The replica that is active, and what it knows.
    fn watcher(&self) -> Option<(SocketAddr, Value)> {
        let label = "labelSelector=app.kubernetes.io%2Fcomponent%3Dcluster";
        let path = format!("/api/v1/namespaces/{}/pods?{label}", install::NAMESPACE);
        let list = self.cluster.ask("GET", &path, None);
        list["items"].as_array().unwrap().iter().find_map(|pod| {
            let address = format!("{}:9797", pod["status"]["podIP"].as_str()?);
            let address = address.parse().ok()?;
            // It may have ended.
            TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
            let pulls = ask(address, "GET", "/api/v1/pulls", "").body;
            let pulls: Value = serde_json::from_str(&pulls).unwrap();
            (pulls["active"] == true).then_some((address, pulls))
        })
    }

    fn seen(&self) -> Seen {
        let targets = ask(Self::daemon(), "GET", "/api/v1/targets", "").body;
        let (pulls, lint) = self
            .watcher()
            .map_or_else(Default::default, |(address, pulls)| {
                // A replica that has just lost its Lease has none.
                let lint = ask(address, "GET", "/api/v1/lint", "").body;
                let lint: Value = serde_json::from_str(&lint).unwrap_or_default();
                (
                    pulls,
                    lint["findings"].as_array().cloned().unwrap_or_default(),
                )
            });
        Seen {
            pods: self.list("pods"),
            events: self.list("events"),
            targets: serde_json::from_str(&targets).unwrap(),
            pulls,
            lint,
            why: None,
        }
    }

    /// What a person reads who asks for all pods that wait.
    fn why(&self) -> Vec<Value> {
        let output = Command::new(env!("CARGO_BIN_EXE_pullpath"))
            .args(["why", "-n", SHOP, "-o", "json", "--kubeconfig"])
            .arg(self.cluster.kubeconfig("person"))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!(
                "{error}: {text}\n{}",
                String::from_utf8_lossy(&output.stderr)
            )
        });
        document["images"].as_array().unwrap().clone()
    }

    /// Until all agree. Each face has its time from when the kubelet had done what the table says.
    fn compare(&self, cases: &[Case], say: &impl Fn(&str)) {
        let begun = Instant::now();
        let waiting =
            u32::try_from(cases.iter().filter(|case| case.fails_at_all()).count()).unwrap();
        let most = KUBELET + bound(Face::Event, waiting);
        let mut agreed: BTreeMap<(&str, Face), Duration> = BTreeMap::new();
        loop {
            let seen = self.seen();
            let mut open = 0;
            for case in cases {
                let differ = differences(case, &seen.of(case), false);
                open += differ.len();
                let agreeing = FACES.iter().filter(|face| !differ.contains_key(face));
                for face in agreeing {
                    agreed
                        .entry((case.name, *face))
                        .or_insert_with(|| begun.elapsed());
                }
            }
            if open == 0 || begun.elapsed() > most {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        say(&format!("compared for {} s", begun.elapsed().as_secs()));
        let mut seen = self.seen();
        seen.why = Some(self.why());
        for case in cases {
            println!("{}", line(case, &seen.of(case)));
        }
        let mut open = disagreements(cases, &seen);
        for (case, face) in cases.iter().flat_map(|case| FACES.map(|face| (case, face))) {
            let times = agreed
                .get(&(case.name, Face::Kubelet))
                .zip(agreed.get(&(case.name, face)));
            let late = times.map_or(Duration::ZERO, |(kubelet, face)| {
                face.saturating_sub(*kubelet)
            });
            if late > bound(face, waiting) {
                open.push(format!(
                    "{} {face:?}: {} s after the kubelet",
                    case.name,
                    late.as_secs()
                ));
            }
        }
        for face in FACES {
            let late = cases.iter().filter_map(|case| {
                let kubelet = agreed.get(&(case.name, Face::Kubelet))?;
                Some(
                    agreed
                        .get(&(case.name, face))?
                        .saturating_sub(*kubelet)
                        .as_secs(),
                )
            });
            say(&format!(
                "{face:?}: at most {} s after the kubelet",
                late.max().unwrap_or_default()
            ));
        }
        if !open.is_empty() {
            if let Ok(kept) = std::env::var("PULLPATH_KUBELET_KEEP") {
                let all = json!({"pods": seen.pods, "events": seen.events, "targets": seen.targets, "pulls": seen.pulls,
                                 "lint": seen.lint, "why": seen.why});
                std::fs::write(kept, all.to_string()).unwrap();
            }
            panic!("{} differ:\n{}", open.len(), open.join("\n"));
        }
    }
}

type Change = fn(&mut Lab, &mut Vec<Case>);

/// What happens to the cluster. After each, all agree again.
const CHANGES: [(&str, Change); 8] = [
    ("the API server was restarted", |lab, _| {
        lab.restart_api_server();
        lab.compare_counts();
    }),
    // Before the daemon ends: one that starts does not know what the one before it published.
    ("a Secret was corrected", |lab, cases| {
        lab.rotate();
        cases.retain(|case| case.name != "rotated");
    }),
    ("the daemon was restarted", |lab, _| lab.restart_daemon()),
    ("the kubelet was restarted", |lab, _| {
        lab.restart_kubelet();
        lab.compare_counts();
    }),
    ("containerd was down", |lab, _| {
        lab.restart_kubelet();
        lab.runtime_down();
        lab.restart_kubelet();
    }),
    ("there was no sandbox image", |lab, _| {
        lab.without_sandbox();
        lab.restart_kubelet();
    }),
    ("containerd read no hosts.toml", |lab, cases| {
        lab.without_hosts();
        cases.extend(WITHOUT_HOSTS);
        cases.retain(|case| !["mirrored", "not-verified", "verified"].contains(&case.name));
        lab.create(WITHOUT_HOSTS);
        lab.restart_kubelet();
    }),
    ("another replica watches", |lab, _| lab.replace_watcher()),
];

/// All but `why`, which is requested once.
const FACES: [Face; 5] = [
    Face::Kubelet,
    Face::Daemon,
    Face::Event,
    Face::Cluster,
    Face::Lint,
];

/// What a kubelet may need for the pods of the table: its pulls follow each other, and a refused turn costs a back-off.
const KUBELET: Duration = Duration::from_mins(4);

/// How long after the kubelet a face may be, on a busy machine. A pod that begins to wait is checked within seconds,
/// once a minute for each target; a node publishes ten Events a minute; Events are watched; lint follows a change
/// within 5 s.
fn bound(face: Face, waiting: u32) -> Duration {
    match face {
        Face::Kubelet | Face::Why => Duration::ZERO,
        Face::Cluster | Face::Lint => Duration::from_secs(45),
        Face::Daemon => Duration::from_secs(90),
        Face::Event => Duration::from_secs(90) + Duration::from_secs(6) * waiting,
    }
}

fn disagreements(cases: &[Case], seen: &Seen) -> Vec<String> {
    let mut all = Vec::new();
    for case in cases {
        let found = differences(case, &seen.of(case), true);
        all.extend(
            found
                .into_iter()
                .map(|(face, text)| format!("{} {face:?}: {text}", case.name)),
        );
    }
    all
}
