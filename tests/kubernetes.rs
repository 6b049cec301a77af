//! `pullpath run` in a cluster: a real API server with RBAC, beside a registry on loopback. The test plays
//! the kubelet and the controllers.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
#[path = "kube/played.rs"]
mod played;
mod support;

use std::time::Duration;

use kube::Cluster;
use operated::{Daemon, eventually};
use played::{
    allow_in, codes, config, docker_config, kubelet_says, names, pod, rights_for_pods, secret,
    targets,
};
use pullpath::daemon::http::metrics::FAMILIES;
use serde_json::json;
use support::{PASSWORD, World};

#[tokio::test(flavor = "multi_thread")]
async fn images_of_this_node_s_pods_are_watched_and_only_theirs() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.allow("node", &rights_for_pods());
    cluster.namespace("shop", &["pull"]);
    cluster.namespace("bank", &[]);
    cluster.namespace("kube-system-2", &[]);
    let (host, image) = (world.registry_host(), world.reference());
    let repository = image.rsplit_once(':').unwrap().0.to_owned();
    pod(&cluster, "bank", "a", "n1", &image, &[]);
    pod(
        &cluster,
        "bank",
        "elsewhere",
        "n2",
        &format!("{host}/team/other:1"),
        &[],
    );
    // Its service account's Secret is put into it by the API server.
    pod(&cluster, "shop", "a", "n1", &image, &[]);
    pod(
        &cluster,
        "kube-system-2",
        "dns",
        "n1",
        &format!("{host}/hwofficial/dns:1"),
        &[],
    );
    let daemon = Daemon::start(&config(
        &world,
        &cluster,
        "  platform_namespaces: [kube-system-2]\ntargets:\n  - {name: mine, image: registry.example.com/x:1}",
    ));
    let of_shop = format!("{repository}@shop/pull");
    eventually("two pods' images beside the configured one", || {
        names(&daemon) == ["mine", &repository, &of_shop]
    });
    let all = targets(&daemon);
    assert_eq!(all[0]["sources"], json!(["configuration"]));
    assert_eq!(all[2]["sources"], json!(["pods"]));
    assert_eq!(all[2]["uses"][0]["pod"], "a");
    assert_eq!(all[2]["uses"][0]["namespace"], "shop");
    assert_eq!(all[2]["uses"][0]["needs_no_pull"], false);
    let metrics = daemon.metrics();
    let images =
        |state: &str| metrics.value(&format!("pullpath_kubernetes_images{{state=\"{state}\"}}"));
    assert_eq!(images("checked"), Some(2.0));
    assert_eq!(images("platform"), Some(1.0));
    assert_eq!(metrics.value("pullpath_kubernetes_watch_up"), Some(1.0));
    for family in FAMILIES
        .iter()
        .filter(|family| family.name.starts_with("pullpath_kubernetes_"))
    {
        assert_eq!(
            metrics.types.get(family.name).map(String::as_str),
            Some(family.kind)
        );
    }

    // One that waits is checked at once; when it is there, that is said.
    kubelet_says(&cluster, "shop", "a", &image, Some("ImagePullBackOff"));
    eventually("a check out of turn", || {
        !targets(&daemon)[2]["runs"].as_array().unwrap().is_empty()
    });
    assert_eq!(targets(&daemon)[2]["uses"][0]["waits"], true);
    kubelet_says(&cluster, "shop", "a", &image, None);
    // Its Node is not read, and a kubelet of 1.35 or later may pull what is there.
    eventually("that a pull may be needed", || {
        targets(&daemon)[2]["uses"][0]["needs_no_pull"].is_null()
    });
    let page = daemon.get(&format!(
        "/targets/{}",
        of_shop.replace('/', "%2F").replace('@', "%40")
    ));
    assert!(
        page.body.contains("unknown whether a pull is needed"),
        "{page:?}"
    );

    // The series of a deleted pod are gone, too.
    cluster.ask(
        "DELETE",
        "/api/v1/namespaces/bank/pods/a?gracePeriodSeconds=0",
        None,
    );
    eventually("its target is gone", || {
        names(&daemon) == ["mine", &of_shop]
    });
    let gone = format!("target=\"{repository}\"");
    assert_eq!(daemon.metrics().with(&gone), Vec::<&str>::new());
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_read_only_where_it_is_allowed_and_followed_as_it_changes() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    let image = world.reference();
    let repository = image.rsplit_once(':').unwrap().0;
    let name = format!("{repository}@shop/pull");
    pod(&cluster, "shop", "a", "n1", &image, &["pull"]);
    secret(&cluster, &world, "shop", "pull", "wrong");
    secret(&cluster, &world, "shop", "unused", PASSWORD);
    cluster.allow("node", &rights_for_pods());

    // None is read by default: then it is not known, which is not the same as none.
    let daemon = Daemon::start(&config(&world, &cluster, ""));
    eventually("the pod's image", || names(&daemon) == [name.as_str()]);
    let document = daemon.check(&name.replace('/', "%2F").replace('@', "%40"), "reach");
    let verdict = &document.reports[0].verdict;
    assert_eq!(verdict.findings[0].cause.code(), "auth_unknown");
    assert!(
        verdict.findings[0]
            .evidence
            .iter()
            .any(|fact| fact.contains("kubernetes.secrets is none")),
        "{verdict:#?}"
    );
    let asked = world.tokens.server.seen();
    assert!(asked.iter().all(|seen| seen.authorization().is_none()));
    let methods: Vec<&str> = asked.iter().map(|seen| seen.method.as_str()).collect();
    // Once more, since the refusal says that the token lacks the scope.
    assert_eq!(methods, ["GET", "GET"], "two anonymous questions");

    // Configured, and forbidden.
    let named = "  secrets: named\n  named_secrets: [{namespace: shop, names: [pull]}]";
    daemon.rewrite(&config(&world, &cluster, named));
    assert_eq!(daemon.order("/-/reload").status, 200);
    eventually("that RBAC forbids it", || {
        let document = daemon.check(&name.replace('/', "%2F").replace('@', "%40"), "reach");
        let facts = &document.reports[0].verdict.findings[0].evidence;
        facts.iter().any(|fact| fact.contains("RBAC must allow"))
    });
    allow_in(
        &cluster,
        "shop",
        "node",
        "pull",
        &json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["pull"],
                 "verbs": ["list", "watch"]}]),
    );
    // The watch waits before it tries again.
    operated::eventually_within("the wrong password", Duration::from_mins(1), || {
        codes(&daemon, &name) == ["auth_bad_cred"]
    });

    // Fixed by its owner: no request is needed.
    cluster.ask(
        "PATCH",
        "/api/v1/namespaces/shop/secrets/pull",
        Some(&json!({"data": {".dockerconfigjson": docker_config(&world, PASSWORD)}})),
    );
    eventually("the right password", || codes(&daemon, &name).is_empty());
    cluster.ask("DELETE", "/api/v1/namespaces/shop/secrets/pull", None);
    eventually("that it is gone", || {
        codes(&daemon, &name).contains(&"secret_missing")
    });
    let log = daemon.log().join("\n");
    let all = format!(
        "{log}{}{}",
        daemon.get("/metrics").body,
        daemon.get("/api/v1/reports").body
    );
    assert!(!all.contains(PASSWORD) && !all.contains(&docker_config(&world, PASSWORD)));
    assert_eq!(daemon.stop(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_away_forbids_or_forgets_stops_no_check() {
    let world = World::healthy().await;
    let mut cluster = Cluster::start();
    cluster.namespace("shop", &[]);
    let (host, image) = (world.registry_host(), world.reference());
    let repository = image.rsplit_once(':').unwrap().0;
    pod(&cluster, "shop", "a", "n1", &image, &[]);
    // No right at all, at first.
    let daemon = Daemon::start(&config(&world, &cluster, ""));
    eventually("that it is forbidden", || {
        let ready = daemon.get("/readyz");
        ready.status == 200
            && ready.body.contains("forbidden")
            && ready.body.contains("Allow list and watch")
    });
    assert_eq!(
        daemon.metrics().value("pullpath_kubernetes_watch_up"),
        Some(0.0)
    );
    cluster.allow("node", &rights_for_pods());
    operated::eventually_within("the pod's image", Duration::from_mins(1), || {
        names(&daemon) == [repository]
    });

    cluster.stop_server();
    eventually("that no server answers", || {
        daemon.get("/readyz").body.contains("has been down since")
    });
    assert_eq!(names(&daemon), [repository], "what was known goes on");
    assert_eq!(codes(&daemon, repository), ["auth_no_cred"]);
    assert!(daemon.get("/").body.contains("has been down since"));

    // It comes back, and has forgotten what was before.
    cluster.start_server();
    cluster.compact();
    pod(
        &cluster,
        "shop",
        "b",
        "n1",
        &format!("{host}/team/new:1"),
        &[],
    );
    let new = format!("{host}/team/new");
    operated::eventually_within("the new pod's image", Duration::from_mins(1), || {
        names(&daemon) == [repository, &new]
    });
    assert_eq!(
        daemon.metrics().value("pullpath_kubernetes_watch_up"),
        Some(1.0)
    );
    assert_eq!(daemon.stop(), Some(0));
}

/// A pod that waits for these images; one container for each.
fn waiting_pod(cluster: &Cluster, namespace: &str, images: &[String], secrets: &[String]) {
    let container = |(number, image)| json!({"name": format!("c{number}"), "image": image});
    let containers: Vec<_> = images.iter().enumerate().map(container).collect();
    let secrets: Vec<_> = secrets.iter().map(|name| json!({"name": name})).collect();
    cluster.create(
        &format!("/api/v1/namespaces/{namespace}/pods"),
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "waits"},
                "spec": {"nodeName": "n1", "imagePullSecrets": secrets, "containers": containers}}),
    );
    let waits =
        json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}});
    let status = |(number, image)| {
        json!({"name": format!("c{number}"), "image": image, "imageID": "", "ready": false, "restartCount": 0,
               "state": waits})
    };
    let statuses: Vec<_> = images.iter().enumerate().map(status).collect();
    cluster.ask(
        "PATCH",
        &format!("/api/v1/namespaces/{namespace}/pods/waits/status"),
        Some(&json!({"status": {"phase": "Pending", "containerStatuses": statuses}})),
    );
}

