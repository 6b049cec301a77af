//! The fields of a Pod's `spec` that pulls depend on, as the API server serves them.

use serde::Deserialize;

use crate::model::workload::PullPolicy;

/// An entry of `spec.volumes`; for a volume that is not an image, only the name is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VolumeSpec {
    /// The name that mounts refer to.
    #[serde(default)]
    pub name: String,
    image: Option<ImageSource>,
}

impl VolumeSpec {
    /// Its image, which is pulled like that of a container. `None`: the volume is of another kind, or has no reference
    /// (which the API server accepts in templates).
    pub fn image(self) -> Option<ContainerSpec> {
        let image = self.image.filter(|image| !image.reference.is_empty())?;
        Some(ContainerSpec {
            name: self.name,
            image: image.reference,
            image_pull_policy: image.pull_policy,
            ..ContainerSpec::default()
        })
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ImageSource {
    #[serde(default)]
    reference: String,
    pull_policy: Option<String>,
}

/// An entry of a container's `volumeMounts`.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VolumeMount {
    /// Name of the volume.
    #[serde(default)]
    pub name: String,
}

/// A container of a Pod's `spec`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    /// Name of the container, or of the volume that this stands for.
    #[serde(default)]
    pub name: String,
    /// The image reference as written.
    #[serde(default)]
    pub image: String,
    /// `Always`, `IfNotPresent` or `Never`. `None`: not set.
    pub image_pull_policy: Option<String>,
    /// `Always` for an init container that keeps running beside the others (a sidecar).
    pub restart_policy: Option<String>,
    /// The volumes that it mounts.
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
}

impl ContainerSpec {
    /// The pull policy. `None`: not set or not known, so the default for the tag applies.
    pub fn policy(&self) -> Option<PullPolicy> {
        PullPolicy::of(self.image_pull_policy.as_deref()?)
    }
}
