//! Questions of a person: `probe` with the cluster's Secrets and from its nodes, `why`, `kubectl pullpath`.
//! A real API server with RBAC, real daemons, a registry on loopback; the test plays the kubelet.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/forward.rs"]
mod forward;
mod harness;
#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
mod support;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use forward::{Behind, Forwarder};
use harness::Probe;
use kube::Cluster;
use operated::{Daemon, eventually};
use pullpath::diagnose::Pull;
use pullpath::diagnose::level::Severity;
use pullpath::report::nodes::{Aspect, FailureKind, NodesDocument};
use pullpath::report::why::{WhyCheck, WhyDocument};
use serde_json::{Value, json};
use support::dns::Dns;
use support::{PASSWORD, USER, World};
use tokio::process::Command;

/// A run of the program; what it printed holds no secret.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}\n{}\n{}", self.stdout, self.stderr))
    }

    fn says(&self, words: &[&str]) {
        // Lines are broken at words.
        let text = self.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for word in words {
            assert!(
                text.contains(word),
                "nothing of '{word}':\n{}\n{}",
                self.stdout,
                self.stderr
            );
        }
    }
}

async fn run(args: &[&str]) -> Run {
    let output = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .env_clear()
        .env("HOME", "/nonexistent")
        .args(args)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_mins(2), output)
        .await
        .expect("it ends")
        .unwrap();
    let run = Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    for secret in [
        PASSWORD.to_owned(),
        BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}")),
    ] {
        let all = format!("{}{}", run.stdout, run.stderr);
        assert!(!all.contains(&secret), "a secret got out: {all}");
    }
    assert!(!run.stderr.contains("panicked"), "{}", run.stderr);
    run
}

fn secret(cluster: &Cluster, world: &World, namespace: &str, name: &str, password: &str) {
    let config = World::docker_config(&world.registry_host(), USER, password);
    cluster.create_pull_secret(namespace, name, &config);
}

/// A pod on a node, as after its scheduling; without a node where it has none.
fn pod(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    node: Option<&str>,
    image: &str,
    secrets: &[&str],
    more: &Value,
) {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    let mut spec =
        json!({"imagePullSecrets": secrets, "containers": [{"name": "app", "image": image}]});
    if let Some(node) = node {
        spec["nodeName"] = json!(node);
    }
    if let Some(policy) = more.get("policy") {
        spec["containers"][0]["imagePullPolicy"] = policy.clone();
    }
    let labels = more.get("labels").cloned().unwrap_or_else(|| json!({}));
    cluster.create(
        &format!("/api/v1/namespaces/{namespace}/pods"),
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}),
    );
}

fn status(cluster: &Cluster, (namespace, name): (&str, &str), state: &Value) {
    let is_running = state.get("running").is_some();
    cluster.ask(
        "PATCH",
        &format!("/api/v1/namespaces/{namespace}/pods/{name}/status"),
        Some(
            &json!({"status": {"phase": if is_running { "Running" } else { "Pending" },
            "containerStatuses": [{"name": "app", "image": "x", "imageID": "", "ready": is_running,
                                   "restartCount": 0, "state": state}]}}),
        ),
    );
}

/// An Event, as the kubelet writes it.
fn event(
    cluster: &Cluster,
    (namespace, name): (&str, &str),
    reason: &str,
    message: &str,
    count: u32,
) {
    let pod = cluster.ask(
        "GET",
        &format!("/api/v1/namespaces/{namespace}/pods/{name}"),
        None,
    );
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let kind = if reason == "Pulling" {
        "Normal"
    } else {
        "Warning"
    };
    cluster.create(
        &format!("/api/v1/namespaces/{namespace}/events"),
        &json!({"apiVersion": "v1", "kind": "Event", "metadata": {"generateName": name, "namespace": namespace},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "namespace": namespace, "name": name,
                               "uid": pod["metadata"]["uid"], "fieldPath": "spec.containers{app}"},
            "reason": reason, "message": message, "type": kind, "count": count,
            "firstTimestamp": now, "lastTimestamp": now, "source": {"component": "kubelet", "host": "n1"}}),
    );
}

fn node(cluster: &Cluster, name: &str, is_cordoned: bool) {
    cluster.create(
        "/api/v1/nodes",
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
                "spec": {"unschedulable": is_cordoned}}),
    );
}

