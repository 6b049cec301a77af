//! Watches the pods of a node and keeps of each what its pulls depend on, about a tenth of the object.

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::objects::{ContainerStatus, PodObject, names};
use super::watch::{View, follow};
use crate::workload::pod::{Container, ContainerState, Pod, ReasonMessage};
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
                let state = status.map_or(ContainerState::Unknown, state_of);
                let is_present = status.is_some_and(|status| !status.image_id.is_empty());
                volumes.container(kind, one, state, is_present)
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
            pull_secrets: names(spec.image_pull_secrets),
            service_account: spec.service_account_name,
            is_over,
            unscheduled: unscheduled.map(|condition| ReasonMessage {
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
        return ContainerState::Waiting(ReasonMessage {
            reason: waiting.reason.clone().unwrap_or_default(),
            message: waiting.message.clone().unwrap_or_default(),
        });
    }
    if state.terminated.is_some() {
        ContainerState::Ended
    } else if state.running.is_some() {
        ContainerState::Running
    } else {
        ContainerState::Unknown
    }
}

/// Watches the pods of one node (`spec.nodeName`), until `stop`. The API server sends no other pods.
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
    use super::*;
    use crate::model::workload::ContainerKind;

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
