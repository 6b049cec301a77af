//! A node's daemon in the world of network namespaces, beside a real API server: pods whose images lie
//! behind each class of path, and pods whose pull secrets are wrong in the usual ways. Within one interval,
//! metrics, Events, reports and `why` say what is wrong. The test plays the kubelet.

#![allow(clippy::format_collect, reason = "a few lines of configuration")]
#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/forward.rs"]
mod forward;
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

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use forward::{Behind, Forwarder};
use kube::Cluster;
use operated::{Daemon, eventually_within};
use serde_json::{Value, json};
use stack::{PASSWORD, REPOSITORY, USER};
use world::{AUTH, BLOBS, DNS, ECHO, Host, ONPREM, PEER, PUBLIC, REG, SNAT, SWR, World};

/// How often a target is checked.
const INTERVAL: Duration = Duration::from_secs(10);

/// One interval, and what a busy machine adds to it.
const SOON: Duration = Duration::from_secs(30);

fn config(world: &World, cluster: &Cluster) -> String {
    format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\nvantage: {{node: n1}}\n\
         network:\n  nameservers: ['{}']\n  hosts_file: /dev/null\n  ca_files: ['{}']\n  metadata: off\n  provider: huawei\n  snat_addresses: ['{SNAT}']\n  egress: {{echo: ['{}'], samples: 4}}\n\
         \x20 cidrs:\n    - {{cidr: 10.0.0.0/16, class: intranet, name: our VPC}}\n\
         \x20   - {{cidr: 10.50.0.0/16, class: vpc_peering, name: shared services}}\n\
         \x20   - {{cidr: 192.168.0.0/16, class: direct_connect_vpn, name: data centre}}\n\
         kubernetes:\n  discover: node\n  secrets: discovered\n  events: pods\n  kubeconfig: '{}'\n\
         on_demand: {{per_minute: 60}}\n\
         schedule: {{reach: {}s, path: 1h, transfer: off, timeout: 2s}}\n",
        DNS[0],
        world.ca_file().display(),
        ECHO.url(),
        cluster.kubeconfig("node").display(),
        INTERVAL.as_secs(),
    )
}

