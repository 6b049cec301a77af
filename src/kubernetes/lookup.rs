//! What a person's question needs of the cluster, read once: pods and what keeps them, their Events,
//! workloads, service accounts, nodes. Of each object only what is told of it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kube::Client;
use serde::Deserialize;
use url::form_urlencoded;

use super::ask::{self, AskError};
use super::shapes::{Named, PodSpec, names};
use crate::model::text::printable;
use crate::model::workload::ContainerKind;
use crate::workload::spec::ContainerSpec;
use crate::workload::stuck::{ContainerSeen, ContainerState, EventSeen, PodSeen, Said};
use crate::workload::volumes::{ImageVolume, Standing, Volumes, Word};

/// The path of objects of core/v1, or of one of them.
pub(super) fn path_of(namespace: Option<&str>, plural: &str, name: Option<&str>) -> String {
    path_in("/api/v1", namespace, plural, name)
}

fn path_in(group: &str, namespace: Option<&str>, plural: &str, name: Option<&str>) -> String {
    let segment = |text: &str| -> String {
        // A name that needs it is none; the API server says so.
        form_urlencoded::byte_serialize(text.as_bytes()).collect()
    };
    let mut path = group.to_owned();
    if let Some(namespace) = namespace {
        path.push_str("/namespaces/");
        path.push_str(&segment(namespace));
    }
    path.push('/');
    path.push_str(plural);
    if let Some(name) = name {
        path.push('/');
        path.push_str(&segment(name));
    }
    path
}

/// Of an object of which no more was asked for.
#[derive(Deserialize)]
pub(super) struct MetadataOnly {
    pub(super) metadata: Meta,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    #[serde(default)]
    pub(super) name: String,
    pub(super) namespace: Option<String>,
    #[serde(default)]
    uid: String,
    creation_timestamp: Option<Timestamp>,
    deletion_timestamp: Option<Timestamp>,
}

// ---- pods ---------------------------------------------------------------------------------------

#[derive(Deserialize)]
struct PodRaw {
    metadata: Meta,
    spec: PodSpec,
    #[serde(default)]
    status: PodStatus,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PodStatus {
    phase: Option<String>,
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    init_container_statuses: Vec<Status>,
    #[serde(default)]
    container_statuses: Vec<Status>,
    #[serde(default)]
    ephemeral_container_statuses: Vec<Status>,
}

#[derive(Deserialize)]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    status: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Status {
    name: String,
    #[serde(default)]
    state: State,
}

