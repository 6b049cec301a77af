//! Each finding, and a similar case without it.

#![expect(clippy::print_stdout, reason = "figures are printed")]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::judge::{judge, needs};
use super::{Cluster, Finding, InspectedSecret, Listed, SecretRead, Snapshot, Unknown};
use crate::diagnose::level::Severity::{Critical, Info, Warning};
use crate::kubernetes::secrets::{Access, SecretKey};
use crate::model::workload::ContainerKind;
use crate::pull_secret::secret;
use crate::workload::resources::{
    Account, Image, SecretMetadata, WorkloadKind, WorkloadResource, eip_problems,
};
use crate::workload::spec::ContainerSpec;
use crate::workload::spec::VolumeSpec;

const PASSWORD: &str = "hunter2-of-the-lint";

/// A small cluster: all objects can be listed, and the namespace has its default service account.
struct World(Cluster);

fn world() -> World {
    World(Cluster {
        workloads: Vec::new(),
        accounts: Listed {
            items: Vec::new(),
            unknown: Unknown::default(),
        },
        secrets: Listed {
            items: Vec::new(),
            unknown: Unknown::default(),
        },
        access: Access::Discovered,
        read: BTreeMap::new(),
        not_observed: Vec::new(),
    })
    .account("shop", "default", &[])
}

fn names(list: &[&str]) -> Box<[Box<str>]> {
    list.iter().map(|name| Box::from(*name)).collect()
}

fn workload(kind: WorkloadKind, name: &str, images: &[&str], secrets: &[&str]) -> WorkloadResource {
    WorkloadResource {
        kind,
        owner: None,
        namespace: "shop".into(),
        name: name.into(),
        pull_secrets: names(secrets),
        service_account: None,
        containers: images
            .iter()
            .enumerate()
            .filter_map(|(index, image)| {
                let container = ContainerSpec {
                    name: format!("c{index}"),
                    image: (*image).to_owned(),
                    ..ContainerSpec::default()
                };
                Image::of(ContainerKind::Container, &container)
            })
            .collect(),
        eip: Box::default(),
        is_idle: false,
    }
}

fn deployment(images: &[&str], secrets: &[&str]) -> WorkloadResource {
    workload(WorkloadKind::Deployment, "web", images, secrets)
}

fn key(namespace: &str, name: &str) -> SecretKey {
    SecretKey {
        namespace: namespace.into(),
        name: name.into(),
    }
}

fn docker_config(server: &str) -> String {
    json!({"auths": {server: {"username": "u", "password": PASSWORD}}}).to_string()
}

impl World {
    fn workload(mut self, workload: WorkloadResource) -> Self {
        self.0.workloads.push(Arc::new(workload));
        self
    }

    fn account(mut self, namespace: &str, name: &str, secrets: &[&str]) -> Self {
        let accounts = &mut self.0.accounts.items;
        accounts.retain(|a| (&*a.namespace, &*a.name) != (namespace, name));
        accounts.push(Arc::new(Account {
            namespace: namespace.into(),
            name: name.into(),
            pull_secrets: names(secrets),
        }));
        self
    }

    fn metadata(mut self, namespace: &str, name: &str, is_renewed: bool) -> Self {
        self.0.secrets.items.push(Arc::new(SecretMetadata {
            namespace: namespace.into(),
            name: name.into(),
            version: "1".into(),
            is_renewed,
        }));
        self
    }

