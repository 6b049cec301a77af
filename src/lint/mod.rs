//! Checks workloads, their service accounts and their pull secrets before anything is pulled. No request is sent to a
//! registry; what only a registry could show stays open and is stated as such.

pub mod judge;
#[cfg(test)]
mod tests;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::diagnose::catalogue::Cause;
use crate::diagnose::level::{Confidence, Severity};
use crate::kubernetes::secrets::{Access, SecretKey};
use crate::model::credential::SourceEvidence;
use crate::model::workload::ContainerKind;
use crate::pull_secret::keyring::{self, LoadedSource};
use crate::workload::resources::{Account, SecretMetadata, WorkloadKind, WorkloadResource};

/// A problem: the object, the evidence, and the fix.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Finding {
    /// Namespace of the object.
    pub namespace: String,
    /// Kind of the object to fix: that of a workload, `ServiceAccount` or `Secret`.
    pub kind: String,
    /// Name of the object.
    pub name: String,
    /// The container or image volume whose image shows the problem; null if it is not about a single image.
    pub container: Option<String>,
    /// What `container` is; absent if `container` is null.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_kind: Option<ContainerKind>,
    /// Code of the cause.
    pub cause: Cause,
    /// `critical`: pods can't start; `warning`: some may not, or will not later.
    pub severity: Severity,
    /// How certain the cause is.
    pub confidence: Confidence,
    /// One fact for each entry.
    pub evidence: Vec<String>,
    /// The fix.
    pub hint: String,
}

/// The result of one pass over the cluster.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Snapshot {
    /// The most severe first; at most 2,000.
    pub findings: Vec<Finding>,
    /// How much was read.
    pub counts: LintCounts,
    /// What could not be read and might have shown more, with the reason; one entry for each.
    pub not_observed: Vec<String>,
}

/// Numbers of objects that were read.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LintCounts {
    /// Workloads of each kind.
    pub workloads: BTreeMap<WorkloadKind, usize>,
    /// Namespaces with at least one workload.
    pub namespaces: usize,
    /// Service accounts.
    pub service_accounts: usize,
    /// Pull secrets.
    pub secrets: SecretCounts,
}

/// Numbers of Secrets that workloads name, themselves or through their service account.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SecretCounts {
    /// All of them.
    pub named: usize,
    /// Those whose content was read.
    pub read: usize,
    /// Those that do not exist.
    pub absent: usize,
    /// Those that could not be read: whether they exist and fit is unknown.
    pub unknown: usize,
}

impl Snapshot {
    /// Whether any finding is critical.
    pub fn is_critical(&self) -> bool {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        worst == Some(Severity::Critical)
    }
}

/// What is known about a cluster at one moment.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// Workloads, and pods without an owner that is read.
    pub workloads: Vec<Arc<WorkloadResource>>,
    /// Service accounts.
    pub accounts: Listed<Account>,
    /// Secrets of a pull secret's type.
    pub secrets: Listed<SecretMetadata>,
    /// Which Secrets may be read.
    pub access: Access,
    /// The Secrets that were requested, with the result.
    pub read: BTreeMap<SecretKey, SecretRead>,
    /// Lists that could not be read, with the reason.
    pub not_observed: Vec<String>,
}

/// Objects, and the namespaces that may have more.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    /// Those that were listed.
    pub items: Vec<Arc<T>>,
    /// Where the list is missing.
    pub unknown: Unknown,
}

/// Namespaces whose objects could not be listed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unknown {
    /// All of them.
    pub everywhere: bool,
    /// These, if not all.
    pub namespaces: BTreeSet<String>,
}

impl Unknown {
    fn is_in(&self, namespace: &str) -> bool {
        self.everywhere || self.namespaces.contains(namespace)
    }
}

/// The result of reading one Secret.
#[derive(Clone, Debug)]
pub enum SecretRead {
    /// It was read.
    Content(Arc<InspectedSecret>),
    /// The namespace has no Secret with this name.
    Absent,
    /// It could not be read, with the reason.
    Unread(String),
}

/// A Secret that was read, reduced to its problems and its keys. No credential is kept.
#[derive(Clone, Debug)]
pub struct InspectedSecret {
    /// Its problems, and the facts for findings.
    pub evidence: SourceEvidence,
    /// Its keys, without users and passwords; they decide which images it serves.
    pub keys: LoadedSource,
}

impl InspectedSecret {
    /// Reduces a Secret.
    pub fn of(whole: &LoadedSource) -> Self {
        Self {
            evidence: keyring::source_evidence(whole),
            keys: whole.hollow(),
        }
    }
}