#[derive(Default, Deserialize)]
struct State {
    waiting: Option<Waiting>,
    running: Option<serde::de::IgnoredAny>,
    terminated: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Waiting {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

impl PodStatus {
    fn state(&self, kind: ContainerKind, name: &str) -> ContainerState {
        let statuses = match kind {
            ContainerKind::InitContainer => &self.init_container_statuses,
            ContainerKind::Container => &self.container_statuses,
            ContainerKind::EphemeralContainer => &self.ephemeral_container_statuses,
            ContainerKind::ImageVolume => return ContainerState::Untold,
        };
        let told = statuses.iter().find(|status| status.name == name);
        told.map_or(ContainerState::Untold, state_of)
    }
}

impl From<PodRaw> for PodSeen {
    fn from(raw: PodRaw) -> Self {
        let PodRaw {
            metadata,
            mut spec,
            status,
        } = raw;
        let mut volumes = Volumes::new(std::mem::take(&mut spec.volumes));
        let containers: Vec<ContainerSeen> = spec
            .containers()
            .map(|(kind, one)| {
                let state = status.state(kind, &one.name);
                ContainerSeen {
                    state: of_its_own(one, state, &mut volumes),
                    policy: one.policy(),
                    is_sidecar: kind == ContainerKind::InitContainer
                        && one.restart_policy.as_deref() == Some("Always"),
                    name: one.name.clone(),
                    kind,
                    image: one.image.clone(),
                }
            })
            .collect();
        let volumes = volumes.finish().map(of_volume);
        let unscheduled = status
            .conditions
            .into_iter()
            .find(|condition| condition.kind == "PodScheduled" && condition.status == "False");
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name,
            uid: metadata.uid,
            node: spec.node_name.filter(|node| !node.is_empty()),
            created: metadata.creation_timestamp,
            pull_secrets: names(spec.image_pull_secrets),
            service_account: spec.service_account_name,
            is_over: metadata.deletion_timestamp.is_some()
                || status
                    .phase
                    .is_some_and(|phase| phase == "Succeeded" || phase == "Failed"),
            unscheduled: unscheduled.map(|condition| Said {
                reason: condition.reason,
                message: condition.message,
            }),
            containers: volumes.chain(containers).collect(),
        }
    }
}

/// The state of a container as far as its own image goes; what it says of a volume's is kept with that.
fn of_its_own(
    container: &ContainerSpec,
    state: ContainerState,
    volumes: &mut Volumes<Said>,
) -> ContainerState {
    let word = match &state {
        ContainerState::Untold | ContainerState::BehindVolume => Word::Nothing,
        ContainerState::Running | ContainerState::Ended => Word::Created,
        ContainerState::Waiting(said) => Word::Waits {
            reason: &said.reason,
            message: &said.message,
            word: said.clone(),
        },
    };
    if volumes.take(container, word) {
        state
    } else {
        ContainerState::BehindVolume
    }
}

fn of_volume((volume, standing, is_mounted): (ImageVolume, Standing<Said>, bool)) -> ContainerSeen {
    ContainerSeen {
        name: volume.name,
        kind: ContainerKind::ImageVolume,
        image: volume.image,
        policy: volume.policy,
        is_sidecar: false,
        state: match standing {
            Standing::Waits(said) => ContainerState::Waiting(said),
            Standing::Untold if is_mounted => ContainerState::Untold,
            // It is there, or its failure holds up nobody.
            Standing::Untold | Standing::Present => ContainerState::Ended,
        },
    }
}

fn state_of(status: &Status) -> ContainerState {
    let state = &status.state;
    if let Some(waiting) = &state.waiting {
        return ContainerState::Waiting(Said {
            reason: waiting.reason.clone(),
            message: waiting.message.clone(),
        });
    }
    if state.terminated.is_some() {
        ContainerState::Ended
    } else if state.running.is_some() {
        ContainerState::Running
    } else {
        ContainerState::Untold
    }
}

/// One pod.
///
/// # Errors
/// Why it can't be read.
pub async fn pod(client: &Client, namespace: &str, name: &str) -> Result<PodSeen, AskError> {
    let path = path_of(Some(namespace), "pods", Some(name));
    ask::get::<PodRaw>(client, &path).await.map(PodSeen::from)
}

#[derive(Deserialize)]
struct AnnotatedRaw {
    metadata: Annotated,
}

#[derive(Deserialize)]
struct Annotated {
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

/// The annotations of one pod, by a list of one: whoever follows pods may ask for that.
///
/// # Errors
/// Why they can't be read.
pub async fn annotations_of(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, AskError> {
    let mut found = None;
    let path = path_of(Some(namespace), "pods", None);
    let selector = format!("metadata.name={name}");
    let selectors = [("fieldSelector", selector.as_str())];
    ask::list_metadata(client, &path, &selectors, |raw: AnnotatedRaw| {
        found = Some(raw.metadata.annotations);
    })
    .await?;
    Ok(found)
}

/// Those of a workload that `keep` keeps.
///
/// # Errors
/// Why they can't be listed.
async fn pods_of(
    client: &Client,
    namespace: &str,
    selector: &str,
) -> Result<Vec<PodSeen>, AskError> {
    let mut pods = Vec::new();
    let path = path_of(Some(namespace), "pods", None);
    let selectors = [("labelSelector", selector)];
    ask::list(client, &path, &selectors, |raw: PodRaw| {
        pods.push(PodSeen::from(raw));
    })
    .await?;
    Ok(pods)
}

/// All that have not ended, of a namespace or of all, as far as `keep` keeps them.
///
/// # Errors
/// Why they can't be listed.
pub async fn pods_not_ended(
    client: &Client,
    namespace: Option<&str>,
    mut keep: impl FnMut(PodSeen),
) -> Result<bool, AskError> {
    let path = path_of(namespace, "pods", None);
    let selectors = [(
        "fieldSelector",
        "status.phase!=Succeeded,status.phase!=Failed",
    )];
    ask::list(client, &path, &selectors, |raw: PodRaw| {
        keep(PodSeen::from(raw));
    })
    .await
}

// ---- workloads ----------------------------------------------------------------------------------

/// Jobs of a CronJob that are looked at: by default it keeps three that succeeded and one that failed.
const MAX_JOBS: usize = 20;

/// A kind that makes pods.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WorkloadKind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
}

impl WorkloadKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
        }
    }

    fn place(self) -> (&'static str, &'static str) {
        match self {
            Self::Deployment => ("/apis/apps/v1", "deployments"),
            Self::ReplicaSet => ("/apis/apps/v1", "replicasets"),
            Self::StatefulSet => ("/apis/apps/v1", "statefulsets"),
            Self::DaemonSet => ("/apis/apps/v1", "daemonsets"),
            // Of a CronJob only its Jobs are read: it has no pods and no selector itself.
            Self::Job | Self::CronJob => ("/apis/batch/v1", "jobs"),
        }
    }
}

