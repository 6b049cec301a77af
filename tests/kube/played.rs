//! What kubelets and controllers do, as tests play it, and a daemon in a cluster beside a registry.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of several tests")]

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::kube::Cluster;
use crate::operated::{Daemon, quiet};
use crate::support::{USER, World};

/// The rights that `kubernetes.discover: node` needs, and no more.
pub fn rights_for_pods() -> Value {
    json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}])
}

pub fn config(world: &World, cluster: &Cluster, kubernetes: &str) -> String {
    let quiet = quiet(kubernetes);
    format!(
        "listen: 127.0.0.1:0\nadmin_listen: 127.0.0.1:0\nlog: {{format: json, level: debug}}\nvantage: {{node: n1}}\n\
         network: {{nameservers: ['{}'], ca_files: ['{}'], metadata: off}}\n\
         kubernetes:\n  discover: node\n  kubeconfig: '{}'\n{}\n{kubernetes}\n{quiet}\n",
        world.nameserver(),
        world.ca.file().display(),
        cluster.kubeconfig("node").display(),
        world.local_registries()
    )
}

/// A pod on a node, as after its scheduling.
pub fn pod(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    node: &str,
    image: &str,
    secrets: &[&str],
) {
    let secrets: Vec<Value> = secrets.iter().map(|name| json!({"name": name})).collect();
    cluster.create(
        &format!("/api/v1/namespaces/{namespace}/pods"),
        &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
                "spec": {"nodeName": node, "imagePullSecrets": secrets,
                         "containers": [{"name": "app", "image": image}]}}),
    );
}

/// What the kubelet reports of a pod's only container.
pub fn kubelet_says(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    image: &str,
    waiting: Option<&str>,
) {
    kubelet_says_with_message(
        cluster,
        namespace,
        name,
        image,
        waiting,
        "Back-off pulling image",
    );
}

/// The same in its own words.
pub fn kubelet_says_with_message(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    image: &str,
    waiting: Option<&str>,
    message: &str,
) {
    let state = match waiting {
        Some(reason) => json!({"waiting": {"reason": reason, "message": message}}),
        None => json!({"running": {}}),
    };
    let id = if waiting.is_some() { "" } else { "sha256:abc" };
    cluster.ask(
        "PATCH",
        &format!("/api/v1/namespaces/{namespace}/pods/{name}/status"),
        Some(&json!({"status": {"phase": if waiting.is_some() { "Pending" } else { "Running" },
            "containerStatuses": [{"name": "app", "image": image, "imageID": id, "ready": waiting.is_none(),
                                   "restartCount": 0, "state": state}]}})),
    );
}

/// As a Secret contains it.
pub fn encoded(docker_config: &str) -> String {
    BASE64_STANDARD.encode(docker_config)
}

pub fn docker_config(world: &World, password: &str) -> String {
    encoded(&World::docker_config(
        &world.registry_host(),
        USER,
        password,
    ))
}

pub fn secret(cluster: &Cluster, world: &World, namespace: &str, name: &str, password: &str) {
    secret_with(cluster, namespace, name, &docker_config(world, password));
}

pub fn secret_with(cluster: &Cluster, namespace: &str, name: &str, docker_config: &str) {
    cluster.create(
        &format!("/api/v1/namespaces/{namespace}/secrets"),
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
                "type": "kubernetes.io/dockerconfigjson",
                "data": {".dockerconfigjson": docker_config}}),
    );
}

/// Gives a user rights in one namespace, besides those it has.
pub fn allow_in(cluster: &Cluster, namespace: &str, user: &str, name: &str, rules: &Value) {
    let rbac = "rbac.authorization.k8s.io";
    let path = format!("/apis/{rbac}/v1/namespaces/{namespace}");
    cluster.create(
        &format!("{path}/roles"),
        &json!({"apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": name},
                "rules": rules}),
    );
    cluster.create(
        &format!("{path}/rolebindings"),
        &json!({"apiVersion": format!("{rbac}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
                "subjects": [{"apiGroup": rbac, "kind": "User", "name": user}]}),
    );
}

pub fn targets(daemon: &Daemon) -> Vec<Value> {
    serde_json::from_str(&daemon.get("/api/v1/targets").body).unwrap()
}

pub fn names(daemon: &Daemon) -> Vec<String> {
    let name = |target: &Value| target["name"].as_str().unwrap().to_owned();
    targets(daemon).iter().map(name).collect()
}

/// A target's name, as a URL contains it.
pub fn in_url(name: &str) -> String {
    name.replace('/', "%2F")
        .replace('@', "%40")
        .replace('+', "%2B")
}

/// The codes of an on-demand check of a target whose name is not for URLs.
pub fn codes(daemon: &Daemon, name: &str) -> Vec<&'static str> {
    daemon.codes(&in_url(name))
}
