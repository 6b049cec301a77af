//! Finds the pods in an object of a manifest: where kinds of Kubernetes itself have them, and anywhere in objects of
//! other kinds. Pure.

use std::collections::HashMap;

use serde_json::{Map, Value};

use crate::model::reference::Reference;
use crate::model::text::printable;

/// A map of an object that has images: the `spec` of a pod, or what resembles one.
pub(super) struct PodSpec<'a> {
    /// The path to it: `spec.template.spec`.
    pub at: String,
    /// The map itself.
    pub spec: &'a Map<String, Value>,
    /// The pod template's metadata.
    pub metadata: Option<&'a Value>,
    /// Entries of `imagePullSecrets` of the object around it, if it has none of its own.
    pub secrets: Vec<&'a Value>,
    /// The same for `serviceAccountName`.
    pub service_account: Option<&'a Value>,
    /// Whether it has an `image` of its own, beside lists of containers or without any.
    pub is_lone: bool,
}

/// Where an object of this kind has its pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// It is a pod.
    Pod,
    /// The path to its pod template.
    Template(&'static str),
    /// A kind that is not one of Kubernetes' own: anywhere.
    Anywhere,
    /// A kind whose lists of containers are patterns or schemas and not those of pods.
    Nowhere,
}

impl Place {
    /// The kind decides together with the group: a Job of batch.volcano.sh has no `spec.template`. Without
    /// `apiVersion`, the kind alone is all there is.
    pub(super) fn of(api_version: Option<&str>, kind: &str) -> Self {
        let group = api_version.map(group);
        let is_in = |groups: &[&str]| group.is_none_or(|group| groups.contains(&group));
        match kind {
            "Pod" if is_in(&[""]) => Self::Pod,
            "PodTemplate" if is_in(&[""]) => Self::Template("template"),
            "ReplicationController" if is_in(&[""]) => Self::Template("spec.template"),
            "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet"
                if is_in(&["apps", "extensions"]) =>
            {
                Self::Template("spec.template")
            }
            "Job" if is_in(&["batch"]) => Self::Template("spec.template"),
            "CronJob" if is_in(&["batch"]) => Self::Template("spec.jobTemplate.spec.template"),
            _ if group.is_some_and(is_of_patterns) => Self::Nowhere,
            _ => Self::Anywhere,
        }
    }
}

/// `apps` of `apps/v1`; empty for `v1`.
fn group(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Groups of policies, which match containers, and of definitions, which describe them.
fn is_of_patterns(group: &str) -> bool {
    let is_below = |domain: &str| {
        let rest = group.strip_suffix(domain);
        rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    ["kyverno.io", "gatekeeper.sh", "apiextensions.k8s.io"]
        .into_iter()
        .any(is_below)
}

/// Groups whose controllers make containers of an `image` that is beside no list of containers: Spark, Flink, Strimzi,
/// the Prometheus operator, OpenKruise, Kubeflow's Trainer, `KServe`, Tekton, Rook, OpenTelemetry. In other groups an
/// `image` may be one of a virtual machine, or a picture.
const LONE_IMAGES: &[&str] = &[
    "serving.kserve.io",
    "tekton.dev",
    "ceph.rook.io",
    "opentelemetry.io",
    "sparkoperator.k8s.io",
    "spark.apache.org",
    "flink.apache.org",
    "kafka.strimzi.io",
    "core.strimzi.io",
    "monitoring.coreos.com",
    "apps.kruise.io",
    "trainer.kubeflow.org",
];

/// Whether the controllers of a group make containers of any `image`. Elastic has a group for each of its programs.
fn has_lone_images(group: &str) -> bool {
    LONE_IMAGES.contains(&group) || group.ends_with(".k8s.elastic.co")
}

/// Keys beside an `image` that only a container has, or an object that its controller makes into one.
const SIGNS: &[&str] = &[
    "args",
    "command",
    "env",
    "envFrom",
    "imagePullPolicy",
    "imagePullSecrets",
    "livenessProbe",
    "podTemplate",
    "readinessProbe",
    "replicas",
    "resources",
    "securityContext",
    "serviceAccountName",
    "volumeMounts",
];

/// Whether a map of any group is a container: its `image` has a registry, a folder or a tag, and a [sign](SIGNS) is
/// beside it.
fn resembles_container(map: &Map<String, Value>) -> bool {
    let image = map.get("image").and_then(Value::as_str).unwrap_or_default();
    image.contains(['/', ':'])
        && image.parse::<Reference>().is_ok()
        && SIGNS.iter().any(|sign| map.contains_key(*sign))
}

/// Lists of a pod's `spec` that have containers, in the order in which they start.
pub(super) const LISTS: &[&str] = &["initContainers", "containers", "ephemeralContainers"];

/// Lists of containers in other objects: of Argo Workflows, and of Tekton.
pub(super) const OTHER_LISTS: &[&str] = &["sidecars", "steps"];

/// Single containers in other objects: of Argo Workflows, and the disks of KubeVirt.
pub(super) const SINGLE: &[&str] = &["container", "script", "containerDisk"];

/// All pods of an object of any kind, wherever they are. What describes the object itself, and what its controller
/// wrote about it, is left out.
pub(super) fn anywhere<'a>(
    object: &'a Map<String, Value>,
    api_version: Option<&str>,
) -> Vec<PodSpec<'a>> {
    let mut walk = Walk {
        pods: Vec::new(),
        around: vec![object],
        secrets: HashMap::new(),
        has_lone: api_version.is_some_and(|version| has_lone_images(group(version))),
    };
    for (key, value) in object {
        if !["apiVersion", "kind", "metadata", "status"].contains(&key.as_str()) {
            walk.value(value, key, &printable(key));
        }
    }
    walk.pods
}

