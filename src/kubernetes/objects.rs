//! The types of the Kubernetes objects that are read, one for each kind: its URL, and the fields in use. Every
//! request for them (get, list or watch) goes through an [`Api`] of the type, and its caller converts the
//! object. Leases and our own Events are also written; those are the complete types of k8s-openapi.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ContainerState, EventSeries, EventSource, LocalObjectReference, NodeAddress, NodeSystemInfo,
    ObjectReference,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, OwnerReference, Time};
use kube::api::ObjectMeta;
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::{Deserialize, Deserializer};
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::model::workload::ContainerKind;
use crate::workload::spec::ContainerSpec;
use crate::workload::spec::VolumeSpec;

// ---- their names --------------------------------------------------------------------------------

/// A kind of objects of API version v1. Displayed as RBAC names it: `deployments.apps`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ResourceName {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
}

const EVENTS: ResourceName = named("", "Event", "events");
const NODES: ResourceName = named("", "Node", "nodes");
pub(super) const PODS: ResourceName = named("", "Pod", "pods");
pub(super) const SECRETS: ResourceName = named("", "Secret", "secrets");
pub(super) const SERVICE_ACCOUNTS: ResourceName = named("", "ServiceAccount", "serviceaccounts");
/// `deployments.apps`.
pub const DEPLOYMENTS: ResourceName = named("apps", "Deployment", "deployments");
/// `replicasets.apps`.
pub const REPLICA_SETS: ResourceName = named("apps", "ReplicaSet", "replicasets");
/// `statefulsets.apps`.
pub const STATEFUL_SETS: ResourceName = named("apps", "StatefulSet", "statefulsets");
/// `daemonsets.apps`.
pub const DAEMON_SETS: ResourceName = named("apps", "DaemonSet", "daemonsets");
/// `jobs.batch`.
pub const JOBS: ResourceName = named("batch", "Job", "jobs");
/// `cronjobs.batch`.
pub const CRON_JOBS: ResourceName = named("batch", "CronJob", "cronjobs");

const fn named(group: &'static str, kind: &'static str, plural: &'static str) -> ResourceName {
    ResourceName {
        group,
        kind,
        plural,
    }
}

impl ResourceName {
    /// The kind, for instance `Deployment`.
    pub fn kind(self) -> &'static str {
        self.kind
    }

    fn path(self, namespace: Option<&str>) -> String {
        let Self { group, plural, .. } = self;
        let root = if group.is_empty() { "api" } else { "apis/" };
        match namespace {
            Some(namespace) => {
                format!(
                    "/{root}{group}/v1/namespaces/{}/{plural}",
                    segment(namespace)
                )
            }
            None => format!("/{root}{group}/v1/{plural}"),
        }
    }
}

impl fmt::Display for ResourceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dot = if self.group.is_empty() { "" } else { "." };
        write!(f, "{}{dot}{}", self.plural, self.group)
    }
}