/// A pod of namespace `shop` that waits for its image.
fn waiting_pod(cluster: &Cluster, name: &str, image: &str, secrets: &[&str]) {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    cluster.create(
        "/api/v1/namespaces/shop/pods",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"nodeName": "n1", "imagePullSecrets": secrets,
                         "containers": [{"name": "app", "image": image}]}}),
    );
    cluster.ask(
        "PATCH",
        &format!("/api/v1/namespaces/shop/pods/{name}/status"),
        Some(&json!({"status": {"phase": "Pending",
            "containerStatuses": [{"name": "app", "image": image, "imageID": "", "ready": false, "restartCount": 0,
                                   "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}]}})),
    );
}

fn docker_config(host: &Host, password: &str) -> String {
    let auth = BASE64_STANDARD.encode(format!("{USER}:{password}"));
    json!({"auths": {host.name(): {"auth": auth}}}).to_string()
}

fn secret(cluster: &Cluster, namespace: &str, name: &str, host: &Host, password: &str) {
    cluster.create_pull_secret(namespace, name, &docker_config(host, password));
}

/// Causes of a target, by its metrics.
fn causes(daemon: &Daemon, target: &str) -> Vec<String> {
    let metrics = daemon.metrics();
    let found = metrics.with(&format!("target=\"{target}\""));
    let of_findings = found
        .iter()
        .filter(|series| series.starts_with("pullpath_finding{"));
    of_findings
        .map(|series| {
            let (_, rest) = series.split_once("cause=\"").unwrap();
            rest.split('"').next().unwrap().to_owned()
        })
        .collect()
}

fn class(daemon: &Daemon, host: &Host) -> Option<String> {
    let metrics = daemon.metrics();
    let of_host = format!("registry=\"{}\"", host.name());
    let all = metrics.with("pullpath_path_info{");
    let series = all
        .iter()
        .find(|series| series.contains("leg=\"registry\"") && series.contains(&of_host))?;
    let (_, rest) = series.split_once("class=\"")?;
    Some(rest.split('"').next()?.to_owned())
}

/// The daemon's own pod, by which `why` finds it.
fn pod_of_daemon(cluster: &Cluster) {
    // Without the Node the API server has no kubelet for a port-forward.
    cluster.create(
        "/api/v1/nodes",
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
    );
    cluster.create(
        "/api/v1/namespaces/pullpath/pods",
        &json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": "pullpath-n1",
                             "labels": {"app.kubernetes.io/name": "pullpath", "app.kubernetes.io/component": "node"}},
                "spec": {"nodeName": "n1", "containers": [{"name": "pullpath", "image": "registry.example.com/pullpath:1"}]}}),
    );
    cluster.ask(
        "PATCH",
        "/api/v1/namespaces/pullpath/pods/pullpath-n1/status",
        Some(&json!({"status": {"phase": "Running",
            "containerStatuses": [{"name": "pullpath", "image": "x", "imageID": "x", "ready": true, "restartCount": 0,
                                   "state": {"running": {}}}]}})),
    );
}

/// What a person reads who asks why a pod of `shop` waits, with lines joined; and the exit status.
fn why(kubeconfig: &Path, pod: &str) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .env_clear()
        .args(["why", pod, "-n", "shop", "--kubeconfig"])
        .arg(kubeconfig)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let all = [output.stdout, output.stderr].concat();
    let text = String::from_utf8(all).unwrap();
    assert!(!text.contains(PASSWORD), "a secret got out: {text}");
    let words: Vec<&str> = text.split_whitespace().collect();
    (output.status.code(), words.join(" "))
}

fn events(cluster: &Cluster, pod: &str) -> Vec<Value> {
    let list = cluster.ask("GET", "/api/v1/namespaces/shop/events", None);
    let of_pod = |event: &&Value| event["involvedObject"]["name"] == pod;
    let items = list["items"].as_array().unwrap();
    items.iter().filter(of_pod).cloned().collect()
}

#[test]
fn within_an_interval_the_right_thing_is_said_of_each_way_and_each_secret() {
    let world = World::new();
    for host in [&REG, &PEER, &ONPREM, &SWR] {
        world.registry(host);
    }
    world.split_registry(&PUBLIC, Some(&AUTH), Some(&BLOBS));
    world.names(&[]);
    world.snat(&[SNAT]);
    world.echo(&ECHO);
    // The API server and the daemon are on the node.
    world.node.inside(|| on_the_node(&world));
}

fn on_the_node(world: &World) {
    let cluster = Cluster::start();
    cluster.allow(
        "node",
        &json!([
            {"apiGroups": [""], "resources": ["pods", "secrets", "nodes"], "verbs": ["list", "watch"]},
            {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch", "update", "get", "list"]},
        ]),
    );
    cluster.namespace("shop", &[]);
    cluster.namespace("bank", &[]);
    cluster.namespace("pullpath", &[]);
    cluster.allow(
        "person",
        &json!([
            {"apiGroups": [""], "resources": ["pods", "events", "secrets"], "verbs": ["get", "list"]},
            {"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]},
        ]),
    );
    pod_of_daemon(&cluster);
    secret(&cluster, "shop", "right", &PUBLIC, PASSWORD);
    secret(&cluster, "shop", "wrong", &PUBLIC, "wrong");
    secret(&cluster, "shop", "rotated", &PUBLIC, "old");
    secret(&cluster, "bank", "elsewhere", &PUBLIC, PASSWORD);
    for host in [&REG, &PEER, &ONPREM, &SWR] {
        waiting_pod(
            &cluster,
            &format!("of-{}", host.name),
            &host.reference(),
            &[],
        );
    }
    for secret in ["right", "wrong", "rotated", "missing", "elsewhere"] {
        waiting_pod(
            &cluster,
            &format!("with-{secret}"),
            &PUBLIC.reference(),
            &[secret],
        );
    }
    let daemon = Daemon::start(&config(world, &cluster));
    let target = |secret: &str| format!("{}/{REPOSITORY}@shop/{secret}", PUBLIC.name());
    let say = |secret: &'static str, cause: &'static str| {
        eventually_within(&format!("{secret}: {cause}"), SOON, || {
            causes(&daemon, &target(secret)) == [cause]
        });
    };

    // Each way has its class, by the metrics of one interval.
    for (host, expected) in [
        (&REG, "intranet"),
        (&SWR, "intranet"),
        (&PEER, "vpc_peering"),
        (&ONPREM, "direct_connect_vpn"),
        (&PUBLIC, "public_snat"),
    ] {
        eventually_within(&format!("{} is {expected}", host.name), SOON, || {
            class(&daemon, host).as_deref() == Some(expected)
        });
    }
    let ready = |target: &str, registry: &str| {
        daemon.metrics().value(&format!(
            "pullpath_pull_ready{{target=\"{target}\",registry=\"{registry}\"}}"
        ))
    };
    for host in [&REG, &SWR, &PEER, &ONPREM] {
        let name = format!("{}/{REPOSITORY}", host.name());
        assert_eq!(ready(&name, &host.name()), Some(1.0), "{name}");
    }

    // Each secret has its cause.
    say("wrong", "auth_bad_cred");
    say("rotated", "auth_bad_cred");
    eventually_within("the right one", SOON, || {
        ready(&target("right"), &PUBLIC.name()) == Some(1.0)
    });
    assert_eq!(causes(&daemon, &target("right")), Vec::<String>::new());
    eventually_within("missing", SOON, || {
        causes(&daemon, &target("missing")).contains(&"secret_missing".to_owned())
    });
    eventually_within("elsewhere", SOON, || {
        causes(&daemon, &target("elsewhere")).contains(&"secret_other_namespace".to_owned())
    });

    // What is wrong stands on the pod, for `kubectl describe`.
    for (pod, cause) in [
        ("with-wrong", "auth_bad_cred"),
        ("with-missing", "secret_missing"),
    ] {
        eventually_within(&format!("an Event on {pod}"), SOON, || {
            events(&cluster, pod).iter().any(|event| {
                event["type"] == "Warning"
                    && event["message"]
                        .as_str()
                        .is_some_and(|message| message.contains(cause))
            })
        });
    }
    assert_eq!(events(&cluster, "with-right"), Vec::<Value>::new());
    assert_eq!(events(&cluster, "of-reg"), Vec::<Value>::new());

    // And `why` reports the same for a waiting pod, from that node.
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let forwarder = runtime.block_on(Forwarder::start(&cluster));
    forwarder.pod("pullpath-n1", Behind::Daemon(daemon.admin));
    let kubeconfig = forwarder.kubeconfig(&cluster, "person");
    let ask = |pod: &str, status: i32, words: &[&str]| {
        let (code, text) = why(&kubeconfig, pod);
        assert_eq!(code, Some(status), "{pod}: {text}");
        for word in words {
            assert!(text.contains(word), "{pod}: nothing of '{word}': {text}");
        }
    };
    for (pod, cause, secret) in [
        ("with-wrong", "auth_bad_cred", "shop/wrong: exists"),
        ("with-missing", "secret_missing", "shop/missing: MISSING"),
        (
            "with-elsewhere",
            "secret_other_namespace",
            "shop/elsewhere: MISSING, but exists in namespace bank",
        ),
    ] {
        ask(
            pod,
            1,
            &["on node n1 a pull would FAIL", cause, secret, "hint:"],
        );
    }
    for (pod, class) in [
        ("of-reg", "intranet"),
        ("of-peer", "vpc_peering"),
        ("of-onprem", "direct_connect_vpn"),
        ("with-right", "public_snat"),
    ] {
        ask(pod, 0, &["on node n1 a pull would succeed now", class]);
    }

    // A path that breaks and a password that is corrected are reported within an interval as well.
    world.security_group(&REG, world::Block::Drop);
    let name = format!("{}/{REPOSITORY}", REG.name());
    eventually_within("a security group", SOON, || {
        causes(&daemon, &name) == ["tcp_timeout"]
    });
    eventually_within("an Event of that", SOON, || {
        events(&cluster, "of-reg").iter().any(|event| {
            event["message"]
                .as_str()
                .is_some_and(|message| message.contains("tcp_timeout"))
        })
    });
    cluster.ask(
        "PATCH",
        "/api/v1/namespaces/shop/secrets/rotated",
        Some(&json!({"data": {".dockerconfigjson": BASE64_STANDARD.encode(docker_config(&PUBLIC, PASSWORD))}})),
    );
    eventually_within("the rotated password", SOON, || {
        causes(&daemon, &target("rotated")).is_empty()
            && ready(&target("rotated"), &PUBLIC.name()) == Some(1.0)
    });
    ask(
        "of-reg",
        1,
        &["on node n1 a pull would FAIL", "tcp_timeout", "intranet"],
    );
    world.no_security_group(&REG);
    eventually_within("the way is open again", SOON, || {
        causes(&daemon, &name).is_empty()
    });

    let all = format!(
        "{}{}{}",
        daemon.log().join("\n"),
        daemon.get("/metrics").body,
        daemon.get("/api/v1/reports").body
    );
    for password in [
        PASSWORD,
        &BASE64_STANDARD.encode(docker_config(&PUBLIC, PASSWORD)),
    ] {
        assert!(!all.contains(password));
    }
    assert_eq!(daemon.stop(), Some(0));
}