struct Walk<'a> {
    pods: Vec<PodSpec<'a>>,
    /// The maps around the present value, the outermost first.
    around: Vec<&'a Map<String, Value>>,
    /// `imagePullSecrets` in and below a map, by its address.
    secrets: HashMap<*const Map<String, Value>, Vec<&'a Value>>,
    has_lone: bool,
}

impl<'a> Walk<'a> {
    fn value(&mut self, value: &'a Value, key: &str, at: &str) {
        match value {
            Value::Object(map) => self.map(map, key, at),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item, "", &format!("{at}[{index}]"));
                }
            }
            _ => {}
        }
    }

    fn map(&mut self, map: &'a Map<String, Value>, key: &str, at: &str) {
        let has_lists = has_images(map);
        let is_lone = is_image(map.get("image")) && (self.has_lone || resembles_container(map));
        // The map around the outermost is the object, whose metadata is not that of its pods.
        let template = self.around.last().filter(|_| self.around.len() > 1);
        let metadata = template
            .filter(|_| key == "spec")
            .and_then(|template| template.get("metadata"));
        self.around.push(map);
        if has_lists || is_lone {
            // The `spec` of a pod has all that counts for it.
            let is_whole = key == "spec" && map.get("containers").is_some_and(Value::is_array);
            let is_complete = is_whole || map.contains_key("imagePullSecrets");
            let mut accounts = self.around.iter().rev().filter(|_| !is_whole);
            let service_account = accounts.find_map(|map| map.get("serviceAccountName"));
            let secrets = if is_complete {
                Vec::new()
            } else {
                self.secrets_around()
            };
            self.pods.push(PodSpec {
                at: at.to_owned(),
                spec: map,
                metadata,
                secrets,
                service_account,
                is_lone,
            });
        }
        for (key, value) in map {
            // A container has no pods in it.
            if !is_read(key, value) {
                self.value(value, key, &format!("{at}.{}", printable(key)));
            }
        }
        self.around.pop();
    }

    /// The `imagePullSecrets` that apply where a map itself has none: those of the nearest map around it that has any,
    /// itself or below it. They are in several fields of such objects, as names or as maps with names.
    fn secrets_around(&mut self) -> Vec<&'a Value> {
        for map in self.around.iter().rev() {
            let found = self.secrets.entry(*map).or_insert_with(|| {
                let mut found = Vec::new();
                below(map, &mut found);
                found
            });
            if !found.is_empty() {
                return found.clone();
            }
        }
        Vec::new()
    }
}

