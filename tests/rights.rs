//! The rights as they are shipped (deploy/): the programs run under them with real service accounts, are
//! refused nothing, and nothing is granted that they do not use. The API server's audit log proves it.

#![allow(clippy::unwrap_used, reason = "this is test code")]

#[path = "kube/mod.rs"]
mod kube;
mod lab;
mod operated;
#[path = "kube/played.rs"]
mod played;
mod support;

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::{Asked, Cluster};
use operated::{Daemon, eventually_within};
use played::{kubelet_says, pod, secret};
use pullpath::config::Config;
use pullpath::doctor::{Check, Part, Role, State, rights};
use pullpath::report::doctor::DoctorDocument;
use serde_json::{Value, json};
use support::{PASSWORD, World};
use tempfile::TempDir;

const SOON: Duration = Duration::from_mins(1);

fn documents(file: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{file}: {error}"));
    let documents = text.split("\n---\n");
    documents
        .map(|one| serde_saphyr::from_str(one).unwrap_or_else(|error| panic!("{file}: {error}")))
        .collect()
}

/// As `kubectl apply -k` does it, for accounts and rights.
fn apply(cluster: &Cluster, files: &[&str]) {
    for object in files.iter().flat_map(|file| documents(file)) {
        let namespace = object["metadata"]["namespace"]
            .as_str()
            .unwrap_or("pullpath");
        let rbac = "/apis/rbac.authorization.k8s.io/v1";
        let path = match object["kind"].as_str().unwrap() {
            "Namespace" => "/api/v1/namespaces".to_owned(),
            "ServiceAccount" => format!("/api/v1/namespaces/{namespace}/serviceaccounts"),
            "ClusterRole" => format!("{rbac}/clusterroles"),
            "ClusterRoleBinding" => format!("{rbac}/clusterrolebindings"),
            "Role" => format!("{rbac}/namespaces/{namespace}/roles"),
            "RoleBinding" => format!("{rbac}/namespaces/{namespace}/rolebindings"),
            kind => panic!("{kind} is neither an account nor a right"),
        };
        cluster.create(&path, &object);
    }
}

type Right = (String, String, String);

/// All that the files grant.
fn granted(files: &[&str]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    let list = |value: &Value| -> Vec<String> {
        let values = value.as_array().unwrap().iter();
        values.map(|one| one.as_str().unwrap().to_owned()).collect()
    };
    for object in files.iter().flat_map(|file| documents(file)) {
        for rule in object["rules"].as_array().into_iter().flatten() {
            for group in list(&rule["apiGroups"]) {
                for resource in list(&rule["resources"]) {
                    for verb in list(&rule["verbs"]) {
                        rights.insert((group.clone(), resource.clone(), verb));
                    }
                }
            }
        }
    }
    rights
}

fn used(asked: &[Asked]) -> BTreeSet<Right> {
    let of_resources = asked.iter().filter(|one| !one.resource.is_empty());
    of_resources
        .map(|one| (one.group.clone(), one.resource.clone(), one.verb.clone()))
        .collect()
}

