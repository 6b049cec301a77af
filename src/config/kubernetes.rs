//! `kubernetes`: what is taken from the cluster's API, and what may be.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::error::ConfigError;
use super::targets::CredentialFiles;
use super::values::CountWithin;
use crate::model::workload::SecretRefs;
use crate::workload::discovery::Patterns;

/// What the cluster is asked for.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct Kubernetes {
    /// Whether images of this node's pods are checked too.
    pub discover: Discover,
    /// Whether this node's own Node is followed: its addresses, age, zone, versions, whether it is cordoned.
    /// Where this is not said, it is as soon as `discover` is `node`.
    pub node: Option<Switch>,
    /// Whether findings are published as Events on the pods that wait for their image.
    pub events: Events,
    /// Another way to the API server than the pod's service account.
    pub kubeconfig: Option<PathBuf>,
    /// Domains of images that count, `*` for any characters.
    pub registries: Patterns,
    /// Namespaces of pods that count.
    pub namespaces: Patterns,
    /// Namespaces whose pods belong to the platform: their images are told apart and not checked.
    pub platform_namespaces: Vec<String>,
    /// Images that are checked at most, besides `targets`.
    pub max_targets: CountWithin<1, 1000>,
    /// Which pull secrets are read by the API.
    pub secrets: SecretAccess,
    /// With `secrets: named`: those that may be read.
    pub named_secrets: Vec<SecretRefs>,
    /// For images of pods: mounted files with credentials, which count behind the pod's own Secrets.
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
            secrets: SecretAccess::None,
            named_secrets: Vec::new(),
            credential: CredentialFiles::default(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Discover {
    #[default]
    Off,
    /// The pods of this node, and no others'.
    Node,
}

#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Switch {
    Off,
    On,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum Events {
    #[default]
    Off,
    /// On pods of this node.
    Pods,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum SecretAccess {
    /// None; files that are mounted still count.
    #[default]
    None,
    /// Those of `named_secrets`, by a Role with their names.
    Named,
    /// Those that pods of this node name. Each node's token can then read every Secret.
    Discovered,
}

impl Kubernetes {
    /// This node's own Node is followed.
    pub fn follows_node(&self) -> bool {
        match self.node {
            Some(switch) => switch == Switch::On,
            None => self.discover == Discover::Node,
        }
    }

    /// What one entry alone can't show.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fail = |message: &str| Err(ConfigError::whole(message.to_owned()));
        if self.events == Events::Pods && self.discover == Discover::Off {
            return fail(
                "kubernetes.events is pods, and kubernetes.discover is off: which pods wait is not known then; write discover: node",
            );
        }
        match self.secrets {
            SecretAccess::Named if self.named_secrets.is_empty() => fail(
                "kubernetes.secrets is named, and kubernetes.named_secrets names none; list namespace and names there",
            ),
            SecretAccess::None | SecretAccess::Discovered if !self.named_secrets.is_empty() => {
                fail(
                    "kubernetes.named_secrets counts only with kubernetes.secrets: named; write that, or take the list away",
                )
            }
            _ => Ok(()),
        }
    }
}