fn below<'a>(map: &'a Map<String, Value>, found: &mut Vec<&'a Value>) {
    for (key, value) in map {
        match value {
            Value::Array(names) if key == "imagePullSecrets" => {
                for name in names {
                    if !found.contains(&name) {
                        found.push(name);
                    }
                }
            }
            Value::Object(map) if key != "status" && key != "metadata" => below(map, found),
            Value::Array(items) => {
                for map in items.iter().filter_map(Value::as_object) {
                    below(map, found);
                }
            }
            _ => {}
        }
    }
}

/// Whether a map has containers or image volumes with an image.
fn has_images(map: &Map<String, Value>) -> bool {
    map.iter()
        .any(|(key, value)| is_read(key, value) || key == "volumes" && has_image_volumes(value))
}

/// Whether it is a container, or a list of containers, with an image.
fn is_read(key: &str, value: &Value) -> bool {
    match value {
        Value::Array(items) => {
            (LISTS.contains(&key) || OTHER_LISTS.contains(&key))
                && items.iter().any(|item| is_image(item.get("image")))
        }
        Value::Object(container) => SINGLE.contains(&key) && is_image(container.get("image")),
        _ => false,
    }
}

fn has_image_volumes(volumes: &Value) -> bool {
    let items = volumes.as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .any(|item| is_image(item.pointer("/image/reference")))
}