    /// There, of the right type, and read.
    fn secret(self, namespace: &str, name: &str, server: &str) -> Self {
        let data = BASE64_STANDARD.encode(docker_config(server));
        let manifest = json!({"kind": "Secret", "metadata": {"name": name, "namespace": namespace},
            "type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": data}});
        self.metadata(namespace, name, false)
            .manifest(namespace, name, &manifest)
    }

    fn manifest(mut self, namespace: &str, name: &str, manifest: &Value) -> Self {
        let content = InspectedSecret::of(&secret::of_manifest(manifest, "the cluster"));
        let read = SecretRead::Content(Arc::new(content));
        self.0.read.insert(key(namespace, name), read);
        self
    }

    fn absent(mut self, namespace: &str, name: &str) -> Self {
        self.0.read.insert(key(namespace, name), SecretRead::Absent);
        self
    }

    fn unread(mut self, namespace: &str, name: &str) -> Self {
        let read = SecretRead::Unread("RBAC forbids it".to_owned());
        self.0.read.insert(key(namespace, name), read);
        self
    }

    fn look(&self) -> Snapshot {
        let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
        let snapshot = judge(&self.0, now);
        let shown = format!("{snapshot:?} {:?}", self.0);
        assert!(!shown.contains(PASSWORD), "{shown}");
        for finding in &snapshot.findings {
            assert!(
                !finding.evidence.is_empty() && !finding.hint.is_empty(),
                "{finding:?}"
            );
        }
        snapshot
    }

    /// `severity cause kind/name` of each.
    fn summaries(&self) -> Vec<String> {
        self.look().findings.iter().map(shown).collect()
    }

    /// The only finding.
    fn only(&self) -> Finding {
        let mut findings = self.look().findings;
        assert_eq!(findings.len(), 1, "{findings:#?}");
        findings.remove(0)
    }
}

fn shown(finding: &Finding) -> String {
    format!(
        "{:?} {} {}/{}",
        finding.severity,
        finding.cause.code(),
        finding.kind,
        finding.name
    )
}

fn says(finding: &Finding, part: &str) {
    let all = format!("{} {}", finding.evidence.join("\n"), finding.hint);
    assert!(all.contains(part), "'{part}' is not in {finding:#?}");
}

const NOTHING: [&str; 0] = [];

#[test]
fn nothing_is_wrong_where_secrets_are_there_and_fit() {
    let image = "reg.example.com/team/app:1";
    let good = world()
        .secret("shop", "pull", "reg.example.com")
        .workload(deployment(&[image], &["pull"]));
    assert_eq!(good.summaries(), NOTHING);
    let seen = good.look().counts;
    assert_eq!((seen.namespaces, seen.service_accounts), (1, 1));
    assert_eq!((seen.secrets.named, seen.secrets.read), (1, 1));
    assert_eq!(seen.workloads[&WorkloadKind::Deployment], 1);
    // Through the service account.
    let by_account = world()
        .account("shop", "default", &["pull"])
        .secret("shop", "pull", "reg.example.com")
        .workload(deployment(&[image], &[]));
    assert_eq!(by_account.summaries(), NOTHING);
    // None is named, and none would fit.
    let public = world()
        .secret("shop", "other", "other.example.com")
        .workload(deployment(&[image], &[]));
    assert_eq!(public.summaries(), NOTHING);
    // It pulls nothing.
    let mut never = deployment(&[], &["gone"]);
    never.containers = Box::default();
    assert_eq!(
        world().absent("shop", "gone").workload(never).summaries(),
        NOTHING
    );
}

#[test]
fn a_secret_that_is_not_there_is_missing() {
    let image = "reg.example.com/team/app:1";
    let one = world()
        .absent("shop", "pull")
        .workload(deployment(&[image], &["pull"]));
    let found = one.only();
    assert_eq!(shown(&found), "Critical secret_missing Deployment/web");
    says(
        &found,
        "the API server has no Secret pull in namespace shop",
    );
    says(
        &found,
        "none of its Secrets has a key for reg.example.com/team/app:1",
    );
    says(&found, "kubectl create secret docker-registry pull -n shop");
    assert_eq!(one.look().counts.secrets.absent, 1);

    // Another one of the pod does as well.
    let both = world()
        .absent("shop", "old")
        .secret("shop", "pull", "reg.example.com")
        .workload(deployment(&[image], &["old", "pull"]));
    assert_eq!(both.summaries(), ["Warning secret_missing Deployment/web"]);
    // What another one has is not known.
    let blind = world()
        .absent("shop", "old")
        .unread("shop", "pull")
        .workload(deployment(&[image], &["old", "pull"]));
    assert_eq!(blind.summaries(), ["Warning secret_missing Deployment/web"]);
    // It was created after it was requested.
    let come = world()
        .absent("shop", "pull")
        .metadata("shop", "pull", false)
        .workload(deployment(&[image], &["pull"]));
    assert_eq!(come.summaries(), NOTHING);
    // Nothing fails while there are no pods.
    let mut idle = deployment(&[image], &["pull"]);
    idle.is_idle = true;
    let idle = world().absent("shop", "pull").workload(idle).only();
    assert_eq!(idle.severity, Warning);
    says(&idle, "replicas: 0");
}

