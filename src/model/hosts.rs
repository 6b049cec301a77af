//! The hosts that containerd requests an image from: the registry itself, or what `hosts.toml` sets in its
//! place (containerd, docs/hosts.md).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::credential::CredentialId;
use super::endpoint::Endpoint;
use super::units::OptionalSeconds;

/// Which of containerd's settings apply to the image's registry.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostsConfig {
    /// No settings were given or found; the registry itself was queried.
    #[default]
    Unread,
    /// The folders of `config_path` were read and have nothing for this registry.
    NoneFor {
        /// The folders that were searched, in order.
        folders: Vec<String>,
        /// Settings that do not do what they seem to.
        #[serde(default)]
        problems: Vec<HostsProblem>,
    },
    /// Without `config_path`: the endpoints of `registry.mirrors` in containerd's `config.toml`.
    ConfigToml {
        /// The path of `config.toml`.
        file: String,
        /// Settings that do not do what they seem to.
        #[serde(default)]
        problems: Vec<HostsProblem>,
    },
    /// The folder of `certs.d` that containerd uses for this registry.
    Read {
        /// Its path.
        folder: String,
        /// Settings that do not do what they seem to.
        problems: Vec<HostsProblem>,
    },
}

impl HostsConfig {
    /// The problems of these settings, in the order in which they were found.
    pub fn problems(&self) -> &[HostsProblem] {
        match self {
            Self::Unread => &[],
            Self::NoneFor { problems, .. }
            | Self::ConfigToml { problems, .. }
            | Self::Read { problems, .. } => problems,
        }
    }
}

/// A setting in `config.toml` or a folder of `certs.d` that does not do what it seems to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct HostsProblem {
    /// What it does to a pull.
    pub effect: HostsEffect,
    /// Which key of which file, why, and what to write instead.
    pub reason: String,
    /// Whether it is in `config.toml`, where a correction takes effect after a restart of containerd.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_restart: bool,
}

impl HostsProblem {
    /// A problem in a folder of `certs.d`, which containerd reads at each pull.
    pub fn of_hosts(effect: HostsEffect, reason: impl Into<String>) -> Self {
        Self {
            effect,
            reason: reason.into(),
            needs_restart: false,
        }
    }

    /// A problem in `config.toml`, which containerd reads when it starts.
    pub fn of_config(effect: HostsEffect, reason: impl Into<String>) -> Self {
        Self {
            needs_restart: true,
            ..Self::of_hosts(effect, reason)
        }
    }
}

/// What a problem does to a pull.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostsEffect {
    /// No image is pulled on this node: containerd does not start, or its CRI plugin does not load.
    PullsNothing,
    /// Every pull of this registry fails.
    PullFails,
    /// containerd refuses the image's name before it sends any request.
    NameRefused,
    /// containerd continues as if the file, or the setting, did not exist.
    Ignored,
    /// It works and is probably not intended, or it depends on containerd's version.
    Doubtful,
    /// Whether pulls succeed depends on something that was not observed.
    Undecided,
    /// The file was changed after containerd started; the earlier content is in force.
    Changed,
}

/// One host that containerd would request the image from, with its settings.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RegistryHost {
    /// Scheme, host and port.
    pub endpoint: Endpoint,
    /// The path of its API: `/v2` unless `override_path` is set.
    pub path: String,
    /// Why containerd uses it.
    pub kind: HostKind,
    /// Its position in containerd's order; the first is 0.
    #[serde(default)]
    #[serde(alias = "place")]
    pub position: usize,
    /// The registry in the image's name, sent as `?ns=` if this host is another one; absent if it is not sent.
    pub namespace: Option<String>,
    /// Whether it may resolve a tag (`capabilities`). If not, content is requested from it by digest only.
    pub resolves: bool,
    /// `skip_verify`: containerd accepts any certificate.
    #[serde(default)]
    pub skip_verify: bool,
    /// Number of client certificates (`client`) that are offered to it.
    #[serde(default)]
    pub client_certificates: usize,
    /// `ca`: files whose authorities are trusted in addition to the system's.
    #[serde(default)]
    pub ca_files: Vec<String>,
    /// The names of `header`s that are sent to it. Their values may be secret and are not stored.
    #[serde(default)]
    pub headers: Vec<String>,
    /// `dial_timeout`; absent: containerd's default, 30 s.
    #[serde(rename = "dial_timeout_seconds", with = "OptionalSeconds", default)]
    pub dial_timeout: Option<Duration>,
    /// TLS is tried first, then plain http if it fails: a host written as `http://` with TLS settings, or a
    /// registry on loopback.
    #[serde(default)]
    pub falls_back_to_http: bool,
    /// The login that containerd's `config.toml` has for it, which counts if the kubelet sends no credential; absent
    /// if it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<CredentialId>,
}

/// Why containerd uses a host.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKind {
    /// It is the registry in the image's name.
    Registry,
    /// A `[host."…"]` of `hosts.toml`.
    Mirror,
    /// `server` of `hosts.toml`, used after the mirrors.
    Server,
}

impl HostKind {
    /// The kind in words.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Registry => "the image's own registry",
            Self::Mirror => "mirror",
            Self::Server => "server",
        }
    }
}

impl RegistryHost {
    /// The image's own registry without any settings.
    pub fn plain(endpoint: Endpoint) -> Self {
        let falls_back_to_http = endpoint.host.is_loopback();
        Self {
            endpoint,
            path: "/v2".to_owned(),
            kind: HostKind::Registry,
            position: 0,
            namespace: None,
            resolves: true,
            skip_verify: false,
            client_certificates: 0,
            ca_files: Vec::new(),
            headers: Vec::new(),
            dial_timeout: None,
            falls_back_to_http,
            login: None,
        }
    }
}
