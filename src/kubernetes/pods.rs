//! The pods of a node, and of each what its pulls depend on: the API server's objects are ten times
//! as large.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::api::ObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client};
use serde::Deserialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::follow::{View, follow};
use super::shapes::{PodSpec, core_object, names};
use crate::model::workload::ContainerKind;
use crate::workload::discovery::{Container, Pod};
use crate::workload::makers::ContainerSpec;

/// A Pod of core/v1, as far as it is read.
#[derive(Clone, Debug, Deserialize)]
pub struct PodObject {
    metadata: ObjectMeta,
    spec: PodSpec,
    #[serde(default)]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    phase: Option<String>,
    #[serde(default)]
    container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    init_container_statuses: Vec<ContainerStatus>,
    #[serde(default)]
    ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: String,
    #[serde(default, rename = "imageID")]
    image_id: String,
    #[serde(default)]
    state: ContainerState,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct ContainerState {
    waiting: Option<Waiting>,
}

#[derive(Clone, Debug, Deserialize)]
struct Waiting {
    reason: Option<String>,
    #[serde(default)]
    message: String,
}

impl Waiting {
    /// A number for the text of a failed try, without what differs from one try to the next: ports, times,
    /// ids of requests, which are digits of some kind.
    fn said(&self) -> Option<u64> {
        if self.reason.as_deref() != Some("ErrImagePull") {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        for c in self.message.chars().filter(|c| !c.is_ascii_hexdigit()) {
            c.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

core_object!(PodObject, "Pod", "pods", NamespaceResourceScope);

impl From<PodObject> for Pod {
    fn from(object: PodObject) -> Self {
        let PodObject {
            metadata,
            spec,
            status,
        } = object;
        let mut containers = Vec::new();
        for (kind, specs, statuses) in [
            (
                ContainerKind::InitContainer,
                spec.init_containers,
                &status.init_container_statuses,
            ),
            (
                ContainerKind::Container,
                spec.containers,
                &status.container_statuses,
            ),
            (
                ContainerKind::EphemeralContainer,
                spec.ephemeral_containers,
                &status.ephemeral_container_statuses,
            ),
        ] {
            for container in specs {
                let status = statuses.iter().find(|status| status.name == container.name);
                containers.push(of_container(kind, container, status));
            }
        }
        let ended = ["Succeeded", "Failed"];
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            pull_secrets: names(spec.image_pull_secrets),
            is_over: metadata.deletion_timestamp.is_some()
                || status
                    .phase
                    .is_some_and(|phase| ended.contains(&phase.as_str())),
            containers,
        }
    }
}

fn of_container(
    kind: ContainerKind,
    container: ContainerSpec,
    status: Option<&ContainerStatus>,
) -> Container {
    let waiting = status.and_then(|status| status.state.waiting.as_ref());
    Container {
        policy: container.policy(),
        name: container.name,
        kind,
        image: container.image,
        is_present: status.is_some_and(|status| !status.image_id.is_empty()),
        waits: waiting.and_then(|waiting| waiting.reason.clone()),
        said: waiting.and_then(Waiting::said),
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
    use super::*;

    #[test]
    fn tries_are_told_apart_by_what_went_wrong_and_not_by_their_ports() {
        let said = |reason: &str, message: &str| {
            Waiting {
                reason: Some(reason.to_owned()),
                message: message.to_owned(),
            }
            .said()
        };
        let timeout = |port: u16| {
            said(
                "ErrImagePull",
                &format!(
                    "rpc error: code = Unknown desc = failed to do request: Head \"https://r.test/v2/a/manifests/1\": read tcp 10.0.3.9:{port}->10.0.0.1:443: i/o timeout"
                ),
            )
        };
        assert_eq!(timeout(40123), timeout(51234));
        let refused = said(
            "ErrImagePull",
            "rpc error: code = Unknown desc = failed to authorize: 401 Unauthorized",
        );
        assert_ne!(timeout(40123), refused);
        assert_eq!(said("ImagePullBackOff", "Back-off pulling image"), None);
    }
}
