//! The users of an image: containers and image volumes of pods, with the settings in their manifests that
//! affect a pull.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::Reference;
use super::text::printable;
use super::units::OptionalSeconds;

/// Whether it is a valid name of a Kubernetes object: a DNS subdomain (RFC 1123). The length of single labels
/// is not checked.
pub fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    let is_whole = !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(is_plain) && is_whole
}

/// One container or image volume in the pods of a workload.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PodUse {
    /// The manifest file, or where else the workload was read.
    pub path: String,
    /// Kind of the workload: `Deployment`, `CronJob`, …
    pub kind: String,
    /// `metadata.namespace`; absent if the manifest has none, so that the namespace is chosen when it is
    /// applied.
    pub namespace: Option<String>,
    /// Name of the workload; empty for a pod that does not exist.
    pub name: String,
    /// Where the pod is in the object, if that is not one of Kubernetes' own kinds: `spec.tasks[0].template.spec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub found_at: Option<String>,
    /// Name of the container or image volume.
    pub container: String,
    /// Whether it is a container, an init container, …
    pub container_kind: ContainerKind,
    /// The pull policy.
    pub policy: PullPolicy,
    /// The manifest has no policy; Kubernetes chooses it from the tag.
    pub policy_is_default: bool,
    /// Whether the image is known to be on the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image_present: bool,
    /// `imagePullSecrets` of the pod, in order.
    pub pull_secrets: Vec<String>,
    /// The service account, whose `imagePullSecrets` are used if the pod has none; absent if the manifest has
    /// no `serviceAccountName`.
    pub service_account: Option<String>,
    /// Problems with the pod's EIP annotations.
    #[serde(default)]
    pub eip: Vec<EipProblem>,
    /// A rollout that takes longer counts as failed (`progressDeadlineSeconds` of a Deployment); absent for
    /// other kinds.
    #[serde(
        rename = "progress_deadline_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub progress_deadline: Option<Duration>,
    /// The result of looking up each of its Secrets.
    #[serde(default)]
    pub secrets: Vec<SecretLookup>,
}

impl PodUse {
    /// [`Self::path`] of a pod that was read from the API server.
    pub const CLUSTER: &str = "the cluster";

    /// Whether the API server has this pod: what it reports of its Secrets holds for the cluster.
    pub fn is_of_cluster(&self) -> bool {
        self.path == Self::CLUSTER
    }

    /// `Deployment default/foo, container container-0`; for a pod that does not exist, `a Pod in namespace
    /// default`.
    pub fn place(&self) -> String {
        if self.name.is_empty()
            && let Some(namespace) = &self.namespace
        {
            return format!("a {} in namespace {namespace}", self.kind);
        }
        let namespace = self
            .namespace
            .as_ref()
            .map_or_else(String::new, |namespace| format!("{namespace}/"));
        let container = if self.container.is_empty() {
            String::new()
        } else {
            format!(", {} {}", self.container_kind.as_str(), self.container)
        };
        let found_at = self
            .found_at
            .as_ref()
            .map_or_else(String::new, |at| format!(", at {at}"));
        format!(
            "{} {namespace}{}{container}{found_at}",
            self.kind, self.name
        )
    }
}

/// What uses an image in a pod.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ContainerKind {
    /// `spec.containers`.
    Container,
    /// `spec.initContainers`.
    InitContainer,
    /// `spec.ephemeralContainers`.
    EphemeralContainer,
    /// An image that the pod mounts (`spec.volumes[].image`); its name is the volume's.
    ImageVolume,
}

impl ContainerKind {
    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::InitContainer => "init container",
            Self::EphemeralContainer => "ephemeral container",
            Self::ImageVolume => "image volume",
        }
    }
}

/// `imagePullPolicy`.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    /// At each start of the container, the kubelet resolves the tag at the registry; layers that are on the
    /// node are not downloaded again.
    Always,
    /// The image is pulled if it is not on the node.
    IfNotPresent,
    /// The image is never pulled.
    Never,
}

impl PullPolicy {
    /// The default of Kubernetes for a manifest without a policy (kubernetes `pkg/apis/core/v1/defaults.go`).
    pub fn default_for(reference: &Reference) -> Self {
        // A digest after the tag changes nothing; a digest without a tag does.
        if reference.tag() == Some("latest") {
            Self::Always
        } else {
            Self::IfNotPresent
        }
    }

    /// The policy as manifests write it; `None` if it is not one.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Always, Self::IfNotPresent, Self::Never];
        all.into_iter().find(|policy| policy.as_str() == word)
    }

    /// The value in manifests.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// The name of an object in a namespace.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Namespaced {
    /// The namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

impl fmt::Display for Namespaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Secrets of one namespace, in the order in which a pod lists them.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRefs {
    /// The namespace.
    pub namespace: String,
    /// The names of the Secrets.
    pub names: Vec<String>,
    /// The number of further Secrets that a pod names and that are not read, because there are too many.
    #[serde(skip)]
    pub left_out: usize,
}

impl SecretRefs {
    /// The most Secrets of one pod that are read, in its order. Pods have one or two.
    pub const MOST_READ: usize = 32;

    /// Why some are not read; `None`: all are.
    pub fn left_out_because(&self) -> Option<String> {
        let read = self.names.len();
        (self.left_out > 0).then(|| {
            format!(
                "this pod names {} pull Secrets, and only the first {read} are read",
                read + self.left_out
            )
        })
    }

