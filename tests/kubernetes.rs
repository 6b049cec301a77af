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
