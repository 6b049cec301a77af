//! `pullpath lint` and what it follows, with a real API server and RBAC. The test plays the controllers.

#![allow(clippy::unwrap_used, reason = "this is test code")]
#![allow(clippy::too_many_lines, reason = "a scenario is one piece")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;

use std::collections::BTreeSet;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::Cluster;
use pullpath::kubernetes::client::connect;
use pullpath::kubernetes::secrets::{Access, SecretKey};
use pullpath::kubernetes::workloads::Scope;
use pullpath::lint::Snapshot;
use pullpath::lint::watch::start;
use pullpath::report::lint::LintDocument;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const PASSWORD: &str = "hunter2-of-the-lint";

fn rules_for_workloads() -> Vec<Value> {
    let verbs = ["list", "watch"];
    vec![
        json!({"apiGroups": ["apps"], "resources": ["deployments", "statefulsets", "daemonsets"], "verbs": verbs}),
        json!({"apiGroups": ["batch"], "resources": ["jobs", "cronjobs"], "verbs": verbs}),
        json!({"apiGroups": [""], "resources": ["pods", "serviceaccounts"], "verbs": verbs}),
    ]
}

fn and_secrets() -> Vec<Value> {
    let mut rules = rules_for_workloads();
    rules.push(json!({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list", "watch"]}));
    rules
}

fn docker_config(server: &str) -> String {
    let config = json!({"auths": {server: {"username": "u", "password": PASSWORD}}});
    config.to_string()
}

fn encoded(server: &str) -> String {
    BASE64_STANDARD.encode(docker_config(server))
}

fn secret(cluster: &Cluster, namespace: &str, name: &str, server: &str) {
    let mut secret = kube::pull_secret(name, &docker_config(server));
    secret["metadata"]["annotations"] =
        json!({"kubectl.kubernetes.io/last-applied-configuration": encoded(server)});
    cluster.create(&format!("/api/v1/namespaces/{namespace}/secrets"), &secret);
}

fn template(image: &str, secrets: &[&str]) -> Value {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    json!({"metadata": {"labels": {"app": "x"}},
           "spec": {"imagePullSecrets": secrets, "containers": [{"name": "app", "image": image}]}})
}

fn workload(cluster: &Cluster, namespace: &str, kind: &str, name: &str, mut template: Value) {
    let (group, plural) = match kind {
        "Job" => ("batch", "jobs"),
        "DaemonSet" => ("apps", "daemonsets"),
        "StatefulSet" => ("apps", "statefulsets"),
        _ => ("apps", "deployments"),
    };
    let selector = json!({"matchLabels": {"app": "x"}});
    let spec = match kind {
        "Job" => {
            template["spec"]["restartPolicy"] = json!("Never");
            json!({"template": template})
        }
        "StatefulSet" => json!({"selector": selector, "template": template, "serviceName": "x"}),
        _ => json!({"selector": selector, "template": template}),
    };
    cluster.create(
        &format!("/apis/{group}/v1/namespaces/{namespace}/{plural}"),
        &json!({"apiVersion": format!("{group}/v1"), "kind": kind, "metadata": {"name": name}, "spec": spec}),
    );
}

fn pod(cluster: &Cluster, namespace: &str, name: &str, image: &str, owner: Option<&str>) {
    let owners = owner.map(|kind| {
        json!([{"apiVersion": "apps/v1", "kind": kind, "name": "above", "uid": "u", "controller": true}])
    });
    cluster.create(
        &format!("/api/v1/namespaces/{namespace}/pods"),
        &json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "ownerReferences": owners, "labels": {"pod-template-hash": "5d8f7c"}},
                "spec": {"containers": [{"name": "app", "image": image}]}}),
    );
}