/// Escapes a name for one path segment. A name that needs escaping is not valid; the API server then refuses it.
pub(super) fn segment(name: &str) -> String {
    form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// Implements what an [`Api`](kube::Api) requires of a type that has `metadata`. A type that stands for several
/// kinds takes the kind's name as an argument.
macro_rules! object {
    ($object:ident, $scope:ident, $meant:pat => $name:expr, $of:ty) => {
        impl Resource for $object {
            type DynamicType = $of;
            type Scope = kube::core::$scope;

            fn kind($meant: &$of) -> Cow<'_, str> {
                $name.kind.into()
            }

            fn group($meant: &$of) -> Cow<'_, str> {
                $name.group.into()
            }

            fn version(_: &$of) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural($meant: &$of) -> Cow<'_, str> {
                $name.plural.into()
            }

            fn url_path($meant: &$of, namespace: Option<&str>) -> String {
                $name.path(namespace)
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

object!(EventObject, NamespaceResourceScope, () => EVENTS, ());
object!(NodeObject, ClusterResourceScope, () => NODES, ());
object!(PodObject, NamespaceResourceScope, () => PODS, ());
object!(SecretObject, NamespaceResourceScope, () => SECRETS, ());
object!(AccountObject, NamespaceResourceScope, () => SERVICE_ACCOUNTS, ());
object!(WorkloadObject, DynamicResourceScope, name => name, ResourceName);

/// An `Api` for one namespace, or for all.
pub(super) fn in_scope<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

// ---- their metadata -----------------------------------------------------------------------------

/// Labels that hold a node's zone; the second one was used before Kubernetes 1.17.
pub(super) const ZONE_LABELS: [&str; 2] = [
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
];

/// The label that a Deployment puts on its ReplicaSets and their pods (kubernetes `apps/v1`
/// `DefaultDeploymentUniqueLabelKey`).
pub(super) const OF_A_DEPLOYMENT: &str = "pod-template-hash";

/// Reads `metadata` without managed fields (often larger than the rest), most labels, and the annotation of
/// `kubectl apply`, which repeats a Secret's content.
fn slim<'de, D: Deserializer<'de>>(from: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Slim {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
        creation_timestamp: Option<Time>,
        deletion_timestamp: Option<Time>,
        owner_references: Option<Vec<OwnerReference>>,
        labels: Option<BTreeMap<String, String>>,
        annotations: Option<BTreeMap<String, String>>,
    }
    let slim = Slim::deserialize(from)?;
    let mut annotations = slim.annotations.unwrap_or_default();
    annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
    let mut labels = slim.labels.unwrap_or_default();
    labels.retain(|label, _| label == OF_A_DEPLOYMENT || ZONE_LABELS.contains(&label.as_str()));
    Ok(ObjectMeta {
        name: slim.name,
        namespace: slim.namespace,
        uid: slim.uid,
        resource_version: slim.resource_version,
        creation_timestamp: slim.creation_timestamp,
        deletion_timestamp: slim.deletion_timestamp,
        owner_references: slim.owner_references,
        labels: (!labels.is_empty()).then_some(labels),
        annotations: (!annotations.is_empty()).then_some(annotations),
        ..ObjectMeta::default()
    })
}

// ---- pods ---------------------------------------------------------------------------------------

/// A Pod of core/v1, or the template of one.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct PodObject {
    #[serde(default, deserialize_with = "slim")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: PodSpec,
    #[serde(default)]
    pub(super) status: PodStatus,
}

impl PodObject {
    /// Whether it has ended or is being deleted.
    pub(super) fn is_over(&self) -> bool {
        let phase = self.status.phase.as_deref();
        self.metadata.deletion_timestamp.is_some() || matches!(phase, Some("Succeeded" | "Failed"))
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    init_containers: Vec<ContainerSpec>,
    containers: Vec<ContainerSpec>,
    ephemeral_containers: Vec<ContainerSpec>,
    pub(super) volumes: Vec<VolumeSpec>,
    pub(super) image_pull_secrets: Vec<LocalObjectReference>,
    pub(super) service_account_name: Option<String>,
    pub(super) node_name: Option<String>,
}

impl PodSpec {
    /// All containers: init containers, then containers, then ephemeral ones.
    pub(super) fn containers(&self) -> impl Iterator<Item = (ContainerKind, &ContainerSpec)> {
        [
            (ContainerKind::InitContainer, &self.init_containers),
            (ContainerKind::Container, &self.containers),
            (
                ContainerKind::EphemeralContainer,
                &self.ephemeral_containers,
            ),
        ]
        .into_iter()
        .flat_map(|(kind, list)| list.iter().map(move |one| (kind, one)))
    }
}

/// The names of the references, without empty ones.
pub(super) fn names(list: Vec<LocalObjectReference>) -> Vec<String> {
    let names = list.into_iter().map(|named| named.name);
    names.filter(|name| !name.is_empty()).collect()
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    phase: Option<String>,
    pub(super) conditions: Vec<Condition>,
    init_container_statuses: Vec<ContainerStatus>,
    container_statuses: Vec<ContainerStatus>,
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

impl PodStatus {
    /// The status of one container; `None`: the kubelet has not reported one yet.
    pub(super) fn of(&self, kind: ContainerKind, name: &str) -> Option<&ContainerStatus> {
        let statuses = match kind {
            ContainerKind::InitContainer => &self.init_container_statuses,
            ContainerKind::Container => &self.container_statuses,
            ContainerKind::EphemeralContainer => &self.ephemeral_container_statuses,
            ContainerKind::ImageVolume => return None,
        };
        statuses.iter().find(|status| status.name == name)
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ContainerStatus {
    name: String,
    #[serde(default, rename = "imageID")]
    pub(super) image_id: String,
    #[serde(default)]
    pub(super) state: ContainerState,
}

/// A condition of an object of any kind.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Condition {
    #[serde(rename = "type")]
    pub(super) kind: String,
    pub(super) status: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) message: String,
}

// ---- workloads and service accounts -------------------------------------------------------------

/// A workload: an object of apps/v1 or batch/v1, or the Job template of a CronJob.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WorkloadObject {
    #[serde(default, deserialize_with = "slim")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: WorkloadSpec,
    #[serde(default)]
    pub(super) status: WorkloadStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct WorkloadSpec {
    pub(super) template: Option<PodObject>,
    /// Only a CronJob has one.
    pub(super) job_template: Option<Box<WorkloadObject>>,
    pub(super) replicas: Option<i64>,
    pub(super) suspend: bool,
    pub(super) selector: LabelSelector,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkloadStatus {
    pub(super) conditions: Vec<Condition>,
}

/// A ServiceAccount of core/v1.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AccountObject {
    #[serde(deserialize_with = "slim")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) image_pull_secrets: Vec<LocalObjectReference>,
}

// ---- Secrets ------------------------------------------------------------------------------------

/// A Secret of core/v1.
#[derive(Clone, Deserialize)]
pub(super) struct SecretObject {
    #[serde(deserialize_with = "slim")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) data: BTreeMap<String, Zeroizing<String>>,
    #[serde(default, rename = "type")]
    pub(super) kind: String,
}

impl fmt::Debug for SecretObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretObject")
            .field("name", &self.metadata.name)
            .finish_non_exhaustive()
    }
}

// ---- nodes --------------------------------------------------------------------------------------

/// A Node of core/v1.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct NodeObject {
    #[serde(deserialize_with = "slim")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: NodeSpec,
    #[serde(default)]
    pub(super) status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NodeSpec {
    #[serde(rename = "providerID")]
    pub(super) provider_id: String,
    pub(super) unschedulable: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct NodeStatus {
    pub(super) addresses: Vec<NodeAddress>,
    pub(super) conditions: Vec<Condition>,
    pub(super) node_info: NodeSystemInfo,
}

// ---- Events -------------------------------------------------------------------------------------

/// An Event of core/v1. The API server serves the same objects as events.k8s.io/v1.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventObject {
    #[serde(deserialize_with = "slim")]
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) involved_object: ObjectReference,
    /// `Normal` or `Warning`.
    #[serde(rename = "type")]
    pub(super) kind: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) message: Option<String>,
    #[serde(default)]
    pub(super) source: EventSource,
    pub(super) reporting_component: Option<String>,
    pub(super) reporting_instance: Option<String>,
    pub(super) count: Option<i32>,
    pub(super) first_timestamp: Option<Timestamp>,
    pub(super) last_timestamp: Option<Timestamp>,
    pub(super) event_time: Option<Timestamp>,
    pub(super) series: Option<EventSeries>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_where_the_api_server_has_them() {
        assert_eq!(NodeObject::url_path(&(), None), "/api/v1/nodes");
        assert_eq!(
            WorkloadObject::url_path(&CRON_JOBS, Some("shop")),
            "/apis/batch/v1/namespaces/shop/cronjobs"
        );
        // A name can't leave its segment.
        assert_eq!(
            PodObject::url_path(&(), Some("a/../b?x=1")),
            "/api/v1/namespaces/a%2F..%2Fb%3Fx%3D1/pods"
        );
    }
}
