//! `pullpath cluster` beside a real API server: the test plays the kubelets, with the words of real ones.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::Cluster;
use nix::sys::signal::Signal;
use operated::{Daemon, eventually, eventually_within};
use pullpath::cluster::metrics::FAMILIES;
use serde_json::{Value, json};
use tempfile::TempDir;

/// All that the role needs, and no more (docs/pulls.md).
fn rights() -> Value {
    json!([
        {"apiGroups": [""], "resources": ["events"], "verbs": ["list", "watch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["pullpath-cluster"],
         "verbs": ["get", "update"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]}
    ])
}

/// Two lost renewals and a look: what a test can wait for.
const LASTS: Duration = Duration::from_secs(6);

fn config(cluster: &Cluster, more: &str) -> String {
    format!(
        "listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\nkubernetes: {{kubeconfig: '{}'}}\n\
         cluster:\n  namespace: pullpath\n  lease_duration: {}s\n{more}\n",
        cluster.kubeconfig("cluster").display(),
        LASTS.as_secs()
    )
}

fn replica(cluster: &Cluster, name: &str, more: &str) -> Daemon {
    let folder = Arc::new(TempDir::new().unwrap());
    Daemon::start_as(
        &["cluster", "--identity", name],
        &config(cluster, more),
        folder,
    )
}

fn prepared() -> Cluster {
    let cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.namespace("shop", &[]);
    cluster
}

fn ago(seconds: i64) -> String {
    let at = Timestamp::now().as_second() - seconds;
    Timestamp::from_second(at).unwrap().to_string()
}

/// The same once more: the recorder raises its count.
fn again(cluster: &Cluster, name: &str, count: u64) {
    cluster.ask(
        "PATCH",
        &format!("/api/v1/namespaces/shop/events/{name}"),
        Some(&json!({"count": count, "lastTimestamp": ago(0)})),
    );
}

/// By events.k8s.io/v1.
fn report_new_event(cluster: &Cluster, name: &str, node: &str, reason: &str, message: &str) {
    let pod = name.split('.').next().unwrap();
    cluster.create(
        "/apis/events.k8s.io/v1/namespaces/shop/events",
        &json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name},
                "eventTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
                "reportingController": "kubelet", "reportingInstance": node, "action": "Pulling",
                "reason": reason, "note": message, "type": "Warning",
                "regarding": {"kind": "Pod", "namespace": "shop", "name": pod, "apiVersion": "v1",
                              "fieldPath": "spec.containers{app}"}}),
    );
}

fn repeat_new_event(cluster: &Cluster, name: &str, count: u64) {
    cluster.ask(
        "PATCH",
        &format!("/apis/events.k8s.io/v1/namespaces/shop/events/{name}"),
        Some(&json!({"series": {"count": count,
            "lastObservedTime": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()}})),
    );
}

const TIMEOUT: &str = "Failed to pull image \"registry.example.com/team/app:1\": rpc error: code = Unknown desc = failed to pull and unpack image \"registry.example.com/team/app:1\": failed to resolve reference \"registry.example.com/team/app:1\": failed to do request: Head \"https://registry.example.com/v2/team/app/manifests/1\": dial tcp 203.0.113.9:443: i/o timeout";
const ODD: &str = "Failed to pull image \"registry.example.com/team/odd:1\": rpc error: code = Unknown desc = something <b>new</b> from https://me:hunter2@storage.example.com/x?sig=SECRETSIGNATURE";

fn failures(daemon: &Daemon, node: &str, cause: &str) -> Option<f64> {
    daemon.metrics().value(&format!(
        "pullpath_real_pull_failures_total{{registry=\"registry.example.com\",node=\"{node}\",cause=\"{cause}\"}}"
    ))
}

fn is_active(daemon: &Daemon) -> bool {
    let metrics = daemon.metrics();
    metrics.value("pullpath_cluster_active") == Some(1.0)
        && metrics.value("pullpath_cluster_events_watch_up") == Some(1.0)
}

