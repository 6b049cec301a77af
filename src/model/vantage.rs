//! Where a probe stands, and what it cannot see from there.

use std::net::SocketAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The place a probe ran at. A pull is done by the node's containerd, with the node's network,
/// resolver, proxy, roots and mirrors; a probe elsewhere may see another world.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Vantage {
    pub network: NetworkView,
    /// The resolver's servers in their order.
    pub nameservers: Vec<SocketAddr>,
    /// Where they come from: a file's path, or `--nameserver`.
    pub resolver_source: String,
    /// Whose resolution is imitated: the order of names and servers.
    pub resolver_emulated: String,
    /// What this probe cannot see and a pull may depend on.
    pub unseen: Vec<Unseen>,
}

/// Whose network stack a probe uses.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkView {
    /// Not in a pod: this machine's own network, be it a node, a bastion or a laptop.
    Machine,
    /// In a pod with hostNetwork.
    Node,
    /// In a pod with a network of its own.
    Pod,
    /// In a pod, of which kind is not known (the downward API gives no addresses).
    PodOrNode,
}

/// Something a pull may depend on that this probe cannot see.
#[derive(
    Clone, Copy, Debug, Deserialize, Eq, JsonSchema, Ord, PartialEq, PartialOrd, Serialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Unseen {
    /// The kubelet's credential provider plugins and the node's own docker config.
    NodeCredentials,
    /// Mirrors and per-host settings in containerd's `certs.d/*/hosts.toml`.
    Mirrors,
    /// containerd's HTTP(S)_PROXY and NO_PROXY.
    Proxy,
    /// The node's trusted roots: those of this place were used.
    NodeRoots,
    /// The node's resolver: that of this place was used.
    NodeResolver,
    /// What images the node already has, and whether the policy asks for a pull at all.
    ImageStore,
}

impl Unseen {
    /// One line for people.
    pub fn describe(self) -> &'static str {
        match self {
            Self::NodeCredentials => {
                "the node's own credentials (kubelet credential providers, its docker config)"
            }
            Self::Mirrors => {
                "containerd's mirrors and per-host settings (certs.d/*/hosts.toml; --hosts-dir names the folder)"
            }
            Self::Proxy => {
                "containerd's proxy settings (those of this process were used, if any; --proxy-from reads a file)"
            }
            Self::NodeRoots => "the node's trusted roots (those of this place were used)",
            Self::NodeResolver => "the node's resolver (that of this place was used)",
            Self::ImageStore => "the images that the node already has",
        }
    }
}