/// The reasons of our Events in a namespace.
fn reasons(cluster: &Cluster, namespace: &str) -> Vec<String> {
    let path = format!("/api/v1/namespaces/{namespace}/events");
    let (_, list) = cluster.curl(kube::ADMIN, "GET", &path, None).unwrap();
    let events = list["items"].as_array().unwrap().iter();
    events
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}

/// One pod waits for 60 images, and one pod of each of three other namespaces for one: these are checked, and have their
/// Events, within an interval.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_many_images_takes_no_place_and_no_event_of_others() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    let events = json!({"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]});
    let mut rights = rights_for_pods().as_array().unwrap().clone();
    rights.push(events);
    cluster.allow("node", &json!(rights));
    let host = world.registry_host();
    let image = |name: &str| format!("{host}/team/{name}:1");
    cluster.namespace("big", &[]);
    let many: Vec<String> = (0..60)
        .map(|number| image(&format!("big{number:02}")))
        .collect();
    waiting_pod(&cluster, "big", &many, &[]);
    let daemon = Daemon::start(&config(
        &world,
        &cluster,
        "  events: pods\nschedule: {reach: 1m, first_check: 5s}",
    ));
    eventually("all places are taken", || names(&daemon).len() == 50);
    eventually("its Events", || reasons(&cluster, "big").len() >= 5);
    for namespace in ["a", "b", "z"] {
        cluster.namespace(namespace, &[]);
        waiting_pod(&cluster, namespace, &[image(namespace)], &[]);
    }
    for namespace in ["a", "b", "z"] {
        let target = format!("{host}/team/{namespace}");
        eventually("a check of the others' images", || {
            let all = targets(&daemon);
            let one = all.iter().find(|one| one["name"] == target.as_str());
            one.is_some_and(|one| !one["runs"].as_array().unwrap().is_empty())
        });
        eventually("their Events", || {
            reasons(&cluster, namespace).contains(&"ImagePullDiagnosed".to_owned())
        });
    }
    assert_eq!(names(&daemon).len(), 50);
    // The pod has an Event: its namespace wants more than its share.
    eventually("an Event about the share", || {
        reasons(&cluster, "big").contains(&"ImagePullNotChecked".to_owned())
    });
    let metrics = daemon.metrics();
    let over = metrics.value("pullpath_kubernetes_images{state=\"over_limit\"}");
    assert_eq!(over, Some(13.0));
    assert_eq!(
        metrics.value("pullpath_kubernetes_crowded_namespaces"),
        Some(1.0)
    );
}