#[test]
fn what_can_t_be_read_is_not_known_and_never_missing() {
    let image = "reg.example.com/team/app:1";
    let unread = world()
        .unread("shop", "pull")
        .workload(deployment(&[image], &["pull"]));
    let mut not_asked = world().workload(deployment(&[image], &["pull"]));
    let mut none = world().workload(deployment(&[image], &["pull"]));
    none.0.access = Access::None;
    let mut unnamed = world().workload(deployment(&[image], &["pull"]));
    unnamed.0.access = Access::Named(BTreeSet::from([key("shop", "other")]));
    for (world, why) in [
        (&unread, "RBAC forbids it"),
        (&not_asked, "not read yet"),
        (&none, "kubernetes.secrets is none"),
        (&unnamed, "kubernetes.named_secrets"),
    ] {
        let snapshot = world.look();
        assert_eq!(snapshot.findings, []);
        assert_eq!(snapshot.counts.secrets.unknown, 1);
        let [line] = &snapshot.not_observed[..] else {
            panic!("{snapshot:?}")
        };
        assert!(line.contains(why) && line.contains("shop/pull"), "{line}");
    }
    not_asked.0.secrets.unknown.everywhere = true;
    let line = &not_asked.look().not_observed[0];
    assert!(line.contains("does not list the Secrets"), "{line}");
}

#[test]
fn a_secret_of_another_namespace_does_not_count() {
    let image = "swr.ap-southeast-1.myhuaweicloud.com/team/app:1";
    let at = |is_renewed| {
        world()
            .absent("shop", "pull")
            .metadata("bank", "pull", is_renewed)
            .workload(deployment(&[image], &["pull"]))
            .only()
    };
    let found = at(false);
    assert_eq!(
        shown(&found),
        "Critical secret_other_namespace Deployment/web"
    );
    says(&found, "there is one in namespace bank");
    says(&found, "Create Secret pull in namespace shop as well");
    says(&at(true), "Do not copy it");
}

#[test]
fn what_a_service_account_names_is_reported_once_for_all_who_use_it() {
    let image = "reg.example.com/team/app:1";
    let mut many = world()
        .account("shop", "default", &["pull"])
        .account("shop", "other", &[])
        .absent("shop", "pull");
    for number in 0..8 {
        let name = format!("w{number}");
        many = many.workload(workload(WorkloadKind::StatefulSet, &name, &[image], &[]));
    }
    // The API server has written it into this one.
    many = many.workload(workload(WorkloadKind::Pod, "bare", &[image], &["pull"]));
    let found = many.only();
    assert_eq!(
        shown(&found),
        "Critical secret_missing ServiceAccount/default"
    );
    says(&found, "used by Pod bare, StatefulSet w0");
    says(&found, "and 4 more");
    says(
        &found,
        "remove it from imagePullSecrets of ServiceAccount default",
    );
    // Who names one of its own does not get those of its service account.
    let own = world()
        .account("shop", "default", &["pull"])
        .absent("shop", "pull")
        .secret("shop", "own", "reg.example.com")
        .workload(deployment(&[image], &["own"]));
    assert_eq!(own.summaries(), NOTHING);
    assert_eq!(needs(&own.0), BTreeSet::from([key("shop", "own")]));
}

