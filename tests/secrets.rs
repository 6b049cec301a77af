//! `pullpath secret check`: the program as a user runs it, on good and bad Secrets.

#![allow(clippy::unwrap_used, reason = "this is test code")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use pullpath::config::Config;
use pullpath::daemon::pod_events;
use pullpath::daemon::store::target::Target;
use pullpath::diagnose::level::Confidence;
use pullpath::kubernetes::secrets::{Access, Known, SecretKey};
use pullpath::kubernetes::watch::View;
use pullpath::lint::{self, InspectedSecret, Listed, SecretRead, Unknown};
use pullpath::model::vantage::NetworkView;
use pullpath::model::workload::{ContainerKind, Found, PodUse, PullPolicy};
use pullpath::pull_secret::keyring::{Keyring, LoadedSource, source_evidence};
use pullpath::pull_secret::secret::of_manifest;
use pullpath::pulls::answer;
use pullpath::pulls::event::{self, EventKind};
use pullpath::report::lint::LintDocument;
use pullpath::report::secret::SecretDocument;
use pullpath::report::text::{self, Style};
use pullpath::report::why::{self, WhyCheck, WhyDocument, WhyImage, WhySecret};
use pullpath::report::{Document, Report};
use pullpath::workload::discovery::{Use, Wanted};
use pullpath::workload::pod::Pod;
use pullpath::workload::resources::{
    Account, Image, SecretMetadata, WorkloadKind, WorkloadResource,
};
use pullpath::workload::spec::ContainerSpec;
use serde_json::{Value, json};

const PASSWORD: &str = "canary-7f3a9c";
const CCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/cce-secret.yaml");

struct Outcome {
    code: i32,
    text: String,
}

