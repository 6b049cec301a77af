//! A pod, its containers and its Events, reduced to what its pulls depend on and what keeps it from starting. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use jiff::Timestamp;

use super::reasons::is_of_image;
use super::spec::ContainerSpec;
use crate::model::workload::{ContainerKind, PullPolicy, SecretRefs};

/// A Pod of core/v1; only the fields in use, about a tenth of the object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pod {
    /// `metadata.namespace`.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `spec.nodeName`; `None`: it is not scheduled yet.
    pub node: Option<String>,
    /// Names in `imagePullSecrets`, in order. They include those of its service account: the API server copies them
    /// into a pod that has none (kubernetes `plugin/pkg/admission/serviceaccount`).
    pub pull_secrets: Vec<String>,
    /// `spec.serviceAccountName`.
    pub service_account: Option<String>,
    /// It has ended or is being deleted: its images are not pulled again.
    pub is_over: bool,
    /// The scheduler's message (condition `PodScheduled` is `False`). `None`: it is scheduled, or not yet considered.
    pub unscheduled: Option<ReasonMessage>,
    /// Image volumes first, then init containers.
    pub containers: Vec<Container>,
}

impl Pod {
    /// Its pull secrets. `None`: it has none.
    pub fn secrets(&self) -> Option<SecretRefs> {
        SecretRefs::of(&self.namespace, &self.pull_secrets)
    }
}

/// A reason with its message, from a container's state, a condition or an Event.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ReasonMessage {
    /// One word, for instance `ErrImagePull`.
    pub reason: String,
    /// A sentence; may be empty.
    pub message: String,
}

impl ReasonMessage {
    pub(super) fn new(reason: &str, message: &str) -> Self {
        Self {
            reason: reason.to_owned(),
            message: message.to_owned(),
        }
    }

    /// A hash of the message of a failed attempt. Hexadecimal digits are left out, because ports, times and request IDs
    /// differ from one attempt to the next. `None`: the reason is not that of an attempt.
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

/// A container of a pod, or an image volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Container {
    /// Name of the container or the volume.
    pub name: String,
    /// Which list of the pod's `spec` it is in.
    pub kind: ContainerKind,
    /// The image as written in the `spec`.
    pub image: String,
    /// The pull policy. `None`: not set, so the default for the tag applies.
    pub policy: Option<PullPolicy>,
    /// An init container with `restartPolicy: Always`: it keeps running, and the others don't wait for its end.
    pub is_sidecar: bool,
    /// The image is on the node: the kubelet reports an image ID.
    pub is_present: bool,
    /// What the kubelet reports.
    pub state: ContainerState,
}

/// The state of a container (`status.containerStatuses[].state`). That of an image volume is inferred from the
/// containers that mount it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ContainerState {
    /// The kubelet has not reported a state yet.
    Unknown,
    /// `waiting`, with the kubelet's reason and message.
    Waiting(ReasonMessage),
    /// It waits for the image of a volume that it mounts; its own image is pulled only after that.
    BehindVolume,
    /// `running`.
    Running,
    /// `terminated`. For an image volume: the image is present, or no container mounts it.
    Ended,
}

impl Container {
    /// From its spec, without a state.
    pub(super) fn of(kind: ContainerKind, spec: &ContainerSpec) -> Self {
        let is_init = kind == ContainerKind::InitContainer;
        Self {
            name: spec.name.clone(),
            kind,
            image: spec.image.clone(),
            policy: spec.policy(),
            is_sidecar: is_init && spec.restart_policy.as_deref() == Some("Always"),
            is_present: false,
            state: ContainerState::Unknown,
        }
    }

    /// Why it waits, for instance `ErrImagePull` or `ContainerCreating`. `None`: it does not wait.
    pub fn waits(&self) -> Option<&ReasonMessage> {
        match &self.state {
            ContainerState::Waiting(why) => Some(why),
            _ => None,
        }
    }

    /// Whether it waits for its image after at least one failed pull (kubernetes `pkg/kubelet/images/types.go`).
    pub fn waits_for_image(&self) -> bool {
        let why = self.waits();
        why.is_some_and(|why| is_of_image(&why.reason))
    }
}

/// An Event of core/v1 or events.k8s.io/v1 about a pod; only the fields in use. The API server serves either form as
/// the other.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Event {
    /// UID of the Event itself.
    pub uid: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// From the field path `spec.containers{NAME}`; empty if the Event is about the whole pod.
    pub container: String,
    /// The node whose kubelet reported it; empty if the Event does not name one.
    pub node: String,
    /// One word, for instance `Failed`.
    pub reason: String,
    /// The message as sent.
    pub message: String,
    /// `type` is `Warning`.
    pub is_warning: bool,
    /// How often it occurred, at least 1.
    pub count: u64,
    /// First occurrence, if known.
    pub first: Option<Timestamp>,
    /// Last occurrence; the Event's creation if no other time is known.
    pub last: Option<Timestamp>,
}

impl Event {
    pub(super) fn reason_message(&self) -> ReasonMessage {
        ReasonMessage::new(&self.reason, &self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_distinguished_by_what_went_wrong_and_not_by_their_ports() {
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
