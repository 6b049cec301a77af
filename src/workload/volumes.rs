//! Image volumes (`volumes[].image`): images that a pod mounts. The kubelet ensures them with the pod's pull
//! Secrets, before it creates a container that mounts them. Pure.
//!
//! A Pod has no status of its own for them. Where such an image can't be had, the containers that mount the
//! volume wait with the reasons of an image (`ErrImagePull`, `ImagePullBackOff`), and only the message says
//! whose image it is (kubernetes `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `getImageVolumes`).

use super::pod::{Container, ContainerState};
use super::reasons::{self, ERR_IMAGE_NEVER_PULL, INVALID_IMAGE_NAME, stands_in};
use super::spec::{ContainerSpec, VolumeSpec};
use crate::model::reference::Reference;
use crate::model::workload::ContainerKind;

/// The image volumes of a pod, beside its containers.
#[derive(Debug)]
pub struct Volumes(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    volume: ContainerSpec,
    is_mounted: bool,
    /// How far its image is, as the containers that mount it show: it waits in their words, or is there since
    /// one was created.
    state: ContainerState,
}

impl Volumes {
    pub fn new(specs: impl IntoIterator<Item = VolumeSpec>) -> Self {
        let volumes = specs.into_iter().filter_map(VolumeSpec::into_image);
        let entry = |volume| Entry {
            volume,
            is_mounted: false,
            state: ContainerState::Untold,
        };
        Self(volumes.map(entry).collect())
    }

    /// Takes what is known of a container. `false`: it waits for a volume's image, and its own is not asked for
    /// before that is there. Where the message names neither, both may be what it waits for.
    pub fn take(&mut self, container: &ContainerSpec, state: &ContainerState) -> bool {
        let mounts = &container.volume_mounts;
        let mut mounted: Vec<&mut Entry> = self
            .0
            .iter_mut()
            .filter(|entry| mounts.iter().any(|mount| mount.name == entry.volume.name))
            .collect();
        for entry in &mut mounted {
            entry.is_mounted = true;
        }
        match state {
            ContainerState::Waiting(said)
                if is_of_an_image(&said.reason) && !mounted.is_empty() =>
            {
                let images: Vec<&str> = std::iter::once(container.image.as_str())
                    .chain(mounted.iter().map(|entry| entry.volume.image.as_str()))
                    .collect();
                let meant = meant(&said.message, &images);
                for (entry, _) in mounted.iter_mut().zip(&meant[1..]).filter(|(_, is)| **is) {
                    if !matches!(entry.state, ContainerState::Waiting(_)) {
                        entry.state = state.clone();
                    }
                }
                return meant[0];
            }
            ContainerState::Waiting(said) if reasons::STARTING.contains(&said.reason.as_str()) => {}
            ContainerState::Untold | ContainerState::BehindVolume => {}
            // It runs, or did, or waits for something that comes after its images.
            ContainerState::Waiting(_) | ContainerState::Running | ContainerState::Ended => {
                for entry in &mut mounted {
                    if entry.state == ContainerState::Untold {
                        entry.state = ContainerState::Ended;
                    }
                }
            }
        }
        true
    }

    /// Each volume, as a container of its pod.
    pub fn finish(self) -> impl Iterator<Item = Container> {
        self.0.into_iter().map(|entry| Container {
            policy: entry.volume.policy(),
            name: entry.volume.name,
            kind: ContainerKind::ImageVolume,
            image: entry.volume.image,
            is_sidecar: false,
            is_present: entry.state == ContainerState::Ended,
            state: match entry.state {
                // Its failure holds up nobody.
                ContainerState::Untold if !entry.is_mounted => ContainerState::Ended,
                state => state,
            },
        })
    }
}

fn is_of_an_image(reason: &str) -> bool {
    reasons::IMAGE_REASONS.contains(&reason)
        || [ERR_IMAGE_NEVER_PULL, INVALID_IMAGE_NAME].contains(&reason)
}

