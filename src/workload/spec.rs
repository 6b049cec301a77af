//! The fields of a Pod's spec that pulling depends on, as the API server has them.

use serde::Deserialize;

use crate::model::workload::PullPolicy;

/// A volume as the API server has it; of those of other kinds no more than the name is read.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VolumeSpec {
    #[serde(default)]
    pub name: String,
    image: Option<ImageSource>,
}

impl VolumeSpec {
    /// Its image, which is pulled as a container's is. `None`: the volume is of another kind, or names no image
    /// (which the API server takes in templates).
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

/// A volume's mount in a container.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct VolumeMount {
    #[serde(default)]
    pub name: String,
}

/// A container as the API server has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSpec {
    #[serde(default)]
    pub name: String,
    #[serde(default)]
    pub image: String,
    pub image_pull_policy: Option<String>,
    /// Of an init container that runs on beside the others: `Always`.
    pub restart_policy: Option<String>,
    #[serde(default)]
    pub volume_mounts: Vec<VolumeMount>,
}

impl ContainerSpec {
    /// `None`: nothing is said, and the tag's default counts.
    pub fn policy(&self) -> Option<PullPolicy> {
        PullPolicy::of(self.image_pull_policy.as_deref()?)
    }
}
