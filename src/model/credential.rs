//! Evidence about credentials: where they are, what they match and when they expire, never their values.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Identifies one credential by its source and its key, never by its user or password.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
pub struct CredentialId {
    /// Where the credential was found.
    pub source: CredentialSource,
    /// The registry key as written in the source (`https://index.docker.io/v1/`, `*.example.com`).
    pub key: String,
}

/// Where a credential was found.
#[derive(Clone, Debug, Deserialize, Eq, Hash, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CredentialSource {
    /// `--username` and `--password-stdin`.
    CommandLine,
    /// `credential.username` and `credential.password_file` of the configuration.
    PasswordFile {
        /// The password file.
        path: String,
    },
    /// A Kubernetes Secret, from a manifest file or from the API server.
    SecretFile {
        /// The manifest file; `the cluster` for a Secret from the API server.
        path: String,
        /// `metadata.namespace`; absent if the manifest has none.
        namespace: Option<String>,
        /// `metadata.name`; empty if the manifest has none.
        name: String,
    },
    /// A docker `config.json`, or containers `auth.json`.
    DockerConfig {
        /// The file.
        path: String,
    },
    /// The kubelet's own docker config, usually `/var/lib/kubelet/config.json`.
    NodeConfig {
        /// The file.
        path: String,
    },
    /// `registry.configs` or `registry.auths` of containerd's `config.toml`.
    RuntimeConfig {
        /// The file.
        path: String,
    },
    /// A credential provider plugin of the kubelet.
    NodeProvider {
        /// The plugin's name; empty if which plugins are configured is unknown.
        name: String,
        /// Where it is configured.
        path: String,
    },
    /// A `docker-credential-*` helper that a docker config names.
    Helper {
        /// The helper's name without `docker-credential-`.
        name: String,
        /// The docker config that names it.
        path: String,
    },
}

impl std::fmt::Display for CredentialSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CommandLine => f.write_str("--username"),
            Self::PasswordFile { path } => write!(f, "password_file {path}"),
            Self::SecretFile {
                namespace: Some(namespace),
                name,
                ..
            } => write!(f, "secret {namespace}/{name}"),
            Self::SecretFile { name, path, .. } if name.is_empty() => write!(f, "secret in {path}"),
            Self::SecretFile { name, .. } => write!(f, "secret {name}"),
            Self::DockerConfig { path } => f.write_str(path),
            Self::NodeConfig { path } => write!(f, "the kubelet's {path}"),
            Self::RuntimeConfig { path } => write!(f, "containerd's {path}"),
            Self::NodeProvider { name, path } => {
                write!(f, "the kubelet's credential provider {name} ({path})")
            }
            Self::Helper { name, path } => write!(f, "docker-credential-{name} (named in {path})"),
        }
    }
}

impl std::fmt::Display for CredentialId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.source {
            CredentialSource::CommandLine | CredentialSource::PasswordFile { .. } => {
                write!(f, "{}", self.source)
            }
            _ => write!(f, "{} key '{}'", self.source, self.key),
        }
    }
}

/// The credentials that were found, and which of them match one image.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct KeyringEvidence {
    /// The sources that were read, in the order in which they were read.
    pub sources: Vec<SourceEvidence>,
    /// The credentials that match this image, in the order the kubelet tries them.
    pub candidates: Vec<CredentialId>,
    /// Keys that do not match this image, each with the rule by which it fails.
    pub mismatches: Vec<KeyMismatch>,
}

/// One source of credentials, and what was found in it.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct SourceEvidence {
    /// The source.
    pub source: CredentialSource,
    /// Number of registry keys in it.
    pub keys: usize,
    /// The registry keys, without any user or password that is written in them.
    #[serde(default)]
    pub server_keys: Vec<String>,
    /// Why it gives no credentials, in words that contain nothing secret; absent if it was read.
    pub problem: Option<SourceProblem>,
    /// Entries that can be used but are probably mistakes.
    #[serde(default)]
    pub lint: Vec<Lint>,
    /// When its credentials expire, if that is known.
    #[serde(default)]
    pub expiries: Vec<Expiry>,
    /// It is a docker config at one of the usual paths, read because no credential was given.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_usual_path: bool,
}