#[test]
fn a_service_account_that_is_not_there_keeps_pods_from_being_made() {
    let image = "reg.example.com/team/app:1";
    let mut robot = deployment(&[image], &[]);
    robot.service_account = Some("robot".into());
    let found = world().workload(robot.clone()).only();
    assert_eq!(
        shown(&found),
        "Critical service_account_missing Deployment/web"
    );
    says(&found, "kubectl create serviceaccount robot -n shop");
    // An existing pod is unaffected.
    let mut pod = robot.clone();
    pod.kind = WorkloadKind::Pod;
    assert_eq!(world().workload(pod).summaries(), NOTHING);
    assert_eq!(
        world()
            .account("shop", "robot", &[])
            .workload(robot.clone())
            .summaries(),
        NOTHING
    );
    // The service accounts are unknown.
    let mut blind = world().workload(robot);
    blind
        .0
        .accounts
        .unknown
        .namespaces
        .insert("shop".to_owned());
    assert_eq!(blind.summaries(), NOTHING);
}

#[test]
fn keys_that_match_no_image_name_the_nearest_and_its_rule() {
    for (server, image, rule, severity) in [
        (
            "reg.example.com:443",
            "reg.example.com/a",
            "ports differ",
            Critical,
        ),
        (
            "reg.example.com/other",
            "reg.example.com/a",
            "path '/other'",
            Critical,
        ),
        ("example.com", "reg.example.com/a", "labels", Critical),
        ("registry-1.docker.io", "nginx", "labels", Critical),
        (
            "quay.io",
            "reg.example.com/a",
            "other registries: quay.io",
            Warning,
        ),
    ] {
        let world = world()
            .secret("shop", "pull", server)
            .workload(deployment(&[image], &["pull"]));
        let findings = world.look().findings;
        let found = findings
            .iter()
            .find(|f| f.cause.code() == "secret_key_mismatch")
            .unwrap_or_else(|| panic!("{server}: {findings:?}"));
        assert_eq!(found.severity, severity, "{server}");
        says(found, rule);
        if severity == Critical {
            assert_eq!(found.container.as_deref(), Some("c0"));
            assert_eq!(found.container_kind, Some(ContainerKind::Container));
            says(found, "--docker-server=");
        }
    }
}

#[test]
fn an_image_volume_needs_a_key_as_a_container_does() {
    let volume = |image: &str| {
        let specs = json!([{"name": "model", "image": {"reference": image}}]);
        let specs: Vec<VolumeSpec> = serde_json::from_value(specs).unwrap();
        let volume = specs.into_iter().find_map(VolumeSpec::image).unwrap();
        let volume = Image::of(ContainerKind::ImageVolume, &volume);
        let mut workload = deployment(&["reg.example.com/app:1"], &["pull", "app"]);
        let containers = workload.containers.iter().cloned();
        workload.containers = containers.chain(volume).collect();
        workload
    };
    let look = |image: &str| {
        let world = world().secret("shop", "app", "reg.example.com").secret(
            "shop",
            "pull",
            "other.example.com:5000",
        );
        world.workload(volume(image)).look().findings
    };
    let findings = look("other.example.com/models/llm:1");
    let found = &findings[0];
    assert_eq!(found.cause.code(), "secret_key_mismatch", "{findings:?}");
    assert_eq!(found.container.as_deref(), Some("model"));
    assert_eq!(found.container_kind, Some(ContainerKind::ImageVolume));
    // One that it has a key for is served by the Secret, which is then in use.
    assert_eq!(look("other.example.com:5000/models/llm:1"), []);
}

#[test]
fn a_key_for_one_of_the_images_is_enough_and_leftovers_are_a_remark() {
    let (app, sidecar) = ("reg.example.com/team/app:1", "nginx:1");
    let one = world()
        .secret("shop", "pull", "reg.example.com")
        .workload(deployment(&[sidecar, app], &["pull"]));
    assert_eq!(one.summaries(), NOTHING);
    // All images are served by another.
    let two = world()
        .secret("shop", "pull", "reg.example.com")
        .secret("shop", "old", "quay.io")
        .workload(deployment(&[app], &["old", "pull"]));
    assert_eq!(two.summaries(), ["Info secret_key_mismatch Deployment/web"]);
    // A service account serves many; a key that was meant for this image is a finding all the same.
    for (server, want) in [
        ("quay.io", vec![]),
        (
            "reg.example.com:443",
            vec!["Critical secret_key_mismatch ServiceAccount/default"],
        ),
    ] {
        let account = world()
            .account("shop", "default", &["pull"])
            .secret("shop", "pull", server)
            .workload(deployment(&[app], &[]));
        assert_eq!(account.summaries(), want);
    }
    // CCE's console writes its own into every workload.
    let cce = world()
        .secret(
            "shop",
            "default-secret",
            "swr.ap-southeast-1.myhuaweicloud.com",
        )
        .workload(deployment(&["nginx:1"], &["default-secret"]));
    assert_eq!(cce.summaries(), NOTHING);
}

