//! A real cluster API for a test: etcd and kube-apiserver on loopback, with RBAC. Nothing else runs: a test
//! plays the controllers, and the kubelet unless it starts real ones.

#![allow(dead_code, reason = "each test uses a part")]
#![allow(unreachable_pub, reason = "a module of several tests")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use jiff::Timestamp;
use nix::sys::signal::Signal;
use pullpath::kubernetes::client::connect;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::lab::free_port;
use crate::lab::process::{Process, run};

/// Ends with this.
pub struct Cluster {
    server: Option<Process>,
    etcd: Option<Process>,
    ports: Ports,
    /// Where the API server listens.
    address: &'static str,
    /// Names of the nodes that have a real kubelet.
    nodes: &'static [&'static str],
    /// Tokens of users, by name.
    users: Mutex<BTreeMap<String, String>>,
    /// Behind the processes, whose logs are read at their end.
    folder: TempDir,
}

/// One request, by the audit log.
#[derive(Clone, Debug)]
pub struct Asked {
    pub group: String,
    pub resource: String,
    pub verb: String,
    pub namespace: String,
    pub name: String,
    pub uri: String,
    pub status: u64,
}

#[derive(Clone, Copy)]
struct Ports {
    api: u16,
    etcd: u16,
    peers: u16,
}

/// A user with all rights.
pub const ADMIN: &str = "admin";

/// Those whom tests give rights by RBAC.
pub const USERS: &[&str] = &["node", "cluster", "person", "nobody"];

/// The address of the Service `kubernetes`: the first of its range.
pub const API: &str = "10.96.0.1";

/// The user of a node's kubelet.
pub fn kubelet_of(node: &str) -> String {
    format!("system:node:{node}")
}

impl Cluster {
    pub fn start() -> Self {
        Self::start_at("127.0.0.1", free_port(), &[])
    }