/// A probable mistake in a source of credentials.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Lint {
    /// The registry key of the entry; absent if the mistake concerns the whole source.
    pub key: Option<String>,
    /// The kind of mistake.
    #[serde(flatten)]
    pub rule: LintRule,
}

/// The kinds of probable mistakes in a docker config or a pull secret.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LintRule {
    /// `auth` differs from `username` and `password`.
    AuthContradicts,
    /// The user or password ends in a newline, as `echo` without `-n` writes it.
    EndsInNewline {
        /// `user` or `password`.
        part: String,
    },
    /// The user or password contains a control character.
    ControlCharacter {
        /// `user` or `password`.
        part: String,
    },
    /// The user or password begins or ends with white space.
    OuterBlanks {
        /// `user` or `password`.
        part: String,
    },
    /// The user has an empty password.
    EmptyPassword,
    /// The password has an empty user.
    EmptyUser,
    /// The entry has neither user nor password.
    NoLogin,
    /// The password is itself user and password in base64.
    EncodedTwice,
    /// The user is the base64 of another text.
    EncodedUser,
    /// A template that was never filled in: `{{ .password }}`, `${PASSWORD}`, `<no value>`.
    Placeholder {
        /// `user`, `password` or `key`.
        part: String,
    },
    /// `$PASSWORD`: most likely a variable that was not expanded, though a password may look like that.
    LikeVariable {
        /// `user` or `password`.
        part: String,
    },
    /// `null`, `undefined` or stars: what programs print in place of a value.
    NoValue {
        /// `user` or `password`.
        part: String,
    },
    /// The user is one of Google's for a service account's key file, and the password is no key file in the form that
    /// this user needs.
    KeyFile {
        /// Whether the key file has to be in base64 (`_json_key_base64`).
        in_base64: bool,
    },
    /// The quotes of a template or a shell became part of the value.
    Quoted {
        /// `user` or `password`.
        part: String,
    },
    /// The user is `robot` or `robot+name`: what a shell leaves of Harbor's `robot$name` or
    /// `robot$project+name` after expanding `$name` or `$project` as a variable.
    RobotCut,
    /// An identity token without a password: the kubelet does not read `identitytoken`.
    IdentityToken,
    /// The key is a name of Docker Hub other than the one that its images match.
    HubAlias,
    /// The key can't match any image.
    NeverMatches {
        /// Why, in words.
        reason: String,
    },
    /// `credsStore` or `credHelpers` in a Secret: the kubelet does not run helpers.
    HelperInSecret,
    /// A Secret of type `kubernetes.io/dockerconfigjson` without `auths`.
    NoAuths,
    /// A field contains the docker config as text.
    ConfigAsText {
        /// Name of that field.
        field: String,
    },
    /// `auths` in a Secret of type `kubernetes.io/dockercfg`.
    AuthsInLegacy,
    /// The same data key is in `data` and in `stringData`.
    DataTwice,
}

impl LintRule {
    /// Whether the credential that is sent is probably not the intended one.
    pub fn spoils_password(&self) -> bool {
        matches!(
            self,
            Self::EndsInNewline { .. }
                | Self::ControlCharacter { .. }
                | Self::OuterBlanks { .. }
                | Self::EncodedTwice
                | Self::EncodedUser
                | Self::AuthContradicts
                | Self::Placeholder { .. }
                | Self::LikeVariable { .. }
                | Self::NoValue { .. }
                | Self::KeyFile { .. }
                | Self::Quoted { .. }
                | Self::RobotCut
        )
    }

    /// Whether the value may be intended after all.
    pub fn is_likely_only(&self) -> bool {
        matches!(
            self,
            Self::LikeVariable { .. }
                | Self::NoValue { .. }
                | Self::Quoted { .. }
                | Self::RobotCut
                | Self::EncodedUser
        )
    }

