//! Which credentials there were, without the credentials.

use jiff::Timestamp;
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
    /// `credential.username` and `credential.password_file` of a configuration.
    PasswordFile { path: String },
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
    /// The kubelet's own docker config.
    NodeConfig { path: String },
    /// `registry.configs` or `registry.auths` of containerd's own file.
    RuntimeConfig { path: String },
    /// A credential provider plugin of the kubelet (empty: whichever there are), and where it is configured.
    NodeProvider { name: String, path: String },
    /// A `docker-credential-*` helper named by a docker config.
    Helper { name: String, path: String },
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
    /// The server keys, without a user or password that may stand in them.
    #[serde(default)]
    pub server_keys: Vec<String>,
    /// What is wrong with it, in words that hold nothing secret; `None` when it was read.
    pub problem: Option<SourceProblem>,
    /// What can be used and is probably not meant.
    #[serde(default)]
    pub lint: Vec<Lint>,
    /// Until when its credentials are good, where that can be told.
    #[serde(default)]
    pub expiries: Vec<Expiry>,
}

/// Something in a source that is probably not meant.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Lint {
    /// The server key it stands under; `None`: it is of the whole.
    pub key: Option<String>,
    #[serde(flatten)]
    pub rule: LintRule,
}

#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum LintRule {
    /// `auth` and `username` with `password` say different things.
    AuthContradicts,
    /// `echo` without `-n` does that.
    EndsInNewline {
        part: String,
    },
    ControlCharacter {
        part: String,
    },
    OuterBlanks {
        part: String,
    },
    EmptyPassword,
    EmptyUser,
    NoLogin,
    /// The password is base64 of user and password.
    EncodedTwice,
    /// A template that nothing has filled in: `{{ .password }}`, `${PASSWORD}`, `<no value>`.
    Placeholder {
        part: String,
    },
    /// `$PASSWORD`: most likely the name of a variable, though a password may look so.
    LikeVariable {
        part: String,
    },
    /// Quotes of a template or a shell that became a part of it.
    Quoted {
        part: String,
    },
    /// `robot` or `robot+name`: of Harbor's `robot$name` and `robot$project+name` a shell took a part for a
    /// variable.
    RobotCut,
    /// An identity token and no password: the kubelet has no such field.
    IdentityToken,
    /// A name of Docker Hub that is not its key.
    HubAlias,
    /// No image can match the key.
    NeverMatches {
        reason: String,
    },
    /// `credsStore` or `credHelpers` in a Secret: no kubelet runs helpers.
    HelperInSecret,
    /// A Secret of the newer type without `auths`.
    NoAuths,
    /// A field has the docker config as text.
    ConfigAsText {
        field: String,
    },
    /// `auths` in a Secret of the older type.
    AuthsInLegacy,
    /// The same data key in `data` and `stringData`.
    DataTwice,
}

impl LintRule {
    /// What is sent is not what was meant.
    pub fn spoils_password(&self) -> bool {
        matches!(
            self,
            Self::EndsInNewline { .. }
                | Self::ControlCharacter { .. }
                | Self::OuterBlanks { .. }
                | Self::EncodedTwice
                | Self::AuthContradicts
                | Self::Placeholder { .. }
                | Self::LikeVariable { .. }
                | Self::Quoted { .. }
                | Self::RobotCut
        )
    }

    /// It may have been meant so after all.
    pub fn is_likely_only(&self) -> bool {
        matches!(
            self,
            Self::LikeVariable { .. } | Self::Quoted { .. } | Self::RobotCut
        )
    }