#[test]
fn a_secret_that_would_fit_and_that_no_pod_names_is_reported() {
    let image = "reg.example.com/team/app:1";
    let base = || world().secret("shop", "pull", "reg.example.com");
    let found = base().workload(deployment(&[image], &[])).only();
    assert_eq!(shown(&found), "Warning secret_not_named Deployment/web");
    says(&found, "nor does its ServiceAccount default");
    says(&found, "name pull in spec.imagePullSecrets");
    // Docker Hub allows anonymous pulls, within limits.
    let hub = world()
        .secret("shop", "hub", "https://index.docker.io/v1/")
        .workload(deployment(&["nginx"], &[]))
        .only();
    assert_eq!(hub.severity, Info);
    // A pod was made before its service account had one.
    let pod = base()
        .account("shop", "default", &["pull"])
        .workload(workload(WorkloadKind::Pod, "p", &[image], &[]))
        .only();
    says(&pod, "now names pull");
    // The Secret is in another namespace, or the service accounts can't be read.
    let elsewhere = world()
        .secret("bank", "pull", "reg.example.com")
        .workload(deployment(&[image], &[]));
    assert_eq!(elsewhere.summaries(), NOTHING);
    let mut blind = base().workload(deployment(&[image], &[]));
    blind.0.accounts.items.clear();
    blind.0.accounts.unknown.everywhere = true;
    assert_eq!(blind.summaries(), NOTHING);
}

#[test]
fn what_is_odd_in_a_secret_is_reported_at_the_secret() {
    let image = "reg.example.com/team/app:1";
    let of = |kind: &str, content: &str, annotations: Value| {
        json!({"kind": "Secret", "metadata": {"name": "pull", "namespace": "shop", "annotations": annotations},
               "type": kind, "data": {".dockerconfigjson": BASE64_STANDARD.encode(content)}})
    };
    let right = "kubernetes.io/dockerconfigjson";
    let good = docker_config("reg.example.com");
    let twice = BASE64_STANDARD.encode(&good);
    let newline = json!({"auths": {"reg.example.com": {"username": "u", "password": format!("{PASSWORD}\n")}}});
    let ends = |at: &str| json!({"swr-auth-may-expires-at": at});
    for (manifest, want) in [
        (of(right, &good, json!({})), vec![]),
        (
            of("Opaque", &good, json!({})),
            vec!["Critical secret_format Secret/pull"],
        ),
        (
            of(right, &twice, json!({})),
            vec!["Critical secret_format Secret/pull"],
        ),
        (
            of(right, &newline.to_string(), json!({})),
            vec!["Critical secret_format Secret/pull"],
        ),
        (
            of(right, &good, ends("2026-11-24T11:00:00Z")),
            vec!["Critical secret_copy_expired Secret/pull"],
        ),
        (
            of(right, &good, ends("2026-11-25T11:00:00Z")),
            vec!["Warning secret_copy_expired Secret/pull"],
        ),
    ] {
        let one = world()
            .metadata("shop", "pull", false)
            .manifest("shop", "pull", &manifest)
            .workload(deployment(&[image], &["pull"]))
            .workload(workload(
                WorkloadKind::CronJob,
                "nightly",
                &[image],
                &["pull"],
            ));
        assert_eq!(one.summaries(), want, "{manifest}");
        for finding in one.look().findings {
            says(&finding, "used by CronJob nightly, Deployment web");
        }
    }
    // The kubelet passes over one of another type; what can't be decoded spoils all.
    for (content, kind, want) in [
        (&good, "Opaque", "Warning secret_format Secret/pull"),
        (&twice, right, "Critical secret_format Secret/pull"),
    ] {
        let two = world()
            .secret("shop", "good", "reg.example.com")
            .metadata("shop", "pull", false)
            .manifest("shop", "pull", &of(kind, content, json!({})))
            .workload(deployment(&[image], &["pull", "good"]));
        assert_eq!(two.summaries(), [want]);
        says(
            &two.only(),
            "kubectl create secret docker-registry pull -n shop",
        );
    }
    // CCE's own has the same annotation, and is renewed.
    let own = json!({"kind": "Secret", "metadata": {"name": "default-secret", "namespace": "shop",
            "annotations": ends("2026-11-25T11:00:00Z")}, "type": right,
        "data": {".dockerconfigjson": BASE64_STANDARD.encode(&good)}});
    let own = world()
        .metadata("shop", "default-secret", true)
        .manifest("shop", "default-secret", &own)
        .workload(deployment(&[image], &["default-secret"]));
    assert_eq!(own.summaries(), NOTHING);
}