/// Runs it on one file, given on standard input; no password may be in what it prints.
fn check(manifest: &str, args: &[&str]) -> Outcome {
    let mut child = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .args(["secret", "check", "-"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(manifest.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap()
    );
    for secret in [PASSWORD.to_owned(), STANDARD.encode(PASSWORD)] {
        assert!(!text.contains(&secret), "{text}");
    }
    Outcome {
        code: output.status.code().unwrap(),
        text,
    }
}

fn secret(config: &Value) -> String {
    raw(&format!(
        "data:\n  .dockerconfigjson: {}",
        STANDARD.encode(config.to_string())
    ))
}

fn raw(data: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: regcred\n  namespace: shop\n\
         type: kubernetes.io/dockerconfigjson\n{data}\n"
    )
}

fn one(key: &str, entry: &Value) -> String {
    secret(&json!({"auths": {key: entry}}))
}

fn login(password: &str) -> Value {
    json!({"username": "u", "password": password})
}

fn jwt(issued: Option<i64>, expires: i64) -> String {
    let now = jiff::Timestamp::now().as_second();
    let mut claims = json!({"exp": now + expires});
    if let Some(issued) = issued {
        claims["iat"] = (now + issued).into();
    }
    format!(
        "e30.{}.{PASSWORD}",
        URL_SAFE_NO_PAD.encode(claims.to_string())
    )
}

#[test]
fn the_secret_that_kubectl_makes_is_well() {
    let manifest = std::fs::read_to_string(CCE).unwrap();
    let image = "www.example.com/janedoe/awesomeapp:v1";
    let outcome = check(&manifest, &["--image", image]);
    assert_eq!(outcome.code, 0, "{}", outcome.text);
    assert_eq!(
        outcome.text,
        "secret default/test  no problem found\n  for www.example.com\n  \
         matches www.example.com/janedoe/awesomeapp:v1 with 'www.example.com'\n  \
         The file doesn't show whether a registry accepts the password: `pullpath probe IMAGE\n    \
         --secret-file FILE` sends it to the registry.\n"
    );
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn every_slip_is_named_with_its_severity() {
    let twice = STANDARD.encode(STANDARD.encode("{\"auths\":{}}"));
    let encoded = |text: &str| STANDARD.encode(text);
    let key = "reg.example.com";
    for (what, manifest, code, wanted) in [
        (
            "wrong type",
            one(key, &login(PASSWORD)).replace("dockerconfigjson\nd", "x\nd"),
            1,
            "type 'kubernetes.io/x'",
        ),
        (
            "opaque",
            one(key, &login(PASSWORD)).replace("type: kubernetes.io/dockerconfigjson\n", ""),
            1,
            "type 'Opaque'",
        ),
        (
            "no data key",
            raw("data: {config.json: e30=}"),
            1,
            "no data key '.dockerconfigjson'",
        ),
        (
            "not base64",
            raw(&format!(
                "data: {{.dockerconfigjson: '{{\"auths\":\"{PASSWORD}\"}}'}}"
            )),
            1,
            "not base64",
        ),
        (
            "double base64",
            raw(&format!("data: {{.dockerconfigjson: {twice}}}")),
            1,
            "encoded twice",
        ),
        (
            "base64 in stringData",
            raw(&format!(
                "stringData: {{.dockerconfigjson: {}}}",
                encoded("{\"auths\":{}}")
            )),
            1,
            "encoded twice",
        ),
        (
            "both data",
            raw(
                "stringData: {.dockerconfigjson: '{\"auths\":{\"r\":{\"auth\":\"dTpw\"}}}'}\ndata: {.dockerconfigjson: e30=}",
            ),
            0,
            "API server uses 'stringData'",
        ),
        (
            "not JSON",
            raw(&format!(
                "data: {{.dockerconfigjson: {}}}",
                encoded("auths:\n  x")
            )),
            1,
            "not JSON, at line 1",
        ),
        (
            "auth contradicts",
            one(
                key,
                &json!({"username": "u", "password": "x", "auth": encoded(&format!("u:{PASSWORD}"))}),
            ),
            0,
            "'auth' is used",
        ),
        (
            "no colon",
            one(key, &json!({"auth": encoded(PASSWORD)})),
            1,
            "no ':'",
        ),
        (
            "newline",
            one(key, &json!({"auth": encoded(&format!("u:{PASSWORD}\n"))})),
            1,
            "ends in a newline",
        ),
        (
            "control",
            one(key, &login(&format!("a\u{7}{PASSWORD}"))),
            0,
            "control character",
        ),
        (
            "empty password",
            one(key, &login("")),
            1,
            "there is no password",
        ),
        (
            "empty",
            one(key, &json!({})),
            1,
            "neither user nor password",
        ),
        (
            "credsStore",
            secret(&json!({"credsStore": "desktop"})),
            1,
            "which the kubelet does not run",
        ),
        (
            "no auths",
            secret(&json!({"reg": {"auth": "dTpw"}})),
            1,
            "no 'auths'",
        ),
        (
            "can't match",
            one("reg.example.com:*", &login(PASSWORD)),
            1,
            "can't match any image",
        ),
        (
            "auth twice",
            one(
                key,
                &json!({"auth": encoded(&encoded(&format!("u:{PASSWORD}")))}),
            ),
            1,
            "base64 of base64",
        ),
        (
            "data of a template",
            raw("data: {.dockerconfigjson: '{{ .Values.config }}'}"),
            1,
            "data '.dockerconfigjson' is a placeholder that nothing has filled in",
        ),
        (
            "stringData of a template",
            raw("stringData: {.dockerconfigjson: '$DOCKER_CONFIG'}"),
            1,
            "is a placeholder that nothing has filled in",
        ),
        (
            "no template",
            raw("data:\n  .dockerconfigjson: {{ .Values.config }}"),
            2,
            "pass what `helm template` prints",
        ),
        (
            "ECR",
            one(
                key,
                &json!({"username": "AWS", "password": encoded(&json!({"payload": PASSWORD, "expiration": 1_700_000_000}).to_string())}),
            ),
            1,
            "credential_expired",
        ),
        (
            "ACR",
            one(
                key,
                &json!({"username": "00000000-0000-0000-0000-000000000000", "password": jwt(Some(-20_000), -9000)}),
            ),
            1,
            "credential_expired",
        ),
        (
            "Google's access token",
            one(
                key,
                &json!({"username": "oauth2accesstoken", "password": PASSWORD}),
            ),
            0,
            "Google access token",
        ),
        (
            "a job's token",
            one(
                key,
                &json!({"username": "gitlab-ci-token", "password": PASSWORD}),
            ),
            0,
            "until the CI job",
        ),
        (
            "expired",
            one(key, &login(&jwt(Some(-7200), -3600))),
            1,
            "credential_expired",
        ),
        (
            "soon",
            one(key, &login(&jwt(Some(-86_400), 3600))),
            0,
            "credential_expiring",
        ),
        (
            "no Secret",
            "kind: Pod\n".to_owned(),
            2,
            "no manifest of kind Secret",
        ),
        ("no YAML", "{".to_owned(), 2, "can't be read as YAML"),
    ] {
        let outcome = check(&manifest, &[]);
        let text = outcome.text.replace("\n    ", " ");
        assert!(text.contains(wanted), "{what}: {text}");
        assert_eq!(outcome.code, code, "{what}: {text}");
    }
}

#[test]
fn what_is_well_is_left_alone() {
    let key = "reg.example.com";
    for (what, manifest) in [
        ("colons", one(key, &login(&format!("{PASSWORD}:with:colons")))),
        ("stringData", raw("stringData: {.dockerconfigjson: '{\"auths\":{\"r\":{\"auth\":\"dTpw\"}}}'}")),
        ("an hour-lived token", one(key, &login(&jwt(Some(-1800), 1800)))),
        ("one without a beginning", one(key, &login(&jwt(None, 7200)))),
        ("Docker Hub", one("https://index.docker.io/v1/", &login(PASSWORD))),
        ("wildcard", one("*.example.com/team", &login(PASSWORD))),
        (
            "Google's key file",
            one("gcr.io", &json!({"username": "_json_key", "password": format!("{{\n \"private_key\": \"{PASSWORD}\\n\"\n}}\n")})),
        ),
        ("a robot at Quay", one("quay.io", &json!({"username": "robot+ci", "password": PASSWORD}))),
        (
            "CCE's own",
            one(key, &login(PASSWORD)).replace("name: regcred", "name: default-secret").replace(
                "  namespace: shop",
                "  namespace: shop\n  annotations: {swr-auth-may-expires-at: '2099-01-01T00:00:00Z'}",
            ),
        ),
    ] {
        let outcome = check(&manifest, &[]);
        assert_eq!(outcome.code, 0, "{what}");
        assert!(outcome.text.contains("no problem found"), "{what}: {}", outcome.text);
    }
}

#[test]
fn secrets_for_other_purposes_are_passed_over_beside_a_pull_secret() {
    let item = |manifest: &str| format!("- {}", manifest.trim_end().replace('\n', "\n  "));
    let good = one("reg.example.com", &login(PASSWORD));
    let tls = "apiVersion: v1\nkind: Secret\nmetadata: {name: tls}\ntype: kubernetes.io/tls\ndata: {tls.crt: eA==}\n";
    let opaque = "apiVersion: v1\nkind: Secret\nmetadata: {name: other}\ndata: {token: eA==}\n";
    let list = |items: &[&str]| {
        let items: Vec<String> = items.iter().map(|one| item(one)).collect();
        format!("apiVersion: v1\nkind: List\nitems:\n{}\n", items.join("\n"))
    };
    let typed = list(&[&good, tls]).replace("kind: List", "kind: SecretList");
    let typed = typed.replace("- apiVersion: v1\n  kind: Secret\n", "- immutable: false\n");
    for (what, manifest, code, wanted) in [
        (
            "a list",
            list(&[&good, tls, opaque]),
            0,
            "passed over: standard input: secret tls: type 'kubernetes.io/tls'",
        ),
        (
            "documents",
            [good.as_str(), opaque].join("---\n"),
            0,
            "secret other: type 'Opaque'",
        ),
        ("a typed list", typed, 0, "secret tls: type"),
        (
            "beside a workload",
            format!("kind: Pod\n---\n{tls}"),
            2,
            "contains no pull secret",
        ),
        (
            "nothing else",
            list(&[tls, opaque]),
            2,
            "contains no pull secret",
        ),
        ("alone", tls.to_owned(), 1, "secret_format"),
        // It has a docker config, so its type is a mistake.
        (
            "of a wrong type",
            list(&[
                &good,
                &good.replace("kubernetes.io/dockerconfigjson", "Opaque"),
            ]),
            1,
            "type 'Opaque'",
        ),
        // Of another group.
        (
            "other group",
            format!("{good}---\n{}", tls.replace("v1", "vault.example/v1")),
            0,
            "no problem found",
        ),
        // The rest is checked.
        (
            "a bad document",
            format!("{good}---\na: [\n"),
            2,
            "secret shop/regcred  no problem found",
        ),
        (
            "twice",
            good.replace("kind: Secret\n", "kind: Secret\nkind: Secret\n"),
            0,
            "warning: standard input: kind is given more than once",
        ),
    ] {
        let outcome = check(&manifest, &[]);
        let text = outcome.text.replace("\n  ", " ");
        assert!(text.contains(wanted), "{what}: {text}");
        assert_eq!(outcome.code, code, "{what}: {text}");
    }
}

#[test]
fn keys_are_matched_with_images_as_the_kubelet_does() {
    for (key, image, matches) in [
        ("reg.example.com:5000", "reg.example.com:5000/a", true),
        ("reg.example.com", "reg.example.com:5000/a", false),
        ("docker.io", "nginx", true),
        ("https://index.docker.io/v1/", "nginx", true),
        ("registry-1.docker.io", "nginx", false),
        ("reg.example.com/team", "reg.example.com/teamwork/a", true),
        ("*.example.com", "a.b.example.com/x", false),
    ] {
        let outcome = check(&one(key, &login(PASSWORD)), &["--image", image]);
        assert_eq!(
            outcome.code,
            i32::from(!matches),
            "{key} {image}: {}",
            outcome.text
        );
    }
    let text = check(&one("docker.com", &login(PASSWORD)), &["--image", "nginx"]).text;
    assert!(
        text.contains("--docker-server=https://index.docker.io/v1/"),
        "{text}"
    );
}

#[test]
fn a_copy_of_cces_secret_is_reported_before_and_after_its_expiry() {
    for (at, code) in [
        ("2026-01-01T00:00:00Z", 1),
        ("2099-01-01 00:00:00 +0000 UTC", 0),
    ] {
        let manifest = one("swr.cn-north-4.myhuaweicloud.com", &login(PASSWORD)).replace(
            "  namespace: shop",
            &format!("  namespace: shop\n  annotations: {{swr-auth-may-expires-at: '{at}'}}"),
        );
        let outcome = check(&manifest, &[]);
        assert!(
            outcome.text.contains("secret_copy_expired"),
            "{}",
            outcome.text
        );
        assert_eq!(outcome.code, code);
    }
}

#[test]
fn the_json_form_is_a_versioned_document() {
    let outcome = check(
        &one("reg.example.com", &login("x\n")),
        &["-o", "json", "--image", "nginx"],
    );
    let document: SecretDocument = serde_json::from_str(&outcome.text).unwrap();
    assert_eq!(document.schema_version, 2);
    let secret = &document.secrets[0];
    assert_eq!(secret.secret.server_keys, ["reg.example.com"]);
    let codes: Vec<&str> = secret.findings.iter().map(|f| f.cause.code()).collect();
    assert_eq!(codes, ["secret_format", "secret_key_mismatch"]);
    let missing = Command::new(env!("CARGO_BIN_EXE_pullpath"))
        .args(["secret", "check", "no/such/file"])
        .output()
        .unwrap();
    assert_eq!(missing.status.code(), Some(2));
}

#[test]
fn a_docker_config_is_refused_with_what_this_command_can_do_with_it() {
    let config = json!({"auths": {"reg.example.com": login(PASSWORD)}}).to_string();
    let outcome = check(&config, &[]);
    assert_eq!(outcome.code, 2, "{}", outcome.text);
    let text = outcome
        .text
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    assert!(
        text.contains("it is a docker config, not a Secret"),
        "{text}"
    );
    assert!(text.contains("| pullpath secret check -`"), "{text}");
    assert!(!text.contains("--docker-config"), "{text}");
}

// ---- the same Secret in all faces ---------------------------------------------------------------

const IMAGE: &str = "www.example.com/janedoe/awesomeapp:v1";

/// What a text claims about Secret `shop/test`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Claim {
    /// The namespace has none.
    Missing,
    /// The same, and another namespace has one.
    Elsewhere,
    /// It exists.
    Here,
    /// Whether it exists, or what is in it, is unknown.
    Unknown,
}

impl Claim {
    /// All claims of a text; a face must not make two.
    fn of(text: &str) -> Vec<Self> {
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let has = |words: &[&str]| words.iter().any(|words| text.contains(words));
        let is_elsewhere = has(&["secret_other_namespace", "exists in namespace bank"]);
        let is_missing = has(&["secret_missing", "no Secret test", "no Secret of that name"]);
        let claims = [
            (is_elsewhere, Self::Elsewhere),
            (is_missing && !is_elsewhere, Self::Missing),
            (
                has(&[
                    "shop/test: exists",
                    "secret_key_mismatch",
                    "secret_format",
                    "none of its keys matches",
                ]),
                Self::Here,
            ),
            (
                has(&[
                    "unknown whether it exists",
                    "auth_unknown",
                    "could not be checked",
                ]),
                Self::Unknown,
            ),
        ];
        let made = claims.into_iter().filter(|(is_made, _)| *is_made);
        made.map(|(_, claim)| claim).collect()
    }
}

struct Situation {
    name: &'static str,
    claim: Claim,
    found: Found,
    /// What the Secret holds, if it can be read.
    content: Option<Value>,
    /// All Secrets may be listed.
    may_list: bool,
}

fn situations() -> Vec<Situation> {
    let login = |key: &str| json!({"auths": {key: {"username": "u", "password": PASSWORD}}});
    let manifest = |kind: &str, config: &Value| {
        json!({"kind": "Secret", "metadata": {"name": "test", "namespace": "shop"}, "type": kind,
               "data": {".dockerconfigjson": STANDARD.encode(config.to_string())}})
    };
    let wrong_key = manifest(
        "kubernetes.io/dockerconfigjson",
        &login("www.example.com:5000"),
    );
    let wrong_type = manifest("Opaque", &login("www.example.com"));
    let bank = || Found::Elsewhere {
        namespaces: vec!["bank".to_owned()],
    };
    let unread = || Found::Unread {
        reason: "RBAC must allow it".to_owned(),
    };
    let mut all = Vec::new();
    for may_list in [true, false] {
        for (name, claim, found, content) in [
            ("missing", Claim::Missing, Found::Absent, None),
            ("elsewhere", Claim::Elsewhere, bank(), None),
            ("wrong key", Claim::Here, Found::Here, Some(&wrong_key)),
            ("wrong type", Claim::Here, Found::Here, Some(&wrong_type)),
            ("unreadable", Claim::Unknown, unread(), None),
        ] {
            // Without the right to list Secrets, other namespaces are not known.
            let is_hidden = name == "elsewhere" && !may_list;
            all.push(Situation {
                name,
                claim: if is_hidden { Claim::Missing } else { claim },
                found: if is_hidden { Found::Absent } else { found },
                content: content.cloned(),
                may_list,
            });
        }
    }
    all
}

impl Situation {
    fn source(&self) -> Option<LoadedSource> {
        if let Some(manifest) = &self.content {
            return Some(of_manifest(manifest, "the cluster"));
        }
        let Found::Unread { reason } = &self.found else {
            return None;
        };
        let key = SecretKey {
            namespace: "shop".to_owned(),
            name: "test".to_owned(),
        };
        Known::Unread(reason.clone()).sources(&key).0.pop()
    }

    /// The daemon's report: the registry requires a login, and this Secret is the only source.
    fn report(&self) -> Report {
        let case = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/cases/cce_deployment_other_namespace/report.json"
        );
        let text = std::fs::read_to_string(case).unwrap();
        let document: Document = serde_json::from_str(&text).unwrap();
        let mut evidence = document.reports[0].evidence.clone();
        let keyring = Keyring::new(self.source().into_iter().collect());
        evidence.keyring = keyring.lookup(&IMAGE.parse().unwrap()).1;
        evidence.vantage.not_observed.clear();
        evidence.vantage.network = NetworkView::Node;
        let pod = &mut evidence.pods[0];
        PodUse::CLUSTER.clone_into(&mut pod.path);
        pod.secrets[0].found = self.found.clone();
        Report::conclude(evidence)
    }

    /// The Event on the pod.
    fn event(report: &Report) -> String {
        let reference = IMAGE.parse().unwrap();
        let wanted = Wanted {
            name: "x".to_owned(),
            witness: reference,
            secrets: None,
            uses: vec![Use {
                namespace: "shop".to_owned(),
                pod: "foo-1".to_owned(),
                container: "container-0".to_owned(),
                kind: ContainerKind::Container,
                policy: PullPolicy::Always,
                image: IMAGE.to_owned(),
                waits: true,
                is_present: false,
            }],
        };
        let target = Target::discovered(&wanted, &Config::default());
        let pod = Pod {
            namespace: "shop".to_owned(),
            name: "foo-1".to_owned(),
            ..Pod::default()
        };
        let pods = View {
            objects: Arc::new(BTreeMap::from([("uid".to_owned(), Arc::new(pod))])),
            ..View::default()
        };
        let queued = pod_events::of(report, &target, &pods, "n1");
        queued[0].note.message.clone()
    }

    fn why(&self, report: &Report) -> String {
        let image = WhyImage {
            image: IMAGE.to_owned(),
            node: "n1".to_owned(),
            pods: Vec::new(),
            secrets: vec![WhySecret {
                namespace: "shop".to_owned(),
                name: "test".to_owned(),
                found: self.found.clone(),
            }],
            kubelet: Vec::new(),
            check: WhyCheck::Node {
                pod: "pullpath-n1".to_owned(),
                report: Box::new(report.clone()),
                scheduled: false,
            },
        };
        let now = "2026-11-23T09:00:00Z".parse().unwrap();
        let document = WhyDocument::new(now, vec![image], Vec::new(), Vec::new());
        why::render(&document, Style { color: false })
    }

    fn lint(&self) -> String {
        let key = |namespace: &str| SecretKey {
            namespace: namespace.to_owned(),
            name: "test".to_owned(),
        };
        let read = match (&self.found, self.source()) {
            (Found::Unread { reason }, _) => SecretRead::Unread(reason.clone()),
            (Found::Here, Some(source)) => SecretRead::Content(Arc::new(InspectedSecret {
                evidence: source_evidence(&source),
                keys: source,
            })),
            _ => SecretRead::Absent,
        };
        let container = ContainerSpec {
            name: "container-0".to_owned(),
            image: IMAGE.to_owned(),
            ..ContainerSpec::default()
        };
        let workload = WorkloadResource {
            kind: WorkloadKind::Deployment,
            owner: None,
            namespace: "shop".into(),
            name: "foo".into(),
            pull_secrets: ["test".into()].into(),
            service_account: None,
            containers: Image::of(ContainerKind::Container, &container)
                .into_iter()
                .collect(),
            eip: Box::default(),
            is_idle: false,
        };
        let account = Account {
            namespace: "shop".into(),
            name: "default".into(),
            pull_secrets: Box::default(),
        };
        let elsewhere = matches!(self.found, Found::Elsewhere { .. }).then(|| {
            Arc::new(SecretMetadata {
                namespace: "bank".into(),
                name: "test".into(),
                version: "1".into(),
                is_renewed: false,
            })
        });
        let cluster = lint::Cluster {
            workloads: vec![Arc::new(workload)],
            accounts: Listed {
                items: vec![Arc::new(account)],
                unknown: Unknown::default(),
            },
            secrets: Listed {
                items: elsewhere.into_iter().collect(),
                unknown: Unknown {
                    everywhere: !self.may_list,
                    ..Unknown::default()
                },
            },
            access: if self.may_list {
                Access::Discovered
            } else {
                Access::Named([key("shop")].into())
            },
            read: BTreeMap::from([(key("shop"), read)]),
            not_observed: Vec::new(),
        };
        let now = "2026-11-23T09:00:00Z".parse().unwrap();
        let document = LintDocument::new(now, lint::judge::judge(&cluster, now));
        pullpath::report::lint::render(&document, Style { color: false })
    }
}

