//! Pullpath on the node as its manifests install it. Nothing turns a DaemonSet and a Deployment into pods here, so the
//! test does, from their templates.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::kube::Cluster;
use crate::lab::process::run;
use crate::node::NODE;
use crate::operated::eventually_within;
use crate::servers::{LOOPBACK, OWN};

/// The namespace of the manifests.
pub const NAMESPACE: &str = "pullpath";

/// The parts of the manifests that this node has.
const COMPONENTS: &[&str] = &[
    "pod-events",
    "node-files",
    "secrets-discovered",
    "ask",
    "lint",
];

/// Often, as the test waits for it; the rest is as in docs/install.md for a node whose files are mounted.
const DAEMON: &str = r#"
listen: ":9797"
admin_listen: "127.0.0.1:9798"
log: {level: debug}
network:
  host_root: /host
  node_ca_bundle: /host/etc/ssl/certs/ca-certificates.crt
  proxy_from: [/host/etc/systemd/system/containerd.service.d]
  containerd_config: /etc/containerd/config.toml
  kubelet_docker_config: none
  kubelet_credential_providers: /etc/containerd/credential-providers.yaml
  metadata: "off"
kubernetes:
  discover: node
  secrets: discovered
  events: pods
  max_targets: 100
  # The lab has its registries on the node.
  local_registries: [
    open.lab.test:443, priv.lab.test:443, prov.lab.test:443, token.lab.test:443, auth.lab.test:443,
    redir.lab.test:443, blob.lab.test:443, slow.lab.test:443, unk.lab.test:443, old.lab.test:443,
    skip.lab.test:443, skiptop.lab.test:443, silent.lab.test:443, closed.lab.test:443,
    mirrored.lab.test:443,
    "plain.lab.test:5000", "127.0.0.1:5000", "127.0.0.3:5443"]
on_demand: {per_minute: 60}
schedule: {reach: 30s, transfer: "off", first_check: 5s}
budgets: {registry_requests_per_minute: 1200}
"#;

const CLUSTER: &str = r#"
listen: ":9797"
kubernetes: {secrets: discovered}
cluster: {lease_name: pullpath-cluster, events: "on", lint: "on"}
"#;

/// What `kubectl apply -k` would send.
fn objects(folder: &Path) -> Vec<Value> {
    let at = folder.join("install");
    fs::create_dir(&at).unwrap();
    fs::write(at.join("node.yaml"), DAEMON).unwrap();
    fs::write(at.join("cluster.yaml"), CLUSTER).unwrap();
    // kustomize takes no absolute paths.
    let up = "../".repeat(at.canonicalize().unwrap().components().count() - 1);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let deploy = format!("{up}{}/deploy", root.strip_prefix("/").unwrap().display());
    let components: Vec<String> = COMPONENTS
        .iter()
        .map(|name| format!("{deploy}/components/{name}"))
        .collect();
    let config = |name: &str, file: &str| json!({"name": name, "namespace": NAMESPACE, "behavior": "replace", "files": [format!("pullpath.yaml={file}")]});
    let whole = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization",
        "resources": [format!("{deploy}/overlays/any")], "components": components,
        "images": [{"name": "registry.example.com/pullpath/pullpath", "newName": format!("{LOOPBACK}/{OWN}"), "newTag": "1"}],
        "configMapGenerator": [config("pullpath", "node.yaml"), config("pullpath-cluster", "cluster.yaml")],
        "generatorOptions": {"disableNameSuffixHash": true}});
    fs::write(at.join("kustomization.yaml"), whole.to_string()).unwrap();
    let tools = run(&mut Command::new("tests/shipped/tools"));
    let text = run(Command::new(Path::new(tools.trim()).join("kubectl"))
        .arg("kustomize")
        .arg(&at));
    text.split("\n---\n")
        .map(|document| serde_saphyr::from_str(document).unwrap())
        .collect()
}