#[test]
fn annotations_for_an_eip_are_looked_at_without_any_secret() {
    let with = |pairs: Value| {
        let mut workload = deployment(&["reg.example.com/a:1"], &[]);
        let none = serde_json::Map::new();
        workload.eip = eip_problems(workload.kind, pairs.as_object().unwrap(), &none);
        let mut world = world().workload(workload);
        world.0.access = Access::None;
        world.0.accounts.unknown.everywhere = true;
        world.summaries()
    };
    let bad = json!({"yangtse.io/pod-with-eip": "true", "yangtse.io/eip-bandwidth-size": "5M"});
    assert_eq!(
        with(bad),
        ["Critical eip_annotation_invalid Deployment/web"]
    );
    let idle = json!({"yangtse.io/eip-bandwidth-size": "5"});
    assert_eq!(
        with(idle),
        ["Warning eip_annotation_without_effect Deployment/web"]
    );
    let good = json!({"yangtse.io/pod-with-eip": "true", "yangtse.io/eip-bandwidth-size": "5"});
    assert_eq!(with(good), NOTHING);
}

#[test]
fn only_secrets_that_somebody_needs_are_read() {
    let image = "reg.example.com/team/app:1";
    let mut cluster = world()
        .account("bank", "default", &["of-account"])
        .metadata("shop", "named", false)
        .metadata("shop", "beside", false)
        .metadata("bank", "unused", false)
        .metadata("till", "nobody", false)
        .workload(deployment(&[image], &["named", "gone"]));
    let mut other = workload(WorkloadKind::Job, "job", &[image], &[]);
    other.namespace = "bank".into();
    cluster = cluster.workload(other);
    let want = BTreeSet::from([
        key("shop", "named"),
        key("shop", "gone"),
        key("bank", "of-account"),
    ]);
    assert_eq!(needs(&cluster.0), want);
    // For a workload that names none, the Secrets of its namespace are read, too.
    let mut lonely = cluster.workload(workload(WorkloadKind::Job, "lonely", &[image], &[]));
    let mut more = want.clone();
    more.insert(key("shop", "beside"));
    assert_eq!(needs(&lonely.0), more);
    lonely.0.access = Access::Named(BTreeSet::from([key("shop", "gone"), key("till", "nobody")]));
    assert_eq!(needs(&lonely.0), BTreeSet::from([key("shop", "gone")]));
    lonely.0.access = Access::None;
    assert_eq!(needs(&lonely.0), BTreeSet::new());
}

