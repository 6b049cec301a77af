//! The pods, one a line: what the kubelet makes of each, and what Pullpath has to say of it. The judge is the
//! kubelet: the test refuses a line that it does not confirm.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::node::NODE;
use crate::stack::{PASSWORD, USER};

/// The namespace of all pods, and one beside it.
pub const SHOP: &str = "shop";
pub const BANK: &str = "bank";

/// What becomes of the pod's image.
#[derive(Clone, Copy, Debug)]
pub enum Kubelet {
    Runs,
    /// A container waits for its image, and an Event has these words.
    Fails(&'static str),
}

/// One pod.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub image: &'static str,
    pub secrets: &'static [&'static str],
    pub account: &'static str,
    pub policy: Option<&'static str>,
    /// The image of an init container, and its arguments.
    pub init: Option<(&'static str, &'static [&'static str])>,
    pub kubelet: Kubelet,
    /// `pull` of the daemon's verdict; `None`: no registry is contacted, so there is no check.
    pub pull: Option<&'static str>,
    /// Causes of the daemon's verdict, the worst first; also those of `why`.
    pub causes: &'static [&'static str],
    /// The cause in the Event on the pod, and the one that the cluster role finds in the kubelet's messages.
    pub event: Option<&'static str>,
    pub cluster: Option<&'static str>,
    /// What `lint` finds at the pod or at the Secrets that it names.
    pub lint: &'static [&'static str],
    /// Of the part that runs in continuous integration.
    pub is_quick: bool,
}

/// A pod that runs, and of which nothing is to be said.
const fn pod(name: &'static str, image: &'static str) -> Case {
    Case {
        name,
        image,
        secrets: &[],
        account: "default",
        policy: None,
        init: None,
        kubelet: Kubelet::Runs,
        pull: Some("would_succeed"),
        causes: &[],
        event: None,
        cluster: None,
        lint: &[],
        is_quick: false,
    }
}

