//! What is wrong with workloads, their service accounts and Secrets, before anybody pulls. No registry is
//! asked: what only it can tell is said to be open.

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

/// One thing that is wrong, at whom, on what evidence, and what to do.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Finding {
    pub namespace: String,
    /// Of whom: a workload's, `ServiceAccount` or `Secret`.
    pub kind: String,
    pub name: String,
    /// The container, or image volume, whose image shows it, where it is one's.
    pub container: Option<String>,
    /// What `container` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_kind: Option<ContainerKind>,
    pub cause: Cause,
    pub severity: Severity,
    pub confidence: Confidence,
    /// One fact a line.
    pub evidence: Vec<String>,
    pub hint: String,
}

/// What a look at the cluster came to.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct Snapshot {
    /// The worst first.
    pub findings: Vec<Finding>,
    pub counts: LintCounts,
    /// What was not to be seen and might have told more; a line for each.
    pub not_observed: Vec<String>,
}

/// How much was looked at.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct LintCounts {
    pub workloads: BTreeMap<WorkloadKind, usize>,
    pub namespaces: usize,
    pub service_accounts: usize,
    pub secrets: SecretCounts,
}

/// Secrets that workloads name, by themselves or by their service account.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SecretCounts {
    pub named: usize,
    pub read: usize,
    pub absent: usize,
    /// There or not, readable or not: it can't be told.
    pub unknown: usize,
}

impl Snapshot {
    pub fn is_critical(&self) -> bool {
        let worst = self.findings.iter().map(|finding| finding.severity).max();
        worst == Some(Severity::Critical)
    }
}

/// What is known of a cluster at a moment.
#[derive(Clone, Debug)]
pub struct Cluster {
    pub makers: Vec<Arc<WorkloadResource>>,
    pub accounts: Listed<Account>,
    /// Secrets of the pull types.
    pub heads: Listed<SecretMetadata>,
    pub access: Access,
    /// What came of reading Secrets.
    pub read: BTreeMap<SecretKey, SecretRead>,
    /// Lists that could not be had.
    pub unseen: Vec<String>,
}

/// Objects, and where there may be more.
#[derive(Clone, Debug)]
pub struct Listed<T> {
    pub items: Vec<Arc<T>>,
    pub unknown: Unknown,
}

/// Where a list says nothing.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Unknown {
    pub everywhere: bool,
    pub namespaces: BTreeSet<String>,
}

impl Unknown {
    fn is_in(&self, namespace: &str) -> bool {
        self.everywhere || self.namespaces.contains(namespace)
    }
}

/// What came of reading one Secret.
#[derive(Clone, Debug)]
pub enum SecretRead {
    Content(Arc<InspectedSecret>),
    /// There is none of that name there.
    Absent,
    /// It could not be read, and why.
    Unread(String),
}

/// A Secret that was read: what there is to say of it, and its keys. Nothing secret is kept.
#[derive(Clone, Debug)]
pub struct InspectedSecret {
    pub evidence: SourceEvidence,
    pub keys: LoadedSource,
}

impl InspectedSecret {
    fn at(whole: &LoadedSource) -> Self {
        Self {
            evidence: keyring::source_evidence(whole),
            keys: whole.hollow(),
        }
    }
}