/// The audit log has the program's watches once they end; then nothing was refused, and what was used is what
/// is granted. `unused` can't be used here, for the reason beside.
fn hold(
    cluster: &Cluster,
    user: &str,
    daemon: Daemon,
    files: &[&str],
    unused: &[(&str, &str, &str)],
) {
    let mut granted = granted(files);
    for (group, resource, verb) in unused {
        let right = (
            (*group).to_owned(),
            (*resource).to_owned(),
            (*verb).to_owned(),
        );
        assert!(granted.remove(&right), "{right:?} is not granted at all");
    }
    let wait_for = |is_meant: &dyn Fn(&Right) -> bool| {
        let missing = || {
            let now = used(&cluster.asked(user));
            let missing = granted.difference(&now).filter(|right| is_meant(right));
            missing.cloned().collect::<Vec<_>>()
        };
        let end = Instant::now() + Duration::from_mins(2);
        while !missing().is_empty() {
            assert!(
                Instant::now() < end,
                "granted and not used: {:?}",
                missing()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    };
    wait_for(&|right| right.2 != "watch");
    // A watch begins when its list has ended.
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(daemon.stop(), Some(0));
    wait_for(&|_| true);
    let asked = cluster.asked(user);
    let refused: Vec<&Asked> = asked.iter().filter(|one| one.status == 403).collect();
    assert!(refused.is_empty(), "{refused:#?}");
    let more: Vec<Right> = used(&asked).difference(&granted).cloned().collect();
    let known: Vec<Right> = unused
        .iter()
        .map(|(group, resource, verb)| {
            (
                (*group).to_owned(),
                (*resource).to_owned(),
                (*verb).to_owned(),
            )
        })
        .collect();
    assert!(more.iter().all(|right| known.contains(right)), "{more:?}");
}

/// A namespace with a pod that waits for its image, and the Secret that it names.
fn prepared(world: &World) -> Cluster {
    let cluster = Cluster::start();
    for namespace in ["pullpath", "shop"] {
        cluster.namespace(namespace, &[]);
    }
    cluster.create(
        "/api/v1/nodes",
        &json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}),
    );
    secret(&cluster, world, "shop", "pull", "wrong");
    secret(&cluster, world, "shop", "unused", PASSWORD);
    let image = world.reference();
    pod(&cluster, "shop", "a", "n1", &image, &["pull"]);
    kubelet_says(&cluster, "shop", "a", &image, Some("ImagePullBackOff"));
    cluster
}

fn node_config(world: &World, cluster: &Cluster, more: &str) -> String {
    let (target, _) = operated::target(world, "mine", PASSWORD);
    format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\nvantage: {{node: n1}}\n\
         network: {{nameservers: ['{}'], ca_files: ['{}'], metadata: off}}\nschedule: {{reach: 10s}}\n\
         kubernetes:\n  discover: node\n  kubeconfig: '{}'\n{}\n{more}\ntargets:\n{target}\n",
        world.nameserver(),
        world.ca.file().display(),
        cluster.kubeconfig("pullpath-node").display(),
        world.local_registries(),
    )
}

/// `pullpath doctor` requires what the manifests grant for the same keys, no more and no less.
#[test]
fn the_doctor_requires_the_rights_that_are_shipped() {
    let named = "kubernetes: {secrets: named, named_secrets: [{namespace: shop, names: [pull]}]}";
    for (role, config, files) in [
        (
            Role::Node,
            "kubernetes: {discover: node}",
            &["base/node/rbac.yaml"][..],
        ),
        (Role::Node, named, &["components/secrets-named/rbac.yaml"]),
        (
            Role::Node,
            "kubernetes: {secrets: discovered}",
            &["components/secrets-discovered/rbac.yaml"],
        ),
        (
            Role::Node,
            "kubernetes: {discover: node, events: pods}",
            &["base/node/rbac.yaml", "components/pod-events/rbac.yaml"],
        ),
        (
            Role::Node,
            "spread: {transfers: leases}",
            &["components/spread/rbac.yaml"],
        ),
        (Role::Cluster, "", &["base/cluster/rbac.yaml"]),
        (
            Role::Cluster,
            "cluster: {lint: on}",
            &["base/cluster/rbac.yaml", "components/lint/rbac.yaml"],
        ),
    ] {
        let needs = rights::needs(&Config::parse(config).unwrap(), role, "pullpath");
        let needed: BTreeSet<Right> = needs
            .into_iter()
            .flat_map(|need| need.rights)
            .map(|right| {
                (
                    right.group.to_owned(),
                    right.resource.to_owned(),
                    right.verb.to_owned(),
                )
            })
            .collect();
        assert_eq!(needed, granted(files), "{config}");
    }
}

