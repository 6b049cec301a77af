//! Pods, those of a node as they change and others once, and of each what its pulls depend on: the API server's
//! objects are ten times as large.

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::follow::{View, follow};
use super::objects::{ContainerStatus, PodObject, names};
use crate::model::workload::ContainerKind;
use crate::workload::pod::{Container, ContainerState, Pod, Said};
use crate::workload::volumes::Volumes;

impl From<PodObject> for Pod {
    fn from(object: PodObject) -> Self {
        let is_over = object.is_over();
        let PodObject {
            metadata,
            mut spec,
            status,
        } = object;
        let mut volumes = Volumes::new(std::mem::take(&mut spec.volumes));
        let containers: Vec<Container> = spec
            .containers()
            .map(|(kind, one)| {
                let status = status.of(kind, &one.name);
                let state = status.map_or(ContainerState::Untold, state_of);
                let is_of_its_own = volumes.take(one, &state);
                let is_present = status.is_some_and(|status| !status.image_id.is_empty());
                if is_present {
                    volumes.take(one, &ContainerState::Ended);
                }
                Container {
                    // What it says of a volume's image is kept with that.
                    state: if is_of_its_own {
                        state
                    } else {
                        ContainerState::BehindVolume
                    },
                    is_present,
                    policy: one.policy(),
                    is_sidecar: kind == ContainerKind::InitContainer
                        && one.restart_policy.as_deref() == Some("Always"),
                    name: one.name.clone(),
                    kind,
                    image: one.image.clone(),
                }
            })
            .collect();
        let unscheduled = status
            .conditions
            .into_iter()
            .find(|condition| condition.kind == "PodScheduled" && condition.status == "False");
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            node: spec.node_name.filter(|node| !node.is_empty()),
            created: metadata.creation_timestamp.map(|at| at.0),
            pull_secrets: names(spec.image_pull_secrets),
            service_account: spec.service_account_name,
            is_over,
            unscheduled: unscheduled.map(|condition| Said {
                reason: condition.reason,
                message: condition.message,
            }),
            containers: volumes.finish().chain(containers).collect(),
        }
    }
}

fn state_of(status: &ContainerStatus) -> ContainerState {
    let state = &status.state;
    if let Some(waiting) = &state.waiting {
        return ContainerState::Waiting(Said {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
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

/// Follows the pods of one node: the API server sends no other's.
pub async fn follow_node(
    client: Client,
    node: &str,
    view: watch::Sender<View<Pod>>,
    stop: CancellationToken,
) {
    let pods: Api<PodObject> = Api::all(client);
    let config = watcher::Config::default()
        .fields(&format!("spec.nodeName={node}"))
        .page_size(200);
    follow(pods, config, |pod| Some(Pod::from(pod)), view, stop).await;
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
        let waits = crate::workload::stuck::waits(&seen, None);
        assert!(
            matches!(&waits[..], [crate::workload::stuck::Wait::Image(wait)] if wait.image == "r.test/llm:1" && wait.container == "m"),
            "{waits:?}"
        );
    }

    #[test]
    fn image_volumes_are_the_pod_s_as_containers_are() {
        let pod = |statuses: serde_json::Value| -> Pod {
            let object = serde_json::json!({
                "metadata": {"name": "a", "namespace": "shop"},
                "spec": {"imagePullSecrets": [{"name": "pull"}],
                         "containers": [{"name": "app", "image": "r.test/app:1",
                                         "volumeMounts": [{"name": "m", "mountPath": "/m"}]},
                                        {"name": "beside", "image": "r.test/beside:1"}],
                         "volumes": [{"name": "tmp", "emptyDir": {}},
                                     {"name": "m", "image": {"reference": "r.test/llm:1", "pullPolicy": "Always"}},
                                     {"name": "n", "image": {"reference": "r.test/unmounted:1"}}]},
                "status": {"containerStatuses": statuses}});
            serde_json::from_value::<PodObject>(object).unwrap().into()
        };
        let waiting = |message: &str| {
            pod(serde_json::json!([{"name": "app", "imageID": "",
                "state": {"waiting": {"reason": "ErrImagePull", "message": message}}}]))
        };
        let shown = |pod: &Pod| -> Vec<(String, bool, bool)> {
            let of = |one: &Container| (one.name.clone(), one.is_present, one.waits_for_image());
            pod.containers.iter().map(of).collect()
        };
        let of = |name: &str, is_present, waits| (name.to_owned(), is_present, waits);
        let found = waiting("failed to pull and unpack image \"r.test/llm:1\": not found");
        let all = [
            of("m", false, true),
            of("n", false, false),
            of("app", false, false),
            of("beside", false, false),
        ];
        assert_eq!(shown(&found), all);
        let volume = &found.containers[0];
        assert_eq!(volume.kind, ContainerKind::ImageVolume);
        assert_eq!(volume.image, "r.test/llm:1");
        assert_eq!(
            volume.policy,
            Some(crate::model::workload::PullPolicy::Always)
        );
        assert!(volume.waits().is_some() && found.containers[2].waits().is_none());
        let own = waiting("failed to pull and unpack image \"r.test/app:1\": not found");
        assert_eq!(shown(&own)[2], of("app", false, true));
        assert_eq!(shown(&own)[0], of("m", false, false));
        let runs = pod(serde_json::json!([{"name": "app", "imageID": "sha256:1",
                                           "state": {"running": {}}}]));
        assert_eq!(shown(&runs)[2], of("app", true, false));
        assert_eq!(shown(&runs)[0], of("m", true, false));
    }
}