#[tokio::test(flavor = "multi_thread")]
async fn real_pulls_are_counted_once_and_reported_with_what_to_do() {
    let mut cluster = prepared();
    cluster.allow("cluster", &rights());
    cluster.kubelet_says("old.1", "n1", "Failed", TIMEOUT, 120);
    let folder = Arc::new(TempDir::new().unwrap());
    let role = ["cluster", "--identity", "a"];
    let daemon = Daemon::start_as(&role, &config(&cluster, ""), Arc::clone(&folder));
    eventually("that it watches", || is_active(&daemon));
    assert_eq!(
        failures(&daemon, "n1", "tcp_timeout"),
        None,
        "it was before"
    );
    assert!(daemon.get("/").body.contains("shop/old"), "and is shown");

    let pulled = "Successfully pulled image \"registry.example.com/team/app:1\" in 6s (36s including waiting). Image size: 48000000 bytes.";
    for n in 1..=3 {
        cluster.kubelet_says(
            &format!("good{n}.1"),
            "n1",
            "Pulled",
            &pulled.replace(":1\"", &format!(":{n}\"")),
            0,
        );
    }
    cluster.kubelet_says("app.1", "n2", "Failed", TIMEOUT, 0);
    cluster.kubelet_says("app.2", "n2", "Failed", "Error: ErrImagePull", 0);
    again(&cluster, "app.1", 3);
    report_new_event(&cluster, "new.1", "n3", "Failed", TIMEOUT);
    repeat_new_event(&cluster, "new.1", 2);
    cluster.kubelet_says("odd.1", "n2", "Failed", ODD, 0);
    cluster.kubelet_says("app.3",
        "n2",
        "FailedToRetrieveImagePullSecret",
        "Unable to retrieve some image pull secrets (regcred, other); attempting to pull the image may not succeed.",
        0,
    );
    cluster.kubelet_says("bad.1",
        "n2",
        "InspectFailed",
        "Failed to apply default image tag \"busyBOX\": couldn't parse image name \"busyBOX\": invalid reference format: repository name (library/busyBOX) must be lowercase",
        0,
    );
    cluster.kubelet_says(
        "app.4",
        "n2",
        "Scheduled",
        "Successfully assigned shop/app to n2",
        0,
    );
    eventually("three failures of an Event that has risen", || {
        failures(&daemon, "n2", "tcp_timeout") == Some(3.0)
    });
    eventually("two of the other API group's", || {
        failures(&daemon, "n3", "tcp_timeout") == Some(2.0)
    });
    eventually("the newest ones", || {
        daemon.metrics().value("pullpath_real_pull_failures_total{registry=\"\",node=\"n2\",cause=\"image_name_invalid\"}") == Some(1.0)
    });

    let text = daemon.get("/metrics").body;
    let metrics = operated::Metrics::parse(&text);
    let of_pair = |family: &str| {
        metrics.value(&format!(
            "{family}{{registry=\"registry.example.com\",node=\"n1\"}}"
        ))
    };
    assert_eq!(
        of_pair("pullpath_real_pull_duration_seconds_count"),
        Some(3.0)
    );
    assert_eq!(
        of_pair("pullpath_real_pull_duration_seconds_sum"),
        Some(18.0)
    );
    assert_eq!(
        of_pair("pullpath_real_pull_waiting_seconds_sum"),
        Some(90.0)
    );
    assert_eq!(
        of_pair("pullpath_real_pull_throughput_bytes_per_second_sum"),
        Some(24e6)
    );
    let value = |series: &str| metrics.value(series);
    assert_eq!(
        value(
            "pullpath_real_pull_slow{registry=\"registry.example.com\",node=\"n1\",cause=\"serial_pull\"}"
        ),
        Some(1.0)
    );
    assert_eq!(
        value("pullpath_real_pull_unmatched_messages_total"),
        Some(1.0)
    );
    assert_eq!(
        value(
            "pullpath_real_pull_failing{registry=\"registry.example.com\",cause=\"tcp_timeout\"}"
        ),
        Some(3.0),
        "old, app, new"
    );
    assert_eq!(value("pullpath_real_pull_pods_missing_secrets"), Some(1.0));
    // Those of workloads are there with cluster.lint (tests/rights.rs). No sandbox fails here.
    let of_pulls = |family: &&&pullpath::serving::metrics::Family| {
        !family.name.starts_with("pullpath_workload")
            && family.name != "pullpath_real_pull_sandbox_failing"
    };
    for family in FAMILIES.iter().filter(of_pulls) {
        assert_eq!(
            metrics.types.get(family.name).map(String::as_str),
            Some(family.kind),
            "{}",
            family.name
        );
    }
    for name in metrics.types.keys() {
        let known = FAMILIES.iter().any(|family| family.name == name);
        assert!(
            known || name.starts_with("process_"),
            "{name} is not in the documentation"
        );
    }
    for series in metrics.series.keys() {
        for secret in ["203.0.113.9", "hunter2", "SECRET", "team/app", "shop"] {
            assert!(!series.contains(secret), "{series}");
        }
    }
    promtool_likes(&text);

    let pulls: Value = serde_json::from_str(&daemon.get("/api/v1/pulls").body).unwrap();
    assert_eq!(pulls["active"], true);
    let of = |pod: &str| {
        let all = pulls["failing"].as_array().unwrap();
        all.iter().find(|one| one["pod"] == pod).unwrap().clone()
    };
    let app = of("app");
    assert_eq!(app["cause"], "tcp_timeout");
    assert_eq!(app["failures"], 3);
    assert_eq!(app["facts"][1], "dialed 203.0.113.9:443");
    assert!(app["hint"].as_str().unwrap().contains("SNAT"));
    assert_eq!(of("new")["node"], "n3");
    let odd = of("odd");
    assert_eq!(odd["cause"], Value::Null);
    assert!(
        odd["text"]
            .as_str()
            .unwrap()
            .contains("something <b>new</b> from https://***@storage.example.com/x?sig=***")
    );
    assert_eq!(
        pulls["missing_secrets"][0]["secrets"],
        json!(["regcred", "other"])
    );
    assert_eq!(pulls["slow"][0]["cause"], "serial_pull");
    assert_eq!(pulls["pulls"].as_array().unwrap().len(), 3);
    let page = daemon.get("/");
    assert!(
        page.body.contains("5 containers wait for images"),
        "{}",
        page.body
    );
    assert!(
        page.body.contains("&#60;b&#62;new") && !page.body.contains("<b>new"),
        "{}",
        page.body
    );
    for all in [&page.body, &pulls.to_string(), &daemon.log().join("\n")] {
        assert!(!all.contains("hunter2") && !all.contains("SECRETSIGNATURE"));
    }

    // Nothing is lost or counted twice when the API server goes, and comes back without its memory.
    cluster.stop_server();
    eventually("that the failure is reported", || {
        daemon
            .get("/readyz")
            .body
            .contains("watch of Events has been down since")
            || daemon.get("/readyz").body.contains("can't be acquired")
    });
    cluster.start_server();
    cluster.compact();
    again(&cluster, "app.1", 4);
    // The watch waits longer from try to try: 30 s by now, once for the connection, and once more to list
    // again.
    eventually_within("one more", Duration::from_mins(3), || {
        failures(&daemon, "n2", "tcp_timeout") == Some(4.0)
    });
    assert_eq!(failures(&daemon, "n3", "tcp_timeout"), Some(2.0));
    eventually_within("that it watches", Duration::from_mins(1), || {
        is_active(&daemon)
    });
    let ready = daemon.get("/readyz");
    assert!(ready.body.starts_with("ready: active"), "{ready:?}");

    // A pull that succeeds ends it.
    cluster.kubelet_says("app.9", "n2", "Pulled", pulled, 0);
    eventually("that it is over", || {
        !daemon.get("/").body.contains("shop/app<")
    });

    // What happens while the program is away counts when it is back; what it has counted does not.
    assert_eq!(daemon.stop(), Some(0));
    let lease = cluster.ask(
        "GET",
        "/apis/coordination.k8s.io/v1/namespaces/pullpath/leases/pullpath-cluster",
        None,
    );
    assert_eq!(
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default(),
        "",
        "{lease}"
    );
    std::thread::sleep(Duration::from_secs(2));
    cluster.kubelet_says("late.1", "n4", "Failed", TIMEOUT, 0);
    let daemon = Daemon::start_as(&role, &config(&cluster, ""), folder);
    eventually("the late one", || {
        failures(&daemon, "n4", "tcp_timeout") == Some(1.0)
    });
    assert_eq!(failures(&daemon, "n3", "tcp_timeout"), None);
    assert_eq!(daemon.stop(), Some(0));
}

