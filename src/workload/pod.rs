//! A pod as the API server tells of it, and of it what its pulls depend on and what keeps it. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;

use super::reasons::IMAGE_REASONS;
use super::spec::ContainerSpec;
use crate::model::workload::{ContainerKind, PullPolicy, SecretRefs};

/// A pod: of the API server's object, which is ten times as large, what is asked for here.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub node: Option<String>,
    /// `imagePullSecrets`, in order. Those of its service account are among them: the API server
    /// writes them into a pod that names none (kubernetes `plugin/pkg/admission/serviceaccount`).
    pub pull_secrets: Vec<String>,
    pub service_account: Option<String>,
    /// It has ended, or is being deleted: its images are not pulled again.
    pub is_over: bool,
    /// Why no node was found for it, in the scheduler's words.
    pub unscheduled: Option<ReasonMessage>,
    /// Image volumes first, then init containers.
    pub containers: Vec<Container>,
}

impl Pod {
    /// `None`: it names none.
    pub fn secrets(&self) -> Option<SecretRefs> {
        (!self.pull_secrets.is_empty()).then(|| SecretRefs {
            namespace: self.namespace.clone(),
            names: self.pull_secrets.clone(),
        })
    }
}

/// A reason, and what is said of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReasonMessage {
    pub reason: String,
    pub message: String,
}

impl ReasonMessage {
    pub(super) fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    /// A number for the text of a failed try, without what differs from one try to the next: ports, times,
    /// ids of requests, which are digits of some kind. `None`: it says nothing of a try.
    pub(super) fn of_try(&self) -> Option<u64> {
        if self.reason != "ErrImagePull" {
            return None;
        }
        let mut hasher = DefaultHasher::new();
        for c in self.message.chars().filter(|c| !c.is_ascii_hexdigit()) {
            c.hash(&mut hasher);
        }
        Some(hasher.finish())
    }
}

/// A container of a pod, or an image that it mounts.
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
    Waiting(ReasonMessage),
    /// It waits for the image of a volume that it mounts; its own is not asked for before that is there.
    BehindVolume,
    Running,
    /// Of an image volume: the image is there, or its failure holds up nobody.
    Ended,
}

impl Container {
    /// As its spec has it; the kubelet has told nothing of it.
    pub(super) fn of(kind: ContainerKind, spec: &ContainerSpec) -> Self {
        let is_init = kind == ContainerKind::InitContainer;
        Self {
            name: spec.name.clone(),
            kind,
            image: spec.image.clone(),
            policy: spec.policy(),
            is_sidecar: is_init && spec.restart_policy.as_deref() == Some("Always"),
            is_present: false,
            state: ContainerState::Untold,
        }
    }

    /// Why it waits: `ErrImagePull`, `ContainerCreating`, …
    pub fn waits(&self) -> Option<&ReasonMessage> {
        match &self.state {
            ContainerState::Waiting(said) => Some(said),
            _ => None,
        }
    }

    /// It waits for its image, after at least one pull that failed (kubernetes
    /// `pkg/kubelet/images/types.go`).
    pub fn waits_for_image(&self) -> bool {
        let said = self.waits();
        said.is_some_and(|said| IMAGE_REASONS.contains(&said.reason.as_str()))
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
    pub reason: String,
    pub message: String,
    pub is_warning: bool,
    /// How often it happened, this once included.
    pub count: u64,
    pub first: Option<Timestamp>,
    pub last: Option<Timestamp>,
}

impl Event {
    pub(super) fn said(&self) -> ReasonMessage {
        ReasonMessage::new(&self.reason, &self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_told_apart_by_what_went_wrong_and_not_by_their_ports() {
        let said = |reason: &str, message: &str| ReasonMessage::new(reason, message).of_try();
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
