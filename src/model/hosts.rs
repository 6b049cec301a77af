//! The hosts that containerd asks for an image: the registry itself, or what `hosts.toml` puts in
//! its place (containerd, docs/hosts.md).

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use super::units::OptionalSeconds;

/// What is known of containerd's settings for an image's registry.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum HostsConfig {
    /// No folder of them was given or found; the registry itself was asked.
    #[default]
    Unread,
    /// The folder was read, and has nothing for this registry.
    NoneFor {
        folders: Vec<String>,
        #[serde(default)]
        problems: Vec<HostsProblem>,
    },
    /// Without `config_path`: the endpoints of `registry.mirrors` in containerd's own file.
    ConfigToml {
        file: String,
        #[serde(default)]
        problems: Vec<HostsProblem>,
    },
    /// This folder is the one that containerd takes for this registry.
    Read {
        folder: String,
        /// What is wrong with it, in words; containerd may see it otherwise than its author.
        problems: Vec<HostsProblem>,
    },
}

impl HostsConfig {
    pub fn problems(&self) -> &[HostsProblem] {
        match self {
            Self::Unread => &[],
            Self::NoneFor { problems, .. }
            | Self::ConfigToml { problems, .. }
            | Self::Read { problems, .. } => problems,
        }
    }
}

/// Something in `config.toml` or a folder of `certs.d` that does not do what it seems to.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct HostsProblem {
    pub effect: HostsEffect,
    /// Which key of which file, why, and what to write instead.
    pub reason: String,
    /// It is in `config.toml`: what is corrected there counts after a restart of containerd.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub needs_restart: bool,
}

impl HostsProblem {
    /// One of a folder in `certs.d`, which containerd reads at each pull.
    pub fn of_hosts(effect: HostsEffect, reason: impl Into<String>) -> Self {
        Self {
            effect,
            reason: reason.into(),
            needs_restart: false,
        }
    }

    /// One of `config.toml`, which containerd reads when it starts.
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
    /// The image's name is refused before any host is asked.
    NameRefused,
    /// containerd goes on as if the file, or the setting, were not there.
    Ignored,
    /// It works, and is probably not what was meant; or it depends on containerd's version.
    Doubtful,
    /// What was not seen decides whether pulls succeed.
    Undecided,
    /// The file was changed after containerd started, which goes by what it had then.
    Changed,
}

/// One host that containerd would ask for the image.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct RegistryHost {
    pub endpoint: Endpoint,
    /// The root of the API on it: `/v2` unless `override_path` says otherwise.
    pub path: String,
    pub kind: HostKind,
    /// Its place in the order in which containerd asks; the first is 0.
    #[serde(default)]
    #[serde(alias = "place")]
    pub position: usize,
    /// The registry that the image's name says, sent as `?ns=` to a host that is another.
    pub namespace: Option<String>,
    /// It may be asked what a tag stands for (`capabilities`). Not so: only by digest.
    pub resolves: bool,
    /// `skip_verify`: containerd takes any certificate.
    #[serde(default)]
    pub skip_verify: bool,
    /// Client certificates that are offered to it.
    #[serde(default)]
    pub client_certificates: usize,
    /// `ca`: files whose authorities are trusted beside the system's.
    #[serde(default)]
    pub ca_files: Vec<String>,
    /// The names of `header`s; their values may be secret.
    #[serde(default)]
    pub headers: Vec<String>,
    /// `dial_timeout`; containerd's own is 30 s.
    #[serde(rename = "dial_timeout_seconds", with = "OptionalSeconds", default)]
    pub dial_timeout: Option<Duration>,
    /// TLS is tried first, and plain http where it fails: a host written `http://` with TLS
    /// settings, or a registry on loopback.
    #[serde(default)]
    pub falls_back_to_http: bool,
}

/// Why a host is asked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum HostKind {
    /// The image's name says so.
    Registry,
    /// A `[host."…"]` of `hosts.toml`.
    Mirror,
    /// `server` of `hosts.toml`: asked after the mirrors.
    Server,
}

impl HostKind {
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
        }
    }
}