    /// Nothing can be pulled with such an entry.
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
                "'auth' and 'username' with 'password'{of} differ; 'auth' is the one used"
            ),
            LintRule::EndsInNewline { part } => write!(
                f,
                "the {part}{of} ends in a newline (`echo` adds one, `printf %s` does not)"
            ),
            LintRule::ControlCharacter { part } => {
                write!(f, "the {part}{of} holds a control character")
            }
            LintRule::OuterBlanks { part } => {
                write!(f, "the {part}{of} begins or ends in white space")
            }
            LintRule::EmptyPassword => write!(f, "there is no password{of}"),
            LintRule::EmptyUser => write!(f, "there is no user{of}"),
            LintRule::NoLogin => write!(f, "there is neither user nor password{of}"),
            LintRule::EncodedTwice => write!(
                f,
                "the password{of} is user and password in base64 once more; it belongs into 'auth'"
            ),
            LintRule::Placeholder { part } => write!(
                f,
                "the {part}{of} is a placeholder that nothing has filled in"
            ),
            LintRule::LikeVariable { part } => write!(
                f,
                "the {part}{of} looks like the name of a variable that nothing has filled in"
            ),
            LintRule::Quoted { part } => {
                write!(f, "the {part}{of} stands in quotes, which are sent along")
            }
            LintRule::RobotCut => write!(
                f,
                "the user{of} looks like one of Harbor's robots, 'robot$NAME', of which a shell took $NAME for a \
                 variable"
            ),
            LintRule::IdentityToken => write!(
                f,
                "there is an 'identitytoken'{of} and no password: the kubelet does not read identity tokens"
            ),
            LintRule::NeverMatches { reason } => write!(
                f,
                "the key '{}' can match no image: {reason}",
                self.key.as_deref().unwrap_or_default()
            ),
            LintRule::HubAlias => write!(
                f,
                "the key '{}' is not the one of Docker Hub: its images are matched by https://index.docker.io/v1/ or docker.io",
                self.key.as_deref().unwrap_or_default()
            ),
            LintRule::HelperInSecret => f.write_str(
                "it names a credential helper, which no kubelet runs: the passwords are not in it",
            ),
            LintRule::ConfigAsText { field } => write!(
                f,
                "it has no 'auths': its field '{field}' holds the docker config as text, in which the kubelet finds no key"
            ),
            LintRule::NoAuths => f.write_str("it has no 'auths': the kubelet finds no key in it"),
            LintRule::AuthsInLegacy => f.write_str(
                "it has 'auths', which belongs into a Secret of type kubernetes.io/dockerconfigjson",
            ),
            LintRule::DataTwice => f.write_str(
                "its data key is in 'data' and in 'stringData'; the API server takes that of 'stringData'",
            ),
        }
    }
}

/// Until when a credential is good.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Expiry {
    /// `None`: all of the source.
    pub key: Option<String>,
    pub sign: ExpirySign,
    /// When its life began, as far as it says so.
    pub issued: Option<Timestamp>,
    /// `None`: there is a sign, and it can't be read.
    pub expires: Option<Timestamp>,
}

/// What tells an end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpirySign {
    /// `exp` of a token that is used as password (RFC 7519, 4.1.4).
    TokenClaim,
    /// `swr-auth-may-expires-at` of CCE's `default-secret`.
    Annotation,
    /// `expiration` in a password that Amazon ECR gave (base64 of JSON), good for 12 h.
    EcrToken,
    /// The user `oauth2accesstoken`: an access token of Google, good for an hour if nothing else was asked for; it does
    /// not say since when.
    GoogleAccessToken,
    /// The user `gitlab-ci-token`: good until the CI job is over.
    GitlabJobToken,
}

/// Why a source gives no credentials, or fewer than it seems to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum SourceProblem {
    /// The Secret's type is not one that the kubelet reads for pulls; it ignores the Secret.
    #[error("type '{found}' is not one the kubelet pulls with")]
    WrongType { found: String },
    /// The data key of its type is absent.
    #[error("has no data key '{key}'")]
    NoData { key: String },
    /// The content can't be used. `reason` says where and why, never what.
    #[error("{reason}")]
    Malformed { reason: String },
    /// A credential helper failed.
    #[error("{reason}")]
    HelperFailed { reason: String },
    /// It is there, or may be, and can't be looked into from here.
    #[error("{reason}")]
    Unread { reason: String },
}

/// A key that was passed over for an image.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct KeyMismatch {
    pub credential: CredentialId,
    pub rule: MatchRule,
}

/// The rules of the kubelet's keyring (kubernetes `pkg/credentialprovider/keyring.go`), in the order they are applied.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum MatchRule {
    /// The key is no URL, so the kubelet drops it.
    #[error("the key is no URL")]
    NotAUrl,
    /// Ports are compared as strings: `reg:443` is not `reg`.
    #[error(
        "ports differ: key has {}, image has {}",
        port(key.as_deref()),
        port(image.as_deref())
    )]
    Port {
        key: Option<String>,
        image: Option<String>,
    },
    /// The number of dot-separated labels differs; `*` stands for one label only.
    #[error(
        "the host of the key has {key} labels, that of the image {image}; '*' stands for one label only"
    )]
    Labels { key: usize, image: usize },
    /// The key's path is not a prefix of the image's path.
    #[error("the path '{key}' is not the beginning of the image's path '{image}'")]
    Path { key: String, image: String },
    /// A label differs.
    #[error("host '{key}' does not match '{image}'")]
    Host { key: String, image: String },
    /// A label's pattern is malformed.
    #[error("'{key}' is a malformed pattern")]
    BadPattern { key: String },
    /// An entry without user and password (a docker config that leaves them to a helper).
    #[error("the entry holds no user and password")]
    Empty,
}

fn port(port: Option<&str>) -> String {
    port.map_or_else(|| "no port".to_owned(), |port| format!("port {port}"))
}
