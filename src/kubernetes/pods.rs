//! The pods of a node, and of each what its pulls depend on: the API server's objects are ten times
//! as large.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use kube::runtime::watcher;
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::follow::{View, follow};
use super::objects::{ContainerStatus, PodObject, Waiting, names};
use crate::model::workload::ContainerKind;
use crate::workload::discovery::{Container, Pod};
use crate::workload::spec::ContainerSpec;
use crate::workload::volumes::{ImageVolume, Standing, Volumes, Word};

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

/// What is kept of a container that waits.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Waits {
    reason: String,
    said: Option<u64>,
}

impl From<PodObject> for Pod {
    fn from(object: PodObject) -> Self {
        let is_over = object.is_over();
        let PodObject {
            metadata,
            mut spec,
            status,
        } = object;
        let mut volumes = Volumes::new(std::mem::take(&mut spec.volumes));
        let mut containers: Vec<Container> = spec
            .containers()
            .map(|(kind, container)| {
                let status = status.of(kind, &container.name);
                of_container(kind, container, status, &mut volumes)
            })
            .collect();
        containers.extend(volumes.finish().map(of_volume));
        Self {
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            pull_secrets: names(spec.image_pull_secrets),
            is_over,
            containers,
        }
    }
}

fn of_container(
    kind: ContainerKind,
    container: &ContainerSpec,
    status: Option<&ContainerStatus>,
    volumes: &mut Volumes<Waits>,
) -> Container {
    let waiting = status.and_then(|status| status.state.waiting.as_ref());
    let waits = waiting.and_then(|waiting| {
        let reason = waiting.reason.clone()?;
        let said = waiting.said();
        Some(Waits { reason, said })
    });
    let is_present = status.is_some_and(|status| !status.image_id.is_empty());
    let word = match (&waits, waiting) {
        (Some(word), Some(waiting)) => Word::Waits {
            reason: &word.reason,
            message: &waiting.message,
            word: word.clone(),
        },
        _ => Word::Nothing,
    };
    let waits_for_its_own = volumes.take(container, word);
    if is_present {
        volumes.take(container, Word::Created);
    }
    // Where it waits for a volume's image, its own has not been asked for.
    let waits = waits.filter(|_| waits_for_its_own);
    let (waits, said) = waits.map(|waits| (waits.reason, waits.said)).unzip();
    Container {
        name: container.name.clone(),
        kind,
        image: container.image.clone(),
        policy: container.policy(),
        is_present,
        waits,
        said: said.flatten(),
    }
}

fn of_volume((volume, standing, _): (ImageVolume, Standing<Waits>, bool)) -> Container {
    let is_present = standing == Standing::Present;
    let (waits, said) = match standing {
        Standing::Waits(waits) => (Some(waits.reason), waits.said),
        Standing::Present | Standing::Untold => (None, None),
    };
    Container {
        name: volume.name,
        kind: ContainerKind::ImageVolume,
        image: volume.image,
        policy: volume.policy,
        is_present,
        waits,
        said,
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
            of("app", false, false),
            of("beside", false, false),
            of("m", false, true),
            of("n", false, false),
        ];
        assert_eq!(shown(&found), all);
        let volume = &found.containers[2];
        assert_eq!(volume.kind, ContainerKind::ImageVolume);
        assert_eq!(volume.image, "r.test/llm:1");
        assert_eq!(
            volume.policy,
            Some(crate::model::workload::PullPolicy::Always)
        );
        assert!(volume.said.is_some() && found.containers[0].said.is_none());
        let own = waiting("failed to pull and unpack image \"r.test/app:1\": not found");
        assert_eq!(shown(&own)[0], of("app", false, true));
        assert_eq!(shown(&own)[2], of("m", false, false));
        let runs = pod(serde_json::json!([{"name": "app", "imageID": "sha256:1",
                                           "state": {"running": {}}}]));
        assert_eq!(shown(&runs)[0], of("app", true, false));
        assert_eq!(shown(&runs)[2], of("m", true, false));
    }
}
