//! Reads Kubernetes workloads from manifests and from the API's objects: which images their pods pull, with which pull
//! secrets and which pull policy. Pure.

pub mod discovery;
pub mod eip;
pub mod new_failures;
pub mod pending_pods;
pub mod pod;
pub mod reasons;
pub mod resources;
mod search;
pub mod share;
pub mod spec;
pub mod volumes;

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::documents::{self, Document, ManifestNote, NoteKind};
use crate::model::reference::{Reference, ReferenceError};
use crate::model::text::{joined, printable};
use crate::model::workload::{ContainerKind, PodUse, PullPolicy};
use search::{Place, PodSpec};

/// What the workloads of a file pull.
#[derive(Debug, Default)]
pub struct Workloads {
    /// Each container and image volume with its image, in order.
    pub uses: Vec<(Reference, PodUse)>,
    /// What can't be read, is probably a mistake, or has no image.
    pub notes: Vec<ManifestNote>,
}

/// Reads the workloads of a file (YAML or JSON). Secrets and other objects are skipped. `path` is used in messages
/// only.
///
/// # Errors
/// If the file is not text, or [has no image](of_documents).
pub fn read(bytes: &[u8], path: &str) -> Result<Workloads, String> {
    let documents =
        documents::read_each(bytes).map_err(|reason| format!("{}: {reason}", printable(path)))?;
    of_documents(&documents, path).map_err(|note| note.text)
}

/// The same of documents that were read.
///
/// # Errors
/// If none of them has an image that can be read. The note names each document and the key, and what to write there.
pub fn of_documents(
    documents: &[Result<Document, String>],
    path: &str,
) -> Result<Workloads, ManifestNote> {
    let path = printable(path);
    let mut reader = Reader {
        path: &path,
        found: Workloads::default(),
        others: BTreeSet::new(),
    };
    for (index, document) in documents.iter().enumerate() {
        let place = if documents.len() > 1 {
            format!("{path}, document {}", index + 1)
        } else {
            path.clone()
        };
        match document {
            Ok(document) => {
                for key in &document.duplicates {
                    let text = format!("{key} is given more than once; the last value counts");
                    reader.note(NoteKind::Warning, &place, text);
                }
                reader.collect(&document.value, &place, None, MAX_DEPTH);
            }
            Err(reason) => reader.note(NoteKind::Unread, &place, reason.clone()),
        }
    }
    let Reader { found, others, .. } = reader;
    if !found.uses.is_empty() {
        return Ok(found);
    }
    let nothing = |kind, text| ManifestNote {
        kind,
        place: "nothing to check".to_owned(),
        text,
    };
    let reasons: Vec<_> = found
        .notes
        .iter()
        .filter(|note| note.kind != NoteKind::Warning)
        .collect();
    if !reasons.is_empty() {
        let shown: Vec<String> = reasons
            .iter()
            .take(MAX_REASONS)
            .map(ToString::to_string)
            .collect();
        let more = match reasons.len().saturating_sub(MAX_REASONS) {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let is_unread = reasons.iter().any(|note| note.kind == NoteKind::Unread);
        let kind = if is_unread {
            NoteKind::Unread
        } else {
            NoteKind::PassedOver
        };
        return Err(nothing(kind, shown.join("; ") + &more));
    }
    let holds = if others.is_empty() {
        "no Kubernetes object".to_owned()
    } else {
        joined(others)
    };
    let text = format!(
        "{path} has no workload (it holds {holds}); use a file with a Pod, Deployment, StatefulSet, \
         DaemonSet, Job, CronJob or another manifest with a pod template"
    );
    Err(nothing(NoteKind::PassedOver, text))
}

/// Reasons that one message shows.
const MAX_REASONS: usize = 8;

struct Reader<'a> {
    path: &'a str,
    found: Workloads,
    /// Kinds of objects that are not workloads.
    others: BTreeSet<String>,
}