/// The doctor under a real API server: what a key needs and the account lacks is named, until it is granted.
#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_names_a_missing_right_and_what_grants_it() {
    let world = World::healthy().await;
    let cluster = prepared(&world);
    let base = ["base/node/serviceaccount.yaml", "base/node/rbac.yaml"];
    apply(&cluster, &base);
    cluster.service_account("pullpath", "pullpath-node");
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("c.yaml");
    let with = |text: &str| {
        std::fs::write(&file, text).unwrap();
        let run = Command::new(operated::program())
            .args(["doctor", "-o", "json", "--timeout", "30s", "--config"])
            .arg(&file)
            .env_clear()
            .output()
            .unwrap();
        let document: DoctorDocument = serde_json::from_slice(&run.stdout).unwrap();
        (run.status.code(), document.checks)
    };
    let doctor = |more: &str| with(&node_config(&world, &cluster, more));
    let of = |checks: &[Check], part: Part| {
        let of_part = checks.iter().filter(|check| check.part == part);
        of_part.cloned().collect::<Vec<_>>()
    };
    let (code, checks) = doctor("");
    assert_eq!(code, Some(0), "{checks:#?}");
    for part in [Part::ApiServer, Part::Rights, Part::Clock] {
        let of_part = of(&checks, part);
        assert_eq!(of_part.len(), 1, "{checks:#?}");
        assert_eq!(of_part[0].state, State::Ok, "{checks:#?}");
    }

    let more = "  events: pods\n  secrets: named\n  named_secrets: [{namespace: shop, names: [pull]}]\n\
                spread: {transfers: leases, namespace: pullpath-spread}";
    let (code, checks) = doctor(more);
    assert_eq!(code, Some(1), "{checks:#?}");
    let rights = of(&checks, Part::Rights);
    let all = |part: fn(&Check) -> &str| rights.iter().map(part).collect::<Vec<_>>().join("\n");
    let (texts, fixes) = (
        all(|check| &check.text),
        all(|check| check.fix.as_deref().unwrap_or_default()),
    );
    for missing in [
        "create, patch events",
        "list, watch secrets pull in namespace shop",
        "get, create, update leases in namespace pullpath-spread",
    ] {
        assert!(texts.contains(missing), "{texts}");
    }
    for component in ["pod-events", "secrets-named", "spread"] {
        assert!(
            fixes.contains(&format!("components/{component}")),
            "{fixes}"
        );
    }
    apply(
        &cluster,
        &[
            "components/secrets-named/rbac.yaml",
            "components/pod-events/rbac.yaml",
            "components/spread/namespace.yaml",
            "components/spread/rbac.yaml",
        ],
    );
    // The API server learns of new rights from its own watch.
    eventually_within("the new rights", SOON, || doctor(more).0 == Some(0));

    let (code, checks) = doctor("  node: 'off'\n#");
    assert_eq!(code, Some(0), "{checks:#?}");
    let kubeconfig = cluster.kubeconfig("pullpath-node").display().to_string();
    let other = node_config(&world, &cluster, "").replace(&kubeconfig, "/nonexistent");
    let (code, checks) = with(&other);
    assert_eq!(code, Some(1), "{checks:#?}");
    let server = of(&checks, Part::ApiServer);
    assert_eq!(server[0].state, State::Problem, "{checks:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_s_daemon_uses_the_rights_that_it_is_shipped_with_and_no_others() {
    let files = [
        "base/node/serviceaccount.yaml",
        "base/node/rbac.yaml",
        "components/secrets-named/rbac.yaml",
        "components/pod-events/rbac.yaml",
        "components/spread/namespace.yaml",
        "components/spread/rbac.yaml",
    ];
    let world = World::healthy().await;
    let cluster = prepared(&world);
    apply(&cluster, &files);
    let user = cluster.service_account("pullpath", "pullpath-node");
    let more = "  secrets: named\n  named_secrets: [{namespace: shop, names: [pull]}]\n  events: pods\n\
                spread: {transfers: leases, epoch: 12s, namespace: pullpath-spread}\nbudgets: {transfer_bytes: 64KiB}";
    let config = node_config(&world, &cluster, more);
    let published = || {
        let asked = cluster.asked(&user);
        asked
            .iter()
            .any(|one| one.resource == "events" && one.verb == "create")
    };
    let daemon = Daemon::start(&config);
    eventually_within("an Event on the pod", SOON, published);
    assert_eq!(daemon.stop(), Some(0));
    // After a restart the same is said again, and counts at the Event that is there.
    let daemon = Daemon::start(&config);
    hold(&cluster, &user, daemon, &files, &[]);
    // It can't write the cluster role's Lease.
    let leases = documents("components/spread/rbac.yaml");
    assert!(
        leases
            .iter()
            .all(|object| object["metadata"]["namespace"] == "pullpath-spread")
    );
    // Of Secrets only the one that is named, of Nodes its own, of pods those of its node.
    for one in cluster.asked(&user) {
        match one.resource.as_str() {
            "secrets" => assert_eq!((&*one.namespace, &*one.name), ("shop", "pull"), "{one:?}"),
            "nodes" => assert!(one.uri.contains("metadata.name%3Dn1"), "{one:?}"),
            "pods" => assert!(one.uri.contains("spec.nodeName%3Dn1"), "{one:?}"),
            "leases" => assert_eq!(one.namespace, "pullpath-spread", "{one:?}"),
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_all_secrets_allowed_those_are_read_that_a_target_needs() {
    let files = [
        "base/node/serviceaccount.yaml",
        "base/node/rbac.yaml",
        "components/secrets-discovered/rbac.yaml",
    ];
    let world = World::healthy().await;
    let cluster = prepared(&world);
    apply(&cluster, &files);
    let user = cluster.service_account("pullpath", "pullpath-node");
    let daemon = Daemon::start(&node_config(&world, &cluster, "  secrets: discovered"));
    hold(&cluster, &user, daemon, &files, &[]);
    let secrets: BTreeSet<String> = cluster
        .asked(&user)
        .iter()
        .filter(|one| one.resource == "secrets")
        .map(|one| format!("{}/{}", one.namespace, one.name))
        .collect();
    assert_eq!(secrets, BTreeSet::from(["shop/pull".to_owned()]));
}

#[test]
fn the_cluster_role_uses_the_rights_that_it_is_shipped_with_and_no_others() {
    let files = [
        "base/cluster/serviceaccount.yaml",
        "base/cluster/rbac.yaml",
        "components/lint/rbac.yaml",
    ];
    let cluster = Cluster::start();
    for namespace in ["pullpath", "shop"] {
        cluster.namespace(namespace, &[]);
    }
    apply(&cluster, &files);
    cluster.create(
        "/apis/apps/v1/namespaces/shop/deployments",
        &json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
                "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
                    "metadata": {"labels": {"app": "web"}},
                    "spec": {"imagePullSecrets": [{"name": "nobody-has-it"}],
                             "containers": [{"name": "app", "image": "registry.example.com/shop/web:1"}]}}}}),
    );
    let user = cluster.service_account("pullpath", "pullpath-cluster");
    let config = format!(
        "listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\nkubernetes: {{kubeconfig: '{}'}}\n\
         cluster: {{namespace: pullpath, lease_duration: 6s, lint: on}}\n",
        cluster.kubeconfig("pullpath-cluster").display()
    );
    let folder = Arc::new(TempDir::new().unwrap());
    let daemon = Daemon::start_as(&["cluster", "--identity", "a"], &config, folder);
    // Without a right to Secrets nothing is said to be missing, and that they were not observed is.
    eventually_within("a check of workloads", SOON, || {
        daemon
            .metrics()
            .value("pullpath_workload_lint_unread")
            .is_some()
    });
    let found = daemon.get("/api/v1/lint");
    assert_eq!(found.status, 200, "{found:?}");
    let found: Value = serde_json::from_str(&found.body).unwrap();
    assert_eq!(found["counts"]["workloads"]["Deployment"], 1, "{found:#}");
    assert!(
        !found["not_observed"].as_array().unwrap().is_empty(),
        "{found:#}"
    );
    let page = daemon.get("/").body;
    assert!(page.contains("Workloads, checked before a pull"), "{page}");
    // This API server (1.20) has CronJobs at v1beta1 only: at v1 there is nothing to watch.
    hold(
        &cluster,
        &user,
        daemon,
        &files,
        &[("batch", "cronjobs", "watch")],
    );
}