/// A report, the Event on the pod, `why`, `lint` and the cluster role must not contradict each other about a Secret.
#[test]
fn no_two_faces_contradict_each_other_about_a_secret() {
    for situation in situations() {
        let report = situation.report();
        let faces = [
            (
                "report",
                text::render(&report, Style { color: false }, false),
            ),
            ("Event", Situation::event(&report)),
            ("why", situation.why(&report)),
            ("lint", situation.lint()),
        ];
        for (face, text) in faces {
            assert!(!text.contains(PASSWORD));
            let (name, may_list) = (situation.name, situation.may_list);
            assert_eq!(
                Claim::of(&text),
                [situation.claim],
                "{name}, may list: {may_list}, {face}: {text}"
            );
        }
        // The cluster role has the kubelet's Event alone, which has no reason: it never claims that a Secret is missing.
        let reason = "FailedToRetrieveImagePullSecret";
        let message = "Unable to retrieve some image pull secrets (test); attempting to pull the image may not succeed.";
        let Some(EventKind::SecretsMissing { names }) = event::read(reason, message) else {
            panic!()
        };
        assert_eq!(names, ["test"]);
        let answers = answer::explain(message).unwrap();
        let failure = &answers.all[0].failure;
        assert_eq!(failure.cause.unwrap().code(), "secret_missing");
        assert_eq!(failure.or.len(), 1, "the Secret may exist");
        assert!(failure.confidence < Some(Confidence::High));
    }
}
