//! Where a probe stands, and what it cannot see from there.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::kubelet::KubeletVersion;
use super::network::{
    Baseline, Control, Declared, EgressTrial, Link, Metadata, PodEip, ProviderSign, Route,
};
use super::path::Signal;
use super::units::OptionalSeconds;

/// The place a probe ran at. A pull is done by the node's containerd, with the node's network,
/// resolver, proxy, roots and mirrors; a probe elsewhere may see another world.
#[derive(Clone, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Vantage {
    pub network: NetworkView,
    /// The resolver's servers in their order.
    pub nameservers: Vec<SocketAddr>,
    /// Where they come from: a file's path, or `--nameserver`.
    pub resolver_source: String,
    /// Whose resolution is imitated: the order of names and servers.
    pub resolver_emulated: String,
    /// What this probe cannot see and a pull may depend on.
    #[serde(alias = "unseen")]
    pub not_observed: Vec<NotObserved>,
    /// Why it is not seen, where somebody wished that it were.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[serde(alias = "unseen_because")]
    pub not_observed_because: Vec<NotObservedReason>,
    /// What its operator says of the network.
    #[serde(default)]
    pub declared: Declared,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderSign>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// The API server's address as pods are told it (KUBERNETES_SERVICE_HOST).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_host: Option<IpAddr>,
    #[serde(default)]
    pub metadata: Metadata,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_eip: Option<PodEip>,
    /// ExternalIP among `status.addresses` of the node, where it was given or told by `node`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub node_external_ips: Vec<IpAddr>,
    /// This node, as the cluster knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeFacts>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<EgressTrial>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<Baseline>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub controls: Vec<Control>,
    /// Evidence of a path's class that there is none of, and why. It is not evidence of absence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<Missing>,
    /// How long it took to look around.
    #[serde(
        rename = "took_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub took: Option<Duration>,
    /// How long the walks, all done, had to wait for that.
    #[serde(
        rename = "waited_seconds",
        with = "OptionalSeconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub waited: Option<Duration>,
}

impl Vantage {
    /// It is in Huawei Cloud, or one by the same hands.
    pub fn is_huawei(&self) -> bool {
        let sign = self.provider.as_ref();
        sign.is_some_and(|sign| sign.provider.is_huawei())
    }

    /// Why this is not seen, in words.
    pub fn reasons(&self, what: NotObserved) -> impl Iterator<Item = &str> {
        let because = self.not_observed_because.iter();
        because
            .filter(move |because| because.what == what)
            .map(|because| &*because.reason)
    }
}

/// A node of a cluster.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NodeFacts {
    pub name: String,
    pub created: Option<Timestamp>,
    /// `None`: its kubelet is not heard of.
    pub ready: Option<bool>,
    /// No pod is put there (`kubectl cordon`).
    pub unschedulable: bool,
    pub provider_id: Option<String>,
    pub zone: Option<String>,
    pub internal_ips: Vec<IpAddr>,
    pub external_ips: Vec<IpAddr>,
    /// `containerd 1.6.20`.
    pub runtime: Option<String>,
    /// The kubelet's version.
    pub kubelet: Option<String>,
    pub os_image: Option<String>,
    /// Who tells this.
    pub source: String,
}

impl NodeFacts {
    /// The kubelet's version, where the Node tells one that can be read.
    pub fn kubelet_version(&self) -> Option<KubeletVersion> {
        self.kubelet.as_deref()?.parse().ok()
    }

    /// A node pulls all that it runs when it is new, and its routes, NAT rules and add-ons may still be on
    /// their way: what is slow or fails then may not last.
    const YOUNG: Duration = Duration::from_mins(15);

    /// How old it is.
    pub fn age(&self, now: Timestamp) -> Option<Duration> {
        Duration::try_from(now.duration_since(self.created?)).ok()
    }

    pub fn is_young(&self, now: Timestamp) -> bool {
        self.age(now).is_some_and(|age| age < Self::YOUNG)
    }

    /// What a path depends on is the same.
    pub fn has_ways_of(&self, other: &Self) -> bool {
        self.external_ips == other.external_ips && self.provider_id == other.provider_id
    }
}

/// Evidence that could not be had.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct Missing {
    pub signal: Signal,
    pub reason: String,
    /// What it would have told.
    #[serde(alias = "would_tell")]
    pub would_show: String,
}

/// Whose network stack a probe uses.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NetworkView {
    /// Not in a pod: this machine's own network, be it a node, a bastion or a laptop.
    Machine,
    /// In a pod with hostNetwork.
    Node,
    /// In a pod with a network of its own.
    Pod,
    /// In a pod, of which kind is not known (the downward API gives no addresses).
    #[default]
    PodOrNode,
}

/// Something a pull may depend on that this probe cannot see.
#[derive(Clone, Copy, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NotObserved {
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

/// A file of the node that was named, and that did not tell.
#[derive(Clone, Debug, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub struct NotObservedReason {
    pub what: NotObserved,
    pub reason: String,
}

impl NotObserved {
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