impl Reader<'_> {
    fn note(&mut self, kind: NoteKind, place: &str, text: String) {
        self.found.notes.push(ManifestNote {
            kind,
            place: place.to_owned(),
            text,
        });
    }

    /// `of_list`: version and kind of the items of a typed list, which have none themselves.
    fn collect(
        &mut self,
        document: &Value,
        place: &str,
        of_list: Option<(Option<&str>, &str)>,
        depth: usize,
    ) {
        let Some(object) = document.as_object() else {
            return;
        };
        let own = |name: &str| object.get(name).and_then(Value::as_str);
        let (api_version, kind) = match (own("kind"), of_list) {
            (Some(kind), _) => (own("apiVersion"), kind),
            (None, Some(of_list)) => of_list,
            // The values of a chart, a pipeline of another program: no object of Kubernetes.
            (None, None) => {
                self.others.insert("no kind".to_owned());
                return;
            }
        };
        if let Some(items) = object.get("items").and_then(Value::as_array)
            && let Some(of_items) = kind.strip_suffix("List")
        {
            if depth == 0 {
                let text = format!("is a list within more than {MAX_DEPTH} lists");
                self.note(NoteKind::Unread, place, text);
                return;
            }
            let typed = (!of_items.is_empty()).then_some((api_version, of_items));
            for (index, item) in items.iter().enumerate() {
                let place = format!("{place}, items[{index}]");
                self.collect(item, &place, typed, depth - 1);
            }
            return;
        }
        let mut pods = Vec::new();
        let where_ = Place::of(api_version, kind);
        match where_ {
            Place::Pod | Place::Template(_) => match known(object, where_) {
                Ok(pod) => pods.push(pod),
                Err(key) => {
                    let text = format!(
                        "{key} of the {} is missing; it holds the pod's containers. A patch may be written so",
                        printable(kind)
                    );
                    self.note(NoteKind::PassedOver, place, text);
                    return;
                }
            },
            Place::Anywhere => pods = search::anywhere(object, api_version),
            Place::Nowhere => {}
        }
        if pods.is_empty() {
            self.others.insert(printable(kind));
        }
        for pod in pods {
            let manifest = Manifest {
                object,
                kind,
                is_known: where_ != Place::Anywhere,
                pod,
                place,
                path: self.path,
            };
            if let Err(text) = manifest.read(&mut self.found) {
                let kind = NoteKind::Unread;
                let place = place.to_owned();
                self.found.notes.push(ManifestNote { kind, place, text });
            }
        }
    }
}

/// The pod of a kind of Kubernetes' own.
///
/// # Errors
/// The key that is missing.
fn known(object: &Map<String, Value>, place: Place) -> Result<PodSpec<'_>, String> {
    let (template, at) = match place {
        Place::Template(path) => {
            let pointer = format!("/{}", path.replace('.', "/"));
            let mut steps = pointer[1..].split('/');
            let first = steps.next().and_then(|step| object.get(step));
            let template = steps.try_fold(first, |value, step| Some(value?.get(step)));
            let template = template.flatten().filter(|template| !template.is_null());
            (
                template.ok_or_else(|| path.to_owned())?.as_object(),
                format!("{path}.spec"),
            )
        }
        _ => (Some(object), "spec".to_owned()),
    };
    let spec = template.and_then(|template| template.get("spec")?.as_object());
    Ok(PodSpec {
        spec: spec.ok_or_else(|| at.clone())?,
        at,
        metadata: template.and_then(|template| template.get("metadata")),
        secrets: Vec::new(),
        service_account: None,
        is_lone: false,
    })
}

/// A workload, or an item of a list.
struct Manifest<'a> {
    object: &'a Map<String, Value>,
    kind: &'a str,
    /// One of Kubernetes' own kinds, whose form is known.
    is_known: bool,
    pod: PodSpec<'a>,
    place: &'a str,
    path: &'a str,
}

