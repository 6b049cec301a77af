//! What the daemon of a node does beyond its schedule: checks on demand, its own Node, Events on pods. A real
//! API server with RBAC, beside a registry on loopback.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
#[path = "kube/played.rs"]
mod played;
mod support;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use kube::{ADMIN, Cluster};
use operated::{Answer, Daemon, Metrics, eventually, eventually_within, send};
use played::{
    allow_in, config, docker_config, in_url, kubelet_says, kubelet_says_with_message, names, pod,
    rights_for_pods, secret, secret_with, targets,
};
use pullpath::daemon::http::metrics::FAMILIES;
use pullpath::diagnose::Pull;
use pullpath::diagnose::secrets::SecretOutcome;
use pullpath::report::Document;
use serde_json::{Value, json};
use support::{PASSWORD, World};

fn post(daemon: &Daemon, body: &str) -> Answer {
    send(daemon.admin, "POST", "/-/probe", "", body)
}

fn report(answer: &Answer) -> Document {
    assert_eq!(answer.status, 200, "{answer:?}");
    serde_json::from_str(&answer.body).unwrap()
}

fn code(document: &Document) -> Option<&'static str> {
    let first = document.reports[0].verdict.findings.first();
    first.map(|finding| finding.cause.code())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_of_a_pod_is_checked_on_demand_with_the_pod_s_secrets_and_no_other_is() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    let image = world.reference();
    pod(
        &cluster,
        "shop",
        "a",
        "n1",
        &image,
        &["old", "pull", "gone"],
    );
    pod(&cluster, "shop", "elsewhere", "n2", &image, &["pull"]);
    secret(&cluster, &world, "shop", "pull", PASSWORD);
    let other = World::docker_config("other.example.com", "u", "p");
    secret_with(&cluster, "shop", "old", &played::encoded(&other));
    secret(&cluster, &world, "shop", "wrong", "wrong");
    cluster.allow("node", &rights_for_pods());
    let secrets = json!([{"apiGroups": [""], "resources": ["secrets"],
                          "resourceNames": ["old", "pull", "gone", "wrong"], "verbs": ["list", "watch"]}]);
    allow_in(&cluster, "shop", "node", "pull", &secrets);
    // Nothing is a target: whatever is read of a Secret is read on demand.
    let text = |more: &str| {
        config(
            &world,
            &cluster,
            &format!(
                "  registries: {{exclude: ['*']}}\n  secrets: named\n  named_secrets: [{{namespace: shop, names: [old, pull, gone, wrong]}}]\n{more}"
            ),
        )
    };
    let daemon = Daemon::start(&text("on_demand: {per_minute: 60}"));
    let of_pod = |pod: &str| {
        format!(r#"{{"image": "{image}", "pod": {{"namespace": "shop", "name": "{pod}"}}}}"#)
    };
    eventually("the pods are known", || {
        post(&daemon, &of_pod("a")).status == 200
    });
    let document = report(&post(&daemon, &of_pod("a")));
    assert_eq!(document.pull(), Pull::WouldSucceed);
    let first = &document.reports[0];
    assert_eq!(first.evidence.pods[0].name, "a");
    let outcomes: Vec<(&str, SecretOutcome)> = first
        .verdict
        .secrets
        .iter()
        .map(|one| (one.name.as_str(), one.outcome))
        .collect();
    assert_eq!(
        outcomes,
        [
            ("old", SecretOutcome::NoKey),
            ("pull", SecretOutcome::Accepted),
            ("gone", SecretOutcome::Absent)
        ]
    );

    // With Secrets that are named; that of the pod is another question.
    let with = |name: &str| {
        format!(
            r#"{{"image": "{image}", "secrets": {{"namespace": "shop", "names": ["{name}"]}}}}"#
        )
    };
    assert_eq!(
        report(&post(&daemon, &with("pull"))).pull(),
        Pull::WouldSucceed
    );
    let wrong = report(&post(&daemon, &with("wrong")));
    assert_eq!(code(&wrong), Some("auth_bad_cred"));
    assert_eq!(
        wrong.reports[0].verdict.secrets[0].outcome,
        SecretOutcome::Refused
    );
    let gone = report(&post(&daemon, &with("gone")));
    let facts = &gone.reports[0].verdict.findings;
    assert!(
        facts
            .iter()
            .any(|finding| finding.cause.code() == "secret_missing"
                && finding.evidence[0].contains("a Pod in namespace shop names Secret gone")),
        "{facts:#?}"
    );
    let unnamed = report(&post(&daemon, &with("unnamed")));
    assert_eq!(code(&unnamed), Some("auth_unknown"));

    // What may not be asked, and who may not ask.
    for (body, status, says) in [
        (
            of_pod("elsewhere"),
            404,
            "pod shop/elsewhere is not on this node",
        ),
        (
            r#"{"image": "other.example.com/x:1"}"#.to_owned(),
            403,
            "set on_demand.images: any to allow every image",
        ),
        (
            r#"{"image": "other.example.com/x:1", "pod": {"namespace": "shop", "name": "a"}}"#
                .to_owned(),
            403,
            "no container of pod shop/a has the image other.example.com/x:1",
        ),
        (
            r#"{"image": "a", "password": "x"}"#.to_owned(),
            400,
            "unknown field `password`",
        ),
        ("x".repeat(17 << 10), 413, "longer than 16384 bytes"),
    ] {
        let answer = post(&daemon, &body);
        assert_eq!(
            (answer.status, answer.body.contains(says)),
            (status, true),
            "{answer:?}"
        );
    }
    let from_page = send(
        daemon.admin,
        "POST",
        "/-/probe",
        "Origin: http://evil.test\r\n",
        &of_pod("a"),
    );
    assert_eq!(from_page.status, 403);
    assert_eq!(
        operated::ask(daemon.public, "POST", "/-/probe", "").status,
        404
    );

    // It counts for itself alone.
    let metrics = daemon.metrics();
    let asked = |outcome: &str| {
        metrics.value(&format!(
            "pullpath_on_demand_total{{outcome=\"{outcome}\"}}"
        ))
    };
    assert!(asked("would_succeed").unwrap() >= 3.0);
    assert_eq!(
        (asked("would_fail"), asked("not_allowed")),
        (Some(2.0), Some(2.0))
    );
    assert_eq!(metrics.with("pullpath_checks_total"), Vec::<&str>::new());
    assert_eq!(names(&daemon), Vec::<String>::new());

    // One at a time, and so many a minute.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let hanging = format!(r#"{{"image": "{}/x:1"}}"#, silent.local_addr().unwrap());
    let with_silent = format!("local_registries: ['{}', ", silent.local_addr().unwrap());
    let text = |more: &str| text(more).replace("local_registries: [", &with_silent);
    daemon.rewrite(&text("on_demand: {per_minute: 60, images: any}"));
    assert_eq!(daemon.order("/-/reload").status, 200);
    let (admin, body) = (daemon.admin, hanging.clone());
    let first = std::thread::spawn(move || send(admin, "POST", "/-/probe", "", &body));
    let under_way = silent.accept().unwrap();
    assert_eq!(post(&daemon, &hanging).status, 409);
    assert_eq!(
        first.join().unwrap().status,
        200,
        "the answer says what it is"
    );
    drop(under_way);
    daemon.rewrite(&text("on_demand: {per_minute: 1}"));
    assert_eq!(daemon.order("/-/reload").status, 200);
    let limited = post(&daemon, &of_pod("a"));
    assert_eq!(limited.status, 429, "{limited:?}");
    let after = limited
        .head
        .lines()
        .find_map(|line| line.strip_prefix("retry-after: "));
    assert!(
        (1..=60).contains(&after.unwrap().parse::<u64>().unwrap()),
        "{limited:?}"
    );
    daemon.rewrite(&text("on_demand: {images: off}"));
    assert_eq!(daemon.order("/-/reload").status, 200);
    assert_eq!(post(&daemon, &of_pod("a")).status, 403);
    let all = daemon.log().join("\n");
    assert!(!all.contains(PASSWORD) && !all.contains(&docker_config(&world, PASSWORD)));
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_s_own_node_is_followed_and_what_is_unknown_is_reported() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    let (image, name) = (world.reference(), "mine");
    let targets = format!("targets:\n  - {{name: {name}, image: '{image}'}}");
    cluster.allow("node", &rights_for_pods());
    let node = |name: &str, address: &str| {
        cluster.create(
            "/api/v1/nodes",
            &json!({"apiVersion": "v1", "kind": "Node",
                    "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "zone-1"}},
                    "spec": {"providerID": "huaweicloud:///7a"}}),
        );
        cluster.ask(
            "PATCH",
            &format!("/api/v1/nodes/{name}/status"),
            Some(&json!({"status": {
                "addresses": [{"type": "InternalIP", "address": "10.0.3.9"}, {"type": "ExternalIP", "address": address}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {"containerRuntimeVersion": "containerd://1.6.20", "kubeletVersion": "v1.20.2",
                             "osImage": "EulerOS 2.0", "machineID": "", "systemUUID": "", "bootID": "",
                             "kernelVersion": "", "kubeProxyVersion": "", "operatingSystem": "linux",
                             "architecture": "amd64"}}})),
        );
    };
    node("n1", "203.0.113.7");
    node("n2", "203.0.113.8");
    let daemon = Daemon::start(&config(&world, &cluster, &targets));
    let ready = || daemon.get("/readyz").body;
    eventually("that it is forbidden", || {
        ready().contains("watch of this Node has been down")
            && ready().contains("Allow list and watch of nodes")
    });
    assert!(
        daemon
            .get("/")
            .body
            .contains("Allow list and watch of nodes")
    );
    assert_eq!(daemon.metrics().with("pullpath_node_"), Vec::<&str>::new());
    // Checks are made, and say what they can't know.
    let document = daemon.check(name, "reach");
    let missing = |document: &Document| -> Vec<String> {
        let vantage = &document.reports[0].evidence.vantage;
        vantage
            .missing
            .iter()
            .map(|one| one.reason.clone())
            .collect()
    };
    let of_node = |reasons: &[String]| reasons.iter().any(|one| one.contains("node_external_ips"));
    assert!(
        missing(&document)
            .iter()
            .any(|one| one.contains("does not return this Node")),
        "{document:#?}"
    );

    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "nodes"},
                "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list", "watch"]}]}),
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "nodes"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "nodes"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "node"}]}),
    );
    let info =
        "pullpath_node_info{runtime=\"containerd 1.6.20\",kubelet=\"v1.20.2\",zone=\"zone-1\"}";
    eventually_within("its own Node", Duration::from_mins(1), || {
        daemon.metrics().value(info) == Some(1.0)
    });
    assert!(!ready().contains("has been down since"), "{}", ready());
    let metrics = daemon.metrics();
    are_as_documented(&metrics, "pullpath_node_");
    assert_eq!(metrics.value("pullpath_node_unschedulable"), Some(0.0));
    assert!(
        metrics
            .value("pullpath_node_created_timestamp_seconds")
            .unwrap()
            > 1.7e9
    );
    let document = daemon.check(name, "reach");
    let vantage = &document.reports[0].evidence.vantage;
    assert_eq!(
        vantage.node_external_ips,
        ["203.0.113.7".parse::<std::net::IpAddr>().unwrap()]
    );
    assert_eq!(vantage.node.as_ref().unwrap().name, "n1");
    assert!(!of_node(&missing(&document)), "{vantage:#?}");
    let provider = vantage
        .provider
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(
        provider.contains("providerID") || provider.contains("firmware"),
        "{provider}"
    );
    assert!(daemon.get("/").body.contains("new, 0 min old"));
    assert!(
        daemon
            .get("/vantage")
            .body
            .contains("203.0.113.7, from the API server")
    );

    // Cordoned by an operator, and not by a check that is reported.
    let cordon = json!({"spec": {"unschedulable": true}});
    cluster.ask("PATCH", "/api/v1/nodes/n1", Some(&cordon));
    eventually("that it is cordoned", || {
        daemon.metrics().value("pullpath_node_unschedulable") == Some(1.0)
    });
    assert!(daemon.get("/").body.contains("cordoned"));
    let own = operated::ask(daemon.admin, "GET", "/-/node", "");
    let own: Value = serde_json::from_str(&own.body).unwrap();
    assert_eq!(
        (&own["node"], &own["version"]),
        (&json!("n1"), &json!(pullpath::VERSION))
    );
    assert_eq!(own["vantage"]["vantage"]["node"]["unschedulable"], true);
    assert_eq!(own["vantage"]["schema_version"], 2);
    cluster.ask("DELETE", "/api/v1/nodes/n1", None);
    eventually("that it is gone", || {
        ready().contains("no Node with this name")
    });
    assert_eq!(daemon.stop(), Some(0));
}

