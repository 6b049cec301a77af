//! Reads Kubernetes workloads from manifests and from the API's objects: which images their pods pull, with which pull
//! secrets and which pull policy. Pure.

pub mod discovery;
pub mod eip;
pub mod new_failures;
pub mod pending_pods;
pub mod pod;
mod reasons;
pub mod resources;
pub mod spec;
pub mod volumes;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::documents;
use crate::model::reference::Reference;
use crate::model::text::{joined, printable};
use crate::model::workload::{ContainerKind, PodUse, PullPolicy};

/// Reads the workloads of a file (YAML or JSON): each container and image volume with its image, in order. Secrets and
/// other objects are skipped. `path` is used in messages only.
///
/// # Errors
/// If the file can't be parsed, has no workload, or has an invalid value. The message names the document and the key,
/// and what to write there.
pub fn read(bytes: &[u8], path: &str) -> Result<Vec<(Reference, PodUse)>, String> {
    let path = printable(path);
    let documents = documents::read(bytes).map_err(|reason| format!("{path}: {reason}"))?;
    let mut found = Found::default();
    for (index, document) in documents.iter().enumerate() {
        let place = if documents.len() > 1 {
            format!("{path}, document {}", index + 1)
        } else {
            path.clone()
        };
        found.collect(document, &path, &place, MAX_DEPTH)?;
    }
    let Found { uses, others } = found;
    if uses.is_empty() {
        let found = if others.is_empty() {
            "no Kubernetes object".to_owned()
        } else {
            joined(others)
        };
        return Err(format!(
            "{path} has no workload (it holds {found}); use a file with a Pod, Deployment, StatefulSet, \
             DaemonSet, Job, CronJob or another manifest with spec.template.spec.containers"
        ));
    }
    Ok(uses)
}

/// The content of all documents.
#[derive(Default)]
struct Found {
    uses: Vec<(Reference, PodUse)>,
    /// Kinds of objects that are not workloads.
    others: BTreeSet<String>,
}

impl Found {
    fn collect(
        &mut self,
        document: &Value,
        path: &str,
        place: &str,
        depth: usize,
    ) -> Result<(), String> {
        let Some(object) = document.as_object() else {
            return Ok(());
        };
        let kind = object.get("kind").and_then(Value::as_str);
        let kind = kind.unwrap_or("no kind");
        if let Some(items) = object.get("items").and_then(Value::as_array)
            && kind.ends_with("List")
            && depth > 0
        {
            for (index, item) in items.iter().enumerate() {
                let place = format!("{place}, items[{index}]");
                self.collect(item, path, &place, depth - 1)?;
            }
            return Ok(());
        }
        match pod_of(object, kind) {
            Some((pod, at)) => {
                let manifest = Manifest {
                    object,
                    kind,
                    pod,
                    at,
                    place,
                };
                self.uses.extend(manifest.read(path)?);
            }
            None if WORKLOADS.contains(&kind) => {
                let key = if kind == "Pod" {
                    "spec"
                } else {
                    "spec.template"
                };
                return Err(format!(
                    "{place}: {key} of the {kind} is missing; it holds the pod's containers"
                ));
            }
            None => {
                self.others.insert(printable(kind));
            }
        }
        Ok(())
    }
}

/// The pod template in an object, with the key path to it.
fn pod_of<'a>(object: &'a Map<String, Value>, kind: &str) -> Option<(&'a Value, &'static str)> {
    let has_containers = |pod: &Value| pod.pointer("/spec/containers").is_some();
    let spec = object.get("spec");
    match kind {
        "Pod" => return Some((spec?, "")),
        "CronJob" => {
            let template = spec?.pointer("/jobTemplate/spec/template")?;
            return Some((template, "spec.jobTemplate.spec.template."));
        }
        "PodTemplate" => return Some((object.get("template")?, "template.")),
        _ => {}
    }
    let template = spec?.get("template")?;
    let is_pods = WORKLOADS.contains(&kind) || has_containers(template);
    is_pods.then_some((template, "spec.template."))
}