impl Manifest<'_> {
    /// # Errors
    /// If a field that all containers share can't be read. What is wrong with one container is a note.
    fn read(&self, found: &mut Workloads) -> Result<(), String> {
        let spec = self.pod.spec;
        let secrets = self.pull_secrets(found)?;
        let shared = self.shared(secrets);
        let images = found.uses.len();
        let before = found.notes.len();
        let mut missing = None;
        for (list, kind) in [
            ("initContainers", ContainerKind::InitContainer),
            ("containers", ContainerKind::Container),
            ("ephemeralContainers", ContainerKind::EphemeralContainer),
        ] {
            for (index, item) in self.containers(list)?.iter().enumerate() {
                let at = format!("{list}[{index}]");
                if item.get("image").is_none_or(is_blank) && missing.is_none() {
                    missing = Some((format!("{at}.image"), "is missing"));
                }
                self.image(
                    item,
                    &at,
                    ["image", "imagePullPolicy"],
                    kind,
                    &shared,
                    found,
                );
            }
        }
        if !self.is_known {
            self.others(&shared, found)?;
        } else if spec.get("containers").is_none_or(is_blank) && missing.is_none() {
            missing = Some(("containers".to_owned(), "is empty"));
        }
        for (index, item) in self.list("volumes", "- name: …")?.iter().enumerate() {
            let at = format!("volumes[{index}]");
            let image = match item.get("image") {
                None | Some(Value::Null) => continue,
                Some(image @ Value::Object(_)) => image,
                Some(_) if !self.is_known => continue,
                Some(_) => {
                    let what = "is not an object; write `image: {reference: …}`";
                    self.unread(&format!("{at}.image"), what, found);
                    continue;
                }
            };
            let shared = PodUse {
                container: name_of(item),
                ..shared.clone()
            };
            let (at, keys) = (format!("{at}.image"), ["reference", "pullPolicy"]);
            self.image(image, &at, keys, ContainerKind::ImageVolume, &shared, found);
        }
        // Without any image, it is a patch of a workload rather than a workload.
        if let Some((key, what)) = missing
            && found.uses.len() == images
        {
            found.notes.truncate(before);
            let text = format!("{} {what}. A patch may be written so", self.key(&key));
            self.note(NoteKind::PassedOver, text, found);
        }
        Ok(())
    }

    /// The fields that all containers share; image and policy are set later.
    fn shared(&self, pull_secrets: Vec<String>) -> PodUse {
        let spec = self.pod.spec;
        let own = |name: &str| {
            let metadata = self.object.get("metadata")?;
            metadata.get(name)?.as_str().map(printable)
        };
        let annotations = |metadata: Option<&Value>| {
            let all = metadata.and_then(|metadata| metadata.get("annotations"));
            all.and_then(Value::as_object).cloned().unwrap_or_default()
        };
        let mut eip = eip::check(&annotations(self.pod.metadata));
        if self.kind != "Pod" {
            let own = annotations(self.object.get("metadata"));
            eip.extend(eip::misplaced(self.kind, &own));
        }
        let service_account = ["serviceAccountName", "serviceAccount"]
            .iter()
            .filter_map(|name| spec.get(*name))
            .chain(self.pod.service_account)
            .find_map(|name| name.as_str().filter(|n| !n.is_empty()));
        PodUse {
            path: self.path.to_owned(),
            kind: printable(self.kind),
            namespace: own("namespace").filter(|n| !n.is_empty()),
            name: own("name")
                .or_else(|| own("generateName"))
                .unwrap_or_default(),
            found_at: (!self.is_known).then(|| self.pod.at.clone()),
            container: String::new(),
            container_kind: ContainerKind::Container,
            policy: PullPolicy::Always,
            policy_is_default: true,
            image_present: false,
            pull_secrets,
            service_account: service_account.map(printable),
            eip,
            progress_deadline: self.progress_deadline(),
            secrets: Vec::new(),
        }
    }

    /// How long a rollout may take; only a Deployment has this limit.
    fn progress_deadline(&self) -> Option<Duration> {
        let spec = self
            .object
            .get("spec")
            .filter(|_| self.kind == "Deployment" && self.is_known);
        let given = spec?.get("progressDeadlineSeconds").and_then(Value::as_u64);
        Some(Duration::from_secs(given.unwrap_or(PROGRESS_DEADLINE)))
    }

    /// What only objects of other kinds have: containers that are in no list of a pod.
    fn others(&self, shared: &PodUse, found: &mut Workloads) -> Result<(), String> {
        let (keys, kind) = (["image", "imagePullPolicy"], ContainerKind::Container);
        let spec = self.pod.spec;
        if self.pod.is_lone {
            self.image_of(spec, "", keys, kind, shared, found);
        }
        for list in search::OTHER_LISTS {
            let is_list = spec.get(*list).is_some_and(Value::is_array);
            let items = if is_list {
                self.list(list, "- name: …")?
            } else {
                &[]
            };
            for (index, item) in items.iter().enumerate() {
                self.image(item, &format!("{list}[{index}]"), keys, kind, shared, found);
            }
        }
        for single in search::SINGLE {
            if let Some(item @ Value::Object(_)) = spec.get(*single) {
                self.image(item, single, keys, kind, shared, found);
            }
        }
        Ok(())
    }

    /// A list of the pod's `spec`; empty if absent. `entry` is an example of an entry for the message.
    fn list(&self, list: &str, entry: &str) -> Result<&[Value], String> {
        let wrong = |what: &str| Err(format!("{} {what}", self.key(list)));
        match self.pod.spec.get(list) {
            None | Some(Value::Null) => Ok(&[]),
            Some(Value::Array(items)) if items.len() > MAX_ITEMS => {
                wrong(&format!("has more than {MAX_ITEMS} entries"))
            }
            Some(Value::Array(items)) => Ok(items),
            Some(_) if !self.is_known => Ok(&[]),
            Some(_) => wrong(&format!("is not a list; write `{entry}` below it")),
        }
    }

    fn containers(&self, list: &str) -> Result<&[Value], String> {
        self.list(list, "- name: …")
    }

    /// Reads an image and its pull policy from the given keys of an object.
    fn image(
        &self,
        item: &Value,
        at: &str,
        keys: [&str; 2],
        kind: ContainerKind,
        shared: &PodUse,
        found: &mut Workloads,
    ) {
        match item.as_object() {
            Some(item) => self.image_of(item, &format!("{at}."), keys, kind, shared, found),
            None if self.is_known => self.unread(at, "is not a container", found),
            None => {}
        }
    }

    fn image_of(
        &self,
        item: &Map<String, Value>,
        at: &str,
        [image_key, policy_key]: [&str; 2],
        kind: ContainerKind,
        shared: &PodUse,
        found: &mut Workloads,
    ) {
        // In an object of another kind, a container without an image gets it from its controller.
        if !self.is_known && !search::is_image(item.get(image_key)) {
            return;
        }
        let read = || {
            let name = self.text(item, at, "name")?;
            let image = self.text(item, at, image_key)?;
            let image = image.filter(|image| !image.is_empty()).ok_or_else(|| {
                let what = "is missing; write, for instance, registry.example.com/team/app:1.0";
                format!("{} {what}", self.key(&format!("{at}{image_key}")))
            })?;
            let policy = match self.text(item, at, policy_key)? {
                None | Some("") => None,
                Some(word) => Some(PullPolicy::of(word).ok_or_else(|| {
                    let word = printable(word);
                    let what = format!("is '{word}'; write Always, IfNotPresent or Never");
                    format!("{} {what}", self.key(&format!("{at}{policy_key}")))
                })?),
            };
            let reference: Reference = image.parse().map_err(|error| {
                let key = self.key(&format!("{at}{image_key}"));
                match error {
                    ReferenceError::Placeholder(text) if self.fills_in(&text) => format!(
                        "{key}: '{}' is filled in when it runs; give the image itself: pullpath probe IMAGE",
                        printable(&text)
                    ),
                    error => format!("{key}: {error}"),
                }
            })?;
            let pod = PodUse {
                container: name.map_or_else(|| shared.container.clone(), printable),
                container_kind: kind,
                policy: policy.unwrap_or_else(|| PullPolicy::default_for(&reference)),
                policy_is_default: policy.is_none(),
                ..shared.clone()
            };
            Ok((reference, pod))
        };
        match read() {
            Ok(one) => found.uses.push(one),
            Err(text) => self.note(NoteKind::Unread, text, found),
        }
    }

    /// Whether the object's controller replaces this text when it makes the pod: a parameter of Argo Workflows or of
    /// Tekton. Helm's templates begin with a dot.
    fn fills_in(&self, text: &str) -> bool {
        let version = self.object.get("apiVersion").and_then(Value::as_str);
        match version.and_then(|version| version.split('/').next()) {
            Some("argoproj.io") => {
                let inner = text.split_once("{{").map(|(_, rest)| rest.trim_start());
                inner.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()))
            }
            Some("tekton.dev") => text.contains("$("),
            _ => false,
        }
    }

    fn text<'a>(
        &self,
        item: &'a Map<String, Value>,
        at: &str,
        name: &str,
    ) -> Result<Option<&'a str>, String> {
        match item.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) if !self.is_known => Ok(None),
            Some(_) => {
                let key = self.key(&format!("{at}{name}"));
                Err(format!("{key} is not a string; put it in quotes"))
            }
        }
    }

    /// An entry without a name is ignored by the API server, which only warns of it (kubernetes
    /// `pkg/api/pod/warnings.go`), and by the kubelet.
    fn pull_secrets(&self, found: &mut Workloads) -> Result<Vec<String>, String> {
        let own = self.list("imagePullSecrets", "- name: SECRET")?.iter();
        let mut names = Vec::new();
        for (index, item) in own.chain(self.pod.secrets.iter().copied()).enumerate() {
            let name = match item {
                Value::Object(entry) => entry.get("name").unwrap_or(&Value::Null),
                // Spark's objects have names only.
                Value::String(_) if !self.is_known => item,
                Value::Null => item,
                _ => {
                    let key = self.key(&format!("imagePullSecrets[{index}]"));
                    return Err(format!("{key} has no name; write `- name: SECRET`"));
                }
            };
            match name.as_str() {
                Some(name) if !name.is_empty() => names.push(printable(name)),
                _ if is_blank(name) => {
                    let key = self.key(&format!("imagePullSecrets[{index}]"));
                    let text = format!("{key} has no name, so it is ignored");
                    self.note(NoteKind::Warning, text, found);
                }
                _ => {
                    let key = self.key(&format!("imagePullSecrets[{index}].name"));
                    return Err(format!("{key} is not a string; put it in quotes"));
                }
            }
        }
        Ok(names)
    }

    fn unread(&self, key: &str, what: &str, found: &mut Workloads) {
        let text = format!("{} {what}", self.key(key));
        self.note(NoteKind::Unread, text, found);
    }

    fn note(&self, kind: NoteKind, text: String, found: &mut Workloads) {
        let place = self.place.to_owned();
        found.notes.push(ManifestNote { kind, place, text });
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.pod.at)
    }
}