    /// One with real kubelets. Its server has the address of the Service `kubernetes`, so pods need no kube-proxy.
    pub fn with_kubelets(nodes: &'static [&'static str]) -> Self {
        Self::start_at(API, 443, nodes)
    }

    /// One at the address of the Service `kubernetes`, which the machine of this test has to have. The test plays the
    /// kubelets.
    pub fn at_the_service() -> Self {
        Self::start_at(API, 443, &[])
    }

    fn start_at(address: &'static str, api: u16, nodes: &'static [&'static str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ports = Ports {
            api,
            etcd: free_port(),
            peers: free_port(),
        };
        let path = |name: &str| folder.path().join(name);
        let key = path("service-accounts.pem");
        run(Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(&key)
            .arg("2048"));
        let kubelets = nodes.iter().map(|node| kubelet_of(node));
        let people = std::iter::once(&ADMIN).chain(USERS);
        let users: BTreeMap<String, String> = people
            .map(|name| (*name).to_owned())
            .chain(kubelets)
            .map(|name| (name.clone(), format!("token-of-{name}-{}", ports.api)))
            .collect();
        let tokens: Vec<String> = users
            .iter()
            .map(|(name, token)| {
                let group = match name.as_str() {
                    ADMIN => "system:masters",
                    name if name.starts_with("system:node:") => "system:nodes",
                    _ => "people",
                };
                format!("{token},{name},{name},\"{group}\"\n")
            })
            .collect();
        fs::write(path("tokens.csv"), tokens.concat()).unwrap();
        let mut cluster = Self {
            etcd: None,
            server: None,
            ports,
            address,
            nodes,
            users: Mutex::new(users),
            folder,
        };
        cluster.start_etcd();
        cluster.start_server();
        cluster
    }

    fn start_etcd(&mut self) {
        let Ports { etcd, peers, .. } = self.ports;
        let mut command = Command::new("etcd");
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("etcd"))
            .args(["--listen-client-urls", &format!("http://127.0.0.1:{etcd}")])
            .args([
                "--advertise-client-urls",
                &format!("http://127.0.0.1:{etcd}"),
            ])
            .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peers}")])
            .args([
                "--initial-advertise-peer-urls",
                &format!("http://127.0.0.1:{peers}"),
            ])
            .args([
                "--initial-cluster",
                &format!("default=http://127.0.0.1:{peers}"),
            ])
            .args(["--log-level", "error"]);
        self.etcd = Some(Process::start("etcd", &mut command, self.folder.path()).listening(etcd));
    }

    /// Starts it, again after [`Cluster::stop_server`], and waits until it is ready.
    pub fn start_server(&mut self) {
        let Ports { api, etcd, .. } = self.ports;
        let path = |name: &str| self.folder.path().join(name);
        let key = path("service-accounts.pem");
        // Who asked for what, but for the test itself and the server's own.
        let policy = path("audit.yaml");
        let quiet =
            json!({"level": "None", "userGroups": ["system:masters", "system:unauthenticated"]});
        let rules = json!([quiet, {"level": "Metadata"}]);
        let whole = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "omitStages": ["RequestReceived"], "rules": rules});
        fs::write(&policy, whole.to_string()).unwrap();
        let mut command = Command::new(built("kube-apiserver"));
        command
            .args(["--etcd-servers", &format!("http://127.0.0.1:{etcd}")])
            .args(["--bind-address", self.address])
            .args(["--advertise-address", self.address])
            .args(["--secure-port", &api.to_string(), "--insecure-port", "0"])
            .arg("--cert-dir")
            .arg(path("server"))
            .arg("--token-auth-file")
            .arg(path("tokens.csv"))
            .args(self.authorization())
            .args(["--service-cluster-ip-range", "10.96.0.0/24"])
            .args(["--service-account-issuer", "https://kubernetes.default.svc"])
            .arg("--service-account-key-file")
            .arg(&key)
            .arg("--service-account-signing-key-file")
            .arg(&key)
            .arg("--audit-policy-file")
            .arg(&policy)
            .arg("--audit-log-path")
            .arg(path("audit.log"))
            .args(["--watch-cache-sizes", "pods#100,events#100"])
            .args(["--min-request-timeout", "300"]);
        let server = Process::start("kube-apiserver", &mut command, self.folder.path());
        self.server = Some(server);
        let begun = Instant::now();
        while !self.is_ready() {
            assert!(
                begun.elapsed() < Duration::from_mins(3),
                "kube-apiserver is not ready:\n{}",
                self.server.as_ref().map(Process::log).unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn authorization(&self) -> &'static [&'static str] {
        if self.nodes.is_empty() {
            return &["--authorization-mode", "RBAC"];
        }
        &[
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--feature-gates=BoundServiceAccountTokenVolume=true,RootCAConfigMap=true",
            "--kubelet-preferred-address-types=InternalIP",
            "--allow-privileged",
        ]
    }

    /// etcd forgets all but what is there now, so that a watch from an earlier version gets 410.
    pub fn compact(&self) {
        let etcdctl = |args: &[&str]| {
            let endpoint = format!("http://127.0.0.1:{}", self.ports.etcd);
            run(Command::new("etcdctl")
                .env("ETCDCTL_API", "3")
                .args(["--endpoints", &endpoint])
                .args(args))
        };
        let status: Value =
            serde_json::from_str(&etcdctl(&["endpoint", "status", "-w", "json"])).unwrap();
        let revision = status[0]["Status"]["header"]["revision"].to_string();
        etcdctl(&["compact", &revision]);
    }

    /// As by a crash.
    pub fn stop_server(&mut self) {
        self.server = None;
    }

    /// Suspends the server: it accepts connections and says nothing.
    pub fn pause_server(&self, is_paused: bool) {
        let signal = if is_paused {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        self.server.as_ref().unwrap().signal(signal);
    }

    fn is_ready(&self) -> bool {
        let answer = self.curl(ADMIN, "GET", "/readyz", None);
        answer.is_some_and(|(status, _)| status == 200)
    }

    pub fn url(&self) -> String {
        format!("https://{}:{}", self.address, self.ports.api)
    }

    /// A kubeconfig of a user.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.folder.path().join(format!("{user}.kubeconfig"));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "test",
            "clusters": [{"name": "test", "cluster": {
                "server": self.url(), "certificate-authority": self.authority()}}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user}}],
        });
        fs::write(&path, config.to_string()).unwrap();
        path
    }

    /// Creates a pull Secret.
    pub fn create_pull_secret(&self, namespace: &str, name: &str, docker_config: &str) {
        self.create(
            &format!("/api/v1/namespaces/{namespace}/secrets"),
            &pull_secret(name, docker_config),
        );
    }

    /// The certificate that the server presents, its own authority.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("server/apiserver.crt")
    }

    fn token(&self, user: &str) -> String {
        self.users.lock().unwrap()[user].clone()
    }

    /// One request; `None` without an answer.
    pub fn curl(
        &self,
        user: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(u16, Value)> {
        let kind = if method == "PATCH" {
            "application/merge-patch+json"
        } else {
            "application/json"
        };
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--max-time", "20", "--request", method])
            .arg("--cacert")
            .arg(self.authority())
            .args(["--header", &format!("Content-Type: {kind}")])
            .args(["--write-out", "\n%{http_code}"])
            .arg(format!("{}{path}", self.url()));
        let file = body.map(|body| {
            let file = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
            fs::write(file.path(), body.to_string()).unwrap();
            file
        });
        if let Some(file) = &file {
            command
                .arg("--data-binary")
                .arg(format!("@{}", file.path().display()));
        }
        // Not on the command line, which anybody may read.
        let header = tempfile::NamedTempFile::new_in(self.folder.path()).unwrap();
        let line = format!("Authorization: Bearer {}\n", self.token(user));
        fs::write(header.path(), line).unwrap();
        command
            .arg("--header")
            .arg(format!("@{}", header.path().display()));
        let output = command.output().unwrap();
        let output = String::from_utf8(output.stdout).ok()?;
        let (text, status) = output.rsplit_once('\n')?;
        let value = serde_json::from_str(text).unwrap_or(Value::String(text.to_owned()));
        Some((status.parse().ok()?, value))
    }

    /// Of the administrator, and it must succeed.
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, value) = self
            .curl(ADMIN, method, path, body)
            .expect("the API server answers");
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {value}"
        );
        value
    }

    pub fn create(&self, path: &str, object: &Value) -> Value {
        self.ask("POST", path, Some(object))
    }

    /// A namespace with a default service account, as controllers make them.
    pub fn namespace(&self, name: &str, pull_secrets: &[&str]) {
        self.create(
            "/api/v1/namespaces",
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}),
        );
        let secrets: Vec<Value> = pull_secrets
            .iter()
            .map(|name| json!({"name": name}))
            .collect();
        self.create(
            &format!("/api/v1/namespaces/{name}/serviceaccounts"),
            &json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
                    "automountServiceAccountToken": false, "imagePullSecrets": secrets}),
        );
    }

    /// A service account's own token, by its name a user from now on.
    pub fn service_account(&self, namespace: &str, name: &str) -> String {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token");
        let request =
            json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
        let made = self.create(&path, &request);
        let token = made["status"]["token"].as_str().unwrap().to_owned();
        self.users.lock().unwrap().insert(name.to_owned(), token);
        format!("system:serviceaccount:{namespace}:{name}")
    }

    /// What somebody asked for until now, with the status of the answer.
    pub fn asked(&self, user: &str) -> Vec<Asked> {
        let log = fs::read_to_string(self.folder.path().join("audit.log")).unwrap_or_default();
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let of_user = lines.filter(|line: &Value| line["user"]["username"] == user);
        let asked = of_user.filter_map(|line| {
            let object = &line["objectRef"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let resource = text(&object["resource"]);
            let sub = object["subresource"].as_str();
            Some(Asked {
                group: text(&object["apiGroup"]),
                resource: sub.map_or(resource.clone(), |sub| format!("{resource}/{sub}")),
                verb: text(&line["verb"]),
                namespace: text(&object["namespace"]),
                name: text(&object["name"]),
                uri: text(&line["requestURI"]),
                status: line["responseStatus"]["code"].as_u64()?,
            })
        });
        asked.collect()
    }

    /// Gives a user rights in the whole cluster.
    pub fn allow(&self, user: &str, rules: &Value) {
        self.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles",
            &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                    "metadata": {"name": user}, "rules": rules}),
        );
        self.create(
            "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
            &json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
                    "metadata": {"name": user},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": user},
                    "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]}),
        );
    }

    /// An Event on a pod of `shop`, as a kubelet's recorder creates it in core/v1. The pod is what stands before
    /// the first dot of the Event's name.
    pub fn kubelet_says(
        &self,
        name: &str,
        node: &str,
        reason: &str,
        message: &str,
        seconds_ago: i64,
    ) {
        let pod = name.split('.').next().unwrap();
        let at = Timestamp::from_second(Timestamp::now().as_second() - seconds_ago).unwrap();
        let at = at.to_string();
        self.create(
            "/api/v1/namespaces/shop/events",
            &json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name},
                    "involvedObject": {"kind": "Pod", "namespace": "shop", "name": pod, "apiVersion": "v1",
                                       "fieldPath": "spec.containers{app}"},
                    "reason": reason, "message": message, "type": "Normal", "count": 1,
                    "source": {"component": "kubelet", "host": node},
                    "firstTimestamp": at, "lastTimestamp": at}),
        );
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Creates objects of one kind, some at a time: a process for each, as elsewhere, would take minutes.
/// `{}` in the path stands for their namespace.
pub async fn create_all(cluster: &Cluster, path: &str, objects: Vec<Value>) {
    let client = connect(Some(&cluster.kubeconfig(ADMIN)), None)
        .await
        .unwrap();
    let requests = objects.into_iter().map(|object| {
        let namespace = object["metadata"]["namespace"].as_str().unwrap();
        let uri = path.replace("{}", namespace);
        let request = http::Request::post(uri)
            .header("Content-Type", "application/json")
            .body(object.to_string().into_bytes())
            .unwrap();
        let client = client.clone();
        async move {
            let _: Value = client.request(request).await.unwrap();
        }
    });
    futures_util::stream::iter(requests)
        .buffer_unordered(16)
        .collect::<Vec<()>>()
        .await;
}

/// The manifest of a pull Secret.
pub fn pull_secret(name: &str, docker_config: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
           "type": "kubernetes.io/dockerconfigjson",
           "data": {".dockerconfigjson": BASE64_STANDARD.encode(docker_config)}})
}

/// A program of Kubernetes, built once, outside of the tree.
pub fn built(program: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kube/build");
        let output = run(&mut Command::new(script));
        PathBuf::from(output.trim())
    });
    folder.join(program)
}