/// The daemon of a node, and its pod.
fn daemon(
    cluster: &Cluster,
    forwarder: &Forwarder,
    world: &World,
    node: &str,
    nameserver: &str,
    kubernetes: &str,
) -> Daemon {
    let name = format!("pullpath-{node}");
    pod(
        cluster,
        ("pullpath", &name),
        Some(node),
        "registry.example.com/pullpath:1",
        &[],
        &json!({"labels": {"app.kubernetes.io/name": "pullpath", "app.kubernetes.io/component": "node"}}),
    );
    status(cluster, ("pullpath", &name), &json!({"running": {}}));
    let daemon = Daemon::start(&format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\n\
         vantage: {{node: {node}}}\nschedule: {{reach: 1h, path: 1h, transfer: off, first_check: 1h, timeout: 2s}}\n\
         network: {{nameservers: ['{nameserver}'], ca_files: ['{}'], metadata: off}}\n\
         kubernetes:\n  kubeconfig: '{}'\n{}\n{kubernetes}\n",
        world.ca.file().display(),
        cluster.kubeconfig("node").display(),
        world.local_registries()
    ));
    forwarder.pod(&name, Behind::Daemon(daemon.admin));
    daemon
}

/// Rights of the caller.
fn rights(cluster: &Cluster, rules: &[(&str, &str, &[&str])]) {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(group, resource, verbs)| {
            json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
        })
        .collect();
    cluster.allow("person", &Value::Array(rules));
}

const FOLLOWING: &str = "  discover: node\n  secrets: discovered\non_demand: {per_minute: 60}";

fn rights_of_daemons(cluster: &Cluster) {
    cluster.allow(
        "node",
        &json!([{"apiGroups": [""], "resources": ["pods", "secrets", "nodes"], "verbs": ["get", "list", "watch"]}]),
    );
}