#[derive(Deserialize)]
struct WorkloadRaw {
    #[serde(default)]
    metadata: Owned,
    spec: WorkloadSpec,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Owned {
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct WorkloadSpec {
    #[serde(default)]
    selector: Selector,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selector {
    #[serde(default)]
    match_labels: BTreeMap<String, String>,
    #[serde(default)]
    match_expressions: Vec<Expression>,
}

#[derive(Deserialize)]
struct Expression {
    key: String,
    operator: String,
    #[serde(default)]
    values: Vec<String>,
}

impl Selector {
    /// As a query has it (meta/v1, LabelSelector).
    fn query(&self) -> String {
        let equal = self
            .match_labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"));
        let expressions = self.match_expressions.iter().map(|one| {
            let (key, values) = (&one.key, one.values.join(","));
            match one.operator.as_str() {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "DoesNotExist" => format!("!{key}"),
                _ => key.clone(),
            }
        });
        equal.chain(expressions).collect::<Vec<_>>().join(",")
    }
}

/// The pods of a workload, by its selector.
///
/// # Errors
/// Why they can't be read.
pub async fn pods_of_workload(
    client: &Client,
    kind: WorkloadKind,
    namespace: &str,
    name: &str,
) -> Result<Vec<PodSeen>, AskError> {
    let (group, plural) = kind.place();
    let mut selectors = Vec::new();
    if kind == WorkloadKind::CronJob {
        let path = path_in(group, Some(namespace), plural, None);
        ask::list(client, &path, &[], |job: WorkloadRaw| {
            let mut owners = job.metadata.owner_references.iter();
            if owners.any(|owner| owner.kind == "CronJob" && owner.name == name) {
                selectors.push(job.spec.selector.query());
            }
        })
        .await?;
    } else {
        let path = path_in(group, Some(namespace), plural, Some(name));
        let workload: WorkloadRaw = ask::get(client, &path).await?;
        selectors.push(workload.spec.selector.query());
    }
    let mut pods = Vec::new();
    // An empty one would select every pod.
    let selectors = selectors.iter().filter(|selector| !selector.is_empty());
    for selector in selectors.take(MAX_JOBS) {
        pods.extend(pods_of(client, namespace, selector).await?);
    }
    Ok(pods)
}

// ---- events -------------------------------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct EventRaw {
    metadata: Meta,
    #[serde(default)]
    involved_object: Involved,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default, rename = "type")]
    kind: String,
    first_timestamp: Option<Timestamp>,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
    count: Option<u64>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Involved {
    field_path: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Series {
    count: Option<u64>,
    last_observed_time: Option<Timestamp>,
}

impl From<EventRaw> for EventSeen {
    fn from(raw: EventRaw) -> Self {
        let (observed, times) = raw.series.map_or((None, None), |series| {
            (series.last_observed_time, series.count)
        });
        Self {
            container: raw.involved_object.field_path.as_deref().and_then(of_path),
            reason: raw.reason,
            message: raw.message,
            is_warning: raw.kind == "Warning",
            first: raw.first_timestamp.or(raw.event_time),
            last: observed
                .or(raw.last_timestamp)
                .or(raw.event_time)
                .or(raw.metadata.creation_timestamp),
            count: times.or(raw.count).unwrap_or(1),
        }
    }
}

/// `spec.containers{app}`.
fn of_path(path: &str) -> Option<String> {
    let (_, rest) = path.split_once('{')?;
    rest.strip_suffix('}').map(ToOwned::to_owned)
}

/// Events of one pod; the API server keeps them for an hour.
///
/// # Errors
/// Why they can't be listed.
pub async fn events_of(client: &Client, pod: &PodSeen) -> Result<Vec<EventSeen>, AskError> {
    let mut events = Vec::new();
    let path = path_of(Some(&pod.namespace), "events", None);
    let selector = format!("involvedObject.kind=Pod,involvedObject.uid={}", pod.uid);
    ask::list(
        client,
        &path,
        &[("fieldSelector", &selector)],
        |raw: EventRaw| events.push(EventSeen::from(raw)),
    )
    .await?;
    Ok(events)
}

// ---- service accounts and nodes -----------------------------------------------------------------

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ServiceAccount {
    #[serde(default)]
    image_pull_secrets: Vec<Named>,
}

/// The names of a service account's `imagePullSecrets`, in order.
///
/// # Errors
/// Why it can't be read.
pub async fn pull_secrets_of(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Vec<String>, AskError> {
    let path = path_of(Some(namespace), "serviceaccounts", Some(name));
    let account: ServiceAccount = ask::get(client, &path).await?;
    Ok(names(account.image_pull_secrets))
}

/// A node, as far as it matters for comparing it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeSeen {
    pub name: String,
    pub created: Option<Timestamp>,
    /// It is cordoned.
    pub is_unschedulable: bool,
}

#[derive(Deserialize)]
struct NodeRaw {
    metadata: Meta,
    #[serde(default)]
    spec: NodeSpec,
}

#[derive(Default, Deserialize)]
struct NodeSpec {
    #[serde(default)]
    unschedulable: bool,
}

/// All nodes.
///
/// # Errors
/// Why they can't be listed.
pub async fn nodes(client: &Client) -> Result<Vec<NodeSeen>, AskError> {
    let mut nodes = Vec::new();
    ask::list(
        client,
        &path_of(None, "nodes", None),
        &[],
        |raw: NodeRaw| {
            nodes.push(NodeSeen {
                name: printable(&raw.metadata.name),
                created: raw.metadata.creation_timestamp,
                is_unschedulable: raw.spec.unschedulable,
            });
        },
    )
    .await?;
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

// ---- the daemons --------------------------------------------------------------------------------

/// How the pods of node daemons are labelled.
pub const DAEMON_LABELS: &str = "app.kubernetes.io/name=pullpath,app.kubernetes.io/component=node";

/// A pod of the daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DaemonPod {
    pub name: String,
    pub node: String,
    /// Why nobody can be asked there; `None`: it runs.
    pub is_not_running: Option<String>,
}

/// The node daemons of a namespace, one for each node that has one: the one that runs, where an old one
/// is still there.
///
/// # Errors
/// Why they can't be listed.
pub async fn daemons(client: &Client, namespace: &str) -> Result<Vec<DaemonPod>, AskError> {
    let mut found: BTreeMap<String, DaemonPod> = BTreeMap::new();
    for pod in pods_of(client, namespace, DAEMON_LABELS).await? {
        let Some(node) = pod.node.clone().filter(|_| !pod.is_over) else {
            continue;
        };
        let daemon = DaemonPod {
            is_not_running: not_running(&pod),
            name: pod.name,
            node: node.clone(),
        };
        let place = found.entry(node);
        place
            .and_modify(|known| {
                if known.is_not_running.is_some() {
                    known.clone_from(&daemon);
                }
            })
            .or_insert(daemon);
    }
    Ok(found.into_values().collect())
}

fn not_running(pod: &PodSeen) -> Option<String> {
    let main = pod
        .containers
        .iter()
        .filter(|container| container.kind == ContainerKind::Container);
    let mut states = main.map(|container| &container.state);
    if states.any(|state| *state == ContainerState::Running) {
        return None;
    }
    let waits = pod.containers.iter().find_map(|one| match &one.state {
        ContainerState::Waiting(said) => Some(said.reason.clone()),
        _ => None,
    });
    Some(waits.unwrap_or_else(|| "it has not started".to_owned()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::workload::PullPolicy;

    #[test]
    fn a_pod_is_read_as_a_kubelet_reports_it() {
        let pod = json!({
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "creationTimestamp": "2026-11-23T09:00:00Z"},
            "spec": {"nodeName": "n1", "imagePullSecrets": [{"name": "pull"}, {}],
                     "initContainers": [{"name": "init", "image": "r.test/init:1", "imagePullPolicy": "Never"}],
                     "containers": [{"name": "app", "image": "r.test/app:1"}, {"name": "b", "image": "r.test/b:1"}]},
            "status": {"phase": "Pending",
                       "conditions": [{"type": "PodScheduled", "status": "True"}],
                       "initContainerStatuses": [{"name": "init", "state": {"terminated": {"exitCode": 0}}}],
                       "containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "ErrImagePull", "message": "no"}}}]},
        });
        let raw: PodRaw = serde_json::from_value(pod).unwrap();
        let seen = PodSeen::from(raw);
        assert_eq!(seen.pull_secrets, ["pull"]);
        assert_eq!((seen.node.as_deref(), seen.is_over), (Some("n1"), false));
        assert_eq!(seen.unscheduled, None);
        assert_eq!(seen.containers[0].state, ContainerState::Ended);
        assert_eq!(seen.containers[0].policy, Some(PullPolicy::Never));
        assert!(
            matches!(&seen.containers[1].state, ContainerState::Waiting(said) if said.reason == "ErrImagePull")
        );
        assert_eq!(seen.containers[2].state, ContainerState::Untold);
    }

    #[test]
    fn a_container_behind_a_volume_s_image_does_not_wait_for_its_own() {
        let pod = json!({
            "metadata": {"name": "a", "namespace": "shop"},
            "spec": {"nodeName": "n1",
                     "initContainers": [{"name": "init", "image": "r.test/init:1"}],
                     "containers": [{"name": "app", "image": "r.test/app:1", "volumeMounts": [{"name": "m"}]}],
                     "volumes": [{"name": "m", "image": {"reference": "r.test/llm:1"}},
                                 {"name": "n", "image": {"reference": "r.test/unmounted:1"}}]},
            "status": {"phase": "Pending",
                       "initContainerStatuses": [{"name": "init", "state": {"terminated": {}}}],
                       "containerStatuses": [{"name": "app", "state": {"waiting": {
                           "reason": "ImagePullBackOff", "message": "Back-off pulling image \"r.test/llm:1\""}}}]}});
        let seen = PodSeen::from(serde_json::from_value::<PodRaw>(pod).unwrap());
        let states: Vec<_> = seen
            .containers
            .iter()
            .map(|one| (one.name.as_str(), one.kind, &one.state))
            .collect();
        assert!(
            matches!(states[0], ("m", ContainerKind::ImageVolume, ContainerState::Waiting(said)) if said.reason == "ImagePullBackOff")
        );
        let (volume, container) = (ContainerKind::ImageVolume, ContainerKind::Container);
        assert_eq!(states[1], ("n", volume, &ContainerState::Ended));
        assert_eq!(states[3], ("app", container, &ContainerState::BehindVolume));
        let waits = crate::workload::stuck::waits(&seen, None);
        assert!(
            matches!(&waits[..], [crate::workload::stuck::Wait::Image(wait)] if wait.image == "r.test/llm:1" && wait.container == "m"),
            "{waits:?}"
        );
    }

    #[test]
    fn both_forms_of_events_are_read() {
        let old = json!({"metadata": {"name": "e"}, "involvedObject": {"fieldPath": "spec.containers{app}"},
            "reason": "BackOff", "message": "m", "type": "Warning", "count": 7,
            "firstTimestamp": "2026-11-23T09:00:00Z", "lastTimestamp": "2026-11-23T09:05:00Z", "eventTime": null});
        let new = json!({"metadata": {"name": "e"}, "reason": "Pulling", "type": "Normal",
            "eventTime": "2026-11-23T09:00:00.000001Z",
            "series": {"count": 3, "lastObservedTime": "2026-11-23T09:04:00.000000Z"}});
        let read = |value| EventSeen::from(serde_json::from_value::<EventRaw>(value).unwrap());
        let old = read(old);
        assert_eq!((old.container.as_deref(), old.count), (Some("app"), 7));
        assert_eq!(old.last, Some("2026-11-23T09:05:00Z".parse().unwrap()));
        let new = read(new);
        assert_eq!((new.count, new.is_warning), (3, false));
        assert_eq!(new.last, Some("2026-11-23T09:04:00Z".parse().unwrap()));
    }

    #[test]
    fn a_selector_becomes_a_query() {
        let selector: Selector = serde_json::from_value(json!({
            "matchLabels": {"app": "web", "tier": "front"},
            "matchExpressions": [
                {"key": "env", "operator": "In", "values": ["a", "b"]},
                {"key": "x", "operator": "NotIn", "values": ["c"]},
                {"key": "y", "operator": "Exists"},
                {"key": "z", "operator": "DoesNotExist"}],
        }))
        .unwrap();
        assert_eq!(
            selector.query(),
            "app=web,tier=front,env in (a,b),x notin (c),y,!z"
        );
        assert_eq!(Selector::default().query(), "");
    }

    #[test]
    fn a_name_can_t_leave_its_place_in_a_path() {
        assert_eq!(
            path_of(Some("shop"), "secrets", Some("a/../b?x=1")),
            "/api/v1/namespaces/shop/secrets/a%2F..%2Fb%3Fx%3D1"
        );
    }
}
