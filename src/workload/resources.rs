//! The workloads, service accounts and pull secrets of a cluster, reduced to what the lint reads. Pure.

use super::spec::ContainerSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::eip;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{ContainerKind, EipFault, EipProblem, PullPolicy};

/// A workload, or a pod that belongs to none of the workloads that are read.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadResource {
    /// Kind of the object that was read.
    pub kind: WorkloadKind,
    /// Kind and name of a pod's owner if owners of that kind are not read, for instance `CloneSet`, `web`.
    pub owner: Option<(Box<str>, Box<str>)>,
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// Names in the `imagePullSecrets` of its pods, in order, without duplicates.
    pub pull_secrets: Box<[Box<str>]>,
    /// `serviceAccountName` of its pods. `None`: `default`.
    pub service_account: Option<Box<str>>,
    /// Containers and image volumes whose images are pulled.
    pub containers: Box<[Image]>,
    /// Problems of its pods' EIP annotations.
    pub eip: Box<[EipProblem]>,
    /// It creates no pods at present: `replicas` is 0, or it is suspended.
    pub is_idle: bool,
}

/// The kinds of workloads that are read.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum WorkloadKind {
    /// `apps/v1`.
    Deployment,
    /// `apps/v1`.
    StatefulSet,
    /// `apps/v1`.
    DaemonSet,
    /// `batch/v1`.
    Job,
    /// `batch/v1`.
    CronJob,
    /// `v1`, for pods without an owner that is read.
    Pod,
}

impl WorkloadKind {
    /// All kinds, in the order in which they are read.
    pub const ALL: &[Self] = &[
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Pod,
    ];

    /// The value of the object's `kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Pod => "Pod",
        }
    }
}

/// A container or image volume whose image is pulled; never one with the policy `Never`.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The name of the container, or the volume.
    pub container: Box<str>,
    /// Which list of the pod's `spec` it is in.
    pub kind: ContainerKind,
    /// The reference as written, printable.
    pub image: Box<str>,
    /// Domain and repository, which the keys of a pull secret are matched with. `None`: the reference is not valid.
    pub name: Option<Box<str>>,
}

impl Image {
    /// `None`: it is never pulled (policy `Never`, or no image).
    pub fn of(kind: ContainerKind, container: &ContainerSpec) -> Option<Self> {
        let image = &container.image;
        if container.policy() == Some(PullPolicy::Never) || image.is_empty() {
            return None;
        }
        let reference: Option<Reference> = image.parse().ok();
        Some(Self {
            container: printable(&container.name).into(),
            kind,
            image: printable(image).into(),
            name: reference.map(|reference| reference.name().into()),
        })
    }
}

/// The problems of a workload's EIP annotations. `template` are those of its pods; `own` are those of the workload
/// itself, which the network plugin does not read.
pub fn eip_problems(
    kind: WorkloadKind,
    template: &Map<String, Value>,
    own: &Map<String, Value>,
) -> Box<[EipProblem]> {
    let mut problems = eip::check(template);
    if kind == WorkloadKind::Pod {
        // The controller writes this annotation into running pods.
        problems.retain(|problem| problem.fault != EipFault::WrittenBack);
    } else {
        problems.extend(eip::misplaced(kind.as_str(), own));
    }
    problems.into()
}

impl WorkloadResource {
    /// The service account that its pods run as.
    pub fn account(&self) -> &str {
        self.service_account.as_deref().unwrap_or("default")
    }

    /// Kind and name of the object to fix: the owner if there is one.
    pub fn who(&self) -> (&str, &str) {
        match &self.owner {
            Some((kind, name)) => (kind, name),
            None => (self.kind.as_str(), &self.name),
        }
    }

    /// Kind and name as one text: `Deployment web`.
    pub fn shown(&self) -> String {
        let (kind, name) = self.who();
        format!("{kind} {name}")
    }
}

/// A ServiceAccount with the pull secrets that its pods get if they have none themselves.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// Names in `imagePullSecrets`, in order, without duplicates.
    pub pull_secrets: Box<[Box<str>]>,
}

/// The metadata of a Secret of a pull secret's type.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretMetadata {
    /// `metadata.namespace`.
    pub namespace: Box<str>,
    /// `metadata.name`.
    pub name: Box<str>,
    /// `metadata.resourceVersion`: changes whenever the Secret changes.
    pub version: Box<str>,
    /// It has the annotation of the Secrets that CCE (Cloud Container Engine) creates and renews itself.
    pub is_renewed: bool,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn map(value: &Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn what_nobody_pulls_is_no_image() {
        let container = |image: &str, policy: Option<&str>| ContainerSpec {
            name: "app".into(),
            image: image.into(),
            image_pull_policy: policy.map(str::to_owned),
            ..ContainerSpec::default()
        };
        let of = |container: &ContainerSpec| Image::of(ContainerKind::Container, container);
        assert_eq!(of(&container("a", Some("Never"))), None);
        assert_eq!(of(&container("", None)), None);
        let image = of(&container("reg.example.com/a:1", Some("Always"))).unwrap();
        assert_eq!(image.name.as_deref(), Some("reg.example.com/a"));
        let odd = of(&container("Reg/UPPER:1:2", None)).unwrap();
        assert_eq!(odd.name, None);
    }

    #[test]
    fn annotations_are_reported_where_they_do_nothing_and_not_what_the_controller_wrote() {
        let with = map(&json!({"yangtse.io/pod-with-eip": "true"}));
        let none = Map::new();
        assert_eq!(*eip_problems(WorkloadKind::Deployment, &with, &none), []);
        let problems = eip_problems(WorkloadKind::Deployment, &none, &with);
        assert!(problems[0].is_without_effect(), "{problems:?}");
        let written = map(&json!({"yangtse.io/allocated-ipv4-eip": "203.0.113.7"}));
        assert_eq!(*eip_problems(WorkloadKind::Pod, &written, &written), []);
        assert_eq!(eip_problems(WorkloadKind::Job, &written, &none).len(), 1);
    }
}
