//! Pull secrets looked at for themselves, without any registry: `pullpath secret check`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, Tool};
use crate::diagnose::level::Severity;
use crate::diagnose::{self, Finding};
use crate::model::credential::{KeyringEvidence, SourceEvidence};
use crate::model::reference::Reference;

/// What `secret check -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath check of pull secrets")]
pub struct SecretDocument {
    pub schema_version: u32,
    pub pullpath: Tool,
    /// The local clock, by which ends are past or near.
    pub checked: Timestamp,
    pub secrets: Vec<SecretReport>,
}

/// One Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SecretReport {
    pub secret: SourceEvidence,
    /// What the kubelet's matching makes of it for each image that was asked about.
    pub images: Vec<ImageMatch>,
    pub findings: Vec<Finding>,
}

#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ImageMatch {
    pub image: Reference,
    pub keyring: KeyringEvidence,
}

impl SecretReport {
    pub fn conclude(secret: SourceEvidence, images: Vec<ImageMatch>, at: Timestamp) -> Self {
        let mut findings = diagnose::secret(&secret, at);
        if secret.problem.is_none() {
            findings.extend(images.iter().filter_map(|image| {
                diagnose::secret_for_image(&image.image.name(), &image.keyring)
            }));
        }
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Self {
            secret,
            images,
            findings,
        }
    }
}

impl SecretDocument {
    pub fn new(checked: Timestamp, secrets: Vec<SecretReport>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            checked,
            secrets,
        }
    }

    /// Something is critical.
    pub fn fails(&self) -> bool {
        let mut findings = self.secrets.iter().flat_map(|secret| &secret.findings);
        findings.any(|finding| finding.severity == Severity::Critical)
    }
}