/// The path that objects like this one are created at.
fn collection(object: &Value) -> String {
    let version = object["apiVersion"].as_str().unwrap();
    let group = if version == "v1" {
        "api/v1".to_owned()
    } else {
        format!("apis/{version}")
    };
    let kind = object["kind"].as_str().unwrap().to_lowercase();
    let plural = if kind.ends_with("class") {
        format!("{kind}es")
    } else {
        format!("{kind}s")
    };
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("/{group}/namespaces/{namespace}/{plural}"),
        None => format!("/{group}/{plural}"),
    }
}

pub fn create(cluster: &Cluster, object: &Value) -> Value {
    cluster.create(&collection(object), object)
}

/// What the controllers put in each namespace, by which a pod knows the API server.
pub fn root_authority(cluster: &Cluster, namespace: &str) {
    let certificate = fs::read_to_string(cluster.authority()).unwrap();
    create(
        cluster,
        &json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-root-ca.crt", "namespace": namespace},
                "data": {"ca.crt": certificate}}),
    );
}

/// Applies the manifests and makes their pods.
pub fn install(cluster: &Cluster, folder: &Path) {
    let mut templates = Vec::new();
    for object in objects(folder) {
        let made = create(cluster, &object);
        let kind = object["kind"].as_str().unwrap();
        if ["DaemonSet", "Deployment"].contains(&kind) {
            templates.push(made);
        }
    }
    root_authority(cluster, NAMESPACE);
    // docs/lint.md: the binding that lets the cluster role read Secrets, too.
    let subject =
        |name: &str| json!({"kind": "ServiceAccount", "name": name, "namespace": NAMESPACE});
    bind(
        cluster,
        "ClusterRole",
        "pullpath-node-secrets",
        "pullpath-cluster-secrets",
        &subject("pullpath-cluster"),
    );
    // A person with the rights of components/ask.
    let person = json!({"kind": "User", "name": "person", "apiGroup": "rbac.authorization.k8s.io"});
    bind(
        cluster,
        "ClusterRole",
        "pullpath-ask",
        "person-asks",
        &person,
    );
    bind(cluster, "Role", "pullpath-ask", "person-asks", &person);
    for template in &templates {
        let replicas = template["spec"]["replicas"].as_u64().unwrap_or(1);
        for number in 0..replicas {
            create(cluster, &pod_of(template, number));
        }
    }
}

/// A pod as the controller of its owner makes it.
fn pod_of(owner: &Value, number: u64) -> Value {
    let mut spec = owner["spec"]["template"]["spec"].clone();
    spec["nodeName"] = NODE.into();
    let (kind, name) = (
        owner["kind"].clone(),
        owner["metadata"]["name"].as_str().unwrap(),
    );
    let reference = json!({"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": owner["metadata"]["uid"], "controller": true});
    let labels = &owner["spec"]["template"]["metadata"]["labels"];
    json!({"apiVersion": "v1", "kind": "Pod",
           "metadata": {"name": format!("{name}-{number}"), "namespace": NAMESPACE, "labels": labels, "ownerReferences": [reference]},
           "spec": spec})
}

fn bind(cluster: &Cluster, kind: &str, role: &str, name: &str, subject: &Value) {
    let mut metadata = json!({"name": name});
    if kind == "Role" {
        metadata["namespace"] = NAMESPACE.into();
    }
    create(
        cluster,
        &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"), "metadata": metadata,
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}, "subjects": [subject]}),
    );
}

pub fn pod(cluster: &Cluster, name: &str) -> Value {
    cluster.ask(
        "GET",
        &format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}"),
        None,
    )
}

/// The kubelet's own probes say so.
pub fn wait_until_ready(cluster: &Cluster, name: &str) {
    eventually_within(&format!("{name} is ready"), Duration::from_mins(3), || {
        let status = &pod(cluster, name)["status"];
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        conditions
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    });
}