impl Case {
    const fn with(mut self, secrets: &'static [&'static str]) -> Self {
        self.secrets = secrets;
        self
    }

    const fn of(mut self, account: &'static str) -> Self {
        self.account = account;
        self
    }

    const fn policy(mut self, policy: &'static str) -> Self {
        self.policy = Some(policy);
        self
    }

    const fn init(mut self, image: &'static str, args: &'static [&'static str]) -> Self {
        self.init = Some((image, args));
        self
    }

    /// It does not run: the kubelet has these words, and all have the first of these causes.
    const fn fails(mut self, words: &'static str, causes: &'static [&'static str]) -> Self {
        self.kubelet = Kubelet::Fails(words);
        self.pull = Some("would_fail");
        self.causes = causes;
        self.event = Some(causes[0]);
        self.cluster = Some(causes[0]);
        self
    }

    /// A check says this of it.
    const fn checked(mut self, pull: &'static str, causes: &'static [&'static str]) -> Self {
        self.pull = Some(pull);
        self.causes = causes;
        self
    }

    /// Nothing is checked, and there is no Event.
    const fn unchecked(mut self) -> Self {
        self.pull = None;
        self.causes = &[];
        self.event = None;
        self
    }

    /// Its registry is an address of the node that no setting names.
    const fn guarded(mut self) -> Self {
        self.event = Some("node_address");
        self.checked("unknown", &["node_address"])
    }

    /// The kubelet's words show another cause.
    const fn by_words(mut self, cause: &'static str) -> Self {
        self.cluster = Some(cause);
        self
    }

    const fn lint(mut self, causes: &'static [&'static str]) -> Self {
        self.lint = causes;
        self
    }

    const fn quick(mut self) -> Self {
        self.is_quick = true;
        self
    }

    pub fn fails_at_all(&self) -> bool {
        matches!(self.kubelet, Kubelet::Fails(_))
    }

    /// As an operator writes it.
    pub fn manifest(&self) -> Value {
        let secrets: Vec<Value> = self
            .secrets
            .iter()
            .map(|name| json!({"name": name}))
            .collect();
        let mut app = json!({"name": "app", "image": self.image});
        if let Some(policy) = self.policy {
            app["imagePullPolicy"] = policy.into();
        }
        let mut spec = json!({
            "nodeName": NODE, "serviceAccountName": self.account, "terminationGracePeriodSeconds": 1,
            "hostNetwork": true, "automountServiceAccountToken": false,
            "containers": [app],
        });
        if !secrets.is_empty() {
            spec["imagePullSecrets"] = secrets.into();
        }
        if let Some((image, args)) = self.init {
            spec["initContainers"] = json!([{"name": "first", "image": image, "args": args}]);
        }
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": self.name, "namespace": SHOP}, "spec": spec})
    }
}

const NO_LOGIN: &str = "no basic auth credentials";
const NOT_FOUND: &str = "not found";

pub const CASES: &[Case] = &[
    pod("good", "open.lab.test/team/app:1").quick(),
    pod("missing-tag", "open.lab.test/team/missing-tag:nope").fails(NOT_FOUND, &["manifest_unknown"]).quick(),
    pod("missing-repository", "open.lab.test/absent/app:1").fails(NOT_FOUND, &["manifest_unknown"]),
    pod("digest", "open.lab.test/team/digest@DIGEST").checked("would_succeed", &["no_pull"]).quick(),
    pod("missing-digest", "open.lab.test/team/missing-digest@sha256:abababababababababababababababababababababababababababababababab")
        .fails(NOT_FOUND, &["manifest_unknown", "no_pull"]),
    pod("two-tags-a", "open.lab.test/team/tags:nope-a").fails(NOT_FOUND, &["manifest_unknown"]),
    pod("two-tags-b", "open.lab.test/team/tags:nope-b").fails(NOT_FOUND, &["manifest_unknown"]),
    pod("init-missing", "open.lab.test/team/init-missing:1").init("open.lab.test/team/first:nope", &[]).fails(NOT_FOUND, &["manifest_unknown"]),
    pod("arm", "open.lab.test/team/arm:1").fails("no match for platform", &["no_platform"]),
    // Without an index nothing is selected by platform.
    pod("arm-alone", "open.lab.test/team/arm-alone:1"),
    pod("invalid-name", "open.lab.test/Team/App:1").fails("InvalidImageName", &["image_name_invalid"]).unchecked(),
    // Secrets.
    pod("no-secret", "priv.lab.test/team/no-secret:1").fails(NO_LOGIN, &["auth_no_cred"]).lint(&["secret_not_named"]).quick(),
    pod("right", "priv.lab.test/team/right:1").with(&["good"]).quick(),
    pod("wrong-password", "priv.lab.test/team/wrong-password:1").with(&["bad"]).fails("401 Unauthorized", &["auth_bad_cred"]).by_words("auth_unknown").quick(),
    pod("secret-missing", "priv.lab.test/team/secret-missing:1")
        .with(&["absent"]).fails(NO_LOGIN, &["secret_missing"]).by_words("auth_no_cred").lint(&["secret_missing"]).quick(),
    pod("secret-elsewhere", "priv.lab.test/team/secret-elsewhere:1")
        .with(&["elsewhere"]).fails(NO_LOGIN, &["secret_other_namespace"]).by_words("auth_no_cred").lint(&["secret_other_namespace"]).quick(),
    pod("wrong-type", "priv.lab.test/team/wrong-type:1")
        .with(&["opaque"]).fails(NO_LOGIN, &["secret_format"]).by_words("auth_no_cred").lint(&["secret_format"]),
    pod("malformed-and-good", "priv.lab.test/team/malformed-and-good:1")
        .with(&["malformed", "good"]).fails("illegal base64 data", &["secret_format"]).lint(&["secret_format"]).quick(),
    pod("malformed-at-open", "open.lab.test/team/malformed-at-open:1")
        .with(&["malformed"]).fails("illegal base64 data", &["secret_format"]).lint(&["secret_format"]),
    pod("wrong-and-good", "priv.lab.test/team/wrong-and-good:1").with(&["bad", "good"]).checked("would_succeed", &["auth_bad_cred"]).quick(),
    pod("good-and-wrong", "priv.lab.test/team/good-and-wrong:1").with(&["good", "bad"]),
    pod("longer-key-wrong", "priv.lab.test/team/longer-key-wrong:1").with(&["longer", "good"]).checked("would_succeed", &["auth_bad_cred"]),
    pod("missing-and-good", "priv.lab.test/team/missing-and-good:1").with(&["absent", "good"]).checked("would_succeed", &["secret_missing"]).lint(&["secret_missing"]),
    pod("of-account", "priv.lab.test/team/of-account:1").of("puller").quick(),
    pod("account-overridden", "priv.lab.test/team/account-overridden:1")
        .of("puller").with(&["bad"]).fails("401 Unauthorized", &["auth_bad_cred"]).by_words("auth_unknown"),
    pod("other-key", "priv.lab.test/team/other-key:1")
        .with(&["other-key"]).fails(NO_LOGIN, &["secret_key_mismatch"]).by_words("auth_no_cred").lint(&["secret_key_mismatch"]).quick(),
    pod("key-with-port", "priv.lab.test/team/key-with-port:1")
        .with(&["port-key"]).fails(NO_LOGIN, &["secret_key_mismatch"]).by_words("auth_no_cred").lint(&["secret_key_mismatch"]),
    pod("key-as-url", "priv.lab.test/team/key-as-url:1").with(&["url-key"]),
    pod("key-with-star", "priv.lab.test/team/key-with-star:1").with(&["star-key"]),
    pod("old-type", "priv.lab.test/team/old-type:1").with(&["dockercfg"]),
    pod("newline", "priv.lab.test/team/newline:1")
        .with(&["newline"]).fails("401 Unauthorized", &["secret_format"]).by_words("auth_unknown").lint(&["secret_format"]),
    pod("missing-private-tag", "priv.lab.test/team/missing-private-tag:nope").with(&["good"]).fails(NOT_FOUND, &["manifest_unknown"]),
    pod("rotated", "priv.lab.test/team/rotated:1").with(&["rotated"]).fails("401 Unauthorized", &["auth_bad_cred"]).by_words("auth_unknown"),
    pod("provided", "prov.lab.test/team/provided:1").checked("unknown", &["auth_unknown"]).quick(),
    // Tokens.
    pod("token-right", "token.lab.test/team/token-right:1").with(&["token"]).quick(),
    pod("token-wrong", "token.lab.test/team/token-wrong:1").with(&["bad-token"]).fails("401 Unauthorized", &["auth_bad_cred"]).quick(),
    pod("token-none", "token.lab.test/team/token-none:1").fails("401 Unauthorized", &["auth_no_cred"]).lint(&["secret_not_named"]),
    // Policies.
    pod("always", "open.lab.test/team/always:1").policy("Always"),
    pod("never-present", "open.lab.test/team/app:1").policy("Never").unchecked().quick(),
    pod("never-absent", "open.lab.test/team/never-absent:1").policy("Never").fails("ErrImageNeverPull", &["no_pull"]).unchecked().quick(),
    // The network.
    pod("closed", "closed.lab.test/team/closed:1").fails("connection refused", &["tcp_refused"]).quick(),
    pod("nxdomain", "nx.lab.test/team/nxdomain:1").fails("no such host", &["dns_nxdomain"]).quick(),
    pod("unknown-authority", "unk.lab.test/team/unknown-authority:1").fails("certificate signed by unknown authority", &["tls_unknown_ca"]).quick(),
    pod("expired", "old.lab.test/team/expired:1").fails("certificate has expired", &["tls_expired"]),
    pod("not-verified", "skip.lab.test/team/not-verified:1").checked("would_succeed", &["mirror_insecure"]).quick(),
    // A setting of no host.
    pod("verified", "skiptop.lab.test/team/verified:1")
        .fails("certificate signed by unknown authority", &["tls_unknown_ca", "hosts_toml_invalid"]),
    pod("silent", "silent.lab.test/team/silent:1").fails("i/o timeout", &["tcp_timeout"]),
    pod("plain-http", "plain.lab.test:5000/team/plain-http:1").fails("server gave HTTP response to HTTPS client", &["tls_plain_http"]),
    pod("dead-storage", "redir.lab.test/team/dead:1").fails("connection refused", &["tcp_refused"]).quick(),
    pod("mirrored", "mirrored.lab.test/team/mirrored:1").quick(),
    pod("loopback", "127.0.0.1:5000/team/loopback:1").quick(),
    // containerd verifies no certificate of its own machine.
    pod("loopback-tls", "127.0.0.3:5443/team/loopback-tls:1"),
    // No registry: the kubelet's own port for its health.
    pod("node-service", "127.0.0.1:10248/team/app:1").fails(NOT_FOUND, &["manifest_unknown"]).guarded().quick(),
    pod("slow", "slow.lab.test/team/slow:1"),
    pod("waits-for-the-path", "open.lab.test/team/waited:1").init("127.0.0.1:5000/pullpath/pullpath:1", &["wait", "open.lab.test/team/waited:1", "--timeout=1m"]),
];

/// Pods of a node whose containerd has no `config_path`.
pub const WITHOUT_HOSTS: &[Case] = &[
    pod("loopback-http", "127.0.0.1:5000/team/loopback-http:1"),
    // It sends plain HTTP to its own machine at once.
    pod("loopback-https", "127.0.0.3:5443/team/loopback-https:1")
        .fails("400 Bad Request", &["request_refused"]),
    pod("no-mirror", "mirrored.lab.test/team/no-mirror:1")
        .fails("certificate is valid for", &["tls_name"]),
];

fn encoded(user: &str, password: &str) -> String {
    BASE64_STANDARD.encode(format!("{user}:{password}"))
}

fn entry(password: &str) -> Value {
    json!({"username": USER, "password": password, "auth": encoded(USER, password)})
}

fn secret(namespace: &str, name: &str, kind: &str, key: &str, content: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace},
           "type": kind, "data": {key: BASE64_STANDARD.encode(content)}})
}

