//! Single reads for the commands: pods and what keeps them from starting, the pods of a workload, the pull secrets of a
//! service account, the node daemons. Of each object only the fields in use are kept.

use std::collections::BTreeMap;

use kube::api::{ListParams, PartialObjectMeta};
use kube::core::Selector;
use kube::{Api, Client};

use super::objects::{
    AccountObject, CRON_JOBS, JOBS, PodObject, ResourceName, WorkloadObject, in_scope, names,
};
use super::request::{self, RequestError};
use crate::model::workload::ContainerKind;
use crate::workload::pod::{ContainerState, Pod};

// ---- pods ---------------------------------------------------------------------------------------

/// Reads one pod.
///
/// # Errors
/// If there is no such pod, if RBAC does not allow `get` of pods, or if the API server does not answer.
pub async fn pod(client: &Client, namespace: &str, name: &str) -> Result<Pod, RequestError> {
    let pods: Api<PodObject> = Api::namespaced(client.clone(), namespace);
    request::get(pods, name).await.map(Pod::from)
}

/// Reads the annotations of one pod by a list of one, so that the right to `list` pods suffices. `None`: no such pod.
///
/// # Errors
/// If RBAC does not allow `list` of pods, or if the API server does not answer.
pub async fn annotations_of(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<BTreeMap<String, String>>, RequestError> {
    let mut found = None;
    let pods: Api<PartialObjectMeta<PodObject>> = Api::namespaced(client.clone(), namespace);
    let one = ListParams::default().fields(&format!("metadata.name={name}"));
    request::list(pods, one, |pod| {
        found = Some(pod.metadata.annotations.unwrap_or_default());
    })
    .await?;
    Ok(found)
}

/// Lists the pods that a label selector matches.
async fn pods_of(client: &Client, namespace: &str, labels: &str) -> Result<Vec<Pod>, RequestError> {
    let pods: Api<PodObject> = Api::namespaced(client.clone(), namespace);
    request::all(pods, ListParams::default().labels(labels)).await
}

/// Lists the pods that have not ended, of one namespace or of all, and hands each to `keep`. Returns `false` if the
/// list was cut off.
///
/// # Errors
/// If RBAC does not allow `list` of pods, or if the API server does not answer.
pub async fn pods_not_ended(
    client: &Client,
    namespace: Option<&str>,
    mut keep: impl FnMut(Pod),
) -> Result<bool, RequestError> {
    let pods: Api<PodObject> = in_scope(client, namespace);
    let not_ended = "status.phase!=Succeeded,status.phase!=Failed";
    request::list(pods, ListParams::default().fields(not_ended), |pod| {
        keep(Pod::from(pod));
    })
    .await
}

// ---- workloads and service accounts -------------------------------------------------------------

/// Upper bound of the Jobs read for a CronJob. By default a CronJob keeps three that succeeded and one that failed.
const MAX_JOBS: usize = 20;

/// Lists the pods that a workload's selector matches; for a CronJob, the pods of its Jobs.
///
/// # Errors
/// If the workload does not exist, if its selector is not valid, or if RBAC or the API server refuses a request.
pub async fn pods_of_workload(
    client: &Client,
    kind: ResourceName,
    namespace: &str,
    name: &str,
) -> Result<Vec<Pod>, RequestError> {
    // A CronJob has no pods and no selector of its own; its Jobs have.
    let is_cron_job = kind == CRON_JOBS;
    let read = if is_cron_job { JOBS } else { kind };
    let workloads: Api<WorkloadObject> = Api::namespaced_with(client.clone(), namespace, &read);
    let mut selectors = Vec::new();
    if is_cron_job {
        request::list(workloads, ListParams::default(), |job| {
            let mut owners = job.metadata.owner_references.iter().flatten();
            if owners.any(|owner| owner.kind == "CronJob" && owner.name == name) {
                selectors.push(job.spec.selector);
            }
        })
        .await?;
    } else {
        selectors.push(request::get(workloads, name).await?.spec.selector);
    }
    let selectors: Result<Vec<Selector>, _> =
        selectors.into_iter().map(Selector::try_from).collect();
    let selectors = selectors.map_err(|error| RequestError::Malformed(error.to_string()))?;
    let mut pods = Vec::new();
    // An empty selector would match every pod.
    let selectors = selectors.iter().filter(|selector| !selector.selects_all());
    for selector in selectors.take(MAX_JOBS) {
        pods.extend(pods_of(client, namespace, &selector.to_string()).await?);
    }
    Ok(pods)
}

/// Reads the names of a service account's `imagePullSecrets`, in their order.
///
/// # Errors
/// If there is no such account, if RBAC does not allow `get` of it, or if the API server does not answer.
pub async fn pull_secrets_of(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Vec<String>, RequestError> {
    let accounts: Api<AccountObject> = Api::namespaced(client.clone(), namespace);
    let account = request::get(accounts, name).await?;
    Ok(names(account.image_pull_secrets))
}

// ---- the daemons --------------------------------------------------------------------------------

/// Label selector of the node daemons' pods.
pub const DAEMON_LABELS: &str = "app.kubernetes.io/name=pullpath,app.kubernetes.io/component=node";

/// A pod of the node daemon.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DaemonPod {
    /// The pod's `metadata.name`.
    pub name: String,
    /// The node it is scheduled to (`spec.nodeName`).
    pub node: String,
    /// Why it can't receive requests: the reason of a waiting container. `None`: it is running.
    pub is_not_running: Option<String>,
}

/// Lists the node daemons of a namespace, at most one per node: the running one if an old one still exists.
///
/// # Errors
/// If RBAC does not allow `list` of pods, or if the API server does not answer.
pub async fn daemons(client: &Client, namespace: &str) -> Result<Vec<DaemonPod>, RequestError> {
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
        let entry = found.entry(node);
        entry
            .and_modify(|known| {
                if known.is_not_running.is_some() {
                    known.clone_from(&daemon);
                }
            })
            .or_insert(daemon);
    }
    Ok(found.into_values().collect())
}

fn not_running(pod: &Pod) -> Option<String> {
    let main = pod
        .containers
        .iter()
        .filter(|container| container.kind == ContainerKind::Container);
    let mut states = main.map(|container| &container.state);
    if states.any(|state| *state == ContainerState::Running) {
        return None;
    }
    let waits = pod.containers.iter().find_map(|one| match &one.state {
        ContainerState::Waiting(why) => Some(why.reason.clone()),
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
        let object: PodObject = serde_json::from_value(pod).unwrap();
        let seen = Pod::from(object);
        assert_eq!(seen.pull_secrets, ["pull"]);
        assert_eq!((seen.node.as_deref(), seen.is_over), (Some("n1"), false));
        assert_eq!(seen.unscheduled, None);
        assert_eq!(seen.containers[0].state, ContainerState::Ended);
        assert_eq!(seen.containers[0].policy, Some(PullPolicy::Never));
        assert!(
            matches!(&seen.containers[1].state, ContainerState::Waiting(said) if said.reason == "ErrImagePull")
        );
        assert_eq!(seen.containers[2].state, ContainerState::Unknown);
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
        let seen = Pod::from(serde_json::from_value::<PodObject>(pod).unwrap());
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
        let waits = crate::workload::pending_pods::waits(&seen, None);
        assert!(
            matches!(&waits[..], [crate::workload::pending_pods::Wait::Image(wait)] if wait.image == "r.test/llm:1" && wait.container == "m"),
            "{waits:?}"
        );
    }
}
