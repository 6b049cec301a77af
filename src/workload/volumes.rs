//! Image volumes (`volumes[].image`): images that a pod mounts. The kubelet pulls them with the pod's pull secrets
//! before it creates a container that mounts them. Pure.
//!
//! A Pod has no status for them. If such an image can't be pulled, the containers that mount the volume wait with the
//! same reasons as for their own image (`ErrImagePull`, `ImagePullBackOff`), and only the message shows which image it
//! is (kubernetes `pkg/kubelet/kuberuntime/kuberuntime_manager.go`, `getImageVolumes`).

use super::pod::{Container, ContainerState};
use super::reasons::{self, ERR_IMAGE_NEVER_PULL, INVALID_IMAGE_NAME, stands_in};
use super::spec::{ContainerSpec, VolumeSpec};
use crate::model::reference::Reference;
use crate::model::workload::ContainerKind;

/// The image volumes of a pod; their states are inferred from its containers.
#[derive(Debug)]
pub struct Volumes(Vec<Entry>);

#[derive(Debug)]
struct Entry {
    volume: Container,
    is_mounted: bool,
}

impl Volumes {
    /// Keeps the volumes that have an image.
    pub fn new(specs: impl IntoIterator<Item = VolumeSpec>) -> Self {
        let images = specs.into_iter().filter_map(VolumeSpec::image);
        let entry = |image: ContainerSpec| Entry {
            volume: Container::of(ContainerKind::ImageVolume, &image),
            is_mounted: false,
        };
        Self(images.map(entry).collect())
    }

    /// Converts a container with the state that the kubelet reports. If that state is about the image of a volume, the
    /// volume gets it, and the container is [`ContainerState::BehindVolume`]: its own image is pulled only after that.
    /// If the message names neither image, it may wait for either, and both get the state.
    pub fn container(
        &mut self,
        kind: ContainerKind,
        spec: &ContainerSpec,
        state: ContainerState,
        is_present: bool,
    ) -> Container {
        let mut container = Container {
            is_present,
            ..Container::of(kind, spec)
        };
        let mounts = &spec.volume_mounts;
        let mut mounted: Vec<&mut Entry> = self
            .0
            .iter_mut()
            .filter(|entry| mounts.iter().any(|mount| mount.name == entry.volume.name))
            .collect();
        for entry in &mut mounted {
            entry.is_mounted = true;
        }
        let mut waits_for_its_own = true;
        let mut is_created = is_present;
        match &state {
            ContainerState::Waiting(said) if is_of_an_image(&said.reason) => {
                let images: Vec<&str> = std::iter::once(spec.image.as_str())
                    .chain(mounted.iter().map(|entry| entry.volume.image.as_str()))
                    .collect();
                let meant = meant(&said.message, &images);
                for (entry, _) in mounted.iter_mut().zip(&meant[1..]).filter(|(_, is)| **is) {
                    if entry.volume.waits().is_none() {
                        entry.volume.state = state.clone();
                    }
                }
                waits_for_its_own = meant[0] || mounted.is_empty();
            }
            ContainerState::Unknown | ContainerState::BehindVolume => {}
            // It runs, has run, or waits for something that follows after its images.
            ContainerState::Running | ContainerState::Ended => is_created = true,
            ContainerState::Waiting(said) => {
                let is_starting = reasons::STARTING.contains(&said.reason.as_str());
                is_created |= !said.reason.is_empty() && !is_starting;
            }
        }
        for entry in mounted.into_iter().filter(|_| is_created) {
            entry.volume.is_present = true;
        }
        container.state = if waits_for_its_own {
            state
        } else {
            ContainerState::BehindVolume
        };
        container
    }

    /// The volumes with their inferred states. A volume that no container mounts delays nothing, so it has ended.
    pub fn finish(self) -> impl Iterator<Item = Container> {
        self.0.into_iter().map(|entry| {
            let mut volume = entry.volume;
            if volume.waits().is_some() {
                volume.is_present = false;
            } else if volume.is_present || !entry.is_mounted {
                volume.state = ContainerState::Ended;
            }
            volume
        })
    }
}

fn is_of_an_image(reason: &str) -> bool {
    reasons::is_of_image(reason) || [ERR_IMAGE_NEVER_PULL, INVALID_IMAGE_NAME].contains(&reason)
}

