//! The name of an image, read as containerd and the kubelet read it.
//!
//! Grammar and normalisation: github.com/distribution/reference (`ParseDockerRef`).

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Host;

/// A normalised image reference: `docker.io/library/nginx:latest` for `nginx`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Reference {
    /// Host and port as written, after normalisation: `docker.io`, `registry.example.com:5000`.
    domain: String,
    /// The path below the domain: `library/nginx`.
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

/// Why a text is no image reference.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum ReferenceError {
    #[error("the reference is empty")]
    Empty,
}

impl Reference {
    /// `docker.io`, `registry.example.com:5000`: the key that credentials and `certs.d` go by.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// `library/nginx`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    pub fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What the manifest is asked by: the digest where there is one, else the tag.
    pub fn version(&self) -> &str {
        self.digest
            .as_deref()
            .or(self.tag.as_deref())
            .unwrap_or("latest")
    }

    /// `docker.io/library/nginx`: what the kubelet matches credentials against.
    pub fn name(&self) -> String {
        format!("{}/{}", self.domain, self.repository)
    }

    /// The host that a pull dials, and the port if the name has one. `docker.io` is served by
    /// `registry-1.docker.io` (containerd, `docker.DefaultHost`).
    pub fn host(&self) -> (Host, Option<u16>) {
        todo!()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(_text: &str) -> Result<Self, ReferenceError> {
        todo!()
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, ReferenceError> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.domain, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}