/// A pod names 3,000 pull Secrets: few are read, over few connections, and other pods' images are checked with theirs.
#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_thousands_of_secrets_opens_few_connections() {
    let world = World::healthy().await;
    let cluster = Cluster::start();
    let mut rights = rights_for_pods().as_array().unwrap().clone();
    rights.push(
        json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"]}),
    );
    cluster.allow("node", &json!(rights));
    let image = world.reference();
    cluster.namespace("big", &[]);
    cluster.namespace("shop", &[]);
    let many: Vec<String> = (0..3000).map(|number| format!("s{number:04}")).collect();
    waiting_pod(&cluster, "big", std::slice::from_ref(&image), &many);
    secret(&cluster, &world, "shop", "pull", "wrong");
    waiting_pod(
        &cluster,
        "shop",
        std::slice::from_ref(&image),
        &["pull".to_owned()],
    );
    let daemon = Daemon::start(&config(&world, &cluster, "  secrets: discovered"));
    eventually("both pods' images", || names(&daemon).len() == 2);
    let repository = image.rsplit_once(':').unwrap().0;
    let of_shop = format!("{repository}@shop/pull");
    eventually("the Secret of the other pod is read", || {
        codes(&daemon, &of_shop) == ["auth_bad_cred"]
    });
    // A Secret that changes is read at once, beside all the others.
    cluster.ask(
        "PATCH",
        "/api/v1/namespaces/shop/secrets/pull",
        Some(&json!({"data": {".dockerconfigjson": docker_config(&world, PASSWORD)}})),
    );
    eventually("the new password is accepted", || {
        codes(&daemon, &of_shop).is_empty()
    });
    // Those of the pod that were not read may have the credential.
    let of_big = names(&daemon)
        .into_iter()
        .find(|name| *name != of_shop)
        .unwrap();
    assert!(of_big.len() < 400, "{of_big}");
    let found = codes(&daemon, &of_big);
    assert!(!found.is_empty());
    let document = daemon.check(&played::in_url(&of_big), "reach");
    let report = &document.reports[0];
    assert_eq!(
        report.verdict.pull,
        pullpath::diagnose::Pull::Unknown,
        "{found:?}"
    );
    let text = serde_json::to_string(report).unwrap();
    assert!(text.contains("this pod names 3000 pull Secrets, and only the first 32 are read"));
    let asked = cluster.asked("node");
    let of_secrets = asked.iter().filter(|one| one.resource == "secrets").count();
    assert!((33..=300).contains(&of_secrets), "{of_secrets} requests");
    let sockets = std::fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap();
    let sockets = sockets.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let sockets = sockets
        .filter(|to| to.to_string_lossy().starts_with("socket:"))
        .count();
    assert!(sockets < 80, "{sockets} sockets");
}