/// What a test of the daemon alone can't show has the type that the documentation says.
fn are_as_documented(metrics: &Metrics, start: &str) {
    let of_start = FAMILIES
        .iter()
        .filter(|family| family.name.starts_with(start));
    for family in of_start {
        let kind = metrics.types.get(family.name).map(String::as_str);
        assert_eq!(kind, Some(family.kind), "{}", family.name);
    }
}

/// Ours of a namespace: pod, type, reason, message, count.
fn events(cluster: &Cluster, namespace: &str) -> Vec<(String, String, String, String, i64)> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let (_, list) = cluster.curl(ADMIN, "GET", &path, None).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut events: Vec<_> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            assert_eq!(event["reportingComponent"], "pullpath.io/pullpath");
            assert_eq!(event["reportingInstance"], "n1");
            assert_eq!(
                event["source"],
                json!({"component": "pullpath", "host": "n1"})
            );
            assert_eq!(event["involvedObject"]["fieldPath"], "spec.containers{app}");
            assert!(event["involvedObject"]["uid"].is_string());
            (
                text(&event["involvedObject"]["name"]),
                text(&event["type"]),
                text(&event["reason"]),
                text(&event["message"]),
                event["count"].as_i64().unwrap(),
            )
        })
        .collect();
    events.sort();
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn findings_are_published_on_the_pods_that_wait_once_and_taken_back() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    cluster.allow("node", &rights_for_pods());
    let (image, host) = (world.reference(), world.registry_host());
    let login = |password: &str| World::docker_config(&host, support::USER, password);
    let file = world.write("node.json", &login("wrong"));
    let text = config(
        &world,
        &cluster,
        &format!(
            "  events: pods\n  credential: {{docker_config: '{}'}}\nschedule: {{reach: 10s}}",
            file.display()
        ),
    );
    for name in ["a", "b", "well"] {
        pod(&cluster, "shop", name, "n1", &image, &[]);
    }
    kubelet_says(&cluster, "shop", "well", &image, None);
    kubelet_says(&cluster, "shop", "a", &image, Some("ErrImagePull"));
    let folder = Arc::new(tempfile::TempDir::new().unwrap());
    let daemon = Daemon::start_in(&text, Arc::clone(&folder));
    let published = |daemon: &Daemon, outcome: &str| {
        let series = format!("pullpath_events_published_total{{outcome=\"{outcome}\"}}");
        daemon.metrics().value(&series).unwrap_or(0.0)
    };
    eventually_within("that RBAC forbids it", Duration::from_secs(40), || {
        published(&daemon, "forbidden") > 0.0
    });
    assert!(
        daemon
            .log()
            .iter()
            .any(|line| line.contains("RBAC must allow create and patch of events")),
        "{:?}",
        daemon.log()
    );
    let repository = image.rsplit_once(':').unwrap().0;
    assert!(
        !targets(&daemon)[0]["runs"].as_array().unwrap().is_empty(),
        "checks go on"
    );

    let rules = json!([{"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}]);
    allow_in(&cluster, "shop", "node", "events", &rules);
    eventually_within("one on the pod that waits", Duration::from_secs(40), || {
        !events(&cluster, "shop").is_empty()
    });
    are_as_documented(&daemon.metrics(), "pullpath_events_");
    let (on, kind, reason, message, count) = events(&cluster, "shop").remove(0);
    assert_eq!(
        (on.as_str(), kind.as_str(), reason.as_str(), count),
        ("a", "Warning", "ImagePullDiagnosed", 1)
    );
    assert!(message.starts_with("auth_bad_cred: "), "{message}");
    assert!(
        message.contains(". hint: ") && message.contains("on node n1 from "),
        "{message}"
    );
    assert!(
        message.contains(&image) && !message.contains("wrong"),
        "{message}"
    );

    // Another one waits; tries and waits in turn say nothing new.
    kubelet_says(&cluster, "shop", "a", &image, Some("ImagePullBackOff"));
    kubelet_says(&cluster, "shop", "b", &image, Some("ErrImagePull"));
    eventually_within("one on the other pod", Duration::from_secs(40), || {
        events(&cluster, "shop").len() == 2
    });
    let runs = || targets(&daemon)[0]["runs"].as_array().unwrap().len();
    let before = runs();
    eventually_within("two more checks", Duration::from_mins(1), || {
        runs() >= before + 2
    });
    let all = events(&cluster, "shop");
    assert_eq!((all.len(), all[0].4, all[1].4), (2, 1, 1), "{all:#?}");

    // After a restart it is unknown that the Event was sent: it is the same Event all the same.
    assert_eq!(daemon.stop(), Some(0));
    let daemon = Daemon::start_in(&text, folder);
    eventually_within("both again", Duration::from_mins(1), || {
        published(&daemon, "counted") >= 2.0
    });
    assert_eq!(events(&cluster, "shop").len(), 2);

    // Fixed, before the kubelets try again; and then one has it.
    std::fs::write(&file, login(PASSWORD)).unwrap();
    eventually_within("that it is fixed", Duration::from_mins(1), || {
        let all = events(&cluster, "shop");
        all.iter()
            .filter(|(_, kind, reason, ..)| kind == "Normal" && reason == "ImagePullResolved")
            .count()
            == 2
    });
    let page = daemon
        .get(&format!("/api/v1/reports/{}", in_url(repository)))
        .body;
    assert!(!page.contains(PASSWORD));
    let all = events(&cluster, "shop");
    assert!(
        all.iter()
            .all(|event| event.0 != "well" && !event.3.contains(PASSWORD)),
        "{all:#?}"
    );
    assert_eq!(daemon.stop(), Some(0));
}

/// Pods of our Events, in the order in which they were written.
fn in_order(cluster: &Cluster) -> Vec<String> {
    let (_, list) = cluster
        .curl(ADMIN, "GET", "/api/v1/namespaces/shop/events", None)
        .unwrap();
    let mut all: Vec<(u64, String)> = list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| {
            let version = event["metadata"]["resourceVersion"].as_str().unwrap();
            let pod = event["involvedObject"]["name"].as_str().unwrap();
            (version.parse().unwrap(), pod.to_owned())
        })
        .collect();
    all.sort();
    all.into_iter().map(|(_, pod)| pod).collect()
}

/// A registry fails for all pods of a node at once.
#[tokio::test(flavor = "multi_thread")]
async fn of_many_events_a_few_a_minute_are_published_the_most_severe_first_and_the_page_counts_the_others()
 {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    cluster.allow("node", &rights_for_pods());
    let rules = json!([{"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]}]);
    allow_in(&cluster, "shop", "node", "events", &rules);
    let (image, host) = (world.reference(), world.registry_host());
    let file = World::docker_config(&host, support::USER, "wrong");
    let file = world.write("node.json", &file);
    let daemon = Daemon::start(&config(
        &world,
        &cluster,
        &format!(
            "  events: pods\n  credential: {{docker_config: '{}'}}\nschedule: {{reach: 10s}}",
            file.display()
        ),
    ));
    let wait_for_image = |name: &str, secrets: &[&str]| {
        pod(&cluster, "shop", name, "n1", &image, secrets);
        kubelet_says(&cluster, "shop", name, &image, Some("ErrImagePull"));
    };
    // Of ten in a minute, the last three are for namespaces that had none.
    for number in 0..7 {
        wait_for_image(&format!("first-{number}"), &[]);
    }
    eventually_within("the Events of a minute", Duration::from_secs(40), || {
        in_order(&cluster).len() == 7
    });
    // The Secret is not read, so whether this pull would succeed is unknown: it can wait.
    wait_for_image("unknown", &["pull"]);
    eventually("one that waits", || {
        daemon.get("/").body.contains("1 Event on a pod waits")
    });
    wait_for_image("certain-1", &[]);
    wait_for_image("certain-2", &[]);
    eventually("three that wait", || {
        daemon.get("/").body.contains(
            "3 Events on pods wait: this node writes 10 a minute, the most severe and the newest first.",
        )
    });
    assert_eq!(in_order(&cluster).len(), 7, "no more within the minute");
    let limited = "pullpath_events_published_total{outcome=\"limited\"}";
    assert!(daemon.metrics().value(limited).unwrap() >= 3.0);
    eventually_within("all of them", Duration::from_mins(2), || {
        in_order(&cluster).len() == 10
    });
    let order = in_order(&cluster);
    assert_eq!(
        order[7..],
        ["certain-2", "certain-1", "unknown"],
        "{order:?}"
    );
    eventually("a page without them", || {
        !daemon.get("/").body.contains("on a pod wait")
            && !daemon.get("/").body.contains("on pods wait")
    });
    assert_eq!(daemon.stop(), Some(0));
}

/// No check is requested, and the next one on the schedule is a day away.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_secret_is_checked_at_once_where_a_pod_waits_for_it() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    cluster.allow(
        "node",
        &json!([{"apiGroups": [""], "resources": ["pods", "secrets"], "verbs": ["list", "watch"]}]),
    );
    let image = world.reference();
    for (name, waits) in [("pull", true), ("beside", false)] {
        secret(&cluster, &world, "shop", name, "wrong");
        pod(&cluster, "shop", name, "n1", &image, &[name]);
        let state = waits.then_some("ErrImagePull");
        kubelet_says(&cluster, "shop", name, &image, state);
    }
    let daemon = Daemon::start(&config(
        &world,
        &cluster,
        "  secrets: discovered\nschedule: {reach: 24h, path: 168h, transfer: off, first_check: 1s}",
    ));
    let target = |secret: &str| {
        let name = format!("@shop/{secret}");
        let is_it = |target: &Value| target["name"].as_str().unwrap().ends_with(&name);
        targets(&daemon).into_iter().find(is_it).unwrap_or_default()
    };
    let outcome = |secret: &str| target(secret)["outcome"].as_str().map(str::to_owned);
    let runs = |secret: &str| target(secret)["runs"].as_array().map_or(0, Vec::len);
    for name in ["pull", "beside"] {
        eventually_within("the first check", Duration::from_mins(1), || {
            outcome(name).as_deref() == Some("would_fail")
        });
    }
    let change = |name: &str| {
        cluster.ask(
            "PATCH",
            &format!("/api/v1/namespaces/shop/secrets/{name}"),
            Some(&json!({"data": {".dockerconfigjson": docker_config(&world, PASSWORD)}})),
        );
    };
    let beside = runs("beside");
    change("beside");
    change("pull");
    eventually_within(
        "a check of the changed Secret",
        Duration::from_mins(2),
        || outcome("pull").as_deref() == Some("would_succeed"),
    );
    assert_eq!(runs("beside"), beside, "no pod waits for it");
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_that_fails_otherwise_is_checked_again_and_not_at_each_try() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    cluster.allow("node", &rights_for_pods());
    let image = world.reference();
    pod(&cluster, "shop", "a", "n1", &image, &[]);
    // A target of the configuration stands for it, and is the one that is checked.
    let text = config(
        &world,
        &cluster,
        &format!(
            "targets: [{{name: mine, image: '{image}'}}]\nschedule: {{reach: 24h, path: 168h, transfer: off, first_check: 1h}}"
        ),
    );
    let daemon = Daemon::start(&text);
    eventually("the pod", || {
        targets(&daemon)[0]["sources"] == json!(["configuration", "pods"])
    });
    let runs = || targets(&daemon)[0]["runs"].as_array().unwrap().len();
    let next = || {
        targets(&daemon)[0]["next"]
            .as_str()
            .unwrap()
            .parse::<jiff::Timestamp>()
            .unwrap()
    };
    let begin = runs();
    let says = |reason: &str, message: &str| {
        kubelet_says_with_message(&cluster, "shop", "a", &image, Some(reason), message);
    };
    says(
        "ErrImagePull",
        "read tcp 10.0.3.9:40001->10.0.0.1:443: i/o timeout",
    );
    eventually("a check at once", || runs() == begin + 1);
    let planned = next();
    for port in [40_002, 40_003] {
        says("ImagePullBackOff", "Back-off pulling image");
        says(
            "ErrImagePull",
            &format!("read tcp 10.0.3.9:{port}->10.0.0.1:443: i/o timeout"),
        );
    }
    // Long enough for all of it to be taken up.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!((runs(), next()), (begin + 1, planned), "the same failure");
    says("ErrImagePull", "failed to authorize: 401 Unauthorized");
    eventually("one is planned", || next() < planned);
    let soon = next().duration_since(jiff::Timestamp::now()).as_secs();
    assert!(
        (1..=60).contains(&soon),
        "within the minute, and not at once: {soon}"
    );
    assert_eq!(runs(), begin + 1);
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_pod_has_of_an_eip_is_requested_where_no_file_shows_it() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("pullpath", &[]);
    cluster.create(
        "/api/v1/namespaces/pullpath/pods",
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pullpath-x", "annotations": {
                    "yangtse.io/pod-with-eip": "true", "yangtse.io/eip-bandwidth-size": "5",
                    "yangtse.io/allocated-ipv4-eip": "121.36.1.2", "other": PASSWORD}},
                "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "r.test/pullpath:1"}]}}),
    );
    cluster.allow("node", &rights_for_pods());
    let (target, _) = operated::target(&world, "app", PASSWORD);
    let text = config(&world, &cluster, &format!("targets:\n{target}"));
    let vantage = |name: &str, pod_ip: &str| {
        let environment = [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("HOST_IP", "10.0.0.5"),
            ("POD_IP", pod_ip),
            ("POD_NAMESPACE", "pullpath"),
            ("POD_NAME", name),
        ];
        let folder = Arc::new(tempfile::TempDir::new().unwrap());
        let daemon = Daemon::start_with(&environment, &["run"], &text, folder);
        daemon.check("app", "reach");
        let answer = daemon.get("/api/v1/vantage");
        assert!(!answer.body.contains(PASSWORD), "{}", answer.body);
        let document: Value = serde_json::from_str(&answer.body).unwrap();
        assert_eq!(daemon.stop(), Some(0));
        document["vantage"].clone()
    };
    let own = vantage("pullpath-x", "10.0.0.77");
    let eip = &own["pod_eip"];
    assert_eq!(
        (&eip["source"], &eip["allocated"], &eip["bandwidth_mbit"]),
        (&json!("the API server"), &json!("121.36.1.2"), &json!(5)),
        "{own:#}"
    );
    // A missing pod is reported; on the node's network no request is made.
    let lost = vantage("pullpath-y", "10.0.0.77");
    assert_eq!(lost["pod_eip"], Value::Null);
    assert!(
        lost["missing"]
            .to_string()
            .contains("the API server has no pod pullpath/pullpath-y"),
        "{lost:#}"
    );
    let node = vantage("pullpath-x", "10.0.0.5");
    assert_eq!(node["pod_eip"], Value::Null, "{node:#}");
    let refused: Vec<_> = cluster
        .asked("node")
        .into_iter()
        .filter(|asked| asked.resource == "pods" && asked.status >= 400)
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
}