fn lint(cluster: &Cluster, user: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .env_clear()
        .arg("lint")
        .arg("--kubeconfig")
        .arg(cluster.kubeconfig(user))
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn document(output: &Output) -> LintDocument {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(!text.contains(PASSWORD));
    serde_json::from_str(&text).unwrap_or_else(|error| {
        panic!(
            "{error}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}

/// `cause namespace kind/name` of each.
fn reported(snapshot: &Snapshot) -> Vec<String> {
    let mut all: Vec<String> = snapshot
        .findings
        .iter()
        .map(|f| format!("{} {} {}/{}", f.cause.code(), f.namespace, f.kind, f.name))
        .collect();
    all.sort();
    all
}

/// A shop where much is wrong, and a bank where all is well.
fn shop_and_bank() -> Cluster {
    let cluster = Cluster::start();
    cluster.namespace("shop", &["of-account"]);
    cluster.namespace("bank", &[]);
    let image = "reg.example.com/team/app:1";
    secret(&cluster, "bank", "pull", "reg.example.com");
    secret(&cluster, "bank", "elsewhere", "reg.example.com");
    secret(&cluster, "shop", "odd", "reg.example.com:443");
    secret(&cluster, "shop", "good", "reg.example.com");
    cluster.create(
        "/api/v1/namespaces/shop/secrets",
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "opaque"}, "type": "Opaque",
                "data": {".dockerconfigjson": encoded("reg.example.com")}}),
    );
    workload(
        &cluster,
        "bank",
        "Deployment",
        "well",
        template(image, &["pull"]),
    );
    workload(
        &cluster,
        "shop",
        "Deployment",
        "well",
        template(image, &["good"]),
    );
    workload(
        &cluster,
        "shop",
        "Deployment",
        "gone",
        template(image, &["gone"]),
    );
    workload(
        &cluster,
        "shop",
        "StatefulSet",
        "elsewhere",
        template(image, &["elsewhere"]),
    );
    workload(
        &cluster,
        "shop",
        "DaemonSet",
        "odd",
        template(image, &["odd"]),
    );
    workload(&cluster, "shop", "Job", "by-account", template(image, &[]));
    workload(
        &cluster,
        "shop",
        "Deployment",
        "opaque",
        template(image, &["opaque", "good"]),
    );
    let mut robot = template(image, &["good"]);
    robot["spec"]["serviceAccountName"] = json!("robot");
    workload(&cluster, "shop", "Deployment", "robot", robot);
    let mut eip = template(image, &["good"]);
    eip["metadata"]["annotations"] = json!({"yangtse.io/pod-with-eip": "yes"});
    workload(&cluster, "shop", "Deployment", "eip", eip);
    pod(&cluster, "bank", "bare", image, None);
    pod(&cluster, "bank", "owned", image, Some("ReplicaSet"));
    cluster
}

const ALL: [&str; 8] = [
    "eip_annotation_invalid shop Deployment/eip",
    "secret_format shop Secret/opaque",
    "secret_key_mismatch shop DaemonSet/odd",
    "secret_missing shop Deployment/gone",
    "secret_missing shop ServiceAccount/default",
    "secret_not_named bank Pod/bare",
    "secret_other_namespace shop StatefulSet/elsewhere",
    "service_account_missing shop Deployment/robot",
];

#[test]
fn a_cluster_is_linted_with_the_rights_that_there_are() {
    let cluster = shop_and_bank();
    // No right at all.
    let blind = lint(&cluster, "nobody", &["-A"]);
    assert_eq!(blind.status.code(), Some(2));
    let error = String::from_utf8(blind.stderr).unwrap();
    assert!(error.contains("no workload can be listed"), "{error}");
    assert!(
        error.contains("deployments.apps: the API server forbids it"),
        "{error}"
    );

    // All that is needed, and no more.
    cluster.allow("cluster", &json!(and_secrets()));
    let whole = lint(&cluster, "cluster", &["-A", "-o", "json"]);
    let snapshot = document(&whole).lint;
    assert_eq!(reported(&snapshot), ALL, "{snapshot:#?}");
    assert_eq!(whole.status.code(), Some(1));
    let secrets = &snapshot.counts.secrets;
    assert_eq!(
        (secrets.named, secrets.read, secrets.absent, secrets.unknown),
        (7, 4, 3, 0)
    );
    // This API server is older than CronJobs of batch/v1.
    let [line] = &snapshot.not_observed[..] else {
        panic!("{snapshot:#?}")
    };
    assert!(
        line.starts_with("cronjobs.batch: not readable since") && line.ends_with("(status 404)"),
        "{line}"
    );
    let text = lint(&cluster, "cluster", &["-A"]);
    let text = String::from_utf8(text.stdout).unwrap();
    assert!(!text.contains(PASSWORD));
    for part in [
        "secret_missing  The pull secret that the pod names was not found",
        "Deployment shop/gone  critical",
        "hint:",
        "could not be read",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }

    // One namespace where nothing is critical; the Secrets of the other can't be read from there.
    let bank = lint(&cluster, "cluster", &["-n", "bank", "-o", "json"]);
    assert_eq!(bank.status.code(), Some(0));
    assert_eq!(
        reported(&document(&bank).lint),
        ["secret_not_named bank Pod/bare"]
    );
    let shop = document(&lint(&cluster, "cluster", &["-n", "shop", "-o", "json"])).lint;
    assert!(reported(&shop).contains(&"secret_missing shop StatefulSet/elsewhere".to_owned()));

    // Workloads, and no Secret: none is called missing.
    cluster.allow("person", &json!(rules_for_workloads()));
    for args in [
        &["-A", "-o", "json"][..],
        &["-A", "-o", "json", "--secrets", "none"],
    ] {
        let partial = document(&lint(&cluster, "person", args)).lint;
        assert_eq!(
            reported(&partial),
            [
                "eip_annotation_invalid shop Deployment/eip",
                "service_account_missing shop Deployment/robot"
            ]
        );
        let secrets = &partial.counts.secrets;
        assert_eq!(
            (secrets.read, secrets.absent, secrets.unknown),
            (0, 0, 7),
            "{partial:#?}"
        );
        assert!(
            partial
                .not_observed
                .iter()
                .any(|line| line.contains("shop/gone")),
            "{partial:#?}"
        );
    }

    // Deployments alone, in one namespace: what service accounts give is not known.
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "part"},
                "rules": [{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["list"]},
                          {"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["gone", "good"], "verbs": ["get"]}]}),
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "part"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "part"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "node"}]}),
    );
    let part = document(&lint(&cluster, "node", &["-n", "shop", "-o", "json"])).lint;
    assert_eq!(
        reported(&part),
        [
            "eip_annotation_invalid shop Deployment/eip",
            "secret_missing shop Deployment/gone"
        ],
        "{part:#?}"
    );
    for what in [
        "serviceaccounts in namespace shop: the API server forbids it",
        "statefulsets.apps in namespace shop",
        "shop/opaque",
    ] {
        assert!(
            part.not_observed.iter().any(|line| line.contains(what)),
            "{what}: {part:#?}"
        );
    }
}