/// Whether it is the text of an image, as written; an empty one is none, and neither is the blank that OpenShift's
/// objects have where a trigger sets the image.
pub(super) fn is_image(value: Option<&Value>) -> bool {
    let text = value.and_then(Value::as_str);
    text.is_some_and(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::read;

    /// The images, each with its container and the path, and the Secrets of the first.
    fn found(text: &str) -> (Vec<String>, Vec<String>) {
        let found = read(text.as_bytes(), "w.yaml").unwrap();
        assert_eq!(found.notes, []);
        let secrets = found.uses[0].1.pull_secrets.clone();
        let shown = found.uses.into_iter().map(|(reference, pod)| {
            let at = pod.found_at.unwrap_or_default();
            format!("{} {} {at}", reference.repository(), pod.container)
        });
        (shown.collect(), secrets)
    }

    #[test]
    fn pods_are_found_wherever_an_object_has_them() {
        let pod =
            "{spec: {imagePullSecrets: [{name: s}], containers: [{name: c, image: r.test/a}]}}";
        for (version, kind, spec, want) in [
            ("argoproj.io/v1alpha1", "Rollout", format!("{{template: {pod}}}"), "a c spec.template.spec"),
            ("apps.kruise.io/v1alpha1", "UnitedDeployment",
             format!("{{template: {{statefulSetTemplate: {{spec: {{template: {pod}}}}}}}}}"),
             "a c spec.template.statefulSetTemplate.spec.template.spec"),
            ("batch.volcano.sh/v1alpha1", "Job", format!("{{tasks: [{{template: {pod}}}]}}"), "a c spec.tasks[0].template.spec"),
            ("kubeflow.org/v1", "PyTorchJob", format!("{{pytorchReplicaSpecs: {{Worker: {{template: {pod}}}}}}}"),
             "a c spec.pytorchReplicaSpecs.Worker.template.spec"),
            ("ray.io/v1", "RayCluster", format!("{{headGroupSpec: {{template: {pod}}}}}"), "a c spec.headGroupSpec.template.spec"),
            ("jobset.x-k8s.io/v1alpha2", "JobSet",
             format!("{{replicatedJobs: [{{template: {{spec: {{template: {pod}}}}}}}]}}"),
             "a c spec.replicatedJobs[0].template.spec.template.spec"),
            ("argoproj.io/v1alpha1", "Workflow",
             "{imagePullSecrets: [{name: s}], templates: [{container: {name: c, image: r.test/a}}]}".to_owned(), "a c spec.templates[0]"),
            ("tekton.dev/v1", "Task", "{imagePullSecrets: [{name: s}], steps: [{name: c, image: r.test/a}]}".to_owned(), "a c spec"),
            ("sparkoperator.k8s.io/v1beta2", "SparkApplication",
             "{imagePullSecrets: [s], driver: {image: r.test/a}}".to_owned(), "a  spec.driver"),
            ("flink.apache.org/v1beta1", "FlinkDeployment",
             "{image: r.test/a, podTemplate: {spec: {imagePullSecrets: [{name: s}], containers: [{name: m}]}}}".to_owned(), "a  spec"),
            ("agent.k8s.elastic.co/v1alpha1", "Agent", "{image: r.test/a, podTemplate: {spec: {imagePullSecrets: [{name: s}]}}}".to_owned(), "a  spec"),
            ("cache.example/v1", "Cache", "{node: {image: r.test/a, replicas: 3, imagePullSecrets: [{name: s}]}}".to_owned(), "a  spec.node"),
            ("cache.example/v1", "Cache",
             "{imagePullSecrets: [{name: s}], extraContainers: [{name: c, image: 'r.test/a:1', args: []}]}".to_owned(), "a c spec.extraContainers[0]"),
            ("kafka.strimzi.io/v1beta2", "Kafka",
             "{kafka: {image: r.test/a, template: {pod: {imagePullSecrets: [{name: s}]}}}}".to_owned(), "a  spec.kafka"),
        ] {
            let text = format!("apiVersion: {version}\nkind: {kind}\nspec: {spec}\nstatus: {pod}\n");
            let secrets = vec!["s".to_owned()];
            assert_eq!(found(&text), (vec![want.to_owned()], secrets), "{kind}");
        }
    }

    #[test]
    fn what_resembles_a_pod_is_none() {
        for text in [
            // Patterns of a policy, a definition, an image that is not one of a container, a record of the past.
            "apiVersion: kyverno.io/v1\nkind: ClusterPolicy\nspec: {rules: [{validate: {pattern: {spec: {containers: [{image: '!*:latest'}]}}}}]}\n",
            "apiVersion: infra.example/v1\nkind: Machine\nspec: {image: ubuntu-24.04, replicas: 3}\n",
            "apiVersion: image.toolkit.fluxcd.io/v1\nkind: ImageRepository\nspec: {image: r.test/a, interval: 1m}\n",
            "apiVersion: kind.x-k8s.io/v1alpha4\nkind: Cluster\nnodes: [{image: 'kindest/node:v1', role: worker}]\n",
            "apiVersion: apps.openshift.io/v1\nkind: DeploymentConfig\nspec: {template: {spec: {containers: [{image: ' '}]}}}\n",
            // Not an object at all: the values of a chart, a pipeline.
            "web: {initContainers: [{image: r.test/a}]}\n",
            "jobs: {test: {container: {image: 'node:20'}}}\n",
            "apiVersion: argoproj.io/v1\nkind: Workflow\nspec: {}\nstatus: {spec: {containers: [{image: a}]}}\n",
            "apiVersion: batch.volcano.sh/v1alpha1\nkind: Job\nspec: {tasks: []}\n",
        ] {
            let error = read(text.as_bytes(), "w.yaml").unwrap_err();
            assert!(error.contains("has no workload (it holds"), "{error}");
        }
    }

    #[test]
    fn the_group_decides_with_the_kind() {
        for (version, kind, want) in [
            (Some("batch/v1"), "Job", Place::Template("spec.template")),
            (
                Some("batch/v1beta1"),
                "CronJob",
                Place::Template("spec.jobTemplate.spec.template"),
            ),
            (Some("batch.volcano.sh/v1alpha1"), "Job", Place::Anywhere),
            (Some("v1"), "Pod", Place::Pod),
            (Some("metrics.k8s.io/v1"), "Pod", Place::Anywhere),
            (Some("apps/v1"), "Job", Place::Anywhere),
            (None, "Deployment", Place::Template("spec.template")),
            (
                Some("policies.kyverno.io/v1"),
                "ValidatingPolicy",
                Place::Nowhere,
            ),
        ] {
            assert_eq!(Place::of(version, kind), want, "{version:?} {kind}");
        }
    }
}