fn str(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_of_the_cluster_are_read_with_one_s_own_rights() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &["missing", "pull"]);
    cluster.namespace("bank", &[]);
    secret(&cluster, &world, "shop", "pull", PASSWORD);
    secret(&cluster, &world, "bank", "other", PASSWORD);
    let kubeconfig = cluster.kubeconfig("person");
    let probe = |args: &[&str]| {
        let mut all = vec!["--kubeconfig", str(&kubeconfig)];
        all.extend_from_slice(args);
        Probe::of(&world).anonymous().args(all)
    };

    // Without any right: not known, which is not the same as none.
    let forbidden = probe(&["--secret", "shop/pull"]).run().await;
    forbidden.shows("auth_unknown", Severity::Critical, Pull::Unknown);
    assert!(
        forbidden
            .text()
            .contains("RBAC must allow get of Secret shop/pull"),
        "{}",
        forbidden.text()
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "pull"},
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["pull", "missing", "other"], "verbs": ["get"]},
                          {"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["default"], "verbs": ["get"]}]}),
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "pull"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pull"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "person"}]}),
    );
    probe(&["--secret", "shop/pull"]).run().await.is_quiet();

    // One that is not there: the API server says so, so it is no guess.
    let missing = probe(&["--secret", "shop/missing"]).run().await;
    missing.shows("secret_missing", Severity::Critical, Pull::WouldFail);
    // By a service account, in its order; the second opens the registry.
    let account = probe(&["--service-account", "shop/default"]).run().await;
    account.shows("secret_missing", Severity::Warning, Pull::WouldSucceed);
    assert!(
        account
            .text()
            .contains("ServiceAccount shop/default names Secret shop/missing")
    );

    // Where all may be listed, the report names the other namespace; the content is not requested.
    let elsewhere = probe(&["--secret", "shop/other"]).run().await;
    elsewhere.shows("secret_missing", Severity::Critical, Pull::WouldFail);
    rights(&cluster, &[("", "secrets", &["list"])]);
    let elsewhere = probe(&["--secret", "shop/other"]).run().await;
    elsewhere.shows(
        "secret_other_namespace",
        Severity::Critical,
        Pull::WouldFail,
    );
    assert!(elsewhere.text().contains("bank"), "{}", elsewhere.text());

    // What can't be run is reported.
    for (args, words) in [
        (["--secret", "pull"], "NAMESPACE/NAME"),
        (
            ["--service-account", "shop/absent"],
            "given with --service-account",
        ),
        (["--service-account", "bank/default"], "forbids"),
    ] {
        let run = run(&[
            &[
                "probe",
                "registry.test/a:1",
                "--kubeconfig",
                str(&kubeconfig),
            ][..],
            &args,
        ]
        .concat())
        .await;
        assert_eq!(run.code, 2, "{args:?}");
        assert!(run.stderr.contains(words), "{args:?}: {}", run.stderr);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_are_queried_and_those_that_differ_are_named() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    let forwarder = Forwarder::start(&cluster).await;
    cluster.namespace("pullpath", &[]);
    cluster.namespace("shop", &[]);
    secret(&cluster, &world, "shop", "pull", PASSWORD);
    rights_of_daemons(&cluster);
    let image = world.reference();
    // One name server that knows nothing of the registry.
    let blind = Dns::start().await;
    let any = "  secrets: discovered\n  discover: node\non_demand: {images: any, per_minute: 60}";
    let mut daemons = Vec::new();
    for name in ["n1", "n2", "n3", "n4"] {
        node(&cluster, name, name == "n2");
        let server = if name == "n3" {
            blind.addr.to_string()
        } else {
            world.nameserver()
        };
        let settings = if name == "n4" { FOLLOWING } else { any };
        daemons.push(daemon(
            &cluster, &forwarder, &world, name, &server, settings,
        ));
    }
    node(&cluster, "n5", false);
    node(&cluster, "n6", false);
    // Its own image can't be pulled.
    pod(
        &cluster,
        ("pullpath", "pullpath-n6"),
        Some("n6"),
        "registry.example.com/pullpath:1",
        &[],
        &json!({"labels": {"app.kubernetes.io/name": "pullpath", "app.kubernetes.io/component": "node"}}),
    );
    status(
        &cluster,
        ("pullpath", "pullpath-n6"),
        &json!({"waiting": {"reason": "ImagePullBackOff"}}),
    );
    let kubeconfig = forwarder.kubeconfig(&cluster, "person");
    let base = ["probe", &image, "--kubeconfig", str(&kubeconfig)];
    let ask = |more: &[&str]| {
        let args: Vec<String> = base.iter().chain(more).map(|a| (*a).to_owned()).collect();
        async move { run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };

    // Each missing right is named.
    let nothing = ask(&["--all-nodes"]).await;
    assert_eq!(nothing.code, 2);
    assert!(
        nothing
            .stderr
            .contains("list the daemons (pods) of namespace pullpath"),
        "{}",
        nothing.stderr
    );
    rights(&cluster, &[("", "pods", &["list"])]);
    let forbidden = ask(&["--all-nodes", "-o", "json"]).await;
    assert_eq!(forbidden.code, 2);
    assert!(forbidden.stderr.contains("can't list nodes"));
    let document: NodesDocument = forbidden.json();
    let failure = document.nodes[0].answers[0].failure.as_ref().unwrap();
    assert_eq!(failure.kind, FailureKind::Forbidden);
    assert!(
        failure
            .reason
            .contains("get and create of pods/portforward"),
        "{}",
        failure.reason
    );
    assert_eq!(document.without_daemon, None);
    assert_eq!(*forwarder.made.lock().unwrap(), Vec::<String>::new());

    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "asks"},
                "rules": [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
                          {"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]}),
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "asks"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asks"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "person"}]}),
    );
    // The person may read no Secret: its name alone travels, and the daemons read it.
    let run = ask(&["--all-nodes", "--secret", "shop/pull", "-o", "json"]).await;
    let document: NodesDocument = run.json();
    assert_eq!(run.code, 1, "{}", run.stdout);
    let names: Vec<&str> = document.nodes.iter().map(|n| n.node.as_str()).collect();
    assert_eq!(names, ["n1", "n2", "n3", "n4", "n6"]);
    assert_eq!(document.without_daemon, Some(vec!["n5".to_owned()]));
    let comparison = &document.comparisons[0];
    assert_eq!(
        (
            comparison.would_succeed,
            comparison.would_fail,
            comparison.not_answered
        ),
        (2, 1, 2),
        "{}",
        run.stdout
    );
    assert!(
        comparison.outliers.iter().any(|o| o.node == "n3"
            && o.aspect == Aspect::Findings
            && o.value.contains("dns_nxdomain")),
        "{:#?}",
        comparison.outliers
    );
    let kind = |index: usize| {
        document.nodes[index].answers[0]
            .failure
            .as_ref()
            .unwrap()
            .kind
    };
    assert_eq!(kind(3), FailureKind::NotAllowed);
    assert_eq!(kind(4), FailureKind::NotRunning);
    assert!(document.nodes[0].is_new && document.nodes[1].is_cordoned == Some(true));
    assert_eq!(
        document.nodes[0].version.as_deref(),
        Some(pullpath::VERSION)
    );

    let text = ask(&["--all-nodes", "--secret", "shop/pull"]).await;
    text.says(&[
        "a pull would FAIL on 1 · a pull would succeed on 2 · no report on 2, of 5 nodes",
        "n2 (new, cordoned)",
        "n3: findings dns_nxdomain; 2 nodes have none",
        "n6 (new): its daemon is not running: pod pullpath/pullpath-n6: ImagePullBackOff",
        "on_demand",
        "nodes without a daemon n5",
    ]);

    // One node, and how it fails to answer.
    let one = ask(&["--node", "n1", "--secret", "shop/pull"]).await;
    assert_eq!(one.code, 0, "{}{}", one.stdout, one.stderr);
    one.says(&[
        "checked on node n1 (new) by its daemon (pod pullpath-n1",
        "a pull would succeed",
    ]);
    forwarder.pod("pullpath-n1", Behind::Mute);
    let mute = ask(&["--node", "n1", "--node-timeout", "1s"]).await;
    assert_eq!(mute.code, 2);
    mute.says(&["no answer in 1 s"]);
    forwarder.pod("pullpath-n1", Behind::NoListener);
    let closed = ask(&["--node", "n1"]).await;
    assert_eq!(closed.code, 2);
    closed.says(&["connection refused", "--admin-port"]);
    let none = ask(&["--node", "n5"]).await;
    assert_eq!(none.code, 2);
    none.says(&["the node has no daemon of Pullpath"]);
    // Options for a check from this machine don't apply to a node.
    for wrong in [
        ["--node", "n1", "--trace"],
        ["--all-nodes", "--secret-file", "x"],
    ] {
        let refused = ask(&wrong).await;
        assert_eq!(refused.code, 2);
        assert!(
            refused.stderr.contains("cannot be used with"),
            "{}",
            refused.stderr
        );
    }
    let full = ask(&["--node", "n1", "--transfer", "full"]).await;
    assert!(full.stderr.contains("--transfer auto"), "{}", full.stderr);
    for daemon in daemons {
        assert_eq!(daemon.stop(), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_pod_waits_is_requested_from_its_own_node() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    let forwarder = Forwarder::start(&cluster).await;
    cluster.namespace("pullpath", &[]);
    cluster.namespace("shop", &[]);
    cluster.namespace("bank", &[]);
    secret(&cluster, &world, "shop", "pull", "wrong");
    secret(&cluster, &world, "bank", "elsewhere", PASSWORD);
    rights_of_daemons(&cluster);
    let image = world.reference();
    let labels = json!({"labels": {"app": "web"}});
    node(&cluster, "n1", false);
    let n1 = daemon(
        &cluster,
        &forwarder,
        &world,
        "n1",
        &world.nameserver(),
        FOLLOWING,
    );
    cluster.create(
        "/apis/apps/v1/namespaces/shop/deployments",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"selector": {"matchLabels": {"app": "web"}},
                         "template": {"metadata": {"labels": {"app": "web"}},
                                      "spec": {"containers": [{"name": "app", "image": image}]}}}}),
    );
    let back_off = json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{image}\"")}});
    for (name, on) in [("web-1", "n1"), ("web-2", "n1"), ("web-3", "n2")] {
        pod(
            &cluster,
            ("shop", name),
            Some(on),
            &image,
            &["pull", "elsewhere"],
            &labels,
        );
        status(&cluster, ("shop", name), &back_off);
    }
    pod(
        &cluster,
        ("shop", "web-4"),
        Some("n1"),
        &image,
        &["pull"],
        &labels,
    );
    status(&cluster, ("shop", "web-4"), &json!({"running": {}}));
    let text = format!(
        "Failed to pull image \"{image}\": rpc error: code = Unknown desc = failed to pull and unpack image \"{image}\": \
         failed to resolve reference \"{image}\": failed to authorize: failed to fetch oauth token: unexpected status from POST \
         request to {}: 401 Unauthorized",
        world.realm()
    );
    event(&cluster, ("shop", "web-1"), "Failed", &text, 4);
    event(
        &cluster,
        ("shop", "web-1"),
        "FailedToRetrieveImagePullSecret",
        "Unable to retrieve some image pull secrets (elsewhere); attempting to pull the image may not succeed.",
        9,
    );
    pod(&cluster, ("bank", "lost"), None, &image, &[], &json!({}));
    pod(
        &cluster,
        ("bank", "never"),
        Some("n1"),
        &image,
        &[],
        &json!({"policy": "Never"}),
    );
    status(
        &cluster,
        ("bank", "never"),
        &json!({"waiting": {"reason": "ErrImageNeverPull", "message": "x"}}),
    );
    pod(
        &cluster,
        ("bank", "config"),
        Some("n1"),
        &image,
        &[],
        &json!({}),
    );
    status(
        &cluster,
        ("bank", "config"),
        &json!({"waiting": {"reason": "CreateContainerConfigError", "message": "configmap \"x\" not found"}}),
    );
    eventually("that the daemon knows the pod", || {
        n1.get("/api/v1/targets").body.contains("web-1")
    });

    let kubeconfig = forwarder.kubeconfig(&cluster, "person");
    let why = |more: &[&str]| {
        let mut args = vec![
            "why".to_owned(),
            "--kubeconfig".to_owned(),
            str(&kubeconfig).to_owned(),
        ];
        args.extend(more.iter().map(|a| (*a).to_owned()));
        async move { run(&args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    };
    let forbidden = why(&["web-1", "-n", "shop"]).await;
    assert_eq!(forbidden.code, 2);
    assert!(
        forbidden.stderr.contains("read Pod shop/web-1"),
        "{}",
        forbidden.stderr
    );

    // Pods alone may be read: no Events, no daemon, no word on the Secrets.
    rights(
        &cluster,
        &[
            ("", "pods", &["get", "list"]),
            ("apps", "deployments", &["get"]),
            ("batch", "jobs", &["list"]),
        ],
    );
    let little = why(&["web-1", "-n", "shop"]).await;
    assert_eq!(little.code, 2);
    little.says(&[
        "UNKNOWN whether a pull would succeed",
        "not checked: the API server forbids the port-forward",
        "get and create of pods/portforward in namespace pullpath",
        "shop/pull: unknown whether it exists: you don't have the right to read it",
        "note: can't read Events",
        "ImagePullBackOff",
    ]);

    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "asks"},
                "rules": [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
                          {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
                          {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]}]}),
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "asks"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "asks"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "person"}]}),
    );
    let one = why(&["web-1", "-n", "shop"]).await;
    assert_eq!(one.code, 1, "{}{}", one.stdout, one.stderr);
    one.says(&[
        "on node n1 a pull would FAIL, checked on that node by its daemon (pod pullpath-n1)",
        "for Pod shop/web-1, container app (ImagePullBackOff)",
        "auth_bad_cred critical",
        "hint:",
        "shop/pull: exists",
        "shop/elsewhere: MISSING, but exists in namespace bank",
        "4 times, Failed: Failed to pull image",
        "9 times, FailedToRetrieveImagePullSecret",
    ]);
    let verdict = one.stdout.find("a pull would FAIL").unwrap();
    let finding = one.stdout.find("auth_bad_cred").unwrap();
    let kubelet = one.stdout.find("messages of the kubelet").unwrap();
    let legs = one.stdout.rfind("registry  ").unwrap();
    assert!(
        verdict < finding && finding < kubelet && kubelet < legs,
        "{}",
        one.stdout
    );

    // A workload: pods of one node share a check; of a node without a daemon it is said.
    let tokens = world.tokens.server.seen().len();
    let deployment: WhyDocument = why(&["deploy/web", "-n", "shop", "-o", "json"])
        .await
        .json();
    assert_eq!(deployment.images.len(), 2, "{deployment:#?}");
    assert_eq!(deployment.images[0].pods.len(), 2, "the fourth runs");
    assert!(
        matches!(&deployment.images[0].check, WhyCheck::Node { pod, .. } if pod == "pullpath-n1")
    );
    assert!(
        matches!(&deployment.images[1].check, WhyCheck::NotMade { failure } if failure.kind == FailureKind::NoDaemon)
    );
    assert_eq!(deployment.pull(), Pull::WouldFail);
    let means = deployment.images[0]
        .kubelet
        .iter()
        .find_map(|word| word.meaning.as_ref())
        .unwrap();
    assert_eq!(means.cause.code(), "auth_bad_cred");
    // The daemon lets a credential rest that was rejected: asking does not lock an account.
    assert!(world.tokens.server.seen().len() <= tokens + 1);

    // All that wait, in all namespaces; what no registry has a part in is not among them.
    let all: WhyDocument = why(&["-A", "-o", "json"]).await.json();
    assert_eq!(all.images.len(), 3, "{all:#?}");
    assert!(all.others.is_empty());
    assert!(
        all.notes
            .iter()
            .any(|note| note.contains("2 more pods wait for other reasons")),
        "{:?}",
        all.notes
    );
    let never = why(&["never", "-n", "bank"]).await;
    assert_eq!(never.code, 1);
    never.says(&[
        "imagePullPolicy is Never",
        "hint: Load the image on that node",
    ]);

    // A CronJob's pods are those of its Jobs, by the selector that the API server gives a Job.
    let job = |name: &str, cron: &str| {
        cluster.create(
            "/apis/batch/v1/namespaces/bank/jobs",
            &json!({"apiVersion": "batch/v1", "kind": "Job",
                    "metadata": {"name": name, "ownerReferences": [
                        {"apiVersion": "batch/v1", "kind": "CronJob", "name": cron, "uid": "u", "controller": true}]},
                    "spec": {"template": {"spec": {"restartPolicy": "Never",
                                                   "containers": [{"name": "app", "image": image}]}}}}),
        )
    };
    let made = job("nightly-1", "nightly");
    job("weekly-1", "weekly");
    let labels = json!({"labels": made["spec"]["selector"]["matchLabels"], "policy": "Never"});
    pod(
        &cluster,
        ("bank", "nightly-1-x"),
        Some("n1"),
        &image,
        &[],
        &labels,
    );
    status(
        &cluster,
        ("bank", "nightly-1-x"),
        &json!({"waiting": {"reason": "ErrImageNeverPull", "message": "x"}}),
    );
    let nightly = why(&["cronjob/nightly", "-n", "bank"]).await;
    nightly.says(&["Pod bank/nightly-1-x", "imagePullPolicy is Never"]);
    let weekly = why(&["cj/weekly", "-n", "bank"]).await;
    weekly.says(&["CronJob bank/weekly has no pods"]);
    for (name, words) in [
        ("lost", "the scheduler has not assigned a node yet"),
        (
            "config",
            "CreateContainerConfigError: configmap \"x\" not found",
        ),
    ] {
        let other = why(&[name, "-n", "bank"]).await;
        assert_eq!(other.code, 0, "{name}");
        other.says(&["doesn't wait for its image", words]);
    }

    // From here, if requested: another vantage point, which is reported, and with one's own rights.
    let (dns, ca) = (world.nameserver(), world.ca.file());
    let empty = world.write("empty.toml", "");
    let local = why(&[
        "web-3",
        "-n",
        "shop",
        "--local",
        "--nameserver",
        &dns,
        "--ca-file",
        str(ca),
        "--containerd-config",
        str(&empty),
        "--timeout",
        "2s",
    ])
    .await;
    assert_eq!(local.code, 1, "{}{}", local.stdout, local.stderr);
    local.says(&[
        "checked from THIS MACHINE, not from that node",
        "auth_bad_cred",
    ]);

    // Fixed: it would succeed now, and what to do is reported.
    cluster.ask(
        "PATCH",
        "/api/v1/namespaces/shop/secrets/pull",
        Some(&json!({"data": {".dockerconfigjson":
            BASE64_STANDARD.encode(World::docker_config(&world.registry_host(), USER, PASSWORD))}})),
    );
    let mut fixed = why(&["web-2", "-n", "shop"]).await;
    for _ in 0..20 {
        if fixed.code == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        fixed = why(&["web-2", "-n", "shop"]).await;
    }
    assert_eq!(fixed.code, 0, "{}{}", fixed.stdout, fixed.stderr);
    fixed.says(&[
        "a pull would succeed now",
        "Wait for the kubelet's next try",
    ]);
    assert_eq!(n1.stop(), Some(0));
}

