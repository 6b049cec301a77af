//! Pods and their Events as the API server tells of them: what their pulls depend on, and why they do not run.

use jiff::Timestamp;

use super::reasons::IMAGE_REASONS;
use crate::model::workload::{ContainerKind, PullPolicy};

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: Option<String>,
    pub created: Option<Timestamp>,
    /// `imagePullSecrets`, in order. Those of its service account are among them: the API server
    /// writes them into a pod that names none (kubernetes `plugin/pkg/admission/serviceaccount`).
    pub pull_secrets: Vec<String>,
    pub service_account: Option<String>,
    /// It has ended, or is being deleted: its images are not pulled again.
    pub is_over: bool,
    /// Why no node was found for it, in the scheduler's words.
    pub unscheduled: Option<Said>,
    /// Image volumes first, then init containers.
    pub containers: Vec<Container>,
}

/// A reason, and what is said of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    pub reason: String,
    pub message: String,
}

/// A container, or an image volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    pub name: String,
    pub kind: ContainerKind,
    pub image: String,
    /// `None`: the API server told none, and the tag's default counts.
    pub policy: Option<PullPolicy>,
    /// An init container with `restartPolicy: Always`: it runs on, and the others do not wait for its end.
    pub is_sidecar: bool,
    /// It has an image ID: the image is there.
    pub is_present: bool,
    pub state: ContainerState,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContainerState {
    /// The kubelet has told nothing of it yet.
    Untold,
    Waiting(Said),
    /// It waits for the image of a volume that it mounts; its own is not asked for before that is there.
    BehindVolume,
    Running,
    /// Of an image volume: the image is there.
    Ended,
}

impl Container {
    /// Why it waits: `ErrImagePull`, `ContainerCreating`, …
    pub fn waits(&self) -> Option<&Said> {
        match &self.state {
            ContainerState::Waiting(said) => Some(said),
            _ => None,
        }
    }

    /// It waits for its image, after at least one pull that failed (kubernetes
    /// `pkg/kubelet/images/types.go`).
    pub fn waits_for_image(&self) -> bool {
        let is_of_image = |said: &Said| IMAGE_REASONS.contains(&said.reason.as_str());
        self.waits().is_some_and(is_of_image)
    }
}

/// An Event of core/v1 or events.k8s.io/v1 about a pod, as far as it is read: the API server shows either
/// in the other's form.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Event {
    pub uid: String,
    pub namespace: String,
    pub pod: String,
    /// From `spec.containers{NAME}`; empty where the pod as a whole is meant.
    pub container: String,
    /// The node whose kubelet says it; empty where it does not say.
    pub node: String,
    pub is_warning: bool,
    pub reason: String,
    pub message: String,
    /// How often it happened, this once included.
    pub count: u64,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
}
