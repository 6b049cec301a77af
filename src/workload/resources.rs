//! What makes pods in a cluster, and of it the little that its pods' pulls depend on. Pure.

use super::spec::ContainerSpec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::eip;
use crate::model::reference::Reference;
use crate::model::text::printable;
use crate::model::workload::{ContainerKind, EipFault, EipProblem, PullPolicy};

/// A workload, or a pod that none of them has made.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkloadResource {
    pub kind: WorkloadKind,
    /// Who it is, where a pod stands for a workload of a kind that is not read: `CloneSet`, `web`.
    pub owner: Option<(Box<str>, Box<str>)>,
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// `imagePullSecrets` as it has them, in order.
    pub pull_secrets: Box<[Box<str>]>,
    /// As it has it; `default` otherwise.
    pub service_account: Option<Box<str>>,
    pub containers: Box<[Image]>,
    /// What is wrong with its pods' EIP annotations.
    pub eip: Box<[EipProblem]>,
    /// It makes no pods at present: `replicas` is 0, or it is suspended.
    pub is_idle: bool,
}

/// The kinds that are read.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
pub enum WorkloadKind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    Pod,
}

impl WorkloadKind {
    pub const ALL: &[Self] = &[
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Pod,
    ];

    /// As `kind` has it.
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

/// A container or an image volume that pulls; one of policy Never is none.
#[derive(Clone, Debug, PartialEq)]
pub struct Image {
    /// The name of the container, or the volume.
    pub container: Box<str>,
    pub kind: ContainerKind,
    /// As written.
    pub image: Box<str>,
    /// Domain and repository, by which server keys are matched; `None`: it is no image's name.
    pub name: Option<Box<str>>,
}

impl Image {
    /// `None`: nobody is asked for it.
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

/// What is wrong with the EIP annotations of what makes pods. `template`: those of its pods; `own`: those
/// of the workload itself, where the network plugin does not look.
pub fn eip_problems(
    kind: WorkloadKind,
    template: &Map<String, Value>,
    own: &Map<String, Value>,
) -> Box<[EipProblem]> {
    let mut problems = eip::check(template);
    if kind == WorkloadKind::Pod {
        // A pod that runs has been written to by the controller.
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

    /// Kind and name of who has to be mended.
    pub fn who(&self) -> (&str, &str) {
        match &self.owner {
            Some((kind, name)) => (kind, name),
            None => (self.kind.as_str(), &self.name),
        }
    }

    /// The same in one: `Deployment web`.
    pub fn shown(&self) -> String {
        let (kind, name) = self.who();
        format!("{kind} {name}")
    }
}

/// A `ServiceAccount`, and of it what pods get that name no Secret.
#[derive(Clone, Debug, PartialEq)]
pub struct Account {
    pub namespace: Box<str>,
    pub name: Box<str>,
    pub pull_secrets: Box<[Box<str>]>,
}

/// A Secret of a pull secret's type, known by its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct SecretMetadata {
    pub namespace: Box<str>,
    pub name: Box<str>,
    /// `metadata.resourceVersion`: another one, another content.
    pub version: Box<str>,
    /// It has the annotation of CCE's own.
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
    fn annotations_are_told_where_they_do_nothing_and_not_what_the_controller_wrote() {
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
