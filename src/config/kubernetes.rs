//! Section `kubernetes`: what is read from the API server, and which Secrets may be read.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::{self, ConfigError};
use super::targets::CredentialFiles;
use super::values::{CountWithin, HostPort};
use crate::model::workload::SecretRefs;
use crate::workload::discovery::Patterns;

/// What is read from the API server. docs/kubernetes.md has the rights that each key needs.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// `node`: also checks the images of this node's pods.
    pub discover: Discover,
    /// `on`: watches this node's own Node for its addresses, age, zone, versions, and whether it is cordoned.
    /// Default: `on` with `discover: node`.
    pub node: Option<Switch>,
    /// `pods`: publishes findings as Events on the pods that wait for the image.
    pub events: Events,
    /// A kubeconfig file to use instead of the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Registries (domains of images) to check; `*` matches any characters.
    pub registries: Patterns,
    /// Namespaces of pods to check; `*` matches any characters.
    pub namespaces: Patterns,
    /// Namespaces of the platform: their images are counted separately and not checked.
    pub platform_namespaces: Vec<String>,
    /// The limit of images to check, besides `targets`.
    pub max_targets: CountWithin<1, 1000>,
    /// Registries on the node itself, HOST:PORT, that images of pods may lead to, besides those that containerd's
    /// settings name.
    local_registries: Vec<HostPort>,
    /// Which pull secrets may be read from the API server.
    pub secrets: SecretAccess,
    /// The Secrets that may be read with `secrets: named`.
    pub named_secrets: Vec<SecretRefs>,
    /// Mounted credential files for the images of pods, tried after the pod's own Secrets.
    pub credential: CredentialFiles,
}

impl Default for Kubernetes {
    fn default() -> Self {
        Self {
            discover: Discover::Off,
            node: None,
            events: Events::Off,
            kubeconfig: None,
            registries: Patterns::default(),
            namespaces: Patterns::default(),
            platform_namespaces: ["kube-system", "kube-public", "kube-node-lease"]
                .map(ToOwned::to_owned)
                .to_vec(),
            max_targets: CountWithin(50),
            local_registries: Vec::new(),
            secrets: SecretAccess::None,
            named_secrets: Vec::new(),
            credential: CredentialFiles::default(),
        }
    }
}

/// `kubernetes.discover`: whose images are checked besides `targets`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Discover {
    /// No pods are watched.
    #[default]
    Off,
    /// The images of this node's pods; pods of other nodes are not read.
    Node,
}

/// `on` or `off`.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    /// The feature is not used, and needs no rights.
    Off,
    /// The feature is used.
    On,
}

/// `kubernetes.events`: where findings are published as Events.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Events {
    /// No Events are written.
    #[default]
    Off,
    /// On the pods of this node that wait for the image.
    Pods,
}

/// `kubernetes.secrets`: which Secrets may be read from the API server.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SecretAccess {
    /// None. Mounted files are still used.
    #[default]
    None,
    /// Those of `named_secrets`; a Role with their names suffices.
    Named,
    /// Those that pods name. The token of each node can then read every Secret.
    Discovered,
}

impl Kubernetes {
    /// Hosts and ports of registries on the node itself that images of pods may lead to.
    pub fn local_registries(&self) -> impl Iterator<Item = (String, u16)> {
        let all = self.local_registries.iter();
        all.map(|one| (one.host.clone(), one.port))
    }

    /// Whether this node's own Node is watched.
    pub fn follows_node(&self) -> bool {
        match self.node {
            Some(switch) => switch == Switch::On,
            None => self.discover == Discover::Node,
        }
    }

    /// Checks keys that depend on each other.
    ///
    /// # Errors
    /// If `events` needs `discover`, or `named_secrets` and `secrets` contradict each other.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fail = |message: &str| Err(error::whole(message.to_owned()));
        if self.events == Events::Pods && self.discover == Discover::Off {
            return fail(
                "kubernetes.events is pods but kubernetes.discover is off, so the waiting pods are unknown; write discover: node",
            );
        }
        match self.secrets {
            SecretAccess::Named if self.named_secrets.is_empty() => fail(
                "kubernetes.secrets is named but kubernetes.named_secrets is empty; list namespaces and names there",
            ),
            SecretAccess::None | SecretAccess::Discovered if !self.named_secrets.is_empty() => {
                fail(
                    "kubernetes.named_secrets is used only with kubernetes.secrets: named; write that, or remove the list",
                )
            }
            _ => Ok(()),
        }
    }
}