    /// Whether nothing can be pulled with such an entry.
    pub fn spoils_entry(&self) -> bool {
        matches!(
            self,
            Self::EmptyPassword
                | Self::EmptyUser
                | Self::NoLogin
                | Self::NeverMatches { .. }
                | Self::EndsInNewline { .. }
                | Self::Placeholder { .. }
        )
    }
}

impl std::fmt::Display for Lint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = self
            .key
            .as_ref()
            .map_or_else(String::new, |key| format!(" of the entry '{key}'"));
        match &self.rule {
            LintRule::AuthContradicts => write!(
                f,
                "'auth' differs from 'username' and 'password'{of}; 'auth' is used"
            ),
            LintRule::EndsInNewline { part } => write!(
                f,
                "the {part}{of} ends in a newline (`echo` adds one, `printf %s` does not)"
            ),
            LintRule::ControlCharacter { part } => {
                write!(f, "the {part}{of} contains a control character")
            }
            LintRule::OuterBlanks { part } => {
                write!(f, "the {part}{of} begins or ends with white space")
            }
            LintRule::EmptyPassword => write!(f, "there is no password{of}"),
            LintRule::EmptyUser => write!(f, "there is no user{of}"),
            LintRule::NoLogin => write!(f, "there is neither user nor password{of}"),
            LintRule::EncodedTwice => write!(
                f,
                "the password{of} is itself user and password in base64, which belongs in 'auth'"
            ),
            LintRule::EncodedUser => write!(
                f,
                "the user{of} looks like the base64 of a name; only 'auth' is base64, 'username' and 'password' are plain"
            ),
            LintRule::Placeholder { part } => write!(
                f,
                "the {part}{of} is a placeholder that was never filled in"
            ),
            LintRule::LikeVariable { part } => write!(
                f,
                "the {part}{of} looks like a variable that was never expanded"
            ),
            LintRule::NoValue { part } => write!(
                f,
                "the {part}{of} is what programs print where they have no value or hide it (null, undefined, ***)"
            ),
            LintRule::KeyFile { in_base64: false } => write!(
                f,
                "the password{of} is not the key file of a service account, which the user '_json_key' needs as it is; \
                 in base64, the user is '_json_key_base64'"
            ),
            LintRule::KeyFile { in_base64: true } => write!(
                f,
                "the password{of} is not the base64 of a service account's key file, which the user '_json_key_base64' \
                 needs; for the file as it is, the user is '_json_key'"
            ),
            LintRule::Quoted { part } => {
                write!(f, "the {part}{of} is in quotes, which are sent as part of it")
            }
            LintRule::RobotCut => write!(
                f,
                "the user{of} looks like a Harbor robot account, 'robot$NAME', whose $NAME a shell expanded as a \
                 variable"
            ),
            LintRule::IdentityToken => write!(
                f,
                "'identitytoken'{of} is set and there is no password: the kubelet does not read identity tokens"
            ),
            LintRule::NeverMatches { reason } => write!(
                f,
                "the key '{}' can't match any image: {reason}",
                self.key.as_deref().unwrap_or_default()
            ),
            LintRule::HubAlias => write!(
                f,
                "the key '{}' is not Docker Hub's key: its images match https://index.docker.io/v1/ or docker.io",
                self.key.as_deref().unwrap_or_default()
            ),
            LintRule::HelperInSecret => f.write_str(
                "it names a credential helper, which the kubelet does not run; the passwords are not in it",
            ),
            LintRule::ConfigAsText { field } => write!(
                f,
                "it has no 'auths': its field '{field}' contains the docker config as text, so the kubelet finds no key"
            ),
            LintRule::NoAuths => f.write_str("it has no 'auths', so the kubelet finds no key in it"),
            LintRule::AuthsInLegacy => f.write_str(
                "it has 'auths', which belongs in a Secret of type kubernetes.io/dockerconfigjson",
            ),
            LintRule::DataTwice => f.write_str(
                "its data key is in both 'data' and 'stringData'; the API server uses 'stringData'",
            ),
        }
    }
}