/// A workload, or an item of a list.
struct Manifest<'a> {
    object: &'a Map<String, Value>,
    kind: &'a str,
    pod: &'a Value,
    at: &'static str,
    place: &'a str,
}

impl Manifest<'_> {
    fn read(&self, path: &str) -> Result<Vec<(Reference, PodUse)>, String> {
        let is_pod = self.at.is_empty();
        let (metadata, spec) = if is_pod {
            (self.object.get("metadata"), Some(self.pod))
        } else {
            (self.pod.get("metadata"), self.pod.get("spec"))
        };
        let spec = spec.and_then(Value::as_object).ok_or_else(|| {
            self.wrong("spec", "is missing; it holds the pod's list of containers")
        })?;
        let own = |name: &str| {
            let metadata = self.object.get("metadata")?;
            metadata.get(name)?.as_str().map(printable)
        };
        let annotations = |metadata: Option<&Value>| {
            let all = metadata.and_then(|metadata| metadata.get("annotations"));
            all.and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let mut eip = eip::check(&annotations(metadata));
        if !is_pod {
            let own = annotations(self.object.get("metadata"));
            eip.extend(eip::misplaced(self.kind, &own));
        }
        let service_account = ["serviceAccountName", "serviceAccount"]
            .iter()
            .find_map(|name| spec.get(*name)?.as_str().filter(|n| !n.is_empty()));
        // The fields that all containers share; image and policy are set later.
        let pod = PodUse {
            path: path.to_owned(),
            kind: printable(self.kind),
            namespace: own("namespace").filter(|n| !n.is_empty()),
            name: own("name")
                .or_else(|| own("generateName"))
                .unwrap_or_default(),
            container: String::new(),
            container_kind: ContainerKind::Container,
            policy: PullPolicy::Always,
            policy_is_default: true,
            image_present: false,
            pull_secrets: self.pull_secrets(spec)?,
            service_account: service_account.map(printable),
            eip,
            progress_deadline: self.progress_deadline(),
            secrets: Vec::new(),
        };
        let mut uses = Vec::new();
        for (list, kind) in [
            ("initContainers", ContainerKind::InitContainer),
            ("containers", ContainerKind::Container),
            ("ephemeralContainers", ContainerKind::EphemeralContainer),
        ] {
            let items = self.list(spec, list, "- name: …")?;
            for (index, item) in items.iter().enumerate() {
                let at = format!("spec.{list}[{index}]");
                let name = self.text(item, &at, "name")?;
                let keys = ["image", "imagePullPolicy"];
                uses.push(self.image(item, &at, keys, kind, name, &pod)?);
            }
        }
        if uses.is_empty() {
            return Err(self.wrong("spec.containers", "is empty; add at least one container"));
        }
        uses.extend(self.image_volumes(spec, &pod)?);
        Ok(uses)
    }

    /// How long a rollout may take; only a Deployment has this limit.
    fn progress_deadline(&self) -> Option<Duration> {
        let spec = self
            .object
            .get("spec")
            .filter(|_| self.kind == "Deployment");
        let given = spec?.get("progressDeadlineSeconds").and_then(Value::as_u64);
        Some(Duration::from_secs(given.unwrap_or(PROGRESS_DEADLINE)))
    }

    /// A list of the pod's `spec`; empty if absent. `entry` is an example of an entry for the message.
    fn list<'a>(
        &self,
        spec: &'a Map<String, Value>,
        list: &str,
        entry: &str,
    ) -> Result<&'a [Value], String> {
        let wrong = |what: &str| Err(self.wrong(&format!("spec.{list}"), what));
        match spec.get(list) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) if items.len() > MAX_ITEMS => {
                wrong(&format!("has more than {MAX_ITEMS} entries"))
            }
            Some(Value::Array(items)) => Ok(items),
            Some(_) => wrong(&format!("is not a list; write `{entry}` below it")),
        }
    }

    /// The images of `volumes[].image`.
    fn image_volumes(
        &self,
        spec: &Map<String, Value>,
        pod: &PodUse,
    ) -> Result<Vec<(Reference, PodUse)>, String> {
        let mut volumes = Vec::new();
        for (index, item) in self.list(spec, "volumes", "- name: …")?.iter().enumerate() {
            let at = format!("spec.volumes[{index}]");
            let image = match item.get("image") {
                None | Some(Value::Null) => continue,
                Some(image @ Value::Object(_)) => image,
                Some(_) => {
                    let what = "is not an object; write `image: {reference: …}`";
                    return Err(self.wrong(&format!("{at}.image"), what));
                }
            };
            let name = self.text(item, &at, "name")?;
            let (at, keys) = (format!("{at}.image"), ["reference", "pullPolicy"]);
            volumes.push(self.image(image, &at, keys, ContainerKind::ImageVolume, name, pod)?);
        }
        Ok(volumes)
    }

    /// Reads an image and its pull policy from the given keys of an object.
    fn image(
        &self,
        item: &Value,
        at: &str,
        [image_key, policy_key]: [&str; 2],
        kind: ContainerKind,
        name: Option<&str>,
        pod: &PodUse,
    ) -> Result<(Reference, PodUse), String> {
        let image = self.text(item, at, image_key)?;
        let image = image.filter(|image| !image.is_empty()).ok_or_else(|| {
            let what = "is missing; write, for instance, registry.example.com/team/app:1.0";
            self.wrong(&format!("{at}.{image_key}"), what)
        })?;
        let policy = match self.text(item, at, policy_key)? {
            None | Some("") => None,
            Some(word) => Some(PullPolicy::of(word).ok_or_else(|| {
                let word = printable(word);
                let what = format!("is '{word}'; write Always, IfNotPresent or Never");
                self.wrong(&format!("{at}.{policy_key}"), &what)
            })?),
        };
        let reference: Reference = image
            .parse()
            .map_err(|error| format!("{}: {error}", self.key(&format!("{at}.{image_key}"))))?;
        let pod = PodUse {
            container: name.map(printable).unwrap_or_default(),
            container_kind: kind,
            policy: policy.unwrap_or_else(|| PullPolicy::default_for(&reference)),
            policy_is_default: policy.is_none(),
            ..pod.clone()
        };
        Ok((reference, pod))
    }

    fn text<'a>(&self, item: &'a Value, at: &str, name: &str) -> Result<Option<&'a str>, String> {
        match item.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => {
                Err(self.wrong(&format!("{at}.{name}"), "is not a string; put it in quotes"))
            }
        }
    }

    fn pull_secrets(&self, spec: &Map<String, Value>) -> Result<Vec<String>, String> {
        let items = self.list(spec, "imagePullSecrets", "- name: SECRET")?;
        let read = |(index, item): (usize, &Value)| {
            let name = item.get("name").and_then(Value::as_str);
            let name = name.filter(|name| !name.is_empty()).ok_or_else(|| {
                let at = format!("spec.imagePullSecrets[{index}]");
                self.wrong(&at, "has no name; write `- name: SECRET`")
            });
            name.map(printable)
        };
        items.iter().enumerate().map(read).collect()
    }

    fn key(&self, key: &str) -> String {
        format!("{}: {}{key}", self.place, self.at)
    }

    fn wrong(&self, key: &str, what: &str) -> String {
        format!("{} {what}", self.key(key))
    }
}