/// Many people ask, or one again and again: what the schedule has found is shown, with its age.
#[tokio::test(flavor = "multi_thread")]
async fn where_the_budget_is_used_up_why_shows_what_the_schedule_has_found_and_its_age() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    let forwarder = Forwarder::start(&cluster).await;
    cluster.namespace("pullpath", &[]);
    cluster.namespace("shop", &[]);
    secret(&cluster, &world, "shop", "pull", "wrong");
    rights_of_daemons(&cluster);
    let image = world.reference();
    node(&cluster, "n1", false);
    let n1 = daemon(
        &cluster,
        &forwarder,
        &world,
        "n1",
        &world.nameserver(),
        "  discover: node\n  secrets: discovered\non_demand: {per_minute: 1}",
    );
    let back_off = json!({"waiting": {"reason": "ImagePullBackOff", "message": format!("Back-off pulling image \"{image}\"")}});
    for (name, secrets) in [("web", &["pull"][..]), ("other", &[])] {
        pod(
            &cluster,
            ("shop", name),
            Some("n1"),
            &image,
            secrets,
            &json!({}),
        );
        status(&cluster, ("shop", name), &back_off);
    }
    rights(
        &cluster,
        &[
            ("", "pods", &["get", "list"]),
            ("", "pods/portforward", &["get", "create"]),
            ("", "events", &["list"]),
            ("", "secrets", &["get"]),
        ],
    );
    let kubeconfig = forwarder.kubeconfig(&cluster, "person");
    let why =
        async |pod: &str| run(&["why", pod, "-n", "shop", "--kubeconfig", str(&kubeconfig)]).await;
    let targets = || -> Vec<String> {
        let all: Vec<Value> = serde_json::from_str(&n1.get("/api/v1/targets").body).unwrap();
        let names = all.iter().map(|target| target["name"].as_str().unwrap());
        // The daemon's own pod has another image.
        let names = names.filter(|name| name.contains(support::REPOSITORY));
        names
            .map(|name| name.replace('/', "%2F").replace('@', "%40"))
            .collect()
    };
    eventually("both targets", || targets().len() == 2);
    // As the schedule makes it, whose next check is an hour away.
    for target in targets() {
        n1.check(&target, "reach");
    }
    let outcomes = |outcome: &str| {
        let series = format!("pullpath_on_demand_total{{outcome=\"{outcome}\"}}");
        n1.metrics().value(&series).unwrap_or(0.0)
    };
    // The one check of this minute.
    let first = why("web").await;
    assert_eq!(first.code, 1, "{}{}", first.stdout, first.stderr);
    first.says(&[
        "auth_bad_cred critical",
        "checked on that node by its daemon",
    ]);
    assert!(
        !first.stdout.contains("on its schedule"),
        "{}",
        first.stdout
    );
    let requests = world.registry.server.seen().len();
    for (pod, cause) in [("web", "auth_bad_cred"), ("other", "auth_no_cred")] {
        let known = why(pod).await;
        assert_eq!(known.code, 1, "{}{}", known.stdout, known.stderr);
        known.says(&[
            cause,
            "ago, on its schedule: it makes no further check now (on_demand.per_minute, or a budget)",
        ]);
    }
    assert_eq!(
        world.registry.server.seen().len(),
        requests,
        "no request is sent"
    );
    assert!(outcomes("too_many") >= 2.0);
    assert_eq!(n1.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_a_plugin_of_kubectl_it_calls_itself_so() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-pullpath");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_pullpath"), &plugin).unwrap();
    let said = |args: &[&str]| {
        let output = std::process::Command::new(&plugin)
            .args(args)
            .output()
            .unwrap();
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(said(&["why", "--help"]).contains("Usage: kubectl pullpath why "));
    assert!(said(&["--help"]).contains("Usage: kubectl pullpath <COMMAND>"));
    assert!(said(&["probe"]).contains("Usage: kubectl pullpath probe "));
    let usual = run(&["why", "--help"]).await;
    assert!(
        usual.stdout.contains("Usage: pullpath why "),
        "{}",
        usual.stdout
    );
}
