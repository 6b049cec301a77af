//! Pullpath beside a real kubelet: a node with containerd, an API server, registries, and Pullpath's own pods made from
//! its manifests. Each pod of a table (`tests/kubelet/pods.rs`) is pulled by the kubelet, and each face of Pullpath
//! says of it what the kubelet did, within its promised time.
//!
//! A part runs in continuous integration; `tests/kubelet/run` runs all.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(unreachable_pub, reason = "the modules are those of one program")]
#![allow(clippy::print_stdout, reason = "the table is what one reads")]
#![allow(
    clippy::print_stderr,
    reason = "the test runner shows it when a test fails"
)]

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
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use compare::{Face, Seen, differences, line};
use kube::Cluster;
use node::{Node, on_a_node, sandbox};
use operated::ask;
use pods::{BANK, CASES, Case, SHOP, secrets};
use serde_json::{Value, json};
use servers::{NODE_ADDRESS, Servers};

/// All of it, or the part for continuous integration.
fn is_whole() -> bool {
    std::env::var("PULLPATH_KUBELET").is_ok_and(|value| value == "whole")
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
    let lab = Lab {
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
    lab.create(&cases);
    say(&format!("{} pods", cases.len()));
    lab.compare(&cases, &say);
}

impl Lab {
    /// The pods, with all that they need.
    fn create(&self, cases: &[Case]) {
        for secret in secrets() {
            install::create(&self.cluster, &secret);
        }
        install::create(
            &self.cluster,
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "puller", "namespace": SHOP},
                    "automountServiceAccountToken": false, "imagePullSecrets": [{"name": "good"}]}),
        );
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

    fn list(&self, what: &str) -> Vec<Value> {
        let list = self
            .cluster
            .ask("GET", &format!("/api/v1/namespaces/{SHOP}/{what}"), None);
        list["items"].as_array().unwrap().clone()
    }

    fn daemon(&self) -> SocketAddr {
        format!("{NODE_ADDRESS}:9797").parse().unwrap()
    }

    /// The replica that is active.
    fn watcher(&self) -> Option<(SocketAddr, Value)> {
        (0..2).find_map(|number| {
            let pod = install::pod(&self.cluster, &format!("pullpath-cluster-{number}"));
            let address = format!("{}:9797", pod["status"]["podIP"].as_str()?)
                .parse()
                .ok()?;
            let pulls: Value =
                serde_json::from_str(&ask(address, "GET", "/api/v1/pulls", "").body).ok()?;
            (pulls["active"] == true).then_some((address, pulls))
        })
    }

    fn seen(&self) -> Seen {
        let targets = ask(self.daemon(), "GET", "/api/v1/targets", "").body;
        let targets: Value = serde_json::from_str(&targets).unwrap();
        let (pulls, lint) = self
            .watcher()
            .map_or_else(Default::default, |(address, pulls)| {
                let lint = ask(address, "GET", "/api/v1/lint", "").body;
                let lint: Value = serde_json::from_str(&lint).unwrap();
                (
                    pulls,
                    lint["findings"].as_array().cloned().unwrap_or_default(),
                )
            });
        Seen {
            pods: self.list("pods"),
            events: self.list("events"),
            targets: targets
                .as_array()
                .cloned()
                .or_else(|| targets["targets"].as_array().cloned())
                .unwrap(),
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

    /// Until all agree, or the time is over.
    fn compare(&self, cases: &[Case], say: &impl Fn(&str)) {
        let begun = Instant::now();
        let most =
            Duration::from_mins(3) + Duration::from_secs(6) * u32::try_from(cases.len()).unwrap();
        let mut open;
        loop {
            let seen = self.seen();
            open = disagreements(cases, &seen, false);
            if open.is_empty() || begun.elapsed() > most {
                break;
            }
            std::thread::sleep(Duration::from_secs(2));
        }
        say(&format!("compared after {} s", begun.elapsed().as_secs()));
        let mut seen = self.seen();
        seen.why = Some(self.why());
        say("why");
        for case in cases {
            println!("{}", line(case, &seen.of(case)));
        }
        let open = disagreements(cases, &seen, true);
        if !open.is_empty() {
            if let Ok(kept) = std::env::var("PULLPATH_KUBELET_KEEP") {
                let all = json!({"pods": seen.pods, "events": seen.events, "targets": seen.targets, "pulls": seen.pulls,
                                 "lint": seen.lint, "why": seen.why});
                std::fs::write(kept, all.to_string()).unwrap();
            }
            panic!("{} pods differ:\n{}", open.len(), open.join("\n"));
        }
    }
}

fn disagreements(cases: &[Case], seen: &Seen, with_why: bool) -> Vec<String> {
    let mut all = Vec::new();
    for case in cases {
        let found: BTreeMap<Face, String> = differences(case, &seen.of(case), with_why);
        all.extend(
            found
                .into_iter()
                .map(|(face, text)| format!("{} {face:?}: {text}", case.name)),
        );
    }
    all
}
