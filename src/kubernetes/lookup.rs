//! What a person's question needs of the cluster, read once: pods and what keeps them, the pods of a workload, the
//! Secrets of a service account, the daemons. Of each object only what is said of it.

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

/// One pod.
///
/// # Errors
/// Why it can't be read.
pub async fn pod(client: &Client, namespace: &str, name: &str) -> Result<Pod, RequestError> {
    let pods: Api<PodObject> = Api::namespaced(client.clone(), namespace);
    request::get(pods, name).await.map(Pod::from)
}

/// The annotations of one pod, by a list of one: whoever follows pods may ask for that.
///
/// # Errors
/// Why they can't be read.
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

/// Those with these labels.
async fn pods_of(client: &Client, namespace: &str, labels: &str) -> Result<Vec<Pod>, RequestError> {
    let pods: Api<PodObject> = Api::namespaced(client.clone(), namespace);
    request::all(pods, ListParams::default().labels(labels)).await
}

/// All that have not ended, of a namespace or of all, as far as `keep` keeps them.
///
/// # Errors
/// Why they can't be listed.
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

/// Jobs of a CronJob that are looked at: by default it keeps three that succeeded and one that failed.
const MAX_JOBS: usize = 20;

/// The pods of a workload, by its selector.
///
/// # Errors
/// Why they can't be read.
pub async fn pods_of_workload(
    client: &Client,
    kind: ResourceName,
    namespace: &str,
    name: &str,
) -> Result<Vec<Pod>, RequestError> {
    // Of a CronJob only its Jobs are read: it has no pods and no selector itself.
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
    // An empty one would select every pod.
    let selectors = selectors.iter().filter(|selector| !selector.selects_all());
    for selector in selectors.take(MAX_JOBS) {
        pods.extend(pods_of(client, namespace, &selector.to_string()).await?);
    }
    Ok(pods)
}

/// The names of a service account's `imagePullSecrets`, in order.
///
/// # Errors
/// Why it can't be read.
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