fn name_of(item: &Value) -> String {
    let name = item.get("name").and_then(Value::as_str);
    name.map(printable).unwrap_or_default()
}

/// Nothing that the API server would take for a value.
fn is_blank(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// Default of a Deployment's `progressDeadlineSeconds`.
const PROGRESS_DEADLINE: u64 = 600;

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
        let found = read(text.as_bytes(), "w.yaml").unwrap();
        let uses = found.uses.into_iter();
        uses.map(|(reference, pod)| (reference.to_string(), pod))
            .collect()
    }

    fn error(text: &str) -> String {
        match read(text.as_bytes(), "w.yaml") {
            Ok(found) => joined(found.notes),
            Err(error) => error,
        }
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
                "spec.template.spec of the Deployment is missing",
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
    fn what_a_person_got_wrong_in_one_place_leaves_the_rest() {
        let pod = |image: &str| {
            format!(
                "kind: Pod\nspec: {{imagePullSecrets: [{{}}, {{name: ''}}, null, {{name: s}}], containers: [{image}]}}\n"
            )
        };
        let text = [
            pod("{image: a}, {name: b}, {image: '$(IMAGE)'}, {image: 'ko://x.test/c'}, {image: 5}"),
            "kind: Deployment\nspec: {template: {spec: {containers: [{name: c, env: []}]}}}\n"
                .to_owned(),
            "kind: Pod\nspec: {containers: [{image: x}], volumes: 5}\n".to_owned(),
            "a: [\n".to_owned(),
            "kind: Pod\nspec: {containers: [{image: d, image: e}]}\n".to_owned(),
        ];
        let found = read(text.join("---\n").as_bytes(), "w.yaml").unwrap();
        let images: Vec<_> = found
            .uses
            .iter()
            .map(|(image, _)| image.repository())
            .collect();
        // (The image beside an unreadable list of volumes is read before that list.)
        assert_eq!(images, ["library/a", "library/x", "library/e"]);
        assert_eq!(found.uses[0].1.pull_secrets, ["s"]);
        let notes: Vec<String> = found
            .notes
            .iter()
            .map(|note| format!("{}: {note}", note.kind.as_str()))
            .collect();
        for (note, want) in notes.iter().zip([
            "warning: w.yaml, document 1: spec.imagePullSecrets[0] has no name, so it is ignored",
            "warning: w.yaml, document 1: spec.imagePullSecrets[1] has no name",
            "warning: w.yaml, document 1: spec.imagePullSecrets[2] has no name",
            "not read: w.yaml, document 1: spec.containers[1].image is missing",
            "not read: w.yaml, document 1: spec.containers[2].image: '$(IMAGE)' is a placeholder that nothing has filled in",
            "not read: w.yaml, document 1: spec.containers[3].image: 'ko://x.test/c' is a placeholder",
            "not read: w.yaml, document 1: spec.containers[4].image is not a string",
            "passed over: w.yaml, document 2: spec.template.spec.containers[0].image is missing",
            "not read: w.yaml, document 3: spec.volumes is not a list",
            "not read: w.yaml, document 4: it can't be read as YAML, at line ",
            "warning: w.yaml, document 5: spec.containers[0].image is given more than once; the last value counts",
        ]) {
            assert!(note.starts_with(want), "{note}");
        }
        assert_eq!(notes.len(), 11, "{notes:#?}");
    }

    #[test]
    fn a_parameter_is_filled_in_by_its_controller_and_a_template_by_nothing() {
        for (version, kind, image, later) in [
            (
                "argoproj.io/v1alpha1",
                "Workflow",
                "{{inputs.parameters.image}}",
                true,
            ),
            (
                "argoproj.io/v1alpha1",
                "Workflow",
                "a:{{ workflow.parameters.tag }}",
                true,
            ),
            (
                "argoproj.io/v1alpha1",
                "Workflow",
                "{{ .Values.image }}",
                false,
            ),
            ("tekton.dev/v1", "Task", "$(params.image)", true),
            ("example.test/v1", "Task", "$(params.image)", false),
            ("v1", "Pod", "docker.io/{username}/a", false),
        ] {
            let error = error(&format!(
                "apiVersion: {version}\nkind: {kind}\nspec: {{containers: [{{image: '{image}'}}]}}\n"
            ));
            let want = if later {
                "is filled in when it runs; give the image itself"
            } else {
                "is a placeholder that nothing has filled in"
            };
            assert!(error.contains(&format!("'{image}' {want}")), "{error}");
        }
    }

    #[test]
    fn a_file_without_a_workload_is_no_part_that_could_not_be_read() {
        for (text, want) in [
            ("kind: Service\n", NoteKind::PassedOver),
            ("kind: Deployment\n", NoteKind::PassedOver),
            ("kind: Service\n---\na: [\n", NoteKind::Unread),
            (
                "kind: Pod\nspec: {containers: [{image: 5}]}\n",
                NoteKind::Unread,
            ),
        ] {
            let documents = documents::read_each(text.as_bytes()).unwrap();
            assert_eq!(
                of_documents(&documents, "w.yaml").unwrap_err().kind,
                want,
                "{text}"
            );
        }
    }

    #[test]
    fn items_of_a_typed_list_are_of_its_kind() {
        let job = "{spec: {template: {spec: {containers: [{image: a}]}}}}";
        for (list, at) in [
            ("apiVersion: batch/v1\nkind: JobList", None),
            (
                "apiVersion: batch.volcano.sh/v1\nkind: JobList",
                Some("spec.template.spec"),
            ),
        ] {
            let found = uses(&format!("{list}\nitems: [{job}]\n"));
            assert_eq!(
                (found[0].1.kind.as_str(), found[0].1.found_at.as_deref()),
                ("Job", at)
            );
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
            read(text.as_bytes(), "foo.yaml").unwrap().uses[0]
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