async fn follow(
    cluster: &Cluster,
    user: &str,
    scope: Scope,
    access: Access,
) -> (watch::Receiver<Arc<Snapshot>>, CancellationToken) {
    let client = connect(Some(&cluster.kubeconfig(user)), None)
        .await
        .unwrap();
    let stop = CancellationToken::new();
    (start(client, scope, access, stop.clone()), stop)
}

async fn until(
    what: &str,
    view: &mut watch::Receiver<Arc<Snapshot>>,
    holds: impl Fn(&Snapshot) -> bool,
) {
    let found = tokio::time::timeout(
        Duration::from_mins(2),
        view.wait_for(|snapshot| holds(snapshot)),
    )
    .await;
    assert!(found.is_ok(), "{what}: it did not come");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changes_is_reported_and_what_can_t_be_observed_stays_unknown() {
    let mut cluster = shop_and_bank();
    cluster.allow("cluster", &json!(and_secrets()));
    let (mut view, stop) = follow(&cluster, "cluster", Scope::default(), Access::Discovered).await;
    until("all of it", &mut view, |snapshot| reported(snapshot) == ALL).await;

    // Fixed one after the other, by their owners.
    secret(&cluster, "shop", "gone", "reg.example.com");
    cluster.ask(
        "PATCH",
        "/api/v1/namespaces/shop/secrets/odd",
        Some(&json!({"data": {".dockerconfigjson": encoded("reg.example.com")}})),
    );
    let mut left: BTreeSet<&str> = ALL.into();
    left.remove("secret_missing shop Deployment/gone");
    left.remove("secret_key_mismatch shop DaemonSet/odd");
    let want: Vec<&str> = left.iter().copied().collect();
    until("what was fixed is gone", &mut view, |snapshot| {
        reported(snapshot) == want
    })
    .await;
    cluster.ask("DELETE", "/api/v1/namespaces/shop/secrets/gone", None);
    left.insert("secret_missing shop Deployment/gone");
    let want: Vec<&str> = left.iter().copied().collect();
    until("what was taken away", &mut view, |snapshot| {
        reported(snapshot) == want
    })
    .await;

    // No server answers: the known findings stay, and that is reported.
    cluster.stop_server();
    until("that no server answers", &mut view, |snapshot| {
        snapshot
            .not_observed
            .iter()
            .any(|line| line.starts_with("deployments.apps: not readable since"))
    })
    .await;
    assert_eq!(reported(&view.borrow()), want);
    cluster.start_server();
    cluster.compact();
    cluster.ask(
        "DELETE",
        "/apis/apps/v1/namespaces/shop/deployments/robot",
        None,
    );
    left.remove("service_account_missing shop Deployment/robot");
    let want: Vec<&str> = left.iter().copied().collect();
    until("what has changed meanwhile", &mut view, |snapshot| {
        reported(snapshot) == want && snapshot.not_observed.len() == 1
    })
    .await;
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_named_secrets_only_these_are_requested() {
    let cluster = shop_and_bank();
    cluster.allow("cluster", &json!(rules_for_workloads()));
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/roles",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "named"},
                "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["gone", "odd"],
                           "verbs": ["list"]}]}),
    );
    cluster.create(
        "/apis/rbac.authorization.k8s.io/v1/namespaces/shop/rolebindings",
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "named"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "named"},
                "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "cluster"}]}),
    );
    let key = |name: &str| SecretKey {
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    };
    let scope = Scope {
        namespaces: vec!["shop".to_owned()],
        ..Scope::default()
    };
    let named = Access::Named(["gone", "odd"].map(key).into());
    let (mut view, stop) = follow(&cluster, "cluster", scope, named).await;
    until("what named Secrets show", &mut view, |snapshot| {
        reported(snapshot)
            == [
                "eip_annotation_invalid shop Deployment/eip",
                "secret_key_mismatch shop DaemonSet/odd",
                "secret_missing shop Deployment/gone",
                "service_account_missing shop Deployment/robot",
            ]
    })
    .await;
    let snapshot = Arc::clone(&view.borrow());
    assert_eq!(snapshot.counts.secrets.unknown, 4, "{snapshot:#?}");
    stop.cancel();
}
