//! Who wants an image: a container or an image volume of a pod, with what its manifest says of the pull.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::reference::Reference;
use super::text::printable;
use super::units::OptionalSeconds;

/// Whether it names an object of Kubernetes: a DNS subdomain (RFC 1123), labels' own bounds aside.
pub fn is_name(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b);
    let is_whole = !text.starts_with(['-', '.']) && !text.ends_with(['-', '.']);
    !text.is_empty() && text.len() <= 253 && text.bytes().all(is_plain) && is_whole
}

/// One container, or image volume, of a workload's pods.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct PodUse {
    /// The file.
    pub path: String,
    /// `Deployment`, `CronJob`, …
    pub kind: String,
    /// As the manifest says it; `None`: that of whoever applies it.
    pub namespace: Option<String>,
    pub name: String,
    pub container: String,
    pub container_kind: ContainerKind,
    pub policy: PullPolicy,
    /// The manifest names none; Kubernetes chose it by the tag.
    pub policy_is_default: bool,
    /// The image is known to be on the node.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub image_present: bool,
    /// `imagePullSecrets`, in order.
    pub pull_secrets: Vec<String>,
    /// Its Secrets count when the pod names none.
    pub service_account: Option<String>,
    /// What is wrong with the pod's EIP annotations.
    #[serde(default)]
    pub eip: Vec<EipProblem>,
    /// A rollout that takes longer is given up (`progressDeadlineSeconds` of a Deployment).
    #[serde(
        rename = "progress_deadline_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub progress_deadline: Option<Duration>,
    /// What came of looking for each of its Secrets among those given.
    #[serde(default)]
    pub secrets: Vec<SecretLookup>,
}

impl PodUse {
    /// `Deployment default/foo, container container-0`; of a pod that there is not,
    /// `a Pod of namespace default`.
    pub fn place(&self) -> String {
        if self.name.is_empty()
            && let Some(namespace) = &self.namespace
        {
            return format!("a {} of namespace {namespace}", self.kind);
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
        format!("{} {namespace}{}{container}", self.kind, self.name)
    }
}

#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum ContainerKind {
    Container,
    InitContainer,
    EphemeralContainer,
    /// An image that the pod mounts (`volumes[].image`); its name is the volume's.
    ImageVolume,
}

impl ContainerKind {
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
    /// The registry is asked at each start of the container for the tag's digest; layers that are
    /// there are not fetched again.
    Always,
    IfNotPresent,
    Never,
}

impl PullPolicy {
    /// What Kubernetes sets where the manifest says nothing (kubernetes `pkg/apis/core/v1/defaults.go`).
    pub fn default_for(reference: &Reference) -> Self {
        // A digest beside the tag changes nothing; in the place of one it does.
        if reference.tag() == Some("latest") {
            Self::Always
        } else {
            Self::IfNotPresent
        }
    }

    /// As manifests write it; `None`: it is no policy.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Always, Self::IfNotPresent, Self::Never];
        all.into_iter().find(|policy| policy.as_str() == word)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// An object in its namespace.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Namespaced {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Namespaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Secrets of one namespace, in the order in which a pod names them.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SecretRefs {
    pub namespace: String,
    pub names: Vec<String>,
}

impl SecretRefs {
    /// `None` where no name is given.
    pub fn of(namespace: &str, names: &[String]) -> Option<Self> {
        (!names.is_empty()).then(|| Self {
            namespace: namespace.to_owned(),
            names: names.to_vec(),
        })
    }

    /// Each by itself.
    pub fn keys(&self) -> impl Iterator<Item = Namespaced> {
        self.names.iter().map(|name| Namespaced {
            namespace: self.namespace.clone(),
            name: name.clone(),
        })
    }
}

/// A Secret that a pod names, looked for among those that were given.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SecretLookup {
    pub name: String,
    #[serde(flatten)]
    pub found: Found,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "found", rename_all = "snake_case")]
pub enum Found {
    /// In the pod's namespace, or one of them says no namespace.
    Here,
    /// Under this name in these namespaces only.
    Elsewhere { namespaces: Vec<String> },
    /// The API server has none of this name in the pod's namespace.
    Absent,
    /// Whether it is there can't be told, and why.
    Unread { reason: String },
    /// Not among those given; `given` is how many there were.
    NotGiven { given: usize },
}

/// A Secret of the cluster that whoever asked has named, and what came of looking for it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RequestedSecret {
    pub namespace: String,
    pub name: String,
    /// The service account that has it among its `imagePullSecrets`; `None`: it was named itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    #[serde(flatten)]
    pub found: Found,
}

impl RequestedSecret {
    /// Who names it.
    pub fn named_by(&self) -> String {
        match &self.service_account {
            Some(account) => format!("ServiceAccount {}/{account}", self.namespace),
            None => "--secret".to_owned(),
        }
    }
}

/// Something about a `yangtse.io` annotation (Huawei Cloud, CCE: EIP of a pod).
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct EipProblem {
    pub key: String,
    #[serde(flatten)]
    pub fault: EipFault,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EipFault {
    /// A value that is none: the pod gets no EIP, or the API server refuses the manifest.
    InvalidValue { value: String, wanted: String },
    /// A value beyond what the documentation's example region takes; other regions differ.
    UnusualValue { value: String, usual: String },
    /// No key that the network plugin knows; `nearest` may be meant.
    UnknownKey { nearest: String },
    /// May not stand beside a shared bandwidth.
    NotWithSharedBandwidth,
    /// Written by the controller; in a manifest it says nothing.
    WrittenBack,
    /// `yangtse.io/pod-with-eip` is absent or "false"; these then do nothing.
    WithoutEffect { keys: Vec<String> },
    /// On the workload itself and not on its pods' template.
    Misplaced { keys: Vec<String> },
}

impl EipProblem {
    /// The value is none; all others are warnings.
    pub fn is_invalid(&self) -> bool {
        matches!(self.fault, EipFault::InvalidValue { .. })
    }

    /// The annotations do nothing.
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
                "{key} is '{}'; usual is {usual}, and regions differ",
                printable(value)
            ),
            EipFault::UnknownKey { nearest } => {
                write!(f, "{key} is not known; {nearest} may be meant")
            }
            EipFault::NotWithSharedBandwidth => write!(
                f,
                "{key} may not stand beside yangtse.io/eip-bandwidth-id, which shares a bandwidth that has its own"
            ),
            EipFault::WrittenBack => write!(
                f,
                "{key} is written by the controller into running pods; in a manifest it says nothing"
            ),
            EipFault::WithoutEffect { keys } => {
                write!(f, "{} do nothing: {key} is not \"true\"", keys.join(", "))
            }
            EipFault::Misplaced { keys } => write!(
                f,
                "{} stand on the {key} itself; only those of the pods' template (spec.template.metadata.annotations) count",
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