/// A Secret of today's type with this server key.
pub fn docker_secret(namespace: &str, name: &str, key: &str, entry: &Value) -> Value {
    let config = json!({"auths": {key: entry}}).to_string();
    secret(
        namespace,
        name,
        "kubernetes.io/dockerconfigjson",
        ".dockerconfigjson",
        &config,
    )
}

/// All Secrets that pods name, but for `absent`.
pub fn secrets() -> Vec<Value> {
    let shop = |name: &str, key: &str, entry: Value| docker_secret(SHOP, name, key, &entry);
    let newline = json!({"auth": encoded(USER, &format!("{PASSWORD}\n"))});
    let private = json!({"auths": {"priv.lab.test": entry(PASSWORD)}}).to_string();
    let old = json!({"priv.lab.test": entry(PASSWORD)}).to_string();
    vec![
        shop("good", "priv.lab.test", entry(PASSWORD)),
        shop("bad", "priv.lab.test", entry("wrong")),
        shop("longer", "priv.lab.test/team", entry("wrong")),
        shop("rotated", "priv.lab.test", entry("old")),
        shop(
            "malformed",
            "priv.lab.test",
            json!({"auth": "!!! not base64"}),
        ),
        shop("other-key", "registry.example.com", entry(PASSWORD)),
        shop("port-key", "priv.lab.test:443", entry(PASSWORD)),
        shop("url-key", "https://priv.lab.test/v2/", entry(PASSWORD)),
        shop("star-key", "*.lab.test", entry(PASSWORD)),
        shop("newline", "priv.lab.test", newline),
        shop("token", "token.lab.test", entry(PASSWORD)),
        shop("bad-token", "token.lab.test", entry("wrong")),
        secret(SHOP, "opaque", "Opaque", ".dockerconfigjson", &private),
        secret(
            SHOP,
            "dockercfg",
            "kubernetes.io/dockercfg",
            ".dockercfg",
            &old,
        ),
        docker_secret(BANK, "elsewhere", "priv.lab.test", &entry(PASSWORD)),
    ]
}

/// The right content of a Secret that had a wrong password.
pub fn corrected() -> Value {
    let whole = docker_secret(SHOP, "rotated", "priv.lab.test", &entry(PASSWORD));
    json!({"data": whole["data"]})
}