/// When a credential expires.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Expiry {
    /// The registry key of the entry; absent if it applies to the whole source.
    pub key: Option<String>,
    /// What the time was inferred from.
    pub sign: ExpirySign,
    /// When it was issued; absent if it does not state that.
    pub issued: Option<Timestamp>,
    /// When it expires; absent if it does expire and the time can't be read.
    pub expires: Option<Timestamp>,
}

/// What shows that a credential expires.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpirySign {
    /// `exp` of a token that is used as password (RFC 7519, 4.1.4).
    TokenClaim,
    /// `swr-auth-may-expires-at` of CCE's `default-secret`.
    Annotation,
    /// `expiration` in a password issued by Amazon ECR (base64 of JSON), valid for 12 h.
    EcrToken,
    /// The user `oauth2accesstoken`: a Google access token, valid for an hour by default. It does not state
    /// when it was issued.
    GoogleAccessToken,
    /// The user `gitlab-ci-token`: valid until the CI job ends.
    GitlabJobToken,
    /// A password that begins with `ghs_`: a token of a GitHub workflow or app, valid until the job ends, or an hour.
    GithubJobToken,
}

/// Why a source gives no credentials, or fewer than it seems to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceProblem {
    /// The kubelet does not read Secrets of this type for pulls; it ignores the Secret.
    #[error("type '{found}' is not a type that the kubelet reads for pulls")]
    WrongType {
        /// The Secret's type.
        found: String,
    },
    /// The data key that its type requires is missing.
    #[error("has no data key '{key}'")]
    NoData {
        /// The data key: `.dockerconfigjson` or `.dockercfg`.
        key: String,
    },
    /// The content can't be used.
    #[error("{reason}")]
    Malformed {
        /// Where and why, never the content.
        reason: String,
    },
    /// A credential helper failed.
    #[error("{reason}")]
    HelperFailed {
        /// Why, in words.
        reason: String,
    },
    /// It exists or may exist, and can't be read from this vantage point.
    #[error("{reason}")]
    Unread {
        /// Why, in words.
        reason: String,
    },
}

/// A key that does not match an image.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct KeyMismatch {
    /// The credential of that key.
    pub credential: CredentialId,
    /// The first rule by which it does not match.
    pub rule: MatchRule,
}

/// The matching rules of the kubelet's keyring (kubernetes `pkg/credentialprovider/keyring.go`), in the order
/// in which they are applied.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MatchRule {
    /// The key is not a URL, so the kubelet drops it.
    #[error("the key is not a URL")]
    NotAUrl,
    /// Ports are compared as strings: `reg:443` is not `reg`.
    #[error(
        "ports differ: key has {}, image has {}",
        port(key.as_deref()),
        port(image.as_deref())
    )]
    Port {
        /// Port of the key; absent if it has none.
        key: Option<String>,
        /// Port of the image's registry; absent if it has none.
        image: Option<String>,
    },
    /// The number of dot-separated labels differs; `*` matches one label only.
    #[error(
        "the key's host has {key} labels, the image's host has {image}; '*' matches one label only"
    )]
    Labels {
        /// Number of labels in the key's host.
        key: usize,
        /// Number of labels in the image's host.
        image: usize,
    },
    /// The key's path is not a prefix of the image's path.
    #[error("the key's path '{key}' is not a prefix of the image's path '{image}'")]
    Path {
        /// Path of the key.
        key: String,
        /// Path of the image: its repository.
        image: String,
    },
    /// A label of the host differs.
    #[error("host '{key}' does not match '{image}'")]
    Host {
        /// Host of the key.
        key: String,
        /// Host of the image.
        image: String,
    },
    /// A label's pattern is malformed.
    #[error("'{key}' is a malformed pattern")]
    BadPattern {
        /// The malformed pattern.
        key: String,
    },
    /// An entry without user and password (a docker config that leaves them to a helper).
    #[error("the entry has no user and password")]
    Empty,
}

fn port(port: Option<&str>) -> String {
    port.map_or_else(|| "no port".to_owned(), |port| format!("port {port}"))
}