/// Default of a Deployment's `progressDeadlineSeconds`.
const PROGRESS_DEADLINE: u64 = 600;

/// Kinds of workloads. Objects of other kinds count if they have `spec.template.spec.containers`.
const WORKLOADS: &[&str] = &[
    "Pod",
    "PodTemplate",
    "Deployment",
    "ReplicaSet",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "ReplicationController",
];

/// Upper bound for lists within lists.
const MAX_DEPTH: usize = 3;

/// Upper bound for the entries of a list in a pod's `spec`.
const MAX_ITEMS: usize = 500;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CCE: &str = include_str!("../../tests/data/cce-deployment.yaml");

    fn uses(text: &str) -> Vec<(String, PodUse)> {
        let uses = read(text.as_bytes(), "w.yaml").unwrap();
        uses.into_iter()
            .map(|(reference, pod)| (reference.to_string(), pod))
            .collect()
    }

    fn error(text: &str) -> String {
        read(text.as_bytes(), "w.yaml").unwrap_err()
    }

    #[test]
    fn the_deployment_of_the_documentation_is_read() {
        let uses = uses(CCE);
        assert_eq!(uses.len(), 1);
        let (image, pod) = &uses[0];
        assert_eq!(image, "www.example.com/janedoe/awesomeapp:v1");
        assert_eq!(pod.place(), "Deployment default/foo, container container-0");
        assert_eq!(
            (pod.policy, pod.policy_is_default),
            (PullPolicy::Always, false)
        );
        assert_eq!(pod.pull_secrets, ["test"]);
        assert_eq!(pod.eip, []);
    }

    #[test]
    fn every_kind_of_workload_and_container_is_found() {
        let spec = "{initContainers: [{name: i, image: i}], containers: [{name: c, image: 'c:latest'}], \
                    ephemeralContainers: [{name: e, image: 'e:1'}], serviceAccountName: robot}";
        for (kind, body) in [
            ("Pod", format!("spec: {spec}")),
            (
                "Deployment",
                format!("spec: {{template: {{spec: {spec}}}}}"),
            ),
            (
                "CronJob",
                format!("spec: {{jobTemplate: {{spec: {{template: {{spec: {spec}}}}}}}}}"),
            ),
            ("PodTemplate", format!("template: {{spec: {spec}}}")),
            ("CloneSet", format!("spec: {{template: {{spec: {spec}}}}}")),
        ] {
            let uses = uses(&format!("kind: {kind}\nmetadata: {{name: n}}\n{body}\n"));
            let shown: Vec<_> = uses
                .iter()
                .map(|(image, pod)| (image.as_str(), pod.container_kind, pod.policy))
                .collect();
            assert_eq!(
                shown,
                [
                    (
                        "docker.io/library/i:latest",
                        ContainerKind::InitContainer,
                        PullPolicy::Always
                    ),
                    (
                        "docker.io/library/c:latest",
                        ContainerKind::Container,
                        PullPolicy::Always
                    ),
                    (
                        "docker.io/library/e:1",
                        ContainerKind::EphemeralContainer,
                        PullPolicy::IfNotPresent
                    ),
                ],
                "{kind}"
            );
            assert_eq!(uses[0].1.service_account.as_deref(), Some("robot"));
        }
    }

    #[test]
    fn image_volumes_are_read_beside_the_containers() {
        let spec = "{containers: [{name: c, image: 'reg.example/a:1'}], imagePullSecrets: [{name: s}], \
                    volumes: [{name: tmp, emptyDir: {}}, {name: disk, rbd: {image: other}}, \
                    {name: m, image: {reference: 'quay.example/models/llm:v1', pullPolicy: Never}}, \
                    {name: k, image: {reference: k}}]}";
        let text = format!(
            "kind: Deployment\nmetadata: {{name: web}}\nspec: {{template: {{spec: {spec}}}}}\n"
        );
        let uses = uses(&text);
        let shown: Vec<_> = uses
            .iter()
            .map(|(image, pod)| (image.as_str(), pod.place(), pod.policy))
            .collect();
        let place = |what: &str| format!("Deployment web, {what}");
        assert_eq!(
            shown,
            [
                (
                    "reg.example/a:1",
                    place("container c"),
                    PullPolicy::IfNotPresent
                ),
                (
                    "quay.example/models/llm:v1",
                    place("image volume m"),
                    PullPolicy::Never
                ),
                (
                    "docker.io/library/k:latest",
                    place("image volume k"),
                    PullPolicy::Always
                ),
            ]
        );
        assert_eq!(uses[1].1.pull_secrets, ["s"]);
    }

    #[test]
    fn several_documents_and_lists_are_read_and_others_passed_over() {
        let pod = "{kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: a}]}}";
        let text = format!(
            "kind: Secret\ndata: {{x: aHVudGVyMg==}}\n---\n{pod}\n---\nkind: List\nitems: [{pod}, {{kind: Service}}]\n"
        );
        assert_eq!(uses(&text).len(), 2);
        let json = format!(
            "{{\"kind\": \"PodList\", \"items\": [{}]}}",
            "{\"kind\":\"Pod\",\"spec\":{\"containers\":[{\"image\":\"a\"}]}}"
        );
        assert_eq!(uses(&json).len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_key_and_the_fix() {
        for (text, want) in [
            ("kind: Pod\nspec: {}\n", "w.yaml: spec.containers is empty"),
            ("kind: Pod\n", "w.yaml: spec of the Pod is missing"),
            (
                "kind: Deployment\n",
                "spec.template of the Deployment is missing",
            ),
            (
                "kind: Deployment\nspec: {template: {}}\n",
                "spec.template.spec is missing",
            ),
            (
                "kind: Deployment\nspec: {template: {spec: {containers: {}}}}\n",
                "spec.template.spec.containers is not a list",
            ),
            (
                "kind: Pod\nspec: {containers: [{name: a}]}\n",
                "spec.containers[0].image is missing",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: 5}]}\n",
                "spec.containers[0].image is not a string",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: a, imagePullPolicy: always}]}\n",
                "write Always, IfNotPresent or Never",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: a}], volumes: [{image: {}}]}\n",
                "w.yaml: spec.volumes[0].image.reference is missing",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: a}], volumes: [{image: b}]}\n",
                "spec.volumes[0].image is not an object",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: a}], volumes: [{image: {reference: b, pullPolicy: x}}]}\n",
                "spec.volumes[0].image.pullPolicy is 'x'; write Always",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: a}], imagePullSecrets: [x]}\n",
                "imagePullSecrets[0] has no name",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: a}], imagePullSecrets: x}\n",
                "imagePullSecrets is not a list",
            ),
            (
                "kind: Pod\nspec: {containers: [{image: 'https://a/b'}]}\n",
                "w.yaml: spec.containers[0].image: an image reference does not begin with",
            ),
            (
                "kind: Service\n---\nkind: ConfigMap\n",
                "it holds ConfigMap, Service",
            ),
            ("a: [\n", "can't be read as YAML, at line"),
            (
                "kind: Service\n---\nkind: Pod\nspec: {containers: [{}]}\n",
                "w.yaml, document 2: spec.containers[0].image",
            ),
        ] {
            let error = error(text);
            assert!(error.contains(want), "{text}: {error}");
        }
    }

    #[test]
    fn annotations_on_the_workload_itself_are_reported() {
        let text = "kind: Deployment\nmetadata: {annotations: {yangtse.io/pod-with-eip: 'true'}}\n\
                    spec: {template: {spec: {containers: [{image: a}]}}}\n";
        let problems = &uses(text)[0].1.eip;
        assert_eq!(problems.len(), 1);
        assert!(problems[0].is_without_effect());
        assert!(
            problems[0]
                .to_string()
                .contains("are on the Deployment itself")
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes, "w.yaml");
        }

        #[test]
        fn a_spoiled_manifest_is_read_or_refused(at in 0..CCE.len(), with in "\\PC{0,5}") {
            if CCE.is_char_boundary(at) {
                let text = format!("{}{with}{}", &CCE[..at], &CCE[at..]);
                let _ = read(text.as_bytes(), "w.yaml");
            }
        }
    }

    #[test]
    fn a_deployment_has_a_deadline_and_nothing_else_has() {
        let deadline = |kind: &str, more: &str| {
            let text = format!(
                "kind: {kind}\nmetadata: {{name: foo}}\nspec: {{{more}template: {{spec: {{containers: [{{name: c, image: a}}]}}}}}}\n"
            );
            read(text.as_bytes(), "foo.yaml").unwrap()[0]
                .1
                .progress_deadline
        };
        let seconds = |n| Some(Duration::from_secs(n));
        assert_eq!(deadline("Deployment", ""), seconds(600));
        let given = "progressDeadlineSeconds: 90, ";
        assert_eq!(deadline("Deployment", given), seconds(90));
        assert_eq!(deadline("DaemonSet", given), None);
    }
}