/// Which of these images a message is about; all of them where it names none.
fn meant(message: &str, images: &[&str]) -> Vec<bool> {
    let named = |is_named: &dyn Fn(&str) -> bool| -> Option<Vec<bool>> {
        let named: Vec<bool> = images.iter().map(|image| is_named(image)).collect();
        named.contains(&true).then_some(named)
    };
    let reference = |image: &str| image.parse::<Reference>().ok();
    // As it is written, and as containerd writes it; or, as CRI-O does, without the tag.
    named(&|image| {
        let whole = reference(image).map(|reference| reference.to_string());
        stands_in(message, image) || whole.is_some_and(|whole| stands_in(message, &whole))
    })
    .or_else(|| named(&|image| reference(image).is_some_and(|r| stands_in(message, &r.name()))))
    .unwrap_or_else(|| vec![true; images.len()])
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::model::workload::PullPolicy;
    use crate::workload::pod::Said;

    const MODEL: &str = "quay.example/models/llm:v1";

    fn volumes(specs: Value) -> Volumes {
        let specs: Vec<VolumeSpec> = serde_json::from_value(specs).unwrap();
        Volumes::new(specs)
    }

    fn container(image: &str, mounts: &[&str]) -> ContainerSpec {
        let mounts: Vec<Value> = mounts
            .iter()
            .map(|name| json!({"name": name, "mountPath": "/m"}))
            .collect();
        serde_json::from_value(json!({"name": "app", "image": image, "volumeMounts": mounts}))
            .unwrap()
    }

    fn waits(reason: &str, message: &str) -> ContainerState {
        ContainerState::Waiting(Said {
            reason: reason.to_owned(),
            message: message.to_owned(),
        })
    }

    #[test]
    fn of_all_volumes_those_with_an_image_are_read() {
        let specs = json!([
            {"name": "config", "configMap": {"name": "c"}},
            {"name": "m", "image": {"reference": MODEL, "pullPolicy": "Never"}},
            {"name": "rbd", "rbd": {"image": "no-image"}},
            {"name": "later", "image": {}},
            {"name": "n", "image": {"reference": "n"}},
        ]);
        let specs: Vec<VolumeSpec> = serde_json::from_value(specs).unwrap();
        let found: Vec<_> = specs
            .into_iter()
            .filter_map(VolumeSpec::into_image)
            .collect();
        let shown: Vec<_> = found
            .iter()
            .map(|v| (v.name.as_str(), v.policy()))
            .collect();
        assert_eq!(shown, [("m", Some(PullPolicy::Never)), ("n", None)]);
        assert_eq!(found[0].image, MODEL);
    }

    #[test]
    fn the_message_tells_whose_image_a_container_waits_for() {
        let own = "reg.example/app:1";
        for (reason, message, of_own, of_volume) in [
            (
                "ImagePullBackOff",
                "Back-off pulling image \"quay.example/models/llm:v1\": ErrImagePull: not found",
                false,
                true,
            ),
            (
                "ErrImagePull",
                "failed to pull and unpack image \"reg.example/app:1\": failed to resolve reference",
                true,
                false,
            ),
            // A longer tag is another image.
            (
                "ErrImagePull",
                "failed to pull and unpack image \"reg.example/app:10\": quay.example/models/llm:v1",
                false,
                true,
            ),
            (
                "RegistryUnavailable",
                "image pull failed for quay.example/models/llm:v1 because the registry is unavailable: x",
                false,
                true,
            ),
            (
                "ErrImagePull",
                "initializing source: reading manifest v1 in quay.example/models/llm: manifest unknown",
                false,
                true,
            ),
            (
                "ErrImageNeverPull",
                "Container image \"quay.example/models/llm:v1\" is not present with pull policy of Never",
                false,
                true,
            ),
            // It names neither.
            ("ErrImagePull", "pull QPS exceeded", true, true),
        ] {
            let mut all = volumes(json!([{"name": "m", "image": {"reference": MODEL}}]));
            let is_own = all.take(&container(own, &["m"]), &waits(reason, message));
            let waits = all.finish().next().unwrap().waits().is_some();
            assert_eq!((is_own, waits), (of_own, of_volume), "{message}");
        }
    }

    #[test]
    fn docker_hub_s_short_names_are_known_in_full() {
        let mut all = volumes(json!([{"name": "m", "image": {"reference": "llm"}}]));
        let text = "failed to pull and unpack image \"docker.io/library/llm:latest\": denied";
        assert!(!all.take(&container("app:1", &["m"]), &waits("ErrImagePull", text)));
    }

    #[test]
    fn a_container_that_was_created_has_its_volumes() {
        let specs = json!([{"name": "m", "image": {"reference": MODEL}},
                           {"name": "n", "image": {"reference": "n:1"}}]);
        for (said, want) in [
            (ContainerState::Running, true),
            (waits("CrashLoopBackOff", "back-off 5m"), true),
            (waits("ContainerCreating", ""), false),
            (ContainerState::Untold, false),
        ] {
            let mut all = volumes(specs.clone());
            assert!(all.take(&container("a", &["m"]), &said));
            let found: Vec<_> = all
                .finish()
                .map(|one| (one.is_present, one.state))
                .collect();
            let of_mounted = if want {
                ContainerState::Ended
            } else {
                ContainerState::Untold
            };
            assert_eq!(found, [(want, of_mounted), (false, ContainerState::Ended)]);
        }
        // One waits for it though another has it: it was removed since.
        let mut all = volumes(specs);
        all.take(&container("a", &["m"]), &ContainerState::Running);
        all.take(&container("b", &["m"]), &waits("ErrImagePull", MODEL));
        assert!(all.finish().next().unwrap().waits().is_some());
    }

    #[test]
    fn without_image_volumes_a_container_waits_for_its_own_image() {
        let mut all = volumes(json!([{"name": "c", "configMap": {}}]));
        assert!(all.take(&container("a", &["c"]), &waits("ErrImagePull", MODEL)));
        let mut all = volumes(json!([{"name": "m", "image": {"reference": MODEL}}]));
        assert!(all.take(&container("a", &[]), &waits("ErrImagePull", MODEL)));
    }
}
