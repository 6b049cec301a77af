//! The API server beside the daemon, with the pods of a shop, and those of a tenant that wants everything.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::kube::{Cluster, create_all};
use crate::kube_played::{kubelet_says, pod, secret_with};
use crate::node::FORBIDDEN;
use crate::support::{PASSWORD, TAG, USER, World};

pub struct Api {
    cluster: Cluster,
    crowds: usize,
    events: usize,
}

const RBAC: &str = "/apis/rbac.authorization.k8s.io/v1";

/// Images of the tenant that wait, and pull Secrets that it has.
const WAITING: usize = 60;

impl Api {
    pub fn start(good: &World) -> Self {
        let cluster = Cluster::at_the_service();
        for namespace in ["pullpath", "shop"] {
            cluster.namespace(namespace, &[]);
        }
        let all = |verbs: &[&str], group: &str, resources: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
        let leases = all(
            &["get", "create", "update"],
            "coordination.k8s.io",
            &["leases"],
        );
        cluster.allow(
            "node",
            &json!([
                all(&["get", "list", "watch"], "", &["pods", "secrets", "nodes"]),
                all(&["create", "patch"], "", &["events"]),
                leases
            ]),
        );
        cluster.allow(
            "cluster",
            &json!([
                all(
                    &["get", "list", "watch"],
                    "",
                    &["pods", "secrets", "events", "serviceaccounts"]
                ),
                all(
                    &["list", "watch"],
                    "apps",
                    &["deployments", "replicasets", "statefulsets", "daemonsets"]
                ),
                all(&["list", "watch"], "batch", &["jobs", "cronjobs"]),
                leases
            ]),
        );
        let shop = format!("{}/shop/web:{TAG}", good.registry_host());
        secret_with(&cluster, "shop", "regcred", &Self::secret(good));
        pod(&cluster, "shop", "web", "n1", &shop, &["regcred"]);
        kubelet_says(&cluster, "shop", "web", &shop, Some("ImagePullBackOff"));
        Self {
            cluster,
            crowds: 0,
            events: 0,
        }
    }

    fn secret(good: &World) -> String {
        let config = World::docker_config(&good.registry_host(), USER, PASSWORD);
        crate::kube_played::encoded(&config)
    }

    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        self.cluster.kubeconfig(user)
    }

    pub fn stop(&mut self) {
        self.cluster.stop_server();
    }

    pub fn start_again(&mut self) {
        self.cluster.start_server();
    }

    pub fn pause(&self, is_paused: bool) {
        self.cluster.pause_server(is_paused);
    }

    /// Takes all rights of the daemon away, or gives them back.
    pub fn forbid(&self, is_forbidden: bool) {
        let path = format!("{RBAC}/clusterrolebindings");
        if is_forbidden {
            self.cluster.ask("DELETE", &format!("{path}/node"), None);
            return;
        }
        self.cluster.create(
            &path,
            &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                    "metadata": {"name": "node"},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "node"},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "node"}]}),
        );
    }

    fn leases() -> &'static str {
        "/apis/coordination.k8s.io/v1/namespaces/pullpath/leases"
    }

    /// Another one holds the Lease of the cluster role, and those of transfer tests are gone.
    pub fn take_leases(&self) {
        let all = self.cluster.ask("GET", Self::leases(), None);
        for lease in all["items"].as_array().unwrap() {
            let name = lease["metadata"]["name"].as_str().unwrap();
            let path = format!("{}/{name}", Self::leases());
            if name == "pullpath-cluster" {
                let stranger =
                    json!({"spec": {"holderIdentity": "stranger", "leaseDurationSeconds": 6}});
                self.cluster.ask("PATCH", &path, Some(&stranger));
            } else {
                self.cluster.ask("DELETE", &path, None);
            }
        }
    }

    /// A failed pull, as a kubelet reports it, with a password in its URL.
    pub fn report_failure(&mut self) {
        self.events += 1;
        let text = format!(
            "Failed to pull image \"registry.test/team/app:1\": failed to do request: Get \
             \"https://{USER}:{PASSWORD}@registry.test/v2/?sig={PASSWORD}\": dial tcp: lookup registry.test: no such host"
        );
        let name = format!("web-{}.1", self.events);
        self.cluster.kubelet_says(&name, "n1", "Failed", &text, 0);
    }

    /// A namespace whose 60 images wait, with `secrets` pull Secrets, and with images of the node's own loopback; the one
    /// before it goes.
    pub fn crowd(&mut self, runtime: &tokio::runtime::Handle, secrets: usize) {
        if self.crowds > 0 {
            let before = format!("/api/v1/namespaces/crowd-{}", self.crowds);
            self.cluster.ask(
                "DELETE",
                &format!("{before}/pods?gracePeriodSeconds=0"),
                None,
            );
            self.cluster
                .ask("DELETE", &format!("{before}/secrets"), None);
        }
        self.crowds += 1;
        let namespace = format!("crowd-{}", self.crowds);
        self.cluster.namespace(&namespace, &[]);
        let config = crate::kube_played::encoded(&World::docker_config("nx.test", USER, PASSWORD));
        let all = (0..secrets).map(|number| {
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("s{number}"), "namespace": namespace},
                   "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": config}})
        });
        let path = "/api/v1/namespaces/{}/secrets";
        runtime.block_on(create_all(&self.cluster, path, all.collect()));
        let image = |number: usize| match number % 10 {
            0 => format!("127.0.0.1:{FORBIDDEN}/x/i{number}:1"),
            1 => format!("localhost:{FORBIDDEN}/x/i{number}:1"),
            _ => format!("nx.test/{namespace}/i{number}:1"),
        };
        // Every Secret is named, 50 by each pod.
        let of_pod = secrets.div_ceil(WAITING);
        let pods = (0..WAITING).map(|number| {
            let named = (0..of_pod).map(|one| json!({"name": format!("s{}", number * of_pod + one)}));
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("p{number}"), "namespace": namespace},
                   "spec": {"nodeName": "n1", "imagePullSecrets": named.collect::<Vec<Value>>(),
                            "containers": [{"name": "app", "image": image(number)}]}})
        });
        let path = "/api/v1/namespaces/{}/pods";
        runtime.block_on(create_all(&self.cluster, path, pods.collect()));
        for number in 0..WAITING {
            let name = format!("p{number}");
            kubelet_says(
                &self.cluster,
                &namespace,
                &name,
                &image(number),
                Some("ImagePullBackOff"),
            );
        }
    }

    /// The texts of all Events.
    pub fn events(&self) -> String {
        self.cluster.ask("GET", "/api/v1/events", None).to_string()
    }
}