fn promtool_likes(text: &str) {
    let mut promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = promtool.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = promtool.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_replicas_watches_and_the_other_takes_over() {
    let cluster = prepared();
    cluster.allow("cluster", &rights());
    let a = replica(&cluster, "a", "");
    eventually("that the first watches", || is_active(&a));
    let b = replica(&cluster, "b", "");
    eventually("that the second stands by", || {
        b.get("/readyz").body.contains(": a holds it")
    });
    let metrics = b.metrics();
    assert_eq!(metrics.value("pullpath_cluster_active"), Some(0.0));
    assert_eq!(metrics.value("pullpath_cluster_events_watch_up"), None);
    assert_eq!(
        metrics.value("pullpath_real_pull_pods_missing_secrets"),
        None
    );
    assert!(b.get("/").body.contains("On standby"));
    assert_eq!(b.get("/healthz").status, 200);
    // What alerts lead to, and take their fix from, is the same at each replica.
    let entry = b.get("/causes/tcp_timeout");
    assert!(entry.body.contains("What to do"), "{entry:?}");
    assert!(entry.head.contains("no-store"), "{entry:?}");
    assert_eq!(b.get("/causes/%3Cb%3Enone").status, 404);
    let info = metrics.with("pullpath_cause_info{cause=\"tcp_timeout\"");
    assert!(
        info.len() == 1 && info[0].contains("fix=\"Run `pullpath probe IMAGE` on the node"),
        "{info:?}"
    );
    let pulls: Value = serde_json::from_str(&b.get("/api/v1/pulls").body).unwrap();
    assert_eq!(
        (&pulls["active"], &pulls["failing"]),
        (&json!(false), &json!([]))
    );

    cluster.kubelet_says("app.1", "n1", "Failed", TIMEOUT, 0);
    eventually("the first counts", || {
        failures(&a, "n1", "tcp_timeout") == Some(1.0)
    });
    assert_eq!(failures(&b, "n1", "tcp_timeout"), None);
    // Until its Lease says that it has seen it.
    std::thread::sleep(LASTS / 2);

    // It is killed, without a notice.
    a.signal(Signal::SIGKILL);
    cluster.kubelet_says("app.2", "n2", "Failed", TIMEOUT, 0);
    let died = Instant::now();
    eventually_within("that the second watches", LASTS * 3, || is_active(&b));
    assert!(died.elapsed() < LASTS * 2, "{:?}", died.elapsed());
    eventually("what was not counted yet", || {
        failures(&b, "n2", "tcp_timeout") == Some(1.0)
    });
    assert_eq!(
        failures(&b, "n1", "tcp_timeout"),
        None,
        "that was the first one's"
    );
    assert!(b.get("/").body.contains("shop/app"), "and is shown");

    // A third waits; the second ends in order, and the third does not wait for its Lease to expire.
    let c = replica(&cluster, "c", "");
    eventually("that the third stands by", || {
        c.get("/readyz").body.contains(": b holds it")
    });
    let ended = Instant::now();
    assert_eq!(b.stop(), Some(0));
    eventually("that the third watches", || is_active(&c));
    assert!(ended.elapsed() < LASTS, "{:?}", ended.elapsed());
    assert_eq!(c.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forbidden_is_reported_and_what_is_configured_counts_at_once() {
    let cluster = prepared();
    let daemon = replica(&cluster, "a", "");
    eventually("that the Lease is forbidden", || {
        let ready = daemon.get("/readyz");
        ready.status == 200
            && ready.body.contains("RBAC must allow")
            && ready.body.contains("leases")
    });
    assert!(
        daemon
            .get("/")
            .body
            .contains("No replica is known to watch")
    );
    assert_eq!(daemon.metrics().value("pullpath_cluster_active"), Some(0.0));
    let rights = rights();
    cluster.allow("cluster", &json!([rights[1], rights[2]]));
    eventually_within("that Events are forbidden", Duration::from_mins(1), || {
        daemon
            .get("/readyz")
            .body
            .contains("Allow list and watch of events")
    });
    assert_eq!(
        daemon.metrics().value("pullpath_cluster_events_watch_up"),
        Some(0.0)
    );
    cluster.ask(
        "PATCH",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/cluster",
        Some(&json!({"rules": rights})),
    );
    eventually_within("that it watches", Duration::from_mins(1), || {
        is_active(&daemon)
    });

    // Read again: by the file's change, and by SIGHUP.
    daemon.rewrite(&config(&cluster, "  events: off"));
    eventually("that Events are off", || {
        daemon
            .metrics()
            .value("pullpath_cluster_events_watch_up")
            .is_none()
    });
    daemon.rewrite(&config(&cluster, "  evnts: on"));
    daemon.signal(Signal::SIGHUP);
    eventually("that it is refused", || {
        daemon
            .get("/readyz")
            .body
            .contains("configuration was rejected")
    });
    let metrics = daemon.metrics();
    assert_eq!(
        metrics.value("pullpath_config_last_reload_successful"),
        Some(0.0)
    );
    daemon.rewrite(&config(&cluster, "  max_pairs: 1"));
    eventually("that Events are on", || is_active(&daemon));
    cluster.kubelet_says("a.1", "n1", "Failed", TIMEOUT, 0);
    eventually("the first", || {
        failures(&daemon, "n1", "tcp_timeout") == Some(1.0)
    });
    cluster.kubelet_says("a.2", "n2", "Failed", TIMEOUT, 0);
    eventually("what is too much", || {
        daemon.metrics().value("pullpath_real_pull_uncounted_total") == Some(1.0)
    });
    assert!(daemon.get("/readyz").body.contains("more than 1 pairs"));
    assert_eq!(daemon.stop(), Some(0));
}