    /// `None` if there are no names.
    pub fn of(namespace: &str, names: &[String]) -> Option<Self> {
        (!names.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            names: names.iter().take(Self::MOST_READ).cloned().collect(),
            left_out: names.len().saturating_sub(Self::MOST_READ),
        })
    }

    /// The Secrets, one by one.
    pub fn keys(&self) -> impl Iterator<Item = Namespaced> {
        self.names.iter().map(|name| Namespaced {
            namespace: self.namespace.clone(),
            name: name.clone(),
        })
    }
}

/// A Secret that a pod names, and the result of looking it up.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SecretLookup {
    /// The Secret's name.
    pub name: String,
    /// The result.
    #[serde(flatten)]
    pub found: Found,
}

/// The result of looking up a Secret.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Found {
    /// It exists in the pod's namespace, or the pod or the Secret has no namespace.
    Here,
    /// A Secret of this name exists in other namespaces only.
    Elsewhere {
        /// Those namespaces.
        namespaces: Vec<String>,
    },
    /// The API server has no Secret of this name in the pod's namespace.
    Absent,
    /// Whether it exists is unknown.
    Unread {
        /// Why, in words.
        reason: String,
    },
    /// It is not among the Secrets that were given.
    NotGiven {
        /// How many were given.
        given: usize,
    },
}

/// A Secret of the cluster that was named for this check, and the result of looking it up.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RequestedSecret {
    /// The Secret's namespace.
    pub namespace: String,
    /// The Secret's name.
    pub name: String,
    /// The service account that has it in its `imagePullSecrets`; absent if the Secret itself was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// The result.
    #[serde(flatten)]
    pub found: Found,
}

impl RequestedSecret {
    /// Where it is named.
    pub fn named_by(&self) -> String {
        match &self.service_account {
            Some(account) => format!("ServiceAccount {}/{account}", self.namespace),
            None => "--secret".to_owned(),
        }
    }
}

/// A problem with a `yangtse.io` annotation (Huawei Cloud, CCE: EIP of a pod).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct EipProblem {
    /// The annotation's key; for `misplaced`, the kind of the workload.
    pub key: String,
    /// The problem.
    #[serde(flatten)]
    pub fault: EipFault,
}

/// The kinds of problems with EIP annotations.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EipFault {
    /// The value is invalid: the pod gets no EIP, or the API server refuses the manifest.
    InvalidValue {
        /// The value as written.
        value: String,
        /// What to write.
        wanted: String,
    },
    /// The value is outside the range that the documentation states for its example region; other regions differ.
    UnusualValue {
        /// The value as written.
        value: String,
        /// The usual values.
        usual: String,
    },
    /// The network plugin does not have this key.
    UnknownKey {
        /// The key that may be meant.
        nearest: String,
    },
    /// The key can't be combined with a shared bandwidth (`yangtse.io/eip-bandwidth-id`).
    NotWithSharedBandwidth,
    /// The controller writes it; in a manifest it has no effect.
    WrittenBack,
    /// `yangtse.io/pod-with-eip` is absent or "false", so these have no effect.
    WithoutEffect {
        /// The keys without effect.
        keys: Vec<String>,
    },
    /// The annotations are on the workload itself and not on its pod template.
    Misplaced {
        /// The keys that are there.
        keys: Vec<String>,
    },
}

impl EipProblem {
    /// Whether the value is invalid; all other problems are warnings.
    pub fn is_invalid(&self) -> bool {
        matches!(self.fault, EipFault::InvalidValue { .. })
    }

    /// Whether the annotations have no effect.
    pub fn is_without_effect(&self) -> bool {
        matches!(
            self.fault,
            EipFault::WithoutEffect { .. } | EipFault::Misplaced { .. }
        )
    }
}

impl fmt::Display for EipProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = printable(&self.key);
        match &self.fault {
            EipFault::InvalidValue { value, wanted } => {
                write!(f, "{key} is '{}'; write {wanted}", printable(value))
            }
            EipFault::UnusualValue { value, usual } => write!(
                f,
                "{key} is '{}'; the usual value is {usual}, but regions differ",
                printable(value)
            ),
            EipFault::UnknownKey { nearest } => {
                write!(f, "{key} is unknown; did you mean {nearest}?")
            }
            EipFault::NotWithSharedBandwidth => write!(
                f,
                "{key} can't be combined with yangtse.io/eip-bandwidth-id, whose shared bandwidth has its own setting"
            ),
            EipFault::WrittenBack => write!(
                f,
                "{key} is written by the controller into running pods; in a manifest it has no effect"
            ),
            EipFault::WithoutEffect { keys } => {
                write!(
                    f,
                    "{} have no effect: {key} is not \"true\"",
                    keys.join(", ")
                )
            }
            EipFault::Misplaced { keys } => write!(
                f,
                "{} are on the {key} itself, where they have no effect; move them to the pod template (spec.template.metadata.annotations)",
                keys.join(", ")
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_policy_goes_by_the_tag_alone() {
        let digest = format!("@sha256:{}", "ab".repeat(32));
        for (image, want) in [
            ("app", PullPolicy::Always),
            ("app:latest", PullPolicy::Always),
            ("app:1.0", PullPolicy::IfNotPresent),
            (&format!("app{digest}"), PullPolicy::IfNotPresent),
            (&format!("app:1.0{digest}"), PullPolicy::IfNotPresent),
            (&format!("app:latest{digest}"), PullPolicy::Always),
        ] {
            let reference = image.parse().unwrap();
            assert_eq!(PullPolicy::default_for(&reference), want, "{image}");
        }
    }
}