/// Which of these images a message is about; all of them if it names none.
fn meant(message: &str, images: &[&str]) -> Vec<bool> {
    let named = |is_named: &dyn Fn(&str) -> bool| -> Option<Vec<bool>> {
        let named: Vec<bool> = images.iter().map(|image| is_named(image)).collect();
        named.contains(&true).then_some(named)
    };
    let reference = |image: &str| image.parse::<Reference>().ok();
    // As written, or normalized as containerd does; else without the tag, as CRI-O does.
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
    use crate::workload::pod::ReasonMessage;

    const MODEL: &str = "quay.example/models/llm:v1";

    fn volumes(specs: Value) -> Volumes {
        let specs: Vec<VolumeSpec> = serde_json::from_value(specs).unwrap();
        Volumes::new(specs)
    }

    /// The resulting state of a container.
    fn take(
        all: &mut Volumes,
        image: &str,
        mounts: &[&str],
        state: ContainerState,
    ) -> ContainerState {
        let mounts: Vec<Value> = mounts
            .iter()
            .map(|name| json!({"name": name, "mountPath": "/m"}))
            .collect();
        let spec = json!({"name": "app", "image": image, "volumeMounts": mounts});
        let spec: ContainerSpec = serde_json::from_value(spec).unwrap();
        let container = all.container(ContainerKind::Container, &spec, state, false);
        container.state
    }

    fn waits(reason: &str, message: &str) -> ContainerState {
        ContainerState::Waiting(ReasonMessage {
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
        let found: Vec<_> = specs.into_iter().filter_map(VolumeSpec::image).collect();
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
            // The message names neither image.
            ("ErrImagePull", "pull QPS exceeded", true, true),
        ] {
            let mut all = volumes(json!([{"name": "m", "image": {"reference": MODEL}}]));
            let state = take(&mut all, own, &["m"], waits(reason, message));
            let is_own = state != ContainerState::BehindVolume;
            let waits = all.finish().next().unwrap().waits().is_some();
            assert_eq!((is_own, waits), (of_own, of_volume), "{message}");
        }
    }

    #[test]
    fn docker_hub_s_short_names_are_known_in_full() {
        let mut all = volumes(json!([{"name": "m", "image": {"reference": "llm"}}]));
        let text = "failed to pull and unpack image \"docker.io/library/llm:latest\": denied";
        let state = take(&mut all, "app:1", &["m"], waits("ErrImagePull", text));
        assert_eq!(state, ContainerState::BehindVolume);
    }

    #[test]
    fn a_container_that_was_created_has_its_volumes() {
        let specs = json!([{"name": "m", "image": {"reference": MODEL}},
                           {"name": "n", "image": {"reference": "n:1"}}]);
        for (said, want) in [
            (ContainerState::Running, ContainerState::Ended),
            (
                waits("CrashLoopBackOff", "back-off 5m"),
                ContainerState::Ended,
            ),
            (waits("ContainerCreating", ""), ContainerState::Unknown),
            (ContainerState::Unknown, ContainerState::Unknown),
        ] {
            let mut all = volumes(specs.clone());
            assert_eq!(take(&mut all, "a", &["m"], said.clone()), said);
            let is_present = want == ContainerState::Ended;
            let states: Vec<_> = all
                .finish()
                .map(|one| (one.state, one.is_present))
                .collect();
            let unmounted = (ContainerState::Ended, false);
            assert_eq!(states, [(want, is_present), unmounted]);
        }
        // One container waits for it although another has it: it was removed in between.
        let mut all = volumes(specs);
        take(&mut all, "a", &["m"], ContainerState::Running);
        take(&mut all, "b", &["m"], waits("ErrImagePull", MODEL));
        let volume = all.finish().next().unwrap();
        assert_eq!(volume.state, waits("ErrImagePull", MODEL));
        assert!(!volume.is_present);
    }

    #[test]
    fn without_image_volumes_a_container_waits_for_its_own_image() {
        let failed = waits("ErrImagePull", MODEL);
        let mut all = volumes(json!([{"name": "c", "configMap": {}}]));
        assert_eq!(take(&mut all, "a", &["c"], failed.clone()), failed);
        let mut all = volumes(json!([{"name": "m", "image": {"reference": MODEL}}]));
        assert_eq!(take(&mut all, "a", &[], failed.clone()), failed);
    }
}
