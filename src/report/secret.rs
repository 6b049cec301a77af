//! The result of `pullpath secret check`: problems of pull secrets, found without a registry.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{SCHEMA_VERSION, Tool};
use crate::diagnose::level::Severity;
use crate::diagnose::{self, Finding};
use crate::model::credential::{KeyringEvidence, SourceEvidence};
use crate::model::documents::ManifestNote;
use crate::model::reference::Reference;

/// What `secret check -o json` prints.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
#[schemars(title = "Pullpath check of pull secrets")]
pub struct SecretDocument {
    /// The version of this document's fields.
    pub schema_version: u32,
    /// The program that wrote it.
    pub pullpath: Tool,
    /// When the Secrets were checked, by the local clock: it decides which credentials have expired or expire
    /// soon.
    pub checked: Timestamp,
    /// One for each Secret of each file, in their order. A file without a Secret has one without a name.
    pub secrets: Vec<SecretReport>,
    /// Secrets of the files that are no pull secrets and were passed over, and what is probably a mistake in a file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<ManifestNote>,
}

/// One Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct SecretReport {
    /// The Secret's name and server keys, without credentials, and what is wrong with its form.
    pub secret: SourceEvidence,
    /// For each `--image`, the result of the kubelet's matching.
    pub images: Vec<ImageMatch>,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
}

/// An image and the server keys of one Secret.
#[derive(Clone, Debug, Deserialize, JsonSchema, PartialEq, Serialize)]
pub struct ImageMatch {
    /// The image of `--image`.
    pub image: Reference,
    /// The Secret's keys that match the image under the kubelet's rules; the others each with the rule that fails.
    pub keyring: KeyringEvidence,
}

impl SecretReport {
    /// Diagnoses a Secret. `at` is the time for the expiry of credentials.
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
    /// A document of this program and the current version.
    pub fn new(checked: Timestamp, secrets: Vec<SecretReport>, notes: Vec<ManifestNote>) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            pullpath: Tool::this(),
            checked,
            secrets,
            notes,
        }
    }

    /// Whether any finding is critical.
    pub fn fails(&self) -> bool {
        let mut findings = self.secrets.iter().flat_map(|secret| &secret.findings);
        findings.any(|finding| finding.severity == Severity::Critical)
    }
}
