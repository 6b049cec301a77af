//! Which credentials there were, without the credentials.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The name of one credential: where it was found and under which key. Never the user or password.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub struct CredentialId {
    pub source: CredentialSource,
    /// The server key as written in the source (`https://index.docker.io/v1/`, `*.example.com`).
    pub key: String,
}

/// Where a credential comes from.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CredentialSource {
    /// `--username` and `--password-stdin`.
    CommandLine,
    /// A Secret manifest in a file.
    SecretFile {
        path: String,
        /// `metadata.namespace`, if the manifest says one.
        namespace: Option<String>,
        /// `metadata.name`; empty when the manifest has none.
        name: String,
    },
    /// A docker `config.json`, or containers `auth.json`.
    DockerConfig { path: String },
    /// A `docker-credential-*` helper named by a docker config.
    Helper { name: String, path: String },
}

impl std::fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CommandLine => f.write_str("--username"),
            Self::SecretFile {
                namespace: Some(namespace),
                name,
                ..
            } => write!(f, "secret {namespace}/{name}"),
            Self::SecretFile { name, path, .. } if name.is_empty() => write!(f, "secret in {path}"),
            Self::SecretFile { name, .. } => write!(f, "secret {name}"),
            Self::DockerConfig { path } => f.write_str(path),
            Self::Helper { name, path } => write!(f, "docker-credential-{name} (named in {path})"),
        }
    }
}

impl std::fmt::Display for CredentialId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source {
            CredentialSource::CommandLine => write!(f, "{}", self.source),
            _ => write!(f, "{} key '{}'", self.source, self.key),
        }
    }
}

/// What a keyring held for one image.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct KeyringEvidence {
    /// Sources that were read, in order.
    pub sources: Vec<SourceEvidence>,
    /// The credentials that match this image, in the order the kubelet tries them.
    pub candidates: Vec<CredentialId>,
    /// Keys that do not match this image, each with the rule it fails.
    pub mismatches: Vec<KeyMismatch>,
}

/// One source of credentials.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SourceEvidence {
    pub source: CredentialSource,
    /// How many server keys it has.
    pub keys: usize,
    /// What is wrong with it, in words that hold nothing secret; `None` when it was read.
    pub problem: Option<SourceProblem>,
}

/// Why a source gives no credentials, or fewer than it seems to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceProblem {
    /// The Secret's type is not one that the kubelet reads for pulls; it ignores the Secret.
    WrongType { found: String },
    /// The data key of its type is absent.
    NoData { key: String },
    /// The content can't be used. `reason` says where and why, never what.
    Malformed { reason: String },
    /// A credential helper failed.
    HelperFailed { reason: String },
    /// It is usable and its credentials are tried, but something in it is probably not meant.
    Suspect { reason: String },
}

impl std::fmt::Display for SourceProblem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WrongType { found } => {
                write!(f, "type '{found}' is not one the kubelet pulls with")
            }
            Self::NoData { key } => write!(f, "has no data key '{key}'"),
            Self::Malformed { reason }
            | Self::HelperFailed { reason }
            | Self::Suspect { reason } => f.write_str(reason),
        }
    }
}

/// A key that was passed over for an image.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct KeyMismatch {
    pub credential: CredentialId,
    pub rule: MatchRule,
}

/// The rules of the kubelet's keyring (kubernetes `pkg/credentialprovider/keyring.go`), in the order they are applied.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MatchRule {
    /// The key is no URL, so the kubelet drops it.
    NotAUrl,
    /// Ports are compared as strings: `reg:443` is not `reg`.
    Port {
        key: Option<String>,
        image: Option<String>,
    },
    /// The number of dot-separated labels differs; `*` stands for one label only.
    Labels { key: usize, image: usize },
    /// The key's path is not a prefix of the image's path.
    Path { key: String, image: String },
    /// A label differs.
    Host { key: String, image: String },
    /// A label's pattern is malformed.
    BadPattern { key: String },
    /// An entry without user and password (a docker config that leaves them to a helper).
    Empty,
}

impl std::fmt::Display for MatchRule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_none = |port: &Option<String>| {
            port.as_ref()
                .map_or("no port".to_owned(), |p| format!("port {p}"))
        };
        match self {
            Self::NotAUrl => f.write_str("the key is no URL"),
            Self::Port { key, image } => write!(
                f,
                "ports differ: key has {}, image has {}",
                or_none(key),
                or_none(image)
            ),
            Self::Labels { key, image } => write!(
                f,
                "the host of the key has {key} labels, that of the image {image}; '*' stands for one label only"
            ),
            Self::Path { key, image } => write!(
                f,
                "the path '{key}' is not the beginning of the image's path '{image}'"
            ),
            Self::Host { key, image } => write!(f, "host '{key}' does not match '{image}'"),
            Self::BadPattern { key } => write!(f, "'{key}' is a malformed pattern"),
            Self::Empty => f.write_str("the entry holds no user and password"),
        }
    }
}