/// Whatever is wrong with the Secret that a workload names: all others of its namespace with a key for the image are
/// named, and read for that.
#[test]
fn each_finding_names_all_secrets_that_would_fit() {
    let image = "reg.example.com/team/app:1";
    let opaque = json!({"kind": "Secret", "metadata": {"name": "pull", "namespace": "shop"},
        "type": "Opaque", "data": {}});
    let fitting = || {
        let world = world()
            .secret("shop", "a-fits", "reg.example.com")
            .secret("shop", "b-other", "other.example.com")
            .secret("shop", "c-fits", "reg.example.com/team")
            .secret("bank", "d-elsewhere", "reg.example.com");
        world.workload(deployment(&[image], &["pull"]))
    };
    for (case, world) in [
        ("secret_missing", fitting().absent("shop", "pull")),
        (
            "secret_other_namespace",
            fitting()
                .absent("shop", "pull")
                .metadata("bank", "pull", false),
        ),
        (
            "secret_key_mismatch",
            fitting().secret("shop", "pull", "reg.example.com:5000"),
        ),
        (
            "secret_key_mismatch",
            fitting().secret("shop", "pull", "quay.io"),
        ),
        ("secret_format", fitting().manifest("shop", "pull", &opaque)),
    ] {
        let found = world.only();
        assert_eq!(found.cause.code(), case);
        says(&found, "a-fits, c-fits");
        let text = format!("{found:?}");
        assert!(
            !text.contains("b-other") && !text.contains("d-elsewhere"),
            "{text}"
        );
        if case != "secret_format" {
            says(&found, "Name one of a-fits, c-fits instead");
        }
        assert!(needs(&world.0).contains(&key("shop", "c-fits")), "{case}");
    }
    // Before the Secrets that it names are read, no others are requested.
    let unread = fitting().unread("shop", "pull");
    assert_eq!(needs(&unread.0), BTreeSet::from([key("shop", "pull")]));
    // The pod's other Secret fits: nothing is missing.
    let mut both = fitting().absent("shop", "pull");
    both.0.workloads = vec![Arc::new(deployment(&[image], &["pull", "a-fits"]))];
    let found = both.only();
    assert_eq!(found.severity, Warning);
    assert!(!format!("{found:?}").contains("c-fits"));
    let named = [key("shop", "pull"), key("shop", "a-fits")];
    assert_eq!(needs(&both.0), BTreeSet::from(named));
    // More than are read.
    let mut many = fitting().absent("shop", "pull");
    for number in 0..9 {
        many = many.metadata("shop", &format!("x{number}"), false);
    }
    says(
        &many.only(),
        "4 more pull secrets of this namespace were not read",
    );
}

#[test]
fn pods_of_a_workload_that_is_not_read_are_reported_once() {
    let mut cluster = world().absent("shop", "pull");
    for number in 0..20 {
        let mut pod = workload(
            WorkloadKind::Pod,
            &format!("web-{number}"),
            &["reg.example.com/a"],
            &["pull"],
        );
        pod.owner = Some(("CloneSet".into(), "web".into()));
        cluster = cluster.workload(pod);
    }
    assert_eq!(
        shown(&cluster.only()),
        "Critical secret_missing CloneSet/web"
    );
}

/// 2,000 workloads of 200 namespaces with 2,000 Secrets: printed, since machines differ; only an order of
/// magnitude is held.
#[test]
fn a_pass_over_a_big_cluster_takes_milliseconds() {
    let mut cluster = world();
    for number in 0..2000 {
        let namespace = format!("ns-{}", number % 200);
        if number < 200 {
            cluster = cluster.account(&namespace, "default", &["of-account"]);
        }
        let secret = format!("pull-{number}");
        cluster = cluster.secret(&namespace, &secret, "reg.example.com");
        let (image, sidecar) = (
            format!("reg.example.com/team/app-{number}:1"),
            "docker.io/envoy:1",
        );
        let mut one = workload(
            WorkloadKind::Deployment,
            &format!("w-{number}"),
            &[&image, sidecar],
            &[&secret],
        );
        one.namespace = namespace.into();
        cluster = cluster.workload(one);
    }
    let begun = Instant::now();
    let needed = needs(&cluster.0).len();
    let of_needs = begun.elapsed();
    let begun = Instant::now();
    let now: Timestamp = "2026-11-24T12:00:00Z".parse().unwrap();
    let snapshot = judge(&cluster.0, now);
    let of_judge = begun.elapsed();
    println!(
        "2,000 workloads: {needed} Secrets needed, found in {of_needs:?}; judged in {of_judge:?}"
    );
    assert_eq!((needed, snapshot.findings.len()), (2000, 0));
    let bound = Duration::from_secs(5);
    assert!(
        of_judge < bound,
        "{of_judge:?}: something grows with the square"
    );
}
